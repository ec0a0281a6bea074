//! `segue state` and `segue lock`: what agents and people know in common, and who may change what now.

use super::input::json_or_file;
use super::tasks::{ask, change, tell};
use crate::api::locks::{LockedView, LocksView};
use crate::api::shared::{
    Expected, PageView, PoliciesView, Putting, Setting, StoredView, Terms, VersionView,
};
use crate::api::views::ChangedView;
use crate::args::shared::{LockCommand, StateCommand, TermsArgs};
use crate::client::{Client, encoded, with_params};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Failure, Outcome};
use crate::screen::live::say;
use crate::screen::table::Table;
use crate::screen::text::{bytes, cut, duration, line};
use crate::signals::Signals;
use segue_core::state::{Claim, Expect, Policy};
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;

/// Looks for another node after one went away.
const LOOKS: u32 = 40;
/// The pause between them.
const PAUSE: Duration = Duration::from_millis(250);
/// Characters of a value in a line or table.
const VALUE_CELLS: usize = 100;

/// `segue state`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn state(cx: &Context, command: &StateCommand) -> Outcome {
    match command {
        StateCommand::Get { key, version } => get(cx, key, *version),
        StateCommand::Put { key, value, terms } => put(cx, key, value, terms),
        StateCommand::Delete { key, terms } => delete(cx, key, terms),
        StateCommand::List { prefix, after, limit } => list(cx, prefix, after.as_deref(), *limit),
        StateCommand::Watch { key, after } => watch(cx, key, *after),
        StateCommand::History { key, before, limit } => history(cx, key, *before, *limit),
        StateCommand::Policy { pattern: None, .. } => policies(cx),
        StateCommand::Policy { pattern: Some(pattern), policy: None, unset: false } => {
            let message = format!("say which policy `{pattern}` is to have");
            Err(Failure::usage(message).hint("reject, last-writer or merge; or --unset"))
        }
        StateCommand::Policy { pattern: Some(pattern), policy, .. } => {
            let setting = Setting { pattern: pattern.clone(), policy: *policy };
            let changed: ChangedView = change(cx, "/v1/state-policies", &json!(setting))?;
            let done = match policy {
                Some(policy) => format!("conflicting writes: {policy}"),
                None => "has no policy of its own any more".to_owned(),
            };
            tell(cx, &changed, &done, "is as it was")
        }
    }
}

fn path(key: &str) -> String {
    format!("/v1/state/{}", encoded(key))
}

fn get(cx: &Context, key: &str, version: Option<u64>) -> Outcome {
    let params = [("version", version.map(|version| version.to_string()))];
    let found: VersionView = ask(cx, &with_params(&path(key), &params))?;
    if cx.json {
        cx.print_json(&found)?;
    } else if cx.cells().is_some() {
        // Control characters cannot stand in JSON: whatever was written does not steer the terminal.
        cx.print(pretty(&found.value))?;
    } else {
        cx.print(found.value.get())?;
    }
    Ok(Exit::Done)
}

fn pretty(value: &RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(value.get()).unwrap_or_default();
    crate::screen::text::lines(&format!("{value:#}"))
}

/// What a command line says about how to write.
fn terms(args: &TermsArgs) -> Terms {
    let (expect, policy) = match args.base {
        Some(base) => (Some(Expect::Version(base)), Some(Policy::Merge)),
        None => (args.expect, args.policy),
    };
    let lock = args.lock.as_ref().zip(args.token);
    Terms {
        expect: expect.and_then(Expected::of),
        policy,
        by: Some(args.by.clone().unwrap_or_else(user)),
        lock: lock.map(|(name, token)| Claim { name: name.as_str().into(), token }),
    }
}

/// What whoever runs this is called.
fn user() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "somebody".to_owned())
}

fn put(cx: &Context, key: &str, value: &str, args: &TermsArgs) -> Outcome {
    let value = json_or_file(value)?;
    let value = RawValue::from_string(value)
        .map_err(|error| Failure::usage(format!("the value is no JSON: {error}")))?;
    let putting = Putting { value, terms: terms(args) };
    let project = cx.project()?;
    let stored: StoredView = block_on(async {
        let client = Client::of(&project, None).await?;
        let answer = client.post(&path(key), &putting).await;
        client.close(Duration::ZERO).await;
        answer
    })?;
    tell_stored(cx, &stored, "is at version", "says that already at version")
}

fn delete(cx: &Context, key: &str, args: &TermsArgs) -> Outcome {
    let path = format!("{}/delete", path(key));
    let stored: StoredView = change(cx, &path, &json!(terms(args)))?;
    tell_stored(cx, &stored, "was deleted by version", "is absent already, since version")
}

fn tell_stored(cx: &Context, stored: &StoredView, done: &str, before: &str) -> Outcome {
    if cx.json {
        cx.print_json(stored)?;
    } else {
        let what = if stored.changed { done } else { before };
        let merged = match stored.merged && stored.changed {
            true => ", merged with what others had changed",
            false => "",
        };
        cx.print(format!("{} {what} {}{merged}", stored.key, stored.version))?;
    }
    Ok(Exit::Done)
}

fn value_of(version: &VersionView, cells: usize) -> String {
    match (version.deleted, version.omitted) {
        (true, _) => "deleted".to_owned(),
        (_, true) => bytes(version.bytes),
        _ => cut(&line(version.value.get()), cells),
    }
}

fn list(cx: &Context, prefix: &str, after: Option<&str>, limit: u32) -> Outcome {
    let params = [
        ("prefix", Some(prefix.to_owned())),
        ("after", after.map(str::to_owned)),
        ("limit", Some(limit.to_string())),
    ];
    let page: PageView<String> = ask(cx, &with_params("/v1/state", &params))?;
    if cx.json {
        cx.print_json(&page)?;
        return Ok(Exit::Done);
    }
    if page.versions.is_empty() {
        say(&cx.err.dim("no keys"));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["KEY", "VERSION", "BYTES", "VALUE", "BY", "AT"]).give_way(&[3, 4]);
    for version in &page.versions {
        table.row(vec![
            version.key.clone(),
            version.version.to_string(),
            version.bytes.to_string(),
            value_of(version, VALUE_CELLS),
            line(&version.writer.to_string()),
            version.at.clone(),
        ]);
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    if let Some(next) = &page.next {
        say(&cx.err.dim(format!("there may be more: --after {next}")));
    }
    Ok(Exit::Done)
}

fn history(cx: &Context, key: &str, before: Option<u64>, limit: u32) -> Outcome {
    let params = [("before", before.map(|it| it.to_string())), ("limit", Some(limit.to_string()))];
    let page: PageView<u64> = ask(cx, &with_params(&format!("{}/history", path(key)), &params))?;
    if cx.json {
        cx.print_json(&page)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["VERSION", "BYTES", "VALUE", "BY", "AT"]).give_way(&[2, 3]);
    for version in &page.versions {
        let mut value = value_of(version, VALUE_CELLS);
        if version.merged {
            value.push_str(" (merged)");
        }
        table.row(vec![
            version.version.to_string(),
            version.bytes.to_string(),
            value,
            line(&version.writer.to_string()),
            version.at.clone(),
        ]);
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    if let Some(next) = &page.next {
        say(&cx.err.dim(format!("there may be more: --before {next}")));
    }
    Ok(Exit::Done)
}

fn policies(cx: &Context) -> Outcome {
    let found: PoliciesView = ask(cx, "/v1/state-policies")?;
    if cx.json {
        cx.print_json(&found)?;
        return Ok(Exit::Done);
    }
    if found.policies.is_empty() {
        say(&cx.err.dim("none: conflicting writes are refused"));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["KEYS", "POLICY"]);
    for (pattern, policy) in &found.policies {
        table.row(vec![pattern.clone(), policy.to_string()]);
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    Ok(Exit::Done)
}

fn watch(cx: &Context, key: &str, after: Option<u64>) -> Outcome {
    let project = cx.project()?;
    let (name, value) = match key.strip_suffix('*') {
        Some(prefix) => ("prefix", prefix),
        None => ("key", key),
    };
    let mut after = after;
    block_on(async {
        let mut signals = Signals::listen()?;
        let mut looks = 0_u32;
        loop {
            let client = tokio::select! {
                client = Client::of(&project, None) => client?,
                _ = signals.first() => return Ok(Exit::Done),
            };
            let follow = client.has_engine();
            looks = if follow { LOOKS } else { looks };
            let params = [
                (name, Some(value.to_owned())),
                ("after", after.map(|it| it.to_string())),
                ("follow", follow.then(|| "1".to_owned())),
            ];
            let params = with_params("/v1/state-changes", &params);
            let ended = print_changes(cx, &client, &params, &mut after, &mut signals).await;
            client.close(Duration::ZERO).await;
            match ended {
                // It ends when it is told to: that is how a watch ends well.
                Ok(true) => return Ok(Exit::Done),
                // The node has gone, and another may come: from the last version that was printed on nothing is missed.
                Ok(false) if looks > 0 => {}
                Err(failure) if looks > 0 && failure.exit == Exit::Node => {}
                Ok(false) => {
                    if !cx.json {
                        say(&cx.err.dim("no node runs, so nothing more will change"));
                    }
                    return Ok(Exit::Done);
                }
                Err(failure) => return Err(failure),
            }
            looks -= 1;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = signals.first() => return Ok(Exit::Done),
            }
        }
    })
}

/// Prints changes until the stream ends; says whether that is because a signal came.
async fn print_changes(
    cx: &Context,
    client: &Client,
    params: &str,
    after: &mut Option<u64>,
    signals: &mut Signals,
) -> Outcome<bool> {
    let mut lines = client.lines(params).await?;
    loop {
        let next = tokio::select! {
            next = lines.next() => next?,
            _ = signals.first() => return Ok(true),
        };
        let Some(text) = next else { return Ok(false) };
        let Ok(version) = serde_json::from_str::<VersionView>(&text) else { continue };
        *after = Some(version.version.max(after.unwrap_or(0)));
        if cx.json { cx.print(&text)? } else { cx.print(change_text(cx, &version))? }
    }
}

fn change_text(cx: &Context, version: &VersionView) -> String {
    let merged = if version.merged { " (merged)" } else { "" };
    format!(
        "{}  {}  {}  {}{merged}  {}",
        cx.out.dim(&version.at),
        version.version,
        cx.out.bold(&version.key),
        value_of(version, VALUE_CELLS),
        cx.out.dim(line(&version.writer.to_string())),
    )
}

/// `segue lock`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn lock(cx: &Context, command: &LockCommand) -> Outcome {
    let path = |name: &str| format!("/v1/locks/{}", encoded(name));
    match command {
        LockCommand::Take { name, ttl, wait, holder } => {
            let holder = holder.clone().unwrap_or_else(user);
            let taking = json!({ "holder": holder, "ttl_ms": ttl, "wait_ms": wait.unwrap_or(0) });
            let locked: LockedView = change(cx, &path(name), &taking)?;
            match cx.json {
                true => cx.print_json(&locked)?,
                false => cx.print(locked.token.to_string())?,
            }
            Ok(Exit::Done)
        }
        LockCommand::Renew { name, token, ttl } => {
            let renewing = json!({ "token": token, "ttl_ms": ttl });
            let locked: LockedView = change(cx, &format!("{}/renew", path(name)), &renewing)?;
            match cx.json {
                true => cx.print_json(&locked)?,
                false => cx.print(format!("{name} is held for {} more", duration(*ttl)))?,
            }
            Ok(Exit::Done)
        }
        LockCommand::Release { name, token } => {
            let releasing = json!({ "token": token });
            let changed: ChangedView = change(cx, &format!("{}/release", path(name)), &releasing)?;
            tell(cx, &changed, "is free", "was not held under this token any more")
        }
        LockCommand::List => locks(cx),
    }
}

fn locks(cx: &Context) -> Outcome {
    let found: LocksView = ask(cx, "/v1/locks")?;
    if cx.json {
        cx.print_json(&found)?;
        return Ok(Exit::Done);
    }
    if found.locks.is_empty() {
        say(&cx.err.dim("no lock is held"));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["LOCK", "TOKEN", "HOLDER", "LEFT"]).give_way(&[2, 0]);
    for lock in &found.locks {
        table.row(vec![
            line(&lock.name),
            lock.token.to_string(),
            line(&lock.holder),
            duration(lock.left_ms),
        ]);
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    Ok(Exit::Done)
}
