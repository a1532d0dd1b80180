//! The control plane: one method per command of `/dev/ublk-control`.
//!
//! Every command has a time limit, and every error says what was tried and what is probably
//! wrong. Commands of one process go one after another: kernels up to 7.0 lose commands that
//! sleep when many are sent at once (trap 26).

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ublk_sys::{
    UBLK_FEATURES_LEN, UBLK_PARAM_TYPE_BASIC, UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV,
    UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_GET_DEV_INFO2,
    UBLK_U_CMD_GET_FEATURES, UBLK_U_CMD_GET_PARAMS, UBLK_U_CMD_GET_QUEUE_AFFINITY,
    UBLK_U_CMD_SET_PARAMS, UBLK_U_CMD_START_DEV, UBLK_U_CMD_STOP_DEV, ublk_params,
    ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use crate::driver::{ControlAnswer, Driver};
use crate::error::{Code, Error, Result};

mod bytes;
mod cause;

use bytes::Plain;
use cause::explain;

/// How long a command that does not wait for anybody may take.
const QUICK: Duration = Duration::from_secs(10);
const NO_QUEUE: u16 = u16::MAX;

/// A command: its number and its name in errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    operation: u32,
    name: &'static str,
}

macro_rules! commands {
    ($($name:ident = $operation:ident;)*) => {
        $(const $name: Command = Command { operation: $operation, name: stringify!($name) };)*
    };
}

commands! {
    ADD_DEV = UBLK_U_CMD_ADD_DEV;
    DEL_DEV = UBLK_U_CMD_DEL_DEV;
    DEL_DEV_ASYNC = UBLK_U_CMD_DEL_DEV_ASYNC;
    GET_DEV_INFO = UBLK_U_CMD_GET_DEV_INFO;
    GET_DEV_INFO2 = UBLK_U_CMD_GET_DEV_INFO2;
    GET_FEATURES = UBLK_U_CMD_GET_FEATURES;
    GET_PARAMS = UBLK_U_CMD_GET_PARAMS;
    SET_PARAMS = UBLK_U_CMD_SET_PARAMS;
    GET_QUEUE_AFFINITY = UBLK_U_CMD_GET_QUEUE_AFFINITY;
    START_DEV = UBLK_U_CMD_START_DEV;
    STOP_DEV = UBLK_U_CMD_STOP_DEV;
}

/// The control device.
#[derive(Clone, Debug)]
pub struct Control<D> {
    driver: D,
}

impl<D: Driver> Control<D> {
    /// Touches nothing.
    pub fn new(driver: D) -> Self {
        Self { driver }
    }

    /// `UBLK_F_*` that the kernel knows (Linux 6.5).
    ///
    /// # Errors
    /// [`Code::NoDriver`] without the driver; [`Code::Unsupported`] before 6.5.
    pub fn features(&self) -> Result<u64> {
        let buffer = vec![0; UBLK_FEATURES_LEN.into()].into();
        let answer = self.send(GET_FEATURES, Self::command(0), Some(buffer), QUICK)?;
        Ok(u64::parse(&answer))
    }

    /// Adds a device as `info` says and answers what the kernel made of it: id, queues, depth,
    /// buffer size and flags may all differ (trap 57).
    ///
    /// # Errors
    /// [`Code::DeviceExists`], [`Code::Permission`], [`Code::InvalidArgument`] and others.
    pub fn add(&self, info: &ublksrv_ctrl_dev_info) -> Result<ublksrv_ctrl_dev_info> {
        let command = Self::command(info.dev_id);
        let answer = self.send(ADD_DEV, command, Some(info.to_buffer()), QUICK)?;
        Ok(Plain::parse(&answer))
    }

    /// Sets the parameters of a device that is not started.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the kernel finds them contradictory.
    pub fn set_params(&self, id: u32, params: &ublk_params) -> Result<()> {
        self.send(SET_PARAMS, Self::command(id), Some(params.to_buffer()), QUICK)?;
        Ok(())
    }

    /// The parameters in force, and with them the device's numbers once it is started.
    ///
    /// # Errors
    /// [`Code::NoDevice`] and others.
    pub fn params(&self, id: u32) -> Result<ublk_params> {
        let ask = ublk_params {
            len: u32::try_from(size_of::<ublk_params>()).unwrap_or_default(),
            types: UBLK_PARAM_TYPE_BASIC,
            ..Default::default()
        };
        let answer = self.send(GET_PARAMS, Self::command(id), Some(ask.to_buffer()), QUICK)?;
        Ok(Plain::parse(&answer))
    }

    /// What the kernel knows of a device.
    ///
    /// # Errors
    /// [`Code::NoDevice`] and others.
    pub fn info(&self, id: u32) -> Result<ublksrv_ctrl_dev_info> {
        let buffer = || Some(ublksrv_ctrl_dev_info::default().to_buffer());
        let answer = self.send(GET_DEV_INFO, Self::command(id), buffer(), QUICK)?;
        Ok(Plain::parse(&answer))
    }

    /// The same by way of the device's path, which an unprivileged owner may do (Linux 6.2).
    ///
    /// # Errors
    /// [`Code::NoDevice`], [`Code::Permission`] and others.
    pub fn info_by_path(&self, id: u32) -> Result<ublksrv_ctrl_dev_info> {
        let path = format!("/dev/ublkc{id}\0");
        let mut buffer = path.clone().into_bytes();
        buffer.extend_from_slice(&ublksrv_ctrl_dev_info::default().to_buffer());
        let command = ublksrv_ctrl_cmd {
            dev_path_len: u16::try_from(path.len()).unwrap_or_default(),
            ..Self::command(id)
        };
        let answer = self.send(GET_DEV_INFO2, command, Some(buffer.into()), QUICK)?;
        Ok(Plain::parse(&answer[path.len()..]))
    }

    /// The CPUs whose requests go to a queue, as a bit mask.
    ///
    /// # Errors
    /// [`Code::NoDevice`] and others.
    pub fn queue_affinity(&self, id: u32, queue: u16) -> Result<Box<[u8]>> {
        let command =
            ublksrv_ctrl_cmd { queue_id: NO_QUEUE, data: [queue.into()], ..Self::command(id) };
        // A mask of 1024 CPUs, what the C library's cpu_set_t holds.
        self.send(GET_QUEUE_AFFINITY, command, Some(vec![0; 128].into()), QUICK)
    }

    /// Starts a device whose queues are all being fetched from, and waits for them. Not to be
    /// called from a reactor's thread.
    ///
    /// # Errors
    /// [`Code::Timeout`] when the queues are not there within `limit`: stop the device then.
    pub fn start(&self, id: u32, pid: u32, limit: Duration) -> Result<()> {
        let command = ublksrv_ctrl_cmd { data: [pid.into()], ..Self::command(id) };
        self.send(START_DEV, command, None, limit).map(drop)
    }

    /// Stops a device: requests in flight are answered by the server, later ones fail. The server
    /// must serve until this returns (trap 31).
    ///
    /// # Errors
    /// [`Code::NoDevice`], [`Code::Timeout`] and others.
    pub fn stop(&self, id: u32, limit: Duration) -> Result<()> {
        self.send(STOP_DEV, Self::command(id), None, limit).map(drop)
    }

    /// Deletes a device without waiting for those who still have it open (Linux 6.9), or with,
    /// where the kernel cannot otherwise.
    ///
    /// # Errors
    /// [`Code::NoDevice`], [`Code::Timeout`] and others.
    pub fn delete(&self, id: u32, limit: Duration) -> Result<()> {
        match self.send(DEL_DEV_ASYNC, Self::command(id), None, limit) {
            // Not known, or not allowed to an unprivileged owner (trap 32).
            Err(Error { errno: Some(libc::EOPNOTSUPP | libc::EINVAL), .. }) => {
                self.send(DEL_DEV, Self::command(id), None, limit).map(drop)
            }
            result => result.map(drop),
        }
    }

    fn command(id: u32) -> ublksrv_ctrl_cmd {
        ublksrv_ctrl_cmd { dev_id: id, queue_id: NO_QUEUE, ..Default::default() }
    }

    fn send(
        &self,
        command: Command,
        arguments: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> Result<Box<[u8]>> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let may_wait = command.operation == START_DEV.operation;
        // START_DEV waits for the server, and STOP_DEV is what ends that wait: never behind it.
        let turn =
            (!may_wait).then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = self.driver.control(command.operation, arguments, buffer, limit);
        drop(turn);
        match answer {
            Ok(ControlAnswer { buffer, .. }) => Ok(buffer.unwrap_or_default()),
            Err(error) => Err(refused(command, arguments.dev_id, limit, &error)),
        }
    }
}

fn refused(command: Command, id: u32, limit: Duration, error: &io::Error) -> Error {
    let (code, hint) = explain(command.name, error);
    let mut tried = match id {
        u32::MAX => command.name.to_owned(),
        _ if command.name == GET_FEATURES.name => command.name.to_owned(),
        id => format!("{} of ublk device {id}", command.name),
    };
    if code == Code::Timeout {
        tried = format!("{tried}: no answer within {} s", limit.as_secs());
    }
    Error { hint, ..Error::os(code, tried, command.name, error) }
}
