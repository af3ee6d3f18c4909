//! What events make of State.

use super::*;
use journal_format::event::{
    CopyDone, CopyFailed, Cursor, Durable, InSync, JobStateChanged, JournalCreated, JunctionSwitched, Listed,
    OutOfSync, RangeDone,
};

const OLD: LocationId = LocationId(1);
const NEW: LocationId = LocationId(2);

fn cursor(location: LocationId, lsn: u64) -> Event {
    Event::Cursor(Cursor { location, lsn: Lsn(lsn) })
}

fn range(node: u64, len: u64, last: bool, void: bool) -> RangeDone {
    RangeDone { node: NodeId(node), offset: 0, len, digest: [0; 32], last, void }
}

fn failed(node: u64) -> CopyFailed {
    CopyFailed { node: NodeId(node), path: b"x".to_vec(), error: "no".into(), fatal: false }
}

fn copy_done(ranges: Vec<RangeDone>, failed: Vec<CopyFailed>) -> Event {
    Event::CopyDone(CopyDone { job: JobId(1), location: NEW, ranges, files_made: 3, dirs_made: 2, failed })
}

#[test]
fn directories_of_the_tree_come_with_the_first_junction_and_go_with_the_last() {
    let mut w = World::new();
    w.does(&[add_junction("/data/x/y", "old:/x"), add_junction("/top", "old:/top")]);
    assert_eq!(w.state.tree.len(), 3, "/ and data and x");
    let data = &w.state.tree[&NodeId(2)];
    assert_eq!(data.parent, ROOT_DIR);
    assert_eq!(data.children[&b"a".to_vec()], Child::Junction(JunctionId(1)));
    assert_eq!(data.children[&b"x".to_vec()], Child::Dir(NodeId(3)));
    w.does(&[remove_junction(1)]);
    assert_eq!(w.state.tree.len(), 3, "data still leads to x/y");
    w.does(&[remove_junction(2)]);
    assert_eq!(w.state.tree.keys().collect::<Vec<_>>(), [&ROOT_DIR]);
    assert_eq!(w.state.tree[&ROOT_DIR].changed, w.events.last().unwrap().2, "its listing changed");
    w.does(&[add_junction("/data/a", "old:/a")]);
    assert!(w.state.tree.contains_key(&NodeId(4)), "numbers are not used again");
    assert_eq!(w.state.locations.keys().map(|l| l.0).collect::<Vec<_>>(), [3, 4], "nor those of locations");
}

#[test]
fn a_move_runs_from_creation_to_completion_and_what_should_run_follows() {
    let mut w = World::new();
    let primary = |w: &World| wanted(&w.state).primaries.into_iter().collect::<Vec<_>>();
    let copying = |w: &World| wanted(&w.state).replayers.get(&NEW).map(|r| r.copying);
    assert_eq!((primary(&w), copying(&w)), (vec![(OLD, JunctionId(1))], None));

    w.does(&[create_move("/data/a", "new:/a", false)]);
    assert_eq!((w.job().state, copying(&w)), (S::Starting, Some(false)));
    assert_eq!(w.state.locations[&NEW].role, Role::Destination(JobId(1)));
    w.does(&[to(1, S::Moving)]);
    assert_eq!(copying(&w), Some(true));
    let it = wanted(&w.state).replayers[&NEW];
    assert_eq!((it.job, it.junction, it.source, it.location), (JobId(1), JunctionId(1), OLD, NEW));
    w.does(&[action(1, JobAction::Pause)]);
    assert_eq!(copying(&w), Some(false), "kept in step while paused");
    w.does(&[action(1, JobAction::Start), to(1, S::Synchronized)]);
    assert_eq!(copying(&w), Some(false));
    w.does(&[to(1, S::Transitioning)]);
    assert_eq!(wanted(&w.state).switches, [JobId(1)]);

    w.does(&[Command::SwitchJunction { job: JobId(1) }]);
    let at = w.events.last().unwrap().0;
    let now = wanted(&w.state);
    assert_eq!((now.switches.len(), now.replayers.len(), now.finishes.as_slice()), (0, 0, &[JobId(1)][..]));
    assert_eq!(primary(&w), [(NEW, JunctionId(1))]);
    assert_eq!((w.job().switched, w.job().ended), (Some(at), None));
    assert_eq!(w.state.junctions[&JunctionId(1)].epoch, 2);
    assert_eq!(w.state.locations[&OLD].role, Role::Left, "kept while the job names it");
    w.does(&[to(1, S::Completed)]);
    assert_eq!(wanted(&w.state).finishes, []);
    assert_eq!(w.job().ended, Some(w.events.last().unwrap().2));

    // And on to a third place: the old one is free again.
    w.does(&[create_move("/data/a", "old:/a", false)]);
    assert_eq!(w.state.jobs[&JobId(2)].source, NEW);
}

#[test]
fn at_every_event_of_a_move_exactly_one_primary_is_wanted_for_the_junction() {
    let w = World::with_job(S::Completed);
    let mut state = State::default();
    for (lsn, end, time, event) in &w.events {
        apply(&mut state, *lsn, *end, *time, event).unwrap();
        assert_eq!(wanted(&state).primaries.len(), state.junctions.len(), "I5 at {lsn}");
    }
}

#[test]
fn an_aborted_job_leaves_its_destination_and_nothing_of_it_should_run() {
    let mut w = World::with_job(S::Moving);
    w.does(&[action(1, JobAction::Abort)]);
    assert_eq!(w.state.locations[&NEW].role, Role::Left);
    assert_eq!(wanted(&w.state).replayers.len(), 0);
    w.push(cursor(NEW, 50));
    w.push(copy_done(vec![range(9, 10, true, false)], vec![]));
    assert_eq!(wanted(&w.state).replayers.len(), 0, "late facts are let pass and change nothing that runs");
}

#[test]
fn a_cursor_grows_and_never_goes_back() {
    let mut w = World::with_job(S::Moving);
    let start = w.state.locations[&NEW].cursor;
    let ahead = w.state.lsn;
    w.push(cursor(NEW, ahead.0));
    assert_eq!(w.state.locations[&NEW].cursor, ahead);
    w.push(cursor(NEW, start.0));
    assert_eq!(w.state.locations[&NEW].cursor, ahead);
}

#[test]
fn a_job_that_waits_pins_no_journal_and_its_cursor_jumps_when_it_starts() {
    let mut w = World::with_job(S::Stopped);
    let created = w.state.locations[&NEW].cursor;
    w.push(Event::Durable(Durable { stopped: false }));
    w.push(cursor(OLD, w.state.lsn.0));
    assert!(positions::oldest_cursor(&w.state).unwrap() > created);
    w.does(&[action(1, JobAction::Start)]);
    assert_eq!(w.state.locations[&NEW].cursor, w.state.lsn);
}

#[test]
fn a_destination_that_is_out_of_sync_is_copied_to_and_switched_to_only_when_it_is_back() {
    let out = |from| Event::OutOfSync(OutOfSync { location: NEW, from: Lsn(from) });
    let mut w = World::with_job(S::Moving);
    w.push(out(10));
    let since = w.events.last().unwrap().2;
    let expected = Some(crate::state::OutOfSync { from: Lsn(10), since });
    assert_eq!(w.state.locations[&NEW].out_of_sync, expected);
    w.push(out(20));
    assert_eq!(w.state.locations[&NEW].out_of_sync, expected, "since the first time");
    assert!(!wanted(&w.state).replayers[&NEW].copying);
    assert!(decide(&w.state, &to(1, S::Synchronized)).is_err());
    let back = State::from_json(&w.state.to_json()).unwrap();
    assert_eq!(back, w.state, "a snapshot keeps it");
    w.push(Event::InSync(InSync { location: NEW }));
    assert_eq!(w.state.locations[&NEW].out_of_sync, None);
    assert!(wanted(&w.state).replayers[&NEW].copying);
    w.does(&[to(1, S::Synchronized)]);
    w.push(out(30));
    assert!(decide(&w.state, &to(1, S::Transitioning)).is_err());
    w.does(&[to(1, S::Moving)]);
    // A primary has no dirty set, and one that is left has nobody who asks.
    w.push(Event::OutOfSync(OutOfSync { location: OLD, from: Lsn(1) }));
    assert_eq!(w.state.locations[&OLD].out_of_sync, None);
}

#[test]
fn the_oldest_cursor_is_that_of_a_location_in_use() {
    let mut w = World::with_job(S::Moving);
    assert_eq!(positions::oldest_cursor(&w.state), Some(w.state.locations[&OLD].cursor));
    w.push(cursor(OLD, w.state.lsn.0));
    assert_eq!(positions::oldest_cursor(&w.state), Some(w.state.locations[&NEW].cursor));
    w.does(&[action(1, JobAction::Abort)]);
    assert_eq!(positions::oldest_cursor(&w.state), Some(w.state.locations[&OLD].cursor), "what is left pins nothing");
    assert_eq!(positions::oldest_cursor(&State::default()), None);
}

#[test]
fn progress_adds_up_and_a_later_success_takes_an_error_out() {
    let mut w = World::with_job(S::Moving);
    w.push(copy_done(
        vec![range(1, 10, true, false), range(2, 99, false, true)],
        vec![failed(3), failed(4), failed(5)],
    ));
    let p = w.job().progress;
    assert_eq!((p.files, p.dirs, p.bytes, p.ranges, p.failed), (3, 2, 10, 1, 3), "a void range carried nothing");
    w.push(copy_done(vec![range(3, 7, false, false), range(4, 7, true, false)], vec![]));
    assert_eq!(w.job().errors.keys().map(|n| n.0).collect::<Vec<_>>(), [3, 5], "3 is not whole yet");
    w.push(copy_done(vec![range(3, 0, false, true)], vec![]));
    let listed = |last| Event::Listed(Listed { job: JobId(1), location: NEW, dir: NodeId(5), entries: vec![], last });
    w.push(listed(false));
    assert_eq!(w.job().errors.keys().map(|n| n.0).collect::<Vec<_>>(), [5]);
    w.push(listed(true));
    assert!(w.job().errors.is_empty());
}

#[test]
fn errors_are_bounded_while_the_count_goes_on_and_a_new_attempt_starts_afresh() {
    let mut w = World::with_job(S::Moving);
    for batch in 0..3 {
        w.push(copy_done(vec![], (batch * 200..batch * 200 + 200).map(failed).collect()));
    }
    assert_eq!((w.job().errors.len(), w.job().progress.failed), (Job::ERRORS_MAX, 600), "I11");
    w.does(&[action(1, JobAction::Pause)]);
    assert_eq!(w.job().errors.len(), Job::ERRORS_MAX, "an operator reads them while it is paused");
    w.does(&[action(1, JobAction::Start)]);
    assert!(w.job().errors.is_empty());
}

#[test]
fn a_switch_that_was_put_off_returns_to_synchronized() {
    let mut w = World::with_job(S::Transitioning);
    w.does(&[Command::JobTo { job: JobId(1), state: S::Synchronized, reason: "destination is slow".into() }]);
    assert_eq!((w.job().state, w.job().reason.as_str()), (S::Synchronized, "destination is slow"));
    w.does(&[to(1, S::Transitioning), Command::SwitchJunction { job: JobId(1) }]);
    w.refuses(&to(1, S::Synchronized));
}

#[test]
fn the_state_a_job_is_in_already_is_no_event() {
    let w = World::with_job(S::Moving);
    assert_eq!(decide(&w.state, &to(1, S::Moving)), Ok(vec![]));
}

#[test]
fn a_journal_that_contradicts_itself_is_an_error_and_changes_nothing() {
    let base = World::with_job(S::Moving);
    let job_to = |job, to| Event::JobStateChanged(JobStateChanged { job: JobId(job), to, reason: String::new() });
    let switched = JunctionSwitched { junction: JunctionId(1), job: JobId(1), from: OLD, to: NEW, epoch: 2 };
    let mut wrong = vec![
        Event::JournalCreated(JournalCreated { handle_key: [1; 32] }),
        job_to(1, S::Completed),
        job_to(2, S::Aborted),
        Event::JunctionSwitched(switched.clone()),
        cursor(LocationId(3), 1),
        cursor(NEW, u64::MAX),
        Event::CopyDone(CopyDone {
            job: JobId(2),
            location: NEW,
            ranges: vec![],
            files_made: 0,
            dirs_made: 0,
            failed: vec![],
        }),
    ];
    // Everything that was said once cannot be said again.
    for (_, _, _, event) in &base.events {
        wrong.push(event.clone());
    }
    for event in wrong {
        let mut w = base.clone();
        let error = w.try_push(event.clone()).expect_err(&format!("{event:?}"));
        assert_eq!(error.lsn, base.state.lsn.plus(8));
    }
    let ready = World::with_job(S::Transitioning);
    let not_this_way = [
        JunctionSwitched { from: NEW, to: OLD, ..switched.clone() },
        JunctionSwitched { epoch: 1, ..switched.clone() },
        JunctionSwitched { to: OLD, ..switched.clone() },
        JunctionSwitched { junction: JunctionId(9), ..switched.clone() },
        JunctionSwitched { job: JobId(9), ..switched },
    ];
    for event in not_this_way {
        ready.clone().try_push(Event::JunctionSwitched(event)).unwrap_err();
    }
}

#[test]
fn a_record_that_is_folded_in_already_is_refused() {
    let mut w = World::new();
    let (lsn, end, time, event) = w.events.last().unwrap().clone();
    assert!(apply(&mut w.state, lsn, end, time, &event).is_err());
    let at = w.state.lsn;
    let durable = Event::Durable(Durable { stopped: true });
    assert!(apply(&mut w.state, at, at, time, &durable).is_err(), "a record has a length");
    apply(&mut w.state, at, at.plus(1), time, &durable).unwrap();
    assert_eq!(w.state.lsn, at.plus(1));
}

#[test]
fn the_fold_of_the_same_events_is_the_same_bytes_and_a_snapshot_anywhere_changes_nothing() {
    let mut w = World::with_job(S::Completed);
    w.does(&[add_junction("/b\u{7f}/c", "new:/other"), create_move("/data/a", "old:/z", false)]);
    w.push(Event::CopyDone(CopyDone {
        job: JobId(2),
        location: LocationId(4),
        ranges: vec![range(1, 5, true, false)],
        files_made: u64::MAX,
        dirs_made: 0,
        failed: vec![CopyFailed { node: NodeId(8), path: b"\xff/\\".to_vec(), error: "é".into(), fatal: true }],
    }));
    let last = w.state.to_json();
    for cut in 0..w.events.len() {
        let mut state = State::default();
        for (n, (lsn, end, time, event)) in w.events.iter().enumerate() {
            if n == cut {
                let json = state.to_json();
                let read = State::from_json(&json).unwrap();
                assert_eq!(read, state);
                assert_eq!(read.to_json(), json, "I7");
                state = read;
            }
            apply(&mut state, *lsn, *end, *time, event).unwrap();
        }
        assert_eq!(state, w.state);
        assert_eq!(state.to_json(), last, "I7");
    }
}

#[test]
fn a_damaged_or_newer_snapshot_is_an_error() {
    let json = String::from_utf8(World::with_job(S::Moving).state.to_json()).unwrap();
    State::from_json(json.as_bytes()).unwrap();
    let newer = json.replacen("\"version\":1", "\"version\":2,\"more\":0", 1);
    assert!(matches!(State::from_json(newer.as_bytes()), Err(SnapshotError::Version(2))));
    for (from, to) in [
        ("\"primary\":1", "\"primary\":2"),
        ("\"state\":\"moving\"", "\"state\":\"dancing\""),
        ("\"state\":\"moving\"", "\"state\":\"aborted\""),
        ("\"handle_key\":\"07", "\"handle_key\":\""),
        ("\"lsn\"", "\"nsl\""),
    ] {
        let bad = json.replacen(from, to, 1);
        assert_ne!(bad, json, "{from}");
        assert!(State::from_json(bad.as_bytes()).is_err(), "{to}");
    }
    for end in 0..json.len() {
        assert!(State::from_json(&json.as_bytes()[..end]).is_err());
    }
}

#[test]
fn the_oldest_ended_job_is_forgotten_when_the_list_is_full() {
    let mut state = World::new().state;
    let mut does = |command: &Command| {
        for event in decide(&state, command).unwrap() {
            let (lsn, end) = (state.lsn, state.lsn.plus(8));
            apply(&mut state, lsn, end, Time(0), &event).unwrap();
        }
    };
    let jobs = u32::try_from(jobs::JOBS_MAX).unwrap() + 2;
    for job in 1..=jobs {
        does(&create_move("/data/a", "new:/a", false));
        if job < jobs {
            does(&action(job, JobAction::Abort));
        }
    }
    state.check().unwrap();
    assert_eq!(state.jobs.len(), jobs::JOBS_MAX, "I11");
    assert_eq!(state.jobs.keys().next(), Some(&JobId(3)), "the oldest are gone");
    assert_eq!(state.locations.len(), jobs::JOBS_MAX + 1, "and what only they named");
}
