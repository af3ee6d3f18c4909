//! Junctions.

use crate::ids::{FilerId, Identity, JobId, JunctionId, LocationId, NodeId, PolicyId, Time};
use rkyv::{Archive, Deserialize, Serialize};

/// A location as it is first named: filer, and the subdirectory of its export.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct LocationSpec {
    /// Its number.
    pub location: LocationId,
    /// The filer.
    pub filer: FilerId,
    /// Names from the export's root down; empty is the root itself.
    pub subdir: Vec<Vec<u8>>,
    /// Identity of the directory itself.
    pub root: Identity,
}

/// A junction was added.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JunctionAdded {
    /// Its number.
    pub junction: JunctionId,
    /// Its path in the namespace, names from `/` down; never empty.
    pub path: Vec<Vec<u8>>,
    /// Where it leads.
    pub location: LocationSpec,
    /// Node of its root directory.
    pub root: NodeId,
    /// The root's modification time then.
    pub mtime: Time,
    /// The root's change time then.
    pub ctime: Time,
}

/// A junction was removed; the data stays where it is.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JunctionRemoved {
    /// Which.
    pub junction: JunctionId,
}

/// What an operator may change of a junction, all of it as it is from here on.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JunctionModified {
    /// Which.
    pub junction: JunctionId,
    /// Who may; none: the built-in `local`.
    pub access: Option<PolicyId>,
    /// Its clients are asked to wait (JUKEBOX).
    pub suspended: bool,
}

/// The one instant of a switch: before it every operation went to `from`, after it every one goes to `to` (I5).
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JunctionSwitched {
    /// Which.
    pub junction: JunctionId,
    /// The job that switches it.
    pub job: JobId,
    /// Old primary.
    pub from: LocationId,
    /// New primary.
    pub to: LocationId,
    /// Epoch of the new primary's role.
    pub epoch: u64,
}
