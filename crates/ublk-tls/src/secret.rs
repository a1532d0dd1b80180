//! The keys of a connection, as the kernel takes the keys.

use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

/// `struct tls12_crypto_info_chacha20_poly1305` of `linux/tls.h`: version, cipher, nonce, key, no salt, and
/// the number of the next record.
pub(super) const LENGTH: usize = 2 + 2 + 12 + 32 + 8;

const TLS_1_3: u16 = 0x0304;
const CHACHA20_POLY1305: u16 = 54;

/// The bytes for `setsockopt`, wiped when dropped, as rustls wipes its own. None for a cipher that was not
/// offered.
pub(super) fn bytes(
    (record, secrets): &(u64, ConnectionTrafficSecrets),
) -> Option<Zeroizing<[u8; LENGTH]>> {
    let ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } = secrets else { return None };
    let mut bytes = Zeroizing::new([0; LENGTH]);
    bytes[..2].copy_from_slice(&TLS_1_3.to_ne_bytes());
    bytes[2..4].copy_from_slice(&CHACHA20_POLY1305.to_ne_bytes());
    bytes[4..16].copy_from_slice(iv.as_ref());
    bytes[16..48].copy_from_slice(key.as_ref());
    bytes[48..].copy_from_slice(&record.to_be_bytes());
    Some(bytes)
}
