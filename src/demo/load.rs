//! Lanes under way: started together, stopped together, the first failure stops all.

use super::Error;
use super::client::{Client, Cred};
use super::lane::{Lane, Limits, Slow};
use super::nfs::{Call, Fh};
use super::source::Source;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Counters for progress.
#[derive(Debug, Default)]
pub struct Totals {
    pub ops: AtomicU64,
}

pub struct Load {
    tasks: JoinSet<(usize, Lane, Result<(), Error>)>,
    stop: watch::Sender<bool>,
    failed: watch::Receiver<Option<String>>,
    pub totals: Arc<Totals>,
    pub slow: Arc<Mutex<Slow>>,
}

/// Who the clients are.
#[derive(Clone, Debug)]
pub struct Plan {
    pub server: SocketAddr,
    /// Path of the junction, names from `/` down.
    pub junction: Vec<Bytes>,
    pub clients: usize,
    pub deadline: Duration,
    pub limits: Limits,
    pub seed: u64,
}

/// Clients, and a lane for every part of the source: each client has its share of them. Every second client mounts `/`
/// and walks to the junction, the others mount the junction.
pub async fn lanes(plan: &Plan, source: &Source) -> Result<Vec<Lane>, Error> {
    let count = plan.clients.clamp(1, 16);
    // Xids of a client begin with its number: an xid names a client and a call for the whole run.
    let clients: Vec<Client> = (0..count)
        .map(|i| {
            let first = (u32::try_from(i).unwrap_or(0) << 28) | 1;
            Client::new(plan.server, Cred::own(), first, plan.deadline)
        })
        .collect();
    let mut roots = Vec::new();
    for (i, client) in clients.iter().enumerate() {
        roots.push(junction_root(client, &plan.junction, i % 2 == 0).await?);
    }
    let mut lanes = Vec::new();
    for (i, (name, tree)) in source.lanes.iter().enumerate() {
        let at = i % count;
        let (title, seed) = (format!("client {at} lane {i}"), plan.seed + i as u64);
        let mut lane = Lane::new(clients[at].clone(), title, vec![name.clone()], tree.clone(), seed, plan.limits);
        lane.enter(roots[at].clone()).await?;
        lane.base = lane.tree.clone();
        lanes.push(lane);
    }
    // One more that only reads what nobody changes.
    let limits = Limits { read_only: true, ..plan.limits };
    let at = count - 1;
    let mut reader =
        Lane::new(clients[at].clone(), format!("client {at} reader"), vec![], source.rest.clone(), plan.seed, limits);
    reader.enter(roots[at].clone()).await?;
    lanes.push(reader);
    Ok(lanes)
}

/// The handle of the junction's root.
pub async fn junction_root(client: &Client, junction: &[Bytes], cross: bool) -> Result<Fh, Error> {
    let refused = |what: &str, status: u32| Error::Mismatch(format!("{what}: status {status}"));
    if !cross {
        let mut path = Vec::new();
        for name in junction {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        return client.mount(&path).await?.map_err(|s| refused("MNT of the junction", s));
    }
    let mut at = client.mount(b"/").await?.map_err(|s| refused("MNT of /", s))?;
    for name in junction {
        let reply = client.nfs(&Call::Lookup { dir: at, name: name.clone() }).await?;
        at = reply.fh.ok_or_else(|| refused("LOOKUP towards the junction", reply.status))?;
    }
    Ok(at)
}

impl Load {
    pub fn start(lanes: Vec<Lane>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (fail, failed) = watch::channel(None);
        let (totals, slow) = (Arc::new(Totals::default()), Arc::<Mutex<Slow>>::default());
        let mut tasks = JoinSet::new();
        for (i, mut lane) in lanes.into_iter().enumerate() {
            lane.slow = slow.clone();
            let (stopping, fail, totals) = (stopping.clone(), fail.clone(), totals.clone());
            tasks.spawn(async move {
                let mut result = Ok(());
                while result.is_ok() && !*stopping.borrow() && fail.borrow().is_none() {
                    result = lane.step().await;
                    totals.ops.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(lane.limits.pause).await;
                }
                if let Err(e) = &result {
                    let _ = fail.send(Some(e.to_string()));
                }
                (i, lane, result)
            });
        }
        Self { tasks, stop, failed, totals, slow }
    }

    /// Comes back only when a lane has failed, with its reason; to be raced against the work.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        loop {
            if let Some(reason) = failed.borrow().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The first failure so far.
    pub fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Stop, and have the lanes back, in their order.
    pub async fn stop(mut self) -> Result<Vec<Lane>, Error> {
        let _ = self.stop.send(true);
        let mut lanes = Vec::new();
        let mut first: Option<Error> = None;
        while let Some(joined) = self.tasks.join_next().await {
            let (i, lane, result) = joined.map_err(|e| Error::Io(std::io::Error::other(e)))?;
            if let Err(e) = result {
                first.get_or_insert(e);
            }
            lanes.push((i, lane));
        }
        lanes.sort_by_key(|(i, _)| *i);
        match first {
            Some(e) => Err(e),
            None => Ok(lanes.into_iter().map(|(_, lane)| lane).collect()),
        }
    }
}
