//! Why a location cannot be used: which directory it shares with which junction or job.
//!
//! Judged here: everything that names and identities in State can tell. That two filers lead to overlapping directories
//! by different URLs is asked of the filers by control before the command is made.

use super::{Filer, Refusal, Role, State, filers, junctions, text};
use journal_format::ids::{FilerId, Identity, LocationId};

/// A directory that a command names.
pub(super) struct Place<'a> {
    /// Name of its filer.
    pub filer: &'a str,
    pub subdir: &'a [Vec<u8>],
    /// Its identity; empty when it is not known yet.
    pub root: &'a Identity,
}

impl Place<'_> {
    /// Its filer, when the place can be named so at all.
    pub(super) fn resolve<'s>(&self, state: &'s State) -> Result<(FilerId, &'s Filer), Refusal> {
        junctions::check_names(self.subdir)?;
        filers::find(state, self.filer)
    }
}

/// How one directory lies to another by their names on one filer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Apart,
    Same,
    Contains,
    Inside,
}

pub(super) fn relation(a: &[Vec<u8>], b: &[Vec<u8>]) -> Relation {
    match (b.starts_with(a), a.starts_with(b)) {
        (true, true) => Relation::Same,
        (true, false) => Relation::Contains,
        (false, true) => Relation::Inside,
        (false, false) => Relation::Apart,
    }
}

/// Refuse a place that is, contains or lies inside a location in use: a junction's, or the destination of a job that
/// has not ended. A sibling is fine, and so is a location that was left behind, when its job has ended.
pub(super) fn refuse_overlap(
    state: &State,
    filer: FilerId,
    place: &Place<'_>,
    source: Option<LocationId>,
) -> Result<(), Refusal> {
    for (id, location) in &state.locations {
        let tidied_by = state.tidied_by(*id);
        if (location.role == Role::Left && tidied_by.is_none()) || location.filer != filer {
            continue;
        }
        let same_object = !place.root.0.is_empty() && location.root == *place.root;
        let relation = if same_object { Relation::Same } else { relation(place.subdir, &location.subdir) };
        let how = match relation {
            Relation::Apart => continue,
            Relation::Same => "is",
            Relation::Contains => "contains",
            Relation::Inside => "lies inside",
        };
        let here = state.place_name(filer, place.subdir);
        let there = state.location_name(*id);
        let owner = match location.role {
            Role::Primary(_) if source == Some(*id) => "the move's own source".to_owned(),
            Role::Primary(junction) => {
                let path = state.junctions.get(&junction).map(|j| text::path(&j.path)).unwrap_or_default();
                format!("the location of junction {path}")
            }
            Role::Destination(job) => format!("the destination of job {job}"),
            Role::Left => "which a job that has just moved away is tidying up".into(),
        };
        let remedy = match (location.role, tidied_by) {
            (Role::Destination(job), _) => format!("choose another directory, or abort job {job} first"),
            (Role::Left, Some(job)) => format!("wait until it has ended: tain job wait {job}"),
            (Role::Primary(_) | Role::Left, _) => "choose a directory beside it".into(),
        };
        return Err(Refusal::new(format!("{here} {how} {there}, {owner}"), remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_relate_by_whole_names() {
        let dir = |text: &str| text.split('/').filter(|n| !n.is_empty()).map(Into::into).collect::<Vec<Vec<u8>>>();
        assert_eq!(relation(&dir("a"), &dir("a")), Relation::Same);
        assert_eq!(relation(&dir("a"), &dir("a/b")), Relation::Contains);
        assert_eq!(relation(&dir("a/b"), &dir("a")), Relation::Inside);
        assert_eq!(relation(&dir("a"), &dir("ab")), Relation::Apart);
        assert_eq!(relation(&dir(""), &dir("a")), Relation::Contains);
    }
}
