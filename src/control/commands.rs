//! The flow of each command: look, check, claim, command; and back when it is refused.

use super::asked::Asked;
use super::{Port, Problem, Result, folding, twice};
use crate::filer::hidden::PEN;
use crate::filer::{self, Changes, CoreFiler, ErrorKind, OwnerMarker, Probe, registry};
use crate::state::{Command, Filer, JobAction, Role, State, decide, filers, junctions, text};
use journal_format::event::JobState;
use journal_format::ids::{FilerId, Identity, JobId, JunctionId, Kind, LocationId};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Mutex;
use tracing::warn;

/// A destination's entries are counted up to here.
const ENTRIES_COUNTED_MAX: usize = 1000;

/// A directory on a filer, as a request names it: `FILER:/sub/dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub filer: String,
    pub subdir: Vec<Vec<u8>>,
}

impl Place {
    /// From its text, escaped.
    pub(super) fn parse(place: &str) -> Result<Self> {
        let form = "name it FILER:/path";
        let (filer, path) =
            place.split_once(':').ok_or_else(|| Problem::bad(format!("'{place}' is not a location"), form))?;
        Ok(Self { filer: filer.into(), subdir: parse_path(path)? })
    }
}

/// An absolute path from its text, escaped.
pub(super) fn parse_path(path: &str) -> Result<Vec<Vec<u8>>> {
    let bytes = text::unescape(path)
        .ok_or_else(|| Problem::bad(format!("'{path}' is not escaped well"), "write a backslash as \\\\"))?;
    junctions::parse_path(&bytes).map_err(Problem::Bad)
}

pub(super) struct Commands {
    pub port: Arc<dyn Port>,
    /// Commands that name new things look first and append then: one at a time.
    creating: Mutex<()>,
    asked: Asked,
}

/// A directory that was opened for a new location.
struct Opened {
    location: Arc<dyn CoreFiler>,
    root: Identity,
    /// The filer's URL and root.
    url: String,
    expected_root: Vec<u8>,
}

impl Commands {
    pub(super) fn new(port: Arc<dyn Port>) -> Self {
        Self { port, creating: Mutex::new(()), asked: Asked::default() }
    }

    /// What the filer at `url` answers, in time.
    async fn ask<T>(&self, url: &str, asked: impl Future<Output = filer::Result<T>>) -> filer::Result<T> {
        self.asked.ask(url, asked).await
    }

    pub(super) async fn add_filer(&self, name: String, url: String) -> Result<Probe> {
        let _one = self.creating.lock().await;
        let url = self.port.canonical(&url).map_err(|e| {
            Problem::bad(format!("'{url}' is not the URL of a filer: {}", e.detail), "write it as posix:///directory")
        })?;
        let probe = self.ask(&url, self.port.probe(&url)).await.map_err(|e| {
            Problem::refused(format!("filer {url} cannot be used: {e}"), "make it reachable, then add it again")
        })?;
        let command = Command::AddFiler { name, url, root: probe.root.clone(), found: probe.found };
        let state = self.port.state();
        decide(&state, &command).map_err(Problem::Refused)?;
        if let Some(twin) = state.filers.values().find(|f| probe.root_is_unique && f.root == probe.root) {
            return Err(Problem::Refused(filers::same_place(twin)));
        }
        self.port.command(command).await?;
        Ok(probe)
    }

    pub(super) async fn remove_filer(&self, name: String) -> Result<()> {
        let _one = self.creating.lock().await;
        self.port.command(Command::RemoveFiler { name }).await?;
        Ok(())
    }

    pub(super) async fn check_filer(&self, filer: &Filer) -> std::result::Result<Probe, String> {
        let probe = self.ask(&filer.url, self.port.probe(&filer.url)).await.map_err(|e| e.to_string())?;
        if probe.root == filer.root { Ok(probe) } else { Err("its root is not the one that was added".into()) }
    }

    pub(super) async fn add_junction(&self, path: Vec<Vec<u8>>, at: Place, access: Option<String>) -> Result<()> {
        let _one = self.creating.lock().await;
        let state = self.port.state();
        let mut command = Command::AddJunction {
            path,
            filer: at.filer.clone(),
            subdir: at.subdir.clone(),
            root: Identity::default(),
            node: Default::default(),
            mtime: Default::default(),
            ctime: Default::default(),
            access,
        };
        // What State can tell is refused before any filer is asked.
        decide(&state, &command).map_err(Problem::Refused)?;
        let opened = self.open(&state, &at).await.map_err(|e| match e.kind {
            ErrorKind::NotFound | ErrorKind::NotDir => {
                Problem::refused(format!("{} is not a directory there", name(&at)), "create it first")
            }
            _ => unusable(&at, &e),
        })?;
        let stat = self.stat_root(&at, &opened).await?;
        self.check_place(&state, &at, &opened).await?;
        if let Command::AddJunction { root, node, mtime, ctime, .. } = &mut command {
            *root = opened.root.clone();
            *node = self.port.allocate_node();
            (*mtime, *ctime) = (stat.mtime, stat.ctime);
        }
        self.claim_and_command(&state, &at, &opened, 1, command).await
    }

    /// What stays at its location.
    pub(super) async fn remove_junction(&self, junction: JunctionId) -> Result<Vec<String>> {
        let one = self.creating.lock().await;
        let state = self.port.state();
        let command = Command::RemoveJunction { junction };
        decide(&state, &command).map_err(Problem::Refused)?;
        let Some((path, primary)) = state.junctions.get(&junction).map(|j| (&j.path, j.primary)) else {
            return Ok(Vec::new());
        };
        // What clients were told is done must be on the filer before nobody redoes it there any more.
        let rest = self.port.rest(junction).await.map_err(|why| {
            let reason = format!("junction {} cannot be removed: {why}", text::path(path));
            Problem::refused(reason, "make its filer reachable, then try again")
        })?;
        self.port.command(command).await?;
        drop(rest);
        drop(one);
        Ok(self.release(&state, primary).await)
    }

    /// Other settings of a junction. When it is suspended: why operations that were under way may go on, if they may.
    pub(super) async fn modify_junction(
        &self,
        junction: JunctionId,
        access: Option<String>,
        suspended: Option<bool>,
    ) -> Result<Option<String>> {
        self.port.command(Command::ModifyJunction { junction, access, suspended }).await?;
        if suspended != Some(true) {
            return Ok(None);
        }
        // From here on none begins. Those under way end first; a filer that hangs is no reason to let clients in.
        Ok(self.port.rest(junction).await.err())
    }

    pub(super) async fn create_move(
        &self,
        source: Vec<Vec<u8>>,
        to: Place,
        notes: String,
        stopped: bool,
    ) -> Result<JobId> {
        let _one = self.creating.lock().await;
        let state = self.port.state();
        let root = Identity::default();
        let command =
            Command::CreateMove { source, filer: to.filer.clone(), subdir: to.subdir.clone(), root, notes, stopped };
        decide(&state, &command).map_err(Problem::Refused)?;
        let (opened, made_from) = self.open_or_create(&state, &to).await?;
        let done = self.create_move_at(&state, &to, &opened, made_from.is_none(), command).await;
        if let (Err(_), Some(level)) = (&done, made_from)
            && !self.has_location(state.next.location)
        {
            self.remove_made(&to, &opened.url, &opened.expected_root, level).await;
        }
        done.map(|()| JobId(state.next.job))
    }

    async fn create_move_at(
        &self,
        state: &State,
        to: &Place,
        opened: &Opened,
        was_there: bool,
        mut command: Command,
    ) -> Result<()> {
        self.stat_root(to, opened).await?;
        self.check_place(state, to, opened).await?;
        if was_there {
            self.check_empty(to, &opened.url, opened.location.as_ref()).await?;
        }
        if let Command::CreateMove { root, .. } = &mut command {
            *root = opened.root.clone();
        }
        self.claim_and_command(state, to, opened, 0, command).await
    }

    /// What stays at the destination of a job that was aborted.
    pub(super) async fn act(&self, job: JobId, action: JobAction) -> Result<Vec<String>> {
        let state = self.port.state();
        let command = Command::JobAction { job, action };
        if action == JobAction::Start && state.jobs.get(&job).is_some_and(|it| it.state == JobState::Stopped) {
            // What is found there is to hold until the job has started. Nothing else waits for commands that ask filers.
            let _one = self.creating.lock().await;
            decide(&self.port.state(), &command).map_err(Problem::Refused)?;
            self.check_still_empty(&state, job).await?;
            self.port.command(command).await?;
            return Ok(Vec::new());
        }
        self.port.command(command).await?;
        match (action, state.jobs.get(&job)) {
            (JobAction::Abort, Some(job)) => Ok(self.release(&state, job.destination).await),
            _ => Ok(Vec::new()),
        }
    }

    /// Open a directory that must be there.
    async fn open(&self, state: &State, at: &Place) -> filer::Result<Opened> {
        let Some((_, filer)) = state.filer_by_name(&at.filer) else {
            return Err(filer::Error::new(ErrorKind::NotFound, "open", format!("there is no filer '{}'", at.filer)));
        };
        let (url, expected_root) = (filer.url.clone(), filer.root.clone());
        let location = self.ask(&url, self.port.open(&url, &expected_root, &at.subdir, None)).await?;
        let root = self.ask(&url, location.root()).await?;
        if root.kind != Kind::Dir {
            return Err(filer::Error::new(ErrorKind::NotDir, "open", "not a directory"));
        }
        Ok(Opened { location, root: root.id, url, expected_root })
    }

    /// The destination, created when it is missing; then also how many of its names were there before.
    async fn open_or_create(&self, state: &State, to: &Place) -> Result<(Opened, Option<usize>)> {
        match self.open(state, to).await {
            Ok(opened) => return Ok((opened, None)),
            Err(e) if e.kind == ErrorKind::NotFound && !to.subdir.is_empty() => {}
            Err(e) => return Err(unusable(to, &e)),
        }
        let mut there = to.subdir.len() - 1;
        while there > 0 {
            let above = Place { filer: to.filer.clone(), subdir: to.subdir.iter().take(there).cloned().collect() };
            match self.open(state, &above).await {
                Ok(_) => break,
                Err(e) if e.kind == ErrorKind::NotFound => there -= 1,
                Err(e) => return Err(unusable(to, &e)),
            }
        }
        let Some((_, filer)) = state.filer_by_name(&to.filer) else {
            return Err(Problem::refused(format!("there is no filer '{}'", to.filer), "add it first"));
        };
        let created = self.ask(&filer.url, self.port.create_subdir(&filer.url, &filer.root, &to.subdir)).await;
        crash_point!("DESTINATION_CREATED");
        let opened = match created {
            Ok(()) => self.open(state, to).await,
            Err(e) => Err(e),
        };
        match opened {
            Ok(opened) => Ok((opened, Some(there))),
            Err(e) => {
                self.remove_made(to, &filer.url, &filer.root, there).await;
                let reason = format!("{} is missing and cannot be created: {e}", name(to));
                Err(Problem::refused(reason, "create it by hand, or choose another directory"))
            }
        }
    }

    /// Take away, deepest first, the directories that were made below the first `there` names. Only empty ones go.
    async fn remove_made(&self, to: &Place, url: &str, root: &[u8], there: usize) {
        for depth in (there..to.subdir.len()).rev() {
            let (Some(above), Some(last)) = (to.subdir.get(..depth), to.subdir.get(depth)) else { return };
            let removed = async {
                let location = self.ask(url, self.port.open(url, root, above, None)).await?;
                let dir = self.ask(url, location.root()).await?;
                self.ask(url, location.rmdir(&dir, last)).await
            };
            match removed.await {
                Ok(()) => {}
                Err(e) if e.kind == ErrorKind::NotFound => {}
                Err(e) => {
                    warn!("{}: a directory made for a move that was refused stays: {e}", name(to));
                    return;
                }
            }
        }
    }

    async fn stat_root(&self, at: &Place, opened: &Opened) -> Result<filer::Stat> {
        let stat = async {
            let root = self.ask(&opened.url, opened.location.root()).await?;
            self.ask(&opened.url, opened.location.stat(&root)).await
        };
        stat.await.map_err(|e| unusable(at, &e))
    }

    /// Nobody else's, apart from every location in use by whatever URL, and writable.
    async fn check_place(&self, state: &State, at: &Place, opened: &Opened) -> Result<()> {
        let here = name(at);
        let owner = self.ask(&opened.url, opened.location.owner()).await.map_err(|e| unusable(at, &e))?;
        if let Some(owner) = owner {
            self.check_owner(state, &here, &owner, opened).await?;
        }
        for own in self.port.own_dirs() {
            match self.ask(&opened.url, self.port.overlaps(&opened.url, &at.subdir, &own, &[])).await {
                Ok(false) => {}
                Ok(true) => {
                    let reason = format!("{here} overlaps {own}, where this service keeps its own data");
                    return Err(Problem::refused(reason, "choose a directory that has nothing of it inside or above"));
                }
                // It is not there (yet).
                Err(e) if e.kind == ErrorKind::NotFound => {}
                Err(e) => {
                    let reason = format!("whether {here} overlaps {own}, the service's own, cannot be told: {e}");
                    return Err(Problem::refused(reason, "look whether both are reachable, then try again"));
                }
            }
        }
        for (id, location) in state.locations.iter().filter(|(id, l)| in_use(state, **id, l.role)) {
            let Some(other) = state.filers.get(&location.filer) else { continue };
            let asked = self.port.overlaps(&opened.url, &at.subdir, &other.url, &location.subdir);
            let there = state.location_name(*id);
            match self.ask(&other.url, asked).await {
                Ok(false) => {}
                Ok(true) => {
                    let reason = format!("{here} overlaps {there}, {}", user(state, location.role));
                    return Err(Problem::refused(reason, "choose a directory beside it"));
                }
                Err(e) => {
                    let reason = format!("whether {here} overlaps {there} cannot be told: {e}");
                    return Err(Problem::refused(reason, "make both filers reachable, then try again"));
                }
            }
        }
        let left = async {
            let root = self.ask(&opened.url, opened.location.root()).await?;
            let mtime = self.ask(&opened.url, opened.location.stat(&root)).await?.mtime;
            let pen = self.ask(&opened.url, opened.location.pen()).await?;
            let left = self.ask(&opened.url, twice::holds_anything(opened.location.as_ref(), &pen)).await?;
            let folded = self.ask(&opened.url, folding::takes_for_one(opened.location.as_ref(), &pen)).await?;
            self.ask(&opened.url, opened.location.remove_pen()).await?;
            // Its time is the tree's. Somebody else's directory keeps ours: an ordinary user cannot set it.
            let changes = Changes { mtime: Some(mtime), ..Changes::default() };
            let _ = self.ask(&opened.url, opened.location.set(&root, changes)).await;
            Ok::<_, filer::Error>((left, folded))
        };
        let (left, folded) = left.await.map_err(|e| {
            Problem::refused(format!("{here} is not writable: {e}"), "let the service's user write there")
        })?;
        if left {
            let pen = String::from_utf8_lossy(PEN);
            let reason = format!("{here} has a directory '{pen}' with what an earlier move left there");
            return Err(Problem::refused(reason, "look at it and remove it, or choose another directory"));
        }
        if let Some(how) = folded {
            let reason = format!(
                "{here} takes names for one that differ {how}: an object could have two names, and a copy both"
            );
            return Err(Problem::refused(
                reason,
                "choose a directory that tells names apart by their bytes (of ext4 or F2FS: one that was made without \
                 casefold; of a mount: by its options, or its server's)",
            ));
        }
        Ok(())
    }

    async fn check_owner(&self, state: &State, here: &str, owner: &OwnerMarker, opened: &Opened) -> Result<()> {
        if owner.journal_id != self.port.journal_id() {
            let reason = format!("{here} belongs to another tain, with journal {}", text::hex(&owner.journal_id));
            return Err(Problem::refused(reason, "remove its junction or job there, or choose another directory"));
        }
        let id = LocationId(owner.location);
        match state.locations.get(&id) {
            Some(location) if in_use(state, id, location.role) && self.is_there(state, id, here, opened).await? => {
                let reason = format!("{here} is {}, {}", state.location_name(id), user(state, location.role));
                Err(Problem::refused(reason, "choose a directory beside it"))
            }
            // Left behind, a copy of a location's directory, or of a command that did not come through (another one
            // was given its number since): ours to use.
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the directory is that of the location whose marker it has.
    async fn is_there(&self, state: &State, id: LocationId, here: &str, opened: &Opened) -> Result<bool> {
        let Some(location) = state.locations.get(&id) else { return Ok(false) };
        let Some(filer) = state.filers.get(&location.filer) else { return Ok(false) };
        // On mounted servers roots of two file systems may look alike.
        if location.root == opened.root && registry::is_root_unique(&filer.url, &filer.root) {
            return Ok(true);
        }
        let asked = async {
            let open = self.port.open(&filer.url, &filer.root, &location.subdir, Some(&location.root));
            let used = self.ask(&filer.url, open).await?;
            // Something else may be mounted there, which would be another directory, of course.
            let on = (filer.url.as_str(), filer.root.as_slice());
            let marked = registry::check_marker(self.port.journal_id(), id, on, used.as_ref());
            self.ask(&filer.url, marked).await?;
            let root = self.ask(&filer.url, used.root()).await?;
            let mtime = self.ask(&filer.url, used.stat(&root)).await?.mtime;
            let one = self.ask(&filer.url, twice::is_one(used.as_ref(), opened.location.as_ref())).await;
            // The root's time is the tree's.
            self.ask(&filer.url, used.set(&root, Changes { mtime: Some(mtime), ..Changes::default() })).await?;
            one
        };
        asked.await.map_err(|e| {
            let there = state.location_name(id);
            let reason = format!(
                "{here} has the owner marker of {there}, and whether it is the same directory cannot be told: {e}"
            );
            Problem::refused(reason, "make both filers reachable, then try again")
        })
    }

    /// The destination of a job that was created stopped. Nobody has looked at it since: what somebody has put there
    /// would be part of the primary behind the switch, and no client would see it.
    async fn check_still_empty(&self, state: &State, job: JobId) -> Result<()> {
        let Some(job) = state.jobs.get(&job) else { return Ok(()) };
        let Some(location) = state.locations.get(&job.destination) else { return Ok(()) };
        let Some(filer) = state.filers.get(&location.filer) else { return Ok(()) };
        let to = Place { filer: filer.name.clone(), subdir: location.subdir.clone() };
        let open = self.port.open(&filer.url, &filer.root, &to.subdir, Some(&location.root));
        let there = self.ask(&filer.url, open).await.map_err(|e| unusable(&to, &e))?;
        let on = (filer.url.as_str(), filer.root.as_slice());
        let marked = registry::check_marker(self.port.journal_id(), job.destination, on, there.as_ref());
        self.ask(&filer.url, marked).await.map_err(|e| unusable(&to, &e))?;
        self.check_empty(&to, &filer.url, there.as_ref()).await
    }

    async fn check_empty(&self, to: &Place, url: &str, location: &dyn CoreFiler) -> Result<()> {
        let (mut count, mut example, mut from) = (0, None, Some(0));
        while let Some(at) = from.filter(|_| count < ENTRIES_COUNTED_MAX) {
            let page = async {
                let root = self.ask(url, location.root()).await?;
                self.ask(url, location.list(&root, at, ENTRIES_COUNTED_MAX)).await
            };
            let page = page.await.map_err(|e| unusable(to, &e))?;
            count += page.names.len();
            example = example.or_else(|| page.names.first().map(|n| text::escape(n)));
            from = page.next;
        }
        let Some(example) = example else { return Ok(()) };
        let count = if from.is_some() { format!("{count} or more") } else { count.to_string() };
        let entries = if count == "1" { "entry" } else { "entries" };
        let reason = format!("{} is not empty: {count} {entries}, e.g. '{example}'", name(to));
        Err(Problem::refused(reason, "empty it, or choose another directory"))
    }

    /// A journal that failed says nothing of what it has appended: the next start may find it, as State has it.
    fn has_location(&self, id: u32) -> bool {
        self.port.state().locations.contains_key(&LocationId(id))
    }

    /// The marker first, so that the place is never used without it; away with it when the command was not recorded.
    async fn claim_and_command(
        &self,
        state: &State,
        at: &Place,
        opened: &Opened,
        epoch: u64,
        command: Command,
    ) -> Result<()> {
        // Locations are given out by these commands alone, and they run one at a time.
        let marker = OwnerMarker { journal_id: self.port.journal_id(), location: state.next.location, epoch };
        crash_point!("CLAIM_BEFORE");
        let claimed = self.ask(&opened.url, opened.location.claim(&marker)).await;
        crash_point!("CLAIM_DONE");
        let done = match claimed {
            Ok(()) => self.port.command(command).await.map(|_| ()).map_err(Problem::from),
            Err(e) => {
                let reason = format!("{} cannot be marked as this tain's: {e}", name(at));
                Err(Problem::refused(reason, "let the service's user write there"))
            }
        };
        crash_point!("CLAIM_COMMANDED");
        if done.is_err()
            && !self.has_location(marker.location)
            && let Err(e) = self.ask(&opened.url, opened.location.unclaim()).await
        {
            warn!("{}: the marker of a refused command stays: {e}", name(at));
        }
        done
    }

    /// A location that nothing uses any more loses its marker and pen. What stays there is said: it stands in another tain's
    /// way, and this one does not try again. Other commands go on while a filer is waited for.
    async fn release(&self, state: &State, id: LocationId) -> Vec<String> {
        let Some(location) = state.locations.get(&id) else { return Vec::new() };
        let there = state.location_name(id);
        let mut stays = Vec::new();
        let released = async {
            let gone = || filer::Error::new(ErrorKind::Down, "reach it", "its filer was removed");
            let filer = state.filers.get(&location.filer).ok_or_else(gone)?;
            let used = |why| filer::Error::new(ErrorKind::Busy, "let go of it", why);
            self.port.quiesce(id).await.map_err(used)?;
            crash_point!("RELEASE_QUIESCED");
            let open = self.port.open(&filer.url, &filer.root, &location.subdir, Some(&location.root));
            let it = self.ask(&filer.url, open).await?;
            self.ask(&filer.url, it.owner()).await?;
            // It answers. A new command may have claimed the place since: then the marker is not the old one any more.
            let _one = self.creating.lock().await;
            // Another tain counts its locations, too.
            let ours = |marker: OwnerMarker| marker.journal_id == self.port.journal_id() && marker.location == id.0;
            if !self.ask(&filer.url, it.owner()).await?.is_some_and(ours) {
                return Ok(());
            }
            let root = self.ask(&filer.url, it.root()).await?;
            let mtime = self.ask(&filer.url, it.stat(&root)).await?.mtime;
            if let Err(e) = self.ask(&filer.url, it.remove_pen()).await {
                stays.push(format!("{there} keeps tain's pen: {e}"));
            }
            crash_point!("RELEASE_BEFORE_UNCLAIM");
            self.ask(&filer.url, it.unclaim()).await?;
            // The root's time is the tree's.
            self.ask(&filer.url, it.set(&root, Changes { mtime: Some(mtime), ..Changes::default() })).await
        };
        crash_point!("RELEASE_BEGIN");
        if let Err(e) = released.await {
            stays.push(format!(
                "{there} keeps tain's owner marker, which is to be removed before another tain uses it: {e}"
            ));
        }
        for what in &stays {
            warn!("{what}");
        }
        stays
    }
}

/// `FILER:/path`, escaped.
pub(super) fn name(place: &Place) -> String {
    format!("{}:{}", place.filer, text::path(&place.subdir))
}

/// A side that was left behind is anybody's when its job has ended.
fn in_use(state: &State, id: LocationId, role: Role) -> bool {
    role != Role::Left || state.tidied_by(id).is_some()
}

fn user(state: &State, role: Role) -> String {
    match role {
        Role::Primary(junction) => {
            let path = state.junctions.get(&junction).map(|found| text::path(&found.path));
            format!("the location of junction {}", path.unwrap_or_else(|| junction.0.to_string()))
        }
        Role::Destination(job) => format!("the destination of job {job}"),
        Role::Left => "which a job that has just moved away is tidying up".into(),
    }
}

fn unusable(at: &Place, e: &filer::Error) -> Problem {
    Problem::refused(format!("{} cannot be used: {e}", name(at)), "tain filer check tells more")
}

/// Who uses a filer, for its view.
pub(super) fn users(state: &State, filer: FilerId) -> Vec<String> {
    let used = state.locations.iter().filter(|(_, l)| l.filer == filer && l.role != Role::Left);
    used.map(|(_, l)| match l.role {
        Role::Primary(j) => {
            state.junctions.get(&j).map_or_else(String::new, |j| format!("junction {}", text::path(&j.path)))
        }
        Role::Destination(job) => format!("job {job}"),
        Role::Left => String::new(),
    })
    .collect()
}
