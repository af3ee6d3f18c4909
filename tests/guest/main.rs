//! A real Linux kernel client while moves go on: nothing fails, nothing is remounted.
//!
//! Two guests: one mounts `/` and crosses into the junction, the other mounts the junction. Each kind of command runs
//! again and again beside the others; before and after each it makes a name whose event in the journal says where it
//! began and ended, so that a command that spans a switch is known by LSNs.
#![allow(clippy::disallowed_methods, reason = "tests outside the service time what they see")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod left;
mod locks;
mod programs;
#[path = "../support/shadow.rs"]
mod shadow;
#[path = "../support/mod.rs"]
mod support;

use shadow::Shadow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Dir, exe};
use tain::demo::observer::Observer;
use tain::demo::service::Service;
use tokio::process::Child;

const KINDS_A: &str = "untar git append";
const KINDS_B: &str = "sqlite rename tar list";
const CROSSES: &str = include_str!("crosses.sh");
const MOUNTS: &str = include_str!("mounts.sh");
/// Of the whole test: it hangs then, however busy the machine is.
const LONGEST: Duration = Duration::from_secs(1200);
/// Moves: three, and more while a kind of command has not spanned a switch.
const MOVES: [(&str, &str); 6] =
    [("new", "tree"), ("old", "back"), ("new", "again"), ("old", "more"), ("new", "and"), ("old", "last")];

struct Guest {
    child: Child,
    share: PathBuf,
    name: &'static str,
}

/// What the guests unpack and clone, and the tree that is there before the junction: this project's own sources will do.
/// `tree` is copied to `original`.
fn material(dir: &Path, tree: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = "mkdir material; cd material; mkdir src; cp -r $1/src/journal $1/src/index $1/docs src/
        ln -s nowhere src/link; ln src/docs/design.md src/second-name; chmod -R u+w src; tar cf src.tar src
        git init -q work; cp -r src work/; git -C work add -A
        git -C work -c user.name=t -c user.email=t@example.org commit -qm one; git clone -q --bare work repo.git; rm -rf work
        mkdir $2/made; cp -r $1/src $1/journal-format/src/event $2/made; ln -s ../nowhere $2/made/link
        ln $2/made/src/main.rs $2/made/second-name; chmod 2710 $2/made/event; chmod 600 $2/made/src/lib.rs
        head -c 3000000 /dev/urandom > $2/made/big; truncate -s 5M $2/made/sparse; echo end >> $2/made/sparse
        touch $2/made/$(printf %0255d 0); touch -h -d '2001-02-03 04:05:06.789' $2/made/src/main.rs $2/made/link
        cp -a $2 $3";
    let out = Command::new("bash")
        .args(["-euc", script, "material"])
        .args([here, tree, &dir.join("original")])
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "git and tar are needed (tests/support/realclient/setup --uml --tools): {said}");
}

fn guest(name: &'static str, service: &Service, dir: &Path, export: &str, script: &str) -> Guest {
    let share = dir.join(format!("share-{name}"));
    std::fs::create_dir(&share).unwrap();
    let status = Command::new("cp").arg("-a").arg(dir.join("material/.")).arg(&share).status().unwrap();
    assert!(status.success());
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/realclient/run");
    let out = std::fs::File::create(share.join("output")).unwrap();
    let child = tokio::process::Command::new(run)
        .args(["--port", &service.nfs.port().to_string(), "--export", export, "--timeout", "1200"])
        .args(["--kind", "uml", "--mem", "768", "--mount-opts", "timeo=50", "--share"])
        .arg(format!("{}:rw", share.display()))
        .args(["GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "--"])
        .arg(format!("{}\n{script}", include_str!("prelude.sh")))
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Guest { child, share, name }
}

impl Guest {
    fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.share.join("output")).unwrap_or_default()).into_owned()
    }

    fn must_be_well(&mut self) {
        let failed = self.share.join("failed").exists();
        let ended = self.child.try_wait().unwrap();
        assert!(!failed && ended.is_none(), "guest {}: {ended:?}\n{}", self.name, self.output());
    }

    fn forget_runs(&self, kinds: &str) {
        for kind in kinds.split(' ') {
            let _ = std::fs::remove_file(self.share.join(format!("ran.{kind}")));
        }
    }

    /// Until each kind of command has ended a run since they were forgotten.
    async fn all_ran(&mut self, kinds: &str) {
        let begun = Instant::now();
        while !kinds.split(' ').all(|k| self.share.join(format!("ran.{k}")).exists()) {
            self.must_be_well();
            assert!(begun.elapsed() < Duration::from_secs(400), "guest {} hangs:\n{}", self.name, self.output());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn finish(&mut self) {
        let status = tokio::time::timeout(Duration::from_secs(400), self.child.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "guest {}: {status}\n{}", self.name, self.output());
        assert!(!self.output().contains("umount failed"), "guest {}: {}", self.name, self.output());
    }

    /// What the client summed up, against the live side as it is read from outside.
    fn check_sums(&self, side: &Path) {
        let script = "set -e; sha256sum --quiet -c \"$1\"; find . -mindepth 1 \\( -type d -printf '%P %y %m\\n' -o \
            -printf '%P %y %m %s %T@ %l\\n' \\) | LC_ALL=C sort | diff \"$2\" -";
        let out = Command::new("bash")
            .args(["-c", script, "sums"])
            .args([self.share.join("sums"), self.share.join("list")])
            .current_dir(side.join(self.name))
            .output()
            .unwrap();
        let lines = std::fs::read_to_string(self.share.join("sums")).unwrap().lines().count();
        // Most are of the marks that its runs leave: on a busy machine there are fewer.
        assert!(lines > 30, "only {lines} sums");
        assert!(out.status.success(), "guest {}: {}", self.name, String::from_utf8_lossy(&out.stdout));
    }
}

/// Only `run` itself can end its guest, and it cannot when it is killed: a failed test asks it to.
impl Drop for Guest {
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_client_works_on_through_three_moves_and_every_side_is_what_it_must_be() {
    // Pinned here, so that its directory goes while the test panics, and is kept.
    let mut moves = std::pin::pin!(moves_under_guests());
    tokio::select! {
        () = &mut moves => {}
        () = tokio::time::sleep(LONGEST) => panic!("not ended after {LONGEST:?}"),
    }
}

async fn moves_under_guests() {
    let (begun, dir) = (Instant::now(), Dir::new());
    let at = |sub: &str| dir.path().join(sub);
    // The second move goes to a directory that is there, and empty; the others to ones that are made.
    for sub in ["service", "old", "old/tree", "old/back", "new"] {
        std::fs::create_dir(at(sub)).unwrap();
    }
    material(dir.path(), &at("old/tree"));
    let sides: Vec<PathBuf> =
        std::iter::once(at("old/tree")).chain(MOVES.iter().map(|(filer, sub)| at(filer).join(sub))).collect();
    let mut service = Service::new(&exe(), &at("service"), 64 << 20).unwrap();
    service.start().await.unwrap();
    let shadow = Arc::new(Mutex::new(Shadow::new(at("shadow"), sides.clone(), at("original"))));
    let hooked = shadow.clone();
    let observer = Observer::start_with(
        &service.journal(),
        Box::new(move |event, bulk, lsn, time| hooked.lock().unwrap().take(event, bulk, lsn, time)),
    );
    for filer in ["old", "new"] {
        let url = format!("posix://{}", at(filer).display());
        service.tain(&["filer", "add", filer, &url]).await.unwrap();
    }
    service.tain(&["junction", "add", "/projects/demo", "old:/tree"]).await.unwrap();
    let mut guests = [
        (guest("a", &service, dir.path(), "/", CROSSES), KINDS_A),
        (guest("b", &service, dir.path(), "/projects/demo", MOUNTS), KINDS_B),
    ];
    // Two runs, so that there is an archive and a clone that the second one does not touch.
    for _ in 0..2 {
        all_ran(&mut guests).await;
    }
    println!("{:?}: every kind of command has run", begun.elapsed());
    let mut moves = 0;
    while moves < 3 || (moves < MOVES.len() && !never_spanned(&observer, &shadow).is_empty()) {
        let (filer, sub) = MOVES[moves];
        moves += 1;
        one_move(&service, &mut guests, &format!("{filer}:/{sub}")).await;
        all_ran(&mut guests).await;
        println!("{:?}: {filer}:/{sub} is the live side", begun.elapsed());
    }
    for (guest, _) in &mut guests {
        std::fs::write(guest.share.join("stop"), "").unwrap();
    }
    for (guest, _) in &mut guests {
        guest.finish().await;
    }
    service.stop().await.unwrap();
    observer.settle().unwrap();
    let never = never_spanned(&observer, &shadow);
    println!("{:?}: unmounted, stopped", begun.elapsed());
    assert!(never.is_empty(), "no run of these spans a switch: {never:?}");
    let live = &sides[moves];
    for (guest, _) in &guests {
        guest.check_sums(live);
    }
    let mut shadow = shadow.lock().unwrap();
    assert_eq!(shadow.switches.len(), moves);
    assert!(shadow.adopted > 100, "only {} objects were there before", shadow.adopted);
    shadow.compare(live);
    assert!(shadow.bad.is_empty(), "{} differences: {:#?}", shadow.bad.len(), &shadow.bad[..shadow.bad.len().min(10)]);
    for (i, lsn) in shadow.switches.iter().enumerate() {
        let scratch = at(&format!("scratch{i}"));
        left::check(&sides[i], live, &shadow, *lsn, &at("original"), &at("material/src"), &scratch);
    }
    for kind in KINDS_A.split(' ').chain(KINDS_B.split(' ')) {
        println!("{kind}: {} of {moves} switches fell into a run of it", spans(&shadow, kind));
    }
    println!("{:?}: every side looked at", begun.elapsed());
}

async fn one_move(service: &Service, guests: &mut [(Guest, &str)], to: &str) {
    let job = service.tain(&["move", "create", "/projects/demo", to]).await.unwrap();
    let mut state = String::new();
    while state != "completed" {
        guests.iter_mut().for_each(|(guest, _)| guest.must_be_well());
        state = service.job_state(&job).await.unwrap();
        if ["paused", "aborted", "stopped"].contains(&&state[..]) {
            panic!("{to}: {state}: {}", service.tain(&["job", "errors", &job]).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn all_ran(guests: &mut [(Guest, &str)]) {
    for (guest, kinds) in guests.iter() {
        guest.forget_runs(kinds);
    }
    for (guest, kinds) in guests {
        guest.all_ran(kinds).await;
    }
}

/// Kinds of command into no run of which a switch fell so far.
fn never_spanned(observer: &Observer, shadow: &Mutex<Shadow>) -> Vec<&'static str> {
    if let Some(why) = &observer.seen().broken {
        panic!("the shadow cannot follow the journal: {why}");
    }
    let shadow = shadow.lock().unwrap();
    KINDS_A.split(' ').chain(KINDS_B.split(' ')).filter(|kind| spans(&shadow, kind) == 0).collect()
}

/// How many switches lie between the begin and the end of a run of this kind.
fn spans(shadow: &Shadow, kind: &str) -> usize {
    let mark = |n: usize, what: &str| shadow.marks.get(format!("mark.{kind}.{n}.{what}").as_bytes()).copied();
    let spanned = |switch: &&u64| {
        (1..)
            .map_while(|n| Some((mark(n, "begin")?, mark(n, "end"))))
            .any(|(begin, end)| begin < **switch && end.is_some_and(|end| end > **switch))
    };
    shadow.switches.iter().filter(spanned).count()
}
