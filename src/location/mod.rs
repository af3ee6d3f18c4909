//! A filer's subtree with its identities.
//!
//! * [`Location`]: node -> object, remembered (bounded), by identity, or by walking names and checking identities.
//! * [`projection`]: what a secondary should hold as of its replayer's position (pure fold of the journal, on disk).
//! * [`round`]: what some events ask of a location, collected; [`reconcile`]: carrying that out by identity, the same
//!   code for a replayer's ordinary round and for redo after a crash.

pub mod cache;
pub mod carry_out;
pub mod copy;
pub mod digest;
pub mod dirty;
mod keys;
mod look;
mod newborn;
pub mod projection;
pub mod reconcile;
pub mod redo;
pub mod root;
pub mod round;
pub mod steplog;
pub mod tail;
mod unsynced;
pub mod view;

use crate::filer::fence::{Fence, Fenced};
use crate::filer::{self, CoreFiler, Error, ErrorKind, Object, Stat};
use crate::index::objects::Objects;
use async_trait::async_trait;
use cache::Cache;
use journal_format::ids::{Identity, LocationId, Lsn, NodeId};
use look::is_elsewhere;
use parking_lot::{Mutex, RwLock};
use projection::PEN;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use unsynced::Unsynced;
pub use view::View;

#[cfg(test)]
mod redo_tests;
#[cfg(test)]
pub(crate) mod tests;

/// Objects kept at hand per location; beyond it the ones not used for longest go. Each may hold a descriptor.
const OBJECTS_KEPT_MAX: usize = 1024;
/// The same where they must be walked to otherwise. The worlds of the simulation are small, and must walk.
const OBJECTS_KEPT_WALKED: usize = if cfg!(feature = "simulation") { 8 } else { OBJECTS_KEPT_MAX };
/// Names of one node that are tried when it must be walked to.
const NAMES_TRIED_MAX: usize = 64;
/// Names that are followed one after the other without waiting.
const NAMES_AT_ONCE_MAX: usize = 16;
/// Deeper trees are refused when they must be walked; by identity any depth works.
const DEPTH_MAX: usize = 1024;
/// Walks that may fail because names moved meanwhile, before names are asked to stay.
const WALKS: u32 = 4;
/// How long a walk waits for the operations on names that are under way: a filer that hangs has nothing to walk on.
const STILL_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Takes down, durably, which object a new node is.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Returns when `Made` is durable.
    async fn made(&self, location: LocationId, objects: &[(NodeId, Identity)]) -> filer::Result<()>;
}

/// Takes it down in the location's own store, for those who have no journal of their own.
pub struct InStore(pub Objects);

#[async_trait]
impl Recorder for InStore {
    async fn made(&self, _location: LocationId, _objects: &[(NodeId, Identity)]) -> filer::Result<()> {
        // They are in it already, not durably.
        self.0.store.commit(self.0.store.lsn()).map_err(index_error)
    }
}

pub struct Location {
    pub id: LocationId,
    /// The node of its root directory.
    pub root: NodeId,
    pub filer: Arc<dyn CoreFiler>,
    /// In front of `filer`, where one was asked for: see [`Location::fenced`].
    pub fence: Fence,
    pub objects: Objects,
    /// Held while it is synced for a checkpoint.
    pub syncing: tokio::sync::Mutex<()>,
    /// Shared by who takes a name away on the filer, until the view says so too; see [`object`](Self::object).
    moving: tokio::sync::RwLock<()>,
    cache: Mutex<Cache<NodeId, Object>>,
    /// Nodes whose kept times are not on the filer yet.
    touched: Mutex<BTreeSet<NodeId>>,
    /// So many times in a row some of these could not be put; by whoever had the location open.
    pub untimed: Arc<AtomicU32>,
    unsynced: Unsynced,
    /// Nodes that ended here, by the operation that ended them: their identities are forgotten when it is durable on
    /// the filer, for until then a power cut may bring the objects back.
    retired: Mutex<Vec<(Lsn, NodeId)>>,
}

impl Location {
    #[must_use]
    pub fn new(id: LocationId, root: NodeId, filer: Arc<dyn CoreFiler>, objects: Objects) -> Self {
        let cache = Mutex::new(Cache::new(kept(filer.as_ref())));
        let fence = Fence::default();
        let (touched, untimed, unsynced, retired, syncing, moving) = Default::default();
        Self { id, root, filer, fence, objects, syncing, moving, cache, touched, untimed, unsynced, retired }
    }

    /// With a fence in front of its filer: for a secondary, whose replayer gives up a round that hangs.
    #[must_use]
    pub fn fenced(id: LocationId, root: NodeId, filer: Arc<Fenced>, objects: Objects) -> Self {
        Self { fence: filer.fence.clone(), ..Self::new(id, root, filer, objects) }
    }

    /// It goes on with a count of its `untimed`.
    #[must_use]
    pub fn counted_by(self, untimed: Arc<AtomicU32>) -> Self {
        Self { untimed, ..self }
    }

    /// The node's object: remembered, by identity, or by walking `view`'s names and checking identities.
    /// [`ErrorKind::Stale`] when there is none (any more), and only then: a walk that names moved under is repeated, in
    /// the end while none may ([`names_move`](Self::names_move)).
    pub async fn object(&self, view: &dyn View, node: NodeId) -> filer::Result<Object> {
        if let Some(object) = self.object_at_once(view, node) {
            return Ok(object);
        }
        if let Some(object) = self.at_hand(node).await? {
            return Ok(object);
        }
        for _ in 0..WALKS {
            match self.walk(view, node).await {
                Err(error) if is_absent(&error) => {}
                other => return other,
            }
        }
        let Ok(_still) = tokio::time::timeout(STILL_MAX, self.moving.write()).await else {
            let detail = format!("node {node} must be walked to, and an operation on names does not end");
            return Err(Error::new(ErrorKind::Busy, "find", detail));
        };
        match self.walk(view, node).await {
            Err(error) if is_absent(&error) => Err(Error { kind: ErrorKind::Stale, ..error }),
            other => other,
        }
    }

    /// The object if it can be had without waiting: remembered, or by names that the filer has in memory, from a directory
    /// that is. To open it by its identity may wait for the disk, and so takes a thread of its own, which costs many times
    /// as much; and it would leave the directory unknown, so that the next file in it takes one, too.
    pub fn object_at_once(&self, view: &dyn View, node: NodeId) -> Option<Object> {
        if node == PEN || !self.filer.answers_at_once() {
            return None;
        }
        self.below_what_is_remembered(view, node, NAMES_AT_ONCE_MAX)
    }

    fn below_what_is_remembered(&self, view: &dyn View, node: NodeId, names_max: usize) -> Option<Object> {
        if let Some(object) = self.remembered(node) {
            return Some(object);
        }
        let names_max = names_max.checked_sub(1)?;
        let (dir, name) = view.names(node, 1).ok()?.pop()?;
        let dir = self.below_what_is_remembered(view, dir, names_max)?;
        self.named_at_once(&dir, &name, node)
    }

    /// The same where the name is known. Names may have moved on the filer: identity decides.
    pub fn named_at_once(&self, dir: &Object, name: &[u8], node: NodeId) -> Option<Object> {
        if let Some(object) = self.remembered(node) {
            return Some(object);
        }
        let object = self.filer.lookup_at_once(dir, name)?;
        if self.identity(node).ok()? != object.id {
            return None;
        }
        self.remember(node, &object);
        Some(object)
    }

    /// Attributes of the node's object, whose name is known, in the same way; it is not remembered.
    pub fn stat_at_once(&self, dir: &Object, name: &[u8], node: NodeId) -> Option<Stat> {
        match self.remembered(node) {
            Some(object) => self.filer.stat_at_once(&object),
            None => self.filer.stat_named_at_once(dir, name, &self.identity(node).ok()?),
        }
    }

    fn remembered(&self, node: NodeId) -> Option<Object> {
        self.cache.lock().get(&node)
    }

    /// To be held from before a name is taken away on the filer until the view says so, by whoever has the objects that
    /// it works on already: nothing may be asked of [`object`](Self::object) meanwhile.
    pub async fn names_move(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.moving.read().await
    }

    /// The object if it can be had without walking.
    pub async fn at_hand(&self, node: NodeId) -> filer::Result<Option<Object>> {
        if node == PEN {
            return self.filer.pen().await.map(Some);
        }
        if let Some(object) = self.remembered(node) {
            return Ok(Some(object));
        }
        let found = if node == self.root {
            Some(self.filer.root().await?)
        } else {
            let id = self.identity(node)?;
            self.filer.by_identity(&id).await?
        };
        if let Some(object) = &found {
            self.remember(node, object);
        }
        Ok(found)
    }

    async fn walk(&self, view: &dyn View, node: NodeId) -> filer::Result<Object> {
        // Up by names until something is at hand, then down again.
        let mut below: Vec<(NodeId, Vec<u8>)> = Vec::new();
        let mut at = node;
        let mut dir = loop {
            if let Some(object) = self.at_hand(at).await? {
                break object;
            }
            if below.len() > DEPTH_MAX {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "walk",
                    format!("node {at} lies deeper than {DEPTH_MAX} directories"),
                ));
            }
            let names = view.names(at, NAMES_TRIED_MAX).map_err(index_error)?;
            let Some((parent, name)) = self.reachable(view, at, names).await? else { return Err(stale(at)) };
            below.push((at, name));
            at = parent;
        };
        while let Some((child, name)) = below.pop() {
            let looked = self.filer.lookup(&dir, &name).await;
            let object = looked.map_err(|e| if e.kind.is_no_entry() { stale(child) } else { e })?;
            if object.id != self.identity(child)? {
                return Err(stale(child));
            }
            self.remember(child, &object);
            dir = object;
        }
        Ok(dir)
    }

    /// Of several hard links, one that is really there.
    async fn reachable(
        &self,
        view: &dyn View,
        node: NodeId,
        mut names: Vec<(NodeId, Vec<u8>)>,
    ) -> filer::Result<Option<(NodeId, Vec<u8>)>> {
        if names.len() < 2 {
            return Ok(names.pop());
        }
        let id = self.identity(node)?;
        for (parent, name) in names {
            let there = match Box::pin(self.walk(view, parent)).await {
                Ok(dir) => self.filer.lookup(&dir, &name).await,
                Err(error) => Err(error),
            };
            match there {
                Ok(object) if object.id == id => return Ok(Some((parent, name))),
                Ok(_) => {}
                Err(error) if is_elsewhere(error.kind) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn identity(&self, node: NodeId) -> filer::Result<Identity> {
        self.objects.identity(node).map_err(index_error)?.ok_or_else(|| stale(node))
    }

    /// Keep an object that was just made or met at hand.
    pub fn remember(&self, node: NodeId, object: &Object) {
        self.cache.lock().put(node, object.clone());
    }

    pub fn forget(&self, node: NodeId) {
        self.cache.lock().remove(&node);
    }

    /// Nothing is at hand any more: the file system may have been mounted anew.
    pub fn forget_all(&self) {
        *self.cache.lock() = Cache::new(kept(self.filer.as_ref()));
    }

    /// The node's kept times must be put on the filer before the location's cursor passes. Returns how many wait.
    pub fn touch(&self, node: NodeId) -> usize {
        let mut touched = self.touched.lock();
        touched.insert(node);
        touched.len()
    }

    /// The operation at `lsn` removed the node's last name.
    pub fn retire(&self, lsn: Lsn, node: NodeId) {
        self.forget(node);
        self.touched.lock().remove(&node);
        self.retired.lock().push((lsn, node));
    }

    pub fn take_retired(&self) -> Vec<(Lsn, NodeId)> {
        std::mem::take(&mut *self.retired.lock())
    }

    #[must_use]
    pub fn touched(&self) -> usize {
        self.touched.lock().len()
    }

    /// The nodes touched so far, which are about to be synced; they are the caller's now, until
    /// [`sync_has_ended`](Self::sync_has_ended).
    pub fn take_touched(&self) -> BTreeSet<NodeId> {
        let mut touched = self.touched.lock();
        let taken = std::mem::take(&mut *touched);
        self.unsynced.begins(&taken);
        taken
    }
}

fn kept(filer: &dyn CoreFiler) -> usize {
    if filer.capabilities().open_by_identity { OBJECTS_KEPT_MAX } else { OBJECTS_KEPT_WALKED }
}

/// There is no such object where it was looked for.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound | ErrorKind::NotDir)
}

fn stale(node: NodeId) -> Error {
    Error::new(ErrorKind::Stale, "find", format!("node {node} is not on the filer under any name known"))
}

/// The index could not be read: no statement about the filer is possible.
pub(crate) fn index_error(error: crate::index::store::Error) -> Error {
    Error::new(ErrorKind::Io, "index", error.to_string())
}

/// The open locations: those that are up, and those that have fallen.
///
/// A location *falls* when its sync has failed: what was carried out since its cursor may be lost, although the filer
/// still shows it. Nobody is given it any more until it has been redone from its cursor; then it is put back.
#[derive(Default)]
pub struct Locations {
    map: RwLock<BTreeMap<LocationId, Arc<Location>>>,
    fallen: RwLock<BTreeMap<LocationId, Arc<Location>>>,
    /// Of each that was opened: a try to bring one up that fails is not the last.
    untimed: Mutex<BTreeMap<LocationId, Arc<AtomicU32>>>,
}

impl Locations {
    /// `None`: unknown, down or fallen.
    pub fn get(&self, id: LocationId) -> Option<Arc<Location>> {
        self.map.read().get(&id).cloned()
    }
    pub fn all(&self) -> Vec<Arc<Location>> {
        self.map.read().values().cloned().collect()
    }
    /// Those that are up, and those that fell.
    pub fn open(&self) -> Vec<Arc<Location>> {
        self.map.read().values().chain(self.fallen.read().values()).cloned().collect()
    }
    /// It is up (again).
    pub fn insert(&self, location: Arc<Location>) {
        self.fallen.write().remove(&location.id);
        self.map.write().insert(location.id, location);
    }
    pub fn remove(&self, id: LocationId) {
        self.map.write().remove(&id);
        self.fallen.write().remove(&id);
        self.untimed.lock().remove(&id);
    }
    /// How often times could not be put on it, for whoever opens it.
    pub fn untimed(&self, id: LocationId) -> Arc<AtomicU32> {
        self.untimed.lock().entry(id).or_default().clone()
    }
    /// Nobody gets it any more. Whether it was up.
    pub fn fall(&self, id: LocationId) -> bool {
        let taken = self.map.write().remove(&id);
        let was_up = taken.is_some();
        if let Some(location) = taken {
            self.fallen.write().insert(id, location);
        }
        was_up
    }
    pub fn fallen(&self, id: LocationId) -> Option<Arc<Location>> {
        self.fallen.read().get(&id).cloned()
    }
}
