//! A node or a worker: a process of its own, with a folder, a team and lines of its own.

use super::place::{Lines, Place, Server};
use super::{Options, team};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::fmt::Write;
use std::fs::{File, OpenOptions, create_dir_all};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// A member that was told to end has ended by then: its patience, what it takes after that at most, and a little for a machine that is busy.
const ENDS_WITHIN: Duration = Duration::from_secs(60 + 25 + 10);
/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Where the plan is, in the folder of the run.
pub const PLAN_FOLDER: &str = "plan";

/// What all members of a cluster have in common.
pub struct Project {
    /// Its id.
    pub id: String,
    /// The key of the secrets, as 64 hexadecimal digits.
    pub key: String,
}

/// A node or a worker.
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is a node.
    pub is_node: bool,
    /// Where a node listens.
    pub socket: PathBuf,
    /// Its lines to the servers.
    pub lines: Lines,
    binary: PathBuf,
    dir: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// What its clock shows more than the others', as libfaketime wants it.
    clock: Option<Clock>,
    child: Mutex<Option<Child>>,
}

/// A clock that is off.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The library that makes it so.
    pub library: PathBuf,
    /// By how many seconds.
    pub seconds: i64,
}

impl Clock {
    /// Where Debian's package `faketime` has its library, if it is installed.
    pub fn of(seconds: i64) -> Option<Clock> {
        let place =
            format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        let library = PathBuf::from(place);
        library.is_file().then_some(Clock { library, seconds })
    }
}

/// A file for nobody else: it holds passwords.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

impl Member {
    /// Makes the folder of a member.
    pub async fn make(
        options: &Options,
        place: &Place,
        project: &Project,
        name: &str,
        is_node: bool,
    ) -> io::Result<Member> {
        let dir = options.dir.join(name);
        create_dir_all(&dir)?;
        let plan = options.dir.join(PLAN_FOLDER);
        team::write(&dir, name, &options.dir.join("journal.txt"), &plan)?;
        let lines = Lines::to(place).await;
        let config = dir.join("cluster.toml");
        write_private(&config, &settings(place, &lines, project, name, is_node).await)?;
        Ok(Member {
            name: name.to_owned(),
            is_node,
            socket: dir.join(".segue/nodes").join(name).join("node.sock"),
            lines,
            binary: options.binary.clone(),
            config,
            log: options.dir.join(format!("{name}.log")),
            dir,
            clock: None,
            child: Mutex::new(None),
        })
    }

    /// Lets its clock be off from its next start on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// A worker gets a token from a node's command line, as its operator would.
    pub fn give_token(&self, node: &Member) -> Result<(), String> {
        let mut command = node.command(&["worker", "token", &self.name]);
        let output = command.output().map_err(|error| format!("{error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`segue worker token` ended with {}: {said}", output.status));
        }
        write_private(&self.dir.join("token"), String::from_utf8_lossy(&output.stdout).trim())
            .map_err(|error| format!("cannot write the token of {}: {error}", self.name))
    }

    /// The program with these words, for this member's folder and file.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--config").arg(&self.config).current_dir(&self.dir);
        command.env_clear().env("LANG", "C.UTF-8").env("NO_COLOR", "1").stdin(Stdio::null());
        for name in ["PATH", "HOME", "RUST_LOG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Where its agents write down what they do.
    pub fn journal(&self) -> PathBuf {
        self.dir.parent().unwrap_or(&self.dir).join("journal.txt")
    }

    /// Starts it. It ends with the thread that started it: the rig starts everything from threads that last as long as it does.
    pub fn start(&self) -> Result<(), String> {
        let words: &[&str] = if self.is_node { &["up"] } else { &["worker"] };
        let plain = self.command(words);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(plain.get_program()).args(plain.get_args());
        command.current_dir(&self.dir).env_clear().stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if let Some(clock) = &self.clock {
            command.env("LD_PRELOAD", &clock.library);
            command.env("FAKETIME", format!("{:+}s", clock.seconds));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let log =
            || -> io::Result<File> { OpenOptions::new().append(true).create(true).open(&self.log) };
        let started = log().and_then(|file| {
            command.stdout(file.try_clone()?).stderr(file);
            command.spawn()
        });
        let child = started.map_err(|error| format!("{} does not start: {error}", self.name))?;
        *self.child.lock() = Some(child);
        Ok(())
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it ended without being told to, and how.
    pub fn ended(&self) -> Option<String> {
        let mut child = self.child.lock();
        let status = child.as_mut()?.try_wait().ok()??;
        *child = None;
        Some(format!("{} ended by itself with {status}; see {}", self.name, self.log.display()))
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(&self) -> Result<(), String> {
        let Some(mut child) = self.child.lock().take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("{} ended with {status}", self.name)),
                Ok(None) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let seconds = ENDS_WITHIN.as_secs();
                    return Err(format!("{} did not end within {seconds} s of SIGTERM", self.name));
                }
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `cluster.toml` of a member: it knows the servers by its own lines alone.
async fn settings(
    place: &Place,
    lines: &Lines,
    project: &Project,
    name: &str,
    is_node: bool,
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let brokers: Vec<String> = lines
        .rabbit()
        .iter()
        .map(|address| quoted(&place.rabbit.url_by(address, &place.vhost)))
        .collect();
    let _ = writeln!(text, "[rabbitmq]\nurls = [{}]", brokers.join(", "));
    let redis = place.redis.url_by(&lines.redis());
    let _ = writeln!(text, "[redis]\nurl = {}", quoted(&redis));
    if !is_node {
        let _ = writeln!(
            text,
            "[node]\nname = {}\n[worker]\ntoken = {{ file = \"token\" }}",
            quoted(name)
        );
        return text;
    }
    let _ = writeln!(
        text,
        "[project]\nname = \"rig\"\nid = {}\nkey = {}",
        quoted(&project.id),
        quoted(&project.key)
    );
    let postgres = place.primary.lock().await.url_by(&lines.postgres(), &place.database);
    let postgres = format!("{postgres}?target_session_attrs=read-write");
    let _ = writeln!(text, "[postgres]\nurl = {}", quoted(&postgres));
    let _ = writeln!(
        text,
        "[objects]\nurl = {}\nendpoint = {}\nregion = \"us-east-1\"\naccess_key_id = {}\nsecret_access_key = {}\n\
         path_style = true\nallow_http = true",
        quoted(&format!("s3://{}/bodies", place.bucket)),
        quoted(&format!("http://{}", lines.s3())),
        quoted(place.s3.access_key()),
        quoted(place.s3.secret_key())
    );
    let _ = writeln!(text, "[node]\nname = {}", quoted(name));
    text
}

/// A JSON text is a text of TOML as well.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Bytes between a member and each server so far.
pub fn traffic(member: &Member) -> impl Iterator<Item = (Server, (u64, u64))> {
    [Server::Postgres, Server::RabbitMq, Server::Redis, Server::S3]
        .map(|server| (server, member.lines.bytes(server)))
        .into_iter()
}
