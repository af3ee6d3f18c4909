//! A real Linux kernel client while moves go on: nothing fails, nothing is remounted.
//!
//! Two guests: one mounts `/` and crosses into the junction, the other mounts the junction. Each kind of command runs
//! again and again beside the others; before and after each it makes a name whose event in the journal says where it
//! began and ended, so that a command that spans a switch is known by LSNs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

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

/// What both guests begin with: loops that mark each run of a command, and the end.
const PRELUDE: &str = r#"
set -u
fail() { echo "FAILED: $*" >&2; touch /host/failed.$me; exit 1; }
# mark KIND N: one run of a command, between two names in the journal
run() { # kind
  local n=0
  while [ ! -e /host/stop ]; do
    n=$((n + 1))
    touch marks/mark.$1.$n.begin || fail "$1 $n: mark"
    "$1" $n > /host/out.$1 2>&1 || fail "$1 $n: $(tail -c 1500 /host/out.$1)"
    touch marks/mark.$1.$n.end || fail "$1 $n: mark"
    touch /host/ran.$1
  done
}
every() { # kinds…
  local pids=() p
  for k in "$@"; do run $k & pids+=($!); done
  for p in "${pids[@]}"; do wait $p || exit 1; done
}
sums() {
  sync
  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum > /host/sums.$me || fail sums
  find . -mindepth 1 \( -type d -printf '%P %y %m\n' -o -printf '%P %y %m %s %T@ %l\n' \) | LC_ALL=C sort > /host/list.$me || fail list
}
"#;

const GUEST_A: &str = r#"
cd /mnt/projects/demo || fail "crossing into the junction"
mkdir a && cd a && mkdir marks || fail mkdir
untar() { rm -rf untar; mkdir untar && tar xpf /host/src.tar -C untar && diff -r --no-dereference /host/src untar/src && sleep 0.2; }
git() { rm -rf clone; command git clone -q /host/repo.git clone && command git -C clone fsck --full --strict && command git -C clone status --porcelain | (! grep .); }
# One file, held open all the time; a "run" is some hundred lines.
exec 9>>appended
append() { for i in $(seq 100); do echo "run $1 line $i" >&9 || return 1; sleep 0.01; done; }
every untar git append
exec 9>&-
n=$(ls marks | grep -c '^mark.append.*end$')
[ "$(wc -l < appended)" = $((n * 100)) ] || fail "lines appended: $(wc -l < appended), runs: $n"
sums
cd / && umount /mnt/projects/demo || fail "umount of the junction"
"#;

const GUEST_B: &str = r#"
mkdir b && cd b && mkdir marks || fail mkdir
cp -r /host/src tree && mkdir dirs dirs/x dirs/x/deep && echo inside > dirs/x/deep/file || fail prepare
reference=$(tar cf - tree | md5sum) listed=$(ls -lR tree | md5sum)
sqlite3 data.db 'PRAGMA journal_mode=DELETE; create table t(k integer primary key, v text);' || fail "create table"
sqlite() {
  for i in $(seq 8); do
    sqlite3 data.db "begin; insert into t(v) select hex(randomblob(200)) from t limit 50; insert into t(v) values('run $1.$i'); commit;" || return 1
  done
  [ "$(sqlite3 data.db 'PRAGMA integrity_check')" = ok ] && [ "$(sqlite3 data.db "select count(*) from t where v like 'run $1.%'")" = 8 ]
}
rename() {
  for i in $(seq 30); do
    mv dirs/x dirs/y && [ "$(cat dirs/y/deep/file)" = inside ] && mv dirs/y/deep dirs/deep && mv dirs/deep dirs/y/deep && mv dirs/y dirs/x || return 1
  done
}
tar() { [ "$(command tar cf - tree 2> /host/tar.err | md5sum)" = "$reference" ] && [ ! -s /host/tar.err ] || { cat /host/tar.err; return 1; }; }
list() { for i in $(seq 5); do [ "$(ls -lR tree | md5sum)" = "$listed" ] || { echo "listing changed"; return 1; }; done; }
every sqlite rename tar list
sums
"#;

struct Guest {
    child: Child,
    share: PathBuf,
    name: &'static str,
}

/// A tree to untar and to clone: this project's own sources will do.
fn material(share: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = "set -e; mkdir src; cp -r \"$1\"/src \"$1\"/docs \"$1\"/journal-format/src src/; ln -s nowhere src/link; \
        ln src/docs/design.md src/second-name; chmod -R u+w src; tar cf src.tar src; git init -q work; cp -r src work/; \
        cd work; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm one; cd ..; \
        git clone -q --bare work repo.git; git config --global --get-all safe.directory >/dev/null || true; rm -rf work";
    let status = Command::new("bash").args(["-c", script, "material"]).arg(here).current_dir(share).status().unwrap();
    assert!(status.success(), "git and tar are needed: tests/support/realclient/setup --uml --tools");
}

fn guest(name: &'static str, service: &Service, dir: &Path, export: &str, script: &str) -> Guest {
    let share = dir.join(format!("share-{name}"));
    std::fs::create_dir(&share).unwrap();
    material(&share);
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/realclient/run");
    let out = std::fs::File::create(share.join("output")).unwrap();
    let child = tokio::process::Command::new(run)
        .args(["--port", &service.nfs.port().to_string(), "--export", export, "--timeout", "500"])
        .args(["--kind", "uml", "--mem", "768", "--mount-opts", "timeo=50", "--share"])
        .arg(format!("{}:rw", share.display()))
        .args(["GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "--"])
        .arg(format!("me={name}\n{PRELUDE}\n{script}"))
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
        let failed = self.share.join(format!("failed.{}", self.name)).exists();
        let ended = self.child.try_wait().unwrap();
        assert!(!failed && ended.is_none(), "guest {}: {ended:?}\n{}", self.name, self.output());
    }

    /// Until each kind of command has ended a run after `since`.
    async fn all_ran(&mut self, kinds: &str) {
        for kind in kinds.split(' ') {
            let _ = std::fs::remove_file(self.share.join(format!("ran.{kind}")));
        }
        let begun = Instant::now();
        while !kinds.split(' ').all(|k| self.share.join(format!("ran.{k}")).exists()) {
            self.must_be_well();
            assert!(begun.elapsed() < Duration::from_secs(120), "guest {} hangs:\n{}", self.name, self.output());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn finish(&mut self) {
        let status = tokio::time::timeout(Duration::from_secs(180), self.child.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "guest {}: {status}\n{}", self.name, self.output());
    }

    /// What the client summed up, against the live side as it is read from outside.
    fn check_sums(&self, side: &Path) {
        let (sums, list) = (format!("sums.{}", self.name), format!("list.{}", self.name));
        let script = "set -e; md5sum --quiet -c \"$1\"; find . -mindepth 1 \\( -type d -printf '%P %y %m\\n' -o \
            -printf '%P %y %m %s %T@ %l\\n' \\) | LC_ALL=C sort | diff \"$2\" -";
        let out = Command::new("bash")
            .args(["-c", script, "sums"])
            .args([self.share.join(&sums), self.share.join(&list)])
            .current_dir(side.join(self.name))
            .output()
            .unwrap();
        let lines = std::fs::read_to_string(self.share.join(sums)).unwrap().lines().count();
        assert!(lines > 100, "only {lines} sums");
        assert!(out.status.success(), "guest {}: {}", self.name, String::from_utf8_lossy(&out.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_client_works_on_through_three_moves_and_every_side_is_what_it_must_be() {
    let dir = Dir::new();
    for sub in ["service", "old", "old/tree", "new"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let side = |filer: &str, sub: &str| dir.path().join(filer).join(sub);
    let sides = [side("old", "tree"), side("new", "tree"), side("old", "back"), side("new", "again")];
    let mut service = Service::new(&exe(), &dir.path().join("service"), 64 << 20).unwrap();
    service.start().await.unwrap();
    let shadow = Arc::new(Mutex::new(Shadow::new(dir.path().join("shadow"), sides.to_vec())));
    let hooked = shadow.clone();
    let observer = Observer::start_with(
        &service.journal(),
        Box::new(move |event, bulk, lsn, time| hooked.lock().unwrap().take(event, bulk, lsn, time)),
    );
    for filer in ["old", "new"] {
        let url = format!("posix://{}", dir.path().join(filer).display());
        service.tain(&["filer", "add", filer, &url]).await.unwrap();
    }
    service.tain(&["junction", "add", "/projects/demo", "old:/tree"]).await.unwrap();
    let mut a = guest("a", &service, dir.path(), "/", GUEST_A);
    let mut b = guest("b", &service, dir.path(), "/projects/demo", GUEST_B);
    a.all_ran(KINDS_A).await;
    b.all_ran(KINDS_B).await;
    for to in ["new:/tree", "old:/back", "new:/again"] {
        let job = service.tain(&["move", "create", "/projects/demo", to]).await.unwrap();
        let (begun, mut state) = (Instant::now(), String::new());
        while state != "completed" {
            a.must_be_well();
            b.must_be_well();
            state = service.job_state(&job).await.unwrap();
            let errors = service.tain(&["job", "errors", &job]).await.unwrap();
            assert!(state != "paused" && begun.elapsed() < Duration::from_secs(200), "{to}: {state}: {errors}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{to}: completed after {:?}", begun.elapsed());
        a.all_ran(KINDS_A).await;
        b.all_ran(KINDS_B).await;
    }
    for guest in [&a, &b] {
        std::fs::write(guest.share.join("stop"), "").unwrap();
    }
    a.finish().await;
    b.finish().await;
    service.stop().await.unwrap();
    observer.settle().unwrap();
    for guest in [&a, &b] {
        guest.check_sums(&sides[3]);
    }
    let mut shadow = shadow.lock().unwrap();
    shadow.compare(&sides[3]);
    assert!(shadow.bad.is_empty(), "{} differences: {:#?}", shadow.bad.len(), &shadow.bad[..shadow.bad.len().min(10)]);
    assert_eq!(shadow.switches.len(), 3);
    for kind in KINDS_A.split(' ').chain(KINDS_B.split(' ')) {
        let spans = spans(&shadow, kind);
        println!("{kind}: {spans} of 3 switches fell into a run of it");
        assert!(spans > 0, "no run of {kind} spans a switch");
    }
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
