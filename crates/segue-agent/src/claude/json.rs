//! Agents as the argument of `claude --agents`.

use serde_json::{Map, Value, json};

use super::model::{AgentFile, Effort};

/// The JSON object for Claude Code's `--agents` flag: name -> definition, with only the keys
/// that are set. Claude Code refuses the whole argument for one wrong value; [`AgentFile`]s
/// from the loader hold none.
///
/// Of two agents of one name the later one stands. The argument may be long: with `-p` the
/// flag also takes the path of a file that holds this JSON.
///
/// Caution: definitions given this way need no trust dialog, so their `hooks` and `mcpServers`
/// start programs at once. Clear both fields first for files from a source that is not trusted.
#[must_use]
pub fn to_agents_json(agents: &[AgentFile]) -> Value {
    let definitions =
        agents.iter().map(|agent| (agent.name.clone(), Value::Object(definition(agent))));
    Value::Object(definitions.collect())
}

fn definition(agent: &AgentFile) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            map.insert(key.to_owned(), value);
        }
    };
    put("description", json!(agent.description));
    put("prompt", json!(agent.prompt));
    put("tools", json!(agent.tools));
    if !agent.disallowed_tools.is_empty() {
        put("disallowedTools", json!(agent.disallowed_tools));
    }
    put("model", json!(agent.model));
    put("permissionMode", json!(agent.permission_mode));
    put("mcpServers", agent.mcp_servers.clone());
    put("hooks", agent.hooks.clone());
    put("maxTurns", json!(agent.max_turns));
    if !agent.skills.is_empty() {
        put("skills", json!(agent.skills));
    }
    put("initialPrompt", json!(agent.initial_prompt));
    put("memory", json!(agent.memory));
    put(
        "effort",
        match agent.effort {
            Some(Effort::Level(level)) => json!(level),
            Some(Effort::Number(number)) => json!(number),
            None => Value::Null,
        },
    );
    put("background", json!(agent.background));
    put("isolation", json!(agent.isolation));
    for (key, right) in EXTRA {
        if let Some(value) = agent.extra.get(*key).filter(|value| right(value)) {
            put(key, value.clone());
        }
    }
    map
}

/// A newer key, and whether Claude Code takes this value for it.
type Extra = (&'static str, fn(&Value) -> bool);

/// Keys too new to be documented, passed on if their values are right.
pub(super) const EXTRA: &[Extra] = &[
    ("omitClaudeMd", Value::is_boolean),
    ("autoCompactWindow", |value| value.as_u64().is_some_and(|tokens| tokens >= 100_000)),
    ("observer", Value::is_string),
    ("observerMessage", Value::is_string),
];
