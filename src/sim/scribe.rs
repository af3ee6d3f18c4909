//! Keeps what the journal has said, across crashes, and checks what clients were told against it.

use super::asked::Asked;
use super::model::{Ends, Model, note_end};
use crate::journal::Journal;
use crate::volume::Status;
use bytes::Bytes;
use journal_format::event::{Caller, Event, PartDone};
use journal_format::ids::{JobId, LocationId, Lsn, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

pub struct Rec {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Time,
    pub event: Event,
    pub bulk: Bytes,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Success; of a WRITE so many bytes.
    Done(u32),
    Refused(Status),
    /// JUKEBOX: anything may have happened, or happen yet.
    Unknown,
}

/// One call that was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub xid: u32,
    pub what: &'static str,
    /// Success without an event would be a lie.
    pub must: bool,
    /// End of the journal when the call came, and its durable LSN when it was answered.
    pub window: (Lsn, Lsn),
    pub told: Told,
    /// The node that the answer named or the call was about.
    pub node: Option<NodeId>,
    /// What was asked for, where that is compared with the record.
    pub asked: Option<Asked>,
    /// The same call as it ran before, and was sent away.
    pub earlier: Vec<u32>,
}

#[derive(Default)]
pub struct Scribe {
    pub recs: Vec<Rec>,
    pub ends: Ends,
    by_xid: BTreeMap<u32, usize>,
    checked: usize,
    pub answers: Vec<Answer>,
}

fn caller(event: &Event) -> Option<&Caller> {
    match event {
        Event::Write(e) => Some(&e.caller),
        Event::SetAttr(e) => Some(&e.caller),
        Event::Make(e) => Some(&e.caller),
        Event::Remove(e) => Some(&e.caller),
        Event::Rename(e) => Some(&e.caller),
        Event::Link(e) => Some(&e.caller),
        _ => None,
    }
}

impl Scribe {
    #[must_use]
    pub fn upto(&self) -> Lsn {
        self.recs.last().map_or(Lsn(0), |rec| rec.end)
    }

    /// Whether a client has begun something that changes a tree.
    #[must_use]
    pub fn operations_since(&self, from: Lsn) -> bool {
        self.recs.iter().rev().take_while(|rec| rec.lsn >= from).any(|rec| caller(&rec.event).is_some())
    }

    /// Take down what has become durable.
    ///
    /// # Errors
    /// A journal that cannot be read.
    pub fn read(&mut self, journal: &Journal) -> Result<(), String> {
        let mut reader = journal.reader(self.upto()).map_err(|e| e.to_string())?;
        let durable = journal.durable_lsn();
        while let Some(record) = reader.next(durable).map_err(|e| e.to_string())? {
            if record.lsn < self.upto() {
                continue;
            }
            note_end(&mut self.ends, &record.event);
            if let Some(caller) = caller(&record.event).filter(|caller| caller.xid != 0) {
                self.by_xid.entry(caller.xid).or_insert(self.recs.len());
            }
            let bulk = Bytes::copy_from_slice(&record.bulk);
            self.recs.push(Rec { lsn: record.lsn, end: record.end, time: record.time, event: record.event, bulk });
        }
        Ok(())
    }

    #[must_use]
    pub fn is_recorded(&self, xid: u32) -> bool {
        self.by_xid.contains_key(&xid)
    }

    /// After a restart: what was durable is still there, bit by bit (C10).
    ///
    /// # Errors
    /// What is missing or has changed.
    pub fn check_kept(&self, journal: &Journal) -> Result<(), String> {
        let start = journal.start_lsn();
        let mut reader = journal.reader(start).map_err(|e| e.to_string())?;
        let durable = journal.durable_lsn();
        for rec in self.recs.iter().filter(|rec| rec.lsn >= start) {
            let found = reader.next(durable).map_err(|e| e.to_string())?;
            match found {
                Some(found) if (found.lsn, found.end) == (rec.lsn, rec.end) => {
                    if found.event != rec.event || found.bulk != rec.bulk || found.time != rec.time {
                        return Err(format!("C10: the durable record at {} has changed", rec.lsn));
                    }
                }
                other => {
                    let other = other.map(|r| r.lsn);
                    return Err(format!("C10: the durable record at {} is gone (there is {other:?})", rec.lsn));
                }
            }
        }
        Ok(())
    }

    /// Fold everything before `lsn`.
    ///
    /// # Errors
    /// A journal that contradicts itself.
    pub fn fold(&self, base: &Model, lsn: Lsn) -> Result<Model, String> {
        let mut model = base.clone();
        for rec in self.recs.iter().take_while(|rec| rec.end <= lsn) {
            let end = self.ends.get(&rec.lsn);
            model.apply(rec.time, &rec.event, &rec.bulk, end).map_err(|what| format!("at {}: {what}", rec.lsn))?;
        }
        Ok(model)
    }

    /// Every answer that was given and not checked yet: is the journal of the same opinion?
    #[must_use]
    pub fn check_answers(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for answer in &self.answers[self.checked..] {
            if let Err(what) = self.check(answer) {
                wrong.push(format!("{what}: {answer:?}"));
            }
        }
        self.checked = self.answers.len();
        wrong
    }

    /// A call that comes again meets its own work, whoever it was that did it: it is told of that, and does not run.
    fn check_earlier(&self, answer: &Answer) -> Result<(), String> {
        let done = |xid: &&u32| {
            let rec = self.by_xid.get(xid).map(|at| &self.recs[*at]);
            rec.is_some_and(|rec| !self.ends.contains_key(&rec.lsn))
        };
        let ran = self.by_xid.contains_key(&answer.xid) || matches!(answer.told, Told::Refused(_));
        match answer.earlier.iter().find(done).filter(|_| ran && answer.told != Told::Unknown) {
            Some(xid) => Err(format!("C5: ran again, and its call {xid} was done")),
            None => Ok(()),
        }
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        self.check_earlier(answer)?;
        let rec = self.by_xid.get(&answer.xid).map(|at| &self.recs[*at]);
        let end = rec.and_then(|rec| self.ends.get(&rec.lsn));
        match (answer.told, rec, end) {
            (Told::Unknown, ..) => return Ok(()),
            (Told::Done(_), None, _) if answer.must => return Err("C1: done, and not in the journal".into()),
            (Told::Done(_) | Told::Refused(_), None, _) => return Ok(()),
            (Told::Done(_), Some(_), None) => {}
            (Told::Done(n), Some(_), Some(Some(PartDone::Bytes(done)))) if n == *done && n > 0 => {}
            (Told::Done(_), Some(_), Some(_)) => return Err("C1: done, and the journal says failed".into()),
            (Told::Refused(_), Some(_), None) => return Err("refused, and the journal does not say so".into()),
            (Told::Refused(_), Some(_), Some(_)) => {}
        }
        let Some(rec) = rec else { return Ok(()) };
        if let Some(asked) = &answer.asked
            && !asked.is_recorded_by(answer.xid, &rec.event, &rec.bulk)
        {
            return Err(format!("C2: the record at {} is of another call: {:?}", rec.lsn, rec.event));
        }
        if rec.lsn < answer.window.0 || rec.end > answer.window.1 {
            return Err(format!("C2, C4: answered for the record {}..{}", rec.lsn, rec.end));
        }
        if let (Event::Make(e), Some(node), Told::Done(_)) = (&rec.event, answer.node, answer.told)
            && e.node != node
        {
            return Err(format!("the answer names {node}, the journal {}", e.node));
        }
        Ok(())
    }

    /// Print the records in which one of these words stands.
    pub fn tell(&self, words: &[&str]) {
        for rec in &self.recs {
            let text = format!("{} {:?} {:?} {:?}", rec.lsn, rec.time, rec.event, self.ends.get(&rec.lsn));
            if words.iter().any(|word| text.contains(word)) {
                println!("{text}");
            }
        }
    }

    /// Where each node ended.
    #[must_use]
    pub fn removals(&self) -> BTreeMap<NodeId, Lsn> {
        let mut gone = BTreeMap::new();
        for rec in &self.recs {
            if matches!(self.ends.get(&rec.lsn), Some(None)) {
                continue;
            }
            match &rec.event {
                Event::Remove(e) if e.last => drop(gone.insert(e.node, rec.lsn)),
                Event::Rename(e) => {
                    if let Some(replaced) = e.replaced.filter(|r| r.last) {
                        gone.insert(replaced.node, rec.lsn);
                    }
                }
                _ => {}
            }
        }
        gone
    }

    /// I4: a finished step is not finished again, unless its file was given up in between.
    #[must_use]
    pub fn doubled_steps(&self) -> Vec<String> {
        let mut done: BTreeSet<(JobId, LocationId, NodeId, u64)> = BTreeSet::new();
        let mut said = Vec::new();
        for rec in &self.recs {
            let Event::CopyDone(e) = &rec.event else { continue };
            for range in e.ranges.iter().filter(|range| !range.void) {
                if !done.insert((e.job, e.location, range.node, range.offset)) {
                    said.push(format!("I4: the step {} at {} is done twice ({})", range.node, range.offset, rec.lsn));
                }
            }
            // Behind its steps: a file may be given up with the record that says they are done.
            for failed in &e.failed {
                done.retain(|(_, location, node, _)| (*location, *node) != (e.location, failed.node));
            }
        }
        said
    }
}
