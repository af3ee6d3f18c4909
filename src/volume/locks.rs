//! The lock table: what excludes what while operations are between their checks and their end.
//!
//! A [`Key`] is locked shared or exclusively, or (byte ranges) as an interval. An operation asks for all its keys in one
//! [`Locks::acquire`], which takes them one after the other in the order of [`Key`]; whoever holds a guard and takes
//! another takes only keys that come later in that order. So nobody waits in a circle. Each key is first come, first
//! served: a claim waits for every earlier one that it conflicts with, granted or not, so that a stream of shared
//! holders cannot starve an exclusive waiter.
//!
//! **Bound**: a key is in the table only while it is held or waited for, so the table is bounded by the operations in
//! flight, which the gateway bounds. **Failure**: a wait past its deadline gives [`Busy`] (the client gets JUKEBOX: an
//! operation whose outcome is not known may keep its locks for as long as a filer is down); a waiter that is dropped
//! takes its claims with it.

use journal_format::ids::{Identity, JunctionId, NodeId};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What can be locked, in the order in which it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Directories of this junction move from one parent to another.
    Moves(JunctionId),
    /// A directory becomes complete (`adopt.rs`): one task at a time.
    Taking(NodeId),
    /// A directory as a set of names: shared by operations on single names, exclusive for what needs them all still.
    Dir(NodeId),
    /// One name.
    Name(NodeId, Vec<u8>),
    /// A node's attributes, size and existence.
    Node(NodeId),
    /// The bytes of a file.
    Bytes(NodeId),
    /// An object of a filer that is to get a node: its other hard links must not give it another one meanwhile.
    Object(Identity),
}

/// How a key is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
    /// Exclusive for `from..to`.
    Range {
        from: u64,
        to: u64,
    },
}

impl Mode {
    fn conflicts(self, other: Mode) -> bool {
        match (self, other) {
            (Mode::Shared, Mode::Shared) => false,
            (Mode::Range { from, to }, Mode::Range { from: f, to: t }) => from < t && f < to,
            _ => true,
        }
    }
}

/// The locks were not to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// The table. Clones are the same table.
#[derive(Clone, Default)]
pub struct Locks {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    next: u64,
}

#[derive(Default)]
struct Entry {
    held: Vec<Held>,
    waiting: VecDeque<Waiter>,
}

struct Held {
    id: u64,
    mode: Mode,
    /// Nobody else has held the key since this one got it.
    alone: bool,
}

struct Waiter {
    id: u64,
    mode: Mode,
    granted: oneshot::Sender<()>,
}

impl Entry {
    fn is_free(&self, mode: Mode) -> bool {
        !self.held.iter().any(|h| h.mode.conflicts(mode))
    }

    fn hold(&mut self, id: u64, mode: Mode) {
        let alone = self.held.is_empty();
        for held in &mut self.held {
            held.alone = false;
        }
        self.held.push(Held { id, mode, alone });
    }

    /// Grant every waiter that conflicts with no holder and no waiter before it.
    fn promote(&mut self) {
        let mut passed: Vec<Mode> = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            let fits = self.is_free(waiter.mode) && !passed.iter().any(|m| m.conflicts(waiter.mode));
            if fits {
                self.hold(waiter.id, waiter.mode);
                // Its guard was dropped at this very moment: that drop, waiting for our mutex, finds it among the held.
                let _ = waiter.granted.send(());
            } else {
                passed.push(waiter.mode);
                self.waiting.push_back(waiter);
            }
        }
    }
}

/// Locks held; let go when it is dropped, wherever it has moved.
pub struct Guard {
    table: Arc<Mutex<Table>>,
    id: u64,
    keys: Vec<Key>,
}

impl Guard {
    /// Nobody else has held `key` (shared) since this guard got it. False for keys it does not hold.
    #[must_use]
    pub fn alone(&self, key: &Key) -> bool {
        let table = self.table.lock();
        table.entries.get(key).is_some_and(|e| e.held.iter().any(|h| h.id == self.id && h.alone))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        for key in &self.keys {
            let Some(entry) = table.entries.get_mut(key) else { continue };
            entry.held.retain(|h| h.id != self.id);
            entry.waiting.retain(|w| w.id != self.id);
            entry.promote();
            if entry.held.is_empty() && entry.waiting.is_empty() {
                table.entries.remove(key);
            }
        }
    }
}

impl Locks {
    /// All of `wanted`, or [`Busy`] once `patience` is over.
    pub async fn acquire(&self, wanted: Vec<(Key, Mode)>, patience: Duration) -> Result<Guard, Busy> {
        tokio::time::timeout(patience, self.wait(wanted)).await.map_err(|_| Busy)
    }

    /// All of `wanted`, however long it takes.
    pub async fn wait(&self, wanted: Vec<(Key, Mode)>) -> Guard {
        let wanted = in_order(wanted);
        let mut guard = Guard { table: self.table.clone(), id: self.id(), keys: Vec::with_capacity(wanted.len()) };
        for (key, mode) in wanted {
            // Into the guard first: if this future is dropped while it waits, the guard withdraws the claim.
            guard.keys.push(key.clone());
            if let Some(granted) = self.claim(guard.id, key, mode) {
                granted.await.expect("a waiter is granted, or withdrawn by the guard that this future owns");
            }
        }
        guard
    }

    fn id(&self) -> u64 {
        let mut table = self.table.lock();
        table.next += 1;
        table.next
    }

    fn claim(&self, id: u64, key: Key, mode: Mode) -> Option<oneshot::Receiver<()>> {
        let mut table = self.table.lock();
        let entry = table.entries.entry(key).or_default();
        if entry.is_free(mode) && !entry.waiting.iter().any(|w| w.mode.conflicts(mode)) {
            entry.hold(id, mode);
            return None;
        }
        let (granted, wait) = oneshot::channel();
        entry.waiting.push_back(Waiter { id, mode, granted });
        Some(wait)
    }

    /// Keys in the table now: for the metric, and for tests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().entries.len()
    }

    /// Claims that are not granted yet.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.table.lock().entries.values().map(|entry| entry.waiting.len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Sorted, each key once, in the stronger of its modes.
fn in_order(mut wanted: Vec<(Key, Mode)>) -> Vec<(Key, Mode)> {
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    wanted.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = stronger(kept.1, later.1);
        }
        same
    });
    wanted
}

fn stronger(a: Mode, b: Mode) -> Mode {
    match (a, b) {
        (Mode::Shared, Mode::Shared) => Mode::Shared,
        (Mode::Range { from, to }, Mode::Range { from: f, to: t }) => Mode::Range { from: from.min(f), to: to.max(t) },
        _ => Mode::Exclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Exclusive, Shared};

    const SOON: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(10);

    fn dir(n: u64) -> Key {
        Key::Dir(NodeId(n))
    }

    fn name(n: u64, s: &str) -> Key {
        Key::Name(NodeId(n), s.as_bytes().to_vec())
    }

    async fn try_get(locks: &Locks, wanted: Vec<(Key, Mode)>) -> Option<Guard> {
        locks.acquire(wanted, SOON).await.ok()
    }

    #[tokio::test]
    async fn shared_holders_share_and_exclude_an_exclusive_one() {
        let locks = Locks::default();
        let a = try_get(&locks, vec![(dir(1), Shared)]).await.expect("free");
        let b = try_get(&locks, vec![(dir(1), Shared)]).await.expect("shared");
        assert!(try_get(&locks, vec![(dir(1), Exclusive)]).await.is_none());
        drop((a, b));
        assert!(try_get(&locks, vec![(dir(1), Exclusive)]).await.is_some());
    }

    #[tokio::test]
    async fn ranges_exclude_each_other_only_where_they_overlap() {
        let locks = Locks::default();
        let bytes = |from, to| vec![(Key::Bytes(NodeId(1)), Mode::Range { from, to })];
        let _a = try_get(&locks, bytes(0, 100)).await.expect("free");
        let _b = try_get(&locks, bytes(100, 200)).await.expect("beside it");
        assert!(try_get(&locks, bytes(99, 101)).await.is_none());
        assert!(try_get(&locks, bytes(200, 201)).await.is_some());
    }

    #[tokio::test]
    async fn entries_vanish_when_unused() {
        let locks = Locks::default();
        let guard = try_get(&locks, vec![(dir(1), Shared), (name(1, "a"), Exclusive)]).await.expect("free");
        assert_eq!(locks.len(), 2);
        assert!(try_get(&locks, vec![(name(1, "a"), Exclusive)]).await.is_none(), "and a waiter that gave up too");
        drop(guard);
        assert!(locks.is_empty());
    }

    #[tokio::test]
    async fn an_exclusive_waiter_is_not_starved_by_later_shared_ones() {
        let locks = Locks::default();
        let first = try_get(&locks, vec![(dir(1), Shared)]).await.expect("free");
        let exclusive = tokio::spawn({
            let locks = locks.clone();
            async move { locks.acquire(vec![(dir(1), Exclusive)], LONG).await }
        });
        tokio::time::sleep(SOON).await;
        assert!(try_get(&locks, vec![(dir(1), Shared)]).await.is_none(), "must queue behind the exclusive one");
        drop(first);
        let guard = exclusive.await.expect("no panic").expect("its turn");
        drop(guard);
        assert!(locks.is_empty());
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_lets_those_behind_it_pass() {
        let locks = Locks::default();
        let _first = try_get(&locks, vec![(dir(1), Shared)]).await.expect("free");
        let (gave_up, passed) =
            tokio::join!(locks.acquire(vec![(dir(1), Exclusive)], SOON), locks.acquire(vec![(dir(1), Shared)], LONG),);
        assert!(gave_up.is_err());
        assert!(passed.is_ok());
    }

    #[tokio::test]
    async fn a_key_asked_for_twice_is_taken_once_in_the_stronger_mode() {
        let locks = Locks::default();
        let _guard =
            try_get(&locks, vec![(dir(1), Shared), (dir(1), Exclusive)]).await.expect("no deadlock with itself");
        assert!(try_get(&locks, vec![(dir(1), Shared)]).await.is_none());
    }

    #[tokio::test]
    async fn alone_is_lost_by_both_once_another_has_shared_the_key() {
        let locks = Locks::default();
        let a = try_get(&locks, vec![(dir(1), Shared)]).await.expect("free");
        assert!(a.alone(&dir(1)));
        let b = try_get(&locks, vec![(dir(1), Shared)]).await.expect("shared");
        assert!(!a.alone(&dir(1)) && !b.alone(&dir(1)));
        drop(b);
        assert!(!a.alone(&dir(1)), "what happened meanwhile is not undone");
        drop(a);
        let c = try_get(&locks, vec![(dir(1), Shared)]).await.expect("free");
        assert!(c.alone(&dir(1)));
        assert!(!c.alone(&dir(2)), "not held at all");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn crossing_sets_never_deadlock_and_exclude_each_other() {
        let locks = Locks::default();
        let inside: Arc<Vec<std::sync::atomic::AtomicUsize>> = Arc::new((0..4).map(|_| Default::default()).collect());
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..64usize {
            let (locks, inside) = (locks.clone(), inside.clone());
            tasks.spawn(async move {
                for j in 0..50usize {
                    let (a, b) = ((i + j) % 4, (i * 7 + j * 3) % 4);
                    let wanted = [a, b].map(|n| (dir(n as u64), Exclusive)).to_vec();
                    let guard = locks.acquire(wanted, LONG).await.expect("no deadlock");
                    for n in [a, b] {
                        let others = inside[n].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert!(others == 0 || (a == b && others == 1));
                    }
                    tokio::task::yield_now().await;
                    for n in [a, b] {
                        inside[n].fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                    drop(guard);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        assert!(locks.is_empty());
    }

    #[tokio::test]
    async fn a_guard_works_in_another_task() {
        let locks = Locks::default();
        let guard = try_get(&locks, vec![(dir(1), Exclusive)]).await.expect("free");
        tokio::spawn(async move { drop(guard) }).await.expect("no panic");
        assert!(locks.is_empty());
    }
}
