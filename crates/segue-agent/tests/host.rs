//! A host between an in-process bus and a scripted runner: from the letter that brings work to the letter that reports it. Time is paused, so
//! that "nothing comes" is a fact as soon as everybody waits.

mod stage;

use segue_agent::host::BACKLOG_MAX;
use segue_agent::runner::{End, Ran};
use segue_core::ids::{AttemptId, HostId, Incarnation};
use segue_core::letter::{Address, EndedProcess, Letter, LetterBody, Notice, Resume, WIRE_VERSION};
use segue_core::outcome::Outcome;
use segue_core::payload::{DATABASE_MAX, Hash, Payload};
use segue_core::ports::{Blobs, OwnHost, WorkBus};
use segue_core::task::{ErrorClass, ProcessRef, TaskError, Usage};
use segue_core::time::Time;
use serde_json::json;
use stage::{Stage, agent, capable, child, complete, delegated, payload};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

mod work {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_letter_is_accepted_run_and_reported() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let (task, request) = stage.request();
        let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok();
        let letter = Letter { hops: 3, traceparent: span, ..stage.letter(task, request.clone()) };
        stage.publish(vec![letter]).await;

        let play = stage.play().await;
        assert!(span.is_some() && play.job.traceparent == span);
        assert_eq!((play.job.task, play.job.run), (task, request.run));
        assert_eq!((&*play.job.name, play.job.number), ("count the lines", 2));
        assert_eq!(play.job.attempt, request.attempt.to_string());
        assert_eq!((&*play.job.input, play.job.run_ms), ("{\"path\":\".\"}", Some(60_000)));
        assert!(play.job.resume.is_none() && play.job.team.is_empty());
        assert_eq!(stage.host.running(), 1);
        stage.clock.set(1_030);
        let process = Some(ProcessRef { pid: 7, start_time: 70 });
        let usage = Some(Usage { output_tokens: 5, ..Usage::default() });
        let ended = EndedProcess {
            process: ProcessRef { pid: 8, start_time: 80 },
            name: "awk".into(),
            signal: None,
        };
        let end = End::Complete("{\"lines\":12}".into());
        play.end(Ran {
            usage: usage.clone(),
            process,
            ended: vec![ended.clone()],
            ..Ran::plain(end)
        });

        let report = stage.report().await;
        assert_eq!(
            (report.task, report.version, report.at),
            (Some(task), WIRE_VERSION, Time(1_030))
        );
        assert_eq!((&*report.from, report.hops), ("counter", 3));
        assert_eq!(report.traceparent, span, "it is handed on");
        assert_eq!(report.causation, Some(request.attempt.0.as_u128()));
        assert_eq!(report.correlation, Some(request.attempt.0.as_u128()));
        let response = stage::response(report);
        assert_eq!((response.attempt, &response.secret), (request.attempt, &request.secret));
        assert_eq!((response.started_at, response.process), (Some(Time(1_000)), process));
        assert_eq!((response.usage, response.ended), (usage, vec![ended]));
        assert_eq!(response.outcome, Outcome::Complete { output: payload(json!({ "lines": 12 })) });
        stage.host.idle().await;
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_letter_that_comes_twice_runs_once() {
        let mut stage = Stage::new(agent("counter", 4)).await;
        let (task, request) = stage.request();
        let letter = stage.letter(task, request);
        stage.publish(vec![letter.clone(), letter.clone()]).await;
        let play = stage.play().await;
        stage.publish(vec![letter.clone()]).await;
        play.end(complete("1"));
        stage.report().await;
        // Also when it comes again after the end.
        stage.publish(vec![letter]).await;
        stage.nothing_more().await;
        assert!(stage.bus.dead_letters().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn work_for_another_life_of_the_host_is_dropped() {
        let mut stage = Stage::new(agent("counter", 4)).await;
        let (task, mut request) = stage.request();
        request.incarnation = Incarnation(Uuid::from_u128(999));
        let stale = stage.letter(task, request);
        stage.publish(vec![stale]).await;
        stage.nothing_more().await;
        assert!(stage.bus.dead_letters().is_empty());
        assert_eq!(stage.host.running(), 0);
        // It was acknowledged: the next life does not get it either.
        stage.host.stop().await;
        stage.no_letter_is_left().await;
    }

    #[tokio::test(start_paused = true)]
    async fn letters_that_are_none_of_a_hosts_are_dead_letters_alone() {
        let mut stage = Stage::new(agent("counter", 4)).await;
        let (task, request) = stage.request();
        let good = stage.letter(task, request);
        let of_the_future = Letter { version: WIRE_VERSION + 1, ..stage.fresh_letter() };
        let about_nothing = Letter { task: None, ..stage.fresh_letter() };
        let query = LetterBody::Query { payload: Payload::null() };
        let a_query = Letter { body: query, ..stage.fresh_letter() };
        let attempt = AttemptId(Uuid::from_u128(1));
        let secret = segue_core::letter::Secret([0; 32]);
        let notice = Notice::Reaped { attempt, secret, ended: Vec::new() };
        let a_notice = Letter { body: LetterBody::Event(notice), ..stage.fresh_letter() };
        stage.publish(vec![of_the_future, about_nothing, a_query, a_notice, good]).await;
        stage.play().await.end(complete("1"));
        stage.report().await;
        stage.nothing_more().await;
        let reasons: Vec<_> = stage.bus.dead_letters().into_iter().map(|d| d.reason).collect();
        let none_of_ours = "a host takes work and cancellations only";
        assert_eq!(
            reasons,
            [
                "wire version 2 is unknown; this host speaks 1",
                "the letter names no task",
                none_of_ours,
                none_of_ours
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_own_engine_hands_over_is_as_what_comes_by_the_bus() {
        let mut stage = Stage::new(agent("counter", 4)).await;
        let (task, request) = stage.request();
        let attempt = request.attempt;
        let good = stage.letter(task, request);
        let elsewhere = HostId(Uuid::from_u128(55));
        let for_another = Letter { to: Address::Host(elsewhere), ..stage.fresh_letter() };
        let of_the_future = Letter { version: WIRE_VERSION + 1, ..stage.fresh_letter() };
        let about_nothing = Letter { task: None, ..stage.fresh_letter() };
        let others = vec![for_another, of_the_future, about_nothing];
        let mut all = others.clone();
        all.insert(1, good.clone());
        assert_eq!(stage.host.clone().take(all), others, "the bus has to refuse them");

        let mut play = stage.play().await;
        // By both ways it is still one attempt.
        stage.publish(vec![good.clone()]).await;
        assert_eq!(stage.host.clone().take(vec![good]), []);
        let cancel = Notice::Cancel { attempt, reason: "no need".into() };
        let cancel = Letter { body: LetterBody::Event(cancel), ..stage.fresh_letter() };
        assert_eq!(stage.host.clone().take(vec![cancel]), []);
        assert_eq!(play.job.control.cancelled().await, "no need");
        play.end(Ran::plain(End::Cancelled));
        assert_eq!(stage::response(stage.report().await).outcome, Outcome::Cancelled);
        stage.nothing_more().await;

        // A host that stops leaves them for its next life.
        stage.host.stop().await;
        let late = vec![stage.fresh_letter()];
        assert_eq!(stage.host.clone().take(late.clone()), late);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_removed_finishes_what_runs_and_gets_no_more() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        let play = stage.play().await;
        stage.set_agents(vec![]);
        stage.publish_fresh().await;
        let gone = stage::response(stage.report().await);
        let Outcome::Fail { error, .. } = gone.outcome else { panic!("{:?}", gone.outcome) };
        assert_eq!(error.class, ErrorClass::Transient);
        assert_eq!(error.message, "its host no longer has this agent");
        assert_eq!(gone.started_at, None);
        play.end(complete("1"));
        let kept = stage::response(stage.report().await);
        assert_eq!(kept.outcome, Outcome::Complete { output: payload(json!(1)) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_panics_fails_its_attempt_and_nothing_else() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        stage.play().await.panic("a bug");
        let response = stage::response(stage.report().await);
        let Outcome::Fail { error, .. } = response.outcome else {
            panic!("{:?}", response.outcome)
        };
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("a bug"), "{}", error.message);
        stage.host.idle().await;
        // The slot is free again.
        stage.publish_fresh().await;
        stage.play().await.end(complete("1"));
        stage.report().await;
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_never_exceeded_even_while_a_cancelled_runner_is_still_ending() {
        let mut stage = Stage::new(agent("counter", 2)).await;
        let mut attempts = Vec::new();
        for _ in 0..4 {
            attempts.push(stage.publish_fresh().await);
        }
        let (first, second) = (stage.play().await, stage.play().await);
        stage.nobody_plays().await;
        // The store gave the slot away, but the process is not dead yet.
        stage.cancel(attempts[0], "superseded").await;
        stage.nobody_plays().await;
        first.end(Ran::plain(End::Cancelled));
        assert_eq!(stage::response(stage.report().await).outcome, Outcome::Cancelled);
        let third = stage.play().await;
        stage.nobody_plays().await;
        second.end(complete("2"));
        let fourth = stage.play().await;
        third.end(complete("3"));
        fourth.end(complete("4"));
        stage.host.idle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_held_while_an_agent_changes_goes_and_comes_back() {
        let one = agent("counter", 1);
        let mut stage = Stage::new(one.clone()).await;
        stage.publish_fresh().await;
        stage.publish_fresh().await;
        let first = stage.play().await;
        stage.nobody_plays().await;
        // One slot more: one attempt more, not two.
        let mut two = one.clone();
        two.max_concurrency = 2;
        stage.set_agents(vec![two]);
        stage.publish_fresh().await;
        let second = stage.play().await;
        stage.nobody_plays().await;
        // Gone and back with one slot, while two attempts of before still run.
        stage.set_agents(vec![]);
        stage.set_agents(vec![one]);
        stage.publish_fresh().await;
        stage.nobody_plays().await;
        first.end(complete("1"));
        stage.nobody_plays().await;
        second.end(complete("2"));
        let third = stage.play().await;
        stage.nobody_plays().await;
        third.end(complete("3"));
        let fourth = stage.play().await;
        fourth.end(complete("4"));
        stage.host.idle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_input_that_lies_in_the_blob_store_is_at_hand() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let large = format!("\"{}\"", "x".repeat(DATABASE_MAX));
        let stored = stage.blobs.put(large.clone().into_bytes()).await.unwrap();
        let (task, mut request) = stage.request();
        request.input = stored.clone();
        request.resume = Some(Resume {
            continuation: Some(stored.clone()),
            children: vec![child(Some(stored)), child(Some(payload(json!(3)))), child(None)],
        });
        let letter = stage.letter(task, request);
        stage.publish(vec![letter]).await;
        let play = stage.play().await;
        assert_eq!(*play.job.input, *large);
        let resume = play.job.resume.as_ref().unwrap();
        assert_eq!(resume.continuation.as_ref().unwrap().text(), Some(&*large));
        let outputs: Vec<_> =
            resume.children.iter().map(|child| child.output.as_ref()?.text()).collect();
        assert_eq!(outputs, [Some(&*large), Some("3"), None]);
        play.end(complete("1"));
        stage.report().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_input_that_cannot_be_read_fails_the_attempt() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let not_text = stage.blobs.put(vec![0xff, 0xfe]).await.unwrap();
        let missing = Payload::Stored { hash: Hash::of(b"nowhere"), size: 7 };
        for (input, word) in [(not_text, "not UTF-8"), (missing, "missing")] {
            let (task, mut request) = stage.request();
            request.input = input;
            let letter = stage.letter(task, request);
            stage.publish(vec![letter]).await;
            let response = stage::response(stage.report().await);
            let Outcome::Fail { error, .. } = response.outcome else { panic!("it cannot run") };
            assert_eq!(error.class, ErrorClass::Transient);
            assert!(error.message.contains(word), "{}", error.message);
        }
        stage.nobody_plays().await;
    }
}

mod cancelling {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn before_it_has_a_slot_it_never_runs_and_says_so_at_once() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        let busy = stage.play().await;
        let waiting = stage.publish_fresh().await;
        stage.cancel(waiting, "not needed").await;
        let response = stage::response(stage.report().await);
        assert_eq!((response.attempt, response.outcome), (waiting, Outcome::Cancelled));
        assert_eq!(response.started_at, None);
        busy.end(complete("1"));
        stage.report().await;
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_runs_the_runner_hears_why() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        let mut play = stage.play().await;
        stage.cancel(attempt, "somebody pressed Ctrl-C").await;
        assert_eq!(play.job.control.cancelled().await, "somebody pressed Ctrl-C");
        let ended = EndedProcess {
            process: ProcessRef { pid: 8, start_time: 80 },
            name: "claude".into(),
            signal: Some(15),
        };
        play.end(Ran { ended: vec![ended.clone()], ..Ran::plain(End::Cancelled) });
        let response = stage::response(stage.report().await);
        assert_eq!((response.outcome, response.ended), (Outcome::Cancelled, vec![ended]));
        assert_eq!(response.started_at, Some(Time(1_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_finishes_all_the_same_reports_its_result() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        let play = stage.play().await;
        stage.cancel(attempt, "too late").await;
        play.end(complete("7"));
        let response = stage::response(stage.report().await);
        assert_eq!(response.outcome, Outcome::Complete { output: payload(json!(7)) });
    }

    #[tokio::test(start_paused = true)]
    async fn after_it_has_ended_nothing_happens() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        stage.play().await.end(complete("1"));
        stage.report().await;
        stage.cancel(attempt, "too late").await;
        stage.nothing_more().await;
        assert!(stage.bus.dead_letters().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancellation_that_overtakes_its_work_keeps_it_from_beginning() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let (task, request) = stage.request();
        stage.cancel(request.attempt, "not needed any more").await;
        let letter = stage.letter(task, request);
        stage.publish(vec![letter]).await;
        stage.nothing_more().await;
        assert_eq!(stage.host.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn cancel_all_ends_what_runs_and_what_waits() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let running = stage.publish_fresh().await;
        let mut play = stage.play().await;
        let waiting = stage.publish_fresh().await;
        stage.nobody_plays().await;
        assert_eq!(stage.host.running(), 2);
        let host = stage.host.clone();
        let all = tokio::spawn(async move { host.cancel_all("the node stops").await });
        assert_eq!(play.job.control.cancelled().await, "the node stops");
        let first = stage::response(stage.report().await);
        assert_eq!((first.attempt, first.outcome), (waiting, Outcome::Cancelled));
        assert!(!all.is_finished(), "something still runs");
        play.end(Ran::plain(End::Cancelled));
        all.await.unwrap();
        let second = stage::response(stage.report().await);
        assert_eq!((second.attempt, second.outcome), (running, Outcome::Cancelled));
        assert_eq!(stage.host.running(), 0);
    }
}

mod notices {
    use super::*;

    /// The notice in a report, with the attempt that it is about.
    fn notice(letter: Letter) -> Notice {
        match letter.body {
            LetterBody::Event(notice) => notice,
            other => panic!("{other:?} is no notice"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_of_50_ms_is_reported_once_a_longer_one_twice() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        let play = stage.play().await;
        tokio::time::advance(millis(49)).await;
        play.end(complete("1"));
        stage::response(stage.report().await);
        stage.nothing_more().await;

        let attempt = stage.publish_fresh().await;
        let play = stage.play().await;
        let process = Some(ProcessRef { pid: 7, start_time: 70 });
        play.job.control.started(process);
        tokio::time::advance(millis(51)).await;
        stage.clock.set(1_051);
        let letter = stage.report().await;
        assert_eq!(letter.at, Time(1_051));
        let Notice::Started { attempt: of, at, process: told, .. } = notice(letter) else {
            panic!("it began");
        };
        assert_eq!((of, at, told), (attempt, Time(1_000), process));
        // Once is enough.
        stage.nothing_more().await;
        play.end(complete("1"));
        stage::response(stage.report().await);
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_slot_is_not_running() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        let busy = stage.play().await;
        let waiting = stage.publish_fresh().await;
        assert!(matches!(notice(stage.report().await), Notice::Started { .. }));
        stage.nothing_more().await;
        stage.clock.set(5_000);
        busy.end(complete("1"));
        stage::response(stage.report().await);
        let play = stage.play().await;
        let Notice::Started { attempt, at, .. } = notice(stage.report().await) else {
            panic!("it began");
        };
        assert_eq!((attempt, at), (waiting, Time(5_000)));
        play.end(complete("1"));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_passed_on_in_order_and_before_the_outcome() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        let play = stage.play().await;
        play.job.control.progress(&json!({ "done": 1 }));
        play.job.control.progress(&json!("x".repeat(DATABASE_MAX)));
        play.job.control.progress(&json!({ "done": 2 }));
        let mut notes = Vec::new();
        for _ in 0..2 {
            let Notice::Progress { attempt: of, note, .. } = notice(stage.report().await) else {
                panic!("it says how far it is");
            };
            assert_eq!(of, attempt);
            notes.push(note.text().unwrap().to_owned());
        }
        // What is too large for a row is left out: progress is for people.
        assert_eq!(notes, ["{\"done\":1}", "{\"done\":2}"]);
        // The last word, said as it ends, is not lost.
        play.job.control.progress(&json!("done"));
        play.end(complete("1"));
        assert!(matches!(notice(stage.report().await), Notice::Progress { .. }));
        stage::response(stage.report().await);
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn progress_of_an_attempt_that_ends_at_once_is_passed_on() {
        let talker = Arc::new(stage::Talker);
        let mut stage = Stage::with_runner(agent("talker", 1), talker).await;
        stage.publish_fresh().await;
        assert!(matches!(notice(stage.report().await), Notice::Progress { .. }));
        stage::response(stage.report().await);
    }
}

mod outcomes {
    use super::*;

    /// The error of an attempt at `count` that ends with this output.
    async fn refused(stage: &mut Stage, output: impl Into<String>) -> TaskError {
        match finished(stage, Some("count"), output).await {
            Outcome::Fail { error, .. } => error,
            other => panic!("{other:?} is no failure"),
        }
    }

    async fn finished(
        stage: &mut Stage,
        capability: Option<&str>,
        output: impl Into<String>,
    ) -> Outcome {
        let (task, mut request) = stage.request();
        request.capability = capability.map(Into::into);
        let letter = stage.letter(task, request);
        stage.publish(vec![letter]).await;
        stage.play().await.end(Ran::plain(End::Complete(output.into())));
        stage::response(stage.report().await).outcome
    }

    fn counts() -> segue_core::agent::AgentSpec {
        let schema = json!({
            "type": "object",
            "properties": {
                "lines": { "type": "integer", "minimum": 0 },
                "text": { "type": "string" }
            },
            "required": ["lines"],
            "additionalProperties": false
        });
        capable(agent("counter", 1), &[("count", Some(schema))])
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_is_what_its_capability_promises_or_a_failure_that_says_why() {
        let mut stage = Stage::new(counts()).await;
        let good = finished(&mut stage, Some("count"), " {\"lines\": 3} ").await;
        let Outcome::Complete { output } = good else { panic!("{good:?}") };
        assert_eq!(output.text().unwrap().trim(), "{\"lines\": 3}");

        let error = refused(&mut stage, "{\"lines\": -1}").await;
        assert_eq!(error.class, ErrorClass::InvalidOutput);
        assert!(
            error.message.contains("`count`") && error.message.contains("at `/lines`"),
            "{}",
            error.message
        );
        let error = refused(&mut stage, "{\"words\": 1}").await;
        assert!(
            error.message.contains("lines") && error.message.contains("words"),
            "{}",
            error.message
        );
        let error = refused(&mut stage, "Here are the lines: 3").await;
        assert_eq!(error.class, ErrorClass::InvalidOutput);
        assert!(error.message.contains("no JSON"), "{}", error.message);
        let error = refused(&mut stage, "").await;
        assert_eq!(error.class, ErrorClass::InvalidOutput);
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_without_a_schema_still_has_to_be_json() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        for text in ["not JSON".to_owned(), "x".repeat(DATABASE_MAX + 1)] {
            let outcome = finished(&mut stage, None, text).await;
            let Outcome::Fail { error, .. } = outcome else { panic!("it is no JSON") };
            assert_eq!(error.class, ErrorClass::InvalidOutput);
            assert!(error.message.contains("not a JSON text"), "{}", error.message);
        }
        assert_eq!(stage.blobs.len(), 0, "what is refused is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_huge_output_goes_to_the_blob_store() {
        let mut stage = Stage::new(counts()).await;
        let text = format!("{{\"lines\":1,\"text\":\"{}\"}}", "x".repeat(DATABASE_MAX));
        let outcome = finished(&mut stage, Some("count"), text.clone()).await;
        let Outcome::Complete { output: Payload::Stored { hash, size } } = outcome else {
            panic!("it is kept by reference")
        };
        assert_eq!((hash, size), (Hash::of(text.as_bytes()), text.len() as u64));
        assert_eq!(stage.blobs.get(hash).await.unwrap(), text.as_bytes());

        // Size is no way around the schema.
        let wrong = format!("{{\"text\":\"{}\"}}", "x".repeat(DATABASE_MAX));
        let error = refused(&mut stage, wrong).await;
        assert_eq!(error.class, ErrorClass::InvalidOutput);
        assert_eq!(stage.blobs.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_that_cannot_be_kept_may_go_well_the_next_time() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.blobs.fill_the_disk();
        let text = format!("\"{}\"", "x".repeat(DATABASE_MAX));
        let outcome = finished(&mut stage, None, text).await;
        let Outcome::Fail { error, .. } = outcome else { panic!("there is no room") };
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("disk is full"), "{}", error.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schema_that_is_none_is_the_agents_mistake() {
        let broken = json!({ "type": 12 });
        let spec = capable(agent("counter", 1), &[("count", Some(broken)), ("other", None)]);
        let mut stage = Stage::new(spec).await;
        let error = refused(&mut stage, "{}").await;
        assert_eq!(error.class, ErrorClass::Permanent);
        assert!(error.message.contains("`count`"), "{}", error.message);
        // Its other capability promises nothing.
        let outcome = finished(&mut stage, Some("other"), "{}").await;
        assert!(matches!(outcome, Outcome::Complete { .. }), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_passed_on_as_it_is() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        let error = TaskError::new(ErrorClass::RateLimited, "429");
        let end = End::Fail { error: error.clone(), retry_after_ms: Some(90_000) };
        stage.play().await.end(Ran::plain(end));
        let response = stage::response(stage.report().await);
        assert_eq!(response.outcome, Outcome::Fail { error, retry_after_ms: Some(90_000) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_delegation_brings_inputs_of_any_size() {
        let mut stage = Stage::new(agent("boss", 1)).await;
        stage.publish_fresh().await;
        let large = format!("\"{}\"", "x".repeat(DATABASE_MAX));
        let tasks =
            vec![(delegated("small"), "{\"a\":1}".to_owned()), (delegated("large"), large.clone())];
        let end = End::Delegate { tasks, resume: true, continuation: Some("[1]".into()) };
        stage.play().await.end(Ran::plain(end));
        let response = stage::response(stage.report().await);
        let Outcome::Delegate { tasks, resume, continuation } = response.outcome else {
            panic!("{:?}", response.outcome)
        };
        assert!(resume);
        assert_eq!(continuation, Some(payload(json!([1]))));
        assert_eq!(tasks[0].input, payload(json!({ "a": 1 })));
        assert_eq!(tasks[1].input.hash(), Hash::of(large.as_bytes()));
        assert!(matches!(tasks[1].input, Payload::Stored { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delegation_with_a_part_that_is_no_json_is_refused_as_a_whole() {
        let mut stage = Stage::new(agent("boss", 1)).await;
        let cases = [
            (vec![(delegated("a"), "{}".to_owned()), (delegated("b"), "{".to_owned())], None),
            (vec![(delegated("a"), "{}".to_owned())], Some("nothing".to_owned())),
        ];
        for (tasks, continuation) in cases {
            stage.publish_fresh().await;
            let end = End::Delegate { tasks, resume: true, continuation };
            stage.play().await.end(Ran::plain(end));
            let response = stage::response(stage.report().await);
            let Outcome::Fail { error, .. } = response.outcome else { panic!("it is no JSON") };
            assert_eq!(error.class, ErrorClass::InvalidOutput);
        }
    }
}

mod bus_and_stop {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outcomes_wait_while_the_bus_is_away_and_arrive_in_order() {
        let mut stage = Stage::new(agent("counter", 3)).await;
        let mut attempts = Vec::new();
        let mut plays = Vec::new();
        for _ in 0..3 {
            attempts.push(stage.publish_fresh().await);
            plays.push(stage.play().await);
        }
        stage.flaky.break_off();
        for play in plays {
            play.end(complete("1"));
            stage.nothing_more().await;
        }
        stage.host.idle().await;
        stage.flaky.mend();
        for attempt in &attempts {
            let report = stage.report_but_started().await;
            assert_eq!(stage::response(report).attempt, *attempt);
        }
        // And work goes on.
        stage.publish_fresh().await;
        stage.play().await.end(complete("2"));
        stage.report().await;
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_whose_confirmation_was_lost_comes_twice_rather_than_never() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        let play = stage.play().await;
        stage.flaky.lose_confirmations(1);
        play.end(complete("1"));
        for _ in 0..2 {
            assert_eq!(stage::response(stage.report().await).attempt, attempt);
        }
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_wait_for_an_engine_that_is_not_there_yet() {
        let mut stage = Stage::without_engine(agent("counter", 1)).await;
        stage.publish_fresh().await;
        stage.play().await.end(complete("1"));
        stage.host.idle().await;
        stage.meet_engine().await;
        stage::response(stage.report().await);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_was_not_acknowledged_when_the_bus_went_away_runs_once() {
        let mut stage = Stage::new(agent("counter", 2)).await;
        let (task, request) = stage.request();
        let letter = stage.letter(task, request);
        stage.publish(vec![letter.clone()]).await;
        let play = stage.play().await;
        stage.flaky.break_off();
        stage.nothing_more().await;
        stage.flaky.mend();
        // A broker that lost the acknowledgement brings it again.
        stage.publish(vec![letter]).await;
        stage.nobody_plays().await;
        play.end(complete("1"));
        stage::response(stage.report_but_started().await);
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_stops_reports_what_has_ended_and_takes_nothing_more() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        let play = stage.play().await;
        play.end(complete("1"));
        stage.host.idle().await;
        // The outcome is on its way: stopping does not cut it off.
        stage.host.stop().await;
        assert_eq!(stage::response(stage.report().await).attempt, attempt);

        let later = stage.fresh_letter();
        stage.publish(vec![later.clone()]).await;
        stage.nobody_plays().await;
        // It waits in the queue for the next life of the host.
        let mut next_life = stage.bus.consume(Address::Host(stage.parts.host)).await.unwrap();
        let waiting = next_life.next(10).await.unwrap();
        assert_eq!(waiting.len(), 1);
        assert_eq!((&waiting[0].letter, waiting[0].redelivered), (&later, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_that_waits_for_the_bus_gets_a_last_chance_when_the_host_stops() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        let attempt = stage.publish_fresh().await;
        let play = stage.play().await;
        stage.flaky.break_off();
        play.end(complete("1"));
        stage.host.idle().await;
        stage.nobody_plays().await;
        stage.flaky.mend();
        stage.host.stop().await;
        assert_eq!(stage::response(stage.report().await).attempt, attempt);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_although_nobody_makes_room_for_outcomes() {
        let bus = segue_bus::in_process::InProcessBus::with_queue_max(1);
        let mut stage = Stage::on(bus, agent("counter", 2)).await;
        for _ in 0..2 {
            stage.publish_fresh().await;
            stage.play().await.end(complete("1"));
            stage.host.idle().await;
        }
        // One outcome is in the queue of the engine, which does not take it; the other one waits for room.
        tokio::time::timeout(millis(10_000), stage.host.stop()).await.expect("it stops");
        stage.report().await;
        stage.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_absence_of_the_bus_costs_progress_and_no_outcome() {
        let mut stage = Stage::new(agent("counter", 1)).await;
        stage.publish_fresh().await;
        let play = stage.play().await;
        stage.flaky.break_off();
        for n in 0..3 * BACKLOG_MAX {
            play.job.control.progress(&json!(n));
        }
        play.end(complete("1"));
        stage.host.idle().await;
        stage.flaky.mend();
        let mut notes = 0;
        loop {
            match stage.report_but_started().await.body {
                LetterBody::Event(Notice::Progress { .. }) => notes += 1,
                LetterBody::TaskResponse(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(notes > 0 && notes <= BACKLOG_MAX, "{notes} notes were kept");
        stage.nothing_more().await;
        // Afterwards there is room again.
        stage.publish_fresh().await;
        let play = stage.play().await;
        play.job.control.progress(&json!("again"));
        assert!(matches!(stage.report().await.body, LetterBody::Event(Notice::Progress { .. })));
        play.end(complete("1"));
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_although_the_bus_is_away_or_closed() {
        let mut stage = Stage::new(agent("counter", 2)).await;
        stage.publish_fresh().await;
        let play = stage.play().await;
        stage.flaky.break_off();
        play.end(complete("1"));
        stage.host.idle().await;
        tokio::time::timeout(millis(10_000), stage.host.stop()).await.expect("it stops");

        let mut stage = Stage::new(agent("counter", 2)).await;
        stage.publish_fresh().await;
        let play = stage.play().await;
        stage.bus.close();
        play.end(complete("1"));
        stage.host.idle().await;
        tokio::time::timeout(millis(10_000), stage.host.stop()).await.expect("it stops");
        stage.host.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_cannot_start_without_its_bus() {
        let stage = Stage::new(agent("counter", 1)).await;
        stage.bus.close();
        let started = segue_agent::host::Host::start(stage.parts.clone(), Vec::new()).await;
        assert_eq!(started.err().map(|error| error.to_string()), Some("the bus was closed".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_attempts_of_many_slots_are_each_reported_once() {
        let mut stage = Stage::with_runner(agent("counter", 8), Arc::new(stage::Talker)).await;
        let mut expected = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let letters: Vec<Letter> = (0..100).map(|_| stage.fresh_letter()).collect();
            expected.extend(letters.iter().map(stage::attempt_of));
            stage.publish(letters).await;
        }
        while !expected.is_empty() {
            let letter = stage.report().await;
            if let LetterBody::TaskResponse(response) = letter.body {
                assert!(expected.remove(&response.attempt), "reported twice");
            }
        }
        stage.host.idle().await;
        assert_eq!(stage.host.running(), 0);
    }
}
