//! State as one JSON document and back: what a checkpoint keeps.
//!
//! Ids are numbers, times nanoseconds, byte strings lower-case hexadecimal. Lists are in id order and fields in the
//! order below, so the same State is the same bytes on every machine (I7). `version` changes whenever a field does; the
//! reader of an older version stays.

use super::hosts::KnownAt;
use super::jobs::{self, HasEnded};
use super::{
    Child, Filer, Job, JobError, Junction, LocationState, Next, OutOfSync, Policy, Progress, ROOT_DIR, Role, State,
    VirtualDir, text,
};
use journal_format::event::{FilerFound, Host, JobKind};
use journal_format::ids::{FilerId, Identity, JobId, JunctionId, LocationId, Lsn, NodeId, PolicyId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

const VERSION: u32 = 1;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("not a snapshot")]
    Json(#[from] serde_json::Error),
    #[error("snapshot version {0} needs a newer tain than this, which reads version {VERSION}")]
    Version(u32),
    #[error("snapshot is inconsistent: {0}")]
    Inconsistent(String),
}

/// Read first, so that a newer version is named as such.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Doc {
    version: u32,
    lsn: u64,
    handle_key: String,
    next: NextDoc,
    filers: Vec<FilerDoc>,
    locations: Vec<LocationDoc>,
    junctions: Vec<JunctionDoc>,
    tree: Vec<DirDoc>,
    jobs: Vec<JobDoc>,
    #[serde(default)]
    policies: Vec<PolicyDoc>,
    #[serde(default)]
    hosts: Vec<HostDoc>,
    #[serde(default = "first")]
    locks_number: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostDoc {
    addr: IpAddr,
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at: Vec<IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyDoc {
    id: u32,
    name: String,
    /// As their texts.
    rules: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextDoc {
    filer: u32,
    location: u32,
    junction: u32,
    job: u32,
    virtual_dir: u64,
    #[serde(default = "first")]
    policy: u32,
}

const fn first() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilerDoc {
    id: u32,
    name: String,
    url: String,
    root: String,
    can_chown: bool,
    can_mknod: bool,
    has_xattrs: bool,
    has_holes: bool,
    time_granularity_ns: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocationDoc {
    id: u32,
    filer: u32,
    subdir: Vec<String>,
    root: String,
    role: RoleDoc,
    cursor: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    out_of_sync: Option<OutOfSyncDoc>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutOfSyncDoc {
    from: u64,
    since: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleDoc {
    Primary(u32),
    Destination(u32),
    Left,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JunctionDoc {
    id: u32,
    path: Vec<String>,
    parent: u64,
    primary: u32,
    root: u64,
    epoch: u64,
    added: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<u32>,
    #[serde(default)]
    suspended: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DirDoc {
    id: u64,
    parent: u64,
    changed: i64,
    children: Vec<(String, ChildDoc)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChildDoc {
    Dir(u64),
    Junction(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobDoc {
    id: u32,
    kind: String,
    junction: u32,
    source: u32,
    destination: u32,
    state: String,
    reason: String,
    notes: String,
    created: i64,
    ended: Option<i64>,
    switched: Option<u64>,
    progress: Progress,
    errors: Vec<ErrorDoc>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorDoc {
    node: u64,
    path: String,
    error: String,
    fatal: bool,
    time: i64,
}

impl State {
    /// The snapshot of this State.
    pub fn to_json(&self) -> Vec<u8> {
        let doc = Doc {
            version: VERSION,
            lsn: self.lsn.0,
            handle_key: text::hex(&self.handle_key),
            next: NextDoc {
                filer: self.next.filer,
                location: self.next.location,
                junction: self.next.junction,
                job: self.next.job,
                virtual_dir: self.next.virtual_dir,
                policy: self.next.policy,
            },
            filers: self.filers.iter().map(filer_doc).collect(),
            locations: self.locations.iter().map(location_doc).collect(),
            junctions: self.junctions.iter().map(junction_doc).collect(),
            tree: self.tree.iter().map(dir_doc).collect(),
            jobs: self.jobs.iter().map(job_doc).collect(),
            policies: self.policies.iter().map(policy_doc).collect(),
            hosts: self.hosts.iter().map(host_doc).collect(),
            locks_number: self.locks_number,
        };
        serde_json::to_vec(&doc).expect("numbers, strings and lists are always JSON")
    }

    /// The State of a snapshot.
    pub fn from_json(json: &[u8]) -> Result<State, SnapshotError> {
        let Versioned { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let doc: Doc = serde_json::from_slice(json)?;
        let state = read(doc).ok_or_else(|| SnapshotError::Inconsistent("a value that no snapshot has".into()))?;
        state.check().map_err(SnapshotError::Inconsistent)?;
        Ok(state)
    }

    /// The invariants of `state/mod.rs`.
    pub fn check(&self) -> Result<(), String> {
        for (id, junction) in &self.junctions {
            let role = self.locations.get(&junction.primary).map(|l| l.role);
            if role != Some(Role::Primary(*id)) {
                return Err(format!("junction {id} and its primary {} disagree", junction.primary));
            }
            if junction.access.is_some_and(|policy| !self.policies.contains_key(&policy)) {
                return Err(format!("junction {id} has a policy that is not there"));
            }
            let (last, _) = junction.path.split_last().ok_or_else(|| format!("junction {id} is at /"))?;
            let child = self.tree.get(&junction.parent).and_then(|dir| dir.children.get(last));
            if child != Some(&Child::Junction(*id)) {
                return Err(format!("junction {id} is not in its directory {}", junction.parent));
            }
        }
        for (id, location) in &self.locations {
            let named = self.jobs.values().any(|j| j.source == *id || j.destination == *id);
            let fits = match location.role {
                Role::Primary(junction) => self.junctions.get(&junction).is_some_and(|j| j.primary == *id),
                Role::Destination(job) => {
                    self.jobs.get(&job).is_some_and(|j| j.destination == *id && !j.state.has_ended())
                }
                Role::Left => named,
            };
            if !fits || id.0 >= self.next.location {
                return Err(format!("location {id} does not fit its role"));
            }
            if location.role != Role::Left && !self.filers.contains_key(&location.filer) {
                return Err(format!("location {id} is on filer {}, which is not there", location.filer));
            }
        }
        for (id, job) in &self.jobs {
            if !self.locations.contains_key(&job.source) || !self.locations.contains_key(&job.destination) {
                return Err(format!("job {id} names a location that is not there"));
            }
        }
        self.check_tree()
    }

    fn check_tree(&self) -> Result<(), String> {
        for (id, dir) in &self.tree {
            if dir.children.is_empty() && *id != ROOT_DIR {
                return Err(format!("directory {id} leads nowhere"));
            }
            for child in dir.children.values() {
                let there = match child {
                    Child::Dir(below) => below > id && self.tree.get(below).is_some_and(|d| d.parent == *id),
                    Child::Junction(j) => self.junctions.get(j).is_some_and(|j| j.parent == *id),
                };
                if !there {
                    return Err(format!("directory {id} has a name that leads nowhere"));
                }
            }
        }
        let linked =
            self.tree.values().flat_map(|d| d.children.values()).filter(|c| matches!(c, Child::Dir(_))).count();
        if linked + 1 != self.tree.len() || !self.tree.contains_key(&ROOT_DIR) {
            return Err("the tree is not one tree".into());
        }
        Ok(())
    }
}

fn hex_names(names: &[Vec<u8>]) -> Vec<String> {
    names.iter().map(|n| text::hex(n)).collect()
}

fn filer_doc((id, f): (&FilerId, &Filer)) -> FilerDoc {
    FilerDoc {
        id: id.0,
        name: f.name.clone(),
        url: f.url.clone(),
        root: text::hex(&f.root),
        can_chown: f.found.can_chown,
        can_mknod: f.found.can_mknod,
        has_xattrs: f.found.has_xattrs,
        has_holes: f.found.has_holes,
        time_granularity_ns: f.found.time_granularity_ns,
    }
}

fn location_doc((id, l): (&LocationId, &LocationState)) -> LocationDoc {
    let role = match l.role {
        Role::Primary(junction) => RoleDoc::Primary(junction.0),
        Role::Destination(job) => RoleDoc::Destination(job.0),
        Role::Left => RoleDoc::Left,
    };
    LocationDoc {
        id: id.0,
        filer: l.filer.0,
        subdir: hex_names(&l.subdir),
        root: text::hex(&l.root.0),
        role,
        cursor: l.cursor.0,
        out_of_sync: l.out_of_sync.map(|o| OutOfSyncDoc { from: o.from.0, since: o.since.0 }),
    }
}

fn junction_doc((id, j): (&JunctionId, &Junction)) -> JunctionDoc {
    JunctionDoc {
        id: id.0,
        path: hex_names(&j.path),
        parent: j.parent.0,
        primary: j.primary.0,
        root: j.root.0,
        epoch: j.epoch,
        added: j.added.0,
        access: j.access.map(|policy| policy.0),
        suspended: j.suspended,
    }
}

fn policy_doc((id, p): (&PolicyId, &Policy)) -> PolicyDoc {
    PolicyDoc { id: id.0, name: p.name.clone(), rules: p.rules.iter().map(ToString::to_string).collect() }
}

fn dir_doc((id, d): (&NodeId, &VirtualDir)) -> DirDoc {
    let child = |child: &Child| match child {
        Child::Dir(id) => ChildDoc::Dir(id.0),
        Child::Junction(id) => ChildDoc::Junction(id.0),
    };
    let children = d.children.iter().map(|(name, c)| (text::hex(name), child(c))).collect();
    DirDoc { id: id.0, parent: d.parent.0, changed: d.changed.0, children }
}

fn job_doc((id, j): (&JobId, &Job)) -> JobDoc {
    let error = |(node, e): (&NodeId, &JobError)| ErrorDoc {
        node: node.0,
        path: text::hex(&e.path),
        error: e.error.clone(),
        fatal: e.fatal,
        time: e.time.0,
    };
    let kind = match j.kind {
        JobKind::Move => "move",
    };
    JobDoc {
        id: id.0,
        kind: kind.into(),
        junction: j.junction.0,
        source: j.source.0,
        destination: j.destination.0,
        state: jobs::name(j.state).into(),
        reason: j.reason.clone(),
        notes: j.notes.clone(),
        created: j.created.0,
        ended: j.ended.map(|t| t.0),
        switched: j.switched.map(|l| l.0),
        progress: j.progress,
        errors: j.errors.iter().map(error).collect(),
    }
}

fn names(hex: &[String]) -> Option<Vec<Vec<u8>>> {
    hex.iter().map(|n| text::unhex(n)).collect()
}

fn read(doc: Doc) -> Option<State> {
    Some(State {
        lsn: Lsn(doc.lsn),
        handle_key: text::unhex(&doc.handle_key)?.try_into().ok()?,
        next: Next {
            filer: doc.next.filer,
            location: doc.next.location,
            junction: doc.next.junction,
            job: doc.next.job,
            virtual_dir: doc.next.virtual_dir,
            policy: doc.next.policy,
        },
        filers: doc.filers.into_iter().map(read_filer).collect::<Option<_>>()?,
        locations: doc.locations.iter().map(read_location).collect::<Option<_>>()?,
        junctions: doc.junctions.iter().map(read_junction).collect::<Option<_>>()?,
        tree: doc.tree.iter().map(read_dir).collect::<Option<_>>()?,
        jobs: doc.jobs.into_iter().map(read_job).collect::<Option<_>>()?,
        policies: doc.policies.into_iter().map(read_policy).collect::<Option<_>>()?,
        hosts: doc.hosts.iter().map(read_host).collect::<Option<_>>()?,
        locks_number: doc.locks_number,
    })
}

fn read_filer(f: FilerDoc) -> Option<(FilerId, Filer)> {
    let found = FilerFound {
        can_chown: f.can_chown,
        can_mknod: f.can_mknod,
        has_xattrs: f.has_xattrs,
        has_holes: f.has_holes,
        time_granularity_ns: f.time_granularity_ns,
    };
    Some((FilerId(f.id), Filer { name: f.name, url: f.url, root: text::unhex(&f.root)?, found }))
}

fn read_location(l: &LocationDoc) -> Option<(LocationId, LocationState)> {
    let role = match l.role {
        RoleDoc::Primary(junction) => Role::Primary(JunctionId(junction)),
        RoleDoc::Destination(job) => Role::Destination(JobId(job)),
        RoleDoc::Left => Role::Left,
    };
    let location = LocationState {
        filer: FilerId(l.filer),
        subdir: names(&l.subdir)?,
        root: Identity(text::unhex(&l.root)?),
        role,
        cursor: Lsn(l.cursor),
        out_of_sync: l.out_of_sync.as_ref().map(|o| OutOfSync { from: Lsn(o.from), since: Time(o.since) }),
    };
    Some((LocationId(l.id), location))
}

fn read_junction(j: &JunctionDoc) -> Option<(JunctionId, Junction)> {
    let junction = Junction {
        path: names(&j.path)?,
        parent: NodeId(j.parent),
        primary: LocationId(j.primary),
        root: NodeId(j.root),
        epoch: j.epoch,
        added: Time(j.added),
        access: j.access.map(PolicyId),
        suspended: j.suspended,
    };
    Some((JunctionId(j.id), junction))
}

fn read_policy(p: PolicyDoc) -> Option<(PolicyId, Policy)> {
    let rules = p.rules.iter().map(|rule| rule.parse().ok()).collect::<Option<_>>()?;
    Some((PolicyId(p.id), Policy { name: p.name, rules }))
}

fn host_doc((host, at): (&Host, &KnownAt)) -> HostDoc {
    let at = at.iter().map(|at| IpAddr::from(*at)).collect();
    HostDoc { addr: IpAddr::from(host.addr), name: text::hex(&host.name), at }
}

fn read_host(h: &HostDoc) -> Option<(Host, KnownAt)> {
    let octets = |addr: &IpAddr| match addr {
        IpAddr::V6(addr) => Some(addr.octets()),
        IpAddr::V4(_) => None,
    };
    let host = Host { addr: octets(&h.addr)?, name: text::unhex(&h.name)? };
    Some((host, h.at.iter().map(octets).collect::<Option<_>>()?))
}

fn read_dir(d: &DirDoc) -> Option<(NodeId, VirtualDir)> {
    let child = |(name, child): &(String, ChildDoc)| {
        let child = match child {
            ChildDoc::Dir(id) => Child::Dir(NodeId(*id)),
            ChildDoc::Junction(id) => Child::Junction(JunctionId(*id)),
        };
        Some((text::unhex(name)?, child))
    };
    let children = d.children.iter().map(child).collect::<Option<BTreeMap<_, _>>>()?;
    Some((NodeId(d.id), VirtualDir { parent: NodeId(d.parent), children, changed: Time(d.changed) }))
}

fn read_job(j: JobDoc) -> Option<(JobId, Job)> {
    let kind = match j.kind.as_str() {
        "move" => JobKind::Move,
        _ => return None,
    };
    let error = |e: ErrorDoc| {
        let error = JobError { path: text::unhex(&e.path)?, error: e.error, fatal: e.fatal, time: Time(e.time) };
        Some((NodeId(e.node), error))
    };
    let job = Job {
        kind,
        junction: JunctionId(j.junction),
        source: LocationId(j.source),
        destination: LocationId(j.destination),
        state: jobs::parse_state(&j.state)?,
        reason: j.reason,
        notes: j.notes,
        created: Time(j.created),
        ended: j.ended.map(Time),
        switched: j.switched.map(Lsn),
        progress: j.progress,
        errors: j.errors.into_iter().map(error).collect::<Option<_>>()?,
    };
    Some((JobId(j.id), job))
}
