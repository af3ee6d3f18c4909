//! PURE POSIX rules over attributes and credentials: who may do what, and which attributes result.
//!
//! The filer does I/O as the service's user with explicit resulting attributes (design §3), so these rules are the only
//! thing that stands between a client's credentials and the data: they are the same for every kind of filer, they do
//! no I/O and know no clock, and every one is a total function.
//!
//! * [`acl`]: POSIX ACLs: who they let in, and what a directory's default ACL makes of a mode.
//! * [`permission`]: mode bits with supplementary groups, root's override, the owner's override for data, ACCESS,
//!   sticky deletion.
//! * [`resulting`]: attributes that result from making, writing and owning: set-gid inheritance, set-id clearing.
//! * [`setattr`]: SETATTR from a wish to explicit values, or a refusal.
//! * [`create`]: guarded and exclusive CREATE.
//!
//! Where POSIX leaves a choice, Linux's is taken, because Linux clients are tested against Linux servers; each such
//! place says so.

pub mod acl;
pub mod create;
pub mod permission;
pub mod resulting;
pub mod setattr;

pub use permission::{Cred, Owned};
pub use setattr::{SetAttrs, SetTime};

/// Set user id on execution.
pub const S_ISUID: u32 = 0o4000;
/// Set group id on execution; on a directory: new entries get its group.
pub const S_ISGID: u32 = 0o2000;
/// In a directory: only owners delete.
pub const S_ISVTX: u32 = 0o1000;
/// The group may execute.
pub const S_IXGRP: u32 = 0o0010;

/// Why a rule refuses. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The mode bits do not allow it (EACCES).
    Access,
    /// Only the owner or root may (EPERM).
    Owner,
    /// The guard does not match: the object has changed since the client looked.
    NotSync,
}
