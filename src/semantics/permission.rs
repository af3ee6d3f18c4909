//! Who may do what, by mode bits and ACLs.

use super::acl::Acl;
use super::{Denied, S_ISVTX};
use journal_format::ids::Kind;

/// Permission to read; list a directory.
pub const READ: u32 = 4;
/// Permission to write; change a directory's names.
pub const WRITE: u32 = 2;
/// Permission to execute; pass through a directory.
pub const EXEC: u32 = 1;

/// ACCESS3_READ.
pub const ACCESS_READ: u32 = 0x01;
/// ACCESS3_LOOKUP.
pub const ACCESS_LOOKUP: u32 = 0x02;
/// ACCESS3_MODIFY.
pub const ACCESS_MODIFY: u32 = 0x04;
/// ACCESS3_EXTEND.
pub const ACCESS_EXTEND: u32 = 0x08;
/// ACCESS3_DELETE.
pub const ACCESS_DELETE: u32 = 0x10;
/// ACCESS3_EXECUTE.
pub const ACCESS_EXECUTE: u32 = 0x20;

/// A caller's credentials, squashing done.
#[derive(Clone, Copy, Debug)]
pub struct Cred<'a> {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub gids: &'a [u32],
}

impl Cred<'_> {
    /// Root overrides the mode bits.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }

    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.gids.contains(&gid)
    }
}

/// What the rules look at of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned<'a> {
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Its ACL, where it has one that may decide about the caller (see [`needs_acl`]).
    pub acl: Option<&'a Acl>,
}

/// Whether an ACL could say anything about this caller that the mode does not: it says nothing else about root and the
/// owner, and Linux does not look at one whose mask (the mode's group bits) is empty.
#[must_use]
pub const fn needs_acl(cred: &Cred<'_>, mode: u32, uid: u32) -> bool {
    !cred.is_root() && cred.uid != uid && mode & 0o070 != 0
}

/// Do mode bits and ACL allow all of `want`? One class alone decides, as POSIX says: an owner whom the owner bits refuse is
/// not helped by the others' bits.
#[must_use]
pub fn allows(cred: &Cred<'_>, of: &Owned<'_>, want: u32) -> bool {
    if cred.is_root() {
        // Root reads and writes everything and passes every directory; it executes a file that anybody may execute.
        return want & EXEC == 0 || of.kind == Kind::Dir || of.mode & 0o111 != 0;
    }
    if let Some(acl) = of.acl.filter(|_| needs_acl(cred, of.mode, of.uid)) {
        return acl.allows(cred, of, want);
    }
    let class = if cred.uid == of.uid {
        of.mode >> 6
    } else if cred.in_group(of.gid) {
        of.mode >> 3
    } else {
        of.mode
    };
    class & want == want
}

/// [`allows`], as a result.
pub fn check(cred: &Cred<'_>, of: &Owned<'_>, want: u32) -> Result<(), Denied> {
    if allows(cred, of, want) { Ok(()) } else { Err(Denied::Access) }
}

/// READ of a file's data. NFSv3 has no open, so the server cannot know with which rights the client opened it: the
/// owner may always (it could chmod anyway, and a file opened before a chmod must stay readable), and who may execute
/// may read, since executing is reading to the server.
#[must_use]
pub fn may_read_data(cred: &Cred<'_>, of: &Owned<'_>) -> bool {
    cred.uid == of.uid || allows(cred, of, READ) || allows(cred, of, EXEC)
}

/// WRITE of a file's data, and truncation; the owner always, see [`may_read_data`].
#[must_use]
pub fn may_write_data(cred: &Cred<'_>, of: &Owned<'_>) -> bool {
    cred.uid == of.uid || allows(cred, of, WRITE)
}

/// The part of an ACCESS mask that is granted. Mode bits alone: the client asks this in the place of an open, where
/// the owner's override for data must not show.
#[must_use]
pub fn access(cred: &Cred<'_>, of: &Owned<'_>, mask: u32) -> u32 {
    let (read, write, exec) = (allows(cred, of, READ), allows(cred, of, WRITE), allows(cred, of, EXEC));
    let mut granted = 0;
    if read {
        granted |= ACCESS_READ;
    }
    if of.kind == Kind::Dir {
        if exec {
            granted |= ACCESS_LOOKUP;
        }
        if write && exec {
            granted |= ACCESS_MODIFY | ACCESS_EXTEND | ACCESS_DELETE;
        }
    } else {
        if write {
            granted |= ACCESS_MODIFY | ACCESS_EXTEND;
        }
        if exec {
            granted |= ACCESS_EXECUTE;
        }
    }
    granted & mask
}

/// May names be added to `dir`?
pub fn may_add(cred: &Cred<'_>, dir: &Owned<'_>) -> Result<(), Denied> {
    check(cred, dir, WRITE | EXEC)
}

/// May the name of `victim` be taken out of `dir`? In a sticky directory only the owner of either, or root.
pub fn may_delete(cred: &Cred<'_>, dir: &Owned<'_>, victim: &Owned<'_>) -> Result<(), Denied> {
    check(cred, dir, WRITE | EXEC)?;
    let sticky = dir.mode & S_ISVTX != 0;
    if sticky && !cred.is_root() && cred.uid != dir.uid && cred.uid != victim.uid {
        // Linux answers EPERM here and not EACCES; POSIX allows both.
        return Err(Denied::Owner);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cred(uid: u32, gid: u32, gids: &[u32]) -> Cred<'_> {
        Cred { uid, gid, gids }
    }

    fn owned(kind: Kind, mode: u32) -> Owned<'static> {
        Owned { kind, mode, uid: 10, gid: 20, acl: None }
    }

    #[test]
    fn one_class_alone_decides() {
        let file = owned(Kind::File, 0o077);
        assert!(!allows(&cred(10, 20, &[]), &file, READ), "the owner bits refuse the owner");
        assert!(allows(&cred(11, 20, &[]), &file, READ | WRITE | EXEC));
        let file = owned(Kind::File, 0o604);
        assert!(!allows(&cred(11, 20, &[]), &file, READ), "the group bits refuse a member");
        assert!(allows(&cred(11, 21, &[]), &file, READ));
    }

    #[test]
    fn a_supplementary_group_counts_as_the_group() {
        let file = owned(Kind::File, 0o640);
        assert!(!allows(&cred(11, 21, &[]), &file, READ));
        assert!(allows(&cred(11, 21, &[5, 20]), &file, READ));
        assert!(!allows(&cred(11, 21, &[5, 20]), &file, WRITE));
    }

    #[test]
    fn root_overrides_all_but_execution_of_a_file_nobody_executes() {
        let root = cred(0, 0, &[]);
        assert!(allows(&root, &owned(Kind::File, 0), READ | WRITE));
        assert!(!allows(&root, &owned(Kind::File, 0o666), EXEC));
        assert!(allows(&root, &owned(Kind::File, 0o001), EXEC));
        assert!(allows(&root, &owned(Kind::Dir, 0), READ | WRITE | EXEC));
    }

    #[test]
    fn the_owner_reads_and_writes_data_whatever_the_mode_says() {
        let file = owned(Kind::File, 0);
        assert!(may_read_data(&cred(10, 1, &[]), &file));
        assert!(may_write_data(&cred(10, 1, &[]), &file));
        assert!(!may_read_data(&cred(11, 20, &[]), &file));
        assert!(!may_write_data(&cred(11, 20, &[]), &file));
    }

    #[test]
    fn who_may_execute_may_read_data_but_access_does_not_say_so() {
        let file = owned(Kind::File, 0o711);
        let other = cred(11, 21, &[]);
        assert!(may_read_data(&other, &file));
        assert_eq!(access(&other, &file, 0x3f), ACCESS_EXECUTE);
    }

    #[test]
    fn access_grants_by_kind_and_only_what_is_asked() {
        let other = cred(11, 21, &[]);
        let file = owned(Kind::File, 0o646);
        assert_eq!(access(&other, &file, 0x3f), ACCESS_READ | ACCESS_MODIFY | ACCESS_EXTEND);
        assert_eq!(access(&other, &file, ACCESS_READ), ACCESS_READ);
        let dir = owned(Kind::Dir, 0o755);
        assert_eq!(access(&other, &dir, 0x3f), ACCESS_READ | ACCESS_LOOKUP);
        assert_eq!(access(&cred(10, 1, &[]), &dir, 0x3f), 0x1f, "all that a directory has");
        // Writable but not passable: no name in it can be changed.
        assert_eq!(access(&other, &owned(Kind::Dir, 0o002), 0x3f), 0);
    }

    #[test]
    fn the_owners_override_does_not_show_in_access() {
        assert_eq!(access(&cred(10, 1, &[]), &owned(Kind::File, 0), 0x3f), 0);
    }

    #[test]
    fn in_a_sticky_directory_only_owners_and_root_delete() {
        let dir = Owned { kind: Kind::Dir, mode: 0o1777, uid: 1, gid: 1, acl: None };
        let victim = owned(Kind::File, 0o644);
        assert_eq!(may_delete(&cred(11, 21, &[]), &dir, &victim), Err(Denied::Owner));
        assert_eq!(may_delete(&cred(10, 21, &[]), &dir, &victim), Ok(()), "owner of the file");
        assert_eq!(may_delete(&cred(1, 21, &[]), &dir, &victim), Ok(()), "owner of the directory");
        assert_eq!(may_delete(&cred(0, 0, &[]), &dir, &victim), Ok(()));
        let plain = Owned { mode: 0o777, ..dir };
        assert_eq!(may_delete(&cred(11, 21, &[]), &plain, &victim), Ok(()));
    }

    #[test]
    fn deleting_needs_write_and_search() {
        let victim = owned(Kind::File, 0o644);
        let dir = |mode| Owned { kind: Kind::Dir, mode, uid: 1, gid: 1, acl: None };
        assert_eq!(may_delete(&cred(10, 20, &[]), &dir(0o775), &victim), Err(Denied::Access));
        assert_eq!(may_delete(&cred(10, 20, &[]), &dir(0o776), &victim), Err(Denied::Access));
        assert_eq!(may_add(&cred(10, 20, &[]), &dir(0o773)), Ok(()));
    }
}
