//! What a journaled operation did, as far as a reply to it shows.

use journal_format::event::{Caller, Event};
use journal_format::ids::{JunctionId, NodeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Wrote { node: NodeId, count: u32 },
    Set { node: NodeId },
    Made { dir: NodeId, node: NodeId },
    Removed { dir: NodeId },
    Renamed { from: NodeId, to: NodeId, node: NodeId },
    Linked { node: NodeId, dir: NodeId },
}

/// How a journaled operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub junction: JunctionId,
    pub effect: Effect,
    /// The nfsstat3 of a failure.
    pub failed: Option<u32>,
}

/// Who asked for an operation, and what it does when it is done; `None`: the event is no client's.
#[must_use]
pub fn operation(event: &Event) -> Option<(&Caller, JunctionId, Effect)> {
    Some(match event {
        Event::Write(e) => (&e.caller, e.junction, Effect::Wrote { node: e.node, count: e.len }),
        Event::SetAttr(e) => (&e.caller, e.junction, Effect::Set { node: e.node }),
        Event::Make(e) => (&e.caller, e.junction, Effect::Made { dir: e.dir, node: e.node }),
        Event::Remove(e) => (&e.caller, e.junction, Effect::Removed { dir: e.dir }),
        Event::Rename(e) => (&e.caller, e.junction, Effect::Renamed { from: e.from_dir, to: e.to_dir, node: e.node }),
        Event::Link(e) => (&e.caller, e.junction, Effect::Linked { node: e.node, dir: e.dir }),
        _ => return None,
    })
}
