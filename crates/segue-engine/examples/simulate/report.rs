//! What came of it.

use crate::costly::Commit;
use crate::setting::Setting;
use segue_core::event::Fact;
use segue_core::ids::TaskId;
use segue_core::task::{Priority, Route};
use segue_core::time::Time;
use segue_testkit::memory::World;
use segue_testkit::store_suite::BEGIN;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

/// The first part of the submits, while the fleet fills: what is measured of the agents begins after it.
const WARM_PERCENT: u64 = 25;

/// What was measured while it ran.
pub struct Measured {
    pub submitted: u64,
    pub agent_bytes: u64,
    /// From the first submit to the last, since the start.
    pub window_ms: (u64, u64),
    /// From the first submit to the end of the work.
    pub virtual_ms: u64,
    pub cpu_s: f64,
    pub real_s: f64,
    pub commits: Vec<Commit>,
    pub reads: BTreeMap<&'static str, (u64, u64)>,
    pub published: (u64, u64),
}

/// The middle and the far end of a distribution.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| {
            let place = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
            values.get(place).copied().unwrap_or_default()
        };
        Spread { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// How one priority fared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Class {
    pub priority: u8,
    pub tasks: u64,
    /// From ready to started, in seconds.
    pub wait_s: Spread,
}

/// What is reported of one fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub setting: Setting,
    /// Tasks, groups included.
    pub tasks: u64,
    /// Seconds of virtual time from the first submit to the end.
    pub virtual_s: f64,
    pub tasks_per_s: f64,
    /// Milliseconds from ready to given out, where a slot was free at once.
    pub to_start_ms: Spread,
    /// Part of the slots that had an attempt while work was submitted, after the fleet had filled.
    pub utilisation: f64,
    pub priorities: Vec<Class>,
    /// Tasks that were given out though one of the same route stood before them.
    pub out_of_order: u64,
    pub commits: u64,
    /// Commands of a commit.
    pub batch: Spread,
    /// Tasks given out by a commit that gave out any.
    pub assigned: Spread,
    /// Real microseconds in which a commit's commands were decided and kept in memory.
    pub decide_us: Spread,
    /// The same, on average for one command.
    pub command_us: f64,
    /// Of commits that had nothing but to look whether something can be given out.
    pub idle_look_us: Spread,
    /// Reads of the engines, and real microseconds of each on average.
    pub reads: BTreeMap<String, (u64, f64)>,
    /// Messages and letters for each task.
    pub publishes_per_task: f64,
    pub letters_per_task: f64,
    /// Real processor time of everything, the model of the agents included, for each task.
    pub cpu_us_per_task: f64,
    /// Resident memory of all engines and the store for each agent.
    pub bytes_per_agent: u64,
    pub real_s: f64,
    pub total_s: f64,
}

impl Report {
    /// Counts everything.
    pub fn of(setting: Setting, world: &World, measured: Measured) -> Report {
        let history = History::read(world);
        let (from, until) = measured.window_ms;
        let warm = from + (until - from) * WARM_PERCENT / 100;
        let window = (Time(BEGIN.0 + warm as i64), Time(BEGIN.0 + until as i64));
        let of = |of: fn(&Commit) -> f64, which: fn(&&Commit) -> bool| {
            Spread::of(measured.commits.iter().filter(which).map(of).collect())
        };
        let commands: u64 = measured.commits.iter().map(|it| u64::from(it.commands)).sum();
        let nanos: u64 = measured.commits.iter().map(|it| it.nanos).sum();
        let tasks = world.tasks.len() as u64;
        let reads = measured.reads.iter().map(|(what, (count, nanos))| {
            (what.to_string(), (*count, *nanos as f64 / 1_000.0 / (*count).max(1) as f64))
        });
        Report {
            tasks,
            virtual_s: measured.virtual_ms as f64 / 1_000.0,
            tasks_per_s: measured.submitted as f64 * 1_000.0 / measured.virtual_ms.max(1) as f64,
            to_start_ms: history.to_start_ms(),
            utilisation: utilisation(&setting, world, window),
            priorities: history.priorities(world),
            out_of_order: history.out_of_order,
            commits: measured.commits.len() as u64,
            batch: of(|it| it.commands.into(), |_| true),
            assigned: of(|it| it.assigned.into(), |it| it.assigned > 0),
            decide_us: of(|it| it.nanos as f64 / 1_000.0, |_| true),
            command_us: nanos as f64 / 1_000.0 / commands.max(1) as f64,
            idle_look_us: of(|it| it.nanos as f64 / 1_000.0, |it| it.commands == 0),
            reads: reads.collect(),
            publishes_per_task: measured.published.0 as f64 / tasks.max(1) as f64,
            letters_per_task: measured.published.1 as f64 / tasks.max(1) as f64,
            cpu_us_per_task: measured.cpu_s * 1e6 / tasks.max(1) as f64,
            bytes_per_agent: measured.agent_bytes,
            real_s: measured.real_s,
            total_s: 0.0,
            setting,
        }
    }
}

/// What part of the slots had an attempt, on average over the window.
fn utilisation(setting: &Setting, world: &World, window: (Time, Time)) -> f64 {
    let busy: u64 = world
        .attempts
        .values()
        .filter_map(|record| {
            let began = record.attempt.started_at?.max(window.0);
            let ended = record.attempt.ended_at?.min(window.1);
            Some(ended.since_ms(began))
        })
        .sum();
    let slots = setting.agents * u64::from(setting.slots);
    busy as f64 / (window.1.since_ms(window.0) * slots).max(1) as f64
}

/// What the log tells of the order of things.
#[derive(Default)]
struct History {
    /// When each task became ready, and how long it waited until it was given out and until it began.
    waits: Vec<(TaskId, u64, u64)>,
    out_of_order: u64,
    /// Of tasks that became ready when their queue was empty and a slot was free: they were given out in the same commit.
    at_once: Vec<f64>,
}

impl History {
    fn read(world: &World) -> History {
        let mut history = History::default();
        let mut ready: HashMap<TaskId, Time> = HashMap::new();
        let mut queues: HashMap<Route, BTreeSet<(i64, TaskId)>> = HashMap::new();
        let mut given: HashMap<TaskId, (Time, Time)> = HashMap::new();
        for event in &world.events {
            let Some(task) = world.tasks.get(&event.task) else { continue };
            if task.spec.route == Route::Group {
                continue;
            }
            let place = |at: Time| (segue_core::route::rank(at, task.spec.priority), event.task);
            let becomes_ready = match &event.fact {
                Fact::Submitted { state, .. } => *state == segue_core::task::TaskState::Ready,
                Fact::Unblocked | Fact::Retried => true,
                _ => false,
            };
            if becomes_ready {
                ready.insert(event.task, event.at);
                let queue = queues.entry(task.spec.route.clone()).or_default();
                queue.insert(place(event.at));
            }
            match &event.fact {
                Fact::Assigned { .. } => {
                    let Some(since) = ready.remove(&event.task) else { continue };
                    let queue = queues.entry(task.spec.route.clone()).or_default();
                    history.out_of_order += u64::from(queue.first() != Some(&place(since)));
                    queue.remove(&place(since));
                    given.insert(event.task, (since, event.at));
                }
                Fact::Started { .. } => {
                    let Some((since, at)) = given.remove(&event.task) else { continue };
                    history.waits.push((event.task, at.since_ms(since), event.at.since_ms(since)));
                    if at == since {
                        history.at_once.push(event.at.since_ms(since) as f64);
                    }
                }
                _ => {}
            }
        }
        history
    }

    fn to_start_ms(&self) -> Spread {
        Spread::of(self.at_once.clone())
    }

    fn priorities(&self, world: &World) -> Vec<Class> {
        let mut classes: BTreeMap<Priority, Vec<f64>> = BTreeMap::new();
        for (id, _, started_ms) in &self.waits {
            let priority = world.task(*id).spec.priority;
            classes.entry(priority).or_default().push(*started_ms as f64 / 1_000.0);
        }
        let class = |(priority, waits): (Priority, Vec<f64>)| Class {
            priority: priority.number(),
            tasks: waits.len() as u64,
            wait_s: Spread::of(waits),
        };
        classes.into_iter().map(class).collect()
    }
}

/// One fleet in words.
pub fn one(report: &Report) -> String {
    let mut text = String::new();
    let setting = &report.setting;
    let _ = writeln!(
        text,
        "{} agents of {} names, {} engines, {} tasks at {} % load (seed {})",
        setting.agents,
        crate::fleet::names(setting),
        setting.engines,
        report.tasks,
        setting.load,
        setting.seed
    );
    let spread = |it: &Spread, digits: usize| {
        format!("p50 {:.*}, p99 {:.*}, max {:.*}", digits, it.p50, digits, it.p99, digits, it.max)
    };
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<42} {value}");
    };
    line("virtual time, s", format!("{:.0}, {:.1} tasks/s", report.virtual_s, report.tasks_per_s));
    line("ready to started, a slot being free, ms", spread(&report.to_start_ms, 0));
    line("slots in use", format!("{:.1} %", report.utilisation * 100.0));
    for class in &report.priorities {
        let what = format!("ready to started, priority {}, s", class.priority);
        line(&what, format!("{} ({} tasks)", spread(&class.wait_s, 1), class.tasks));
    }
    line("given out ahead of the queue's first", report.out_of_order.to_string());
    line("commands a commit", format!("{} ({} commits)", spread(&report.batch, 0), report.commits));
    line("tasks given out a commit", spread(&report.assigned, 0));
    line("deciding a commit, us", spread(&report.decide_us, 0));
    line("a look that finds nothing, us", spread(&report.idle_look_us, 0));
    line("a command, us", format!("{:.1}", report.command_us));
    for (what, (count, micros)) in &report.reads {
        line(&format!("read `{what}`"), format!("{count} times, {micros:.0} us"));
    }
    line(
        "publishes and letters a task",
        format!("{:.2}, {:.2}", report.publishes_per_task, report.letters_per_task),
    );
    line("processor time a task, us", format!("{:.0}", report.cpu_us_per_task));
    line("memory an agent, bytes", report.bytes_per_agent.to_string());
    line("took, s", format!("{:.1} of {:.1}", report.real_s, report.total_s));
    text
}

/// How it grows with the fleet.
pub fn growth(found: &[Report]) -> String {
    let mut text = String::from(
        "\n agents   tasks/s  start p50  start p99  in use  batch p50  commit us p50      p99  command us  cpu us/task  bytes/agent\n",
    );
    for report in found {
        let _ = writeln!(
            text,
            "{:>7} {:>9.1} {:>7.0} ms {:>7.0} ms {:>5.1} % {:>10.0} {:>14.0} {:>8.0} {:>11.1} {:>12.0} {:>12}",
            report.setting.agents,
            report.tasks_per_s,
            report.to_start_ms.p50,
            report.to_start_ms.p99,
            report.utilisation * 100.0,
            report.batch.p50,
            report.decide_us.p50,
            report.decide_us.p99,
            report.command_us,
            report.cpu_us_per_task,
            report.bytes_per_agent
        );
    }
    text
}

/// Everything as one object.
pub fn json(found: &[Report]) -> String {
    serde_json::to_string(&serde_json::json!({ "fleets": found })).unwrap_or_default()
}

#[derive(Deserialize)]
struct Object {
    fleets: Vec<Report>,
}

/// Reads such an object of one fleet.
pub fn read(text: &[u8]) -> Result<Report, String> {
    let object: Object = serde_json::from_slice(text)
        .map_err(|error| format!("a report cannot be read: {error}"))?;
    object.fleets.into_iter().next().ok_or_else(|| "a report is empty".to_owned())
}

/// Resident memory of this process, in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// Processor time of this process, in seconds; 0 where the system does not tell.
pub fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|it| it.parse::<u64>().ok());
    nanos.unwrap_or(0) as f64 / 1e9
}
