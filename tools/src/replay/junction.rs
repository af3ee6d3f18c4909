//! The junction whose tree is meant. Its path may have led to others, which were removed.

use crate::show;
use anyhow::{Result, bail};
use journal_format::event::JunctionAdded;
use journal_format::ids::Lsn;

/// A junction as the journal at hand tells of it.
pub struct Junction {
    pub at: Lsn,
    pub added: JunctionAdded,
    pub removed: Option<Lsn>,
}

/// What is known of the one that is meant.
#[derive(Default)]
pub struct Wanted<'a> {
    pub path: Option<&'a str>,
    pub id: Option<u32>,
    /// What the copy holds.
    pub base_lsn: Option<u64>,
}

impl Junction {
    fn path(&self) -> String {
        show::path(&self.added.path)
    }

    /// After everything before the LSN.
    fn is_there(&self, lsn: u64) -> bool {
        self.at.0 < lsn && self.removed.is_none_or(|removed| removed.0 >= lsn)
    }
}

/// `None`: there is none like that.
pub fn choose<'a>(all: &'a [Junction], wanted: &Wanted<'_>) -> Result<Option<&'a JunctionAdded>> {
    let meant = |junction: &&Junction| {
        wanted.path.is_none_or(|path| path == junction.path())
            && wanted.id.is_none_or(|id| id == junction.added.junction.0)
    };
    let meant: Vec<&Junction> = all.iter().filter(meant).collect();
    let Some(first) = meant.first() else { return Ok(None) };
    let one = match meant.iter().all(|other| other.added.path == first.added.path) {
        true => of_one_path(&meant, wanted.base_lsn),
        false => None,
    };
    match one {
        Some(one) => Ok(Some(&one.added)),
        None => bail!(
            "the journal knows several junctions, choose one with --junction or --junction-id:\n  {}",
            meant.iter().map(|junction| line(junction)).collect::<Vec<_>>().join("\n  ")
        ),
    }
}

/// The only one; else the one that the copy was made of; else the one that is left.
fn of_one_path<'a>(meant: &[&'a Junction], base_lsn: Option<u64>) -> Option<&'a Junction> {
    let copied = || base_lsn.and_then(|lsn| meant.iter().rfind(|junction| junction.is_there(lsn)));
    let left = || {
        let mut left = meant.iter().filter(|junction| junction.removed.is_none());
        left.next().filter(|_| left.next().is_none())
    };
    match meant {
        [one] => Some(one),
        _ => copied().or_else(left).copied(),
    }
}

fn line(junction: &Junction) -> String {
    let (path, id, at) = (junction.path(), junction.added.junction.0, junction.at);
    let removed = junction.removed.map(|lsn| format!(", removed at LSN {lsn}")).unwrap_or_default();
    format!("{path}: id {id}, added at LSN {at}{removed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::event::{Event, samples};
    use journal_format::ids::JunctionId;

    fn junction(id: u32, name: &str, at: u64, removed: Option<u64>) -> Junction {
        let sample = samples::all().into_iter().find_map(|(event, _)| match event {
            Event::JunctionAdded(added) => Some(added),
            _ => None,
        });
        let added = JunctionAdded { junction: JunctionId(id), path: vec![name.into()], ..sample.unwrap() };
        Junction { at: Lsn(at), added, removed: removed.map(Lsn) }
    }

    #[test]
    fn of_a_path_that_was_used_again_it_is_the_junction_that_the_copy_was_made_of() {
        let all = [
            junction(1, "a", 100, Some(200)),
            junction(2, "a", 300, Some(400)),
            junction(3, "b", 350, None),
            junction(4, "a", 500, None),
        ];
        let id = |path, id, base_lsn| {
            choose(&all, &Wanted { path, id, base_lsn }).map(|found| found.map(|added| added.junction.0))
        };
        for (base_lsn, is) in [(101, 1), (200, 1), (301, 2), (400, 2), (501, 4), (250, 4), (100, 4)] {
            assert_eq!(id(Some("/a"), None, Some(base_lsn)).unwrap(), Some(is), "{base_lsn}");
        }
        assert_eq!(id(Some("/a"), Some(2), Some(501)).unwrap(), Some(2));
        assert_eq!(id(None, Some(3), None).unwrap(), Some(3));
        assert_eq!(id(Some("/b"), Some(2), None).unwrap(), None);
        let why = id(None, None, Some(501)).unwrap_err().to_string();
        assert!(why.contains("/a: id 2, added at LSN 300, removed at LSN 400\n  /b: id 3"), "{why}");
        let why = choose(&all[..2], &Wanted { base_lsn: Some(250), ..Wanted::default() }).map(|_| ()).unwrap_err();
        assert!(why.to_string().contains("--junction-id"), "{why}");
    }
}
