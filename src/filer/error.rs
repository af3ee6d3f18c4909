//! What can go wrong on a filer: a kind that policy reads, never a message.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. The kind decides what happens next; the text is for people.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// What was tried ("rename", "open beneath the root").
    pub op: &'static str,
    /// The system's words.
    pub detail: String,
    /// Bytes that a failed `write` did write.
    pub done: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Exists,
    NotDir,
    IsDir,
    NotEmpty,
    /// Too many links, or links not possible.
    TooManyLinks,
    NameTooLong,
    /// A name or argument no filer takes.
    Invalid,
    FileTooBig,
    /// Permission denied to the service's user.
    Access,
    /// Only root may (chown as an ordinary user).
    NotPermitted,
    ReadOnly,
    NoSpace,
    Quota,
    CrossDevice,
    NotSupported,
    /// The object is certainly gone.
    Stale,
    /// The filer is well, and this one object is not, or cannot have this: what it is cannot be read, an attribute has no
    /// room in it. Said by who copies, of what a filer calls an I/O error or no space.
    OfObject,
    /// Text file busy, EBUSY.
    Busy,
    Io,
    /// The filer cannot be reached, or its root is not the one that was added.
    Down,
    /// No answer in time: the outcome is not known.
    Unknown,
}

impl ErrorKind {
    /// Waiting may cure it: the caller holds and tries again.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::NoSpace | Self::Quota | Self::Io | Self::Down | Self::Unknown | Self::Busy)
    }

    /// Of a name that was asked for: nothing is there, or nothing can be, because the filer takes no such name.
    #[must_use]
    pub const fn is_no_entry(self) -> bool {
        matches!(self, Self::NotFound | Self::NameTooLong | Self::Invalid)
    }
}

impl Error {
    #[must_use]
    pub fn new(kind: ErrorKind, op: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, op, detail: detail.into(), done: 0 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.detail)
    }
}

impl std::error::Error for Error {}
