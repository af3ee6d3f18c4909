//! Bringing a primary up: it is redone from its cursor, operations in doubt get their ends, clients reach it.
//!
//! ```text
//! reach it ─► Redo::run ─┬─ refused ─► Failed | Partial, durable ─► again, without them
//! (or the one that fell, └─ done ────► synced, store committed ─► decided ─► clients
//!  when its operations have ended)
//! ```
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
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long operations may take to end before a location that fell is redone; else it is tried again later.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Open a primary (or take the one that fell) and bring it to the journal's end; then clients reach it.
pub async fn bring_up(core: &Core, junction: JunctionId, id: LocationId) -> Result<()> {
    let state = core.ledger.state();
    let location = match core.locations.fallen(id) {
        Some(location) => {
            // Operations under way hold it still. New ones find none, and get JUKEBOX.
            let hold = core.volume.hold(junction);
            if tokio::time::timeout(DRAIN_MAX, core.volume.drained(junction)).await.is_err() {
                return Err(Error::Other("operations under way have not ended".into()));
            }
            drop(hold);
            location.filer.root().await?;
            location.forget_all();
            location
        }
        None => open_location(core, &state, id).await?,
    };
    let cursor = state.locations.get(&id).map_or(Lsn(0), |l| l.cursor);
    if location.objects.store.lsn() < cursor {
        recollect(core, &location, cursor).await?;
    }
    if core.live.node(location.root)?.is_none() {
        return Err(Error::Other("the junction is being added".into()));
    }
    redo_all(core, junction, &location, cursor).await?;
    location.is_redone();
    crash_point!("BRING_UP_BEFORE_CHECKPOINT");
    checkpoint::primary(core, junction, &location).await?;
    crash_point!("REDO_SYNCED");
    core.locations.insert(location);
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

async fn redo_all(core: &Core, junction: JunctionId, location: &Arc<Location>, cursor: Lsn) -> Result<()> {
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
                let (operations, bytes) = (redone.operations, redone.bytes);
                tracing::info!(location = %location.id, operations, bytes, took = ?begin.elapsed(),
                    "the primary was redone from its cursor");
            }
            return Ok(());
        }
        for refused in redone.refused {
            refuse(core, location, refused).await?;
        }
    }
}

/// What was in the journal without an end, and the filer refuses for good: it failed, and no client was told otherwise.
async fn refuse(core: &Core, location: &Location, refused: Refused) -> Result<()> {
    let Refused { op, node, kind, part, error } = refused;
    tracing::warn!(location = %location.id, %op, %node, error, "an operation in doubt was refused by the filer: it failed");
    let status = of_kind(kind) as u32;
    let end = match part {
        Some(done) => Event::Partial(Partial { op, done, status }),
        None => Event::Failed(Failed { op, status }),
    };
    let at = core.ledger.record(&end).await?;
    core.ledger.tell(&at, &end);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::filer::memory::{Fault, Memory};
    use crate::filer::registry::Filers;
    use crate::filer::{Changes, CoreFiler, ErrorKind};
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
    use crate::volume::{Call, CreateHow, NodeIds, NodeRef, SetAttrs, Status, Volume};
    use bytes::Bytes;
    use journal_format::event::{FilerAdded, FilerFound, JunctionAdded, LocationSpec};
    use journal_format::ids::{FilerId, Identity, NodeId, Time};
    use std::net::{IpAddr, Ipv4Addr};

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
        let filers = Arc::new(crate::filer::registry::Registry);
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
            proven_to: end,
            recorder: &core.ledger,
        };
        assert!(redo.run().await.unwrap().refused.is_empty());
        assert_eq!(live.path(kept.node).unwrap(), Some(vec![b"b".to_vec()]));
        assert!(live.node(gone.node).unwrap().is_none());
        let object = location.object(&live, kept.node).await.unwrap();
        assert_eq!(filer.read(&object, 0, 100).await.unwrap(), "kept");
    }
}
