//! Who may: pure decisions over the caller's address. AUTH_UNIX is not authentication: a host that is let in may claim
//! any uid, so what decides is the address, at MOUNT and at every call, by the policies as they are at that moment.

use crate::state::State;
use crate::volume::virtuals::TREE;
use crate::wire::rpc::Credential;
use journal_format::event::{Access, AccessRule, Squash};
use journal_format::ids::{JunctionId, PolicyId};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

pub use journal_format::event::NOBODY;

/// Ports that only a privileged program of the client may call from (RFC 1813 §4.4, by convention).
const PRIVILEGED: u16 = 1024;

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
    pub squash: Squash,
    /// User and group of squashed callers, and of those without credentials.
    pub anon: (u32, u32),
}

/// Everything, to everyone as who they say they are.
const WHOLE: Grant = Grant { read_only: false, squash: Squash::None, anon: (NOBODY, NOBODY) };

/// Judge a caller of a junction. Of one that is not there (any more) nothing is refused: the volume calls its handles
/// stale. The tree above the junctions is everybody's that some junction is open to.
#[must_use]
pub fn decide(state: &State, junction: JunctionId, peer: SocketAddr) -> Decision {
    if junction == TREE {
        return if know(state, peer) { Decision::Granted(WHOLE) } else { Decision::Refused };
    }
    match state.junctions.get(&junction) {
        Some(found) => by_policy(state, found.access, peer),
        None => decide(state, TREE, peer),
    }
}

/// Some junction is open to the caller. One to whom none is is told nothing at all.
#[must_use]
pub fn know(state: &State, peer: SocketAddr) -> bool {
    // Each policy is judged once, however many junctions have it: a stranger costs little.
    let policies: BTreeSet<Option<PolicyId>> = state.junctions.values().map(|junction| junction.access).collect();
    local(peer.ip()) != Decision::Refused
        || policies.into_iter().any(|policy| by_policy(state, policy, peer) != Decision::Refused)
}

fn by_policy(state: &State, policy: Option<PolicyId>, peer: SocketAddr) -> Decision {
    let Some(policy) = policy else { return local(peer.ip()) };
    let rules = state.policies.get(&policy).map_or(&[][..], |policy| &policy.rules);
    rules.iter().find(|rule| rule.covers(peer.ip())).map_or(Decision::Refused, |rule| by_rule(rule, peer.port()))
}

fn by_rule(rule: &AccessRule, port: u16) -> Decision {
    let grant = |read_only| Grant { read_only, squash: rule.squash, anon: (rule.anon_uid, rule.anon_gid) };
    match rule.access {
        Access::None => Decision::Refused,
        _ if rule.privileged_port && port >= PRIVILEGED => Decision::Refused,
        Access::ReadOnly => Decision::Granted(grant(true)),
        Access::ReadWrite => Decision::Granted(grant(false)),
    }
}

/// The built-in policy.
fn local(addr: IpAddr) -> Decision {
    if addr.to_canonical().is_loopback() { Decision::Granted(WHOLE) } else { Decision::Refused }
}

/// User, group and further groups that a call runs with.
#[must_use]
pub fn credentials(grant: Grant, credential: &Credential) -> (u32, u32, Vec<u32>) {
    let (anon_uid, anon_gid) = grant.anon;
    match (credential, grant.squash) {
        (Credential::None, _) | (Credential::Unix { .. }, Squash::All) => (anon_uid, anon_gid, Vec::new()),
        (Credential::Unix { uid, gid, gids }, squash) => {
            // Nobody is -1: to the kernel it says "leave the owner as it is".
            let squashed = |id: u32| id == u32::MAX || (id == 0 && squash == Squash::Root);
            let of = |id: u32, anon: u32| if squashed(id) { anon } else { id };
            let gids = gids.iter().map(|gid| of(*gid, anon_gid)).collect();
            (of(*uid, anon_uid), of(*gid, anon_gid), gids)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::state::{Junction, Policy};
    use journal_format::ids::{LocationId, NodeId, Time};

    pub const J: JunctionId = JunctionId(1);

    /// Junction 1 with these rules; with none, it has the built-in policy.
    pub fn state(rules: &[&str]) -> State {
        let mut state = State::default();
        let access = (!rules.is_empty()).then_some(PolicyId(1));
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        state.policies.insert(PolicyId(1), Policy { name: "test".into(), rules });
        let junction = Junction {
            path: vec![b"data".to_vec()],
            parent: NodeId(1),
            primary: LocationId(1),
            root: NodeId(2),
            epoch: 1,
            added: Time(0),
            access,
            suspended: false,
        };
        state.junctions.insert(J, junction);
        state
    }

    fn judge(rules: &[&str], addr: &str, port: u16) -> Decision {
        decide(&state(rules), J, SocketAddr::new(addr.parse().unwrap(), port))
    }

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
            let due = if granted { Decision::Granted(WHOLE) } else { Decision::Refused };
            assert_eq!(judge(&[], addr, 40_000), due, "{addr}");
            assert_eq!(know(&state(&[]), SocketAddr::new(addr.parse().unwrap(), 1)), granted, "{addr}");
        }
    }

    #[test]
    fn the_first_rule_that_covers_a_client_decides() {
        let rules = ["10.0.0.7=none", "10.0.0.0/24=ro,all_squash,anonuid=5,anongid=6", "10.0.0.0/8=rw,no_root_squash"];
        assert_eq!(judge(&rules, "10.0.0.7", 700), Decision::Refused);
        let squashed = Grant { read_only: true, squash: Squash::All, anon: (5, 6) };
        assert_eq!(judge(&rules, "10.0.0.8", 700), Decision::Granted(squashed));
        assert_eq!(judge(&rules, "::ffff:10.0.1.8", 700), Decision::Granted(WHOLE));
        assert_eq!(judge(&rules, "11.0.0.1", 700), Decision::Refused);
        // The machine itself is a client like others where there is a policy.
        assert_eq!(judge(&rules, "127.0.0.1", 700), Decision::Refused);
    }

    #[test]
    fn where_a_privileged_port_is_asked_for_no_other_will_do() {
        assert_eq!(judge(&["*=rw,no_root_squash"], "10.0.0.1", 1023), Decision::Granted(WHOLE));
        assert_eq!(judge(&["*=rw,no_root_squash"], "10.0.0.1", 1024), Decision::Refused);
        assert_eq!(judge(&["*=rw,no_root_squash,insecure"], "10.0.0.1", 1024), Decision::Granted(WHOLE));
    }

    #[test]
    fn the_tree_is_open_to_whom_a_junction_is_and_a_junction_that_is_gone_is_the_volumes_affair() {
        let (state, gone) = (state(&["10.0.0.0/8=rw"]), JunctionId(9));
        let at = |addr: &str| SocketAddr::new(addr.parse().unwrap(), 700);
        for junction in [TREE, gone] {
            assert_eq!(decide(&state, junction, at("10.0.0.1")), Decision::Granted(WHOLE));
            assert_eq!(decide(&state, junction, at("11.0.0.1")), Decision::Refused);
        }
    }

    #[test]
    fn callers_become_who_the_grant_says() {
        assert_eq!(credentials(WHOLE, &Credential::None), (65534, 65534, vec![]));
        let root = Credential::Unix { uid: 0, gid: 0, gids: vec![0, 7] };
        assert_eq!(credentials(WHOLE, &root), (0, 0, vec![0, 7]));
        let squash = Grant { squash: Squash::Root, anon: (98, 99), ..WHOLE };
        assert_eq!(credentials(squash, &root), (98, 99, vec![99, 7]));
        assert_eq!(credentials(squash, &Credential::None), (98, 99, vec![]));
        let user = Credential::Unix { uid: 1000, gid: 100, gids: vec![7] };
        assert_eq!(credentials(squash, &user), (1000, 100, vec![7]));
        let nobody = Credential::Unix { uid: u32::MAX, gid: u32::MAX, gids: vec![u32::MAX, 7] };
        for squash in [squash, Grant { squash: Squash::None, ..squash }] {
            assert_eq!(credentials(squash, &nobody), (98, 99, vec![99, 7]));
        }
        let all = Grant { squash: Squash::All, ..squash };
        assert_eq!(credentials(all, &user), (98, 99, vec![]));
    }
}
