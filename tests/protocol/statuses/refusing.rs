//! The rows of [`BY_FILER`]: what is the filer's to refuse, with a filer that does.

use super::faulty::{DIR, EVERYWHERE, Faulty};
use super::rows::all;
use super::*;
use crate::support::{Served, expect, name};
use std::sync::atomic::Ordering;
use tain::demo::nfs::{Fh, How, SetAttrs};

struct World {
    s: Served,
    faulty: Faulty,
    root: Fh,
    dir: Fh,
    file: Fh,
    symlink: Fh,
    list: Fh,
    plus: Fh,
}

async fn world() -> World {
    let s = Served::new().await;
    let faulty = Faulty::mount(&s.dir);
    let url = format!("posix://{}", faulty.path().display());
    s.service.tain(&["filer", "add", "three", &url]).await.unwrap();
    s.service.tain(&["junction", "add", "/faulty", "three:/export"]).await.unwrap();
    let root = s.client.mount(b"/faulty").await.unwrap().unwrap();
    let at = async |n: &str| s.ok(Call::Lookup { dir: root.clone(), name: name(n) }).await.fh.unwrap();
    let (dir, file, symlink) = (at("dir").await, at("file").await, at("symlink").await);
    let (list, plus) = (at("list").await, at("plus").await);
    // What is renamed and removed has been met.
    s.ok(Call::Lookup { dir: dir.clone(), name: name("in") }).await;
    World { root: root.clone(), s, faulty, dir, file, symlink, list, plus }
}

impl World {
    /// The call of a procedure that the filer is asked to carry out.
    fn call(&self, procedure: u32) -> Call {
        let (root, dir, file) = (self.root.clone(), self.dir.clone(), self.file.clone());
        match procedure {
            SETATTR => Call::SetAttr { node: file, attrs: SetAttrs::size(7), guard: None },
            WRITE => Call::Write { node: file, offset: 0, stable: 2, data: name("data") },
            CREATE => Call::Create { dir, name: name("new"), how: How::Guarded(SetAttrs::mode(0o600)) },
            REMOVE => Call::Remove { dir: root, name: name("file") },
            RMDIR => Call::RmDir { dir: root, name: name("empty") },
            RENAME => Call::Rename { from: root, name: name("file"), to: dir, new: name("new") },
            LINK => Call::Link { node: file, dir, name: name("new") },
            READLINK => Call::ReadLink { node: self.symlink.clone() },
            READ => Call::Read { node: file, offset: 0, count: 1 },
            READDIR => Call::ReadDir { dir: self.list.clone(), cookie: 0, verf: [0; 8], count: 4096 },
            READDIRPLUS => {
                let (dir, cookie, verf) = (self.plus.clone(), 0, [0; 8]);
                Call::ReadDirPlus { dir, cookie, verf, dircount: 4096, maxcount: 4096 }
            }
            other => all(&dir).into_iter().find(|c| c.number() == other).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filer_refuses_is_told_by_its_own_name_with_attributes_and_changes_nothing() {
    let w = world().await;
    let errors = w.faulty.errors.clone();
    let mut proven = 0;
    for (status, errno, procedures) in BY_FILER {
        for procedure in procedures {
            let call = w.call(*procedure);
            let (of, shows) = match *procedure {
                // These ask for nothing but attributes, of which there are none then.
                GETATTR | ACCESS | COMMIT => (&errors.stat, false),
                LOOKUP | READLINK | READ | READDIR | READDIRPLUS => (&errors.look, true),
                FSSTAT => (&errors.look, false),
                _ => (&errors.change, true),
            };
            of.store(errno, Ordering::SeqCst);
            let reply = expect(&w.s.client, call.clone(), status).await;
            of.store(0, Ordering::SeqCst);
            assert!(!shows || attributes(&call, &reply).iter().all(Option::is_some), "{call:?}: {reply:?}");
            proven += 1;
        }
    }
    println!("{proven} rows by a filer that refuses");
    assert_eq!(proven, by_filer().len());
    for n in ["dir", "file", "symlink", "list", "plus", "empty"] {
        w.s.ok(Call::Lookup { dir: w.root.clone(), name: name(n) }).await;
    }
    expect(&w.s.client, Call::Lookup { dir: w.dir.clone(), name: name("new") }, NOENT).await;
}

/// A file system without case can be no location. Of a directory that is so by itself clients see what it lists, and by no
/// other name.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_has_no_second_name_where_the_filer_takes_two_for_one() {
    let s = Served::new().await;
    let faulty = Faulty::mount(&s.dir);
    faulty.folds.store(EVERYWHERE, Ordering::SeqCst);
    let url = format!("posix://{}", faulty.path().display());
    s.service.tain(&["filer", "add", "three", &url]).await.unwrap();
    let check = s.service.tain(&["filer", "check", "three"]).await.unwrap();
    assert!(check.contains("names that differ in case are one name in this directory"), "{check}");
    let junction = ["junction", "add", "/faulty", "three:/export"];
    let refused = s.service.tain(&junction).await.unwrap_err().to_string();
    assert!(refused.contains("three:/export takes names for one that differ in case"), "{refused}");

    faulty.folds.store(DIR, Ordering::SeqCst);
    let check = s.service.tain(&["filer", "check", "three"]).await.unwrap();
    assert!(!check.contains("differ in case"), "{check}");
    s.service.tain(&junction).await.unwrap();
    let root = s.client.mount(b"/faulty").await.unwrap().unwrap();
    s.status(Call::Lookup { dir: root.clone(), name: name("DIR") }, NOENT).await;
    let dir = s.ok(Call::Lookup { dir: root, name: name("dir") }).await.fh.unwrap();
    assert!(faulty.path().join("export/dir/IN").exists(), "the filer has it");
    for other in ["IN", "In"] {
        s.status(Call::Lookup { dir: dir.clone(), name: name(other) }, NOENT).await;
    }
    s.ok(Call::Lookup { dir: dir.clone(), name: name("in") }).await;
    let listing = s.ok(Call::ReadDir { dir, cookie: 0, verf: [0; 8], count: 4096 }).await;
    let names: Vec<_> = listing.entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, [name("."), name(".."), name("in")]);
}

/// Unmounts at the end.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_is_not_shown_to_clients_and_is_told_of_by_a_move() {
    let s = Served::new().await;
    let at = s.export().join("dir/mounted");
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(s.export().join("dir/file"), "beside it").unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&at).status().unwrap();
    assert!(mounted.success());
    let _unmount = Mounted(at);
    let dir = s.ok(Call::Lookup { dir: s.root.clone(), name: name("dir") }).await.fh.unwrap();
    let listing = s.ok(Call::ReadDir { dir: dir.clone(), cookie: 0, verf: [0; 8], count: 4096 }).await;
    let names: Vec<_> = listing.entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, [name("."), name(".."), name("file")]);
    let mounted = || name("mounted");
    s.status(Call::Lookup { dir: dir.clone(), name: mounted() }, ACCES).await;
    s.status(Call::MkDir { dir: dir.clone(), name: mounted(), attrs: SetAttrs::mode(0o755) }, ACCES).await;
    s.ok(Call::Remove { dir: dir.clone(), name: name("file") }).await;
    s.status(Call::RmDir { dir: s.root.clone(), name: name("dir") }, NOTEMPTY).await;
    let job = s.service.tain(&["move", "create", "/a/b", "two:/copy"]).await.unwrap();
    s.service.tain(&["job", "wait", job.trim(), "--state", "paused", "--timeout", "60s"]).await.unwrap();
    let errors = s.service.tain(&["job", "errors", job.trim()]).await.unwrap();
    assert!(errors.contains("dir") && errors.contains("a file system is mounted in it"), "{errors}");
}
