//! Which objects new nodes are, taken down in the journal.

use crate::filer::{Error, ErrorKind, Result};
use crate::journal;
use crate::ledger::Ledger;
use crate::location::Recorder;
use async_trait::async_trait;
use journal_format::event::{Event, Made};
use journal_format::ids::{Identity, LocationId, Lsn, NodeId};

/// Objects in one `Made`, ranges in one `CopyDone`: keeps a record well below its bound.
pub(super) const PER_RECORD_MAX: usize = 1024;

/// Append `Made`s; the end of the last one.
pub(super) async fn made(
    ledger: &Ledger,
    location: LocationId,
    objects: &[(NodeId, Identity)],
) -> std::result::Result<Option<Lsn>, journal::Error> {
    let mut end = None;
    for objects in objects.chunks(PER_RECORD_MAX) {
        end = Some(ledger.append(&Event::Made(Made { location, objects: objects.to_vec() })).await?.end);
    }
    Ok(end)
}

#[async_trait]
impl Recorder for Ledger {
    async fn made(&self, location: LocationId, objects: &[(NodeId, Identity)]) -> Result<()> {
        let done = async {
            if let Some(end) = made(self, location, objects).await? {
                self.wait_durable(end).await?;
            }
            Ok(())
        };
        // The journal's failure ends the process; until then nothing is carried out on the strength of it.
        done.await
            .map_err(|error: journal::Error| Error::new(ErrorKind::Unknown, "record what was made", error.to_string()))
    }
}
