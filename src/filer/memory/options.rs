//! What a filer in memory can do.

use crate::filer::Capabilities;

/// How a filer in memory is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub capabilities: Capabilities,
    /// The service's user, for when owners cannot be changed.
    pub uid: u32,
    pub gid: u32,
    /// Bytes that it holds at first; `u64::MAX` is no limit.
    pub space: u64,
    /// Longest name that it takes; `check_name` has the last word.
    pub name_max: usize,
    /// Largest extended attribute that an object has room for.
    pub xattr_max: usize,
    /// Files without a name that may be held at a time.
    pub nameless_max: usize,
    /// Names without case, and in another form of Unicode, are one ([`fold`](super::image::fold)).
    pub folds_names: bool,
    /// Number of its root, from which the others go up: filers of one world must not have an identity in common.
    pub first: u64,
}

impl Default for Options {
    fn default() -> Self {
        let capabilities = Capabilities {
            hard_links: true,
            nameless: true,
            special_files: true,
            holes: true,
            xattrs: true,
            acls: true,
            open_by_identity: true,
            lasting_positions: true,
            chown: true,
        };
        Self {
            capabilities,
            uid: 0,
            gid: 0,
            space: u64::MAX,
            name_max: usize::MAX,
            xattr_max: usize::MAX,
            nameless_max: 64,
            folds_names: false,
            first: 1,
        }
    }
}
