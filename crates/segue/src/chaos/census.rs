//! Counts the processes of a run, from the process table alone: who outlives the node that started them?
//!
//! Every process of an agent is known by a variable in the environment that it was started with, and this process is made
//! the parent of every orphan below it, so that supervisors are seen, too, once their node is dead.

use super::team::{LIFE, MARKER};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What of a dead life still runs by then is an orphan. Supervisors end their trees by SIGKILL as soon as they see their
/// node die; the rest is for a machine that is busy.
pub const GONE_WITHIN: Duration = Duration::from_secs(5);
/// The pause between two looks while a life is being mourned.
const LOOK: Duration = Duration::from_millis(40);
/// The argument by which a supervisor is known.
const SUPERVISE: &[u8] = b"__supervise";

/// A process of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    pid: i32,
    start: u64,
    name: String,
    /// The life of the node in which it was started; a supervisor does not know its own.
    life: Option<u32>,
    /// The attempt that it belongs to.
    attempt: Option<String>,
}

/// The process table, as far as this run is concerned.
#[derive(Clone, Debug)]
struct Table {
    me: i32,
    mark: Vec<u8>,
    /// The name of a node's process: those of its children that have ended are not reaped here.
    node: String,
}

impl Table {
    /// Processes of agents, and supervisors that have lost their node. Reaps those that have ended.
    fn look(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for pid in pids() {
            let Some(line) = Line::read(pid) else { continue };
            if line.zombie {
                if line.parent == self.me && line.name != self.node {
                    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
                }
                continue;
            }
            let (pid, start, name) = (pid, line.start, line.name);
            if line.parent == self.me && is_supervisor(pid) {
                found.push(Found { pid, start, name, life: None, attempt: None });
            } else if let Some((life, attempt)) = self.marks_of(pid) {
                found.push(Found { pid, start, name, life: Some(life), attempt });
            }
        }
        found
    }

    /// The life in which a process of an agent was started, and the attempt.
    fn marks_of(&self, pid: i32) -> Option<(u32, Option<String>)> {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let entries = || environment.split(|byte| *byte == 0);
        if !entries().any(|entry| entry == self.mark) {
            return None;
        }
        let variable = |name: &str| {
            let of = |entry: &[u8]| {
                entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
            };
            String::from_utf8(entries().find_map(of)?).ok()
        };
        Some((variable(LIFE)?.parse().ok()?, variable("SEGUE_ATTEMPT")))
    }
}

fn pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn is_supervisor(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == SUPERVISE))
}

/// One line of the process table.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    name: String,
    parent: i32,
    start: u64,
    zombie: bool,
}

impl Line {
    fn read(pid: i32) -> Option<Line> {
        Line::parse(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    /// Reads `PID (NAME) STATE PPID ..`, where the name may hold anything; the start is field 22.
    fn parse(text: &str) -> Option<Line> {
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
        Some(Line {
            name: text.get(open + 1..close)?.to_owned(),
            zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// What the census came to.
#[derive(Debug, Default)]
pub struct Counted {
    /// Processes that outlived their node for too long, or were there at the very end.
    pub orphans: Vec<String>,
    /// How long after each death the last process of that life was gone.
    pub gone: Vec<Duration>,
}

enum Tell {
    Dead(u32),
    Finish(u32),
}

/// A census that goes on beside the run.
pub struct Census {
    tell: Sender<Tell>,
    thread: JoinHandle<Counted>,
}

impl Census {
    /// Begins the census of a run with this marker, whose node's processes have this name.
    ///
    /// # Errors
    /// When the system has no process table to look at.
    pub fn begin(marker: &str, node: &str) -> std::io::Result<Census> {
        if !std::path::Path::new("/proc/self/environ").exists() {
            return Err(std::io::Error::other(
                "this system has no /proc, by which the processes of a run are counted: use Linux",
            ));
        }
        nix::sys::prctl::set_child_subreaper(true)?;
        let table = Table {
            me: i32::try_from(std::process::id()).unwrap_or(0),
            mark: format!("{MARKER}={marker}").into_bytes(),
            // The kernel keeps fifteen bytes of a name.
            node: node.chars().take(15).collect(),
        };
        let (tell, told) = channel();
        let thread = std::thread::Builder::new()
            .name("census".to_owned())
            .spawn(move || Mourner::new(table).run(&told))?;
        Ok(Census { tell, thread })
    }

    /// This life of the node has just ended.
    pub fn died(&self, life: u32) {
        let _ = self.tell.send(Tell::Dead(life));
    }

    /// The last life has ended, too: waits until nothing is left, or should not be, and ends what is.
    pub fn finish(self, life: u32) -> Counted {
        let _ = self.tell.send(Tell::Finish(life));
        self.thread.join().unwrap_or_default()
    }
}

/// Kills the supervisor of an attempt of the node that runs now, if it has one; `choose` picks among so many.
pub fn kill_a_supervisor(node: i32, choose: impl FnOnce(u64) -> u64) -> bool {
    let mut supervisors: Vec<i32> = pids()
        .into_iter()
        .filter(|pid| Line::read(*pid).is_some_and(|line| line.parent == node && !line.zombie))
        .filter(|pid| is_supervisor(*pid))
        .collect();
    supervisors.sort_unstable();
    let chosen = choose(supervisors.len() as u64) as usize;
    supervisors.get(chosen).is_some_and(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok())
}

/// Waits for the processes of lives that have ended.
struct Mourner {
    table: Table,
    /// Lives of which something may be left, and when they ended.
    mourned: BTreeMap<u32, Instant>,
    /// To which life a supervisor belongs: the latest that had ended when it was first seen without its node.
    supervisors: BTreeMap<(i32, u64), u32>,
    orphans: BTreeMap<(i32, u64), String>,
    gone: Vec<Duration>,
}

impl Mourner {
    fn new(table: Table) -> Mourner {
        Mourner {
            table,
            mourned: BTreeMap::new(),
            supervisors: BTreeMap::new(),
            orphans: BTreeMap::new(),
            gone: Vec::new(),
        }
    }

    fn run(mut self, told: &Receiver<Tell>) -> Counted {
        let mut open = true;
        while open || !self.mourned.is_empty() {
            let told = if self.mourned.is_empty() {
                told.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                told.recv_timeout(LOOK)
            };
            match told {
                Ok(Tell::Dead(life)) => {
                    self.mourned.insert(life, Instant::now());
                }
                Ok(Tell::Finish(life)) => {
                    self.mourned.insert(life, Instant::now());
                    open = false;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if open => break,
                // Nobody tells any more: the wait is for the processes alone.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            }
            let found = self.table.look();
            self.compare(&found, Instant::now());
        }
        for (pid, _) in self.orphans.keys() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        Counted { orphans: self.orphans.into_values().collect(), gone: self.gone }
    }

    /// Which lives have left nothing behind by now, and which have for too long?
    fn compare(&mut self, found: &[Found], now: Instant) {
        let Some(latest) = self.mourned.keys().next_back().copied() else { return };
        let left: Vec<(u32, &Found)> = found
            .iter()
            .filter(|process| !self.orphans.contains_key(&(process.pid, process.start)))
            .map(|process| {
                let key = (process.pid, process.start);
                let first_seen = || *self.supervisors.entry(key).or_insert(latest);
                (process.life.unwrap_or_else(first_seen), process)
            })
            .collect();
        let mut over = BTreeSet::new();
        for (life, died) in &self.mourned {
            let theirs = || left.iter().filter(|(of, _)| of <= life);
            let since = now.saturating_duration_since(*died);
            if theirs().next().is_none() {
                self.gone.push(since);
                over.insert(*life);
            } else if since > GONE_WITHIN {
                for (of, process) in theirs() {
                    let attempt = process.attempt.as_deref().unwrap_or("unknown");
                    let told = format!(
                        "process {} ({}) of life {of}, attempt {attempt}",
                        process.pid, process.name
                    );
                    self.orphans.insert((process.pid, process.start), told);
                }
                over.insert(*life);
            }
        }
        self.mourned.retain(|life, _| !over.contains(life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mourner() -> Mourner {
        Mourner::new(Table { me: 1, mark: b"X=1".to_vec(), node: "segue".to_owned() })
    }

    fn found(pid: i32, life: Option<u32>) -> Found {
        Found { pid, start: 7, name: "sleep".to_owned(), life, attempt: None }
    }

    #[test]
    fn a_line_of_the_process_table_is_read_whatever_the_name_holds() {
        let line =
            Line::parse("77 (a) b ()) S 41 42 43 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0");
        let expected =
            Line { name: "a) b ()".to_owned(), parent: 41, start: 987_654, zombie: false };
        assert_eq!(line, Some(expected));
        assert_eq!(Line::parse("77 (x) S 1"), None);
    }

    #[test]
    fn what_is_gone_in_time_is_no_orphan_and_what_is_not_is_one_for_good() {
        let mut mourner = mourner();
        let died = Instant::now();
        mourner.mourned.insert(3, died);
        mourner.compare(&[found(10, Some(3)), found(11, Some(4))], died);
        assert!(mourner.orphans.is_empty() && mourner.gone.is_empty());
        // Processes of the life that goes on do not count.
        mourner.compare(&[found(11, Some(4))], died + Duration::from_secs(1));
        assert_eq!(mourner.gone, [Duration::from_secs(1)]);
        mourner.mourned.insert(4, died);
        mourner.compare(&[found(11, Some(4))], died + GONE_WITHIN + Duration::from_secs(1));
        assert_eq!(mourner.orphans.len(), 1);
        mourner.mourned.insert(5, died);
        mourner.compare(&[found(11, Some(4))], died + Duration::from_secs(20));
        assert_eq!((mourner.orphans.len(), mourner.gone.len()), (1, 2));
    }

    #[test]
    fn a_supervisor_belongs_to_the_latest_life_that_had_ended_when_it_was_first_seen_alone() {
        let mut mourner = mourner();
        let died = Instant::now();
        mourner.mourned.insert(3, died);
        mourner.compare(&[found(10, None)], died);
        mourner.mourned.insert(4, died);
        let later = died + GONE_WITHIN + Duration::from_secs(1);
        mourner.compare(&[found(10, None)], later);
        assert_eq!(
            mourner.orphans.values().next().unwrap(),
            "process 10 (sleep) of life 3, attempt unknown"
        );
        assert!(mourner.mourned.is_empty());
    }

    #[test]
    fn a_process_is_known_by_its_mark_and_its_life() {
        let marker = uuid::Uuid::new_v4().to_string();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo ready; read -r end"])
            .env(MARKER, &marker)
            .env(LIFE, "12")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Before the program has begun its environment cannot be read.
        let mut ready = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let table = |marker: &str| Table {
            me: -1,
            mark: format!("{MARKER}={marker}").into_bytes(),
            node: String::new(),
        };
        let seen = table(&marker).look();
        let life = seen.iter().find(|process| process.pid == pid).map(|process| process.life);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(life, Some(Some(12)));
        assert!(table("another").look().is_empty());
    }
}
