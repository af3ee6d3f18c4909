//! Files that a try made which did not come to its end.

use super::*;
use crate::location::projection::pen_name;

#[tokio::test]
async fn what_was_made_in_a_try_that_failed_is_known_in_the_next_life() {
    for filer in both_kinds() {
        made_in_a_try_that_failed(World::on(filer).await).await;
    }
}

async fn made_in_a_try_that_failed(mut world: World) {
    world.make(ROOT, "a", 1, What::File).await;
    world.rename(1, Kind::File, "a", "b", None).await;
    world.make(ROOT, "c", 2, What::File).await;
    let made = AtomicU64::new(0);
    world.filer.set_fault(Some(Box::new(move |called| {
        let second = called.starts_with("make") && made.fetch_add(1, Ordering::Relaxed) > 0;
        second.then_some(Fault::Before(ErrorKind::Down))
    })));
    assert!(world.redo().await.is_err());
    world.filer.set_fault(None);
    assert_eq!(world.redo_all().await, 0);
    world.again().await;
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("b", ""), ("c", "")]));
}

#[tokio::test]
async fn a_file_whose_making_was_recorded_and_that_never_got_its_name_is_made_again() {
    let mut world = World::new().await;
    world.make(ROOT, "a", 1, What::File).await;
    world.write(1, 0, b"one").await;
    world.fail("link", ErrorKind::Down);
    assert!(world.redo().await.is_err());
    world.filer.set_fault(None);
    let first = world.location.objects.identity(NodeId(1)).unwrap().unwrap();
    world.filer.kill();
    world.again().await;
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("a", "one")]));
    assert_ne!(world.location.objects.identity(NodeId(1)).unwrap().unwrap(), first);
}

#[tokio::test]
async fn no_more_files_without_a_name_are_held_than_the_filer_has_room_for() {
    let options = memory::Options { nameless_max: 7, ..memory::Options::default() };
    let world = World::on(Memory::new(options)).await;
    let names: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
    for (node, name) in (1000..).zip(&names) {
        world.make(ROOT, name, node, What::File).await;
    }
    assert_eq!(world.redo_all().await, 0);
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(world.tree().await, tree(&all));
}

#[tokio::test]
async fn a_file_that_is_gone_and_lies_in_the_pen_already_keeps_no_name_in_the_tree() {
    let mut world = World::new().await;
    world.make(ROOT, "a", 1, What::File).await;
    world.link(1, "b").await;
    world.settle().await;
    world.remove(1, "a", false).await;
    world.remove(1, "b", true).await;
    // A redo had parked it from the one name when the power went, and what it did to the other was lost.
    let (root, pen) = (world.filer.root().await.unwrap(), world.filer.pen().await.unwrap());
    world.filer.rename(&root, b"a", &pen, &pen_name(NodeId(1))).await.unwrap();
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[]));
    assert!(world.filer.list(&pen, 0, 9).await.unwrap().names.is_empty());
}

/// In a directory without case, beside a file that nobody has met: what had its name refused is still in doubt.
#[tokio::test]
async fn an_object_that_the_filer_finds_by_the_name_of_one_that_was_not_made_is_not_taken_for_it() {
    let options = memory::Options { folds_names: true, ..memory::Options::default() };
    let world = World::on(Memory::new(options)).await;
    let old = world.filer.make(&world.top().await, b"old", &What::File, ATTRS).await.unwrap();
    world.filer.write(&old, 0, Bytes::from_static(b"bytes")).await.unwrap();
    world.make(ROOT, "OLD", 1, What::File).await;
    assert_eq!(world.redo_all().await, 1, "its name cannot be had");
    assert_eq!(world.tree().await, tree(&[("old", "bytes")]));
    assert_ne!(world.location.objects.identity(NodeId(1)).unwrap(), Some(old.id));
}
