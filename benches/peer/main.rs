//! A raw NFSv3 load on any server, with many calls in flight: what `benches/peer.sh` runs against tain and nfs-ganesha.
//!
//! ```text
//! peer run --port P [--mount-port P] [--export /] --pid PID [--mib 1024] [--calls 10000] [--tree 20000] [ROW…]
//! peer table NAME,NAME FILE… -- FILE…
//! ```
//!
//! `run` prints a line a row: `row calls bytes seconds median_us p99_us cpu_seconds peak_mib`, tab by tab; `table` puts
//! rounds of two servers side by side. It shares no code with the service, needs nothing but the standard library, and
//! looks at every status and count that is answered: a server that is fast because it fails is an error.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::doc_markdown,
    reason = "a bench that fails stops, and times things; its numbers are small"
)]

mod pump;
mod rows;
mod server;
mod table;
mod wire;

use rows::{Done, ROWS, Rows};
use server::Server;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

pub type Failed = Box<dyn std::error::Error>;

pub struct Options {
    port: u16,
    mount_port: u16,
    export: String,
    pid: u32,
    /// Of large files.
    mib: u64,
    /// Of small ones.
    calls: u64,
    /// Files in the tree.
    tree: u64,
    /// Those wanted; none: all.
    rows: Vec<String>,
}

fn main() -> ExitCode {
    // Cargo adds `--bench` to what it was given.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let done = match args.split_first() {
        Some((what, args)) if what == "run" => options(args).and_then(run),
        Some((what, args)) if what == "table" => table(args),
        _ => {
            eprintln!("peer run … or peer table …: benches/peer.sh calls it");
            return ExitCode::SUCCESS;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: &[String]) -> Result<Options, Failed> {
    let mut options = Options {
        port: 0,
        mount_port: 0,
        export: "/".into(),
        pid: 0,
        mib: 1024,
        calls: 10_000,
        tree: 20_000,
        rows: vec![],
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg}: no value"));
        match arg.as_str() {
            "--port" => options.port = value()?.parse()?,
            "--mount-port" => options.mount_port = value()?.parse()?,
            "--export" => options.export = value()?.clone(),
            "--pid" => options.pid = value()?.parse()?,
            "--mib" => options.mib = value()?.parse()?,
            "--calls" => options.calls = value()?.parse()?,
            "--tree" => options.tree = value()?.parse()?,
            row if ROWS.iter().any(|(name, ..)| *name == row) => options.rows.push(row.into()),
            other => return Err(format!("{other} is no option and no row").into()),
        }
    }
    if options.mount_port == 0 {
        options.mount_port = options.port;
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), Failed> {
    let server = Server::new(options.pid)?;
    let wanted = options.rows.clone();
    let mut rows = Rows::new(options)?;
    for (name, prepare, row) in ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let failed = |error: Failed| format!("{name}: {error}");
        prepare(&mut rows).map_err(failed)?;
        // What rows before it left to be written is not this row's.
        Command::new("sync").status()?;
        server.reset_peak()?;
        let (begun, cpu) = (Instant::now(), server.cpu()?);
        let done = row(&mut rows).map_err(failed)?;
        print(name, done, begun.elapsed(), server.cpu()? - cpu, server.peak()?);
    }
    Ok(())
}

fn print(name: &str, mut done: Done, took: Duration, cpu: f64, peak: u64) {
    done.latencies.sort_unstable();
    let at = |part: usize| {
        let place = (done.latencies.len() * part / 100).min(done.latencies.len().saturating_sub(1));
        done.latencies.get(place).map_or(0, Duration::as_micros)
    };
    let (calls, bytes, seconds) = (done.calls, done.bytes, took.as_secs_f64());
    println!("{name}\t{calls}\t{bytes}\t{seconds:.4}\t{}\t{}\t{cpu:.2}\t{peak}", at(50), at(99));
}

fn table(args: &[String]) -> Result<(), Failed> {
    let (names, files) = args.split_first().ok_or("no names")?;
    let (one, other) = names.split_once(',').ok_or("two names")?;
    let between = files.iter().position(|arg| arg == "--").ok_or("no -- between the servers' files")?;
    table::print([one, other], [&files[..between], &files[between + 1..]])
}
