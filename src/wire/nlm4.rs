//! NLM version 4 (RFC 1813, appendix II; X/Open XNFS): byte-range locks and share reservations.
//!
//! Every string and opaque is bounded by [`TEXT_MAX`]; a range is what the peer says, judged above.

use super::handle::Fh;
use super::xdr::{Malformed, Reader, Result, Wire, Writer, message};
use bytes::Bytes;

pub const PROGRAM: u32 = 100_021;
pub const VERSION: u32 = 4;
/// LM_MAXSTRLEN: longest caller's name, owner handle and cookie, in bytes.
pub const TEXT_MAX: usize = 1024;

/// nlm4_stats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stat {
    Granted = 0,
    Denied = 1,
    NoLocks = 2,
    Blocked = 3,
    Grace = 4,
    Deadlock = 5,
    RoFs = 6,
    StaleFh = 7,
    FBig = 8,
    Failed = 9,
}

impl Wire for Stat {
    fn put(&self, w: &mut Writer) {
        w.u32(*self as u32);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        use Stat as S;
        let all = [
            S::Granted,
            S::Denied,
            S::NoLocks,
            S::Blocked,
            S::Grace,
            S::Deadlock,
            S::RoFs,
            S::StaleFh,
            S::FBig,
            S::Failed,
        ];
        let value = r.u32()?;
        all.into_iter().find(|stat| *stat as u32 == value).ok_or(Malformed)
    }
}

/// A cookie, an owner handle, a caller's name: any bytes, at most [`TEXT_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Short(pub Bytes);

impl Wire for Short {
    fn put(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        r.opaque(TEXT_MAX).map(Self)
    }
}

message! {
    /// nlm4_lock.
    pub struct Lock { caller: Short, fh: Fh, oh: Short, svid: u32, offset: u64, len: u64 }
    /// nlm4_holder.
    pub struct Holder { exclusive: bool, svid: u32, oh: Short, offset: u64, len: u64 }
    /// nlm4_testargs; also what GRANTED carries.
    pub struct TestArgs { cookie: Short, exclusive: bool, lock: Lock }
    /// nlm4_lockargs.
    pub struct LockArgs { cookie: Short, block: bool, exclusive: bool, lock: Lock, reclaim: bool, state: u32 }
    /// nlm4_cancargs.
    pub struct CancelArgs { cookie: Short, block: bool, exclusive: bool, lock: Lock }
    /// nlm4_unlockargs.
    pub struct UnlockArgs { cookie: Short, lock: Lock }
    /// nlm4_share: the rights that are wanted, and those that are denied to others.
    pub struct Share { caller: Short, fh: Fh, oh: Short, mode: u32, access: u32 }
    /// nlm4_shareargs.
    pub struct ShareArgs { cookie: Short, share: Share, reclaim: bool }
    /// nlm4_res.
    pub struct Res { cookie: Short, stat: Stat }
    /// nlm4_shareres.
    pub struct ShareRes { cookie: Short, stat: Stat, sequence: u32 }
    /// nlm4_notify.
    pub struct Notify { name: Short, state: u32 }
}

/// nlm4_testres: whoever is in the way, when somebody is.
#[derive(Clone, Debug)]
pub struct TestRes {
    pub cookie: Short,
    /// The holder's status is DENIED.
    pub stat: std::result::Result<Stat, Holder>,
}

impl Wire for TestRes {
    fn put(&self, w: &mut Writer) {
        w.put(&self.cookie);
        match &self.stat {
            Ok(stat) => w.put(stat),
            Err(holder) => w.put(&Stat::Denied).put(holder),
        };
    }
    fn get(r: &mut Reader) -> Result<Self> {
        let cookie = r.get()?;
        let stat = match r.get()? {
            Stat::Denied => Err(r.get()?),
            stat => Ok(stat),
        };
        Ok(Self { cookie, stat })
    }
}

pub mod procedure {
    pub const NULL: u32 = 0;
    pub const TEST: u32 = 1;
    pub const LOCK: u32 = 2;
    pub const CANCEL: u32 = 3;
    pub const UNLOCK: u32 = 4;
    pub const GRANTED: u32 = 5;
    /// The first of five that are answered by a call of their own; the answers' numbers are 5 higher.
    pub const TEST_MSG: u32 = 6;
    pub const GRANTED_MSG: u32 = 10;
    pub const TEST_RES: u32 = 11;
    pub const GRANTED_RES: u32 = 15;
    pub const SHARE: u32 = 20;
    pub const UNSHARE: u32 = 21;
    pub const NM_LOCK: u32 = 22;
    pub const FREE_ALL: u32 = 23;
}
use procedure as p;

/// What is asked, however it is to be answered.
#[derive(Clone, Debug)]
pub enum Args {
    Null,
    Test(TestArgs),
    Lock(LockArgs),
    Cancel(CancelArgs),
    Unlock(UnlockArgs),
    Granted(TestArgs),
    /// An answer to a call of ours that is answered so: we make none.
    Answer,
    Share(ShareArgs),
    Unshare(ShareArgs),
    /// A lock of a host that asks not to be monitored.
    NmLock(LockArgs),
    FreeAll(Notify),
}

impl Args {
    /// `None`: there is no such procedure. The `_MSG` procedures carry what their plain ones do.
    #[must_use]
    pub fn decode(procedure: u32, r: &mut Reader) -> Option<Result<Self>> {
        Some(match plain(procedure) {
            p::NULL => Ok(Args::Null),
            p::TEST => r.get().map(Args::Test),
            p::LOCK => r.get().map(Args::Lock),
            p::CANCEL => r.get().map(Args::Cancel),
            p::UNLOCK => r.get().map(Args::Unlock),
            p::GRANTED => r.get().map(Args::Granted),
            p::TEST_RES => r.get::<TestRes>().map(|_| Args::Answer),
            12..=p::GRANTED_RES => r.get::<Res>().map(|_| Args::Answer),
            p::SHARE => r.get().map(Args::Share),
            p::UNSHARE => r.get().map(Args::Unshare),
            p::NM_LOCK => r.get().map(Args::NmLock),
            p::FREE_ALL => r.get().map(Args::FreeAll),
            _ => return None,
        })
    }

    pub fn put(&self, w: &mut Writer) {
        match self {
            Args::Null | Args::Answer => w,
            Args::Test(a) | Args::Granted(a) => w.put(a),
            Args::Lock(a) | Args::NmLock(a) => w.put(a),
            Args::Cancel(a) => w.put(a),
            Args::Unlock(a) => w.put(a),
            Args::Share(a) | Args::Unshare(a) => w.put(a),
            Args::FreeAll(a) => w.put(a),
        };
    }
}

/// Whether the answer goes out as a call of its own, and by which procedure.
#[must_use]
pub const fn answered_by(procedure: u32) -> Option<u32> {
    match procedure {
        p::TEST_MSG..=p::GRANTED_MSG => Some(procedure + 5),
        _ => None,
    }
}

/// A `_MSG` procedure's plain one.
const fn plain(procedure: u32) -> u32 {
    match procedure {
        p::TEST_MSG..=p::GRANTED_MSG => procedure - 5,
        other => other,
    }
}

/// One call of each kind, for tests and fuzzing.
#[must_use]
pub fn samples(fh: &Fh) -> Vec<(u32, Args)> {
    let short = |text: &'static str| Short(Bytes::from_static(text.as_bytes()));
    let lock =
        || Lock { caller: short("client"), fh: fh.clone(), oh: short("7@client"), svid: 7, offset: 100, len: u64::MAX };
    let cookie = || short("cook");
    let test = || TestArgs { cookie: cookie(), exclusive: true, lock: lock() };
    let locked =
        || LockArgs { cookie: cookie(), block: true, exclusive: false, lock: lock(), reclaim: false, state: 3 };
    let cancel = || CancelArgs { cookie: cookie(), block: true, exclusive: false, lock: lock() };
    let unlock = || UnlockArgs { cookie: cookie(), lock: lock() };
    let share = || ShareArgs {
        cookie: cookie(),
        share: Share { caller: short("client"), fh: fh.clone(), oh: short("7"), mode: 1, access: 2 },
        reclaim: true,
    };
    vec![
        (p::NULL, Args::Null),
        (p::TEST, Args::Test(test())),
        (p::LOCK, Args::Lock(locked())),
        (p::CANCEL, Args::Cancel(cancel())),
        (p::UNLOCK, Args::Unlock(unlock())),
        (p::GRANTED, Args::Granted(test())),
        (p::TEST_MSG, Args::Test(test())),
        (7, Args::Lock(locked())),
        (8, Args::Cancel(cancel())),
        (9, Args::Unlock(unlock())),
        (p::GRANTED_MSG, Args::Granted(test())),
        (p::SHARE, Args::Share(share())),
        (p::UNSHARE, Args::Unshare(share())),
        (p::NM_LOCK, Args::NmLock(locked())),
        (p::FREE_ALL, Args::FreeAll(Notify { name: short("client"), state: 5 })),
    ]
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
        for (procedure, args) in samples(&Fh(Bytes::from_static(b"handle"))) {
            let wire = bytes(|w| args.put(w));
            let back = Args::decode(procedure, &mut Reader::new(wire.clone())).unwrap().unwrap();
            assert_eq!(format!("{back:?}"), format!("{args:?}"), "procedure {procedure}");
            for cut in 0..wire.len() {
                let cut = Args::decode(procedure, &mut Reader::new(wire.slice(..cut))).unwrap();
                assert!(cut.is_err(), "procedure {procedure}");
            }
        }
        for procedure in [16, 19, 24, u32::MAX] {
            assert!(Args::decode(procedure, &mut Reader::new(Bytes::new())).is_none());
        }
    }

    #[test]
    fn what_is_longer_than_allowed_is_refused_wherever_it_stands() {
        let long = |len| Short(vec![b'x'; len].into());
        for (cookie, caller, oh, good) in [
            (TEXT_MAX, TEXT_MAX, TEXT_MAX, true),
            (TEXT_MAX + 1, 1, 1, false),
            (1, TEXT_MAX + 1, 1, false),
            (1, 1, TEXT_MAX + 1, false),
        ] {
            let fh = Fh(Bytes::from_static(b"handle"));
            let lock = Lock { caller: long(caller), fh, oh: long(oh), svid: 1, offset: 0, len: 0 };
            let args = Args::Unlock(UnlockArgs { cookie: long(cookie), lock });
            let wire = bytes(|w| args.put(w));
            assert_eq!(Args::decode(p::UNLOCK, &mut Reader::new(wire)).unwrap().is_ok(), good);
        }
    }

    #[test]
    fn results_come_back_as_they_were() {
        let holder = Holder { exclusive: true, svid: 9, oh: Short(Bytes::from_static(b"o")), offset: 1, len: 0 };
        for stat in [Ok(Stat::Granted), Ok(Stat::Grace), Err(holder)] {
            let result = TestRes { cookie: Short(Bytes::from_static(b"c")), stat };
            let wire = bytes(|w| {
                w.put(&result);
            });
            let back: TestRes = Reader::new(wire.clone()).get().unwrap();
            assert_eq!(format!("{back:?}"), format!("{result:?}"));
            assert!(Reader::new(wire.slice(..wire.len() - 1)).get::<TestRes>().is_err());
        }
        for value in 0..12u32 {
            let stat = Reader::new(Bytes::copy_from_slice(&value.to_be_bytes())).get::<Stat>();
            assert_eq!(stat.map(|s| s as u32).ok(), (value < 10).then_some(value));
        }
    }
}
