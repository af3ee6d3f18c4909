//! The n-th call of each of a filer's operations fails with each error, while clients work and their tree moves.
//!
//! What must come of it: clients are told the error or to come again, a job waits and says why, nothing is called done
//! that was not; and when the filer is well again everything comes to its end, both sides of the switch are equal, and
//! what was answered is there (the judge of the seeded worlds says so).
//!
//! `NotFound` and `Stale` of what is there are a filer's lies. Clients may be told them, of a handle too; what was
//! answered must not be lost by them either.

use super::rng::Rng;
use super::sky::Sky;
use super::stage::Stage;
use crate::env;
use crate::filer::ErrorKind;
use crate::filer::memory::{Fault, Turn};
use crate::journal::recycled;
use crate::location::steplog;
use crate::state::jobs::HasEnded;
use crate::volume::{Call, NewNode, SetAttrs};
use journal_format::event::{JobState, What};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A filer's operations, by the names that scripts are asked by.
///
/// Not here: `punch`, which is called only where a copy is tried again over what was a file's and is a hole now; its errors
/// are told in `location/copy.rs`.
pub const OPS: [&str; 26] = [
    "root",
    "by_identity",
    "lookup",
    "stat",
    "list",
    "readlink",
    "read",
    "data_ranges",
    "write",
    "set",
    "make",
    "make_nameless",
    "link",
    "rename",
    "remove",
    "rmdir",
    "sync",
    "statfs",
    "xattrs",
    "set_xattr",
    "acl",
    "owner",
    "claim",
    "unclaim",
    "pen",
    "remove_pen",
];

/// ESTALE, EROFS, EDQUOT, EIO, JUKEBOX (a filer that is busy), EACCES, ENOENT.
pub const ERRORS: [ErrorKind; 7] = [
    ErrorKind::Stale,
    ErrorKind::ReadOnly,
    ErrorKind::Quota,
    ErrorKind::Io,
    ErrorKind::Busy,
    ErrorKind::Access,
    ErrorKind::NotFound,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Primary,
    Destination,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    First,
    Third,
    /// Each from the second on, until somebody mends the filer.
    ForAWhile,
}

pub const WHENS: [When; 3] = [When::First, When::Third, When::ForAWhile];

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub side: Side,
    pub op: &'static str,
    pub error: ErrorKind,
    pub when: When,
}

/// What came of a row.
pub struct Outcome {
    /// Calls that failed.
    pub fired: u64,
    pub paused: bool,
    pub answers: usize,
    pub wrong: Option<String>,
}

#[derive(Default)]
struct Count {
    calls: u64,
    fired: u64,
    since: Option<Instant>,
    mended: bool,
}

/// A directory that stays empty.
const EMPTY: &[u8] = b"empty";
/// How long clients work before the filer is mended.
const WHILE: Duration = Duration::from_millis(1500);
/// A filer is mended when calls have failed for so long.
const FAILS_MAX: Duration = Duration::from_secs(4);

/// Run a world in which this row's calls fail.
#[must_use]
pub fn run(row: Row) -> Outcome {
    let sky = Sky::new(Rng::new(3));
    let _entered = env::enter(sky.clone());
    let count = Arc::new(Mutex::new(Count::default()));
    let mut outcome = Outcome { fired: 0, paused: false, answers: 0, wrong: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let acted = match runtime {
        Ok(runtime) => runtime.block_on(act(sky, row, &count, &mut outcome)),
        Err(error) => Err(error.to_string()),
    };
    steplog::watch(None);
    recycled::watch(None);
    outcome.fired = count.lock().fired;
    outcome.wrong = acted.err();
    outcome
}

fn script(row: Row, count: &Arc<Mutex<Count>>) -> crate::filer::memory::Script {
    let count = count.clone();
    Box::new(move |op| {
        if op != row.op {
            return Turn::default();
        }
        let mut count = count.lock();
        count.calls += 1;
        let fails = match row.when {
            When::First => count.calls == 1,
            When::Third => count.calls == 3,
            When::ForAWhile => count.calls >= 2,
        };
        let since = *count.since.get_or_insert_with(Instant::now);
        if !fails || count.mended || since.elapsed() > FAILS_MAX {
            return Turn::default();
        }
        count.fired += 1;
        // What a sync should have made durable is lost with it.
        let fault = if op == "sync" { Fault::Lost(row.error) } else { Fault::Before(row.error) };
        Turn { fault: Some(fault), ..Turn::default() }
    })
}

async fn act(sky: std::rc::Rc<Sky>, row: Row, count: &Arc<Mutex<Count>>, outcome: &mut Outcome) -> Result<(), String> {
    sky.begins();
    let mut stage = Stage::new(5).await?;
    stage.world.untimed = (row.side, row.op, row.error) == (Side::Primary, "set", ErrorKind::Access);
    stage.world.lies = matches!(row.error, ErrorKind::Stale | ErrorKind::NotFound);
    let failing = if row.side == Side::Primary { &stage.source } else { &stage.destination };
    failing.memory.set_script(Some(script(row, count)));
    stage.world.watch_steps();
    let mut life = stage.begin().await?;
    let mut rng = stage.world.rng.fork();
    life.start_clients(2, &mut rng);
    stage.begin_move(&life).await?;
    for _ in 0..15 {
        sleep(WHILE / 30).await;
        ask(&life, &stage).await;
        let state = life.core.ledger.state();
        for job in state.jobs.values().filter(|job| job.state == JobState::Paused) {
            outcome.paused = true;
            if job.reason.is_empty() && job.errors.is_empty() {
                return Err("the job paused and does not say why".into());
            }
        }
        if state.jobs.values().any(|job| job.state.has_ended()) {
            break;
        }
    }
    count.lock().mended = true;
    stage.world.comes_to_its_end(life).await?;
    outcome.answers = stage.world.ground.shared.scribe.lock().answers.len();
    stage.has_moved()?;
    match stage.world.ground.shared.wrong.lock().first() {
        Some(wrong) => Err(wrong.clone()),
        None => Ok(()),
    }
}

/// What the other clients do not ask; and objects are forgotten, so that they are looked for by identity.
async fn ask(life: &super::life::Life, stage: &Stage) {
    let addr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let call = Call { uid: 0, gid: 0, gids: Vec::new(), addr, port: 700, xid: u32::MAX, sum: 0 };
    let pool = {
        let pool = stage.world.ground.shared.pool.lock();
        [&pool.dirs[..1], &pool.others[..]].concat()
    };
    for node in pool {
        let _told = life.core.volume.readlink(&call, node).await;
        let _told = life.core.volume.fsstat(&call, node).await;
    }
    // A directory that is there for long enough to be seen on the destination, too.
    let root = stage.world.ground.shared.pool.lock().dirs[0];
    let attrs = SetAttrs { mode: Some(0o755), ..SetAttrs::default() };
    let _told = life.core.volume.make(&call, root, EMPTY, NewNode { what: What::Dir, attrs }).await;
    sleep(WHILE / 30).await;
    let _told = life.core.volume.rmdir(&call, root, EMPTY).await;
    for location in life.core.ledger.state().locations.keys() {
        if let Some(open) = life.core.locations.get(*location) {
            open.forget_all();
        }
    }
}

/// Which rows are run: every operation with every error on both sides, each time at one of three calls, or at all.
#[must_use]
pub fn rows(all: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (o, op) in OPS.into_iter().enumerate() {
        for (e, error) in ERRORS.into_iter().enumerate() {
            for (s, side) in [Side::Primary, Side::Destination].into_iter().enumerate() {
                let whens = WHENS.into_iter().enumerate().filter(|(w, _)| all || (o + e + s) % WHENS.len() == *w);
                rows.extend(whens.map(|(_, when)| Row { side, op, error, when }));
            }
        }
    }
    rows
}
