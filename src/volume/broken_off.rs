//! A WRITE that the filer broke off, and of which nobody knows how much it has taken.
//!
//! Its client is told the error, and what is there then may be the old bytes, the new ones, or some of both. That would not
//! matter if it stayed so. But a redo writes the operations before it again, which puts the old bytes there, and a
//! secondary that has copied what was there keeps the new ones. So what is there is read, and written as an operation of
//! its own, which redo and secondaries carry out as any other.
//!
//! ```text
//! Write (the client's) ─► error ─► Partial, durable ─► read ─► Write (ours), durable, carried out ─► settled
//! ```
//!
//! The client's operation is settled behind ours: no secondary has come past it before there is one. A crash in between
//! leaves what the redo puts there, and the secondary copies that. Where the bytes cannot be read, or the journal is full,
//! it stays at what is there.

use super::Volume;
use super::act::{Act, Outcome};
use super::types::Status;
use crate::ledger::Op;
use crate::location::Location;
use journal_format::event::{self, Caller, Event, Failed, PartDone, Partial};

/// Whether that is so of an operation that ended like this.
pub(super) fn is_broken_off(event: &Event, done: &PartDone, status: Status) -> bool {
    match (event, done) {
        // One that was waited for, and then refused, may have been done before.
        (Event::Write(write), PartDone::Bytes(done)) => *done < write.len && (*done == 0 || status == Status::Io),
        _ => false,
    }
}

impl Volume {
    /// `op` has this end, by which so many bytes of its WRITE are known to be written.
    pub(super) async fn end_broken_off(
        &self,
        location: &Location,
        act: &Act,
        mut op: Op,
        end: Event,
        done: u32,
    ) -> Result<(), Status> {
        self.ledger.record(&end).await?;
        let taken_down = self.write_what_is_there(location, act, &mut op, done).await;
        self.ledger.done(op);
        taken_down
    }

    /// The locks are those of `act`, whose operation is not settled yet.
    async fn write_what_is_there(
        &self,
        location: &Location,
        act: &Act,
        ended: &mut Op,
        done: u32,
    ) -> Result<(), Status> {
        let Act::Write { event: broken, obj, .. } = act else { return Ok(()) };
        let (offset, len) = (broken.offset.saturating_add(u64::from(done)), broken.len.saturating_sub(done));
        let data = match location.filer.read(obj, offset, len).await {
            Ok(data) if !data.is_empty() => data,
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(location = %location.id, node = %broken.node, offset, len, %error, "what a WRITE that failed has left cannot be read");
                return Ok(());
            }
        };
        let len = u32::try_from(data.len()).unwrap_or(len);
        let write = event::Write { offset, len, mode: None, caller: Caller::default(), ..broken.clone() };
        let event = Event::Write(write.clone());
        let again = Act::Write { event: write, obj: obj.clone(), data };
        let op = match self.ledger.begin_behind(ended, &event, again.bulk()).await {
            Ok(op) => op,
            Err(error) if error.is_the_end() => return Err(error.into()),
            Err(error) => {
                tracing::warn!(location = %location.id, %error, "what a WRITE that failed has left cannot be taken down");
                return Ok(());
            }
        };
        let lsn = op.at.lsn;
        let (outcome, recorded) = self.carry_out(broken.junction, lsn, &again, location, &mut None).await;
        let end = match outcome {
            Outcome::Done(_) => {
                self.settle(location, op.at, &again, &event, None).await?;
                self.ledger.done(op);
                return Ok(());
            }
            Outcome::Refused(status) => Event::Failed(Failed { op: lsn, status: status as u32 }),
            Outcome::Part(done, status) => Event::Partial(Partial { op: lsn, done, status: status as u32 }),
        };
        self.ended(op, end, recorded).await
    }
}
