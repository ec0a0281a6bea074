//! The real binary on private servers: two nodes and a worker do what one machine does, and go on when one of them is killed.

mod repo_report_support;

use repo_report_support::{Place, Ran, example, path};
use segue_testkit::servers::{Postgres, RabbitMq, Redis};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Servers, and a file that names them.
struct Cluster {
    place: Place,
    file: PathBuf,
    _servers: (Postgres, RabbitMq, Redis),
}

/// A node or worker that runs. It ends with its test.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it said, and how it ended.
    fn end(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    fn terminate(self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(self.end().0, Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    async fn start() -> Cluster {
        let (postgres, rabbitmq, redis) =
            tokio::join!(Postgres::start(), RabbitMq::start(), Redis::start());
        let place = Place::new();
        let file = place.beside("cluster.toml");
        std::fs::write(place.beside("key"), "5e".repeat(32)).unwrap();
        let text = format!(
            "[project]\nname = \"team\"\nid = \"01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f\"\nkey = {{ file = \"key\" }}\n\
             [postgres]\nurl = \"{}\"\n[rabbitmq]\nurls = [\"{}\"]\n[redis]\nurl = \"{}\"\n\
             [objects]\nurl = \"{}\"\n\
             [backup]\nto = \"backups\"\nevery = \"1h\"\n[node]\nlease = \"6s\"\n",
            postgres.database().await,
            rabbitmq.vhost().await,
            redis.url(),
            place.beside("bodies").display(),
        );
        std::fs::write(&file, text).unwrap();
        Cluster { place, file, _servers: (postgres, rabbitmq, redis) }
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let mut all = args.to_vec();
        all.extend(["--project", path(&self.place.repo), "--config", path(&self.file)]);
        all
    }

    fn begin(&self, args: &[&str], first_line: &str) -> Running {
        let mut command = self.place.command(&self.args(args));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.contains(first_line), "{line:?}");
        Running { child, out }
    }

    fn node(&self, name: &str) -> Running {
        self.begin(&["up", "--node", name, "--team", path(&example())], "listening on")
    }

    /// A worker with this team, which has joined.
    fn worker(&self, name: &str, team: &Path) -> Running {
        let token = self.ask(&["worker", "token", name])["token"].as_str().unwrap().to_owned();
        let file = self.place.beside(&format!("{name}.toml"));
        let text = std::fs::read_to_string(&self.file).unwrap();
        let (from, to) = (text.find("[rabbitmq]").unwrap(), text.find("[redis]").unwrap());
        // The broker and the token: nothing else is in the worker's file.
        let rabbitmq = &text[from..to];
        let text = format!("{rabbitmq}[worker]\ntoken = \"{token}\"\nlease = \"6s\"\n");
        std::fs::write(&file, text).unwrap();
        let mut command = self.place.command(&[
            "worker",
            "--config",
            path(&file),
            "--team",
            path(team),
            "--project",
            path(&self.place.repo),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("worker `{name}` joined with")), "{line:?}");
        Running { child, out }
    }

    fn ask(&self, args: &[&str]) -> Value {
        let came = self.place.segue(&self.args(&[args, &["--json"]].concat()));
        assert_eq!(came.code, 0, "{came:#?}");
        serde_json::from_str(&came.out).unwrap()
    }

    /// The nodes as one of them lists them, as soon as the list is like this.
    fn nodes_are(&self, asked: &str, wanted: &[(&str, &str)]) -> Value {
        let began = Instant::now();
        loop {
            let nodes = self.ask(&["nodes", "--node", asked]);
            let found: Vec<(&str, &str)> = nodes["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|node| (node["name"].as_str().unwrap(), node["status"].as_str().unwrap()))
                .collect();
            if found == wanted {
                return nodes;
            }
            assert!(began.elapsed() < PATIENCE, "{nodes:#}");
        }
    }

    fn report(&self, node: &str, more: &[&str]) -> Ran {
        let workflow = example().join("workflow.yaml");
        let args = [&["run", path(&workflow), "--node", node, "--json"], more].concat();
        Ran::of(self.place.segue(&self.args(&args))).completed()
    }

    fn clear(&self) {
        std::fs::remove_dir_all(self.place.repo.join("repo-report")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_and_a_worker_on_a_cluster_do_what_one_machine_does() {
    repo_report_support::require_programs();
    // What one machine makes of it.
    let alone = Place::new();
    alone.report(&example()).completed();
    let wanted = alone.pages();

    let cluster = Cluster::start().await;
    let mut east = cluster.node("east");
    let west = cluster.node("west");
    let worker = cluster.worker("red", &example());
    let everybody = [("east", "up"), ("red", "up"), ("west", "up")];
    let nodes = cluster.nodes_are("west", &everybody);
    assert_eq!(nodes["nodes"][1]["roles"], serde_json::json!(["worker"]));
    cluster.nodes_are("east", &everybody);

    // The same bytes, whichever node is asked and whoever does it.
    cluster.report("east", &[]);
    assert_eq!(cluster.place.pages(), wanted);
    cluster.clear();
    cluster.report("west", &[]);
    assert_eq!(cluster.place.pages(), wanted);
    cluster.clear();

    state_over_a_worker(&cluster);

    // One node dies in the middle of a run; the run goes on and completes.
    let workflow = example().join("workflow.yaml");
    let run = cluster.ask(&["run", path(&workflow), "--node", "west", "--detach"]);
    let id = run["id"].as_str().or(run["run"].as_str()).expect("an id").to_owned();
    east.kill_9();
    let watched = cluster.place.segue(&cluster.args(&["watch", &id, "--quiet", "--node", "west"]));
    assert_eq!(watched.code, 0, "{watched:#?}");
    assert_eq!(cluster.place.pages(), wanted);

    // Drained, the worker finishes, says goodbye and ends; the last node is enough.
    cluster.nodes_are("west", &[("red", "up"), ("west", "up")]);
    cluster.ask(&["nodes", "drain", "red", "--node", "west"]);
    assert_eq!(worker.end().0, Some(0));
    cluster.nodes_are("west", &[("west", "up")]);
    cluster.clear();
    cluster.report("west", &[]);
    assert_eq!(cluster.place.pages(), wanted);
    one_backup(&cluster);
    west.terminate();
}

/// The agent of a worker, which has no credential of the project, reads and writes shared state by its tasks.
fn state_over_a_worker(cluster: &Cluster) {
    let team = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keeper");
    let keeper = cluster.worker("blue", &team);
    cluster.ask(&["state", "put", "plan/api", r#"{"owner": "anna"}"#, "--node", "east"]);
    let flow = cluster.place.beside("keep.yaml");
    let put = |key: &str| {
        format!(
            "{{large: 1048576, say: {{outcome: complete, state: {{put: [{{key: {key}, value: 0}}]}}}}}}"
        )
    };
    let text = format!(
        "tasks:\n  first:\n    agent: keeper\n    state_keys: [counts, 'plan/*']\n    \
         input: {{count: counts, owner: \"{{{{ state['plan/api'].owner }}}}\"}}\n  \
         second: {{agent: keeper, needs: first, state_keys: counts, input: {{count: counts}}}}\n  \
         large: {{agent: keeper, state_keys: 'plan/*', input: {}}}\n  \
         foreign: {{agent: keeper, on_failure: continue, state_keys: 'plan/*', input: {}}}\n\
         output:\n  first: \"{{{{ tasks.first.output }}}}\"\n  second: \"{{{{ tasks.second.output }}}}\"\n  \
         foreign: \"{{{{ tasks.foreign.error.message }}}}\"\n",
        put("plan/large"),
        put("counts"),
    );
    std::fs::write(&flow, text).unwrap();
    let came = cluster.place.segue(&cluster.args(&["run", path(&flow), "--node", "west"]));
    assert_eq!(came.code, 0, "{came:#?}");
    let output: Value = serde_json::from_str(&came.out).unwrap();
    assert_eq!(output["first"]["input"]["owner"], "anna", "{output:#}");
    assert_eq!(output["first"]["state"]["values"]["plan/api"]["value"]["owner"], "anna");
    assert_eq!(output["second"]["state"]["values"]["counts"]["value"], 1);
    assert!(output["foreign"].as_str().unwrap().contains("`counts`"), "{output:#}");
    let value = |key: &str| {
        let args = ["state", "get", key, "--node", "east"];
        let came = cluster.place.segue(&cluster.args(&args));
        serde_json::from_str::<Value>(&came.out).unwrap_or_else(|_| panic!("{came:#?}"))
    };
    assert_eq!(value("counts"), 2);
    assert_eq!(value("plan/large").as_str().map(str::len), Some(1 << 20));
    cluster.ask(&["nodes", "drain", "blue", "--node", "west"]);
    assert_eq!(keeper.end().0, Some(0));
}

/// Of all nodes one made a backup, under its lease, and nobody another one since.
fn one_backup(cluster: &Cluster) {
    let began = Instant::now();
    let first = cluster.place.beside("backups/manifests/0000000001.json");
    while !first.exists() {
        assert!(began.elapsed() < PATIENCE, "no backup was made");
    }
    let listed = cluster.ask(&["backup", "list"]);
    assert_eq!(listed["backups"].as_array().map(Vec::len), Some(1), "{listed:#}");
    let text = std::fs::read_to_string(first).unwrap();
    let manifest: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    // The one who had the duty was killed: the other one takes it over when the lease ends.
    let lock = loop {
        let locks = cluster.ask(&["lock", "list", "--node", "west"]);
        let mut held = locks["locks"].as_array().unwrap().iter();
        if let Some(lock) = held.find(|lock| lock["name"] == "segue/backup") {
            break lock.clone();
        }
        assert!(began.elapsed() < PATIENCE, "nobody has the duty: {locks:#}");
    };
    assert!(["east", "west"].contains(&lock["holder"].as_str().unwrap()), "{lock:#}");
    let (fence, token) = (manifest["fence"].as_u64().unwrap(), lock["token"].as_u64().unwrap());
    assert!(fence > 0 && fence <= token, "{fence} and {token}");
}
