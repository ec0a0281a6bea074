//! `cluster.toml`: what the nodes of a project share, and what a worker needs.

use super::read::{Environment, FILE_MAX, Reader, Secret, Section, Wrong, with_password};
use crate::backups::{self, BackupConfig, EVERY_MS_MIN};
use crate::failure::{Failure, Outcome};
use segue_core::ids::ProjectId;
use segue_core::payload::Hash;
use segue_core::worker::{WorkerToken, check_name};
use segue_store::backup::Keep;
use segue_store::objects;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// What stands in the file, checked. Its `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// The project, for a node.
    pub project: Option<ProjectSettings>,
    /// The tables, for a node.
    pub postgres: Option<PostgresSettings>,
    /// The letters.
    pub rabbitmq: RabbitSettings,
    /// The soft state, if there is one to share.
    pub redis: Option<RedisSettings>,
    /// Where large bodies are, for a node.
    pub objects: Option<ObjectsSettings>,
    /// Where backups go, if somewhere.
    pub backup: Option<BackupSettings>,
    /// How long runs are kept after their end, in milliseconds; for ever where nobody says otherwise.
    pub keep_runs_ms: Option<u64>,
    /// This node.
    pub node: NodeSettings,
    /// This worker.
    pub worker: WorkerSettings,
}

/// Who the project is.
#[derive(Clone)]
pub struct ProjectSettings {
    /// Its id.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// The key from which attempts' secrets and workers' tokens derive.
    pub key: [u8; 32],
}

impl fmt::Debug for ProjectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectSettings")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How PostgreSQL is reached.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Where it is.
    pub url: Secret,
    /// The authorities to trust.
    pub ca: Option<PathBuf>,
    /// Transactions that may be open at a time.
    pub lanes: usize,
}

/// How RabbitMQ is reached.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// Where its nodes are.
    pub urls: Vec<Secret>,
    /// What the names of exchanges and queues begin with; the project's id and a dot where nobody says otherwise.
    pub prefix: Option<String>,
    /// The authorities to trust.
    pub ca: Option<PathBuf>,
    /// Users of the broker whose messages may give out work; everybody's where there are none.
    pub engine_users: Vec<String>,
}

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is.
    pub url: Secret,
    /// The authorities to trust.
    pub ca: Option<PathBuf>,
}

/// Where large bodies are.
#[derive(Clone, Debug)]
pub struct ObjectsSettings {
    /// `s3://bucket/prefix`, or a folder that every node sees.
    pub url: String,
    /// How the bucket is reached.
    pub options: objects::Options,
}

/// Where backups go.
#[derive(Clone, Debug)]
pub struct BackupSettings {
    /// The place, how often, and how many are kept.
    pub plan: BackupConfig,
    /// How the bucket is reached: as that of the bodies, where nobody says otherwise.
    pub options: objects::Options,
}

/// This node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its name.
    pub name: String,
    /// Which of the agents that are defined here it hosts; all where `None`.
    pub agents: Option<Vec<String>>,
    /// How long without a word it takes others for gone, in milliseconds.
    pub lease_ms: Option<u64>,
}

/// This worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// What it was given.
    pub token: Option<WorkerToken>,
    /// Which of the agents that are defined here it hosts; all where `None`.
    pub agents: Option<Vec<String>>,
    /// Where it keeps its life and its spool; `.segue/workers/NAME` where nobody says otherwise.
    pub state: Option<PathBuf>,
    /// How long it may be silent before its work is given to others, in milliseconds.
    pub lease_ms: u64,
}

/// For whom the file is read: what must not be missing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A node.
    Node,
    /// A worker.
    Worker,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn load(file: &Path, whom: For) -> Outcome<Settings> {
        let unreadable = |error: &dyn fmt::Display| {
            Failure::usage(format!("cannot read {}: {error}", file.display()))
                .hint("docs/cluster.md says what stands in it; `segue cluster init` writes one")
        };
        let found = std::fs::metadata(file).map_err(|error| unreadable(&error))?;
        if found.len() > FILE_MAX {
            return Err(unreadable(&format!("it has more than {FILE_MAX} bytes")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
        let environment = |name: &str| std::env::var(name).ok();
        Settings::read(&text, file, whom, &environment).map_err(|wrong| {
            let lines: Vec<String> = wrong.iter().map(|wrong| format!("  {wrong}")).collect();
            let message = format!("{} is wrong:\n{}", file.display(), lines.join("\n"));
            Failure::usage(message).hint("docs/cluster.md describes every key")
        })
    }

    /// Those of a worker that has no file: whatever matters comes from its command line.
    pub fn of_worker() -> Settings {
        let name = machine();
        Settings {
            file: PathBuf::new(),
            project: None,
            postgres: None,
            rabbitmq: RabbitSettings {
                urls: Vec::new(),
                prefix: None,
                ca: None,
                engine_users: Vec::new(),
            },
            redis: None,
            objects: None,
            backup: None,
            keep_runs_ms: None,
            node: NodeSettings { name, agents: None, lease_ms: None },
            worker: WorkerSettings { token: None, agents: None, state: None, lease_ms: 30_000 },
        }
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(
        text: &str,
        file: &Path,
        whom: For,
        environment: Environment<'_>,
    ) -> Result<Settings, Vec<Wrong>> {
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line =
                1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
            vec![Wrong { line, what: error.message().to_owned() }]
        })?;
        let mut reader = Reader::new(text, folder, environment);
        let [project, postgres, rabbitmq, redis, objects, backup, prune, node, worker] = reader
            .sections(
                table.get_ref(),
                [
                    "project", "postgres", "rabbitmq", "redis", "objects", "backup", "prune",
                    "node", "worker",
                ],
            );
        let for_node = whom == For::Node;
        let objects = read_objects(&mut reader, objects, for_node);
        let settings = Settings {
            file: file.to_owned(),
            project: read_project(&mut reader, project, for_node),
            postgres: read_postgres(&mut reader, postgres, for_node),
            rabbitmq: read_rabbitmq(&mut reader, rabbitmq),
            redis: read_redis(&mut reader, redis),
            backup: read_backup(&mut reader, backup, objects.as_ref()),
            keep_runs_ms: read_prune(&mut reader, prune),
            objects,
            node: read_node(&mut reader, node),
            worker: read_worker(&mut reader, worker),
        };
        match reader.finish() {
            wrong if wrong.is_empty() => Ok(settings),
            wrong => Err(wrong),
        }
    }
}

fn read_project<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    is_needed: bool,
) -> Option<ProjectSettings> {
    if !section.is_there() && !is_needed {
        return None;
    }
    let line = section.line();
    let name = reader.text(&mut section, "name").unwrap_or_else(|| "segue".to_owned());
    let id = reader.needed(&mut section, "id");
    let key = reader.needed(&mut section, "key");
    reader.close(&section);
    let id = id.reveal().parse().map_err(|_| {
        if !id.reveal().is_empty() {
            reader.note(line, "`id` of [project] is a UUID: `segue cluster init` makes one");
        }
    });
    let key = Hash::from_hex(key.reveal().trim()).ok_or_else(|| {
        if !key.reveal().is_empty() {
            let what = "`key` of [project] is 64 hexadecimal digits: `segue cluster key` makes one";
            reader.note(line, what);
        }
    });
    Some(ProjectSettings { id: id.ok()?, name, key: key.ok()?.0 })
}

/// A URL of a section, with the password that may stand apart from it.
fn read_url<'a>(
    reader: &mut Reader<'a>,
    section: &mut Section<'a>,
    schemes: &[&str],
    user_needed: bool,
) -> Secret {
    let url = reader.needed(section, "url");
    let password = reader.secret(section, "password");
    checked_url(reader, section, url, password.as_ref(), schemes, user_needed)
}

fn checked_url(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    url: Secret,
    password: Option<&Secret>,
    schemes: &[&str],
    user_needed: bool,
) -> Secret {
    let scheme = url.reveal().split_once("://").map(|(scheme, _)| scheme);
    if !url.reveal().is_empty() && !scheme.is_some_and(|scheme| schemes.contains(&scheme)) {
        reader.note(section.line(), format!("a URL begins with {}://", schemes.join(":// or ")));
        return url;
    }
    let Some(password) = password.filter(|_| !url.reveal().is_empty()) else { return url };
    match with_password(&url, password, user_needed) {
        Ok(url) => url,
        Err(what) => {
            reader.note(section.line(), what);
            url
        }
    }
}

fn read_postgres<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    is_needed: bool,
) -> Option<PostgresSettings> {
    if !section.is_there() && !is_needed {
        return None;
    }
    let url = read_url(reader, &mut section, &["postgresql", "postgres"], true);
    let ca = reader.path(&mut section, "ca");
    let lanes = reader.number(&mut section, "lanes", 1..=64).unwrap_or(2);
    reader.close(&section);
    Some(PostgresSettings { url, ca, lanes: usize::try_from(lanes).unwrap_or(2) })
}

fn read_rabbitmq<'a>(reader: &mut Reader<'a>, mut section: Section<'a>) -> RabbitSettings {
    let urls = reader.texts(&mut section, "urls");
    let password = reader.secret(&mut section, "password");
    let prefix = reader.text(&mut section, "prefix");
    let ca = reader.path(&mut section, "ca");
    let users = reader.texts(&mut section, "engine_users").unwrap_or_default();
    reader.close(&section);
    let urls = urls.unwrap_or_default();
    if urls.is_empty() {
        reader
            .note(section.line(), "[rabbitmq] needs `urls`, such as [\"amqp://USER@HOST/VHOST\"]");
    }
    let schemes = ["amqp", "amqps"];
    let check = |url| checked_url(reader, &section, url, password.as_ref(), &schemes, true);
    let urls = urls.into_iter().map(check).collect();
    let engine_users = users.iter().map(|user| user.reveal().to_owned()).collect();
    RabbitSettings { urls, prefix, ca, engine_users }
}

fn read_redis<'a>(reader: &mut Reader<'a>, mut section: Section<'a>) -> Option<RedisSettings> {
    if !section.is_there() {
        return None;
    }
    let schemes =
        ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"];
    let url = read_url(reader, &mut section, &schemes, false);
    let ca = reader.path(&mut section, "ca");
    reader.close(&section);
    Some(RedisSettings { url, ca })
}

fn read_objects<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    is_needed: bool,
) -> Option<ObjectsSettings> {
    if !section.is_there() && !is_needed {
        return None;
    }
    let url = reader.needed(&mut section, "url").reveal().to_owned();
    let options = read_bucket(reader, &mut section);
    reader.close(&section);
    Some(ObjectsSettings { url, options: options.or_environment() })
}

/// How a bucket is reached, as a section says it.
fn read_bucket<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>) -> objects::Options {
    let secret = |text: Secret| objects::Secret::new(text.reveal());
    objects::Options {
        endpoint: reader.text(section, "endpoint"),
        region: reader.text(section, "region"),
        access_key_id: reader.text(section, "access_key_id"),
        secret_access_key: reader.secret(section, "secret_access_key").map(secret),
        session_token: reader.secret(section, "session_token").map(secret),
        path_style: reader.flag(section, "path_style"),
        ca_file: reader.path(section, "ca"),
        allow_http: reader.flag(section, "allow_http").unwrap_or(false),
        instance_role: reader.flag(section, "instance_role").unwrap_or(false),
    }
}

fn read_backup<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    bodies: Option<&ObjectsSettings>,
) -> Option<BackupSettings> {
    if !section.is_there() {
        return None;
    }
    let to = reader.needed(&mut section, "to").reveal().to_owned();
    let every = reader.duration(&mut section, "every");
    let keep = read_keep(reader, &mut section);
    let own = read_bucket(reader, &mut section);
    reader.close(&section);
    if every.is_some_and(|every| every < EVERY_MS_MIN) {
        reader.note(section.line(), "`every` of [backup]: backups are made once a minute at most");
    }
    let to = backups::absolute(&to, reader.folder()).unwrap_or_else(|failure| {
        reader.note(section.line(), format!("`to` of [backup]: {}", failure.message));
        to
    });
    let is_own = own != objects::Options::default();
    let options = match bodies {
        Some(bodies) if !is_own => bodies.options.clone(),
        _ => own.or_environment(),
    };
    Some(BackupSettings { plan: BackupConfig { to, every, keep }, options })
}

fn read_keep<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>) -> Keep {
    let Some(mut keep) = reader.inner(section, "keep") else { return Keep::default() };
    let mut number = |key| {
        let found = reader.number(&mut keep, key, 0..=u64::from(u32::MAX)).unwrap_or(0);
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    let (last, hourly) = (number("last"), number("hourly"));
    let (daily, weekly) = (number("daily"), number("weekly"));
    reader.close(&keep);
    Keep { last, hourly, daily, weekly }
}

fn read_prune<'a>(reader: &mut Reader<'a>, mut section: Section<'a>) -> Option<u64> {
    if !section.is_there() {
        return None;
    }
    let age = reader.duration(&mut section, "older_than");
    reader.close(&section);
    if age.is_none() {
        reader.note(section.line(), "[prune] needs `older_than`, such as \"30d\"");
    }
    age
}

fn read_node<'a>(reader: &mut Reader<'a>, mut section: Section<'a>) -> NodeSettings {
    let name = reader.text(&mut section, "name").unwrap_or_else(machine);
    let agents = reader.texts(&mut section, "agents");
    let lease_ms = reader.duration(&mut section, "lease");
    reader.close(&section);
    if let Err(error) = check_name(&name) {
        reader.note(section.line(), format!("`name` of [node]: {error}"));
    }
    if lease_ms.is_some_and(|lease| !(3_000..=600_000).contains(&lease)) {
        reader.note(section.line(), "`lease` of [node] is from 3s to 10m");
    }
    let names = |names: Vec<Secret>| names.iter().map(|name| name.reveal().to_owned()).collect();
    NodeSettings { name, agents: agents.map(names), lease_ms }
}

fn read_worker<'a>(reader: &mut Reader<'a>, mut section: Section<'a>) -> WorkerSettings {
    let text = reader.secret(&mut section, "token");
    let agents = reader.texts(&mut section, "agents");
    let state = reader.text(&mut section, "state").map(PathBuf::from);
    let lease_ms = reader.duration(&mut section, "lease").unwrap_or(30_000);
    reader.close(&section);
    let token = text.and_then(|text| match text.reveal().parse::<WorkerToken>() {
        Ok(token) => Some(token),
        Err(error) => {
            reader.note(section.line(), format!("`token` of [worker]: {error}"));
            None
        }
    });
    if !(3_000..=600_000).contains(&lease_ms) {
        reader.note(section.line(), "`lease` of [worker] is from 3s to 10m");
    }
    let names = |names: Vec<Secret>| names.iter().map(|name| name.reveal().to_owned()).collect();
    WorkerSettings { token, agents: agents.map(names), state, lease_ms }
}

/// The name of this machine, as far as it can be the name of a node.
pub fn machine() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = name.unwrap_or_default().chars().filter(fits).take(64).collect();
    if check_name(&name).is_ok() { name } else { "node".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use segue_core::worker::TokenMaker;

    const GOOD: &str = r#"
[project]
name = "team"
id = "01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f"
key = { env = "KEY" }

[postgres]
url = "postgresql://segue@db1:5432,db2:5432/segue?target_session_attrs=read-write"
password = { file = "pg" }
lanes = 3

[rabbitmq]
urls = ["amqp://${AMQP_USER}@mq1/team", "amqps://segue@mq2/team"]
password = "hidden-mq"
engine_users = ["segue"]

[redis]
url = "redis+sentinel://s1:26379,s2:26379/main"
password = "hidden-redis"

[objects]
url = "s3://bucket/segue"
access_key_id = "AK"
secret_access_key = "hidden-s3"

[backup]
to = "backups"
every = "1h"
keep = { last = 24, daily = 7 }

[prune]
older_than = "30d"

[node]
name = "east-1"
agents = ["reviewer"]
"#;

    fn read(text: &str, whom: For) -> Result<Settings, Vec<Wrong>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pg"), "hidden-pg\n").unwrap();
        let environment = |name: &str| match name {
            "KEY" => Some("ab".repeat(32)),
            "AMQP_USER" => Some("ann".to_owned()),
            _ => None,
        };
        Settings::read(text, &folder.path().join("cluster.toml"), whom, &environment)
    }

    #[test]
    fn a_good_file_is_read_and_shows_no_secret() {
        let settings = read(GOOD, For::Node).unwrap();
        let postgres = settings.postgres.as_ref().unwrap();
        assert_eq!(
            postgres.url.reveal(),
            "postgresql://segue:hidden-pg@db1:5432,db2:5432/segue?target_session_attrs=read-write"
        );
        assert_eq!((postgres.lanes, settings.project.as_ref().unwrap().key), (3, [0xab; 32]));
        let urls: Vec<&str> = settings.rabbitmq.urls.iter().map(Secret::reveal).collect();
        assert_eq!(urls, ["amqp://ann:hidden-mq@mq1/team", "amqps://segue:hidden-mq@mq2/team"]);
        let redis = settings.redis.as_ref().unwrap();
        assert_eq!(redis.url.reveal(), "redis+sentinel://:hidden-redis@s1:26379,s2:26379/main");
        let backup = settings.backup.as_ref().unwrap();
        assert!(backup.plan.to.ends_with("/backups") && backup.plan.to.starts_with('/'));
        assert_eq!((backup.plan.every, backup.plan.keep.daily), (Some(3_600_000), 7));
        // The bucket of the bodies is reached in the same way.
        assert_eq!(backup.options.access_key_id.as_deref(), Some("AK"));
        assert_eq!(settings.keep_runs_ms, Some(30 * 86_400_000));
        assert_eq!(settings.node.agents.as_deref(), Some(&["reviewer".to_owned()][..]));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hidden") && !shown.contains("abab"), "{shown}");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_line() {
        let wrong = read(
            "[project]\nname = 3\nid = \"x\"\nkey = { env = \"NOT_SET\" }\nkye = 1\n[postgre]\n[rabbitmq]\nurls = \"http://h\"\nca = \"no.pem\"\n[backup]\nevery = \"5s\"\nkeep = { lost = 1 }\n[prune]\n[node]\nname = \"a b\"\nlease = \"1s\"\n",
            For::Node,
        )
        .unwrap_err();
        let all: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let all = all.join("\n");
        for part in [
            "line 2: `name` of [project] is a text",
            "line 1: `id` of [project] is a UUID",
            "line 4: `key` of [project]: the variable NOT_SET is not set",
            "line 5: [project] has no `kye`; did you mean",
            "line 6: there is no section `postgre`; did you mean",
            "line 7: a URL begins with amqp:// or amqps://",
            "line 9: `ca` of [rabbitmq] is",
            "line 10: [backup] needs `to`",
            "line 10: `every` of [backup]: backups are made once a minute at most",
            "line 12: [keep] has no `lost`; did you mean",
            "line 13: [prune] needs `older_than`",
            "line 14: `name` of [node]",
            "line 14: `lease` of [node] is from 3s to 10m",
            "[postgres] needs `url`",
            "[objects] needs `url`",
        ] {
            assert!(all.contains(part), "{part:?} is not in:\n{all}");
        }
        assert!(!all.contains("http://h"), "{all}");
    }

    #[test]
    fn a_worker_needs_no_database_and_a_node_does() {
        let maker = TokenMaker::new(ProjectId(uuid::Uuid::from_u128(4)), [1; 32]);
        let token = maker.worker("red").unwrap();
        let text = format!(
            "[rabbitmq]\nurls = [\"amqp://a:b@h/v\"]\n[worker]\ntoken = \"{}\"\n",
            token.reveal()
        );
        let settings = read(&text, For::Worker).unwrap();
        assert_eq!(settings.worker.token, Some(token));
        assert!(settings.postgres.is_none() && settings.objects.is_none());
        assert!(!read(&text, For::Node).unwrap_err().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn broken_files_are_read_or_refused_and_never_tell_a_secret(
            at in 0..GOOD.len(), length in 0..60_usize, new in "[\\PC\n]{0,12}"
        ) {
            let chars: Vec<char> = GOOD.chars().collect();
            let end = (at + length).min(chars.len());
            let text: String = chars[..at.min(end)].iter().copied().chain(new.chars()).chain(chars[end..].iter().copied()).collect();
            if let Err(wrong) = read(&text, For::Node) {
                prop_assert!(!wrong.is_empty());
                let shown: Vec<String> = wrong.iter().map(ToString::to_string).collect();
                prop_assert!(!shown.join("\n").contains("hidden-"), "{shown:?}");
            }
        }
    }
}
