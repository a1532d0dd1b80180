//! The numbers of the NBD protocol.

/// The first eight bytes of a server: `NBDMAGIC`.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Begins each option of a client, and the server's greeting after [`MAGIC`]: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Begins each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Begins a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Begins a request with extended headers.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Begins a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Begins a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Begins a chunk of a reply with extended headers.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// The IANA port of NBD.
pub const PORT: u16 = 10809;
/// The longest string of the protocol, in bytes: names of exports, error messages.
pub const MAX_STRING: usize = 4096;
/// The longest payload that every server takes, in bytes.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Lengths on the wire, in bytes.
pub mod length {
    /// Of a request.
    pub const REQUEST: usize = 28;
    /// Of a request with extended headers.
    pub const EXTENDED_REQUEST: usize = 32;
    /// Of a simple reply, without data.
    pub const SIMPLE_REPLY: usize = 16;
    /// Of the header of a chunk of a structured reply.
    pub const STRUCTURED_REPLY: usize = 20;
    /// Of the header of a chunk of a reply with extended headers.
    pub const EXTENDED_REPLY: usize = 32;
    /// Of the header of an option.
    pub const OPTION: usize = 16;
    /// Of the header of a reply to an option.
    pub const OPTION_REPLY: usize = 20;
}

/// Flags of the greeting; the client's answer has the same two bits.
pub mod handshake {
    /// The server speaks fixed newstyle; the client too.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// No 124 zero bytes after `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options of the negotiation.
pub mod option {
    /// Ends the negotiation; errors close the connection.
    pub const EXPORT_NAME: u32 = 1;
    /// Gives up.
    pub const ABORT: u32 = 2;
    /// Asks for the names of the exports.
    pub const LIST: u32 = 3;
    /// Begins TLS.
    pub const STARTTLS: u32 = 5;
    /// Asks for facts of an export.
    pub const INFO: u32 = 6;
    /// The same, and ends the negotiation.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Asks for names of metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Chooses metadata contexts for `BLOCK_STATUS`.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Asks for extended headers.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Types of replies to options.
pub mod option_reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// The name of an export.
    pub const SERVER: u32 = 2;
    /// A fact of an export, see [`info`](super::info).
    pub const INFO: u32 = 3;
    /// A metadata context and its number.
    pub const META_CONTEXT: u32 = 4;
    /// The bit of all errors.
    pub const ERROR: u32 = 1 << 31;
    /// The server does not know the option.
    pub const ERR_UNSUP: u32 = ERROR | 1;
    /// Forbidden by the server's configuration.
    pub const ERR_POLICY: u32 = ERROR | 2;
    /// The option's data makes no sense.
    pub const ERR_INVALID: u32 = ERROR | 3;
    /// Not supported on the server's platform.
    pub const ERR_PLATFORM: u32 = ERROR | 4;
    /// Only after `STARTTLS`.
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    /// The server is ending.
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    /// The client has to ask for `INFO_BLOCK_SIZE`.
    pub const ERR_BLOCK_SIZE_REQD: u32 = ERROR | 8;
    /// The request is too long.
    pub const ERR_TOO_BIG: u32 = ERROR | 9;
    /// Only after `EXTENDED_HEADERS`.
    pub const ERR_EXT_HEADER_REQD: u32 = ERROR | 10;
}

/// Facts of an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The canonical name.
    pub const NAME: u16 = 1;
    /// A description for people.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred and maximum block size.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags of an export.
pub mod export {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// The export refuses writes.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` is supported.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The flag `FUA` is supported.
    pub const SEND_FUA: u16 = 1 << 3;
    /// A spinning disk.
    pub const ROTATIONAL: u16 = 1 << 4;
    /// `TRIM` is supported.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` is supported.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The flag `DF` is supported.
    pub const SEND_DF: u16 = 1 << 7;
    /// What one connection has written and flushed, every connection sees.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// `RESIZE`, experimental.
    pub const SEND_RESIZE: u16 = 1 << 9;
    /// `CACHE` is supported.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The flag `FAST_ZERO` is supported.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    /// The flag `PAYLOAD_LEN` for `BLOCK_STATUS` is supported.
    pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

/// Types of requests.
pub mod command {
    /// Reads.
    pub const READ: u16 = 0;
    /// Writes.
    pub const WRITE: u16 = 1;
    /// Ends the connection; no reply.
    pub const DISC: u16 = 2;
    /// Brings all completed writes to stable storage.
    pub const FLUSH: u16 = 3;
    /// The range has undefined contents afterwards.
    pub const TRIM: u16 = 4;
    /// Asks the server to read ahead.
    pub const CACHE: u16 = 5;
    /// The range reads as zeros afterwards.
    pub const WRITE_ZEROES: u16 = 6;
    /// Asks for the extents of the chosen metadata contexts.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of requests.
pub mod flag {
    /// The data is on stable storage before the reply.
    pub const FUA: u16 = 1 << 0;
    /// `WRITE_ZEROES` keeps the space.
    pub const NO_HOLE: u16 = 1 << 1;
    /// The reply to `READ` is one chunk.
    pub const DF: u16 = 1 << 2;
    /// The reply to `BLOCK_STATUS` has one extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// `WRITE_ZEROES` fails unless it is faster than a write.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// With extended headers: the length counts the payload.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Structured replies: flags and types of chunks.
pub mod chunk {
    /// The flag of the last chunk of a reply.
    pub const DONE: u16 = 1 << 0;
    /// Nothing.
    pub const NONE: u16 = 0;
    /// An offset and data.
    pub const OFFSET_DATA: u16 = 1;
    /// An offset and the length of a hole.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents of a metadata context, 32 bits wide.
    pub const BLOCK_STATUS: u16 = 5;
    /// The same, 64 bits wide.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// The bit of all errors.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// An error and a message.
    pub const ERROR: u16 = ERROR_BIT | 1;
    /// The same, with an offset.
    pub const ERROR_OFFSET: u16 = ERROR_BIT | 2;
}

/// Bits of an extent in the context `base:allocation`.
pub mod allocation {
    /// The name of the context.
    pub const CONTEXT: &str = "base:allocation";
    /// The range takes no space.
    pub const HOLE: u32 = 1 << 0;
    /// The range reads as zeros.
    pub const ZERO: u32 = 1 << 1;
}

/// Bits of an extent in a context of dirty bitmaps, as qemu names contexts.
pub mod bitmap {
    /// The name of the context of what a disk stores in addition to its base.
    pub const DIFF: &str = "qemu:dirty-bitmap:diff";
    /// The range has changed.
    pub const DIRTY: u32 = 1 << 0;
}

/// Errors of replies. Their numbers are Linux's; no others are sent.
pub mod error {
    /// The only errors that the protocol knows: EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP
    /// (as Linux's EOPNOTSUPP), ESHUTDOWN.
    pub const ALL: [u32; 8] = [1, 5, 12, 22, 28, 75, 95, 108];
    /// The error for everything that the protocol has no number for.
    pub const EIO: u32 = 5;
    /// The server is ending.
    pub const ESHUTDOWN: u32 = 108;
}
