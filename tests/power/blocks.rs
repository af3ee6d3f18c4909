//! Blocks of the journal's own files that fail, while the file system is well and notices nothing: a write of records that
//! ends in EIO, a block that cannot be read when the journal is recovered, and a page that cannot be had where the journal
//! is stored into by a mapping (SIGBUS).

use crate::count;
use crate::disk::{Disk, Faults, Fs};
use crate::rows::{Told, check, served, writer_of};
use crate::support::Dir;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tain::demo::client::Client;
use tain::demo::content::Rng;
use tain::demo::nfs::Fh;
use tain::demo::service::Service;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(120);
const WRITERS: u64 = 4;
/// Answers that are to be lost.
const ANSWERS: usize = 12;
/// Of the block that cannot be read, in its segment.
const BAD: u64 = 64 << 10;
/// A fail stop.
const STOPPED: i32 = 70;

#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_disk_that_fails_in_the_journals_blocks_alone_ends_the_service_and_loses_nothing() {
    World::all(Fs::Ext4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xfs_disk_that_fails_in_the_journals_blocks_alone_ends_the_service_and_loses_nothing() {
    World::all(Fs::Xfs).await;
}

struct World {
    // Before the disk: the service must be gone when that is unmounted.
    service: Service,
    client: Client,
    root: Fh,
    told: Told,
    first: u64,
    rng: Rng,
    disk: Disk,
    _dir: Dir,
}

impl World {
    async fn all(fs: Fs) {
        let dir = Dir::new();
        std::fs::create_dir(dir.path().join("service")).unwrap();
        let disk = Disk::new(fs, 320 << 20, &dir.path().join("service"));
        let (service, client, root) = served(dir.path()).await;
        let mut w = Self { service, client, root, told: Told::default(), first: 0, rng: Rng::new(1), disk, _dir: dir };
        let (mut writes, mut reads, mut pages) = (0, 0, 0);
        for round in 0..count("TAIN_ROWS", 2) {
            w.append("direct").await;
            writes += w.records_cannot_be_written(1).await;
            writes += w.records_cannot_be_written(u64::MAX).await;
            reads += w.a_block_cannot_be_read_when_it_starts().await;
            w.append("map").await;
            writes += w.records_cannot_be_written(u64::MAX).await;
            pages += w.a_page_cannot_be_had().await;
            println!(
                "{fs:?}, round {round}: failed: {writes} writes, {reads} reads at a start, {pages} reads for pages"
            );
        }
        let answered = w.told.made.len() + w.told.written.len();
        println!("{fs:?}: {answered} answers, none lost");
        w.service.stop().await.unwrap();
    }

    /// The next life has this writer.
    async fn append(&mut self, how: &str) {
        self.service.stop().await.unwrap();
        let config = self.service.config();
        let text = std::fs::read_to_string(&config).unwrap();
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("append")).collect();
        let line = format!("append = \"{how}\"");
        lines.insert(1, &line);
        std::fs::write(&config, lines.join("\n")).unwrap();
        std::fs::File::open(&config).unwrap().sync_all().unwrap();
        self.service.start().await.unwrap();
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.service.journal()).unwrap().map(|entry| entry.unwrap().path());
        let is_segment = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("segment-") || name.starts_with("spare-")
        };
        let mut found: Vec<_> = entries.filter(is_segment).collect();
        found.sort();
        found
    }

    /// All bytes of the journal's segments, those that are ready for use too. They get other names meanwhile.
    fn blocks(&self) -> Vec<Range<u64>> {
        let open = self.segments().into_iter().filter_map(|path| std::fs::File::open(path).ok());
        let blocks = |file: std::fs::File| {
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            self.disk.blocks_of(Path::new(&path))
        };
        open.flat_map(blocks).collect()
    }

    /// Clients work; `fail` is called when something was answered, and `again` until the service has ended.
    async fn until_it_ends(&mut self, faults: impl FnOnce(&Self) -> Faults, again: impl Fn(&Self)) -> ExitStatus {
        let (say, mut said) = unbounded_channel();
        self.first += 1_000_000;
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| tokio::spawn(writer_of(self.client.clone(), self.root.clone(), self.first + n, say.clone())))
            .collect();
        let begun = Instant::now();
        while said.len() < ANSWERS {
            assert!(begun.elapsed() < LONG, "nothing is answered: {}", self.service.last_words());
            sleep(Duration::from_millis(2)).await;
        }
        self.disk.set_faults(faults(self));
        let status = loop {
            if let Some(status) = self.service.ended().unwrap() {
                break status;
            }
            again(self);
            assert!(begun.elapsed() < LONG, "it works on, after {} errors", self.disk.fired());
            sleep(Duration::from_millis(5)).await;
        };
        for writer in writers {
            writer.abort();
            let _ = writer.await;
        }
        while let Ok(more) = said.try_recv() {
            self.told.take(more);
        }
        status
    }

    /// The disk is as a power cut leaves it, and works again.
    async fn mended(&mut self, what: &str) {
        let kept = [0, 50, 100][self.rng.index(3)];
        tokio::task::block_in_place(|| self.disk.restore(kept, &mut self.rng));
        self.service.start().await.unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&self.client, &self.root, &self.told, what).await;
    }

    /// C11: a batch that could not be written is the last one.
    async fn records_cannot_be_written(&mut self, times: u64) -> u64 {
        let faults = |w: &Self| Faults { blocks: (w.blocks(), times), ..Faults::default() };
        let status = self.until_it_ends(faults, |_| ()).await;
        let (fired, words) = (self.disk.fired(), self.service.last_words());
        assert!(fired > 0, "it ended by itself: {words}");
        assert_eq!(status.code(), Some(STOPPED), "{status}: {words}");
        assert!(words.contains("the journal failed"), "{words}");
        self.mended("a write of records failed").await;
        fired
    }

    /// I8: what was answered and cannot be read is not passed over.
    async fn a_block_cannot_be_read_when_it_starts(&mut self) -> u64 {
        self.service.kill().await.unwrap();
        // Mounted anew, it has nothing in memory.
        tokio::task::block_in_place(|| self.disk.restore(100, &mut self.rng));
        let last = self.segments().into_iter().rfind(|path| is_segment(path)).unwrap();
        let first = self.disk.blocks_of(&last)[0].start;
        // Among the first records of the segment, out of reach of what is read with its header.
        let unreadable = std::iter::once(first + BAD..first + BAD + 4096).collect();
        self.disk.set_faults(Faults { unreadable, ..Faults::default() });
        let said = self.service.start().await.expect_err("a block cannot be read, and it serves").to_string();
        let fired = self.disk.fired();
        assert!(fired > 0, "nothing failed: {said}");
        let name = last.file_name().unwrap().to_string_lossy().into_owned();
        assert!(said.contains(&name) && said.contains("cannot be read"), "{said}");
        let place = said.split_once("offset ").and_then(|(_, rest)| rest.split_once(" (LSN "));
        let offset: u64 = place.and_then(|(offset, _)| offset.parse().ok()).unwrap_or_else(|| panic!("{said}"));
        // The kernel reads, and fails, in larger pieces: the place is where the first one that fails begins.
        assert!(offset > 0 && offset <= BAD, "{said}");
        self.disk.set_faults(Faults::default());
        self.mended("a block could not be read at a start").await;
        fired
    }

    /// C11 once more: a store into a page that the file system cannot fill.
    async fn a_page_cannot_be_had(&mut self) -> u64 {
        let faults = |w: &Self| Faults { unreadable: w.blocks(), ..Faults::default() };
        let status = self.until_it_ends(faults, Self::forget_pages).await;
        let (fired, words) = (self.disk.fired(), self.service.last_words());
        assert!(fired > 0, "it ended by itself: {words}");
        assert_eq!(status.code(), Some(STOPPED), "{status}: {words}");
        assert!(words.contains("SIGBUS"), "{words}");
        self.mended("a page could not be had").await;
        fired
    }

    /// Pages that nobody has mapped yet must be read for the next store.
    fn forget_pages(&self) {
        for path in self.segments() {
            let Ok(file) = std::fs::File::open(&path) else { continue };
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
}
