//! Positions, and what the journal says about itself.

use crate::ids::{LocationId, Lsn};
use rkyv::{Archive, Deserialize, Serialize};

/// A location holds, durably, everything before `lsn` that concerns it, or has it in its dirty set.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Cursor {
    /// Which.
    pub location: LocationId,
    /// Exclusive end.
    pub lsn: Lsn,
}

/// A secondary fell out of the journal's reach: what it lacks from `from` on becomes its dirty set, and copy steps stop.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct OutOfSync {
    /// Which.
    pub location: LocationId,
    /// It holds, durably, everything before this LSN.
    pub from: Lsn,
}

/// A secondary has nothing dirty any more, and has followed the journal past the point up to which it was renewed.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct InSync {
    /// Which.
    pub location: LocationId,
}

/// Everything before this record was durable when it was written.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Durable {
    /// The service stopped in order behind it.
    pub stopped: bool,
}

/// First event of a journal.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JournalCreated {
    /// Key of the handles' MAC; never dumped.
    pub handle_key: [u8; 32],
}
