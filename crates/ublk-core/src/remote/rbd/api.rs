//! The functions of librados and librbd that ublk calls, in a table.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;

/// `rados_t`: a connection to a cluster.
pub(super) type Cluster = *mut c_void;
/// `rados_ioctx_t`: a pool and a namespace.
pub(super) type Pool = *mut c_void;
/// `rbd_image_t`: an open image.
pub(super) type Image = *mut c_void;
/// `rbd_completion_t`.
pub(super) type Completion = *mut c_void;
/// `rbd_callback_t`.
pub(super) type Callback = unsafe extern "C" fn(Completion, *mut c_void);

/// `RBD_LOCK_MODE_EXCLUSIVE`.
pub(super) const LOCK_EXCLUSIVE: c_int = 0;
/// `RBD_WRITE_ZEROES_FLAG_THICK_PROVISION`: the zeros take space.
pub(super) const THICK: c_int = 1;

/// `rbd_image_info_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Info {
    pub(super) size: u64,
    pub(super) object_size: u64,
    pub(super) objects: u64,
    pub(super) order: c_int,
    /// Not filled in by librbd any more.
    pub(super) block_name_prefix: [c_char; 24],
    /// As above.
    pub(super) parent_pool: i64,
    /// As above.
    pub(super) parent_name: [c_char; 96],
}

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, by their names in librados.h and librbd.h of Ceph 16. Later releases keep them.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// Asks `symbol` for the address of each function.
            ///
            /// # Errors
            /// The first error of `symbol`.
            pub(super) fn look_up<E>(
                symbol: impl Fn(&CStr) -> Result<*mut c_void, E>,
            ) -> Result<Self, E> {
                Ok(Self {
                    $($name: {
                        let name = concat!(stringify!($name), "\0").as_bytes();
                        let name = CStr::from_bytes_with_nul(name).unwrap_or_default();
                        // SAFETY: the address of the C function of this name, whose declaration is the
                        // one above.
                        unsafe {
                            mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(symbol(name)?)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    rados_create2(*mut Cluster, *const c_char, *const c_char, u64) -> c_int;
    rados_conf_read_file(Cluster, *const c_char) -> c_int;
    rados_conf_get(Cluster, *const c_char, *mut c_char, usize) -> c_int;
    rados_conf_set(Cluster, *const c_char, *const c_char) -> c_int;
    rados_connect(Cluster) -> c_int;
    rados_shutdown(Cluster);
    rados_cluster_fsid(Cluster, *mut c_char, usize) -> c_int;
    rados_ioctx_create(Cluster, *const c_char, *mut Pool) -> c_int;
    rados_ioctx_set_namespace(Pool, *const c_char);
    rados_ioctx_get_id(Pool) -> i64;
    rados_ioctx_destroy(Pool);
    rbd_open(Pool, *const c_char, *mut Image, *const c_char) -> c_int;
    rbd_open_read_only(Pool, *const c_char, *mut Image, *const c_char) -> c_int;
    rbd_close(Image) -> c_int;
    rbd_stat(Image, *mut Info, usize) -> c_int;
    rbd_get_size(Image, *mut u64) -> c_int;
    rbd_get_id(Image, *mut c_char, usize) -> c_int;
    rbd_get_features(Image, *mut u64) -> c_int;
    rbd_get_stripe_unit(Image, *mut u64) -> c_int;
    rbd_get_stripe_count(Image, *mut u64) -> c_int;
    rbd_lock_acquire(Image, c_int) -> c_int;
    rbd_aio_create_completion(*mut c_void, Option<Callback>, *mut Completion) -> c_int;
    rbd_aio_get_return_value(Completion) -> isize;
    rbd_aio_release(Completion);
    rbd_aio_read(Image, u64, usize, *mut c_char, Completion) -> c_int;
    rbd_aio_write(Image, u64, usize, *const c_char, Completion) -> c_int;
    rbd_aio_discard(Image, u64, u64, Completion) -> c_int;
    rbd_aio_write_zeroes(Image, u64, usize, Completion, c_int, c_int) -> c_int;
    rbd_aio_flush(Image, Completion) -> c_int;
}
