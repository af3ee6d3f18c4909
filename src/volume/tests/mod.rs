//! A volume over a filer in memory and a real journal: what clients are answered, what is on the filer, and what the
//! journal says about it.

mod faults;
mod files;
mod names;
mod switched;
mod tree;

use super::*;
use crate::filer::memory::{Fault, Memory, Options as MemoryOptions};
use crate::filer::{CoreFiler, Object};
use crate::index::objects::Objects;
use crate::index::store::Store;
use crate::journal::{AppendMode, Journal, Options};
use crate::location::Location;
use crate::state::{Child, Junction, State};
use bytes::Bytes;
use journal_format::event::{Event, JunctionAdded, LocationSpec, What};
use journal_format::ids::{FilerId, LocationId, Lsn, Time};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicUsize;

const J: JunctionId = JunctionId(1);
const PRIMARY: LocationId = LocationId(1);
const ROOT: NodeId = NodeId(100);
const ROOT_REF: NodeRef = NodeRef { junction: J, node: ROOT };
const USER: u32 = 1000;

struct World {
    volume: Volume,
    filer: Memory,
    location: Arc<Location>,
    _dir: tempfile::TempDir,
}

fn root() -> Call {
    Call { uid: 0, gid: 0, gids: vec![], addr: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 700, xid: 1, sum: 1 }
}

fn user() -> Call {
    Call { uid: USER, gid: USER, ..root() }
}

fn mode(mode: u32) -> SetAttrs {
    SetAttrs { mode: Some(mode), ..SetAttrs::default() }
}

async fn world() -> World {
    world_of(Memory::default()).await
}

/// A junction `/data` whose root is everybody's.
async fn world_of(filer: Memory) -> World {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: dir.path().join("journal"),
        segment_size: 4 << 20,
        hard_limit: 64 << 20,
        append: AppendMode::Buffered,
        any_file_system: true,
        disk: Arc::new(crate::env::RealDisk),
    };
    let journal = Journal::open(options).unwrap();
    let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
    let objects = Objects::new(Arc::new(Store::open(&dir.path().join("objects"), 1 << 20).unwrap()));
    let top = filer.root().await.unwrap();
    filer.set(&top, crate::filer::Changes { mode: Some(0o777), ..Default::default() }).await.unwrap();
    objects.store.write(objects.put(ROOT, &top.id).unwrap());
    let added = JunctionAdded {
        junction: J,
        path: vec![b"data".to_vec()],
        location: LocationSpec { location: PRIMARY, filer: FilerId(1), subdir: vec![], root: top.id },
        root: ROOT,
        mtime: Time(1),
        ctime: Time(1),
    };
    live.apply(Lsn(16), Time(1), &Event::JunctionAdded(added)).unwrap();
    let mut state = State::default();
    let junction = Junction {
        path: vec![b"data".to_vec()],
        parent: virtuals::ROOT,
        primary: PRIMARY,
        root: ROOT,
        epoch: 1,
        added: Time(1),
        access: None,
        suspended: false,
    };
    state.junctions.insert(J, junction);
    state.tree.get_mut(&virtuals::ROOT).unwrap().children.insert(b"data".to_vec(), Child::Junction(J));
    let ledger = Ledger::new(journal, state, Box::new(|_, _| {}));
    let location = Arc::new(Location::new(PRIMARY, ROOT, Arc::new(filer.clone()), objects));
    let locations = Arc::new(Locations::default());
    locations.insert(location.clone());
    let volume = Volume::new(ledger, live, locations, Arc::new(NodeIds::after(ROOT)));
    World { volume, filer, location, _dir: dir }
}

impl World {
    async fn create(&self, call: &Call, name: &str) -> NodeRef {
        let how = CreateHow::Guarded(mode(0o644));
        self.volume.create(call, ROOT_REF, name.as_bytes(), how).await.expect("created").node
    }

    async fn mkdir(&self, call: &Call, dir: NodeRef, name: &str) -> NodeRef {
        let new = NewNode { what: What::Dir, attrs: mode(0o755) };
        self.volume.make(call, dir, name.as_bytes(), new).await.expect("made").node
    }

    async fn write(&self, call: &Call, node: NodeRef, offset: u64, data: &str) -> Result<u32, Status> {
        let written = self.volume.write(call, node, offset, Bytes::copy_from_slice(data.as_bytes())).await;
        written.map(|(n, _)| n).map_err(|r| r.status)
    }

    async fn read(&self, node: NodeRef) -> Vec<u8> {
        self.volume.read(&root(), node, 0, 1 << 20).await.expect("read").data.to_vec()
    }

    async fn lookup(&self, dir: NodeRef, name: &str) -> Result<NodeRef, Status> {
        self.volume.lookup(&root(), dir, name.as_bytes()).await.map(|f| f.node).map_err(|r| r.status)
    }

    async fn names(&self, dir: NodeRef) -> Vec<String> {
        let listing = self.volume.readdir(&root(), dir, 0, 0, Room::plain(1 << 20), &|_| true).await.expect("listed");
        assert!(listing.eof);
        listing.entries.into_iter().skip(2).map(|e| String::from_utf8(e.name).unwrap()).collect()
    }

    /// Straight on the filer, as before tain came.
    async fn put(&self, dir: &Object, name: &str, what: What) -> Object {
        let attrs = crate::filer::MakeAttrs { mode: 0o755, uid: USER, gid: USER, inherits: false };
        self.filer.make(dir, name.as_bytes(), &what, attrs).await.unwrap()
    }

    async fn top(&self) -> Object {
        self.filer.root().await.unwrap()
    }

    async fn object(&self, node: NodeRef) -> Object {
        self.location.object(self.volume.live.as_ref(), node.node).await.unwrap()
    }

    /// Everything that the journal says, durable.
    fn events(&self) -> Vec<(Lsn, Event)> {
        let journal = &self.volume.ledger.journal;
        let mut reader = journal.reader(journal.start_lsn()).unwrap();
        let mut events = Vec::new();
        while let Some(record) = reader.next(journal.durable_lsn()).unwrap() {
            events.push((record.lsn, record.event));
        }
        events
    }

    fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.events().iter().filter(|(_, e)| of(e)).count()
    }

    /// How many operations the journal has, whatever came of them.
    fn operations(&self) -> usize {
        self.count(|e| {
            let name = matches!(e, Event::Make(_) | Event::Remove(_) | Event::Rename(_) | Event::Link(_));
            name || matches!(e, Event::Write(_) | Event::SetAttr(_) | Event::Adopt(_))
        })
    }

    /// No operation is left behind: nothing locked, nothing unsettled, nobody inside.
    async fn assert_at_rest(&self) {
        assert!(self.volume.locks.is_empty());
        assert_eq!(self.volume.holds.counts(J), (0, 0));
        assert_eq!(self.volume.stuck(), 0);
        let end = self.volume.ledger.journal.end_lsn();
        assert_eq!(self.volume.ledger.settled_lsn(J), end);
    }

    fn fault(&self, op: &'static str, fault: Fault, times: usize) {
        let left = AtomicUsize::new(times);
        let hook = move |called: &'static str| {
            let hit =
                called == op && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            hit.then_some(fault)
        };
        self.filer.set_fault(Some(Box::new(hook)));
    }
}

#[test]
fn fsids_depend_on_journal_and_junction_alone() {
    let (a, b) = ([1; 16], [2; 16]);
    assert_eq!(fsid_of(&a, JunctionId(1)), fsid_of(&a, JunctionId(1)));
    assert_ne!(fsid_of(&a, JunctionId(1)), fsid_of(&a, JunctionId(2)));
    assert_ne!(fsid_of(&a, JunctionId(1)), fsid_of(&b, JunctionId(1)));
}

#[test]
fn node_ids_begin_behind_the_highest_and_never_at_the_trees_root() {
    let ids = NodeIds::after(NodeId(41));
    assert_eq!((ids.allot(), ids.allot()), (NodeId(42), NodeId(43)));
    assert_eq!(NodeIds::after(NodeId(0)).allot(), NodeId(2));
}
