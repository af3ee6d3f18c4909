//! An NFSv3 client that behaves as a kernel with a hard mount does: many calls in flight over one connection; a lost
//! connection is made again (from the same port when that is possible) and every unanswered call is sent again with the
//! same xid and the same bytes; on JUKEBOX it waits and sends a fresh call. Bounds: [`IN_FLIGHT_MAX`] calls; a call
//! that is not answered within the deadline is an error, and the run has failed.

use super::Error;
use super::nfs::{Call, Fh, MOUNT_PROGRAM, NFS_PROGRAM, Reply, VERSION, status};
use super::xdr::{Decoder, Encoder};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Calls in flight on one connection; further ones wait their turn.
pub const IN_FLIGHT_MAX: usize = 64;
/// Largest reply that is accepted.
const REPLY_MAX: usize = (1 << 20) + (64 << 10);
/// A connection on which a call stays unanswered so long is given up and made again.
const STALL: Duration = Duration::from_secs(15);
/// Pause after JUKEBOX (a kernel waits five seconds; the demo would measure nothing but that).
const JUKEBOX_PAUSE: Duration = Duration::from_millis(20);

/// AUTH_UNIX.
#[derive(Clone, Debug)]
pub struct Cred {
    pub uid: u32,
    pub gid: u32,
    pub gids: Vec<u32>,
}

impl Cred {
    /// Whoever runs this process.
    pub fn own() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), gids: Vec::new() }
    }
}

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    cred: Cred,
}

struct Inner {
    calls: mpsc::Sender<Outgoing>,
    room: Semaphore,
    next_xid: AtomicU32,
    deadline: Duration,
    counters: Arc<Counters>,
}

/// What happened on the way.
#[derive(Debug, Default)]
pub struct Counters {
    pub connects: AtomicU64,
    pub resent: AtomicU64,
    pub jukebox: AtomicU64,
}

struct Outgoing {
    xid: u32,
    record: Bytes,
    answer: oneshot::Sender<Bytes>,
}

impl Client {
    /// A client whose xids begin at `first_xid`. Connecting happens when the first call is made. Must be called within
    /// a tokio runtime.
    pub fn new(server: SocketAddr, cred: Cred, first_xid: u32, deadline: Duration) -> Self {
        Self::from(server.ip(), server, cred, first_xid, deadline)
    }

    /// The same, calling from an address of our own choice.
    pub fn from(from: IpAddr, server: SocketAddr, cred: Cred, first_xid: u32, deadline: Duration) -> Self {
        let (calls, rx) = mpsc::channel(IN_FLIGHT_MAX);
        let counters = Arc::new(Counters::default());
        let link = Link { server, from, port: None, pending: BTreeMap::new(), counters: counters.clone() };
        tokio::spawn(link.run(rx));
        let room = Semaphore::new(IN_FLIGHT_MAX);
        Self { inner: Arc::new(Inner { calls, room, next_xid: AtomicU32::new(first_xid), deadline, counters }), cred }
    }

    /// The same connection with other credentials.
    #[must_use]
    pub fn with_cred(&self, cred: Cred) -> Self {
        Self { inner: self.inner.clone(), cred }
    }

    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// One call, one answer, whatever it is; JUKEBOX too.
    pub async fn once(&self, call: &Call) -> Result<Reply, Error> {
        let (xid, body) = self.rpc(NFS_PROGRAM, call.number(), &call.encode()).await?;
        call.decode(xid, body).map_err(|e| Error::Wire(format!("{call:?}: {e}")))
    }

    /// As often as the server says JUKEBOX; the reply tells the xids of all tries. Bound: the deadline by the pause.
    pub async fn nfs(&self, call: &Call) -> Result<Reply, Error> {
        let begun = Instant::now();
        let mut earlier = Vec::new();
        loop {
            let reply = self.once(call).await?;
            if reply.status != status::JUKEBOX {
                return Ok(Reply { earlier, ..reply });
            }
            earlier.push(reply.xid);
            self.inner.counters.jukebox.fetch_add(1, Ordering::Relaxed);
            if begun.elapsed() > self.inner.deadline {
                return Err(Error::Deadline(format!("JUKEBOX for {:?} without end: {call:?}", begun.elapsed())));
            }
            sleep(JUKEBOX_PAUSE).await;
        }
    }

    /// MNT: the handle of a directory, or the status.
    pub async fn mount(&self, path: &[u8]) -> Result<Result<Fh, u32>, Error> {
        let mut e = Encoder::new();
        e.opaque(path);
        let (_, body) = self.rpc(MOUNT_PROGRAM, 1, &e.finish()).await?;
        let mut d = Decoder::new(body);
        match d.u32()? {
            0 => {
                let fh = d.opaque()?;
                for _ in 0..d.u32()? {
                    d.u32()?;
                }
                d.end()?;
                Ok(Ok(fh))
            }
            status => Ok(Err(status)),
        }
    }

    /// Any procedure of any program; the results are what is left of the reply.
    pub async fn rpc(&self, program: u32, procedure: u32, args: &[u8]) -> Result<(u32, Bytes), Error> {
        let _room = self.inner.room.acquire().await.map_err(|_| Error::Closed)?;
        let xid = self.inner.next_xid.fetch_add(1, Ordering::Relaxed);
        let record = record(&call_bytes(xid, &self.cred, program, VERSION, procedure, args));
        let (answer, reply) = oneshot::channel();
        self.inner.calls.send(Outgoing { xid, record, answer }).await.map_err(|_| Error::Closed)?;
        let body = match timeout(self.inner.deadline, reply).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => {
                let limit = self.inner.deadline;
                return Err(Error::Deadline(format!("procedure {procedure}, xid {xid:#x}: no answer in {limit:?}")));
            }
        };
        Ok((xid, accepted(body)?))
    }
}

/// An RPC call without its record mark.
pub fn call_bytes(xid: u32, cred: &Cred, program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut auth = Encoder::new();
    auth.u32(0).opaque(b"tain-demo").u32(cred.uid).u32(cred.gid);
    auth.u32(u32::try_from(cred.gids.len()).unwrap_or(0));
    for gid in &cred.gids {
        auth.u32(*gid);
    }
    let mut e = Encoder::new();
    e.u32(xid).u32(0).u32(2).u32(program).u32(version).u32(procedure);
    e.u32(1).opaque(&auth.finish()).u32(0).u32(0);
    let mut out = e.finish();
    out.extend_from_slice(args);
    out
}

/// With the mark that makes it a record of one fragment.
pub fn record(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 4);
    let len = u32::try_from(message.len()).unwrap_or(0);
    out.extend_from_slice(&(len | 0x8000_0000).to_be_bytes());
    out.extend_from_slice(message);
    Bytes::from(out)
}

/// The results of a reply that was accepted and carried out.
pub fn accepted(body: Bytes) -> Result<Bytes, Error> {
    let mut d = Decoder::new(body);
    let (_xid, message, replied) = (d.u32()?, d.u32()?, d.u32()?);
    if message != 1 {
        return Err(Error::Wire(format!("message type {message} where a reply was due")));
    }
    if replied != 0 {
        return Err(Error::Rpc(format!("call denied ({}, {})", d.u32()?, d.u32().unwrap_or(0))));
    }
    let (_flavor, _verf) = (d.u32()?, d.opaque()?);
    match d.u32()? {
        0 => Ok(d.rest()),
        n => Err(Error::Rpc(format!("accept_stat {n}"))),
    }
}

/// The task behind a client.
struct Link {
    server: SocketAddr,
    /// Our own address: the server's, unless another one was asked for.
    from: IpAddr,
    /// The port we called from last.
    port: Option<u16>,
    /// Sent and unanswered.
    pending: BTreeMap<u32, Outgoing>,
    counters: Arc<Counters>,
}

impl Link {
    async fn run(mut self, mut calls: mpsc::Receiver<Outgoing>) {
        while let Some(stream) = self.connect(&mut calls).await {
            if !self.serve(stream, &mut calls).await {
                return;
            }
        }
    }

    /// `None`: nobody wants this client any more.
    async fn connect(&mut self, calls: &mut mpsc::Receiver<Outgoing>) -> Option<TcpStream> {
        loop {
            self.pending.retain(|_, call| !call.answer.is_closed());
            if self.pending.is_empty() {
                let first = calls.recv().await?;
                self.pending.insert(first.xid, first);
            }
            match self.try_connect().await {
                Ok(stream) => {
                    self.counters.connects.fetch_add(1, Ordering::Relaxed);
                    return Some(stream);
                }
                Err(_) if calls.is_closed() && calls.is_empty() => return None,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn try_connect(&mut self) -> std::io::Result<TcpStream> {
        let attempt = async |port: Option<u16>| {
            let socket = if self.server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if port.is_some() || self.from != self.server.ip() {
                socket.set_reuseaddr(true)?;
                socket.bind(SocketAddr::new(self.from, port.unwrap_or(0)))?;
            }
            socket.connect(self.server).await
        };
        let stream = match attempt(self.port).await {
            Ok(stream) => stream,
            // The old port may still be taken by what is left of the old connection.
            Err(e) if self.port.is_some() && e.kind() != std::io::ErrorKind::ConnectionRefused => attempt(None).await?,
            Err(e) => return Err(e),
        };
        let local = stream.local_addr()?;
        if local == self.server {
            // On loopback a connect can meet itself while nobody listens.
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        self.port = Some(local.port());
        Ok(stream)
    }

    /// Until the connection is lost (true) or nobody wants it any more (false).
    async fn serve(&mut self, stream: TcpStream, calls: &mut mpsc::Receiver<Outgoing>) -> bool {
        let (mut from, mut to) = stream.into_split();
        // Bounded by the calls in flight: each is in it once per connection.
        let (records, mut queue) = mpsc::unbounded_channel::<Bytes>();
        let writer = tokio::spawn(async move {
            while let Some(record) = queue.recv().await {
                if to.write_all(&record).await.is_err() {
                    return;
                }
            }
        });
        let mut sent: HashMap<u32, Instant> = HashMap::new();
        let first = self.counters.connects.load(Ordering::Relaxed) == 1;
        for (xid, call) in &self.pending {
            if !first {
                self.counters.resent.fetch_add(1, Ordering::Relaxed);
            }
            sent.insert(*xid, Instant::now());
            let _ = records.send(call.record.clone());
        }
        let mut buf = BytesMut::with_capacity(64 << 10);
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        let wanted = loop {
            tokio::select! {
                call = calls.recv() => match call {
                    Some(call) => {
                        sent.insert(call.xid, Instant::now());
                        let lost = records.send(call.record.clone()).is_err();
                        self.pending.insert(call.xid, call);
                        if lost { break true; }
                    }
                    None => break false,
                },
                read = from.read_buf(&mut buf) => match read {
                    Ok(n) if n > 0 => match self.answers(&mut buf, &mut sent) {
                        Ok(()) => {}
                        Err(e) => {
                            eprintln!("demo client: {e}");
                            break true;
                        }
                    },
                    _ => break true,
                },
                _ = tick.tick() => {
                    let stalled = sent.iter().any(|(xid, at)| at.elapsed() > STALL && self.pending.contains_key(xid));
                    if stalled || writer.is_finished() { break true; }
                }
            }
        };
        writer.abort();
        wanted
    }

    /// Hands on every whole record in `buf`.
    fn answers(&mut self, buf: &mut BytesMut, sent: &mut HashMap<u32, Instant>) -> Result<(), Error> {
        while buf.len() >= 4 {
            let mark = u32::from_be_bytes([buf[0], buf[1], buf[2], buf[3]]);
            let len = usize::try_from(mark & 0x7fff_ffff).unwrap_or(usize::MAX);
            if mark & 0x8000_0000 == 0 || !(4..=REPLY_MAX).contains(&len) {
                return Err(Error::Wire(format!("record mark {mark:#x}")));
            }
            if buf.len() < 4 + len {
                buf.reserve(4 + len - buf.len());
                break;
            }
            buf.advance(4);
            let body = buf.split_to(len).freeze();
            let xid = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
            sent.remove(&xid);
            // A second answer to the same call (it was sent twice) finds nobody waiting.
            if let Some(call) = self.pending.remove(&xid) {
                let _ = call.answer.send(body);
            }
        }
        Ok(())
    }
}
