//! The team of a chaos run: real programs that misbehave in the ways that real agents do.

use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;

/// The variable that marks every process of a run, whatever became of its parents.
pub const MARKER: &str = "SEGUE_CHAOS";
/// The variable that says in which life of the node a process was started.
pub const LIFE: &str = "SEGUE_CHAOS_LIFE";
/// The variable that names the journal.
const JOURNAL: &str = "SEGUE_CHAOS_JOURNAL";

/// Time between SIGTERM and SIGKILL: short, since one agent ignores the first.
pub const GRACE_MS: u64 = 100;

/// The scripts, by the names of the files in which they are put down.
const SCRIPTS: [(&str, &str); 7] = [
    ("common", include_str!("agents/common.sh")),
    ("quick", include_str!("agents/quick.sh")),
    ("slow", include_str!("agents/slow.sh")),
    ("forker", include_str!("agents/forker.sh")),
    ("stubborn", include_str!("agents/stubborn.sh")),
    ("flaky", include_str!("agents/flaky.sh")),
    ("boss", include_str!("agents/boss.sh")),
];

/// The agents, and how many attempts each takes at a time.
const AGENTS: [(&str, u32); 6] =
    [("quick", 3), ("slow", 4), ("forker", 2), ("stubborn", 2), ("flaky", 2), ("boss", 2)];

/// Writes the team into the project's folder: `segue.toml` and the scripts.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, marker: &str, journal: &Path) -> Result<()> {
    write_scripts(dir)?;
    let path = dir.join(crate::project::CONFIG_FILE);
    std::fs::write(&path, config(marker, journal))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the scripts into the folder `agents` of this one.
///
/// # Errors
/// When a file cannot be written.
pub fn write_scripts(dir: &Path) -> Result<()> {
    let folder = dir.join("agents");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (name, text) in SCRIPTS {
        let path = folder.join(format!("{name}.sh"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn config(marker: &str, journal: &Path) -> String {
    // A JSON text is a text of TOML as well.
    let journal = serde_json::Value::from(journal.to_string_lossy().into_owned());
    let mut text = String::from("# The team of a chaos run.\n[claude]\nenabled = false\n");
    for (name, slots) in AGENTS {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[agent]]\nname = \"{name}\"\ncommand = [\"sh\", \"{{team}}/agents/{name}.sh\"]\n\
             max_concurrency = {slots}\ngrace = \"{GRACE_MS}ms\"\ntimeout = \"60s\"\nenv_allow = [\"{LIFE}\"]\n\
             env = {{ {MARKER} = \"{marker}\", {JOURNAL} = {journal} }}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_team_is_what_segue_toml_says_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("with \"quotes\" and \\.txt");
        write(folder.path(), "abc", &journal).unwrap();
        let config = Config::load(folder.path()).unwrap();
        assert!(!config.claude.enabled);
        assert_eq!(config.agents.len(), AGENTS.len());
        for agent in &config.agents {
            assert_eq!(agent.env[MARKER], "abc");
            assert_eq!(agent.env[JOURNAL], journal.to_str().unwrap());
            assert_eq!(agent.grace, GRACE_MS);
            let script = agent.command[1].replace("{team}", folder.path().to_str().unwrap());
            assert!(Path::new(&script).is_file(), "{script}");
        }
    }
}
