//! A primary, from the moment its junction wants it until its junction is gone.

use super::{Board, LOOK, RETRY};
use crate::checkpoint;
use crate::core::{Core, Error, Result, open_location};
use crate::location::redo::{self, Redone};
use crate::location::{Location, View};
use crate::state::Role;
use crate::volume::Status as NfsStatus;
use journal_format::event::{Event, Failed, Made, Remove};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Bring it up, however often that takes; then wait until it is not the primary any more.
pub(super) async fn look_after(
    core: Core,
    board: Arc<Board>,
    junction: JunctionId,
    id: LocationId,
    mut stop: watch::Receiver<bool>,
) {
    while is_wanted(&core, junction, id) {
        let pause = if let Some(location) = core.locations.get(id) {
            if core.volume.silent().contains_key(&id) {
                core.volume.probe(&location).await;
            }
            LOOK
        } else {
            match board.watched(id, "bringing it up", bring_up(&core, junction, id)).await {
                Ok(()) => {
                    board.is_up(id);
                    continue;
                }
                Err(Error::Journal(_)) => return, // the process is about to stop
                Err(error) => board.is_down(id, &error.to_string()),
            }
            RETRY
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
    // The junction was removed: who is inside still ends; nobody finds the location any more. (A switch takes the old
    // primary away itself, in the hold.)
    if !core.ledger.state().junctions.contains_key(&junction) {
        let _hold = core.volume.hold(junction);
        core.volume.drained(junction).await;
        core.locations.remove(id);
        core.volume.closed(id);
    }
}

fn is_wanted(core: &Core, junction: JunctionId, id: LocationId) -> bool {
    core.ledger.state().locations.get(&id).is_some_and(|l| l.role == Role::Primary(junction))
}

/// Open a primary and bring it to the journal's end; then clients reach it.
async fn bring_up(core: &Core, junction: JunctionId, id: LocationId) -> Result<()> {
    let state = core.ledger.state();
    let location = open_location(core, &state, id).await?;
    if core.live.node(location.root)?.is_none() {
        return Err(Error::Other("the junction is being added".into()));
    }
    let cursor = state.locations.get(&id).map_or(Lsn(0), |l| l.cursor);
    let begin = Instant::now();
    let Redone { operations, bytes, made, refused } =
        redo::redo(&core.ledger.journal, &core.live, &location, cursor).await?;
    crash_point!("BRING_UP_REDONE");
    for objects in made.chunks(1024) {
        core.ledger.append(&Event::Made(Made { location: id, objects: objects.to_vec() })).await?;
    }
    crash_point!("BRING_UP_MADE");
    for refused in refused {
        refuse(core, junction, &location, &refused).await?;
    }
    if operations > 0 {
        tracing::info!(location = %id, operations, bytes, took = ?begin.elapsed(), "the primary was redone from its cursor");
    }
    crash_point!("BRING_UP_BEFORE_CHECKPOINT");
    checkpoint::primary(core, junction, &location).await?;
    crash_point!("BRING_UP_END");
    if is_wanted(core, junction, id) {
        core.locations.insert(location);
    }
    Ok(())
}
/// What was in the journal without an end, and the filer refuses for good: the operation failed, and no client was
/// answered otherwise.
async fn refuse(core: &Core, junction: JunctionId, location: &Location, refused: &redo::Refused) -> Result<()> {
    tracing::warn!(location = %location.id, op = %refused.op, node = %refused.node, error = refused.error,
        "an operation in doubt was refused by the filer: it failed");
    let at = core.ledger.record(&Event::Failed(Failed { op: refused.op, status: NfsStatus::Io as u32 })).await?;
    let rec = core.live.node(refused.node)?;
    for (dir, name) in View::names(core.live.as_ref(), refused.node, 16)? {
        let kind = rec.as_ref().map_or(journal_format::ids::Kind::File, |rec| rec.kind);
        let remove = Remove {
            junction,
            location: location.id,
            dir,
            name,
            node: NodeId(refused.node.0),
            kind,
            last: true,
            caller: Default::default(),
        };
        core.live.apply(at.lsn, at.time, &Event::Remove(remove))?;
    }
    Ok(())
}
