//! One file's bytes to an [`AgentFile`] and what is odd about it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::front::{self, Front, NoFront};
use super::json::EXTRA;
use super::model::{AgentFile, Notice, Scope, Severity};
use super::notices::{Notices, kind};
use super::values::{background, choice, effort, max_turns, model};
use super::{FILE_BYTES_MAX, servers, tools, yaml};

/// Keys that [`AgentFile`] has fields for.
const KEYS: &[&str] = &[
    "name",
    "description",
    "tools",
    "disallowedTools",
    "model",
    "permissionMode",
    "maxTurns",
    "skills",
    "mcpServers",
    "hooks",
    "memory",
    "background",
    "effort",
    "isolation",
    "color",
    "initialPrompt",
];
/// Keys of other tools and of skills that are written for one of [`KEYS`].
const MISTAKEN: &[(&str, &str)] = &[
    ("allowedTools", "tools"),
    ("allowed-tools", "tools"),
    ("tool", "tools"),
    ("denied-tools", "disallowedTools"),
    ("title", "name"),
    ("prompt", "the text below the front matter"),
    ("turns", "maxTurns"),
    ("steps", "maxTurns"),
    ("mcp", "mcpServers"),
];
const PERMISSION_MODES: &[&str] =
    &["default", "manual", "acceptEdits", "auto", "dontAsk", "bypassPermissions", "plan"];
const COLORS: &[&str] = &["red", "blue", "green", "yellow", "purple", "orange", "pink", "cyan"];
const MEMORIES: &[&str] = &["user", "project", "local"];
const ISOLATIONS: &[&str] = &["worktree", "remote"];

/// Reads one agent file that is already in memory. Never fails and never panics, whatever the
/// bytes: without an agent the last notice is why there is none.
#[must_use]
pub fn parse(path: &Path, bytes: &[u8], scope: Scope) -> (Option<AgentFile>, Vec<Notice>) {
    let mut notices = Notices { path, yaml: "", line: 1, list: Vec::new() };
    if bytes.len() > FILE_BYTES_MAX {
        notices.add(Severity::Skipped, None, too_long(bytes.len() as u64), SHORTEN);
        return (None, notices.list);
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        notices.add(Severity::Skipped, Some(1), "the file is UTF-16", "save it as UTF-8");
        return (None, notices.list);
    }
    let (text, bad_line) = front::decode(bytes);
    let front = match front::split(&text) {
        Ok(front) => front,
        Err(why) => {
            no_front_matter(&mut notices, why);
            return (None, notices.list);
        }
    };
    notices.yaml = front.yaml;
    notices.line = front.line;
    if let Some(line) = bad_line {
        let message = "the file is not UTF-8: bytes that cannot be read become \u{fffd}";
        notices.add(Severity::Warning, Some(line), message, "save it as UTF-8");
    }
    let agent =
        mapping(&front, &mut notices).and_then(|map| agent(map, &front, scope, &mut notices));
    (agent, notices.list)
}

/// What to do about a file that is too long.
pub(super) const SHORTEN: &str =
    "move long reference text to a file or a skill that the agent reads";

/// That a file is too long.
pub(super) fn too_long(bytes: u64) -> String {
    format!("the file has {bytes} bytes; more than {FILE_BYTES_MAX} are not read")
}

fn no_front_matter(notices: &mut Notices<'_>, why: NoFront) {
    let first = Some(1);
    match why {
        NoFront::Absent => notices.add(
            Severity::Note,
            first,
            "no front matter, so this is documentation and not an agent",
            "to make it an agent, begin with a block of `---`, `name:`, `description:`, `---`",
        ),
        NoFront::NotFirst { line } => notices.add(
            Severity::Skipped,
            Some(line),
            "the front matter does not begin on the first line, so it does not count",
            "remove everything before the first `---`",
        ),
        NoFront::Unclosed => notices.add(
            Severity::Skipped,
            first,
            "the front matter has no closing `---`",
            "add a line `---` after the last key",
        ),
    }
}

/// The keys and values of the front matter, or `None` with a notice.
fn mapping(front: &Front<'_>, notices: &mut Notices<'_>) -> Option<Map<String, Value>> {
    let parsed = match yaml::parse(front.yaml) {
        Ok(parsed) => parsed,
        Err(error) => {
            let line = front.line + error.line;
            let remedy = yaml_remedy(front.yaml, error.line);
            notices.add(
                Severity::Skipped,
                Some(line),
                format!("the front matter is not YAML: {}", error.message),
                remedy,
            );
            return None;
        }
    };
    if parsed.not_a_mapping {
        let remedy = "write `name: ..` and `description: ..`, one a line";
        notices.add(
            Severity::Skipped,
            Some(front.line),
            "the front matter holds no `key: value` pairs",
            remedy,
        );
        return None;
    }
    if let (Some(error), Some((first, _))) = (&parsed.strict_error, parsed.requoted.first()) {
        let keys: Vec<String> = parsed
            .requoted
            .iter()
            .map(|(line, key)| format!("{key} (line {})", front.line + line))
            .collect();
        notices.add(
            Severity::Warning,
            Some(front.line + first),
            format!("the front matter is not YAML ({}) and was read as if these values were in quotes: {}",
                error.message, keys.join(", ")),
            "put the values in double quotes, with \\ before each \" in them",
        );
    }
    if let Some(line) = parsed.tab_line {
        notices.add(
            Severity::Warning,
            Some(front.line + line),
            "tabs are used as indentation, which YAML does not allow",
            "indent with spaces",
        );
    }
    if front.cut_mid_line {
        notices.add(
            Severity::Warning,
            Some(front.end_line),
            "the front matter ends at the `---` in the middle of this line",
            "write a dash or two instead of three, or put the closing `---` on a line of its own",
        );
    }
    Some(parsed.map)
}

fn yaml_remedy(yaml: &str, line: usize) -> &'static str {
    // The parser may notice a tab only after the line before it.
    let mut near = yaml.lines().skip(line).take(2);
    if near.any(|line| line.starts_with('\t')) {
        "indent with spaces, not with tabs"
    } else if yaml.contains('\r') && yaml::parse(&yaml.replace("\r\n", "\n")).is_ok() {
        "put the value in double quotes (or save the file with LF line ends)"
    } else {
        "put the value in double quotes, with \\ before each \" in it, or correct the indentation"
    }
}

/// The agent, or `None` with a notice.
fn agent(
    map: Map<String, Value>,
    front: &Front<'_>,
    scope: Scope,
    notices: &mut Notices<'_>,
) -> Option<AgentFile> {
    let name = name(&map, notices)?;
    let description = description(&map, notices)?;
    let hooks = hooks(&map, notices)?;
    if front.body.contains('\0') {
        let line = front.end_line
            + front.body.split('\0').next().unwrap_or_default().matches('\n').count();
        notices.add(Severity::Warning, Some(line), "the text holds NUL bytes", "remove them");
    }
    unknown_keys(&map, notices);
    let agent = AgentFile {
        name,
        description,
        prompt: front.body.to_owned(),
        tools: allowed_tools(&map, notices),
        disallowed_tools: disallowed_tools(&map, notices),
        model: model(&map, notices),
        permission_mode: choice(&map, "permissionMode", PERMISSION_MODES, notices),
        max_turns: max_turns(&map, notices),
        skills: map.get("skills").map(tools::names).unwrap_or_default(),
        mcp_servers: mcp_servers(&map, notices),
        hooks,
        memory: choice(&map, "memory", MEMORIES, notices),
        background: background(&map, notices),
        effort: effort(&map, notices),
        isolation: choice(&map, "isolation", ISOLATIONS, notices),
        color: choice(&map, "color", COLORS, notices),
        initial_prompt: map.get("initialPrompt").and_then(Value::as_str).map(str::to_owned),
        extra: map
            .into_iter()
            .filter(|(key, _)| !KEYS.contains(&key.as_str()))
            .collect::<BTreeMap<_, _>>(),
        path: notices.path.to_owned(),
        scope,
    };
    Some(agent)
}

fn name(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<String> {
    let name = match map.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(Value::Null | Value::String(_)) | None => {
            let meant = KEYS.iter().any(|key| *key != "name" && map.contains_key(*key));
            let severity = if meant { Severity::Skipped } else { Severity::Note };
            let line = notices.line_of("name");
            let remedy = "add `name:` with a name of its own to make it an agent";
            notices.add(
                severity,
                Some(line),
                "the front matter has no `name`, so this is not an agent",
                remedy,
            );
            return None;
        }
        Some(other) => {
            notices.skip(
                "name",
                format!("`name` must be text, not {}", kind(other)),
                "put the name in quotes",
            );
            return None;
        }
    };
    if name.contains(':') {
        let remedy = "take the colon out; it is reserved for agents of plugins";
        notices.skip("name", format!("the name `{name}` holds a colon"), remedy);
        return None;
    }
    if name.starts_with('-') {
        notices.skip(
            "name",
            format!("the name `{name}` begins with a dash"),
            "begin it with a letter",
        );
        return None;
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        let message = format!(
            "the name {name:?} has blanks around it or control characters in it, which are part of it"
        );
        notices.warn("name", message, "write lowercase letters and hyphens");
    }
    Some(name)
}

fn description(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<String> {
    let remedy = "say in one sentence when to hand work to this agent";
    match map.get("description") {
        Some(Value::String(text)) if !text.is_empty() => {
            if text.trim().is_empty() {
                notices.warn("description", "the description is blank", remedy);
            }
            Some(text.replace("\\n", "\n"))
        }
        Some(Value::Null | Value::String(_)) | None => {
            notices.skip("description", "the front matter has no `description`", remedy);
            None
        }
        Some(other) => {
            let message = format!("`description` must be text, not {}", kind(other));
            notices.skip("description", message, "put the description in quotes");
            None
        }
    }
}

fn hooks(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<Value> {
    match servers::hooks(map.get("hooks").unwrap_or(&Value::Null)) {
        Ok((value, unknown)) => {
            if !unknown.is_empty() {
                let message = format!(
                    "hooks for events that do not exist are ignored: {}",
                    unknown.join(", ")
                );
                notices.warn(
                    "hooks",
                    message,
                    "correct the names of the events, such as PreToolUse or Stop",
                );
            }
            Some(value)
        }
        Err(problem) => {
            notices.skip("hooks", problem, "write the hooks as in settings.json, or remove them");
            None
        }
    }
}

fn mcp_servers(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Value {
    let (value, problems) = servers::mcp_servers(map.get("mcpServers").unwrap_or(&Value::Null));
    if !problems.is_empty() {
        let message = format!("servers whose config is wrong are ignored: {}", problems.join("; "));
        notices.warn(
            "mcpServers",
            message,
            "write `- name` or `- name: {command: .., args: [..]}`",
        );
    }
    value
}

fn allowed_tools(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Option<Vec<String>> {
    let names = tools::allowed(map.get("tools"))?;
    if names.is_empty() {
        let remedy = "name the tools, or remove the key to give it all of them";
        notices.warn("tools", "`tools` names no tool, so the agent has none", remedy);
    }
    let unknown = tools::unknown(&names);
    if !unknown.is_empty() && unknown.len() == names.len() {
        let message = "none of the tools exists, so Claude Code refuses to start the agent";
        notices.warn("tools", format!("{message}: {}", names.join(", ")), remedies(&unknown));
    } else if !unknown.is_empty() {
        notices.warn("tools", no_such_tools(&unknown), remedies(&unknown));
    }
    Some(names)
}

fn disallowed_tools(map: &Map<String, Value>, notices: &mut Notices<'_>) -> Vec<String> {
    let names = map.get("disallowedTools").map(tools::names).unwrap_or_default();
    let unknown = tools::unknown(&names);
    if !unknown.is_empty() {
        notices.warn("disallowedTools", no_such_tools(&unknown), remedies(&unknown));
    }
    names
}

fn no_such_tools(unknown: &[(&str, String)]) -> String {
    let names: Vec<&str> = unknown.iter().map(|(name, _)| *name).collect();
    format!("tools that do not exist are ignored: {}", names.join(", "))
}

fn remedies(unknown: &[(&str, String)]) -> String {
    unknown.iter().map(|(_, remedy)| remedy.as_str()).collect::<Vec<_>>().join("; ")
}

fn unknown_keys(map: &Map<String, Value>, notices: &mut Notices<'_>) {
    let known = |key: &str| KEYS.contains(&key) || EXTRA.iter().any(|(extra, _)| *extra == key);
    let unknown: Vec<&String> = map.keys().filter(|key| !known(key)).collect();
    let Some(first) = unknown.first() else {
        return;
    };
    let line = notices.line_of(first);
    let keys: Vec<String> =
        unknown.iter().map(|key| format!("{key} (line {})", notices.line_of(key))).collect();
    let hints: Vec<String> =
        unknown.iter().filter_map(|key| Some(format!("for {key} write {}", meant(key)?))).collect();
    let remedy = if hints.is_empty() {
        "remove them, or leave them for other tools".to_owned()
    } else {
        hints.join("; ")
    };
    notices.add(
        Severity::Warning,
        Some(line),
        format!("keys that Claude Code does not know: {}", keys.join(", ")),
        remedy,
    );
}

/// The key that was probably meant: the same letters in another case or with other joints.
fn meant(key: &str) -> Option<&'static str> {
    let plain = |text: &str| text.replace(['-', '_', ' '], "").to_ascii_lowercase();
    let mistaken =
        MISTAKEN.iter().find(|(wrong, _)| plain(wrong) == plain(key)).map(|(_, right)| *right);
    KEYS.iter().copied().find(|known| plain(known) == plain(key)).or(mistaken)
}
