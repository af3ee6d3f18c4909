//! Client hosts that hold locks. The locks themselves are not in the journal: after a restart their hosts are told, and
//! claim them again.

use rkyv::{Archive, Deserialize, Serialize};

/// A host by which others know it: its address, and the name that it gives itself in its lock calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Host {
    /// As IPv6; IPv4 is mapped (`::ffff:a.b.c.d`).
    pub addr: [u8; 16],
    /// Any bytes, at most [`Host::NAME_MAX`].
    pub name: Vec<u8>,
}

impl Host {
    /// Longest name, in bytes.
    pub const NAME_MAX: usize = 1024;
}

/// A host may hold locks from here on: it is told when the service restarts. Durable before its first lock is granted.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct HostMonitored {
    /// Which.
    pub host: Host,
    /// The service's own address at which it asked for locks, as [`Host::addr`]: one of those by which it knows the
    /// service. A host that asks at several is in a record for each.
    pub at: Option<[u8; 16]>,
}

/// Version 1 of [`HostMonitored`]: where the host asked was not known.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct HostMonitored1 {
    /// Which.
    pub host: Host,
}

impl From<HostMonitored1> for HostMonitored {
    fn from(HostMonitored1 { host }: HostMonitored1) -> Self {
        Self { host, at: None }
    }
}

/// A host has held no lock for a while, or was told and has claimed none.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct HostForgotten {
    /// Which.
    pub host: Host,
}

/// The service has restarted while hosts were monitored: their locks are lost until they claim them again.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct LocksLost {
    /// What they are told: odd, and greater than ever before.
    pub number: u32,
}
