//! A cluster whose servers are spoken to by TLS alone: who cannot prove who it is is not spoken to, `segue doctor` says what is wrong with whose
//! certificate, and no password is ever repeated.

mod common;

use common::{Came, Place};
use segue_testkit::servers::{
    Certificate, Postgres, PostgresOptions, RabbitMq, RabbitMqOptions, Redis, RedisOptions, S3,
    another_authority,
};
use std::fs;
use std::path::Path;

/// What is given to every server that asks for a secret, and is wrong.
const WRONG: &str = "not-the-password";

struct Servers {
    postgres: Postgres,
    rabbitmq: RabbitMq,
    redis: Redis,
    s3: S3,
}

/// How the servers are named in `cluster.toml`.
#[derive(Clone)]
struct Named {
    postgres: String,
    rabbitmq: String,
    redis: String,
    bucket: String,
    secret_key: String,
    /// A file for each, in the order above; the system's authorities without.
    authorities: Option<[String; 4]>,
}

impl Servers {
    async fn start() -> Servers {
        let postgres = PostgresOptions { fsync: true, tls: true, ..PostgresOptions::default() };
        let rabbitmq = RabbitMqOptions { tls: true, ..RabbitMqOptions::default() };
        let redis = RedisOptions { tls: true, ..RedisOptions::default() };
        let (postgres, rabbitmq, redis, s3) = tokio::join!(
            Postgres::start_with(postgres),
            RabbitMq::start_with(rabbitmq),
            Redis::start_with(redis),
            S3::start_with(true)
        );
        Servers { postgres, rabbitmq, redis, s3 }
    }

    async fn named(&self) -> Named {
        let database = self.postgres.database().await;
        let authorities = [
            self.postgres.authority(),
            self.rabbitmq.authority(),
            self.redis.authority(),
            self.s3.authority(),
        ];
        Named {
            postgres: database.replace("sslmode=require", "sslmode=verify-full"),
            rabbitmq: self.rabbitmq.vhost().await,
            redis: self.redis.url(),
            bucket: self.s3.bucket().await,
            secret_key: self.s3.secret_key().to_owned(),
            authorities: Some(authorities.map(|path| path.display().to_string())),
        }
    }

    async fn show(&self, certificate: Certificate) {
        tokio::join!(
            self.postgres.show(certificate),
            self.rabbitmq.show(certificate),
            self.redis.show(certificate),
            self.s3.show(certificate)
        );
    }

    fn write(&self, place: &Place, named: &Named) {
        let ca = |at: usize| match &named.authorities {
            Some(files) => format!("ca = \"{}\"\n", files[at]),
            None => String::new(),
        };
        fs::write(place.beside("key"), "5e".repeat(32)).unwrap();
        let text = format!(
            "[project]\nid = \"01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f\"\nkey = {{ file = \"key\" }}\n\
             [postgres]\nurl = \"{}\"\n{}[rabbitmq]\nurls = [\"{}\"]\n{}[redis]\nurl = \"{}\"\n{}\
             [objects]\nurl = \"s3://{}/bodies\"\nendpoint = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n{}",
            named.postgres,
            ca(0),
            named.rabbitmq,
            ca(1),
            named.redis,
            ca(2),
            named.bucket,
            self.s3.endpoint(),
            self.s3.access_key(),
            named.secret_key,
            ca(3),
        );
        fs::write(place.beside("cluster.toml"), text).unwrap();
    }

    /// The passwords that clients are to give.
    fn secrets(&self, named: &Named) -> Vec<String> {
        let of = |url: &str| password(url).to_owned();
        let urls = [&self.postgres.url("x"), &self.rabbitmq.url(0, "x"), &self.redis.url()]
            .map(|url| of(url));
        let mut all = urls.to_vec();
        all.extend([named.secret_key.clone(), self.s3.secret_key().to_owned(), "5e".repeat(32)]);
        all
    }
}

fn password(url: &str) -> &str {
    let (before, _) = url.rsplit_once('@').unwrap();
    before.rsplit_once(':').unwrap().1
}

/// A command about the cluster.
fn run(place: &Place, args: &[&str]) -> Came {
    let file = place.beside("cluster.toml");
    let mut command = place.command(args);
    command.args(["--config", file.to_str().unwrap()]);
    // Everything that there is to tell: a secret that is in none of it is in nothing.
    command.env("SEGUE_LOG", "trace");
    common::came(&mut command)
}

/// What doctor says about each of the four.
fn doctor(place: &Place, code: i32) -> [String; 4] {
    let came = run(place, &["doctor", "--json"]).with(code);
    let found = came.json();
    ["PostgreSQL", "RabbitMQ", "Redis", "objects"].map(|server| {
        let check = found["checks"].as_array().unwrap().iter().find(|it| it["check"] == server);
        let check = check.unwrap_or_else(|| panic!("{server} is missing: {found:#}"));
        let text = |key: &str| check[key].as_str().unwrap_or_default();
        format!("{} | {} | {}", text("verdict"), text("found"), text("remedy"))
    })
}

/// Every one of the four is refused, for this reason, with this remedy; work goes on without Redis.
#[track_caller]
fn all_say(place: &Place, what: &str, remedy: &str) {
    let found = doctor(place, 1);
    for (said, (verdict, section)) in found.iter().zip([
        ("fail", "[postgres]"),
        ("fail", "[rabbitmq]"),
        ("warn", "[redis]"),
        ("fail", "[objects]"),
    ]) {
        let remedy = remedy.replace("SECTION", section);
        let [is, why, todo]: [&str; 3] =
            said.splitn(3, " | ").collect::<Vec<_>>().try_into().unwrap();
        assert!(is == verdict && why.starts_with(what) && todo.contains(&remedy), "{found:#?}");
    }
}

/// Fails where one of these texts is in what was said, or in a file of the project.
#[track_caller]
fn nothing_tells(secrets: &[String], place: &Place, came: &Came) {
    let mut all = format!("{}{}", came.out, came.err);
    let mut folders = vec![place.dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            match entry.file_type().unwrap() {
                it if it.is_dir() => folders.push(path),
                it if it.is_file() => all += &String::from_utf8_lossy(&fs::read(path).unwrap()),
                _ => {}
            }
        }
    }
    for secret in secrets {
        if let Some(at) = all.find(secret.as_str()) {
            let from = all[..at].rfind('\n').map_or(0, |at| at + 1);
            panic!("a secret is told: {}", all[from..at].chars().take(400).collect::<String>());
        }
    }
}

fn one_task(place: &Place) {
    let file = place.beside("cluster.toml");
    let config = ["--config", file.to_str().unwrap(), "--node", "one"];
    let up = place.up(&config);
    // More than a row holds: it goes through the bucket.
    let text = place.write("long.json", &format!("\"{}\"", "l".repeat(100_000)));
    let input = format!("@{}", text.display());
    let args = ["submit", "--agent", "echo", "--input", &input, "--wait"];
    let came = place.segue(&[&args[..], &config[..]].concat());
    assert_eq!(came.code, 0, "{came:#?}");
    assert!(came.out.contains(&"l".repeat(1_000)), "{}", came.out.len());
    up.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_prove_who_it_is_is_not_spoken_to_on_a_cluster() {
    let servers = Servers::start().await;
    let place = Place::new();
    let named = servers.named().await;
    servers.write(&place, &named);
    for found in doctor(&place, 0) {
        assert!(found.starts_with("ok | "), "{found}");
    }
    one_task(&place);

    servers.write(&place, &Named { authorities: None, ..named.clone() });
    let unknown = "its certificate is signed by an authority that is not trusted here: ";
    all_say(
        &place,
        unknown,
        "name the PEM file with the authority that signed it: `ca` of SECTION",
    );
    let other = place.beside("other.pem");
    fs::write(&other, another_authority()).unwrap();
    let others = [(); 4].map(|()| other.display().to_string());
    servers.write(&place, &Named { authorities: Some(others), ..named.clone() });
    let remedy = format!("{}, which `ca` of SECTION names", other.display());
    all_say(&place, unknown, &remedy);

    servers.write(&place, &named);
    servers.show(Certificate::Expired).await;
    all_say(&place, "its certificate has expired: ", "give the server a new certificate");
    servers.show(Certificate::OfAnotherName).await;
    all_say(
        &place,
        "its certificate is for another name: ",
        "name the host in SECTION as the certificate does",
    );
    servers.show(Certificate::Good).await;
    passwords_are_never_told(&servers, &place, named).await;
}

/// Every server is given a wrong password, by everything that speaks to it, with the log turned up.
async fn passwords_are_never_told(servers: &Servers, place: &Place, right: Named) {
    let wrong = |url: &str| url.replace(password(url), WRONG);
    let right = Named { bucket: servers.s3.bucket().await, ..right };
    let mut secrets = servers.secrets(&right);
    secrets.push(WRONG.to_owned());
    let each = [
        Named { postgres: wrong(&right.postgres), ..right.clone() },
        Named { rabbitmq: wrong(&right.rabbitmq), ..right.clone() },
        Named { redis: wrong(&right.redis), ..right.clone() },
        // The server takes any key; this one leads to no bucket.
        Named { secret_key: WRONG.to_owned(), bucket: "nowhere".to_owned(), ..right },
    ];
    for (at, named) in each.iter().enumerate() {
        servers.write(place, named);
        let verdict = if at == 2 { "warn" } else { "fail" };
        let code = i32::from(at != 2);
        let came = run(place, &["doctor", "--json"]).with(code);
        assert!(came.out.contains(verdict) && came.err.lines().count() > 10, "{came:#?}");
        nothing_tells(&secrets, place, &came);
    }
    for at in [0, 1] {
        servers.write(place, &each[at]);
        let came = run(place, &["up", "--node", "one"]);
        assert_ne!(came.code, 0, "{came:#?}");
        nothing_tells(&secrets, place, &came);
    }
    servers.write(place, &each[3]);
    let came = run(place, &["backup", "list", "s3://nowhere/backups"]);
    assert_ne!(came.code, 0, "{came:#?}");
    nothing_tells(&secrets, place, &came);
}

/// What reads a file and finds a secret in it has to fail.
#[test]
#[should_panic(expected = "a secret is told")]
fn a_secret_in_a_file_of_the_project_is_found() {
    let place = Place::new();
    fs::write(Path::new(&place.dir).join("some.log"), format!("a line\nwith {WRONG} in it"))
        .unwrap();
    let came = Came { code: 0, out: String::new(), err: String::new() };
    nothing_tells(&[WRONG.to_owned()], &place, &came);
}
