//! Letters to send about: a plain one by number, and one of every kind with every field set.

use segue_core::agent::{AgentKind, Capability};
use segue_core::ids::{AttemptId, Incarnation, InstanceId, ProjectId, TaskId};
use segue_core::letter::{
    Address, ChildResult, EndedProcess, Letter, LetterBody, Notice, Resume, Secret, TaskRequest,
    TaskResponse, TeamMember, WIRE_VERSION,
};
use segue_core::outcome::{Delegated, Outcome};
use segue_core::payload::{Hash, Payload};
use segue_core::retry::RetryPolicy;
use segue_core::state::{Expect, GivenState, GivenValue, KeyPut, OutcomeState, Policy};
use segue_core::task::{
    ErrorClass, OnFailure, Priority, ProcessRef, Route, TaskError, TaskState, Timeouts, Usage,
    WorkspaceKind,
};
use segue_core::time::Time;
use segue_core::worker::{Sealed, Stamp, TokenMaker, Way, host_of};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// A small letter that is known by its number.
pub fn letter(to: &Address, n: u64) -> Letter {
    letter_with(to, n, LetterBody::Query { payload: payload(&json!({ "n": n })) })
}

pub(super) fn letter_with(to: &Address, n: u64, body: LetterBody) -> Letter {
    Letter {
        seq: n,
        version: WIRE_VERSION,
        from: "segue".into(),
        to: to.clone(),
        task: None,
        reply_to: None,
        correlation: None,
        causation: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
        hops: 0,
        at: Time(1_700_000_000_000),
        body,
    }
}

pub(super) fn payload(value: &Value) -> Payload {
    Payload::of(value).expect("a small payload")
}

/// A letter of every kind, with everything in it that a letter can have.
pub fn one_of_each(to: &Address) -> Vec<Letter> {
    let notices = notices().into_iter().map(LetterBody::Event);
    let query = LetterBody::Query { payload: payload(&json!({ "ask": "why?\u{0}\u{1F600}" })) };
    let request = LetterBody::TaskRequest(Box::new(request()));
    let responses =
        outcomes().into_iter().map(|outcome| LetterBody::TaskResponse(Box::new(response(outcome))));
    let bodies = notices.chain([query, request]).chain(responses).chain([sealed()]);
    bodies
        .zip(1..)
        .map(|(body, n)| Letter {
            from: "écrivain".into(),
            task: Some(task(n)),
            reply_to: Some(Address::Reply(Uuid::from_u128(u128::MAX - u128::from(n)))),
            correlation: Some(u128::MAX),
            causation: Some(u128::from(n)),
            hops: u16::MAX,
            at: Time(-1),
            ..letter_with(to, n, body)
        })
        .collect()
}

/// What a worker says, signed.
fn sealed() -> LetterBody {
    let maker = TokenMaker::new(ProjectId(Uuid::from_u128(8)), [9; 32]);
    let host = host_of(maker.project(), "red");
    let incarnation = Incarnation(Uuid::from_u128(10));
    let stamp = Stamp { host, incarnation, number: u64::MAX, at: Time(-1) };
    let (token, said) = (maker.token(host), "{\"say\": \"grüß dich\\n\"}".to_owned());
    let sealed = Sealed::seal(&token, maker.project(), Way::ToEngine, stamp, said);
    LetterBody::Host(Box::new(sealed))
}

fn task(n: u64) -> TaskId {
    TaskId(Uuid::from_u128(u128::from(n)))
}

fn attempt() -> AttemptId {
    AttemptId(Uuid::from_u128(42))
}

fn secret() -> Secret {
    Secret(std::array::from_fn(|i| i as u8 * 8))
}

fn process() -> ProcessRef {
    ProcessRef { pid: 4_242, start_time: u64::MAX }
}

fn ended() -> Vec<EndedProcess> {
    vec![
        EndedProcess { process: process(), name: "git \"log\"".into(), signal: Some(9) },
        EndedProcess { process: process(), name: String::new(), signal: None },
    ]
}

fn error() -> TaskError {
    TaskError::new(ErrorClass::InvalidOutput, "line one\nline `two`")
}

fn notices() -> [Notice; 4] {
    [
        Notice::Started {
            attempt: attempt(),
            secret: secret(),
            at: Time(i64::MAX),
            process: Some(process()),
        },
        Notice::Progress {
            attempt: attempt(),
            secret: secret(),
            note: payload(&json!({ "done": 0.5, "of": null })),
        },
        Notice::Cancel { attempt: attempt(), reason: "nobody needs it".into() },
        Notice::Reaped { attempt: attempt(), secret: secret(), ended: ended() },
    ]
}

fn request() -> TaskRequest {
    let capability = Capability {
        name: "count".into(),
        description: "counts".into(),
        input_schema: Some(Arc::new(json!({ "type": "object" }))),
        output_schema: Some(Arc::new(json!(true))),
        required_tools: vec!["git".into()],
        cost_usd: 0.25,
        duration_s: 1.5,
    };
    TaskRequest {
        attempt: attempt(),
        number: 3,
        secret: secret(),
        instance: InstanceId(Uuid::from_u128(5)),
        incarnation: Incarnation(Uuid::from_u128(6)),
        run: task(1),
        name: "count lines".into(),
        capability: Some("count".into()),
        input: Payload::Stored { hash: Hash::of(b"far away"), size: 1 << 40 },
        run_ms: Some(u64::MAX),
        workspace: Some(WorkspaceKind::Worktree),
        resume: Some(Resume {
            continuation: Some(payload(&json!({ "body": { "hash": "not one" } }))),
            children: vec![
                child(TaskState::Completed, Some(payload(&json!([1, 2, 3]))), None),
                child(TaskState::Failed, None, Some(error())),
            ],
        }),
        state: Some(Box::new(GivenState {
            keys: vec!["plan/*".into()],
            values: vec![GivenValue {
                key: "plan/api".into(),
                version: u64::MAX,
                value: payload(&json!({ "steps": [1.0] })),
            }],
            more: true,
        })),
        team: vec![TeamMember {
            name: "counter".into(),
            kind: AgentKind::Command,
            description: "counts things".into(),
            capabilities: Arc::from([capability]),
            available: 2,
        }],
    }
}

fn child(state: TaskState, output: Option<Payload>, error: Option<TaskError>) -> ChildResult {
    ChildResult {
        id: task(9),
        key: Some("a".into()),
        name: "child".into(),
        route: Route::Capability("count".into()),
        state,
        output,
        error,
    }
}

fn response(outcome: Outcome) -> TaskResponse {
    TaskResponse {
        attempt: attempt(),
        secret: secret(),
        started_at: Some(Time(7)),
        process: Some(process()),
        outcome,
        state: OutcomeState { put: puts() },
        usage: Some(Usage { output_tokens: 9, cost_usd: Some(0.5), ..Usage::default() }),
        ended: ended(),
    }
}

fn puts() -> Vec<KeyPut> {
    let put = |key: &str, expect, policy| KeyPut {
        key: key.into(),
        value: payload(&json!({ "body": { "hash": "not one" } })),
        expect,
        policy,
    };
    vec![
        put("plan/api", Expect::Version(u64::MAX), Some(Policy::Merge)),
        put("plan/new", Expect::Absent, None),
        put("done", Expect::Anything, Some(Policy::LastWriter)),
    ]
}

fn outcomes() -> [Outcome; 4] {
    let delegated = Delegated {
        key: "part".into(),
        name: Some("a part".into()),
        route: Route::Agent("counter".into()),
        input: payload(&json!("{{ not a template }}")),
        needs: vec!["other".into()],
        priority: Some(Priority::MEDIUM),
        on_failure: OnFailure::default(),
        retry: RetryPolicy::default(),
        timeouts: Timeouts::default(),
        workspace: Some(WorkspaceKind::Worktree),
        template: true,
        state_keys: vec!["plan/*".into()],
    };
    [
        Outcome::Complete { output: payload(&json!({ "lines": 12 })) },
        Outcome::Fail { error: error(), retry_after_ms: Some(60_000) },
        Outcome::Delegate {
            tasks: vec![delegated],
            resume: true,
            continuation: Some(payload(&json!({ "left": 1 }))),
        },
        Outcome::Cancelled,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a bus that writes letters as JSON relies on.
    #[test]
    fn every_kind_of_letter_comes_back_whole_from_json() {
        for letter in one_of_each(&Address::Engine) {
            let text = serde_json::to_string(&letter).unwrap();
            assert_eq!(serde_json::from_str::<Letter>(&text).unwrap(), letter, "{text}");
        }
    }
}
