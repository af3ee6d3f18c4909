//! PURE: the fold of events, and decisions. No I/O, no clock, no randomness; ordered maps only.
//!
//! Per-node state (names, copy progress) is not here but in the index: State must stay small however large the trees.

use journal_format::event::{FilerFound, JobKind, JobState};
use journal_format::ids::{FilerId, Identity, JobId, JunctionId, LocationId, Lsn, NodeId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The fold of every event before `lsn`. A snapshot is its JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Exclusive end of what is folded in.
    pub lsn: Lsn,
    /// Key of the handles' MAC.
    pub handle_key: [u8; 32],
    pub filers: BTreeMap<FilerId, Filer>,
    pub locations: BTreeMap<LocationId, LocationState>,
    pub junctions: BTreeMap<JunctionId, Junction>,
    /// The read-only tree above the junctions; `NodeId(1)` is `/` and always there. Ids grow, and are not used again.
    pub tree: BTreeMap<NodeId, VirtualDir>,
    pub jobs: BTreeMap<JobId, Job>,
    /// Next free numbers.
    pub next: Next,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    pub filer: u32,
    pub location: u32,
    pub junction: u32,
    pub job: u32,
    pub virtual_dir: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Filer {
    pub name: String,
    pub url: String,
    pub root: Vec<u8>,
    pub found: FilerFound,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LocationState {
    pub filer: FilerId,
    pub subdir: Vec<Vec<u8>>,
    /// Identity of the location's root directory.
    pub root: Identity,
    pub role: Role,
    /// Everything before it is durable there. Starts at the end of the record that named the location.
    pub cursor: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary(JunctionId),
    /// Destination of a job that has not ended.
    Destination(JobId),
    /// Left behind by a switch, an aborted job or a removed junction: no longer written or read. It is forgotten
    /// (taken out of `locations`) when the job that names it is dismissed, or at once when no job does.
    Left,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Junction {
    pub path: Vec<Vec<u8>>,
    /// The virtual directory it hangs in.
    pub parent: NodeId,
    /// The one location it points to (I5).
    pub primary: LocationId,
    /// Node of its root.
    pub root: NodeId,
    pub epoch: u64,
    pub added: Time,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VirtualDir {
    /// `/` is its own parent.
    pub parent: NodeId,
    pub children: BTreeMap<Vec<u8>, Child>,
    /// When it last changed.
    pub changed: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Dir(NodeId),
    Junction(JunctionId),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub kind: JobKind,
    pub junction: JunctionId,
    pub source: LocationId,
    pub destination: LocationId,
    pub state: JobState,
    pub reason: String,
    pub notes: String,
    pub created: Time,
    pub ended: Option<Time>,
    /// LSN of `JunctionSwitched` (its record's first byte: everything before it went to the source), once it is there.
    pub switched: Option<Lsn>,
    pub progress: Progress,
    /// Of the newest attempt, by node, at most [`Job::ERRORS_MAX`]; a later success takes one out.
    pub errors: BTreeMap<NodeId, JobError>,
}

impl Job {
    pub const ERRORS_MAX: usize = 256;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub files: u64,
    pub dirs: u64,
    pub bytes: u64,
    pub ranges: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    pub path: Vec<u8>,
    pub error: String,
    pub fatal: bool,
    pub time: Time,
}

#[derive(Clone, Debug)]
pub enum Command {}

/// Why a command cannot be obeyed, and what to do. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub remedy: String,
}
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}
