//! One running scenario: a device, the reactors, the client and the oracle.

use std::sync::Arc;

use ublk_core::driver::sim::{Client, ClientOp, Kernel, Rng, Sim, SimConfig, SimDisk};
use ublk_core::reactor::{Transfer, Turn};
use ublk_core::targets::Target;

use crate::answering::Answering;
use crate::deleting::Deleted;
use crate::memory::Memory;
use crate::mode::Mode;
use crate::replacing::{Phase, Servers};
use crate::scenario::{Backend, Incident, SECTOR, Scenario};
use crate::server::{Outcome, bring_up, check_rules, serve, take_down};
use crate::shadow::{Shadow, guard, pattern};
use crate::subject::Subject;

mod disks;

pub(crate) struct World {
    scenario: Scenario,
    sim: Sim,
    rng: Rng,
    subject: Arc<Subject>,
    disks: Vec<SimDisk>,
    servers: Servers,
    client: Client,
    shadow: Shadow,
    memory: Option<Memory>,
    /// The peer that answers requests across the bridge, in scenarios with a bridge.
    answering: Option<Answering>,
    /// The device is being stopped, or the server is dead: requests may fail.
    over: bool,
    /// `Incident::Delete` has happened.
    deleted: Option<Deleted>,
    /// `Incident::Grow` has happened.
    has_grown: bool,
    /// Whether a request has failed.
    has_failed: bool,
}

/// Upper bound of rounds: a scenario that takes more has no end.
pub(crate) const MOST_ROUNDS: u32 = 100_000;

impl World {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        // Faults start when the device is live.
        let mut config = SimConfig {
            trace: traced,
            thread_per_ring: true,
            // REG_BUF waits for requests in flight, and the scenario registers memory first.
            partition_scan: scenario.mode != Mode::Shared && scenario.seed.is_multiple_of(2),
            kernel: Kernel {
                rest_of_writes: scenario.seed.is_multiple_of(3),
                ..Kernel::linux_7_3()
            },
            ..SimConfig::stepping(scenario.seed)
        };
        config.faults.auto_register = scenario.faults.auto_register;
        let sim = Sim::new(config);
        let (subject, disks) = Subject::new(scenario, &sim);
        let subject = Arc::new(subject);
        let mut memory = (scenario.mode == Mode::Shared).then(|| Memory::new(scenario, &sim));
        let up = bring_up(scenario, &sim, &subject, memory.as_ref());
        let servers = Servers::new(scenario, &sim, up);
        if let Some(memory) = &mut memory {
            memory.toggle(&sim, servers.id, 0, false);
        }
        sim.set_faults(scenario.faults);
        let client = sim.client(servers.id).unwrap();
        let answering = subject.elsewhere().map(|elsewhere| Answering::new(elsewhere.bridge()));
        Self {
            scenario: scenario.clone(),
            rng: Rng::new(scenario.seed ^ 0xc11e),
            subject,
            disks,
            servers,
            client,
            shadow: Shadow::new(scenario.sectors),
            memory,
            answering,
            sim,
            over: false,
            deleted: None,
            has_grown: false,
            has_failed: false,
        }
    }

    pub(crate) fn run(&mut self) -> Outcome {
        let (mut submitted, mut rounds_at_rest, mut rounds, mut last) = (0, 0, 0, 0);
        while submitted < self.scenario.requests || self.client.in_flight() > 0 {
            rounds += 1;
            if rounds > MOST_ROUNDS {
                return Err(format!("no end, {:?}", self.servers.phase()));
            }
            let before = self.sim.moves();
            rounds_at_rest = if before == last { rounds_at_rest } else { 0 };
            last = before;
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
            let answered = self.answering.as_mut().is_some_and(|one| one.answer(&mut self.rng));
            self.take()?;
            self.go_on()?;
            if count > 0
                || self.sim.moves() != before
                || answered
                || self.servers.phase() != Phase::Served
            {
                rounds_at_rest = 0;
                continue;
            }
            rounds_at_rest += 1;
            if rounds_at_rest > self.scenario.patience() {
                return Err(format!("{} requests hang", self.client.in_flight()));
            }
        }
        self.sim.audit();
        self.over = true;
        let (servers, patience) = (&mut self.servers, self.scenario.patience());
        match &self.deleted {
            Some(deleted) => deleted.finish(&mut servers.reactors, patience)?,
            None => take_down(&self.sim, servers.id, &mut servers.reactors, patience)?,
        }
        self.subject.check()?;
        self.check_disks()?;
        check_rules(&self.sim)
    }

    pub(crate) fn trace(&self) -> String {
        let lines: Vec<String> =
            self.sim.trace().iter().map(|event| format!("  {event}\n")).collect();
        lines.concat()
    }

    fn turn(&mut self) -> Outcome {
        let first = self.rng.index(self.servers.reactors.len().max(1));
        if self.servers.phase() == Phase::Leaving {
            // `ask_to_leave` runs the reactors of a server that leaves.
            return Ok(());
        }
        for at in 0..self.servers.reactors.len() {
            let at = (first + at) % self.servers.reactors.len();
            match self.servers.reactors[at].turn() {
                Ok(Turn::Serving) => {}
                Ok(Turn::Ended) if self.over => {}
                Ok(Turn::Ended) => return Err("a reactor has ended by itself".into()),
                Err(error) => return Err(format!("a reactor is lost: {error}")),
            }
        }
        Ok(())
    }

    fn go_on(&mut self) -> Outcome {
        let Self { scenario, sim, subject, disks, memory, servers, .. } = self;
        servers.go_on(|info| {
            if let Some(next) = Subject::of_next_server(scenario, disks) {
                *subject = Arc::new(next);
            }
            serve(scenario, sim, subject, memory.as_ref(), info)
        })
    }

    fn submit(&mut self) {
        let op = self.draw_op();
        let length = match &op {
            ClientOp::Read { length, .. } => *length as usize,
            ClientOp::Write { data, .. } => data.len(),
            _ => 0,
        };
        let memory = self.memory.as_mut().filter(|_| length > 0);
        let place = memory.and_then(|memory| memory.draw(&mut self.rng, length));
        let ticket = match (&op, self.subject.metadata_size()) {
            (ClientOp::Write { offset, data, .. }, size) if size > 0 => {
                let metadata = guards(self.shadow.next(), *offset, data.len(), size);
                self.client.submit_with(&op, metadata)
            }
            _ => self.client.submit_in(&op, None, place),
        };
        self.memory.iter_mut().for_each(|memory| memory.is_for(ticket));
        self.shadow.submitted(ticket, &op);
        self.servers.last = ticket;
    }

    /// Registers or unregisters shared memory in some of the rounds; with requests in flight only where
    /// the server stays: the kernel lets nobody recover a device whose REG_BUF waits for the requests of a
    /// server that is gone.
    fn share(&mut self) {
        if self.over {
            return;
        }
        let stays = !matches!(self.scenario.incident.1, Incident::Replace(_));
        let chance = match self.client.in_flight() {
            0 => 500,
            _ if stays => 150,
            _ => 0,
        };
        if let Some(memory) = &mut self.memory {
            let (toggle, read_only) = (self.rng.chance(chance), self.rng.chance(300));
            if toggle {
                memory.toggle(&self.sim, self.servers.id, 1, read_only);
            }
        }
    }

    fn draw_op(&mut self) -> ClientOp {
        let most = (self.scenario.max_io_bytes as usize / SECTOR).min(self.scenario.sectors);
        let count = 1 + if self.rng.chance(500) {
            self.rng.index(most)
        } else {
            self.rng.index(most.min(8))
        };
        // Half of the requests overlap in a few sectors.
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
            // Discard and write-zeroes carry no metadata: a device with integrity has neither.
            _ if self.subject.metadata_size() > 0 => ClientOp::Flush,
            17 => ClientOp::Discard { offset, length },
            _ => ClientOp::WriteZeroes { offset, length, no_unmap: self.rng.chance(500) },
        }
    }

    fn take(&mut self) -> Outcome {
        for done in self.client.take() {
            self.memory.iter_mut().for_each(|memory| memory.ended(done.ticket));
            self.has_failed |= done.result.is_err();
            if let Err(errno) = done.result
                && !self.may_fail()
                && !self.servers.is_excused(done.ticket)
            {
                return Err(format!("request {} fails with {errno} for no reason", done.ticket));
            }
            if done.lost > 0 && done.result.is_ok() && self.scenario.transfer == Transfer::GetData {
                return Err(format!("request {}: {} bytes are lost", done.ticket, done.lost));
            }
            if self.scenario.backend != Backend::Null {
                let ended = self.shadow.ended(&done);
                ended.map_err(|problem| format!("request {}: {problem}", done.ticket))?;
            }
        }
        Ok(())
    }

    /// Whether a request may fail. Short, slow and interrupted operations and a refused UNREGISTER_IO_BUF
    /// must not fail a request; a copy of the driver that ends early may.
    fn may_fail(&self) -> bool {
        let injected = self.sim.injected();
        let unsupported = matches!(
            self.scenario.incident.1,
            Incident::Trouble(trouble) if trouble.no_punch || trouble.no_zero_range
        );
        self.over || unsupported || [injected.error, injected.register, injected.copied] != [0; 3]
    }

    fn incident(&mut self) {
        match self.scenario.incident.1 {
            Incident::Nothing => {}
            Incident::Stop => {
                self.over = true;
                self.sim.begin_stop(self.servers.id).unwrap();
            }
            Incident::Delete => {
                self.over = true;
                let same = self.rng.chance(500);
                self.deleted = Some(Deleted::begin(&self.sim, self.servers.id, same));
            }
            Incident::Kill => {
                self.over = true;
                self.servers.reactors.clear();
            }
            Incident::Replace(how) => self.servers.replace(how),
            Incident::Truncate(size) => {
                self.disks[0].resize(size);
                self.shadow.truncated(size);
            }
            Incident::Grow(bytes) => {
                self.has_grown = true;
                for disk in &self.disks {
                    disk.resize(disk.contents().len() + bytes);
                }
            }
            Incident::Trouble(trouble) => {
                let disk = self.rng.index(self.disks.len());
                self.disks[disk].set_trouble(trouble);
            }
        }
    }
}

/// The metadata of a write: `size` bytes for each sector.
fn guards(born: u64, offset: u64, length: usize, size: usize) -> Vec<u8> {
    let first = usize::try_from(offset).unwrap() / SECTOR;
    (first..first + length / SECTOR).flat_map(|sector| guard(born, sector, size)).collect()
}
