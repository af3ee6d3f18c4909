//! A projection whose store was lost (or is older than its location's cursor) is folded again from the journal, without carrying anything out.

use super::{Error, Feed};
use crate::journal::Journal;
use crate::location::projection::Projection;
use crate::location::redo::recollect;
use journal_format::ids::{JobId, Lsn, NodeId};
use journal_format::segment::BLOCK;

/// Bring a projection to `to`, and commit it there. `false`: the journal does not reach back to the
/// location's beginning; or the location was out of sync, for then what is dirty was in the store too, and what lies
/// before the cursor was not all carried out. For one that is new this does nothing that shows. Blocking.
pub fn rebuild(
    projection: &Projection,
    journal: &Journal,
    job: JobId,
    root: NodeId,
    to: Lsn,
    out_of_sync: bool,
) -> Result<bool, Error> {
    if out_of_sync {
        return Ok(false);
    }
    let whole =
        recollect(journal, &projection.objects, projection.location, to.plus(1)).map_err(|error| match error {
            crate::location::redo::Error::Journal(e) => Error::Journal(e),
            crate::location::redo::Error::Filer(e) => Error::Filer(e),
        })?;
    // An older copy of the store, or one that a rebuild was stopped in, is gone on from.
    let (stated, first) = (projection.store.lsn(), journal.start_lsn());
    // It may state the end of the segment before, and the journal begin behind the header of the next one.
    if stated.plus(BLOCK) < first && !(stated == Lsn(0) && whole) {
        return Ok(false);
    }
    let start = stated.max(first);
    projection.begin(root, start)?;
    let mut feed = Feed::new(journal, projection.junction, start)?;
    let mut position = start;
    while position < to {
        // What a round asks for was carried out, and synced, before the cursor was set.
        (feed, _, position) = feed.collect(projection, job, projection.junction, to, false)?;
        projection.store.commit_if_full(position)?;
    }
    projection.doubt_below_failed()?;
    projection.store.commit(to)?;
    Ok(true)
}
