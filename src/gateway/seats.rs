//! Who is connected. A new connection needs a seat; when there is none left, the connection that has been quiet
//! longest gives up its own: an NFS client that is really there connects again when it has something to ask.
//!
//! A *stranger*, whom no policy has let in since it connected, takes no client's seat: strangers share
//! [`Limits::strangers_max`] seats, and leave before anybody else does, whatever they have in flight. Else a few
//! addresses that ask and do not read their replies, and so are never quiet, could keep every client out. The same
//! holds among the seats of one address: where a policy asks for a privileged port, any program of a client's machine
//! is a stranger.

use super::limits::Limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub(super) struct Seat {
    id: u64,
    pub addr: IpAddr,
    /// Some policy let the client in when it connected, or has since: [`Seats::let_in`]. Changed under the table's
    /// lock.
    known: AtomicBool,
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
    pub fn known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

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
    strangers: usize,
    next: u64,
}

/// What became of a new connection.
pub(super) enum Admission {
    Seated(Arc<Seat>),
    SeatedAfterEviction(Arc<Seat>),
    /// All others are busy; to a stranger, all others are clients.
    TurnedAway,
}

impl Seats {
    pub fn admit(&self, addr: IpAddr, known: bool, limits: &Limits) -> Admission {
        let addr = addr.to_canonical();
        let mut table = self.table.lock();
        let own = table.of_client.get(&addr).copied().unwrap_or(0);
        let strangers_full = !known && table.strangers >= limits.strangers_max();
        let evicted = if own >= limits.connections_per_client {
            Some(table.make_room(known, |seat| seat.addr == addr))
        } else if strangers_full || table.seats.len() >= limits.connections_max {
            Some(table.make_room(known, |_| true))
        } else {
            None
        };
        if evicted == Some(false) {
            return Admission::TurnedAway;
        }
        table.next += 1;
        let seat = Arc::new(Seat {
            id: table.next,
            addr,
            known: AtomicBool::new(known),
            start: self.start,
            active_ms: AtomicU64::new(0),
            slots: Arc::new(Semaphore::new(limits.calls_per_connection as usize)),
            slots_max: limits.calls_per_connection,
            leave: Notify::new(),
        });
        seat.touch();
        table.seats.insert(seat.id, seat.clone());
        *table.of_client.entry(addr).or_default() += 1;
        table.strangers += usize::from(!known);
        if evicted.is_some() { Admission::SeatedAfterEviction(seat) } else { Admission::Seated(seat) }
    }

    /// A policy lets this stranger in by now: it is a client from here on. Said twice, or of a connection that is gone,
    /// it changes no count.
    pub fn let_in(&self, seat: &Seat) {
        let mut table = self.table.lock();
        let was_known = seat.known.swap(true, Ordering::Relaxed);
        table.strangers -= usize::from(!was_known && table.seats.contains_key(&seat.id));
    }

    /// Free a descriptor, if any connection is quiet, or a stranger's.
    pub fn evict_one(&self) -> bool {
        self.table.lock().make_room(true, |_| true)
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
    /// For one who is known, or not: of these, strangers go first.
    fn make_room(&mut self, known: bool, of: impl Fn(&Seat) -> bool) -> bool {
        let stranger = |seat: &Seat| !seat.known() && of(seat);
        let freed = self.strangers > 0 && (self.evict(|seat| stranger(seat) && seat.quiet()) || self.evict(stranger));
        freed || (known && self.evict(|seat| of(seat) && seat.quiet()))
    }

    /// Of these, the one that had something to say longest ago.
    fn evict(&mut self, of: impl Fn(&Seat) -> bool) -> bool {
        let these = self.seats.values().filter(|seat| of(seat));
        let Some(oldest) = these.min_by_key(|s| s.active_ms.load(Ordering::Relaxed)).cloned() else { return false };
        self.remove(oldest.id);
        oldest.leave.notify_one();
        true
    }

    fn remove(&mut self, id: u64) {
        let Some(seat) = self.seats.remove(&id) else { return };
        self.strangers -= usize::from(!seat.known());
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
        let a = seated(seats.admit(one, true, &limits));
        let b = seated(seats.admit(one, true, &limits));
        b.active_ms.store(0, Ordering::Relaxed);
        a.active_ms.store(5, Ordering::Relaxed);
        let _call = a.slots.clone().try_acquire_owned().unwrap();
        assert!(matches!(seats.admit(one, true, &limits), Admission::SeatedAfterEviction(_)), "b gave way");
        assert_eq!(seats.len(), 2);
        seated(seats.admit(two, true, &limits));
        let d = seated(seats.admit(two, true, &limits));
        assert_eq!(seats.len(), 3, "the bound in all");
        let _d = d.slots.clone().try_acquire_owned().unwrap();
        for seat in seats.table.lock().seats.values() {
            if let Ok(slot) = seat.slots.try_acquire() {
                slot.forget();
            }
        }
        assert!(matches!(seats.admit(one, true, &limits), Admission::TurnedAway), "all are busy");
        seats.release(&a);
        seats.release(&a);
        assert_eq!(seats.len(), 2);
    }

    fn busy(seat: &Seat) {
        seat.slots.try_acquire().unwrap().forget();
    }

    #[test]
    fn strangers_have_a_share_of_the_seats_and_leave_first_however_busy_they_are() {
        let limits = Limits { connections_max: 8, ..Limits::default() };
        assert_eq!(limits.strangers_max(), 2);
        let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
        let seats = Seats::default();
        let quiet = seated(seats.admit(addr(1), true, &limits));
        for n in 2..100 {
            busy(&seated(seats.admit(addr(n), false, &limits)));
        }
        assert_eq!(seats.len(), 3, "a client's and a quarter of all");
        for n in 100..105 {
            busy(&seated(seats.admit(addr(n), true, &limits)));
        }
        assert_eq!(seats.len(), 8);
        for n in 105..107 {
            let seat = seats.admit(addr(n), true, &limits);
            assert!(matches!(seat, Admission::SeatedAfterEviction(_)));
            busy(&seated(seat));
        }
        assert_eq!((seats.len(), seats.table.lock().strangers), (8, 0));
        assert!(matches!(seats.admit(addr(2), false, &limits), Admission::TurnedAway), "though a client's is quiet");
        assert!(seats.table.lock().seats.contains_key(&quiet.id));
        assert!(seats.evict_one() && !seats.table.lock().seats.contains_key(&quiet.id));
        busy(&seated(seats.admit(addr(2), false, &limits)));
        assert!(seats.evict_one(), "a stranger's, when descriptors run out");
        assert!(!seats.evict_one());
    }

    #[test]
    fn a_stranger_that_is_let_in_is_counted_and_treated_as_a_client_from_then_on() {
        let limits = Limits { connections_max: 4, ..Limits::default() };
        let addr = |n: u8| IpAddr::from([10, 0, 0, n]);
        let seats = Seats::default();
        let strangers = || seats.table.lock().strangers;
        let (one, other) = (seated(seats.admit(addr(1), false, &limits)), seated(seats.admit(addr(2), true, &limits)));
        busy(&one);
        for _ in 0..2 {
            seats.let_in(&one);
            seats.let_in(&other);
            assert_eq!((one.known(), strangers()), (true, 0));
        }
        let two = seated(seats.admit(addr(3), false, &limits));
        assert_eq!(strangers(), 1);
        assert!(seats.evict_one() && seats.table.lock().seats.contains_key(&one.id), "the stranger left");
        seats.let_in(&two);
        assert_eq!(strangers(), 0, "it was gone");
        seats.release(&one);
        assert_eq!((seats.len(), strangers()), (1, 0));
    }

    #[test]
    fn at_the_bound_of_an_address_its_strangers_leave_for_its_clients_and_no_client_for_a_stranger() {
        let limits = Limits { connections_per_client: 3, ..Limits::default() };
        let one = IpAddr::from([10, 0, 0, 1]);
        let seats = Seats::default();
        let there = |seat: &Seat| seats.table.lock().seats.contains_key(&seat.id);
        let quiet = seated(seats.admit(one, true, &limits));
        for _ in 0..10 {
            busy(&seated(seats.admit(one, false, &limits)));
        }
        assert!(there(&quiet) && seats.len() == 3, "though it is quiet and they are not");
        let others = [(); 2].map(|()| seated(seats.admit(one, true, &limits)));
        assert_eq!((seats.len(), seats.table.lock().strangers), (3, 0), "they left, busy as they were");
        assert!(matches!(seats.admit(one, false, &limits), Admission::TurnedAway));
        assert!(there(&quiet) && others.iter().all(|seat| there(seat)));
        seated(seats.admit(one, true, &limits));
        assert_eq!(seats.len(), 3, "one client's quiet connection left for another");
    }
}
