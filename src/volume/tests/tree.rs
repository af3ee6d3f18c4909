//! The tree above the junctions, handles, mounts, holds.

use super::virtuals::TREE;
use super::*;
use journal_format::ids::Kind;
use std::time::Duration;

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
    let listing = w.volume.readdir(&user(), TOP, 0, 0, 4096, true).await.unwrap();
    let names: Vec<_> = listing.entries.iter().map(|e| e.name.as_slice()).collect();
    assert_eq!(names, [b".".as_slice(), b"..", b"data"]);
    assert!(listing.eof);
    let data = &listing.entries[2];
    assert_eq!((data.node, data.attr.unwrap().mode), (Some(ROOT_REF), 0o777));
    let rest = w.volume.readdir(&user(), TOP, listing.entries[1].cookie, 0, 4096, false).await.unwrap();
    assert_eq!(rest.entries.len(), 1);
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
    assert_eq!(w.volume.mount(b"/").await, Ok(TOP));
    assert_eq!(w.volume.mount(b"/data/").await, Ok(ROOT_REF));
    let below = w.volume.mount(b"/data/./d").await.unwrap();
    assert_eq!(w.lookup(ROOT_REF, "d").await, Ok(below));
    assert_eq!(w.volume.mount(b"/data/d/f").await, Err(Status::NotDir));
    assert_eq!(w.volume.mount(b"/data/d/f/g").await, Err(Status::NotDir));
    assert_eq!(w.volume.mount(b"/data/nothing").await, Err(Status::NoEnt));
    assert_eq!(w.volume.mount(b"/data/../x").await, Err(Status::Inval));
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
