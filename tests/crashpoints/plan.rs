//! What is to be died of, and in which order.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use tain::demo::service::Service;

/// A point that is not reached within this time under load is not reached at all: a switch may be put off many times on a
/// busy machine.
pub const NEVER: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    New,
    Start,
    Run,
    Stop,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub name: String,
    pub when: When,
    pub hit: u32,
}

pub struct Plan {
    left: VecDeque<Item>,
}

impl Plan {
    /// Deaths under load, each followed by up to three in the recovery from it, so that recoveries die in a row.
    /// `TAIN_CRASH_ONLY=part of a name` leaves out all others.
    pub fn read(whens: &[When]) -> Self {
        let only = std::env::var("TAIN_CRASH_ONLY").unwrap_or_default();
        let mut all: Vec<Item> = Vec::new();
        for line in include_str!("list.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.split(' ');
            let name = words.next().unwrap().to_owned();
            let when = match words.next().unwrap() {
                "new" => When::New,
                "start" => When::Start,
                "run" => When::Run,
                "stop" => When::Stop,
                other => panic!("list.txt: {other}"),
            };
            let hits: Vec<u32> = words.map(|w| w.parse().unwrap()).collect();
            assert!(!hits.is_empty(), "list.txt: {line}");
            all.extend(hits.into_iter().map(|hit| Item { name: name.clone(), when, hit }));
        }
        all.retain(|item| whens.contains(&item.when) && item.name.contains(&only));
        let (starts, runs): (Vec<_>, Vec<_>) = all.into_iter().partition(|item| item.when == When::Start);
        let (mut starts, mut left) = (VecDeque::from(starts), VecDeque::new());
        let every = (runs.len() / starts.len().max(1)).max(1) * 3;
        for (i, run) in runs.into_iter().enumerate() {
            left.push_back(run);
            if i % every == 0 {
                left.extend(starts.drain(..starts.len().min(3)));
            }
        }
        left.extend(starts);
        Self { left }
    }

    pub fn len(&self) -> usize {
        self.left.len()
    }

    pub fn next(&mut self) -> Option<Item> {
        self.left.pop_front()
    }
}

/// The service has been killed by its crash point: nobody else kills it.
pub fn died(service: &mut Service) -> bool {
    match service.ended().unwrap() {
        None => false,
        Some(status) if status.signal() == Some(9) => true,
        Some(status) => panic!("the service ended by itself ({status}): {}", service.last_words()),
    }
}
