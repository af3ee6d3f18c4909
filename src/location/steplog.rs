//! For tests from outside: with `TAIN_STEP_LOG=FILE` in the environment, a line is added to FILE for every copy step
//! carried out, independent of the journal: `location record node offset len void`. Joined with the journal's
//! `CopyDone` it shows that no finished step runs again (I4).

use journal_format::event::RangeDone;
use journal_format::ids::{LocationId, Lsn};
use parking_lot::Mutex;
use std::fs::File;
use std::io::Write;
use std::sync::LazyLock;

static LOG: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os("TAIN_STEP_LOG")?;
    match File::options().create(true).append(true).open(&path) {
        Ok(file) => Some(Mutex::new(file)),
        Err(error) => {
            tracing::error!(path = %path.to_string_lossy(), %error, "TAIN_STEP_LOG cannot be opened; steps are not logged");
            None
        }
    }
});

/// Told of each step that is carried out on this thread.
#[cfg(any(test, feature = "simulation"))]
pub type Watcher = Box<dyn Fn(LocationId, &RangeDone)>;

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static WATCHER: std::cell::RefCell<Option<Watcher>> = const { std::cell::RefCell::new(None) };
}

/// For the simulation: `watcher` is told from here on, instead of who was before.
#[cfg(any(test, feature = "simulation"))]
pub fn watch(watcher: Option<Watcher>) {
    WATCHER.with_borrow_mut(|now| *now = watcher);
}

/// One step was carried out, and ended as `done` says.
pub fn copied(location: LocationId, record: Lsn, done: &RangeDone) {
    #[cfg(any(test, feature = "simulation"))]
    WATCHER.with_borrow(|watcher| {
        if let Some(watcher) = watcher {
            watcher(location, done);
        }
    });
    if let Some(file) = LOG.as_ref() {
        let line = format!(
            "{} {} {} {} {} {}\n",
            location.0,
            record.0,
            done.node.0,
            done.offset,
            done.len,
            u8::from(done.void)
        );
        // One write per line: lines of one process do not mix. A log that cannot be written must not stop a copy.
        if let Err(error) = file.lock().write_all(line.as_bytes()) {
            tracing::error!(%error, "TAIN_STEP_LOG cannot be written");
        }
    }
}
