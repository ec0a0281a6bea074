//! Shared state and locks.

use super::delegate;
use super::draft::Draft;
use crate::command::{Reject, Reply};
use crate::ids::TaskId;
use crate::letter::TaskResponse;
use crate::payload::{DATABASE_MAX, Payload};
use crate::state::merge::merge;
use crate::state::{
    Claim, Expect, HISTORY_MAX, KeyRow, LOCK_TTL_MS_MAX, Lock, POLICIES_MAX, Policy, Put,
    StateChanges, StateCommand, StateConflict, StateVersion, Writer, check_key, check_name,
    check_pattern, check_size,
};
use crate::task::{ErrorClass, TaskError};
use serde_json::Value;
use std::sync::Arc;

/// Whether a command is sound by itself, before anything is looked up for it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(command: &StateCommand) -> Result<(), Reject> {
    let ttl = |ttl_ms: u64| match ttl_ms {
        1..=LOCK_TTL_MS_MAX => Ok(()),
        // total: any other number of milliseconds
        _ => Err(format!("a lock is held for 1 to {LOCK_TTL_MS_MAX} ms before it is renewed")),
    };
    let checked = match command {
        StateCommand::Put(put) => check_put(put),
        StateCommand::SetPolicy { pattern, .. } => check_pattern(pattern),
        StateCommand::Lock { name, holder, ttl_ms } => {
            check_name(name).and_then(|()| check_name(holder)).and_then(|()| ttl(*ttl_ms))
        }
        StateCommand::RenewLock { fence, ttl_ms } => {
            check_name(&fence.name).and_then(|()| ttl(*ttl_ms))
        }
        StateCommand::ReleaseLock { fence } => check_name(&fence.name),
    };
    checked.map_err(Reject::Invalid)
}

fn check_put(put: &Put) -> Result<(), String> {
    check_key(&put.key)?;
    if let Some(fence) = &put.fence {
        check_name(&fence.name)?;
    }
    if let Writer::Person { person } = &put.writer {
        check_name(person)?;
    }
    put.value.as_ref().map_or(Ok(()), |value| check_size(&put.key, value.size()))
}

pub(super) fn command(draft: &mut Draft<'_>, command: &StateCommand) -> Result<Reply, Reject> {
    check(command)?;
    match command {
        StateCommand::Put(put) => self::put(draft, put),
        StateCommand::SetPolicy { pattern, policy } => set_policy(draft, pattern, *policy),
        StateCommand::Lock { name, holder, ttl_ms } => lock(draft, name, holder, *ttl_ms),
        StateCommand::RenewLock { fence, ttl_ms } => renew(draft, fence, *ttl_ms),
        StateCommand::ReleaseLock { fence } => release(draft, fence),
    }
}

fn put(draft: &mut Draft<'_>, put: &Put) -> Result<Reply, Reject> {
    let (reply, changes) = written(draft, put, None)?;
    if let Some(changes) = changes {
        draft.state(changes);
    }
    Ok(reply)
}

/// What the outcome of an attempt writes, all of it or nothing; the error of the attempt where that is refused. One that the task may
/// not write is refused for good. What does not hold any more may hold for the next attempt, which is given what stands there then.
pub(super) fn with_outcome(
    draft: &mut Draft<'_>,
    id: TaskId,
    response: &TaskResponse,
) -> Result<Result<(), TaskError>, Reject> {
    let state = &response.state;
    if state.is_empty() {
        return Ok(Ok(()));
    }
    if let Err(wrong) = state.check() {
        let message = format!("what its outcome writes into shared state is wrong: {wrong}");
        return Ok(Err(TaskError::new(ErrorClass::InvalidOutput, message)));
    }
    let allowed = &draft.task(id)?.spec.state_keys;
    if let Some(foreign) = state.foreign(allowed) {
        let message = format!(
            "its outcome writes the key `{foreign}` of shared state, which the task may not use: its `state_keys` {}",
            delegate::named(allowed)
        );
        return Ok(Err(TaskError::new(ErrorClass::Permanent, message)));
    }
    let mut all = StateChanges::default();
    for put in &state.put {
        let put = put.by(Writer::Task { task: id, attempt: response.attempt });
        match written(draft, &put, all.stamp) {
            Ok((_, changes)) => all.extend(changes.unwrap_or_default()),
            Err(reject @ Reject::NotLoaded(_)) => return Err(reject),
            Err(reject) => {
                let class = match reject {
                    Reject::StateConflict(_) => ErrorClass::Transient,
                    // total: too large to be merged, or made from a version that is not kept
                    _ => ErrorClass::InvalidOutput,
                };
                let message =
                    format!("its outcome writes shared state, and that was refused: {reject}");
                return Ok(Err(TaskError::new(class, message)));
            }
        }
    }
    if !all.is_empty() {
        draft.state(all);
    }
    Ok(Ok(()))
}

/// What a write changes, if anything. `last` is the last stamp that this command has issued already.
fn written(
    draft: &Draft<'_>,
    put: &Put,
    last: Option<u64>,
) -> Result<(Reply, Option<StateChanges>), Reject> {
    if let Some(fence) = &put.fence {
        held(draft, fence)?;
    }
    let row = key(draft, &put.key)?;
    let standing = row.latest.as_ref().map_or(0, |latest| latest.version);
    let (value, merged) = match row.fits(put.expect) {
        true => (put.value.clone(), false),
        false => match policy(draft, put)? {
            Policy::LastWriter => (put.value.clone(), false),
            Policy::Reject => return Err(conflict(put, row, Vec::new(), false)),
            Policy::Merge => match merged(draft, put, row)? {
                Some(merged) => merged,
                None => return Ok((unchanged(standing, true), None)),
            },
        },
    };
    if value.is_none() && row.current().is_none() {
        return Ok((unchanged(standing, merged), None));
    }
    let mut kept = row.kept.clone();
    let version = last.map_or_else(|| stamp(draft), |last| Ok(last + 1))?;
    kept.push(version);
    let forgotten = kept[..kept.len().saturating_sub(HISTORY_MAX)].to_vec();
    let at = draft.now();
    let (key, writer) = (put.key.clone(), put.writer.clone());
    let changes = StateChanges {
        versions: vec![StateVersion { key, version, value, writer, at, merged }],
        forgotten,
        stamp: Some(version),
        ..StateChanges::default()
    };
    Ok((Reply::Stored { version, changed: true, merged }, Some(changes)))
}

fn unchanged(version: u64, merged: bool) -> Reply {
    Reply::Stored { version, changed: false, merged }
}

fn key<'a>(draft: &Draft<'a>, key: &str) -> Result<&'a KeyRow, Reject> {
    let row = draft.snapshot.state().key(key);
    row.ok_or_else(|| Reject::NotLoaded(format!("the key `{key}`")))
}

/// The next stamp.
fn stamp(draft: &Draft<'_>) -> Result<u64, Reject> {
    let last = draft.snapshot.state().stamp();
    last.map(|last| last + 1).ok_or_else(|| Reject::NotLoaded("the stamp".to_owned()))
}

fn policy(draft: &Draft<'_>, put: &Put) -> Result<Policy, Reject> {
    match put.policy {
        Some(policy) => Ok(policy),
        None => {
            let found = draft.snapshot.state().policy_of(&put.key);
            found.ok_or_else(|| Reject::NotLoaded("the policies".to_owned()))
        }
    }
}

fn conflict(put: &Put, row: &KeyRow, pointers: Vec<String>, more: bool) -> Reject {
    Reject::StateConflict(Box::new(StateConflict {
        key: put.key.clone(),
        expected: put.expect,
        current: row.current().map(|current| current.version),
        pointers,
        more,
    }))
}

/// What comes of both changes, and whether that is more than the writer gave; `None` where it is what stands there already.
fn merged(
    draft: &Draft<'_>,
    put: &Put,
    row: &KeyRow,
) -> Result<Option<(Option<Payload>, bool)>, Reject> {
    let base = match put.expect {
        Expect::Anything | Expect::Absent => None,
        Expect::Version(version) => base(draft, put, row, version)?,
    };
    let theirs = match row.current() {
        None => None,
        Some(current) => kept_value(draft, current.version)?.and_then(|it| it.value.as_ref()),
    };
    let base = json(put, base)?;
    let (ours, theirs) = (json(put, put.value.as_ref())?, json(put, theirs)?);
    let found = merge(base.as_ref(), ours.as_ref(), theirs.as_ref())
        .map_err(|found| conflict(put, row, found.pointers, found.more))?;
    if found == theirs {
        return Ok(None);
    }
    if found == ours {
        // As it was written, to the byte.
        return Ok(Some((put.value.clone(), false)));
    }
    let payload = found.as_ref().map(Payload::of).transpose().map_err(|_| too_large(put))?;
    Ok(Some((payload, true)))
}

/// The value that the writer read.
fn base<'a>(
    draft: &Draft<'a>,
    put: &Put,
    row: &KeyRow,
    version: u64,
) -> Result<Option<&'a Payload>, Reject> {
    match kept_value(draft, version)? {
        Some(base) if base.key == put.key => Ok(base.value.as_ref()),
        // total: of another key, or not kept
        Some(_) | None => {
            let oldest = match row.kept.first() {
                Some(oldest) => format!("the oldest one that is kept is {oldest}"),
                None => "none of it is kept".to_owned(),
            };
            Err(Reject::Invalid(format!(
                "version {version} of `{}` is not there to merge with: {oldest}; read the key again, and change what it holds now",
                put.key
            )))
        }
    }
}

fn kept_value<'a>(draft: &Draft<'a>, version: u64) -> Result<Option<&'a StateVersion>, Reject> {
    let found = draft.snapshot.state().version(version);
    let found = found.ok_or_else(|| Reject::NotLoaded(format!("version {version}")))?;
    Ok(found.as_ref())
}

fn json(put: &Put, payload: Option<&Payload>) -> Result<Option<Value>, Reject> {
    let Some(payload) = payload else { return Ok(None) };
    let text = payload.text().ok_or_else(|| too_large(put))?;
    serde_json::from_str(text).map(Some).map_err(|error| {
        Reject::Invalid(format!("a value of `{}` cannot be merged: {error}", put.key))
    })
}

fn too_large(put: &Put) -> Reject {
    Reject::Invalid(format!(
        "`{}` is too large to be merged: up to {DATABASE_MAX} bytes are. Read it, change it, and put it with the version that was read",
        put.key
    ))
}

fn set_policy(
    draft: &mut Draft<'_>,
    pattern: &Arc<str>,
    policy: Option<Policy>,
) -> Result<Reply, Reject> {
    let policies = draft.snapshot.state().policies();
    let policies = policies.ok_or_else(|| Reject::NotLoaded("the policies".to_owned()))?;
    let before = policies.get(pattern).copied();
    if before == policy {
        return Ok(Reply::Done { changed: false });
    }
    if before.is_none() && policies.len() >= POLICIES_MAX {
        return Err(Reject::Invalid(format!(
            "a project has at most {POLICIES_MAX} policies: name a prefix instead of keys"
        )));
    }
    let policies = vec![(pattern.clone(), policy)];
    draft.state(StateChanges { policies, ..StateChanges::default() });
    Ok(Reply::Done { changed: true })
}

/// The lock as somebody holds it now, or that nobody does.
fn holding<'a>(draft: &Draft<'a>, name: &str) -> Result<Option<&'a Lock>, Reject> {
    let lock = draft.snapshot.state().lock(name);
    let lock = lock.ok_or_else(|| Reject::NotLoaded(format!("the lock `{name}`")))?;
    Ok(lock.as_ref().filter(|lock| lock.is_held(draft.now())))
}

/// The lock, if this is the token of whoever holds it.
fn held<'a>(draft: &Draft<'a>, fence: &Claim) -> Result<&'a Lock, Reject> {
    let Claim { name, token } = fence;
    match holding(draft, name)? {
        Some(lock) if lock.token == *token => Ok(lock),
        Some(lock) => Err(Reject::Fenced(format!(
            "the lock `{name}` is not held under token {token} any more: {} has it under {}",
            lock.holder, lock.token
        ))),
        None => Err(Reject::Fenced(format!(
            "the lock `{name}` is not held under token {token} any more: nobody holds it"
        ))),
    }
}

fn lock(
    draft: &mut Draft<'_>,
    name: &Arc<str>,
    holder: &Arc<str>,
    ttl_ms: u64,
) -> Result<Reply, Reject> {
    let now = draft.now();
    if let Some(lock) = holding(draft, name)? {
        let left_ms = lock.until.since_ms(now);
        return Err(Reject::Held { lock: Box::new(lock.clone()), left_ms });
    }
    let (token, until) = (stamp(draft)?, now.plus_ms(ttl_ms));
    let lock = Lock { name: name.clone(), token, holder: holder.clone(), taken_at: now, until };
    draft.state(StateChanges {
        locks: vec![(name.clone(), Some(lock))],
        stamp: Some(token),
        ..StateChanges::default()
    });
    Ok(Reply::Locked { token, until })
}

fn renew(draft: &mut Draft<'_>, fence: &Claim, ttl_ms: u64) -> Result<Reply, Reject> {
    let until = draft.now().plus_ms(ttl_ms);
    let lock = Lock { until, ..held(draft, fence)?.clone() };
    let locks = vec![(fence.name.clone(), Some(lock))];
    draft.state(StateChanges { locks, ..StateChanges::default() });
    Ok(Reply::Locked { token: fence.token, until })
}

/// A lock that somebody else holds by now, or nobody, is left alone: whoever gives it back wants nothing else.
fn release(draft: &mut Draft<'_>, fence: &Claim) -> Result<Reply, Reject> {
    let changed = holding(draft, &fence.name)?.is_some_and(|lock| lock.token == fence.token);
    if changed {
        let locks = vec![(fence.name.clone(), None)];
        draft.state(StateChanges { locks, ..StateChanges::default() });
    }
    Ok(Reply::Done { changed })
}
