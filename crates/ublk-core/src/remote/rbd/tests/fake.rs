//! A librbd of this process: images in memory, with a thread that ends operations in any order.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::remote::rbd::api::{Api, Callback, Completion};

mod opening;
mod operations;

/// What a cluster answers when an image is opened, and what the image is.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) conf: c_int,
    pub(super) connect: c_int,
    pub(super) pool: c_int,
    pub(super) image: c_int,
    /// Of the image with a snapshot.
    pub(super) snapshot: c_int,
    pub(super) lock: c_int,
    pub(super) features: u64,
    pub(super) size: u64,
    pub(super) stripe: (u64, u64),
    pub(super) granularity: &'static str,
    /// The limit of operations in the configuration.
    pub(super) own_limit: &'static str,
    /// In the configuration.
    pub(super) objecter_timeout: &'static str,
    pub(super) seed: u64,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            conf: 0,
            connect: 0,
            pool: 0,
            image: 0,
            snapshot: 0,
            lock: 0,
            features: 4,
            size: 1 << 20,
            stripe: (4 << 20, 1),
            granularity: "65536",
            own_limit: "0",
            objecter_timeout: "10.000000",
            seed: 0,
        }
    }
}

/// An operation on the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Did {
    Read,
    Write,
    Discard,
    Zeroes(c_int),
    Flush,
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) manners: Manners,
    pub(super) disk: Mutex<Vec<u8>>,
    pub(super) log: Mutex<Vec<Did>>,
    pub(super) settings: Mutex<HashMap<String, String>>,
    /// The results of the next operations of a kind; positive: what a read returns.
    pub(super) failures: Mutex<HashMap<Did, VecDeque<i64>>>,
    /// librbd refuses the next operations with these results.
    pub(super) refusals: Mutex<VecDeque<c_int>>,
    pub(super) size: AtomicU64,
    /// Handles that are open, of any kind.
    pub(super) handles: AtomicI64,
    /// Opening the image waits while this is locked.
    pub(super) gate: Mutex<()>,
    ends: Mutex<Sender<End>>,
}

struct End {
    completion: usize,
    result: i64,
}

struct Pending {
    callback: Callback,
    argument: *mut c_void,
    result: i64,
}

static FAKES: Mutex<Vec<(String, Arc<Fake>)>> = Mutex::new(Vec::new());

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Fake {
    /// A cluster of this name.
    pub(super) fn new(name: &str, manners: Manners) -> Arc<Self> {
        let (tell, told) = channel();
        let (size, seed) = (manners.size, manners.seed);
        let fake = Arc::new(Self {
            disk: Mutex::new(vec![0xee; usize::try_from(size).unwrap()]),
            manners,
            log: Mutex::default(),
            settings: Mutex::default(),
            failures: Mutex::default(),
            refusals: Mutex::default(),
            size: AtomicU64::new(size),
            handles: AtomicI64::new(0),
            gate: Mutex::new(()),
            ends: Mutex::new(tell),
        });
        thread::spawn(move || end_all(&told, seed));
        lock(&FAKES).push((name.into(), Arc::clone(&fake)));
        fake
    }

    fn open<T>(self: &Arc<Self>, result: c_int, to: *mut *mut T) -> c_int {
        if result >= 0 {
            self.handles.fetch_add(1, Ordering::SeqCst);
            // SAFETY: our caller's place for a handle.
            unsafe { *to = Arc::as_ptr(self).cast_mut().cast() };
        }
        result
    }

    fn carry_out(
        &self,
        did: Did,
        completion: Completion,
        act: impl FnOnce(&mut [u8]) -> i64,
    ) -> c_int {
        if let Some(refusal) = lock(&self.refusals).pop_front() {
            return refusal;
        }
        lock(&self.log).push(did);
        let failure = lock(&self.failures).get_mut(&did).and_then(VecDeque::pop_front);
        let result = failure.unwrap_or_else(|| act(&mut lock(&self.disk)));
        lock(&self.ends).send(End { completion: completion as usize, result }).unwrap();
        0
    }

    pub(super) fn fail(&self, did: Did, result: i64) {
        lock(&self.failures).entry(did).or_default().push_back(result);
    }
}

/// Ends operations in any order, as many at a time as there are.
fn end_all(told: &Receiver<End>, seed: u64) {
    let mut state = seed;
    while let Ok(first) = told.recv() {
        let mut all = vec![first];
        all.extend(told.try_iter());
        while !all.is_empty() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
            let at = usize::try_from(state >> 33).unwrap() % all.len();
            let End { completion, result } = all.swap_remove(at);
            let pending = completion as *mut Pending;
            // SAFETY: a completion that is not released yet.
            unsafe {
                (*pending).result = result;
                let (callback, argument) = ((*pending).callback, (*pending).argument);
                callback(completion as Completion, argument);
            }
        }
    }
}

/// # Safety
/// A handle of a fake.
unsafe fn of<'a>(handle: *mut c_void) -> &'a Fake {
    // SAFETY: fakes stay until the process ends.
    unsafe { &*handle.cast::<Fake>() }
}

/// # Safety
/// A string with an end.
unsafe fn text(string: *const c_char) -> String {
    // SAFETY: passed on to our caller.
    unsafe { CStr::from_ptr(string) }.to_str().unwrap().to_owned()
}

/// # Safety
/// A buffer of the length.
unsafe fn fill(text: &str, buffer: *mut c_char, length: usize) -> c_int {
    assert!(text.len() < length);
    // SAFETY: inside the buffer.
    unsafe {
        buffer.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        *buffer.add(text.len()) = 0;
    }
    0
}

pub(super) static API: Api = Api {
    rados_create2: opening::create,
    rados_conf_read_file: opening::read_file,
    rados_conf_get: opening::get,
    rados_conf_set: opening::set,
    rados_connect: opening::connect,
    rados_shutdown: opening::close,
    rados_cluster_fsid: opening::fsid,
    rados_ioctx_create: opening::pool,
    rados_ioctx_set_namespace: opening::namespace,
    rados_ioctx_get_id: opening::pool_id,
    rados_ioctx_destroy: opening::close,
    rbd_open: opening::open,
    rbd_open_read_only: opening::open,
    rbd_close: opening::close_image,
    rbd_stat: opening::stat,
    rbd_get_size: opening::size,
    rbd_get_id: opening::id,
    rbd_get_features: opening::features,
    rbd_get_stripe_unit: opening::stripe_unit,
    rbd_get_stripe_count: opening::stripe_count,
    rbd_lock_acquire: opening::take_lock,
    rbd_aio_create_completion: operations::completion,
    rbd_aio_get_return_value: operations::value,
    rbd_aio_release: operations::release,
    rbd_aio_read: operations::read,
    rbd_aio_write: operations::write,
    rbd_aio_discard: operations::discard,
    rbd_aio_write_zeroes: operations::zeroes,
    rbd_aio_flush: operations::flush,
};
