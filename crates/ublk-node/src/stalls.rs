//! What stands still, on the way to `src/watchdog.ts`.

use napi_derive::napi;
use ublk_core::device::{Awaits, Stall};
use ublk_core::targets::StepKind;

/// A request that does not end, or a thread that does not answer.
#[napi(object, object_from_js = false)]
pub struct NativeStall {
    /// How long, in milliseconds.
    pub age_ms: f64,
    /// `limits`, `handler`, `buffer` or a step: `read`, `write`, `sync`, …; of a thread: `thread`.
    pub waits_for: &'static str,
    /// The file of the step.
    pub file: Option<String>,
    /// The name of the thread that does not answer.
    pub thread: Option<String>,
    /// The number of the request's queue.
    pub queue: Option<u16>,
    /// The number of the request's operation, `UBLK_IO_OP_*`.
    pub op: Option<u8>,
    /// The request's place, in bytes.
    pub offset: Option<f64>,
    /// The request's length, in bytes.
    pub length: Option<u32>,
}

impl From<Stall> for NativeStall {
    fn from(stall: Stall) -> Self {
        match stall {
            Stall::Reactor { name, age } => Self {
                age_ms: age.as_secs_f64() * 1000.0,
                waits_for: "thread",
                file: None,
                thread: Some(name),
                queue: None,
                op: None,
                offset: None,
                length: None,
            },
            Stall::Request { queue, request, age, awaits, file } => Self {
                age_ms: age.as_secs_f64() * 1000.0,
                waits_for: awaited(awaits),
                file: file.map(|file| file.to_string_lossy().into_owned()),
                thread: None,
                queue: Some(queue),
                op: Some(ublk_sys::op(request.flags.0)),
                #[expect(clippy::cast_precision_loss, reason = "no disk has 2^53 bytes")]
                offset: Some(request.offset as f64),
                length: Some(request.length),
            },
        }
    }
}

fn awaited(awaits: Awaits) -> &'static str {
    let step = match awaits {
        Awaits::Limits => return "limits",
        Awaits::Handler => return "handler",
        Awaits::Buffer => return "buffer",
        Awaits::Step(step) => step,
    };
    match step.kind {
        StepKind::Read => "read",
        StepKind::Write { .. } => "write",
        StepKind::Sync => "sync",
        StepKind::PunchHole | StepKind::Discard => "discard",
        StepKind::ZeroRange => "write-zeroes",
        StepKind::Allocate => "allocate",
        StepKind::Wait => "pause",
        StepKind::FetchMetadata | StepKind::StoreMetadata | StepKind::Zeros => "buffer",
    }
}
