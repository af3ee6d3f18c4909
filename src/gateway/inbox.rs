//! What a connection receives: records in time and within bounds, then calls with their places reserved.

use super::Shared;
use super::access::know;
use super::dispatch::reply_max;
use super::limits::Limits;
use super::seats::Seat;
use super::shares::{Held, Share, acquire, shrink};
use crate::wire::record::{Assembler, FramingError};
use crate::wire::rpc::{CallHeader, Denial, Refusal, parse_call};
use crate::wire::xdr::Reader;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Why a connection is read no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the client closed it")]
    Closed,
    #[error("nothing was asked for too long")]
    Idle,
    #[error("a record took too long to arrive")]
    Slow,
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("{0}")]
    Header(&'static str),
    #[error("reading it failed")]
    Io(#[from] io::Error),
}

/// A call, or a refusal to be sent.
pub(super) enum Todo {
    Call(CallHeader, Reader),
    Deny(u32, Denial),
}

/// Held while a call runs and until its reply is written: the bound on everything a client can make us keep.
pub(super) struct Places {
    slot: OwnedSemaphorePermit,
    reply: OwnedSemaphorePermit,
    large_reply: Option<Held>,
    /// Nothing else had come from the connection.
    alone: bool,
}

impl Places {
    /// No other call of the connection runs, no other reply waits, and none was there to be read behind this one: replies
    /// to calls that come together go together. `max`: the calls that it may have.
    pub fn are_of_the_only_call(&self, max: u32) -> bool {
        self.alone && self.slot.semaphore().available_permits() + 1 >= max as usize
    }

    #[cfg(test)]
    pub fn of(slot: OwnedSemaphorePermit, reply: OwnedSemaphorePermit) -> Places {
        Places { slot, reply, large_reply: None, alone: true }
    }

    /// The reply is there and takes only so many bytes: give the rest back.
    pub fn shrink(&mut self, bytes: usize) {
        shrink(&mut self.reply, bytes);
        if let Some(large) = &mut self.large_reply {
            large.shrink(bytes);
        }
    }
}

/// Held while a call runs.
pub(super) struct Running {
    _call: Held,
    _request: Option<Held>,
}

pub(super) struct Work {
    pub todo: Todo,
    pub places: Places,
    pub running: Running,
}

pub(super) struct Inbox {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    peer: SocketAddr,
    socket: OwnedReadHalf,
    assembler: Assembler,
    /// When the first byte of the present record came.
    begun: Option<Instant>,
    /// When the last record was complete.
    active: Instant,
    /// For the present record, when it is large.
    request_bytes: Option<Held>,
    /// Its address's part of what all share.
    share: Arc<Share>,
    budget: Arc<Semaphore>,
    budget_max: u32,
    /// Some policy has let the client in, so that its replies may be large; what others are answered is always small.
    known: bool,
    reply_bytes: Arc<Semaphore>,
    /// Complete, waiting for its places.
    next: Option<(Todo, Option<Held>)>,
}

impl Inbox {
    pub fn new(shared: Arc<Shared>, seat: Arc<Seat>, peer: SocketAddr, socket: OwnedReadHalf) -> Self {
        let known = seat.known();
        let (budget, budget_max) = budget(&shared, known);
        Self {
            reply_bytes: Arc::new(Semaphore::new(shared.limits.reply_bytes_per_connection as usize)),
            share: shared.shares.of(seat.addr, known, &shared.limits),
            shared,
            seat,
            peer,
            socket,
            assembler: Assembler::default(),
            begun: None,
            active: Instant::now(),
            request_bytes: None,
            budget,
            budget_max,
            known,
            next: None,
        }
    }

    /// The next call, once there is room for it and for its reply. May be cancelled and called again.
    pub async fn next(&mut self) -> Result<Work, Ended> {
        if self.next.is_none() {
            let record = self.record().await?;
            let request_bytes = self.request_bytes.take();
            let todo = match parse_call(record) {
                Ok((header, args)) => Todo::Call(header, args),
                Err(Refusal::Denied(xid, denial)) => Todo::Deny(xid, denial),
                Err(Refusal::Close(why)) => return Err(Ended::Header(why)),
            };
            self.next = Some((todo, request_bytes));
        }
        let slot = acquire(&self.seat.slots, 1, 1).await;
        let (reply, large_reply, call) = loop {
            let known = self.look_again();
            let places = self.places().await;
            // One that was let in while it waited may be answered much: there must be room for that.
            if self.look_again() == known {
                break places;
            }
        };
        let (todo, request) = self.next.take().expect("put there above");
        self.seat.touch();
        Ok(Work {
            todo,
            places: Places { slot, reply, large_reply, alone: !self.assembler.begun() },
            running: Running { _call: call, _request: request },
        })
    }

    /// Room for the reply to the call that is next, and for the call.
    async fn places(&self) -> (OwnedSemaphorePermit, Option<Held>, Held) {
        let want = match &self.next {
            Some((Todo::Call(header, args), _)) if self.known => reply_max(header, args),
            _ => 0,
        };
        let limits = &self.shared.limits;
        let reply = acquire(&self.reply_bytes, want, limits.reply_bytes_per_connection).await;
        let large = if want > Limits::LARGE {
            Some(self.share.reply(want, &self.shared.reply_bytes, limits.reply_bytes_all).await)
        } else {
            None
        };
        (reply, large, self.share.call(&self.shared.calls).await)
    }

    /// Whether the client is known by now. Of a stranger State is asked, as it is asked at every call: were it a
    /// stranger for as long as it is connected, nothing that it is answered would be counted.
    fn look_again(&mut self) -> bool {
        if !self.known && know(&self.shared.backend.state(), self.peer) {
            self.known = true;
            (self.budget, self.budget_max) = budget(&self.shared, true);
            self.share = self.shared.shares.of(self.seat.addr, true, &self.shared.limits);
            self.shared.seats.let_in(&self.seat);
        }
        self.known
    }

    async fn record(&mut self) -> Result<Bytes, Ended> {
        loop {
            if let Some(record) = self.assembler.take_record()? {
                self.begun = None;
                self.active = Instant::now();
                self.seat.touch();
                return Ok(record);
            }
            if self.assembler.begun() {
                self.begun.get_or_insert_with(Instant::now);
            }
            let expected = self.assembler.expected();
            if expected > Limits::LARGE && self.request_bytes.is_none() {
                self.look_again();
                // Waiting here is our doing, not the client's: its time starts when there is room.
                self.request_bytes = Some(self.share.request(expected, &self.budget, self.budget_max).await);
                self.begun = Some(Instant::now());
            }
            self.fill().await?;
        }
    }

    /// Wait for bytes, no longer than the deadline, and take what is there.
    async fn fill(&mut self) -> Result<(), Ended> {
        let limits = &self.shared.limits;
        let deadline = match self.begun {
            Some(begun) => begun + limits.record_deadline + pace(self.assembler.received()),
            None => self.active + limits.idle_deadline,
        };
        match timeout_at(deadline, self.socket.read_buf(self.assembler.buffer())).await {
            Ok(Ok(0)) => Err(Ended::Closed),
            Ok(read) => Ok(read.map(|_| ())?),
            Err(_) => self.late(),
        }
    }

    fn late(&mut self) -> Result<(), Ended> {
        if self.begun.is_some() {
            return Err(Ended::Slow);
        }
        if self.seat.quiet() {
            return Err(Ended::Idle);
        }
        self.active = Instant::now();
        Ok(())
    }

    /// Take and throw away what still comes, for a moment: closing a socket with unread bytes would take back the last
    /// reply too.
    pub async fn linger(mut self) {
        const LINGER: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + LINGER;
        self.assembler = Assembler::default();
        let mut scratch = [0u8; 4096];
        while tokio::time::timeout_at(deadline, self.socket.readable()).await.is_ok_and(|r| r.is_ok()) {
            match self.socket.try_read(&mut scratch) {
                Ok(0) => return,
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// What large requests are held in, and how much there is of it.
fn budget(shared: &Shared, known: bool) -> (Arc<Semaphore>, u32) {
    if known {
        (shared.request_bytes.clone(), shared.limits.request_bytes_all)
    } else {
        (shared.stranger_bytes.clone(), shared.limits.stranger_bytes_all)
    }
}

/// Extra time for so many bytes.
pub(super) fn pace(bytes: usize) -> Duration {
    Duration::from_millis(u64::try_from(bytes / (Limits::PACE / 1000)).unwrap_or(u64::MAX))
}
