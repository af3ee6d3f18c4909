//! Who waits for which LSN, and the hand-over between the writer and the ringer; see `wait.rs`. It uses nothing but
//! `sync`, so that `tests/models` can run every interleaving of it.
//!
//! No wake is lost:
//! - the writer moves the durable LSN, then looks into the queue: nobody there, nobody to tell; who waits looks at that
//!   LSN once more under the queue's lock, before the entry goes in;
//! - the ringer says that it has gone, then looks through the queue; the writer moves the durable LSN, then asks whether
//!   there is a ringer. A full fence between the two steps of each: one of them sees what the other did.

use super::sync::{AtomicBool, AtomicU64, Mutex, Ordering, fence};
use std::collections::VecDeque;
use std::task::{Poll, Waker};

struct Waiting {
    end: u64,
    id: u64,
    waker: Waker,
}

pub struct Waiters {
    /// Ascending by end.
    queue: Mutex<VecDeque<Waiting>>,
    ids: AtomicU64,
    ringer: AtomicBool,
}

impl Waiters {
    pub fn new() -> Waiters {
        Waiters { queue: Mutex::new(VecDeque::new()), ids: AtomicU64::new(0), ringer: AtomicBool::new(false) }
    }

    /// Wake those who wait for an end up to `durable`, first come first.
    pub fn wake(&self, durable: u64) {
        let mut reached = Vec::new();
        {
            let mut queue = self.queue.lock();
            let count = queue.partition_point(|waiting| waiting.end <= durable);
            reached.extend(queue.drain(..count).map(|waiting| waiting.waker));
        }
        reached.into_iter().for_each(Waker::wake);
    }

    /// The durable LSN has moved: wake those who are reached, if there are any. Who has something better to do (`busy`)
    /// rings the bell for that, where somebody hears it.
    pub fn tell(&self, durable: impl FnOnce() -> u64, busy: impl FnOnce() -> bool, ring: impl FnOnce()) {
        fence(Ordering::SeqCst);
        let reached = durable();
        if self.queue.lock().front().is_none_or(|waiting| waiting.end > reached) {
            return;
        }
        if busy() && self.ringer.load(Ordering::Acquire) {
            ring();
        } else {
            self.wake(reached);
        }
    }

    /// There is a ringer from here on. It has to look once itself: what came before was told without it.
    pub fn ringer_begins(&self) {
        self.ringer.store(true, Ordering::Release);
    }

    /// There is none any more; whatever it was rung for, and did not do, is done here.
    pub fn ringer_ends(&self, durable: impl FnOnce() -> u64) {
        self.ringer.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        self.wake(durable());
    }

    /// The outcome, or the waker goes into the queue; `id` is the entry's.
    pub fn poll<T>(&self, end: u64, id: &mut Option<u64>, waker: &Waker, outcome: impl Fn() -> Option<T>) -> Poll<T> {
        if let Some(outcome) = outcome() {
            return Poll::Ready(outcome);
        }
        let mut queue = self.queue.lock();
        if let Some(outcome) = outcome() {
            return Poll::Ready(outcome);
        }
        let known = id.and_then(|id| queue.iter_mut().rfind(|waiting| waiting.id == id));
        if let Some(waiting) = known {
            waiting.waker.clone_from(waker);
            return Poll::Pending;
        }
        let new = self.ids.fetch_add(1, Ordering::Relaxed);
        let place = queue.partition_point(|waiting| waiting.end <= end);
        queue.insert(place, Waiting { end, id: new, waker: waker.clone() });
        *id = Some(new);
        Poll::Pending
    }

    pub fn forget(&self, id: u64) {
        self.queue.lock().retain(|waiting| waiting.id != id);
    }
}
