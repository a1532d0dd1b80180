//! Exports: devices whose clients speak NBD.

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::device::Device;
use ublk_core::driver::nbd::{Address, Export, Tls};
use ublk_core::error::Result;

use crate::device::{OnEnd, open, served};
use crate::options::{NativeDeviceOptions, refused};

/// An export, as `src/export.ts` asks for it.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeExport {
    /// The path of a Unix socket.
    pub socket: Option<String>,
    /// Without `socket`: a name or an address of this machine.
    pub host: Option<String>,
    /// The port at `host`; 0: a free one.
    pub port: Option<u16>,
    /// The name of the export.
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether writes are refused, beside what the target says.
    pub read_only: bool,
    /// The most connections at once.
    pub connections: u16,
    /// The folder with the certificates for TLS; absent: no TLS.
    pub tls_certificates: Option<String>,
    /// Whether clients with TLS may come without a certificate.
    pub tls_anyone: bool,
}

impl NativeExport {
    fn convert(self) -> Result<Export> {
        let address = match (self.socket, self.host) {
            (Some(path), None) => Address::Unix(path.into()),
            (None, Some(host)) => Address::Tcp { host, port: self.port.unwrap_or_default() },
            _ => return Err(refused("an export needs a socket or a host".into())),
        };
        let anyone = self.tls_anyone;
        Ok(Export {
            address,
            name: self.name,
            description: self.description,
            read_only: self.read_only,
            connections: self.connections,
            tls: self.tls_certificates.map(|folder| Tls { certificates: folder.into(), anyone }),
        })
    }
}

/// Serves a target to clients of NBD; calls `on_end` once when the export has ended, for whatever reason.
#[napi(
    catch_unwind,
    ts_args_type = "options: NativeDeviceOptions, exported: NativeExport, onEnd: (end: NativeEnd) => void",
    ts_return_type = "Promise<Outcome<NativeDevice>>"
)]
pub fn create_export<'env>(
    env: &'env Env,
    options: NativeDeviceOptions,
    exported: NativeExport,
    on_end: OnEnd,
) -> napi::Result<Object<'env>> {
    open(env, on_end, move || {
        let (options, target) = options.convert()?;
        Device::export(exported.convert()?, || target.open(), options).map(served)
    })
}
