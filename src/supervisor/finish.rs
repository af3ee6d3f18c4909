//! The last step of a job that has switched its junction: the old side is left as it was at the switch, without what
//! tain kept there (owner marker, pen), so that anybody may use it. Then the job is completed.
//!
//! Runs again from the beginning after a crash. An old side that cannot be reached does not keep the job from ending:
//! it is clients' no more, and the reason says what stays there.

use super::destination::to;
use crate::core::{Core, Error};
use crate::filer::{self, Changes, CoreFiler};
use crate::state::State;
use journal_format::event::JobState;
use journal_format::ids::{JobId, LocationId};
use std::sync::Arc;
use std::time::Duration;

/// How long the old side may take.
const OLD_SIDE_MAX: Duration = Duration::from_secs(10);

pub(super) async fn finish(core: Core, job: JobId) {
    let state = core.ledger.state();
    let Some(old) = state.jobs.get(&job).map(|job| job.source) else { return };
    let left = tokio::spawn(leave(core.clone(), state.clone(), old));
    let why = match tokio::time::timeout(OLD_SIDE_MAX, left).await {
        Ok(Ok(Ok(()))) => String::new(),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {OLD_SIDE_MAX:?}"),
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

async fn leave(core: Core, state: Arc<State>, old: LocationId) -> filer::Result<()> {
    let Some(at) = state.locations.get(&old) else { return Ok(()) };
    let Some(filer) = state.filers.get(&at.filer) else { return Ok(()) };
    let there = core.filers.open(&filer.url, &filer.root, &at.subdir, Some(&at.root)).await?;
    take_away(there.as_ref(), old).await
}

/// The root's time is the tree's, not that of our taking something away. A marker that is another location's stays:
/// somebody uses the place again.
async fn take_away(there: &dyn CoreFiler, old: LocationId) -> filer::Result<()> {
    let root = there.root().await?;
    let before = there.stat(&root).await?;
    if there.owner().await?.is_none_or(|marker| marker.location != old.0) {
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
