//! Names: looking up, listing, making, linking, renaming, removing.

use super::attrs::{chown, drop_inherited_acls, set_mode};
use super::errno::fail;
use super::identity;
use super::node::{File, Node};
use super::tree::{PATH, Tree, beneath, create, create_nameless, proc_path};
use crate::filer::hidden::is_hidden;
use crate::filer::{Error, ErrorKind, MakeAttrs, Page, Result};
use journal_format::event::What;
use journal_format::ids::{Identity, Kind};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RawDir, RenameFlags, SeekFrom, Statx, StatxFlags, fchmod, flistxattr, linkat,
    makedev, mkdirat, mknodat, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Bytes of directory entries read at once.
const ENTRIES_BUF: usize = 32 << 10;

pub(super) fn lookup(tree: &Tree, dir: &Node, name: &[u8]) -> Result<Arc<Node>> {
    tree.check(dir, name, ErrorKind::NotFound)?;
    must_be_dir(dir)?;
    tree.child(dir, name)
}

/// The same without waiting, for names that the kernel remembers; `None` for all others.
pub(super) fn lookup_at_once(tree: &Tree, dir: &Node, name: &[u8]) -> Option<Result<Arc<Node>>> {
    tree.check(dir, name, ErrorKind::NotFound).ok()?;
    must_be_dir(dir).ok()?;
    tree.child_at_once(dir, name)
}

/// Attributes of what such a name leads to, if it is the object `id`.
pub(super) fn stat_at_once(tree: &Tree, dir: &Node, name: &[u8], id: &Identity) -> Option<Statx> {
    tree.check(dir, name, ErrorKind::NotFound).ok()?;
    must_be_dir(dir).ok()?;
    tree.stat_child_at_once(dir, name, id)
}

fn must_be_dir(dir: &Node) -> Result<()> {
    if dir.kind == Kind::Dir {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotDir, "use a directory", "not a directory"))
}

/// A page's position is the kernel's own (`d_off`), which stays good while entries come and go.
pub(super) fn list(tree: &Tree, dir: &Node, from: u64, max: usize) -> Result<Page> {
    must_be_dir(dir)?;
    let fd = tree.reader(dir)?;
    if from != 0 {
        rustix::fs::seek(&fd, SeekFrom::Start(from)).map_err(fail("seek in a directory"))?;
    }
    let at_root = tree.is_root(dir);
    let mut buf = vec![MaybeUninit::uninit(); ENTRIES_BUF];
    let mut entries = RawDir::new(&fd, &mut buf);
    let mut page = Page { names: Vec::new(), next: Some(from) };
    while page.names.len() < max.max(1) {
        let entry = match entries.next() {
            None => return Ok(Page { next: None, ..page }),
            Some(Err(Errno::NOENT)) => return has_ended(&fd).map(|()| Page { next: None, ..page }),
            Some(entry) => entry.map_err(fail("list"))?,
        };
        page.next = Some(entry.next_entry_cookie());
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !(at_root && is_hidden(name)) {
            page.names.push(name.to_vec());
        }
    }
    Ok(page)
}

/// "No such entry" in the middle of a listing: the directory was removed while it was read. Some file systems say so of any
/// error (SMB, when its server is gone); taken for the end, it would leave out what comes behind for ever.
fn has_ended(dir: &OwnedFd) -> Result<()> {
    if rustix::fs::fstat(dir).map_err(fail("list"))?.st_nlink == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, "list", "the filer says that a directory is not there which it shows"))
}

pub(super) fn make(tree: &Tree, dir: &Node, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Arc<Node>> {
    tree.check(dir, name, ErrorKind::Access)?;
    must_be_dir(dir)?;
    make_any(tree, dir, name, what, attrs)
}

/// Makes it with no rights for anyone else, then gives it exactly `attrs`. What cannot have them is taken away again;
/// when that fails, too (the file system became read-only between the two), the outcome is [`ErrorKind::Unknown`]: the
/// refusal does not prove that nothing is there.
pub(super) fn make_any(tree: &Tree, dir: &Node, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Arc<Node>> {
    let since = files_now();
    let file = tree.lent(&[dir], || place(dir, name, what)).map_err(fail("make"))?;
    let Some(reached) = reach(tree, dir, name, what.kind(), file.as_ref(), since).transpose() else {
        // What has the name now is not ours to take away.
        return Err(Error::new(ErrorKind::Busy, "make", "somebody else moved or replaced it"));
    };
    finish(tree, reached, attrs, file).map_err(|error| {
        let flags = if what.kind() == Kind::Dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match tree.lent(&[dir], || unlinkat(&dir.path, name, flags)) {
            Ok(()) | Err(Errno::NOENT) => error,
            Err(left) => {
                let detail = format!("{error}; and what was made for it could not be taken away again: {left}");
                Error::new(ErrorKind::Unknown, "make", detail)
            }
        }
    })
}

/// A regular file's descriptor stays open for its data.
fn place(dir: &Node, name: &[u8], what: &What) -> rustix::io::Result<Option<OwnedFd>> {
    let ours = Mode::RUSR | Mode::WUSR;
    let node = |kind, major, minor| mknodat(&dir.path, name, kind, ours, makedev(major, minor)).map(|()| None);
    match what {
        What::File => create(&dir.path, name).map(Some),
        What::Dir => mkdirat(&dir.path, name, Mode::RWXU).map(|()| None),
        What::Symlink { target } => symlinkat(target.as_slice(), &dir.path, name).map(|()| None),
        What::Fifo => node(FileType::Fifo, 0, 0),
        What::Socket => node(FileType::Socket, 0, 0),
        What::Char { major, minor } => node(FileType::CharacterDevice, *major, *minor),
        What::Block { major, minor } => node(FileType::BlockDevice, *major, *minor),
    }
}

/// What was just made, after `since`, by its name: that is cheaper than the way from its descriptor through `/proc`.
/// `None`: nothing, or something else, has its name by now.
fn reach(
    tree: &Tree,
    dir: &Node,
    name: &[u8],
    kind: Kind,
    file: Option<&OwnedFd>,
    since: Timespec,
) -> Result<Option<(OwnedFd, Statx)>> {
    let path = match tree.retried(|| tree.lent(&[dir], || beneath(&dir.path, name, PATH))) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(fail("open what was made"))?,
    };
    let seen = identity::stat_fd(&path).map_err(fail("stat"))?;
    let same = match file {
        Some(fd) => is_same(&identity::stat_fd(fd).map_err(fail("stat"))?, &seen),
        None => identity::kind(&seen)? == kind && may_be_new(&seen, kind, tree.at_once.then_some(since)),
    };
    Ok(same.then_some((path, seen)))
}

/// Whether it looks as [`place`] leaves it. Of all but files there is no descriptor that proves it, and who owns the
/// parent may put another object in its place, of anybody, which would then be given to the caller. `since` is for
/// local file systems that are known ([`Tree::at_once`]): elsewhere owners are squashed, modes invented, and the clock
/// is another machine's, so that its links alone can be compared. Later, at the next try of an operation in doubt or in a
/// redo, none of it proves anything any more (`location/newborn.rs` says why).
fn may_be_new(seen: &Statx, kind: Kind, since: Option<Timespec>) -> bool {
    // Of a directory some file systems count none but its name.
    let links = if kind == Kind::Dir { 2 } else { 1 };
    if seen.stx_nlink > links {
        return false;
    }
    let Some(since) = since else { return true };
    // A umask and a default ACL take bits away; a directory gets the parent's set-gid bit. A symlink's mode says
    // nothing.
    let most = match kind {
        Kind::Dir => 0o2700,
        Kind::Symlink => 0o7777,
        _ => 0o600,
    };
    seen.stx_uid == rustix::process::geteuid().as_raw()
        && u32::from(seen.stx_mode) & 0o7777 & !most == 0
        && !is_older(seen, since, files_now())
}

/// Whether it was born before `since`, as far as a clock can tell that may be set back, even by a nanosecond, at any moment:
/// a clock that was is believed nothing, and one that may have been for a tick is believed no tick.
fn is_older(seen: &Statx, since: Timespec, now: Timespec) -> bool {
    const TICKS: i64 = 20_000_000;
    let nanos = |sec: i64, nsec: i64| i128::from(sec) * 1_000_000_000 + i128::from(nsec);
    let (since, now) = (nanos(since.tv_sec, since.tv_nsec), nanos(now.tv_sec, now.tv_nsec));
    let born = nanos(seen.stx_btime.tv_sec, seen.stx_btime.tv_nsec.into());
    let is_told = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::BTIME);
    is_told && now >= since && born + i128::from(TICKS) < since
}

/// The clock that file systems of this machine take their times from. It lags behind the exact one, by no more than a
/// tick as a rule, and so its own time before a call is compared with what the call has made.
fn files_now() -> Timespec {
    clock_gettime(ClockId::RealtimeCoarse)
}

fn is_same(a: &Statx, b: &Statx) -> bool {
    (a.stx_ino, a.stx_dev_major, a.stx_dev_minor) == (b.stx_ino, b.stx_dev_major, b.stx_dev_minor)
}

fn finish(
    tree: &Tree,
    reached: Result<(OwnedFd, Statx)>,
    attrs: MakeAttrs,
    file: Option<OwnedFd>,
) -> Result<Arc<Node>> {
    let (path, seen) = reached?;
    let file = file.map(|fd| File { fd: Arc::new(fd), writable: true });
    let fd = file.as_ref().map(|file| file.fd.clone());
    let node = tree.node_seen(path, &seen, file)?;
    let attributed = attribute(tree, &node, fd.as_deref(), &seen, attrs);
    if attributed.is_err() {
        tree.nodes.forget(&node.id);
    }
    attributed.map(|()| node)
}

/// It is not among the objects that are kept: nobody but who holds it could find it, and it is held for a moment. So
/// the descriptor that names it may be the same as that of its data.
pub(super) fn make_nameless(tree: &Tree, dir: &Node, attrs: MakeAttrs) -> Result<Arc<Node>> {
    must_be_dir(dir)?;
    let mode = Mode::from_raw_mode(attrs.mode & 0o777);
    let fd = tree.retried(|| tree.lent(&[dir], || create_nameless(&dir.path, mode))).map_err(fail("make"))?;
    let seen = identity::stat_fd(&fd).map_err(fail("stat"))?;
    let id = identity::identity(tree.root().form, &fd, &seen)?;
    let path = fd.try_clone().map_err(|error| fail("make")(Errno::from_io_error(&error).unwrap_or(Errno::MFILE)))?;
    let file = Arc::new(fd);
    let node = Node::new(id, Kind::File, seen.stx_ino, path, Some(File { fd: file.clone(), writable: true }));
    attribute(tree, &node, Some(&file), &seen, attrs)?;
    Ok(node)
}

/// What was just made, and looks as `seen`, gets exactly `attrs`. By its descriptor where it has one: that is cheaper
/// than the way through `/proc`.
fn attribute(tree: &Tree, node: &Node, file: Option<&OwnedFd>, seen: &Statx, attrs: MakeAttrs) -> Result<()> {
    if (seen.stx_uid, seen.stx_gid) != (attrs.uid, attrs.gid) {
        chown(&node.path, Some(attrs.uid), Some(attrs.gid))?;
    }
    // On file systems that are known to list them, most often there are none.
    if !(attrs.inherits || tree.at_once && file.is_some_and(has_no_xattrs)) {
        drop_inherited_acls(&node.path, node.kind)?;
    }
    let owner_kept = (seen.stx_uid, seen.stx_gid) == (attrs.uid, attrs.gid);
    match file {
        // A new owner may take set-id bits.
        Some(_) if owner_kept && u32::from(seen.stx_mode) & 0o7777 == attrs.mode & 0o7777 => Ok(()),
        Some(fd) => fchmod(fd, Mode::from_raw_mode(attrs.mode & 0o7777)).map_err(fail("set the mode")),
        None => set_mode(node, attrs.mode),
    }
}

fn has_no_xattrs(fd: &OwnedFd) -> bool {
    // An empty answer would not tell "none" from "no room".
    flistxattr(fd, &mut [0; 1 << 10]) == Ok(0)
}

pub(super) fn link(tree: &Tree, node: &Node, dir: &Node, name: &[u8]) -> Result<()> {
    tree.check(dir, name, ErrorKind::Access)?;
    must_be_dir(dir)?;
    if node.kind == Kind::Dir {
        return Err(Error::new(ErrorKind::IsDir, "link", "a directory has one name"));
    }
    let link = || match linkat(&node.path, c"", &dir.path, name, AtFlags::EMPTY_PATH) {
        // Who may not do that (it takes CAP_DAC_READ_SEARCH) goes through `/proc`.
        Err(Errno::NOENT) => linkat(CWD, proc_path(&node.path), &dir.path, name, AtFlags::SYMLINK_FOLLOW),
        other => other,
    };
    tree.lent(&[dir], link).map_err(fail("link"))
}

pub(super) fn rename(tree: &Tree, from: &Node, name: &[u8], to: &Node, new: &[u8]) -> Result<()> {
    check_ends(tree, from, name, to, new)?;
    let victim = last_name_of(to, new);
    match move_name(tree, from, name, to, || renameat(&from.path, name, &to.path, new)) {
        // Some file systems say "exists" for a directory that is not empty.
        Err(Errno::EXIST) => Err(Error::new(ErrorKind::NotEmpty, "rename", "directory not empty")),
        other => other.map_err(fail("rename")),
    }?;
    // A rename of one of an object's names over another of its names removes nothing.
    if let Some(ino) = victim
        && !is_there(to, new, ino)
    {
        tree.nodes.forget_ino(ino);
    }
    Ok(())
}

pub(super) fn rename_free(tree: &Tree, from: &Node, name: &[u8], to: &Node, new: &[u8]) -> Result<()> {
    check_ends(tree, from, name, to, new)?;
    let free = RenameFlags::NOREPLACE;
    match move_name(tree, from, name, to, || renameat_with(&from.path, name, &to.path, new, free)) {
        // Not every file system can (FUSE, network mounts); or it is a directory that is to go into itself.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match statat(&to.path, new, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(fail("rename")(Errno::EXIST)),
            Err(_) => rename(tree, from, name, to, new),
        },
        other => other.map_err(fail("rename")),
    }
}

fn check_ends(tree: &Tree, from: &Node, name: &[u8], to: &Node, new: &[u8]) -> Result<()> {
    tree.check(from, name, ErrorKind::NotFound)?;
    tree.check(to, new, ErrorKind::Access)?;
    must_be_dir(from)?;
    must_be_dir(to)
}

fn move_name(
    tree: &Tree,
    from: &Node,
    name: &[u8],
    to: &Node,
    go: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match tree.lent(&[from, to], &go) {
        // A directory that gets another parent is changed itself: it must be writable too.
        Err(Errno::ACCESS) => match tree.child(from, name) {
            Ok(moved) if moved.kind == Kind::Dir => tree.lent(&[from, to, &moved], go),
            _ => Err(Errno::ACCESS),
        },
        other => other,
    }
}

/// The inode that loses its last name when `name` goes.
fn last_name_of(dir: &Node, name: &[u8]) -> Option<u64> {
    let seen = statat(&dir.path, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let dir = FileType::from_raw_mode(seen.st_mode) == FileType::Directory;
    (dir || seen.st_nlink <= 1).then_some(seen.st_ino)
}

fn is_there(dir: &Node, name: &[u8], ino: u64) -> bool {
    statat(&dir.path, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|seen| seen.st_ino == ino)
}

pub(super) fn remove(tree: &Tree, dir: &Node, name: &[u8]) -> Result<()> {
    unlink(tree, dir, name, AtFlags::empty(), "remove")
}

pub(super) fn rmdir(tree: &Tree, dir: &Node, name: &[u8]) -> Result<()> {
    unlink(tree, dir, name, AtFlags::REMOVEDIR, "remove a directory")
}

fn unlink(tree: &Tree, dir: &Node, name: &[u8], flags: AtFlags, op: &'static str) -> Result<()> {
    tree.check(dir, name, ErrorKind::NotFound)?;
    must_be_dir(dir)?;
    let victim = last_name_of(dir, name);
    match tree.lent(&[dir], || unlinkat(&dir.path, name, flags)) {
        Err(Errno::EXIST) => Err(Error::new(ErrorKind::NotEmpty, op, "directory not empty")),
        other => other.map_err(fail(op)),
    }?;
    if let Some(ino) = victim {
        tree.nodes.forget_ino(ino);
    }
    Ok(())
}

/// A new directory or the one that is there.
pub(super) fn ensure_dir(tree: &Tree, dir: &Node, name: &[u8], mode: u32) -> Result<Arc<Node>> {
    match tree.child(dir, name) {
        Err(e) if e.kind == ErrorKind::NotFound => {}
        Ok(node) if node.kind != Kind::Dir => {
            return Err(Error::new(ErrorKind::NotDir, "make a directory", "something else has its name"));
        }
        other => return other,
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let attrs = MakeAttrs { mode, uid, gid, inherits: false };
    match make_any(tree, dir, name, &What::Dir, attrs) {
        Err(e) if e.kind == ErrorKind::Exists => tree.child(dir, name),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filer::posix::node::Limits;
    use crate::filer::posix::tree::Place;
    use rustix::fs::{OFlags, open};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn tree(path: &Path) -> Tree {
        let export = open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (form, seen) = (identity::form(&export).unwrap(), identity::stat_fd(&export).unwrap());
        let expected_root = identity::root_identity(form, &export, &seen).unwrap();
        let place = Place { path: path.into(), expected_root, subdir: Vec::new(), expected_dir: None };
        Tree::open(place, Limits::from_rlimit()).unwrap()
    }

    /// Whether what is made, and then has `other` in its place, is taken for what was made.
    fn is_taken(tree: &Tree, what: &What, other: &Path) -> bool {
        let (root, name) = (tree.root().node.clone(), tree.place.path.join("new"));
        let since = files_now();
        place(&root, b"new", what).unwrap();
        let made = reach(tree, &root, b"new", what.kind(), None, since).unwrap();
        assert!(made.is_some(), "it is itself");
        std::fs::rename(&name, name.with_extension("made")).unwrap();
        std::fs::rename(other, &name).unwrap();
        let taken = reach(tree, &root, b"new", what.kind(), None, since).unwrap().is_some();
        std::fs::rename(&name, other).unwrap();
        let made = name.with_extension("made");
        if made.is_dir() {
            std::fs::remove_dir(made).unwrap()
        } else {
            std::fs::remove_file(made).unwrap()
        }
        taken
    }

    #[test]
    fn what_takes_the_place_of_a_new_directory_is_not_taken_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut tree = tree(temp.path());
        let other = temp.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let mode = |mode| std::fs::set_permissions(&other, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        if tree.at_once {
            // An older one of ours, which is empty and nobody else's.
            std::thread::sleep(std::time::Duration::from_millis(60));
            assert!(!is_taken(&tree, &What::Dir, &other));
        }
        // None of the clocks is asked where they are not one.
        let seen = || identity::stat_fd(std::fs::File::open(&other).unwrap()).unwrap();
        let ever = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert!(may_be_new(&seen(), Kind::Dir, Some(ever)));
        mode(0o750);
        assert!(!may_be_new(&seen(), Kind::Dir, Some(ever)) && may_be_new(&seen(), Kind::Dir, None));
        mode(0o2700);
        assert!(may_be_new(&seen(), Kind::Dir, Some(ever)));
        let mut foreign = seen();
        foreign.stx_uid += 1;
        assert!(!may_be_new(&foreign, Kind::Dir, Some(ever)) && may_be_new(&foreign, Kind::Dir, None));
        tree.at_once = false;
        assert!(is_taken(&tree, &What::Dir, &other));
        let mut links = seen();
        links.stx_nlink = 3;
        assert!(!may_be_new(&links, Kind::Dir, None));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_that_is_new_old() {
        let mut seen = identity::stat_fd(tempfile::tempfile().unwrap()).unwrap();
        seen.stx_mask |= StatxFlags::BTIME.bits();
        (seen.stx_btime.tv_sec, seen.stx_btime.tv_nsec) = (100, 0);
        let at = |nanos| Timespec { tv_sec: 100, tv_nsec: nanos };
        assert!(!is_older(&seen, at(1), at(1)) && !is_older(&seen, at(20_000_000), at(20_000_000)), "by a tick");
        assert!(is_older(&seen, at(20_000_001), at(20_000_001)));
        assert!(!is_older(&seen, at(20_000_001), at(20_000_000)), "it was set back meanwhile");
        seen.stx_mask &= !StatxFlags::BTIME.bits();
        assert!(!is_older(&seen, at(999_999_999), at(999_999_999)), "nobody tells");
    }

    #[test]
    fn what_takes_the_place_of_a_new_fifo_or_symlink_is_not_taken_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut tree = tree(temp.path());
        tree.at_once = false;
        for what in [What::Fifo, What::Symlink { target: b"there".to_vec() }] {
            let (other, second) = (temp.path().join("other"), temp.path().join("second"));
            place(&tree.root().node.clone(), b"other", &what).unwrap();
            assert!(is_taken(&tree, &what, &other));
            std::fs::hard_link(&other, &second).unwrap();
            assert!(!is_taken(&tree, &what, &other), "it has another name");
            std::fs::remove_file(&second).unwrap();
            std::fs::remove_file(&other).unwrap();
        }
    }

    #[test]
    fn a_new_directory_below_a_set_gid_one_with_a_default_acl_is_known_as_new() {
        let temp = tempfile::tempdir().unwrap();
        let tree = tree(temp.path());
        let root = tree.root().node.clone();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o2777)).unwrap();
        // user::r-x group::rwx other::rwx, as the kernel keeps it.
        let entry = |tag: u16, rights: u16| [tag.to_le_bytes(), rights.to_le_bytes(), [0xff; 2], [0xff; 2]].concat();
        let acl = [2u32.to_le_bytes().to_vec(), entry(1, 5), entry(4, 7), entry(0x20, 7)].concat();
        let kept = rustix::fs::setxattr(
            temp.path(),
            crate::filer::AclKind::Default.xattr(),
            &acl,
            rustix::fs::XattrFlags::empty(),
        );
        for (name, what) in [(&b"dir"[..], What::Dir), (b"fifo", What::Fifo), (b"socket", What::Socket)] {
            let since = files_now();
            place(&root, name, &what).unwrap();
            let made = reach(&tree, &root, name, what.kind(), None, since).unwrap();
            let (_, seen) = made.expect("it was just made");
            assert!(kept.is_err() || u32::from(seen.stx_mode) & 0o200 == 0, "{kept:?}: the default ACL counts");
        }
    }
}
