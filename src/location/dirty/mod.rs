//! The dirty set: what a location that fell out of the journal's reach still lacks (design §4 "Full").
//!
//! A dirty set is a [`Round`] on disk. While a secondary is out of sync the fold of its projection goes on, and what
//! the rounds ask is not carried out but kept here, by node and name, in the same transaction as the projection and
//! the position: so the journal's segments before it are free, whatever the filer does. When the filer answers, the
//! set is worked off in bounded rounds ([`plan`]) that ask the filer who is there; what one was about is cleared in
//! the commit that follows its sync, and by nothing else.
//!
//! ```text
//! DN dir name node -> since   the name is dirty: this node stood there, stands there by the filer's last word, or should
//! DR node dir name            the same by node
//! DS node          -> Record  to be made, attributes, times, cut, byte ranges
//! DG node          -> kind    to be removed
//! DC               -> counts  nodes, names, bytes; objects that listings made
//! DA               -> LSN     what was noted before it may have been carried out in part
//! ```
//!
//! **Bounds.** Memory: a round. Disk: the tree. What came and went while nothing was tried leaves no trace: that is
//! what `since` and `DA` are for. What may have been tried is kept until it is worked off, and that is a round a try.
//! Ranges of one node: [`record::RANGES_MAX`].
//!
//! **Newer bytes are harmless.** Bytes and attributes are copied from the source as it is then, perhaps newer than the
//! position: what changed since is replayed behind it. So a set that has become empty is not yet in sync: the location
//! is when it has followed the journal to where that stood when the source was last read.

pub mod plan;
pub mod record;

use super::carry_out::DoneSteps;
use super::projection::{Projection, key_of, kind_from, read_node};
use super::round::{DataOp, Round};
use super::view::View;
use crate::index::store::{Key, Result};
use journal_format::ids::{Kind, Lsn, NodeId};
use record::Record;

#[derive(Clone)]
pub struct Dirty {
    pub projection: Projection,
}

/// How much is dirty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub nodes: u64,
    pub names: u64,
    /// Of ranges whose end is known; the rest is the source's to say.
    pub bytes: u64,
    /// Objects that listings made, to be told when the set is empty.
    pub listed_files: u64,
    pub listed_dirs: u64,
}

impl Counts {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.nodes == 0 && self.names == 0
    }
}

impl Dirty {
    pub fn counts(&self) -> Result<Counts> {
        let Some(bytes) = self.projection.store.get(KEY_COUNTS)? else { return Ok(Counts::default()) };
        let n = |i: usize| bytes.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Counts { nodes: n(0), names: n(1), bytes: n(2), listed_files: n(3), listed_dirs: n(4) })
    }

    pub(super) fn set_counts(&self, counts: Counts) {
        let Counts { nodes, names, bytes, listed_files, listed_dirs } = counts;
        let value = [nodes, names, bytes, listed_files, listed_dirs].map(u64::to_be_bytes).concat();
        self.projection.store.write(vec![(KEY_COUNTS.to_vec(), Some(value))]);
    }

    /// What listings made has been told; the next commit says so.
    pub fn told(&self) -> Result<()> {
        let counts = self.counts()?;
        self.set_counts(Counts { listed_files: 0, listed_dirs: 0, ..counts });
        Ok(())
    }

    /// What was noted before this may have been carried out in part.
    fn tried(&self) -> Result<Lsn> {
        let bytes = self.projection.store.get(KEY_TRIED)?;
        Ok(bytes.and_then(|b| b.try_into().ok()).map_or(Lsn(0), |b| Lsn(u64::from_be_bytes(b))))
    }

    /// To be committed before a round of the set is carried out: what is noted so far, up to `position`, may be tried.
    /// Whether there is anything new to commit.
    pub fn will_try(&self, position: Lsn) -> Result<bool> {
        let tried = position.plus(1);
        if self.tried()? == tried {
            return Ok(false);
        }
        self.projection.store.write(vec![(KEY_TRIED.to_vec(), Some(tried.0.to_be_bytes().to_vec()))]);
        Ok(true)
    }

    /// Note what a round asks instead of carrying it out. The projection has folded it already, up to `position`.
    /// `tried`: a former life may have carried out part of it. Steps in `done` are not copied again (I4).
    pub fn absorb(&self, round: &Round, position: Lsn, tried: bool, done: &DoneSteps) -> Result<()> {
        let mut counts = self.counts()?;
        let since = if tried { Lsn(0) } else { position };
        let before = self.tried()?;
        self.absorb_names(round, since, before, &mut counts)?;
        for (node, (kind, _)) in &round.makes {
            self.set_gone(*node, None, &mut counts)?;
            self.edit(*node, &mut counts, |record| {
                record.make = Some((record.make.map_or(since, |(lsn, _)| lsn), *kind));
                record.attrs = true;
            })?;
        }
        for (node, kind) in &round.gone {
            let record = self.record(*node)?.unwrap_or_default();
            let known = self.projection.objects.identity(*node)?.is_some();
            let untried = !tried && record.make.is_none_or(|(lsn, _)| is_untried(lsn, before));
            self.edit(*node, &mut counts, |record| *record = Record::default())?;
            self.set_gone(*node, (known || !untried).then_some(*kind), &mut counts)?;
        }
        for (node, ops) in &round.data {
            self.edit(*node, &mut counts, |record| ops.iter().for_each(|op| note(record, op, done)))?;
        }
        for node in &round.times {
            if self.projection.held(*node)?.is_some() {
                self.edit(*node, &mut counts, |record| record.times = true)?;
            }
        }
        counts.listed_files += round.listed_files;
        counts.listed_dirs += round.listed_dirs;
        self.set_counts(counts);
        Ok(())
    }

    fn absorb_names(&self, round: &Round, since: Lsn, tried: Lsn, counts: &mut Counts) -> Result<()> {
        for (key, touched) in &round.names {
            let before = &touched.before;
            let after = self.projection.entry(key.0, &key.1)?.map(|(node, _)| node);
            if let Some(node) = *before
                && after != Some(node)
            {
                match self.name(key, node)? {
                    // Noted and given up again with nothing tried between: the filer never saw it.
                    Some(noted) if is_untried(noted, tried) && since != Lsn(0) => self.drop_name(key, node, counts),
                    Some(_) => {}
                    None => self.add_name(key, node, Lsn(0), counts),
                }
            }
            if let Some(node) = after
                && (*before != after || round.makes.contains_key(&node))
                && self.name(key, node)?.is_none()
            {
                // Who stood there before may have the name on the filer already: an operator tries again what failed.
                let since = if *before == after { Lsn(0) } else { since };
                self.add_name(key, node, since, counts);
            }
            if since == Lsn(0) {
                for node in &touched.placed {
                    if self.name(key, *node)?.is_none() {
                        self.add_name(key, *node, since, counts);
                    }
                }
            }
        }
        Ok(())
    }

    fn name(&self, key: &(NodeId, Vec<u8>), node: NodeId) -> Result<Option<Lsn>> {
        let bytes = self.projection.store.get(&key_name(key, node))?;
        Ok(bytes.and_then(|b| b.try_into().ok()).map(|b| Lsn(u64::from_be_bytes(b))))
    }

    fn add_name(&self, key: &(NodeId, Vec<u8>), node: NodeId, since: Lsn, counts: &mut Counts) {
        counts.names += 1;
        let value = since.0.to_be_bytes().to_vec();
        self.projection
            .store
            .write(vec![(key_name(key, node), Some(value)), (key_of_node(node, key), Some(Vec::new()))]);
    }

    fn drop_name(&self, key: &(NodeId, Vec<u8>), node: NodeId, counts: &mut Counts) {
        counts.names = counts.names.saturating_sub(1);
        self.projection.store.write(vec![(key_name(key, node), None), (key_of_node(node, key), None)]);
    }

    pub fn record(&self, node: NodeId) -> Result<Option<Record>> {
        match self.projection.store.get(&key_of(*b"DS", node))? {
            None => Ok(None),
            Some(bytes) => Record::decode(&self.projection.store, &bytes).map(Some),
        }
    }

    fn edit(&self, node: NodeId, counts: &mut Counts, edit: impl FnOnce(&mut Record)) -> Result<()> {
        let old = self.record(node)?;
        let mut record = old.clone().unwrap_or_default();
        edit(&mut record);
        self.put(node, old.as_ref(), &record, counts);
        Ok(())
    }

    fn put(&self, node: NodeId, old: Option<&Record>, record: &Record, counts: &mut Counts) {
        counts.bytes = counts.bytes.saturating_sub(old.map_or(0, Record::bytes)) + record.bytes();
        counts.nodes = counts.nodes.saturating_sub(u64::from(old.is_some())) + u64::from(!record.is_empty());
        let value = (!record.is_empty()).then(|| record.encode());
        if value.is_some() || old.is_some() {
            self.projection.store.write(vec![(key_of(*b"DS", node), value)]);
        }
    }

    pub(super) fn gone(&self, node: NodeId) -> Result<Option<Kind>> {
        let bytes = self.projection.store.get(&key_of(*b"DG", node))?;
        Ok(bytes.and_then(|b| b.first().copied()).and_then(kind_from))
    }

    fn set_gone(&self, node: NodeId, kind: Option<Kind>, counts: &mut Counts) -> Result<()> {
        let old = self.gone(node)?;
        if old != kind {
            counts.nodes = counts.nodes.saturating_sub(u64::from(old.is_some())) + u64::from(kind.is_some());
            self.projection.store.write(vec![(key_of(*b"DG", node), kind.map(|kind| vec![kind as u8]))]);
        }
        Ok(())
    }
}

/// Noted at `since`, with everything before `tried` perhaps carried out; 0 is what a former life may have done.
fn is_untried(since: Lsn, tried: Lsn) -> bool {
    since != Lsn(0) && since >= tried
}

fn note(record: &mut Record, op: &DataOp, done: &DoneSteps) {
    match op {
        DataOp::Write { offset, data, mode } => {
            record.add(*offset, offset.saturating_add(data.len() as u64));
            record.attrs |= mode.is_some();
        }
        DataOp::Set(changes) => {
            if let Some(size) = changes.size {
                record.resize(size);
            }
            record.attrs = true;
        }
        DataOp::Copy { range, .. } if done.contains(&(range.node, range.offset)) => {}
        DataOp::Copy { range, .. } => {
            record.add(range.offset, range.offset.saturating_add(range.len));
            record.attrs |= range.last;
        }
        DataOp::Renew(more) => {
            if let Some(cut) = more.cut {
                record.resize(cut);
            }
            more.ranges.iter().for_each(|(start, end)| record.add(*start, *end));
            record.attrs |= more.attrs;
        }
    }
}

const KEY_COUNTS: &[u8] = b"DC";
const KEY_TRIED: &[u8] = b"DA";

/// Names hold no zero byte, so that one name's keys are no other's.
fn prefix_name((dir, name): &(NodeId, Vec<u8>)) -> Key {
    [b"DN", dir.0.to_be_bytes().as_slice(), name, &[0]].concat()
}

fn key_name(key: &(NodeId, Vec<u8>), node: NodeId) -> Key {
    [prefix_name(key).as_slice(), &node.0.to_be_bytes()].concat()
}

fn key_of_node(node: NodeId, (dir, name): &(NodeId, Vec<u8>)) -> Key {
    [b"DR", node.0.to_be_bytes().as_slice(), dir.0.to_be_bytes().as_slice(), name].concat()
}

/// A `DN` value: a former life may have carried out that this node has this name.
fn is_tried(since: &[u8]) -> bool {
    since.iter().all(|byte| *byte == 0)
}

/// The name in a `DR` key.
fn parse_place(key: &[u8]) -> Result<(NodeId, Vec<u8>)> {
    Ok((read_node(key, 10)?, key.get(18..).unwrap_or_default().to_vec()))
}

/// A `DN` key's parts.
fn parse_name(key: &[u8]) -> Result<((NodeId, Vec<u8>), NodeId)> {
    let at = key.len().saturating_sub(8);
    let name = key.get(10..at.saturating_sub(1)).unwrap_or_default().to_vec();
    Ok(((read_node(key, 2)?, name), read_node(key, at)?))
}
