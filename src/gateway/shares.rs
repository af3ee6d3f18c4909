//! What one address may hold of what all clients share: of the bytes of large requests, of those of large replies, and
//! of the calls that run.
//!
//! All are handed out in turn, so that one host that asks for much on many connections and reads nothing, sends half of
//! what it announces, or has all its calls wait for one lock, would have everybody else wait behind it. So each address
//! has a share of each. Whoever waits for his own address's share does not stand in the queue of all; and who waits
//! there has his place in the share, so that an address never waits for more than that.
//!
//! An address has another share for the connections of strangers: where a policy asks for a privileged port, any
//! program of a client's machine is a stranger, and must not wait for the strangers' bytes with what is the client's.
//!
//! **Bound**: an address is known for as long as it has a connection, a call that runs or a reply that is not written.

use super::limits::Limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An address, and whether some policy lets the connection in.
type Whose = (IpAddr, bool);
type Table = Arc<Mutex<HashMap<Whose, Weak<Share>>>>;

/// Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Shares {
    table: Table,
}

/// An address's part of a pool.
struct Part {
    own: Arc<Semaphore>,
    max: u32,
}

impl Part {
    fn of(pool: u32) -> Self {
        let max = pool.div_ceil(Limits::ADDRESS_SHARE);
        Self { own: Arc::new(Semaphore::new(max as usize)), max }
    }
}

/// One address's, of its connections that are known or of those that are strangers'.
pub(super) struct Share {
    whose: Whose,
    table: Table,
    requests: Part,
    replies: Part,
    calls: Part,
}

/// What is held of a pool, and of the address's part of it.
pub(super) struct Held {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    /// The address is known meanwhile: its next connection must not begin with a whole share.
    _share: Arc<Share>,
}

impl Held {
    /// Give back all but so many.
    pub fn shrink(&mut self, bytes: usize) {
        shrink(&mut self.own, bytes);
        shrink(&mut self.all, bytes);
    }
}

/// Give back all but so many.
pub(super) fn shrink(permit: &mut OwnedSemaphorePermit, bytes: usize) {
    drop(permit.split(permit.num_permits().saturating_sub(bytes)));
}

/// So many, or all that there are ever.
pub(super) async fn acquire(semaphore: &Arc<Semaphore>, want: usize, max: u32) -> OwnedSemaphorePermit {
    let permits = u32::try_from(want).unwrap_or(u32::MAX).min(max);
    semaphore.clone().acquire_many_owned(permits).await.expect("our semaphores are never closed")
}

impl Shares {
    /// The address's share, for what is `known` or for what is not.
    pub fn of(&self, addr: IpAddr, known: bool, limits: &Limits) -> Arc<Share> {
        let (mut table, whose) = (self.table.lock(), (addr, known));
        if let Some(share) = table.get(&whose).and_then(Weak::upgrade) {
            return share;
        }
        let requests = Part::of(if known { limits.request_bytes_all } else { limits.stranger_bytes_all });
        let replies = Part::of(limits.reply_bytes_all);
        let calls = Part::of(limits.calls_all);
        let share = Arc::new(Share { whose, table: self.table.clone(), requests, replies, calls });
        table.insert(whose, Arc::downgrade(&share));
        share
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }
}

impl Share {
    /// Room for a request, from `pool`, which has `max` in all.
    pub async fn request(self: &Arc<Self>, want: usize, pool: &Arc<Semaphore>, max: u32) -> Held {
        self.hold(&self.requests, want, pool, max).await
    }

    /// The same for a reply.
    pub async fn reply(self: &Arc<Self>, want: usize, pool: &Arc<Semaphore>, max: u32) -> Held {
        self.hold(&self.replies, want, pool, max).await
    }

    /// Room for a call to run.
    pub async fn call(self: &Arc<Self>, pool: &Arc<Semaphore>) -> Held {
        self.hold(&self.calls, 1, pool, 1).await
    }

    async fn hold(self: &Arc<Self>, part: &Part, want: usize, pool: &Arc<Semaphore>, max: u32) -> Held {
        let own = acquire(&part.own, want, part.max).await;
        let all = acquire(pool, want, max).await;
        Held { own, all, _share: self.clone() }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // Another may have been made for the address since the last one who held this let go.
        if table.get(&self.whose).is_some_and(|share| share.strong_count() == 0) {
            table.remove(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn pending(future: std::pin::Pin<&mut impl Future>) -> bool {
        matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
    }

    #[tokio::test]
    async fn who_waits_for_his_own_share_is_in_nobodys_way_and_an_address_is_known_while_it_holds_something() {
        let limits = Limits { reply_bytes_all: 400, request_bytes_all: 400, ..Limits::default() };
        let (shares, pool) = (Shares::default(), Arc::new(Semaphore::new(400)));
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let share = shares.of(one, true, &limits);
        let mut held = share.reply(100, &pool, 400).await;
        let mut waiting = Box::pin(share.reply(100, &pool, 400));
        assert!(pending(waiting.as_mut()));
        // More than is left, were it not for the share; a want beyond the share is all of it.
        let other = shares.of(two, true, &limits).reply(300, &pool, 400).await;
        share.request(100, &Arc::new(Semaphore::new(400)), 400).await;
        held.shrink(10);
        assert!(pending(waiting.as_mut()), "90 of 100");
        drop(held);
        assert!(!pending(waiting.as_mut()));
        drop((other, waiting));
        assert_eq!(shares.len(), 1, "the other address holds nothing any more");
        let held = shares.of(one, true, &limits).reply(50, &pool, 400).await;
        assert!(Arc::ptr_eq(&share, &shares.of(one, true, &limits)));
        drop(share);
        assert_eq!(shares.len(), 1, "a reply is not written");
        drop(held);
        assert_eq!((shares.len(), pool.available_permits()), (0, 400));
    }
}
