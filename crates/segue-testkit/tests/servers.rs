//! The servers that tests start: they start, keep or forget what they should when they are killed, and end with who started them.

use segue_testkit::servers::{
    Postgres, PostgresOptions, RabbitMq, RabbitMqOptions, Redis, RedisOptions, RedisSentinel, S3,
};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn listens(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

#[tokio::test]
async fn a_killed_postgres_starts_again_on_postgres() {
    let server = Postgres::start().await;
    assert!(listens(&server.address()));
    let first = server.database_name().await;
    assert_ne!(server.database_name().await, first);
    assert!(server.url(&first).ends_with(&first));
    server.kill().await;
    assert!(!listens(&server.address()));
    server.start_again().await;
    server.database_name().await;
    server.stop();
    assert!(listens(&server.address()), "a stopped server's port stays open");
    server.go_on();
    server.database_name().await;
    let address = server.address();
    drop(server);
    assert!(!listens(&address));
}

#[tokio::test]
async fn a_killed_rabbit_mq_starts_again_on_rabbitmq() {
    let server = RabbitMq::start().await;
    assert!(listens(&server.address(0)));
    let vhost = server.vhost_name().await;
    server.alarm(true).await;
    server.alarm(false).await;
    server.kill().await;
    assert!(!listens(&server.address(0)));
    server.start_again().await;
    let kept = format!("lists:member(<<\"{vhost}\">>, rabbit_vhost:list_names()).");
    assert_eq!(server.eval(&kept).await, "{ok, true}");
    let address = server.address(0);
    drop(server);
    assert!(!listens(&address));
}

#[tokio::test]
async fn a_killed_redis_starts_again_and_has_forgotten_on_redis() {
    let server = Redis::start().await;
    assert_eq!(server.command(&["SET", "a", "1"]).await, "OK");
    assert_eq!(server.command(&["GET", "a"]).await, "1");
    server.flush().await;
    assert_eq!(server.command(&["GET", "a"]).await, "");
    assert_eq!(server.command(&["SET", "a", "1"]).await, "OK");
    server.kill().await;
    assert!(!listens(&server.address()));
    server.start_again().await;
    assert_eq!(server.command(&["GET", "a"]).await, "");
    let address = server.address();
    drop(server);
    assert!(!listens(&address));
}

#[tokio::test]
async fn a_killed_s3_starts_again_on_s3() {
    let server = S3::start().await;
    let first = server.bucket().await;
    assert_ne!(server.bucket().await, first);
    server.kill().await;
    assert!(!listens(&server.address()));
    server.start_again().await;
    server.bucket().await;
    let address = server.address();
    drop(server);
    assert!(!listens(&address));
}

#[tokio::test]
async fn a_standby_takes_over_on_postgres() {
    let primary = Postgres::start().await;
    let (before, standby) = (primary.database_name().await, primary.standby(true).await);
    assert!(primary.has(&before).await && standby.has(&before).await);
    let after = primary.database_name().await;
    primary.kill().await;
    standby.promote().await;
    assert!(standby.has(&after).await, "a commit that was answered for is there");
    let new = standby.database_name().await;
    let next = standby.standby(false).await;
    assert!(next.has(&new).await);
}

#[tokio::test]
async fn a_replica_takes_over_on_redis() {
    let server = RedisSentinel::start().await;
    assert_eq!(server.first().command(&["SET", "a", "1"]).await, "OK");
    assert_eq!(server.first().command(&["WAIT", "1", "10000"]).await, "1");
    server.first().kill().await;
    server.until_promoted().await;
    assert_eq!(server.second().command(&["GET", "a"]).await, "1");
    assert!(listens(&server.address()));
}

#[tokio::test]
async fn a_cluster_goes_on_without_a_node_on_a_cluster() {
    let server = RabbitMq::cluster(3).await;
    let running = "length([N || N <- [node() | nodes()], rabbit:is_running(N)]).";
    assert_eq!(server.eval(running).await, "{ok, 3}");
    server.kill_node(0).await;
    assert!(!listens(&server.address(0)) && listens(&server.address(1)));
    let vhost = server.vhost_name().await;
    server.start_node_again(0).await;
    assert_eq!(server.eval(running).await, "{ok, 3}");
    server.kill().await;
    server.start_again().await;
    let kept = format!("lists:member(<<\"{vhost}\">>, rabbit_vhost:list_names()).");
    assert_eq!(server.eval(&kept).await, "{ok, true}");
}

/// A TLS handshake as openssl makes it, which trusts this authority alone.
fn shakes_hands(address: &str, authority: &std::path::Path, more: &[&str]) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-verify_return_error", "-verify_hostname", "localhost"]);
    openssl.args(["-connect", address, "-CAfile"]).arg(authority).args(more);
    let output = openssl.stdin(Stdio::null()).output().expect("openssl is installed");
    output.status.success()
}

#[tokio::test]
async fn tls_is_all_they_take_on_postgres() {
    let tls = PostgresOptions { tls: true, ..Default::default() };
    let (server, other) =
        tokio::join!(Postgres::start_with(tls.clone()), Postgres::start_with(tls));
    let more = ["-starttls", "postgres"];
    assert!(shakes_hands(&server.address(), server.authority(), &more));
    assert!(!shakes_hands(&server.address(), other.authority(), &more));
    let name = server.database_name().await;
    assert!(server.url(&name).ends_with("?sslmode=require"));
    let standby = server.standby(false).await;
    assert!(standby.has(&name).await);
}

#[tokio::test]
async fn tls_is_all_they_take_on_redis() {
    let tls = RedisOptions { tls: true, ..Default::default() };
    let (server, other) = tokio::join!(Redis::start_with(tls.clone()), Redis::start_with(tls));
    assert!(shakes_hands(&server.address(), server.authority(), &[]));
    assert!(!shakes_hands(&server.address(), other.authority(), &[]));
    assert_eq!(server.command(&["PING"]).await, "PONG");
}

#[tokio::test]
async fn tls_is_all_they_take_on_rabbitmq() {
    let server = RabbitMq::start_with(RabbitMqOptions { tls: true, ..Default::default() }).await;
    assert!(shakes_hands(&server.address(0), server.authority(), &[]));
    assert!(server.vhost().await.starts_with("amqps://"));
}

/// Tells the test below that it is the process that starts servers and is killed.
const STARTER: &str = "SEGUE_TEST_STARTS_SERVERS";

/// What a starter prints before the addresses of its servers.
const LISTENING: &str = "listening on ";

/// Everything that descends from this process.
fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("processes can be listed")
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![of];
    let mut at = 0;
    while at < found.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == found[at]);
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
        at += 1;
    }
    found.split_off(1)
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// A process that has started servers in this folder, and their addresses.
fn starter(folder: &std::path::Path) -> (Child, Vec<String>) {
    let own = std::env::current_exe().expect("a test knows its program");
    let mut starter = Command::new(own);
    starter.args(["--exact", "servers_end_with_a_starter_that_dies_by_kill_9", "--nocapture"]);
    starter.env(STARTER, "1").env("TMPDIR", folder).stderr(Stdio::piped());
    let mut starter = starter.spawn().expect("a test can be started");
    let lines = BufReader::new(starter.stderr.take().expect("its output is a pipe")).lines();
    let listening = lines.map_while(Result::ok).find_map(|line| {
        line.split_once(LISTENING).map(|(_, to)| to.split(' ').map(str::to_owned).collect())
    });
    (starter, listening.expect("the starter says where its servers listen"))
}

#[tokio::test]
async fn servers_end_with_a_starter_that_dies_by_kill_9() {
    if std::env::var_os(STARTER).is_some() {
        let (postgres, redis, rabbit) =
            tokio::join!(Postgres::start(), Redis::start(), RabbitMq::start());
        let addresses = [postgres.address(), redis.address(), rabbit.address(0)];
        eprintln!("{LISTENING}{}", addresses.join(" "));
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (mut starter, addresses) = starter(folder.path());
    assert!(addresses.len() == 3 && addresses.iter().all(|address| listens(address)));
    let started = descendants(starter.id());
    // A keeper and a server each, the children of PostgreSQL, Erlang's helpers, and epmd.
    assert!(started.len() > 12, "{started:?}");
    starter.kill().expect("it can be killed");
    starter.wait().expect("it ends");
    let began = Instant::now();
    loop {
        let left: Vec<&u32> = started.iter().filter(|pid| runs(**pid)).collect();
        let files = std::fs::read_dir(folder.path()).expect("the folder is there").count();
        if left.is_empty() && files == 0 {
            break;
        }
        let patience = Duration::from_secs(30);
        assert!(began.elapsed() < patience, "{left:?} still run, {files} folders are left");
        tokio::task::yield_now().await;
    }
    assert!(!addresses.iter().any(|address| listens(address)));
}
