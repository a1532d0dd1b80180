//! Bringing a device up; what was done is undone when a step fails.

use std::process;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{ublk_params, ublksrv_ctrl_dev_info};

use super::abilities::recovers;
use super::added::Added;
use super::exclusions::Choices;
use super::layers::Layers;
use super::limits::Limits;
use super::memory::Memory;
use super::negotiate::Kind;
use super::options::{
    BeforeStart, BufferMode, Buffering, DeviceInfo, DeviceOptions, DeviceState, ExchangeMode,
};
use super::pool::Pool;
use super::stalls::Stalls;
use super::supervise::{self, Crew, Event, Parting, Staff};
use super::supervisor::{Events, Post};
use super::{Device, Shared, SizeCheck, layout, needs, negotiate, params, staff};
use crate::allocation::{Allocation, FindAllocation};
use crate::aside;
use crate::control::Control;
use crate::driver::{BlockNode, Driver};
use crate::error::{Code, Error, Result};
use crate::reactor::{Throttle, can_be_left};
use crate::stats::Guard;
use crate::targets::Target;

impl<D: Driver> Device<D> {
    /// Adds, starts and serves a device. Blocks until clients can open the device: do not call this
    /// from a thread that must not block.
    ///
    /// # Errors
    /// Invalid options, before anything is touched; refusals of the kernel, after undoing all
    /// steps.
    pub fn create<T: Target>(driver: &D, target: T, options: DeviceOptions) -> Result<Self> {
        create(driver, target, options, None)
    }

    /// [`create`](Self::create) with the reactors of a pool. A pool serves devices until a table is
    /// full.
    ///
    /// # Errors
    /// As [`create`](Self::create), and when a table of the pool's is full.
    pub fn create_in<T: Target>(
        pool: &Pool<T>,
        driver: &D,
        target: T,
        options: DeviceOptions,
    ) -> Result<Self> {
        create(driver, target, options, Some(pool))
    }
}

pub(super) fn create<D: Driver, T: Target>(
    driver: &D,
    target: T,
    mut options: DeviceOptions,
    pool: Option<&Pool<T>>,
) -> Result<Device<D>> {
    options.validate()?;
    if options.rings_apart && options.base().is_none() {
        options.buffers.push(BufferMode::Register);
    }
    let geometry = *target.geometry();
    geometry.validate()?;
    if options.base().is_none() && !target.remotes().is_empty() {
        options.buffers.push(BufferMode::Copy);
    }
    Choices::of(&options).with(&target, options.queues, pool.is_some()).check()?;
    needs::check_age(&options, &target)?;
    let control = Control::new(driver.clone());
    let features = known_features(&control)?;
    let plain = pool.is_none() && geometry.zoned.is_none();
    let asks = target.elsewhere().is_some();
    let remote = !target.remotes().is_empty();
    let kind = Kind { plain, asks, remote };
    let wanted = negotiate::wanted(features, &options, kind)?;
    let wanted = needs::add(wanted, features, &geometry)?;
    if let Some(pool) = pool {
        staff::check_room(pool, &wanted, &target, &options)?;
    }
    let info = control.add_within(&wanted, options.limit)?;
    let added = Added::new(&control, info);
    let control = &added.control;
    if options.unprivileged {
        wait_for_ownership(control, added.info.dev_id, options.limit)?;
    }
    let (buffers, exchange) = negotiate::given(&added.info, &options)?;
    let mut params = params::of(&geometry, buffers, added.info.max_io_buf_bytes);
    options.limits.narrow(&mut params);
    control.set_params(added.info.dev_id, &params)?;
    if options.limits != Limits::default() {
        Limits::confirm(&params, &control.params(added.info.dev_id)?)?;
    }

    let modes = (buffers, exchange);
    let throttle = &Arc::new(Throttle::new(&options.throttle));
    let launch =
        Launch { driver, control, info: &added.info, modes, throttle, begin: Begin::Start };
    let device = launch.run(target, &params, options, pool)?;
    added.keep();
    Ok(device)
}

/// None, where the kernel cannot be asked (before 6.5): what it makes of the wishes tells then.
fn known_features<D: Driver>(control: &Control<D>) -> Result<u64> {
    match control.features() {
        Err(Error { code: Code::Unsupported, .. }) => Ok(0),
        features => features,
    }
}

/// Which command puts a device to work once its queues are being fetched from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// `START_DEV`.
    Start,
    /// `END_USER_RECOVERY`.
    Recover,
}

/// A device that is to be served.
pub(super) struct Launch<'a, D: Driver> {
    pub(super) driver: &'a D,
    pub(super) control: &'a Control<D>,
    pub(super) info: &'a ublksrv_ctrl_dev_info,
    pub(super) modes: (Buffering, ExchangeMode),
    pub(super) throttle: &'a Arc<Throttle>,
    pub(super) begin: Begin,
}

impl<D: Driver> Launch<'_, D> {
    /// Serves the device; on failure it is left as it was, without a server.
    pub(super) fn run<T: Target>(
        &self,
        target: T,
        params: &ublk_params,
        mut options: DeviceOptions,
        pool: Option<&Pool<T>>,
    ) -> Result<Device<D>> {
        let (control, id) = (self.control, self.info.dev_id);
        let shifts = staff::shifts(self.info, &options);
        let counters = staff::tally(&shifts);
        let names = staff::names(id, &shifts);
        // Before the first request: a request without a stamp is not seen.
        let guard =
            options.watchdog.map(|after| (Guard::new(&counters, self.info.queue_depth), after));
        let (buffers, exchange) = self.modes;
        let links = self.links(&options);
        let memory = buffers.shared.then(Memory::default);
        let post = Post::open()?;
        let (events, inbox) = Events::new(post.clone());
        let mut crew = Crew::default();
        let target = Arc::new(target);
        self.driver.ask_allocation(allocation_of(&target), target.tells_changes());
        let bridge = target.elsewhere().map(|elsewhere| Arc::clone(elsewhere.bridge()));
        if recovers(self.info.flags) {
            bridge.iter().for_each(|bridge| bridge.outlive(true));
        }
        let arrange = {
            let (driver, queue, info) = (self.driver.clone(), options.queue.clone(), *self.info);
            let throttles_writes = target.throttles_writes();
            move || queue.apply(&driver, &info, throttles_writes)
        };
        let before_start = options.before_start.take();
        let mut reactors = Vec::new();
        let started = self
            .staff(&options, memory.as_ref(), (&target, shifts), &events, pool, &mut crew)
            .map(|mailboxes| reactors = mailboxes)
            .and_then(|()| muster(&inbox, &mut crew, options.limit))
            .and_then(|()| match self.begin {
                Begin::Start => self.write_down(&*target, params, before_start),
                // Written down already: nothing may fail between END_USER_RECOVERY and a server.
                Begin::Recover => Ok(()),
            })
            .and_then(|()| self.start(&options, arrange, &events, &inbox, &mut crew))
            .and_then(|()| match self.begin {
                Begin::Start => wait_for_node(self.driver, id, options.limit),
                Begin::Recover => Ok(()),
            })
            .and_then(|()| control.info(id));
        let info = match started {
            Ok(info) => DeviceInfo::new(&info, params),
            Err(error) => {
                crew.dismiss(&inbox, (control, id), (self.parting(), options.limit));
                return Err(error);
            }
        };
        let limit = options.limit;
        let in_pool = std::iter::repeat_with(|| "a thread of the pool".to_owned());
        let names: Vec<_> =
            if pool.is_some() { in_pool.take(reactors.len()).collect() } else { names };
        let named: Vec<_> = names.into_iter().zip(reactors.iter().cloned()).collect();
        let shared = Arc::new(Shared {
            control: control.clone(),
            options,
            info,
            buffers,
            exchange,
            memory,
            throttle: Arc::clone(self.throttle),
            counters,
            bridge,
            size_check: SizeCheck::of(&target),
            stalls: Mutex::new(
                guard.map(|(guard, after)| Stalls::new(guard, after, &target, &named)),
            ),
            measure: Mutex::default(),
            layers: Layers::of(self.driver, &target, &reactors, limit),
            links,
            leave: pool.is_none().then_some(events),
            closing: Mutex::default(),
            ended: Condvar::new(),
        });
        supervise::entrust(Arc::clone(&shared), Staff { crew, inbox, post });
        Ok(Device { shared })
    }

    /// Writes down what the next server needs, before a client can use the device: a server that is
    /// killed right after START_DEV leaves a device that can be recovered.
    fn write_down(
        &self,
        target: &impl Target,
        params: &ublk_params,
        before_start: Option<BeforeStart>,
    ) -> Result<()> {
        if recovers(self.info.flags) {
            layout::keep(self.driver, self.info.dev_id, target)?;
        }
        if let Some(before_start) = before_start {
            before_start.call(&DeviceInfo::new(self.info, params));
        }
        Ok(())
    }

    /// The fate of the device where serving it fails: a created device is deleted, and a device to be
    /// recovered waits for another server. QUIESCE_DEV takes the device from a pool after
    /// END_USER_RECOVERY, and does nothing before.
    fn parting(&self) -> Parting {
        match self.begin {
            Begin::Start => Parting::Stop,
            Begin::Recover if can_be_left(self.info.flags) => Parting::Quiesce,
            Begin::Recover => Parting::Stay,
        }
    }
}

/// Asks the target which ranges take space; once the target is gone, all do.
fn allocation_of<T: Target>(target: &Arc<T>) -> Arc<FindAllocation> {
    let target = Arc::downgrade(target);
    Arc::new(move |offset, length| {
        let data = || Ok(Allocation::data(length));
        target.upgrade().map_or_else(data, |target| target.allocation(offset, length))
    })
}

/// Commands of a user who is not root are checked against the node, which udev has to hand over.
fn wait_for_ownership<D: Driver>(control: &Control<D>, id: u32, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while control.info(id).is_err() {
        if Instant::now() >= deadline {
            let message = format!("/dev/ublkc{id} does not become this user's");
            return Err(Error::new(Code::Permission, message).hint(
                "`ublk udev-rules` prints what udev needs for that; `ublk doctor` tells how",
            ));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until every queue is being fetched from.
fn muster(inbox: &Receiver<Event>, crew: &mut Crew, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !crew.is_ready() {
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => crew.note(event)?,
            Err(_) => {
                return Err(Error::new(Code::Timeout, "the queues' threads do not get ready"));
            }
        }
    }
    Ok(())
}

impl<D: Driver> Launch<'_, D> {
    /// The command waits in the kernel, so another thread sends it: a queue that ends meanwhile
    /// is noticed here, and stopping the device ends the wait (trap 23). So may `arrange`, which is
    /// called when a device has started. A device in recovery is not stopped: the next server may
    /// do better; what waits in the kernel gives up at its limit.
    fn start(
        &self,
        options: &DeviceOptions,
        arrange: impl FnOnce() -> Result<()> + Send + 'static,
        events: &Events,
        inbox: &Receiver<Event>,
        crew: &mut Crew,
    ) -> Result<()> {
        let (id, begin, limit) = (self.info.dev_id, self.begin, options.limit);
        let (control, events) = (self.control.clone(), events.clone());
        let thread = aside::run_at_once(move || {
            let pid = process::id();
            let _unheard = events.send(Event::Started(match begin {
                Begin::Start => control.start(id, pid, limit).and_then(|()| arrange()),
                Begin::Recover => end_recovery(&control, id, pid, limit),
            }));
        });
        thread.map_err(|error| Error::no_thread(&error))?;
        let deadline = Instant::now() + 3 * limit;
        let outcome = loop {
            match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Started(result)) => break result,
                Ok(event) => {
                    if let Err(error) = crew.note(event) {
                        break Err(error);
                    }
                }
                Err(_) => {
                    break Err(Error::new(Code::Timeout, "the device's queue takes no settings")
                        .hint("requests that are in flight already do not end"));
                }
            }
        };
        if outcome.is_err() && begin == Begin::Start {
            let _worse = self.control.stop(id, limit);
        }
        outcome
    }
}

/// END_USER_RECOVERY. Whether a command without an answer has been carried out, or will be, its time-out
/// does not say: the kernel is asked, for as long again.
fn end_recovery<D: Driver>(control: &Control<D>, id: u32, pid: u32, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + 2 * limit;
    let unanswered = match control.end_recovery(id, pid, limit) {
        Err(error) if error.code == Code::Timeout => error,
        result => return result,
    };
    let is_served = || {
        let info = control.info(id).map(|info| DeviceInfo::new(&info, &ublk_params::default()));
        info.is_ok_and(|info| info.state == DeviceState::Live && info.server_pid == Some(pid))
    };
    while !is_served() {
        if Instant::now() >= deadline {
            return Err(unanswered);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until clients can open the block device.
fn wait_for_node<D: Driver>(driver: &D, id: u32, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !has_node(driver, id)? {
        if Instant::now() >= deadline {
            let message = format!("/dev/ublkb{id} may not be opened");
            return Err(Error::new(Code::Timeout, message)
                .hint("the node is another user's: may udev still give it to this one?"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether clients can open the block device now; an error where clients never will.
pub(super) fn has_node<D: Driver>(driver: &D, id: u32) -> Result<bool> {
    match driver.block_node(id) {
        BlockNode::Ready => Ok(true),
        BlockNode::NotYet => Ok(false),
        BlockNode::Occupied(what) => {
            let message = format!("/dev/ublkb{id} is {what}, in place of the block device");
            Err(Error::new(Code::Kernel, message).hint(format!(
                "what clients write there never reaches the device; look at it, and remove it: \
                 rm /dev/ublkb{id}"
            )))
        }
        BlockNode::Missing(error) => {
            let tried = format!("/dev/ublkb{id} is missing, and cannot be made");
            Err(Error::os(Code::Kernel, tried, "mknod", &error).hint(
                "the kernel makes the nodes of devices in a devtmpfs: mount one on /dev, or \
                 let this process make nodes (CAP_MKNOD)",
            ))
        }
    }
}
