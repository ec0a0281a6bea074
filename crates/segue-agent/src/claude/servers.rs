//! The two nested values of a front matter that start programs: `hooks` and `mcpServers`.
//!
//! The shapes are those that Claude Code 2.1.330 checks. It leaves out a file whose hooks have
//! the wrong shape, and leaves out single servers whose config has; and it refuses a whole
//! `--agents` argument for one wrong value, so nothing wrong may pass here.

use serde_json::{Map, Value};

/// Events a hook may be bound to.
const EVENTS: &[&str] = &[
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "Notification",
    "UserPromptSubmit",
    "UserPromptExpansion",
    "SessionStart",
    "SessionEnd",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "PreCompact",
    "PostCompact",
    "PreModelSwitch",
    "PostModelSwitch",
    "PermissionRequest",
    "PermissionDenied",
    "Setup",
    "TeammateIdle",
    "TaskCreated",
    "TaskCompleted",
    "Elicitation",
    "ElicitationResult",
    "ConfigChange",
    "WorktreeCreate",
    "WorktreeRemove",
    "InstructionsLoaded",
    "CwdChanged",
    "FileChanged",
    "DirectoryAdded",
    "MessageDisplay",
];

/// The hooks that count, and the events that do not exist.
///
/// # Errors
/// What has the wrong shape, as a path and what should stand there.
pub(super) fn hooks(value: &Value) -> Result<(Value, Vec<String>), String> {
    let events = match value {
        Value::Object(events) => events,
        Value::Null | Value::Bool(false) => return Ok((Value::Null, Vec::new())),
        Value::String(text) if text.is_empty() => return Ok((Value::Null, Vec::new())),
        Value::Number(number) if number.as_f64() == Some(0.0) => {
            return Ok((Value::Null, Vec::new()));
        }
        _ => return Err("hooks must map event names to lists".to_owned()),
    };
    let mut kept = Map::new();
    let mut unknown = Vec::new();
    for (event, matchers) in events {
        if !EVENTS.contains(&event.as_str()) {
            unknown.push(event.clone());
        } else if !matchers.is_null() {
            matchers_ok(matchers).map_err(|problem| format!("hooks.{event}{problem}"))?;
            kept.insert(event.clone(), matchers.clone());
        }
    }
    let value = if kept.is_empty() { Value::Null } else { Value::Object(kept) };
    Ok((value, unknown))
}

fn matchers_ok(matchers: &Value) -> Result<(), String> {
    let list = matchers.as_array().ok_or(" must be a list")?;
    for (at, matcher) in list.iter().enumerate() {
        let matcher =
            matcher.as_object().ok_or(format!("[{at}] must be a mapping with a list of hooks"))?;
        if matcher.get("matcher").is_some_and(|pattern| !pattern.is_string()) {
            return Err(format!("[{at}].matcher must be text"));
        }
        let hooks = matcher
            .get("hooks")
            .and_then(Value::as_array)
            .ok_or(format!("[{at}].hooks must be a list"))?;
        for (number, hook) in hooks.iter().enumerate() {
            hook_ok(hook).map_err(|problem| format!("[{at}].hooks[{number}]{problem}"))?;
        }
    }
    Ok(())
}

fn hook_ok(hook: &Value) -> Result<(), String> {
    let hook = hook.as_object().ok_or(" must be a mapping with a type")?;
    let required: &[&str] = match hook.get("type").and_then(Value::as_str) {
        Some("command") => &["command"],
        Some("prompt" | "agent") => &["prompt"],
        Some("http") => &["url"],
        Some("mcp_tool") => &["server", "tool"],
        _ => return Err(".type must be command, prompt, agent, http or mcp_tool".to_owned()),
    };
    for key in required {
        if !hook.get(*key).is_some_and(Value::is_string) {
            return Err(format!(".{key} must be text"));
        }
    }
    if hook.get("type").and_then(Value::as_str) == Some("http")
        && !hook.get("url").is_some_and(is_url)
    {
        return Err(".url must be an address such as https://example.com/hook".to_owned());
    }
    if hook
        .get("timeout")
        .is_some_and(|timeout| !timeout.as_f64().is_some_and(|seconds| seconds > 0.0))
    {
        return Err(".timeout must be a number of seconds above 0".to_owned());
    }
    if hook.get("shell").is_some_and(|shell| !matches!(shell.as_str(), Some("bash" | "powershell")))
    {
        return Err(".shell must be bash or powershell".to_owned());
    }
    for key in ["once", "async"] {
        if hook.get(key).is_some_and(|flag| !flag.is_boolean()) {
            return Err(format!(".{key} must be true or false"));
        }
    }
    Ok(())
}

fn is_url(value: &Value) -> bool {
    let Some((scheme, rest)) = value.as_str().and_then(|text| text.split_once(':')) else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !rest.trim_start_matches('/').is_empty()
}

/// The servers that count (a list, or `Null` if there is none), and what is wrong with the others.
pub(super) fn mcp_servers(value: &Value) -> (Value, Vec<String>) {
    let items = match value {
        Value::Array(items) => items,
        Value::Null => return (Value::Null, Vec::new()),
        _ => {
            return (
                Value::Null,
                vec!["mcpServers must be a list of names and one-key mappings".to_owned()],
            );
        }
    };
    let mut problems = Vec::new();
    let mut kept = Vec::new();
    for (at, item) in items.iter().enumerate() {
        match server_ok(item) {
            Ok(()) => kept.push(item.clone()),
            Err(problem) => problems.push(format!("mcpServers[{at}]{problem}")),
        }
    }
    let value = if kept.is_empty() { Value::Null } else { Value::Array(kept) };
    (value, problems)
}

fn server_ok(item: &Value) -> Result<(), String> {
    if item.is_string() {
        return Ok(());
    }
    let servers = item.as_object().ok_or(" must be a name or a mapping {name: config}")?;
    for (name, config) in servers {
        config_ok(config).map_err(|problem| format!(".{name}{problem}"))?;
    }
    Ok(())
}

fn config_ok(config: &Value) -> Result<(), String> {
    let config = config.as_object().ok_or(" must be a mapping")?;
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    match config.get("type").map(Value::as_str) {
        None | Some(Some("stdio")) => {
            if text("command").is_none_or(str::is_empty) {
                return Err(
                    ".command must name a program (or give the type: http, sse or ws)".to_owned()
                );
            }
        }
        Some(Some("http" | "streamable-http" | "sse" | "ws")) => {
            if text("url").is_none() {
                return Err(".url must be an address".to_owned());
            }
        }
        Some(Some("sdk")) => {
            if text("name").is_none() {
                return Err(".name must be text".to_owned());
            }
        }
        Some(_) => return Err(".type must be stdio, http, sse or ws".to_owned()),
    }
    let texts =
        |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    if config.get("args").is_some_and(|args| !texts(args)) {
        return Err(".args must be a list of texts (put numbers in quotes)".to_owned());
    }
    for key in ["env", "headers"] {
        let pairs =
            |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
        if config.get(key).is_some_and(|value| !pairs(value)) {
            return Err(format!(".{key} must map names to texts (put numbers in quotes)"));
        }
    }
    if config.get("timeout").is_some_and(|timeout| !timeout.is_number()) {
        return Err(".timeout must be a number".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hooks_that_count_for_nothing() {
        for value in
            [json!(null), json!(false), json!(""), json!(0), json!({}), json!({"PreToolUse": null})]
        {
            assert_eq!(hooks(&value), Ok((Value::Null, Vec::new())), "{value}");
        }
        let (value, unknown) = hooks(&json!({"Nope": 5, "Stop": []})).expect("hooks");
        assert_eq!(value, json!({"Stop": []}));
        assert_eq!(unknown, ["Nope"]);
    }

    #[test]
    fn hooks_of_the_right_shape() {
        let value = json!({"PreToolUse": [{"matcher": "Bash", "hooks": [
            {"type": "command", "command": "", "timeout": 5, "once": true, "shell": "bash", "bogus": 1},
            {"type": "prompt", "prompt": "x"},
            {"type": "agent", "prompt": "x"},
            {"type": "http", "url": "http://x"},
            {"type": "mcp_tool", "server": "s", "tool": "t"},
        ]}]});
        assert_eq!(hooks(&value), Ok((value.clone(), Vec::new())));
    }

    #[test]
    fn hooks_of_the_wrong_shape() {
        for value in [json!(5), json!("x"), json!(true), json!([]), json!(["a"])] {
            assert!(hooks(&value).is_err(), "{value}");
        }
        for matchers in [
            json!(5),
            json!([5]),
            json!([{"matcher": "B"}]),
            json!([{"matcher": 5, "hooks": []}]),
            json!([{"hooks": [5]}]),
            json!([{"hooks": [{"type": "bogus"}]}]),
            json!([{"hooks": [{"type": "command"}]}]),
            json!([{"hooks": [{"type": "command", "command": "x", "timeout": "5"}]}]),
            json!([{"hooks": [{"type": "command", "command": "x", "timeout": 0}]}]),
            json!([{"hooks": [{"type": "command", "command": "x", "shell": "fish"}]}]),
            json!([{"hooks": [{"type": "command", "command": "x", "once": "yes"}]}]),
            json!([{"hooks": [{"type": "http", "url": "nope"}]}]),
            json!([{"hooks": [{"type": "mcp_tool", "server": "s"}]}]),
        ] {
            assert!(hooks(&json!({"Stop": matchers})).is_err(), "{matchers}");
        }
        let problem =
            hooks(&json!({"Stop": [{"hooks": [{"type": "command"}]}]})).expect_err("no command");
        assert_eq!(problem, "hooks.Stop[0].hooks[0].command must be text");
    }

    #[test]
    fn servers_of_the_right_shape() {
        let value = json!(["github", {}, {"a": {"command": "x", "args": ["y"], "env": {"A": "b"}, "cwd": "/"}},
            {"b": {"type": "http", "url": "nope", "headers": {"a": "b"}}}, {"c": {"type": "sdk", "name": "x"}}]);
        assert_eq!(mcp_servers(&value), (value.clone(), Vec::new()));
        assert_eq!(mcp_servers(&json!(null)), (Value::Null, Vec::new()));
    }

    #[test]
    fn servers_of_the_wrong_shape_are_left_out_one_by_one() {
        for bad in [
            json!(5),
            json!(null),
            json!(["a"]),
            json!({"a": 5}),
            json!({"a": {}}),
            json!({"a": {"command": ""}}),
            json!({"a": {"type": "stdio"}}),
            json!({"a": {"type": "http"}}),
            json!({"a": {"url": "http://x"}}),
            json!({"a": {"type": "bogus", "command": "x"}}),
            json!({"a": {"type": 5, "command": "x"}}),
            json!({"a": {"command": "x", "args": "y"}}),
            json!({"a": {"command": "x", "args": [5]}}),
            json!({"a": {"command": "x", "env": {"A": 5}}}),
            json!({"a": {"type": "http", "url": "x", "headers": {"A": 5}}}),
            json!({"a": {"command": "x", "timeout": "5"}}),
            json!({"a": {"type": "sdk"}}),
        ] {
            let (kept, problems) = mcp_servers(&json!(["good", bad]));
            assert_eq!(kept, json!(["good"]), "{bad}");
            assert_eq!(problems.len(), 1, "{bad}");
            assert!(problems[0].starts_with("mcpServers[1]"), "{problems:?}");
        }
        let (kept, problems) = mcp_servers(&json!({"a": {"command": "x"}}));
        assert!(kept.is_null() && problems.len() == 1);
    }
}
