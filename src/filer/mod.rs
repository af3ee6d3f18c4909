//! Core filers: what a storage system is to tain. One trait; a new kind is one new folder and one line in `registry`.
//!
//! A filer does I/O as the service's user with explicit resulting attributes: who may do what was decided above.
//! Names are single path components of 1 to 255 bytes, any bytes but `/` and NUL, never `.` or `..`; an implementation
//! refuses others with [`ErrorKind::Invalid`]. Nothing ever follows a symlink. Every method may be called concurrently.
//!
//! An [`Object`] is found by identity (where the filer can) or by walking names from the location's root, and stays
//! usable while it is held, whatever it is called meanwhile.

pub mod aside;
#[cfg(test)]
pub mod contract;
pub mod error;
pub mod exact;
pub mod fence;
pub mod hidden;
pub mod memory;
pub mod posix;
pub mod registry;

pub use error::{Error, ErrorKind, Result};

use async_trait::async_trait;
use bytes::Bytes;
use journal_format::event::{FilerFound, What};
use journal_format::ids::{Identity, Kind, Time};
use std::any::Any;
use std::sync::Arc;

/// An object on a filer: its identity, and what the implementation needs to reach it.
#[derive(Clone)]
pub struct Object {
    /// How the filer names it, whatever it is called.
    pub id: Identity,
    /// What it is.
    pub kind: Kind,
    /// The implementation's own (posix: an `O_PATH` descriptor).
    pub inner: Arc<dyn Any + Send + Sync>,
}

/// Attributes as the filer has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes allocated.
    pub used: u64,
    pub rdev: (u32, u32),
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

/// Attributes to set; `None` leaves one as it is. Carried out in the order owner, mode, size, times (chown clears
/// set-id bits, truncation sets times).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

/// Owner, mode, size and times, when they are set one after the other: in which order. Whoever gives a file away takes
/// its set-id bits first, or they would be the new owner's until the mode is set; one that keeps some is set behind the
/// owner, for that clears them.
#[must_use]
pub const fn in_order(mode: Option<u32>) -> [usize; 4] {
    match mode {
        Some(mode) if mode & 0o6000 == 0 => [1, 0, 2, 3],
        _ => [0, 1, 2, 3],
    }
}

/// Attributes of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MakeAttrs {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// What is made has the ACLs that its directory's default ACL hands on, with `mode` put on top; else it has none.
    pub inherits: bool,
}

/// Which ACL of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// Decides about the object.
    Access,
    /// Of a directory: what it hands on to what is made in it.
    Default,
}

impl AclKind {
    /// The extended attribute that holds it, on Linux.
    #[must_use]
    pub const fn xattr(self) -> &'static str {
        match self {
            Self::Access => "system.posix_acl_access",
            Self::Default => "system.posix_acl_default",
        }
    }
}

/// An ACL without entries: where it is put there is none.
pub const NO_ACL: [u8; 4] = [2, 0, 0, 0];

/// A page of a directory.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Names, without `.` and `..` and without what tain hides (its owner marker, its pen).
    pub names: Vec<Vec<u8>>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<u64>,
}

/// Space and file counts of the file system below a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStat {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub avail_bytes: u64,
    pub total_files: u64,
    pub free_files: u64,
    pub avail_files: u64,
}

/// What one kind of filer can do, as data, checked before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub hard_links: bool,
    /// [`CoreFiler::make_nameless`] works.
    pub nameless: bool,
    /// Character and block devices; fifos and sockets need no privilege.
    pub special_files: bool,
    pub holes: bool,
    /// Extended attributes (`user.*`).
    pub xattrs: bool,
    /// POSIX ACLs. Told apart from those above: they decide who may do what, and some file systems have the one alone.
    pub acls: bool,
    /// [`CoreFiler::by_identity`] works for every object, not just for cached ones.
    pub open_by_identity: bool,
    /// A position in a listing stays good while names come and go; elsewhere it is a count of those before it.
    pub lasting_positions: bool,
    pub chown: bool,
}

/// Who owns a location: written on its root, so that no two tains write the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerMarker {
    pub journal_id: [u8; 16],
    pub location: u32,
    pub epoch: u64,
}

/// One location's view of a core filer: everything below one directory of an export.
#[async_trait]
pub trait CoreFiler: Send + Sync + 'static {
    fn capabilities(&self) -> Capabilities;

    /// The location's root directory. Fails with [`ErrorKind::Down`] when it is not the one that was added.
    async fn root(&self) -> Result<Object>;

    /// The object with this identity, if the filer can find it so; `Ok(None)` when it must be walked to,
    /// [`ErrorKind::Stale`] when it certainly is gone.
    async fn by_identity(&self, id: &Identity) -> Result<Option<Object>>;

    /// The object `name` in `dir`; [`ErrorKind::NotFound`] when there is none.
    async fn lookup(&self, dir: &Object, name: &[u8]) -> Result<Object>;

    /// Whether this directory takes names for one that are not the same bytes (without case, in another form of Unicode), as
    /// far as the filer tells: what is found there by a name need not be listed by it, see [`exact`]. Asked of every object
    /// that is met by its name alone: an implementation makes it cheap.
    async fn folds_names(&self, _dir: &Object) -> Result<bool> {
        Ok(false)
    }

    async fn stat(&self, obj: &Object) -> Result<Stat>;

    /// What `name` in `dir` leads to, if that is known without waiting: a hot name costs no other thread. `None` says
    /// nothing.
    fn lookup_at_once(&self, _dir: &Object, _name: &[u8]) -> Option<Object> {
        None
    }

    /// [`stat`](Self::stat) in the same way.
    fn stat_at_once(&self, _obj: &Object) -> Option<Stat> {
        None
    }

    /// Attributes of what `name` in `dir` leads to, in the same way, if it is the object `id`: of many that are looked at
    /// once, and need not be held.
    fn stat_named_at_once(&self, _dir: &Object, _name: &[u8], _id: &Identity) -> Option<Stat> {
        None
    }

    /// Whether it is worth asking the three above.
    fn answers_at_once(&self) -> bool {
        false
    }

    /// About `max` names from `from` (0 is the start) on. Names that come or go meanwhile may be missed or met.
    async fn list(&self, dir: &Object, from: u64, max: usize) -> Result<Page>;

    async fn readlink(&self, obj: &Object) -> Result<Vec<u8>>;

    /// Up to `len` bytes at `offset`; fewer only at the end of the file.
    async fn read(&self, obj: &Object, offset: u64, len: u32) -> Result<Bytes>;

    /// The parts of `offset..offset + len` that hold data, ascending; all of it where the filer cannot tell holes.
    async fn data_ranges(&self, obj: &Object, offset: u64, len: u64) -> Result<Vec<(u64, u64)>>;

    /// All of `data` at `offset`, or an error with [`Error::done`] saying how many bytes were written.
    async fn write(&self, obj: &Object, offset: u64, data: Bytes) -> Result<()>;

    /// Make `offset..offset + len` read as zeros, as a hole where the filer can, without changing the size.
    async fn punch(&self, obj: &Object, offset: u64, len: u64) -> Result<()>;

    async fn set(&self, obj: &Object, changes: Changes) -> Result<()>;

    /// Make an object under a name that must be free ([`ErrorKind::Exists`]); its attributes are exactly `attrs`,
    /// whatever the umask or set-gid directories would say.
    async fn make(&self, dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Object>;

    /// Make a regular file that has no name, to be in `dir` one day: [`link`](Self::link) gives it its first. It is gone
    /// when nobody holds it before that. Asked for where [`Capabilities::nameless`] says so.
    async fn make_nameless(&self, dir: &Object, attrs: MakeAttrs) -> Result<Object>;

    /// How many of these one caller may hold at a time: each takes descriptors that cannot be closed meanwhile.
    fn nameless_max(&self) -> usize {
        usize::MAX
    }

    /// A further name, or the first of one without, which must be free.
    async fn link(&self, obj: &Object, dir: &Object, name: &[u8]) -> Result<()>;

    /// Rename as POSIX does, over what is there if it may be.
    async fn rename(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()>;

    /// The same to a name that must be free ([`ErrorKind::Exists`]): what nobody expected there is not replaced. Where the
    /// system cannot promise that the name is looked at first.
    async fn rename_free(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()>;

    /// Remove a name that is not a directory's.
    async fn remove(&self, dir: &Object, name: &[u8]) -> Result<()>;

    /// Remove an empty directory.
    async fn rmdir(&self, dir: &Object, name: &[u8]) -> Result<()>;

    /// Everything changed so far below this location is on stable storage when this returns `Ok` (posix: `syncfs`).
    /// An error is final for what was written since the last success: it must be written again.
    async fn sync(&self) -> Result<()>;

    /// Whether it was found, since the last sync, to have been mounted anew: objects of before may answer nothing any more,
    /// and what was written may be lost, as the next sync will say.
    fn was_mounted_anew(&self) -> bool {
        false
    }

    async fn statfs(&self) -> Result<FsStat>;

    /// Extended attributes that a copy carries over (`user.*`, POSIX ACLs, what the service may read), by name.
    async fn xattrs(&self, obj: &Object) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// An ACL is put as Linux does it: the object's mode becomes what it says; [`NO_ACL`] takes it away.
    async fn set_xattr(&self, obj: &Object, name: &[u8], value: &[u8]) -> Result<()>;

    /// A POSIX ACL of the object, in the bytes that Linux has for it; `None` where there is none, and on kinds of filers
    /// that have none. Asked for at every decision about somebody else's object: an implementation makes it cheap.
    async fn acl(&self, _obj: &Object, _which: AclKind) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// The marker on the location's root, if there is one.
    async fn owner(&self) -> Result<Option<OwnerMarker>>;

    /// Put the marker on the root, in place of one that is there.
    async fn claim(&self, marker: &OwnerMarker) -> Result<()>;

    /// Take the marker away.
    async fn unclaim(&self) -> Result<()>;

    /// The location's pen: a hidden directory at its root, made when it is missing, where a replayer parks objects
    /// that are between two names (or have none that is copied yet). Not seen by [`list`](Self::list) or
    /// [`lookup`](Self::lookup) of clients' names.
    async fn pen(&self) -> Result<Object>;

    /// Remove the pen if it is there and empty.
    async fn remove_pen(&self) -> Result<()>;
}

/// What `filer add` and `filer check` find out.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Identity of the export's root, file system included.
    pub root: Vec<u8>,
    /// No other root has this identity. It may where the file system tells neither an id that lasts nor a time of birth
    /// (NFS, FUSE): the roots of exported file systems have one inode number all.
    pub root_is_unique: bool,
    pub found: FilerFound,
    /// What an operator should know, one sentence each ("cannot change owners: …").
    pub remarks: Vec<String>,
}
