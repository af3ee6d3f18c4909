//! What new objects have of their directory's default ACL, after a crash.

use super::*;
use crate::filer::AclKind;
use crate::location::tests::named_user;

const USER: u64 = 7;

impl World {
    /// A directory `d` that hands on an ACL, on the filer and durable.
    async fn with_acl() -> Self {
        let mut world = Self::new().await;
        world.make(ROOT, "d", USER, What::Dir).await;
        world.settle().await;
        let d = world.at("d").await;
        world.put(&d, AclKind::Default, &named_user(7, 7)).await;
        world.filer.sync().await.unwrap();
        world
    }

    async fn at(&self, path: &str) -> Object {
        let mut at = self.top().await;
        for name in path.split('/') {
            at = self.filer.lookup(&at, name.as_bytes()).await.unwrap();
        }
        at
    }

    async fn put(&self, object: &Object, which: AclKind, acl: &[u8]) {
        self.filer.set_xattr(object, which.xattr().as_bytes(), acl).await.unwrap();
    }

    /// Mode, access ACL and default ACL.
    async fn all(&self, path: &str) -> (u32, Option<Bytes>, Option<Bytes>) {
        let object = self.at(path).await;
        let acl = async |which| self.filer.acl(&object, which).await.unwrap();
        let mode = self.filer.stat(&object).await.unwrap().mode;
        (mode, acl(AclKind::Access).await, acl(AclKind::Default).await)
    }

    async fn made(&self, dir: u64, name: &str, node: u64, what: What) {
        let Event::Make(made) = make(NodeId(dir), name, node, what) else { unreachable!() };
        self.say(Event::Make(Make { mode: 0o770, ..made }), b"").await;
    }

    /// The operation as clients had it answered: on the filer, and its identity known.
    async fn carried_out(&self, dir: u64, at: &str, name: &str, node: u64, what: What) -> Object {
        self.made(dir, name, node, what.clone()).await;
        let attrs = MakeAttrs { mode: 0o770, inherits: true, ..ATTRS };
        let object = self.filer.make(&self.at(at).await, name.as_bytes(), &what, attrs).await.unwrap();
        let objects = vec![(NodeId(node), object.id.clone())];
        self.say(Event::Made(Made { location: L, objects }), b"").await;
        object
    }
}

fn inherited() -> (u32, Option<Bytes>, Option<Bytes>) {
    let acl = |named, mask| Some(Bytes::from(named_user(named, mask)));
    (0o770, acl(7, 7), acl(7, 7))
}

#[tokio::test]
async fn what_was_made_in_a_directory_that_is_gone_again_has_the_acl_that_this_would_have_handed_on() {
    let mut world = World::with_acl().await;
    world.made(USER, "sub", 8, What::Dir).await;
    world.made(8, "deep", 9, What::Dir).await;
    world.made(9, "x", 10, What::Dir).await;
    let away = |from: u64, name: &str, node: u64, to: &str| {
        Event::Rename(Rename {
            junction: J,
            location: L,
            from_dir: NodeId(from),
            from_name: name.into(),
            to_dir: ROOT,
            to_name: to.into(),
            node: NodeId(node),
            kind: Kind::Dir,
            replaced: None,
            caller: caller(),
        })
    };
    let removed = |dir, name: &str, node| {
        let (kind, last) = (Kind::Dir, true);
        Event::Remove(Remove { junction: J, location: L, dir, name: name.into(), node, kind, last, caller: caller() })
    };
    world.say(away(9, "x", 10, "kept"), b"").await;
    world.say(away(8, "deep", 9, "deep"), b"").await;
    world.say(removed(NodeId(USER), "sub", NodeId(8)), b"").await;
    world.say(removed(ROOT, "deep", NodeId(9)), b"").await;
    world.again().await;
    assert_eq!(world.redo_all().await, 0);
    assert_eq!(world.tree().await, tree(&[("d", "dir"), ("kept", "dir")]));
    assert_eq!(world.all("kept").await, inherited());
}

/// Its child is made before it is given what it lacks.
#[tokio::test]
async fn a_directory_that_a_power_cut_kept_without_its_acl_hands_on_the_one_that_it_will_have() {
    let mut world = World::with_acl().await;
    world.made(USER, "sub", 8, What::Dir).await;
    let sub = world.filer.make(&world.at("d").await, b"sub", &What::Dir, ATTRS).await.unwrap();
    world.say(Event::Made(Made { location: L, objects: vec![(NodeId(8), sub.id)] }), b"").await;
    world.made(8, "x", 9, What::Dir).await;
    world.again().await;
    assert_eq!(world.redo_all().await, 0);
    assert_eq!((world.all("d/sub").await, world.all("d/sub/x").await), (inherited(), inherited()));
}

#[tokio::test]
async fn redo_leaves_an_administrators_acls_alone_and_puts_those_that_are_missing() {
    let mut world = World::with_acl().await;
    let theirs = world.carried_out(USER, "d", "theirs", 8, What::Dir).await;
    world.put(&theirs, AclKind::Access, &named_user(5, 5)).await;
    world.put(&theirs, AclKind::Default, &named_user(1, 7)).await;
    let half = world.carried_out(USER, "d", "half", 9, What::File).await;
    // As it is while it is made, before it gets its own mode.
    world.filer.set(&half, Changes { mode: Some(0o600), ..Changes::default() }).await.unwrap();
    world.again().await;
    for _ in 0..2 {
        assert_eq!(world.redo_all().await, 0);
        let acl = |named, mask| Some(Bytes::from(named_user(named, mask)));
        assert_eq!(world.all("d/theirs").await, (0o750, acl(5, 5), acl(1, 7)));
        assert_eq!(world.all("d/half").await, (0o770, acl(7, 7), None));
        world.again().await;
    }
}

#[tokio::test]
async fn nobody_may_do_more_with_what_is_made_again_at_any_moment_than_he_may_in_the_end() {
    let mut world = World::with_acl().await;
    world.made(USER, "sub", 8, What::Dir).await;
    let Event::Make(made) = make(NodeId(USER), "f", 9, What::File) else { unreachable!() };
    world.say(Event::Make(Make { mode: 0o640, ..made }), b"").await;
    world.again().await;
    // Everywhere in between: the filer stops answering after so many calls.
    for calls in 0.. {
        let left = AtomicU64::new(calls);
        world.filer.set_fault(Some(Box::new(move |_| {
            let none_left = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err();
            none_left.then_some(Fault::Before(ErrorKind::Down))
        })));
        let done = world.redo().await.is_ok();
        world.filer.set_fault(None);
        world.is_no_wider_than("f", 0o640).await;
        world.is_no_wider_than("sub", 0o770).await;
        if done {
            assert!(calls > 10, "{calls}");
            assert_eq!(world.all("d/sub").await, inherited());
            assert_eq!(world.all("d/f").await, (0o640, Some(Bytes::from(file_acl())), None));
            return;
        }
    }
}

/// What `d` hands on to a file of mode 0640.
fn file_acl() -> Vec<u8> {
    let acl = crate::semantics::acl::Acl::parse(&named_user(7, 7)).unwrap();
    acl.with_mode(0o640).to_bytes()
}

impl World {
    /// Wherever it is: the mode, and that of an ACL's classes, which is not the owning group's.
    async fn is_no_wider_than(&self, name: &str, mode: u32) {
        let pen = self.filer.pen().await.unwrap();
        let mut found = Vec::new();
        for dir in [self.at("d").await, pen] {
            for there in self.filer.list(&dir, 0, 100).await.unwrap().names {
                let number = if name == "f" { "9" } else { "8" };
                if there == name.as_bytes() || there == number.as_bytes() {
                    found.push(self.filer.lookup(&dir, &there).await.unwrap());
                }
            }
        }
        for object in found {
            let stat = self.filer.stat(&object).await.unwrap();
            let acl = self.filer.acl(&object, AclKind::Access).await.unwrap();
            // The owning group has nothing in this ACL: without it the mode's group bits would be the group's.
            let due = if acl.is_some() { mode } else { mode & !0o077 };
            assert_eq!(stat.mode & !due, 0, "{name}: {:o}", stat.mode);
        }
    }
}
