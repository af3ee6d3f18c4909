//! The database as of one commit, for reads.

use super::{DbResult, Key, MAP};
use redb::{Database, Range, ReadOnlyTable, ReadableDatabase};
use std::ops::Bound;

/// Keys' first bytes (the tables of those who use the store) of which the last key is kept.
const ENDS_MAX: usize = 16;

/// One read transaction.
pub struct Below {
    map: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// The last key of each first byte. Most keys that are asked for and are not there are behind it: a new node has the
    /// highest number of all. `None`: there are too many.
    ends: Option<Vec<Key>>,
}

impl Below {
    pub fn open(db: &Database) -> DbResult<Self> {
        let map = db.begin_read()?.open_table(MAP)?;
        let mut ends: Vec<Key> = Vec::new();
        loop {
            let before = ends.last().and_then(|end| end.get(..1));
            let end = before.map_or(Bound::Unbounded, Bound::Excluded);
            let last = map.range::<&[u8]>((Bound::Unbounded, end))?.next_back().transpose()?;
            match last {
                Some((key, _)) if !key.value().is_empty() && ends.len() < ENDS_MAX => ends.push(key.value().to_vec()),
                Some(_) => return Ok(Self { map, ends: None }),
                None => return Ok(Self { map, ends: Some(ends) }),
            }
        }
    }

    pub fn get(&self, key: &[u8]) -> DbResult<Option<Vec<u8>>> {
        if self.is_behind(key) {
            return Ok(None);
        }
        Ok(self.map.get(key)?.map(|found| found.value().to_vec()))
    }

    /// No key of that first byte is so high.
    fn is_behind(&self, key: &[u8]) -> bool {
        let Some(ends) = &self.ends else { return false };
        !ends.iter().any(|end| end.first() == key.first() && key <= end.as_slice())
    }

    pub fn range<'k>(
        &self,
        start: Bound<&'k [u8]>,
        end: Bound<&'k [u8]>,
    ) -> DbResult<Range<'static, &'static [u8], &'static [u8]>> {
        Ok(self.map.range::<&[u8]>((start, end))?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use redb::backends::InMemoryBackend;

    fn below(keys: &[&[u8]]) -> Below {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = db.begin_write().unwrap();
        {
            let mut map = txn.open_table(MAP).unwrap();
            for key in keys {
                map.insert(*key, b"v".as_slice()).unwrap();
            }
        }
        txn.commit().unwrap();
        Below::open(&db).unwrap()
    }

    #[test]
    fn what_is_there_is_found_and_only_what_cannot_be_there_is_not_looked_for() {
        let keys: [&[u8]; 6] = [b"A", b"A1", b"B5", b"B7", b"C\xff\xff", b"\xff"];
        let below = below(&keys);
        for key in keys {
            assert!(below.get(key).unwrap().is_some() && !below.is_behind(key), "{key:?}");
        }
        for key in [b"A2".as_slice(), b"B8", b"B70", b"C\xff\xff\0", b"D", b"", b"\xff\0"] {
            assert!(below.get(key).unwrap().is_none() && below.is_behind(key), "{key:?}");
        }
        for key in [b"A0".as_slice(), b"B6", b"B", b"C"] {
            assert!(below.get(key).unwrap().is_none() && !below.is_behind(key), "{key:?}");
        }
    }

    #[test]
    fn with_too_many_first_bytes_every_key_is_looked_for() {
        let keys: Vec<[u8; 2]> = (1..=20).map(|first| [first, 1]).collect();
        let keys: Vec<&[u8]> = keys.iter().map(<[u8; 2]>::as_slice).collect();
        let below = below(&keys);
        assert!(keys.iter().all(|key| below.get(key).unwrap().is_some()) && !below.is_behind(&[1, 2]));
        assert!(below.get(&[1, 2]).unwrap().is_none());
    }
}
