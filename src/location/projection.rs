//! What a secondary should hold, as of its replayer's position: a pure fold of the journal, kept in the location's own
//! store so that it costs disk, not memory.
//!
//! ```text
//! directories   absent ──(its parent's page, or an operation)──► made ──ListBegin──► listing ──last page──► listed
//! files         absent ──(same)──► partial ──last CopyRange──► present        (unreadable source ──► incomplete)
//! others        absent ──► present
//! ```
//!
//! An event is judged by these states *as of its own LSN* (design §6): what happens in a directory that is neither
//! listing nor listed is not replayed, the listing will meet the result; what happens to a node that is absent is not
//! replayed, the copy will meet the result. Names here are a subset of the junction's names at that LSN, always. A node
//! whose names have all gone into unlisted directories waits in the pen ([`PEN`]) under its node id; when none of these
//! is left and it still waits, its names are outside the tree, and it goes.
//!
//! The fold writes the store's overlay and collects what is to be carried out in a [`Round`]; it does no I/O on filers.

use super::round::{DataOp, Origin, Renew, Round};
use super::view::View;
use crate::index::objects::Objects;
use crate::index::store::{Error, Result, Store};
use crate::journal::Record;
use journal_format::event::{CopyRange, Event, Link, Listed, ListedEntry, Make, Remove, Rename, SetAttr, What, Write};
use journal_format::ids::{JunctionId, Kind, LocationId, Lsn, NodeId};
use std::sync::Arc;

/// The pen as a directory: no node has this id.
pub const PEN: NodeId = NodeId(0);

/// Nodes, or names of one, that are dealt with in one event: it lies in one round.
const AT_ONCE: usize = 1 << 16;

/// How much of a node the secondary holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Directory made; its listing is queued.
    Made,
    /// Directory being listed since `begin`.
    Listing { begin: Lsn },
    /// Directory listed.
    Listed,
    /// File whose bytes before `ordered_to` have been ordered.
    Partial { ordered_to: u64 },
    /// All there (files), or nothing to copy (others).
    Present,
    /// File that could not be copied; waits for a retry.
    Incomplete,
}

/// What is left to do, kept beside the names so that it is exact at every position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    pub dirs: u64,
    pub files: u64,
    pub incomplete: u64,
    /// Nodes that wait in the pen.
    pub limbo: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Directories to list.
    Dirs = b'd' as isize,
    /// Directories whose listing has begun.
    Listing = b'l' as isize,
    /// Files to order.
    Files = b'f' as isize,
    /// Files that failed.
    Failed = b'x' as isize,
}

#[derive(Clone)]
pub struct Projection {
    pub store: Arc<Store>,
    pub objects: Objects,
    pub location: LocationId,
    pub junction: JunctionId,
}

impl Projection {
    /// A destination's first state, durable: its root is made, everything else absent.
    pub fn begin(&self, root: NodeId, start: Lsn) -> Result<()> {
        if self.held(root)?.is_none() {
            self.set_held(root, Some((Kind::Dir, Held::Made)))?;
            self.store.commit(start)?;
        }
        Ok(())
    }

    /// Whether it has folded what the journal does not hold, or the journal was cut since it was begun: see [`note_cut`].
    pub fn is_ahead(&self, durable: Lsn) -> Result<bool> {
        Ok(self.store.lsn() > durable || self.store.get(KEY_CUT)?.is_some())
    }

    pub fn held(&self, node: NodeId) -> Result<Option<(Kind, Held)>> {
        match self.store.get(&key_state(node))? {
            None => Ok(None),
            Some(bytes) => decode_state(&bytes).map(Some),
        }
    }

    pub fn pending(&self) -> Result<Pending> {
        let Some(bytes) = self.store.get(KEY_PENDING)? else { return Ok(Pending::default()) };
        let n = |i: usize| bytes.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Pending { dirs: n(0), files: n(1), incomplete: n(2), limbo: n(3) })
    }

    fn set_pending(&self, pending: Pending) {
        self.store.write(vec![(KEY_PENDING.to_vec(), Some(pending.encode()))]);
    }

    /// Up to `limit` nodes of a queue behind `after`.
    pub fn queued(&self, queue: Queue, after: Option<NodeId>, limit: usize) -> Result<Vec<NodeId>> {
        let after = after.map(|node| key_queue(queue, node));
        let pairs = self.store.scan(&[b'q', queue as u8], after.as_deref(), limit)?;
        pairs.iter().map(|(key, _)| read_node(key, 2)).collect()
    }

    fn entry_raw(&self, dir: NodeId, name: &[u8]) -> Result<Option<(NodeId, Kind)>> {
        let Some(bytes) = self.store.get(&key_name(dir, name))? else { return Ok(None) };
        let kind = bytes.get(8).copied().and_then(kind_from).ok_or_else(|| corrupt("kind of a name"))?;
        Ok(Some((read_node(&bytes, 0)?, kind)))
    }

    /// Whether name operations in the directory are replayed.
    fn takes_names(&self, dir: NodeId) -> Result<bool> {
        Ok(matches!(self.held(dir)?, Some((_, Held::Listing { .. } | Held::Listed))))
    }

    fn set_held(&self, node: NodeId, to: Option<(Kind, Held)>) -> Result<()> {
        let from = self.held(node)?;
        let mut pending = self.pending()?;
        let mut changes = Vec::with_capacity(4);
        if let Some((_, held)) = from {
            pending.count(held, false);
            if let Some(queue) = queue_of(held) {
                changes.push((key_queue(queue, node), None));
            }
        }
        if let Some((_, held)) = to {
            pending.count(held, true);
            if let Some(queue) = queue_of(held) {
                changes.push((key_queue(queue, node), Some(Vec::new())));
            }
        }
        changes.push((KEY_PENDING.to_vec(), Some(pending.encode())));
        changes.push((key_state(node), to.map(encode_state)));
        self.store.write(changes);
        Ok(())
    }

    fn add_name(&self, round: &mut Round, dir: NodeId, name: &[u8], node: NodeId, kind: Kind) -> Result<()> {
        round.touch_name(dir, name, self.entry_raw(dir, name)?.map(|(node, _)| node));
        round.placed(dir, name, node);
        let mut value = node.0.to_be_bytes().to_vec();
        value.push(kind as u8);
        self.store.write(vec![(key_name(dir, name), Some(value)), (key_names_of(node, dir, name), Some(Vec::new()))]);
        if dir == PEN {
            let pending = self.pending()?;
            self.set_pending(Pending { limbo: pending.limbo + 1, ..pending });
        } else {
            self.drop_name_if(round, PEN, pen_name(node).as_slice(), node)?;
        }
        Ok(())
    }

    fn drop_name_if(&self, round: &mut Round, dir: NodeId, name: &[u8], node: NodeId) -> Result<bool> {
        match self.entry_raw(dir, name)? {
            Some((there, _)) if there == node => {
                round.touch_name(dir, name, Some(node));
                self.store.write(vec![(key_name(dir, name), None), (key_names_of(node, dir, name), None)]);
                if dir == PEN {
                    let pending = self.pending()?;
                    self.set_pending(Pending { limbo: pending.limbo.saturating_sub(1), ..pending });
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A name has gone; `last` says that the node has. A node that lives on without a name here waits in the pen.
    fn unlink(&self, round: &mut Round, dir: NodeId, name: &[u8], node: NodeId, last: bool) -> Result<()> {
        let Some((kind, held)) = self.held(node)? else { return Ok(()) };
        ask_where_it_is(round, held);
        self.drop_name_if(round, dir, name, node)?;
        if last {
            self.end(round, node, kind)?;
        } else if self.names_raw(node, 1)?.is_empty() {
            self.add_name(round, PEN, &pen_name(node), node, kind)?;
        }
        Ok(())
    }

    fn end(&self, round: &mut Round, node: NodeId, kind: Kind) -> Result<()> {
        for (dir, name) in self.names_raw(node, usize::MAX)? {
            self.drop_name_if(round, dir, &name, node)?;
        }
        self.set_held(node, None)?;
        round.gone(node, kind);
        Ok(())
    }

    /// With every directory listed, who waits in the pen has no name in the tree: the names that it has left lie outside,
    /// and the secondary has none of them. Should a client that holds it open link it again, it is copied again.
    fn leave_limbo(&self, round: &mut Round) -> Result<()> {
        let pending = self.pending()?;
        if pending.limbo == 0 || pending.dirs > 0 || (pending.incomplete > 0 && self.has_failed_dirs()?) {
            return Ok(());
        }
        let pen = [b"n".as_slice(), &PEN.0.to_be_bytes()].concat();
        for (_, value) in self.store.scan(&pen, None, AT_ONCE)? {
            let node = read_node(&value, 0)?;
            match self.held(node)? {
                Some((kind, _)) if kind != Kind::Dir => {
                    tracing::info!(location = %self.location, %node,
                        "the names that a file has left lie outside the junction: it is removed from the secondary");
                    self.end(round, node, kind)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A directory that could not be listed may have anybody in it.
    fn has_failed_dirs(&self) -> Result<bool> {
        let failed = self.queued(Queue::Failed, None, AT_ONCE)?;
        if failed.len() == AT_ONCE {
            return Ok(true); // there may be more
        }
        for node in failed {
            if matches!(self.held(node)?, Some((Kind::Dir, _))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn names_raw(&self, node: NodeId, limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>> {
        let mut prefix = vec![b'r'];
        prefix.extend_from_slice(&node.0.to_be_bytes());
        let limit = limit.min(AT_ONCE);
        self.store
            .scan(&prefix, None, limit)?
            .into_iter()
            .map(|(key, _)| Ok((read_node(&key, 9)?, key[17..].to_vec())))
            .collect()
    }

    /// A node met without its making being replayed: made from the source as it is, and queued.
    fn make_from_source(&self, round: &mut Round, node: NodeId, kind: Kind) -> Result<()> {
        let held = match kind {
            Kind::Dir => Held::Made,
            Kind::File => Held::Partial { ordered_to: 0 },
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => Held::Present,
        };
        self.set_held(node, Some((kind, held)))?;
        round.make(node, kind, Origin::Source);
        Ok(())
    }

    /// Fold one record; what it asks of the location goes into `round`. Records of other junctions and locations, and
    /// operations that failed, are for the caller to leave out.
    pub fn fold(&self, round: &mut Round, record: &Record) -> Result<()> {
        match &record.event {
            Event::Write(e) => self.write(round, record, e),
            Event::SetAttr(e) => self.set_attr(round, e),
            Event::Make(e) => self.make(round, e),
            Event::Remove(e) => self.remove(round, e).and_then(|()| self.leave_limbo(round)),
            Event::Rename(e) => self.rename(round, e).and_then(|()| self.leave_limbo(round)),
            Event::Link(e) => self.link(round, e),
            Event::ListBegin(e) => self.list_begin(record.lsn, e.dir),
            Event::Listed(e) => self.listed(round, e).and_then(|()| self.leave_limbo(round)),
            Event::CopyRange(e) => self.copy_range(round, record.lsn, e),
            Event::CopyDone(e) => e.failed.iter().try_for_each(|failed| self.set_incomplete(failed.node)),
            _ => Ok(()),
        }
    }

    fn write(&self, round: &mut Round, record: &Record, e: &Write) -> Result<()> {
        if self.held(e.node)?.is_some() {
            let mode = e.mode;
            round.data(e.node, DataOp::Write { offset: e.offset, data: record.bulk.clone(), mode });
        }
        Ok(())
    }

    /// What is to be brought over as the source has it now; of a node that is absent the copy will.
    pub fn renew(&self, round: &mut Round, node: NodeId, renew: Renew) -> Result<()> {
        if self.held(node)?.is_some() {
            round.data(node, DataOp::Renew(renew));
        }
        Ok(())
    }

    fn set_attr(&self, round: &mut Round, e: &SetAttr) -> Result<()> {
        if self.held(e.node)?.is_some() {
            round.data(e.node, DataOp::set(e));
        }
        Ok(())
    }

    fn make(&self, round: &mut Round, e: &Make) -> Result<()> {
        if !self.takes_names(e.dir)? {
            return Ok(());
        }
        let kind = e.what.kind();
        let held = if matches!(e.what, What::Dir) { Held::Listed } else { Held::Present };
        self.set_held(e.node, Some((kind, held)))?;
        round.make(e.node, kind, Origin::Event(Box::new(e.clone())));
        self.add_name(round, e.dir, &e.name, e.node, kind)
    }

    fn remove(&self, round: &mut Round, e: &Remove) -> Result<()> {
        self.touch_times(round, e.dir)?;
        self.unlink(round, e.dir, &e.name, e.node, e.last)
    }

    fn rename(&self, round: &mut Round, e: &Rename) -> Result<()> {
        if let Some(replaced) = e.replaced {
            self.unlink(round, e.to_dir, &e.to_name, replaced.node, replaced.last)?;
        }
        let into = self.takes_names(e.to_dir)?;
        let held = self.held(e.node)?;
        let known = held.is_some();
        if let Some((_, held)) = held {
            ask_where_it_is(round, held);
        }
        self.drop_name_if(round, e.from_dir, &e.from_name, e.node)?;
        if into {
            if !known {
                self.make_from_source(round, e.node, e.kind)?;
            }
            self.add_name(round, e.to_dir, &e.to_name, e.node, e.kind)?;
        } else if known && self.names_raw(e.node, 1)?.is_empty() {
            self.add_name(round, PEN, &pen_name(e.node), e.node, e.kind)?;
        }
        self.touch_times(round, e.from_dir)?;
        self.touch_times(round, e.to_dir)
    }

    fn touch_times(&self, round: &mut Round, dir: NodeId) -> Result<()> {
        if self.held(dir)?.is_some() {
            round.touch_times(dir);
        }
        Ok(())
    }

    fn link(&self, round: &mut Round, e: &Link) -> Result<()> {
        if self.takes_names(e.dir)? {
            if self.held(e.node)?.is_none() {
                self.make_from_source(round, e.node, e.kind)?;
            }
            self.add_name(round, e.dir, &e.name, e.node, e.kind)?;
        }
        Ok(())
    }

    fn list_begin(&self, lsn: Lsn, dir: NodeId) -> Result<()> {
        // A second order for a directory that is under way, or is gone, is void.
        if let Some((Kind::Dir, Held::Made)) = self.held(dir)? {
            self.set_held(dir, Some((Kind::Dir, Held::Listing { begin: lsn })))?;
        }
        Ok(())
    }

    fn listed(&self, round: &mut Round, e: &Listed) -> Result<()> {
        let Some((_, Held::Listing { .. })) = self.held(e.dir)? else { return Ok(()) };
        for ListedEntry { name, node, kind } in &e.entries {
            if self.entry_raw(e.dir, name)?.is_some_and(|(there, _)| there == *node) {
                continue; // an operation made it already
            }
            if self.held(*node)?.is_none() {
                self.make_from_source(round, *node, *kind)?;
                round.count_listed(*kind);
            }
            self.add_name(round, e.dir, name, *node, *kind)?;
        }
        round.touch_times(e.dir);
        if e.last {
            self.set_held(e.dir, Some((Kind::Dir, Held::Listed)))?;
        }
        Ok(())
    }

    fn copy_range(&self, round: &mut Round, lsn: Lsn, e: &CopyRange) -> Result<()> {
        for range in &e.ranges {
            let Some((kind, Held::Partial { ordered_to })) = self.held(range.node)? else { continue };
            if range.offset != ordered_to {
                continue; // ordered twice: the first order counts
            }
            let held = if range.last {
                Held::Present
            } else {
                Held::Partial { ordered_to: range.offset.saturating_add(range.len) }
            };
            self.set_held(range.node, Some((kind, held)))?;
            round.data(range.node, DataOp::Copy { lsn, range: range.clone() });
        }
        Ok(())
    }

    /// A step failed (or its source did): the file waits for a retry.
    pub fn set_incomplete(&self, node: NodeId) -> Result<()> {
        match self.held(node)? {
            Some((kind, _)) => self.set_held(node, Some((kind, Held::Incomplete))),
            None => Ok(()),
        }
    }

    /// What lies below directories that failed is tried again with them, whatever is known of it. In the life that met the
    /// failure nothing was carried out below them from then on; whoever folds the journal alone hears of it only when it had
    /// been recorded.
    pub fn doubt_below_failed(&self) -> Result<()> {
        let mut goes_on = true;
        while std::mem::take(&mut goes_on) {
            let mut after = None;
            loop {
                let page = self.queued(Queue::Failed, after, AT_ONCE)?;
                let Some(last) = page.last() else { break };
                after = Some(*last);
                for node in page {
                    goes_on |= self.doubt_names_in(node)?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is a directory among those that were not doubted before.
    fn doubt_names_in(&self, dir: NodeId) -> Result<bool> {
        let prefix = key_name(dir, b"");
        let (mut after, mut met_dir): (Option<Vec<u8>>, bool) = (None, false);
        loop {
            let page = self.store.scan(&prefix, after.as_deref(), AT_ONCE)?;
            let Some((last, _)) = page.last() else { return Ok(met_dir) };
            after = Some(last.clone());
            for (_, value) in &page {
                let node = read_node(value, 0)?;
                if let Some((kind, held)) = self.held(node)?.filter(|(_, held)| *held != Held::Incomplete) {
                    tracing::debug!(%node, ?held, "it lies in a directory that failed, and is tried again");
                    met_dir |= kind == Kind::Dir;
                    self.set_incomplete(node)?;
                }
            }
        }
    }

    /// Try what failed again, from its beginning: the round asks the filer what is there, and makes what is missing.
    pub fn retry_failed(&self, round: &mut Round) -> Result<()> {
        for node in self.queued(Queue::Failed, None, AT_ONCE)? {
            let kind = self.held(node)?.map_or(Kind::File, |(kind, _)| kind);
            self.make_from_source(round, node, kind)?;
            for (dir, name) in self.names_raw(node, AT_ONCE)? {
                round.touch_name(dir, &name, Some(node));
            }
            round.ask_filer = true;
        }
        self.leave_limbo(round)
    }
}

impl View for Projection {
    fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<(NodeId, Kind)>> {
        self.entry_raw(dir, name)
    }
    fn names(&self, node: NodeId, limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>> {
        self.names_raw(node, limit)
    }
}

impl Pending {
    /// Nothing is missing, and nobody waits for a place.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.dirs + self.files + self.incomplete + self.limbo == 0
    }

    fn encode(self) -> Vec<u8> {
        [self.dirs, self.files, self.incomplete, self.limbo].map(u64::to_be_bytes).concat()
    }

    fn count(&mut self, held: Held, more: bool) {
        let bin = match held {
            Held::Made | Held::Listing { .. } => &mut self.dirs,
            Held::Partial { .. } => &mut self.files,
            Held::Incomplete => &mut self.incomplete,
            Held::Listed | Held::Present => return,
        };
        *bin = if more { *bin + 1 } else { bin.saturating_sub(1) };
    }
}

/// What could not be given its name waits in the pen, although it has that name here: only the filer knows.
fn ask_where_it_is(round: &mut Round, held: Held) {
    round.ask_filer |= held == Held::Incomplete;
}

/// Name of a node in the pen.
#[must_use]
pub fn pen_name(node: NodeId) -> Vec<u8> {
    node.0.to_string().into_bytes()
}

const KEY_PENDING: &[u8] = b"p";
/// There when the journal was cut.
const KEY_CUT: &[u8] = b"c";

/// A repair has cut the journal of this secondary. Noted in its store before anything comes, for later that cannot be told
/// any more.
pub fn note_cut(store: &Store) -> Result<()> {
    store.write(vec![(KEY_CUT.to_vec(), Some(Vec::new()))]);
    store.commit(store.lsn())
}

fn key_name(dir: NodeId, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + name.len());
    key.push(b'n');
    key.extend_from_slice(&dir.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

fn key_names_of(node: NodeId, dir: NodeId, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(17 + name.len());
    key.push(b'r');
    key.extend_from_slice(&node.0.to_be_bytes());
    key.extend_from_slice(&dir.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// A key of two letters and a node.
pub(super) fn key_of(letters: [u8; 2], node: NodeId) -> Vec<u8> {
    [letters.as_slice(), &node.0.to_be_bytes()].concat()
}

fn key_state(node: NodeId) -> Vec<u8> {
    let mut key = vec![b's'];
    key.extend_from_slice(&node.0.to_be_bytes());
    key
}

fn key_queue(queue: Queue, node: NodeId) -> Vec<u8> {
    let mut key = vec![b'q', queue as u8];
    key.extend_from_slice(&node.0.to_be_bytes());
    key
}

fn queue_of(held: Held) -> Option<Queue> {
    match held {
        Held::Made => Some(Queue::Dirs),
        Held::Listing { .. } => Some(Queue::Listing),
        Held::Partial { .. } => Some(Queue::Files),
        Held::Incomplete => Some(Queue::Failed),
        Held::Listed | Held::Present => None,
    }
}

fn encode_state((kind, held): (Kind, Held)) -> Vec<u8> {
    let (tag, number) = match held {
        Held::Made => (1, 0),
        Held::Listing { begin } => (2, begin.0),
        Held::Listed => (3, 0),
        Held::Partial { ordered_to } => (4, ordered_to),
        Held::Present => (5, 0),
        Held::Incomplete => (6, 0),
    };
    let mut bytes = vec![kind as u8, tag];
    bytes.extend_from_slice(&u64::to_be_bytes(number));
    bytes
}

fn decode_state(bytes: &[u8]) -> Result<(Kind, Held)> {
    let kind = bytes.first().copied().and_then(kind_from).ok_or_else(|| corrupt("kind of a node"))?;
    let number =
        bytes.get(2..10).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or_else(|| corrupt("state"))?;
    let held = match bytes[1] {
        1 => Held::Made,
        2 => Held::Listing { begin: Lsn(number) },
        3 => Held::Listed,
        4 => Held::Partial { ordered_to: number },
        5 => Held::Present,
        6 => Held::Incomplete,
        _ => return Err(corrupt("state of a node")),
    };
    Ok((kind, held))
}

pub(super) fn kind_from(byte: u8) -> Option<Kind> {
    Some(match byte {
        1 => Kind::File,
        2 => Kind::Dir,
        3 => Kind::Symlink,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::Char,
        7 => Kind::Block,
        _ => return None,
    })
}

pub(super) fn read_node(bytes: &[u8], at: usize) -> Result<NodeId> {
    let id = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    id.map(NodeId).ok_or_else(|| corrupt("node id"))
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt { path: "projection".into(), what: what.into() }
}
