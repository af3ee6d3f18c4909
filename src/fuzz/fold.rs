//! Any events, in any order: folds are total.

use super::script;
use crate::index::live::Live;
use crate::index::store::Store;
use crate::state::{self, State, wanted};
use journal_format::event::samples;
use journal_format::ids::{Lsn, Time};
use std::sync::Arc;

/// An event is folded or contradicts the journal; then it has changed nothing. What comes of it can be kept.
pub fn state(data: &[u8]) {
    let mut folded = State::default();
    let mut at = 4096;
    for event in script(data) {
        let before = folded.clone();
        let done = state::apply(&mut folded, Lsn(at), Lsn(at + 64), Time(at.cast_signed()), &event);
        match done {
            Ok(()) => at += 64,
            Err(_) => assert!(before == folded, "a contradiction has changed the state: {event:?}"),
        }
    }
    let _ = wanted(&folded);
    let json = folded.to_json();
    match State::from_json(&json) {
        Ok(again) => assert!(again == folded, "a state does not come back from its snapshot"),
        Err(error) => panic!("a snapshot cannot be read: {error}"),
    }
}

/// The live index over events that never were one history.
pub fn index(data: &[u8]) {
    let backend = redb::backends::InMemoryBackend::new();
    let store = Store::open_on("fuzz", backend, 1 << 20, false);
    let Ok(store) = store else { panic!("no store: {:?}", store.err()) };
    let live = Live::new(Arc::new(store));
    let mut nodes = Vec::new();
    for (place, event) in script(data).iter().enumerate() {
        let at = 4096 + 64 * place as u64;
        if let Err(error) = live.apply(Lsn(at), Time(at.cast_signed()), event) {
            panic!("{event:?}: {error}");
        }
        nodes.extend(super::fold::nodes(event));
    }
    for node in nodes {
        let listed = live.list(node, 0, 100);
        assert!(live.node(node).is_ok() && live.names(node, 16).is_ok() && listed.is_ok());
        // A circle is an error, and no endless loop.
        let _ = live.path(node);
    }
}

fn nodes(event: &journal_format::event::Event) -> Vec<journal_format::ids::NodeId> {
    use journal_format::event::Event;
    match event {
        Event::Make(e) => vec![e.dir, e.node],
        Event::Link(e) => vec![e.dir, e.node],
        Event::Remove(e) => vec![e.dir, e.node],
        Event::Rename(e) => vec![e.from_dir, e.to_dir, e.node],
        Event::Adopt(e) => e.entries.iter().map(|entry| entry.node).chain([e.dir]).collect(),
        Event::JunctionAdded(e) => vec![e.root],
        _ => Vec::new(),
    }
}

/// What the samples come to.
pub fn sample_state() -> State {
    let mut folded = State::default();
    let scripts = super::script_seeds();
    for event in scripts.last().map(|bytes| script(bytes)).unwrap_or_default() {
        // Samples need not agree with one another.
        let _ = state::apply(&mut folded, Lsn(4096), Lsn(8192), Time(1), &event);
    }
    debug_assert!(!samples::all().is_empty());
    folded
}
