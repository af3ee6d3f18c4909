//! One connection: an inbox, a task per call that waits for something, a writer. Calls run side by side and are answered
//! as they end.

use super::dispatch::system_error;
use super::inbox::{Ended, Inbox, Places, Todo, Work, pace};
use super::limits::Limits;
use super::locks::Ends;
use super::outgoing::Procedure;
use super::seats::Seat;
use super::{Shared, count};
use crate::env::in_passing;
use crate::wire::nfs3::{self, procedure};
use crate::wire::rpc::{CallHeader, denied};
use crate::wire::xdr::Frame;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, error};

/// A reply on its way out.
struct Outgoing {
    frame: Frame,
    /// Close the connection behind it.
    last: bool,
    _places: Places,
}

enum End {
    /// Serve what has been asked, then close.
    Drain,
    /// Close now.
    Close,
    /// The writer has ended: a reply could not be written, or was the last.
    Writer,
}

/// Serve a connection until it ends, `stop` is true, or its seat is needed.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    seat: Arc<Seat>,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        // Reset before it was accepted: nobody is there.
        debug!(%peer, %error, "connection gone");
        return shared.seats.release(&seat);
    }
    // Where it came in: a client that waits for a lock is called back from there.
    let ends = Ends { peer, local: stream.local_addr().ok() };
    let (reader, writer) = stream.into_split();
    let (replies, queue) = mpsc::channel(shared.limits.calls_per_connection as usize);
    let mut writer = tokio::spawn(write(writer, queue, shared.limits.write_deadline));
    let mut inbox = Inbox::new(shared.clone(), seat.clone(), reader);
    let end = read(&shared, &mut inbox, &seat, ends, &replies, &mut writer, stop).await;
    // From here on it takes no seat: what still runs is bounded by `Limits::calls_all`.
    shared.seats.release(&seat);
    match end {
        End::Drain => {
            let all = seat.slots.acquire_many(shared.limits.calls_per_connection);
            tokio::select! {
                _ = all => {}
                _ = &mut writer => {}
            }
        }
        End::Close => writer.abort(),
        End::Writer => inbox.linger().await,
    }
}

async fn read(
    shared: &Arc<Shared>,
    inbox: &mut Inbox,
    seat: &Seat,
    ends: Ends,
    replies: &mpsc::Sender<Outgoing>,
    writer: &mut JoinHandle<()>,
    mut stop: watch::Receiver<bool>,
) -> End {
    let peer = ends.peer;
    loop {
        let next = tokio::select! {
            biased;
            // An error is a sender that is gone: nobody could stop us any more.
            _ = stop.wait_for(|stop| *stop) => return End::Drain,
            () = seat.leave.notified() => return End::Close,
            _ = &mut *writer => return End::Writer,
            next = inbox.next() => next,
        };
        match next {
            Ok(work) => start(shared.clone(), ends, replies.clone(), work),
            Err(Ended::Closed) => return End::Drain,
            Err(why @ Ended::Idle) => {
                debug!(%peer, %why, "connection closed");
                return End::Close;
            }
            Err(why) => {
                count(&shared.stats.broken);
                debug!(%peer, %why, "connection closed");
                return End::Close;
            }
        }
    }
}

/// Run a call. What began is not cancelled: it outlives the connection, in a task of its own.
fn start(shared: Arc<Shared>, ends: Ends, replies: mpsc::Sender<Outgoing>, work: Work) {
    let quick = match &work.todo {
        Todo::Call(header, args) => args.rest().len() <= Limits::LARGE && !lists(header),
        Todo::Deny(..) => true,
    };
    let call = run(shared, ends, replies, work);
    if quick {
        here_or_in_a_task(call);
    } else {
        // To look through its data, or to list, takes a while, in which the next call can be read.
        tokio::spawn(call);
    }
}

const fn lists(header: &CallHeader) -> bool {
    header.program == nfs3::PROGRAM && matches!(header.procedure, procedure::READDIR | procedure::READDIRPLUS)
}

/// Calls on what is in memory end when they are polled for the first time: that is done here, where it costs no task and
/// wakes no thread. What does not end so goes on in a task.
fn here_or_in_a_task(call: impl Future<Output = ()> + Send + 'static) {
    let mut call = Box::pin(call);
    // Nobody need be woken: its task polls it again.
    if in_passing(|| call.as_mut().poll(&mut Context::from_waker(Waker::noop()))).is_pending() {
        tokio::spawn(call);
    }
}

async fn run(shared: Arc<Shared>, ends: Ends, replies: mpsc::Sender<Outgoing>, work: Work) {
    let peer = ends.peer;
    let Work { todo, mut places, running } = work;
    let (frame, last) = match todo {
        Todo::Deny(xid, denial) => (denied(xid, denial).finish(), false),
        Todo::Call(header, args) => {
            let (xid, procedure) = (header.xid, Procedure::of(&header));
            let begun = Instant::now();
            let answer = caught(shared.answer(ends, header, args)).await;
            shared.timing.observe(peer, procedure, begun.elapsed());
            match answer {
                Some(frame) => (frame, false),
                None => {
                    count(&shared.stats.panics);
                    error!(%peer, xid, ?procedure, "the handler of a call panicked; connection closed");
                    (system_error(xid).finish(), true)
                }
            }
        }
    };
    drop(running);
    places.shrink(frame.wire_len());
    // There is a place for every call in flight: this never waits. An error is a connection that is gone.
    let _ = replies.send(Outgoing { frame, last, _places: places }).await;
}

/// The future's value, or `None` when it panics.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Write replies as they come, several at a time; end when one cannot be written in time, or says it is the last.
async fn write(mut socket: OwnedWriteHalf, mut queue: mpsc::Receiver<Outgoing>, within: Duration) {
    const BATCH: usize = 64;
    let mut batch = Vec::with_capacity(4);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let last = batch.iter().position(|reply| reply.last);
        batch.truncate(last.map_or(batch.len(), |at| at + 1));
        let bytes: usize = batch.iter().map(|reply| reply.frame.wire_len()).sum();
        let deadline = Instant::now() + within + pace(bytes);
        let written = timeout_at(deadline, write_all(&mut socket, pieces(&batch), within)).await;
        if last.is_some() || !matches!(written, Ok(Ok(()))) {
            break;
        }
        batch.clear();
    }
    let _ = socket.shutdown().await;
}

/// Small replies in one piece, the data of large ones from where it lies.
fn pieces(batch: &[Outgoing]) -> VecDeque<Bytes> {
    let mut out = VecDeque::new();
    let mut small = BytesMut::new();
    for Outgoing { frame, .. } in batch {
        if batch.len() == 1 && frame.tail.is_empty() {
            out.push_back(frame.head.clone());
            continue;
        }
        small.extend_from_slice(&frame.head);
        if !frame.tail.is_empty() {
            out.push_back(small.split().freeze());
            out.push_back(frame.tail.clone());
            small.extend_from_slice(frame.pad());
        }
    }
    if !small.is_empty() {
        out.push_back(small.freeze());
    }
    out
}

/// All of it, with never longer than `within` from one byte taken to the next.
async fn write_all(socket: &mut OwnedWriteHalf, mut pieces: VecDeque<Bytes>, within: Duration) -> io::Result<()> {
    const SLICES: usize = 64;
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let mut written = timeout(within, socket.write_vectored(&slices)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_call_that_ends_at_once_ends_here_and_another_in_a_task() {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let (before, (done, mut ended)) = (tasks(), oneshot::channel());
        here_or_in_a_task(async move { done.send(()).unwrap() });
        ended.try_recv().expect("nothing was waited for");
        assert_eq!(tasks(), before);

        let ((go, wait), (done, ended)) = (oneshot::channel::<()>(), oneshot::channel());
        here_or_in_a_task(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        });
        assert_eq!(tasks(), before + 1);
        go.send(()).unwrap();
        ended.await.expect("it goes on by itself");
    }
}
