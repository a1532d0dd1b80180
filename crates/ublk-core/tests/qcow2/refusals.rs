//! Images that are refused, each with the reason and a hint.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use ublk_core::error::{Code, Error};
use ublk_core::targets::file::Direct;
use ublk_core::targets::qcow2::{Qcow2, Qcow2Options};

use super::tools::Folder;

fn check(error: &Error, code: Code, says: &str, hints: &str) {
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(says), "{error}");
    let hint = error.hint.as_deref().unwrap_or("");
    assert!(hint.contains(hints), "{error}: {hint}");
}

#[test]
fn what_ublk_does_not_read_is_named_with_the_command_that_removes_it() {
    let folder = Folder::new();
    fs::write(folder.at("raw"), [5; 1 << 20]).unwrap();
    folder.run("qemu-img convert -c -f raw -O qcow2 raw compressed");
    // Without a key: qemu-img measures the processor for one, and fails on a machine that has much to do.
    folder.run("qemu-img create -q -f qcow2 encrypted 1M");
    folder.poke("encrypted", 32, &[0, 0, 0, 2]);
    folder.run("qemu-img create -q -f qcow2 -o data_file=outside external 1M");
    folder.run("qemu-img create -q -f qcow2 newer 1M");
    folder.poke("newer", 72, &[1]);
    for (image, says) in [
        ("compressed", "a compressed cluster at byte 0 of the disk"),
        ("encrypted", "encryption"),
        ("external", "a data file beside"),
        ("newer", "feature 56"),
    ] {
        check(&folder.refused(image), Code::BadBackend, says, "qemu-img convert -O qcow2");
    }
    folder.run("qemu-img create -q -f qcow2 old 1M");
    folder.poke("old", 4, &[0, 0, 0, 1]);
    check(&folder.refused("old"), Code::BadBackend, "version 1", "qemu-img convert");
    check(&folder.refused("raw"), Code::BadBackend, "not a qcow2 image", "targets.file");
}

#[test]
fn an_image_that_was_not_closed_or_is_corrupt_is_not_served() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 -o lazy_refcounts=on image 1M");
    for (bits, says) in [(1, "marked as dirty"), (2, "marked as corrupt")] {
        folder.poke("image", 79, &[bits]);
        check(&folder.refused("image"), Code::BadBackend, says, "qemu-img check -r");
    }
}

#[test]
fn a_backing_file_is_found_beside_its_image_and_has_a_declared_format() {
    let folder = Folder::new();
    let create = |name: &str, backing: &str, format: &str| {
        folder.run("qemu-img create -q -f qcow2 other 1M");
        folder.run(&format!("qemu-img create -q -f qcow2 -u -b {backing} -F {format} {name} 1M"));
    };
    create("lost", "gone", "qcow2");
    check(&folder.refused("lost"), Code::NoBackend, "gone", "qemu-img rebase -u");
    create("foreign", "other", "vmdk");
    check(&folder.refused("foreign"), Code::BadBackend, "the format vmdk", "qemu-img convert");
    create("liar", "./liar", "qcow2");
    check(&folder.refused("liar"), Code::BadBackend, "below itself", "qemu-img rebase");
    create("one", "two", "qcow2");
    create("two", "one", "qcow2");
    check(&folder.refused("one"), Code::BadBackend, "below itself", "qemu-img rebase");
    create("remote", "nbd://localhost/x", "raw");
    check(&folder.refused("remote"), Code::BadBackend, "no path", "copy the backing file");
    create("silent", "other", "qcow2");
    // The extension with the format becomes one that nobody knows.
    assert_eq!(folder.peek("silent", 112), 0xe279_2aca_u32.to_be_bytes());
    folder.poke("silent", 112, &[1]);
    check(&folder.refused("silent"), Code::BadBackend, "does not declare", "qemu-img rebase -u");

    fs::create_dir(folder.at("below")).unwrap();
    folder.run("qemu-img create -q -f qcow2 below/base 1M");
    folder.run("qemu-img create -q -f qcow2 -b base -F qcow2 below/image");
    let target = folder.open("below/image").unwrap();
    assert_eq!(ublk_core::targets::Target::files(&target).len(), 2);
    create("missing-below", "below/gone", "raw");
    let error = folder.refused("missing-below");
    check(&error, Code::NoBackend, "the backing file of", "qemu-img rebase");
}

#[test]
fn damage_is_named_with_its_place() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 image 1M");
    folder.change("image", &["write -P 1 0 256k".into()]);
    let whole = fs::read(folder.at("image")).unwrap();
    let l1 = u64::from_be_bytes(folder.peek("image", 40));
    let l2 = u64::from_be_bytes(folder.peek("image", l1)) & 0x00ff_ffff_ffff_fe00;
    let far = (1_u64 << 40).to_be_bytes();
    for (at, bytes, place, says) in [
        (20, &[0, 0, 0, 30][..], 20, "clusters of 2^30"),
        (24, &far, 36, "an L1 table of"),
        (40, &far, 40, "behind the end"),
        (47, &[1], 40, "an L1 table at byte"),
        (116, &[0xff; 4], 112, "an extension of the header"),
        (8, &far, 8, "the name of a backing file"),
        (100, &[0, 0, 0, 9], 100, "a header of 9 bytes"),
        (l1, &far, l1, "an L2 table"),
        (l1 + 7, &[1], l1, "of the L1 table"),
        (l2, &far, l2, "a cluster at byte"),
        (l2 + 15, &[2], l2 + 8, "of an L2 table"),
    ] {
        if at == 8 {
            folder.poke("image", 16, &[0, 0, 0, 5]);
        }
        folder.poke("image", at, bytes);
        let error = folder.refused("image");
        check(&error, Code::BadBackend, &format!("at byte {place}: "), "from a backup");
        assert!(error.message.contains(says), "{error}");
        fs::write(folder.at("image"), &whole).unwrap();
    }
    folder.open("image").unwrap();
    // The end of the file is missing.
    let cut = fs::OpenOptions::new().write(true).open(folder.at("image")).unwrap();
    cut.set_len(l2 + 100).unwrap();
    check(&folder.refused("image"), Code::BadBackend, "an L2 table", "from a backup");
}

#[test]
fn two_entries_cannot_share_a_table() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 image 2G");
    folder.change("image", &["write 0 64k".into()]);
    let l1 = u64::from_be_bytes(folder.peek("image", 40));
    let entry: [u8; 8] = folder.peek("image", l1);
    folder.poke("image", l1 + 8, &entry);
    check(&folder.refused("image"), Code::BadBackend, "a second use", "from a backup");
}

#[test]
fn qemu_and_ublk_keep_each_other_from_writing_to_what_the_other_reads() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 base 1M");
    folder.run("qemu-img create -q -f qcow2 -b base -F qcow2 image");
    let writes = |image: &str| {
        let mut command = Command::new("qemu-io");
        let done = command.args(["-c", "write 0 4k", image]).current_dir(&folder.path).output();
        done.unwrap().status.success()
    };
    let target = folder.open("image").unwrap();
    let second = folder.open("image").unwrap();
    assert!(!writes("image") && !writes("base"), "an image that is read");
    drop((target, second));
    assert!(writes("image"));

    let mut qemu = Command::new("qemu-io")
        .args(["image"])
        .current_dir(&folder.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = qemu.stdin.take().unwrap();
    stdin.write_all(b"write 0 4k\n").unwrap();
    let mut lines = BufReader::new(qemu.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("wrote")));
    check(&folder.refused("image"), Code::Busy, "a program writes to it", "--no-lock");
    folder.open("base").expect("QEMU only reads the base, too");
    let unlocked = Qcow2Options { unlocked: true, direct: Direct::No, ..Qcow2Options::default() };
    Qcow2::open(&folder.at("image"), &unlocked).unwrap();
    drop(stdin);
    qemu.wait().unwrap();
    folder.open("image").unwrap();
}
