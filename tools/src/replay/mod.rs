//! `tain-journal replay`: advance a copy of a junction's tree to a later position: recovery to a point in time.
//!
//! The copy was made when the tree held everything before a known LSN (the service stopped, or a file system's snapshot
//! while no client wrote). Beside it lies a directory of state: which object of the copy is which node, and how far it
//! has come. With that a replay that was cut short is taken up, and replaying again changes nothing:
//!
//! ```text
//! first   names as of the base's LSN, from the journal's beginning ──► looked for in the copy, all of them must be there
//! then    a stretch of the journal: objects met in it are looked up, and that is made durable, with the stretch's end
//!         ──► names, by identity ──► bytes and attributes in LSN order ──► times ──► sync ──► position made durable
//! ```
//!
//! The service's own code carries it out (as it redoes a location after a crash): judged by the names as they are at the
//! stretch's end, from any state in between. A stretch that was begun is always replayed to its end, or further.

mod engine;
mod history;
mod junction;

use crate::directory::Directory;
use crate::position::Position;
use crate::show;
use anyhow::{Context, Result, bail};
use clap::Args;
use engine::{Engine, Meta};
use history::History;
use journal_format::event::JunctionAdded;
use junction::{Wanted, choose};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Replay {
    /// The journal's directory, archives of it, or both
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// The copy of the junction's tree; it is changed
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// What the copy holds: everything before this LSN. Needed the first time
    #[arg(long, value_name = "LSN")]
    base_lsn: Option<u64>,
    /// The junction's path, when the journal knows several; of those that it led to, the one at the base's LSN is taken
    #[arg(long, value_name = "PATH")]
    junction: Option<String>,
    /// The junction's id, when the path does not tell which
    #[arg(long, value_name = "N")]
    junction_id: Option<u32>,
    /// Where to stop: everything that ended before this LSN, or was written up to this time. Without it: the end
    #[arg(long, value_name = "LSN|TIME")]
    to: Option<Position>,
    /// Where it is kept what the copy holds; beside it, as TREE.tain-replay, when not given
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Replay again from this LSN, which the copy is past already: it comes to the same tree
    #[arg(long, value_name = "LSN")]
    again_from: Option<u64>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Replay, out: &mut dyn Write) -> Result<()> {
    let tree = args.tree.canonicalize().with_context(|| format!("cannot find {}", args.tree.display()))?;
    let state = args.state.clone().unwrap_or_else(|| beside(&tree));
    let history = History::open(Directory::open(&args.dirs)?, args.to)?;
    let known = Meta::load(&state)?;
    let added = junction(args, &history, known.as_ref())?;
    let meta = match known {
        Some(meta) if meta.journal_id != show::hex(&history.id) => {
            bail!("{} belongs to a copy that another journal was replayed on", state.display());
        }
        Some(meta) if args.base_lsn.is_some_and(|lsn| lsn != meta.base_lsn) => {
            bail!(
                "the copy was of LSN {}; to begin anew, make a fresh copy and remove {}",
                meta.base_lsn,
                state.display()
            );
        }
        Some(meta) => meta,
        None => {
            let Some(base_lsn) = args.base_lsn else {
                bail!("{} is not there: say with --base-lsn what the copy holds", state.display());
            };
            Meta::new(&history.id, added, base_lsn)
        }
    };
    if history.to < meta.base_lsn.max(meta.high_lsn) {
        bail!(
            "the copy holds what is before LSN {} already, and replay only goes forward (asked: {}): begin with a fresh copy",
            meta.base_lsn.max(meta.high_lsn),
            history.to
        );
    }
    std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let lock = File::create(state.join("lock")).with_context(|| format!("cannot write in {}", state.display()))?;
    lock.try_lock().with_context(|| format!("another replay is at work in {}", state.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut engine = Engine::open(&history, &tree, &state, meta).await?;
        engine.rewind(args.again_from).await?;
        engine.run().await
    })?;
    let report = json!({ "tree": tree.display().to_string(), "state": state.display().to_string(),
        "junction": show::path(&added.path), "from_lsn": done.from, "to_lsn": history.to,
        "operations": done.operations, "bytes": done.bytes });
    match args.json {
        true => writeln!(out, "{report}")?,
        false => writeln!(
            out,
            "{} holds everything before LSN {}: {} operations from LSN {} on, {} bytes",
            tree.display(),
            history.to,
            done.operations,
            done.from,
            done.bytes
        )?,
    }
    Ok(())
}

fn beside(tree: &Path) -> PathBuf {
    let mut name = tree.file_name().unwrap_or_default().to_owned();
    name.push(".tain-replay");
    tree.with_file_name(name)
}

fn junction<'a>(args: &Replay, history: &'a History, known: Option<&Meta>) -> Result<&'a JunctionAdded> {
    let of_copy = known.map(|meta| meta.junction);
    if let (Some(id), Some(asked)) = (of_copy, args.junction_id)
        && id != asked
    {
        bail!("the copy is one of the junction with the id {id}");
    }
    let wanted = Wanted { path: args.junction.as_deref(), id: of_copy.or(args.junction_id), base_lsn: args.base_lsn };
    match choose(&history.junctions, &wanted)? {
        Some(one) => Ok(one),
        None if history.start > 4096 => {
            bail!(
                "the journal at hand begins at LSN {}, behind the junction's beginning: give the archives too",
                history.start
            )
        }
        None => bail!("the journal knows no such junction"),
    }
}
