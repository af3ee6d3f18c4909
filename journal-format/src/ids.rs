//! Newtypes for everything that is counted or named by number, so that no bare `u64` crosses an interface.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
        )]
        pub struct $name(
            /// The number itself.
            pub $inner,
        );

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// Log sequence number: a byte position since the journal began. A record is *identified* by the LSN of its first
    /// byte (`Failed { op }`); every other named LSN is an exclusive end, "everything before it".
    Lsn(u64), ""
);
id!(
    /// Number of a segment; never reused.
    SegmentNo(u64), ""
);
id!(
    /// An object as the gateway knows it; outlives any back end and is never reused. Also the client's fileid.
    NodeId(u64), "n"
);
id!(
    /// A core filer.
    FilerId(u32), "f"
);
id!(
    /// A junction. 0 is no junction: the read-only tree above the junctions.
    JunctionId(u32), "j"
);
id!(
    /// A filer's subtree in one role: made with a junction or with a job, never reused, so that a directory that is
    /// used again is a new location.
    LocationId(u32), "l"
);
id!(
    /// A job.
    JobId(u32), ""
);
id!(
    /// An access policy.
    PolicyId(u32), "p"
);

impl Lsn {
    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

/// Nanoseconds since 1970-01-01T00:00:00Z, negative before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Time(
    /// Nanoseconds.
    pub i64,
);

/// How a filer itself names an object, whatever it is called: posix a kernel file handle, or inode and birth time; nfs
/// the file handle; s3 the node id. Equal identities are the same object. At most [`Identity::MAX`] bytes.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Identity(
    /// The bytes, opaque to everyone but the filer.
    pub Vec<u8>,
);

impl Identity {
    /// Longest identity any filer may use, in bytes.
    pub const MAX: usize = 144;
}

/// What sort of object a node is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[repr(u8)]
pub enum Kind {
    /// Regular file.
    File = 1,
    /// Directory.
    Dir = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Socket.
    Socket = 5,
    /// Character device.
    Char = 6,
    /// Block device.
    Block = 7,
}
