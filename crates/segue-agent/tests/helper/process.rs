//! What the tests of processes need as a program: a supervisor, a node that can be killed, a
//! program that stays, and one that tells which file descriptors it was given.

use std::io::Write;

use segue_agent::process::{
    Capture, Launcher, Line, Spawn, attempts_before_me, scrubbed_env, supervise_if_asked,
};
use segue_agent::workspace::{WorkspaceKind, Workspaces};

fn main() {
    supervise_if_asked();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["node", "cgroup", script] => node(Launcher::this_binary(), script, None),
        ["node", "plain", script] => node(Launcher::this_binary().without_cgroup(), script, None),
        ["node", "last-words", script, file] => {
            node(Launcher::this_binary().without_cgroup(), script, Some(file))
        }
        ["before", variable, value, also] => {
            let found = attempts_before_me(variable, value, also);
            say(&serde_json::to_vec(&found).expect("serializes"));
        }
        ["fds"] => fds(),
        ["hold"] => hold(),
        ["worktree", project, state] => worktree(project, state),
        _ => std::process::exit(64),
    }
}

/// Runs a shell script as an attempt: first line out is its `Started`, then come the script's lines.
fn node(launcher: Launcher, script: &str, last_words: Option<&str>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut spawn = Spawn::new("sh", "/");
        spawn.args = vec!["-c".into(), script.into()];
        spawn.env = scrubbed_env(&[], &[]).expect("an environment");
        spawn.last_words = last_words.map(Into::into);
        spawn.attempt = std::env::var("TEST_ATTEMPT").ok();
        let on_line = |line: Line<'_>| say(line.bytes);
        spawn.capture = Capture { on_line: Some(Box::new(on_line)), ..Capture::default() };
        let mut running = launcher.spawn(spawn).await.expect("starts");
        say(&serde_json::to_vec(running.started()).expect("serializes"));
        let ended = running.wait().await;
        say(format!("{:?}", ended.cause).as_bytes());
    });
}

fn say(line: &[u8]) {
    let mut out = std::io::stdout().lock();
    out.write_all(line)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .expect("somebody reads");
}

/// Makes a worktree with whatever environment this process was given.
fn worktree(project: &str, state: &str) {
    let made = Workspaces::new(project, state).prepare(WorkspaceKind::Worktree, "t1", 1);
    match made {
        Ok(workspace) => say(workspace.path.as_os_str().as_encoded_bytes()),
        Err(error) => say(error.to_string().as_bytes()),
    }
}

/// Prints its process id and stays, whatever becomes of the pipes that it holds.
fn hold() {
    say(std::process::id().to_string().as_bytes());
    loop {
        std::thread::park();
    }
}

/// Prints the numbers of the open file descriptors, but for the one that the look itself needs.
fn fds() {
    let mut open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .expect("listed")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    open.retain(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    open.sort_unstable();
    say(format!("{open:?}").as_bytes());
}
