//! File handles: (format version, junction, node, generation, MAC), 33 bytes, opaque to clients.
//!
//! The MAC is the first 16 bytes of a keyed BLAKE3 hash over the rest; its key lives in the journal, so that handles
//! outlive restarts. A handle says *what*, never *who may*: access is decided at every call.

use super::xdr::{Malformed, Reader, Result, Wire, Writer};
use bytes::Bytes;
use journal_format::ids::{JunctionId, NodeId};

/// NFS3_FHSIZE: no handle may be longer.
pub const HANDLE_MAX: usize = 64;
const VERSION: u8 = 1;
const BODY: usize = 1 + 4 + 8 + 4;
const MAC: usize = 16;
/// Length of a handle of ours.
pub const HANDLE_LEN: usize = BODY + MAC;
const _: () = assert!(HANDLE_LEN <= HANDLE_MAX);

/// A handle as it travels; 0 to 64 bytes, perhaps not one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fh(pub Bytes);

impl Wire for Fh {
    fn put(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }
    fn get(r: &mut Reader) -> Result<Self> {
        r.opaque(HANDLE_MAX).map(Self)
    }
}

/// What a handle of ours names. Node ids are never used again, so `generation` is 0 until something needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub junction: JunctionId,
    pub node: NodeId,
    pub generation: u32,
}

/// Makes and checks handles. The key is in no `Debug` output.
#[derive(Clone)]
pub struct Sealer {
    key: [u8; 32],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    #[must_use]
    pub fn seal(&self, named: Named) -> Fh {
        let mut out = Vec::with_capacity(HANDLE_LEN);
        out.push(VERSION);
        out.extend_from_slice(&named.junction.0.to_le_bytes());
        out.extend_from_slice(&named.node.0.to_le_bytes());
        out.extend_from_slice(&named.generation.to_le_bytes());
        let mac = self.mac(&out);
        out.extend_from_slice(&mac);
        Fh(out.into())
    }

    /// What `handle` names; `Err` (BADHANDLE) for everything that this key did not seal.
    pub fn open(&self, handle: &Fh) -> Result<Named> {
        let (body, mac) = handle.0.split_first_chunk::<BODY>().ok_or(Malformed)?;
        let mac: &[u8; MAC] = mac.try_into().map_err(|_| Malformed)?;
        if !same(&self.mac(body), mac) || body[0] != VERSION {
            return Err(Malformed);
        }
        let mut fields = &body[1..];
        use bytes::Buf;
        Ok(Named {
            junction: JunctionId(fields.get_u32_le()),
            node: NodeId(fields.get_u64_le()),
            generation: fields.get_u32_le(),
        })
    }

    fn mac(&self, body: &[u8]) -> [u8; MAC] {
        let hash = blake3::keyed_hash(&self.key, body);
        *hash.as_bytes().first_chunk().expect("a hash of 32 bytes has 16")
    }
}

/// Compares in a time that does not tell where the first difference is.
fn same(a: &[u8; MAC], b: &[u8; MAC]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |acc, (x, y)| std::hint::black_box(acc | (x ^ y)));
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: Named = Named { junction: JunctionId(7), node: NodeId(u64::MAX - 5), generation: 3 };

    #[test]
    fn a_sealed_handle_opens_to_what_it_names() {
        let sealer = Sealer::new([9; 32]);
        let fh = sealer.seal(NAMED);
        assert_eq!(fh.0.len(), HANDLE_LEN);
        assert_eq!(sealer.open(&fh), Ok(NAMED));
        assert!(!format!("{sealer:?}").contains('9'));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let sealer = Sealer::new([9; 32]);
        let good = sealer.seal(NAMED).0.to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&Fh(bad.into())), Err(Malformed), "bit {bit}");
        }
        for len in 0..=HANDLE_MAX {
            let mut bad = good.clone();
            bad.resize(len, 0);
            assert_eq!(sealer.open(&Fh(bad.into())).is_ok(), len == HANDLE_LEN, "length {len}");
        }
    }

    #[test]
    fn another_key_seals_other_handles() {
        let fh = Sealer::new([1; 32]).seal(NAMED);
        assert_eq!(Sealer::new([2; 32]).open(&fh), Err(Malformed));
    }
}
