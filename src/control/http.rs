//! Routes: requests to commands, answers to JSON.

use super::commands::{Commands, Place, parse_path};
use super::seats::Seat;
use super::{Port, Problem, Result, views};
use crate::state::{Command, JobAction, State, text};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http_body_util::LengthLimitError;
use journal_format::event::AccessRule;
use journal_format::ids::{JobId, JunctionId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const BODY_MAX: usize = 64 << 10;
/// How long a request's body may take to come.
const BODY_WAIT: Duration = Duration::from_secs(30);

struct Inner {
    commands: Commands,
    /// What a request must bear, when something is.
    token: Option<Vec<u8>>,
    /// Whoever reaches it is let in, and a browser can: it is known by its own names only.
    own_names_only: bool,
}

type App = Shared<Arc<Inner>>;
type Answer = std::result::Result<Response, Problem>;

pub(super) fn router(port: Arc<dyn Port>, token: Option<Vec<u8>>, is_tcp: bool) -> Router {
    let own_names_only = is_tcp && token.is_none();
    let app = Arc::new(Inner { commands: Commands::new(port), token, own_names_only });
    let api = Router::new()
        .route("/filers", get(list_filers).post(add_filer))
        .route("/filers/{name}", get(show_filer).delete(remove_filer))
        .route("/filers/{name}/check", post(check_filer))
        .route("/junctions", get(list_junctions).post(add_junction))
        .route("/junctions/{key}", get(show_junction).patch(modify_junction).delete(remove_junction))
        .route("/policies", get(list_policies).post(add_policy))
        .route("/policies/{name}", get(show_policy).put(modify_policy).delete(remove_policy))
        .route("/jobs", get(list_jobs).post(create_job))
        .route("/jobs/{id}", get(show_job))
        .route("/jobs/{id}/errors", get(job_errors))
        .route("/jobs/{id}/{action}", post(act))
        .route("/status", get(status))
        .layer(from_fn_with_state(app.clone(), authorize));
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(healthz))
        .fallback(|| async { Problem::unknown("there is nothing at this path", "see /api/v1/status") })
        .method_not_allowed_fallback(|| async {
            let answer = json!({"error": "this path has no such method", "remedy": "see the documentation of the API"});
            (StatusCode::METHOD_NOT_ALLOWED, Json(answer))
        })
        .with_state(app)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, refusal) = match self {
            Problem::Bad(refusal) => (StatusCode::BAD_REQUEST, refusal),
            Problem::Unknown(refusal) => (StatusCode::NOT_FOUND, refusal),
            Problem::Refused(refusal) => (StatusCode::CONFLICT, refusal),
            Problem::Failed(refusal) => (StatusCode::INTERNAL_SERVER_ERROR, refusal),
        };
        (status, Json(json!({"error": refusal.reason, "remedy": refusal.remedy}))).into_response()
    }
}

/// It comes from a page of somebody else's, in a browser on this machine or at the other end of its tunnel: with an origin
/// that is not this API, or under a name that leads here because its owner says so, or whoever answers for names in this
/// network. Without a token there is no other name than localhost.
fn is_a_strangers(headers: &HeaderMap, own_names_only: bool) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    // A browser always says one.
    let is_own = name.is_empty() || name.eq_ignore_ascii_case("localhost") || is_address;
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, origin)| origin));
    origin.is_some_and(|origin| origin != host) || (own_names_only && !is_own)
}

/// Who may not command is told so before anything of his is read but the head. Who may keeps his connection until he has his
/// answer.
async fn authorize(Shared(app): App, request: Request, next: Next) -> Response {
    let refused =
        |status: StatusCode, error, remedy| (status, Json(json!({"error": error, "remedy": remedy}))).into_response();
    if is_a_strangers(request.headers(), app.own_names_only) {
        let error = "this request comes from a web page, or under a name, that is not this API's";
        return refused(
            StatusCode::FORBIDDEN,
            error,
            "use the API's address, or localhost, or give the service a token",
        );
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    // Compared as digests: how long it takes tells nothing about the token.
    let may = |token: &Vec<u8>| given.is_some_and(|given| blake3::hash(given) == blake3::hash(token));
    if !app.token.as_ref().is_none_or(may) {
        let remedy = "give the token file: --token-file FILE";
        return refused(StatusCode::UNAUTHORIZED, "this API wants a token", remedy);
    }
    let _answering = request.extensions().get::<Arc<Seat>>().map(|seat| seat.clone().answers());
    let (head, body) = request.into_parts();
    let body = match timeout(BODY_WAIT, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(e)) => {
            let too_long = std::error::Error::source(&e).is_some_and(|e| e.is::<LengthLimitError>());
            let status = if too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            return refused(status, "the body cannot be read, or is longer than 64 KiB", "send a shorter one");
        }
        Err(_) => {
            let error = "the body has not come within 30 seconds";
            return refused(StatusCode::REQUEST_TIMEOUT, error, "send it with the request");
        }
    };
    next.run(Request::from_parts(head, Body::from(body))).await
}

fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Problem::bad(format!("the body is not understood: {e}"), "correct it"))
}

/// Understand any body or path as each request does, and forget it: what the fuzzer asks for.
pub(super) fn understand(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    drop(body::<NewFiler>(&bytes));
    drop(body::<NewJunction>(&bytes));
    drop(body::<NewJob>(&bytes));
    drop(body::<JunctionChange>(&bytes));
    drop(body::<NewPolicy>(&bytes).map(|new| rules_of(&new.rules)));
    drop(body::<Rules>(&bytes).map(|new| rules_of(&new.rules)));
    if let Ok(text) = std::str::from_utf8(&bytes) {
        drop(super::commands::Place::parse(text));
        drop(super::commands::parse_path(text));
    }
}

/// In a task of its own: a client that hangs up does not stop a command half way.
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(e) => Err(Problem::Failed(super::refusal(format!("the command broke off: {e}"), "see the service's log"))),
    }
}

fn ok(value: Value) -> Answer {
    Ok(Json(value).into_response())
}

/// What an operator should know beside it.
fn with_remarks(mut view: Value, remarks: Vec<String>) -> Value {
    if let Some(fields) = view.as_object_mut() {
        fields.insert("remarks".into(), json!(remarks));
    }
    view
}

fn created(value: Value) -> Answer {
    Ok((StatusCode::CREATED, Json(value)).into_response())
}

impl Inner {
    fn port(&self) -> &dyn Port {
        &*self.commands.port
    }
    fn state(&self) -> Arc<State> {
        self.port().state()
    }
}

/* Filers */

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFiler {
    name: String,
    url: String,
}

async fn list_filers(Shared(app): App) -> Answer {
    ok(views::filers(&app.state()))
}

fn no_filer(name: &str) -> Problem {
    let name = text::escape(name.as_bytes());
    Problem::unknown(format!("there is no filer named '{name}'"), "'tain filer list' shows them")
}

fn filer_view(state: &State, name: &str) -> Result<Value> {
    let (id, filer) = state.filer_by_name(name).ok_or_else(|| no_filer(name))?;
    Ok(views::filer(state, id, filer))
}

async fn show_filer(Shared(app): App, Path(name): Path<String>) -> Answer {
    ok(filer_view(&app.state(), &name)?)
}

async fn add_filer(Shared(app): App, bytes: Bytes) -> Answer {
    let NewFiler { name, url } = body(&bytes)?;
    let (it, new) = (app.clone(), name.clone());
    let probe = whole(async move { it.commands.add_filer(new, url).await }).await?;
    created(with_remarks(filer_view(&app.state(), &name)?, probe.remarks))
}

async fn remove_filer(Shared(app): App, Path(name): Path<String>) -> Answer {
    filer_view(&app.state(), &name)?;
    whole(async move { app.commands.remove_filer(name).await }).await?;
    ok(json!({}))
}

async fn check_filer(Shared(app): App, Path(name): Path<String>) -> Answer {
    let state = app.state();
    let (_, filer) = state.filer_by_name(&name).ok_or_else(|| no_filer(&name))?;
    ok(match app.commands.check_filer(filer).await {
        Ok(probe) => json!({"name": name, "ok": true, "error": null, "remarks": probe.remarks}),
        Err(error) => json!({"name": name, "ok": false, "error": error, "remarks": []}),
    })
}

/* Junctions */

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJunction {
    path: String,
    location: String,
    #[serde(default)]
    access: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JunctionChange {
    #[serde(default)]
    access: Option<String>,
    #[serde(default)]
    suspended: Option<bool>,
}

async fn list_junctions(Shared(app): App) -> Answer {
    ok(views::junctions(&app.state(), app.port().status().nfs))
}

/// By its number, or by its path (escaped, and its slashes as `%2F`).
fn find_junction(state: &State, key: &str) -> Result<JunctionId> {
    let found = match key.parse::<u32>() {
        Ok(id) => Some(JunctionId(id)).filter(|id| state.junctions.contains_key(id)),
        Err(_) => state.junction_by_path(&parse_path(key)?).map(|(id, _)| id),
    };
    found.ok_or_else(|| Problem::unknown(format!("there is no junction {key}"), "'tain junction list' shows them"))
}

fn junction_view(app: &Inner, id: JunctionId) -> Result<Value> {
    let state = app.state();
    let it = state.junctions.get(&id).ok_or_else(|| Problem::unknown("the junction is gone", "list them again"))?;
    Ok(views::junction(&state, id, it, app.port().status().nfs))
}

async fn show_junction(Shared(app): App, Path(key): Path<String>) -> Answer {
    ok(junction_view(&app, find_junction(&app.state(), &key)?)?)
}

async fn add_junction(Shared(app): App, bytes: Bytes) -> Answer {
    let new: NewJunction = body(&bytes)?;
    let (path, at) = (parse_path(&new.path)?, Place::parse(&new.location)?);
    let it = app.clone();
    whole(async move { it.commands.add_junction(path, at, new.access).await }).await?;
    created(junction_view(&app, find_junction(&app.state(), &new.path)?)?)
}

async fn modify_junction(Shared(app): App, Path(key): Path<String>, bytes: Bytes) -> Answer {
    let change: JunctionChange = body(&bytes)?;
    let id = find_junction(&app.state(), &key)?;
    let it = app.clone();
    let unrest = whole(async move { it.commands.modify_junction(id, change.access, change.suspended).await }).await?;
    let remark = |why| format!("new calls wait; what was under way has not come to rest: {why}");
    ok(with_remarks(junction_view(&app, id)?, unrest.map(remark).into_iter().collect()))
}

async fn remove_junction(Shared(app): App, Path(key): Path<String>) -> Answer {
    let id = find_junction(&app.state(), &key)?;
    let stays = whole(async move { app.commands.remove_junction(id).await }).await?;
    ok(with_remarks(json!({}), stays))
}

/* Policies */

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    name: String,
    rules: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: Vec<String>,
}

fn rules_of(texts: &[String]) -> Result<Vec<AccessRule>> {
    let remedy = "write a rule as CLIENT=OPTION,... with a client as *, 10.0.0.7 or 10.0.0.0/8, and options as rw, ro, \
                  none, root_squash, no_root_squash, all_squash, anonuid=N, anongid=N, secure, insecure";
    texts.iter().map(|text| text.parse::<AccessRule>().map_err(|e| Problem::bad(e.to_string(), remedy))).collect()
}

async fn list_policies(Shared(app): App) -> Answer {
    ok(views::policies(&app.state()))
}

fn policy_view(state: &State, name: &str) -> Result<Value> {
    views::policy(state, name).ok_or_else(|| {
        let name = text::escape(name.as_bytes());
        Problem::unknown(format!("there is no policy named '{name}'"), "'tain policy list' shows them")
    })
}

async fn show_policy(Shared(app): App, Path(name): Path<String>) -> Answer {
    ok(policy_view(&app.state(), &name)?)
}

async fn add_policy(Shared(app): App, bytes: Bytes) -> Answer {
    let NewPolicy { name, rules } = body(&bytes)?;
    let command = Command::AddPolicy { name: name.clone(), rules: rules_of(&rules)? };
    command_whole(&app, command).await?;
    created(policy_view(&app.state(), &name)?)
}

async fn modify_policy(Shared(app): App, Path(name): Path<String>, bytes: Bytes) -> Answer {
    let Rules { rules } = body(&bytes)?;
    policy_view(&app.state(), &name)?;
    let command = Command::ModifyPolicy { name: name.clone(), rules: rules_of(&rules)? };
    command_whole(&app, command).await?;
    ok(policy_view(&app.state(), &name)?)
}

async fn remove_policy(Shared(app): App, Path(name): Path<String>) -> Answer {
    policy_view(&app.state(), &name)?;
    command_whole(&app, Command::RemovePolicy { name }).await?;
    ok(json!({}))
}

async fn command_whole(app: &Arc<Inner>, command: Command) -> Result<()> {
    let it = app.clone();
    whole(async move { it.commands.port.command(command).await.map(drop).map_err(Problem::from) }).await
}

/* Jobs */

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    kind: String,
    source: String,
    destination: String,
    #[serde(default)]
    notes: String,
    #[serde(default)]
    stopped: bool,
}

async fn list_jobs(Shared(app): App) -> Answer {
    ok(views::jobs(&app.state(), app.port()))
}

fn find_job(state: &State, id: &str) -> Result<JobId> {
    let id =
        id.parse().map(JobId).map_err(|_| Problem::bad(format!("'{id}' is not a job's number"), "give a number"))?;
    if state.jobs.contains_key(&id) {
        return Ok(id);
    }
    Err(Problem::unknown(format!("there is no job {id}"), "'tain job list' shows them"))
}

fn job_view(app: &Inner, id: JobId) -> Result<Value> {
    let state = app.state();
    let it = state.jobs.get(&id).ok_or_else(|| Problem::unknown("the job is gone", "list them again"))?;
    Ok(views::job(&state, id, it, app.port().replayer(it.destination)))
}

async fn show_job(Shared(app): App, Path(id): Path<String>) -> Answer {
    ok(job_view(&app, find_job(&app.state(), &id)?)?)
}

async fn job_errors(Shared(app): App, Path(id): Path<String>) -> Answer {
    let state = app.state();
    let id = find_job(&state, &id)?;
    ok(state.jobs.get(&id).map(views::errors).unwrap_or_default())
}

async fn create_job(Shared(app): App, bytes: Bytes) -> Answer {
    let new: NewJob = body(&bytes)?;
    if new.kind != "move" {
        return Err(Problem::bad(format!("'{}' is no kind of job", new.kind), "the kind is \"move\""));
    }
    let (source, to) = (parse_path(&new.source)?, Place::parse(&new.destination)?);
    let it = app.clone();
    let id = whole(async move { it.commands.create_move(source, to, new.notes, new.stopped).await }).await?;
    created(job_view(&app, id)?)
}

async fn act(Shared(app): App, Path((id, action)): Path<(String, String)>) -> Answer {
    let action = match action.as_str() {
        "start" => JobAction::Start,
        "pause" => JobAction::Pause,
        "abort" => JobAction::Abort,
        _ => return Err(Problem::unknown(format!("a job has no action '{action}'"), "start, pause or abort")),
    };
    let id = find_job(&app.state(), &id)?;
    let it = app.clone();
    let stays = whole(async move { it.commands.act(id, action).await }).await?;
    ok(with_remarks(job_view(&app, id)?, stays))
}

/* The service */

async fn status(Shared(app): App) -> Answer {
    ok(views::status(app.port()))
}

/// For load balancers and monitors: no names, no token.
async fn healthz(Shared(app): App) -> Response {
    let healthy = views::problems(&app.state(), &app.port().status()).is_empty();
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"healthy": healthy}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_somebody_elses_commands_nothing() {
        let strangers = |host: &'static str, origin: Option<&'static str>, own_names_only| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, header::HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, header::HeaderValue::from_static(origin));
            }
            is_a_strangers(&headers, own_names_only)
        };
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", ""] {
            assert!(!strangers(host, None, true), "{host}");
        }
        assert!(!strangers("127.0.0.1:8080", Some("http://127.0.0.1:8080"), true), "its own");
        for origin in ["https://evil.example", "http://127.0.0.1:9090", "null"] {
            assert!(strangers("127.0.0.1:8080", Some(origin), false), "{origin}");
        }
        for host in ["evil.example:8080", "wpad:8080", "localhost.evil.example"] {
            assert!(strangers(host, None, true), "{host}: a name that was made to lead here");
            assert!(!strangers(host, None, false), "{host}: who has the token may use any");
        }
    }
}
