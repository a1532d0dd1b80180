//! Thousands of seeded scenarios: a reactor serves a simulated device, and a client compares the data of
//! reads with the data written, while memory runs short, operations are slow or torn, the device is
//! stopped, or the server is killed.
//!
//! The seed determines everything in a scenario. A failing scenario prints the command for a replay.

use std::panic::{AssertUnwindSafe, catch_unwind};

mod answering;
mod deleting;
mod drawing;
mod ground;
mod layered;
mod memory;
mod mode;
mod pairs;
mod replacing;
mod rounds;
mod scenario;
mod server;
mod shadow;
mod subject;
mod world;
mod zone;
mod zones;

use mode::{Mode, exchange_of};
use scenario::Scenario;
use ublk_core::reactor::ExchangeMode::{self, Batch, PerIo};
use ublk_core::reactor::Transfer;
use world::World;
use zones::Zones;

/// Default number of scenarios per buffer mode and exchange. `UBLK_SCENARIOS` overrides the number.
const SCENARIOS: u64 = 1500;

fn run_mode(mode: Mode, exchange: ExchangeMode) {
    if let Some(seed) = number("UBLK_SEED") {
        if Mode::of(seed) == mode && exchange_of(seed) == exchange {
            run(seed, true);
        }
        return;
    }
    for round in 0..number("UBLK_SCENARIOS").unwrap_or(SCENARIOS) {
        run(mode.seed(exchange, round), false);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn run(seed: u64, traced: bool) {
    let scenario = Scenario::draw(seed);
    if scenario.mode == Mode::Zoned {
        judge(&scenario, Zones::new(&scenario, traced), Zones::run, Zones::trace);
    } else {
        judge(&scenario, World::new(&scenario, traced), World::run, World::trace);
    }
}

fn judge<W>(
    scenario: &Scenario,
    mut world: W,
    run: impl FnOnce(&mut W) -> Result<(), String>,
    trace: impl FnOnce(&W) -> String,
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    let problem = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(problem)) => problem,
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) => format!("panic: {text}"),
            None => format!("panic: {:?}", panic.downcast_ref::<&str>()),
        },
    };
    let replay = format!("UBLK_SEED={} cargo test -p ublk-core --test scenarios", scenario.seed);
    let trace = trace(&world);
    std::mem::forget(world);
    panic!("{problem}\n{scenario:#?}\n{trace}replay with a trace: {replay}\n");
}

#[test]
fn automatic_registration_keeps_the_data() {
    run_mode(Mode::Auto, PerIo);
}

#[test]
fn automatic_registration_that_often_fails_keeps_the_data() {
    run_mode(Mode::AutoOftenFails, PerIo);
}

#[test]
fn automatic_registration_that_always_fails_keeps_the_data() {
    run_mode(Mode::AutoAlwaysFails, PerIo);
}

#[test]
fn registration_in_one_enter_keeps_the_data() {
    run_mode(Mode::Register, PerIo);
}

#[test]
fn registration_split_over_enters_keeps_the_data() {
    run_mode(Mode::RegisterSplit, PerIo);
}

#[test]
fn copying_keeps_the_data() {
    run_mode(Mode::Copy, PerIo);
}

#[test]
fn automatic_registration_keeps_the_data_in_batches() {
    run_mode(Mode::Auto, Batch);
}

#[test]
fn automatic_registration_that_often_fails_keeps_the_data_in_batches() {
    run_mode(Mode::AutoOftenFails, Batch);
}

#[test]
fn automatic_registration_that_always_fails_keeps_the_data_in_batches() {
    run_mode(Mode::AutoAlwaysFails, Batch);
}

#[test]
fn registration_in_one_enter_keeps_the_data_in_batches() {
    run_mode(Mode::Register, Batch);
}

#[test]
fn registration_split_over_enters_keeps_the_data_in_batches() {
    run_mode(Mode::RegisterSplit, Batch);
}

#[test]
fn copying_keeps_the_data_in_batches() {
    run_mode(Mode::Copy, Batch);
}

#[test]
fn user_copy_keeps_the_data() {
    run_mode(Mode::UserCopy, PerIo);
}

#[test]
fn user_copy_keeps_the_data_in_batches() {
    run_mode(Mode::UserCopy, Batch);
}

#[test]
fn data_asked_for_is_kept() {
    run_mode(Mode::GetData, PerIo);
}

#[test]
fn shared_memory_keeps_the_data() {
    run_mode(Mode::Shared, PerIo);
}

#[test]
fn shared_memory_keeps_the_data_in_batches() {
    run_mode(Mode::Shared, Batch);
}

#[test]
fn requests_take_several_rounds() {
    run_mode(Mode::Rounds, PerIo);
}

#[test]
fn requests_take_several_rounds_in_batches() {
    run_mode(Mode::Rounds, Batch);
}

#[test]
fn rotating_slots_keep_the_data() {
    run_mode(Mode::Rotating, PerIo);
}

#[test]
fn rotating_slots_keep_the_data_in_batches() {
    run_mode(Mode::Rotating, Batch);
}

#[test]
fn metadata_is_kept_with_its_data() {
    run_mode(Mode::Integrity, PerIo);
}

#[test]
fn metadata_is_kept_with_its_data_in_batches() {
    run_mode(Mode::Integrity, Batch);
}

#[test]
fn appends_say_where_they_went() {
    run_mode(Mode::Zoned, PerIo);
}

#[test]
fn appends_say_where_they_went_in_batches() {
    run_mode(Mode::Zoned, Batch);
}

#[test]
fn whoever_answers_beyond_a_bridge_keeps_the_data() {
    run_mode(Mode::Asked, PerIo);
}

#[test]
fn whoever_answers_beyond_a_bridge_keeps_the_data_in_batches() {
    run_mode(Mode::Asked, Batch);
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in 0..200 {
        let scenario = Scenario::draw(seed);
        // Scenarios with memory addresses in the trace are skipped: the real system chooses the
        // addresses, so no two traces are the same.
        let lends = matches!(scenario.transfer, Transfer::Auto | Transfer::Register { .. });
        if !lends
            || matches!(scenario.mode, Mode::Shared | Mode::Rounds | Mode::Integrity | Mode::Zoned)
        {
            continue;
        }
        let tell = || {
            let mut world = World::new(&scenario, true);
            (world.run(), world.trace())
        };
        let (first, second) = (tell(), tell());
        assert!(first.1.len() > 1000, "seed {seed} has a story");
        assert_eq!(first, second, "seed {seed}");
    }
}
