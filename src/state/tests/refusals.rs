//! Each refusal: its reason names the conflict.

use super::*;

fn says(w: &World, command: &Command, words: &str) {
    let refusal = w.refuses(command);
    assert!(refusal.reason.contains(words), "'{}' does not say '{words}'", refusal.reason);
}

#[test]
fn a_filer_needs_a_legal_free_name_and_a_place_of_its_own() {
    let w = World::new();
    for name in ["", "a b", "a/b", "é", &"x".repeat(65)] {
        says(&w, &add_filer(name), "cannot be a filer's name");
    }
    World::new().does(&[add_filer(&"x".repeat(64)), add_filer("A-z.0_9")]);
    says(&w, &add_filer("old"), "'old' is there already");
    let twin = |url: &str, root: &[u8]| Command::AddFiler {
        name: "twin".into(),
        url: url.into(),
        root: root.to_vec(),
        found: FilerFound::default(),
    };
    says(&w, &twin("posix:///old", b"?"), "filer 'old' (posix:///old) is the same place");
    w.clone().does(&[twin("posix:///mount", b"new")]);
    says(&w, &twin(&"u".repeat(5000), b"?"), "longer than");
}

#[test]
fn a_filer_is_removed_only_when_nothing_uses_it() {
    let mut w = World::new();
    let remove = |name: &str| Command::RemoveFiler { name: name.into() };
    says(&w, &remove("old"), "filer 'old' is in use by junction /data/a");
    says(&w, &remove("nobody"), "no filer named 'nobody'");
    w.does(&[create_move("/data/a", "new:/a", true)]);
    says(&w, &remove("new"), "filer 'new' is in use by job 1");
    w.does(&[action(1, JobAction::Abort), remove("new")]);
    assert_eq!(w.state.location_name(LocationId(2)), "f2:/a", "the job's entry outlives the filer");
    w.does(&[add_filer("new")]);
    assert!(w.state.filers.contains_key(&FilerId(3)), "as another filer");
}

#[test]
fn junction_paths_are_absolute_and_made_of_names() {
    for path in ["", "data", "//a", "/a//b", "/.", "/a/..", "/a\0b", &format!("/{}", "x".repeat(256))] {
        assert!(junctions::parse_path(path.as_bytes()).is_err(), "{path:?}");
    }
    assert!(junctions::parse_path("/aaa".repeat(257).as_bytes()).is_err(), "longer than MOUNT can say");
    assert_eq!(names("/"), names("/"));
    assert_eq!(names("/a/b/"), names("/a/b"));
    assert_eq!(names(&format!("/{}", "x".repeat(255)))[0].len(), 255);
    let w = World::new();
    says(&w, &add_junction("/", "old:/b"), "'/' is the directory of the junctions");
    let Command::AddJunction { filer, subdir, root, node, mtime, ctime, .. } = add_junction("/x", "old:/b") else {
        panic!()
    };
    let raw =
        Command::AddJunction { path: vec![b"a/b".to_vec()], filer, subdir, root, node, mtime, ctime, access: None };
    says(&w, &raw, "'a/b' cannot be a name");
}

#[test]
fn junctions_do_not_nest_and_a_sibling_is_fine() {
    let w = World::new();
    says(&w, &add_junction("/data/a", "old:/b"), "a junction at /data/a already");
    says(&w, &add_junction("/data/a/b", "old:/b"), "/data/a/b lies inside junction /data/a");
    says(&w, &add_junction("/data", "old:/b"), "/data contains junction /data/a");
    w.clone().does(&[add_junction("/data/b", "old:/b"), add_junction("/data/aa", "old:/aa")]);
}

#[test]
fn a_junction_leads_to_a_place_that_nobody_else_uses() {
    let mut w = World::new();
    says(&w, &add_junction("/b", "none:/b"), "no filer named 'none'");
    says(&w, &add_junction("/b", "old:/a"), "old:/a is old:/a, the location of junction /data/a");
    says(&w, &add_junction("/b", "old:/a/b"), "old:/a/b lies inside old:/a, the location of junction /data/a");
    says(&w, &add_junction("/b", "old:/"), "old:/ contains old:/a");
    w.does(&[create_move("/data/a", "new:/a", true)]);
    says(&w, &add_junction("/b", "new:/a/x"), "the destination of job 1");
    w.does(&[action(1, JobAction::Abort), add_junction("/b", "new:/a/x")]);
}

#[test]
fn the_same_directory_under_another_name_of_its_filer_is_recognised() {
    let w = World::new();
    let Command::CreateMove { source, filer, notes, .. } = create_move("/data/a", "old:/b", false) else { panic!() };
    let root = w.state.locations[&LocationId(1)].root.clone();
    let by_mount = Command::CreateMove { source, filer, subdir: names("/b"), root, notes, stopped: false };
    says(&w, &by_mount, "old:/b is old:/a");
}

#[test]
fn a_junction_is_removed_only_when_no_job_works_on_it() {
    for state in jobs::STATES {
        let mut w = World::with_job(state);
        let remove = remove_junction(1);
        if jobs::HasEnded::has_ended(state) {
            w.does(&[remove]);
            assert_eq!(w.state.locations.len(), 2, "the job still names both");
        } else {
            says(&w, &remove, &format!("job 1 ({}) works on junction /data/a", jobs::name(state)));
        }
    }
    let mut w = World::new();
    w.does(&[remove_junction(1), add_junction("/data/a", "old:/a")]);
    says(&w, &remove_junction(1), "junction 1 is gone");
}

#[test]
fn a_junction_is_the_source_of_one_move_at_a_time_also_of_a_stopped_one() {
    for state in jobs::STATES {
        let mut w = World::with_job(state);
        let again = create_move("/data/a", "new:/elsewhere", false);
        if jobs::HasEnded::has_ended(state) {
            w.does(&[again]);
        } else {
            says(&w, &again, "junction /data/a is the source of job 1 already");
        }
    }
}

#[test]
fn a_destination_is_apart_from_every_location_in_use() {
    let mut w = World::new();
    w.does(&[add_junction("/b", "new:/b"), create_move("/b", "old:/moved/b", true)]);
    let refused = [
        ("old:/a", "old:/a is old:/a, the move's own source"),
        ("old:/a/sub", "old:/a/sub lies inside old:/a, the move's own source"),
        ("old:/", "contains old:/a"),
        ("new:/b", "new:/b is new:/b, the location of junction /b"),
        ("new:/b/sub", "lies inside new:/b"),
        ("new:/", "new:/ contains new:/b"),
        ("old:/moved/b", "the destination of job 1"),
        ("old:/moved/b/sub", "lies inside old:/moved/b, the destination of job 1"),
        ("old:/moved", "contains old:/moved/b, the destination of job 1"),
        ("none:/x", "no filer named 'none'"),
    ];
    for (to, words) in refused {
        says(&w, &create_move("/data/a", to, false), words);
    }
    says(&w, &create_move("/nope", "new:/x", false), "no junction at /nope");
    for sibling in ["old:/aa", "old:/moved/c", "new:/bb"] {
        w.clone().does(&[create_move("/data/a", sibling, false)]);
    }
}

#[test]
fn notes_are_bounded() {
    let mut command = create_move("/data/a", "new:/a", false);
    if let Command::CreateMove { notes, .. } = &mut command {
        *notes = "x".repeat(5000);
    }
    says(&World::new(), &command, "notes");
}

/// Its owner marker and its pen are being taken away: those of somebody who came in between would go with them.
#[test]
fn an_old_side_is_anybodys_when_its_job_has_ended_and_not_before() {
    let mut w = World::with_job(S::Transitioning);
    w.does(&[Command::SwitchJunction { job: JobId(1) }]);
    for at in ["old:/a", "old:/", "old:/a/b"] {
        says(&w, &add_junction("/b", at), "which a job that has just moved away is tidying up");
        says(&w, &create_move("/data/a", at, false), "");
    }
    w.does(&[to(1, S::Completed), add_junction("/b", "old:/a")]);
}
