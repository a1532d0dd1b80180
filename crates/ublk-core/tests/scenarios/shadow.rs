//! The oracle: the contents that each sector may have, now and after a power cut.
//!
//! A read returns the data of the last write, or of a write in flight. A failed write leaves old or new
//! data in each sector. Writes that completed before a flush began are durable when the flush has
//! completed. The oracle judges data and metadata of a sector together: data of one write with metadata of
//! another write is an error.

use std::collections::BTreeMap;

use ublk_core::driver::sim::{ClientOp, Done};

use crate::scenario::SECTOR;

/// Contents that a sector may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Time of submission, which also names the write and the pattern. 0: the zeros at the beginning.
    born: u64,
    /// Time of the end, with success or not.
    ended: Option<u64>,
    zeros: bool,
    /// Number of bytes of the pattern that are left; zeros follow.
    kept: usize,
}

impl Candidate {
    fn matches(&self, sector: usize, bytes: &[u8]) -> bool {
        let kept = if self.zeros { 0 } else { self.kept };
        bytes[..kept] == pattern(self.born, sector)[..kept]
            && bytes[kept..].iter().all(|&byte| byte == 0)
    }

    /// Whether `metadata` belongs to the candidate; on a device without metadata `metadata` is empty.
    fn is_guarded_by(&self, sector: usize, metadata: &[u8]) -> bool {
        match self.zeros {
            true => metadata.iter().all(|&byte| byte == 0),
            false => metadata == guard(self.born, sector, metadata.len()),
        }
    }
}

type Sectors = Vec<Vec<Candidate>>;

enum Kind {
    /// Contents that the read may return, for each sector.
    Read(Sectors),
    Write {
        fua: bool,
    },
    /// Each sector keeps the old data or becomes zeros, for good.
    Discard,
    /// Contents that each sector of the device could have when the flush began.
    Flush(Sectors),
}

struct Open {
    kind: Kind,
    first: usize,
    count: usize,
    born: u64,
}

pub(crate) struct Shadow {
    clock: u64,
    now: Sectors,
    durable: Sectors,
    open: BTreeMap<u64, Open>,
}

/// Bytes that no other write and no other sector has.
pub(crate) fn pattern(born: u64, sector: usize) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value =
            (born << 32 | (sector as u64) << 8 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// The metadata of a sector with the pattern.
pub(crate) fn guard(born: u64, sector: usize, size: usize) -> Vec<u8> {
    let mut bytes = pattern(born, sector)[..size].to_vec();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    bytes
}

impl Shadow {
    pub(crate) fn new(sectors: usize) -> Self {
        let zeros = Candidate { born: 0, ended: Some(0), zeros: true, kept: SECTOR };
        let all = vec![vec![zeros]; sectors];
        Self { clock: 1, now: all.clone(), durable: all, open: BTreeMap::new() }
    }

    /// The number of the pattern of the next write.
    pub(crate) fn next(&self) -> u64 {
        self.clock
    }

    pub(crate) fn submitted(&mut self, ticket: u64, op: &ClientOp) {
        let born = self.clock;
        self.clock += 1;
        let (offset, length, kind) = match op {
            ClientOp::Read { offset, length } => (*offset, *length, Kind::Read(Vec::new())),
            ClientOp::Write { offset, data, fua } => {
                (*offset, u32::try_from(data.len()).unwrap(), Kind::Write { fua: *fua })
            }
            ClientOp::WriteZeroes { offset, length, .. } => {
                (*offset, *length, Kind::Write { fua: false })
            }
            ClientOp::Discard { offset, length } => (*offset, *length, Kind::Discard),
            ClientOp::Flush => (0, 0, Kind::Flush(self.now.clone())),
            other => unreachable!("no scenario but those of zones has {other:?}"),
        };
        let first = usize::try_from(offset).unwrap() / SECTOR;
        let count = length as usize / SECTOR;
        let kind = match kind {
            Kind::Read(_) => Kind::Read(self.now[first..first + count].to_vec()),
            Kind::Write { .. } | Kind::Discard => {
                let zeros = !matches!(op, ClientOp::Write { .. });
                let candidate = Candidate { born, ended: None, zeros, kept: SECTOR };
                self.appears(first, count, candidate);
                kind
            }
            Kind::Flush(_) => kind,
        };
        self.open.insert(ticket, Open { kind, first, count, born });
    }

    /// Adds a candidate, for reads in flight too.
    fn appears(&mut self, first: usize, count: usize, candidate: Candidate) {
        for sector in first..first + count {
            self.now[sector].push(candidate);
            self.durable[sector].push(candidate);
            for open in self.open.values_mut() {
                if let Kind::Read(expected) = &mut open.kind
                    && let Some(list) = expected.get_mut(sector.wrapping_sub(open.first))
                {
                    list.push(candidate);
                }
            }
        }
    }

    pub(crate) fn ended(&mut self, done: &Done) -> Result<(), String> {
        let end = self.clock;
        self.clock += 1;
        let (ok, data) = (done.result.is_ok(), &done.data);
        let open = self.open.remove(&done.ticket).ok_or("an answer that nobody waits for")?;
        let range = open.first..open.first + open.count;
        match open.kind {
            Kind::Read(expected) if ok => {
                check_all("read", open.first, (data, &done.metadata), &expected)?;
            }
            Kind::Read(_) => {}
            Kind::Write { fua } => {
                let written = range.end - done.lost as usize / SECTOR;
                for sector in range {
                    let ok = ok && sector < written;
                    settle(&mut self.now[sector], open.born, end, ok);
                    settle(&mut self.durable[sector], open.born, end, ok && fua);
                }
            }
            Kind::Discard => {
                for sector in range {
                    settle(&mut self.now[sector], open.born, end, false);
                    settle(&mut self.durable[sector], open.born, end, false);
                }
            }
            Kind::Flush(snapshot) if ok => {
                for (list, before) in self.durable.iter_mut().zip(snapshot) {
                    list.retain(|c| c.born > open.born);
                    list.extend(before);
                }
            }
            Kind::Flush(_) => {}
        }
        Ok(())
    }

    /// The backing file was cut: bytes beyond the cut are zeros, durably.
    pub(crate) fn truncated(&mut self, size: usize) {
        let at = self.clock;
        self.clock += 1;
        for sector in size / SECTOR..self.now.len() {
            let kept = size.saturating_sub(sector * SECTOR);
            let cut = |list: &mut Vec<Candidate>, keep_whole: bool| {
                let mut short: Vec<_> = list.clone();
                for c in &mut short {
                    c.kept = c.kept.min(kept);
                    // Later writes replace a candidate that was cut.
                    c.ended = c.ended.or(Some(at));
                }
                list.retain(|c| keep_whole || c.ended.is_none());
                list.extend(short);
            };
            cut(&mut self.now[sector], false);
            cut(&mut self.durable[sector], false);
            for open in self.open.values_mut() {
                match &mut open.kind {
                    Kind::Read(expected) => {
                        if let Some(list) = expected.get_mut(sector.wrapping_sub(open.first)) {
                            cut(list, true);
                        }
                    }
                    Kind::Flush(snapshot) => cut(&mut snapshot[sector], false),
                    _ => {}
                }
            }
        }
    }

    /// Compares the contents of the disks now: data, and metadata of each sector of a device with metadata.
    pub(crate) fn check_now(&self, image: &[u8], metadata: &[u8]) -> Result<(), String> {
        check_all("at the end", 0, (image, metadata), &self.now)
    }

    /// Compares the contents of the disks after a power cut.
    pub(crate) fn check_durable(&self, image: &[u8], metadata: &[u8]) -> Result<(), String> {
        check_all("after the power cut", 0, (image, metadata), &self.durable)
    }
}

/// Notes the end of a write. With `replaces`, removes the candidates that had ended before the write began.
fn settle(list: &mut Vec<Candidate>, born: u64, end: u64, replaces: bool) {
    if replaces {
        list.retain(|c| c.born == born || c.ended.is_none_or(|ended| ended > born));
    }
    for candidate in list.iter_mut().filter(|c| c.born == born) {
        candidate.ended = candidate.ended.or(Some(end));
    }
}

/// Checks sectors from `first` on: data and metadata of each sector must be of one candidate.
fn check_all(
    when: &str,
    first: usize,
    (data, metadata): (&[u8], &[u8]),
    expected: &[Vec<Candidate>],
) -> Result<(), String> {
    let size = metadata.len() / expected.len().max(1);
    for (at, bytes) in data.chunks_exact(SECTOR).enumerate() {
        let metadata = &metadata[at * size..(at + 1) * size];
        check(when, first + at, (bytes, metadata), &expected[at])?;
    }
    Ok(())
}

fn check(
    when: &str,
    sector: usize,
    (bytes, metadata): (&[u8], &[u8]),
    allowed: &[Candidate],
) -> Result<(), String> {
    let data = |candidate: &&Candidate| candidate.matches(sector, bytes);
    let found: Vec<_> = allowed.iter().filter(data).collect();
    if found.iter().any(|candidate| candidate.is_guarded_by(sector, metadata)) {
        return Ok(());
    }
    if !found.is_empty() {
        let guard = allowed.iter().find(|one| one.is_guarded_by(sector, metadata));
        return Err(format!(
            "{when}: sector {sector} holds the data of {found:?} with the metadata of {guard:?}"
        ));
    }
    let start = &bytes[..16];
    let looks_like = (0..10_000).find(|&born| bytes == pattern(born, sector));
    Err(format!(
        "{when}: sector {sector} holds {start:02x?}… (write {looks_like:?}), not one of {allowed:?}"
    ))
}
