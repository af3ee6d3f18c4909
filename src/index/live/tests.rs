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
fn directories_in_a_circle_are_an_error_and_not_a_hang() {
    let (_dir, live) = live();
    apply_all(&live, [make(2, "x", 3, What::Dir), make(3, "y", 2, What::Dir)]);
    assert!(matches!(live.path(NodeId(2)), Err(Error::Corrupt { .. })));
}

#[test]
fn values_that_do_not_decode_are_errors() {
    let (_dir, live) = live();
    apply_all(&live, [junction_added(), make(1, "a", 2, What::File)]);
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

mod convergence {
    use super::*;
    use crate::index::store::tests::Dice;

    /// What a volume would allow: a tree that hands out legal events.
    #[derive(Default)]
    struct World {
        names: BTreeMap<(u64, String), u64>,
        kinds: BTreeMap<u64, Kind>,
        next: u64,
    }

    impl World {
        fn new() -> Self {
            World { names: BTreeMap::new(), kinds: BTreeMap::from([(1, Kind::Dir)]), next: 2 }
        }

        fn pick<T: Clone>(dice: &mut Dice, from: impl Iterator<Item = T>) -> Option<T> {
            let all: Vec<T> = from.collect();
            let n = all.len();
            (n > 0).then(|| all[usize::try_from(dice.below(n as u64)).unwrap()].clone())
        }

        fn a_dir(&self, dice: &mut Dice) -> u64 {
            Self::pick(dice, self.kinds.iter().filter(|(_, kind)| **kind == Kind::Dir).map(|(node, _)| *node)).unwrap()
        }

        fn a_name(&self, dice: &mut Dice) -> Option<((u64, String), u64)> {
            Self::pick(dice, self.names.iter().map(|(at, node)| (at.clone(), *node)))
        }

        fn links(&self, node: u64) -> usize {
            self.names.values().filter(|other| **other == node).count()
        }

        fn is_empty(&self, dir: u64) -> bool {
            !self.names.keys().any(|(parent, _)| *parent == dir)
        }

        fn is_within(&self, mut node: u64, dir: u64) -> bool {
            while node != dir {
                let Some(((parent, _), _)) = self.names.iter().find(|(_, other)| **other == node) else { return false };
                node = *parent;
            }
            true
        }

        fn take_name(&mut self, at: &(u64, String)) -> (u64, Kind, bool) {
            let node = self.names.remove(at).unwrap();
            let (kind, last) = (self.kinds[&node], self.links(node) == 0);
            if last {
                self.kinds.remove(&node);
            }
            (node, kind, last)
        }

        /// A legal event, already carried out in this world; `None` when the dice asked for something illegal.
        fn event(&mut self, dice: &mut Dice) -> Option<Event> {
            let name = ["a", "b", "c", "d"][usize::try_from(dice.below(4)).unwrap()].to_string();
            match dice.below(12) {
                0..=2 => {
                    let dir = self.a_dir(dice);
                    if self.names.contains_key(&(dir, name.clone())) {
                        return None;
                    }
                    let (node, what) = (self.next, if dice.below(3) == 0 { What::Dir } else { What::File });
                    self.next += 1;
                    self.kinds.insert(node, what.kind());
                    self.names.insert((dir, name.clone()), node);
                    Some(make(dir, &name, node, what))
                }
                3 | 4 => {
                    let (at, node) = self.a_name(dice)?;
                    if !self.is_empty(node) {
                        return None;
                    }
                    let (node, kind, last) = self.take_name(&at);
                    Some(remove(at.0, &at.1, node, kind, last))
                }
                5 | 6 => self.rename(dice, name),
                7 => {
                    let (_, node) = self.a_name(dice)?;
                    let dir = self.a_dir(dice);
                    if self.kinds[&node] != Kind::File || self.names.contains_key(&(dir, name.clone())) {
                        return None;
                    }
                    self.names.insert((dir, name.clone()), node);
                    Some(link(node, dir, &name))
                }
                8 | 9 => {
                    let (_, node) = self.a_name(dice)?;
                    (self.kinds[&node] == Kind::File).then(|| write(node))
                }
                10 => {
                    let node = Self::pick(dice, self.kinds.keys().copied())?;
                    let mtime = (dice.below(2) == 0).then(|| i64::try_from(dice.below(40_000)).unwrap());
                    Some(set_attr(node, mtime, (dice.below(2) == 0).then_some(3)))
                }
                _ => self.adopt(dice),
            }
        }

        fn rename(&mut self, dice: &mut Dice, name: String) -> Option<Event> {
            let (from, node) = self.a_name(dice)?;
            let to = (self.a_dir(dice), name);
            let kind = self.kinds[&node];
            let there = self.names.get(&to).copied();
            let clash = there.is_some_and(|there| {
                there == node || (self.kinds[&there] == Kind::Dir) != (kind == Kind::Dir) || !self.is_empty(there)
            });
            if from == to || clash || (kind == Kind::Dir && self.is_within(to.0, node)) {
                return None;
            }
            let replaced = there.map(|_| {
                let (node, kind, last) = self.take_name(&to);
                Replaced { node: NodeId(node), kind, last }
            });
            self.names.remove(&from);
            self.names.insert(to.clone(), node);
            Some(rename((from.0, &from.1), (to.0, &to.1), node, kind, replaced))
        }

        /// Some names of the directory, known ones and new ones.
        fn adopt(&mut self, dice: &mut Dice) -> Option<Event> {
            let dir = self.a_dir(dice);
            let mut page = Vec::new();
            for name in ["a", "b", "x", "y"] {
                if dice.below(2) == 0 {
                    continue;
                }
                let known = self.names.get(&(dir, name.to_string())).copied();
                let node = known.unwrap_or_else(|| {
                    self.next += 1;
                    self.next - 1
                });
                self.names.insert((dir, name.to_string()), node);
                let kind = *self.kinds.entry(node).or_insert(Kind::File);
                page.push((name, node, kind));
            }
            Some(adopt(dir, &page, dice.below(2) == 0))
        }
    }

    fn history(dice: &mut Dice, len: usize) -> Vec<Record> {
        let mut world = World::new();
        let mut records = vec![(Lsn(64), Time(64), junction_added())];
        let (mut lsn, mut time) = (64, 64);
        while records.len() < len {
            if let Some(event) = world.event(dice) {
                lsn += 64 + 16 * dice.below(8);
                // Records may share a time; it never goes back.
                time += i64::try_from(dice.below(3)).unwrap() * 20;
                records.push((Lsn(lsn), Time(time), event));
            }
        }
        records
    }

    /// Locks of an operation: what, and whether it is shared.
    fn locks(event: &Event) -> Vec<((u64, Option<Vec<u8>>), bool)> {
        let name = |dir: NodeId, name: &Vec<u8>| [((dir.0, Some(name.clone())), false), ((dir.0, None), true)];
        let own = |node: NodeId| ((node.0, None), false);
        match event {
            Event::Write(e) => vec![((e.node.0, None), true)],
            Event::SetAttr(e) => vec![own(e.node)],
            Event::Make(e) => [name(e.dir, &e.name).as_slice(), &[own(e.node)]].concat(),
            Event::Remove(e) => [name(e.dir, &e.name).as_slice(), &[own(e.node)]].concat(),
            Event::Link(e) => [name(e.dir, &e.name).as_slice(), &[own(e.node)]].concat(),
            Event::Rename(e) => {
                let ends = [name(e.from_dir, &e.from_name), name(e.to_dir, &e.to_name)].concat();
                let nodes = e.replaced.iter().map(|replaced| own(replaced.node)).chain([own(e.node)]);
                ends.into_iter().chain(nodes).collect()
            }
            Event::Adopt(e) => {
                let nodes = e.entries.iter().map(|entry| own(entry.node));
                nodes.chain([own(e.dir)]).collect()
            }
            _ => vec![own(ROOT)],
        }
    }

    fn exclude(a: &Event, b: &Event) -> bool {
        let (a, b) = (locks(a), locks(b));
        a.iter().any(|(x, shared_x)| b.iter().any(|(y, shared_y)| x == y && !(*shared_x && *shared_y)))
    }

    fn fold_all<'a>(live: &Live, records: impl IntoIterator<Item = &'a Record>) {
        for (lsn, time, event) in records {
            live.apply(*lsn, *time, event).unwrap();
        }
    }

    /// As clients would: any order that the locks allow, and some are not done yet.
    fn run_ahead(live: &Live, records: &[Record], dice: &mut Dice) {
        let mut waiting: Vec<&Record> = records.iter().collect();
        for _ in 0..records.len() * 3 / 4 {
            let at = usize::try_from(dice.below(waiting.len() as u64).min(dice.below(12))).unwrap();
            if !waiting[..at].iter().any(|earlier| exclude(&earlier.2, &waiting[at].2)) {
                let (lsn, time, event) = waiting.remove(at);
                live.apply(*lsn, *time, event).unwrap();
            }
        }
    }

    #[test]
    fn folding_suffixes_again_over_a_state_that_is_ahead_comes_to_the_same_bytes() {
        for seed in 1..=60 {
            let mut dice = Dice(seed);
            let records = history(&mut dice, 120);
            let (_dir, once) = live();
            fold_all(&once, &records);
            check_bijection(&once);

            let (_dir, live) = live();
            let mut settled = 0;
            // Crash after crash, each at a later commit; recovery itself may die half way.
            while settled < records.len() {
                run_ahead(&live, &records[settled..], &mut dice);
                check_bijection(&live);
                let upto = settled + usize::try_from(dice.below((records.len() - settled) as u64 + 1)).unwrap();
                fold_all(&live, &records[settled..upto]);
                if dice.below(2) == 0 {
                    fold_all(&live, &records[settled..]);
                    fold_all(&live, &records[settled..upto]);
                }
                fold_all(&live, &records[settled..]);
                assert_eq!(bytes(&live), bytes(&once), "seed {seed}, suffix from {settled}");
                settled += 1 + usize::try_from(dice.below(60)).unwrap();
            }
        }
    }

    #[test]
    fn what_clients_do_in_any_order_that_the_locks_allow_ends_as_in_the_order_of_the_journal() {
        for seed in 100..=160 {
            let mut dice = Dice(seed);
            let records = history(&mut dice, 100);
            let ((_a, once), (_b, live)) = (live(), live());
            fold_all(&once, &records);
            let mut waiting: Vec<&Record> = records.iter().collect();
            while !waiting.is_empty() {
                let at = usize::try_from(dice.below(waiting.len() as u64).min(dice.below(12))).unwrap();
                if !waiting[..at].iter().any(|earlier| exclude(&earlier.2, &waiting[at].2)) {
                    fold_all(&live, [waiting.remove(at)]);
                }
            }
            assert_eq!(bytes(&live), bytes(&once), "seed {seed}");
        }
    }
}

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
