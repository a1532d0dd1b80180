//! The negotiation with a client, with TLS where the export asks for TLS, within a time limit.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ublk_nbd::server::limits::MAX_LENGTH;
use ublk_nbd::server::negotiation::{self, Export, Negotiation, OptionHeader, Step};
use ublk_nbd::wire::{length, option, option_reply};
use ublk_tls::Control;

use super::door::Permit;
use super::listener::wait;
use super::state::Shared;

/// How long a client has for the whole negotiation.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a client that is refused has to read why.
const PARTING: Duration = Duration::from_secs(1);
/// The most options of a negotiation.
const MOST_OPTIONS: usize = 1000;

/// Negotiates. None where the connection ends.
pub(super) fn negotiate(shared: &Shared, socket: &OwnedFd) -> Option<(Negotiation, Permit)> {
    let mut client = Client { socket, deadline: Instant::now() + LIMIT, tls: false };
    client.tell(&negotiation::greeting())?;
    let mut state = Negotiation::new(u32::from_be_bytes(client.hear()?))?;
    let mut replies = Vec::new();
    for _ in 0..MOST_OPTIONS {
        let header = OptionHeader::parse(&client.hear::<{ length::OPTION }>()?)?;
        let mut data = vec![0; header.length as usize];
        client.fill(&mut data)?;
        replies.clear();
        let facts = shared.facts();
        let told = &shared.listener.export;
        let export = Export {
            name: &told.name,
            description: &told.description,
            size: facts.size,
            flags: facts.flags(),
            tells_diff: shared.tells_diff(),
            blocks: [facts.block, facts.preferred.max(facts.block), MAX_LENGTH],
            tls: shared.listener.identity.is_some(),
        };
        match state.answer(&export, header.option, &data, &mut replies) {
            Step::Continue => client.tell(&replies)?,
            Step::Secure => {
                client.tell(&replies)?;
                let identity = shared.listener.identity.as_ref()?;
                if identity.secure(&mut client, socket.as_raw_fd()).is_err() {
                    client.part();
                    return None;
                }
                client.tls = true;
            }
            Step::Close => {
                client.tell(&replies)?;
                return None;
            }
            Step::Transmit => match shared.listener.permit() {
                Some(permit) => {
                    client.tell(&replies)?;
                    return Some((state, permit));
                }
                None if header.option == option::EXPORT_NAME => return None,
                None => {
                    let full = negotiation::refusal(header.option, option_reply::ERR_POLICY);
                    client.tell(&full)?;
                }
            },
        }
    }
    None
}

/// A client that has until the deadline.
struct Client<'a> {
    socket: &'a OwnedFd,
    deadline: Instant,
    /// The kernel encrypts and decrypts.
    tls: bool,
}

impl Client<'_> {
    fn hear<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.read_exact(bytes).ok()
    }

    fn tell(&mut self, bytes: &[u8]) -> Option<()> {
        self.write_all(bytes).ok()
    }

    /// Sends nothing more, and waits until the client ends the connection, for at most [`PARTING`]. The kernel resets a
    /// connection that is closed with bytes unread: the client would fail to send, and not read the alert that says why.
    fn part(&mut self) {
        // SAFETY: plain arguments. A socket that has lost its peer answers ENOTCONN.
        unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_WR) };
        self.deadline = self.deadline.min(Instant::now() + PARTING);
        while matches!(self.read(&mut [0; 4096]), Ok(1..)) {}
    }
}

impl Read for Client<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let fd = self.socket.as_raw_fd();
        loop {
            let left = self.deadline.checked_duration_since(Instant::now());
            let left = left.ok_or(io::ErrorKind::TimedOut)?;
            if !wait(&[fd], milliseconds(left)).1 {
                continue;
            }
            let flags = libc::MSG_DONTWAIT;
            // SAFETY: `bytes` has room for as many bytes.
            let count = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) };
            match usize::try_from(count) {
                Ok(count) => return Ok(count),
                Err(_) if would_block() => {}
                Err(_) => {
                    let error = io::Error::last_os_error();
                    let control = self.tls && error.raw_os_error() == Some(libc::EIO);
                    if !control || ublk_tls::control(fd)? != Control::Ignored {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// All replies of a negotiation fit into the buffer of a socket: a client that lets the buffer fill takes no
/// replies, and is sent away.
impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `bytes` has as many bytes.
        let count = unsafe {
            libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block() -> bool {
    let errno = io::Error::last_os_error().raw_os_error();
    matches!(errno, Some(libc::EAGAIN | libc::EINTR))
}

fn milliseconds(left: Duration) -> i32 {
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    use super::*;

    #[test]
    fn a_client_that_is_refused_while_it_sends_can_read_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.write_all(&[1; 100]).unwrap();
        let server = thread::spawn(move || {
            let socket = OwnedFd::from(listener.accept().unwrap().0);
            let deadline = Instant::now() + LIMIT;
            let mut client = Client { socket: &socket, deadline, tls: false };
            client.tell(b"why").unwrap();
            client.part();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(&[2; 100]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        server.join().unwrap();
        assert_eq!(heard, b"why");
        assert_eq!(stream.take_error().unwrap().map(|error| error.kind()), None);
    }
}
