//! Where a filer's blocking calls run.
//!
//! A call of a client's operation runs on tokio's blocking threads ([`call`]): it must not stop the tasks that serve
//! others. That costs two thread switches a call, which is most of what a copied small file costs. Bulk work therefore
//! brings its own threads ([`side_by_side`]): on them calls run at once, where they are. A filer that hangs holds those
//! threads and nothing else.
//!
//! A call that hangs goes on when its caller has given up. Whoever must know how many of his do brings something that
//! each call keeps until it has ended ([`keeping`]).

use super::{Error, ErrorKind, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Threads of one piece of bulk work, and so the objects it works on at a time.
pub const WORKERS: usize = 8;

/// Pieces of bulk work that are handed to [`side_by_side`] at a time where there may be any number: they are in memory
/// together.
pub const PART: usize = 4096;

thread_local! {
    /// This thread is there to wait for filers.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// What a call keeps while it is under way.
pub type Kept = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    static KEPT: Kept;
}

/// Do `work`; every call that is begun for it keeps `kept` until that call has ended, whether or not `work` is waited for.
pub async fn keeping<F: Future>(kept: Kept, work: F) -> F::Output {
    KEPT.scope(kept, work).await
}

/// What a call that is begun here is to keep.
pub fn kept() -> Option<Kept> {
    KEPT.try_with(Clone::clone).ok()
}

/// Whether [`call`] runs a call where it is.
pub fn runs_here() -> bool {
    MAY_BLOCK.get() || crate::env::is_simulated()
}

/// Run a call that may block.
pub async fn call<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if MAY_BLOCK.get() {
        return call();
    }
    let stopping = |s: crate::env::Stopping| Error::new(ErrorKind::Unknown, "call the system", s.to_string());
    let kept = kept();
    let call = move || {
        let _kept = kept;
        call()
    };
    crate::env::aside(call).await.unwrap_or_else(|s| Err(stopping(s)))
}

/// Drive all of `work`, up to [`WORKERS`] at a time, and give the results in no order; after an error no further one
/// is begun. On a runtime with one thread (tests, simulation) everything stays on it, in an order that is always the
/// same.
pub async fn side_by_side<T, E, F>(work: Vec<F>) -> std::result::Result<Vec<T>, E>
where
    T: Send,
    E: Send,
    F: Future<Output = std::result::Result<T, E>> + Send,
{
    if crate::env::is_in_passing() {
        // Whoever polls it has other things to do than to wait for all of this.
        tokio::task::yield_now().await;
    }
    let runtime = Handle::current();
    if work.len() < 2 || runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return stream::iter(work).buffer_unordered(WORKERS).try_collect().await;
    }
    let workers = WORKERS.min(work.len());
    let results = Mutex::new((Vec::with_capacity(work.len()), None));
    let work = Mutex::new(work.into_iter());
    let worker = || {
        MAY_BLOCK.set(true);
        loop {
            let Some(next) = work.lock().next() else { return };
            match runtime.block_on(next) {
                Ok(value) => results.lock().0.push(value),
                Err(error) => {
                    work.lock().by_ref().for_each(drop);
                    results.lock().1.get_or_insert(error);
                    return;
                }
            }
        }
    };
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(worker);
            }
        });
    });
    match results.into_inner() {
        (_, Some(error)) => Err(error),
        (values, None) => Ok(values),
    }
}
