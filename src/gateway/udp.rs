//! What is served by UDP: hosts tell so that they have restarted (SM_NOTIFY), and `mount`, unless it is told otherwise,
//! asks so for MOUNT first, and stays with it when NULL is answered. Not NFS and not locks: who asks by UDP whether they
//! are there must not be told so. Datagrams are small, and what makes no sense is not answered.

use super::Shared;
use super::locks::Ends;
use super::outgoing::Procedure;
use crate::wire::rpc::parse_call;
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

/// Datagrams that are being answered; more are lost, and sent again. Whoever mounts from a filer that hangs takes a while.
const AT_ONCE: usize = 64;

/// Until aborted.
pub(super) async fn serve(shared: Arc<Shared>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut answering = JoinSet::new();
    let mut buffer = [0u8; DATAGRAM_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, peer)) if len <= DATAGRAM_MAX => {
                while answering.try_join_next().is_some() {}
                if answering.len() < AT_ONCE {
                    let (shared, socket) = (shared.clone(), socket.clone());
                    let datagram = Bytes::copy_from_slice(&buffer[..len]);
                    answering.spawn(async move {
                        if let Some(reply) = answer(&shared, peer, datagram).await
                            && let Err(error) = socket.try_send_to(&reply, peer)
                        {
                            tracing::debug!(%peer, %error, "a datagram was not answered");
                        }
                    });
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

async fn answer(shared: &Arc<Shared>, peer: SocketAddr, datagram: Bytes) -> Option<Bytes> {
    let (header, args) = parse_call(datagram).ok()?;
    // A list may be longer than a datagram; whoever wants one comes by TCP.
    let lists = [mount::Args::Dump.procedure(), mount::Args::Export.procedure()];
    match header.program {
        nsm::PROGRAM => {}
        mount::PROGRAM if !lists.contains(&header.procedure) => {}
        _ => return None,
    }
    let (procedure, begun) = (Procedure::of(&header), Instant::now());
    let frame = shared.answer(Ends { peer, local: None }, header, args).await;
    shared.timing.observe(peer, procedure, begun.elapsed());
    // Without the mark of a record.
    Some(Bytes::from(frame.to_vec()).slice(4..))
}
