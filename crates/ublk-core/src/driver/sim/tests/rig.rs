//! The test rig: a device with one queue, and a ring. Tests serve the queue one submission entry at
//! a time.

use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::squeue::Entry;
use ublk_sys::{
    LBMD_PI_CAP_REFTAG, LBMD_PI_CSUM_CRC16_T10DIF, UBLK_ATTR_FUA, UBLK_ATTR_VOLATILE_CACHE,
    UBLK_F_INTEGRITY, UBLK_F_ZONED, UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_ZONED, UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_SET_PARAMS,
    UBLK_U_CMD_START_DEV, UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_FETCH_REQ,
    UBLK_U_IO_REGISTER_IO_BUF, UBLK_U_IO_UNREGISTER_IO_BUF, ublk_param_basic, ublk_param_discard,
    ublk_params, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info, ublksrv_io_cmd, ublksrv_io_desc,
};

use crate::driver::sim::ublk_drv::params::{info_bytes, params_bytes, parse_info};
use crate::driver::sim::uring::sqe::{
    FIXED_FILE, OP_READ_FIXED, OP_URING_CMD, OP_WRITE_FIXED, Sqe,
};
use crate::driver::sim::*;
use crate::driver::{Completion, Descriptors, Driver, OpenFile, Ring, RingSize};
use crate::tag::Tag;

pub(super) const SIZE: u32 = 1 << 20;
pub(super) const MAX_IO: u32 = 64 << 10;
/// Fixed file of the ring: the device's `/dev/ublkcN`.
pub(super) const CHAR: i32 = 0;
/// Fixed file of the ring: the disk below the server.
pub(super) const DISK: i32 = 1;
pub(super) struct Rig {
    pub(super) descriptors: Descriptors,
    pub(super) ring: SimRing,
    pub(super) char_device: OpenFile,
    pub(super) disk: SimDisk,
    pub(super) id: u32,
    pub(super) depth: u16,
    pub(super) buffers: Vec<Box<[u8]>>,
    pub(super) sim: Sim,
}

pub(super) fn register_files(ring: &mut SimRing, fds: &[RawFd]) {
    ring.register_files_sparse(u32::try_from(fds.len()).unwrap()).unwrap();
    ring.update_files(0, fds).unwrap();
}

pub(super) fn command(id: u32) -> ublksrv_ctrl_cmd {
    ublksrv_ctrl_cmd { dev_id: id, queue_id: u16::MAX, ..Default::default() }
}

pub(super) fn add(sim: &Sim, id: u32, flags: u64, depth: u16) -> io::Result<ublksrv_ctrl_dev_info> {
    let info = ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: depth,
        max_io_buf_bytes: MAX_IO,
        dev_id: id,
        flags,
        ..Default::default()
    };
    let buffer = Some(info_bytes(&info).to_vec().into_boxed_slice());
    let answer = sim.control(UBLK_U_CMD_ADD_DEV, command(id), buffer, Duration::ZERO)?;
    Ok(parse_info(&answer.buffer.unwrap()))
}

pub(super) fn params() -> ublk_params {
    ublk_params {
        len: 152,
        types: UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD,
        basic: ublk_param_basic {
            attrs: UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA,
            logical_bs_shift: 9,
            physical_bs_shift: 12,
            io_opt_shift: 12,
            io_min_shift: 12,
            max_sectors: MAX_IO >> 9,
            dev_sectors: u64::from(SIZE >> 9),
            ..Default::default()
        },
        discard: ublk_param_discard {
            discard_granularity: 4096,
            max_discard_sectors: SIZE >> 9,
            max_write_zeroes_sectors: SIZE >> 9,
            max_discard_segments: 1,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// Returns [`params`] with the parameters for zones and metadata, if `flags` enable zones or metadata.
fn params_for(flags: u64) -> ublk_params {
    let mut params = params();
    if flags & UBLK_F_ZONED != 0 {
        params.types |= UBLK_PARAM_TYPE_ZONED;
        params.basic.chunk_sectors = MAX_IO >> 9;
        params.zoned.max_zone_append_sectors = MAX_IO >> 9;
    }
    if flags & UBLK_F_INTEGRITY != 0 {
        params.types |= UBLK_PARAM_TYPE_INTEGRITY;
        params.integrity.interval_exp = 9;
        params.integrity.metadata_size = 8;
        params.integrity.csum_type = LBMD_PI_CSUM_CRC16_T10DIF;
        params.integrity.flags = LBMD_PI_CAP_REFTAG;
    }
    params
}

pub(super) fn set_params(sim: &Sim, id: u32, params: &ublk_params) -> io::Result<()> {
    let buffer = Some(params_bytes(params).to_vec().into_boxed_slice());
    sim.control(UBLK_U_CMD_SET_PARAMS, command(id), buffer, Duration::ZERO).map(|_| ())
}

pub(super) fn start(sim: &Sim, id: u32) -> io::Result<()> {
    let command = ublksrv_ctrl_cmd { data: [u64::from(std::process::id())], ..command(id) };
    sim.control(UBLK_U_CMD_START_DEV, command, None, Duration::from_secs(5)).map(|_| ())
}

pub(super) fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

impl Rig {
    /// Adds and starts a device with the `UBLK_F_*` flags in `flags`.
    pub(super) fn live(flags: u64, depth: u16) -> Self {
        Self::with(SimConfig::stepping(1), flags, depth)
    }

    pub(super) fn with(config: SimConfig, flags: u64, depth: u16) -> Self {
        let mut rig = Self::added(config, flags, depth);
        for tag in 0..depth {
            rig.push(&rig.fetch(tag));
        }
        assert_eq!(rig.turn(), []);
        if flags & UBLK_F_ZONED == 0 {
            start(&rig.sim, rig.id).unwrap();
        } else {
            rig.start_with_zones();
        }
        rig
    }

    /// Adds a device and prepares the ring, but neither fetches requests nor starts the device.
    pub(super) fn added(config: SimConfig, flags: u64, depth: u16) -> Self {
        Self::on(Sim::new(config), flags, depth)
    }

    pub(super) fn on(sim: Sim, flags: u64, depth: u16) -> Self {
        let info = add(&sim, u32::MAX, flags, depth).unwrap();
        set_params(&sim, info.dev_id, &params_for(flags)).unwrap();
        let char_device = sim.open_char(info.dev_id).unwrap();
        let descriptors = sim.map_descriptors(&char_device, 0, depth, 24).unwrap();
        let mut ring =
            sim.ring(RingSize { submissions: 64, completions: 128, tells_of_work: false }).unwrap();
        let disk = sim.file(SIZE as usize);
        register_files(&mut ring, &[char_device.fd(), disk.fd()]);
        ring.register_buffers_sparse(u32::from(depth) + 2).unwrap();
        let buffer = || vec![0; MAX_IO as usize].into_boxed_slice();
        let buffers = (0..depth).map(|_| buffer()).collect();
        Self { sim, id: info.dev_id, depth, char_device, descriptors, ring, disk, buffers }
    }

    pub(super) fn client(&self) -> Client {
        self.sim.client(self.id).unwrap()
    }

    pub(super) fn push(&mut self, sqe: &Sqe) {
        // SAFETY: `Sqe` and `Entry` have the same 64 bytes. Entries of these tests point to buffers of
        // the rig, and the buffers outlive the ring's operations.
        unsafe { self.ring.push(&std::mem::transmute_copy::<Sqe, Entry>(sqe)) };
    }

    /// Submits entries and takes completions until a submission yields no further completion.
    pub(super) fn turn(&mut self) -> Vec<Completion> {
        let mut all = Vec::new();
        loop {
            self.ring.submit_and_wait(1).unwrap();
            let before = all.len();
            all.extend(std::iter::from_fn(|| self.ring.pop()));
            if all.len() == before {
                return all;
            }
        }
    }

    /// Runs [`turn`](Self::turn) and returns the user data and result of each completion, sorted.
    pub(super) fn results(&mut self) -> Vec<(u64, i32)> {
        let all = self.turn();
        let mut results: Vec<_> = all.iter().map(|done| (done.user_data, done.result)).collect();
        results.sort_unstable();
        results
    }

    /// Runs the device until a request arrives, which must be the only completion. Returns the tag and
    /// the descriptor of the request.
    pub(super) fn take_request(&mut self) -> (u16, ublksrv_io_desc) {
        let all = self.turn();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].result, 0);
        let tag = u16::try_from(all[0].user_data).unwrap();
        (tag, self.descriptors.read(Tag::new(tag)))
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        self.sim.violations().iter().map(|violation| violation.rule).collect()
    }

    pub(super) fn fetch(&self, tag: u16) -> Sqe {
        self.io_cmd(UBLK_U_IO_FETCH_REQ, tag, 0)
    }

    pub(super) fn commit(&self, tag: u16, result: i32) -> Sqe {
        self.io_cmd(UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, result)
    }

    /// Builds FETCH or COMMIT for the device's buffer mode: with the buffer's address for copying, or
    /// with slot number `tag` and the fallback flag for automatic registration.
    fn io_cmd(&self, op: u32, tag: u16, result: i32) -> Sqe {
        let (copies, auto) = {
            let model = self.sim.lock();
            (model.devices[0].copies(), model.devices[0].auto_registers())
        };
        let address = self.buffers[usize::from(tag)].as_ptr() as u64;
        let cmd = ublksrv_io_cmd { q_id: 0, tag, result, addr: if copies { address } else { 0 } };
        let sqe = ublk_sqe(op, cmd, u64::from(tag));
        Sqe { addr: if auto { u64::from(tag) | 1 << 16 } else { 0 }, ..sqe }
    }
}

pub(super) fn ublk_sqe(op: u32, cmd: ublksrv_io_cmd, user_data: u64) -> Sqe {
    let bytes = cmd.to_bytes();
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    Sqe { off: u64::from(op), addr3: word(0), pad: word(8), ..sqe(OP_URING_CMD, CHAR, user_data) }
}

pub(super) fn sqe(opcode: u8, fd: i32, user_data: u64) -> Sqe {
    Sqe {
        opcode,
        flags: FIXED_FILE,
        ioprio: 0,
        fd,
        off: 0,
        addr: 0,
        len: 0,
        op_flags: 0,
        user_data,
        buf_index: 0,
        personality: 0,
        file_index: 0,
        addr3: 0,
        pad: 0,
    }
}

pub(super) fn register(tag: u16, slot: u64, user_data: u64) -> Sqe {
    let cmd = ublksrv_io_cmd { q_id: 0, tag, result: 0, addr: slot };
    ublk_sqe(UBLK_U_IO_REGISTER_IO_BUF, cmd, user_data)
}

pub(super) fn unregister(tag: u16, slot: u64, user_data: u64) -> Sqe {
    let cmd = ublksrv_io_cmd { q_id: 0, tag, result: 0, addr: slot };
    ublk_sqe(UBLK_U_IO_UNREGISTER_IO_BUF, cmd, user_data)
}

pub(super) fn read_fixed(slot: u16, offset: u64, len: u32, user_data: u64) -> Sqe {
    Sqe { off: offset, len, buf_index: slot, ..sqe(OP_READ_FIXED, DISK, user_data) }
}

pub(super) fn write_fixed(slot: u16, offset: u64, len: u32, user_data: u64) -> Sqe {
    Sqe { off: offset, len, buf_index: slot, ..sqe(OP_WRITE_FIXED, DISK, user_data) }
}

pub(super) fn read(offset: u64, length: u32) -> ClientOp {
    ClientOp::Read { offset, length }
}

pub(super) fn write(offset: u64, data: &[u8]) -> ClientOp {
    ClientOp::Write { offset, data: data.to_vec(), fua: false }
}
