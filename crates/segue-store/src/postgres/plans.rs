//! Checks that no plan by which tasks move depends on statistics: those of a table that was empty a moment ago say that looking at all of it costs
//! nothing.

use super::lane;
use super::line::Target;
use super::options::Options;
use super::outside::LargeBodies;
use super::{schema, select, specs};
use crate::sqlite;
use segue_core::ids::ProjectId;
use segue_testkit::servers::Postgres;
use std::fmt::Write;
use std::sync::Arc;
use uuid::Uuid;

/// Tables of which a project has few rows, however large it is.
const SMALL: [&str; 4] = [
    // A row for each shard of the lanes: `SHARDS` of them.
    "counters",
    // A sequence.
    "cursors",
    // One row.
    "stamps",
    // What people have written down for themselves; all of it is wanted.
    "state_policies",
];

/// Statements that look at all agents of a project, and are meant to.
const OF_ALL_AGENTS: [&str; 3] = [
    // Once a beat. An index by the end of the lease would be written with every renewal of every instance.
    select::EXPIRED,
    // The same.
    select::ANYTHING,
    // When somebody has registered, or was drained, or has gone.
    specs::NEWER,
];

/// What is wrong with the plan of a statement.
fn wrong(sql: &str, plan: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut of, mut is_limited) = ("", false);
    let mut node = "";
    for line in plan.lines() {
        if line.contains("->") || node.is_empty() {
            // What is below a limit reads no more than that, in the order of its index.
            is_limited = node.trim_start().trim_start_matches("->").trim_start() == "Limit";
            node = line;
        }
        if let Some((_, after)) = line.split_once(" on ") {
            of = after.split_whitespace().next().unwrap_or_default();
        }
        let scans_all = line.contains("Seq Scan") || line.trim() == "Index Cond: (project = $1)";
        let is_meant = SMALL.iter().any(|table| of == *table || of == format!("{table}_pkey"))
            || (of.starts_with("agents") && OF_ALL_AGENTS.contains(&sql));
        if (scans_all && !is_meant && !is_limited) || line.contains("Hash Join") {
            found.push(line.trim().to_owned());
        }
    }
    found
}

async fn check(client: &tokio_postgres::Client, when: &str) -> String {
    let mut findings = String::new();
    for (at, sql) in lane::statements().enumerate() {
        let words = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
        if !words.iter().any(|word| sql.starts_with(word)) {
            continue;
        }
        let values = client.prepare(sql).await.expect("is understood").params().len();
        let values = match values {
            0 => String::new(),
            some => format!("({})", vec!["NULL"; some].join(", ")),
        };
        client.batch_execute(&format!("PREPARE s{at} AS {sql}")).await.expect("is prepared");
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE s{at}{values}");
        let rows = client.simple_query(&explain).await.expect("is explained");
        let mut plan = String::new();
        for row in rows {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = row {
                let _ = writeln!(plan, "{}", row.get(0).unwrap_or_default());
            }
        }
        for finding in wrong(sql, &plan) {
            let _ = writeln!(findings, "{when}: {finding} in\n{sql}\n{plan}");
        }
        client.batch_execute(&format!("DEALLOCATE s{at}")).await.expect("is let go");
    }
    findings
}

#[tokio::test]
async fn no_plan_of_a_lane_looks_at_all_tasks_whatever_the_statistics() {
    let server = Postgres::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let project = ProjectId(Uuid::now_v7());
    let folder = sqlite::SqliteStore::open(sqlite::Options::new(dir.path(), project, [1; 32]));
    let blobs: Arc<dyn LargeBodies> = folder.expect("it opens");
    let options = Options::new(server.database().await, project, [1; 32], blobs);
    let target = Target::of(&options).expect("it is an address");
    let line = target.open([], "").await.expect("it connects");
    schema::migrate(&line).await.expect("the tables are made");
    let (client, wire) = target.connect().await.expect("it connects");
    let wire = tokio::spawn(wire);
    client.batch_execute(target.settings()).await.expect("it is set");
    client.batch_execute(lane::SETTINGS).await.expect("it is set");
    let mut findings = check(&client, "never looked at").await;
    line.script("VACUUM ANALYZE").await.expect("it is looked at");
    findings += &check(&client, "looked at while empty").await;
    // Few rows in few pages, all of one project: looking at all of them would be right, and is not when there are more a moment later.
    let few = "INSERT INTO state_keys (project, key, version) SELECT 1, 'k' || n, n FROM generate_series(1, 20) AS n;
        INSERT INTO edges (project, need, task, order_only) SELECT 1, gen_random_uuid(), gen_random_uuid(), false FROM generate_series(1, 20);
        INSERT INTO payloads (project, hash, body) SELECT 1, sha256(n::text::bytea), '' FROM generate_series(1, 20) AS n;
        INSERT INTO tasks (n, created_at, rank, run_events, project, unmet, attempts, tried, lost, open_children, children, dependents, state,
            priority, hops, queued, id, name, route, input) SELECT n, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 5, 1, true, gen_random_uuid(), 'a', 'agent:a', '1'
            FROM generate_series(1, 20) AS n";
    line.script(few).await.expect("they are written");
    line.script("VACUUM ANALYZE").await.expect("it is looked at");
    findings += &check(&client, "looked at with few rows").await;
    assert!(findings.is_empty(), "{findings}");
    drop(client);
    let _ = wire.await;
}
