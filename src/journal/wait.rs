//! Waiting for the durable LSN: one bell a batch, and only those are woken whose records are in it.
//!
//! A writer that has the next batch to write does not wake anyone: each wake from outside the runtime takes the
//! scheduler's lock, and perhaps a system call, and that write would wait for all of them. It moves the durable LSN and
//! rings one bell; a task of the runtime, the *ringer*, wakes those who are reached, from within, while the batch is on
//! its way. A writer that has nothing to write wakes them itself, which is one change of threads less before the next
//! batch can begin; so it does without a ringer (no runtime at open, a runtime that has ended, a simulated world).
//!
//! Bound: as many entries as there are callers that wait. Why no wake is lost: `queue.rs`.

use super::append::Shared;
use super::error::Result;
use journal_format::ids::Lsn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

impl Shared {
    /// The durable LSN has moved, or the journal has ended.
    pub fn tell(&self) {
        let busy = || self.open.lock().has_work();
        self.waiters.tell(|| self.reached_lsn(), busy, || self.ringers_bell.notify_one());
    }

    fn reached_lsn(&self) -> u64 {
        if self.has_ended() { u64::MAX } else { self.durable.load(Ordering::Acquire) }
    }

    /// The ringer, until the journal ends.
    pub async fn ring_for_waiters(self: Arc<Self>) {
        self.waiters.ringer_begins();
        let here = Ringer(self);
        while !here.0.has_ended() {
            here.0.waiters.wake(here.0.reached_lsn());
            here.0.ringers_bell.notified().await;
        }
    }

    pub fn reached(&self, end: Lsn) -> Reached<'_> {
        Reached { shared: self, end, id: None, done: false }
    }

    fn outcome(&self, end: Lsn) -> Option<Result<()>> {
        if self.durable.load(Ordering::Acquire) >= end.0 {
            return Some(Ok(()));
        }
        self.has_ended().then(|| Err(self.ended()))
    }
}

/// However the ringer goes, those who wait are told, and the writer knows.
struct Ringer(Arc<Shared>);

impl Drop for Ringer {
    fn drop(&mut self) {
        self.0.waiters.ringer_ends(|| self.0.reached_lsn());
    }
}

/// Until everything before `end` is durable.
pub struct Reached<'a> {
    shared: &'a Shared,
    end: Lsn,
    id: Option<u64>,
    done: bool,
}

impl Future for Reached<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let (shared, end, mut id) = (self.shared, self.end, self.id);
        let polled = shared.waiters.poll(end.0, &mut id, context.waker(), || shared.outcome(end));
        self.id = id;
        self.done = polled.is_ready();
        polled
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        // One that has seen its end was woken, or its entry goes with the next wake.
        if let Some(id) = self.id.filter(|_| !self.done) {
            self.shared.waiters.forget(id);
        }
    }
}
