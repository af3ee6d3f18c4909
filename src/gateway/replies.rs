//! The replies of one connection on their way out.
//!
//! A task of its own writes them as they come, several at a time. The reply to a connection's only call, when it is small
//! and was not made in passing, is written by whoever made it: to wake that task takes longer than the write. Either has the
//! socket's lock meanwhile.
//!
//! Bound: a reply has its [`Places`] until it is written.

use super::inbox::{Places, pace};
use super::limits::Limits;
use crate::wire::xdr::Frame;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// A reply on its way out.
pub(super) struct Reply {
    pub frame: Frame,
    /// Close the connection behind it.
    pub last: bool,
    pub places: Places,
}

/// Where the replies of a connection go. It does not keep the connection open.
#[derive(Clone)]
pub(super) struct Replies {
    queue: mpsc::Sender<Reply>,
    out: Weak<Mutex<Out>>,
    calls_max: u32,
}

struct Out {
    socket: OwnedWriteHalf,
    /// Of a reply that was written in part: comes before anything else.
    rest: Bytes,
    /// The task is, or was left, in the middle of a reply.
    torn: bool,
}

impl Replies {
    /// Start the task; it ends when a reply cannot be written in time, or says that it is the last, or nobody can send any
    /// more.
    pub fn begin(socket: OwnedWriteHalf, limits: &Limits) -> (Replies, JoinHandle<()>) {
        let (queue, replies) = mpsc::channel(limits.calls_per_connection as usize);
        let out = Arc::new(Mutex::new(Out { socket, rest: Bytes::new(), torn: false }));
        let to = Replies { queue, out: Arc::downgrade(&out), calls_max: limits.calls_per_connection };
        (to, tokio::spawn(write(out, replies, limits.write_deadline)))
    }

    /// An error is a connection that is gone, which is nothing to whoever answers.
    pub async fn send(&self, reply: Reply) {
        if let Some(reply) = self.write_now(reply) {
            // There is a place for every call in flight: this never waits.
            let _ = self.queue.send(reply).await;
        }
    }

    /// Write it here, if that costs nobody anything. What is left is for the queue.
    fn write_now(&self, mut reply: Reply) -> Option<Reply> {
        let len = reply.frame.wire_len();
        // Whoever reads the connection has more to do: there the task runs next, on the same thread or beside it.
        let goes_on = crate::env::is_in_passing();
        if goes_on || reply.last || len > Limits::LARGE || !reply.places.are_of_the_only_call(self.calls_max) {
            return Some(reply);
        }
        let Some(out) = self.out.upgrade() else { return Some(reply) };
        let Ok(mut out) = out.try_lock() else { return Some(reply) };
        if out.torn || !out.rest.is_empty() {
            return Some(reply);
        }
        let mut bytes = pieces(std::slice::from_ref(&reply));
        let slices: Vec<IoSlice<'_>> = bytes.iter().map(|piece| IoSlice::new(piece)).collect();
        match out.socket.try_write_vectored(&slices) {
            Ok(written) if written == len => None,
            Ok(written) if written > 0 => {
                take(&mut bytes, written);
                out.rest = bytes.into_iter().flatten().collect();
                reply.frame = Frame { head: Bytes::new(), tail: Bytes::new() };
                Some(reply)
            }
            // There is no room now; or the writer finds the same error.
            Ok(_) | Err(_) => Some(reply),
        }
    }
}

async fn write(out: Arc<Mutex<Out>>, mut queue: mpsc::Receiver<Reply>, within: Duration) {
    const BATCH: usize = 64;
    let mut batch = Vec::with_capacity(4);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let last = batch.iter().position(|reply| reply.last);
        batch.truncate(last.map_or(batch.len(), |at| at + 1));
        let mut out = out.lock().await;
        let mut bytes = pieces(&batch);
        bytes.push_front(std::mem::take(&mut out.rest));
        let deadline = Instant::now() + within + pace(bytes.iter().map(Bytes::len).sum());
        out.torn = true;
        let written = timeout_at(deadline, write_all(&mut out.socket, bytes, within)).await;
        if last.is_some() || !matches!(written, Ok(Ok(()))) {
            break;
        }
        out.torn = false;
        drop(out);
        batch.clear();
    }
    let _ = out.lock().await.socket.shutdown().await;
}

/// Small replies in one piece, the data of large ones from where it lies.
fn pieces(batch: &[Reply]) -> VecDeque<Bytes> {
    let mut out = VecDeque::new();
    let mut small = BytesMut::new();
    for Reply { frame, .. } in batch {
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
    pieces.retain(|piece| !piece.is_empty());
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let written = timeout(within, socket.write_vectored(&slices)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        take(&mut pieces, written);
    }
    Ok(())
}

/// So many bytes were written.
fn take(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = pieces.front_mut() {
        if written < front.len() {
            return front.advance(written);
        }
        written -= front.len();
        pieces.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;

    /// Limit for what would hang.
    const HANG: Duration = Duration::from_secs(60);

    struct Connection {
        replies: Replies,
        writer: JoinHandle<()>,
        slots: Arc<Semaphore>,
        client: TcpStream,
    }

    async fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, socket) = listener.accept().await.unwrap().0.into_split();
        let limits = Limits { write_deadline: Duration::from_secs(5), ..Limits::default() };
        let (replies, writer) = Replies::begin(socket, &limits);
        Connection { replies, writer, slots: Arc::new(Semaphore::new(limits.calls_per_connection as usize)), client }
    }

    impl Connection {
        fn reply(&self, head: &[u8], tail: &[u8]) -> Reply {
            let one = || self.slots.clone().try_acquire_owned().unwrap();
            let bytes = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let frame = Frame { head: Bytes::copy_from_slice(head), tail: Bytes::copy_from_slice(tail) };
            Reply { frame, last: false, places: Places::of(one(), bytes) }
        }
    }

    #[tokio::test]
    async fn the_reply_to_the_only_call_is_written_by_whoever_made_it_and_others_by_the_task() {
        let connection = connection().await;
        connection.replies.send(connection.reply(b"alone", b"and a tail")).await;
        let mut bytes = [0; 64];
        // One thread, and nothing was waited for: the task has not run.
        connection.client.readable().await.unwrap();
        assert_eq!(connection.client.try_read(&mut bytes).unwrap(), 5 + 12);
        assert!(bytes.starts_with(b"aloneand a tail\0\0"));
        assert_eq!(connection.slots.available_permits(), 64, "its places are free");
        let another = connection.slots.clone().try_acquire_owned().unwrap();
        connection.replies.send(connection.reply(b"one", b"")).await;
        assert_eq!(connection.slots.available_permits(), 62, "it is queued");
        connection.replies.send(connection.reply(b"of two", b"")).await;
        drop(another);
        let both = async {
            let mut read = Vec::new();
            while read.len() < 9 {
                connection.client.readable().await.unwrap();
                match connection.client.try_read(&mut bytes) {
                    Ok(n) => read.extend_from_slice(&bytes[..n]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            read
        };
        assert_eq!(tokio::time::timeout(HANG, both).await.unwrap(), b"oneof two");
    }

    /// A client that does not read, until there is no room: what was written in part is finished before anything else.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn replies_that_find_no_room_come_whole_and_in_order_when_there_is_some() {
        let connection = connection().await;
        let mut sent = Vec::new();
        let mut queued = 0;
        for n in 0..100_000_u32 {
            let text = vec![n as u8; 1 + n as usize * 7 % 8000];
            sent.extend_from_slice(&text);
            connection.replies.send(connection.reply(&text, b"")).await;
            if connection.slots.available_permits() < 64 {
                queued += 1;
                if queued == 20 {
                    break;
                }
            }
        }
        assert_eq!(queued, 20, "there was no end of room");
        let Connection { replies, writer, client, .. } = connection;
        drop(replies);
        let mut client = client.into_std().unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(HANG)).unwrap();
        let read = std::thread::spawn(move || {
            let mut read = Vec::new();
            client.read_to_end(&mut read).unwrap();
            read
        });
        tokio::time::timeout(HANG, writer).await.expect("all is written, then it is closed").unwrap();
        assert!(read.join().unwrap() == sent);
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_takes_no_reply_and_harms_nobody() {
        let connection = connection().await;
        connection.writer.abort();
        while !connection.writer.is_finished() {
            tokio::task::yield_now().await;
        }
        connection.replies.send(connection.reply(b"late", b"")).await;
        assert_eq!(connection.slots.available_permits(), 64);
        let closed = async {
            connection.client.readable().await.unwrap();
            connection.client.try_read(&mut [0; 8]).unwrap()
        };
        assert_eq!(tokio::time::timeout(HANG, closed).await.unwrap(), 0, "the calls do not keep it open");
    }
}
