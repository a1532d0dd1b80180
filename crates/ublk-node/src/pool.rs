//! Reactors that devices share.

use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::device::{Device, Pool, PoolOptions};
use ublk_core::driver::linux::Linux;
use ublk_core::targets::native::Native;

use crate::before_start::{self, OnAdded};
use crate::device::{self, OnEnd};
use crate::options::NativeDeviceOptions;
use crate::task;

/// Reactors, running until this is closed, or collected and their last device has ended.
#[napi]
pub struct NativePool {
    pool: Pool<Native>,
}

/// Starts reactors.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<NativePool>>")]
pub fn create_pool(
    env: &Env,
    reactors: u16,
    max_reactors: u16,
    spin_usec: u32,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let spin = Duration::from_micros(spin_usec.into());
        let pool = Pool::new(&Linux::new(), PoolOptions { reactors, max_reactors, spin })?;
        Ok(NativePool { pool })
    })
}

#[napi]
impl NativePool {
    /// The number of reactors now, without lost ones.
    #[napi(catch_unwind)]
    pub fn reactors(&self) -> u32 {
        u32::try_from(self.pool.reactors()).unwrap_or(u32::MAX)
    }

    /// Ends the reactors, which serve nothing; resolves when their threads are gone.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let pool = self.pool.clone();
        task::promise(env, move || pool.close())
    }

    /// As `createDevice`, with the pool's reactors.
    #[napi(
        catch_unwind,
        ts_args_type = "options: NativeDeviceOptions, onEnd: (end: NativeEnd) => void, onAdded?: (device: \
                        AddedDevice) => void",
        ts_return_type = "Promise<Outcome<NativeDevice>>"
    )]
    pub fn create_device<'env>(
        &self,
        env: &'env Env,
        options: NativeDeviceOptions,
        on_end: OnEnd,
        on_added: Option<OnAdded>,
    ) -> napi::Result<Object<'env>> {
        let pool = self.pool.clone();
        device::open(env, on_end, move || {
            let (mut options, target) = options.convert()?;
            before_start::set(&mut options, on_added);
            Device::create_in(&pool, &Linux::new(), target.open()?, options).map(device::served)
        })
    }

    /// As `recoverDevice`, with the pool's reactors.
    #[napi(
        catch_unwind,
        ts_args_type = "id: number, options: NativeDeviceOptions, onEnd: (end: NativeEnd) => void",
        ts_return_type = "Promise<Outcome<NativeDevice>>"
    )]
    pub fn recover_device<'env>(
        &self,
        env: &'env Env,
        id: u32,
        options: NativeDeviceOptions,
        on_end: OnEnd,
    ) -> napi::Result<Object<'env>> {
        let pool = self.pool.clone();
        device::open(env, on_end, move || {
            let (options, target) = options.convert()?;
            let open = |promised| target.clone().recover(promised);
            Device::recover_opening_in(&pool, &Linux::new(), id, open, options).map(device::served)
        })
    }
}
