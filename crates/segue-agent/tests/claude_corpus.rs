//! Real collections of agents, if they are at hand (`SEGUE_AGENTS_CORPUS`), and the numbers
//! that Claude Code 2.1.330 itself loads from them.

use std::path::{Path, PathBuf};

use segue_agent::claude::{Scope, Severity, load_tree, to_agents_json};

#[test]
fn the_collections_load_as_in_claude_code() {
    let Some(corpus) = std::env::var_os("SEGUE_AGENTS_CORPUS").map(PathBuf::from) else {
        eprintln!("SEGUE_AGENTS_CORPUS is not set: nothing to test");
        return;
    };
    // Collection, agents, agents whose front matter is no strict YAML, files left out.
    for (collection, agents, requoted, skipped) in [
        ("0xfurai+claude-code-subagents", 136, 0, 1),
        ("VoltAgent+awesome-claude-code-subagents", 158, 8, 0),
        ("rshah515+claude-code-subagents", 165, 3, 0),
        ("lst97+claude-code-sub-agents", 37, 0, 0),
    ] {
        check(&corpus.join(collection), agents, requoted, skipped);
    }
}

fn check(dir: &Path, agents: usize, requoted: usize, skipped: usize) {
    let loaded = load_tree(dir, Scope::Project);
    let count =
        |part: &str| loaded.notices.iter().filter(|notice| notice.message.contains(part)).count();
    let left_out =
        loaded.notices.iter().filter(|notice| notice.severity == Severity::Skipped).count();
    let found = (loaded.agents.len(), count("as if these values were in quotes"), left_out);
    assert_eq!(found, (agents, requoted, skipped), "{}: {:#?}", dir.display(), loaded.notices);
    assert!(loaded.notices.iter().all(|notice| notice.line.is_some() && !notice.remedy.is_empty()));
    let json = to_agents_json(&loaded.agents);
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(agents));
}
