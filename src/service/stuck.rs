//! Jobs that do not get on although they are tried again and again: a replayer that tells an error, a switch that is
//! put off. Mostly the next try succeeds, so that it is a problem of the status only when it has lasted. So is one that moves
//! and gets nothing done: a call that hangs tells no error.
//!
//! Since when it lasts nobody else can say: a replayer's error has the time of its last try, and a job's reason is gone
//! while its switch is tried once more. So it is looked at each second, and kept here.

use crate::core::Core;
use crate::location::dirty::Counts;
use crate::state::jobs::HasEnded;
use crate::state::{Progress, State};
use crate::supervisor::Board;
use journal_format::event::JobState;
use journal_format::ids::{JobId, LocationId, Lsn};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What has lasted for so long is told.
const LASTS: Duration = Duration::from_secs(30);
/// Longer than the largest round takes on a slow link: nothing shows before its end.
const DONE_WITHIN: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(1);
/// A job that goes back to moving between two tries, for no longer than this, has not got on.
const BETWEEN_TRIES: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Stuck {
    /// Bound: as many as jobs that have not ended.
    jobs: Mutex<BTreeMap<JobId, Troubles>>,
}

#[derive(Default)]
struct Troubles {
    replayer: Option<Trouble>,
    switch: Option<Trouble>,
    /// What had got done while it moved, and since when nothing more has.
    done: Option<(Done, Instant)>,
    /// For so long.
    still: Duration,
}

/// What it has copied, and how far its replayer has come.
type Done = (Progress, Option<Reached>);
/// How far it has followed the journal, and what is left of a dirty set.
type Reached = (Lsn, Option<Counts>);

struct Trouble {
    since: Instant,
    /// When it was seen last.
    seen: Instant,
    why: String,
}

impl Trouble {
    fn told(&self) -> Option<(u64, &str)> {
        let lasts = self.seen - self.since;
        (lasts >= LASTS).then_some((lasts.as_secs(), &self.why))
    }
}

impl Stuck {
    /// Until `stop` says so.
    pub async fn run(self: Arc<Self>, core: Core, board: Arc<Board>, mut stop: watch::Receiver<bool>) {
        loop {
            let status = |id| board.replayer(id).map(|it| ((it.position, it.dirty), it.error.map(|error| error.text)));
            self.look(&core.ledger.state(), status, Instant::now());
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// `status`: how far a destination's replayer has come, and its error.
    fn look(&self, state: &State, status: impl Fn(LocationId) -> Option<(Reached, Option<String>)>, now: Instant) {
        let mut jobs = self.jobs.lock();
        jobs.retain(|id, _| state.jobs.get(id).is_some_and(|job| !job.state.has_ended()));
        for (id, job) in state.jobs.iter().filter(|(_, job)| !job.state.has_ended()) {
            let troubles = jobs.entry(*id).or_default();
            let (reached, error) = status(job.destination).unzip();
            match error.flatten() {
                Some(why) => see(&mut troubles.replayer, why, now),
                None => troubles.replayer = None,
            }
            let done = (job.progress, reached);
            let since = troubles.done.filter(|(before, _)| *before == done && job.state == JobState::Moving);
            troubles.done = Some((done, since.map_or(now, |(_, since)| since)));
            troubles.still = since.map_or(Duration::ZERO, |(_, since)| now - since);
            let switch = &mut troubles.switch;
            match job.state {
                JobState::Synchronized if !job.reason.is_empty() => see(switch, job.reason.clone(), now),
                // It is tried once more, or waits for that.
                JobState::Transitioning | JobState::Synchronized if job.switched.is_none() => {
                    switch.iter_mut().for_each(|put_off| put_off.seen = now);
                }
                JobState::Moving if switch.as_ref().is_some_and(|it| now - it.seen < BETWEEN_TRIES) => {}
                _ => *switch = None,
            }
        }
    }

    /// A job that has paused for such a reason is a problem already.
    pub fn problems(&self, state: &State) -> Vec<String> {
        let mut problems = Vec::new();
        for (id, troubles) in self.jobs.lock().iter() {
            // It may have ended since it was looked at.
            let Some(job) = state.jobs.get(id).filter(|job| !job.state.has_ended()) else { continue };
            let paused = job.state == JobState::Paused && !job.reason.is_empty();
            if let Some((lasts, why)) = troubles.replayer.as_ref().filter(|_| !paused).and_then(Trouble::told) {
                let there = state.location_name(job.destination);
                problems.push(format!("job {id}: its destination ({there}) has taken nothing for {lasts} s: {why}"));
            }
            if troubles.still >= DONE_WITHIN && troubles.replayer.is_none() {
                let (there, lasts) = (state.location_name(job.destination), troubles.still.as_secs());
                problems.push(format!(
                    "job {id}: nothing has got done for {lasts} s: its destination ({there}), or the source, may hang"
                ));
            }
            if let Some((lasts, why)) = troubles.switch.as_ref().and_then(Trouble::told) {
                problems.push(format!("job {id}: {why} (again and again, for {lasts} s)"));
            }
        }
        problems
    }
}

fn see(trouble: &mut Option<Trouble>, why: String, now: Instant) {
    match trouble {
        Some(known) => (known.seen, known.why) = (now, why),
        None => *trouble = Some(Trouble { since: now, seen: now, why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Command, JobAction, apply, decide};
    use journal_format::event::FilerFound;
    use journal_format::ids::{Identity, NodeId, Time};

    struct World {
        state: State,
        stuck: Stuck,
        begin: Instant,
        second: u64,
        reached: Reached,
    }

    impl World {
        fn new() -> Self {
            let (state, stuck, begin) = (State::default(), Stuck::default(), Instant::now());
            let mut w = Self { state, stuck, begin, second: 0, reached: (Lsn(1), None) };
            for name in ["old", "new"] {
                let (url, root, found) = (format!("posix:///{name}"), name.into(), FilerFound::default());
                w.does(&Command::AddFiler { name: name.into(), url, root, found });
            }
            w.does(&Command::AddJunction {
                path: vec![b"a".to_vec()],
                filer: "old".into(),
                subdir: Vec::new(),
                root: Identity(vec![1]),
                node: NodeId(9),
                mtime: Time(1),
                ctime: Time(1),
                access: None,
            });
            w.does(&Command::CreateMove {
                source: vec![b"a".to_vec()],
                filer: "new".into(),
                subdir: Vec::new(),
                root: Identity(vec![2]),
                notes: String::new(),
                stopped: false,
            });
            w.to(JobState::Moving, "");
            w
        }

        fn does(&mut self, command: &Command) {
            for event in decide(&self.state, command).unwrap() {
                let (lsn, end) = (self.state.lsn, self.state.lsn.plus(64));
                apply(&mut self.state, lsn, end, Time(1), &event).unwrap();
            }
        }

        fn to(&mut self, state: JobState, reason: &str) {
            self.does(&Command::JobTo { job: JobId(1), state, reason: reason.into() });
        }

        /// For so many seconds the replayer tells that, and it is looked at; what the status says then.
        fn lasts(&mut self, seconds: u64, error: Option<&str>) -> Vec<String> {
            for _ in 0..seconds {
                self.second += 1;
                let now = self.begin + Duration::from_secs(self.second);
                self.stuck.look(&self.state, |_| Some((self.reached, error.map(str::to_owned))), now);
            }
            self.stuck.problems(&self.state)
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn an_error_of_a_replayer_is_a_problem_when_it_has_lasted_and_until_it_is_over() {
        let mut w = World::new();
        assert_eq!(w.lasts(30, Some("it is hot")), NOTHING);
        assert_eq!(w.lasts(1, None), NOTHING);
        assert_eq!(w.lasts(30, Some("it is hot")), NOTHING, "that was another one");
        // Told anew by every try, perhaps in other words.
        let told = w.lasts(5, Some("it is cold"));
        assert_eq!(told, ["job 1: its destination (new:/) has taken nothing for 34 s: it is cold"]);
        w.to(JobState::Paused, "it is cold");
        assert_eq!(w.lasts(5, Some("it is cold")), NOTHING, "that it has paused is told already");
        w.does(&Command::JobAction { job: JobId(1), action: JobAction::Start });
        assert_eq!(w.lasts(1, Some("it is cold")).len(), 1);
        assert_eq!(w.lasts(1, None), NOTHING);
        assert_eq!(w.lasts(31, Some("it is cold")).len(), 1);
        w.does(&Command::JobAction { job: JobId(1), action: JobAction::Abort });
        assert_eq!(w.lasts(0, None), NOTHING, "at once");
        assert_eq!(w.lasts(60, Some("it is cold")), NOTHING);
    }

    #[test]
    fn a_job_that_moves_and_gets_nothing_done_is_a_problem_though_nothing_tells_an_error() {
        let mut w = World::new();
        assert_eq!(w.lasts(300, None), NOTHING);
        w.reached = (Lsn(2), Some(Counts { bytes: 2, ..Counts::default() }));
        assert_eq!(w.lasts(300, None), NOTHING, "it follows the journal");
        w.reached = (Lsn(2), Some(Counts { bytes: 1, ..Counts::default() }));
        assert_eq!(w.lasts(300, None), NOTHING, "it works a dirty set off");
        let told = w.lasts(1, None);
        assert_eq!(told, ["job 1: nothing has got done for 300 s: its destination (new:/), or the source, may hang"]);
        w.to(JobState::Paused, "");
        assert_eq!(w.lasts(1, None), NOTHING);
    }

    #[test]
    fn a_switch_that_is_put_off_again_and_again_is_a_problem() {
        let mut w = World::new();
        let off = "the switch was put off: no";
        w.to(JobState::Synchronized, "");
        assert_eq!(w.lasts(60, None), NOTHING, "it was not put off");
        for _ in 0..4 {
            w.to(JobState::Transitioning, "");
            assert_eq!(w.lasts(2, None), NOTHING);
            w.to(JobState::Synchronized, off);
            assert_eq!(w.lasts(5, None), NOTHING);
        }
        w.to(JobState::Transitioning, "");
        w.lasts(2, None);
        let told = w.lasts(5, None);
        assert_eq!(told, [format!("job 1: {off} (again and again, for 32 s)")]);
        // Back to moving for a moment, and the same again.
        w.to(JobState::Synchronized, off);
        w.to(JobState::Moving, "something came that is not copied yet");
        assert_eq!(w.lasts(10, None).len(), 1);
        w.to(JobState::Synchronized, "");
        w.to(JobState::Transitioning, "");
        assert_eq!(w.lasts(1, None).len(), 1);
        // It copies: it gets on.
        w.to(JobState::Synchronized, off);
        w.to(JobState::Moving, "something came that is not copied yet");
        assert_eq!(w.lasts(31, None), NOTHING);
        w.to(JobState::Synchronized, "");
        w.to(JobState::Transitioning, "");
        assert_eq!(w.lasts(40, None), NOTHING);
    }
}
