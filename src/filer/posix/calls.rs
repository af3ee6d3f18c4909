//! System calls that may wait, on few threads.
//!
//! A call that may wait must not stop the tasks that serve others. A thread of its own for each would do, but to wake one
//! costs several times what a call on what is in memory takes; and clients' operations come in bunches, for a batch of
//! the journal wakes all whose records are in it. So calls queue for as many threads (*lanes*) as there are processors:
//! each takes one call after the other while there are any. That is right as long as calls are quick. A call that has
//! waited or run for [`SLOW`] shows that they are not: then each call that waits gets a lane at once, and a lane whose
//! call is slow does not count any more. A call whose task has a thread that may wait is made there, and needs no lane; nor does one that is alone.
//!
//! The kernel changes the names of a directory, or the bytes of a file, one call at a time; who comes meanwhile looks, on a
//! processor, for the first one's end. So such calls take *turns* at what they change: who has the turn hands it on when
//! it ends, and who waits needs no thread. When a turn takes longer than [`TURN_MAX`] those that wait for it are calls like
//! others.
//!
//! ```text
//!  submit ─► Queued ──a lane takes it──► Running ─────────────► Done
//!              │ SLOW: a lane for each      │ SLOW: its lane does not count ─► Slow ─► Done
//!              │ its caller gave up ─► Left ── a lane takes it ────────────────┘
//! ```
//!
//! Bound (I11): [`CALLS_MAX`] calls are queued or under way, and so many lanes there are at most; the next calls wait. A
//! mount that hangs takes that many threads and no more.

use crate::env::{Stopping, here};
use crate::filer::{Error, ErrorKind, Result, aside};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// System calls of one location that run or are queued at a time.
pub(super) const CALLS_MAX: usize = 64;

/// Calls of one location beside which another one is made on its own task's thread: those threads are few, and one location
/// whose calls hang must not have them all.
const BESIDE_MAX: usize = 3;

/// Longer than a call takes that does not wait for a disk.
const SLOW: Duration = Duration::from_millis(1);

/// A turn is waited for so long: then it hangs, or whoever has it does not hold up others where this filer is concerned.
const TURN_MAX: Duration = Duration::from_millis(100);

/// How far a call has come; changed under the queue's lock.
#[derive(Default)]
struct Progress(AtomicU8);

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const LEFT: u8 = 2;
const IS_SLOW: u8 = 3;
const DONE: u8 = 4;

impl Progress {
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
    fn set(&self, to: u8) {
        self.0.store(to, Ordering::Relaxed);
    }
}

struct Call {
    work: Box<dyn FnOnce() + Send>,
    progress: Arc<Progress>,
    /// What it has its turn at.
    of: Option<u64>,
}

/// Calls that wait for their turn at an object, and since when somebody has it.
struct Turns {
    since: Instant,
    waiting: VecDeque<Call>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Call>,
    /// Threads that take calls, or are about to.
    lanes: usize,
    /// Those of them that have not come to take their first call yet: on a busy machine that takes a while.
    opening: usize,
    /// Those of them whose call is slow.
    slow: usize,
    /// Objects at which somebody has his turn, by the inode's number. (Two may share one, on two file systems: their calls
    /// wait for each other.)
    turns: HashMap<u64, Turns>,
}

impl Queue {
    /// A turn has ended: who waits longest for it has it, and is a call like others. Whether there was one.
    fn pass(&mut self, of: u64) -> bool {
        let Entry::Occupied(mut turns) = self.turns.entry(of) else { return false };
        let Some(next) = turns.get_mut().waiting.pop_front() else {
            turns.remove();
            return false;
        };
        turns.get_mut().since = Instant::now();
        self.waiting.push_back(next);
        true
    }

    /// Nobody waits for a turn that does not end.
    fn let_pass(&mut self, of: u64) {
        if let Entry::Occupied(turns) = self.turns.entry(of)
            && turns.get().since.elapsed() >= TURN_MAX
        {
            self.waiting.extend(turns.remove().waiting);
        }
    }
}

/// The turn of a call that is made on its task's own thread; handed on however that ends.
struct Turn {
    calls: Calls,
    of: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.calls.queue.lock();
        let more = queue.pass(self.of) && self.calls.wants_lane(&queue);
        self.calls.open_lanes(queue, usize::from(more));
    }
}

/// The calls of one location. Clones are the same calls.
#[derive(Clone)]
pub(super) struct Calls {
    room: Arc<Semaphore>,
    queue: Arc<Mutex<Queue>>,
    /// Lanes for calls that are quick.
    quick: usize,
}

/// However its caller goes, a call that is not done does not hold up others.
struct Waits<'a> {
    calls: &'a Calls,
    progress: Arc<Progress>,
    of: Option<u64>,
    answered: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.calls.look(&self.progress, self.of, true);
        }
    }
}

impl Calls {
    pub fn new() -> Self {
        let quick = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        Self { room: Arc::new(Semaphore::new(CALLS_MAX)), queue: Arc::default(), quick }
    }

    /// Run `call` on a thread that may wait; where the thread at hand is one, there. A panic in it goes on here. When the
    /// future is dropped the call runs all the same. `of`: the inode whose names or bytes it changes.
    pub async fn run<T: Send + 'static>(
        &self,
        of: Option<u64>,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let closed = |_| Error::new(ErrorKind::Down, "call the system", "the filer is closed");
        let permit = self.room.clone().acquire_owned().await.map_err(closed)?;
        if aside::runs_here() {
            return aside::call(call).await;
        }
        let others = CALLS_MAX - 1 - self.room.available_permits();
        let alone = others == 0;
        if alone && crate::env::is_in_passing() {
            // It goes on in a task of its own, whose thread may wait.
            tokio::task::yield_now().await;
        }
        let (answer, mut answered) = oneshot::channel();
        let kept = aside::kept();
        let work: Box<dyn FnOnce() + Send> = Box::new(move || {
            // Given back when the call has ended, not when its caller gave up.
            let _permits = (permit, kept);
            // An error is a caller that has gone.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(call)));
        });
        // For one that is alone to wake a lane takes as long as to give way, and to be woken by it comes on top.
        let here = (others <= BESIDE_MAX && here::is_free()) || (alone && here::takes_work());
        let answer = if here && let Ok(turn) = self.turn_at_once(of) {
            // It holds up no others: nobody need look after it.
            here::do_here(move || {
                work();
                drop(turn);
            });
            answered.await
        } else {
            let mut waits = Waits { calls: self, progress: Arc::default(), of, answered: false };
            self.submit(Call { work, progress: waits.progress.clone(), of });
            let answer = loop {
                match timeout(SLOW, &mut answered).await {
                    Ok(answer) => break answer,
                    Err(_) if self.look(&waits.progress, of, false) => break answered.await,
                    Err(_) => {}
                }
            };
            waits.answered = true;
            answer
        };
        match answer {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(Error::new(ErrorKind::Unknown, "call the system", Stopping.to_string())),
        }
    }

    fn submit(&self, call: Call) {
        let mut queue = self.queue.lock();
        if let Some(of) = call.of {
            match queue.turns.entry(of) {
                Entry::Occupied(mut turns) => return turns.get_mut().waiting.push_back(call),
                Entry::Vacant(turns) => drop(turns.insert(Turns { since: Instant::now(), waiting: VecDeque::new() })),
            }
        }
        queue.waiting.push_back(call);
        let wanted = self.wants_lane(&queue);
        self.open_lanes(queue, usize::from(wanted));
    }

    /// At the bound one of them has no call, or has ended it: it takes the next one.
    fn wants_lane(&self, queue: &Queue) -> bool {
        queue.lanes - queue.slow < self.quick && queue.lanes < CALLS_MAX
    }

    /// The turn, unless somebody has it.
    fn turn_at_once(&self, of: Option<u64>) -> std::result::Result<Option<Turn>, ()> {
        let Some(of) = of else { return Ok(None) };
        match self.queue.lock().turns.entry(of) {
            Entry::Occupied(_) => Err(()),
            Entry::Vacant(turns) => {
                turns.insert(Turns { since: Instant::now(), waiting: VecDeque::new() });
                Ok(Some(Turn { calls: self.clone(), of }))
            }
        }
    }

    /// A call has taken long, or its caller has gone: whether all is done that can be for it.
    fn look(&self, progress: &Progress, of: Option<u64>, gone: bool) -> bool {
        let mut queue = self.queue.lock();
        let seen = progress.get();
        if let Some(of) = of {
            queue.let_pass(of);
        }
        match seen {
            QUEUED if gone => progress.set(LEFT),
            RUNNING => {
                progress.set(IS_SLOW);
                queue.slow += 1;
            }
            _ => {}
        }
        let lanes = match seen {
            // Those at work do not get on: the calls that wait have the lanes that are about to come, and no others.
            QUEUED => queue.opening,
            RUNNING => queue.lanes - queue.slow,
            _ => queue.waiting.len(),
        };
        let more = queue.waiting.len().saturating_sub(lanes).min(CALLS_MAX.saturating_sub(queue.lanes));
        self.open_lanes(queue, more);
        seen != QUEUED
    }

    fn open_lanes(&self, mut queue: MutexGuard<'_, Queue>, count: usize) {
        queue.lanes += count;
        queue.opening += count;
        drop(queue);
        for _ in 0..count {
            let queue = self.queue.clone();
            crate::env::aside_detached(move || take_calls(&queue));
        }
    }
}

/// A lane: one call after the other while there are any.
fn take_calls(queue: &Mutex<Queue>) {
    let mut ended: Option<(Arc<Progress>, Option<u64>)> = None;
    let mut opening = true;
    loop {
        let call = {
            let mut queue = queue.lock();
            queue.opening -= usize::from(std::mem::take(&mut opening));
            if let Some((progress, of)) = ended.take() {
                queue.slow -= usize::from(progress.get() == IS_SLOW);
                progress.set(DONE);
                // This lane takes it, unless others wait longer.
                of.map(|of| queue.pass(of));
            }
            let Some(call) = queue.waiting.pop_front() else {
                queue.lanes -= 1;
                return;
            };
            if call.progress.get() == LEFT {
                // Nobody looks after it any more.
                queue.slow += 1;
                call.progress.set(IS_SLOW);
            } else {
                call.progress.set(RUNNING);
            }
            call
        };
        (call.work)();
        ended = Some((call.progress, call.of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Limit for what would hang.
    const HANG: Duration = Duration::from_secs(60);

    type Held = (mpsc::Sender<()>, tokio::task::JoinHandle<Result<u32>>);

    /// A call that is under way and goes on when it is told to.
    async fn held(calls: &Calls) -> Held {
        let (go, wait) = mpsc::channel();
        let (begins, has_begun) = oneshot::channel();
        let calls = calls.clone();
        let task = tokio::spawn(async move {
            let call = move || {
                let _ = begins.send(());
                let _ = wait.recv();
                Ok(7)
            };
            calls.run(None, call).await
        });
        timeout(HANG, has_begun).await.expect("it begins though others hang").unwrap();
        (go, task)
    }

    /// How many calls of directory 1 were under way together at most, of fifty; and in which order they began.
    async fn together(calls: &Calls) -> (usize, Vec<u32>) {
        let (now, most, order) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU8::new(0)), Arc::new(Mutex::default()));
        let all = (0..50).map(|n| {
            let (now, most, order) = (now.clone(), most.clone(), Arc::clone(&order));
            calls.run(Some(1), move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Vec::push(&mut order.lock(), n);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        for ended in timeout(HANG, futures_util::future::join_all(all)).await.expect("all have their turn") {
            ended.unwrap();
        }
        let order = std::mem::take(&mut *order.lock());
        (most.load(Ordering::SeqCst).into(), order)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_on_one_directory_take_turns_in_the_order_in_which_they_came() {
        let calls = Calls::new();
        let mut in_order = 0;
        // A turn may take long on a busy machine: then others pass.
        for _ in 0..100 {
            let (most, order) = together(&calls).await;
            in_order += u32::from(most == 1 && order.is_sorted());
            assert_eq!(order.len(), 50);
        }
        assert!(in_order > 50, "{in_order} of 100");
        at_rest(&calls).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_turn_that_does_not_end_holds_up_no_others() {
        let calls = Calls::new();
        for own_thread in [false, true] {
            let (go, wait) = mpsc::channel::<()>();
            let (begins, has_begun) = oneshot::channel();
            let own = calls.clone();
            let hanging = async move {
                if own_thread {
                    tokio::task::block_in_place(here::gave_way);
                }
                own.run(Some(1), move || {
                    let _ = begins.send(());
                    let _ = wait.recv();
                    Ok(())
                })
                .await
                .unwrap();
            };
            let task = tokio::spawn(crate::env::Staying::new(hanging));
            timeout(HANG, has_begun).await.expect("it begins").unwrap();
            for _ in 0..3 {
                assert_eq!(together(&calls).await.1.len(), 50);
            }
            assert_eq!(timeout(HANG, calls.run(Some(2), || Ok(1))).await.expect("it is not held up").unwrap(), 1);
            drop(go);
            timeout(HANG, task).await.expect("it ends").unwrap();
            at_rest(&calls).await;
        }
    }

    async fn quick(calls: &Calls) -> Result<u32> {
        timeout(HANG, calls.run(None, || Ok(1))).await.expect("it is not held up")
    }

    /// All lanes have gone, and are counted so; nobody has a turn.
    async fn at_rest(calls: &Calls) {
        let counts = || {
            let queue = calls.queue.lock();
            (queue.lanes + queue.opening, queue.slow, queue.waiting.len() + queue.turns.len())
        };
        let rest = async {
            while counts() != (0, 0, 0) {
                tokio::time::sleep(SLOW).await;
            }
        };
        timeout(HANG, rest).await.expect("lanes end, and the count of them is right");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_that_hang_hold_up_no_others_up_to_the_bound() {
        let calls = Calls::new();
        let mut hung = Vec::new();
        while hung.len() < CALLS_MAX {
            assert_eq!(quick(&calls).await.unwrap(), 1);
            hung.push(held(&calls).await);
        }
        let next = tokio::spawn({
            let calls = calls.clone();
            async move { quick(&calls).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!next.is_finished(), "there is no room");
        assert_eq!(calls.queue.lock().lanes, CALLS_MAX);
        drop(hung.remove(0).0);
        assert_eq!(next.await.unwrap().unwrap(), 1);
        for (go, task) in hung {
            drop(go);
            assert_eq!(task.await.unwrap().unwrap(), 7);
        }
        at_rest(&calls).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_whose_callers_gave_up_hold_up_no_others() {
        let calls = Calls::new();
        let mut hung = Vec::new();
        for _ in 0..8 {
            let (go, task) = held(&calls).await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            hung.push(go);
        }
        assert_eq!(quick(&calls).await.unwrap(), 1);
        drop(hung);
        at_rest(&calls).await;
    }

    /// Who has just written his own batch to the journal makes his calls himself; when one hangs he is not held by it, and
    /// its place is taken until it ends.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_call_on_its_task_s_own_thread_that_hangs_holds_up_nobody() {
        let calls = Calls::new();
        let (own, (go, wait), (tell, told)) = (calls.clone(), mpsc::channel::<()>(), oneshot::channel());
        let task = tokio::spawn(crate::env::Staying::new(async move {
            tokio::task::block_in_place(here::gave_way);
            let thread = own.run(None, || Ok(std::thread::current().id())).await.unwrap();
            assert_eq!(thread, std::thread::current().id());
            let hanging = own.run(None, move || Ok(wait.recv().is_err()));
            tokio::pin!(hanging);
            assert!(timeout(Duration::from_millis(20), &mut hanging).await.is_err());
            tell.send(()).unwrap();
            assert!(hanging.await.unwrap());
        }));
        timeout(HANG, told).await.expect("its limit is seen").unwrap();
        assert_eq!(calls.room.available_permits(), CALLS_MAX - 1);
        assert_eq!(quick(&calls).await.unwrap(), 1);
        drop(go);
        timeout(HANG, task).await.expect("the thread ends with the call").unwrap();
        let all = calls.room.acquire_many(CALLS_MAX as u32);
        drop(timeout(HANG, all).await.expect("its place is given back").unwrap());
        at_rest(&calls).await;
    }

    /// As on a machine that is busy elsewhere: every call looks once a millisecond, and no lane comes.
    #[test]
    fn calls_that_wait_for_lanes_which_do_not_come_open_no_more_than_one_each() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let busy = runtime.spawn_blocking(move || wait.recv());
        let calls = Calls::new();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..5_u32)
                .map(|n| {
                    let calls = calls.clone();
                    tokio::spawn(async move { calls.run(None, move || Ok(n)).await })
                })
                .collect();
            while calls.queue.lock().waiting.len() < 5 {
                tokio::task::yield_now().await;
            }
            let waiting: Vec<_> = calls.queue.lock().waiting.iter().map(|call| call.progress.clone()).collect();
            for progress in waiting.iter().cycle().take(500) {
                assert!(!calls.look(progress, None, false), "it is still queued");
            }
            assert_eq!(calls.queue.lock().lanes, 5);
            drop(go);
            for (n, task) in (0..).zip(tasks) {
                assert_eq!(timeout(HANG, task).await.expect("it ends").unwrap().unwrap(), n);
            }
            at_rest(&calls).await;
            let _ = busy.await;
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_call_keeps_is_kept_until_it_ends_and_not_until_its_caller_gives_up() {
        let (calls, kept) = (Calls::new(), Arc::new(()));
        let (go, wait) = mpsc::channel::<()>();
        let call = calls.run(None, move || Ok(wait.recv().is_err()));
        let given_up = timeout(Duration::from_millis(20), aside::keeping(kept.clone(), call)).await;
        assert!(given_up.is_err());
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(go);
        let ended = async {
            while Arc::strong_count(&kept) > 1 {
                tokio::time::sleep(SLOW).await
            }
        };
        timeout(HANG, ended).await.expect("it is given back");
        assert_eq!(quick(&calls).await.unwrap(), 1);
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test]
    async fn a_call_that_was_left_before_it_began_runs_all_the_same() {
        let calls = Calls::new();
        let ran = Arc::new(AtomicU8::new(0));
        for _ in 0..20 {
            let ran = ran.clone();
            let call = calls.run(None, move || {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            // Polled once, which submits it, and dropped.
            let _ = timeout(Duration::ZERO, call).await;
        }
        at_rest(&calls).await;
        assert_eq!(ran.load(Ordering::SeqCst), 20);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_at_a_time_each_get_their_own_answer_and_a_panic_is_its_callers() {
        let calls = Calls::new();
        let tasks: Vec<_> = (0..1000_u32)
            .map(|n| {
                let calls = calls.clone();
                tokio::spawn(
                    async move { calls.run(None, move || if n == 500 { panic!("planned") } else { Ok(n) }).await },
                )
            })
            .collect();
        for (n, task) in (0..).zip(tasks) {
            match task.await {
                Ok(answer) => assert_eq!(answer.unwrap(), n),
                Err(error) => assert!(error.is_panic() && n == 500),
            }
        }
        at_rest(&calls).await;
    }
}
