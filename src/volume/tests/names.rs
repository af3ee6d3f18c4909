//! Names: create, make, remove, rename, link, lookup, adoption.

use super::*;
use crate::filer::ErrorKind;
use journal_format::ids::Kind;

#[tokio::test]
async fn creates_guarded_unchecked_and_exclusive_differ_when_the_name_is_taken() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.write(&user(), file, 0, "abc").await.unwrap();
    let create = async |how| w.volume.create(&user(), ROOT_REF, b"f", how).await.map_err(|r| r.status);
    assert_eq!(create(CreateHow::Guarded(mode(0o644))).await, Err(Status::Exist));
    assert_eq!(create(CreateHow::Exclusive([1; 8])).await, Err(Status::Exist));
    let found = create(CreateHow::Unchecked(mode(0o600))).await.unwrap();
    assert_eq!((found.node, found.attr.size, found.attr.mode), (file, 3, 0o644), "as it was");
    let cut = SetAttrs { size: Some(0), ..mode(0o600) };
    assert_eq!(create(CreateHow::Unchecked(cut)).await.unwrap().attr.size, 0);
    w.assert_at_rest().await;
}

#[tokio::test]
async fn an_exclusive_create_that_is_repeated_finds_its_own_file() {
    let w = world().await;
    let create = async |v| w.volume.create(&user(), ROOT_REF, b"x", CreateHow::Exclusive([v; 8])).await;
    let first = create(1).await.unwrap().node;
    assert_eq!(create(1).await.unwrap().node, first);
    assert_eq!(create(2).await.unwrap_err().status, Status::Exist);
    assert_eq!(w.count(|e| matches!(e, Event::Make(_))), 1);
}

#[tokio::test]
async fn everything_can_be_made_and_is_owned_by_its_maker() {
    let w = world().await;
    let kinds = [
        (What::Dir, Kind::Dir),
        (What::Fifo, Kind::Fifo),
        (What::Socket, Kind::Socket),
        (What::Symlink { target: b"../x".to_vec() }, Kind::Symlink),
    ];
    for (i, (what, kind)) in kinds.into_iter().enumerate() {
        let new = NewNode { what, attrs: mode(0o700) };
        let found = w.volume.make(&user(), ROOT_REF, format!("n{i}").as_bytes(), new).await.unwrap();
        assert_eq!((found.attr.kind, found.attr.uid, found.attr.gid), (kind, USER, USER));
    }
    let link = w.lookup(ROOT_REF, "n3").await.unwrap();
    assert_eq!(w.volume.readlink(&user(), link).await.unwrap().0, b"../x");
    let device = NewNode { what: What::Char { major: 1, minor: 3 }, attrs: mode(0o600) };
    assert_eq!(w.volume.make(&user(), ROOT_REF, b"c", device.clone()).await.unwrap_err().status, Status::Perm);
    assert_eq!(w.volume.make(&root(), ROOT_REF, b"c", device).await.unwrap().attr.rdev, (1, 3));
    let ledger = &w.volume.ledger;
    ledger.wait_durable(ledger.journal.end_lsn()).await.unwrap();
    assert_eq!(w.count(|e| matches!(e, Event::Made(_))), 5);
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_removed_node_is_stale_and_its_name_free() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let wcc = w.volume.remove(&user(), ROOT_REF, b"f").await.unwrap();
    assert!(wcc.before.is_some() && wcc.after.is_some());
    assert_eq!(w.lookup(ROOT_REF, "f").await, Err(Status::NoEnt));
    assert_eq!(w.volume.getattr(file).await, Err(Status::Stale));
    assert_eq!(w.write(&user(), file, 0, "x").await, Err(Status::Stale));
    assert_ne!(w.create(&user(), "f").await, file, "ids are not used again");
    assert_eq!(w.volume.remove(&user(), ROOT_REF, b"nothing").await.unwrap_err().status, Status::NoEnt);
    w.assert_at_rest().await;
}

#[tokio::test]
async fn remove_and_rmdir_take_their_own_kind_and_only_empty_directories() {
    let w = world().await;
    let dir = w.mkdir(&user(), ROOT_REF, "d").await;
    w.mkdir(&user(), dir, "below").await;
    w.create(&user(), "f").await;
    let remove = async |name: &[u8]| w.volume.remove(&user(), ROOT_REF, name).await.map_err(|r| r.status);
    let rmdir = async |dir, name: &[u8]| w.volume.rmdir(&user(), dir, name).await.map_err(|r| r.status);
    assert_eq!(remove(b"d").await, Err(Status::IsDir));
    assert_eq!(rmdir(ROOT_REF, b"f").await, Err(Status::NotDir));
    assert_eq!(rmdir(ROOT_REF, b"d").await, Err(Status::NotEmpty));
    assert_eq!(w.count(|e| matches!(e, Event::Remove(_))), 0, "refused before it is journaled");
    assert!(rmdir(dir, b"below").await.is_ok());
    assert!(rmdir(ROOT_REF, b"d").await.is_ok());
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_hard_link_keeps_the_node_until_its_last_name_goes() {
    let w = world().await;
    let file = w.create(&user(), "a").await;
    let dir = w.mkdir(&user(), ROOT_REF, "d").await;
    let (attr, _) = w.volume.link(&user(), file, dir, b"b").await.unwrap();
    assert_eq!(attr.unwrap().nlink, 2);
    assert_eq!(w.lookup(dir, "b").await, Ok(file));
    w.volume.remove(&user(), ROOT_REF, b"a").await.unwrap();
    assert!(w.volume.getattr(file).await.is_ok_and(|a| a.nlink == 1));
    w.volume.remove(&user(), dir, b"b").await.unwrap();
    assert_eq!(w.volume.getattr(file).await, Err(Status::Stale));
    let refused = w.volume.link(&user(), dir, ROOT_REF, b"dd").await.unwrap_err();
    assert_eq!(refused.status, Status::IsDir);
}

#[tokio::test]
async fn renames_move_replace_and_keep_the_node() {
    let w = world().await;
    let (a, b) = (w.create(&user(), "a").await, w.create(&user(), "b").await);
    w.write(&user(), a, 0, "A").await.unwrap();
    let rename = async |from, name: &[u8], to, new: &[u8]| {
        w.volume.rename(&user(), from, name, to, new).await.map(drop).map_err(|r| r.status)
    };
    assert_eq!(rename(ROOT_REF, b"a", ROOT_REF, b"b").await, Ok(()));
    assert_eq!(w.lookup(ROOT_REF, "b").await, Ok(a));
    assert_eq!(w.volume.getattr(b).await, Err(Status::Stale), "it was replaced");
    let dir = w.mkdir(&user(), ROOT_REF, "d").await;
    assert_eq!(rename(ROOT_REF, b"b", dir, b"c").await, Ok(()));
    assert_eq!(w.read(a).await, b"A");
    assert_eq!(w.names(ROOT_REF).await, ["d"]);
    assert_eq!(rename(dir, b"c", ROOT_REF, b"d").await, Err(Status::NotEmpty), "it is in there");
    w.mkdir(&user(), ROOT_REF, "other").await;
    assert_eq!(rename(dir, b"c", ROOT_REF, b"other").await, Err(Status::IsDir));
    assert_eq!(rename(ROOT_REF, b"d", dir, b"c").await, Err(Status::Inval), "below itself");
    let events = w.operations();
    assert_eq!(rename(dir, b"c", dir, b"c").await, Ok(()));
    assert_eq!(w.operations(), events, "nothing happens to a name that is its own");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_directory_moves_only_where_it_does_not_contain_itself_and_over_empty_ones() {
    let w = world().await;
    let a = w.mkdir(&user(), ROOT_REF, "a").await;
    let b = w.mkdir(&user(), a, "b").await;
    let rename = async |from, name: &[u8], to, new: &[u8]| {
        w.volume.rename(&user(), from, name, to, new).await.map(drop).map_err(|r| r.status)
    };
    assert_eq!(rename(ROOT_REF, b"a", b, b"x").await, Err(Status::Inval));
    assert_eq!(rename(ROOT_REF, b"a", a, b"x").await, Err(Status::Inval));
    w.mkdir(&user(), ROOT_REF, "empty").await;
    assert_eq!(rename(ROOT_REF, b"empty", ROOT_REF, b"a").await, Err(Status::NotEmpty));
    assert_eq!(rename(a, b"b", ROOT_REF, b"a").await, Err(Status::NotEmpty), "over its own parent");
    assert_eq!(rename(a, b"b", ROOT_REF, b"empty").await, Ok(()));
    assert_eq!(w.lookup(ROOT_REF, "empty").await, Ok(b));
    assert_eq!(w.lookup(b, "..").await, Ok(ROOT_REF));
    w.assert_at_rest().await;
}

/// How often others have their turn while this call is answered.
async fn turns<T>(call: impl Future<Output = T>) -> (usize, T) {
    let (mut call, mut polls) = (std::pin::pin!(call), 0);
    let answer = std::future::poll_fn(|cx| {
        polls += 1;
        call.as_mut().poll(cx)
    });
    let answer = answer.await;
    (polls, answer)
}

#[tokio::test]
async fn a_rename_that_looks_a_long_way_up_lets_others_have_their_turn_and_one_within_a_directory_does_not_look() {
    let w = world().await;
    let top = w.mkdir(&user(), ROOT_REF, "top").await;
    let mut deep = top;
    for _ in 0..400 {
        deep = w.mkdir(&user(), deep, "d").await;
    }
    for name in ["one", "two"] {
        w.mkdir(&user(), deep, name).await;
    }
    let how = CreateHow::Guarded(mode(0o644));
    w.volume.create(&user(), deep, b"f", how).await.unwrap();
    let rename = async |from, name: &[u8], to, new: &[u8]| {
        let (turns, done) = turns(w.volume.rename(&user(), from, name, to, new)).await;
        (turns, done.map(drop).map_err(|r| r.status))
    };
    let (near, told) = rename(ROOT_REF, b"top", top, b"x").await;
    assert_eq!(told, Err(Status::Inval));
    for (from, name, to, new, due) in [
        (ROOT_REF, b"top".as_slice(), deep, b"x".as_slice(), Status::Inval),
        (deep, b"one", ROOT_REF, b"top", Status::NotEmpty),
        (deep, b"f", ROOT_REF, b"top", Status::NotEmpty),
    ] {
        let (far, told) = rename(from, name, to, new).await;
        assert_eq!(told, Err(due));
        assert!(far >= near + 2, "{far} turns, and {near} where the way is short");
    }
    let (within, told) = rename(deep, b"f", deep, b"one").await;
    assert_eq!((within, told), (near, Err(Status::IsDir)));
    assert_eq!(rename(deep, b"one", deep, b"two").await.1, Ok(()));
}

#[tokio::test]
async fn two_names_of_one_file_are_not_renamed_into_one() {
    let w = world().await;
    let file = w.create(&user(), "a").await;
    w.volume.link(&user(), file, ROOT_REF, b"b").await.unwrap();
    w.volume.rename(&user(), ROOT_REF, b"a", ROOT_REF, b"b").await.unwrap();
    assert_eq!(w.names(ROOT_REF).await, ["a", "b"]);
}

#[tokio::test]
async fn in_a_sticky_directory_strangers_remove_and_rename_nothing() {
    let w = world().await;
    w.volume.setattr(&root(), ROOT_REF, mode(0o1777), None).await.unwrap();
    w.create(&root(), "f").await;
    assert_eq!(w.volume.remove(&user(), ROOT_REF, b"f").await.unwrap_err().status, Status::Perm);
    assert_eq!(w.volume.rename(&user(), ROOT_REF, b"f", ROOT_REF, b"g").await.unwrap_err().status, Status::Perm);
    w.create(&user(), "mine").await;
    assert_eq!(w.volume.rename(&user(), ROOT_REF, b"mine", ROOT_REF, b"f").await.unwrap_err().status, Status::Perm);
    assert!(w.volume.remove(&user(), ROOT_REF, b"mine").await.is_ok());
}

#[tokio::test]
async fn a_directory_without_permission_gives_and_takes_no_name() {
    let w = world().await;
    let dir = w.mkdir(&root(), ROOT_REF, "d").await;
    let denied = CreateHow::Guarded(mode(0o644));
    assert_eq!(w.volume.create(&user(), dir, b"f", denied).await.unwrap_err().status, Status::Access);
    w.volume.setattr(&root(), dir, mode(0o700), None).await.unwrap();
    assert_eq!(w.volume.lookup(&user(), dir, b"f").await.unwrap_err().status, Status::Access);
    let listing = w.volume.readdir(&user(), dir, 0, 0, Room::plain(4096), &|_| true).await;
    assert_eq!(listing.unwrap_err().status, Status::Access);
}

#[tokio::test]
async fn what_was_there_before_is_adopted_once_and_durable_before_it_is_shown() {
    let w = world().await;
    let top = w.top().await;
    let old = w.put(&top, "old", What::File).await;
    let node = w.lookup(ROOT_REF, "old").await.unwrap();
    assert_eq!(w.count(|e| matches!(e, Event::Adopt(a) if a.entries.len() == 1 && !a.complete)), 1);
    assert_eq!(w.lookup(ROOT_REF, "old").await, Ok(node));
    assert_eq!(w.location.objects.node(&old.id).unwrap(), Some(node.node));
    assert_eq!(w.write(&user(), node, 0, "new").await, Ok(3));
    assert_eq!(w.names(ROOT_REF).await, ["old"]);
    assert_eq!(w.count(|e| matches!(e, Event::Adopt(_))), 2, "and one that completes the directory");
    w.put(&top, "behind our back", What::File).await;
    assert_eq!(w.lookup(ROOT_REF, "behind our back").await, Err(Status::NoEnt), "a complete directory asks nobody");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn hard_links_that_were_there_before_are_one_node_by_either_way_of_adoption() {
    let w = world().await;
    let top = w.top().await;
    let dir = w.put(&top, "d", What::Dir).await;
    let file = w.put(&top, "a", What::File).await;
    w.filer.link(&file, &top, b"b").await.unwrap();
    w.filer.link(&file, &dir, b"c").await.unwrap();
    let d = w.lookup(ROOT_REF, "d").await.unwrap();
    let c = w.lookup(d, "c").await.unwrap();
    // Not the last name, though the index knows no other.
    w.volume.remove(&root(), d, b"c").await.unwrap();
    assert!(w.volume.getattr(c).await.is_ok());
    w.names(ROOT_REF).await;
    assert_eq!(w.lookup(ROOT_REF, "a").await, Ok(c));
    assert_eq!(w.lookup(ROOT_REF, "b").await, Ok(c));
}

/// Where objects are walked to, the last name known must not go while others are not known.
#[tokio::test]
async fn a_file_whose_only_known_name_goes_is_still_found_by_its_handle() {
    let mut options = MemoryOptions::default();
    options.capabilities.open_by_identity = false;
    for renamed_over in [false, true] {
        let w = world_of(Memory::new(options)).await;
        let top = w.top().await;
        let mut dir = top.clone();
        for name in ["d", "e", "f"] {
            dir = w.put(&dir, name, What::Dir).await;
        }
        let file = w.put(&top, "a", What::File).await;
        w.filer.link(&file, &dir, b"b").await.unwrap();
        let a = w.lookup(ROOT_REF, "a").await.unwrap();
        if renamed_over {
            w.create(&user(), "over").await;
            w.volume.rename(&root(), ROOT_REF, b"over", ROOT_REF, b"a").await.unwrap();
        } else {
            w.volume.remove(&root(), ROOT_REF, b"a").await.unwrap();
        }
        w.location.forget_all();
        assert_eq!(w.write(&root(), a, 0, "alive").await, Ok(5));
        assert_eq!(w.volume.getattr(a).await.unwrap().nlink, 1);
        w.assert_at_rest().await;
    }
}

/// Its other link is nowhere in the tree: after one look for it the name goes as any other.
#[tokio::test]
async fn a_file_with_a_link_outside_the_tree_can_be_removed() {
    let mut options = MemoryOptions::default();
    options.capabilities.open_by_identity = false;
    let w = world_of(Memory::new(options)).await;
    let top = w.top().await;
    let file = w.put(&top, "a", What::File).await;
    let pen = w.filer.pen().await.unwrap();
    w.filer.link(&file, &pen, b"elsewhere").await.unwrap();
    w.lookup(ROOT_REF, "a").await.unwrap();
    w.volume.remove(&root(), ROOT_REF, b"a").await.unwrap();
    assert_eq!(w.lookup(ROOT_REF, "a").await, Err(Status::NoEnt));
    w.assert_at_rest().await;
}

/// LOOKUP says ACCES there, and READ by a handle asks nobody about the directory.
#[tokio::test]
async fn who_may_read_a_directory_and_not_search_it_is_told_names_and_no_handles() {
    let w = world().await;
    let dir = w.mkdir(&root(), ROOT_REF, "d").await;
    w.volume.create(&root(), dir, b"f", CreateHow::Guarded(mode(0o644))).await.unwrap();
    for (bits, searched) in [(0o744, false), (0o755, true)] {
        w.volume.setattr(&root(), dir, mode(bits), None).await.unwrap();
        let found = w.volume.lookup(&user(), dir, b"f").await.map_err(|r| r.status);
        assert_eq!(found.is_ok(), searched);
        let listing = w.volume.readdir(&user(), dir, 0, 0, Room::plus(8192, 8192, 160), &|_| true).await.unwrap();
        let told = |entry: &DirEntry| (entry.node.is_some(), entry.attr.is_some());
        let (dots, others) = listing.entries.split_at(2);
        assert!(dots.iter().all(|entry| told(entry) == (true, true)), "{dots:?}");
        assert_eq!(others.iter().map(told).collect::<Vec<_>>(), [(searched, searched)]);
    }
}

#[tokio::test]
async fn a_large_directory_is_adopted_in_pages_and_listed_whole_without_doubles() {
    let w = world().await;
    let top = w.top().await;
    for i in 0..2500 {
        w.put(&top, &format!("f{i:04}"), What::File).await;
    }
    let mut cookie = 0;
    let mut all = Vec::new();
    loop {
        let listing =
            w.volume.readdir(&user(), ROOT_REF, cookie, 0, Room::plus(8192, 8192, 160), &|_| true).await.unwrap();
        cookie = listing.entries.last().unwrap().cookie;
        for entry in &listing.entries {
            assert_eq!(entry.attr.map(|a| a.fileid), Some(entry.fileid));
        }
        all.extend(listing.entries.into_iter().map(|e| e.name));
        if listing.eof {
            break;
        }
    }
    assert_eq!(all.len(), 2502);
    assert_eq!(all[..2], [b".".to_vec(), b"..".to_vec()]);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2502);
    let pages = w.count(|e| matches!(e, Event::Adopt(a) if a.entries.len() <= 1024));
    assert_eq!(pages, 3);
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_listing_that_goes_on_while_names_change_neither_skips_nor_doubles_what_stays() {
    let w = world().await;
    for name in ["a", "b", "c", "d"] {
        w.create(&user(), name).await;
    }
    // Room for `.`, `..`, a and b.
    let max = 4 * (ops::readdir::ENTRY_BYTES + 4);
    let first = w.volume.readdir(&user(), ROOT_REF, 0, 0, Room::plain(max), &|_| true).await.unwrap();
    assert_eq!((first.entries.len(), first.eof), (4, false));
    w.volume.remove(&user(), ROOT_REF, b"a").await.unwrap();
    w.volume.remove(&user(), ROOT_REF, b"c").await.unwrap();
    w.create(&user(), "e").await;
    // What a program does that lists files and renames each one's new version over it: b was listed, and is not again.
    w.create(&user(), "f").await;
    w.volume.rename(&user(), ROOT_REF, b"f", ROOT_REF, b"b").await.unwrap();
    let cookie = first.entries[3].cookie;
    let second = w.volume.readdir(&user(), ROOT_REF, cookie, 0, Room::plain(max), &|_| true).await.unwrap();
    let names: Vec<_> = second.entries.iter().map(|e| e.name.as_slice()).collect();
    assert_eq!(names, [b"d", b"e"]);
    assert!(second.eof);
    let small = w.volume.readdir(&user(), ROOT_REF, 0, 0, Room::plain(8), &|_| true).await;
    assert_eq!(small.unwrap_err().status, Status::TooSmall);
}

#[tokio::test]
async fn attributes_are_asked_for_of_the_entries_that_are_given_and_of_no_other() {
    let w = world().await;
    for i in 0..60 {
        w.create(&user(), &format!("f{i:02}")).await;
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let hook = move |called: &'static str| {
        if called == "stat" {
            count.fetch_add(1, Ordering::SeqCst);
        }
        None
    };
    w.filer.set_fault(Some(Box::new(hook)));
    let entry = ops::readdir::ENTRY_BYTES + 4;
    // Room for the attributes of all, and for the names of five more than `.` and `..`; and the other way round.
    for room in [Room::plus(1 << 20, 7 * entry, 132), Room::plus(7 * (entry + 132), 1 << 20, 132)] {
        asked.store(0, Ordering::SeqCst);
        let listing = w.volume.readdir(&user(), ROOT_REF, 0, 0, room, &|_| true).await.unwrap();
        assert_eq!((listing.entries.len(), listing.eof), (7, false));
        assert!(listing.entries.iter().all(|entry| entry.attr.is_some()));
        let asked = asked.load(Ordering::SeqCst);
        assert!((5..20).contains(&asked), "{asked} for 7 entries and their directory");
    }
}

#[tokio::test]
async fn operations_on_one_name_from_many_sides_end_in_one_story() {
    let w = world().await;
    let other = w.mkdir(&user(), ROOT_REF, "d").await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..24u32 {
        let volume = w.volume.clone();
        tasks.spawn(async move {
            let how = CreateHow::Unchecked(mode(0o644));
            for _ in 0..8 {
                match i % 4 {
                    0 => drop(volume.create(&user(), ROOT_REF, b"x", how).await),
                    1 => drop(volume.remove(&user(), ROOT_REF, b"x").await),
                    2 => drop(volume.rename(&user(), ROOT_REF, b"x", other, b"y").await),
                    _ => drop(volume.rename(&user(), other, b"y", ROOT_REF, b"x").await),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    w.assert_at_rest().await;
    // The index and the filer tell the same story.
    for (dir, name) in [(ROOT_REF, "x"), (other, "y")] {
        let known = w.volume.live.entry(dir.node, name.as_bytes()).unwrap().map(|e| e.node);
        let there = w.filer.lookup(&w.object(dir).await, name.as_bytes()).await.ok();
        let node = there.map(|o| w.location.objects.node(&o.id).unwrap().unwrap());
        assert_eq!(known, node);
    }
    assert_eq!(w.count(|e| matches!(e, Event::Failed(_))), 0, "checks under locks leave nothing to be refused");
}

/// Who waited for a name is judged by what its directory is by then.
#[tokio::test]
async fn a_directory_that_changed_while_a_name_was_waited_for_is_judged_as_it_is_then() {
    let w = world().await;
    let old = w.create(&user(), "old").await;
    let behind = async |name: &str, change: SetAttrs, op: &dyn Fn(Volume) -> tokio::task::JoinHandle<Status>| {
        let key = locks::Key::Name(ROOT, name.as_bytes().to_vec());
        let held = w.volume.acquire(J, vec![(key, locks::Mode::Exclusive)]).await.unwrap();
        let waits = op(w.volume.clone());
        while w.volume.locks.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        w.volume.setattr(&root(), ROOT_REF, change, None).await.unwrap();
        drop(held);
        let status = waits.await.unwrap();
        w.volume.setattr(&root(), ROOT_REF, mode(0o777), None).await.unwrap();
        status
    };
    let answer = |refused: Option<Status>| refused.unwrap_or(Status::Exist);
    let mkdir = move |volume: Volume| {
        tokio::spawn(async move {
            let new = NewNode { what: What::Dir, attrs: mode(0o755) };
            answer(volume.make(&user(), ROOT_REF, b"d", new).await.err().map(|r| r.status))
        })
    };
    let create = move |volume: Volume| {
        tokio::spawn(async move {
            let made = volume.create(&user(), ROOT_REF, b"c", CreateHow::Guarded(mode(0o644))).await;
            answer(made.err().map(|r| r.status))
        })
    };
    let remove = move |volume: Volume| {
        tokio::spawn(async move { answer(volume.remove(&user(), ROOT_REF, b"old").await.err().map(|r| r.status)) })
    };
    let rename = move |volume: Volume| {
        tokio::spawn(async move {
            let done = volume.rename(&user(), ROOT_REF, b"old", ROOT_REF, b"new").await;
            answer(done.err().map(|r| r.status))
        })
    };
    let link = move |volume: Volume| {
        tokio::spawn(async move { answer(volume.link(&user(), old, ROOT_REF, b"l").await.err().map(|r| r.status)) })
    };
    for (name, op) in [
        ("d", &mkdir as &dyn Fn(Volume) -> tokio::task::JoinHandle<Status>),
        ("c", &create),
        ("old", &remove),
        ("old", &rename),
        ("l", &link),
    ] {
        assert_eq!(behind(name, mode(0o755), op).await, Status::Access, "{name}");
    }
    assert_eq!(w.names(ROOT_REF).await, ["old"]);
    // The group of a directory that has become set-gid goes to what is made in it.
    let set_gid = SetAttrs { mode: Some(0o2777), gid: Some(4242), ..SetAttrs::default() };
    assert_eq!(behind("d", set_gid, &mkdir).await, Status::Exist, "it was made");
    let made = w.lookup(ROOT_REF, "d").await.unwrap();
    let attr = w.volume.getattr(made).await.unwrap();
    assert_eq!((attr.gid, attr.mode & 0o2000), (4242, 0o2000));
    w.assert_at_rest().await;
}

/// As git does with a ref, and whoever writes a file aside and renames it over the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_that_is_replaced_is_found_at_every_moment() {
    let w = world().await;
    w.create(&user(), "ref").await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let looking: Vec<_> = (0..3)
        .map(|_| {
            let (volume, done) = (w.volume.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let found = volume.lookup(&user(), ROOT_REF, b"ref").await;
                    assert_eq!(found.err().map(|r| r.status), None);
                }
            })
        })
        .collect();
    for _ in 0..500 {
        w.create(&user(), "lock").await;
        w.volume.rename(&user(), ROOT_REF, b"lock", ROOT_REF, b"ref").await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    for looking in looking {
        looking.await.unwrap();
    }
    w.volume.remove(&user(), ROOT_REF, b"ref").await.unwrap();
    assert_eq!(w.lookup(ROOT_REF, "ref").await, Err(Status::NoEnt));
}

#[tokio::test]
async fn a_device_whose_number_no_kernel_has_is_refused() {
    let w = world().await;
    for (major, minor, status) in
        [(4104, 0, Status::Inval), (1, 1 << 20, Status::Inval), (0xfff, 0xf_ffff, Status::Exist)]
    {
        for what in [What::Char { major, minor }, What::Block { major, minor }] {
            let new = NewNode { what, attrs: mode(0o600) };
            let made = w.volume.make(&root(), ROOT_REF, format!("d{major}-{minor}").as_bytes(), new).await;
            let got = made.err().map(|r| r.status);
            assert!(got == Some(status) || (status == Status::Exist && matches!(got, None | Some(Status::Exist))));
        }
    }
}

/// A directory without case: what the filer finds by another name than it lists has that one alone.
#[tokio::test]
async fn what_a_filer_finds_by_another_name_than_it_lists_is_not_there_by_it() {
    let w = world_of(Memory::new(MemoryOptions { folds_names: true, ..MemoryOptions::default() })).await;
    let top = w.top().await;
    w.put(&top, "file", What::File).await;
    w.put(&top, "caf\u{e9}", What::Dir).await;
    assert!(w.filer.lookup(&top, b"FILE").await.is_ok(), "the filer has it");
    for other in ["FILE", "File", "cafe\u{301}", "CAF\u{c9}"] {
        assert_eq!(w.lookup(ROOT_REF, other).await, Err(Status::NoEnt), "{other}");
    }
    let (file, dir) = (w.lookup(ROOT_REF, "file").await.unwrap(), w.lookup(ROOT_REF, "caf\u{e9}").await.unwrap());
    // Neither does it go by that name, nor is it taken for what was to be made.
    assert_eq!(w.volume.remove(&root(), ROOT_REF, b"FILE").await.unwrap_err().status, Status::NoEnt);
    let create = async |name: &[u8]| {
        let created = w.volume.create(&root(), ROOT_REF, name, CreateHow::Guarded(mode(0o600))).await;
        created.map(|found| found.node).map_err(|refused| refused.status)
    };
    assert_eq!(create(b"FILE").await, Err(Status::Exist));
    w.put(&top, "unseen", What::File).await;
    w.fault("make", Fault::Before(ErrorKind::Io), 1);
    assert_eq!(create(b"UNSEEN").await, Err(Status::Io));
    assert_eq!(w.volume.rename(&root(), ROOT_REF, b"file", ROOT_REF, b"FILE").await.unwrap_err().status, Status::Exist);
    assert_eq!(w.names(ROOT_REF).await, ["file", "caf\u{e9}", "unseen"]);
    assert_eq!((w.lookup(ROOT_REF, "file").await, w.lookup(ROOT_REF, "caf\u{e9}").await), (Ok(file), Ok(dir)));
    assert_eq!(w.lookup(ROOT_REF, "FILE").await, Err(Status::NoEnt), "all is known by now");
    w.assert_at_rest().await;
}
