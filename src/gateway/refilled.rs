//! Replies to calls that ran before a crash, or after their client had been sent away: made from what the operation did,
//! with present attributes.

use super::convert::post;
use super::nfs::{Session, refuse_with};
use super::status::from_number;
use crate::volume::outcome::{Effect, Outcome};
use crate::volume::types::NodeRef;
use crate::wire::nfs3::{self as wire, Args};
use crate::wire::xdr::Writer;
use journal_format::ids::NodeId;
use nfsserve::nfs::{post_op_attr, pre_op_attr, wcc_data};

impl Session<'_> {
    /// Put the reply; `false` when `outcome` is not one of such a call (which a checksum that fits rules out).
    pub async fn replay(&self, args: &Args, outcome: Outcome, w: &mut Writer) -> bool {
        if let Some(status) = outcome.failed {
            refuse_with(args, from_number(status), w);
            return true;
        }
        let at = |node: NodeId| NodeRef { junction: outcome.junction, node };
        match (args, outcome.effect) {
            (Args::SetAttr(_), Effect::Set { node }) => {
                w.put::<wire::WccRes>(&Ok(self.after(at(node)).await));
            }
            (Args::Write(_), Effect::Wrote { node, count }) => {
                let after = self.after(at(node)).await;
                w.put::<wire::WriteRes>(&Ok(self.written(count, after)));
            }
            // CREATE of a file that was there already may have set attributes only.
            (
                Args::Create(_) | Args::Mkdir(_) | Args::Symlink(_) | Args::Mknod(_),
                Effect::Made { node, .. } | Effect::Set { node },
            ) => {
                let object = Some(self.shared.handle(at(node)));
                let (attr, dir) = (self.attr(at(node)).await, self.after(self.node).await);
                w.put::<wire::MakeRes>(&Ok(wire::MakeOk { object, attr, dir }));
            }
            (Args::Remove(_) | Args::Rmdir(_), Effect::Removed { dir }) => {
                w.put::<wire::WccRes>(&Ok(self.after(at(dir)).await));
            }
            (Args::Rename(_), Effect::Renamed { from, to, .. }) => {
                w.put::<wire::RenameRes>(&Ok((self.after(at(from)).await, self.after(at(to)).await)));
            }
            (Args::Link(_), Effect::Linked { node, dir }) => {
                w.put::<wire::LinkRes>(&Ok((self.attr(at(node)).await, self.after(at(dir)).await)));
            }
            _ => return false,
        }
        true
    }

    /// Whether the names that the call is about lead where it left them: whoever is told then that it is done misses
    /// nothing. `false` too for calls that are not about names.
    pub fn is_as_left(&self, args: &Args, effect: Effect) -> bool {
        let leads = |dir: NodeRef, name: &wire::Name, to: Option<NodeId>| {
            self.shared.backend.leads_to(dir, &name.0).is_ok_and(|found| found == to)
        };
        match (args, effect) {
            (
                Args::Create(wire::CreateArgs { at, .. })
                | Args::Mkdir(wire::MkdirArgs { at, .. })
                | Args::Symlink(wire::SymlinkArgs { at, .. })
                | Args::Mknod(wire::MknodArgs { at, .. }),
                Effect::Made { node, .. },
            ) => leads(self.node, &at.name, Some(node)),
            (Args::Remove(at) | Args::Rmdir(at), Effect::Removed { .. }) => leads(self.node, &at.name, None),
            (Args::Rename(a), Effect::Renamed { node, .. }) => {
                leads(self.node, &a.from.name, None) && leads(self.other, &a.to.name, Some(node))
            }
            (Args::Link(a), Effect::Linked { node, .. }) => leads(self.other, &a.at.name, Some(node)),
            _ => false,
        }
    }

    async fn attr(&self, node: NodeRef) -> post_op_attr {
        post(self.shared.backend.attr_opt(node).await.as_ref())
    }

    async fn after(&self, node: NodeRef) -> wcc_data {
        wcc_data { before: pre_op_attr::Void, after: self.attr(node).await }
    }
}
