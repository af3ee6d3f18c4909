//! Client hosts that may hold locks: what must be known after a crash, so that they can be told to claim them again.
//! There is no command: the lock service appends the events.

use super::State;
use journal_format::event::{HostForgotten, HostMonitored, LocksLost};

/// Most hosts at a time; locks of the next one are refused until one is forgotten.
pub const HOSTS_MAX: usize = 4096;

/// Said twice it is as true as said once.
pub(super) fn monitored(state: &mut State, e: &HostMonitored) -> Result<(), String> {
    state.hosts.insert(e.host.clone());
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
        for (last, name) in [(1, "a"), (1, "b"), (2, "a"), (1, "a")] {
            monitored(&mut state, &HostMonitored { host: host(last, name) }).unwrap();
        }
        assert_eq!(state.hosts.len(), 3);
        forgotten(&mut state, &HostForgotten { host: host(1, "b") }).unwrap();
        forgotten(&mut state, &HostForgotten { host: host(9, "x") }).unwrap();
        assert_eq!(state.hosts.iter().cloned().collect::<Vec<_>>(), [host(1, "a"), host(2, "a")]);
        assert_eq!(next_number(&state), 3);
        lost(&mut state, &LocksLost { number: 3 }).unwrap();
        assert!(lost(&mut state, &LocksLost { number: 3 }).is_err());
        lost(&mut state, &LocksLost { number: 5 }).unwrap();
        let back = State::from_json(&state.to_json()).unwrap();
        assert_eq!(back, state);
    }
}
