//! The thread that hears the news of all devices of the process.
//!
//! The supervisor never blocks: a device whose service may be ending is handed over to a thread that may
//! (`aside`). So no device waits for another one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::supervise::Event;
use crate::aside;
use crate::error::{Error, Result};
use crate::signals;

/// A device in the supervisor's care.
pub(super) trait Charge: Send {
    /// Takes the news of the device; whether a thread must look after the device now. Does not block.
    fn is_due(&mut self) -> bool;

    /// Gives the device to a thread that may block.
    fn hand_over(self: Box<Self>);
}

enum Message {
    /// There is news of a device.
    News(u64),
    /// A device comes into the supervisor's care.
    Entrusted(u64, Box<dyn Charge>),
}

/// The place of one device at the supervisor.
#[derive(Clone, Debug)]
pub(super) struct Post {
    number: u64,
    supervisor: Sender<Message>,
}

/// Sends events of a device, and lets the supervisor know.
#[derive(Clone, Debug)]
pub(super) struct Events {
    device: Sender<Event>,
    post: Post,
}

impl Post {
    /// A place for a device that is about to be served. Starts the supervisor of the process, and a
    /// thread for the end of devices, so a served device has both.
    ///
    /// # Errors
    /// The error of clone(2).
    pub(super) fn open() -> Result<Self> {
        static SUPERVISOR: Mutex<Option<Sender<Message>>> = Mutex::new(None);
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let mut supervisor = SUPERVISOR.lock().unwrap_or_else(PoisonError::into_inner);
        let supervisor = match &*supervisor {
            Some(there) => there.clone(),
            None => supervisor.insert(start().map_err(|error| Error::no_thread(&error))?).clone(),
        };
        Ok(Self { number: NUMBERS.fetch_add(1, Ordering::Relaxed), supervisor })
    }

    /// Gives the device into the supervisor's care.
    pub(super) fn entrust(&self, device: Box<dyn Charge>) {
        self.send(Message::Entrusted(self.number, device));
    }

    fn send(&self, message: Message) {
        // The supervisor lives as long as the process.
        let _heard = self.supervisor.send(message);
    }
}

impl Events {
    /// The events of the device at `post`, and the receiver of the events.
    pub(super) fn new(post: Post) -> (Self, Receiver<Event>) {
        let (device, inbox) = channel();
        (Self { device, post }, inbox)
    }

    /// Sends an event.
    ///
    /// # Errors
    /// The event, where the device has ended.
    pub(super) fn send(&self, event: Event) -> std::result::Result<(), SendError<Event>> {
        self.device.send(event)?;
        self.post.send(Message::News(self.post.number));
        Ok(())
    }
}

fn start() -> std::io::Result<Sender<Message>> {
    aside::prepare()?;
    let (supervisor, inbox) = channel();
    thread::Builder::new().name("ublk-supervisor".into()).spawn(move || {
        signals::block();
        supervise(&inbox);
    })?;
    Ok(supervisor)
}

fn supervise(inbox: &Receiver<Message>) {
    let mut devices = HashMap::new();
    for message in inbox {
        let (number, device) = match message {
            Message::Entrusted(number, device) => (number, Some(device)),
            // Absent while the device is being created, or a thread looks after the device: that
            // thread takes the news, or the supervisor does when the device is entrusted.
            Message::News(number) => (number, devices.remove(&number)),
        };
        let Some(mut device) = device else { continue };
        if device.is_due() {
            device.hand_over();
        } else {
            devices.insert(number, device);
        }
    }
}
