//! The last step of a job that has switched its junction: the old side is left as it was at the switch, without what
//! tain kept there (owner marker, pen), so that anybody may use it. Then the job is completed.
//!
//! Runs again from the beginning after a crash. An old side that cannot be reached does not keep the job from ending:
//! it is clients' no more, and the reason says what stays there.
//!
//! Until the job has ended nobody may use the place (`State::tidied_by`): so what is taken away here is never what
//! somebody else has put there since. A call that hangs then may still come through when the filer answers; nothing is
//! begun behind it.

use super::destination::to;
use crate::core::{Core, Error};
use crate::filer::fence::{Fenced, Reached};
use crate::filer::{self, Changes, CoreFiler, ErrorKind, OwnerMarker};
use crate::state::State;
use journal_format::event::JobState;
use journal_format::ids::{JobId, LocationId};
use std::sync::Arc;
use std::time::Duration;

/// How long the old side may take.
const OLD_SIDE_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

pub(super) async fn finish(core: Core, job: JobId) {
    let state = core.ledger.state();
    let Some(old) = state.jobs.get(&job).map(|job| job.source) else { return };
    let (of, there) = (core.clone(), state.clone());
    let reach = move || -> Reached { Box::pin(reach(of.clone(), there.clone(), old)) };
    let there = Arc::new(Fenced::later(Box::new(reach)));
    let fence = there.fence.clone();
    let journal_id = core.ledger.journal.id();
    let mut left = tokio::spawn(async move { take_away(there.as_ref(), journal_id, old).await });
    let why = match tokio::time::timeout(OLD_SIDE_MAX, &mut left).await {
        Ok(Ok(Ok(()))) => String::new(),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => {
            fence.close();
            left.abort();
            format!("no answer within {OLD_SIDE_MAX:?}")
        }
    };
    let mut reason = String::new();
    if !why.is_empty() {
        reason = format!("{} keeps tain's owner marker: {why}", state.location_name(old));
        tracing::warn!(%job, reason, "the old side could not be tidied up");
    }
    if let Err(Error::Journal(error)) = to(&core, job, JobState::Completed, &reason).await {
        tracing::error!(%job, %error, "the job's end could not be recorded");
    }
}

async fn reach(core: Core, state: Arc<State>, old: LocationId) -> filer::Result<Arc<dyn CoreFiler>> {
    let at = state.locations.get(&old).and_then(|at| Some((at, state.filers.get(&at.filer)?)));
    let Some((at, filer)) = at else {
        return Err(filer::Error::new(ErrorKind::Down, "reach the old side", "its filer was removed"));
    };
    core.filers.open(&filer.url, &filer.root, &at.subdir, Some(&at.root)).await
}

/// The root's time is the tree's, not that of our taking something away. A marker that is another location's stays:
/// somebody uses the place again. (Another tain counts its locations, too.)
async fn take_away(there: &dyn CoreFiler, journal_id: [u8; 16], old: LocationId) -> filer::Result<()> {
    let root = there.root().await?;
    let before = there.stat(&root).await?;
    let ours = |marker: OwnerMarker| marker.journal_id == journal_id && marker.location == old.0;
    if !there.owner().await?.is_some_and(ours) {
        return Ok(());
    }
    let pen = there.remove_pen().await;
    let marker = there.unclaim().await;
    if there.stat(&root).await?.mtime != before.mtime {
        there.set(&root, Changes { mtime: Some(before.mtime), ..Changes::default() }).await?;
    }
    there.sync().await?;
    pen.and(marker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filer::memory::Memory;

    #[tokio::test]
    async fn what_bears_another_tains_marker_is_left_as_it_is() {
        let there = Memory::default();
        let theirs = OwnerMarker { journal_id: [9; 16], location: 1, epoch: 1 };
        there.claim(&theirs).await.unwrap();
        take_away(&there, [1; 16], LocationId(1)).await.unwrap();
        assert_eq!(there.owner().await.unwrap(), Some(theirs));
        take_away(&there, [9; 16], LocationId(1)).await.unwrap();
        assert_eq!(there.owner().await.unwrap(), None);
    }
}
