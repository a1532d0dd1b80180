//! Replacement of servers: a server is killed or leaves, and the next server recovers the device.

use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::device::Recovery;
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{Rng, Sim};
use ublk_core::error::Code;
use ublk_core::reactor::{ExchangeMode, Waker};
use ublk_sys::{
    UBLK_F_QUIESCE, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_FAIL_IO,
    UBLK_F_USER_RECOVERY_REISSUE, UBLK_S_DEV_LIVE, ublksrv_ctrl_dev_info,
};

use crate::scenario::{Incident, Scenario};
use crate::server::{Outcome, Reactors, Served, turn};

/// How a server is replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacement {
    pub(crate) recovery: Recovery,
    /// The server is asked to leave; otherwise the server is killed.
    pub(crate) gently: bool,
}

/// Progress of the replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Served,
    Leaving,
    /// Number of rounds until the next server starts.
    Alone(usize),
}

impl Replacement {
    pub(crate) fn draw(kinds: &[Recovery], rng: &mut Rng) -> Self {
        Self { recovery: kinds[rng.index(kinds.len())], gently: rng.chance(400) }
    }

    pub(crate) fn flags(self) -> u64 {
        UBLK_F_USER_RECOVERY
            | UBLK_F_QUIESCE
            | match self.recovery {
                Recovery::Queue => 0,
                Recovery::Reissue => UBLK_F_USER_RECOVERY_REISSUE,
                Recovery::Fail => UBLK_F_USER_RECOVERY_FAIL_IO,
            }
    }
}

/// The servers of a device, one after another.
pub(crate) struct Servers {
    scenario: Scenario,
    sim: Sim,
    control: Control<Sim>,
    rng: Rng,
    pub(crate) id: u32,
    pub(crate) reactors: Reactors,
    wakers: Vec<Waker>,
    phase: Phase,
    /// Ticket of the last request, and of the last request that may fail because a server was replaced.
    pub(crate) last: u64,
    excused: u64,
}

impl Servers {
    pub(crate) fn new(
        scenario: &Scenario,
        sim: &Sim,
        (id, (reactors, wakers)): (u32, Served),
    ) -> Self {
        Self {
            scenario: scenario.clone(),
            control: Control::new(sim.clone()),
            sim: sim.clone(),
            rng: Rng::new(scenario.seed ^ 0x5e7),
            id,
            reactors,
            wakers,
            phase: Phase::Served,
            last: 0,
            excused: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Starts the replacement.
    pub(crate) fn replace(&mut self, how: Replacement) {
        // Requests in flight may fail, except where the kernel reissues requests or the server ends its
        // requests. A server leaves a batch device without QUIESCE_DEV, so requests may be in between.
        let ends_them = how.gently && self.scenario.exchange == ExchangeMode::PerIo;
        if how.recovery != Recovery::Reissue && !ends_them {
            // At least 1: 0 means that no request is excused.
            self.excused = self.last.max(1);
        }
        if how.gently {
            self.phase = Phase::Leaving;
        } else {
            self.reactors.clear();
            self.phase = Phase::Alone(self.rng.index(6));
        }
    }

    /// Continues the replacement; `serve` starts a server up to the first fetches.
    pub(crate) fn go_on(
        &mut self,
        serve: impl FnOnce(&ublksrv_ctrl_dev_info) -> Served,
    ) -> Outcome {
        match self.phase {
            Phase::Served => {}
            Phase::Leaving if self.reactors.is_empty() => {
                self.phase = Phase::Alone(self.rng.index(6));
            }
            Phase::Leaving => {
                if self.excused > 0 {
                    self.excused = self.last;
                }
                self.ask_to_leave()?;
            }
            // The closed ring keeps the device open: START_USER_RECOVERY is EBUSY.
            Phase::Alone(_) if self.sim.closed_rings() > 0 => {}
            Phase::Alone(0) => self.come_back(serve)?,
            Phase::Alone(rounds) => self.phase = Phase::Alone(rounds - 1),
        }
        Ok(())
    }

    /// Whether a request may fail because a server was replaced.
    pub(crate) fn is_excused(&self, ticket: u64) -> bool {
        let fails_alone = matches!(
            self.scenario.incident.1,
            Incident::Replace(Replacement { recovery: Recovery::Fail, .. })
        );
        ticket <= self.excused || fails_alone && self.phase != Phase::Served
    }

    fn ask_to_leave(&mut self) -> Outcome {
        let taken = match self.scenario.exchange {
            ExchangeMode::Batch => Ok(()),
            ExchangeMode::PerIo => self.control.quiesce(self.id, Duration::from_millis(1)),
        };
        match taken {
            Err(error) if error.code != Code::Busy => {
                return Err(format!("it cannot be quiesced: {error}"));
            }
            _ => {}
        }
        let batch = self.scenario.exchange == ExchangeMode::Batch;
        if batch || self.sim.requests_in_flight(self.id) == 0 {
            // Once: the clock of the model does not advance while a waker rings in every round.
            self.wakers.drain(..).for_each(|waker| waker.quit());
        }
        turn(&mut self.reactors)
    }

    fn come_back(&mut self, serve: impl FnOnce(&ublksrv_ctrl_dev_info) -> Served) -> Outcome {
        let failed = |error| format!("it cannot be recovered: {error}");
        self.control.start_recovery(self.id).map_err(failed)?;
        let info = self.control.info(self.id).map_err(failed)?;
        let (reactors, wakers) = serve(&info);
        if self.rng.chance(200) {
            // The next server dies before END_USER_RECOVERY; its rings close in any order.
            drop((reactors, wakers));
            return Ok(());
        }
        let limit = Duration::ZERO;
        self.control.end_recovery(self.id, std::process::id(), limit).map_err(failed)?;
        if self.control.info(self.id).map_err(failed)?.state != UBLK_S_DEV_LIVE {
            return Err("it is recovered, and not live".into());
        }
        (self.reactors, self.wakers) = (reactors, wakers);
        self.phase = Phase::Served;
        Ok(())
    }
}
