//! Results: `Result<success, (nfsstat3, what a failure carries)>` per procedure.

use super::args::{Data, Name, Stable};
use crate::wire::handle::{Fh, HANDLE_LEN};
use crate::wire::mount::get_list;
use crate::wire::xdr::{Reader, Result, Wire, Writer, message, padded};
use nfsserve::nfs::{fattr3, fsinfo3, nfsstat3, post_op_attr, wcc_data};

/// A result as it stands in a reply.
pub type Res<T, E> = std::result::Result<T, (nfsstat3, E)>;

pub type GetAttrRes = Res<fattr3, ()>;
pub type WccRes = Res<wcc_data, wcc_data>;
pub type LookupRes = Res<LookupOk, post_op_attr>;
pub type AccessRes = Res<AccessOk, post_op_attr>;
pub type ReadlinkRes = Res<ReadlinkOk, post_op_attr>;
pub type ReadRes = Res<ReadOk, post_op_attr>;
pub type WriteRes = Res<WriteOk, wcc_data>;
/// CREATE, MKDIR, SYMLINK, MKNOD.
pub type MakeRes = Res<MakeOk, wcc_data>;
pub type RenameRes = Res<(wcc_data, wcc_data), (wcc_data, wcc_data)>;
pub type LinkRes = Res<(post_op_attr, wcc_data), (post_op_attr, wcc_data)>;
pub type ReaddirRes = Res<ReaddirOk, post_op_attr>;
pub type ReaddirPlusRes = Res<ReaddirPlusOk, post_op_attr>;
pub type FsStatRes = Res<FsStatOk, post_op_attr>;
pub type FsInfoRes = Res<fsinfo3, post_op_attr>;
pub type PathConfRes = Res<PathConfOk, post_op_attr>;
pub type CommitRes = Res<(wcc_data, [u8; 8]), wcc_data>;

message! {
    /// LOOKUP3resok.
    pub struct LookupOk { object: Fh, attr: post_op_attr, dir: post_op_attr }
    /// ACCESS3resok.
    pub struct AccessOk { attr: post_op_attr, access: u32 }
    /// READLINK3resok.
    pub struct ReadlinkOk { attr: post_op_attr, target: Name }
    /// READ3resok.
    pub struct ReadOk { attr: post_op_attr, count: u32, eof: bool, data: Data }
    /// WRITE3resok.
    pub struct WriteOk { wcc: wcc_data, count: u32, committed: Stable, verifier: [u8; 8] }
    /// CREATE3resok and its like.
    pub struct MakeOk { object: Option<Fh>, attr: post_op_attr, dir: wcc_data }
    /// FSSTAT3resok.
    pub struct FsStatOk {
        attr: post_op_attr,
        total_bytes: u64, free_bytes: u64, avail_bytes: u64,
        total_files: u64, free_files: u64, avail_files: u64,
        invarsec: u32,
    }
    /// PATHCONF3resok.
    pub struct PathConfOk {
        attr: post_op_attr,
        linkmax: u32, name_max: u32,
        no_trunc: bool, chown_restricted: bool, case_insensitive: bool, case_preserving: bool,
    }
    /// entry3.
    pub struct Entry { fileid: u64, name: Name, cookie: u64 }
    /// entryplus3.
    pub struct EntryPlus { fileid: u64, name: Name, cookie: u64, attr: post_op_attr, handle: Option<Fh> }
}

/// Most entries a client of ours takes from one reply.
const ENTRIES_MAX: usize = 1 << 17;

/// READDIR3resok.
#[derive(Clone, Debug)]
pub struct ReaddirOk {
    pub dir: post_op_attr,
    pub verifier: u64,
    pub entries: Vec<Entry>,
    pub eof: bool,
}

/// READDIRPLUS3resok.
#[derive(Clone, Debug)]
pub struct ReaddirPlusOk {
    pub dir: post_op_attr,
    pub verifier: u64,
    pub entries: Vec<EntryPlus>,
    pub eof: bool,
}

macro_rules! listing {
    ($t:ident) => {
        impl Wire for $t {
            fn put(&self, w: &mut Writer) {
                w.put(&self.dir).put(&self.verifier);
                crate::wire::mount::put_list(w, &self.entries);
                w.put(&self.eof);
            }
            fn get(r: &mut Reader) -> Result<Self> {
                let (dir, verifier) = (r.get()?, r.get()?);
                Ok(Self { dir, verifier, entries: get_list(r, ENTRIES_MAX)?, eof: r.get()? })
            }
        }
    };
}
listing!(ReaddirOk);
listing!(ReaddirPlusOk);

/// Encoded length of a post_op_attr that has attributes.
const ATTR_LEN: usize = 4 + 84;
/// Verifier, the end of the list, eof.
const LISTING_FIXED: usize = 8 + 4 + 4;
/// The most that [`listing_len`] can be.
pub const LISTING_MAX: usize = ATTR_LEN + LISTING_FIXED;
/// The most that [`plus_len`] can be for a handle of ours.
pub const PLUS_MAX: usize = ATTR_LEN + 4 + 4 + padded(HANDLE_LEN);

/// Encoded length of a post_op_attr.
#[must_use]
pub const fn attr_len(attr: &post_op_attr) -> usize {
    match attr {
        post_op_attr::Void => 4,
        post_op_attr::attributes(_) => ATTR_LEN,
    }
}

/// Encoded length of a listing without entries: attributes, verifier, the end of the list, eof.
#[must_use]
pub const fn listing_len(dir: &post_op_attr) -> usize {
    attr_len(dir) + LISTING_FIXED
}

/// Encoded length of an entry, with the word that says that it follows.
#[must_use]
pub const fn entry_len(name: usize) -> usize {
    4 + 8 + 4 + padded(name) + 8
}

/// Encoded length of what READDIRPLUS adds to an entry.
#[must_use]
pub const fn plus_len(attr: &post_op_attr, handle: Option<usize>) -> usize {
    attr_len(attr)
        + match handle {
            None => 4,
            Some(len) => 4 + 4 + padded(len),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use nfsserve::nfs::{pre_op_attr, wcc_attr};

    fn wire<T: Wire>(value: &T) -> Bytes {
        let mut w = Writer::default();
        w.put(value);
        Bytes::from(w.finish().to_vec()).slice(4..)
    }

    fn round<T: Wire + std::fmt::Debug>(value: T) {
        let bytes = wire(&value);
        let mut r = Reader::new(bytes.clone());
        assert_eq!(format!("{:?}", T::get(&mut r).unwrap()), format!("{value:?}"));
        assert!(r.rest().is_empty());
        for cut in 0..bytes.len() {
            assert!(T::get(&mut Reader::new(bytes.slice(..cut))).is_err(), "{value:?} cut at {cut}");
        }
    }

    const STALE: nfsstat3 = nfsstat3::NFS3ERR_STALE;

    #[test]
    fn results_come_back_as_they_were_and_no_cut_one_is_taken() {
        let attr = || post_op_attr::attributes(fattr3 { size: 9, fileid: 7, ..fattr3::default() });
        let wcc = || wcc_data { before: pre_op_attr::attributes(wcc_attr::default()), after: attr() };
        let fh = || Fh(Bytes::from_static(b"handle"));
        let name = || Name(Bytes::from_static(b"name"));
        round::<GetAttrRes>(Ok(fattr3::default()));
        round::<GetAttrRes>(Err((STALE, ())));
        round::<WccRes>(Ok(wcc()));
        round::<WccRes>(Err((STALE, wcc_data::default())));
        round::<LookupRes>(Ok(LookupOk { object: fh(), attr: attr(), dir: post_op_attr::Void }));
        round::<AccessRes>(Ok(AccessOk { attr: attr(), access: 3 }));
        round::<ReadlinkRes>(Ok(ReadlinkOk { attr: attr(), target: name() }));
        round::<ReadRes>(Ok(ReadOk { attr: attr(), count: 3, eof: true, data: Data(Bytes::from_static(b"abc")) }));
        let verifier = [5; 8];
        round::<WriteRes>(Ok(WriteOk { wcc: wcc(), count: 3, committed: Stable::FileSync, verifier }));
        round::<MakeRes>(Ok(MakeOk { object: Some(fh()), attr: attr(), dir: wcc() }));
        round::<MakeRes>(Ok(MakeOk { object: None, attr: post_op_attr::Void, dir: wcc() }));
        round::<RenameRes>(Err((STALE, (wcc(), wcc()))));
        round::<LinkRes>(Ok((attr(), wcc())));
        round::<FsInfoRes>(Ok(fsinfo3::default()));
        round::<CommitRes>(Ok((wcc(), verifier)));
    }

    #[test]
    fn lengths_of_listings_are_as_computed_to_the_byte() {
        for len in 0..9usize {
            let name = Name(vec![b'x'; len].into());
            let attr = post_op_attr::attributes(fattr3::default());
            let handle = Some(Fh(vec![1; len + 1].into()));
            let plain = Entry { fileid: 1, name: name.clone(), cookie: 2 };
            let plus = EntryPlus { fileid: 1, name, cookie: 2, attr, handle };
            let listing = ReaddirOk { dir: attr, verifier: 0, entries: vec![plain.clone(), plain], eof: true };
            assert_eq!(wire(&listing).len(), listing_len(&attr) + 2 * entry_len(len));
            round(listing);
            let void = post_op_attr::Void;
            let bare = EntryPlus { attr: void, handle: None, ..plus.clone() };
            let listing = ReaddirPlusOk { dir: void, verifier: 0, entries: vec![plus, bare], eof: false };
            let expected = plus_len(&attr, Some(len + 1)) + plus_len(&void, None);
            assert_eq!((listing_len(&attr), plus_len(&attr, Some(HANDLE_LEN))), (LISTING_MAX, PLUS_MAX));
            assert_eq!(wire(&listing).len(), listing_len(&void) + 2 * entry_len(len) + expected);
            round(listing);
        }
    }
}
