//! One request over the socket of a node that may die at any moment.

use anyhow::{Context, Result, bail};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// A node that has not answered by then is asked again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for something.
///
/// # Errors
/// Where there is no answer: the node is not there, or was killed meanwhile.
pub async fn get(socket: &Path, path: &str) -> Result<Value> {
    let (status, answer) = ask(socket, Method::GET, path, None).await?;
    if status.is_success() { Ok(answer) } else { bail!("{status}: {answer}") }
}

/// Submits something under an idempotency key, and returns the status with the answer.
///
/// # Errors
/// Where there is no answer: whether it was taken in is not known then.
pub async fn submit(socket: &Path, key: &str, body: &Value) -> Result<(StatusCode, Value)> {
    ask(socket, Method::POST, "/v1/tasks", Some((key, body))).await
}

async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<(&str, &Value)>,
) -> Result<(StatusCode, Value)> {
    tokio::time::timeout(PATIENCE, ask_now(socket, method, path, body))
        .await
        .context("no answer")?
}

async fn ask_now(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<(&str, &Value)>,
) -> Result<(StatusCode, Value)> {
    let reachable = crate::server::Reachable::new(socket)?;
    let stream = UnixStream::connect(reachable.path()).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request =
        Request::builder().method(method).uri(path).header(http::header::HOST, "segue");
    let mut bytes = Bytes::new();
    if let Some((key, body)) = body {
        request = request
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        bytes = serde_json::to_vec(body)?.into();
    }
    let response = sender.send_request(request.body(Full::new(bytes))?).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, serde_json::from_slice(&answer)?))
}
