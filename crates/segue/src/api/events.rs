//! `GET /v1/events`: the log, one JSON object a line, and on request what is added to it.

use super::error::{ApiError, ErrorBody};
use super::event_view::EventView;
use super::extract::{Params, flag};
use super::ids::resolve;
use super::state::Shared;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use segue_core::ports::{EventFilter, Listener, Topic};
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Events read at a time.
const PAGE: usize = 500;
/// Events of an answer that does not follow, unless the request says otherwise.
const LIMIT: usize = 10_000;
/// Hints may be lost: the log is read on this beat as well.
const BEAT: Duration = Duration::from_secs(2);

/// Which events are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default)]
    after: u64,
    run: Option<String>,
    task: Option<String>,
    limit: Option<usize>,
    #[serde(default, deserialize_with = "flag")]
    follow: bool,
}

/// `GET /v1/events`
pub async fn events(
    State(api): State<Shared>,
    Params(wanted): Params<Wanted>,
) -> Result<Response, ApiError> {
    let run = match &wanted.run {
        Some(run) => Some(resolve(&api, run).await?.spec.root),
        None => None,
    };
    let task = match &wanted.task {
        Some(task) => Some(resolve(&api, task).await?.id()),
        None => None,
    };
    // Listening begins before the first read, so that nothing falls between the two.
    let signals = api.engine.as_ref().map(|engine| engine.parts().signals.listen());
    let tail = Tail {
        filter: EventFilter { after: wanted.after, run, task, limit: PAGE },
        left: wanted.limit.unwrap_or(if wanted.follow { usize::MAX } else { LIMIT }),
        follow: wanted.follow.then_some(signals).flatten(),
        closing: api.closing.clone(),
        api,
        ended: false,
    };
    let body = Body::from_stream(stream::unfold(tail, Tail::next));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Where in the log a reader is.
struct Tail {
    api: Shared,
    filter: EventFilter,
    left: usize,
    /// Set while the reader wants to hear of what is added.
    follow: Option<Box<dyn Listener>>,
    closing: watch::Receiver<bool>,
    ended: bool,
}

impl Tail {
    /// The next lines; nothing at the end.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Tail)> {
        loop {
            if self.ended || self.left == 0 {
                return None;
            }
            self.filter.limit = PAGE.min(self.left);
            let page = match self.api.store().events(self.filter.clone()).await {
                Ok(page) => page,
                Err(error) => {
                    self.ended = true;
                    let line = line(&ErrorBody { error: error.into() });
                    return Some((Ok(line.into()), self));
                }
            };
            if let Some(last) = page.last() {
                self.filter.after = last.cursor;
                self.left -= page.len().min(self.left);
                let lines: Vec<u8> =
                    page.iter().flat_map(|event| line(&EventView::of(event))).collect();
                return Some((Ok(lines.into()), self));
            }
            let Some(listener) = &mut self.follow else { return None };
            tokio::select! {
                _ = listener.next(&[Topic::Events]) => {}
                () = tokio::time::sleep(BEAT) => {}
                // What was added up to now is still read.
                _ = self.closing.wait_for(|closing| *closing) => self.follow = None,
            }
        }
    }
}

/// A value as a line of JSON.
pub(super) fn line(value: &impl serde::Serialize) -> Vec<u8> {
    // Plain data with string keys serializes.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
