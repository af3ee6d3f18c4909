//! The reference: a whole filer in memory, deterministic, for unit tests and simulation.
//!
//! Owns two images of everything on it: *live*, which calls see and change, and *durable*, which [`CoreFiler::sync`]
//! makes equal to it. [`Memory::crash`] is a power cut of the filer: live goes back to durable, and objects that are
//! held but were not durable are [`ErrorKind::Stale`]. Times come from a counter (or [`Memory::set_now`]), numbers are
//! never used twice, and no map with a random order is walked: the same calls give the same filer.
//!
//! Faults: the hook of [`Memory::set_fault`] is asked before every call by the method's name; it may refuse the call,
//! or let it happen and lose the answer ([`Fault::After`], as a remote filer may).
//!
//! Clones are further views of the same filer, as after a restart of the service.

mod content;
mod image;

use super::hidden::{OWNER_XATTR, PEN, is_hidden};
use super::{
    Capabilities, Changes, CoreFiler, Error, ErrorKind, FsStat, MakeAttrs, Object, OwnerMarker, Page, Result, Stat,
};
use async_trait::async_trait;
use bytes::Bytes;
use content::PAGE;
use image::{Image, Ino, Inode, refuse};
use journal_format::event::What;
use journal_format::ids::{Identity, Kind, Time};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a hook does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens.
    Before(ErrorKind),
    /// It happens, and the caller is told this.
    After(ErrorKind),
}

type Hook = Box<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;

/// How a filer in memory is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub capabilities: Capabilities,
    /// The service's user, for when owners cannot be changed.
    pub uid: u32,
    pub gid: u32,
    /// Bytes that it holds; `u64::MAX` is no limit.
    pub space: u64,
}

impl Default for Options {
    fn default() -> Self {
        let capabilities = Capabilities {
            hard_links: true,
            special_files: true,
            holes: true,
            xattrs: true,
            open_by_identity: true,
            chown: true,
        };
        Self { capabilities, uid: 0, gid: 0, space: u64::MAX }
    }
}

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
    hook: RwLock<Option<Hook>>,
}

struct World {
    live: Image,
    durable: Image,
    root: Ino,
    durable_root: Ino,
    next: Ino,
    now: i64,
    /// How many hold an object, so that one without a name stays usable.
    held: BTreeMap<Ino, u64>,
    syncs: u64,
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
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut world = self.shared.world.lock();
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
        let mut live = Image::default();
        let root = 1;
        let attrs = MakeAttrs { mode: 0o755, uid: options.uid, gid: options.gid };
        live.insert(root, Inode::new(&What::Dir, attrs, Time(0), root));
        let world = World {
            durable: live.clone(),
            live,
            root,
            durable_root: root,
            next: root,
            now: 0,
            held: BTreeMap::new(),
            syncs: 0,
        };
        Self { shared: Arc::new(Shared { options, world: Mutex::new(world), hook: RwLock::new(None) }), expected: root }
    }

    /// A power cut of the filer.
    pub fn crash(&self) {
        let mut world = self.shared.world.lock();
        world.live = world.durable.clone();
        world.root = world.durable_root;
    }

    /// Asked before every call, by the method's name; `None` takes it away.
    pub fn set_fault(&self, hook: Option<Hook>) {
        *self.shared.hook.write() = hook;
    }

    /// What the filer's clock shows; each change moves it on by a nanosecond.
    pub fn set_now(&self, now: Time) {
        self.shared.world.lock().now = now.0;
    }

    /// Syncs that succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.world.lock().syncs
    }

    /// Puts an empty directory in the place of the root, as an unmounted disk does.
    pub fn replace_root(&self) {
        let mut world = self.shared.world.lock();
        let (ino, now) = (world.number(), world.tick());
        world.live.insert(ino, Inode::new(&What::Dir, MakeAttrs { mode: 0o755, uid: 0, gid: 0 }, now, ino));
        world.root = ino;
    }

    fn call<T>(&self, op: &'static str, act: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        let fault = self.shared.hook.read().as_ref().and_then(|hook| hook(op));
        if let Some(Fault::Before(kind)) = fault {
            return Err(Error::new(kind, op, "injected"));
        }
        let result = act(&mut self.shared.world.lock());
        match fault {
            Some(Fault::After(kind)) => Err(Error::new(kind, op, "injected, after it was done")),
            _ => result,
        }
    }

    fn called(&self, op: &'static str, act: impl FnOnce(&mut World) -> Result<Ino>) -> Result<Object> {
        // Counted under the same lock, and made an object after it.
        let hold = |world: &mut World, ino: Ino| -> Result<(Ino, Kind)> {
            let kind = world.live.get(ino)?.stat.kind;
            *world.held.entry(ino).or_default() += 1;
            Ok((ino, kind))
        };
        let mut held = None;
        let result = self.call(op, |world| {
            let ino = act(world)?;
            let (ino, kind) = hold(world, ino)?;
            held = Some((Arc::new(Held { shared: self.shared.clone(), ino }), kind));
            Ok(())
        });
        match (result, held) {
            (Ok(()), Some((inner, kind))) => Ok(Object { id: Identity(inner.ino.to_le_bytes().to_vec()), kind, inner }),
            (Err(e), _) => Err(e),
            (Ok(()), None) => refuse(ErrorKind::Io, op),
        }
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

fn ino(object: &Object) -> Result<Ino> {
    match object.inner.downcast_ref::<Held>() {
        Some(held) => Ok(held.ino),
        None => refuse(ErrorKind::Invalid, "use an object of another filer"),
    }
}

/// A name of a client's: at the root, none that is hidden.
fn visible(world: &World, dir: Ino, name: &[u8], refused: ErrorKind) -> Result<()> {
    super::hidden::check_name(name)?;
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
        self.called(
            "root",
            |world| if world.root == self.expected { Ok(world.root) } else { refuse(ErrorKind::Down, "root") },
        )
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
        found.map(Some)
    }

    async fn lookup(&self, dir: &Object, name: &[u8]) -> Result<Object> {
        let dir = ino(dir)?;
        self.called("lookup", |world| {
            visible(world, dir, name, ErrorKind::NotFound)?;
            world.live.lookup(dir, name)
        })
    }

    async fn stat(&self, obj: &Object) -> Result<Stat> {
        let ino = ino(obj)?;
        self.call("stat", |world| Ok(world.live.get(ino)?.stat()))
    }

    async fn list(&self, dir: &Object, from: u64, max: usize) -> Result<Page> {
        let dir = ino(dir)?;
        self.call("list", |world| world.live.list(dir, from, max, dir == world.root))
    }

    async fn readlink(&self, obj: &Object) -> Result<Vec<u8>> {
        let ino = ino(obj)?;
        self.call("readlink", |world| match world.live.get(ino)? {
            link if link.stat.kind == Kind::Symlink => Ok(link.target.clone()),
            _ => refuse(ErrorKind::Invalid, "readlink"),
        })
    }

    async fn read(&self, obj: &Object, offset: u64, len: u32) -> Result<Bytes> {
        let ino = ino(obj)?;
        self.call("read", |world| Ok(world.live.file(ino)?.content.read(offset, u64::from(len)).into()))
    }

    async fn data_ranges(&self, obj: &Object, offset: u64, len: u64) -> Result<Vec<(u64, u64)>> {
        let (ino, holes) = (ino(obj)?, self.capabilities().holes);
        self.call("data_ranges", |world| {
            let content = &world.live.file(ino)?.content;
            let all = content.size.min(offset.saturating_add(len)).saturating_sub(offset);
            match (holes, all) {
                (true, _) => Ok(content.data_ranges(offset, len)),
                (false, 0) => Ok(Vec::new()),
                (false, all) => Ok(vec![(offset, all)]),
            }
        })
    }

    async fn write(&self, obj: &Object, offset: u64, data: Bytes) -> Result<()> {
        let (ino, space) = (ino(obj)?, self.shared.options.space);
        self.call("write", |world| {
            let now = world.tick();
            // Counting walks all files: only where there is a limit to meet.
            let used = if space == u64::MAX { 0 } else { world.live.counts().1 };
            let file = world.live.file(ino)?;
            if offset.checked_add(data.len() as u64).is_none_or(|end| end > i64::MAX.cast_unsigned()) {
                return refuse(ErrorKind::FileTooBig, "write");
            }
            let room = usize::try_from(space.saturating_sub(used)).unwrap_or(usize::MAX);
            let done = data.len().min(room);
            file.content.write(offset, &data[..done]);
            (file.stat.mtime, file.stat.ctime) = (now, now);
            if done < data.len() {
                return Err(Error { done: done as u64, ..Error::new(ErrorKind::NoSpace, "write", "full") });
            }
            Ok(())
        })
    }

    async fn punch(&self, obj: &Object, offset: u64, len: u64) -> Result<()> {
        let ino = ino(obj)?;
        self.call("punch", |world| {
            let now = world.tick();
            let file = world.live.file(ino)?;
            file.content.punch(offset, len);
            (file.stat.mtime, file.stat.ctime) = (now, now);
            Ok(())
        })
    }

    async fn set(&self, obj: &Object, changes: Changes) -> Result<()> {
        let ino = ino(obj)?;
        self.owns(changes.uid, changes.gid)?;
        self.call("set", |world| {
            let now = world.tick();
            world.live.set(ino, &changes, now)
        })
    }

    async fn make(&self, dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Object> {
        let dir = ino(dir)?;
        self.called("make", |world| {
            visible(world, dir, name, ErrorKind::Access)?;
            self.owns(Some(attrs.uid), Some(attrs.gid))?;
            if matches!(what, What::Char { .. } | What::Block { .. }) && !self.capabilities().special_files {
                return refuse(ErrorKind::NotPermitted, "make");
            }
            let (ino, now) = (world.number(), world.tick());
            world.live.make(dir, name, ino, Inode::new(what, attrs, now, dir))?;
            Ok(ino)
        })
    }

    async fn link(&self, obj: &Object, dir: &Object, name: &[u8]) -> Result<()> {
        let (ino, dir) = (ino(obj)?, ino(dir)?);
        self.call("link", |world| {
            visible(world, dir, name, ErrorKind::Access)?;
            if !self.capabilities().hard_links {
                return refuse(ErrorKind::TooManyLinks, "link");
            }
            let now = world.tick();
            world.live.link(ino, dir, name, now)
        })
    }

    async fn rename(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        let (from, to) = (ino(from)?, ino(to)?);
        self.call("rename", |world| {
            visible(world, from, name, ErrorKind::NotFound)?;
            visible(world, to, new, ErrorKind::Access)?;
            let now = world.tick();
            let replaced = world.live.lookup(to, new);
            world.live.rename(from, name, to, new, now)?;
            if let Ok(replaced) = replaced {
                world.release(replaced);
            }
            Ok(())
        })
    }

    async fn remove(&self, dir: &Object, name: &[u8]) -> Result<()> {
        let dir = ino(dir)?;
        self.call("remove", |world| world.remove(dir, name, false))
    }

    async fn rmdir(&self, dir: &Object, name: &[u8]) -> Result<()> {
        let dir = ino(dir)?;
        self.call("rmdir", |world| world.remove(dir, name, true))
    }

    async fn sync(&self) -> Result<()> {
        self.call("sync", |world| {
            world.durable = world.live.clone();
            world.durable.drop_nameless(|_| false);
            world.durable_root = world.root;
            world.syncs += 1;
            Ok(())
        })
    }

    async fn statfs(&self) -> Result<FsStat> {
        let space = self.shared.options.space;
        self.call("statfs", |world| {
            let (files, bytes) = world.live.counts();
            let free = space.saturating_sub(bytes);
            let total = space / PAGE;
            let left = total.saturating_sub(files);
            Ok(FsStat {
                total_bytes: space,
                free_bytes: free,
                avail_bytes: free,
                total_files: total,
                free_files: left,
                avail_files: left,
            })
        })
    }

    async fn xattrs(&self, obj: &Object) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let ino = ino(obj)?;
        self.call("xattrs", |world| {
            let all = world.live.get(ino)?.xattrs.iter();
            Ok(all.filter(|(name, _)| *name != OWNER_XATTR).map(|(n, v)| (n.clone(), v.clone())).collect())
        })
    }

    async fn set_xattr(&self, obj: &Object, name: &[u8], value: &[u8]) -> Result<()> {
        let ino = ino(obj)?;
        self.call("set_xattr", |world| {
            let carried = name.starts_with(b"user.") && name != OWNER_XATTR;
            let inode = world.live.get_mut(ino)?;
            if !self.capabilities().xattrs || !carried || inode.stat.kind == Kind::Symlink {
                return refuse(ErrorKind::NotSupported, "set_xattr");
            }
            inode.xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }

    async fn owner(&self) -> Result<Option<OwnerMarker>> {
        self.call("owner", |world| {
            let text = world.live.get(self.expected)?.xattrs.get(OWNER_XATTR);
            text.map(|text| OwnerMarker::from_text(text)).transpose()
        })
    }

    /// Durable when it returns, and nothing else is.
    async fn claim(&self, marker: &OwnerMarker) -> Result<()> {
        let text = marker.to_text().into_bytes();
        self.call("claim", |world| {
            for image in [&mut world.live, &mut world.durable] {
                image.get_mut(self.expected)?.xattrs.insert(OWNER_XATTR.to_vec(), text.clone());
            }
            Ok(())
        })
    }

    async fn unclaim(&self) -> Result<()> {
        self.call("unclaim", |world| {
            for image in [&mut world.live, &mut world.durable] {
                image.get_mut(self.expected)?.xattrs.remove(OWNER_XATTR);
            }
            Ok(())
        })
    }

    async fn pen(&self) -> Result<Object> {
        let Options { uid, gid, .. } = self.shared.options;
        self.called("pen", |world| match world.live.lookup(self.expected, PEN) {
            Err(e) if e.kind == ErrorKind::NotFound => {
                let (ino, now) = (world.number(), world.tick());
                let pen = Inode::new(&What::Dir, MakeAttrs { mode: 0o700, uid, gid }, now, self.expected);
                world.live.make(self.expected, PEN, ino, pen)?;
                Ok(ino)
            }
            other => other,
        })
    }

    async fn remove_pen(&self) -> Result<()> {
        self.call("remove_pen", |world| {
            let now = world.tick();
            match world.live.remove(self.expected, PEN, true, now) {
                Ok(ino) => world.release(ino),
                Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::NotEmpty) => {}
                Err(e) => return Err(e),
            }
            Ok(())
        })
    }
}

impl World {
    fn remove(&mut self, dir: Ino, name: &[u8], want_dir: bool) -> Result<()> {
        visible(self, dir, name, ErrorKind::NotFound)?;
        let now = self.tick();
        let ino = self.live.remove(dir, name, want_dir, now)?;
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
