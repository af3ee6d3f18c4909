//! Continuous archiving: a thread that packs each segment into a directory when the journal has left it. No segment is
//! used again before its archive is durable.
//!
//! ```text
//!  segment closed and durable ──► packed into *.tmp ──► synced ──► renamed ──► directory synced ──► line in the list
//!                                                                                     │
//!                                        archived LSN ◄────────────────────────────────┘  recycle goes up to it
//! ```
//!
//! How it fails: an archive that cannot be written is logged (once, until the reason changes), shown in the status, and
//! tried again; so is a directory that does not answer ([`ArchiveStatus::silent`]), whose call comes back when it does;
//! meanwhile segments are kept. When that brings the journal to its hard limit client operations wait as for
//! any other reason, and are answered JUKEBOX: nothing is recycled unarchived, and nothing is lost.

use super::append::Shared;
use super::batch::to_usize;
use super::error::{At, Error, Result};
use super::segments::Segment;
use crate::env::disk::Open;
use journal_format::archive::{
    ArchiveHeader, BLOCK_CONTENT, CUT, HEADER_LEN, MANIFEST, NotClosed, Packer, closed, file_name, manifest_line,
    manifest_lines,
};
use journal_format::ids::{Lsn, SegmentNo};
use parking_lot::{Condvar, Mutex};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// End of the name of what is not whole yet.
const TMP: &str = ".tmp";
/// How often it is looked whether a segment is closed, and a failed archive is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How archiving stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveStatus {
    pub dir: PathBuf,
    /// Everything before it that the journal held is archived.
    pub archived_lsn: Lsn,
    /// Why the last try failed.
    pub error: Option<String>,
    /// For how long the directory has not answered what it was asked last. A call on a dead mount returns no error: it
    /// does not return.
    pub silent: Option<Duration>,
}

pub struct Archiver {
    dir: PathBuf,
    shared: Arc<Shared>,
    archived: AtomicU64,
    /// `tain-journal repair` has cut the journal: archives of before it may not be of today's segments.
    repaired: bool,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    stop: bool,
    error: Option<String>,
    /// When the step that is under way began.
    step: Option<Instant>,
}

impl Archiver {
    /// Look at what is archived already. The directory is made when it is not there.
    pub fn open(dir: &Path, shared: Arc<Shared>, repaired: bool) -> Result<Arc<Archiver>> {
        if !dir.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).at("create", dir)?;
        }
        let segments = &shared.segments;
        let mut archived = Vec::new();
        for entry in std::fs::read_dir(dir).at("list", dir)? {
            let path = entry.at("list", dir)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(header) = name.starts_with("archive-").then(|| header_of(&path)).flatten() else { continue };
            if header.journal_id != segments.id {
                return Err(Error::Foreign { path });
            }
            if name == file_name(header.number) {
                archived.push(header.number);
            }
        }
        let first = segments.start_lsn().0 / segments.size;
        let archiver = Archiver {
            dir: dir.to_owned(),
            archived: AtomicU64::new(first * segments.size),
            shared: Arc::clone(&shared),
            repaired,
            state: Mutex::default(),
            wake: Condvar::new(),
        };
        if repaired {
            // The journal has not come so far again: these are of what was cut.
            let open = shared.durable.load(Ordering::Acquire) / segments.size;
            for number in archived.into_iter().filter(|number| number.0 >= open) {
                archiver.keep_aside(number)?;
            }
        }
        if first > 0 && !archiver.has(SegmentNo(first - 1)) {
            tracing::warn!(dir = %dir.display(), first, "the archives begin here: earlier segments were not archived");
        }
        Ok(Arc::new(archiver))
    }

    /// No segment that ends behind it may be used again.
    pub fn archived_lsn(&self) -> Lsn {
        Lsn(self.archived.load(Ordering::Acquire))
    }

    pub fn status(&self) -> ArchiveStatus {
        let state = self.state.lock();
        let (error, silent) = (state.error.clone(), state.step.map(|begun| begun.elapsed()));
        ArchiveStatus { dir: self.dir.clone(), archived_lsn: self.archived_lsn(), error, silent }
    }

    /// End the thread; [`Archiver::run`] returns soon after.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_all();
    }

    /// The thread.
    pub fn run(&self) {
        loop {
            self.step();
            let did = self.next();
            let mut state = self.state.lock();
            state.step = None;
            if state.stop {
                return;
            }
            match did {
                Ok(true) => {
                    state.error = None;
                    continue;
                }
                Ok(false) => state.error = None,
                Err(error) => {
                    let text = super::error::with_source(&error);
                    if state.error.as_ref() != Some(&text) {
                        tracing::error!(
                            error = text,
                            "a segment cannot be archived, and is kept until it is; trying again"
                        );
                    }
                    state.error = Some(text);
                }
            }
            self.wake.wait_for(&mut state, LOOK_AGAIN);
        }
    }

    /// The directory is about to be asked for something; `false` when it was told to stop.
    fn step(&self) -> bool {
        let mut state = self.state.lock();
        state.step = Some(Instant::now());
        !state.stop
    }

    /// Archive the oldest segment that is closed and not archived; `false` when there is none.
    fn next(&self) -> Result<bool> {
        let segments = &self.shared.segments;
        let number = SegmentNo(self.archived.load(Ordering::Acquire) / segments.size);
        let end = (number.0 + 1) * segments.size;
        // A record in the next segment is durable: so is all of this one.
        if self.shared.durable.load(Ordering::Acquire) <= end {
            return Ok(false);
        }
        let segment = segments.get(number);
        let stale = match &segment {
            Some(segment) if self.repaired => self.is_stale(segment)?,
            _ => false,
        };
        if stale || !self.has(number) {
            let Some(segment) = segment else {
                let lsn = Lsn(number.0 * segments.size);
                return Err(Error::Recycled { lsn, start: segments.start_lsn() });
            };
            let map = segment.map(&self.shared.durable, 0)?;
            if !self.write(&segment.header, map.durable(), stale)? {
                return Ok(false);
            }
        }
        self.list(number)?;
        self.archived.store(end, Ordering::Release);
        Ok(true)
    }

    fn path(&self, number: SegmentNo) -> PathBuf {
        self.dir.join(file_name(number))
    }

    fn has(&self, number: SegmentNo) -> bool {
        header_of(&self.path(number)).is_some()
    }

    /// There is an archive, and it is of what a repair has cut. Of a segment that is damaged itself an archive that is as
    /// the segment up to the damage is all there is.
    fn is_stale(&self, segment: &Segment) -> Result<bool> {
        let path = self.path(segment.header.number);
        let Some(header) = header_of(&path) else { return Ok(false) };
        // Plain reads: a sector that cannot be read is an error, and no signal.
        let file = segment.open(Open::Read)?;
        if let Ok(true) = header.is_of(|bytes, at| file.read_at(bytes, at)) {
            return Ok(false);
        }
        let mut bytes = vec![0; to_usize(segment.header.size)];
        let readable = bytes.chunks_mut(BLOCK_CONTENT).scan(0, |at, part| {
            let read = file.read_at(part, *at).is_ok();
            *at += part.len() as u64;
            read.then_some(part.len())
        });
        let readable: usize = readable.sum();
        let until = match closed(&segment.header, &bytes) {
            Ok(_) if readable == bytes.len() => return Ok(true),
            Ok(_) => readable,
            Err(NotClosed::Open(at) | NotClosed::Damaged(at, _)) => to_usize(at).min(readable),
        };
        let mut archived = Vec::new();
        let archive = std::fs::read(&path).at("read", &path)?;
        let unpacked = journal_format::archive::unpack(&archive, &mut archived);
        let same = archived.get(..until).is_some_and(|archived| bytes.get(..until) == Some(archived));
        if same && unpacked.is_ok_and(|unpacked| unpacked.is_whole()) {
            return Ok(false);
        }
        Err(Error::Corrupt {
            segment: segment.header.number,
            offset: until as u64,
            lsn: segment.header.first_lsn().plus(until as u64),
            what: format!("the segment is damaged, and {} is not of it", path.display()),
        })
    }

    /// What a repair has cut is kept, under another name.
    fn keep_aside(&self, number: SegmentNo) -> Result<()> {
        let path = self.path(number);
        let name = |n: u64| self.dir.join(format!("{CUT}{}-{n}", file_name(number)));
        let aside = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
        tracing::warn!(archive = %path.display(), kept = %aside.display(), "an archive of what a repair has cut is kept aside");
        std::fs::rename(&path, &aside).at("rename", &path)?;
        sync_dir(&self.dir)
    }

    /// `false` when it was told to stop.
    fn write(
        &self,
        segment: &journal_format::segment::SegmentHeader,
        bytes: &[u8],
        instead_of_stale: bool,
    ) -> Result<bool> {
        let closed = closed(segment, bytes).map_err(|error| Error::Corrupt {
            segment: segment.number,
            offset: 0,
            lsn: segment.first_lsn(),
            what: error.to_string(),
        })?;
        let name = file_name(segment.number);
        let tmp = self.dir.join(format!("{name}{TMP}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&tmp).at("create", &tmp)?;
        file.write_all(&[0; HEADER_LEN]).at("write", &tmp)?;
        let mut packer = Packer::new(segment, closed);
        let content = bytes.get(..usize::try_from(closed.content).unwrap_or(usize::MAX)).unwrap_or_default();
        for part in content.chunks(BLOCK_CONTENT) {
            if !self.step() {
                return Ok(false);
            }
            file.write_all(&packer.block(part)).at("write", &tmp)?;
        }
        let header = packer.finish().ok_or_else(|| Error::Corrupt {
            segment: segment.number,
            offset: closed.content,
            lsn: segment.first_lsn(),
            what: "the segment is shorter than it was".into(),
        })?;
        self.step();
        file.write_all_at(&header.to_bytes(), 0).and_then(|()| file.sync_all()).at("write", &tmp)?;
        self.step();
        let path = self.path(segment.number);
        if instead_of_stale {
            self.keep_aside(segment.number)?;
        }
        std::fs::rename(&tmp, &path).at("rename", &tmp)?;
        sync_dir(&self.dir)?;
        Ok(true)
    }

    /// Its line in the list, when it is not there.
    fn list(&self, number: SegmentNo) -> Result<()> {
        let path = self.dir.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).at("read", &path),
        };
        let Some(header) = header_of(&self.path(number)) else { return Ok(()) };
        let last = manifest_lines(&text).into_iter().rfind(|line| line.number == number);
        if last.is_some_and(|line| line.digest == header.digest) {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).mode(0o600).open(&path).at("open", &path)?;
        // A line that a crash cut short is closed first: it stays void.
        let cut_short = text.last().is_some_and(|byte| *byte != b'\n');
        let line = format!("{}{}", if cut_short { "\n" } else { "" }, manifest_line(&header));
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).at("write", &path)?;
        sync_dir(&self.dir)
    }
}

/// Names that were given in the directory.
fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).at("sync", dir)
}

/// The header of an archive that is as long as it says.
fn header_of(path: &Path) -> Option<ArchiveHeader> {
    let file = File::open(path).ok()?;
    let mut head = [0; HEADER_LEN];
    file.read_exact_at(&mut head, 0).ok()?;
    let header = ArchiveHeader::from_bytes(&head).ok()?;
    (file.metadata().ok()?.len() == HEADER_LEN as u64 + header.stored).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::super::{AppendMode, Journal, Options};
    use super::*;
    use journal_format::event::{Caller, Event, Write as Written};
    use journal_format::ids::{JunctionId, LocationId, NodeId};

    const SEGMENT: u64 = 64 << 10;

    fn open(dir: &Path) -> Journal {
        let options = Options {
            dir: dir.join("journal"),
            segment_size: SEGMENT,
            hard_limit: 8 * SEGMENT,
            append: AppendMode::Buffered,
            any_file_system: true,
            disk: Arc::new(crate::env::RealDisk),
        };
        Journal::open(options).unwrap()
    }

    /// Durable records until the journal stands in this segment.
    async fn fill(journal: &Journal, segment: u64) {
        let bulk = vec![7; 8000];
        let event = Event::Write(Written {
            junction: JunctionId(1),
            location: LocationId(1),
            node: NodeId(2),
            offset: 0,
            len: 8000,
            mode: None,
            caller: Caller::default(),
        });
        while journal.end_lsn().0 <= segment * SEGMENT + 4096 {
            let (at, ()) = journal.append_with(&event, &bulk, |_| ()).await.unwrap();
            journal.wait_durable(at.end).await.unwrap();
        }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn archived(journal: &Journal) -> u64 {
        journal.archive_status().unwrap().archived_lsn.0 / SEGMENT
    }

    #[tokio::test]
    async fn a_closed_segment_is_archived_whole_before_it_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("archive");
        let journal = open(dir.path());
        journal.archive_to(&to).unwrap();
        fill(&journal, 3).await;
        until("three segments are archived", || archived(&journal) == 3).await;
        let mut segment = Vec::new();
        for number in 0..3 {
            let file = std::fs::read(to.join(file_name(SegmentNo(number)))).unwrap();
            let found = journal_format::archive::unpack(&file, &mut segment).unwrap();
            assert!(found.is_whole());
            let path = dir.path().join("journal").join(format!("segment-{number:016x}"));
            let content = usize::try_from(found.header.content).unwrap();
            assert_eq!(segment[..content], std::fs::read(path).unwrap()[..content]);
        }
        assert_eq!(manifest_lines(&std::fs::read(to.join(MANIFEST)).unwrap()).len(), 3);
        // Found again, made no second time.
        journal.close().await.unwrap();
        drop(journal);
        let made = std::fs::metadata(to.join(file_name(SegmentNo(0)))).unwrap().modified().unwrap();
        let journal = open(dir.path());
        journal.archive_to(&to).unwrap();
        until("they are found", || archived(&journal) >= 3).await;
        assert_eq!(std::fs::metadata(to.join(file_name(SegmentNo(0)))).unwrap().modified().unwrap(), made);
        assert_eq!(manifest_lines(&std::fs::read(to.join(MANIFEST)).unwrap()).len(), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_archived_is_kept_and_told_and_goes_on_when_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("archive");
        let journal = open(dir.path());
        journal.archive_to(&to).unwrap();
        // A file in its place: whoever writes, root too, is refused.
        std::fs::remove_dir(&to).unwrap();
        std::fs::write(&to, b"").unwrap();
        fill(&journal, 3).await;
        until("the failure is told", || journal.archive_status().unwrap().error.is_some()).await;
        let end = journal.end_lsn();
        journal.write_snapshot(journal.durable_lsn(), b"{}").unwrap();
        journal.recycle(end).unwrap();
        assert_eq!(journal.start_lsn(), Lsn(4096), "a segment was given up that is not archived");
        std::fs::remove_file(&to).unwrap();
        std::fs::create_dir(&to).unwrap();
        until("they are archived", || archived(&journal) == 3).await;
        assert_eq!(journal.archive_status().unwrap().error, None);
        journal.recycle(end).unwrap();
        assert!(journal.start_lsn() >= Lsn(3 * SEGMENT));
    }

    fn header_for(archive: &[u8], number: u64) -> Vec<u8> {
        let header = ArchiveHeader::from_bytes(archive).unwrap();
        let header = ArchiveHeader { number: SegmentNo(number), ..header };
        [header.to_bytes().as_slice(), &archive[HEADER_LEN..]].concat()
    }

    /// As after a repair: a segment of the same number with other records in it.
    #[tokio::test]
    async fn an_archive_of_before_a_repair_is_kept_aside_and_the_segment_archived_anew() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("archive");
        let journal = open(dir.path());
        journal.archive_to(&to).unwrap();
        fill(&journal, 1).await;
        until("a segment is archived", || archived(&journal) == 1).await;
        journal.close().await.unwrap();
        drop(journal);
        let path = to.join(file_name(SegmentNo(0)));
        let good = std::fs::read(&path).unwrap();
        // The same journal's, of the same number, as long as it says; its content is another.
        let mut header = ArchiveHeader::from_bytes(&good).unwrap();
        header.digest[0] ^= 1;
        let stale = [header.to_bytes().as_slice(), &good[HEADER_LEN..]].concat();
        std::fs::write(&path, &stale).unwrap();
        let reopened = async |repaired: bool| {
            let journal = open(dir.path());
            if repaired {
                std::fs::create_dir(dir.path().join("journal").join("repair-1")).unwrap();
            }
            journal.archive_to(&to).unwrap();
            until("it is archived", || archived(&journal) >= 1).await;
            journal.close().await.unwrap();
        };
        reopened(false).await;
        assert_eq!(std::fs::read(&path).unwrap(), stale, "nothing was cut: what is there is not read again");
        reopened(true).await;
        assert_eq!(std::fs::read(&path).unwrap(), good);
        let kept = to.join(format!("{CUT}{}-1", file_name(SegmentNo(0))));
        assert_eq!(std::fs::read(kept).unwrap(), stale);
        // One of a segment that the journal has not come to again.
        let ahead = to.join(file_name(SegmentNo(1)));
        std::fs::write(&ahead, header_for(&stale, 1)).unwrap();
        // A damaged segment is no reason to give up the archive of it.
        let segment = dir.path().join("journal").join("segment-0000000000000000");
        let journal = open(dir.path());
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[5000] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        journal.archive_to(&to).unwrap();
        until("it is looked at", || archived(&journal) >= 1).await;
        assert_eq!((std::fs::read(&path).unwrap(), journal.archive_status().unwrap().error), (good.clone(), None));
        assert!(!ahead.exists() && to.join(format!("{CUT}{}-1", file_name(SegmentNo(1)))).exists());
        journal.close().await.unwrap();
        // One that is not of it is none: then nothing is recycled, and it is told.
        let mut content = Vec::new();
        journal_format::archive::unpack(&good, &mut content).unwrap();
        content[4100] ^= 1;
        let segment = journal_format::segment::SegmentHeader::from_bytes(&content).unwrap();
        let (content_len, time) = (ArchiveHeader::from_bytes(&good).unwrap().content, segment.created);
        let closed = journal_format::archive::Closed { content: content_len, first_time: time, last_time: time };
        let mut packer = Packer::new(&segment, closed);
        let other = packer.block(&content[..to_usize(content_len)]);
        std::fs::write(&path, [packer.finish().unwrap().to_bytes().as_slice(), &other].concat()).unwrap();
        let archiver = Archiver::open(&to, journal.inner.shared.clone(), true).unwrap();
        assert!(matches!(archiver.next(), Err(Error::Corrupt { .. })));
        std::fs::write(&path, &good).unwrap();
        let lines = manifest_lines(&std::fs::read(to.join(MANIFEST)).unwrap());
        let digest = ArchiveHeader::from_bytes(&good).unwrap().digest;
        assert_eq!(lines.last().unwrap().digest, digest);
    }

    #[tokio::test]
    async fn the_archives_of_another_journal_are_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = one.path().join("archive");
        let journal = open(one.path());
        journal.archive_to(&to).unwrap();
        fill(&journal, 1).await;
        until("a segment is archived", || archived(&journal) == 1).await;
        assert!(matches!(open(other.path()).archive_to(&to), Err(Error::Foreign { .. })));
    }
}
