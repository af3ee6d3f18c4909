//! The lock service: NLM and NSM over [`crate::locks`].
//!
//! ```text
//!  LOCK ─► policy, handle, permission ─► host monitored (journal) ─► table ─► granted, denied, or blocked
//!                                                                     │ freed
//!  GRANTED call to the client ◄─ offered ◄── who waited ◄─────────────┘      the client also asks again by itself
//!
//!  restart ─► LocksLost (journal) ─► SM_NOTIFY to every monitored host ─► grace: they claim, nobody else may ─► over
//! ```
//!
//! * Locks are in memory. What a restart must know is who may hold some: a host is in the journal before its first lock is
//!   granted ([`hosts`]).
//! * A host is (address, name): several may come from one address. What it says of itself touches nobody else's locks.
//! * It knows the service by the addresses at which it asked for locks: these are in its record, too, and from each it is
//!   told of a restart (from any, where that is this machine's no more).
//! * Calls of one owner about one file run in the order in which they came ([`turns`]).
//! * No call waits for another's lock, and none for a client: callbacks are tasks aside, few for each address
//!   ([`callback`]). An offer that could not be sent is taken back after [`Limits::lock_offer`]; one that was sent and not
//!   answered stays: the client may believe that it has the lock.
//!
//! Bounds: those of the table; [`HOSTS_PER_ADDR`] names of an address, and of our addresses for each
//! [`KNOWN_AT_MAX`](crate::state::hosts::KNOWN_AT_MAX); [`callback::CALLBACKS_MAX`] callbacks, few of them for one
//! address, beyond which clients find out when they ask again.

pub(super) mod callback;
mod hosts;
mod nlm;
mod nsm;
mod turns;

use super::access::{Decision, decide};
use super::{Limits, Shared};
use crate::locks::{Grant, HostId, Table};
use crate::state::hosts::{HOSTS_MAX, KnownAt, next_number, says_nothing_new};
use crate::wire::nlm4::TestArgs;
use callback::Callbacks;
use journal_format::event::{Event, Host, HostForgotten, LocksLost};
use journal_format::ids::JunctionId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use turns::Turns;

/// Names under which one address may hold locks.
const HOSTS_PER_ADDR: usize = 256;
/// How often offers, junctions and hosts are looked after.
const SWEEP: Duration = Duration::from_secs(5);

/// The two ends of a call: who calls, and where it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub peer: SocketAddr,
    pub local: Option<SocketAddr>,
}

/// What it takes to tell one who waits.
#[derive(Clone, Debug)]
pub(super) struct Note {
    ends: Ends,
    args: TestArgs,
}

struct Known {
    id: HostId,
    used: Instant,
    /// Its number when it last told one by TCP; 0: it has told none.
    state: u32,
    /// The number that the last datagram gave it which freed its locks, unless it has said otherwise since. It is not
    /// known by that: anybody can send one with the greatest number of all, and nothing later would be greater.
    told: Option<u32>,
    /// How often it has restarted, as far as it told: what a former life asked for is not given to the next one.
    lives: u64,
    /// Its record is durable, and says so of these addresses of the service.
    monitored: Option<KnownAt>,
}

impl Known {
    fn is_monitored(&self, at: Option<[u8; 16]>) -> bool {
        self.monitored.as_ref().is_some_and(|known| says_nothing_new(known, at))
    }
}

#[derive(Default)]
struct Hosts {
    known: BTreeMap<Host, Known>,
    last: u32,
}

impl Hosts {
    /// The host's number; it has one from now on; and whether its record, which has `at`, is durable. `None`: there are
    /// too many.
    fn touch(&mut self, host: &Host, at: Option<[u8; 16]>) -> Option<(HostId, bool)> {
        if let Some(known) = self.known.get_mut(host) {
            known.used = Instant::now();
            return Some((known.id, known.is_monitored(at)));
        }
        let of_addr = self.known.keys().filter(|known| known.addr == host.addr).count();
        if of_addr >= HOSTS_PER_ADDR || self.known.len() >= HOSTS_MAX {
            return None;
        }
        self.last += 1;
        let id = HostId { number: self.last, addr: host.addr };
        self.known
            .insert(host.clone(), Known { id, used: Instant::now(), state: 0, told: None, lives: 0, monitored: None });
        Some((id, false))
    }

    fn monitored(&mut self, host: &Host, at: KnownAt) {
        if let Some(known) = self.known.get_mut(host) {
            known.monitored = Some(at);
        }
    }
}

pub(super) struct Offered {
    since: Instant,
    /// The client may have got it.
    sent: bool,
}

/// Held by [`Shared`].
pub(super) struct Locks {
    table: Mutex<Table<Note>>,
    hosts: Mutex<Hosts>,
    pub(super) offers: Mutex<BTreeMap<u64, Offered>>,
    /// Hosts are added and forgotten one at a time.
    monitoring: tokio::sync::Mutex<()>,
    grace_until: OnceLock<Instant>,
    /// Where this service listens: a client behind an address of ours leads back to us.
    own: OnceLock<SocketAddr>,
    /// Why no host is heard by UDP, if none is.
    pub(super) deaf: OnceLock<String>,
    callbacks: Callbacks,
    turns: Turns,
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table::new(crate::locks::Limits::default())),
            hosts: Mutex::default(),
            offers: Mutex::default(),
            monitoring: tokio::sync::Mutex::default(),
            grace_until: OnceLock::new(),
            own: OnceLock::new(),
            deaf: OnceLock::new(),
            callbacks: Callbacks::default(),
            turns: Turns::default(),
        }
    }
}

/// The lock service at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFigures {
    pub held: usize,
    pub waiting: usize,
    /// Hosts that are told when the service restarts.
    pub hosts: usize,
    /// How long only claims are granted.
    pub grace: Option<Duration>,
}

/// Looks at the lock service while it runs.
#[derive(Clone)]
pub struct LockView(pub(super) Arc<Shared>);

impl LockView {
    #[must_use]
    pub fn figures(&self) -> LockFigures {
        let locks = &self.0.locks;
        let (held, waiting) = locks.table.lock().totals();
        LockFigures { held, waiting, hosts: self.0.backend.state().hosts.len(), grace: locks.grace() }
    }

    /// What keeps it from hearing of its hosts.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.0.locks.deaf.get().cloned()
    }
}

impl Locks {
    /// It is this service.
    fn is_own(&self, at: SocketAddr, local: Option<SocketAddr>) -> bool {
        let same =
            |own: &SocketAddr| own.port() == at.port() && (own.ip().to_canonical() == at.ip() || at.ip().is_loopback());
        self.own.get().is_some_and(same) || local.as_ref().is_some_and(same)
    }

    fn grace(&self) -> Option<Duration> {
        let until = self.grace_until.get()?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

impl Shared {
    /// Before anybody is served: whoever may have held locks is told, and has time to claim them.
    pub(super) async fn begin_grace(self: &Arc<Self>, own: Option<SocketAddr>) {
        if let Some(own) = own {
            self.locks.own.get_or_init(|| own);
        }
        let state = self.backend.state();
        let (hosts, number) = (state.hosts.clone(), next_number(&state));
        drop(state);
        if hosts.is_empty() {
            return;
        }
        if let Err(status) = self.backend.record(Event::LocksLost(LocksLost { number })).await {
            // A journal that takes nothing has stopped the service; one that is full will not when there is room.
            tracing::error!(?status, "it could not be recorded that locks were lost: their hosts may not claim them");
        }
        for (host, at) in &hosts {
            let mut known = self.locks.hosts.lock();
            known.touch(host, None);
            known.monitored(host, at.clone());
        }
        let until = Instant::now() + self.limits.lock_grace;
        self.locks.grace_until.get_or_init(|| until);
        tracing::info!(hosts = hosts.len(), grace = ?self.limits.lock_grace, number, "hosts that held locks may claim them");
        for (host, at) in hosts {
            tokio::spawn(self.clone().notify(host, at, number, until));
        }
    }

    /// Until aborted.
    pub(super) async fn look_after_locks(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep().await;
        }
    }

    async fn sweep(self: &Arc<Self>) {
        let mut grants = self.free_those_who_may_not();
        grants.extend(self.take_back_unsent());
        self.offer(grants);
        if self.locks.grace().is_none() {
            self.forget_idle_hosts().await;
        }
    }

    /// What is held in a junction that is removed, or that is closed to its holder by now, is free.
    fn free_those_who_may_not(&self) -> Vec<Grant<Note>> {
        let state = self.backend.state();
        let mut table = self.locks.table.lock();
        let away = |(junction, host): &(JunctionId, HostId)| {
            // From whatever port: a privileged one is asked for when it calls.
            let peer = SocketAddr::new(IpAddr::from(host.addr).to_canonical(), 1);
            !state.junctions.contains_key(junction) || decide(&state, *junction, peer) == Decision::Refused
        };
        let away = table.users().into_iter().filter(away).collect();
        table.free_users(&away)
    }

    /// Offers that nobody can know of, long enough.
    pub(super) fn take_back_unsent(&self) -> Vec<Grant<Note>> {
        let mut table = self.locks.table.lock();
        let mut offers = self.locks.offers.lock();
        offers.retain(|offer, _| table.is_open(*offer));
        let late = |offered: &Offered| !offered.sent && offered.since.elapsed() >= self.limits.lock_offer;
        // Under both locks from here on: none of these goes out meanwhile.
        let unsent: Vec<u64> = offers.iter().filter(|(_, offered)| late(offered)).map(|(offer, _)| *offer).collect();
        unsent.into_iter().flat_map(|offer| table.take_back(offer)).collect()
    }

    /// An offer is about to go out, and is not taken back from here on because nobody could know of it. Whether it may
    /// have gone out before. `None`: it is not open any more, and must not go out.
    pub(super) fn sending(&self, offer: u64) -> Option<bool> {
        let table = self.locks.table.lock();
        let mut offers = self.locks.offers.lock();
        let offered = offers.get_mut(&offer).filter(|_| table.is_open(offer))?;
        Some(std::mem::replace(&mut offered.sent, true))
    }

    /// It did not go out, as it turned out.
    pub(super) fn not_sent(&self, offer: u64) {
        if let Some(offered) = self.locks.offers.lock().get_mut(&offer) {
            offered.sent = false;
        }
    }

    pub(super) async fn forget_idle_hosts(&self) {
        let _turn = self.locks.monitoring.lock().await;
        let idle: Vec<Host> = {
            let table = self.locks.table.lock();
            let mut hosts = self.locks.hosts.lock();
            let idle = |known: &Known| !table.is_used(known.id) && known.used.elapsed() >= self.limits.lock_host_idle;
            let idle: Vec<Host> =
                hosts.known.iter().filter(|(_, known)| idle(known)).map(|(host, _)| host.clone()).collect();
            for host in &idle {
                hosts.known.remove(host);
            }
            idle
        };
        for host in idle {
            if self.backend.state().hosts.contains_key(&host)
                && let Err(status) = self.backend.record(Event::HostForgotten(HostForgotten { host })).await
            {
                tracing::warn!(
                    ?status,
                    "a host that holds no locks could not be forgotten: it is told of the next restart"
                );
            }
        }
    }

    /// Tell those who waited.
    fn offer(self: &Arc<Self>, grants: Vec<Grant<Note>>) {
        for grant in grants {
            let offered = Offered { since: Instant::now(), sent: false };
            self.locks.offers.lock().insert(grant.offer, offered);
            self.call_back(grant);
        }
    }
}

impl Limits {
    fn portmapper_of(&self, peer: SocketAddr) -> SocketAddr {
        SocketAddr::new(peer.ip().to_canonical(), self.client_portmapper)
    }
}
