//! The control plane: one method per command of `/dev/ublk-control`.
//!
//! Every command has a time limit, and every error says what was tried and what is probably
//! wrong. No command waits for another command of this process: `STOP_DEV` may take minutes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_FEATURES_LEN, UBLK_PARAM_TYPE_BASIC, ublk_params, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use crate::driver::{Driver, Plain};
use crate::error::{Code, Error, Result};

mod cause;
mod change;
mod command;
mod identity;
mod send;
mod stay;

use command::{
    ADD_DEV, DEL_DEV, DEL_DEV_ASYNC, GET_DEV_INFO, GET_FEATURES, GET_PARAMS, GET_QUEUE_AFFINITY,
    SET_PARAMS, START_DEV, STOP_DEV,
};
use identity::Bound;
use send::Answer;
use stay::{FOR_EVER, unanswered};

/// How long a command that does not wait for anybody may take.
const QUICK: Duration = Duration::from_secs(10);
const NO_QUEUE: u16 = u16::MAX;
/// `CONFIG_NR_CPUS` at its largest.
const MAX_CPUS: usize = 8192;

/// The control device.
#[derive(Clone, Debug)]
pub struct Control<D> {
    driver: D,
    /// The device that its number must mean.
    bound: Option<Arc<Bound>>,
}

impl<D: Driver> Control<D> {
    /// Touches nothing.
    pub fn new(driver: D) -> Self {
        Self { driver, bound: None }
    }

    /// The same for the device that has the number `id` now: later, when another device has the
    /// number, commands of this one fail with [`Code::NoDevice`](crate::error::Code::NoDevice).
    #[must_use]
    pub fn bound_to(&self, id: u32) -> Self {
        let bound = Bound::new(&self.driver, id);
        Self { driver: self.driver.clone(), bound: Some(Arc::new(bound)) }
    }

    /// Where its commands go.
    pub(crate) fn driver(&self) -> &D {
        &self.driver
    }

    /// `UBLK_F_*` that the kernel knows (Linux 6.5).
    ///
    /// # Errors
    /// [`Code::NoDriver`](crate::error::Code::NoDriver) without the driver; [`Code::Unsupported`](crate::error::Code::Unsupported) before 6.5.
    pub fn features(&self) -> Result<u64> {
        let buffer = vec![0; UBLK_FEATURES_LEN.into()].into();
        let answer = self.send(GET_FEATURES, Self::command(0), Some(buffer), QUICK)?;
        Ok(u64::parse(&answer.buffer))
    }

    /// [`add_within`](Self::add_within) a usual limit.
    ///
    /// # Errors
    /// Those of `add_within`.
    pub fn add(&self, info: &ublksrv_ctrl_dev_info) -> Result<ublksrv_ctrl_dev_info> {
        self.add_within(info, QUICK)
    }

    /// Adds a device as `info` says and answers what the kernel made of it: id, queues, depth,
    /// buffer size and flags may all differ (trap 57).
    ///
    /// # Errors
    /// [`Code::DeviceExists`](crate::error::Code::DeviceExists), [`Code::Permission`](crate::error::Code::Permission), [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) and others;
    /// [`Code::Timeout`](crate::error::Code::Timeout) when the kernel does not answer within `limit`: what
    /// it adds later is deleted at once, as long as this process lives.
    pub fn add_within(
        &self,
        info: &ublksrv_ctrl_dev_info,
        limit: Duration,
    ) -> Result<ublksrv_ctrl_dev_info> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            match self.add_once(info, limit) {
                // The kernel is about to free the number (trap 70).
                Err(Error { code: Code::DeviceExists, .. })
                    if Instant::now() < deadline
                        && self.is_unknown(info.dev_id).is_ok_and(|unknown| unknown) =>
                {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    fn add_once(
        &self,
        info: &ublksrv_ctrl_dev_info,
        limit: Duration,
    ) -> Result<ublksrv_ctrl_dev_info> {
        let command = Self::command(info.dev_id);
        let control = self.clone();
        let unwanted = move |answer: Result<Answer>| {
            if let Ok(Answer { buffer, .. }) = answer {
                let id = ublksrv_ctrl_dev_info::parse(&buffer).dev_id;
                // Nobody is left to hear of an error; `ublk list` shows the device.
                let _unheard = control.bound_to(id).delete(id, FOR_EVER);
            }
        };
        let buffer = Some(info.to_buffer());
        match self.send_and_stay(ADD_DEV, command, buffer, limit, unwanted)? {
            Some(answer) => Ok(Plain::parse(&answer.buffer)),
            None => Err(unanswered(ADD_DEV, info.dev_id, limit).hint(
                "another device is being deleted meanwhile, maybe one that writes back. Should the \
                 kernel add this one later, it is deleted at once; if this process ends before, \
                 `ublk list` shows it as dead, and `ublk delete` removes it",
            )),
        }
    }

    /// Sets the parameters of a device that is not started.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) when the kernel finds them contradictory.
    pub fn set_params(&self, id: u32, params: &ublk_params) -> Result<()> {
        self.send(SET_PARAMS, Self::command(id), Some(params.to_buffer()), QUICK)?;
        Ok(())
    }

    /// The parameters in force, and with them the device's numbers once it is started.
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice) and others.
    pub fn params(&self, id: u32) -> Result<ublk_params> {
        self.params_within(id, QUICK)
    }

    /// The same; whoever stops the device meanwhile makes the command wait (`ub->mutex`).
    ///
    /// # Errors
    /// [`Code::Timeout`](crate::error::Code::Timeout) when the kernel does not answer within
    /// `limit`, and those of [`params`](Self::params).
    pub fn params_within(&self, id: u32, limit: Duration) -> Result<ublk_params> {
        let ask = ublk_params {
            len: u32::try_from(size_of::<ublk_params>()).unwrap_or_default(),
            types: UBLK_PARAM_TYPE_BASIC,
            ..Default::default()
        };
        let answer = self.send(GET_PARAMS, Self::command(id), Some(ask.to_buffer()), limit)?;
        Ok(Plain::parse(&answer.buffer))
    }

    /// What the kernel knows of a device.
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice); [`Code::Permission`](crate::error::Code::Permission) of a device that is not this user's.
    pub fn info(&self, id: u32) -> Result<ublksrv_ctrl_dev_info> {
        let buffer = Some(ublksrv_ctrl_dev_info::default().to_buffer());
        let answer = self.send(GET_DEV_INFO, Self::command(id), buffer, QUICK)?;
        Ok(Plain::parse(&answer.buffer))
    }

    /// The CPUs whose requests go to a queue, as a bit mask.
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice) and others.
    pub fn queue_affinity(&self, id: u32, queue: u16) -> Result<Box<[u8]>> {
        let command =
            ublksrv_ctrl_cmd { queue_id: NO_QUEUE, data: [queue.into()], ..Self::command(id) };
        // A mask of as many CPUs as a kernel can be built for.
        let buffer = Some(vec![0; MAX_CPUS / 8].into());
        Ok(self.send(GET_QUEUE_AFFINITY, command, buffer, QUICK)?.buffer)
    }

    /// Starts a device whose queues are all being fetched from, and waits for them. Not to be
    /// called from a reactor's thread.
    ///
    /// # Errors
    /// [`Code::Timeout`](crate::error::Code::Timeout) when the queues are not there within `limit`: stop the device then.
    pub fn start(&self, id: u32, pid: u32, limit: Duration) -> Result<()> {
        let command = ublksrv_ctrl_cmd { data: [pid.into()], ..Self::command(id) };
        self.send(START_DEV, command, None, limit).map(drop)
    }

    /// Stops a device: requests in flight are answered by the server, later ones fail. The server
    /// must serve until this returns (trap 31).
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice), [`Code::Timeout`](crate::error::Code::Timeout) and others.
    pub fn stop(&self, id: u32, limit: Duration) -> Result<()> {
        self.send(STOP_DEV, Self::command(id), None, limit).map(drop)
    }

    /// Deletes a device without waiting for those who still have it open (Linux 6.9), or with,
    /// where the kernel cannot otherwise. The deletions of a process take turns, and `limit` begins
    /// with the turn.
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice), [`Code::Timeout`](crate::error::Code::Timeout) and others.
    pub fn delete(&self, id: u32, limit: Duration) -> Result<()> {
        let place = self.driver.deletions().enter(limit);
        let deleted = self.send(DEL_DEV_ASYNC, Self::command(id), None, limit);
        drop(place);
        let deleted = match deleted {
            // Not known, or not allowed to an unprivileged owner (trap 32). Without a place: DEL_DEV
            // also waits for whoever has the device open.
            Err(Error { errno: Some(libc::EOPNOTSUPP | libc::EINVAL), .. }) => {
                self.send(DEL_DEV, Self::command(id), None, limit)
            }
            deleted => deleted,
        };
        deleted.map(drop).map_err(|error| match error.code {
            Code::Timeout => error.hint(
                "the kernel deletes one device at a time, and another one is being deleted \
                 meanwhile, maybe one that writes back. This one is stopped; the kernel deletes it \
                 afterwards, or `ublk delete` does",
            ),
            _ => error,
        })
    }

    fn command(id: u32) -> ublksrv_ctrl_cmd {
        ublksrv_ctrl_cmd { dev_id: id, queue_id: NO_QUEUE, ..Default::default() }
    }
}
