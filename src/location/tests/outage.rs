//! A secondary that falls out of the journal's reach: its backlog becomes a dirty set, which is worked off while more
//! happens, with a filer that fails and a process that dies between any two calls. In the end both trees are the same.

use super::*;
use crate::location::dirty::{Dirty, plan::Step};

#[derive(Default)]
struct Seen {
    crashes: u32,
    outages: u32,
    steps: u32,
    ranges: u64,
}

impl World {
    fn dirty(&self) -> Dirty {
        Dirty { projection: self.projection.clone() }
    }

    /// Fold up to `to` into the dirty set instead of carrying it out.
    fn absorb(&mut self, to: usize, tried: bool) {
        let round = self.fold(self.committed, to, false);
        if to > self.committed {
            self.dirty().absorb(&round, Lsn(to as u64), tried, &self.done).unwrap();
        }
        self.position = to;
        self.commit(Vec::new());
    }

    async fn next(&self) -> filer::Result<Option<Step>> {
        let source = Source { location: self.source.clone(), live: self.live.clone() };
        self.dirty().next(&source).await
    }

    /// One bounded round of the set; whether there was one.
    async fn work_off(&mut self, seen: &mut Seen) -> filer::Result<bool> {
        self.dirty().will_try(Lsn(self.position as u64)).unwrap();
        self.commit(Vec::new());
        let Some(step) = self.next().await? else { return Ok(false) };
        let source = Source { location: self.source.clone(), live: self.live.clone() };
        let carried =
            carry_out(&self.dest, &self.projection, Some(&source), &step.round, &self.done, &self.recorded).await?;
        assert!(carried.failed.is_empty() && carried.ranges.is_empty(), "{:?}", carried.failed);
        put_times(&self.dest, &self.projection, &self.live, &step.round.times).await?;
        self.dest.filer.sync().await?;
        self.dirty().clear(&step, &BTreeSet::new()).unwrap();
        self.commit(Vec::new());
        seen.steps += 1;
        seen.ranges += step.round.bytes();
        Ok(true)
    }

    async fn listed_root(&mut self) {
        self.copy().await; // the order to list it
        self.copy().await; // its page
        self.round(self.journal.len(), false).await.unwrap();
        self.commit(Vec::new());
    }

    /// All since the last commit becomes a dirty set, of which a former life may have carried out anything.
    async fn works_off_what_was_tried(&mut self) {
        self.absorb(self.journal.len(), true);
        let mut seen = Seen::default();
        while self.work_off(&mut seen).await.unwrap() {}
        assert!(seen.steps > 2, "only {} steps", seen.steps);
        let touched: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        put_times(&self.source, self.live.as_ref(), &self.live, &touched).await.unwrap();
        assert_eq!(picture(&self.source).await, picture(&self.dest).await);
    }

    async fn outage(&mut self, faults: &Faults, crashes: bool, seen: &mut Seen) {
        seen.outages += 1;
        // What was under way when the filer stopped answering may have been carried out in part.
        let mut tried = false;
        let to = self.journal.len();
        if crashes {
            // As far as it came; what the journal has behind that is absorbed with it.
            let ahead = to - self.committed;
            let tried_to = self.committed + self.dice.roll(ahead as u64 + 1) as usize;
            faults.after(self.dice.roll(40));
            tried = self.round(tried_to, false).await.is_err() || self.position > self.committed;
            faults.off();
        }
        self.crash();
        self.absorb(to, tried);
        loop {
            for _ in 0..self.dice.roll(12) {
                self.operate().await;
            }
            if self.dice.roll(3) == 0 {
                self.copy().await;
            }
            let ahead = self.journal.len() - self.committed;
            let to = self.committed + self.dice.roll(ahead as u64 + 1) as usize;
            self.absorb(to, false);
            if crashes && self.dice.roll(2) == 0 {
                faults.after(self.dice.roll(60));
            }
            let mut more = Ok(true);
            for _ in 0..self.dice.roll(4) * 4 {
                more = self.work_off(seen).await;
                if !matches!(more, Ok(true)) {
                    break;
                }
            }
            faults.off();
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Down, "{error}");
                    seen.crashes += 1;
                    self.crash();
                }
            }
        }
        assert!(self.dirty().counts().unwrap().is_clean());
        let left = self.projection.store.scan(b"D", None, 100).unwrap();
        assert!(left.len() <= 2, "only the counts and the mark are left: {left:?}");
    }
}

async fn run_outages(
    seed: u64,
    crashes: bool,
    filers: fn() -> (Arc<dyn CoreFiler>, Arc<dyn CoreFiler>, Faults),
    seen: &mut Seen,
) {
    let (source, dest, faults) = filers();
    let mut world = World::new(seed, source, dest).await;
    for _ in 0..40 {
        world.operate().await;
    }
    for step in 0..60 {
        for _ in 0..world.dice.roll(4) {
            world.operate().await;
        }
        world.copy().await;
        let ahead = world.journal.len() - world.position;
        let to = world.position + world.dice.roll(ahead as u64 + 1) as usize;
        let carried = world.round(to, false).await.unwrap();
        world.commit(carried.ranges);
        if step % 12 == 11 {
            world.outage(&faults, crashes, seen).await;
        }
    }
    for _ in 0..60 {
        world.copy().await;
        let to = world.journal.len();
        let carried = world.round(to, false).await.unwrap();
        world.commit(carried.ranges);
    }
    let pending = world.projection.pending().unwrap();
    assert_eq!((pending.dirs, pending.files, pending.incomplete), (0, 0, 0), "seed {seed}");
    let touched: BTreeSet<NodeId> = world.nodes.keys().copied().collect();
    put_times(&world.source, world.live.as_ref(), &world.live, &touched).await.unwrap();
    let (a, b) = (picture(&world.source).await, picture(&world.dest).await);
    assert_eq!(a, b, "seed {seed}");
    let pen = world.dest.filer.pen().await.unwrap();
    assert_eq!(world.dest.filer.list(&pen, 0, 10).await.unwrap().names, Vec::<Vec<u8>>::new(), "seed {seed}");
}

#[tokio::test]
async fn a_secondary_whose_backlog_became_a_dirty_set_ends_equal() {
    let mut seen = Seen::default();
    for seed in 1..7 {
        run_outages(seed, false, found, &mut seen).await;
        run_outages(seed, false, walked, &mut seen).await;
    }
    println!("{} outages, {} steps, {} bytes renewed", seen.outages, seen.steps, seen.ranges);
    assert!(seen.outages >= 60 && seen.steps > 100 && seen.ranges > 1 << 20);
}

#[tokio::test]
async fn a_dirty_set_survives_a_filer_that_fails_and_a_process_that_dies_at_any_call() {
    let mut seen = Seen::default();
    for seed in 1..12 {
        run_outages(seed, true, found, &mut seen).await;
        run_outages(seed, true, walked, &mut seen).await;
    }
    println!("{} outages, {} crashes, {} steps", seen.outages, seen.crashes, seen.steps);
    assert!(seen.crashes > 30, "only {} crashes", seen.crashes);
}

/// A file was made, and nobody was told as which; then it was renamed, and many names became dirty between its two.
#[tokio::test]
async fn what_a_former_life_made_is_looked_for_under_each_of_its_names_before_it_is_made_anew() {
    let (source, dest, _) = found();
    let mut w = World::new(1, source, dest).await;
    w.listed_root().await;
    let node = w.made(ROOT, b"z", What::File).await;
    w.round(w.journal.len(), false).await.unwrap();
    w.crash();
    w.renamed(node, ROOT, b"a").await;
    for name in b'b'..b'm' {
        w.made(ROOT, &[name], What::File).await;
    }
    w.works_off_what_was_tried().await;
}

/// Its name is used a second time, and more names than a round begins with are dirty before those in it.
#[tokio::test]
async fn a_directory_that_a_former_life_made_is_told_from_its_successor_by_what_is_in_it() {
    for last in ["stays", "goes"] {
        let (source, dest, _) = found();
        let mut w = World::new(1, source, dest).await;
        w.listed_root().await;
        let first = w.made(ROOT, b"a", What::Dir).await;
        for n in 0..20 {
            w.made(first, format!("f{n}").as_bytes(), What::File).await;
        }
        w.round(w.journal.len(), false).await.unwrap();
        w.crash();
        w.renamed(first, ROOT, b"b").await;
        let second = w.made(ROOT, b"a", What::Dir).await;
        if last == "goes" {
            w.removed(second).await;
        }
        for name in b'c'..b'm' {
            w.made(ROOT, &[name], What::File).await;
        }
        w.works_off_what_was_tried().await;
    }
}

/// Each of them leads to all the others.
#[tokio::test]
async fn a_file_that_got_very_many_names_is_worked_off_in_no_time() {
    let (source, dest, _) = found();
    let mut w = World::new(1, source, dest).await;
    w.listed_root().await;
    let node = w.made(ROOT, b"first", What::File).await;
    for n in 0..2000 {
        let (object, at) = (w.object(node).await, w.object(ROOT).await);
        let name = format!("l{n}").into_bytes();
        w.source.filer.link(&object, &at, &name).await.unwrap();
        let (kind, caller) = (Kind::File, Caller::default());
        w.record(
            Event::Link(Link { junction: JUNCTION, location: FROM, node, kind, dir: ROOT, name, caller }),
            Bytes::new(),
        );
    }
    w.crash();
    w.absorb(w.journal.len(), true);
    let begun = std::time::Instant::now();
    let step = w.next().await.unwrap().unwrap();
    assert_eq!(step.round.names.len(), 2001);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}
