//! Filers that cannot find objects by identity: objects are walked to, by names that move.

use super::super::NAMES_AT_ONCE_MAX;
use super::super::reconcile::Site;
use super::*;
use std::time::Duration;

/// A directory that is renamed into one that is not listed yet waits in the pen, and what is in it changes there.
#[tokio::test]
async fn what_is_in_the_pen_gets_its_times() {
    let (source, dest, _) = walked();
    let mut world = World::new(1, source, dest).await;
    let dir = world.made(ROOT, b"dir", What::Dir).await;
    let file = world.made(dir, b"file", What::File).await;
    let other = world.made(ROOT, b"other", What::Dir).await;
    for (dir, entries) in [(ROOT, vec![(dir, Kind::Dir), (other, Kind::Dir)]), (dir, vec![(file, Kind::File)])] {
        let named = |(node, kind)| {
            let (_, name) = world.live.names(node, 1).unwrap().remove(0);
            ListedEntry { name, node, kind }
        };
        let entries = entries.into_iter().map(named).collect();
        let job = JobId(1);
        world.record(Event::ListBegin(ListBegin { job, location: TO, dir }), Bytes::new());
        world.record(Event::Listed(Listed { job, location: TO, dir, entries, last: true }), Bytes::new());
    }
    let to = world.journal.len();
    world.round(to, false).await.unwrap();
    world.renamed(dir, other, b"dir").await;
    world.written(file, 0, Bytes::from_static(b"in the pen")).await;
    world.dest.forget_all();
    let to = world.journal.len();
    world.round(to, false).await.unwrap();
    assert_eq!(world.dest.filer.list(&world.dest.filer.pen().await.unwrap(), 0, 9).await.unwrap().names.len(), 1);
    world.dest.forget_all();
    let object = world.dest.object(&world.projection, file).await.unwrap();
    let (there, here) = (world.dest.filer.stat(&object).await.unwrap(), world.live.node(file).unwrap().unwrap());
    assert_eq!(there.mtime, here.mtime);
}

/// The first answer comes last.
#[tokio::test]
async fn a_time_that_is_refused_is_put_down_to_the_node_that_it_is_of() {
    let source = memory::Memory::default();
    let mut world = World::new(1, Arc::new(source.clone()), Arc::new(memory::Memory::default())).await;
    let mut nodes = BTreeSet::new();
    for n in 0..5 {
        nodes.insert(world.made(ROOT, format!("f{n}").as_bytes(), What::File).await);
    }
    let calls = std::sync::atomic::AtomicUsize::new(0);
    source.set_script(Some(Box::new(move |op| {
        let nth = if op == "set" { calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) } else { usize::MAX };
        let before = std::time::Duration::from_millis(if nth == 0 { 50 } else { 0 });
        memory::Turn {
            before,
            fault: (nth == 1).then_some(memory::Fault::Before(ErrorKind::NotPermitted)),
            ..Default::default()
        }
    })));
    let refused = put_times(&world.source, world.live.as_ref(), &world.live, &nodes).await.unwrap();
    let named: Vec<NodeId> = refused.into_iter().map(|(node, _)| node).collect();
    assert_eq!(named, [*nodes.iter().nth(1).unwrap()]);
}

/// Each node is looked for in places that the other one may be in.
#[tokio::test]
async fn directories_that_changed_places_are_not_looked_for_without_end() {
    let (source, dest, _) = walked();
    let mut world = World::new(1, source, dest).await;
    let one = world.made(ROOT, b"one", What::Dir).await;
    let two = world.made(one, b"two", What::Dir).await;
    world.renamed(two, ROOT, b"two").await;
    world.renamed(one, two, b"one").await;
    let mut round = Round::redo();
    for (dir, name, node) in [(ROOT, "one", one), (one, "two", two), (ROOT, "two", two), (two, "one", one)] {
        round.touch_name(dir, name.as_bytes(), None);
        round.placed(dir, name.as_bytes(), node);
    }
    // The names say "one" is in "two"; the filer lost both renames, and then the root's entry.
    let root = world.source.filer.root().await.unwrap();
    let object = world.source.object(world.live.as_ref(), two).await.unwrap();
    world.source.filer.rename(&object, b"one", &root, b"lost").await.unwrap();
    world.source.filer.rename(&root, b"two", &root, b"lost too").await.unwrap();
    world.source.forget_all();
    let site = Site::new(&world.source, world.live.as_ref(), None, &round);
    assert!(site.locate(one).await.unwrap().is_none());
    assert!(site.locate(two).await.unwrap().is_none());
}

/// A rename is on the filer and not in the index yet: whoever walks meanwhile waits, and is not told that it is gone.
#[tokio::test]
async fn an_object_whose_name_is_on_the_move_is_not_called_stale() {
    let (source, dest, _) = walked();
    let mut world = World::new(1, source, dest).await;
    let dir = world.made(ROOT, b"dir", What::Dir).await;
    let file = world.made(dir, b"file", What::File).await;
    let (source, live) = (world.source.clone(), world.live.clone());
    let moving = source.names_move().await;
    let root = source.filer.root().await.unwrap();
    source.filer.rename(&root, b"dir", &root, b"elsewhere").await.unwrap();
    source.forget_all();
    let mut walker = tokio::spawn({
        let (source, live) = (source.clone(), live.clone());
        async move { source.object(live.as_ref(), file).await.map(|object| object.id) }
    });
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut walker).await.is_err(), "it waits");
    let rename = Rename {
        junction: JUNCTION,
        location: FROM,
        from_dir: ROOT,
        from_name: b"dir".to_vec(),
        to_dir: ROOT,
        to_name: b"elsewhere".to_vec(),
        node: dir,
        kind: Kind::Dir,
        replaced: None,
        caller: Caller::default(),
    };
    world.record(Event::Rename(rename), Bytes::new());
    drop(moving);
    let id = walker.await.unwrap().unwrap();
    assert_eq!(Some(id), source.objects.identity(file).unwrap());

    let _hung = source.names_move().await;
    source.forget_all();
    source.filer.rename(&root, b"elsewhere", &root, b"dir").await.unwrap();
    let error = source.object(live.as_ref(), file).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Busy, "nobody knows: {error}");
}

/// Names move on the filer behind us: a name that is in the kernel's memory tells of the node only what identity proves.
#[tokio::test]
async fn a_name_in_memory_leads_to_its_node_without_waiting_and_to_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let url = format!("posix://{}", temp.path().display());
    let probe = filer::registry::probe(&url).await.unwrap();
    let source = filer::registry::open(&url, &probe.root, &[], None).await.unwrap();
    if !source.answers_at_once() {
        eprintln!("skipped: the temporary directory's file system answers nothing at once");
        return;
    }
    let (_, dest, _) = walked();
    let mut world = World::new(1, source, dest).await;
    let one = world.made(ROOT, b"one", What::File).await;
    let two = world.made(ROOT, b"two", What::File).await;
    let mut deep = ROOT;
    for _ in 0..NAMES_AT_ONCE_MAX - 1 {
        deep = world.made(deep, b"dir", What::Dir).await;
    }
    let deepest = world.made(deep, b"dir", What::Dir).await;
    let below = world.made(deepest, b"dir", What::Dir).await;
    let (source, live) = (world.source.clone(), world.live.clone());
    let id = source.object(live.as_ref(), one).await.unwrap().id;
    let at_once = |node| source.object_at_once(live.as_ref(), node);
    source.forget_all();
    assert!(at_once(one).is_none(), "its directory is not at hand");
    let root = source.object(live.as_ref(), ROOT).await.unwrap();
    let object_of_one = at_once(one).unwrap();
    assert!(at_once(below).is_none(), "too many names at once");
    at_once(deepest).expect("directories on the way are found by their names, too");
    at_once(below).expect("and are remembered");
    assert_eq!(object_of_one.id, id);
    source.forget_all();
    let stat_at_once = |name: &str, node| source.stat_at_once(&root, name.as_bytes(), node);
    assert_eq!(stat_at_once("one", one), Some(source.filer.stat(&object_of_one).await.unwrap()));
    assert_eq!((stat_at_once("two", one), stat_at_once("none", one)), (None, None), "another object's, and none");
    source.remember(ROOT, &root);
    for (from, to) in [("one", "other"), ("two", "one"), ("other", "two")] {
        std::fs::rename(temp.path().join(from), temp.path().join(to)).unwrap();
    }
    assert!(at_once(one).is_none() && at_once(two).is_none(), "they have changed places");
    std::fs::remove_file(temp.path().join("one")).unwrap();
    assert!(at_once(one).is_none());
}
