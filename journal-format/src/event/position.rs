//! Positions, and what the journal says about itself.

use crate::ids::{LocationId, Lsn};
use rkyv::{Archive, Deserialize, Serialize};

/// A location holds, durably, everything before `lsn` that concerns it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Cursor {
    /// Which.
    pub location: LocationId,
    /// Exclusive end.
    pub lsn: Lsn,
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
