//! A file system that says no: a FUSE mount with a few things in it, on which nothing can be changed, and whose calls
//! answer the error that is set. It can take names without case, everywhere or in one directory, as casefold does.

use crate::support::Dir;
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// Nothing is remembered by the kernel: each look comes here.
const TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;
/// Directories that the service makes for itself have numbers behind this one.
const OWN: u64 = 100;

/// Of [`Faulty::folds`]: no directory tells names apart, and none says so.
pub const EVERYWHERE: u64 = u64::MAX;
/// Of the same: this one alone, which says so.
pub const DIR: u64 = 3;

const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_CASEFOLD_FL: u32 = 0x4000_0000;

/// Inode, directory, name, kind.
const TREE: [(u64, u64, &str, FileType); 8] = [
    (2, ROOT, "export", FileType::Directory),
    (3, 2, "dir", FileType::Directory),
    (4, 2, "file", FileType::RegularFile),
    (5, 2, "symlink", FileType::Symlink),
    (6, 2, "list", FileType::Directory),
    (7, 2, "plus", FileType::Directory),
    (8, 3, "in", FileType::RegularFile),
    (10, 2, "empty", FileType::Directory),
];

/// The errors that are answered, 0 for none.
#[derive(Default)]
pub struct Errors {
    /// By everything that would change something.
    pub change: AtomicI32,
    /// By lookup, readdir, readlink, read and statfs.
    pub look: AtomicI32,
    /// By getattr.
    pub stat: AtomicI32,
}

pub struct Faulty {
    pub errors: Arc<Errors>,
    /// The directory that takes names without case, by its number.
    pub folds: Arc<AtomicU64>,
    session: Option<BackgroundSession>,
    at: PathBuf,
}

impl Faulty {
    pub fn mount(dir: &Dir) -> Self {
        let at = dir.path().join("faulty");
        std::fs::create_dir(&at).unwrap();
        let errors = Arc::new(Errors::default());
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("tain-faulty".into())];
        let folds = Arc::new(AtomicU64::new(0));
        let fs = Fs { errors: errors.clone(), folds: folds.clone(), xattrs: Mutex::default(), own: Mutex::default() };
        let session = Some(fuser::spawn_mount(fs, &at, &config).unwrap());
        Self { errors, folds, session, at }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).status();
        drop(self.session.take());
    }
}

struct Fs {
    errors: Arc<Errors>,
    folds: Arc<AtomicU64>,
    /// The owner's marker.
    xattrs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Directories that the service makes for itself, by where they are: the one change that is taken while no error is set.
    own: Mutex<BTreeMap<(u64, OsString), u64>>,
}

impl Fs {
    fn change(&self) -> Errno {
        match self.errors.change.load(Ordering::SeqCst) {
            0 => Errno::EROFS,
            errno => Errno::from_i32(errno),
        }
    }

    fn takes_changes(&self) -> bool {
        self.errors.change.load(Ordering::SeqCst) == 0
    }

    fn is_one(&self, dir: u64, a: &OsStr, b: &OsStr) -> bool {
        let folds = [EVERYWHERE, dir].contains(&self.folds.load(Ordering::SeqCst));
        a == b || folds && a.eq_ignore_ascii_case(b)
    }

    fn find(&self, dir: u64, name: &OsStr) -> Option<u64> {
        let known = TREE.iter().find(|e| e.1 == dir && self.is_one(dir, OsStr::new(e.2), name)).map(|e| e.0);
        let own = self.own.lock().unwrap();
        known.or_else(|| own.iter().find(|((at, n), _)| *at == dir && self.is_one(dir, n, name)).map(|(_, ino)| *ino))
    }

    fn look(&self) -> Option<Errno> {
        let errno = self.errors.look.load(Ordering::SeqCst);
        (errno != 0).then(|| Errno::from_i32(errno))
    }
}

fn attr(ino: u64) -> FileAttr {
    let kind = TREE.iter().find(|e| e.0 == ino).map_or(FileType::Directory, |e| e.3);
    let (perm, nlink) = if kind == FileType::Directory { (0o755, 2) } else { (0o644, 1) };
    FileAttr {
        ino: INodeNo(ino),
        size: 1,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Fs {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match (self.look(), self.find(parent.0, name)) {
            (Some(errno), _) => reply.error(errno),
            (None, Some(ino)) => reply.entry(&TTL, &attr(ino), Generation(0)),
            (None, None) => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.errors.stat.load(Ordering::SeqCst) {
            0 => reply.attr(&TTL, &attr(ino.0)),
            errno => reply.error(Errno::from_i32(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<fuser::TimeOrNow>,
        _: Option<fuser::TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.takes_changes() {
            return reply.attr(&TTL, &attr(ino.0));
        }
        reply.error(self.change());
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        match self.look() {
            Some(errno) => reply.error(errno),
            None => reply.data(b"x"),
        }
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(self.change());
    }

    fn mkdir(&self, _: &Request, dir: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        if self.takes_changes() {
            let mut own = self.own.lock().unwrap();
            let ino = own.values().max().unwrap_or(&OWN) + 1;
            own.insert((dir.0, name.to_owned()), ino);
            return reply.entry(&TTL, &attr(ino), Generation(0));
        }
        reply.error(self.change());
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(self.change());
    }

    fn rmdir(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.takes_changes() {
            self.own.lock().unwrap().remove(&(dir.0, name.to_owned()));
            return reply.ok();
        }
        reply.error(self.change());
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(self.change());
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(self.change());
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(self.change());
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(self.change());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u32,
        _: OpenFlags,
        _: Option<fuser::LockOwner>,
        reply: ReplyData,
    ) {
        match self.look() {
            Some(errno) => reply.error(errno),
            None => reply.data(b"x"),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: fuser::WriteFlags,
        _: OpenFlags,
        _: Option<fuser::LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(self.change());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if let Some(errno) = self.look() {
            return reply.error(errno);
        }
        let entries = TREE.iter().filter(|e| e.1 == ino.0).zip(1..);
        for (entry, next) in entries.skip_while(|(_, next)| *next <= offset) {
            if reply.add(INodeNo(entry.0), next, entry.3, entry.2) {
                break;
            }
        }
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        cmd: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        match self.folds.load(Ordering::SeqCst) {
            folds if cmd == FS_IOC_GETFLAGS && folds != EVERYWHERE => {
                let flags = if folds == ino.0 { FS_CASEFOLD_FL } else { 0 };
                reply.ioctl(0, &flags.to_ne_bytes());
            }
            _ => reply.error(Errno::ENOTTY),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.look() {
            Some(errno) => reply.error(errno),
            None => reply.statfs(1, 1, 1, 1, 1, 512, 255, 512),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn setxattr(&self, _: &Request, _: INodeNo, name: &OsStr, value: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        self.xattrs.lock().unwrap().insert(name.as_encoded_bytes().to_vec(), value.to_vec());
        reply.ok();
    }

    fn getxattr(&self, _: &Request, _: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let xattrs = self.xattrs.lock().unwrap();
        let value = xattrs.get(name.as_encoded_bytes());
        match (value, value.map(|v| u32::try_from(v.len()).unwrap())) {
            (Some(_), Some(len)) if size == 0 => reply.size(len),
            (Some(value), Some(len)) if len <= size => reply.data(value),
            (Some(_), _) => reply.error(Errno::ERANGE),
            (None, _) => reply.error(Errno::ENODATA),
        }
    }
}
