//! Every interleaving of the journal's wake-up: no one who waits for the durable LSN is left waiting.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a model that panics has found what it was looking for")]

#[allow(dead_code)]
#[path = "../../../src/journal/queue.rs"]
mod queue;

/// What `queue.rs` is made of.
mod sync {
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::queue::Waiters;
    use super::sync::{AtomicBool, AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;
    use std::task::{Poll, Wake, Waker};

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    struct Journal {
        durable: AtomicU64,
        waiters: Waiters,
        rung: AtomicBool,
    }

    impl Journal {
        fn new() -> Arc<Journal> {
            let (durable, rung) = (AtomicU64::new(0), AtomicBool::new(false));
            Arc::new(Journal { durable, waiters: Waiters::new(), rung })
        }

        fn write(&self, durable: u64) {
            self.durable.store(durable, Ordering::Release);
            let ring = || self.rung.store(true, Ordering::Release);
            self.waiters.tell(|| self.durable.load(Ordering::Acquire), || true, ring);
        }

        /// Poll once; whether the end was seen, and what would have been woken.
        fn wait(&self, end: u64) -> (bool, std::sync::Arc<Woken>) {
            let woken = std::sync::Arc::new(Woken(AtomicBool::new(false)));
            let waker = Waker::from(woken.clone());
            let outcome = || (self.durable.load(Ordering::Acquire) >= end).then_some(());
            let seen = self.waiters.poll(end, &mut None, &waker, outcome) == Poll::Ready(());
            (seen, woken)
        }
    }

    #[test]
    fn who_registers_while_the_batch_becomes_durable_is_woken_or_sees_it() {
        loom::model(|| {
            let journal = Journal::new();
            let waiting = {
                let journal = journal.clone();
                thread::spawn(move || journal.wait(5))
            };
            let other = {
                let journal = journal.clone();
                thread::spawn(move || journal.wait(9))
            };
            journal.write(7);
            let (seen, woken) = waiting.join().unwrap();
            assert!(seen || woken.0.load(Ordering::SeqCst));
            let (seen, woken) = other.join().unwrap();
            assert!(!seen && !woken.0.load(Ordering::SeqCst), "of the next batch");
            journal.write(9);
            assert!(woken.0.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn a_ringer_that_goes_while_it_is_rung_leaves_no_one_waiting() {
        loom::model(|| {
            let journal = Journal::new();
            journal.waiters.ringer_begins();
            let (seen, woken) = journal.wait(5);
            assert!(!seen);
            let ringer = {
                let journal = journal.clone();
                // It goes without having heard the bell.
                thread::spawn(move || journal.waiters.ringer_ends(|| journal.durable.load(Ordering::Acquire)))
            };
            journal.write(5);
            ringer.join().unwrap();
            assert!(woken.0.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn a_ringer_that_comes_while_a_batch_becomes_durable_misses_nothing() {
        loom::model(|| {
            let journal = Journal::new();
            let (seen, woken) = journal.wait(5);
            assert!(!seen);
            let ringer = {
                let journal = journal.clone();
                thread::spawn(move || {
                    journal.waiters.ringer_begins();
                    journal.waiters.wake(journal.durable.load(Ordering::Acquire));
                })
            };
            journal.write(5);
            ringer.join().unwrap();
            // Rung, it would look once more.
            if journal.rung.load(Ordering::Acquire) {
                journal.waiters.wake(journal.durable.load(Ordering::Acquire));
            }
            assert!(woken.0.load(Ordering::SeqCst));
        });
    }
}
