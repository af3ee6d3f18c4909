//! Whether two directories are, or lie inside, one another, whatever paths lead to them.
//!
//! Two proofs, either of which decides. By identity: every ancestor up to the root of the file tree is compared, which
//! finds symlinked and nested exports. By mount: the path of each directory *within its file system* is taken from the
//! mount table, which finds bind mounts, whose `..` leads away from their real parent.

use super::errno::fail;
use super::identity;
use super::probe::walk;
use super::tree::{PATH, proc_path};
use crate::filer::{Error, ErrorKind, Result};
use journal_format::ids::Identity;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use std::path::PathBuf;

/// More than any path has: the kernel's limit is 4096 bytes.
const DEPTH_MAX: usize = 4096;

/// Whether `subdir_a` of `a` and `subdir_b` of `b` share any directory. Directories that do not exist yet are judged by
/// the last one above them that does.
pub async fn overlaps(a: PathBuf, subdir_a: Vec<Vec<u8>>, b: PathBuf, subdir_b: Vec<Vec<u8>>) -> Result<bool> {
    crate::filer::aside::call(move || Ok(Site::look(&a, &subdir_a)?.overlaps(&Site::look(&b, &subdir_b)?))).await
}

/// Where `subdir` of `path` lies now.
pub async fn site(path: PathBuf, subdir: Vec<Vec<u8>>) -> Result<Site> {
    crate::filer::aside::call(move || Site::look(&path, &subdir)).await
}

/// Where a directory lies: what it takes to tell whether another one is above or below it, without asking it again.
pub struct Site {
    position: Position,
    /// It and the directories above it, upwards; of one that does not exist the last one above it that does.
    line: Vec<Object>,
    exists: bool,
}

/// A directory on its file system: device, and names from that file system's root on.
type Position = ((u32, u32), Vec<Vec<u8>>);
/// A directory by its file system and identity.
type Object = ((u32, u32), Identity);

impl Site {
    fn look(path: &PathBuf, subdir: &[Vec<u8>]) -> Result<Self> {
        for known in (0..=subdir.len()).rev() {
            match walk(path, &subdir[..known]) {
                Ok(dir) => {
                    let missing = &subdir[known..];
                    let (position, line) = (position(&dir, missing)?, line(&dir)?);
                    return Ok(Self { position, line, exists: missing.is_empty() });
                }
                Err(e) if e.kind == ErrorKind::NotFound && known > 0 => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::new(ErrorKind::NotFound, "open the export", path.display().to_string()))
    }

    /// Whether the two share any directory.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.holds(other) || other.holds(self)
    }

    /// Whether `self` is `other` or one of the directories above it.
    fn holds(&self, other: &Self) -> bool {
        let ((own_fs, own), (other_fs, others)) = (&self.position, &other.position);
        let by_mount = own_fs == other_fs && others.starts_with(own);
        // What does not exist holds nothing, but for what is to be made in the same place, judged by that.
        by_mount || (self.exists && self.line.first().is_some_and(|own| other.line.contains(own)))
    }
}

/// Of what is to be made below the directory by these names.
fn position(dir: &OwnedFd, missing: &[Vec<u8>]) -> Result<Position> {
    let seen = identity::stat_fd(dir).map_err(fail("stat"))?;
    let path = readlinkat(CWD, proc_path(dir), Vec::new()).map_err(fail("find a directory's path"))?;
    let table = std::fs::read("/proc/self/mountinfo").map_err(super::errno::fail_io("read the mount table"))?;
    let mount = table.split(|b| *b == b'\n').find_map(|line| Mount::parse(line).filter(|m| m.id == seen.stx_mnt_id));
    let unknown = || Error::new(ErrorKind::NotSupported, "read the mount table", "the directory's mount is not in it");
    let mount = mount.ok_or_else(unknown)?;
    let path = names(path.as_bytes());
    let below = path.strip_prefix(names(&mount.at).as_slice()).ok_or_else(unknown)?;
    let mut within = names(&mount.root);
    within.extend_from_slice(below);
    within.extend_from_slice(missing);
    Ok((mount.device, within))
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

fn identify(dir: &OwnedFd) -> Result<Object> {
    let seen = identity::stat_fd(dir).map_err(fail("stat"))?;
    let id = identity::identity(identity::form(dir)?, dir, &seen)?;
    Ok(((seen.stx_dev_major, seen.stx_dev_minor), id))
}

/// `dir` and the directories above it, up to the root of the file tree, or to one that is not ours to look at: the mount
/// table has to decide then.
fn line(dir: &OwnedFd) -> Result<Vec<Object>> {
    let up = |fd: &OwnedFd| match openat(fd, c"..", PATH | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => Ok(None),
        above => above.map(Some).map_err(fail("go up")),
    };
    let mut line = vec![identify(dir)?];
    let Some(mut at) = up(dir)? else { return Ok(line) };
    for _ in 0..DEPTH_MAX {
        line.push(identify(&at)?);
        let Some(above) = up(&at)? else { return Ok(line) };
        let (here, there) = (identity::stat_fd(&at), identity::stat_fd(&above));
        let (here, there) = (here.map_err(fail("stat"))?, there.map_err(fail("stat"))?);
        if (here.stx_ino, here.stx_mnt_id) == (there.stx_ino, there.stx_mnt_id) {
            return Ok(line);
        }
        at = above;
    }
    Err(Error::new(ErrorKind::Invalid, "go up", "deeper than any path"))
}

/// A line of the mount table: `36 35 98:0 /root /mount/point options…`.
struct Mount {
    id: u64,
    device: (u32, u32),
    root: Vec<u8>,
    at: Vec<u8>,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let mut text = || fields.next();
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let id = number(text()?)?;
        text()?;
        let device = std::str::from_utf8(text()?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        Some(Self { id, device, root: unescape(text()?), at: unescape(text()?) })
    }
}

/// The mount table writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = || {
            let digits = tail.get(..3)?;
            digits.iter().try_fold(0u8, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
                _ => None,
            })
        };
        match if byte == b'\\' { octal() } else { None } {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes() {
        let line = br"36 35 98:1 /a\040b /mnt\134x rw,noatime master:1 - ext4 /dev/root rw";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, mount.device), (36, (98, 1)));
        assert_eq!((mount.root.as_slice(), mount.at.as_slice()), (&b"/a b"[..], &br"/mnt\x"[..]));
        assert!(Mount::parse(b"36 35").is_none());
    }
}
