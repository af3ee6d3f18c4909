//! Policies, and what else an operator changes of a junction.

use super::*;
use crate::state::policies::{LOCAL, POLICIES_MAX};
use journal_format::event::{JunctionModified, PolicyRemoved, PolicySet};

fn rules(texts: &[&str]) -> Vec<AccessRule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn add(name: &str, texts: &[&str]) -> Command {
    Command::AddPolicy { name: name.into(), rules: rules(texts) }
}

fn change(junction: u32, access: Option<&str>, suspended: Option<bool>) -> Command {
    Command::ModifyJunction { junction: JunctionId(junction), access: access.map(str::to_owned), suspended }
}

fn says(world: &World, command: &Command, reason: &str) {
    let refusal = world.refuses(command);
    assert!(refusal.reason.contains(reason), "{refusal}");
}

#[test]
fn a_policy_is_added_changed_given_to_junctions_and_removed_when_none_has_it() {
    let mut w = World::new();
    w.does(&[add("lab", &["10.0.0.0/8=rw"]), change(1, Some("lab"), None)]);
    let junction = || w.state.junctions.values().next().unwrap();
    assert_eq!((w.state.policy_name(junction()), junction().suspended), ("lab", false));
    says(&w, &Command::RemovePolicy { name: "lab".into() }, "is that of junction /data/a");
    w.does(&[Command::ModifyPolicy { name: "lab".into(), rules: rules(&["*=ro"]) }]);
    assert_eq!(w.state.policy_by_name("lab").unwrap().1.rules, rules(&["*=ro"]));
    w.does(&[change(1, Some(LOCAL), None), Command::RemovePolicy { name: "lab".into() }]);
    assert_eq!(w.state.policy_name(w.state.junctions.values().next().unwrap()), LOCAL);
    // Its number is not used again.
    w.does(&[add("lab", &["*=ro"])]);
    assert_eq!(w.state.policy_by_name("lab").unwrap().0, PolicyId(2));
}

#[test]
fn a_junction_is_suspended_and_resumed_and_keeps_its_policy_meanwhile() {
    let mut w = World::new();
    w.does(&[add("lab", &["*=rw"]), change(1, Some("lab"), None), change(1, None, Some(true))]);
    let see = |w: &World| {
        let junction = w.state.junctions.values().next().unwrap();
        (w.state.policy_name(junction).to_owned(), junction.suspended)
    };
    assert_eq!(see(&w), ("lab".to_owned(), true));
    let events = w.events.len();
    w.does(&[change(1, None, Some(true)), change(1, Some("lab"), None)]);
    assert_eq!(w.events.len(), events, "what is so already is no event");
    let back = State::from_json(&w.state.to_json()).unwrap();
    assert_eq!(back, w.state);
    w.does(&[change(1, None, Some(false))]);
    assert_eq!(see(&w), ("lab".to_owned(), false));
}

#[test]
fn a_junction_may_be_added_with_its_policy() {
    let mut w = World::new();
    w.does(&[add("lab", &["*=rw"])]);
    let mut with = add_junction("/b", "old:/b");
    if let Command::AddJunction { access, .. } = &mut with {
        *access = Some("none".into());
    }
    says(&w, &with, "no policy named 'none'");
    if let Command::AddJunction { access, .. } = &mut with {
        *access = Some("lab".into());
    }
    w.does(&[with]);
    let (_, junction) = w.state.junction_by_path(&names("/b")).unwrap();
    assert_eq!(w.state.policy_name(junction), "lab");
}

#[test]
fn what_cannot_be_a_policy_is_refused() {
    let mut w = World::new();
    says(&w, &add(LOCAL, &["*=rw"]), "built-in");
    says(&w, &add("a b", &["*=rw"]), "cannot be a policy's name");
    says(&w, &add("a", &[]), "1 to 64 rules, not 0");
    says(&w, &add("a", &["*=rw"; 65]), "not 65");
    says(&w, &Command::ModifyPolicy { name: "a".into(), rules: rules(&["*=rw"]) }, "no policy named 'a'");
    says(&w, &Command::RemovePolicy { name: LOCAL.into() }, "built in");
    says(&w, &change(9, Some(LOCAL), None), "junction 9 is gone");
    for i in 0..POLICIES_MAX {
        w.does(&[add(&format!("p{i}"), &["*=rw"])]);
    }
    says(&w, &add("one-more", &["*=rw"]), "256 policies already");
    says(&w, &add("p0", &["*=rw"]), "there already");
}

#[test]
fn events_that_no_command_leads_to_are_contradictions() {
    let mut w = World::new();
    w.does(&[add("lab", &["*=rw"]), change(1, Some("lab"), None)]);
    let set =
        |policy, name: &str, rules| Event::PolicySet(PolicySet { policy: PolicyId(policy), name: name.into(), rules });
    let modified = |junction, access| {
        Event::JunctionModified(JunctionModified { junction: JunctionId(junction), access, suspended: false })
    };
    let odd = AccessRule { prefix: 200, ..rules(&["10.0.0.0/8=rw"])[0] };
    for event in [
        set(1, "other", rules(&["*=rw"])),
        set(2, "lab", rules(&["*=rw"])),
        set(2, "odd", vec![odd]),
        modified(9, None),
        modified(1, Some(PolicyId(7))),
        Event::PolicyRemoved(PolicyRemoved { policy: PolicyId(1) }),
        Event::PolicyRemoved(PolicyRemoved { policy: PolicyId(3) }),
    ] {
        assert!(w.try_push(event.clone()).is_err(), "{event:?}");
    }
}
