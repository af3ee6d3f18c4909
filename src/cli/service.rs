//! `tain serve`, `tain demo`, `tain check-config`, `tain status`

use super::output::{duration, field, items, size, table};
use super::{Context, DemoArgs, Done, Failure, filer, job, junction, print, wired};
use crate::config::{Append, Config};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

pub(super) async fn serve(file: Option<&Path>) -> Done {
    let config = load(file)?;
    let failed = |e: anyhow::Error| {
        Failure::new(
            format!("{e:#}"),
            "mend what it says and start again; 'tain check-config' judges the configuration",
        )
    };
    wired::serve(config).await.map_err(failed)
}

pub(super) async fn demo(args: DemoArgs) -> Done {
    wired::demo(args).await.map_err(|e| Failure::new(format!("the demo failed: {e:#}"), "the output above tells where"))
}

fn load(file: Option<&Path>) -> Result<Config, Failure> {
    Config::load(file).map_err(|e| Failure::new(e.to_string(), "correct the config file; tain check-config judges it"))
}

pub(super) fn check_config(file: Option<&Path>, as_json: bool, out: &mut (dyn Write + Send)) -> Done {
    let c = load(file)?;
    let append = c.journal.append.map(|a| match a {
        Append::Direct => "direct",
        Append::Buffered => "buffered",
        Append::Map => "map",
    });
    let document = json!({
        "journal": {
            "dir": c.journal.dir.to_string_lossy(),
            "segment_size": c.journal.segment_size,
            "soft_limit": c.journal.soft_limit,
            "hard_limit": c.journal.hard_limit,
            "append": append,
            "any_file_system": c.journal.any_file_system,
            "archive": c.journal.archive,
        },
        "nfs": {
            "listen": c.nfs.listen.to_string(),
            "grace": c.nfs.grace.as_secs(),
            "rpcbind": c.nfs.rpcbind,
            "client_portmapper": c.nfs.client_portmapper,
        },
        "api": {
            "listen": c.api.listen.to_string(),
            "token_file": c.api.token_file.map(|p| p.to_string_lossy().into_owned()),
        },
        "state": {"dir": c.state.dir.to_string_lossy()},
    });
    if as_json {
        return print(out, &format!("{document:#}"));
    }
    let mut text = String::new();
    for (section, values) in document.as_object().into_iter().flatten() {
        for (key, value) in values.as_object().into_iter().flatten() {
            let shown = if value.is_null() { "(not set)".to_owned() } else { value.to_string() };
            text += &format!("{section}.{key} = {shown}\n");
        }
    }
    print(out, text.trim_end())
}

pub(super) async fn status(cx: &mut Context<'_>) -> Done {
    let status = cx.client.get("/status").await?;
    cx.print(&status, lines)?;
    if status.get("healthy") == Some(&Value::Bool(true)) {
        return Ok(());
    }
    let problems = status.get("problems").map(items).unwrap_or_default();
    let problems: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
    Err(Failure::new(format!("not healthy: {}", problems.join("; ")), "the service's log tells more"))
}

fn lines(status: &Value) -> String {
    let null = Value::Null;
    let part = |key: &str| status.get(key).unwrap_or(&null);
    let healthy = if part("healthy") == &Value::Bool(true) { "healthy" } else { "NOT HEALTHY" };
    let mut out = format!("tain {}  {healthy}  NFS on {}\n", field(status, "version"), field(status, "nfs"));
    let journal = |key: &str| part("journal").get(key).and_then(Value::as_u64).unwrap_or(0);
    let (used, limit) = (size(journal("bytes")), size(journal("limit_bytes")));
    out += &format!("journal {used} of {limit}, durable to {}\n", journal("durable_lsn"));
    for pin in items(part("journal").get("pins").unwrap_or(&null)) {
        let bytes = pin.get("bytes").and_then(Value::as_u64).unwrap_or(0);
        if bytes > 0 {
            out += &format!("  {} of it kept for {}\n", size(bytes), field(pin, "location"));
        }
    }
    out += &locks(part("locks"));
    for problem in items(part("problems")).iter().filter_map(Value::as_str) {
        out += &format!("problem: {problem}\n");
    }
    for (key, lines) in
        [("filers", filer::lines as fn(&Value) -> String), ("junctions", junction::lines), ("jobs", job::lines)]
    {
        if !items(part(key)).is_empty() {
            out += &format!("\n{}", lines(part(key)));
        }
    }
    let procedures = items(part("procedures"));
    if !procedures.is_empty() {
        out += &format!("\n{}", times(procedures));
    }
    out
}

/// What is locked, where anything is.
fn locks(locks: &Value) -> String {
    let number = |key: &str| locks.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (held, waiting, hosts) = (number("held"), number("waiting"), number("hosts"));
    let grace = match number("grace_s") {
        0 => String::new(),
        left => format!("; after the restart only claims are granted, for {left} s more"),
    };
    if held + waiting + hosts == 0 {
        return String::new();
    }
    format!("locks: {held} held, {waiting} waiting, {hosts} hosts monitored{grace}\n")
}

/// How long calls take, the most frequent first.
fn times(procedures: &[Value]) -> String {
    let number = |p: &Value, key: &str| p.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut procedures: Vec<&Value> = procedures.iter().collect();
    procedures.sort_by_key(|p| std::cmp::Reverse(number(p, "calls")));
    let row = |p: &&Value| {
        let time = |key| duration(number(p, key));
        [field(p, "name"), number(p, "calls").to_string(), time("median_us"), time("p99_us"), time("longest_us")]
    };
    table(["CALL", "COUNT", "MEDIAN", "99 %", "LONGEST"], &procedures.iter().map(row).collect::<Vec<_>>())
}
