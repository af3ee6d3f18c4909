//! Calls of one owner about one file run in the order in which they came: an UNLOCK or CANCEL that overtook a LOCK would
//! leave behind a lock of which its owner knows nothing. As many owners are known here as have calls in flight.

use journal_format::event::Host;
use journal_format::ids::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// Whose call it is, and about what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whose {
    pub host: Host,
    pub svid: u32,
    pub oh: Arc<[u8]>,
    pub node: NodeId,
}

/// First come, first served.
type Queue = Arc<tokio::sync::Mutex<()>>;

#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<Whose, Queue>>);

/// Until dropped, later calls of the owner about the file wait.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    whose: Whose,
    queue: Option<Queue>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(super) async fn take(&self, whose: Whose) -> Turn<'_> {
        let queue = self.0.lock().entry(whose.clone()).or_default().clone();
        let mut turn = Turn { turns: self, whose, queue: Some(queue.clone()), guard: None };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }

    #[cfg(test)]
    pub(in super::super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut queues = self.turns.0.lock();
        self.queue = None;
        if queues.get(&self.whose).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_owners_calls_go_one_after_the_other_and_nothing_is_left_behind() {
        let turns = Turns::default();
        let host = Host { addr: [1; 16], name: b"a".to_vec() };
        let key = |svid| Whose { host: host.clone(), svid, oh: [0][..].into(), node: NodeId(1) };
        let first = turns.take(key(1)).await;
        let mut second = std::pin::pin!(turns.take(key(1)));
        assert!(at_once(second.as_mut()).await.is_none(), "the first is not done");
        drop(turns.take(key(2)).await);
        // One that gives up in the queue.
        assert!(at_once(std::pin::pin!(turns.take(key(1)))).await.is_none());
        assert_eq!(turns.len(), 1);
        drop(first);
        drop(second.await);
        assert_eq!(turns.len(), 0);
    }

    /// What it says at once.
    async fn at_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(out) => Some(out),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
