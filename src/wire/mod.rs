//! Pure codecs of what clients send and are sent: RPC version 2 over TCP (RFC 5531), MOUNT version 3 and NFS version 3
//! (RFC 1813), and the handles. No socket, no clock, no task: bytes in, values out, and back.
//!
//! * [`record`]: record marking: fragments into records, within [`record::RECORD_MAX`] and [`record::FRAGMENTS_MAX`].
//! * [`xdr`]: [`xdr::Reader`] and [`xdr::Writer`]. Every length is checked against a constant *and* against the bytes
//!   that are left before anything is made of it; opaque data is a slice of the record, never a copy, so decoding
//!   allocates nothing that the peer did not send.
//! * [`rpc`]: call and reply headers, credentials.
//! * [`nfs3`], [`mount`]: arguments and results. The fixed-size types are `nfsserve`'s; whatever has a length is ours,
//!   because that crate trusts lengths.
//! * [`nlm4`], [`nsm`], [`portmap`]: locks, hosts that restart, and where their programs listen.
//! * [`handle`]: what a file handle holds, sealed with a keyed hash.
//!
//! How it fails: [`xdr::Malformed`] for arguments (GARBAGE_ARGS), [`rpc::Refusal`] for headers (MSG_DENIED, or the
//! connection is closed), [`record::FramingError`] for what cannot be a record (closed). No input panics; the tests cut
//! every call at every byte and flip every bit of a handle.

pub mod handle;
pub mod mount;
pub mod nfs3;
pub mod nlm4;
pub mod nsm;
pub mod portmap;
pub mod record;
pub mod rpc;
pub mod xdr;
