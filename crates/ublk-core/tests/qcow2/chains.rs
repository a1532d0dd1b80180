//! Chains of images hold what `qemu-img` reads from them.

use std::fs;

use ublk_core::targets::file::Direct;
use ublk_core::targets::qcow2::{Qcow2, Qcow2Options};
use ublk_core::targets::{Op, Plan, Presentation, Step, Target};

use super::tools::{Folder, Numbers, contents, read, request};

const KIB: u64 = 1024;

/// Random writes, zeros and discards to an image of so many KiB.
fn scribble(folder: &Folder, image: &str, size: u64, numbers: &mut Numbers) {
    let command = |numbers: &mut Numbers| {
        let at = numbers.below(size * 2) * 512;
        let length = (1 + numbers.below(80)) * 512;
        let length = length.min(size * KIB - at);
        match numbers.below(8) {
            0 => format!("write -z {at} {length}"),
            1 => format!("write -z -u {at} {length}"),
            2 => format!("discard {at} {length}"),
            _ => format!("write -P {} {at} {length}", 1 + numbers.below(255)),
        }
    };
    let commands: Vec<_> = (0..40).map(|_| command(numbers)).collect();
    folder.change(image, &commands);
}

/// A raw file, and two images of other sizes above, with these options.
fn chain(seed: u64, options: &[&str; 2]) -> Folder {
    let folder = Folder::new();
    let mut numbers = Numbers(seed);
    let raw: Vec<u8> = (0..(1 + numbers.below(900)) * KIB + 100)
        .map(|_| u8::try_from(numbers.below(256)).unwrap())
        .collect();
    fs::write(folder.at("raw"), raw).unwrap();
    let sizes = [1 + numbers.below(2000), 1 + numbers.below(3000)];
    let backings = ["-b raw -F raw", "-b middle -F qcow2"];
    for (number, name) in ["middle", "top"].iter().enumerate() {
        let (options, backing, size) = (options[number], backings[number], sizes[number]);
        folder.run(&format!("qemu-img create -q -f qcow2 {options} {backing} {name} {size}K"));
        scribble(&folder, name, size, &mut numbers);
    }
    folder
}

#[test]
fn a_chain_of_three_holds_what_qemu_reads_whatever_the_format_and_the_sizes() {
    let kinds = [
        ["", ""],
        ["-o cluster_size=4k", "-o cluster_size=512"],
        ["-o compat=0.10", "-o cluster_size=2M"],
        ["-o extended_l2=on,cluster_size=16k", "-o cluster_size=1k"],
        ["-o cluster_size=2k,lazy_refcounts=on", "-o extended_l2=on,cluster_size=128k"],
        ["-o extended_l2=on,preallocation=metadata", "-o compat=0.10,cluster_size=512"],
    ];
    for (seed, options) in (1..).zip(kinds.iter().cycle().take(18)) {
        let folder = chain(seed, options);
        let expected = folder.converted("top");
        let target = folder.open("top").unwrap();
        assert_eq!(target.files().len(), 3);
        assert!(contents(&target) == expected, "seed {seed}, {options:?}");
    }
}

#[test]
fn a_file_that_ends_within_a_cluster_reads_as_zeros_behind_its_end() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 image 1M");
    folder.change("image", &["write -P 7 0 64k".into()]);
    let file = fs::OpenOptions::new().write(true).open(folder.at("image")).unwrap();
    file.set_len(file.metadata().unwrap().len() - 40_000).unwrap();
    let expected = folder.converted("image");
    assert_eq!(expected[64 * 1024 - 40_000 - 1..][..2], [7, 0]);
    assert!(contents(&folder.open("image").unwrap()) == expected);
}

#[test]
fn what_the_index_calls_a_hole_is_zeros() {
    let folder = chain(77, &["-o cluster_size=4k", ""]);
    let target = folder.open("top").unwrap();
    let (mut at, size) = (0, target.geometry().size);
    let (mut holes, all) = (0, contents(&target));
    while at < size {
        let found = target.allocation(at, size - at).unwrap();
        let range = usize::try_from(at).unwrap()..usize::try_from(at + found.length).unwrap();
        if found.hole {
            holes += 1;
            assert!(all[range].iter().all(|&byte| byte == 0), "at {at}");
        }
        at += found.length;
    }
    assert!(holes > 0);
}

#[test]
fn a_request_never_needs_more_steps_than_the_target_says() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 -o cluster_size=512 image 4M");
    // Every second sector, so that no two are one piece.
    let commands: Vec<_> =
        (0..4096).map(|number| format!("write -P 7 {} 512", number * 1024)).collect();
    for some in commands.chunks(1024) {
        folder.change("image", some);
    }
    let target = folder.open("image").unwrap();
    let chunk = target.geometry().chunk;
    assert_eq!((target.max_steps(), chunk), (64, 32 * KIB));
    let mut bytes = vec![0; 1 << 20];
    read(&target, 512, &mut bytes[512..]);
    assert_eq!(bytes[512..1536], [[0; 512], [7; 512]].concat());

    // One piece, and so no rule.
    folder.run("qemu-img create -q -f qcow2 -o preallocation=falloc plain 4M");
    let plain = folder.open("plain").unwrap();
    assert_eq!((plain.max_steps(), plain.geometry().chunk), (1, 0));
}

#[test]
fn a_device_refuses_writes_and_has_the_block_that_is_asked_for() {
    let folder = Folder::new();
    folder.run("qemu-img create -q -f qcow2 image 1M");
    let target = folder.open("image").unwrap();
    assert!(target.geometry().read_only && target.geometry().logical_block == 512);
    let mut steps = [Step::EMPTY; 1];
    for op in [Op::Write, Op::Discard, Op::WriteZeroes] {
        let planned = target.plan(&request(op, 0, 4096), &mut Plan::new(&mut steps));
        assert_eq!(planned.unwrap_err().0, libc::EROFS);
    }
    let mut plan = Plan::new(&mut steps);
    target.plan(&request(Op::Flush, 0, 0), &mut plan).unwrap();
    assert!(plan.is_empty());
    let asked = Presentation { logical_block: Some(4096), read_only: false };
    let options = Qcow2Options { asked, direct: Direct::No, ..Qcow2Options::default() };
    let larger = Qcow2::open(&folder.at("image"), &options).unwrap();
    assert!(larger.geometry().read_only && larger.geometry().logical_block == 4096);
}
