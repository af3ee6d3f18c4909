//! The tasks that the service is made of. Each goes on until it is told to stop, and whoever waits for what it does would
//! wait for ever if it had ended before: clients, operators, the journal's room. Nothing but a defect of ours ends one, and
//! then the service ends, as when its journal fails: the next start has all of them.

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::task::JoinHandle;

pub struct Parts {
    pub gateway: JoinHandle<()>,
    pub api: JoinHandle<()>,
    pub supervisor: JoinHandle<()>,
    pub checkpoints: JoinHandle<()>,
    pub stuck: JoinHandle<()>,
}

impl Parts {
    /// Returns when one of them has ended: which, and why.
    pub async fn ended(&mut self) -> String {
        let parts = [
            ("serving NFS", &mut self.gateway),
            ("serving the API", &mut self.api),
            ("looking after locations and jobs", &mut self.supervisor),
            ("taking checkpoints", &mut self.checkpoints),
            ("watching jobs", &mut self.stuck),
        ];
        let ends = parts.map(|(what, task)| task.map(move |ended| (what, ended)));
        let ((what, ended), ..) = select_all(ends).await;
        let why = ended.map_or_else(|error| error.to_string(), |()| "it came to its end".into());
        format!("{what}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_part_that_panics_is_noticed_whichever_it_is_and_none_that_goes_on() {
        let mut parts = {
            let goes_on = || tokio::spawn(std::future::pending());
            let (gateway, api, supervisor) = (goes_on(), goes_on(), goes_on());
            Parts { gateway, api, supervisor, checkpoints: goes_on(), stuck: goes_on() }
        };
        assert!(tokio::time::timeout(Duration::from_millis(50), parts.ended()).await.is_err());
        let at = |parts: &mut Parts, n: u8, task| match n {
            0 => parts.gateway = task,
            1 => parts.api = task,
            2 => parts.supervisor = task,
            3 => parts.checkpoints = task,
            _ => parts.stuck = task,
        };
        for n in 0..5 {
            at(&mut parts, n, tokio::spawn(async { panic!("a defect") }));
            let why = tokio::time::timeout(Duration::from_secs(20), parts.ended()).await.unwrap();
            assert!(why.contains("a defect"), "{why}");
            at(&mut parts, n, tokio::spawn(std::future::pending()));
        }
        parts.checkpoints = tokio::spawn(async {});
        assert_eq!(parts.ended().await, "taking checkpoints: it came to its end");
    }
}
