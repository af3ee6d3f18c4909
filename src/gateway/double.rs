//! A volume in memory, without permissions or journal: just enough meaning to see what the gateway asks of it.
//! A name beginning with `panic` panics, one beginning with `slow` waits for [`Double::gate`], `jukebox` asks to come
//! again. Every change that runs is counted.

use super::backend::Backend;
use crate::state::State;
use crate::volume::late::Known;
use crate::volume::types::*;
use async_trait::async_trait;
use bytes::Bytes;
use journal_format::event::{Event, What};
use journal_format::ids::{JunctionId, Kind, NodeId, Time};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{RwLock, Semaphore};

pub const J: JunctionId = JunctionId(1);
pub const ROOT: NodeRef = NodeRef { junction: J, node: NodeId(2) };

#[derive(Clone)]
struct Node {
    kind: Kind,
    data: Vec<u8>,
    children: BTreeMap<Vec<u8>, u64>,
    nlink: u32,
    mode: u32,
    uid: u32,
    changed: i64,
}

pub struct Double {
    nodes: Mutex<BTreeMap<u64, Node>>,
    pub gate: Semaphore,
    pub changes: AtomicU64,
    pub reads: AtomicU64,
    pub last_call: Mutex<Option<Call>>,
    /// What the last listing was asked to fit into.
    pub last_room: Mutex<Option<Room>>,
    /// What is said of every call that changes something.
    pub late: Mutex<Option<Known>>,
    /// Whether the junctions' last operations are in doubt.
    pub doubt: AtomicBool,
    pub state: Mutex<Arc<State>>,
    /// Written to by a test: meanwhile permissions are not known.
    pub asking: RwLock<()>,
    /// The same: what is recorded shows in State, and is not durable.
    pub flushing: RwLock<()>,
}

fn node(kind: Kind, uid: u32) -> Node {
    Node { kind, data: Vec::new(), children: BTreeMap::new(), nlink: 1, mode: 0o644, uid, changed: 1 }
}

impl Default for Double {
    fn default() -> Self {
        let nodes = BTreeMap::from([(1, node(Kind::Dir, 0)), (ROOT.node.0, node(Kind::Dir, 0))]);
        Self {
            nodes: Mutex::new(nodes),
            gate: Semaphore::new(0),
            changes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            last_call: Mutex::new(None),
            last_room: Mutex::new(None),
            late: Mutex::new(None),
            doubt: AtomicBool::new(false),
            state: Mutex::new(Arc::new(super::access::tests::state(&[]))),
            asking: RwLock::default(),
            flushing: RwLock::default(),
        }
    }
}

fn refused<T: Default>(status: Status) -> Refused<T> {
    Refused { status, with: T::default() }
}

impl Double {
    /// A file in the root.
    pub fn file(&self, name: &[u8], data: Vec<u8>) -> NodeRef {
        self.insert(ROOT, name, Node { data, ..node(Kind::File, 0) })
    }

    /// The name of a junction in the tree.
    pub fn junction(&self, name: &[u8]) {
        self.nodes.lock().get_mut(&1).expect("the tree's root is there").children.insert(name.to_vec(), ROOT.node.0);
    }

    pub fn names(&self) -> Vec<Vec<u8>> {
        self.nodes.lock()[&ROOT.node.0].children.keys().cloned().collect()
    }

    pub fn data(&self, node: NodeRef) -> Vec<u8> {
        self.nodes.lock()[&node.node.0].data.clone()
    }

    fn insert(&self, dir: NodeRef, name: &[u8], new: Node) -> NodeRef {
        let mut nodes = self.nodes.lock();
        let id = nodes.last_key_value().expect("the root is there").0 + 1;
        nodes.insert(id, new);
        nodes.get_mut(&dir.node.0).expect("a directory").children.insert(name.to_vec(), id);
        NodeRef { junction: dir.junction, node: NodeId(id) }
    }

    fn attr(&self, node: NodeRef) -> Answer<Attr> {
        let nodes = self.nodes.lock();
        let n = nodes.get(&node.node.0).ok_or(Status::Stale)?;
        Ok(Attr {
            kind: n.kind,
            mode: n.mode,
            nlink: n.nlink,
            uid: n.uid,
            gid: 0,
            size: n.data.len() as u64,
            used: n.data.len() as u64,
            rdev: (0, 0),
            fsid: u64::from(node.junction.0),
            fileid: node.node.0,
            atime: Time(0),
            mtime: Time(n.changed),
            ctime: Time(n.changed),
        })
    }

    fn wcc(&self, node: NodeRef) -> Wcc {
        Wcc { before: None, after: self.attr(node).ok() }
    }

    fn child(&self, dir: NodeRef, name: &[u8]) -> Answer<NodeRef> {
        let nodes = self.nodes.lock();
        let n = nodes.get(&dir.node.0).ok_or(Status::Stale)?;
        if n.kind != Kind::Dir {
            return Err(Status::NotDir);
        }
        let id = n.children.get(name).ok_or(Status::NoEnt)?;
        Ok(NodeRef { junction: dir.junction, node: NodeId(*id) })
    }

    async fn change(&self, call: &Call, name: &[u8]) -> Answer<()> {
        *self.last_call.lock() = Some(call.clone());
        assert!(!name.starts_with(b"panic"), "asked to panic");
        if name.starts_with(b"slow") {
            self.gate.acquire().await.expect("open").forget();
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        if name.starts_with(b"jukebox") { Err(Status::Jukebox) } else { Ok(()) }
    }

    async fn put(&self, call: &Call, dir: NodeRef, name: &[u8], new: Node) -> Result<Found, Refused<Wcc>> {
        self.change(call, name).await.map_err(refused)?;
        match self.child(dir, name) {
            Err(Status::NoEnt) => {}
            Err(status) => return Err(refused(status)),
            Ok(_) => return Err(refused(Status::Exist)),
        }
        let node = self.insert(dir, name, new);
        Ok(Found { node, attr: self.attr(node).map_err(refused)?, dir: self.wcc(dir) })
    }

    async fn take(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>> {
        self.change(call, name).await.map_err(refused)?;
        let node = self.child(dir, name).map_err(refused)?;
        let mut nodes = self.nodes.lock();
        nodes.get_mut(&dir.node.0).expect("found above").children.remove(name);
        let n = nodes.get_mut(&node.node.0).expect("found above");
        n.nlink -= 1;
        if n.nlink == 0 {
            nodes.remove(&node.node.0);
        }
        drop(nodes);
        Ok(self.wcc(dir))
    }
}

#[async_trait]
impl Backend for Double {
    async fn mount(&self, path: &[u8], may: MayUse<'_>) -> Answer<NodeRef> {
        if path != b"/" && !may(ROOT.junction) {
            return Err(Status::Access);
        }
        match path {
            b"/" => Ok(NodeRef { junction: JunctionId(0), node: NodeId(1) }),
            b"/j" => Ok(ROOT),
            b"/late" => self.gate.try_acquire().map(|_| ROOT).map_err(|_| Status::Jukebox),
            b"/slow" => {
                self.gate.acquire().await.expect("open").forget();
                Ok(ROOT)
            }
            _ => self.child(ROOT, path.strip_prefix(b"/j/").ok_or(Status::NoEnt)?),
        }
    }

    async fn getattr(&self, node: NodeRef) -> Answer<Attr> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.attr(node)
    }

    async fn setattr(&self, call: &Call, node: NodeRef, set: SetAttrs, _g: Option<Time>) -> Result<Wcc, Refused<Wcc>> {
        self.change(call, b"").await.map_err(refused)?;
        if let (Some(n), Some(mode)) = (self.nodes.lock().get_mut(&node.node.0), set.mode) {
            n.mode = mode;
        }
        Ok(self.wcc(node))
    }

    async fn lookup(&self, _call: &Call, dir: NodeRef, name: &[u8]) -> Result<Found, Refused<Option<Attr>>> {
        let node = self.child(dir, name).map_err(refused)?;
        Ok(Found { node, attr: self.attr(node).map_err(refused)?, dir: self.wcc(dir) })
    }

    async fn access(&self, _call: &Call, node: NodeRef, mask: u32) -> Answer<(u32, Attr)> {
        let _asking = self.asking.read().await;
        Ok((mask, self.attr(node)?))
    }

    async fn readlink(&self, _call: &Call, node: NodeRef) -> Result<(Vec<u8>, Option<Attr>), Refused<Option<Attr>>> {
        let attr = self.attr(node).map_err(refused)?;
        Ok((self.nodes.lock()[&node.node.0].data.clone(), Some(attr)))
    }

    async fn read(&self, _c: &Call, node: NodeRef, offset: u64, len: u32) -> Result<ReadOk, Refused<Option<Attr>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let attr = self.attr(node).map_err(refused)?;
        let data = self.nodes.lock()[&node.node.0].data.clone();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let to = from.saturating_add(len as usize).min(data.len());
        let eof = to == data.len();
        Ok(ReadOk { data: Bytes::from(data).slice(from..to), eof, attr: Some(attr) })
    }

    async fn write(&self, call: &Call, node: NodeRef, offset: u64, data: Bytes) -> Result<(u32, Wcc), Refused<Wcc>> {
        self.change(call, b"").await.map_err(refused)?;
        let count = u32::try_from(data.len()).expect("small");
        let from = usize::try_from(offset).expect("small");
        if let Some(n) = self.nodes.lock().get_mut(&node.node.0) {
            n.data.resize(n.data.len().max(from + data.len()), 0);
            n.data[from..from + data.len()].copy_from_slice(&data);
        }
        Ok((count, self.wcc(node)))
    }

    async fn create(&self, call: &Call, dir: NodeRef, name: &[u8], _how: CreateHow) -> Result<Found, Refused<Wcc>> {
        self.put(call, dir, name, node(Kind::File, call.uid)).await
    }

    async fn make(&self, call: &Call, dir: NodeRef, name: &[u8], new: NewNode) -> Result<Found, Refused<Wcc>> {
        let mut n = node(new.what.kind(), call.uid);
        if let What::Symlink { target } = new.what {
            n.data = target;
        }
        self.put(call, dir, name, n).await
    }

    async fn remove(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>> {
        self.take(call, dir, name).await
    }

    async fn rmdir(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>> {
        self.take(call, dir, name).await
    }

    async fn rename(
        &self,
        call: &Call,
        from: NodeRef,
        name: &[u8],
        to: NodeRef,
        new: &[u8],
    ) -> Result<(Wcc, Wcc), Refused<(Wcc, Wcc)>> {
        self.change(call, name).await.map_err(refused)?;
        let node = self.child(from, name).map_err(refused)?;
        let mut nodes = self.nodes.lock();
        nodes.get_mut(&from.node.0).expect("found").children.remove(name);
        nodes.get_mut(&to.node.0).expect("found").children.insert(new.to_vec(), node.node.0);
        drop(nodes);
        Ok((self.wcc(from), self.wcc(to)))
    }

    async fn link(
        &self,
        call: &Call,
        node: NodeRef,
        dir: NodeRef,
        name: &[u8],
    ) -> Result<(Option<Attr>, Wcc), Refused<(Option<Attr>, Wcc)>> {
        self.change(call, name).await.map_err(refused)?;
        let mut nodes = self.nodes.lock();
        nodes.get_mut(&node.node.0).ok_or(refused(Status::Stale))?.nlink += 1;
        nodes.get_mut(&dir.node.0).ok_or(refused(Status::Stale))?.children.insert(name.to_vec(), node.node.0);
        drop(nodes);
        Ok((self.attr(node).ok(), self.wcc(dir)))
    }

    async fn readdir(
        &self,
        _call: &Call,
        dir: NodeRef,
        cookie: u64,
        _verifier: u64,
        room: Room,
        may: MayUse<'_>,
    ) -> Result<Listing, Refused<Option<Attr>>> {
        *self.last_room.lock() = Some(room);
        // More than there is room for: the gateway has bounds of its own.
        let (max, plus) = (room.bytes, room.plus.is_some());
        let attr = self.attr(dir).map_err(refused)?;
        let children = self.nodes.lock()[&dir.node.0].children.clone();
        let dots = [(b".".to_vec(), dir.node.0), (b"..".to_vec(), dir.node.0)];
        let all: Vec<_> = dots.into_iter().chain(children).zip(1u64..).filter(|(_, at)| *at > cookie).collect();
        let eof = all.len() <= max;
        let entries = all.into_iter().take(max).map(|((name, id), cookie)| {
            let junction = if id == ROOT.node.0 { J } else { dir.junction };
            let node = Some(NodeRef { junction, node: NodeId(id) }).filter(|node| plus && may(node.junction));
            DirEntry { name, fileid: id, cookie, node, attr: node.and_then(|node| self.attr(node).ok()) }
        });
        Ok(Listing { entries: entries.collect(), eof, dir: Some(attr) })
    }

    async fn fsstat(&self, _call: &Call, node: NodeRef) -> Answer<Space> {
        let fs = crate::filer::FsStat { total_bytes: 100, free_files: 7, ..Default::default() };
        Ok(Space { attr: Some(self.attr(node)?), fs })
    }

    async fn attr_opt(&self, node: NodeRef) -> Option<Attr> {
        self.attr(node).ok()
    }

    async fn in_doubt(&self, _junction: JunctionId) -> bool {
        self.doubt.load(Ordering::SeqCst)
    }

    async fn commit(&self, _call: &Call, node: NodeRef) -> Result<Wcc, Refused<Wcc>> {
        Ok(self.wcc(node))
    }

    fn late(&self, _call: &Call) -> Answer<Option<Known>> {
        Ok(*self.late.lock())
    }

    fn leads_to(&self, dir: NodeRef, name: &[u8]) -> Answer<Option<NodeId>> {
        Ok(self.nodes.lock().get(&dir.node.0).and_then(|dir| dir.children.get(name)).map(|node| NodeId(*node)))
    }

    fn state(&self) -> Arc<State> {
        self.state.lock().clone()
    }
    async fn record(&self, event: Event) -> Answer<()> {
        {
            let mut shared = self.state.lock();
            let state = Arc::make_mut(&mut shared);
            let at = state.lsn;
            crate::state::apply(state, at, at.plus(64), Time(0), &event).map_err(|_| Status::ServerFault)?;
        }
        let _flushing = self.flushing.read().await;
        Ok(())
    }
    async fn exports(&self) -> Vec<(JunctionId, Vec<u8>)> {
        vec![(J, b"/j".to_vec())]
    }
}
