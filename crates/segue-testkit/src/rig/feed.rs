//! Submits the work in portions through whichever node answers, again and again until each is known to be taken in.
//!
//! Some of it is held back: whenever a fault is over, a load comes in at once, so that there is work by which to see that it goes on.

use super::door;
use super::member::Member;
use super::plan::Load;
use crate::faults::Dice;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Requests that are on their way at a time, at most. The plan lets a load need none of the last six.
const PORTION_MAX: usize = 6;
/// The pause before a submit without an answer is repeated.
const AGAIN: Duration = Duration::from_millis(100);
/// Loads that are asked for and have not come in yet, at most.
pub const ASKED_MAX: usize = 8;
/// One load of so many is held back for the ends of faults.
const HELD_BACK: usize = 5;

/// Everything that was submitted.
#[derive(Debug, Default)]
pub struct Fed {
    /// Requests that got no answer, or that a node could not serve just then, and were repeated under the same key.
    pub repeated: u64,
    /// Requests whose answer was lost though they had been taken in: the key found them.
    pub found_again: u64,
}

/// Submits loads, spread over time.
pub struct Feed {
    /// The nodes.
    pub nodes: Vec<Arc<Member>>,
    /// What is to be submitted.
    pub loads: Vec<Load>,
    /// Over how long, but for what is held back.
    pub lasts: Duration,
    /// Each asks for a load now. Once nobody can ask any more, all that is left comes in.
    pub asked: Receiver<()>,
    /// The file into which every key goes that was answered, with the tasks that must come of it.
    pub submitted: PathBuf,
    /// Which node is asked, and how large portions are.
    pub dice: Dice,
}

impl Feed {
    /// Submits everything.
    pub async fn run(mut self) -> Result<Fed, String> {
        let mut fed = Fed::default();
        let mut list = std::fs::File::create(&self.submitted)
            .map_err(|error| format!("cannot write {}: {error}", self.submitted.display()))?;
        let mut roots: Vec<String> = Vec::with_capacity(self.loads.len());
        let began = Instant::now();
        let held_back = self.loads.len().div_ceil(HELD_BACK);
        let paced = self.loads.len() - held_back;
        let mut brought = 0;
        while roots.len() < self.loads.len() {
            let at = roots.len() - brought;
            let due = began + self.lasts.mul_f64(at as f64 / paced.max(1) as f64);
            // The last one is for whoever asks next.
            let spare = self.loads.len() - roots.len() - 1;
            let size = tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(()) => {
                        brought = held_back.min(brought + 1);
                        1
                    }
                    None => PORTION_MAX,
                },
                () = tokio::time::sleep_until(due), if at < paced && spare > 0 => {
                    spare.min(self.dice.between(1, PORTION_MAX as u64) as usize)
                }
            };
            let portion: Vec<Load> =
                self.loads.iter().skip(roots.len()).take(size).cloned().collect();
            for (load, taken) in portion.iter().zip(self.submit(&portion, &roots).await?) {
                writeln!(list, "{}\t{}", load.key, load.tasks).map_err(|it| it.to_string())?;
                fed.repeated += taken.repeated;
                fed.found_again += u64::from(taken.found_again);
                roots.push(taken.root);
            }
        }
        Ok(fed)
    }

    /// Submits a portion at the same time, and returns what came of each load in order.
    async fn submit(&mut self, portion: &[Load], roots: &[String]) -> Result<Vec<Taken>, String> {
        let mut open = JoinSet::new();
        for (place, load) in portion.iter().enumerate() {
            let mut body = load.body.clone();
            if let Some(after) = load.after {
                let root = roots.get(after);
                let root = root.ok_or(format!("{} needs what has not come in yet", load.key))?;
                body["needs"] = vec![root.clone()].into();
            }
            let first = self.dice.roll(self.nodes.len() as u64) as usize;
            let (nodes, key) = (self.nodes.clone(), load.key.clone());
            open.spawn(async move { (place, insist(&nodes, first, &key, &body).await) });
        }
        let mut taken = BTreeMap::new();
        while let Some(ended) = open.join_next().await {
            let (place, result) = ended.map_err(|error| error.to_string())?;
            taken.insert(place, result?);
        }
        Ok(taken.into_values().collect())
    }
}

struct Taken {
    root: String,
    repeated: u64,
    found_again: bool,
}

/// Submits under a key until there is an answer, at one node after another.
async fn insist(
    nodes: &[Arc<Member>],
    first: usize,
    key: &str,
    body: &Value,
) -> Result<Taken, String> {
    let mut repeated = 0;
    loop {
        let node = &nodes[(first + repeated as usize) % nodes.len()];
        match door::submit(&node.socket, key, body).await {
            Ok((200..=299, answer)) => {
                let root = answer["id"].as_str().ok_or("the answer to a submit has no id")?;
                let found_again = answer["existing"].as_bool().unwrap_or_default();
                return Ok(Taken { root: root.to_owned(), repeated, found_again });
            }
            Ok((status @ 400..=499, answer)) => {
                return Err(format!("{} refused the submit {key}: {status}: {answer}", node.name));
            }
            Ok(_) | Err(_) => repeated += 1,
        }
        tokio::time::sleep(AGAIN).await;
    }
}
