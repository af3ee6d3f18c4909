//! HTTP to the service's API, over a Unix socket or TCP. One connection a request.

use super::Failure;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Longest answer that is read.
const ANSWER_MAX: usize = 64 << 20;
/// Longest wait for one: creating asks filers several times, each up to half a minute.
const ANSWER_WAIT: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    token: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Unix(PathBuf),
    /// host:port
    Tcp(String),
}

impl Target {
    fn parse(url: &str) -> Result<Self, Failure> {
        if let Some(path) = url.strip_prefix("unix://")
            && path.starts_with('/')
        {
            return Ok(Target::Unix(path.into()));
        }
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match authority {
            Some(host) if !host.is_empty() && !host.contains(['/', '@', '?']) => {
                let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(Target::Tcp(if has_port { host.to_owned() } else { format!("{host}:80") }))
            }
            _ => Err(Failure::new(
                format!("'{url}' is not the URL of an API"),
                "write it as unix:///path or http://host:port",
            )),
        }
    }
}

/// Why a request failed, and whether the service answered at all.
#[derive(Debug)]
pub(super) struct ApiError {
    pub failure: Failure,
    /// There was no answer: a service that restarts may give one later.
    pub unreachable: bool,
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self { failure, unreachable: false }
    }
}

impl From<ApiError> for Failure {
    fn from(e: ApiError) -> Self {
        e.failure
    }
}

impl Client {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        let token = match token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    Failure::new(format!("{}: {e}", path.display()), "give a token file that can be read")
                })?;
                Some(text.lines().next().unwrap_or_default().trim().to_owned())
            }
        };
        Ok(Self { target: Target::parse(url)?, token })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let host = match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tcp(host) => host,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Failure::new(format!("the request cannot be written: {e}"), "check the arguments"))?;
        let changes = *request.method() != Method::GET;
        let unreachable = |broken: Broken| {
            let name = self.name();
            let failure = match broken {
                Broken::Unanswered(e) if changes => Failure::new(
                    format!(
                        "the service at {name} has not answered ({e}): whether it did what it was told is not known"
                    ),
                    "look before you tell it again: 'tain status' shows what there is",
                ),
                Broken::Unsent(e) | Broken::Unanswered(e) => Failure::new(
                    format!("the service does not answer at {name}: {e}"),
                    "is it running? 'tain serve' runs it; --api URL or TAIN_API names another",
                ),
            };
            ApiError { failure, unreachable: true }
        };
        let answer = tokio::time::timeout(ANSWER_WAIT, async {
            match &self.target {
                Target::Unix(path) => exchange(UnixStream::connect(path).await.map_err(unsent)?, request).await,
                Target::Tcp(host) => exchange(TcpStream::connect(host).await.map_err(unsent)?, request).await,
            }
        });
        let late = |_| Broken::Unanswered(format!("nothing within {} seconds", ANSWER_WAIT.as_secs()));
        let (status, body) = answer.await.map_err(late).flatten().map_err(unreachable)?;
        judge(status, &body)
    }

    fn name(&self) -> String {
        match &self.target {
            Target::Unix(path) => format!("unix://{}", path.display()),
            Target::Tcp(host) => format!("http://{host}"),
        }
    }
}

/// Where a request broke off.
enum Broken {
    Unsent(String),
    Unanswered(String),
}

fn unsent(e: impl std::fmt::Display) -> Broken {
    Broken::Unsent(e.to_string())
}

fn unanswered(e: impl std::fmt::Display) -> Broken {
    Broken::Unanswered(e.to_string())
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unsent)?;
    // Ends with the sender; what goes wrong in it comes out at the request as well.
    let driver = tokio::spawn(connection);
    let exchanged = async {
        let answer = sender.send_request(request).await.map_err(unanswered)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(unanswered)?;
        Ok((status, body.to_bytes()))
    }
    .await;
    driver.abort();
    exchanged
}

fn judge(status: StatusCode, body: &[u8]) -> Result<Value, ApiError> {
    let document: Option<Value> = serde_json::from_slice(body).ok();
    if status.is_success() {
        return document.ok_or_else(|| Failure::new("the service's answer is not JSON", "is this tain's API?").into());
    }
    let text = |key: &str| document.as_ref().and_then(|d| d.get(key)).and_then(Value::as_str).map(str::to_owned);
    let failure = match text("error") {
        Some(error) => Failure::new(error, text("remedy").unwrap_or_default()),
        None => Failure::new(format!("the service answered {status}"), "is this tain's API?"),
    };
    Err(failure.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_an_api_are_a_socket_or_a_host() {
        assert_eq!(Target::parse("unix:///run/s").unwrap(), Target::Unix("/run/s".into()));
        assert_eq!(Target::parse("http://h:1/").unwrap(), Target::Tcp("h:1".into()));
        assert_eq!(Target::parse("http://h").unwrap(), Target::Tcp("h:80".into()));
        assert_eq!(Target::parse("http://[::1]:8").unwrap(), Target::Tcp("[::1]:8".into()));
        for url in ["", "unix://rel", "/run/s", "https://h:1", "http://", "http://h/x"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_answer_that_is_no_json_is_a_failure_and_not_a_panic() {
        assert_eq!(judge(StatusCode::OK, b"{}").unwrap(), serde_json::json!({}));
        assert!(judge(StatusCode::OK, b"<html>").is_err());
        let e = judge(StatusCode::NOT_FOUND, br#"{"error":"gone","remedy":"look"}"#).unwrap_err();
        assert!(!e.unreachable);
        assert_eq!(e.failure, Failure::new("gone", "look"));
        let e = judge(StatusCode::PAYLOAD_TOO_LARGE, b"too long").unwrap_err();
        assert!(e.failure.reason.contains("413"), "{:?}", e.failure);
    }
}
