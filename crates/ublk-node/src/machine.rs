//! What can be asked of, and done to, the devices of this machine, whoever serves them.

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::device;
use ublk_core::driver::linux::Linux;

use crate::describe::{self, DeviceInfo};
use crate::task;

/// All ublk devices.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo[]>>")]
pub fn list_devices(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, || {
        let devices = device::list(Linux::new())?;
        Ok(devices.iter().map(DeviceInfo::from).collect::<Vec<_>>())
    })
}

/// One device.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo>>")]
pub fn device_info(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::info(Linux::new(), id).map(|info| DeviceInfo::from(&info)))
}

/// Stops a device.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn stop_device(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::stop(Linux::new(), id))
}

/// Stops a device and removes it.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn delete_device(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::delete(Linux::new(), id))
}

/// The driver's features.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<Feature[]>>")]
pub fn features(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, || {
        let flags = device::features(Linux::new())?;
        Ok(describe::features(flags).collect::<Vec<_>>())
    })
}
