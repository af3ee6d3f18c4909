//! The journal as replay reads it: in order, without a gap, to a stated end.

use super::junction::Junction;
use crate::directory::{Directory, Item};
use crate::position::Position;
use anyhow::{Result, anyhow, bail};
use journal_format::event::Event;
use journal_format::ids::{Identity, Lsn, Time};
use journal_format::record::KIND_SEGMENT_END;
use journal_format::scan::RecordRef;
use journal_format::segment::BLOCK;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tain::location::redo::End;

pub struct History {
    dir: Directory,
    size: u64,
    pub id: [u8; 16],
    /// Where the records at hand begin.
    pub start: u64,
    /// By the LSN of the operation, in the whole journal: an end may come after the position that is replayed to.
    pub ends: BTreeMap<u64, End>,
    pub junctions: Vec<Junction>,
    /// Roots of all locations that the journal names.
    pub roots: Vec<Identity>,
    /// Behind the last record that the position takes in.
    pub to: u64,
}

/// One event that is not a filler.
pub struct At<'a> {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Time,
    pub event: Event,
    pub bulk: &'a [u8],
}

/// Ends a walk early.
#[derive(Debug, thiserror::Error)]
#[error("enough")]
struct Enough;

impl History {
    /// Look at all of it once. `to`: what is to be taken in; everything that was stated durable when it is not given.
    pub fn open(dir: Directory, to: Option<Position>) -> Result<History> {
        let Some(header) = dir.any_header().copied() else { bail!("no segment can be read") };
        // Another host's writes would go into the copy.
        dir.is_one_journal()?;
        let stated = dir.stated_durable();
        if let Some(Position::Lsn(lsn)) = to
            && lsn > stated
        {
            bail!("LSN {lsn} is not stated to be durable: the journal at hand states {stated}");
        }
        let mut history = History {
            dir,
            size: header.size,
            id: header.journal_id,
            start: u64::MAX,
            ends: BTreeMap::new(),
            junctions: Vec::new(),
            roots: Vec::new(),
            to: 0,
        };
        let mut look = Look { to, stated, history: &mut Facts::default() };
        history.dir.walk(0, u64::MAX, &mut |_, item| {
            if let Item::Record(record) = item {
                look.record(&record)?;
            }
            Ok(())
        })?;
        let facts = std::mem::take(look.history);
        history.start = facts.start.unwrap_or(u64::MAX);
        (history.ends, history.junctions, history.roots) = (facts.ends, facts.junctions, facts.roots);
        history.to = facts.to;
        Ok(history)
    }

    /// Every event that begins at `from` or behind and ends at `to` or before, in order; an error where one is missing.
    pub fn read(&self, from: u64, to: u64, see: &mut dyn FnMut(At<'_>) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut trouble = None;
        let mut next = None;
        let walked = self.dir.walk(from, to, &mut |_, item| {
            let record = match item {
                Item::Record(record) if record.header.lsn.0 >= to => return Err(Enough.into()),
                Item::Record(record) => record,
                Item::Gap { place, what, .. } => {
                    trouble.get_or_insert(format!("LSN {}: {what}", place.lsn));
                    return Ok(());
                }
                Item::Unreadable(what) => {
                    trouble = Some(what);
                    return Ok(());
                }
            };
            let header = &record.header;
            let missing = match next {
                Some(next) => header.lsn.0 != next,
                None => header.lsn.0 > from.max(from / self.size * self.size + BLOCK),
            };
            if missing {
                let why = trouble.take().unwrap_or_else(|| "give the archives too".into());
                bail!("the journal from LSN {} to {} is missing: {why}", next.unwrap_or(from), header.lsn);
            }
            if let Some(within) = [from, to].into_iter().find(|at| header.lsn.0 < *at && *at < header.end().0) {
                bail!("LSN {within} is not where a record begins: one goes from {} to {}", header.lsn, header.end());
            }
            next = Some(self.after(&record));
            if header.lsn.0 < from || header.end().0 > to {
                return Ok(());
            }
            let Some(event) = record.event().map_err(|error| anyhow!("LSN {}: {error}", header.lsn))? else {
                return Ok(());
            };
            let at = At { lsn: header.lsn, end: header.end(), time: header.time, event, bulk: record.bulk };
            if see(at)?.is_break() {
                return Err(Enough.into());
            }
            Ok(())
        });
        match walked {
            Err(error) if error.is::<Enough>() => Ok(()),
            Err(error) => Err(error),
            Ok(()) if next.is_none_or(|next| next < to) && from < to => {
                let why = trouble.unwrap_or_else(|| "give the archives too".into());
                bail!("the journal from LSN {} to {to} is missing: {why}", next.unwrap_or(from));
            }
            Ok(()) => Ok(()),
        }
    }

    /// Where the next record begins.
    fn after(&self, record: &RecordRef<'_>) -> u64 {
        let end = record.header.end().0;
        if record.header.kind == KIND_SEGMENT_END || end.is_multiple_of(self.size) {
            return (record.header.lsn.0 / self.size + 1) * self.size + BLOCK;
        }
        end
    }
}

#[derive(Default)]
struct Facts {
    start: Option<u64>,
    ends: BTreeMap<u64, End>,
    junctions: Vec<Junction>,
    roots: Vec<Identity>,
    to: u64,
}

struct Look<'a> {
    to: Option<Position>,
    stated: u64,
    history: &'a mut Facts,
}

impl Look<'_> {
    fn record(&mut self, record: &RecordRef<'_>) -> Result<()> {
        let (header, facts) = (&record.header, &mut *self.history);
        facts.start.get_or_insert(header.lsn.0);
        let taken = match self.to {
            Some(Position::Lsn(lsn)) => header.end().0 <= lsn,
            Some(Position::Time(time)) => header.time <= time,
            None => true,
        };
        if taken && header.end().0 <= self.stated {
            facts.to = header.end().0;
        }
        // Only these are decoded: Failed, Partial, JunctionAdded, JunctionRemoved, JobCreated.
        if !matches!(header.kind, 23 | 24 | 64 | 65 | 80) {
            return Ok(());
        }
        match record.event().map_err(|error| anyhow!("LSN {}: {error}", header.lsn))? {
            Some(Event::Failed(e)) => drop(facts.ends.insert(e.op.0, End::Failed)),
            Some(Event::Partial(e)) => drop(facts.ends.insert(e.op.0, End::Partial(e.done))),
            Some(Event::JunctionAdded(e)) => {
                facts.roots.push(e.location.root.clone());
                facts.junctions.push(Junction { at: header.lsn, added: e, removed: None });
            }
            Some(Event::JunctionRemoved(e)) => {
                let gone = facts.junctions.iter_mut().filter(|known| known.added.junction == e.junction);
                gone.for_each(|junction| junction.removed = Some(header.lsn));
            }
            Some(Event::JobCreated(e)) => facts.roots.push(e.destination.root),
            _ => {}
        }
        Ok(())
    }
}
