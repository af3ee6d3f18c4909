//! Directories that take names for one which are not the same bytes.
//!
//! Linux keeps it by directory (casefold of ext4, F2FS, tmpfs and bcachefs: given to an empty one, and handed on to what is made
//! in it), and tells it as a flag. Other file systems are so as a whole, or are mounted so (FAT, SMB, HFS+, ZFS and XFS by an
//! option of their making), and tell nothing. There a name that is listed is asked for in another case: what nobody calls so,
//! and is found, says it. That changes nothing, and so can be done where nothing may be made. The form of Unicode cannot
//! be told like that, for names with accents may be rare: who may make something tries that, too (`control/folding.rs`).

use super::errno::fail;
use super::node::Node;
use super::tree::Tree;
use crate::filer::Result;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, RawDir, Stat, ioctl_getflags, statat};
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// `FS_CASEFOLD_FL`, for which `rustix` has no name.
const CASEFOLD: u32 = 0x4000_0000;

/// Listed names that are asked for in another case: those without a letter, and hard links, tell nothing.
const ENTRIES_TRIED_MAX: usize = 32;
const ENTRIES_BUF: usize = 8 << 10;

/// What is known of a directory without asking: `None` when it has not been asked.
pub(super) fn known(tree: &Tree, dir: &Node) -> Option<bool> {
    match tree.folding {
        Folding::Everywhere => Some(true),
        Folding::Untold => Some(false),
        Folding::ByDirectory => dir.folds_names.get().copied(),
    }
}

/// Asked once for as long as the directory is kept: it may change while nothing is in it, and not later.
pub(super) fn ask(tree: &Tree, dir: &Node) -> Result<bool> {
    let fd = tree.reader(dir)?;
    let flagged = match is_flagged(&fd) {
        // Others of its file system have flags.
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => false,
        flagged => flagged.map_err(fail("ask for a directory's flags"))?,
    };
    Ok(*dir.folds_names.get_or_init(|| flagged))
}

/// Of a location, as its directory was when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folding {
    /// In its directory, and so in whatever is made there.
    Everywhere,
    /// Not there, and each directory says whether it does.
    ByDirectory,
    /// Not there as far as one can see, and no directory says anything.
    Untold,
}

impl Folding {
    /// `dir`: open for reading, at its beginning.
    pub fn of(dir: &OwnedFd) -> Self {
        match is_flagged(dir) {
            Ok(true) => Self::Everywhere,
            _ if answers_to_another_case(dir) => Self::Everywhere,
            Ok(false) => Self::ByDirectory,
            Err(_) => Self::Untold,
        }
    }
}

fn is_flagged(dir: impl AsFd) -> rustix::io::Result<bool> {
    ioctl_getflags(dir).map(|flags| flags.bits() & CASEFOLD != 0)
}

/// Whether one of the names in a directory is found in another case. What cannot be read says nothing.
fn answers_to_another_case(dir: &OwnedFd) -> bool {
    let mut buf = vec![MaybeUninit::uninit(); ENTRIES_BUF];
    let mut entries = RawDir::new(dir, &mut buf);
    for _ in 0..ENTRIES_TRIED_MAX {
        let Some(Ok(entry)) = entries.next() else { return false };
        if let Some(answers) = found_in_another_case(dir, entry.file_name().to_bytes()) {
            return answers;
        }
    }
    false
}

/// Whether the object `name` is found in another case; `None` where that cannot be told by it.
pub(super) fn found_in_another_case(dir: &OwnedFd, name: &[u8]) -> Option<bool> {
    let other = in_another_case(name)?;
    let look = |name: &[u8]| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT);
    match (look(name), look(&other)) {
        (Ok(_), Err(Errno::NOENT)) => Some(false),
        (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) => Some(false),
        (Ok(a), Ok(_)) => has_one_name(&a).then_some(true),
        _ => None,
    }
}

/// Of several, the other one may be that in another case.
fn has_one_name(seen: &Stat) -> bool {
    FileType::from_raw_mode(seen.st_mode) == FileType::Directory || seen.st_nlink == 1
}

fn in_another_case(name: &[u8]) -> Option<Vec<u8>> {
    let swap =
        |byte: &u8| if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
    let other: Vec<u8> = name.iter().map(swap).collect();
    (other != name).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_directory_of_a_system_that_tells_names_apart_folds_none() {
        let temp = tempfile::tempdir().unwrap();
        assert_ne!(Folding::of(&open(temp.path())), Folding::Everywhere, "nothing is in it");
        for name in ["123", "both", "BOTH", "linked"] {
            std::fs::write(temp.path().join(name), name).unwrap();
        }
        std::fs::hard_link(temp.path().join("linked"), temp.path().join("LINKED")).unwrap();
        assert_ne!(Folding::of(&open(temp.path())), Folding::Everywhere);
        let found = |name: &[u8]| found_in_another_case(&open(temp.path()), name);
        assert_eq!(found(b"123"), None, "it has no other case");
        assert_eq!(found(b"both"), Some(false), "they are two");
        assert_eq!(found(b"linked"), None, "it has both names");
        std::fs::remove_file(temp.path().join("BOTH")).unwrap();
        assert_eq!((found(b"both"), found(b"gone")), (Some(false), None));
    }

    #[test]
    fn another_case_is_that_of_letters_alone() {
        assert_eq!(in_another_case(b"aB-1.\xc3\xa9").unwrap(), b"Ab-1.\xc3\xa9");
        assert_eq!(in_another_case(b"1.\xc3\xa9"), None);
    }
}
