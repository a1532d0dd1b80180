//! The header of an image, in the first cluster of the file.

use std::io;

use crate::{LARGEST, SECTOR, Unfit, be32, be64};

/// The first bytes of an image.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of the header of version 2, and of the known fields of version 3.
const SHORT: usize = 72;
const LONG: usize = 104;
/// The longest name of a backing file, in bytes.
const LONGEST_NAME: u32 = 1023;
/// The largest L1 table, in bytes.
const LARGEST_L1: u64 = 32 << 20;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
/// How compressed clusters are compressed, if there are any.
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// The facts of an image's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version of the format: 2 or 3.
    pub version: u32,
    /// The size of the disk in bytes: whole sectors.
    pub size: u64,
    /// log2 of the bytes of a cluster: 9 to 21.
    pub cluster_bits: u32,
    /// Where the L1 table begins in the file.
    pub l1: u64,
    /// Whether clusters have 32 parts, each with a state of its own.
    pub extended: bool,
    /// The image that has the clusters that this one lacks.
    pub backing: Option<Backing>,
}

/// The backing file, as an image names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The name: a path, or whatever QEMU opens.
    pub name: Vec<u8>,
    /// The format, such as `qcow2` or `raw`, if the image declares one.
    pub format: Option<String>,
}

impl Header {
    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an entry of an L2 table.
    pub(crate) fn l2_entry(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// Bytes of the disk below one L2 table.
    pub(crate) fn below_l2(&self) -> u64 {
        self.cluster() / self.l2_entry() * self.cluster()
    }

    /// The entries of the L1 table that the disk needs.
    pub(crate) fn l1_entries(&self) -> u64 {
        self.size.div_ceil(self.below_l2())
    }

    /// Reads the header of a file of `length` bytes; `read` fills a slice with bytes from an offset on.
    ///
    /// # Errors
    /// When the file cannot be read, or is no image that this crate reads.
    pub fn read(
        length: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<Self, Unfit> {
        let mut start = [0; LONG];
        let known = usize::try_from(length).unwrap_or(LONG).min(LONG);
        read(0, &mut start[..known])?;
        if known < SHORT || start[..4] != MAGIC {
            return Err(Unfit::Foreign);
        }
        let bits = be32(&start, 20);
        if !(9..=21).contains(&bits) {
            return Err(Unfit::damaged(20, format!("clusters of 2^{bits} bytes")));
        }
        // Fits: at most 2 MiB.
        let first = usize::try_from(length.min(1 << bits)).unwrap_or(0);
        let mut cluster = vec![0; first.max(LONG)];
        read(0, &mut cluster[..first])?;
        Self::parse(&cluster, length)
    }

    fn parse(cluster: &[u8], length: u64) -> Result<Self, Unfit> {
        let version = be32(cluster, 4);
        if !(2..=3).contains(&version) {
            return Err(Unfit::unsupported(format!("version {version} of the format")));
        }
        let extensions = match version {
            2 => SHORT,
            _ => header_length(cluster)?,
        };
        let incompatible = if version == 2 { 0 } else { be64(cluster, 72) };
        let extended = incompatible & EXTENDED_L2 != 0;
        let backing = backing_name(cluster)?;
        let end = backing.map_or(cluster.len(), |(at, _)| at.max(extensions));
        let extensions = Extensions::parse(cluster, extensions, end)?;
        check_features(incompatible, &extensions)?;
        if be32(cluster, 32) != 0 {
            return Err(Unfit::unsupported("encryption"));
        }
        let backing = backing.map(|(_, name)| Backing {
            name: name.to_vec(),
            format: extensions.backing_format.clone(),
        });
        let size = be64(cluster, 24);
        let header = Self {
            version,
            size: size - size % SECTOR,
            cluster_bits: be32(cluster, 20),
            l1: be64(cluster, 40),
            extended,
            backing,
        };
        header.check(be32(cluster, 36), length)?;
        Ok(header)
    }

    /// Checks the size and the L1 table, of `entries`.
    fn check(&self, entries: u32, length: u64) -> Result<(), Unfit> {
        if self.size > LARGEST || length > LARGEST {
            return Err(Unfit::unsupported("more than 512 TiB"));
        }
        if self.extended && self.cluster_bits < 14 {
            let what = format!("extended entries for clusters of {} bytes", self.cluster());
            return Err(Unfit::damaged(72, what));
        }
        let (needed, entries) = (self.l1_entries(), u64::from(entries));
        if needed > entries || entries * 8 > LARGEST_L1 {
            let what = format!("an L1 table of {entries} entries for a disk that needs {needed}");
            return Err(Unfit::damaged(36, what));
        }
        if needed > 0 && (self.l1 == 0 || !self.is_aligned(self.l1)) {
            return Err(Unfit::damaged(40, format!("an L1 table at byte {}", self.l1)));
        }
        if self.l1.checked_add(needed * 8).is_none_or(|end| end > length) {
            let what = format!("an L1 table at byte {}, behind the end of the file", self.l1);
            return Err(Unfit::damaged(40, what));
        }
        Ok(())
    }

    pub(crate) fn is_aligned(&self, offset: u64) -> bool {
        offset & (self.cluster() - 1) == 0
    }
}

/// The length of the header of version 3.
fn header_length(cluster: &[u8]) -> Result<usize, Unfit> {
    let length = be32(cluster, 100);
    let fits = usize::try_from(length)
        .ok()
        .filter(|length| (LONG..=cluster.len()).contains(length) && length.is_multiple_of(8));
    fits.ok_or_else(|| Unfit::damaged(100, format!("a header of {length} bytes")))
}

/// Where the name of the backing file is, and the name.
fn backing_name(cluster: &[u8]) -> Result<Option<(usize, &[u8])>, Unfit> {
    let (offset, length) = (be64(cluster, 8), be32(cluster, 16));
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    let at = usize::try_from(offset).ok();
    let name = at.filter(|_| length <= LONGEST_NAME).and_then(|at| {
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        Some((at, cluster.get(at..end)?))
    });
    let what = || format!("the name of a backing file, {length} bytes at byte {offset}");
    name.map(Some).ok_or_else(|| Unfit::damaged(8, what()))
}

/// The header's extensions that matter here.
#[derive(Default)]
struct Extensions {
    backing_format: Option<String>,
    /// The numbers of incompatible features, and their names.
    names: Vec<(u8, String)>,
}

impl Extensions {
    fn parse(cluster: &[u8], mut at: usize, end: usize) -> Result<Self, Unfit> {
        let mut found = Self::default();
        while at + 8 <= end {
            let (kind, length) = (be32(cluster, at), be32(cluster, at + 4));
            if kind == EXTENSION_END {
                break;
            }
            let bytes = usize::try_from(length)
                .ok()
                .and_then(|length| cluster[..end].get(at + 8..(at + 8).checked_add(length)?));
            let Some(bytes) = bytes else {
                let what = format!("an extension of the header of {length} bytes");
                return Err(Unfit::damaged(at as u64, what));
            };
            match kind {
                EXTENSION_BACKING_FORMAT => {
                    found.backing_format = Some(String::from_utf8_lossy(bytes).into_owned());
                }
                EXTENSION_FEATURE_NAMES => found.names = feature_names(bytes),
                _ => {}
            }
            at += 8 + bytes.len().next_multiple_of(8);
        }
        Ok(found)
    }

    fn name(&self, bit: u32) -> String {
        let named = self.names.iter().find(|(number, _)| u32::from(*number) == bit);
        named.map_or_else(|| format!("feature {bit}"), |(_, name)| format!("the feature '{name}'"))
    }
}

/// Entries of 48 bytes: the kind, of which 0 is incompatible; the number; the name.
fn feature_names(bytes: &[u8]) -> Vec<(u8, String)> {
    let incompatible = bytes.chunks_exact(48).filter(|entry| entry[0] == 0);
    let name = |entry: &[u8]| {
        let text = String::from_utf8_lossy(&entry[2..]);
        text.trim_end_matches('\0').to_owned()
    };
    incompatible.map(|entry| (entry[1], name(entry))).collect()
}

fn check_features(incompatible: u64, extensions: &Extensions) -> Result<(), Unfit> {
    if incompatible & CORRUPT != 0 {
        return Err(Unfit::Corrupt);
    }
    if incompatible & DIRTY != 0 {
        return Err(Unfit::Dirty);
    }
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(Unfit::unsupported("a data file beside the image"));
    }
    match incompatible & !(COMPRESSION_TYPE | EXTENDED_L2) {
        0 => Ok(()),
        unknown => Err(Unfit::unsupported(extensions.name(unknown.trailing_zeros()))),
    }
}
