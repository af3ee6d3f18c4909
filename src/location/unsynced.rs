//! Bytes that were read of a primary before it was known whether it kept what was written.
//!
//! What a client wrote is in the filer's cache. Writing it back may fail, and the page may go before anybody asks: then the
//! old bytes are read, without an error, until the next sync tells of it and the primary is redone. A copy that read them in
//! between would be older than the WRITE that its destination had replayed before. So what was read of a file that had
//! changed since the last sync does not count as copied before another sync has succeeded.

use super::Location;
use crate::filer::{Error, ErrorKind, Result};
use journal_format::ids::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(super) struct Unsynced {
    /// What the sync under way is about.
    nodes: Mutex<BTreeSet<NodeId>>,
    /// Something of that, or of what changed since, was read to be copied.
    was_read: AtomicBool,
    /// A sync failed: what was written since the one before may be lost, whatever later ones say.
    lost: AtomicBool,
}

impl Unsynced {
    pub fn begins(&self, nodes: &BTreeSet<NodeId>) {
        self.nodes.lock().clone_from(nodes);
    }
}

impl Location {
    /// The node is read to be copied: to be called before and behind it.
    pub(super) fn reads(&self, node: NodeId) {
        if self.touched.lock().contains(&node) || self.unsynced.nodes.lock().contains(&node) {
            self.unsynced.was_read.store(true, Ordering::SeqCst);
        }
    }

    /// Make durable what was carried out. The root is asked for first: a file system that was mounted anew, or is not
    /// there, is found out so. After an error nothing else is said until it was redone: a kernel tells of what it lost once.
    pub async fn sync(&self) -> Result<()> {
        if self.unsynced.lost.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "sync", "a sync before failed: what was written before may be lost"));
        }
        let synced = match self.filer.root().await {
            Ok(_) => self.filer.sync().await,
            Err(error) => Err(error),
        };
        self.unsynced.lost.fetch_or(synced.is_err(), Ordering::SeqCst);
        synced
    }

    /// What [`take_touched`](Self::take_touched) gave is synced, or touched again.
    pub fn sync_has_ended(&self) {
        self.unsynced.nodes.lock().clear();
    }

    /// Everything since its cursor is about to be written again.
    pub fn is_redone(&self) {
        self.unsynced.lost.store(false, Ordering::SeqCst);
    }

    /// Behind the reads of a copy: what was read was what had been written. After an error it is to be read again.
    pub async fn settle(&self) -> Result<()> {
        if !self.unsynced.was_read.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let _turn = self.syncing.lock().await;
        self.sync().await.map_err(|error| {
            self.unsynced.was_read.store(true, Ordering::SeqCst);
            let detail = format!("the source may have lost what was written to it; it is copied again: {error}");
            Error::new(ErrorKind::Io, "copy", detail)
        })
    }
}
