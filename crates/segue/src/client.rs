//! How commands reach the API: over the socket of a node that runs, else through the same router in this process.

use crate::api::error::{ApiError, ErrorBody, ErrorCode};
use crate::api::{Api, router};
use crate::backend::Backend;
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::node::{Node, NodeOptions};
use crate::project::{NodeLock, Project};
use crate::roster::Roster;
use crate::server::{Door, Reachable};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use segue_core::trace::Traceparent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tower::ServiceExt;

/// How long to wait for a node that is starting, or for another command that has the store for a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two looks at such a node.
const PAUSE: Duration = Duration::from_millis(25);
/// Longest line of a stream.
const LINE_MAX: usize = 16 << 20;

/// Reaches the API.
pub struct Client {
    way: Way,
}

enum Way {
    Socket(PathBuf),
    Here(Box<Here>),
}

/// The API in this process.
pub struct Here {
    router: Router,
    /// Who is defined where, and everything else that the handlers stand on.
    pub api: Arc<Api>,
    /// The node, if one was started.
    pub node: Option<Arc<Node>>,
    door: Option<Door>,
    closing: watch::Sender<bool>,
    /// Held where no node holds it.
    _lock: Option<NodeLock>,
}

/// What a submit says beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks<'a> {
    /// The same body under the same key is taken in once.
    pub idempotency_key: Option<&'a str>,
    /// The span that asks for it.
    pub traceparent: Option<&'a str>,
}

impl Client {
    /// The node that runs, or the store alone: for commands that need no agents.
    ///
    /// # Errors
    /// When neither can be had.
    pub async fn of(project: &Project, team: Option<&Path>) -> Outcome<Client> {
        match reach(project).await? {
            Reached::Node => {
                let client = Client { way: Way::Socket(project.socket()) };
                client.must_have(team).await?;
                Ok(client)
            }
            Reached::Lock(lock) => Client::over_store(project, lock, team).await,
        }
    }

    /// The node that runs, or one that is started here with the project's agents and ends with this client.
    ///
    /// # Errors
    /// When neither can be had, or the node that runs does not have this team.
    pub async fn working(project: &Project, team: Option<&Path>) -> Outcome<Client> {
        match reach(project).await? {
            Reached::Node => {
                let client = Client { way: Way::Socket(project.socket()) };
                client.must_have(team).await?;
                Ok(client)
            }
            Reached::Lock(lock) => Client::node(project, lock, team).await,
        }
    }

    /// The project's node, in this process.
    ///
    /// # Errors
    /// When another one runs, or it cannot start.
    pub async fn up(project: &Project, team: Option<&Path>) -> Outcome<Client> {
        match reach(project).await? {
            Reached::Lock(lock) => Client::node(project, lock, team).await,
            Reached::Node => {
                let client = Client { way: Way::Socket(project.socket()) };
                let health: crate::api::views::HealthView = client.get("/v1/health").await?;
                let message = format!(
                    "another node of this project runs already (process {}): use it, or end it first",
                    health.pid
                );
                Err(Failure::node(message))
            }
        }
    }

    async fn over_store(project: &Project, lock: NodeLock, team: Option<&Path>) -> Outcome<Client> {
        let roster = Roster::look(project, team);
        let backend = Backend::open(project).await.code(Exit::Node)?;
        let (closing, closed) = watch::channel(false);
        let api = Arc::new(Api {
            project: project.clone(),
            backend,
            engine: None,
            roster: RwLock::new(Arc::new(roster)),
            closing: closed,
        });
        Ok(Client::here(api, None, None, closing, Some(lock)))
    }

    /// Starts the project's node in this process, and lets other commands in by its socket.
    ///
    /// # Errors
    /// When it cannot start.
    async fn node(project: &Project, lock: NodeLock, team: Option<&Path>) -> Outcome<Client> {
        let (roster, hosted) = Roster::of_node(project, team)?;
        let node = Node::start(project.clone(), lock, hosted, NodeOptions::default())
            .await
            .code(Exit::Node)?;
        let (closing, closed) = watch::channel(false);
        let api = Arc::new(Api {
            project: project.clone(),
            backend: node.base.backend.clone(),
            engine: Some(node.engine.clone()),
            roster: RwLock::new(Arc::new(roster)),
            closing: closed.clone(),
        });
        let door = Door::open(&project.socket(), router(api.clone()), closed)?;
        Ok(Client::here(api, Some(node), Some(door), closing, None))
    }

    fn here(
        api: Arc<Api>,
        node: Option<Arc<Node>>,
        door: Option<Door>,
        closing: watch::Sender<bool>,
        lock: Option<NodeLock>,
    ) -> Client {
        let router = router(api.clone());
        let here = Here { router, api, node, door, closing, _lock: lock };
        Client { way: Way::Here(Box::new(here)) }
    }

    /// A node that runs already has its agents: another team needs another node.
    async fn must_have(&self, team: Option<&Path>) -> Outcome<()> {
        let Some(wanted) = team else { return Ok(()) };
        let wanted = wanted.canonicalize().map_err(|error| {
            Failure::usage(format!(
                "the team's folder {} cannot be entered: {error}",
                wanted.display()
            ))
        })?;
        let health: crate::api::views::HealthView = self.get("/v1/health").await?;
        if health.team.as_deref().map(Path::new) == Some(wanted.as_path()) {
            return Ok(());
        }
        let message = format!(
            "the node that runs (process {}) does not have the team {}",
            health.pid,
            wanted.display()
        );
        Err(Failure::new(Exit::Failed, message)
            .hint(format!("end it and start `segue up --team {}`", wanted.display())))
    }

    /// The API in this process, if it is there.
    pub fn in_process(&self) -> Option<&Here> {
        match &self.way {
            Way::Here(here) => Some(here),
            Way::Socket(_) => None,
        }
    }

    /// Whether the API is in this process.
    pub fn is_here(&self) -> bool {
        self.in_process().is_some()
    }

    /// Waits until the node in this process cannot work any more, and says why. Never returns where it is another process's.
    pub async fn failed(&self) -> String {
        match self.in_process().and_then(|here| here.api.engine.as_ref()) {
            Some(engine) => engine.failed().await.to_string(),
            None => std::future::pending().await,
        }
    }

    /// Whether something runs that does the work which is submitted.
    pub fn has_engine(&self) -> bool {
        self.in_process().is_none_or(|here| here.node.is_some())
    }

    /// Ends what this client started: a node gives its attempts `patience` to end by themselves.
    pub async fn close(self, patience: Duration) {
        let Way::Here(here) = self.way else { return };
        let Here { router, api, node, door, closing, _lock } = *here;
        drop(router);
        if let Some(node) = &node {
            node.stop(patience).await;
        }
        // Streams tell of the node's last moments before they end.
        closing.send_replace(true);
        if let Some(door) = door {
            door.close().await;
        }
        drop((api, node));
    }

    /// Asks, and reads the whole answer as JSON.
    ///
    /// # Errors
    /// What the API refuses, and a node that cannot be reached.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let response = self.send(Method::GET, path, Vec::new(), Marks::default()).await?;
        json(read(response).await?)
    }

    /// Asks for a body as it is.
    ///
    /// # Errors
    /// What the API refuses, and a node that cannot be reached.
    pub async fn bytes(&self, path: &str) -> Outcome<Vec<u8>> {
        let response = self.send(Method::GET, path, Vec::new(), Marks::default()).await?;
        read(response).await
    }

    /// Asks for a change, and reads the answer as JSON.
    ///
    /// # Errors
    /// What the API refuses, and a node that cannot be reached.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Outcome<T> {
        self.submit(path, body, Marks::default()).await
    }

    /// The same, with what a submit says beside its body.
    ///
    /// # Errors
    /// What the API refuses, and a node that cannot be reached.
    pub async fn submit<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        marks: Marks<'_>,
    ) -> Outcome<T> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::usage(error.to_string()))?;
        let response = self.send(Method::POST, path, body, marks).await?;
        json(read(response).await?)
    }

    /// Asks for a stream of lines.
    ///
    /// # Errors
    /// What the API refuses, and a node that cannot be reached.
    pub async fn lines(&self, path: &str) -> Outcome<Lines> {
        let response = self.send(Method::GET, path, Vec::new(), Marks::default()).await?;
        if !response.status().is_success() {
            return Err(refused(read_all(response.into_body()).await?));
        }
        Ok(Lines::of(response.into_body()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        marks: Marks<'_>,
    ) -> Outcome<Response<Body>> {
        let mut request =
            Request::builder().method(method).uri(path).header(http::header::HOST, "segue");
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = marks.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        // A variable that is set to nothing is not set.
        if let Some(span) = marks.traceparent.filter(|span| !span.trim().is_empty()) {
            let span: Traceparent = span.trim().parse().map_err(|wrong: String| {
                Failure::usage(wrong).hint(
                    "it comes from --traceparent, or from the variable TRACEPARENT of this shell",
                )
            })?;
            request = request.header("traceparent", span.to_string());
        }
        let request = request
            .body(Body::from(body))
            .map_err(|error| Failure::usage(format!("this cannot be asked: {error}")))?;
        match &self.way {
            Way::Here(here) => match here.router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            Way::Socket(socket) => over_socket(socket, request).await.map_err(|error| {
                Failure::node(format!("the node at {} does not answer: {error}", socket.display()))
                    .hint("it may just have ended; `segue doctor` looks")
            }),
        }
    }
}

async fn over_socket(
    socket: &Path,
    request: Request<Body>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let reachable = Reachable::new(socket)?;
    let stream = UnixStream::connect(reachable.path()).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its failure is that of the answer.
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?.map(Body::new))
}

enum Reached {
    Node,
    Lock(NodeLock),
}

/// Finds the node that runs, or takes its place.
async fn reach(project: &Project) -> Outcome<Reached> {
    let socket = project.socket();
    let look = async {
        loop {
            let reachable = Reachable::new(&socket).code(Exit::Node)?;
            match UnixStream::connect(reachable.path()).await {
                // The socket of a node that is just dying still takes connections: only an answer tells that one lives.
                Ok(_) if answers(&socket).await => return Ok(Reached::Node),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let message = format!("the node of this project is not yours: {error}");
                    return Err(Failure::node(message));
                }
                Err(_) => {}
            }
            if let Some(lock) = project.try_lock().code(Exit::Node)? {
                return Ok(Reached::Lock(lock));
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
        let message = format!(
            "another process holds the node's lock in {} and does not answer",
            project.state.display()
        );
        Err(Failure::node(message).hint("`segue doctor` says which one"))
    })
}

/// Whether somebody answers there, whatever the answer.
async fn answers(socket: &Path) -> bool {
    let client = Client { way: Way::Socket(socket.to_path_buf()) };
    client.send(Method::GET, "/v1/health", Vec::new(), Marks::default()).await.is_ok()
}

async fn read(response: Response<Body>) -> Outcome<Vec<u8>> {
    let status = response.status();
    let bytes = read_all(response.into_body()).await?;
    if status.is_success() { Ok(bytes) } else { Err(refused(bytes)) }
}

async fn read_all(body: Body) -> Outcome<Vec<u8>> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) => Err(Failure::node(format!("the node's answer broke off: {error}"))),
    }
}

fn json<T: DeserializeOwned>(bytes: Vec<u8>) -> Outcome<T> {
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::node(format!("the node's answer cannot be understood: {error}"))
            .hint("it may be of another version: end it, and start it again")
    })
}

/// What the API refused, as a failure of this command.
fn refused(bytes: Vec<u8>) -> Failure {
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(ErrorBody { error }) => failure(error),
        Err(_) => Failure::node(format!(
            "the node refused in words that cannot be understood: {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
        )),
    }
}

fn failure(error: ApiError) -> Failure {
    let exit = match error.code {
        ErrorCode::NotFound | ErrorCode::Invalid => Exit::Usage,
        ErrorCode::Conflict | ErrorCode::Illegal => Exit::Failed,
        ErrorCode::Unavailable => Exit::Node,
    };
    Failure { hint: error.hint, ..Failure::new(exit, error.message) }
}

/// The lines of a stream.
pub struct Lines {
    body: Body,
    ready: VecDeque<String>,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    ended: bool,
}

impl Lines {
    fn of(body: Body) -> Lines {
        Lines { body, ready: VecDeque::new(), begun: Vec::new(), ended: false }
    }

    /// The next line; nothing at the end. Can be waited for again when it was not waited for to the end.
    ///
    /// # Errors
    /// When the stream breaks off, or ends with what went wrong.
    pub async fn next(&mut self) -> Outcome<Option<String>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                // What goes wrong in the middle of a stream is its last line.
                return match line.starts_with(r#"{"error":{"#) {
                    true => Err(refused(line.into_bytes())),
                    false => Ok(Some(line)),
                };
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Failure::node(format!("the node's stream broke off: {error}")));
                }
            }
            if self.begun.len() > LINE_MAX {
                let message = format!("a line of the stream has more than {LINE_MAX} bytes");
                return Err(Failure::node(message));
            }
        }
    }

    fn take(&mut self, data: &[u8]) {
        let mut parts = data.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            self.begun.extend_from_slice(part);
            if parts.peek().is_some() {
                let line = std::mem::take(&mut self.begun);
                self.ready.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
}

/// A path with parameters behind it, each encoded.
pub fn with_params(path: &str, params: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut mark = '?';
    for (name, value) in params {
        let Some(value) = value else { continue };
        text.push(mark);
        text.push_str(name);
        text.push('=');
        text.push_str(&encoded(value));
        mark = '&';
    }
    text
}

/// A text as a part of a path or a parameter.
pub fn encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_wrong_in_the_middle_of_a_stream_is_a_failure() {
        let body = concat!(
            r#"{"cursor":1}"#,
            "\n",
            r#"{"error":{"code":"unavailable","message":"the disk is full"}}"#,
            "\n"
        );
        let mut lines = Lines::of(Body::from(body));
        assert_eq!(lines.next().await.unwrap_or_default().as_deref(), Some(r#"{"cursor":1}"#));
        let Err(failure) = lines.next().await else { panic!("it went on") };
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Node, "the disk is full"));
    }

    #[test]
    fn whatever_is_in_a_name_stays_one_part_of_a_path() {
        assert_eq!(encoded("a b/../c?d=é"), "a%20b%2F..%2Fc%3Fd%3D%C3%A9");
        let path = with_params(
            "/v1/tasks",
            &[("a", Some("1&2".into())), ("b", None), ("c", Some(String::new()))],
        );
        assert_eq!(path, "/v1/tasks?a=1%262&c=");
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_frames_end() {
        let frames = ["{\"a\":", "1}\n{\"b\":2}\n{", "}\nrest"];
        let stream = futures_util::stream::iter(frames.map(Ok::<_, io::Error>));
        let mut lines = Lines::of(Body::from_stream(stream));
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        assert_eq!(found, ["{\"a\":1}", "{\"b\":2}", "{}"]);
    }
}
