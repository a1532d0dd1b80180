//! Control commands that a seed draws, beside stops that wait for requests: commands time out and are
//! executed later, and numbers are handed out again at once.

use std::thread;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::device::{self, Device, DeviceOptions, End};
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{ClientOp, Rng, Sim, SimConfig, SimDisk};
use ublk_core::error::Code;

use crate::common::{self, assert_nothing_left, assert_serves, file};
use crate::{gated, one_queue, until};

const SEEDS: u64 = 60;
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

/// A device that must be served as long as nobody closes it.
struct Live {
    device: Device<Sim>,
    size: u64,
    _disk: SimDisk,
}

struct Story {
    sim: Sim,
    rng: Rng,
    live: Vec<Live>,
}

/// What holds a mutex meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    /// That of the device.
    Stop,
    /// That of the device, and that of the driver.
    Delete,
}

/// A device with this number, as soon as the device that has the number is gone.
fn take_number(sim: &Sim, id: u32) -> Live {
    let disk = sim.file(common::SIZE);
    let options = DeviceOptions { id: Some(id), ..one_queue() };
    loop {
        match Device::create(sim, file(&disk), options.clone()) {
            Ok(device) => return Live { device, size: common::SIZE as u64, _disk: disk },
            Err(error) => assert_eq!(error.code, Code::DeviceExists),
        }
    }
}

impl Story {
    fn create(&mut self) {
        let disk = self.sim.file(common::SIZE);
        let device = Device::create(&self.sim, file(&disk), one_queue()).unwrap();
        self.live.push(Live { device, size: common::SIZE as u64, _disk: disk });
    }

    /// A device is stopped whose request waits; meanwhile other commands are drawn.
    fn round(&mut self) {
        let held = if self.rng.chance(500) { Held::Stop } else { Held::Delete };
        let disk = self.sim.file(common::SIZE);
        let (slow, gate) = gated(&self.sim, &disk);
        let id = slow.info().id;
        let client = self.sim.client(id).unwrap();
        client.submit(&ClientOp::Read { offset: 0, length: 4096 }, None);
        until("the request waits", || self.sim.requests_in_flight(id) == 1);
        let sim = self.sim.clone();
        thread::scope(|scope| {
            let ending = scope.spawn(|| match held {
                Held::Stop => slow.close().unwrap(),
                Held::Delete => {
                    Control::new(sim.clone()).delete(id, LONG).unwrap();
                    assert!(matches!(slow.wait(), End::Stopped));
                }
            });
            until("the device stops", || self.sim.is_stopping(id));
            for _ in 0..=self.rng.below(3) {
                match self.rng.below(4) {
                    0 if held == Held::Stop => self.create(),
                    0 => self.create_in_vain(),
                    1 => self.resize_late(id),
                    2 => self.resize(),
                    _ => {
                        let Some(one) = self.draw() else { continue };
                        let live = self.live.swap_remove(one);
                        scope.spawn(move || live.device.close().unwrap());
                    }
                }
            }
            if self.rng.chance(500) {
                let sim = self.sim.clone();
                let other = scope.spawn(move || take_number(&sim, id));
                gate.open();
                self.live.push(other.join().unwrap());
            }
            gate.open();
            ending.join().unwrap();
        });
    }

    fn draw(&mut self) -> Option<usize> {
        let count = self.live.len() as u64;
        (count > 0).then(|| usize::try_from(self.rng.below(count)).unwrap())
    }

    /// The driver's mutex is held: what is added too late must go.
    fn create_in_vain(&self) {
        let disk = self.sim.file(common::SIZE);
        let options = DeviceOptions { limit: SHORT, ..one_queue() };
        let error = Device::create(&self.sim, file(&disk), options).unwrap_err();
        assert_eq!(error.code, Code::Timeout);
    }

    /// The mutex of the device that goes is held.
    fn resize_late(&self, id: u32) {
        let control = Control::new(self.sim.clone()).bound_to(id);
        let error = control.update_size(id, 8, SHORT).unwrap_err();
        assert!(matches!(error.code, Code::Timeout | Code::Busy), "{error}");
    }

    fn resize(&mut self) {
        let Some(one) = self.draw() else { return };
        let size = (512 + 4 * self.rng.below(128)) << 10;
        let live = &mut self.live[one];
        live.device.resize(size).unwrap();
        live.size = size;
    }

    fn check(&self) {
        for live in &self.live {
            let id = live.device.info().id;
            let info = device::info(self.sim.clone(), id).unwrap();
            assert_eq!(info.size, Some(live.size), "device {id} is nobody else's");
            assert_serves(&self.sim.client(id).unwrap());
        }
    }
}

#[test]
fn late_commands_touch_no_other_device() {
    for seed in 0..SEEDS {
        let mut config = SimConfig::blocking(seed);
        config.kernel.lingering = u32::try_from(seed % 3).unwrap();
        let (sim, rng) = (Sim::new(config), Rng::new(seed));
        let mut story = Story { sim: sim.clone(), rng, live: Vec::new() };
        story.create();
        for _ in 0..4 {
            story.round();
            story.check();
        }
        for live in story.live.drain(..) {
            live.device.close().unwrap();
        }
        until("what was added late is gone", || sim.devices().is_empty());
        assert_nothing_left(&sim, 0);
    }
}
