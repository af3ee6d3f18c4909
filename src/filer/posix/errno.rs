//! System errors, mapped to [`ErrorKind`] here and nowhere else.

use crate::filer::{Error, ErrorKind};
use rustix::io::Errno;

/// An error of the system call behind `op`.
pub(super) fn fail(op: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(kind(errno), op, errno.to_string())
}

/// The same for the calls that answer with the standard library's error.
pub(super) fn fail_io(op: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| match Errno::from_io_error(&error) {
        Some(errno) => fail(op)(errno),
        None => Error::new(ErrorKind::Invalid, op, error.to_string()),
    }
}

pub(super) fn kind(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::Exists,
        // A symlink met where a directory is needed.
        Errno::NOTDIR | Errno::LOOP => ErrorKind::NotDir,
        Errno::ISDIR => ErrorKind::IsDir,
        Errno::NOTEMPTY => ErrorKind::NotEmpty,
        Errno::MLINK => ErrorKind::TooManyLinks,
        Errno::NAMETOOLONG => ErrorKind::NameTooLong,
        // Bytes that are no name there (UTF-8 alone, say): as lasting as a name that is too long.
        Errno::INVAL | Errno::ILSEQ => ErrorKind::Invalid,
        Errno::FBIG | Errno::OVERFLOW => ErrorKind::FileTooBig,
        Errno::ACCESS => ErrorKind::Access,
        Errno::PERM => ErrorKind::NotPermitted,
        Errno::ROFS => ErrorKind::ReadOnly,
        Errno::NOSPC => ErrorKind::NoSpace,
        Errno::DQUOT => ErrorKind::Quota,
        Errno::XDEV => ErrorKind::CrossDevice,
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => ErrorKind::NotSupported,
        Errno::STALE => ErrorKind::Stale,
        // Out of descriptors or memory: waiting may cure it.
        Errno::BUSY | Errno::TXTBSY | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => ErrorKind::Busy,
        Errno::NODEV | Errno::NXIO | Errno::NOTCONN | Errno::HOSTDOWN | Errno::HOSTUNREACH | Errno::NETUNREACH => {
            ErrorKind::Down
        }
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::CONNABORTED | Errno::SHUTDOWN => ErrorKind::Down,
        Errno::TIMEDOUT => ErrorKind::Unknown,
        _ => ErrorKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_text_there_is_refused_for_good_and_names_nothing() {
        for errno in [Errno::ILSEQ, Errno::INVAL, Errno::NAMETOOLONG, Errno::NOENT] {
            assert!(kind(errno).is_no_entry() && !kind(errno).is_transient(), "{errno}");
        }
        assert_eq!(kind(Errno::IO), ErrorKind::Io);
    }
}
