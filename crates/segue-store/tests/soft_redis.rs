//! Soft state in Redis: asked everything that every adapter is asked, and what happens when its server goes away.

mod soft_support;

use segue_bus::signals::InProcessSignals;
use segue_core::ids::{HostId, InstanceId};
use segue_core::ports::{
    Admission, Beat, GateKey, Gates, InstanceBeat, LockError, Locks, Presence, Signals, SoftError,
    Topic,
};
use segue_store::soft::{Mode, Options, RedisSoft};
use segue_testkit::servers::{
    Certificate, Proxy, Redis, RedisOptions, RedisSentinel, another_authority,
};
use segue_testkit::{bus_suite, gate_suite, lock_suite, presence_suite};
use soft_support::{Rig, options, until};
use std::collections::BTreeMap;
use std::future::ready;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_on_redis() {
    let server = Redis::start().await;
    let url = server.url();
    let make = move || ready(Rig::new(&url));
    presence_suite::ask_all(make.clone()).await;
    lock_suite::ask_all(make.clone()).await;
    gate_suite::ask_all(make.clone()).await;
    bus_suite::hints_are_heard_and_count_once(&make().await).await;
    bus_suite::hints_are_never_needed(&make().await).await;
    projects_do_not_see_each_other(&server).await;
    locks_expire_by_the_servers_own_time(&server).await;
    what_others_wrote_is_left_out(&server).await;
    a_stamp_from_the_future_is_not_believed(&server).await;
    the_doctor_is_told(&server).await;
    everything_comes_back_after_a_flush(&server).await;
}

fn beat(from: HostId, instance: InstanceId) -> Beat {
    let said = InstanceBeat {
        instance,
        host: from,
        node: from,
        name: "a".into(),
        capabilities: vec!["review".into()],
        delegates: false,
        load: 0.0,
        silent_ms: 0,
    };
    let health = BTreeMap::from([(instance, 0.9)]);
    Beat { from, node: None, instances: vec![said], health }
}

fn some() -> (HostId, InstanceId) {
    (HostId(Uuid::new_v4()), InstanceId(Uuid::new_v4()))
}

fn key() -> GateKey {
    GateKey { provider: "p".into(), account: "a".into(), model: "m".into() }
}

async fn projects_do_not_see_each_other(server: &Redis) {
    let (one, two) = (Rig::new(&server.url()).soft().await, Rig::new(&server.url()).soft().await);
    let (node, instance) = some();
    one.beat(beat(node, instance)).await.unwrap();
    assert!(two.everybody().await.unwrap().instances.is_empty());
    one.lock("a", "one", 60_000).await.unwrap();
    two.lock("a", "two", 60_000).await.unwrap();
    one.admit(&key(), 1, 1, 60_000).await.unwrap();
    let admitted = two.admit(&key(), 1, 1, 60_000).await.unwrap();
    assert_eq!(admitted, Admission::Admitted { left: 0 });
}

async fn locks_expire_by_the_servers_own_time(server: &Redis) {
    let locks = Rig::new(&server.url()).soft().await;
    let fence = locks.lock("a", "one", 50).await.unwrap();
    let next =
        until("the lock to expire", async || locks.lock("a", "two", 60_000).await.ok()).await;
    assert!(next.token > fence.token);
    assert!(next.until > fence.until);
}

/// Another version, or somebody by hand: what cannot be read is nobody, and stops nobody.
async fn what_others_wrote_is_left_out(server: &Redis) {
    let rig = Rig::new(&server.url());
    let soft = rig.soft().await;
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    let hash = format!("{{segue:{}}}:instances", rig.prefix);
    let now = server.command(&["TIME"]).await;
    let now = format!("{}000", now.lines().next().unwrap());
    for (id, text) in [
        (Uuid::new_v4().to_string(), format!("{now} {{\"version\":9}}")),
        (Uuid::new_v4().to_string(), "nonsense".to_owned()),
        (Uuid::new_v4().to_string(), String::new()),
        ("no id".to_owned(), format!("{now} {{}}")),
    ] {
        server.command(&["HSET", &hash, &id, &text]).await;
    }
    let lock = format!("{{segue:{}}}:lock:a", rig.prefix);
    server.command(&["HSET", &lock, "holder", "x", "token", "y", "until", "z"]).await;
    let seen = soft.everybody().await.unwrap();
    assert_eq!(seen.instances.into_keys().collect::<Vec<_>>(), [instance]);
    assert_eq!(soft.capable("review").await.unwrap().len(), 1);
    let refused = soft.lock("a", "one", 60_000).await;
    assert!(matches!(refused, Err(LockError::Away(_))), "{refused:?}");
    // What is old or unreadable was cleared away; what another version wrote just now was not.
    assert_eq!(server.command(&["HLEN", &hash]).await, "3");
}

/// After a clock was set back, what it stamped before does not stand above everything that is said from now on.
async fn a_stamp_from_the_future_is_not_believed(server: &Redis) {
    let rig = Rig::new(&server.url());
    let soft = rig.soft().await;
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    let hash = format!("{{segue:{}}}:instances", rig.prefix);
    let mut old = beat(node, instance).instances.remove(0);
    old.load = 0.75;
    let old = format!("32503680000000 {}", serde_json::to_string(&old).unwrap());
    server.command(&["HSET", &hash, &instance.to_string(), &old]).await;
    assert_eq!(soft.everybody().await.unwrap().instances[&instance].beat.load, 0.75);
    soft.beat(beat(node, instance)).await.unwrap();
    assert_eq!(soft.everybody().await.unwrap().instances[&instance].beat.load, 0.0);
}

async fn the_doctor_is_told(server: &Redis) {
    let status = Rig::new(&server.url()).soft().await.status().await.unwrap();
    assert_eq!(status.mode, Mode::Single);
    assert!(status.version.starts_with(|c: char| c.is_ascii_digit()), "{status:?}");
    assert!(status.missing.is_empty(), "{status:?}");
    assert!(status.place.ends_with(&format!("{}/", server.address())), "{status:?}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let status = Rig::new(&server.url()).soft().await.status().await.unwrap();
    assert!(status.missing.iter().any(|what| what.contains("noeviction")), "{status:?}");
}

async fn everything_comes_back_after_a_flush(server: &Redis) {
    let soft = Rig::new(&server.url()).soft().await;
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    let before = soft.lock("a", "one", 60_000).await.unwrap();
    server.flush().await;
    server.command(&["SCRIPT", "FLUSH"]).await;
    assert!(soft.everybody().await.unwrap().instances.is_empty());
    soft.beat(beat(node, instance)).await.unwrap();
    assert_eq!(soft.everybody().await.unwrap().instances.len(), 1);
    let after = soft.lock("a", "two", 60_000).await.unwrap();
    assert!(after.token > before.token, "the first holder's fence is the smaller one");
    assert!(matches!(soft.renew("a", before.token, 1_000).await, Err(LockError::Lost(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_found_again_on_redis() {
    let server = Redis::start().await;
    let rig = Rig::new(&server.url());
    let soft = rig.soft().await;
    let (here, there) = (rig.hints().await, rig.hints().await);
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    let before = soft.lock("a", "one", 60_000).await.unwrap();

    // A restart between two questions is not even noticed.
    server.kill().await;
    server.start_again().await;
    soft.beat(beat(node, instance)).await.unwrap();
    there.listening().await;
    let mut listener = there.listen();

    server.kill().await;
    assert!(matches!(soft.everybody().await, Err(SoftError::Away(_))));
    let asked = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(soft.everybody().await, Err(SoftError::Away(_))));
        assert!(matches!(soft.lock("a", "two", 1_000).await, Err(LockError::Away(_))));
        here.hint(Topic::Ready);
    }
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "a lost Redis holds up nobody, but took {took:?}");
    assert!(soft.status().await.is_err());

    server.start_again().await;
    until("a beat to be taken", async || soft.beat(beat(node, instance)).await.ok()).await;
    assert_eq!(soft.everybody().await.unwrap().instances.len(), 1);
    let after = soft.lock("a", "two", 60_000).await.unwrap();
    assert!(after.token > before.token);

    // Everybody was woken once for what may have been said meanwhile, of whatever topic; and hears again what is said.
    let woken = listener.next(&[Topic::Letters]);
    tokio::time::timeout(Duration::from_secs(60), woken).await.expect("a hint that nobody gave");
    there.listening().await;
    until("a hint over the new connection", async || {
        here.hint(Topic::Duties);
        let heard = listener.next(&[Topic::Duties]);
        tokio::time::timeout(Duration::from_millis(50), heard).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_holds_up_nobody_for_long_on_redis() {
    let server = Redis::start().await;
    let mut quick = options(&server.url(), "hangs");
    quick.command = Duration::from_millis(200);
    quick.connect = Duration::from_millis(200);
    let soft = RedisSoft::connect(quick).await.unwrap();
    let (node, instance) = some();
    until("a first answer", async || soft.everybody().await.ok()).await;
    server.stop();
    let asked = Instant::now();
    for _ in 0..20 {
        assert!(matches!(soft.everybody().await, Err(SoftError::Away(_))));
    }
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(4), "20 questions took {took:?}");
    server.go_on();
    until("a beat to be taken", async || soft.beat(beat(node, instance)).await.ok()).await;
}

#[tokio::test]
async fn what_redis_refuses_is_said_without_the_password_on_redis() {
    let server = Redis::start().await;
    let wrong = format!("redis://:hunter2@{}/", server.address());
    let soft = RedisSoft::connect(options(&wrong, "p")).await.unwrap();
    let Err(error) = soft.status().await else { panic!("the password is wrong") };
    assert!(error.to_string().contains("password"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let bare = format!("redis://{}/", server.address());
    let soft = RedisSoft::connect(options(&bare, "p")).await.unwrap();
    assert!(soft.status().await.is_err());
    for (url, prefix) in [("redis://a", ""), ("redis://a", "a}b"), ("http://a", "p")] {
        assert!(RedisSoft::connect(Options::new(url, prefix)).await.is_err(), "{url} {prefix}");
    }
    let ca = Options { ca: Some("/nowhere".into()), ..Options::new("rediss://a", "p") };
    let Err(error) = RedisSoft::connect(ca).await else { panic!("there is no such file") };
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

/// A thousand hints in a burst are few messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_are_gathered_on_redis() {
    let server = Redis::start().await;
    let rig = Rig::new(&server.url());
    let (here, there) = (rig.hints().await, rig.hints().await);
    let mut listener = there.listen();
    let published = async || {
        let stats = server.command(&["INFO", "commandstats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    let (before, began) = (published().await, Instant::now());
    for _ in 0..1_000 {
        here.hint(Topic::Ready);
        here.hint(Topic::Events);
        tokio::task::yield_now().await;
    }
    let most = 2 + began.elapsed().as_millis() as u64 / 2;
    listener.next(&[Topic::Events]).await;
    let calls = published().await - before;
    assert!((1..=most + 1).contains(&calls), "{calls} messages, at most {most}");
    segue_testkit::bus_suite::others_are_told_and_nobody_here(here, there).await;
}

/// The primary is lost, its replica is promoted, and the old primary comes back as a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_survived_on_redis_with_sentinel() {
    let servers = RedisSentinel::start().await;
    let secret = servers.password();
    let url = format!(
        "redis+sentinel://:{secret}@{}/{}?sentinel_password={secret}",
        servers.address(),
        servers.name()
    );
    let mut options = options(&url, "failover");
    options.connect = Duration::from_secs(2);
    options.command = Duration::from_secs(2);
    let soft = RedisSoft::connect(options.clone()).await.unwrap();
    let other = RedisSoft::connect(options).await.unwrap();
    let (here, there) =
        (soft.signals(InProcessSignals::new()), other.signals(InProcessSignals::new()));
    there.listening().await;
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    assert_eq!(other.everybody().await.unwrap().instances.len(), 1);
    let status = soft.status().await.unwrap();
    assert_eq!(status.mode, Mode::Sentinel);
    assert!(status.missing.iter().any(|what| what.contains("Sentinels")), "{status:?}");
    let before = soft.lock("a", "one", 60_000).await.unwrap();

    let killed = Instant::now();
    servers.first().kill().await;
    assert!(matches!(soft.everybody().await, Err(SoftError::Away(_))));
    until("a beat to be taken", async || soft.beat(beat(node, instance)).await.ok()).await;
    eprintln!("a beat was taken {:?} after the primary was killed", killed.elapsed());
    servers.until_promoted().await;
    until("everybody to be seen", async || {
        other.everybody().await.ok().filter(|all| all.instances.len() == 1)
    })
    .await;
    // The lock may have been replicated or not; whoever gets it next has a greater token.
    let name = if soft.holder("a").await.unwrap().is_some() { "b" } else { "a" };
    let after = soft.lock(name, "two", 60_000).await.unwrap();
    assert!(after.token > before.token);

    let mut listener = there.listen();
    until("a hint over the new primary", async || {
        here.hint(Topic::Duties);
        let heard = listener.next(&[Topic::Duties]);
        tokio::time::timeout(Duration::from_millis(50), heard).await.ok()
    })
    .await;
    servers.first().start_again().await;
    until("a beat to be taken", async || soft.beat(beat(node, instance)).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_by_tls_on_redis() {
    let tls = RedisOptions { tls: true, ..RedisOptions::default() };
    let server = Redis::start_with(tls).await;
    let (node, instance) = some();
    let trusting =
        Options { ca: Some(server.authority().to_owned()), ..options(&server.url(), "tls") };
    let soft = RedisSoft::connect(trusting).await.unwrap();
    soft.status().await.unwrap();
    soft.beat(beat(node, instance)).await.unwrap();
    assert_eq!(soft.everybody().await.unwrap().instances.len(), 1);
    let (here, there) =
        (soft.signals(InProcessSignals::new()), soft.signals(InProcessSignals::new()));
    there.listening().await;
    let mut listener = there.listen();
    here.hint(Topic::Ready);
    listener.next(&[Topic::Ready]).await;
    // Whoever does not know the authority does not talk to its server.
    let soft = RedisSoft::connect(options(&server.url(), "tls")).await.unwrap();
    let Err(error) = soft.status().await else { panic!("the authority is unknown") };
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}

/// The Sentinel is asked and the primary spoken to by TLS, and each has to prove who it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sentinel_and_its_primary_are_spoken_to_by_tls_on_redis() {
    let servers = RedisSentinel::start_with(true).await;
    let secret = servers.password();
    let url = format!(
        "rediss+sentinel://:{secret}@{}/{}?sentinel_password={secret}",
        servers.address(),
        servers.name()
    );
    let with = |ca: Option<&std::path::Path>| Options {
        ca: ca.map(ToOwned::to_owned),
        connect: Duration::from_secs(5),
        ..options(&url, "sentinel")
    };
    let soft = RedisSoft::connect(with(Some(servers.authority()))).await.unwrap();
    assert_eq!(soft.status().await.unwrap().mode, Mode::Sentinel);
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    assert_eq!(soft.everybody().await.unwrap().instances.len(), 1);
    let (here, there) =
        (soft.signals(InProcessSignals::new()), soft.signals(InProcessSignals::new()));
    there.listening().await;
    let mut listener = there.listen();
    here.hint(Topic::Ready);
    listener.next(&[Topic::Ready]).await;

    let refused = async |ca: Option<&std::path::Path>, says: &str| {
        let soft = RedisSoft::connect(with(ca)).await.unwrap();
        let Err(error) = soft.status().await else { panic!("nobody vouches for it") };
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains(secret), "{error}");
    };
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, another_authority()).unwrap();
    refused(None, "UnknownIssuer").await;
    refused(Some(&other), "UnknownIssuer").await;
    // The Sentinel proves who it is, the primary does not.
    servers.first().show(Certificate::OfAnotherName).await;
    refused(Some(servers.authority()), "not valid for name").await;
}

/// Three servers, each with a third of the slots.
async fn cluster(secret: &str) -> Vec<Redis> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        let lines = ["cluster-enabled yes", "cluster-config-file nodes.conf"];
        let mut configuration = lines.map(str::to_owned).to_vec();
        configuration.push(format!("requirepass {secret}"));
        let options = RedisOptions { configuration, ..RedisOptions::default() };
        servers.push(Redis::start_with(options).await);
    }
    for (server, slots) in servers.iter().zip([(0, 5_460), (5_461, 10_922), (10_923, 16_383)]) {
        let (from, to) = (slots.0.to_string(), slots.1.to_string());
        ask(server, secret, &["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
        let port = server.port().to_string();
        ask(&servers[0], secret, &["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    }
    until_whole(&servers, secret).await;
    servers
}

async fn until_whole(servers: &[Redis], secret: &str) {
    for server in servers {
        until("the cluster to be whole", async || {
            let info = ask(server, secret, &["CLUSTER", "INFO"]).await;
            let is_whole = info.contains("cluster_state:ok") && info.contains("cluster_size:3");
            is_whole.then_some(())
        })
        .await;
    }
}

async fn ask(server: &Redis, secret: &str, words: &[&str]) -> String {
    let client = redis::Client::open(format!("redis://:{secret}@{}/", server.address())).unwrap();
    let mut conn = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut conn).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_by_a_cluster_on_redis() {
    let secret = Uuid::new_v4().simple().to_string();
    let servers = cluster(&secret).await;
    let direct: Vec<String> =
        servers.iter().map(|server| format!("redis://:{secret}@{}/", server.address())).collect();
    // One of them is enough to find the others.
    let url = format!("redis+cluster://:{secret}@{}", servers[1].address());
    let make = {
        let url = url.clone();
        move || ready(Rig::of_cluster(direct.clone(), &url))
    };
    presence_suite::ask_all(make.clone()).await;
    lock_suite::ask_all(make.clone()).await;
    gate_suite::ask_all(make.clone()).await;
    bus_suite::hints_are_heard_and_count_once(&make().await).await;

    let soft = RedisSoft::connect(options(&url, "cluster")).await.unwrap();
    let status = soft.status().await.unwrap();
    assert_eq!((status.mode, status.missing.len()), (Mode::Cluster, 0), "{status:?}");
    let (node, instance) = some();
    for server in &servers {
        server.kill().await;
    }
    assert!(matches!(soft.everybody().await, Err(SoftError::Away(_))));
    for server in &servers {
        server.start_again().await;
    }
    until_whole(&servers, &secret).await;
    until("a beat to be taken", async || soft.beat(beat(node, instance)).await.ok()).await;
}

/// A line that is cut without a word: the subscription notices because its own words do not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_was_cut_is_laid_anew_on_redis() {
    let server = Redis::start().await;
    let proxy = Proxy::to(&server.address()).await;
    let url = server.url_by(&proxy.addr());
    let mut options = options(&url, "cut");
    options.connect = Duration::from_millis(500);
    options.command = Duration::from_millis(500);
    let soft = RedisSoft::connect(options).await.unwrap();
    let (here, there) =
        (soft.signals(InProcessSignals::new()), soft.signals(InProcessSignals::new()));
    there.listening().await;
    let (node, instance) = some();
    soft.beat(beat(node, instance)).await.unwrap();
    proxy.cut().await;
    until("nobody to answer", async || soft.everybody().await.err()).await;
    proxy.heal().await;
    until("a beat to be taken", async || soft.beat(beat(node, instance)).await.ok()).await;

    // Nothing comes through any more, and nobody is told: connections stay open, as on a network that lost its way.
    there.listening().await;
    proxy.hold_answers().await;
    let began = Instant::now();
    until("the subscription to be given up", async || (!there.is_listening()).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    proxy.heal().await;
    let mut listener = there.listen();
    until("a hint over the new line", async || {
        here.hint(Topic::Duties);
        let heard = listener.next(&[Topic::Duties]);
        tokio::time::timeout(Duration::from_millis(50), heard).await.ok()
    })
    .await;
}
