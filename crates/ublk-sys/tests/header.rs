//! Compares this crate with the kernel's own `linux/ublk_cmd.h`, in both directions: what the crate
//! has must be in the header with the same value and layout, and what the header has must be in
//! the crate, so that a new kernel shows up here.
//!
//! `UBLK_UAPI_INCLUDE` names the directory that holds `linux/ublk_cmd.h`.

mod header {
    pub(crate) mod c_program;
    pub(crate) mod parse;
}

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs, path::PathBuf};

use header::{c_program, parse};
use ublk_sys::table::{CONSTANTS, STRUCTS};

/// The inline functions of the header: name, a call in C, and what this crate answers to that call.
#[allow(deprecated)] // `ublksrv_get_flags` is here to be compared.
fn helpers() -> Vec<(&'static str, &'static str, u64)> {
    let desc = ublk_sys::ublksrv_io_desc { op_flags: 0x000b_a305, ..Default::default() };
    let addr = 0x1234_5678_9abc_def0;
    let reg = ublk_sys::ublk_sqe_addr_to_auto_buf_reg(addr);
    vec![
        (
            "ublksrv_get_op",
            "ublksrv_get_op(&(struct ublksrv_io_desc){ .op_flags = 0x000ba305 })",
            ublk_sys::ublksrv_get_op(&desc).into(),
        ),
        (
            "ublksrv_get_flags",
            "ublksrv_get_flags(&(struct ublksrv_io_desc){ .op_flags = 0x000ba305 })",
            ublk_sys::ublksrv_get_flags(&desc).into(),
        ),
        (
            "ublk_sqe_addr_to_auto_buf_reg",
            "ublk_sqe_addr_to_auto_buf_reg(0x123456789abcdef0).flags",
            reg.flags.into(),
        ),
        (
            "ublk_auto_buf_reg_to_sqe_addr",
            "ublk_auto_buf_reg_to_sqe_addr(&(struct ublk_auto_buf_reg){ \
             .index = 0xdef0, .flags = 0xbc, .reserved0 = 0x9a, .reserved1 = 0x12345678 })",
            ublk_sys::ublk_auto_buf_reg_to_sqe_addr(&reg),
        ),
        (
            "ublk_shmem_zc_addr",
            "ublk_shmem_zc_addr(0xbeef, 0xdeadf00d)",
            ublk_sys::ublk_shmem_zc_addr(0xbeef, 0xdead_f00d),
        ),
        (
            "ublk_shmem_zc_index",
            "ublk_shmem_zc_index(0x123456789abcdef0)",
            ublk_sys::ublk_shmem_zc_index(addr).into(),
        ),
        (
            "ublk_shmem_zc_offset",
            "ublk_shmem_zc_offset(0x123456789abcdef0)",
            ublk_sys::ublk_shmem_zc_offset(addr).into(),
        ),
    ]
}

#[test]
fn values_and_layouts_are_those_of_the_header() {
    let ours = what_this_crate_says();
    let expressions: Vec<&str> = ours.keys().map(String::as_str).collect();
    let theirs = c_program::evaluate(&include_dir(), &expressions);

    let different: Vec<String> = ours
        .iter()
        .filter(|&(expression, value)| theirs[expression] != *value)
        .map(|(expression, value)| {
            format!("{expression}: {value} here, {} in the header", theirs[expression])
        })
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn the_header_has_nothing_that_this_crate_lacks() {
    let path = include_dir().join("linux/ublk_cmd.h");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header = parse::declarations(&text);

    let mut ours = BTreeSet::new();
    ours.extend(CONSTANTS.iter().copied().flatten().map(|(name, _)| (*name).to_owned()));
    ours.extend(helpers().into_iter().map(|(name, ..)| name.to_owned()));
    for layout in STRUCTS {
        ours.insert(layout.name.to_owned());
        ours.extend(layout.fields.iter().map(|f| format!("{}.{}", layout.name, f.name)));
        ours.extend(layout.aliases.iter().map(|(other, _)| format!("{}.{other}", layout.name)));
    }

    // A header with fewer names is another file, or one this parser cannot read.
    assert!(header.len() > 150, "only {} names found in {}", header.len(), path.display());
    let missing: Vec<&String> = header.difference(&ours).collect();
    assert!(missing.is_empty(), "in the header but not in ublk-sys: {missing:#?}");
}

/// C expressions and the values that this crate gives them.
fn what_this_crate_says() -> BTreeMap<String, i128> {
    let mut says = BTreeMap::new();
    for (name, value) in CONSTANTS.iter().copied().flatten() {
        says.insert((*name).to_owned(), i128::from(*value));
    }
    for (_, expression, value) in helpers() {
        says.insert(expression.to_owned(), value.into());
    }
    for layout in STRUCTS {
        let name = layout.name;
        says.insert(format!("sizeof(struct {name})"), layout.size as i128);
        for field in layout.fields {
            // Rust cannot name a field `type`.
            let c_name = field.name.trim_end_matches('_');
            let size = format!("sizeof(((struct {name} *)0)->{c_name})");
            says.insert(size, field.size as i128);
            says.insert(format!("offsetof(struct {name}, {c_name})"), field.offset as i128);
        }
        for (other, ours) in layout.aliases {
            let field = layout.fields.iter().find(|f| f.name == *ours).expect("a listed field");
            says.insert(format!("offsetof(struct {name}, {other})"), field.offset as i128);
        }
    }
    says
}

fn include_dir() -> PathBuf {
    let Some(dir) = env::var_os("UBLK_UAPI_INCLUDE") else {
        panic!(
            "UBLK_UAPI_INCLUDE is not set. It names the include directory of Linux 7.3's headers \
             (the one with linux/ublk_cmd.h); `npm test` downloads them and sets it."
        );
    };
    let dir = PathBuf::from(dir);
    assert!(
        dir.join("linux/ublk_cmd.h").is_file(),
        "UBLK_UAPI_INCLUDE is {}, but there is no linux/ublk_cmd.h in it; `npm test` sets it right",
        dir.display()
    );
    dir
}
