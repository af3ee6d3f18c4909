//! The registry of core filers.

use super::{Filer, Refusal, Role, State, fresh, text};
use journal_format::event::{Event, FilerAdded, FilerFound, FilerRemoved};
use journal_format::ids::FilerId;

/// Longest name of a filer or policy, bytes.
pub const NAME_MAX: usize = 64;
/// Most filers at a time; the next one is refused.
pub const FILERS_MAX: usize = 1000;
/// Longest URL, bytes.
const URL_MAX: usize = 4096;

pub(super) fn add(state: &State, name: &str, url: &str, root: &[u8], found: FilerFound) -> Result<Vec<Event>, Refusal> {
    check_name("filer", name)?;
    if state.filer_by_name(name).is_some() {
        return Err(Refusal::new(
            format!("a filer named '{name}' is there already"),
            "choose another name, or remove that one first",
        ));
    }
    if url.len() > URL_MAX {
        return Err(Refusal::new(format!("the URL is longer than {URL_MAX} bytes"), "give a shorter one"));
    }
    if let Some(twin) = state.filers.values().find(|f| f.url == url) {
        return Err(same_place(twin));
    }
    if state.filers.len() >= FILERS_MAX {
        return Err(Refusal::new(format!("there are {FILERS_MAX} filers already"), "remove one that is not used"));
    }
    let event =
        FilerAdded { filer: FilerId(state.next.filer), name: name.into(), url: url.into(), root: root.to_vec(), found };
    Ok(vec![Event::FilerAdded(event)])
}

/// Two names for one place would let two locations be the same directory without looking so. Whether two URLs lead to
/// one place who has probed them knows: where the identity of a root tells it.
pub fn same_place(twin: &Filer) -> Refusal {
    Refusal::new(
        format!("filer '{}' ({}) is the same place", twin.name, twin.url),
        format!("use '{}', with a subdirectory where needed", twin.name),
    )
}

/// A name that an operator gives, of a filer or of what else `of` says.
pub(super) fn check_name(of: &str, name: &str) -> Result<(), Refusal> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(legal) {
        return Err(Refusal::new(
            format!("'{}' cannot be a {of}'s name", text::escape(name.as_bytes())),
            format!("use 1 to {NAME_MAX} of the characters A-Z a-z 0-9 . _ -"),
        ));
    }
    Ok(())
}

pub(super) fn remove(state: &State, name: &str) -> Result<Vec<Event>, Refusal> {
    let (filer, _) = find(state, name)?;
    if let Some(user) = user_of(state, filer) {
        return Err(Refusal::new(
            format!("filer '{name}' is in use by {user}"),
            "end what uses it first; 'tain status' shows everything",
        ));
    }
    Ok(vec![Event::FilerRemoved(FilerRemoved { filer })])
}

pub(super) fn find<'a>(state: &'a State, name: &str) -> Result<(FilerId, &'a Filer), Refusal> {
    state.filer_by_name(name).ok_or_else(|| {
        Refusal::new(
            format!("there is no filer named '{}'", text::escape(name.as_bytes())),
            "add it first: tain filer add NAME URL",
        )
    })
}

/// Who reads or writes a location on this filer, if anybody.
fn user_of(state: &State, filer: FilerId) -> Option<String> {
    state.locations.values().filter(|l| l.filer == filer).find_map(|l| match l.role {
        Role::Primary(junction) => {
            let path = state.junctions.get(&junction).map(|j| text::path(&j.path)).unwrap_or_default();
            Some(format!("junction {path}"))
        }
        Role::Destination(job) => Some(format!("job {job}")),
        Role::Left => None,
    })
}

pub(super) fn added(state: &mut State, e: &FilerAdded) -> Result<(), String> {
    let next = fresh("filer", e.filer.0, &state.next.filer)?;
    if state.filer_by_name(&e.name).is_some() {
        return Err(format!("filer '{}' is added twice", e.name));
    }
    state.next.filer = next;
    let filer = Filer { name: e.name.clone(), url: e.url.clone(), root: e.root.clone(), found: e.found };
    state.filers.insert(e.filer, filer);
    Ok(())
}

pub(super) fn removed(state: &mut State, e: &FilerRemoved) -> Result<(), String> {
    if let Some(user) = user_of(state, e.filer) {
        return Err(format!("filer {} is removed while {user} uses it", e.filer));
    }
    match state.filers.remove(&e.filer) {
        Some(_) => Ok(()),
        None => Err(format!("filer {} is removed and is not there", e.filer)),
    }
}
