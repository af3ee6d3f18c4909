//! The copier: looks at what the projection has queued, reads names and sizes on the primary, appends steps. It writes
//! to no filer; the replayer carries the steps out (design §6).
//!
//! * A queued directory is adopted completely, then `ListBegin` is appended under its exclusive lock: every name
//!   operation in it has ended, every later one has a higher LSN and is replayed. Then pages: each is read from the
//!   live index and appended under the same lock, so that no name on it can have changed since.
//! * A queued file is *partial* on the destination as of an LSN that has been replayed; only now its size is read: a
//!   write that made it longer before has been carried out, and one after will be replayed.
//! * Nothing here must survive: after a restart, or an error, the queues say what is to do. What was appended and not yet
//!   replayed would be ordered twice, or called failed while it is under way, so the copier begins when the replayer has
//!   passed the journal's end at its own beginning; and begins again when the replayer goes back to its last commit, for
//!   the queues go back with it.
//!
//! Bounds: [`LISTINGS_MAX`] directories at once, [`BYTES_AHEAD_MAX`] and [`FILES_AHEAD_MAX`] ordered and not replayed,
//! and no further page while [`QUEUED_FILES_MAX`] files wait.

mod cut;

use crate::filer::aside::side_by_side;
use crate::filer::{self, ErrorKind};
use crate::index::live::Live;
use crate::ledger::Ledger;
use crate::location::copy::Source;
use crate::location::projection::{Held, Projection, Queue};
use crate::replayer::{Handle, Status};
use async_trait::async_trait;
use cut::Step;
use journal_format::event::{CopyDone, CopyFailed, CopyRange, Event, ListBegin, Listed, ListedEntry};
use journal_format::ids::{JobId, JunctionId, Lsn, NodeId};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const LISTINGS_MAX: usize = 4;
/// Bytes of data of one range: what a crash may carry over twice is at most so much per worker.
pub const CHUNK: u64 = 8 << 20;
const BYTES_AHEAD_MAX: u64 = 64 << 20;
const FILES_AHEAD_MAX: usize = 4096;
const QUEUED_FILES_MAX: u64 = 16384;

/// What the copier needs of the volume: it holds the locks of the junction's directories.
#[async_trait]
pub trait Directories: Send + Sync {
    /// Every name in the directory is known to the index.
    async fn complete(&self, junction: JunctionId, dir: NodeId) -> Result<(), String>;
    /// Exclusive: no name operation in the directory is between begin and end while the guard lives.
    async fn lock(&self, dir: NodeId) -> Box<dyn Send>;
}

#[derive(Clone)]
pub struct Copier {
    pub ledger: Ledger,
    pub live: Arc<Live>,
    pub source: Arc<Source>,
    pub projection: Projection,
    pub directories: Arc<dyn Directories>,
    pub replayer: Handle,
    pub job: JobId,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    #[error(transparent)]
    Index(#[from] crate::index::store::Error),
    #[error("the primary: {0}")]
    Source(filer::Error),
    #[error("directory {dir}: {what}")]
    Directory { dir: NodeId, what: String },
}

/// Steps that were ordered and not replayed yet.
struct Ahead {
    end: Lsn,
    nodes: Vec<NodeId>,
    bytes: u64,
}

impl Copier {
    /// Run until cancelled.
    pub async fn run(self) {
        let mut replayer = self.replayer.status.clone();
        loop {
            // Whatever was ordered before is known by the projection then.
            let begin = self.ledger.journal.end_lsn();
            let Ok(went_back) = replayer.wait_for(|s| s.position >= begin).await.map(|s| s.went_back) else { return };
            if let Err(error) = self.follow(went_back).await {
                tracing::warn!(job = %self.job, %error, "the copier stops for a moment and tries again");
                if matches!(&error, Error::Journal(error) if error.is_the_end()) {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Until the replayer goes back: it had `went_back` so often when everything in the journal was known.
    async fn follow(&self, went_back: u64) -> Result<(), Error> {
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        let mut listing: JoinSet<Result<NodeId, Error>> = JoinSet::new();
        let mut listed: BTreeSet<NodeId> = BTreeSet::new();
        loop {
            let moved = self.replayer.moved.notified();
            let position = self.replayer.status.borrow().position;
            while ahead.front().is_some_and(|a| a.end <= position) {
                ahead.pop_front();
            }
            while let Some(done) = listing.try_join_next() {
                listed.remove(&self.joined(done)?);
            }
            self.start_listings(&mut listing, &mut listed)?;
            let ordered = self.order_files(&mut ahead, went_back).await?;
            if self.replayer.status.borrow().went_back != went_back {
                return Ok(());
            }
            if ordered {
                continue;
            }
            tokio::select! {
                biased; // every way out leads to the same look
                () = moved => {}
                Some(done) = listing.join_next(), if !listing.is_empty() => {
                    listed.remove(&self.joined(done)?);
                }
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    fn joined(&self, done: Result<Result<NodeId, Error>, tokio::task::JoinError>) -> Result<NodeId, Error> {
        done.unwrap_or_else(|error| Err(Error::Directory { dir: NodeId(0), what: error.to_string() }))
    }

    fn start_listings(
        &self,
        listing: &mut JoinSet<Result<NodeId, Error>>,
        listed: &mut BTreeSet<NodeId>,
    ) -> Result<(), Error> {
        if listing.len() >= LISTINGS_MAX {
            return Ok(());
        }
        for queue in [Queue::Listing, Queue::Dirs] {
            for dir in self.projection.queued(queue, None, 2 * LISTINGS_MAX)? {
                if listing.len() < LISTINGS_MAX && listed.insert(dir) {
                    let copier = self.clone();
                    listing.spawn(async move { copier.list(dir).await.map(|()| dir) });
                }
            }
        }
        Ok(())
    }

    /// One directory: begin (unless a former life did), then its pages.
    async fn list(&self, dir: NodeId) -> Result<(), Error> {
        let location = self.projection.location;
        let junction = self.projection.junction;
        if let Err(what) = self.directories.complete(junction, dir).await {
            // A directory that was removed meanwhile: its REMOVE takes it out of the queue.
            if self.source.is_gone(dir) {
                return self.replayed_all().await;
            }
            return self.report(dir, what).await;
        }
        let begin = match self.projection.held(dir)? {
            Some((_, Held::Listing { begin })) => begin,
            Some((_, Held::Made)) => {
                let _lock = self.directories.lock(dir).await;
                self.ledger.append(&Event::ListBegin(ListBegin { job: self.job, location, dir })).await?.lsn
            }
            _ => return Ok(()),
        };
        crash_point!("COPIER_LISTING_BEGUN");
        let (mut after, order) = (0, self.live.order(begin)?.0);
        loop {
            self.has_room().await;
            let lock = self.directories.lock(dir).await;
            let page = self.live.list(dir, after, Listed::ENTRIES_MAX)?;
            let full = page.len() == Listed::ENTRIES_MAX;
            // Entries put there since ListBegin are replayed. New ones come last, as their cookies are LSNs; one that was put
            // over an older one has its place.
            let last = !full || page.last().is_some_and(|entry| entry.cookie >= order);
            after = page.last().map_or(after, |entry| entry.cookie);
            let older = page.into_iter().filter(|entry| entry.put_by < order);
            let entries = older.map(|e| ListedEntry { name: e.name, node: e.node, kind: e.kind }).collect();
            crash_point!("COPIER_BEFORE_LISTED");
            let event = Event::Listed(Listed { job: self.job, location, dir, entries, last });
            let at = self.ledger.append(&event).await?;
            crash_point!("COPIER_LISTED");
            drop(lock);
            if last {
                return self.replayed(at.end).await;
            }
        }
    }

    /// A directory that cannot be read goes into the error report, and waits for a retry like a file.
    async fn report(&self, dir: NodeId, error: String) -> Result<(), Error> {
        let end = self.record_failed(vec![self.failed(dir, error)]).await?;
        self.replayed(end).await
    }

    fn failed(&self, node: NodeId, error: String) -> CopyFailed {
        CopyFailed { node, path: self.source.path(node), error, fatal: false }
    }

    /// When it is replayed the nodes have left the queues: they are incomplete, until the job is started again.
    async fn record_failed(&self, failed: Vec<CopyFailed>) -> Result<Lsn, Error> {
        let location = self.projection.location;
        let event = Event::CopyDone(CopyDone {
            job: self.job,
            location,
            ranges: Vec::new(),
            files_made: 0,
            dirs_made: 0,
            failed,
        });
        Ok(self.ledger.append(&event).await?.end)
    }

    /// The directory leaves the queues only when its last page is replayed; until then it must not be begun again.
    async fn replayed(&self, end: Lsn) -> Result<(), Error> {
        // The replayer ends only with the service.
        let _ = self.replayer.status.clone().wait_for(|s: &Status| s.position >= end).await;
        Ok(())
    }

    async fn replayed_all(&self) -> Result<(), Error> {
        self.replayed(self.ledger.journal.end_lsn()).await
    }

    async fn has_room(&self) {
        let mut status = self.replayer.status.clone();
        let _ = status.wait_for(|s| s.pending.files < QUEUED_FILES_MAX).await;
    }

    /// Order ranges of queued files, as far as the bounds allow; whether any were.
    async fn order_files(&self, ahead: &mut VecDeque<Ahead>, went_back: u64) -> Result<bool, Error> {
        let mut budget = BYTES_AHEAD_MAX.saturating_sub(ahead.iter().map(|a| a.bytes).sum());
        let busy: BTreeSet<NodeId> = ahead.iter().flat_map(|a| a.nodes.iter().copied()).collect();
        if budget == 0 || busy.len() >= FILES_AHEAD_MAX {
            return Ok(false);
        }
        let queued = self.projection.queued(Queue::Files, None, busy.len() + CopyRange::RANGES_MAX)?;
        let free: Vec<_> =
            queued.into_iter().filter(|node| !busy.contains(node)).map(|node| self.next_steps(node)).collect();
        let mut files = side_by_side(free).await?.into_iter();
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        let mut nodes = Vec::new();
        let mut failed = Vec::new();
        while budget > 0 && ranges.len() < CopyRange::RANGES_MAX {
            let Some((node, steps)) = files.next() else { break };
            match steps {
                Ok(steps) => {
                    nodes.push(node);
                    for Step { range, data } in steps {
                        if budget > 0 && ranges.len() < CopyRange::RANGES_MAX {
                            ranges.push(range);
                            bytes += data;
                            budget = budget.saturating_sub(data.max(4096));
                        }
                    }
                }
                Err(error) if failed.len() < CopyDone::FAILED_MAX => failed.push(self.failed(node, error)),
                Err(_) => {} // it is still queued, and found again
            }
        }
        // Behind all looks at the queues: what they said may be of before what was ordered.
        if self.replayer.status.borrow().went_back != went_back {
            return Ok(false);
        }
        if !failed.is_empty() {
            let nodes = failed.iter().map(|f| f.node).collect();
            let end = self.record_failed(failed).await?;
            ahead.push_back(Ahead { end, nodes, bytes: 0 });
        }
        if ranges.is_empty() {
            return Ok(false);
        }
        crash_point!("COPIER_BEFORE_RANGES");
        let event = Event::CopyRange(CopyRange { job: self.job, location: self.projection.location, ranges });
        let at = self.ledger.append(&event).await?;
        crash_point!("COPIER_RANGES_APPENDED");
        ahead.push_back(Ahead { end: at.end, nodes, bytes });
        Ok(true)
    }

    /// What is to be copied next of a queued file; of one that has gone an empty step, which finds that out. One whose size
    /// cannot be read is reported, and copied when the job is started again. A primary that does not answer is waited for,
    /// and so is a file that somebody has leased there.
    async fn next_steps(&self, node: NodeId) -> Result<(NodeId, Result<Vec<Step>, String>), Error> {
        let Some((_, Held::Partial { ordered_to })) = self.projection.held(node)? else {
            return Ok((node, Ok(Vec::new())));
        };
        let steps = match self.source.object(node).await {
            Ok(Some(object)) => cut::steps(self.source.location.filer.as_ref(), &object, node, ordered_to).await,
            Ok(None) => return Ok((node, Ok(vec![cut::last(node, ordered_to, 0)]))),
            Err(error) => Err(error),
        };
        match steps {
            Ok(steps) => Ok((node, Ok(steps))),
            Err(_) if self.source.is_gone(node) => Ok((node, Ok(vec![cut::last(node, ordered_to, 0)]))),
            Err(error) if matches!(error.kind, ErrorKind::Down | ErrorKind::Unknown | ErrorKind::Busy) => {
                Err(Error::Source(error))
            }
            Err(error) => Ok((node, Err(format!("its size cannot be read: {error}")))),
        }
    }
}

#[cfg(test)]
mod tests;
