//! Who is connected to the API. A connection is let in before anybody knows whose it is; so one that has no request of
//! somebody authorized under way can lose its seat at any time.
//!
//! Bound (I11): [`SEATS`] connections. At it a new one takes the seat of whichever has waited longest for a request, or for
//! its answer to be read; when all are being answered it waits until one has been. So whoever opens connections and says
//! nothing, or little by little, keeps no operator out.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Connections at a time; further ones wait in the listen queue.
pub(super) const SEATS: usize = 64;

#[derive(Default)]
pub(super) struct Seats {
    taken: Mutex<Vec<Arc<Place>>>,
    /// Order in which connections began to wait.
    clock: AtomicU64,
    /// A seat was left, or can be taken.
    free: Notify,
}

struct Place {
    /// When it began to wait; `ANSWERED`: it does not.
    waits_since: AtomicU64,
    leave: Notify,
}

const ANSWERED: u64 = u64::MAX;

/// A connection's seat, left when this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    place: Arc<Place>,
}

impl Seats {
    /// A seat, when there is one or somebody can do without his.
    pub async fn sit(self: &Arc<Self>) -> Arc<Seat> {
        loop {
            let free = self.free.notified();
            tokio::pin!(free);
            free.as_mut().enable();
            if let Some(seat) = self.sit_at_once() {
                return Arc::new(seat);
            }
            free.await;
        }
    }

    fn sit_at_once(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock();
        if taken.len() >= SEATS {
            let waits = |place: &Arc<Place>| place.waits_since.load(Ordering::Relaxed);
            let (longest, since) = taken.iter().map(waits).enumerate().min_by_key(|(_, since)| *since)?;
            if since == ANSWERED {
                return None;
            }
            taken.swap_remove(longest).leave.notify_one();
        }
        let place = Arc::new(Place { waits_since: AtomicU64::new(self.now()), leave: Notify::new() });
        taken.push(place.clone());
        Some(Seat { seats: self.clone(), place })
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

impl Seat {
    /// Comes back when somebody else has the seat.
    pub async fn lost(&self) {
        self.place.leave.notified().await;
    }

    /// A request of somebody who may command is being answered: until this is dropped the seat is not given away.
    pub fn answers(self: Arc<Self>) -> Answering {
        let taken = self.seats.taken.lock();
        self.place.waits_since.store(ANSWERED, Ordering::Relaxed);
        drop(taken);
        Answering(self)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.lock().retain(|place| !Arc::ptr_eq(place, &self.place));
        self.seats.free.notify_one();
    }
}

pub(super) struct Answering(Arc<Seat>);

impl Drop for Answering {
    fn drop(&mut self) {
        let Seat { seats, place } = &*self.0;
        place.waits_since.store(seats.now(), Ordering::Relaxed);
        seats.free.notify_one();
    }
}
