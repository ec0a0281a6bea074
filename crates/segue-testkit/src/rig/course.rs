//! The course of a run, from private servers to the verdict.

use super::faults::{Kind, Schedule};
use super::feed::{ASKED_MAX, Feed};
use super::member::{Clock, Member, PLAN_FOLDER, Project, traffic};
use super::place::Place;
use super::plan::{Load, plan};
use super::report::{Happened, Report};
use super::verdict::{self, Progress, SCRIPT, SCRIPT_FILE};
use super::{Options, door, team};
use crate::faults::Dice;
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::any::Any;
use std::fs::File;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Members are there by then.
const STARTS_WITHIN: Duration = Duration::from_secs(90);
/// Work that no event has moved for so long, while no fault is on, is stuck.
const STUCK: Duration = Duration::from_secs(90);
/// Letters and duties that are left when all tasks have ended are gone by then.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked how far the work is.
const LOOK: Duration = Duration::from_millis(250);
/// By how much the clock of the last node is off, where libfaketime is installed.
const CLOCK_OFF_S: i64 = 600;

/// A cluster that runs.
pub struct Cluster {
    /// Its servers.
    pub place: Place,
    /// Its nodes.
    pub nodes: Vec<Arc<Member>>,
    /// Its workers.
    pub workers: Vec<Arc<Member>>,
}

impl Cluster {
    /// Everybody.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.nodes.iter().chain(&self.workers)
    }

    /// Starts servers, nodes and workers.
    async fn start(options: &Options, report: &mut Report) -> Result<Cluster, String> {
        let place = Place::start(options).await;
        let project = Project {
            id: uuid::Uuid::new_v4().to_string(),
            key: format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()),
        };
        let mut nodes = Vec::new();
        for number in 1..=options.nodes {
            let name = format!("n{number}");
            let mut node = Member::make(options, &place, &project, &name, true)
                .await
                .map_err(|error| format!("cannot make the folder of {name}: {error}"))?;
            if number == options.nodes && number > 1 {
                match Clock::of(CLOCK_OFF_S) {
                    Some(clock) => node.set_clock(clock),
                    None => report.left_out.push(
                        "no node has a clock that is off: install Debian's package faketime".into(),
                    ),
                }
            }
            nodes.push(Arc::new(node));
        }
        let mut workers = Vec::new();
        for number in 1..=options.workers {
            let name = format!("w{number}");
            let worker = Member::make(options, &place, &project, &name, false)
                .await
                .map_err(|error| format!("cannot make the folder of {name}: {error}"))?;
            worker.give_token(&nodes[0])?;
            workers.push(Arc::new(worker));
        }
        let cluster = Cluster { place, nodes, workers };
        for member in cluster.members() {
            member.start()?;
        }
        cluster.all_there().await?;
        Ok(cluster)
    }

    /// Waits until every node answers and every agent of every member is registered.
    async fn all_there(&self) -> Result<(), String> {
        let until = Instant::now() + STARTS_WITHIN;
        let wanted = self.members().count() * team::AGENTS.len();
        let mut seen = String::new();
        loop {
            if let Some(why) = self.members().find_map(|member| member.ended()) {
                return Err(why);
            }
            let mut there = 0;
            for node in &self.nodes {
                match door::get(&node.socket, "/v1/agents").await {
                    Ok((200, answer)) => {
                        let count = answer["agents"].as_array().or_else(|| answer.as_array());
                        there += usize::from(count.map_or(0, Vec::len) >= wanted);
                        seen = format!("{} knows {} agents", node.name, count.map_or(0, Vec::len));
                    }
                    Ok((status, answer)) => seen = format!("{} says {status}: {answer}", node.name),
                    Err(error) => seen = format!("{}: {error}", node.name),
                }
            }
            if there == self.nodes.len() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("not everybody came within 90 s: {seen}, {wanted} are wanted"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Runs everything and counts what came of it. An error says that the run could not be made at all.
pub async fn chaos(options: &Options) -> Result<Report, String> {
    let began = Instant::now();
    let mut report = Report {
        seed: options.seed,
        members: (options.nodes, options.workers),
        ..Report::default()
    };
    let file = |name: &str, text: &str| {
        std::fs::write(options.dir.join(name), text)
            .map_err(|error| format!("cannot write {name}: {error}"))
    };
    file(SCRIPT_FILE, SCRIPT)?;
    let options = &Options { binary: copy(options)?, ..options.clone() };
    let folder = options.dir.join(PLAN_FOLDER);
    let loads = plan(&options.binary, &folder, options.seed, options.tasks)?;
    file("journal.txt", "")?;
    file("faults.txt", "")?;
    say(options, &format!("seed {}, folder {}", options.seed, options.dir.display()));
    let cluster = Cluster::start(options, &mut report).await?;
    report.servers = cluster.place.versions().await?;
    say(options, &format!("everybody is there after {:.0} s", began.elapsed().as_secs_f64()));
    let run = Run { options, cluster: &cluster, began };
    if let Err(error) = run.all(&mut report, loads).await {
        report.troubles.push(error);
    }
    for (server, (up, down)) in cluster.members().flat_map(|member| traffic(member)) {
        let entry = report.bytes.entry(server.to_string()).or_default();
        *entry = (entry.0 + up, entry.1 + down);
    }
    // Workers say goodbye to a node, so they end first.
    for members in [&cluster.workers, &cluster.nodes] {
        let ends = join_all(members.iter().map(|member| member.stop())).await;
        report.troubles.extend(ends.into_iter().filter_map(Result::err));
    }
    report.orphans = orphans(&cluster).await;
    let checked = AssertUnwindSafe(verdict::check(&cluster.place, &options.dir)).catch_unwind();
    match checked.await.unwrap_or_else(|why| Err(said(&*why))) {
        Ok(findings) => report.findings = findings,
        Err(error) => report.troubles.push(format!("the check: {error}")),
    }
    // The copy that members were started from.
    std::fs::remove_file(&options.binary)
        .map_err(|error| format!("{}: {error}", options.binary.display()))?;
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Members are started again and again from a copy, which no build replaces meanwhile.
fn copy(options: &Options) -> Result<PathBuf, String> {
    let copy = options.dir.join("segue");
    std::fs::copy(&options.binary, &copy)
        .map_err(|error| format!("cannot copy {}: {error}", options.binary.display()))?;
    Ok(copy)
}

struct Run<'a> {
    options: &'a Options,
    cluster: &'a Cluster,
    began: Instant,
}

impl Run<'_> {
    async fn all(&self, report: &mut Report, loads: Vec<Load>) -> Result<(), String> {
        let (ask, asked) = mpsc::channel(ASKED_MAX);
        let feed = Feed {
            nodes: self.cluster.nodes.clone(),
            loads,
            lasts: self.options.lasts,
            asked,
            submitted: self.options.dir.join("submitted.txt"),
            dice: Dice::new(!self.options.seed),
        };
        let feed = tokio::spawn(feed.run());
        let happened = self.faults(report, ask).await;
        let fed = tokio::time::timeout(STUCK, feed).await;
        let fed = fed.map_err(|_| "the submits did not get through".to_owned())?;
        report.fed(&fed.map_err(|error| error.to_string())??);
        happened?;
        self.finish().await
    }

    /// Lets one fault after another happen until the time is over, and asks for work after each.
    async fn faults(&self, report: &mut Report, ask: mpsc::Sender<()>) -> Result<(), String> {
        let all = Kind::ALL.to_vec();
        let kinds = if self.options.faults.is_empty() { all } else { self.options.faults.clone() };
        let mut schedule = Schedule::new(self.options.seed, kinds);
        let list = File::create(self.options.dir.join("faults.txt"));
        let mut list = list.map_err(|error| format!("cannot write faults.txt: {error}"))?;
        let until = Instant::now() + self.options.lasts;
        tokio::time::sleep(Duration::from_secs(3)).await;
        while Instant::now() < until {
            let Some(fault) = schedule.draw() else { break };
            if !fault.applies(self.cluster) {
                continue;
            }
            if ask.is_closed() {
                let left = until.saturating_duration_since(Instant::now()).as_secs();
                report.left_out.push(format!(
                    "faults of the last {left} s: no work is left; ask for more --tasks"
                ));
                break;
            }
            let name = fault.kind.name();
            let victim = fault.victim(self.cluster);
            let (began, at) = (now_ms(), self.began.elapsed());
            say(self.options, &format!("{:6.1} s  {name} {victim}", at.as_secs_f64()));
            let happened = AssertUnwindSafe(fault.happen(self.cluster)).catch_unwind().await;
            happened
                .unwrap_or_else(|why| Err(said(&*why)))
                .map_err(|why| format!("{name}: {why}"))?;
            let (ended, over) = (now_ms(), self.began.elapsed());
            report.kills += u64::from(matches!(
                fault.kind,
                Kind::NodeKilled | Kind::NodeLost | Kind::WorkerKilled | Kind::WorkerLost
            ));
            writeln!(
                list,
                "{}\t{name}\t{victim}\t{began}\t{ended}\t{}",
                report.faults.len() + 1,
                fault.kind.within_s()
            )
            .map_err(|error| error.to_string())?;
            // Where this finds no room, enough was asked for already.
            let _ = ask.try_send(());
            let moved_s = self.moves(Duration::from_secs(fault.kind.within_s()) * 2).await;
            report.faults.push(Happened {
                name,
                victim,
                at_s: at.as_secs_f64(),
                seconds: (over - at).as_secs_f64(),
                moved_s,
            });
            self.look_after(report);
            tokio::time::sleep(fault.pause).await;
        }
        Ok(())
    }

    /// How long it takes until the log goes on; `None` where it does not in this time, or nothing is left to be done.
    async fn moves(&self, within: Duration) -> Option<f64> {
        let began = Instant::now();
        let mut first: Option<Progress> = None;
        while began.elapsed() < within {
            if let Ok(seen) = verdict::progress(&self.cluster.place).await {
                match first {
                    Some(before) if seen.cursor > before.cursor => {
                        return Some(began.elapsed().as_secs_f64());
                    }
                    Some(_) if self.is_over(seen) => return None,
                    Some(_) => {}
                    None => first = Some(seen),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Whether everything that is submitted in all has ended.
    fn is_over(&self, seen: Progress) -> bool {
        seen.tasks >= u64::from(self.options.tasks) && seen.ended == seen.tasks
    }

    /// A member that ended without being told to is a defect, and comes back so that the run goes on.
    fn look_after(&self, report: &mut Report) {
        for member in self.cluster.members() {
            if let Some(why) = member.ended() {
                say(self.options, &why);
                report.troubles.push(why);
                if let Err(error) = member.start() {
                    report.troubles.push(error);
                }
            }
        }
    }

    /// Waits until everything has ended and nothing is left.
    async fn finish(&self) -> Result<(), String> {
        let mut last = (Progress::default(), Instant::now());
        let mut done_since: Option<Instant> = None;
        loop {
            let seen = verdict::progress(&self.cluster.place).await;
            let seen = seen.unwrap_or(last.0);
            if seen.cursor != last.0.cursor {
                last = (seen, Instant::now());
            }
            let done = self.is_over(seen);
            let since = done_since.get_or_insert_with(Instant::now).elapsed();
            match done {
                true if seen.left == 0 || since > SETTLES_WITHIN => return Ok(()),
                true => {}
                false => done_since = None,
            }
            if last.1.elapsed() > STUCK {
                return Err(format!(
                    "the work stands still: {} of {} tasks have ended, {} were wanted",
                    seen.ended, seen.tasks, self.options.tasks
                ));
            }
            tokio::time::sleep(LOOK * 2).await;
        }
    }
}

/// Processes of agents of this run that are left once every member has ended, and the name of the member that started each.
async fn orphans(cluster: &Cluster) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let found = marked(cluster);
        if found.is_empty() || Instant::now() > until {
            return found;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn marked(cluster: &Cluster) -> Vec<String> {
    let journal = format!("SEGUE_CHAOS_JOURNAL={}", cluster.nodes[0].journal().display());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        let mut words = environment.split(|byte| *byte == 0);
        if words.any(|word| word == journal.as_bytes()) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("process {pid} ({})", name.trim()));
        }
    }
    found
}

/// What a panic said: servers that do not come back end a test by one.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it failed").to_owned()
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

fn say(options: &Options, text: &str) {
    if options.talks {
        eprintln!("{text}");
    }
}
