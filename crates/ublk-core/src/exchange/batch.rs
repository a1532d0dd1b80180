//! One command for many requests (`UBLK_F_BATCH_IO`, Linux 7.0): a multishot `FETCH_IO_CMDS`
//! delivers tags, `COMMIT_IO_CMDS` answers all requests ended in a pass.

use std::io;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use ublk_sys::{
    UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK, UBLK_BATCH_F_HAS_BUF_ADDR, UBLK_BATCH_F_HAS_ZONE_LBA,
    UBLK_IO_RES_ABORT, UBLK_U_IO_COMMIT_IO_CMDS, UBLK_U_IO_PREP_IO_CMDS,
};

use super::elements::{Element, Elements};
use super::inbox::Inbox;
use super::{Arrival, MAX_REFUSALS};
use crate::buffers::Buffers;
use crate::driver::{Completion, Ring};
use crate::file_table::CHAR_DEVICE;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::token::{Kind, Token};

mod fetch;

/// The elements of an unanswered commit. As large as a cache line: finding an outbox takes a shift.
#[derive(Debug)]
#[repr(align(64))]
struct Outbox {
    elements: Elements,
    /// Elements written.
    count: usize,
    /// Elements taken by the kernel.
    taken: usize,
    /// Pushed, and the answer is still to come.
    sent: bool,
}

#[derive(Debug)]
pub(crate) struct Batch {
    queue: u16,
    flags: u16,
    templates: Box<[Element]>,
    inbox: Inbox,
    /// The pass fills one outbox while the other outbox's commit is being answered.
    outboxes: [Outbox; 2],
    filling: usize,
    /// The pass has put a commit into the outbox.
    collecting: bool,
    /// An element per tag, for commits of a single tag: the kernel reads the element of a linked
    /// commit only after the end of the step.
    lone: Elements,
    /// The number of refusals of each tag's lone commit.
    lone_refusals: Box<[u8]>,
    refusals: u8,
    /// The kernel has a fetch, or gets a fetch at the end of the pass.
    fetching: bool,
    /// No fetch is armed again.
    winding_down: bool,
    /// The fetch has ended. The end of the pass sends another: see `fetch_again`.
    ended: bool,
}

impl Batch {
    pub(super) fn new(queue: u16, depth: u16, buffers: &Buffers) -> io::Result<Self> {
        let (flags, each) = match buffers {
            Buffers::Auto { .. } => (UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK, 1),
            Buffers::Register { .. } | Buffers::GetData | Buffers::UserCopy => (0, 1),
            Buffers::Copy(_) => (UBLK_BATCH_F_HAS_BUF_ADDR, 2),
        };
        let elements = || Elements::new(depth, each);
        let outbox = || Outbox { elements: elements(), count: 0, taken: 0, sent: false };
        Ok(Self {
            queue,
            flags,
            templates: Tag::all(depth).map(|tag| Element::new(tag, buffers)).collect(),
            inbox: Inbox::new()?,
            outboxes: [outbox(), outbox()],
            filling: 0,
            collecting: false,
            lone: elements(),
            lone_refusals: vec![0; depth.into()].into(),
            refusals: 0,
            fetching: false,
            winding_down: false,
            ended: false,
        })
    }

    /// This exchange with room in each element for an append's landing place.
    pub(super) fn with_landings(mut self) -> Self {
        self.flags |= UBLK_BATCH_F_HAS_ZONE_LBA;
        for elements in self.outboxes.iter_mut().map(|outbox| &mut outbox.elements) {
            *elements = elements.wider();
        }
        self.lone = self.lone.wider();
        self
    }

    pub(super) fn enter<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        self.inbox.register(ring, group)
    }

    pub(super) fn arm<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        pass.reserve(2)?;
        let depth = self.templates.len();
        let elements = &mut self.outboxes[0].elements;
        for (index, element) in self.templates.iter().enumerate() {
            elements.set(index, element, 0);
        }
        let address = elements.address(0);
        let entry = self.command(pass, UBLK_U_IO_PREP_IO_CMDS, address, depth);
        self.outboxes[0].sent = true;
        self.push(pass, entry, Token::numbered(Kind::Prepare, 0));
        self.fetch(pass);
        Ok(())
    }

    pub(super) fn leave<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        ring.unregister_buffer_ring(group)
    }

    pub(super) fn is_open(&self) -> bool {
        self.fetching || self.outboxes.iter().any(|outbox| outbox.sent)
    }

    #[inline]
    pub(super) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        completion: Completion,
    ) -> io::Result<Arrival> {
        let Completion { result, flags, .. } = completion;
        match token.kind {
            Kind::Fetch if result >= 0 => Ok(Arrival::Requests(self.inbox.arrived(result, flags))),
            Kind::Fetch => self.fetch_ended(pass, result),
            Kind::Commit => self.committed(pass, token.tag.index(), result),
            Kind::Prepare => {
                self.outboxes[0].sent = false;
                match result {
                    0.. => Ok(Arrival::Nothing),
                    // The device was stopped before the queue began: the fetch reports the stop
                    // too.
                    UBLK_IO_RES_ABORT => Ok(Arrival::Closing),
                    errno => Ok(Arrival::Refused(-errno)),
                }
            }
            _ => self.lone_refused(pass, token.tag, result),
        }
    }

    /// Sets the second word of the tag's next element.
    pub(super) fn set_memory(&mut self, tag: Tag, word: u64) {
        self.templates[tag.index()].set_memory(word);
    }

    /// Sets the slot of the tag's next request.
    pub(super) fn set_slot(&mut self, tag: Tag, slot: u16) {
        self.templates[tag.index()].move_slot(tag, slot);
    }

    #[inline(always)]
    pub(super) fn commit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<()> {
        if !self.collecting {
            return self.commit_first(pass, tag, result);
        }
        self.collect(tag, result);
        Ok(())
    }

    /// The first commit of a pass.
    fn commit_first<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<()> {
        if self.outboxes[self.filling].sent {
            // Both outboxes are in flight, one of the two for the second time.
            pass.reserve(1)?;
            self.push_lone(pass, tag, result);
            return Ok(());
        }
        self.collecting = true;
        if !self.ended {
            pass.put_off.push(pass.seat.number);
        }
        self.collect(tag, result);
        Ok(())
    }

    #[inline(always)]
    fn collect(&mut self, tag: Tag, result: i32) {
        let outbox = &mut self.outboxes[self.filling];
        outbox.elements.set(outbox.count, &self.templates[tag.index()], result);
        outbox.count += 1;
    }

    /// Sends the commits collected by the pass, and a fetch in place of an ended fetch.
    #[inline]
    pub(super) fn flush<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        if self.ended {
            self.fetch_again(pass)?;
            if !self.collecting {
                return Ok(());
            }
        }
        self.collecting = false;
        pass.reserve(1)?;
        if self.outboxes[self.filling].count == 1 {
            self.send_lone(pass);
            return Ok(());
        }
        self.send(pass, self.filling);
        self.filling ^= 1;
        Ok(())
    }

    /// The kernel takes a single element wholly or not at all, so success can be silent.
    #[inline]
    fn send_lone<R: Ring>(&mut self, pass: &mut Pass<'_, R>) {
        let outbox = &mut self.outboxes[self.filling];
        let (tag, result) = outbox.elements.get(0);
        outbox.count = 0;
        self.push_lone(pass, tag, result);
    }

    /// Sends the elements of an outbox that the kernel has not taken yet. The command always
    /// answers: of several elements the kernel may take only some, which counts as success and
    /// would be silent.
    #[inline]
    fn send<R: Ring>(&mut self, pass: &mut Pass<'_, R>, index: usize) {
        let outbox = &mut self.outboxes[index];
        outbox.sent = true;
        let (address, count) = (outbox.elements.address(outbox.taken), outbox.count - outbox.taken);
        let entry = self.command(pass, UBLK_U_IO_COMMIT_IO_CMDS, address, count);
        #[expect(clippy::cast_possible_truncation, reason = "0 or 1")]
        self.push(pass, entry, Token::numbered(Kind::Commit, index as u16));
    }

    /// Commits a single tag, silently unless the kernel refuses the commit.
    #[inline]
    pub(super) fn push_lone<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, result: i32) {
        self.lone_refusals[tag.index()] = 0;
        self.push_one(pass, tag, result);
    }

    #[inline]
    fn push_one<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, result: i32) {
        self.lone.set(tag.index(), &self.templates[tag.index()], result);
        let element = self.lone.address(tag.index());
        let entry = self.command(pass, UBLK_U_IO_COMMIT_IO_CMDS, element, 1);
        self.push(pass, entry.flags(Flags::SKIP_SUCCESS), Token::new(Kind::CommitOne, tag));
    }

    #[inline]
    fn committed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        index: usize,
        result: i32,
    ) -> io::Result<Arrival> {
        let outbox = &mut self.outboxes[index];
        let bytes = usize::try_from(result).unwrap_or(0);
        outbox.taken += bytes / outbox.elements.element_bytes();
        if outbox.taken == outbox.count {
            (outbox.count, outbox.taken, outbox.sent) = (0, 0, false);
            self.refusals = 0;
            return Ok(Arrival::Nothing);
        }
        self.refusals = if bytes > 0 { 0 } else { self.refusals + 1 };
        if self.refusals > MAX_REFUSALS {
            outbox.sent = false;
            return Ok(Arrival::Refused(if result < 0 { -result } else { libc::EIO }));
        }
        pass.reserve(1)?;
        self.send(pass, index);
        Ok(Arrival::Nothing)
    }

    #[cold]
    fn lone_refused<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<Arrival> {
        let refusals = &mut self.lone_refusals[tag.index()];
        *refusals += 1;
        if *refusals > MAX_REFUSALS {
            return Ok(Arrival::Refused(-result));
        }
        pass.reserve(1)?;
        let (_, result) = self.lone.get(tag.index());
        self.push_one(pass, tag, result);
        Ok(Arrival::Nothing)
    }

    #[inline]
    fn command<R: Ring>(
        &self,
        pass: &Pass<'_, R>,
        operation: u32,
        elements: u64,
        count: usize,
    ) -> Entry {
        let command = self.lone.described(self.queue, self.flags, count);
        opcode::UringCmd16::new(pass.file(CHAR_DEVICE), operation)
            .cmd(command.to_bytes())
            .addr(Some(elements))
            .build()
    }

    #[inline]
    fn push<R: Ring>(&self, pass: &mut Pass<'_, R>, entry: Entry, token: Token) {
        // SAFETY: this batch owns the elements and the inbox, and both outlive the ring's last
        // completion (see `Reactor`); elements are not written again before the command has been
        // answered, or, for a lone commit, before the tag comes back.
        unsafe { pass.push(entry, token) };
    }
}
