//! Nodes and workers while servers are away: they end in their time and say what they leave behind, tell of it in few lines, and know of an alarm.

mod cluster_support;
mod common;

use cluster_support::{Member, Servers};
use common::{Came, Started};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What comes after the patience at most, as `docs/cluster.md` has it, and a little for a machine that is busy.
const LAST_STEPS: Duration = Duration::from_secs(25 + 10);
/// After this long something that was waited for does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node that workers are heard by, with an agent that is done at once.
const EAST: &str = "[claude]
enabled = false
[[agent]]
name = \"own\"
command = [\"/bin/true\"]
result = \"text\"
";

/// An agent that waits at a gate, and one that does not end when it is told to.
fn agents(name: &str) -> String {
    let at_gate = r#"echo arrived > \"$SEGUE_PROJECT_DIR/arrivals\"; cat \"$SEGUE_PROJECT_DIR/gate\" > /dev/null; echo '{\"passed\":true}'"#;
    format!(
        "[claude]\nenabled = false\n\
         [[agent]]\nname = \"{name}-gate\"\ncommand = [\"sh\", \"-c\", \"{at_gate}\"]\n\
         [[agent]]\nname = \"{name}-stubborn\"\ncommand = [\"sh\", \"-c\", \"trap '' TERM; {at_gate}\"]\n"
    )
}

/// Sends SIGTERM, and waits for the end in a thread of its own.
fn terminate(started: Started, patience: Duration) -> std::thread::JoinHandle<Came> {
    started.signal(Signal::SIGTERM);
    let began = Instant::now();
    std::thread::spawn(move || {
        let came = started.end();
        let (took, limit) = (began.elapsed(), patience + LAST_STEPS);
        assert!(took < limit, "it took {took:?} of {limit:?}: {came:#?}");
        came
    })
}

/// The task is in this state, as this node tells it, before long.
fn becomes(node: &Member, id: &str, state: &str) {
    let began = Instant::now();
    loop {
        let task = node.ok(&["show", id, "--json"]).json();
        if task["task"]["state"] == state {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{task:#}");
    }
}

/// Gives a task to an agent of this worker, and waits until an attempt is at the gate.
fn at_the_gate(node: &Member, worker: &Member, agent: &str) -> String {
    let agent = format!("{}-{agent}", worker.name);
    let id = node.ok(&["submit", "--agent", &agent]).out.trim().to_owned();
    worker.place.arrival();
    id
}

async fn worker(servers: &Servers, node: &Member, name: &str) -> Member {
    let worker = Member::worker(servers, node, name, &agents(name)).await;
    worker.place.gates();
    worker
}

/// An outcome that cannot be delivered is kept, is told of, and counts with the next start.
async fn what_is_done_while_the_broker_is_away_is_kept(servers: &Servers, node: &Member) {
    let red = worker(servers, node, "red").await;
    let running = red.begin(&["worker", "--patience", "2s"]);
    let task = at_the_gate(node, &red, "gate");
    red.lines.rabbit.cut().await;
    red.place.let_go();
    let spool = red.place.dir.join(".segue/workers/red/spool/outcomes");
    let began = Instant::now();
    while std::fs::read_dir(&spool)
        .unwrap()
        .all(|file| file.unwrap().path().extension().is_some_and(|it| it != "json"))
    {
        assert!(began.elapsed() < PATIENCE, "no outcome in the spool");
    }
    let came = terminate(running, Duration::from_secs(2)).join().unwrap().with(0);
    assert!(came.err.contains("1 outcome is not delivered and is kept in"), "{came:#?}");
    assert!(came.err.contains("the next start of worker `red` delivers"), "{came:#?}");
    red.lines.rabbit.heal().await;
    let running = red.begin(&["worker"]);
    becomes(node, &task, "completed");
    let came = terminate(running, Duration::ZERO).join().unwrap().with(0);
    assert!(came.err.contains("delivering what an earlier life left: 1 outcome"), "{came:#?}");
    assert!(!came.err.contains("not delivered"), "{came:#?}");
}

/// What ignores SIGTERM is killed when the patience is over, whether or not anybody hears of it.
async fn what_ignores_sigterm_is_killed(servers: &Servers, node: &Member) {
    let blue = worker(servers, node, "blue").await;
    let running = blue.begin(&["worker", "--patience", "1s"]);
    let task = at_the_gate(node, &blue, "stubborn");
    blue.lines.rabbit.cut().await;
    let came = terminate(running, Duration::from_secs(1)).join().unwrap().with(0);
    assert!(came.err.contains("1 attempt may take 1.0s"), "{came:#?}");
    // Nobody holds the gate open any more, so nobody who opens it for writing gets through.
    let gate = std::fs::OpenOptions::new();
    let opened = open_without_waiting(gate, &blue.place.dir.join("gate"));
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(nix::libc::ENXIO), "it still reads");
    node.ok(&["cancel", &task]);
}

fn open_without_waiting(
    mut options: std::fs::OpenOptions,
    path: &std::path::Path,
) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    options.write(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}

/// A second SIGTERM does not wait for anything.
async fn a_second_sigterm_ends_at_once(servers: &Servers, node: &Member) {
    let green = worker(servers, node, "green").await;
    let mut running = green.begin(&["worker"]);
    let task = at_the_gate(node, &green, "stubborn");
    green.lines.rabbit.cut().await;
    running.signal(Signal::SIGTERM);
    running.err_line("once more ends at once");
    let began = Instant::now();
    running.signal(Signal::SIGTERM);
    running.end().with(143);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    node.ok(&["cancel", &task]);
}

/// Each server is away for one node, all of them for two; and each node ends.
async fn nodes_end_whatever_is_away(servers: &Servers) {
    let mut nodes = Vec::new();
    for name in ["postgres", "rabbitmq", "redis", "s3", "all-cut", "all-held"] {
        let node = Member::node(servers, name, &agents(name)).await;
        let running = node.begin(&["up", "--patience", "1s"]);
        nodes.push((node, running));
    }
    let mut endings = Vec::new();
    for (node, running) in nodes {
        match node.name.as_str() {
            "postgres" => node.lines.postgres.cut().await,
            "rabbitmq" => node.lines.rabbit.cut().await,
            "redis" => node.lines.redis.cut().await,
            "s3" => node.lines.s3.cut().await,
            "all-cut" => {
                for line in node.lines.all() {
                    line.cut().await;
                }
            }
            _ => {
                for line in node.lines.all() {
                    line.hold().await;
                }
            }
        }
        endings.push((terminate(running, Duration::from_secs(1)), node));
    }
    for (ending, node) in endings {
        let came = ending.join().unwrap();
        assert_eq!(came.code, 0, "{}: {came:#?}", node.name);
    }
}

/// What a node says of its trouble, as soon as that is like this.
fn trouble_is(node: &Member, is_like: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let came = node.segue(&["nodes", "--json"]);
        if came.code == 0 {
            let nodes = came.json();
            let mut listed = nodes["nodes"].as_array().unwrap().iter();
            let own =
                listed.find(|it| it["name"] == node.name.as_str() && !it["silent_ms"].is_null());
            if let Some(own) = own.filter(|own| is_like(&own["trouble"])) {
                return own["trouble"].clone();
            }
        }
        assert!(began.elapsed() < PATIENCE, "{came:#?}");
    }
}

/// Everything is away and tried many times: one line of each when it goes, one when it is back.
async fn an_outage_is_told_in_few_lines(servers: &Servers) {
    let node = Member::node(servers, "chatty", &agents("chatty")).await;
    // Nobody is a broker here, and each try is counted.
    let counter = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    node.add_broker(&format!("amqp://nobody:x@{}/none", counter.local_addr().unwrap()));
    let running = node.begin(&["up"]);
    for line in node.lines.all() {
        line.cut().await;
    }
    for _ in 0..8 {
        let tried = tokio::time::timeout(PATIENCE, counter.accept()).await;
        drop(tried.expect("it is tried again").unwrap());
    }
    for line in node.lines.all() {
        line.heal().await;
    }
    trouble_is(&node, Value::is_null);
    let came = terminate(running, Duration::ZERO).join().unwrap().with(0);
    let told = |part: &str| came.err.lines().filter(|line| line.contains(part)).count();
    for server in ["RabbitMQ", "the database", "Redis"] {
        let (away, back) = (format!("{server} is away"), format!("{server} is back"));
        assert_eq!((told(&away), told(&back)), (1, 1), "{server}: {came:#?}");
    }
    assert!(told("WARN") + told("ERROR") <= 8, "{came:#?}");
}

/// A broker that is short of memory says so to those who publish: an idle node and the doctor know it all the same.
async fn an_alarm_is_seen_by_whoever_is_idle(servers: &Servers, node: &Member) {
    let memory = |part| format!("vm_memory_monitor:set_vm_memory_high_watermark({part}).");
    trouble_is(node, Value::is_null);
    servers.rabbit.eval(&memory("0.0001")).await;
    let trouble = trouble_is(node, |trouble| !trouble.is_null());
    assert!(trouble.as_str().unwrap().contains("RabbitMQ takes no letters"), "{trouble}");
    let listed = node.ok(&["nodes"]).out;
    assert!(
        listed.contains(&format!("trouble: {}: RabbitMQ takes no letters", node.name)),
        "{listed}"
    );
    // What needs no broker goes on.
    let id = node.ok(&["submit", "--agent", "own"]).out.trim().to_owned();
    becomes(node, &id, "completed");
    let doctor = node.segue(&["doctor"]).with(1);
    assert!(doctor.out.contains("it takes no letters for now"), "{doctor:#?}");
    servers.rabbit.eval(&memory("0.6")).await;
    trouble_is(node, Value::is_null);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_workers_on_a_cluster_whose_servers_are_away() {
    let servers = Servers::start().await;
    nodes_end_whatever_is_away(&servers).await;
    an_outage_is_told_in_few_lines(&servers).await;
    let node = Member::node(&servers, "east", EAST).await;
    let mut running = node.begin(&["up"]);
    an_alarm_is_seen_by_whoever_is_idle(&servers, &node).await;
    what_is_done_while_the_broker_is_away_is_kept(&servers, &node).await;
    what_ignores_sigterm_is_killed(&servers, &node).await;
    a_second_sigterm_ends_at_once(&servers, &node).await;

    // The broker is there, and no node: for a worker that is idle, and for one that is not.
    let (idle, busy) =
        (worker(&servers, &node, "idle").await, worker(&servers, &node, "busy").await);
    let idle_running = idle.begin(&["worker", "--patience", "2s"]);
    let busy_running = busy.begin(&["worker", "--patience", "2s"]);
    at_the_gate(&node, &busy, "stubborn");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let endings = [idle_running, busy_running].map(|it| terminate(it, Duration::from_secs(2)));
    for ending in endings {
        let came = ending.join().unwrap().with(0);
        assert!(came.err.contains("nobody heard that this worker"), "{came:#?}");
    }
}
