//! The gate of a queue: requests wait here where the device has limits.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Timespec;
use ublk_sys::{
    UBLK_IO_OP_DISCARD, UBLK_IO_OP_READ, UBLK_IO_OP_WRITE, UBLK_IO_OP_WRITE_ZEROES,
    UBLK_IO_OP_ZONE_APPEND, ublksrv_get_op, ublksrv_io_desc,
};

use super::queue::Queue;
use super::throttle::{Class, Throttle};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;
use crate::token::{Kind, Token};

/// Limits may change while a request waits: the gate looks again after this time.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) tag: Tag,
    /// Where the exchange has put the bytes, if the descriptor does not say.
    pub(super) address: Option<u64>,
    /// The bytes that count.
    length: u64,
}

/// The requests that wait, and the timeout that ends the wait.
pub(super) struct Gate {
    throttle: Arc<Throttle>,
    /// The waiting requests of each class, in the order of arrival.
    held: [VecDeque<Held>; 2],
    /// The class with the next turn, if both classes may go on.
    turn: Class,
    /// Where the kernel reads how long to wait.
    wait: Box<Timespec>,
    waits: bool,
    /// The queue leaves: no request waits any more.
    is_open: bool,
}

impl Gate {
    pub(super) fn new(throttle: Arc<Throttle>) -> Self {
        let wait = Box::new(Timespec::new());
        Self {
            throttle,
            held: Default::default(),
            turn: Class::Read,
            wait,
            waits: false,
            is_open: false,
        }
    }

    /// Whether requests may have to wait.
    #[inline(always)]
    pub(super) fn is_watching(&self) -> bool {
        self.throttle.is_on() || self.waits
    }

    /// The number of requests that wait.
    #[expect(clippy::cast_possible_truncation, reason = "one for each tag at most")]
    pub(super) fn held(&self) -> u32 {
        self.held.iter().map(VecDeque::len).sum::<usize>() as u32
    }

    /// Whether the request of `tag` waits.
    pub(super) fn holds(&self, tag: Tag) -> bool {
        self.held.iter().flatten().any(|held| held.tag == tag)
    }

    /// Whether a timeout of the gate is in flight.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Lets all requests through; waiting requests go on when the timeout ends.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Keeps a request over a limit; returns the wait. Requests of a class keep their order.
    fn hold(&mut self, descriptor: &ublksrv_io_desc, held: Held) -> Option<Duration> {
        let class = class(descriptor)?;
        let is_first = self.held[class as usize].is_empty();
        let wait = if is_first { self.must_wait(class, held.length)? } else { LONGEST_WAIT };
        self.held[class as usize].push_back(held);
        Some(wait)
    }

    /// The wait of a request; none: the request is counted, and goes on.
    fn must_wait(&self, class: Class, length: u64) -> Option<Duration> {
        if self.is_open { None } else { self.throttle.admit(class, length).err() }
    }

    /// The next request to go on; the classes take turns.
    ///
    /// # Errors
    /// The time until a request may go on; none, where no request waits.
    fn next(&mut self) -> Result<Held, Option<Duration>> {
        let mut soonest: Option<Duration> = None;
        for class in [self.turn, self.turn.other()] {
            let Some(&first) = self.held[class as usize].front() else { continue };
            let Some(wait) = self.must_wait(class, first.length) else {
                self.held[class as usize].pop_front();
                self.turn = class.other();
                return Ok(first);
            };
            soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
        }
        Err(soonest)
    }

    fn start<R: Ring>(&mut self, pass: &mut Pass<'_, R>, wait: Duration) -> io::Result<()> {
        if std::mem::replace(&mut self.waits, true) {
            return Ok(());
        }
        while pass.ring.space() < 1 {
            pass.ring.submit()?;
        }
        let wait = wait.min(LONGEST_WAIT);
        *self.wait = Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
        let token = Token::numbered(Kind::Gate, 0).pack(pass.seat.number);
        let entry = opcode::Timeout::new(&raw const *self.wait).build().user_data(token);
        // SAFETY: the entry points to the gate's own boxed memory. The seat, and so the gate, lives until
        // the timeout has completed (`Seat::has_ended`), and the kernel reads the memory at submission.
        unsafe { pass.ring.push(&entry) };
        Ok(())
    }
}

impl<T: Target> Queue<T> {
    /// Whether the request with this descriptor waits for its turn from now on.
    #[cold]
    #[inline(never)]
    pub(super) fn hold_back<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        descriptor: &ublksrv_io_desc,
        address: Option<u64>,
    ) -> io::Result<bool> {
        let held = Held { tag, address, length: length(descriptor) };
        let Some(wait) = self.gate.hold(descriptor, held) else { return Ok(false) };
        self.gate.start(pass, wait)?;
        Ok(true)
    }

    /// The gate's timeout has ended: lets requests go on.
    #[cold]
    pub(super) fn let_go<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        self.gate.waits = false;
        loop {
            match self.gate.next() {
                Ok(held) => self.go_on(pass, held)?,
                Err(Some(wait)) => return self.gate.start(pass, wait),
                Err(None) => return Ok(()),
            }
        }
    }
}

/// The class of a request that limits hold back; none for flushes and operations on zones.
fn class(descriptor: &ublksrv_io_desc) -> Option<Class> {
    match ublksrv_get_op(descriptor) {
        UBLK_IO_OP_READ => Some(Class::Read),
        UBLK_IO_OP_WRITE
        | UBLK_IO_OP_ZONE_APPEND
        | UBLK_IO_OP_DISCARD
        | UBLK_IO_OP_WRITE_ZEROES => Some(Class::Write),
        _ => None,
    }
}

/// The bytes of a request that count; a discard moves none.
fn length(descriptor: &ublksrv_io_desc) -> u64 {
    match ublksrv_get_op(descriptor) {
        UBLK_IO_OP_DISCARD | UBLK_IO_OP_WRITE_ZEROES => 0,
        _ => u64::from(descriptor.nr_sectors) << 9,
    }
}
