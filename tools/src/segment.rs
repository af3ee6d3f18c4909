//! A segment's file, or the archive of one.

use journal_format::archive::{self, ArchiveHeader, BLOCK_CONTENT, BLOCK_HEAD, Block, HEADER_LEN, Unpacked};
use journal_format::segment::{BLOCK, SegmentHeader};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Why nothing is read of a segment whose file the service has taken for a later one: it has another name, or another
/// header.
pub const RECYCLED: &str = "was recycled before it was read";

pub struct SegmentFile {
    pub path: PathBuf,
    /// As its name has it.
    pub number: u64,
    /// Bytes of the file.
    pub len: u64,
    pub header: Result<SegmentHeader, String>,
    /// It is an archive, with a whole header.
    pub archive: Option<ArchiveHeader>,
    packed: bool,
    /// No other with records follows: it may still be written to.
    pub is_last: bool,
    /// Further copies of the same segment.
    pub others: Vec<SegmentFile>,
}

impl SegmentFile {
    pub fn look(path: PathBuf, number: u64) -> SegmentFile {
        let read = File::open(&path).and_then(|file| {
            let mut block = Vec::new();
            let len = file.metadata()?.len();
            file.take(BLOCK).read_to_end(&mut block)?;
            Ok((len, block))
        });
        let (len, header) = match read {
            Ok((len, block)) => (len, SegmentHeader::from_bytes(&block).map_err(|error| error.to_string())),
            Err(error) => (0, Err(problem(&error))),
        };
        SegmentFile { path, number, len, header, archive: None, packed: false, is_last: false, others: Vec::new() }
    }

    pub fn look_archive(path: PathBuf, number: u64) -> SegmentFile {
        let read = File::open(&path).and_then(|file| {
            let mut head = Vec::new();
            let len = file.metadata()?.len();
            file.take((HEADER_LEN + BLOCK_HEAD + archive::BLOCK_STORED_MAX) as u64).read_to_end(&mut head)?;
            Ok((len, head))
        });
        let (len, found) = match read {
            Ok((len, head)) => (len, headers(&head)),
            Err(error) => (0, Err(error.to_string())),
        };
        let (archive, header) = match found {
            Ok((archive, header)) => (Some(archive), header),
            Err(error) => (None, Err(error)),
        };
        SegmentFile { path, number, len, header, archive, packed: true, is_last: false, others: Vec::new() }
    }

    /// A batch is begun only when the one before is durable: records in a segment say that all before it is.
    pub fn has_records(&self) -> bool {
        let Ok(header) = &self.header else { return false };
        let mut head = vec![0; 64 << 10];
        let read = File::open(&self.path).and_then(|file| file.read_at(&mut head, 0));
        let Ok(len) = read else { return false };
        let head = head.get(..len).unwrap_or_default();
        // The first record may be longer than what was read: its place states its LSN all the same.
        let first = head.get(4096..4112).map(journal_format::record::claimed_lsn);
        first == Some(header.first_record())
    }

    pub fn is_archive(&self) -> bool {
        self.packed
    }

    /// The id of the journal that it is of, and the size of its segments, when that can be read.
    pub fn journal(&self) -> Option<([u8; 16], u64)> {
        let archive = self.archive.as_ref().map(|header| (header.journal_id, header.size));
        self.header.as_ref().map(|header| (header.journal_id, header.size)).ok().or(archive)
    }

    /// Damage that needs no look at records; `id` is the journal's.
    pub fn damage(&self, id: Option<[u8; 16]>, damage: &mut Vec<String>) {
        let name = self.path.display();
        let header = match &self.header {
            Ok(header) => header,
            Err(error) => return damage.push(format!("{name}: {error}")),
        };
        if header.number.0 != self.number {
            damage.push(format!("{name}: holds segment {}", header.number));
        }
        if self.is_of_other(id) {
            damage.push(self.of_other());
        }
        if !self.packed && header.size != self.len {
            damage.push(format!("{name}: has {} bytes, its header says {}", self.len, header.size));
        }
    }

    /// It has a whole header, of another journal than this.
    pub fn is_of_other(&self, id: Option<[u8; 16]>) -> bool {
        self.header.as_ref().is_ok_and(|header| Some(header.journal_id) != id)
    }

    pub fn of_other(&self) -> String {
        format!("{}: belongs to another journal", self.path.display())
    }

    /// Nothing is wrong with it that can be told without a look at records.
    pub fn is_sound(&self, id: Option<[u8; 16]>) -> bool {
        let mut damage = Vec::new();
        self.damage(id, &mut damage);
        damage.is_empty()
    }

    /// All bytes of the segment into `into`, in the lap that the header begins; and damage met on the way.
    pub fn read(&self, into: &mut Vec<u8>) -> Result<(SegmentHeader, Vec<String>), String> {
        let header = self.header.clone()?;
        if self.packed {
            return self.unpack(&header, into).map(|damage| (header, damage));
        }
        let file = File::open(&self.path).map_err(|error| problem(&error))?;
        into.resize(usize::try_from(header.size.min(self.len)).map_err(|error| error.to_string())?, 0);
        let (mut at, mut damage) = (0, Vec::new());
        for chunk in into.chunks_mut(1 << 20) {
            for (bad, error) in read_what_can_be(&file, chunk, at) {
                damage.push(format!("offset {bad}: {error}"));
            }
            at += chunk.len() as u64;
        }
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        file.read_exact_at(&mut block, 0).map_err(|error| problem(&error))?;
        if SegmentHeader::from_bytes(&block).as_ref() != Ok(&header) {
            return Err(RECYCLED.into());
        }
        Ok((header, damage))
    }

    fn unpack(&self, header: &SegmentHeader, into: &mut Vec<u8>) -> Result<Vec<String>, String> {
        let file = std::fs::read(&self.path).map_err(|error| error.to_string())?;
        let Unpacked { holes, digest_holds, rest, .. } =
            archive::unpack(&file, into).map_err(|error| error.to_string())?;
        let mut damage: Vec<String> =
            holes.iter().map(|hole| format!("offset {}: {}", hole.offset, hole.what)).collect();
        if holes.is_empty() && !digest_holds {
            damage.push("the digest over the whole content is wrong".into());
        }
        if rest != 0 {
            damage.push(format!("{rest} bytes behind its end"));
        }
        into.resize(usize::try_from(header.size).map_err(|error| error.to_string())?, 0);
        Ok(damage)
    }
}

/// A segment's file that is not there any more was there when it was listed.
fn problem(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => RECYCLED.into(),
        _ => error.to_string(),
    }
}

/// Fill `into` from there. Of blocks that cannot be read, which are zeros then: where, and why.
pub fn read_what_can_be(file: &impl FileExt, into: &mut [u8], at: u64) -> Vec<(u64, std::io::Error)> {
    if file.read_exact_at(into, at).is_ok() {
        return Vec::new();
    }
    let mut bad = Vec::new();
    let mut at = at;
    for block in into.chunks_mut(usize::try_from(BLOCK).unwrap_or(4096)) {
        if let Err(error) = file.read_exact_at(block, at) {
            block.fill(0);
            bad.push((at, error));
        }
        at += block.len() as u64;
    }
    bad
}

/// The header of an archive, and that of the segment in its first block.
fn headers(head: &[u8]) -> Result<(ArchiveHeader, Result<SegmentHeader, String>), String> {
    let archive = ArchiveHeader::from_bytes(head).map_err(|error| error.to_string())?;
    let segment = first_block(&archive, head);
    Ok((archive, segment))
}

fn first_block(archive: &ArchiveHeader, head: &[u8]) -> Result<SegmentHeader, String> {
    let (block, _) = Block::split(head.get(HEADER_LEN..).unwrap_or_default()).map_err(|error| error.to_string())?;
    let len = usize::try_from(archive.content).unwrap_or(BLOCK_CONTENT).min(BLOCK_CONTENT);
    let mut first = vec![0; len];
    block.unpack(&mut first).map_err(|error| error.to_string())?;
    let header = SegmentHeader::from_bytes(&first).map_err(|error| error.to_string())?;
    if (header.journal_id, header.number, header.size) != (archive.journal_id, archive.number, archive.size) {
        return Err("the archive's header and the segment's differ".into());
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Bytes, of which one sector cannot be read.
    struct Bad(Vec<u8>, u64);

    impl FileExt for Bad {
        fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
            let end = at + into.len() as u64;
            if at < self.1 + 512 && end > self.1 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let from = usize::try_from(at).map_err(io::Error::other)?;
            into.copy_from_slice(self.0.get(from..from + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(into.len())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn a_sector_that_cannot_be_read_costs_its_block_and_no_more() {
        let file = Bad(vec![7; 64 << 10], 5 * BLOCK + 512);
        let mut into = vec![0; 32 << 10];
        let bad = read_what_can_be(&file, &mut into, BLOCK);
        assert_eq!(bad.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [5 * BLOCK]);
        let block = usize::try_from(BLOCK).unwrap_or_default();
        assert!(into.chunks(block).enumerate().all(|(i, is)| is.iter().all(|b| *b == if i == 4 { 0 } else { 7 })));
    }
}
