//! What a name in an argument may be. The volume and the filers check again; what stops here costs nothing.

use crate::volume::types::{NAME_MAX, SYMLINK_MAX, Status};
use crate::wire::nfs3::Name;

/// A name to look for: `.` and `..` are.
pub fn existing(name: &Name) -> Result<&[u8], Status> {
    match &name.0[..] {
        b"" => Err(Status::Inval),
        name if name.len() > NAME_MAX => Err(Status::NameTooLong),
        name if name.contains(&b'/') || name.contains(&0) => Err(Status::Inval),
        name => Ok(name),
    }
}

/// A name to be made.
pub fn new(name: &Name) -> Result<&[u8], Status> {
    match existing(name)? {
        b"." | b".." => Err(Status::Exist),
        name => Ok(name),
    }
}

/// A name to be taken away, or one side of a RENAME.
pub fn removable(name: &Name) -> Result<&[u8], Status> {
    match existing(name)? {
        b"." | b".." => Err(Status::Inval),
        name => Ok(name),
    }
}

/// As [`removable`], for RMDIR, where RFC 1813 tells the two apart.
pub fn removable_dir(name: &Name) -> Result<&[u8], Status> {
    match existing(name)? {
        b"." => Err(Status::Inval),
        b".." => Err(Status::Exist),
        name => Ok(name),
    }
}

/// The text of a symbolic link.
pub fn target(text: &Name) -> Result<&[u8], Status> {
    match &text.0[..] {
        b"" => Err(Status::Inval),
        text if text.len() > SYMLINK_MAX => Err(Status::NameTooLong),
        text if text.contains(&0) => Err(Status::Inval),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        let name = |n: &[u8]| Name(n.to_vec().into());
        for (bad, status) in [
            (&b""[..], Status::Inval),
            (b"../x", Status::Inval),
            (b"/abs", Status::Inval),
            (b"a/b", Status::Inval),
            (b"a\0b", Status::Inval),
            (&[b'x'; 256], Status::NameTooLong),
        ] {
            for check in [existing, new, removable, removable_dir] {
                assert_eq!(check(&name(bad)), Err(status), "{bad:?}");
            }
        }
        assert_eq!(existing(&name(b"..")), Ok(&b".."[..]));
        assert_eq!(new(&name(b"..")), Err(Status::Exist));
        assert_eq!(removable(&name(b".")), Err(Status::Inval));
        assert_eq!(removable_dir(&name(b"..")), Err(Status::Exist));
        assert_eq!(new(&name(&[0xff; 255])), Ok(&[0xff; 255][..]), "any bytes, up to 255");
        assert_eq!(target(&name(b"../anything")), Ok(&b"../anything"[..]));
        assert_eq!(target(&name(&[b'x'; 4095])).map(<[u8]>::len), Ok(4095));
        assert_eq!(target(&name(&[b'x'; 4096])), Err(Status::NameTooLong));
    }
}
