//! A batch while it is decided: what every command needs is loaded together, then they are decided one by one.

use super::cells::can_be_kept;
use super::line::{Ask, Line};
use super::load::{Ahead, Along, Loader};
use super::specs::Specs;
use super::trouble::Trouble;
use crate::rows::changes_anything;
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::changes::ChangeSet;
use segue_core::command::{Assign, Command, Reject, Reply, Submit};
use segue_core::decide::{Chance, Ctx, decide};
use segue_core::fleet::Candidates;
use segue_core::ids::{HostId, InstanceId, TaskId};
use segue_core::ports::{Decision, Effects};
use segue_core::scope::Load;
use segue_core::snapshot::Snapshot;
use segue_core::task::{Route, Task, TaskState};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

/// How often a command is decided anew because somebody turned out to be concerned who was not loaded. Twice is enough for
/// whatever is known; more would be a defect.
const ANEW_MAX: usize = 8;

/// Tasks of one batch that end and of which everything is asked for at once.
const AHEAD_MAX: usize = 64;

/// Decides the commands of several callers within one transaction, which stays open.
pub(super) struct Batch<'a> {
    pub(super) loader: Loader<'a>,
    ctx: Ctx,
    chance: &'a mut Chance,
    /// Letters so far: each has its place among them for a number until the store gives it one.
    letters: u64,
    /// Whether any command was accepted that changes something.
    pub(super) changed: bool,
    /// Assignments that left nothing for another one with the same candidates.
    exhausted: Vec<Assign>,
}

/// What the commands of a batch have in common.
#[derive(Default)]
struct Sort {
    /// Some write into the project's own log in any case.
    project_log: bool,
    /// Some may find that leases have ended.
    ticks: bool,
    /// Some are about what instances hold.
    about_held: bool,
    hosts: Vec<HostId>,
    instances: Vec<InstanceId>,
    /// Names of agents that are drained.
    drained: Vec<Arc<str>>,
    /// Tasks whose slots are freed.
    finished: Vec<TaskId>,
    /// Some may end any attempt that they meet.
    ends_any: bool,
    /// Tasks of which attempts report that they go on.
    reported: Vec<TaskId>,
    /// Some ask for more tasks or keys once they know the first ones, or are about work that was there before.
    asks_on: bool,
    assigns: bool,
    /// Some write whatever they find.
    writes: bool,
}

impl Sort {
    fn of<'c>(commands: impl Iterator<Item = &'c Command>) -> Sort {
        let mut sort = Sort::default();
        for command in commands {
            sort.writes |= !matches!(command, Command::Assign(_) | Command::Tick { .. });
            match command {
                Command::Assign(_) => sort.assigns = true,
                Command::Settle { .. } => {}
                Command::Submit(submit) => sort.asks_on |= hangs_on_others(submit),
                Command::Start { proof, .. }
                | Command::Progress { proof, .. }
                | Command::Reaped { proof, .. } => {
                    sort.asks_on = true;
                    sort.reported.push(proof.task);
                }
                Command::State(_) => sort.asks_on = true,
                Command::Finish { task, .. } => sort.finished.push(*task),
                Command::Register { host, agents, .. } => {
                    sort.project_log = true;
                    sort.about_held = true;
                    sort.ends_any = true;
                    sort.hosts.push(*host);
                    sort.instances.extend(agents.iter().map(|spec| spec.instance));
                }
                Command::Renew { host, .. } => sort.hosts.push(*host),
                Command::Drain { agent, .. } => {
                    sort.project_log = true;
                    sort.drained.push(agent.clone());
                }
                Command::ExpireAgent { instance, .. } => {
                    sort.project_log = true;
                    sort.about_held = true;
                    sort.ends_any = true;
                    sort.instances.push(*instance);
                }
                Command::Tick { .. } => {
                    sort.ticks = true;
                    sort.about_held = true;
                    sort.ends_any = true;
                }
                Command::Delegate { .. }
                | Command::Expand { .. }
                | Command::Continue(_)
                | Command::Resume { .. }
                | Command::Cancel { .. }
                | Command::Retry { .. }
                | Command::Requeue { .. } => sort.ends_any = true,
            }
        }
        sort
    }

    /// The tasks that end and those that go on, each once, where what hangs on them is worth asking for at once: of few it saves round trips; of many these
    /// are shared anyway, and it would look a second time for what most do not have. Nor where others may ask for a later page of the same list.
    fn ahead(&self) -> (Vec<TaskId>, Vec<TaskId>) {
        if self.ends_any || self.finished.len() + self.reported.len() > AHEAD_MAX {
            return (Vec::new(), Vec::new());
        }
        // The same outcome may come twice.
        let once = |tasks: &[TaskId]| {
            let mut tasks = tasks.to_vec();
            tasks.sort_unstable();
            tasks.dedup();
            tasks
        };
        (once(&self.finished), once(&self.reported))
    }

    /// Whether this is nothing but work that comes in and is given out: all that anybody waits for is locked by the first flight, and the agents can be
    /// locked with it, after that.
    fn is_new_work(&self) -> bool {
        let touches_agents = self.project_log || self.ticks || self.about_held || self.ends_any;
        self.assigns
            && self.writes
            && !touches_agents
            && self.hosts.is_empty()
            && self.finished.is_empty()
            && !self.asks_on
    }
}

/// Whether a submit is about more than what it brings.
fn hangs_on_others(submit: &Submit) -> bool {
    let specs = || submit.tasks.iter().map(|task| &task.spec);
    let mut named = specs()
        .flat_map(|spec| spec.needs.iter().map(|need| need.task).chain(spec.parent))
        .peekable();
    // Most name none.
    if named.peek().is_none() {
        return false;
    }
    let brings: FxHashSet<TaskId> = specs().map(|spec| spec.id).collect();
    named.any(|id| !brings.contains(&id))
}

/// What a batch stands on.
pub(super) struct Ground<'a> {
    pub(super) line: &'a Line,
    pub(super) project: i32,
    pub(super) specs: &'a mut Specs,
    pub(super) chance: &'a mut Chance,
    pub(super) key: [u8; 32],
    pub(super) fixed_now: Option<Time>,
    /// About now, and never behind what this store has committed.
    pub(super) now: Time,
}

impl<'a> Batch<'a> {
    pub(super) fn new(ground: Ground<'a>) -> Batch<'a> {
        let chance = ground.chance;
        Batch {
            loader: Loader {
                line: ground.line,
                project: ground.project,
                specs: ground.specs,
                snapshot: Snapshot::new(BTreeMap::new(), 0),
                origin: FxHashMap::default(),
                known_agents: FxHashSet::default(),
                stood: FxHashMap::default(),
                ready_routes: FxHashSet::default(),
                fixed_now: ground.fixed_now,
                now: ground.now,
                number: None,
                is_begun: false,
                agents_version: 0,
                holds_project: false,
                ahead: Ahead::default(),
                latest: FxHashMap::default(),
            },
            ctx: Ctx { now: ground.now, chance: chance.clone(), key: ground.key },
            chance,
            letters: 0,
            changed: false,
            exhausted: Vec::new(),
        }
    }

    /// Decides in order; every `Assign` of every caller comes last, so that it sees what the batch made ready.
    pub(super) async fn decide_all(
        &mut self,
        calls: &[Vec<Command>],
    ) -> Result<Vec<Vec<Decision>>, Trouble> {
        let now = self.loader.now;
        self.load(calls).await?;
        self.ctx.now = self.loader.now.max(now);
        self.loader.now = self.ctx.now;
        let mut answers: Vec<Vec<Option<Decision>>> =
            calls.iter().map(|call| call.iter().map(|_| None).collect()).collect();
        for last in [false, true] {
            for (call, answers) in calls.iter().zip(&mut answers) {
                for (command, answer) in call.iter().zip(answers) {
                    match command {
                        Command::Assign(assign) if last => {
                            *answer = Some(self.assign(command, assign).await?);
                        }
                        Command::Assign(_) => {}
                        _ if last => {}
                        _ => {
                            self.loader.all_of(command).await?;
                            *answer = Some(self.decide(command).await?);
                        }
                    }
                }
            }
        }
        *self.chance = self.ctx.chance.clone();
        Ok(answers.into_iter().map(|call| call.into_iter().flatten().collect()).collect())
    }

    /// Loads what can be known beforehand, in as few round trips as that takes.
    async fn load(&mut self, calls: &[Vec<Command>]) -> Result<(), Trouble> {
        let sort = Sort::of(calls.iter().flatten());
        if !sort.writes && !self.loader.finds_anything(sort.assigns, sort.ticks).await? {
            return Ok(());
        }
        let commands =
            || calls.iter().flatten().filter(|command| !matches!(command, Command::Assign(_)));
        let about_agents = !(sort.hosts.is_empty() && sort.instances.is_empty());
        let loads = self.loader.missing(commands());
        // What instances hold is read when it is known which are concerned.
        let loads: Vec<Load> =
            loads.into_iter().filter(|load| !matches!(load, Load::Held(_))).collect();
        let candidates = match sort.is_new_work() {
            true => self.likely_candidates(calls),
            false => Vec::new(),
        };
        let (ends, goes_on) = sort.ahead();
        let along = Along {
            candidates,
            begin: Some(sort.writes),
            lock_project: sort.project_log,
            routes: sort.assigns,
            agents_of: about_agents.then(|| (sort.hosts.clone(), sort.instances.clone())),
            expired: sort.ticks,
            ends,
            goes_on,
        };
        let brought = self.loader.flight(loads, along).await?;
        let mut concerned = brought.found_agents;
        self.loader.refresh_specs().await?;
        self.loader.add_agents(&brought.candidates.iter().collect::<Vec<_>>()).await?;
        if !sort.drained.is_empty() {
            let drained = |name: &Arc<str>| sort.drained.contains(name);
            let specs = self.loader.specs.all().filter(|spec| drained(&spec.name));
            concerned.extend(specs.map(|spec| spec.instance));
        }
        concerned.sort_unstable();
        concerned.dedup();
        let held = if sort.about_held { concerned.clone() } else { Vec::new() };
        if !held.is_empty() {
            self.loader.tasks_held_by(&held).await?;
        }
        // Also the roots of what is ready: tasks are locked before agents.
        self.loader.rounds(calls.iter().flatten()).await?;
        concerned.extend(self.holders(&sort));
        // Of new work everybody who can be had is locked already.
        let candidates = match sort.assigns && !sort.is_new_work() {
            true => self.likely_candidates(calls),
            false => Vec::new(),
        };
        let may_expire = sort.ticks && !held.is_empty();
        // Whoever cannot get a candidate here finds so when it assigns.
        self.loader.agents(concerned, candidates, held, may_expire).await?;
        self.loader.rounds(commands()).await?;
        if sort.ends_any {
            let holders = self.holders(&sort);
            self.loader.agents(holders, Vec::new(), Vec::new(), false).await?;
        }
        Ok(())
    }

    /// The instances whose slots these commands may free, as far as their tasks are loaded.
    fn holders(&self, sort: &Sort) -> Vec<InstanceId> {
        let snapshot = &self.loader.snapshot;
        if sort.ends_any {
            snapshot.tasks().filter_map(|task| holder(task)).collect()
        } else {
            let finished = sort.finished.iter().filter_map(|id| snapshot.task(*id));
            finished.filter_map(|task| holder(task)).collect()
        }
    }

    /// The routes of what is ready or may become so by these commands.
    fn likely_candidates(&mut self, calls: &[Vec<Command>]) -> Vec<InstanceId> {
        let mut routes = self.routes_in_table();
        let snapshot = &self.loader.snapshot;
        for task in
            snapshot.tasks().filter(|task| !task.state.is_terminal() && holder(task).is_none())
        {
            if !routes.contains(&task.spec.route) {
                routes.insert(task.spec.route.clone());
            }
        }
        for command in calls.iter().flatten() {
            if let Command::Submit(submit) = command {
                for task in submit.tasks.iter().filter(|task| task.spec.needs.is_empty()) {
                    if !routes.contains(&task.spec.route) {
                        routes.insert(task.spec.route.clone());
                    }
                }
            }
        }
        self.candidates_for(calls.iter().flatten(), &routes)
    }

    fn routes_in_table(&self) -> FxHashSet<Route> {
        self.loader.ready_routes.iter().filter_map(|route| Route::from_str(route).ok()).collect()
    }

    fn candidates_for<'c>(
        &mut self,
        commands: impl Iterator<Item = &'c Command>,
        routes: &FxHashSet<Route>,
    ) -> Vec<InstanceId> {
        if routes.is_empty() {
            return Vec::new();
        }
        let mut lists: Vec<&Assign> = Vec::new();
        for command in commands {
            if let Command::Assign(assign) = command
                && lists.iter().all(|list| !Arc::ptr_eq(&list.candidates, &assign.candidates))
            {
                lists.push(assign);
            }
        }
        let specs = &mut self.loader.specs;
        lists.iter().flat_map(|assign| specs.serving(&assign.candidates, routes)).collect()
    }

    /// Decides one command whose rows are loaded; anew, where somebody turns out to be concerned whose row is not.
    async fn decide(&mut self, command: &Command) -> Result<Decision, Trouble> {
        for _ in 0..ANEW_MAX {
            let chance = self.ctx.chance.clone();
            let changes = match decide(&self.loader.snapshot, command, &mut self.ctx) {
                Ok(changes) => changes,
                Err(reject) => return Ok(Err(reject)),
            };
            let concerned = self.not_loaded(&changes);
            let unnumbered = changes.project_events.is_some() && !self.loader.holds_project;
            if unnumbered || !concerned.is_empty() {
                self.ctx.chance = chance;
                self.loader.agents(concerned, Vec::new(), Vec::new(), unnumbered).await?;
                continue;
            }
            if let Some(reject) = cannot_be_kept(&changes) {
                return Ok(Err(reject));
            }
            return Ok(Ok(self.accept(changes)));
        }
        Err(Trouble::data(format!("`{}` concerns more and more agents: a defect", command.name())))
    }

    fn accept(&mut self, mut changes: ChangeSet) -> Effects {
        for letter in &mut changes.letters {
            self.letters += 1;
            letter.seq = self.letters;
        }
        let effects = Effects::of(&changes);
        self.changed |= changes_anything(&changes);
        self.loader.snapshot.absorb(changes);
        effects
    }

    /// Instances that lose a slot by these changes and are not loaded: their counts would be wrong, and nobody would write to them.
    fn not_loaded(&self, changes: &ChangeSet) -> Vec<InstanceId> {
        let lost = |task: &Task| {
            let before = self.loader.snapshot.task(task.id())?;
            let attempt = before.current_attempt()?;
            let goes_on = task.current_attempt().is_some_and(|now| now.id == attempt.id);
            (!goes_on).then_some(attempt.instance)
        };
        let lost = changes.tasks.iter().filter_map(lost);
        lost.filter(|instance| !self.loader.known_agents.contains(instance)).collect()
    }

    async fn assign(&mut self, command: &Command, assign: &Assign) -> Result<Decision, Trouble> {
        let repeated = |done: &Assign| {
            Arc::ptr_eq(&done.candidates, &assign.candidates)
                || done.candidates == assign.candidates
        };
        let mut ready = self.routes_in_table();
        for task in self.loader.snapshot.tasks().filter(|task| task.state == TaskState::Ready) {
            if !ready.contains(&task.spec.route) {
                ready.insert(task.spec.route.clone());
            }
        }
        if ready.is_empty() || self.exhausted.iter().any(repeated) {
            return Ok(Ok(nothing_assigned()));
        }
        let candidates = self.candidates_for(std::iter::once(command), &ready);
        let mut kept_out = self.loader.agents(Vec::new(), candidates, Vec::new(), false).await?;
        let queues = self.routes_in_table();
        let open = self.loader.snapshot.agents().open_queues(
            &Candidates::new(&assign.candidates),
            assign.limit,
            queues.iter(),
            |route| queues.contains(route),
        );
        let wanted: Vec<(String, usize)> =
            open.into_iter().map(|(route, free)| (route.to_string(), free)).collect();
        if !wanted.is_empty() {
            kept_out |= self.loader.heads(wanted).await?;
        }
        self.loader.all_of(command).await?;
        let mut decision = self.decide(command).await?;
        if let Ok(effects) = &mut decision
            && let Reply::Assigned(count) = effects.reply
            && count < assign.limit
        {
            effects.look_again = kept_out;
            self.exhausted.push(assign.clone());
        }
        Ok(decision)
    }
}

fn nothing_assigned() -> Effects {
    Effects {
        reply: Reply::Assigned(0),
        letters: Vec::new(),
        duties: Vec::new(),
        next_due: None,
        may_assign: false,
        look_again: false,
        ended: Vec::new(),
        attempts: Vec::new(),
        state_changed: false,
    }
}

/// The instance whose slot the task holds.
fn holder(task: &Task) -> Option<InstanceId> {
    task.current_attempt().map(|attempt| attempt.instance)
}

/// Refuses what no row can hold: the command alone, instead of the whole batch.
fn cannot_be_kept(changes: &ChangeSet) -> Option<Reject> {
    let texts = |task: &Task| {
        let spec = &task.spec;
        let route = match &spec.route {
            Route::Agent(name) | Route::Capability(name) => Some(name.clone()),
            Route::Group => None,
        };
        [Some(spec.name.clone()), spec.key.clone(), spec.idempotency_key.clone(), route]
    };
    let odd = changes.tasks.iter().flat_map(texts).flatten().find(|text| !can_be_kept(text))?;
    Some(Reject::Invalid(format!("{odd:?} holds the character U+0000, which no name or key may")))
}

/// The statement that ends a transaction which changed nothing.
pub(super) fn nothing_to_write() -> Ask<'static> {
    Ask::new("COMMIT")
}
