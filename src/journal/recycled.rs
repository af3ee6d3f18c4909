//! For the simulation, which writes down what the journal says: told of what is about to be freed.

use super::Journal;
use journal_format::ids::Lsn;
use std::cell::RefCell;

/// Told on this thread before segments that end at or before this LSN are used again.
pub type Watcher = Box<dyn Fn(&Journal, Lsn)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// `watcher` is told from here on, instead of who was before.
pub fn watch(watcher: Option<Watcher>) {
    WATCHER.with_borrow_mut(|now| *now = watcher);
}

pub(super) fn tell(journal: &Journal, before: Lsn) {
    WATCHER.with_borrow(|watcher| {
        if let Some(watcher) = watcher {
            watcher(journal, before);
        }
    });
}
