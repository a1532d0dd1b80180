//! One scenario at work: a device, its reactors, its client, its oracle.

use std::sync::Arc;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{Client, ClientOp, Rng, Sim, SimConfig, SimDisk};
use ublk_core::reactor::{
    ExchangeMode, Listener, Mailbox, QueueConfig, Reactor, Service, Share, Transfer, Turn, Waker,
};
use ublk_core::target::Target;
use ublk_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_VOLATILE_CACHE, UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO,
    UBLK_F_NEED_GET_DATA, UBLK_F_SHMEM_ZC, UBLK_F_SUPPORT_ZERO_COPY, UBLK_F_USER_COPY,
    UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DISCARD, UBLK_U_CMD_DEL_DEV, ublk_param_basic,
    ublk_param_discard, ublk_params, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use crate::memory::Memory;
use crate::replacing::Phase;
use crate::scenario::{Backend, Incident, Mode, SECTOR, Scenario};
use crate::shadow::{Shadow, pattern};
use crate::subject::{Seen, Subject};

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) sim: Sim,
    pub(crate) control: Control<Sim>,
    pub(crate) rng: Rng,
    pub(crate) id: u32,
    pub(crate) subject: Arc<Subject>,
    disks: Vec<SimDisk>,
    pub(crate) reactors: Vec<Reactor<Sim, Subject>>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) phase: Phase,
    client: Client,
    /// The last request, and the last one that may fail because a server went.
    pub(crate) last: u64,
    pub(crate) excused: u64,
    shadow: Shadow,
    pub(crate) memory: Option<Memory>,
    /// What was written, where the target looks at it.
    written: Vec<(u64, Vec<u8>)>,
    /// The device is being stopped, or its server is dead: requests may fail.
    over: bool,
}

/// The reactors of a server, and what ends each.
pub(crate) type Served = (Vec<Reactor<Sim, Subject>>, Vec<Waker>);

/// No scenario needs as many.
const MOST_ROUNDS: u32 = 100_000;

pub(crate) type Outcome = Result<(), String>;

impl World {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        // Whatever a scenario injects begins once the device is up.
        let mut config = SimConfig {
            trace: traced,
            thread_per_ring: true,
            ..SimConfig::stepping(scenario.seed)
        };
        config.faults.auto_register = scenario.faults.auto_register;
        let sim = Sim::new(config);
        let (subject, disks) = Subject::new(scenario, &sim);
        let subject = Arc::new(subject);
        let mut memory = (scenario.mode == Mode::Shared).then(|| Memory::new(scenario, &sim));
        let (id, (reactors, wakers)) = bring_up(scenario, &sim, &subject, memory.as_ref());
        if let Some(memory) = &mut memory {
            memory.toggle(&sim, id, 0, false);
        }
        sim.set_faults(scenario.faults);
        let client = sim.client(id).unwrap();
        Self {
            scenario: scenario.clone(),
            rng: Rng::new(scenario.seed ^ 0xc11e),
            id,
            subject,
            disks,
            reactors,
            wakers,
            phase: Phase::Served,
            client,
            last: 0,
            excused: 0,
            control: Control::new(sim.clone()),
            shadow: Shadow::new(scenario.sectors),
            memory,
            written: Vec::new(),
            sim,
            over: false,
        }
    }

    pub(crate) fn run(&mut self) -> Outcome {
        let (mut submitted, mut rounds_at_rest, mut rounds) = (0, 0, 0);
        while submitted < self.scenario.requests || self.client.in_flight() > 0 {
            rounds += 1;
            if rounds > MOST_ROUNDS {
                return Err(format!("no end, {:?}", self.phase));
            }
            let before = self.sim.moves();
            let room = self.scenario.eagerness.saturating_sub(self.client.in_flight());
            let count = room.min(self.scenario.requests - submitted);
            let count = if count == 0 { 0 } else { 1 + self.rng.index(count) };
            self.share();
            for _ in 0..count {
                if submitted == self.scenario.incident.0 {
                    self.incident();
                }
                self.submit();
                submitted += 1;
            }
            self.turn()?;
            self.take()?;
            if let Incident::Replace(_) = self.scenario.incident.1 {
                self.go_on()?;
            }
            if count == 0 && self.sim.moves() == before && self.phase == Phase::Served {
                if rounds_at_rest < 1 {
                    // A new server has come in this very round.
                    rounds_at_rest += 1;
                    continue;
                }
                return Err(format!("{} requests hang", self.client.in_flight()));
            }
        }
        self.sim.audit();
        self.stop()?;
        self.delete()?;
        self.check_disks()?;
        self.check_rules()
    }

    pub(crate) fn trace(&self) -> String {
        let lines: Vec<String> =
            self.sim.trace().iter().map(|event| format!("  {event}\n")).collect();
        lines.concat()
    }

    fn turn(&mut self) -> Outcome {
        let first = self.rng.index(self.reactors.len().max(1));
        if self.phase == Phase::Leaving {
            // They have their turn when they are asked to leave.
            return Ok(());
        }
        for at in 0..self.reactors.len() {
            let at = (first + at) % self.reactors.len();
            match self.reactors[at].turn() {
                Ok(Turn::Serving) => {}
                Ok(Turn::Ended) if self.over => {}
                Ok(Turn::Ended) => return Err("a reactor has ended by itself".into()),
                Err(error) => return Err(format!("a reactor is lost: {error}")),
            }
        }
        Ok(())
    }

    fn submit(&mut self) {
        let op = self.draw_op();
        let length = match &op {
            ClientOp::Read { length, .. } => *length as usize,
            ClientOp::Write { offset, data, .. } => {
                if self.scenario.mode == Mode::Inspected {
                    self.written.push((*offset, data.clone()));
                }
                data.len()
            }
            _ => 0,
        };
        let memory = self.memory.as_mut().filter(|_| length > 0);
        let place = memory.and_then(|memory| memory.draw(&mut self.rng, length));
        let ticket = self.client.submit_in(&op, None, place);
        self.memory.iter_mut().for_each(|memory| memory.is_for(ticket));
        self.shadow.submitted(ticket, &op);
        self.last = ticket;
    }

    /// Now and then a piece of memory is registered or taken back.
    fn share(&mut self) {
        let quiet = !self.over && self.client.in_flight() == 0;
        if let Some(memory) = self.memory.as_mut().filter(|_| quiet) {
            let (toggle, read_only) = (self.rng.chance(500), self.rng.chance(300));
            if toggle {
                memory.toggle(&self.sim, self.id, 1, read_only);
            }
        }
    }

    fn check_seen(&self) -> Outcome {
        for seen in self.subject.seen() {
            let Seen { offset, length, at, bytes } = seen;
            let (at, length) = (at as usize, length as usize);
            let is = |(from, data): &(u64, Vec<u8>)| {
                *from == offset && data.len() == length && data[at..at + bytes.len()] == bytes
            };
            if !self.written.iter().any(is) {
                return Err(format!("nobody wrote what was seen at {offset}"));
            }
        }
        Ok(())
    }

    fn draw_op(&mut self) -> ClientOp {
        let most = (self.scenario.max_io_bytes as usize / SECTOR).min(self.scenario.sectors);
        let count = 1 + if self.rng.chance(500) {
            self.rng.index(most)
        } else {
            self.rng.index(most.min(8))
        };
        // Half of the requests meet in a few sectors.
        let reach = self.scenario.sectors - count + 1;
        let reach = if self.rng.chance(500) { reach.min(32) } else { reach };
        let first = self.rng.index(reach);
        let offset = (first * SECTOR) as u64;
        let kind = self.rng.below(20);
        let count = match self.scenario.backend.stripe() {
            Some(stripe) if kind <= 14 => count.min(stripe - first % stripe),
            _ => count,
        };
        let length = u32::try_from(count * SECTOR).unwrap();
        match kind {
            0..=7 => ClientOp::Read { offset, length },
            8..=14 => {
                let born = self.shadow.next();
                let data = (first..first + count).flat_map(|sector| pattern(born, sector));
                ClientOp::Write { offset, data: data.collect(), fua: self.rng.chance(200) }
            }
            15 | 16 => ClientOp::Flush,
            17 => ClientOp::Discard { offset, length },
            _ => ClientOp::WriteZeroes { offset, length, no_unmap: self.rng.chance(500) },
        }
    }

    fn take(&mut self) -> Outcome {
        self.check_seen()?;
        for done in self.client.take() {
            self.memory.iter_mut().for_each(|memory| memory.ended(done.ticket));
            if let Err(errno) = done.result
                && !self.may_fail()
                && !self.is_excused(done.ticket)
            {
                return Err(format!("request {} fails with {errno} for no reason", done.ticket));
            }
            if self.scenario.backend != Backend::Null {
                let ended = self.shadow.ended(done.ticket, done.result.is_ok(), &done.data);
                ended.map_err(|problem| format!("request {}: {problem}", done.ticket))?;
            }
        }
        Ok(())
    }

    /// Short, slow and interrupted operations are no reason to fail, nor is a buffer that could
    /// not be unregistered at once.
    fn may_fail(&self) -> bool {
        let injected = self.sim.injected();
        let unsupported = matches!(
            self.scenario.incident.1,
            Incident::Trouble(trouble) if trouble.no_punch || trouble.no_zero_range
        );
        self.over || unsupported || injected.error > 0 || injected.register > 0
    }

    fn incident(&mut self) {
        match self.scenario.incident.1 {
            Incident::Nothing => {}
            Incident::Stop => {
                self.over = true;
                self.sim.begin_stop(self.id).unwrap();
            }
            Incident::Kill => {
                self.over = true;
                self.reactors.clear();
            }
            Incident::Replace(how) => self.replace(how),
            Incident::Truncate(size) => {
                self.disks[0].resize(size);
                self.shadow.truncated(size);
            }
            Incident::Trouble(trouble) => {
                let disk = self.rng.index(self.disks.len());
                self.disks[disk].set_trouble(trouble);
            }
        }
    }

    /// Stops the device and lets the reactors see it.
    fn stop(&mut self) -> Outcome {
        self.over = true;
        self.sim.begin_stop(self.id).unwrap();
        while !self.reactors.is_empty() {
            let before = (self.sim.moves(), self.reactors.len());
            let mut lost = None;
            self.reactors.retain_mut(|reactor| match reactor.turn() {
                Ok(Turn::Serving) => true,
                Ok(Turn::Ended) => false,
                Err(error) => {
                    lost = Some(error);
                    false
                }
            });
            if let Some(error) = lost {
                return Err(format!("a reactor is lost: {error}"));
            }
            if (self.sim.moves(), self.reactors.len()) == before {
                return Err("the device does not stop".into());
            }
        }
        Ok(())
    }

    fn delete(&self) -> Outcome {
        let command =
            ublksrv_ctrl_cmd { dev_id: self.id, queue_id: u16::MAX, ..Default::default() };
        let deleted = self.sim.control(UBLK_U_CMD_DEL_DEV, command, None, Duration::ZERO);
        deleted.map(drop).map_err(|error| format!("the device cannot be deleted: {error}"))
    }

    fn check_disks(&self) -> Outcome {
        let size = self.scenario.sectors * SECTOR;
        let Some(image) = self.subject.image(&self.disks, size) else { return Ok(()) };
        self.shadow.check_now(&image)?;
        if !self.scenario.cache {
            // Nobody sends flushes to a device that says that it needs none.
            return Ok(());
        }
        self.disks.iter().for_each(SimDisk::cut_power);
        let image = self.subject.image(&self.disks, size).unwrap_or_default();
        self.shadow.check_durable(&image)
    }

    fn check_rules(&self) -> Outcome {
        let violations = self.sim.violations();
        if violations.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = violations.iter().map(|v| format!("  {v}\n")).collect();
        Err(format!("rules are broken:\n{}", lines.concat()))
    }
}

fn bring_up(
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
    let lends = buffers & UBLK_F_SUPPORT_ZERO_COPY != 0;
    let copies = if lends && subject.inspects() { UBLK_F_USER_COPY } else { 0 };
    let shares = if memory.is_some() { UBLK_F_SHMEM_ZC } else { 0 };
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: scenario.queues,
        queue_depth: scenario.depth,
        max_io_buf_bytes: scenario.max_io_bytes,
        dev_id: u32::MAX,
        flags: buffers | copies | shares | exchange | scenario.recovery_flags(),
        ..Default::default()
    };
    let info = control.add(&wanted).unwrap();
    control.set_params(info.dev_id, &params(scenario, subject)).unwrap();
    let served = serve(scenario, sim, subject, memory, &info);
    control.start(info.dev_id, std::process::id(), Duration::ZERO).unwrap();
    (info.dev_id, served)
}

/// A server for the device, as far as its first fetches.
pub(crate) fn serve(
    scenario: &Scenario,
    sim: &Sim,
    subject: &Arc<Subject>,
    memory: Option<&Memory>,
    info: &ublksrv_ctrl_dev_info,
) -> Served {
    let char_device = sim.open_char(info.dev_id).unwrap();
    let zeros = sim.open_zeros().unwrap();
    let service = |(queue, share)| Service {
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
        },
        shared: memory.map(Memory::map),
        target: Arc::clone(subject),
        counters: Arc::default(),
        listener: Listener::default(),
    };
    let (mut reactors, mut wakers) = (Vec::new(), Vec::new());
    for shift in shifts(scenario, info) {
        let mailbox = Mailbox::new().unwrap();
        wakers.push(mailbox.waker().clone());
        let services = shift.into_iter().map(service).collect();
        reactors.push(Reactor::of(sim, mailbox, services).unwrap());
    }
    (reactors, wakers)
}

/// What each reactor serves.
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
    ublk_params {
        len: u32::try_from(size_of::<ublk_params>()).unwrap(),
        types: UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD,
        basic: ublk_param_basic {
            attrs,
            logical_bs_shift: 9,
            physical_bs_shift: 12,
            io_opt_shift: 12,
            io_min_shift: 12,
            max_sectors: scenario.max_io_bytes >> 9,
            dev_sectors: geometry.size >> 9,
            ..Default::default()
        },
        discard: ublk_param_discard {
            discard_granularity: 512,
            max_discard_sectors: scenario.max_io_bytes >> 9,
            max_write_zeroes_sectors: scenario.max_io_bytes >> 9,
            max_discard_segments: 1,
            ..Default::default()
        },
        ..Default::default()
    }
}
