//! An export of an NBD server as the device's contents.

use ublk_nbd::client::Export;
use ublk_nbd::wire::export;

use super::{DiscardLimits, Geometry, OnRemote, Presentation};
use crate::error::{Code, Error, Result};
use crate::remote::Remote;
use crate::remote::nbd::Nbd;
pub use crate::remote::nbd::NbdOptions;

/// The longest discard and the longest write of zeros, in bytes: the server may take its time for more.
const LONGEST: u32 = 1 << 30;
/// The largest request of any device.
const LARGEST: u32 = 32 << 20;

/// Connects to the export at `uri`: reads and writes are the server's, a flush is `FLUSH`, FUA is the flag of a
/// write, a discard is `TRIM`. Blocks.
///
/// # Errors
/// Those of [`Nbd::connect`]; `Permission` for an export that the server serves for reading only, unless `asked`
/// is for reading only; `BadBackend` for an export without a block, or with blocks that no block device has.
pub fn connect(uri: &str, options: NbdOptions, asked: Presentation) -> Result<OnRemote> {
    let remote = Nbd::connect(uri, options)?;
    let name = remote.name();
    let geometry = geometry(&name, remote.export())?;
    if geometry.read_only && !asked.read_only {
        let message = format!("the server serves {name} for reading only");
        return Err(Error::new(Code::Permission, message).hint(
            "ask for a device that refuses writes: readOnly, on the command line --read-only",
        ));
    }
    Ok(OnRemote::new(remote, name, geometry.presented(asked)?))
}

/// The properties of a block device with the contents of an export.
fn geometry(name: &str, export: &Export) -> Result<Geometry> {
    let blocks = export.blocks_or_default();
    let logical_block = blocks.minimum.max(512);
    let refused = |what: String| Err(Error::new(Code::BadBackend, format!("{name} {what}")));
    if logical_block > 4096 {
        return refused(format!("has blocks of {logical_block} bytes, more than 4096"));
    }
    let size = export.size & !u64::from(logical_block - 1);
    if size == 0 {
        return refused(format!("holds {} bytes, less than a block", export.size));
    }
    let read_only = export.has(export::READ_ONLY);
    let physical_block = blocks.preferred.clamp(logical_block, 1 << 20);
    let longest = |flag| if export.has(flag) && !read_only { LONGEST } else { 0 };
    let limits = DiscardLimits {
        granularity: physical_block,
        max_discard: longest(export::SEND_TRIM),
        max_write_zeroes: longest(export::SEND_WRITE_ZEROES),
    };
    // A power of two, since the kernel cuts requests at multiples.
    let longest_request = 1 << blocks.maximum.max(1).ilog2();
    Ok(Geometry {
        logical_block,
        physical_block,
        io_min: physical_block,
        io_opt: physical_block,
        read_only,
        rotational: export.has(export::ROTATIONAL),
        volatile_cache: export.has(export::SEND_FLUSH),
        fua: export.has(export::SEND_FLUSH) && export.has(export::SEND_FUA),
        discard: (limits.max_discard > 0 || limits.max_write_zeroes > 0).then_some(limits),
        dma_alignment: 3,
        chunk: if longest_request < LARGEST { longest_request.into() } else { 0 },
        ..Geometry::new(size)
    })
}
