//! The negotiation with a client, within a time limit.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ublk_nbd::server::limits::MAX_LENGTH;
use ublk_nbd::server::negotiation::{self, Export, Negotiation, OptionHeader, Step};
use ublk_nbd::wire::{length, option, option_reply};

use super::door::Permit;
use super::listener::wait;
use super::state::Shared;

/// How long a client has for the whole negotiation.
const LIMIT: Duration = Duration::from_secs(10);
/// The most options of a negotiation.
const MOST_OPTIONS: usize = 1000;

/// Negotiates. None where the connection ends.
pub(super) fn negotiate(shared: &Shared, socket: &OwnedFd) -> Option<(Negotiation, Permit)> {
    let mut client = Client { socket, deadline: Instant::now() + LIMIT };
    client.write(&negotiation::greeting())?;
    let mut state = Negotiation::new(u32::from_be_bytes(client.read()?))?;
    let mut replies = Vec::new();
    for _ in 0..MOST_OPTIONS {
        let header = OptionHeader::parse(&client.read::<{ length::OPTION }>()?)?;
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
        };
        match state.answer(&export, header.option, &data, &mut replies) {
            Step::Continue => client.write(&replies)?,
            Step::Close => {
                client.write(&replies)?;
                return None;
            }
            Step::Transmit => match shared.listener.permit() {
                Some(permit) => {
                    client.write(&replies)?;
                    return Some((state, permit));
                }
                None if header.option == option::EXPORT_NAME => return None,
                None => {
                    let full = negotiation::refusal(header.option, option_reply::ERR_POLICY);
                    client.write(&full)?;
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
}

impl Client<'_> {
    fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> Option<()> {
        while !bytes.is_empty() {
            let left = self.deadline.checked_duration_since(Instant::now())?;
            if !wait(&[self.socket.as_raw_fd()], milliseconds(left)).1 {
                continue;
            }
            // SAFETY: `bytes` has room for as many bytes.
            let count = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    bytes.as_mut_ptr().cast(),
                    bytes.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(count) {
                Ok(0) => return None,
                Ok(count) => bytes = &mut bytes[count..],
                Err(_) if would_block() => {}
                Err(_) => return None,
            }
        }
        Some(())
    }

    /// All replies of a negotiation fit into the buffer of a socket: a client that lets the buffer fill
    /// takes no replies.
    fn write(&mut self, bytes: &[u8]) -> Option<()> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `bytes` has as many bytes.
        let count = unsafe {
            libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
        };
        (usize::try_from(count) == Ok(bytes.len())).then_some(())
    }
}

fn would_block() -> bool {
    let errno = std::io::Error::last_os_error().raw_os_error();
    matches!(errno, Some(libc::EAGAIN | libc::EINTR))
}

fn milliseconds(left: Duration) -> i32 {
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1)
}
