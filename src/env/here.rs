//! Work that may wait, done on the thread at hand.
//!
//! To have another thread do it, and to be woken by that one, costs several times what most such work takes. A worker of
//! the runtime must not wait; but one that has just waited has given its place away (`block_in_place`), and serves nobody
//! but its task until that is polled no more. Such a thread may do what its task waits for, as long as the task does not
//! depend on it: work may hang, and whoever waits for it with a limit must get on.
//!
//! Bound: [`THREADS_MAX`] threads do so at a time.
//!
//! ```text
//!  poll ─► the task gives work to the thread ([`do_here`]) and is pending
//!            │
//!            ▼                       no wake from elsewhere
//!          the work, on this thread ───────────────────────────► poll again, here
//!            │ a wake from elsewhere, as of a timer
//!            ▼
//!          a new task goes on with the call; this thread ends when the work does
//! ```

use parking_lot::Mutex;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use tokio::runtime::{Handle, RuntimeFlavor};

type Work = Box<dyn FnOnce() + Send>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Threads that do work so at a time, or hang at it. At the bound work is done aside, as if none were free. (Tests, which
/// share it, are to find one.)
const THREADS_MAX: usize = if cfg!(test) { 1024 } else { 16 };

static THREADS: Threads = Threads { free: AtomicUsize::new(THREADS_MAX) };

struct Threads {
    free: AtomicUsize,
}

/// One of them.
struct Thread<'a>(&'a Threads);

impl Threads {
    fn take(&self) -> Option<Thread<'_>> {
        let less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).ok().map(|_| Thread(self))
    }
}

impl Drop for Thread<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
    }
}

/// Of the task that is polled on this thread.
#[derive(Default)]
struct Here {
    /// The thread has given its place away.
    free: bool,
    /// What its work belongs to is polled once more: a thread has one piece of work at a time.
    busy: bool,
    work: Option<Owed>,
}

thread_local! {
    /// `None` where nothing is polled that can stay.
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// This thread has waited, and given its place among the runtime's workers away before.
pub fn gave_way() {
    HERE.with_borrow_mut(|here| {
        if let Some(here) = here {
            here.free = true;
        }
    });
}

/// Whether this thread could do work and serves nobody else.
#[must_use]
pub fn is_free() -> bool {
    is_there(|here| here.free)
}

/// Whether [`do_here`] would take work: the thread is free, or can give its place away for it, which takes as long as to wake
/// another one once.
#[must_use]
pub fn takes_work() -> bool {
    let others = || Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    is_there(|here| here.free || others())
}

fn is_there(free: impl FnOnce(&Here) -> bool) -> bool {
    let free = |here: &Here| here.work.is_none() && !here.busy && free(here);
    HERE.with_borrow(|here| here.as_ref().is_some_and(free)) && THREADS.free.load(Ordering::Acquire) > 0
}

/// Do this on the thread at hand, as soon as what is polled there waits. Where [`takes_work`] says no it is done aside.
pub fn do_here(work: impl FnOnce() + Send + 'static) {
    let mut owed = Some(Owed { work: Some(Box::new(work)), thread: None });
    if !takes_work() {
        return;
    }
    HERE.with_borrow_mut(|here| {
        if let (Some(here), Some(thread)) = (here, THREADS.take()) {
            here.work = owed.take().map(|owed| owed.on(thread));
        }
    });
}

/// Work that is done whatever happens: aside, if this is dropped.
struct Owed {
    work: Option<Work>,
    thread: Option<Thread<'static>>,
}

impl Owed {
    fn on(mut self, thread: Thread<'static>) -> Owed {
        self.thread = Some(thread);
        self
    }

    fn do_now(mut self) {
        if let Some(work) = self.work.take() {
            tokio::task::block_in_place(work);
            gave_way();
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            super::aside_detached(work);
        }
    }
}

/// While it lives, work is taken on this thread.
struct Polling {
    before: Option<Here>,
}

impl Polling {
    fn begin() -> Polling {
        Polling { before: HERE.replace(Some(Here::default())) }
    }

    fn work(&self) -> Option<Owed> {
        HERE.with_borrow_mut(|here| here.as_mut().and_then(|here| here.work.take()))
    }

    /// No work is taken while this is polled.
    fn busy<T>(&self, poll: impl FnOnce() -> T) -> T {
        let busy = |busy| {
            HERE.with_borrow_mut(|here| {
                if let Some(here) = here {
                    here.busy = busy;
                }
            });
        };
        busy(true);
        let polled = poll();
        busy(false);
        polled
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        // What a task gave that ended without it, or panicked, goes outside the borrow.
        drop(HERE.replace(self.before.take()));
    }
}

/// A task whose thread may do its work; see above. To be spawned.
#[must_use = "it does nothing unless it is polled"]
pub struct Staying {
    task: Option<Task>,
}

impl Staying {
    pub fn new(task: impl Future<Output = ()> + Send + 'static) -> Staying {
        Staying::of(Box::pin(task))
    }

    pub fn of(task: Task) -> Staying {
        Staying { task: Some(task) }
    }
}

impl Future for Staying {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let polling = Polling::begin();
        // Taken out, so that one that panics is not driven on.
        while let Some(mut task) = self.task.take() {
            if task.as_mut().poll(context).is_ready() {
                break;
            }
            let Some(work) = polling.work() else {
                self.task = Some(task);
                return Poll::Pending;
            };
            self.task = work_for(&polling, task, work);
        }
        Poll::Ready(())
    }
}

/// Do the work that the task waits for; gives the task back, unless it has ended or somebody else goes on with it.
fn work_for(polling: &Polling, mut task: Task, work: Owed) -> Option<Task> {
    let left = Arc::new(Left {
        state: Mutex::new(State { woken: false, task: None }),
        home: std::thread::current().id(),
        runtime: Handle::current(),
    });
    // Once more, so that whoever wakes it from here on wakes it through what was left. All of its wakers must come there:
    // none of them may find that the task has had its share of the runtime, and put itself off.
    let waker = Waker::from(left.clone());
    let mut again = tokio::task::coop::unconstrained(task.as_mut());
    let ended = polling.busy(|| Pin::new(&mut again).poll(&mut Context::from_waker(&waker)).is_ready());
    if ended {
        work.do_now();
        return None;
    }
    {
        let mut state = left.state.lock();
        if state.woken {
            // There is more to do than to wait for the work, which is done aside.
            return Some(task);
        }
        state.task = Some(task);
    }
    work.do_now();
    left.state.lock().task.take()
}

/// A task whose thread is at work for it.
struct Left {
    state: Mutex<State>,
    home: ThreadId,
    runtime: Handle,
}

struct State {
    /// Before the task was left here.
    woken: bool,
    task: Option<Task>,
}

impl Wake for Left {
    fn wake(self: Arc<Self>) {
        let task = {
            let mut state = self.state.lock();
            // The thread itself polls the task again anyhow, when the work is done.
            if state.task.is_some() && std::thread::current().id() == self.home {
                return;
            }
            state.woken = true;
            state.task.take()
        };
        if let Some(task) = task {
            self.runtime.spawn(Staying::of(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::sync::oneshot;

    const HANG: Duration = Duration::from_secs(60);

    /// As the journal does for whoever is alone.
    fn wait() {
        tokio::task::block_in_place(gave_way);
    }

    /// Work with a result, wherever it is done.
    async fn result<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = oneshot::channel();
        do_here(move || drop(tell.send(work())));
        told.await.expect("it is done")
    }

    async fn run(task: impl Future<Output = ()> + Send + 'static) {
        tokio::time::timeout(HANG, tokio::spawn(Staying::new(task))).await.expect("it ends").unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thread_that_has_given_way_does_all_its_task_s_work_and_no_other_does() {
        run(async {
            assert!(!is_free() && takes_work(), "it is a worker, and gives its place away for work");
            let worker = std::thread::current().id();
            assert_eq!(result(|| std::thread::current().id()).await, worker);
            assert!(is_free());
        })
        .await;
        run(async {
            wait();
            let here = std::thread::current().id();
            for n in 0..10 {
                assert!(is_free());
                assert_eq!(result(move || (n, std::thread::current().id())).await, (n, here));
                assert_eq!(std::thread::current().id(), here);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_not_polled_as_staying_has_its_work_done_aside() {
        gave_way();
        assert!(!is_free());
        assert_ne!(result(|| std::thread::current().id()).await, std::thread::current().id());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_whose_work_hangs_gets_on_and_is_ended_once() {
        let (go, hangs) = mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        let ends = Arc::new(AtomicUsize::new(0));
        let counted = ends.clone();
        let task = tokio::spawn(Staying::new(async move {
            wait();
            let hanging = result(move || hangs.recv());
            tokio::pin!(hanging);
            let patient = tokio::time::timeout(Duration::from_millis(20), &mut hanging).await;
            tell.send(patient.is_err()).unwrap();
            hanging.await.unwrap_err();
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(tokio::time::timeout(HANG, told).await.expect("its limit is seen").unwrap());
        drop(go);
        tokio::time::timeout(HANG, task).await.expect("the thread ends with the work").unwrap();
        let all = async {
            while ends.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(HANG, all).await.expect("somebody goes on with the task");
        assert_eq!(ends.load(Ordering::SeqCst), 1);
    }

    /// Wakes from elsewhere at every moment: nothing is lost, nothing runs twice.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_that_are_woken_while_their_work_is_done_each_end_once() {
        let ends = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..200_u64)
            .map(|n| {
                let ends = ends.clone();
                tokio::spawn(Staying::new(async move {
                    for step in 0..5 {
                        wait();
                        let work = result(move || std::thread::sleep(Duration::from_micros((n * 7 + step) % 1500)));
                        tokio::pin!(work);
                        while tokio::time::timeout(Duration::from_millis(1), &mut work).await.is_err() {}
                    }
                    ends.fetch_add(1, Ordering::SeqCst);
                }))
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(HANG, task).await.expect("it ends").unwrap();
        }
        let all = async {
            while ends.load(Ordering::SeqCst) < 200 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(HANG, all).await.expect("all go on");
        assert_eq!(ends.load(Ordering::SeqCst), 200);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_whose_task_ends_without_it_is_done() {
        let (tell, told) = oneshot::channel();
        run(async move {
            wait();
            do_here(move || tell.send(7).unwrap());
        })
        .await;
        assert_eq!(tokio::time::timeout(HANG, told).await.expect("it is done").unwrap(), 7);
    }

    /// A task that has had its share of the runtime puts itself off at every turn: its limit must be seen all the same.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_has_used_up_its_share_gets_on_when_its_work_hangs() {
        let (go, hangs) = mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        let task = tokio::spawn(Staying::new(async move {
            wait();
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::coop::consume_budget().await;
            }
            let patient = tokio::time::timeout(Duration::from_millis(20), result(move || hangs.recv())).await;
            tell.send(patient.is_err()).unwrap();
        }));
        assert!(tokio::time::timeout(HANG, told).await.expect("its limit is seen").unwrap());
        drop(go);
        tokio::time::timeout(HANG, task).await.expect("the thread ends with the work").unwrap();
    }

    #[test]
    fn there_are_as_many_threads_as_the_bound_says() {
        let threads = Threads { free: AtomicUsize::new(2) };
        let (one, other) = (threads.take(), threads.take());
        assert!(one.is_some() && other.is_some() && threads.take().is_none());
        drop(one);
        let again = threads.take();
        assert!(again.is_some() && threads.take().is_none());
        drop((other, again));
        assert_eq!(threads.free.load(Ordering::Acquire), 2);
    }
}
