//! A file on a web server as the device's contents.

use super::{Geometry, OnRemote, Presentation};
use crate::error::{Code, Error, Result};
use crate::remote::Remote;
use crate::remote::http::Http;
pub use crate::remote::http::HttpOptions;

/// The preferred size of a read, in bytes: the kernel reads twice as much ahead.
const PREFERRED: u32 = 1 << 20;

/// Asks the server for the file at `url`, which is served for reading only. Blocks.
///
/// # Errors
/// Those of [`Http::open`]; `BadBackend` for a file without a block; `InvalidArgument` for a block size that no
/// device has.
pub fn open(url: &str, options: HttpOptions, asked: Presentation) -> Result<OnRemote> {
    let http = Http::open(url, options)?;
    let block = asked.logical_block.unwrap_or(512);
    let size = http.size() - http.size() % u64::from(block.max(512));
    if size == 0 {
        let message = format!("{} holds {} bytes, less than a block", http.name(), http.size());
        return Err(Error::new(Code::BadBackend, message).hint("is the address that of an image?"));
    }
    let geometry = Geometry {
        read_only: true,
        physical_block: 4096,
        io_min: 4096,
        io_opt: PREFERRED,
        dma_alignment: 3,
        ..Geometry::new(size)
    };
    let identity = http.identity();
    Ok(OnRemote::new(http, identity, geometry.presented(asked)?))
}
