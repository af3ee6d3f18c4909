//! PURE: which locks are held and who waits for one. No I/O, no clock, no task; the gateway's lock service drives it.
//!
//! * Locks go by node id, so they survive a rename, a move's switch and a junction's change of location.
//! * An owner is (host, process, owner handle). One owner's locks on a file never overlap, and neighbours of one kind
//!   are one: POSIX's rules for split, merge, upgrade and downgrade ([`table`]).
//! * Who waits is granted in the order of asking, as soon as nothing that is held forbids it. What nothing held forbids is
//!   granted at once, also past others who wait: an order between them would make deadlocks that no program asked for.
//! * A lock that was granted to one who waited is *offered*: held, and known by a number until its owner is known to know
//!   of it. Of one who does not want it any more it is taken back, and what the owner held there before is its own again.
//!   No two offers to one owner meet: one who waits twice is offered the second when the first is known.
//!
//! Bounds ([`Limits`]): at one, the answer is [`Outcome::NoLocks`], and nothing has changed.

mod table;
#[cfg(test)]
mod tests;

pub use table::{Grant, Outcome, Request, Table};

use std::sync::Arc;

/// A client host, by a number that whoever owns the table gives out, and the address that it calls from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId {
    pub number: u32,
    pub addr: [u8; 16],
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub host: HostId,
    pub svid: u32,
    pub oh: Arc<[u8]>,
}

/// Bytes from `first` to `last`, both of them in it; `u64::MAX` is the end, wherever the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub first: u64,
    pub last: u64,
}

impl Range {
    /// As NLM has it: a length of 0 is to the end. `None`: no file reaches that far.
    #[must_use]
    pub fn new(offset: u64, len: u64) -> Option<Self> {
        match len {
            0 => Some(Self { first: offset, last: u64::MAX }),
            _ => offset.checked_add(len - 1).map(|last| Self { first: offset, last }),
        }
    }

    /// As NLM has it.
    #[must_use]
    pub fn length(&self) -> u64 {
        if self.last == u64::MAX { 0 } else { self.last - self.first + 1 }
    }

    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The bytes of both.
    fn both(&self, other: &Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// From the first byte of either to the last.
    fn hull(&self, other: &Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// They meet, or one begins where the other ends.
    fn touches(&self, other: &Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub owner: Owner,
    pub range: Range,
    pub exclusive: bool,
}

/// Rights that are reserved for a whole file (DOS shares): others may not have what is denied, nor deny what is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub owner: Owner,
    /// Denied to others, bits.
    pub mode: u32,
    /// Had, bits.
    pub access: u32,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Locks and shares of one host.
    pub held_per_host: usize,
    /// Of all hosts of one address.
    pub held_per_addr: usize,
    /// Locks of one file.
    pub held_per_file: usize,
    /// In all.
    pub held: usize,
    /// Offers that are open. Beyond, one who waits is granted when it asks by itself.
    pub offers: usize,
    /// To all hosts of one address.
    pub offers_per_addr: usize,
    /// Who waits on one file.
    pub waiting_per_file: usize,
    /// Of one host.
    pub waiting_per_host: usize,
    /// Of all hosts of one address.
    pub waiting_per_addr: usize,
    /// In all.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            held_per_host: 16_384,
            held_per_addr: 65_536,
            held_per_file: 16_384,
            held: 131_072,
            offers: 16_384,
            offers_per_addr: 4096,
            waiting_per_file: 1024,
            waiting_per_host: 1024,
            waiting_per_addr: 2048,
            waiting: 8192,
        }
    }
}
