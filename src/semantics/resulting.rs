//! Attributes that result.

use super::{Cred, Owned, S_ISGID, S_ISUID, S_IXGRP};
use journal_format::ids::Kind;

/// Permission bits and group of what `cred` makes in `dir`, having asked for `mode`.
///
/// A set-gid directory hands its group on, and the bit itself to directories. Set-id bits that are asked for with a new
/// directory are dropped, as Linux does: it has its own from above or none.
#[must_use]
pub fn made(cred: &Cred<'_>, dir: &Owned<'_>, kind: Kind, mode: u32) -> (u32, u32) {
    let mode = if kind == Kind::Dir { mode & 0o1777 } else { mode & 0o7777 };
    if dir.mode & S_ISGID == 0 {
        return (without_foreign_setgid(cred, kind, mode, cred.gid), cred.gid);
    }
    let mode = if kind == Kind::Dir { mode | S_ISGID } else { without_foreign_setgid(cred, kind, mode, dir.gid) };
    (mode, dir.gid)
}

/// An executable set-gid to a group that its maker is not in would give that group away.
fn without_foreign_setgid(cred: &Cred<'_>, kind: Kind, mode: u32, gid: u32) -> u32 {
    let executable = mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    if kind != Kind::Dir && executable && !cred.is_root() && !cred.in_group(gid) { mode & !S_ISGID } else { mode }
}

/// `mode` of an object that is not a directory without what makes executing it a privilege. Set-gid without group
/// execution is not one (it meant mandatory locking): it stays.
#[must_use]
pub const fn without_set_id(mode: u32) -> u32 {
    let mode = mode & !S_ISUID;
    if mode & S_IXGRP != 0 { mode & !S_ISGID } else { mode }
}

/// Mode after data was written (or cut off) by `cred`, where it changes: whoever writes into a privileged program must
/// not thereby own the privilege. Root keeps the bits.
#[must_use]
pub fn after_write(cred: &Cred<'_>, of: &Owned<'_>) -> Option<u32> {
    let mode = without_set_id(of.mode);
    (of.kind == Kind::File && !cred.is_root() && mode != of.mode).then_some(mode)
}

/// Mode after a change of owner or group, where it changes. Linux clears the bits for root's chown too; and since the
/// filer's own kernel does so behind the service's chown, keeping them would have to be a second step in any case.
#[must_use]
pub fn after_chown(of: &Owned<'_>) -> Option<u32> {
    let mode = without_set_id(of.mode);
    (of.kind != Kind::Dir && mode != of.mode).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Cred<'_> = Cred { uid: 10, gid: 20, gids: &[21] };
    const ROOT: Cred<'_> = Cred { uid: 0, gid: 0, gids: &[] };

    fn dir(mode: u32) -> Owned<'static> {
        Owned { kind: Kind::Dir, mode, uid: 1, gid: 30, acl: None }
    }

    fn file(mode: u32) -> Owned<'static> {
        Owned { kind: Kind::File, mode, uid: 10, gid: 20, acl: None }
    }

    #[test]
    fn a_plain_directory_gives_the_makers_group() {
        assert_eq!(made(&USER, &dir(0o777), Kind::File, 0o644), (0o644, 20));
        assert_eq!(made(&USER, &dir(0o777), Kind::Dir, 0o755), (0o755, 20));
    }

    #[test]
    fn a_set_gid_directory_hands_on_its_group_and_to_directories_the_bit() {
        assert_eq!(made(&USER, &dir(0o2777), Kind::File, 0o644), (0o644, 30));
        assert_eq!(made(&USER, &dir(0o2777), Kind::Dir, 0o755), (0o2755, 30));
    }

    #[test]
    fn set_id_bits_of_a_new_directory_come_from_above_alone() {
        for cred in [USER, ROOT] {
            assert_eq!(made(&cred, &dir(0o777), Kind::Dir, 0o7755).0, 0o1755);
            assert_eq!(made(&cred, &dir(0o2777), Kind::Dir, 0o7755).0, 0o3755);
        }
    }

    #[test]
    fn nobody_makes_a_program_set_gid_to_a_group_he_is_not_in() {
        assert_eq!(made(&USER, &dir(0o2777), Kind::File, 0o2755), (0o755, 30));
        assert_eq!(made(&ROOT, &dir(0o2777), Kind::File, 0o2755), (0o2755, 30));
        assert_eq!(made(&USER, &dir(0o777), Kind::File, 0o2755), (0o2755, 20));
    }

    #[test]
    fn type_bits_in_a_mode_are_dropped() {
        assert_eq!(made(&USER, &dir(0o777), Kind::File, 0o100_644).0, 0o644);
    }

    #[test]
    fn writing_clears_set_id_bits_unless_root_writes() {
        assert_eq!(after_write(&USER, &file(0o4755)), Some(0o755));
        assert_eq!(after_write(&USER, &file(0o6755)), Some(0o755));
        assert_eq!(after_write(&USER, &file(0o2644)), None, "set-gid without execution is no privilege");
        assert_eq!(after_write(&USER, &file(0o644)), None);
        assert_eq!(after_write(&ROOT, &file(0o6755)), None);
    }

    #[test]
    fn changing_the_owner_clears_set_id_bits_of_files_only() {
        assert_eq!(after_chown(&file(0o6755)), Some(0o755));
        assert_eq!(after_chown(&dir(0o2755)), None);
    }
}
