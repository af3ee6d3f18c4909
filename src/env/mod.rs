//! The seams to the outside: the clock, randomness, blocking work, and the disk under the journal.
//!
//! ```text
//!  core ── wall_nanos(), random() ──┬─► the system's
//!       ── aside(work) ─────────────┼─► a blocking thread
//!       ── Disk (in Options) ───────┘   real.rs
//!                 │
//!                 └── on a thread that has entered a `World`: its clock, its entropy, and work runs where it stands;
//!                     the disk is simulated.rs, with a live and a durable image
//! ```
//!
//! A simulated world is one thread with a current-thread runtime and paused time, so it is found by that thread
//! ([`enter`]) and nothing has to be handed through. Everywhere else a seam costs one look at a thread-local.
//! Monotonic time is `tokio::time::Instant`, which stands still when the runtime's time is paused. `clippy.toml` bans
//! the other clocks, ambient randomness and `spawn_blocking` outside this room.

pub mod disk;
pub mod here;
pub mod real;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
#[cfg(test)]
mod tests;
pub mod watch;

pub use disk::{Disk, DiskFile};
pub use here::Staying;
pub use real::RealDisk;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

/// What a simulation puts in the place of the system.
pub trait World {
    /// Nanoseconds since 1970.
    fn wall_nanos(&self) -> i64;
    fn fill(&self, bytes: &mut [u8]);
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// While it lives, its thread is in the world; then it is where it was before.
#[must_use]
pub struct Entered {
    before: Option<Rc<dyn World>>,
}

/// From here on this thread's clock and entropy are the world's, and blocking work runs where it is asked for.
pub fn enter(world: Rc<dyn World>) -> Entered {
    Entered { before: WORLD.with_borrow_mut(|here| here.replace(world)) }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        WORLD.with_borrow_mut(|here| *here = before);
    }
}

/// This thread is in a simulated world: nothing may start a thread or wait for one.
#[must_use]
pub fn is_simulated() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// The wall clock, nanoseconds since 1970. It may jump; whoever needs order keeps the last one and takes the later.
#[must_use]
pub fn wall_nanos() -> i64 {
    if let Some(nanos) = WORLD.with_borrow(|world| world.as_ref().map(|world| world.wall_nanos())) {
        return nanos;
    }
    real::wall_nanos()
}

/// Random bytes, from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let simulated = WORLD.with_borrow(|world| world.as_ref().map(|world| world.fill(&mut bytes)));
    if simulated.is_none() {
        real::fill(&mut bytes)?;
    }
    Ok(bytes)
}

/// From here on this thread is given a processor before others of this process, where the system lets it.
pub fn go_first() {
    if !is_simulated() {
        real::go_first();
    }
}

thread_local! {
    static IN_PASSING: Cell<bool> = const { Cell::new(false) };
}

/// Poll something in passing: whoever does has other things to do, and goes on with it elsewhere if it does not end.
pub fn in_passing<T>(poll: impl FnOnce() -> T) -> T {
    struct Passed(bool);
    impl Drop for Passed {
        fn drop(&mut self) {
            IN_PASSING.set(self.0);
        }
    }
    let _passed = Passed(IN_PASSING.replace(true));
    poll()
}

/// Whether what is polled here is polled in passing: then it must not make this thread wait, and may rather give way.
#[must_use]
pub fn is_in_passing() -> bool {
    IN_PASSING.get()
}

/// Work that was given aside has no result: the runtime is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the service is stopping")]
pub struct Stopping;

/// Run what blocks aside from the tasks that serve. A panic in it goes on here.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopping> {
    if is_simulated() {
        return Ok(work());
    }
    real::aside(work).await
}

/// Run what blocks aside, and do not wait for it. When the runtime is stopping it may never run.
pub fn aside_detached(work: impl FnOnce() + Send + 'static) {
    if is_simulated() {
        return work();
    }
    real::aside_detached(work);
}
