//! The abilities of the simulated kernel, and the faults.

use std::time::Duration;

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, UBLK_F_BUF_REG_OFF_DAEMON, UBLK_F_CMD_IOCTL_ENCODE,
    UBLK_F_INTEGRITY, UBLK_F_IO_DESC_SIZE, UBLK_F_NEED_GET_DATA, UBLK_F_NO_AUTO_PART_SCAN,
    UBLK_F_PER_IO_DAEMON, UBLK_F_QUIESCE, UBLK_F_SAFE_STOP_DEV, UBLK_F_SHMEM_ZC,
    UBLK_F_SUPPORT_ZERO_COPY, UBLK_F_UNPRIVILEGED_DEV, UBLK_F_UPDATE_SIZE,
    UBLK_F_URING_CMD_COMP_IN_TASK, UBLK_F_USER_COPY, UBLK_F_USER_RECOVERY,
    UBLK_F_USER_RECOVERY_FAIL_IO, UBLK_F_USER_RECOVERY_REISSUE, UBLK_F_ZONED,
    UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DEVT, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_SEGMENT,
    UBLK_PARAM_TYPE_ZONED,
};

/// How `submit_and_wait` and the control commands wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// One thread, no clock: each wait makes seeded moves until a completion is there or nothing
    /// can move any more, and returns. A control command with a need to wait answers `ETIMEDOUT` at
    /// once, and continues in the background as in the kernel.
    Stepping,
    /// Many threads, which sleep until something moves.
    Blocking,
}

/// The abilities of the simulated kernel.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// `UBLK_F_*`.
    pub features: u64,
    /// The features set by ADD_DEV on every device.
    pub always: u64,
    /// `UBLK_PARAM_TYPE_*`; others are cleared.
    pub params: u32,
    /// Number of CPUs, the upper bound of the queues.
    pub cpus: u16,
    /// Whether the kernel has writeback throttling (`CONFIG_BLK_WBT`).
    pub throttling: bool,
    /// Whether the server has the rights of root.
    pub root: bool,
    /// Seconds of the simulated clock per real second.
    pub speed: u32,
    /// The driver hands the rest of a partly completed write to the server again. Since 7.1 at the
    /// latest the driver takes the part for the whole request.
    pub rest_of_writes: bool,
    /// START_DEV waits for the partition scan and holds the mutex of the device meanwhile. Since 6.19 a
    /// worker scans after START_DEV.
    pub start_reads: bool,
    /// How long DEL_DEV holds the driver's mutex after the device's stop, to free the device. Default: not
    /// at all.
    pub freeing: Duration,
    /// How many ADD_DEVs find the number of a deleted device taken, although every other command answers
    /// that there is no such device: the kernel frees the number after the last reference to the device
    /// (`ublk_cdev_rel`). Default: none.
    pub lingering: u32,
}

impl Kernel {
    /// Linux 7.3, as far as the model goes.
    pub fn linux_7_3() -> Self {
        let always = UBLK_F_CMD_IOCTL_ENCODE
            | UBLK_F_URING_CMD_COMP_IN_TASK
            | UBLK_F_PER_IO_DAEMON
            | UBLK_F_BUF_REG_OFF_DAEMON
            | UBLK_F_SAFE_STOP_DEV;
        Self {
            features: always
                | UBLK_F_SUPPORT_ZERO_COPY
                | UBLK_F_AUTO_BUF_REG
                | UBLK_F_USER_COPY
                | UBLK_F_SHMEM_ZC
                | UBLK_F_NEED_GET_DATA
                | UBLK_F_UPDATE_SIZE
                | UBLK_F_BATCH_IO
                | UBLK_F_NO_AUTO_PART_SCAN
                | UBLK_F_UNPRIVILEGED_DEV
                | UBLK_F_USER_RECOVERY
                | UBLK_F_USER_RECOVERY_REISSUE
                | UBLK_F_USER_RECOVERY_FAIL_IO
                | UBLK_F_QUIESCE
                | UBLK_F_ZONED
                | UBLK_F_INTEGRITY
                | UBLK_F_IO_DESC_SIZE,
            always,
            params: UBLK_PARAM_TYPE_BASIC
                | UBLK_PARAM_TYPE_DISCARD
                | UBLK_PARAM_TYPE_DEVT
                | UBLK_PARAM_TYPE_ZONED
                | UBLK_PARAM_TYPE_DMA_ALIGN
                | UBLK_PARAM_TYPE_SEGMENT
                | UBLK_PARAM_TYPE_INTEGRITY,
            cpus: 4,
            throttling: true,
            root: true,
            speed: 1,
            rest_of_writes: false,
            start_reads: false,
            freeing: Duration::ZERO,
            lingering: 0,
        }
    }

    /// Linux 6.12: no zero copy of any kind, no TRY_STOP_DEV.
    pub fn linux_6_12() -> Self {
        let always = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_URING_CMD_COMP_IN_TASK;
        Self {
            features: always
                | UBLK_F_NEED_GET_DATA
                | UBLK_F_USER_COPY
                | UBLK_F_UNPRIVILEGED_DEV
                | UBLK_F_USER_RECOVERY
                | UBLK_F_USER_RECOVERY_REISSUE,
            always,
            params: UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD | UBLK_PARAM_TYPE_DEVT,
            cpus: 4,
            throttling: true,
            root: true,
            speed: 1,
            rest_of_writes: true,
            start_reads: true,
            freeing: Duration::ZERO,
            lingering: 0,
        }
    }

    /// Linux 6.1: knows only the bare command numbers, and cannot report features.
    pub fn linux_6_1() -> Self {
        let always = UBLK_F_URING_CMD_COMP_IN_TASK;
        Self { features: always | UBLK_F_NEED_GET_DATA, always, ..Self::linux_6_12() }
    }
}

/// How often things go wrong, each in times of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A read or write, of a backend or by user copy, moves fewer bytes than asked.
    pub short: u16,
    /// A backend operation fails with `EIO`; of a failed write, some sectors are written.
    pub error: u16,
    /// A backend read or write fails with `EINTR` or `EAGAIN` and does nothing.
    pub interrupted: u16,
    /// ublk_map_io or ublk_unmap_io copies only some pages of a request's data, or none.
    pub copied: u16,
    /// REGISTER_IO_BUF fails with `ENOMEM`.
    pub register: u16,
    /// UNREGISTER_IO_BUF fails with `ENOMEM` without an effect.
    pub unregister: u16,
    /// Automatic registration fails as if the slot were taken.
    pub auto_register: u16,
    /// A commit, or the fetch of a batch, fails with `ENOMEM` without an effect.
    pub command: u16,
    /// COMMIT_IO_CMDS takes only the first elements, or with `EFAULT` none.
    pub partial: u16,
    /// FETCH_IO_CMDS finds the buffer group empty.
    pub no_buffers: u16,
    /// io_uring_enter takes only some of the pushed entries, for want of memory (`io_alloc_req`).
    pub submit: u16,
    /// A submission queue that is not empty acts as if full.
    pub full: u16,
    /// A backend operation completes later than its submission.
    pub delay: u16,
}

impl Faults {
    /// Nothing goes wrong, but half of the operations take their time.
    pub fn none() -> Self {
        Self { delay: 500, ..Self::default() }
    }
}

/// A simulated system.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Where all chance comes from.
    pub seed: u64,
    /// How waiting is done.
    pub waiting: Waiting,
    /// The abilities of the kernel.
    pub kernel: Kernel,
    /// The faults.
    pub faults: Faults,
    /// Each ring stands for a separate thread, no matter which thread steps the ring: only the ring
    /// that has fetched a tag may do the things reserved for the fetching thread.
    pub thread_per_ring: bool,
    /// Whether the kernel scans disks for partitions at START_DEV. Default: no; tests can then
    /// count requests.
    pub partition_scan: bool,
    /// Whether events are kept for [`Sim::trace`](super::Sim::trace).
    pub trace: bool,
}

impl SimConfig {
    /// Linux 7.3 without faults, stepped by a single thread.
    pub fn stepping(seed: u64) -> Self {
        Self {
            seed,
            waiting: Waiting::Stepping,
            kernel: Kernel::linux_7_3(),
            faults: Faults::none(),
            thread_per_ring: false,
            partition_scan: false,
            trace: false,
        }
    }

    /// Linux 7.3 without faults, for real threads.
    pub fn blocking(seed: u64) -> Self {
        Self { waiting: Waiting::Blocking, ..Self::stepping(seed) }
    }
}
