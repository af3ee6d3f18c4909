//! The API's socket, and what a connection may take.

use super::seats::{Seat, Seats};
use super::{Port, http};
use crate::config::{self, ApiListen};
use axum::Router;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::{Mode, chmod};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// A connection on which no whole head of a request has come in for so long is closed. (What its body may take: `http.rs`.
/// While a request is answered nothing is waited for, and nobody is cut off.)
const HEAD_MAX: Duration = Duration::from_secs(30);
/// From a stop on, what is being answered may take so long. A request of which half has come, or a filer that is asked, must
/// not keep the service from its last checkpoint.
const STOP_MAX: Duration = Duration::from_secs(5);
const TOKEN_MAX: usize = 4096;

/// The API's socket, bound and not serving yet. Connections wait until it does.
#[derive(Debug)]
pub struct Api {
    socket: Socket,
    token: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Api {
    /// Bind. A socket file that is there is replaced, so the directories must be locked against a second process
    /// before this.
    pub async fn bind(config: &config::Api) -> io::Result<Self> {
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        let socket = match &config.listen {
            ApiListen::Unix(path) => Socket::Unix(bind_unix(path)?, path.clone()),
            ApiListen::Tcp(addr) => {
                if token.is_none() {
                    warn!("the API on {addr} has no token: every local user may command this service");
                }
                Socket::Tcp(TcpListener::bind(addr).await?)
            }
        };
        info!("API on {}", config.listen);
        Ok(Self { socket, token })
    }

    /// The address, when it is TCP.
    pub fn local_addr(&self) -> io::Result<Option<std::net::SocketAddr>> {
        match &self.socket {
            Socket::Unix(..) => Ok(None),
            Socket::Tcp(listener) => listener.local_addr().map(Some),
        }
    }

    /// Serve until `stop` comes, then finish what is being answered, if that is soon.
    pub async fn serve(self, port: Arc<dyn Port>, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        match self.socket {
            Socket::Unix(listener, path) => {
                serve(listener, http::router(port, self.token, false), stop).await;
                if let Err(e) = std::fs::remove_file(&path) {
                    warn!("{}: cannot be removed: {e}", path.display());
                }
            }
            Socket::Tcp(listener) => serve(listener, http::router(port, self.token, true), stop).await,
        }
        Ok(())
    }
}

async fn serve<L: Listener>(mut listener: L, router: Router, stop: impl Future<Output = ()>) {
    let (tell, told) = watch::channel(false);
    // As many as have a seat, and those who have just lost one.
    let mut connections = JoinSet::new();
    let accept = async {
        let seats = Arc::new(Seats::default());
        loop {
            let (stream, _) = listener.accept().await;
            let seat = seats.sit().await;
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(stream, router.clone(), seat, told.clone()));
        }
    };
    tokio::select! {
        biased;
        () = stop => {}
        () = accept => {}
    }
    drop(listener);
    tell.send_replace(true);
    let ends = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_MAX, ends).await.is_err() {
        warn!("the API stops before all requests were answered");
    }
}

async fn connection<S>(stream: S, router: Router, seat: Arc<Seat>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (own, router) = (seat.clone(), TowerToHyperService::new(router));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(own.clone());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let served = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        // What went wrong with a connection is its client's to tell.
        _ = served.as_mut() => return,
        () = seat.lost() => return,
        _ = stop.wait_for(|stop| *stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

fn read_token(path: &Path) -> io::Result<Vec<u8>> {
    let text = std::fs::read(path).map_err(|e| named(path, e))?;
    let token = text.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    if token.len() < 16 || token.len() > TOKEN_MAX {
        let what = format!("its first line is not a token of 16 to {TOKEN_MAX} bytes");
        return Err(named(path, io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    Ok(token.to_vec())
}

fn named(path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Bound and given its mode in a directory that nobody else can enter, then moved into place: there is no instant at
/// which another user could connect.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            let e = io::Error::new(io::ErrorKind::AlreadyExists, "is there, and is not a socket");
            return Err(named(path, e));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(named(path, e)),
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let private = parent.join(format!(".api-{}", std::process::id()));
    match std::fs::remove_dir_all(&private) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(named(&private, e)),
    }
    std::fs::DirBuilder::new().mode(0o700).create(&private).map_err(|e| named(&private, e))?;
    let bound = (|| {
        let new = private.join("s");
        let listener = UnixListener::bind(&new)?;
        chmod(&new, Mode::RUSR | Mode::WUSR)?;
        std::fs::rename(&new, path)?;
        Ok(listener)
    })();
    std::fs::remove_dir_all(&private).map_err(|e| named(&private, e))?;
    bound.map_err(|e| named(path, e))
}
