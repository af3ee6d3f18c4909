//! Objects that were on the primary before tain saw them get their node ids here.
//!
//! One name, when a client looks it up ([`Volume::adopt_one`]); a whole directory, before it is listed or removed
//! ([`Volume::complete`]): pages of at most [`Adopt::ENTRIES_MAX`] names, an event each, and with the last the directory
//! is *complete*: the index answers for it alone from then on. Nothing is shown before its `Adopt` is durable.
//!
//! What excludes what: a single name is adopted under that name's lock; a page of a directory is read and adopted under
//! the directory's exclusive lock, since a name that an operation has made on the filer and not yet in the index would
//! look like one never seen. Between two pages others have their turn: what they make, move in or give another name is in
//! the index, for whatever they take hold of is adopted first, and a filer's position in a listing stays good meanwhile, or all
//! is read once more, and nobody comes between.
//! So with the last page every name is known, and that page's lock makes the directory complete. Objects with several
//! links are adopted under a lock on their identity too, so that two names cannot give one object two nodes.
//!
//! It is a mutation as far as a switch is concerned (the events name the primary), so it needs a [`Permit`]. It runs in
//! a task of its own: a client that gives up while a large directory is read finds it further on the next time.
//!
//! A filer may contradict itself: list a name and then not find it, or find it and call what it leads to gone. Left out,
//! such a name would be hidden for good once the directory is complete, and a move would leave it behind. So it is asked
//! for again, and as long as the filer goes on the directory is not complete: clients are told of an I/O error, and a
//! copy reports the directory.
//!
//! A mount point inside the export is no part of the location. Clients are not shown it: listings leave it out, and
//! whoever names it is told ACCES. But its directory is never complete: what lies below the mount would be left out for
//! good, and a move must say that it is. So [`Volume::complete`] gives XDEV when all else in the directory is known, a
//! copy reports the directory, and a listing ([`Volume::know_names`]) goes on. Which directories these are is remembered
//! for [`MOUNTS_KNOWN_FOR`], so that not every page of a listing reads the directory.

use super::Volume;
use super::act::Act;
use super::hold::Permit;
use super::locks::{Guard, Key, Mode};
use super::run::Mutation;
use super::status::of_object;
use super::types::{NodeRef, Status};
use crate::filer::aside::side_by_side;
use crate::filer::{self, ErrorKind, Object, Stat, exact};
use crate::index::live::Entry;
use crate::location::Location;
use journal_format::event::{Adopt, Adopted};
use journal_format::ids::{Identity, JunctionId, Kind, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client waits for a directory to become complete, and gets JUKEBOX then while it goes on.
const COMPLETE_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 15 });

/// How often a name is asked for that a filer says it has, and denies; and the pause between.
const DENIED_TRIES: usize = 4;
const DENIED_PAUSE: Duration = Duration::from_millis(150);

/// A directory with mount points in it is not read again before that: what clients do in it is in the index.
const MOUNTS_KNOWN_FOR: Duration = Duration::from_secs(10);
/// Directories remembered to have mount points in them; at it, the one that was read longest ago is forgotten, and read
/// again when it is listed.
const MOUNTED_IN_MAX: usize = 256;

/// Directories with mount points in them, by when all their other names were last known. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct MountedIn(Arc<Mutex<BTreeMap<NodeId, Instant>>>);

impl MountedIn {
    /// Whether it was not remembered.
    fn put(&self, dir: NodeId) -> bool {
        let mut read = self.0.lock();
        let new = read.insert(dir, Instant::now()).is_none();
        if read.len() > MOUNTED_IN_MAX
            && let Some(oldest) = read.iter().min_by_key(|(_, at)| **at).map(|(dir, _)| *dir)
        {
            read.remove(&oldest);
        }
        new
    }

    fn forget(&self, dir: NodeId) {
        self.0.lock().remove(&dir);
    }

    fn was_just_read(&self, dir: NodeId) -> bool {
        self.0.lock().get(&dir).is_some_and(|at| at.elapsed() < MOUNTS_KNOWN_FOR)
    }

    pub fn has(&self, dir: NodeId) -> bool {
        self.0.lock().contains_key(&dir)
    }
}

/// A name as the filer has it.
struct Met {
    name: Vec<u8>,
    obj: Object,
    stat: Stat,
}

/// What a look at a name says.
enum Look {
    Met(Met),
    Nothing(Vec<u8>, filer::Error),
    /// It leads out of the location.
    Mounted(Vec<u8>),
    /// It was found, and then called gone. Somebody may have removed it in between.
    Denied(Vec<u8>, filer::Error),
}

/// A look that failed.
struct Unread {
    name: Vec<u8>,
    error: filer::Error,
}

impl Volume {
    /// Make the directory complete: every name in it known to the index. JUKEBOX when it takes too long; it goes on, and
    /// the caller asks again. XDEV: all but its mount points.
    pub async fn complete(&self, junction: JunctionId, dir: NodeId) -> Result<(), Status> {
        let at = NodeRef { junction, node: dir };
        if self.rec(at)?.complete {
            return Ok(());
        }
        let permit = self.admit_adoption(junction).await?;
        self.complete_inside(permit, at).await
    }

    /// What is mounted in a directory is not believed from before.
    pub fn look_again(&self, dir: NodeId) {
        self.mounted_in.forget(dir);
    }

    /// The same for those who need not know of mount points.
    pub(super) async fn know_names(&self, junction: JunctionId, dir: NodeId) -> Result<(), Status> {
        match self.complete(junction, dir).await {
            Err(Status::XDev) => Ok(()),
            completed => completed,
        }
    }

    pub(super) async fn complete_inside(&self, permit: Permit, dir: NodeRef) -> Result<(), Status> {
        if self.rec(dir)?.complete {
            return Ok(());
        }
        if self.mounted_in.was_just_read(dir.node) {
            return Err(Status::XDev);
        }
        let volume = self.clone();
        self.detached(dir.junction, COMPLETE_PATIENCE, async move { volume.adopt_all(permit, dir).await }).await
    }

    async fn adopt_all(&self, permit: Permit, dir: NodeRef) -> Result<(), Status> {
        let _alone = self.acquire(dir.junction, vec![(Key::Taking(dir.node), Mode::Exclusive)]).await?;
        if self.rec(dir)?.kind != Kind::Dir {
            return Err(Status::NotDir);
        }
        let location = self.location_of(dir.junction)?;
        let obj = self.ask(&location, location.object(self.live.as_ref(), dir.node)).await?;
        let (mut from, mut mount) = (0, None);
        // Where a position is a count, names that went between two pages have moved others before it: then it is all read
        // once more, and nobody comes between.
        let (lasting, mut again, mut held) = (location.filer.capabilities().lasting_positions, false, None);
        loop {
            let mut guard = match held.take() {
                Some(guard) => guard,
                None => self.acquire(dir.junction, vec![(Key::Dir(dir.node), Mode::Exclusive)]).await?,
            };
            if self.rec(dir)?.complete {
                return Ok(());
            }
            let page = self.ask(&location, location.filer.list(&obj, from, Adopt::ENTRIES_MAX)).await?;
            let unknown = self.unknown(dir.node, page.names)?;
            // A filer may give more than was asked for.
            let mut parts = unknown.chunks(Adopt::ENTRIES_MAX).peekable();
            let whole = page.next.is_none() && (lasting || again || from == 0);
            let mut complete = false;
            while let Some(part) = parts.next() {
                let (met, mounted) = meet(&location, &obj, part).await?;
                mount = mount.or(mounted);
                complete = parts.peek().is_none() && whole && mount.is_none();
                if complete || !met.is_empty() {
                    guard = self.adopt(&permit, guard, &location, dir, met, complete).await?;
                }
            }
            match (page.next, mount.take()) {
                (Some(next), mounted) => {
                    (from, mount) = (next, mounted);
                    held = again.then_some(guard);
                }
                (None, _) if !whole => (from, again, held) = (0, true, Some(guard)),
                (None, Some(name)) => return Err(self.holds_mounts(&location, dir.node, &name)),
                (None, None) => {
                    if !complete {
                        self.adopt(&permit, guard, &location, dir, Vec::new(), true).await?;
                    }
                    self.mounted_in.forget(dir.node);
                    return Ok(());
                }
            }
        }
    }

    /// Those of the names that the index does not have.
    fn unknown(&self, dir: NodeId, names: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Status> {
        let mut unknown = Vec::new();
        for name in names {
            if self.live.entry(dir, &name)?.is_none() {
                unknown.push(name);
            }
        }
        Ok(unknown)
    }

    /// All else in the directory is known. Said in the log when it is found out, not at each listing.
    fn holds_mounts(&self, location: &Location, dir: NodeId, name: &[u8]) -> Status {
        if self.mounted_in.put(dir) {
            let name = String::from_utf8_lossy(name);
            tracing::warn!(location = %location.id, %dir, %name, "a mount point inside the export: clients do not see it, and a copy reports its directory");
        }
        Status::XDev
    }

    /// Give one name of a directory that is not complete its node, if the filer has it.
    pub(super) async fn adopt_one(&self, permit: Permit, dir: NodeRef, name: &[u8]) -> Result<Option<Entry>, Status> {
        let volume = self.clone();
        let name = name.to_vec();
        self.seen_through(dir.junction, COMPLETE_PATIENCE, async move { volume.adopt_name(permit, dir, name).await })
            .await
    }

    async fn adopt_name(&self, permit: Permit, dir: NodeRef, name: Vec<u8>) -> Result<Option<Entry>, Status> {
        let location = self.location_of(dir.junction)?;
        let obj = self.ask(&location, location.object(self.live.as_ref(), dir.node)).await?;
        // Without the locks first: most names that nobody knows are not there, and are not waited for.
        if meet_one(&location, &obj, &name).await?.is_none() {
            return Ok(self.live.entry(dir.node, &name)?);
        }
        let wanted = vec![(Key::Dir(dir.node), Mode::Shared), (Key::Name(dir.node, name.clone()), Mode::Exclusive)];
        let guard = self.acquire(dir.junction, wanted).await?;
        if let Some(entry) = self.live.entry(dir.node, &name)? {
            return Ok(Some(entry));
        }
        if self.rec(dir)?.complete {
            return Ok(None);
        }
        let Some(met) = meet_one(&location, &obj, &name).await? else { return Ok(None) };
        self.adopt(&permit, guard, &location, dir, vec![met], false).await?;
        Ok(self.live.entry(dir.node, &name)?)
    }

    /// One `Adopt` event, to its end. The names are locked by `guard`, which comes back.
    async fn adopt(
        &self,
        permit: &Permit,
        guard: Guard,
        location: &Arc<Location>,
        dir: NodeRef,
        met: Vec<Met>,
        complete: bool,
    ) -> Result<Guard, Status> {
        let several = met.iter().filter(|m| m.stat.kind != Kind::Dir && m.stat.nlink > 1);
        let wanted: Vec<_> = several.map(|m| (Key::Object(m.obj.id.clone()), Mode::Exclusive)).collect();
        let linked = if wanted.is_empty() { None } else { Some(self.acquire(dir.junction, wanted).await?) };
        let mut entries = Vec::with_capacity(met.len());
        let mut objects = Vec::with_capacity(met.len());
        // Two names of one object in one page: the index does not know the first yet when the second is looked at.
        let mut page: BTreeMap<Identity, NodeId> = BTreeMap::new();
        for Met { name, obj, stat } in met {
            let node = match page.get(&obj.id) {
                Some(node) if obj.kind != Kind::Dir => *node,
                _ => self.node_of(location, dir.junction, &obj)?,
            };
            page.insert(obj.id.clone(), node);
            let identity = obj.id.clone();
            entries.push(Adopted { name, node, kind: obj.kind, identity, mtime: stat.mtime, ctime: stat.ctime });
            objects.push((node, obj));
        }
        let event = Adopt { junction: dir.junction, location: location.id, dir: dir.node, entries, complete };
        let act = Act::Adopt { event, objects };
        let mutation = Mutation { permit: permit.clone(), guard, location: location.clone(), act };
        let ended = self.to_the_end(mutation).await?;
        drop(linked);
        Ok(ended.guard)
    }

    /// The node that the object has by another name, or a new one. A directory has one name only: if it is known by
    /// another, somebody moved it on the filer behind us, and it begins anew.
    fn node_of(&self, location: &Location, junction: JunctionId, obj: &Object) -> Result<NodeId, Status> {
        if let Some(node) = location.objects.node(&obj.id)?
            && obj.kind != Kind::Dir
            && let Some(rec) = self.live.node(node)?
            && rec.kind == obj.kind
            && rec.junction == junction
        {
            return Ok(node);
        }
        Ok(self.ids.allot())
    }
}

async fn look(location: &Location, dir: &Object, name: &[u8]) -> Result<Look, Unread> {
    let obj = match location.filer.lookup(dir, name).await {
        Ok(obj) => obj,
        // Nothing there; or a name that a filer hides or cannot have, which to clients is the same.
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => {
            return Ok(Look::Nothing(name.to_vec(), error));
        }
        Err(error) if error.kind == ErrorKind::CrossDevice => return Ok(Look::Mounted(name.to_vec())),
        // Either the name, or the directory, in which there is none then.
        Err(error) if error.kind == ErrorKind::Stale => return Ok(Look::Denied(name.to_vec(), error)),
        Err(error) => return Err(Unread { name: name.to_vec(), error }),
    };
    match location.filer.stat(&obj).await {
        Ok(stat) => Ok(Look::Met(Met { name: name.to_vec(), obj, stat })),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Stale) => {
            Ok(Look::Denied(name.to_vec(), error))
        }
        Err(error) => Err(Unread { name: name.to_vec(), error }),
    }
}

/// Who reads a log finds the one name in a directory of thousands that a damaged disk cannot give.
fn unreadable(location: &Location, Unread { name, error }: &Unread) -> Status {
    let status = of_object(error);
    if status == Status::Io {
        let name = String::from_utf8_lossy(name);
        tracing::error!(location = %location.id, %name, %error, "the primary cannot read what this name leads to: its directory cannot be listed");
    }
    status
}

/// By its very bytes: a filer may find it by others, too.
async fn meet_one(location: &Location, dir: &Object, name: &[u8]) -> Result<Option<Met>, Status> {
    for left in (0..DENIED_TRIES).rev() {
        match look(location, dir, name).await.map_err(|unread| of_object(&unread.error))? {
            Look::Met(met) => {
                let has = exact::has(location.filer.as_ref(), dir, &met.name).await;
                return Ok(has.map_err(|error| of_object(&error))?.then_some(met));
            }
            Look::Nothing(..) => return Ok(None),
            Look::Mounted(_) => return Err(Status::Access),
            Look::Denied(name, error) if left == 0 => return Err(contradicted(location, &name, &error)),
            Look::Denied(..) => tokio::time::sleep(DENIED_PAUSE).await,
        }
    }
    Ok(None)
}

/// Look at names that were listed, side by side; those that are gone meanwhile are left out, and so are mount points, of
/// which one is named.
async fn meet(
    location: &Arc<Location>,
    dir: &Object,
    names: &[Vec<u8>],
) -> Result<(Vec<Met>, Option<Vec<u8>>), Status> {
    let (mut met, mut mount, mut names) = (Vec::new(), None, names.to_vec());
    for left in (0..DENIED_TRIES).rev() {
        let looks: Vec<_> = names.iter().map(|name| look(location, dir, name)).collect();
        let mut denied = BTreeMap::new();
        for look in side_by_side(looks).await.map_err(|unread| unreadable(location, &unread))? {
            match look {
                Look::Met(one) => met.push(one),
                Look::Mounted(name) => mount = Some(name),
                Look::Nothing(name, error) | Look::Denied(name, error) => drop(denied.insert(name, error)),
            }
        }
        if !denied.is_empty() {
            still_listed(location, dir, &mut denied).await?;
        }
        match denied.first_key_value() {
            None => break,
            Some((name, error)) if left == 0 => return Err(contradicted(location, name, error)),
            Some(_) => tokio::time::sleep(DENIED_PAUSE).await,
        }
        names = denied.into_keys().collect();
    }
    // In the order of names, so that the event does not depend on who answered first.
    met.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((met, mount))
}

/// Keeps those names that the directory lists even now. All of it is read: a name may have another place in it.
pub(super) async fn still_listed(
    location: &Location,
    dir: &Object,
    names: &mut BTreeMap<Vec<u8>, filer::Error>,
) -> Result<(), Status> {
    let (mut from, mut listed) = (0, BTreeMap::new());
    loop {
        let page = location.filer.list(dir, from, Adopt::ENTRIES_MAX).await.map_err(|error| of_object(&error))?;
        listed.extend(page.names.iter().filter_map(|name| names.remove_entry(name)));
        match page.next {
            Some(next) if !names.is_empty() => from = next,
            _ => break,
        }
    }
    *names = listed;
    Ok(())
}

pub(super) fn contradicted(location: &Location, name: &[u8], error: &filer::Error) -> Status {
    let name = String::from_utf8_lossy(name);
    tracing::error!(location = %location.id, %name, %error, "the primary says that it has the name, and denies it: its directory cannot be read");
    Status::Io
}
