//! Scenarios of a zoned device, with a separate oracle: each append returns its offset, a zone holds
//! nothing but appended data, and a report of an unchanged zone matches the expected state.

use std::collections::BTreeMap;
use std::sync::Arc;

use ublk_core::driver::sim::{Client, ClientOp, Done, Rng, Sim, SimConfig, ZoneAction};

use crate::deleting::Deleted;
use crate::ground::Ground;
use crate::replacing::{Phase, Servers};
use crate::scenario::{Backend, Incident, SECTOR, Scenario, ZONE};
use crate::server::{Outcome, bring_up, check_rules, serve, take_down, turn};
use crate::shadow::pattern;
use crate::subject::Subject;
use crate::world::MOST_ROUNDS;
use crate::zone::{Zone, is_active, is_open};

pub(crate) struct Zones {
    scenario: Scenario,
    sim: Sim,
    rng: Rng,
    ground: Ground,
    servers: Servers,
    client: Client,
    zones: Vec<Zone>,
    open: BTreeMap<u64, Open>,
    born: u64,
    /// The device is being stopped, or the server is dead: requests may fail.
    over: bool,
    /// `Incident::Delete` has happened.
    deleted: Option<Deleted>,
}

/// A request under way.
struct Open {
    what: What,
    /// Index of the zone.
    zone: usize,
    /// For each zone without a change in flight the value of `changes` at submission.
    before: Vec<Option<u64>>,
}

enum What {
    Append {
        born: u64,
        length: u64,
    },
    Write {
        born: u64,
        length: u64,
    },
    /// Expected contents of the sectors at submission.
    Read {
        first: usize,
        known: Vec<Option<(u64, usize)>>,
    },
    Change(ZoneAction),
    Report,
    Flush,
}

impl Zones {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        let mut config = SimConfig { trace: traced, ..SimConfig::stepping(scenario.seed) };
        // In half of the scenarios START_DEV, too, meets faults.
        if scenario.seed % 4 < 2 {
            config.faults = scenario.faults;
        }
        config.faults.auto_register = scenario.faults.auto_register;
        let sim = Sim::new(config);
        let mut ground = Ground::new(scenario);
        let subject = Arc::new(Subject::zoned(ground.open()));
        let up = bring_up(scenario, &sim, &subject, None);
        let servers = Servers::new(scenario, &sim, up);
        sim.set_faults(scenario.faults);
        let Backend::Zones { count, capacity, max_open, .. } = scenario.backend else {
            panic!("a scenario of zones")
        };
        let replaced = matches!(scenario.incident.1, Incident::Replace(_));
        Self {
            scenario: scenario.clone(),
            rng: Rng::new(scenario.seed ^ 0x20_4e5),
            ground,
            client: sim.client(servers.id).unwrap(),
            servers,
            zones: (0..count).map(|_| Zone::new(capacity, (max_open > 0, replaced))).collect(),
            open: BTreeMap::new(),
            born: 0,
            sim,
            over: false,
            deleted: None,
        }
    }

    pub(crate) fn trace(&self) -> String {
        self.sim.trace().iter().map(|event| format!("  {event}\n")).collect()
    }

    pub(crate) fn run(&mut self) -> Outcome {
        let (mut submitted, mut rounds, mut rounds_at_rest) = (0, 0, 0);
        while submitted < self.scenario.requests || self.client.in_flight() > 0 {
            rounds += 1;
            if rounds > MOST_ROUNDS {
                return Err(format!("no end, {:?}", self.servers.phase()));
            }
            let before = self.sim.moves();
            let room = self.scenario.eagerness.saturating_sub(self.client.in_flight());
            let count = room.min(self.scenario.requests - submitted);
            for _ in 0..count {
                if submitted == self.scenario.incident.0 {
                    self.incident();
                }
                self.submit();
                submitted += 1;
            }
            self.turn()?;
            for done in self.client.take() {
                self.ended(&done)?;
            }
            self.go_on()?;
            let served = self.servers.phase() == Phase::Served;
            let at_rest = served && count == 0 && self.sim.moves() == before;
            rounds_at_rest = if at_rest { rounds_at_rest + 1 } else { 0 };
            if rounds_at_rest > self.scenario.patience() {
                return Err(format!("{} requests hang", self.client.in_flight()));
            }
        }
        self.sim.audit();
        let (Servers { id, reactors, .. }, patience) =
            (&mut self.servers, self.scenario.patience());
        match &self.deleted {
            Some(deleted) => deleted.finish(reactors, patience)?,
            None => take_down(&self.sim, *id, reactors, patience)?,
        }
        check_rules(&self.sim)
    }

    fn turn(&mut self) -> Outcome {
        if self.servers.phase() == Phase::Leaving {
            // `ask_to_leave` runs the reactors of a server that leaves.
            return Ok(());
        }
        let serving = self.servers.reactors.len();
        turn(&mut self.servers.reactors)?;
        if self.servers.reactors.len() < serving && !self.over {
            return Err("a reactor has ended by itself".into());
        }
        Ok(())
    }

    fn go_on(&mut self) -> Outcome {
        let Self { scenario, sim, ground, servers, .. } = self;
        servers.go_on(|info| {
            let subject = Arc::new(Subject::zoned(ground.open()));
            serve(scenario, sim, &subject, None, info)
        })
    }

    fn incident(&mut self) {
        match self.scenario.incident.1 {
            Incident::Stop => self.sim.begin_stop(self.servers.id).unwrap(),
            Incident::Delete => {
                let same = self.rng.chance(500);
                self.deleted = Some(Deleted::begin(&self.sim, self.servers.id, same));
            }
            Incident::Kill => {
                self.ground.kill_server();
                self.servers.reactors.clear();
            }
            Incident::Replace(how) => {
                if !how.gently {
                    self.ground.kill_server();
                }
                return self.servers.replace(how);
            }
            _ => return,
        }
        self.over = true;
    }

    fn submit(&mut self) {
        let zone = self.rng.index(self.zones.len());
        let start = zone as u64 * ZONE;
        let taken = self.zones[zone].is_taken();
        let (op, what) = match self.rng.below(20) {
            kind if taken && kind < 10 => (ClientOp::Flush, What::Flush),
            _ if taken => self.report(),
            0..=8 => self.append(start),
            9..=11 => self.write(zone).unwrap_or_else(|| self.append(start)),
            12..=15 => self.read(zone),
            16 => (ClientOp::Flush, What::Flush),
            17 => self.change(zone).unwrap_or_else(|| self.append(start)),
            _ => self.report(),
        };
        let before = self.zones.iter().map(Zone::changes_at_rest).collect();
        let ticket = self.client.submit(&op, None);
        match &what {
            What::Append { length, .. } => self.zones[zone].begin_append(*length),
            What::Change(ZoneAction::ResetAll) => self.zones.iter_mut().for_each(Zone::begin_alone),
            What::Write { .. } | What::Change(_) => self.zones[zone].begin_alone(),
            What::Read { .. } => self.zones[zone].begin_read(),
            What::Report | What::Flush => {}
        }
        self.servers.last = ticket;
        self.open.insert(ticket, Open { what, zone, before });
    }

    fn data(&mut self) -> (u64, Vec<u8>) {
        let most = (self.scenario.max_io_bytes as usize / SECTOR).min(32);
        self.born += 1;
        let sectors = 1 + self.rng.index(most);
        (self.born, (0..sectors).flat_map(|sector| pattern(self.born, sector)).collect())
    }

    fn append(&mut self, zone: u64) -> (ClientOp, What) {
        let (born, data) = self.data();
        let length = data.len() as u64;
        (ClientOp::Append { zone, data }, What::Append { born, length })
    }

    /// A write at the write pointer, if the pointer is known and no change is in flight.
    fn write(&mut self, zone: usize) -> Option<(ClientOp, What)> {
        let at = self.zones[zone].pointer_at_rest()?;
        let (born, data) = self.data();
        let length = data.len() as u64;
        let offset = zone as u64 * ZONE + at;
        let fits = at + length <= self.zones[zone].capacity();
        fits.then_some((ClientOp::Write { offset, data, fua: false }, What::Write { born, length }))
    }

    fn read(&mut self, zone: usize) -> (ClientOp, What) {
        let sectors = self.zones[zone].sectors();
        let first = self.rng.index(sectors.len());
        let most = (sectors.len() - first).min(self.scenario.max_io_bytes as usize / SECTOR);
        let count = 1 + self.rng.index(most);
        let known = sectors[first..first + count].to_vec();
        let offset = zone as u64 * ZONE + (first * SECTOR) as u64;
        let length = u32::try_from(count * SECTOR).unwrap();
        (ClientOp::Read { offset, length }, What::Read { first, known })
    }

    fn change(&mut self, zone: usize) -> Option<(ClientOp, What)> {
        let draw = [ZoneAction::Open, ZoneAction::Close, ZoneAction::Finish, ZoneAction::Reset];
        // Reset of all zones needs a device without requests in flight, which is rare.
        let all = self.zones.iter().all(|zone| zone.may(ZoneAction::ResetAll));
        let action = if all && self.rng.chance(300) {
            ZoneAction::ResetAll
        } else {
            draw[self.rng.index(4)]
        };
        let start = if action == ZoneAction::ResetAll { 0 } else { zone as u64 * ZONE };
        let may = self.zones[zone].may(action);
        may.then_some((ClientOp::Zone { action, zone: start }, What::Change(action)))
    }

    fn report(&self) -> (ClientOp, What) {
        let count = u32::try_from(self.zones.len()).unwrap();
        (ClientOp::ReportZones { first: 0, count }, What::Report)
    }

    fn ended(&mut self, done: &Done) -> Outcome {
        let open = self.open.remove(&done.ticket).ok_or("nobody waits for it")?;
        let zone = open.zone;
        let named = |problem| format!("request {} on zone {zone}: {problem}", done.ticket);
        if let Err(errno) = done.result
            && self.is_one_too_many(errno, &open)
        {
            let asked = if let What::Append { length, .. } = open.what { length } else { 0 };
            self.zones[zone].refused(asked);
            return Ok(());
        }
        let ok = done.result.is_ok();
        let overfull = matches!(open.what, What::Append { .. }) && self.zones[zone].may_be_full();
        if !ok && !self.may_fail() && !overfull && !self.servers.is_excused(done.ticket) {
            return Err(named(format!("fails with {:?} for no reason", done.result)));
        }
        match open.what {
            What::Append { born, length } => {
                let within = done.landed.map(|at| at.wrapping_sub(zone as u64 * ZONE));
                self.zones[zone].appended(born, length, within.filter(|_| ok)).map_err(named)?;
            }
            What::Write { born, length } => {
                self.zones[zone].written(born, length, ok).map_err(named)?;
            }
            What::Read { first, known } => {
                self.zones[zone].end_read();
                for (at, bytes) in done.data.chunks_exact(SECTOR).enumerate().filter(|_| ok) {
                    if let Some((born, part)) = known[at]
                        && bytes != pattern(born, part)
                    {
                        let sector = first + at;
                        return Err(named(format!("sector {sector} is not part {part} of {born}")));
                    }
                }
            }
            What::Change(action @ ZoneAction::ResetAll) => {
                self.zones.iter_mut().for_each(|zone| zone.changed(action, ok));
            }
            What::Change(action) => self.zones[zone].changed(action, ok),
            What::Report if ok => self.reported(&done.data, &open.before)?,
            What::Report | What::Flush => {}
        }
        Ok(())
    }

    fn reported(&mut self, records: &[u8], before: &[Option<u64>]) -> Outcome {
        let records = records.chunks_exact(records.len() / self.zones.len());
        let mut conditions = Vec::new();
        for (number, (record, before)) in records.zip(before).enumerate() {
            let checked = self.zones[number].reported(record, number as u64 * ZONE, *before);
            conditions.extend(checked.map_err(|problem| format!("zone {number}: {problem}"))?);
        }
        let count = |is: fn(u8) -> bool| conditions.iter().filter(|&&one| is(one)).count();
        let (max_open, max_active) = self.limits();
        let (open, active) = (count(is_open), count(is_active));
        // A report may see some zones before a zone was opened, and others after.
        let at_once = conditions.len() == self.zones.len();
        if at_once && (max_open > 0 && open > max_open || max_active > 0 && active > max_active) {
            return Err(format!("{open} zones are open, {active} active"));
        }
        Ok(())
    }

    /// Limits of open zones and of active zones; 0 means no limit.
    fn limits(&self) -> (usize, usize) {
        let Backend::Zones { max_open, max_active, .. } = self.scenario.backend else {
            return (0, 0);
        };
        (max_open as usize, max_active as usize)
    }

    /// Whether the error is "too many open or active zones" and the oracle allows this error.
    fn is_one_too_many(&self, errno: i32, open: &Open) -> bool {
        let opens = matches!(
            open.what,
            What::Append { .. } | What::Write { .. } | What::Change(ZoneAction::Open)
        );
        let others = |may_be: fn(&Zone) -> bool| {
            let others = self.zones.iter().zip(&open.before).enumerate();
            let counts = |zone: &Zone, before: &Option<u64>| {
                let still = before.is_some() && *before == zone.changes_at_rest();
                !still || may_be(zone)
            };
            others.filter(|(at, (zone, before))| *at != open.zone && counts(zone, before)).count()
        };
        let (max_open, max_active) = self.limits();
        match errno {
            libc::ETOOMANYREFS => opens && max_open > 0 && others(Zone::may_be_held) >= max_open,
            libc::EOVERFLOW => opens && max_active > 0 && others(Zone::may_be_active) >= max_active,
            _ => false,
        }
    }

    fn may_fail(&self) -> bool {
        let injected = self.sim.injected();
        self.over || injected.error > 0 || injected.register > 0
    }
}
