//! Lists of tools: how they are written, and which tools there are.

use serde_json::Value;

use super::front::js_trim;

/// The built-in tools of Claude Code 2.1.330. Not all of them are offered in every session
/// (some need a flag, a plan or a terminal); here it only matters that the name is right.
const KNOWN: &[&str] = &[
    "Agent",
    "Artifact",
    "ArtifactCheck",
    "ArtifactComments",
    "ArtifactData",
    "AskUserQuestion",
    "Bash",
    "ClaudeDesign",
    "CronCreate",
    "CronDelete",
    "CronList",
    "Edit",
    "EndConversation",
    "EnterPlanMode",
    "EnterWorktree",
    "ExitPlanMode",
    "ExitWorktree",
    "Glob",
    "Grep",
    "JavaScript",
    "LSP",
    "ListAgents",
    "ListMcpResourcesTool",
    "Monitor",
    "NotebookEdit",
    "PowerShell",
    "Projects",
    "PushNotification",
    "REPL",
    "Read",
    "ReadMcpResourceDirTool",
    "ReadMcpResourceTool",
    "ReadNotifications",
    "RemoteTrigger",
    "ReportFindings",
    "ScheduleWakeup",
    "SendFeedback",
    "SendMessage",
    "SendUserFile",
    "SendUserMessage",
    "SetGoal",
    "Skill",
    "StructuredOutput",
    "SubagentHandback",
    "Task",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskOutput",
    "TaskStop",
    "TaskUpdate",
    "TeamCreate",
    "TeamDelete",
    "TodoWrite",
    "ToolSearch",
    "WaitForMcpServers",
    "WebFetch",
    "WebSearch",
    "Workflow",
    "Write",
];

/// Tools that older versions had, and what to write instead.
const GONE: &[(&str, &str)] = &[
    ("LS", "Glob or Bash"),
    ("MultiEdit", "Edit"),
    ("NotebookRead", "Read"),
    ("BashOutput", "TaskOutput"),
    ("KillShell", "TaskStop"),
    ("KillBash", "TaskStop"),
    ("SlashCommand", "Skill"),
];

/// The names in a value: a string is cut at commas and spaces outside parentheses, a list is
/// the names of its strings (each cut likewise), anything else holds none.
pub(super) fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => split(text),
        Value::Array(items) => items.iter().filter_map(Value::as_str).flat_map(split).collect(),
        _ => Vec::new(),
    }
}

fn split(text: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut names = vec![String::new()];
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (c == ',' || c == ' ') {
            names.push(String::new());
        } else if let Some(name) = names.last_mut() {
            name.push(c);
        }
    }
    names.iter().map(|name| js_trim(name).to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The value of `tools`: `None` (all of the parent's) if the key is absent or holds a `*`.
/// A key without a value, or with one that is neither text nor list, means no tool at all.
pub(super) fn allowed(value: Option<&Value>) -> Option<Vec<String>> {
    let names = names(value?);
    if names.iter().any(|name| name == "*") {
        return None;
    }
    Some(names)
}

/// Those of `names` that name no tool, each with what to do about it.
pub(super) fn unknown(names: &[String]) -> Vec<(&str, String)> {
    names.iter().filter_map(|name| Some((name.as_str(), hint(name)?))).collect()
}

fn hint(entry: &str) -> Option<String> {
    let name = entry.split('(').next().unwrap_or(entry);
    if KNOWN.contains(&name) || name.starts_with("mcp__") || name == "*" {
        return None;
    }
    if let Some((_, instead)) = GONE.iter().find(|(gone, _)| *gone == name) {
        return Some(format!("for {name} write {instead}"));
    }
    let known = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name));
    Some(match known {
        Some(known) => format!("write {known} for {name}"),
        None => format!("remove {entry}; a server's tool is written mcp__SERVER__TOOL"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_write_a_list() {
        for value in [
            json!("Read, Write"),
            json!("Read,Write"),
            json!("Read Write"),
            json!("Read, Write,"),
            json!("  Read ,\tWrite\n"),
            json!(["Read", "Write"]),
            json!(["Read, Write"]),
            json!(["Read", 5, {"a": 1}, "Write", ["Bash"]]),
        ] {
            assert_eq!(names(&value), ["Read", "Write"], "{value}");
        }
        assert_eq!(names(&json!("Bash(git *, npm x), Read")), ["Bash(git *, npm x)", "Read"]);
        assert_eq!(names(&json!("Agent(a, b) Read")), ["Agent(a, b)", "Read"]);
        assert_eq!(names(&json!("Bash(git, Read")), ["Bash(git, Read"]);
        assert_eq!(names(&json!("a)b, c")), ["a)b", "c"]);
    }

    #[test]
    fn absent_is_all_and_empty_is_none() {
        assert_eq!(allowed(None), None);
        assert_eq!(allowed(Some(&json!("*"))), None);
        assert_eq!(allowed(Some(&json!(["Read", "*"]))), None);
        for value in
            [json!(null), json!(""), json!([]), json!(5), json!({"Read": true}), json!(true)]
        {
            assert_eq!(allowed(Some(&value)), Some(Vec::new()), "{value}");
        }
    }

    #[test]
    fn unknown_tools_get_a_remedy() {
        let list: Vec<String> =
            ["Read", "read", "LS", "mcp__x__*", "Agent(a)", "catalog:search", "Bash(git *)", "*"]
                .map(str::to_owned)
                .into();
        let found = unknown(&list);
        assert_eq!(
            found.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["read", "LS", "catalog:search"]
        );
        assert_eq!(found[0].1, "write Read for read");
        assert_eq!(found[1].1, "for LS write Glob or Bash");
        assert!(found[2].1.contains("mcp__SERVER__TOOL"));
    }

    #[test]
    fn the_table_is_in_order_and_gone_tools_are_not_in_it() {
        assert!(KNOWN.is_sorted());
        assert!(GONE.iter().all(|(gone, _)| !KNOWN.contains(gone)));
    }
}
