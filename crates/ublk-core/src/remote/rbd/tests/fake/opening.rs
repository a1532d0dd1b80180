//! Connections, pools and images: opened, asked and closed.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{FAKES, Fake, fill, lock, of, text};
use crate::remote::rbd::api::{self, Info};

pub(super) unsafe extern "C" fn create(
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

pub(super) unsafe extern "C" fn read_file(cluster: api::Cluster, _path: *const c_char) -> c_int {
    // SAFETY: our handle.
    unsafe { of(cluster) }.manners.conf
}

pub(super) unsafe extern "C" fn get(
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
            "objecter_timeout" => fill(manners.objecter_timeout, to, length),
            "objecter_tick_interval" => fill("5.000000", to, length),
            "rbd_discard_granularity_bytes" => fill(manners.granularity, to, length),
            _ => -libc::ENOENT,
        }
    }
}

pub(super) unsafe extern "C" fn set(
    cluster: api::Cluster,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: our handle, strings of our caller.
    unsafe { lock(&of(cluster).settings).insert(text(name), text(value)) };
    0
}

pub(super) unsafe extern "C" fn connect(cluster: api::Cluster) -> c_int {
    // SAFETY: our handle.
    unsafe { of(cluster) }.manners.connect
}

pub(super) unsafe extern "C" fn close(handle: *mut c_void) {
    // SAFETY: our handle.
    unsafe { of(handle) }.handles.fetch_sub(1, Ordering::SeqCst);
}

pub(super) unsafe extern "C" fn close_image(handle: *mut c_void) -> c_int {
    // SAFETY: our handle.
    unsafe { close(handle) };
    0
}

pub(super) unsafe extern "C" fn fsid(
    _cluster: api::Cluster,
    to: *mut c_char,
    length: usize,
) -> c_int {
    // SAFETY: a buffer of our caller.
    unsafe { fill("F", to, length) }
}

pub(super) unsafe extern "C" fn pool(
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

pub(super) unsafe extern "C" fn namespace(_pool: api::Pool, _name: *const c_char) {}

pub(super) unsafe extern "C" fn pool_id(_pool: api::Pool) -> i64 {
    7
}

pub(super) unsafe extern "C" fn open(
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

pub(super) unsafe extern "C" fn stat(image: api::Image, to: *mut Info, length: usize) -> c_int {
    assert_eq!(length, size_of::<Info>());
    // SAFETY: our handle, a place of our caller.
    unsafe { ((*to).size, (*to).object_size) = (of(image).manners.size, 4 << 20) };
    0
}

pub(super) unsafe extern "C" fn size(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).size.load(Ordering::SeqCst) };
    0
}

pub(super) unsafe extern "C" fn id(_image: api::Image, to: *mut c_char, length: usize) -> c_int {
    // SAFETY: a buffer of our caller.
    unsafe { fill("100d", to, length) }
}

pub(super) unsafe extern "C" fn features(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).manners.features };
    0
}

pub(super) unsafe extern "C" fn stripe_unit(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).manners.stripe.0 };
    0
}

pub(super) unsafe extern "C" fn stripe_count(image: api::Image, to: *mut u64) -> c_int {
    // SAFETY: our handle, a place of our caller.
    unsafe { *to = of(image).manners.stripe.1 };
    0
}

pub(super) unsafe extern "C" fn take_lock(image: api::Image, mode: c_int) -> c_int {
    assert_eq!(mode, api::LOCK_EXCLUSIVE);
    // SAFETY: our handle.
    let fake = unsafe { of(image) };
    lock(&fake.settings).insert("locked".into(), "yes".into());
    fake.manners.lock
}
