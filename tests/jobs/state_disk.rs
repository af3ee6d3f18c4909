//! The disk of the node index fills up: the service ends and says why, and nothing that it answered is lost.

use crate::support::{Dir, client, exe, name};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tain::demo::client::Client;
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};
use tain::demo::service::Service;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(180);

struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, size: &str) -> Self {
        let args = ["-t", "tmpfs", "-o", size, "none"];
        assert!(std::process::Command::new("mount").args(args).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_disk_ends_the_service_with_a_reason_and_what_was_answered_is_there_when_it_has_room_again() {
    let dir = Dir::new();
    for sub in ["service", "service/state", "filer", "filer/export"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let state = dir.path().join("service/state");
    let _mounted = Mounted::tmpfs(&state, "size=24m");
    let mut service = Service::new(&exe(), &dir.path().join("service"), 16 << 20).unwrap();
    service.start().await.unwrap();
    let url = format!("posix://{}", dir.path().join("filer").display());
    service.tain(&["filer", "add", "one", &url]).await.unwrap();
    service.tain(&["junction", "add", "/a", "one:/export"]).await.unwrap();
    let nfs = client(&service, 1);
    let root = nfs.mount(b"/a").await.unwrap().unwrap();
    let mut answered = Vec::new();
    for _ in 0..100 {
        create(&nfs, &root, &mut answered).await;
    }
    assert_eq!(answered.len(), 100);
    // All the room that is left.
    let filler = state.join("filler");
    let zeros = vec![0_u8; 64 << 10];
    let mut full = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut full, &zeros).is_ok() {}
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = service.ended().unwrap() {
            break ended;
        }
        assert!(begun.elapsed() < LONG, "it goes on on a full disk: {}", service.last_words());
        create(&nfs, &root, &mut answered).await;
    };
    assert_eq!(ended.code(), Some(70), "{}", service.last_words());
    assert!(service.last_words().contains("[state] dir"), "{}", service.last_words());
    drop(full);
    std::fs::remove_file(filler).unwrap();
    service.start().await.unwrap();
    let nfs = client(&service, 2);
    for new in &answered {
        let reply = nfs.nfs(&Call::Lookup { dir: root.clone(), name: name(new) }).await.unwrap();
        assert_eq!(reply.status, status::OK, "{new}");
    }
    service.stop().await.unwrap();
}

/// One more file, if the service answers.
async fn create(nfs: &Client, dir: &Fh, answered: &mut Vec<String>) {
    let new = format!("{:0200}", answered.len());
    let how = How::Guarded(SetAttrs::mode(0o600));
    let call = Call::Create { dir: dir.clone(), name: name(&new), how };
    // When the service has gone the client would wait for it.
    match tokio::time::timeout(Duration::from_secs(2), nfs.nfs(&call)).await {
        Ok(Ok(reply)) if reply.status == status::OK => answered.push(new),
        _ => {}
    }
}
