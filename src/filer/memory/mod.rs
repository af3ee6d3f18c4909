//! The reference: a whole filer in memory, deterministic, for unit tests and simulation.
//!
//! Owns two images of everything on it: *live*, which calls see and change, and *durable*, which [`CoreFiler::sync`]
//! makes equal to it. [`Memory::power_cut`] leaves the durable image and any subset of what was done since
//! (`durable.rs` is the fault model); [`Memory::crash`] the durable image alone. Objects that are held but are not there
//! any more are [`ErrorKind::Stale`]. Times come from a counter (or [`Memory::set_now`]), numbers are never used twice,
//! and no map with a random order is walked: the same calls give the same filer.
//!
//! Faults: a script ([`Memory::set_script`]) is asked before every call by the method's name; it may refuse the call,
//! let it happen and lose the answer ([`Fault::After`], as a remote filer may), or make it take its time.
//!
//! Clones are further views of the same filer, as after a restart of the service.

mod content;
mod durable;
mod image;
#[cfg(any(test, feature = "simulation"))]
pub mod named;
mod options;
mod script;
mod tree;

use super::hidden::{OWNER_XATTR, PEN, is_hidden};
use super::{
    AclKind, Capabilities, Changes, CoreFiler, Error, ErrorKind, FsStat, MakeAttrs, Object, OwnerMarker, Page, Result,
    Stat,
};
use async_trait::async_trait;
use bytes::Bytes;
use content::PAGE;
use durable::{Change, Log, Victim};
use image::{Image, Ino, Inode, refuse};
use journal_format::event::What;
use journal_format::ids::{Identity, Kind, Time};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use options::Options;
pub use script::{Fault, Hook, Script, Turn};
pub use tree::Found;

/// A location that is all of a filer in memory.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    /// The root that was added.
    expected: Ino,
}

struct Shared {
    options: Options,
    world: Mutex<World>,
    script: RwLock<Option<Script>>,
    /// Directories that another file system is mounted on.
    mounts: RwLock<BTreeSet<Ino>>,
    /// How often it was mounted anew: what was opened before is not connected any more.
    mounted: AtomicU64,
}

struct World {
    live: Image,
    durable: Image,
    /// What is between the two.
    log: Log,
    /// Holders of an earlier life do not count.
    life: u64,
    space: u64,
    name_max: usize,
    root: Ino,
    durable_root: Ino,
    next: Ino,
    now: i64,
    /// How many hold an object, so that one without a name stays usable.
    held: BTreeMap<Ino, u64>,
    /// Whose attributes and texts cannot be read.
    damaged: BTreeSet<Ino>,
    /// Where names of removed files stay while those are held, if they do.
    silly: Option<BTreeMap<Ino, Ino>>,
    syncs: u64,
    /// It was mounted anew since the last sync.
    remounted: bool,
}

impl World {
    fn tick(&mut self) -> Time {
        self.now += 1;
        Time(self.now)
    }

    fn number(&mut self) -> Ino {
        self.next += 1;
        self.next
    }
}

/// Behind an object: counted for as long as it is held.
struct Held {
    shared: Arc<Shared>,
    ino: Ino,
    life: u64,
    mounted: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut world = self.shared.world.lock();
        if world.life != self.life {
            return;
        }
        if let Some(count) = world.held.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                world.held.remove(&self.ino);
                world.live.drop_if_nameless(self.ino);
            }
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Memory {
    /// An empty filer whose root is durable.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut live = Image::new(options.folds_names);
        let root = options.first;
        let attrs = MakeAttrs { mode: 0o755, uid: options.uid, gid: options.gid, inherits: false };
        live.insert(root, Inode::new(&What::Dir, attrs, Time(0), root));
        let world = World {
            durable: live.clone(),
            live,
            log: Log::default(),
            life: 0,
            space: options.space,
            name_max: options.name_max,
            root,
            durable_root: root,
            next: root,
            now: 0,
            held: BTreeMap::new(),
            damaged: BTreeSet::new(),
            silly: None,
            syncs: 0,
            remounted: false,
        };
        Self {
            shared: Arc::new(Shared {
                options,
                world: Mutex::new(world),
                script: RwLock::default(),
                mounts: RwLock::default(),
                mounted: AtomicU64::default(),
            }),
            expected: root,
        }
    }

    /// Another filer with the same objects, durable and not, which nobody holds.
    #[must_use]
    pub fn fork(&self) -> Self {
        let world = self.shared.world.lock();
        let world = World {
            live: world.live.clone(),
            durable: world.durable.clone(),
            log: world.log.clone(),
            held: BTreeMap::new(),
            damaged: world.damaged.clone(),
            silly: world.silly.clone(),
            ..*world
        };
        let shared = Shared {
            options: self.shared.options,
            world: Mutex::new(world),
            script: RwLock::default(),
            mounts: RwLock::new(self.shared.mounts.read().clone()),
            mounted: AtomicU64::default(),
        };
        Self { shared: Arc::new(shared), expected: self.expected }
    }

    /// A power cut that loses all that it can.
    pub fn crash(&self) {
        self.power_cut(|| false);
    }

    /// A power cut: of what was done since the last sync, that stays which `keep` says, asked for one change after the
    /// other. Returns how many changes there were.
    pub fn power_cut(&self, keep: impl FnMut() -> bool) -> usize {
        let mut world = self.shared.world.lock();
        let World { log, durable, .. } = &mut *world;
        let changes = log.len();
        log.carry_over(durable, keep);
        world.live = world.durable.clone();
        world.root = world.durable_root;
        world.life += 1;
        world.held.clear();
        changes
    }

    /// The service was killed: nobody holds anything any more, and nothing is lost.
    pub fn kill(&self) {
        let mut world = self.shared.world.lock();
        world.life += 1;
        world.held.clear();
        world.live.drop_nameless(|_| false);
    }

    async fn call<T>(&self, op: &'static str, act: impl FnOnce(&mut World) -> Result<T> + Send) -> Result<T> {
        let Turn { before, after, fault } =
            self.shared.script.read().as_ref().map_or_else(Turn::default, |script| script(op));
        wait(before).await;
        let result = match fault {
            Some(Fault::Before(kind)) => Err(Error::new(kind, op, "injected")),
            Some(Fault::Lost(kind)) => {
                self.shared.world.lock().log.lose_bytes(|| true);
                Err(Error::new(kind, op, "injected, and what was written is lost"))
            }
            Some(Fault::After(kind)) => {
                let _done = act(&mut self.shared.world.lock());
                Err(Error::new(kind, op, "injected, after it was done"))
            }
            None => act(&mut self.shared.world.lock()),
        };
        wait(after).await;
        result
    }

    async fn called(&self, op: &'static str, act: impl FnOnce(&mut World) -> Result<Ino> + Send) -> Result<Object> {
        // Counted under the same lock, and made an object after it.
        let (inner, kind) = self
            .call(op, |world| {
                let ino = act(world)?;
                let kind = world.live.get(ino)?.stat.kind;
                *world.held.entry(ino).or_default() += 1;
                let mounted = self.shared.mounted.load(Ordering::SeqCst);
                Ok((Held { shared: self.shared.clone(), ino, life: world.life, mounted }, kind))
            })
            .await?;
        Ok(Object { id: Identity(inner.ino.to_le_bytes().to_vec()), kind, inner: Arc::new(inner) })
    }

    fn owns(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let options = &self.shared.options;
        let same = |asked: Option<u32>, own| asked.is_none_or(|asked| asked == own);
        if options.capabilities.chown || (same(uid, options.uid) && same(gid, options.gid)) {
            return Ok(());
        }
        refuse(ErrorKind::NotPermitted, "set the owner")
    }
}

/// Virtual time, in a simulated world.
async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn ino(object: &Object) -> Result<Ino> {
    match object.inner.downcast_ref::<Held>() {
        Some(held) if held.mounted == held.shared.mounted.load(Ordering::SeqCst) => Ok(held.ino),
        Some(_) => refuse(ErrorKind::Down, "use an object of a mount that is gone"),
        None => refuse(ErrorKind::Invalid, "use an object of another filer"),
    }
}

/// A name of a client's: at the root, none that is hidden.
fn visible(world: &World, dir: Ino, name: &[u8], refused: ErrorKind) -> Result<()> {
    super::hidden::check_name(name)?;
    if name.len() > world.name_max {
        return refuse(ErrorKind::NameTooLong, "check name");
    }
    if dir == world.root && is_hidden(name) {
        return refuse(refused, "check name");
    }
    Ok(())
}

#[async_trait]
impl CoreFiler for Memory {
    fn capabilities(&self) -> Capabilities {
        self.shared.options.capabilities
    }

    async fn root(&self) -> Result<Object> {
        let expected = self.expected;
        let root =
            |world: &mut World| if world.root == expected { Ok(world.root) } else { refuse(ErrorKind::Down, "root") };
        self.called("root", root).await
    }

    async fn by_identity(&self, id: &Identity) -> Result<Option<Object>> {
        if !self.capabilities().open_by_identity {
            return Ok(None);
        }
        let found = self.called("by_identity", |world| {
            let Ok(bytes) = id.0.as_slice().try_into() else { return refuse(ErrorKind::Stale, "by_identity") };
            let ino = Ino::from_le_bytes(bytes);
            let stat = world.live.get(ino)?.stat;
            if stat.nlink > 0 { Ok(ino) } else { refuse(ErrorKind::Stale, "by_identity") }
        });
        found.await.map(Some)
    }

    async fn lookup(&self, dir: &Object, name: &[u8]) -> Result<Object> {
        let dir = ino(dir)?;
        let found = self.called("lookup", |world| {
            visible(world, dir, name, ErrorKind::NotFound)?;
            let found = world.live.lookup(dir, name)?;
            if self.shared.mounts.read().contains(&found) {
                return refuse(ErrorKind::CrossDevice, "look up");
            }
            Ok(found)
        });
        found.await
    }

    async fn folds_names(&self, _: &Object) -> Result<bool> {
        Ok(self.shared.options.folds_names)
    }

    async fn stat(&self, obj: &Object) -> Result<Stat> {
        let ino = ino(obj)?;
        self.call("stat", |world| Ok(world.live.get(ino)?.stat())).await
    }

    async fn list(&self, dir: &Object, from: u64, max: usize) -> Result<Page> {
        let dir = ino(dir)?;
        let lasting = self.capabilities().lasting_positions;
        let list = if lasting { Image::list } else { Image::list_by_count };
        self.call("list", |world| list(&world.live, dir, from, max, dir == world.root)).await
    }

    async fn readlink(&self, obj: &Object) -> Result<Vec<u8>> {
        let ino = ino(obj)?;
        let target = self.call("readlink", |world| match world.readable(ino)? {
            link if link.stat.kind == Kind::Symlink => Ok(link.target.clone()),
            _ => refuse(ErrorKind::Invalid, "readlink"),
        });
        target.await
    }

    async fn read(&self, obj: &Object, offset: u64, len: u32) -> Result<Bytes> {
        let ino = ino(obj)?;
        self.call("read", |world| Ok(world.live.file(ino)?.content.read(offset, u64::from(len)).into())).await
    }

    async fn data_ranges(&self, obj: &Object, offset: u64, len: u64) -> Result<Vec<(u64, u64)>> {
        let (ino, holes) = (ino(obj)?, self.capabilities().holes);
        let ranges = self.call("data_ranges", |world| {
            let content = &world.live.file(ino)?.content;
            let all = content.size.min(offset.saturating_add(len)).saturating_sub(offset);
            match (holes, all) {
                (true, _) => Ok(content.data_ranges(offset, len)),
                (false, 0) => Ok(Vec::new()),
                (false, all) => Ok(vec![(offset, all)]),
            }
        });
        ranges.await
    }

    async fn write(&self, obj: &Object, offset: u64, data: Bytes) -> Result<()> {
        let ino = ino(obj)?;
        let written = self.call("write", |world| {
            let now = world.tick();
            // Counting walks all files: only where there is a limit to meet.
            let used = if world.space == u64::MAX { 0 } else { world.live.counts().1 };
            let room = usize::try_from(world.space.saturating_sub(used)).unwrap_or(usize::MAX);
            let file = world.live.file(ino)?;
            if offset.checked_add(data.len() as u64).is_none_or(|end| end > i64::MAX.cast_unsigned()) {
                return refuse(ErrorKind::FileTooBig, "write");
            }
            let done = data.len().min(room);
            file.content.write(offset, &data[..done]);
            (file.stat.mtime, file.stat.ctime) = (now, now);
            world.log.push_bytes(&world.live, ino, offset, offset + done as u64);
            if done < data.len() {
                return Err(Error { done: done as u64, ..Error::new(ErrorKind::NoSpace, "write", "full") });
            }
            Ok(())
        });
        written.await
    }

    async fn punch(&self, obj: &Object, offset: u64, len: u64) -> Result<()> {
        let ino = ino(obj)?;
        let punched = self.call("punch", |world| {
            let now = world.tick();
            let file = world.live.file(ino)?;
            file.content.punch(offset, len);
            (file.stat.mtime, file.stat.ctime) = (now, now);
            let end = offset.saturating_add(len).min(file.content.size);
            world.log.push_bytes(&world.live, ino, offset.min(end), end);
            Ok(())
        });
        punched.await
    }

    async fn set(&self, obj: &Object, changes: Changes) -> Result<()> {
        let ino = ino(obj)?;
        self.owns(changes.uid, changes.gid)?;
        let set = self.call("set", |world| {
            let now = world.tick();
            world.live.set(ino, &changes, now)?;
            if let Some(size) = changes.size {
                world.log.push(Change::Size { ino, size });
            }
            // A new size sets the time as well.
            let mtime = changes.mtime.or(changes.size.map(|_| now));
            world.log.push(Change::Set { ino, changes: Changes { size: None, mtime, ..changes }, now });
            Ok(())
        });
        set.await
    }

    async fn make(&self, dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Object> {
        let dir = ino(dir)?;
        let made = self.called("make", |world| {
            visible(world, dir, name, ErrorKind::Access)?;
            self.owns(Some(attrs.uid), Some(attrs.gid))?;
            if matches!(what, What::Char { .. } | What::Block { .. }) && !self.capabilities().special_files {
                return refuse(ErrorKind::NotPermitted, "make");
            }
            let (ino, now) = (world.number(), world.tick());
            let inode = Inode::new(what, attrs, now, dir).inheriting(world.live.get(dir)?, attrs);
            world.make(dir, name, ino, inode)?;
            Ok(ino)
        });
        made.await
    }

    async fn make_nameless(&self, dir: &Object, attrs: MakeAttrs) -> Result<Object> {
        let dir = ino(dir)?;
        let made = self.called("make_nameless", |world| {
            self.owns(Some(attrs.uid), Some(attrs.gid))?;
            if world.live.nameless() >= self.shared.options.nameless_max {
                return refuse(ErrorKind::Busy, "make_nameless");
            }
            let (ino, now) = (world.number(), world.tick());
            let inode = Inode::new(&What::File, attrs, now, dir).inheriting(world.live.dir(dir)?, attrs);
            world.live.insert(ino, inode.nameless());
            Ok(ino)
        });
        made.await
    }

    fn nameless_max(&self) -> usize {
        self.shared.options.nameless_max
    }

    async fn link(&self, obj: &Object, dir: &Object, name: &[u8]) -> Result<()> {
        let (ino, dir) = (ino(obj)?, ino(dir)?);
        let linked = self.call("link", |world| {
            visible(world, dir, name, ErrorKind::Access)?;
            let first = world.live.get(ino)?.nameless;
            if !first && !self.capabilities().hard_links {
                return refuse(ErrorKind::TooManyLinks, "link");
            }
            let now = world.tick();
            world.live.link(ino, dir, name, now)?;
            if first {
                // What was done to it before was done to nothing that could last.
                let mut inode = Box::new(world.live.get(ino)?.clone());
                let size = std::mem::take(&mut inode.content).size;
                world.log.push(Change::Make { dir, name: name.to_vec(), ino, inode });
                world.log.push_bytes(&world.live, ino, 0, size);
            } else {
                world.log.push(Change::Link { ino, dir, name: name.to_vec(), now });
            }
            Ok(())
        });
        linked.await
    }

    async fn rename(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        let (from, to) = (ino(from)?, ino(to)?);
        self.call("rename", |world| world.rename(from, name, to, new)).await
    }

    /// To scripts a rename like any other.
    async fn rename_free(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        let (from, to) = (ino(from)?, ino(to)?);
        let renamed = self.call("rename", |world| {
            visible(world, to, new, ErrorKind::Access)?;
            if world.live.lookup(from, name).is_ok() && world.live.lookup(to, new).is_ok() {
                return refuse(ErrorKind::Exists, "rename to a free name");
            }
            world.rename(from, name, to, new)
        });
        renamed.await
    }

    async fn remove(&self, dir: &Object, name: &[u8]) -> Result<()> {
        let dir = ino(dir)?;
        self.call("remove", |world| world.remove(dir, name, false)).await
    }

    async fn rmdir(&self, dir: &Object, name: &[u8]) -> Result<()> {
        let dir = ino(dir)?;
        self.call("rmdir", |world| world.remove(dir, name, true)).await
    }

    async fn sync(&self) -> Result<()> {
        let synced = self.call("sync", |world| {
            if std::mem::take(&mut world.remounted) {
                return refuse(ErrorKind::Io, "sync what may have been written before it was mounted anew");
            }
            world.log.carry_over(&mut world.durable, || true);
            world.durable_root = world.root;
            world.syncs += 1;
            Ok(())
        });
        synced.await
    }

    fn was_mounted_anew(&self) -> bool {
        self.shared.world.lock().remounted
    }

    async fn statfs(&self) -> Result<FsStat> {
        let stat = self.call("statfs", |world| {
            let (files, bytes) = world.live.counts();
            let free = world.space.saturating_sub(bytes);
            let total = world.space / PAGE;
            let left = total.saturating_sub(files);
            Ok(FsStat {
                total_bytes: world.space,
                free_bytes: free,
                avail_bytes: free,
                total_files: total,
                free_files: left,
                avail_files: left,
            })
        });
        stat.await
    }

    async fn xattrs(&self, obj: &Object) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let ino = ino(obj)?;
        let xattrs = self.call("xattrs", |world| {
            let all = world.readable(ino)?.xattrs.iter();
            Ok(all.filter(|(name, _)| *name != OWNER_XATTR).map(|(n, v)| (n.clone(), v.clone())).collect())
        });
        xattrs.await
    }

    async fn set_xattr(&self, obj: &Object, name: &[u8], value: &[u8]) -> Result<()> {
        let ino = ino(obj)?;
        let set = self.call("set_xattr", |world| {
            let can = self.capabilities();
            let is_acl = [AclKind::Access, AclKind::Default].iter().any(|which| which.xattr().as_bytes() == name);
            let carried =
                if is_acl { can.acls } else { can.xattrs && name.starts_with(b"user.") && name != OWNER_XATTR };
            if !carried || world.live.get(ino)?.stat.kind == Kind::Symlink {
                return refuse(ErrorKind::NotSupported, "set_xattr");
            }
            if value.len() > self.shared.options.xattr_max {
                return refuse(ErrorKind::NoSpace, "set_xattr");
            }
            let now = world.tick();
            world.live.set_xattr(ino, name, value, now)?;
            world.log.push(Change::Xattr { ino, name: name.to_vec(), value: value.to_vec(), now });
            Ok(())
        });
        set.await
    }

    async fn acl(&self, obj: &Object, which: AclKind) -> Result<Option<Bytes>> {
        let ino = ino(obj)?;
        let name = which.xattr().as_bytes();
        self.call("acl", |world| Ok(world.live.get(ino)?.xattrs.get(name).cloned().map(Bytes::from))).await
    }

    async fn owner(&self) -> Result<Option<OwnerMarker>> {
        let owner = self.call("owner", |world| {
            let text = world.live.get(self.expected)?.xattrs.get(OWNER_XATTR);
            text.map(|text| OwnerMarker::from_text(text)).transpose()
        });
        owner.await
    }

    /// Durable when it returns, and nothing else is.
    async fn claim(&self, marker: &OwnerMarker) -> Result<()> {
        let text = marker.to_text().into_bytes();
        let claimed = self.call("claim", |world| {
            for image in [&mut world.live, &mut world.durable] {
                image.get_mut(self.expected)?.xattrs.insert(OWNER_XATTR.to_vec(), text.clone());
            }
            Ok(())
        });
        claimed.await
    }

    async fn unclaim(&self) -> Result<()> {
        let unclaimed = self.call("unclaim", |world| {
            for image in [&mut world.live, &mut world.durable] {
                image.get_mut(self.expected)?.xattrs.remove(OWNER_XATTR);
            }
            Ok(())
        });
        unclaimed.await
    }

    async fn pen(&self) -> Result<Object> {
        let Options { uid, gid, .. } = self.shared.options;
        let pen = self.called("pen", |world| match world.live.lookup(self.expected, PEN) {
            Err(e) if e.kind == ErrorKind::NotFound => {
                let (ino, now) = (world.number(), world.tick());
                let pen =
                    Inode::new(&What::Dir, MakeAttrs { mode: 0o700, uid, gid, inherits: false }, now, self.expected);
                world.make(self.expected, PEN, ino, pen)?;
                Ok(ino)
            }
            other => other,
        });
        pen.await
    }

    async fn remove_pen(&self) -> Result<()> {
        let removed = self.call("remove_pen", |world| match world.take(self.expected, PEN, true) {
            Err(e) if !matches!(e.kind, ErrorKind::NotFound | ErrorKind::NotEmpty) => Err(e),
            _ => Ok(()),
        });
        removed.await
    }
}

impl World {
    fn make(&mut self, dir: Ino, name: &[u8], ino: Ino, inode: Inode) -> Result<()> {
        self.live.make(dir, name, ino, inode.clone())?;
        self.log.push(Change::Make { dir, name: name.to_vec(), ino, inode: Box::new(inode) });
        Ok(())
    }

    fn rename(&mut self, from: Ino, name: &[u8], to: Ino, new: &[u8]) -> Result<()> {
        visible(self, from, name, ErrorKind::NotFound)?;
        visible(self, to, new, ErrorKind::Access)?;
        let now = self.tick();
        let moved = self.live.lookup(from, name)?;
        let replaced = self.live.lookup(to, new).ok().map(|ino| Victim::of(&self.live, ino));
        self.live.rename(from, name, to, new, now)?;
        let (name, new) = (name.to_vec(), new.to_vec());
        self.log.push(Change::Rename { from, name, to, new, moved, replaced, now });
        if let Some(replaced) = replaced {
            self.release(replaced.ino);
        }
        Ok(())
    }

    fn remove(&mut self, dir: Ino, name: &[u8], is_dir: bool) -> Result<()> {
        visible(self, dir, name, ErrorKind::NotFound)?;
        self.take(dir, name, is_dir)
    }

    fn take(&mut self, dir: Ino, name: &[u8], is_dir: bool) -> Result<()> {
        let now = self.tick();
        let victim = Victim::of(&self.live, self.live.lookup(dir, name)?);
        self.take_silly(dir, victim.ino)?;
        let ino = self.live.remove(dir, name, is_dir, now)?;
        self.log.push(Change::Remove { dir, name: name.to_vec(), is_dir, victim, now });
        self.release(ino);
        Ok(())
    }

    /// What lost a name goes, unless it has another one or is held.
    fn release(&mut self, ino: Ino) {
        if !self.held.contains_key(&ino) {
            self.live.drop_if_nameless(ino);
        }
    }
}

#[cfg(test)]
mod tests;
