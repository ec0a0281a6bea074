//! Submits the work in portions, again and again until each is known to be taken in.

use super::dice::Dice;
use super::door;
use super::work::Load;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Requests that are on their way at a time, at most.
pub const PORTION_MAX: usize = 6;
/// The pause before a submit without an answer is repeated.
const AGAIN: Duration = Duration::from_millis(15);
/// Longest pause between two portions, in milliseconds.
const PAUSE_MS_MAX: u64 = 60;

/// Everything that was submitted.
#[derive(Debug, Default)]
pub struct Fed {
    /// Requests that got no answer and were repeated under the same key.
    pub repeated: u64,
    /// Requests whose answer was lost though they had been taken in: the key found them.
    pub found_again: u64,
}

/// Submits loads as far as it is allowed to.
pub struct Feed {
    /// The node's socket.
    pub socket: PathBuf,
    /// What is to be submitted.
    pub loads: Vec<Load>,
    /// While fewer tasks than this were submitted, the next portion may go in.
    pub allowed: watch::Receiver<u32>,
    /// The file into which every key goes that was answered, with the tasks that must come of it.
    pub submitted: PathBuf,
    /// When portions come and how large they are.
    pub dice: Dice,
}

impl Feed {
    /// Submits everything.
    ///
    /// # Errors
    /// When the node refuses a submit, which it should not.
    pub async fn run(mut self) -> Result<Fed> {
        let mut fed = Fed::default();
        let mut list = File::create(&self.submitted)
            .with_context(|| format!("cannot write {}", self.submitted.display()))?;
        let mut roots: Vec<String> = Vec::with_capacity(self.loads.len());
        let mut tasks = 0;
        while roots.len() < self.loads.len() {
            let size = self.dice.between(1, PORTION_MAX as u64) as usize;
            let portion: Vec<Load> =
                self.loads.iter().skip(roots.len()).take(size).cloned().collect();
            // Whoever allows goes only when the run is over.
            if self.allowed.wait_for(|allowed| *allowed > tasks).await.is_err() {
                break;
            }
            tasks += portion.iter().map(|load| load.tasks).sum::<u32>();
            for (load, taken) in portion.iter().zip(self.submit(&portion, &roots).await?) {
                writeln!(list, "{} {}", load.key, load.tasks)?;
                fed.repeated += taken.repeated;
                fed.found_again += u64::from(taken.found_again);
                roots.push(taken.root);
            }
            tokio::time::sleep(Duration::from_millis(self.dice.below(PAUSE_MS_MAX))).await;
        }
        Ok(fed)
    }

    /// Submits a portion at the same time, and returns what came of each load in order.
    async fn submit(&self, portion: &[Load], roots: &[String]) -> Result<Vec<Taken>> {
        let mut open = JoinSet::new();
        for (place, load) in portion.iter().enumerate() {
            let mut body = load.body.clone();
            if let Some(root) = load.after.and_then(|after| roots.get(after)) {
                body["needs"] = vec![root.clone()].into();
            }
            let (socket, key) = (self.socket.clone(), load.key.clone());
            open.spawn(async move { (place, insist(&socket, &key, &body).await) });
        }
        let mut taken = Vec::with_capacity(portion.len());
        while let Some(ended) = open.join_next().await {
            let (place, result) = ended.context("a submit was cut off")?;
            taken.push((place, result?));
        }
        taken.sort_by_key(|(place, _)| *place);
        Ok(taken.into_iter().map(|(_, taken)| taken).collect())
    }
}

struct Taken {
    root: String,
    repeated: u64,
    found_again: bool,
}

/// Submits under a key until there is an answer.
async fn insist(socket: &Path, key: &str, body: &Value) -> Result<Taken> {
    let mut repeated = 0;
    loop {
        match door::submit(socket, key, body).await {
            Ok((status, answer)) if status.is_success() => {
                let root = answer["id"].as_str().context("the answer to a submit has no id")?;
                let found_again = answer["existing"].as_bool().unwrap_or_default();
                return Ok(Taken { root: root.to_owned(), repeated, found_again });
            }
            Ok((status, answer)) if status.is_client_error() => {
                bail!("the node refused the submit {key}: {status}: {answer}")
            }
            // The node is dead or not there yet: nothing was asked.
            Err(error) if error.is::<std::io::Error>() => {}
            // It died before it answered.
            Ok(_) | Err(_) => repeated += 1,
        }
        tokio::time::sleep(AGAIN).await;
    }
}
