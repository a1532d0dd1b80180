//! Folders with images, and reading a target without a reactor.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ublk_core::error::{Error, Result};
use ublk_core::targets::file::Direct;
use ublk_core::targets::qcow2::{Qcow2, Qcow2Options};
use ublk_core::targets::{Ended, Next, Op, Plan, Request, RequestFlags, Step, StepKind, Target};

static TURN: Mutex<()> = Mutex::new(());

/// A folder with images, gone with this. There is one at a time.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

pub(super) fn request(op: Op, offset: u64, length: u32) -> Request {
    Request { op, flags: RequestFlags::default(), offset, length }
}

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/ublk-qcow2-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { path, _turn: turn }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Runs a tool of qemu-utils in the folder.
    pub(super) fn run(&self, words: &str) -> String {
        let (program, words) = words.split_once(' ').unwrap();
        self.run_words(program, &words.split_whitespace().collect::<Vec<_>>())
    }

    pub(super) fn run_words(&self, program: &str, words: &[&str]) -> String {
        let mut command = Command::new(program);
        let done = command.args(words).current_dir(&self.path).output();
        let done = done.unwrap_or_else(|error| panic!("{program}, of qemu-utils: {error}"));
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(done.status.success(), "{program} {words:?}: {said}");
        said
    }

    /// Changes an image with commands of qemu-io.
    pub(super) fn change(&self, image: &str, commands: &[String]) {
        let mut words: Vec<&str> = Vec::new();
        for command in commands {
            words.extend(["-c", command]);
        }
        words.push(image);
        let said = self.run_words("qemu-io", &words);
        assert!(!said.contains("failed") && !said.contains("nvalid"), "{commands:?}: {said}");
    }

    /// The contents of an image, as `qemu-img` reads it.
    pub(super) fn converted(&self, image: &str) -> Vec<u8> {
        self.run(&format!("qemu-img convert -O raw {image} converted"));
        fs::read(self.at("converted")).unwrap()
    }

    /// Writes bytes into the file of an image.
    pub(super) fn poke(&self, image: &str, at: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.at(image)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    pub(super) fn peek<const N: usize>(&self, image: &str, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        File::open(self.at(image)).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub(super) fn open(&self, image: &str) -> Result<Qcow2> {
        Qcow2::open(
            &self.at(image),
            &Qcow2Options { direct: Direct::No, ..Qcow2Options::default() },
        )
    }

    /// The error of an image that is refused.
    pub(super) fn refused(&self, image: &str) -> Error {
        match self.open(image) {
            Ok(_) => panic!("{image} is served"),
            Err(error) => error,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}

/// Reads a range as a device does: cut where the geometry says so. Checks each step.
pub(super) fn read(target: &impl Target, offset: u64, bytes: &mut [u8]) {
    let chunk = target.geometry().chunk;
    let (mut at, end) = (offset, offset + bytes.len() as u64);
    while at < end {
        let piece = if chunk == 0 { end - at } else { (end - at).min(chunk - at % chunk) };
        let within = usize::try_from(at - offset).unwrap();
        let piece_bytes = &mut bytes[within..within + usize::try_from(piece).unwrap()];
        run(target, at, piece_bytes);
        at += piece;
    }
}

/// Runs a read, in as many rounds as the target wants. Checks the steps.
fn run(target: &impl Target, offset: u64, bytes: &mut [u8]) {
    let mut steps = vec![Step::EMPTY; target.max_steps()];
    let length = u32::try_from(bytes.len()).unwrap();
    let request = request(Op::Read, offset, length);
    let mut plan = Plan::new(&mut steps);
    target.plan(&request, &mut plan).unwrap();
    let mut done = 0;
    for round in 0.. {
        for step in plan.steps() {
            assert_eq!(step.at, done, "the pieces are in order and without gaps");
            done += step.length;
            let range = step.at as usize..done as usize;
            match step.kind {
                StepKind::Zeros => bytes[range].fill(0),
                StepKind::Read => read_file(target, step, &mut bytes[range]),
                other => panic!("{other:?}"),
            }
        }
        let Some(ticket) = plan.ticket() else { break };
        let ticket = ticket.number;
        plan = Plan::new(&mut steps);
        match target.next(&request, Ended { result: Ok(()), ticket, round }, &mut plan) {
            Next::Done => break,
            Next::Round => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(done, length);
}

fn read_file(target: &impl Target, step: &Step, bytes: &mut [u8]) {
    let fd = target.files()[usize::from(step.file)];
    let file = File::open(format!("/proc/self/fd/{fd}")).unwrap();
    let length = file.metadata().unwrap().len();
    let end = step.offset + u64::from(step.length);
    assert!(end <= length.next_multiple_of(512), "a read of {end} in a file of {length}");
    let inside = usize::try_from(length.min(end) - step.offset).unwrap();
    file.read_exact_at(&mut bytes[..inside], step.offset).unwrap();
    bytes[inside..].fill(0);
}

/// All bytes of the disk.
pub(super) fn contents(target: &impl Target) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(target.geometry().size).unwrap()];
    // Requests of a device are not longer than this.
    for (number, part) in bytes.chunks_mut(1 << 20).enumerate() {
        read(target, (number as u64) << 20, part);
    }
    bytes
}

/// Numbers that a seed determines.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
