//! Who is connected. A new connection needs a seat; when there is none left, the connection that has been quiet
//! longest gives up its own: an NFS client that is really there connects again when it has something to ask.

use super::limits::Limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub(super) struct Seat {
    id: u64,
    addr: IpAddr,
    start: Instant,
    /// Milliseconds after the first connection of all when this one last had something to say.
    active_ms: AtomicU64,
    /// A permit is out for every call that runs or whose reply waits.
    pub slots: Arc<Semaphore>,
    slots_max: u32,
    /// Told to leave.
    pub leave: Notify,
}

impl Seat {
    pub fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(now, Ordering::Relaxed);
    }

    /// No call runs and no reply waits.
    pub fn quiet(&self) -> bool {
        self.slots.available_permits() >= self.slots_max as usize
    }
}

pub(super) struct Seats {
    start: Instant,
    table: Mutex<Table>,
}

impl Default for Seats {
    fn default() -> Self {
        Self { start: Instant::now(), table: Mutex::default() }
    }
}

#[derive(Default)]
struct Table {
    seats: HashMap<u64, Arc<Seat>>,
    of_client: HashMap<IpAddr, usize>,
    next: u64,
}

/// What became of a new connection.
pub(super) enum Admission {
    Seated(Arc<Seat>),
    SeatedAfterEviction(Arc<Seat>),
    /// All others are busy.
    TurnedAway,
}

impl Seats {
    pub fn admit(&self, addr: IpAddr, limits: &Limits) -> Admission {
        let addr = addr.to_canonical();
        let mut table = self.table.lock();
        let mut evicted = false;
        if table.of_client.get(&addr).copied().unwrap_or(0) >= limits.connections_per_client {
            if !table.evict(Some(addr)) {
                return Admission::TurnedAway;
            }
            evicted = true;
        } else if table.seats.len() >= limits.connections_max {
            if !table.evict(None) {
                return Admission::TurnedAway;
            }
            evicted = true;
        }
        table.next += 1;
        let seat = Arc::new(Seat {
            id: table.next,
            addr,
            start: self.start,
            active_ms: AtomicU64::new(0),
            slots: Arc::new(Semaphore::new(limits.calls_per_connection as usize)),
            slots_max: limits.calls_per_connection,
            leave: Notify::new(),
        });
        seat.touch();
        table.seats.insert(seat.id, seat.clone());
        *table.of_client.entry(addr).or_default() += 1;
        if evicted { Admission::SeatedAfterEviction(seat) } else { Admission::Seated(seat) }
    }

    /// Free a descriptor, if any connection is quiet.
    pub fn evict_one(&self) -> bool {
        self.table.lock().evict(None)
    }

    /// The connection is gone. Calling it twice, or after an eviction, does nothing.
    pub fn release(&self, seat: &Seat) {
        self.table.lock().remove(seat.id);
    }

    pub fn len(&self) -> usize {
        self.table.lock().seats.len()
    }
}

impl Table {
    fn evict(&mut self, addr: Option<IpAddr>) -> bool {
        let quiet = self.seats.values().filter(|s| addr.is_none_or(|a| a == s.addr) && s.quiet());
        let Some(oldest) = quiet.min_by_key(|s| s.active_ms.load(Ordering::Relaxed)).cloned() else { return false };
        self.remove(oldest.id);
        oldest.leave.notify_one();
        true
    }

    fn remove(&mut self, id: u64) {
        let Some(seat) = self.seats.remove(&id) else { return };
        if let Some(n) = self.of_client.get_mut(&seat.addr) {
            *n -= 1;
            if *n == 0 {
                self.of_client.remove(&seat.addr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seated(admission: Admission) -> Arc<Seat> {
        match admission {
            Admission::Seated(seat) | Admission::SeatedAfterEviction(seat) => seat,
            Admission::TurnedAway => panic!("turned away"),
        }
    }

    #[test]
    fn at_the_bound_the_quietest_goes_and_the_busy_stay() {
        let limits = Limits { connections_max: 3, connections_per_client: 2, ..Limits::default() };
        let seats = Seats::default();
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let a = seated(seats.admit(one, &limits));
        let b = seated(seats.admit(one, &limits));
        b.active_ms.store(0, Ordering::Relaxed);
        a.active_ms.store(5, Ordering::Relaxed);
        let _call = a.slots.clone().try_acquire_owned().unwrap();
        assert!(matches!(seats.admit(one, &limits), Admission::SeatedAfterEviction(_)), "b gave way");
        assert_eq!(seats.len(), 2);
        seated(seats.admit(two, &limits));
        let d = seated(seats.admit(two, &limits));
        assert_eq!(seats.len(), 3, "the bound in all");
        let _d = d.slots.clone().try_acquire_owned().unwrap();
        for seat in seats.table.lock().seats.values() {
            if let Ok(slot) = seat.slots.try_acquire() {
                slot.forget();
            }
        }
        assert!(matches!(seats.admit(one, &limits), Admission::TurnedAway), "all are busy");
        seats.release(&a);
        seats.release(&a);
        assert_eq!(seats.len(), 2);
    }
}
