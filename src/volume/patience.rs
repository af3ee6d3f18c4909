//! Filers that do not answer.
//!
//! A call that changes nothing waits for its filer no longer than [`PATIENCE`]; then its client gets JUKEBOX, and the
//! filer counts as *silent*: from then on the next calls get JUKEBOX at once, but for one every [`PROBE_EVERY`] that
//! finds out whether it answers again. So the calls of a hung junction do not fill the places that the gateway has for
//! a connection, and the other junctions that a client reaches by the same connection are served as before.
//!
//! A call that is given up runs to its end on its thread; what it finds then nobody asks for. The filer bounds how many.

use super::types::Status;
use super::{Volume, run::PATIENCE, status::of_object};
use crate::filer;
use crate::location::Location;
use journal_format::ids::LocationId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often a silent filer is asked again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The locations that are silent. Bound: those that are open.
#[derive(Default)]
pub(super) struct Silent {
    locations: Mutex<BTreeMap<LocationId, Silence>>,
    /// Their number, so that nobody takes the lock while all is well.
    count: AtomicUsize,
}

struct Silence {
    since: Instant,
    ask_at: Instant,
}

impl Silent {
    /// Whether to ask the filer; who may has the answer within [`PATIENCE`], or nobody has.
    fn may_ask(&self, location: LocationId, now: Instant) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let mut locations = self.locations.lock();
        let Some(silence) = locations.get_mut(&location) else { return true };
        let may = now >= silence.ask_at;
        if may {
            silence.ask_at = now + PATIENCE + PROBE_EVERY;
        }
        may
    }

    pub(super) fn no_answer(&self, location: LocationId, now: Instant) {
        let mut locations = self.locations.lock();
        let silence = locations.entry(location).or_insert_with(|| {
            tracing::error!(%location, "the filer has not answered within {PATIENCE:?}: its clients wait");
            Silence { since: now, ask_at: now }
        });
        silence.ask_at = now + PROBE_EVERY;
        self.count.store(locations.len(), Ordering::Release);
    }

    pub(super) fn answered(&self, location: LocationId) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut locations = self.locations.lock();
        if let Some(silence) = locations.remove(&location) {
            tracing::info!(%location, silent = ?silence.since.elapsed(), "the filer answers again");
        }
        self.count.store(locations.len(), Ordering::Release);
    }
}

impl Volume {
    /// The answer to a call that changes nothing, or JUKEBOX.
    pub(super) async fn ask<T>(
        &self,
        location: &Location,
        call: impl Future<Output = filer::Result<T>>,
    ) -> Result<T, Status> {
        if !self.silent.may_ask(location.id, Instant::now()) {
            return Err(Status::Jukebox);
        }
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => {
                self.silent.answered(location.id);
                answer.map_err(|e| of_object(&e))
            }
            Err(_) => {
                self.silent.no_answer(location.id, Instant::now());
                Err(Status::Jukebox)
            }
        }
    }

    /// Locations whose filer does not answer, and for how long.
    #[must_use]
    pub fn silent(&self) -> BTreeMap<LocationId, Duration> {
        self.silent.locations.lock().iter().map(|(id, silence)| (*id, silence.since.elapsed())).collect()
    }

    /// Find out whether a silent filer answers again, if it is time. Clients do that too, but there may be none.
    pub async fn probe(&self, location: &Location) {
        // The answer is in what `ask` notes.
        let _ = self.ask(location, location.filer.statfs()).await;
    }

    /// A junction's primary is closed: what was noted about it is forgotten.
    pub fn closed(&self, location: LocationId) {
        self.silent.answered(location);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: LocationId = LocationId(1);

    #[test]
    fn a_silent_filer_is_asked_once_in_a_while_until_it_answers() {
        let (silent, begin) = (Silent::default(), Instant::now());
        assert!(silent.may_ask(L, begin));
        silent.no_answer(L, begin);
        assert!(!silent.may_ask(L, begin) && silent.may_ask(LocationId(2), begin));
        let later = begin + PROBE_EVERY;
        assert!(silent.may_ask(L, later), "one finds out");
        assert!(!silent.may_ask(L, later), "and the others wait for what it finds");
        let given_up = later + PATIENCE + PROBE_EVERY;
        assert!(silent.may_ask(L, given_up), "one that was given up does not end the asking");
        silent.answered(L);
        assert!(silent.may_ask(L, given_up) && silent.may_ask(L, given_up));
    }
}
