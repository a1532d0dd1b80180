//! The Node-API binding of `ublk-core`.
