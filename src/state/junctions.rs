//! The tree that clients see: junctions, and the read-only directories that lead to them.
//!
//! A directory of the tree exists exactly while a junction lies somewhere below it; `/` always does. Directories get
//! growing numbers that are not used again, so a handle of one that is gone stays stale.

use super::conflict::{Place, refuse_overlap};
use super::jobs::HasEnded;
use super::{Child, Junction, LocationState, ROOT_DIR, Refusal, Role, State, VirtualDir, fresh, policies, text};
use journal_format::event::{
    Event, JobState, JunctionAdded, JunctionModified, JunctionRemoved, JunctionSwitched, LocationSpec,
};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId, Time};
use std::collections::BTreeMap;

/// Longest name, bytes.
pub const NAME_MAX: usize = 255;
/// Longest path, bytes (MNTPATHLEN of the MOUNT protocol).
pub const PATH_MAX: usize = 1024;
/// Most junctions at a time; the next one is refused.
pub const JUNCTIONS_MAX: usize = 1000;

/// Names of an absolute path from its root down; one trailing slash is let pass. `/` has none.
pub fn parse_path(path: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let Some(below) = path.strip_prefix(b"/") else {
        return Err(Refusal::new(
            format!("'{}' is not an absolute path", text::escape(path)),
            "begin the path with '/'",
        ));
    };
    if below.is_empty() {
        return Ok(Vec::new());
    }
    let below = below.strip_suffix(b"/").unwrap_or(below);
    let names: Vec<Vec<u8>> = below.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
    check_names(&names)?;
    Ok(names)
}

/// Names that a path can be made of.
pub(super) fn check_names(names: &[Vec<u8>]) -> Result<(), Refusal> {
    for name in names {
        let bad = name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/'));
        if bad {
            return Err(Refusal::new(
                format!("'{}' cannot be a name in a path", text::escape(name)),
                "use names without '/' and NUL that are not empty, '.' or '..'",
            ));
        }
        if name.len() > NAME_MAX {
            return Err(Refusal::new(
                format!("a name of {} bytes is longer than {NAME_MAX}", name.len()),
                "use a shorter name",
            ));
        }
    }
    let total: usize = names.iter().map(|n| n.len() + 1).sum();
    if total > PATH_MAX {
        return Err(Refusal::new(format!("a path of {total} bytes is longer than {PATH_MAX}"), "use a shorter path"));
    }
    Ok(())
}

pub(super) fn add(
    state: &State,
    path: &[Vec<u8>],
    at: &Place<'_>,
    root: NodeId,
    (mtime, ctime): (Time, Time),
    access: Option<&str>,
) -> Result<Vec<Event>, Refusal> {
    check_path_is_free(state, path)?;
    let (filer, _) = at.resolve(state)?;
    refuse_overlap(state, filer, at, None)?;
    if state.junctions.len() >= JUNCTIONS_MAX {
        return Err(Refusal::new(format!("there are {JUNCTIONS_MAX} junctions already"), "remove one first"));
    }
    let access = access.map_or(Ok(None), |name| policies::named(state, name))?;
    let location = LocationSpec {
        location: LocationId(state.next.location),
        filer,
        subdir: at.subdir.to_vec(),
        root: at.root.clone(),
    };
    let junction = JunctionId(state.next.junction);
    let added = JunctionAdded { junction, path: path.to_vec(), location, root, mtime, ctime };
    // A crash between the two leaves a junction that only this machine may use.
    let modified = access.map(|_| Event::JunctionModified(JunctionModified { junction, access, suspended: false }));
    Ok(std::iter::once(Event::JunctionAdded(added)).chain(modified).collect())
}

fn check_path_is_free(state: &State, path: &[Vec<u8>]) -> Result<(), Refusal> {
    if path.is_empty() {
        return Err(Refusal::new("'/' is the directory of the junctions", "add the junction below it, as /data"));
    }
    check_names(path)?;
    let here = text::path(path);
    for other in state.junctions.values() {
        let there = text::path(&other.path);
        let reason = if other.path == path {
            format!("there is a junction at {there} already")
        } else if path.starts_with(&other.path) {
            format!("{here} lies inside junction {there}")
        } else if other.path.starts_with(path) {
            format!("{here} contains junction {there}")
        } else {
            continue;
        };
        return Err(Refusal::new(reason, "choose a path beside it: junctions do not nest"));
    }
    Ok(())
}

pub(super) fn find<'a>(state: &'a State, path: &[Vec<u8>]) -> Result<(JunctionId, &'a Junction), Refusal> {
    state.junction_by_path(path).ok_or_else(|| {
        Refusal::new(format!("there is no junction at {}", text::path(path)), "'tain junction list' shows them")
    })
}

pub(super) fn get(state: &State, id: JunctionId) -> Result<&Junction, Refusal> {
    let gone = || Refusal::new(format!("junction {} is gone", id.0), "'tain junction list' shows those that are there");
    state.junctions.get(&id).ok_or_else(gone)
}

pub(super) fn remove(state: &State, junction: JunctionId) -> Result<Vec<Event>, Refusal> {
    let path = text::path(&get(state, junction)?.path);
    if let Some((job, it)) = state.jobs.iter().find(|(_, j)| j.junction == junction && !j.state.has_ended()) {
        return Err(Refusal::new(
            format!("job {job} ({}) works on junction {path}", super::jobs::name(it.state)),
            format!("wait for it, or abort it: tain job abort {job}"),
        ));
    }
    Ok(vec![Event::JunctionRemoved(JunctionRemoved { junction })])
}

pub(super) fn added(state: &mut State, e: &JunctionAdded, end: Lsn, time: Time) -> Result<(), String> {
    let next = fresh("junction", e.junction.0, &state.next.junction)?;
    let next_location = fresh("location", e.location.location.0, &state.next.location)?;
    if !state.filers.contains_key(&e.location.filer) {
        return Err(format!("junction {} on filer {}, which is not there", e.junction, e.location.filer));
    }
    check_path_is_free(state, &e.path).map_err(|refusal| refusal.reason)?;
    let Some((last, above)) = e.path.split_last() else {
        return Err("a junction at /".into());
    };
    // Directories are made once everything has been judged: a contradiction changes nothing.
    if state.next.virtual_dir.checked_add(above.len() as u64).is_none() {
        return Err("no numbers are left for directories".into());
    }
    let mut parent = ROOT_DIR;
    for name in above {
        parent = dir_in(state, parent, name, time)?;
    }
    if let Some(dir) = state.tree.get_mut(&parent) {
        dir.children.insert(last.clone(), Child::Junction(e.junction));
        dir.changed = time;
    }
    state.next.junction = next;
    state.next.location = next_location;
    let location = new_location(&e.location, Role::Primary(e.junction), end);
    state.locations.insert(e.location.location, location);
    let junction = Junction {
        path: e.path.clone(),
        parent,
        primary: e.location.location,
        root: e.root,
        epoch: 1,
        added: time,
        access: None,
        suspended: false,
    };
    state.junctions.insert(e.junction, junction);
    Ok(())
}

pub(super) fn new_location(spec: &LocationSpec, role: Role, cursor: Lsn) -> LocationState {
    LocationState {
        filer: spec.filer,
        subdir: spec.subdir.clone(),
        root: spec.root.clone(),
        role,
        cursor,
        out_of_sync: None,
    }
}

/// The directory `name` in `parent`, made when it is missing.
fn dir_in(state: &mut State, parent: NodeId, name: &[u8], time: Time) -> Result<NodeId, String> {
    let new = NodeId(state.next.virtual_dir);
    let dir = state.tree.get_mut(&parent).ok_or_else(|| format!("directory {parent} is not in the tree"))?;
    match dir.children.get(name) {
        Some(Child::Dir(id)) => Ok(*id),
        Some(Child::Junction(j)) => Err(format!("a path through junction {j}")),
        None => {
            dir.children.insert(name.to_vec(), Child::Dir(new));
            dir.changed = time;
            state.tree.insert(new, VirtualDir { parent, children: BTreeMap::new(), changed: time });
            state.next.virtual_dir += 1;
            Ok(new)
        }
    }
}

pub(super) fn removed(state: &mut State, e: &JunctionRemoved, time: Time) -> Result<(), String> {
    let Some(junction) = state.junctions.get(&e.junction) else {
        return Err(format!("junction {} is removed and is not there", e.junction));
    };
    if let Some((job, _)) = state.jobs.iter().find(|(_, j)| j.junction == e.junction && !j.state.has_ended()) {
        return Err(format!("junction {} is removed under job {job}", e.junction));
    }
    let (mut dir, primary) = (junction.parent, junction.primary);
    state.junctions.remove(&e.junction);
    if let Some(location) = state.locations.get_mut(&primary) {
        location.role = Role::Left;
    }
    state.forget_if_unused(primary);
    let mut gone = Child::Junction(e.junction);
    // Upwards while directories become empty; every step takes a directory out of the tree, so it ends.
    while let Some(it) = state.tree.get_mut(&dir) {
        it.children.retain(|_, child| *child != gone);
        it.changed = time;
        if !it.children.is_empty() || dir == ROOT_DIR {
            break;
        }
        gone = Child::Dir(dir);
        let parent = it.parent;
        state.tree.remove(&dir);
        dir = parent;
    }
    Ok(())
}

/// The one instant of a switch (I5). Cursors belong to locations and stay.
pub(super) fn switched(state: &mut State, e: &JunctionSwitched, lsn: Lsn) -> Result<(), String> {
    let junction =
        state.junctions.get_mut(&e.junction).ok_or_else(|| format!("junction {} is not there", e.junction))?;
    let job = state.jobs.get_mut(&e.job).ok_or_else(|| format!("job {} is not there", e.job))?;
    if job.state != JobState::Transitioning || job.switched.is_some() || job.junction != e.junction {
        return Err(format!("job {} switches junction {} when it may not", e.job, e.junction));
    }
    if junction.primary != e.from || job.destination != e.to || e.from == e.to {
        return Err(format!(
            "junction {} switches from {} to {}, which is not its job's way",
            e.junction, e.from, e.to
        ));
    }
    if e.epoch <= junction.epoch {
        return Err(format!("epoch {} after {}", e.epoch, junction.epoch));
    }
    if !state.locations.contains_key(&e.from) || !state.locations.contains_key(&e.to) {
        return Err(format!("location {} or {} is not there", e.from, e.to));
    }
    junction.primary = e.to;
    junction.epoch = e.epoch;
    job.switched = Some(lsn);
    for (id, role) in [(e.from, Role::Left), (e.to, Role::Primary(e.junction))] {
        if let Some(location) = state.locations.get_mut(&id) {
            location.role = role;
            // It was drained to its end before: nothing of it can be dirty.
            location.out_of_sync = None;
        }
    }
    Ok(())
}
