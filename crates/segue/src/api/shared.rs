//! Shared state: keys, their history, their policies, and what changes.

use super::error::{ApiError, ErrorBody};
use super::extract::{Json, Params, flag};
use super::state::{Api, Shared};
use super::views::{ChangedView, at};
use axum::Json as Answer;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use segue_core::command::{Command, Reply};
use segue_core::payload::{DATABASE_MAX, INLINE_MAX, Payload};
use segue_core::ports::{Listener, Topic};
use segue_core::state::{
    Claim, Expect, Policy, Put, STATE_PAGE_MAX, StateCommand, StateVersion, VALUE_MAX, Writer,
    check_key, check_prefix,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Hints may be lost: changes are read on this beat as well.
const BEAT: Duration = Duration::from_secs(2);

/// A version of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionView {
    /// The key.
    pub key: String,
    /// The version.
    pub version: u64,
    /// Whether this version deleted the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The length of the value.
    pub bytes: u64,
    /// It is not here because it is large: ask for the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
    /// The value as it was written; null where it is deleted or omitted.
    pub value: Box<RawValue>,
    /// Who wrote it: `{"person"}`, or `{"task", "attempt"}`.
    pub writer: Writer,
    /// When.
    pub at: String,
    /// Whether it holds changes of others besides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
}

/// Keys or versions, and where to go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PageView<N> {
    /// The versions.
    pub versions: Vec<VersionView>,
    /// Where the next page begins, if there may be one.
    pub next: Option<N>,
}

/// What became of a write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredView {
    /// The key.
    pub key: String,
    /// Its newest version.
    pub version: u64,
    /// Whether that is new.
    pub changed: bool,
    /// Whether it holds changes of others besides.
    pub merged: bool,
}

/// The policies of a project.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoliciesView {
    /// By key, or prefix and `*`.
    pub policies: BTreeMap<String, Policy>,
}

impl Api {
    /// A version with its value, unless that is longer than this.
    async fn version(&self, row: StateVersion, bytes_max: u64) -> Result<VersionView, ApiError> {
        let bytes = row.value.as_ref().map_or(0, Payload::size);
        let value = match &row.value {
            Some(value) if bytes <= bytes_max => self.text_of(value).await?,
            Some(_) | None => "null".to_owned(),
        };
        Ok(VersionView {
            deleted: row.value.is_none(),
            omitted: bytes > bytes_max,
            value: raw(value)?,
            bytes,
            key: row.key.to_string(),
            version: row.version,
            writer: row.writer,
            at: at(row.at),
            merged: row.merged,
        })
    }

    async fn page(&self, rows: Vec<StateVersion>) -> Result<Vec<VersionView>, ApiError> {
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            views.push(self.version(row, INLINE_MAX as u64).await?);
        }
        Ok(views)
    }
}

fn raw(text: String) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(text)
        .map_err(|error| ApiError::invalid(format!("a value is no JSON: {error}")))
}

fn a_key(key: &str) -> Result<Arc<str>, ApiError> {
    check_key(key).map_err(ApiError::invalid)?;
    Ok(key.into())
}

fn a_prefix(prefix: &str) -> Result<Arc<str>, ApiError> {
    check_prefix(prefix).map_err(ApiError::invalid)?;
    Ok(prefix.into())
}

fn a_limit(limit: Option<usize>) -> usize {
    limit.unwrap_or(STATE_PAGE_MAX).clamp(1, STATE_PAGE_MAX)
}

/// Which keys are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/state`
pub async fn list(
    State(api): State<Shared>,
    Params(listing): Params<Listing>,
) -> Result<Answer<PageView<String>>, ApiError> {
    let (prefix, limit) = (a_prefix(&listing.prefix)?, a_limit(listing.limit));
    let after = listing.after.map(Arc::from);
    let rows = api.store().state_list(prefix, after, limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.key.to_string());
    Ok(Answer(PageView { versions: api.page(rows).await?, next }))
}

/// Which version is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Getting {
    version: Option<u64>,
}

/// `GET /v1/state/{key}`
pub async fn get(
    State(api): State<Shared>,
    Path(key): Path<String>,
    Params(getting): Params<Getting>,
) -> Result<Answer<VersionView>, ApiError> {
    let row = api.store().state_get(a_key(&key)?, getting.version).await?;
    match (row, getting.version) {
        (Some(row), _) => Ok(Answer(api.version(row, u64::MAX).await?)),
        (None, Some(version)) => {
            Err(ApiError::not_found(format!("there is no version {version} of the key `{key}`"))
                .hint(format!("`segue state history {key}` lists those that are kept")))
        }
        (None, None) => Err(ApiError::not_found(format!("there is no key `{key}`"))
            .hint("`segue state list` lists those that there are")),
    }
}

/// What a writer takes for granted: a version, or `"absent"`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    /// A version.
    Version(u64),
    /// `absent`.
    Word(String),
}

impl Expected {
    fn read(given: Option<Expected>) -> Result<Expect, ApiError> {
        match given {
            None => Ok(Expect::Anything),
            Some(Expected::Version(version)) => Ok(Expect::Version(version)),
            Some(Expected::Word(word)) => word.parse().map_err(ApiError::invalid),
        }
    }
}

impl Expected {
    /// As a request says it: nothing where nothing is taken for granted.
    pub fn of(expect: Expect) -> Option<Expected> {
        match expect {
            Expect::Anything => None,
            Expect::Absent => Some(Expected::Word("absent".to_owned())),
            Expect::Version(version) => Some(Expected::Version(version)),
        }
    }
}

/// How a key is written or deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What the writer takes for granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expected>,
    /// What happens where that is not so; by default what the policies say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Who writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The lock under which it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Claim>,
}

impl Terms {
    fn put(self, key: Arc<str>, value: Option<Payload>) -> Result<Put, ApiError> {
        Ok(Put {
            key,
            value,
            expect: Expected::read(self.expect)?,
            policy: self.policy,
            writer: Writer::person(self.by.as_deref().unwrap_or("somebody")),
            fence: self.lock,
        })
    }
}

/// A value to write.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Putting {
    /// The value.
    pub value: Box<RawValue>,
    /// How.
    #[serde(default)]
    pub terms: Terms,
}

/// `POST /v1/state/{key}`
pub async fn put(
    State(api): State<Shared>,
    Path(key): Path<String>,
    Json(putting): Json<Putting>,
) -> Result<Answer<StoredView>, ApiError> {
    let key = a_key(&key)?;
    let text = putting.value.get();
    // Nothing is kept for a command that is refused in any case.
    if text.len() as u64 > VALUE_MAX {
        let message = format!("a value has at most {VALUE_MAX} bytes, and this one {}", text.len());
        return Err(ApiError::invalid(message)
            .hint("leave large data in files, and keep their paths here")
            .status(413));
    }
    let value = api.payload(text.to_owned()).await?;
    write(&api, putting.terms.put(key, Some(value))?).await
}

/// `POST /v1/state/{key}/delete`
pub async fn delete(
    State(api): State<Shared>,
    Path(key): Path<String>,
    Json(terms): Json<Terms>,
) -> Result<Answer<StoredView>, ApiError> {
    write(&api, terms.put(a_key(&key)?, None)?).await
}

async fn write(api: &Api, put: Put) -> Result<Answer<StoredView>, ApiError> {
    let key = put.key.to_string();
    match change(api, StateCommand::Put(put)).await? {
        Reply::Stored { version, changed, merged } => {
            Ok(Answer(StoredView { key, version, changed, merged }))
        }
        other => Err(odd(&other)),
    }
}

/// Changes shared state or a lock.
///
/// # Errors
/// What is refused.
pub(super) async fn change(api: &Api, change: StateCommand) -> Result<Reply, ApiError> {
    api.command(Command::State(Box::new(change))).await
}

/// An answer that does not belong to what was asked: a defect.
pub(super) fn odd(reply: &Reply) -> ApiError {
    ApiError::new(
        super::error::ErrorCode::Unavailable,
        format!("the store answered with {reply:?}"),
    )
}

/// Which versions are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Looking {
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET /v1/state/{key}/history`
pub async fn history(
    State(api): State<Shared>,
    Path(key): Path<String>,
    Params(looking): Params<Looking>,
) -> Result<Answer<PageView<u64>>, ApiError> {
    let limit = a_limit(looking.limit);
    let rows = api.store().state_history(a_key(&key)?, looking.before, limit).await?;
    if rows.is_empty() && looking.before.is_none() {
        return Err(ApiError::not_found(format!("there is no key `{key}`, and there was none"))
            .hint("`segue state list` lists those that there are"));
    }
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.version);
    Ok(Answer(PageView { versions: api.page(rows).await?, next }))
}

/// `GET /v1/state-policies`
pub async fn policies(State(api): State<Shared>) -> Result<Answer<PoliciesView>, ApiError> {
    let policies = api.store().state_policies().await?;
    let policies = policies.into_iter().map(|(it, policy)| (it.to_string(), policy)).collect();
    Ok(Answer(PoliciesView { policies }))
}

/// A policy to set, or to take back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// A key, or a prefix and `*`.
    pub pattern: String,
    /// The policy; null takes it back.
    pub policy: Option<Policy>,
}

/// `POST /v1/state-policies`
pub async fn set_policy(
    State(api): State<Shared>,
    Json(setting): Json<Setting>,
) -> Result<Answer<ChangedView>, ApiError> {
    let pattern = setting.pattern.as_str().into();
    let reply = change(&api, StateCommand::SetPolicy { pattern, policy: setting.policy }).await?;
    Ok(Answer(super::tasks::changed(setting.pattern, &reply)))
}

/// Which changes are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watching {
    /// Only this key.
    key: Option<String>,
    /// Only keys that begin like this.
    #[serde(default)]
    prefix: String,
    /// Only later versions. Without it the answer begins with the keys as they stand.
    after: Option<u64>,
    #[serde(default, deserialize_with = "flag")]
    follow: bool,
}

/// `GET /v1/state-changes`
pub async fn changes(
    State(api): State<Shared>,
    Params(watching): Params<Watching>,
) -> Result<Response, ApiError> {
    let prefix = match &watching.key {
        Some(key) => a_key(key)?,
        None => a_prefix(&watching.prefix)?,
    };
    // Listening begins before the first read, so that nothing falls between the two.
    let signals = api.engine.as_ref().map(|engine| engine.parts().signals.listen());
    let stamp = api.store().state_stamp().await?;
    let watch = Watch {
        standing: watching.after.is_none().then_some(None),
        stamp,
        after: watching.after.unwrap_or(stamp),
        only: watching.key.is_some(),
        prefix,
        follow: watching.follow.then_some(signals).flatten(),
        closing: api.closing.clone(),
        api,
        ended: false,
    };
    let body = Body::from_stream(stream::unfold(watch, Watch::next));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Where a watcher is.
struct Watch {
    api: Shared,
    prefix: Arc<str>,
    /// Only the key of this name, not those that begin like it.
    only: bool,
    /// While the keys are told as they stand: after which one to go on.
    standing: Option<Option<Arc<str>>>,
    /// The newest version when that began. What is newer is told as a change.
    stamp: u64,
    /// The last version that was told.
    after: u64,
    follow: Option<Box<dyn Listener>>,
    closing: watch::Receiver<bool>,
    ended: bool,
}

impl Watch {
    /// The next lines; nothing at the end.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Watch)> {
        loop {
            if self.ended {
                return None;
            }
            let lines = match self.read().await {
                Ok(Some(lines)) => lines,
                Ok(None) => {
                    let listener = self.follow.as_mut()?;
                    tokio::select! {
                        _ = listener.next(&[Topic::State]) => {}
                        () = tokio::time::sleep(BEAT) => {}
                        // What changed up to now is still read.
                        _ = self.closing.wait_for(|closing| *closing) => self.follow = None,
                    }
                    continue;
                }
                Err(error) => {
                    self.ended = true;
                    super::events::line(&ErrorBody { error })
                }
            };
            if !lines.is_empty() {
                return Some((Ok(lines.into()), self));
            }
        }
    }

    /// The lines of one page, which may be none; `None` where nothing is left for now.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let prefix = self.prefix.clone();
        let mut rows = match self.standing.take() {
            Some(after) => {
                let mut rows = self.api.store().state_list(prefix, after, STATE_PAGE_MAX).await?;
                let full = rows.len() == STATE_PAGE_MAX;
                self.standing = rows.last().filter(|_| full).map(|row| Some(row.key.clone()));
                rows.retain(|row| row.version <= self.stamp);
                rows
            }
            None => {
                let store = self.api.store();
                let rows = store.state_changes(prefix, self.after, STATE_PAGE_MAX).await?;
                let Some(last) = rows.last() else { return Ok(None) };
                self.after = last.version;
                rows
            }
        };
        rows.retain(|row| !self.only || row.key == self.prefix);
        let mut lines = Vec::new();
        for row in rows {
            let view = self.api.version(row, DATABASE_MAX as u64).await?;
            lines.extend(super::events::line(&view));
        }
        Ok(Some(lines))
    }
}
