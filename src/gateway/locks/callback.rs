//! Calls to clients: GRANTED to those who waited, answers to `_MSG` calls, SM_NOTIFY after a restart. A client is found by
//! its portmapper. Nothing waits for them.

use super::super::Shared;
use super::super::outgoing::{self, CallError, Procedure};
use super::{Ends, Note};
use crate::locks::Grant;
use crate::state::hosts::KnownAt;
use crate::wire::nlm4::{self, Res, Short, Stat};
use crate::wire::nsm::{self, Change};
use crate::wire::xdr::Writer;
use bytes::Bytes;
use journal_format::event::Host;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Callbacks in all that wait or are under way. Beyond, a client finds out when it asks again.
pub const CALLBACKS_MAX: usize = 2048;
/// The same for one address: one whose portmapper is dead keeps no place from others.
const PLACES_PER_ADDR: usize = 256;
/// Under way to one address.
const PER_ADDR: usize = 4;
/// Under way in all.
const UNDER_WAY: usize = 128;
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);

/// Those to one address.
struct OfAddr {
    places: Arc<Semaphore>,
    turns: Semaphore,
}

pub(in super::super) struct Callbacks {
    places: Arc<Semaphore>,
    under_way: Semaphore,
    of_addr: Mutex<BTreeMap<IpAddr, Arc<OfAddr>>>,
}

impl Default for Callbacks {
    fn default() -> Self {
        let (places, under_way) = (Arc::new(Semaphore::new(CALLBACKS_MAX)), Semaphore::new(UNDER_WAY));
        Self { places, under_way, of_addr: Mutex::default() }
    }
}

/// Held by a callback from when it is due to its end.
struct Place {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
    _addr: Arc<OfAddr>,
}

impl Callbacks {
    fn of_addr(&self, addr: IpAddr) -> Arc<OfAddr> {
        let mut of_addr = self.of_addr.lock();
        of_addr.retain(|_, own| Arc::strong_count(own) > 1);
        let new = || OfAddr { places: Arc::new(Semaphore::new(PLACES_PER_ADDR)), turns: Semaphore::new(PER_ADDR) };
        of_addr.entry(addr.to_canonical()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// The address's own place first, then a common one.
    fn place(&self, addr: IpAddr) -> Option<Place> {
        let of_addr = self.of_addr(addr);
        let own = of_addr.places.clone().try_acquire_owned().ok()?;
        let common = self.places.clone().try_acquire_owned().ok()?;
        Some(Place { _own: own, _common: common, _addr: of_addr })
    }

    /// Run it when few others go to that address, and not too many in all.
    async fn in_turn<T>(&self, addr: IpAddr, what: impl Future<Output = T>) -> T {
        let of_addr = self.of_addr(addr);
        let _own = of_addr.turns.acquire().await;
        // Who waits for an address that hangs takes no turn from others.
        let _turn = self.under_way.acquire().await;
        what.await
    }
}

/// What became of a GRANTED call.
enum Told {
    /// The offer is not open any more.
    Closed,
    Yes,
    No,
    /// It says no, and may have said yes to an earlier call whose answer was lost: then it has the lock, and does not
    /// know any more that it waited.
    NoByNow,
    Unknown(CallError),
}

impl Shared {
    pub(super) fn call_back(self: &Arc<Self>, grant: Grant<Note>) {
        if let Some(place) = self.locks.callbacks.place(grant.note.ends.peer.ip()) {
            let shared = self.clone();
            tokio::spawn(async move {
                shared.tell_granted(grant).await;
                drop(place);
            });
        }
    }

    /// Until the client has said yes or no, or has asked by itself, or may have been told and does not say.
    async fn tell_granted(self: Arc<Self>, grant: Grant<Note>) {
        let (offer, note) = (grant.offer, grant.note);
        let addr = note.ends.peer.ip();
        let begun = Instant::now();
        while begun.elapsed() < self.limits.lock_offer {
            match self.locks.callbacks.in_turn(addr, self.granted_call(offer, &note)).await {
                Told::Closed | Told::NoByNow => return,
                Told::Yes => {
                    let grants = self.locks.table.lock().confirm(offer);
                    return self.offer(grants);
                }
                Told::No => {
                    // It has cancelled, or is not who waited.
                    let grants = self.locks.table.lock().take_back(offer);
                    return self.offer(grants);
                }
                Told::Unknown(error) => tracing::debug!(%addr, %error, "a client could not be told of its lock"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn granted_call(&self, offer: u64, note: &Note) -> Told {
        if !self.locks.table.lock().is_open(offer) {
            return Told::Closed;
        }
        let mut stream = match self.lock_manager_of(note.ends).await {
            Ok(stream) => stream,
            Err(error) => return Told::Unknown(error),
        };
        // It may have been taken back meanwhile, and be another's.
        let Some(before) = self.sending(offer) else { return Told::Closed };
        let granted = Procedure { program: nlm4::PROGRAM, version: nlm4::VERSION, number: nlm4::procedure::GRANTED };
        let called = outgoing::call(&mut stream, granted, |w| {
            w.put(&note.args);
        });
        match called.await.map(|mut answer| answer.get::<Res>()) {
            Ok(Ok(Res { stat: Stat::Granted, .. })) => Told::Yes,
            Ok(Ok(_)) if before => Told::NoByNow,
            Ok(Ok(_)) => Told::No,
            Ok(Err(_)) => Told::Unknown(CallError::Unanswered("an answer that makes no sense".into())),
            Err(error) => {
                if matches!(error, CallError::NotSent(_)) && !before {
                    self.not_sent(offer);
                }
                Told::Unknown(error)
            }
        }
    }

    /// A client's lock manager. Where its address leads to ourselves (it is behind a gateway's) there is none.
    async fn lock_manager_of(&self, ends: Ends) -> Result<tokio::net::TcpStream, CallError> {
        let local = ends.local.map(|local| local.ip().to_canonical());
        let portmapper = self.limits.portmapper_of(ends.peer);
        let at = outgoing::port_of(local, portmapper, nlm4::PROGRAM, nlm4::VERSION).await?;
        if self.locks.is_own(at, ends.local) {
            return Err(CallError::NotSent("its portmapper names this service".into()));
        }
        outgoing::connect(local, at).await
    }

    /// The answer to a `_MSG` call: a call of its own, once. Who does not get it asks again.
    pub(super) fn answer_by_call(self: &Arc<Self>, ends: Ends, procedure: u32, answer: Bytes) {
        let Some(place) = self.locks.callbacks.place(ends.peer.ip()) else { return };
        let shared = self.clone();
        tokio::spawn(async move {
            let to = Procedure { program: nlm4::PROGRAM, version: nlm4::VERSION, number: procedure };
            let sent = shared.locks.callbacks.in_turn(ends.peer.ip(), async {
                let mut stream = shared.lock_manager_of(ends).await?;
                outgoing::call(&mut stream, to, |w| w.raw(&answer)).await
            });
            if let Err(error) = sent.await {
                tracing::debug!(peer = %ends.peer, %error, "a client could not be answered by a call");
            }
            drop(place);
        });
    }

    /// Tell a host that its locks are lost, from each address by which it knows the service, until it has heard or the
    /// grace is over. A client compares the caller's address with that of its mount (nfs-utils does so).
    pub(super) async fn notify(self: Arc<Self>, host: Host, at: KnownAt, number: u32, until: Instant) {
        let addr = IpAddr::from(host.addr).to_canonical();
        let name = host.name.escape_ascii().to_string();
        let mut left: Vec<Option<IpAddr>> = at.into_iter().map(|at| Some(IpAddr::from(at).to_canonical())).collect();
        if left.is_empty() {
            left.push(None);
        }
        loop {
            let mut failed = None;
            for at in std::mem::take(&mut left) {
                if let Err(error) = self.locks.callbacks.in_turn(addr, self.notify_call(at, addr, number)).await {
                    failed = Some(error);
                    left.push(at);
                }
            }
            match failed {
                None => return tracing::info!(%addr, name, "a host was told that its locks are lost"),
                Some(error) if Instant::now() + AGAIN >= until => {
                    return tracing::warn!(%addr, name, %error, "a host could not be told that its locks are lost");
                }
                Some(error) => tracing::debug!(%addr, name, %error, "a host could not be told; trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn notify_call(&self, at: Option<IpAddr>, addr: IpAddr, number: u32) -> Result<(), CallError> {
        // An address that this machine has not any more (or not yet) would reach nobody: then from any.
        let from = at.filter(|at| outgoing::is_ours(*at));
        let portmapper = self.limits.portmapper_of(SocketAddr::new(addr, 0));
        let at = outgoing::port_of(from, portmapper, nsm::PROGRAM, nsm::VERSION).await?;
        if self.locks.is_own(at, None) {
            return Err(CallError::NotSent("its portmapper names this service".into()));
        }
        let mut stream = outgoing::connect(from, at).await?;
        let to = Procedure { program: nsm::PROGRAM, version: nsm::VERSION, number: nsm::NOTIFY };
        let own = rustix::system::uname().nodename().to_bytes().to_vec();
        let change = Change { name: Short(own.into()), state: number };
        outgoing::call(&mut stream, to, |w: &mut Writer| {
            w.put(&change);
        })
        .await
        .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_callbacks_and_leaves_places_for_others() {
        let callbacks = Callbacks::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut places: Vec<_> = std::iter::from_fn(|| callbacks.place(one)).take(CALLBACKS_MAX).collect();
        assert_eq!(places.len(), PLACES_PER_ADDR);
        assert!(callbacks.place("::ffff:10.0.0.1".parse().unwrap()).is_none(), "it is the same");
        assert!(callbacks.place(other).is_some());
        places.pop();
        assert!(callbacks.place(one).is_some());
        drop(places);
        drop(callbacks.of_addr(other));
        assert_eq!(callbacks.of_addr.lock().len(), 1, "addresses without callbacks are not kept");
    }
}
