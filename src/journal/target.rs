//! A segment open for appending, and the three ways to make a batch durable in it.
//!
//! | append     | how                                        | when                                                     |
//! | ---------- | ------------------------------------------ | -------------------------------------------------------- |
//! | `direct`   | one `O_DIRECT` write with `RWF_DSYNC`      | the default, where the file system has direct I/O        |
//! | `buffered` | one write through the page cache, a flush  | the default where it has none                            |
//! | `map`      | stores into a mapping, `msync` of the range | to compare: large folios are written back whole         |
//!
//! `docs/journal.md` has the figures.

use super::AppendMode;
use super::error::{At, Error, Result};
use super::map::Store;
use super::segments::Segment;
use crate::env::disk::{DiskFile, Open};
use std::io;
use std::sync::Arc;

pub struct Target {
    pub segment: Arc<Segment>,
    writer: Writer,
}

enum Writer {
    Direct(Arc<dyn DiskFile>),
    Buffered(Arc<dyn DiskFile>),
    Map(Store),
}

impl Target {
    pub fn open(segment: Arc<Segment>, mode: AppendMode) -> Result<Arc<Target>> {
        let writer = match mode {
            AppendMode::Best => match segment.open_direct()? {
                Some(file) => Writer::Direct(file),
                None => Writer::Buffered(segment.open(Open::Write)?),
            },
            AppendMode::Direct => match segment.open_direct()? {
                Some(file) => Writer::Direct(file),
                None => return Err(Error::NoDirectIo { path: segment.path().to_owned() }),
            },
            AppendMode::Buffered => Writer::Buffered(segment.open(Open::Write)?),
            AppendMode::Map => {
                let file = segment.open(Open::Write)?;
                match file.map_for_writing().at("map", segment.path())? {
                    Some(raw) => Writer::Map(Store::of(raw)),
                    // A simulated disk has no mappings; it is written to in the same steps.
                    None => Writer::Buffered(file),
                }
            }
        };
        Ok(Arc::new(Target { segment, writer }))
    }

    /// What the writer is.
    pub fn mode(&self) -> AppendMode {
        match self.writer {
            Writer::Direct(_) => AppendMode::Direct,
            Writer::Buffered(_) => AppendMode::Buffered,
            Writer::Map(_) => AppendMode::Map,
        }
    }

    /// One write, durable when it returns. Whatever is not a whole success is final: what the page cache or the disk
    /// holds after a failed flush cannot be known, and a second try may succeed over lost pages (I8).
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if crate::planted::is('b') {
            // A slow disk: what is answered too early is not there for long enough.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        match &self.writer {
            Writer::Direct(file) => {
                debug_assert!(bytes.as_ptr().align_offset(4096) == 0);
                if crate::planted::is('a') {
                    return file.write_at(bytes, offset);
                }
                let written = file.write_durably(bytes, offset)?;
                if written != bytes.len() {
                    let short = format!("only {written} bytes were written");
                    return Err(io::Error::new(io::ErrorKind::WriteZero, short));
                }
                Ok(())
            }
            Writer::Buffered(file) => {
                file.write_at(bytes, offset)?;
                file.sync_data()
            }
            Writer::Map(store) => store.write(bytes, offset),
        }
    }
}
