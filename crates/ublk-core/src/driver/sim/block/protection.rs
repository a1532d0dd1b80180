//! Metadata as the block layer makes and checks it (`block/bio-integrity-auto.c`, `block/t10-pi.c`): of a
//! client that brings none of its own, every write has protection information, and that of every read is
//! compared with the data.

use ublk_sys::{
    LBMD_PI_CAP_REFTAG, LBMD_PI_CSUM_CRC16_T10DIF, LBMD_PI_CSUM_CRC64_NVME, LBMD_PI_CSUM_IP,
    LBMD_PI_CSUM_NONE, ublk_param_integrity,
};

/// The metadata of a write at `offset`, in bytes: protection information, and zeros.
pub(crate) fn generate(format: &ublk_param_integrity, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut made = Vec::new();
    for (block, data) in blocks(format, offset, data) {
        let mut metadata = vec![0; format.metadata_size.into()];
        if let Some(tuple) = tuple(format, block, data, &metadata) {
            let at = usize::from(format.pi_offset);
            metadata[at..at + tuple.len()].copy_from_slice(&tuple);
        }
        made.extend(metadata);
    }
    made
}

/// Compares what a read at `offset` has brought.
///
/// # Errors
/// `EILSEQ` (`BLK_STS_PROTECTION`) when the data is not what its metadata says.
pub(crate) fn verify(
    format: &ublk_param_integrity,
    offset: u64,
    data: &[u8],
    metadata: &[u8],
) -> Result<(), i32> {
    let pieces = metadata.chunks_exact(format.metadata_size.max(1).into());
    for ((block, data), metadata) in blocks(format, offset, data).zip(pieces) {
        let Some(expected) = tuple(format, block, data, metadata) else { continue };
        let found = &metadata[format.pi_offset.into()..][..expected.len()];
        let (guard, tags) = if expected.len() == 8 { (2, 4) } else { (8, 10) };
        let ones = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0xff);
        let never_written =
            ones(&found[guard..tags]) && (counts_blocks(format) || ones(&found[tags..]));
        let same = found[..guard] == expected[..guard]
            && (!counts_blocks(format) || found[tags..] == expected[tags..]);
        if !never_written && !same {
            return Err(libc::EILSEQ);
        }
    }
    Ok(())
}

fn counts_blocks(format: &ublk_param_integrity) -> bool {
    format.flags & LBMD_PI_CAP_REFTAG != 0
}

/// The intervals of the data, with their numbers.
fn blocks<'a>(
    format: &ublk_param_integrity,
    offset: u64,
    data: &'a [u8],
) -> impl Iterator<Item = (u64, &'a [u8])> {
    let interval = 1 << format.interval_exp;
    (offset >> format.interval_exp..).zip(data.chunks_exact(interval))
}

/// Guard, application tag of zeros, reference tag; all that lies before it in the metadata is guarded too.
fn tuple(
    format: &ublk_param_integrity,
    block: u64,
    data: &[u8],
    metadata: &[u8],
) -> Option<Vec<u8>> {
    let block = if counts_blocks(format) { block } else { 0 }.to_be_bytes();
    let guarded = || data.iter().chain(&metadata[..format.pi_offset.into()]).copied();
    match format.csum_type {
        LBMD_PI_CSUM_NONE => None,
        LBMD_PI_CSUM_CRC64_NVME => {
            Some([&crc64(guarded()).to_be_bytes()[..], &[0; 2], &block[2..]].concat())
        }
        kind => {
            let guard = match kind {
                LBMD_PI_CSUM_IP => ip(guarded()).to_be_bytes(),
                LBMD_PI_CSUM_CRC16_T10DIF => crc16(guarded()).to_be_bytes(),
                other => panic!("the kernel refuses checksums of kind {other}"),
            };
            Some([&guard[..], &[0; 2], &block[4..]].concat())
        }
    }
}

/// Polynomial 0x8bb7, nothing reflected, from 0.
fn crc16(bytes: impl Iterator<Item = u8>) -> u16 {
    bytes.fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x8bb7,
        })
    })
}

/// Polynomial 0xad93d23594c93659, reflected, from all ones, and inverted.
fn crc64(bytes: impl Iterator<Item = u8>) -> u64 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => crc >> 1 ^ 0x9a6c_9329_ac4b_c9b5,
        })
    })
}

/// The ones' complement of the ones' complement sum of words.
fn ip(bytes: impl Iterator<Item = u8>) -> u16 {
    let mut high = true;
    let sum = bytes.fold(0_u64, |sum, byte| {
        let word = if high { u64::from(byte) << 8 } else { byte.into() };
        high = !high;
        sum + word
    });
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::driver::sim::block::protection::*;

    const FORMAT: ublk_param_integrity = ublk_param_integrity {
        flags: LBMD_PI_CAP_REFTAG,
        max_integrity_segments: 0,
        interval_exp: 9,
        metadata_size: 8,
        pi_offset: 0,
        csum_type: LBMD_PI_CSUM_CRC16_T10DIF,
        tag_size: 0,
        pad: [0; 5],
    };

    #[test]
    fn checksums_are_those_of_their_standards() {
        let check = || *b"123456789";
        assert_eq!(crc16(check().into_iter()), 0xd0db);
        assert_eq!(crc64(check().into_iter()), 0xae8b_1486_0a79_9888);
        // RFC 1071, section 3.
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(ip(words.into_iter()), !0xddf2);
    }

    #[test]
    fn what_was_written_is_found_right_and_everything_else_is_not() {
        let kinds = [(LBMD_PI_CSUM_IP, 8), (FORMAT.csum_type, 8), (LBMD_PI_CSUM_CRC64_NVME, 16)];
        for ((csum_type, tuple), extra) in kinds.into_iter().zip([0, 4, 8]) {
            let sizes = (tuple + extra, extra);
            let format = ublk_param_integrity {
                csum_type,
                metadata_size: sizes.0,
                pi_offset: sizes.1,
                ..FORMAT
            };
            let data: Vec<u8> = (0..1024_u32).map(|at| at.to_le_bytes()[0] ^ 7).collect();
            let metadata = generate(&format, 5120, &data);
            assert_eq!(metadata.len(), 2 * usize::from(sizes.0));
            assert_eq!(verify(&format, 5120, &data, &metadata), Ok(()));
            assert_eq!(verify(&format, 512, &data, &metadata), Err(libc::EILSEQ), "another place");
            for at in 0..2 {
                let mut other = [data.clone(), metadata.clone()];
                other[at][0] ^= 1;
                let [data, metadata] = other;
                assert_eq!(verify(&format, 5120, &data, &metadata), Err(libc::EILSEQ));
            }
            let fresh = vec![0xff; metadata.len()];
            assert_eq!(verify(&format, 5120, &data, &fresh), Ok(()), "never written");
        }
    }

    #[test]
    fn without_a_checksum_there_are_zeros_that_nobody_checks() {
        let format = ublk_param_integrity { flags: 0, csum_type: LBMD_PI_CSUM_NONE, ..FORMAT };
        assert_eq!(generate(&format, 0, &[1; 1024]), [0; 16]);
        assert_eq!(verify(&format, 0, &[1; 1024], &[3; 16]), Ok(()));
    }
}
