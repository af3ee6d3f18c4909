//! Which path a node has at each record: the names that the journal gives, folded in order.
//!
//! What was named before the oldest record at hand has no path here: read the archives too, then all have. Memory grows
//! with the number of nodes that have names.

use crate::show;
use journal_format::event::Event;
use journal_format::ids::Lsn;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};

/// Name operations that a later `Failed` can take back.
const UNDO_MAX: usize = 65_536;
/// Deepest path; deeper ones have none.
const DEPTH_MAX: usize = 4096;
/// Names of one node that are looked at.
const LINKS_MAX: usize = 16;

/// A name: its directory, and how it is called there.
type Name = (u64, Box<[u8]>);

#[derive(Default)]
pub struct Names {
    names: HashMap<u64, Vec<Name>>,
    /// Roots of junctions, with their paths.
    roots: HashMap<u64, String>,
    undo: VecDeque<(u64, Vec<Change>)>,
}

#[derive(Clone)]
enum Change {
    Put(u64, u64, Box<[u8]>),
    Take(u64, u64, Box<[u8]>),
}

impl Names {
    /// Junctions that a snapshot names: they may have been added before the oldest record.
    pub fn seed(&mut self, state: &Value) {
        for junction in state.get("junctions").and_then(Value::as_array).into_iter().flatten() {
            let Some(root) = junction.get("root").and_then(Value::as_u64) else { continue };
            self.roots.insert(root, snapshot_path(junction.get("path")));
        }
    }

    pub fn apply(&mut self, lsn: Lsn, event: &Event) {
        let mut changes = Vec::new();
        match event {
            Event::JunctionAdded(e) => drop(self.roots.insert(e.root.0, show::path(&e.path))),
            Event::Adopt(e) => {
                for entry in &e.entries {
                    self.put(entry.node.0, e.dir.0, &entry.name);
                }
            }
            Event::Make(e) => changes.push(Change::Put(e.node.0, e.dir.0, e.name.as_slice().into())),
            Event::Link(e) => changes.push(Change::Put(e.node.0, e.dir.0, e.name.as_slice().into())),
            Event::Remove(e) => changes.push(Change::Take(e.node.0, e.dir.0, e.name.as_slice().into())),
            Event::Rename(e) => {
                if let Some(replaced) = e.replaced {
                    changes.push(Change::Take(replaced.node.0, e.to_dir.0, e.to_name.as_slice().into()));
                }
                changes.push(Change::Take(e.node.0, e.from_dir.0, e.from_name.as_slice().into()));
                changes.push(Change::Put(e.node.0, e.to_dir.0, e.to_name.as_slice().into()));
            }
            Event::Failed(e) => self.take_back(e.op.0),
            _ => {}
        }
        if changes.is_empty() {
            return;
        }
        changes.iter().for_each(|change| self.change(change, false));
        if self.undo.len() == UNDO_MAX {
            self.undo.pop_front();
        }
        self.undo.push_back((lsn.0, changes));
    }

    fn take_back(&mut self, op: u64) {
        let at = self.undo.binary_search_by_key(&op, |(lsn, _)| *lsn);
        if let Some((_, changes)) = at.ok().and_then(|at| self.undo.get(at)).cloned() {
            changes.iter().rev().for_each(|change| self.change(change, true));
        }
    }

    fn change(&mut self, change: &Change, back: bool) {
        match (change, back) {
            (Change::Put(node, dir, name), false) | (Change::Take(node, dir, name), true) => {
                self.put(*node, *dir, name)
            }
            (Change::Take(node, dir, name), false) | (Change::Put(node, dir, name), true) => {
                if let Some(names) = self.names.get_mut(node) {
                    names.retain(|(d, n)| (d, &**n) != (dir, &**name));
                    if names.is_empty() {
                        self.names.remove(node);
                    }
                }
            }
        }
    }

    fn put(&mut self, node: u64, dir: u64, name: &[u8]) {
        let names = self.names.entry(node).or_default();
        if !names.iter().any(|(d, n)| (*d, &**n) == (dir, name)) {
            names.push((dir, name.into()));
        }
    }

    /// A path of the node; `None` when it was named before the oldest record.
    pub fn path(&self, node: u64) -> Option<String> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = node;
        for _ in 0..DEPTH_MAX {
            if let Some(root) = self.roots.get(&at) {
                return Some(names.iter().rev().fold(root.clone(), |path, name| path + "/" + &show::escape(name)));
            }
            let (dir, name) = self.names.get(&at)?.first()?;
            names.push(name);
            at = *dir;
        }
        None
    }

    fn child(&self, dir: u64, name: &[u8]) -> Option<String> {
        self.path(dir).map(|path| path + "/" + &show::escape(name))
    }

    fn paths_of(&self, node: u64) -> Vec<String> {
        if self.roots.contains_key(&node) {
            return self.path(node).into_iter().collect();
        }
        let names = self.names.get(&node).into_iter().flatten().take(LINKS_MAX);
        names.filter_map(|(dir, name)| self.child(*dir, name)).collect()
    }

    /// The event is about a node, of which a path is not known.
    pub fn lacks(event: &Event, paths: &[String]) -> bool {
        let nodes = match event {
            Event::Write(_)
            | Event::SetAttr(_)
            | Event::Make(_)
            | Event::Remove(_)
            | Event::Adopt(_)
            | Event::ListBegin(_)
            | Event::Listed(_) => 1,
            Event::Link(_) | Event::Rename(_) => 2,
            Event::CopyRange(e) => e.ranges.len(),
            Event::CopyDone(e) => e.ranges.len() + e.failed.len(),
            Event::Made(e) => e.objects.len(),
            _ => 0,
        };
        paths.len() < nodes
    }

    /// The paths that an event is about, as they are when its record comes by (call before [`Names::apply`]); empty for
    /// an event that is about no path, or whose path is not known.
    pub fn of(&self, event: &Event) -> Vec<String> {
        match event {
            Event::Write(e) => self.paths_of(e.node.0),
            Event::SetAttr(e) => self.paths_of(e.node.0),
            Event::Make(e) => self.child(e.dir.0, &e.name).into_iter().collect(),
            Event::Remove(e) => self.child(e.dir.0, &e.name).into_iter().collect(),
            Event::Link(e) => self.child(e.dir.0, &e.name).into_iter().chain(self.paths_of(e.node.0)).collect(),
            Event::Rename(e) => {
                let to = self.child(e.to_dir.0, &e.to_name);
                self.child(e.from_dir.0, &e.from_name).into_iter().chain(to).collect()
            }
            Event::Adopt(e) => self.paths_of(e.dir.0),
            Event::ListBegin(e) => self.paths_of(e.dir.0),
            Event::Listed(e) => self.paths_of(e.dir.0),
            Event::CopyRange(e) => e.ranges.iter().flat_map(|range| self.paths_of(range.node.0)).collect(),
            Event::CopyDone(e) => {
                let ranges = e.ranges.iter().flat_map(|range| self.paths_of(range.node.0));
                ranges.chain(e.failed.iter().flat_map(|failed| self.paths_of(failed.node.0))).collect()
            }
            Event::Made(e) => e.objects.iter().flat_map(|(node, _)| self.paths_of(node.0)).collect(),
            Event::JunctionAdded(e) => vec![show::path(&e.path)],
            _ => Vec::new(),
        }
    }
}

/// A path in a snapshot: names in hexadecimal.
pub fn snapshot_path(names: Option<&Value>) -> String {
    let names = names.and_then(Value::as_array).into_iter().flatten();
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    show::path(&names.filter_map(Value::as_str).map(bytes).collect::<Vec<_>>())
}

/// Whether `path` is `prefix` or lies below it.
pub fn below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::event::{Adopt, Adopted, Caller, Failed, Rename};
    use journal_format::ids::{Identity, JunctionId, Kind, LocationId, NodeId, Time};

    fn adopted(dir: u64, name: &str, node: u64) -> Event {
        let (identity, time) = (Identity(Vec::new()), Time(0));
        let entry =
            Adopted { name: name.into(), node: NodeId(node), kind: Kind::Dir, identity, mtime: time, ctime: time };
        let (junction, location) = (JunctionId(1), LocationId(1));
        Event::Adopt(Adopt { junction, location, dir: NodeId(dir), entries: vec![entry], complete: false })
    }

    fn rename(node: u64, from: (u64, &str), to: (u64, &str)) -> Event {
        Event::Rename(Rename {
            junction: JunctionId(1),
            location: LocationId(1),
            from_dir: NodeId(from.0),
            from_name: from.1.into(),
            to_dir: NodeId(to.0),
            to_name: to.1.into(),
            node: NodeId(node),
            kind: Kind::Dir,
            replaced: None,
            caller: Caller::default(),
        })
    }

    #[test]
    fn paths_follow_renames_and_a_failed_one_is_taken_back() {
        let mut names = Names::default();
        names.seed(&serde_json::json!({ "junctions": [{ "root": 1, "path": ["766f6c"] }] }));
        names.apply(Lsn(10), &adopted(1, "a", 2));
        names.apply(Lsn(20), &adopted(2, "b", 3));
        assert_eq!(names.path(3).as_deref(), Some("/vol/a/b"));
        let moved = rename(2, (1, "a"), (1, "c"));
        assert_eq!(names.of(&moved), ["/vol/a", "/vol/c"]);
        names.apply(Lsn(30), &moved);
        assert_eq!(names.path(3).as_deref(), Some("/vol/c/b"));
        names.apply(Lsn(40), &Event::Failed(Failed { op: Lsn(30), status: 5 }));
        assert_eq!(names.path(3).as_deref(), Some("/vol/a/b"));
        assert_eq!(names.path(99), None);
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        assert!(below("/vol/a/b", "/vol/a") && below("/vol/a", "/vol/a/") && below("/vol", "/"));
        assert!(!below("/vol/ab", "/vol/a"));
    }
}
