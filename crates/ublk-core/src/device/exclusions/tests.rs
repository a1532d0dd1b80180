use super::*;
use crate::targets::null::Null;
use crate::targets::{Geometry, Plan, Request, ZonedLimits};

/// Where people read the table.
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/exclusions.md");

fn asking(buffers: &[BufferMode]) -> DeviceOptions {
    DeviceOptions { buffers: buffers.to_vec(), ..Default::default() }
}

fn batch(buffers: &[BufferMode]) -> DeviceOptions {
    DeviceOptions { exchange: Some(ExchangeMode::Batch), ..asking(buffers) }
}

fn message(choices: &Choices) -> Option<String> {
    choices.check().err().map(|error| {
        assert_eq!(error.code, Code::InvalidArgument);
        error.message
    })
}

struct Zones(Geometry);

impl Zones {
    fn new() -> Self {
        let limits = ZonedLimits { max_open: 0, max_active: 0 };
        Self(Geometry { chunk: 4096, zoned: Some(limits), ..Geometry::new(8192) })
    }
}

impl Target for Zones {
    fn geometry(&self) -> &Geometry {
        &self.0
    }

    fn files(&self) -> &[std::os::fd::RawFd] {
        &[]
    }

    fn max_steps(&self) -> usize {
        0
    }

    fn plan(
        &self,
        _: &Request,
        _: &mut Plan<'_>,
    ) -> std::result::Result<(), crate::targets::Errno> {
        Ok(())
    }
}

#[test]
fn options_that_exclude_each_other_are_both_named() {
    let unprivileged = |buffers: &[_]| DeviceOptions { unprivileged: true, ..asking(buffers) };
    let apart = |buffers: &[_]| DeviceOptions { rings_apart: true, ..asking(buffers) };
    let split = |buffers: &[_]| DeviceOptions { split_register: true, ..asking(buffers) };
    let rotate = |buffers: &[_]| DeviceOptions { rotate_slots: true, ..asking(buffers) };
    let recovery = Some(Recovery::Reissue);
    for (options, one, other) in [
        (DeviceOptions { depth: 1, ..batch(&[]) }, "exchange 'batch'", "depth 1"),
        (DeviceOptions { threads: Some(2), ..batch(&[]) }, "threads", "exchange 'batch'"),
        (batch(&[GetData]), "buffers 'get-data'", "exchange 'batch'"),
        (apart(&[Auto]), "ringsApart", "buffers 'auto'"),
        (split(&[Auto]), "splitRegister", "buffers 'auto'"),
        (split(&[UserCopy]), "splitRegister", "buffers 'user-copy'"),
        (rotate(&[Copy]), "rotateSlots", "buffers 'copy'"),
        (DeviceOptions { recovery, ..asking(&[Shared, Copy]) }, "buffers 'shared'", "recovery"),
        (DeviceOptions { recovery, ..unprivileged(&[]) }, "unprivileged", "recovery"),
        (DeviceOptions { rings_apart: true, ..unprivileged(&[]) }, "unprivileged", "ringsApart"),
        (unprivileged(&[UserCopy]), "unprivileged", "buffers 'user-copy'"),
        (unprivileged(&[GetData]), "unprivileged", "buffers 'get-data'"),
    ] {
        let said = message(&Choices::of(&options));
        assert_eq!(said, Some(format!("{one} and {other} exclude each other")));
    }
    for options in [
        DeviceOptions::default(),
        split(&[Register, UserCopy]),
        rotate(&[Auto, UserCopy]),
        unprivileged(&[Copy]),
        DeviceOptions { depth: 1, ..Default::default() },
    ] {
        assert_eq!(message(&Choices::of(&options)), None);
    }
}

#[test]
fn buffer_modes_that_exclude_each_other_do_so_in_any_order() {
    for pair in [[Auto, UserCopy], [Register, UserCopy], [Shared, Auto], [Copy, Shared]] {
        assert_eq!(message(&Choices::of(&asking(&pair))), None, "{pair:?}");
    }
    for (one, other) in [
        (Auto, Register),
        (Copy, Auto),
        (Copy, UserCopy),
        (GetData, Auto),
        (GetData, UserCopy),
        (Copy, GetData),
    ] {
        for pair in [[one, other], [other, one]] {
            let said = format!("buffers '{one}' and buffers '{other}' exclude each other");
            assert_eq!(message(&Choices::of(&asking(&pair))), Some(said));
        }
    }
}

#[test]
fn targets_exclude_options() {
    let zoned = |options: &DeviceOptions| {
        message(&Choices::of(options).with(&Zones::new(), options.queues, false))
    };
    let recovery = |recovery| DeviceOptions { recovery: Some(recovery), ..Default::default() };
    for (options, said) in [
        (recovery(Recovery::Reissue), "a zoned target and recovery 'reissue'"),
        (asking(&[Copy]), "a zoned target and buffers 'copy'"),
        (asking(&[GetData]), "a zoned target and buffers 'get-data'"),
        (batch(&[Auto]), "a zoned target in exchange 'batch' and buffers 'auto'"),
        (
            DeviceOptions { unprivileged: true, ..Default::default() },
            "unprivileged and a zoned target",
        ),
        (
            DeviceOptions { rings_apart: true, ..Default::default() },
            "ringsApart and a zoned target",
        ),
    ] {
        assert_eq!(zoned(&options), Some(format!("{said} exclude each other")));
    }
    for options in [recovery(Recovery::Queue), batch(&[]), asking(&[Register]), asking(&[Auto])] {
        assert_eq!(zoned(&options), None);
    }
    let apart = DeviceOptions { rings_apart: true, ..Default::default() };
    let pooled = Choices::of(&apart).with(&Null::new(8192), 1, true);
    assert_eq!(message(&pooled).as_deref(), Some("ringsApart and pool exclude each other"));
    let integrity = Null::new(8192).with_integrity(Default::default());
    let copying = Choices::of(&asking(&[Copy])).with(&integrity, 1, false);
    let said = "a target with integrity and buffers 'copy' exclude each other";
    assert_eq!(message(&copying).as_deref(), Some(said));
}

#[test]
fn the_next_server_has_threads_that_suit_the_device() {
    let next = |threads, rings_apart, mode, exchange| {
        let options = DeviceOptions { threads: Some(threads), rings_apart, ..Default::default() };
        message(&Choices::of_threads(&options, &[mode], Some(exchange)))
    };
    assert_eq!(next(2, false, Auto, ExchangeMode::PerIo), None);
    assert_eq!(next(1, false, Auto, ExchangeMode::Batch), None, "nothing is dealt out");
    assert_eq!(next(1, true, Register, ExchangeMode::Batch), None);
    let batch = "threads and exchange 'batch' exclude each other";
    assert_eq!(next(2, false, Auto, ExchangeMode::Batch).as_deref(), Some(batch));
    let auto = "ringsApart and buffers 'auto' exclude each other";
    assert_eq!(next(1, true, Auto, ExchangeMode::PerIo).as_deref(), Some(auto));
}

/// The table as the guide has it.
fn rendered() -> String {
    let rows = TABLE.iter().map(|(one, others, why)| {
        let others: Vec<_> = others.iter().map(ToString::to_string).collect();
        [one.to_string(), others.join(", "), (*why).to_owned()]
    });
    let header = ["choice", "excludes", "because"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut lines: Vec<_> = rows
        .iter()
        .map(|[one, others, why]| {
            format!("| {one:0$} | {others:1$} | {why:2$} |", widths[0], widths[1], widths[2])
        })
        .collect();
    lines.insert(1, format!("| {} |", widths.map(|width| "-".repeat(width)).join(" | ")));
    lines.join("\n")
}

#[test]
fn the_guide_has_the_table() {
    let guide = std::fs::read_to_string(GUIDE).unwrap();
    let table = rendered();
    assert!(guide.contains(&table), "docs/guides/exclusions.md needs this table:\n{table}");
}
