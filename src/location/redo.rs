//! Redo of a primary from its cursor (design §4 "Recovery of a location").
//!
//! Two readings of the journal from the cursor on: the first collects how operations ended, the second what they ask
//! of the location, as one [`Round`] judged by the live index as it stands at the journal's end. An operation without
//! an end counts as done: it is carried out here, unless it is refused for good, which then is its end.

use super::carry_out::{DoneSteps, carry_out, put_times};
use super::round::{DataOp, Origin, Round};
use super::{Location, index_error};
use crate::filer;
use crate::index::live::Live;
use crate::journal::{self, Journal, Record};
use journal_format::event::{Event, PartDone};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId};
use std::collections::BTreeMap;

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

/// An operation that the filer refuses for good: it is to be recorded as failed.
pub struct Refused {
    pub op: Lsn,
    pub node: NodeId,
    pub error: String,
}

/// What a redo did.
#[derive(Default)]
pub struct Redone {
    pub operations: u64,
    pub bytes: u64,
    pub made: Vec<(NodeId, journal_format::ids::Identity)>,
    pub refused: Vec<Refused>,
}

struct Collected {
    round: Round,
    operations: u64,
    made_by: BTreeMap<NodeId, Lsn>,
}

/// Bring `location` to the journal's end. The live index must have been folded to the end already.
pub async fn redo(journal: &Journal, live: &Live, location: &Location, cursor: Lsn) -> Result<Redone, Error> {
    let Collected { round, operations, made_by } = {
        let journal = journal.clone();
        let (objects, id) = (location.objects.clone(), location.id);
        // Its records may lie in the junction's side, if it hung long enough.
        let junction = live.node(location.root).map_err(index_error)?.map_or(JunctionId(0), |rec| rec.junction);
        crate::env::aside(move || collect(&journal, &objects, (junction, id), cursor))
            .await
            .map_err(|e| filer::Error::new(filer::ErrorKind::Io, "redo", e.to_string()))??
    };
    if operations == 0 {
        return Ok(Redone::default());
    }
    crash_point!("REDO_COLLECTED");
    let bytes = round.bytes();
    let carried = carry_out(location, live, None, &round, &DoneSteps::new()).await?;
    crash_point!("REDO_CARRIED");
    // What was refused is refused its times, too; that must not keep the location down for ever.
    let mut times = round.times.clone();
    for failed in &carried.failed {
        times.remove(&failed.node);
    }
    put_times(location, live, live, &times).await?;
    crash_point!("REDO_TIMES");
    location.filer.sync().await?;
    crash_point!("REDO_SYNCED");
    let mut refused = Vec::new();
    for failed in carried.failed {
        match made_by.get(&failed.node) {
            Some(op) => refused.push(Refused { op: *op, node: failed.node, error: failed.error }),
            None => tracing::error!(location = %location.id, node = %failed.node, error = failed.error,
                "an operation from the journal could not be redone"),
        }
    }
    Ok(Redone { operations, bytes, made: carried.made, refused })
}

fn collect(
    journal: &Journal,
    objects: &crate::index::objects::Objects,
    (junction, location): (JunctionId, LocationId),
    cursor: Lsn,
) -> Result<Collected, Error> {
    let end = journal.durable_lsn();
    let mut ends = Ends::new();
    let mut reader = journal.reader_of(junction, cursor)?;
    while let Some(record) = reader.next(end)? {
        note_end(&mut ends, &record.event);
    }
    let mut collected = Collected { round: Round::redo(), operations: 0, made_by: BTreeMap::new() };
    let mut reader = journal.reader_of(junction, cursor)?;
    while let Some(record) = reader.next(end)? {
        let part = match ends.get(&record.lsn) {
            Some(End::Failed) => continue,
            Some(End::Partial(part)) => Some(part.clone()),
            None => None,
        };
        known(objects, location, &record.event)?;
        if ask(&mut collected, location, &record, part.as_ref()) {
            collected.operations += 1;
        }
    }
    Ok(collected)
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

/// Add what the operation asks of the location; whether it asks anything.
fn ask(into: &mut Collected, location: LocationId, record: &Record, part: Option<&PartDone>) -> bool {
    let round = &mut into.round;
    let shorten = |op: DataOp| match part {
        Some(done) => op.part(done),
        None => op,
    };
    match &record.event {
        Event::Write(e) if e.location == location => {
            round.data(e.node, shorten(DataOp::Write { offset: e.offset, data: record.bulk.clone(), mode: e.mode }));
        }
        Event::SetAttr(e) if e.location == location => round.data(e.node, shorten(DataOp::set(e))),
        Event::Make(e) if e.location == location => {
            touch(round, e.dir, &e.name, e.node);
            round.make(e.node, e.what.kind(), Origin::Event(Box::new(e.clone())));
            into.made_by.insert(e.node, record.lsn);
        }
        Event::Remove(e) if e.location == location => {
            touch(round, e.dir, &e.name, e.node);
            if e.last {
                round.gone(e.node, e.kind);
            }
        }
        Event::Rename(e) if e.location == location => {
            touch(round, e.from_dir, &e.from_name, e.node);
            touch(round, e.to_dir, &e.to_name, e.node);
            if let Some(replaced) = e.replaced {
                touch(round, e.to_dir, &e.to_name, replaced.node);
                if replaced.last {
                    round.gone(replaced.node, replaced.kind);
                }
            }
        }
        Event::Link(e) if e.location == location => touch(round, e.dir, &e.name, e.node),
        _ => return false,
    }
    true
}

fn touch(round: &mut Round, dir: NodeId, name: &[u8], node: NodeId) {
    round.touch_name(dir, name, None);
    round.placed(dir, name, node);
}
