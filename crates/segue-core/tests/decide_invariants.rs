//! What holds for any list of commands.

mod support;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use segue_core::command::*;
use segue_core::event::Fact;
use segue_core::outcome::Outcome;
use segue_core::route::AGING_MS_PER_POINT;
use segue_core::task::*;
use support::random::{Dice, KINDS, Kind};
use support::*;

type Draw = (usize, u64);

fn draws(most: usize) -> impl Strategy<Value = Vec<Draw>> {
    prop::collection::vec((0..KINDS.len(), any::<u64>()), 1..most)
}

/// Runs a property over this many cases, the same ones every time. `SEGUE_CASES_TIMES=100` makes it a hundred
/// times as many, for a long look.
fn for_all<S: Strategy>(
    cases: u32,
    strategy: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let times = std::env::var("SEGUE_CASES_TIMES").ok().and_then(|times| times.parse().ok());
    let cases = cases * times.unwrap_or(1);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 5_000, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(failure) = runner.run(&strategy, property) {
        panic!("{failure}");
    }
}

/// Does one draw. Everything that must hold is checked after every command by [`Town::act`].
fn step(town: &mut Town, (kind, seed): Draw) {
    if let Some(command) = town.draw(KINDS[kind], &mut Dice::new(seed)) {
        let late = late_output(&command);
        let events = town.world.events.len();
        let reply = town.act(command).map(|effects| effects.reply);
        if let (Ok(Reply::Late), Some(output)) = (reply, late) {
            let kept = town.world.events[events..].iter().any(|event| {
                matches!(&event.fact, Fact::LateOutcome { output: Some(kept), .. } if *kept == output)
            });
            assert!(kept, "late work was thrown away");
        }
    }
}

fn late_output(command: &Command) -> Option<segue_core::payload::Payload> {
    match command {
        Command::Finish { response, .. } => match &response.outcome {
            Outcome::Complete { output } => Some(output.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn the_invariants_hold_and_every_task_ends_once_everybody_works() {
    for_all(300, draws(90), |draws| {
        let mut town = Town::busy();
        for draw in draws {
            step(&mut town, draw);
        }
        town.call_everybody();
        town.run_out();
        Ok(())
    });
}

#[test]
fn a_batch_gives_the_same_rows_as_its_commands_one_by_one() {
    let steps = prop::collection::vec(draws(9), 1..14);
    for_all(200, steps, |steps| {
        let (mut single, mut whole) = (Town::busy(), Town::busy());
        for draws in steps {
            let mut batch = Vec::new();
            let last = draws.len() - 1;
            for (place, (kind, seed)) in draws.into_iter().enumerate() {
                // A batch has one time, and `Assign` comes last in it.
                let kind = KINDS[kind];
                if place != last && matches!(kind, Kind::Assign | Kind::Pass) {
                    continue;
                }
                let Some(command) = single.draw(kind, &mut Dice::new(seed)) else { continue };
                let _ = single.act(command.clone());
                batch.push(command);
            }
            whole.batch(batch);
            whole.ctx.now = single.ctx.now;
            if let Err(difference) = single.world.same_rows(&whole.world) {
                return Err(TestCaseError::fail(difference));
            }
        }
        Ok(())
    });
}

#[test]
fn the_same_seed_gives_the_same_rows() {
    for_all(20, draws(60), |draws| {
        let (mut one, mut two) = (Town::busy(), Town::busy());
        for draw in draws {
            step(&mut one, draw);
            step(&mut two, draw);
        }
        prop_assert_eq!(one.world.same_rows(&two.world), Ok(()));
        Ok(())
    });
}

#[test]
fn a_background_task_gets_its_turn_under_a_flood_of_critical_ones() {
    let mut town = Town::unchecked();
    town.register(1, 1, vec![agent(1, "a", 1, &[])]).unwrap();
    let background = Priority::new(1).unwrap();
    let critical = Priority::new(10).unwrap();
    town.submit(vec![TaskSpec { priority: background, ..spec(1, "patient") }]);
    let mut next = 2;
    let mut waited_ms = 0;
    while town.state(1) == TaskState::Ready {
        // More come than can be done, every second.
        for _ in 0..3 {
            town.submit(vec![TaskSpec { priority: critical, ..spec(next, "urgent") }]);
            next += 1;
        }
        town.assign();
        let running: Vec<_> = town.world.held(instance(1));
        for id in running.into_iter().filter(|id| *id != task_id(1)) {
            town.finish_id(id, complete());
        }
        town.pass_ms(1_000);
        waited_ms += 1_000;
        town.act(Command::Renew { host: host(1), incarnation: life(1), lease_ms: LEASE_MS })
            .unwrap();
        // Nine points of priority, and the backlog of critical tasks that were there before it would have been their equal.
        assert!(waited_ms < 2_000 + 9 * 3 * AGING_MS_PER_POINT, "it waited {waited_ms} ms");
    }
}
