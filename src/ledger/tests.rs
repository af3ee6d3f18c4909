//! Commands in a journal that is full.
#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use super::*;
use crate::journal::{AppendMode, Options};
use crate::state::decide;
use journal_format::event::{FilerFound, PolicyRemoved, Write};
use journal_format::ids::{Identity, LocationId, PolicyId};

const SEGMENT: u64 = 64 << 10;

async fn ledger(dir: &tempfile::TempDir) -> Ledger {
    let options = Options {
        dir: dir.path().join("journal"),
        segment_size: SEGMENT,
        hard_limit: 8 * SEGMENT,
        append: AppendMode::Buffered,
        any_file_system: true,
        disk: Arc::new(crate::env::RealDisk),
    };
    let ledger = Ledger::new(Journal::open(options).unwrap(), State::default(), Box::new(|_, _| ()));
    let found = FilerFound::default();
    let filer = Command::AddFiler { name: "f".into(), url: "posix:///f".into(), root: vec![1], found };
    ledger.command(&filer).await.unwrap();
    ledger.command(&policy("office")).await.unwrap();
    ledger.command(&junction("a", None)).await.unwrap();
    ledger
}

fn policy(name: &str) -> Command {
    Command::AddPolicy { name: name.into(), rules: vec!["*=ro".parse().unwrap()] }
}

fn junction(name: &str, access: Option<&str>) -> Command {
    Command::AddJunction {
        path: vec![name.into()],
        filer: "f".into(),
        subdir: vec![name.into()],
        root: Identity(name.into()),
        node: NodeId(10),
        mtime: Time(1),
        ctime: Time(1),
        access: access.map(Into::into),
    }
}

fn suspend() -> Command {
    Command::ModifyJunction { junction: JunctionId(1), access: None, suspended: Some(true) }
}

async fn fill(ledger: &Ledger) {
    let bulk = vec![7; 30_000];
    let write = Event::Write(Write {
        junction: JunctionId(1),
        location: LocationId(1),
        node: NodeId(10),
        offset: 0,
        len: 30_000,
        mode: None,
        caller: Default::default(),
    });
    while ledger.journal.append_with(&write, &bulk, |_| ()).await.is_ok() {}
    // What is smaller still has room; nothing is smaller than this.
    let small = Event::PolicyRemoved(PolicyRemoved { policy: PolicyId(9) });
    while ledger.journal.append_with(&small, &[], |_| ()).await.is_ok() {}
    assert!(ledger.journal.is_full());
}

#[tokio::test]
async fn a_command_that_waits_for_room_holds_up_no_other_and_is_told_when_none_comes() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    fill(&ledger).await;
    let waits = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.command(&policy("guests")).await }
    });
    tokio::time::sleep(TURN_MAX / 2).await;
    ledger.command(&suspend()).await.unwrap();
    assert!(!waits.is_finished(), "it came first, and the other one waited for it");
    let told = waits.await.unwrap();
    assert!(matches!(told, Err(CommandError::Journal(crate::journal::Error::Full { .. }))), "{told:?}");
    let state = ledger.state();
    assert!(state.policy_by_name("guests").is_none() && state.junctions[&JunctionId(1)].suspended);
}

/// A switch holds clients meanwhile.
#[tokio::test]
async fn a_command_that_cannot_wait_is_given_up_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    let turn = ledger.inner.commands.lock().await;
    let (end, by) = (ledger.journal.end_lsn(), Instant::now() + Duration::from_millis(50));
    let late = ledger.command_by(&suspend(), Some(by)).await;
    assert!(matches!(late, Err(CommandError::Late)), "{late:?}");
    drop(turn);
    // It is tried once, however late it is.
    assert!(!ledger.state().junctions[&JunctionId(1)].suspended);
    ledger.command_by(&suspend(), Some(by)).await.unwrap();
    assert!(ledger.journal.end_lsn() > end && ledger.state().junctions[&JunctionId(1)].suspended);
}

#[tokio::test]
async fn what_a_command_says_behind_its_first_event_needs_no_room_that_it_could_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    let events = decide(&ledger.state(), &junction("b", Some("office"))).unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().skip(1).all(|event| Class::of(event) != Class::Operation));
}
