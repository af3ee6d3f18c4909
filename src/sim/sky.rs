//! Clock and entropy of a world.

use super::rng::Rng;
use crate::env;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// The wall clock goes with the virtual time of a life, and is set by [`Sky::jump`].
pub struct Sky {
    base: Cell<i64>,
    begin: Cell<Option<Instant>>,
    rng: RefCell<Rng>,
}

impl Sky {
    #[must_use]
    pub fn new(rng: Rng) -> Rc<Self> {
        let base = Cell::new(1_790_000_000_000_000_000);
        Rc::new(Self { base, begin: Cell::new(None), rng: RefCell::new(rng) })
    }

    /// A life begins, in its runtime.
    pub fn begins(&self) {
        self.begin.set(Some(Instant::now()));
    }

    /// A life ends, in its runtime: the clock stands until the next one begins.
    pub fn ends(&self) {
        let elapsed = self.begin.take().map_or(Duration::ZERO, |begin| begin.elapsed());
        self.jump(i64::try_from(elapsed.as_nanos()).unwrap_or(0));
    }

    /// Somebody sets the clock by so many nanoseconds.
    pub fn jump(&self, nanos: i64) {
        self.base.set(self.base.get() + nanos);
    }
}

impl env::World for Sky {
    fn wall_nanos(&self) -> i64 {
        let since = match self.begin.get() {
            Some(begin) if tokio::runtime::Handle::try_current().is_ok() => begin.elapsed(),
            _ => Duration::ZERO,
        };
        self.base.get() + i64::try_from(since.as_nanos()).unwrap_or(0)
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut rng = self.rng.borrow_mut();
        for byte in bytes {
            *byte = rng.draw().to_le_bytes()[0];
        }
    }
}
