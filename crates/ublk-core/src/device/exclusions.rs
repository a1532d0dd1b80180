//! What excludes what: one table, from which devices are checked and a table of the documentation is made.

use std::fmt;

use super::buffering::BufferMode;
use super::options::{DeviceOptions, ExchangeMode, Recovery};
use crate::error::{Code, Error, Result};
use crate::targets::Target;

/// What may exclude something else: an option, a value of an option, or a kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Buffers(BufferMode),
    /// User copy without zero copy.
    UserCopyAlone,
    Batch,
    LeastDepth,
    Queues,
    Threads,
    RingsApart,
    SplitRegister,
    RotateSlots,
    Recovery,
    Reissue,
    Unprivileged,
    Throttle,
    Pool,
    Handler,
    Zoned,
    ZonedInBatches,
    Integrity,
    Remote,
    /// A remote with one connection.
    LoneRemote,
}

use BufferMode::{Auto, Copy, GetData, Register, Shared, UserCopy};
use Choice::Buffers;

/// A choice, others that the choice excludes, and why.
type Row = (Choice, &'static [Choice], &'static str);

const TABLE: &[Row] = &[
    (
        Buffers(Copy),
        &[Buffers(Auto), Buffers(Register), Buffers(UserCopy), Buffers(GetData)],
        "the kernel copies only where nothing else is asked for",
    ),
    (
        Buffers(GetData),
        &[Buffers(Auto), Buffers(Register), Buffers(UserCopy)],
        "the kernel drops get-data where it does not copy",
    ),
    (Buffers(Auto), &[Buffers(Register)], "'auto' registers by itself what the kernel could not"),
    (
        Buffers(Shared),
        &[Choice::Recovery],
        "the driver goes on to name memory that only the server that registered it has",
    ),
    (Buffers(GetData), &[Choice::Batch], "the kernel asks for buffers request by request"),
    (
        Choice::Batch,
        &[Choice::LeastDepth],
        "the kernel keeps tags in a kfifo, which has room for two at least",
    ),
    (
        Choice::Threads,
        &[Choice::Batch],
        "one command is for many tags, and all of them come to the thread that has sent it",
    ),
    (
        Choice::Threads,
        &[Choice::Handler],
        "each queue of a handler has one ring, from one thread to another",
    ),
    (
        Choice::RingsApart,
        &[Buffers(Auto), Choice::UserCopyAlone, Buffers(GetData), Buffers(Copy)],
        "only buffers 'register' registers with a ring of the server's choice",
    ),
    (
        Choice::RingsApart,
        &[Choice::Handler],
        "each queue of a handler has one ring, from one thread to another",
    ),
    (
        Choice::RingsApart,
        &[Choice::Zoned],
        "where an append went would have to follow it from thread to thread",
    ),
    (Choice::RingsApart, &[Choice::Pool], "the pool has its own threads"),
    (
        Choice::SplitRegister,
        &[Buffers(Auto), Choice::UserCopyAlone, Buffers(GetData), Buffers(Copy)],
        "only buffers 'register' registers for each request",
    ),
    (
        Choice::RotateSlots,
        &[Choice::UserCopyAlone, Buffers(GetData), Buffers(Copy)],
        "only zero copy has slots",
    ),
    (
        Choice::Unprivileged,
        &[Choice::Recovery],
        "the kernel has no recovery for the devices of users who are not root",
    ),
    (
        Choice::Unprivileged,
        &[Choice::Throttle, Buffers(GetData)],
        "the kernel kills the server of a request that is 30 s old: a request that waits, or a buffer \
         lent to a request, cannot be given up",
    ),
    (
        Choice::Unprivileged,
        &[Buffers(Auto), Buffers(Register), Buffers(UserCopy), Choice::RingsApart],
        "the kernel lends and shows nobody's pages to a server that is not root's",
    ),
    (
        Choice::Unprivileged,
        &[Choice::Zoned, Choice::Integrity],
        "an unprivileged server has neither user copy nor zero copy",
    ),
    (Choice::Zoned, &[Choice::Reissue], "an append that is executed twice lands in two places"),
    (
        Choice::Zoned,
        &[Buffers(Copy), Buffers(GetData)],
        "the field that names a buffer says where an append went",
    ),
    (
        Choice::ZonedInBatches,
        &[Buffers(Auto)],
        "the driver forgets where an append went; buffers 'register' does as well",
    ),
    (
        Choice::Integrity,
        &[Buffers(Copy), Buffers(GetData)],
        "metadata is reached by user copy alone",
    ),
    (
        Choice::Remote,
        &[Buffers(Auto), Buffers(Register)],
        "a connection to a server sends and receives memory with an address",
    ),
    (
        Choice::LoneRemote,
        &[Choice::Queues, Choice::Threads],
        "the server does not promise that a flush on one connection counts for all \
         (NBD_FLAG_CAN_MULTI_CONN), so all requests must come through one thread",
    ),
];

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Buffers(mode) => return write!(f, "buffers '{mode}'"),
            Self::UserCopyAlone => "buffers 'user-copy'",
            Self::Batch => "exchange 'batch'",
            Self::LeastDepth => "depth 1",
            Self::Queues => "several queues",
            Self::Threads => "threads",
            Self::RingsApart => "ringsApart",
            Self::SplitRegister => "splitRegister",
            Self::RotateSlots => "rotateSlots",
            Self::Recovery => "recovery",
            Self::Reissue => "recovery 'reissue'",
            Self::Unprivileged => "unprivileged",
            Self::Throttle => "throttle",
            Self::Pool => "pool",
            Self::Handler => "a handler",
            Self::Zoned => "a zoned target",
            Self::ZonedInBatches => "a zoned target in exchange 'batch'",
            Self::Integrity => "a target with integrity",
            Self::Remote => "a remote target",
            Self::LoneRemote => "a remote target with one connection",
        })
    }
}

/// What has been chosen for a device, each choice with the name for messages.
#[derive(Debug)]
pub(super) struct Choices(Vec<(Choice, String)>);

impl Choices {
    /// The options of a new device.
    pub(super) fn of(options: &DeviceOptions) -> Self {
        let mut choices = Self::of_threads(options, &options.buffers, options.exchange);
        choices.add([
            (options.depth == 1, Choice::LeastDepth),
            (options.split_register, Choice::SplitRegister),
            (options.rotate_slots, Choice::RotateSlots),
            (options.recovery.is_some(), Choice::Recovery),
            (options.recovery == Some(Recovery::Reissue), Choice::Reissue),
            (options.unprivileged, Choice::Unprivileged),
            (!options.throttle.is_none(), Choice::Throttle),
        ]);
        choices
    }

    /// The options of the next server of a device with these buffer modes and this exchange.
    pub(super) fn of_threads(
        options: &DeviceOptions,
        buffers: &[BufferMode],
        exchange: Option<ExchangeMode>,
    ) -> Self {
        let mut choices = Self(Vec::new());
        let alone = !buffers.iter().any(|mode| mode.is_zero_copy());
        choices.add(buffers.iter().map(|&mode| (true, Buffers(mode))));
        choices.add([
            (alone && buffers.contains(&UserCopy), Choice::UserCopyAlone),
            (exchange == Some(ExchangeMode::Batch), Choice::Batch),
            (options.spreads(), Choice::Threads),
            (options.rings_apart, Choice::RingsApart),
        ]);
        choices
    }

    /// The same with a target, with so many queues, and whether the reactors are those of a pool.
    pub(super) fn with<T: Target>(mut self, target: &T, queues: u16, pooled: bool) -> Self {
        let geometry = target.geometry();
        let zoned = geometry.zoned.is_some();
        self.add([
            (pooled, Choice::Pool),
            (target.elsewhere().is_some(), Choice::Handler),
            (zoned, Choice::Zoned),
            (zoned && self.name(Choice::Batch).is_some(), Choice::ZonedInBatches),
            (geometry.integrity.is_some(), Choice::Integrity),
        ]);
        if queues > 1 {
            self.0.push((Choice::Queues, format!("queues {queues}")));
        }
        let mut remotes = target.remotes().iter();
        self.0.extend(remotes.clone().next().map(|first| (Choice::Remote, first.name())));
        let lone = remotes.find(|remote| !remote.is_shareable());
        self.0.extend(lone.map(|lone| (Choice::LoneRemote, lone.name())));
        self
    }

    fn add(&mut self, choices: impl IntoIterator<Item = (bool, Choice)>) {
        let made = choices.into_iter().filter(|(is_made, _)| *is_made);
        self.0.extend(made.map(|(_, choice)| (choice, choice.to_string())));
    }

    fn name(&self, choice: Choice) -> Option<&str> {
        self.0.iter().find(|(made, _)| *made == choice).map(|(_, name)| name.as_str())
    }

    /// Refuses choices that exclude each other.
    ///
    /// # Errors
    /// `InvalidArgument` with the first two of the table, and why.
    pub(super) fn check(&self) -> Result<()> {
        for (one, others, why) in TABLE {
            let other = others.iter().find_map(|&other| self.name(other));
            if let (Some(one), Some(other)) = (self.name(*one), other) {
                let message = format!("{one} and {other} exclude each other");
                return Err(Error::new(Code::InvalidArgument, message)
                    .hint(format!("{why}: leave one of them out")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
