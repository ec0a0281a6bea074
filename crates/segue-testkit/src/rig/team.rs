//! The team of every node and worker: the programs of `segue chaos`.

use super::member::quoted;
use std::fmt::Write;
use std::path::Path;

/// The agents, and how many attempts each takes at a time.
pub const AGENTS: [(&str, u32); 6] =
    [("quick", 2), ("slow", 2), ("forker", 1), ("stubborn", 1), ("flaky", 1), ("boss", 1)];

/// The variable by which the processes of a run's agents are known: who started them is a node or a worker of this name.
pub const MARKER: &str = "SEGUE_RIG";

/// Writes the team into the folder of a member: `segue.toml`, by which it runs the scripts of the plan. An agent's description is the member that has it, by which the check
/// knows whose an attempt was.
pub fn write(dir: &Path, marker: &str, journal: &Path, plan: &Path) -> std::io::Result<()> {
    let journal = quoted(&journal.to_string_lossy());
    let mut text = String::from("# The team of a chaos run.\n[claude]\nenabled = false\n");
    for (name, slots) in AGENTS {
        let script = quoted(&plan.join(format!("agents/{name}.sh")).to_string_lossy());
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[agent]]\nname = \"{name}\"\ndescription = \"{marker}\"\ncommand = [\"sh\", {script}]\n\
             max_concurrency = {slots}\ngrace = \"100ms\"\ntimeout = \"60s\"\n\
             env = {{ {MARKER} = \"{marker}\", SEGUE_CHAOS_JOURNAL = {journal} }}\n"
        );
    }
    std::fs::write(dir.join("segue.toml"), text)
}
