//! A job's progress: counts, and what could not be copied. Which node is where is the projection's matter.

use super::{Job, JobError, State};
use journal_format::event::{CopyDone, Listed};
use journal_format::ids::{JobId, Time};

/// The job an event of its replayer or copier is about. One that has ended or left the list meanwhile is let pass (the
/// event raced with the command); one that never was contradicts.
fn job(state: &mut State, id: JobId) -> Result<Option<&mut Job>, String> {
    if id.0 >= state.next.job {
        return Err(format!("job {id} was never created"));
    }
    Ok(state.jobs.get_mut(&id))
}

pub(super) fn done(state: &mut State, e: &CopyDone, time: Time) -> Result<(), String> {
    let Some(job) = job(state, e.job)? else { return Ok(()) };
    let progress = &mut job.progress;
    progress.files = progress.files.saturating_add(e.files_made);
    progress.dirs = progress.dirs.saturating_add(e.dirs_made);
    for range in &e.ranges {
        if !range.void {
            progress.bytes = progress.bytes.saturating_add(range.len);
            progress.ranges = progress.ranges.saturating_add(1);
        }
        if range.last || range.void {
            job.errors.remove(&range.node);
        }
    }
    for failed in &e.failed {
        progress.failed = progress.failed.saturating_add(1);
        let error = JobError { path: failed.path.clone(), error: failed.error.clone(), fatal: failed.fatal, time };
        // At the bound the count goes on and the list does not: the job pauses before it comes to that.
        if job.errors.len() < Job::ERRORS_MAX || job.errors.contains_key(&failed.node) {
            job.errors.insert(failed.node, error);
        }
    }
    Ok(())
}

pub(super) fn listed(state: &mut State, e: &Listed) -> Result<(), String> {
    let Some(job) = job(state, e.job)? else { return Ok(()) };
    if e.last {
        // The directory could be listed after all.
        job.errors.remove(&e.dir);
    }
    Ok(())
}
