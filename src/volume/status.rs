//! Errors of the rooms below, as nfsstat3.

use super::types::{Refused, Status};
use crate::filer::ErrorKind;
use crate::index::store;
use crate::semantics::Denied;

/// What a client is told when a filer refuses.
#[must_use]
pub const fn of_kind(kind: ErrorKind) -> Status {
    match kind {
        ErrorKind::NotFound => Status::NoEnt,
        ErrorKind::Exists => Status::Exist,
        ErrorKind::NotDir => Status::NotDir,
        ErrorKind::IsDir => Status::IsDir,
        ErrorKind::NotEmpty => Status::NotEmpty,
        ErrorKind::TooManyLinks => Status::MLink,
        ErrorKind::NameTooLong => Status::NameTooLong,
        ErrorKind::Invalid => Status::Inval,
        ErrorKind::FileTooBig => Status::FBig,
        ErrorKind::Access => Status::Access,
        ErrorKind::NotPermitted => Status::Perm,
        ErrorKind::ReadOnly => Status::RoFs,
        ErrorKind::NoSpace => Status::NoSpc,
        ErrorKind::Quota => Status::DQuot,
        ErrorKind::CrossDevice => Status::XDev,
        ErrorKind::NotSupported => Status::NotSupp,
        ErrorKind::Stale => Status::Stale,
        ErrorKind::Io | ErrorKind::OfObject => Status::Io,
        // NFSv3 has no EBUSY; the client comes again.
        ErrorKind::Busy | ErrorKind::Down | ErrorKind::Unknown => Status::Jukebox,
    }
}

/// A filer's error where nothing has been appended. An object that the index knows and the filer does not is stale; one
/// behind a mount point is not tain's to show, and only RENAME and LINK may be told XDEV.
#[must_use]
pub fn of_object(error: &crate::filer::Error) -> Status {
    match error.kind {
        ErrorKind::NotFound => Status::Stale,
        ErrorKind::CrossDevice => Status::Access,
        kind => of_kind(kind),
    }
}

/// Only then is the outcome of a call not known to the filer's own code.
#[must_use]
pub const fn is_unknown(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Down | ErrorKind::Unknown)
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Access => Status::Access,
            Denied::Owner => Status::Perm,
            Denied::NotSync => Status::NotSync,
        }
    }
}

impl From<store::Error> for Status {
    fn from(error: store::Error) -> Self {
        tracing::error!(%error, "the node index failed");
        Status::ServerFault
    }
}

impl From<crate::journal::Error> for Status {
    fn from(error: crate::journal::Error) -> Self {
        // Never success, and no definite failure either: the record may be durable. The journal ends the process, or is
        // full and will have room again; the client waits and repeats the call.
        tracing::error!(%error, "the journal did not take a record");
        Status::Jukebox
    }
}

impl<T> Refused<T> {
    #[must_use]
    pub fn new(status: Status, with: T) -> Self {
        Self { status, with }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_cures_on_the_primary_is_told_by_its_own_name_or_as_jukebox() {
        assert_eq!(of_kind(ErrorKind::NoSpace), Status::NoSpc);
        assert_eq!(of_kind(ErrorKind::Quota), Status::DQuot);
        assert_eq!(of_kind(ErrorKind::Down), Status::Jukebox);
        assert_eq!(of_kind(ErrorKind::Unknown), Status::Jukebox);
        assert_eq!(of_kind(ErrorKind::Busy), Status::Jukebox);
    }

    #[test]
    fn a_missing_object_behind_a_known_node_is_stale() {
        let error = crate::filer::Error::new(ErrorKind::NotFound, "open", "gone");
        assert_eq!(of_object(&error), Status::Stale);
    }
}
