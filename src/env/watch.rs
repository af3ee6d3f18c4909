//! A value that is watched: `tokio::sync::watch`, with waiters woken in the order in which they came.
//!
//! Tokio's own spreads its waiters over eight queues by chance, so that two runs of the same world would part where two
//! tasks wait for one value. The core watches few values with few waiters, and loses nothing by one queue.

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

pub type Ref<'a, T> = MappedRwLockReadGuard<'a, T>;

/// Every sender is gone: the value will not move any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

struct Shared<T> {
    value: RwLock<Versioned<T>>,
    moved: Notify,
    senders: AtomicUsize,
}

struct Versioned<T> {
    version: u64,
    value: T,
}

impl<T> Shared<T> {
    fn read(&self) -> Ref<'_, T> {
        RwLockReadGuard::map(self.value.read(), |v| &v.value)
    }
}

pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    #[must_use]
    pub fn new(value: T) -> Self {
        let value = RwLock::new(Versioned { version: 0, value });
        Self { shared: Arc::new(Shared { value, moved: Notify::new(), senders: AtomicUsize::new(1) }) }
    }

    /// A receiver that has seen the present value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.shared.value.read().version }
    }

    /// A short lock: not to be kept.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Wakes nobody when `modify` says that nothing has changed.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut versioned = self.shared.value.write();
        let changed = modify(&mut versioned.value);
        if changed {
            versioned.version = versioned.version.wrapping_add(1);
        }
        drop(versioned);
        if changed {
            self.shared.moved.notify_waiters();
        }
        changed
    }

    pub fn send_replace(&self, value: T) -> T {
        let mut value = value;
        self.send_modify(|now| std::mem::swap(now, &mut value));
        value
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.moved.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Receiver<T> {
    /// A short lock: not to be kept. The value does not count as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let versioned = self.shared.value.read();
        self.seen = versioned.version;
        RwLockReadGuard::map(versioned, |v| &v.value)
    }

    /// Whether there is a value that was not seen; it is not seen by this.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.shared.value.read().version != self.seen
    }

    /// Until there is a value that was not seen; it counts as seen then.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            // Registered before the look, or a change between look and wait would be missed.
            moved.as_mut().enable();
            let version = self.shared.value.read().version;
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                return Err(Gone);
            }
            moved.await;
        }
    }

    /// Until `wanted` holds of the value, the present one included.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Gone> {
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let versioned = self.shared.value.read();
                self.seen = versioned.version;
                if wanted(&versioned.value) {
                    return Ok(RwLockReadGuard::map(versioned, |v| &v.value));
                }
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                return Err(Gone);
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_came() {
        let sender = Sender::new(0u32);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..20 {
            let (mut receiver, order) = (sender.subscribe(), order.clone());
            tasks.push(tokio::spawn(async move {
                receiver.wait_for(|value| *value == 1).await.map(|_| ()).unwrap();
                order.lock().push(n);
            }));
        }
        tokio::task::yield_now().await;
        sender.send_replace(1);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_is_told() {
        let (sender, mut receiver) = channel(1);
        assert!(!sender.send_if_modified(|_| false));
        assert!(!receiver.has_changed());
        sender.send_modify(|value| *value += 1);
        assert!(receiver.has_changed() && receiver.clone().has_changed());
        receiver.changed().await.unwrap();
        assert!(!receiver.has_changed());
        assert_eq!(*receiver.borrow_and_update(), 2);
        let other = sender.clone();
        let waiting = tokio::spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        drop(sender);
        drop(other);
        assert_eq!(waiting.await.unwrap(), Err(Gone));
    }
}
