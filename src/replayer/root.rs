//! The destination's root, before anything is made in it.

use super::{Error, Replayer};
use crate::location::projection::Held;
use crate::location::reconcile::is_final;
use crate::location::root::put_root;
use journal_format::event::{CopyDone, CopyFailed, Event};

impl Replayer {
    /// Whether it is to be looked at in this life: one that is listed is the journal's and the switch's, unless its listing
    /// may lie in the dirty set.
    pub(super) fn look_at_root(&mut self) -> Result<(), Error> {
        let listed = matches!(self.projection.held(self.location.root)?, Some((_, Held::Listed)));
        self.root_is_prepared |= listed && !self.is_out_of_sync();
        Ok(())
    }

    /// Before anything is made in it. What cannot be put there is reported, and tried again with all that failed.
    pub(super) async fn prepare_root(&mut self) -> Result<(), Error> {
        if self.root_is_prepared {
            return Ok(());
        }
        let (from, to) = (self.source.location.filer.clone(), self.location.filer.clone());
        match self.guarded(async move { put_root(from.as_ref(), to.as_ref()).await }).await {
            Ok(()) => {}
            Err(Error::Filer(error)) if is_final(error.kind) => self.root_failed(&error).await?,
            Err(error) => return Err(error),
        }
        self.root_is_prepared = true;
        Ok(())
    }

    async fn root_failed(&self, error: &crate::filer::Error) -> Result<(), Error> {
        let (node, path) = (self.location.root, self.source.path(self.location.root));
        let failed = vec![CopyFailed { node, path, error: format!("the root: {error}"), fatal: false }];
        let (job, location, ranges) = (self.job, self.location.id, Vec::new());
        let (files_made, dirs_made) = (0, 0);
        let event = Event::CopyDone(CopyDone { job, location, ranges, files_made, dirs_made, failed });
        self.ledger.record(&event).await?;
        Ok(())
    }
}
