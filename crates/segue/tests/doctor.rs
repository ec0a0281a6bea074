//! `segue doctor` asks the servers of a cluster: what is well, what is not, and what to do.

mod common;

use common::Place;
use segue_testkit::servers::{Postgres, PostgresOptions, RabbitMq, Redis};
use serde_json::Value;
use std::path::Path;

fn write(place: &Place, postgres: &str, rabbitmq: &str, redis: &str) {
    std::fs::write(place.beside("key"), "5e".repeat(32)).unwrap();
    let text = format!(
        "[project]\nid = \"01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f\"\nkey = {{ file = \"key\" }}\n\
         [postgres]\nurl = \"{postgres}\"\n[rabbitmq]\nurls = [\"{rabbitmq}\"]\n[redis]\nurl = \"{redis}\"\n\
         [objects]\nurl = \"{}\"\n",
        place.beside("bodies").display()
    );
    std::fs::write(place.beside("cluster.toml"), text).unwrap();
}

/// What doctor finds, and its exit code.
fn asked(place: &Place, code: i32) -> Vec<(String, String, String)> {
    let file = place.beside("cluster.toml");
    let came = place.segue(&["doctor", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!((came.code, came.err.as_str()), (code, ""), "{came:#?}");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = came.json();
    let checks = checks["checks"].as_array().unwrap().iter();
    let of_servers = checks.filter(|check| {
        ["PostgreSQL", "RabbitMQ", "Redis", "objects", "clock"]
            .contains(&check["check"].as_str().unwrap())
    });
    of_servers
        .map(|check| {
            let found = format!("{} {}", text(check, "verdict"), text(check, "check"));
            (found, text(check, "found"), text(check, "remedy"))
        })
        .collect()
}

#[track_caller]
fn says(findings: &[(String, String, String)], check: &str, found: &str, remedy: &str) {
    let fits = |(of, what, todo): &&(String, String, String)| {
        of == check && what.contains(found) && todo.contains(remedy)
    };
    assert!(
        findings.iter().any(|finding| fits(&finding)),
        "{check} {found:?} {remedy:?}: {findings:#?}"
    );
}

/// The same address with another password.
fn with_wrong_password(url: &str) -> String {
    let (before, host) = url.rsplit_once('@').unwrap();
    let (user, _) = before.rsplit_once(':').unwrap();
    format!("{user}:not-the-password@{host}")
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_what_is_wrong_with_which_server_on_a_cluster() {
    let fsync = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let (postgres, rabbitmq, redis) =
        tokio::join!(Postgres::start_with(fsync), RabbitMq::start(), Redis::start());
    let place = Place::new();
    let (database, vhost) = (postgres.database().await, rabbitmq.vhost().await);
    write(&place, &database, &vhost, &redis.url());
    let all = asked(&place, 0);
    for server in ["ok PostgreSQL", "ok RabbitMQ", "ok Redis"] {
        says(&all, server, "an answer in", "");
        let found = all.iter().find(|finding| finding.0 == server).map(|finding| &finding.1);
        assert!(
            found.is_some_and(|found| found.contains(|c: char| c.is_ascii_digit())),
            "{all:#?}"
        );
    }
    says(&all, "ok objects", "written and read in", "");
    assert!(all.iter().all(|finding| finding.0.starts_with("ok")), "{all:#?}");
    assert!(!Path::new(&place.dir.join(".segue")).exists(), "who looks makes nothing");

    // Who is to speak TLS and does not, is not spoken to at all.
    let encrypted = (format!("{database}?sslmode=require"), vhost.replace("amqp://", "amqps://"));
    write(&place, &encrypted.0, &encrypted.1, &redis.url());
    let all = asked(&place, 1);
    for (server, section) in [("fail PostgreSQL", "[postgres]"), ("fail RabbitMQ", "[rabbitmq]")] {
        says(&all, server, "it does not speak TLS there", section);
    }
    write(&place, &database, &vhost, &redis.url());

    // A standby that commits do not wait for is worth a word.
    let standby = postgres.standby(false).await;
    says(
        &asked(&place, 0),
        "warn PostgreSQL",
        "none of them synchronous",
        "synchronous_standby_names",
    );
    drop(standby);

    write(&place, &with_wrong_password(&database), &with_wrong_password(&vhost), &redis.url());
    let all = asked(&place, 1);
    says(&all, "fail PostgreSQL", "password", "`password` of [postgres]");
    says(&all, "fail RabbitMQ", "", "`password` of [rabbitmq]");
    says(&all, "ok Redis", "an answer in", "");
    let shown = format!("{all:?}");
    assert!(!shown.contains("not-the-password"), "{shown}");

    let (before, _) = database.rsplit_once('/').unwrap();
    let (broker, _) = vhost.rsplit_once('/').unwrap();
    write(&place, &format!("{before}/nowhere"), &format!("{broker}/nowhere"), &redis.url());
    redis.kill().await;
    let all = asked(&place, 1);
    says(&all, "fail PostgreSQL", "nowhere", "CREATE DATABASE");
    says(&all, "fail RabbitMQ", "nowhere", "rabbitmqctl add_vhost");
    // Work goes on without it.
    says(&all, "warn Redis", "", "work goes on without it");

    postgres.kill().await;
    write(&place, &database, &vhost, &redis.url());
    let all = asked(&place, 1);
    says(&all, "fail PostgreSQL", "", "whether the server runs");
    says(&all, "ok RabbitMQ", "an answer in", "");
}
