//! RPC by hand: one connection from an address and port of one's own choice, any credentials, every kind of answer.

use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tain::demo::client::{Cred, call_bytes, record};
use tain::demo::nfs::{Call, NFS_PROGRAM, Reply, VERSION};
use tain::demo::xdr::Decoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// For what hangs.
const LONG: Duration = Duration::from_secs(60);

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The RPC layer refused the caller: its auth_stat.
    Denied(u32),
    /// It refused the call: its accept_stat.
    Unaccepted(u32),
    Results(Bytes),
}

pub struct Raw {
    pub stream: TcpStream,
    xid: u32,
}

impl Raw {
    pub async fn connect(from: SocketAddr, server: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(from)?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        // Xids of one address must differ, whatever connection they come over.
        let xid = u32::from(stream.local_addr()?.port()) << 16;
        Ok(Self { stream, xid })
    }

    pub async fn call(&mut self, program: u32, procedure: u32, cred: &Cred, args: &[u8]) -> Answer {
        self.xid += 1;
        let call = record(&call_bytes(self.xid, cred, program, VERSION, procedure, args));
        self.stream.write_all(&call).await.unwrap();
        let mut d = Decoder::new(self.record().await.expect("a reply"));
        assert_eq!((d.u32().unwrap(), d.u32().unwrap()), (self.xid, 1), "the reply to another call");
        if d.u32().unwrap() != 0 {
            assert_eq!(d.u32().unwrap(), 1, "denied for another reason than who calls");
            return Answer::Denied(d.u32().unwrap());
        }
        let (_flavour, _verifier) = (d.u32().unwrap(), d.opaque().unwrap());
        match d.u32().unwrap() {
            0 => Answer::Results(d.rest()),
            stat => Answer::Unaccepted(stat),
        }
    }

    pub async fn nfs(&mut self, cred: &Cred, call: &Call) -> Result<Reply, Answer> {
        match self.call(NFS_PROGRAM, call.number(), cred, &call.encode()).await {
            Answer::Results(body) => Ok(call.decode(self.xid, body).unwrap_or_else(|e| panic!("{call:?}: {e}"))),
            other => Err(other),
        }
    }

    /// One record of one fragment; `None` when the connection was closed.
    pub async fn record(&mut self) -> Option<Bytes> {
        let mut mark = [0; 4];
        let read = tokio::time::timeout(LONG, self.stream.read_exact(&mut mark)).await.expect("no reply");
        read.ok()?;
        let mark = u32::from_be_bytes(mark);
        assert!(mark & 0x8000_0000 != 0, "a reply in fragments");
        let mut body = vec![0; (mark & 0x7fff_ffff) as usize];
        tokio::time::timeout(LONG, self.stream.read_exact(&mut body)).await.expect("half a reply").ok()?;
        Some(body.into())
    }
}
