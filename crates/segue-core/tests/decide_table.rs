//! Every command against every state: one golden file, and the state diagram made from it.
//!
//! `SEGUE_BLESS=1 cargo test -p segue-core --test decide_table` writes both files anew. The matches here have no
//! catch-all: a new state, command or outcome does not compile until its row or column is written.

mod support;

use segue_core::command::*;
use segue_core::event::{Event, Fact};
use segue_core::ids::{AttemptId, PROJECT_LOG, TaskId};
use segue_core::letter::{EndedProcess, Secret};
use segue_core::outcome::Outcome;
use segue_core::ports::Effects;
use segue_core::task::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use support::*;

/// The task that the table is about, the task that needs it, the group around both, and a task that it needs.
const SUBJECT: u64 = 1;
const DEPENDENT: u64 = 2;
const RUN: u64 = 100;
const NEED: u64 = 3;

const MINUTE_MS: u64 = 60_000;
const LIMITS: Timeouts = Timeouts {
    queue_ms: Some(10 * MINUTE_MS),
    run_ms: Some(20 * MINUTE_MS),
    whole_ms: Some(60 * MINUTE_MS),
};

// ---- rows: the states, in the variants that matter ------------------------------------------

type Build = fn() -> Town;

fn rows(state: TaskState) -> Vec<(&'static str, Build)> {
    match state {
        TaskState::Blocked => vec![
            ("by a need", || town(&[NEED], |spec| spec)),
            ("by its templates", || town(&[], SpecExt::templated)),
        ],
        TaskState::Ready => vec![
            ("new", || town(&[], |spec| spec)),
            ("after a lost attempt", lost),
            ("to be resumed", resumed),
            ("requeued", || after(failed(), Command::Requeue { task: task_id(SUBJECT) })),
        ],
        TaskState::Assigned => vec![
            ("first attempt", assigned),
            ("second attempt, the first was lost", || {
                let mut town = lost();
                town.assign();
                town
            }),
        ],
        TaskState::Running => vec![
            ("first attempt", || running(assigned())),
            ("last attempt", || running(with_assigned(SpecExt::once))),
            ("with an open child", || {
                let mut town = running(assigned());
                let proof = town.proof(task_id(SUBJECT));
                let tasks = vec![delegated("x", &[])];
                town.act(Command::Delegate { proof, tasks }).unwrap();
                town
            }),
            ("resumed", || {
                let mut town = resumed();
                town.assign();
                running(town)
            }),
        ],
        TaskState::Waiting => vec![
            ("to be resumed", || parked(true)),
            ("to collect", || parked(false)),
            ("a group", || group_town(1)),
            ("a group whose children have ended", || {
                let mut town = group_town(1);
                town.work(11, complete());
                town
            }),
        ],
        TaskState::Retrying => vec![
            ("after an error", || finished(assigned(), fail(ErrorClass::Transient))),
            ("after a timeout that its host did not report", || {
                let mut town = assigned();
                town.pass_ms(20 * MINUTE_MS + RUN_GRACE_MS);
                town.tick();
                town
            }),
        ],
        TaskState::Completed => vec![
            ("by an attempt", || finished(assigned(), complete())),
            ("a group", || {
                let mut town = group_town(1);
                town.work(11, complete());
                town.do_duties();
                town
            }),
        ],
        TaskState::Failed => vec![
            ("a dead letter", failed),
            ("before it began", || {
                let mut town = town(&[NEED], |spec| spec);
                town.work(NEED, fail(ErrorClass::Permanent));
                town
            }),
            ("by its templates", || {
                let error = TaskError::new(ErrorClass::Template, "`x` is undefined");
                let task = task_id(SUBJECT);
                after(town(&[], SpecExt::templated), Command::Expand { task, rendered: Err(error) })
            }),
            ("lost too often", || {
                let mut town = with_assigned(|mut spec| {
                    spec.retry.lost_max = 0;
                    spec
                });
                expire(&mut town);
                town
            }),
            ("in the queue for too long", || {
                let mut town = town(&[], |spec| spec);
                town.pass_ms(10 * MINUTE_MS);
                town.tick();
                town
            }),
            ("a group", || {
                let mut town = group_town(1);
                town.work(11, fail(ErrorClass::Permanent));
                town.do_duties();
                town
            }),
        ],
        TaskState::Cancelled => vec![
            ("while it ran", || cancelled(running(assigned()))),
            ("before it began", || cancelled(town(&[NEED], |spec| spec))),
            ("while it waited", || cancelled(parked(true))),
            ("skipped by its condition", || {
                let rendered = Ok(Rendered::Skip { reason: "its condition is false".into() });
                let task = task_id(SUBJECT);
                after(town(&[], SpecExt::templated), Command::Expand { task, rendered })
            }),
            ("skipped by a need", || {
                let mut town = Town::new();
                keep_lease(&mut town);
                town.submit(vec![spec(NEED, "need").on_failure(OnFailure::Skip)]);
                submit_run(&mut town, spec(SUBJECT, "task").needs(&[NEED]).limits(LIMITS));
                town.work(NEED, fail(ErrorClass::Permanent));
                town
            }),
            ("a group", || cancelled(group_town(1))),
            ("under a cancelled run", || {
                let mut town = assigned();
                let reason = "enough".to_owned();
                town.act(Command::Cancel { task: task_id(RUN), reason }).unwrap();
                town
            }),
        ],
    }
}

fn keep_lease(town: &mut Town) {
    let lease_ms = 100 * 60 * MINUTE_MS;
    town.act(Command::Renew { host: host(1), incarnation: life(1), lease_ms }).unwrap();
}

/// The task in a run, with one that needs it, given what it needs itself.
fn town(needs: &[u64], change: impl Fn(TaskSpec) -> TaskSpec) -> Town {
    let mut town = Town::new();
    keep_lease(&mut town);
    if needs.contains(&NEED) {
        town.submit(vec![spec(NEED, "need")]);
    }
    submit_run(&mut town, change(spec(SUBJECT, "task").needs(needs).limits(LIMITS)));
    town
}

fn submit_run(town: &mut Town, subject: TaskSpec) {
    town.submit(vec![
        group(RUN, "run"),
        subject.under(RUN),
        spec(DEPENDENT, "dependent").under(RUN).needs(&[SUBJECT]),
    ]);
}

/// The task as a group with children, which is the root of its run; one of another run needs it.
fn group_town(children: u64) -> Town {
    let mut town = Town::new();
    keep_lease(&mut town);
    let limits = Timeouts { whole_ms: LIMITS.whole_ms, ..Timeouts::default() };
    let mut specs = vec![group(SUBJECT, "task").limits(limits)];
    specs.extend((0..children).map(|n| spec(11 + n, "child").under(SUBJECT)));
    town.submit(specs);
    town.submit(vec![spec(DEPENDENT, "dependent").needs(&[SUBJECT])]);
    town
}

fn with_assigned(change: impl Fn(TaskSpec) -> TaskSpec) -> Town {
    let mut town = town(&[], change);
    town.assign();
    town
}

fn assigned() -> Town {
    with_assigned(|spec| spec)
}

fn running(mut town: Town) -> Town {
    let (proof, at) = (town.proof(task_id(SUBJECT)), town.ctx.now);
    town.act(Command::Start { proof, at, process: None }).unwrap();
    town
}

fn finished(mut town: Town, outcome: Outcome) -> Town {
    town.finish(SUBJECT, outcome);
    town
}

fn parked(resume: bool) -> Town {
    finished(assigned(), delegate(vec![delegated("x", &[])], resume))
}

fn resumed() -> Town {
    let mut town = parked(true);
    town.assign();
    town.finish_id(town.child(SUBJECT, "x"), complete());
    town
}

fn failed() -> Town {
    finished(assigned(), fail(ErrorClass::Permanent))
}

fn expire(town: &mut Town) {
    let reason = "its host was not heard of".to_owned();
    town.act(Command::ExpireAgent { instance: instance(1), reason }).unwrap();
    town.register(1, 1, vec![agent(1, "a", 8, &["work"])]).unwrap();
    keep_lease(town);
}

fn lost() -> Town {
    let mut town = assigned();
    expire(&mut town);
    town
}

fn cancelled(town: Town) -> Town {
    after(town, Command::Cancel { task: task_id(SUBJECT), reason: "enough".into() })
}

fn after(mut town: Town, command: Command) -> Town {
    town.act(command).unwrap();
    town
}

// ---- columns: the commands, in the variants that matter -------------------------------------

type Ask = fn(&mut Town) -> Option<Command>;

/// An attempt id that nobody was given.
fn made_up() -> AttemptId {
    AttemptId(uuid::Uuid::from_u128(0xdead))
}

fn latest(town: &Town) -> AttemptId {
    town.task(SUBJECT).attempt.as_ref().map_or(made_up(), |attempt| attempt.id)
}

/// Proof for the latest attempt, or for one that nobody was given where there is none.
fn right(town: &Town) -> Proof {
    town.proof_of(task_id(SUBJECT), latest(town))
}

fn wrong(town: &Town) -> Option<Proof> {
    town.task(SUBJECT).attempt.as_ref()?;
    Some(Proof { secret: Secret([0; 32]), ..right(town) })
}

/// Proof for an attempt before the latest, where there is one.
fn superseded(town: &Town) -> Option<Proof> {
    let records = town.world.attempts.values();
    let mut of_task =
        records.filter(|it| it.task == task_id(SUBJECT) && it.attempt.id != latest(town));
    Some(town.proof_of(task_id(SUBJECT), of_task.next()?.attempt.id))
}

fn finish(town: &Town, proof: Proof, outcome: Outcome) -> Command {
    let Command::Finish { task, mut response } = town.report(proof.task, proof.attempt, outcome)
    else {
        unreachable!("a report is a finish")
    };
    response.secret = proof.secret;
    Command::Finish { task, response }
}

fn start(town: &Town, proof: Proof) -> Command {
    Command::Start { proof, at: town.ctx.now, process: None }
}

fn progress(proof: Proof) -> Command {
    Command::Progress { proof, note: text("\"half\"") }
}

fn reaped(proof: Proof) -> Command {
    let process = ProcessRef { pid: 7, start_time: 8 };
    Command::Reaped {
        proof,
        ended: vec![EndedProcess { process, name: "sh".into(), signal: None }],
    }
}

fn call(proof: Proof) -> Command {
    Command::Delegate { proof, tasks: vec![delegated("x", &[]), delegated("y", &["x"])] }
}

fn expand(rendered: Result<Rendered, TaskError>) -> Option<Command> {
    Some(Command::Expand { task: task_id(SUBJECT), rendered })
}

fn go_on(kind: DutyKind) -> Option<Command> {
    Some(Command::Continue(Duty { task: task_id(SUBJECT), kind }))
}

fn tick_after(town: &mut Town, minutes: u64) -> Option<Command> {
    town.pass_ms(minutes * MINUTE_MS + RUN_GRACE_MS);
    Some(Command::Tick { limit: 100, excused: Excused::Nobody })
}

fn register(in_life: u64, agents: &[&str]) -> Option<Command> {
    let agents = agents.iter().map(|name| agent(1, name, 8, &["work"])).collect();
    let (host, incarnation) = (host(1), life(in_life));
    Some(Command::Register { host, incarnation, agents, lease_ms: LEASE_MS })
}

fn renew(in_life: u64) -> Option<Command> {
    Some(Command::Renew { host: host(1), incarnation: life(in_life), lease_ms: LEASE_MS })
}

fn columns() -> Vec<(&'static str, Ask)> {
    let mut columns: Vec<(&'static str, Ask)> = vec![
        ("submit of a task that needs it", |_| {
            Some(Town::submission(vec![spec(50, "new").needs(&[SUBJECT])]))
        }),
        ("submit of its id again", |_| Some(Town::submission(vec![spec(SUBJECT, "task")]))),
        ("assign", |town| Some(town.assignment())),
        ("start", |town| Some(start(town, right(town)))),
        ("start, wrong secret", |town| Some(start(town, wrong(town)?))),
        ("start, superseded attempt", |town| Some(start(town, superseded(town)?))),
        ("progress", |town| Some(progress(right(town)))),
        ("progress, wrong secret", |town| Some(progress(wrong(town)?))),
        ("progress, superseded attempt", |town| Some(progress(superseded(town)?))),
    ];
    columns.extend(finish_columns());
    columns.extend(engine_columns());
    columns.extend(operator_columns());
    columns.extend(neighbour_columns());
    columns
}

fn finish_columns() -> Vec<(&'static str, Ask)> {
    vec![
        ("finish: complete", |town| Some(finish(town, right(town), complete()))),
        ("finish: complete, wrong secret", |town| Some(finish(town, wrong(town)?, complete()))),
        ("finish: complete, superseded attempt", |town| {
            Some(finish(town, superseded(town)?, complete()))
        }),
        ("finish: fail, transient", |town| {
            Some(finish(town, right(town), fail(ErrorClass::Transient)))
        }),
        ("finish: fail, permanent", |town| {
            Some(finish(town, right(town), fail(ErrorClass::Permanent)))
        }),
        ("finish: fail, superseded attempt", |town| {
            Some(finish(town, superseded(town)?, fail(ErrorClass::Transient)))
        }),
        ("finish: delegate, to be resumed", |town| {
            Some(finish(town, right(town), delegate(vec![delegated("x", &[])], true)))
        }),
        ("finish: delegate, to collect", |town| {
            Some(finish(town, right(town), delegate(vec![delegated("z", &[])], false)))
        }),
        ("finish: delegate, nothing", |town| {
            Some(finish(town, right(town), delegate(Vec::new(), true)))
        }),
        ("finish: delegate, superseded attempt", |town| {
            Some(finish(town, superseded(town)?, delegate(vec![delegated("z", &[])], true)))
        }),
        ("finish: cancelled by its host", |town| {
            Some(finish(town, right(town), Outcome::Cancelled))
        }),
        ("finish: cancelled, superseded attempt", |town| {
            Some(finish(town, superseded(town)?, Outcome::Cancelled))
        }),
        ("delegate", |town| Some(call(right(town)))),
        ("delegate, wrong secret", |town| Some(call(wrong(town)?))),
        ("delegate, superseded attempt", |town| Some(call(superseded(town)?))),
        ("reaped", |town| Some(reaped(right(town)))),
        ("reaped, wrong secret", |town| Some(reaped(wrong(town)?))),
        ("reaped, superseded attempt", |town| Some(reaped(superseded(town)?))),
    ]
}

fn engine_columns() -> Vec<(&'static str, Ask)> {
    vec![
        ("expand: input", |_| expand(Ok(Rendered::Input(text("1"))))),
        ("expand: skip", |_| {
            expand(Ok(Rendered::Skip { reason: "its condition is false".into() }))
        }),
        ("expand: items", |_| expand(Ok(Rendered::Items(vec![text("1"), text("2")])))),
        ("expand: no items", |_| expand(Ok(Rendered::Items(Vec::new())))),
        ("expand: output", |_| expand(Ok(Rendered::Output(text("1"))))),
        ("expand: error", |_| expand(Err(TaskError::new(ErrorClass::Template, "undefined")))),
        ("continue: propagate", |_| go_on(DutyKind::Propagate { after: None, parent: false })),
        ("continue: cancel_children", |_| go_on(DutyKind::CancelChildren { after: None })),
        ("continue: render", |_| go_on(DutyKind::Render)),
        ("continue: collect", |_| go_on(DutyKind::Collect)),
        ("tick, nothing due", |_| Some(Command::Tick { limit: 100, excused: Excused::Nobody })),
        ("tick, after a minute", |town| tick_after(town, 1)),
        ("tick, after the limit in the queue", |town| tick_after(town, 10)),
        ("tick, after the limit of an attempt", |town| tick_after(town, 20)),
        ("tick, after the whole limit", |town| tick_after(town, 60)),
        ("tick, after the lease", |town| {
            let short = Command::Renew { host: host(1), incarnation: life(1), lease_ms: 1 };
            town.act(short).unwrap();
            town.pass_ms(2);
            Some(Command::Tick { limit: 100, excused: Excused::Nobody })
        }),
        ("settle", |town| {
            Some(Command::Settle { letters: town.world.letters.keys().copied().collect() })
        }),
    ]
}

fn operator_columns() -> Vec<(&'static str, Ask)> {
    vec![
        ("resume", |_| Some(Command::Resume { task: task_id(SUBJECT) })),
        ("cancel", |_| Some(Command::Cancel { task: task_id(SUBJECT), reason: "enough".into() })),
        ("retry", |_| Some(Command::Retry { task: task_id(SUBJECT) })),
        ("requeue", |_| Some(Command::Requeue { task: task_id(SUBJECT) })),
        ("register, the same life", |_| register(1, &["a"])),
        ("register, a new life", |_| register(2, &["a"])),
        ("register, without the agent", |_| register(1, &[])),
        ("renew", |_| renew(1)),
        ("renew, another life", |_| renew(7)),
        ("drain", |_| Some(Command::Drain { agent: "a".into(), drained: true })),
        ("expire_agent", |_| {
            Some(Command::ExpireAgent { instance: instance(1), reason: "not heard of".into() })
        }),
    ]
}

/// The first child of the task in one of these states.
fn child_in(town: &Town, states: &[TaskState]) -> Option<TaskId> {
    let children = town.world.children.get(&task_id(SUBJECT))?;
    children.iter().copied().find(|id| states.contains(&town.world.task(*id).state))
}

/// The outcome of a neighbour that is open, which is assigned for it.
fn neighbour(town: &mut Town, id: Option<TaskId>, outcome: Outcome) -> Option<Command> {
    let id = id.filter(|id| town.world.tasks.contains_key(id))?;
    if town.world.task(id).state == TaskState::Ready {
        town.assign();
    }
    let task = town.world.task(id);
    task.state.holds_slot().then(|| town.report(id, town.attempt(id).id, outcome))
}

fn need_in(town: &Town, states: &[TaskState]) -> Option<TaskId> {
    let need = town.world.tasks.get(&task_id(NEED))?;
    states.contains(&need.state).then(|| need.id())
}

const OPEN: [TaskState; 2] = [TaskState::Ready, TaskState::Assigned];
const UNDONE: [TaskState; 2] = [TaskState::Failed, TaskState::Cancelled];

/// What happens to the tasks around it.
fn neighbour_columns() -> Vec<(&'static str, Ask)> {
    vec![
        ("its need: finish, complete", |town| {
            let need = need_in(town, &OPEN);
            neighbour(town, need, complete())
        }),
        ("its need: finish, fail", |town| {
            let need = need_in(town, &OPEN);
            neighbour(town, need, fail(ErrorClass::Permanent))
        }),
        ("its need: cancel", |town| {
            let task = need_in(town, &OPEN)?;
            Some(Command::Cancel { task, reason: "enough".into() })
        }),
        ("its need: requeue", |town| Some(Command::Requeue { task: need_in(town, &UNDONE)? })),
        ("its last child: finish, complete", |town| {
            let child = child_in(town, &OPEN);
            neighbour(town, child, complete())
        }),
        ("its last child: finish, fail", |town| {
            let child = child_in(town, &OPEN);
            neighbour(town, child, fail(ErrorClass::Permanent))
        }),
        ("its last child: cancel", |town| {
            let task = child_in(town, &OPEN)?;
            Some(Command::Cancel { task, reason: "enough".into() })
        }),
        ("its child: requeue", |town| Some(Command::Requeue { task: child_in(town, &UNDONE)? })),
        ("its parent: cancel", |town| {
            let task = town.task(SUBJECT).spec.parent?;
            Some(Command::Cancel { task, reason: "enough".into() })
        }),
    ]
}

/// The place of a command among its kind, for the check that no kind is left out.
fn command_place(command: &Command) -> usize {
    match command {
        Command::Submit(_) => 0,
        Command::Assign(_) => 1,
        Command::Start { .. } => 2,
        Command::Progress { .. } => 3,
        Command::Finish { .. } => 4,
        Command::Delegate { .. } => 5,
        Command::Reaped { .. } => 6,
        Command::Expand { .. } => 7,
        Command::Continue(_) => 8,
        Command::Resume { .. } => 9,
        Command::Cancel { .. } => 10,
        Command::Retry { .. } => 11,
        Command::Requeue { .. } => 12,
        Command::Tick { .. } => 13,
        Command::Register { .. } => 14,
        Command::Renew { .. } => 15,
        Command::Drain { .. } => 16,
        Command::ExpireAgent { .. } => 17,
        Command::Settle { .. } => 18,
        Command::State(_) => panic!("shared state has a table of its own, in decide_state.rs"),
    }
}
const COMMANDS: usize = 19;

fn outcome_place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Complete { .. } => 0,
        Outcome::Fail { .. } => 1,
        Outcome::Delegate { .. } => 2,
        Outcome::Cancelled => 3,
    }
}
const OUTCOMES: usize = 4;

fn rendered_place(rendered: &Result<Rendered, TaskError>) -> usize {
    match rendered {
        Ok(Rendered::Input(_)) => 0,
        Ok(Rendered::Skip { .. }) => 1,
        Ok(Rendered::Items(_)) => 2,
        Ok(Rendered::Output(_)) => 3,
        Err(_) => 4,
    }
}
const RENDERED: usize = 5;

fn duty_place(kind: DutyKind) -> usize {
    match kind {
        DutyKind::Propagate { .. } => 0,
        DutyKind::CancelChildren { .. } => 1,
        DutyKind::Render => 2,
        DutyKind::Collect => 3,
    }
}
const DUTIES: usize = 4;

// ---- cells ----------------------------------------------------------------------------------

/// A cell: the state after it, in bold where it changed; the answer; and what went into the log about whom.
struct Cell {
    before: TaskState,
    state: TaskState,
    text: String,
}

fn cell(build: Build, ask: Ask) -> Option<(Command, Cell)> {
    let mut town = build();
    let command = ask(&mut town)?;
    let before = town.state(SUBJECT);
    let events = town.world.events.len();
    let decision = town.act(command.clone());
    let state = town.state(SUBJECT);
    let shown = if state == before { state.to_string() } else { format!("**{state}**") };
    let facts = facts(&town, &town.world.events[events..]);
    let text = format!("{shown} · {}{facts}", answer(decision));
    Some((command, Cell { before, state, text }))
}

fn answer(decision: Result<Effects, Reject>) -> String {
    match decision {
        Ok(effects) => match effects.reply {
            Reply::Submitted { .. } => "submitted".into(),
            Reply::Existing { .. } => "existing".into(),
            Reply::Assigned(count) => format!("assigned {count}"),
            Reply::Done { changed: true } => "done".into(),
            Reply::Done { changed: false } => "nothing to do".into(),
            Reply::Accepted => "accepted".into(),
            Reply::Duplicate => "duplicate".into(),
            Reply::Late => "late".into(),
            Reply::Delegated(ids) => format!("delegated {}", ids.len()),
            reply @ (Reply::Stored { .. } | Reply::Locked { .. }) => format!("DEFECT: {reply:?}"),
        },
        Err(reject) => match reject {
            Reject::Unknown { what, .. } => format!("refused: unknown {what}"),
            Reject::Forbidden(_) => "refused: not its secret".into(),
            Reject::Illegal { hint, .. } => format!("refused{hint}"),
            Reject::Conflict(_) => "refused: conflict".into(),
            Reject::Cycle { .. } => "refused: cycle".into(),
            Reject::Invalid(why) => format!("refused: {why}"),
            Reject::Superseded(_) => "refused: another life, or its lease has ended".into(),
            Reject::NotLoaded(what) => format!("DEFECT: {what} was not loaded"),
            reject @ (Reject::StateConflict(_) | Reject::Held { .. } | Reject::Fenced(_)) => {
                format!("DEFECT: {reject}")
            }
        },
    }
}

/// What went into the log; about the task itself without its name.
fn facts(town: &Town, events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        let word = serde_json::to_value(&event.fact).expect("a fact is plain data");
        let word = word["event"].as_str().expect("a fact has a word").to_owned();
        let whose = match event.task {
            PROJECT_LOG => String::new(),
            id if id == task_id(SUBJECT) => String::new(),
            id => format!("{}: ", name(town, id)),
        };
        let detail = match &event.fact {
            Fact::LateOutcome { outcome, .. } => format!(" ({outcome})"),
            Fact::Failed { class, .. } | Fact::AttemptFailed { class, .. } => {
                format!(" ({})", class.as_str())
            }
            _ => String::new(),
        };
        let _ = write!(text, "{} {whose}{word}{detail}", if text.is_empty() { " ·" } else { "," });
    }
    text
}

fn name(town: &Town, id: TaskId) -> String {
    town.world.task(id).spec.name.to_string()
}

// ---- the files ------------------------------------------------------------------------------

type Moves = BTreeMap<(TaskState, TaskState), BTreeSet<String>>;

fn table() -> (String, Moves) {
    let mut text = String::from(INTRODUCTION);
    let mut moves = Moves::new();
    let mut seen = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for state in TaskState::ALL {
        let rows = rows(state);
        let _ = write!(text, "\n## {state}\n\n| command |");
        for (variant, build) in &rows {
            assert_eq!(build().state(SUBJECT), state, "{state}, {variant}");
            let _ = write!(text, " {variant} |");
        }
        let _ = write!(text, "\n|---|{}\n", "---|".repeat(rows.len()));
        for (column, ask) in columns() {
            let _ = write!(text, "| {column} |");
            for (_, build) in &rows {
                let Some((command, cell)) = cell(*build, ask) else {
                    text.push_str("  |");
                    continue;
                };
                note(&command, &mut seen);
                if cell.before != cell.state {
                    // A column about another task says so in its name: `its need: ..`.
                    let by = match column.split_once(": ") {
                        Some((whom, _)) if whom.starts_with("its ") => {
                            format!("{} of {whom}", command.name())
                        }
                        _ => command.name().to_owned(),
                    };
                    moves.entry((cell.before, cell.state)).or_default().insert(by);
                }
                let _ = write!(text, " {} |", cell.text);
            }
            text.push('\n');
        }
    }
    for (seen, all) in seen.iter().zip([COMMANDS, OUTCOMES, RENDERED, DUTIES]) {
        assert_eq!(*seen, (0..all).collect(), "a kind of command or outcome has no column");
    }
    (text, moves)
}

fn note(command: &Command, seen: &mut [BTreeSet<usize>; 4]) {
    seen[0].insert(command_place(command));
    match command {
        Command::Finish { response, .. } => {
            seen[1].insert(outcome_place(&response.outcome));
        }
        Command::Expand { rendered, .. } => {
            seen[2].insert(rendered_place(rendered));
        }
        Command::Continue(duty) => {
            seen[3].insert(duty_place(duty.kind));
        }
        _ => {}
    }
}

const INTRODUCTION: &str = "\
# Every command against every state

Written by `SEGUE_BLESS=1 cargo test -p segue-core --test decide_table`, and compared by that test otherwise.

A cell says in which state the task is afterwards (bold where that is another one), what the sender is told, and what went
into the log. `task` is part of the run `run`, in which `dependent` needs it; a task that is a group is a run of its own.
What cascades leave to a duty does not show here. An empty cell: there is no such attempt.
";

fn document(moves: &Moves) -> String {
    let mut text = String::from(STATES);
    text.push_str("\n```mermaid\nstateDiagram-v2\n");
    for state in [TaskState::Blocked, TaskState::Ready, TaskState::Waiting] {
        let _ = writeln!(text, "    [*] --> {state} : submit");
    }
    for ((from, to), words) in moves {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let _ = writeln!(text, "    {from} --> {to} : {}", words.join(", "));
    }
    for state in TaskState::ALL.into_iter().filter(|state| state.is_terminal()) {
        let _ = writeln!(text, "    {state} --> [*]");
    }
    text.push_str("```\n\n| from | to | by |\n|---|---|---|\n");
    for ((from, to), words) in moves {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        let _ = writeln!(text, "| {from} | {to} | {} |", words.join(", "));
    }
    text.push_str(RULES);
    text
}

const STATES: &str = "\
# The states of a task

Written by `SEGUE_BLESS=1 cargo test -p segue-core --test decide_table` from the table of every command against every state
(`crates/segue-core/tests/golden/states.md`), and compared by that test otherwise. The words stand for the variants of
`Command`; `continue` is a cascade that goes on, `expand` what the engine rendered. A command that is about one task may
move others, those that need it, its children and its parent: `finish of its need`, `cancel of its parent`.

| state | what it means |
|---|---|
| blocked | some of its needs have not ended, or its templates are not rendered yet |
| ready | it may be given to an agent |
| assigned | an agent instance holds a slot for it |
| running | the agent said that it began |
| waiting | it waits for its children, and holds no slot |
| retrying | its last attempt ended without a result, the next one is due later |
| completed | it has its output; for good |
| failed | a dead letter, until it is requeued |
| cancelled | cancelled or skipped, until it is requeued |
";

const RULES: &str = "
## What the table does not say

- A task is in `blocked` while `unmet` (open needs, plus one until its templates are rendered) is not zero. Needs that ended before
  the submit mean the same as those that end after it.
- A need that failed fails its dependents, skips them (`on_failure: skip`, and what needs the skipped ones too), or lets them
  go on (`continue`). A task whose own condition was false is no failure: what needs it goes on.
- The outcome of an attempt that was given up (its lease ended, it ran too long) still counts, until another attempt exists or
  the task has ended. After that it is `late`: what it brought is in the log, what it used in its record.
- A dead letter or a cancelled task takes its open children with it. A completed one leaves them: they were handed out and
  not waited for.
- `requeue` counts the attempts of a dead letter anew. What failed or was skipped on its account waits for it again, and a group
  that failed for it waits again. What failed on account of another task is refused: requeue that one. Of a group that is requeued
  the children come back that did not complete, so that a run that failed or was cancelled goes on where it stopped.
- A requeued task that had handed out work does its last step again if all of that completed; otherwise it begins anew, finds by
  their keys what its children have done, and has the rest done again.
";

fn check(path: PathBuf, now: &str) {
    if std::env::var_os("SEGUE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).unwrap();
        std::fs::write(&path, now).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (known, now)) in known.lines().zip(now.lines()).enumerate() {
        assert_eq!(known, now, "{}:{}", path.display(), line + 1);
    }
    let same = known == now;
    assert!(same, "{} is longer or shorter than it should be: set SEGUE_BLESS=1", path.display());
}

#[test]
fn every_command_against_every_state_is_as_written_and_as_drawn() {
    let (table, moves) = table();
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    check(crate_folder.join("tests/golden/states.md"), &table);
    check(crate_folder.join("../../docs/states.md"), &document(&moves));
}
