//! The header of a snapshot file: a fold of everything before an LSN, whose inside is the service's own matter.

use crate::fields::{array_at, put, u32_at, u64_at};
use crate::ids::Lsn;

/// First bytes of a snapshot.
pub const MAGIC: [u8; 8] = *b"tain.snp";
/// Version of the snapshot's frame.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header; the state follows.
pub const HEADER_LEN: usize = 64;

const VERSION: usize = 8;
const STATE_CRC: usize = 12;
const JOURNAL_ID: usize = 16;
const LSN: usize = 32;
const LENGTH: usize = 40;
const CRC: usize = HEADER_LEN - 4;
const _: () = assert!(LENGTH + 8 <= CRC);

/// A snapshot's header, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The journal it belongs to.
    pub journal_id: [u8; 16],
    /// The fold of everything before this.
    pub lsn: Lsn,
    /// Bytes of the state.
    pub length: u64,
    /// CRC-32 of the state.
    pub state_crc: u32,
}

/// Why a file is no usable snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// Too short, or does not begin as a snapshot does.
    #[error("is not a snapshot of a tain journal")]
    NotASnapshot,
    /// Written by a newer version.
    #[error("has format version {0}; this version of tain reads version {FORMAT_VERSION} only")]
    NewerVersion(u32),
    /// Damaged or cut short.
    #[error("is damaged: {0}")]
    Damaged(&'static str),
}

impl SnapshotHeader {
    /// The header for this state.
    #[must_use]
    pub fn of(journal_id: [u8; 16], lsn: Lsn, state: &[u8]) -> SnapshotHeader {
        SnapshotHeader { journal_id, lsn, length: state.len() as u64, state_crc: crc32fast::hash(state) }
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, STATE_CRC, &self.state_crc.to_le_bytes());
        put(&mut bytes, JOURNAL_ID, &self.journal_id);
        put(&mut bytes, LSN, &self.lsn.0.to_le_bytes());
        put(&mut bytes, LENGTH, &self.length.to_le_bytes());
        let crc = crc32fast::hash(bytes.first_chunk::<CRC>().map_or(&[], |c| c.as_slice()));
        put(&mut bytes, CRC, &crc.to_le_bytes());
        bytes
    }

    /// Split a whole snapshot file into its header and its state.
    ///
    /// # Errors
    /// When it is damaged or cannot be understood.
    pub fn open(file: &[u8]) -> Result<(SnapshotHeader, &[u8]), BadSnapshot> {
        let (head, state) = file.split_first_chunk::<HEADER_LEN>().ok_or(BadSnapshot::NotASnapshot)?;
        if array_at(head, 0) != MAGIC {
            return Err(BadSnapshot::NotASnapshot);
        }
        if crc32fast::hash(head.first_chunk::<CRC>().map_or(&[], |c| c.as_slice())) != u32_at(head, CRC) {
            return Err(BadSnapshot::Damaged("the header's checksum is wrong"));
        }
        let version = u32_at(head, VERSION);
        if version != FORMAT_VERSION {
            return Err(BadSnapshot::NewerVersion(version));
        }
        let header = SnapshotHeader {
            journal_id: array_at(head, JOURNAL_ID),
            lsn: Lsn(u64_at(head, LSN)),
            length: u64_at(head, LENGTH),
            state_crc: u32_at(head, STATE_CRC),
        };
        if header.length != state.len() as u64 {
            return Err(BadSnapshot::Damaged("it is not as long as its header says"));
        }
        if crc32fast::hash(state) != header.state_crc {
            return Err(BadSnapshot::Damaged("the state's checksum is wrong"));
        }
        Ok((header, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_opens_and_every_damaged_byte_is_noticed() {
        let state = b"the fold of everything".as_slice();
        let header = SnapshotHeader::of([1; 16], Lsn(8192), state);
        let file = [header.to_bytes().as_slice(), state].concat();
        assert_eq!(SnapshotHeader::open(&file), Ok((header, state)));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(SnapshotHeader::open(&damaged).is_err(), "byte {at}");
            assert!(SnapshotHeader::open(&file[..at]).is_err(), "cut at {at}");
        }
    }
}
