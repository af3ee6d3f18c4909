//! Filers that refuse, lose answers, go away; clients that hang up.

use super::*;
use crate::filer::ErrorKind;
use crate::filer::memory::Turn;
use journal_format::event::{Failed, JunctionModified, PartDone, Partial};
use journal_format::ids::Kind;
use std::time::Duration;

fn failed(w: &World) -> Vec<Failed> {
    let events = w.events().into_iter();
    events.filter_map(|(_, e)| if let Event::Failed(f) = e { Some(f) } else { None }).collect()
}

#[tokio::test]
async fn a_refusal_is_journaled_with_its_status_before_it_is_answered() {
    let w = world().await;
    w.fault("make", Fault::Before(ErrorKind::NoSpace), 1);
    let refused = w.volume.create(&user(), ROOT_REF, b"f", CreateHow::Guarded(mode(0o644))).await.unwrap_err();
    assert_eq!(refused.status, Status::NoSpc);
    let events = w.events();
    let (lsn, _) = events.iter().find(|(_, e)| matches!(e, Event::Make(_))).unwrap();
    assert_eq!(failed(&w), [Failed { op: *lsn, status: Status::NoSpc as u32 }]);
    assert_eq!(w.lookup(ROOT_REF, "f").await, Err(Status::NoEnt));
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_lost_answer_is_judged_by_identity_and_not_done_twice() {
    let w = world().await;
    w.fault("make", Fault::After(ErrorKind::Unknown), 1);
    let file = w.create(&user(), "f").await;
    w.fault("link", Fault::After(ErrorKind::Unknown), 1);
    w.volume.link(&user(), file, ROOT_REF, b"g").await.unwrap();
    w.fault("rename", Fault::After(ErrorKind::Down), 1);
    w.volume.rename(&user(), ROOT_REF, b"g", ROOT_REF, b"h").await.unwrap();
    w.fault("remove", Fault::After(ErrorKind::Unknown), 1);
    w.volume.remove(&user(), ROOT_REF, b"f").await.unwrap();
    w.fault("write", Fault::After(ErrorKind::Unknown), 1);
    assert_eq!(w.write(&user(), file, 0, "x").await, Ok(1));
    assert_eq!(w.names(ROOT_REF).await, ["h"]);
    assert_eq!(failed(&w), []);
    w.assert_at_rest().await;
}

/// A kernel that has the directory mounted sent the call again, and its server had done it.
#[tokio::test]
async fn what_a_repeated_rename_or_link_is_told_is_no_refusal_when_the_first_took_effect() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.fault("link", Fault::After(ErrorKind::Exists), 1);
    w.volume.link(&user(), file, ROOT_REF, b"g").await.unwrap();
    w.fault("rename", Fault::After(ErrorKind::NotFound), 1);
    w.volume.rename(&user(), ROOT_REF, b"g", ROOT_REF, b"h").await.unwrap();
    assert_eq!((w.names(ROOT_REF).await, failed(&w)), (vec!["f".to_owned(), "h".to_owned()], vec![]));
    w.fault("link", Fault::Before(ErrorKind::Exists), 1);
    assert_eq!(w.volume.link(&user(), file, ROOT_REF, b"i").await.unwrap_err().status, Status::Exist);
    assert_eq!((w.names(ROOT_REF).await.len(), failed(&w).len()), (2, 1));
    w.assert_at_rest().await;
}

#[tokio::test]
async fn an_io_error_of_a_call_that_took_effect_is_done_and_of_one_that_did_not_is_failed() {
    let w = world().await;
    w.fault("make", Fault::After(ErrorKind::Io), 1);
    let file = w.create(&user(), "f").await;
    assert_eq!(w.lookup(ROOT_REF, "f").await, Ok(file));
    w.fault("remove", Fault::Before(ErrorKind::Io), 1);
    assert_eq!(w.volume.remove(&user(), ROOT_REF, b"f").await.unwrap_err().status, Status::Io);
    assert_eq!(failed(&w).len(), 1);
    assert_eq!(w.lookup(ROOT_REF, "f").await, Ok(file));
}

#[tokio::test]
async fn a_write_that_has_room_for_a_part_ends_as_partial_and_answers_short() {
    let w = world_of(Memory::new(MemoryOptions { space: 4096, ..MemoryOptions::default() })).await;
    let file = w.create(&user(), "f").await;
    let data = Bytes::from(vec![7; 10_000]);
    let (written, wcc) = w.volume.write(&user(), file, 0, data).await.unwrap();
    assert!(written > 0 && written < 10_000);
    assert_eq!(wcc.after.unwrap().size, u64::from(written));
    let ends: Vec<Partial> =
        w.events().into_iter().filter_map(|(_, e)| if let Event::Partial(p) = e { Some(p) } else { None }).collect();
    assert_eq!((ends[0].done.clone(), ends[0].status), (PartDone::Bytes(written), Status::NoSpc as u32));
    assert_eq!(w.write(&user(), file, u64::from(written), "more and more").await, Err(Status::NoSpc));
    w.assert_at_rest().await;
}

#[tokio::test]
async fn an_io_error_of_a_write_is_partial_for_nobody_knows_what_it_left() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.fault("write", Fault::Before(ErrorKind::Io), 1);
    assert_eq!(w.write(&user(), file, 0, "x").await, Err(Status::Io));
    assert_eq!(w.count(|e| matches!(e, Event::Partial(p) if p.done == PartDone::Bytes(0))), 1);
}

/// A redo writes what came before it again.
#[tokio::test]
async fn what_a_write_that_was_broken_off_has_left_is_an_operation_of_its_own() {
    for fault in [Fault::After(ErrorKind::Io), Fault::Before(ErrorKind::Io)] {
        let w = world().await;
        let file = w.create(&user(), "f").await;
        assert_eq!(w.write(&user(), file, 0, "old bytes").await, Ok(9));
        w.fault("write", fault, 1);
        assert_eq!(w.write(&user(), file, 4, "NEW").await, Err(Status::Io));
        let left = w.read(file).await;
        let of_bytes = |e: &Event| matches!(e, Event::Write(_) | Event::Partial(_));
        let events: Vec<_> = w.events().into_iter().filter(|(_, e)| of_bytes(e)).collect();
        let [_, (asked, Event::Write(_)), (_, Event::Partial(end)), (ours, Event::Write(there))] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(*end, Partial { op: *asked, done: PartDone::Bytes(0), status: Status::Io as u32 });
        assert_eq!((there.offset, there.len), (4, 3));
        assert_eq!(there.caller, journal_format::event::Caller::default(), "nobody asked for it");
        let journal = &w.volume.ledger.journal;
        let record = journal.reader(*ours).unwrap().next(journal.durable_lsn()).unwrap().unwrap();
        assert_eq!(record.bulk, left[4..7]);
        w.assert_at_rest().await;
    }
}

#[tokio::test]
async fn a_setattr_that_fails_half_way_says_which_half() {
    let w = world().await;
    let file = w.create(&root(), "f").await;
    // The second call, for the owner, behind the mode's, which takes set-id bits before the file is given away.
    let calls = AtomicUsize::new(0);
    let hook = move |op: &'static str| {
        (op == "set" && calls.fetch_add(1, Ordering::SeqCst) == 1).then_some(Fault::Before(ErrorKind::ReadOnly))
    };
    w.filer.set_fault(Some(Box::new(hook)));
    let wish = SetAttrs { uid: Some(USER), ..mode(0o600) };
    assert_eq!(w.volume.setattr(&root(), file, wish, None).await.unwrap_err().status, Status::RoFs);
    let done = PartDone::Attrs { mode: true, owner: false, size: false, times: false };
    assert_eq!(w.count(|e| matches!(e, Event::Partial(p) if p.done == done)), 1);
    let attr = w.volume.getattr(file).await.unwrap();
    assert_eq!((attr.uid, attr.mode), (0, 0o600));
    w.assert_at_rest().await;
}

/// What another user had set-id is never the new owner's with those bits, not even when the next call fails.
#[tokio::test]
async fn a_file_that_is_given_away_loses_its_set_id_bits_first() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.volume.setattr(&user(), file, mode(0o4755), None).await.unwrap();
    let calls = AtomicUsize::new(0);
    let hook = move |op: &'static str| {
        (op == "set" && calls.fetch_add(1, Ordering::SeqCst) == 1).then_some(Fault::Before(ErrorKind::ReadOnly))
    };
    w.filer.set_fault(Some(Box::new(hook)));
    let away = SetAttrs { uid: Some(0), ..SetAttrs::default() };
    assert_eq!(w.volume.setattr(&root(), file, away, None).await.unwrap_err().status, Status::RoFs);
    let attr = w.volume.getattr(file).await.unwrap();
    assert_eq!((attr.uid, attr.mode), (USER, 0o755));
}

/// The filer made it for the service's user, and could not say so.
#[tokio::test]
async fn what_a_make_left_with_an_io_error_gets_its_owner_and_mode() {
    let w = world().await;
    w.fault("make", Fault::After(ErrorKind::Io), 1);
    let file = w.create(&user(), "f").await;
    w.filer.set_fault(None);
    let sets = Arc::new(AtomicUsize::new(0));
    let counted = sets.clone();
    let left = AtomicUsize::new(1);
    w.filer.set_fault(Some(Box::new(move |op: &'static str| {
        if op == "set" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        let hit = op == "make" && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        hit.then_some(Fault::After(ErrorKind::Io))
    })));
    let other = w.create(&user(), "g").await;
    assert!(sets.load(Ordering::SeqCst) > 0, "they are set once more");
    for made in [file, other] {
        assert_eq!(w.volume.getattr(made).await.unwrap().uid, USER);
    }
}

#[tokio::test]
async fn an_io_error_of_a_setattr_is_judged_by_what_the_attributes_are_then() {
    let w = world().await;
    let file = w.create(&root(), "f").await;
    w.fault("set", Fault::After(ErrorKind::Io), 1);
    w.volume.setattr(&root(), file, mode(0o600), None).await.unwrap();
    assert_eq!(w.count(|e| matches!(e, Event::Partial(_))), 0, "what is there is recorded");
    w.fault("set", Fault::Before(ErrorKind::Io), 1);
    assert_eq!(w.volume.setattr(&root(), file, mode(0o640), None).await.unwrap_err().status, Status::Io);
    let nothing = PartDone::Attrs { mode: false, owner: false, size: false, times: false };
    assert_eq!(w.count(|e| matches!(e, Event::Partial(p) if p.done == nothing)), 1);
    assert_eq!(w.volume.getattr(file).await.unwrap().mode, 0o600);
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_create_whose_size_is_refused_leaves_nothing_behind() {
    let w = world().await;
    w.fault("set", Fault::Before(ErrorKind::FileTooBig), 1);
    let how = CreateHow::Guarded(SetAttrs { size: Some(1 << 40), ..mode(0o644) });
    assert_eq!(w.volume.create(&user(), ROOT_REF, b"f", how).await.unwrap_err().status, Status::FBig);
    w.filer.set_fault(None);
    assert!(w.filer.lookup(&w.top().await, b"f").await.is_err());
    assert_eq!(failed(&w).len(), 1);
}

/// Where an object is found by its names alone, a second REMOVE looks at the file before it has the lock.
#[tokio::test]
async fn a_name_that_somebody_else_is_taking_away_is_not_there() {
    let mut options = MemoryOptions::default();
    options.capabilities.open_by_identity = false;
    let w = world_of(Memory::new(options)).await;
    w.create(&user(), "f").await;
    let slow = |op| Turn { after: Duration::from_millis(if op == "remove" { 300 } else { 0 }), ..Turn::default() };
    w.filer.set_script(Some(Box::new(slow)));
    let volume = w.volume.clone();
    let first = tokio::spawn(async move { volume.remove(&user(), ROOT_REF, b"f").await.map(drop) });
    while w.filer.lookup(&w.top().await, b"f").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = w.volume.remove(&user(), ROOT_REF, b"f").await;
    assert_eq!(second.unwrap_err().status, Status::NoEnt, "its directory's handle is not stale");
    first.await.unwrap().unwrap();
    w.assert_at_rest().await;
}

#[tokio::test]
async fn an_operation_goes_on_to_its_end_when_its_client_hangs_up() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.fault("write", Fault::Before(ErrorKind::Down), 3);
    let writing = tokio::spawn({
        let volume = w.volume.clone();
        async move { volume.write(&user(), file, 0, Bytes::from_static(b"kept")).await.map(drop) }
    });
    while w.count(|e| matches!(e, Event::Write(_))) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writing.abort();
    assert!(w.volume.ledger.settled_lsn(J) < w.volume.ledger.journal.end_lsn(), "unsettled as long as nobody knows");
    assert!(!w.volume.locks.is_empty(), "and locked");
    while !w.volume.locks.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(w.read(file).await, b"kept");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn who_is_kept_waiting_gets_jukebox_and_what_he_began_is_counted_until_it_ends() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let hook = move |op: &'static str| {
        (op == "write" && is_down.load(Ordering::SeqCst)).then_some(Fault::Before(ErrorKind::Unknown))
    };
    w.filer.set_fault(Some(Box::new(hook)));
    assert_eq!(w.write(&user(), file, 0, "late").await, Err(Status::Jukebox));
    assert_eq!(w.volume.hanging().into_iter().map(|(id, (count, _))| (id, count)).collect::<Vec<_>>(), [(J, 1)]);
    assert_eq!(w.volume.getattr(file).await.unwrap().size, 0, "reads go on");
    let began = std::time::Instant::now();
    assert_eq!(w.write(&user(), file, 0, "late").await, Err(Status::Jukebox));
    assert!(began.elapsed() < crate::volume::run::PATIENCE, "who comes again does not wait for the lock of what hangs");
    down.store(false, Ordering::SeqCst);
    while w.volume.stuck() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(w.volume.hanging().is_empty());
    assert_eq!(w.read(file).await, b"late");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn while_too_many_outcomes_are_not_known_nothing_new_is_begun() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let stuck: Vec<_> = (0..run::STUCK_MAX).map(|_| w.volume.stuck.one_more(J)).collect();
    assert_eq!(w.write(&user(), file, 0, "x").await, Err(Status::Jukebox));
    assert_eq!(w.count(|e| matches!(e, Event::Write(_))), 0);
    drop(stuck);
    assert_eq!(w.write(&user(), file, 0, "x").await, Ok(1));
}

#[tokio::test]
async fn a_filer_that_is_down_before_the_record_is_jukebox_and_leaves_none() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.filer.set_fault(Some(Box::new(|_| Some(Fault::Before(ErrorKind::Down)))));
    assert_eq!(w.write(&user(), file, 0, "x").await, Err(Status::Jukebox));
    assert_eq!(w.volume.getattr(file).await, Err(Status::Jukebox));
    assert_eq!(w.count(|e| matches!(e, Event::Write(_))), 0);
    w.filer.set_fault(None);
    w.assert_at_rest().await;
}

#[tokio::test]
async fn what_was_made_or_cut_is_answered_even_if_the_filer_goes_down_behind_it() {
    for changes in ["make", "set"] {
        let w = world().await;
        if changes == "set" {
            let file = w.create(&user(), "f").await;
            w.write(&user(), file, 0, "it was longer").await.unwrap();
        }
        let changed = std::sync::atomic::AtomicBool::new(false);
        let hook = move |op: &'static str| {
            if op == changes {
                changed.store(true, Ordering::SeqCst);
                return None;
            }
            changed.load(Ordering::SeqCst).then_some(Fault::Before(ErrorKind::Down))
        };
        w.filer.set_fault(Some(Box::new(hook)));
        let how = CreateHow::Unchecked(SetAttrs { size: (changes == "set").then_some(2), ..mode(0o640) });
        let answered = w.volume.create(&user(), ROOT_REF, b"f", how).await.unwrap().attr;
        w.filer.set_fault(None);
        let later = w.volume.getattr(w.lookup(ROOT_REF, "f").await.unwrap()).await.unwrap();
        let shown = |a: &Attr| (a.kind, a.mode, a.uid, a.gid, a.size, a.nlink, a.fileid, a.mtime, a.ctime);
        assert_eq!(shown(&answered), shown(&later));
    }
}

/// A kernel that got JUKEBOX repeats the call under a new xid.
#[tokio::test]
async fn who_was_sent_away_and_comes_again_is_answered_what_came_of_it() {
    let w = world().await;
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let hook = move |op: &'static str| {
        (op == "make" && is_down.load(Ordering::SeqCst)).then_some(Fault::Before(ErrorKind::Unknown))
    };
    w.filer.set_fault(Some(Box::new(hook)));
    let call = |xid, sum| Call { xid, sum, ..user() };
    let mkdir = || NewNode { what: What::Dir, attrs: mode(0o755) };
    let (first, other) = (call(1, 7), call(2, 8));
    let (one, two) =
        tokio::join!(w.volume.make(&first, ROOT_REF, b"d", mkdir()), w.volume.make(&other, ROOT_REF, b"e", mkdir()),);
    assert_eq!((one.unwrap_err().status, two.unwrap_err().status), (Status::Jukebox, Status::Jukebox));
    assert_eq!(w.volume.late(&call(3, 7)), Ok(Some(late::Known::Running)));
    assert_eq!(w.volume.late(&call(3, 9)), Ok(None), "another call");
    assert_eq!(w.volume.late(&Call { uid: 0, ..call(3, 7) }), Ok(None), "another's call");
    down.store(false, Ordering::SeqCst);
    while !w.volume.locks.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What ends an operation is told a moment later.
    while w.volume.late(&call(3, 8)) == Ok(Some(late::Known::Running)) {
        tokio::task::yield_now().await;
    }
    let made = w.lookup(ROOT_REF, "d").await.unwrap();
    w.volume.rmdir(&user(), ROOT_REF, b"e").await.unwrap();
    loop {
        match w.volume.late(&call(3, 7)).unwrap() {
            Some(late::Known::Running) => tokio::task::yield_now().await,
            Some(late::Known::Done(outcome)) => {
                let effect = outcome::Effect::Made { dir: ROOT, node: made.node };
                assert_eq!(outcome, outcome::Outcome { junction: J, effect, failed: None });
                break;
            }
            None => panic!("forgotten"),
        }
    }
    assert_eq!(w.volume.late(&call(4, 7)), Ok(None), "told once");
    assert_eq!(w.volume.late(&call(4, 8)), Ok(None), "its directory is gone: a MKDIR now is a new one");
    w.assert_at_rest().await;
}

/// In the pause that a kernel makes somebody else may use the name: a REMOVE that ran again would remove his file.
#[tokio::test]
async fn who_was_sent_away_and_comes_again_soon_does_not_meet_what_others_did_meanwhile() {
    let w = world().await;
    let call = |xid, sum| Call { xid, sum, ..user() };
    // The one who was sent away may have given up: then what he does is new.
    for (name, sum, by, soon) in [("soon", 7, root(), true), ("later", 8, root(), false), ("himself", 9, user(), false)]
    {
        w.create(&user(), name).await;
        let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let is_down = down.clone();
        let hook = move |op: &'static str| {
            (op == "remove" && is_down.load(Ordering::SeqCst)).then_some(Fault::Before(ErrorKind::Unknown))
        };
        w.filer.set_fault(Some(Box::new(hook)));
        let away = w.volume.remove(&call(1, sum), ROOT_REF, name.as_bytes()).await;
        assert_eq!(away.unwrap_err().status, Status::Jukebox);
        assert_eq!(w.volume.late(&call(2, sum)), Ok(Some(late::Known::Running)));
        down.store(false, Ordering::SeqCst);
        while !w.volume.locks.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What ends an operation is told a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let others = w.create(&by, name).await;
        tokio::time::pause();
        let pause = Duration::from_secs(if name == "later" { 20 } else { 5 });
        tokio::time::advance(pause).await;
        tokio::time::resume();
        let effect = outcome::Effect::Removed { dir: ROOT };
        let done = late::Known::Done(outcome::Outcome { junction: J, effect, failed: None });
        assert_eq!(w.volume.late(&call(3, sum)), Ok(soon.then_some(done)), "{name}");
        assert_eq!(w.volume.late(&call(4, sum)), Ok(None), "told once");
        assert_eq!(w.lookup(ROOT_REF, name).await, Ok(others));
    }
    w.assert_at_rest().await;
}

/// A filer that finds names, and calls what they lead to gone, so many times.
fn deny_what_is_found(w: &World, times: usize) {
    let (found, left) = (std::sync::atomic::AtomicBool::new(false), AtomicUsize::new(times));
    let hook = move |op: &'static str| {
        if op == "lookup" {
            found.store(true, Ordering::SeqCst);
        }
        let denied = op == "stat"
            && found.swap(false, Ordering::SeqCst)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        denied.then_some(Fault::Before(ErrorKind::Stale))
    };
    w.filer.set_fault(Some(Box::new(hook)));
}

async fn listed(w: &World) -> Result<usize, Status> {
    let listing = w.volume.readdir(&root(), ROOT_REF, 0, 0, Room::plus(1 << 20, 1 << 20, 160), &|_| true).await;
    listing.map(|l| l.entries.len() - 2).map_err(|r| r.status)
}

#[tokio::test]
async fn a_name_that_a_filer_lists_and_calls_gone_is_not_left_out() {
    let w = world().await;
    let top = w.top().await;
    w.put(&top, "f", What::File).await;
    deny_what_is_found(&w, usize::MAX);
    assert_eq!(listed(&w).await, Err(Status::Io));
    assert_eq!(w.lookup(ROOT_REF, "f").await, Err(Status::Io));
    let how = CreateHow::Guarded(mode(0o644));
    assert_eq!(w.volume.create(&user(), ROOT_REF, b"f", how).await.unwrap_err().status, Status::Io);
    assert_eq!(w.count(|e| matches!(e, Event::Adopt(a) if a.complete)), 0, "the directory is not known");
    deny_what_is_found(&w, 2);
    assert_eq!(listed(&w).await, Ok(1), "asked again it is there");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_name_that_a_filer_lists_and_does_not_find_is_not_left_out() {
    let w = world().await;
    let top = w.top().await;
    w.put(&top, "f", What::File).await;
    w.fault("lookup", Fault::Before(ErrorKind::NotFound), usize::MAX);
    assert_eq!(listed(&w).await, Err(Status::Io));
    assert_eq!(w.count(|e| matches!(e, Event::Adopt(a) if a.complete)), 0);
    w.filer.set_fault(None);
    assert_eq!(w.names(ROOT_REF).await, ["f"]);
}

#[tokio::test]
async fn a_name_that_somebody_removed_behind_us_while_its_directory_was_read_is_left_out() {
    use futures_util::FutureExt as _;
    let w = world().await;
    let top = w.top().await;
    w.put(&top, "f", What::File).await;
    w.put(&top, "g", What::File).await;
    let (filer, removed) = (w.filer.clone(), std::sync::atomic::AtomicBool::new(false));
    let hook = move |op: &'static str| {
        if op == "lookup" && !removed.swap(true, Ordering::SeqCst) {
            filer.remove(&top, b"f").now_or_never().expect("at once").expect("removed");
        }
        None
    };
    w.filer.set_fault(Some(Box::new(hook)));
    assert_eq!(w.names(ROOT_REF).await, ["g"]);
    assert_eq!(w.count(|e| matches!(e, Event::Adopt(a) if a.complete)), 1);
}

/// What is below the mount would be left out for good if its directory were called complete, and a move must say that it is.
#[tokio::test]
async fn a_mount_point_is_left_out_of_listings_and_its_directory_is_reported_to_jobs() {
    let w = world().await;
    let top = w.top().await;
    let dir = w.put(&top, "d", What::Dir).await;
    w.put(&dir, "f", What::File).await;
    let mounted = w.put(&dir, "mounted", What::Dir).await;
    w.put(&dir, "z", What::Dir).await;
    w.filer.mount_on(&mounted, true).unwrap();
    let node = w.lookup(ROOT_REF, "d").await.unwrap();
    assert_eq!(w.names(node).await, ["f", "z"]);
    let listings = Arc::new(AtomicUsize::new(0));
    let count = listings.clone();
    let hook = move |op: &'static str| {
        count.fetch_add(usize::from(op == "list"), Ordering::SeqCst);
        None
    };
    w.filer.set_fault(Some(Box::new(hook)));
    let how = || CreateHow::Guarded(mode(0o644));
    w.volume.create(&root(), node, b"new", how()).await.unwrap();
    assert_eq!(w.names(node).await, ["f", "z", "new"]);
    assert_eq!(listings.load(Ordering::SeqCst), 0, "the filer's directory is not read at each page");
    assert_eq!(w.volume.complete(J, node.node).await, Err(Status::XDev));
    assert_eq!(w.lookup(node, "mounted").await, Err(Status::Access));
    assert_eq!(w.volume.create(&root(), node, b"mounted", how()).await.unwrap_err().status, Status::Access);
    assert_eq!(w.volume.rmdir(&root(), node, b"mounted").await.unwrap_err().status, Status::Access);
    for name in ["f", "new"] {
        w.volume.remove(&root(), node, name.as_bytes()).await.unwrap();
    }
    w.volume.rmdir(&root(), node, b"z").await.unwrap();
    assert_eq!(w.volume.rmdir(&root(), ROOT_REF, b"d").await.unwrap_err().status, Status::NotEmpty);
    assert_eq!(failed(&w), []);
    w.filer.mount_on(&mounted, false).unwrap();
    w.lookup(node, "mounted").await.expect("as soon as nothing is mounted there");
    assert_eq!(w.names(node).await, ["mounted"]);
    w.assert_at_rest().await;
}

/// A listing tells it from what was just read; a job that is started for it looks.
#[tokio::test]
async fn a_job_does_not_take_a_mount_point_for_one_that_was_just_unmounted() {
    let w = world().await;
    let dir = w.put(&w.top().await, "d", What::Dir).await;
    let mounted = w.put(&dir, "mounted", What::Dir).await;
    w.filer.mount_on(&mounted, true).unwrap();
    let node = w.lookup(ROOT_REF, "d").await.unwrap();
    assert_eq!(w.volume.complete(J, node.node).await, Err(Status::XDev));
    w.filer.mount_on(&mounted, false).unwrap();
    assert_eq!(w.volume.complete(J, node.node).await, Err(Status::XDev), "it was just read");
    w.volume.look_again(node.node);
    assert_eq!(w.volume.complete(J, node.node).await, Ok(()));
    assert_eq!(w.names(node).await, ["mounted"]);
}

#[tokio::test]
async fn a_rename_to_a_name_that_the_filer_denied_replaces_nothing() {
    let w = world().await;
    let top = w.top().await;
    let there = w.put(&top, "there", What::File).await;
    w.create(&user(), "f").await;
    w.fault("lookup", Fault::Before(ErrorKind::NotFound), usize::MAX);
    let refused = w.volume.rename(&user(), ROOT_REF, b"f", ROOT_REF, b"there").await.unwrap_err();
    assert_eq!(refused.status, Status::Exist);
    assert_eq!(failed(&w).len(), 1);
    w.filer.set_fault(None);
    assert_eq!(w.filer.lookup(&top, b"there").await.unwrap().id, there.id);
    assert_eq!(w.names(ROOT_REF).await, ["f", "there"]);
    w.assert_at_rest().await;
}

/// Somebody removed it on the filer, or a repair of the file system did.
async fn lose(w: &World, name: &str) {
    let node = w.lookup(ROOT_REF, name).await.unwrap();
    let top = w.top().await;
    if w.filer.lookup(&top, name.as_bytes()).await.unwrap().kind == Kind::Dir {
        w.filer.rmdir(&top, name.as_bytes()).await.unwrap();
    } else {
        w.filer.remove(&top, name.as_bytes()).await.unwrap();
    }
    w.location.forget(node.node);
    assert_eq!(w.lookup(ROOT_REF, name).await, Err(Status::NoEnt), "its directory's handle is not stale");
}

#[tokio::test]
async fn a_name_whose_object_the_filer_has_lost_can_be_removed_replaced_and_used_again() {
    let w = world().await;
    for name in ["removed", "replaced", "linked", "unchecked", "guarded", "swapped", "moved", "there"] {
        w.create(&user(), name).await;
    }
    for name in ["rmdired", "made"] {
        w.mkdir(&user(), ROOT_REF, name).await;
    }
    for name in ["removed", "replaced", "linked", "unchecked", "guarded", "swapped", "moved", "rmdired", "made"] {
        lose(&w, name).await;
    }
    assert_eq!(w.count(|e| matches!(e, Event::Remove(_))), 0, "a mirror may have what the primary has lost");
    w.volume.setattr(&root(), ROOT_REF, mode(0o755), None).await.unwrap();
    let stranger = Call { uid: USER + 1, gid: USER + 1, ..user() };
    let mkdir = NewNode { what: What::Dir, attrs: mode(0o755) };
    let refused = w.volume.make(&stranger, ROOT_REF, b"made", mkdir).await.unwrap_err().status;
    assert!(matches!(refused, Status::Access | Status::Exist), "{refused:?}");
    assert_eq!(w.count(|e| matches!(e, Event::Remove(_))), 0, "nor may who could not remove it");
    w.volume.setattr(&root(), ROOT_REF, mode(0o777), None).await.unwrap();
    w.volume.remove(&user(), ROOT_REF, b"removed").await.unwrap();
    w.volume.rmdir(&user(), ROOT_REF, b"rmdired").await.unwrap();
    w.put(&w.top().await, "swapped", What::File).await;
    w.volume.remove(&user(), ROOT_REF, b"swapped").await.unwrap();
    let moved = w.volume.rename(&user(), ROOT_REF, b"moved", ROOT_REF, b"new").await.unwrap_err();
    assert_eq!(moved.status, Status::NoEnt);
    w.volume.rename(&user(), ROOT_REF, b"there", ROOT_REF, b"replaced").await.unwrap();
    let node = w.lookup(ROOT_REF, "replaced").await.unwrap();
    w.volume.link(&user(), node, ROOT_REF, b"linked").await.unwrap();
    w.create(&user(), "guarded").await;
    let how = CreateHow::Unchecked(SetAttrs { size: Some(0), ..mode(0o644) });
    w.volume.create(&user(), ROOT_REF, b"unchecked", how).await.unwrap();
    w.mkdir(&user(), ROOT_REF, "made").await;
    for again in ["removed", "rmdired", "swapped"] {
        w.create(&user(), again).await;
    }
    let mut names = w.names(ROOT_REF).await;
    names.sort();
    let due = ["guarded", "linked", "made", "moved", "removed", "replaced", "rmdired", "swapped", "unchecked"];
    assert_eq!(names, due);
    assert_eq!(failed(&w), []);
    w.assert_at_rest().await;
}

/// Taken for free, what has the name would be hidden for good.
#[tokio::test]
async fn a_name_that_the_filer_denies_and_lists_is_not_taken_for_free() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.location.forget(file.node);
    let hook = |op: &'static str| match op {
        "by_identity" => Some(Fault::Before(ErrorKind::Stale)),
        "lookup" => Some(Fault::Before(ErrorKind::NotFound)),
        _ => None,
    };
    w.filer.set_fault(Some(Box::new(hook)));
    let how = CreateHow::Unchecked(mode(0o644));
    assert_eq!(w.volume.create(&user(), ROOT_REF, b"f", how).await.unwrap_err().status, Status::Io);
    w.filer.set_fault(None);
    assert_eq!(w.lookup(ROOT_REF, "f").await, Ok(file));
    assert_eq!(w.count(|e| matches!(e, Event::Remove(_))), 0);
    w.assert_at_rest().await;
}

/// A job completes directories through the same door as clients.
#[tokio::test]
async fn while_a_junction_is_suspended_clients_wait_and_a_job_still_reads_its_directories() {
    let w = world().await;
    let top = w.top().await;
    w.put(&top, "f", What::File).await;
    let suspend = |suspended| Event::JunctionModified(JunctionModified { junction: J, access: None, suspended });
    w.volume.ledger.append(&suspend(true)).await.unwrap();
    assert_eq!(listed(&w).await, Err(Status::Jukebox));
    assert_eq!(w.lookup(ROOT_REF, "f").await, Err(Status::Jukebox));
    assert_eq!(w.volume.complete(J, ROOT).await, Ok(()));
    assert_eq!(w.count(|e| matches!(e, Event::Adopt(a) if a.complete)), 1);
    assert_eq!(listed(&w).await, Err(Status::Jukebox), "what the index knows is not told either");
    w.volume.ledger.append(&suspend(false)).await.unwrap();
    assert_eq!(listed(&w).await, Ok(1));
    w.assert_at_rest().await;
}

/// Two WRITEs side by side, and the older one ends last: who looked between the two must see that something changed since.
#[tokio::test]
async fn an_operation_that_ends_behind_a_younger_one_shows_in_the_change_time() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let first = AtomicUsize::new(0);
    let slow = move |op: &'static str| op == "write" && first.fetch_add(1, Ordering::SeqCst) == 0;
    let before = move |op| if slow(op) { Duration::from_millis(400) } else { Duration::ZERO };
    w.filer.set_script(Some(Box::new(move |op| Turn { before: before(op), ..Turn::default() })));
    let writes = |w: &World| w.count(|event| matches!(event, Event::Write(_)));
    let older = tokio::spawn({
        let volume = w.volume.clone();
        async move { volume.write(&user(), file, 0, Bytes::from_static(b"older")).await.map(drop).map_err(|r| r.status) }
    });
    while writes(&w) == 0 {
        tokio::task::yield_now().await;
    }
    w.write(&user(), file, 100, "younger").await.unwrap();
    let between = w.volume.getattr(file).await.unwrap();
    older.await.unwrap().unwrap();
    let end = w.volume.getattr(file).await.unwrap();
    assert!(end.ctime > between.ctime, "{:?}", end.ctime);
    assert_eq!((end.ctime, end.mtime), (end.mtime, between.mtime), "the younger one's, as the journal says");
    assert_eq!(w.volume.getattr(file).await.unwrap().ctime, end.ctime);
    w.assert_at_rest().await;
}

/// Names are asked for by threads that the task waits for without being polled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_directory_that_a_hung_filer_holds_up_is_sent_away_and_it_goes_on() {
    let w = world().await;
    let dir = w.put(&w.top().await, "d", What::Dir).await;
    for name in ["a", "b", "c"] {
        w.put(&dir, name, What::File).await;
    }
    let dir = w.lookup(ROOT_REF, "d").await.unwrap();
    let before = |op| Duration::from_secs(if op == "lookup" { 6 } else { 0 });
    w.filer.set_script(Some(Box::new(move |op| Turn { before: before(op), ..Turn::default() })));
    assert_eq!(w.volume.complete(J, dir.node).await, Err(Status::Jukebox));
    assert_eq!(w.volume.reading.all(), 1, "it is known that it hangs");
    w.filer.set_script(None);
    let limit = tokio::time::timeout(Duration::from_secs(60), async {
        while w.volume.reading.all() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    limit.await.expect("it goes on");
    w.assert_at_rest().await;
    assert!(w.volume.rec(dir).unwrap().complete);
    assert_eq!(w.names(dir).await, ["a", "b", "c"]);
}
