//! What one who asks may take from others.

use super::*;
use crate::control::asked::OF_ONE_MAX;
use crate::control::commands::Commands;
use parking_lot::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Longer than anything takes on a busy machine; nothing that works waits for it.
const LONG: Duration = Duration::from_secs(20);

/// Whoever looks at the filer of this URL waits.
#[derive(Default)]
pub struct Hung {
    url: Mutex<Option<String>>,
    goes_on: Condvar,
    looks: AtomicUsize,
}

impl Hung {
    pub fn wait(&self, url: &str) {
        let mut hung = self.url.lock();
        if hung.as_deref() == Some(url) {
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
        while hung.as_deref() == Some(url) {
            self.goes_on.wait(&mut hung);
        }
    }
}

/// While it lives; a runtime waits for its threads.
struct Hangs(Arc<Hung>);

impl Hangs {
    fn new(hung: &Arc<Hung>, url: String) -> Self {
        *hung.url.lock() = Some(url);
        Self(hung.clone())
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        *self.0.url.lock() = None;
        self.0.goes_on.notify_all();
    }
}

/// As a monitor does that asks once a minute, for days.
#[tokio::test]
async fn looks_at_a_filer_that_hangs_keep_few_threads_whoever_gives_up_and_others_are_not_held_up() {
    let s = Served::new().await;
    s.furnish().await;
    let hangs = Hangs::new(&s.port.hung, s.filer_url("old"));
    let commands = Commands::new(s.port.clone());
    let state = s.port.state();
    let [old, new] = ["old", "new"].map(|name| state.filer_by_name(name).unwrap().1);
    for _ in 0..OF_ONE_MAX {
        let look = timeout(Duration::from_millis(50), commands.check_filer(old)).await;
        assert!(look.is_err(), "it hangs");
    }
    for _ in 0..2 {
        let why = timeout(LONG, commands.check_filer(old)).await.expect("nothing is begun").unwrap_err();
        assert!(why.contains("earlier calls of it have not come back"), "{why}");
    }
    assert!(s.port.hung.looks.load(Ordering::SeqCst) <= OF_ONE_MAX);
    timeout(LONG, commands.check_filer(new)).await.expect("it is well").unwrap();
    drop(hangs);
    // The calls that hung come back one by one.
    let again = async { while commands.check_filer(old).await.is_err() {} };
    timeout(LONG, again).await.expect("it answers again");
}
