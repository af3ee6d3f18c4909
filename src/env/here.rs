//! Work that may wait, done on the thread at hand.
//!
//! To have another thread do it, and to be woken by that one, costs several times what most such work takes. A worker of
//! the runtime must not wait; but one that has just waited has given its place away (`block_in_place`), and serves nobody
//! but its task until that is polled no more. Such a thread may do what its task waits for, as long as the task does not
//! depend on it: work may hang, and whoever waits for it with a limit must get on.
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
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use tokio::runtime::Handle;

type Work = Box<dyn FnOnce() + Send>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Of the task that is polled on this thread.
#[derive(Default)]
struct Here {
    /// The thread has given its place away.
    free: bool,
    work: Option<Work>,
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

/// Whether [`do_here`] would take work.
#[must_use]
pub fn is_free() -> bool {
    HERE.with_borrow(|here| here.as_ref().is_some_and(|here| here.free && here.work.is_none()))
}

/// Do this on the thread at hand, as soon as what is polled there waits. Where [`is_free`] says no it is done aside.
pub fn do_here(work: impl FnOnce() + Send + 'static) {
    if !is_free() {
        return super::aside_detached(work);
    }
    HERE.with_borrow_mut(|here| {
        if let Some(here) = here {
            here.work = Some(Box::new(work));
        }
    });
}

/// While it lives, work is taken on this thread.
struct Polling {
    before: Option<Here>,
}

impl Polling {
    fn begin() -> Polling {
        Polling { before: HERE.replace(Some(Here::default())) }
    }

    fn work(&self) -> Option<Work> {
        HERE.with_borrow_mut(|here| here.as_mut().and_then(|here| here.work.take()))
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        // Given by a task that ended without it, or panicked: it is done all the same.
        if let Some(work) = HERE.replace(self.before.take()).and_then(|here| here.work) {
            super::aside_detached(work);
        }
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
            self.task = work_for(task, work);
        }
        Poll::Ready(())
    }
}

/// Do the work that the task waits for; gives the task back, unless somebody else goes on with it.
fn work_for(task: Task, work: Work) -> Option<Task> {
    let left =
        Arc::new(Left { task: Mutex::new(Some(task)), home: std::thread::current().id(), runtime: Handle::current() });
    // Once more, so that whoever wakes it from here on wakes it through what was left.
    let waker = Waker::from(left.clone());
    let ended = {
        let mut task = left.task.lock();
        let ended = task.as_mut().is_some_and(|task| task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        if ended {
            *task = None;
        }
        ended
    };
    tokio::task::block_in_place(work);
    if ended { None } else { left.task.lock().take() }
}

/// A task whose thread is at work for it.
struct Left {
    task: Mutex<Option<Task>>,
    home: ThreadId,
    runtime: Handle,
}

impl Wake for Left {
    fn wake(self: Arc<Self>) {
        // The thread itself polls it again anyhow, when the work is done.
        if std::thread::current().id() == self.home {
            return;
        }
        if let Some(task) = self.task.lock().take() {
            self.runtime.spawn(Staying::of(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
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
            assert!(!is_free(), "it is a worker");
            let worker = std::thread::current().id();
            assert_ne!(result(|| std::thread::current().id()).await, worker);
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
}
