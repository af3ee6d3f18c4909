//! What a directory can do, found out by trying, with a file of a random hidden name that is removed again.

use super::attrs::chown;
use super::errno::fail;
use super::folding::{self, Folding};
use super::identity::{self, Form};
use super::tree::{Tree, beneath, create, create_nameless, proc_path};
use crate::filer::{AclKind, Error, ErrorKind, Probe, Result};
use fanotify_fid::handle::open_by_handle_at;
use journal_format::event::FilerFound;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, XattrFlags, futimens, makedev, mknodat, open,
    seek, unlinkat,
};
use rustix::io::{Errno, pwrite};
use std::path::PathBuf;

/// Looks at the export at `path` and tries what the service's user can do there.
pub async fn probe(path: PathBuf) -> Result<Probe> {
    crate::filer::aside::call(move || look(&path)).await
}

/// Whether the service may do what only root may; where the file system disagrees (a squashing mount), calls say so.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(super) fn takes_xattrs(tree: &Tree) -> bool {
    answers_xattrs(&tree.root().dir)
}

/// Only "there is no such thing here" means that no object has one: they decide who may do what, and whatever else
/// went wrong shows at the first object that is asked.
pub(super) fn has_acls(tree: &Tree) -> bool {
    let mut none = [0; 1];
    let path = proc_path(&tree.root().dir);
    let asked = rustix::fs::getxattr(path.as_str(), AclKind::Access.xattr(), &mut none[..]);
    !matches!(asked, Err(Errno::OPNOTSUPP))
}

/// Where it cannot be told now (a full disk) it is not relied on.
pub(super) fn makes_nameless(tree: &Tree) -> bool {
    create_nameless(&tree.root().node.path, Mode::RUSR | Mode::WUSR).is_ok()
}

/// Reading an attribute that is not there tells file systems that have them from those that have none.
fn answers_xattrs(fd: impl AsFd) -> bool {
    let mut none = [0; 1];
    let asked = rustix::fs::getxattr(proc_path(fd).as_str(), "user.tain.probe", &mut none[..]);
    matches!(asked, Ok(_) | Err(Errno::NODATA | Errno::RANGE))
}

fn look(path: &PathBuf) -> Result<Probe> {
    let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        let Error { kind, op, detail, .. } = fail("open the export")(e);
        Error::new(kind, op, format!("{}: {detail}", path.display()))
    })?;
    let form = identity::form(&dir)?;
    let seen = identity::stat_fd(&dir).map_err(fail("stat"))?;
    let root = identity::root_identity(form, &dir, &seen)?;
    let mut remarks = Vec::new();
    if form == Form::Birth {
        remarks.push(
            "this file system has no lasting file handles: objects are told apart by inode number and birth time"
                .into(),
        );
    } else if !by_handle(&dir, form) {
        remarks
            .push("objects cannot be opened by identity (that takes CAP_DAC_READ_SEARCH): they are walked to".into());
    }
    let mut folds = Folding::of(&dir) == Folding::Everywhere;
    let found = match Trial::start(&dir) {
        Ok(trial) => {
            folds |= folding::found_in_another_case(&dir, trial.name.as_bytes()) == Some(true);
            trial.run(&mut remarks)
        }
        Err(e) => {
            remarks.push(format!("nothing can be made in this directory: {e}"));
            FilerFound { time_granularity_ns: 1, has_xattrs: answers_xattrs(&dir), ..FilerFound::default() }
        }
    };
    if folds {
        remarks.push(
            "names that differ in case are one name in this directory: it, and what is made in it, can be no location"
                .into(),
        );
    }
    let root_is_unique = identity::is_unique(&root);
    Ok(Probe { root, root_is_unique, found, remarks })
}

fn by_handle(dir: &OwnedFd, form: Form) -> bool {
    let Ok(seen) = identity::stat_fd(dir) else { return false };
    let id = identity::identity(form, dir, &seen);
    id.is_ok_and(|id| identity::handle(&id).is_some_and(|handle| open_by_handle_at(dir, handle).is_ok()))
}

/// A file to try things on; removed at the end.
struct Trial<'a> {
    dir: &'a OwnedFd,
    name: String,
    file: OwnedFd,
}

impl<'a> Trial<'a> {
    fn start(dir: &'a OwnedFd) -> Result<Self> {
        let no_entropy = |e: std::io::Error| Error::new(ErrorKind::Io, "probe", e.to_string());
        let random = crate::env::random().map_err(no_entropy)?;
        let name = format!(".tain-probe-{:016x}", u64::from_le_bytes(random));
        let file = create(dir, name.as_bytes()).map_err(fail("probe"))?;
        Ok(Self { dir, name, file })
    }

    fn run(self, remarks: &mut Vec<String>) -> FilerFound {
        let found = FilerFound {
            can_chown: self.chown(),
            can_mknod: self.mknod(),
            has_xattrs: self.xattrs(),
            has_holes: self.holes(),
            time_granularity_ns: self.granularity(),
        };
        let why = if is_root() { "the file system refuses it" } else { "the service does not run as root" };
        if !found.can_chown {
            remarks.push(format!("cannot change owners: {why}; clients that chown get NFS3ERR_PERM"));
        }
        if !found.can_mknod {
            remarks.push(format!("cannot make device nodes: {why}; clients that make one get NFS3ERR_PERM"));
        }
        if !found.has_xattrs {
            remarks.push("no user extended attributes here: the owner marker is a hidden file, .tain-owner".into());
        }
        if !found.has_holes {
            remarks.push("holes are not kept here: sparse files take their full size".into());
        }
        if found.time_granularity_ns > 1 {
            remarks.push(format!("times are kept in steps of {} ns", found.time_granularity_ns));
        }
        found
    }

    fn chown(&self) -> bool {
        let other = rustix::process::geteuid().as_raw().wrapping_add(1) & 0xffff;
        chown(&self.file, Some(other), Some(other)).is_ok()
    }

    fn mknod(&self) -> bool {
        let name = format!("{}.d", self.name);
        let device = makedev(1, 3);
        let made = mknodat(self.dir, name.as_str(), FileType::CharacterDevice, Mode::RUSR, device).is_ok();
        if made && let Err(error) = unlinkat(self.dir, name.as_str(), AtFlags::empty()) {
            tracing::warn!(%error, %name, "what was made for a trial stays behind");
        }
        made
    }

    fn xattrs(&self) -> bool {
        let path = proc_path(&self.file);
        rustix::fs::setxattr(path.as_str(), "user.tain.probe", b"1", XattrFlags::empty()).is_ok()
    }

    fn holes(&self) -> bool {
        let far = 1 << 22;
        pwrite(&self.file, b"x", far).is_ok()
            && seek(&self.file, SeekFrom::Data(0)).is_ok_and(|at| at > 0)
            && seek(&self.file, SeekFrom::Hole(0)).is_ok_and(|at| at == 0)
    }

    /// What is left of a time with every digit in use.
    fn granularity(&self) -> u32 {
        let time = Timespec { tv_sec: 1_000_000_001, tv_nsec: 123_456_789 };
        if futimens(&self.file, &Timestamps { last_access: time, last_modification: time }).is_err() {
            return 1;
        }
        let Ok(seen) = identity::stat_fd(&self.file) else { return 1 };
        if seen.stx_mtime.tv_sec != time.tv_sec {
            return 2_000_000_000;
        }
        let kept = seen.stx_mtime.tv_nsec;
        [1, 100, 1_000, 1_000_000].into_iter().find(|step| kept == 123_456_789 / step * step).unwrap_or(1_000_000_000)
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Err(error) = unlinkat(self.dir, self.name.as_str(), AtFlags::empty()) {
            tracing::warn!(%error, name = %self.name, "what was made for a trial stays behind");
        }
    }
}

/// The directory `subdir` below `path`.
pub(super) fn walk(path: &PathBuf, subdir: &[Vec<u8>]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = open(path, flags, Mode::empty()).map_err(fail("open the export"))?;
    for name in subdir {
        crate::filer::hidden::check_name(name)?;
        dir = beneath(&dir, name, flags | OFlags::NOFOLLOW).map_err(fail("open a directory"))?;
    }
    Ok(dir)
}
