//! `tain-journal`: look into a journal and archives of it, beside the running service or without it, whole or damaged.
//! Reads only, but for `archive` (which writes elsewhere) and `repair` (only when told to); all but `replay` need nothing
//! of the service, so that a journal can be read where the service does not even build.

mod archive;
mod damage;
mod directory;
mod dump;
mod filter;
mod info;
mod line;
mod names;
mod position;
mod repair;
#[cfg(feature = "replay")]
mod replay;
mod segment;
mod show;
mod sides;
mod stats;
mod verify;

use clap::{Parser, Subcommand};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// Look into a tain journal. Exit status: 0 done, 1 refused or damaged, 2 usage.
#[derive(Parser)]
#[command(name = "tain-journal", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Segments, positions, times, junctions and cursors, at a glance
    Info(info::Info),
    /// Every record, a line each
    Dump(dump::Dump),
    /// Who did how much, where, and when
    Stats(stats::Stats),
    /// Put closed segments into a directory of archives
    Archive(archive::Archive),
    /// Cut what is damaged, when nothing else helps; only tells what it would do, unless told to write
    Repair(repair::Repair),
    /// Advance a copy of a junction's tree to a later position: recovery to a point in time
    #[cfg(feature = "replay")]
    Replay(replay::Replay),
    /// Check every record; tells a torn tail from corruption (exit status 1)
    Verify(verify::Verify),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let done = match &cli.command {
        Command::Info(args) => info::run(args, &mut out),
        Command::Dump(args) => dump::run(args, &mut out).map(|()| true),
        Command::Stats(args) => stats::run(args, &mut out).map(|()| true),
        Command::Archive(args) => archive::run(args, &mut out),
        Command::Repair(args) => repair::run(args, &mut out),
        #[cfg(feature = "replay")]
        Command::Replay(args) => replay::run(args, &mut out).map(|()| true),
        Command::Verify(args) => verify::run(args, &mut out),
    };
    let done = done.and_then(|ok| {
        out.flush()?;
        Ok(ok)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads us has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tain-journal: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
