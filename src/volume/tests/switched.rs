//! Readers that are under way when their junction is switched.

use super::*;
use crate::filer::{Changes, MakeAttrs};
use journal_format::event::{FilerAdded, FilerFound, JobCreated, JobKind, JobState, JobStateChanged, JunctionSwitched};
use journal_format::ids::JobId;
use parking_lot::Mutex;
use std::sync::mpsc::channel;

const NEW: LocationId = LocationId(2);
const LATEST: u64 = 77;

fn spec(location: LocationId, root: &Object) -> LocationSpec {
    LocationSpec { location, filer: FilerId(location.0), subdir: vec![], root: root.id.clone() }
}

/// A move of `/data` that is about to switch. The file `f` is on both sides, in its latest state on the new one alone.
async fn about_to_switch(old: &Memory, new: &Memory) -> (World, NodeRef) {
    let w = world_of(old.clone()).await;
    let volume = w.volume;
    let ledger = Ledger::new(volume.ledger.journal.clone(), State::default(), Box::new(|_, _| {}));
    let (from, to) = (old.root().await.unwrap(), new.root().await.unwrap());
    let filer = |id: LocationId| {
        let (filer, name, url) = (FilerId(id.0), format!("f{id}"), format!("memory:///f{id}"));
        Event::FilerAdded(FilerAdded { filer, name, url, root: vec![1], found: FilerFound::default() })
    };
    let added = JunctionAdded {
        junction: J,
        path: vec![b"data".to_vec()],
        location: spec(PRIMARY, &from),
        root: ROOT,
        mtime: Time(1),
        ctime: Time(1),
    };
    let created = JobCreated {
        job: JobId(1),
        kind: JobKind::Move,
        junction: J,
        source: PRIMARY,
        destination: spec(NEW, &to),
        stopped: true,
        notes: String::new(),
    };
    let mut events = vec![filer(PRIMARY), filer(NEW), Event::JunctionAdded(added), Event::JobCreated(created)];
    for to in [JobState::Starting, JobState::Moving, JobState::Synchronized, JobState::Transitioning] {
        events.push(Event::JobStateChanged(JobStateChanged { job: JobId(1), to, reason: String::new() }));
    }
    for event in events {
        ledger.record(&event).await.unwrap();
    }
    let volume = Volume::new(ledger, volume.live, volume.locations, volume.ids);
    let w = World { volume, ..w };
    let file = w.create(&root(), "f").await;
    let objects = Objects::new(Arc::new(Store::open(&w._dir.path().join("new"), 1 << 20).unwrap()));
    let attrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0, inherits: false };
    let made = new.make(&to, b"f", &What::File, attrs).await.unwrap();
    new.set(&made, Changes { size: Some(LATEST), ..Default::default() }).await.unwrap();
    for (node, object) in [(ROOT, &to), (file.node, &made)] {
        objects.store.write(objects.put(node, &object.id).unwrap());
    }
    w.volume.locations.insert(Arc::new(Location::new(NEW, ROOT, Arc::new(new.clone()), objects)));
    (w, file)
}

/// Who looks is in the old side's answer to a stat, so many stats in, when the switch comes; the size that it is told.
async fn size_across_the_switch<F: Future<Output = Option<u64>> + Send + 'static>(
    stats: usize,
    look: impl FnOnce(Volume, NodeRef) -> F,
) -> Option<u64> {
    let (old, new) = (Memory::default(), Memory::default());
    let (w, file) = about_to_switch(&old, &new).await;
    let ((called, is_called), (go_on, may_go_on)) = (channel(), channel::<()>());
    let (left, may_go_on) = (AtomicUsize::new(stats), Mutex::new(may_go_on));
    old.set_fault(Some(Box::new(move |op| {
        if op == "stat" && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            called.send(()).unwrap();
            let _ = may_go_on.lock().recv();
        }
        None
    })));
    let looking = tokio::spawn(look(w.volume.clone(), file));
    is_called.recv().unwrap();
    let switched = JunctionSwitched { junction: J, job: JobId(1), from: PRIMARY, to: NEW, epoch: 2 };
    w.volume.ledger.record(&Event::JunctionSwitched(switched)).await.unwrap();
    drop(go_on);
    let size = looking.await.unwrap();
    assert_eq!(w.volume.getattr(file).await.unwrap().size, LATEST);
    size
}

/// A size of the old side beside times of the new one would be kept by the client for the file's latest state.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_the_old_side_says_is_not_shown_with_what_the_index_says_behind_the_switch() {
    let got = size_across_the_switch(1, |volume, file| async move { Some(volume.getattr(file).await.unwrap().size) });
    assert_eq!(got.await, Some(LATEST));
    // The directory is looked at first.
    let listed = size_across_the_switch(2, |volume, _| async move {
        let room = Room::plus(1 << 16, 1 << 16, 100);
        let listing = volume.readdir(&root(), ROOT_REF, 0, 0, room, &|_| true).await.unwrap();
        let entry = listing.entries.into_iter().find(|entry| entry.name == b"f").unwrap();
        entry.attr.map(|attr| attr.size)
    });
    assert!(listed.await.is_none_or(|size| size == LATEST));
}
