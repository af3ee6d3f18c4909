//! The one match from [`Status`] to what the protocols call it.

use crate::volume::types::Status;
use crate::wire::mount::MountStat;
use crate::wire::xdr::Reader;
use nfsserve::nfs::nfsstat3;

#[must_use]
pub const fn nfsstat(status: Status) -> nfsstat3 {
    match status {
        Status::Perm => nfsstat3::NFS3ERR_PERM,
        Status::NoEnt => nfsstat3::NFS3ERR_NOENT,
        Status::Io => nfsstat3::NFS3ERR_IO,
        Status::NxIo => nfsstat3::NFS3ERR_NXIO,
        Status::Access => nfsstat3::NFS3ERR_ACCES,
        Status::Exist => nfsstat3::NFS3ERR_EXIST,
        Status::XDev => nfsstat3::NFS3ERR_XDEV,
        Status::NoDev => nfsstat3::NFS3ERR_NODEV,
        Status::NotDir => nfsstat3::NFS3ERR_NOTDIR,
        Status::IsDir => nfsstat3::NFS3ERR_ISDIR,
        Status::Inval => nfsstat3::NFS3ERR_INVAL,
        Status::FBig => nfsstat3::NFS3ERR_FBIG,
        Status::NoSpc => nfsstat3::NFS3ERR_NOSPC,
        Status::RoFs => nfsstat3::NFS3ERR_ROFS,
        Status::MLink => nfsstat3::NFS3ERR_MLINK,
        Status::NameTooLong => nfsstat3::NFS3ERR_NAMETOOLONG,
        Status::NotEmpty => nfsstat3::NFS3ERR_NOTEMPTY,
        Status::DQuot => nfsstat3::NFS3ERR_DQUOT,
        Status::Stale => nfsstat3::NFS3ERR_STALE,
        Status::Remote => nfsstat3::NFS3ERR_REMOTE,
        Status::BadHandle => nfsstat3::NFS3ERR_BADHANDLE,
        Status::NotSync => nfsstat3::NFS3ERR_NOT_SYNC,
        Status::BadCookie => nfsstat3::NFS3ERR_BAD_COOKIE,
        Status::NotSupp => nfsstat3::NFS3ERR_NOTSUPP,
        Status::TooSmall => nfsstat3::NFS3ERR_TOOSMALL,
        Status::ServerFault => nfsstat3::NFS3ERR_SERVERFAULT,
        Status::BadType => nfsstat3::NFS3ERR_BADTYPE,
        Status::Jukebox => nfsstat3::NFS3ERR_JUKEBOX,
    }
}

/// A status as the journal keeps it; what is no nfsstat3 is a server fault.
#[must_use]
pub fn from_number(number: u32) -> nfsstat3 {
    let bytes = bytes::Bytes::copy_from_slice(&number.to_be_bytes());
    Reader::new(bytes).get().unwrap_or(nfsstat3::NFS3ERR_SERVERFAULT)
}

/// What MNT answers.
#[must_use]
pub const fn mountstat(status: Status) -> MountStat {
    match status {
        Status::Perm => MountStat::Perm,
        Status::NoEnt | Status::Stale => MountStat::NoEnt,
        Status::Access => MountStat::Access,
        Status::NotDir => MountStat::NotDir,
        Status::Inval => MountStat::Inval,
        Status::NameTooLong => MountStat::NameTooLong,
        Status::NotSupp => MountStat::NotSupp,
        Status::Io | Status::NxIo => MountStat::Io,
        // MOUNT has no JUKEBOX; clients take SERVERFAULT for "try again".
        Status::Exist
        | Status::XDev
        | Status::NoDev
        | Status::IsDir
        | Status::FBig
        | Status::NoSpc
        | Status::RoFs
        | Status::MLink
        | Status::NotEmpty
        | Status::DQuot
        | Status::Remote
        | Status::BadHandle
        | Status::NotSync
        | Status::BadCookie
        | Status::TooSmall
        | Status::ServerFault
        | Status::BadType
        | Status::Jukebox => MountStat::ServerFault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_keep_their_numbers_on_the_wire() {
        for status in [Status::Perm, Status::NameTooLong, Status::Stale, Status::BadHandle, Status::Jukebox] {
            assert_eq!(nfsstat(status) as u32, status as u32);
            assert_eq!(from_number(status as u32) as u32, status as u32);
        }
        assert_eq!(from_number(12345) as u32, Status::ServerFault as u32);
    }
}
