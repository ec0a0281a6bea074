//! Locks: taken, renewed, given back, listed.

use super::error::ApiError;
use super::extract::{Json, Params};
use super::shared::{change, odd};
use super::state::{Api, Shared};
use super::views::{ChangedView, at};
use axum::Json as Answer;
use axum::extract::{Path, State};
use segue_core::command::{Reject, Reply};
use segue_core::ports::Topic;
use segue_core::state::{Claim, Lock, STATE_PAGE_MAX, StateCommand};
use segue_engine::EngineError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Whoever waits for a lock looks again after this long, though nobody hinted.
const BEAT: Duration = Duration::from_secs(1);
/// The longest time that a request waits for a lock, in milliseconds: an hour.
const WAIT_MS_MAX: u64 = 60 * 60 * 1_000;

/// A lock that somebody holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockView {
    /// The lock.
    pub name: String,
    /// The token of its holder.
    pub token: u64,
    /// Who holds it.
    pub holder: String,
    /// When it was taken.
    pub taken_at: String,
    /// Until when, unless it is renewed.
    pub until: String,
    /// How long that is from now, in milliseconds.
    pub left_ms: u64,
}

impl LockView {
    fn of(lock: &Lock, api: &Api) -> LockView {
        LockView {
            name: lock.name.to_string(),
            token: lock.token,
            holder: lock.holder.to_string(),
            taken_at: at(lock.taken_at),
            until: at(lock.until),
            left_ms: lock.until.since_ms(api.store().now()),
        }
    }
}

/// Locks, and where to go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocksView {
    /// Those that are held.
    pub locks: Vec<LockView>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// A lock as its holder has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockedView {
    /// The lock.
    pub name: String,
    /// The token.
    pub token: u64,
    /// Until when, unless it is renewed.
    pub until: String,
}

/// Which locks are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/locks`
pub async fn list(
    State(api): State<Shared>,
    Params(listing): Params<Listing>,
) -> Result<Answer<LocksView>, ApiError> {
    let limit = listing.limit.unwrap_or(STATE_PAGE_MAX).clamp(1, STATE_PAGE_MAX);
    let rows = api.store().locks(listing.after.map(Arc::from), limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.name.to_string());
    let now = api.store().now();
    let held = rows.iter().filter(|lock| lock.is_held(now));
    Ok(Answer(LocksView { locks: held.map(|lock| LockView::of(lock, &api)).collect(), next }))
}

/// How a lock is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taking {
    /// Who takes it.
    pub holder: String,
    /// How long it is held without renewal, in milliseconds.
    pub ttl_ms: u64,
    /// How long to wait for it where somebody holds it, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// `POST /v1/locks/{name}`
pub async fn take(
    State(api): State<Shared>,
    Path(name): Path<String>,
    Json(taking): Json<Taking>,
) -> Result<Answer<LockedView>, ApiError> {
    let end = Instant::now() + Duration::from_millis(taking.wait_ms.min(WAIT_MS_MAX));
    let mut listener = api.engine.as_ref().map(|engine| engine.parts().signals.listen());
    let mut closing = api.closing.clone();
    loop {
        let command = StateCommand::Lock {
            name: name.as_str().into(),
            holder: taking.holder.as_str().into(),
            ttl_ms: taking.ttl_ms,
        };
        let (refused, left_ms) = match api.try_state(command).await? {
            Ok(reply) => return locked(name, &reply),
            Err(Reject::Held { lock, left_ms }) => (Reject::Held { lock, left_ms }, left_ms),
            Err(other) => return Err(other.into()),
        };
        if Instant::now() >= end || *closing.borrow() {
            return Err(refused.into());
        }
        let look = end.min(Instant::now() + BEAT.min(Duration::from_millis(left_ms.max(1))));
        let hint = async {
            match &mut listener {
                Some(listener) => drop(listener.next(&[Topic::State]).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hint => {}
            () = tokio::time::sleep_until(look) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
}

impl Api {
    /// Changes shared state or a lock, and gives back what refuses it.
    async fn try_state(&self, change: StateCommand) -> Result<Result<Reply, Reject>, ApiError> {
        let command = segue_core::command::Command::State(Box::new(change));
        if let Some(engine) = &self.engine {
            return match engine.command(command).await {
                Ok(reply) => Ok(Ok(reply)),
                Err(EngineError::Rejected(reject)) => Ok(Err(reject)),
                Err(error) => Err(error.into()),
            };
        }
        let decision = self.store().apply(vec![command]).await?.pop();
        match decision {
            Some(decision) => Ok(decision.map(|effects| effects.reply)),
            None => Ok(Ok(Reply::Done { changed: false })),
        }
    }
}

fn locked(name: String, reply: &Reply) -> Result<Answer<LockedView>, ApiError> {
    match reply {
        Reply::Locked { token, until } => {
            Ok(Answer(LockedView { name, token: *token, until: at(*until) }))
        }
        other => Err(odd(other)),
    }
}

/// How a lock is renewed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewing {
    /// The token under which it is held.
    pub token: u64,
    /// How long from now, in milliseconds.
    pub ttl_ms: u64,
}

/// `POST /v1/locks/{name}/renew`
pub async fn renew(
    State(api): State<Shared>,
    Path(name): Path<String>,
    Json(renewing): Json<Renewing>,
) -> Result<Answer<LockedView>, ApiError> {
    let fence = Claim { name: name.as_str().into(), token: renewing.token };
    let reply = change(&api, StateCommand::RenewLock { fence, ttl_ms: renewing.ttl_ms }).await?;
    locked(name, &reply)
}

/// Which lock is given back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releasing {
    /// The token under which it was held.
    pub token: u64,
}

/// `POST /v1/locks/{name}/release`
pub async fn release(
    State(api): State<Shared>,
    Path(name): Path<String>,
    Json(releasing): Json<Releasing>,
) -> Result<Answer<ChangedView>, ApiError> {
    let fence = Claim { name: name.as_str().into(), token: releasing.token };
    let reply = change(&api, StateCommand::ReleaseLock { fence }).await?;
    Ok(Answer(super::tasks::changed(name, &reply)))
}
