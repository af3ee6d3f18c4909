//! `tain.toml`: text, checked, resolved. Filers, junctions and jobs are not in it: they are events.
//!
//! Every key has a default, so an empty file and a missing default file are the same. A key that is not known, a value
//! of the wrong kind and a value that cannot work are errors that name the key, the value and what is expected.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// Read when no file is named.
pub const DEFAULT_FILE: &str = "/etc/tain/tain.toml";
const LIB: &str = "/var/lib/tain";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The largest operation, 1 MiB of data and its header, fits several times. (Tests that die at crash points want many
/// segments, and keep their operations small.)
const SEGMENT_SIZE_MIN: u64 = if cfg!(feature = "crash-points") { 256 * KIB } else { 8 * MIB };
/// What the format can express.
const SEGMENT_SIZE_MAX: u64 = journal_format::segment::SEGMENT_SIZE_MAX;
/// One is written, one is spare, one is full and two are being read.
const SEGMENTS_MIN: u64 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub journal: Journal,
    pub nfs: Nfs,
    pub api: Api,
    pub state: StateDir,
}

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Default `/var/lib/tain/journal`.
    pub dir: PathBuf,
    /// Bytes, a multiple of 4 KiB. Default 256 MiB.
    pub segment_size: u64,
    /// Bytes; from here on the slowest secondary's backlog is given up. Default 8 GiB.
    pub soft_limit: u64,
    /// Bytes; from here on client changes wait. Default 16 GiB.
    pub hard_limit: u64,
    /// Default: `direct` where the file system can, else `buffered`. One that is given is not exchanged.
    pub append: Option<Append>,
    /// Accept a file system on which the journal's promises have not been shown (btrfs, tmpfs, FUSE, network).
    pub any_file_system: bool,
    /// A directory that segments are archived in before they are used again. Default: none are.
    pub archive: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    Direct,
    Buffered,
    Map,
}

/// `[nfs]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nfs {
    /// NFS and MOUNT on one port. Default 127.0.0.1:2049.
    pub listen: SocketAddr,
    /// Seconds after a restart in which only claims of locks are granted, when clients may have held some. Default 45.
    pub grace: Duration,
    /// Register with this machine's rpcbind. Default false.
    pub rpcbind: bool,
    /// The port of clients' portmappers, by which they are told of locks. Default 111.
    pub client_portmapper: u16,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub listen: ApiListen,
    /// A file whose first line every request must carry as its bearer token.
    pub token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiListen {
    /// Mode 0600. Default `api.sock` in the state directory.
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl std::fmt::Display for ApiListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiListen::Unix(path) => write!(f, "unix://{}", path.display()),
            ApiListen::Tcp(addr) => write!(f, "http://{addr}"),
        }
    }
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// Node index and API socket. Default `/var/lib/tain/state`.
    pub dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: Box<Error> },
    #[error("not TOML: {0}")]
    Toml(String),
    #[error("unknown key '{key}': expected one of {expected}")]
    UnknownKey { key: String, expected: String },
    #[error("{key} = {value}: expected {expected}")]
    Value { key: String, value: String, expected: String },
}

impl Default for Config {
    fn default() -> Self {
        Self::parse("").expect("every key has a default that holds")
    }
}

impl Config {
    /// The file named, or the default file if it is there, or the defaults.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(source) => return Err(Error::Read { path: path.into(), source }),
        };
        Self::parse(&text).map_err(|what| Error::File { path: path.into(), what: Box::new(what) })
    }

    /// The text of a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| Error::Toml(e.to_string().trim().into()))?;
        let sections = ["journal", "nfs", "api", "state"];
        if let Some(key) = table.keys().find(|k| !sections.contains(&k.as_str())) {
            return Err(unknown(key, &sections));
        }
        let section = |name: &'static str, keys: &[&str]| Section::of(&table, name, keys);
        let state = section("state", &["dir"])?;
        let state = StateDir { dir: state.path("dir")?.unwrap_or_else(|| Path::new(LIB).join("state")) };
        let nfs = nfs(&section("nfs", &["listen", "grace", "rpcbind", "client_portmapper"])?)?;
        let keys = ["dir", "segment_size", "soft_limit", "hard_limit", "append", "any_file_system", "archive"];
        let journal = journal(&section("journal", &keys)?)?;
        let api = api(&section("api", &["listen", "token_file"])?, &state.dir)?;
        Ok(Self { journal, nfs, api, state })
    }
}

fn nfs(section: &Section<'_>) -> Result<Nfs, Error> {
    let grace = section.number("grace", 1, 600)?.unwrap_or(45);
    let client_portmapper = section.number("client_portmapper", 1, u64::from(u16::MAX))?;
    Ok(Nfs {
        listen: section.addr("listen")?.unwrap_or((Ipv4Addr::LOCALHOST, 2049).into()),
        grace: Duration::from_secs(grace),
        rpcbind: section.flag("rpcbind")?.unwrap_or(false),
        client_portmapper: client_portmapper.map_or(111, |port| u16::try_from(port).expect("within its bounds")),
    })
}

fn journal(section: &Section<'_>) -> Result<Journal, Error> {
    let segment_size = section.size("segment_size")?.unwrap_or(256 * MIB);
    if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&segment_size) || segment_size % (4 * KIB) != 0 {
        return Err(section.bad("segment_size", "8 MiB to 4 GiB, a multiple of 4 KiB"));
    }
    // A limit that is not given follows the ones that are, so that setting one is enough.
    let least = segment_size.saturating_mul(SEGMENTS_MIN);
    // Between the limits there is room for the segment being filled, and for those that end what has begun.
    let apart = least - segment_size;
    let hard = section.size("hard_limit")?;
    let soft = section.size("soft_limit")?;
    let hard_limit = hard.unwrap_or_else(|| {
        soft.map_or(16 * GIB, |soft| soft.saturating_mul(2).max(soft.saturating_add(apart))).max(least)
    });
    if hard_limit < least {
        return Err(section.bad("hard_limit", &format!("at least {SEGMENTS_MIN} segments, which is {least}")));
    }
    let soft_max = hard_limit - apart;
    let soft_limit = soft.unwrap_or((hard_limit / 2).min(soft_max));
    if soft_limit > soft_max || soft_limit < segment_size {
        let most = format!(
            "at least a segment, {segment_size}, and {} segments below hard_limit, {soft_max}",
            SEGMENTS_MIN - 1
        );
        return Err(section.bad("soft_limit", &most));
    }
    let append = match section.text("append")? {
        None => None,
        Some("direct") => Some(Append::Direct),
        Some("buffered") => Some(Append::Buffered),
        Some("map") => Some(Append::Map),
        Some(_) => return Err(section.bad("append", "\"direct\", \"buffered\" or \"map\"")),
    };
    Ok(Journal {
        dir: section.path("dir")?.unwrap_or_else(|| Path::new(LIB).join("journal")),
        segment_size,
        soft_limit,
        hard_limit,
        append,
        any_file_system: section.flag("any_file_system")?.unwrap_or(false),
        archive: section.path("archive")?,
    })
}

fn api(section: &Section<'_>, state_dir: &Path) -> Result<Api, Error> {
    let expected = "unix:///path, an absolute path, or ADDRESS:PORT";
    let listen = match section.text("listen")? {
        None => ApiListen::Unix(state_dir.join("api.sock")),
        Some(text) => match text.strip_prefix("unix://").unwrap_or(text) {
            path if path.starts_with('/') => ApiListen::Unix(path.into()),
            addr => ApiListen::Tcp(addr.parse().map_err(|_| section.bad("listen", expected))?),
        },
    };
    let token_file = section.path("token_file")?;
    if let (ApiListen::Tcp(addr), None) = (&listen, &token_file)
        && !addr.ip().is_loopback()
    {
        return Err(section.bad("listen", "a loopback address, or a token_file beside it"));
    }
    Ok(Api { listen, token_file })
}

/// One `[section]` of the file; its keys are known ones.
struct Section<'a> {
    name: &'static str,
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    fn of(file: &'a Table, name: &'static str, keys: &[&str]) -> Result<Self, Error> {
        let table = match file.get(name) {
            None => None,
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                let expected = format!("a section, [{name}]");
                return Err(Error::Value { key: name.into(), value: other.to_string(), expected });
            }
        };
        match table.into_iter().flat_map(Table::keys).find(|k| !keys.contains(&k.as_str())) {
            Some(key) => Err(unknown(&format!("{name}.{key}"), keys)),
            None => Ok(Self { name, table }),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.and_then(|t| t.get(key))
    }

    fn bad(&self, key: &str, expected: &str) -> Error {
        let value = self.get(key).map_or_else(|| "(its default)".to_owned(), ToString::to_string);
        Error::Value { key: format!("{}.{key}", self.name), value, expected: expected.into() }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.bad(key, "a string"))).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.get(key).map(|v| v.as_bool().ok_or_else(|| self.bad(key, "true or false"))).transpose()
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, Error> {
        match self.text(key)? {
            None => Ok(None),
            Some(path) if path.starts_with('/') => Ok(Some(path.into())),
            Some(_) => Err(self.bad(key, "an absolute path")),
        }
    }

    fn addr(&self, key: &str) -> Result<Option<SocketAddr>, Error> {
        let expected = "ADDRESS:PORT, as \"127.0.0.1:2049\" or \"[::1]:2049\"";
        self.text(key)?.map(|text| text.parse().map_err(|_| self.bad(key, expected))).transpose()
    }

    fn number(&self, key: &str, from: u64, to: u64) -> Result<Option<u64>, Error> {
        let number = |value: &Value| value.as_integer().and_then(|n| u64::try_from(n).ok());
        let within = |value| number(value).filter(|n| (from..=to).contains(n));
        let expected = format!("a number from {from} to {to}");
        self.get(key).map(|value| within(value).ok_or_else(|| self.bad(key, &expected))).transpose()
    }

    fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = match value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            Value::String(text) => size(text),
            Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
        };
        size.map(Some).ok_or_else(|| self.bad(key, "a size: bytes, or \"256 MiB\" with KiB, MiB, GiB or TiB"))
    }
}

fn unknown(key: &str, keys: &[&str]) -> Error {
    Error::UnknownKey { key: key.into(), expected: keys.join(", ") }
}

/// `"256 MiB"` in bytes.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        let c = Config::default();
        assert_eq!(c.journal.dir, Path::new("/var/lib/tain/journal"));
        assert_eq!(c.state.dir, Path::new("/var/lib/tain/state"));
        assert_eq!(
            (c.journal.segment_size, c.journal.soft_limit, c.journal.hard_limit),
            (256 * MIB, 8 * GIB, 16 * GIB)
        );
        assert_eq!((c.journal.append, c.journal.any_file_system, c.journal.archive), (None, false, None));
        assert_eq!(c.nfs.listen.to_string(), "127.0.0.1:2049");
        assert_eq!((c.nfs.grace.as_secs(), c.nfs.rpcbind, c.nfs.client_portmapper), (45, false, 111));
        assert_eq!(c.api.listen.to_string(), "unix:///var/lib/tain/state/api.sock");
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [journal]
            dir = "/j"
            segment_size = "16 MiB"
            soft_limit = 67108864
            hard_limit = "1GiB"
            append = "buffered"
            any_file_system = true
            archive = "/a"
            [nfs]
            listen = "[::1]:12049"
            grace = 90
            rpcbind = true
            client_portmapper = 1111
            [api]
            listen = "127.0.0.1:80"
            token_file = "/t"
            [state]
            dir = "/s"
        "#;
        let c = Config::parse(text).unwrap();
        let journal = Journal {
            dir: "/j".into(),
            segment_size: 16 * MIB,
            soft_limit: 64 * MIB,
            hard_limit: GIB,
            append: Some(Append::Buffered),
            any_file_system: true,
            archive: Some("/a".into()),
        };
        assert_eq!(c.journal, journal);
        assert_eq!(c.nfs.listen.to_string(), "[::1]:12049");
        assert_eq!((c.nfs.grace.as_secs(), c.nfs.rpcbind, c.nfs.client_portmapper), (90, true, 1111));
        assert_eq!(c.api.listen.to_string(), "http://127.0.0.1:80");
        assert_eq!((c.api.token_file, c.state.dir), (Some("/t".into()), "/s".into()));
        let socket = |text: &str| Config::parse(text).unwrap().api.listen.to_string();
        assert_eq!(socket("[state]\ndir = \"/s\""), "unix:///s/api.sock", "follows the state directory");
        assert_eq!(socket("api.listen = \"unix:///x\""), "unix:///x");
        assert_eq!(socket("api.listen = \"/x\""), "unix:///x");
    }

    #[test]
    fn a_limit_that_is_not_given_follows_the_one_that_is() {
        let limits = |text: &str| {
            let j = Config::parse(text).unwrap().journal;
            (j.soft_limit / MIB, j.hard_limit / MIB)
        };
        assert_eq!(limits("journal.hard_limit = \"2 GiB\""), (1024, 2048));
        assert_eq!(limits("journal.soft_limit = \"1 GiB\""), (1024, 2048));
        assert_eq!(limits("journal.segment_size = \"4 GiB\""), (4096, 16384));
    }

    #[test]
    fn what_cannot_be_is_an_error_that_names_key_value_and_expectation() {
        for (text, words) in [
            ("[jurnal]", "unknown key 'jurnal': expected one of journal, nfs, api, state"),
            ("[journal]\nsize = 1", "unknown key 'journal.size': expected one of dir, segment_size"),
            ("journal = 3", "journal = 3: expected a section"),
            ("journal.segment_size = \"256 MB\"", "journal.segment_size = \"256 MB\": expected a size"),
            ("journal.segment_size = -1", "journal.segment_size = -1: expected a size"),
            ("journal.segment_size = \"99999999999 TiB\"", "expected a size"),
            ("journal.segment_size = 1048576", "journal.segment_size = 1048576: expected 8 MiB to 4 GiB"),
            ("journal.segment_size = \"4100 MiB\"", "journal.segment_size = \"4100 MiB\": expected 8 MiB to 4 GiB"),
            ("journal.segment_size = 16777217", "a multiple of 4 KiB"),
            ("journal.hard_limit = \"512 MiB\"", "journal.hard_limit = \"512 MiB\": expected at least 4 segments"),
            (
                "journal.soft_limit = \"2 GiB\"\njournal.hard_limit = \"1 GiB\"",
                "3 segments below hard_limit, 268435456",
            ),
            ("journal.append = \"mmap\"", "journal.append = \"mmap\": expected \"direct\", \"buffered\" or \"map\""),
            ("journal.any_file_system = 1", "expected true or false"),
            ("journal.dir = \"here\"", "journal.dir = \"here\": expected an absolute path"),
            ("nfs.listen = \"2049\"", "nfs.listen = \"2049\": expected ADDRESS:PORT"),
            ("nfs.grace = 0", "nfs.grace = 0: expected a number from 1 to 600"),
            ("nfs.client_portmapper = 65536", "expected a number from 1 to 65535"),
            ("nfs.listen = 2049", "nfs.listen = 2049: expected a string"),
            ("api.listen = \"everywhere\"", "api.listen = \"everywhere\": expected unix:///path"),
            ("api.listen = \"0.0.0.0:80\"", "a loopback address, or a token_file"),
            ("[journal", "not TOML"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "'{error}' does not say '{words}'");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_its_errors_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        let error = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("t.toml: cannot be read"), "{error}");
        std::fs::write(&file, "x = 1").unwrap();
        let error = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("t.toml: unknown key 'x'"), "{error}");
        std::fs::write(&file, "[nfs]\nlisten = \"127.0.0.1:1\"").unwrap();
        assert_eq!(Config::load(Some(&file)).unwrap().nfs.listen.port(), 1);
    }
}
