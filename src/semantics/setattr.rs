//! SETATTR: from a wish to explicit values, or a refusal.

use super::permission::{WRITE, allows, may_write_data};
use super::{Cred, Denied, Owned, S_ISGID, resulting};
use journal_format::ids::{Kind, Time};

/// What a client wants of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    #[default]
    Keep,
    Server,
    Client(Time),
}

/// sattr3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttrs {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// Explicit values, as the event and the filer get them; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explicit {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

impl Explicit {
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Guarded SETATTR: the client's idea of the ctime must be ours.
pub fn guard(guard: Option<Time>, ctime: Time) -> Result<(), Denied> {
    match guard {
        Some(seen) if seen != ctime => Err(Denied::NotSync),
        _ => Ok(()),
    }
}

/// May `cred` have its wish, and what does it come to? `now` stands for "the server's time". Kinds whose size cannot be
/// set are refused by the caller, before.
pub fn decide(cred: &Cred<'_>, of: &Owned<'_>, wish: &SetAttrs, now: Time) -> Result<Explicit, Denied> {
    let owner = cred.is_root() || cred.uid == of.uid;
    times_allowed(cred, of, wish, owner)?;
    owners_allowed(cred, of, wish, owner)?;
    if wish.mode.is_some() && !owner {
        return Err(Denied::Owner);
    }
    if wish.size.is_some() && !may_write_data(cred, of) {
        return Err(Denied::Access);
    }
    Ok(Explicit {
        mode: mode(cred, of, wish),
        uid: wish.uid.filter(|uid| *uid != of.uid),
        gid: wish.gid.filter(|gid| *gid != of.gid),
        size: wish.size,
        atime: time(wish.atime, now),
        mtime: time(wish.mtime, now),
    })
}

fn times_allowed(cred: &Cred<'_>, of: &Owned<'_>, wish: &SetAttrs, owner: bool) -> Result<(), Denied> {
    let client = |t: SetTime| matches!(t, SetTime::Client(_));
    if client(wish.atime) || client(wish.mtime) {
        // Any time one likes: owners only.
        return if owner { Ok(()) } else { Err(Denied::Owner) };
    }
    let now = wish.atime == SetTime::Server || wish.mtime == SetTime::Server;
    if now && !owner && !allows(cred, of, WRITE) {
        return Err(Denied::Access);
    }
    Ok(())
}

fn owners_allowed(cred: &Cred<'_>, of: &Owned<'_>, wish: &SetAttrs, owner: bool) -> Result<(), Denied> {
    if cred.is_root() {
        return Ok(());
    }
    if wish.uid.is_some_and(|uid| uid != of.uid || !owner) {
        return Err(Denied::Owner);
    }
    if wish.gid.is_some_and(|gid| !owner || (gid != of.gid && !cred.in_group(gid))) {
        return Err(Denied::Owner);
    }
    Ok(())
}

/// The resulting mode, where one is to be set: a wished one without a set-gid bit for somebody else's group; else what a
/// change of owner or a truncation leaves.
fn mode(cred: &Cred<'_>, of: &Owned<'_>, wish: &SetAttrs) -> Option<u32> {
    if let Some(mode) = wish.mode {
        let mode = mode & 0o7777;
        let group = wish.gid.unwrap_or(of.gid);
        let foreign = !cred.is_root() && !cred.in_group(group);
        return Some(if foreign { mode & !S_ISGID } else { mode });
    }
    let owners = wish.uid.is_some() || wish.gid.is_some();
    let by_chown = if owners { resulting::after_chown(of) } else { None };
    let by_size = if wish.size.is_some() && of.kind == Kind::File { resulting::after_write(cred, of) } else { None };
    by_chown.or(by_size)
}

fn time(wish: SetTime, now: Time) -> Option<Time> {
    match wish {
        SetTime::Keep => None,
        SetTime::Server => Some(now),
        SetTime::Client(t) => Some(t),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(99);
    const ROOT: Cred<'_> = Cred { uid: 0, gid: 0, gids: &[] };
    const OWNER: Cred<'_> = Cred { uid: 10, gid: 20, gids: &[21] };
    const OTHER: Cred<'_> = Cred { uid: 11, gid: 22, gids: &[] };

    fn file(mode: u32) -> Owned<'static> {
        Owned { kind: Kind::File, mode, uid: 10, gid: 20, acl: None }
    }

    fn keep() -> SetAttrs {
        SetAttrs::default()
    }

    #[test]
    fn only_owner_and_root_chmod() {
        let wish = SetAttrs { mode: Some(0o100_600), ..keep() };
        assert_eq!(decide(&OTHER, &file(0o666), &wish, NOW), Err(Denied::Owner));
        assert_eq!(decide(&OWNER, &file(0o666), &wish, NOW).map(|e| e.mode), Ok(Some(0o600)));
        assert_eq!(decide(&ROOT, &file(0o666), &wish, NOW).map(|e| e.mode), Ok(Some(0o600)));
    }

    #[test]
    fn chmod_drops_set_gid_of_a_group_the_caller_is_not_in() {
        let wish = SetAttrs { mode: Some(0o2755), ..keep() };
        let foreign = Owned { gid: 50, ..file(0o755) };
        assert_eq!(decide(&OWNER, &foreign, &wish, NOW).map(|e| e.mode), Ok(Some(0o755)));
        assert_eq!(decide(&OWNER, &file(0o755), &wish, NOW).map(|e| e.mode), Ok(Some(0o2755)));
        assert_eq!(decide(&ROOT, &foreign, &wish, NOW).map(|e| e.mode), Ok(Some(0o2755)));
        // The group that results counts, not the one before.
        let both = SetAttrs { gid: Some(21), ..wish };
        assert_eq!(decide(&OWNER, &foreign, &both, NOW).map(|e| e.mode), Ok(Some(0o2755)));
    }

    #[test]
    fn only_root_gives_files_away() {
        let wish = SetAttrs { uid: Some(11), ..keep() };
        assert_eq!(decide(&OWNER, &file(0o644), &wish, NOW), Err(Denied::Owner));
        assert_eq!(decide(&OTHER, &file(0o644), &wish, NOW), Err(Denied::Owner), "nor takes them");
        assert_eq!(decide(&ROOT, &file(0o644), &wish, NOW).map(|e| e.uid), Ok(Some(11)));
        let same = SetAttrs { uid: Some(10), ..keep() };
        assert_eq!(decide(&OWNER, &file(0o644), &same, NOW).map(|e| e.is_nothing()), Ok(true));
    }

    #[test]
    fn an_owner_gives_a_file_to_a_group_of_his_own_only() {
        let to = |gid| SetAttrs { gid: Some(gid), ..keep() };
        assert_eq!(decide(&OWNER, &file(0o644), &to(21), NOW).map(|e| e.gid), Ok(Some(21)));
        assert_eq!(decide(&OWNER, &file(0o644), &to(22), NOW), Err(Denied::Owner));
        assert_eq!(decide(&OTHER, &file(0o644), &to(22), NOW), Err(Denied::Owner));
    }

    #[test]
    fn chown_and_chgrp_clear_set_id_bits_unless_a_mode_is_given() {
        let wish = SetAttrs { gid: Some(21), ..keep() };
        assert_eq!(decide(&OWNER, &file(0o6755), &wish, NOW).map(|e| e.mode), Ok(Some(0o755)));
        let with_mode = SetAttrs { mode: Some(0o4755), ..wish };
        assert_eq!(decide(&OWNER, &file(0o6755), &with_mode, NOW).map(|e| e.mode), Ok(Some(0o4755)));
    }

    #[test]
    fn truncation_needs_write_permission_or_ownership_and_clears_set_id_bits() {
        let wish = SetAttrs { size: Some(0), ..keep() };
        assert_eq!(decide(&OTHER, &file(0o644), &wish, NOW), Err(Denied::Access));
        assert_eq!(decide(&OTHER, &file(0o4777), &wish, NOW).map(|e| e.mode), Ok(Some(0o777)));
        assert_eq!(decide(&OWNER, &file(0o444), &wish, NOW).map(|e| (e.size, e.mode)), Ok((Some(0), None)));
        assert_eq!(decide(&ROOT, &file(0o4755), &wish, NOW).map(|e| e.mode), Ok(None));
    }

    #[test]
    fn the_servers_time_needs_write_permission_a_clients_time_ownership() {
        let now = SetAttrs { mtime: SetTime::Server, atime: SetTime::Server, ..keep() };
        let any = SetAttrs { mtime: SetTime::Client(Time(5)), ..keep() };
        assert_eq!(decide(&OTHER, &file(0o644), &now, NOW), Err(Denied::Access));
        assert_eq!(decide(&OTHER, &file(0o666), &now, NOW).map(|e| (e.atime, e.mtime)), Ok((Some(NOW), Some(NOW))));
        assert_eq!(decide(&OTHER, &file(0o666), &any, NOW), Err(Denied::Owner));
        assert_eq!(decide(&OWNER, &file(0o444), &any, NOW).map(|e| e.mtime), Ok(Some(Time(5))));
    }

    #[test]
    fn a_guard_compares_the_change_time() {
        assert_eq!(guard(None, Time(1)), Ok(()));
        assert_eq!(guard(Some(Time(1)), Time(1)), Ok(()));
        assert_eq!(guard(Some(Time(2)), Time(1)), Err(Denied::NotSync));
    }

    #[test]
    fn a_wish_for_nothing_is_nothing() {
        assert_eq!(decide(&OTHER, &file(0), &keep(), NOW), Ok(Explicit::default()));
    }
}
