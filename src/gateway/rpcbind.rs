//! Registration with this machine's rpcbind, so that `showmount -e`, mounts without `port=` and clients' lock managers find
//! the service.
//!
//! rpcbind is spoken to over its local socket, where it knows who calls: over the network it takes registrations of
//! nobody, and from a user who is not root none that root has made. What another program has registered, and still
//! listens at, is left to it, and said; what nobody listens at any more is taken over, and said.

use super::outgoing::{Procedure, call};
use crate::wire::portmap::{self, Registered, Rpcb, Text, procedure, socket_of, universal};
use crate::wire::xdr::{Reader, Writer};
use crate::wire::{mount, nfs3, nlm4, nsm};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Where rpcbind listens for programs of this machine.
pub const SOCKET: &str = "/run/rpcbind.sock";
/// How long somebody may take to accept a connection.
const LISTENS_MAX: Duration = Duration::from_secs(2);

/// Program, version, whether datagrams are served, and who else might have it.
const PROGRAMS: [(u32, u32, bool, &str); 4] = [
    (nfs3::PROGRAM, nfs3::VERSION, false, "the kernel's NFS server (nfs-server.service) or nfs-ganesha"),
    (mount::PROGRAM, mount::VERSION, false, "rpc.mountd (nfs-server.service) or nfs-ganesha"),
    (nlm4::PROGRAM, nlm4::VERSION, false, "the kernel's lockd, for NFS mounts of this machine"),
    (nsm::PROGRAM, nsm::VERSION, true, "rpc.statd (rpc-statd.service), for NFS mounts of this machine"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    program: u32,
    version: u32,
    netid: &'static str,
    addr: String,
}

/// What was registered, until it is taken back.
#[derive(Debug, Default)]
pub struct Registration {
    socket: PathBuf,
    entries: Vec<Entry>,
    /// What could not be registered, and what to do, a sentence each.
    pub problems: Vec<String>,
}

/// Everything that is served at `nfs`.
fn wanted(nfs: SocketAddr) -> Vec<(Entry, &'static str)> {
    // A listener on all addresses of IPv6 takes IPv4, too.
    let (v4, v6) = match nfs {
        SocketAddr::V4(a) => (Some(*a.ip()), None),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (Some(Ipv4Addr::UNSPECIFIED), Some(Ipv6Addr::UNSPECIFIED)),
        SocketAddr::V6(a) => (None, Some(*a.ip())),
    };
    let v4 = v4.map(|ip| ("tcp", "udp", universal(&ip.to_string(), nfs.port())));
    let v6 = v6.map(|ip| ("tcp6", "udp6", universal(&ip.to_string(), nfs.port())));
    let mut all = Vec::new();
    for (tcp, udp, addr) in v4.into_iter().chain(v6) {
        for (program, version, datagrams, other) in PROGRAMS {
            for netid in [Some(tcp), datagrams.then_some(udp)].into_iter().flatten() {
                all.push((Entry { program, version, netid, addr: addr.clone() }, other));
            }
        }
    }
    all
}

/// Register all that is served at `nfs`. What could not be is a problem of the registration, and in the log.
pub async fn register(socket: &Path, nfs: SocketAddr) -> Registration {
    let mut registration = Registration { socket: socket.into(), ..Registration::default() };
    for (entry, other) in wanted(nfs) {
        match set(socket, &entry).await {
            Ok(()) => registration.entries.push(entry),
            Err(Refused::NotThere(why)) => {
                registration.problems.push(format!(
                    "rpcbind cannot be asked at {}: {why}; start it (rpcbind.service), or take `rpcbind = true` out of [nfs]",
                    socket.display()
                ));
                break;
            }
            Err(Refused::Taken(at)) => {
                let problem = format!(
                    "program {} is registered with rpcbind by another, who listens at {at}: {other}; stop that one and \
                     start tain again",
                    entry.program
                );
                // Said once of connections and datagrams.
                if !registration.problems.contains(&problem) {
                    registration.problems.push(problem);
                }
            }
            Err(Refused::No) => registration.problems.push(format!(
                "rpcbind does not let this user register program {}: run tain as root, or remove what is registered \
                 (rpcinfo -d {} {})",
                entry.program, entry.program, entry.version
            )),
        }
    }
    for problem in &registration.problems {
        tracing::warn!("{problem}");
    }
    if !registration.entries.is_empty() {
        tracing::info!(entries = registration.entries.len(), "registered with rpcbind");
    }
    registration
}

enum Refused {
    NotThere(String),
    Taken(SocketAddr),
    No,
}

async fn set(socket: &Path, entry: &Entry) -> Result<(), Refused> {
    let all = registered(socket).await.map_err(Refused::NotThere)?;
    if let Some(there) = entry.found(&all, entry.netid) {
        if there.addr.0 != entry.addr {
            if let Some(at) = living_other(entry, &all).await {
                return Err(Refused::Taken(at));
            }
            let (program, addr) = (entry.program, &there.addr.0);
            tracing::warn!(program, addr, "registered with rpcbind, but nobody else listens there: taken over");
        }
        let _refused = flag(socket, procedure::UNSET, entry).await?;
    }
    if flag(socket, procedure::SET, entry).await? { Ok(()) } else { Err(Refused::No) }
}

/// Where another listens who has registered this.
async fn living_other(entry: &Entry, all: &[Rpcb]) -> Option<SocketAddr> {
    // Nobody says whether they take datagrams; the same program's connections tell.
    let connections = if entry.netid.ends_with('6') { "tcp6" } else { "tcp" };
    let mut at = entry.found(all, connections).and_then(|there| socket_of(&there.addr.0))?;
    let own = socket_of(&entry.addr)?;
    // We listen there: whoever else has registered it is gone.
    if at.port() == own.port() && (at.ip() == own.ip() || at.ip().is_unspecified() || own.ip().is_unspecified()) {
        return None;
    }
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let connected = tokio::time::timeout(LISTENS_MAX, TcpStream::connect(at)).await;
    matches!(connected, Ok(Ok(_)) | Err(_)).then_some(at)
}

impl Entry {
    /// What is registered in its place for a transport.
    fn found<'a>(&self, all: &'a [Rpcb], netid: &str) -> Option<&'a Rpcb> {
        all.iter().find(|it| it.program == self.program && it.version == self.version && it.netid.0 == netid)
    }
}

/// Everything that anybody has registered.
async fn registered(socket: &Path) -> Result<Vec<Rpcb>, String> {
    let mut answer = call_rpcbind(socket, procedure::DUMP, |_| {}).await?;
    answer.get::<Registered>().map(|all| all.0).map_err(|_| "an answer that makes no sense".into())
}

async fn flag(socket: &Path, number: u32, entry: &Entry) -> Result<bool, Refused> {
    let mut answer = ask(socket, number, entry).await.map_err(Refused::NotThere)?;
    answer.get().map_err(|_| Refused::NotThere("an answer that makes no sense".into()))
}

async fn ask(socket: &Path, number: u32, entry: &Entry) -> Result<Reader, String> {
    let addr = if number == procedure::SET { entry.addr.clone() } else { String::new() };
    let rpcb = Rpcb {
        program: entry.program,
        version: entry.version,
        netid: Text(entry.netid.into()),
        addr: Text(addr),
        owner: Text(String::new()),
    };
    let put = |w: &mut Writer| {
        w.put(&rpcb);
    };
    call_rpcbind(socket, number, put).await
}

async fn call_rpcbind(socket: &Path, number: u32, put: impl FnOnce(&mut Writer)) -> Result<Reader, String> {
    let mut stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let to = Procedure { program: portmap::PROGRAM, version: portmap::RPCBIND, number };
    call(&mut stream, to, put).await.map_err(|error| error.to_string())
}

impl Registration {
    /// Take back what is still ours.
    pub async fn unregister(self) {
        for entry in &self.entries {
            let now = match registered(&self.socket).await {
                Ok(now) => now,
                Err(error) => return tracing::warn!(error, "rpcbind cannot be asked any more to take anything back"),
            };
            if entry.found(&now, entry.netid).is_none_or(|there| there.addr.0 != entry.addr) {
                tracing::warn!(program = entry.program, "registered with rpcbind by another meanwhile: left to it");
            } else if !matches!(flag(&self.socket, procedure::UNSET, entry).await, Ok(true)) {
                tracing::warn!(program = entry.program, "rpcbind does not take the registration back");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rpc::{self, Accept};
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    type Book = Arc<Mutex<BTreeMap<(u32, String), Rpcb>>>;

    /// An rpcbind that keeps a book, and gives nothing twice.
    fn rpcbind(dir: &Path, book: Book) -> PathBuf {
        let path = dir.join("rpcbind.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mark = stream.read_u32().await.unwrap();
                let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
                stream.read_exact(&mut record).await.unwrap();
                let (header, mut args) = rpc::parse_call(record.into()).unwrap();
                let mut w = rpc::accepted(header.xid, Accept::Success);
                {
                    let mut book = book.lock();
                    if header.procedure == procedure::DUMP {
                        w.put(&Registered(book.values().cloned().collect()));
                    } else {
                        let rpcb: Rpcb = args.get().unwrap();
                        let key = (rpcb.program, rpcb.netid.0.clone());
                        match header.procedure {
                            procedure::SET if book.contains_key(&key) => w.put(&false),
                            procedure::SET => w.put(&book.insert(key, rpcb).is_none()),
                            procedure::UNSET => w.put(&book.remove(&key).is_some()),
                            other => panic!("procedure {other} is not to be asked"),
                        };
                    }
                }
                stream.write_all(&w.finish().to_vec()).await.unwrap();
            }
        });
        path
    }

    fn ports(book: &Book) -> Vec<(u32, String, Option<u16>)> {
        let port = |rpcb: &Rpcb| socket_of(&rpcb.addr.0).map(|at| at.port());
        book.lock().iter().map(|((program, netid), rpcb)| (*program, netid.clone(), port(rpcb))).collect()
    }

    fn write(book: &Book, program: u32, netid: &str, addr: String) {
        let text = |text: &str| Text(text.into());
        let version = if program == nsm::PROGRAM { nsm::VERSION } else { 3 };
        let rpcb = Rpcb { program, version, netid: text(netid), addr: Text(addr), owner: text("another") };
        book.lock().insert((program, netid.into()), rpcb);
    }

    #[tokio::test]
    async fn datagrams_of_one_who_lives_are_left_to_him_and_an_address_that_is_not_ours_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::default();
        let socket = rpcbind(dir.path(), book.clone());
        let other = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = other.local_addr().unwrap().port();
        // A status monitor, and an NFS server on our port and an address of its own.
        write(&book, nsm::PROGRAM, "tcp", universal("127.0.0.2", port));
        write(&book, nsm::PROGRAM, "udp", universal("0.0.0.0", 9));
        write(&book, nfs3::PROGRAM, "tcp", universal("127.0.0.2", port));
        // One that was there before us, on all addresses.
        write(&book, mount::PROGRAM, "tcp", universal("0.0.0.0", port));
        let registration = register(&socket, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await;
        assert_eq!(registration.problems.len(), 2, "{:?}", registration.problems);
        let addr = |program, netid: &str| book.lock()[&(program, netid.to_owned())].addr.0.clone();
        assert_eq!(addr(nsm::PROGRAM, "udp"), universal("0.0.0.0", 9));
        assert_eq!(addr(nfs3::PROGRAM, "tcp"), universal("127.0.0.2", port));
        assert_eq!(addr(mount::PROGRAM, "tcp"), universal("127.0.0.1", port));
        registration.unregister().await;
        assert_eq!(book.lock().len(), 3, "{book:?}");
    }

    #[tokio::test]
    async fn what_is_served_is_registered_and_taken_back_and_what_another_has_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::default();
        let socket = rpcbind(dir.path(), book.clone());
        // Another NFS server that is there, and a status monitor that is not any more.
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = other.local_addr().unwrap().port();
        write(&book, nfs3::PROGRAM, "tcp", universal("0.0.0.0", port));
        write(&book, nsm::PROGRAM, "tcp", universal("0.0.0.0", 1));
        let nfs = "127.0.0.1:2049".parse().unwrap();
        let registration = register(&socket, nfs).await;
        assert_eq!(registration.problems.len(), 1, "{:?}", registration.problems);
        assert!(registration.problems[0].contains("100003"), "{:?}", registration.problems);
        let entry = |program, netid: &str, port| (program, netid.to_owned(), Some(port));
        let all = [
            entry(nfs3::PROGRAM, "tcp", port),
            entry(mount::PROGRAM, "tcp", 2049),
            entry(nlm4::PROGRAM, "tcp", 2049),
            entry(nsm::PROGRAM, "tcp", 2049),
            entry(nsm::PROGRAM, "udp", 2049),
        ];
        assert_eq!(ports(&book), all);
        // One that was killed left them: the next one has them.
        drop(registration);
        let registration = register(&socket, nfs).await;
        assert_eq!(ports(&book), all);
        write(&book, mount::PROGRAM, "tcp", universal("0.0.0.0", 3));
        registration.unregister().await;
        assert_eq!(ports(&book), [entry(nfs3::PROGRAM, "tcp", port), entry(mount::PROGRAM, "tcp", 3)]);
    }

    #[tokio::test]
    async fn without_rpcbind_it_says_what_to_do() {
        let registration = register(Path::new("/nowhere/rpcbind.sock"), "0.0.0.0:2049".parse().unwrap()).await;
        assert!(registration.problems[0].contains("start it"), "{:?}", registration.problems);
        assert_eq!(registration.problems.len(), 1);
    }

    #[test]
    fn a_listener_on_all_addresses_of_ipv6_serves_ipv4_too() {
        let netids = |nfs: &str| {
            let mut all: Vec<_> = wanted(nfs.parse().unwrap()).into_iter().map(|(entry, _)| entry.netid).collect();
            all.dedup();
            all
        };
        assert_eq!(netids("[::]:2049"), ["tcp", "udp", "tcp6", "udp6"]);
        assert_eq!(netids("[::1]:2049"), ["tcp6", "udp6"]);
    }
}
