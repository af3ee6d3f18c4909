//! Every bound of the gateway, and what happens at it. Bounds of records are constants of [`crate::wire::record`].

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all. At it, one is closed for the new one: a stranger's, else the one that has been quiet longest;
    /// when all have calls in flight, the new one is turned away.
    pub connections_max: usize,
    /// The same among those of one address.
    pub connections_per_client: usize,
    /// Calls of one connection that run or whose replies wait to be written. At it, the connection is not read.
    pub calls_per_connection: u32,
    /// Calls running in all, also those whose connection is gone. At it, no connection is read. One address has
    /// [a part](Limits::ADDRESS_SHARE) of them: at that, none of its own connections is read.
    pub calls_all: u32,
    /// Reply bytes reserved by one connection, until they are written. At it, the connection is not read.
    pub reply_bytes_per_connection: u32,
    /// Bytes of replies over [`Limits::LARGE`] in all. At it, calls with large replies wait, in turn. One address has
    /// [a part](Limits::ADDRESS_SHARE) of them: at that, its calls wait for one another.
    pub reply_bytes_all: u32,
    /// Bytes of requests over [`Limits::LARGE`] in all, from the header of the record until the call has ended. At it,
    /// the rest of a large record is read when there is room, in turn. One address has [a part](Limits::ADDRESS_SHARE).
    pub request_bytes_all: u32,
    /// The same for connections that no policy lets in, which have a part of their own of it, also at a client's
    /// address.
    pub stranger_bytes_all: u32,
    /// A record must be there so long after its first byte, and one second more for each 64 KiB received. Else: closed.
    pub record_deadline: Duration,
    /// A connection without calls is closed after this time; clients connect again by themselves.
    pub idle_deadline: Duration,
    /// A client that takes no byte of its replies for so long is closed; so is one that takes them slower than
    /// [`Limits::PACE`].
    pub write_deadline: Duration,
    /// After a restart only claims of locks are granted for so long, when hosts may have held some.
    pub lock_grace: Duration,
    /// A lock that was granted to one who waited, and whom it could not be told, is taken back after so long. A client
    /// that waits asks by itself; Linux every 30 seconds.
    pub lock_offer: Duration,
    /// A host that has held no lock for so long is forgotten.
    pub lock_host_idle: Duration,
    /// Where clients' portmappers are.
    pub client_portmapper: u16,
    /// How long calls in flight may take at stop.
    pub drain_deadline: Duration,
}

impl Limits {
    /// Requests and replies up to this size are bounded by the number of connections and calls alone.
    pub const LARGE: usize = 8 << 10;
    /// Slowest sender or reader that is borne, per second.
    pub const PACE: usize = 64 << 10;
    /// Addresses that no policy lets in have one of so many seats; at it, one of theirs is closed for the new one.
    pub const STRANGERS_SHARE: usize = 4;
    /// Of the bytes and the calls of all one address may hold one of so many parts: 64 MiB and 2,048 calls in flight
    /// are more than one machine needs.
    pub const ADDRESS_SHARE: u32 = 4;
    /// Entries of the DUMP list; the oldest goes.
    pub const MOUNTS_MAX: usize = 256;
    /// Entries of the EXPORT list; the rest is left out.
    pub const EXPORTS_MAX: usize = 1000;

    /// Connections of addresses that no policy lets in.
    #[must_use]
    pub const fn strangers_max(&self) -> usize {
        self.connections_max.div_ceil(Self::STRANGERS_SHARE)
    }

    /// The defaults, with connections cut to half of what the process may open.
    #[must_use]
    pub fn for_process() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let half = usize::try_from(files / 2).unwrap_or(usize::MAX).max(16);
        let default = Self::default();
        Self {
            connections_max: default.connections_max.min(half),
            connections_per_client: default.connections_per_client.min(half),
            ..default
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_client: 1024,
            calls_per_connection: 64,
            calls_all: 8192,
            reply_bytes_per_connection: 16 << 20,
            reply_bytes_all: 256 << 20,
            request_bytes_all: 256 << 20,
            stranger_bytes_all: 16 << 20,
            record_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(300),
            write_deadline: Duration::from_secs(30),
            lock_grace: Duration::from_secs(45),
            lock_offer: Duration::from_secs(75),
            lock_host_idle: Duration::from_secs(600),
            client_portmapper: crate::wire::portmap::PORT,
            drain_deadline: Duration::from_secs(10),
        }
    }
}
