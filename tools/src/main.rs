//! `tain-journal`: look into a journal, beside the running service or without it, whole or damaged. Reads only; needs
//! nothing of the service, so that a journal can be read where the service does not even start.

mod directory;
mod dump;
mod info;
mod show;
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
    /// Check every record; tells a torn tail from corruption (exit status 1)
    Verify(verify::Verify),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match &cli.command {
        Command::Info(args) => info::run(args, &mut out).map(|()| true),
        Command::Dump(args) => dump::run(args, &mut out).map(|()| true),
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
