//! Power cuts: after each cut, every block has the old or the new contents, and flushed writes survive.
//!
//! The file has a volatile write cache: a power cut keeps any subset of the writes since the last sync,
//! in any order. A seed determines the whole run, and a failure message names the seed. Set `UBLK_SEED`
//! to run a single seed.

use std::collections::HashMap;

use ublk_overlay::extent::Place;
use ublk_overlay::head::{Head, Target};
use ublk_overlay::index::Index;
use ublk_overlay::load::LayerFile;
use ublk_overlay::space::Run;
use ublk_overlay::superblock::{PAGE, Page, Superblock};
use uuid::Uuid;

/// Default number of server lives, each ended by a power cut. `UBLK_CUTS` overrides the number.
const CUTS: u64 = 100_000;
/// Size of the disk, in blocks.
const DISK: u64 = 24;
const SEGMENT_SHIFT: u32 = 3;
const SEGMENT: u64 = 1 << SEGMENT_SHIFT;
/// Stamp of a block of the base.
const BASE: u64 = u64::MAX;
/// Stamp of a block of zeros.
const ZEROS: u64 = 0;

/// A seeded pseudorandom number generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A block of the file: data, represented by a stamp, or a block of the format (superblock or log).
#[derive(Clone)]
enum Content {
    Data(u64),
    Page(Box<Page>),
}

/// A layer file with a volatile write cache.
#[derive(Default)]
struct File {
    durable: HashMap<u64, Content>,
    /// Writes since the last sync, oldest first.
    cached: Vec<(u64, Content)>,
    segments: u64,
}

impl File {
    fn write(&mut self, block: u64, content: Content) {
        assert!(block < self.segments * SEGMENT, "block {block} lies behind the end of the file");
        self.cached.push((block, content));
    }

    fn sync(&mut self) {
        self.durable.extend(self.cached.drain(..));
    }

    /// Cuts the power: each block keeps the durable contents or any write since the last sync.
    fn cut(&mut self, random: &mut Random) {
        let kept = random.below(4);
        for (block, content) in std::mem::take(&mut self.cached) {
            if random.below(4) < kept {
                self.durable.insert(block, content);
            }
        }
    }

    fn read(&self, block: u64, page: &mut Page) {
        page.fill(0);
        if let Some(Content::Page(found)) = self.durable.get(&block) {
            page.copy_from_slice(&**found);
        }
    }
}

/// A write in flight.
struct Flight {
    began: u64,
    stamp: u64,
    /// The data is in the file already, perhaps only in the cache.
    stored: bool,
    parts: Vec<Target>,
}

/// A server, the layer file, and the contents a client may find after a power cut.
struct Server<'a> {
    random: &'a mut Random,
    file: File,
    head: Head,
    flights: Vec<Flight>,
    /// Unused runs, each with the clock of the flush. A run is reusable once all writes begun by then
    /// have ended.
    unused: Vec<(u64, Run)>,
    clock: u64,
    /// For each block, the stamps allowed after a power cut.
    allowed: Vec<Vec<u64>>,
}

impl Server<'_> {
    fn begin_write(&mut self) {
        let from = self.random.below(DISK);
        let to = from + 1 + self.random.below((DISK - from).min(6));
        self.clock += 1;
        let stamp = self.clock;
        let mut parts = Vec::new();
        self.head.places(from, to, |part| parts.push(part)).unwrap();
        self.file.segments = self.file.segments.max(self.head.space().segments().into());
        for part in &parts {
            for block in 0..u64::from(part.run.count) {
                self.allowed[usize::try_from(part.block + block).unwrap()].insert(0, stamp);
            }
        }
        let stored = self.random.below(2) == 0;
        if stored {
            self.store(&parts, stamp);
        }
        self.flights.push(Flight { began: stamp, stamp, stored, parts });
    }

    fn store(&mut self, parts: &[Target], stamp: u64) {
        for part in parts {
            for block in 0..u64::from(part.run.count) {
                self.file.write(part.run.block + block, Content::Data(stamp));
            }
        }
    }

    fn end_write(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let which = usize::try_from(self.random.below(self.flights.len() as u64)).unwrap();
        let flight = self.flights.swap_remove(which);
        if !flight.stored {
            self.store(&flight.parts, flight.stamp);
        }
        let fails = self.random.below(10) == 0;
        for part in &flight.parts {
            match (part.fresh, fails) {
                (true, true) => self.head.give_back(part),
                (true, false) => self.head.publish(part),
                (false, _) => {}
            }
            // Two writes in flight may share a place: the file then holds the data stored last.
            for block in part.block..part.block + u64::from(part.run.count) {
                self.allowed[usize::try_from(block).unwrap()].push(flight.stamp);
            }
        }
    }

    fn discard(&mut self) {
        let from = self.random.below(DISK);
        let to = from + 1 + self.random.below(DISK - from);
        self.clock += 1;
        self.head.zero(from, to);
        for block in from..to {
            self.allowed[usize::try_from(block).unwrap()].push(ZEROS);
        }
    }

    /// Runs a flush, or a compaction, which includes a flush. Returns false if the power fails partway.
    fn flush(&mut self) -> bool {
        let compacts = self.random.below(4) == 0 && self.head.next_superblock().is_none();
        // A compaction must not begin while another compaction is running.
        let number = if compacts && !self.compacting() {
            let (salt, id) = (self.random.next(), self.random.next());
            self.head.begin_compaction(salt, id).unwrap()
        } else {
            self.head.flush().unwrap()
        };
        let promised: Vec<u64> = (0..DISK).map(|block| self.holds(block)).collect();
        self.file.segments = self.file.segments.max(self.head.space().segments().into());
        if self.random.below(8) == 0 {
            return false;
        }
        self.file.sync();
        for (place, page) in self.head.log_blocks(number) {
            self.file.write(place, Content::Page(Box::new(*page)));
        }
        if self.random.below(8) == 0 {
            return false;
        }
        self.file.sync();
        let unused = self.head.flushed(number);
        self.unused.extend(unused.into_iter().map(|run| (self.clock, run)));
        for (block, promised) in promised.into_iter().enumerate() {
            self.allowed[block] = vec![promised];
        }
        for flight in &self.flights {
            for part in &flight.parts {
                for block in part.block..part.block + u64::from(part.run.count) {
                    self.allowed[usize::try_from(block).unwrap()].insert(0, flight.stamp);
                }
            }
        }
        self.switch_logs()
    }

    fn compacting(&self) -> bool {
        self.head.next_superblock().is_some()
    }

    fn switch_logs(&mut self) -> bool {
        let Some(superblock) = self.head.next_superblock() else { return true };
        if self.random.below(3) == 0 {
            return true;
        }
        let page = superblock.to_page();
        self.file.write(superblock.place(), Content::Page(Box::new(page)));
        if self.random.below(4) == 0 {
            return false;
        }
        self.file.sync();
        self.head.adopt(superblock);
        true
    }

    fn reuse(&mut self) {
        let oldest = self.flights.iter().map(|flight| flight.began).min().unwrap_or(u64::MAX);
        let head = &mut self.head;
        self.unused.retain(|&(since, run)| {
            let safe = since < oldest;
            if safe {
                head.reuse(run);
            }
            !safe
        });
    }

    /// Returns the stamp a client reads: of the last cached write, or else of the durable contents.
    fn holds(&self, block: u64) -> u64 {
        let piece = self.head.index().pieces(block, block + 1).next().unwrap();
        let cached = |at: u64| {
            let written = self.file.cached.iter().rev().find(|(block, _)| *block == at);
            written.map(|(_, content)| content).or_else(|| self.file.durable.get(&at)).cloned()
        };
        value(piece.place, cached)
    }
}

fn value(place: Option<Place>, content: impl Fn(u64) -> Option<Content>) -> u64 {
    match place {
        None => BASE,
        Some(Place::Zero) => ZEROS,
        Some(Place::At { block, .. }) => match content(block) {
            Some(Content::Data(stamp)) => stamp,
            Some(Content::Page(_)) => panic!("block {block} of the file is the format's"),
            None => panic!("block {block} of the file was never written"),
        },
    }
}

fn new_file(random: &mut Random) -> (File, Head) {
    let superblock = Superblock {
        generation: 1,
        layer: Uuid::from_u128(1),
        disk: Uuid::from_u128(1),
        parent: None,
        blocks: DISK,
        frozen: false,
        segment_shift: SEGMENT_SHIFT,
        log: 0,
        salt: random.next(),
        logical_block: 4096,
        base_modified: 0,
        in_use: None,
        committing: false,
    };
    let head = Head::new(superblock, 0, Index::new(), random.next()).unwrap();
    let mut file = File { segments: head.space().segments().into(), ..File::default() };
    let superblock = head.superblock();
    file.write(superblock.place(), Content::Page(Box::new(superblock.to_page())));
    file.sync();
    (file, head)
}

/// Runs `count` servers in turn on one file. Each server ends with a power cut and a check of all blocks.
fn lives(seed: u64, count: u64) {
    let mut random = Random(seed);
    let (mut file, mut head) = new_file(&mut random);
    let mut allowed = vec![vec![BASE]; usize::try_from(DISK).unwrap()];
    for life in 0..count {
        let mut server = Server {
            random: &mut random,
            file,
            head,
            flights: Vec::new(),
            unused: Vec::new(),
            clock: life << 32,
            allowed,
        };
        for _ in 0..server.random.below(40) {
            let goes_on = match server.random.below(8) {
                0..3 => {
                    server.begin_write();
                    true
                }
                3..6 => {
                    server.end_write();
                    true
                }
                6 => {
                    server.discard();
                    true
                }
                _ => server.flush(),
            };
            if !goes_on {
                break;
            }
            server.reuse();
        }
        (file, allowed) = (server.file, server.allowed);
        file.cut(&mut random);
        let length = file.segments * SEGMENT * PAGE as u64;
        let layer = LayerFile::open(length, |block, page: &mut Page| {
            file.read(block, page);
            Ok(())
        });
        let loaded = layer.unwrap().load_head(0, Index::new(), random.next(), &[]);
        head = loaded.unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        for (block, allowed) in (0..).zip(&mut allowed) {
            let piece = head.index().pieces(block, block + 1).next().unwrap();
            let found = value(piece.place, |at| file.durable.get(&at).cloned());
            assert!(
                allowed.contains(&found),
                "seed {seed}, life {life}: block {block} holds {found}, not one of {allowed:?}"
            );
            *allowed = vec![found];
        }
    }
}

#[test]
fn after_a_power_cut_each_block_is_old_or_new_and_what_was_flushed_is_there() {
    const LIVES: u64 = 20;
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    if let Some(seed) = number("UBLK_SEED") {
        return lives(seed, LIVES);
    }
    for seed in 0..number("UBLK_CUTS").unwrap_or(CUTS) / LIVES {
        lives(seed, LIVES);
    }
}
