//! What happens to calls: faults, and how long they take; and to what is on the filer: damage, no room.

use super::image::{Ino, Inode, refuse};
use super::{Memory, World, ino};
use crate::filer::{ErrorKind, MakeAttrs, Object, Result};
use journal_format::event::What;
use journal_format::ids::{Kind, Time};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a script does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens.
    Before(ErrorKind),
    /// It happens, and the caller is told this.
    After(ErrorKind),
    /// A sync that fails: bytes written since the last one are lost for good, though they can be read.
    Lost(ErrorKind),
}

/// One call's fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Until it happens, and from then to its answer. A caller that is dropped meanwhile never knows which.
    pub before: Duration,
    pub after: Duration,
    pub fault: Option<Fault>,
}

/// Asked before every call, by the method's name.
pub type Script = Box<dyn Fn(&'static str) -> Turn + Send + Sync>;

pub type Hook = Box<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;

impl Memory {
    /// A script that only says which calls fail.
    pub fn set_fault(&self, hook: Option<Hook>) {
        let script = |hook: Hook| -> Script { Box::new(move |op| Turn { fault: hook(op), ..Turn::default() }) };
        self.set_script(hook.map(script));
    }

    /// Asked before every call, by the method's name; `None` takes it away.
    pub fn set_script(&self, script: Option<Script>) {
        *self.shared.script.write() = script;
    }

    /// From now on another file system is mounted on this directory, or not any more: its name is listed, and leads out
    /// of the filer.
    pub fn mount_on(&self, dir: &Object, mounted: bool) -> Result<()> {
        let (ino, mut mounts) = (ino(dir)?, self.shared.mounts.write());
        if mounted {
            mounts.insert(ino)
        } else {
            mounts.remove(&ino)
        };
        Ok(())
    }

    /// It is mounted anew, as FUSE when its process has died: what was opened before answers nothing any more, and the next
    /// sync says so.
    pub fn mount_anew(&self) {
        self.shared.world.lock().remounted = true;
        self.shared.mounted.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes that it holds from now on.
    pub fn set_space(&self, bytes: u64) {
        self.shared.world.lock().space = bytes;
    }

    /// What the filer's clock shows; each change moves it on by a nanosecond.
    pub fn set_now(&self, now: Time) {
        self.shared.world.lock().now = now.0;
    }

    /// Syncs that succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.world.lock().syncs
    }

    /// Puts an empty directory in the place of the root, as an unmounted disk does.
    pub fn replace_root(&self) {
        let mut world = self.shared.world.lock();
        let (ino, now) = (world.number(), world.tick());
        world
            .live
            .insert(ino, Inode::new(&What::Dir, MakeAttrs { mode: 0o755, uid: 0, gid: 0, inherits: false }, now, ino));
        world.root = ino;
    }

    /// From now on nobody can read the object's attributes and text.
    pub fn damage(&self, object: &Object) -> Result<()> {
        let ino = ino(object)?;
        self.shared.world.lock().damaged.insert(ino);
        Ok(())
    }

    /// No object is damaged any more.
    pub fn mend(&self) {
        self.shared.world.lock().damaged.clear();
    }
}

impl Memory {
    /// From now on as a mounted NFS: a file that is removed while it is held keeps a name, and so its directory.
    pub fn keep_names_of_held(&self) {
        self.shared.world.lock().silly.get_or_insert_default();
    }
}

impl World {
    /// `ino` is about to lose its name in `dir`.
    pub(super) fn take_silly(&mut self, dir: Ino, ino: Ino) -> Result<()> {
        let Some(silly) = &mut self.silly else { return Ok(()) };
        silly.retain(|ino, _| self.held.contains_key(ino));
        if silly.values().any(|dir| *dir == ino) {
            return refuse(ErrorKind::NotEmpty, "remove");
        }
        if self.live.get(ino)?.stat.kind != Kind::Dir {
            silly.insert(ino, dir);
        }
        Ok(())
    }

    pub(super) fn readable(&self, ino: Ino) -> Result<&Inode> {
        if self.damaged.contains(&ino) {
            return refuse(ErrorKind::Io, "read what it is");
        }
        self.live.get(ino)
    }
}
