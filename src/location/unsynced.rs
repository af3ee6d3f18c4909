//! Bytes that were read of a primary before it was known whether it kept what was written.
//!
//! What a client wrote is in the filer's cache. Writing it back may fail, and the page may go before anybody asks: then the
//! old bytes are read, without an error, until the next sync tells of it and the primary is redone. A copy that read them in
//! between would be older than the WRITE that its destination had replayed before. So what was read of a file that had
//! changed since the last sync does not count as copied before another sync has succeeded, and none has failed, and nothing
//! was redone, since it was read.

use super::Location;
use crate::filer::{Error, ErrorKind, Result};
use journal_format::ids::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct Unsynced {
    /// What the sync under way is about.
    nodes: Mutex<BTreeSet<NodeId>>,
    /// Something of that, or of what changed since, was read to be copied: since which turn.
    read: Mutex<Option<u64>>,
    /// A sync failed: what was written since the one before may be lost, whatever later ones say.
    lost: AtomicBool,
    /// Syncs that failed and redos that followed: what was read before one is not what is there behind it.
    turns: AtomicU64,
}

impl Unsynced {
    pub fn begins(&self, nodes: &BTreeSet<NodeId>) {
        self.nodes.lock().clone_from(nodes);
    }

    fn turn(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }
}

impl Location {
    /// The node is read to be copied: to be called before and behind it.
    pub(super) fn reads(&self, node: NodeId) {
        if self.touched.lock().contains(&node) || self.unsynced.nodes.lock().contains(&node) {
            self.unsynced.read.lock().get_or_insert(self.unsynced.turn());
        }
    }

    /// Make durable what was carried out. The root is asked for first: a file system that was mounted anew, or is not
    /// there, is found out so. After an error nothing else is said until it was redone: a kernel tells of what it lost
    /// once. (So it is not to be dropped half way.)
    pub async fn sync(&self) -> Result<()> {
        if self.has_lost() {
            return Err(Error::new(ErrorKind::Io, "sync", "a sync before failed: what was written before may be lost"));
        }
        let synced = match self.filer.root().await {
            Ok(_) => self.filer.sync().await,
            Err(error) => Err(error),
        };
        if synced.is_err() {
            self.unsynced.turns.fetch_add(1, Ordering::SeqCst);
            self.unsynced.lost.store(true, Ordering::SeqCst);
        }
        synced
    }

    /// A sync failed, and it was not redone since.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.unsynced.lost.load(Ordering::SeqCst)
    }

    /// What [`take_touched`](Self::take_touched) gave is synced, or touched again.
    pub fn sync_has_ended(&self) {
        self.unsynced.nodes.lock().clear();
    }

    /// Everything since its cursor was written again, and is about to be synced.
    pub fn is_redone(&self) {
        self.unsynced.turns.fetch_add(1, Ordering::SeqCst);
        self.unsynced.lost.store(false, Ordering::SeqCst);
    }

    /// Behind the reads of a copy: what was read was what had been written. After an error it is to be read again. It goes
    /// on by itself when it is dropped.
    pub async fn settle(self: &Arc<Self>) -> Result<()> {
        let Some(turn) = self.unsynced.read.lock().take() else { return Ok(()) };
        let again = |why: String| {
            let detail = format!("the source may have lost what was written to it; it is copied again: {why}");
            Error::new(ErrorKind::Io, "copy", detail)
        };
        let location = self.clone();
        let settled = tokio::spawn(async move {
            let _turn = location.syncing.lock().await;
            if location.unsynced.turn() != turn {
                return Err(again("a sync has failed since it was read".into()));
            }
            location.sync().await.map_err(|error| again(error.to_string()))
        });
        settled.await.unwrap_or_else(|error| Err(Error::new(ErrorKind::Unknown, "copy", error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::filer::memory::{Fault, Memory, Turn};
    use crate::index::objects::Objects;
    use crate::index::store::Store;
    use journal_format::ids::LocationId;
    use std::time::Duration;

    const NODE: NodeId = NodeId(7);

    fn location(dir: &tempfile::TempDir, filer: &Memory) -> Arc<Location> {
        let store = Store::open(&dir.path().join("objects"), 1 << 20).unwrap();
        let objects = Objects::new(Arc::new(store));
        Arc::new(Location::new(LocationId(1), NodeId(1), Arc::new(filer.clone()), objects))
    }

    fn fail_syncs(filer: &Memory, fail: bool) {
        let after = Duration::from_millis(50);
        let turn = move |op| match op {
            "sync" => Turn { after, fault: fail.then_some(Fault::Before(ErrorKind::Io)), ..Turn::default() },
            _ => Turn::default(),
        };
        filer.set_script(Some(Box::new(turn)));
    }

    #[tokio::test]
    async fn what_was_read_before_a_sync_failed_or_a_redo_does_not_count_whatever_the_next_sync_says() {
        let (dir, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let location = location(&dir, &filer);
        location.reads(NODE);
        let syncs = filer.syncs();
        location.settle().await.unwrap();
        assert_eq!(filer.syncs(), syncs, "it had not changed: nothing is waited for");

        location.touch(NODE);
        location.reads(NODE);
        fail_syncs(&filer, true);
        assert!(location.sync().await.is_err());
        fail_syncs(&filer, false);
        assert!(location.sync().await.is_err(), "the filer tells of it once");
        location.is_redone();
        assert!(location.settle().await.is_err(), "it was read before");
        // In the redo, before the file was written again.
        location.reads(NODE);
        location.is_redone();
        assert!(location.settle().await.is_err());
        location.reads(NODE);
        location.settle().await.unwrap();

        let taken = location.take_touched();
        location.reads(NODE);
        fail_syncs(&filer, true);
        assert!(location.settle().await.is_err(), "the sync under way is about it");
        assert!(taken.contains(&NODE) && location.has_lost());
    }

    #[tokio::test]
    async fn a_sync_that_nobody_waits_for_any_more_is_heard() {
        let (dir, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let location = location(&dir, &filer);
        location.touch(NODE);
        location.reads(NODE);
        fail_syncs(&filer, true);
        assert!(tokio::time::timeout(Duration::from_millis(5), location.settle()).await.is_err(), "dropped half way");
        let heard = async {
            while !location.has_lost() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.expect("what it says is heard");
    }
}
