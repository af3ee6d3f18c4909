//! Between the volume's types and the wire's.

use super::status::nfsstat;
use crate::volume::types::{Attr, CreateHow, FILE_SIZE_MAX, PreAttr, SetAttrs, SetTime, Status, Wcc};
use crate::wire::nfs3::CreateHow3;
use journal_format::ids::{Kind, Time};
use nfsserve::nfs::*;

const SECOND: i64 = 1_000_000_000;

/// A time as NFSv3 can say it: from 1970 to 2106. What lies outside is shown as the nearer end.
pub fn time(t: Time) -> nfstime3 {
    let nseconds = u32::try_from(t.0.rem_euclid(SECOND)).expect("a remainder below 10^9");
    match u32::try_from(t.0.div_euclid(SECOND)) {
        Ok(seconds) => nfstime3 { seconds, nseconds },
        Err(_) if t.0 < 0 => nfstime3::default(),
        Err(_) => nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 },
    }
}

pub fn from_time(t: nfstime3) -> Result<Time, Status> {
    if i64::from(t.nseconds) >= SECOND {
        return Err(Status::Inval);
    }
    Ok(Time(i64::from(t.seconds) * SECOND + i64::from(t.nseconds)))
}

pub fn fattr(a: &Attr) -> fattr3 {
    fattr3 {
        ftype: match a.kind {
            Kind::File => ftype3::NF3REG,
            Kind::Dir => ftype3::NF3DIR,
            Kind::Symlink => ftype3::NF3LNK,
            Kind::Fifo => ftype3::NF3FIFO,
            Kind::Socket => ftype3::NF3SOCK,
            Kind::Char => ftype3::NF3CHR,
            Kind::Block => ftype3::NF3BLK,
        },
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        size: a.size,
        used: a.used,
        rdev: specdata3 { specdata1: a.rdev.0, specdata2: a.rdev.1 },
        fsid: a.fsid,
        fileid: a.fileid,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
    }
}

pub fn post(a: Option<&Attr>) -> post_op_attr {
    a.map_or(post_op_attr::Void, |a| post_op_attr::attributes(fattr(a)))
}

fn pre(a: Option<&PreAttr>) -> pre_op_attr {
    a.map_or(pre_op_attr::Void, |a| {
        pre_op_attr::attributes(wcc_attr { size: a.size, mtime: time(a.mtime), ctime: time(a.ctime) })
    })
}

pub fn wcc(w: &Wcc) -> wcc_data {
    wcc_data { before: pre(w.before.as_ref()), after: post(w.after.as_ref()) }
}

/// An error that carries nothing beside it.
pub fn bare<E: Default>(status: Status) -> (nfsstat3, E) {
    (nfsstat(status), E::default())
}

/// Owner and group `u32::MAX` mean "leave it", as `chown(-1)` does: no object may come to have that id.
fn id(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

pub fn set_attrs(s: &sattr3) -> Result<SetAttrs, Status> {
    let size = match s.size {
        set_size3::Void => None,
        set_size3::size(size) if size > FILE_SIZE_MAX => return Err(Status::FBig),
        set_size3::size(size) => Some(size),
    };
    Ok(SetAttrs {
        mode: match s.mode {
            set_mode3::Void => None,
            set_mode3::mode(mode) => Some(mode & 0o7777),
        },
        uid: match s.uid {
            set_uid3::Void => None,
            set_uid3::uid(uid) => id(uid),
        },
        gid: match s.gid {
            set_gid3::Void => None,
            set_gid3::gid(gid) => id(gid),
        },
        size,
        atime: match s.atime {
            set_atime::DONT_CHANGE => SetTime::Keep,
            set_atime::SET_TO_SERVER_TIME => SetTime::Server,
            set_atime::SET_TO_CLIENT_TIME(t) => SetTime::Client(from_time(t)?),
        },
        mtime: match s.mtime {
            set_mtime::DONT_CHANGE => SetTime::Keep,
            set_mtime::SET_TO_SERVER_TIME => SetTime::Server,
            set_mtime::SET_TO_CLIENT_TIME(t) => SetTime::Client(from_time(t)?),
        },
    })
}

pub fn create_how(how: &CreateHow3) -> Result<CreateHow, Status> {
    Ok(match how {
        CreateHow3::Unchecked(attrs) => CreateHow::Unchecked(set_attrs(attrs)?),
        CreateHow3::Guarded(attrs) => CreateHow::Guarded(set_attrs(attrs)?),
        CreateHow3::Exclusive(verifier) => CreateHow::Exclusive(*verifier),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_every_nanosecond_and_stop_at_the_ends() {
        let t = Time(1_700_000_000_123_456_789);
        let there = time(t);
        assert_eq!((there.seconds, there.nseconds), (1_700_000_000, 123_456_789));
        assert_eq!(from_time(there), Ok(t));
        assert_eq!(time(Time(-1)).seconds, 0);
        assert_eq!(time(Time(i64::MAX)).seconds, u32::MAX);
        assert_eq!(time(Time(i64::MIN)).seconds, 0);
        assert_eq!(from_time(nfstime3 { seconds: 0, nseconds: 1_000_000_000 }), Err(Status::Inval));
        assert!(from_time(nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 }).is_ok());
    }

    #[test]
    fn sizes_no_file_can_have_are_refused_and_modes_are_permission_bits() {
        let mut s = sattr3 { size: set_size3::size(u64::MAX), ..sattr3::default() };
        assert_eq!(set_attrs(&s), Err(Status::FBig));
        s.size = set_size3::size(FILE_SIZE_MAX);
        s.mode = set_mode3::mode(0o10_0644);
        s.uid = set_uid3::uid(u32::MAX);
        let set = set_attrs(&s).unwrap();
        assert_eq!((set.size, set.mode, set.uid), (Some(FILE_SIZE_MAX), Some(0o644), None));
    }
}
