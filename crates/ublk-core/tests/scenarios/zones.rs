//! Scenarios of a zoned device, with an oracle of their own: every append says where it went,
//! nothing else is there, and what is reported of a zone that nobody changes is so.

use std::collections::BTreeMap;
use std::sync::Arc;

use ublk_core::driver::sim::{Client, ClientOp, Done, Rng, Sim, SimConfig, ZoneAction};

use crate::scenario::{Backend, Incident, SECTOR, Scenario, ZONE};
use crate::server::{Outcome, Reactors, bring_up, check_rules, take_down, turn};
use crate::shadow::pattern;
use crate::subject::Subject;
use crate::zone::Zone;

pub(crate) struct Zones {
    scenario: Scenario,
    sim: Sim,
    id: u32,
    rng: Rng,
    reactors: Reactors,
    client: Client,
    zones: Vec<Zone>,
    open: BTreeMap<u64, Open>,
    born: u64,
    /// The device is being stopped, or its server is dead: requests may fail.
    over: bool,
}

/// A request under way.
struct Open {
    what: What,
    /// The number of its zone.
    zone: usize,
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
    /// What was known of its sectors.
    Read {
        first: usize,
        known: Vec<Option<(u64, usize)>>,
    },
    Change(ZoneAction),
    /// How often each zone had been changed, of those that nobody was changing.
    Report {
        before: Vec<Option<u64>>,
    },
    Flush,
}

impl Zones {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        let mut config = SimConfig { trace: traced, ..SimConfig::stepping(scenario.seed) };
        config.faults.auto_register = scenario.faults.auto_register;
        let sim = Sim::new(config);
        let subject = Arc::new(Subject::new(scenario, &sim).0);
        let (id, (reactors, _)) = bring_up(scenario, &sim, &subject, None);
        sim.set_faults(scenario.faults);
        let Backend::Zones { count, capacity } = scenario.backend else {
            panic!("a scenario of zones")
        };
        Self {
            scenario: scenario.clone(),
            rng: Rng::new(scenario.seed ^ 0x20_4e5),
            id,
            reactors,
            client: sim.client(id).unwrap(),
            zones: (0..count).map(|_| Zone::new(capacity)).collect(),
            open: BTreeMap::new(),
            born: 0,
            sim,
            over: false,
        }
    }

    pub(crate) fn trace(&self) -> String {
        self.sim.trace().iter().map(|event| format!("  {event}\n")).collect()
    }

    pub(crate) fn run(&mut self) -> Outcome {
        let mut submitted = 0;
        while submitted < self.scenario.requests || self.client.in_flight() > 0 {
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
            let serving = self.reactors.len();
            turn(&mut self.reactors)?;
            if self.reactors.len() < serving && !self.over {
                return Err("a reactor has ended by itself".into());
            }
            for done in self.client.take() {
                self.ended(&done)?;
            }
            if count == 0 && self.sim.moves() == before {
                return Err(format!("{} requests hang", self.client.in_flight()));
            }
        }
        self.sim.audit();
        take_down(&self.sim, self.id, &mut self.reactors, self.scenario.patience())?;
        check_rules(&self.sim)
    }

    fn incident(&mut self) {
        match self.scenario.incident.1 {
            Incident::Stop => self.sim.begin_stop(self.id).unwrap(),
            Incident::Kill => self.reactors.clear(),
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
        let ticket = self.client.submit(&op, None);
        match &what {
            What::Append { length, .. } => self.zones[zone].begin_append(*length),
            What::Write { .. } | What::Change(_) => self.zones[zone].begin_alone(),
            What::Read { .. } => self.zones[zone].begin_read(),
            What::Report { .. } | What::Flush => {}
        }
        self.open.insert(ticket, Open { what, zone });
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

    /// At the write pointer, where that is known and nobody moves it.
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
        let action = draw[self.rng.index(4)];
        let start = zone as u64 * ZONE;
        let may = self.zones[zone].may(action);
        may.then_some((ClientOp::Zone { action, zone: start }, What::Change(action)))
    }

    fn report(&self) -> (ClientOp, What) {
        let before = self.zones.iter().map(Zone::changes_at_rest).collect();
        let count = u32::try_from(self.zones.len()).unwrap();
        (ClientOp::ReportZones { first: 0, count }, What::Report { before })
    }

    fn ended(&mut self, done: &Done) -> Outcome {
        let Open { what, zone } = self.open.remove(&done.ticket).ok_or("nobody waits for it")?;
        let named = |problem| format!("request {} on zone {zone}: {problem}", done.ticket);
        let ok = done.result.is_ok();
        let overfull = matches!(what, What::Append { .. }) && self.zones[zone].may_be_full();
        if !ok && !self.may_fail() && !overfull {
            return Err(named(format!("fails with {:?} for no reason", done.result)));
        }
        match what {
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
            What::Change(action) => self.zones[zone].changed(action, ok),
            What::Report { before } if ok => {
                let records = done.data.chunks_exact(done.data.len() / self.zones.len());
                for (number, (record, before)) in records.zip(before).enumerate() {
                    let start = number as u64 * ZONE;
                    let checked = self.zones[number].reported(record, start, before);
                    checked.map_err(|problem| format!("zone {number}: {problem}"))?;
                }
            }
            What::Report { .. } | What::Flush => {}
        }
        Ok(())
    }

    fn may_fail(&self) -> bool {
        let injected = self.sim.injected();
        self.over || injected.error > 0 || injected.register > 0
    }
}
