//! Whether a location takes names for one that are not the same bytes.
//!
//! Each name is one object's to the index and to the journal, and what they say is there must be found again by that name
//! and by no other (`filer/exact.rs` says what comes of it). So a directory that does not keep to that is refused when it is to become a
//! location. It is tried in the pen, which is made in it, and as it is: casefold, which Linux keeps by directory, is handed on.

use super::twice::{TRIAL, make};
use crate::filer::{CoreFiler, Error, ErrorKind, Object, Result};

/// In what names differ that it takes for one; `None` when it tells names apart.
pub(super) async fn takes_for_one(filer: &dyn CoreFiler, pen: &Object) -> Result<Option<&'static str>> {
    let no_entropy = |e: std::io::Error| Error::new(ErrorKind::Io, "try names", e.to_string());
    let number = u64::from_le_bytes(crate::env::random().map_err(no_entropy)?);
    let plain = format!("{TRIAL}{number:016x}");
    let upper = plain.to_ascii_uppercase();
    let plainly =
        [(upper, "in case"), (format!("{plain}."), "by a dot at the end"), (format!("{plain} "), "by a blank")];
    if let Some(how) = found_as(filer, pen, &plain, &plainly).await? {
        return Ok(Some(how));
    }
    // Some keep, or find, one of the two forms that an accent has in Unicode.
    let accented = format!("{plain}-\u{e9}");
    let others = [(format!("{plain}-e\u{301}"), "in their form of Unicode"), (format!("{plain}-\u{c9}"), "in case")];
    found_as(filer, pen, &accented, &others).await
}

/// By which of the others what has this name is found; not by any where no such name can be had.
async fn found_as(
    filer: &dyn CoreFiler,
    pen: &Object,
    name: &str,
    others: &[(String, &'static str)],
) -> Result<Option<&'static str>> {
    match make(filer, pen, name.as_bytes()).await {
        Err(error) if error.kind.is_no_entry() => return Ok(None),
        made => made?,
    }
    let found = async {
        for (other, how) in others {
            match filer.lookup(pen, other.as_bytes()).await {
                Ok(_) => return Ok(Some(*how)),
                Err(error) if error.kind.is_no_entry() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    };
    let found = found.await;
    filer.rmdir(pen, name.as_bytes()).await?;
    found
}
