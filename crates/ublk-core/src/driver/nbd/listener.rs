//! Lets clients in: a thread accepts connections, and another one negotiates with each client.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use ublk_nbd::wire::MAX_STRING;
use ublk_tls::{Identity, Role};

use super::address::Bound;
use super::door::{Guest, Permit, shut_down};
use super::state::Shared;
use super::{Address, Export, MAX_CONNECTIONS, Tls, hello};
use crate::bell::Bell;
use crate::error::{Code, Error, Result};
use crate::{signals, tls};

/// The most clients in negotiation; one client more ends the oldest negotiation.
const MOST_NEGOTIATING: usize = 32;
/// How long the thread waits where no connection can be accepted, in milliseconds.
const PAUSE_MS: i32 = 100;

/// The address of an export, and the clients that do not send requests yet.
#[derive(Debug)]
pub(super) struct Listener {
    /// The socket, until no client is let in any more.
    bound: Mutex<Option<Arc<Bound>>>,
    address: String,
    /// Accepts connections.
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) export: Export,
    /// Where clients must use TLS.
    pub(super) identity: Option<Identity>,
    bell: Bell,
    stopped: AtomicBool,
    negotiating: Mutex<VecDeque<(u64, Arc<OwnedFd>)>>,
    /// The number of clients so far.
    clients: AtomicU64,
    /// The number of clients in transmission.
    admitted: Arc<AtomicU32>,
}

impl Listener {
    pub(super) fn bind(export: Export) -> Result<Self> {
        let refuse = |message: String| Err(Error::new(Code::InvalidArgument, message));
        for (what, text) in [("name", &export.name), ("description", &export.description)] {
            if text.len() > MAX_STRING {
                return refuse(format!("the {what} of an export has at most {MAX_STRING} bytes"));
            }
        }
        if !(1..=MAX_CONNECTIONS).contains(&export.connections) {
            let most = format!("{}; it must be 1 to {MAX_CONNECTIONS}", export.connections);
            return refuse(format!("the number of connections is {most}"));
        }
        let bell = Bell::new().map_err(|error| {
            Error::os(Code::Kernel, "cannot make an eventfd for an export", "eventfd", &error)
        })?;
        let identity = export.tls.as_ref().map(|tls| identify(&export.address, tls)).transpose()?;
        let bound = Bound::bind(&export.address)?;
        Ok(Self {
            address: bound.describe(),
            bound: Mutex::new(Some(Arc::new(bound))),
            thread: Mutex::default(),
            export,
            identity,
            bell,
            stopped: AtomicBool::new(false),
            negotiating: Mutex::default(),
            clients: AtomicU64::new(0),
            admitted: Arc::default(),
        })
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// Lets no client in any more. Negotiations end.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.bell.ring();
        // The first caller waits until the thread has released the socket: another export can have the
        // address then.
        if let Some(bound) = lock(&self.bound).take() {
            bound.remove();
            let thread = lock(&self.thread).take();
            thread.into_iter().for_each(|thread| drop(thread.join()));
        }
        self.negotiations().iter().for_each(|(_, client)| shut_down(client, libc::SHUT_RDWR));
    }

    fn negotiations(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<OwnedFd>)>> {
        lock(&self.negotiating)
    }

    fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// A place among the connections, for a client that is about to send requests.
    pub(super) fn permit(&self) -> Option<Permit> {
        Permit::take(&self.admitted, self.export.connections.into())
    }

    /// Adds a negotiation, and ends the oldest where there are too many: silent clients hold nobody up.
    fn add(&self, client: OwnedFd) -> (u64, Arc<OwnedFd>) {
        // Relaxed: only unique.
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(client);
        let mut negotiating = self.negotiations();
        if negotiating.len() >= MOST_NEGOTIATING
            && let Some((_, oldest)) = negotiating.pop_front()
        {
            shut_down(&oldest, libc::SHUT_RDWR);
        }
        negotiating.push_back((number, Arc::clone(&client)));
        (number, client)
    }

    fn remove(&self, number: u64) {
        self.negotiations().retain(|(other, _)| *other != number);
    }

    /// Waits for the next client. None: no client is let in any more.
    fn next(&self, bound: &Bound) -> Option<OwnedFd> {
        loop {
            if self.has_stopped() {
                return None;
            }
            let (client, _) = wait(&[bound.as_fd().as_raw_fd(), self.bell.fd()], -1);
            if self.has_stopped() {
                return None;
            }
            if !client {
                continue;
            }
            match bound.accept() {
                Ok(client) => return Some(client),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                // Without a free descriptor, the client stays in the queue of the socket.
                Err(_) => drop(wait(&[self.bell.fd()], PAUSE_MS)),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(bound) = lock(&self.bound).take() {
            bound.remove();
        }
    }
}

/// Reads the certificates of an export with TLS.
fn identify(address: &Address, tls: &Tls) -> Result<Identity> {
    if matches!(address, Address::Unix(_)) {
        let message = "an export at a Unix socket and TLS exclude each other";
        return Err(Error::new(Code::InvalidArgument, message).hint(
            "the kernel has TLS for TCP only; the socket's permissions decide who connects",
        ));
    }
    Identity::read(&tls.certificates, Role::Server { anyone: tls.anyone })
        .map_err(|error| tls::explain(&"cannot export with TLS", &error))
}

/// Begins to let clients in.
///
/// # Errors
/// The errno of clone(2).
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let Some(bound) = lock(&shared.listener.bound).clone() else { return Ok(()) };
    let own = Arc::clone(shared);
    let accept = move || {
        signals::block();
        let weak = Arc::downgrade(&own);
        while let Some(client) = own.listener.next(&bound) {
            receive(&own, client, &weak);
        }
    };
    let thread = thread::Builder::new().name("ublk-nbd".into()).spawn(accept)?;
    *lock(&shared.listener.thread) = Some(thread);
    Ok(())
}

/// Negotiates with a client in a separate thread.
fn receive(shared: &Shared, client: OwnedFd, weak: &Weak<Shared>) {
    let (number, client) = shared.listener.add(client);
    let negotiator = thread::Builder::new().name("ublk-nbd-hello".into());
    let weak = Weak::clone(weak);
    let negotiate = move || {
        signals::block();
        let Some(shared) = weak.upgrade() else { return };
        let heard = hello::negotiate(&shared, &client);
        shared.listener.remove(number);
        // The list had the only other reference.
        if let (Some((choices, permit)), Some(socket)) = (heard, Arc::into_inner(client)) {
            let (headers, contexts) = (choices.headers, choices.contexts);
            let tls = shared.listener.identity.is_some();
            shared.admit(Guest { socket, tls, headers, contexts, permit });
        }
    };
    if negotiator.spawn(negotiate).is_err() {
        shared.listener.remove(number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the first or another descriptor can be read, or for `limit` milliseconds unless negative.
/// Returns whether the first can be read, and whether any can.
pub(super) fn wait(descriptors: &[RawFd], limit: i32) -> (bool, bool) {
    let poll = |&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polls: Vec<_> = descriptors.iter().map(poll).collect();
    // Fits: two descriptors at most.
    let count = polls.len() as libc::nfds_t;
    // SAFETY: `polls` has `count` entries and lives through the call.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), count, limit) };
    (ready > 0 && polls.first().is_some_and(|poll| poll.revents != 0), ready > 0)
}
