//! How objects and file systems are told apart.
//!
//! An object's identity is the kernel's file handle (`name_to_handle_at`: inode and generation on every file system
//! named in [`HANDLES_LAST`]), because it survives renames, restarts and remounts, and as root opens the object again
//! without walking names; before it stands the object's time of birth. For inode and generation alone are not never
//! given to another object: XFS was seen to give both a second time after a power cut had lost the first object, and
//! redo would then take the second for the first. `rustix` has no call for handles; `fanotify-fid` (MIT, depends on
//! libc alone) wraps both safely, so that no unsafe code is needed here.
//!
//! ```text
//! 1  birth: seconds i64, nanoseconds u32 (zeros where the file system has none)   the kernel's handle
//! 2  inode u64   birth, in the same way
//! ```
//!
//! Elsewhere (FUSE, network mounts, overlayfs: their handles hold numbers that a remount changes, or there are none) it
//! is inode number and birth time; such objects are walked to. The first byte says which form it is.

use super::errno::{fail, fail_io};
use crate::filer::{Error, ErrorKind, Result};
use fanotify_fid::handle::handle_from_fd;
use journal_format::ids::{Identity, Kind};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, fstatfs, fstatvfs, statx};

const BY_HANDLE: u8 = 1;
const BY_BIRTH: u8 = 2;
const BIRTH_BYTES: usize = 12;

const EXT: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
const TMPFS: u64 = 0x0102_1994;
const F2FS: u64 = 0xf2f5_2010;
const ZFS: u64 = 0x2fc1_2fc1;
const BCACHEFS: u64 = 0xca45_1a4e;

/// File systems whose handles hold inode and generation and last as long as the object.
const HANDLES_LAST: [u64; 7] = [EXT, XFS, BTRFS, TMPFS, F2FS, ZFS, BCACHEFS];

/// File systems whose `f_fsid` comes from their UUID. XFS takes the device number, which a reboot may change.
const FSID_LASTS: [u64; 5] = [EXT, BTRFS, TMPFS, F2FS, ZFS];

/// File systems that answer for an object whose inode is in memory, as that of an open descriptor is, without I/O.
const ANSWER_AT_ONCE: [u64; 5] = [EXT, XFS, BTRFS, TMPFS, F2FS];

/// Whether attributes of open objects may be asked for on a thread that must not wait.
pub(super) fn answers_at_once(fd: impl AsFd) -> Result<bool> {
    Ok(ANSWER_AT_ONCE.contains(&fs_type(fd)?))
}

/// The form of identities below one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Handle,
    Birth,
}

/// Type of the file system that `fd` is on.
pub(super) fn fs_type(fd: impl AsFd) -> Result<u64> {
    // The kernel's field is signed; the magic numbers are not.
    Ok(fstatfs(fd).map_err(fail("statfs"))?.f_type.cast_unsigned())
}

pub(super) fn form(fd: impl AsFd) -> Result<Form> {
    let fd = fd.as_fd();
    if HANDLES_LAST.contains(&fs_type(fd)?) && handle_from_fd(fd).is_ok() {
        return Ok(Form::Handle);
    }
    Ok(Form::Birth)
}

pub(super) fn stat_fd(fd: impl AsFd) -> rustix::io::Result<Statx> {
    statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Identity of the object behind `fd`, which `seen` describes.
pub(super) fn identity(form: Form, fd: impl AsFd, seen: &Statx) -> Result<Identity> {
    let mut bytes = Vec::with_capacity(32);
    match form {
        Form::Handle => {
            bytes.push(BY_HANDLE);
            bytes.extend(birth(seen));
            bytes.extend(handle_from_fd(fd).map_err(fail_io("take the file handle"))?);
        }
        Form::Birth => {
            bytes.push(BY_BIRTH);
            bytes.extend(seen.stx_ino.to_le_bytes());
            bytes.extend(birth(seen));
        }
    }
    if bytes.len() > Identity::MAX {
        return Err(Error::new(ErrorKind::NotSupported, "take the file handle", "it is longer than any we keep"));
    }
    Ok(Identity(bytes))
}

/// The kernel's handle in an identity, if it holds one.
pub(super) fn handle(id: &Identity) -> Option<&[u8]> {
    match id.0.split_first() {
        Some((&BY_HANDLE, rest)) => rest.get(BIRTH_BYTES..).filter(|handle| !handle.is_empty()),
        _ => None,
    }
}

/// Whether what a handle led to was born when the identity says. Another object that got the same handle was not.
pub(super) fn same_birth(id: &Identity, seen: &Statx) -> bool {
    id.0.get(1..=BIRTH_BYTES) == Some(birth(seen).as_slice())
}

fn birth(seen: &Statx) -> [u8; BIRTH_BYTES] {
    let mut bytes = [0; BIRTH_BYTES];
    if StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::BTIME) {
        bytes[..8].copy_from_slice(&seen.stx_btime.tv_sec.to_le_bytes());
        bytes[8..].copy_from_slice(&seen.stx_btime.tv_nsec.to_le_bytes());
    }
    bytes
}

/// Identity of an export's root: type and id of its file system (where that lasts), the directory, and its birth. An
/// unmounted disk shows another directory, a new file system another birth.
pub(super) fn root_identity(form: Form, fd: &OwnedFd, seen: &Statx) -> Result<Vec<u8>> {
    let kind = fs_type(fd)?;
    let fsid = if FSID_LASTS.contains(&kind) { fstatvfs(fd).map_err(fail("statfs"))?.f_fsid } else { 0 };
    let mut bytes = vec![1];
    bytes.extend(kind.to_le_bytes());
    bytes.extend(fsid.to_le_bytes());
    bytes.extend(birth(seen));
    bytes.extend(identity(form, fd, seen)?.0);
    Ok(bytes)
}

/// Whether a root's identity holds what another one cannot have: its file system's id, or its time of birth.
pub(super) fn is_unique(root: &[u8]) -> bool {
    // Behind the version and the file system's type.
    let telling = root.get(9..9 + 8 + BIRTH_BYTES);
    telling.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
}

pub(super) fn kind(seen: &Statx) -> Result<Kind> {
    Ok(match FileType::from_raw_mode(u32::from(seen.stx_mode)) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Unknown => {
            return Err(Error::new(ErrorKind::NotSupported, "stat", "an object of a kind that NFS has no word for"));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_object_that_got_the_handle_of_another_one_is_not_taken_for_it() {
        let file = tempfile::tempfile().unwrap();
        let seen = stat_fd(&file).unwrap();
        let id = identity(Form::Handle, &file, &seen).unwrap();
        assert_eq!(handle(&id).unwrap(), handle_from_fd(&file).unwrap().as_slice());
        assert!(same_birth(&id, &seen));
        // The same inode and generation, born a moment later.
        let mut later = seen;
        later.stx_btime.tv_nsec = (later.stx_btime.tv_nsec + 1) % 1_000_000_000;
        assert!(!same_birth(&id, &later));
        assert_ne!(identity(Form::Handle, &file, &later).unwrap(), id);
    }

    #[test]
    fn a_root_is_unique_by_its_file_systems_id_or_its_birth() {
        let dir = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let mut seen = stat_fd(&fd).unwrap();
        seen.stx_mask &= !StatxFlags::BTIME.bits();
        // As of a mounted NAS, of which the type and the inode are known.
        let mut root = root_identity(Form::Birth, &fd, &seen).unwrap();
        root[9..17].fill(0);
        assert!(!is_unique(&root));
        let (mut of_fs, mut born) = (root.clone(), root.clone());
        of_fs[16] = 1;
        seen.stx_mask |= StatxFlags::BTIME.bits();
        born[17..29].copy_from_slice(&birth(&seen));
        assert!(is_unique(&of_fs) && (is_unique(&born) || born == root));
        seen.stx_btime.tv_sec = 1;
        assert_ne!(root_identity(Form::Birth, &fd, &seen).unwrap()[17..29], root[17..29], "the birth stands there");
    }

    #[test]
    fn an_identity_that_is_cut_short_leads_nowhere() {
        for bytes in [vec![], vec![BY_HANDLE], vec![BY_HANDLE; 1 + BIRTH_BYTES], vec![BY_BIRTH; 21]] {
            let id = Identity(bytes);
            assert_eq!(handle(&id), None);
        }
    }
}
