//! A real gateway on loopback, a volume in memory behind it, and a client that sends what it likes.

mod access;
mod hostile;
mod listings;
mod locks;
mod procedures;
mod repeats;

use super::double::{Double, ROOT};
use super::{Drc, Gateway, Identity, Limits, Shared, Stats};
use crate::volume::types::NodeRef;
use crate::wire::handle::Fh;
use crate::wire::nfs3::{self, Args, DirOp, Name};
use crate::wire::rpc::{self, Accept, CallHeader, Credential, Reply};
use crate::wire::xdr::{Reader, Wire};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

static XID: AtomicU32 = AtomicU32::new(1);

fn identity() -> Identity {
    Identity { handle_key: [3; 32], journal_id: *b"0123456789abcdef" }
}

struct World {
    double: Arc<Double>,
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

async fn world() -> World {
    world_with(Limits::default(), Drc::default()).await
}

async fn world_with(limits: Limits, drc: Drc) -> World {
    world_of(Arc::new(Double::default()), limits, drc).await
}

async fn world_of(double: Arc<Double>, limits: Limits, drc: Drc) -> World {
    let gateway = Gateway::new(double.clone(), identity(), drc, limits);
    let (shared, stats) = (gateway.shared.clone(), gateway.stats());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(gateway.serve(listener, stopped));
    World { double, shared, stats, addr, stop, served }
}

impl World {
    fn fh(&self, node: NodeRef) -> Fh {
        self.shared.handle(node)
    }

    fn root(&self) -> Fh {
        self.fh(ROOT)
    }

    fn at(&self, name: &[u8]) -> DirOp {
        DirOp { dir: self.root(), name: Name(Bytes::copy_from_slice(name)) }
    }

    fn create(&self, name: &[u8]) -> Args {
        let how = nfs3::CreateHow3::Guarded(nfsserve::nfs::sattr3::default());
        Args::Create(nfs3::CreateArgs { at: self.at(name), how })
    }

    async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.addr).await.unwrap() }
    }

    /// A well-behaved client is served, soon.
    async fn serves(&self) {
        let mut client = self.client().await;
        let attr: nfs3::GetAttrRes = client.nfs(&Args::GetAttr(self.root())).await;
        assert_eq!(attr.unwrap().fileid, ROOT.node.0);
    }
}

/// A call as it goes onto the wire, record mark included.
fn message(xid: u32, program: u32, procedure: u32, put: impl FnOnce(&mut crate::wire::xdr::Writer)) -> Vec<u8> {
    let credential = Credential::Unix { uid: 1000, gid: 100, gids: vec![4, 5] };
    let mut w = rpc::call(&CallHeader { xid, program, version: 3, procedure, credential });
    put(&mut w);
    w.finish().to_vec()
}

fn nfs_message(xid: u32, args: &Args) -> Vec<u8> {
    message(xid, nfs3::PROGRAM, args.procedure(), |w| args.put(w))
}

fn next_xid() -> u32 {
    XID.fetch_add(1, Ordering::Relaxed)
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next record, or `None` when the connection is closed.
    async fn record(&mut self) -> Option<Bytes> {
        tokio::time::timeout(Duration::from_secs(20), async {
            let mark = self.stream.read_u32().await.ok()?;
            let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
            self.stream.read_exact(&mut record).await.ok()?;
            Some(record.into())
        })
        .await
        .expect("neither reply nor close within 20 s")
    }

    async fn reply(&mut self) -> (u32, Reply) {
        rpc::parse_reply(self.record().await.expect("closed")).unwrap()
    }

    async fn results(&mut self, xid: u32) -> Reader {
        match self.reply().await {
            (got, Reply::Accepted(Accept::Success, results)) if got == xid => results,
            other => panic!("{other:?} for {xid}"),
        }
    }

    async fn nfs<T: Wire>(&mut self, args: &Args) -> T {
        self.nfs_as(next_xid(), args).await
    }

    async fn nfs_as<T: Wire>(&mut self, xid: u32, args: &Args) -> T {
        self.send(&nfs_message(xid, args)).await;
        let mut results = self.results(xid).await;
        let value = results.get().unwrap();
        assert!(results.rest().is_empty(), "bytes behind the result of {args:?}");
        value
    }

    async fn mount(&mut self, args: &crate::wire::mount::Args) -> Reader {
        let xid = next_xid();
        self.send(&message(xid, crate::wire::mount::PROGRAM, args.procedure(), |w| args.put(w))).await;
        self.results(xid).await
    }

    async fn is_closed(&mut self) -> bool {
        self.record().await.is_none()
    }
}

/// Anonymous resident memory of this process, in bytes: other tests map files beside us.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}
