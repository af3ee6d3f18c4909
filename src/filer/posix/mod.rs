//! A local or mounted directory.
//!
//! Owns: the descriptors of one location. Each object is an `O_PATH` descriptor (`node.rs`), found by name beneath its
//! directory or, as root on the file systems that give lasting handles, by identity (`tree.rs`, `identity.rs`). READ
//! and WRITE go through a second descriptor that is opened once and kept, so a hot file costs one system call.
//!
//! Holds (I10): a name is resolved by the kernel beneath a directory's own descriptor, one component at a time, with
//! symlinks, magic links and mount points refused: an object on another file system has another space of identities, so
//! a mount point below the root is [`ErrorKind::CrossDevice`](super::ErrorKind). An object that was met stays usable
//! wherever it is moved by others, as with any NFS server that does not check subtrees.
//!
//! Holds (I11): at most [`calls::CALLS_MAX`] system calls of a location are under way; the next ones wait. A mount that
//! hangs takes that many threads and no more (`calls.rs`). Descriptors are bounded in `node.rs`.
//!
//! Fast: on local file systems, names the kernel remembers, attributes of an open object and data in the page cache are
//! answered by the calling thread, for they cannot wait there (measured: 1 to 6 µs instead of 20 to 40); everything else
//! goes to a thread that may wait, one visit a method.
//!
//! Fails: an export root or location that is not the one that was added is `Down`, seen by `root()`; a file system that
//! was mounted anew makes the next `sync` fail, for what was written to the old mount may be lost. A call whose future
//! is dropped still runs to its end.
//!
//! As an ordinary user: owners cannot be changed and devices not made (`NotPermitted`); a mode that forbids our own
//! access to our own object is lent the owner's bits for the instant of opening it ([`tree::Tree::lent`]).

mod attrs;
mod calls;
mod data;
mod errno;
mod folding;
mod identity;
mod marks;
mod names;
mod node;
mod overlap;
mod probe;
#[cfg(test)]
mod tests;
mod tree;

pub use overlap::{Site, overlaps, site};
pub use probe::probe;

use super::{
    AclKind, Capabilities, Changes, CoreFiler, Error, ErrorKind, FsStat, MakeAttrs, Object, OwnerMarker, Page, Result,
    Stat,
};
use async_trait::async_trait;
use bytes::Bytes;
use calls::Calls;
use errno::fail;
use journal_format::event::What;
use journal_format::ids::{Identity, Kind};
use node::Limits;
use std::path::PathBuf;
use std::sync::Arc;
use tree::{Place, Tree, node, object};

/// A location on a directory of this host.
pub struct Posix {
    tree: Arc<Tree>,
    capabilities: Capabilities,
    calls: Calls,
}

/// Whether a root's identity ([`Probe::root`](super::Probe)) holds what another one cannot have.
#[must_use]
pub fn is_root_unique(root: &[u8]) -> bool {
    identity::is_unique(root)
}

/// The location `subdir` of the export at `path`, if both are what they were.
pub async fn open(
    path: PathBuf,
    expected_root: &[u8],
    subdir: &[Vec<u8>],
    expected_dir: Option<&Identity>,
) -> Result<Arc<dyn CoreFiler>> {
    let place = Place {
        path,
        expected_root: expected_root.to_vec(),
        subdir: subdir.to_vec(),
        expected_dir: expected_dir.cloned(),
    };
    let (tree, capabilities) = crate::filer::aside::call(move || {
        let tree = Tree::open(place, Limits::from_rlimit())?;
        if tree.folding == folding::Folding::Everywhere {
            let path = tree.place.path.display();
            tracing::warn!(%path, "names that differ in case are one in this directory, or below it: clients reach what is listed, by just these names");
        }
        let root = probe::is_root();
        let capabilities = Capabilities {
            hard_links: true,
            nameless: probe::makes_nameless(&tree),
            special_files: root,
            holes: true,
            xattrs: probe::takes_xattrs(&tree),
            acls: probe::has_acls(&tree),
            open_by_identity: tree.by_handle,
            lasting_positions: tree.at_once,
            chown: root,
        };
        Ok((tree, capabilities))
    })
    .await?;
    Ok(Arc::new(Posix { tree: Arc::new(tree), capabilities, calls: Calls::new() }))
}

/// Makes the directories of `subdir` that are missing, as the service's user, mode 0755.
pub async fn create_subdir(path: PathBuf, expected_root: &[u8], subdir: &[Vec<u8>]) -> Result<()> {
    let place = Place { path, expected_root: expected_root.to_vec(), subdir: Vec::new(), expected_dir: None };
    let subdir = subdir.to_vec();
    crate::filer::aside::call(move || {
        let tree = Tree::open(place, Limits::from_rlimit())?;
        let mut dir = tree.root().node.clone();
        for name in &subdir {
            super::hidden::check_name(name)?;
            dir = names::ensure_dir(&tree, &dir, name, 0o755)?;
        }
        tree.sync()
    })
    .await
}

/// Bytes from which on writes take turns at their file.
const IN_TURN: usize = 64 << 10;

/// What is answered at once never waits: a loop of such calls must still let other tasks run.
async fn fair() {
    tokio::task::coop::consume_budget().await;
}

impl Posix {
    async fn run<T: Send + 'static>(&self, call: impl FnOnce(&Tree) -> Result<T> + Send + 'static) -> Result<T> {
        self.in_turn(None, call).await
    }

    /// A call that changes the names of a directory or the bytes of a file, by its inode.
    async fn in_turn<T: Send + 'static>(
        &self,
        of: Option<u64>,
        call: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Of a mount, the kernel does not hold others up for all of what such a call takes.
        let of = of.filter(|_| self.tree.at_once);
        let tree = self.tree.clone();
        self.calls.run(of, move || call(&tree)).await
    }
}

#[async_trait]
impl CoreFiler for Posix {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn root(&self) -> Result<Object> {
        self.run(|tree| Ok(object(tree.verify()?.node.clone()))).await
    }

    async fn by_identity(&self, id: &Identity) -> Result<Option<Object>> {
        if let Some(found) = self.tree.known_at_once(id) {
            fair().await;
            return Ok(Some(object(found)));
        }
        let id = id.clone();
        self.run(move |tree| Ok(tree.by_identity(&id)?.map(object))).await
    }

    async fn lookup(&self, dir: &Object, name: &[u8]) -> Result<Object> {
        let dir = node(dir)?;
        if let Some(found) = names::lookup_at_once(&self.tree, &dir, name) {
            fair().await;
            return found.map(object);
        }
        let name = name.to_vec();
        self.run(move |tree| names::lookup(tree, &dir, &name).map(object)).await
    }

    async fn folds_names(&self, dir: &Object) -> Result<bool> {
        let dir = node(dir)?;
        match folding::known(&self.tree, &dir) {
            Some(known) => Ok(known),
            None => self.run(move |tree| folding::ask(tree, &dir)).await,
        }
    }

    async fn stat(&self, obj: &Object) -> Result<Stat> {
        let node = node(obj)?;
        if let Some(seen) = self.tree.stat_at_once(&node) {
            fair().await;
            return attrs::to_stat(&seen);
        }
        self.run(move |tree| attrs::to_stat(&tree.stat(&node)?)).await
    }

    fn lookup_at_once(&self, dir: &Object, name: &[u8]) -> Option<Object> {
        let dir = node(dir).ok()?;
        names::lookup_at_once(&self.tree, &dir, name)?.ok().map(object)
    }

    fn stat_at_once(&self, obj: &Object) -> Option<Stat> {
        let node = node(obj).ok()?;
        attrs::to_stat(&self.tree.stat_at_once(&node)?).ok()
    }

    fn stat_named_at_once(&self, dir: &Object, name: &[u8], id: &Identity) -> Option<Stat> {
        let dir = node(dir).ok()?;
        attrs::to_stat(&names::stat_at_once(&self.tree, &dir, name, id)?).ok()
    }

    fn answers_at_once(&self) -> bool {
        self.tree.at_once
    }

    async fn list(&self, dir: &Object, from: u64, max: usize) -> Result<Page> {
        let dir = node(dir)?;
        self.run(move |tree| names::list(tree, &dir, from, max)).await
    }

    async fn readlink(&self, obj: &Object) -> Result<Vec<u8>> {
        let node = node(obj)?;
        if node.kind != Kind::Symlink {
            return Err(Error::new(ErrorKind::Invalid, "read a symlink", "not a symlink"));
        }
        self.run(move |_| {
            let target = rustix::fs::readlinkat(&node.path, c"", Vec::new()).map_err(fail("read a symlink"))?;
            Ok(target.into_bytes())
        })
        .await
    }

    async fn read(&self, obj: &Object, offset: u64, len: u32) -> Result<Bytes> {
        let node = node(obj)?;
        if let Some(data) = data::read_at_once(&self.tree, &node, offset, len) {
            fair().await;
            return Ok(data);
        }
        self.run(move |tree| data::read(tree, &node, offset, len)).await
    }

    async fn data_ranges(&self, obj: &Object, offset: u64, len: u64) -> Result<Vec<(u64, u64)>> {
        let node = node(obj)?;
        self.run(move |tree| data::data_ranges(tree, &node, offset, len)).await
    }

    async fn write(&self, obj: &Object, offset: u64, data: Bytes) -> Result<()> {
        let node = node(obj)?;
        // A short write is over sooner than its turn would be handed on.
        let of = Some(node.ino).filter(|_| data.len() >= IN_TURN);
        self.in_turn(of, move |tree| data::write(tree, &node, offset, &data)).await
    }

    async fn punch(&self, obj: &Object, offset: u64, len: u64) -> Result<()> {
        let node = node(obj)?;
        self.run(move |tree| data::punch(tree, &node, offset, len)).await
    }

    async fn set(&self, obj: &Object, changes: Changes) -> Result<()> {
        let node = node(obj)?;
        self.run(move |tree| attrs::set(tree, &node, &changes)).await
    }

    async fn make(&self, dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Object> {
        let (dir, name, what) = (node(dir)?, name.to_vec(), what.clone());
        let of = Some(dir.ino);
        self.in_turn(of, move |tree| names::make(tree, &dir, &name, &what, attrs).map(object)).await
    }

    async fn make_nameless(&self, dir: &Object, attrs: MakeAttrs) -> Result<Object> {
        let dir = node(dir)?;
        self.run(move |tree| names::make_nameless(tree, &dir, attrs).map(object)).await
    }

    fn nameless_max(&self) -> usize {
        self.tree.nodes.nameless_max()
    }

    async fn link(&self, obj: &Object, dir: &Object, name: &[u8]) -> Result<()> {
        let (node, dir, name) = (node(obj)?, node(dir)?, name.to_vec());
        let of = Some(dir.ino);
        self.in_turn(of, move |tree| names::link(tree, &node, &dir, &name)).await
    }

    async fn rename(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        let (from, name, to, new) = (node(from)?, name.to_vec(), node(to)?, new.to_vec());
        let of = Some(to.ino);
        self.in_turn(of, move |tree| names::rename(tree, &from, &name, &to, &new)).await
    }

    async fn rename_free(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        let (from, name, to, new) = (node(from)?, name.to_vec(), node(to)?, new.to_vec());
        let of = Some(to.ino);
        self.in_turn(of, move |tree| names::rename_free(tree, &from, &name, &to, &new)).await
    }

    async fn remove(&self, dir: &Object, name: &[u8]) -> Result<()> {
        let (dir, name) = (node(dir)?, name.to_vec());
        let of = Some(dir.ino);
        self.in_turn(of, move |tree| names::remove(tree, &dir, &name)).await
    }

    async fn rmdir(&self, dir: &Object, name: &[u8]) -> Result<()> {
        let (dir, name) = (node(dir)?, name.to_vec());
        let of = Some(dir.ino);
        self.in_turn(of, move |tree| names::rmdir(tree, &dir, &name)).await
    }

    async fn sync(&self) -> Result<()> {
        self.run(Tree::sync).await
    }

    fn was_mounted_anew(&self) -> bool {
        self.tree.was_mounted_anew()
    }

    async fn statfs(&self) -> Result<FsStat> {
        self.run(|tree| {
            let seen = rustix::fs::fstatvfs(&tree.root().dir).map_err(fail("statfs"))?;
            let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
            Ok(FsStat {
                total_bytes: bytes(seen.f_blocks),
                free_bytes: bytes(seen.f_bfree),
                avail_bytes: bytes(seen.f_bavail),
                total_files: seen.f_files,
                free_files: seen.f_ffree,
                avail_files: seen.f_favail,
            })
        })
        .await
    }

    async fn acl(&self, obj: &Object, which: AclKind) -> Result<Option<Bytes>> {
        let node = node(obj)?;
        if let Some(acl) = attrs::acl_at_once(&self.tree, &node, which) {
            fair().await;
            return acl;
        }
        self.run(move |tree| attrs::acl(tree, &node, which)).await
    }

    async fn xattrs(&self, obj: &Object) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let node = node(obj)?;
        self.run(move |tree| attrs::xattrs(tree, &node)).await
    }

    async fn set_xattr(&self, obj: &Object, name: &[u8], value: &[u8]) -> Result<()> {
        let (node, name, value) = (node(obj)?, name.to_vec(), value.to_vec());
        self.run(move |tree| attrs::set_xattr(tree, &node, &name, &value)).await
    }

    async fn owner(&self) -> Result<Option<OwnerMarker>> {
        self.run(marks::owner).await
    }

    async fn claim(&self, marker: &OwnerMarker) -> Result<()> {
        let marker = marker.clone();
        self.run(move |tree| marks::claim(tree, &marker)).await
    }

    async fn unclaim(&self) -> Result<()> {
        self.run(marks::unclaim).await
    }

    async fn pen(&self) -> Result<Object> {
        self.run(|tree| marks::pen(tree).map(object)).await
    }

    async fn remove_pen(&self) -> Result<()> {
        self.run(marks::remove_pen).await
    }
}
