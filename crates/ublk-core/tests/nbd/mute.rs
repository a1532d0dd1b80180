//! Servers that keep the connection and answer nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ublk_core::device::{Device, DeviceOptions};
use ublk_core::driver::sim::{ClientOp, Kernel, Sim, SimConfig};
use ublk_core::targets::OnRemote;
use ublk_core::targets::Presentation;
use ublk_core::targets::nbd::{self, NbdOptions};
use ublk_nbd::wire::command;

use super::server::{ANY, Manners, Misdeed, Server};
use super::{create, end, options, read, until, write};

/// How many seconds pass for the simulated kernel in one of ours.
const SPEED: u32 = 50;

fn fast(seed: u64) -> Sim {
    let kernel = Kernel { speed: SPEED, ..Kernel::linux_7_3() };
    Sim::new(SimConfig { kernel, ..SimConfig::blocking(seed) })
}

fn impatient(server: &Server, reconnect_timeout: Duration) -> OnRemote {
    let answer_timeout = Duration::from_secs(2);
    let options = NbdOptions { reconnect_timeout, answer_timeout, ..NbdOptions::default() };
    nbd::connect(&server.uri(), options, Presentation::default()).unwrap()
}

#[test]
fn a_server_that_falls_silent_costs_the_connection_and_no_request() {
    let server = Server::new(Manners::default());
    let sim = fast(20);
    let target = impatient(&server, Duration::from_secs(20));
    let options = DeviceOptions { max_io_bytes: 1 << 20, ..options() };
    let device = Device::create(&sim, target, options).unwrap();
    let client = sim.client(device.info().id).unwrap();
    // More than a socket takes that nobody reads from.
    let pattern: Vec<_> = (0..512 << 10).map(|at: u32| at.to_ne_bytes()[0]).collect();
    assert_eq!(write(&client, 0, pattern.clone()), Ok(()));
    for misdeed in [Misdeed::Mute, Misdeed::MuteMidway, Misdeed::Deaf] {
        for command in [command::READ, command::WRITE, command::FLUSH] {
            let before = server.state.connections.load(Ordering::Relaxed);
            server.misbehave(command, misdeed, 1);
            match command {
                command::READ => {
                    assert!(read(&client, 0, 512 << 10) == Ok(pattern.clone()), "{misdeed:?}");
                }
                command::WRITE => assert_eq!(write(&client, 0, pattern.clone()), Ok(())),
                _ => assert_eq!(client.run(&ClientOp::Flush).result, Ok(())),
            }
            let after = server.state.connections.load(Ordering::Relaxed);
            assert!(after > before, "{misdeed:?} of {command}");
        }
    }
    end(&sim, &device, client);
}

#[test]
fn requests_fail_when_the_server_stays_silent_and_succeed_when_it_answers_again() {
    for misdeed in [Misdeed::Mute, Misdeed::MuteMidway, Misdeed::Deaf] {
        let server = Server::new(Manners::default());
        let sim = fast(21);
        let (device, client) = create(&sim, impatient(&server, Duration::from_millis(30)));
        server.misbehave(ANY, misdeed, usize::MAX);
        assert_eq!(read(&client, 0, 4096), Err(libc::EIO), "{misdeed:?}");
        assert_eq!(write(&client, 0, vec![1; 4096]), Err(libc::EIO), "{misdeed:?}");
        server.behave();
        until("a write that succeeds", || write(&client, 0, vec![2; 4096]) == Ok(()));
        assert_eq!(read(&client, 0, 4096), Ok(vec![2; 4096]));
        end(&sim, &device, client);
    }
}
