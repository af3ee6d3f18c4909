//! Arguments. [`Args::decode`] is total: every procedure, every input.

use super::procedure as p;
use crate::wire::handle::Fh;
use crate::wire::record::RECORD_MAX;
use crate::wire::xdr::{Malformed, Reader, Result, STRING_MAX, Wire, Writer, message};
use bytes::Bytes;
use nfsserve::nfs::{nfstime3, sattr3, specdata3};

/// filename3 and nfspath3: any bytes; what a name may be is decided above, with an NFS error of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub Bytes);

impl Wire for Name {
    fn put(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        r.opaque(STRING_MAX).map(Self)
    }
}

/// Data of a WRITE or READ: a slice of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data(pub Bytes);

impl Wire for Data {
    /// Data ends its message: it is not copied.
    fn put(&self, w: &mut Writer) {
        w.opaque_last(self.0.clone());
    }
    fn get(r: &mut Reader) -> Result<Self> {
        r.opaque(RECORD_MAX).map(Self)
    }
}

/// stable_how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stable {
    Unstable = 0,
    DataSync = 1,
    FileSync = 2,
}

impl Wire for Stable {
    fn put(&self, w: &mut Writer) {
        w.u32(*self as u32);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        match r.u32()? {
            0 => Ok(Stable::Unstable),
            1 => Ok(Stable::DataSync),
            2 => Ok(Stable::FileSync),
            _ => Err(Malformed),
        }
    }
}

/// createhow3.
#[derive(Clone, Copy, Debug)]
pub enum CreateHow3 {
    Unchecked(sattr3),
    Guarded(sattr3),
    Exclusive([u8; 8]),
}

impl Wire for CreateHow3 {
    fn put(&self, w: &mut Writer) {
        match self {
            CreateHow3::Unchecked(attrs) => w.put(&0u32).put(attrs),
            CreateHow3::Guarded(attrs) => w.put(&1u32).put(attrs),
            CreateHow3::Exclusive(verifier) => w.put(&2u32).put(verifier),
        };
    }
    fn get(r: &mut Reader) -> Result<Self> {
        match r.u32()? {
            0 => r.get().map(CreateHow3::Unchecked),
            1 => r.get().map(CreateHow3::Guarded),
            2 => r.get().map(CreateHow3::Exclusive),
            _ => Err(Malformed),
        }
    }
}

/// mknoddata3.
#[derive(Clone, Copy, Debug)]
pub enum MknodData {
    Block(sattr3, specdata3),
    Char(sattr3, specdata3),
    Socket(sattr3),
    Fifo(sattr3),
    /// A type that MKNOD does not make: BADTYPE.
    Other(u32),
}

impl Wire for MknodData {
    fn put(&self, w: &mut Writer) {
        match self {
            MknodData::Block(attrs, device) => w.put(&3u32).put(attrs).put(device),
            MknodData::Char(attrs, device) => w.put(&4u32).put(attrs).put(device),
            MknodData::Socket(attrs) => w.put(&6u32).put(attrs),
            MknodData::Fifo(attrs) => w.put(&7u32).put(attrs),
            MknodData::Other(kind) => w.put(kind),
        };
    }
    fn get(r: &mut Reader) -> Result<Self> {
        match r.u32()? {
            3 => Ok(MknodData::Block(r.get()?, r.get()?)),
            4 => Ok(MknodData::Char(r.get()?, r.get()?)),
            6 => r.get().map(MknodData::Socket),
            7 => r.get().map(MknodData::Fifo),
            kind @ (1 | 2 | 5) => Ok(MknodData::Other(kind)),
            _ => Err(Malformed),
        }
    }
}

message! {
    /// diropargs3.
    pub struct DirOp { dir: Fh, name: Name }
    /// SETATTR3args.
    pub struct SetAttrArgs { object: Fh, attrs: sattr3, guard: Option<nfstime3> }
    /// ACCESS3args.
    pub struct AccessArgs { object: Fh, access: u32 }
    /// READ3args.
    pub struct ReadArgs { file: Fh, offset: u64, count: u32 }
    /// WRITE3args.
    pub struct WriteArgs { file: Fh, offset: u64, count: u32, stable: Stable, data: Data }
    /// CREATE3args.
    pub struct CreateArgs { at: DirOp, how: CreateHow3 }
    /// MKDIR3args.
    pub struct MkdirArgs { at: DirOp, attrs: sattr3 }
    /// SYMLINK3args.
    pub struct SymlinkArgs { at: DirOp, attrs: sattr3, target: Name }
    /// MKNOD3args.
    pub struct MknodArgs { at: DirOp, what: MknodData }
    /// RENAME3args.
    pub struct RenameArgs { from: DirOp, to: DirOp }
    /// LINK3args.
    pub struct LinkArgs { file: Fh, at: DirOp }
    /// READDIR3args.
    pub struct ReaddirArgs { dir: Fh, cookie: u64, verifier: u64, count: u32 }
    /// READDIRPLUS3args.
    pub struct ReaddirPlusArgs { dir: Fh, cookie: u64, verifier: u64, dircount: u32, maxcount: u32 }
    /// COMMIT3args.
    pub struct CommitArgs { file: Fh, offset: u64, count: u32 }
}

/// A call's procedure and arguments.
#[derive(Clone, Debug)]
pub enum Args {
    Null,
    GetAttr(Fh),
    SetAttr(SetAttrArgs),
    Lookup(DirOp),
    Access(AccessArgs),
    Readlink(Fh),
    Read(ReadArgs),
    Write(WriteArgs),
    Create(CreateArgs),
    Mkdir(MkdirArgs),
    Symlink(SymlinkArgs),
    Mknod(MknodArgs),
    Remove(DirOp),
    Rmdir(DirOp),
    Rename(RenameArgs),
    Link(LinkArgs),
    Readdir(ReaddirArgs),
    ReaddirPlus(ReaddirPlusArgs),
    FsStat(Fh),
    FsInfo(Fh),
    PathConf(Fh),
    Commit(CommitArgs),
}

impl Args {
    /// `None`: there is no such procedure.
    #[must_use]
    pub fn decode(procedure: u32, r: &mut Reader) -> Option<Result<Self>> {
        Some(match procedure {
            p::NULL => Ok(Args::Null),
            p::GETATTR => r.get().map(Args::GetAttr),
            p::SETATTR => r.get().map(Args::SetAttr),
            p::LOOKUP => r.get().map(Args::Lookup),
            p::ACCESS => r.get().map(Args::Access),
            p::READLINK => r.get().map(Args::Readlink),
            p::READ => r.get().map(Args::Read),
            p::WRITE => r.get().and_then(counted).map(Args::Write),
            p::CREATE => r.get().map(Args::Create),
            p::MKDIR => r.get().map(Args::Mkdir),
            p::SYMLINK => r.get().map(Args::Symlink),
            p::MKNOD => r.get().map(Args::Mknod),
            p::REMOVE => r.get().map(Args::Remove),
            p::RMDIR => r.get().map(Args::Rmdir),
            p::RENAME => r.get().map(Args::Rename),
            p::LINK => r.get().map(Args::Link),
            p::READDIR => r.get().map(Args::Readdir),
            p::READDIRPLUS => r.get().map(Args::ReaddirPlus),
            p::FSSTAT => r.get().map(Args::FsStat),
            p::FSINFO => r.get().map(Args::FsInfo),
            p::PATHCONF => r.get().map(Args::PathConf),
            p::COMMIT => r.get().map(Args::Commit),
            _ => return None,
        })
    }

    #[must_use]
    pub const fn procedure(&self) -> u32 {
        match self {
            Args::Null => p::NULL,
            Args::GetAttr(_) => p::GETATTR,
            Args::SetAttr(_) => p::SETATTR,
            Args::Lookup(_) => p::LOOKUP,
            Args::Access(_) => p::ACCESS,
            Args::Readlink(_) => p::READLINK,
            Args::Read(_) => p::READ,
            Args::Write(_) => p::WRITE,
            Args::Create(_) => p::CREATE,
            Args::Mkdir(_) => p::MKDIR,
            Args::Symlink(_) => p::SYMLINK,
            Args::Mknod(_) => p::MKNOD,
            Args::Remove(_) => p::REMOVE,
            Args::Rmdir(_) => p::RMDIR,
            Args::Rename(_) => p::RENAME,
            Args::Link(_) => p::LINK,
            Args::Readdir(_) => p::READDIR,
            Args::ReaddirPlus(_) => p::READDIRPLUS,
            Args::FsStat(_) => p::FSSTAT,
            Args::FsInfo(_) => p::FSINFO,
            Args::PathConf(_) => p::PATHCONF,
            Args::Commit(_) => p::COMMIT,
        }
    }

    /// The arguments as a client sends them.
    pub fn put(&self, w: &mut Writer) {
        match self {
            Args::Null => w,
            Args::GetAttr(a) | Args::Readlink(a) | Args::FsStat(a) | Args::FsInfo(a) | Args::PathConf(a) => w.put(a),
            Args::Lookup(a) | Args::Remove(a) | Args::Rmdir(a) => w.put(a),
            Args::SetAttr(a) => w.put(a),
            Args::Access(a) => w.put(a),
            Args::Read(a) => w.put(a),
            Args::Write(a) => w.put(a),
            Args::Create(a) => w.put(a),
            Args::Mkdir(a) => w.put(a),
            Args::Symlink(a) => w.put(a),
            Args::Mknod(a) => w.put(a),
            Args::Rename(a) => w.put(a),
            Args::Link(a) => w.put(a),
            Args::Readdir(a) => w.put(a),
            Args::ReaddirPlus(a) => w.put(a),
            Args::Commit(a) => w.put(a),
        };
    }
}

/// A WRITE says its length twice; when the two differ one of them is a lie.
fn counted(args: WriteArgs) -> Result<WriteArgs> {
    if args.count as usize == args.data.0.len() { Ok(args) } else { Err(Malformed) }
}

/// One of every procedure, for tests here and of the gateway.
#[cfg(test)]
pub(crate) fn samples(dir: &Fh, file: &Fh) -> Vec<Args> {
    use nfsserve::nfs::{set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3};
    let at = |name: &'static [u8]| DirOp { dir: dir.clone(), name: Name(Bytes::from_static(name)) };
    let attrs = sattr3 {
        mode: set_mode3::mode(0o640),
        uid: set_uid3::uid(5),
        gid: set_gid3::Void,
        size: set_size3::size(3),
        atime: set_atime::SET_TO_SERVER_TIME,
        mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 9, nseconds: 8 }),
    };
    let plain = sattr3::default();
    let data = Bytes::from_static(b"hello");
    let device = specdata3 { specdata1: 1, specdata2: 3 };
    vec![
        Args::Null,
        Args::GetAttr(file.clone()),
        Args::SetAttr(SetAttrArgs { object: file.clone(), attrs, guard: None }),
        Args::SetAttr(SetAttrArgs { object: file.clone(), attrs: plain, guard: Some(nfstime3::default()) }),
        Args::Lookup(at(b"file")),
        Args::Access(AccessArgs { object: file.clone(), access: 0x3f }),
        Args::Readlink(file.clone()),
        Args::Read(ReadArgs { file: file.clone(), offset: 1, count: 3 }),
        Args::Write(WriteArgs { file: file.clone(), offset: 0, count: 5, stable: Stable::Unstable, data: Data(data) }),
        Args::Create(CreateArgs { at: at(b"c1"), how: CreateHow3::Unchecked(attrs) }),
        Args::Create(CreateArgs { at: at(b"c2"), how: CreateHow3::Guarded(plain) }),
        Args::Create(CreateArgs { at: at(b"c3"), how: CreateHow3::Exclusive([7; 8]) }),
        Args::Mkdir(MkdirArgs { at: at(b"d"), attrs }),
        Args::Symlink(SymlinkArgs { at: at(b"s"), attrs: plain, target: Name(Bytes::from_static(b"../x")) }),
        Args::Mknod(MknodArgs { at: at(b"n1"), what: MknodData::Fifo(plain) }),
        Args::Mknod(MknodArgs { at: at(b"n2"), what: MknodData::Socket(plain) }),
        Args::Mknod(MknodArgs { at: at(b"n3"), what: MknodData::Char(plain, device) }),
        Args::Mknod(MknodArgs { at: at(b"n4"), what: MknodData::Block(plain, device) }),
        Args::Mknod(MknodArgs { at: at(b"n5"), what: MknodData::Other(1) }),
        Args::Link(LinkArgs { file: file.clone(), at: at(b"hard") }),
        Args::Rename(RenameArgs { from: at(b"c1"), to: at(b"c9") }),
        Args::Remove(at(b"c9")),
        Args::Rmdir(at(b"d")),
        Args::Readdir(ReaddirArgs { dir: dir.clone(), cookie: 0, verifier: 0, count: 4096 }),
        Args::ReaddirPlus(ReaddirPlusArgs { dir: dir.clone(), cookie: 0, verifier: 0, dircount: 1024, maxcount: 4096 }),
        Args::FsStat(dir.clone()),
        Args::FsInfo(dir.clone()),
        Args::PathConf(dir.clone()),
        Args::Commit(CommitArgs { file: file.clone(), offset: 0, count: 0 }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(args: &Args) -> Bytes {
        let mut w = Writer::default();
        args.put(&mut w);
        Bytes::from(w.finish().to_vec()).slice(4..)
    }

    fn all() -> Vec<Args> {
        samples(&Fh(Bytes::from_static(b"directory handle")), &Fh(Bytes::from_static(b"f")))
    }

    #[test]
    fn every_procedure_comes_back_as_it_was() {
        let mut seen = std::collections::BTreeSet::new();
        for args in all() {
            let mut r = Reader::new(wire(&args));
            let back = Args::decode(args.procedure(), &mut r).unwrap().unwrap();
            assert_eq!(format!("{back:?}"), format!("{args:?}"));
            assert!(r.rest().is_empty(), "{args:?}");
            seen.insert(args.procedure());
        }
        assert_eq!(seen.len(), 22);
        assert!(Args::decode(22, &mut Reader::new(Bytes::new())).is_none());
    }

    #[test]
    fn every_call_cut_at_every_byte_is_malformed() {
        let mut cuts = 0;
        for args in all() {
            let whole = wire(&args);
            for cut in 0..whole.len() {
                assert!(Args::decode(args.procedure(), &mut Reader::new(whole.slice(..cut))).unwrap().is_err());
                cuts += 1;
            }
        }
        assert!(cuts > 1000, "only {cuts}");
    }

    #[test]
    fn any_word_replaced_by_a_huge_one_neither_panics_nor_allocates() {
        for args in all() {
            let whole = wire(&args);
            for at in (0..whole.len().saturating_sub(3)).step_by(4) {
                for word in [u32::MAX, u32::MAX - 15, 1 << 30, 65, 3, 0] {
                    let mut bytes = whole.to_vec();
                    bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
                    // Slices of the record are all there can be: what comes out is never longer than what went in.
                    if let Some(Ok(back)) = Args::decode(args.procedure(), &mut Reader::new(bytes.into())) {
                        assert!(wire(&back).len() <= whole.len(), "{back:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_write_whose_two_lengths_differ_is_malformed() {
        let fh = Fh(Bytes::from_static(b"f"));
        let data = Data(Bytes::from_static(b"hello"));
        let args = Args::Write(WriteArgs { file: fh, offset: 0, count: 4, stable: Stable::FileSync, data });
        assert!(Args::decode(7, &mut Reader::new(wire(&args))).unwrap().is_err());
    }

    #[test]
    fn handles_longer_than_64_bytes_are_malformed() {
        let args = Args::GetAttr(Fh(vec![0; 65].into()));
        assert!(Args::decode(1, &mut Reader::new(wire(&args))).unwrap().is_err());
    }
}
