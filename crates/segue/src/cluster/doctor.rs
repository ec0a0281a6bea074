//! What `segue doctor` asks of the servers of a cluster.

use super::connect;
use super::settings::Settings;
use super::tls;
use segue_bus::rabbitmq::RabbitBus;
use segue_core::ids::ProjectId;
use segue_store::postgres;
use segue_store::soft::RedisSoft;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that is further off than this is worth a word.
const SKEW_MS: u64 = 2_000;
/// An answer that takes longer than this makes every task slow.
const SLOW: Duration = Duration::from_millis(20);

/// What a server's refusal contains, and what to do then. The last one is for all others.
type Remedies<'a> = [(&'a str, &'a str)];

const POSTGRES_REMEDIES: [(&str, &str); 4] = [
    (
        "password authentication",
        "`password` of [postgres] is not that of the user: correct it, or on the server: ALTER ROLE USER PASSWORD '..'",
    ),
    (
        "database \"",
        "on the server: CREATE DATABASE NAME OWNER USER; or name another one in `url` of [postgres]",
    ),
    (
        "permission denied",
        "the user of [postgres] has to own the database: ALTER DATABASE NAME OWNER TO USER",
    ),
    ("", "check [postgres]: address, user, password, database, TLS; and whether the server runs"),
];
const RABBITMQ_REMEDIES: [(&str, &str); 3] = [
    (
        "ACCESS_REFUSED",
        "`password` of [rabbitmq] is not that of the user, or there is no such user: correct it, or on the broker: rabbitmqctl change_password USER PASSWORD",
    ),
    (
        "vhost",
        "on the broker: rabbitmqctl add_vhost VHOST, and rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'",
    ),
    (
        "",
        "check [rabbitmq]: address, user, password, vhost and its permissions, TLS; and whether the broker runs",
    ),
];
const REDIS_REMEDIES: [(&str, &str); 3] = [
    ("WRONGPASS", "work goes on without it, more slowly; correct `password` of [redis]"),
    ("NOAUTH", "work goes on without it, more slowly; set `password` of [redis]"),
    (
        "",
        "work goes on without it, more slowly; check [redis]: address, password, TLS; and whether the server runs",
    ),
];

/// What a refusal means, and what to do about it. `of` is the section that says how the server is reached, and its authorities.
fn explained(
    remedies: &Remedies<'_>,
    refusal: String,
    (section, ca): (&str, Option<&Path>),
) -> (String, String) {
    if let Some(explained) = tls::explain(&refusal, section, ca) {
        return explained;
    }
    let fits = |(part, _): &&(&str, &str)| refusal.contains(part);
    let remedy = remedies.iter().find(fits).map_or("", |(_, remedy)| *remedy);
    (refusal, remedy.to_owned())
}

/// How something was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Fine(&'static str, String),
    /// It works, and should be looked at: what was found, and what to do.
    Odd(&'static str, String, String),
    /// It does not work: what was found, and what to do.
    Broken(&'static str, String, String),
}

/// Asks every server.
pub async fn examine(settings: &Settings) -> Vec<Finding> {
    let Some(project) = settings.project.as_ref() else { return Vec::new() };
    let (postgres, rabbitmq, redis, objects) = tokio::join!(
        ask_postgres(settings),
        ask_rabbitmq(settings, project.id),
        ask_redis(settings, project.id),
        ask_objects(settings),
    );
    [postgres, rabbitmq, redis, objects].concat()
}

fn took(round_trip: Duration) -> String {
    format!("{:.1} ms", round_trip.as_secs_f64() * 1_000.0)
}

async fn ask_postgres(settings: &Settings) -> Vec<Finding> {
    const NAME: &str = "PostgreSQL";
    let ca = settings.postgres.as_ref().and_then(|postgres| postgres.ca.as_deref());
    let broken = |what: String| {
        let (what, remedy) = explained(&POSTGRES_REMEDIES, what, ("[postgres]", ca));
        vec![Finding::Broken(NAME, what, remedy)]
    };
    let options = match connect::postgres_options(settings) {
        Ok(options) => options,
        Err(error) => return broken(format!("{error:#}")),
    };
    connect::choose_tls();
    let found = match postgres::examine(&options).await {
        Ok(found) => found,
        Err(error) => return broken(error.to_string()),
    };
    let mut findings = Vec::new();
    let text = format!("{}, an answer in {}", found.version, took(found.round_trip));
    findings.push(match found.round_trip > SLOW {
        false => Finding::Fine(NAME, text),
        true => Finding::Odd(
            NAME,
            text,
            "every task takes several round trips: move the nodes nearer".into(),
        ),
    });
    if !found.syncs {
        findings.push(Finding::Broken(
            NAME,
            "fsync is off: a crash of its machine loses what was answered, or all of it".into(),
            "set fsync = on in postgresql.conf".into(),
        ));
    }
    if !found.has_tables {
        let text = "the tables are not there yet: the first node makes them";
        findings.push(Finding::Fine(NAME, text.into()));
    }
    if found.standbys > 0 && found.synchronous_standbys == 0 {
        findings.push(Finding::Odd(
            NAME,
            format!(
                "{} standbys, none of them synchronous: a failover may lose commits",
                found.standbys
            ),
            "set synchronous_standby_names on the primary".into(),
        ));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let here = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let skew = here.abs_diff(u64::try_from(found.now_ms).unwrap_or(0));
    if skew > SKEW_MS {
        findings.push(Finding::Odd(
            "clock",
            format!("this machine's differs from PostgreSQL's by {:.1} s", skew as f64 / 1_000.0),
            "Segue goes by PostgreSQL's, so nothing breaks; set it right for the logs' sake (NTP)"
                .into(),
        ));
    }
    findings
}

async fn ask_rabbitmq(settings: &Settings, project: ProjectId) -> Vec<Finding> {
    const NAME: &str = "RabbitMQ";
    let of = ("[rabbitmq]", settings.rabbitmq.ca.as_deref());
    let broken = |what: String| {
        let (what, remedy) = explained(&RABBITMQ_REMEDIES, what, of);
        vec![Finding::Broken(NAME, what, remedy)]
    };
    connect::choose_tls();
    let bus = match RabbitBus::connect(connect::rabbit_options(settings, project)).await {
        Ok(bus) => bus,
        Err(error) => return broken(error.to_string()),
    };
    let probed = bus.probe().await;
    bus.close().await;
    let found = match probed {
        Ok(found) => found,
        Err(error) => return broken(error.to_string()),
    };
    let version = found.version.unwrap_or_else(|| "of a version that it does not say".into());
    let text = format!("{version} at {}, an answer in {}", found.place, took(found.round_trip));
    let mut findings = vec![Finding::Fine(NAME, text)];
    if !found.missing.is_empty() {
        findings.push(Finding::Broken(
            NAME,
            format!("missing: {}", found.missing.join(", ")),
            "the user needs the rights to configure, write and read in the vhost: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'".into(),
        ));
    }
    if let Some(why) = found.blocked {
        findings.push(Finding::Broken(
            NAME,
            format!("it takes no letters for now: {why}"),
            "`rabbitmqctl status` says which alarm it is: make room on its disk or in its memory, or take what waits in its queues; publishing waits meanwhile".into(),
        ));
    }
    findings
}

async fn ask_redis(settings: &Settings, project: ProjectId) -> Vec<Finding> {
    const NAME: &str = "Redis";
    let Some(options) = connect::redis_options(settings, project) else {
        let text = "there is none: hints go over PostgreSQL, and valid leases count as presence";
        return vec![Finding::Fine(NAME, text.into())];
    };
    let ca = options.ca.clone();
    let broken = |what: String| {
        let (what, remedy) = explained(&REDIS_REMEDIES, what, ("[redis]", ca.as_deref()));
        vec![Finding::Odd(NAME, what, remedy)]
    };
    connect::choose_tls();
    let redis = match RedisSoft::connect(options).await {
        Ok(redis) => redis,
        Err(error) => return broken(error.to_string()),
    };
    match redis.status().await {
        Ok(found) => {
            let text = format!(
                "{} ({}) at {}, an answer in {}",
                found.version,
                found.mode,
                found.place,
                took(found.round_trip)
            );
            let mut findings = vec![Finding::Fine(NAME, text)];
            let missing = found.missing.into_iter();
            let remedy = "set it on the server; docs/cluster.md says what each server has to offer";
            findings.extend(
                missing.map(|what| Finding::Odd(NAME, format!("missing: {what}"), remedy.into())),
            );
            findings
        }
        Err(error) => broken(error.to_string()),
    }
}

async fn ask_objects(settings: &Settings) -> Vec<Finding> {
    const NAME: &str = "objects";
    let (Some(wanted), Some(project)) = (&settings.objects, &settings.project) else {
        return Vec::new();
    };
    let objects = match connect::objects(wanted, project.id) {
        Ok(objects) => objects,
        Err(error) => {
            let remedy = "check [objects]: address and credentials";
            return vec![Finding::Broken(NAME, format!("{error:#}"), remedy.into())];
        }
    };
    let began = Instant::now();
    match objects.now().await {
        Ok(_) => {
            let text = format!("{}, written and read in {}", objects.url(), took(began.elapsed()));
            vec![Finding::Fine(NAME, text)]
        }
        Err(error) => {
            let (of, hint) =
                (("[objects]", wanted.options.ca_file.as_deref()), error.trouble.hint());
            let (what, remedy) = explained(&[("", hint)], error.to_string(), of);
            vec![Finding::Broken(NAME, what, remedy)]
        }
    }
}
