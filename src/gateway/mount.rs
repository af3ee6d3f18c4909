//! MOUNT: a path becomes a handle. The list that DUMP shows is for people; nothing depends on it.

use super::access::{Decision, decide, know};
use super::limits::Limits;
use super::status::mountstat;
use super::{Shared, count};
use crate::volume::types::{Answer, NodeRef, Status};
use crate::wire::mount::{Args, ExportEntry, MountEntry, MountStat, Mounted, PATH_MAX, Text, put_list};
use crate::wire::xdr::Writer;
use bytes::Bytes;
use journal_format::ids::JunctionId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a MNT waits for what is not there yet; a kernel asks again after 10 s, by UDP sooner.
const PATIENCE: Duration = Duration::from_secs(8);
const AGAIN: Duration = Duration::from_millis(250);

/// AUTH_UNIX: the flavour that is recommended. AUTH_NONE is served too, as nobody.
const FLAVOURS: [u32; 1] = [1];

/// MNTs that wait, in all and of one address: less than there is room for in what they come by (`udp.rs`). Beyond it they
/// are answered at once.
const WAITING_MAX: usize = 32;
const WAITING_OF_ONE_MAX: usize = 8;

/// Who mounted what, as far as they told: at most [`Limits::MOUNTS_MAX`] entries, the oldest goes. And who waits to.
#[derive(Default)]
pub(super) struct Mounts {
    told: Mutex<VecDeque<(IpAddr, Bytes)>>,
    waiting: Arc<Mutex<Vec<IpAddr>>>,
}

/// One that waits.
struct Waits {
    among: Arc<Mutex<Vec<IpAddr>>>,
    addr: IpAddr,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut waiting = self.among.lock();
        if let Some(at) = waiting.iter().position(|addr| *addr == self.addr) {
            waiting.swap_remove(at);
        }
    }
}

impl Mounts {
    fn add(&self, addr: IpAddr, path: Bytes) {
        let mut list = self.told.lock();
        let entry = (addr.to_canonical(), path);
        if list.contains(&entry) {
            return;
        }
        if list.len() >= Limits::MOUNTS_MAX {
            list.pop_front();
        }
        list.push_back(entry);
    }

    fn wait(&self, addr: IpAddr) -> Option<Waits> {
        let addr = addr.to_canonical();
        let mut waiting = self.waiting.lock();
        let own = waiting.iter().filter(|of| **of == addr).count();
        if waiting.len() >= WAITING_MAX || own >= WAITING_OF_ONE_MAX {
            return None;
        }
        waiting.push(addr);
        Some(Waits { among: self.waiting.clone(), addr })
    }

    fn remove(&self, addr: IpAddr, path: Option<&[u8]>) {
        let addr = addr.to_canonical();
        self.told.lock().retain(|(a, p)| *a != addr || path.is_some_and(|path| p[..] != *path));
    }

    /// What `addr` mounted: what others did is not its business.
    fn of(&self, addr: IpAddr) -> Vec<MountEntry> {
        let addr = addr.to_canonical();
        let list = self.told.lock();
        let own = list.iter().filter(|(a, _)| *a == addr);
        own.map(|(a, path)| MountEntry { host: Text(a.to_string().into()), path: Text(path.clone()) }).collect()
    }
}

impl Shared {
    pub(super) async fn mount(&self, peer: SocketAddr, args: Args, w: &mut Writer) {
        let known = know(&self.backend.state(), peer);
        match args {
            Args::Null => {}
            Args::Mnt(path) => {
                let mounted = self.mnt(peer, known, &path.0).await;
                if matches!(mounted, Mounted::Ok(..)) {
                    // A copy: the list outlives the record.
                    self.mounts.add(peer.ip(), Bytes::copy_from_slice(&path.0));
                }
                w.put(&mounted);
            }
            Args::Dump => put_list(w, &if known { self.mounts.of(peer.ip()) } else { Vec::new() }),
            Args::Umnt(path) => self.mounts.remove(peer.ip(), Some(&path.0)),
            Args::UmntAll => self.mounts.remove(peer.ip(), None),
            Args::Export => put_list(w, &if known { self.exports(peer).await } else { Vec::new() }),
        }
    }

    pub(super) fn may(&self, peer: SocketAddr, junction: JunctionId) -> bool {
        decide(&self.backend.state(), junction, peer) != Decision::Refused
    }

    async fn mnt(&self, peer: SocketAddr, known: bool, path: &[u8]) -> Mounted {
        if !known {
            count(&self.stats.refused);
            return Mounted::Refused(MountStat::Access);
        }
        if path.len() > PATH_MAX {
            return Mounted::Refused(MountStat::NameTooLong);
        }
        match self.look_for(peer, path).await {
            Ok(node) => Mounted::Ok(self.handle(node), FLAVOURS.to_vec()),
            Err(Status::Access) => {
                count(&self.stats.refused);
                Mounted::Refused(MountStat::Access)
            }
            // To a caller who may not see all there is, absent and forbidden are one.
            Err(_) if !self.may_all(peer).await => Mounted::Refused(MountStat::Access),
            Err(status) => Mounted::Refused(mountstat(status)),
        }
    }

    /// MNT has no way to say "later", and a mount that was told of an error is given up: a primary that is just coming up is
    /// waited for.
    async fn look_for(&self, peer: SocketAddr, path: &[u8]) -> Answer<NodeRef> {
        let may = |junction| self.may(peer, junction);
        let (begun, mut waits) = (Instant::now(), None);
        loop {
            let found = self.backend.mount(path, &may).await;
            if !matches!(found, Err(Status::Jukebox)) || begun.elapsed() >= PATIENCE {
                return found;
            }
            if waits.is_none() {
                waits = self.mounts.wait(peer.ip());
                if waits.is_none() {
                    return found;
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn may_all(&self, peer: SocketAddr) -> bool {
        self.backend.exports().await.iter().all(|(junction, _)| self.may(peer, *junction))
    }

    async fn exports(&self, peer: SocketAddr) -> Vec<ExportEntry> {
        let junctions = self.backend.exports().await;
        let paths = junctions.into_iter().filter(|(junction, _)| self.may(peer, *junction)).map(|(_, path)| path);
        let all = std::iter::once(b"/".to_vec()).chain(paths.filter(|path| path != b"/"));
        all.take(Limits::EXPORTS_MAX).map(|path| ExportEntry { path: Text(path.into()), groups: None }).collect()
    }
}
