//! The command line: a file per verb. Verbs talk to the running service through its API; `serve`, `demo` and
//! `check-config` do not.
//!
//! Exit status: 0 done; 1 refused or failed, with the reason on stderr in one line and then what to do; 2 usage. With
//! `--json`, stdout is one JSON document. Without, a create prints the new name or number alone on stdout.

mod client;
mod filer;
mod job;
mod junction;
mod output;
mod policy;
mod service;
mod wired;

#[cfg(test)]
mod tests;

use crate::config::Config;
use crate::state::{Refusal, text};
use clap::{Args, Parser, Subcommand};
use client::Client;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Moves live data from one storage system to another while NFS clients go on working.
#[derive(Debug, Parser)]
#[command(name = "tain", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Where the service's API is: unix:///path or http://host:port [default: as the default config file says]
    #[arg(long, global = true, env = "TAIN_API", value_name = "URL")]
    pub api: Option<String>,
    /// A file whose first line is the API's token
    #[arg(long, global = true, env = "TAIN_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the service in the foreground, logs to stderr
    Serve {
        /// The config file [default: /etc/tain/tain.toml, if it is there]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Show it at work: filers, live clients, a move, its switch, a kill and a resume; verifies all
    Demo(DemoArgs),
    /// Core filers: the storage systems
    #[command(subcommand)]
    Filer(filer::Verb),
    /// Junctions: paths that clients mount, and where they lead
    #[command(subcommand)]
    Junction(junction::Verb),
    /// Access policies: which clients may what at a junction
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Moves
    #[command(subcommand)]
    Move(job::MoveVerb),
    /// Jobs: moves that were created
    #[command(subcommand)]
    Job(job::Verb),
    /// Health, junctions and jobs at a glance; exit status 0 when healthy
    Status,
    /// Judge a config file and show what it means
    CheckConfig {
        /// The config file [default: /etc/tain/tain.toml, if it is there]
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Work below this directory, which is kept [default: a temporary one]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// How many files to move
    #[arg(long)]
    pub files: Option<u64>,
    /// How many MiB to move
    #[arg(long)]
    pub mib: Option<u64>,
    /// How many clients work in it meanwhile
    #[arg(long)]
    pub clients: Option<usize>,
}

/// Why a verb was not done: a reason of one line, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub reason: String,
    pub remedy: String,
}

type Done = Result<(), Failure>;

impl Failure {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason, remedy: refusal.remedy }
    }
}

/// The program: the command line to an exit status.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help goes to stdout with 0, errors of usage to stderr with 2; that the terminal is gone changes neither.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let one_line = failure.reason.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            let mut text = format!("tain: {one_line}\n");
            if !failure.remedy.is_empty() {
                text += &format!("{}\n", failure.remedy);
            }
            // That nobody hears it does not change the status.
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// One verb, printing to `out`.
async fn run(cli: Cli, out: &mut (dyn Write + Send)) -> Done {
    let Cli { global, verb } = cli;
    let verb = match verb {
        Verb::Serve { config } => return service::serve(config.as_deref()).await,
        Verb::Demo(args) => return service::demo(args).await,
        Verb::CheckConfig { config } => return service::check_config(config.as_deref(), global.json, out),
        other => other,
    };
    let client = Client::new(&api(&global)?, global.token_file.as_deref())?;
    let mut cx = Context { client, json: global.json, out };
    match verb {
        Verb::Filer(verb) => filer::run(&mut cx, verb).await,
        Verb::Junction(verb) => junction::run(&mut cx, verb).await,
        Verb::Policy(verb) => policy::run(&mut cx, verb).await,
        Verb::Move(verb) => job::create(&mut cx, verb).await,
        Verb::Job(verb) => job::run(&mut cx, verb).await,
        Verb::Status => service::status(&mut cx).await,
        Verb::Serve { .. } | Verb::Demo(_) | Verb::CheckConfig { .. } => Ok(()),
    }
}

/// The API's URL: as told, or as the default config file has it.
fn api(global: &Global) -> Result<String, Failure> {
    if let Some(url) = &global.api {
        return Ok(url.clone());
    }
    let remedy = "name the API: --api URL, or TAIN_API in the environment";
    let config = Config::load(None).map_err(|e| Failure::new(e.to_string(), remedy))?;
    Ok(config.api.listen.to_string())
}

/// What a verb works with.
struct Context<'a> {
    client: Client,
    json: bool,
    out: &'a mut (dyn Write + Send),
}

impl Context<'_> {
    /// The document as it is with `--json`, else the lines.
    fn print(&mut self, document: &Value, lines: impl FnOnce(&Value) -> String) -> Done {
        let text = if self.json { format!("{document:#}") } else { lines(document) };
        print(self.out, text.trim_end_matches('\n'))
    }
}

fn print(out: &mut (dyn Write + Send), text: &str) -> Done {
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as `head` has.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| Failure::new(format!("stdout: {e}"), "")),
    }
}

/// Bytes from the command line, escaped as the API wants names.
fn escaped(arg: &OsStr) -> String {
    text::escape(arg.as_bytes())
}

/// A path that takes the place of one segment of a URL.
fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().fold(String::new(), |mut out, b| {
        if plain(b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}

/// A path or location on the command line: any bytes.
type Bytes = OsString;
