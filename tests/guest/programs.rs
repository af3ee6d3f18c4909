//! Programs that people run, on the mount of a real kernel client with its default options, locks included: Git, SQLite,
//! rsync, fio, stress-ng, and two clients in one directory. Each once plainly; then the quick ones while the junction
//! moves, the service is killed in the midst of the move, and killed again behind the switch. They notice nothing.

use super::locks::{Rpcbind, STEP, guest};
use super::support::{Dir, exe};
use super::{Guest, Service};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the whole test: it hangs then, however busy the machine is.
const LONGEST: Duration = Duration::from_secs(2400);
const SCRIPT: &str = include_str!("programs.sh");
/// Rounds of two clients in one directory: plainly, and while the junction moves.
const SHARED: usize = 40;
const MOVED: usize = 120;
const KINDS: &str = "repository database synchronised verified stressed";
/// Of stress-ng, those that are done in seconds; `TAIN_STRESS_S` runs all of them, so many seconds each.
const STRESSORS: &str = "access chmod dentry dir dirmany fcntl filename flock fstat getdent hdd io locka lockf lockofd mknod \
    open rename seek touch utime";
const MORE_STRESSORS: &str = "chdir chown dirdeep fallocate fpunch iomix link symlink sync-file verity";

#[tokio::test(flavor = "multi_thread")]
async fn programs_notice_no_difference_from_a_disk_nor_a_move_nor_a_kill() {
    let (mut whole, longest) = (std::pin::pin!(programs()), LONGEST + stress_takes());
    tokio::select! {
        () = &mut whole => {}
        () = tokio::time::sleep(longest) => panic!("not ended after {longest:?}"),
    }
}

/// What all stressors take longer than those that are done in seconds, with what they clean up.
fn stress_takes() -> Duration {
    let seconds = std::env::var("TAIN_STRESS_S").map_or(0, |seconds| seconds.parse::<u32>().unwrap() + 60);
    let stressors = STRESSORS.split(' ').count() + MORE_STRESSORS.split(' ').count();
    Duration::from_secs(u64::from(seconds)) * u32::try_from(stressors).unwrap()
}

async fn programs() {
    let (begun, dir) = (Instant::now(), Dir::new());
    let at = |sub: &str| dir.path().join(sub);
    for sub in ["service", "old", "old/tree", "new"] {
        std::fs::create_dir(at(sub)).unwrap();
    }
    let _rpcbind = Rpcbind::start();
    let mut service = Service::new(&exe(), &at("service"), 64 << 20).unwrap();
    let config = std::fs::read_to_string(service.config()).unwrap();
    std::fs::write(service.config(), config.replace("[nfs]\n", "[nfs]\nrpcbind = true\ngrace = 30\n")).unwrap();
    service.start().await.unwrap();
    for filer in ["old", "new"] {
        service.tain(&["filer", "add", filer, &format!("posix://{}", at(filer).display())]).await.unwrap();
    }
    service.tain(&["junction", "add", "/projects", "old:/tree"]).await.unwrap();
    let status = service.json(&["status"]).await.unwrap();
    assert_eq!(status["problems"].as_array().unwrap().len(), 0, "locks would not be found: {}", status["problems"]);
    let kinds = std::env::var("TAIN_PROGRAMS").unwrap_or_else(|_| KINDS.into());
    let stress = std::env::var("TAIN_STRESS_S").map_or_else(
        |_| format!("STRESS_S=2 STRESS_OPS=10 STRESSORS='{STRESSORS}'"),
        |seconds| format!("STRESS_S={seconds} STRESS_OPS=1000000 STRESSORS='{STRESSORS} {MORE_STRESSORS}'"),
    );
    let script = format!("KINDS='{kinds}' SHARED={SHARED} MOVED={MOVED} scratch=/dev/shm {stress}\n{SCRIPT}");
    let mut a = guest("a", &service, dir.path(), LONGEST + stress_takes(), &script);
    for kind in kinds.split(' ') {
        a.says_within(&format!("did.{kind}"), STEP + stress_takes()).await;
    }
    println!("{:?}: each program has run", begun.elapsed());

    for sub in ["shared", "moved"] {
        std::fs::create_dir(at("old/tree").join(sub)).unwrap();
    }
    let mut guests = [a, guest("b", &service, dir.path(), LONGEST, &script)];
    guests[1].says("here").await;
    together(&mut guests, "together", "together.done").await;
    add_up(&guests, &at("old/tree/shared"), SHARED);
    println!("{:?}: two clients in one directory", begun.elapsed());

    guests.iter().for_each(|guest| std::fs::remove_file(guest.share.join("won")).unwrap());
    guests.iter().for_each(|guest| guest.say("again"));
    guests[0].says("repository").await;
    let job = service.tain(&["move", "create", "/projects", "new:/tree"]).await.unwrap();
    let mut state = "starting".to_owned();
    while state == "starting" {
        state = service.job_state(job.trim()).await.unwrap();
    }
    println!("{:?}: killed while the move is {state}", begun.elapsed());
    assert_ne!(state, "completed", "the move had come to its switch before the kill");
    restart(&mut service, &mut guests, 1).await;
    switched(&service, &mut guests, job.trim()).await;
    guests[0].say("switched");
    println!("{:?}: switched", begun.elapsed());
    guests[0].says("database").await;
    restart(&mut service, &mut guests, 2).await;
    together(&mut guests, "on", "all.done").await;
    add_up(&guests, &at("new/tree/moved"), MOVED);
    println!("{:?}: each program has run through it", begun.elapsed());
    for guest in &mut guests {
        guest.say("stop");
        guest.finish().await;
    }
    service.stop().await.unwrap();
    println!("guest a said:\n{}", guests[0].output());
}

/// Both are told to, and do it.
async fn together(guests: &mut [Guest; 2], say: &str, says: &str) {
    guests.iter().for_each(|guest| guest.say(say));
    for guest in guests {
        guest.says(says).await;
    }
}

/// The service dies and comes back, and its clients hear of it.
async fn restart(service: &mut Service, guests: &mut [Guest; 2], number: usize) {
    service.kill().await.unwrap();
    service.start().await.unwrap();
    guests.iter().for_each(|guest| guest.say(&format!("restarted.{number}")));
    for guest in guests {
        guest.says(&format!("told.{number}")).await;
    }
}

async fn switched(service: &Service, guests: &mut [Guest; 2], job: &str) {
    let begun = Instant::now();
    loop {
        let state = service.job_state(job).await.unwrap();
        if state == "completed" {
            return;
        }
        guests.iter_mut().for_each(Guest::must_be_well);
        assert!(!["paused", "aborted", "stopped"].contains(&&state[..]), "the move is {state}");
        assert!(begun.elapsed() < STEP, "the move does not end: {state}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What is in the directory is what both did in it, as the filer has it.
fn add_up(guests: &[Guest; 2], dir: &Path, rounds: usize) {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut due: BTreeSet<String> = ["count", "log", "over", "own.a", "own.b"].map(String::from).into();
    let mut won = BTreeSet::new();
    for guest in guests {
        let me = guest.name;
        for i in 1..=rounds {
            if i % 2 == 0 {
                due.insert(format!("{me}.{i}.kept"));
                assert_eq!(read(&format!("{me}.{i}.kept")), format!("{me} {i}\n"));
            }
            due.extend([format!("excl.{i}"), format!("link.{i}"), format!("dir.{i}")]);
        }
        for prize in std::fs::read_to_string(guest.share.join("won")).unwrap().lines() {
            assert!(won.insert(prize.to_owned()), "{prize} was won twice");
            let by = if prize.starts_with("dir") { format!("{prize}/by") } else { prize.to_owned() };
            assert_eq!(read(&by), format!("{me}\n"), "{prize} is not its winner's");
        }
    }
    let there: BTreeSet<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, due);
    assert_eq!(won.len(), rounds * 3, "of what there was to win: {won:?}");
    let over = read("over");
    assert!([format!("a {rounds}\n"), format!("b {rounds}\n")].contains(&over), "over: {over}");
    // Under the lock: each line once, none lost, each with the count that it found.
    let log = read("log");
    let numbers: Vec<usize> = log.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=rounds * 2).collect::<Vec<_>>(), "{log}");
    let lines: BTreeSet<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines.len(), rounds * 2, "{log}");
    assert_eq!(read("count"), (rounds * 2).to_string());
}
