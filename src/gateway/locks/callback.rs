//! Calls to clients: GRANTED to those who waited, answers to `_MSG` calls, SM_NOTIFY after a restart. A client is found by
//! its portmapper. Nothing waits for them.

use super::super::Shared;
use super::super::outgoing::{self, CallError, Procedure};
use super::{Ends, Note};
use crate::locks::Grant;
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
/// Under way to one address.
const PER_ADDR: usize = 4;
/// Under way in all.
const UNDER_WAY: usize = 128;
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);

pub(in super::super) struct Callbacks {
    places: Arc<Semaphore>,
    under_way: Semaphore,
    of_addr: Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>,
}

impl Default for Callbacks {
    fn default() -> Self {
        let (places, under_way) = (Arc::new(Semaphore::new(CALLBACKS_MAX)), Semaphore::new(UNDER_WAY));
        Self { places, under_way, of_addr: Mutex::default() }
    }
}

impl Callbacks {
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Run it when few others go to that address, and not too many in all.
    async fn in_turn<T>(&self, addr: IpAddr, what: impl Future<Output = T>) -> T {
        let own = {
            let mut of_addr = self.of_addr.lock();
            of_addr.retain(|_, turns| Arc::strong_count(turns) > 1);
            of_addr.entry(addr).or_insert_with(|| Arc::new(Semaphore::new(PER_ADDR))).clone()
        };
        let _own = own.acquire().await;
        // Who waits for an address that hangs takes no turn from others.
        let _turn = self.under_way.acquire().await;
        what.await
    }
}

impl Shared {
    pub(super) fn call_back(self: &Arc<Self>, grant: Grant<Note>) {
        if let Some(place) = self.locks.callbacks.place() {
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
            let called = self.locks.callbacks.in_turn(addr, async {
                let open = self.locks.table.lock().is_open(offer);
                if open { Some(self.granted_call(offer, &note).await) } else { None }
            });
            match called.await {
                None => return,
                Some(Ok(Stat::Granted)) => return self.locks.table.lock().confirm(offer),
                Some(Ok(_)) => {
                    // It has cancelled, or is not who waited.
                    let grants = self.locks.table.lock().take_back(offer);
                    return self.offer(grants);
                }
                Some(Err(error)) => tracing::debug!(%addr, %error, "a client could not be told of its lock"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn granted_call(&self, offer: u64, note: &Note) -> Result<Stat, CallError> {
        let mut stream = self.lock_manager_of(note.ends).await?;
        if let Some(offered) = self.locks.offers.lock().get_mut(&offer) {
            offered.sent = true;
        }
        let granted = Procedure { program: nlm4::PROGRAM, version: nlm4::VERSION, number: nlm4::procedure::GRANTED };
        let called = outgoing::call(&mut stream, granted, |w| {
            w.put(&note.args);
        });
        let answer: Result<Res, _> = called.await?.get();
        answer.map(|answer| answer.stat).map_err(|_| CallError::Unanswered("an answer that makes no sense".into()))
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
        let Some(place) = self.locks.callbacks.place() else { return };
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

    /// Tell a host that its locks are lost, until it has heard or the grace is over.
    pub(super) async fn notify(self: Arc<Self>, host: Host, number: u32, until: Instant) {
        let addr = IpAddr::from(host.addr).to_canonical();
        let name = host.name.escape_ascii().to_string();
        loop {
            let told = self.locks.callbacks.in_turn(addr, self.notify_call(addr, number)).await;
            match told {
                Ok(()) => return tracing::info!(%addr, name, "a host was told that its locks are lost"),
                Err(error) if Instant::now() + AGAIN >= until => {
                    return tracing::warn!(%addr, name, %error, "a host could not be told that its locks are lost");
                }
                Err(error) => tracing::debug!(%addr, name, %error, "a host could not be told; trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn notify_call(&self, addr: IpAddr, number: u32) -> Result<(), CallError> {
        let portmapper = self.limits.portmapper_of(SocketAddr::new(addr, 0));
        let at = outgoing::port_of(None, portmapper, nsm::PROGRAM, nsm::VERSION).await?;
        if self.locks.is_own(at, None) {
            return Err(CallError::NotSent("its portmapper names this service".into()));
        }
        let mut stream = outgoing::connect(None, at).await?;
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
