//! Against a model that knows bytes and nothing of ranges, by seeded chance; and case by case.

use super::*;
use crate::sim::rng::Rng;
use journal_format::ids::{JunctionId, NodeId};
use std::collections::BTreeMap;

const J: JunctionId = JunctionId(1);
const F: NodeId = NodeId(10);

/// Hosts 1 and 2 have one address, 3 and 4 the next.
fn host(number: u32) -> HostId {
    HostId { number, addr: [u8::try_from(number.div_ceil(2)).unwrap(); 16] }
}

fn owner(number: u32, svid: u32) -> Owner {
    Owner { host: host(number), svid, oh: format!("{svid}@{number}").into_bytes().into() }
}

fn range(first: u64, last: u64) -> Range {
    Range { first, last }
}

fn ask(owner: &Owner, range: Range, exclusive: bool, wait: bool) -> Request<()> {
    Request { junction: J, node: F, owner: owner.clone(), range, exclusive, wait: wait.then_some(()) }
}

fn table() -> Table<()> {
    Table::new(Limits::default())
}

/// Bytes of the model's files; the last stands for all up to the end.
const BYTES: u64 = 24;

fn end(byte: u64) -> u64 {
    if byte == BYTES - 1 { u64::MAX } else { byte }
}

#[derive(Default)]
struct Model {
    /// Who has each byte of each file, and how.
    bytes: BTreeMap<(NodeId, u64), BTreeMap<Owner, bool>>,
    waiting: Vec<(NodeId, Held)>,
    offers: Vec<Offered>,
}

/// What was granted to one who waited, and how it had each of those bytes before.
struct Offered {
    node: NodeId,
    lock: Held,
    before: BTreeMap<u64, bool>,
}

impl Model {
    fn of(range: Range) -> impl Iterator<Item = u64> {
        range.first..=range.last.min(BYTES - 1)
    }

    fn free(&self, node: NodeId, lock: &Held) -> bool {
        Self::of(lock.range).all(|byte| {
            let on = self.bytes.get(&(node, byte));
            on.is_none_or(|on| on.iter().all(|(who, how)| *who == lock.owner || (!*how && !lock.exclusive)))
        })
    }

    fn paint(&mut self, node: NodeId, owner: &Owner, range: Range, kind: Option<bool>) {
        for byte in Self::of(range) {
            let on = self.bytes.entry((node, byte)).or_default();
            match kind {
                Some(exclusive) => on.insert(owner.clone(), exclusive),
                None => on.remove(owner),
            };
        }
    }

    fn how(&self, node: NodeId, byte: u64, owner: &Owner) -> Option<bool> {
        self.bytes.get(&(node, byte)).and_then(|on| on.get(owner)).copied()
    }

    /// The first of those who wait that can be granted, again and again.
    fn grants(&mut self) -> Vec<(NodeId, Held)> {
        let mut granted = Vec::new();
        let grantable = |model: &Self, (node, lock): &(NodeId, Held)| {
            let meets = |o: &Offered| o.node == *node && o.lock.owner == lock.owner && o.lock.range.meets(&lock.range);
            model.free(*node, lock) && !model.offers.iter().any(meets)
        };
        while let Some(at) = self.waiting.iter().position(|waiting| grantable(self, waiting)) {
            let (node, lock) = self.waiting.remove(at);
            let was = |byte| self.how(node, byte, &lock.owner).map(|how| (byte, how));
            let before = Self::of(lock.range).filter_map(was).collect();
            self.paint(node, &lock.owner, lock.range, Some(lock.exclusive));
            self.offers.push(Offered { node, lock: lock.clone(), before });
            granted.push((node, lock));
        }
        granted
    }

    /// The owner has asked about these bytes.
    fn known(&mut self, node: NodeId, owner: &Owner, range: Range) {
        self.offers.retain(|o| o.node != node || o.lock.owner != *owner || !o.lock.range.meets(&range));
    }

    /// What was offered goes, and what was there before comes back, as far as others leave room for it.
    fn take_back(&mut self, node: NodeId, lock: &Held) {
        let at = self.offers.iter().position(|o| o.node == node && o.lock == *lock).expect("open");
        let before = self.offers.remove(at).before;
        self.paint(node, &lock.owner, lock.range, None);
        // An exclusive run comes back as a whole, or shared.
        let mut runs: Vec<(Range, bool)> = Vec::new();
        for (byte, how) in before {
            match runs.last_mut() {
                Some((run, same)) if run.last + 1 == byte && *same == how => run.last = byte,
                _ => runs.push((range(byte, byte), how)),
            }
        }
        for (run, how) in runs {
            let held = Held { owner: lock.owner.clone(), range: run, exclusive: true };
            let alone = self.free(node, &held);
            self.paint(node, &lock.owner, run, Some(how && alone));
        }
    }

    /// The owner's locks on a file: its longest runs of one kind.
    fn runs(&self, node: NodeId, owner: &Owner) -> Vec<Held> {
        let mut runs: Vec<Held> = Vec::new();
        for byte in 0..BYTES {
            let Some(exclusive) = self.how(node, byte, owner) else { continue };
            match runs.last_mut() {
                Some(run) if run.range.last + 1 == byte && run.exclusive == exclusive => run.range.last = byte,
                _ => runs.push(Held { owner: owner.clone(), range: range(byte, byte), exclusive }),
            }
        }
        runs.iter_mut().for_each(|run| run.range.last = end(run.range.last));
        runs
    }
}

fn sorted(mut locks: Vec<(NodeId, Held)>) -> Vec<(NodeId, Held)> {
    locks.sort_by_key(|(node, held)| (*node, held.range, held.owner.clone()));
    locks
}

struct Pair {
    table: Table<()>,
    model: Model,
    owners: Vec<Owner>,
    nodes: Vec<NodeId>,
    open: Vec<(u64, NodeId, Held)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Pair {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn granted(&mut self, grants: Vec<Grant<()>>) {
        let model = self.model.grants();
        // The table goes file by file; the order on each file is that of asking.
        for node in &self.nodes {
            let of = |all: &[(NodeId, Held)]| -> Vec<Held> {
                all.iter().filter(|(at, _)| at == node).map(|(_, held)| held.clone()).collect()
            };
            let table: Vec<(NodeId, Held)> = grants.iter().map(|g| (g.node, g.lock.clone())).collect();
            assert_eq!(of(&table), of(&model), "who waited and is granted, in order");
        }
        for grant in grants {
            self.count("granted later");
            self.open.push((grant.offer, grant.node, grant.lock));
        }
    }

    fn lock(&mut self, node: NodeId, lock: Held, wait: bool) {
        let (owner, exclusive) = (lock.owner.clone(), lock.exclusive);
        let request = Request { junction: J, node, owner, range: lock.range, exclusive, wait: wait.then_some(()) };
        let (outcome, grants) = self.table.lock(request);
        let free = self.model.free(node, &lock);
        match outcome {
            Outcome::Granted => {
                assert!(free, "{lock:?}");
                self.model.waiting.retain(|waiting| *waiting != (node, lock.clone()));
                self.model.known(node, &lock.owner, lock.range);
                self.model.paint(node, &lock.owner, lock.range, Some(lock.exclusive));
                self.count("granted");
            }
            Outcome::Blocked => {
                assert!(!free && wait);
                if !self.model.waiting.contains(&(node, lock.clone())) {
                    self.model.waiting.push((node, lock));
                }
                self.count("blocked");
            }
            Outcome::Denied(by) => {
                assert!(!free && !wait && by.range.meets(&lock.range) && by.owner != lock.owner);
                self.count("denied");
            }
            Outcome::Deadlock(_) => {
                assert!(!free && wait);
                self.count("deadlock");
            }
            Outcome::NoLocks => panic!("there is room"),
        }
        self.granted(grants);
    }

    fn step(&mut self, rng: &mut Rng) {
        let owner = self.owners[rng.index(self.owners.len())].clone();
        let node = self.nodes[rng.index(self.nodes.len())];
        let first = rng.below(BYTES);
        let last = (first + rng.below(8)).min(BYTES - 1);
        let lock = Held { owner: owner.clone(), range: range(first, end(last)), exclusive: rng.percent(50) };
        match rng.below(100) {
            0..=44 => self.lock(node, lock, rng.percent(50)),
            45..=84 => {
                let grants = self.table.unlock(node, &owner, lock.range).expect("there is room");
                self.model.known(node, &owner, lock.range);
                self.model.paint(node, &owner, lock.range, None);
                self.granted(grants);
            }
            85..=91 => {
                let Some((node, lock)) = self.model.waiting.get(rng.index(self.model.waiting.len())).cloned() else {
                    return;
                };
                let (was, grants) = self.table.cancel(node, &lock);
                assert!(was && grants.is_empty());
                self.model.waiting.retain(|waiting| *waiting != (node, lock.clone()));
                self.count("cancelled");
            }
            92..=97 => {
                if self.open.is_empty() {
                    return;
                }
                let (offer, node, lock) = self.open.swap_remove(rng.index(self.open.len()));
                let open = self.table.is_open(offer);
                if rng.percent(50) {
                    let grants = self.table.confirm(offer);
                    self.model.offers.retain(|o| !open || o.node != node || o.lock != lock);
                    self.granted(grants);
                } else if open {
                    let grants = self.table.take_back(offer);
                    let had =
                        self.model.offers.iter().any(|o| o.node == node && o.lock == lock && !o.before.is_empty());
                    self.model.take_back(node, &lock);
                    self.granted(grants);
                    self.count(if had { "taken back to what was held" } else { "taken back" });
                }
            }
            _ => {
                let grants = self.table.free_host(owner.host);
                self.model.bytes.values_mut().for_each(|on| on.retain(|who, _| who.host != owner.host));
                self.model.waiting.retain(|(_, lock)| lock.owner.host != owner.host);
                self.model.offers.retain(|o| o.lock.owner.host != owner.host);
                self.granted(grants);
                self.count("freed");
            }
        }
    }

    fn compare(&self) {
        self.table.check();
        for node in &self.nodes {
            let table = self.table.held(*node).iter().map(|held| (*node, held.clone())).collect();
            let model = self.owners.iter().flat_map(|o| self.model.runs(*node, o)).map(|held| (*node, held)).collect();
            assert_eq!(sorted(table), sorted(model));
        }
        assert_eq!(self.table.totals().1, self.model.waiting.len());
        let open: Vec<_> = self.open.iter().filter(|(offer, _, _)| self.table.is_open(*offer)).collect();
        assert_eq!(open.len(), self.model.offers.len());
        for o in &self.model.offers {
            assert!(open.iter().any(|(_, node, lock)| *node == o.node && *lock == o.lock), "{:?}", o.lock);
        }
    }
}

#[test]
fn it_says_what_a_model_of_single_bytes_says() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let owners = (0..3).flat_map(|host| (1..=2).map(move |svid| owner(host, svid))).collect();
        let nodes = vec![NodeId(1), NodeId(2)];
        let (model, open) = (Model::default(), Vec::new());
        let mut pair = Pair { table: table(), model, owners, nodes, open, counts: BTreeMap::new() };
        for step in 0..200 {
            pair.step(&mut rng);
            let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.compare()));
            assert!(compared.is_ok(), "seed {seed}, step {step}");
        }
        pair.counts.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
    }
    println!("{counts:?}");
    for (what, least) in [
        ("granted", 5000),
        ("granted later", 500),
        ("blocked", 1000),
        ("denied", 1000),
        ("deadlock", 100),
        ("cancelled", 300),
        ("taken back", 100),
        ("taken back to what was held", 30),
        ("freed", 500),
    ] {
        assert!(counts.get(what).copied().unwrap_or(0) >= least, "only {:?} {what}", counts.get(what));
    }
}

#[test]
fn lengths_are_as_nlm_has_them() {
    assert_eq!(Range::new(5, 0), Some(range(5, u64::MAX)));
    assert_eq!(Range::new(5, 3), Some(range(5, 7)));
    assert_eq!(Range::new(u64::MAX, 1), Some(range(u64::MAX, u64::MAX)));
    assert_eq!(Range::new(u64::MAX, 2), None);
    for (offset, len) in [(0, 0), (0, 1), (7, 100), (1 << 62, 0)] {
        assert_eq!(Range::new(offset, len).unwrap().length(), len);
    }
}

#[test]
fn who_waits_is_granted_in_the_order_of_asking_and_one_who_asks_again_keeps_its_place() {
    let (a, b, c, d) = (owner(1, 1), owner(2, 1), owner(3, 1), owner(4, 1));
    let mut t = table();
    assert_eq!(t.lock(ask(&a, range(0, 9), true, false)).0, Outcome::Granted);
    for who in [&b, &c, &d, &b] {
        assert_eq!(t.lock(ask(who, range(0, 9), true, true)).0, Outcome::Blocked);
    }
    assert_eq!(t.totals(), (1, 3));
    let grants = t.unlock(F, &a, range(0, u64::MAX)).unwrap();
    assert_eq!(grants.iter().map(|g| &g.lock.owner).collect::<Vec<_>>(), [&b]);
    // It does not want it any more: the next one has it.
    let grants = t.take_back(grants[0].offer);
    assert_eq!(grants.iter().map(|g| &g.lock.owner).collect::<Vec<_>>(), [&c]);
    // It asks by itself, and so knows: nothing takes it back any more.
    assert_eq!(t.lock(ask(&c, range(0, 9), true, true)).0, Outcome::Granted);
    assert!(t.take_back(grants[0].offer).is_empty());
    assert_eq!(t.held(F).len(), 1);
    t.check();
}

#[test]
fn readers_come_in_together_and_a_downgrade_lets_them_in() {
    let (a, b, c) = (owner(1, 1), owner(2, 1), owner(3, 1));
    let mut t = table();
    t.lock(ask(&a, range(0, 9), true, false));
    t.lock(ask(&b, range(0, 3), false, true));
    t.lock(ask(&c, range(2, 5), false, true));
    let (outcome, grants) = t.lock(ask(&a, range(0, 9), false, false));
    assert_eq!((outcome, grants.len()), (Outcome::Granted, 2));
}

#[test]
fn two_who_wait_for_each_other_are_told() {
    let (a, b, c) = (owner(1, 1), owner(2, 1), owner(3, 1));
    let mut t = table();
    for (who, at) in [(&a, 0), (&b, 1), (&c, 2)] {
        assert_eq!(t.lock(ask(who, range(at, at), true, false)).0, Outcome::Granted);
    }
    assert_eq!(t.lock(ask(&a, range(1, 1), true, true)).0, Outcome::Blocked);
    assert_eq!(t.lock(ask(&b, range(2, 2), true, true)).0, Outcome::Blocked);
    assert!(matches!(t.lock(ask(&c, range(0, 0), true, true)).0, Outcome::Deadlock(_)));
    // Not one who only asks.
    assert!(matches!(t.lock(ask(&c, range(0, 0), true, false)).0, Outcome::Denied(_)));
}

#[test]
fn at_each_bound_it_is_no_locks_and_nothing_has_changed() {
    let limits =
        Limits { held_per_host: 3, held: 5, waiting_per_file: 2, waiting_per_host: 1, waiting: 3, ..Limits::default() };
    let mut t: Table<()> = Table::new(limits);
    let (a, b, c, d) = (owner(1, 1), owner(2, 1), owner(3, 1), owner(4, 1));
    let single = |t: &mut Table<()>, who: &Owner, at| t.lock(ask(who, range(at, at), true, false)).0;
    for at in [0, 2, 4] {
        assert_eq!(single(&mut t, &a, at), Outcome::Granted);
    }
    assert_eq!(single(&mut t, &a, 6), Outcome::NoLocks, "of one host");
    assert_eq!(single(&mut t, &a, 1), Outcome::Granted, "which makes one of three");
    assert_eq!(single(&mut t, &a, 6), Outcome::Granted);
    assert_eq!(single(&mut t, &a, 8), Outcome::NoLocks);
    assert_eq!(t.totals().0, 3);
    // To cut one in two takes one more.
    assert_eq!(t.unlock(F, &a, range(1, 1)), None);
    assert_eq!(t.test(F, &b, range(1, 1), false).map(|held| held.owner), Some(a.clone()));
    assert_eq!(single(&mut t, &b, 20), Outcome::Granted);
    assert_eq!(single(&mut t, &b, 30), Outcome::Granted);
    assert_eq!(single(&mut t, &c, 40), Outcome::NoLocks, "in all");
    let wait = |t: &mut Table<()>, who: &Owner, at| t.lock(ask(who, range(at, at), true, true)).0;
    assert_eq!(wait(&mut t, &b, 0), Outcome::Blocked);
    assert_eq!(wait(&mut t, &b, 2), Outcome::NoLocks, "of one host");
    assert_eq!(wait(&mut t, &c, 2), Outcome::Blocked);
    assert_eq!(wait(&mut t, &d, 2), Outcome::NoLocks, "on one file");
    assert_eq!(t.totals(), (5, 2));
    // Whose lock has no room waits on, and may ask again.
    let whole = Share { owner: d.clone(), mode: 1, access: 1 };
    assert_eq!(t.share(J, NodeId(11), whole), Outcome::NoLocks);
}

#[test]
fn rights_that_are_reserved_keep_others_out() {
    let (a, b) = (owner(1, 0), owner(2, 0));
    let mut t = table();
    let share = |owner: &Owner, mode, access| Share { owner: owner.clone(), mode, access };
    assert_eq!(t.share(J, F, share(&a, 2, 1)), Outcome::Granted);
    assert!(matches!(t.share(J, F, share(&b, 0, 2)), Outcome::Denied(_)), "what is denied");
    assert!(matches!(t.share(J, F, share(&b, 1, 0)), Outcome::Denied(_)), "to deny what is had");
    assert_eq!(t.share(J, F, share(&b, 0, 1)), Outcome::Granted);
    t.unshare(F, &a);
    assert_eq!(t.share(J, F, share(&b, 0, 3)), Outcome::Granted);
    assert_eq!(t.totals().0, 1);
    t.free_host(host(2));
    assert_eq!(t.totals(), (0, 0));
    t.check();
}

#[test]
fn what_is_held_in_a_junction_that_is_no_more_goes() {
    let (a, b) = (owner(1, 1), owner(2, 1));
    let mut t = table();
    let other = Request { junction: JunctionId(2), node: NodeId(11), ..ask(&a, range(0, 0), true, false) };
    t.lock(other);
    t.lock(ask(&a, range(0, 0), true, false));
    t.lock(ask(&b, range(0, 0), true, true));
    let users = t.users();
    assert_eq!(users.iter().copied().collect::<Vec<_>>(), [(J, host(1)), (J, host(2)), (JunctionId(2), host(1))]);
    let gone = users.into_iter().filter(|(junction, _)| *junction == J).collect();
    assert!(t.free_users(&gone).is_empty(), "who waited there has nothing to wait for");
    assert_eq!(t.totals(), (1, 0));
    t.check();
}

#[test]
fn an_offer_that_is_taken_back_leaves_what_was_held_before() {
    let (a, b, c) = (owner(1, 1), owner(2, 1), owner(3, 1));
    let shares = |from, to, exclusive| Held { owner: a.clone(), range: range(from, to), exclusive };
    // From shared to exclusive and back.
    let mut t = table();
    t.lock(ask(&a, range(0, 9), false, false));
    t.lock(ask(&b, range(5, 5), false, false));
    assert_eq!(t.lock(ask(&a, range(3, 12), true, true)).0, Outcome::Blocked);
    let grants = t.unlock(F, &b, range(0, u64::MAX)).unwrap();
    assert_eq!(t.lock(ask(&c, range(11, 11), true, true)).0, Outcome::Blocked);
    let next = t.take_back(grants[0].offer);
    assert_eq!(next.len(), 1, "what it did not hold before goes to who waits");
    assert!(t.held(F).contains(&shares(0, 9, false)), "{:?}", t.held(F));
    t.check();
    // From exclusive to shared: exclusive again only where nobody else came in.
    let mut t = table();
    t.lock(ask(&a, range(0, 1), true, false));
    t.lock(ask(&a, range(4, 5), true, false));
    t.lock(ask(&b, range(9, 9), true, false));
    assert_eq!(t.lock(ask(&a, range(0, 9), false, true)).0, Outcome::Blocked);
    let grants = t.unlock(F, &b, range(0, u64::MAX)).unwrap();
    assert_eq!(t.lock(ask(&c, range(5, 5), false, false)).0, Outcome::Granted);
    t.take_back(grants[0].offer);
    let own: Vec<_> = t.held(F).iter().filter(|held| held.owner == a).cloned().collect();
    assert_eq!(own, [shares(0, 1, true), shares(4, 5, false)]);
    t.check();
}

#[test]
fn one_who_waits_twice_is_offered_the_second_when_the_first_is_known() {
    let (a, b) = (owner(1, 1), owner(2, 1));
    for confirmed in [true, false] {
        let mut t = table();
        t.lock(ask(&a, range(0, 9), true, false));
        t.lock(ask(&b, range(0, 5), true, true));
        t.lock(ask(&b, range(3, 9), true, true));
        let first = t.unlock(F, &a, range(0, u64::MAX)).unwrap();
        assert_eq!(first.len(), 1);
        let second = if confirmed { t.confirm(first[0].offer) } else { t.take_back(first[0].offer) };
        assert_eq!(second.len(), 1);
        let held = Held { owner: b.clone(), range: range(if confirmed { 0 } else { 3 }, 9), exclusive: true };
        assert_eq!(t.held(F), [held]);
        t.check();
    }
}

#[test]
fn an_address_and_a_file_have_so_many_locks_and_others_are_not_held_up() {
    let limits = Limits { held_per_addr: 3, held_per_file: 4, offers: 1, ..Limits::default() };
    let mut t: Table<()> = Table::new(limits);
    let (a, same_addr, b, c) = (owner(1, 1), owner(2, 1), owner(3, 1), owner(5, 1));
    let single = |t: &mut Table<()>, who: &Owner, at| t.lock(ask(who, range(at, at), true, false)).0;
    for (who, at) in [(&a, 0), (&a, 2), (&same_addr, 4)] {
        assert_eq!(single(&mut t, who, at), Outcome::Granted);
    }
    assert_eq!(single(&mut t, &same_addr, 6), Outcome::NoLocks, "of one address");
    assert_eq!(single(&mut t, &b, 8), Outcome::Granted);
    assert_eq!(single(&mut t, &b, 10), Outcome::NoLocks, "of one file");
    let elsewhere = Request { node: NodeId(11), ..ask(&b, range(10, 10), true, false) };
    assert_eq!(t.lock(elsewhere).0, Outcome::Granted);
    // Of two who may have their locks one is offered it; the other asks by itself.
    for (who, at) in [(&b, 0), (&c, 2)] {
        assert_eq!(t.lock(ask(who, range(at, at), true, true)).0, Outcome::Blocked);
    }
    assert_eq!(t.unlock(F, &a, range(0, 9)).unwrap().len(), 1);
    assert_eq!(t.lock(ask(&c, range(2, 2), true, true)).0, Outcome::Granted);
    t.check();
    t.free_host(host(1));
    t.free_host(host(2));
    t.check();
    assert_eq!(single(&mut t, &a, 20), Outcome::Granted);
}

#[test]
fn an_address_waits_for_so_much_whatever_it_calls_itself() {
    let limits = Limits { waiting_per_addr: 2, offers_per_addr: 1, ..Limits::default() };
    let mut table = Table::new(limits);
    let (holds, all) = (owner(9, 1), range(0, 9));
    assert_eq!(table.lock(ask(&holds, all, true, false)).0, Outcome::Granted);
    let named = |number: u32| Owner { host: HostId { number, addr: [7; 16] }, ..owner(number, 1) };
    for number in [1, 2] {
        assert_eq!(table.lock(ask(&named(number), all, false, true)).0, Outcome::Blocked);
    }
    assert_eq!(table.lock(ask(&named(3), all, false, true)).0, Outcome::NoLocks);
    assert_eq!(table.lock(ask(&owner(4, 1), all, false, true)).0, Outcome::Blocked, "another address");
    // Of what is offered, too: its second one asks for it by itself, and others' need not.
    let grants = table.unlock(F, &holds, all).unwrap();
    let told: Vec<u32> = grants.iter().map(|grant| grant.lock.owner.host.number).collect();
    assert_eq!(told, [1, 4]);
    assert_eq!(table.lock(ask(&named(2), all, false, true)).0, Outcome::Granted);
    table.check();
}

#[test]
fn a_call_looks_at_so_many_locks_for_those_who_wait() {
    let mut table = table();
    let (many, one) = (owner(1, 1), owner(2, 1));
    let last = 2 * 16_000;
    for byte in (0..last).step_by(2) {
        assert_eq!(table.lock(ask(&many, range(byte, byte), true, false)).0, Outcome::Granted);
    }
    assert_eq!(table.lock(ask(&one, range(last, last), true, false)).0, Outcome::Granted);
    let waits = |svid| owner(3, svid);
    // The first lock that they meet forbids it: they cost one look each.
    for svid in 10..20 {
        assert_eq!(table.lock(ask(&waits(svid), range(0, end(last)), true, true)).0, Outcome::Blocked);
    }
    for svid in 0..5 {
        assert_eq!(table.lock(ask(&waits(svid), range(last - 2, last), true, true)).0, Outcome::Blocked);
    }
    assert_eq!(table.lock(ask(&waits(5), range(last, last), true, true)).0, Outcome::Blocked);
    // Who holds nothing frees nothing, and nobody is looked at for it.
    assert_eq!(table.unlock(F, &owner(4, 1), range(0, end(last))), Some(Vec::new()));
    assert_eq!(table.unlock(F, &one, range(last, last)), Some(Vec::new()), "the five before it took all looks");
    assert_eq!(table.lock(ask(&waits(5), range(last, last), true, true)).0, Outcome::Granted);
    for svid in 0..5 {
        let (was, _) = table.cancel(F, &Held { owner: waits(svid), range: range(last - 2, last), exclusive: true });
        assert!(was);
    }
    assert_eq!(table.lock(ask(&waits(6), range(last, last), true, true)).0, Outcome::Blocked);
    let told = table.unlock(F, &waits(5), range(last, last)).unwrap();
    assert_eq!(told.len(), 1, "those who are refused at once take no looks");
}
