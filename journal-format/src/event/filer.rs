//! Core filers.

use crate::ids::FilerId;
use rkyv::{Archive, Deserialize, Serialize};

/// A core filer was added.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct FilerAdded {
    /// Its number.
    pub filer: FilerId,
    /// Its name, unique among the present ones.
    pub name: String,
    /// Its URL, as given.
    pub url: String,
    /// Identity of its export's root (file system and object): another one there later means the filer is down.
    pub root: Vec<u8>,
    /// What was found when it was added.
    pub found: FilerFound,
}

/// What a check of a filer found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FilerFound {
    /// Owners can be changed (posix: the service runs as root).
    pub can_chown: bool,
    /// Device nodes can be made.
    pub can_mknod: bool,
    /// The root takes extended attributes, so the owner marker is one.
    pub has_xattrs: bool,
    /// Holes can be found and kept.
    pub has_holes: bool,
    /// Granularity of its timestamps, nanoseconds.
    pub time_granularity_ns: u32,
}

/// A core filer was removed.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct FilerRemoved {
    /// Which.
    pub filer: FilerId,
}
