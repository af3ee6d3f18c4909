//! Names as they should be at the journal's end, while the live index does not hold the last operations yet.
//!
//! Bound: the names that operations have touched since the index's last commit, as the round of the same redo.

use super::View;
use super::keys::Keys;
use super::round::Key;
use crate::index::live::Live;
use crate::index::store::Result;
use journal_format::event::Event;
use journal_format::ids::{Kind, NodeId};
use std::collections::HashMap;
use std::sync::Arc;

/// The live index, and over it what each touched name leads to in the end. The index may be ahead and hold some of it.
pub struct Tail {
    live: Arc<Live>,
    entries: HashMap<Key, Option<(NodeId, Kind)>>,
    names: HashMap<NodeId, Keys>,
}

impl Tail {
    #[must_use]
    pub fn new(live: Arc<Live>) -> Self {
        Self { live, entries: HashMap::new(), names: HashMap::new() }
    }

    /// What is not an operation on names changes nothing here.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::Make(e) => self.put(e.dir, &e.name, Some((e.node, e.what.kind()))),
            Event::Remove(e) => self.put(e.dir, &e.name, None),
            Event::Rename(e) => {
                self.put(e.from_dir, &e.from_name, None);
                self.put(e.to_dir, &e.to_name, Some((e.node, e.kind)));
            }
            Event::Link(e) => self.put(e.dir, &e.name, Some((e.node, e.kind))),
            Event::Adopt(e) => e.entries.iter().for_each(|a| self.put(e.dir, &a.name, Some((a.node, a.kind)))),
            _ => {}
        }
    }

    fn put(&mut self, dir: NodeId, name: &[u8], to: Option<(NodeId, Kind)>) {
        let key = (dir, name.to_vec());
        if let Some((node, _)) = to {
            self.names.entry(node).or_default().insert(key.clone());
        }
        let before = self.entries.insert(key, to).flatten();
        if let Some((node, _)) = before
            && to.is_none_or(|(now, _)| now != node)
            && let Some(names) = self.names.get_mut(&node)
        {
            names.remove(&(dir, name.to_vec()));
        }
    }
}

impl View for Tail {
    fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<(NodeId, Kind)>> {
        match self.entries.get(&(dir, name.to_vec())) {
            Some(entry) => Ok(*entry),
            None => View::entry(&self.live, dir, name),
        }
    }

    fn names(&self, node: NodeId, limit: usize) -> Result<Vec<Key>> {
        let ours = self.names.get(&node).into_iter().flat_map(Keys::iter);
        let mut names: Vec<Key> = ours.take(limit).cloned().collect();
        for key in View::names(&self.live, node, limit)? {
            if names.len() < limit && !self.entries.contains_key(&key) {
                names.push(key);
            }
        }
        Ok(names)
    }
}
