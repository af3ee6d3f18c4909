//! `tain demo`: a live FlashMove seen from outside.
//!
//! Owns: an NFSv3 client, a model of what its clients did, a walker, a reader of the journal (by the format's own crate)
//! and the run that puts them together around the real service, started as its own executable. It shares no code with the
//! service: what both would get wrong together would go unseen. The black-box tests use the same parts.
//!
//! ```text
//!  source tree ──► model ◄── lanes (ops, predicted) ──► client ──NFS──► tain serve ──► filer old ─► filer new
//!                    │                                                      │
//!                    │          observer (reads the journal's segments) ◄───┘
//!                    └──► walker: old side = model at the switch, new side = model at the end
//! ```
//!
//! How it fails: the first answer that no model predicts, a call without an answer within the deadline, or a difference
//! that the walker finds, ends the run with exit status 1; the directory is kept, and named.
#![allow(clippy::disallowed_methods, reason = "it stands outside the service and times what it sees")]

pub mod client;
pub mod content;
pub mod lane;
pub mod load;
pub mod model;
pub mod nfs;
pub mod observer;
pub mod ops;
pub mod rig;
pub mod run;
pub mod service;
pub mod source;
pub mod walker;
pub mod xdr;

/// What can go wrong with a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("malformed reply: {0}")]
    Wire(String),
    #[error("rpc: {0}")]
    Rpc(String),
    #[error("deadline: {0}")]
    Deadline(String),
    #[error("the client is closed")]
    Closed,
    /// An answer that the model does not predict.
    #[error("{0}")]
    Mismatch(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
