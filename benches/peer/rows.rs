//! The rows: each is a kind of load on one server, with its own files below the export's root.

use crate::pump::Conn;
use crate::wire::{Call, Fh, Page, Reply, Stable};
use crate::{Failed, Options};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Of a sequential READ or WRITE: what a kernel asks for by default.
const LARGE: usize = 1 << 20;
const SMALL: usize = 4096;
/// Large calls in flight.
const LARGE_AT_ONCE: usize = 8;
/// Calls on names in flight.
const NAMES_AT_ONCE: usize = 16;
const WRITERS: usize = 8;
const DIR_FILES: usize = 200;

/// What a row did.
#[derive(Default)]
pub struct Done {
    pub calls: u64,
    pub bytes: u64,
    pub latencies: Vec<Duration>,
}

impl Done {
    fn of(latencies: Vec<Duration>, bytes: u64) -> Self {
        Self { calls: latencies.len() as u64, bytes, latencies }
    }
}

pub struct Rows {
    options: Options,
    root: Fh,
    conn: Conn,
    data: Vec<u8>,
    /// Of the 1 GiB.
    big: Option<Fh>,
    tree: Vec<Dir>,
    /// Names that `create` made last, and `remove` has not removed.
    created: Vec<String>,
}

struct Dir {
    fh: Fh,
    names: Vec<String>,
    files: Vec<Fh>,
}

/// Made outside the row's time, then the row.
pub type Row = (&'static str, fn(&mut Rows) -> Result<(), Failed>, fn(&mut Rows) -> Result<Done, Failed>);

pub const ROWS: [Row; 15] = [
    ("write", nothing, |rows| rows.write("big", Stable::Unstable)),
    ("write-sync", nothing, |rows| rows.write("big-sync", Stable::FileSync)),
    ("read", Rows::need_big, Rows::read),
    ("read-4k", Rows::need_big, Rows::read_small),
    ("write-4k-1", Rows::need_big, |rows| rows.write_small(1)),
    ("write-4k-16", Rows::need_big, |rows| rows.write_small(16)),
    ("write-4k-64", Rows::need_big, |rows| rows.write_small(64)),
    ("create", nothing, |rows| rows.create(NAMES_AT_ONCE)),
    ("remove", Rows::need_created, |rows| rows.remove(NAMES_AT_ONCE)),
    ("create-1", nothing, |rows| rows.create(1)),
    ("remove-1", Rows::need_created, |rows| rows.remove(1)),
    ("lookup", Rows::need_tree, Rows::lookup),
    ("getattr", Rows::need_tree, Rows::getattr),
    ("readdirplus", Rows::need_tree, Rows::readdirplus),
    ("8-writers", nothing, Rows::writers),
];

fn nothing(_: &mut Rows) -> Result<(), Failed> {
    Ok(())
}

fn nobody(_: crate::pump::Answered<'_>) -> Result<(), Failed> {
    Ok(())
}

/// Something that is no zeros, and the same each time.
fn filled(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    let words = (0..len / 4).flat_map(|_| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_be_bytes()
    });
    words.collect()
}

/// Places in a file of so many, in no order, the same each time.
fn anywhere(places: u64, count: u64) -> impl Iterator<Item = u64> {
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    (0..count).map(move |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % places
    })
}

/// One file, written from its beginning, and committed.
fn write_file(conn: &mut Conn, fh: &Fh, bytes: u64, stable: Stable, data: &[u8]) -> Result<Done, Failed> {
    let calls = (0..bytes / LARGE as u64).map(|n| Call::write(fh, n * LARGE as u64, stable, data));
    let mut latencies = conn.pump(LARGE_AT_ONCE, calls, |mut answered| {
        let written = usize::try_from(answered.results.written()?)?;
        if written == LARGE { Ok(()) } else { Err(format!("{written} bytes written").into()) }
    })?;
    if matches!(stable, Stable::Unstable) {
        latencies.extend(conn.pump(1, [Call::commit(fh)], nobody)?);
    }
    Ok(Done::of(latencies, bytes))
}

impl Rows {
    pub fn new(options: Options) -> Result<Self, Failed> {
        let xid = std::process::id() << 16;
        let mut mount = Conn::open(options.mount_port, xid)?;
        let root = mount.call(Call::mount(&options.export), |mut reply| Ok(reply.opaque()?.to_vec()))?;
        let mut conn = Conn::open(options.port, xid.wrapping_add(1 << 28))?;
        let begun = Instant::now();
        // A junction that was just added says "come again" for a moment.
        while let Err(error) = conn.call(Call::getattr(&root), |_| Ok(())) {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { options, root, conn, data: filled(LARGE), big: None, tree: Vec::new(), created: Vec::new() })
    }

    fn make(&mut self, name: &str) -> Result<Fh, Failed> {
        self.conn.call(Call::create(&self.root, name), |mut reply| reply.made())
    }

    fn bytes(&self) -> u64 {
        self.options.mib * MIB
    }

    fn write(&mut self, name: &str, stable: Stable) -> Result<Done, Failed> {
        let (fh, bytes) = (self.make(name)?, self.bytes());
        let done = write_file(&mut self.conn, &fh, bytes, stable, &self.data)?;
        self.big = Some(fh);
        Ok(done)
    }

    fn need_big(&mut self) -> Result<(), Failed> {
        if self.big.is_none() {
            self.write("for-others", Stable::Unstable)?;
        }
        Ok(())
    }

    fn big(&self) -> Result<&Fh, Failed> {
        self.big.as_ref().ok_or_else(|| "no large file".into())
    }

    fn read(&mut self) -> Result<Done, Failed> {
        let (fh, bytes) = (self.big()?.clone(), self.bytes());
        let calls = (0..bytes / LARGE as u64).map(|n| Call::read(&fh, n * LARGE as u64, LARGE as u32));
        let latencies = self.conn.pump(LARGE_AT_ONCE, calls, |answered| read_all(answered.results, LARGE))?;
        Ok(Done::of(latencies, bytes))
    }

    fn read_small(&mut self) -> Result<Done, Failed> {
        let (fh, count) = (self.big()?.clone(), self.options.calls * 4);
        let places = anywhere(self.bytes() / SMALL as u64, count);
        let calls = places.map(|place| Call::read(&fh, place * SMALL as u64, SMALL as u32));
        let latencies = self.conn.pump(NAMES_AT_ONCE, calls, |answered| read_all(answered.results, SMALL))?;
        Ok(Done::of(latencies, count * SMALL as u64))
    }

    /// Each durable when it is answered.
    fn write_small(&mut self, in_flight: usize) -> Result<Done, Failed> {
        let count = self.small_calls(in_flight);
        let places: Vec<u64> = anywhere(self.bytes() / SMALL as u64, count).collect();
        let (fh, data) = (self.big()?.clone(), &self.data[..SMALL]);
        let calls = places.iter().map(|place| Call::write(&fh, place * SMALL as u64, Stable::FileSync, data));
        let latencies = self.conn.pump(in_flight, calls, |mut answered| {
            let written = usize::try_from(answered.results.written()?)?;
            if written == SMALL { Ok(()) } else { Err(format!("{written} bytes written").into()) }
        })?;
        Ok(Done::of(latencies, count * SMALL as u64))
    }

    /// One call at a time takes longer.
    fn small_calls(&self, in_flight: usize) -> u64 {
        if in_flight == 1 { self.options.calls / 4 } else { self.options.calls }
    }

    fn need_created(&mut self) -> Result<(), Failed> {
        if self.created.is_empty() { self.create(NAMES_AT_ONCE).map(|_| ()) } else { Ok(()) }
    }

    fn create(&mut self, in_flight: usize) -> Result<Done, Failed> {
        let names: Vec<String> = (0..self.small_calls(in_flight)).map(|n| format!("created-{in_flight}-{n}")).collect();
        let calls = names.iter().map(|name| Call::create(&self.root, name));
        let latencies = self.conn.pump(in_flight, calls, |mut answered| answered.results.made().map(|_| ()))?;
        self.created = names;
        Ok(Done::of(latencies, 0))
    }

    /// What a `create` made.
    fn remove(&mut self, in_flight: usize) -> Result<Done, Failed> {
        let names = std::mem::take(&mut self.created);
        let calls = names.iter().map(|name| Call::remove(&self.root, name));
        Ok(Done::of(self.conn.pump(in_flight, calls, nobody)?, 0))
    }

    fn need_tree(&mut self) -> Result<(), Failed> {
        let dirs = usize::try_from(self.options.tree)?.div_ceil(DIR_FILES);
        for at in self.tree.len()..dirs {
            let name = format!("dir-{at}");
            let fh = self.conn.call(Call::mkdir(&self.root, &name), |mut reply| reply.made())?;
            let names: Vec<String> = (0..DIR_FILES).map(|n| format!("file-{n}")).collect();
            let calls = names.iter().map(|name| Call::create(&fh, name));
            let mut files = Vec::new();
            self.conn.pump(NAMES_AT_ONCE, calls, |mut answered| {
                files.push(answered.results.made()?);
                Ok(())
            })?;
            self.tree.push(Dir { fh, names, files });
        }
        Ok(())
    }

    fn lookup(&mut self) -> Result<Done, Failed> {
        let tree = &self.tree;
        let calls = tree.iter().flat_map(|dir| dir.names.iter().map(|name| Call::lookup(&dir.fh, name)));
        Ok(Done::of(self.conn.pump(NAMES_AT_ONCE, calls, nobody)?, 0))
    }

    fn getattr(&mut self) -> Result<Done, Failed> {
        let calls = self.tree.iter().flat_map(|dir| dir.files.iter().map(|fh| Call::getattr(fh)));
        Ok(Done::of(self.conn.pump(NAMES_AT_ONCE, calls, nobody)?, 0))
    }

    /// All of the tree, its directories side by side. A call is a page; what is counted is entries.
    fn readdirplus(&mut self) -> Result<Done, Failed> {
        let mut todo: Vec<(Fh, u64, [u8; 8])> = self.tree.iter().map(|dir| (dir.fh.clone(), 0, [0; 8])).collect();
        let (mut latencies, mut entries) = (Vec::new(), 0);
        while !todo.is_empty() {
            let calls: Vec<Call<'_>> = todo.iter().map(|(fh, cookie, v)| Call::readdirplus(fh, *cookie, *v)).collect();
            let mut more = Vec::new();
            latencies.extend(self.conn.pump(NAMES_AT_ONCE, calls, |mut answered| {
                let Page { entries: some, cookie, verifier, end } = answered.results.page()?;
                entries += some;
                if !end {
                    more.push((todo[answered.at].0.clone(), cookie, verifier));
                }
                Ok(())
            })?);
            todo = more;
        }
        Ok(Done { calls: entries, bytes: 0, latencies })
    }

    /// Each with a connection and a file of its own; together they write as much as `write`.
    fn writers(&mut self) -> Result<Done, Failed> {
        let files = (0..WRITERS).map(|n| self.make(&format!("writer-{n}"))).collect::<Result<Vec<Fh>, Failed>>()?;
        let (port, bytes, data) = (self.options.port, self.bytes() / WRITERS as u64, &self.data);
        let first_xid = |n: usize| (std::process::id() << 16).wrapping_add((n as u32 + 2) << 28);
        let done = std::thread::scope(|scope| {
            let writers: Vec<_> = files
                .iter()
                .enumerate()
                .map(|(n, fh)| {
                    scope.spawn(move || {
                        let mut conn = Conn::open(port, first_xid(n)).map_err(|e| e.to_string())?;
                        write_file(&mut conn, fh, bytes, Stable::Unstable, data).map_err(|e| e.to_string())
                    })
                })
                .collect();
            let joined = writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked".to_owned())?);
            joined.collect::<Result<Vec<Done>, String>>()
        })?;
        Ok(done.into_iter().fold(Done::default(), |mut all, one| {
            all.calls += one.calls;
            all.bytes += one.bytes;
            all.latencies.extend(one.latencies);
            all
        }))
    }
}

fn read_all(mut results: Reply<'_>, expected: usize) -> Result<(), Failed> {
    let count = usize::try_from(results.read_count()?)?;
    if count == expected { Ok(()) } else { Err(format!("{count} bytes read").into()) }
}
