//! Rules of `decide`, one test each: what happens, and why it matters.

mod support;

use segue_core::command::*;
use segue_core::task::*;
use support::*;

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
