//! What is dirty of one node, and its bytes in the store.

use crate::index::store::{Result, Store};
use journal_format::ids::{Kind, Lsn};

/// Byte ranges kept of one node; past it they become one, from the first byte to the last.
pub const RANGES_MAX: usize = 64;
const VERSION: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// It is to be made, since this position.
    pub make: Option<(Lsn, Kind)>,
    /// Its attributes, and size, are those of the source.
    pub attrs: bool,
    /// Its kept modification time.
    pub times: bool,
    /// The shortest it has been: what the location holds behind it is not the file's any more.
    pub cut: Option<u64>,
    /// Ascending, apart: `start..end`. An end of `u64::MAX` is the file's.
    pub ranges: Vec<(u64, u64)>,
}

impl Record {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `start..end` is dirty as well.
    pub fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        self.ranges.retain(|&(s, e)| {
            let apart = e < start || end < s;
            if !apart {
                (start, end) = (start.min(s), end.max(e));
            }
            apart
        });
        let at = self.ranges.partition_point(|&(s, _)| s < start);
        self.ranges.insert(at, (start, end));
        if self.ranges.len() > RANGES_MAX
            && let (Some(&(first, _)), Some(&(_, last))) = (self.ranges.first(), self.ranges.last())
        {
            self.ranges = vec![(first, last)];
        }
    }

    /// The file was cut, or made longer, to `size`: behind it nothing is as it was.
    pub fn resize(&mut self, size: u64) {
        self.cut = Some(self.cut.map_or(size, |cut| cut.min(size)));
        self.add(size, u64::MAX);
        self.attrs = true;
    }

    /// Bytes of the ranges whose end is known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().filter(|(_, end)| *end != u64::MAX).map(|(start, end)| end - start).sum()
    }

    pub fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.make.is_some())
            | u8::from(self.attrs) << 1
            | u8::from(self.times) << 2
            | u8::from(self.cut.is_some()) << 3;
        let mut bytes = vec![VERSION, flags];
        if let Some((lsn, kind)) = self.make {
            bytes.extend_from_slice(&lsn.0.to_be_bytes());
            bytes.push(kind as u8);
        }
        if let Some(cut) = self.cut {
            bytes.extend_from_slice(&cut.to_be_bytes());
        }
        for (start, end) in &self.ranges {
            bytes.extend_from_slice(&start.to_be_bytes());
            bytes.extend_from_slice(&end.to_be_bytes());
        }
        bytes
    }

    pub fn decode(store: &Store, bytes: &[u8]) -> Result<Self> {
        parse(bytes).ok_or_else(|| store.corrupt("what is dirty of a node"))
    }
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let (&[VERSION, flags], mut rest) = bytes.split_first_chunk::<2>()? else { return None };
    let number = |rest: &mut &[u8]| {
        let (first, more) = rest.split_first_chunk::<8>()?;
        *rest = more;
        Some(u64::from_be_bytes(*first))
    };
    let mut record = Record { attrs: flags & 2 != 0, times: flags & 4 != 0, ..Record::default() };
    if flags & 1 != 0 {
        let lsn = Lsn(number(&mut rest)?);
        let (&kind, more) = rest.split_first()?;
        rest = more;
        record.make = Some((lsn, super::super::projection::kind_from(kind)?));
    }
    if flags & 8 != 0 {
        record.cut = Some(number(&mut rest)?);
    }
    while !rest.is_empty() {
        record.ranges.push((number(&mut rest)?, number(&mut rest)?));
    }
    (flags < 16).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one_and_their_number_is_bounded() {
        let mut record = Record::default();
        record.add(10, 20);
        record.add(30, 40);
        record.add(5, 5);
        assert_eq!(record.ranges, [(10, 20), (30, 40)]);
        record.add(20, 30);
        assert_eq!(record.ranges, [(10, 40)]);
        for n in 0..RANGES_MAX as u64 {
            record.add(1000 + 10 * n, 1005 + 10 * n);
            assert!(record.ranges.len() <= RANGES_MAX);
        }
        assert_eq!(record.ranges, [(10, 1005 + 10 * (RANGES_MAX as u64 - 1))]);
    }

    #[test]
    fn a_file_that_was_cut_and_grew_again_is_dirty_from_its_shortest() {
        let mut record = Record::default();
        record.resize(100);
        record.resize(500);
        assert_eq!((record.cut, record.ranges.as_slice()), (Some(100), &[(100, u64::MAX)][..]));
        assert!(record.attrs);
        assert_eq!(record.bytes(), 0, "how many is the source's to say");
    }

    #[test]
    fn a_record_reads_back_and_damage_is_told() {
        let mut record = Record { make: Some((Lsn(7), Kind::Symlink)), times: true, ..Record::default() };
        for step in 0..4 {
            let bytes = record.encode();
            assert_eq!(parse(&bytes).as_ref(), Some(&record), "step {step}");
            assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
            match step {
                0 => record.resize(3),
                1 => record.add(0, 2),
                _ => record.make = None,
            }
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[2, 0]), None);
        assert_eq!(parse(&[1, 16]), None);
    }
}
