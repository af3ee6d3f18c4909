//! The API's socket, and what a connection may take.

use super::{Port, http};
use crate::config::{self, ApiListen};
use axum::serve::Listener;
use rustix::fs::{Mode, chmod};
use std::future::{Future, IntoFuture};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep};
use tracing::{info, warn};

/// Connections at a time; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing comes in for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(120);
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
        let router = http::router(port, self.token);
        let (tell, told) = oneshot::channel();
        let stop = async move {
            stop.await;
            let _ = tell.send(()); // nobody listens when all has been answered already
        };
        match self.socket {
            Socket::Unix(listener, path) => {
                let serving = axum::serve(Bounded::new(listener), router).with_graceful_shutdown(stop);
                let done = until_stop(serving.into_future(), told).await;
                if let Err(e) = std::fs::remove_file(&path) {
                    warn!("{}: cannot be removed: {e}", path.display());
                }
                done
            }
            Socket::Tcp(listener) => {
                let serving = axum::serve(Bounded::new(listener), router).with_graceful_shutdown(stop);
                until_stop(serving.into_future(), told).await
            }
        }
    }
}

async fn until_stop(serving: impl Future<Output = io::Result<()>>, stops: oneshot::Receiver<()>) -> io::Result<()> {
    let patience = async {
        if stops.await.is_ok() {
            sleep(STOP_MAX).await;
        } else {
            std::future::pending::<()>().await; // it has ended by itself
        }
    };
    tokio::select! {
        biased;
        done = serving => done,
        () = patience => {
            warn!("the API stops before all requests were answered");
            Ok(())
        }
    }
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

/// A listener that hands out so many connections at a time.
struct Bounded<L> {
    inner: L,
    permits: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    fn new(inner: L) -> Self {
        Self { inner, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl<L: Listener> Listener for Bounded<L>
where
    L::Addr: Send,
{
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, addr) = self.inner.accept().await;
        (Connection { stream, idle: Box::pin(sleep(IDLE_MAX)), _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A stream that holds its place and does not wait for ever.
struct Connection<S> {
    stream: S,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(done) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return Poll::Ready(done);
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
