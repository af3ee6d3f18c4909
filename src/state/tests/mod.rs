//! Events in, State and what should run out. No doubles.

mod fold;
mod matrix;
mod policies;
mod refusals;

use super::*;
use journal_format::event::JobState as S;

/// A journal of nothing but what `decide` answered: folds at once, record by record.
#[derive(Clone)]
pub(super) struct World {
    pub state: State,
    pub events: Vec<(Lsn, Lsn, Time, Event)>,
}

pub(super) fn names(path: &str) -> Vec<Vec<u8>> {
    junctions::parse_path(path.as_bytes()).unwrap()
}

pub(super) fn place(text: &str) -> (String, Vec<Vec<u8>>) {
    let (filer, path) = text.split_once(':').unwrap();
    (filer.to_owned(), names(path))
}

/// An identity that differs from place to place.
fn identity(text: &str) -> Identity {
    Identity(text.as_bytes().to_vec())
}

pub(super) fn add_filer(name: &str) -> Command {
    Command::AddFiler {
        name: name.into(),
        url: format!("posix:///{name}"),
        root: name.as_bytes().to_vec(),
        found: FilerFound::default(),
    }
}

pub(super) fn add_junction(path: &str, at: &str) -> Command {
    let (filer, subdir) = place(at);
    Command::AddJunction {
        path: names(path),
        filer,
        subdir,
        root: identity(at),
        node: NodeId(100),
        mtime: Time(5),
        ctime: Time(6),
        access: None,
    }
}

pub(super) fn remove_junction(number: u32) -> Command {
    Command::RemoveJunction { junction: JunctionId(number) }
}

pub(super) fn create_move(path: &str, to: &str, stopped: bool) -> Command {
    let (filer, subdir) = place(to);
    Command::CreateMove { source: names(path), filer, subdir, root: identity(to), notes: "why".into(), stopped }
}

pub(super) fn to(job: u32, state: S) -> Command {
    Command::JobTo { job: JobId(job), state, reason: String::new() }
}

pub(super) fn action(job: u32, action: JobAction) -> Command {
    Command::JobAction { job: JobId(job), action }
}

impl World {
    /// Two filers and a junction /data/a on `old:/a`.
    pub fn new() -> Self {
        let mut world = Self { state: State::default(), events: Vec::new() };
        world.push(Event::JournalCreated(journal_format::event::JournalCreated { handle_key: [7; 32] }));
        world.does(&[add_filer("old"), add_filer("new"), add_junction("/data/a", "old:/a")]);
        world
    }

    pub fn push(&mut self, event: Event) {
        self.try_push(event).unwrap();
        self.state.check().unwrap();
    }

    pub fn try_push(&mut self, event: Event) -> Result<(), Contradiction> {
        let lsn = self.state.lsn.plus(8);
        let (end, time) = (lsn.plus(100), Time(i64::try_from(lsn.0).unwrap()));
        let before = self.state.clone();
        let done = apply(&mut self.state, lsn, end, time, &event);
        match &done {
            Ok(()) => self.events.push((lsn, end, time, event)),
            Err(_) => assert_eq!(before, self.state, "a contradiction changes nothing"),
        }
        done
    }

    pub fn does(&mut self, commands: &[Command]) {
        for command in commands {
            let events = decide(&self.state, command).unwrap_or_else(|r| panic!("{command:?}: {r}"));
            events.into_iter().for_each(|e| self.push(e));
        }
    }

    pub fn refuses(&self, command: &Command) -> Refusal {
        let refusal = decide(&self.state, command).unwrap_err();
        assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty() && !refusal.reason.contains('\n'));
        refusal
    }

    /// A world whose job 1 moves /data/a to `new:/a` and is in this state.
    pub fn with_job(state: S) -> Self {
        let mut w = Self::new();
        w.does(&[create_move("/data/a", "new:/a", true)]);
        let way: &[S] = match state {
            S::Stopped => &[],
            S::Starting => &[S::Starting],
            S::Moving => &[S::Starting, S::Moving],
            S::Paused => &[S::Starting, S::Moving, S::Paused],
            S::Synchronized => &[S::Starting, S::Moving, S::Synchronized],
            S::Transitioning | S::Completed => &[S::Starting, S::Moving, S::Synchronized, S::Transitioning],
            S::Aborted => &[S::Starting, S::Aborted],
        };
        way.iter().for_each(|s| w.does(&[to(1, *s)]));
        if state == S::Completed {
            w.does(&[Command::SwitchJunction { job: JobId(1) }, to(1, S::Completed)]);
        }
        assert_eq!(w.job().state, state);
        w
    }

    pub fn job(&self) -> &Job {
        &self.state.jobs[&JobId(1)]
    }
}
