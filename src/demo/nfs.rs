//! NFSv3 and MOUNT (RFC 1813) as the demo's client speaks them: a call as an enum, a reply as one flat struct.

use super::Error;
use super::xdr::{Decoder, Encoder};
use bytes::Bytes;

pub const NFS_PROGRAM: u32 = 100_003;
pub const MOUNT_PROGRAM: u32 = 100_005;
pub const VERSION: u32 = 3;

/// nfsstat3, as a number: the client must not choke on one it does not know.
pub mod status {
    pub const OK: u32 = 0;
    pub const PERM: u32 = 1;
    pub const NOENT: u32 = 2;
    pub const IO: u32 = 5;
    pub const ACCES: u32 = 13;
    pub const EXIST: u32 = 17;
    pub const XDEV: u32 = 18;
    pub const NOTDIR: u32 = 20;
    pub const ISDIR: u32 = 21;
    pub const INVAL: u32 = 22;
    pub const FBIG: u32 = 27;
    pub const NOSPC: u32 = 28;
    pub const ROFS: u32 = 30;
    pub const MLINK: u32 = 31;
    pub const NAMETOOLONG: u32 = 63;
    pub const NOTEMPTY: u32 = 66;
    pub const STALE: u32 = 70;
    pub const BADHANDLE: u32 = 10001;
    pub const NOT_SYNC: u32 = 10002;
    pub const BAD_COOKIE: u32 = 10003;
    pub const NOTSUPP: u32 = 10004;
    pub const TOOSMALL: u32 = 10005;
    pub const SERVERFAULT: u32 = 10006;
    pub const BADTYPE: u32 = 10007;
    pub const JUKEBOX: u32 = 10008;
}

/// A file handle: opaque.
pub type Fh = Bytes;

/// Nanoseconds since 1970.
pub type Nanos = i64;

/// ftype3, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    File = 1,
    Dir = 2,
    Block = 3,
    Char = 4,
    Symlink = 5,
    Socket = 6,
    Fifo = 7,
}

impl Kind {
    fn from_wire(n: u32) -> Result<Self, Error> {
        Ok(match n {
            1 => Kind::File,
            2 => Kind::Dir,
            3 => Kind::Block,
            4 => Kind::Char,
            5 => Kind::Symlink,
            6 => Kind::Socket,
            7 => Kind::Fifo,
            n => return Err(Error::Wire(format!("file type {n}"))),
        })
    }
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
    pub atime: Nanos,
    pub mtime: Nanos,
    pub ctime: Nanos,
}

/// wcc_attr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreAttr {
    pub size: u64,
    pub mtime: Nanos,
    pub ctime: Nanos,
}

/// wcc_data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wcc {
    pub before: Option<PreAttr>,
    pub after: Option<Attr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    #[default]
    Keep,
    Server,
    Client(Nanos),
}

/// sattr3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttrs {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

impl SetAttrs {
    pub fn mode(mode: u32) -> Self {
        Self { mode: Some(mode), ..Self::default() }
    }

    pub fn size(size: u64) -> Self {
        Self { size: Some(size), ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum How {
    Unchecked(SetAttrs),
    Guarded(SetAttrs),
    Exclusive([u8; 8]),
}

/// A call of one of the 22 procedures.
#[derive(Clone, Debug)]
pub enum Call {
    Null,
    GetAttr {
        node: Fh,
    },
    SetAttr {
        node: Fh,
        attrs: SetAttrs,
        guard: Option<Nanos>,
    },
    Lookup {
        dir: Fh,
        name: Bytes,
    },
    Access {
        node: Fh,
        mask: u32,
    },
    ReadLink {
        node: Fh,
    },
    Read {
        node: Fh,
        offset: u64,
        count: u32,
    },
    Write {
        node: Fh,
        offset: u64,
        stable: u32,
        data: Bytes,
    },
    Create {
        dir: Fh,
        name: Bytes,
        how: How,
    },
    MkDir {
        dir: Fh,
        name: Bytes,
        attrs: SetAttrs,
    },
    Symlink {
        dir: Fh,
        name: Bytes,
        attrs: SetAttrs,
        target: Bytes,
    },
    /// `dev` is sent for character and block devices only.
    MkNod {
        dir: Fh,
        name: Bytes,
        kind: Kind,
        attrs: SetAttrs,
        dev: (u32, u32),
    },
    Remove {
        dir: Fh,
        name: Bytes,
    },
    RmDir {
        dir: Fh,
        name: Bytes,
    },
    Rename {
        from: Fh,
        name: Bytes,
        to: Fh,
        new: Bytes,
    },
    Link {
        node: Fh,
        dir: Fh,
        name: Bytes,
    },
    ReadDir {
        dir: Fh,
        cookie: u64,
        verf: [u8; 8],
        count: u32,
    },
    ReadDirPlus {
        dir: Fh,
        cookie: u64,
        verf: [u8; 8],
        dircount: u32,
        maxcount: u32,
    },
    FsStat {
        node: Fh,
    },
    FsInfo {
        node: Fh,
    },
    PathConf {
        node: Fh,
    },
    Commit {
        node: Fh,
        offset: u64,
        count: u32,
    },
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Bytes,
    pub fileid: u64,
    pub cookie: u64,
    pub attr: Option<Attr>,
    pub fh: Option<Fh>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStat {
    pub bytes: [u64; 3],
    pub files: [u64; 3],
    pub invarsec: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsInfo {
    pub rtmax: u32,
    pub rtpref: u32,
    pub rtmult: u32,
    pub wtmax: u32,
    pub wtpref: u32,
    pub wtmult: u32,
    pub dtpref: u32,
    pub maxfilesize: u64,
    pub time_delta: Nanos,
    pub properties: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathConf {
    pub linkmax: u32,
    pub name_max: u32,
    pub no_trunc: bool,
    pub chown_restricted: bool,
    pub case_insensitive: bool,
    pub case_preserving: bool,
}

/// Every field that any procedure answers; the ones a procedure does not have stay empty.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub xid: u32,
    /// Of the same call, sent before, and answered with JUKEBOX: the service may have kept it under one of these.
    pub earlier: Vec<u32>,
    pub status: u32,
    /// The object: GETATTR, LOOKUP, CREATE, READ, LINK …
    pub attr: Option<Attr>,
    pub fh: Option<Fh>,
    /// The directory, or for SETATTR, WRITE and COMMIT the object itself. LOOKUP and READDIR fill only `after`.
    pub wcc: Wcc,
    /// RENAME's second directory.
    pub wcc2: Wcc,
    /// READ's bytes, READLINK's text.
    pub data: Bytes,
    pub count: u32,
    pub eof: bool,
    pub committed: u32,
    pub verf: [u8; 8],
    pub access: u32,
    pub entries: Vec<Entry>,
    pub fsstat: FsStat,
    pub fsinfo: FsInfo,
    pub pathconf: PathConf,
}

impl Reply {
    pub fn ok(&self) -> bool {
        self.status == status::OK
    }
}

impl Call {
    pub fn number(&self) -> u32 {
        match self {
            Call::Null => 0,
            Call::GetAttr { .. } => 1,
            Call::SetAttr { .. } => 2,
            Call::Lookup { .. } => 3,
            Call::Access { .. } => 4,
            Call::ReadLink { .. } => 5,
            Call::Read { .. } => 6,
            Call::Write { .. } => 7,
            Call::Create { .. } => 8,
            Call::MkDir { .. } => 9,
            Call::Symlink { .. } => 10,
            Call::MkNod { .. } => 11,
            Call::Remove { .. } => 12,
            Call::RmDir { .. } => 13,
            Call::Rename { .. } => 14,
            Call::Link { .. } => 15,
            Call::ReadDir { .. } => 16,
            Call::ReadDirPlus { .. } => 17,
            Call::FsStat { .. } => 18,
            Call::FsInfo { .. } => 19,
            Call::PathConf { .. } => 20,
            Call::Commit { .. } => 21,
        }
    }

    /// The arguments.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        match self {
            Call::Null => {}
            Call::GetAttr { node }
            | Call::ReadLink { node }
            | Call::FsStat { node }
            | Call::FsInfo { node }
            | Call::PathConf { node } => {
                e.opaque(node);
            }
            Call::SetAttr { node, attrs, guard } => {
                e.opaque(node);
                put_sattr(&mut e, attrs);
                e.bool(guard.is_some());
                if let Some(t) = guard {
                    put_time(&mut e, *t);
                }
            }
            Call::Lookup { dir, name } | Call::Remove { dir, name } | Call::RmDir { dir, name } => {
                e.opaque(dir).opaque(name);
            }
            Call::Access { node, mask } => {
                e.opaque(node).u32(*mask);
            }
            Call::Read { node, offset, count } | Call::Commit { node, offset, count } => {
                e.opaque(node).u64(*offset).u32(*count);
            }
            Call::Write { node, offset, stable, data } => {
                let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
                e.opaque(node).u64(*offset).u32(count).u32(*stable).opaque(data);
            }
            Call::Create { dir, name, how } => {
                e.opaque(dir).opaque(name);
                match how {
                    How::Unchecked(attrs) => put_sattr(e.u32(0), attrs),
                    How::Guarded(attrs) => put_sattr(e.u32(1), attrs),
                    How::Exclusive(verf) => {
                        e.u32(2).fixed(verf);
                    }
                }
            }
            Call::MkDir { dir, name, attrs } => put_sattr(e.opaque(dir).opaque(name), attrs),
            Call::Symlink { dir, name, attrs, target } => {
                put_sattr(e.opaque(dir).opaque(name), attrs);
                e.opaque(target);
            }
            Call::MkNod { dir, name, kind, attrs, dev } => {
                e.opaque(dir).opaque(name).u32(*kind as u32);
                match kind {
                    Kind::Char | Kind::Block => {
                        put_sattr(&mut e, attrs);
                        e.u32(dev.0).u32(dev.1);
                    }
                    Kind::Socket | Kind::Fifo => put_sattr(&mut e, attrs),
                    Kind::File | Kind::Dir | Kind::Symlink => {}
                }
            }
            Call::Rename { from, name, to, new } => {
                e.opaque(from).opaque(name).opaque(to).opaque(new);
            }
            Call::Link { node, dir, name } => {
                e.opaque(node).opaque(dir).opaque(name);
            }
            Call::ReadDir { dir, cookie, verf, count } => {
                e.opaque(dir).u64(*cookie).fixed(verf).u32(*count);
            }
            Call::ReadDirPlus { dir, cookie, verf, dircount, maxcount } => {
                e.opaque(dir).u64(*cookie).fixed(verf).u32(*dircount).u32(*maxcount);
            }
        }
        e.finish()
    }

    /// A reply's results. Nothing may be missing, nothing left over.
    pub fn decode(&self, xid: u32, body: Bytes) -> Result<Reply, Error> {
        let mut r = Reply { xid, ..Reply::default() };
        let mut d = Decoder::new(body);
        if !matches!(self, Call::Null) {
            r.status = d.u32()?;
            self.decode_body(&mut d, &mut r)?;
        }
        d.end()?;
        Ok(r)
    }

    fn decode_body(&self, d: &mut Decoder, r: &mut Reply) -> Result<(), Error> {
        let ok = r.ok();
        match self {
            Call::Null => {}
            Call::GetAttr { .. } => {
                if ok {
                    r.attr = Some(attr(d)?);
                }
            }
            Call::SetAttr { .. } | Call::Remove { .. } | Call::RmDir { .. } => r.wcc = wcc(d)?,
            Call::Lookup { .. } => {
                if ok {
                    r.fh = Some(d.opaque()?);
                    r.attr = opt_attr(d)?;
                }
                r.wcc.after = opt_attr(d)?;
            }
            Call::Access { .. } => {
                r.attr = opt_attr(d)?;
                if ok {
                    r.access = d.u32()?;
                }
            }
            Call::ReadLink { .. } => {
                r.attr = opt_attr(d)?;
                if ok {
                    r.data = d.opaque()?;
                }
            }
            Call::Read { .. } => {
                r.attr = opt_attr(d)?;
                if ok {
                    r.count = d.u32()?;
                    r.eof = d.bool()?;
                    r.data = d.opaque()?;
                }
            }
            Call::Write { .. } => {
                r.wcc = wcc(d)?;
                if ok {
                    r.count = d.u32()?;
                    r.committed = d.u32()?;
                    r.verf = d.fixed()?;
                }
            }
            Call::Create { .. } | Call::MkDir { .. } | Call::Symlink { .. } | Call::MkNod { .. } => {
                if ok {
                    r.fh = if d.bool()? { Some(d.opaque()?) } else { None };
                    r.attr = opt_attr(d)?;
                }
                r.wcc = wcc(d)?;
            }
            Call::Rename { .. } => {
                r.wcc = wcc(d)?;
                r.wcc2 = wcc(d)?;
            }
            Call::Link { .. } => {
                r.attr = opt_attr(d)?;
                r.wcc = wcc(d)?;
            }
            Call::ReadDir { .. } | Call::ReadDirPlus { .. } => {
                r.wcc.after = opt_attr(d)?;
                if ok {
                    self.decode_listing(d, r)?;
                }
            }
            Call::FsStat { .. } => {
                r.attr = opt_attr(d)?;
                if ok {
                    r.fsstat.bytes = [d.u64()?, d.u64()?, d.u64()?];
                    r.fsstat.files = [d.u64()?, d.u64()?, d.u64()?];
                    r.fsstat.invarsec = d.u32()?;
                }
            }
            Call::FsInfo { .. } => {
                r.attr = opt_attr(d)?;
                if ok {
                    r.fsinfo = fsinfo(d)?;
                }
            }
            Call::PathConf { .. } => {
                r.attr = opt_attr(d)?;
                if ok {
                    r.pathconf = PathConf {
                        linkmax: d.u32()?,
                        name_max: d.u32()?,
                        no_trunc: d.bool()?,
                        chown_restricted: d.bool()?,
                        case_insensitive: d.bool()?,
                        case_preserving: d.bool()?,
                    };
                }
            }
            Call::Commit { .. } => {
                r.wcc = wcc(d)?;
                if ok {
                    r.verf = d.fixed()?;
                }
            }
        }
        Ok(())
    }

    fn decode_listing(&self, d: &mut Decoder, r: &mut Reply) -> Result<(), Error> {
        let plus = matches!(self, Call::ReadDirPlus { .. });
        r.verf = d.fixed()?;
        while d.bool()? {
            let (fileid, name, cookie) = (d.u64()?, d.opaque()?, d.u64()?);
            let (attr, fh) = if plus {
                let a = opt_attr(d)?;
                (a, if d.bool()? { Some(d.opaque()?) } else { None })
            } else {
                (None, None)
            };
            r.entries.push(Entry { name, fileid, cookie, attr, fh });
        }
        r.eof = d.bool()?;
        Ok(())
    }
}

fn put_time(e: &mut Encoder, t: Nanos) {
    let (secs, nanos) = (t.div_euclid(1_000_000_000), t.rem_euclid(1_000_000_000));
    e.u32(u32::try_from(secs).unwrap_or(0)).u32(u32::try_from(nanos).unwrap_or(0));
}

fn time(d: &mut Decoder) -> Result<Nanos, Error> {
    Ok(i64::from(d.u32()?) * 1_000_000_000 + i64::from(d.u32()?))
}

fn put_sattr(e: &mut Encoder, a: &SetAttrs) {
    e.opt_u32(a.mode).opt_u32(a.uid).opt_u32(a.gid).opt_u64(a.size);
    for t in [a.atime, a.mtime] {
        match t {
            SetTime::Keep => {
                e.u32(0);
            }
            SetTime::Server => {
                e.u32(1);
            }
            SetTime::Client(t) => put_time(e.u32(2), t),
        }
    }
}

fn attr(d: &mut Decoder) -> Result<Attr, Error> {
    Ok(Attr {
        kind: Kind::from_wire(d.u32()?)?,
        mode: d.u32()?,
        nlink: d.u32()?,
        uid: d.u32()?,
        gid: d.u32()?,
        size: d.u64()?,
        used: d.u64()?,
        rdev: (d.u32()?, d.u32()?),
        fsid: d.u64()?,
        fileid: d.u64()?,
        atime: time(d)?,
        mtime: time(d)?,
        ctime: time(d)?,
    })
}

fn opt_attr(d: &mut Decoder) -> Result<Option<Attr>, Error> {
    if d.bool()? { Ok(Some(attr(d)?)) } else { Ok(None) }
}

fn wcc(d: &mut Decoder) -> Result<Wcc, Error> {
    let before = if d.bool()? { Some(PreAttr { size: d.u64()?, mtime: time(d)?, ctime: time(d)? }) } else { None };
    Ok(Wcc { before, after: opt_attr(d)? })
}

fn fsinfo(d: &mut Decoder) -> Result<FsInfo, Error> {
    Ok(FsInfo {
        rtmax: d.u32()?,
        rtpref: d.u32()?,
        rtmult: d.u32()?,
        wtmax: d.u32()?,
        wtpref: d.u32()?,
        wtmult: d.u32()?,
        dtpref: d.u32()?,
        maxfilesize: d.u64()?,
        time_delta: time(d)?,
        properties: d.u32()?,
    })
}
