//! Requests on a device whose backing store fails.

use ublk_core::driver::sim::Client;
use ublk_core::targets::native::Native;
use ublk_core::targets::striped::Striped;
use ublk_core::targets::{DiscardLimits, Geometry, file::File};

use super::*;

const BLOCK: u32 = 4096;
const MODES: [(BufferMode, bool); 6] = [
    (BufferMode::Auto, false),
    (BufferMode::Register, false),
    (BufferMode::Register, true),
    (BufferMode::UserCopy, false),
    (BufferMode::GetData, false),
    (BufferMode::Copy, false),
];

/// A target that serves `disk`, which can give ranges back.
fn discarding(disk: &SimDisk) -> Native {
    let limits =
        DiscardLimits { granularity: 512, max_discard: 1 << 20, max_write_zeroes: 1 << 20 };
    let geometry = Geometry {
        volatile_cache: true,
        fua: true,
        discard: Some(limits),
        ..Geometry::new(SIZE as u64)
    };
    Native::File(File::borrowed(disk.fd(), geometry))
}

/// Runs `work` on a device over a disk, in every buffer mode and exchange, and on a device over stripes.
fn over(disk: impl Fn(&Sim) -> SimDisk, work: impl Fn(&str, &SimDisk, &Client)) {
    for exchange in [ExchangeMode::PerIo, ExchangeMode::Batch] {
        for (mode, split_register) in MODES {
            if mode == BufferMode::GetData && exchange == ExchangeMode::Batch {
                continue;
            }
            for striped in [false, true] {
                let sim = Sim::new(SimConfig::blocking(11));
                let (disk, other) = (disk(&sim), sim.file(SIZE));
                let target = match striped {
                    true => Native::Striped(
                        Striped::new(vec![discarding(&disk), discarding(&other)], 1 << 16).unwrap(),
                    ),
                    false => discarding(&disk),
                };
                let asked = DeviceOptions {
                    buffers: vec![mode],
                    exchange: Some(exchange),
                    split_register,
                    ..options()
                };
                let device = Device::create(&sim, target, asked).unwrap();
                let client = sim.client(device.info().id).unwrap();
                work(&format!("{exchange:?}, {mode}, striped: {striped}"), &disk, &client);
                drop(client);
                device.close().unwrap();
                assert_nothing_left(&sim, device.info().id);
            }
        }
    }
}

fn read(offset: u64, length: u32) -> ClientOp {
    ClientOp::Read { offset, length }
}

fn write(offset: u64, length: u32) -> ClientOp {
    ClientOp::Write { offset, data: vec![1; length as usize], fua: false }
}

/// The kernel sets the capacity of a removed disk to 0. Reads of the disk return 0, writes ENOSPC.
#[test]
fn a_block_device_that_is_pulled_fails_all_requests() {
    let _alone = alone();
    over(
        |sim| sim.block_device(SIZE),
        |how, disk, client| {
            disk.store(0, &[7; 1 << 16]);
            assert_eq!(client.run(&read(0, BLOCK)).data, [7; BLOCK as usize], "{how}");
            disk.set_trouble(Trouble { capacity: Some(0), ..Trouble::default() });
            let zeroes = ClientOp::WriteZeroes { offset: 0, length: BLOCK, no_unmap: false };
            let discard = ClientOp::Discard { offset: 0, length: BLOCK };
            for op in [read(BLOCK.into(), 2 * BLOCK), write(0, BLOCK), zeroes, discard] {
                assert_eq!(client.run(&op).result, Err(libc::EIO), "{how}: {op:?}");
            }
            assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO), "{how}");
        },
    );
}

#[test]
fn a_block_device_that_shrinks_fails_what_reaches_beyond_its_end() {
    let _alone = alone();
    over(
        |sim| sim.block_device(SIZE),
        |how, disk, client| {
            disk.set_trouble(Trouble { capacity: Some(3 * 4096 + 512), ..Trouble::default() });
            for offset in [2 * 4096, 3 * 4096, 4 * 4096] {
                let zeroes = ClientOp::WriteZeroes { offset, length: 2 * BLOCK, no_unmap: true };
                for op in [read(offset, 2 * BLOCK), write(offset, 2 * BLOCK), zeroes] {
                    assert_eq!(client.run(&op).result, Err(libc::EIO), "{how}: {op:?}");
                }
            }
            for op in [read(0, 3 * BLOCK), write(0, 3 * BLOCK), read(3 * 4096, 512)] {
                assert_eq!(client.run(&op).result, Ok(()), "{how}: {op:?}");
            }
            // A disk that comes back, or grows, has the old bytes.
            disk.set_trouble(Trouble::default());
            assert_eq!(client.run(&read(4 * 4096, BLOCK)).result, Ok(()), "{how}");
        },
    );
}

/// As of a reflinked file on xfs, whose direct I/O needs whole blocks of the file system then.
#[test]
fn a_disk_that_needs_larger_blocks_fails_what_is_smaller_and_nothing_else() {
    let _alone = alone();
    over(
        |sim| sim.file(SIZE),
        |how, disk, client| {
            disk.store(0, &[7; 1 << 16]);
            disk.set_trouble(Trouble { alignment: BLOCK, ..Trouble::default() });
            for op in [read(512, 512), write(4096, 512), read(512, BLOCK), write(1024, BLOCK)] {
                assert_eq!(client.run(&op).result, Err(libc::EIO), "{how}: {op:?}");
            }
            assert_eq!(client.run(&write(4096, BLOCK)).result, Ok(()), "{how}");
            let expected = [[7; 4096], [1; 4096], [7; 4096]].concat();
            let done = client.run(&read(0, 3 * BLOCK));
            assert_eq!((done.result, done.data), (Ok(()), expected), "{how}");
        },
    );
}

#[test]
fn a_transfer_that_stops_early_goes_on_in_whole_blocks_of_the_disk() {
    let _alone = alone();
    for seed in 0..20 {
        let faults = Faults { short: 500, interrupted: 100, ..Faults::none() };
        let sim = Sim::new(SimConfig { faults, ..SimConfig::blocking(seed) });
        let disk = sim.file(SIZE);
        disk.set_trouble(Trouble { alignment: BLOCK, ..Trouble::default() });
        let geometry = Geometry { logical_block: BLOCK, ..Geometry::new(SIZE as u64) };
        let target = Native::File(File::borrowed(disk.fd(), geometry));
        let (mode, split_register) = MODES[usize::try_from(seed % 6).unwrap()];
        let asked = DeviceOptions { buffers: vec![mode], split_register, ..options() };
        let device = Device::create(&sim, target, asked).unwrap();
        let client = sim.client(device.info().id).unwrap();
        for round in 1..=10_u8 {
            let data = vec![round; 16 * BLOCK as usize];
            let write = ClientOp::Write { offset: 4096, data: data.clone(), fua: false };
            assert_eq!(client.run(&write).result, Ok(()), "seed {seed}, {mode}");
            let done = client.run(&read(4096, 16 * BLOCK));
            assert_eq!((done.result, done.data), (Ok(()), data), "seed {seed}, {mode}");
        }
        drop(client);
        device.close().unwrap();
    }
}

#[test]
fn a_thin_pool_that_is_full_still_says_so() {
    let _alone = alone();
    let full = Trouble { full_from: Some(8192), ..Trouble::default() };
    for block in [false, true] {
        over(
            |sim| if block { sim.block_device(SIZE) } else { sim.file(SIZE) },
            |how, disk, client| {
                disk.set_trouble(full);
                assert_eq!(client.run(&write(0, 2 * BLOCK)).result, Ok(()), "{how}");
                assert_eq!(client.run(&write(4096, 2 * BLOCK)).result, Err(libc::ENOSPC), "{how}");
                assert_eq!(client.run(&write(8192, BLOCK)).result, Err(libc::ENOSPC), "{how}");
            },
        );
    }
}

/// The kernel's loop driver does the same.
#[test]
fn a_file_that_is_cut_reads_as_zeros_beyond_its_end_and_grows_where_it_is_written() {
    let _alone = alone();
    over(
        |sim| sim.file(SIZE),
        |how, disk, client| {
            disk.store(0, &[7; 1 << 16]);
            disk.resize(4096 + 512);
            let kept = [vec![7; 4608], vec![0; 3 * 4096 - 4608]].concat();
            let done = client.run(&read(0, 3 * BLOCK));
            assert_eq!((done.result, done.data), (Ok(()), kept), "{how}");
            assert_eq!(client.run(&write(4 * 4096, BLOCK)).result, Ok(()), "{how}");
            let grown = [[0; 4096], [1; 4096]].concat();
            assert_eq!(client.run(&read(3 * 4096, 2 * BLOCK)).data, grown, "{how}");
        },
    );
}

fn fua(offset: u64) -> ClientOp {
    ClientOp::Write { offset, data: vec![2; BLOCK as usize], fua: true }
}

/// The kernel reports a failed sync once, and drops the data that the sync could not store.
#[test]
fn a_sync_that_fails_is_the_last_of_its_file_in_all_queues() {
    let _alone = alone();
    let failing = Trouble { syncs: Some(libc::EIO), ..Trouble::default() };
    for first in [ClientOp::Flush, fua(8192)] {
        over(
            |sim| sim.file(SIZE),
            |how, disk, client| {
                assert_eq!(client.run(&write(0, BLOCK)).result, Ok(()), "{how}");
                assert_eq!(client.run(&fua(4096)).result, Ok(()), "{how}");
                assert_eq!(client.run(&ClientOp::Flush).result, Ok(()), "{how}");
                disk.set_trouble(failing);
                assert_eq!(client.run(&first).result, Err(libc::EIO), "{how}");
                disk.set_trouble(Trouble::default());
                for queue in [0, 1, 0, 1] {
                    for op in [ClientOp::Flush, fua(0)] {
                        client.submit(&op, Some(queue));
                        until("a sync is answered", || client.in_flight() == 0);
                        assert_eq!(client.take()[0].result, Err(libc::EIO), "{how}: {op:?}");
                    }
                }
                // What promises nothing goes on.
                assert_eq!(client.run(&write(0, BLOCK)).result, Ok(()), "{how}");
                assert_eq!(client.run(&read(0, BLOCK)).data, [1; BLOCK as usize], "{how}");
            },
        );
    }
}

/// The sync of one queue fails, and another queue syncs a moment later.
#[test]
fn each_queue_hears_of_what_another_ones_sync_has_dropped() {
    let _alone = alone();
    for seed in 0..20 {
        let faults = Faults { error: 300, ..Faults::none() };
        let sim = Sim::new(SimConfig::blocking(seed));
        let disk = sim.file(SIZE);
        let device = create(&sim, &disk, options());
        let client = sim.client(device.info().id).unwrap();
        let mut lost = false;
        for round in 0..20_u8 {
            let data = vec![round + 1; 4096];
            sim.set_faults(Faults::none());
            let write = ClientOp::Write { offset: 0, data: data.clone(), fua: false };
            assert_eq!(client.run(&write).result, Ok(()));
            sim.set_faults(faults);
            for queue in [0, 1] {
                client.submit(&ClientOp::Flush, Some(queue));
            }
            until("the flushes are answered", || client.in_flight() == 0);
            let ended = client.take();
            lost |= ended.iter().any(|done| done.result.is_err());
            let stored = disk.durable()[..4096] == data;
            let promised = ended.iter().any(|done| done.result.is_ok());
            assert!(stored || !promised, "seed {seed}, round {round}");
        }
        assert!(lost, "seed {seed}");
        client.take();
        drop(client);
        device.close().unwrap();
    }
}

/// A kernel that is short of memory takes a transfer without the commit that is linked to the transfer.
#[test]
fn a_link_that_the_kernel_cuts_acknowledges_nothing_that_was_not_done() {
    let _alone = alone();
    for exchange in [ExchangeMode::PerIo, ExchangeMode::Batch] {
        for seed in 0..10 {
            let sim = Sim::new(SimConfig::blocking(seed));
            let disk = sim.file(SIZE);
            let asked = DeviceOptions { queues: 1, exchange: Some(exchange), ..options() };
            let device = create(&sim, &disk, asked);
            let client = sim.client(device.info().id).unwrap();
            sim.set_faults(Faults { submit: 500, ..Faults::none() });
            for number in 1..=20_u8 {
                let data = vec![number; 4096];
                let write = ClientOp::Write { offset: 0, data: data.clone(), fua: false };
                assert_eq!(client.run(&write).result, Ok(()), "{exchange:?}, seed {seed}");
                let done = client.run(&read(0, BLOCK));
                assert_eq!((done.result, done.data), (Ok(()), data), "{exchange:?}, seed {seed}");
                let failing = Some(libc::EIO);
                disk.set_trouble(Trouble { reads: failing, writes: failing, ..Trouble::default() });
                assert_eq!(client.run(&write).result, Err(libc::EIO), "{exchange:?}, seed {seed}");
                assert_eq!(client.run(&read(0, BLOCK)).result, Err(libc::EIO), "seed {seed}");
                disk.set_trouble(Trouble::default());
            }
            let stats = &device.stats()[0];
            assert_eq!((stats.writes, stats.reads, stats.errors), (20, 20, 40), "seed {seed}");
            drop(client);
            device.close().unwrap();
            assert_nothing_left(&sim, device.info().id);
        }
    }
}
