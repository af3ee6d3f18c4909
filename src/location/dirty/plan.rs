//! Working a dirty set off: bounded rounds, and what each of them clears.
//!
//! 1. **Names**, so many at a time, each with every node that may stand there; and with the dirty names of all the
//!    directories on the way, since one that was not moved yet is not where the projection says. Other places of
//!    files may be in other rounds, so a round like this ([`Round::partial`]) throws nothing away that lives on: what
//!    has no other name on the filer waits in the pen.
//! 2. **What is gone**: out of the pen, where the names' rounds put directories, empty by now; identities forgotten.
//! 3. **Bytes, attributes, times**, node by node, a large file in pieces.

use super::super::copy::Source;
use super::super::projection::{PEN, key_of, read_node};
use super::super::round::{BYTES_MAX, DataOp, Origin, Renew, Round, Touched};
use super::super::view::View;
use super::super::{NAMES_TRIED_MAX, index_error};
use super::record::Record;
use super::{Dirty, is_tried, parse_name, parse_place};
use crate::filer;
use crate::index::store::Result;
use journal_format::ids::{Kind, Lsn, NodeId};
use std::collections::BTreeSet;

// Few in tests, so that their small sets are worked off in many rounds.
/// Dirty names that a round begins with.
const NAMES_MAX: usize = if cfg!(test) { 6 } else { 512 };
/// Nodes of a round without names.
const NODES_MAX: usize = if cfg!(test) { 8 } else { 1024 };
/// Places of one node that are looked at; nodes of one name that are read at a time.
const PLACES_MAX: usize = if cfg!(test) { 4 } else { 256 };

type Name = (NodeId, Vec<u8>);

/// A round of the set, and what is cleared with it.
#[derive(Default)]
pub struct Step {
    pub round: Round,
    names: Vec<(Name, NodeId)>,
    gone: Vec<NodeId>,
    /// What is left of each node's record.
    left: Vec<(NodeId, Record)>,
}

impl Dirty {
    /// What is to be done next; `None` when nothing is dirty. The set must not change until it is cleared.
    pub async fn next(&self, source: &Source) -> filer::Result<Option<Step>> {
        if let Some(step) = self.names_step().map_err(index_error)? {
            return Ok(Some(step));
        }
        if let Some(step) = self.gone_step().map_err(index_error)? {
            return Ok(Some(step));
        }
        self.data_step(source).await
    }

    /// The step was carried out and is durable on the filer; `failed` are reported, and copied anew from the beginning
    /// when somebody asks for it. To be committed before anything else.
    pub fn clear(&self, step: &Step, failed: &BTreeSet<NodeId>) -> Result<()> {
        let mut counts = self.counts()?;
        for (name, node) in &step.names {
            self.drop_name(name, *node, &mut counts);
        }
        for node in step.round.makes.keys() {
            // It may have been looked for only, where it stood for a while, and is made where another round places it.
            if self.projection.objects.identity(*node)?.is_some() {
                self.edit(*node, &mut counts, |record| record.make = None)?;
            }
        }
        for node in &step.gone {
            self.set_gone(*node, None, &mut counts)?;
        }
        for (node, left) in &step.left {
            self.edit(*node, &mut counts, |record| *record = left.clone())?;
        }
        for node in failed {
            self.edit(*node, &mut counts, |record| *record = Record::default())?;
        }
        self.set_counts(counts);
        Ok(())
    }

    fn names_step(&self) -> Result<Option<Step>> {
        let found = self.projection.store.scan(b"DN", None, NAMES_MAX)?;
        if found.is_empty() {
            return Ok(None);
        }
        let mut gather = Gather {
            dirty: self,
            step: Step::default(),
            nodes: BTreeSet::new(),
            seen: BTreeSet::new(),
            todo: Vec::new(),
        };
        gather.step.round.ask_filer = true;
        gather.step.round.partial = true;
        for (key, _) in found {
            gather.todo.push(Todo::Name(parse_name(&key)?.0));
        }
        gather.run()?;
        Ok(Some(gather.step))
    }

    fn gone_step(&self) -> Result<Option<Step>> {
        let found = self.projection.store.scan(b"DG", None, NODES_MAX)?;
        if found.is_empty() {
            return Ok(None);
        }
        let mut step = Step { round: Round::redo(), ..Step::default() };
        for (key, _) in found {
            let node = read_node(&key, 2)?;
            if let Some(kind) = self.gone(node)? {
                step.round.gone.insert(node, kind);
            }
            step.gone.push(node);
        }
        Ok(Some(step))
    }

    async fn data_step(&self, source: &Source) -> filer::Result<Option<Step>> {
        let found = self.projection.store.scan(b"DS", None, NODES_MAX).map_err(index_error)?;
        if found.is_empty() {
            return Ok(None);
        }
        let mut step = Step::default();
        for (key, value) in found {
            if step.round.bytes() >= BYTES_MAX {
                break;
            }
            let node = read_node(&key, 2).map_err(index_error)?;
            let mut record = Record::decode(&self.projection.store, &value).map_err(index_error)?;
            if record.ranges.iter().any(|(_, end)| *end == u64::MAX) {
                clip(&mut record, size(source, node).await?);
            }
            let (renew, left) = split(record.clone(), BYTES_MAX.saturating_sub(step.round.bytes()));
            if renew != Renew::default() {
                step.round.data(node, DataOp::Renew(renew));
            }
            step.round.times.remove(&node);
            if left.is_empty() && record.times {
                step.round.times.insert(node);
            }
            step.left.push((node, left));
        }
        Ok(Some(step))
    }
}

/// Size of the source now; nothing when it has gone: its REMOVE comes.
async fn size(source: &Source, node: NodeId) -> filer::Result<u64> {
    match source.object(node).await {
        Ok(Some(object)) => Ok(source.location.filer.stat(&object).await?.size),
        Ok(None) => Ok(0),
        // The renewal finds out, and reports.
        Err(error) if error.kind == filer::ErrorKind::Stale => Ok(0),
        Err(error) => Err(error),
    }
}

fn clip(record: &mut Record, size: u64) {
    record.ranges.retain_mut(|(start, end)| {
        *end = (*end).min(size);
        start < end
    });
}

/// So many bytes of a record for now, and what is left of it.
fn split(record: Record, budget: u64) -> (Renew, Record) {
    let mut renew = Renew { cut: record.cut, ..Renew::default() };
    let mut left = Record::default();
    let mut budget = budget.max(1);
    for (start, end) in record.ranges {
        let end_now = end.min(start.saturating_add(budget));
        if end_now > start {
            renew.ranges.push((start, end_now));
            budget -= end_now - start;
        }
        if end_now < end {
            left.ranges.push((end_now, end));
        }
    }
    if left.ranges.is_empty() {
        renew.attrs = record.attrs;
    } else {
        (left.attrs, left.times) = (record.attrs, record.times);
    }
    (renew, left)
}

enum Todo {
    Name(Name),
    /// A directory that must be found: the dirty names of it, and of what it is in.
    Dir(NodeId),
}

struct Gather<'a> {
    dirty: &'a Dirty,
    step: Step,
    /// Nodes, and directories, that were looked after.
    nodes: BTreeSet<NodeId>,
    seen: BTreeSet<NodeId>,
    todo: Vec<Todo>,
}

impl Gather<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Name(name) => self.name(name)?,
                Todo::Dir(dir) => self.dir(dir)?,
            }
        }
        Ok(())
    }

    fn name(&mut self, name: Name) -> Result<()> {
        if self.step.round.names.contains_key(&name) {
            return Ok(());
        }
        self.step.round.names.insert(name.clone(), Touched::default());
        self.todo.push(Todo::Dir(name.0));
        let prefix = super::prefix_name(&name);
        let mut dirs = Vec::new();
        // All of them: who is to have the name now came last.
        for (key, since) in self.all(&prefix)? {
            let node = read_node(&key, prefix.len())?;
            self.step.round.placed(name.0, &name.1, node);
            self.step.names.push((name.clone(), node));
            self.node(node)?;
            // In which order they came is not kept: an object that tain does not know may be any of those that a former
            // life may have made.
            let round = &mut self.step.round;
            if is_tried(&since) && (round.makes.contains_key(&node) || round.gone.contains_key(&node)) {
                let born = &mut round.names.entry(name.clone()).or_default().born;
                if !born.contains(&node) {
                    born.push(node);
                }
                if self.is_dir(node)? && self.dirty.projection.objects.identity(node)?.is_none() {
                    dirs.push(node);
                }
            }
        }
        // Of several directories that it may be, what is in it tells which one.
        if dirs.len() > 1 {
            for dir in dirs {
                self.inside(dir)?;
            }
        }
        Ok(())
    }

    /// The dirty names in a directory that a former life may have made there.
    fn inside(&mut self, dir: NodeId) -> Result<()> {
        for (key, since) in self.all(&key_of(*b"DN", dir))? {
            if is_tried(&since) {
                self.todo.push(Todo::Name(parse_name(&key)?.0));
            }
        }
        Ok(())
    }

    /// A node that may stand under one of the names: what is to become of it, and where else it may be.
    fn node(&mut self, node: NodeId) -> Result<()> {
        if !self.nodes.insert(node) {
            return Ok(());
        }
        if let Some(kind) = self.dirty.gone(node)? {
            self.step.round.gone.insert(node, kind);
        } else if let Some((_, kind)) = self.dirty.record(node)?.and_then(|record| record.make) {
            self.step.round.makes.insert(node, (kind, Origin::Source));
        }
        if self.is_dir(node)? {
            // It has one name: where it stands now is to be left in the same round, or it could not be placed.
            self.todo.push(Todo::Dir(node));
        }
        // What a former life made of it stands under any of the names that it may have had: this must be found before it is
        // made anew under another one.
        let unknown =
            self.step.round.makes.contains_key(&node) && self.dirty.projection.objects.identity(node)?.is_none();
        let places = if unknown { self.all_places(node)? } else { self.places(node)? };
        for place in places {
            self.todo.push(Todo::Dir(place.0));
            if unknown && self.dirty.name(&place, node)? == Some(Lsn(0)) {
                self.todo.push(Todo::Name(place.clone()));
            }
            self.step.round.add_place(node, place);
        }
        for (dir, _) in self.dirty.projection.names(node, NAMES_TRIED_MAX)? {
            self.todo.push(Todo::Dir(dir));
        }
        Ok(())
    }

    fn is_dir(&self, node: NodeId) -> Result<bool> {
        let held = self.dirty.projection.held(node)?.map(|(kind, _)| kind);
        Ok(held.or(self.dirty.gone(node)?) == Some(Kind::Dir))
    }

    fn dir(&mut self, dir: NodeId) -> Result<()> {
        if dir == PEN || !self.seen.insert(dir) {
            return Ok(());
        }
        for place in self.places(dir)? {
            self.todo.push(Todo::Name(place));
        }
        for (parent, _) in self.dirty.projection.names(dir, 1)? {
            self.todo.push(Todo::Dir(parent));
        }
        Ok(())
    }

    /// Dirty names of a node, `PLACES_MAX` at most.
    fn places(&self, node: NodeId) -> Result<Vec<Name>> {
        let found = self.dirty.projection.store.scan(&key_of(*b"DR", node), None, PLACES_MAX)?;
        found.iter().map(|(key, _)| parse_place(key)).collect()
    }

    fn all_places(&self, node: NodeId) -> Result<Vec<Name>> {
        self.all(&key_of(*b"DR", node))?.iter().map(|(key, _)| parse_place(key)).collect()
    }

    /// Of one name, or of one node that is to be made. What may have been tried bounds them (`REDO_OPS_MAX`), and the
    /// links of one file.
    fn all(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = self.dirty.projection.store.scan(prefix, None, PLACES_MAX)?;
        while found.len().is_multiple_of(PLACES_MAX)
            && let Some((last, _)) = found.last()
        {
            let more = self.dirty.projection.store.scan(prefix, Some(last), PLACES_MAX)?;
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        Ok(found)
    }
}
