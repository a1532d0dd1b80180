//! The handshake: records one by one, so that no byte behind the handshake is taken from the socket.

use std::io::{self, Read, Write};

use rustls::{Connection, ExtractedSecrets};

use super::TlsError;

/// The header of a record: type, version, length.
const HEADER: usize = 5;
/// The longest record: 16 KiB, and what encryption adds.
const LONGEST: usize = (16 << 10) + 256;

/// Shakes hands; the next bytes of the stream are records with the keys returned.
pub(super) fn shake_hands(
    stream: &mut (impl Read + Write),
    mut connection: Connection,
) -> Result<ExtractedSecrets, TlsError> {
    let mut record = Vec::new();
    loop {
        send(stream, &mut connection)?;
        if !connection.is_handshaking() {
            return Ok(connection.dangerous_extract_secrets()?);
        }
        read_record(stream, &mut record)?;
        let mut bytes = record.as_slice();
        while !bytes.is_empty() {
            connection.read_tls(&mut bytes)?;
        }
        if let Err(error) = connection.process_new_packets() {
            // The alert tells the peer why; the connection has failed with or without the alert.
            let _untold = send(stream, &mut connection);
            return Err(error.into());
        }
    }
}

fn send(stream: &mut impl Write, connection: &mut Connection) -> io::Result<()> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    stream.write_all(&bytes)
}

fn read_record(stream: &mut impl Read, record: &mut Vec<u8>) -> io::Result<()> {
    record.resize(HEADER, 0);
    stream.read_exact(record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak TLS"));
    }
    record.resize(HEADER + length, 0);
    stream.read_exact(&mut record[HEADER..])
}
