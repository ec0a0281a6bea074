//! The lives of the node: how each starts, and at which moment it is killed.

use super::dice::Dice;
use super::journal::Journal;
use super::team::LIFE;
use anyhow::{Context, Result, bail};
use segue_core::failpoint::POINTS;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::process::{Child, Command};

/// A node that does not come to its end by then is killed where it is.
const LIFE_MAX: Duration = Duration::from_secs(6);
/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(4);
/// Longest time between the last piece of work that a random kill waits for and the kill, in milliseconds.
const THEN_MS_MAX: u64 = 80;
/// A start that is cut short ends within so many milliseconds.
const START_MS_MAX: u64 = 300;
/// So many of a hundred random kills cut the start short.
const STARTS_PERCENT: u64 = 15;
/// SIGKILL.
const KILL: i32 = 9;

/// How a life is to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// By itself at a named point, passed for this time; as a part of the work that is due in a life.
    Point {
        /// The point.
        name: &'static str,
        /// How late: 0 is at its first passing, 1 after twice the work that is due.
        part: f64,
    },
    /// From outside, once some of the work that is due was done.
    Work {
        /// How late: 0 is at once, 1 after twice the work that is due.
        part: f64,
        /// And so long after that.
        then: Duration,
    },
    /// From outside, so long after its start.
    Start(Duration),
}

impl Plan {
    /// The plans of so many lives: every second one ends at a named point, each point as often as the others, and every
    /// point at least once where there are as many lives as points.
    pub fn all(seed: u64, kills: u32) -> Vec<Plan> {
        let mut dice = Dice::new(seed, 2);
        let at_points = kills.div_ceil(2).max(kills.min(POINTS.len() as u32));
        let mut points: Vec<&'static str> = Vec::new();
        (0..kills)
            .map(|life| {
                let before = u64::from(life) * u64::from(at_points) / u64::from(kills);
                let after = (u64::from(life) + 1) * u64::from(at_points) / u64::from(kills);
                if after == before {
                    return Plan::random(&mut dice);
                }
                if points.is_empty() {
                    points = POINTS.to_vec();
                    dice.shuffle(&mut points);
                }
                let name = points.pop().unwrap_or(POINTS[0]);
                Plan::Point { name, part: dice.part() }
            })
            .collect()
    }

    fn random(dice: &mut Dice) -> Plan {
        if dice.percent(STARTS_PERCENT) {
            return Plan::Start(Duration::from_millis(dice.below(START_MS_MAX)));
        }
        let then = Duration::from_millis(dice.below(THEN_MS_MAX));
        Plan::Work { part: dice.part(), then }
    }
}

/// How often a point is passed for each task that is done, roughly.
fn passes(point: &str) -> f64 {
    match point {
        "before-commit" | "after-commit" => 2.0,
        _ => 1.0,
    }
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// At a named point.
    Point(&'static str),
    /// From outside, as planned.
    Random,
    /// From outside, since its point was not passed in time.
    Missed(&'static str),
    /// By itself, which it must not.
    Itself(String),
}

impl Death {
    /// The word for it in the list of lives.
    pub fn word(&self) -> &'static str {
        match self {
            Death::Point(name) => name,
            Death::Random | Death::Missed(_) => "random",
            Death::Itself(_) => "itself",
        }
    }
}

/// What every life of the node has in common.
#[derive(Clone, Debug)]
pub struct Breeder {
    /// The binary.
    pub exe: PathBuf,
    /// The project's folder.
    pub dir: PathBuf,
    /// Where the node's own output goes.
    pub log: PathBuf,
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Its process.
    pub pid: i32,
    /// Its number, from 1.
    pub number: u32,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: u64,
    started: Instant,
    log: PathBuf,
    log_from: u64,
}

impl Breeder {
    /// Starts a node that ends at this point, when it passes it for the `count`-th time.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, number: u32, failpoint: Option<(&str, u32)>) -> Result<Node> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let log_from = log.metadata()?.len();
        let mut command = Command::new(&self.exe);
        command
            .args(["up", "--project"])
            .arg(&self.dir)
            .current_dir(&self.dir)
            .env(LIFE, number.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A run that is given up leaves no node behind.
            .kill_on_drop(true);
        match failpoint {
            Some((name, count)) => command.env("SEGUE_FAILPOINT", format!("{name}:{count}")),
            None => command.env_remove("SEGUE_FAILPOINT"),
        };
        let (started_ms, started) = (now_ms(), Instant::now());
        let child =
            command.spawn().with_context(|| format!("cannot start {}", self.exe.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        Ok(Node { child, pid, number, started_ms, started, log: self.log.clone(), log_from })
    }

    /// Starts a node that lives as planned, where `due` tasks are to be done in a life.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_planned(&self, number: u32, plan: Plan, due: f64) -> Result<Node> {
        match plan {
            Plan::Point { name, part } => {
                let count = 1 + (part * 2.0 * due * passes(name)) as u32;
                self.start(number, Some((name, count)))
            }
            Plan::Work { .. } | Plan::Start(_) => self.start(number, None),
        }
    }
}

impl Node {
    /// Waits for the moment that the plan names, and sees to it that the node is dead then. `look` is called now and then.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn live(
        &mut self,
        plan: Plan,
        due: f64,
        journal: &mut Journal,
        mut look: impl FnMut(&Journal),
    ) -> Result<Death> {
        journal.refresh()?;
        let enough = match plan {
            Plan::Work { part, .. } => journal.ends + (part * 2.0 * due) as u64,
            Plan::Point { .. } | Plan::Start(_) => u64::MAX,
        };
        let until = match plan {
            Plan::Start(after) => after,
            Plan::Point { .. } | Plan::Work { .. } => LIFE_MAX,
        };
        while journal.ends < enough && self.started.elapsed() < until {
            if let Some(status) = self.ended_within(LOOK).await? {
                return Ok(self.explain(status, plan));
            }
            journal.refresh()?;
            look(journal);
        }
        if let Plan::Work { then, .. } = plan
            && let Some(status) = self.ended_within(then).await?
        {
            return Ok(self.explain(status, plan));
        }
        self.child.kill().await.context("cannot kill the node")?;
        Ok(match plan {
            Plan::Point { name, .. } => Death::Missed(name),
            Plan::Work { .. } | Plan::Start(_) => Death::Random,
        })
    }

    /// Waits for its end, but not for longer than this.
    async fn ended_within(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => Ok(Some(status.context("cannot wait for the node")?)),
            Err(_) => Ok(None),
        }
    }

    /// Nobody killed it from outside: what was it then?
    fn explain(&self, status: ExitStatus, plan: Plan) -> Death {
        match plan {
            Plan::Point { name, .. } if status.signal() == Some(KILL) => Death::Point(name),
            Plan::Point { .. } | Plan::Work { .. } | Plan::Start(_) => Death::Itself(format!(
                "life {} of the node ended by itself ({status}): {}",
                self.number,
                self.last_words()
            )),
        }
    }

    /// Fails where the node has ended.
    ///
    /// # Errors
    /// What it said at its end.
    pub fn must_live(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("the last node ended by itself ({status}): {}", self.last_words())
            }
        }
    }

    /// Tells the node to end, and waits for that.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self, patience: Duration) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .context("the last node is gone already")?;
        match self.ended_within(patience).await? {
            Some(status) if status.signal() != Some(KILL) => Ok(()),
            Some(status) => bail!("the last node ended badly ({status}): {}", self.last_words()),
            None => bail!("the last node did not end within {} s of SIGTERM", patience.as_secs()),
        }
    }

    /// The end of what it wrote.
    fn last_words(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.log_from.max(length.saturating_sub(2_000))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        match read() {
            Ok(text) if !text.is_empty() => text,
            Ok(_) | Err(_) => "it said nothing".to_owned(),
        }
    }
}

/// Now, in milliseconds since 1970, by the clock that the node goes by as well.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn half_of_the_lives_end_at_points_and_each_point_has_its_part() {
        let plans = Plan::all(1, 200);
        let mut points: BTreeMap<&str, u32> = BTreeMap::new();
        let mut starts = 0;
        for plan in &plans {
            match plan {
                Plan::Point { name, .. } => *points.entry(name).or_default() += 1,
                Plan::Start(_) => starts += 1,
                Plan::Work { .. } => {}
            }
        }
        assert_eq!(points.len(), POINTS.len());
        assert_eq!(points.values().sum::<u32>(), 100);
        assert!(points.values().all(|count| (11..=12).contains(count)), "{points:?}");
        assert!(starts > 0);
        assert_eq!(plans, Plan::all(1, 200));
    }

    #[test]
    fn few_lives_still_end_at_every_point() {
        let plans = Plan::all(5, 12);
        let points: std::collections::BTreeSet<&str> = plans
            .iter()
            .filter_map(|plan| match plan {
                Plan::Point { name, .. } => Some(*name),
                Plan::Work { .. } | Plan::Start(_) => None,
            })
            .collect();
        assert_eq!((plans.len(), points.len()), (12, POINTS.len()));
    }
}
