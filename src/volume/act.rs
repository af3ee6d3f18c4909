//! Carrying one operation out on the primary, however often it takes, and finding out what came of it.
//!
//! A call has one of three outcomes. *Done*. *Refused*: provably unchanged, which a definite error of the first call
//! is. *Not known*: the filer could not be reached, or did not answer in time. After such a call even a definite error
//! proves nothing (a REMOVE that took effect answers "no such name" when it is repeated), so then the outcome is judged
//! by identity: who is there under the name decides, and the call is repeated only if its effect is absent. An I/O error
//! of a call on names is judged the same way, and so is what a RENAME or LINK is told where a kernel may have repeated it; one
//! of a change of attributes by what they are then: it may come after the effect, and what is recorded must be what is there.
//! All this is asked of the objects that the operation began with; when its primary falls, and there may be no getting at these
//! any more, it is left to the redo ([`take_over`](super::take_over)).
//!
//! | operation | its effect is there when                                                              |
//! | --------- | ------------------------------------------------------------------------------------- |
//! | make      | the name leads to an object of the right kind that no node has                         |
//! | remove    | the name leads nowhere, or to another object                                           |
//! | rename    | the new name leads to the object and the old one does not                              |
//! | link      | the name leads to the object                                                           |
//! | set       | the attributes are as asked; after no answer it is not judged but done again           |
//! | write     | never judged: a second run is the same as the first                                    |

use super::run::Waiting;
use super::status::{is_unknown, of_kind};
use super::take_over::Effort;
use super::types::Status;
use crate::filer::{Changes, CoreFiler, Error, ErrorKind, MakeAttrs, Object, exact, in_order};
use crate::index::objects::Objects;
use crate::location::Location;
use bytes::Bytes;
use journal_format::event::{self, Event, PartDone};
use journal_format::ids::{Identity, Kind, NodeId};

/// An operation with the objects it works on.
pub(super) enum Act {
    Write {
        event: event::Write,
        obj: Object,
        data: Bytes,
    },
    Set {
        event: event::SetAttr,
        obj: Object,
    },
    Make {
        event: event::Make,
        dir: Object,
    },
    Remove {
        event: event::Remove,
        dir: Object,
        victim: Identity,
        /// The filer has lost it: nothing is taken away there, the index follows.
        lost: bool,
    },
    Rename {
        event: event::Rename,
        from: Object,
        to: Object,
        moved: Identity,
    },
    Link {
        event: event::Link,
        obj: Object,
        dir: Object,
    },
    /// Nothing is carried out: the objects are there.
    Adopt {
        event: event::Adopt,
        objects: Vec<(NodeId, Object)>,
    },
}

/// What came of it.
pub(super) enum Outcome {
    Done(Option<Object>),
    Refused(Status),
    Part(PartDone, Status),
}

impl Act {
    pub fn event(&self) -> Event {
        match self {
            Act::Write { event, .. } => Event::Write(event.clone()),
            Act::Set { event, .. } => Event::SetAttr(event.clone()),
            Act::Make { event, .. } => Event::Make(event.clone()),
            Act::Remove { event, .. } => Event::Remove(event.clone()),
            Act::Rename { event, .. } => Event::Rename(event.clone()),
            Act::Link { event, .. } => Event::Link(event.clone()),
            Act::Adopt { event, .. } => Event::Adopt(event.clone()),
        }
    }

    pub fn bulk(&self) -> &[u8] {
        match self {
            Act::Write { data, .. } => data,
            _ => &[],
        }
    }

    /// For the log.
    pub const fn name(&self) -> &'static str {
        match self {
            Act::Write { .. } => "write",
            Act::Set { .. } => "setattr",
            Act::Make { .. } => "make",
            Act::Remove { .. } => "remove",
            Act::Rename { .. } => "rename",
            Act::Link { .. } => "link",
            Act::Adopt { .. } => "adopt",
        }
    }

    /// Whether a name may lead nowhere, or elsewhere, once it is carried out.
    pub const fn takes_names(&self) -> bool {
        matches!(self, Act::Remove { .. } | Act::Rename { .. })
    }

    pub async fn carry_out(&self, location: &Location, effort: &Effort) -> Outcome {
        let filer = location.filer.as_ref();
        let mut waiting = Waiting::new(self.name(), location.id, effort);
        match self {
            Act::Write { event, obj, data } => write(filer, &mut waiting, event, obj, data).await,
            Act::Set { event, obj } => set(filer, &mut waiting, event, obj).await,
            Act::Make { event, .. } => match self.on_names(location, &mut waiting).await {
                Outcome::Done(Some(made)) => self.finish_make(filer, &mut waiting, event, made).await,
                other => other,
            },
            Act::Remove { .. } | Act::Rename { .. } | Act::Link { .. } => self.on_names(location, &mut waiting).await,
            Act::Adopt { .. } => Outcome::Done(None),
        }
    }

    /// Call, and when the outcome is in doubt judge, until there is one.
    async fn on_names(&self, location: &Location, waiting: &mut Waiting<'_>) -> Outcome {
        let mut doubt = false;
        loop {
            let error = match self.call(location.filer.as_ref()).await {
                Ok(made) => return Outcome::Done(made),
                Err(error) => error,
            };
            let proves = !is_unknown(error.kind);
            let echo = !location.filer.answers_at_once() && self.may_be_an_echo(error.kind);
            if proves && !doubt && error.kind != ErrorKind::Io && !echo {
                return Outcome::Refused(of_kind(error.kind));
            }
            doubt = true;
            waiting.is_in_doubt();
            if !proves {
                waiting.pause(&error).await;
            }
            match self.judge_until_known(location, waiting).await {
                Some(made) => return Outcome::Done(made),
                None if proves => return Outcome::Refused(of_kind(error.kind)),
                None => {}
            }
        }
    }

    /// A kernel that has a server's directory mounted sends a call again when the connection breaks, and says nothing of it:
    /// what was done by the first one is refused to the second. (REMOVE looks for itself; of what a MAKE meets nobody can tell whose
    /// it is.)
    fn may_be_an_echo(&self, kind: ErrorKind) -> bool {
        match self {
            Act::Rename { .. } => kind == ErrorKind::NotFound,
            Act::Link { .. } => kind == ErrorKind::Exists,
            _ => false,
        }
    }

    async fn judge_until_known(&self, location: &Location, waiting: &mut Waiting<'_>) -> Option<Option<Object>> {
        loop {
            match self.judge(location.filer.as_ref(), &location.objects).await {
                Ok(known) => return known,
                Err(error) => waiting.pause(&error).await,
            }
        }
    }

    async fn call(&self, filer: &dyn CoreFiler) -> Result<Option<Object>, Error> {
        match self {
            Act::Make { event, dir } => {
                let attrs = MakeAttrs { mode: event.mode, uid: event.uid, gid: event.gid, inherits: true };
                filer.make(dir, &event.name, &event.what, attrs).await.map(Some)
            }
            Act::Remove { lost: true, .. } => Ok(None),
            Act::Remove { event, dir, .. } => {
                let removed = take_away(filer, dir, &event.name, event.kind).await;
                removed.map(|()| None)
            }
            // What tain has never met is not replaced: a filer that denied the name, or somebody behind us, has it.
            Act::Rename { event, from, to, .. } if event.replaced.is_none() => {
                filer.rename_free(from, &event.from_name, to, &event.to_name).await.map(|()| None)
            }
            Act::Rename { event, from, to, .. } => {
                filer.rename(from, &event.from_name, to, &event.to_name).await.map(|()| None)
            }
            Act::Link { event, obj, dir } => filer.link(obj, dir, &event.name).await.map(|()| None),
            Act::Write { .. } | Act::Set { .. } | Act::Adopt { .. } => Ok(None),
        }
    }

    /// Is the effect there? `Some` holds what was made.
    async fn judge(&self, filer: &dyn CoreFiler, objects: &Objects) -> Result<Option<Option<Object>>, Error> {
        match self {
            Act::Make { event, dir } => {
                let Some(found) = there(filer, dir, &event.name).await? else { return Ok(None) };
                let known =
                    objects.node(&found.id).map_err(|e| Error::new(ErrorKind::Unknown, "index", e.to_string()))?;
                Ok((known.is_none() && found.kind == event.what.kind()).then_some(Some(found)))
            }
            Act::Remove { event, dir, victim, .. } => {
                let found = there(filer, dir, &event.name).await?;
                Ok(found.is_none_or(|o| o.id != *victim).then_some(None))
            }
            Act::Rename { event, from, to, moved } => {
                let new = there(filer, to, &event.to_name).await?;
                let old = there(filer, from, &event.from_name).await?;
                let done = new.is_some_and(|o| o.id == *moved) && old.is_none_or(|o| o.id != *moved);
                Ok(done.then_some(None))
            }
            Act::Link { event, obj, dir } => {
                let found = there(filer, dir, &event.name).await?;
                Ok(found.is_some_and(|o| o.id == obj.id).then_some(None))
            }
            Act::Write { .. } | Act::Set { .. } | Act::Adopt { .. } => Ok(Some(None)),
        }
    }

    /// Size and times of what was made. When they are refused the object is taken away again: a CREATE has all its
    /// effect or none.
    async fn finish_make(
        &self,
        filer: &dyn CoreFiler,
        waiting: &mut Waiting<'_>,
        event: &event::Make,
        made: Object,
    ) -> Outcome {
        let mut changes = Changes { atime: event.atime, mtime: event.mtime, ..Changes::default() };
        if event.size > 0 {
            changes.size = Some(event.size);
        }
        if waiting.was_in_doubt() {
            // Found by judging: the call that made it may not have come as far as its attributes.
            (changes.uid, changes.gid) = (Some(event.uid), Some(event.gid));
            changes.mode = (event.what.kind() != Kind::Symlink).then_some(event.mode);
        }
        if changes == Changes::default() {
            return Outcome::Done(Some(made));
        }
        match set_until_known(filer, waiting, &made, changes).await {
            Ok(()) => Outcome::Done(Some(made)),
            Err(error) => {
                self.undo_make(filer, waiting).await;
                Outcome::Refused(of_kind(error.kind))
            }
        }
    }

    async fn undo_make(&self, filer: &dyn CoreFiler, waiting: &mut Waiting<'_>) {
        let Act::Make { event, dir } = self else { return };
        loop {
            match take_away(filer, dir, &event.name, event.what.kind()).await {
                Ok(()) => return,
                Err(error) => waiting.pause(&error).await,
            }
        }
    }
}

async fn there(filer: &dyn CoreFiler, dir: &Object, name: &[u8]) -> Result<Option<Object>, Error> {
    match exact::lookup(filer, dir, name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind.is_no_entry() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name that is not there any more is taken away: somebody changed the filer behind us, and the index must follow.
async fn take_away(filer: &dyn CoreFiler, dir: &Object, name: &[u8], kind: Kind) -> Result<(), Error> {
    let result = if kind == Kind::Dir { filer.rmdir(dir, name).await } else { filer.remove(dir, name).await };
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => match there(filer, dir, name).await? {
            // The filer contradicts itself: the name is there, and nothing was done.
            Some(_) => Err(error),
            None => Ok(()),
        },
        other => other,
    }
}

async fn write(
    filer: &dyn CoreFiler,
    waiting: &mut Waiting<'_>,
    event: &event::Write,
    obj: &Object,
    data: &Bytes,
) -> Outcome {
    let written = loop {
        match filer.write(obj, event.offset, data.clone()).await {
            Ok(()) => break Ok(()),
            Err(error) if is_unknown(error.kind) => waiting.pause(&error).await,
            Err(error) => break Err(error),
        }
    };
    let (done, error) = match written {
        Ok(()) => (event.len, None),
        Err(error) => (u32::try_from(error.done).unwrap_or(event.len).min(event.len), Some(error)),
    };
    if let Some(error) = &error
        && done == 0
    {
        let unchanged = !waiting.has_waited() && error.kind != ErrorKind::Io;
        let status = of_kind(error.kind);
        return if unchanged { Outcome::Refused(status) } else { Outcome::Part(PartDone::Bytes(0), status) };
    }
    // Behind the bytes: a write that is refused leaves the mode alone.
    let changes = Changes { mode: event.mode, ..Changes::default() };
    let cleared = match event.mode {
        Some(_) => set_until_known(filer, waiting, obj, changes).await,
        None => Ok(()),
    };
    match error.or(cleared.err()) {
        None => Outcome::Done(None),
        Some(error) => Outcome::Part(PartDone::Bytes(done), of_kind(error.kind)),
    }
}

/// Group by group, in the order in which they must be set, so that a failure between them is known for what it is. (A
/// mode that drops the set-id bits comes before a new owner: else they would be his for a moment.)
async fn set(filer: &dyn CoreFiler, waiting: &mut Waiting<'_>, event: &event::SetAttr, obj: &Object) -> Outcome {
    let none = Changes::default();
    let owner = Changes { uid: event.uid, gid: event.gid, ..none };
    let mode = Changes { mode: event.mode, ..none };
    let size = Changes { size: event.size, ..none };
    let times = Changes { atime: event.atime, mtime: event.mtime, ..none };
    let mut done = [false; 4];
    let groups = [owner, mode, size, times];
    for i in in_order(event.mode) {
        let changes = groups[i];
        if changes == none {
            continue;
        }
        if let Err(error) = set_until_known(filer, waiting, obj, changes).await {
            let status = of_kind(error.kind);
            let unchanged = !waiting.has_waited() && error.kind != ErrorKind::Io && !done.contains(&true);
            let [owner, mode, size, times] = done;
            return if unchanged {
                Outcome::Refused(status)
            } else {
                Outcome::Part(PartDone::Attrs { mode, owner, size, times }, status)
            };
        }
        done[i] = true;
    }
    Outcome::Done(None)
}

async fn set_until_known(
    filer: &dyn CoreFiler,
    waiting: &mut Waiting<'_>,
    obj: &Object,
    changes: Changes,
) -> Result<(), Error> {
    loop {
        match filer.set(obj, changes).await {
            Err(error) if is_unknown(error.kind) => waiting.pause(&error).await,
            Err(error) if error.kind == ErrorKind::Io && has(filer, obj, &changes).await => {
                tracing::warn!(%error, "attributes were set all the same");
                return Ok(());
            }
            result => return result,
        }
    }
}

/// Whether the object's attributes are as asked; a filer that does not say has not shown it.
async fn has(filer: &dyn CoreFiler, obj: &Object, changes: &Changes) -> bool {
    let Ok(stat) = filer.stat(obj).await else { return false };
    changes.uid.is_none_or(|uid| uid == stat.uid)
        && changes.gid.is_none_or(|gid| gid == stat.gid)
        && changes.mode.is_none_or(|mode| mode == stat.mode)
        && changes.size.is_none_or(|size| size == stat.size)
        && changes.atime.is_none_or(|atime| atime == stat.atime)
        && changes.mtime.is_none_or(|mtime| mtime == stat.mtime)
}
