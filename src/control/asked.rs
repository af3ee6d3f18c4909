//! What control asks filers, and how much of it has not come back.
//!
//! A call that hangs in a filer keeps its thread until the filer answers, long after whoever asked has been told so; and
//! threads are few (`main.rs`). So each thing that is asked has a place, which its calls keep until they have ended.
//!
//! Bound (I11): [`OF_ONE_MAX`] places for one filer, [`ALL_MAX`] for all. Who finds none waits [`PLACE_WAIT`] and is told
//! that earlier calls hang; nothing of his is begun then.

use crate::filer::aside::{self, Kept};
use crate::filer::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a filer may take for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long others of the same filer may take to give a place back.
const PLACE_WAIT: Duration = Duration::from_secs(1);
pub(super) const OF_ONE_MAX: usize = 4;
const ALL_MAX: usize = 64;

pub(super) struct Asked {
    all: Arc<Semaphore>,
    /// By URL; of filers that are asked something.
    of: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for Asked {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL_MAX)), of: Mutex::default() }
    }
}

impl Asked {
    /// The answer of the filer at `url`, if it comes in time. What `asked` has begun by then goes on, and nothing more of
    /// it is begun.
    pub async fn ask<T>(&self, url: &str, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let place = self.place(url).await?;
        match timeout(ANSWER_WAIT, aside::keeping(place, asked)).await {
            Ok(answer) => answer,
            Err(_) => Err(late(format!("no answer within {} seconds", ANSWER_WAIT.as_secs()))),
        }
    }

    async fn place(&self, url: &str) -> Result<Kept> {
        let of = {
            let mut of = self.of.lock();
            // A place that is taken or waited for holds its filer's.
            of.retain(|_, places| Arc::strong_count(places) > 1);
            of.entry(url.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_MAX))).clone()
        };
        let one = free(of).await.ok_or_else(|| late(format!("{OF_ONE_MAX} earlier calls of it have not come back")))?;
        let all = free(self.all.clone()).await;
        let all = all.ok_or_else(|| late(format!("{ALL_MAX} earlier calls of this and others have not come back")))?;
        Ok(Arc::new((one, all)))
    }
}

async fn free(places: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout(PLACE_WAIT, places.acquire_owned()).await.ok()?.ok()
}

fn late(detail: String) -> Error {
    Error::new(ErrorKind::Unknown, "wait for the filer", detail)
}
