//! The course of a chaos run, from an empty folder to the verdict.

use super::census::{self, Census};
use super::check::{self, JOURNAL_FILE, LIVES_FILE, SCRIPT, SCRIPT_FILE, SUBMITTED_FILE};
use super::dice::Dice;
use super::door;
use super::feed::{Fed, Feed};
use super::journal::Journal;
use super::life::{Breeder, Death, Node, Plan, now_ms};
use super::progress::Progress;
use super::report::{Report, Run, table};
use super::{team, work};
use crate::context::Context;
use crate::failure::{Code, Exit, Failure, Outcome};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the node's own output goes.
const LOG_FILE: &str = "node.log";
/// The object that the run ends with.
const REPORT_FILE: &str = "report.json";
/// Lives in a row that may end by themselves before the run is given up.
const ITSELF_MAX: u32 = 3;
/// A node that is to be killed and does nothing for so long gets more work.
const IDLE: Duration = Duration::from_millis(400);
/// Work that no event has moved for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// What the last node has to end by itself.
const STOP: Duration = Duration::from_secs(30);
/// One supervisor is killed for so many kills of the node.
const KILLS_PER_SUPERVISOR: u32 = 20;

/// Arguments of `segue chaos`.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// Tasks in all, those that agents delegate included
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tasks: u32,
    /// How often the node is killed meanwhile
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub kills: u32,
    /// From what the work and the moments of the kills are drawn [default: another one each time]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// An empty folder for the run [default: a new one among the temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep everything, also what proves nothing: logs and folders of attempts
    #[arg(long)]
    pub keep: bool,
    /// Run nothing: recount what an earlier run left in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tasks", "kills", "seed", "dir", "keep"])]
    pub check: Option<PathBuf>,
    /// Run nothing: write the work and the scripts of the team into this folder. By it a cluster is asked the same as one machine
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["kills", "dir", "keep", "check"])]
    pub plan: Option<PathBuf>,
}

/// `segue chaos`
///
/// # Errors
/// When the run cannot be made, and when not everything holds.
pub async fn chaos(cx: &Context, args: &ChaosArgs) -> Outcome {
    if let Some(dir) = &args.check {
        return recount(cx, dir);
    }
    if let Some(dir) = &args.plan {
        write_plan(args, dir).code(Exit::Failed)?;
        return Ok(Exit::Done);
    }
    if !cfg!(feature = "failpoints") {
        return Err(Failure::new(
            Exit::Failed,
            "this build has no failpoints, at which a chaos run kills the node: a build for work has none",
        )
        .hint("run `cargo xtask chaos` in Segue's repository: it makes a build that has them"));
    }
    let dir = folder(args).code(Exit::Usage)?;
    let report = Course::run(args, &dir).await.code(Exit::Failed)?;
    let object = report.json();
    let kept = std::fs::write(dir.join(REPORT_FILE), format!("{object}\n"));
    kept.with_context(|| format!("cannot write {REPORT_FILE}")).code(Exit::Failed)?;
    if report.holds() && !args.keep {
        tidy(&dir);
    }
    if cx.json {
        cx.print(object.to_string())?;
    } else {
        cx.print_lines(&report.lines(cx.out))?;
    }
    Ok(if report.holds() { Exit::Done } else { Exit::Failed })
}

fn write_plan(args: &ChaosArgs, dir: &Path) -> Result<()> {
    team::write_scripts(dir)?;
    work::write(dir, &work::plan(seed_of(args), args.tasks))
}

fn seed_of(args: &ChaosArgs) -> u64 {
    args.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0))
}

fn recount(cx: &Context, dir: &Path) -> Outcome {
    let findings = check::check(dir).code(Exit::Usage)?;
    if cx.json {
        let found = findings.iter().map(|finding| (finding.name.clone(), finding.found.clone()));
        cx.print(serde_json::Value::Object(found.collect()).to_string())?;
    } else {
        cx.print_lines(&table(&findings, cx.out))?;
    }
    let holds = findings.iter().all(|finding| finding.holds != Some(false));
    Ok(if holds { Exit::Done } else { Exit::Failed })
}

/// The folder of the run: there, and empty.
fn folder(args: &ChaosArgs) -> Result<PathBuf> {
    let dir = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make the folder {}", dir.display()))?;
            dir.clone()
        }
        None => {
            let made = tempfile::Builder::new().prefix("segue-chaos-").tempdir();
            made.context("cannot make a temporary folder")?.keep()
        }
    };
    let mut entries =
        std::fs::read_dir(&dir).with_context(|| format!("cannot look into {}", dir.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty: a chaos run needs a folder of its own", dir.display());
    }
    dir.canonicalize().with_context(|| format!("cannot enter {}", dir.display()))
}

/// Removes what proves nothing once everything holds.
fn tidy(dir: &Path) {
    for name in ["logs", "work", "scratch", "run"] {
        let _ = std::fs::remove_dir_all(dir.join(crate::project::STATE_FOLDER).join(name));
    }
    let _ = std::fs::remove_file(dir.join(LOG_FILE));
}

/// A run on its way.
struct Course {
    dir: PathBuf,
    breeder: Breeder,
    journal: Journal,
    census: Census,
    /// Tasks in all.
    tasks: u32,
    /// How many of them may have been submitted.
    allowed: watch::Sender<u32>,
    feed: JoinHandle<Result<Fed>>,
    plans: VecDeque<Plan>,
    /// Kills at which a supervisor goes, too.
    supervisors: BTreeSet<u32>,
    dice: Dice,
    lives: std::fs::File,
    life: u32,
    run: Run,
    progress: Progress,
}

impl Course {
    async fn run(args: &ChaosArgs, dir: &Path) -> Result<Report> {
        let began = Instant::now();
        let mut course = Course::begin(args, dir)?;
        let killed = course.kill_all().await;
        let finished = match killed {
            Ok(()) => course.finish().await,
            Err(error) => Err(error),
        };
        if let Err(error) = finished {
            course.run.troubles.push(format!("{error:#}"));
        }
        course.feed.abort();
        course.progress.say("counting what is left");
        let counted = course.census.finish(course.life);
        course.run.orphans = counted.orphans;
        let gone = counted.gone.iter().max().copied().unwrap_or_default();
        course.run.gone_s_max = gone.as_secs_f64();
        course.run.files_left = files_left(dir);
        check::list_blobs(dir)?;
        let findings = match check::check(dir) {
            Ok(findings) => findings,
            Err(error) => {
                course.run.troubles.push(format!("{error:#}"));
                Vec::new()
            }
        };
        course.run.seconds = began.elapsed().as_secs_f64();
        Ok(Report { findings, run: course.run, database: check::database(dir) })
    }

    fn begin(args: &ChaosArgs, dir: &Path) -> Result<Course> {
        let seed = seed_of(args);
        let exe = std::env::current_exe().context("this binary cannot be found")?;
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let marker = uuid::Uuid::new_v4().to_string();
        let journal = dir.join(JOURNAL_FILE);
        team::write(dir, &marker, &journal)?;
        // The check reads it even if no agent ever writes a line.
        std::fs::write(&journal, "").context("cannot write the journal")?;
        std::fs::write(dir.join(SCRIPT_FILE), SCRIPT).context("cannot write the check")?;
        let lives =
            std::fs::File::create(dir.join(LIVES_FILE)).context("cannot write the lives")?;
        let census = Census::begin(&marker, &name)?;
        let (allowed, may_submit) = watch::channel(0);
        let feed = Feed {
            socket: dir.join(crate::project::STATE_FOLDER).join("node.sock"),
            loads: work::plan(seed, args.tasks),
            allowed: may_submit,
            submitted: dir.join(SUBMITTED_FILE),
            dice: Dice::new(seed, 3),
        };
        let mut dice = Dice::new(seed, 4);
        let supervisors = (0..args.kills.div_ceil(KILLS_PER_SUPERVISOR))
            .map(|_| dice.below(args.kills.into()) as u32)
            .collect();
        let progress = Progress::start(args.kills, args.tasks);
        progress.say(&format!("seed {seed}, folder {}", dir.display()));
        Ok(Course {
            dir: dir.to_owned(),
            breeder: Breeder { exe, dir: dir.to_owned(), log: dir.join(LOG_FILE) },
            journal: Journal::new(journal),
            census,
            tasks: args.tasks,
            allowed,
            feed: tokio::spawn(feed.run()),
            plans: Plan::all(seed, args.kills).into(),
            supervisors,
            dice,
            lives,
            life: 0,
            run: Run { seed, kills_wanted: args.kills, ..Run::default() },
            progress,
        })
    }

    /// Kills one node after the other, and starts the next one at once.
    async fn kill_all(&mut self) -> Result<()> {
        let mut by_itself = 0;
        let mut kill = 0;
        while let Some(plan) = self.plans.pop_front() {
            match self.live_once(kill, plan).await? {
                Death::Itself(why) => {
                    by_itself += 1;
                    self.run.troubles.push(why);
                    if by_itself == ITSELF_MAX {
                        bail!("the node ended by itself {ITSELF_MAX} times in a row");
                    }
                    self.plans.push_front(plan);
                    continue;
                }
                Death::Missed(name) => self.try_again(name),
                Death::Point(_) | Death::Random => {}
            }
            by_itself = 0;
            kill += 1;
            self.fail_if_refused().await?;
        }
        Ok(())
    }

    /// One life of the node.
    async fn live_once(&mut self, kill: u32, plan: Plan) -> Result<Death> {
        let kills_left = f64::from(self.run.kills_wanted.saturating_sub(kill).max(1));
        let work_left = f64::from(self.tasks) - self.journal.ends as f64;
        let due = (work_left / kills_left).max(1.5);
        self.allow(kill);
        self.life += 1;
        let mut node = self.breeder.start_planned(self.life, plan, due)?;
        let victim = self.supervisors.contains(&kill).then_some(self.journal.starts + 2);
        let (pid, mut victims) = (node.pid, 0);
        let (progress, dice) = (&mut self.progress, &mut self.dice);
        let (allowed, all) = (&self.allowed, self.tasks);
        let (mut seen, mut moved) = (0, Instant::now());
        let death = node
            .live(plan, due, &mut self.journal, |journal| {
                progress.show(kill, journal.ends);
                if seen != journal.starts + journal.ends {
                    (seen, moved) = (journal.starts + journal.ends, Instant::now());
                } else if moved.elapsed() > IDLE {
                    // It waits for a moment that only comes with work, and has none.
                    allowed.send_modify(|allowed| *allowed = (*allowed + due as u32 * 2).min(all));
                    moved = Instant::now();
                }
                let due = victim.is_some_and(|starts| victims == 0 && journal.starts >= starts);
                if due && census::kill_a_supervisor(pid, |count| dice.below(count)) {
                    victims += 1;
                }
            })
            .await?;
        self.census.died(self.life);
        self.run.supervisor_kills += victims;
        let robbed = if victims > 0 { "+supervisor" } else { "" };
        self.note_life(&node, &format!("{}{robbed}", death.word()))?;
        match &death {
            Death::Point(name) => *self.run.kills_by_point.entry(name).or_default() += 1,
            Death::Random | Death::Missed(_) => {
                *self.run.kills_by_point.entry("random").or_default() += 1;
            }
            Death::Itself(_) => {}
        }
        Ok(death)
    }

    /// A point that was not passed in time gets the turn of the next random kill, at its first passing.
    fn try_again(&mut self, name: &'static str) {
        let random = |plan: &&mut Plan| !matches!(plan, Plan::Point { .. });
        if let Some(plan) = self.plans.iter_mut().find(random) {
            *plan = Plan::Point { name, part: 0.0 };
        }
    }

    /// Lets as much be submitted as keeps the node busy up to this kill, and a little more.
    fn allow(&self, kill: u32) {
        let kills = u64::from(self.run.kills_wanted.max(1));
        let part = u64::from(self.tasks) * (u64::from(kill) + 3) / kills + 10;
        let part = u32::try_from(part).unwrap_or(u32::MAX).min(self.tasks);
        self.allowed.send_modify(|allowed| *allowed = part.max(*allowed));
    }

    fn note_life(&mut self, node: &Node, how: &str) -> Result<()> {
        writeln!(self.lives, "{} {} {} {how}", node.number, node.started_ms, now_ms())
            .context("cannot write the lives")
    }

    /// A submit that the node refused ends the run.
    async fn fail_if_refused(&mut self) -> Result<()> {
        if self.feed.is_finished() && self.run.fed.is_none() {
            let fed = (&mut self.feed).await.context("the submits were cut off")??;
            self.run.fed = Some(fed);
        }
        Ok(())
    }

    /// Lets a last node do what is left, and ends it.
    async fn finish(&mut self) -> Result<()> {
        self.allowed.send_replace(self.tasks);
        self.life += 1;
        let mut node = self.breeder.start(self.life, None)?;
        let done = self.await_the_end(&mut node).await;
        let stopped = node.stop(STOP).await;
        self.note_life(&node, "stop")?;
        done.and(stopped)
    }

    async fn await_the_end(&mut self, node: &mut Node) -> Result<()> {
        let socket = self.dir.join(crate::project::STATE_FOLDER).join("node.sock");
        let (mut last, mut moved) = (None, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            node.must_live()?;
            self.fail_if_refused().await?;
            self.journal.refresh()?;
            self.progress.show(self.run.kills_wanted, self.journal.ends);
            // While it starts there is no answer.
            if let Ok(health) = door::get(&socket, "/v1/health").await {
                let count = |state: &str| health["tasks"][state].as_u64().unwrap_or_default();
                let ended = count("completed") + count("failed") + count("cancelled");
                if self.run.fed.is_some() && ended >= u64::from(self.tasks) {
                    return Ok(());
                }
                let tasks = Some(health["tasks"].clone());
                if tasks != last {
                    (last, moved) = (tasks, Instant::now());
                }
            }
            if moved.elapsed() > STUCK {
                let tasks = last.unwrap_or_default();
                bail!("nothing has moved for {} s; tasks by state: {tasks}", STUCK.as_secs());
            }
        }
    }
}

/// Files that tell of attempts on their way, of which there are none any more.
fn files_left(dir: &Path) -> Vec<String> {
    let state = dir.join(crate::project::STATE_FOLDER);
    let folders = ["run", "scratch"].map(|name| std::fs::read_dir(state.join(name)));
    let entries = folders.into_iter().flatten().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}
