//! What of an object a copy carries beside its bytes.

use super::*;
use crate::filer::Object;

async fn made(filer: &Gated, name: &str, what: What, xattr: &[u8], atime: Time) -> Object {
    let filer = &filer.filer;
    let root = filer.root().await.unwrap();
    let attrs = MakeAttrs { mode: 0o640, uid: 7, gid: 8, inherits: false };
    let object = filer.make(&root, name.as_bytes(), &what, attrs).await.unwrap();
    if !xattr.is_empty() {
        filer.set_xattr(&object, b"user.colour", xattr).await.unwrap();
    }
    let times = Changes { atime: Some(atime), mtime: Some(Time(5_000_000_000)), ..Changes::default() };
    filer.set(&object, times).await.unwrap();
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_times_attributes_owners_and_device_numbers_are_carried() {
    let mut w = World::new(&["a", "b"]).await;
    let (file, dir) = (Time(1_000_000_000), Time(2_000_000_000));
    made(w.filer("a"), "old", What::File, b"green", file).await;
    made(w.filer("a"), "dir", What::Dir, b"blue", dir).await;
    made(w.filer("a"), "device", What::Char { major: 10, minor: 229 }, b"", Time(3)).await;
    w.junction("a", 1, b"of a").await;
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    let copy = &w.filer("b").filer;
    let root = copy.root().await.unwrap();
    for (name, colour, atime) in [("old", &b"green"[..], file), ("dir", b"blue", dir), ("device", b"", Time(3))] {
        let object = copy.lookup(&root, name.as_bytes()).await.unwrap();
        let stat = copy.stat(&object).await.unwrap();
        assert_eq!((stat.mode & 0o7777, stat.uid, stat.gid), (0o640, 7, 8), "{name}");
        assert_eq!((stat.atime, stat.mtime), (atime, Time(5_000_000_000)), "{name}");
        let xattrs = copy.xattrs(&object).await.unwrap();
        let wanted: Vec<_> =
            Some((b"user.colour".to_vec(), colour.to_vec())).filter(|_| !colour.is_empty()).into_iter().collect();
        assert_eq!(xattrs, wanted, "{name}");
        assert_eq!(stat.rdev, if name == "device" { (10, 229) } else { (0, 0) }, "{name}");
    }
    w.stop().await;
}
