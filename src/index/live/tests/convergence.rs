//! Histories folded once, against histories folded in pieces, again and out of order.

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

/// A node, or a name in it; and whether it is locked shared.
type Lock = ((u64, Option<Vec<u8>>), bool);

fn locks(event: &Event) -> Vec<Lock> {
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

/// As redo does: many at once.
fn fold_in_parts(live: &Live, mut records: &[Record], dice: &mut Dice) {
    while !records.is_empty() {
        let (part, rest) = records.split_at(1 + usize::try_from(dice.below(records.len() as u64)).unwrap());
        live.apply_all(part).unwrap();
        records = rest;
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

        let (mut _dir, mut live) = super::live();
        let mut settled = 0;
        // Crash after crash, each at a later commit.
        while settled < records.len() {
            if dice.below(2) == 0 {
                // Ahead by what clients did; else also by all that the round before folded.
                (_dir, live) = super::live();
                fold_all(&live, &records[..settled]);
            }
            run_ahead(&live, &records[settled..], &mut dice);
            check_bijection(&live);
            // Recovery itself dies half way, with or without a commit there.
            let upto = settled + usize::try_from(dice.below((records.len() - settled) as u64 + 1)).unwrap();
            fold_all(&live, &records[settled..upto]);
            let from = if dice.below(2) == 0 { upto } else { settled };
            fold_in_parts(&live, &records[from..], &mut dice);
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
        fold_in_parts(&once, &records, &mut dice);
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
