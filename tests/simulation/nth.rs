//! Filers' calls that fail.

use crate::told::side_by_side;
use std::collections::BTreeMap;
use tain::sim::nth::{self, Row, Side, rows};

/// Each time at one of three calls, with `TAIN_CALLS=all` at all of them.
#[test]
fn whichever_call_of_a_filer_fails_with_whichever_error_nothing_answered_is_lost_and_the_trees_are_equal() {
    let all = std::env::var("TAIN_CALLS").is_ok_and(|text| text == "all");
    let only = std::env::var("TAIN_CALL").ok();
    let wanted = |row: &Row| only.as_ref().is_none_or(|only| format!("{row:?}").contains(only.as_str()));
    let rows: Vec<Row> = rows(all || only.is_some()).into_iter().filter(wanted).collect();
    let outcomes: Vec<_> =
        side_by_side(&rows, |part| part.iter().map(|row| (*row, nth::run(*row))).collect::<Vec<_>>());
    let (mut fired, mut paused, mut answers, mut bad) = (BTreeMap::<_, u64>::new(), 0, 0, Vec::new());
    let mut rows_fired = 0;
    for (row, outcome) in outcomes.into_iter().flatten() {
        rows_fired += usize::from(outcome.fired > 0);
        *fired.entry((row.op, row.side)).or_default() += outcome.fired;
        paused += u64::from(outcome.paused);
        answers += outcome.answers;
        if let Some(wrong) = outcome.wrong {
            bad.push(format!("{row:?} ({} failed): {wrong}", outcome.fired));
        }
    }
    let all = rows.len();
    println!(
        "{all} rows, {rows_fired} of which fired, {answers} answers, {paused} jobs paused; calls that failed: {fired:?}"
    );
    assert!(bad.is_empty(), "{} rows: {bad:#?}", bad.len());
    if only.is_none() {
        for op in nth::OPS {
            let n: u64 = [Side::Primary, Side::Destination].iter().filter_map(|side| fired.get(&(op, *side))).sum();
            assert!(n >= 2, "{op} failed {n} times: too few");
        }
    }
}
