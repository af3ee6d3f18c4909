//! `tain move` and `tain job`

use super::output::{field, fields, items, remarks, size, table};
use super::{Bytes, Context, Done, Failure, escaped};
use crate::state::jobs::{STATES, can_reach, name, parse_state};
use clap::Subcommand;
use journal_format::event::{JobKind, JobState};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often `wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub enum MoveVerb {
    /// Move a junction's data to another place while clients go on working; prints the job's number
    Create {
        /// The junction's path
        junction: Bytes,
        /// FILER:/directory, missing or empty
        destination: Bytes,
        /// Free text, kept with the job
        #[arg(long, default_value = "")]
        notes: String,
        /// Do not start it yet
        #[arg(long)]
        stopped: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// All jobs
    List,
    /// One job
    Show { job: u32 },
    /// Start a job that is stopped, or let a paused one go on
    Start { job: u32 },
    /// Copy no new files; what is copied is kept in step
    Pause { job: u32 },
    /// Give a job up for good
    Abort { job: u32 },
    /// Wait for a state: exit status 0 when it is reached, 1 on time-out or when it can no longer be
    Wait {
        job: u32,
        #[arg(long, default_value = "completed", value_parser = state)]
        state: JobState,
        /// As 500ms, 60s, 10m or 2h
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// What could not be copied
    Errors { job: u32 },
}

fn state(text: &str) -> Result<JobState, String> {
    parse_state(text).ok_or_else(|| format!("expected one of {}", STATES.map(name).join(", ")))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number with ms, s, m or h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number with ms, s, m or h".to_owned())?;
    // A year is for ever, and no sum with it overflows.
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= 365 * 24 * 3_600_000);
    ms.map(Duration::from_millis).ok_or_else(|| "at most a year".into())
}

pub(super) async fn create(cx: &mut Context<'_>, verb: MoveVerb) -> Done {
    let MoveVerb::Create { junction, destination, notes, stopped } = verb;
    let body = json!({
        "kind": "move",
        "source": escaped(&junction),
        "destination": escaped(&destination),
        "notes": notes,
        "stopped": stopped,
    });
    let job = cx.client.post("/jobs", &body).await?;
    cx.print(&job, |d| field(d, "id"))
}

pub(super) async fn run(cx: &mut Context<'_>, verb: Verb) -> Done {
    match verb {
        Verb::List => {
            let list = cx.client.get("/jobs").await?;
            cx.print(&list, lines)
        }
        Verb::Show { job } => {
            let it = cx.client.get(&format!("/jobs/{job}")).await?;
            cx.print(&it, show)
        }
        Verb::Start { job } => act(cx, job, "start").await,
        Verb::Pause { job } => act(cx, job, "pause").await,
        Verb::Abort { job } => act(cx, job, "abort").await,
        Verb::Wait { job, state, timeout } => wait(cx, job, state, timeout).await,
        Verb::Errors { job } => {
            let list = cx.client.get(&format!("/jobs/{job}/errors")).await?;
            cx.print(&list, |d| {
                let row = |e: &Value| [field(e, "time"), field(e, "path"), field(e, "error")];
                let rows: Vec<_> = items(d).iter().map(row).collect();
                if rows.is_empty() { String::new() } else { table(["TIME", "PATH", "ERROR"], &rows) }
            })
        }
    }
}

async fn act(cx: &mut Context<'_>, job: u32, action: &str) -> Done {
    let it = cx.client.post(&format!("/jobs/{job}/{action}"), &json!({})).await?;
    if !cx.json {
        remarks(&it);
    }
    cx.print(&it, |_| String::new())
}

/// Whether a wait is over: reached, or never to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Reached,
    NotYet,
    Never,
}

/// A move goes through its states faster than anybody looks, so one that lies behind a job that got on counts as
/// reached; one that can come again (after a pause) is waited for.
pub(super) fn judge(now: JobState, waited: JobState) -> Wait {
    let place = |s: JobState| match s {
        JobState::Stopped => Some(0),
        JobState::Starting => Some(1),
        JobState::Moving => Some(2),
        JobState::Synchronized => Some(3),
        JobState::Transitioning => Some(4),
        JobState::Completed => Some(5),
        // Beside the way: a job may have been there or not.
        JobState::Paused | JobState::Aborted => None,
    };
    let passed = match (place(now), place(waited)) {
        // Not every job was stopped.
        (Some(now), Some(waited)) => waited > 0 && waited < now,
        _ => false,
    };
    if now == waited || passed {
        Wait::Reached
    } else if can_reach(JobKind::Move, now, waited) {
        Wait::NotYet
    } else {
        Wait::Never
    }
}

async fn wait(cx: &mut Context<'_>, job: u32, waited: JobState, at_most: Duration) -> Done {
    let end = Instant::now() + at_most;
    let mut answered = false;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(LOOK_EVERY);
        let path = format!("/jobs/{job}");
        // A service that hangs does not make the wait longer.
        let it = match timeout(left, cx.client.get(&path)).await {
            Ok(Ok(it)) => it,
            // It was there a moment ago: it may be restarting.
            Ok(Err(e)) if e.unreachable && answered && Instant::now() < end => {
                sleep(LOOK_EVERY).await;
                continue;
            }
            Ok(Err(e)) => return Err(e.into()),
            Err(_) => return Err(timed_out(job, "not known: the service does not answer", waited, at_most)),
        };
        answered = true;
        let text = field(&it, "state");
        let now = parse_state(&text).ok_or_else(|| {
            Failure::new(format!("job {job} is in an unknown state, {text}"), "use the service's tain")
        })?;
        match judge(now, waited) {
            Wait::Reached => return cx.print(&it, |_| String::new()),
            Wait::Never => {
                let reason = format!("job {job} is {text}: it can no longer be {}", name(waited));
                return Err(Failure::new(reason, format!("tain job show {job} tells why")));
            }
            Wait::NotYet if Instant::now() >= end => {
                let why = field(&it, "reason");
                let text = if why == "-" { text } else { format!("{text} ({why})") };
                return Err(timed_out(job, &text, waited, at_most));
            }
            Wait::NotYet => sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now()))).await,
        }
    }
}

fn timed_out(job: u32, now: &str, waited: JobState, at_most: Duration) -> Failure {
    let reason = format!("job {job} is {now}, not {} after {at_most:?}", name(waited));
    Failure::new(reason, format!("wait longer with --timeout, or look: tain job show {job}"))
}

fn number(document: &Value, group: &str, key: &str) -> u64 {
    document.get(group).and_then(|g| g.get(key)).and_then(Value::as_u64).unwrap_or(0)
}

fn show(job: &Value) -> String {
    let keys = ["id", "kind", "state", "reason", "junction", "source", "destination", "created", "ended"];
    let mut out = fields(job, &keys);
    let p = |key| number(job, "progress", key);
    out += &format!("copied       {} files, {} directories, {}\n", p("files"), p("dirs"), size(p("bytes")));
    out += &fields(job, &["errors", "lag_bytes", "out_of_sync", "waits_for", "notes"]);
    out
}

pub(super) fn lines(list: &Value) -> String {
    let row = |j: &Value| {
        [
            field(j, "id"),
            field(j, "state"),
            field(j, "junction"),
            field(j, "source"),
            field(j, "destination"),
            size(number(j, "progress", "bytes")),
            field(j, "errors"),
            field(j, "reason"),
        ]
    };
    let headings = ["JOB", "STATE", "JUNCTION", "FROM", "TO", "COPIED", "ERRORS", "REASON"];
    table(headings, &items(list).iter().map(row).collect::<Vec<_>>())
}
