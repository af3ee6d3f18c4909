//! Client hosts that may hold locks: what must be known after a crash, so that they can be told to claim them again.
//! There is no command: the lock service appends the events.

use super::State;
use journal_format::event::{HostForgotten, HostMonitored, LocksLost};
use std::collections::BTreeSet;

/// Most hosts at a time; locks of the next one are refused until one is forgotten.
pub const HOSTS_MAX: usize = 4096;
/// Most addresses of the service by which it is known that a host knows it; it is not told from further ones.
pub const KNOWN_AT_MAX: usize = 8;

/// Addresses of the service at which a host asked for locks, as in [`journal_format::event::Host`].
pub type KnownAt = BTreeSet<[u8; 16]>;

/// A record of a monitored host that asks at `at` would say nothing new of it.
#[must_use]
pub fn says_nothing_new(known: &KnownAt, at: Option<[u8; 16]>) -> bool {
    at.is_none_or(|at| known.contains(&at)) || known.len() >= KNOWN_AT_MAX
}

/// Said twice it is as true as said once.
pub(super) fn monitored(state: &mut State, e: &HostMonitored) -> Result<(), String> {
    let known = state.hosts.entry(e.host.clone()).or_default();
    if !says_nothing_new(known, e.at) {
        known.extend(e.at);
    }
    Ok(())
}

pub(super) fn forgotten(state: &mut State, e: &HostForgotten) -> Result<(), String> {
    state.hosts.remove(&e.host);
    Ok(())
}

/// The number that hosts are told after one more restart.
#[must_use]
pub fn next_number(state: &State) -> u32 {
    // After two thousand million restarts it begins again.
    state.locks_number.checked_add(2).unwrap_or(1) | 1
}

pub(super) fn lost(state: &mut State, e: &LocksLost) -> Result<(), String> {
    if e.number != next_number(state) {
        return Err(format!("locks are lost with number {}, behind {}", e.number, state.locks_number));
    }
    state.locks_number = e.number;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::event::Host;

    #[test]
    fn hosts_come_and_go_and_numbers_are_odd_and_grow() {
        let mut state = State::default();
        let host = |last: u8, name: &str| Host { addr: [last; 16], name: name.into() };
        let at = |last: u8| Some([last; 16]);
        for (last, name, at) in [(1, "a", None), (1, "b", at(1)), (2, "a", at(2)), (1, "a", at(1)), (1, "a", at(2))] {
            monitored(&mut state, &HostMonitored { host: host(last, name), at }).unwrap();
        }
        assert_eq!(state.hosts.len(), 3);
        forgotten(&mut state, &HostForgotten { host: host(1, "b") }).unwrap();
        forgotten(&mut state, &HostForgotten { host: host(9, "x") }).unwrap();
        let known = |at: &[u8]| at.iter().map(|last| [*last; 16]).collect::<KnownAt>();
        let hosts: Vec<_> = state.hosts.clone().into_iter().collect();
        assert_eq!(hosts, [(host(1, "a"), known(&[1, 2])), (host(2, "a"), known(&[2]))]);
        assert_eq!(next_number(&state), 3);
        lost(&mut state, &LocksLost { number: 3 }).unwrap();
        assert!(lost(&mut state, &LocksLost { number: 3 }).is_err());
        lost(&mut state, &LocksLost { number: 5 }).unwrap();
        for last in 3..100 {
            monitored(&mut state, &HostMonitored { host: host(2, "a"), at: at(last) }).unwrap();
        }
        assert_eq!(state.hosts[&host(2, "a")].len(), KNOWN_AT_MAX);
        monitored(&mut state, &HostMonitored { host: host(3, "c"), at: None }).unwrap();
        let back = State::from_json(&state.to_json()).unwrap();
        assert_eq!(back, state);
    }
}
