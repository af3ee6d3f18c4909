//! Names and kept attributes as clients see them now, for every junction.

use super::store::{Change, Result, Store};
use journal_format::event::Event;
use journal_format::ids::{JunctionId, Kind, Lsn, NodeId, Time};
use std::sync::Arc;

/// What tain keeps of a node; size, mode, owner come from the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRec {
    pub junction: JunctionId,
    pub kind: Kind,
    pub mtime: Time,
    pub ctime: Time,
    /// Of the exclusive CREATE that made it.
    pub verifier: Option<[u8; 8]>,
    /// Directories: every name in it is in the index, the filer need not be asked.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub node: NodeId,
    pub kind: Kind,
    /// Serial of the entry: the READDIR cookie. Unique and growing within a junction: the start LSN of the event that
    /// made the entry, plus its place in the event. Always >= 16.
    pub cookie: u64,
}

pub struct Live {
    pub store: Arc<Store>,
}

impl Live {
    pub fn node(&self, _node: NodeId) -> Result<Option<NodeRec>> {
        todo!()
    }
    pub fn entry(&self, _dir: NodeId, _name: &[u8]) -> Result<Option<Entry>> {
        todo!()
    }
    /// Up to `limit` names of a node, as (directory, name).
    pub fn names(&self, _node: NodeId, _limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>> {
        todo!()
    }
    /// Entries with a cookie above `after`, ascending.
    pub fn list(&self, _dir: NodeId, _after: u64, _limit: usize) -> Result<Vec<Entry>> {
        todo!()
    }
    /// Names from the junction's root down to the node (one of them, for hard links); `None` if it has no name.
    /// The root's path is empty.
    pub fn path(&self, _node: NodeId) -> Result<Option<Vec<Vec<u8>>>> {
        todo!()
    }
    /// Apply an event that has happened (its operation ended done).
    pub fn apply(&self, _lsn: Lsn, _time: Time, _event: &Event) -> Result<()> {
        todo!()
    }
    /// Highest node id in the store.
    pub fn node_max(&self) -> Result<NodeId> {
        todo!()
    }
}

/// The keys an event writes: a function of the event (and, for kept attributes of nodes it does not define whole, of
/// the record that is there: times are merged by maximum).
pub fn fold(_live: &Live, _lsn: Lsn, _time: Time, _event: &Event) -> Result<Vec<Change>> {
    todo!()
}
