//! Who may use how much of the journal when it is nearly full (design §4 "Full").
//!
//! ```text
//!   segments:   1 ......................... max-2 | max-1 | max
//!               client operations, orders         | upkeep| ends of operations
//! ```
//!
//! An operation that was begun can always end: the ledger lets no more be under way than have their largest end in the
//! last segment. Upkeep is what frees segments, what takes jobs and switches on, and whatever a command says behind its
//! first event (a new junction's policy): it has a segment that operations cannot fill, and cannot fill the one that ends
//! need.

use journal_format::event::Event;

/// By what may still be appended when others may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Clients and operators begin something, or the copier orders something.
    Operation,
    /// Cursors, answers to orders, states: what moves things on.
    Upkeep,
    /// An operation that was begun ends.
    End,
}

impl Class {
    pub fn of(event: &Event) -> Class {
        match event {
            Event::Failed(_) | Event::Partial(_) => Class::End,
            // Of one object: an operation's. A replayer tells of many.
            Event::Made(made) if made.objects.len() == 1 => Class::End,
            Event::Made(_)
            | Event::CopyDone(_)
            | Event::Cursor(_)
            | Event::OutOfSync(_)
            | Event::InSync(_)
            | Event::Durable(_)
            | Event::JunctionSwitched(_)
            // Behind `JunctionAdded`, which would else be durable without it, and told to nobody.
            | Event::JunctionModified(_)
            | Event::JobStateChanged(_)
            | Event::HostForgotten(_)
            | Event::LocksLost(_) => Class::Upkeep,
            Event::Write(_)
            | Event::SetAttr(_)
            | Event::Make(_)
            | Event::Remove(_)
            | Event::Rename(_)
            | Event::Link(_)
            | Event::Adopt(_)
            | Event::FilerAdded(_)
            | Event::FilerRemoved(_)
            | Event::JunctionAdded(_)
            | Event::JunctionRemoved(_)
            | Event::PolicySet(_)
            | Event::PolicyRemoved(_)
            | Event::HostMonitored(_)
            | Event::JobCreated(_)
            | Event::ListBegin(_)
            | Event::Listed(_)
            | Event::CopyRange(_)
            | Event::JournalCreated(_) => Class::Operation,
        }
    }

    /// Segments that it leaves to others.
    pub const fn keeps_free(self) -> usize {
        match self {
            Class::Operation => 2,
            Class::Upkeep => 1,
            Class::End => 0,
        }
    }
}
