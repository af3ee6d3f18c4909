//! What is damaged, as `verify`, `info` and `stats` tell it.

use crate::directory::Directory;
use anyhow::Result;
use journal_format::scan::Place;
use std::collections::BTreeSet;

/// While the service runs, what is read first may be older than what is read last, and each look may meet something
/// else of that kind: damage is believed when a second look gives it the same name. After so many without any, there is
/// none.
const LOOKS: usize = 3;

/// A place without a record.
pub struct Gap {
    pub lsn: u64,
    pub segment: u64,
    pub offset: u64,
    pub what: String,
    pub zeros: bool,
    /// Whole records of the same segment behind it.
    pub records_behind: bool,
}

impl Gap {
    pub fn new(segment: u64, place: Place, what: String, zeros: bool, resumes: Option<u64>) -> Gap {
        let Place { lsn, offset, .. } = place;
        Gap { lsn: lsn.0, segment, offset, what, zeros, records_behind: resumes.is_some() }
    }
}

/// The gaps that are damage: they are before what was stated durable. How much was durable is not in the text: it grows
/// beside a service.
pub fn before_durable(gaps: &[Gap], stated: u64) -> impl Iterator<Item = String> {
    gaps.iter().filter(move |gap| gap.lsn < stated).map(|gap| {
        let Gap { segment, offset, lsn, what, .. } = gap;
        format!("segment {segment}, offset {offset} (LSN {lsn}): {what}, and this was durable")
    })
}

/// Segments behind the last one are missing: all of it was read, without a gap, and more than that was durable.
pub fn missing_behind(dir: &Directory, gaps: &[Gap], stated: u64) -> Option<String> {
    let end = dir.segments.iter().rev().find_map(|segment| segment.header.as_ref().ok())?.end_lsn().0;
    (gaps.is_empty() && end < stated)
        .then(|| format!("the journal ends at LSN {end}, before what was durable: segments are missing"))
}

/// What `look` gives: the last look's, and the damage that an earlier one has named, too. A directory is judged when it
/// was read, so that what was recycled meanwhile is known.
pub fn believed<T>(mut look: impl FnMut() -> Result<(Directory, T, Vec<String>)>) -> Result<(T, Vec<String>)> {
    let (mut known, mut looks) = (BTreeSet::new(), 0);
    loop {
        let (dir, seen, damage) = look()?;
        let damage = dir.but_recycled(damage)?;
        let again: Vec<String> = damage.iter().filter(|what| known.contains(*what)).cloned().collect();
        looks += 1;
        if damage.is_empty() || !again.is_empty() || looks == LOOKS {
            return Ok((seen, again));
        }
        known.extend(damage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::RECYCLED;
    use journal_format::event::samples;
    use journal_format::ids::SegmentNo;
    use journal_format::segment::SegmentHeader;
    use std::path::Path;

    fn journal(dir: &Path, segments: u64) -> Result<()> {
        let (header, _) = samples::segment();
        for number in 0..segments {
            let mut bytes = SegmentHeader { number: SegmentNo(number), ..header }.to_bytes();
            bytes.resize(usize::try_from(header.size)?, 0);
            std::fs::write(dir.join(format!("segment-{number:016x}")), bytes)?;
        }
        Ok(())
    }

    #[test]
    fn damage_is_believed_when_two_looks_give_it_one_name() -> Result<()> {
        let temp = tempfile::tempdir()?;
        journal(temp.path(), 1)?;
        let told = |looks: &[&[&str]]| -> Result<(usize, Vec<String>)> {
            let mut rest = looks.iter();
            let look = || {
                let damage = rest.next().copied().unwrap_or_default().iter().map(|what| (*what).to_owned()).collect();
                Ok((Directory::open(&[temp.path().to_owned()])?, (), damage))
            };
            let ((), damage) = believed(look)?;
            Ok((looks.len() - rest.len(), damage))
        };
        assert_eq!(told(&[&[], &["a"]])?, (1, vec![]));
        assert_eq!(told(&[&["a"], &[], &["a"]])?, (2, vec![]));
        assert_eq!(told(&[&["a"], &["b", "a"]])?, (2, vec!["a".to_owned()]));
        assert_eq!(told(&[&["a"], &["b"], &["a", "c"]])?, (3, vec!["a".to_owned()]));
        assert_eq!(told(&[&["a"], &["b"], &["c"]])?, (3, vec![]), "each look met another segment on its way");
        Ok(())
    }

    #[test]
    fn a_segment_that_is_recycled_at_the_journals_beginning_is_no_damage_and_one_of_its_midst_is() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let gone = |number: u64| -> Result<Vec<String>> {
            journal(temp.path(), 3)?;
            let path = temp.path().join(format!("segment-{number:016x}"));
            let what = format!("{}: {RECYCLED}", path.display());
            let (_, damage) = believed(|| {
                let dir = Directory::open(&[temp.path().to_owned()])?;
                std::fs::rename(&path, temp.path().join("spare-0000000000000000"))?;
                let dir_damage = dir.but_recycled(vec![what.clone()])?;
                std::fs::rename(temp.path().join("spare-0000000000000000"), &path)?;
                Ok((dir, (), dir_damage))
            })?;
            Ok(damage)
        };
        assert_eq!(gone(0)?, Vec::<String>::new());
        assert_eq!(gone(1)?.len(), 1);
        Ok(())
    }
}
