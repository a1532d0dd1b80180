//! Zones and metadata of targets.

use std::path::PathBuf;

use napi_derive::napi;
use ublk_core::error::Result;
use ublk_core::targets::ZonedLimits;
use ublk_core::targets::handler::HandlerZones;
use ublk_core::targets::integrity::{Checksum, IntegrityFormat};
use ublk_core::targets::zoned::ZonedOptions;

use super::bytes;
use crate::options::unknown;

/// Metadata beside a target's data; sizes in bytes.
#[derive(Clone, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeIntegrity {
    /// The checksum of each piece.
    #[napi(ts_type = "'none' | 'ip' | 'crc16' | 'crc64'")]
    pub checksum: String,
    /// Of each piece.
    pub metadata_size: u8,
    /// Where the protection information begins in a piece.
    pub pi_offset: u8,
    /// Data to each piece; absent: the logical block size.
    pub interval: Option<u32>,
    /// Of the application tag.
    pub tag_size: u8,
    /// Whether reference tags count blocks.
    pub reference_tags: bool,
    /// Whether the device declares that the device checks.
    pub capable: bool,
    /// The file with the metadata; absent: next to the data.
    pub path: Option<String>,
    /// Whether to make a missing file although there is data.
    pub create: Option<bool>,
}

/// The zones of a zoned target; sizes in bytes.
#[derive(Clone, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeZones {
    /// From the start of a zone to the start of the next zone.
    pub size: i64,
    /// How much of each can be written; absent: all.
    pub capacity: Option<i64>,
    /// The number of conventional zones.
    pub conventional: u32,
    /// Most zones open at once; 0: all.
    pub max_open: u32,
    /// Most zones open or closed at once; 0: all.
    pub max_active: u32,
    /// Where their state is kept; absent: beside the file.
    pub state: Option<String>,
    /// Whether their state is made although there is data.
    pub create: Option<bool>,
}

impl NativeIntegrity {
    pub(super) fn format(&self) -> Result<IntegrityFormat> {
        Ok(IntegrityFormat {
            interval: self.interval.unwrap_or(0),
            metadata_size: self.metadata_size,
            checksum: checksum(&self.checksum)?,
            pi_offset: self.pi_offset,
            tag_size: self.tag_size,
            reference_tags: self.reference_tags,
            capable: self.capable,
        })
    }
}

fn checksum(name: &str) -> Result<Checksum> {
    match name {
        "none" => Ok(Checksum::None),
        "ip" => Ok(Checksum::Ip),
        "crc16" => Ok(Checksum::Crc16),
        "crc64" => Ok(Checksum::Crc64),
        _ => Err(unknown("checksum", name)),
    }
}

impl NativeZones {
    pub(super) fn convert(self) -> Result<ZonedOptions> {
        Ok(ZonedOptions {
            zone_size: bytes(self.size)?,
            zone_capacity: self.capacity.map(bytes).transpose()?,
            conventional: self.conventional,
            max_open: self.max_open,
            max_active: self.max_active,
            state: self.state.map(PathBuf::from),
            create: self.create.unwrap_or(false),
            boot: None,
        })
    }
}

/// The zones of a handler.
pub(super) fn handler_zones(zones: &ZonedOptions) -> HandlerZones {
    let ZonedOptions { zone_size: size, max_open, max_active, .. } = *zones;
    HandlerZones { size, limits: ZonedLimits { max_open, max_active } }
}
