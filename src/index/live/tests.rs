#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::index::store::{Error, Key};
use journal_format::event::{
    Adopt, Adopted, Caller, JunctionAdded, Link, LocationSpec, Make, Remove, Rename, Replaced, SetAttr, What, Write,
};
use journal_format::ids::{FilerId, Identity, LocationId};
use std::collections::BTreeMap;

const JUNCTION: JunctionId = JunctionId(1);
const LOCATION: LocationId = LocationId(1);
const ROOT: NodeId = NodeId(1);

/// LSN and time of a record, and its event.
type Record = (Lsn, Time, Event);

fn live() -> (tempfile::TempDir, Live) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), 4 << 20).unwrap();
    (dir, Live::new(Arc::new(store)))
}

fn bytes(live: &Live) -> Vec<(Key, Vec<u8>)> {
    live.store.scan(b"", None, usize::MAX).unwrap()
}

fn junction_added() -> Event {
    let location = LocationSpec { location: LOCATION, filer: FilerId(1), subdir: vec![], root: Identity(vec![1]) };
    let (mtime, ctime) = (Time(5), Time(5));
    Event::JunctionAdded(JunctionAdded {
        junction: JUNCTION,
        path: vec![b"v".to_vec()],
        location,
        root: ROOT,
        mtime,
        ctime,
    })
}

fn make(dir: u64, name: &str, node: u64, what: What) -> Event {
    Event::Make(Make {
        junction: JUNCTION,
        location: LOCATION,
        dir: NodeId(dir),
        name: name.into(),
        node: NodeId(node),
        what,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 0,
        atime: None,
        mtime: None,
        verifier: node.is_multiple_of(3).then_some([7; 8]),
        caller: Caller::default(),
    })
}

fn write(node: u64) -> Event {
    let (junction, location, node, caller) = (JUNCTION, LOCATION, NodeId(node), Caller::default());
    Event::Write(Write { junction, location, node, offset: 0, len: 1, mode: None, caller })
}

fn set_attr(node: u64, mtime: Option<i64>, size: Option<u64>) -> Event {
    Event::SetAttr(SetAttr {
        junction: JUNCTION,
        location: LOCATION,
        node: NodeId(node),
        mode: None,
        uid: None,
        gid: None,
        size,
        atime: None,
        mtime: mtime.map(Time),
        caller: Caller::default(),
    })
}

fn remove(dir: u64, name: &str, node: u64, kind: Kind, last: bool) -> Event {
    let (dir, name, node) = (NodeId(dir), name.into(), NodeId(node));
    Event::Remove(Remove {
        junction: JUNCTION,
        location: LOCATION,
        dir,
        name,
        node,
        kind,
        last,
        caller: Caller::default(),
    })
}

fn rename(from: (u64, &str), to: (u64, &str), node: u64, kind: Kind, replaced: Option<Replaced>) -> Event {
    Event::Rename(Rename {
        junction: JUNCTION,
        location: LOCATION,
        from_dir: NodeId(from.0),
        from_name: from.1.into(),
        to_dir: NodeId(to.0),
        to_name: to.1.into(),
        node: NodeId(node),
        kind,
        replaced,
        caller: Caller::default(),
    })
}

fn link(node: u64, dir: u64, name: &str) -> Event {
    let (node, dir, name, caller) = (NodeId(node), NodeId(dir), name.into(), Caller::default());
    Event::Link(Link { junction: JUNCTION, location: LOCATION, node, kind: Kind::File, dir, name, caller })
}

fn adopt(dir: u64, entries: &[(&str, u64, Kind)], complete: bool) -> Event {
    let entries = entries
        .iter()
        .map(|(name, node, kind)| Adopted {
            name: (*name).into(),
            node: NodeId(*node),
            kind: *kind,
            identity: Identity(node.to_be_bytes().to_vec()),
            mtime: Time(3),
            ctime: Time(4),
        })
        .collect();
    Event::Adopt(Adopt { junction: JUNCTION, location: LOCATION, dir: NodeId(dir), entries, complete })
}

/// Events at LSN 100, 200, …, a nanosecond of time an LSN.
fn apply_all(live: &Live, events: impl IntoIterator<Item = Event>) {
    for (n, event) in (1..).zip(events) {
        let lsn = 100 * n;
        live.apply(Lsn(lsn), Time(i64::try_from(lsn).unwrap()), &event).unwrap();
    }
}

#[test]
fn names_listings_and_paths_follow_makes_renames_links_and_removes() {
    let (_dir, live) = live();
    apply_all(
        &live,
        [
            junction_added(),
            make(1, "d", 2, What::Dir),
            make(2, "f", 3, What::File),
            link(3, 1, "g"),
            rename((1, "d"), (1, "e"), 2, Kind::Dir, None),
        ],
    );
    assert_eq!(live.path(NodeId(3)).unwrap(), Some(vec![b"g".to_vec()]), "lowest directory first");
    assert_eq!(live.names(NodeId(3), 9).unwrap(), [(NodeId(1), b"g".to_vec()), (NodeId(2), b"f".to_vec())]);
    assert_eq!(live.path(ROOT).unwrap(), Some(vec![]));
    let listed: Vec<_> = live.list(ROOT, 0, 9).unwrap().into_iter().map(|e| (e.name, e.node.0, e.cookie)).collect();
    assert_eq!(listed, [(b"g".to_vec(), 3, 400), (b"e".to_vec(), 2, 500)], "by cookie; a moved name comes last");
    assert_eq!(live.list(ROOT, 400, 9).unwrap().len(), 1);
    assert_eq!(live.entry(ROOT, b"d").unwrap(), None);
    live.apply(Lsn(600), Time(600), &remove(1, "g", 3, Kind::File, false)).unwrap();
    assert_eq!(live.path(NodeId(3)).unwrap(), Some(vec![b"e".to_vec(), b"f".to_vec()]));
    assert!(live.has_entries(NodeId(2)).unwrap());
    live.apply(Lsn(700), Time(700), &remove(2, "f", 3, Kind::File, true)).unwrap();
    assert_eq!((live.node(NodeId(3)).unwrap(), live.path(NodeId(3)).unwrap()), (None, None));
    assert!(!live.has_entries(NodeId(2)).unwrap());
    assert_eq!(live.node_max().unwrap(), NodeId(3), "ids of removed nodes are not given out again");
}

#[test]
fn times_follow_operations_and_explicit_values() {
    let (_dir, live) = live();
    let times = |node: u64| {
        let rec = live.node(NodeId(node)).unwrap().unwrap();
        (rec.mtime.0, rec.ctime.0)
    };
    apply_all(&live, [junction_added(), make(1, "f", 2, What::File), write(2)]);
    assert_eq!((times(1), times(2)), ((200, 200), (300, 300)));
    let at = |lsn: u64, event: Event| live.apply(Lsn(lsn), Time(i64::try_from(lsn).unwrap()), &event).unwrap();
    at(400, set_attr(2, Some(7), None));
    assert_eq!(times(2), (7, 400), "may go back; ctime does not");
    at(500, set_attr(2, Some(1 << 40), Some(0)));
    assert_eq!(times(2), (1 << 40, 500));
    at(600, write(2));
    assert_eq!(times(2), (600, 600), "a write brings a time in the future back");
    at(550, write(2));
    assert_eq!(times(2), (600, 600), "of two writes that overtake each other the later record's time stays");
    at(700, set_attr(2, None, None));
    assert_eq!(times(2), (600, 700));
    at(800, set_attr(2, None, Some(9)));
    at(900, rename((1, "f"), (1, "g"), 2, Kind::File, None));
    assert_eq!((times(2), times(1)), ((800, 900), (900, 900)));
}

/// Kept for ever, it would give one lock file to two programs that boot in step.
#[test]
fn a_creations_verifier_is_kept_until_its_maker_goes_on() {
    let (_dir, live) = live();
    let verifier = |node| live.node(NodeId(node)).unwrap().unwrap().verifier;
    apply_all(&live, [junction_added(), make(1, "a", 3, What::File), make(1, "b", 6, What::File), link(6, 1, "c")]);
    assert_eq!((verifier(3), verifier(6)), (Some([7; 8]), Some([7; 8])));
    live.apply(Lsn(500), Time(500), &set_attr(3, None, None)).unwrap();
    live.apply(Lsn(600), Time(600), &write(6)).unwrap();
    assert_eq!((verifier(3), verifier(6)), (None, None));
    live.apply(Lsn(200), Time(200), &make(1, "a", 3, What::File)).unwrap();
    assert_eq!(verifier(3), None, "folded again");
}

#[test]
fn adoption_keeps_what_is_known_and_completes_a_directory() {
    let (_dir, live) = live();
    apply_all(
        &live,
        [
            junction_added(),
            adopt(1, &[("a", 10, Kind::File)], false),
            write(10),
            adopt(1, &[("b", 11, Kind::Dir), ("a", 10, Kind::File), ("c", 10, Kind::File)], true),
        ],
    );
    let listed: Vec<_> = live.list(ROOT, 0, 9).unwrap().into_iter().map(|e| (e.name, e.cookie)).collect();
    assert_eq!(listed, [(b"a".to_vec(), 200), (b"b".to_vec(), 400), (b"c".to_vec(), 402)]);
    assert_eq!(live.node(NodeId(10)).unwrap().unwrap().mtime, Time(300));
    assert_eq!(live.node(ROOT).unwrap().map(|rec| (rec.complete, rec.mtime)), Some((true, Time(5))));
    assert!(!live.node(NodeId(11)).unwrap().unwrap().complete, "its own names are still to be met");
}

#[test]
fn a_name_that_is_put_over_another_leaves_no_stale_keys() {
    let (_dir, live) = live();
    let replaced = Some(Replaced { node: NodeId(3), kind: Kind::File, last: true });
    apply_all(
        &live,
        [
            junction_added(),
            make(1, "a", 2, What::File),
            make(1, "b", 3, What::File),
            rename((1, "a"), (1, "b"), 2, Kind::File, replaced),
        ],
    );
    assert_eq!(live.list(ROOT, 0, 9).unwrap().len(), 1);
    assert_eq!((live.names(NodeId(3), 9).unwrap(), live.node(NodeId(3)).unwrap()), (vec![], None));
    check_bijection(&live);
}

#[test]
fn a_name_that_is_renamed_over_keeps_its_place_in_listings() {
    let (_dir, live) = live();
    let over = |node| Some(Replaced { node: NodeId(node), kind: Kind::File, last: true });
    let events = [
        junction_added(),
        make(1, "a", 2, What::File),
        make(1, "b", 3, What::File),
        make(1, "new", 4, What::File),
        rename((1, "new"), (1, "a"), 4, Kind::File, over(2)),
        rename((1, "a"), (1, "b"), 4, Kind::File, over(3)),
        rename((1, "b"), (1, "c"), 4, Kind::File, None),
    ];
    apply_all(&live, events[..5].iter().cloned());
    let listed = |live: &Live| {
        let list = live.list(ROOT, 0, 9).unwrap();
        list.into_iter().map(|e| (e.name, e.node.0, e.cookie, e.put_by)).collect::<Vec<_>>()
    };
    assert_eq!(listed(&live), [(b"a".to_vec(), 4, 200, 500), (b"b".to_vec(), 3, 300, 300)]);
    assert_eq!(live.entry(ROOT, b"a").unwrap().map(|e| (e.cookie, e.put_by)), Some((200, 500)));
    let before = bytes(&live);
    apply_all(&live, events[..5].iter().cloned());
    assert_eq!(bytes(&live), before, "folded again");
    apply_all(&live, events[..6].iter().cloned());
    assert_eq!(listed(&live), [(b"b".to_vec(), 4, 300, 600)]);
    apply_all(&live, events);
    assert_eq!(listed(&live), [(b"c".to_vec(), 4, 700, 700)]);
    check_bijection(&live);
}

#[test]
fn an_event_never_touches_an_entry_that_is_younger_than_itself() {
    let (_dir, live) = live();
    let events = [
        junction_added(),
        make(1, "a", 2, What::File),
        link(2, 1, "b"),
        remove(1, "a", 2, Kind::File, false),
        link(2, 1, "a"),
    ];
    apply_all(&live, events.clone());
    let before = bytes(&live);
    for (lsn, event) in (100..).step_by(100).zip(&events) {
        live.apply(Lsn(lsn), Time(i64::try_from(lsn).unwrap()), event).unwrap();
        assert_eq!(bytes(&live), before, "{event:?}");
    }
}

#[test]
fn directories_in_a_circle_are_an_error_and_not_a_hang() {
    let (_dir, live) = live();
    apply_all(&live, [make(2, "x", 3, What::Dir), make(3, "y", 2, What::Dir)]);
    assert!(matches!(live.path(NodeId(2)), Err(Error::Corrupt { .. })));
}

#[test]
fn values_that_do_not_decode_are_errors() {
    let (_dir, live) = live();
    let replaced = Some(Replaced { node: NodeId(3), kind: Kind::File, last: true });
    let over = rename((1, "new"), (1, "a"), 2, Kind::File, replaced);
    apply_all(&live, [junction_added(), make(1, "a", 3, What::File), make(1, "new", 2, What::File), over]);
    for (key, value) in bytes(&live) {
        if value.is_empty() {
            continue;
        }
        let mut damaged = vec![vec![], value[..1].to_vec(), [&[9], &value[1..]].concat()];
        if key[0] != b'M' {
            damaged.push([&[1, 99], &value[2..]].concat());
        }
        if key[0] != b'C' {
            damaged.push([value.as_slice(), &[0]].concat());
        }
        for bad in damaged {
            live.store.write(vec![(key.clone(), Some(bad.clone()))]);
            let failed = match key[0] {
                b'N' => live.node(NodeId(u64::from_be_bytes(key[1..].try_into().unwrap()))).err(),
                b'E' => live.entry(ROOT, b"a").err(),
                b'C' => live.list(ROOT, 0, 9).err(),
                _ => live.node_max().err(),
            };
            assert!(matches!(failed, Some(Error::Corrupt { .. })), "{key:?} {bad:?}");
        }
        live.store.write(vec![(key, Some(value))]);
    }
    live.store.write(vec![(b"R\0\0\0\0\0\0\0\x02\0".to_vec(), Some(vec![]))]);
    assert!(matches!(live.names(NodeId(2), 9), Err(Error::Corrupt { .. })));
}

/// For each E exactly one C and one R, and no others.
fn check_bijection(live: &Live) {
    let (mut entries, mut listed, mut named) = (vec![], vec![], vec![]);
    for (key, value) in bytes(live) {
        let dir = || NodeId(u64::from_be_bytes(key[1..9].try_into().unwrap()));
        match key[0] {
            b'E' => {
                let entry = codec::decode_entry(&key[9..], &value).unwrap();
                entries.push((dir().0, entry.name, entry.node.0, entry.kind, entry.cookie));
            }
            b'C' => {
                let entry = codec::decode_listed(&key, &value).unwrap();
                listed.push((dir().0, entry.name, entry.node.0, entry.kind, entry.cookie));
            }
            b'R' => {
                let (parent, name) = codec::parse_name_key(&key).unwrap();
                named.push((parent.0, name, dir().0));
            }
            _ => {}
        }
    }
    listed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    named.sort();
    assert_eq!(entries, listed);
    assert_eq!(entries.into_iter().map(|e| (e.0, e.1, e.2)).collect::<Vec<_>>(), named);
}

mod convergence;

/// Prints costs; asserts only that the entries are there.
#[test]
fn cost_of_a_get_and_of_an_apply_is_printed() {
    let (_dir, live) = live();
    live.apply(Lsn(16), Time(1), &junction_added()).unwrap();
    let count: u64 = 20_000;
    let begun = std::time::Instant::now();
    for n in 0..count {
        live.apply(Lsn(100 * (n + 1)), Time(9), &make(1, &format!("f{n}"), n + 2, What::File)).unwrap();
    }
    let apply = begun.elapsed() / 20_000;
    let get = |what: &str| {
        let begun = std::time::Instant::now();
        for n in 0..count {
            assert!(live.entry(ROOT, format!("f{}", n * 7919 % count).as_bytes()).unwrap().is_some());
        }
        eprintln!("entry {what}: {:?}", begun.elapsed() / 20_000);
    };
    eprintln!("apply of a Make: {apply:?}");
    get("in the overlay");
    let begun = std::time::Instant::now();
    live.store.commit(Lsn(3)).unwrap();
    eprintln!("commit of {count} makes: {:?}", begun.elapsed());
    get("in redb");
}

/// LSNs are given out again behind a cut; what the index has of the cut part must not count as younger than what comes.
#[test]
fn what_comes_behind_a_cut_is_later_than_all_that_was_cut() {
    let (dir, live) = live();
    let apply =
        |live: &Live, lsn: u64, event: &Event| live.apply(Lsn(lsn), Time(i64::try_from(lsn).unwrap()), event).unwrap();
    apply(&live, 100, &junction_added());
    apply(&live, 200, &make(1, "kept", 2, What::File));
    // What will have been cut.
    for n in 0..20 {
        apply(&live, 1000 + 100 * n, &make(1, &format!("cut{n}"), 10 + n, What::File));
    }
    apply(&live, 3000, &write(2));
    live.store.commit(Lsn(3100)).unwrap();
    live.note_cut(Lsn(1000)).unwrap();
    assert_eq!((live.order(Lsn(999)).unwrap(), live.order(Lsn(1000)).unwrap()), (Lsn(999), Lsn(3001)));
    assert_eq!(live.store.lsn(), Lsn(1000));
    live.note_cut(Lsn(1000)).unwrap();
    assert_eq!(live.order(Lsn(1000)).unwrap(), Lsn(3001), "a start that died before it said that it has begun");
    drop(live);
    let live = Live::new(Arc::new(Store::open(&dir.path().join("s"), 4 << 20).unwrap()));
    apply(&live, 1000, &remove(1, "cut19", 29, Kind::File, true));
    apply(&live, 1100, &write(2));
    apply(&live, 1200, &make(1, "new", 40, What::File));
    assert_eq!(live.entry(ROOT, b"cut19").unwrap(), None);
    assert_eq!(live.node(NodeId(2)).unwrap().unwrap().mtime, Time(1100));
    let names: Vec<_> = live.list(ROOT, 0, 100).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!((names.len(), names.last().unwrap().as_slice()), (21, b"new".as_slice()));
    // Cut once more, before the first cut: what came behind that is older than what comes now.
    live.store.commit(Lsn(1300)).unwrap();
    live.note_cut(Lsn(300)).unwrap();
    apply(&live, 300, &remove(1, "new", 40, Kind::File, true));
    apply(&live, 1000, &make(1, "newest", 41, What::File));
    assert_eq!(live.entry(ROOT, b"new").unwrap(), None);
    assert_eq!(live.list(ROOT, 0, 100).unwrap().last().unwrap().name, b"newest");
}
