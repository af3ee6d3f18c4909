//! The contract over a temporary directory, and what only this kind does.

use crate::filer::contract::{self, Ground};
use crate::filer::{registry, *};
use std::path::Path;

fn url(path: &Path) -> String {
    format!("posix://{}", path.display())
}

async fn location(path: &Path) -> Arc<dyn CoreFiler> {
    let probe = registry::probe(&url(path)).await.unwrap();
    registry::open(&url(path), &probe.root, &[], None).await.unwrap()
}

/// A new location that is a subdirectory of its export, in a directory of its own.
fn ground() -> Ground {
    let temp = tempfile::tempdir().unwrap();
    let export = temp.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let subdir = [b"a".to_vec(), b"b".to_vec()];
    let filer = std::thread::scope(|scope| {
        let open = async {
            let probe = registry::probe(&url(&export)).await.unwrap();
            registry::create_subdir(&url(&export), &probe.root, &subdir).await.unwrap();
            registry::open(&url(&export), &probe.root, &subdir, None).await.unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        scope.spawn(move || runtime.block_on(open)).join().unwrap()
    });
    let at = export.join("a/b");
    let replace_root = Box::new(move || {
        std::fs::rename(&at, at.with_extension("old")).unwrap();
        std::fs::create_dir(&at).unwrap();
    });
    Ground { filer, replace_root, keep: Box::new(temp) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_passes_the_contract() {
    contract::run(ground).await;
}

fn root_attrs(mode: u32) -> MakeAttrs {
    MakeAttrs {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        inherits: false,
    }
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map(|_| ()).expect_err("this should have been refused").kind
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn a_probe_finds_out_what_the_user_can_do_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let probe = registry::probe(&url(temp.path())).await.unwrap();
    assert_eq!((probe.found.can_chown, probe.found.can_mknod), (is_root(), is_root()));
    assert_eq!(probe.remarks.iter().any(|r| r.contains("cannot change owners")), !is_root());
    assert!(probe.found.time_granularity_ns >= 1);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    assert_eq!(registry::probe(&url(temp.path())).await.unwrap().root, probe.root);
    let missing = registry::probe(&url(&temp.path().join("none"))).await;
    assert_eq!(kind(missing), ErrorKind::NotFound);
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(kind(registry::probe(&url(&file)).await), ErrorKind::NotDir);
}

#[tokio::test]
async fn an_export_that_was_replaced_cannot_be_opened() {
    let temp = tempfile::tempdir().unwrap();
    let export = temp.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let probe = registry::probe(&url(&export)).await.unwrap();
    let filer = registry::open(&url(&export), &probe.root, &[], None).await.unwrap();
    let id = filer.root().await.unwrap().id;
    std::fs::rename(&export, temp.path().join("old")).unwrap();
    assert_eq!(kind(filer.root().await), ErrorKind::Down, "nothing is there");
    std::fs::create_dir(&export).unwrap();
    let down = filer.root().await.map(|_| ()).unwrap_err();
    assert_eq!(down.kind, ErrorKind::Down);
    assert!(down.detail.contains("is not the one that was added"), "{down}");
    assert_eq!(kind(registry::open(&url(&export), &probe.root, &[], None).await), ErrorKind::Down);
    assert_eq!(kind(registry::create_subdir(&url(&export), &probe.root, &[b"x".to_vec()]).await), ErrorKind::Down);
    // The old one under its new name is it.
    let old = url(&temp.path().join("old"));
    registry::open(&old, &probe.root, &[], Some(&id)).await.unwrap();
    assert_eq!(kind(registry::open(&old, &probe.root, &[], Some(&Identity(vec![1, 2]))).await), ErrorKind::Down);
}

#[tokio::test]
async fn a_subdirectory_is_not_reached_through_a_symlink() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(temp.path().join("export/real")).unwrap();
    std::fs::create_dir(temp.path().join("outside")).unwrap();
    std::os::unix::fs::symlink("../outside", temp.path().join("export/link")).unwrap();
    let export = url(&temp.path().join("export"));
    let probe = registry::probe(&export).await.unwrap();
    for bad in ["link", "..", "real/../link"] {
        assert!(registry::open(&export, &probe.root, &[bad.into()], None).await.is_err(), "{bad}");
    }
    assert!(registry::create_subdir(&export, &probe.root, &[b"link".to_vec(), b"x".to_vec()]).await.is_err());
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
}

#[tokio::test]
async fn directories_that_share_anything_overlap_whatever_leads_to_them() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(temp.path().join("a/b/c")).unwrap();
    std::fs::create_dir_all(temp.path().join("ab")).unwrap();
    std::os::unix::fs::symlink("a/b", temp.path().join("link")).unwrap();
    let at = |path: &str| url(&temp.path().join(path));
    let sub = |names: &[&str]| names.iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>();
    for (a, sub_a, b, sub_b, wanted) in [
        ("a", sub(&[]), "a", sub(&[]), true),
        ("a", sub(&[]), "a/b/c", sub(&[]), true),
        ("a", sub(&["b"]), "link", sub(&["c"]), true),
        ("link", sub(&[]), "a", sub(&[]), true),
        ("a", sub(&[]), "ab", sub(&[]), false),
        ("a", sub(&["new"]), "a", sub(&["new", "x"]), true),
        ("a", sub(&["new"]), "a", sub(&["newer"]), false),
        ("a", sub(&["new"]), "a", sub(&["b"]), false),
    ] {
        for ((a, sub_a), (b, sub_b)) in [((a, &sub_a), (b, &sub_b)), ((b, &sub_b), (a, &sub_a))] {
            let found = registry::overlaps(&at(a), sub_a, &at(b), sub_b).await.unwrap();
            assert_eq!(found, wanted, "{a} {sub_a:?} and {b} {sub_b:?}");
        }
    }
}

#[tokio::test]
async fn objects_stay_usable_when_there_are_more_than_descriptors_are_kept_for() {
    use super::node::Limits;
    use super::tree::{Place, Tree, node, object};
    let temp = tempfile::tempdir().unwrap();
    let probe = registry::probe(&url(temp.path())).await.unwrap();
    let place = Place { path: temp.path().into(), expected_root: probe.root, subdir: Vec::new(), expected_dir: None };
    let tree = Tree::open(place, Limits { nodes_max: 8, files_max: 4 }).unwrap();
    let root = tree.root().node.clone();
    let mut held = Vec::new();
    for n in 0..50u8 {
        let made = super::names::make(&tree, &root, format!("{n}").as_bytes(), &What::File, root_attrs(0o444)).unwrap();
        super::data::write(&tree, &made, 0, &[n; 10]).unwrap();
        held.push(object(made));
        let (nodes, files) = tree.nodes.counts();
        assert!(nodes <= 8 && files <= 4, "{nodes} objects, {files} files");
    }
    for (n, object) in held.iter().enumerate() {
        let read = super::data::read(&tree, &node(object).unwrap(), 0, 100).unwrap();
        assert_eq!(read, vec![u8::try_from(n).unwrap(); 10]);
        assert!(tree.nodes.counts().1 <= 4);
    }
}

#[tokio::test]
async fn a_removed_file_gives_its_space_back_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let filer = location(temp.path()).await;
    let root = filer.root().await.unwrap();
    for name in [&b"removed"[..], b"replaced"] {
        let made = filer.make(&root, name, &What::File, root_attrs(0o644)).await.unwrap();
        let path = temp.path().join(std::str::from_utf8(name).unwrap());
        let open = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            all.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).filter(|at| at.starts_with(&path)).count()
        };
        filer.write(&made, 0, Bytes::from_static(b"x")).await.unwrap();
        drop(made);
        assert!(open() > 0, "kept for the next call");
        if name == b"removed" {
            filer.remove(&root, name).await.unwrap();
        } else {
            filer.make(&root, b"other", &What::File, root_attrs(0o644)).await.unwrap();
            filer.rename(&root, b"other", &root, name).await.unwrap();
        }
        let deleted = std::path::PathBuf::from(format!("{} (deleted)", path.display()));
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = all.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        assert_eq!(links.filter(|at| *at == deleted).count(), 0);
    }
}

#[tokio::test]
async fn a_default_acl_of_the_directory_changes_nothing_of_what_is_made() {
    let temp = tempfile::tempdir().unwrap();
    let filer = location(temp.path()).await;
    let root = filer.root().await.unwrap();
    // u::rwx u:1:rwx g::rwx m::rwx o::rwx as the kernel keeps it: version 2, then tag, permissions, id each.
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, id) in [(1u16, u32::MAX), (2, 1), (4, u32::MAX), (16, u32::MAX), (32, u32::MAX)] {
        acl.extend(tag.to_le_bytes());
        acl.extend(7u16.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    match filer.set_xattr(&root, b"system.posix_acl_default", &acl).await {
        Err(e) if e.kind == ErrorKind::NotSupported => return,
        other => other.unwrap(),
    }
    assert_eq!(filer.xattrs(&root).await.unwrap().len(), 1);
    for (name, what) in [(&b"f"[..], What::File), (b"d", What::Dir), (b"p", What::Fifo)] {
        let made = filer.make(&root, name, &what, root_attrs(0o705)).await.unwrap();
        assert_eq!(filer.stat(&made).await.unwrap().mode, 0o705);
        assert!(filer.xattrs(&made).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_ordinary_users_lent_mode_is_never_seen() {
    if is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let filer = location(temp.path()).await;
    let root = filer.root().await.unwrap();
    let closed = filer.make(&root, b"closed", &What::Dir, root_attrs(0o500)).await.unwrap();
    let other = filer.clone();
    let dir = closed.clone();
    let busy = tokio::spawn(async move {
        for n in 0..300 {
            other.make(&dir, format!("{n}").as_bytes(), &What::File, root_attrs(0o400)).await.unwrap();
        }
    });
    let mut modes = 0;
    while !busy.is_finished() {
        assert_eq!(filer.stat(&closed).await.unwrap().mode, 0o500);
        modes += 1;
    }
    busy.await.unwrap();
    assert!(modes > 0);
}

/// Mounts, and unmounts at the end.
#[cfg(feature = "privileged-tests")]
struct Mounted(std::path::PathBuf);

#[cfg(feature = "privileged-tests")]
impl Mounted {
    fn new(args: &[&str], at: &Path) -> Self {
        let status = std::process::Command::new("mount").args(args).arg(at).status().unwrap();
        assert!(status.success());
        Self(at.to_path_buf())
    }
}

#[cfg(feature = "privileged-tests")]
impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[cfg(feature = "privileged-tests")]
#[tokio::test]
async fn a_mount_point_below_the_root_is_not_crossed() {
    let temp = tempfile::tempdir().unwrap();
    let filer = location(temp.path()).await;
    let root = filer.root().await.unwrap();
    for name in [&b"mounted"[..], b"plain"] {
        filer.make(&root, name, &What::Dir, root_attrs(0o755)).await.unwrap();
    }
    let _mount = Mounted::new(&["-t", "tmpfs", "none"], &temp.path().join("mounted"));
    assert_eq!(kind(filer.lookup(&root, b"mounted").await), ErrorKind::CrossDevice);
    assert_eq!(kind(filer.rmdir(&root, b"mounted").await), ErrorKind::Busy);
    filer.lookup(&root, b"plain").await.unwrap();
}

#[cfg(feature = "privileged-tests")]
#[tokio::test]
async fn a_file_system_mounted_anew_fails_the_next_sync_and_an_unmounted_one_is_down() {
    let temp = tempfile::tempdir().unwrap();
    let (disk, export) = (temp.path().join("disk"), temp.path().join("export"));
    std::fs::create_dir_all(&export).unwrap();
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(64 << 20).unwrap();
    let made = std::process::Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status().unwrap();
    assert!(made.success());
    let mount = || Mounted::new(&["-o", "loop", disk.to_str().unwrap()], &export);
    let first = mount();
    let probe = registry::probe(&url(&export)).await.unwrap();
    let filer = registry::open(&url(&export), &probe.root, &[], None).await.unwrap();
    let root = filer.root().await.unwrap();
    let made = filer.make(&root, b"a", &What::File, root_attrs(0o644)).await.unwrap();
    filer.sync().await.unwrap();
    drop(first);
    assert_eq!(kind(filer.root().await), ErrorKind::Down);
    // A lazy unmount leaves the old mount to those who hold it; only when they let go can the disk be mounted again.
    drop((filer, root));
    let id = made.id.clone();
    drop(made);
    let _again = mount();
    let filer = registry::open(&url(&export), &probe.root, &[], None).await.unwrap();
    let root = filer.root().await.unwrap();
    assert_eq!(filer.lookup(&root, b"a").await.unwrap().id, id, "an identity outlives a mount");
    assert!(filer.by_identity(&id).await.unwrap().is_some());
    filer.sync().await.unwrap();
    // Mounted over with itself: the same directory by another mount.
    let _over = Mounted::new(&["--bind", export.to_str().unwrap()], &export);
    filer.root().await.unwrap();
    assert_eq!(kind(filer.sync().await), ErrorKind::Io);
    filer.sync().await.unwrap();
}

#[cfg(feature = "privileged-tests")]
#[tokio::test]
async fn a_directory_with_casefold_says_that_it_takes_names_for_one_and_so_does_what_is_made_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let (disk, export) = (temp.path().join("disk"), temp.path().join("export"));
    std::fs::create_dir_all(&export).unwrap();
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let done = |command: &mut std::process::Command| command.status().unwrap().success();
    assert!(done(std::process::Command::new("mkfs.ext4").args(["-q", "-F", "-O", "casefold"]).arg(&disk)));
    if !done(std::process::Command::new("mount").args(["-o", "loop"]).args([&disk, &export])) {
        eprintln!("SKIPPED: this kernel has no ext4 with casefold (CONFIG_UNICODE)");
        return;
    }
    let _mounted = Mounted(export.clone());
    for dir in ["plain", "folds"] {
        std::fs::create_dir(export.join(dir)).unwrap();
    }
    assert!(done(std::process::Command::new("chattr").arg("+F").arg(export.join("folds"))));
    std::fs::create_dir(export.join("folds/below")).unwrap();
    let probe = registry::probe(&url(&export)).await.unwrap();
    assert!(!probe.remarks.iter().any(|remark| remark.contains("differ in case")));
    let filer = registry::open(&url(&export), &probe.root, &[], None).await.unwrap();
    let root = filer.root().await.unwrap();
    let dir = async |dir, name: &[u8]| filer.lookup(dir, name).await.unwrap();
    let (plain, folds) = (dir(&root, b"plain").await, dir(&root, b"folds").await);
    let below = dir(&folds, b"BELOW").await;
    let mut said = Vec::new();
    for dir in [&root, &plain, &folds, &below, &folds] {
        said.push(filer.folds_names(dir).await.unwrap());
    }
    assert_eq!(said, [false, false, true, true, true]);
    assert_eq!(kind(exact::lookup(filer.as_ref(), &folds, b"BELOW").await), ErrorKind::NotFound);
    exact::lookup(filer.as_ref(), &folds, b"below").await.unwrap();
    let location = registry::open(&url(&export), &probe.root, &[b"folds".to_vec()], None).await.unwrap();
    assert!(location.folds_names(&location.root().await.unwrap()).await.unwrap());
    assert!(location.folds_names(&location.pen().await.unwrap()).await.unwrap());
}

#[cfg(feature = "privileged-tests")]
#[tokio::test]
async fn a_bind_mount_overlaps_what_it_shows() {
    let temp = tempfile::tempdir().unwrap();
    for dir in ["a/b/c", "elsewhere", "other"] {
        std::fs::create_dir_all(temp.path().join(dir)).unwrap();
    }
    let b = temp.path().join("a/b");
    let _mount = Mounted::new(&["--bind", b.to_str().unwrap()], &temp.path().join("elsewhere"));
    let at = |path: &str| url(&temp.path().join(path));
    for (path, wanted) in [("a", true), ("a/b", true), ("a/b/c", true), ("other", false)] {
        assert_eq!(registry::overlaps(&at("elsewhere"), &[], &at(path), &[]).await.unwrap(), wanted, "{path}");
        assert_eq!(registry::overlaps(&at(path), &[], &at("elsewhere"), &[]).await.unwrap(), wanted, "{path}");
    }
}

/// Nor did nothing happen: in an append-only directory names come and do not go.
#[cfg(feature = "privileged-tests")]
#[test]
fn what_can_neither_be_finished_nor_taken_away_again_is_not_called_refused() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    std::fs::create_dir(&dir).unwrap();
    let chattr = |how: &str| std::process::Command::new("chattr").arg(how).arg(&dir).status().unwrap().success();
    assert!(chattr("+a"));
    let export = temp.path().to_path_buf();
    // Of a thread; those that it starts have what it has.
    let made = std::thread::spawn(move || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::CHOWN);
        set_capabilities(None, sets).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let filer = location(&export).await;
            let dir = filer.lookup(&filer.root().await.unwrap(), b"d").await.unwrap();
            let made = filer.make(&dir, b"f", &What::File, MakeAttrs { uid: 4711, ..root_attrs(0o644) }).await;
            kind(made)
        })
    })
    .join();
    assert!(chattr("-a"));
    assert_eq!(made.unwrap(), ErrorKind::Unknown);
    assert!(dir.join("f").exists());
}

/// A kernel refuses a read that reaches past its largest offset, whatever is before it.
#[tokio::test]
async fn a_read_that_reaches_past_the_largest_offset_gives_what_is_before_it() {
    const END_MAX: u64 = i64::MAX.cast_unsigned();
    // ext4's files are smaller.
    let Ok(temp) = tempfile::tempdir_in("/dev/shm") else { return };
    let filer = location(temp.path()).await;
    let top = filer.root().await.unwrap();
    let obj = filer.make(&top, b"file", &What::File, root_attrs(0o644)).await.unwrap();
    if filer.write(&obj, END_MAX - 1, Bytes::from_static(b"x")).await.is_err() {
        return;
    }
    for (offset, count) in [(END_MAX - 4095, 4096), (END_MAX - 4095, 1 << 20), (END_MAX - 1, u32::MAX)] {
        let data = filer.read(&obj, offset, count).await.unwrap();
        assert_eq!(data.len() as u64, END_MAX - offset, "{count} bytes from {offset}");
        assert_eq!(data.last(), Some(&b'x'));
    }
    for beyond in [END_MAX, END_MAX + 1, u64::MAX] {
        assert_eq!(filer.read(&obj, beyond, 4096).await.unwrap(), Bytes::new());
    }
}

#[tokio::test]
async fn a_name_that_the_kernel_remembers_to_lead_nowhere_is_found_as_soon_as_it_leads_somewhere() {
    let temp = tempfile::tempdir().unwrap();
    let filer = location(temp.path()).await;
    let root = filer.root().await.unwrap();
    for _ in 0..20 {
        for _ in 0..2 {
            assert_eq!(kind(filer.lookup(&root, b"name").await), ErrorKind::NotFound);
        }
        // By somebody behind us.
        std::fs::write(temp.path().join("name"), b"").unwrap();
        filer.lookup(&root, b"name").await.unwrap();
        std::fs::remove_file(temp.path().join("name")).unwrap();
    }
    std::fs::create_dir(temp.path().join("dir")).unwrap();
    let dir = filer.lookup(&root, b"dir").await.unwrap();
    let file = filer.lookup(&root, b"dir/name").await;
    assert_eq!(kind(file), ErrorKind::Invalid);
    std::fs::remove_dir(temp.path().join("dir")).unwrap();
    assert_eq!(kind(filer.lookup(&dir, b"name").await), ErrorKind::NotFound);
}
