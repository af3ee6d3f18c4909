//! One line per kind of filer: the scheme of its URLs, and where its calls go.
//!
//! A URL is `scheme://rest`. In a path, bytes other than letters, digits and `-._~/` are written `%XX`, so that a URL is
//! plain text whatever the names are; [`canonical`] makes two spellings of the same path equal.

use super::hidden::OWNER_FILE;
use super::{CoreFiler, Error, ErrorKind, OwnerMarker, Probe, Result, posix};
use async_trait::async_trait;
use journal_format::ids::{Identity, LocationId};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    /// `posix:///dir`: the directory's path.
    Posix(Vec<u8>),
    /// `memory:///name`, on this thread: for tests and simulation.
    #[cfg(any(test, feature = "simulation"))]
    Memory(Vec<u8>),
}

const KINDS: &str = "posix:///dir";

fn refused(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read a filer's URL", text)
}

impl Where {
    fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| refused(format!("{url:?} is not a URL; known kinds: {KINDS}")))?;
        match scheme.to_ascii_lowercase().as_str() {
            "posix" => Ok(Self::Posix(path(rest)?)),
            #[cfg(any(test, feature = "simulation"))]
            "memory" => Ok(Self::Memory(path(rest)?)),
            other => Err(refused(format!("no kind of filer is called {other:?}; known kinds: {KINDS}"))),
        }
    }
}

/// An absolute path without empty components.
fn path(text: &str) -> Result<Vec<u8>> {
    let bytes = decode(text)?;
    if bytes.first() != Some(&b'/') {
        return Err(refused("a path begins with a slash: posix:///dir"));
    }
    let mut path = Vec::with_capacity(bytes.len());
    for name in bytes.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        super::hidden::check_name(name).map_err(|e| refused(format!("in the path: {}", e.detail)))?;
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(refused("a % is followed by two hexadecimal digits")),
        }
    }
    Ok(out)
}

fn encode(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

fn path_buf(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// The URL in its one spelling.
pub fn canonical(url: &str) -> Result<String> {
    match Where::parse(url)? {
        Where::Posix(path) => Ok(format!("posix://{}", encode(&path))),
        #[cfg(any(test, feature = "simulation"))]
        Where::Memory(path) => Ok(format!("memory://{}", encode(&path))),
    }
}

/// The URL of a directory of this machine.
#[must_use]
pub fn url_of(dir: &std::path::Path) -> String {
    format!("posix://{}", encode(std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str())))
}

/// Whether a filer's root cannot be taken for another one by what is known of it.
#[must_use]
pub fn is_root_unique(url: &str, root: &[u8]) -> bool {
    !matches!(Where::parse(url), Ok(Where::Posix(_))) || posix::is_root_unique(root)
}

/// The owner marker tells a location from what else may be mounted at its place: on a mounted server the identity of a root
/// is often its inode number alone, which most file systems' roots have in common. `on`: URL and root of its filer.
///
/// # Errors
/// [`ErrorKind::Down`]: it bears another location's, or none and nothing else tells it.
pub async fn check_marker(
    journal_id: [u8; 16],
    id: LocationId,
    (url, root): (&str, &[u8]),
    filer: &dyn CoreFiler,
) -> Result<()> {
    let down = |text: String| Err(Error::new(ErrorKind::Down, "reach the location", text));
    match filer.owner().await? {
        Some(marker) if marker.journal_id == journal_id && marker.location == id.0 => Ok(()),
        Some(_) => down("its directory bears the owner marker of another location: is the right one mounted?".into()),
        None if is_root_unique(url, root) => Ok(()),
        None => {
            let text = OwnerMarker { journal_id, location: id.0, epoch: 1 }.to_text();
            down(format!(
                "its directory bears no owner marker, and nothing else tells its file system from another one: is the \
                 right one mounted? If it is, and has lost the marker, write {:?} into the file {} there",
                text.trim_end(),
                String::from_utf8_lossy(OWNER_FILE)
            ))
        }
    }
}

/// Looks at a filer and finds out what it can do.
pub async fn probe(url: &str) -> Result<Probe> {
    match Where::parse(url)? {
        Where::Posix(path) => posix::probe(path_buf(path)).await,
        #[cfg(any(test, feature = "simulation"))]
        Where::Memory(path) => super::memory::named::probe(&path).await,
    }
}

/// The location `subdir` of the export at `url`. `expected_root` is [`Probe::root`] as of when the filer was added;
/// without `expected_dir` the directory is whichever is there now. [`ErrorKind::Down`] when either is another one.
pub async fn open(
    url: &str,
    expected_root: &[u8],
    subdir: &[Vec<u8>],
    expected_dir: Option<&Identity>,
) -> Result<Arc<dyn CoreFiler>> {
    match Where::parse(url)? {
        Where::Posix(path) => posix::open(path_buf(path), expected_root, subdir, expected_dir).await,
        #[cfg(any(test, feature = "simulation"))]
        Where::Memory(path) => super::memory::named::open(&path, expected_root, subdir, expected_dir).await,
    }
}

/// How the service reaches filers: the registry, or in tests and simulation a double of it.
#[async_trait]
pub trait Filers: Send + Sync + 'static {
    /// [`open`].
    async fn open(
        &self,
        url: &str,
        expected_root: &[u8],
        subdir: &[Vec<u8>],
        expected_dir: Option<&Identity>,
    ) -> Result<Arc<dyn CoreFiler>>;
}

/// The kinds of filer that there are.
#[derive(Default)]
pub struct Registry {
    /// Places that no location may share a directory with, and their URLs.
    own: Vec<(String, posix::Site)>,
}

impl Registry {
    /// One that opens no location which shares a directory with these (`posix:` URLs): the service's own, where clients may
    /// reach nothing. That a command has looked once is not enough: what is whose may be configured otherwise since.
    ///
    /// They are looked at now and not again: where one of them hangs later (an archive) no location waits for it.
    pub async fn apart_from(own: &[String]) -> Result<Self> {
        let mut sites = Vec::with_capacity(own.len());
        for url in own {
            sites.extend(site(url, &[]).await?.map(|site| (url.clone(), site)));
        }
        Ok(Self { own: sites })
    }

    async fn check_apart(&self, url: &str, subdir: &[Vec<u8>]) -> Result<()> {
        if self.own.is_empty() {
            return Ok(());
        }
        let Some(here) = site(url, subdir).await? else { return Ok(()) };
        let Some((own, _)) = self.own.iter().find(|(_, own)| own.overlaps(&here)) else { return Ok(()) };
        let text = format!(
            "its directory overlaps {own}, where this service keeps its own data, and clients would reach that: move it, \
             and say where it is in the configuration"
        );
        Err(Error::new(ErrorKind::Down, "reach the location", text))
    }
}

/// Where it lies among this machine's directories, if it does.
async fn site(url: &str, subdir: &[Vec<u8>]) -> Result<Option<posix::Site>> {
    match Where::parse(url)? {
        Where::Posix(path) => posix::site(path_buf(path), subdir.to_vec()).await.map(Some),
        #[cfg(any(test, feature = "simulation"))]
        Where::Memory(_) => Ok(None),
    }
}

#[async_trait]
impl Filers for Registry {
    async fn open(
        &self,
        url: &str,
        expected_root: &[u8],
        subdir: &[Vec<u8>],
        expected_dir: Option<&Identity>,
    ) -> Result<Arc<dyn CoreFiler>> {
        let reached = open(url, expected_root, subdir, expected_dir).await?;
        self.check_apart(url, subdir).await?;
        Ok(reached)
    }
}

/// Makes the directories of `subdir` that are missing below the export's root.
pub async fn create_subdir(url: &str, expected_root: &[u8], subdir: &[Vec<u8>]) -> Result<()> {
    match Where::parse(url)? {
        Where::Posix(path) => posix::create_subdir(path_buf(path), expected_root, subdir).await,
        #[cfg(any(test, feature = "simulation"))]
        Where::Memory(path) => super::memory::named::open(&path, expected_root, subdir, None).await.map(drop),
    }
}

/// Whether two locations are, or lie inside, one another, whatever URLs lead to them.
pub async fn overlaps(url_a: &str, subdir_a: &[Vec<u8>], url_b: &str, subdir_b: &[Vec<u8>]) -> Result<bool> {
    match (Where::parse(url_a)?, Where::parse(url_b)?) {
        (Where::Posix(a), Where::Posix(b)) => {
            posix::overlaps(path_buf(a), subdir_a.to_vec(), path_buf(b), subdir_b.to_vec()).await
        }
        #[cfg(any(test, feature = "simulation"))]
        (Where::Memory(a), Where::Memory(b)) => Ok(a == b),
        #[cfg(any(test, feature = "simulation"))]
        (Where::Posix(_), Where::Memory(_)) | (Where::Memory(_), Where::Posix(_)) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filer::memory::Memory;

    #[test]
    fn spellings_of_one_path_are_one_url() {
        for url in ["posix:///srv/a%20b", "POSIX:///srv//a b/", "posix:////srv/a%20b/"] {
            assert_eq!(canonical(url).unwrap(), "posix:///srv/a%20b");
        }
        assert_eq!(canonical("posix:///").unwrap(), "posix:///");
        assert_eq!(canonical("posix:///%ff%2F%25").unwrap(), "posix:///%FF/%25");
    }

    #[test]
    fn urls_that_lead_astray_are_refused() {
        for url in ["/srv", "posix://srv/a", "posix:///a/../b", "posix:///a%00b", "posix:///a%2", "ftp://x/y", ""] {
            assert_eq!(canonical(url).unwrap_err().kind, ErrorKind::Invalid, "{url}");
        }
    }

    #[tokio::test]
    async fn a_location_that_shares_a_directory_with_the_services_own_is_down() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["data/archive", "data/beside", "other", "own/journal"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let own = ["data/archive", "own"].map(|sub| url_of(&dir.path().join(sub)));
        let filers = Registry::apart_from(&own).await.unwrap();
        let url = url_of(dir.path());
        let root = probe(&url).await.unwrap().root;
        for (subdir, shared) in [
            (vec!["data"], Some(&own[0])),
            (vec!["data", "archive"], Some(&own[0])),
            (vec!["own", "journal"], Some(&own[1])),
            (vec!["data", "beside"], None),
            (vec!["other"], None),
        ] {
            let names: Vec<Vec<u8>> = subdir.iter().map(|name| name.as_bytes().to_vec()).collect();
            let reached = filers.open(&url, &root, &names, None).await;
            let why = reached.err().map(|error| (error.kind, error.to_string()));
            assert_eq!(why.is_some(), shared.is_some(), "{subdir:?}: {why:?}");
            if let (Some((kind, text)), Some(shared)) = (why, shared) {
                assert!(kind == ErrorKind::Down && text.contains(shared), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_place_is_known_by_its_owner_marker_and_one_without_it_only_where_nothing_else_can_be_there() {
        let (id, memory) = (LocationId(3), Memory::default());
        // Version, type of the file system; then its id and the root's birth, where it tells them.
        let unique = [[1_u8; 9].as_slice(), &[7; 20], &[0; 9]].concat();
        let plain = [[1_u8; 9].as_slice(), &[0; 29]].concat();
        let (local, mounted) = (("posix:///a", unique.as_slice()), ("posix:///b", plain.as_slice()));
        let said = async |on| check_marker([5; 16], id, on, &memory).await.map_err(|e| e.to_string());
        said(local).await.unwrap();
        let lost = said(mounted).await.unwrap_err();
        let ours = OwnerMarker { journal_id: [5; 16], location: 3, epoch: 1 };
        assert!(lost.contains(ours.to_text().trim_end()) && lost.contains(".tain"), "{lost}");
        memory.claim(&OwnerMarker { epoch: 4, ..ours.clone() }).await.unwrap();
        for on in [local, mounted] {
            said(on).await.unwrap();
        }
        for other in [OwnerMarker { location: 4, ..ours.clone() }, OwnerMarker { journal_id: [6; 16], ..ours }] {
            memory.claim(&other).await.unwrap();
            for on in [local, mounted] {
                assert!(said(on).await.unwrap_err().contains("another location"));
            }
        }
    }
}
