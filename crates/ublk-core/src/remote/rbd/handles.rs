//! The handles of librados and librbd, each closed when dropped. Closing blocks.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use super::api::{self, Api, Info};
use super::exit::Counted;

/// A connection to a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) api: &'static Api,
    handle: api::Cluster,
    /// Dropped after the connection has been shut down.
    _counted: Counted,
}

/// A pool and a namespace of a cluster.
#[derive(Debug)]
pub(super) struct Pool {
    handle: api::Pool,
    cluster: Cluster,
}

/// An open image of a pool.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) handle: api::Image,
    pub(super) pool: Pool,
}

// SAFETY: librados and librbd allow calls on a handle from any thread, at the same time.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

/// Ceph's functions return negative errnos.
fn check(result: c_int) -> Result<(), i32> {
    if result < 0 { Err(result) } else { Ok(()) }
}

/// A string from a function that fills a buffer.
fn text(fill: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<String, i32> {
    let mut buffer: [c_char; 256] = [0; 256];
    check(fill(buffer.as_mut_ptr(), buffer.len() - 1))?;
    // SAFETY: the last byte is zero whatever the function has written.
    Ok(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}

impl Cluster {
    /// A connection not made yet: `name` is a user with type, `client.admin`.
    pub(super) fn new(api: &'static Api, cluster: &CStr, name: &CStr) -> Result<Self, i32> {
        let (mut handle, counted) = (ptr::null_mut(), Counted::new());
        // SAFETY: strings with an end, and a place for the handle.
        let made =
            unsafe { (api.rados_create2)(&raw mut handle, cluster.as_ptr(), name.as_ptr(), 0) };
        check(made).map(|()| Self { api, handle, _counted: counted })
    }

    /// Reads a file of settings; the files that Ceph looks for by itself without a path.
    pub(super) fn read_settings(&self, path: Option<&CStr>) -> Result<(), i32> {
        let path = path.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: our handle; a string with an end, or null.
        check(unsafe { (self.api.rados_conf_read_file)(self.handle, path) })
    }

    pub(super) fn set(&self, name: &CStr, value: &CStr) -> Result<(), i32> {
        // SAFETY: our handle, strings with an end.
        check(unsafe { (self.api.rados_conf_set)(self.handle, name.as_ptr(), value.as_ptr()) })
    }

    pub(super) fn get(&self, name: &CStr) -> Result<String, i32> {
        // SAFETY: our handle, a string with an end, a buffer and its length.
        text(|buffer, length| unsafe {
            (self.api.rados_conf_get)(self.handle, name.as_ptr(), buffer, length)
        })
    }

    pub(super) fn connect(&self) -> Result<(), i32> {
        // SAFETY: our handle.
        check(unsafe { (self.api.rados_connect)(self.handle) })
    }

    pub(super) fn fsid(&self) -> Result<String, i32> {
        // SAFETY: our handle, a buffer and its length.
        text(|buffer, length| unsafe { (self.api.rados_cluster_fsid)(self.handle, buffer, length) })
    }

    pub(super) fn open_pool(self, name: &CStr, namespace: &CStr) -> Result<Pool, i32> {
        let mut handle = ptr::null_mut();
        // SAFETY: our handle, a string with an end, and a place for the pool's.
        check(unsafe {
            (self.api.rados_ioctx_create)(self.handle, name.as_ptr(), &raw mut handle)
        })?;
        // SAFETY: the pool's handle, a string with an end.
        unsafe { (self.api.rados_ioctx_set_namespace)(handle, namespace.as_ptr()) };
        Ok(Pool { handle, cluster: self })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: our handle, and the last use.
        unsafe { (self.api.rados_shutdown)(self.handle) };
    }
}

impl Pool {
    pub(super) fn id(&self) -> i64 {
        // SAFETY: our handle.
        unsafe { (self.cluster.api.rados_ioctx_get_id)(self.handle) }
    }

    /// Opens an image, or a snapshot of an image; returns the pool where that fails.
    pub(super) fn open_image(
        self,
        name: &CStr,
        snapshot: Option<&CString>,
        read_only: bool,
    ) -> Result<Image, (i32, Self)> {
        let api = self.cluster.api;
        let open = if read_only { api.rbd_open_read_only } else { api.rbd_open };
        let snapshot = snapshot.map_or(ptr::null(), |name| name.as_ptr());
        let mut handle = ptr::null_mut();
        // SAFETY: our handle, strings with an end, and a place for the image's handle.
        match check(unsafe { open(self.handle, name.as_ptr(), &raw mut handle, snapshot) }) {
            Ok(()) => Ok(Image { handle, pool: self }),
            Err(error) => Err((error, self)),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: our handle, and the last use. The cluster is dropped later.
        unsafe { (self.cluster.api.rados_ioctx_destroy)(self.handle) };
    }
}

impl Image {
    pub(super) fn api(&self) -> &'static Api {
        self.pool.cluster.api
    }

    pub(super) fn info(&self) -> Result<Info, i32> {
        // SAFETY: all zeros is a valid value.
        let mut info: Info = unsafe { std::mem::zeroed() };
        // SAFETY: our handle; the structure and its length.
        check(unsafe { (self.api().rbd_stat)(self.handle, &raw mut info, size_of::<Info>()) })?;
        Ok(info)
    }

    pub(super) fn id(&self) -> Result<String, i32> {
        // SAFETY: our handle, a buffer and its length.
        text(|buffer, length| unsafe { (self.api().rbd_get_id)(self.handle, buffer, length) })
    }

    /// The result of a function that stores a number.
    pub(super) fn number(
        &self,
        get: unsafe extern "C" fn(api::Image, *mut u64) -> c_int,
    ) -> Result<u64, i32> {
        let mut number = 0;
        // SAFETY: our handle, and a place for the number.
        check(unsafe { get(self.handle, &raw mut number) })?;
        Ok(number)
    }

    /// Takes the exclusive lock, and keeps the lock until the image is closed.
    pub(super) fn lock(&self) -> Result<(), i32> {
        // SAFETY: our handle.
        check(unsafe { (self.api().rbd_lock_acquire)(self.handle, api::LOCK_EXCLUSIVE) })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: our handle, and the last use. The pool is dropped later.
        unsafe { (self.api().rbd_close)(self.handle) };
    }
}
