//! Names byte by byte, also where a filer takes several for one.
//!
//! A directory may be so made that `a`, `A`, and an accent in either form of Unicode are one name (casefold on Linux, mounts
//! of Windows' and Apple's systems). To tain, its index and its journal a name is its bytes. What such a filer says it has
//! under a name that it does not list would get a second name there: a copy would have it twice; and a redo that finds an older
//! object by the name of one that was still to be made would take it for that one, and empty it. So whoever believes a name alone
//! asks here. What is then not found is still in the way of whoever makes something under that name: the filer says that
//! it is there.

use super::{CoreFiler, Error, ErrorKind, Object, Result};

/// Names that are read at a time.
const PAGE: usize = 1024;

/// [`CoreFiler::lookup`], and [`ErrorKind::NotFound`] for what the directory lists by other bytes alone.
pub async fn lookup(filer: &dyn CoreFiler, dir: &Object, name: &[u8]) -> Result<Object> {
    let found = filer.lookup(dir, name).await?;
    if has(filer, dir, name).await? {
        return Ok(found);
    }
    Err(Error::new(ErrorKind::NotFound, "look up", "it is listed by another name, which the filer takes for this one"))
}

/// Whether a name that leads to something is just the one that the directory lists. To read all of it is for those directories that
/// take names for one.
pub async fn has(filer: &dyn CoreFiler, dir: &Object, name: &[u8]) -> Result<bool> {
    if !filer.folds_names(dir).await? {
        return Ok(true);
    }
    let mut from = Some(0);
    while let Some(at) = from {
        let page = filer.list(dir, at, PAGE).await?;
        if page.names.iter().any(|listed| listed == name) {
            return Ok(true);
        }
        from = page.next;
    }
    Ok(false)
}
