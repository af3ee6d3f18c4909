//! `tain policy`

use super::output::{field, fields, items, table};
use super::{Context, Done, segment};
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Add an access policy: which clients may what; the first rule that covers a client decides, others are refused
    Add {
        name: String,
        /// CLIENT=OPTION,... with CLIENT as *, 10.0.0.7 or 10.0.0.0/8; options: rw, ro or none; root_squash (default),
        /// no_root_squash or all_squash; anonuid=N, anongid=N; secure (default: from ports below 1024) or insecure
        #[arg(required = true, value_name = "RULE")]
        rules: Vec<String>,
    },
    /// All policies, the built-in one first
    List,
    /// One policy
    Show { name: String },
    /// Give a policy other rules; clients are judged by them at once
    Modify {
        name: String,
        /// All its rules from now on, as for add
        #[arg(required = true, value_name = "RULE")]
        rules: Vec<String>,
    },
    /// Remove a policy that no junction has
    Remove { name: String },
}

pub(super) async fn run(cx: &mut Context<'_>, verb: Verb) -> Done {
    let of = |name: &str| format!("/policies/{}", segment(name));
    match verb {
        Verb::Add { name, rules } => {
            let added = cx.client.post("/policies", &json!({"name": name, "rules": rules})).await?;
            cx.print(&added, |d| field(d, "name"))
        }
        Verb::List => {
            let list = cx.client.get("/policies").await?;
            cx.print(&list, lines)
        }
        Verb::Show { name } => {
            let policy = cx.client.get(&of(&name)).await?;
            cx.print(&policy, |d| {
                let rules = d.get("rules").map(items).unwrap_or_default().iter().filter_map(Value::as_str);
                let rules: String = rules.map(|rule| format!("  {rule}\n")).collect();
                fields(d, &["name", "used_by"]) + "rules\n" + &rules
            })
        }
        Verb::Modify { name, rules } => {
            let changed = cx.client.put(&of(&name), &json!({"rules": rules})).await?;
            cx.print(&changed, |_| String::new())
        }
        Verb::Remove { name } => {
            let done = cx.client.delete(&of(&name)).await?;
            cx.print(&done, |_| String::new())
        }
    }
}

fn lines(list: &Value) -> String {
    let row = |p: &Value| [field(p, "name"), field(p, "used_by"), field(p, "rules").replace(", ", "  ")];
    table(["NAME", "USED BY", "RULES"], &items(list).iter().map(row).collect::<Vec<_>>())
}
