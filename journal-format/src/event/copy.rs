//! Copy steps. `location` is always the destination, the location whose replayer carries the step out.

use crate::ids::{JobId, Kind, LocationId, NodeId};
use rkyv::{Archive, Deserialize, Serialize};

/// From this record on, name operations in `dir` are replayed on the destination.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct ListBegin {
    /// The job.
    pub job: JobId,
    /// The destination.
    pub location: LocationId,
    /// The directory.
    pub dir: NodeId,
}

/// Names that were in `dir` when its listing began and still are.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Listed {
    /// The job.
    pub job: JobId,
    /// The destination.
    pub location: LocationId,
    /// The directory.
    pub dir: NodeId,
    /// At most [`Listed::ENTRIES_MAX`].
    pub entries: Vec<ListedEntry>,
    /// The directory's last page: it is *listed*.
    pub last: bool,
}

impl Listed {
    /// Most entries one page carries.
    pub const ENTRIES_MAX: usize = 1024;
}

/// One name of a page.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct ListedEntry {
    /// Name in the directory.
    pub name: Vec<u8>,
    /// Its node.
    pub node: NodeId,
    /// Its kind.
    pub kind: Kind,
}

/// Order: copy these ranges from the primary, as it is when the step is carried out.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct CopyRange {
    /// The job.
    pub job: JobId,
    /// The destination.
    pub location: LocationId,
    /// At most [`CopyRange::RANGES_MAX`]; a file's ranges come in ascending order.
    pub ranges: Vec<Range>,
}

impl CopyRange {
    /// Most ranges one event carries.
    pub const RANGES_MAX: usize = 512;
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Range {
    /// The file.
    pub node: NodeId,
    /// Byte offset.
    pub offset: u64,
    /// Byte count.
    pub len: u64,
    /// With this range the whole file is there: it is *present* from this record on.
    pub last: bool,
}

/// These steps are done: durable on the destination. They are never carried out again (I4).
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct CopyDone {
    /// The job.
    pub job: JobId,
    /// The destination.
    pub location: LocationId,
    /// Ranges that were copied.
    pub ranges: Vec<RangeDone>,
    /// Objects made by listings since the last `CopyDone`, by kind: files and others.
    pub files_made: u64,
    /// Directories made by listings since the last `CopyDone`.
    pub dirs_made: u64,
    /// What could not be copied, at most [`CopyDone::FAILED_MAX`]; kept for the error report and tried again.
    pub failed: Vec<CopyFailed>,
}

impl CopyDone {
    /// Most failures one event carries.
    pub const FAILED_MAX: usize = 256;
}

/// A copied range.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct RangeDone {
    /// The file.
    pub node: NodeId,
    /// Byte offset.
    pub offset: u64,
    /// Bytes carried over, holes included; fewer than ordered where the file had become shorter.
    pub len: u64,
    /// BLAKE3 of the bytes carried over, holes as zeros.
    pub digest: [u8; 32],
    /// The file is whole with it.
    pub last: bool,
    /// The source was gone: a later REMOVE says so too. Nothing was carried over.
    pub void: bool,
}

/// What could not be copied, and why.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct CopyFailed {
    /// The node.
    pub node: NodeId,
    /// Its path below the junction then.
    pub path: Vec<u8>,
    /// The error, for people.
    pub error: String,
    /// Trying again cannot help before somebody changed something (no space, read-only): the job pauses at once.
    pub fatal: bool,
}
