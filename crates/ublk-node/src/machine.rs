//! Questions and commands about the ublk devices of this machine, of every server.

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::device::{self, StopCheck};
use ublk_core::driver::linux::Linux;

use crate::describe::{self, DeviceInfo, DeviceUsers};
use crate::{targets, task};

/// Lists all ublk devices.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo[]>>")]
pub fn list_devices(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, || {
        let devices = device::list(Linux::new())?;
        Ok(devices.iter().map(DeviceInfo::from).collect::<Vec<_>>())
    })
}

/// Describes a device.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo>>")]
pub fn device_info(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::info(Linux::new(), id).map(|info| DeviceInfo::from(&info)))
}

/// Stops a device, with `force` a device in use too; resolves to the extent of the search for users.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<'openers' | 'holders' | 'nothing'>>")]
pub fn stop_device(env: &Env, id: u32, force: bool) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        Ok(match device::stop(&Linux::new(), id, force)? {
            StopCheck::Openers => "openers",
            StopCheck::Holders => "holders",
            StopCheck::Nothing => "nothing",
        })
    })
}

/// Takes a device away from the server, for the next server.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn quiesce_device(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::quiesce(Linux::new(), id))
}

/// Changes the size of a device, in bytes; a device grows with `force` only.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo>>")]
pub fn resize_device(env: &Env, id: u32, size: i64, force: bool) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let size = targets::bytes(size)?;
        device::resize(Linux::new(), id, size, force).map(|info| DeviceInfo::from(&info))
    })
}

/// Moves the threads of a device to these CPUs; resolves to the number of threads.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<number>>")]
pub fn set_device_affinity(
    env: &Env,
    id: u32,
    #[napi(ts_arg_type = "readonly number[]")] cpus: Vec<u16>,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let moved = device::set_affinity(Linux::new(), id, &cpus)?;
        Ok(u32::try_from(moved).unwrap_or(u32::MAX))
    })
}

/// Stops and removes a device, with `force` a device in use too.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn delete_device(env: &Env, id: u32, force: bool) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::delete(&Linux::new(), id, force))
}

/// Lists the users of a device.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceUsers>>")]
pub fn device_users(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || Ok(DeviceUsers::from(device::users(&Linux::new(), id)?)))
}

/// Lists the features of the driver.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<Feature[]>>")]
pub fn features(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, || {
        let flags = device::features(Linux::new())?;
        Ok(describe::features(flags).collect::<Vec<_>>())
    })
}
