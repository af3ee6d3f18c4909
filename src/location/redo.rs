//! Redo of a primary from its cursor (design §4 "Recovery of a location").
//!
//! Readings of the journal from the cursor on: how operations ended; what they ask of the location, as one [`Round`], and
//! who should be where at the end; last, when the filer has taken it all, the live index.
//!
//! # Operations in doubt
//!
//! Before `doubt_from` (what the index had committed, when the service began) every operation has ended: the live index
//! holds it, and it must be redone. From there on an operation without an end counts as done, but nobody knows; so the
//! live index is folded with these only afterwards ([`fold_tail`]), and until then they are a [`Tail`] over it. One that
//! the filer refuses for good, with its effect absent, is returned as [`Refused`]; the caller appends its `Failed`
//! (or `Partial`) and calls again: the same redo without it puts back what had been moved out of its way.
//!
//! | the filer holds, of what was carried out since the cursor          | redo                                         |
//! | ------------------------------------------------------------------ | -------------------------------------------- |
//! | everything (kill -9)                                               | finds each object in its place; writes again |
//! | nothing, or any part of it (power cut, failed sync)                | places, makes and writes what is missing     |
//! | an object that was made, its `Made` not durable                    | recognises it ([`newborn`](super::newborn))  |
//! | an object with the identity of one that was lost                   | tells them apart: identities hold the birth  |
//! | a node's name, not its other, younger one (a LINK was lost)        | parks it, gives the other name, then takes   |
//! | objects in the pen (a crash in redo)                               | gives them their places, or clears them away |
//! | an object tain does not know, where it does not matter             | leaves it alone                              |
//! | the same, where a name is needed                                   | refused: `Exists`                            |
//! | fewer objects than at the cursor (somebody removed them)           | says so in the log: nothing can be done      |
//! | it does not answer, is full, read-only or gives an I/O error       | an error: the junction is held, tried again  |
//! | a refusal that time cannot change, of an operation in doubt        | `Failed`, and once more without it           |
//! | the same, of one that provably had ended (it was answered)         | an error: the junction is held, and says so  |
//!
//! In a running service it is known which ones have not ended: those that were under way when the primary fell ([`Redo::taken`]).
//! They, too, are a tail over the live index, into which whoever waits for them folds them, under their locks; and they alone
//! may be refused, whatever else is proven.
//!
//! An operation had ended, provably, when its `Made` is in the journal, or when a later one shares a name, or a node,
//! with it: that one held the same locks.

use super::carry_out::{DoneSteps, carry_out, put_primary_times};
use super::reconcile::Refusal;
use super::round::{DataOp, Origin, Round, part_of, push};
use super::tail::Tail;
use super::{Location, Recorder, index_error};
use crate::filer::{self, ErrorKind};
use crate::index::live::Live;
use crate::journal::{self, Journal, Record};
use journal_format::event::{Event, PartDone, codec};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Operations, and bytes of their records, that are folded into the live index at once: other junctions' clients wait
/// so long.
const FOLDED_AT_ONCE: usize = 1024;
const FOLDED_BYTES: u64 = 1 << 20;

/// How an operation ended otherwise than done.
#[derive(Clone, Debug)]
pub enum End {
    Failed,
    Partial(PartDone),
}

/// Ends by the LSN of the operation. Bound: operations that filers refused between a position and the journal's end.
pub type Ends = BTreeMap<Lsn, End>;

/// Note a record's end, if it is one.
pub fn note_end(ends: &mut Ends, event: &Event) {
    match event {
        Event::Failed(e) => {
            ends.insert(e.op, End::Failed);
        }
        Event::Partial(e) => {
            ends.insert(e.op, End::Partial(e.done.clone()));
        }
        _ => {}
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Filer(#[from] filer::Error),
}

/// An operation in doubt that the filer refuses for good: it is to be recorded as failed, or as done in part.
#[derive(Debug)]
pub struct Refused {
    pub op: Lsn,
    pub node: NodeId,
    pub kind: ErrorKind,
    pub part: Option<PartDone>,
    pub error: String,
}

/// What a redo did. With `refused` it is not at the end.
#[derive(Debug, Default)]
pub struct Redone {
    pub operations: u64,
    pub bytes: u64,
    pub refused: Vec<Refused>,
}

struct Collected {
    round: Round,
    operations: u64,
    tail: Tail,
    /// How operations ended, up to `end`.
    ends: Ends,
    end: Lsn,
}

/// Where from, and who takes down what is made.
pub struct Redo<'a> {
    pub journal: &'a Journal,
    /// Its records may lie in the junction's side, if it hung long enough.
    pub junction: JunctionId,
    pub live: &'a Arc<Live>,
    pub location: &'a Location,
    pub cursor: Lsn,
    /// The live index holds everything before; operations from here on may be in doubt.
    pub doubt_from: Lsn,
    /// Operations before that which have not ended, by their LSNs: their tasks have left them to this redo, and fold them into
    /// the live index when they are told.
    pub taken: BTreeSet<Lsn>,
    /// A `Made` behind it comes from this redo, and proves nothing about what clients were told.
    pub proven_to: Lsn,
    pub recorder: &'a dyn Recorder,
}

impl Redo<'_> {
    /// Bring the location, and then the live index, to the journal's durable end. Not synced yet.
    pub async fn run(&self) -> Result<Redone, Error> {
        let Collected { mut round, operations, tail, ends, end } = self.collect().await?;
        let bytes = round.bytes();
        let mut has_time = BTreeMap::new();
        if !round.is_empty() {
            // The pen comes and goes in it.
            round.touch_times(self.location.root);
            crash_point!("REDO_COLLECTED");
            let carried = carry_out(self.location, &tail, None, &round, &DoneSteps::new(), self.recorder).await?;
            crash_point!("REDO_CARRIED");
            if !carried.made.is_empty() {
                self.recorder.made(self.location.id, &carried.made).await?;
            }
            if !carried.refused.is_empty() {
                let refused = self.judge(carried.refused, end).await?;
                if !refused.is_empty() {
                    return Ok(Redone { operations, bytes, refused });
                }
            }
            has_time = carried.has_time;
        }
        self.fold_tail(ends, end).await?;
        // What was made with the time that it has in the end is not found again to be given it.
        let live = self.live;
        round.times.retain(|node| match (has_time.get(node), live.node(*node)) {
            (Some(has), Ok(Some(rec))) => rec.mtime != *has,
            _ => true,
        });
        put_primary_times(self.location, self.live, &round.times).await?;
        crash_point!("REDO_TIMES");
        Ok(Redone { operations, bytes, refused: Vec::new() })
    }

    async fn collect(&self) -> Result<Collected, Error> {
        let (journal, live, id) = (self.journal.clone(), self.live.clone(), self.location.id);
        let (objects, cursor, doubt_from) = (self.location.objects.clone(), self.cursor, self.doubt_from);
        let (of, taken) = ((self.junction, id), self.taken.clone());
        aside(move || collect(&journal, live, &objects, of, cursor, (doubt_from, &taken))).await
    }

    async fn fold_tail(&self, ends: Ends, end: Lsn) -> Result<(), Error> {
        let (journal, live, id, from) = (self.journal.clone(), self.live.clone(), self.location.id, self.doubt_from);
        let of = (self.junction, id);
        aside(move || fold_tail(&journal, &live, of, &ends, from, end)).await
    }

    /// Which refusals are ends of operations in doubt; an error when one had been answered.
    async fn judge(&self, refusals: Vec<Refusal>, end: Lsn) -> Result<Vec<Refused>, Error> {
        let mut refused = BTreeMap::new();
        for Refusal { op, node, part, error } in refusals {
            let (journal, junction, made_to) = (self.journal.clone(), self.junction, self.proven_to);
            let proof = aside(move || proof(&journal, junction, op, made_to, end)).await?;
            let in_doubt = self.taken.contains(&op) || (op >= self.doubt_from && matches!(proof, Proof::None));
            match proof {
                Proof::Failed => {
                    tracing::error!(location = %self.location.id, %node, %error, "what a refused operation left stays in the pen");
                }
                _ if in_doubt => {
                    let (kind, error) = (error.kind, error.to_string());
                    refused.entry(op).or_insert(Refused { op, node, kind, part, error });
                }
                // A repair has cut its rename from the journal, say: clients find it by what it is.
                _ if error.kind == ErrorKind::IsDir => {
                    tracing::error!(location = %self.location.id, %node, "a directory stands elsewhere than the journal says; it is left there");
                }
                _ if error.kind == ErrorKind::NotEmpty => {
                    tracing::error!(location = %self.location.id, %node,
                        "a removed directory holds objects that tain does not know; it is kept in the pen");
                }
                _ => {
                    let detail = format!(
                        "the operation at {op} on node {node} was answered, its effect is gone, and the filer refuses \
                         it now ({error}): clients of this location wait until it can be carried out"
                    );
                    return Err(filer::Error::new(error.kind, "redo", detail).into());
                }
            }
        }
        Ok(refused.into_values().collect())
    }
}

async fn aside<T: Send + 'static>(f: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match crate::env::aside(f).await {
        Ok(result) => result,
        Err(error) => Err(filer::Error::new(ErrorKind::Io, "redo", error.to_string()).into()),
    }
}

fn collect(
    journal: &Journal,
    live: Arc<Live>,
    objects: &crate::index::objects::Objects,
    (junction, location): (JunctionId, LocationId),
    cursor: Lsn,
    (doubt_from, taken): (Lsn, &BTreeSet<Lsn>),
) -> Result<Collected, Error> {
    let end = journal.durable_lsn();
    let from = cursor.min(doubt_from);
    let ends = ends(journal, junction, from, end)?;
    let mut collected =
        Collected { round: Round::redo(), operations: 0, tail: Tail::new(live), ends: Ends::new(), end };
    journal.reader_of(junction, from)?.each(end, |record| -> Result<(), Error> {
        let part = match ends.get(&record.lsn) {
            Some(End::Failed) => {
                if record.lsn >= cursor {
                    undo(&mut collected.round, location, &record);
                }
                return Ok(());
            }
            Some(End::Partial(part)) => Some(part),
            None => None,
        };
        let is_folded = record.lsn < doubt_from && !taken.contains(&record.lsn);
        if !is_folded && location_of(&record.event) == Some(location) {
            collected.tail.fold(&record.event);
        }
        known(objects, location, &record.event)?;
        if record.lsn >= cursor && ask(&mut collected.round, location, &record, part) {
            collected.operations += 1;
        }
        Ok(())
    })?;
    collected.ends = ends;
    Ok(collected)
}

fn ends(journal: &Journal, junction: JunctionId, from: Lsn, end: Lsn) -> Result<Ends, Error> {
    let mut ends = Ends::new();
    let mut reader = journal.reader_of(junction, from)?.only(codec::is_end);
    while let Some(record) = reader.next(end)? {
        note_end(&mut ends, &record.event);
    }
    Ok(ends)
}

/// Fold what happened on the location from `from` on into the live index.
fn fold_tail(
    journal: &Journal,
    live: &Live,
    (junction, location): (JunctionId, LocationId),
    ends: &Ends,
    from: Lsn,
    end: Lsn,
) -> Result<(), Error> {
    if from >= end {
        return Ok(());
    }
    let (mut batch, mut bytes) = (Vec::with_capacity(FOLDED_AT_ONCE), 0);
    journal.reader_of(junction, from)?.each(end, |record| -> Result<(), Error> {
        if location_of(&record.event) != Some(location) {
            return Ok(());
        }
        let (lsn, time) = (record.lsn, record.time);
        bytes += record.end.0 - lsn.0 - record.bulk.len() as u64;
        batch.extend(as_ended(record.event, ends.get(&lsn)).map(|event| (lsn, time, event)));
        if batch.len() == FOLDED_AT_ONCE || bytes >= FOLDED_BYTES {
            live.apply_all(&batch).map_err(index_error)?;
            batch.clear();
            bytes = 0;
        }
        Ok(())
    })?;
    Ok(live.apply_all(&batch).map_err(index_error)?)
}

/// Fold one record as it ended.
pub fn fold(live: &Live, record: Record, end: Option<&End>) -> crate::index::store::Result<()> {
    let (lsn, time) = (record.lsn, record.time);
    as_ended(record.event, end).map_or(Ok(()), |event| live.apply(lsn, time, &event))
}

/// What happened of an operation; `None`: nothing did.
#[must_use]
pub fn as_ended(event: Event, end: Option<&End>) -> Option<Event> {
    match end {
        None => Some(event),
        Some(End::Failed) => None,
        Some(End::Partial(done)) => part_of(event, done),
    }
}

/// The location that a client's operation was carried out on, or that an object was met on.
#[must_use]
pub fn location_of(event: &Event) -> Option<LocationId> {
    match event {
        Event::Write(e) => Some(e.location),
        Event::SetAttr(e) => Some(e.location),
        Event::Make(e) => Some(e.location),
        Event::Remove(e) => Some(e.location),
        Event::Rename(e) => Some(e.location),
        Event::Link(e) => Some(e.location),
        Event::Adopt(e) => Some(e.location),
        _ => None,
    }
}

/// Names and nodes that the operation's locks were on: whoever comes after it under one of them saw it ended.
fn locked(event: &Event) -> (Vec<(NodeId, &[u8])>, Vec<NodeId>) {
    match event {
        Event::Write(e) => (vec![], vec![e.node]),
        Event::SetAttr(e) => (vec![], vec![e.node]),
        Event::Make(e) => (vec![(e.dir, &e.name)], vec![e.node]),
        Event::Remove(e) => (vec![(e.dir, &e.name)], vec![e.node]),
        Event::Rename(e) => {
            let names = vec![(e.from_dir, e.from_name.as_slice()), (e.to_dir, e.to_name.as_slice())];
            (names, std::iter::once(e.node).chain(e.replaced.map(|replaced| replaced.node)).collect())
        }
        Event::Link(e) => (vec![(e.dir, &e.name)], vec![e.node]),
        _ => (vec![], vec![]),
    }
}

/// What the journal proves about an operation.
enum Proof {
    /// It had ended: it was answered, or nearly.
    Ended,
    /// It has failed.
    Failed,
    None,
}

fn proof(journal: &Journal, junction: JunctionId, op: Lsn, made_to: Lsn, end: Lsn) -> Result<Proof, Error> {
    let mut reader = journal.reader_of(junction, op)?;
    let Some(first) = reader.next(end)? else { return Ok(Proof::None) };
    let (names, nodes) = locked(&first.event);
    while let Some(record) = reader.next(end)? {
        match &record.event {
            Event::Failed(e) if e.op == op => return Ok(Proof::Failed),
            Event::Made(made) if record.lsn < made_to => {
                if matches!(&first.event, Event::Make(e) if made.objects.iter().any(|(node, _)| *node == e.node)) {
                    return Ok(Proof::Ended);
                }
            }
            _ => {}
        }
        let (other_names, other_nodes) = locked(&record.event);
        // Two WRITEs share their node and exclude each other only where they overlap.
        let apart = matches!((&first.event, &record.event), (Event::Write(a), Event::Write(b))
            if a.offset + u64::from(a.len) <= b.offset || b.offset + u64::from(b.len) <= a.offset);
        // What was made is used by nobody before it is done: as a directory, too.
        let inside = other_names.iter().any(|(dir, _)| nodes.contains(dir));
        let same = other_names.iter().any(|name| names.contains(name))
            || other_nodes.iter().any(|node| nodes.contains(node) && !apart);
        if same || (inside && matches!(first.event, Event::Make(_))) {
            return Ok(Proof::Ended);
        }
    }
    Ok(Proof::None)
}

/// Identities that the journal holds and a store behind it may not.
pub fn known(
    objects: &crate::index::objects::Objects,
    location: LocationId,
    event: &Event,
) -> Result<(), filer::Error> {
    let put = |node, id| -> Result<(), filer::Error> {
        let changes = objects.put(node, id).map_err(index_error)?;
        objects.store.write(changes);
        Ok(())
    };
    match event {
        Event::Made(e) if e.location == location => e.objects.iter().try_for_each(|(node, id)| put(*node, id)),
        Event::Adopt(e) if e.location == location => e.entries.iter().try_for_each(|a| put(a.node, &a.identity)),
        _ => Ok(()),
    }
}

/// Identities from the journal's beginning up to `before`, for a store that was lost. Whether the journal reaches back to
/// the location's own beginning: else some are missing.
pub fn recollect(
    journal: &Journal,
    objects: &crate::index::objects::Objects,
    location: LocationId,
    before: Lsn,
) -> Result<bool, Error> {
    let mut whole = false;
    let forget = |node| -> Result<(), Error> {
        objects.store.write(objects.remove(node).map_err(index_error)?);
        Ok(())
    };
    let mut reader = journal.reader(journal.start_lsn())?;
    while let Some(record) = reader.next(before)? {
        match &record.event {
            Event::JunctionAdded(e) => whole |= e.location.location == location,
            Event::JobCreated(e) => whole |= e.destination.location == location,
            Event::Remove(e) if e.last => forget(e.node)?,
            Event::Rename(e) if e.replaced.is_some_and(|replaced| replaced.last) => {
                e.replaced.map_or(Ok(()), |replaced| forget(replaced.node))?;
            }
            event => known(objects, location, event)?,
        }
        // They are true whatever else the store says; one that is stopped here begins anew.
        objects.store.commit_if_full(objects.store.lsn()).map_err(index_error)?;
    }
    Ok(whole)
}

/// Add what the operation asks of the location; whether it asks anything.
fn ask(round: &mut Round, location: LocationId, record: &Record, part: Option<&PartDone>) -> bool {
    let shorten = |op: DataOp| match part {
        Some(done) => op.part(done),
        None => op,
    };
    match &record.event {
        Event::Write(e) if e.location == location => {
            let write = DataOp::Write { offset: e.offset, data: record.bulk.clone(), mode: e.mode };
            data(round, record.lsn, e.node, shorten(write));
        }
        Event::SetAttr(e) if e.location == location => {
            // Kept times are put last, from the index; what a refusal leaves of them is the index's as well.
            data(round, record.lsn, e.node, shorten(DataOp::set(e)));
            if let Some(mtime) = e.mtime.or(e.size.map(|_| record.time)) {
                round.modified(e.node, mtime);
            }
        }
        Event::Make(e) if e.location == location => {
            let mut made = Box::new(e.clone());
            made.mtime.get_or_insert(record.time);
            round.make(e.node, e.what.kind(), Origin::Event(made));
            round.touch_by(record.lsn, e.dir, &e.name, e.node);
        }
        Event::Remove(e) if e.location == location => {
            round.touch_by(record.lsn, e.dir, &e.name, e.node);
            if e.last {
                round.gone(e.node, e.kind);
            }
        }
        Event::Rename(e) if e.location == location => {
            if let Some(replaced) = e.replaced {
                round.touch_by(record.lsn, e.to_dir, &e.to_name, replaced.node);
                if replaced.last {
                    round.gone(replaced.node, replaced.kind);
                }
            }
            round.touch_by(record.lsn, e.from_dir, &e.from_name, e.node);
            round.touch_by(record.lsn, e.to_dir, &e.to_name, e.node);
        }
        Event::Link(e) if e.location == location => round.touch_by(record.lsn, e.dir, &e.name, e.node),
        _ => return false,
    }
    true
}

/// An operation that failed: a redo may have moved objects out of its way. Its names are looked at again, and what it
/// made is not left in the pen (elsewhere an object that tain does not know is none of its: it may be why it failed).
fn undo(round: &mut Round, location: LocationId, record: &Record) {
    if location_of(&record.event) != Some(location) {
        return;
    }
    for (dir, name) in locked(&record.event).0 {
        round.touch_name(dir, name, None);
        // One before it that was done is the one to be blamed.
        round.names.entry((dir, name.to_vec())).or_default().op.get_or_insert(record.lsn);
    }
    match &record.event {
        Event::Make(e) => {
            round.placed(e.dir, &e.name, e.node);
            round.gone(e.node, e.what.kind());
        }
        Event::Rename(e) => {
            round.placed(e.from_dir, &e.from_name, e.node);
            round.placed(e.to_dir, &e.to_name, e.node);
            if let Some(replaced) = e.replaced {
                round.placed(e.to_dir, &e.to_name, replaced.node);
            }
        }
        _ => {}
    }
}

fn data(round: &mut Round, lsn: Lsn, node: NodeId, op: DataOp) {
    round.data(node, op);
    push(round.ops_of.entry(node).or_default(), lsn);
}
