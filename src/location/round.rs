//! What some events ask of a location, collected: names to settle, objects to make, data and attributes to put.
//!
//! A round is the *net* of its events for names (who is there before, who should be there after), and a list in LSN
//! order per node for data. Bound: the caller stops folding at [`Round::is_full`].

use super::keys::Keys;
use crate::filer::Changes;
use bytes::Bytes;
use journal_format::event::{self, Event, Make, PartDone, Range, SetAttr};
use journal_format::ids::{Kind, Lsn, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names and data operations in a round.
pub const OPS_MAX: usize = 8192;
/// Bytes a round carries: written from the journal, or ordered to be copied.
pub const BYTES_MAX: u64 = 64 << 20;

/// Where a new object's kind of content comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A client made it. In redo its `mtime` is the one that it is to have in the end.
    Event(Box<Make>),
    /// It is copied from the source as it is now.
    Source,
}

#[derive(Clone, Debug)]
pub enum DataOp {
    Write {
        offset: u64,
        data: Bytes,
        mode: Option<u32>,
    },
    Set(Changes),
    /// A copy step; `lsn` is its record's.
    Copy {
        lsn: Lsn,
        range: Range,
    },
    /// Of a dirty set.
    Renew(Renew),
}

/// Make a node's content the source's, as that is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renew {
    /// First: nothing behind it is the file's.
    pub cut: Option<u64>,
    /// `start..end`, ascending.
    pub ranges: Vec<(u64, u64)>,
    /// Size, mode, owner and access time as well.
    pub attrs: bool,
}

impl Renew {
    fn bytes(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, (start, end)| sum.saturating_add(end.saturating_sub(*start)))
    }
}

impl DataOp {
    /// A SETATTR, without the modification time, which is put last anyway.
    #[must_use]
    pub fn set(e: &SetAttr) -> Self {
        Self::Set(Changes { uid: e.uid, gid: e.gid, mode: e.mode, size: e.size, atime: e.atime, mtime: None })
    }

    /// What is left of an operation that ended in part.
    #[must_use]
    pub fn part(self, done: &PartDone) -> Self {
        match (self, done) {
            (Self::Write { offset, data, mode }, PartDone::Bytes(n)) => {
                let n = usize::try_from(*n).unwrap_or(usize::MAX).min(data.len());
                // Set-id bits go with the first byte.
                Self::Write { offset, data: data.slice(..n), mode: mode.filter(|_| n > 0) }
            }
            (Self::Set(c), PartDone::Attrs { mode, owner, size, times }) => Self::Set(Changes {
                uid: c.uid.filter(|_| *owner),
                gid: c.gid.filter(|_| *owner),
                mode: c.mode.filter(|_| *mode),
                size: c.size.filter(|_| *size),
                atime: c.atime.filter(|_| *times),
                mtime: c.mtime.filter(|_| *times),
            }),
            (op, _) => op,
        }
    }
}

/// What happened of an event of which only a part was done; `None` when nothing of it was.
#[must_use]
pub fn part_of(event: Event, done: &PartDone) -> Option<Event> {
    match (event, done) {
        (Event::Write(write), PartDone::Bytes(bytes)) => {
            (*bytes > 0).then_some(Event::Write(event::Write { len: *bytes, ..write }))
        }
        (Event::SetAttr(set), PartDone::Attrs { mode, owner, size, times }) => (*mode || *owner || *size || *times)
            .then(|| {
                Event::SetAttr(event::SetAttr {
                    mode: set.mode.filter(|_| *mode),
                    uid: set.uid.filter(|_| *owner),
                    gid: set.gid.filter(|_| *owner),
                    size: set.size.filter(|_| *size),
                    atime: set.atime.filter(|_| *times),
                    mtime: set.mtime.filter(|_| *times),
                    ..set
                })
            }),
        _ => None,
    }
}

pub type Key = (NodeId, Vec<u8>);

/// A name that the round touches.
#[derive(Default)]
pub struct Touched {
    /// Who was there before the round, by the projection.
    pub before: Option<NodeId>,
    /// Every node that had, or got, the name in the round.
    pub placed: Vec<NodeId>,
    /// Those made in the round that got it as their first, in LSN order: an un-`Made` object here is one of them.
    pub born: Vec<NodeId>,
    /// Redo of a primary: the last operation on it. Who was refused?
    pub op: Option<Lsn>,
}

#[derive(Default)]
pub struct Round {
    pub names: BTreeMap<Key, Touched>,
    /// Nodes to make when they are not there.
    pub makes: BTreeMap<NodeId, (Kind, Origin)>,
    /// In LSN order.
    pub data: BTreeMap<NodeId, Vec<DataOp>>,
    /// Nodes whose kept times are put last.
    pub times: BTreeSet<NodeId>,
    /// Nodes that ended in the round.
    pub gone: BTreeMap<NodeId, Kind>,
    /// Directories that a client made and that ended in the round: where they were made. What was made in them hands
    /// on, or has, what they had.
    ended_dirs: BTreeMap<NodeId, NodeId>,
    /// Where a node's object may be.
    places: HashMap<NodeId, Keys>,
    /// Redo of a primary: the operation of each entry of `data`. Who was refused?
    pub ops_of: BTreeMap<NodeId, Vec<Lsn>>,
    /// Do not believe what was before: ask the filer (redo, retry).
    pub ask_filer: bool,
    /// Further places of these nodes are in other rounds: what lives on is kept, and what is gone is not cleared away.
    pub partial: bool,
    /// Files and directories that listings made.
    pub listed_files: u64,
    pub listed_dirs: u64,
    ops: usize,
    bytes: u64,
}

impl Round {
    /// A round that asks the filer who is there.
    #[must_use]
    pub fn redo() -> Self {
        Self { ask_filer: true, ..Self::default() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops == 0 && self.times.is_empty()
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ops >= OPS_MAX || self.bytes >= BYTES_MAX
    }

    #[must_use]
    pub fn ops(&self) -> usize {
        self.ops
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn touch_name(&mut self, dir: NodeId, name: &[u8], before: Option<NodeId>) {
        self.ops += 1;
        self.names.entry((dir, name.to_vec())).or_insert_with(|| Touched { before, ..Touched::default() });
        if let Some(node) = before {
            self.placed(dir, name, node);
        }
        self.times.insert(dir);
    }

    /// Redo of a primary: the operation at `op` gave the node this name, or took it away.
    pub fn touch_by(&mut self, op: Lsn, dir: NodeId, name: &[u8], node: NodeId) {
        self.ops += 1;
        self.times.insert(dir);
        self.put(dir, name, node, Some(op));
    }

    /// `node` has, or had, this touched name at some moment of the round.
    pub fn placed(&mut self, dir: NodeId, name: &[u8], node: NodeId) {
        self.put(dir, name, node, None);
    }

    fn put(&mut self, dir: NodeId, name: &[u8], node: NodeId, op: Option<Lsn>) {
        let key = (dir, name.to_vec());
        let touched = self.names.entry(key.clone()).or_default();
        touched.op = op.or(touched.op);
        let places = self.places.get(&node);
        // A new place need not be looked for, and one that has been is mostly the last: a name may have had very many.
        let has_been = places.is_some_and(|places| places.contains(&key));
        if has_been && touched.placed.iter().rev().any(|placed| *placed == node) {
            return;
        }
        push(&mut touched.placed, node);
        if places.is_none() && (self.makes.contains_key(&node) || self.gone.contains_key(&node)) {
            push(&mut touched.born, node);
        }
        self.places.entry(node).or_default().insert(key);
    }

    /// `node` may be there, whether the round touches that name or not.
    pub fn add_place(&mut self, node: NodeId, key: Key) {
        self.places.entry(node).or_default().insert(key);
    }

    /// Where the node may be, by the round.
    pub fn places_of(&self, node: NodeId) -> impl Iterator<Item = &Key> {
        self.places.get(&node).into_iter().flat_map(Keys::iter)
    }

    /// The round touches, or may look at, a name of the node.
    #[must_use]
    pub fn is_about(&self, node: NodeId) -> bool {
        self.places_of(node).next().is_some()
    }

    /// The last operation on the name.
    #[must_use]
    pub fn op_on(&self, key: &Key) -> Option<Lsn> {
        self.names.get(key).and_then(|touched| touched.op)
    }

    /// The name is the node's alone from the round's beginning to its end, and its only one: an object made there is
    /// recognised even when the crash comes before its `Made`.
    #[must_use]
    pub fn is_plain(&self, node: NodeId, key: &Key) -> bool {
        self.places_of(node).nth(1).is_none()
            && self.names.get(key).is_none_or(|touched| touched.placed.iter().all(|placed| *placed == node))
    }

    pub fn touch_times(&mut self, node: NodeId) {
        self.times.insert(node);
    }

    /// What a node that a client made is to have in the end, where nothing was done to it since but to set that: made
    /// like this it is as it should be, and need not be found again.
    #[must_use]
    pub fn in_the_end(&self, node: NodeId) -> Option<Changes> {
        let Some((kind, Origin::Event(e))) = self.makes.get(&node) else { return None };
        let made = Changes {
            uid: Some(e.uid),
            gid: Some(e.gid),
            mode: Some(e.mode),
            size: Some(e.size).filter(|size| *size > 0),
            atime: e.atime,
            // A directory gets its own when what is in it has its place.
            mtime: e.mtime.filter(|_| *kind != Kind::Dir),
        };
        self.data.get(&node).into_iter().flatten().try_fold(made, |so_far, op| match op {
            DataOp::Set(c) => Some(Changes {
                uid: c.uid.or(so_far.uid),
                gid: c.gid.or(so_far.gid),
                mode: c.mode.or(so_far.mode),
                size: c.size.or(so_far.size),
                atime: c.atime.or(so_far.atime),
                mtime: so_far.mtime,
            }),
            DataOp::Write { .. } | DataOp::Copy { .. } | DataOp::Renew(_) => None,
        })
    }

    /// The node was made in this round, and then its modification time changed.
    pub fn modified(&mut self, node: NodeId, mtime: Time) {
        if let Some((_, Origin::Event(e))) = self.makes.get_mut(&node) {
            e.mtime = Some(mtime);
        }
    }

    /// To be told before the node's first name is [`placed`](Self::placed).
    pub fn make(&mut self, node: NodeId, kind: Kind, origin: Origin) {
        self.ops += 1;
        self.gone.remove(&node);
        self.times.insert(node);
        self.makes.insert(node, (kind, origin));
    }

    pub fn data(&mut self, node: NodeId, op: DataOp) {
        self.ops += 1;
        // A step may span a hole of any length.
        self.bytes = self.bytes.saturating_add(match &op {
            DataOp::Write { data, .. } => data.len() as u64,
            DataOp::Copy { range, .. } => range.len,
            DataOp::Renew(renew) => renew.bytes(),
            DataOp::Set(_) => 0,
        });
        self.times.insert(node);
        push(self.data.entry(node).or_default(), op);
    }

    pub fn gone(&mut self, node: NodeId, kind: Kind) {
        if let Some((Kind::Dir, Origin::Event(made))) = self.makes.remove(&node) {
            self.ended_dirs.insert(node, made.dir);
        }
        self.data.remove(&node);
        self.ops_of.remove(&node);
        self.times.remove(&node);
        self.gone.insert(node, kind);
    }

    /// Where a client made this directory, if that was in the round.
    #[must_use]
    pub fn made_in(&self, dir: NodeId) -> Option<NodeId> {
        match self.makes.get(&dir) {
            Some((_, Origin::Event(made))) => Some(made.dir),
            Some((_, Origin::Source)) => None,
            None => self.ended_dirs.get(&dir).copied(),
        }
    }

    /// Directories that the round may have made.
    #[must_use]
    pub fn dirs_made_max(&self) -> usize {
        self.makes.len() + self.ended_dirs.len()
    }

    pub fn count_listed(&mut self, kind: Kind) {
        if kind == Kind::Dir {
            self.listed_dirs += 1;
        } else {
            self.listed_files += 1;
        }
    }
}

/// Most lists here have one entry, and there may be a million of them: room for the first alone.
pub fn push<T>(list: &mut Vec<T>, item: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::event::Caller;
    use journal_format::ids::{JunctionId, LocationId};

    fn a_write() -> event::Write {
        event::Write {
            junction: JunctionId(1),
            location: LocationId(1),
            node: NodeId(5),
            offset: 10,
            len: 100,
            mode: None,
            caller: Caller::default(),
        }
    }

    #[test]
    fn part_of_a_write_is_its_first_bytes() {
        let part = part_of(Event::Write(a_write()), &PartDone::Bytes(40));
        assert_eq!(part, Some(Event::Write(event::Write { len: 40, ..a_write() })));
        assert_eq!(part_of(Event::Write(a_write()), &PartDone::Bytes(0)), None);
    }

    #[test]
    fn of_a_write_that_wrote_nothing_not_even_its_set_id_bits_are_cleared() {
        let left = |bytes| {
            let write = DataOp::Write { offset: 10, data: Bytes::from_static(&[7; 100]), mode: Some(0o755) };
            match write.part(&PartDone::Bytes(bytes)) {
                DataOp::Write { offset: 10, data, mode } => (data.len(), mode),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((left(0), left(1)), ((0, None), (1, Some(0o755))));
    }

    #[test]
    fn part_of_a_setattr_is_the_groups_that_were_set() {
        let set = event::SetAttr {
            junction: JunctionId(1),
            location: LocationId(1),
            node: NodeId(5),
            mode: Some(0o600),
            uid: Some(1),
            gid: Some(2),
            size: Some(3),
            atime: Some(Time(4)),
            mtime: Some(Time(5)),
            caller: Caller::default(),
        };
        let done = PartDone::Attrs { mode: true, owner: true, size: false, times: false };
        let expected = event::SetAttr { size: None, atime: None, mtime: None, ..set.clone() };
        assert_eq!(part_of(Event::SetAttr(set.clone()), &done), Some(Event::SetAttr(expected)));
        let nothing = PartDone::Attrs { mode: false, owner: false, size: false, times: false };
        assert_eq!(part_of(Event::SetAttr(set), &nothing), None);
    }
}
