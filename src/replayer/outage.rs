//! A replayer while its location is out of sync (design §4 "Full").
//!
//! ```text
//!            ┌───────────── more journal ◄────────────┐
//!            ▼                                        │
//!  fold into the dirty set, commit, Cursor ─► the filer does not answer: ask it again
//!            │ it answers
//!            ▼
//!  one bounded round of the set: asks the filer ─► sync ─► cleared and committed ─► next
//!            │ nothing is dirty, and the journal's end is near
//!            ▼
//!  follows the journal again ─► past where it ended when the source was last read: InSync
//! ```
//!
//! So the backlog never pins the journal, whatever the filer does. What hangs is given up: the fence in front of the
//! filer is closed, so that nothing of it goes on later, and nothing new is begun before it has come back.

use super::batch::Batch;
use super::{BACKOFF_MAX, Error, Feed, REDO_BYTES_MAX, REDO_OPS_MAX, Replayer, Trouble, blocking};
use crate::filer;
use crate::location::carry_out::{DoneSteps, carry_out};
use crate::location::dirty::Dirty;
use journal_format::event::{CopyDone, Cursor, Event, InSync};
use journal_format::ids::Lsn;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// With nothing dirty and no more than this to fold, it follows the journal again.
const FOLLOW_BYTES: u64 = 8 << 20;
const AGAIN_MIN: Duration = Duration::from_millis(200);
const GATHER: Duration = Duration::from_millis(200);
/// The same when there was nothing in what it took last: its own `Cursor` is a record, and would be the next to be taken.
const GATHER_QUIET: Duration = Duration::from_secs(10);

/// Whether the filer answers.
struct Pulse {
    up: bool,
    asked: Option<JoinHandle<filer::Result<()>>>,
    ask_at: Instant,
    pause: Duration,
}

impl Pulse {
    fn failed(&mut self) {
        self.up = false;
        self.ask_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
    }
}

/// What a former life may have carried out in part: so many operations behind its last commit.
struct Tried {
    to: Lsn,
    ops: usize,
    bytes: u64,
}

impl Replayer {
    pub(super) fn is_out_of_sync(&self) -> bool {
        self.ledger.state().locations.get(&self.location.id).is_some_and(|l| l.out_of_sync.is_some())
    }

    /// Until nothing is dirty and the filer answers.
    pub(super) async fn outage(&mut self) -> Result<(), Error> {
        let from = self.projection.store.lsn().max(self.start);
        let prescan = self.prescan(from).await?;
        let dirty = Dirty { projection: self.projection.clone() };
        let done = Arc::new(prescan.done);
        let mut tried = Tried { to: prescan.end, ops: 0, bytes: 0 };
        let mut feed = Feed::new(&self.ledger.journal, self.junction, from)?;
        let mut position = from;
        let mut pulse = Pulse { up: false, asked: None, ask_at: Instant::now(), pause: AGAIN_MIN };
        let (mut absorbed, mut gather) = (Instant::now(), GATHER);
        loop {
            if !pulse.up {
                if self.pressed.has_changed() {
                    gather = GATHER;
                }
                drop(self.pressed.borrow_and_update()); // nothing is under way, and the backlog leaves the journal
            }
            let limit = self.ledger.settled_lsn(self.junction).min(self.ledger.journal.durable_lsn());
            let behind = limit.0.saturating_sub(position.0);
            // While nothing can be worked off a stream of small operations gathers.
            if behind > FOLLOW_BYTES || (!pulse.up && behind > 0 && absorbed.elapsed() >= gather) {
                absorbed = Instant::now();
                let quiet;
                (feed, position, quiet) = self.absorb(feed, &dirty, &mut tried, &done, limit).await?;
                gather = if quiet { GATHER_QUIET } else { GATHER };
                continue;
            }
            if !pulse.up {
                tokio::select! {
                    biased;
                    () = self.feel(&mut pulse) => {}
                    () = tokio::time::sleep(GATHER) => {}
                }
                continue;
            }
            let worked_off = match self.prepare_root().await {
                Ok(()) => self.work_off(&dirty, position, &done).await,
                Err(error) => Err(error),
            };
            match worked_off {
                Ok(true) => pulse.pause = AGAIN_MIN,
                Ok(false) => return self.came_back(&dirty).await,
                Err(error @ (Error::Filer(_) | Error::Pressed)) => {
                    self.projection.store.rollback()?;
                    // Of what it made, and said so in the journal, the filer has the names: the next try must know it.
                    self.prescan(self.projection.store.lsn().max(self.start)).await?;
                    tracing::warn!(location = %self.location.id, job = %self.job, %error, "what is dirty could not be worked off; it is tried again");
                    self.trouble(&error);
                    pulse.failed();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ask the filer for its root, and return when that, or the time for it, has come.
    async fn feel(&self, pulse: &mut Pulse) {
        if pulse.asked.is_none() {
            tokio::time::sleep_until(pulse.ask_at).await;
        }
        let asked = pulse.asked.get_or_insert_with(|| {
            let straggler = self.straggler.lock().take();
            let location = self.location.clone();
            tokio::spawn(async move {
                if let Some(straggler) = straggler {
                    straggler.await; // nothing is begun before it has come back
                }
                location.fence.open();
                location.filer.root().await?;
                // It may have been mounted anew: what is open of it would answer nothing any more.
                location.forget_all();
                Ok(())
            })
        });
        let answer = asked.await;
        pulse.asked = None;
        match answer {
            Ok(Ok(())) => pulse.up = true,
            Ok(Err(error)) => {
                self.trouble(&Error::Filer(error));
                pulse.failed();
            }
            Err(panic) => {
                tracing::error!(location = %self.location.id, %panic, "asking the filer panicked");
                pulse.failed();
            }
        }
    }

    /// What was in its way is not any more. Whoever goes by its status waits for this, also where nothing comes that would
    /// be committed.
    fn is_well(&self) {
        self.status.send_if_modified(|s| s.error.take().is_some());
    }

    pub(super) fn trouble(&self, error: &Error) {
        let kind = if let Error::Filer(e) = error { Some(e.kind) } else { None };
        let text = error.to_string();
        self.status.send_modify(|s| {
            s.error = Some(Trouble { kind, text, at: Instant::now() });
            s.position = s.committed;
        });
    }

    /// The next part of the journal goes into the dirty set, and is free; whether it said nothing about this location.
    async fn absorb(
        &self,
        feed: Feed,
        dirty: &Dirty,
        tried: &mut Tried,
        done: &Arc<DoneSteps>,
        limit: Lsn,
    ) -> Result<(Feed, Lsn, bool), Error> {
        let begin = feed.position();
        let (feed, round, position) = self.collect(feed, limit, false).await?;
        let was_tried = begin < tried.to && tried.ops < REDO_OPS_MAX && tried.bytes < REDO_BYTES_MAX;
        let quiet = round.is_empty();
        tried.ops += round.ops();
        tried.bytes = tried.bytes.saturating_add(round.bytes());
        let (set, steps) = (dirty.clone(), done.clone());
        let counts = blocking(move || {
            set.absorb(&round, position, was_tried, &steps)?;
            set.projection.store.commit(position)?;
            Ok(set.counts()?)
        })
        .await?;
        // Only now: what lies before it is in the set, durably. (Of a part that said nothing, and frees nothing, another
        // cursor would be the next part.)
        let (journal, told) =
            (&self.ledger.journal, self.ledger.state().locations.get(&self.location.id).map(|l| l.cursor));
        let told = told.unwrap_or_default();
        let frees = told.0 / journal.segment_size() < position.0 / journal.segment_size()
            || journal.side_end(self.junction).is_some_and(|end| told < end && end <= position);
        if !quiet || frees {
            self.ledger.append(&Event::Cursor(Cursor { location: self.location.id, lsn: position })).await?;
        }
        let pending = self.projection.pending()?;
        self.status.send_modify(|s| {
            (s.position, s.committed, s.pending, s.dirty) = (position, position, pending, Some(counts));
            s.durable = s.durable.max(position);
        });
        self.moved.notify_waiters();
        Ok((feed, position, quiet))
    }

    /// One round of the set; whether there was anything to do.
    async fn work_off(&self, dirty: &Dirty, position: Lsn, done: &Arc<DoneSteps>) -> Result<bool, Error> {
        if dirty.counts()?.is_clean() {
            return Ok(false);
        }
        if dirty.will_try(position)? {
            let store = self.projection.store.clone();
            blocking(move || Ok(store.commit(position)?)).await?;
        }
        let (set, source) = (dirty.clone(), self.source.clone());
        let Some(step) = self.guarded(async move { set.next(&source).await }).await? else { return Ok(false) };
        let step = Arc::new(step);
        let (location, view, source) = (self.location.clone(), self.projection.clone(), self.source.clone());
        let (of, steps, recorder) = (step.clone(), done.clone(), self.ledger.clone());
        let work = async move { carry_out(&location, &view, Some(&source), &of.round, &steps, &recorder).await };
        let carried = self.guarded(work).await?;
        let failed: BTreeSet<_> = carried.failed.iter().map(|failed| failed.node).collect();
        for node in &failed {
            self.projection.set_incomplete(*node)?;
        }
        dirty.clear(&step, &failed)?;
        let mut batch = Batch::new(position);
        batch.take(&step.round, carried);
        batch.close(self).await?;
        let (pending, counts) = (self.projection.pending()?, dirty.counts()?);
        self.status.send_modify(|s| {
            (s.pending, s.dirty, s.error) = (pending, Some(counts), None);
        });
        Ok(true)
    }

    /// Nothing is dirty: what listings made is told, and the journal followed again.
    async fn came_back(&mut self, dirty: &Dirty) -> Result<(), Error> {
        let counts = dirty.counts()?;
        if counts.listed_files + counts.listed_dirs > 0 {
            let (ranges, failed) = (Vec::new(), Vec::new());
            let event = Event::CopyDone(CopyDone {
                job: self.job,
                location: self.location.id,
                ranges,
                files_made: counts.listed_files,
                dirs_made: counts.listed_dirs,
                failed,
            });
            self.ledger.record(&event).await?;
            dirty.told()?;
        }
        self.is_well();
        // What was copied from the source was no newer than this.
        self.clean_at = Some(self.ledger.journal.end_lsn());
        tracing::info!(location = %self.location.id, job = %self.job, "nothing is dirty any more: the journal is followed again");
        Ok(())
    }

    /// Everything before `position` is durable on the location: what was in its way is over, and perhaps it is in sync
    /// again.
    pub(super) async fn may_be_in_sync(&mut self, position: Lsn) -> Result<(), Error> {
        self.is_well();
        if self.clean_at.is_some_and(|at| position >= at) {
            self.clean_at = None;
            if self.is_out_of_sync() {
                self.ledger.record(&Event::InSync(InSync { location: self.location.id })).await?;
                tracing::info!(location = %self.location.id, job = %self.job, "in sync again");
            }
            self.status.send_modify(|s| s.dirty = None);
        }
        Ok(())
    }

    /// Calls on the filer, in a task of their own: given up when the journal needs its room.
    pub(super) async fn guarded<T: Send + 'static>(
        &self,
        work: impl Future<Output = filer::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        // One that came before, and was not answered, counts: it might be the last.
        let mut pressed = self.pressed.clone();
        let mut flight = Flight { task: Some(tokio::spawn(work)), fence: self.location.fence.clone() };
        let Some(task) = flight.task.as_mut() else { return Err(Error::Pressed) };
        tokio::select! {
            biased;
            done = task => {
                flight.task = None;
                match done {
                    Ok(result) => Ok(result?),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(error) => Err(Error::Filer(filer::Error::new(filer::ErrorKind::Unknown, "replay", error.to_string()))),
                }
            }
            _ = pressed.changed() => {
                self.location.fence.close();
                if let Some(task) = flight.task.take() {
                    let comes_back = async move { drop(task.await) };
                    *self.straggler.lock() = Some(Box::pin(comes_back));
                }
                Err(Error::Pressed)
            }
        }
    }

    /// Nothing of an earlier try is on its way any more, and the filer is open.
    pub(super) async fn reopen(&self) {
        let straggler = self.straggler.lock().take();
        if let Some(straggler) = straggler {
            straggler.await;
            self.location.fence.open();
        }
    }
}

/// Work under way. Dropped with its replayer it is given up: nothing of it goes on.
struct Flight<T> {
    task: Option<JoinHandle<T>>,
    fence: crate::filer::fence::Fence,
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            self.fence.close();
            task.abort();
        }
    }
}
