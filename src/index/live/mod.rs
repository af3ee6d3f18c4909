//! Names and kept attributes as clients see them now, for every junction.
//!
//! Changed by [`Live::apply`] alone, with the event of an operation that is done. [`fold`] says what an event changes,
//! and why folding a suffix of the journal again, over a state that is ahead of it, comes to the same end (I7).
//! Operations that failed are never folded; one that was done in part is folded as what was done of it.
//!
//! Table layout: `codec.rs`. Nothing here is cached; a lookup costs a read of the store.

mod codec;
mod fold;
mod order;
#[cfg(test)]
mod tests;

use super::store::{Result, Store};
use codec::Stored;
pub use fold::{fold, is_folded};
use journal_format::event::Event;
use journal_format::ids::{JunctionId, Kind, Lsn, NodeId, Time};
use order::Cuts;
use std::sync::Arc;

/// Deepest path that is looked for. Deeper, or a circle of directories that lie in one another, is an error.
pub const DEPTH_MAX: usize = 4096;

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
    /// made the entry ([`Live::order`]), plus its place in the event. Always >= 16. A name that is renamed over keeps it: no listing that
    /// has passed it shows it again.
    pub cookie: u64,
    /// The same of the event that put the node there: the cookie, or larger where the name was renamed over.
    pub put_by: u64,
}

const JOURNAL: &[u8] = b"J";
/// Key: `S`, junction.
const ASIDE: &[u8] = b"S";

pub struct Live {
    pub store: Arc<Store>,
    cuts: Cuts,
}

impl Live {
    pub fn new(store: Arc<Store>) -> Self {
        Live { store, cuts: Cuts::default() }
    }

    /// Whether it is made from this journal; one that is new is from now on.
    pub fn is_of(&self, journal: [u8; 16]) -> Result<bool> {
        let stated = self.store.get(JOURNAL)?;
        if stated.is_none() {
            self.store.write(vec![(JOURNAL.to_vec(), Some(journal.to_vec()))]);
        }
        Ok(stated.is_none_or(|stated| stated == journal))
    }

    /// Junctions of which the store may lack operations before the LSN it states: their sides are folded first.
    pub fn aside(&self) -> Result<Vec<JunctionId>> {
        let found = self.store.scan(ASIDE, None, usize::from(u16::MAX))?;
        let parse = |key: &[u8]| key.get(ASIDE.len()..).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        found.iter().map(|(key, _)| parse(key).map(JunctionId).ok_or_else(|| self.store.corrupt("aside"))).collect()
    }

    /// To be said in the same commit as the LSN.
    pub fn set_aside(&self, junction: JunctionId, aside: bool) {
        let key = [ASIDE, junction.0.to_be_bytes().as_slice()].concat();
        self.store.write(vec![(key, aside.then(Vec::new))]);
    }

    pub fn node(&self, node: NodeId) -> Result<Option<NodeRec>> {
        Ok(self.stored(node)?.map(|stored| stored.rec))
    }

    pub fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let Some(value) = self.store.get(&codec::entry_key(dir, name))? else { return Ok(None) };
        let entry = codec::decode_entry(name, &value);
        entry.map(Some).ok_or_else(|| self.store.corrupt(format!("entry in directory {dir}")))
    }

    /// Up to `limit` names of a node, as (directory, name).
    pub fn names(&self, node: NodeId, limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>> {
        let found = self.store.scan(&codec::name_prefix(node), None, limit)?;
        let parse = |key: &[u8]| codec::parse_name_key(key);
        found
            .iter()
            .map(|(key, _)| parse(key).ok_or_else(|| self.store.corrupt(format!("name of node {node}"))))
            .collect()
    }

    /// Entries with a cookie above `after`, ascending.
    pub fn list(&self, dir: NodeId, after: u64, limit: usize) -> Result<Vec<Entry>> {
        let found = self.store.scan(&codec::cookie_prefix(dir), Some(&codec::cookie_key(dir, after)), limit)?;
        found
            .iter()
            .map(|(key, value)| {
                let entry = codec::decode_listed(key, value);
                entry.ok_or_else(|| self.store.corrupt(format!("listing of directory {dir}")))
            })
            .collect()
    }

    /// Whether the index knows any name in the directory.
    pub fn has_entries(&self, dir: NodeId) -> Result<bool> {
        Ok(!self.store.scan(&codec::cookie_prefix(dir), None, 1)?.is_empty())
    }

    /// Names from the junction's root down to the node (one of them, for hard links); `None` if it has no name.
    /// The root's path is empty. An error past [`DEPTH_MAX`].
    ///
    /// A rename that runs beside it may be seen in parts; who needs certainty holds the locks, or checks the identity
    /// of what is at the path.
    pub fn path(&self, node: NodeId) -> Result<Option<Vec<Vec<u8>>>> {
        let mut path = Vec::new();
        let mut at = node;
        for _ in 0..=DEPTH_MAX {
            if let Some((dir, name)) = self.names(at, 1)?.pop() {
                path.push(name);
                at = dir;
                continue;
            }
            let is_root = self.stored(at)?.is_some_and(|stored| stored.root);
            path.reverse();
            return Ok(is_root.then_some(path));
        }
        Err(self.store.corrupt(format!("node {node} lies in itself, or deeper than {DEPTH_MAX} directories")))
    }

    /// Apply an event that has happened (its operation ended done).
    pub fn apply(&self, lsn: Lsn, time: Time, event: &Event) -> Result<()> {
        // Times and names are read, merged and written: no other fold may come in between.
        self.store.update(|| fold(self, lsn, time, event))
    }

    /// Apply events that have happened, in LSN order, all at once. They and their changes are in memory meanwhile, and
    /// other folds wait: the caller bounds them.
    pub fn apply_all(&self, events: &[(Lsn, Time, Event)]) -> Result<()> {
        self.store.update(|| fold::fold_all(self, events))
    }

    /// Highest node id that was ever folded in, also of nodes that are gone: ids are never used again.
    pub fn node_max(&self) -> Result<NodeId> {
        let Some(value) = self.store.get(codec::MAX_KEY)? else { return Ok(NodeId(0)) };
        codec::decode_max(&value).ok_or_else(|| self.store.corrupt("highest node id"))
    }

    fn stored(&self, node: NodeId) -> Result<Option<Stored>> {
        let Some(value) = self.store.get(&codec::node_key(node))? else { return Ok(None) };
        codec::decode_node(&value).map(Some).ok_or_else(|| self.store.corrupt(format!("record of node {node}")))
    }
}
