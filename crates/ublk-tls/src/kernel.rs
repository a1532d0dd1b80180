//! The kernel's part: TLS on a connected TCP socket (`Documentation/networking/tls.rst`).

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::TlsError;
use super::secret;

const TCP_ULP: i32 = 31;
const SOL_TLS: i32 = 282;
const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;
const TLS_GET_RECORD_TYPE: i32 = 2;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// The first byte of a handshake message for later sessions, which no session here uses.
const NEW_SESSION_TICKET: u8 = 4;
/// The description of the alert that ends a connection in order.
const CLOSE_NOTIFY: u8 = 0;

/// Whether this machine's kernel can carry TLS. Loads the kernel's module where this process may.
///
/// # Errors
/// [`TlsError::Kernel`].
pub(super) fn check() -> Result<(), TlsError> {
    // SAFETY: plain arguments.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(TlsError::Kernel { call: "socket", error: io::Error::last_os_error() });
    }
    // SAFETY: new, valid, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    match prepare(socket.as_raw_fd()) {
        // The kernel has TLS, for sockets that are connected.
        Err(TlsError::Kernel { error, .. }) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            Ok(())
        }
        other => other,
    }
}

/// Lets a connected socket take keys. Bytes stay plain until then.
pub(super) fn prepare(fd: RawFd) -> Result<(), TlsError> {
    set(fd, libc::IPPROTO_TCP, TCP_ULP, b"tls")
}

/// Hands the keys of both directions to the kernel.
pub(super) fn begin(fd: RawFd, secrets: &rustls::ExtractedSecrets) -> Result<(), TlsError> {
    for (direction, secret) in [(TLS_TX, &secrets.tx), (TLS_RX, &secrets.rx)] {
        let unknown = || rustls::Error::General("a cipher that was not offered".into());
        let keys = secret::bytes(secret).ok_or_else(unknown)?;
        set(fd, SOL_TLS, direction, keys.as_slice())?;
    }
    Ok(())
}

fn set(fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<(), TlsError> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    // SAFETY: reads `length` bytes of `value`.
    match unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(TlsError::Kernel { call: "setsockopt", error: io::Error::last_os_error() }),
    }
}

/// A record that is no data, and what becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The connection goes on.
    Ignored,
    /// The peer sends nothing any more. A peer, or whoever cuts the connection, may also end the stream without
    /// saying so (`close_notify`): the user of the stream must know from its contents whether the stream is whole,
    /// as NBD does by the lengths of its messages.
    Closed,
    /// The connection cannot go on: an alert with this description, or new keys, which the kernel's socket
    /// does not take on all releases (absent).
    Broken(Option<u8>),
}

/// Takes the record that is no data, after a receive failed with `EIO`. Never waits.
///
/// # Errors
/// The errno of recvmsg(2): the failure had another reason.
pub fn control(fd: RawFd) -> io::Result<Control> {
    // The longest record.
    let mut data = vec![0_u8; 1 << 14];
    let mut room = [0_u64; 8];
    let mut vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all zeros is a message of nothing.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    #[allow(clippy::cast_possible_truncation, reason = "64")]
    #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
    {
        message.msg_controllen = size_of_val(&room) as _;
    }
    // SAFETY: a message with memory of this frame.
    let count = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the message.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        // The kernel names the type of each record: without a type, there is no record, and the stream has ended.
        return Ok(if count == 0 { Control::Closed } else { Control::Broken(None) });
    }
    // SAFETY: a header inside `room`; the data of a record's type is a byte.
    let (level, kind, record) =
        unsafe { ((*header).cmsg_level, (*header).cmsg_type, *libc::CMSG_DATA(header)) };
    if (level, kind) != (SOL_TLS, TLS_GET_RECORD_TYPE) {
        return Ok(Control::Broken(None));
    }
    Ok(judge(record, &data[..count]))
}

fn judge(record: u8, data: &[u8]) -> Control {
    match (record, data) {
        (ALERT, [_, CLOSE_NOTIFY]) => Control::Closed,
        (ALERT, [_, description]) => Control::Broken(Some(*description)),
        (HANDSHAKE, [NEW_SESSION_TICKET, ..]) => Control::Ignored,
        _ => Control::Broken(None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn tickets_are_ignored_and_alerts_and_new_keys_are_not() {
        assert_eq!(judge(HANDSHAKE, &[NEW_SESSION_TICKET, 0, 0, 1, 9]), Control::Ignored);
        assert_eq!(judge(HANDSHAKE, &[24, 0, 0, 1, 0]), Control::Broken(None), "new keys");
        assert_eq!(judge(ALERT, &[1, 0]), Control::Closed);
        assert_eq!(judge(ALERT, &[2, 116]), Control::Broken(Some(116)));
        assert_eq!(judge(ALERT, &[]), Control::Broken(None));
        assert_eq!(judge(23, &[1]), Control::Broken(None));
    }

    #[test]
    fn bytes_without_the_type_of_a_record_are_not_the_end_of_the_stream() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(&[1, 2]).unwrap();
        assert_eq!(control(ours.as_raw_fd()).unwrap(), Control::Broken(None));
        drop(peer);
        assert_eq!(control(ours.as_raw_fd()).unwrap(), Control::Closed);
    }
}
