//! `tain junction`

use super::output::{field, fields, items, table};
use super::{Bytes, Context, Done, escaped, segment};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Let a path of the namespace lead to a directory of a filer; prints the path, and how to mount it
    Add {
        /// Absolute path that clients will see
        path: Bytes,
        /// FILER:/directory
        location: Bytes,
    },
    /// All junctions
    List,
    /// One junction
    Show { path: Bytes },
    /// Take a junction out of the namespace; the data stays where it is
    Remove { path: Bytes },
}

pub(super) async fn run(cx: &mut Context<'_>, verb: Verb) -> Done {
    match verb {
        Verb::Add { path, location } => {
            let body = json!({"path": escaped(&path), "location": escaped(&location)});
            let added = cx.client.post("/junctions", &body).await?;
            if !cx.json {
                eprintln!("mount it with: {}", field(&added, "mount"));
            }
            cx.print(&added, |d| field(d, "path"))
        }
        Verb::List => {
            let list = cx.client.get("/junctions").await?;
            cx.print(&list, lines)
        }
        Verb::Show { path } => {
            let junction = cx.client.get(&of(&path)).await?;
            cx.print(&junction, |d| fields(d, &["path", "location", "job", "added", "mount"]))
        }
        Verb::Remove { path } => {
            let done = cx.client.delete(&of(&path)).await?;
            cx.print(&done, |_| String::new())
        }
    }
}

fn of(path: &Bytes) -> String {
    format!("/junctions/{}", segment(&escaped(path)))
}

pub(super) fn lines(list: &Value) -> String {
    let row = |j: &Value| [field(j, "path"), field(j, "location"), field(j, "job"), field(j, "mount")];
    table(["PATH", "LOCATION", "JOB", "MOUNT WITH"], &items(list).iter().map(row).collect::<Vec<_>>())
}
