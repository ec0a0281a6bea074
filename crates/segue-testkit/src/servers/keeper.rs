//! Processes that end with the test that started them, however it ends.
//!
//! Between the test and a server stands a keeper: a shell that reads from a pipe of the test's. When the test dies, even by SIGKILL, the pipe
//! ends, and the keeper ends the server with all its descendants and removes its folder. The keeper leads a group of processes of its own, so what is sent
//! to the test's group does not reach it, and the server is ended by the kernel should the keeper itself be killed.

use super::folder::{Account, Folder};
use parking_lot::Mutex;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

/// The keeper's program.
const KEEPER: &str = include_str!("keeper.sh");

/// So much of the end of a server's log is shown when it does not start.
const LOG_SHOWN_MAX: usize = 6_000;

/// Folders where programs of servers lie that are on nobody's path.
const MORE_PATHS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The program of this name.
///
/// # Panics
/// When it is not there, naming the package that brings it.
pub fn program(name: &str, more_paths: &[PathBuf], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = more_paths.to_vec();
    places.extend(std::env::split_paths(&path));
    places.extend(MORE_PATHS.map(PathBuf::from));
    let found = places.into_iter().map(|place| place.join(name)).find(|path| path.is_file());
    let Some(found) = found else {
        panic!(
            "{name} is missing, and this test runs on a server of its own. Install Debian's package {package} (apt-get install {package}), \
             or all that the tests need: cargo xtask servers install"
        );
    };
    found
}

/// A command with an environment that nothing of the caller's gets into, except where programs are found.
pub fn clean(account: &Account, program: &Path) -> Command {
    let mut words = account.words().into_iter().map(OsString::from).collect::<Vec<_>>();
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    clean_environment(&mut command);
    command
}

fn clean_environment(command: &mut Command) {
    command.env_clear().env("LANG", "C.UTF-8").env("TZ", "UTC");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or fails, with what it said.
pub async fn run(command: Command) -> Output {
    try_run(command).await.unwrap_or_else(|why| panic!("{why}"))
}

/// The same; what it said where it cannot be started or fails.
pub async fn try_run(mut command: Command) -> Result<Output, String> {
    let done = tokio::task::spawn_blocking(move || {
        // The words before it say whom it runs as.
        let mut words = command.get_args();
        let program = words.find(|word| Path::new(word).is_absolute()).unwrap_or_default();
        let program = program.to_owned();
        let output = command.stdin(Stdio::null()).output();
        (program, output)
    });
    let (program, output) = done.await.expect("a command runs");
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!(
        "{} ended with {}: {}{}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// What is kept.
pub struct Kept {
    what: &'static str,
    keeper: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: u32,
    log: PathBuf,
}

impl Kept {
    /// Starts `program` with these arguments as this account. What it says goes to a new file in its folder.
    ///
    /// # Panics
    /// When the keeper cannot be started.
    pub fn start(
        what: &'static str,
        folder: &Folder,
        account: &Account,
        program: &Path,
        arguments: &[OsString],
        environment: &[(&str, OsString)],
    ) -> Kept {
        let log = folder.path().join(format!("{what}-{}.log", super::secret()));
        let mut keeper = Command::new("/bin/sh");
        keeper.arg("-c").arg(KEEPER).arg("segue-keeper").arg(folder.path()).arg(&log);
        keeper.args(account.words()).arg(program).args(arguments);
        clean_environment(&mut keeper);
        keeper.env("HOME", folder.path());
        for (name, value) in environment {
            keeper.env(name, value);
        }
        keeper.current_dir(folder.path()).process_group(0);
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = keeper.spawn().expect("a shell starts");
        let words = keeper.stdin.take();
        let mut answers = BufReader::new(keeper.stdout.take().expect("its output is a pipe"));
        let mut server = String::new();
        answers.read_line(&mut server).expect("the keeper says what it started");
        let server = server.trim().parse().expect("the number of a process");
        Kept { what, keeper, words, answers, server, log }
    }

    /// Whether the server is over.
    pub fn is_over(&self) -> bool {
        !runs(self.server)
    }

    /// What the server said since this start.
    pub fn said(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// A failure that shows the end of what the server said.
    pub fn failure(&self, why: &str) -> String {
        let said = self.said();
        let mut from = said.len().saturating_sub(LOG_SHOWN_MAX);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        format!("{} {why}; it said:\n{}", self.what, &said[from..])
    }

    /// Waits until `ready` finds what tells that the server takes connections. An error tells why it ended instead: another start, on another port,
    /// may go better.
    ///
    /// # Panics
    /// When it neither ends nor gets ready.
    pub async fn until_ready(&self, ready: impl Fn(&Kept) -> bool) -> Result<(), String> {
        let found = super::until(|| {
            if self.is_over() {
                Some(Err(self.failure("ended while it started")))
            } else {
                ready(self).then_some(Ok(()))
            }
        });
        let Some(found) = found.await else {
            panic!("{}", self.failure("does not get ready"));
        };
        found
    }

    /// Ends the server with all its descendants by SIGKILL, and waits until they are gone.
    pub fn kill(&mut self) {
        if let Some(mut words) = self.words.take() {
            // A keeper that is gone has ended everything already.
            let _ = words.write_all(b"KILL\n");
        }
        let _ = self.keeper.wait();
    }

    fn tell(&mut self, word: &str) {
        let words = self.words.as_mut().expect("it runs");
        words.write_all(format!("{word}\n").as_bytes()).expect("the keeper reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the keeper answers");
        assert_eq!(answer.trim(), word, "the keeper did what it was told");
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that runs, or was killed and can be started again.
#[derive(Default)]
pub struct Running(Mutex<Option<Kept>>);

impl Running {
    /// It runs from now on.
    pub fn set(&self, kept: Kept) {
        *self.0.lock() = Some(kept);
    }

    /// Whether it was started and not killed.
    pub fn is_up(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Ends it by SIGKILL, if it runs, on a thread where waiting keeps nobody else from going on.
    pub async fn kill(&self) {
        let kept = self.0.lock().take();
        let end = tokio::task::spawn_blocking(move || drop(kept));
        end.await.expect("ending a server does not fail");
    }

    /// Stops all its processes where they stand, so that they keep their connections and answer nothing.
    pub fn stop(&self) {
        self.with(|kept| kept.tell("STOP"));
    }

    /// Lets them go on.
    pub fn go_on(&self) {
        self.with(|kept| kept.tell("CONT"));
    }

    /// What it said since it was started last; nothing where it does not run.
    pub fn said(&self) -> String {
        self.0.lock().as_ref().map(Kept::said).unwrap_or_default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(self.0.lock().as_mut().expect("the server runs"))
    }
}

/// Whether this process runs: it is there, and more of it than the wait for its end to be heard of.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    state.is_some_and(|state| state != 'Z' || threads() > 1)
}
