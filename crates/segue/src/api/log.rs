//! `GET /v1/tasks/{id}/log`: what the agent of an attempt wrote.

use super::error::ApiError;
use super::extract::Params;
use super::ids::resolve;
use super::state::Shared;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::io::ErrorKind;
use std::path::PathBuf;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Bytes of a log that are read at a time.
const CHUNK: usize = 64 << 10;

/// Which attempt.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    attempt: Option<u32>,
}

/// `GET /v1/tasks/{id}/log`
pub async fn log(
    State(api): State<Shared>,
    Path(id): Path<String>,
    Params(which): Params<Which>,
) -> Result<Response, ApiError> {
    let task = resolve(&api, &id).await?;
    let number = which.attempt.unwrap_or(task.attempts);
    if task.attempts == 0 {
        let message = format!("task {} is {}: it had no attempt yet", task.id(), task.state);
        return Err(ApiError::not_found(message));
    }
    if !(1..=task.attempts).contains(&number) {
        let message =
            format!("there is no attempt {number}: task {} had {}", task.id(), task.attempts);
        return Err(ApiError::not_found(message));
    }
    let path = log_path(&api.project.state, &task, number);
    let file = match File::open(&path).await {
        Ok(file) => file,
        // It is made at the first line.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(text(Body::empty())),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            return Err(segue_core::ports::StoreError::Io(message).into());
        }
    };
    Ok(text(Body::from_stream(stream::unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Ok::<_, std::io::Error>(Bytes::from(chunk)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    }))))
}

fn text(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// Where the log of an attempt is. Ids are UUIDs: no part of this path comes from outside.
fn log_path(state: &std::path::Path, task: &segue_core::task::Task, number: u32) -> PathBuf {
    let run = task.spec.root.to_string();
    state.join("logs").join(run).join(format!("{}-{number}.log", task.id()))
}
