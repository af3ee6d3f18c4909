//! What the gateway asks and is answered: typed, no XDR.

pub use crate::semantics::{SetAttrs, SetTime};
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::{JunctionId, Kind, NodeId, Time};

/// What a handle names. `junction` 0: a directory of the read-only tree above the junctions (`node` 1 is `/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    pub junction: JunctionId,
    pub node: NodeId,
}

/// nfsstat3, RFC 1813 §2.6, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    Perm = 1,
    NoEnt = 2,
    Io = 5,
    NxIo = 6,
    Access = 13,
    Exist = 17,
    XDev = 18,
    NoDev = 19,
    NotDir = 20,
    IsDir = 21,
    Inval = 22,
    FBig = 27,
    NoSpc = 28,
    RoFs = 30,
    MLink = 31,
    NameTooLong = 63,
    NotEmpty = 66,
    DQuot = 69,
    Stale = 70,
    Remote = 71,
    BadHandle = 10001,
    NotSync = 10002,
    BadCookie = 10003,
    NotSupp = 10004,
    TooSmall = 10005,
    ServerFault = 10006,
    BadType = 10007,
    Jukebox = 10008,
}

/// fattr3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub kind: Kind,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub rdev: (u32, u32),
    pub fsid: u64,
    pub fileid: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreAttr {
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
}

/// wcc_data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wcc {
    pub before: Option<PreAttr>,
    pub after: Option<Attr>,
}

/// Who calls: credentials after squashing, and what the journal keeps about the call.
#[derive(Clone, Debug)]
pub struct Call {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, at most 16 (AUTH_UNIX).
    pub gids: Vec<u32>,
    pub addr: std::net::IpAddr,
    pub port: u16,
    pub xid: u32,
    /// CRC-32 of procedure number and arguments.
    pub sum: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateHow {
    Unchecked(SetAttrs),
    Guarded(SetAttrs),
    Exclusive([u8; 8]),
}

/// An error with what the reply carries beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<T> {
    pub status: Status,
    pub with: T,
}

pub type Answer<T> = std::result::Result<T, Status>;
/// Whether the caller may use a junction at all.
pub type MayUse<'a> = &'a (dyn Fn(JunctionId) -> bool + Send + Sync);

/// Reply of CREATE, MKDIR, SYMLINK, MKNOD, and of LOOKUP (where `dir` has no `before`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub node: NodeRef,
    pub attr: Attr,
    pub dir: Wcc,
}

#[derive(Clone, Debug)]
pub struct ReadOk {
    pub data: Bytes,
    pub eof: bool,
    pub attr: Option<Attr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub fileid: u64,
    pub cookie: u64,
    /// Only when asked for (READDIRPLUS), and of a directory that the caller may search.
    pub node: Option<NodeRef>,
    /// The same; absent where the object could not be reached just now, too.
    pub attr: Option<Attr>,
}

/// `.` (cookie 1) and `..` (cookie 2) come first; `eof` is about the last entry given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<DirEntry>,
    pub eof: bool,
    pub dir: Option<Attr>,
}

/// What the entries of a listing may take of its reply, in bytes of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: usize,
    /// READDIRPLUS: nodes and attributes are asked for.
    pub plus: Option<RoomPlus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomPlus {
    /// What names, fileids and cookies may take of it.
    pub names: usize,
    /// What attributes and handle of an entry take beside its name, fileid and cookie.
    pub entry: usize,
}

impl Room {
    #[must_use]
    pub const fn plain(bytes: usize) -> Self {
        Self { bytes, plus: None }
    }

    #[must_use]
    pub const fn plus(bytes: usize, names: usize, entry: usize) -> Self {
        Self { bytes, plus: Some(RoomPlus { names, entry }) }
    }
}

/// FSSTAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub attr: Option<Attr>,
    pub fs: crate::filer::FsStat,
}

/// FSINFO limits; fixed for all filers so that a switch changes nothing.
pub const READ_MAX: u32 = 1 << 20;
pub const WRITE_MAX: u32 = 1 << 20;
pub const READDIR_MAX: u32 = 1 << 20;
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
pub const NAME_MAX: usize = 255;
/// Longest text of a symbolic link: what Linux takes without the NUL.
pub const SYMLINK_MAX: usize = 4095;
pub const LINK_MAX: u32 = 32000;

/// What of MKDIR, SYMLINK, MKNOD is made.
#[derive(Clone, Debug)]
pub struct NewNode {
    pub what: What,
    pub attrs: SetAttrs,
}

/* Methods of Volume, each `async`, on `&self` (Arc<Volume>):

   mount(&self, path: &[u8]) -> Answer<NodeRef>                       a directory by its client path (MNT)
   getattr(&self, node) -> Answer<Attr>
   setattr(&self, call, node, SetAttrs, guard: Option<Time>) -> Result<Wcc, Refused<Wcc>>
   lookup(&self, call, dir, name: &[u8]) -> Result<Found, Refused<Option<Attr>>>
   access(&self, call, node, mask: u32) -> Answer<(u32, Attr)>
   readlink(&self, call, node) -> Result<(Vec<u8>, Option<Attr>), Refused<Option<Attr>>>
   read(&self, call, node, offset, len: u32) -> Result<ReadOk, Refused<Option<Attr>>>
   write(&self, call, node, offset, data: Bytes) -> Result<(u32, Wcc), Refused<Wcc>>          FILE_SYNC always
   create(&self, call, dir, name, CreateHow) -> Result<Found, Refused<Wcc>>
   make(&self, call, dir, name, NewNode) -> Result<Found, Refused<Wcc>>                       MKDIR SYMLINK MKNOD
   remove(&self, call, dir, name) / rmdir(..) -> Result<Wcc, Refused<Wcc>>
   rename(&self, call, from, name, to, new) -> Result<(Wcc, Wcc), Refused<(Wcc, Wcc)>>
   link(&self, call, node, dir, name) -> Result<(Option<Attr>, Wcc), Refused<(Option<Attr>, Wcc)>>
   readdir(&self, call, dir, cookie: u64, verifier: u64, room: Room) -> Result<Listing, Refused<Option<Attr>>>
   fsstat(&self, call, node) -> Answer<Space>
   attr_opt(&self, node) -> Option<Attr>                              post_op_attr for FSINFO, PATHCONF, COMMIT, EXPORT…
   commit(&self, call, node) -> Result<Wcc, Refused<Wcc>>
   fsid(junction) -> u64
   exports(&self) -> Vec<(JunctionId, path bytes)>                    every junction, for EXPORT; MNT of "/" too
*/
