//! A caller that is alone writes its batch itself: to wake the writer, and to be woken by it, takes about half as long
//! as the write. Whoever holds [`Shared::writer`] is the writer; everything else about a batch is the same.
//!
//! Only where that is worth it: the caller's record is the only one in the batch that is waited for, the batch before had
//! no more than one either, nobody writes at the moment, and the runtime has other threads for everybody else's tasks meanwhile.
//! What comes while it writes rings the writer's thread, which goes on behind it. Nor where it was appended in passing: by
//! whoever reads what a client sends, which may be more.

use super::Appended;
use super::append::{Open, Phase, Shared};
use super::error::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::runtime::{Handle, RuntimeFlavor};

/// A record in the open batch, whose caller is about to wait for it: the writer has not been rung for it yet.
/// Dropped, it is written like any other.
#[must_use = "wait for it, or drop it"]
pub struct Pending<'a> {
    shared: &'a Arc<Shared>,
    at: Appended,
    /// The writer knows.
    rung: bool,
}

impl<'a> Pending<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, at: Appended, rung: bool) -> Pending<'a> {
        Pending { shared, at, rung }
    }

    /// Where it lies.
    pub fn at(&self) -> Appended {
        self.at
    }

    /// Until it, and everything before it, is durable. An error is final: fail stop (I8).
    pub async fn durable(mut self) -> Result<()> {
        if !self.rung && crate::env::is_in_passing() {
            tokio::task::yield_now().await;
        }
        self.rung = self.rung || self.shared.lead();
        let (shared, end) = (self.shared, self.at.end);
        drop(self);
        shared.reached(end).await
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.rung {
            self.shared.ring();
        }
    }
}

/// Whoever panics while it writes leaves a batch that nobody has.
struct Whole<'a>(&'a Shared);

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Release);
            self.0.ring();
        }
    }
}

impl Shared {
    /// Write the open batch here, if that is what is best; whether that was done.
    fn lead(&self) -> bool {
        let others = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        let free = || self.writer.try_lock().is_some_and(|writer| writer.may_be_led());
        if !others || crate::env::is_simulated() || !free() || !self.open.lock().holds_one() {
            return false;
        }
        let led = tokio::task::block_in_place(|| self.write_here());
        crate::env::here::gave_way();
        led
    }

    fn write_here(&self) -> bool {
        let Some(mut writer) = self.writer.try_lock().filter(|writer| writer.may_be_led()) else { return false };
        let open = self.open.lock();
        if !open.holds_one() || self.broken.load(Ordering::Acquire) {
            return false;
        }
        let whole = Whole(self);
        let said = writer.has_said_all();
        let written = writer.write_next(self, open);
        drop(whole);
        self.counters.led.fetch_add(1, Ordering::Relaxed);
        // The thread waits for its bell, and has something to say later, or to end.
        let rings = written.is_err() || (said && !writer.has_said_all());
        if let Err(why) = written {
            // While nobody else can write.
            self.fail(&why);
        }
        drop(writer);
        if rings {
            self.ring();
        }
        true
    }
}

impl Open {
    /// A single record that is waited for is in the batch, all in it are whole, and nothing else is to be done.
    fn holds_one(&self) -> bool {
        self.phase == Phase::Running
            && self.batch.records == self.batch.unhurried + 1
            && self.batch.outstanding == 0
            && self.sealed.is_none()
            && self.next_target.is_none()
    }
}
