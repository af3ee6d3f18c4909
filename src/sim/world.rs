//! One seed: its filers, its lives, its judgement.

use super::actor::{Seen, Shared};
use super::asked::Asked;
use super::fate::{Fired, Weather, count};
use super::judge::{apart, differences};
use super::life::{Ground, Life, PATIENCE, TIGHT, Unknown, Versions, WIDE};
use super::model::{Model, Node, Nr, ROOT};
use super::rng::Rng;
use super::scribe::{Scribe, Told};
use super::sky::Sky;
use crate::env;
use crate::env::simulated::{Faults, Nth, SimDisk};
use crate::filer::memory::{Found, Memory, Options, named};
use crate::filer::{Changes, CoreFiler, MakeAttrs, Object};
use crate::journal::recycled;
use crate::location::steplog;
use crate::volume::{Call, NodeRef, Room, Status};
use bytes::Bytes;
use journal_format::event::{Event, PartDone, What};
use journal_format::ids::{Lsn, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What came of a seed.
pub struct Outcome {
    pub seed: u64,
    /// Of the whole stream of events and answers, and the trees at the end; no wall time in it.
    pub digest: String,
    pub fired: Fired,
    /// What the judge has to say; nothing, when all is well.
    pub wrong: Vec<String>,
    pub records: usize,
    pub answers: usize,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
    PowerCut,
}

pub(super) struct World {
    pub ground: Ground,
    pub base: Model,
    pub rng: Rng,
    pub fired: Fired,
    /// A filer calls objects gone that are there, and so does what clients are told.
    pub lies: bool,
    /// The first primary refuses modification times for good: the side that is left may lack them.
    pub untimed: bool,
}

/// Run a world from its beginning to its judgement.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    named::clear();
    let mut rng = Rng::new(seed);
    let sky = Sky::new(rng.fork());
    let _entered = env::enter(sky.clone());
    let shared = Shared::default();
    let mut filers = Options::default();
    // Not drawn: so a seed goes on to mean the world that it meant before.
    filers.capabilities.open_by_identity = seed % 4 != 3;
    filers.capabilities.nameless = seed % 3 != 2;
    let mut ground = Ground::new(filers, SimDisk::new(rng.draw()), shared.clone());
    if seed % 7 == 6 {
        ground.limits = TIGHT;
    }
    let mut world = World::new(ground, Model::new(Vec::new()), rng);
    let lives = world.rng.between(1, 5);
    for life in 0..=lives {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build() {
            Ok(runtime) => runtime,
            Err(error) => {
                shared.accuse(format!("no runtime: {error}"));
                break;
            }
        };
        runtime.block_on(async {
            sky.begins();
            if let Err(what) = world.life(life == 0, life == lives).await {
                shared.accuse(format!("life {life}: {what}"));
            }
            sky.ends();
            // Clocks are set while a service is down.
            if world.rng.percent(15) {
                let hours = i64::try_from(world.rng.below(49)).unwrap_or(0) - 24;
                sky.jump(hours * 3_600_000_000_000);
                count(&mut world.fired, "clock set");
            }
        });
        drop(runtime);
        if !shared.wrong.lock().is_empty() {
            break;
        }
    }
    steplog::watch(None);
    recycled::watch(None);
    world.outcome(seed)
}

impl World {
    pub fn new(ground: Ground, base: Model, rng: Rng) -> Self {
        Self { ground, base, rng, fired: Fired::new(), lies: false, untimed: false }
    }

    async fn life(&mut self, first: bool, last: bool) -> Result<(), String> {
        if first {
            let memory = Memory::new(self.ground.filers);
            people(&memory, &mut self.rng).await.map_err(|e| e.to_string())?;
            self.base = base_of(&memory.tree());
            let rng = self.rng.fork();
            self.ground.add_place(memory, rng);
        }
        self.watch_steps();
        self.set_disk_faults(last);
        let mut life = Life::start(&self.ground)?;
        self.take_down(&life)?;
        if !life.is_set_up() {
            self.ground.weather(Weather::Fair);
            let place = self.ground.places.lock()[0].clone();
            match life.set_up(&place).await {
                Err(_) if self.ground.disk.is_off() => return self.end(life, End::PowerCut, false).await,
                done => done?,
            }
        }
        self.ground.redoing(true);
        if last {
            self.ground.weather(Weather::Fair);
            return self.last(life).await;
        }
        // A few are long enough for clients to be sent away and to come again.
        let longest = if self.rng.percent(15) && self.ground.limits == WIDE { 40_000 } else { 6000 };
        let until = Duration::from_millis(self.rng.between(20, longest));
        let rngs = (self.rng.fork(), self.rng.fork(), self.rng.fork());
        let journal = life.core.ledger.journal.clone();
        let failed = tokio::select! {
            biased;
            () = tokio::time::sleep(until) => None,
            error = journal.failed() => Some(error.to_string()),
            wrong = self.run(&mut life, rngs) => return Err(wrong),
        };
        let end = match self.rng.below(20) {
            _ if self.ground.disk.is_off() => End::PowerCut,
            0..9 => End::PowerCut,
            9..18 => End::Killed,
            _ if failed.is_none() => End::Stopped,
            _ => End::Killed,
        };
        self.ground.shared.note(&format!("{end:?} {failed:?}"));
        self.end(life, end, failed.is_some()).await
    }

    /// Clients, operator and weather, until cancelled; or what is wrong.
    async fn run(&self, life: &mut Life, (mut clients, operator, weather): (Rng, Rng, Rng)) -> String {
        let up = {
            let weather = life.weather(weather.clone());
            tokio::select! {
                biased;
                up = life.primary_is_up() => up,
                () = weather => Ok(()),
            }
        };
        if let Err(what) = up.and_then(|()| self.check_primary(life, "after recovery")) {
            return what;
        }
        self.ground.redoing(false);
        let several = clients.between(1, 5);
        life.start_clients(several, &mut clients);
        let journal = life.core.ledger.journal.clone();
        let (operator, weather) = (life.operate(operator), life.weather(weather));
        let write_down = async {
            // Before segments are recycled.
            loop {
                tokio::time::sleep(Duration::from_millis(400)).await;
                if let Err(what) = self.ground.shared.scribe.lock().read(&journal) {
                    // The disk's power may have gone; otherwise it is an accusation.
                    if !self.ground.disk.is_off() {
                        return what;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            what = write_down => what,
            () = operator => "the operator went home".into(),
            () = weather => "there is no weather any more".into(),
        }
    }

    async fn end(&mut self, life: Life, end: End, failed: bool) -> Result<(), String> {
        life.count_limits();
        let journal = life.core.ledger.journal.clone();
        if end == End::Stopped {
            let stopped = self.stop(life).await;
            // Its disk may have failed it by then, as it was to do at some change.
            let failed = tokio::time::timeout(Duration::ZERO, journal.failed()).await.is_ok();
            if stopped.is_ok() || !(failed || self.ground.disk.is_off()) {
                self.ground.disk.kill();
                return stopped;
            }
            self.dies(if self.ground.disk.is_off() { End::PowerCut } else { End::Killed }, failed);
            return Ok(());
        }
        if !self.ground.disk.is_off() && !failed {
            self.ground.shared.scribe.lock().read(&journal)?;
        }
        // Before anything of the life is dropped.
        self.dies(end, failed);
        drop(life);
        Ok(())
    }

    async fn stop(&mut self, mut life: Life) -> Result<(), String> {
        self.ground.weather(Weather::Fair);
        life.stop_clients().await;
        life.settled().await?;
        self.ground.shared.scribe.lock().read(&life.core.ledger.journal)?;
        count(&mut self.fired, "stop");
        life.stop().await
    }

    /// All at one instant.
    fn dies(&mut self, end: End, failed: bool) {
        if failed {
            count(&mut self.fired, "journal failed");
        }
        if end == End::PowerCut {
            self.cut_power();
        } else {
            count(&mut self.fired, "kill");
            self.ground.disk.kill();
            self.ground.stores.kill();
            for place in self.ground.places.lock().iter() {
                place.memory.kill();
            }
        }
    }

    fn cut_power(&mut self) {
        count(&mut self.fired, "power cut");
        self.ground.disk.cut_power();
        let _lost = self.ground.stores.cut_power(&mut self.rng);
        let places = self.ground.places.lock().clone();
        for place in places {
            let chance = [0, 100, 50, 90, 10][self.rng.index(5)];
            let rng = &mut self.rng;
            let mut lost = 0;
            place.memory.power_cut(|| {
                let keep = rng.percent(chance);
                lost += u64::from(!keep);
                keep
            });
            if lost > 0 {
                *self.fired.entry("changes lost").or_default() += lost;
            }
        }
    }

    fn set_disk_faults(&mut self, last: bool) {
        let mut faults = Faults { write_takes: Some(Duration::from_micros(self.rng.below(400))), ..Faults::default() };
        if !last {
            match self.rng.below(8) {
                0 => faults.power_goes_at = Some(self.rng.between(20, 3000)),
                1 => faults.flush_fails = Some(Nth::Once(self.rng.between(20, 1500))),
                2 => faults.write_fails = Some(Nth::Once(self.rng.between(20, 1500))),
                _ => {}
            }
        }
        self.ground.disk.set_faults(faults);
    }

    /// I4: a step that the journal calls done is not carried out again.
    pub fn watch_steps(&self) {
        let mut done = BTreeSet::new();
        let mut given_up = BTreeSet::new();
        for rec in &self.ground.shared.scribe.lock().recs {
            let Event::CopyDone(e) = &rec.event else { continue };
            given_up.extend(e.failed.iter().map(|failed| (e.location, failed.node)));
            done.extend(e.ranges.iter().filter(|r| !r.void).map(|r| (e.location, r.node, r.offset)));
        }
        let shared = self.ground.shared.clone();
        steplog::watch(Some(Box::new(move |location, step| {
            let again = done.contains(&(location, step.node, step.offset)) && !step.void;
            if again && !given_up.contains(&(location, step.node)) {
                shared.accuse(format!("I4: the step {} at {} was done in an earlier life", step.node, step.offset));
            }
        })));
    }

    /// What the journal says at a start: everything that was durable, and what clients were told.
    pub fn take_down(&self, life: &Life) -> Result<(), String> {
        let mut scribe = self.ground.shared.scribe.lock();
        scribe.read(&life.core.ledger.journal)?;
        for rec in &scribe.recs {
            if !matches!(rec.event, Event::JunctionSwitched(_)) {
                self.ground.told(rec.lsn, &rec.event);
            }
        }
        match scribe.check_answers().into_iter().next() {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }

    pub fn check_primary(&self, life: &Life, when: &str) -> Result<(), String> {
        let mut scribe = self.ground.shared.scribe.lock();
        scribe.read(&life.core.ledger.journal)?;
        let model = scribe.fold(&self.base, scribe.upto())?;
        let state = life.core.ledger.state();
        let primary = state.junctions.get(&super::life::JUNCTION).map(|j| j.primary).ok_or("there is no junction")?;
        let memory = self.ground.memory_of(primary).ok_or("the primary is on no filer")?;
        let said = differences(&model, &memory.tree(), true);
        if said.is_empty() { Ok(()) } else { Err(format!("C1: the primary ({primary}) {when}: {}", said.join("; "))) }
    }

    async fn last(&mut self, mut life: Life) -> Result<(), String> {
        life.primary_is_up().await?;
        self.check_primary(&life, "after recovery")?;
        let mut rng = self.rng.fork();
        life.start_clients(2, &mut rng);
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.comes_to_its_end(life).await
    }

    /// Fair weather: everything comes to its end, and is looked at.
    pub async fn comes_to_its_end(&self, mut life: Life) -> Result<(), String> {
        life.stop_clients().await;
        life.settled().await?;
        life.jobs_end().await?;
        tokio::time::timeout(PATIENCE, self.look_through(&life))
            .await
            .map_err(|_| "C20: reading everything hangs")??;
        let journal = life.core.ledger.journal.clone();
        journal.wait_durable(journal.end_lsn()).await.map_err(|e| e.to_string())?;
        self.take_down(&life)?;
        life.count_limits();
        let state = life.core.ledger.state();
        life.stop().await?;
        self.judge(&state)
    }

    fn judge(&self, state: &crate::state::State) -> Result<(), String> {
        let scribe = self.ground.shared.scribe.lock();
        if let Some(said) = scribe.doubled_steps().into_iter().next() {
            return Err(said);
        }
        let model = scribe.fold(&self.base, scribe.upto())?;
        let primary = state.junctions.get(&super::life::JUNCTION).map(|j| j.primary).ok_or("there is no junction")?;
        let memory = self.ground.memory_of(primary).ok_or("the primary is on no filer")?;
        for (which, tree) in [("live", memory.tree()), ("durable", memory.durable_tree())] {
            let said = differences(&model, &tree, true);
            if !said.is_empty() {
                return Err(format!("C1: the primary at the end, {which}: {}", said.join("; ")));
            }
        }
        let mut primary_by_events = None;
        for rec in &scribe.recs {
            match &rec.event {
                Event::JunctionAdded(e) => primary_by_events = Some(e.location.location),
                Event::JunctionSwitched(e) => {
                    if primary_by_events != Some(e.from) {
                        return Err(format!("I5: switched from {} at {}, which was not the primary", e.from, rec.lsn));
                    }
                    primary_by_events = Some(e.to);
                    let then = scribe.fold(&self.base, rec.lsn)?;
                    let left = self.ground.memory_of(e.from).ok_or("the left side is on no filer")?;
                    let times = !self.untimed && !self.ground.may_lack_times(e.from);
                    let said = differences(&then, &left.tree(), times);
                    if !said.is_empty() {
                        return Err(format!("the side left at {}: {}", rec.lsn, said.join("; ")));
                    }
                }
                _ => {}
            }
        }
        for switch in self.ground.switches.lock().iter() {
            let then = scribe.fold(&self.base, switch.lsn)?;
            let old_times = !self.untimed && !self.ground.may_lack_times(switch.from);
            for (which, tree, times) in [("old", &switch.old, old_times), ("new", &switch.new, true)] {
                let said = differences(&then, tree, times);
                if !said.is_empty() {
                    return Err(format!("I2: the {which} side at the switch at {}: {}", switch.lsn, said.join("; ")));
                }
            }
            if let Some(said) = apart(&switch.old, &switch.new) {
                return Err(format!("I2: the two sides of the switch at {}: {said}", switch.lsn));
            }
        }
        self.judge_nothings(&scribe)?;
        self.judge_handles(&scribe)?;
        self.judge_reads(&scribe)
    }

    /// A RENAME that changed nothing was of one object's names.
    fn judge_nothings(&self, scribe: &Scribe) -> Result<(), String> {
        for answer in &scribe.answers {
            let Some(Asked::Rename { from, name, to, new }) = &answer.asked else { continue };
            if !matches!(answer.told, Told::Done(_)) || scribe.is_recorded(answer.xid) {
                continue;
            }
            let leads = |model: &Model, dir: NodeId, name: &[u8]| {
                let at = model.by_id(dir)?.entries.get(name)?;
                Some(*at)
            };
            let same = |model: &Model| {
                let at = leads(model, from.node, name);
                at.is_some() && at == leads(model, to.node, new)
            };
            let mut ends =
                scribe.recs.iter().map(|rec| rec.end).filter(|end| (answer.window.0..=answer.window.1).contains(end));
            let mut was = same(&scribe.fold(&self.base, answer.window.0)?);
            while let Some(end) = ends.next().filter(|_| !was) {
                was = same(&scribe.fold(&self.base, end)?);
            }
            if !was {
                return Err(format!("C1: done, and not in the journal: {answer:?}"));
            }
        }
        Ok(())
    }

    /// I6: a handle is stale only when its object was removed.
    fn judge_handles(&self, scribe: &Scribe) -> Result<(), String> {
        let gone = scribe.removals();
        for answer in scribe.answers.iter().filter(|_| !self.lies) {
            if answer.told == Told::Refused(Status::Stale)
                && let Some(node) = answer.node
                && gone.get(&node).is_none_or(|lsn| *lsn > answer.window.1)
            {
                return Err(format!("I6: a handle that is not gone was stale: {answer:?}"));
            }
        }
        Ok(())
    }

    fn judge_reads(&self, scribe: &Scribe) -> Result<(), String> {
        let reads = self.ground.shared.reads.lock();
        let asked: BTreeSet<NodeId> = reads.iter().map(|seen| seen.at.node).collect();
        let mut versions: BTreeMap<NodeId, Versions> = BTreeMap::new();
        let mut unknown: BTreeMap<NodeId, Vec<Unknown>> = BTreeMap::new();
        let mut model = self.base.clone();
        for rec in &scribe.recs {
            model.apply(rec.time, &rec.event, &rec.bulk, scribe.ends.get(&rec.lsn))?;
            if let (Event::Write(e), Some(Some(PartDone::Bytes(done)))) = (&rec.event, scribe.ends.get(&rec.lsn)) {
                let done = usize::try_from(*done).map_err(|e| e.to_string())?;
                let at = usize::try_from(e.offset).map_err(|e| e.to_string())? + done;
                let bytes = rec.bulk.slice(done.min(rec.bulk.len())..);
                unknown.entry(e.node).or_default().push(Unknown { lsn: rec.lsn, at, bytes });
            }
            let about: Vec<NodeId> = match &rec.event {
                Event::Write(e) => vec![e.node],
                Event::SetAttr(e) => vec![e.node],
                Event::Make(e) => vec![e.node],
                Event::Adopt(e) => e.entries.iter().map(|entry| entry.node).collect(),
                _ => continue,
            };
            for node in about.into_iter().filter(|node| asked.contains(node)) {
                if let Some(is) = model.by_id(node) {
                    versions.entry(node).or_default().push((rec.lsn, Arc::new(is.content.clone())));
                }
            }
        }
        let wrong = |seen: &Seen| {
            let node = &seen.at.node;
            let versions = versions.get(node).map_or(&[][..], |versions| versions);
            Life::judge_read(seen, versions, unknown.get(node).map_or(&[][..], |unknown| unknown))
        };
        reads.iter().find_map(wrong).map_or(Ok(()), Err)
    }

    /// Everything by the volume, as a client sees it: I6, and that what is there can be read. An operation goes on when
    /// its client has gone, and may come to its turn only now: then it is looked at once more, as it is with that.
    pub async fn look_through(&self, life: &Life) -> Result<(), String> {
        loop {
            let upto = self.read_to_end(life)?;
            let Err(said) = self.look_once(life).await else { return Ok(()) };
            life.settled().await?;
            let end = self.read_to_end(life)?;
            let changed = self.ground.shared.scribe.lock().operations_since(upto);
            if !changed {
                return Err(format!("{said} (as of {upto}, read to {end})"));
            }
        }
    }

    fn read_to_end(&self, life: &Life) -> Result<Lsn, String> {
        let mut scribe = self.ground.shared.scribe.lock();
        scribe.read(&life.core.ledger.journal)?;
        Ok(scribe.upto())
    }

    async fn look_once(&self, life: &Life) -> Result<(), String> {
        let model = {
            let scribe = self.ground.shared.scribe.lock();
            scribe.fold(&self.base, scribe.upto())?
        };
        let call = Call {
            uid: 0,
            gid: 0,
            gids: Vec::new(),
            addr: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            port: 700,
            xid: u32::MAX,
            sum: 0,
        };
        let root = self.ground.shared.pool.lock().dirs[0];
        let mut at: BTreeMap<Vec<u8>, NodeRef> = BTreeMap::from([(Vec::new(), root)]);
        for (path, nr) in model.paths() {
            let text = String::from_utf8_lossy(&path).into_owned();
            if let Some(slash) = path.iter().rposition(|b| *b == b'/') {
                let dir = at[&path[..slash]];
                let found = life.core.volume.lookup(&call, dir, &path[slash + 1..]).await;
                let found = found.map_err(|r| format!("I6: {text} is not found: {:?}", r.status))?;
                at.insert(path.clone(), found.node);
            }
            let (node, here) = (&model.nodes[nr], at[&path]);
            if node.id.is_some_and(|id| id != here.node) {
                return Err(format!("I6: {text} has become {}, was {:?}", here.node, node.id));
            }
            self.look_at(life, &call, node, here, &text).await?;
        }
        Ok(())
    }

    async fn look_at(&self, life: &Life, call: &Call, node: &Node, at: NodeRef, text: &str) -> Result<(), String> {
        let volume = &life.core.volume;
        let attr = volume.getattr(at).await.map_err(|s| format!("C1: {text} has no attributes: {s:?}"))?;
        let is = (attr.kind, attr.mode, attr.uid, attr.gid, attr.mtime);
        let should = (node.kind, node.mode, node.uid, node.gid, node.mtime);
        let may_be =
            (attr.kind, attr.mtime) == (node.kind, node.mtime) && node.may_have(attr.mode, (attr.uid, attr.gid));
        if node.id.is_some() && !may_be {
            return Err(format!("C1: {text} ({}) is {is:?}, should be {should:?}", at.node));
        }
        if node.kind == journal_format::ids::Kind::File {
            let read = volume.read(call, at, 0, 1 << 20).await.map_err(|r| format!("C1: {text}: {:?}", r.status))?;
            if !node.may_be(&read.data) {
                return Err(format!("C1: {text} ({}) reads otherwise", at.node));
            }
        }
        if node.kind == journal_format::ids::Kind::Dir {
            let listing = volume.readdir(call, at, 0, 0, Room::plain(1 << 20), &|_| true).await;
            let listing = listing.map_err(|r| format!("C1: {text} is not listed: {:?}", r.status))?;
            let names: BTreeSet<Vec<u8>> = listing.entries.into_iter().skip(2).map(|entry| entry.name).collect();
            if !names.iter().eq(node.entries.keys()) {
                return Err(format!("C1: {text} ({}) lists other names", at.node));
            }
        }
        Ok(())
    }

    fn outcome(self, seed: u64) -> Outcome {
        let Self { ground, mut fired, .. } = self;
        for place in ground.places.lock().iter() {
            for (what, n) in place.fate.fired() {
                *fired.entry(what).or_default() += n;
            }
        }
        *fired.entry("switch").or_default() += ground.switches.lock().len() as u64;
        for (what, n) in &*ground.shared.counts.lock() {
            *fired.entry(what).or_default() += n;
        }
        let scribe = ground.shared.scribe.lock();
        for rec in &scribe.recs {
            match rec.event {
                Event::OutOfSync(_) => count(&mut fired, "out of sync"),
                Event::InSync(_) => count(&mut fired, "in sync again"),
                Event::Cursor(_) => count(&mut fired, "cursor"),
                _ => {}
            }
        }
        if let Ok(words) = std::env::var("TAIN_TELL") {
            scribe.tell(&words.split(',').collect::<Vec<_>>());
        }
        let mut digest = ground.shared.digest.lock().clone();
        for rec in &scribe.recs {
            digest.update(format!("{:?} {:?} {:?}", rec.lsn, rec.time, rec.event).as_bytes());
        }
        for place in ground.places.lock().iter() {
            digest.update(format!("{} {} {:?}", place.name, place.fate.calls(), place.memory.tree()).as_bytes());
        }
        let wrong = ground.shared.wrong.lock().clone();
        Outcome {
            seed,
            digest: digest.finalize().to_hex().to_string(),
            fired,
            wrong,
            records: scribe.recs.len(),
            answers: scribe.answers.len(),
        }
    }
}

pub(super) const ATTRS: MakeAttrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0, inherits: false };

/// A tree that was there before tain: directories, files with holes, hard links, symlinks.
pub(super) async fn people(memory: &Memory, rng: &mut Rng) -> crate::filer::Result<()> {
    let root = memory.root().await?;
    memory.set(&root, Changes { mode: Some(0o777), ..Changes::default() }).await?;
    let mut dirs: Vec<Object> = vec![root];
    for _ in 0..rng.below(5) {
        let dir = dirs[rng.index(dirs.len())].clone();
        let name: &[u8] = if rng.percent(50) { b"d0" } else { b"d1" };
        if let Ok(made) = memory.make(&dir, name, &What::Dir, MakeAttrs { mode: 0o777, ..ATTRS }).await {
            dirs.push(made);
        }
    }
    for nth in 0..rng.below(12) {
        let dir = dirs[rng.index(dirs.len())].clone();
        let names: [&[u8]; 4] = [b"f0", b"f1", b"a", b"b"];
        let Ok(file) = memory.make(&dir, names[rng.index(4)], &What::File, ATTRS).await else { continue };
        for _ in 0..rng.below(4) {
            let (at, len) = (rng.below(80_000), rng.between(1, 20_000));
            let fill = rng.draw().to_le_bytes()[0] | 1;
            let data = vec![fill; usize::try_from(len).unwrap_or(0)];
            memory.write(&file, at, Bytes::from(data)).await?;
        }
        // Not drawn: so a seed goes on to mean the tree that it meant before.
        if nth % 3 == 0 {
            memory.set_xattr(&file, b"user.people", &nth.to_le_bytes()).await?;
        }
        if rng.percent(30) {
            let to = dirs[rng.index(dirs.len())].clone();
            let _taken = memory.link(&file, &to, b"l").await;
        }
        if rng.percent(15) {
            let what = What::Symlink { target: b"../f0".to_vec() };
            let _taken = memory.make(&dir, b"c", &what, MakeAttrs { mode: 0o777, ..ATTRS }).await;
        }
    }
    memory.sync().await
}

/// The same as the model has it.
pub(super) fn base_of(found: &[Found]) -> Model {
    let mut numbers: BTreeMap<u64, Nr> = BTreeMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    for it in found {
        let nr = *numbers.entry(it.number).or_insert_with(|| {
            let mut node = Node::new(it.stat.kind, it.stat.mode, it.stat.uid, it.stat.gid);
            node.mtime = it.stat.mtime;
            node.content.clone_from(&it.bytes);
            node.target.clone_from(&it.target);
            nodes.push(node);
            nodes.len() - 1
        });
        if let Some(slash) = it.path.iter().rposition(|b| *b == b'/') {
            let dir = found.iter().find(|f| f.path == it.path[..slash]).and_then(|f| numbers.get(&f.number).copied());
            nodes[dir.unwrap_or(ROOT)].entries.insert(it.path[slash + 1..].to_vec(), nr);
        }
    }
    Model::new(nodes)
}
