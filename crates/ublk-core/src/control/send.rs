//! How a command reaches the driver: in the encoding that the kernel knows, by the device's path
//! where it must.

use std::io;
use std::time::Duration;

use ublk_sys::{UBLK_F_UNPRIVILEGED_DEV, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info};

use super::cause::refused;
use super::command::{ADD_DEV, Command, GET_DEV_INFO2, GET_FEATURES};
use super::{Control, QUICK};
use crate::driver::{ControlAnswer, Driver, Plain};
use crate::error::Result;

/// What a command came back with.
pub(super) struct Answer {
    pub(super) result: i32,
    pub(super) buffer: Box<[u8]>,
}

impl<D: Driver> Control<D> {
    pub(super) fn send(
        &self,
        command: Command,
        arguments: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> Result<Answer> {
        self.check(command, arguments.dev_id)?;
        let sent = match self.attempt(command, arguments, buffer.clone(), limit) {
            // An unprivileged device's commands must name it by its path, root's too.
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL)
                    && self.must_name(command, arguments.dev_id) =>
            {
                self.attempt_by_path(command, arguments, buffer, limit)
            }
            sent => sent,
        };
        sent.map_err(|error| refused(command.name, arguments.dev_id, limit, &error))
    }

    fn must_name(&self, command: Command, id: u32) -> bool {
        let of_a_device = ![ADD_DEV, GET_FEATURES].iter().any(|other| other.name == command.name);
        let unprivileged = |info: ublksrv_ctrl_dev_info| info.flags & UBLK_F_UNPRIVILEGED_DEV != 0;
        of_a_device && self.info_by_path(id).is_ok_and(unprivileged)
    }

    pub(super) fn info_by_path(&self, id: u32) -> io::Result<ublksrv_ctrl_dev_info> {
        let buffer = Some(ublksrv_ctrl_dev_info::default().to_buffer());
        let answer = self.attempt_by_path(GET_DEV_INFO2, Self::command(id), buffer, QUICK)?;
        Ok(Plain::parse(&answer.buffer))
    }

    /// The path goes before what the command itself carries, and is not part of the answer.
    fn attempt_by_path(
        &self,
        command: Command,
        arguments: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<Answer> {
        let mut bytes = format!("/dev/ublkc{}\0", arguments.dev_id).into_bytes();
        let length = bytes.len();
        bytes.extend_from_slice(&buffer.unwrap_or_default());
        let dev_path_len = u16::try_from(length).unwrap_or_default();
        let arguments = ublksrv_ctrl_cmd { dev_path_len, ..arguments };
        let Answer { result, buffer } =
            self.attempt(command, arguments, Some(bytes.into()), limit)?;
        Ok(Answer { result, buffer: buffer[length..].into() })
    }

    /// Kernels before 6.4 know the bare numbers only; some later ones the encoded ones only.
    fn attempt(
        &self,
        command: Command,
        arguments: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<Answer> {
        let encoded = self.hand_over(command.operation, arguments, buffer.clone(), limit);
        match (encoded, command.legacy) {
            (Err(error), Some(number)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.hand_over(number.into(), arguments, buffer, limit)
            }
            (encoded, _) => encoded,
        }
    }

    fn hand_over(
        &self,
        operation: u32,
        arguments: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<Answer> {
        let answer = self.driver.control(operation, arguments, buffer, limit)?;
        let ControlAnswer { result, buffer } = answer;
        Ok(Answer { result, buffer: buffer.unwrap_or_default() })
    }
}
