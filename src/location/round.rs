//! What some events ask of a location, collected: names to settle, objects to make, data and attributes to put.
//!
//! A round is the *net* of its events for names (who is there before, who should be there after), and a list in LSN
//! order per node for data. Bound: the caller stops folding at [`Round::is_full`].

use crate::filer::Changes;
use bytes::Bytes;
use journal_format::event::{Make, PartDone, Range, SetAttr};
use journal_format::ids::{Kind, Lsn, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Names and data operations in a round.
pub const OPS_MAX: usize = 8192;
/// Bytes a round carries: written from the journal, or ordered to be copied.
pub const BYTES_MAX: u64 = 64 << 20;

/// Where a new object's kind of content comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A client made it.
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
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }
}

impl DataOp {
    /// A SETATTR, without the times that are put last anyway.
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
                Self::Write { offset, data: data.slice(..n), mode }
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

#[derive(Default)]
pub struct Round {
    /// Names touched, and who was there before the round by the projection.
    pub names: BTreeMap<(NodeId, Vec<u8>), Option<NodeId>>,
    /// Nodes to make when they are not there.
    pub makes: BTreeMap<NodeId, (Kind, Origin)>,
    /// In LSN order.
    pub data: BTreeMap<NodeId, Vec<DataOp>>,
    /// Nodes whose kept times are put last.
    pub times: BTreeSet<NodeId>,
    /// Nodes that ended in the round.
    pub gone: BTreeMap<NodeId, Kind>,
    /// Every node that had, or got, a touched name in the round.
    pub placed: BTreeMap<(NodeId, Vec<u8>), Vec<NodeId>>,
    /// Nodes made in the round by the first name they got, in LSN order: where an un-`Made` object may stand.
    pub born: BTreeMap<(NodeId, Vec<u8>), Vec<NodeId>>,
    /// The same by node: where its object may be.
    pub places_of: BTreeMap<NodeId, BTreeSet<(NodeId, Vec<u8>)>>,
    /// Redo of a primary: the last operation on each name, and that of each entry of `data`. Who was refused?
    pub ops_on: BTreeMap<(NodeId, Vec<u8>), Lsn>,
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
        self.names.entry((dir, name.to_vec())).or_insert(before);
        if let Some(node) = before {
            self.placed(dir, name, node);
        }
        self.times.insert(dir);
    }

    /// `node` has, or had, this touched name at some moment of the round.
    pub fn placed(&mut self, dir: NodeId, name: &[u8], node: NodeId) {
        let nodes = self.placed.entry((dir, name.to_vec())).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
            let first = self.places_of.entry(node).or_default().insert((dir, name.to_vec()));
            let new = self.makes.contains_key(&node) || self.gone.contains_key(&node);
            if first && new && self.places_of[&node].len() == 1 {
                self.born.entry((dir, name.to_vec())).or_default().push(node);
            }
        }
    }

    /// The name is the node's alone from the round's beginning to its end, and its only one: an object made there is
    /// recognised even when the crash comes before its `Made`.
    #[must_use]
    pub fn is_plain(&self, node: NodeId, key: &(NodeId, Vec<u8>)) -> bool {
        self.places_of.get(&node).is_none_or(|places| places.len() == 1)
            && self.placed.get(key).is_none_or(|nodes| nodes.iter().all(|placed| *placed == node))
    }

    pub fn touch_times(&mut self, node: NodeId) {
        self.times.insert(node);
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
        self.bytes += match &op {
            DataOp::Write { data, .. } => data.len() as u64,
            DataOp::Copy { range, .. } => range.len,
            DataOp::Renew(renew) => renew.bytes(),
            DataOp::Set(_) => 0,
        };
        self.times.insert(node);
        self.data.entry(node).or_default().push(op);
    }

    pub fn gone(&mut self, node: NodeId, kind: Kind) {
        self.makes.remove(&node);
        self.data.remove(&node);
        self.ops_of.remove(&node);
        self.times.remove(&node);
        self.gone.insert(node, kind);
    }

    pub fn count_listed(&mut self, kind: Kind) {
        if kind == Kind::Dir {
            self.listed_dirs += 1;
        } else {
            self.listed_files += 1;
        }
    }
}
