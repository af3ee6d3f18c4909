//! The replayer: one per secondary, its only writer (design §3, §4, §6).
//!
//! ```text
//! collect  fold records into the projection     below the durable LSN and the junction's settled LSN
//!    │     until the round is full
//! carry    names by identity, then data, side by side
//!    │     … more rounds …
//! close    kept times ─► sync ─► Made, CopyDone ─► projection committed at `position` ─► Cursor
//! ```
//!
//! The projection's commit is exact: it states the position up to which the location has been synced. Any error goes
//! back to it: the overlay is dropped and the events since are carried out again, asking the filer who is there. So a
//! crash, a full destination and a failed sync (I8: never believed, always written again) are one case.
//!
//! Bounds: a round by [`Round::is_full`]; a batch by [`BATCH_BYTES_MAX`], [`BATCH_OPS_MAX`] and [`BATCH_TIME_MAX`].

mod batch;
mod outage;
mod prescan;
mod rebuild;
mod record;
mod root;
#[cfg(test)]
pub(crate) mod tests;
pub use rebuild::rebuild;

use crate::env::watch;
use crate::filer::{self, ErrorKind};
use crate::journal::{self, Journal, Reader};
use crate::ledger::Ledger;
use crate::location::Location;
use crate::location::carry_out::{Carried, DoneSteps, carry_out};
use crate::location::copy::Source;
use crate::location::dirty::Counts;
use crate::location::projection::{Pending, Projection};
use crate::location::redo::{End, Ends, note_end};
use crate::location::round::{self, DataOp, Renew, Round};
use batch::Batch;
use journal_format::event::{Event, JobState, PartDone};
use journal_format::ids::{JobId, JunctionId, LocationId, Lsn, NodeId};
use parking_lot::Mutex;
use prescan::Prescan;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const BATCH_BYTES_MAX: u64 = 64 << 20;
const BATCH_OPS_MAX: usize = 16384;
const BATCH_TIME_MAX: Duration = Duration::from_millis(500);
/// How long a batch waits for more when nothing is there to replay.
/// A round of fewer operations is followed by a pause, so that a stream of small ones gathers.
const GATHER_OPS: usize = 64;
const GATHER: Duration = Duration::from_millis(3);
/// The first round after a start takes at least everything that a former life may have carried out behind its last
/// commit: a batch that was not yet due, and the round that made it so.
const REDO_OPS_MAX: usize = BATCH_OPS_MAX + 2 * round::OPS_MAX;
const REDO_BYTES_MAX: u64 = BATCH_BYTES_MAX + 2 * round::BYTES_MAX;
const LINGER: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Where a replayer is, for those who pace themselves by it.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Everything before it is folded and carried out.
    pub position: Lsn,
    /// How often it went back to its last commit: it says so before the projection goes back.
    pub went_back: u64,
    /// Everything before it is durable on the location, and its projection's commit says so.
    pub committed: Lsn,
    /// Everything before it is durable on the location (or in its dirty set). Ahead of `committed` while nothing comes that
    /// is to be carried out there: that is committed only now and then.
    pub durable: Lsn,
    pub pending: Pending,
    /// How much is dirty, while the location is out of sync.
    pub dirty: Option<Counts>,
    /// Why it does not get on, while it does not.
    pub error: Option<Trouble>,
}

impl Status {
    /// As of a commit.
    pub fn at(committed: Lsn) -> Self {
        Self { position: committed, committed, durable: committed, ..Self::default() }
    }
}

#[derive(Clone, Debug)]
pub struct Trouble {
    pub kind: Option<ErrorKind>,
    pub text: String,
    /// When it was met.
    pub at: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("{0}")]
    Filer(#[from] filer::Error),
    #[error(transparent)]
    Index(#[from] crate::index::store::Error),
    #[error("given up: the journal needs its room")]
    Pressed,
}

/// What has not come back yet.
type Straggler = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A running replayer's other side.
#[derive(Clone)]
pub struct Handle {
    pub status: watch::Receiver<Status>,
    want: watch::Sender<Lsn>,
    press: watch::Sender<u64>,
    /// Rung after every round: the projection's queues may have changed.
    pub moved: Arc<Notify>,
}

impl Handle {
    /// The journal needs its room, and State says that the location is out of sync: give up what hangs, and take the
    /// backlog into the dirty set.
    pub fn press(&self) {
        self.press.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Ask that everything before `lsn` be committed without waiting for a fuller batch, and wait for it.
    pub async fn commit(&self, lsn: Lsn, within: Duration) -> bool {
        self.want.send_if_modified(|want| {
            let more = *want < lsn;
            *want = lsn.max(*want);
            more
        });
        let mut status = self.status.clone();
        tokio::time::timeout(within, status.wait_for(|s| s.committed >= lsn)).await.is_ok_and(|r| r.is_ok())
    }
}

pub struct Replayer {
    pub ledger: Ledger,
    pub location: Arc<Location>,
    pub projection: Projection,
    pub source: Arc<Source>,
    pub job: JobId,
    pub junction: JunctionId,
    /// Where it begins when the projection has never been committed.
    pub start: Lsn,
    status: watch::Sender<Status>,
    want: watch::Receiver<Lsn>,
    /// What is marked as seen here was answered: State was looked at behind it, or nothing was under way. Until then each
    /// piece of work is given up for it, also one that begins later.
    pressed: watch::Receiver<u64>,
    /// Work that was given up and hangs; before it has come back nothing is begun.
    straggler: Mutex<Option<Straggler>>,
    /// Where the journal ended when the source was last read for a dirty set.
    clean_at: Option<Lsn>,
    root_is_prepared: bool,
    /// Something failed: the filer may have been mounted anew since.
    look_again: bool,
    moved: Arc<Notify>,
    handle: Handle,
}

impl Replayer {
    #[must_use]
    pub fn new(
        ledger: Ledger,
        location: Arc<Location>,
        projection: Projection,
        source: Source,
        job: JobId,
        start: Lsn,
    ) -> Self {
        let committed = projection.store.lsn().max(start);
        let pending = projection.pending().unwrap_or_default();
        let status = watch::Sender::new(Status { pending, ..Status::at(committed) });
        let (want_tx, want) = watch::channel(Lsn(0));
        let (press, pressed) = watch::channel(0);
        let moved = Arc::new(Notify::new());
        let handle = Handle { status: status.subscribe(), want: want_tx, press, moved: moved.clone() };
        let junction = projection.junction;
        Self {
            ledger,
            location,
            projection,
            source: Arc::new(source),
            job,
            junction,
            start,
            status,
            want,
            pressed,
            straggler: Mutex::default(),
            clean_at: None,
            root_is_prepared: false,
            look_again: false,
            moved,
            handle,
        }
    }

    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Run until cancelled (the task is dropped between two steps; nothing is lost, see above).
    pub async fn run(mut self) {
        let mut backoff = Duration::from_millis(100);
        loop {
            drop(self.pressed.borrow_and_update());
            let error = match self.live(&mut backoff).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.trouble(&error);
            self.look_again = true;
            self.status.send_modify(|s| s.went_back += 1);
            if let Err(lost) = self.projection.store.rollback() {
                tracing::error!(location = %self.location.id, error = %lost, "the projection could not be taken back");
            }
            tracing::warn!(location = %self.location.id, job = %self.job, %error, "the replayer goes back to its last commit and tries again");
            if matches!(&error, Error::Journal(error) if error.is_the_end()) {
                return;
            }
            if matches!(error, Error::Pressed) {
                continue;
            }
            tokio::select! {
                biased;
                _ = self.pressed.changed() => {}
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn live(&mut self, backoff: &mut Duration) -> Result<std::convert::Infallible, Error> {
        if std::mem::take(&mut self.look_again) && !self.is_out_of_sync() {
            self.reach_again().await?;
        }
        self.look_at_root()?;
        if self.is_out_of_sync() {
            self.outage().await?;
        }
        self.reopen().await;
        self.follow(backoff).await
    }

    /// A filer that was mounted anew is another one to what is open of it: it is reached by its place, as at a start.
    async fn reach_again(&mut self) -> Result<(), Error> {
        self.reopen().await;
        self.location.forget_all();
        let location = self.location.clone();
        let reached = self.guarded(async move { location.filer.root().await.map(drop) }).await;
        self.look_again = reached.is_err();
        reached
    }

    /// From the last commit on, until an error.
    async fn follow(&mut self, backoff: &mut Duration) -> Result<std::convert::Infallible, Error> {
        let from = self.projection.store.lsn().max(self.start);
        let prescan = self.prescan(from).await?;
        crash_point!("REPLAYER_PRESCANNED");
        let redo_to = prescan.end;
        // What a former life carried out behind its last commit lies in this one round (see `REDO_OPS_MAX`): the filer
        // may stand anywhere in it, so it is judged as a whole, by who is there.
        let mut first = true;
        let (mut done, none) = (Arc::new(prescan.done), Arc::default());
        let mut batch = Batch::new(from);
        let mut feed = Feed::new(&self.ledger.journal, self.junction, from)?;
        let mut changed = self.ledger.changed();
        loop {
            drop(changed.borrow_and_update());
            if self.pressed.has_changed() {
                return Err(Error::Pressed);
            }
            let limit = self.ledger.settled_lsn(self.junction).min(self.ledger.journal.durable_lsn());
            let (round, position);
            let redo = std::mem::take(&mut first) && batch.position < redo_to;
            (feed, round, position) = self.collect(feed, limit, redo).await?;
            crash_point!("REPLAYER_COLLECTED");
            let progressed = position > batch.position;
            let few = round.ops() < GATHER_OPS;
            if !round.is_empty() {
                if batch.is_about(&round) {
                    batch.record_made(&self.ledger, self.location.id).await?;
                }
                self.prepare_root().await?;
                let round = Arc::new(round);
                // An order that is younger than the prescan is not done, whatever was done of the file before.
                let carried = self.carry(&round, if batch.position < redo_to { &done } else { &none }).await?;
                for failed in &carried.failed {
                    self.projection.set_incomplete(failed.node)?;
                    Arc::make_mut(&mut done).retain(|(node, _)| *node != failed.node);
                }
                crash_point!("REPLAYER_CARRIED");
                batch.take(&round, carried);
            }
            batch.position = position;
            if batch.is_empty() {
                self.may_be_in_sync(position).await?;
            }
            if progressed {
                let pending = self.projection.pending()?;
                self.status.send_modify(|s| {
                    s.position = position;
                    if batch.is_empty() {
                        s.durable = s.durable.max(position);
                    }
                    s.pending = pending;
                });
                self.moved.notify_waiters();
            }
            let wanted = *self.want.borrow_and_update();
            let asked = wanted > self.status.borrow().committed && position >= wanted;
            // A junction on which nothing happens lets go of what others fill the journal with.
            let idle = batch.is_empty() && batch.behind() > self.ledger.journal.soft_limit() / 4;
            if asked || idle || batch.is_due() || (!progressed && batch.rests()) {
                self.close(&mut batch).await?;
                // Here as well: while clients write there is always something in the next round.
                self.may_be_in_sync(batch.position).await?;
                *backoff = Duration::from_millis(100);
                continue;
            }
            if !progressed {
                // More records, ended operations, or somebody who waits for a commit.
                let nap = if batch.is_empty() { Duration::from_secs(1) } else { LINGER };
                tokio::select! {
                    biased; // every way out leads to the same look
                    _ = changed.changed() => {}
                    _ = self.want.changed() => {}
                    durable = self.ledger.wait_durable(limit.plus(1)), if limit == self.ledger.journal.durable_lsn() => durable?,
                    () = tokio::time::sleep(nap) => {}
                }
            } else if few && wanted <= self.status.borrow().committed {
                tokio::time::sleep(GATHER).await; // let a stream of small operations gather
            }
        }
    }

    async fn carry(&self, round: &Arc<Round>, done: &Arc<DoneSteps>) -> Result<Carried, Error> {
        let (location, view, source) = (self.location.clone(), self.projection.clone(), self.source.clone());
        let (round, done, recorder) = (round.clone(), done.clone(), self.ledger.clone());
        self.guarded(async move { carry_out(&location, &view, Some(&source), &round, &done, &recorder).await }).await
    }

    async fn prescan(&self, from: Lsn) -> Result<Prescan, Error> {
        let (journal, objects) = (self.ledger.journal.clone(), self.location.objects.clone());
        let of = (self.junction, self.location.id);
        blocking(move || prescan::prescan(&journal, &objects, of, from)).await
    }

    /// Fold the next records; reading and folding touch disks, so they run aside.
    async fn collect(&self, feed: Feed, limit: Lsn, ask_filer: bool) -> Result<(Feed, Round, Lsn), Error> {
        let (projection, job, junction) = (self.projection.clone(), self.job, self.junction);
        blocking(move || feed.collect(&projection, job, junction, limit, ask_filer)).await
    }

    async fn close(&self, batch: &mut Batch) -> Result<(), Error> {
        batch.close(self).await?;
        crash_point!("REPLAYER_CLOSED");
        let committed = batch.position;
        let pending = self.projection.pending()?;
        self.status.send_modify(|s| {
            s.committed = committed;
            s.durable = s.durable.max(committed);
            s.pending = pending;
            s.error = None;
        });
        self.moved.notify_waiters();
        Ok(())
    }
}

/// The journal, read at the replayer's pace, and ahead of it for how operations ended.
struct Feed {
    reader: Reader,
    ahead: Reader,
    ends: Ends,
}

impl Feed {
    fn new(journal: &Journal, junction: JunctionId, from: Lsn) -> Result<Self, Error> {
        let reader = || journal.reader_of(junction, from);
        Ok(Self { reader: reader()?, ahead: reader()?, ends: Ends::new() })
    }

    /// Everything before it has been read.
    fn position(&self) -> Lsn {
        self.reader.position()
    }

    fn collect(
        mut self,
        projection: &Projection,
        job: JobId,
        junction: JunctionId,
        limit: Lsn,
        ask_filer: bool,
    ) -> Result<(Self, Round, Lsn), Error> {
        let mut round = Round::default();
        // An operation below the settled LSN has its end in the journal already, though perhaps behind `limit`.
        while let Some(record) = self.ahead.next(Lsn(u64::MAX))? {
            note_end(&mut self.ends, &record.event);
        }
        let mut position = None;
        while !full(&round, ask_filer) {
            let Some(mut record) = self.reader.next(limit)? else {
                position = Some(limit); // padding, if anything, lies between
                break;
            };
            let mut unknown = None;
            match self.ends.remove(&record.lsn) {
                Some(End::Failed) => continue,
                Some(End::Partial(part)) => {
                    unknown = not_known(&record.event, &part);
                    shorten(&mut record, &part);
                }
                None => {}
            }
            if concerns(&record.event, junction, projection.location) {
                projection.fold(&mut round, &record)?;
                if let Some((node, renew)) = unknown {
                    projection.renew(&mut round, node, renew)?;
                }
            } else if matches!(&record.event, Event::JobStateChanged(e) if e.job == job && e.to == JobState::Moving) {
                projection.retry_failed(&mut round)?;
            }
        }
        round.ask_filer |= ask_filer && !round.is_empty();
        let position = position.unwrap_or(self.reader.position());
        Ok((self, round, position))
    }
}

fn full(round: &Round, redo: bool) -> bool {
    if redo { round.ops() >= REDO_OPS_MAX || round.bytes() >= REDO_BYTES_MAX } else { round.is_full() }
}

/// What a filer left when it broke off, only the filer knows (an I/O error may come after the effect): that much is
/// brought over as it is there.
fn not_known(event: &Event, part: &PartDone) -> Option<(NodeId, Renew)> {
    match (event, part) {
        (Event::Write(e), PartDone::Bytes(done)) => {
            let rest = (e.offset.saturating_add(u64::from(*done)), e.offset.saturating_add(u64::from(e.len)));
            Some((e.node, Renew { cut: None, ranges: vec![rest], attrs: true }))
        }
        (Event::SetAttr(e), _) => Some((e.node, Renew { cut: None, ranges: vec![], attrs: true })),
        _ => None,
    }
}

/// Leave of an operation what was done of it.
fn shorten(record: &mut journal::Record, part: &PartDone) {
    match &mut record.event {
        Event::Write(e) => {
            let op = DataOp::Write { offset: e.offset, data: record.bulk.clone(), mode: e.mode }.part(part);
            if let DataOp::Write { data, mode, .. } = op {
                e.mode = mode;
                e.len = u32::try_from(data.len()).unwrap_or(e.len);
                record.bulk = data;
            }
        }
        Event::SetAttr(e) => {
            if let DataOp::Set(c) = DataOp::set(e).part(part) {
                (e.mode, e.uid, e.gid, e.size, e.atime) = (c.mode, c.uid, c.gid, c.size, c.atime);
            }
        }
        _ => {}
    }
}

/// Whether the record says anything about this secondary.
fn concerns(event: &Event, junction: JunctionId, location: LocationId) -> bool {
    match event {
        Event::Write(e) => e.junction == junction,
        Event::SetAttr(e) => e.junction == junction,
        Event::Make(e) => e.junction == junction,
        Event::Remove(e) => e.junction == junction,
        Event::Rename(e) => e.junction == junction,
        Event::Link(e) => e.junction == junction,
        Event::ListBegin(e) => e.location == location,
        Event::Listed(e) => e.location == location,
        Event::CopyRange(e) => e.location == location,
        Event::CopyDone(e) => e.location == location,
        _ => false,
    }
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let stopping = |s: crate::env::Stopping| Error::Filer(filer::Error::new(ErrorKind::Io, "replay", s.to_string()));
    crate::env::aside(f).await.unwrap_or_else(|s| Err(stopping(s)))
}
