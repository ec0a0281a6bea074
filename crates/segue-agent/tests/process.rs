//! Real processes, started through real supervisors.
//!
//! Nothing here waits by the clock: a script says on its output when it is ready, and the end of a
//! pipe says that all who held it are gone.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use segue_agent::process::{
    Capture, Cause, Ended, EndedProcess, Exit, Launcher, Leftover, Limits, Line, LogFile, Running,
    Spawn, SpawnError, Started, Stdin, Stream, end_leftover, end_leftovers, kill_leftover,
    kill_marked, scrubbed_env, wait_gone,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const HELPER: &str = env!("CARGO_BIN_EXE_segue-test-process");
/// Prints its process id and stays; it keeps ignoring what the shell before it ignored.
const HOLD: &str = concat!("exec '", env!("CARGO_BIN_EXE_segue-test-process"), "' hold");
/// As [`HOLD`], and prints nothing.
const QUIET: &str =
    concat!("exec '", env!("CARGO_BIN_EXE_segue-test-process"), "' hold > /dev/null");
/// Far longer than anything here takes; it ends a test that would hang.
const LONG: Duration = Duration::from_secs(60);

fn launcher() -> Launcher {
    let launcher = Launcher::new(HELPER);
    // Under coverage the supervisor needs to know where to leave its counts.
    match std::env::var_os("LLVM_PROFILE_FILE") {
        Some(file) => launcher.supervisor_env("LLVM_PROFILE_FILE", file),
        None => launcher,
    }
}

/// With a cgroup, where there can be one, and without.
fn launchers() -> [Launcher; 2] {
    [launcher().without_cgroup(), launcher()]
}

fn sh(script: &str) -> Spawn {
    let mut spawn = Spawn::new("sh", "/");
    spawn.args = vec!["-c".into(), script.into()];
    spawn.env = scrubbed_env(&[], &[]).expect("an environment");
    spawn
}

fn perl(script: &str) -> Spawn {
    let mut spawn = Spawn::new("perl", "/");
    spawn.args = vec!["-e".into(), script.into()];
    spawn.env = scrubbed_env(&[], &[]).expect("an environment");
    spawn
}

/// A program that runs, and its lines as they come.
struct Live {
    running: Running,
    lines: UnboundedReceiver<String>,
}

impl Live {
    async fn start(launcher: &Launcher, mut spawn: Spawn) -> Self {
        let (send, lines) = unbounded_channel();
        spawn.capture.on_line = Some(Box::new(move |line: Line<'_>| {
            let _ = send.send(String::from_utf8_lossy(line.bytes).into_owned());
        }));
        Self { running: launcher.spawn(spawn).await.expect("starts"), lines }
    }

    async fn line(&mut self) -> String {
        self.lines.recv().await.expect("one more line")
    }

    /// Ends it, for a test that has seen enough.
    async fn end(mut self) {
        self.running.cancel(Duration::ZERO);
        self.running.wait().await;
    }

    async fn pid(&mut self) -> i32 {
        self.line().await.trim().parse().expect("a process id")
    }
}

async fn run(spawn: Spawn) -> Ended {
    launcher().spawn(spawn).await.expect("starts").wait().await
}

async fn fails(spawn: Spawn) -> SpawnError {
    launcher()
        .spawn(spawn)
        .await
        .map(|running| running.started().clone())
        .expect_err("does not start")
}

fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn of(ended: &[EndedProcess], pid: i32) -> &EndedProcess {
    ended
        .iter()
        .find(|process| process.pid == pid)
        .unwrap_or_else(|| panic!("{pid} is not in {ended:?}"))
}

fn stat_fields(pid: i32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("lives");
    let rest = stat.rsplit(')').next().expect("a rest");
    rest.split_ascii_whitespace().map(str::to_owned).collect()
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signals");
}

// ---- what a program is given and what it gives

#[tokio::test]
async fn a_program_runs_and_everything_about_it_is_known() {
    for launcher in launchers() {
        let mut running =
            launcher.spawn(sh("echo out; echo err >&2; exit 7")).await.expect("starts");
        let started = running.started().clone();
        let ended = running.wait().await;
        assert_eq!(ended.cause, Cause::Exited);
        assert_eq!(ended.exit, Some(Exit { code: Some(7), signal: None }));
        assert_eq!(
            (ended.stdout.as_slice(), ended.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(
            (ended.stdout_bytes, ended.stderr_bytes, ended.stderr_dropped_bytes()),
            (4, 4, 0)
        );
        assert!(ended.ended.is_empty() && ended.survivors.is_empty(), "{ended:?}");
        assert_eq!(ended.started, started);
        assert!(started.pid > 0 && started.start_time > 0 && started.supervisor_start_time > 0);
        assert!(!lives(started.pid) && !lives(started.supervisor_pid));
        let usage = ended.usage.expect("counted");
        assert!(usage.rss_bytes_max > 100_000 && usage.user_us + usage.system_us > 0, "{usage:?}");
    }
}

#[tokio::test]
async fn a_program_that_a_signal_ends_says_so() {
    // Real-time signals have numbers only.
    let ended = run(sh("kill -40 $$")).await;
    assert_eq!(ended.exit, Some(Exit { code: None, signal: Some(40) }));
    let mut spawn = sh("kill -s USR1 $$");
    (spawn.timeout, spawn.grace) = (Some(Duration::MAX), Duration::MAX);
    let ended = run(spawn).await;
    assert_eq!(
        (ended.cause, ended.exit),
        (Cause::Exited, Some(Exit { code: None, signal: Some(10) }))
    );
}

#[tokio::test]
async fn bytes_go_in_and_out_unchanged() {
    let mut bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    bytes.extend_from_slice(b"\xff\xfe\0\0no newline at the end");
    let mut spawn = sh("cat; printf '\\377\\000' >&2");
    spawn.stdin = Stdin::Bytes(bytes.clone());
    let ended = run(spawn).await;
    assert!(ended.stdout == bytes, "{} bytes came back", ended.stdout.len());
    assert_eq!(ended.stderr, b"\xff\0");
}

#[tokio::test]
async fn input_comes_from_a_file_from_nowhere_or_is_not_read() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("input");
    std::fs::write(&path, "from a file").expect("written");
    let mut spawn = sh("cat");
    spawn.stdin = Stdin::File(path);
    assert_eq!(run(spawn).await.stdout, b"from a file");
    assert_eq!(run(sh("cat; echo closed")).await.stdout, b"closed\n");
    let mut spawn = sh("echo unread");
    spawn.stdin = Stdin::Bytes(vec![b'x'; 1 << 20]);
    let ended = run(spawn).await;
    assert_eq!(
        (ended.stdout.as_slice(), ended.exit.map(Exit::success)),
        (&b"unread\n"[..], Some(true))
    );
}

#[tokio::test]
async fn arguments_variables_and_folders_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let odd = std::ffi::OsString::from_vec(b"a\xff \n'\"$b".to_vec());
    let folder = tempfile::tempdir().expect("folder");
    let cwd = folder.path().join(&odd);
    std::fs::create_dir(&cwd).expect("made");
    let mut spawn = sh("printf %s \"$1\"; printf %s \"$ODD\"; printf %s \"${PWD##*/}\"");
    spawn.args.extend(["sh".into(), odd.clone()]);
    spawn.env.push(("ODD".into(), odd.clone()));
    spawn.cwd = cwd;
    assert_eq!(run(spawn).await.stdout, odd.into_vec().repeat(3));
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_the_supervisor_has_none() {
    // This variable is in the environment of every test, and must not come through.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let mut spawn = sh(&format!("env; echo ready; {QUIET}"));
    spawn.env =
        vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello world".into())];
    spawn.attempt = Some("a-17".into());
    let mut live = Live::start(&launcher(), spawn).await;
    let mut seen = Vec::new();
    loop {
        match live.line().await {
            line if line == "ready" => break,
            line => seen.push(line),
        }
    }
    // The shell adds these by itself.
    seen.retain(|line| {
        !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own))
    });
    seen.sort();
    assert_eq!(seen, ["GREETING=hello world", "PATH=/usr/bin:/bin", "SEGUE_ATTEMPT=a-17"]);
    let supervisor = live.running.started().supervisor_pid;
    let environment =
        std::fs::read_to_string(format!("/proc/{supervisor}/environ")).expect("readable");
    let unexpected: Vec<&str> = environment
        .split('\0')
        .filter(|v| !v.is_empty() && !v.starts_with("LLVM_PROFILE_FILE="))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    live.end().await;
}

#[tokio::test]
async fn a_program_has_three_file_descriptors_whatever_the_node_has_open() {
    use std::os::fd::AsRawFd;
    let leaky = File::open("/dev/zero").expect("opened");
    let flags = nix::fcntl::FdFlag::empty();
    nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_SETFD(flags)).expect("inheritable now");
    assert!(leaky.as_raw_fd() > 2);
    for launcher in launchers() {
        let mut spawn = Spawn::new(HELPER, "/");
        spawn.args = vec!["fds".into()];
        spawn.stdin = Stdin::Bytes(b"in a file without a name".to_vec());
        let ended = launcher.spawn(spawn).await.expect("starts").wait().await;
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "[0, 1, 2]\n");
        let mut live = Live::start(&launcher, sh(HOLD)).await;
        live.line().await;
        let folder = format!("/proc/{}/fd", live.running.started().supervisor_pid);
        let open: Vec<PathBuf> = std::fs::read_dir(folder)
            .expect("listed")
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|target| target != Path::new("/dev/null"))
            .collect();
        assert_eq!(open.len(), 1, "only the socket to the node: {open:?}");
        live.end().await;
    }
}

#[tokio::test]
async fn a_program_leads_its_own_group_and_has_no_terminal() {
    let mut live = Live::start(&launcher(), sh(HOLD)).await;
    live.line().await;
    let started = live.running.started();
    let fields = stat_fields(started.pid);
    let [parent, group, session, terminal] =
        [1, 2, 3, 4].map(|index| fields[index].parse::<i32>().expect("a number"));
    assert_eq!(parent, started.supervisor_pid);
    assert_eq!(group, started.pid);
    assert_eq!(session, started.supervisor_pid);
    assert_eq!(terminal, 0);
    live.end().await;
}

#[tokio::test]
async fn limits_of_the_operating_system_hold() {
    let folder = tempfile::tempdir().expect("folder");
    let mut spawn = sh("ulimit -n; head -c 100000 /dev/zero > big; wc -c < big");
    spawn.cwd = folder.path().to_owned();
    spawn.limits = Limits {
        file_bytes_max: Some(4_096),
        open_files_max: Some(64),
        processes_max: Some(50_000),
    };
    let ended = run(spawn).await;
    assert_eq!(
        String::from_utf8_lossy(&ended.stdout).split_whitespace().collect::<Vec<_>>(),
        ["64", "4096"]
    );
}

// ---- what cannot be started

#[tokio::test]
async fn what_cannot_be_started_is_told_with_cause_and_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        std::fs::write(path(name), text).expect("written");
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).expect("set");
    };
    write("plain.txt", "text", 0o644);
    write("no-interpreter", "#!/does/not/exist\n", 0o755);
    let program = |program: &Path| {
        let mut spawn = sh("");
        spawn.program = program.into();
        spawn
    };

    let error = fails(program(Path::new("no-such-program-xyz"))).await;
    assert!(matches!(error, SpawnError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("no program of that name in PATH (/"), "{error}");
    assert!(error.is_permanent());
    let error = fails(program(&path("absent"))).await;
    assert!(error.to_string().contains("no such file"), "{error}");
    let error = fails(program(&path("no-interpreter"))).await;
    assert!(error.to_string().contains("interpreter"), "{error}");
    let error = fails(program(&path("plain.txt"))).await;
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error:?}");
    assert!(error.to_string().contains("chmod +x"), "{error}");
    let error = fails(program(folder.path())).await;
    assert!(error.to_string().contains("it is a folder"), "{error}");
    assert!(error.is_permanent());

    for cwd in [path("absent"), path("plain.txt")] {
        let mut spawn = sh("");
        spawn.cwd = cwd.clone();
        let error = fails(spawn).await;
        assert!(matches!(&error, SpawnError::Cwd { path, .. } if *path == cwd), "{error:?}");
    }
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    for (name, why) in [("absent", "No such file"), ("fifo", "not a regular file")] {
        let mut spawn = sh("");
        spawn.stdin = Stdin::File(path(name));
        let error = fails(spawn).await.to_string();
        assert!(error.contains(why) && error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn what_no_system_would_take_is_refused_before_anything_starts() {
    type Spoil = fn(&mut Spawn);
    let spoil: [(&str, Spoil); 8] = [
        ("argument 3", |spawn| spawn.args.push("a\0b".into())),
        ("program", |spawn| spawn.program = "".into()),
        ("program", |spawn| spawn.program = "s\0h".into()),
        ("variable", |spawn| spawn.env.push(("A=B".into(), "x".into()))),
        ("value", |spawn| spawn.env.push(("A".into(), "x\0".into()))),
        ("absolute", |spawn| spawn.cwd = "relative".into()),
        ("absolute", |spawn| spawn.stdin = Stdin::File("relative".into())),
        ("absolute", |spawn| spawn.last_words = Some("relative".into())),
    ];
    for (word, spoil) in spoil {
        let mut spawn = sh("exit");
        spoil(&mut spawn);
        let error = fails(spawn).await;
        assert!(matches!(error, SpawnError::BadSpec { .. }) && error.is_permanent(), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let mut spawn = sh("exit");
    spawn.args.push("x".repeat(4 << 20).into());
    let error = fails(spawn).await;
    assert!(error.to_string().contains("too long") && error.is_permanent(), "{error}");
}

#[tokio::test]
async fn an_executable_that_is_being_written_is_a_passing_trouble() {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("tool");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&path)
        .expect("made");
    std::fs::copy("/bin/true", &path).expect("copied");
    let mut spawn = sh("");
    spawn.program = path.clone().into();
    let error = fails(spawn).await;
    assert!(
        matches!(error, SpawnError::Exec { transient: true, .. }) && !error.is_permanent(),
        "{error:?}"
    );
    drop(written);
    let mut spawn = sh("");
    spawn.program = path.into();
    assert!(run(spawn).await.exit.is_some_and(Exit::success));
}

#[tokio::test]
async fn a_supervisor_that_fails_is_told_apart_from_the_program() {
    for exe in ["/does/not/exist", "/bin/false"] {
        let error = Launcher::new(exe).spawn(sh("exit")).await.map(|_| ()).expect_err("fails");
        assert!(
            matches!(error, SpawnError::Supervisor { .. }) && !error.is_permanent(),
            "{error:?}"
        );
    }
}

#[test]
fn a_supervisor_without_a_node_says_what_it_is() {
    let output =
        Command::new(HELPER).arg("__supervise").stdin(Stdio::null()).output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("for Segue's own use"));
}

// ---- how a tree ends

/// Starts a process that left its parents, its group and its session, and prints its id.
const DAEMON: &str =
    concat!("( setsid '", env!("CARGO_BIN_EXE_segue-test-process"), "' hold & ) ; ");

#[tokio::test]
async fn cancel_reaches_a_double_forked_child_in_its_own_session() {
    for launcher in launchers() {
        let mut live = Live::start(&launcher, sh(&format!("{DAEMON} {QUIET}"))).await;
        let daemon = live.pid().await;
        let main = live.running.started().pid;
        assert_eq!(stat_fields(daemon)[3], daemon.to_string(), "it leads a session of its own");
        live.running.cancel(LONG);
        let ended = live.running.wait().await;
        assert_eq!(
            (ended.cause, ended.exit),
            (Cause::Cancelled, Some(Exit { code: None, signal: Some(15) }))
        );
        assert_eq!((of(&ended.ended, daemon).signal, of(&ended.ended, main).signal), (15, 15));
        assert!(of(&ended.ended, daemon).start_time > 0);
        assert!(!lives(daemon) && !lives(main));
    }
}

#[tokio::test]
async fn whoever_ignores_sigterm_gets_sigkill() {
    for launcher in launchers() {
        let mut live = Live::start(&launcher, sh(&format!("trap '' TERM; {HOLD}"))).await;
        live.line().await;
        live.running.cancel(Duration::from_millis(50));
        let ended = live.running.wait().await;
        assert_eq!(
            (ended.cause, ended.exit),
            (Cause::Cancelled, Some(Exit { code: None, signal: Some(9) }))
        );
        assert_eq!(ended.ended.len(), 1, "{:?}", ended.ended);
        assert_eq!((ended.ended[0].signal, ended.ended[0].name.as_str()), (9, "segue-test-proc"));
    }
}

#[tokio::test]
async fn a_second_cancel_can_only_shorten_the_time() {
    let mut live = Live::start(&launcher(), sh(&format!("trap '' TERM; {HOLD}"))).await;
    live.line().await;
    let canceller = live.running.canceller();
    canceller.cancel(Duration::from_secs(3_600));
    canceller.cancel(Duration::ZERO);
    canceller.cancel(Duration::MAX);
    let ended = tokio::time::timeout(LONG, live.running.wait()).await.expect("ends at once");
    assert_eq!(ended.exit.and_then(|exit| exit.signal), Some(9));
    canceller.cancel(LONG);
}

#[tokio::test]
async fn a_program_may_clean_up_and_say_so() {
    let script =
        "trap 'echo bye; exit 3' TERM; echo ready; while :; do tail -f /dev/null & wait; done";
    let mut live = Live::start(&launcher(), sh(script)).await;
    live.line().await;
    live.running.cancel(LONG);
    let ended = live.running.wait().await;
    assert_eq!(
        (ended.cause, ended.exit),
        (Cause::Cancelled, Some(Exit { code: Some(3), signal: None }))
    );
    assert_eq!(ended.stdout, b"ready\nbye\n");
}

#[tokio::test]
async fn who_outlives_the_program_is_asked_once_more() {
    // As a shell does that is just forking: the first signal goes to a handler that forgets it. Perl runs handlers between its own steps, so one that comes
    // just before it waits would be looked at after the next: it comes while it waits, and not before.
    let deaf = r#"use POSIX; $| = 1; $SIG{TERM} = sub { $SIG{TERM} = "DEFAULT" }; my $term = POSIX::SigSet->new(SIGTERM);
        sigprocmask(SIG_BLOCK, $term); print "$$\n"; sigsuspend(POSIX::SigSet->new);
        sigprocmask(SIG_UNBLOCK, $term); while (1) { select undef, undef, undef, undef }"#;
    let mut live = Live::start(&launcher(), sh(&format!("perl -e '{deaf}' & {QUIET}"))).await;
    let deaf = live.pid().await;
    live.running.cancel(LONG);
    let ended = live.running.wait().await;
    assert_eq!((of(&ended.ended, deaf).signal, ended.cause), (15, Cause::Cancelled));
    assert!(ended.wall_ms < 60_000, "not only at the end of the grace");
}

#[tokio::test]
async fn a_stopped_process_hears_sigterm() {
    let mut live =
        Live::start(&launcher(), sh("trap 'exit 4' TERM; echo ready; kill -s STOP $$; exit 5"))
            .await;
    live.line().await;
    let pid = live.running.started().pid;
    while stat_fields(pid)[0] != "T" {
        std::thread::yield_now();
    }
    live.running.cancel(LONG);
    assert_eq!(live.running.wait().await.exit, Some(Exit { code: Some(4), signal: None }));
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_ended_and_reported() {
    for launcher in launchers() {
        let folder = tempfile::tempdir().expect("folder");
        // The daemon holds standard output open, which must not keep the attempt from ending.
        let mut spawn = sh(
            "mkfifo f; ( setsid sh -c 'echo $$ > f; exec tail -f /dev/null' & ); read pid < f; echo $pid",
        );
        spawn.cwd = folder.path().to_owned();
        let ended = launcher.spawn(spawn).await.expect("starts").wait().await;
        assert_eq!(
            (ended.cause, ended.exit),
            (Cause::Exited, Some(Exit { code: Some(0), signal: None }))
        );
        let daemon: i32 = String::from_utf8_lossy(&ended.stdout).trim().parse().expect("an id");
        assert_eq!(ended.ended.len(), 1, "{:?}", ended.ended);
        assert_eq!(of(&ended.ended, daemon).signal, 15);
        assert!(!lives(daemon));
    }
}

#[tokio::test]
async fn a_timeout_ends_the_tree() {
    let mut spawn = sh(&format!("{DAEMON} {QUIET}"));
    spawn.timeout = Some(Duration::from_millis(30));
    let ended = run(spawn).await;
    assert_eq!(ended.cause, Cause::TimedOut);
    assert!(ended.wall_ms >= 30 && !ended.ended.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn to_drop_a_running_program_ends_it() {
    let folder = tempfile::tempdir().expect("folder");
    let (mut live, pipe) = live_with_pipe(&launcher(), folder.path(), "").await;
    let daemon = live.pid().await;
    drop(live.running);
    assert_eq!(read_to_end(pipe).await, 0);
    assert!(wait_until_gone(daemon));
}

#[tokio::test]
async fn a_fork_bomb_of_modest_size_is_put_out() {
    // 300 children in 101 sessions that ignore SIGTERM, five that fork without end, and two that
    // fork and exit in a circle, each time in a new session, so that they have no id for long.
    let script = r#"
        use POSIX; $| = 1; $SIG{TERM} = "IGNORE"; $SIG{CHLD} = "IGNORE";
        for my $i (1..300) { if (!fork) { setsid if $i % 3 == 0; pause while 1 } }
        for (1..5) { if (!fork) { while (1) { my $p = fork; exit if defined $p && !$p } } }
        for (1..2) { if (!fork) { while (1) { my $p = fork; exit if $p; setsid } } }
        print "ready\n"; pause while 1;
    "#;
    for launcher in launchers() {
        let mut live = Live::start(&launcher, perl(script)).await;
        live.line().await;
        let begun = std::time::Instant::now();
        live.running.cancel(Duration::from_millis(20));
        let ended = tokio::time::timeout(LONG, live.running.wait()).await.expect("comes to an end");
        assert_eq!(ended.cause, Cause::Cancelled);
        assert!(ended.survivors.is_empty(), "{:?}", ended.survivors);
        assert!(ended.ended.len() as u64 + ended.ended_more > 300);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        eprintln!(
            "the bomb was out after {:?}, {} ended",
            begun.elapsed(),
            ended.ended.len() as u64 + ended.ended_more
        );
    }
}

#[tokio::test]
async fn a_hundred_attempts_at_once_do_not_mix() {
    let launcher = launcher();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..100 {
        let launcher = launcher.clone();
        all.spawn(async move {
            let mut spawn = sh("cat; echo $1 >&2; exit $1");
            spawn.args.extend(["sh".into(), number.to_string().into()]);
            spawn.stdin = Stdin::Bytes(vec![number; 10_000]);
            (number, launcher.spawn(spawn).await.expect("starts").wait().await)
        });
    }
    let mut count = 0;
    while let Some(one) = all.join_next().await {
        let (number, ended) = one.expect("no panic");
        assert_eq!(ended.exit, Some(Exit { code: Some(i32::from(number)), signal: None }));
        assert!(ended.stdout == vec![number; 10_000], "{number}");
        assert_eq!(ended.stderr, format!("{number}\n").into_bytes());
        count += 1;
    }
    assert_eq!(count, 100);
}

// ---- output

#[tokio::test]
async fn output_without_end_ends_the_tree() {
    for launcher in launchers() {
        let mut spawn = sh("yes & exec yes");
        spawn.capture.stdout_bytes_max = 100_000;
        let ended = launcher.spawn(spawn).await.expect("starts").wait().await;
        assert_eq!(ended.cause, Cause::OutputTooLarge);
        assert_eq!(ended.stdout.len(), 100_000);
        assert!(ended.stdout_bytes > 100_000);
        assert!(ended.stdout.starts_with(b"y\ny\n"));
        assert_eq!(ended.ended.len(), 2, "{:?}", ended.ended);
    }
}

#[tokio::test]
async fn too_much_output_is_no_result_even_of_a_program_that_succeeded() {
    let mut spawn = sh("head -c 30000 /dev/zero");
    spawn.capture.stdout_bytes_max = 29_999;
    let ended = run(spawn).await;
    assert_eq!(
        (ended.cause, ended.stdout.len(), ended.stdout_bytes),
        (Cause::OutputTooLarge, 29_999, 30_000)
    );
    let mut spawn = sh("head -c 30000 /dev/zero");
    spawn.capture.stdout_bytes_max = 30_000;
    assert_eq!(run(spawn).await.cause, Cause::Exited);
}

#[tokio::test]
async fn the_tail_of_standard_error_is_kept_and_the_rest_counted() {
    let mut spawn = sh("head -c 500000 /dev/zero >&2; echo the last words >&2");
    spawn.capture.stderr_bytes_max = 1_000;
    let ended = run(spawn).await;
    assert_eq!(
        (ended.cause, ended.stderr.len(), ended.stderr_dropped_bytes()),
        (Cause::Exited, 1_000, 499_015)
    );
    assert!(ended.stderr.ends_with(b"\0the last words\n"));
}

#[tokio::test]
async fn lines_come_while_the_program_runs_and_the_log_keeps_them() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("logs/attempt.log");
    let (send, mut lines) = unbounded_channel();
    let on_line = move |line: Line<'_>| {
        let _ = send.send((line.stream, line.bytes.to_vec()));
    };
    let mut spawn = sh("echo one; read go < fifo; printf 'two\\377'; echo err >&2");
    spawn.cwd = folder.path().to_owned();
    let log = Some(LogFile { path: path.clone(), bytes_max: 1_000 });
    spawn.capture = Capture { log, on_line: Some(Box::new(on_line)), ..Capture::default() };
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let mut running = launcher().spawn(spawn).await.expect("starts");
    assert_eq!(lines.recv().await, Some((Stream::Stdout, b"one".to_vec())));
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "go\n"))
        .await
        .expect("joins")
        .expect("written");
    let ended = running.wait().await;
    let mut rest = Vec::new();
    while let Ok(line) = lines.try_recv() {
        rest.push(line);
    }
    rest.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    assert_eq!(rest, [(Stream::Stdout, b"two\xff".to_vec()), (Stream::Stderr, b"err".to_vec())]);
    let kept = ended.log.expect("a log");
    assert_eq!((kept.path.as_path(), kept.dropped_bytes, kept.error), (path.as_path(), 0, None));
    let text = std::fs::read(&path).expect("written");
    assert_eq!(text.len() as u64, kept.bytes);
    assert!(
        text.starts_with(b"one\n") && text.windows(12).any(|part| part == b"stderr: err\n"),
        "{text:?}"
    );
}

// ---- deaths

/// Starts a daemon and waits with it; both hold the write end of a pipe whose read end comes back.
async fn live_with_pipe(launcher: &Launcher, folder: &Path, first: &str) -> (Live, File) {
    let fifo = folder.join("held");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let opened = tokio::task::spawn_blocking({
        let fifo = fifo.clone();
        move || File::open(fifo)
    });
    let script = format!("exec 3> '{}'; {first} {DAEMON} {QUIET}", fifo.display());
    let live = Live::start(launcher, sh(&script)).await;
    (live, opened.await.expect("joins").expect("opened"))
}

async fn read_to_end(mut pipe: File) -> usize {
    let reading = tokio::task::spawn_blocking(move || pipe.read_to_end(&mut Vec::new()));
    tokio::time::timeout(LONG, reading)
        .await
        .expect("somebody still holds the pipe")
        .expect("joins")
        .expect("reads")
}

/// A killed process whose parent is the test's own init is gone only when that has reaped it.
fn wait_until_gone(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let start_time = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_ascii_whitespace().nth(19)?.parse().ok());
    start_time.is_none_or(|start_time| wait_gone(pid, start_time, LONG))
}

#[test]
fn the_end_of_the_control_socket_ends_the_tree() {
    for launcher in launchers() {
        let folder = tempfile::tempdir().expect("folder");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (live, pipe, daemon) = runtime.block_on(async {
            let (mut live, pipe) = live_with_pipe(&launcher, folder.path(), "trap '' TERM;").await;
            let daemon = live.pid().await;
            (live, pipe, daemon)
        });
        let started = live.running.started().clone();
        // With the runtime goes the node's end of the socket, as it does when the node dies.
        runtime.shutdown_background();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        assert_eq!(runtime.block_on(read_to_end(pipe)), 0);
        assert!(wait_gone(started.supervisor_pid, started.supervisor_start_time, LONG));
        assert!(wait_gone(started.pid, started.start_time, LONG) && wait_until_gone(daemon));
    }
}

/// A node in a process of its own, with one attempt.
struct Node {
    process: std::process::Child,
    started: Started,
    daemon: i32,
    pipe: File,
    _folder: tempfile::TempDir,
}

fn node(kind: &str, attempt: Option<&str>, last_words: Option<&Path>) -> Node {
    let folder = tempfile::tempdir().expect("folder");
    let fifo = folder.path().join("held");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let script = format!("exec 3> '{}'; trap '' TERM; {DAEMON} {QUIET}", fifo.display());
    let mut command = Command::new(HELPER);
    command
        .args(["node", kind, &script])
        .args(last_words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.envs(attempt.map(|attempt| ("TEST_ATTEMPT", attempt)));
    let mut process = command.spawn().expect("starts");
    let pipe = File::open(fifo).expect("opened");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let started = serde_json::from_str(&line()).expect("parses");
    let daemon = line().parse().expect("an id");
    Node { process, started, daemon, pipe, _folder: folder }
}

#[tokio::test]
async fn kill_9_of_the_node_ends_everything_at_once() {
    for kind in ["plain", "cgroup"] {
        let mut node = node(kind, None, None);
        node.process.kill().expect("killed");
        node.process.wait().expect("reaped");
        assert_eq!(read_to_end(node.pipe).await, 0);
        let started = &node.started;
        assert!(wait_gone(started.supervisor_pid, started.supervisor_start_time, LONG));
        assert!(wait_gone(started.pid, started.start_time, LONG) && wait_until_gone(node.daemon));
        assert!(end_leftover(started, None, None).expect("can look").is_empty());
    }
}

#[tokio::test]
async fn a_supervisor_leaves_its_evidence_for_the_next_node() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("last-words.json");
    File::create(&file).expect("made");
    let mut node = node("last-words", None, Some(&file));
    node.process.kill().expect("killed");
    node.process.wait().expect("reaped");
    let started = node.started.clone();
    let evidence = end_leftover(&started, None, Some(&file)).expect("can look");
    assert_eq!((of(&evidence, started.pid).signal, of(&evidence, node.daemon).signal), (9, 9));
    assert_eq!(of(&evidence, started.pid).start_time, started.start_time);
    assert!(!file.exists(), "it is read once");
}

#[tokio::test]
async fn kill_9_of_node_and_supervisor_leaves_what_the_next_node_ends() {
    let attempt = format!("test-{}", std::process::id());
    let mut node = node("plain", Some(&attempt), None);
    let started = node.started.clone();
    kill_both(&mut node);
    let evidence = end_leftover(&started, Some(&attempt), None).expect("can look");
    assert_eq!(of(&evidence, node.daemon).signal, 9, "it had left its group and its session");
    assert_eq!(read_to_end(node.pipe).await, 0);
    assert!(kill_marked(&attempt).expect("can look").is_empty());
}

/// Kills a node and the supervisor of its attempt, which must not see the node die, or it would end the tree itself.
fn kill_both(node: &mut Node) {
    let started = &node.started;
    kill(started.supervisor_pid, nix::sys::signal::Signal::SIGSTOP);
    node.process.kill().expect("killed");
    node.process.wait().expect("reaped");
    kill(started.supervisor_pid, nix::sys::signal::Signal::SIGKILL);
    assert!(wait_gone(started.supervisor_pid, started.supervisor_start_time, LONG));
    assert!(wait_gone(started.pid, started.start_time, LONG), "it dies with its supervisor");
}

#[tokio::test]
async fn what_dead_nodes_left_is_ended_in_one_sweep_recorded_or_not() {
    let attempts: Vec<String> =
        (0..3).map(|index| format!("sweep-{}-{index}", std::process::id())).collect();
    let mut nodes: Vec<Node> =
        attempts.iter().map(|attempt| node("plain", Some(attempt), None)).collect();
    nodes.iter_mut().for_each(kill_both);
    let mut left: Vec<Leftover> = attempts
        .iter()
        .zip(&nodes)
        .map(|(attempt, node)| Leftover {
            attempt: Some(attempt.clone()),
            started: Some(node.started.clone()),
            last_words: None,
        })
        .collect();
    // Of the last one only the mark is known.
    left[2].started = None;
    let evidence = end_leftovers(&left).expect("can look");
    assert_eq!(evidence.len(), 3);
    for (evidence, node) in evidence.iter().zip(&nodes) {
        assert_eq!(of(evidence, node.daemon).signal, 9);
        assert_eq!(evidence.len(), 1, "{evidence:?}");
    }
    for node in nodes {
        assert_eq!(read_to_end(node.pipe).await, 0);
    }
    assert!(end_leftovers(&left).expect("can look").iter().all(Vec::is_empty));
}

#[test]
fn attempts_of_earlier_processes_are_found_by_what_they_were_started_with() {
    let folder = tempfile::tempdir().expect("folder");
    let mut child = Command::new("tail")
        .args(["-f", "/dev/null"])
        .env("TEST_FOLDER", folder.path())
        .env("TEST_TASK", "t1")
        .env("SEGUE_ATTEMPT", "a1")
        .spawn()
        .expect("starts");
    let look = |folder: &Path| {
        let mut command = Command::new(HELPER);
        command.args(["before", "TEST_FOLDER"]).arg(folder).arg("TEST_TASK");
        String::from_utf8(command.output().expect("runs").stdout).expect("text")
    };
    // The system's clock of starts moves in steps, so the first look may be of the same age.
    let found = std::iter::repeat_with(|| look(folder.path()))
        .take(1_000)
        .find(|found| found.trim() != "{}");
    let elsewhere = look(Path::new("/nowhere"));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert_eq!(found.as_deref(), Some("{\"a1\":\"t1\"}\n"));
    assert_eq!(elsewhere, "{}\n");
}

#[tokio::test]
async fn a_supervisor_that_dies_before_it_says_what_it_started_leaves_nothing() {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let folder = tempfile::tempdir().expect("folder");
    let fifo = folder.path().join("held");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    // Stands in for a supervisor that starts a program, which leaves the session, and is killed then.
    let supervisor = folder.path().join("supervisor");
    let script = format!("#!/bin/sh\n'{HELPER}' hold > '{}' &\nexit 1\n", fifo.display());
    std::fs::write(&supervisor, script).expect("written");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&supervisor, mode).expect("made executable");
    let attempt = format!("unsaid-{}", std::process::id());
    let launcher = Launcher::new(&supervisor)
        .without_cgroup()
        .supervisor_env("SEGUE_ATTEMPT", attempt.as_str());
    let mut spawn = sh("exit 0");
    spawn.attempt = Some(attempt);
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut pipe = File::options().read(true).custom_flags(flags).open(fifo).expect("opened");
    let error = launcher.spawn(spawn).await.map(|_| ()).expect_err("does not start");
    assert!(matches!(error, SpawnError::Supervisor { .. }), "{error}");
    // It may or may not have come to print its id; as long as anybody held the pipe, this would be told to wait.
    pipe.read_to_end(&mut Vec::new()).expect("nobody holds the pipe any more");
}

#[tokio::test]
async fn a_killed_supervisor_is_noticed_and_its_tree_ended() {
    for (index, launcher) in launchers().into_iter().enumerate() {
        let folder = tempfile::tempdir().expect("folder");
        let fifo = folder.path().join("held");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let mut spawn = sh(&format!("exec 3> '{}'; {DAEMON} {QUIET}", fifo.display()));
        spawn.attempt = Some(format!("lost-{}-{index}", std::process::id()));
        let opened = tokio::task::spawn_blocking(move || File::open(fifo));
        let mut live = Live::start(&launcher, spawn).await;
        let pipe = opened.await.expect("joins").expect("opened");
        let daemon = live.pid().await;
        kill(live.running.started().supervisor_pid, nix::sys::signal::Signal::SIGKILL);
        let ended = tokio::time::timeout(LONG, live.running.wait()).await.expect("does not hang");
        assert_eq!((ended.cause, ended.exit, ended.usage), (Cause::SupervisorLost, None, None));
        assert_eq!(of(&ended.ended, daemon).signal, 9);
        assert_eq!(read_to_end(pipe).await, 0);
    }
}

#[tokio::test]
async fn a_supervisor_that_is_asked_to_stop_ends_its_tree() {
    let mut live = Live::start(&launcher(), sh(HOLD)).await;
    live.line().await;
    let started = live.running.started().clone();
    kill(started.supervisor_pid, nix::sys::signal::Signal::SIGTERM);
    let ended = live.running.wait().await;
    assert_eq!(ended.cause, Cause::SupervisorLost, "nobody here asked for it");
    assert_eq!(ended.exit, Some(Exit { code: None, signal: Some(15) }));
    assert_eq!(of(&ended.ended, started.pid).signal, 15);
}

#[tokio::test]
async fn a_leftover_is_killed_with_its_group_and_its_children_only_if_it_is_the_same() {
    use std::os::unix::process::CommandExt;
    // No supervisor here: this is what a node's restart finds when the supervisors are gone too.
    let script =
        "tail -f /dev/null & echo $!; setsid tail -f /dev/null & echo $!; exec tail -f /dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script]).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let pid = i32::try_from(child.id()).expect("fits");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut id =
        || lines.next().expect("a line").expect("text").trim().parse::<i32>().expect("an id");
    let (inside, outside) = (id(), id());
    let start_time: u64 = stat_fields(pid)[19].parse().expect("a number");

    assert!(
        kill_leftover(pid, start_time + 1).expect("can look").is_empty(),
        "somebody else has this id now"
    );
    assert!(lives(pid) && lives(inside) && lives(outside));
    let evidence = kill_leftover(pid, start_time).expect("can look");
    for one in [pid, inside, outside] {
        assert_eq!(of(&evidence, one).signal, 9);
    }
    assert!(wait_until_gone(inside) && wait_until_gone(outside));
    assert!(child.wait().expect("reaped").code().is_none());
    assert!(kill_leftover(pid, start_time).expect("can look").is_empty());
}

#[tokio::test]
async fn stale_cgroups_of_dead_nodes_are_emptied_and_removed() {
    if !launcher().has_cgroup() {
        eprintln!("no cgroup of version 2 can be made here: nothing to test");
        return;
    }
    let mut node = node("cgroup", None, None);
    let started = node.started.clone();
    let membership =
        std::fs::read_to_string(format!("/proc/{}/cgroup", node.daemon)).expect("lives");
    assert!(membership.contains("/segue-"), "{membership}");
    node.process.kill().expect("killed");
    kill(started.supervisor_pid, nix::sys::signal::Signal::SIGKILL);
    node.process.wait().expect("reaped");
    assert!(wait_gone(started.supervisor_pid, started.supervisor_start_time, LONG));
    launcher().end_stale_cgroups();
    assert_eq!(read_to_end(node.pipe).await, 0);
    assert!(wait_until_gone(node.daemon));
}
