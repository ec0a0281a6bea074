//! Rules of `decide`, one test each: what happens, and why it matters.

mod support;

use segue_core::command::*;
use segue_core::event::Fact;
use segue_core::ids::{AttemptId, HostId, ProjectId};
use segue_core::letter::{Address, EndedProcess, LetterBody, Notice, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::task::*;
use segue_core::worker::host_of;
use support::*;
use uuid::Uuid;

/// The class of a task's error.
fn class(task: &Task) -> Option<ErrorClass> {
    task.error.as_ref().map(|error| error.class)
}

// ---- needs ----------------------------------------------------------------------------------

#[test]
fn a_task_may_need_one_of_another_run_that_is_part_of_a_workflow() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "elsewhere")]);
    town.submit(vec![group(10, "run"), spec(11, "step").under(10).needs(&[1])]);
    assert_eq!(town.work(1, complete()), Reply::Accepted);
    assert_eq!(town.state(11), TaskState::Ready);
}

#[test]
fn a_need_that_ended_before_the_submit_counts_as_one_that_ends_after_it() {
    let policies = [OnFailure::Fail, OnFailure::Skip, OnFailure::Continue];
    for policy in policies {
        let mut late = Town::new();
        late.submit(vec![spec(1, "need").on_failure(policy).once()]);
        late.work(1, fail(ErrorClass::Permanent));
        late.submit(vec![spec(2, "task").needs(&[1])]);

        let mut early = Town::new();
        early.submit(vec![spec(1, "need").on_failure(policy).once()]);
        early.submit(vec![spec(2, "task").needs(&[1])]);
        early.work(1, fail(ErrorClass::Permanent));

        assert_eq!(late.state(2), early.state(2), "{policy:?}");
        assert_eq!(class(late.task(2)), class(early.task(2)), "{policy:?}");
    }
}

#[test]
fn a_need_that_was_skipped_by_its_condition_before_the_submit_is_met() {
    let mut town = Town::new();
    let mut conditional = spec(1, "conditional");
    conditional.template =
        Some(Box::new(Template { when: Some("false".into()), ..Template::default() }));
    town.submit(vec![conditional]);
    town.do_duties();
    assert_eq!(town.state(1), TaskState::Cancelled);
    town.submit(vec![spec(2, "task").needs(&[1])]);
    assert_eq!(town.state(2), TaskState::Ready);
}

#[test]
fn a_skip_reaches_those_that_need_the_skipped_ones() {
    let mut town = Town::new();
    town.submit(vec![
        spec(1, "first").on_failure(OnFailure::Skip).once(),
        spec(2, "second").needs(&[1]),
        spec(3, "third").needs(&[2]),
        spec(4, "tolerant").needs(&[1]).on_failure(OnFailure::Continue),
        spec(5, "after the tolerant").needs(&[4]),
    ]);
    town.work(1, fail(ErrorClass::Permanent));
    while town.do_duties() > 0 {}
    assert_eq!(town.state(2), TaskState::Cancelled);
    assert_eq!(
        (town.state(3), class(town.task(3))),
        (TaskState::Cancelled, Some(ErrorClass::Skipped))
    );
    assert_eq!(town.state(5), TaskState::Ready);
}

#[test]
fn an_agent_that_calls_its_failure_skipped_has_failed_all_the_same() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "need"), spec(2, "task").needs(&[1])]);
    town.work(1, fail(ErrorClass::Skipped));
    assert_eq!((town.state(1), town.state(2)), (TaskState::Failed, TaskState::Failed));
}

#[test]
fn a_need_stands_once() {
    let mut town = Town::new();
    let twice = Town::submission(vec![spec(1, "need"), spec(2, "task").needs(&[1, 1])]);
    assert!(matches!(town.act(twice), Err(Reject::Invalid(why)) if why.contains("twice")));
    town.submit(vec![spec(1, "orchestrator")]);
    town.work(1, delegate(vec![delegated("x", &[]), delegated("y", &["x", "x"])], true));
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
}

#[test]
fn a_key_stands_once_among_siblings() {
    let mut town = Town::new();
    let mut one = spec(2, "one").under(1);
    one.key = Some("key".into());
    let mut two = spec(3, "two").under(1);
    two.key = Some("key".into());
    let submit = Town::submission(vec![group(1, "run"), one, two]);
    assert!(matches!(town.act(submit), Err(Reject::Conflict(_))));
}

#[test]
fn only_a_group_has_children_at_submit_and_a_group_has_no_needs() {
    let mut town = Town::new();
    let under_agent = Town::submission(vec![spec(1, "agent"), spec(2, "child").under(1)]);
    assert!(matches!(town.act(under_agent), Err(Reject::Invalid(_))));
    town.submit(vec![spec(3, "need").once()]);
    town.work(3, fail(ErrorClass::Permanent));
    let needy = Town::submission(vec![group(4, "run").needs(&[3]), spec(5, "child").under(4)]);
    assert!(matches!(town.act(needy), Err(Reject::Invalid(_))));
}

#[test]
fn a_graph_with_too_many_needs_is_refused_with_a_way_out() {
    let mut town = Town::unchecked();
    let sources = (1..=400).map(|n| spec(n, "source"));
    let all: Vec<u64> = (1..=400).collect();
    let targets = (1_001..=1_400).map(|n| spec(n, "target").needs(&all));
    let submit = Town::submission(sources.chain(targets).collect());
    assert!(matches!(town.act(submit), Err(Reject::Invalid(why)) if why.contains("between")));
}

// ---- cycles ---------------------------------------------------------------------------------

/// The path that the refusal of this submit names.
fn cycle(specs: Vec<TaskSpec>) -> Vec<String> {
    let mut town = Town::new();
    let refused = town.act(Town::submission(specs));
    assert!(town.world.tasks.is_empty(), "all of it or nothing");
    match refused {
        Err(Reject::Cycle { path }) => path,
        other => panic!("no cycle was found: {other:?}"),
    }
}

#[test]
fn needs_that_lead_back_are_refused_and_named_in_order() {
    let own = cycle(vec![spec(1, "a").needs(&[1])]);
    assert_eq!(own, ["a", "a"]);
    let long = cycle(vec![
        spec(9, "outside").needs(&[1]),
        spec(1, "a").needs(&[2]),
        spec(2, "b").needs(&[3]),
        spec(3, "c").needs(&[1]),
        spec(4, "d"),
    ]);
    assert_eq!(long, ["a", "b", "c", "a"]);
    let reject = Reject::Cycle { path: long };
    assert!(reject.to_string().ends_with("a -> b -> c -> a"), "{reject}");
}

#[test]
fn a_child_that_waits_for_its_own_group_is_refused() {
    let own = cycle(vec![group(1, "run"), spec(2, "child").under(1).needs(&[1])]);
    assert_eq!(own, ["run", "child", "run"]);
    let mut inner = group(2, "inner").under(1);
    inner.root = task_id(1);
    let mut deep = spec(3, "deep").needs(&[1]);
    deep.parent = Some(task_id(2));
    deep.root = task_id(1);
    assert_eq!(cycle(vec![group(1, "run"), inner, deep]), ["run", "inner", "deep", "run"]);
}

#[test]
fn groups_whose_children_wait_for_each_other_are_refused() {
    let path = cycle(vec![
        group(1, "left"),
        group(2, "right"),
        spec(3, "l").under(1).needs(&[2]),
        spec(4, "r").under(2).needs(&[1]),
    ]);
    assert_eq!(path, ["left", "l", "right", "r", "left"]);
}

#[test]
fn a_delegation_that_goes_round_is_an_error_that_names_the_way() {
    let plan = || vec![delegated("x", &["z"]), delegated("y", &["x"]), delegated("z", &["y"])];
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator")]);
    town.assign();
    let proof = town.proof(task_id(1));
    let refused = town.act(Command::Delegate { proof, tasks: plan() });
    assert!(matches!(refused, Err(Reject::Cycle { path }) if path == ["x", "z", "y", "x"]));
    town.finish(1, delegate(plan(), true));
    let error = town.task(1).error.clone().unwrap();
    assert_eq!((town.state(1), error.class), (TaskState::Failed, ErrorClass::Permanent));
    assert!(error.message.contains("x -> z -> y -> x"), "{}", error.message);
}

#[test]
fn agents_that_delegate_to_each_other_for_ever_are_stopped_by_the_hops() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "ping").once()]);
    let mut id = task_id(1);
    let mut hops = 0;
    loop {
        town.assign();
        town.finish_id(id, delegate(vec![delegated("pong", &[])], false));
        match town.world.calls.get(&(id, "pong".into())) {
            Some(child) => id = *child,
            None => break,
        }
        hops += 1;
        assert!(hops <= HOPS_MAX, "they go on");
    }
    assert_eq!(hops, HOPS_MAX);
    town.run_out();
    assert_eq!(town.state(1), TaskState::Failed);
}

#[test]
fn groups_nest_only_so_deep() {
    let mut specs = vec![group(1, "run")];
    for n in 2..=u64::from(HOPS_MAX) + 2 {
        let mut inner = group(n, "inner");
        inner.parent = Some(task_id(n - 1));
        inner.root = task_id(1);
        specs.push(inner);
    }
    let refused = Town::new().act(Town::submission(specs.clone()));
    assert!(matches!(refused, Err(Reject::Invalid(why)) if why.contains("flatter")));
    specs.pop();
    assert!(Town::new().act(Town::submission(specs)).is_ok());
}

#[test]
fn a_very_long_chain_needs_no_deep_stack() {
    let mut town = Town::unchecked();
    let chain = (1..=SUBMIT_MAX as u64).map(|n| {
        let spec = spec(n, "link").once();
        if n < SUBMIT_MAX as u64 { spec.needs(&[n + 1]) } else { spec }
    });
    town.submit(chain.collect());
    town.work(SUBMIT_MAX as u64, fail(ErrorClass::Permanent));
    assert_eq!(town.state(SUBMIT_MAX as u64 - 1), TaskState::Failed);
}

// ---- rendering ------------------------------------------------------------------------------

#[test]
fn rendering_waits_for_the_needs_even_if_somebody_renders_too_soon() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "need"), spec(2, "plain").needs(&[1])]);
    let early = Command::Expand { task: task_id(2), rendered: Ok(Rendered::Input(text("1"))) };
    assert_eq!(town.act(early).unwrap().reply, Reply::Done { changed: false });
    assert_eq!(town.state(2), TaskState::Blocked);
}

// ---- cascades -------------------------------------------------------------------------------

#[test]
fn a_duty_that_is_done_twice_changes_nothing_more() {
    let mut town = Town::new();
    // Failing 1 fails 2 quietly; 3 tolerates that, and needs 4 besides.
    town.submit(vec![
        spec(1, "first").once(),
        spec(2, "second").needs(&[1]).on_failure(OnFailure::Continue),
        spec(3, "third").needs(&[2, 4]),
        spec(4, "fourth"),
    ]);
    town.work(1, fail(ErrorClass::Permanent));
    let duties = town.world.duty_list();
    assert_eq!(duties.len(), 1);
    for _ in 0..3 {
        town.act(Command::Continue(duties[0].clone())).unwrap();
        assert_eq!((town.state(3), town.task(3).unmet), (TaskState::Blocked, 1));
    }
}

#[test]
fn a_duty_about_a_task_that_is_gone_is_done() {
    let mut town = Town::new();
    let kind = DutyKind::Propagate { after: None, parent: false };
    let effects = town.act(Command::Continue(Duty { task: task_id(1), kind })).unwrap();
    assert_eq!(effects.reply, Reply::Done { changed: false });
}

#[test]
fn the_parent_knows_at_once_that_a_child_ended_in_a_cascade() {
    let mut town = Town::new();
    town.submit(vec![
        group(1, "run"),
        spec(2, "first").under(1).once(),
        spec(3, "second").under(1).needs(&[2]),
    ]);
    town.work(2, fail(ErrorClass::Permanent));
    assert_eq!((town.state(3), town.task(1).open_children), (TaskState::Failed, 0));
    town.run_out();
    assert_eq!(town.state(1), TaskState::Failed);
}

#[test]
fn a_dead_letter_takes_the_work_that_it_handed_out_with_it() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator").once()]);
    town.assign();
    let proof = town.proof(task_id(1));
    town.act(Command::Delegate { proof, tasks: vec![delegated("x", &[])] }).unwrap();
    town.assign();
    town.finish(1, fail(ErrorClass::Permanent));
    town.do_duties();
    let child = town.child(1, "x");
    assert_eq!(town.world.task(child).state, TaskState::Cancelled);
    assert_eq!(town.world.agents[&instance(1)].slots_used, 0);
}

#[test]
fn a_cascade_is_cut_at_its_bound_and_goes_on_by_duties() {
    let mut town = Town::unchecked();
    let many = 3 * CASCADE_MAX as u64 / 2;
    let mut tasks = vec![group(1, "run"), spec(2, "first").under(1).once()];
    for n in 0..many {
        tasks.push(spec(10 + n, "dependent").under(1).needs(&[2]));
    }
    tasks.push(spec(10 + many, "last").under(1).needs(&(10..10 + many).collect::<Vec<_>>()));
    town.submit(tasks);
    town.world.rows_max = 0;
    town.work(2, fail(ErrorClass::Permanent));
    assert!(town.world.rows_max > CASCADE_MAX / 2 && town.world.rows_max <= CASCADE_MAX + 8);
    while town.do_duties() > 0 {}
    assert!(town.world.rows_max <= CASCADE_MAX + 8, "{} rows", town.world.rows_max);
    assert_eq!(town.state(10 + many), TaskState::Failed);
    assert_eq!(town.state(1), TaskState::Failed);
    invariants::check(&town.world).unwrap();
}

#[test]
fn a_cascade_over_many_runs_counts_their_rows_too() {
    let mut town = Town::unchecked();
    town.submit(vec![spec(1, "need")]);
    let many = CASCADE_MAX as u64;
    for n in 0..many {
        let run = 10 + 10 * n;
        town.submit(vec![group(run, "run"), spec(run + 1, "step").under(run).needs(&[1])]);
    }
    town.world.rows_max = 0;
    town.work(1, complete());
    while town.do_duties() > 0 {}
    assert!(town.world.rows_max <= CASCADE_MAX + 8, "{} rows", town.world.rows_max);
    assert!((0..many).all(|n| town.state(11 + 10 * n) == TaskState::Ready));
    invariants::check(&town.world).unwrap();
}

#[test]
fn cancelling_a_wide_run_is_cut_at_the_bound_too() {
    let mut town = Town::unchecked();
    let many = 3 * CASCADE_MAX as u64;
    let mut tasks = vec![group(1, "run")];
    tasks.extend((0..many).map(|n| spec(10 + n, "child").under(1)));
    town.submit(tasks);
    town.submit((0..many).map(|n| spec(100_000 + n, "outside").needs(&[1])).collect());
    town.world.rows_max = 0;
    town.act(Command::Cancel { task: task_id(1), reason: "enough".into() }).unwrap();
    while town.do_duties() > 0 {}
    assert!(town.world.rows_max <= CASCADE_MAX + 8, "{} rows", town.world.rows_max);
    assert!(town.world.tasks.values().all(|task| task.state.is_terminal()));
    invariants::check(&town.world).unwrap();
}

// ---- requeue --------------------------------------------------------------------------------

fn broken_workflow() -> Town {
    let mut town = Town::new();
    town.submit(vec![
        group(1, "run"),
        spec(2, "broken").under(1).once(),
        spec(3, "second").under(1).needs(&[2]),
        spec(4, "third").under(1).needs(&[3]).templated(),
        spec(5, "beside").under(1),
        spec(6, "join").under(1).needs(&[4, 5]),
    ]);
    town.submit(vec![spec(20, "after the run").needs(&[1])]);
    town.work(2, fail(ErrorClass::Permanent));
    town.run_out();
    for n in [1, 2, 3, 4, 6, 20] {
        assert_eq!(town.state(n), TaskState::Failed, "task {n}");
    }
    town
}

#[test]
fn requeueing_the_one_broken_step_continues_the_workflow() {
    let mut town = broken_workflow();
    town.act(Command::Requeue { task: task_id(2) }).unwrap();
    assert_eq!((town.state(2), town.state(1)), (TaskState::Ready, TaskState::Waiting));
    assert_eq!((town.state(3), town.task(3).unmet), (TaskState::Blocked, 1));
    while town.do_duties() > 0 {}
    assert_eq!((town.state(4), town.task(4).unmet), (TaskState::Blocked, 2));
    assert_eq!((town.state(6), town.task(6).unmet), (TaskState::Blocked, 1));
    assert_eq!((town.state(20), town.task(20).unmet), (TaskState::Blocked, 1));
    town.run_out();
    for n in [1, 2, 3, 4, 5, 6, 20] {
        assert_eq!(town.state(n), TaskState::Completed, "task {n}");
    }
    assert_eq!(town.task(5).attempts, 1, "what was done is not done again");
}

#[test]
fn what_follows_a_requeue_does_not_depend_on_when_the_duties_are_done() {
    let mut town = broken_workflow();
    town.act(Command::Requeue { task: task_id(2) }).unwrap();
    // No duty is done until the step and the one after it are through.
    town.work(2, complete());
    town.work(3, complete());
    town.run_out();
    assert_eq!((town.state(1), town.state(6)), (TaskState::Completed, TaskState::Completed));
}

#[test]
fn a_step_that_fails_again_after_a_requeue_fails_the_workflow_again() {
    let mut town = broken_workflow();
    for _ in 0..3 {
        town.act(Command::Requeue { task: task_id(2) }).unwrap();
        town.work(2, fail(ErrorClass::Permanent));
        town.run_out();
        assert_eq!((town.state(1), town.state(6)), (TaskState::Failed, TaskState::Failed));
    }
}

#[test]
fn a_requeue_brings_back_what_was_skipped_on_account_of_the_task() {
    let mut town = Town::new();
    town.submit(vec![
        spec(1, "first").once().on_failure(OnFailure::Skip),
        spec(2, "second").needs(&[1]),
        spec(3, "third").needs(&[2]),
    ]);
    town.work(1, fail(ErrorClass::Permanent));
    while town.do_duties() > 0 {}
    assert_eq!(town.state(3), TaskState::Cancelled);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.run_out();
    assert_eq!(town.state(3), TaskState::Completed);
}

#[test]
fn a_requeue_leaves_what_failed_for_other_reasons() {
    let mut town = Town::new();
    town.submit(vec![
        spec(1, "first").once(),
        spec(2, "other").once(),
        spec(3, "needs both").needs(&[1, 2]),
        spec(4, "cancelled").needs(&[1]),
    ]);
    town.act(Command::Cancel { task: task_id(4), reason: "not wanted".into() }).unwrap();
    town.assign();
    town.finish(1, fail(ErrorClass::Permanent));
    town.finish(2, fail(ErrorClass::Permanent));
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.run_out();
    assert_eq!(town.state(3), TaskState::Failed, "the other one is still broken");
    assert_eq!(town.state(4), TaskState::Cancelled, "somebody cancelled it");
    town.act(Command::Requeue { task: task_id(2) }).unwrap();
    town.run_out();
    assert_eq!(town.state(3), TaskState::Completed);
}

#[test]
fn a_dependent_that_had_gone_on_without_the_failed_task_waits_for_it_again() {
    let mut town = Town::new();
    town.submit(vec![
        spec(1, "first").once().on_failure(OnFailure::Continue),
        spec(2, "other"),
        spec(3, "needs both").needs(&[1, 2]),
    ]);
    town.work(1, fail(ErrorClass::Permanent));
    assert_eq!(town.task(3).unmet, 1);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    assert_eq!(town.task(3).unmet, 2);
    town.finish(2, complete());
    assert_eq!(town.state(3), TaskState::Blocked);
    town.work(1, complete());
    assert_eq!(town.state(3), TaskState::Ready);
}

#[test]
fn requeueing_a_failed_run_continues_it_where_it_stopped() {
    let mut town = broken_workflow();
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    assert_eq!((town.state(1), town.state(2)), (TaskState::Waiting, TaskState::Ready));
    town.run_out();
    for n in [1, 2, 3, 4, 5, 6, 20] {
        assert_eq!(town.state(n), TaskState::Completed, "task {n}");
    }
    assert_eq!(town.task(5).attempts, 1, "what was done is not done again");
}

#[test]
fn requeueing_a_cancelled_run_continues_it_where_it_stopped() {
    let mut town = Town::new();
    let mut each = spec(4, "each").under(1);
    each.template =
        Some(Box::new(Template { for_each: Some("[1, 2, 3]".into()), ..Template::default() }));
    town.submit(vec![
        group(1, "run"),
        spec(2, "done").under(1),
        // The one that needs stands before the one needed.
        spec(3, "last").under(1).needs(&[4, 5]),
        each,
        spec(5, "running").under(1).needs(&[2]),
    ]);
    town.do_duties();
    town.work(2, complete());
    town.assign();
    town.act(Command::Cancel { task: task_id(1), reason: "not now".into() }).unwrap();
    while town.do_duties() > 0 {}
    assert!(town.world.tasks.values().all(|task| task.state.is_terminal()));
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    assert_eq!((town.state(3), town.task(3).unmet), (TaskState::Blocked, 2));
    town.run_out();
    assert!(town.world.tasks.values().all(|task| task.state == TaskState::Completed));
    assert_eq!(town.task(2).attempts, 1);
}

#[test]
fn requeueing_a_run_whose_children_have_all_completed_collects_them_again() {
    let mut town = Town::new();
    town.submit(vec![group(1, "run"), spec(2, "child").under(1)]);
    town.work(2, complete());
    let error = TaskError::new(ErrorClass::Template, "the blob store was away");
    town.act(Command::Expand { task: task_id(1), rendered: Err(error) }).unwrap();
    assert_eq!(town.state(1), TaskState::Failed);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
}

#[test]
fn requeueing_a_wide_run_is_cut_at_the_bound() {
    let mut town = Town::unchecked();
    let many = 2 * CASCADE_MAX as u64 + 10;
    let mut tasks = vec![group(1, "run")];
    tasks.extend((0..many).map(|n| spec(10 + n, "child").under(1)));
    town.submit(tasks);
    town.act(Command::Cancel { task: task_id(1), reason: "enough".into() }).unwrap();
    while town.do_duties() > 0 {}
    town.world.rows_max = 0;
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    while town.do_duties() > 0 {}
    assert!(town.world.rows_max <= CASCADE_MAX + 8, "{} rows", town.world.rows_max);
    assert!((0..many).all(|n| town.state(10 + n) == TaskState::Ready));
    invariants::check(&town.world).unwrap();
}

#[test]
fn a_task_that_came_back_and_ended_before_its_dependents_heard_of_it_is_counted_once() {
    let mut town = Town::new();
    town.submit(vec![
        spec(1, "first").once(),
        spec(2, "tolerated").needs(&[1]).on_failure(OnFailure::Continue),
        spec(3, "other"),
        spec(4, "needs both").needs(&[2, 3]),
    ]);
    town.work(1, fail(ErrorClass::Permanent));
    while town.do_duties() > 0 {}
    assert_eq!(town.task(4).unmet, 1, "it goes on without the tolerated one");
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.work(1, complete());
    // What the return of the tolerated one means is still left to a duty when it completes.
    assert!(town.world.duties.contains_key(&(task_id(2), "propagate")));
    town.work(2, complete());
    assert_eq!((town.state(4), town.task(4).unmet), (TaskState::Blocked, 1));
    while town.do_duties() > 0 {}
    assert_eq!((town.state(4), town.task(4).unmet), (TaskState::Blocked, 1));
}

#[test]
fn a_requeue_before_the_cascade_was_done_counts_nobody_twice() {
    let mut town = Town::new();
    town.submit(vec![
        group(1, "run"),
        spec(2, "first").under(1).once(),
        spec(3, "second").under(1).needs(&[2]).on_failure(OnFailure::Continue),
        spec(4, "third").under(1).needs(&[3, 5]),
        spec(5, "beside").under(1),
    ]);
    town.work(2, fail(ErrorClass::Permanent));
    assert!(!town.world.duties.is_empty());
    town.act(Command::Requeue { task: task_id(2) }).unwrap();
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
}

#[test]
fn a_task_cancelled_before_it_began_can_be_requeued() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "need"), spec(2, "task").needs(&[1]).templated()]);
    town.act(Command::Cancel { task: task_id(2), reason: "a slip".into() }).unwrap();
    town.act(Command::Requeue { task: task_id(2) }).unwrap();
    assert_eq!((town.state(2), town.task(2).unmet), (TaskState::Blocked, 2));
    town.run_out();
    assert_eq!(town.state(2), TaskState::Completed);
}

#[test]
fn a_requeue_of_what_failed_on_account_of_another_points_to_the_other() {
    let mut town = broken_workflow();
    for n in [3, 4, 6, 20] {
        let refused = town.act(Command::Requeue { task: task_id(n) });
        assert!(matches!(refused, Err(Reject::Illegal { .. })), "task {n}");
    }
}

#[test]
fn a_requeue_under_a_parent_that_was_cancelled_or_completed_is_refused() {
    let mut town = Town::new();
    town.submit(vec![group(1, "run"), spec(2, "child").under(1)]);
    town.act(Command::Cancel { task: task_id(1), reason: "enough".into() }).unwrap();
    let refused = town.act(Command::Requeue { task: task_id(2) });
    assert!(matches!(refused, Err(Reject::Illegal { .. })));
}

#[test]
fn a_requeued_orchestrator_finds_what_was_done_and_has_the_rest_done_again() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator")]);
    let plan = || {
        // The one that needs stands before the one needed: the order of a plan means nothing.
        vec![delegated("z", &["y"]), delegated("x", &[]), delegated("y", &["x"])]
    };
    town.work(1, delegate(plan(), true));
    let (x, y, z) = (town.child(1, "x"), town.child(1, "y"), town.child(1, "z"));
    town.assign();
    town.finish_id(x, complete());
    town.act(Command::Cancel { task: task_id(1), reason: "the wrong day".into() }).unwrap();
    while town.do_duties() > 0 {}
    town.pass_ms(1);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.assign();
    assert!(town.task(1).continuation.is_none(), "it begins anew");
    town.finish(1, delegate(plan(), true));
    assert_eq!(town.state(1), TaskState::Waiting);
    assert_eq!(town.world.task(y).state, TaskState::Ready);
    assert_eq!(town.world.task(z).state, TaskState::Blocked);
    town.run_out();
    assert_eq!(town.world.task(x).attempts, 1);
    for id in [task_id(1), y, z] {
        assert_eq!(town.world.task(id).state, TaskState::Completed);
    }
}

#[test]
fn a_child_that_was_to_be_rendered_is_rendered_when_it_is_taken_up_again() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator")]);
    let plan = || {
        let mut child = delegated("x", &[]);
        child.template = true;
        delegate(vec![child], true)
    };
    town.work(1, plan());
    town.act(Command::Cancel { task: task_id(1), reason: "a slip".into() }).unwrap();
    while town.do_duties() > 0 {}
    town.pass_ms(1);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.work(1, plan());
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
}

#[test]
fn a_requeue_does_not_bring_back_what_lies_under_a_cancelled_run() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "need").once()]);
    town.submit(vec![group(10, "run"), spec(11, "step").under(10).needs(&[1])]);
    town.work(1, fail(ErrorClass::Permanent));
    assert_eq!(town.state(11), TaskState::Failed);
    town.act(Command::Cancel { task: task_id(10), reason: "enough".into() }).unwrap();
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.run_out();
    assert_eq!((town.state(1), town.state(11)), (TaskState::Completed, TaskState::Failed));
    assert_eq!(town.state(10), TaskState::Cancelled);
}

#[test]
fn a_requeue_while_the_children_are_still_being_cancelled_spares_the_new_life() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator").once()]);
    town.assign();
    let proof = town.proof(task_id(1));
    town.act(Command::Delegate { proof, tasks: vec![delegated("x", &[])] }).unwrap();
    town.finish(1, fail(ErrorClass::Permanent));
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    town.do_duties();
    let child = town.child(1, "x");
    assert_eq!(town.world.task(child).state, TaskState::Ready);
}

#[test]
fn a_requeued_task_that_had_been_resumed_is_resumed_again() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator").once()]);
    town.work(1, delegate(vec![delegated("x", &[])], true));
    town.assign();
    town.finish_id(town.child(1, "x"), complete());
    town.work(1, fail(ErrorClass::Permanent));
    assert_eq!(town.state(1), TaskState::Failed);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    assert_eq!(town.task(1).continuation, Some(text("{\"step\":2}")));
}

#[test]
fn a_requeued_task_that_was_resumed_with_a_failure_begins_anew() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator").once()]);
    let plan = || {
        let mut broken = delegated("broken", &[]);
        broken.retry.attempts = 1;
        vec![delegated("fine", &[]), broken]
    };
    town.work(1, delegate(plan(), true));
    town.assign();
    town.finish_id(town.child(1, "fine"), complete());
    let broken = town.child(1, "broken");
    town.finish_id(broken, fail(ErrorClass::Permanent));
    // It is told, and gives up.
    town.work(1, fail(ErrorClass::Permanent));
    town.pass_ms(1);
    town.act(Command::Requeue { task: task_id(1) }).unwrap();
    assert!(!town.task(1).resumes());
    town.work(1, delegate(plan(), true));
    assert_eq!(town.world.task(broken).state, TaskState::Ready);
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
    assert_eq!(town.world.task(town.child(1, "fine")).attempts, 1);
}

#[test]
fn a_parent_that_failed_with_its_collected_children_waits_again_with_the_requeued_child() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "forwarder")]);
    let mut child = delegated("x", &[]);
    child.retry.attempts = 1;
    town.work(1, delegate(vec![child], false));
    town.assign();
    let x = town.child(1, "x");
    town.finish_id(x, fail(ErrorClass::Permanent));
    town.run_out();
    assert_eq!(town.state(1), TaskState::Failed);
    town.act(Command::Requeue { task: x }).unwrap();
    assert_eq!(town.state(1), TaskState::Waiting);
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
}

// ---- limits in time -------------------------------------------------------------------------

#[test]
fn the_whole_limit_of_a_waiting_run_ends_everything_under_it() {
    let mut town = Town::new();
    let limits = Timeouts { whole_ms: Some(5_000), ..Timeouts::default() };
    town.submit(vec![
        group(1, "run").limits(limits),
        spec(2, "running").under(1),
        spec(3, "blocked").under(1).needs(&[2]),
        spec(4, "outside").needs(&[1]),
    ]);
    town.submit(vec![spec(5, "after").needs(&[1])]);
    town.assign();
    town.pass_ms(4_999);
    town.tick();
    assert_eq!(town.state(1), TaskState::Waiting);
    town.pass_ms(1);
    town.tick();
    assert_eq!(
        (town.state(1), class(town.task(1))),
        (TaskState::Failed, Some(ErrorClass::Timeout))
    );
    while town.do_duties() > 0 {}
    assert_eq!((town.state(2), town.state(3)), (TaskState::Cancelled, TaskState::Cancelled));
    assert_eq!((town.state(4), town.state(5)), (TaskState::Failed, TaskState::Failed));
    assert_eq!(town.world.agents[&instance(1)].slots_used, 0);
}

#[test]
fn a_tick_sees_what_the_batch_before_it_made_due() {
    let mut town = Town::new();
    let limits = Timeouts { queue_ms: Some(0), ..Timeouts::default() };
    let submit = Town::submission(vec![spec(1, "hasty").limits(limits)]);
    town.batch(vec![submit, Command::Tick { limit: 10, excused: Excused::Nobody }]);
    assert_eq!(town.state(1), TaskState::Failed);
}

// ---- for_each -------------------------------------------------------------------------------

#[test]
fn the_dependents_of_a_for_each_wait_for_all_of_its_items() {
    let mut town = Town::new();
    let mut each = spec(2, "each").under(1);
    each.template = Some(Box::new(Template {
        for_each: Some("[1, 2, 3]".into()),
        max_parallel: Some(1),
        ..Template::default()
    }));
    town.submit(vec![group(1, "run"), each, spec(3, "after").under(1).needs(&[2])]);
    town.do_duties();
    assert_eq!((town.state(2), town.task(2).children), (TaskState::Waiting, 3));
    for n in 0..3 {
        assert_eq!(town.assign(), 1, "one item at a time");
        assert_eq!(town.state(3), TaskState::Blocked);
        town.finish_id(town.child(2, &format!("{n:05}")), complete());
    }
    town.do_duties();
    assert_eq!((town.state(2), town.state(3)), (TaskState::Completed, TaskState::Ready));
    town.run_out();
    assert_eq!(town.state(1), TaskState::Completed);
}

#[test]
fn requeueing_the_one_broken_item_of_a_for_each_continues_the_workflow() {
    let mut town = Town::new();
    let mut each = spec(2, "each").under(1).once();
    each.template =
        Some(Box::new(Template { for_each: Some("[1, 2, 3]".into()), ..Template::default() }));
    town.submit(vec![group(1, "run"), each, spec(3, "after").under(1).needs(&[2])]);
    town.do_duties();
    town.assign();
    let broken = town.child(2, "00001");
    town.finish_id(broken, fail(ErrorClass::Permanent));
    town.run_out();
    assert_eq!((town.state(1), town.state(2)), (TaskState::Failed, TaskState::Failed));
    town.act(Command::Requeue { task: broken }).unwrap();
    assert_eq!((town.state(1), town.state(2)), (TaskState::Waiting, TaskState::Waiting));
    town.run_out();
    assert_eq!((town.state(1), town.state(3)), (TaskState::Completed, TaskState::Completed));
}

// ---- delegation -----------------------------------------------------------------------------

#[test]
fn a_delegation_whose_children_have_all_ended_resumes_at_once() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator")]);
    town.assign();
    let proof = town.proof(task_id(1));
    town.act(Command::Delegate { proof, tasks: vec![delegated("x", &[])] }).unwrap();
    town.assign();
    town.finish_id(town.child(1, "x"), complete());
    town.finish(1, delegate(vec![delegated("x", &[])], true));
    assert_eq!(town.state(1), TaskState::Ready);
    town.work(1, complete());
    assert_eq!(town.state(1), TaskState::Completed);
}

#[test]
fn a_resumed_attempt_that_delegates_the_same_again_is_stopped() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "stuck")]);
    let plan = || delegate(vec![delegated("x", &[])], true);
    town.work(1, plan());
    town.assign();
    town.finish_id(town.child(1, "x"), complete());
    town.work(1, plan());
    assert_eq!(
        (town.state(1), class(town.task(1))),
        (TaskState::Failed, Some(ErrorClass::Permanent))
    );
}

#[test]
fn a_resumed_attempt_that_delegates_what_has_failed_again_is_stopped_too() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "stuck")]);
    let plan = || {
        let mut child = delegated("x", &[]);
        child.retry.attempts = 1;
        delegate(vec![child], true)
    };
    town.work(1, plan());
    town.assign();
    // All of this in the millisecond in which the task was submitted: it was not requeued since.
    town.finish_id(town.child(1, "x"), fail(ErrorClass::Permanent));
    town.work(1, plan());
    assert_eq!(town.state(1), TaskState::Failed);
}

#[test]
fn a_resumed_attempt_may_wait_for_what_it_handed_out_even_if_that_has_ended_already() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator")]);
    town.work(1, delegate(vec![delegated("x", &[])], true));
    town.assign();
    town.finish_id(town.child(1, "x"), complete());
    town.assign();
    town.pass_ms(1);
    let proof = town.proof(task_id(1));
    town.act(Command::Delegate { proof, tasks: vec![delegated("y", &[])] }).unwrap();
    town.assign();
    town.finish_id(town.child(1, "y"), complete());
    town.finish(1, delegate(vec![delegated("x", &[]), delegated("y", &[])], true));
    assert_eq!(town.state(1), TaskState::Ready);
}

#[test]
fn delegated_siblings_stand_in_the_order_in_which_they_were_named() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "orchestrator")]);
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    town.work(1, delegate(keys.iter().map(|key| delegated(key, &[])).collect(), true));
    let ids: Vec<_> = keys.iter().map(|key| town.child(1, key)).collect();
    assert!(ids.is_sorted());
}

// ---- late outcomes --------------------------------------------------------------------------

#[test]
fn a_late_outcome_is_recorded_once_with_what_it_used() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "task")]);
    town.assign();
    let lost = town.attempt(task_id(1)).id;
    town.act(Command::ExpireAgent { instance: instance(1), reason: "gone".into() }).unwrap();
    town.register(1, 2, vec![agent(1, "a", 8, &[])]).unwrap();
    town.assign();
    let Command::Finish { task, response } = town.report(task_id(1), lost, complete()) else {
        panic!("a report is a finish")
    };
    let usage = Some(Usage { output_tokens: 7, ..Usage::default() });
    let response = Box::new(TaskResponse { usage: usage.clone(), ..*response });
    let late = Command::Finish { task, response };
    assert_eq!(town.act(late.clone()).unwrap().reply, Reply::Late);
    assert_eq!(town.act(late).unwrap().reply, Reply::Duplicate);
    let count = town.facts(1).iter().filter(|it| matches!(it, Fact::LateOutcome { .. })).count();
    assert_eq!(count, 1);
    let record = &town.world.attempts[&lost];
    assert_eq!((record.usage.clone(), record.attempt.end), (usage, Some(AttemptEnd::Lost)));
    assert!(record.error.is_some());
}

#[test]
fn a_timeout_that_is_reported_twice_is_a_duplicate() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "task")]);
    town.assign();
    let report = town.report(task_id(1), town.attempt(task_id(1)).id, fail(ErrorClass::Timeout));
    assert_eq!(town.act(report.clone()).unwrap().reply, Reply::Accepted);
    assert_eq!(town.act(report).unwrap().reply, Reply::Duplicate);
}

#[test]
fn what_an_attempt_used_before_its_host_shut_down_is_kept() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "task")]);
    town.assign();
    let id = town.attempt(task_id(1)).id;
    let Command::Finish { task, response } = town.report(task_id(1), id, Outcome::Cancelled) else {
        panic!("a report is a finish")
    };
    let usage = Some(Usage { output_tokens: 7, ..Usage::default() });
    let process = ProcessRef { pid: 1, start_time: 2 };
    let ended = vec![EndedProcess { process, name: "x".into(), signal: None }];
    let response = Box::new(TaskResponse { usage: usage.clone(), ended, ..*response });
    let command = Command::Finish { task, response };
    assert_eq!(town.act(command.clone()).unwrap().reply, Reply::Accepted);
    assert_eq!(town.world.attempts[&id].usage, usage);
    assert_eq!(class(town.task(1)), Some(ErrorClass::Lost));
    assert_eq!(town.act(command).unwrap().reply, Reply::Duplicate);
}

// ---- agents ---------------------------------------------------------------------------------

#[test]
fn a_host_goes_on_after_one_of_its_agents_was_removed() {
    let renew = |n| Command::Renew { host: host(1), incarnation: life(n), lease_ms: LEASE_MS };
    let mut town = Town::new();
    let (a, b) = (agent(1, "a", 8, &[]), agent(2, "b", 1, &[]));
    town.register(1, 1, vec![a.clone(), b]).unwrap();
    // A file was removed while the host ran.
    town.register(1, 1, vec![a.clone()]).unwrap();
    assert!(town.act(renew(1)).is_ok());
    // And it was restarted.
    town.register(1, 2, vec![a]).unwrap();
    assert!(town.act(renew(2)).is_ok());
    assert!(matches!(town.act(renew(1)), Err(Reject::Superseded(_))));
    town.pass_ms(LEASE_MS + 1);
    town.tick();
    assert!(matches!(town.act(renew(2)), Err(Reject::Superseded(_))));
}

#[test]
fn an_instance_belongs_to_one_host_at_a_time() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "task")]);
    town.assign();
    let stolen = town.register(2, 9, vec![agent(1, "a", 8, &[])]);
    assert!(matches!(stolen, Err(Reject::Conflict(_))));
    let twice = town.register(1, 1, vec![agent(1, "a", 8, &[]), agent(1, "b", 8, &[])]);
    assert!(matches!(twice, Err(Reject::Invalid(_))));
    town.act(Command::ExpireAgent { instance: instance(1), reason: "moved".into() }).unwrap();
    assert!(town.register(2, 9, vec![agent(1, "a", 8, &[])]).is_ok());
}

#[test]
fn a_new_life_of_a_host_gets_the_lost_work_at_once() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "task")]);
    town.assign();
    town.register(1, 2, vec![agent(1, "a", 8, &[])]).unwrap();
    assert_eq!((town.state(1), town.task(1).lost), (TaskState::Ready, 1));
    assert_eq!(town.assign(), 1);
    assert_eq!(town.task(1).tried, 0);
}

#[test]
fn a_lost_task_keeps_its_place_and_is_a_dead_letter_once_lost_too_often() {
    let mut town = Town::new();
    let mut fragile = spec(1, "fragile");
    fragile.retry.lost_max = 2;
    town.submit(vec![fragile]);
    let rank = town.task(1).rank;
    for lost in 1..=3 {
        town.pass_ms(1_000);
        town.assign();
        town.register(1, 1 + lost, vec![agent(1, "a", 8, &[])]).unwrap();
        let dead = lost == 3;
        assert_eq!(town.state(1), if dead { TaskState::Failed } else { TaskState::Ready });
        assert_eq!((town.task(1).lost, town.task(1).tried), (lost as u32, 0));
        assert!(dead || town.task(1).rank == rank);
    }
}

#[test]
fn a_resume_prefers_the_instance_that_delegated() {
    let mut town = Town::new();
    town.register(1, 1, vec![agent(1, "a", 8, &[]), agent(2, "a", 8, &[])]).unwrap();
    // The first instance would be chosen otherwise: it is the less loaded one, and the first by id.
    town.submit(vec![spec(1, "one"), spec(2, "two")]);
    town.assign();
    let (n, second) =
        if town.attempt(task_id(1)).instance == instance(2) { (1, 2) } else { (2, 1) };
    town.finish(n, delegate(vec![delegated("x", &[])], true));
    town.finish(second, complete());
    town.assign();
    let x = town.child(n, "x");
    town.finish_id(x, complete());
    town.assign();
    assert_eq!(town.attempt(task_id(n)).instance, instance(2));
}

#[test]
fn a_ready_task_that_was_loaded_for_another_reason_can_be_assigned() {
    let mut town = Town::new();
    town.submit(vec![group(1, "run"), spec(2, "child").under(1)]);
    // The submit loads task 2 as a need, but not the root of its run.
    let submit = Town::submission(vec![spec(3, "after").needs(&[2])]);
    let assign = town.assignment();
    let decisions = town.batch(vec![submit, assign]);
    assert_eq!(decisions[1].as_ref().unwrap().reply, Reply::Assigned(1));
}

#[test]
fn a_late_delegation_ends_the_wait_for_another_attempt() {
    let mut town = Town::new();
    let limits = Timeouts { run_ms: Some(5_000), ..Timeouts::default() };
    town.submit(vec![spec(1, "slow").limits(limits)]);
    town.assign();
    town.pass_ms(5_000 + RUN_GRACE_MS);
    town.tick();
    assert_eq!(town.state(1), TaskState::Retrying);
    town.finish(1, delegate(vec![delegated("x", &[])], true));
    assert_eq!((town.state(1), town.task(1).retry_at), (TaskState::Waiting, None));
}

// ---- who gets what --------------------------------------------------------------------------

/// Assigns among these instances with what the directory says of them; the task numbers that run then.
fn assign_among(town: &mut Town, fit: &[(u64, f32, f32)], limit: usize) -> Vec<u64> {
    let candidate = |(n, health, load): &(u64, f32, f32)| Candidate {
        instance: instance(*n),
        health: *health,
        load: *load,
    };
    let candidates: Vec<Candidate> = fit.iter().map(candidate).collect();
    let before = |n: &u64| town.state(*n) == TaskState::Ready;
    let ready: Vec<u64> =
        (1..=9).filter(|n| town.world.tasks.contains_key(&task_id(*n))).filter(before).collect();
    town.act(Command::Assign(Assign { candidates: candidates.into(), limit })).unwrap();
    ready.into_iter().filter(|n| town.state(*n) == TaskState::Assigned).collect()
}

#[test]
fn the_most_urgent_goes_first_then_the_one_that_waits_longest() {
    let mut town = Town::new();
    town.register(1, 1, vec![agent(1, "a", 1, &[])]).unwrap();
    town.submit(vec![spec(1, "first")]);
    town.pass_ms(1);
    town.submit(vec![spec(2, "second")]);
    town.submit(vec![TaskSpec { priority: Priority::new(7).unwrap(), ..spec(3, "urgent") }]);
    for n in [3, 1, 2] {
        assert_eq!(assign_among(&mut town, &[(1, 1.0, 0.0)], 9), [n]);
        town.finish(n, complete());
    }
}

#[test]
fn no_more_is_assigned_than_asked_for_and_none_to_the_sick_or_the_loaded() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "one"), spec(2, "two")]);
    assert!(assign_among(&mut town, &[(1, 0.69, 0.0)], 9).is_empty());
    assert!(assign_among(&mut town, &[(1, 1.0, 0.81)], 9).is_empty());
    assert_eq!(assign_among(&mut town, &[(1, 0.7, 0.8)], 1), [1]);
    town.act(Command::Drain { agent: "a".into(), drained: true }).unwrap();
    assert!(assign_among(&mut town, &[(1, 1.0, 0.0)], 9).is_empty());
    // Drained is drained, in the next life as well.
    town.register(1, 2, vec![agent(1, "a", 8, &[])]).unwrap();
    assert!(assign_among(&mut town, &[(1, 1.0, 0.0)], 9).is_empty());
}

#[test]
fn a_host_that_leaves_keeps_what_runs_and_gets_no_more_until_its_next_life() {
    let mut town = Town::new();
    // Who was never there cannot leave, and no slots at all is a mistake.
    town.register(2, 1, vec![agent(2, "a", 0, &[])]).unwrap_err();
    town.register(1, 1, vec![agent(1, "a", 8, &[])]).unwrap();
    town.submit(vec![spec(1, "one"), spec(2, "two")]);
    assert_eq!(assign_among(&mut town, &[(1, 1.0, 0.0)], 1), [1]);
    town.register(1, 1, vec![agent(1, "a", 0, &[])]).unwrap();
    assert!(assign_among(&mut town, &[(1, 1.0, 0.0)], 9).is_empty());
    assert_eq!(town.finish(1, complete()), Reply::Accepted);
    assert!(assign_among(&mut town, &[(1, 1.0, 0.0)], 9).is_empty());
    town.register(1, 2, vec![agent(1, "a", 8, &[])]).unwrap();
    assert_eq!(assign_among(&mut town, &[(1, 1.0, 0.0)], 9), [2]);
}

#[test]
fn the_least_loaded_gets_it_then_the_cheapest() {
    let mut town = Town::new();
    let mut agents: Vec<_> = (1..=3).map(|n| agent(n, "a", 4, &["work"])).collect();
    for (agent, cost_usd) in agents.iter_mut().zip([0.5, 0.1, 0.3]) {
        let capability =
            segue_core::agent::Capability { cost_usd, ..agent.capabilities[0].clone() };
        agent.capabilities = vec![capability].into();
    }
    town.register(1, 1, agents).unwrap();
    let asked = |n| TaskSpec::new(task_id(n), "task", Route::capability("work"));
    town.submit((1..=4).map(asked).collect());
    let all = [(1, 1.0, 0.0), (2, 1.0, 0.0), (3, 1.0, 0.0)];
    let mut order = Vec::new();
    for n in 1..=4 {
        assign_among(&mut town, &all, 1);
        order.push(town.attempt(task_id(n)).instance);
    }
    assert_eq!(order, [instance(2), instance(3), instance(1), instance(2)]);
}

#[test]
fn a_lease_does_not_end_while_its_host_could_not_be_heard() {
    let mut town = Town::new();
    let worker = host_of(ProjectId(Uuid::nil()), "red");
    let register = |host, n| Command::Register {
        host,
        incarnation: life(1),
        agents: vec![agent(n, "a", 1, &[])],
        lease_ms: 10,
    };
    town.act(register(worker, 11)).unwrap();
    town.act(register(HostId(Uuid::new_v4()), 12)).unwrap();
    town.pass_ms(11);
    for (excused, gone) in [
        (Excused::Everybody, [false, false]),
        (Excused::Workers, [false, true]),
        (Excused::Nobody, [true, true]),
    ] {
        town.act(Command::Tick { limit: 2, excused }).unwrap();
        assert_eq!([11, 12].map(|n| town.world.agents[&instance(n)].gone), gone, "{excused:?}");
    }
}

#[test]
fn no_attempt_runs_out_of_time_here_while_its_host_could_not_be_heard() {
    let mut town = Town::new();
    let worker = host_of(ProjectId(Uuid::nil()), "red");
    let register = |host, n, name| Command::Register {
        host,
        incarnation: life(1),
        agents: vec![agent(n, name, 1, &[])],
        lease_ms: 600_000,
    };
    town.act(register(worker, 11, "red")).unwrap();
    town.act(register(HostId(Uuid::new_v4()), 12, "node")).unwrap();
    let limits = Timeouts { run_ms: Some(5_000), ..Timeouts::default() };
    let whole = Timeouts { whole_ms: Some(10_000), ..Timeouts::default() };
    let spec = |n, agent: &str, limits| {
        TaskSpec::new(task_id(n), "task", Route::agent(agent)).limits(limits)
    };
    town.submit(vec![
        spec(1, "red", limits),
        spec(2, "node", limits),
        spec(3, "node", limits),
        spec(4, "nobody", Timeouts { queue_ms: Some(5_000), ..Timeouts::default() }),
        spec(5, "red", whole),
    ]);
    town.assign();
    for n in [1, 2] {
        let (proof, at) = (town.proof(task_id(n)), town.ctx.now);
        town.act(Command::Start { proof, at, process: None }).unwrap();
    }
    town.pass_ms(5_000 + RUN_GRACE_MS);
    let states = |town: &Town| [1, 2, 3].map(|n| town.state(n));
    let (assigned, running) = (TaskState::Assigned, TaskState::Running);
    assert_eq!(states(&town), [running, running, TaskState::Ready]);
    town.act(Command::Tick { limit: 9, excused: Excused::Everybody }).unwrap();
    assert_eq!(states(&town), [running, running, TaskState::Ready]);
    // Other limits are nobody's silence.
    assert_eq!([4, 5].map(|n| town.state(n)), [TaskState::Failed; 2]);
    town.act(Command::Tick { limit: 9, excused: Excused::Workers }).unwrap();
    assert_eq!(states(&town), [running, TaskState::Retrying, TaskState::Ready]);
    town.assign();
    assert_eq!(town.state(3), assigned);
    town.pass_ms(5_000 + RUN_GRACE_MS);
    town.act(Command::Tick { limit: 9, excused: Excused::Workers }).unwrap();
    assert_eq!(town.state(3), assigned, "whoever has it was not told to begin");
    town.act(Command::Tick { limit: 9, excused: Excused::Nobody }).unwrap();
    assert_eq!([1, 3].map(|n| town.state(n)), [TaskState::Retrying; 2]);
}

#[test]
fn a_tick_looks_at_no_more_tasks_than_asked_for() {
    let mut town = Town::new();
    let limits = Timeouts { queue_ms: Some(10), ..Timeouts::default() };
    town.submit((1..=3).map(|n| spec(n, "hasty").limits(limits)).collect());
    town.pass_ms(10);
    town.act(Command::Tick { limit: 2, excused: Excused::Nobody }).unwrap();
    let failed = (1..=3).filter(|n| town.state(*n) == TaskState::Failed).count();
    assert_eq!(failed, 2);
}

// ---- letters and keys -----------------------------------------------------------------------

#[test]
fn whoever_must_end_an_attempt_is_told() {
    let is_notice = |effects: &segue_core::ports::Effects, of| {
        effects.letters.iter().any(|letter| {
            matches!(&letter.body, LetterBody::Event(Notice::Cancel { attempt, .. }) if *attempt == of)
                && letter.to == Address::Host(host(1))
        })
    };
    let mut town = Town::new();
    let limits = Timeouts { run_ms: Some(5_000), ..Timeouts::default() };
    town.submit(vec![spec(1, "cancelled"), spec(2, "overdue").limits(limits)]);
    town.submit(vec![group(10, "run"), spec(11, "child").under(10)]);
    town.assign();
    let cancel = |n| Command::Cancel { task: task_id(n), reason: "enough".into() };
    let effects = town.act(cancel(1)).unwrap();
    assert!(is_notice(&effects, town.attempt(task_id(1)).id));
    let effects = town.act(cancel(10)).unwrap();
    assert!(is_notice(&effects, town.attempt(task_id(11)).id));
    town.pass_ms(5_000 + RUN_GRACE_MS);
    let effects = town.act(Command::Tick { limit: 9, excused: Excused::Nobody }).unwrap();
    assert!(is_notice(&effects, town.attempt(task_id(2)).id));
}

#[test]
fn the_same_key_finds_the_task_of_the_earlier_submit_whatever_its_ids() {
    let keyed = |n: u64, name: &str| {
        let mut run = group(n, name);
        run.idempotency_key = Some("key".into());
        Town::submission(vec![
            run,
            spec(n + 1, "child").under(n),
            spec(n + 2, "next").under(n).needs(&[n + 1]),
        ])
    };
    let mut town = Town::new();
    town.act(keyed(1, "run")).unwrap();
    let again = town.act(keyed(101, "run")).unwrap().reply;
    assert_eq!(again, Reply::Existing { root: task_id(1) });
    assert!(matches!(town.act(keyed(201, "another")), Err(Reject::Conflict(_))));
    assert_eq!(town.world.tasks.len(), 3);
    // And within one batch.
    let mut town = Town::new();
    let decisions = town.batch(vec![keyed(1, "run"), keyed(101, "run")]);
    assert_eq!(decisions[1].as_ref().unwrap().reply, Reply::Existing { root: task_id(1) });
}

#[test]
fn an_agent_that_the_new_life_of_its_host_does_not_have_is_gone() {
    let mut town = Town::new();
    town.register(1, 1, vec![agent(1, "a", 8, &[]), agent(2, "b", 1, &[])]).unwrap();
    let mut task = spec(1, "task");
    task.route = Route::agent("b");
    town.submit(vec![task]);
    town.assign();
    town.register(1, 2, vec![agent(1, "a", 8, &[])]).unwrap();
    assert_eq!((town.state(1), town.task(1).lost), (TaskState::Ready, 1));
    assert!(town.world.agents[&instance(2)].gone);
    let gone = |event: &&segue_core::event::Event| matches!(event.fact, Fact::AgentGone { .. });
    assert_eq!(town.world.events.iter().filter(gone).count(), 1);
}

#[test]
fn the_items_of_a_for_each_go_on_where_one_of_them_failed() {
    let mut town = Town::new();
    let mut each = spec(1, "each").once();
    each.template = Some(Box::new(Template {
        for_each: Some("[1, 2, 3]".into()),
        max_parallel: Some(1),
        ..Template::default()
    }));
    town.submit(vec![each]);
    town.do_duties();
    town.assign();
    town.finish_id(town.child(1, "00000"), fail(ErrorClass::Permanent));
    assert_eq!(town.world.task(town.child(1, "00001")).state, TaskState::Ready);
    town.run_out();
    assert_eq!(town.state(1), TaskState::Failed);
}

// ---- traces ---------------------------------------------------------------------------------

const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// The letters that give out work now.
fn given_out(town: &mut Town) -> Vec<segue_core::letter::Letter> {
    let assign = town.assignment();
    town.act(assign).expect("assigning is never refused").letters
}

#[test]
fn every_attempt_has_a_span_of_its_own_in_the_trace_of_its_run() {
    let mut town = Town::new();
    let root = TaskSpec { traceparent: SPAN.parse().ok(), ..spec(1, "traced") };
    town.submit(vec![root]);
    town.submit(vec![spec(2, "alone")]);
    let letters = given_out(&mut town);
    let span = |letter: &segue_core::letter::Letter| {
        letter.traceparent.expect("a letter about an attempt").to_string()
    };
    let end = |id: AttemptId| id.to_string().replace('-', "")[16..].to_owned();
    for letter in &letters {
        let task = letter.task.expect("it is about a task");
        let (trace, flags) = match task == task_id(1) {
            true => ("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), "00"),
            false => (task.to_string().replace('-', ""), "03"),
        };
        let attempt = town.attempt(task).id;
        assert_eq!(span(letter), format!("00-{trace}-{}-{flags}", end(attempt)));
    }
    let told = |fact: &Fact| match fact {
        Fact::Assigned { traceparent, .. } => Some(traceparent.map(|it| it.to_string())),
        _ => None,
    };
    let of = |town: &Town, n| town.facts(n).into_iter().filter_map(told).collect::<Vec<_>>();
    // Where it follows from the ids it is not kept a second time.
    let first = letters.iter().find(|letter| letter.task == Some(task_id(1))).map(span);
    assert_eq!((of(&town, 1), of(&town, 2)), (vec![first.clone()], vec![None]));
    // Another attempt has another one, and what is delegated belongs to the same trace.
    town.finish(1, fail(ErrorClass::Transient));
    town.pass_ms(60_000);
    town.tick();
    let second = given_out(&mut town).first().map(span);
    assert!(second.is_some() && second != first);
    town.finish(1, delegate(vec![delegated("part", &[])], true));
    let letters = given_out(&mut town);
    assert_eq!(letters[0].task, Some(town.child(1, "part")));
    assert!(span(&letters[0]).starts_with(&SPAN[..36]), "{}", span(&letters[0]));
    assert_eq!((letters[0].hops, letters[0].causation), (1, Some(task_id(1).0.as_u128())));
}

#[test]
fn who_asks_again_in_another_span_gets_the_same_run() {
    let mut town = Town::new();
    let asked = |n, span: Option<&str>| TaskSpec {
        traceparent: span.map(|span| span.parse().expect("it is one")),
        idempotency_key: Some("once".into()),
        ..spec(n, "asked")
    };
    let other = SPAN.replace("00f067aa0ba902b7", "00f067aa0ba902b8");
    town.submit(vec![asked(1, Some(SPAN))]);
    for (n, span) in [(2, Some(other.as_str())), (3, None)] {
        let reply = town.act(Town::submission(vec![asked(n, span)])).expect("the same").reply;
        assert_eq!(reply, Reply::Existing { root: task_id(1) });
    }
    assert_eq!(town.task(1).spec.traceparent.map(|it| it.to_string()).as_deref(), Some(SPAN));
    // It stands at the root alone.
    let child = TaskSpec { traceparent: SPAN.parse().ok(), ..spec(6, "child").under(5) };
    let refused = town.act(Town::submission(vec![group(5, "run"), child])).unwrap_err();
    assert!(refused.to_string().contains("not the root"), "{refused}");
}
