//! Redo of a primary over a filer in memory and a real journal: whatever the filer kept, and whatever it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::redo::{Redo, Redone};
use super::{Location, View};
use crate::filer::memory::{self, Fault, Memory};
use crate::filer::{Capabilities, Changes, CoreFiler, ErrorKind, MakeAttrs, Object};
use crate::index::live::Live;
use crate::index::objects::Objects;
use crate::index::store::Store;
use crate::journal::{AppendMode, Journal, Options};
use bytes::Bytes;
use journal_format::event::*;
use journal_format::ids::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod acls;
mod tries;

const J: JunctionId = JunctionId(1);
const L: LocationId = LocationId(1);
const ROOT: NodeId = NodeId(100);
const ATTRS: MakeAttrs = MakeAttrs { mode: 0o755, uid: 0, gid: 0, inherits: false };

struct World {
    dir: tempfile::TempDir,
    journal: Journal,
    filer: Memory,
    /// The cursor, and where doubt begins: everything before is on the filer, durable.
    cursor: Lsn,
    lives: u32,
    location: Location,
    live: Arc<Live>,
}

async fn open(dir: &tempfile::TempDir, filer: &Memory, life: u32) -> (Location, Arc<Live>) {
    let store = |name: String| Arc::new(Store::open(&dir.path().join(name), 1 << 20).unwrap());
    let objects = Objects::new(store(format!("objects-{life}")));
    let root = filer.root().await.unwrap();
    objects.store.write(objects.put(ROOT, &root.id).unwrap());
    let live = Arc::new(Live::new(store(format!("live-{life}"))));
    (Location::new(L, ROOT, Arc::new(filer.clone()), objects), live)
}

impl World {
    async fn new() -> Self {
        Self::on(Memory::default()).await
    }

    async fn on(filer: Memory) -> Self {
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
        let (location, live) = open(&dir, &filer, 0).await;
        let root = filer.root().await.unwrap();
        let added = JunctionAdded {
            junction: J,
            path: vec![b"j".to_vec()],
            location: LocationSpec { location: L, filer: FilerId(1), subdir: vec![], root: root.id },
            root: ROOT,
            mtime: Time(1),
            ctime: Time(1),
        };
        let mut world = Self { dir, journal, filer, cursor: Lsn(0), lives: 0, location, live };
        world.say(Event::JunctionAdded(added), b"").await;
        world.cursor = world.journal.durable_lsn();
        world.again().await;
        world
    }

    async fn say(&self, event: Event, bulk: &[u8]) -> Lsn {
        let (at, ()) = self.journal.append_with(&event, bulk, |_| ()).await.unwrap();
        self.journal.wait_durable(at.end).await.unwrap();
        at.lsn
    }

    /// A new life of the service: index and store hold what was committed (here: what lies before the cursor).
    async fn again(&mut self) {
        self.lives += 1;
        let (location, live) = open(&self.dir, &self.filer, self.lives).await;
        (self.location, self.live) = (location, live);
        let mut reader = self.journal.reader(self.journal.start_lsn()).unwrap();
        while let Some(record) = reader.next(self.cursor).unwrap() {
            super::redo::known(&self.location.objects, L, &record.event).unwrap();
            self.live.apply(record.lsn, record.time, &record.event).unwrap();
        }
    }

    /// Everything said so far is on the filer, durable.
    async fn settle(&mut self) {
        assert!(self.redo().await.unwrap().refused.is_empty());
        self.filer.sync().await.unwrap();
        self.cursor = self.journal.durable_lsn();
        self.again().await;
    }

    async fn redo(&self) -> Result<Redone, super::redo::Error> {
        let recorder = InJournal(self.journal.clone());
        let redo = Redo {
            journal: &self.journal,
            junction: J,
            live: &self.live,
            location: &self.location,
            cursor: self.cursor,
            doubt_from: self.cursor,
            taken: BTreeSet::new(),
            proven_to: self.journal.durable_lsn(),
            recorder: &recorder,
        };
        redo.run().await
    }

    /// As the service does it: what is refused failed, and once more. How many were refused.
    async fn redo_all(&self) -> usize {
        let mut count = 0;
        loop {
            let redone = self.redo().await.unwrap();
            if redone.refused.is_empty() {
                return count;
            }
            for refused in redone.refused {
                count += 1;
                let (op, status) = (refused.op, 13);
                let end = match refused.part {
                    Some(done) => Event::Partial(Partial { op, done, status }),
                    None => Event::Failed(Failed { op, status }),
                };
                self.say(end, b"").await;
            }
        }
    }

    async fn make(&self, dir: NodeId, name: &str, node: u64, what: What) -> Lsn {
        self.say(make(dir, name, node, what), b"").await
    }

    async fn write(&self, node: u64, offset: u64, data: &[u8]) -> Lsn {
        let len = u32::try_from(data.len()).unwrap();
        let write = Write { junction: J, location: L, node: NodeId(node), offset, len, mode: None, caller: caller() };
        self.say(Event::Write(write), data).await
    }

    async fn rename(&self, node: u64, kind: Kind, from: &str, to: &str, replaced: Option<Replaced>) -> Lsn {
        let rename = Rename {
            junction: J,
            location: L,
            from_dir: ROOT,
            from_name: from.into(),
            to_dir: ROOT,
            to_name: to.into(),
            node: NodeId(node),
            kind,
            replaced,
            caller: caller(),
        };
        self.say(Event::Rename(rename), b"").await
    }

    async fn remove(&self, node: u64, name: &str, last: bool) -> Lsn {
        let (dir, node, kind) = (ROOT, NodeId(node), Kind::File);
        let remove = Remove { junction: J, location: L, dir, name: name.into(), node, kind, last, caller: caller() };
        self.say(Event::Remove(remove), b"").await
    }

    async fn link(&self, node: u64, name: &str) -> Lsn {
        let (dir, node, kind) = (ROOT, NodeId(node), Kind::File);
        let link = Link { junction: J, location: L, node, kind, dir, name: name.into(), caller: caller() };
        self.say(Event::Link(link), b"").await
    }

    async fn top(&self) -> Object {
        self.filer.root().await.unwrap()
    }

    /// Paths and what is there.
    async fn tree(&self) -> BTreeMap<String, String> {
        let mut seen = BTreeMap::new();
        let mut todo = vec![(String::new(), self.top().await)];
        while let Some((path, dir)) = todo.pop() {
            for name in self.filer.list(&dir, 0, 1000).await.unwrap().names {
                let object = self.filer.lookup(&dir, &name).await.unwrap();
                let path = format!("{path}{}", String::from_utf8(name).unwrap());
                let what = match object.kind {
                    Kind::Dir => {
                        todo.push((format!("{path}/"), object.clone()));
                        "dir".to_owned()
                    }
                    Kind::Symlink => format!("{:?}", self.filer.readlink(&object).await.unwrap()),
                    _ => String::from_utf8(self.filer.read(&object, 0, 1000).await.unwrap().to_vec()).unwrap(),
                };
                seen.insert(path, what);
            }
        }
        let pen = self.filer.list(&self.filer.pen().await.unwrap(), 0, 1000).await.unwrap();
        assert!(pen.names.is_empty(), "the pen holds {:?}", pen.names);
        seen
    }

    fn fail(&self, op: &'static str, kind: ErrorKind) {
        let fails = move |called: &str| called == op || (op == "make" && called == "make_nameless");
        self.filer.set_fault(Some(Box::new(move |called| fails(called).then_some(Fault::Before(kind)))));
    }

    /// The live index as it would be had the operations that failed never been asked for.
    async fn assert_index_is_the_journals(&self) {
        let expected = Live::new(Arc::new(Store::open(&self.dir.path().join("expected"), 1 << 20).unwrap()));
        let mut ends = super::redo::Ends::new();
        let end = self.journal.durable_lsn();
        let mut reader = self.journal.reader(self.journal.start_lsn()).unwrap();
        while let Some(record) = reader.next(end).unwrap() {
            super::redo::note_end(&mut ends, &record.event);
        }
        let mut reader = self.journal.reader(self.journal.start_lsn()).unwrap();
        while let Some(record) = reader.next(end).unwrap() {
            let end = ends.get(&record.lsn);
            super::redo::fold(&expected, record, end).unwrap();
        }
        let (a, b) = (self.live.store.scan(b"", None, 10_000), expected.store.scan(b"", None, 10_000));
        assert_eq!(a.unwrap(), b.unwrap());
    }
}

struct InJournal(Journal);

#[async_trait::async_trait]
impl super::Recorder for InJournal {
    async fn made(&self, location: LocationId, objects: &[(NodeId, Identity)]) -> crate::filer::Result<()> {
        let made = Event::Made(Made { location, objects: objects.to_vec() });
        let (at, ()) = self.0.append_with(&made, &[], |_| ()).await.unwrap();
        self.0.wait_durable(at.end).await.unwrap();
        Ok(())
    }
}

fn caller() -> Caller {
    Caller::default()
}

fn make(dir: NodeId, name: &str, node: u64, what: What) -> Event {
    let MakeAttrs { mode, uid, gid, .. } = ATTRS;
    Event::Make(Make {
        junction: J,
        location: L,
        dir,
        name: name.into(),
        node: NodeId(node),
        what,
        mode,
        uid,
        gid,
        size: 0,
        atime: None,
        mtime: None,
        verifier: None,
        caller: caller(),
    })
}

fn tree(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect()
}

fn over(node: u64) -> Option<Replaced> {
    Some(Replaced { node: NodeId(node), kind: Kind::File, last: true })
}

/// Two files with text.
/// Where new files can be made without a name, and where all go through the pen.
fn both_kinds() -> [Memory; 2] {
    let can = memory::Options::default().capabilities;
    [true, false].map(|nameless| {
        Memory::new(memory::Options { capabilities: Capabilities { nameless, ..can }, ..memory::Options::default() })
    })
}

async fn with_two_files() -> World {
    with_two_files_on(Memory::default()).await
}

async fn with_two_files_on(filer: Memory) -> World {
    let mut world = World::on(filer).await;
    world.make(ROOT, "a", 1, What::File).await;
    world.write(1, 0, b"one").await;
    world.make(ROOT, "v", 2, What::File).await;
    world.write(2, 0, b"victim").await;
    world.settle().await;
    world
}

#[tokio::test]
async fn what_a_power_cut_took_is_carried_out_again_and_a_second_redo_changes_nothing() {
    let mut world = with_two_files().await;
    world.write(1, 3, b" more").await;
    world.rename(1, Kind::File, "a", "b", None).await;
    world.make(ROOT, "a", 3, What::File).await;
    world.write(3, 0, b"three").await;
    let due = tree(&[("a", "three"), ("b", "one more"), ("v", "victim")]);
    for _ in 0..3 {
        world.redo_all().await;
        assert_eq!(world.tree().await, due);
        world.assert_index_is_the_journals().await;
        world.filer.crash();
        std::fs::remove_file(world.dir.path().join("expected")).unwrap();
        world.again().await;
    }
}

/// Found by crash points: a rename had parked the object when the process died, and a REMOVE of the new name came behind.
#[tokio::test]
async fn who_was_parked_and_lives_on_by_another_name_leaves_the_pen() {
    let mut world = World::new().await;
    world.make(ROOT, "a", 1, What::File).await;
    world.write(1, 0, b"one").await;
    world.link(1, "b").await;
    world.settle().await;
    world.rename(1, Kind::File, "a", "c", None).await;
    world.remove(1, "c", false).await;
    let pen = world.filer.pen().await.unwrap();
    world.filer.rename(&world.top().await, b"a", &pen, b"1").await.unwrap();
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("b", "one")]));
}

/// Found by power cuts on ext4: a file was there, its `Made` in the journal, with the mode that it has while it is made.
#[tokio::test]
async fn an_object_that_a_power_cut_kept_without_its_attributes_gets_them_again() {
    for what in [What::File, What::Dir] {
        let mut world = World::new().await;
        let Event::Make(mut event) = make(ROOT, "a", 1, what.clone()) else { unreachable!() };
        (event.mode, event.uid, event.gid) = (0o640, 7, 8);
        event.size = if what == What::File { 3 } else { 0 };
        world.say(Event::Make(event), b"").await;
        world.redo_all().await;
        let object = world.filer.lookup(&world.top().await, b"a").await.unwrap();
        let made = Changes { mode: Some(0o600), uid: Some(0), gid: Some(0), ..Changes::default() };
        world.filer.set(&object, made).await.unwrap();
        if what == What::File {
            world.filer.set(&object, Changes { size: Some(0), ..Changes::default() }).await.unwrap();
        }
        world.again().await;
        assert_eq!(world.redo_all().await, 0);
        let stat = world.filer.stat(&object).await.unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid), (0o640, 7, 8), "{what:?}");
        assert!(what == What::Dir || stat.size == 3);
    }
}

/// Found by power cuts on XFS: one cut took an object, redo made it again in the pen, and the next cut took that `Made`.
#[tokio::test]
async fn what_redo_made_again_is_known_by_its_place_in_the_pen_when_its_identity_is_lost() {
    for what in [What::File, What::Dir] {
        let mut world = World::new().await;
        world.make(ROOT, "a", 1, what.clone()).await;
        let pen = world.filer.pen().await.unwrap();
        let first = world.filer.make(&pen, b"1", &what, ATTRS).await.unwrap();
        world.say(Event::Made(Made { location: L, objects: vec![(NodeId(1), first.id)] }), b"").await;
        match what {
            What::Dir => world.filer.rmdir(&pen, b"1").await.unwrap(),
            _ => world.filer.remove(&pen, b"1").await.unwrap(),
        }
        world.filer.make(&pen, b"1", &what, ATTRS).await.unwrap();
        world.again().await;
        assert_eq!(world.redo_all().await, 0);
        let due = if what == What::Dir { "dir" } else { "" };
        assert_eq!(world.tree().await, tree(&[("a", due)]));
    }
}

/// It was made and the next call failed: the second try knew it already, moved it on, and nobody ever recorded it.
#[tokio::test]
async fn an_io_error_or_a_full_filer_holds_the_location_and_what_was_answered_is_written_later() {
    for kind in [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Quota, ErrorKind::ReadOnly, ErrorKind::Down] {
        let calls = ["write", "rename", "make", "set", "remove"];
        for (call, filer) in calls.into_iter().flat_map(|call| both_kinds().map(|filer| (call, filer))) {
            let world = with_two_files_on(filer).await;
            world.write(1, 0, b"ONE").await;
            world.rename(1, Kind::File, "a", "b", None).await;
            world.make(ROOT, "new", 3, What::File).await;
            world.write(3, 0, b"3").await;
            world.remove(2, "v", true).await;
            world.fail(call, kind);
            let error = world.redo().await.err();
            assert!(matches!(error, Some(super::redo::Error::Filer(_))), "{call} {kind:?}: {error:?}");
            world.filer.set_fault(None);
            assert_eq!(world.redo_all().await, 0, "{call} {kind:?}");
            assert_eq!(world.tree().await, tree(&[("b", "ONE"), ("new", "3")]), "{call} {kind:?}");
        }
    }
}

#[tokio::test]
async fn an_operation_in_doubt_that_is_refused_for_good_failed_and_neither_filer_nor_index_shows_it() {
    let untouched = tree(&[("a", "one"), ("v", "victim")]);
    let cases = ["write", "set", "make", "remove", "rename", "rename over", "rename over, late", "link"];
    for (case, filer) in cases.into_iter().flat_map(|case| both_kinds().map(|filer| (case, filer))) {
        let world = with_two_files_on(filer).await;
        let op = match case {
            "write" => world.write(1, 0, b"ONE").await,
            "set" => {
                let (node, mode) = (NodeId(1), Some(0o600));
                let (uid, gid, size, atime, mtime) = (None, None, None, None, None);
                let set =
                    SetAttr { junction: J, location: L, node, mode, uid, gid, size, atime, mtime, caller: caller() };
                world.say(Event::SetAttr(set), b"").await
            }
            "make" => world.make(ROOT, "new", 3, What::File).await,
            "remove" => world.remove(2, "v", true).await,
            "rename" => world.rename(1, Kind::File, "a", "b", None).await,
            "rename over" | "rename over, late" => world.rename(1, Kind::File, "a", "v", over(2)).await,
            _ => world.link(1, "b").await,
        };
        match case {
            // Both are moved away; then the victim's going, or the other one's coming, is refused.
            "rename over" | "rename over, late" => {
                let nth = if case == "rename over" { 1 } else { 2 };
                let calls = AtomicU64::new(0);
                world.filer.set_fault(Some(Box::new(move |called| {
                    let second = called == "rename" && calls.fetch_add(1, Ordering::Relaxed) == nth;
                    second.then_some(Fault::Before(ErrorKind::Access))
                })));
            }
            "rename" => world.fail("rename", ErrorKind::Access),
            "set" => world.fail("set", ErrorKind::NotPermitted),
            other => world.fail(
                ["write", "make", "remove", "link"].into_iter().find(|c| *c == other).unwrap(),
                ErrorKind::Access,
            ),
        }
        let redone = world.redo().await.unwrap();
        assert_eq!(redone.refused.iter().map(|r| r.op).collect::<Vec<_>>(), [op], "{case}");
        world.filer.set_fault(None);
        world.say(Event::Failed(Failed { op, status: 13 }), b"").await;
        assert_eq!(world.redo_all().await, 0, "{case}");
        assert_eq!(world.tree().await, untouched, "{case}");
        world.assert_index_is_the_journals().await;
    }
}

#[tokio::test]
async fn an_operation_that_was_answered_is_never_failed_but_holds_the_location() {
    let world = with_two_files().await;
    world.rename(1, Kind::File, "a", "b", None).await;
    // It held the node's lock behind the rename: the rename had ended, and its client heard so.
    world.write(1, 0, b"ONE").await;
    world.fail("rename", ErrorKind::Access);
    assert!(world.redo().await.is_err());
    world.filer.set_fault(None);
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("b", "ONE"), ("v", "victim")]));
}

#[tokio::test]
async fn new_objects_that_had_one_name_after_another_are_never_taken_for_one_another() {
    let due = tree(&[("b", "dir"), ("b/x", "in one"), ("a", "dir"), ("a/y", "in two"), ("l", "[50]")]);
    let mut calls_needed = 0;
    for cut in 0.. {
        let mut world = World::new().await;
        world.make(ROOT, "a", 1, What::Dir).await;
        world.make(NodeId(1), "x", 2, What::File).await;
        world.write(2, 0, b"in one").await;
        world.rename(1, Kind::Dir, "a", "b", None).await;
        world.make(ROOT, "a", 3, What::Dir).await;
        world.make(NodeId(3), "y", 4, What::File).await;
        world.write(4, 0, b"in two").await;
        world.make(ROOT, "l", 5, What::Symlink { target: b"1".to_vec() }).await;
        world.remove_link(5, "l").await;
        world.make(ROOT, "l", 6, What::Symlink { target: b"2".to_vec() }).await;
        let left = Arc::new(AtomicU64::new(cut));
        let counted = left.clone();
        world.filer.set_fault(Some(Box::new(move |_| {
            let last = counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err();
            last.then_some(Fault::Before(ErrorKind::Down))
        })));
        let through = world.redo().await.is_ok();
        world.filer.set_fault(None);
        world.again().await;
        assert_eq!(world.redo_all().await, 0);
        assert_eq!(world.tree().await, due, "cut after {cut} calls");
        if through {
            calls_needed = cut;
            break;
        }
    }
    assert!(calls_needed > 20, "only {calls_needed} calls: nothing was cut");
}

#[tokio::test]
async fn a_foreign_object_is_not_taken_for_a_new_one_and_is_not_written_over() {
    let mut world = World::new().await;
    world.make(ROOT, "a", 1, What::File).await;
    world.write(1, 0, b"ours").await;
    world.rename(1, Kind::File, "a", "b", None).await;
    world.write(1, 4, b"!").await;
    let theirs = world.filer.make(&world.top().await, b"b", &What::File, ATTRS).await.unwrap();
    world.filer.write(&theirs, 0, Bytes::from_static(b"theirs")).await.unwrap();
    assert!(world.redo().await.is_err(), "it stands where ours should be: that is for people to see");
    assert_eq!(world.filer.read(&theirs, 0, 100).await.unwrap(), "theirs");
    world.filer.rename(&world.top().await, b"b", &world.top().await, b"c").await.unwrap();
    world.again().await;
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("b", "ours!"), ("c", "theirs")]));
}

#[tokio::test]
async fn the_only_name_left_of_a_hard_linked_object_is_not_taken_away_before_the_other_is_back() {
    let mut world = with_two_files().await;
    world.link(1, "b").await;
    world.settle().await;
    // The filer lost the other name.
    world.filer.remove(&world.top().await, b"b").await.unwrap();
    world.remove(1, "a", false).await;
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("b", "one"), ("v", "victim")]));
}

#[tokio::test]
async fn an_index_that_does_not_hold_the_last_operations_has_them_after_the_redo_and_not_before() {
    let world = with_two_files().await;
    world.rename(1, Kind::File, "a", "b", None).await;
    assert_eq!(View::names(&world.live, NodeId(1), 9).unwrap(), [(ROOT, b"a".to_vec())]);
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(View::names(&world.live, NodeId(1), 9).unwrap(), [(ROOT, b"b".to_vec())]);
}

impl World {
    async fn remove_link(&self, node: u64, name: &str) {
        let (dir, node, kind) = (ROOT, NodeId(node), Kind::Symlink);
        let remove =
            Remove { junction: J, location: L, dir, name: name.into(), node, kind, last: true, caller: caller() };
        self.say(Event::Remove(remove), b"").await;
    }
}

#[tokio::test]
async fn one_that_was_never_made_under_a_name_does_not_hide_the_one_that_was() {
    let world = World::new().await;
    world.make(ROOT, "a", 3, What::Symlink { target: b"gone".to_vec() }).await;
    world.remove_link(3, "a").await;
    world.make(ROOT, "a", 4, What::File).await;
    world.write(4, 0, b"its own").await;
    world.filer.make(&world.top().await, b"a", &What::File, ATTRS).await.unwrap();
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "its own".to_owned())]);
}

#[tokio::test]
async fn a_new_object_is_made_as_it_is_to_be_in_the_end_and_a_refusal_is_that_of_the_one_who_asked() {
    for refused in [false, true] {
        let world = World::new().await;
        world.make(ROOT, "new", 3, What::File).await;
        world.rename(3, Kind::File, "new", "kept", None).await;
        let (node, mode, uid, mtime) = (NodeId(3), Some(0o604), Some(7), Some(Time(77)));
        let (gid, size, atime) = (None, Some(5), Some(Time(66)));
        let set = SetAttr { junction: J, location: L, node, mode, uid, gid, size, atime, mtime, caller: caller() };
        let op = world.say(Event::SetAttr(set), b"").await;
        if refused {
            world.fail("set", ErrorKind::NotPermitted);
            let redone = world.redo().await.unwrap();
            assert_eq!(redone.refused.iter().map(|r| r.op).collect::<Vec<_>>(), [op]);
        }
        let sets = Arc::new(AtomicU64::new(0));
        let counted = sets.clone();
        world.filer.set_fault(Some(Box::new(move |called| {
            counted.fetch_add(u64::from(called == "set"), Ordering::Relaxed);
            None
        })));
        assert_eq!(world.redo_all().await, 0);
        if !refused {
            assert_eq!(sets.load(Ordering::Relaxed), 2, "its own, and the time of the directory");
        }
        let kept = world.filer.lookup(&world.top().await, b"kept").await.unwrap();
        let stat = world.filer.stat(&kept).await.unwrap();
        assert_eq!((stat.mode, stat.uid, stat.size), (0o604, 7, 5));
        assert_eq!((stat.atime, stat.mtime), (Time(66), Time(77)));
        world.tree().await; // the pen is empty
        world.assert_index_is_the_journals().await;
    }
}

/// As of a tree that does not fit into memory.
#[tokio::test]
async fn identities_that_are_collected_again_are_not_all_kept_in_memory() {
    const EACH: u64 = 500;
    let identity = |node: NodeId| (node, Identity([node.0.to_le_bytes().as_slice(), &[7; 90]].concat()));
    let world = World::new().await;
    for n in 0..80 {
        let object = |i: u64| identity(NodeId(1000 + n * EACH + i));
        let made = Event::Made(Made { location: L, objects: (0..EACH).map(object).collect() });
        world.journal.append_with(&made, &[], |_| ()).await.unwrap();
    }
    let end = world.journal.end_lsn();
    world.journal.wait_durable(end).await.unwrap();
    let store = Arc::new(Store::open_exact(&world.dir.path().join("again"), 1 << 20).unwrap());
    let again = Objects::new(store);
    super::redo::recollect(&world.journal, &again, L, end).unwrap();
    assert!(again.store.overlay_bytes() <= crate::index::store::OVERLAY_BYTES_MAX + (1 << 20));
    assert_eq!(again.store.lsn(), Lsn(0), "and it says nothing of what else is in it");
    for node in [1000, 1000 + 80 * EACH - 1] {
        let (node, id) = identity(NodeId(node));
        assert_eq!(again.identity(node).unwrap(), Some(id));
    }
}
