//! State as JSON with stable field names.

use super::commands::users;
use super::{JournalPin, Port, ProcedureTimes, ReplayerStatus, ServiceStatus};
use crate::state::jobs::{self, HasEnded};
use crate::state::{Filer, Job, Junction, State, policies, text};
use journal_format::event::JobState;
use journal_format::ids::{FilerId, JobId, JunctionId, Time};
use serde_json::{Value, json};
use std::net::SocketAddr;

pub(super) fn filer(state: &State, id: FilerId, filer: &Filer) -> Value {
    json!({
        "id": id.0,
        "name": filer.name,
        "url": filer.url,
        "can_chown": filer.found.can_chown,
        "can_mknod": filer.found.can_mknod,
        "has_xattrs": filer.found.has_xattrs,
        "has_holes": filer.found.has_holes,
        "time_granularity_ns": filer.found.time_granularity_ns,
        "used_by": users(state, id),
    })
}

pub(super) fn junction(state: &State, id: JunctionId, it: &Junction, nfs: SocketAddr) -> Value {
    let job = state.jobs.iter().find(|(_, j)| j.junction == id && !j.state.has_ended());
    json!({
        "id": id.0,
        "path": text::path(&it.path),
        "location": state.location_name(it.primary),
        "epoch": it.epoch,
        "added": time(it.added),
        "access": state.policy_name(it),
        "state": if it.suspended { "suspended" } else { "open" },
        "job": job.map(|(id, _)| id.0),
        "mount": mount_command(nfs, &it.path),
    })
}

/// The built-in policy, as it would be written.
const LOCAL_RULES: [&str; 2] = ["127.0.0.0/8=rw,no_root_squash,insecure", "::1=rw,no_root_squash,insecure"];

pub(super) fn policy(state: &State, name: &str) -> Option<Value> {
    let (access, rules) = if name == policies::LOCAL {
        (None, LOCAL_RULES.map(str::to_owned).to_vec())
    } else {
        let (id, found) = state.policy_by_name(name)?;
        (Some(id), found.rules.iter().map(ToString::to_string).collect())
    };
    let users = state.junctions.values().filter(|junction| junction.access == access);
    let used_by: Vec<String> = users.map(|junction| text::path(&junction.path)).collect();
    Some(json!({ "name": name, "built_in": access.is_none(), "rules": rules, "used_by": used_by }))
}

pub(super) fn policies(state: &State) -> Value {
    let names = std::iter::once(policies::LOCAL).chain(state.policies.values().map(|policy| policy.name.as_str()));
    Value::Array(names.filter_map(|name| policy(state, name)).collect())
}

pub(super) fn job(state: &State, id: JobId, it: &Job, replayer: Option<ReplayerStatus>) -> Value {
    let junction = state.junctions.get(&it.junction).map(|j| text::path(&j.path));
    // That of a job which has just ended may still be on its way out: nothing lags any more.
    let replayer = replayer.filter(|_| !it.state.has_ended());
    json!({
        "id": id.0,
        "kind": "move",
        "state": jobs::name(it.state),
        "reason": it.reason,
        "junction": junction,
        "source": state.location_name(it.source),
        "destination": state.location_name(it.destination),
        "notes": it.notes,
        "created": time(it.created),
        "ended": it.ended.map(time),
        "switched": it.switched.is_some(),
        "progress": it.progress,
        "errors": it.errors.len(),
        "lag_bytes": replayer.as_ref().map(|r| r.lag_bytes),
        "out_of_sync": out_of_sync(state, it, replayer.as_ref()),
        "waits_for": replayer.and_then(|r| r.waits_for),
    })
}

/// Since when the destination is out of sync, and how much it lacks; the counts only while its replayer runs.
fn out_of_sync(state: &State, it: &Job, replayer: Option<&ReplayerStatus>) -> Value {
    let Some(out) = state.locations.get(&it.destination).and_then(|l| l.out_of_sync) else { return Value::Null };
    let dirty = replayer.and_then(|r| r.dirty);
    json!({
        "since": time(out.since),
        "from_lsn": out.from.0,
        "dirty_nodes": dirty.map(|(nodes, _, _)| nodes),
        "dirty_names": dirty.map(|(_, names, _)| names),
        "dirty_bytes": dirty.map(|(_, _, bytes)| bytes),
    })
}

fn pin(state: &State, pin: &JournalPin) -> Value {
    let out = state.locations.get(&pin.location).and_then(|l| l.out_of_sync);
    json!({
        "location": state.location_name(pin.location),
        "cursor_lsn": pin.cursor.0,
        "bytes": pin.bytes,
        "out_of_sync_since": out.map(|out| time(out.since)),
    })
}

pub(super) fn errors(it: &Job) -> Value {
    let error = |(node, e): (&journal_format::ids::NodeId, &crate::state::JobError)| {
        json!({
            "node": node.0,
            "path": text::escape(&e.path),
            "error": e.error,
            "fatal": e.fatal,
            "time": time(e.time),
        })
    };
    Value::Array(it.errors.iter().map(error).collect())
}

/// The lists, in id order.
pub(super) fn filers(state: &State) -> Value {
    Value::Array(state.filers.iter().map(|(id, f)| filer(state, *id, f)).collect())
}

pub(super) fn junctions(state: &State, nfs: SocketAddr) -> Value {
    Value::Array(state.junctions.iter().map(|(id, j)| junction(state, *id, j, nfs)).collect())
}

pub(super) fn jobs(state: &State, port: &dyn Port) -> Value {
    Value::Array(state.jobs.iter().map(|(id, j)| job(state, *id, j, port.replayer(j.destination))).collect())
}

/// What is wrong; healthy: the service has no problem and no job waits for an operator.
pub(super) fn problems(state: &State, service: &ServiceStatus) -> Vec<String> {
    let mut problems = service.problems.clone();
    for (id, job) in &state.jobs {
        // An operator's own pause has no reason.
        if job.state == JobState::Paused && !job.reason.is_empty() {
            problems.push(format!("job {id} has paused: {}", job.reason));
        }
    }
    problems
}

/// Everything at a glance.
pub(super) fn status(port: &dyn Port) -> Value {
    let state = port.state();
    let service = port.status();
    let problems = problems(&state, &service);
    json!({
        "healthy": problems.is_empty(),
        "problems": problems,
        "version": env!("CARGO_PKG_VERSION"),
        "nfs": service.nfs.to_string(),
        "journal": {
            "id": text::hex(&port.journal_id()),
            "start_lsn": service.start_lsn.0,
            "durable_lsn": service.durable_lsn.0,
            "end_lsn": service.end_lsn.0,
            "bytes": service.journal_bytes,
            "soft_limit_bytes": service.journal_soft_limit_bytes,
            "limit_bytes": service.journal_limit_bytes,
            "append": service.journal_append,
            "refusals": service.journal_refusals,
            "pins": service.pins.iter().map(|pin| self::pin(&state, pin)).collect::<Vec<_>>(),
        },
        "filers": filers(&state),
        "junctions": junctions(&state, service.nfs),
        "policies": self::policies(&state),
        "jobs": jobs(&state, port),
        "locks": {
            "held": service.locks.held,
            "waiting": service.locks.waiting,
            "hosts": service.locks.hosts,
            "grace_s": service.locks.grace_s,
        },
        "procedures": service.procedures.iter().map(procedure).collect::<Vec<_>>(),
    })
}

fn procedure(it: &ProcedureTimes) -> Value {
    json!({
        "name": it.name,
        "calls": it.calls,
        "median_us": it.median_us,
        "p99_us": it.p99_us,
        "longest_us": it.longest_us,
    })
}

/// The exact command that mounts a path of the namespace on this machine.
pub fn mount_command(nfs: SocketAddr, path: &[Vec<u8>]) -> String {
    let port = nfs.port();
    let (host, proto) = match nfs {
        SocketAddr::V4(a) if a.ip().is_unspecified() => ("127.0.0.1".into(), "tcp"),
        SocketAddr::V4(a) => (a.ip().to_string(), "tcp"),
        SocketAddr::V6(a) if a.ip().is_unspecified() => ("[::1]".into(), "tcp6"),
        SocketAddr::V6(a) => (format!("[{}]", a.ip()), "tcp6"),
    };
    let options = format!("vers=3,proto={proto},port={port},mountport={port},mountproto={proto},nolock");
    let source: Vec<u8> = host.bytes().chain([b':']).chain(path.iter().flat_map(|n| [b"/", &n[..]].concat())).collect();
    format!("mount -t nfs -o {options} {} /mnt", shell_word(&source))
}

/// One word of a shell (bash, for bytes beyond ASCII).
fn shell_word(word: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/:._-+,@[]".contains(b);
    match std::str::from_utf8(word) {
        Ok(text) if word.iter().all(plain) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => format!("$'{}'", text::escape(word).replace('\'', "\\'")),
    }
}

/// RFC 3339 in UTC, to the second.
fn time(time: Time) -> String {
    let seconds = time.0.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the proleptic Gregorian calendar, in eras of 400 years that begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(time(Time(seconds * 1_000_000_000)), shown);
        }
    }

    #[test]
    fn the_mount_command_can_be_pasted() {
        let command = |addr: &str, path: &[&[u8]]| {
            let path: Vec<Vec<u8>> = path.iter().map(|n| n.to_vec()).collect();
            mount_command(addr.parse().unwrap(), &path)
        };
        assert_eq!(
            command("127.0.0.1:2049", &[b"data", b"a"]),
            "mount -t nfs -o vers=3,proto=tcp,port=2049,mountport=2049,mountproto=tcp,nolock 127.0.0.1:/data/a /mnt"
        );
        assert!(command("0.0.0.0:1", &[b"a b"]).ends_with("nolock '127.0.0.1:/a b' /mnt"));
        assert!(command("[::]:1", &[b"a\xff'"]).ends_with("mountproto=tcp6,nolock $'[::1]:/a\\xff\\'' /mnt"));
    }
}
