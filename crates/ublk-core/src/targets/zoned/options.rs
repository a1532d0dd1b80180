//! What zones can be asked for.

use std::path::PathBuf;

use super::super::Boot;
use super::LONGEST;
use super::table::Shape;
use crate::error::{Code, Error, Result};

/// What a zoned device is made of. Sizes in bytes.
#[derive(Clone, Debug, Default)]
pub struct ZonedOptions {
    /// A power of two.
    pub zone_size: u64,
    /// How much of a zone can be written; absent: all.
    pub zone_capacity: Option<u64>,
    /// How many zones at the beginning are conventional: written anywhere and in any order.
    pub conventional: u32,
    /// Most zones open at once; 0: all.
    pub max_open: u32,
    /// Most zones open or closed at once; 0: all.
    pub max_active: u32,
    /// Where the state of the zones is kept; absent: beside the file, with `.zones` behind its name.
    pub state: Option<PathBuf>,
    /// A state that is missing is made although the data is not empty: all zones are empty then.
    pub create: bool,
    /// The boot that this is; absent: the machine's.
    pub boot: Option<Boot>,
}

/// Emptying all zones takes a step for each so many bytes; a plan has at most 255.
const LARGEST: u64 = 250 * LONGEST;
const MOST_ZONES: u32 = 1 << 20;

impl ZonedOptions {
    /// The zones of a device of so many bytes, if there can be such.
    pub(super) fn shape(&self, size: u64) -> Result<Shape> {
        let Self { zone_size, conventional, max_open, max_active, .. } = *self;
        if !zone_size.is_power_of_two() || !(65536..1 << 40).contains(&zone_size) {
            let range = "it must be a power of two from 64 KiB to 512 GiB";
            return Err(refused(format!("zoneSize is {zone_size}; {range}")));
        }
        let count = size / zone_size;
        if count == 0 {
            return Err(refused(format!("size is {size}, less than one zone of {zone_size}")));
        }
        let count =
            u32::try_from(count).ok().filter(|&count| count <= MOST_ZONES && size <= LARGEST);
        let count = count.ok_or_else(|| {
            refused(format!(
                "size is {size}; a zoned device has at most {LARGEST} bytes in {MOST_ZONES} zones"
            ))
        })?;
        let capacity = self.zone_capacity.unwrap_or(zone_size);
        if !(4096..=zone_size).contains(&capacity) || !capacity.is_multiple_of(4096) {
            let range = format!("it must be a multiple of 4096, at most zoneSize ({zone_size})");
            return Err(refused(format!("zoneCapacity is {capacity}; {range}")));
        }
        self.check_counts(count)?;
        Ok(Shape { zone_size, capacity, count, conventional, max_open, max_active })
    }

    fn check_counts(&self, count: u32) -> Result<()> {
        let Self { conventional, max_open, max_active, .. } = *self;
        if conventional >= count {
            return Err(refused(format!(
                "conventionalZones is {conventional}; of {count} zones one must be sequential"
            )));
        }
        for (name, value) in [("maxOpenZones", max_open), ("maxActiveZones", max_active)] {
            if value > count {
                return Err(refused(format!("{name} is {value}; there are {count} zones")));
            }
        }
        if max_active != 0 && max_open > max_active {
            return Err(refused(format!(
                "maxOpenZones is {max_open}, more than maxActiveZones ({max_active}); open zones are active"
            )));
        }
        Ok(())
    }
}

pub(super) fn refused(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}
