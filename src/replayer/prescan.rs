//! What the journal already says behind the last commit: steps that are done, and how the filer names what was made.

use super::Error;
use crate::index::objects::Objects;
use crate::journal::Journal;
use crate::location::carry_out::DoneSteps;
use crate::location::redo::known;
use journal_format::event::Event;
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId};
use std::collections::BTreeSet;

pub struct Prescan {
    pub done: DoneSteps,
    /// Everything that may have been carried out before lies before this LSN.
    pub end: Lsn,
}

pub fn prescan(
    journal: &Journal,
    objects: &Objects,
    (junction, location): (JunctionId, LocationId),
    from: Lsn,
) -> Result<Prescan, Error> {
    let end = journal.durable_lsn();
    let mut done = DoneSteps::new();
    let mut reader = journal.reader_of(junction, from)?;
    while let Some(record) = reader.next(end)? {
        if let Event::CopyDone(e) = &record.event
            && e.location == location
            && !crate::planted::is('h')
        {
            done.extend(e.ranges.iter().map(|range| (range.node, range.offset)));
            // What was given up is copied again from its beginning, perhaps into an object that is made anew.
            let given_up: BTreeSet<NodeId> = e.failed.iter().map(|failed| failed.node).collect();
            done.retain(|(node, _)| !given_up.contains(node));
        }
        known(objects, location, &record.event)?;
    }
    Ok(Prescan { done, end })
}
