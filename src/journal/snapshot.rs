//! Snapshots: the fold of everything before an LSN, so that recovery need not begin at the beginning.
//!
//! A snapshot is written beside, synced, renamed, and the directory synced: it is whole or not there. The newest two are
//! kept; when rot has met the newest, the older one serves as long as the segments reach back to it.

use super::error::{At, Error, Result};
use super::files::{self, Dir};
use crate::env::disk::Open;
use journal_format::ids::Lsn;
use journal_format::snapshot::{BadSnapshot, SnapshotHeader};

/// How many are kept.
const KEPT: usize = 2;

pub fn write(dir: &Dir, id: [u8; 16], lsn: Lsn, state: &[u8]) -> Result<()> {
    let name = files::snapshot_name(lsn);
    let tmp = dir.join(format!("{name}{}", files::TMP));
    let header = SnapshotHeader::of(id, lsn, state).to_bytes();
    let written = || {
        let file = dir.disk.open(&tmp, Open::Create).at("create", &tmp)?;
        crash_point!("SNAPSHOT_CREATED");
        file.write_at(&header, 0)
            .and_then(|()| file.write_at(state, header.len() as u64))
            .and_then(|()| file.sync_all())
            .at("write", &tmp)
    };
    if let Err(error) = written() {
        // Give the space back: the next one has another name.
        let _ = dir.remove(&tmp);
        return Err(error);
    }
    crash_point!("SNAPSHOT_WRITTEN");
    dir.rename(&tmp, &name)?;
    crash_point!("SNAPSHOT_RENAMED");
    dir.sync()?;
    crash_point!("SNAPSHOT_SYNCED");
    for old in dir.list()?.snapshots.iter().rev().skip(KEPT) {
        dir.remove(&dir.join(files::snapshot_name(*old)))?;
        crash_point!("SNAPSHOT_OLD_REMOVED");
    }
    Ok(())
}

/// The newest whole snapshot that is not before `start`, where the journal begins.
pub fn newest(dir: &Dir, id: [u8; 16], start: Lsn) -> Result<Option<(Lsn, Vec<u8>)>> {
    for lsn in dir.list()?.snapshots.into_iter().rev() {
        let path = dir.join(files::snapshot_name(lsn));
        let mut file = match dir.read_whole(&path) {
            Ok(file) => file,
            Err(error @ Error::Io { .. }) => {
                let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, why, "a snapshot cannot be read; looking for an older one");
                continue;
            }
            Err(error) => return Err(error),
        };
        match SnapshotHeader::open(&file).map(|(header, _)| header) {
            Ok(header) if header.journal_id != id => return Err(Error::Foreign { path }),
            Ok(header) if header.lsn != lsn => {
                tracing::warn!(path = %path.display(), states = %header.lsn, "a snapshot under a wrong name is not used");
            }
            Ok(_) if lsn < start => return Ok(None),
            Ok(_) => {
                file.drain(..journal_format::snapshot::HEADER_LEN);
                return Ok(Some((lsn, file)));
            }
            Err(error @ BadSnapshot::NewerVersion(_)) => {
                return Err(Error::NewerVersion { what: format!("{} {error}", path.display()) });
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a snapshot cannot be used; looking for an older one");
            }
        }
    }
    Ok(None)
}
