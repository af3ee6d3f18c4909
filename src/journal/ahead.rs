//! Many records, for somebody who has much to do with each: they are checked and decoded ahead, on a thread of its own.
//!
//! Bound: [`BATCHES`] batches and the two in hand, each of [`RECORDS`] records or [`BYTES`] of them at most (bulk data are
//! views of the map, not copies).

use super::error::Result;
use super::reader::Reader;
use super::{Error, Record};
use journal_format::ids::Lsn;
use std::sync::mpsc::{SyncSender, sync_channel};

const BATCHES: usize = 2;
const RECORDS: usize = 512;
const BYTES: u64 = 1 << 20;

impl Reader {
    /// `each` takes every record that ends at or before `limit`, in order. Blocking. (In a simulated world there are no
    /// threads: one after the other.)
    pub fn each<E: From<Error>>(
        mut self,
        limit: Lsn,
        mut each: impl FnMut(Record) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if crate::env::is_simulated() {
            while let Some(record) = self.next(limit)? {
                each(record)?;
            }
            return Ok(());
        }
        std::thread::scope(|scope| {
            let (send, batches) = sync_channel(BATCHES);
            scope.spawn(move || self.run_ahead(limit, &send));
            for batch in batches {
                let batch: Vec<Record> = batch?;
                batch.into_iter().try_for_each(&mut each)?;
            }
            Ok(())
        })
    }

    /// Until the end, an error, or until nobody wants any more.
    fn run_ahead(mut self, limit: Lsn, send: &SyncSender<Result<Vec<Record>>>) {
        loop {
            let (mut batch, mut bytes) = (Vec::with_capacity(RECORDS), 0);
            let error = loop {
                match self.next(limit) {
                    Ok(Some(record)) => {
                        bytes += (record.end.0 - record.lsn.0).saturating_sub(record.bulk.len() as u64);
                        batch.push(record);
                        if batch.len() == RECORDS || bytes >= BYTES {
                            break None;
                        }
                    }
                    Ok(None) if batch.is_empty() => return,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if send.send(Ok(batch)).is_err() {
                return; // nobody wants any more
            }
            if let Some(error) = error {
                let _nobody = send.send(Err(error));
                return;
            }
        }
    }
}
