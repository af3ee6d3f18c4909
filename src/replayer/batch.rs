//! Rounds since the last commit, and how they become durable together.

use super::record::{self, PER_RECORD_MAX};
use super::{BATCH_BYTES_MAX, BATCH_OPS_MAX, BATCH_TIME_MAX, Error, Instant, LINGER, Replayer, blocking};
use crate::ledger::Ledger;
use crate::location::Recorder;
use crate::location::carry_out::{Carried, put_times};
use crate::location::round::Round;
use journal_format::event::{CopyDone, CopyFailed, Cursor, Event, RangeDone};
use journal_format::ids::{Identity, JobId, LocationId, Lsn, NodeId};
use std::collections::BTreeSet;

pub struct Batch {
    pub position: Lsn,
    committed: Lsn,
    made: Vec<(NodeId, Identity)>,
    ranges: Vec<RangeDone>,
    failed: Vec<CopyFailed>,
    times: BTreeSet<NodeId>,
    listed_files: u64,
    listed_dirs: u64,
    bytes: u64,
    ops: usize,
    since: Option<Instant>,
    last: Instant,
}

impl Batch {
    pub fn new(position: Lsn) -> Self {
        Self {
            position,
            committed: position,
            made: Vec::new(),
            ranges: Vec::new(),
            failed: Vec::new(),
            times: BTreeSet::new(),
            listed_files: 0,
            listed_dirs: 0,
            bytes: 0,
            ops: 0,
            since: None,
            last: Instant::now(),
        }
    }

    pub fn take(&mut self, round: &Round, carried: Carried) {
        self.bytes = self.bytes.saturating_add(round.bytes());
        self.ops += round.ops();
        self.listed_files += round.listed_files;
        self.listed_dirs += round.listed_dirs;
        for node in round.gone.keys() {
            self.times.remove(node);
        }
        self.times.extend(&round.times);
        self.made.extend(carried.made);
        self.ranges.extend(carried.ranges);
        self.failed.extend(carried.failed);
        self.last = Instant::now();
        self.since.get_or_insert(self.last);
    }

    /// The round touches a name of a node whose `Made` is not in the journal yet. It must be, before: an object that tain
    /// does not know is taken for the first node that was made under its name (see `location::newborn`).
    pub fn is_about(&self, round: &Round) -> bool {
        self.made.iter().any(|(node, _)| round.is_about(*node))
    }

    /// Take down durably what was made so far.
    pub async fn record_made(&mut self, ledger: &Ledger, location: LocationId) -> Result<(), Error> {
        ledger.made(location, &self.made).await?;
        self.made.clear();
        Ok(())
    }

    /// Nothing was carried out since the last commit.
    pub fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Bytes of the journal that it keeps.
    pub fn behind(&self) -> u64 {
        self.position.0.saturating_sub(self.committed.0)
    }

    pub fn is_due(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX
            || self.ops >= BATCH_OPS_MAX
            || self.since.is_some_and(|since| since.elapsed() >= BATCH_TIME_MAX)
    }

    /// Nothing came for a while: what is here may become durable.
    pub fn rests(&self) -> bool {
        !self.is_empty() && self.last.elapsed() >= LINGER
    }

    /// Make everything before `position` durable on the location, and say so.
    pub async fn close(&mut self, of: &Replayer) -> Result<(), Error> {
        if crate::planted::is('g') {
            self.record(of).await?;
        }
        if !self.is_empty() {
            let (location, view, live) = (of.location.clone(), of.projection.clone(), of.source.live.clone());
            let times = std::mem::take(&mut self.times);
            crash_point!("BATCH_BEFORE_TIMES");
            let work = async move {
                let refused = put_times(&location, &view, &live, &times).await?;
                crash_point!("BATCH_BEFORE_SYNC");
                location.filer.sync().await.map(|()| refused)
            };
            for (node, error) in of.guarded(work).await? {
                of.projection.set_incomplete(node)?;
                let (path, error) = (of.source.path(node), format!("its modification time: {error}"));
                self.failed.push(CopyFailed { node, path, error, fatal: false });
            }
            crash_point!("BATCH_SYNCED");
            let source = of.source.location.clone();
            of.guarded(async move { source.settle().await }).await?;
        }
        if !crate::planted::is('g') {
            self.record(of).await?;
        }
        crash_point!("BATCH_BEFORE_COMMIT");
        let (store, position) = (of.projection.store.clone(), self.position);
        blocking(move || Ok(store.commit(position)?)).await?;
        crash_point!("BATCH_COMMITTED");
        if position > self.committed {
            // It serves recycling and people; the projection is what counts, so nobody waits for it.
            of.ledger.append(&Event::Cursor(Cursor { location: of.location.id, lsn: position })).await?;
        }
        crash_point!("BATCH_CURSOR_APPENDED");
        *self = Self::new(position);
        Ok(())
    }

    /// `Made` before `CopyDone`: a step that counts as done is on an object whose identity is known.
    async fn record(&mut self, of: &Replayer) -> Result<(), Error> {
        let location = of.location.id;
        let mut end = None;
        if let Some(made) = record::made(&of.ledger, location, &self.made).await? {
            end = Some(made);
        }
        crash_point!("BATCH_MADE_APPENDED");
        for told in self.told(of.job, location) {
            end = Some(of.ledger.append(&Event::CopyDone(told)).await?.end);
        }
        crash_point!("BATCH_DONE_APPENDED");
        if let Some(end) = end {
            of.ledger.wait_durable(end).await?;
        }
        Ok(())
    }

    /// What is done and what failed, in records of bounded size. Failures come behind all ranges: the last range of a file
    /// takes its error out of the job's list.
    fn told(&self, job: JobId, location: LocationId) -> Vec<CopyDone> {
        let (mut ranges, mut failed) = (self.ranges.chunks(PER_RECORD_MAX), self.failed.chunks(CopyDone::FAILED_MAX));
        let (mut files_made, mut dirs_made) = (self.listed_files, self.listed_dirs);
        let mut told = Vec::new();
        loop {
            let some = ranges.next().unwrap_or_default().to_vec();
            let bad = if ranges.len() == 0 { failed.next() } else { None }.unwrap_or_default().to_vec();
            if some.is_empty() && bad.is_empty() && files_made == 0 && dirs_made == 0 {
                return told;
            }
            told.push(CopyDone { job, location, ranges: some, files_made, dirs_made, failed: bad });
            (files_made, dirs_made) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_last_range_and_failure_are_told_together_has_failed() {
        let node = NodeId(7);
        let range = |node| RangeDone { node, offset: 0, len: 1, digest: [0; 32], last: true, void: false };
        let mut batch = Batch::new(Lsn(4096));
        batch.ranges = (100..100 + PER_RECORD_MAX as u64).map(|n| range(NodeId(n))).chain([range(node)]).collect();
        let failure = |node| CopyFailed { node, path: b"f".to_vec(), error: "its time".into(), fatal: false };
        batch.failed = (0..=CopyDone::FAILED_MAX as u64).map(|n| failure(NodeId(node.0 + n * 10_000))).collect();
        (batch.listed_files, batch.listed_dirs) = (3, 4);
        let told = batch.told(JobId(1), LocationId(2));
        let mut errors = BTreeSet::new();
        for record in &told {
            errors.retain(|node| record.ranges.iter().all(|range| range.node != *node));
            errors.extend(record.failed.iter().map(|failed| failed.node));
        }
        assert_eq!(errors.len(), CopyDone::FAILED_MAX + 1);
        assert!(told.len() == 3 && told.iter().map(|record| record.files_made + record.dirs_made).sum::<u64>() == 7);
    }
}
