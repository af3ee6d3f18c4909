//! One connection: an inbox, a task per call that waits for something, its replies. Calls run side by side and are
//! answered as they end.

use super::dispatch::system_error;
use super::inbox::{Ended, Inbox, Todo, Work};
use super::limits::Limits;
use super::locks::Ends;
use super::outgoing::Procedure;
use super::replies::{Replies, Reply};
use super::seats::Seat;
use super::{Shared, count};
use crate::env::{Staying, in_passing};
use crate::wire::nfs3::{self, procedure};
use crate::wire::rpc::{CallHeader, denied};
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error};

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
    let (replies, mut writer) = Replies::begin(writer, &shared.limits);
    let mut inbox = Inbox::new(shared.clone(), seat.clone(), peer, reader);
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
    replies: &Replies,
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
fn start(shared: Arc<Shared>, ends: Ends, replies: Replies, work: Work) {
    let quick = match &work.todo {
        Todo::Call(header, args) => args.rest().len() <= Limits::LARGE && !lists(header),
        Todo::Deny(..) => true,
    };
    let call = run(shared, ends, replies, work);
    if quick {
        here_or_in_a_task(call);
    } else {
        // To look through its data, or to list, takes a while, in which the next call can be read.
        tokio::spawn(Staying::new(call));
    }
}

const fn lists(header: &CallHeader) -> bool {
    header.program == nfs3::PROGRAM && matches!(header.procedure, procedure::READDIR | procedure::READDIRPLUS)
}

/// Calls on what is in memory end when they are polled for the first time: that is done here, where it costs no task and
/// wakes no thread. What does not end so goes on in a task.
fn here_or_in_a_task(call: impl Future<Output = ()> + Send + 'static) {
    let mut call: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(call);
    // Nobody need be woken: its task polls it again.
    if in_passing(|| call.as_mut().poll(&mut Context::from_waker(Waker::noop()))).is_pending() {
        tokio::spawn(Staying::of(call));
    }
}

async fn run(shared: Arc<Shared>, ends: Ends, replies: Replies, work: Work) {
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
    replies.send(Reply { frame, last, places }).await;
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
