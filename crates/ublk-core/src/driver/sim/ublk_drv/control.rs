//! Control commands: ublk_ctrl_uring_cmd.

use std::time::Duration;

use ublk_sys::{
    UBLK_F_BATCH_IO, UBLK_F_IO_DESC_SIZE, UBLK_F_NEED_GET_DATA, UBLK_F_PER_IO_DAEMON,
    UBLK_F_QUIESCE, UBLK_F_SAFE_STOP_DEV, UBLK_F_UPDATE_SIZE, UBLK_F_USER_RECOVERY,
    UBLK_F_USER_RECOVERY_FAIL_IO, UBLK_F_USER_RECOVERY_REISSUE, UBLK_FEATURES_LEN,
    UBLK_MAX_NR_QUEUES, UBLK_MAX_QUEUE_DEPTH, UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DEVT,
    UBLK_S_DEV_DEAD, UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC,
    UBLK_U_CMD_END_USER_RECOVERY, UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_GET_DEV_INFO2,
    UBLK_U_CMD_GET_FEATURES, UBLK_U_CMD_GET_PARAMS, UBLK_U_CMD_GET_QUEUE_AFFINITY,
    UBLK_U_CMD_QUIESCE_DEV, UBLK_U_CMD_REG_BUF, UBLK_U_CMD_SET_PARAMS, UBLK_U_CMD_START_DEV,
    UBLK_U_CMD_START_USER_RECOVERY, UBLK_U_CMD_STOP_DEV, UBLK_U_CMD_TRY_STOP_DEV,
    UBLK_U_CMD_UNREG_BUF, UBLK_U_CMD_UPDATE_SIZE, ublk_param_devt, ublk_params, ublk_shmem_buf_reg,
    ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::call::Call;
use crate::driver::sim::ublk_drv::device::Device;
use crate::driver::sim::ublk_drv::params::{info_bytes, parse_info, parse_params, validate};

/// UBLK_MAX_UBLKS.
const MAX_IDS: u32 = 1 << 20;
const DESCRIPTOR_SIZE: u16 = 24;
const INFO_SIZE: usize = size_of::<ublksrv_ctrl_dev_info>();

/// What a command that cannot be answered at once waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Every tag is fetched.
    Start { device: usize, server: i32 },
    /// A request of the report of all zones has ended; `known` zones have been reported before.
    Zones { device: usize, request: u64, known: u32 },
    /// The read of the partition scan has ended.
    Scan { device: usize, request: u64 },
    /// Every tag is fetched again.
    Recovery { device: usize, server: i32 },
    /// No request is in flight.
    Stop { device: usize },
    /// The device is stopped, and if `wait`, nobody holds it any more.
    Delete { device: usize, wait: bool },
    /// Each queue has a tag without a request that waits, or the time limit is over.
    Quiesce { device: usize, limit: Duration },
    /// No request has a tag.
    Share { device: usize, wanted: ublk_shmem_buf_reg },
    /// The same.
    Unshare { device: usize, index: u16 },
}

/// How far a command got.
pub(crate) enum Answer {
    Now(i32),
    Later(Pending),
    /// Somebody holds a mutex that the command needs.
    Blocked,
}

impl Model {
    pub(crate) fn control(&mut self, call: &mut Call) -> Result<Answer, i32> {
        let operation = self.decode(call.operation)?;
        let (command, buffer) = (&call.command, &mut *call.buffer);
        match operation {
            UBLK_U_CMD_GET_FEATURES => return self.get_features(buffer).map(Answer::Now),
            UBLK_U_CMD_ADD_DEV if self.waits_for_driver(operation, &mut call.turn) => {
                return Ok(Answer::Blocked);
            }
            UBLK_U_CMD_ADD_DEV => return self.add_device(command, buffer).map(Answer::Now),
            _ => {}
        }
        let device = call.device.or_else(|| self.find_device(command.dev_id));
        let device = device.ok_or(libc::ENODEV)?;
        call.device = Some(device);
        let path = self.check_permission(device, operation, command, buffer)?;
        if self.waits_for_driver(operation, &mut call.turn)
            || self.waits_for_device(operation, device)
        {
            return Ok(Answer::Blocked);
        }
        self.control_device(operation, device, command, &mut buffer[path..])
    }

    fn control_device(
        &mut self,
        operation: u32,
        device: usize,
        command: &ublksrv_ctrl_cmd,
        buffer: &mut [u8],
    ) -> Result<Answer, i32> {
        let features = self.config.kernel.features;
        match operation {
            UBLK_U_CMD_GET_DEV_INFO | UBLK_U_CMD_GET_DEV_INFO2 => {
                self.get_info(device, buffer).map(Answer::Now)
            }
            UBLK_U_CMD_SET_PARAMS => self.set_params(device, buffer).map(Answer::Now),
            UBLK_U_CMD_GET_PARAMS => self.get_params(device, buffer).map(Answer::Now),
            UBLK_U_CMD_GET_QUEUE_AFFINITY => {
                self.get_affinity(device, command.data[0], buffer).map(Answer::Now)
            }
            UBLK_U_CMD_START_DEV => self.begin_start(device, command.data[0]),
            UBLK_U_CMD_STOP_DEV => Ok(self.stop(device)),
            UBLK_U_CMD_TRY_STOP_DEV if features & UBLK_F_SAFE_STOP_DEV != 0 => {
                let found = &self.devices[device];
                if !found.disk {
                    return Err(libc::ENODEV);
                }
                if found.openers > 0 { Err(libc::EBUSY) } else { Ok(self.stop(device)) }
            }
            UBLK_U_CMD_UPDATE_SIZE if features & UBLK_F_UPDATE_SIZE != 0 => {
                let found = &mut self.devices[device];
                if !found.disk {
                    return Err(libc::ENODEV);
                }
                found.params.basic.dev_sectors = command.data[0];
                Ok(Answer::Now(0))
            }
            UBLK_U_CMD_REG_BUF => self.begin_share(device, buffer),
            UBLK_U_CMD_UNREG_BUF => self.begin_unshare(device, command),
            UBLK_U_CMD_START_USER_RECOVERY => self.start_recovery(device).map(Answer::Now),
            UBLK_U_CMD_END_USER_RECOVERY => Ok(Answer::Later(Pending::Recovery {
                device,
                server: i32::try_from(command.data[0]).unwrap_or(-1),
            })),
            UBLK_U_CMD_QUIESCE_DEV => {
                // 0: for ever.
                let limit = Some(command.data[0]).filter(|&limit| limit > 0);
                let limit = Duration::from_millis(limit.unwrap_or(u32::MAX.into()));
                Ok(Answer::Later(Pending::Quiesce { device, limit }))
            }
            UBLK_U_CMD_DEL_DEV | UBLK_U_CMD_DEL_DEV_ASYNC => {
                self.devices[device].removing = true;
                let wait = operation == UBLK_U_CMD_DEL_DEV;
                Ok(Answer::Later(Pending::Delete { device, wait }))
            }
            _ => Err(libc::EOPNOTSUPP),
        }
    }

    /// Whether what a command waits for has come.
    pub(crate) fn answer(&mut self, pending: &mut Pending) -> Option<Result<i32, i32>> {
        match *pending {
            Pending::Start { device, server } => self.start(device, server)?.go_on(pending),
            Pending::Zones { device, request, known } => {
                self.zones_reported(device, request, known)?.go_on(pending)
            }
            Pending::Scan { device, request } => self.scanned(device, request),
            Pending::Recovery { device, server } => self.end_recovery(device, server),
            Pending::Stop { device } => self.has_stopped(device).then_some(Ok(0)),
            Pending::Delete { device, wait } => self.delete(device, wait),
            Pending::Quiesce { device, limit } => self.quiesce(device, limit),
            Pending::Share { device, wanted } => self.share(device, &wanted),
            Pending::Unshare { device, index } => self.unshare(device, index),
        }
    }

    pub(crate) fn find_device(&self, id: u32) -> Option<usize> {
        self.devices.iter().position(|device| !device.gone && device.info.dev_id == id)
    }

    fn get_features(&self, buffer: &mut [u8]) -> Result<i32, i32> {
        if buffer.len() != usize::from(UBLK_FEATURES_LEN) {
            return Err(libc::EINVAL);
        }
        buffer.copy_from_slice(&self.config.kernel.features.to_ne_bytes());
        Ok(0)
    }

    fn add_device(&mut self, command: &ublksrv_ctrl_cmd, buffer: &mut [u8]) -> Result<i32, i32> {
        if buffer.len() < INFO_SIZE || command.queue_id != u16::MAX {
            return Err(libc::EINVAL);
        }
        let mut info = parse_info(buffer);
        check_info(&info)?;
        if command.dev_id != info.dev_id || command.dev_id != u32::MAX && command.dev_id >= MAX_IDS
        {
            return Err(libc::EINVAL);
        }
        self.check_privilege(&mut info)?;
        info.dev_id = self.choose_id(command.dev_id)?;
        let kernel = self.config.kernel;
        info.flags &= kernel.features;
        info.flags |= kernel.always;
        if info.flags & UBLK_F_BATCH_IO != 0 && info.queue_depth < 2 {
            // kfifo_alloc() has room for two at least.
            return Err(libc::EINVAL);
        }
        let descriptor = if info.flags & UBLK_F_IO_DESC_SIZE != 0 {
            info.io_desc_size
        } else if kernel.features & UBLK_F_IO_DESC_SIZE != 0 {
            DESCRIPTOR_SIZE
        } else {
            // Left as it came by kernels that do not know the field.
            0
        };
        let mut device = Device::new(ublksrv_ctrl_dev_info {
            nr_hw_queues: info.nr_hw_queues.min(kernel.cpus),
            io_desc_size: descriptor,
            max_io_buf_bytes: info.max_io_buf_bytes & !4095,
            state: UBLK_S_DEV_DEAD,
            ublksrv_pid: -1,
            owner_uid: if kernel.root { 0 } else { 1000 },
            owner_gid: if kernel.root { 0 } else { 1000 },
            ..info
        });
        if device.batches() {
            device.info.flags &= !(UBLK_F_PER_IO_DAEMON | UBLK_F_NEED_GET_DATA);
        }
        if device.counts_references() {
            device.info.flags &= !UBLK_F_NEED_GET_DATA;
        }
        if (device.is_zoned() || device.has_integrity()) && !device.user_copies() {
            return Err(libc::EINVAL);
        }
        buffer[..INFO_SIZE].copy_from_slice(info_bytes(&device.info));
        self.devices.push(device);
        Ok(0)
    }

    fn choose_id(&mut self, wanted: u32) -> Result<u32, i32> {
        if wanted == u32::MAX {
            return (0..MAX_IDS).find(|&id| !self.is_taken(id)).ok_or(libc::ENOSPC);
        }
        let taken = self.is_taken(wanted);
        let leaves =
            self.devices.iter_mut().find(|one| one.lingers > 0 && one.info.dev_id == wanted);
        if let Some(device) = leaves {
            device.lingers -= 1;
        }
        if taken { Err(libc::EEXIST) } else { Ok(wanted) }
    }

    fn is_taken(&self, id: u32) -> bool {
        self.find_device(id).is_some()
            || self.devices.iter().any(|device| device.lingers > 0 && device.info.dev_id == id)
    }

    fn get_info(&self, device: usize, buffer: &mut [u8]) -> Result<i32, i32> {
        let buffer = buffer.get_mut(..INFO_SIZE).ok_or(libc::EINVAL)?;
        buffer.copy_from_slice(info_bytes(&self.devices[device].info));
        Ok(0)
    }

    fn set_params(&mut self, device: usize, buffer: &[u8]) -> Result<i32, i32> {
        let length = params_length(buffer)?;
        let kernel = self.config.kernel;
        let device = &mut self.devices[device];
        if device.in_use() {
            return Err(libc::EACCES);
        }
        let mut params = parse_params(&buffer[..length]);
        if params.types == 0 {
            return Err(libc::EINVAL);
        }
        params.types &= kernel.params;
        let result = validate(&params, &device.info);
        device.params = if result.is_ok() { params } else { ublk_params::default() };
        result.map(|()| 0)
    }

    fn get_params(&mut self, device: usize, buffer: &mut [u8]) -> Result<i32, i32> {
        let length = params_length(buffer)?;
        let device = &mut self.devices[device];
        let disk_major = if device.disk { 259 } else { 0 };
        device.params.devt = ublk_param_devt {
            char_major: 240,
            char_minor: device.info.dev_id,
            disk_major,
            disk_minor: if device.disk { device.info.dev_id } else { 0 },
        };
        device.params.types |= UBLK_PARAM_TYPE_DEVT;
        let bytes = crate::driver::sim::ublk_drv::params::params_bytes(&device.params);
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(0)
    }

    /// CPUs are dealt out to queues in turn.
    fn get_affinity(&self, device: usize, queue: u64, buffer: &mut [u8]) -> Result<i32, i32> {
        let cpus = usize::from(self.config.kernel.cpus);
        let queues = usize::from(self.devices[device].info.nr_hw_queues);
        let fits = buffer.len() * 8 >= cpus && buffer.len().is_multiple_of(8) && !buffer.is_empty();
        let queue = usize::try_from(queue).ok().filter(|&queue| fits && queue < queues);
        let queue = queue.ok_or(libc::EINVAL)?;
        buffer.fill(0);
        for cpu in (0..cpus).filter(|cpu| cpu % queues == queue) {
            buffer[cpu / 8] |= 1 << (cpu % 8);
        }
        Ok(0)
    }

    fn begin_start(&mut self, device: usize, server: u64) -> Result<Answer, i32> {
        let server = i32::try_from(server).unwrap_or(-1);
        if server <= 0 || self.devices[device].params.types & UBLK_PARAM_TYPE_BASIC == 0 {
            return Err(libc::EINVAL);
        }
        Ok(Answer::Later(Pending::Start { device, server }))
    }
}

/// The checks of ublk_ctrl_add_dev that need no device.
fn check_info(info: &ublksrv_ctrl_dev_info) -> Result<(), i32> {
    const RECOVERY: u64 = UBLK_F_USER_RECOVERY;
    const REISSUE: u64 = UBLK_F_USER_RECOVERY_REISSUE;
    const FAIL_IO: u64 = UBLK_F_USER_RECOVERY_FAIL_IO;
    let recovery = info.flags & (RECOVERY | REISSUE | FAIL_IO);
    let sensible = recovery == 0
        || recovery == RECOVERY
        || recovery == RECOVERY | REISSUE
        || recovery == RECOVERY | FAIL_IO;
    let valid = (1..=UBLK_MAX_QUEUE_DEPTH).contains(&info.queue_depth)
        && (1..=UBLK_MAX_NR_QUEUES).contains(&info.nr_hw_queues)
        && sensible
        && (info.flags & UBLK_F_QUIESCE == 0 || info.flags & RECOVERY != 0)
        && (info.flags & UBLK_F_IO_DESC_SIZE == 0
            || (DESCRIPTOR_SIZE..=256).contains(&info.io_desc_size)
                && info.io_desc_size.is_multiple_of(8));
    if valid { Ok(()) } else { Err(libc::EINVAL) }
}

/// What the header of SET_PARAMS and GET_PARAMS says, as far as this kernel's struct goes.
fn params_length(buffer: &[u8]) -> Result<usize, i32> {
    const HEADER: usize = 8;
    if buffer.len() <= HEADER {
        return Err(libc::EINVAL);
    }
    let length = parse_params(&buffer[..HEADER]).len as usize;
    if length == 0 || length > buffer.len() {
        return Err(libc::EINVAL);
    }
    Ok(length.min(size_of::<ublk_params>()))
}
