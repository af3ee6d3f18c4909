//! The writer: takes the open batch as soon as the last one is durable, writes it whole, and wakes all who wait. There is
//! no timer: while one batch is written the next one fills, which is the group commit. It is one thread, or for a moment
//! a caller that is alone (`lead.rs`).

use super::append::{Open, Phase, Shared};
use super::batch::{Batch, Buffer, buffer};
use journal_format::ids::Lsn;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Idle so long, the journal writes what nobody waits for, and says that everything before is durable.
const IDLE: Duration = Duration::from_millis(50);
/// After a write the writer looks so long for the next batch before it sleeps.
const LOOK: Duration = Duration::from_micros(50);

/// What whoever writes has in hand.
pub struct Writer {
    /// The buffer that is not open.
    spare: Option<Buffer>,
    durable: Lsn,
    /// Something was written since the last `Durable` record (or the end was just recovered).
    unsaid: bool,
    /// How often it was said that the journal stops.
    stops: u32,
    /// Batches so far, and the records of the last one that somebody waited for.
    batches: u64,
    records: u64,
    /// A batch is on its way, or did not come whole: nothing is ever written behind it (I8), by whoever comes next.
    torn: bool,
}

const STOPS: u32 = 2;

/// What to do next.
enum Next<'a> {
    /// Write the open batch.
    Batch(MutexGuard<'a, Open>),
    /// Until the bell rings, or so long.
    Wait(MutexGuard<'a, Open>, Option<Duration>),
    Stop,
}

/// What a writer that is a task did, or waits for.
enum Turn {
    Written,
    Sleep(Duration),
    Wait(Option<Duration>),
    Stop,
}

/// Those who were just woken are about to append again. To be woken from sleep takes a thread about as long as half a
/// write: for a moment it looks itself, and leaves the processor to everybody who has use for it. `placed`: records that
/// had come when there was nothing to do.
fn look(shared: &Shared, placed: u64) {
    let begin = Instant::now();
    while shared.placed.load(Ordering::Acquire) == placed && begin.elapsed() < LOOK {
        std::thread::yield_now();
    }
}

impl Writer {
    /// Everything before `durable` is.
    pub fn new(durable: Lsn) -> Writer {
        Writer { spare: Some(buffer()), durable, unsaid: true, stops: 0, batches: 0, records: 0, torn: false }
    }

    /// Whoever is alone may write: the last batch was not shared either.
    pub fn may_be_led(&self) -> bool {
        self.records <= 1 && !self.torn
    }

    /// Nothing was written since the journal said last that all is durable.
    pub fn has_said_all(&self) -> bool {
        !self.unsaid
    }

    /// The thread: until the journal is closed, or fails.
    pub fn run(shared: &Shared) {
        // Everybody waits for this thread: what the disk has answered must not wait for a processor behind them.
        crate::env::go_first();
        let (mut idle, mut looked, mut batches) = (false, true, 0);
        loop {
            let mut writer = shared.writer.lock();
            // Others may have written meanwhile.
            let waited_in_vain = idle && writer.batches == batches;
            match writer.next(shared, waited_in_vain) {
                Ok(Next::Batch(open)) => {
                    idle = false;
                    looked = false;
                    if let Err(why) = writer.write_next(shared, open) {
                        // While nobody else can write.
                        return shared.fail(&why);
                    }
                }
                Ok(Next::Wait(open, _)) if !looked => {
                    let placed = shared.placed.load(Ordering::Relaxed);
                    drop((open, writer));
                    looked = true;
                    look(shared, placed);
                }
                Ok(Next::Wait(mut open, time)) => {
                    batches = writer.batches;
                    // Whoever rings from here on has the lock `open` after this.
                    drop(writer);
                    idle = match time {
                        Some(time) => shared.work.wait_for(&mut open, time).timed_out(),
                        None => {
                            shared.work.wait(&mut open);
                            false
                        }
                    };
                }
                Ok(Next::Stop) => {
                    drop(writer);
                    return Self::end(shared, Ok(()));
                }
                Err(why) => return shared.fail(&why),
            }
        }
    }

    /// The same as a task, where there are no threads. A write takes the time that the disk says, in which more comes.
    pub async fn run_inline(shared: Arc<Shared>) {
        let (mut idle, mut slept) = (false, false);
        let ended = loop {
            let turn = shared.writer.lock().turn(&shared, idle, slept);
            match turn {
                Ok(Turn::Written) => (idle, slept) = (false, false),
                Ok(Turn::Sleep(time)) => {
                    tokio::time::sleep(time).await;
                    slept = true;
                }
                Ok(Turn::Wait(None)) => shared.bell.notified().await,
                Ok(Turn::Wait(Some(time))) => {
                    idle = tokio::time::timeout(time, shared.bell.notified()).await.is_err();
                }
                Ok(Turn::Stop) => break Ok(()),
                Err(why) => break Err(why),
            }
        };
        Self::end(&shared, ended);
    }

    fn turn(&mut self, shared: &Shared, idle: bool, slept: bool) -> Result<Turn, String> {
        match self.next(shared, idle)? {
            Next::Batch(open) => match shared.segments.dir.disk.write_takes() {
                Some(time) if !slept => {
                    drop(open);
                    Ok(Turn::Sleep(time))
                }
                _ => self.write_next(shared, open).map(|()| Turn::Written),
            },
            Next::Wait(_, time) => Ok(Turn::Wait(time)),
            Next::Stop => Ok(Turn::Stop),
        }
    }

    fn end(shared: &Shared, ended: Result<(), String>) {
        match ended {
            Ok(()) => {
                shared.open.lock().phase = Phase::Ended;
                shared.close();
            }
            Err(why) => shared.fail(&why),
        }
    }

    fn next<'a>(&mut self, shared: &'a Shared, idle: bool) -> Result<Next<'a>, String> {
        let mut idle = idle;
        loop {
            let mut open = shared.open.lock();
            if open.phase == Phase::Ended {
                return Ok(Next::Stop);
            }
            if shared.broken.load(Ordering::Acquire) {
                return Err("a record was given a place and never came".into());
            }
            if open.has_work() || (idle && open.batch.records > 0) {
                return Ok(Next::Batch(open));
            }
            match open.phase {
                Phase::Running if self.unsaid && idle => {
                    drop(open);
                    // No place at once means that a segment is being made, or that none is left: again, later.
                    crash_point!("JOURNAL_BEFORE_IDLE_RECORD");
                    self.unsaid = !shared.append_durable(false).map_err(|error| error.to_string())?;
                    idle = false;
                }
                Phase::Running => {
                    let comes = self.unsaid || open.batch.records > 0;
                    open.sleeps = !comes;
                    return Ok(Next::Wait(open, comes.then_some(IDLE)));
                }
                Phase::Closing => {
                    drop(open);
                    crash_point!("JOURNAL_BEFORE_STOPPED_RECORD");
                    let said = shared.append_durable(true).map_err(|error| error.to_string())?;
                    self.stops += 1;
                    // Twice, in two batches: the last record of a client has two witnesses, in blocks of their own.
                    if self.stops < STOPS && said {
                        continue;
                    }
                    shared.open.lock().phase = Phase::Leaving;
                    if !said {
                        tracing::warn!(
                            "no room for the journal's last record: its end will be looked at again at start"
                        );
                    }
                }
                Phase::Leaving | Phase::Ended => return Ok(Next::Stop),
            }
        }
    }

    /// Write the open batch, which has work.
    pub fn write_next(&mut self, shared: &Shared, mut open: MutexGuard<'_, Open>) -> Result<(), String> {
        if self.torn {
            return Err("a batch before did not come whole".into());
        }
        self.torn = true;
        let buffer = self.spare.take().unwrap_or_else(buffer);
        let (ends_segment, durable) = open.seal(buffer);
        let time = open.last_time;
        shared.room.notify_waiters();
        let batch = loop {
            if shared.broken.load(Ordering::Acquire) {
                return Err("a record was given a place and never came".into());
            }
            match open.sealed.take() {
                Some(batch) if batch.outstanding == 0 => break batch,
                sealed => open.sealed = sealed,
            }
            shared.work.wait(&mut open);
        };
        drop(open);
        self.unsaid = self.unsaid || !batch.is_only_durable();
        self.write(shared, batch, ends_segment, time, durable)
    }

    fn write(
        &mut self,
        shared: &Shared,
        batch: Batch,
        ends_segment: bool,
        time: journal_format::ids::Time,
        durable: Lsn,
    ) -> Result<(), String> {
        let (target, start, records) = (Arc::clone(&batch.target), batch.start, batch.records);
        let waited_for = records - batch.unhurried;
        let (buffer, length) = batch.finish(self.durable, time, ends_segment);
        let began = Instant::now();
        #[cfg(test)]
        drop(shared.hold_writes.lock());
        #[cfg(test)]
        if shared.fail_next_write.swap(false, Ordering::AcqRel) {
            return Err("a test wants this write to fail".into());
        }
        crash_point!("JOURNAL_BEFORE_WRITE");
        let written = target.write(&buffer.bytes[..length], start);
        let again = crate::planted::is('c') && written.is_err();
        let written = if again { target.write(&buffer.bytes[..length], start) } else { written };
        if let Err(error) = written {
            let path = target.segment.path().display();
            return Err(format!("writing {length} bytes at offset {start} of {path} failed: {error}"));
        }
        crash_point!("JOURNAL_AFTER_WRITE");
        // Counted first: whoever is woken finds its own record in the figures.
        let counters = &shared.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.records.fetch_add(records, Ordering::Relaxed);
        counters.bytes.fetch_add(length as u64, Ordering::Relaxed);
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        counters.flush_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.spare = Some(buffer);
        self.durable = durable;
        (self.batches, self.records, self.torn) = (self.batches + 1, waited_for, false);
        shared.durable.store(durable.0, Ordering::Release);
        shared.tell();
        crash_point!("JOURNAL_AFTER_DURABLE");
        Ok(())
    }
}
