//! CREATE: unchecked, guarded, exclusive.

use super::make::Place;
use crate::filer::Stat;
use crate::index::live::Entry;
use crate::semantics::create::{How, Taken, taken};
use crate::volume::Volume;
use crate::volume::locks::{Key, Mode};
use crate::volume::resolve::{LockedNames, Use, changeable, check_name};
use crate::volume::types::{Call, CreateHow, Found, NewNode, NodeRef, Refused, SetAttrs, Status, Wcc};
use journal_format::event::What;
use journal_format::ids::Kind;

/// An exclusive CREATE carries no mode; the client sets it next. Until then the file is its owner's, who can (also where
/// the service is an ordinary user, to whom a file of mode 0 would be closed) write it.
const EXCLUSIVE_MODE: u32 = 0o600;

impl Volume {
    pub async fn create(&self, call: &Call, dir: NodeRef, name: &[u8], how: CreateHow) -> Result<Found, Refused<Wcc>> {
        match self.create_inner(call, dir, name, how).await {
            Ok(found) => Ok(found),
            Err(status) => Err(self.refused_wcc(status, dir).await),
        }
    }

    async fn create_inner(&self, call: &Call, dir: NodeRef, name: &[u8], how: CreateHow) -> Result<Found, Status> {
        changeable(dir)?;
        check_name(name, Use::Make)?;
        let (attrs, how) = split(how);
        let (permit, location) = self.admit(dir.junction).await?;
        let seen = self.see_dir(&location, call, dir).await?;
        self.free(call, &permit, dir, name).await?;
        let LockedNames { guard, entries } = self.lock_names(&permit, &[(dir, name)], existing).await?;
        let seen = self.see_dir_again(&location, call, seen).await?;
        let before = self.pre_dir(&seen)?;
        let place = Place { permit, guard, location: &location, dir: &seen, before, name };
        match entries.into_iter().next().flatten() {
            None => {
                let verifier = if let How::Exclusive(verifier) = how { Some(verifier) } else { None };
                self.make_at(call, place, NewNode { what: What::File, attrs }, verifier).await
            }
            Some(entry) => self.create_existing(call, place, &entry, how, attrs).await,
        }
    }

    async fn create_existing(
        &self,
        call: &Call,
        place: Place<'_>,
        entry: &Entry,
        how: How,
        attrs: SetAttrs,
    ) -> Result<Found, Status> {
        let dir = place.dir.at;
        let node = NodeRef { junction: dir.junction, node: entry.node };
        let kept = self.rec(node)?.verifier;
        let (mut guard, mut set) = (place.guard, None);
        match taken(how, entry.kind, kept) {
            Taken::Exists => return Err(Status::Exist),
            Taken::IsDir => return Err(Status::IsDir),
            Taken::Repeated => {}
            Taken::Use => {
                // Of all that is asked for only the size counts for a file that is there.
                let wish = SetAttrs { size: attrs.size, ..SetAttrs::default() };
                if wish.size.is_some() && entry.kind == Kind::File {
                    let file = self.see(place.location, node).await?;
                    let file = self.judge(place.location, call, file).await?;
                    guard = self.set_locked(call, place.permit, guard, place.location, &file, &wish).await?;
                    set = wish.size.map(|size| Stat { size, ..file.stat });
                }
            }
        }
        self.found(&guard, node, set, place.before, dir).await
    }
}

/// What is there may have its size set: its attributes are locked with the name.
fn existing(entries: &[Option<Entry>]) -> Vec<(Key, Mode)> {
    entries.iter().flatten().map(|entry| (Key::Node(entry.node), Mode::Exclusive)).collect()
}

fn split(how: CreateHow) -> (SetAttrs, How) {
    match how {
        CreateHow::Unchecked(attrs) => (attrs, How::Unchecked),
        CreateHow::Guarded(attrs) => (attrs, How::Guarded),
        CreateHow::Exclusive(verifier) => {
            (SetAttrs { mode: Some(EXCLUSIVE_MODE), ..SetAttrs::default() }, How::Exclusive(verifier))
        }
    }
}
