//! The table. Files are scanned, not indexed: a file with thousands of locks is rare, and a look at each of them costs
//! microseconds. Where many are looked at for many, there is a bound ([`COMPARED_MAX`]).

use super::{Held, HostId, Limits, Owner, Range, Share};
use journal_format::ids::{JunctionId, NodeId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// A lock that is asked for. `note` is what the caller needs to tell one who waited.
#[derive(Clone, Debug)]
pub struct Request<T> {
    pub junction: JunctionId,
    pub node: NodeId,
    pub owner: Owner,
    pub range: Range,
    pub exclusive: bool,
    /// Wait for it, when it cannot be had now.
    pub wait: Option<T>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Granted,
    /// By this one.
    Denied(Held),
    /// It waits.
    Blocked,
    /// Waiting would never end: this one waits, perhaps through others, for the very owner who asks.
    Deadlock(Held),
    NoLocks,
}

/// Granted to one who waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<T> {
    pub offer: u64,
    pub node: NodeId,
    pub lock: Held,
    pub note: T,
}

#[derive(Debug)]
struct Waiting<T> {
    lock: Held,
    note: T,
}

#[derive(Debug)]
struct File<T> {
    junction: JunctionId,
    held: Vec<Held>,
    /// In the order of asking.
    waiting: Vec<Waiting<T>>,
    shares: Vec<Share>,
    /// By their numbers. The owner of each holds it.
    offers: BTreeMap<u64, Offer>,
}

impl<T> File<T> {
    /// Whoever forbids it.
    fn forbids(&self, owner: &Owner, range: &Range, exclusive: bool) -> Option<&Held> {
        self.held.iter().find(|held| conflicts(held, owner, range, exclusive))
    }

    fn idle(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty() && self.shares.is_empty()
    }
}

fn conflicts(held: &Held, owner: &Owner, range: &Range, exclusive: bool) -> bool {
    held.owner != *owner && (held.exclusive || exclusive) && held.range.meets(range)
}

/// The owner's locks when `range` has become of a kind, or free (`None`).
fn painted(held: &[Held], owner: &Owner, range: Range, kind: Option<bool>) -> Vec<Held> {
    let mut out = Vec::new();
    let mut whole = range;
    for lock in held.iter().filter(|lock| lock.owner == *owner) {
        if kind == Some(lock.exclusive) && lock.range.touches(&whole) {
            whole = Range { first: whole.first.min(lock.range.first), last: whole.last.max(lock.range.last) };
            continue;
        }
        if !lock.range.meets(&range) {
            out.push(lock.clone());
            continue;
        }
        if lock.range.first < range.first {
            out.push(Held { range: Range { last: range.first - 1, ..lock.range }, ..lock.clone() });
        }
        if lock.range.last > range.last {
            out.push(Held { range: Range { first: range.last + 1, ..lock.range }, ..lock.clone() });
        }
    }
    if let Some(exclusive) = kind {
        out.push(Held { owner: owner.clone(), range: whole, exclusive });
    }
    out
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    held: usize,
    waiting: usize,
    offers: usize,
}

/// Granted to who waited, not known to be known.
#[derive(Debug)]
struct Offer {
    lock: Held,
    /// What the owner held of these bytes before.
    before: Vec<Held>,
}

impl Offer {
    fn is_of(&self, owner: &Owner, range: &Range) -> bool {
        self.lock.owner == *owner && self.lock.range.meets(range)
    }
}

#[derive(Debug)]
pub struct Table<T> {
    limits: Limits,
    files: BTreeMap<NodeId, File<T>>,
    hosts: BTreeMap<HostId, Count>,
    /// Of the hosts of an address.
    addrs: BTreeMap<[u8; 16], Count>,
    all: Count,
    /// Which file an offer is of.
    offered: BTreeMap<u64, NodeId>,
    next_offer: u64,
}

/// An owner with more locks than so many in the bytes that it waits for is granted them only when it asks by itself: they
/// would have to be kept with the offer.
const BEFORE_MAX: usize = 64;
const WHOLE: Range = Range { first: 0, last: u64::MAX };
/// How far a chain of those who wait for one another is followed.
const CHAIN_MAX: usize = 256;
/// Of the order of what one file may hold, so that no call takes long.
const COMPARED_MAX: usize = 1 << 16;

impl<T: Clone> Table<T> {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            files: BTreeMap::new(),
            hosts: BTreeMap::new(),
            addrs: BTreeMap::new(),
            all: Count::default(),
            offered: BTreeMap::new(),
            next_offer: 1,
        }
    }

    /// Whoever forbids such a lock.
    #[must_use]
    pub fn test(&self, node: NodeId, owner: &Owner, range: Range, exclusive: bool) -> Option<Held> {
        self.files.get(&node)?.forbids(owner, &range, exclusive).cloned()
    }

    /// Lock, or wait. An owner who asks again for what it waits for keeps its place; one who asks for what it was granted
    /// meanwhile is granted it. A downgrade may let others in.
    pub fn lock(&mut self, request: Request<T>) -> (Outcome, Vec<Grant<T>>) {
        let Request { junction, node, owner, range, exclusive, wait } = request;
        let lock = Held { owner, range, exclusive };
        if let Some(by) = self.test(node, &lock.owner, range, exclusive) {
            return (self.wait(junction, node, lock, by, wait), Vec::new());
        }
        let Some(painted) = self.room_for(node, &lock.owner, range, Some(exclusive)) else {
            return (Outcome::NoLocks, Vec::new());
        };
        let touched = self.known(node, &lock.owner, &range);
        self.forget_waiting(node, &lock);
        self.put(junction, node, &lock.owner, painted);
        (Outcome::Granted, self.grants(node, touched))
    }

    fn wait(&mut self, junction: JunctionId, node: NodeId, lock: Held, by: Held, wait: Option<T>) -> Outcome {
        let Some(note) = wait else { return Outcome::Denied(by) };
        if self.waits_for(node, &lock) {
            return Outcome::Deadlock(by);
        }
        let host = lock.owner.host;
        let file = self.file(junction, node);
        if let Some(there) = file.waiting.iter_mut().find(|w| w.lock == lock) {
            there.note = note;
            return Outcome::Blocked;
        }
        let on_file = file.waiting.len();
        let (of_host, of_addr) = self.counts(host);
        let limits = &self.limits;
        if on_file >= limits.waiting_per_file
            || of_host.waiting >= limits.waiting_per_host
            || of_addr.waiting >= limits.waiting_per_addr
            || self.all.waiting >= limits.waiting
        {
            return Outcome::NoLocks;
        }
        self.file(junction, node).waiting.push(Waiting { lock, note });
        self.count(host, |count| count.waiting += 1);
        Outcome::Blocked
    }

    /// Whoever stands in the way of `lock` waits, perhaps through others, for its owner. A chain is followed to
    /// [`CHAIN_MAX`] owners, and until [`COMPARED_MAX`] locks have been looked at: others ask meanwhile.
    fn waits_for(&self, node: NodeId, lock: &Held) -> bool {
        if self.all.waiting == 0 {
            return false;
        }
        let compared = Cell::new(0);
        let mut waits: BTreeMap<&Owner, Vec<(&File<T>, &Held)>> = BTreeMap::new();
        for file in self.files.values() {
            for waiting in &file.waiting {
                waits.entry(&waiting.lock.owner).or_default().push((file, &waiting.lock));
            }
        }
        let blockers = |file: &File<T>, lock: &Held| -> Vec<Owner> {
            if compared.get() >= COMPARED_MAX {
                return Vec::new();
            }
            compared.set(compared.get() + file.held.len());
            let all = file.held.iter().filter(|held| conflicts(held, &lock.owner, &lock.range, lock.exclusive));
            all.take(CHAIN_MAX).map(|held| held.owner.clone()).collect()
        };
        let mut seen = BTreeSet::new();
        let mut next = self.files.get(&node).map_or(Vec::new(), |file| blockers(file, lock));
        while let Some(owner) = next.pop() {
            if owner == lock.owner {
                return true;
            }
            if seen.len() < CHAIN_MAX && !seen.contains(&owner) {
                let waits = waits.get(&owner).map_or(&[][..], Vec::as_slice);
                next.extend(waits.iter().flat_map(|(file, lock)| blockers(file, lock)));
                seen.insert(owner);
            }
        }
        false
    }

    /// Free a range. It may take one lock more, where it cuts one in two; `None`: there is no room for that.
    pub fn unlock(&mut self, node: NodeId, owner: &Owner, range: Range) -> Option<Vec<Grant<T>>> {
        let holds = |file: &&File<T>| file.held.iter().any(|held| held.owner == *owner && held.range.meets(&range));
        let Some(junction) = self.files.get(&node).filter(holds).map(|file| file.junction) else {
            return Some(Vec::new());
        };
        let painted = self.room_for(node, owner, range, None)?;
        let touched = self.known(node, owner, &range);
        self.put(junction, node, owner, painted);
        Some(self.grants(node, touched))
    }

    /// Do not wait any more. What was offered is taken back. False: neither was there.
    pub fn cancel(&mut self, node: NodeId, lock: &Held) -> (bool, Vec<Grant<T>>) {
        if self.forget_waiting(node, lock) {
            self.tidy(node);
            return (true, Vec::new());
        }
        let offers = self.files.get(&node).map(|file| &file.offers);
        let offered = offers.and_then(|offers| offers.iter().find(|(_, offer)| offer.lock == *lock).map(|(id, _)| *id));
        match offered {
            Some(offer) => (true, self.take_back(offer)),
            None => (false, Vec::new()),
        }
    }

    /// Its owner knows of it, and may be offered more.
    pub fn confirm(&mut self, offer: u64) -> Vec<Grant<T>> {
        let Some((node, Offer { lock, .. })) = self.close(offer) else { return Vec::new() };
        self.grants(node, lock.range)
    }

    /// Neither confirmed nor taken back yet.
    #[must_use]
    pub fn is_open(&self, offer: u64) -> bool {
        self.offered.contains_key(&offer)
    }

    /// Its owner does not want it, or is not there: it holds again what it held before. Nothing happens when the offer is
    /// known by now.
    pub fn take_back(&mut self, offer: u64) -> Vec<Grant<T>> {
        let Some((node, Offer { lock, before })) = self.close(offer) else { return Vec::new() };
        let Some(file) = self.files.get(&node) else { return Vec::new() };
        // Since then the owner has not touched these bytes, or the offer would be known: it holds all of them, as `lock`
        // says. So others hold them shared at most, and only where it does.
        let mut own = painted(&file.held, &lock.owner, lock.range, None);
        for was in before {
            let exclusive = was.exclusive && file.forbids(&was.owner, &was.range, true).is_none();
            own = painted(&own, &was.owner, was.range, Some(exclusive));
        }
        // These may be more locks than before: what is taken back must go, whatever the limit.
        let junction = file.junction;
        self.put(junction, node, &lock.owner, own);
        self.grants(node, lock.range)
    }

    /// Everything of a host goes.
    pub fn free_host(&mut self, host: HostId) -> Vec<Grant<T>> {
        self.free(|_, owner| owner.host == host)
    }

    /// Who holds something where, or waits for it.
    #[must_use]
    pub fn users(&self) -> BTreeSet<(JunctionId, HostId)> {
        let mut users = BTreeSet::new();
        for file in self.files.values() {
            let held = file.held.iter().map(|held| &held.owner);
            let waiting = file.waiting.iter().map(|waiting| &waiting.lock.owner);
            let shares = file.shares.iter().map(|share| &share.owner);
            users.extend(held.chain(waiting).chain(shares).map(|owner| (file.junction, owner.host)));
        }
        users
    }

    /// Everything of these hosts in these junctions goes.
    pub fn free_users(&mut self, users: &BTreeSet<(JunctionId, HostId)>) -> Vec<Grant<T>> {
        if users.is_empty() { Vec::new() } else { self.free(|junction, owner| users.contains(&(junction, owner.host))) }
    }

    fn free(&mut self, which: impl Fn(JunctionId, &Owner) -> bool) -> Vec<Grant<T>> {
        let mut touched = Vec::new();
        for (node, file) in &mut self.files {
            let junction = file.junction;
            let before = (file.held.len(), file.waiting.len(), file.shares.len());
            file.held.retain(|held| !which(junction, &held.owner));
            file.waiting.retain(|waiting| !which(junction, &waiting.lock.owner));
            file.shares.retain(|share| !which(junction, &share.owner));
            file.offers.retain(|_, offer| !which(junction, &offer.lock.owner));
            if before != (file.held.len(), file.waiting.len(), file.shares.len()) {
                touched.push(*node);
            }
        }
        let files = &self.files;
        self.offered.retain(|offer, node| files.get(node).is_some_and(|file| file.offers.contains_key(offer)));
        self.recount();
        touched.into_iter().flat_map(|node| self.grants(node, WHOLE)).collect()
    }

    /// Reserve rights, or change those that are reserved. `Err`: others', or no room.
    pub fn share(&mut self, junction: JunctionId, node: NodeId, share: Share) -> Outcome {
        let file = self.file(junction, node);
        let other = |s: &&Share| s.owner != share.owner && (s.mode & share.access != 0 || s.access & share.mode != 0);
        if let Some(by) = file.shares.iter().find(other) {
            let by = Held { owner: by.owner.clone(), range: WHOLE, exclusive: true };
            return Outcome::Denied(by);
        }
        if let Some(own) = file.shares.iter_mut().find(|s| s.owner == share.owner) {
            *own = share;
            return Outcome::Granted;
        }
        let host = share.owner.host;
        if !self.has_room(host, 1) {
            self.tidy(node);
            return Outcome::NoLocks;
        }
        self.count(host, |count| count.held += 1);
        self.file(junction, node).shares.push(share);
        Outcome::Granted
    }

    pub fn unshare(&mut self, node: NodeId, owner: &Owner) {
        let Some(file) = self.files.get_mut(&node) else { return };
        let before = file.shares.len();
        file.shares.retain(|share| share.owner != *owner);
        let gone = before - file.shares.len();
        self.count(owner.host, |count| count.held -= gone);
        self.tidy(node);
    }

    /// Locks and shares that are held, and how many wait.
    #[must_use]
    pub fn totals(&self) -> (usize, usize) {
        (self.all.held, self.all.waiting)
    }

    /// The host holds something or waits for something.
    #[must_use]
    pub fn is_used(&self, host: HostId) -> bool {
        self.hosts.contains_key(&host)
    }

    /// What is held of a file, for tests.
    #[must_use]
    pub fn held(&self, node: NodeId) -> &[Held] {
        self.files.get(&node).map_or(&[], |file| &file.held)
    }

    fn file(&mut self, junction: JunctionId, node: NodeId) -> &mut File<T> {
        let empty =
            || File { junction, held: Vec::new(), waiting: Vec::new(), shares: Vec::new(), offers: BTreeMap::new() };
        self.files.entry(node).or_insert_with(empty)
    }

    /// A file of which there is nothing to know is not kept.
    fn tidy(&mut self, node: NodeId) {
        if self.files.get(&node).is_some_and(File::idle) {
            self.files.remove(&node);
        }
    }

    fn has_room(&self, host: HostId, more: usize) -> bool {
        let (of_host, of_addr) = self.counts(host);
        of_host.held + more <= self.limits.held_per_host
            && of_addr.held + more <= self.limits.held_per_addr
            && self.all.held + more <= self.limits.held
    }

    /// The owner's locks as they would be, if there is room for them.
    fn room_for(&self, node: NodeId, owner: &Owner, range: Range, kind: Option<bool>) -> Option<Vec<Held>> {
        let held = self.files.get(&node).map_or(&[][..], |file| &file.held);
        let before = held.iter().filter(|lock| lock.owner == *owner).count();
        let painted = painted(held, owner, range, kind);
        let more = painted.len().saturating_sub(before);
        let on_file = held.len() + more <= self.limits.held_per_file;
        (more == 0 || (on_file && self.has_room(owner.host, more))).then_some(painted)
    }

    /// The owner's locks on a file become these.
    fn put(&mut self, junction: JunctionId, node: NodeId, owner: &Owner, locks: Vec<Held>) {
        let file = self.file(junction, node);
        let before = file.held.len();
        file.held.retain(|lock| lock.owner != *owner);
        let (gone, come) = (before - file.held.len(), locks.len());
        file.held.extend(locks);
        self.count(owner.host, |count| count.held = count.held + come - gone);
        self.tidy(node);
    }

    /// Of the host, and of its address.
    fn counts(&self, host: HostId) -> (Count, Count) {
        let of_host = self.hosts.get(&host).copied().unwrap_or_default();
        (of_host, self.addrs.get(&host.addr).copied().unwrap_or_default())
    }

    /// More or less of the host, of its address, and in all.
    fn count(&mut self, host: HostId, change: impl Fn(&mut Count)) {
        let of_host = self.hosts.entry(host).or_default();
        change(of_host);
        if *of_host == Count::default() {
            self.hosts.remove(&host);
        }
        let of_addr = self.addrs.entry(host.addr).or_default();
        change(of_addr);
        if *of_addr == Count::default() {
            self.addrs.remove(&host.addr);
        }
        change(&mut self.all);
    }

    /// The offer is none any more.
    fn close(&mut self, offer: u64) -> Option<(NodeId, Offer)> {
        let node = self.offered.remove(&offer)?;
        let offer = self.files.get_mut(&node)?.offers.remove(&offer)?;
        self.count(offer.lock.owner.host, |count| count.offers -= 1);
        Some((node, offer))
    }

    fn recount(&mut self) {
        self.files.retain(|_, file| !file.idle());
        (self.hosts, self.addrs, self.all) = self.counted();
    }

    fn counted(&self) -> (BTreeMap<HostId, Count>, BTreeMap<[u8; 16], Count>, Count) {
        let mut counted = (BTreeMap::new(), BTreeMap::new(), Count::default());
        let mut count = |host: HostId, change: fn(&mut Count)| {
            let (hosts, addrs, all) = &mut counted;
            change(hosts.entry(host).or_default());
            change(addrs.entry(host.addr).or_default());
            change(all);
        };
        for file in self.files.values() {
            let held = file.held.iter().map(|held| &held.owner).chain(file.shares.iter().map(|share| &share.owner));
            held.for_each(|owner| count(owner.host, |count| count.held += 1));
            file.waiting.iter().for_each(|waiting| count(waiting.lock.owner.host, |count| count.waiting += 1));
            file.offers.values().for_each(|offer| count(offer.lock.owner.host, |count| count.offers += 1));
        }
        counted
    }

    /// The owner has asked about these bytes since: of what was offered there it knows, or wants it no more. The bytes, and
    /// those of such offers.
    fn known(&mut self, node: NodeId, owner: &Owner, range: &Range) -> Range {
        let offers = self.files.get(&node).into_iter().flat_map(|file| &file.offers);
        let known: Vec<u64> = offers.filter(|(_, offer)| offer.is_of(owner, range)).map(|(id, _)| *id).collect();
        let closed = known.into_iter().filter_map(|offer| self.close(offer));
        closed.fold(*range, |touched, (_, offer)| touched.hull(&offer.lock.range))
    }

    fn forget_waiting(&mut self, node: NodeId, lock: &Held) -> bool {
        let Some(file) = self.files.get_mut(&node) else { return false };
        let Some(at) = file.waiting.iter().position(|waiting| waiting.lock == *lock) else { return false };
        file.waiting.remove(at);
        self.count(lock.owner.host, |count| count.waiting -= 1);
        true
    }

    /// Whoever waits for some of what was touched and can be granted now is, in order. One for whose lock there is no room
    /// waits on, and so do those who are not reached until [`COMPARED_MAX`] locks have been looked at: they are granted when
    /// they ask again by themselves.
    fn grants(&mut self, node: NodeId, mut touched: Range) -> Vec<Grant<T>> {
        let mut grants = Vec::new();
        let (mut at, mut compared) = (0, 0);
        while let Some(file) = self.files.get(&node)
            && let Some(Waiting { lock, .. }) = file.waiting.get(at)
            && compared < COMPARED_MAX
        {
            // Who waits is looked at, too, though it may have no part in what was touched.
            compared += 1;
            let Some((painted, before)) = lock
                .range
                .meets(&touched)
                .then(|| {
                    let first =
                        file.held.iter().position(|held| conflicts(held, &lock.owner, &lock.range, lock.exclusive));
                    compared += first.unwrap_or(file.held.len() + file.offers.len());
                    first.is_none().then(|| self.grantable(node, file, lock)).flatten()
                })
                .flatten()
            else {
                at += 1;
                continue;
            };
            let junction = file.junction;
            let Waiting { lock, note } = self.file(junction, node).waiting.remove(at);
            self.put(junction, node, &lock.owner, painted);
            self.count(lock.owner.host, |count| {
                count.waiting -= 1;
                count.offers += 1;
            });
            if !lock.exclusive && before.iter().any(|was| was.exclusive) {
                // It shares now what it had alone: one before it in the order may come in.
                (touched, at) = (touched.hull(&lock.range), 0);
            }
            let offer = self.next_offer;
            self.next_offer += 1;
            self.offered.insert(offer, node);
            self.file(junction, node).offers.insert(offer, Offer { lock: lock.clone(), before });
            grants.push(Grant { offer, node, lock, note });
        }
        self.tidy(node);
        grants
    }

    /// The owner's locks if one who waits is granted its lock now, and what it holds of those bytes.
    fn grantable(&self, node: NodeId, file: &File<T>, lock: &Held) -> Option<(Vec<Held>, Vec<Held>)> {
        let Held { owner, range, exclusive } = lock;
        if file.forbids(owner, range, *exclusive).is_some()
            || self.all.offers >= self.limits.offers
            || self.counts(owner.host).1.offers >= self.limits.offers_per_addr
            || file.offers.values().any(|offer| offer.is_of(owner, range))
        {
            return None;
        }
        let own = file.held.iter().filter(|held| held.owner == *owner);
        let before: Vec<Held> =
            own.filter_map(|held| held.range.both(range).map(|range| Held { range, ..held.clone() })).collect();
        let painted = self.room_for(node, owner, *range, Some(*exclusive))?;
        (before.len() <= BEFORE_MAX).then_some((painted, before))
    }

    /// What must hold, whatever was done.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!((self.hosts.clone(), self.addrs.clone(), self.all), self.counted());
        for (node, file) in &self.files {
            assert!(!file.idle(), "{node:?} is kept for nothing");
            for (at, lock) in file.held.iter().enumerate() {
                for other in &file.held[at + 1..] {
                    let compatible = !lock.range.meets(&other.range) || (!lock.exclusive && !other.exclusive);
                    assert!(compatible || lock.owner == other.owner, "{lock:?} beside {other:?}");
                    if lock.owner == other.owner {
                        assert!(!lock.range.meets(&other.range), "{lock:?} overlaps {other:?}");
                        assert!(lock.exclusive != other.exclusive || !lock.range.touches(&other.range), "{lock:?}");
                    }
                }
            }
            for waiting in &file.waiting {
                assert!(self.grantable(*node, file, &waiting.lock).is_none(), "{:?} waits for nothing", waiting.lock);
            }
        }
        let all: BTreeMap<u64, NodeId> =
            self.files.iter().flat_map(|(node, file)| file.offers.keys().map(|offer| (*offer, *node))).collect();
        assert_eq!(self.offered, all);
        for file in self.files.values() {
            for (id, Offer { lock, .. }) in &file.offers {
                let covers = |held: &&Held| held.range.both(&lock.range) == Some(lock.range);
                let own = file.held.iter().find(|held| held.owner == lock.owner && covers(held));
                assert_eq!(
                    own.map(|own| own.exclusive),
                    Some(lock.exclusive),
                    "an offer of what is not held: {lock:?}"
                );
                let meets = |(other, offer): (&u64, &Offer)| other != id && offer.is_of(&lock.owner, &lock.range);
                assert!(!file.offers.iter().any(meets), "two offers to one owner meet: {lock:?}");
            }
        }
    }
}
