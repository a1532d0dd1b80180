//! A librbd of this process: images in memory, with a thread that ends operations in any order.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::slice;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::remote::rbd::api::{self, Api, Callback, Completion, Info};

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

unsafe extern "C" fn create(
    to: *mut api::Cluster,
    cluster: *const c_char,
    user: *const c_char,
    _flags: u64,
) -> c_int {
    // SAFETY: strings of our caller.
    let (name, user) = unsafe { (text(cluster), text(user)) };
    let fake = lock(&FAKES).iter().find(|(one, _)| *one == name).unwrap().1.clone();
    lock(&fake.settings).insert("user".into(), user);
    fake.open(0, to)
}

unsafe extern "C" fn read_file(cluster: api::Cluster, _path: *const c_char) -> c_int {
    // SAFETY: our handle.
    unsafe { of(cluster) }.manners.conf
}

unsafe extern "C" fn get(
    cluster: api::Cluster,
    name: *const c_char,
    to: *mut c_char,
    length: usize,
) -> c_int {
    // SAFETY: our handle, a string and a buffer of our caller.
    unsafe {
        let manners = &of(cluster).manners;
        match text(name).as_str() {
            "rados_osd_op_timeout" => fill(manners.own_limit, to, length),
            "rbd_discard_granularity_bytes" => fill(manners.granularity, to, length),
            _ => -libc::ENOENT,
        }
    }
}

unsafe extern "C" fn set(
    cluster: api::Cluster,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: our handle, strings of our caller.
    unsafe { lock(&of(cluster).settings).insert(text(name), text(value)) };
    0
}

unsafe extern "C" fn connect(cluster: api::Cluster) -> c_int {
    // SAFETY: our handle.
    unsafe { of(cluster) }.manners.connect
}

unsafe extern "C" fn close(handle: *mut c_void) {
    // SAFETY: our handle.
    unsafe { of(handle) }.handles.fetch_sub(1, Ordering::SeqCst);
}

unsafe extern "C" fn close_image(handle: *mut c_void) -> c_int {
    // SAFETY: our handle.
    unsafe { close(handle) };
    0
}

unsafe extern "C" fn fsid(_cluster: api::Cluster, to: *mut c_char, length: usize) -> c_int {
    // SAFETY: a buffer of our caller.
    unsafe { fill("F", to, length) }
}

unsafe extern "C" fn pool(
    cluster: api::Cluster,
    _name: *const c_char,
    to: *mut api::Pool,
) -> c_int {
    // SAFETY: our handle, an Arc's.
    let fake = unsafe {
        Arc::increment_strong_count(cluster.cast::<Fake>());
        Arc::from_raw(cluster.cast::<Fake>())
    };
    fake.open(fake.manners.pool, to)
}

unsafe extern "C" fn namespace(_pool: api::Pool, _name: *const c_char) {}

unsafe extern "C" fn pool_id(_pool: api::Pool) -> i64 {
    7
}

unsafe extern "C" fn open(
    pool: api::Pool,
    _name: *const c_char,
    to: *mut api::Image,
    snapshot: *const c_char,
) -> c_int {
    // SAFETY: our handle, an Arc's.
    let fake = unsafe {
        Arc::increment_strong_count(pool.cast::<Fake>());
        Arc::from_raw(pool.cast::<Fake>())
    };
    drop(lock(&fake.gate));
    let result = match snapshot.is_null() {
        true => fake.manners.image,
        false => fake.manners.snapshot,
    };
    fake.open(result, to)
}

unsafe extern "C" fn stat(image: api::Image, to: *mut Info, length: usize) -> c_int {
    assert_eq!(length, size_of::<Info>());
    // SAFETY: our handle, a place of our caller.
    unsafe { ((*to).size, (*to).object_size) = (of(image).manners.size, 4 << 20) };
    0
}

unsafe extern "C" fn size(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).size.load(Ordering::SeqCst) };
    0
}

unsafe extern "C" fn id(_image: api::Image, to: *mut c_char, length: usize) -> c_int {
    // SAFETY: a buffer of our caller.
    unsafe { fill("100d", to, length) }
}

unsafe extern "C" fn features(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).manners.features };
    0
}

unsafe extern "C" fn stripe_unit(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).manners.stripe.0 };
    0
}

unsafe extern "C" fn stripe_count(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).manners.stripe.1 };
    0
}

unsafe extern "C" fn take_lock(image: api::Image, mode: c_int) -> c_int {
    assert_eq!(mode, api::LOCK_EXCLUSIVE);
    // SAFETY: our handle.
    let fake = unsafe { of(image) };
    lock(&fake.settings).insert("locked".into(), "yes".into());
    fake.manners.lock
}

unsafe extern "C" fn completion(
    argument: *mut c_void,
    callback: Option<Callback>,
    to: *mut Completion,
) -> c_int {
    let pending = Pending { callback: callback.unwrap(), argument, result: 0 };
    // SAFETY: a place of our caller.
    unsafe { *to = Box::into_raw(Box::new(pending)).cast() };
    0
}

unsafe extern "C" fn value(completion: Completion) -> isize {
    // SAFETY: a completion not released yet.
    isize::try_from(unsafe { (*completion.cast::<Pending>()).result }).unwrap()
}

unsafe extern "C" fn release(completion: Completion) {
    // SAFETY: a completion, for the last time.
    drop(unsafe { Box::from_raw(completion.cast::<Pending>()) });
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let begin = usize::try_from(offset).unwrap();
    begin..begin + length
}

unsafe extern "C" fn read(
    image: api::Image,
    offset: u64,
    length: usize,
    to: *mut c_char,
    completion: Completion,
) -> c_int {
    // SAFETY: our handle, a buffer of our caller.
    let (fake, to) = unsafe { (of(image), slice::from_raw_parts_mut(to.cast::<u8>(), length)) };
    fake.carry_out(Did::Read, completion, |disk| {
        to.copy_from_slice(&disk[range(offset, length)]);
        i64::try_from(length).unwrap()
    })
}

unsafe extern "C" fn write(
    image: api::Image,
    offset: u64,
    length: usize,
    from: *const c_char,
    completion: Completion,
) -> c_int {
    // SAFETY: our handle, a buffer of our caller.
    let (fake, from) = unsafe { (of(image), slice::from_raw_parts(from.cast::<u8>(), length)) };
    fake.carry_out(Did::Write, completion, |disk| {
        disk[range(offset, length)].copy_from_slice(from);
        0
    })
}

unsafe extern "C" fn discard(
    image: api::Image,
    _offset: u64,
    _length: u64,
    completion: Completion,
) -> c_int {
    // SAFETY: our handle.
    unsafe { of(image) }.carry_out(Did::Discard, completion, |_| 0)
}

unsafe extern "C" fn zeroes(
    image: api::Image,
    offset: u64,
    length: usize,
    completion: Completion,
    flags: c_int,
    _op_flags: c_int,
) -> c_int {
    // SAFETY: our handle.
    unsafe { of(image) }.carry_out(Did::Zeroes(flags), completion, |disk| {
        disk[range(offset, length)].fill(0);
        0
    })
}

unsafe extern "C" fn flush(image: api::Image, completion: Completion) -> c_int {
    // SAFETY: our handle.
    unsafe { of(image) }.carry_out(Did::Flush, completion, |_| 0)
}

pub(super) static API: Api = Api {
    rados_create2: create,
    rados_conf_read_file: read_file,
    rados_conf_get: get,
    rados_conf_set: set,
    rados_connect: connect,
    rados_shutdown: close,
    rados_cluster_fsid: fsid,
    rados_ioctx_create: pool,
    rados_ioctx_set_namespace: namespace,
    rados_ioctx_get_id: pool_id,
    rados_ioctx_destroy: close,
    rbd_open: open,
    rbd_open_read_only: open,
    rbd_close: close_image,
    rbd_stat: stat,
    rbd_get_size: size,
    rbd_get_id: id,
    rbd_get_features: features,
    rbd_get_stripe_unit: stripe_unit,
    rbd_get_stripe_count: stripe_count,
    rbd_lock_acquire: take_lock,
    rbd_aio_create_completion: completion,
    rbd_aio_get_return_value: value,
    rbd_aio_release: release,
    rbd_aio_read: read,
    rbd_aio_write: write,
    rbd_aio_discard: discard,
    rbd_aio_write_zeroes: zeroes,
    rbd_aio_flush: flush,
};
