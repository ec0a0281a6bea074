//! Hostile agent files: whatever the bytes, the loader answers with an agent or with a reason.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use segue_agent::claude::{Scope, Severity, parse, to_agents_json};

/// Pieces that YAML and the front matter care about, so that random files get deep.
const PIECES: &[&str] = &[
    "---",
    "---\n",
    "\n---\n",
    "\n",
    "\r\n",
    "\t",
    " ",
    "  ",
    "name",
    "description",
    "tools",
    "hooks",
    "mcpServers",
    "maxTurns",
    "effort",
    "model",
    ": ",
    ":",
    "- ",
    "? ",
    "a",
    "b c",
    "\"",
    "'",
    "|",
    ">",
    ">-",
    "|2",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "<<",
    "#",
    " # c",
    "%",
    "@",
    "`",
    "\\",
    "\\n",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "é",
    "😀",
    "0x1f",
    "1e999",
    ".nan",
    "~",
    "true",
    "-1",
    "99999999999999999999",
    "...",
    "(",
    ")",
    "\0",
    "\u{7}",
    "\u{7f}",
    "\u{f0007}",
    "PreToolUse",
    "type",
    "command",
    "Agent(a, b)",
];

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (agent, notices) = parse(Path::new("x.md"), bytes, Scope::User);
    for notice in &notices {
        prop_assert!(!notice.message.is_empty() && !notice.remedy.is_empty());
        let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert!(
            notice.line.is_none_or(|line| (1..=lines).contains(&line)),
            "{notice} of {lines} lines"
        );
    }
    match agent {
        Some(agent) => {
            prop_assert!(
                !agent.name.is_empty() && !agent.name.contains(':') && !agent.name.starts_with('-')
            );
            prop_assert!(!agent.description.is_empty());
            prop_assert!(notices.iter().all(|notice| notice.severity == Severity::Warning));
            let name = agent.name.clone();
            prop_assert!(to_agents_json(&[agent])[&name]["description"].is_string());
        }
        None => {
            prop_assert!(notices.last().is_some_and(|notice| notice.severity != Severity::Warning))
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes)?;
    }

    #[test]
    fn any_front_matter_bytes(bytes in vec(any::<u8>(), 0..200)) {
        check(&[b"---\nname: a\ndescription: ", bytes.as_slice(), b"\n---\nx"].concat())?;
    }

    #[test]
    fn any_pieces(pieces in vec(prop::sample::select(PIECES), 0..60)) {
        check(format!("---\n{}", pieces.concat()).as_bytes())?;
        check(pieces.concat().as_bytes())?;
    }

    #[test]
    fn any_lines(lines in vec((prop::sample::select(PIECES), vec(prop::sample::select(PIECES), 0..8)), 0..12)) {
        let mut text = "---\nname: a\ndescription: d\n".to_owned();
        for (key, value) in lines {
            text += &format!("{key}: {}\n", value.concat());
        }
        check(format!("{text}---\nbody").as_bytes())?;
    }
}
