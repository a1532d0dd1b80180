use super::super::table::{Condition, Table};
use super::*;

const SHAPE: Shape = Shape {
    zone_size: 1 << 20,
    capacity: 1 << 20,
    count: 100,
    conventional: 2,
    max_open: 0,
    max_active: 0,
};

fn file() -> File {
    let file = in_memory().unwrap();
    state::fill(&file, &SHAPE).unwrap();
    file
}

fn open(file: &File, boot: u128) -> Table<Store> {
    let boot = Boot::simulated(boot);
    let (store, zones) = Store::open(Some((file.try_clone().unwrap(), &boot)), &SHAPE).unwrap();
    Table::new(SHAPE, zones, store)
}

fn zones(file: &File, boot: u128) -> Vec<Zone> {
    let boot = Boot::simulated(boot);
    Store::open(Some((file.try_clone().unwrap(), &boot)), &SHAPE).unwrap().1
}

/// Which words the next flush writes.
fn words(table: &mut Table<Store>) -> std::ops::Range<u32> {
    let id = table.records.durable.capture();
    table.records.durable.record(id)
}

const WRITTEN: Zone = Zone { condition: Condition::ImplicitlyOpen, written: 4096 };

#[test]
fn a_server_of_the_same_boot_finds_the_zones_as_the_last_one_left_them() {
    let file = file();
    let mut table = open(&file, 1);
    table.write(50 << 20, 4096).unwrap();
    table.done(50 << 20, 4096);
    table.write(51 << 20, 4096).unwrap();
    table.finish(99 << 20).unwrap();
    drop(table);
    let zones = zones(&file, 1);
    assert_eq!(zones[1].condition, Condition::Conventional);
    assert_eq!(zones[50], WRITTEN);
    assert_eq!(zones[51], SHAPE.fresh(51), "its write was not done");
    assert_eq!(zones[99].condition, Condition::Full);
    assert_eq!(zones[2], SHAPE.fresh(2));
}

#[test]
fn a_server_of_another_boot_finds_what_was_made_durable() {
    let file = file();
    let mut table = open(&file, 1);
    table.write(50 << 20, 4096).unwrap();
    table.done(50 << 20, 4096);
    table.records.close().unwrap();
    table.write(60 << 20, 4096).unwrap();
    table.done(60 << 20, 4096);
    drop(table);
    let mut next = open(&file, 2);
    assert_eq!(words(&mut next), 0..0);
    drop(next);
    let zones = zones(&file, 2);
    assert_eq!([zones[50], zones[60]], [WRITTEN, SHAPE.fresh(60)]);
}

#[test]
fn what_the_last_server_of_the_boot_did_not_make_durable_is_left_to_the_next_flush() {
    let file = file();
    let mut table = open(&file, 1);
    table.write(50 << 20, 4096).unwrap();
    table.done(50 << 20, 4096);
    drop(table);
    let mut next = open(&file, 1);
    assert!(words(&mut next).contains(&50));
    assert_eq!(word(&next.records.durable.all()[50 * WORD..51 * WORD]), WRITTEN.word());
}

#[test]
fn a_report_is_what_has_been_done() {
    let mut table = open(&file(), 1);
    let report = |table: &Table<Store>| {
        let mut bytes = [0; 64];
        table.records.reports.read_exact_at(&mut bytes, Store::place(7)).unwrap();
        bytes
    };
    table.write(7 << 20, 4096).unwrap();
    let begun = Zone { written: 0, ..WRITTEN };
    assert_eq!(report(&table), SHAPE.record(7, begun).to_bytes());
    table.done(7 << 20, 4096);
    assert_eq!(report(&table), SHAPE.record(7, WRITTEN).to_bytes());
}

#[test]
fn a_file_of_an_earlier_release_is_taken_over() {
    let file = file();
    let mut table = open(&file, 1);
    table.write(50 << 20, 4096).unwrap();
    table.done(50 << 20, 4096);
    drop(table);
    file.write_all_at(&[0; 32], VERSION as u64).unwrap();
    file.set_len(older_length(&SHAPE)).unwrap();
    let mut header = [0; 4096];
    file.read_exact_at(&mut header, 0).unwrap();
    assert!(SHAPE.check(&header, older_length(&SHAPE)).is_ok());
    assert_eq!(zones(&file, 1)[50], WRITTEN);
    file.read_exact_at(&mut header, 0).unwrap();
    assert!(SHAPE.check(&header, older_length(&SHAPE)).is_err());
    assert!(SHAPE.check(&header, SHAPE.length()).is_ok());
    assert_eq!(zones(&file, 2)[50], WRITTEN);
}

#[test]
fn a_file_that_is_cut_is_an_error_and_kills_nobody() {
    let file = file();
    let mut table = open(&file, 1);
    file.set_len(0).unwrap();
    table.write(50 << 20, 4096).unwrap();
    table.done(50 << 20, 4096);
    let mut header = [0; 4096];
    file.read_at(&mut header, 0).unwrap();
    assert!(SHAPE.check(&header, file.metadata().unwrap().len()).is_err());
}

#[test]
fn words_that_a_failed_sync_may_have_left_in_the_page_cache_alone_are_written_again() {
    let file = file();
    let mut table = open(&file, 1);
    table.write(50 << 20, 4096).unwrap();
    table.done(50 << 20, 4096);
    // A flush of the last server has written the word; nobody knows whether its sync has succeeded.
    table.records.close().unwrap();
    drop(table);
    let mut next = open(&file, 1);
    assert_eq!(words(&mut next), 0..SHAPE.count);
    drop(next);
    assert_eq!(words(&mut open(&file, 2)), 0..0, "what a boot finds is on the disk");
}
