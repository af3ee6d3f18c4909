//! Somebody sets the clock while a job runs and clients work: an hour or a year, forth and back, and again while the
//! service is down. Nothing may depend on it: no order, no expiry, no handle, no job.
//!
//! Asked of each world beside all that the judge of the seeded worlds asks: do the journal's times never go back, and
//! does the move take no longer than where nobody touches the clock?

use super::rng::Rng;
use super::sky::Sky;
use super::stage::Stage;
use crate::env;
use crate::filer::memory::Turn;
use crate::journal::recycled;
use crate::location::steplog;
use crate::state::jobs::HasEnded;
use journal_format::event::JobState;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const HOUR: i64 = 3_600_000_000_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// By how much the clock is set; 0 is the world to compare with.
pub const JUMPS: [i64; 5] = [0, HOUR, -HOUR, YEAR, -YEAR];

/// What came of a world.
pub struct Outcome {
    pub jumps: u64,
    /// Of them, while the job copied.
    pub in_mid_copy: u64,
    /// From the move's beginning to its end, in virtual time.
    pub took: Duration,
    pub answers: usize,
    pub wrong: Option<String>,
}

/// Run a world whose clock is set by so many nanoseconds, and back, and once more while it is down.
#[must_use]
pub fn run(nanos: i64, seed: u64) -> Outcome {
    let sky = Sky::new(Rng::new(seed));
    let _entered = env::enter(sky.clone());
    let mut outcome = Outcome { jumps: 0, in_mid_copy: 0, took: Duration::ZERO, answers: 0, wrong: None };
    if let Err(wrong) = act(&sky, nanos, seed, &mut outcome) {
        outcome.wrong = Some(wrong);
    }
    steplog::watch(None);
    recycled::watch(None);
    outcome
}

fn life<T>(sky: &Sky, acts: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        sky.begins();
        let ended = acts.await;
        sky.ends();
        ended
    })
}

fn act(sky: &std::rc::Rc<Sky>, nanos: i64, seed: u64, outcome: &mut Outcome) -> Result<(), String> {
    let mut stage = life(sky, Stage::new(seed))?;
    let mut rng = stage.world.rng.fork();
    // Slow enough for a job to be met in the middle.
    let slow = |_| Turn { before: Duration::from_millis(4), ..Turn::default() };
    stage.destination.memory.set_script(Some(Box::new(slow)));
    life(sky, async {
        let mut life = stage.begin().await?;
        life.start_clients(2, &mut rng);
        sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        stage.begin_move(&life).await?;
        // Forth while it copies, back a little later, and the other way.
        for by in [nanos, -nanos, -nanos, nanos] {
            sleep(Duration::from_millis(60)).await;
            sky.jump(by);
            outcome.jumps += u64::from(by != 0);
            let state = life.core.ledger.state();
            let copies = state.jobs.values().any(|j| matches!(j.state, JobState::Starting | JobState::Moving));
            outcome.in_mid_copy += u64::from(by != 0 && copies);
        }
        while !life.core.ledger.state().jobs.values().all(|job| job.state.has_ended()) {
            if begun.elapsed() > super::life::PATIENCE {
                return Err("C20: the move does not end".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        outcome.took = begun.elapsed();
        life.stop_clients().await;
        life.settled().await?;
        stage.world.ground.shared.scribe.lock().read(&life.core.ledger.journal)?;
        // Killed, and its clock set while it is down.
        stage.world.ground.disk.kill();
        stage.world.ground.stores.kill();
        for place in stage.world.ground.places.lock().iter() {
            place.memory.kill();
        }
        Ok(())
    })?;
    sky.jump(-nanos);
    outcome.jumps += u64::from(nanos != 0);
    stage.world.watch_steps();
    life(sky, async {
        let mut life = stage.begin().await?;
        life.start_clients(2, &mut rng);
        sleep(Duration::from_millis(300)).await;
        stage.world.comes_to_its_end(life).await
    })?;
    stage.has_moved()?;
    let scribe = stage.world.ground.shared.scribe.lock();
    outcome.answers = scribe.answers.len();
    if let Some(pair) = scribe.recs.windows(2).find(|pair| pair[1].time < pair[0].time) {
        return Err(format!("the journal's time goes back at {}", pair[1].lsn));
    }
    match stage.world.ground.shared.wrong.lock().first() {
        Some(wrong) => Err(wrong.clone()),
        None => Ok(()),
    }
}
