//! POSIX.1e ACLs, as Linux keeps them (`system.posix_acl_access`, `system.posix_acl_default`) and decides by them.
//!
//! The bytes are a version word (2), then eight bytes an entry: tag, permissions, id; little-endian. Of an object with an
//! ACL the mode's owner and other bits are its owner and other entries, and the group bits are its mask.

use super::{Cred, Owned};

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
/// Of an entry that names nobody.
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Owner,
    User(u32),
    Group,
    NamedGroup(u32),
    Mask,
    Other,
}

/// An ACL in the order in which Linux keeps it: owner, users, group, groups, mask, others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<(Tag, u32)>,
}

impl Acl {
    /// `None` for bytes that are no ACL.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || !rest.len().is_multiple_of(ENTRY_BYTES) {
            return None;
        }
        let entry = |bytes: &[u8]| {
            let (tag, rest) = bytes.split_first_chunk::<2>()?;
            let (perm, id) = rest.split_first_chunk::<2>()?;
            let id = u32::from_le_bytes(*id.first_chunk::<4>()?);
            let tag = match u16::from_le_bytes(*tag) {
                0x01 => Tag::Owner,
                0x02 => Tag::User(id),
                0x04 => Tag::Group,
                0x08 => Tag::NamedGroup(id),
                0x10 => Tag::Mask,
                0x20 => Tag::Other,
                _ => return None,
            };
            Some((tag, u32::from(u16::from_le_bytes(*perm)) & 7))
        };
        let entries = rest.chunks_exact(ENTRY_BYTES).map(entry).collect::<Option<Vec<_>>>()?;
        let has = |tag| entries.iter().filter(|e| e.0 == tag).count() == 1;
        (has(Tag::Owner) && has(Tag::Group) && has(Tag::Other)).then_some(Self { entries })
    }

    fn of(&self, tag: Tag) -> Option<u32> {
        self.entries.iter().find(|e| e.0 == tag).map(|e| e.1)
    }

    /// Does it allow all of `want` to a caller who is not root? The owner's entry decides for the owner; a user who is
    /// named has that entry, under the mask; a member of several groups has what one of them gives, under the mask, and
    /// never what others have.
    #[must_use]
    pub fn allows(&self, cred: &Cred<'_>, of: &Owned<'_>, want: u32) -> bool {
        let mask = self.of(Tag::Mask).unwrap_or(7);
        let mut in_one = false;
        for (tag, perm) in &self.entries {
            let group = match tag {
                Tag::Owner if cred.uid == of.uid => return perm & want == want,
                Tag::User(uid) if cred.uid == *uid => return perm & mask & want == want,
                Tag::Group => of.gid,
                Tag::NamedGroup(gid) => *gid,
                Tag::Other => return !in_one && perm & want == want,
                Tag::Owner | Tag::User(_) | Tag::Mask => continue,
            };
            if cred.in_group(group) {
                in_one = true;
                if perm & want == want {
                    return perm & mask & want == want;
                }
            }
        }
        false
    }

    /// As Linux changes it with the mode: owner, others, and the mask (where there is none the owning group) are the
    /// mode's.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        let class = if self.of(Tag::Mask).is_some() { Tag::Mask } else { Tag::Group };
        for (tag, perm) in &mut self.entries {
            match *tag {
                Tag::Owner => *perm = mode >> 6 & 7,
                Tag::Other => *perm = mode & 7,
                of if of == class => *perm = mode >> 3 & 7,
                _ => {}
            }
        }
        self
    }

    /// Permission bits of an object that has it, set-id and sticky bits aside.
    #[must_use]
    pub fn mode(&self) -> u32 {
        let class = |tag| self.of(tag).unwrap_or(0);
        class(Tag::Owner) << 6 | self.of(Tag::Mask).unwrap_or(class(Tag::Group)) << 3 | class(Tag::Other)
    }

    /// It says what the mode says: Linux keeps none, then.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.entries.len() == 3
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, perm) in &self.entries {
            let (tag, id) = match *tag {
                Tag::Owner => (0x01, NO_ID),
                Tag::User(uid) => (0x02, uid),
                Tag::Group => (0x04, NO_ID),
                Tag::NamedGroup(gid) => (0x08, gid),
                Tag::Mask => (0x10, NO_ID),
                Tag::Other => (0x20, NO_ID),
            };
            bytes.extend(u16::to_le_bytes(tag));
            let [perm, ..] = perm.to_le_bytes();
            bytes.extend([perm, 0]);
            bytes.extend(u32::to_le_bytes(id));
        }
        bytes
    }

    /// Permission bits of what is made, having asked for `mode`, in a directory that hands this (default) ACL on.
    #[must_use]
    pub fn handed_on(&self, mode: u32) -> u32 {
        let class = |tag, shift: u32| self.of(tag).map(|perm| (perm << shift) & mode);
        let group = class(Tag::Mask, 3).or(class(Tag::Group, 3)).unwrap_or(0);
        mode & 0o7000 | class(Tag::Owner, 6).unwrap_or(0) | group | class(Tag::Other, 0).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use journal_format::ids::Kind;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&bytes(entries)).unwrap()
    }

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(perm.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }

    const NONE: u32 = u32::MAX;

    #[test]
    fn each_class_has_its_entry_and_named_ones_and_groups_the_mask() {
        let acl = acl(&[
            (1, 6, NONE),
            (2, 7, 30),
            (2, 0, 31),
            (4, 0, NONE),
            (8, 6, 40),
            (8, 1, 41),
            (0x10, 5, NONE),
            (0x20, 4, NONE),
        ]);
        let of = Owned { kind: Kind::File, mode: 0o654, uid: 10, gid: 20, acl: Some(&acl) };
        let may = |uid, gid, gids: &[u32], want| acl.allows(&Cred { uid, gid, gids }, &of, want);
        assert!(may(10, 99, &[], 6) && !may(10, 99, &[], 1), "the owner");
        assert!(may(30, 99, &[], 5) && !may(30, 99, &[], 2), "a named user, under the mask");
        assert!(!may(31, 40, &[], 4), "one who is refused by name is not helped by a group");
        assert!(!may(50, 20, &[], 4), "the owning group, which the mode's group bits are not");
        assert!(may(50, 20, &[40], 4) && !may(50, 20, &[40], 2), "the best of his groups, under the mask");
        assert!(may(50, 41, &[], 1) && !may(50, 41, &[40], 5), "but not several added up");
        assert!(may(50, 99, &[], 4) && !may(50, 99, &[], 2), "others");
    }

    #[test]
    fn what_is_handed_on_is_no_more_than_was_asked_for() {
        let with_mask = acl(&[(1, 7, NONE), (2, 7, 30), (4, 5, NONE), (0x10, 6, NONE), (0x20, 1, NONE)]);
        assert_eq!(with_mask.handed_on(0o2777), 0o2761);
        assert_eq!(with_mask.handed_on(0o640), 0o640);
        let plain = acl(&[(1, 7, NONE), (4, 5, NONE), (0x20, 0, NONE)]);
        assert_eq!(plain.handed_on(0o666), 0o640);
    }

    #[test]
    fn a_mode_changes_the_mask_and_what_it_gives_is_read_from_it() {
        let with_mask = acl(&[(1, 7, NONE), (2, 7, 30), (4, 5, NONE), (8, 6, 40), (0x10, 7, NONE), (0x20, 1, NONE)]);
        let narrowed = with_mask.clone().with_mode(0o4620);
        let due = [(1, 6, NONE), (2, 7, 30), (4, 5, NONE), (8, 6, 40), (0x10, 2, NONE), (0x20, 0, NONE)];
        assert_eq!(narrowed.to_bytes(), bytes(&due));
        assert_eq!((with_mask.mode(), narrowed.mode(), narrowed.is_plain()), (0o771, 0o620, false));
        let plain = acl(&[(1, 7, NONE), (4, 5, NONE), (0x20, 0, NONE)]).with_mode(0o640);
        assert_eq!(plain.to_bytes(), bytes(&[(1, 6, NONE), (4, 4, NONE), (0x20, 0, NONE)]));
        assert_eq!((plain.mode(), plain.is_plain()), (0o640, true));
    }

    #[test]
    fn bytes_that_are_no_acl_are_none() {
        let good = bytes(&[(1, 6, NONE), (4, 4, NONE), (0x20, 4, NONE)]);
        assert!(Acl::parse(&good).is_some());
        for cut in 0..good.len() {
            assert_eq!(Acl::parse(&good[..cut]), None, "{cut}");
        }
        assert_eq!(Acl::parse(&bytes(&[(1, 6, NONE), (4, 4, NONE), (3, 4, NONE)])), None, "a tag that is none");
        assert_eq!(Acl::parse(&bytes(&[(1, 6, NONE), (1, 6, NONE), (4, 4, NONE), (0x20, 4, NONE)])), None);
    }
}
