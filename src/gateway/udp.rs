//! What is served by UDP: hosts tell so that they have restarted (SM_NOTIFY), and `mount`, unless it is told otherwise,
//! asks so for MOUNT first, and stays with it when NULL is answered. Not NFS and not locks: who asks by UDP whether they
//! are there must not be told so. Datagrams are small, and what makes no sense is not answered.

use super::Shared;
use super::locks::Ends;
use super::outgoing::Procedure;
use crate::wire::rpc::{CallHeader, parse_call};
use crate::wire::xdr::Reader;
use crate::wire::{mount, nsm};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longest datagram that is looked at, in bytes: a name, a credential, and what is around them.
const DATAGRAM_MAX: usize = 2048;
/// After an error of the socket, which is another datagram's that could not be delivered.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls of MOUNT that are being answered; more are lost, and sent again. From a filer that hangs a mount takes a while.
const MOUNTS_MAX: usize = 64;

/// Until aborted.
pub(super) async fn serve(shared: Arc<Shared>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut mounting = JoinSet::new();
    let mut buffer = [0u8; DATAGRAM_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, peer)) if len <= DATAGRAM_MAX => {
                let Ok((header, args)) = parse_call(Bytes::copy_from_slice(&buffer[..len])) else { continue };
                // A list may be longer than a datagram; whoever wants one comes by TCP.
                let is_list =
                    [mount::Args::Dump, mount::Args::Export].iter().any(|a| a.procedure() == header.procedure);
                let answer = answer(shared.clone(), socket.clone(), peer, header.clone(), args);
                match header.program {
                    // Waits for nothing: hosts are heard whatever hangs.
                    nsm::PROGRAM => answer.await,
                    mount::PROGRAM if !is_list => {
                        while mounting.try_join_next().is_some() {}
                        if mounting.len() < MOUNTS_MAX {
                            mounting.spawn(answer);
                        }
                    }
                    _ => {}
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "receiving a datagram failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, socket: Arc<UdpSocket>, peer: SocketAddr, header: CallHeader, args: Reader) {
    let (procedure, begun) = (Procedure::of(&header), Instant::now());
    let frame = shared.answer(Ends { peer, local: None }, header, args).await;
    shared.timing.observe(peer, procedure, begun.elapsed());
    // Without the mark of a record.
    let reply = Bytes::from(frame.to_vec()).slice(4..);
    if let Err(error) = socket.try_send_to(&reply, peer) {
        tracing::debug!(%peer, %error, "a datagram was not answered");
    }
}
