//! Does the suite catch what it is there to catch? For every planted bug (src/planted.rs) the part of the suite that
//! must find it is run twice: without the bug it must pass, with it it must fail.
//!
//! Needs root (an immutable file, mounts), /dev/fuse and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "time outside of any simulation")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../power/disk.rs"]
#[allow(dead_code, reason = "the power tests use all of it")]
mod disk;

#[path = "../protocol/starved.rs"]
mod starved;

mod disks;
mod journals;
mod moves;
mod wire;

use std::time::Instant;

/// The letter of a bug, or none.
pub type Bug = Option<char>;

/// How often a part that works with chance (clients' choices, when a switch falls) may miss a bug in a row.
const TRIES: u32 = 5;

/// Run `part` without the bug, and with it: the first must pass, the second must fail.
async fn caught<F: Future<Output = ()> + Send + 'static>(bug: char, part: impl Fn(Bug) -> F) {
    let begun = Instant::now();
    part(None).await;
    for tries in 1..=TRIES {
        println!("--- bug ({bug}) is planted; a panic is due ---");
        let Err(error) = tokio::spawn(support::DUE.scope((), part(Some(bug)))).await else { continue };
        let why = error.into_panic();
        let why = why.downcast_ref::<String>().cloned().or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
        println!("--- bug ({bug}) was caught at try {tries} after {:?}: {}", begun.elapsed(), why.unwrap_or_default());
        return;
    }
    panic!("nothing caught the planted bug ({bug}) in {TRIES} tries");
}

macro_rules! bugs {
    ($($name:ident: $bug:literal by $part:path;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            caught($bug, $part).await;
        })*
        const CAUGHT: &[char] = &[$($bug),*];
    };
}

bugs! {
    a_journal_that_is_not_made_durable_is_caught: 'a' by disks::answered_survives_a_power_cut;
    an_answer_before_the_record_is_durable_is_caught: 'b' by disks::answered_survives_a_power_cut;
    a_failed_write_that_is_tried_again_is_caught: 'c' by disks::a_failed_flush_stops_the_service;
    a_checksum_that_is_not_looked_at_is_caught: 'd' by journals::a_flipped_byte_is_refused;
    records_taken_from_behind_a_hole_are_caught: 'e' by journals::what_lies_behind_a_hole_is_cut;
    an_earlier_lap_that_comes_back_is_caught: 'f' by journals::the_end_is_found_in_a_segment_used_before;
    a_step_done_before_the_sync_is_caught: 'g' by disks::done_steps_survive_a_power_cut_of_the_destination;
    done_steps_that_are_forgotten_are_caught: 'h' by moves::done_steps_are_not_carried_out_again;
    a_switch_that_is_not_journaled_is_caught: 'i' by moves::a_switch_outlives_a_kill;
    a_redo_that_appends_twice_is_caught: 'j' by moves::redo_writes_what_was_written;
    missing_replies_are_caught: 'k' by wire::a_call_sent_twice_runs_once;
    handles_that_end_with_the_process_are_caught: 'l' by wire::a_handle_outlives_a_restart;
    an_error_before_its_record_is_caught: 'm' by wire::what_was_refused_is_not_done_later;
    a_switch_without_drain_is_caught: 'n' by moves::a_switch_loses_nothing_under_load;
    a_permission_looked_at_too_late_is_caught: 'o' by wire::what_is_not_permitted_is_not_done;
}

/// A killed service loses nothing of what it carried out on a filer: is this test able to see it all the same?
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_record_is_durable_is_caught_by_a_service_without_memory_too() {
    caught('b', starved::starved).await;
}

#[test]
fn every_planted_bug_is_in_the_list() {
    assert_eq!(CAUGHT, ('a'..='o').collect::<Vec<_>>());
}
