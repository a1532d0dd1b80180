//! When an exchange asks for requests.

use std::cell::Cell;
use std::time::Duration;

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, UBLK_F_SUPPORT_ZERO_COPY, UBLK_PARAM_TYPE_BASIC,
    ublk_param_basic, ublk_params, ublksrv_ctrl_dev_info,
};

use super::*;
use crate::buffers::Slots;
use crate::control::Control;
use crate::driver::sim::{ClientOp, Faults, Sim, SimConfig, SimRing};
use crate::driver::{Driver, RingSize};
use crate::pass::Seat;
use crate::stats::Counters;

const DEPTH: u16 = 4;

fn added(sim: &Sim) -> ublksrv_ctrl_dev_info {
    let control = Control::new(sim.clone());
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: DEPTH,
        max_io_buf_bytes: 4096,
        dev_id: u32::MAX,
        flags: UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY | UBLK_F_BATCH_IO,
        ..Default::default()
    };
    let info = control.add(&wanted).unwrap();
    let params = ublk_params {
        len: u32::try_from(size_of::<ublk_params>()).unwrap(),
        types: UBLK_PARAM_TYPE_BASIC,
        basic: ublk_param_basic {
            logical_bs_shift: 9,
            physical_bs_shift: 12,
            max_sectors: 8,
            dev_sectors: 1024,
            ..Default::default()
        },
        ..Default::default()
    };
    control.set_params(info.dev_id, &params).unwrap();
    info
}

#[test]
fn a_fetch_that_ends_in_a_pass_is_replaced_after_the_last_completion_of_the_pass() {
    let sim = Sim::new(SimConfig::stepping(1));
    let info = added(&sim);
    let char_device = sim.open_char(info.dev_id).unwrap();
    let size = RingSize { submissions: 8, completions: 16, tells_of_work: false };
    let mut ring = sim.ring(size).unwrap();
    ring.register_files_sparse(1).unwrap();
    ring.update_files(0, &[char_device.fd()]).unwrap();
    ring.register_buffers_sparse(DEPTH.into()).unwrap();
    let buffers = Buffers::Auto { slots: (0..DEPTH).map(Cell::new).collect() };
    let mut exchange = Exchange::batch(0, DEPTH, &buffers).unwrap();
    exchange.enter(&mut ring, 0).unwrap();
    let counters = Counters::default();
    let mut pass = Pass {
        ring: &mut ring,
        slots: &mut Slots::new(0),
        put_off: &mut Vec::new(),
        counters: &counters,
        seat: Seat { number: 0, files: 0 },
    };
    let take = |exchange: &mut Exchange, pass: &mut Pass<'_, SimRing>| {
        let completion = pass.ring.pop().unwrap();
        let token = Token::unpack(completion.user_data);
        let _nothing = exchange.completed(pass, token, completion).unwrap();
        completion.result
    };
    exchange.arm(&mut pass, (Share::WHOLE, DEPTH)).unwrap();
    pass.ring.submit_and_wait(1).unwrap();
    assert_eq!(take(&mut exchange, &mut pass), 0);
    let control = Control::new(sim.clone());
    control.start(info.dev_id, std::process::id(), Duration::ZERO).unwrap();

    sim.set_faults(Faults { no_buffers: 1000, ..Faults::default() });
    let client = sim.client(info.dev_id).unwrap();
    client.submit(&ClientOp::Read { offset: 0, length: 512 }, None);
    pass.ring.submit_and_wait(1).unwrap();
    assert_eq!(take(&mut exchange, &mut pass), -libc::ENOBUFS);
    sim.set_faults(Faults::default());
    // As another completion of the pass does where the submission queue is full.
    pass.ring.submit().unwrap();
    assert_eq!(pass.ring.ready(), 0, "the request comes in the next pass");
    assert!(exchange.is_open());
    assert_eq!(pass.put_off[..], [0]);
    exchange.flush(&mut pass).unwrap();
    assert_eq!(pass.ring.ready(), 1);
    assert_eq!(take(&mut exchange, &mut pass), 2, "bytes: one tag");
}
