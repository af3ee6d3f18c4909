//! The tree above the junctions, handles, mounts, holds.

use super::virtuals::TREE;
use super::*;
use journal_format::event::Adopt;
use journal_format::ids::Kind;
use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Limit for what would hang.
const HANG: Duration = Duration::from_secs(60);

impl World {
    /// Under the directory's lock, until it is told to go on.
    async fn listing_stands_at_its_second_page(
        &self,
        dir: NodeRef,
    ) -> (tokio::task::JoinHandle<Result<(), Status>>, mpsc::Sender<()>) {
        let ((reaches, reached), (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
        let (wait, pages) = (parking_lot::Mutex::new(wait), AtomicUsize::new(0));
        self.filer.set_fault(Some(Box::new(move |op| {
            if op == "list" && pages.fetch_add(1, Ordering::SeqCst) == 1 {
                reaches.send(()).unwrap();
                wait.lock().recv_timeout(HANG).unwrap();
            }
            None
        })));
        let volume = self.volume.clone();
        let listing = tokio::spawn(async move { volume.complete(J, dir.node).await });
        tokio::task::spawn_blocking(move || reached.recv_timeout(HANG).unwrap()).await.unwrap();
        (listing, go)
    }

    /// Before the held junction.
    async fn so_many_wait_outside(&self, count: usize) {
        while self.volume.holds.counts(J).1 < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// For locks.
    async fn so_many_wait(&self, count: usize) {
        let waits = async {
            while self.volume.locks.waiting() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(HANG, waits).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_have_their_turn_between_the_pages_of_a_large_directorys_first_listing() {
    let w = world().await;
    let d = w.put(&w.top().await, "d", What::Dir).await;
    let there = 3 * Adopt::ENTRIES_MAX;
    for i in 0..there {
        w.put(&d, &format!("{i}"), What::File).await;
    }
    let dir = w.lookup(ROOT_REF, "d").await.unwrap();
    let (listing, go) = w.listing_stands_at_its_second_page(dir).await;
    let volume = w.volume.clone();
    let how = CreateHow::Guarded(mode(0o644));
    let create = tokio::spawn(async move { volume.create(&root(), dir, b"new", how).await.map(drop) });
    w.so_many_wait(1).await;
    go.send(()).unwrap();
    create.await.unwrap().unwrap();
    listing.await.unwrap().unwrap();

    let events = w.events();
    let lsn = |of: &dyn Fn(&Event) -> bool| events.iter().find(|(_, e)| of(e)).unwrap().0;
    let made = lsn(&|e| matches!(e, Event::Make(e) if e.name == b"new"));
    let whole = lsn(&|e| matches!(e, Event::Adopt(e) if e.dir == dir.node && e.complete));
    assert!(made < whole, "the listing did not wait for it, nor it for the listing's end");
    assert_eq!(w.names(dir).await.len(), there + 1);
    w.assert_at_rest().await;
}

/// There a position in a listing is a count: what goes from before it moves others there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_go_between_two_pages_hide_no_others_whatever_a_filers_positions_are() {
    for lasting_positions in [true, false] {
        let capabilities = crate::filer::Capabilities { lasting_positions, ..MemoryOptions::default().capabilities };
        let w = world_of(Memory::new(MemoryOptions { capabilities, ..MemoryOptions::default() })).await;
        let d = w.put(&w.top().await, "d", What::Dir).await;
        let there = 3 * Adopt::ENTRIES_MAX;
        for i in 0..there {
            w.put(&d, &format!("{i:05}"), What::File).await;
        }
        let dir = w.lookup(ROOT_REF, "d").await.unwrap();
        let (listing, go) = w.listing_stands_at_its_second_page(dir).await;
        // They wait for the second page's end, and go before the third.
        let mut gone = Vec::new();
        for i in 0..10 {
            let volume = w.volume.clone();
            gone.push(tokio::spawn(async move {
                volume.remove(&root(), dir, format!("{i:05}").as_bytes()).await.map(drop)
            }));
        }
        w.so_many_wait(10).await;
        go.send(()).unwrap();
        for gone in gone {
            gone.await.unwrap().unwrap();
        }
        listing.await.unwrap().unwrap();
        assert_eq!(w.names(dir).await.len(), there - 10, "lasting positions: {lasting_positions}");
        w.assert_at_rest().await;
    }
}

/// Before an existing NAS all is unseen on the first day, and whoever may read may list it.
#[tokio::test]
async fn listings_that_take_long_are_no_hangs_and_hold_up_no_changes() {
    let w = world().await;
    for i in 0..run::STUCK_MAX {
        w.put(&w.top().await, &format!("{i}"), What::Dir).await;
    }
    w.names(ROOT_REF).await;
    let slow = Duration::from_secs(4);
    w.filer.set_script(Some(Box::new(move |op| crate::filer::memory::Turn {
        before: if op == "list" { slow } else { Duration::ZERO },
        ..Default::default()
    })));
    let listings = (0..run::STUCK_MAX).map(|i| {
        let (volume, name) = (w.volume.clone(), format!("{i}"));
        async move {
            let dir = volume.lookup(&root(), ROOT_REF, name.as_bytes()).await.map_err(|r| r.status)?.node;
            volume.readdir(&root(), dir, 0, 0, Room::plain(4096), &|_| true).await.map(drop).map_err(|r| r.status)
        }
    });
    let told = futures_util::future::join_all(listings).await;
    assert!(told.iter().all(|told| *told == Err(Status::Jukebox)), "they take longer than a client waits: {told:?}");
    assert!(w.volume.hanging().is_empty());
    w.create(&root(), "new").await;
    tokio::time::sleep(slow).await;
    w.filer.set_script(None);
}

const TOP: NodeRef = NodeRef { junction: TREE, node: virtuals::ROOT };

#[tokio::test]
async fn lookup_crosses_into_a_junction_and_back() {
    let w = world().await;
    let found = w.volume.lookup(&user(), TOP, b"data").await.unwrap();
    assert_eq!(found.node, ROOT_REF);
    assert_ne!(found.attr.fsid, found.dir.after.unwrap().fsid);
    assert_eq!(w.lookup(ROOT_REF, "..").await, Ok(TOP));
    assert_eq!(w.lookup(TOP, "..").await, Ok(TOP));
    assert_eq!(w.lookup(TOP, "nothing").await, Err(Status::NoEnt));
}

#[tokio::test]
async fn the_tree_is_listed_with_the_junctions_own_attributes() {
    let w = world().await;
    let listing = w.volume.readdir(&user(), TOP, 0, 0, Room::plus(4096, 4096, 160), &|_| true).await.unwrap();
    let names: Vec<_> = listing.entries.iter().map(|e| e.name.as_slice()).collect();
    assert_eq!(names, [b".".as_slice(), b"..", b"data"]);
    assert!(listing.eof);
    let data = &listing.entries[2];
    assert_eq!((data.node, data.attr.unwrap().mode), (Some(ROOT_REF), 0o777));
    let rest =
        w.volume.readdir(&user(), TOP, listing.entries[1].cookie, 0, Room::plain(4096), &|_| true).await.unwrap();
    assert_eq!(rest.entries.len(), 1);
}

/// One that hangs would hold up the listing of what is above all junctions, for those whom it does not concern.
#[tokio::test(start_paused = true)]
async fn of_a_junction_that_is_closed_to_the_caller_the_listing_above_has_a_name_and_its_filer_is_not_asked() {
    let w = world().await;
    let hung = |_| crate::filer::memory::Turn { before: Duration::from_secs(4), ..Default::default() };
    w.filer.set_script(Some(Box::new(hung)));
    let list = async |open: bool| {
        let begun = tokio::time::Instant::now();
        let may = move |junction| junction != J || open;
        let listing = w.volume.readdir(&user(), TOP, 0, 0, Room::plus(4096, 4096, 160), &may).await.unwrap();
        let data = listing.entries.into_iter().find(|entry| entry.name == b"data").unwrap();
        (data.node, data.attr, begun.elapsed())
    };
    assert_eq!(list(false).await, (None, None, Duration::ZERO));
    let (node, _, took) = list(true).await;
    assert!(node == Some(ROOT_REF) && took >= Duration::from_secs(4), "{took:?}");
    w.filer.set_script(None);
}

#[tokio::test]
async fn nothing_in_the_tree_can_be_changed() {
    let w = world().await;
    let new = || NewNode { what: What::Dir, attrs: mode(0o755) };
    assert_eq!(w.volume.make(&root(), TOP, b"x", new()).await.unwrap_err().status, Status::RoFs);
    assert_eq!(w.volume.rmdir(&root(), TOP, b"data").await.unwrap_err().status, Status::RoFs);
    assert_eq!(w.volume.setattr(&root(), TOP, mode(0o777), None).await.unwrap_err().status, Status::RoFs);
    assert_eq!(w.volume.rename(&root(), TOP, b"data", TOP, b"x").await.unwrap_err().status, Status::RoFs);
    assert_eq!(w.write(&root(), TOP, 0, "x").await, Err(Status::RoFs));
    let (granted, attr) = w.volume.access(&root(), TOP, 0x3f).await.unwrap();
    assert_eq!((granted, attr.mode, attr.kind), (0x03, 0o555, Kind::Dir));
}

#[tokio::test]
async fn mounts_lead_to_directories_above_at_and_below_junctions() {
    let w = world().await;
    let top = w.top().await;
    let dir = w.put(&top, "d", What::Dir).await;
    w.put(&dir, "f", What::File).await;
    assert_eq!(w.volume.mount(b"/", &|_| true).await, Ok(TOP));
    assert_eq!(w.volume.mount(b"/data/", &|_| true).await, Ok(ROOT_REF));
    let below = w.volume.mount(b"/data/./d", &|_| true).await.unwrap();
    assert_eq!(w.lookup(ROOT_REF, "d").await, Ok(below));
    assert_eq!(w.volume.mount(b"/data/d/f", &|_| true).await, Err(Status::NotDir));
    assert_eq!(w.volume.mount(b"/data/d/f/g", &|_| true).await, Err(Status::NotDir));
    assert_eq!(w.volume.mount(b"/data/nothing", &|_| true).await, Err(Status::NoEnt));
    assert_eq!(w.volume.mount(b"/data/../x", &|_| true).await, Err(Status::Inval));
    for path in [b"/data".as_slice(), b"/data/d", b"/data/nothing", b"/data/d/f/g"] {
        assert_eq!(w.volume.mount(path, &|_| false).await, Err(Status::Access));
    }
    assert_eq!(w.volume.mount(b"/", &|_| false).await, Ok(TOP));
    assert_eq!(w.volume.exports(), [(J, b"/data".to_vec())]);
}

#[tokio::test]
async fn a_handle_of_another_junction_or_of_no_node_is_stale() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let elsewhere = NodeRef { junction: JunctionId(2), ..file };
    assert_eq!(w.volume.getattr(elsewhere).await, Err(Status::Stale));
    let nothing = NodeRef { junction: J, node: NodeId(12345) };
    assert_eq!(w.volume.getattr(nothing).await, Err(Status::Stale));
    let nowhere = NodeRef { junction: TREE, node: file.node };
    assert_eq!(w.volume.getattr(nowhere).await, Err(Status::Stale));
}

#[tokio::test]
async fn while_a_junction_is_held_reads_go_on_and_changes_wait() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.write(&user(), file, 0, "old").await.unwrap();
    let hold = w.volume.hold(J);
    w.volume.drained(J).await;
    assert_eq!(w.read(file).await, b"old");
    assert_eq!(w.lookup(ROOT_REF, "f").await, Ok(file));
    let writing = tokio::spawn({
        let volume = w.volume.clone();
        async move { volume.write(&user(), file, 0, Bytes::from_static(b"new")).await.map(|(n, _)| n) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(w.read(file).await, b"old");
    drop(hold);
    assert_eq!(writing.await.unwrap().unwrap(), 3);
    assert_eq!(w.read(file).await, b"new");
}

/// All kinds of changes at once, each by a task of its own.
fn change_all(w: &World, file: NodeRef) -> JoinSet<Result<(), Status>> {
    let mut calls = JoinSet::new();
    let mut one = |call: Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>| drop(calls.spawn(call));
    let status = |refused: Refused<Wcc>| refused.status;
    let v = w.volume.clone();
    one(Box::pin(async move { v.write(&root(), file, 0, Bytes::from_static(b"x")).await.map(drop).map_err(status) }));
    let v = w.volume.clone();
    one(Box::pin(async move { v.setattr(&root(), file, mode(0o600), None).await.map(drop).map_err(status) }));
    let v = w.volume.clone();
    let how = CreateHow::Guarded(mode(0o600));
    one(Box::pin(async move { v.create(&root(), ROOT_REF, b"new", how).await.map(drop).map_err(status) }));
    let v = w.volume.clone();
    let dir = NewNode { what: What::Dir, attrs: mode(0o700) };
    one(Box::pin(async move { v.make(&root(), ROOT_REF, b"dir", dir).await.map(drop).map_err(status) }));
    let v = w.volume.clone();
    one(Box::pin(async move { v.remove(&root(), ROOT_REF, b"gone").await.map(drop).map_err(status) }));
    let v = w.volume.clone();
    let rename = async move { v.rename(&root(), ROOT_REF, b"from", ROOT_REF, b"to").await };
    one(Box::pin(async move { rename.await.map(drop).map_err(|refused| refused.status) }));
    let v = w.volume.clone();
    let link = async move { v.link(&root(), file, ROOT_REF, b"link").await };
    one(Box::pin(async move { link.await.map(drop).map_err(|refused| refused.status) }));
    calls
}

#[tokio::test]
async fn a_switch_is_waited_for_and_a_primary_that_is_down_is_not_whoever_holds_the_junction() {
    let w = world().await;
    let file = w.create(&root(), "f").await;
    w.create(&root(), "gone").await;
    w.create(&root(), "from").await;
    let hold = w.volume.hold(J);
    w.volume.locations.fall(PRIMARY);
    let mut calls = change_all(&w, file);
    let begun = std::time::Instant::now();
    while let Some(told) = calls.join_next().await {
        assert_eq!(told.unwrap(), Err(Status::Jukebox));
    }
    assert!(begun.elapsed() < hold::WAIT_MAX / 2, "held for {:?}", begun.elapsed());
    assert_eq!(w.volume.holds.counts(J), (0, 0));

    w.volume.locations.insert(w.location.clone());
    let mut calls = change_all(&w, file);
    w.so_many_wait_outside(calls.len()).await;
    assert!(calls.try_join_next().is_none(), "clients see a pause, not an error");
    drop(hold);
    while let Some(told) = calls.join_next().await {
        assert_eq!(told.unwrap(), Ok(()));
    }
    w.assert_at_rest().await;
}

/// Who was let wait for the switch finds the primary down behind it.
#[tokio::test]
async fn a_primary_that_falls_while_a_switch_is_waited_for_is_found_down_behind_it() {
    let w = world().await;
    let file = w.create(&root(), "f").await;
    w.create(&root(), "gone").await;
    w.create(&root(), "from").await;
    let hold = w.volume.hold(J);
    let mut calls = change_all(&w, file);
    w.so_many_wait_outside(calls.len()).await;
    w.volume.locations.fall(PRIMARY);
    let operations = w.operations();
    drop(hold);
    while let Some(told) = calls.join_next().await {
        assert_eq!(told.unwrap(), Err(Status::Jukebox));
    }
    assert_eq!(w.operations(), operations, "nothing was begun");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_location_that_is_not_open_is_jukebox() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.volume.locations.remove(PRIMARY);
    assert_eq!(w.volume.getattr(file).await, Err(Status::Jukebox));
    assert_eq!(w.write(&user(), file, 0, "x").await, Err(Status::Jukebox));
}

#[tokio::test]
async fn a_locked_directory_lets_no_name_be_changed() {
    let w = world().await;
    let guard = w.volume.lock_dir(ROOT).await;
    let creating = tokio::spawn({
        let volume = w.volume.clone();
        async move { volume.create(&user(), ROOT_REF, b"f", CreateHow::Guarded(mode(0o644))).await.is_ok() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!creating.is_finished());
    drop(guard);
    assert!(creating.await.unwrap());
}
