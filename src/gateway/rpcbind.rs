//! Registration with this machine's rpcbind, so that `showmount -e`, mounts without `port=` and clients' lock managers find
//! the service.
//!
//! rpcbind is spoken to over its local socket, where it knows who calls: over the network it takes registrations of
//! nobody, and from a user who is not root none that root has made. What another program has registered, and still
//! listens at, is left to it, and said; what nobody listens at any more is taken over, and said.

use super::outgoing::{Procedure, call};
use crate::wire::portmap::{self, Rpcb, Text, port_of, procedure, universal};
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
        match set(socket, &entry, nfs).await {
            Ok(()) => registration.entries.push(entry),
            Err(Refused::NotThere(why)) => {
                registration.problems.push(format!(
                    "rpcbind cannot be asked at {}: {why}; start it (rpcbind.service), or take `rpcbind = true` out of [nfs]",
                    socket.display()
                ));
                break;
            }
            Err(Refused::Taken(port)) => registration.problems.push(format!(
                "program {} is registered with rpcbind by another, who listens on port {port}: {other}; stop that one \
                 and start tain again",
                entry.program
            )),
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
    Taken(u16),
    No,
}

async fn set(socket: &Path, entry: &Entry, nfs: SocketAddr) -> Result<(), Refused> {
    let there = ask(socket, procedure::GETPORT, entry).await.map_err(Refused::NotThere)?;
    let text: Text = there.clone().get().map_err(|_| Refused::NotThere("an answer that makes no sense".into()))?;
    if let Some(port) = port_of(&text.0) {
        // We listen on our own port: who is registered there is one of us, and gone.
        if port != nfs.port() {
            if listens(entry, port).await {
                return Err(Refused::Taken(port));
            }
            tracing::warn!(
                program = entry.program,
                port,
                "registered with rpcbind, but nobody listens there: taken over"
            );
        }
        let _refused = flag(socket, procedure::UNSET, entry).await?;
    }
    if flag(socket, procedure::SET, entry).await? { Ok(()) } else { Err(Refused::No) }
}

async fn listens(entry: &Entry, port: u16) -> bool {
    if entry.netid.starts_with("udp") {
        // Nobody says whether they take datagrams; the same program's connections tell.
        return false;
    }
    let connect = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    matches!(tokio::time::timeout(LISTENS_MAX, connect).await, Ok(Ok(_)) | Err(_))
}

async fn flag(socket: &Path, number: u32, entry: &Entry) -> Result<bool, Refused> {
    let mut answer = ask(socket, number, entry).await.map_err(Refused::NotThere)?;
    answer.get().map_err(|_| Refused::NotThere("an answer that makes no sense".into()))
}

async fn ask(socket: &Path, number: u32, entry: &Entry) -> Result<crate::wire::xdr::Reader, String> {
    let mut stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let to = Procedure { program: portmap::PROGRAM, version: portmap::RPCBIND, number };
    let addr = if number == procedure::SET { entry.addr.clone() } else { String::new() };
    let rpcb = Rpcb {
        program: entry.program,
        version: entry.version,
        netid: Text(entry.netid.into()),
        addr: Text(addr),
        owner: Text(String::new()),
    };
    let answer = call(&mut stream, to, |w| {
        w.put(&rpcb);
    });
    answer.await.map_err(|error| error.to_string())
}

impl Registration {
    /// Take back what is still ours.
    pub async fn unregister(self) {
        for entry in &self.entries {
            let mut now = match ask(&self.socket, procedure::GETPORT, entry).await {
                Ok(now) => now,
                Err(error) => return tracing::warn!(error, "rpcbind cannot be asked any more to take anything back"),
            };
            let ours = now.get::<Text>().ok().and_then(|text| port_of(&text.0));
            if ours != port_of(&entry.addr) {
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

    type Book = Arc<Mutex<BTreeMap<(u32, String), String>>>;

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
                let rpcb: Rpcb = args.get().unwrap();
                let key = (rpcb.program, rpcb.netid.0);
                let mut w = rpc::accepted(header.xid, Accept::Success);
                {
                    let mut book = book.lock();
                    match header.procedure {
                        procedure::SET if book.contains_key(&key) => w.put(&false),
                        procedure::SET => w.put(&book.insert(key, rpcb.addr.0).is_none()),
                        procedure::UNSET => w.put(&book.remove(&key).is_some()),
                        _ => w.put(&Text(book.get(&key).cloned().unwrap_or_default())),
                    };
                }
                stream.write_all(&w.finish().to_vec()).await.unwrap();
            }
        });
        path
    }

    fn ports(book: &Book) -> Vec<(u32, String, Option<u16>)> {
        book.lock().iter().map(|((program, netid), addr)| (*program, netid.clone(), port_of(addr))).collect()
    }

    #[tokio::test]
    async fn what_is_served_is_registered_and_taken_back_and_what_another_has_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::default();
        let socket = rpcbind(dir.path(), book.clone());
        // Another NFS server that is there, and a status monitor that is not any more.
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = other.local_addr().unwrap().port();
        book.lock().insert((nfs3::PROGRAM, "tcp".into()), universal("0.0.0.0", port));
        book.lock().insert((nsm::PROGRAM, "tcp".into()), universal("0.0.0.0", 1));
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
        book.lock().insert((mount::PROGRAM, "tcp".into()), universal("0.0.0.0", 3));
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
