use super::*;

const ZONE: u64 = 1 << 20;
const CAPACITY: u64 = 3 << 18;

impl Records for Vec<blk_zone> {
    fn put(&mut self, index: u32, zone: Zone) {
        self[index as usize] = shape().record(index, zone);
    }
}

fn shape() -> Shape {
    Shape {
        zone_size: ZONE,
        capacity: CAPACITY,
        count: 8,
        conventional: 1,
        max_open: 2,
        max_active: 3,
    }
}

fn table() -> Table<Vec<blk_zone>> {
    let shape = shape();
    let zones: Vec<_> = (0..shape.count).map(|index| shape.fresh(index)).collect();
    let records = (0..).zip(&zones).map(|(index, &zone)| shape.record(index, zone)).collect();
    Table::new(shape, zones, records)
}

impl Table<Vec<blk_zone>> {
    /// A write that is done as soon as it is planned.
    fn do_write(&mut self, offset: u64, length: u32) -> Result<()> {
        if self.write(offset, length)? {
            self.done(offset, length);
        }
        Ok(())
    }

    fn do_append(&mut self, zone: u64, length: u32) -> Result<u64> {
        let offset = self.append(zone, length)?;
        self.done(offset, length);
        Ok(offset)
    }

    fn cond(&self, index: usize) -> u8 {
        self.records[index].cond
    }

    fn wp(&self, index: usize) -> u64 {
        self.records[index].wp << 9
    }
}

#[test]
fn a_zone_is_written_in_order_until_it_is_full() {
    let mut table = table();
    assert_eq!(table.do_write(ZONE + 4096, 4096), Err(REFUSED));
    table.do_write(ZONE, 4096).unwrap();
    assert_eq!((table.cond(1), table.wp(1)), (BLK_ZONE_COND_IMP_OPEN, ZONE + 4096));
    assert_eq!(table.do_write(ZONE, 4096), Err(REFUSED));
    let rest = u32::try_from(CAPACITY - 4096).unwrap();
    assert_eq!(table.do_write(ZONE + 4096, rest + 512), Err(REFUSED));
    table.do_write(ZONE + 4096, rest).unwrap();
    assert_eq!((table.cond(1), table.wp(1)), (BLK_ZONE_COND_FULL, 2 * ZONE));
    assert_eq!(table.do_write(ZONE + CAPACITY, 512), Err(REFUSED));
    assert_eq!((table.open, table.closed), (0, 0));
}

#[test]
fn appends_say_where_they_went() {
    let mut table = table();
    assert_eq!(table.do_append(ZONE, 4096), Ok(ZONE));
    assert_eq!(table.do_append(ZONE, 8192), Ok(ZONE + 4096));
    assert_eq!(table.do_append(ZONE + 4096, 512), Err(REFUSED), "no start of a zone");
    assert_eq!(table.do_append(0, 512), Err(REFUSED), "a conventional zone has no pointer");
}

#[test]
fn conventional_zones_are_written_anywhere_and_know_no_conditions() {
    let mut table = table();
    table.do_write(65536, 4096).unwrap();
    table.do_write(0, 4096).unwrap();
    assert_eq!(table.do_write(ZONE - 512, 1024), Err(REFUSED));
    for refused in [table.open(0), table.close(0), table.finish(0), table.reset(0)] {
        assert_eq!(refused, Err(REFUSED));
    }
    assert_eq!(table.records[0].type_, BLK_ZONE_TYPE_CONVENTIONAL);
    assert_eq!(table.records[0].capacity << 9, ZONE);
}

#[test]
fn a_zone_opened_by_a_write_gives_way_to_another() {
    let mut table = table();
    for zone in 1..=3 {
        table.do_write(zone * ZONE, 4096).unwrap();
    }
    assert_eq!(
        [1, 2, 3].map(|zone| table.cond(zone)),
        [BLK_ZONE_COND_CLOSED, BLK_ZONE_COND_IMP_OPEN, BLK_ZONE_COND_IMP_OPEN]
    );
    assert_eq!(table.do_write(4 * ZONE, 4096), Err(TOO_MANY_ACTIVE));
    table.do_write(ZONE + 4096, 4096).unwrap();
    assert_eq!(table.cond(2), BLK_ZONE_COND_CLOSED, "they take turns");
    table.reset(2 * ZONE).unwrap();
    table.do_write(4 * ZONE, 4096).unwrap();
}

#[test]
fn a_zone_opened_on_purpose_stays_open() {
    let mut table = table();
    table.open(ZONE).unwrap();
    table.open(2 * ZONE).unwrap();
    assert_eq!(table.do_write(3 * ZONE, 512), Err(TOO_MANY_OPEN));
    table.do_write(ZONE, 512).unwrap();
    assert_eq!(table.cond(1), BLK_ZONE_COND_EXP_OPEN);
    table.close(ZONE).unwrap();
    table.close(2 * ZONE).unwrap();
    assert_eq!((table.cond(1), table.cond(2)), (BLK_ZONE_COND_CLOSED, BLK_ZONE_COND_EMPTY));
    assert_eq!(table.close(2 * ZONE), Err(REFUSED), "it is not open");
    table.close(ZONE).unwrap();
}

#[test]
fn finished_zones_take_nothing_until_they_are_reset() {
    let mut table = table();
    table.finish(ZONE).unwrap();
    assert_eq!(table.open(ZONE), Err(REFUSED));
    assert_eq!(table.do_append(ZONE, 512), Err(REFUSED));
    table.reset(ZONE).unwrap();
    assert_eq!((table.cond(1), table.wp(1)), (BLK_ZONE_COND_EMPTY, ZONE));
    table.do_write(ZONE, 512).unwrap();
    table.reset_all();
    assert_eq!(table.cond(1), BLK_ZONE_COND_EMPTY);
    assert_eq!((table.open, table.closed), (0, 0));
}

#[test]
fn a_write_that_failed_can_be_done_again() {
    let mut table = table();
    table.write(ZONE, 4096).unwrap();
    table.failed(ZONE, 4096);
    table.write(ZONE, 4096).unwrap();
    table.append(ZONE, 512).unwrap();
    table.failed(ZONE, 4096);
    assert_eq!(table.append(ZONE, 512), Ok(ZONE + 4608), "somebody else writes before it");
    table.done(ZONE + 4096, 512);
    assert_eq!(table.wp(1), ZONE + 4608);
    table.failed(ZONE + 4608, 512);
    assert_eq!(table.append(ZONE, 512), Ok(ZONE + 4608));
}

#[test]
fn writes_that_all_failed_leave_nothing_in_whatever_order_they_end() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut table = table();
        let length = u32::try_from(CAPACITY / 3).unwrap();
        let offsets = [0; 3].map(|_| table.append(ZONE, length).unwrap());
        assert_eq!(table.append(ZONE, 512), Err(REFUSED), "it is full");
        order.iter().for_each(|&which: &usize| table.failed(offsets[which], length));
        assert_eq!((table.cond(1), table.wp(1)), (BLK_ZONE_COND_EMPTY, ZONE));
        assert_eq!((table.open, table.closed), (0, 0));
        assert_eq!(table.append(ZONE, 512), Ok(ZONE));
    }
}

#[test]
fn a_zone_is_written_down_as_far_as_it_is_done() {
    let mut table = table();
    let length = u32::try_from(CAPACITY).unwrap();
    table.write(ZONE, length).unwrap();
    assert_eq!((table.cond(1), table.wp(1)), (BLK_ZONE_COND_IMP_OPEN, ZONE));
    table.done(ZONE, length);
    assert_eq!((table.cond(1), table.wp(1)), (BLK_ZONE_COND_FULL, 2 * ZONE));
    table.write(2 * ZONE, 4096).unwrap();
    table.reset(2 * ZONE).unwrap();
    table.done(2 * ZONE, 4096);
    assert_eq!(table.wp(2), 2 * ZONE, "it was emptied meanwhile");
}

#[test]
fn a_word_says_all_of_a_zone() {
    for (index, zone) in [
        (0, shape().fresh(0)),
        (1, shape().fresh(1)),
        (2, Zone { condition: Condition::ImplicitlyOpen, written: 4096 }),
        (3, Zone { condition: Condition::ExplicitlyOpen, written: 0 }),
        (4, Zone { condition: Condition::Closed, written: CAPACITY - 512 }),
        (5, Zone { condition: Condition::Full, written: CAPACITY }),
    ] {
        assert_eq!(shape().zone_of_word(index, zone.word()), Some(zone));
    }
    assert_eq!(shape().fresh(1).word(), EMPTY);
    assert_eq!(shape().zone_of_word(1, 9 << 56), None);
}

#[test]
fn what_was_written_down_is_understood_again() {
    let mut table = table();
    table.do_write(ZONE, 4096).unwrap();
    table.open(2 * ZONE).unwrap();
    table.finish(4 * ZONE).unwrap();
    table.do_write(5 * ZONE, 512).unwrap();
    let again: Vec<_> = (0..8)
        .map(|index| table.shape.zone(index, &table.records[index as usize]).unwrap())
        .collect();
    assert_eq!(*again, *table.zones);
    let next = Table::new(shape(), again, table.records.clone());
    assert_eq!((next.open, next.closed), (table.open, table.closed));
    let nonsense = blk_zone { cond: BLK_ZONE_COND_FULL, ..blk_zone::default() };
    assert_eq!(shape().zone(0, &nonsense), None, "a conventional zone is never full");
    assert_eq!(shape().zone(1, &blk_zone { cond: 9, ..nonsense }), None);
}

#[test]
fn what_lies_beyond_the_last_zone_is_refused() {
    let mut table = table();
    assert_eq!(table.do_write(8 * ZONE, 512), Err(REFUSED));
    assert_eq!(table.reset(u64::MAX), Err(REFUSED));
}

#[test]
fn a_full_zone_whose_last_write_fails_takes_no_place_that_another_has() {
    let mut table = table();
    let rest = u32::try_from(CAPACITY - 4096).unwrap();
    table.do_write(ZONE, 4096).unwrap();
    table.do_write(2 * ZONE, 4096).unwrap();
    table.do_write(3 * ZONE, 4096).unwrap();
    table.write(ZONE + 4096, rest).unwrap();
    table.do_write(4 * ZONE, 4096).unwrap();
    table.failed(ZONE + 4096, rest);
    assert_eq!((table.open + table.closed, table.cond(1)), (3, BLK_ZONE_COND_FULL));
    table.reset(4 * ZONE).unwrap();
    table.write(2 * ZONE + 4096, rest).unwrap();
    table.failed(2 * ZONE + 4096, rest);
    assert_eq!((table.open + table.closed, table.wp(2)), (2, 2 * ZONE + 4096), "there is room");
}
