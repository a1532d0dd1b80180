//! Descriptions of a reactor's work, and the reactor's reports.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, mem};

use super::throttle::Throttle;
use crate::buffers::SharedMemory;
use crate::driver::{OpenFile, RingSize};
use crate::exchange::{Back, Front};
use crate::file_table::FIRST_OF_TARGET;
use crate::remote::MOST_ENTRIES;
use crate::share::Share;
use crate::stats::Counters;
use crate::targets::Target;

/// How a queue's requests reach their data; see [`BufferMode`](crate::device::BufferMode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Registered by the kernel, or by the server where the kernel could not.
    Auto,
    /// Registered by the server.
    Register {
        /// Wait for each of register, I/O, unregister before the next is submitted.
        split: bool,
    },
    /// Copied by the server.
    UserCopy,
    /// Copied by the kernel, to and from buffers assigned by the server as requests arrive.
    GetData,
    /// Copied by the kernel, to and from a buffer per tag.
    Copy,
}

/// How a queue's requests come and how their results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeMode {
    /// A command for each request.
    PerIo,
    /// A command for many requests (`UBLK_F_BATCH_IO`, Linux 7.0).
    Batch,
}

/// A queue, as the kernel described it after `ADD_DEV`.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// The queue's number.
    pub queue: u16,
    /// The number of tags.
    pub depth: u16,
    /// The tags served here; all, unless the exchange is [`ExchangeMode::PerIo`].
    pub share: Share,
    /// How requests reach their data.
    pub transfer: Transfer,
    /// How requests come and results go.
    pub exchange: ExchangeMode,
    /// The largest request, in bytes.
    pub max_io_bytes: u32,
    /// How long a reactor with only this queue polls for work before sleeping; 0: not at all.
    pub spin: Duration,
    /// The distance between descriptors, in bytes.
    pub descriptor_size: usize,
    /// `UBLK_F_*` of the device.
    pub features: u64,
    /// Each tag's requests alternate between two slots; a slot just given back is used last.
    pub rotate_slots: bool,
    /// Whether a request's last step may be linked to the commit; the reactor does not count such a
    /// request any more.
    pub links: bool,
}

/// A reactor's part of the work for a queue.
#[derive(Debug)]
pub enum Part {
    /// All the work.
    Whole,
    /// This reactor fetches and commits; the other end does the I/O.
    Front(Front),
    /// This reactor registers buffers and does the I/O ([`Transfer::Register`]) for requests
    /// fetched by the other end.
    Back(Back),
}

/// A queue, or a share of a queue's tags, with everything needed to serve the queue.
#[derive(Debug)]
pub struct Service<T> {
    /// `/dev/ublkcN`, from the reactor's driver.
    pub char_device: OpenFile,
    /// A file of zeros, from the reactor's driver.
    pub zeros: OpenFile,
    /// The queue.
    pub config: QueueConfig,
    /// This reactor's part of the work.
    pub part: Part,
    /// The target that answers the requests.
    pub target: Arc<T>,
    /// The limits of the device.
    pub throttle: Arc<Throttle>,
    /// Memory registered by the device's clients, if clients can register memory.
    pub shared: Option<Arc<SharedMemory>>,
    /// The reactor counts here.
    pub counters: Arc<Counters>,
    /// The receiver of the queue's news.
    pub listener: Listener,
}

/// What happened to a queue.
#[derive(Debug)]
pub enum News {
    /// The reactor is fetching the queue's requests.
    Ready,
    /// The kernel permanently refuses a command of the queue, with this errno: the queue ends only
    /// when the device is stopped.
    Refused(i32),
    /// The queue's reactor is lost, with this error. A listener that takes the device away from the
    /// other reactors sets `taken`: the next server then gets the lost reactor's requests.
    /// Otherwise those requests fail, and the queue ends when the device is stopped.
    Lost {
        /// The error.
        error: io::Error,
        /// Set by the listener.
        taken: Arc<AtomicBool>,
    },
    /// The kernel takes fetches back: the device is stopping, or is being taken from this server.
    Closing,
    /// The queue is served no more, and the reactor holds nothing of the queue.
    Ended(io::Result<()>),
}

/// Receives the news of a queue. The last news is [`News::Ended`], exactly once and at the latest
/// when the listener is dropped.
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

    /// Reports the loss of the reactor; returns whether the device was taken away from the other
    /// reactors.
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
    /// The size of the ring.
    pub ring: RingSize,
    /// Places of the file table.
    pub files: u32,
    /// Slots of the buffer table, at most 16,384; 0: none.
    pub slots: u16,
    /// How long the reactor polls for work before sleeping; 0: not at all.
    pub spin: Duration,
}

/// The number of file-table places for a queue of `target`: see [`Service::files`].
#[expect(clippy::cast_possible_truncation, reason = "a step names a file by 16 bits")]
pub(crate) fn places<T: Target>(target: &T) -> u32 {
    FIRST_OF_TARGET + (target.files().len() + target.spare_places()) as u32
}

/// The kernel's limit of a buffer table.
pub(crate) const MAX_SLOTS: u16 = 1 << 14;

impl Capacity {
    /// The needs of these queues, for any requests.
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
    /// The queue's part of the file table (see `file_table`): the queue's own files, then the
    /// target's.
    pub(super) fn files(&self) -> ([RawFd; FIRST_OF_TARGET as usize], &[RawFd]) {
        ([self.char_device.fd(), self.zeros.fd()], self.target.files())
    }

    /// The number of file-table places for [`files`](Self::files) and for files added later.
    pub(crate) fn places(&self) -> u32 {
        places(&*self.target)
    }

    /// Whether other threads send messages to this queue.
    pub(super) fn listens(&self) -> bool {
        self.target.elsewhere().is_some() || !matches!(self.part, Part::Whole)
    }

    /// How many tags are served here.
    fn tags(&self) -> u16 {
        self.config.share.count(self.config.depth)
    }

    /// The slots assigned permanently to the queue's tags.
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
            // As many again, for requests whose automatic registration fails.
            Transfer::Auto => self.standing_slots() + self.tags(),
        }
    }

    /// The usual number of entries of a pass, without a system call in between.
    fn submissions(&self) -> u32 {
        (u32::from(self.tags()) * 2).max(self.steps() + 3)
    }

    /// Everything that can be in flight: no completion may be lost.
    fn completions(&self) -> u32 {
        let sessions = u32::try_from(self.target.remotes().len()).unwrap_or(u32::MAX);
        let tags = u32::from(self.tags()) * (self.steps() + 3) + 1;
        tags.saturating_add(sessions.saturating_mul(MOST_ENTRIES))
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked by the engine")]
    fn steps(&self) -> u32 {
        self.target.max_steps() as u32
    }
}
