//! Get-data: one command per request, and a buffer only while there is one
//! (`UBLK_F_NEED_GET_DATA`).
//!
//! A write is announced without its data, which `NEED_GET_DATA` then asks for; a read's commit
//! says where its data is.

use std::io;

use ublk_sys::{UBLK_IO_RES_ABORT, UBLK_IO_RES_NEED_GET_DATA, UBLK_IO_RES_OK};

use super::per_io::PerIo;
use super::{Arrival, MAX_REFUSALS};
use crate::buffers::Arena;
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;

/// What one tag waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// A request.
    Request,
    /// The data of a write, here: in a buffer, or where the descriptor says.
    Data(u64),
    /// Nothing: the server has the request.
    Commit,
}

/// How far a tag's request has been delivered.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    expects: Expects,
    /// The request's data was asked for; it cannot be again.
    asked: bool,
    /// Length of the write that the kernel has announced, in sectors; otherwise 0.
    announced: u32,
    refusals: u8,
    buffer: Option<*mut u8>,
}

#[derive(Debug)]
pub(crate) struct GetData {
    commands: PerIo,
    arena: Arena,
    tags: Box<[Delivery]>,
}

impl GetData {
    pub(super) fn new(commands: PerIo, depth: u16, arena: Arena) -> Self {
        let (expects, buffer) = (Expects::Request, None);
        let idle = Delivery { expects, asked: false, announced: 0, refusals: 0, buffer };
        Self { commands, arena, tags: vec![idle; depth.into()].into() }
    }

    pub(super) fn commands(&self) -> &PerIo {
        &self.commands
    }

    pub(super) fn arm<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tags: impl Iterator<Item = Tag>,
    ) -> io::Result<()> {
        self.commands.arm(pass, tags)
    }

    pub(super) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<Arrival> {
        let state = &mut self.tags[tag.index()];
        match (result, state.expects) {
            (UBLK_IO_RES_OK, expects) => {
                state.asked = expects != Expects::Request;
                Ok(self.arrived(tag))
            }
            (UBLK_IO_RES_NEED_GET_DATA, _) => {
                state.refusals = 0;
                Ok(Arrival::Wants(tag))
            }
            (UBLK_IO_RES_ABORT, _) => {
                self.give_back(tag);
                self.commands.completed(pass, tag, result)
            }
            _ if state.refusals >= MAX_REFUSALS => {
                self.commands.ended();
                Ok(Arrival::Refused(-result))
            }
            (_, Expects::Data(address)) => {
                state.refusals += 1;
                self.ask(pass, tag, address)?;
                Ok(Arrival::Nothing)
            }
            // A commit was refused. Its buffer is another request's by now, and a write has no
            // need of it; anything else is done again.
            _ => {
                state.refusals += 1;
                if !state.asked {
                    return Ok(self.arrived(tag));
                }
                self.commands.commit_again(pass, tag)?;
                Ok(Arrival::Nothing)
            }
        }
    }

    /// Asks for the data of an announced write of `sectors`, which comes into a buffer; nothing is copied
    /// if the data lies in shared memory, at `place`, which the descriptor then goes on to say.
    pub(super) fn want<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        place: Option<u64>,
        sectors: u32,
    ) -> io::Result<()> {
        self.tags[tag.index()].announced = sectors;
        let address = place.unwrap_or_else(|| self.buffer(tag) as u64);
        self.ask(pass, tag, address)
    }

    pub(super) fn commit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<()> {
        let buffer = self.buffer(tag) as u64;
        self.commands.set_memory(tag, buffer);
        self.commands.commit(pass, tag, result)?;
        let state = &mut self.tags[tag.index()];
        (state.expects, state.announced) = (Expects::Request, 0);
        // The kernel reads it when it is handed the commit, and gets what is pushed after this
        // only after that.
        self.give_back(tag);
        Ok(())
    }

    fn arrived(&mut self, tag: Tag) -> Arrival {
        let address = self.buffer(tag) as u64;
        let state = &mut self.tags[tag.index()];
        state.expects = Expects::Commit;
        Arrival::RequestIn { tag, address, announced: state.announced }
    }

    fn ask<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, address: u64) -> io::Result<()> {
        self.tags[tag.index()].expects = Expects::Data(address);
        self.commands.set_memory(tag, address);
        self.commands.ask_data(pass, tag)
    }

    fn buffer(&mut self, tag: Tag) -> *mut u8 {
        *self.tags[tag.index()].buffer.get_or_insert_with(|| self.arena.take())
    }

    fn give_back(&mut self, tag: Tag) {
        if let Some(buffer) = self.tags[tag.index()].buffer.take() {
            self.arena.put(buffer);
        }
    }
}
