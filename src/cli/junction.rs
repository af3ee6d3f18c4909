//! `tain junction`

use super::output::{field, fields, items, remarks, table};
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
        /// The access policy: who may use it [default: local, which lets in this machine alone]
        #[arg(long, value_name = "POLICY")]
        access: Option<String>,
    },
    /// All junctions
    List,
    /// One junction
    Show { path: Bytes },
    /// Change a junction's settings; clients go on with the new ones at once
    Modify {
        path: Bytes,
        /// The access policy: who may use it
        #[arg(long, value_name = "POLICY")]
        access: String,
    },
    /// Let its clients wait: from now on each of their calls is answered "try again later"
    Suspend { path: Bytes },
    /// Let its clients go on
    Resume { path: Bytes },
    /// Take a junction out of the namespace; the data stays where it is
    Remove { path: Bytes },
}

pub(super) async fn run(cx: &mut Context<'_>, verb: Verb) -> Done {
    match verb {
        Verb::Add { path, location, access } => {
            let body = json!({"path": escaped(&path), "location": escaped(&location), "access": access});
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
            cx.print(&junction, |d| fields(d, &["path", "location", "access", "state", "job", "added", "mount"]))
        }
        Verb::Modify { path, access } => change(cx, &path, &json!({"access": access})).await,
        Verb::Suspend { path } => change(cx, &path, &json!({"suspended": true})).await,
        Verb::Resume { path } => change(cx, &path, &json!({"suspended": false})).await,
        Verb::Remove { path } => {
            let done = cx.client.delete(&of(&path)).await?;
            if !cx.json {
                remarks(&done);
            }
            cx.print(&done, |_| String::new())
        }
    }
}

async fn change(cx: &mut Context<'_>, path: &Bytes, change: &Value) -> Done {
    let changed = cx.client.patch(&of(path), change).await?;
    if !cx.json {
        remarks(&changed);
    }
    cx.print(&changed, |_| String::new())
}

fn of(path: &Bytes) -> String {
    format!("/junctions/{}", segment(&escaped(path)))
}

pub(super) fn lines(list: &Value) -> String {
    let keys = ["path", "location", "access", "state", "job", "mount"];
    let row = |j: &Value| keys.map(|key| field(j, key));
    table(
        ["PATH", "LOCATION", "ACCESS", "STATE", "JOB", "MOUNT WITH"],
        &items(list).iter().map(row).collect::<Vec<_>>(),
    )
}
