//! Every workload of few operations, and of each a power cut at every state that it goes through.
//!
//! ```text
//!  base (a, b, d/) ── copied ──► life one: op, op …        ✂ at a change of the journal's disk, torn,
//!                                                            before a change of the filer,
//!                                                            at a change of the index, or when all is answered
//!                                cut: disk, index and filer each lose a part of what was not synced
//!                                life two: recovery ──► the tree as of k operations, answered ≤ k ≤ begun (C1, C4)
//! ```
//!
//! The operations come one after the other, so what may be there is one of two trees, and [`Plain`] knows them without
//! the journal. `Commit` is a client's COMMIT and a checkpoint, for that is what syncs a filer. A workload whose last
//! operation would be refused is a shorter one; states before the last operation are the shorter one's, too.

use super::actor::Shared;
use super::fate::Fired;
use super::life::{Ground, JUNCTION, Life, PATIENCE};
use super::model::Model;
use super::plain::{OPS, Op, Plain, shown};
use super::rng::Rng;
use super::scribe::{Answer, Told};
use super::sky::Sky;
use super::world::{ATTRS, World, base_of};
use crate::checkpoint::Checkpoints;
use crate::env;
use crate::env::simulated::{Faults, SimDisk};
use crate::filer::ErrorKind;
use crate::filer::memory::{Fault, Memory, Options, Turn, named};
use crate::volume::{Call, CreateHow, NewNode, NodeRef, SetAttrs, Status};
use bytes::Bytes;
use journal_format::event::What;
use parking_lot::Mutex;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// What came of some workloads.
#[derive(Default)]
pub struct Sum {
    pub workloads: u64,
    pub states: u64,
    pub fired: Fired,
    /// What the judge has to say; nothing, when all is well.
    pub wrong: Vec<String>,
}

/// Where the power goes, counted from the first operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Disk(u64),
    Filer(u64),
    Index(u64),
    Answered,
}

/// Changes of the disk, the filer and the index.
type Counts = [u64; 3];

/// What is kept of what a filer has not synced.
#[derive(Clone, Copy, Debug)]
enum Keep {
    Nothing,
    All,
    Some,
}

const KEEPS: [Keep; 3] = [Keep::Nothing, Keep::All, Keep::Some];
/// A few accusations tell enough.
const WRONG_MAX: usize = 5;

/// All workloads of `len` operations that can be done.
#[must_use]
pub fn of(len: usize) -> Vec<Vec<Op>> {
    let mut all = vec![(Vec::new(), Plain::base())];
    for nth in 0..len {
        let mut longer = Vec::new();
        for (ops, plain) in &all {
            for op in OPS {
                let mut plain = plain.clone();
                if plain.apply(*op, nth) {
                    longer.push(([&ops[..], &[*op]].concat(), plain));
                }
            }
        }
        all = longer;
    }
    all.into_iter().map(|(ops, _)| ops).collect()
}

/// Run these, on this thread.
#[must_use]
pub fn run(workloads: &[Vec<Op>]) -> Sum {
    let mut sum = Sum::default();
    let sky = Sky::new(Rng::new(1));
    let _entered = env::enter(sky.clone());
    let base = match Base::new(&sky) {
        Ok(base) => base,
        Err(what) => {
            sum.wrong.push(format!("no base: {what}"));
            return sum;
        }
    };
    for ops in workloads {
        sum.workloads += 1;
        base.every_state(ops, &mut sum);
        if sum.wrong.len() >= WRONG_MAX {
            break;
        }
    }
    sum
}

/// A service that was set up and stopped in order.
struct Base {
    sky: Rc<Sky>,
    ground: Ground,
    model: Model,
}

fn in_a_life<T>(sky: &Sky, life: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        sky.begins();
        let ended = life.await;
        sky.ends();
        ended
    })
}

impl Base {
    fn new(sky: &Rc<Sky>) -> Result<Self, String> {
        named::clear();
        let ground = Ground::new(Options::default(), SimDisk::new(1), Shared::default());
        let model = in_a_life(sky, async {
            let memory = Memory::new(ground.filers);
            Plain::base().put_on(&memory, ATTRS).await.map_err(|e| e.to_string())?;
            let model = base_of(&memory.tree());
            let place = ground.add_place(memory, Rng::new(1));
            place.memory.set_script(None);
            let life = Life::start(&ground)?;
            life.set_up(&place).await?;
            life.primary_is_up().await?;
            // Everything is met, so that operations write no records but their own.
            let world = World::new(ground.clone(), model.clone(), Rng::new(1));
            world.take_down(&life)?;
            let client = Client::new(&life)?;
            ground.shared.pool.lock().dirs.push(client.root);
            world.look_through(&life).await?;
            life.stop().await?;
            ground.disk.kill();
            Ok(model)
        })?;
        Ok(Self { sky: sky.clone(), ground, model })
    }

    /// The same world again, to do with as one likes.
    fn copy(&self, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let shared = Shared::default();
        shared.pool.lock().dirs.clone_from(&self.ground.shared.pool.lock().dirs);
        let mut ground = Ground::new(self.ground.filers, self.ground.disk.fork(rng.draw()), shared);
        ground.stores = self.ground.stores.fork();
        named::clear();
        let memory = self.ground.places.lock()[0].memory.fork();
        ground.add_place(memory, rng.fork()).memory.set_script(None);
        World::new(ground, self.model.clone(), rng)
    }

    fn every_state(&self, ops: &[Op], sum: &mut Sum) {
        let before = match self.one(ops, Cut::Answered, Keep::Nothing, sum) {
            Ok(Some(counts)) => counts,
            Ok(None) => [[0; 3]; 2],
            Err(what) => return sum.wrong.push(format!("{ops:?}: {what}")),
        };
        let [from, to] = before;
        let kinds: [fn(u64) -> Cut; 3] = [Cut::Disk, Cut::Filer, Cut::Index];
        let cuts = kinds.iter().zip(from.iter().zip(to)).flat_map(|(cut, (from, to))| (from + 1..=to).map(cut));
        for cut in cuts.chain([Cut::Answered]) {
            for keep in KEEPS {
                if let Err(what) = self.one(ops, cut, keep, sum) {
                    sum.wrong.push(format!("{ops:?}, {cut:?}, {keep:?}: {what}"));
                }
            }
        }
    }

    /// One cut. How many changes there were before the last operation, and at the end, when it came to that.
    fn one(&self, ops: &[Op], cut: Cut, keep: Keep, sum: &mut Sum) -> Result<Option<[Counts; 2]>, String> {
        let mut world = self.copy(7 + sum.states);
        let progress = Progress::default();
        in_a_life(&self.sky, async {
            let life = Life::start(&world.ground)?;
            life.primary_is_up().await?;
            world.take_down(&life)?;
            until_the_power_goes(&world, &life, ops, cut, &progress).await?;
            self.cut_power(&mut world, keep);
            Ok(())
        })?;
        sum.states += 1;
        *sum.fired.entry(cut.name()).or_default() += 1;
        let disk = world.ground.disk.fired();
        for (what, n) in
            [("disk pieces lost", disk.pieces_lost + disk.pieces_torn), ("disk names lost", disk.names_lost)]
        {
            *sum.fired.entry(what).or_default() += n;
        }
        for (what, n) in &world.fired {
            *sum.fired.entry(what).or_default() += n;
        }
        in_a_life(&self.sky, recovered(&world, ops, &progress))?;
        match world.ground.shared.wrong.lock().first() {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(progress.counts.get()),
        }
    }

    fn cut_power(&self, world: &mut World, keep: Keep) {
        world.ground.disk.cut_power();
        let rng = &mut world.rng;
        let mut lost = 0;
        let pieces = world.ground.stores.cut_power(rng);
        for place in world.ground.places.lock().iter() {
            place.memory.set_script(None);
            place.memory.power_cut(|| {
                let keeps = match keep {
                    Keep::Nothing => false,
                    Keep::All => true,
                    Keep::Some => rng.percent(50),
                };
                lost += u64::from(!keeps);
                keeps
            });
        }
        *world.fired.entry("filer changes lost").or_default() += lost;
        *world.fired.entry("index pieces lost").or_default() += pieces;
    }
}

impl Cut {
    fn name(self) -> &'static str {
        match self {
            Self::Disk(_) => "cut at the disk",
            Self::Filer(_) => "cut at the filer",
            Self::Index(_) => "cut at the index",
            Self::Answered => "cut when all is answered",
        }
    }
}

/// How far a workload came.
#[derive(Default)]
struct Progress {
    begun: Cell<usize>,
    answered: Cell<usize>,
    counts: Cell<Option<[Counts; 2]>>,
}

/// Everything goes at the same instant: who asks later gets no answer.
async fn until_the_power_goes(
    world: &World,
    life: &Life,
    ops: &[Op],
    cut: Cut,
    progress: &Progress,
) -> Result<(), String> {
    let (disk, stores) = (world.ground.disk.clone(), world.ground.stores.clone());
    let (gone, filer) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0u64)));
    let goes = |n| Faults { power_goes_at: n, ..Faults::default() };
    disk.set_faults(goes(if let Cut::Disk(n) = cut { Some(n) } else { None }));
    let (off, tell) = (disk.clone(), gone.clone());
    stores.power_goes_at(if let Cut::Index(n) = cut { Some(n) } else { None }, move || {
        off.switch_off();
        tell.notify_one();
    });
    let (off, tell, count) = (disk.clone(), gone.clone(), filer.clone());
    let at = if let Cut::Filer(n) = cut { n } else { u64::MAX };
    let script = move |op: &'static str| {
        let mut count = count.lock();
        *count += u64::from(super::fate::mutates(op));
        if *count >= at {
            off.switch_off();
            tell.notify_one();
        }
        let never =
            Turn { before: PATIENCE * 1000, after: Duration::ZERO, fault: Some(Fault::Before(ErrorKind::Down)) };
        if off.is_off() { never } else { Turn::default() }
    };
    world.ground.places.lock()[0].memory.set_script(Some(Box::new(script)));
    let counts = || [disk.counted().0, *filer.lock(), stores.changes()];
    let journal = life.core.ledger.journal.clone();
    let client = Client::new(life)?;
    let work = async {
        let mut before = counts();
        for (nth, op) in ops.iter().enumerate() {
            before = counts();
            progress.begun.set(nth + 1);
            let from = journal.end_lsn();
            let xid = u32::try_from(nth + 1).unwrap_or(0);
            client.act(life, *op, nth, xid).await.map_err(|status| format!("{op:?} was answered {status:?}"))?;
            // With the power off, too: who answers has it durable.
            progress.answered.set(nth + 1);
            let (told, window) = (Told::Done(op.bytes()), (from, journal.durable_lsn()));
            let must = op.is_journaled();
            let (node, asked, earlier) = (None, None, Vec::new());
            let answer = Answer { xid, what: "workload", must, window, told, node, asked, earlier };
            world.ground.shared.scribe.lock().answers.push(answer);
        }
        progress.counts.set(Some([before, counts()]));
        Ok(())
    };
    let ended = tokio::select! {
        biased;
        () = gone.notified() => Ok(()),
        _ = journal.failed() => Ok(()),
        ended = tokio::time::timeout(PATIENCE, work) => ended.unwrap_or_else(|_| Err("C20: no answer".into())),
    };
    if cut == Cut::Answered || disk.is_off() { ended } else { ended.and(Err(format!("{cut:?} never came"))) }
}

async fn recovered(world: &World, ops: &[Op], progress: &Progress) -> Result<(), String> {
    let life = Life::start(&world.ground)?;
    world.take_down(&life)?;
    life.primary_is_up().await?;
    let is = shown(&world.ground.places.lock()[0].memory.tree());
    let mut plain = Plain::base();
    let mut could = Vec::new();
    for nth in 0..=ops.len() {
        if (progress.answered.get()..=progress.begun.get()).contains(&nth) {
            could.push(plain.shown());
        }
        if let Some(op) = ops.get(nth) {
            plain.apply(*op, nth);
        }
    }
    if !could.contains(&is) {
        let (answered, begun) = (progress.answered.get(), progress.begun.get());
        return Err(format!("C1, C4: {answered} answered, {begun} begun, and there is {is:?}, not one of {could:?}"));
    }
    world.check_primary(&life, "after recovery")?;
    let looked = tokio::time::timeout(PATIENCE, world.look_through(&life)).await;
    looked.map_err(|_| "C20: reading everything hangs")??;
    world.ground.disk.kill();
    Ok(())
}

struct Client {
    root: NodeRef,
}

impl Client {
    fn new(life: &Life) -> Result<Self, String> {
        let state = life.core.ledger.state();
        let root = state.junctions.get(&JUNCTION).ok_or("there is no junction")?.root;
        Ok(Self { root: NodeRef { junction: JUNCTION, node: root } })
    }

    async fn find(&self, life: &Life, call: &Call, path: &str) -> Result<NodeRef, Status> {
        let mut at = self.root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = life.core.volume.lookup(call, at, name.as_bytes()).await.map_err(|r| r.status)?.node;
        }
        Ok(at)
    }

    /// A path's directory, and the name in it.
    async fn place<'p>(&self, life: &Life, call: &Call, path: &'p str) -> Result<(NodeRef, &'p [u8]), Status> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(life, call, dir).await?, name.as_bytes()))
    }

    async fn act(&self, life: &Life, op: Op, nth: usize, xid: u32) -> Result<(), Status> {
        let addr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let call = &Call { uid: 0, gid: 0, gids: Vec::new(), addr, port: 700, xid, sum: xid };
        let volume = &life.core.volume;
        let attrs = SetAttrs { mode: Some(0o644), ..SetAttrs::default() };
        match op {
            Op::Write { path, at, len } => {
                let node = self.find(life, call, path).await?;
                let data = Bytes::from(Op::data(nth, at, len));
                volume.write(call, node, at, data).await.map(drop).map_err(|r| r.status)
            }
            Op::Truncate { path, size } => {
                let node = self.find(life, call, path).await?;
                let wish = SetAttrs { size: Some(size), ..SetAttrs::default() };
                volume.setattr(call, node, wish, None).await.map(drop).map_err(|r| r.status)
            }
            Op::Create(path) => {
                let (dir, name) = self.place(life, call, path).await?;
                let made = volume.create(call, dir, name, CreateHow::Guarded(attrs)).await;
                made.map(drop).map_err(|r| r.status)
            }
            Op::Mkdir(path) => {
                let (dir, name) = self.place(life, call, path).await?;
                let made = volume.make(call, dir, name, NewNode { what: What::Dir, attrs }).await;
                made.map(drop).map_err(|r| r.status)
            }
            Op::Remove(path) => {
                let (dir, name) = self.place(life, call, path).await?;
                volume.remove(call, dir, name).await.map(drop).map_err(|r| r.status)
            }
            Op::Rmdir(path) => {
                let (dir, name) = self.place(life, call, path).await?;
                volume.rmdir(call, dir, name).await.map(drop).map_err(|r| r.status)
            }
            Op::Rename(path, to) => {
                let (from, name) = self.place(life, call, path).await?;
                let (to, new) = self.place(life, call, to).await?;
                volume.rename(call, from, name, to, new).await.map(drop).map_err(|r| r.status)
            }
            Op::Link(path, to) => {
                let node = self.find(life, call, path).await?;
                let (dir, name) = self.place(life, call, to).await?;
                volume.link(call, node, dir, name).await.map(drop).map_err(|r| r.status)
            }
            Op::Commit(path) => {
                let node = self.find(life, call, path).await?;
                volume.commit(call, node).await.map(drop).map_err(|r| r.status)?;
                // One that the power ends is nobody's answer.
                let _cut_short = Checkpoints::default().take(&life.core).await;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_end_in_an_operation_that_can_be_done() {
        assert_eq!(of(1).len(), OPS.iter().filter(|op| Plain::base().apply(**op, 0)).count());
        assert!(of(2).len() > 150, "{} workloads", of(2).len());
    }
}
