//! The userspace ABI of Linux's ublk driver.
