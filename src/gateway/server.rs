//! The listener.

use super::access::know;
use super::seats::Admission;
use super::{Gateway, Shared, connection, count, udp};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

/// Wait before the next accept after one that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Of failures in a row, every so many are logged.
const LOG_EVERY: u32 = 20;

impl Gateway {
    /// Accept and serve until `stop` is true (or its sender is gone); then accept no more, let calls in flight end and
    /// be answered within [`super::Limits::drain_deadline`], and close. A task beside it that has ended, which is a defect,
    /// ends it, too: whoever sees to it that it goes on hears of it so.
    pub async fn serve(self, listener: TcpListener, stop: watch::Receiver<bool>) {
        self.shared.begin_grace(listener.local_addr().ok()).await;
        let beside = beside(&self.shared, &listener).await;
        self.serve_beside(listener, beside, stop).await;
    }

    pub(super) async fn serve_beside(
        self,
        listener: TcpListener,
        mut beside: JoinSet<()>,
        mut stop: watch::Receiver<bool>,
    ) {
        let shared = self.shared;
        let mut connections = JoinSet::new();
        let mut failures = 0u32;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = beside.join_next(), if !beside.is_empty() => {
                    error!(?ended, "what looks after locks, or datagrams, has ended");
                    return;
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    admit(&shared, &mut connections, stream, peer, &stop);
                }
                Err(error) => {
                    let pause = accept_failed(&shared, failures, &error);
                    failures = failures.wrapping_add(1);
                    if pause {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        drop(listener);
        drain(&shared, connections).await;
    }
}

/// What runs beside the listener, and ends with it.
async fn beside(shared: &Arc<Shared>, listener: &TcpListener) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(shared.clone().look_after_locks());
    let socket = async { UdpSocket::bind(listener.local_addr()?).await };
    match socket.await {
        Ok(socket) => {
            tasks.spawn(udp::serve(shared.clone(), socket));
        }
        Err(error) => {
            let at = listener.local_addr().map_or_else(|_| "the port of NFS".into(), |at| at.to_string());
            let why = format!("nothing is served by UDP at {at}, so hosts that restart cannot tell so there: {error}");
            warn!("{why}");
            shared.locks.deaf.get_or_init(|| why);
        }
    }
    tasks
}

fn admit(
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: &watch::Receiver<bool>,
) {
    count(&shared.stats.accepted);
    let seat = match shared.seats.admit(peer.ip(), know(&shared.backend.state(), peer), &shared.limits) {
        Admission::Seated(seat) => seat,
        Admission::SeatedAfterEviction(seat) => {
            count(&shared.stats.evicted);
            seat
        }
        Admission::TurnedAway => {
            count(&shared.stats.turned_away);
            return;
        }
    };
    connections.spawn(connection::serve(shared.clone(), stream, peer, seat, stop.clone()));
}

/// Says whether to pause. A connection that was reset while it waited costs nothing more; when descriptors or memory
/// have run out, one quiet connection is shed and the rest waits in the backlog.
fn accept_failed(shared: &Shared, failures: u32, error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = Errno::from_io_error(error);
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().any(|e| Some(e) == code);
    let evicted = exhausted && shared.seats.evict_one();
    if failures.is_multiple_of(LOG_EVERY) {
        warn!(%error, connections = shared.seats.len(), evicted, "accepting a connection failed; trying again");
    }
    code != Some(Errno::CONNABORTED)
}

async fn drain(shared: &Shared, mut connections: JoinSet<()>) {
    let deadline = Instant::now() + shared.limits.drain_deadline;
    let ended = timeout_at(deadline, async {
        while connections.join_next().await.is_some() {}
        // Calls whose connections are gone.
        let _ = shared.calls.acquire_many(shared.limits.calls_all).await;
    });
    match ended.await {
        Ok(()) => info!("no client calls in flight"),
        Err(_) => warn!(
            calls = shared.limits.calls_all as usize - shared.calls.available_permits(),
            "calls still in flight at stop; closing their connections"
        ),
    }
}
