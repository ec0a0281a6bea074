//! Three engines over the same tables and one bus: each is drained, ended and started again under load, and one is killed. Every task completes.

mod team;

use segue_agent::host::Host;
use segue_core::command::{Command, NewTask};
use segue_core::ids::TaskId;
use segue_core::ports::TaskFilter;
use segue_core::task::{Need, TaskState};
use segue_core::worker::TokenMaker;
use segue_engine::{Engine, LocalHost};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use team::{KEY, PROJECT, Team, eventually, local_host, task};

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    engine: Arc<Engine>,
    local: LocalHost,
    host: Arc<Host>,
}

impl Node {
    async fn start(team: &Team, name: &str) -> Node {
        let engine = team.start_engine(Some(TokenMaker::new(PROJECT, KEY))).await;
        let (local, host) = local_host(team, &engine, name).await;
        Node { engine, local, host }
    }

    /// Ends as a node that was drained does.
    async fn leave(self, team: &Team) {
        self.engine.stop_assigning();
        self.engine.leave(&self.local).await.unwrap();
        eventually("what it had is done and taken in", async || {
            let agents = team.parts.store.agents().await.unwrap();
            let mut own = agents.iter().filter(|agent| agent.host == self.local.host);
            own.all(|agent| agent.slots_used == 0)
        })
        .await;
        self.engine.left(&self.local, "it was drained").await.unwrap();
        self.engine.stop().await;
        self.host.stop().await;
    }
}

/// A chain of three tasks, submitted through this engine; the last one.
async fn chain(engine: &Engine, n: usize) -> TaskId {
    let mut tasks: Vec<NewTask> = (0..3).map(|part| task("part", &json!([n, part]))).collect();
    for part in 1..3 {
        let before = tasks[part - 1].spec.id;
        tasks[part].spec.needs = vec![Need { task: before, name: None, order_only: false }];
    }
    let last = tasks[2].spec.id;
    engine.submit(tasks).await.unwrap();
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_task_and_gives_none_out_twice() {
    let team = Team::new(0).await;
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        nodes.push(Node::start(&team, name).await);
    }
    let mut last = Vec::new();
    for round in 0..3 {
        for n in 0..30 {
            last.push(chain(&nodes[n % 3].engine, n).await);
        }
        // Whoever is first leaves while there is work, and comes back as another life.
        nodes.remove(0).leave(&team).await;
        for n in 0..10 {
            last.push(chain(&nodes[n % 2].engine, n).await);
        }
        nodes.push(Node::start(&team, &format!("again-{round}")).await);
    }
    for id in last {
        let wait = nodes[0].engine.wait_for(id);
        let task = tokio::time::timeout(PATIENCE, wait).await.expect("it ends").unwrap();
        assert_eq!(task.state, TaskState::Completed, "{:?}", task.error);
    }
    let all = TaskFilter { limit: usize::MAX, ..TaskFilter::default() };
    for task in team.parts.store.tasks(all).await.unwrap() {
        assert_eq!((task.state, task.lost, task.attempts), (TaskState::Completed, 0, 1));
    }
    for node in nodes {
        node.leave(&team).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_node_that_dies_is_done_by_the_others() {
    let team = Team::new(0).await;
    let dies = Node::start(&team, "dies").await;
    let lives = Node::start(&team, "lives").await;
    // Its host takes no letters any more, and its engine publishes nothing: what both had is in the tables alone.
    dies.host.stop().await;
    let mut last = Vec::new();
    for n in 0..40 {
        last.push(chain(&dies.engine, n).await);
    }
    dies.engine.stop().await;
    for id in last {
        let wait = lives.engine.wait_for(id);
        let task = tokio::time::timeout(PATIENCE, wait).await.expect("it ends").unwrap();
        assert_eq!(task.state, TaskState::Completed, "{:?}", task.error);
    }
    lives.leave(&team).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_through_another_one_and_told_so() {
    let team = Team::new(0).await;
    let (near, far) = (Node::start(&team, "near").await, Node::start(&team, "far").await);
    assert!(!far.engine.is_leaving(&far.local));
    near.engine.drain_host(far.local.host).await.unwrap();
    let told = far.engine.told_to_leave(&far.local);
    tokio::time::timeout(PATIENCE, told).await.expect("it is told when it renews its lease");
    for n in 0..10 {
        let id = chain(&far.engine, n).await;
        let task = near.engine.wait_for(id).await.unwrap();
        assert_eq!(task.state, TaskState::Completed);
    }
    let agents = team.parts.store.agents().await.unwrap();
    let far_agent = agents.iter().find(|agent| agent.host == far.local.host).unwrap();
    assert_eq!((far_agent.spec.max_concurrency, far_agent.drained), (0, false));
    far.leave(&team).await;
    // A person's word about an agent is another matter, and outlives the node.
    let drain = Command::Drain { agent: "a".into(), drained: true };
    near.engine.command(drain).await.unwrap();
    near.leave(&team).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_not_undone_when_the_agents_of_the_node_change() {
    let team = Team::new(0).await;
    let (near, far) = (Node::start(&team, "near").await, Node::start(&team, "far").await);
    near.engine.drain_host(far.local.host).await.unwrap();
    // Before it has noticed, as a reload of its file does.
    let agents = ["a", "b"].map(|name| team::spec_on(far.local.host, name)).to_vec();
    far.engine.register(&far.local, agents).await.unwrap();
    assert!(far.engine.is_leaving(&far.local), "it knows by then");
    let rows = team.parts.store.agents_of(far.local.host).await.unwrap();
    assert!(rows.iter().all(|agent| agent.spec.max_concurrency == 0), "{rows:?}");
    far.leave(&team).await;
    near.leave(&team).await;
}
