//! `tain-journal archive`: closed segments into a directory of archives. May be run again and again, beside the service
//! or without it: what is there already is left alone, and a run that was cut short is taken up where it stopped.
//!
//! Order for each: packed into a file of another name, synced, renamed, the directory synced; then its line is appended to
//! the list, and the list synced.

use crate::directory::{Directory, is_ahead};
use crate::segment::{RECYCLED, SegmentFile};
use anyhow::{Context, Result, bail};
use clap::Args;
use journal_format::archive::{
    ArchiveHeader, BLOCK_CONTENT, CUT, HEADER_LEN, Listed, MANIFEST, Packer, closed, file_name, manifest_line,
    manifest_lines,
};
use journal_format::ids::SegmentNo;
use journal_format::segment::SegmentHeader;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Archive {
    /// The journal's directory
    dir: PathBuf,
    /// The directory of archives; made, with mode 0700, when it is not there
    to: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Why nothing of a segment is archived.
enum Skipped {
    /// The service was faster: it uses the file for a later one.
    Recycled,
    /// It cannot be, and should be.
    Problem(String),
}

/// What a run has come to.
#[derive(Default)]
struct Done {
    made: Vec<u64>,
    there: u64,
    problems: Vec<String>,
    bytes: u64,
    stored: u64,
}

/// True when every closed segment is archived.
pub fn run(args: &Archive, out: &mut dyn Write) -> Result<bool> {
    let dir = Directory::open(std::slice::from_ref(&args.dir))?;
    let id = dir.journal_id().with_context(|| format!("{} holds no readable segment", args.dir.display()))?;
    if args.to.canonicalize().is_ok_and(|to| args.dir.canonicalize().is_ok_and(|dir| dir == to)) {
        bail!("{} is the journal's own directory: give archives another one; nothing was archived", args.to.display());
    }
    let mut target = Target::open(&args.to, id)?;
    target.repaired = dir.was_repaired;
    if target.repaired {
        target.keep_aside_what_is_ahead(&args.dir)?;
    }
    let Done { made, there, problems, bytes, stored } = target.archive_closed(&dir, id)?;
    if args.json {
        let (from, to) = (args.dir.display().to_string(), args.to.display().to_string());
        let report = json!({ "dir": from, "archive": to, "archived": made, "there_already": there,
            "content_bytes": bytes, "stored_bytes": stored, "problems": problems });
        writeln!(out, "{report}")?;
        return Ok(problems.is_empty());
    }
    writeln!(out, "{} segments archived ({bytes} bytes into {stored}), {there} were there already", made.len())?;
    for problem in &problems {
        writeln!(out, "NOT ARCHIVED: {problem}")?;
    }
    Ok(problems.is_empty())
}

struct Target {
    dir: PathBuf,
    listed: Vec<Listed>,
    /// The journal was cut: archives of before that may not be of today's segments.
    repaired: bool,
}

impl Target {
    fn open(dir: &Path, id: [u8; 16]) -> Result<Target> {
        let at = || format!("{}", dir.display());
        if !dir.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(at)?;
        }
        for entry in std::fs::read_dir(dir).with_context(at)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_left_over(&name) {
                std::fs::remove_file(&path).with_context(at)?;
                continue;
            }
            let header = name.starts_with("archive-").then(|| archive_header(&path)).flatten();
            if header.is_some_and(|header| header.journal_id != id) {
                bail!("{} is the archive of another journal: give each journal a directory of its own", path.display());
            }
        }
        let listed = match std::fs::read(dir.join(MANIFEST)) {
            Ok(text) => manifest_lines(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(at),
        };
        Ok(Target { dir: dir.to_owned(), listed, repaired: false })
    }

    /// The archive is there, under its name, as long as it says. (Whether it is whole is `verify`'s to tell.)
    /// One of before a repair, which is not of the segment, is kept under another name.
    fn has(&self, segment: &SegmentFile, buffer: &mut Vec<u8>) -> Result<bool> {
        let number = SegmentNo(segment.number);
        let path = self.dir.join(file_name(number));
        let Some(header) = archive_header(&path) else { return Ok(false) };
        if self.repaired && is_stale(&header, segment, buffer) {
            self.keep_aside(number)?;
            return Ok(false);
        }
        let last = self.listed.iter().rfind(|line| line.number == number);
        if last.is_none_or(|line| line.digest != header.digest) {
            self.list(&header)?;
        }
        Ok(true)
    }

    fn keep_aside(&self, number: SegmentNo) -> Result<()> {
        let path = self.dir.join(file_name(number));
        let name = |n: u64| self.dir.join(format!("{CUT}{}-{n}", file_name(number)));
        let aside = (1..).map(name).find(|path| !path.exists()).context("no name is free")?;
        std::fs::rename(&path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
        sync_dir(&self.dir)
    }

    /// The journal has not come so far again since it was repaired: these are of what was cut.
    fn keep_aside_what_is_ahead(&self, journal: &Path) -> Result<()> {
        let mut archived = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let header = archive_header(&path);
            archived.extend(header.map(|h| h.number).filter(|number| path.ends_with(file_name(*number))));
        }
        // Looked at behind them: what the service archives meanwhile is not ahead.
        let now = Directory::open(&[journal.to_owned()])?;
        for number in archived.into_iter().filter(|number| is_ahead(number.0, &now.segments)) {
            self.keep_aside(number)?;
        }
        Ok(())
    }

    /// Every segment that is listed there, but for the last one, which is still written to.
    fn archive_closed(&self, dir: &Directory, id: [u8; 16]) -> Result<Done> {
        let last = dir.segments.iter().rposition(SegmentFile::has_records).unwrap_or(0);
        let (mut done, mut buffer) = (Done::default(), Vec::new());
        for segment in dir.segments.iter().take(last) {
            if self.has(segment, &mut buffer)? {
                done.there += 1;
                continue;
            }
            match self.archive(segment, id, &mut buffer)? {
                Ok(header) => {
                    done.bytes += header.content;
                    done.stored += header.stored;
                    done.made.push(segment.number);
                }
                // The service may have archived it by itself first. If not, nothing has it any more: no later run would
                // tell of the hole.
                Err(Skipped::Recycled) if self.has(segment, &mut buffer)? => done.there += 1,
                Err(Skipped::Recycled) => {
                    done.problems.push(format!("{}: was recycled before it was archived", segment.path.display()));
                }
                Err(Skipped::Problem(what)) => done.problems.push(format!("{}: {what}", segment.path.display())),
            }
        }
        Ok(done)
    }

    fn archive(
        &self,
        segment: &SegmentFile,
        id: [u8; 16],
        buffer: &mut Vec<u8>,
    ) -> Result<Result<ArchiveHeader, Skipped>> {
        let (header, damage) = match segment.read(buffer) {
            Ok(read) => read,
            Err(error) if error == RECYCLED => return Ok(Err(Skipped::Recycled)),
            Err(error) => return Ok(Err(Skipped::Problem(error))),
        };
        if header.journal_id != id || header.number.0 != segment.number {
            return Ok(Err(Skipped::Problem("it is not the segment that its name says, of this journal".into())));
        }
        if let Some(what) = damage.into_iter().next() {
            return Ok(Err(Skipped::Problem(what)));
        }
        self.write(&header, buffer)
    }

    fn write(&self, segment: &SegmentHeader, bytes: &[u8]) -> Result<Result<ArchiveHeader, Skipped>> {
        let closed = match closed(segment, bytes) {
            Ok(closed) => closed,
            Err(error) => return Ok(Err(Skipped::Problem(error.to_string()))),
        };
        let name = file_name(segment.number);
        // The service, or another tool, may be at the same segment: each has a file of its own, and the last one's stays.
        let (path, tmp) = (self.dir.join(&name), self.dir.join(format!("{name}.{}.tmp", std::process::id())));
        let at = || format!("cannot write {}", path.display());
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp).with_context(at)?;
        file.write_all(&[0; HEADER_LEN]).with_context(at)?;
        let mut packer = Packer::new(segment, closed);
        let content = bytes.get(..usize::try_from(closed.content)?).unwrap_or_default();
        for part in content.chunks(BLOCK_CONTENT) {
            file.write_all(&packer.block(part)).with_context(at)?;
        }
        let header = packer.finish().context("a segment changed while it was packed")?;
        file.write_all_at(&header.to_bytes(), 0).and_then(|()| file.sync_all()).with_context(at)?;
        std::fs::rename(&tmp, &path).with_context(at)?;
        sync_dir(&self.dir)?;
        self.list(&header)?;
        Ok(Ok(header))
    }

    fn list(&self, header: &ArchiveHeader) -> Result<()> {
        let path = self.dir.join(MANIFEST);
        let at = || format!("cannot write {}", path.display());
        let text = std::fs::read(&path).unwrap_or_default();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).with_context(at)?;
        // A line that a crash cut short is closed first: it stays void.
        let line = manifest_line(header);
        let line = if text.last().is_some_and(|byte| *byte != b'\n') { format!("\n{line}") } else { line };
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).with_context(at)?;
        sync_dir(&self.dir)
    }
}

/// What a run of this tool that was cut short has left: `archive-….PID.tmp`, and no process has the number now.
fn is_left_over(name: &str) -> bool {
    let pid =
        name.strip_suffix(".tmp").filter(|name| name.starts_with("archive-")).and_then(|name| name.rsplit_once('.'));
    pid.is_some_and(|(_, pid)| pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
}

/// It is of what a repair has cut, and the segment is whole: of one that is damaged itself it may be all there is.
fn is_stale(archive: &ArchiveHeader, segment: &SegmentFile, buffer: &mut Vec<u8>) -> bool {
    let Ok((header, damage)) = segment.read(buffer) else { return false };
    let fill = |part: &mut [u8], at: u64| {
        let from = usize::try_from(at).ok().and_then(|at| buffer.get(at..at + part.len()));
        from.map(|from| part.copy_from_slice(from)).ok_or(())
    };
    // Shorter than what is in the archive is another one, too.
    damage.is_empty() && !archive.is_of(fill).unwrap_or(false) && closed(&header, buffer).is_ok()
}

/// The header of an archive that is as long as it says.
pub fn archive_header(path: &Path) -> Option<ArchiveHeader> {
    let file = File::open(path).ok()?;
    let mut head = [0; HEADER_LEN];
    file.read_exact_at(&mut head, 0).ok()?;
    let header = ArchiveHeader::from_bytes(&head).ok()?;
    (file.metadata().ok()?.len() == HEADER_LEN as u64 + header.stored).then_some(header)
}

pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::event::samples;
    use journal_format::segment::BLOCK;

    /// A journal of two segments: one that is closed, and the next one, with a place where its first record says that
    /// it is.
    fn journal(dir: &Path) -> [u8; 16] {
        let (header, mut bytes) = samples::segment();
        let size = usize::try_from(header.size).unwrap_or_default();
        bytes.resize(size, 0);
        let mut next = SegmentHeader { number: SegmentNo(1), ..header }.to_bytes();
        next.resize(size, 0);
        let first = usize::try_from(BLOCK).unwrap_or_default();
        let lsn = SegmentHeader { number: SegmentNo(1), ..header }.first_record();
        next.splice(first + 8..first + 16, lsn.0.to_le_bytes());
        for (name, bytes) in [("segment-0000000000000000", bytes), ("segment-0000000000000001", next)] {
            assert!(std::fs::write(dir.join(name), bytes).is_ok());
        }
        header.journal_id
    }

    #[test]
    fn a_segment_that_is_recycled_before_it_is_archived_is_told_unless_the_service_has_archived_it() -> Result<()> {
        let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let id = journal(from.path());
        let dir = Directory::open(&[from.path().to_owned()])?;
        let target = Target::open(to.path(), id)?;
        let (segment, spare) = (from.path().join("segment-0000000000000000"), from.path().join("spare-0"));
        std::fs::rename(&segment, &spare)?;
        let done = target.archive_closed(&dir, id)?;
        assert_eq!(done.problems, [format!("{}: was recycled before it was archived", segment.display())]);
        assert_eq!((done.made.len(), done.there), (0, 0));
        // Its file is there, and another segment's.
        let (header, mut bytes) = samples::segment();
        bytes.resize(usize::try_from(header.size)?, 0);
        bytes.splice(..4096, SegmentHeader { salt: header.salt + 1, ..header }.to_bytes());
        std::fs::write(&segment, bytes)?;
        assert_eq!(target.archive_closed(&dir, id)?.problems.len(), 1);

        // Another one archives it, and it is recycled, behind the first look at the archive.
        std::fs::rename(&spare, &segment)?;
        let other = Target::open(to.path(), id)?;
        assert_eq!(other.archive_closed(&dir, id)?.made, [0]);
        std::fs::remove_file(&segment)?;
        let done = target.archive_closed(&dir, id)?;
        assert_eq!((done.problems, done.there), (Vec::new(), 1));
        Ok(())
    }
}
