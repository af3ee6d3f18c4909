//! READDIR and READDIRPLUS: as many entries as fit, to the byte. Cookies are the volume's and stay good, so the cookie
//! verifier is always 0 and any is taken.

use super::convert::{bare, post};
use super::nfs::Session;
use super::status::nfsstat;
use crate::volume::types::{DirEntry, Listing, NAME_MAX, READDIR_MAX, Room, Status};
use crate::wire::nfs3::{
    Entry, EntryPlus, LISTING_MAX, Name, PLUS_MAX, ReaddirArgs, ReaddirOk, ReaddirPlusArgs, ReaddirPlusOk,
    ReaddirPlusRes, ReaddirRes, Res, entry_len, listing_len, plus_len,
};
use nfsserve::nfs::post_op_attr;

const VERIFIER: u64 = 0;

/// What is left of the bytes that the client has room for.
struct Left(usize);

impl Left {
    fn take(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

fn limit(count: u32) -> usize {
    count.min(READDIR_MAX) as usize
}

/// What entries may take of a reply that takes `count`.
fn of_entries(count: u32) -> usize {
    limit(count).saturating_sub(LISTING_MAX)
}

async fn list(session: &Session<'_>, cookie: u64, verifier: u64, room: Room) -> Res<Listing, post_op_attr> {
    let may = |junction| session.shared.may(session.peer, junction);
    let listing = session.shared.backend.readdir(&session.call, session.node, cookie, verifier, room, &may).await;
    listing.map_err(|r| (nfsstat(r.status), post(r.with.as_ref())))
}

/// The entries that fit, and whether the directory ends with them; TOOSMALL when there are some and none fits.
fn fit<T>(
    listing: Listing,
    dir: post_op_attr,
    mut entry: impl FnMut(DirEntry) -> Option<T>,
) -> Res<(Vec<T>, bool), post_op_attr> {
    let offered = listing.entries.len();
    let entries: Vec<T> = listing.entries.into_iter().map_while(&mut entry).collect();
    if entries.is_empty() && offered > 0 {
        return Err((nfsstat(Status::TooSmall), dir));
    }
    let eof = listing.eof && entries.len() == offered;
    Ok((entries, eof))
}

pub(super) async fn plain(session: &Session<'_>, a: &ReaddirArgs) -> ReaddirRes {
    let mut room = Left(limit(a.count));
    let asked = Room::plain(of_entries(a.count));
    let listing = list(session, a.cookie, a.verifier, asked).await?;
    let dir = post(listing.dir.as_ref());
    if !room.take(listing_len(&dir)) {
        return Err(bare(Status::TooSmall));
    }
    let (entries, eof) = fit(listing, dir, |e| {
        let fits = room.take(entry_len(e.name.len()));
        fits.then(|| Entry { fileid: e.fileid, name: Name(e.name.into()), cookie: e.cookie })
    })?;
    Ok(ReaddirOk { dir, verifier: VERIFIER, entries, eof })
}

/// `maxcount` bounds the whole result, `dircount` what names, fileids and cookies take of it.
pub(super) async fn plus(session: &Session<'_>, a: &ReaddirPlusArgs) -> ReaddirPlusRes {
    let mut room = Left(limit(a.maxcount));
    // A hint: one entry there is room for, whatever it says.
    let mut names = Left(limit(a.dircount).max(entry_len(NAME_MAX)));
    let asked = Room::plus(of_entries(a.maxcount), names.0, PLUS_MAX);
    let listing = list(session, a.cookie, a.verifier, asked).await?;
    let dir = post(listing.dir.as_ref());
    if !room.take(listing_len(&dir)) {
        return Err(bare(Status::TooSmall));
    }
    let (entries, eof) = fit(listing, dir, |e| {
        let attr = post(e.attr.as_ref());
        let handle = e.node.map(|node| session.shared.handle(node));
        let len = entry_len(e.name.len());
        let fits = names.take(len) && room.take(len + plus_len(&attr, handle.as_ref().map(|h| h.0.len())));
        fits.then(|| EntryPlus { fileid: e.fileid, name: Name(e.name.into()), cookie: e.cookie, attr, handle })
    })?;
    Ok(ReaddirPlusOk { dir, verifier: VERIFIER, entries, eof })
}
