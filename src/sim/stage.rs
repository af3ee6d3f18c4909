//! A world that is told: a filer with people's files, clients that work on it, and one move of it to another filer.

use super::actor::Shared;
use super::life::{Ground, Life, Place};
use super::model::Model;
use super::rng::Rng;
use super::world::{World, base_of, people};
use crate::env::simulated::SimDisk;
use crate::filer::memory::{Memory, Options, named};
use crate::filer::{CoreFiler, OwnerMarker};
use journal_format::ids::Kind;
use std::time::Duration;
use tokio::time::sleep;

/// How often a command is given that a filer kept from being done.
const ASKED_MAX: u32 = 6;
const MEANWHILE: Duration = Duration::from_millis(500);

pub(super) struct Stage {
    pub world: World,
    pub source: Place,
    pub destination: Place,
}

impl Stage {
    /// Both filers behave until they are told otherwise.
    ///
    /// # Errors
    /// A filer that cannot be filled.
    pub async fn new(seed: u64) -> Result<Self, String> {
        named::clear();
        let mut rng = Rng::new(seed);
        let options = Options::default();
        let ground = Ground::new(options, SimDisk::new(rng.draw()), Shared::default());
        let memory = Memory::new(options);
        people(&memory, &mut rng).await.map_err(|e| e.to_string())?;
        carry_more(&memory).await.map_err(|e| e.to_string())?;
        let base: Model = base_of(&memory.tree());
        let source = ground.add_place(memory, rng.fork());
        let second = Memory::new(Options { first: 1 + (1 << 32), ..options });
        let destination = ground.add_place(second, rng.fork());
        for place in [&source, &destination] {
            place.memory.set_script(None);
        }
        Ok(Self { world: World::new(ground, base, rng), source, destination })
    }

    /// The service with its junction, which clients reach.
    ///
    /// # Errors
    /// It does not come up, however often it is asked to.
    pub async fn begin(&self) -> Result<Life, String> {
        let life = Life::start(&self.world.ground)?;
        if !life.is_set_up() {
            let mut asked = 0;
            while let Err(why) = self.set_up(&life).await {
                asked += 1;
                if asked == ASKED_MAX {
                    return Err(format!("the junction cannot be made: {why}"));
                }
                sleep(MEANWHILE).await;
            }
        }
        life.primary_is_up().await?;
        self.world.take_down(&life)?;
        Ok(life)
    }

    /// # Errors
    /// The move cannot be begun, however often it is asked for.
    pub async fn begin_move(&self, life: &Life) -> Result<(), String> {
        let mut asked = 0;
        loop {
            match self.move_to_destination(life).await {
                // A filer that was added before its move was refused needs not be added again.
                Ok(()) => return Ok(()),
                Err(why) if asked == ASKED_MAX => return Err(format!("the move cannot be begun: {why}")),
                Err(_) => asked += 1,
            }
            sleep(MEANWHILE).await;
        }
    }

    async fn set_up(&self, life: &Life) -> Result<(), String> {
        claim(life, &self.source).await?;
        life.set_up(&self.source).await
    }

    async fn move_to_destination(&self, life: &Life) -> Result<(), String> {
        claim(life, &self.destination).await?;
        life.move_to(&self.destination).await
    }

    /// Both sides held the same at one switch.
    ///
    /// # Errors
    /// The move did not get there.
    pub fn has_moved(&self) -> Result<(), String> {
        match self.world.ground.switches.lock().len() {
            1 => Ok(()),
            n => Err(format!("C20: there were {n} switches")),
        }
    }
}

/// A place gets its owner marker before it is used, as commands see to it.
async fn claim(life: &Life, place: &Place) -> Result<(), String> {
    let state = life.core.ledger.state();
    let marker = OwnerMarker { journal_id: life.core.ledger.journal.id(), location: state.next.location, epoch: 1 };
    place.memory.claim(&marker).await.map_err(|e| e.to_string())
}

/// Extended attributes, which the seeded worlds' files do not have.
async fn carry_more(memory: &Memory) -> crate::filer::Result<()> {
    let root = memory.root().await?;
    for name in memory.list(&root, 0, 16).await?.names {
        let object = memory.lookup(&root, &name).await?;
        if object.kind != Kind::Symlink {
            memory.set_xattr(&object, b"user.sim", b"kept").await?;
        }
    }
    memory.sync().await
}
