//! Attributes, exactly as given; extended attributes.

use super::errno::fail;
use super::identity;
use super::node::{KnownAcl, Node};
use super::tree::{Tree, proc_path};
use crate::filer::hidden::OWNER_XATTR;
use crate::filer::{AclKind, Changes, Error, ErrorKind, Result, Stat};
use bytes::Bytes;
use journal_format::ids::{Kind, Time};
use parking_lot::Mutex;
use rustix::fd::AsFd;
use rustix::fs::{
    AtFlags, Gid, Mode, Statx, StatxTimestamp, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat,
    ftruncate, utimensat,
};
use rustix::io::Errno;
use std::sync::Arc;

/// Bytes of extended attributes of one object that are carried over.
const XATTR_BYTES_MAX: usize = 4 << 20;

const BILLION: i64 = 1_000_000_000;

fn time(t: &StatxTimestamp) -> Time {
    Time(t.tv_sec.saturating_mul(BILLION).saturating_add(i64::from(t.tv_nsec)))
}

pub(super) fn to_stat(seen: &Statx) -> Result<Stat> {
    Ok(Stat {
        kind: identity::kind(seen)?,
        mode: u32::from(seen.stx_mode) & 0o7777,
        uid: seen.stx_uid,
        gid: seen.stx_gid,
        nlink: seen.stx_nlink,
        size: seen.stx_size,
        used: seen.stx_blocks.saturating_mul(512),
        rdev: (seen.stx_rdev_major, seen.stx_rdev_minor),
        atime: time(&seen.stx_atime),
        mtime: time(&seen.stx_mtime),
        ctime: time(&seen.stx_ctime),
    })
}

/// Owner, mode, size, times, in that order.
pub(super) fn set(tree: &Tree, node: &Arc<Node>, changes: &Changes) -> Result<()> {
    // Before the mode is set, which may forbid it, and before the lock that opening may want for itself.
    let file = match changes.size {
        Some(_) => Some(tree.file(node, true)?),
        None => None,
    };
    // A mode that is only lent must not be taken for the object's own, nor be put back over what is set here.
    let _quiet = tree.lending.read();
    let mut mode = changes.mode;
    if changes.uid.is_some() || changes.gid.is_some() {
        let seen = identity::stat_fd(&node.path).map_err(fail("stat"))?;
        let held = u32::from(seen.stx_mode) & 0o7777;
        if changes.uid.is_some_and(|uid| uid != seen.stx_uid) || changes.gid.is_some_and(|gid| gid != seen.stx_gid) {
            chown(&node.path, changes.uid, changes.gid)?;
            // It cleared them, but nobody asked for that.
            if held & 0o6000 != 0 && node.kind != Kind::Dir {
                mode = mode.or(Some(held));
            }
        }
    }
    if let Some(mode) = mode {
        set_mode(node, mode)?;
    }
    if let (Some(file), Some(size)) = (file, changes.size) {
        let _ = i64::try_from(size).map_err(|_| Error::new(ErrorKind::FileTooBig, "truncate", "beyond 2^63"))?;
        ftruncate(&file, size).map_err(fail("truncate"))?;
        // An ordinary user's truncation takes the set-id bits.
        if let Some(mode) = mode.filter(|mode| mode & 0o6000 != 0) {
            set_mode(node, mode)?;
        }
    }
    if changes.atime.is_some() || changes.mtime.is_some() {
        let times = Timestamps { last_access: timespec(changes.atime), last_modification: timespec(changes.mtime) };
        utimensat(&node.path, c"", &times, AtFlags::EMPTY_PATH).map_err(fail("set times"))?;
    }
    Ok(())
}

fn timespec(time: Option<Time>) -> Timespec {
    match time {
        Some(Time(ns)) => Timespec { tv_sec: ns.div_euclid(BILLION), tv_nsec: ns.rem_euclid(BILLION) },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

/// A symlink has no mode of its own on Linux: what is asked for is what it has.
pub(super) fn set_mode(node: &Node, mode: u32) -> Result<()> {
    if node.kind == Kind::Symlink {
        return Ok(());
    }
    chmod(proc_path(&node.path), Mode::from_raw_mode(mode & 0o7777)).map_err(fail("set the mode"))
}

pub(super) fn chown(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Error::new(ErrorKind::Invalid, "set the owner", "4294967295 is nobody's number"));
    }
    chownat(fd, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH).map_err(fail("set the owner"))
}

/// Which extended attributes a copy carries over: users', ACLs (Samba keeps Windows' in `security.NTACL`), capabilities. Those
/// of `trusted.*` are the file system's or cluster's own and mean nothing elsewhere, and labels are given by the machine.
pub(super) fn carried(name: &[u8]) -> bool {
    let listed: [&[u8]; 4] =
        [b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability", b"security.NTACL"];
    (name.starts_with(b"user.") && name != OWNER_XATTR) || listed.contains(&name)
}

pub(super) fn xattrs(tree: &Tree, node: &Node) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if node.kind == Kind::Symlink {
        return Ok(Vec::new());
    }
    let path = proc_path(&node.path);
    let list = match sized(|buf| rustix::fs::listxattr(path.as_str(), buf)) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other.map_err(fail("list extended attributes"))?,
    };
    let mut found = Vec::new();
    let mut bytes = 0;
    for name in list.split(|b| *b == 0).filter(|name| carried(name)) {
        let value = match tree.lent(&[node], || sized(|buf| rustix::fs::getxattr(path.as_str(), name, buf))) {
            // Gone since it was listed.
            Err(Errno::NODATA) => continue,
            other => other.map_err(fail("read an extended attribute"))?,
        };
        bytes += name.len() + value.len();
        if bytes > XATTR_BYTES_MAX {
            let text = format!("more than {XATTR_BYTES_MAX} bytes of them");
            return Err(Error::new(ErrorKind::NotSupported, "read extended attributes", text));
        }
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

pub(super) fn set_xattr(tree: &Tree, node: &Node, name: &[u8], value: &[u8]) -> Result<()> {
    if !carried(name) || node.kind == Kind::Symlink {
        return Err(Error::new(ErrorKind::NotSupported, "set an extended attribute", "not one that is carried over"));
    }
    let path = proc_path(&node.path);
    let set = || rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty());
    tree.lent(&[node], set).map_err(fail("set an extended attribute"))
}

/// A change time must be so old before "nothing has changed since" may be told from it: the kernel's clock for it goes
/// in steps.
const SETTLED: i64 = 100_000_000;
/// The same of one without nanoseconds: some file systems keep seconds, or every other.
const SETTLED_COARSE: i64 = 2 * BILLION + SETTLED;

/// Whether something may still change at `asked` (and afterwards) without another change time than `at`.
fn is_young(at: Time, asked: i64) -> bool {
    let settled = if at.0.rem_euclid(BILLION) == 0 { SETTLED_COARSE } else { SETTLED };
    asked.saturating_sub(at.0) < settled
}

/// An ACL of an object, or that it has none. One that is known is good for as long as the object's change time says
/// that nothing changed: the kernel is asked about most objects once.
pub(super) fn acl(tree: &Tree, node: &Node, which: AclKind) -> Result<Option<Bytes>> {
    if !may_have_acl(node, which) {
        return Ok(None);
    }
    read_acl(tree, node, which, &tree.stat(node)?)
}

/// The same without waiting: where it was read before, for then the kernel remembers it, too.
pub(super) fn acl_at_once(tree: &Tree, node: &Node, which: AclKind) -> Option<Result<Option<Bytes>>> {
    if !may_have_acl(node, which) {
        return Some(Ok(None));
    }
    let seen = tree.stat_at_once(node)?;
    let was_read = slot(node, which).lock().is_some();
    was_read.then(|| read_acl(tree, node, which, &seen))
}

fn may_have_acl(node: &Node, which: AclKind) -> bool {
    match which {
        AclKind::Access => node.kind != Kind::Symlink,
        AclKind::Default => node.kind == Kind::Dir,
    }
}

fn slot(node: &Node, which: AclKind) -> &Mutex<Option<KnownAcl>> {
    let [access, default] = &node.acls;
    match which {
        AclKind::Access => access,
        AclKind::Default => default,
    }
}

fn read_acl(tree: &Tree, node: &Node, which: AclKind, seen: &Statx) -> Result<Option<Bytes>> {
    let path = proc_path(&node.path);
    let ask = || match sized(|buf| rustix::fs::getxattr(path.as_str(), which.xattr(), buf)) {
        Ok(bytes) => Ok(Some(Bytes::from(bytes))),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(fail("read an ACL")(e)),
    };
    // Elsewhere change times are another machine's, by its own clock.
    if !tree.at_once {
        return ask();
    }
    remembered(slot(node, which), time(&seen.stx_ctime), crate::env::wall_nanos, ask)
}

/// What is known as of the change time `at`, or what `ask` says.
fn remembered(
    slot: &Mutex<Option<KnownAcl>>,
    at: Time,
    now: impl Fn() -> i64,
    ask: impl FnOnce() -> Result<Option<Bytes>>,
) -> Result<Option<Bytes>> {
    let known = slot.lock().clone();
    if let Some(known) = known.filter(|known| known.at == at && !known.young) {
        return Ok(known.acl);
    }
    // The time before it is asked: it may change at any moment from then on.
    let young = is_young(at, now());
    let acl = ask()?;
    *slot.lock() = Some(KnownAcl { at, young, acl: acl.clone() });
    Ok(acl)
}

/// Takes away the ACLs that a directory's default ACL gave to a new object.
pub(super) fn drop_inherited_acls(fd: impl AsFd, kind: Kind) -> Result<()> {
    let path = proc_path(fd);
    let names: &[&str] = match kind {
        Kind::Symlink => &[],
        Kind::Dir => &["system.posix_acl_access", "system.posix_acl_default"],
        _ => &["system.posix_acl_access"],
    };
    for name in names {
        match rustix::fs::removexattr(path.as_str(), *name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(fail("drop an inherited ACL")(e)),
        }
    }
    Ok(())
}

/// Reads into a small buffer first, and into one of the largest size that the kernel allows where that is too small.
pub(super) fn sized(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    for size in [1 << 10, 1 << 16] {
        let mut buf = vec![0; size];
        match read(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            Err(Errno::RANGE) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::TOOBIG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const NOW: i64 = 1_700_000_000 * BILLION;

    #[test]
    fn what_means_something_elsewhere_is_carried_and_nothing_else() {
        let all: [&[u8]; 6] = [
            b"user.mime_type",
            b"user.DOSATTRIB",
            b"security.NTACL",
            b"security.capability",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ];
        assert!(all.into_iter().all(carried));
        let none: [&[u8]; 5] =
            [b"security.selinux", b"trusted.overlay.opaque", b"system.nfs4_acl", b"security.NTACLs", OWNER_XATTR];
        assert!(!none.into_iter().any(carried));
    }

    fn known(slot: &Mutex<Option<KnownAcl>>, at: i64, now: i64, acl: &'static [u8]) -> Bytes {
        remembered(slot, Time(at), || now, || Ok(Some(Bytes::from_static(acl)))).unwrap().unwrap()
    }

    #[test]
    fn an_acl_is_read_again_until_its_change_time_is_old_and_whenever_that_moves() {
        let slot = Mutex::default();
        let at = NOW - SETTLED + 1;
        assert_eq!(known(&slot, at, NOW, b"first"), "first");
        assert_eq!(known(&slot, at, NOW + 1, b"second"), "second", "it may have changed within the clock's step");
        assert_eq!(known(&slot, at, NOW + 2, b"third"), "second", "now it is known");
        assert_eq!(known(&slot, at + 1, NOW + 2, b"third"), "third");
    }

    #[test]
    fn where_change_times_are_whole_seconds_it_is_read_again_for_longer() {
        let slot = Mutex::default();
        for after in [SETTLED, BILLION + SETTLED, 2 * BILLION] {
            known(&slot, NOW, NOW + after, b"old");
            assert_eq!(known(&slot, NOW, NOW + after, b"new"), "new", "{after} ns later");
        }
        known(&slot, NOW, NOW + SETTLED_COARSE, b"old");
        assert_eq!(known(&slot, NOW, NOW + SETTLED_COARSE, b"new"), "old");
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_taken_for_old() {
        let (slot, clock) = (Mutex::default(), Cell::new(NOW + 1));
        let slow = || {
            clock.set(NOW + 10 * BILLION);
            Ok(Some(Bytes::from_static(b"old")))
        };
        remembered(&slot, Time(NOW + 1), || clock.get(), slow).unwrap();
        assert_eq!(known(&slot, NOW + 1, clock.get(), b"new"), "new");
    }
}
