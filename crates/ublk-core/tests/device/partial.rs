//! Copies between clients and the server that end early. In each mode in which the server sees the length
//! of a copy, a request that succeeds has moved all of its bytes.

use super::*;

const LENGTH: u32 = 16 << 10;

#[test]
fn a_request_of_which_a_part_is_copied_fails_or_goes_on_until_all_bytes_have_moved() {
    let _alone = alone();
    use BufferMode::{Copy, GetData, UserCopy};
    use ExchangeMode::{Batch, PerIo};
    let ways =
        [(PerIo, UserCopy), (Batch, UserCopy), (PerIo, GetData), (PerIo, Copy), (Batch, Copy)];
    for (exchange, mode) in ways {
        let sim = Sim::new(SimConfig::blocking(4));
        let disk = sim.file(SIZE);
        let (exchange, buffers) = (Some(exchange), vec![mode]);
        let device = create(&sim, &disk, DeviceOptions { exchange, buffers, ..options() });
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        sim.set_faults(Faults { copied: 500, short: 500, error: 50, ..Faults::default() });
        let (mut succeeded, mut partial) = (0, 0);
        for turn in 0..40_u8 {
            // No page is as long as the pattern: a byte that goes to another page is seen.
            let data: Vec<u8> = (0..251).cycle().skip(turn.into()).take(LENGTH as usize).collect();
            let written =
                client.run(&ClientOp::Write { offset: 0, data: data.clone(), fua: false });
            // The server cannot see a part in plain copy mode (trap 63).
            partial += u32::from(written.lost > 0);
            if written.result.is_ok() && (mode != Copy || written.lost == 0) {
                let stored = disk.contents()[..LENGTH as usize] == data;
                assert!(stored, "{exchange:?} {mode:?}: write {turn}");
            }
            let read = client.run(&ClientOp::Read { offset: 0, length: LENGTH });
            if read.result.is_ok() {
                let equal = disk.contents()[..LENGTH as usize] == read.data;
                assert!(equal, "{exchange:?} {mode:?}: read {turn}");
            }
            succeeded += u32::from(written.result.is_ok()) + u32::from(read.result.is_ok());
        }
        let short = if mode == UserCopy { sim.injected().short > 0 } else { partial > 0 };
        assert!(succeeded > 0 && short, "{exchange:?} {mode:?}: {succeeded} {partial}");
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}
