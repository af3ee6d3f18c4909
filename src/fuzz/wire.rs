//! What peers send.

use crate::wire::handle::{Fh, Named, Sealer};
use crate::wire::record::{Assembler, RECORD_MAX};
use crate::wire::rpc::{self, CallHeader, Credential};
use crate::wire::xdr::{Reader, Wire, Writer};
use crate::wire::{mount as mnt, nfs3, nlm4, nsm, portmap};
use bytes::{BufMut, Bytes};
use journal_format::ids::{JunctionId, NodeId};

/// A stream, in pieces: records, calls, and the arguments of those that are known.
pub fn rpc(data: &[u8]) {
    let mut assembler = Assembler::default();
    for piece in data.chunks(1000) {
        assembler.buffer().put_slice(piece);
        loop {
            match assembler.take_record() {
                Ok(Some(record)) => {
                    assert!(record.len() <= RECORD_MAX);
                    let _ = rpc::parse_reply(record.clone());
                    call(record);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(assembler.received() <= RECORD_MAX + data.len());
    }
}

fn call(record: Bytes) {
    let Ok((header, mut reader)) = rpc::parse_call(record) else { return };
    match header.program {
        nfs3::PROGRAM => drop(nfs3::Args::decode(header.procedure, &mut reader)),
        mnt::PROGRAM => drop(mnt::Args::decode(header.procedure, &mut reader)),
        nlm4::PROGRAM => drop(nlm4::Args::decode(header.procedure, &mut reader)),
        nsm::PROGRAM => drop(nsm::Args::decode(header.procedure, &mut reader)),
        _ => {}
    }
}

pub fn rpc_seeds() -> Vec<Vec<u8>> {
    let header =
        |program, procedure| CallHeader { xid: 7, program, version: 3, procedure, credential: Credential::None };
    let mut seeds = Vec::new();
    for (program, args) in [(nfs3::PROGRAM, nfs_seeds()), (mnt::PROGRAM, mount_seeds())] {
        for args in args {
            let Some((procedure, args)) = args.split_first() else { continue };
            let mut message = rpc::call(&header(program, u32::from(*procedure))).finish().to_vec();
            // Behind the record's mark, which is made anew.
            let body = [message.split_off(4).as_slice(), args].concat();
            let mark = u32::try_from(body.len()).unwrap_or_default() | crate::wire::record::LAST;
            seeds.push([mark.to_be_bytes().as_slice(), &body].concat());
        }
    }
    seeds
}

/// The arguments of a procedure: the first byte says of which. What is read can be written, and is then read as the same.
pub fn nfs(data: &[u8]) {
    let Some((procedure, args)) = data.split_first() else { return };
    let decode =
        |bytes: &[u8]| match nfs3::Args::decode(u32::from(*procedure), &mut Reader::new(Bytes::copy_from_slice(bytes)))
        {
            Some(Ok(args)) => Some(args),
            Some(Err(_)) | None => None,
        };
    let Some(first) = decode(args) else { return };
    assert_eq!(first.procedure(), u32::from(*procedure));
    let encode = |args: &nfs3::Args| {
        let mut w = Writer::default();
        args.put(&mut w);
        w.finish().to_vec().split_off(4)
    };
    let bytes = encode(&first);
    assert!(decode(&bytes).is_some_and(|again| encode(&again) == bytes), "{first:?}");
}

pub fn nfs_seeds() -> Vec<Vec<u8>> {
    // A handle, names, numbers: enough of each for every procedure.
    let mut long = Vec::new();
    for _ in 0..2 {
        long.extend_from_slice(&[0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 3, b'a', b'b', b'c', 0]);
    }
    long.extend([0u8; 64]);
    let numbers = [[0u8, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8].as_slice(), &[0, 0, 0, 1].repeat(16)].concat();
    (0u8..22)
        .flat_map(|procedure| [[&[procedure], long.as_slice()].concat(), [&[procedure], numbers.as_slice()].concat()])
        .collect()
}

/// The same for MOUNT.
pub fn mount(data: &[u8]) {
    let Some((procedure, args)) = data.split_first() else { return };
    let decode = |bytes: &[u8]| match mnt::Args::decode(
        u32::from(*procedure),
        &mut Reader::new(Bytes::copy_from_slice(bytes)),
    ) {
        Some(Ok(args)) => Some(args),
        Some(Err(_)) | None => None,
    };
    let Some(first) = decode(args) else { return };
    assert_eq!(first.procedure(), u32::from(*procedure));
    let encode = |args: &mnt::Args| {
        let mut w = Writer::default();
        args.put(&mut w);
        w.finish().to_vec().split_off(4)
    };
    let bytes = encode(&first);
    assert!(decode(&bytes).is_some_and(|again| encode(&again) == bytes), "{first:?}");
}

pub fn mount_seeds() -> Vec<Vec<u8>> {
    let path = [0u8, 0, 0, 5, b'/', b'd', b'e', b'm', b'o', 0, 0, 0];
    (0u8..6).map(|procedure| [&[procedure], path.as_slice()].concat()).collect()
}

/// What lock managers, status monitors and portmappers say: the first byte tells which, and of whose procedures. What is
/// read can be written, and is then read as the same.
pub fn locks(data: &[u8]) {
    fn again<T>(bytes: &[u8], read: impl Fn(&mut Reader) -> Option<T>, write: impl Fn(&T, &mut Writer)) {
        let encode = |value: &T| {
            let mut w = Writer::default();
            write(value, &mut w);
            w.finish().to_vec().split_off(4)
        };
        let Some(first) = read(&mut Reader::new(Bytes::copy_from_slice(bytes))) else { return };
        let bytes = encode(&first);
        let second = read(&mut Reader::new(bytes.clone().into()));
        assert!(second.is_some_and(|second| encode(&second) == bytes));
    }
    fn value<T: Wire>(bytes: &[u8]) {
        again(bytes, |r| r.get::<T>().ok(), |value, w| value.put(w));
    }
    let Some((which, args)) = data.split_first() else { return };
    match *which {
        100 => again(args, |r| nsm::Args::decode(nsm::NOTIFY, r)?.ok(), |args, w| args.put(w)),
        101 => value::<portmap::Rpcb>(args),
        102 => value::<portmap::Mapping>(args),
        103 => value::<nlm4::TestRes>(args),
        104 => value::<nlm4::Res>(args),
        // An answer to a call that is not made is looked at and left.
        11..=15 => drop(nlm4::Args::decode(u32::from(*which), &mut Reader::new(Bytes::copy_from_slice(args)))),
        procedure => {
            again(args, |r| nlm4::Args::decode(u32::from(procedure), r)?.ok(), |args, w| args.put(w));
        }
    }
}

pub fn locks_seeds() -> Vec<Vec<u8>> {
    let handle = Fh(Bytes::from_static(&[7; 33]));
    let mut seeds = Vec::new();
    for (procedure, args) in nlm4::samples(&handle) {
        let mut w = Writer::default();
        args.put(&mut w);
        let Ok(procedure) = u8::try_from(procedure) else { continue };
        seeds.push([&[procedure], &w.finish().to_vec()[4..]].concat());
    }
    let words = [0u8, 0, 0, 4].repeat(12);
    seeds.extend([11, 12, 15, 100, 101, 102, 103, 104].map(|which| [&[which], words.as_slice()].concat()));
    seeds
}

/// A handle opens only when it is one that was sealed.
pub fn handle(data: &[u8]) {
    let sealer = Sealer::new([0x42; 32]);
    let handle = Fh(Bytes::copy_from_slice(data));
    if let Ok(named) = sealer.open(&handle) {
        assert_eq!(sealer.seal(named).0, handle.0);
    }
    let number =
        |at: usize| data.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b));
    let junction = u32::try_from(number(8) & 0xffff_ffff).unwrap_or_default();
    let named = Named { junction: JunctionId(junction), node: NodeId(number(0)), generation: 0 };
    let sealed = sealer.seal(named);
    assert_eq!(sealer.open(&sealed).ok(), Some(named));
    // Any bit of it turned makes it void.
    let mut turned = sealed.0.to_vec();
    let at = usize::from(data.first().copied().unwrap_or_default()) % turned.len();
    turned[at] ^= 1 << (data.get(1).copied().unwrap_or_default() % 8);
    assert!(sealer.open(&Fh(turned.into())).is_err());
}

pub fn handle_seeds() -> Vec<Vec<u8>> {
    let named = Named { junction: JunctionId(1), node: NodeId(77), generation: 0 };
    vec![Sealer::new([0x42; 32]).seal(named).0.to_vec(), vec![0; 64]]
}
