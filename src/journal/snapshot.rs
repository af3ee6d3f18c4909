//! Snapshots: the fold of everything before an LSN, so that recovery need not begin at the beginning.
//!
//! A snapshot is written beside, synced, renamed, and the directory synced: it is whole or not there. The newest two are
//! kept; when rot has met the newest, the older one serves as long as the segments reach back to it.

use super::error::{At, Error, Result};
use super::files;
use journal_format::ids::Lsn;
use journal_format::snapshot::{BadSnapshot, SnapshotHeader};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How many are kept.
const KEPT: usize = 2;

pub fn write(dir: &Path, id: [u8; 16], lsn: Lsn, state: &[u8]) -> Result<()> {
    let name = files::snapshot_name(lsn);
    let tmp = dir.join(format!("{name}{}", files::TMP));
    let header = SnapshotHeader::of(id, lsn, state);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&tmp).at("create", &tmp)?;
    file.write_all(&header.to_bytes())
        .and_then(|()| file.write_all(state))
        .and_then(|()| file.sync_all())
        .at("write", &tmp)?;
    files::rename(dir, &tmp, &name)?;
    files::sync_dir(dir)?;
    let all = files::list(dir)?.snapshots;
    for old in all.iter().rev().skip(KEPT) {
        let path = dir.join(files::snapshot_name(*old));
        std::fs::remove_file(&path).at("remove", &path)?;
    }
    Ok(())
}

/// The newest whole snapshot that is not before `start`, where the journal begins.
pub fn newest(dir: &Path, id: [u8; 16], start: Lsn) -> Result<Option<(Lsn, Vec<u8>)>> {
    for lsn in files::list(dir)?.snapshots.into_iter().rev() {
        let path = dir.join(files::snapshot_name(lsn));
        let mut file = std::fs::read(&path).at("read", &path)?;
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
