//! A cgroup (version 2) for each tree, where the node may make one below its own.
//!
//! The supervisor does not need it. It lets a whole tree be killed in one step, also when the
//! supervisor itself was killed, which nothing else on Linux does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::os;
use super::supervisor::ended;
use super::wire::EndedProcess;

/// The folder of one node, below the cgroup that the node runs in.
#[derive(Debug)]
pub(super) struct NodeCgroup {
    path: PathBuf,
    next: AtomicU64,
}

impl NodeCgroup {
    /// Makes the node's folder, if the system has cgroups of version 2, lets this user do it, and
    /// can kill a whole one (Linux 5.14).
    pub(super) fn make() -> Option<Self> {
        let me = i32::try_from(std::process::id()).ok()?;
        let start_time = os::process(me)?.start_time;
        static MADE: AtomicU64 = AtomicU64::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let path = own_folder()?.join(format!("segue-{me}-{start_time}-{made}"));
        std::fs::create_dir(&path).ok()?;
        let node = Self { path, next: AtomicU64::new(0) };
        node.path.join("cgroup.kill").exists().then_some(node)
    }

    /// The cgroup of one more tree.
    pub(super) fn next(self: &Arc<Self>) -> TreeCgroup {
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        TreeCgroup { path, _node: Arc::clone(self) }
    }
}

/// The cgroup of one tree, which its supervisor makes and removes; it keeps the node's in being.
#[derive(Debug)]
pub(super) struct TreeCgroup {
    pub(super) path: PathBuf,
    _node: Arc<NodeCgroup>,
}

impl Drop for NodeCgroup {
    fn drop(&mut self) {
        // Fails as long as a tree is in it; then the next node does it.
        remove(&self.path);
    }
}

/// Kills everything in a cgroup and returns who that was; removes the cgroup if it is empty by then.
pub(super) fn kill_all_in(path: &Path) -> Vec<EndedProcess> {
    let pids = members(path);
    let killed: Vec<EndedProcess> = pids
        .iter()
        .filter_map(|pid| os::process(*pid))
        .map(|process| ended(&process, libc::SIGKILL))
        .collect();
    if std::fs::write(path.join("cgroup.kill"), "1").is_err() {
        return Vec::new();
    }
    for process in &killed {
        os::wait_gone(process.pid, process.start_time, std::time::Duration::from_secs(1));
    }
    remove(path);
    killed
}

/// Kills what is left in the cgroups of nodes that are dead, and removes those cgroups.
pub(super) fn end_stale() -> Vec<EndedProcess> {
    let Some(entries) = own_folder().and_then(|folder| std::fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let stale =
        entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(node_is_dead));
    stale.flat_map(|entry| kill_all_in(&entry.path())).collect()
}

/// Whether this is the name of a node's folder, and the node is gone.
fn node_is_dead(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("segue-") else {
        return false;
    };
    let mut numbers = rest.split('-').map(str::parse::<u64>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(pid)), Some(Ok(start_time)), Some(Ok(_)), None) => {
            i32::try_from(pid).is_ok_and(|pid| {
                !os::process(pid).is_some_and(|p| p.start_time == start_time && !p.zombie)
            })
        }
        _ => false,
    }
}

fn members(path: &Path) -> BTreeSet<i32> {
    let own = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: BTreeSet<i32> =
        own.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
    for child in folders_in(path) {
        pids.extend(members(&child));
    }
    pids
}

fn remove(path: &Path) {
    for child in folders_in(path) {
        remove(&child);
    }
    let _ = std::fs::remove_dir(path);
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// The folder of the cgroup that this process is in.
fn own_folder() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    folder_of(&mounts, &membership)
}

/// Finds the folder from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn folder_of(mounts: &str, membership: &str) -> Option<PathBuf> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // A cgroup above the root of the mount (`/..`) cannot be reached through it.
        let below = Path::new(own).strip_prefix(root).ok()?;
        let plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        plain.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "25 1 0:22 / /proc rw - proc proc rw\n\
        31 25 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_folder_is_found_below_the_mount() {
        let found = folder_of(MOUNTS, "4:memory:/x\n0::/user.slice/a.scope\n");
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/user.slice/a.scope")));
        let mounts = MOUNTS.replace("0:27 / ", "0:27 /docker/abc ");
        assert_eq!(
            folder_of(&mounts, "0::/docker/abc\n"),
            Some(PathBuf::from("/sys/fs/cgroup/unified/"))
        );
    }

    #[test]
    fn no_cgroup_2_or_one_out_of_reach_gives_none() {
        assert_eq!(folder_of("25 1 0:22 / /proc rw - proc proc rw\n", "0::/\n"), None);
        assert_eq!(folder_of(MOUNTS, "4:memory:/x\n"), None);
        assert_eq!(folder_of(MOUNTS, "0::/../other\n"), None);
        assert_eq!(
            folder_of(&MOUNTS.replace("0:27 / ", "0:27 /docker/abc "), "0::/docker/xyz\n"),
            None
        );
    }

    #[test]
    fn only_the_folders_of_dead_nodes_are_stale() {
        let me = std::process::id();
        let start = os::process(i32::try_from(me).expect("fits")).expect("listed").start_time;
        assert!(!node_is_dead(&format!("segue-{me}-{start}-0")));
        assert!(node_is_dead(&format!("segue-{me}-{}-0", start + 1)));
        for name in [
            "segue-1",
            "segue-a-b-c",
            "segue-1-2-3-4",
            "user.slice",
            "segue-",
            "segue-99999999999-1-1",
        ] {
            assert!(!node_is_dead(name), "{name}");
        }
    }
}
