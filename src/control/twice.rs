//! Whether two locations are one directory, by whatever ways they are reached.
//!
//! Identities tell it as long as both ways show the same: two mounts of a remote directory (by two names of its server,
//! by two versions of the protocol) need not. So the filer is asked: what is made by the one way is in the way of the
//! other. Nothing that a mount remembers hides it, for only the server says whether a name is free. A copy of the
//! directory, and a clone of its file system, are told from it so, too.

use crate::filer::{CoreFiler, ErrorKind, MakeAttrs, Object, Result};
use journal_format::event::What;

/// How names in a pen begin that are only tried.
pub(super) const TRIAL: &str = "trial-";
/// More entries of a pen than a service leaves there that died in trials, however often.
const LOOKED_AT: usize = 64;

/// Tried in the pens, which no client sees. That of `used` stays, for a replayer may be about to use it.
pub(super) async fn is_one(used: &dyn CoreFiler, other: &dyn CoreFiler) -> Result<bool> {
    let no_entropy = |e: std::io::Error| crate::filer::Error::new(ErrorKind::Io, "look for a directory", e.to_string());
    let random = crate::env::random().map_err(no_entropy)?;
    let name = format!("{TRIAL}{:016x}", u64::from_le_bytes(random)).into_bytes();
    let pen = used.pen().await?;
    make(used, &pen, &name).await?;
    let there = is_there(other, &name).await;
    used.rmdir(&pen, &name).await?;
    there
}

async fn is_there(other: &dyn CoreFiler, name: &[u8]) -> Result<bool> {
    let pen = other.pen().await?;
    match make(other, &pen, name).await {
        Ok(()) => {
            other.rmdir(&pen, name).await?;
            other.remove_pen().await?;
            Ok(false)
        }
        Err(error) if error.kind == ErrorKind::Exists => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether there is something in the pen of a place that is nobody's yet. A service that died in a trial has left an empty
/// directory, which goes.
pub(super) async fn holds_anything(filer: &dyn CoreFiler, pen: &Object) -> Result<bool> {
    for name in filer.list(pen, 0, LOOKED_AT).await?.names {
        if !name.starts_with(TRIAL.as_bytes()) || filer.rmdir(pen, &name).await.is_err() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) async fn make(filer: &dyn CoreFiler, pen: &Object, name: &[u8]) -> Result<()> {
    let stat = filer.stat(pen).await?;
    let attrs = MakeAttrs { mode: 0o700, uid: stat.uid, gid: stat.gid, inherits: false };
    filer.make(pen, name, &What::Dir, attrs).await.map(drop)
}
