//! Bridges between a device's reactors and JavaScript that answers its requests; `src/handler/`
//! has the other side. What crosses is memory: JavaScript reads requests and writes answers there,
//! and calls us only to wake a reactor that sleeps, or to sleep itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{CleanupEnvHook, Env, Status};
use napi_derive::napi;
use ublk_core::bridge::{
    Bridge, BridgeOptions, Channel, Misfit, Report, ReportKind, Sleeper, layout,
};
use ublk_core::error::{Code, Error, Result};
use ublk_core::tag::Tag;

use crate::memory::{self, Shared};
use crate::open_devices::OpenDevices;
use crate::options::refused;
use crate::outcome::Outcome;

/// All bridges, by number: devices and the threads that serve them find each other by it.
static BRIDGES: Mutex<Option<HashMap<u32, Weak<Bridge>>>> = Mutex::new(None);

/// A bridge, as `src/handler/server.ts` asks for it.
#[derive(Clone, Copy, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeBridgeOptions {
    /// Hardware queues.
    pub queues: u16,
    /// Requests of one queue in flight at once.
    pub depth: u16,
    /// The most pieces of a plan; 0 where there are no backends.
    pub max_pieces: u8,
    /// How long a request may stay unanswered.
    pub timeout_ms: u32,
}

/// Something that went wrong on a bridge.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct NativeReport {
    /// `timed-out`, `late`, `blocked`, `unblocked`, or why a plan does not fit.
    pub kind: &'static str,
    /// The queue's number.
    pub queue: u16,
    /// The request's.
    pub tag: u16,
    /// What it asked for, `UBLK_IO_OP_*`.
    pub op: u8,
    /// In bytes.
    pub offset: f64,
    /// In bytes.
    pub length: u32,
    /// With `unblocked`: for how long it was, in milliseconds.
    pub ms: u32,
}

/// Where things are in a channel's memory, in words; see `layout.rs` of the core.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
#[allow(missing_docs)]
pub struct NativePlaces {
    pub version: u32,
    pub requests: u32,
    pub request_count: u32,
    pub answers: u32,
    pub answer_count: u32,
    pub pieces: u32,
    pub max_pieces: u32,
}

/// Neither keeps the event loop alive: the device does (`src/device.ts`), and can let go. A kick
/// that finds another one on its way is dropped.
type OnRequests = ThreadsafeFunction<(), (), (), Status, false, true, 1>;
type OnReport = ThreadsafeFunction<NativeReport, (), NativeReport, Status, false, true, 64>;

/// A bridge, held by whoever owns the device.
#[napi]
pub struct NativeBridge {
    id: u32,
    bridge: Arc<Bridge>,
    hook: Option<CleanupEnvHook<Weak<Bridge>>>,
}

/// The answering end of one queue's channel.
#[napi]
pub struct NativeChannel {
    channel: Arc<Channel>,
    sleeper: Rc<RefCell<Sleeper>>,
    hook: Option<CleanupEnvHook<Weak<Channel>>>,
    shown: bool,
}

/// Makes a bridge; `on_report` hears what goes wrong on it.
#[napi(
    catch_unwind,
    ts_args_type = "options: NativeBridgeOptions, onReport: (report: NativeReport) => void",
    ts_return_type = "Outcome<NativeBridge>"
)]
pub fn create_bridge(
    env: &Env,
    options: NativeBridgeOptions,
    on_report: OnReport,
) -> napi::Result<Outcome<NativeBridge>> {
    // Its cleanup must come after ours, which is added later.
    OpenDevices::of(env)?;
    let NativeBridgeOptions { queues, depth, max_pieces, timeout_ms } = options;
    let timeout = Duration::from_millis(timeout_ms.into());
    let options = BridgeOptions { queues, depth, max_pieces, timeout };
    let bridge = match Bridge::new(&options) {
        Ok(bridge) => bridge,
        Err(error) => return Ok(Err(failed(&error)).into()),
    };
    bridge.listen(Box::new(move |report| {
        // Refused when too many are on their way, or by an environment that has ended.
        on_report.call(report.into(), ThreadsafeFunctionCallMode::NonBlocking);
    }));
    let weak = Arc::downgrade(&bridge);
    let hook = env.add_env_cleanup_hook(weak, |bridge| {
        if let Some(bridge) = bridge.upgrade() {
            bridge.abandon();
        }
    })?;
    let id = enter(&bridge);
    Ok(Ok(NativeBridge { id, bridge, hook: Some(hook) }).into())
}

#[napi]
impl NativeBridge {
    /// Its number.
    #[napi(getter, catch_unwind)]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its device is gone.
    #[napi(catch_unwind)]
    pub fn release(&mut self, env: &Env) -> napi::Result<()> {
        self.bridge.abandon();
        self.hook.take().map_or(Ok(()), |hook| env.remove_env_cleanup_hook(hook))
    }
}

impl Drop for NativeBridge {
    fn drop(&mut self) {
        bridges().get_or_insert_default().remove(&self.id);
    }
}

/// Opens the answering end of a queue's channel, in whatever thread; `on_requests` is called when
/// requests come while JavaScript sleeps in its event loop. Before it sleeps it looks for requests
/// for `spin_us` microseconds.
#[napi(
    catch_unwind,
    ts_args_type = "bridge: number, queue: number, spinUs: number, onRequests: () => void",
    ts_return_type = "Outcome<NativeChannel>"
)]
pub fn open_channel(
    env: &Env,
    bridge: u32,
    queue: u16,
    spin_us: u32,
    on_requests: OnRequests,
) -> napi::Result<Outcome<NativeChannel>> {
    OpenDevices::of(env)?;
    let channel = match channel(bridge, queue) {
        Ok(channel) => channel,
        Err(error) => return Ok(Err(error).into()),
    };
    channel.attach_peer(Box::new(move || {
        on_requests.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }));
    let hook = env.add_env_cleanup_hook(Arc::downgrade(&channel), |channel| {
        if let Some(channel) = channel.upgrade() {
            channel.abandon();
        }
    })?;
    let sleeper = Sleeper::new(Arc::clone(&channel), Duration::from_micros(spin_us.into()));
    let sleeper = Rc::new(RefCell::new(sleeper));
    Ok(Ok(NativeChannel { channel, sleeper, hook: Some(hook), shown: false }).into())
}

fn channel(bridge: u32, queue: u16) -> Result<Arc<Channel>> {
    let bridge = find(bridge)?;
    let channel = bridge.channels().get(usize::from(queue)).map(Arc::clone);
    channel.ok_or_else(|| refused(format!("the bridge has no queue {queue}")))
}

#[napi]
impl NativeChannel {
    /// The rings; to be asked for once.
    #[napi(catch_unwind, ts_return_type = "Outcome<ArrayBuffer>")]
    pub fn memory(&mut self, env: &Env) -> Outcome<Shared> {
        if std::mem::replace(&mut self.shown, true) {
            return Err(refused("a channel's memory is shown once".into())).into();
        }
        Shared::new(env, Arc::clone(self.channel.memory())).into()
    }

    /// Where things are in it.
    #[napi(catch_unwind)]
    pub fn places(&self) -> NativePlaces {
        let places = self.channel.places();
        NativePlaces {
            version: layout::LAYOUT_VERSION,
            requests: places.requests,
            request_count: places.request_count,
            answers: places.answers,
            answer_count: places.answer_count,
            pieces: places.pieces,
            max_pieces: places.max_pieces,
        }
    }

    /// The tag's buffer of now, to be asked for once; absent where data is not copied.
    #[napi(catch_unwind, ts_return_type = "Outcome<ArrayBuffer | null>")]
    pub fn buffer(&self, env: &Env, tag: u16) -> Outcome<Option<Shared>> {
        self.channel.buffer(Tag::new(tag)).map(|buffer| Shared::new(env, buffer)).transpose().into()
    }

    /// The tag's buffer of now is never unmapped: somebody has moved it to another owner, who may
    /// outlive this environment.
    #[napi(catch_unwind)]
    pub fn keep_buffer(&self, tag: u16) {
        self.channel.buffer(Tag::new(tag)).into_iter().for_each(memory::keep);
    }

    // What is called for every batch is no method but a function by itself: napi-rs keeps a book of
    // who has borrowed an object, which is 1,700 instructions for each call of a method.

    /// A function that gives the reactor what it is owed, one of `OWES_*` of the layout.
    #[napi(catch_unwind, ts_return_type = "(debt: number) => void")]
    pub fn payer<'env>(&self, env: &'env Env) -> napi::Result<Function<'env, u32, ()>> {
        let channel = Arc::clone(&self.channel);
        env.create_function_from_closure("pay", move |call| {
            channel.pay(call.get(0)?);
            Ok(())
        })
    }

    /// A function that looks for requests without sleeping, if it is to. Whether there are any.
    #[napi(catch_unwind, ts_return_type = "() => boolean")]
    pub fn looker<'env>(&self, env: &'env Env) -> napi::Result<Function<'env, (), bool>> {
        let sleeper = Rc::clone(&self.sleeper);
        env.create_function_from_closure("look", move |_| Ok(sleeper.borrow_mut().look()))
    }

    /// A function that gives the reactor what it is owed, then sleeps until there are requests, or
    /// for so many microseconds. Whether there are any.
    #[napi(catch_unwind, ts_return_type = "(debt: number) => boolean")]
    pub fn waiter<'env>(
        &self,
        env: &'env Env,
        limit_us: u32,
    ) -> napi::Result<Function<'env, u32, bool>> {
        let limit = Duration::from_micros(limit_us.into());
        let sleeper = Rc::clone(&self.sleeper);
        env.create_function_from_closure("wait", move |call| {
            let mut sleeper = sleeper.borrow_mut();
            sleeper.channel().pay(call.get(0)?);
            Ok(sleeper.wait(limit))
        })
    }

    /// Nobody answers here any more.
    #[napi(catch_unwind)]
    pub fn release(&mut self, env: &Env) -> napi::Result<()> {
        self.channel.abandon();
        self.hook.take().map_or(Ok(()), |hook| env.remove_env_cleanup_hook(hook))
    }
}

impl From<Report> for NativeReport {
    fn from(report: Report) -> Self {
        let Report { kind, queue, tag, op, offset, length } = report;
        let ms = if let ReportKind::Unblocked(ms) = kind { ms } else { 0 };
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 nobody counts single bytes")]
        let offset = offset as f64;
        Self { kind: name(kind), queue, tag: tag.number(), op, offset, length, ms }
    }
}

fn name(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::TimedOut => "timed-out",
        ReportKind::Late => "late",
        ReportKind::Blocked => "blocked",
        ReportKind::Unblocked(_) => "unblocked",
        ReportKind::Misfit(misfit) => match misfit {
            Misfit::Count => "count",
            Misfit::Backend => "backend",
            Misfit::BeyondRequest => "beyond-request",
            Misfit::BeyondBackend => "beyond-backend",
            Misfit::Alignment => "alignment",
            Misfit::Gap => "gap",
            Misfit::Overlap => "overlap",
            Misfit::Op => "op",
            Misfit::Direction => "direction",
        },
    }
}

/// The bridge of this number.
pub(crate) fn find(id: u32) -> Result<Arc<Bridge>> {
    let bridge = bridges().as_ref().and_then(|all| all.get(&id)?.upgrade());
    bridge.ok_or_else(|| refused(format!("there is no bridge {id}")))
}

/// Nobody answers any more, whatever the bridge: JavaScript has ended.
pub(crate) fn abandon_all() {
    let all: Vec<_> = bridges().iter().flatten().filter_map(|(_, one)| one.upgrade()).collect();
    all.iter().for_each(|bridge| bridge.abandon());
}

fn enter(bridge: &Arc<Bridge>) -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    bridges().get_or_insert_default().insert(id, Arc::downgrade(bridge));
    id
}

fn bridges() -> MutexGuard<'static, Option<HashMap<u32, Weak<Bridge>>>> {
    BRIDGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bridge is memory and a thread: memory that has run out is mmap's to tell.
fn failed(error: &std::io::Error) -> Error {
    let call = if error.raw_os_error() == Some(libc::EAGAIN) { "clone" } else { "mmap" };
    Error::os(Code::Kernel, "cannot make a bridge to the handler", call, error)
}
