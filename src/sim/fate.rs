//! What happens to a filer's calls: how long they take, and which fail.
//!
//! A filer has weather, which the world changes now and then, and single calls fail by chance. What a filer never does
//! is lie: it does not call an object gone that is there.

use super::rng::Rng;
use crate::filer::ErrorKind;
use crate::filer::memory::{Fault, Script, Turn};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Calls take seconds.
    Stalls,
    /// No call comes through.
    Down,
    /// Nothing more can be written.
    Full,
    /// Syncs fail, and lose bytes.
    SyncFails,
    /// One call in so many fails.
    Stormy,
}

pub const WEATHERS: [Weather; 6] =
    [Weather::Fair, Weather::Stalls, Weather::Down, Weather::Full, Weather::SyncFails, Weather::Stormy];

/// Faults by kind.
pub type Fired = BTreeMap<&'static str, u64>;

pub fn count(fired: &mut Fired, what: &'static str) {
    *fired.entry(what).or_default() += 1;
}

struct Inner {
    rng: Rng,
    weather: Weather,
    /// Definite refusals would be a loss that is the filer's: what has been answered is being done again.
    redoing: bool,
    fired: Fired,
    calls: u64,
}

/// Of one filer. Clones are the same fate.
#[derive(Clone)]
pub struct Fate(Arc<Mutex<Inner>>);

const TRANSIENT: [ErrorKind; 6] =
    [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Quota, ErrorKind::Busy, ErrorKind::Down, ErrorKind::Unknown];
const DEFINITE: [ErrorKind; 4] =
    [ErrorKind::Access, ErrorKind::NotPermitted, ErrorKind::ReadOnly, ErrorKind::TooManyLinks];

impl Fate {
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        let fired = Fired::new();
        Self(Arc::new(Mutex::new(Inner { rng, weather: Weather::Fair, redoing: true, fired, calls: 0 })))
    }

    pub fn set(&self, weather: Weather) {
        self.0.lock().weather = weather;
    }

    pub fn set_redoing(&self, redoing: bool) {
        self.0.lock().redoing = redoing;
    }

    #[must_use]
    pub fn fired(&self) -> Fired {
        self.0.lock().fired.clone()
    }

    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    #[must_use]
    pub fn script(&self) -> Script {
        let inner = self.0.clone();
        Box::new(move |op| inner.lock().turn(op))
    }
}

/// Fired where attributes were refused for good.
pub(super) const SET_REFUSED: &str = "set refused";

/// Calls that change something.
const MUTATING: [&str; 11] =
    ["write", "punch", "set", "make", "make_nameless", "link", "rename", "remove", "rmdir", "sync", "set_xattr"];

pub(super) fn mutates(op: &str) -> bool {
    MUTATING.contains(&op)
}

impl Inner {
    fn turn(&mut self, op: &'static str) -> Turn {
        self.calls += 1;
        let mut turn = Turn { before: self.pause(300), after: self.pause(300), fault: None };
        match self.weather {
            Weather::Fair => {}
            Weather::Stalls => {
                if self.rng.percent(30) {
                    count(&mut self.fired, "stall");
                    turn.before = Duration::from_millis(self.rng.between(100, 4000));
                    turn.after = Duration::from_millis(self.rng.below(2000));
                }
            }
            Weather::Down => {
                count(&mut self.fired, "down");
                turn.fault = Some(Fault::Before(ErrorKind::Down));
            }
            Weather::Full => {
                if matches!(op, "write" | "make" | "set_xattr" | "link") {
                    count(&mut self.fired, "full");
                    turn.fault = Some(Fault::Before(ErrorKind::NoSpace));
                }
            }
            Weather::SyncFails => {
                if op == "sync" {
                    count(&mut self.fired, "sync failed");
                    turn.fault = Some(Fault::Lost(ErrorKind::Io));
                }
            }
            Weather::Stormy => turn.fault = self.stroke(op),
        }
        turn
    }

    fn pause(&mut self, micros: u64) -> Duration {
        if self.rng.percent(30) { Duration::from_micros(self.rng.below(micros)) } else { Duration::ZERO }
    }

    fn stroke(&mut self, op: &'static str) -> Option<Fault> {
        if !self.rng.percent(4) {
            return None;
        }
        if op == "sync" {
            count(&mut self.fired, "sync failed");
            return Some(Fault::Lost(ErrorKind::Io));
        }
        if !mutates(op) {
            let kind = if self.rng.percent(50) { ErrorKind::Io } else { ErrorKind::Unknown };
            count(&mut self.fired, "read refused");
            return Some(Fault::Before(kind));
        }
        if !self.redoing && self.rng.percent(30) {
            let kind = *self.rng.pick(&DEFINITE)?;
            count(&mut self.fired, "refused");
            if op == "set" {
                count(&mut self.fired, SET_REFUSED);
            }
            return Some(Fault::Before(kind));
        }
        let kind = *self.rng.pick(&TRANSIENT)?;
        let after = matches!(kind, ErrorKind::Io | ErrorKind::Unknown) && self.rng.percent(50);
        count(&mut self.fired, if after { "answer lost" } else { "failed" });
        Some(if after { Fault::After(kind) } else { Fault::Before(kind) })
    }
}
