//! Filers that hang, and a small journal (design §4 "Full"): a secondary that hangs goes out of sync, a primary that
//! hangs keeps nobody but its own clients waiting, and when they answer again all is as before, by itself.

use crate::frozen::Disk;
use crate::support::{Dir, client, exe, expect, more_ops, name, setup};
use bytes::Bytes;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tain::demo::client::{Client, Cred};
use tain::demo::load::Load;
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};
use tain::demo::rig::{Rig, TREE};
use tain::demo::service::Service;

const SEGMENT: u64 = 8 << 20;
const SOFT: u64 = 2 * SEGMENT;
const HARD: u64 = 16 * SEGMENT;
/// For what hangs; nothing that works waits so long.
const LONG: Duration = Duration::from_secs(240);
const BLOCK: usize = 256 << 10;

/// For the next start.
fn small_limits(service: &Service) {
    let text = std::fs::read_to_string(service.config()).unwrap();
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("soft_limit", _)) => format!("soft_limit = {SOFT}\n"),
        Some(("hard_limit", _)) => format!("hard_limit = {HARD}\n"),
        _ => format!("{line}\n"),
    });
    std::fs::write(service.config(), lines.collect::<String>()).unwrap();
}

/// `tain status`, whether it is healthy or not.
async fn look(service: &Service) -> Value {
    let mut command = tokio::process::Command::new(exe());
    command.args(["status", "--json"]).env("TAIN_API", &service.api).kill_on_drop(true);
    let out = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

fn number(value: &Value, of: &str) -> u64 {
    value.pointer(of).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {of} in {value:#}"))
}

fn says(status: &Value, what: &str) -> bool {
    let problems = status["problems"].as_array().unwrap();
    problems.iter().any(|p| p.as_str().is_some_and(|p| p.contains(what)))
}

/// Bytes of the journal that are kept for a location.
fn kept_for(status: &Value, location: &str) -> u64 {
    let pins = status["journal"]["pins"].as_array().unwrap();
    let pin = pins.iter().find(|pin| pin["location"].as_str() == Some(location));
    pin.and_then(|pin| pin["bytes"].as_u64()).unwrap_or(0)
}

/// Until the status is so; what it was then.
async fn until(service: &Service, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = look(service).await;
        if reached(&status) {
            return status;
        }
        assert!(begun.elapsed() < LONG, "not reached: {what}\n{status:#}\n{}", service.last_words());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A client of a junction that is well: whatever hangs elsewhere, each of its calls is carried out at once.
struct Well {
    client: Client,
    dir: Fh,
    file: Fh,
    calls: u64,
}

impl Well {
    async fn new(service: &Service, path: &str) -> Self {
        let client = client(service, 0x71);
        let dir = client.mount(path.as_bytes()).await.unwrap().unwrap();
        // Until the junction is taken up it says JUKEBOX.
        client.nfs(&Call::GetAttr { node: dir.clone() }).await.unwrap();
        let how = How::Guarded(SetAttrs::mode(0o644));
        let call = Call::Create { dir: dir.clone(), name: name("filling"), how };
        let file = client.nfs(&call).await.unwrap().fh.unwrap();
        Self { client, dir, file, calls: 0 }
    }

    /// A name made, bytes written and read, the name removed: a thing of each kind that a client does.
    async fn work(&mut self) {
        let (new, fill) = (name(&format!("n{}", self.calls)), u8::try_from(self.calls % 251).unwrap());
        let how = How::Guarded(SetAttrs::mode(0o600));
        let made =
            expect(&self.client, Call::Create { dir: self.dir.clone(), name: new.clone(), how }, status::OK).await;
        let (data, node) = (Bytes::from(vec![fill; 4096]), made.fh.unwrap());
        expect(&self.client, Call::Write { node: node.clone(), offset: 0, stable: 2, data: data.clone() }, status::OK)
            .await;
        let read = expect(&self.client, Call::Read { node, offset: 0, count: 4096 }, status::OK).await;
        assert_eq!(read.data, data);
        expect(&self.client, Call::Remove { dir: self.dir.clone(), name: new }, status::OK).await;
        self.calls += 1;
    }

    /// Fill the journal with so many bytes, and do other work between.
    async fn fill(&mut self, bytes: u64) {
        let data = Bytes::from(vec![7; BLOCK]);
        for n in 0..bytes / BLOCK as u64 {
            let call =
                Call::Write { node: self.file.clone(), offset: n % 32 * BLOCK as u64, stable: 2, data: data.clone() };
            let reply = self.client.once(&call).await.unwrap();
            assert_eq!(reply.status, status::OK, "a client of a junction that is well was sent away at write {n}");
            if n % 8 == 0 {
                self.work().await;
            }
        }
    }
}

/// A move's destination hangs in mid-copy while clients write. They go on; the destination goes out of sync and keeps
/// nothing of the journal; when it answers it comes back by itself, the move ends, and both sides are what they must be.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_hangs_in_mid_copy_goes_out_of_sync_and_comes_back_by_itself() {
    let dir = Dir::new();
    let disk = Disk::new(&dir.path().join("new"), 512);
    std::fs::create_dir_all(dir.path().join("well/tree")).unwrap();
    let mut setup = setup(600, 64, 3);
    // The journal is filled beside it: few operations, so that the sides are soon compared with their models.
    setup.limits.pause = Duration::from_millis(40);
    let mut rig = Rig::new(&exe(), dir.path(), &["old", "new", "well"], setup).await.unwrap();
    rig.service.stop().await.unwrap();
    small_limits(&rig.service);
    rig.service.start().await.unwrap();
    rig.service.tain(&["junction", "add", "/well", "well:/tree"]).await.unwrap();
    let mut well = Well::new(&rig.service, "/well").await;
    let load = Load::start(rig.lanes().await.unwrap());
    let job = rig.start_move("new", TREE).await.unwrap();
    let copied = |status: &Value| number(status, "/jobs/0/progress/bytes");
    until(&rig.service, "something is copied", |status| copied(status) > 0).await;
    disk.freeze();
    let hung = look(&rig.service).await;
    assert_eq!(hung["jobs"][0]["state"], "moving", "the copy was over before the destination hung");

    let is_out = |status: &Value| !status["jobs"][0]["out_of_sync"].is_null();
    while !is_out(&look(&rig.service).await) {
        well.fill(SEGMENT / 2).await;
    }
    assert!(says(&look(&rig.service).await, "is out of sync"));
    // More than the journal can hold, of both junctions; and nobody is sent away.
    well.fill(HARD + SEGMENT).await;
    more_ops(&load, 200).await;
    assert_eq!(load.failure(), None);
    let destination = hung["jobs"][0]["destination"].as_str().unwrap();
    let freed =
        |status: &Value| kept_for(status, destination) < SOFT && number(status, "/journal/bytes") < SOFT + 4 * SEGMENT;
    let status = until(&rig.service, "the destination keeps little of the journal", freed).await;
    assert_eq!(number(&status, "/journal/refusals"), 0, "a client was told that the journal is full");
    assert!(is_out(&status) && number(&status, "/journal/end_lsn") > number(&hung, "/journal/end_lsn") + HARD);
    assert!(number(&status, "/jobs/0/out_of_sync/dirty_nodes") > 0, "clients wrote, and nothing is dirty: {status:#}");
    assert_eq!(status["jobs"][0]["state"], "moving", "who is out of sync cannot be switched to");

    disk.thaw();
    tokio::select! {
        done = rig.wait_completed(job, LONG) => done.unwrap(),
        why = load.failed() => panic!("{why}"),
    }
    more_ops(&load, 50).await;
    let mut lanes = load.stop().await.unwrap();
    for lane in &mut lanes {
        lane.look_at_all().await.unwrap();
    }
    until(&rig.service, "all is well", |status| status["healthy"] == true).await;
    let switch = rig.switch(job).unwrap();
    rig.service.stop().await.unwrap();
    let old = rig.verify(&rig.side("old", TREE), &lanes, Some(switch)).unwrap();
    assert!(old.equal(), "the old side at its switch:\n{}", old.report());
    let new = rig.verify(&rig.side("new", TREE), &lanes, None).unwrap();
    assert!(new.equal(), "the new side at the end:\n{}", new.report());
    assert!(well.calls > 30);
}

/// A junction's primary hangs, and more is journaled beside it than the journal can hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_keeps_nobody_waiting_but_its_own_clients_and_all_is_well_when_it_answers() {
    let dir = Dir::new();
    let disk = Disk::new(&dir.path().join("hung"), 256);
    let _well = Disk::in_memory(&dir.path().join("well"), 64);
    for sub in ["service", "hung/export", "well/export"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let mut service = Service::new(&exe(), &dir.path().join("service"), SEGMENT).unwrap();
    small_limits(&service);
    service.start().await.unwrap();
    for which in ["hung", "well"] {
        let url = format!("posix://{}", dir.path().join(which).display());
        service.tain(&["filer", "add", which, &url]).await.unwrap();
        service.tain(&["junction", "add", &format!("/{which}"), &format!("{which}:/export")]).await.unwrap();
    }
    let patient = Client::new(service.nfs, Cred::own(), 0x7200_0001, LONG);
    let root = patient.mount(b"/hung").await.unwrap().unwrap();
    let create =
        |new: &str| Call::Create { dir: root.clone(), name: name(new), how: How::Guarded(SetAttrs::mode(0o644)) };
    let mut files = Vec::new();
    for n in 0..4 {
        files.push(patient.nfs(&create(&format!("f{n}"))).await.unwrap().fh.unwrap());
    }
    let mut well = Well::new(&service, "/well").await;
    disk.freeze();

    // Clients change things on what hangs: they wait.
    let mut waiting = tokio::task::JoinSet::new();
    for (n, file) in files.iter().enumerate() {
        let data = Bytes::from(vec![b'a' + u8::try_from(n).unwrap(); 64 << 10]);
        for (which, call) in
            [Call::Write { node: file.clone(), offset: 0, stable: 2, data }, create(&format!("new{n}"))]
                .into_iter()
                .enumerate()
        {
            let client = patient.clone();
            waiting.spawn(async move { (n, which, client.nfs(&call).await.unwrap().status) });
        }
    }
    let begun = Instant::now();
    let sent_away = patient.once(&create("sent-away")).await.unwrap();
    assert_eq!(sent_away.status, status::JUKEBOX, "after {:?}", begun.elapsed());
    until(&service, "it is told who waits", |status| says(status, "junction /hung")).await;

    // Those of the other junction are served, and more than the hard limit goes through the journal.
    let begin = number(&look(&service).await, "/journal/end_lsn");
    while number(&look(&service).await, "/journal/end_lsn") < begin + HARD + 2 * SEGMENT {
        well.fill(SEGMENT).await;
        assert!(waiting.try_join_next().is_none(), "something was answered that the filer has not done");
    }
    let freed = |status: &Value| number(status, "/journal/bytes") < SOFT + 4 * SEGMENT;
    let status = until(&service, "the journal is free", freed).await;
    assert_eq!(number(&status, "/journal/refusals"), 0, "a client was told that the journal is full");
    assert!(says(&status, "of its records are set aside") && !says(&status, "junction /well"), "{status:#}");
    assert!(
        std::fs::read_dir(service.journal())
            .unwrap()
            .any(|e| { e.unwrap().file_name().to_string_lossy().starts_with("side") })
    );

    disk.thaw();
    while let Some(done) = waiting.join_next().await {
        let (n, which, status) = done.unwrap();
        assert_eq!(status, status::OK, "file {n}, call {which}");
    }
    // The one that was sent away was begun: who comes again is told that it is done.
    assert_eq!(patient.nfs(&create("sent-away")).await.unwrap().status, status::OK);
    let is_well = |status: &Value| status["healthy"] == true && kept_for(status, "hung:/export") < SOFT;
    until(&service, "all is well", is_well).await;
    well.work().await;
    service.stop().await.unwrap();
    assert_side_is_done(&dir.path().join("hung/export"), &service.journal());
}

fn assert_side_is_done(export: &Path, journal: &Path) {
    for n in 0..4_u8 {
        let bytes = std::fs::read(export.join(format!("f{n}"))).unwrap();
        assert!(bytes.len() == 64 << 10 && bytes.iter().all(|b| *b == b'a' + n), "f{n}");
        assert!(export.join(format!("new{n}")).exists(), "new{n}");
    }
    assert!(export.join("sent-away").exists());
    let sides = std::fs::read_dir(journal)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("side"));
    assert_eq!(sides.count(), 0, "a side that nobody needs is still there");
}
