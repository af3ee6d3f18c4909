//! Bringing a primary up: it is redone from its cursor, operations in doubt get their ends, clients reach it.
//!
//! ```text
//! reach it ─► Redo::run ─┬─ refused ─► Failed | Partial, durable ─► again, without them
//! (or the one that fell, └─ done ────► synced, store committed ─► decided ─► clients
//!  and take over what is
//!  under way on it)
//! ```
//!
//! One that fell is reached by its place again, which is checked as ever: its file system may have been mounted anew. What is
//! under way on it then may have objects that answer nothing any more, and would end only when the redo, which it would be
//! waited for by, has been; so it is not waited for but taken over (`volume::take_over`), and no object of before is used from
//! there on. Nobody is held meanwhile: clients find no primary, and are told so at once.
//!
//! Any other error leaves the location down: its clients get JUKEBOX, and the supervisor tries again. A refusal ends one
//! operation in doubt at least, so this comes to an end.

use crate::checkpoint;
use crate::core::{Core, Error, Result, blocking, open_location};
use crate::journal::Journal;
use crate::location::Location;
use crate::location::redo::{self, Redo, Refused};
use crate::volume::status::of_kind;
use journal_format::event::{Event, Failed, Partial};
use journal_format::ids::{JunctionId, LocationId, Lsn};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long calls that are under way may take to come back before a location that fell is redone; else it is tried again later.
const REST_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Open a primary (or take the one that fell) and bring it to the journal's end; then clients reach it.
pub async fn bring_up(core: &Core, junction: JunctionId, id: LocationId) -> Result<()> {
    let state = core.ledger.state();
    let (location, taken) = match core.locations.fallen(id) {
        Some(location) => {
            location.filer.root().await?;
            let Some(taken) = core.volume.take_over(junction, REST_MAX).await else {
                let why = "operations under way on it have neither ended nor come back from their filer: it is not redone before";
                return Err(Error::Other(why.into()));
            };
            // Behind that nobody remembers an object of before.
            location.forget_all();
            (location, taken)
        }
        None => (open_location(core, &state, id).await?, BTreeSet::new()),
    };
    let cursor = state.locations.get(&id).map_or(Lsn(0), |l| l.cursor);
    if location.objects.store.lsn() < cursor {
        recollect(core, &location, cursor).await?;
    }
    if core.live.node(location.root)?.is_none() {
        return Err(Error::Other("the junction is being added".into()));
    }
    redo_all(core, junction, &location, cursor, taken).await?;
    location.is_redone();
    crash_point!("BRING_UP_BEFORE_CHECKPOINT");
    checkpoint::primary(core, junction, &location).await?;
    crash_point!("REDO_SYNCED");
    core.locations.insert(location);
    core.volume.is_redone(junction);
    crash_point!("BRING_UP_END");
    Ok(())
}

/// The location is new, or its store was lost.
async fn recollect(core: &Core, location: &Location, cursor: Lsn) -> Result<()> {
    let (journal, objects, id) = (core.ledger.journal.clone(), location.objects.clone(), location.id);
    // The record at the cursor may be the location's own beginning.
    let before = journal.durable_lsn().min(cursor.plus(1));
    if blocking(move || Ok(redo::recollect(&journal, &objects, id, before)?)).await? {
        return Ok(());
    }
    Err(Error::Other(format!(
        "the store of location {id} is missing or older than its cursor ({cursor}), and the journal does not reach back \
         to its beginning: which object is which cannot be told. Put the index directory ([state] dir) back, or remove \
         the junction and add it again (its clients then mount anew)"
    )))
}

async fn redo_all(
    core: &Core,
    junction: JunctionId,
    location: &Arc<Location>,
    cursor: Lsn,
    taken: BTreeSet<Lsn>,
) -> Result<()> {
    let begin = Instant::now();
    let journal: &Journal = &core.ledger.journal;
    // What was appended is to be seen: how operations ended, and what was made.
    let end = journal.end_lsn();
    core.ledger.wait_durable(end).await?;
    let doubt_from = core.ledger.doubt_from(junction).unwrap_or(end);
    let redo = Redo {
        journal,
        junction,
        live: &core.live,
        location,
        cursor,
        doubt_from,
        taken,
        proven_to: end,
        recorder: &core.ledger,
    };
    loop {
        let redone = redo.run().await?;
        crash_point!("BRING_UP_REDONE");
        if redone.refused.is_empty() {
            crash_point!("BRING_UP_MADE");
            core.ledger.decided(junction);
            if redone.operations > 0 {
                let (operations, bytes, under_way) = (redone.operations, redone.bytes, redo.taken.len());
                tracing::info!(location = %location.id, operations, bytes, under_way, took = ?begin.elapsed(),
                    "the primary was redone from its cursor");
            }
            return Ok(());
        }
        for refused in redone.refused {
            refuse(core, &redo, refused).await?;
        }
    }
}

/// What was in the journal without an end, and the filer refuses for good: it failed, and no client was told otherwise.
async fn refuse(core: &Core, redo: &Redo<'_>, refused: Refused) -> Result<()> {
    let Refused { op, node, kind, part, error } = refused;
    tracing::warn!(location = %redo.location.id, %op, %node, error, "an operation in doubt was refused by the filer: it failed");
    let status = of_kind(kind);
    let end = match part.clone() {
        Some(done) => Event::Partial(Partial { op, done, status: status as u32 }),
        None => Event::Failed(Failed { op, status: status as u32 }),
    };
    let at = core.ledger.record(&end).await?;
    if redo.taken.contains(&op) {
        core.volume.refused_by_redo(redo.junction, op, status, part);
    } else {
        core.ledger.tell(&at, &end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::filer::memory::{Fault, Memory, Turn};
    use crate::filer::registry::Filers;
    use crate::filer::{Changes, CoreFiler, ErrorKind, MakeAttrs};
    use crate::gateway::Drc;
    use crate::index::live::Live;
    use crate::index::objects::Objects;
    use crate::index::store::Store;
    use crate::index::stores::{Directory, Stores};
    use crate::journal::{AppendMode, Options};
    use crate::ledger::Ledger;
    use crate::location::Locations;
    use crate::semantics::SetTime;
    use crate::service::recovery::recover;
    use crate::state::{self, State};
    use crate::volume::{Call, CreateHow, NewNode, NodeIds, NodeRef, Refused, SetAttrs, Status, Volume};
    use bytes::Bytes;
    use journal_format::event::{FilerAdded, FilerFound, JunctionAdded, LocationSpec, What};
    use journal_format::ids::{FilerId, Identity, NodeId, Time};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::task::JoinHandle;

    const J: JunctionId = JunctionId(1);
    const L: LocationId = LocationId(1);
    const ROOT: NodeId = NodeId(100);
    const AT: NodeRef = NodeRef { junction: J, node: ROOT };

    fn call() -> Call {
        Call { uid: 0, gid: 0, gids: vec![], addr: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 700, xid: 1, sum: 1 }
    }

    fn journal(dir: &tempfile::TempDir) -> Journal {
        let options = Options {
            dir: dir.path().join("journal"),
            segment_size: 4 << 20,
            hard_limit: 64 << 20,
            append: AppendMode::Buffered,
            any_file_system: true,
            disk: Arc::new(crate::env::RealDisk),
        };
        Journal::open(options).unwrap()
    }

    /// A junction over a filer in memory, up.
    async fn world(dir: &tempfile::TempDir, filer: &Memory) -> Core {
        let stores: Arc<dyn Stores> = Arc::new(Directory(dir.path().into()));
        let journal = journal(dir);
        let root = filer.root().await.unwrap();
        let added = JunctionAdded {
            junction: J,
            path: vec![b"data".to_vec()],
            location: LocationSpec { location: L, filer: FilerId(1), subdir: vec![], root: root.id.clone() },
            root: ROOT,
            mtime: Time(1),
            ctime: Time(1),
        };
        let (filer_id, name, url) = (FilerId(1), "f".into(), "memory:///f".into());
        let filer_added = FilerAdded { filer: filer_id, name, url, root: vec![1], found: FilerFound::default() };
        let live = Arc::new(Live::new(Arc::new(stores.open("live", 1 << 20, false).unwrap())));
        let mut state = State::default();
        for event in [Event::FilerAdded(filer_added), Event::JunctionAdded(added)] {
            let (at, ()) = journal.append_with(&event, &[], |_| ()).await.unwrap();
            journal.wait_durable(at.end).await.unwrap();
            live.apply(at.lsn, at.time, &event).unwrap();
            state::apply(&mut state, at.lsn, at.end, at.time, &event).unwrap();
        }
        let ledger = Ledger::new(journal, state, Box::new(|_, _| {}));
        let locations = Arc::new(Locations::default());
        let ids = Arc::new(NodeIds::after(ROOT));
        let volume = Arc::new(Volume::new(ledger.clone(), live.clone(), locations.clone(), ids));
        let objects = Objects::new(Arc::new(stores.open("location-1", 1 << 20, false).unwrap()));
        objects.store.write(objects.put(ROOT, &root.id).unwrap());
        locations.insert(Arc::new(Location::new(L, ROOT, Arc::new(filer.clone()), objects)));
        let filers = Arc::new(crate::filer::registry::Registry::default());
        Core { ledger, live, locations, volume, stores, filers }
    }

    async fn create(core: &Core, name: &str, text: &str) -> NodeRef {
        let how = CreateHow::Unchecked(SetAttrs { mode: Some(0o644), ..SetAttrs::default() });
        let node = core.volume.create(&call(), AT, name.as_bytes(), how).await.unwrap().node;
        core.volume.write(&call(), node, 0, Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
        node
    }

    #[tokio::test]
    async fn a_primary_whose_sync_failed_is_read_by_nobody_until_all_since_its_cursor_is_written_again() {
        let (dir, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&dir, &filer).await;
        let node = create(&core, "a", "text").await;
        filer.set_fault(Some(Box::new(|op| (op == "sync").then_some(Fault::Before(ErrorKind::Io)))));
        let mut checkpoints = Checkpoints::default();
        checkpoints.take(&core).await.unwrap();
        filer.set_fault(None);
        // What was not written is gone, as the error said; a later sync has nothing to complain about.
        filer.crash();
        let cursor = core.ledger.state().locations[&L].cursor;
        checkpoints.take(&core).await.unwrap();
        assert_eq!(core.ledger.state().locations[&L].cursor, cursor, "believed by a later sync");
        assert_eq!(core.volume.getattr(node).await.err(), Some(Status::Jukebox));
        assert!(core.locations.get(L).is_none() && core.locations.fallen(L).is_some());

        bring_up(&core, J, L).await.unwrap();
        filer.crash();
        let location = core.locations.get(L).unwrap();
        location.forget_all();
        let read = core.volume.read(&call(), node, 0, 100).await.unwrap();
        assert_eq!(read.data, "text");
        // Idle since: the checkpoint is taken in again all the same.
        assert!(checkpoints.is_due_again(&core));
        checkpoints.take(&core).await.unwrap();
        assert!(core.ledger.state().locations[&L].cursor > cursor);
        assert!(!checkpoints.is_due_again(&core));
    }

    /// Reaches this one, whatever is asked for.
    struct One(Memory);

    #[async_trait::async_trait]
    impl Filers for One {
        async fn open(
            &self,
            _url: &str,
            _root: &[u8],
            _subdir: &[Vec<u8>],
            _dir: Option<&Identity>,
        ) -> crate::filer::Result<Arc<dyn CoreFiler>> {
            Ok(Arc::new(self.0.clone()))
        }
    }

    /// Each try opens the location anew.
    #[tokio::test]
    async fn an_inode_that_refuses_its_time_does_not_keep_a_primary_down() {
        let (dir, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&dir, &filer).await;
        let core = Core { filers: Arc::new(One(filer.clone())), ..core };
        create(&core, "a", "text").await;
        Checkpoints::default().take(&core).await.unwrap();
        core.volume.remove(&call(), AT, b"a").await.unwrap();
        core.locations.remove(L);
        filer.set_fault(Some(Box::new(|op| (op == "set").then_some(Fault::Before(ErrorKind::Io)))));
        let mut tries = 0;
        while let Err(error) = bring_up(&core, J, L).await {
            tries += 1;
            assert!(tries < 10, "{error}");
        }
        assert_eq!(tries, 3, "an I/O error may pass");
        create(&core, "b", "is up").await;
    }

    /// Found by crash points: a checkpoint puts a time that it read before the client set another.
    #[tokio::test]
    async fn a_time_that_a_client_sets_is_the_filers_whatever_a_checkpoint_had_in_hand() {
        let (dir, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&dir, &filer).await;
        let node = create(&core, "a", "text").await;
        let location = core.locations.get(L).unwrap();
        checkpoint::primary(&core, J, &location).await.unwrap();
        let object = location.object(core.live.as_ref(), node.node).await.unwrap();
        let read_before = filer.stat(&object).await.unwrap().mtime;
        let wish = SetAttrs { mtime: SetTime::Client(Time(7_000_000_000)), ..SetAttrs::default() };
        assert!(core.volume.setattr(&call(), node, wish, None).await.is_ok());
        filer.set(&object, Changes { mtime: Some(read_before), ..Changes::default() }).await.unwrap();
        checkpoint::primary(&core, J, &location).await.unwrap();
        assert_eq!(filer.stat(&object).await.unwrap().mtime, Time(7_000_000_000));
    }

    #[tokio::test]
    async fn an_index_that_was_lost_is_made_again_from_a_whole_journal_and_handles_stay() {
        let (dir, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&dir, &filer).await;
        let (gone, kept) = (create(&core, "a", "gone").await, create(&core, "b", "kept").await);
        core.volume.remove(&call(), AT, b"a").await.unwrap();
        checkpoint::primary(&core, J, &core.locations.get(L).unwrap()).await.unwrap();
        let end = core.ledger.journal.end_lsn();
        core.ledger.wait_durable(end).await.unwrap();

        let lost = tempfile::tempdir().unwrap();
        let store = |name: &str| Arc::new(Store::open(&lost.path().join(name), 1 << 20).unwrap());
        let (live, objects) = (Arc::new(Live::new(store("live"))), Objects::new(store("objects")));
        let journal = &core.ledger.journal;
        let recovered = recover(journal, &live, &Drc::default());
        assert!(recovered.is_ok());
        assert!(redo::recollect(journal, &objects, L, end).unwrap(), "the journal reaches back to its beginning");
        let location = Location::new(L, ROOT, Arc::new(filer.clone()), objects);
        let redo = Redo {
            journal,
            junction: J,
            live: &live,
            location: &location,
            cursor: end,
            doubt_from: journal.start_lsn(),
            taken: BTreeSet::new(),
            proven_to: end,
            recorder: &core.ledger,
        };
        assert!(redo.run().await.unwrap().refused.is_empty());
        assert_eq!(live.path(kept.node).unwrap(), Some(vec![b"b".to_vec()]));
        assert!(live.node(gone.node).unwrap().is_none());
        let object = location.object(&live, kept.node).await.unwrap();
        assert_eq!(filer.read(&object, 0, 100).await.unwrap(), "kept");
    }

    /// What is under way on a primary that is about to go: it has been told nothing yet.
    struct Going {
        filer: Memory,
        gone: Arc<AtomicBool>,
        tasks: Vec<JoinHandle<std::result::Result<(), Status>>>,
    }

    impl Going {
        /// From now on these calls do not get through to the filer.
        fn begin(filer: &Memory, calls: &'static [&'static str]) -> Self {
            let gone = Arc::new(AtomicBool::new(false));
            let all = gone.clone();
            let hook = move |op: &'static str| {
                (calls.contains(&op) || all.load(Ordering::SeqCst)).then_some(Fault::Before(ErrorKind::Down))
            };
            filer.set_fault(Some(Box::new(hook)));
            Self { filer: filer.clone(), gone, tasks: Vec::new() }
        }

        /// It has its record when this returns.
        async fn on<T, E>(
            &mut self,
            core: &Core,
            op: impl Future<Output = std::result::Result<T, Refused<E>>> + Send + 'static,
        ) {
            let before = core.ledger.unsettled();
            let told = async move { op.await.map(drop).map_err(|refused| refused.status) };
            self.tasks.push(tokio::spawn(told));
            while core.ledger.unsettled() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }

        /// The file system is gone, which a sync finds out; then it is mounted anew, as of its last sync.
        async fn and_back(&self, core: &Core) {
            self.gone.store(true, Ordering::SeqCst);
            Checkpoints::default().take(core).await.unwrap();
            assert!(core.locations.get(L).is_none() && core.locations.fallen(L).is_some());
            self.filer.crash();
            self.filer.mount_anew();
            self.filer.set_fault(None);
        }

        /// What the clients were told: one that was sent away, that he may come again.
        async fn told(self) -> Vec<std::result::Result<(), Status>> {
            let mut told = Vec::new();
            for task in self.tasks {
                told.push(tokio::time::timeout(Duration::from_secs(30), task).await.expect("it hangs").unwrap());
            }
            told
        }
    }

    /// As the supervisor does it, but not for ever: why the last try failed.
    async fn tried(core: &Core) -> std::result::Result<(), String> {
        let mut tried = Err(String::new());
        for _ in 0..3 {
            tried = bring_up(core, J, L).await.map_err(|error| error.to_string());
            if tried.is_ok() {
                break;
            }
        }
        tried
    }

    async fn at_rest(core: &Core) {
        let begun = Instant::now();
        while core.ledger.unsettled() > 0 || core.volume.stuck() > 0 || core.volume.holds.counts(J) != (0, 0) {
            assert!(begun.elapsed() < Duration::from_secs(30), "something does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let journal = &core.ledger.journal;
        assert_eq!(core.ledger.settled_lsn(J), journal.end_lsn());
    }

    /// Ends of operations that were not done, in the journal.
    fn ends(core: &Core) -> usize {
        let journal = &core.ledger.journal;
        let mut reader = journal.reader(journal.start_lsn()).unwrap();
        let mut count = 0;
        while let Some(record) = reader.next(journal.durable_lsn()).unwrap() {
            count += usize::from(matches!(record.event, Event::Failed(_) | Event::Partial(_)));
        }
        count
    }

    async fn text(core: &Core, name: &str) -> Option<String> {
        let node = core.volume.lookup(&call(), AT, name.as_bytes()).await.ok()?.node;
        let read = core.volume.read(&call(), node, 0, 100).await.unwrap();
        Some(String::from_utf8(read.data.to_vec()).unwrap())
    }

    fn dir() -> NewNode {
        NewNode { what: What::Dir, attrs: SetAttrs { mode: Some(0o755), ..SetAttrs::default() } }
    }

    /// Their objects are of the mount that is gone, and some are not on the new one before the redo.
    #[tokio::test]
    async fn what_is_under_way_when_a_file_system_dies_is_done_on_the_one_that_is_mounted_anew() {
        let (temp, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&temp, &filer).await;
        for name in ["removed", "moved", "cut", "linked"] {
            create(&core, name, "kept").await;
        }
        Checkpoints::default().take(&core).await.unwrap();
        // Answered, and lost with the file system.
        let lost = create(&core, "lost", "answered").await;
        let inside = core.volume.make(&call(), AT, b"dir", dir()).await.unwrap().node;
        let cut = core.volume.lookup(&call(), AT, b"cut").await.unwrap().node;
        let linked = core.volume.lookup(&call(), AT, b"linked").await.unwrap().node;

        let volume = core.volume.clone();
        let mut going = Going::begin(&filer, &["make", "write", "set", "remove", "rename", "link"]);
        let v = volume.clone();
        going.on(&core, async move { v.write(&call(), lost, 8, Bytes::from_static(b" and more")).await }).await;
        let v = volume.clone();
        going.on(&core, async move { v.make(&call(), inside, b"below", dir()).await }).await;
        let v = volume.clone();
        going.on(&core, async move { v.remove(&call(), AT, b"removed").await }).await;
        let v = volume.clone();
        going.on(&core, async move { v.rename(&call(), AT, b"moved", inside, b"moved").await }).await;
        let v = volume.clone();
        let wish = SetAttrs { size: Some(1), ..SetAttrs::default() };
        going.on(&core, async move { v.setattr(&call(), cut, wish, None).await }).await;
        let v = volume.clone();
        going.on(&core, async move { v.link(&call(), linked, AT, b"link").await }).await;
        assert_eq!(core.ledger.unsettled(), 6);
        going.and_back(&core).await;

        assert_eq!(tried(&core).await, Ok(()));
        let told = going.told().await;
        assert!(told.iter().all(|told| matches!(told, Ok(()) | Err(Status::Jukebox))), "{told:?}");
        at_rest(&core).await;
        assert_eq!(ends(&core), 0, "all of it is done");
        assert_eq!(text(&core, "lost").await.as_deref(), Some("answered and more"));
        assert_eq!(text(&core, "cut").await.as_deref(), Some("k"));
        assert_eq!(text(&core, "link").await.as_deref(), Some("kept"));
        for (at, name, there) in
            [(AT, "removed", false), (AT, "moved", false), (inside, "moved", true), (inside, "below", true)]
        {
            let found = core.volume.lookup(&call(), at, name.as_bytes()).await.map_err(|refused| refused.status);
            assert_eq!(found.is_ok(), there, "{name}: {found:?}");
        }
        // And lasts.
        let settled = core.ledger.settled_lsn(J);
        Checkpoints::default().take(&core).await.unwrap();
        assert!(core.ledger.state().locations[&L].cursor >= settled);
        filer.crash();
        core.locations.get(L).unwrap().forget_all();
        assert_eq!(text(&core, "lost").await.as_deref(), Some("answered and more"));
    }

    #[tokio::test]
    async fn of_what_is_refused_then_only_what_was_under_way_fails() {
        let (temp, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&temp, &filer).await;
        let linked = create(&core, "linked", "kept").await;
        Checkpoints::default().take(&core).await.unwrap();
        let (mut going, v) = (Going::begin(&filer, &["make"]), core.volume.clone());
        going.on(&core, async move { v.make(&call(), AT, b"under way", dir()).await }).await;
        // Answered, behind one that is not: nothing in the journal proves it.
        core.volume.link(&call(), linked, AT, b"answered").await.unwrap();
        going.and_back(&core).await;
        let root = filer.root().await.unwrap();
        let attrs = MakeAttrs { mode: 0o600, uid: 0, gid: 0, inherits: false };
        for name in ["under way", "answered"] {
            filer.make(&root, name.as_bytes(), &What::File, attrs).await.unwrap();
        }

        let why = tried(&core).await.unwrap_err();
        assert!(why.contains("was answered"), "{why}");
        assert!(ends(&core) <= 1);
        filer.remove(&root, b"answered").await.unwrap();
        assert_eq!(tried(&core).await, Ok(()));
        let told = going.told().await;
        assert!(matches!(told[..], [Err(Status::Exist | Status::Jukebox)]), "{told:?}");
        at_rest(&core).await;
        assert_eq!(ends(&core), 1);
        assert_eq!(text(&core, "answered").await.as_deref(), Some("kept"));
    }

    #[tokio::test]
    async fn a_call_that_has_not_come_back_is_waited_for_and_nobody_else_is_held_meanwhile() {
        let (temp, filer) = (tempfile::tempdir().unwrap(), Memory::default());
        let core = world(&temp, &filer).await;
        let node = create(&core, "a", "text").await;
        let other = create(&core, "b", "text").await;
        Checkpoints::default().take(&core).await.unwrap();
        let hangs = |op: &'static str| Turn {
            before: Duration::from_secs(if op == "write" { 4 } else { 0 }),
            fault: (op == "sync").then_some(Fault::Before(ErrorKind::Io)),
            ..Turn::default()
        };
        filer.set_script(Some(Box::new(hangs)));
        let volume = core.volume.clone();
        let hung =
            tokio::spawn(async move { volume.write(&call(), node, 0, Bytes::from_static(b"late")).await.is_ok() });
        while core.ledger.unsettled() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Checkpoints::default().take(&core).await.unwrap();
        filer.set_script(None);
        let (bringing, begun) = (bring_up(&core, J, L), Instant::now());
        let calls = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let write = core.volume.write(&call(), other, 0, Bytes::from_static(b"x")).await;
            (write.map_err(|refused| refused.status).err(), begun.elapsed())
        };
        let (brought_up, (told, after)) = tokio::join!(bringing, calls);
        let why = brought_up.unwrap_err().to_string();
        assert!(why.contains("come back"), "{why}");
        assert_eq!(told, Some(Status::Jukebox));
        assert!(after < REST_MAX, "it was held: {after:?}");
        assert!(hung.await.unwrap());
        assert_eq!(tried(&core).await, Ok(()));
        assert_eq!(text(&core, "a").await.as_deref(), Some("late"));
        at_rest(&core).await;
    }
}
