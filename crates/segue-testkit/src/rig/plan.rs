//! The work of a run and the scripts of its team: what `segue chaos` plans, as the binary itself writes it down, so that one machine and many are
//! asked the same.

use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What is submitted in one request.
#[derive(Clone, Debug, Deserialize)]
pub struct Load {
    /// Its idempotency key.
    pub key: String,
    /// The body of `POST /v1/tasks`.
    pub body: Value,
    /// Tasks that come of it in all.
    pub tasks: u32,
    /// The place of an earlier load whose root it needs.
    pub after: Option<usize>,
}

/// Lets the binary write its plan of so many tasks into a folder, with the scripts in `agents`, and reads the work.
pub fn plan(binary: &Path, dir: &Path, seed: u64, tasks: u32) -> Result<Vec<Load>, String> {
    let mut command = Command::new(binary);
    command.args(["chaos", "--seed", &seed.to_string(), "--tasks", &tasks.to_string(), "--plan"]);
    let output = command.arg(dir).env_clear().env("LANG", "C.UTF-8").output();
    let output = output.map_err(|error| format!("{} does not start: {error}", binary.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`segue chaos --plan` ended with {}: {said}", output.status));
    }
    let path = dir.join("work.jsonl");
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let loads = text.lines().map(serde_json::from_str).collect::<Result<Vec<Load>, _>>();
    loads.map_err(|error| format!("{} holds no plan: {error}", path.display()))
}
