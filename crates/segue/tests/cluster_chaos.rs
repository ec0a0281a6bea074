//! Chaos on a whole cluster, in its short form: the real binary as two nodes and a worker on private servers, killed, cut off and deprived of
//! servers under load. `cargo xtask chaos --cluster` is the long form. What it leaves is then damaged in every way that the check is to notice.

mod common;

use common::tampering::{change_lines, copy_of, tamperings};
use segue_testkit::rig::{Finding, Kind, Options, Report, chaos, recount, restore};
use segue_testkit::servers::Postgres;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// What comes in a bit more than a minute: who works dies, and each server that is needed is away once.
const FAULTS: [Kind; 7] = [
    Kind::NodeKilled,
    Kind::WorkerKilled,
    Kind::PostgresKilled,
    Kind::RabbitMqKilled,
    Kind::RedisFlushed,
    Kind::S3Failing,
    Kind::Cut,
];

const TAMPERING: &str = include_str!("data/chaos-tamper-cluster.sql");

/// What the check reads besides the database.
const READ: [&str; 5] =
    ["submitted.txt", "journal.txt", "faults.txt", "bodies.txt", "chaos-check-cluster.sql"];

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_chaos_loses_nothing_and_the_check_would_notice() {
    let folder = tempfile::tempdir().unwrap().keep();
    let options = Options {
        binary: env!("CARGO_BIN_EXE_segue").into(),
        dir: folder.clone(),
        seed: u64::from(uuid::Uuid::new_v4().as_fields().0),
        nodes: 2,
        workers: 1,
        tasks: 300,
        lasts: Duration::from_secs(70),
        faults: FAULTS.to_vec(),
        standby: false,
        brokers: 1,
        talks: true,
    };
    let report =
        chaos(&options).await.unwrap_or_else(|why| panic!("{why}; see {}", folder.display()));
    let kept = folder.display();
    assert!(report.holds(), "{}\nlogs: {kept}", report.markdown());
    assert!(report.faults.len() >= 3, "few faults fitted in: {}", report.markdown());
    assert!(counted(&report, "bodies_outside") > 0.0, "{}", report.markdown());
    assert_eq!(counted(&report, "recoveries") as usize, report.faults.len());
    for server in ["postgresql", "rabbitmq", "redis", "s3"] {
        let version = report.servers.get(server).map_or("", String::as_str);
        assert!(version.contains('.'), "{server}: {:?}", report.servers);
    }
    the_check_notices(&folder).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

fn counted(report: &Report, name: &str) -> f64 {
    let found = report.findings.iter().find(|finding| finding.name == name);
    found.and_then(|finding| finding.found.as_f64()).expect("it is counted")
}

/// Does everything to the database and to copies of the files that could have gone wrong in the run, and sees that the check says that and nothing else.
async fn the_check_notices(dir: &Path) {
    let postgres = Postgres::start().await;
    let url = postgres.database().await;
    restore(url.clone(), dir).await.expect("the database is kept whole");
    let check = async |dir: &Path, before: &str| {
        let found = recount(url.clone(), dir, before).await;
        failed(&found.unwrap_or_else(|error| panic!("{error}: {before}")))
    };
    assert_eq!(check(dir, "").await, BTreeSet::new(), "counted again it holds as well");

    let faults = std::fs::read_to_string(dir.join("faults.txt")).expect("read");
    let last = faults.lines().last().and_then(|line| line.split('\t').nth(4));
    let (first, tamperings) = tamperings(TAMPERING);
    let mut names = BTreeSet::new();
    for (name, statements) in tamperings {
        let statements = statements.replace(":fault_over", last.expect("the end of a fault"));
        let noticed = check(dir, &format!("{first}{statements}")).await;
        assert_eq!(noticed, wanted(name), "after {statements}");
        names.extend(noticed);
    }
    for (file, name, change) in CHANGES {
        let copy = copy_of(dir, &READ);
        change_lines(&copy.path().join(file), change);
        let noticed = check(copy.path(), "").await;
        assert_eq!(noticed, wanted(name), "after a change of {file}");
        names.extend(noticed);
    }
    let holds = recount(url.clone(), dir, "").await.expect("counted");
    let all = holds.into_iter().filter(|finding| finding.wanted.is_some());
    assert_eq!(names, all.map(|finding| finding.name).collect(), "each finding is tampered with");
}

/// What may go wrong in a file, and what has to be found then.
type Change = (&'static str, &'static str, fn(&mut Vec<String>));

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

const CHANGES: [Change; 6] = [
    ("journal.txt", "attempt_ran_twice", |lines| lines.push(lines[0].clone())),
    ("journal.txt", "completed_without_work", |lines| lines.retain(|it| !it.ends_with(" end"))),
    ("journal.txt", "ran_too_soon", |lines| lines.reverse()),
    ("journal.txt", "ran_unassigned", |lines| lines.push(format!("{NOBODY} {NOBODY} start"))),
    ("bodies.txt", "body_missing", |lines| drop(lines.pop())),
    ("submitted.txt", "lost, tasks", |lines| lines.push("never-taken-in\t1".to_owned())),
];

fn wanted(names: &str) -> BTreeSet<String> {
    names.split(", ").map(str::to_owned).collect()
}

fn failed(findings: &[Finding]) -> BTreeSet<String> {
    let failed = findings.iter().filter(|finding| finding.holds == Some(false));
    failed.map(|finding| finding.name.clone()).collect()
}
