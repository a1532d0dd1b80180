//! What a reactor is asked to serve, and what it says of it.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, mem};

use crate::buffers::SharedMemory;
use crate::driver::{OpenFile, RingSize};
use crate::exchange::{Back, Front};
use crate::file_table::FIRST_OF_TARGET;
use crate::share::Share;
use crate::stats::Counters;
use crate::target::Target;

/// How a queue's requests reach their data; see [`BufferMode`](crate::device::BufferMode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Registered by the kernel; by us where it could not.
    Auto,
    /// Registered by us.
    Register {
        /// Wait for each of register, I/O, unregister before the next is submitted.
        split: bool,
    },
    /// Copied by us.
    UserCopy,
    /// Copied by the kernel, to and from buffers that we find when requests have come.
    GetData,
    /// Copied by the kernel, to and from a buffer per tag.
    Copy,
}

/// How a queue's requests come and how their results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeMode {
    /// One command per request.
    PerIo,
    /// One command for many (`UBLK_F_BATCH_IO`, Linux 7.0).
    Batch,
}

/// A queue, as the kernel described it after `ADD_DEV`.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Its number.
    pub queue: u16,
    /// Its tags.
    pub depth: u16,
    /// Which of them are served here; all, unless it is [`ExchangeMode::PerIo`].
    pub share: Share,
    /// How its requests reach their data.
    pub transfer: Transfer,
    /// How its requests come and go.
    pub exchange: ExchangeMode,
    /// The largest request, in bytes.
    pub max_io_bytes: u32,
    /// How long its reactor, if it has one to itself, looks for work before it sleeps; 0: not at
    /// all.
    pub spin: Duration,
    /// How far apart its descriptors are, in bytes.
    pub descriptor_size: usize,
    /// `UBLK_F_*` of its device.
    pub features: u64,
    /// Each tag's requests take turns at two slots; slots that are given back wait longest.
    pub rotate_slots: bool,
    /// Whether a request's last step may be linked to its commit, after which the reactor does not
    /// count the request any more.
    pub links: bool,
}

/// What a reactor does of the work for a queue.
#[derive(Debug)]
pub enum Part {
    /// All of it.
    Whole,
    /// It fetches and commits; the other end does the I/O.
    Front(Front),
    /// It does the I/O, and registers buffers for it, of what the other end fetches
    /// ([`Transfer::Register`]).
    Back(Back),
}

/// A queue, or a share of its tags, to be served, and by what.
#[derive(Debug)]
pub struct Service<T> {
    /// `/dev/ublkcN`, from the reactor's driver.
    pub char_device: OpenFile,
    /// A file that reads as zeros, from the reactor's driver.
    pub zeros: OpenFile,
    /// The queue.
    pub config: QueueConfig,
    /// What is to be done of the work.
    pub part: Part,
    /// What answers its requests.
    pub target: Arc<T>,
    /// Memory that clients have registered with its device, if they can.
    pub shared: Option<Arc<SharedMemory>>,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Who hears what becomes of it.
    pub listener: Listener,
}

/// What becomes of a queue.
#[derive(Debug)]
pub enum News {
    /// Its requests are being fetched.
    Ready,
    /// The kernel refuses a command of it for good, with this errno: it ends only when its device
    /// is stopped.
    Refused(i32),
    /// Its reactor is lost, by this error. A listener that takes the device away from its other
    /// reactors says so (`taken`): the next server gets what the lost reactor had. Otherwise all
    /// that fails, and the queue ends when its device is stopped.
    Lost {
        /// What the reactor was lost by.
        error: io::Error,
        /// Set by the listener.
        taken: Arc<AtomicBool>,
    },
    /// The kernel takes fetches back: its device is stopping, or is being taken from its server.
    Closing,
    /// It is served no more, and nothing of it is left.
    Ended(io::Result<()>),
}

/// Hears what becomes of a queue: at the latest when it is dropped, [`News::Ended`], once.
#[derive(Default)]
pub struct Listener {
    hear: Option<Box<dyn FnMut(News) + Send>>,
    refused: bool,
    closing: bool,
}

impl Listener {
    /// Calls `hear` from the reactor's thread.
    pub fn new(hear: impl FnMut(News) + Send + 'static) -> Self {
        Self { hear: Some(Box::new(hear)), refused: false, closing: false }
    }

    /// Passes the news on; the end of a queue is the last.
    pub(crate) fn hear(&mut self, news: News) {
        let last = matches!(news, News::Ended(_));
        if let Some(hear) = &mut self.hear {
            hear(news);
        }
        if last {
            self.hear = None;
        }
    }

    pub(super) fn refused(&mut self, errno: i32) {
        if !mem::replace(&mut self.refused, true) {
            self.hear(News::Refused(errno));
        }
    }

    pub(super) fn closing(&mut self) {
        if !mem::replace(&mut self.closing, true) {
            self.hear(News::Closing);
        }
    }

    /// Says that the reactor is lost; answers whether the device was taken away from the others.
    pub(super) fn lost(&mut self, error: io::Error) -> bool {
        let taken = Arc::<AtomicBool>::default();
        self.hear(News::Lost { error, taken: Arc::clone(&taken) });
        taken.load(Ordering::Relaxed)
    }

    pub(super) fn ended(mut self, result: io::Result<()>) {
        self.hear(News::Ended(result));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let gone = io::Error::other("the thread that serves the queue is gone");
        self.hear(News::Ended(Err(gone)));
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// How much a reactor can take in.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// The queues of its ring.
    pub ring: RingSize,
    /// Places of its file table.
    pub files: u32,
    /// Slots of its buffer table, at most 16,384; 0: none.
    pub slots: u16,
    /// How long it looks for work before it sleeps; 0: not at all.
    pub spin: Duration,
}

/// How many places of a file table a queue takes that `target` answers: see [`Service::files`].
#[expect(clippy::cast_possible_truncation, reason = "a step names a file by 16 bits")]
pub(crate) fn places<T: Target>(target: &T) -> u32 {
    FIRST_OF_TARGET + (target.files().len() + target.spare_places()) as u32
}

/// The kernel's limit of a buffer table.
pub(crate) const MAX_SLOTS: u16 = 1 << 14;

impl Capacity {
    /// What these queues need, whatever their requests are.
    pub fn of<T: Target>(services: &[Service<T>]) -> Self {
        let sum = |of: fn(&Service<T>) -> u32| services.iter().map(of).sum::<u32>();
        let slots = u16::try_from(sum(|service| service.slots().into())).unwrap_or(u16::MAX);
        let spin = services.iter().map(|service| service.config.spin).max().unwrap_or_default();
        Self {
            ring: RingSize {
                tells_of_work: !spin.is_zero(),
                submissions: sum(Service::submissions).next_power_of_two().clamp(64, 4096),
                completions: sum(Service::completions).next_power_of_two().clamp(128, 1 << 16),
            },
            files: sum(Service::places),
            slots: slots.min(MAX_SLOTS),
            spin,
        }
    }
}

impl<T: Target> Service<T> {
    /// The queue's part of the file table (see `file_table`): its own files, and its target's.
    pub(super) fn files(&self) -> ([RawFd; FIRST_OF_TARGET as usize], &[RawFd]) {
        ([self.char_device.fd(), self.zeros.fd()], self.target.files())
    }

    /// How many places that takes up, with those of files to come.
    pub(crate) fn places(&self) -> u32 {
        places(&*self.target)
    }

    /// Whether other threads have something to say to it.
    pub(super) fn listens(&self) -> bool {
        self.target.elsewhere().is_some() || !matches!(self.part, Part::Whole)
    }

    /// How many tags are served here.
    fn tags(&self) -> u16 {
        self.config.share.count(self.config.depth)
    }

    /// Slots that its tags have for good.
    pub(crate) fn standing_slots(&self) -> u16 {
        match self.config.transfer {
            Transfer::Auto if self.config.rotate_slots => self.tags() * 2,
            Transfer::Auto => self.tags(),
            _ => 0,
        }
    }

    fn slots(&self) -> u16 {
        match self.config.transfer {
            Transfer::Copy | Transfer::GetData | Transfer::UserCopy => 0,
            Transfer::Register { .. } => self.tags(),
            // So many more for requests whose automatic registration fails.
            Transfer::Auto => self.standing_slots() + self.tags(),
        }
    }

    /// What a pass usually pushes, without a call in between.
    fn submissions(&self) -> u32 {
        (u32::from(self.tags()) * 2).max(self.steps() + 3)
    }

    /// Everything that can be in flight, so that none is ever lost.
    fn completions(&self) -> u32 {
        u32::from(self.tags()) * (self.steps() + 3) + 1
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked by the engine")]
    fn steps(&self) -> u32 {
        self.target.max_steps() as u32
    }
}
