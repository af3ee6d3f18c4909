//! An object held: its `O_PATH` descriptor, the descriptor its data goes through, and the bounded caches of both.
//!
//! Two bounds, from the process's descriptor limit ([`Limits::from_rlimit`]): `nodes_max` objects are kept by identity,
//! `files_max` have a data descriptor open. At a bound the one not used for longest (by a clock hand) is let go; an
//! object that a caller still holds stays usable, and its data descriptor is opened again at its next read or write.
//! Objects that callers hold beyond `nodes_max` are theirs to bound. When descriptors run out all the same, both caches
//! are emptied and the call is tried once more.

use bytes::Bytes;
use journal_format::ids::{Identity, Kind, Time};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::process::{Resource, getrlimit};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// An object of this filer, behind [`Object::inner`](crate::filer::Object).
pub(super) struct Node {
    pub id: Identity,
    pub kind: Kind,
    pub ino: u64,
    /// Names the object, whatever it is called; no data goes through it.
    pub path: OwnedFd,
    /// What READ and WRITE of a hot file use: one system call each.
    pub file: Mutex<Option<File>>,
    /// The object's ACLs ([`AclKind`](crate::filer::AclKind)), as they were at a change time.
    pub acls: [Mutex<Option<KnownAcl>>; 2],
    /// Of a directory that was asked (`folding.rs`).
    pub folds_names: OnceLock<bool>,
    used: AtomicBool,
}

/// An ACL, or that there is none.
#[derive(Clone)]
pub(super) struct KnownAcl {
    pub at: Time,
    /// The change time was too young to tell whether something changed since.
    pub young: bool,
    pub acl: Option<Bytes>,
}

#[derive(Clone)]
pub(super) struct File {
    pub fd: Arc<OwnedFd>,
    pub writable: bool,
}

impl Node {
    pub fn new(id: Identity, kind: Kind, ino: u64, path: OwnedFd, file: Option<File>) -> Arc<Self> {
        let (file, acls, used) = (Mutex::new(file), Default::default(), AtomicBool::new(true));
        Arc::new(Self { id, kind, ino, path, file, acls, folds_names: OnceLock::new(), used })
    }

    /// The data descriptor, if one that serves is open.
    pub fn open_file(&self, write: bool) -> Option<Arc<OwnedFd>> {
        self.used.store(true, Ordering::Relaxed);
        self.file.lock().as_ref().filter(|file| file.writable || !write).map(|file| file.fd.clone())
    }

    fn spared(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub nodes_max: usize,
    pub files_max: usize,
}

impl Limits {
    /// A 16th and a 32nd of the process's limit, so that ten filers leave room for clients' connections.
    pub fn from_rlimit() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let limit = usize::try_from(limit).unwrap_or(1 << 20);
        Self { nodes_max: (limit / 16).clamp(32, 4096), files_max: (limit / 32).clamp(16, 1024) }
    }
}

/// Objects by identity, and those with an open data descriptor.
pub(super) struct Nodes {
    limits: Limits,
    known: Mutex<Known>,
    open: Mutex<VecDeque<Weak<Node>>>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<Identity, Arc<Node>>,
    /// To find what a name led to from its inode number alone, when the name is removed.
    by_ino: HashMap<u64, Identity>,
    order: VecDeque<Identity>,
}

impl Nodes {
    pub fn new(limits: Limits) -> Self {
        Self { limits, known: Mutex::default(), open: Mutex::default() }
    }

    /// Objects with two descriptors each that a caller may hold: as many descriptors as objects are kept.
    pub fn nameless_max(&self) -> usize {
        self.limits.nodes_max / 2
    }

    pub fn get(&self, id: &Identity) -> Option<Arc<Node>> {
        let node = self.known.lock().by_id.get(id).cloned()?;
        node.used.store(true, Ordering::Relaxed);
        Some(node)
    }

    /// Keeps `node`, or hands back the one that is kept already, so that an object has one data descriptor.
    pub fn keep(&self, node: Arc<Node>) -> Arc<Node> {
        if let Some(kept) = self.get(&node.id) {
            return kept;
        }
        // What is let go is dropped (its descriptors closed) after the lock.
        let mut gone = Vec::new();
        {
            let mut known = self.known.lock();
            known.by_ino.insert(node.ino, node.id.clone());
            known.order.push_back(node.id.clone());
            known.by_id.insert(node.id.clone(), node.clone());
            while known.by_id.len() > self.limits.nodes_max || known.order.len() > 2 * self.limits.nodes_max {
                let Some(id) = known.order.pop_front() else { break };
                if known.by_id.get(&id).is_some_and(|node| node.spared()) {
                    known.order.push_back(id);
                } else {
                    gone.extend(known.take(&id));
                }
            }
        }
        if node.file.lock().is_some() {
            self.opened(&node);
        }
        node
    }

    pub fn forget(&self, id: &Identity) {
        let gone = self.known.lock().take(id);
        drop(gone);
    }

    /// What had this inode number lost its last name: a descriptor kept here would keep its space allocated.
    pub fn forget_ino(&self, ino: u64) {
        let gone = {
            let mut known = self.known.lock();
            let id = known.by_ino.get(&ino).cloned();
            id.and_then(|id| known.take(&id))
        };
        drop(gone);
    }

    /// `node` has a data descriptor now.
    pub fn opened(&self, node: &Arc<Node>) {
        let mut closed = Vec::new();
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(node));
        // Each is passed over once at most, for passing takes its mark away; a node in use is passed over again.
        let mut steps = 2 * open.len();
        while open.len() > self.limits.files_max && steps > 0 {
            steps -= 1;
            let Some(weak) = open.pop_front() else { break };
            let Some(other) = weak.upgrade() else { continue };
            match other.file.try_lock() {
                Some(mut file) if !other.spared() => closed.extend(file.take()),
                _ => open.push_back(weak),
            }
        }
        drop(open);
        drop(closed);
    }

    /// Out of descriptors, or the file system was mounted anew: let go of all.
    pub fn clear(&self) {
        self.open.lock().retain(|weak| match weak.upgrade() {
            Some(node) => node.file.try_lock().is_none_or(|mut file| {
                *file = None;
                false
            }),
            None => false,
        });
        let known = std::mem::take(&mut *self.known.lock());
        drop(known);
    }

    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let open = self.open.lock();
        let files = open.iter().filter_map(Weak::upgrade).filter(|node| node.file.lock().is_some()).count();
        (self.known.lock().by_id.len(), files)
    }
}

impl Known {
    fn take(&mut self, id: &Identity) -> Option<Arc<Node>> {
        let node = self.by_id.remove(id)?;
        if self.by_ino.get(&node.ino) == Some(id) {
            self.by_ino.remove(&node.ino);
        }
        Some(node)
    }
}
