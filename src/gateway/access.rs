//! Who may: pure decisions over the caller's address. AUTH_UNIX is not authentication: a host that is let in may claim
//! any uid, so what decides is the address, at MOUNT and at every call.

use crate::wire::rpc::Credential;
use journal_format::ids::JunctionId;
use std::net::IpAddr;

/// User and group of callers without credentials, and of squashed ones.
pub const NOBODY: u32 = 65534;

/// An access policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The built-in one: loopback addresses only, read-write, no squash, any port.
    Local,
}

/// What a policy says to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Refused,
    Granted(Grant),
}

/// What is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub read_only: bool,
    pub root_squash: bool,
}

/// Judge an address and port.
#[must_use]
pub fn decide(policy: Policy, addr: IpAddr, _port: u16) -> Decision {
    match policy {
        Policy::Local if addr.to_canonical().is_loopback() => {
            Decision::Granted(Grant { read_only: false, root_squash: false })
        }
        Policy::Local => Decision::Refused,
    }
}

/// User, group and further groups that a call runs with.
#[must_use]
pub fn credentials(grant: Grant, credential: &Credential) -> (u32, u32, Vec<u32>) {
    match credential {
        Credential::None => (NOBODY, NOBODY, Vec::new()),
        Credential::Unix { uid, gid, gids } if grant.root_squash => {
            let squash = |id: u32| if id == 0 { NOBODY } else { id };
            (squash(*uid), squash(*gid), gids.iter().copied().map(squash).collect())
        }
        Credential::Unix { uid, gid, gids } => (*uid, *gid, gids.clone()),
    }
}

/// Which policy a junction has. Until policies are events, all have the built-in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policies;

impl Policies {
    #[must_use]
    pub fn of(&self, _junction: JunctionId) -> Policy {
        Policy::Local
    }

    /// Some policy lets the address in. One that none lets in is told nothing at all.
    #[must_use]
    pub fn know(&self, addr: IpAddr, port: u16) -> bool {
        decide(Policy::Local, addr, port) != Decision::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_policy_lets_loopback_in_and_nobody_else() {
        for (addr, granted) in [
            ("127.0.0.1", true),
            ("127.255.3.4", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("128.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::2", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("::127.0.0.1", false),
        ] {
            let decision = decide(Policy::Local, addr.parse().unwrap(), 40_000);
            assert_eq!(decision != Decision::Refused, granted, "{addr}");
            if granted {
                assert_eq!(decision, Decision::Granted(Grant { read_only: false, root_squash: false }));
            }
        }
    }

    #[test]
    fn callers_without_credentials_are_nobody_and_root_is_squashed_where_granted_so() {
        let plain = Grant { read_only: false, root_squash: false };
        assert_eq!(credentials(plain, &Credential::None), (65534, 65534, vec![]));
        let root = Credential::Unix { uid: 0, gid: 0, gids: vec![0, 7] };
        assert_eq!(credentials(plain, &root), (0, 0, vec![0, 7]));
        let squash = Grant { root_squash: true, ..plain };
        assert_eq!(credentials(squash, &root), (65534, 65534, vec![65534, 7]));
    }
}
