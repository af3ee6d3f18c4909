//! Every (state, command) pair of a move.

use super::*;
use journal_format::event::JobStateChanged;

/// Rows: from. Columns: to, in the order of [`jobs::STATES`]. The drawing of `move_job.rs`, told a second time.
const STEPS: [&str; 8] = [
    // stopped starting moving paused synchronized transitioning completed aborted
    ".s.....a", // stopped
    "..mp...a", // starting
    "...ps..a", // moving
    "..m....a", // paused
    "..mp.t.a", // synchronized
    "....s.c.", // transitioning
    "........", // completed
    "........", // aborted
];

#[test]
fn the_table_of_transitions_is_the_drawing() {
    for (from, row) in jobs::STATES.into_iter().zip(STEPS) {
        for (to, cell) in jobs::STATES.into_iter().zip(row.chars()) {
            assert_eq!(jobs::legal(JobKind::Move, from, to), cell != '.', "{from:?} to {to:?}");
        }
    }
}

#[test]
fn each_step_is_decided_and_folded_as_the_table_says() {
    for from in jobs::STATES {
        let w = World::with_job(from);
        for to_state in jobs::STATES {
            let legal = jobs::legal(JobKind::Move, from, to_state) && to_state != S::Completed;
            let event = JobStateChanged { job: JobId(1), to: to_state, reason: "r".into() };
            let folded = w.clone().try_push(Event::JobStateChanged(event)).is_ok();
            let reason = "r".to_owned();
            let decided = decide(&w.state, &Command::JobTo { job: JobId(1), state: to_state, reason }).is_ok();
            // To Completed only once the junction was switched.
            assert_eq!((decided, folded), (legal, legal), "{from:?} to {to_state:?}");
        }
    }
    let mut w = World::with_job(S::Transitioning);
    w.does(&[Command::SwitchJunction { job: JobId(1) }, to(1, S::Completed)]);
}

#[test]
fn each_action_does_what_the_state_allows_and_is_refused_by_name_otherwise() {
    use JobAction::{Abort, Pause, Start};
    for from in jobs::STATES {
        for act in [Start, Pause, Abort] {
            let expected = match (from, act) {
                (S::Stopped, Start) => Some(S::Starting),
                (S::Paused, Start) => Some(S::Moving),
                (S::Starting | S::Moving | S::Synchronized, Pause) => Some(S::Paused),
                (S::Stopped | S::Starting | S::Moving | S::Paused | S::Synchronized, Abort) => Some(S::Aborted),
                _ => None,
            };
            let mut w = World::with_job(from);
            match expected {
                Some(to) => {
                    w.does(&[action(1, act)]);
                    assert_eq!(w.job().state, to, "{from:?} {act:?}");
                }
                None => {
                    let refusal = w.refuses(&action(1, act));
                    assert_eq!(
                        refusal.reason,
                        format!("job 1 is {}: it cannot be told to {}", jobs::name(from), act.name())
                    );
                }
            }
        }
    }
    assert_eq!(World::new().refuses(&action(7, Start)).reason, "there is no job 7");
}

#[test]
fn a_switch_is_decided_only_while_transitioning_and_once() {
    let switch = Command::SwitchJunction { job: JobId(1) };
    for from in jobs::STATES {
        let mut w = World::with_job(from);
        if from == S::Transitioning {
            w.does(std::slice::from_ref(&switch));
        }
        w.refuses(&switch);
    }
}

#[test]
fn names_of_states_come_back() {
    for state in jobs::STATES {
        assert_eq!(jobs::parse_state(jobs::name(state)), Some(state));
    }
    assert_eq!(jobs::parse_state("done"), None);
}

#[test]
fn what_can_still_come_about_follows_the_drawing() {
    let can = |from, to| jobs::can_reach(JobKind::Move, from, to);
    assert!(can(S::Stopped, S::Completed));
    assert!(can(S::Synchronized, S::Moving));
    assert!(can(S::Completed, S::Completed));
    assert!(!can(S::Completed, S::Aborted));
    assert!(!can(S::Moving, S::Stopped));
    assert!(!can(S::Paused, S::Starting));
}
