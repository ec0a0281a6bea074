//! Checks that no plan by which tasks move depends on statistics: those of a table that was empty a moment ago say that looking at all of it costs
//! nothing.

use super::lane;
use super::line::Target;
use super::options::Options;
use super::outside::LargeBodies;
use super::schema;
use crate::sqlite;
use segue_core::ids::ProjectId;
use segue_testkit::servers::Postgres;
use std::fmt::Write;
use std::sync::Arc;
use uuid::Uuid;

/// Tables of which all rows of a project may be looked at: those that hold few, or only what is under way; and those of shared state, which is
/// read and written one transaction after another.
const WHOLE: [&str; 12] = [
    "agents",
    "counters",
    "cursors",
    "duties",
    "letters",
    "locks",
    "payload",
    "projects",
    "stamps",
    "state_keys",
    "state_policies",
    "state_versions",
];

/// What is wrong with the plan of a statement.
fn wrong(plan: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut of = "";
    for line in plan.lines() {
        if let Some((_, after)) = line.split_once(" on ") {
            of = after.split_whitespace().next().unwrap_or_default();
        }
        let scans_all = line.contains("Seq Scan") || line.trim() == "Index Cond: (project = $1)";
        // Of a queue, the one row at its head, in the order of the index.
        let is_head = line.starts_with("    ") && plan.contains("Recursive Union");
        let is_whole = WHOLE.iter().any(|table| of.starts_with(table));
        if (scans_all && !is_whole && !is_head) || line.contains("Hash Join") {
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
        for finding in wrong(&plan) {
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
