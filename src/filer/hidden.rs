//! What tain hides at a location's root, what names a filer takes, and the owner marker as text.

use super::{Error, ErrorKind, OwnerMarker, Result};
use std::fmt::Write as _;

/// The owner marker where the root takes no extended attributes.
pub const OWNER_FILE: &[u8] = b".tain-owner";
/// The owner marker while it is being written.
pub const OWNER_FILE_NEW: &[u8] = b".tain-owner.new";
/// The pen.
pub const PEN: &[u8] = b".tain-pen";
/// The owner marker where the root takes extended attributes.
pub const OWNER_XATTR: &[u8] = b"user.tain.owner";

/// Longest owner marker that is read back.
pub const MARKER_BYTES_MAX: usize = 4096;

/// Hidden at a location's root, whatever form the marker has there: what clients see must not depend on it.
#[must_use]
pub fn is_hidden(name: &[u8]) -> bool {
    name == OWNER_FILE || name == OWNER_FILE_NEW || name == PEN
}

/// Refuses what is not a single path component.
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(Error::new(ErrorKind::Invalid, "check name", "a name has 1 to 255 bytes"));
    }
    if name == b"." || name == b".." || name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Error::new(ErrorKind::Invalid, "check name", "not a plain name"));
    }
    Ok(())
}

impl OwnerMarker {
    const HEAD: &'static str = "tain-owner 1";

    /// One line that people can read too.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut id = String::with_capacity(32);
        for byte in self.journal_id {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        format!("{} journal={id} location={} epoch={}\n", Self::HEAD, self.location, self.epoch)
    }

    /// The marker in `text`; an error where it is anything else, for a marker that is not understood is still a marker.
    pub fn from_text(text: &[u8]) -> Result<Self> {
        parse(text).ok_or_else(|| {
            let shown = String::from_utf8_lossy(text.get(..80).unwrap_or(text)).into_owned();
            Error::new(ErrorKind::Invalid, "read the owner marker", format!("not understood: {shown:?}"))
        })
    }
}

fn parse(text: &[u8]) -> Option<OwnerMarker> {
    let text = std::str::from_utf8(text).ok()?.trim_end();
    let mut parts = text.strip_prefix(OwnerMarker::HEAD)?.split_ascii_whitespace();
    let hex = parts.next()?.strip_prefix("journal=")?;
    let location = parts.next()?.strip_prefix("location=")?.parse().ok()?;
    let epoch = parts.next()?.strip_prefix("epoch=")?.parse().ok()?;
    if parts.next().is_some() || hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let mut journal_id = [0; 16];
    for (byte, at) in journal_id.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(OwnerMarker { journal_id, location, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back_as_it_was_written() {
        let marker = OwnerMarker { journal_id: *b"0123456789\xff\x00abcd", location: 7, epoch: u64::MAX };
        assert_eq!(OwnerMarker::from_text(marker.to_text().as_bytes()).unwrap(), marker);
    }

    #[test]
    fn a_damaged_marker_is_an_error_and_not_no_marker() {
        let good = OwnerMarker { journal_id: [1; 16], location: 7, epoch: 3 }.to_text();
        for bad in
            ["", "tain-owner 2 x", "tain-owner 1 journal=00 location=1 epoch=1", good.replace("01", "zz").as_str()]
        {
            assert_eq!(OwnerMarker::from_text(bad.as_bytes()).unwrap_err().kind, ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert_eq!(check_name(bad).unwrap_err().kind, ErrorKind::Invalid);
        }
        for good in [&b"..."[..], b"..a", b"\xff\xfe", &[b'x'; 255]] {
            check_name(good).unwrap();
        }
    }
}
