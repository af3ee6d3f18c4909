//! MOUNT version 3 (RFC 1813, appendix I).

use super::handle::Fh;
use super::xdr::{Malformed, Reader, Result, STRING_MAX, Wire, Writer, message};
use bytes::Bytes;

pub const PROGRAM: u32 = 100_005;
pub const VERSION: u32 = 3;
/// MNTPATHLEN: longer paths are answered with NAMETOOLONG.
pub const PATH_MAX: usize = 1024;

/// mountstat3; the numbers are those of nfsstat3 where both have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MountStat {
    Perm = 1,
    NoEnt = 2,
    Io = 5,
    Access = 13,
    NotDir = 20,
    Inval = 22,
    NameTooLong = 63,
    NotSupp = 10004,
    ServerFault = 10006,
}

/// dirpath and name: any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Bytes);

impl Wire for Text {
    fn put(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        r.opaque(STRING_MAX).map(Self)
    }
}

/// A call's procedure and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Args {
    Null,
    Mnt(Text),
    Dump,
    Umnt(Text),
    UmntAll,
    Export,
}

impl Args {
    /// `None`: there is no such procedure.
    #[must_use]
    pub fn decode(procedure: u32, r: &mut Reader) -> Option<Result<Self>> {
        Some(match procedure {
            0 => Ok(Args::Null),
            1 => r.get().map(Args::Mnt),
            2 => Ok(Args::Dump),
            3 => r.get().map(Args::Umnt),
            4 => Ok(Args::UmntAll),
            5 => Ok(Args::Export),
            _ => return None,
        })
    }

    #[must_use]
    pub const fn procedure(&self) -> u32 {
        match self {
            Args::Null => 0,
            Args::Mnt(_) => 1,
            Args::Dump => 2,
            Args::Umnt(_) => 3,
            Args::UmntAll => 4,
            Args::Export => 5,
        }
    }

    pub fn put(&self, w: &mut Writer) {
        if let Args::Mnt(path) | Args::Umnt(path) = self {
            w.put(path);
        }
    }
}

/// Result of MNT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The handle, and the flavours of credentials that are accepted.
    Ok(Fh, Vec<u32>),
    Refused(MountStat),
}

/// Most flavours a client of ours takes from a reply.
const FLAVOURS_MAX: u32 = 64;

impl Wire for Mounted {
    fn put(&self, w: &mut Writer) {
        match self {
            Mounted::Ok(fh, flavours) => {
                w.u32(0);
                w.put(fh).len(flavours.len());
                flavours.iter().for_each(|flavour| w.u32(*flavour));
            }
            Mounted::Refused(stat) => w.u32(*stat as u32),
        }
    }

    fn get(r: &mut Reader) -> Result<Self> {
        use MountStat as S;
        let refused =
            [S::Perm, S::NoEnt, S::Io, S::Access, S::NotDir, S::Inval, S::NameTooLong, S::NotSupp, S::ServerFault];
        match r.u32()? {
            0 => {
                let (fh, count) = (r.get()?, r.u32()?);
                if count > FLAVOURS_MAX {
                    return Err(Malformed);
                }
                Ok(Mounted::Ok(fh, (0..count).map(|_| r.u32()).collect::<Result<_>>()?))
            }
            stat => refused.into_iter().find(|s| *s as u32 == stat).map(Mounted::Refused).ok_or(Malformed),
        }
    }
}

message! {
    /// One line of DUMP.
    pub struct MountEntry { host: Text, path: Text }
    /// One line of EXPORT; the list of groups is always empty.
    pub struct ExportEntry { path: Text, groups: Option<Empty> }
}

/// A list element that never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {}

impl Wire for Empty {
    fn put(&self, _w: &mut Writer) {
        match *self {}
    }
    fn get(_r: &mut Reader) -> Result<Self> {
        Err(Malformed)
    }
}

/// A linked list, as XDR has them: each element behind a `true`, a `false` at the end.
pub fn put_list<T: Wire>(w: &mut Writer, items: &[T]) {
    for item in items {
        w.put(&true).put(item);
    }
    w.put(&false);
}

/// Reads a linked list of at most `max` elements.
pub fn get_list<T: Wire>(r: &mut Reader, max: usize) -> Result<Vec<T>> {
    let mut items = Vec::new();
    while r.get::<bool>()? {
        if items.len() == max {
            return Err(Malformed);
        }
        items.push(r.get()?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(put: impl FnOnce(&mut Writer)) -> Bytes {
        let mut w = Writer::default();
        put(&mut w);
        Bytes::from(w.finish().to_vec()).slice(4..)
    }

    #[test]
    fn every_procedure_comes_back_as_it_was_and_no_cut_one_is_taken() {
        let path = || Text(Bytes::from_static(b"/a/b"));
        for args in [Args::Null, Args::Mnt(path()), Args::Dump, Args::Umnt(path()), Args::UmntAll, Args::Export] {
            let wire = bytes(|w| args.put(w));
            let back = Args::decode(args.procedure(), &mut Reader::new(wire.clone())).unwrap();
            assert_eq!(back.as_ref(), Ok(&args));
            for cut in 0..wire.len() {
                let cut = Args::decode(args.procedure(), &mut Reader::new(wire.slice(..cut))).unwrap();
                assert_eq!(cut, Err(Malformed));
            }
        }
        assert!(Args::decode(6, &mut Reader::new(Bytes::new())).is_none());
    }

    #[test]
    fn results_come_back_as_they_were() {
        for result in [
            Mounted::Ok(Fh(Bytes::from_static(b"handle")), vec![1]),
            Mounted::Refused(MountStat::Access),
            Mounted::Refused(MountStat::NoEnt),
        ] {
            let wire = bytes(|w| result.put(w));
            assert_eq!(Mounted::get(&mut Reader::new(wire)), Ok(result));
        }
        let list = [ExportEntry { path: Text(Bytes::from_static(b"/")), groups: None }];
        let wire = bytes(|w| put_list(w, &list));
        let back: Vec<ExportEntry> = get_list(&mut Reader::new(wire.clone()), 9).unwrap();
        assert_eq!(back[0].path, list[0].path);
        assert!(get_list::<ExportEntry>(&mut Reader::new(wire), 0).is_err());
    }
}
