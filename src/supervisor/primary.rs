//! A primary, from the moment its junction wants it until its junction is gone.

use super::{Board, LOOK, RETRY};
use crate::bring_up::bring_up;
use crate::core::Core;
use crate::filer::ErrorKind;
use crate::location::Location;
use crate::state::Role;
use journal_format::ids::{JunctionId, LocationId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often an idle primary is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Bring it up, however often that takes; then wait until it is not the primary any more.
pub(super) async fn look_after(
    core: Core,
    board: Arc<Board>,
    junction: JunctionId,
    id: LocationId,
    mut stop: watch::Receiver<bool>,
) {
    let mut asked = Instant::now();
    while is_wanted(&core, junction, id) {
        let pause = if let Some(location) = core.locations.get(id) {
            if core.volume.silent().contains_key(&id) {
                core.volume.probe(&location).await;
            } else if asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                is_there(&core, &board, &location).await;
            }
            LOOK
        } else {
            match board.watched(id, "bringing it up", bring_up(&core, junction, id)).await {
                Ok(()) => {
                    board.is_up(id);
                    if !is_wanted(&core, junction, id) {
                        core.locations.remove(id);
                    }
                    continue;
                }
                Err(error) if error.is_the_end() => return,
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

/// A primary that is gone while nobody changes anything is found out here, and one that has come back since, mounted anew:
/// what clients are refused then is nothing that a checkpoint would look at. One that does not answer is found out by those who
/// ask it.
async fn is_there(core: &Core, board: &Board, location: &Location) {
    let why = match tokio::time::timeout(ASK_EVERY, location.filer.root()).await {
        Ok(Err(error)) if error.kind == ErrorKind::Down => error.to_string(),
        Ok(Ok(_)) if location.filer.was_mounted_anew() => "its file system was mounted anew".to_owned(),
        _ => return,
    };
    if core.locations.fall(location.id) {
        tracing::error!(location = %location.id, why, "the primary is gone, or was: its clients wait until it is back, and redone");
        board.is_down(location.id, &why);
    }
}

fn is_wanted(core: &Core, junction: JunctionId, id: LocationId) -> bool {
    core.ledger.state().locations.get(&id).is_some_and(|l| l.role == Role::Primary(junction))
}
