//! Serves Linux ublk devices over io_uring.
