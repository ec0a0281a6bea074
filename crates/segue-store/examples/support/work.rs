//! What the measurements of the stores share: agents that do nothing, tasks for them, and what they report.
#![allow(dead_code, reason = "each measurement uses a part of this")]

use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::command::{Candidate, Command, NewTask, Proof, Submit};
use segue_core::ids::{HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{Letter, LetterBody, TaskRequest, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Decision, Fut, StoreError};
use segue_core::state::OutcomeState;
use segue_core::task::{Route, TaskSpec};
use segue_core::time::Time;
use segue_store::postgres::LargeBodies;
use std::sync::Arc;
use uuid::Uuid;

pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// No body here is large.
pub struct NoBlobs;

impl LargeBodies for NoBlobs {}

impl Blobs for NoBlobs {
    fn put(&self, _: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::Io("no bodies are kept here".into()))))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::MissingPayload(hash.hex()))))
    }
}

/// The argument at this place, a number, or what it is where there is none.
pub fn number(args: &[String], at: usize, default: usize) -> Result<usize, Failed> {
    Ok(args.get(at).map_or(Ok(default), |text| text.parse())?)
}

/// A payload of 200 bytes.
pub fn payload(of: &str) -> Payload {
    Payload::of_text(format!("\"{}\"", of.repeat(198))).unwrap_or_else(|_| Payload::null())
}

/// An agent that does nothing.
pub fn agent(name: &str, capabilities: &[String], slots: usize) -> AgentSpec {
    let able = |name: &String| Capability { name: name.as_str().into(), ..Capability::default() };
    AgentSpec {
        instance: InstanceId(Uuid::now_v7()),
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "does nothing".into(),
        capabilities: capabilities.iter().map(able).collect(),
        max_concurrency: u32::try_from(slots).unwrap_or(u32::MAX),
        delegates: false,
    }
}

/// Registers agents as one host.
pub fn register(agents: Vec<AgentSpec>) -> Command {
    Command::Register {
        host: HostId(Uuid::now_v7()),
        incarnation: Incarnation(Uuid::now_v7()),
        agents,
        lease_ms: 3_600_000,
    }
}

/// The same agents as those who may have work, all of them well.
pub fn fit(agents: &[AgentSpec]) -> Vec<Candidate> {
    let fit = |agent: &AgentSpec| Candidate { instance: agent.instance, health: 1.0, load: 0.0 };
    agents.iter().map(fit).collect()
}

/// Submits a task.
pub fn submit(route: Route, input: Payload) -> Command {
    let spec = TaskSpec::new(TaskId(Uuid::now_v7()), "bench", route);
    Command::Submit(Submit { tasks: vec![NewTask { spec, input }] })
}

/// Begins all the work in these letters.
pub fn starts(letters: &[Letter], at: Time) -> impl Iterator<Item = Command> {
    letters.iter().filter_map(work).map(move |(task, request)| {
        let proof = Proof { task, attempt: request.attempt, secret: request.secret.clone() };
        Command::Start { proof, at, process: None }
    })
}

/// Ends all the work in these letters with this output.
pub fn finishes(letters: &[Letter], output: &Payload) -> impl Iterator<Item = Command> {
    letters.iter().filter_map(work).map(move |(task, request)| {
        let response = TaskResponse {
            attempt: request.attempt,
            secret: request.secret.clone(),
            started_at: None,
            process: None,
            outcome: Outcome::Complete { output: output.clone() },
            state: OutcomeState::default(),
            usage: None,
            ended: Vec::new(),
        };
        Command::Finish { task, response: Box::new(response) }
    })
}

/// Notes that all these letters were published.
pub fn settle(letters: &[Letter]) -> Command {
    Command::Settle { letters: letters.iter().map(|letter| letter.seq).collect() }
}

/// One step of an engine in its steady state, for three batches: finishes the one that was begun, begins and settles the one that was given out,
/// and submits `new`.
pub fn step(
    started: &[Letter],
    given: &[Letter],
    new: impl Iterator<Item = Command>,
    (at, output): (Time, &Payload),
) -> Vec<Command> {
    let mut commands: Vec<Command> = finishes(started, output).collect();
    commands.extend(starts(given, at));
    commands.push(settle(given));
    commands.extend(new);
    commands
}

/// The letters of commands that were all accepted.
pub fn accepted(decisions: Vec<Decision>) -> Result<Vec<Letter>, Failed> {
    let mut letters = Vec::new();
    for decision in decisions {
        letters.extend(decision?.letters);
    }
    Ok(letters)
}

/// The work in a letter.
fn work(letter: &Letter) -> Option<(TaskId, &TaskRequest)> {
    match &letter.body {
        LetterBody::TaskRequest(request) => Some((letter.task?, request)),
        LetterBody::TaskResponse(_)
        | LetterBody::Event(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => None,
    }
}

/// `Arc`'d names are what routes hold.
pub fn named(name: &str) -> Route {
    Route::Agent(Arc::from(name))
}
