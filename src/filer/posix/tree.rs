//! A location's directory: reaching it, noticing that it is not the one that was added, and opening what is below it.
//!
//! Every name is resolved by the kernel, one component at a time, from a directory's own descriptor and beneath it
//! (`openat2`): no symlink is followed, no mount point crossed, nothing is ever put together as a path.

use super::errno::{fail, kind};
use super::folding::Folding;
use super::identity::{self, Form};
use super::marks::owner_at;
use super::node::{File, Limits, Node, Nodes};
use crate::filer::hidden::{check_name, is_hidden};
use crate::filer::{Error, ErrorKind, Object, OwnerMarker, Result};
use fanotify_fid::handle::open_by_handle_at;
use journal_format::ids::{Identity, Kind};
use parking_lot::{Mutex, RwLock};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Statx, chmod, open, openat2};
use rustix::io::Errno;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

pub(super) const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often a handle is tried of which the kernel cannot say yet what has become of it; and the pause between.
const UNDECIDED_TRIES: usize = 10;
const UNDECIDED_PAUSE: Duration = Duration::from_millis(1);

/// Where a location is, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub path: PathBuf,
    pub expected_root: Vec<u8>,
    pub subdir: Vec<Vec<u8>>,
    pub expected_dir: Option<Identity>,
}

/// The location's directory as it was last reached.
pub(super) struct Root {
    pub node: Arc<Node>,
    /// For `syncfs`, and kept for as long as the mount: an error since it was opened is reported to it once.
    pub dir: Arc<OwnedFd>,
    pub form: Form,
    mount: (u64, u32, u32),
}

pub(super) struct Tree {
    pub place: Place,
    pub nodes: Nodes,
    pub by_handle: bool,
    /// Short calls on what is in memory need no thread of their own.
    pub at_once: bool,
    /// Whether names are taken for one.
    pub folding: Folding,
    root: RwLock<Arc<Root>>,
    /// The file system was mounted anew since the last sync: what was written before may be lost.
    remounted: AtomicBool,
    /// The owner marker as it was last read or written here.
    pub mark: Mutex<Option<OwnerMarker>>,
    /// Held for writing while an object's mode is not its own (see [`Tree::lent`]).
    pub lending: RwLock<()>,
}

impl Tree {
    pub fn open(place: Place, limits: Limits) -> Result<Self> {
        let root = Root::reach(&place)?;
        let by_handle = match identity::handle(&root.node.id) {
            Some(handle) => open_by_handle_at(&root.dir, handle).is_ok(),
            None => false,
        };
        let at_once = identity::answers_at_once(&root.dir)?;
        let folding = Folding::of(&root.dir);
        Ok(Self {
            at_once,
            folding,
            place,
            nodes: Nodes::new(limits),
            by_handle,
            root: RwLock::new(Arc::new(root)),
            remounted: AtomicBool::new(false),
            mark: Mutex::new(None),
            lending: RwLock::new(()),
        })
    }

    /// The location's directory as last reached; [`Tree::verify`] reaches it afresh.
    pub fn root(&self) -> Arc<Root> {
        self.root.read().clone()
    }

    /// Reaches the location's directory by its path again, and checks that it is the one that was added.
    pub fn verify(&self) -> Result<Arc<Root>> {
        let fresh = Root::reach(&self.place)?;
        let known = self.root();
        if fresh.node.id != known.node.id {
            return Err(down("the location's directory was replaced by another one"));
        }
        if fresh.mount == known.mount {
            return Ok(known);
        }
        let mark = self.mark.lock().clone();
        let whose = |mark: &OwnerMarker| (mark.journal_id, mark.location);
        if let Some(mark) = mark.filter(|_| !identity::is_unique(&self.place.expected_root))
            && owner_at(self, &fresh)?.as_ref().map(whose) != Some(whose(&mark))
        {
            return Err(down("another file system is mounted there: it does not bear the location's owner marker"));
        }
        tracing::warn!(path = %self.place.path.display(), "the file system was mounted anew");
        self.remounted.store(true, Ordering::SeqCst);
        let fresh = Arc::new(fresh);
        *self.root.write() = fresh.clone();
        self.nodes.clear();
        Ok(fresh)
    }

    pub fn was_mounted_anew(&self) -> bool {
        self.remounted.load(Ordering::SeqCst)
    }

    pub fn sync(&self) -> Result<()> {
        let root = self.root();
        let lost = self.remounted.swap(false, Ordering::SeqCst);
        rustix::fs::syncfs(&root.dir).map_err(fail("syncfs"))?;
        takes_changes(&root.dir)?;
        if lost {
            let text = "the file system was mounted anew since the last sync: what was written since may be lost";
            return Err(Error::new(ErrorKind::Io, "syncfs", text));
        }
        Ok(())
    }

    pub fn is_root(&self, dir: &Node) -> bool {
        dir.id == self.root().node.id
    }

    /// What clients name: a plain name, and at the root none that tain keeps for itself.
    pub fn check(&self, dir: &Node, name: &[u8], refused: ErrorKind) -> Result<()> {
        check_name(name)?;
        if is_hidden(name) && self.is_root(dir) {
            return Err(Error::new(refused, "check name", "the name is kept by tain"));
        }
        Ok(())
    }

    /// The object `name` in `dir`, hidden or not.
    pub fn child(&self, dir: &Node, name: &[u8]) -> Result<Arc<Node>> {
        let path = self.retried(|| self.lent(&[dir], || beneath(&dir.path, name, PATH))).map_err(fail("look up"))?;
        self.node(path, None)
    }

    /// The same without waiting, for names that the kernel remembers, also that there is nothing; `None` for all others.
    pub fn child_at_once(&self, dir: &Node, name: &[u8]) -> Option<Result<Arc<Node>>> {
        if !self.at_once {
            return None;
        }
        match cached(dir, name) {
            Ok(path) => self.node(path, None).ok().map(Ok),
            Err(Errno::NOENT) => Some(Err(fail("look up")(Errno::NOENT))),
            Err(_) => None,
        }
    }

    /// Attributes of such a child if it is the object `id`. It is not kept: a large directory's children would push out
    /// what is in use.
    pub fn stat_child_at_once(&self, dir: &Node, name: &[u8], id: &Identity) -> Option<Statx> {
        let _quiet = self.lending.try_read().filter(|_| self.at_once)?;
        let path = cached(dir, name).ok()?;
        let seen = identity::stat_fd(&path).ok()?;
        (identity::identity(self.root().form, &path, &seen).ok()? == *id).then_some(seen)
    }

    /// Puts an object that was just opened among those that are kept.
    pub fn node(&self, path: OwnedFd, file: Option<File>) -> Result<Arc<Node>> {
        let seen = identity::stat_fd(&path).map_err(fail("stat"))?;
        self.node_seen(path, &seen, file)
    }

    /// The same where it was looked at already.
    pub fn node_seen(&self, path: OwnedFd, seen: &Statx, file: Option<File>) -> Result<Arc<Node>> {
        let id = identity::identity(self.root().form, &path, seen)?;
        Ok(self.nodes.keep(Node::new(id, identity::kind(seen)?, seen.stx_ino, path, file)))
    }

    pub fn by_identity(&self, id: &Identity) -> Result<Option<Arc<Node>>> {
        let gone = |detail: &str| Error::new(ErrorKind::Stale, "open by identity", detail);
        if let Some(node) = self.nodes.get(id) {
            if self.stat(&node)?.stx_nlink == 0 {
                self.nodes.forget(id);
                return Err(gone("removed"));
            }
            return Ok(Some(node));
        }
        let Some(handle) = identity::handle(id).filter(|_| self.by_handle) else { return Ok(None) };
        let root = self.root();
        let open = || self.retried(|| open_by_handle_at(&root.dir, handle).map_err(|e| errno(&e)));
        let opened = decided(open);
        let path = match opened {
            Ok(path) => path,
            // A handle that this file system never made.
            Err(Errno::INVAL) => return Err(gone("not a handle of this file system")),
            Err(e) => return Err(fail("open by identity")(e)),
        };
        let seen = identity::stat_fd(&path).map_err(fail("stat"))?;
        if seen.stx_nlink == 0 {
            return Err(gone("removed"));
        }
        if !identity::same_birth(id, &seen) {
            return Err(gone("another object has its handle now"));
        }
        let kind = identity::kind(&seen)?;
        Ok(Some(self.nodes.keep(Node::new(id.clone(), kind, seen.stx_ino, path, None))))
    }

    pub fn stat(&self, node: &Node) -> Result<Statx> {
        let _quiet = self.lending.read();
        identity::stat_fd(&node.path).map_err(fail("stat"))
    }

    /// [`Tree::by_identity`] for what is at hand, without waiting; `None` for all others.
    pub fn known_at_once(&self, id: &Identity) -> Option<Arc<Node>> {
        let node = self.nodes.get(id)?;
        let seen = self.stat_at_once(&node)?;
        (seen.stx_nlink > 0).then_some(node)
    }

    /// [`Tree::stat`] without waiting; `None` where that cannot be said.
    pub fn stat_at_once(&self, node: &Node) -> Option<Statx> {
        let _quiet = self.lending.try_read().filter(|_| self.at_once)?;
        identity::stat_fd(&node.path).ok()
    }

    /// The descriptor for `node`'s data, opened if need be.
    pub fn file(&self, node: &Arc<Node>, write: bool) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = node.open_file(write) {
            return Ok(fd);
        }
        match node.kind {
            Kind::File => {}
            Kind::Dir => return Err(Error::new(ErrorKind::IsDir, "open", "a directory")),
            _ => return Err(Error::new(ErrorKind::Invalid, "open", "not a regular file")),
        }
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = Arc::new(self.retried(|| self.lent(&[node], || reopen(&node.path, flags))).map_err(fail("open"))?);
        let first = node.file.lock().replace(File { fd: fd.clone(), writable: write }).is_none();
        if first {
            self.nodes.opened(node);
        }
        Ok(fd)
    }

    /// A directory's descriptor with a position of its own.
    pub fn reader(&self, dir: &Node) -> Result<OwnedFd> {
        let open = || reopen(&dir.path, OFlags::RDONLY | OFlags::DIRECTORY);
        self.retried(|| self.lent(&[dir], open)).map_err(fail("open a directory"))
    }

    pub fn retried<T>(&self, op: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match op() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.nodes.clear();
                op()
            }
            // A rename elsewhere while the kernel looked whether the name stays beneath.
            Err(Errno::AGAIN) => op(),
            other => other,
        }
    }

    /// Runs `op`; when the mode of one of `nodes` forbids it to us although we own it (an ordinary user's file of mode
    /// 0444, a directory of mode 0555), once more with the owner's bits lent to it. As on any NAS, what a mode allows
    /// was decided above, by the client's credentials.
    ///
    /// A crash in between leaves the owner's bits set (u+rw, directories u+rwx) until the mode is set again.
    pub fn lent<T>(&self, nodes: &[&Node], op: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match op() {
            Err(Errno::ACCESS) => {}
            other => return other,
        }
        let _alone = self.lending.write();
        let mut lent = Vec::new();
        for node in nodes {
            match lend(node) {
                Ok(Some(mode)) => lent.push((*node, mode)),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a mode could not be lent"),
            }
        }
        if lent.is_empty() {
            return Err(Errno::ACCESS);
        }
        let result = op();
        for (node, mode) in lent.into_iter().rev() {
            if let Err(error) = chmod(proc_path(&node.path), mode) {
                tracing::error!(%error, ?mode, ino = node.ino, "a lent mode could not be put back");
            }
        }
        result
    }
}

/// Linux says "no memory" to a handle whose inode number is being given to a new object at this moment. A moment later it
/// says what holds: that the handle is stale. (Seen of ext4: 10 times in 83000, with six threads that make and remove.)
fn decided<T>(open: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..UNDECIDED_TRIES {
        match open() {
            Err(Errno::NOMEM) => std::thread::sleep(UNDECIDED_PAUSE),
            other => return other,
        }
    }
    open()
}

/// An attribute that nothing has.
const NO_XATTR: &str = "user.tain.none";

/// A `syncfs` that runs while the file system's own journal fails can succeed, and what it was to make durable is lost (seen of
/// ext4 on Linux 6.18; the next operation was refused). To take away an attribute that is not there changes nothing, and
/// needs a transaction all the same: who gives one has not lost any.
fn takes_changes(root: &OwnedFd) -> Result<()> {
    let Err(error) = rustix::fs::fremovexattr(root, NO_XATTR) else { return Ok(()) };
    let read_only = || {
        let flags = rustix::fs::fstatvfs(root).map(|stat| stat.f_flag);
        flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    };
    if has_failed(error, read_only) { Err(fail("a change after syncfs")(error)) } else { Ok(()) }
}

/// Whether a file system that answers so takes no changes any more. One that somebody has made read-only was synced then.
fn has_failed(error: Errno, read_only: impl Fn() -> bool) -> bool {
    match error {
        Errno::IO | Errno::UCLEAN => true,
        Errno::ROFS => !read_only(),
        // There is none (NODATA), or this file system has none, or an ordinary user may not ask.
        _ => false,
    }
}

/// Gives the owner's bits to what we own; its own mode, if that changed anything.
fn lend(node: &Node) -> rustix::io::Result<Option<Mode>> {
    let needed = if node.kind == Kind::Dir { 0o700 } else { 0o600 };
    let seen = identity::stat_fd(&node.path)?;
    let mode = u32::from(seen.stx_mode) & 0o7777;
    if seen.stx_uid != rustix::process::geteuid().as_raw() || mode & needed == needed || node.kind == Kind::Symlink {
        return Ok(None);
    }
    // Changing the mode of a file of a foreign group takes its set-gid bit for good.
    if mode & 0o2000 != 0 && !in_group(seen.stx_gid)? {
        return Ok(None);
    }
    chmod(proc_path(&node.path), Mode::from_raw_mode(mode | needed))?;
    Ok(Some(Mode::from_raw_mode(mode)))
}

fn in_group(gid: u32) -> rustix::io::Result<bool> {
    Ok(rustix::process::getegid().as_raw() == gid || rustix::process::getgroups()?.iter().any(|g| g.as_raw() == gid))
}

impl Root {
    fn reach(place: &Place) -> Result<Self> {
        let say = |what: &str, e: Errno| match kind(e) {
            ErrorKind::Busy => fail("open the location")(e),
            _ => down(format!("{what}: {e}")),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let export = open(&place.path, flags, Mode::empty())
            .map_err(|e| say(&format!("the export's root {} cannot be opened", place.path.display()), e))?;
        let form = identity::form(&export)?;
        let seen = identity::stat_fd(&export).map_err(fail("stat"))?;
        if identity::root_identity(form, &export, &seen)? != place.expected_root {
            let path = place.path.display();
            return Err(down(format!("the export's root {path} is not the one that was added: is it mounted?")));
        }
        let mut dir = export;
        for name in &place.subdir {
            check_name(name)?;
            dir = beneath(&dir, name, PATH | OFlags::DIRECTORY).map_err(|e| {
                let what = format!("the location's directory cannot be opened at {:?}", String::from_utf8_lossy(name));
                match kind(e) {
                    // Nothing is expected to be there yet: the caller wants to know what is in the way.
                    kind @ (ErrorKind::NotFound | ErrorKind::NotDir) if place.expected_dir.is_none() => {
                        Error::new(kind, "open the location", format!("{what}: {e}"))
                    }
                    _ => say(&what, e),
                }
            })?;
        }
        let seen = identity::stat_fd(&dir).map_err(fail("stat"))?;
        let id = identity::identity(form, &dir, &seen)?;
        if place.expected_dir.as_ref().is_some_and(|expected| *expected != id) {
            return Err(down("the location's directory is not the one that was added"));
        }
        let mount = (seen.stx_mnt_id, seen.stx_dev_major, seen.stx_dev_minor);
        let node = Node::new(id, Kind::Dir, seen.stx_ino, dir, None);
        let open = || reopen(&node.path, OFlags::RDONLY | OFlags::DIRECTORY);
        let dir = match open() {
            // Ours, with a mode that forbids it; nobody else is here yet that could see it lent.
            Err(Errno::ACCESS) => {
                let mode = lend(&node).map_err(fail("open the location"))?;
                let opened = open();
                if let Some(mode) = mode {
                    chmod(proc_path(&node.path), mode).map_err(fail("put the location's mode back"))?;
                }
                opened
            }
            other => other,
        };
        let dir = Arc::new(dir.map_err(|e| say("the location's directory cannot be read", e))?);
        Ok(Self { node, dir, form, mount })
    }
}

fn down(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Down, "reach the location", text)
}

/// The one way to a name in a directory.
pub(super) fn beneath(dir: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(dir, name, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

/// The same for names that the kernel remembers.
fn cached(dir: &Node, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    openat2(&dir.path, name, PATH, Mode::empty(), BENEATH | ResolveFlags::CACHED)
}

/// A new regular file, readable by nobody else until it has its own attributes.
pub(super) fn create(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(dir, name, flags, Mode::RUSR | Mode::WUSR, BENEATH)
}

/// A regular file without a name, which may still get one.
pub(super) fn create_nameless(dir: impl AsFd, mode: Mode) -> rustix::io::Result<OwnedFd> {
    openat2(dir, c".", OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, mode, BENEATH)
}

/// The object behind an `O_PATH` descriptor, for calls that take a path alone. It is the object itself, whatever it is
/// called; for a symlink it is the link.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn reopen(fd: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::openat(CWD, proc_path(fd), flags, Mode::empty())
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

/// The object as the trait shows it.
pub(super) fn object(node: Arc<Node>) -> Object {
    Object { id: node.id.clone(), kind: node.kind, inner: node }
}

/// The node in an object of this kind of filer.
pub(super) fn node(object: &Object) -> Result<Arc<Node>> {
    let foreign = || Error::new(ErrorKind::Invalid, "use an object", "it belongs to another filer");
    object.inner.clone().downcast().map_err(|_| foreign())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_file_system_that_refuses_changes_and_was_not_made_read_only_has_failed() {
        assert!(has_failed(Errno::ROFS, || false) && !has_failed(Errno::ROFS, || true));
        assert!(has_failed(Errno::IO, || true));
        for errno in [Errno::NODATA, Errno::OPNOTSUPP, Errno::PERM, Errno::ACCESS] {
            assert!(!has_failed(errno, || false));
        }
        let dir = tempfile::tempdir().unwrap();
        takes_changes(&std::fs::File::open(dir.path()).unwrap().into()).unwrap();
    }

    #[test]
    fn a_handle_whose_number_is_being_given_anew_is_tried_until_that_is_decided_and_not_for_ever() {
        let answer = |undecided: usize| {
            let tries = Cell::new(0);
            let open = || {
                tries.set(tries.get() + 1);
                Err::<(), _>(if tries.get() <= undecided { Errno::NOMEM } else { Errno::STALE })
            };
            (decided(open), tries.get())
        };
        assert_eq!(answer(0), (Err(Errno::STALE), 1));
        assert_eq!(answer(3), (Err(Errno::STALE), 4));
        assert_eq!(answer(usize::MAX), (Err(Errno::NOMEM), UNDECIDED_TRIES + 1));
    }

    #[test]
    fn what_the_kernel_remembers_of_a_name_is_known_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let export = open(temp.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let seen = identity::stat_fd(&export).unwrap();
        let form = identity::form(&export).unwrap();
        let expected_root = identity::root_identity(form, &export, &seen).unwrap();
        let place = Place { path: temp.path().into(), expected_root, subdir: Vec::new(), expected_dir: None };
        let tree = Tree::open(place, Limits::from_rlimit()).unwrap();
        if !tree.at_once {
            eprintln!("skipped: the temporary directory's file system answers nothing at once");
            return;
        }
        let root = tree.root().node.clone();
        let known = |name: &[u8]| tree.child_at_once(&root, name).map(|child| child.map(|_| ()).map_err(|e| e.kind));
        assert_eq!(known(b"name"), None, "nobody has asked for it");
        assert!(tree.child(&root, b"name").is_err());
        assert_eq!(known(b"name"), Some(Err(ErrorKind::NotFound)));
        std::fs::write(temp.path().join("name"), b"").unwrap();
        assert_eq!(known(b"name"), Some(Ok(())));
    }
}
