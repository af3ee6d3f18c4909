//! Access policies: which clients may what. A junction without one has the built-in `local`, which is no policy of State.

use super::{Junction, Policy, Refusal, State, filers, fresh, junctions, text};
use journal_format::event::{AccessRule, Event, JunctionModified, PolicyRemoved, PolicySet};
use journal_format::ids::{JunctionId, PolicyId};

/// Most policies at a time; the next one is refused.
pub const POLICIES_MAX: usize = 256;
/// The built-in policy: loopback addresses only, read-write, no squash, any port.
pub const LOCAL: &str = "local";

pub(super) fn add(state: &State, name: &str, rules: &[AccessRule]) -> Result<Vec<Event>, Refusal> {
    check_name(name)?;
    if state.policy_by_name(name).is_some() {
        return Err(Refusal::new(
            format!("a policy named '{name}' is there already"),
            format!("choose another name, or change it: tain policy modify {name} RULE..."),
        ));
    }
    if state.policies.len() >= POLICIES_MAX {
        return Err(Refusal::new(format!("there are {POLICIES_MAX} policies already"), "remove one that is not used"));
    }
    check_rules(rules)?;
    Ok(vec![set(PolicyId(state.next.policy), name, rules)])
}

pub(super) fn modify(state: &State, name: &str, rules: &[AccessRule]) -> Result<Vec<Event>, Refusal> {
    let (policy, found) = find(state, name)?;
    check_rules(rules)?;
    if found.rules == rules {
        return Ok(Vec::new());
    }
    Ok(vec![set(policy, name, rules)])
}

fn set(policy: PolicyId, name: &str, rules: &[AccessRule]) -> Event {
    Event::PolicySet(PolicySet { policy, name: name.into(), rules: rules.to_vec() })
}

fn check_name(name: &str) -> Result<(), Refusal> {
    filers::check_name("policy", name)?;
    if name == LOCAL {
        return Err(Refusal::new(
            "'local' is the built-in policy: loopback addresses only, read-write, no squash, any port",
            "choose another name",
        ));
    }
    Ok(())
}

fn check_rules(rules: &[AccessRule]) -> Result<(), Refusal> {
    let max = PolicySet::RULES_MAX;
    if rules.is_empty() || rules.len() > max {
        return Err(Refusal::new(
            format!("a policy has 1 to {max} rules, not {}", rules.len()),
            "give rules as 10.0.0.0/8=rw,root_squash; whom none fits is refused",
        ));
    }
    Ok(())
}

pub(super) fn find<'a>(state: &'a State, name: &str) -> Result<(PolicyId, &'a Policy), Refusal> {
    if name == LOCAL {
        return Err(Refusal::new(
            "'local' is built in, and stays as it is",
            "add a policy, and give it to the junction",
        ));
    }
    state.policy_by_name(name).ok_or_else(|| {
        let name = text::escape(name.as_bytes());
        Refusal::new(format!("there is no policy named '{name}'"), "'tain policy list' shows them")
    })
}

pub(super) fn remove(state: &State, name: &str) -> Result<Vec<Event>, Refusal> {
    if name == LOCAL {
        return Err(Refusal::new("'local' is built in", "junctions that have no other policy have it"));
    }
    let (policy, _) = find(state, name)?;
    if let Some(user) = users(state, policy).next() {
        return Err(Refusal::new(
            format!("policy '{name}' is that of junction {}", text::path(&user.path)),
            format!(
                "give the junction another one first: tain junction modify {} --access POLICY",
                text::path(&user.path)
            ),
        ));
    }
    Ok(vec![Event::PolicyRemoved(PolicyRemoved { policy })])
}

/// Junctions that have the policy.
pub fn users(state: &State, policy: PolicyId) -> impl Iterator<Item = &Junction> {
    state.junctions.values().filter(move |junction| junction.access == Some(policy))
}

/// A policy by name, `local` included.
pub(super) fn named(state: &State, name: &str) -> Result<Option<PolicyId>, Refusal> {
    if name == LOCAL { Ok(None) } else { find(state, name).map(|(id, _)| Some(id)) }
}

/// Change what is given of a junction.
pub(super) fn modify_junction(
    state: &State,
    junction: JunctionId,
    access: Option<&str>,
    suspended: Option<bool>,
) -> Result<Vec<Event>, Refusal> {
    let found = junctions::get(state, junction)?;
    let access = access.map_or(Ok(found.access), |name| named(state, name))?;
    let suspended = suspended.unwrap_or(found.suspended);
    if (access, suspended) == (found.access, found.suspended) {
        return Ok(Vec::new());
    }
    Ok(vec![Event::JunctionModified(JunctionModified { junction, access, suspended })])
}

pub(super) fn was_set(state: &mut State, e: &PolicySet) -> Result<(), String> {
    if !e.rules.iter().all(AccessRule::is_sound) {
        return Err(format!("policy {} has a rule that is none", e.policy));
    }
    let name_of = state.policy_by_name(&e.name).map(|(id, _)| id);
    if let Some(policy) = state.policies.get_mut(&e.policy) {
        if policy.name != e.name {
            return Err(format!("policy {} is renamed to '{}'", e.policy, e.name));
        }
        policy.rules.clone_from(&e.rules);
        return Ok(());
    }
    let next = fresh("policy", e.policy.0, &state.next.policy)?;
    if name_of.is_some() {
        return Err(format!("policy '{}' is added twice", e.name));
    }
    state.next.policy = next;
    state.policies.insert(e.policy, Policy { name: e.name.clone(), rules: e.rules.clone() });
    Ok(())
}

pub(super) fn removed(state: &mut State, e: &PolicyRemoved) -> Result<(), String> {
    if let Some(user) = users(state, e.policy).next() {
        return Err(format!("policy {} is removed while junction {} has it", e.policy, text::path(&user.path)));
    }
    match state.policies.remove(&e.policy) {
        Some(_) => Ok(()),
        None => Err(format!("policy {} is removed and is not there", e.policy)),
    }
}

pub(super) fn junction_modified(state: &mut State, e: &JunctionModified) -> Result<(), String> {
    if let Some(policy) = e.access
        && !state.policies.contains_key(&policy)
    {
        return Err(format!("junction {} gets policy {policy}, which is not there", e.junction));
    }
    let junction = junction(state, e.junction)?;
    junction.access = e.access;
    junction.suspended = e.suspended;
    Ok(())
}

fn junction(state: &mut State, id: JunctionId) -> Result<&mut Junction, String> {
    state.junctions.get_mut(&id).ok_or_else(|| format!("junction {id} is modified and is not there"))
}
