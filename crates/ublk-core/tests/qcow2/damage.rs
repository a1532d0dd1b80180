//! Damaged images, many of them: each is refused or served, and never read where the file is not.
//!
//! For two seconds, or as many as `UBLK_FUZZ` says.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use ublk_core::targets::Target;

use super::tools::{Folder, Numbers, contents};

/// The largest disk that is read as a whole.
const LARGEST: u64 = 64 << 20;

fn images() -> Folder {
    let folder = Folder::new();
    fs::write(folder.at("raw"), [9; 100_000]).unwrap();
    for (name, options, backing) in [
        ("small", "-o cluster_size=4k", "-b raw -F raw"),
        ("old", "-o cluster_size=512,compat=0.10", "-b small -F qcow2"),
        ("parts", "-o cluster_size=16k,extended_l2=on", "-b old -F qcow2"),
    ] {
        folder.run(&format!("qemu-img create -q -f qcow2 {options} {backing} {name} 3M"));
        let commands =
            ["write -P 1 0 40k", "write -P 2 1M 17k", "write -z 2M 32k", "write 2900k 8k"];
        folder.change(name, &commands.map(str::to_owned));
    }
    folder
}

/// Where the metadata of an image are: header, both tables, both tables of counts.
fn metadata(image: &[u8]) -> Vec<u64> {
    let at = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let (l1, counts) = (at(40), at(48));
    let place = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
    let of = |table: u64| place(at(usize::try_from(table).unwrap()));
    vec![0, 0, l1, of(l1), of(l1), of(l1 + 8), counts, of(counts)]
}

#[test]
fn an_image_with_flipped_bytes_is_refused_or_read_inside_of_its_file() {
    let folder = images();
    let seconds = std::env::var("UBLK_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut numbers = Numbers(std::env::var("UBLK_SEED").map_or(1, |seed| seed.parse().unwrap()));
    let end = Instant::now() + Duration::from_secs(seconds);
    let wholes = ["small", "old", "parts"].map(|name| (name, fs::read(folder.at(name)).unwrap()));
    let (mut tried, mut served) = (0_u64, 0_u64);
    while Instant::now() < end || tried < 300 {
        let (name, whole) = &wholes[usize::try_from(numbers.below(3)).unwrap()];
        let places = metadata(whole);
        let flips: Vec<_> =
            (0..=numbers.below(4)).map(|_| flip(whole, &places, &mut numbers)).collect();
        for &(at, byte) in &flips {
            folder.poke(name, at, &[byte]);
        }
        tried += 1;
        match folder.open("parts") {
            Ok(target) if target.geometry().size <= LARGEST => {
                served += 1;
                // Checks each step.
                contents(&target);
            }
            Ok(_) => served += 1,
            Err(error) => assert!(error.hint.is_some(), "{flips:?}: {error}"),
        }
        for &(at, _) in &flips {
            folder.poke(name, at, &[whole[usize::try_from(at).unwrap()]]);
        }
    }
    // Not all flips are of what is read, and not all are noticed.
    assert!(served > 0 && served < tried, "{served} of {tried}");
    if seconds > 2 {
        writeln!(std::io::stderr(), "{tried} damaged images, {served} served").unwrap();
    }
    folder.open("parts").unwrap();
}

/// A place in the file, more likely in the metadata, and another byte for it.
fn flip(whole: &[u8], places: &[u64], numbers: &mut Numbers) -> (u64, u8) {
    let length = whole.len() as u64;
    let at = match numbers.below(5) {
        0 => numbers.below(length),
        _ => {
            let place = places[usize::try_from(numbers.below(places.len() as u64)).unwrap()];
            let width = [16, 120, 600][usize::try_from(numbers.below(3)).unwrap()];
            (place + numbers.below(width)).min(length - 1)
        }
    };
    let old = whole[usize::try_from(at).unwrap()];
    let new = match numbers.below(3) {
        0 => old ^ 1 << numbers.below(8),
        1 => u8::try_from(numbers.below(256)).unwrap(),
        _ => [0, 0xff, 0x80, 1][usize::try_from(numbers.below(4)).unwrap()],
    };
    (at, new)
}
