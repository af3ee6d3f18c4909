//! What only a power cut, or a disk that fails, can show.

use crate::Bug;
use crate::disk::{Disk, Faults, Fs};
use crate::journals::plant;
use crate::moves::small;
use crate::support::{Dir, client, exe, name};
use std::path::Path;
use std::time::{Duration, Instant};
use tain::demo::client::Client;
use tain::demo::content::Rng;
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};
use tain::demo::rig::Rig;
use tain::demo::service::Service;
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(120);

/// A service below `dir`, with one filer and one junction, as far as that is there already.
async fn served(dir: &Path, bug: Bug) -> (Service, Client, Fh) {
    for sub in ["service", "filer", "filer/export"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let mut service = Service::new(&exe(), &dir.join("service"), 4 << 20).unwrap();
    plant(&mut service, bug);
    service.start().await.unwrap();
    let url = format!("posix://{}", dir.join("filer").display());
    service.tain(&["filer", "add", "one", &url]).await.unwrap();
    service.tain(&["junction", "add", "/j", "one:/export"]).await.unwrap();
    let client = client(&service, 1);
    let root = client.mount(b"/j").await.unwrap().unwrap();
    client.nfs(&Call::GetAttr { node: root.clone() }).await.unwrap();
    (service, client, root)
}

fn create(root: &Fh, n: u64) -> Call {
    let how = How::Unchecked(SetAttrs::mode(0o644));
    Call::Create { dir: root.clone(), name: name(&format!("file-{n}")), how }
}

async fn kill_and_cut(service: &mut Service, disk: &mut Disk, rng: &mut Rng) {
    disk.hold();
    // Whoever answers now does so without the disk's word.
    sleep(Duration::from_millis(300)).await;
    let pid = service.pid().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    disk.die();
    service.end().await;
    tokio::task::block_in_place(|| disk.restore(0, rng));
}

/// C1, C2: what was answered is there after a power cut.
pub async fn answered_survives_a_power_cut(bug: Bug) {
    let dir = Dir::new();
    let mut disk = Disk::new(Fs::Ext4, 192 << 20, dir.path());
    let (mut service, client, root) = served(dir.path(), bug).await;
    let mut rng = Rng::new(1);
    let (mut next, mut answered) = (0, Vec::new());
    for _ in 0..2 {
        let (done, mut dones) = tokio::sync::mpsc::unbounded_channel();
        let mut writers = Vec::new();
        for writer in 0..4 {
            let (client, root, done) = (client.clone(), root.clone(), done.clone());
            writers.push(tokio::spawn(async move {
                for i in 0.. {
                    let n = next + writer + i * 4;
                    let made = client.once(&create(&root, n)).await;
                    if made.is_ok_and(|reply| reply.status == status::OK) {
                        let _ = done.send(n);
                    }
                }
            }));
        }
        let begun = Instant::now();
        while dones.len() < 30 {
            assert!(begun.elapsed() < LONG, "only {} files are made: {}", dones.len(), service.last_words());
            sleep(Duration::from_millis(2)).await;
        }
        kill_and_cut(&mut service, &mut disk, &mut rng).await;
        for writer in &writers {
            writer.abort();
        }
        while let Ok(n) = dones.try_recv() {
            answered.push(n);
            next = next.max(n + 100);
        }
        service.start().await.unwrap();
        for n in &answered {
            let found = client.nfs(&Call::Lookup { dir: root.clone(), name: name(&format!("file-{n}")) }).await;
            assert_eq!(found.unwrap().status, status::OK, "file-{n} was answered, and is lost");
        }
    }
    service.stop().await.unwrap();
}

/// C11: the first failed flush of the journal ends the service; it answers nothing on the strength of a second one.
pub async fn a_failed_flush_stops_the_service(bug: Bug) {
    let dir = Dir::new();
    std::fs::create_dir(dir.path().join("service")).unwrap();
    let disk = Disk::new(Fs::Ext4, 192 << 20, &dir.path().join("service"));
    let (mut service, client, root) = served(dir.path(), bug).await;
    assert_eq!(client.nfs(&create(&root, 0)).await.unwrap().status, status::OK);
    disk.set_faults(Faults { flush: Some((0, 1)), ..Faults::default() });
    let begun = Instant::now();
    let mut n = 1;
    while service.ended().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(5), "after {} failed flushes it goes on", disk.fired());
        let _ = tokio::time::timeout(Duration::from_millis(300), client.once(&create(&root, n))).await;
        n += 1;
    }
    assert_eq!(service.ended().unwrap().unwrap().code(), Some(70), "{}", service.last_words());
    disk.set_faults(Faults::default());
    service.start().await.unwrap();
    service.stop().await.unwrap();
}

/// C8: a step that the journal calls done is on the destination, whatever the power does.
pub async fn done_steps_survive_a_power_cut_of_the_destination(bug: Bug) {
    let dir = Dir::new();
    std::fs::create_dir(dir.path().join("b")).unwrap();
    let mut disk = Disk::new(Fs::Ext4, 192 << 20, &dir.path().join("b"));
    let mut rig = Rig::new(&exe(), dir.path(), &["a", "b"], small()).await.unwrap();
    rig.service.kill().await.unwrap();
    plant(&mut rig.service, bug);
    rig.service.start().await.unwrap();
    let lanes = rig.lanes().await.unwrap();
    let job = rig.start_move("b", "there").await.unwrap();
    // From now on a flush takes its time: what is called done before it returns is called so too early.
    disk.set_faults(Faults { flush_delay: Duration::from_millis(300), ..Faults::default() });
    let begun = Instant::now();
    while rig.observer.seen().done.is_empty() {
        assert!(begun.elapsed() < LONG, "no step is done: {}", rig.service.last_words());
        sleep(Duration::from_millis(1)).await;
    }
    kill_and_cut(&mut rig.service, &mut disk, &mut Rng::new(1)).await;
    rig.service.start().await.unwrap();
    rig.wait_completed(job, LONG).await.unwrap();
    let mut lanes = lanes;
    for lane in &mut lanes {
        lane.look_at_all().await.unwrap();
    }
    rig.service.stop().await.unwrap();
    let found = rig.verify(&rig.side("b", "there"), &lanes, None).unwrap();
    assert!(found.equal(), "the destination:\n{}", found.report());
}
