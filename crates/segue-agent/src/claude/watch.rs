//! Hot reload: a change in the agents' folders brings a freshly loaded set.
//!
//! Single folders are watched, never whole trees, so that a busy project costs nothing: the
//! agents' folders themselves, the folders above them (in which they, or what is still
//! missing of them, may come and go), and the folders to which links lead. All paths are
//! resolved first, because the system reports a folder under the one path that it was
//! last asked to watch. Between changes everything blocks; there is no polling.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::RwLock;
use thiserror::Error;

use super::model::{Loaded, Notice, Severity};
use super::tree::{Root, load_roots, roots, walk};

/// How long it must be quiet after a change before the files are read.
const QUIET_MS: u64 = 150;
/// The longest wait if changes never cease.
const BUSY_MS_MAX: u64 = 1_000;
/// How often folders are looked for again while they keep changing, before their contents are
/// read as they are; later changes are reported by then.
const ROUNDS_MAX: usize = 10;

/// How many links are followed one after the other, when the last of them leads nowhere.
const LINKS_MAX: usize = 16;

/// What a change on disk brought.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Everything, freshly loaded.
    pub loaded: Loaded,
    /// What is different from the time before. Empty if only notices are.
    pub changes: Changes,
}

/// Names of agents that are different from the time before, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Agents that were not there.
    pub added: Vec<String>,
    /// Agents whose definition, or whose file, is another one.
    pub changed: Vec<String>,
    /// Agents that are gone.
    pub removed: Vec<String>,
}

impl Changes {
    /// What changed between two loads.
    #[must_use]
    pub fn between(old: &Loaded, new: &Loaded) -> Self {
        let mut changes = Self::default();
        for agent in &new.agents {
            match old.agent(&agent.name) {
                None => changes.added.push(agent.name.clone()),
                Some(before) if before != agent => changes.changed.push(agent.name.clone()),
                Some(_) => {}
            }
        }
        let gone = old.agents.iter().filter(|agent| new.agent(&agent.name).is_none());
        changes.removed.extend(gone.map(|agent| agent.name.clone()));
        changes
    }

    /// Whether no agent is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Why folders cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The system gives out no more watchers.
    #[error(
        "cannot watch the folders of agents for changes: {0}; raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"
    )]
    Notify(#[from] notify::Error),
    /// No thread could be started.
    #[error("cannot watch the folders of agents for changes: no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
}

enum Wake {
    Changed,
    Stop,
}

/// Watches the folders of a project's agents until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    wake: mpsc::Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch, and loads the agents once: a change after this load is reported.
    ///
    /// `on_reload` is called from the watcher's own thread, one call at a time, about 150 ms
    /// after the last of a burst of changes (at most a second after its first), if any agent or
    /// notice is then different. It may drop the watcher.
    ///
    /// # Errors
    /// If the system refuses a watcher or a thread. A single folder that cannot be watched is
    /// a [`Notice`] instead.
    pub fn start(
        project_dir: &Path,
        home_dir: Option<&Path>,
        on_reload: impl FnMut(Reload) + Send + 'static,
    ) -> Result<(Self, Loaded), WatchError> {
        let (wake, woken) = mpsc::channel();
        let mut watch = Watch {
            project: std::path::absolute(project_dir)?,
            home: home_dir.map(std::path::absolute).transpose()?,
            wake: wake.clone(),
            interest: Arc::default(),
            notify: None,
            watched: BTreeSet::new(),
        };
        let loaded = watch.load()?;
        let first = loaded.clone();
        let thread = thread::Builder::new()
            .name("claude-agents".to_owned())
            .spawn(move || run(&mut watch, &woken, loaded, on_reload))?;
        Ok((Self { wake, thread: Some(thread) }, first))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The thread may have ended already; then there is nobody to tell.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The watcher's thread: waits for a change, then for quiet, then loads and reports.
fn run(
    watch: &mut Watch,
    woken: &mpsc::Receiver<Wake>,
    mut before: Loaded,
    mut on_reload: impl FnMut(Reload),
) {
    while let Ok(Wake::Changed) = woken.recv() {
        if !settle(woken, Duration::from_millis(QUIET_MS), Duration::from_millis(BUSY_MS_MAX)) {
            return;
        }
        let loaded = match watch.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                let mut loaded = load_roots(&watch.roots());
                loaded.notices.push(Watch::blind(&watch.project, &error));
                loaded
            }
        };
        if loaded != before {
            let changes = Changes::between(&before, &loaded);
            before = loaded.clone();
            on_reload(Reload { loaded, changes });
        }
    }
}

/// Waits until nothing has changed for `quiet`, at most `busy_max` in all. False: stop.
fn settle(woken: &mpsc::Receiver<Wake>, quiet: Duration, busy_max: Duration) -> bool {
    let end = Instant::now() + busy_max;
    loop {
        let left = end.saturating_duration_since(Instant::now()).min(quiet);
        match woken.recv_timeout(left) {
            Ok(Wake::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Ok(Wake::Changed) if left.is_zero() => return true,
            Ok(Wake::Changed) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => return true,
        }
    }
}

/// Which events matter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Interest {
    /// Folders in which everything matters, resolved.
    folders: BTreeSet<PathBuf>,
    /// Single paths that matter, their last component unresolved.
    paths: BTreeSet<PathBuf>,
}

impl Interest {
    fn matters(&self, event: &notify::Event) -> bool {
        // Opening and reading files is no change; above all, our own reading must not wake us.
        let read_only = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        let hit = |path: &PathBuf| {
            self.paths.contains(path)
                || self.folders.contains(path)
                || path.parent().is_some_and(|parent| self.folders.contains(parent))
        };
        event.need_rescan() || (!read_only && event.paths.iter().any(hit))
    }
}

/// The state of the watcher's thread.
struct Watch {
    project: PathBuf,
    home: Option<PathBuf>,
    wake: mpsc::Sender<Wake>,
    interest: Arc<RwLock<Interest>>,
    notify: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    fn roots(&self) -> Vec<Root> {
        roots(&self.project, self.home.as_deref())
    }

    /// Watches first and reads afterwards, so that nothing falls in between.
    ///
    /// The watches are made anew each time. A folder that was removed and made again under its
    /// old path has lost its watch without any trace in what is watched, and reloads are rare.
    fn load(&mut self) -> Result<Loaded, WatchError> {
        let wake = self.wake.clone();
        let interest = Arc::clone(&self.interest);
        let handler = move |event: notify::Result<notify::Event>| {
            let matters = event.map_or(true, |event| interest.read().matters(&event));
            if matters {
                // Nobody listens once the watcher has been dropped.
                let _ = wake.send(Wake::Changed);
            }
        };
        let mut notify = RecommendedWatcher::new(handler, notify::Config::default())?;
        self.watched.clear();
        let mut blind = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let (interest, folders) = survey(&self.roots());
            let unchanged = *self.interest.read() == interest;
            *self.interest.write() = interest;
            let new: Vec<PathBuf> = folders.difference(&self.watched).cloned().collect();
            if new.is_empty() && unchanged {
                break;
            }
            for folder in new {
                if let Err(error) = notify.watch(&folder, RecursiveMode::NonRecursive) {
                    // Folders further up are of use only if they can be watched at all.
                    let full = matches!(error.kind, notify::ErrorKind::MaxFilesWatch);
                    if full || self.interest.read().folders.contains(&folder) {
                        blind.push(Self::blind(&folder, &error));
                    }
                }
                self.watched.insert(folder);
            }
        }
        let mut loaded = load_roots(&self.roots());
        loaded.notices.extend(blind);
        self.notify = Some(notify);
        Ok(loaded)
    }

    fn blind(folder: &Path, error: &dyn std::error::Error) -> Notice {
        Notice {
            severity: Severity::Warning,
            path: folder.to_owned(),
            line: None,
            message: format!("changes in this folder are not seen: {error}"),
            remedy: "raise fs.inotify.max_user_watches, and restart after changes until then"
                .to_owned(),
        }
    }
}

/// What to watch for these roots, and which folders to watch for it.
fn survey(roots: &[Root]) -> (Interest, BTreeSet<PathBuf>) {
    let mut interest = Interest::default();
    let mut watch = BTreeSet::new();
    for root in roots {
        approach(&root.dir, &mut interest, &mut watch);
        let found = walk(&root.dir);
        for folder in found.folders {
            watch.insert(folder.clone());
            interest.folders.insert(folder);
        }
        for link in found.links {
            far_end(&link, &mut interest, &mut watch);
        }
    }
    (interest, watch)
}

/// The way to a root: its own entry, that of `.claude` and the `.git` beside it, each in the
/// folder that holds it; of what does not exist, the first missing step.
fn approach(root: &Path, interest: &mut Interest, watch: &mut BTreeSet<PathBuf>) {
    let Some(base) = root.parent().and_then(Path::parent) else {
        return;
    };
    let Ok(mut here) = base.canonicalize() else {
        first_missing(base, interest, watch);
        return;
    };
    interest.paths.insert(here.join(".git"));
    interest.paths.insert(here.clone());
    for step in root.strip_prefix(base).into_iter().flat_map(Path::components) {
        let entry = here.join(step);
        watch.insert(here);
        interest.paths.insert(entry.clone());
        if entry.is_symlink() {
            far_end(&entry, interest, watch);
        }
        match entry.canonicalize() {
            Ok(resolved) => here = resolved,
            Err(_) => return,
        }
    }
}

/// What a link leads to, in the folder that holds it; of a way that is broken, the first
/// missing step. (Links on the way to it are not watched: they hardly ever change.)
fn far_end(link: &Path, interest: &mut Interest, watch: &mut BTreeSet<PathBuf>) {
    if let Ok(target) = link.canonicalize() {
        watch.extend(target.parent().map(Path::to_owned));
        interest.paths.insert(target);
        return;
    }
    let mut end = link.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(next) = end.read_link() else { break };
        end = end.parent().map_or_else(|| next.clone(), |parent| parent.join(&next));
    }
    first_missing(&end, interest, watch);
}

/// The first step of a path that does not exist, in the last folder that does.
fn first_missing(path: &Path, interest: &mut Interest, watch: &mut BTreeSet<PathBuf>) {
    let Some((dir, here)) =
        path.ancestors().skip(1).find_map(|dir| Some((dir, dir.canonicalize().ok()?)))
    else {
        return;
    };
    let step = path.strip_prefix(dir).ok().and_then(|rest| rest.components().next());
    interest.paths.extend(step.map(|step| here.join(step)));
    watch.insert(here);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_settles_once() {
        let (send, woken) = mpsc::channel();
        for _ in 0..100 {
            send.send(Wake::Changed).expect("open");
        }
        assert!(settle(&woken, Duration::from_millis(1), Duration::from_secs(60)));
        assert!(woken.try_recv().is_err());
    }

    #[test]
    fn endless_change_does_not_starve_the_reload() {
        let (send, woken) = mpsc::channel();
        send.send(Wake::Changed).expect("open");
        assert!(settle(&woken, Duration::from_secs(60), Duration::ZERO));
    }

    #[test]
    fn stop_ends_the_wait() {
        let (send, woken) = mpsc::channel();
        send.send(Wake::Changed).expect("open");
        send.send(Wake::Stop).expect("open");
        assert!(!settle(&woken, Duration::from_secs(60), Duration::from_secs(60)));
        drop(send);
        assert!(!settle(&woken, Duration::from_secs(60), Duration::from_secs(60)));
    }

    #[test]
    fn reading_is_no_change() {
        let interest = Interest {
            folders: BTreeSet::from(["/a".into()]),
            paths: BTreeSet::from(["/b/c".into()]),
        };
        let event = |kind, path: &str| notify::Event::new(kind).add_path(path.into());
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(!interest.matters(&event(open, "/a/x.md")));
        assert!(interest.matters(&event(written, "/a/x.md")));
        assert!(interest.matters(&event(EventKind::Any, "/a")));
        assert!(interest.matters(&event(EventKind::Any, "/b/c")));
        assert!(!interest.matters(&event(EventKind::Any, "/b/d")));
        assert!(!interest.matters(&event(EventKind::Any, "/b")));
        assert!(
            interest.matters(
                &notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)
            )
        );
    }
}
