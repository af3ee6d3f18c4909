//! Calls that the gateway makes itself: to clients' portmappers, lock managers and status monitors, and to this machine's
//! rpcbind. One connection a call; every step has its time, and a reply its size.

use crate::wire::portmap::{self, Mapping};
use crate::wire::record::Assembler;
use crate::wire::rpc::{self, Accept, CallHeader, Credential, Reply, parse_reply};
use crate::wire::xdr::{Reader, Writer};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long a connection, and then an answer, may take.
const STEP_MAX: Duration = Duration::from_secs(4);
/// Longest reply that is read, in bytes: a list of some thousand registrations.
const REPLY_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: nobody can have acted on it.
    #[error("{0}")]
    NotSent(String),
    /// It may have been acted on.
    #[error("{0}")]
    Unanswered(String),
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub struct Procedure {
    pub program: u32,
    pub version: u32,
    pub number: u32,
}

impl Procedure {
    #[must_use]
    pub const fn of(call: &CallHeader) -> Self {
        Self { program: call.program, version: call.version, number: call.procedure }
    }
}

static XID: AtomicU32 = AtomicU32::new(1);

/// One call, and the results of its reply.
pub async fn call(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    to: Procedure,
    put: impl FnOnce(&mut Writer),
) -> Result<Reader, CallError> {
    let Procedure { program, version, number } = to;
    let xid = XID.fetch_add(1, Ordering::Relaxed);
    let mut w = rpc::call(&CallHeader { xid, program, version, procedure: number, credential: Credential::None });
    put(&mut w);
    let message = w.finish().to_vec();
    let unanswered = |why: String| CallError::Unanswered(why);
    let exchange = async {
        stream.write_all(&message).await?;
        reply(stream).await
    };
    let record = match timeout(STEP_MAX, exchange).await {
        Ok(Ok(record)) => record,
        Ok(Err(error)) => return Err(unanswered(error.to_string())),
        Err(_) => return Err(unanswered(format!("no answer within {STEP_MAX:?}"))),
    };
    match parse_reply(record) {
        Ok((got, Reply::Accepted(Accept::Success, results))) if got == xid => Ok(results),
        // Who has no such program has not acted.
        Ok((got, Reply::Accepted(accept, _))) if got == xid => Err(CallError::NotSent(format!("{accept:?}"))),
        Ok((got, Reply::Denied(denial))) if got == xid => Err(CallError::NotSent(format!("{denial:?}"))),
        _ => Err(unanswered("an answer that makes no sense".into())),
    }
}

async fn reply(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bytes::Bytes> {
    let mut assembler = Assembler::default();
    loop {
        let record = assembler.take_record().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if let Some(record) = record {
            return Ok(record);
        }
        if assembler.expected() > REPLY_MAX || assembler.received() > REPLY_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is too long"));
        }
        if stream.read_buf(assembler.buffer()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A connection can be made from this address.
pub fn is_ours(addr: IpAddr) -> bool {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    socket.and_then(|socket| socket.bind((addr, 0).into())).is_ok()
}

/// Connect, from the address that the peer knows us by where that can be had.
pub async fn connect(local: Option<IpAddr>, to: SocketAddr) -> Result<TcpStream, CallError> {
    let not = |why: String| CallError::NotSent(format!("{to}: {why}"));
    let attempt = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(local) = local.filter(|local| local.is_ipv4() == to.is_ipv4()) {
            socket.bind((local, 0).into())?;
        }
        socket.connect(to).await
    };
    match timeout(STEP_MAX, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(not(error.to_string())),
        Err(_) => Err(not(format!("no connection within {STEP_MAX:?}"))),
    }
}

/// Where a host's portmapper says that a program listens, by TCP.
pub async fn port_of(
    local: Option<IpAddr>,
    portmapper: SocketAddr,
    program: u32,
    version: u32,
) -> Result<SocketAddr, CallError> {
    let not = |why: &str| CallError::NotSent(format!("{portmapper}: {why}"));
    let mut stream = connect(local, portmapper).await?;
    let getport =
        Procedure { program: portmap::PROGRAM, version: portmap::VERSION, number: portmap::procedure::GETPORT };
    let mapping = Mapping { program, version, protocol: portmap::TCP, port: 0 };
    // Asking where someone is does nothing.
    let answer = call(&mut stream, getport, |w| {
        w.put(&mapping);
    });
    let mut results = answer.await.map_err(|error| not(&error.to_string()))?;
    match results.u32().ok().and_then(|port| u16::try_from(port).ok()) {
        None => Err(not("an answer that makes no sense")),
        Some(0) => Err(not(&format!("program {program} is not registered there"))),
        Some(port) => Ok(SocketAddr::new(portmapper.ip(), port)),
    }
}
