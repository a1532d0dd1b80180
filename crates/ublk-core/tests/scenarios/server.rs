//! The server of a scenario: adds the device, serves the device and takes the device down.

use std::sync::Arc;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{Injected, Sim};
use ublk_core::error::Code;
use ublk_core::reactor::{
    ExchangeMode, Listener, Mailbox, Part, QueueConfig, Reactor, Service, Share, Transfer, Turn,
    Waker, apart,
};
use ublk_core::targets::{Geometry, Target};
use ublk_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_VOLATILE_CACHE, UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO,
    UBLK_F_INTEGRITY, UBLK_F_NEED_GET_DATA, UBLK_F_SHMEM_ZC, UBLK_F_SUPPORT_ZERO_COPY,
    UBLK_F_USER_COPY, UBLK_F_ZONED, UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_ZONED, UBLK_S_DEV_DEAD, UBLK_U_CMD_DEL_DEV,
    ublk_param_basic, ublk_param_discard, ublk_param_integrity, ublk_param_zoned, ublk_params,
    ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use crate::memory::Memory;
use crate::mode::Mode;
use crate::scenario::Scenario;
use crate::subject::Subject;
use crate::world::MOST_ROUNDS;

pub(crate) type Outcome = Result<(), String>;

pub(crate) type Reactors = Vec<Reactor<Sim, Subject>>;

/// The reactors of a server, and the wakers that end the reactors.
pub(crate) type Served = (Reactors, Vec<Waker>);

/// Gives each reactor a turn, and removes the reactors that have ended.
pub(crate) fn turn(reactors: &mut Reactors) -> Outcome {
    let mut lost = None;
    reactors.retain_mut(|reactor| match reactor.turn() {
        Ok(Turn::Serving) => true,
        Ok(Turn::Ended) => false,
        Err(error) => {
            lost = Some(error);
            false
        }
    });
    lost.map_or(Ok(()), |error| Err(format!("a reactor is lost: {error}")))
}

/// Stops the device, runs the reactors until the reactors end, and deletes the device. The model may stand
/// still for less than `patience` rounds.
pub(crate) fn take_down(sim: &Sim, id: u32, reactors: &mut Reactors, patience: u32) -> Outcome {
    sim.begin_stop(id).unwrap();
    end(sim, reactors, patience)?;
    let command = ublksrv_ctrl_cmd { dev_id: id, queue_id: u16::MAX, ..Default::default() };
    let deleted = sim.control(UBLK_U_CMD_DEL_DEV, command, None, Duration::ZERO);
    deleted.map(drop).map_err(|error| format!("the device cannot be deleted: {error}"))
}

/// Runs the reactors until the kernel has ended all reactors.
pub(crate) fn end(sim: &Sim, reactors: &mut Reactors, patience: u32) -> Outcome {
    let mut rounds_at_rest = 0;
    while !reactors.is_empty() {
        let before = (sim.moves(), reactors.len());
        turn(reactors)?;
        rounds_at_rest += 1;
        if (sim.moves(), reactors.len()) != before {
            rounds_at_rest = 0;
        } else if rounds_at_rest >= patience {
            return Err("the device does not stop".into());
        }
    }
    Ok(())
}

/// Fails if the server broke a rule of the model.
pub(crate) fn check_rules(sim: &Sim) -> Outcome {
    let violations = sim.violations();
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = violations.iter().map(|v| format!("  {v}\n")).collect();
    Err(format!("rules are broken:\n{}", lines.concat()))
}

/// Adds and starts a device for the scenario, with a server.
pub(crate) fn bring_up(
    scenario: &Scenario,
    sim: &Sim,
    subject: &Arc<Subject>,
    memory: Option<&Memory>,
) -> (u32, Served) {
    let control = Control::new(sim.clone());
    let exchange = if scenario.exchange == ExchangeMode::Batch { UBLK_F_BATCH_IO } else { 0 };
    let buffers = match scenario.transfer {
        Transfer::Auto => UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY,
        Transfer::Register { .. } => UBLK_F_SUPPORT_ZERO_COPY,
        Transfer::UserCopy => UBLK_F_USER_COPY,
        Transfer::GetData => UBLK_F_NEED_GET_DATA,
        Transfer::Copy => 0,
    };
    let Geometry { integrity, zoned, .. } = *subject.geometry();
    let special = if integrity.is_some() { UBLK_F_INTEGRITY } else { 0 }
        | if zoned.is_some() { UBLK_F_ZONED } else { 0 };
    let copies = if special != 0 { UBLK_F_USER_COPY } else { 0 };
    let shares = if memory.is_some() { UBLK_F_SHMEM_ZC } else { 0 };
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: scenario.queues,
        queue_depth: scenario.depth,
        max_io_buf_bytes: scenario.max_io_bytes,
        dev_id: u32::MAX,
        flags: buffers | copies | special | shares | exchange | scenario.recovery_flags(),
        ..Default::default()
    };
    let info = control.add(&wanted).unwrap();
    control.set_params(info.dev_id, &params(scenario, subject)).unwrap();
    let mut served = serve(scenario, sim, subject, memory, &info);
    start(sim, &control, info.dev_id, &mut served.0);
    (info.dev_id, served)
}

/// Starts the device. START_DEV of a zoned device waits until the server has reported the zones. A failed
/// report fails START_DEV, and the server may send START_DEV again.
fn start(sim: &Sim, control: &Control<Sim>, id: u32, reactors: &mut Reactors) {
    let begin = || match control.start(id, std::process::id(), Duration::ZERO) {
        Ok(()) => false,
        Err(error) if error.code == Code::Timeout => true,
        Err(error) => panic!("the device cannot be started: {error}"),
    };
    let mut waits = begin();
    for _ in 0..MOST_ROUNDS {
        if !waits || sim.client(id).is_ok() {
            return;
        }
        if control.info(id).unwrap().state == UBLK_S_DEV_DEAD {
            assert_ne!(sim.injected(), Injected::default(), "a start fails for no reason");
            waits = begin();
        }
        turn(reactors).unwrap();
    }
    panic!("the device does not start");
}

/// A server for the device, up to the first fetches.
pub(crate) fn serve(
    scenario: &Scenario,
    sim: &Sim,
    subject: &Arc<Subject>,
    memory: Option<&Memory>,
    info: &ublksrv_ctrl_dev_info,
) -> Served {
    let char_device = sim.open_char(info.dev_id).unwrap();
    let zeros = sim.open_zeros().unwrap();
    let service = |queue, share, part| Service {
        throttle: Arc::default(),
        char_device: char_device.clone(),
        zeros: zeros.clone(),
        config: QueueConfig {
            spin: Duration::ZERO,
            queue,
            depth: info.queue_depth,
            share,
            transfer: scenario.transfer,
            exchange: scenario.exchange,
            max_io_bytes: info.max_io_buf_bytes,
            descriptor_size: usize::from(info.io_desc_size),
            features: info.flags,
            rotate_slots: scenario.mode == Mode::Rotating,
            links: true,
        },
        part,
        shared: memory.map(Memory::map),
        target: Arc::clone(subject),
        counters: Arc::default(),
        listener: Listener::default(),
    };
    let (mut reactors, mut wakers) = (Vec::new(), Vec::new());
    let mut begin = |services: Vec<_>| {
        let mailbox = Mailbox::new().unwrap();
        let waker = mailbox.waker().clone();
        reactors.push(Reactor::of(sim, mailbox, services).unwrap());
        waker
    };
    for shift in shifts(scenario, info) {
        if !scenario.apart {
            let whole = shift.into_iter().map(|(queue, share)| service(queue, share, Part::Whole));
            wakers.push(begin(whole.collect()));
            continue;
        }
        let both = shift.into_iter().map(|(queue, share)| {
            let (front, back) = apart(info.queue_depth);
            let part = |part| service(queue, share, part);
            (part(Part::Front(front)), part(Part::Back(back)))
        });
        let (fronts, backs) = both.unzip();
        wakers.push(begin(fronts));
        // The backs end when the fronts have ended.
        begin(backs);
    }
    (reactors, wakers)
}

/// The queues that each reactor serves, and the share of the tags.
fn shifts(scenario: &Scenario, info: &ublksrv_ctrl_dev_info) -> Vec<Vec<(u16, Share)>> {
    let queues = 0..info.nr_hw_queues;
    let whole: Vec<_> = queues.clone().map(|queue| (queue, Share::WHOLE)).collect();
    let Some(threads) = scenario.threads else {
        return if scenario.shared {
            vec![whole]
        } else {
            whole.chunks(1).map(Vec::from).collect()
        };
    };
    let of = |thread| {
        let share = move |queue| Share::of(thread, threads, queue, info.queue_depth);
        queues.clone().filter_map(move |queue| Some((queue, share(queue)?))).collect()
    };
    (0..threads).map(of).filter(|shift: &Vec<_>| !shift.is_empty()).collect()
}

fn params(scenario: &Scenario, target: &Subject) -> ublk_params {
    let geometry = target.geometry();
    let mut attrs = 0;
    if geometry.volatile_cache {
        attrs |= UBLK_ATTR_VOLATILE_CACHE;
        attrs |= if geometry.fua { UBLK_ATTR_FUA } else { 0 };
    }
    let mut params = ublk_params {
        len: u32::try_from(size_of::<ublk_params>()).unwrap(),
        types: UBLK_PARAM_TYPE_BASIC,
        basic: ublk_param_basic {
            attrs,
            logical_bs_shift: 9,
            physical_bs_shift: 12,
            io_opt_shift: 12,
            io_min_shift: 12,
            max_sectors: scenario.max_io_bytes >> 9,
            chunk_sectors: u32::try_from(geometry.chunk >> 9).unwrap(),
            dev_sectors: geometry.size >> 9,
            ..Default::default()
        },
        ..Default::default()
    };
    if geometry.discard.is_some() {
        params.types |= UBLK_PARAM_TYPE_DISCARD;
        params.discard = ublk_param_discard {
            discard_granularity: 512,
            max_discard_sectors: scenario.max_io_bytes >> 9,
            max_write_zeroes_sectors: scenario.max_io_bytes >> 9,
            max_discard_segments: 1,
            ..Default::default()
        };
    }
    if let Some(limits) = geometry.zoned {
        params.types |= UBLK_PARAM_TYPE_ZONED;
        params.zoned = ublk_param_zoned {
            max_open_zones: limits.max_open,
            max_active_zones: limits.max_active,
            max_zone_append_sectors: params.basic.max_sectors.min(params.basic.chunk_sectors),
            ..Default::default()
        };
    }
    if let Some(format) = geometry.integrity {
        params.types |= UBLK_PARAM_TYPE_INTEGRITY;
        params.integrity = ublk_param_integrity {
            interval_exp: 9,
            metadata_size: format.metadata_size,
            ..Default::default()
        };
    }
    params
}
