//! Rules of `decide`, one test each: what happens, and why it matters.

mod support;

use segue_core::command::*;
use segue_core::task::*;
use support::*;

#[test]
fn a_task_may_need_one_of_another_run_that_is_part_of_a_workflow() {
    let mut town = Town::new();
    town.submit(vec![spec(1, "elsewhere")]);
    town.submit(vec![group(10, "run"), spec(11, "step").under(10).needs(&[1])]);
    assert_eq!(town.work(1, complete()), Reply::Accepted);
    assert_eq!(town.state(11), TaskState::Ready);
}
