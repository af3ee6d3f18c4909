//! Operations on nodes, and how they ended.

use crate::ids::{Identity, JunctionId, Kind, LocationId, Lsn, NodeId, Time};
use rkyv::{Archive, Deserialize, Serialize};

/// Who called, and how the call is recognised when it is repeated. The record's header has the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Caller {
    /// Client address; IPv4 mapped into IPv6.
    pub addr: [u8; 16],
    /// Client port.
    pub port: u16,
    /// RPC transaction id.
    pub xid: u32,
    /// CRC-32 of the call's procedure number and arguments.
    pub call_sum: u32,
    /// Caller's user id, after squashing.
    pub uid: u32,
    /// Caller's group id, after squashing.
    pub gid: u32,
}

/// `len` bytes of bulk data written at `offset`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Write {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// The file.
    pub node: NodeId,
    /// Byte offset.
    pub offset: u64,
    /// Byte count; equals the bulk length.
    pub len: u32,
    /// Mode afterwards, when set-id bits were cleared.
    pub mode: Option<u32>,
    /// Who.
    pub caller: Caller,
}

/// Attributes set to explicit values.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SetAttr {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// The node.
    pub node: NodeId,
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: truncates or extends.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Time>,
    /// Modification time; when `size` is set and this is not, the record's time.
    pub mtime: Option<Time>,
    /// Who.
    pub caller: Caller,
}

/// What an operation makes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum What {
    /// Regular, empty file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink {
        /// Its text, any bytes.
        target: Vec<u8>,
    },
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl What {
    /// The kind of node this makes.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            What::File => Kind::File,
            What::Dir => Kind::Dir,
            What::Symlink { .. } => Kind::Symlink,
            What::Fifo => Kind::Fifo,
            What::Socket => Kind::Socket,
            What::Char { .. } => Kind::Char,
            What::Block { .. } => Kind::Block,
        }
    }
}

/// A new object under a new name.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Make {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// Parent directory.
    pub dir: NodeId,
    /// Name in it.
    pub name: Vec<u8>,
    /// The new node.
    pub node: NodeId,
    /// What it is.
    pub what: What,
    /// Permission bits (07777), as they result.
    pub mode: u32,
    /// Owner, as it results.
    pub uid: u32,
    /// Group, as it results.
    pub gid: u32,
    /// Initial size (a CREATE may ask for one).
    pub size: u64,
    /// Access time, when not the record's.
    pub atime: Option<Time>,
    /// Modification time, when not the record's.
    pub mtime: Option<Time>,
    /// Verifier of an exclusive CREATE.
    pub verifier: Option<[u8; 8]>,
    /// Who.
    pub caller: Caller,
}

/// A name taken away.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Remove {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// Parent directory.
    pub dir: NodeId,
    /// Name in it.
    pub name: Vec<u8>,
    /// What the name led to.
    pub node: NodeId,
    /// Its kind; `Dir` means RMDIR.
    pub kind: Kind,
    /// This was the node's last name: the node is gone.
    pub last: bool,
    /// Who.
    pub caller: Caller,
}

/// A name moved, perhaps over another.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Rename {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// Old parent.
    pub from_dir: NodeId,
    /// Old name.
    pub from_name: Vec<u8>,
    /// New parent.
    pub to_dir: NodeId,
    /// New name.
    pub to_name: Vec<u8>,
    /// What is renamed.
    pub node: NodeId,
    /// Its kind.
    pub kind: Kind,
    /// What the new name led to before, if anything.
    pub replaced: Option<Replaced>,
    /// Who.
    pub caller: Caller,
}

/// What a RENAME put itself in the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Replaced {
    /// The node whose name was taken.
    pub node: NodeId,
    /// Its kind.
    pub kind: Kind,
    /// That was its last name.
    pub last: bool,
}

/// A further name for a node that is not a directory.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Link {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// The node.
    pub node: NodeId,
    /// Its kind.
    pub kind: Kind,
    /// Parent of the new name.
    pub dir: NodeId,
    /// The new name.
    pub name: Vec<u8>,
    /// Who.
    pub caller: Caller,
}

/// Objects that were on the primary before tain saw them get their node ids. One event a page.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Adopt {
    /// The junction.
    pub junction: JunctionId,
    /// Its primary at this LSN.
    pub location: LocationId,
    /// The directory they are in.
    pub dir: NodeId,
    /// They; at most [`Adopt::ENTRIES_MAX`].
    pub entries: Vec<Adopted>,
    /// With this page every name in the directory is known: the index answers for it from here on.
    pub complete: bool,
}

impl Adopt {
    /// Most entries one event carries.
    pub const ENTRIES_MAX: usize = 1024;
}

/// One adopted name.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Adopted {
    /// Name in the directory.
    pub name: Vec<u8>,
    /// Its node: new, or known already by another name (a hard link).
    pub node: NodeId,
    /// Its kind.
    pub kind: Kind,
    /// The filer's name for it.
    pub identity: Identity,
    /// Modification time on the filer then.
    pub mtime: Time,
    /// Change time on the filer then.
    pub ctime: Time,
}

/// The operation recorded at `op` had no effect: provably unchanged.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Failed {
    /// LSN of the first byte of the operation's record.
    pub op: Lsn,
    /// The nfsstat3 that the client was answered.
    pub status: u32,
}

/// The operation recorded at `op` had part of its effect.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Partial {
    /// LSN of the first byte of the operation's record.
    pub op: Lsn,
    /// What was done of it.
    pub done: PartDone,
    /// The nfsstat3 for what was not.
    pub status: u32,
}

/// How far an operation came.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PartDone {
    /// The first so many bytes of a write.
    Bytes(u32),
    /// These attributes of a SETATTR.
    Attrs {
        /// mode was set.
        mode: bool,
        /// owner and group were set.
        owner: bool,
        /// size was set.
        size: bool,
        /// times were set.
        times: bool,
    },
}

/// Objects created on a location, with the filer's names for them.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Made {
    /// Where.
    pub location: LocationId,
    /// Node and identity.
    pub objects: Vec<(NodeId, Identity)>,
}
