//! `tain filer`

use super::output::{field, fields, items, remarks, table};
use super::{Context, Done, Failure, print, segment};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Add a storage system under a name of your choice
    Add {
        name: String,
        /// posix:///directory
        url: String,
    },
    /// All filers
    List,
    /// One filer
    Show { name: String },
    /// Remove a filer that nothing uses
    Remove { name: String },
    /// Ask a filer whether it is there, is the one that was added, and what it can do
    Check { name: String },
}

pub(super) async fn run(cx: &mut Context<'_>, verb: Verb) -> Done {
    match verb {
        Verb::Add { name, url } => {
            let added = cx.client.post("/filers", &json!({"name": name, "url": url})).await?;
            if !cx.json {
                remarks(&added);
            }
            cx.print(&added, |d| field(d, "name"))
        }
        Verb::List => {
            let list = cx.client.get("/filers").await?;
            cx.print(&list, lines)
        }
        Verb::Show { name } => {
            let filer = cx.client.get(&format!("/filers/{}", segment(&name))).await?;
            let keys =
                ["name", "url", "used_by", "can_chown", "can_mknod", "has_xattrs", "has_holes", "time_granularity_ns"];
            cx.print(&filer, |d| fields(d, &keys))
        }
        Verb::Remove { name } => {
            let done = cx.client.delete(&format!("/filers/{}", segment(&name))).await?;
            cx.print(&done, |_| String::new())
        }
        Verb::Check { name } => {
            let found = cx.client.post(&format!("/filers/{}/check", segment(&name)), &json!({})).await?;
            if found.get("ok") == Some(&Value::Bool(true)) {
                return cx.print(&found, |d| {
                    let remarks = d.get("remarks").map(items).unwrap_or_default();
                    let remarks = remarks.iter().filter_map(Value::as_str);
                    std::iter::once("ok").chain(remarks).map(|line| format!("{line}\n")).collect()
                });
            }
            if cx.json {
                print(cx.out, &format!("{found:#}"))?;
            }
            let reason = format!("filer '{name}': {}", field(&found, "error"));
            Err(Failure::new(reason, "make the storage behind it reachable again, as it was when it was added"))
        }
    }
}

pub(super) fn lines(list: &Value) -> String {
    let row = |f: &Value| [field(f, "name"), field(f, "url"), field(f, "used_by")];
    table(["NAME", "URL", "USED BY"], &items(list).iter().map(row).collect::<Vec<_>>())
}
