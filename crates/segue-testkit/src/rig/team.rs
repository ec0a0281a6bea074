//! The team of every node and worker: the programs of `segue chaos`.

use std::fmt::Write;
use std::path::Path;

const SCRIPTS: [(&str, &str); 7] = [
    ("common", include_str!("../../../segue/src/chaos/agents/common.sh")),
    ("quick", include_str!("../../../segue/src/chaos/agents/quick.sh")),
    ("slow", include_str!("../../../segue/src/chaos/agents/slow.sh")),
    ("forker", include_str!("../../../segue/src/chaos/agents/forker.sh")),
    ("stubborn", include_str!("../../../segue/src/chaos/agents/stubborn.sh")),
    ("flaky", include_str!("../../../segue/src/chaos/agents/flaky.sh")),
    ("boss", include_str!("../../../segue/src/chaos/agents/boss.sh")),
];

/// The agents, and how many attempts each takes at a time.
pub const AGENTS: [(&str, u32); 6] =
    [("quick", 2), ("slow", 2), ("forker", 1), ("stubborn", 1), ("flaky", 1), ("boss", 1)];

/// The variable by which the processes of a run's agents are known: who started them is a node or a worker of this name.
pub const MARKER: &str = "SEGUE_RIG";

/// Writes the team into the folder of a member: `segue.toml` and the scripts. An agent's description is the member that has it, by which the check
/// knows whose an attempt was.
pub fn write(dir: &Path, marker: &str, journal: &Path) -> std::io::Result<()> {
    let folder = dir.join("agents");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in SCRIPTS {
        std::fs::write(folder.join(format!("{name}.sh")), text)?;
    }
    // A JSON text is a text of TOML as well.
    let journal = serde_json::Value::from(journal.to_string_lossy().into_owned());
    let mut text = String::from("# The team of a chaos run.\n[claude]\nenabled = false\n");
    for (name, slots) in AGENTS {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[agent]]\nname = \"{name}\"\ndescription = \"{marker}\"\ncommand = [\"sh\", \"{{team}}/agents/{name}.sh\"]\n\
             max_concurrency = {slots}\ngrace = \"100ms\"\ntimeout = \"60s\"\n\
             env = {{ {MARKER} = \"{marker}\", SEGUE_CHAOS_JOURNAL = {journal} }}\n"
        );
    }
    std::fs::write(dir.join("segue.toml"), text)
}
