//! Who holds locks, as far as a restart must know.

use super::super::Shared;
use super::super::drc::mapped;
use super::{Ends, Known};
use crate::locks::HostId;
use crate::state::hosts::{HOSTS_MAX, says_nothing_new};
use crate::wire::nlm4::{Short, Stat};
use journal_format::event::{Event, Host, HostMonitored};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// A caller by its address and the name it gives.
pub(super) fn host(peer: SocketAddr, name: &Short) -> Host {
    Host { addr: mapped(peer.ip()), name: name.0.to_vec() }
}

/// One host under two names: with its domain and without.
pub(super) fn same_name(a: &[u8], b: &[u8]) -> bool {
    let label = |name: &[u8]| name.split(|byte| *byte == b'.').next().unwrap_or_default().to_ascii_lowercase();
    let bare = |name: &[u8]| !name.contains(&b'.');
    a.eq_ignore_ascii_case(b) || ((bare(a) || bare(b)) && label(a) == label(b))
}

/// What a host's numbers say: they grow when it restarts, and only then.
impl Known {
    /// A call of the host begins, and gives this number. If that is smaller than what a datagram told, it has not
    /// restarted as that said; and a true one that names the same number later is to be heard.
    fn disproves(&mut self, state: u32) {
        let goes_on = |told: u32| state != 0 && self.state <= state && state < told;
        self.told = self.told.filter(|told| !goes_on(*told));
    }

    /// Such a call is about to be carried out. Whether it is the first to say that the host has restarted.
    fn called(&mut self, state: u32) -> bool {
        // What a datagram told while the call was under way stays as it is.
        let later = self.told.filter(|told| *told > state);
        let before = if later.is_some() { self.state } else { self.number() };
        self.state = self.state.max(state);
        self.told = later;
        before != 0 && state > before
    }

    /// SM_NOTIFY gives this number. Whether that is news. By TCP the host is believed, whatever the number.
    fn notified(&mut self, state: u32, datagram: bool) -> bool {
        let differs = if datagram { state > self.state } else { state == 0 || state != self.state };
        let news = differs && self.told != Some(state);
        if differs && datagram {
            self.told = Some(state);
        } else if differs {
            (self.state, self.told) = (state, None);
        }
        news
    }

    /// Its present number, as far as anybody told.
    fn number(&self) -> u32 {
        self.told.unwrap_or(self.state)
    }
}

impl Shared {
    /// The caller's number, if it has one: else it holds nothing.
    pub(super) fn known_host(&self, peer: SocketAddr, name: &Short) -> Option<HostId> {
        let mut hosts = self.locks.hosts.lock();
        let known = hosts.known.get_mut(&host(peer, name))?;
        known.used = Instant::now();
        Some(known.id)
    }

    /// Some host of that address may hold locks.
    pub(super) fn has_lock_hosts(&self, peer: SocketAddr) -> bool {
        let addr = mapped(peer.ip());
        let hosts = self.locks.hosts.lock();
        let first = Host { addr, name: Vec::new() };
        hosts.known.range(first..).next().is_some_and(|(host, _)| host.addr == addr)
    }

    /// The caller's number; with `monitored`, it is in the journal when this returns.
    pub(super) async fn lock_host(
        self: &Arc<Self>,
        ends: Ends,
        name: &Short,
        state: u32,
        monitored: bool,
    ) -> Result<HostId, Stat> {
        let (host, at) = (host(ends.peer, name), ends.local.map(|local| mapped(local.ip())));
        let (id, done) = self.locks.hosts.lock().touch(&host, at).ok_or(Stat::NoLocks)?;
        self.restarted_if_newer(&host, state);
        if monitored && !done { self.monitor(&host, at).await } else { Ok(id) }
    }

    /// Hosts are recorded and forgotten one at a time. That State has a host does not say that its record is durable:
    /// whoever has the turn, and finds it there, knows that whoever recorded it has waited for that.
    async fn monitor(&self, host: &Host, at: Option<[u8; 16]>) -> Result<HostId, Stat> {
        let _turn = self.locks.monitoring.lock().await;
        let state = self.backend.state();
        let (known, room) = (state.hosts.get(host), state.hosts.len() < HOSTS_MAX);
        let (new, nothing_new) = (known.is_none(), known.is_some_and(|known| says_nothing_new(known, at)));
        drop(state);
        if new && !room {
            return Err(Stat::NoLocks);
        }
        if !nothing_new {
            let event = Event::HostMonitored(HostMonitored { host: host.clone(), at });
            self.backend.record(event).await.map_err(|_| Stat::Grace)?;
        }
        let durable = self.backend.state().hosts.get(host).cloned().unwrap_or_default();
        // It may have been forgotten while this waited for its turn: then it has another number.
        let mut hosts = self.locks.hosts.lock();
        let (id, _) = hosts.touch(host, at).ok_or(Stat::NoLocks)?;
        hosts.monitored(host, durable);
        Ok(id)
    }

    /// How often the host has restarted; to be asked before anything else is, and told to [`still`](Self::still).
    /// `state`: its number, as it says; 0 if it does not.
    pub(super) fn lives(&self, peer: SocketAddr, name: &Short, state: u32) -> u64 {
        let mut hosts = self.locks.hosts.lock();
        let Some(known) = hosts.known.get_mut(&host(peer, name)) else { return 0 };
        known.disproves(state);
        known.lives
    }

    /// Under the table's lock: the host has not been forgotten since it was given its number, nor restarted since it
    /// asked, unless this is a call of the life that began so. `state`: its number, as it says; 0 if it does not.
    pub(super) fn still(
        &self,
        id: HostId,
        (peer, name): (SocketAddr, &Short),
        lives: u64,
        state: u32,
    ) -> Result<(), Stat> {
        let hosts = self.locks.hosts.lock();
        let known = hosts.known.get(&host(peer, name)).filter(|known| known.id == id);
        let same = known.is_some_and(|known| known.lives == lives || (state != 0 && known.number() == state));
        if same { Ok(()) } else { Err(Stat::Grace) }
    }

    /// What the host held under a smaller number is gone there.
    fn restarted_if_newer(self: &Arc<Self>, host: &Host, state: u32) {
        self.free_restarted(|hosts| {
            let Some(known) = hosts.known.get_mut(host) else { return Vec::new() };
            let restarted = known.called(state);
            known.lives += u64::from(restarted);
            if restarted { vec![(known.id, host.clone())] } else { Vec::new() }
        });
    }

    /// A host says that it has restarted, and has this number now. Said twice it frees nothing twice. In a datagram, whose
    /// sender anybody can forge, it must name a number that is greater than the known one, and does not make it known.
    pub(super) fn restarted(self: &Arc<Self>, ends: Ends, name: &Short, state: u32) {
        let (addr, datagram) = (mapped(ends.peer.ip()), ends.local.is_none());
        self.free_restarted(|hosts| {
            let mut freed = Vec::new();
            for (host, known) in &mut hosts.known {
                if host.addr == addr && same_name(&host.name, &name.0) && known.notified(state, datagram) {
                    known.lives += 1;
                    freed.push((known.id, host.clone()));
                }
            }
            freed
        });
    }

    /// Free what these hosts held, in one step with what is known of them: what the next life is granted is not taken
    /// away for the last one's.
    fn free_restarted(self: &Arc<Self>, restarted: impl FnOnce(&mut super::Hosts) -> Vec<(HostId, Host)>) {
        let mut grants = Vec::new();
        {
            let mut table = self.locks.table.lock();
            for (id, host) in restarted(&mut self.locks.hosts.lock()) {
                grants.extend(table.free_host(id));
                tracing::info!(name = %host.name.escape_ascii(), "a client has restarted: its locks are free");
            }
        }
        self.offer(grants);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_its_domain_and_without_is_one_host() {
        for (a, b, same) in [
            ("a", "a", true),
            ("a", "A.example.org", true),
            ("a.example.org", "a", true),
            ("a.example.org", "a.example.com", false),
            ("a", "b", false),
            ("a", "ab", false),
            ("", "a", false),
        ] {
            assert_eq!(same_name(a.as_bytes(), b.as_bytes()), same, "{a} {b}");
        }
    }
}
