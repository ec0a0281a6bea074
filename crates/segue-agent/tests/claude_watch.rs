//! Hot reload on a real file system. Nothing here sleeps: each step waits for the report of
//! what it did.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use segue_agent::claude::{Changes, Loaded, Reload, Watcher};
use tempfile::TempDir;

/// Longer than any machine needs; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    dir: TempDir,
    reports: mpsc::Receiver<Reload>,
    _watcher: Watcher,
    first: Loaded,
}

impl World {
    /// A repository and a home as `lay` leaves them, watched.
    fn new(lay: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().expect("temp");
        fs::create_dir_all(dir.path().join("repo/.git")).expect("repository");
        fs::create_dir_all(dir.path().join("home")).expect("home");
        lay(dir.path());
        let (send, reports) = mpsc::channel();
        let report = move |reload| send.send(reload).expect("the test listens");
        let (watcher, first) =
            Watcher::start(&dir.path().join("repo"), Some(&dir.path().join("home")), report)
                .expect("watch");
        Self { dir, reports, _watcher: watcher, first }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Waits until the agents are these, and returns all names that were reported on the way.
    fn wait(&self, names: &[&str]) -> Changes {
        self.wait_for(|loaded| {
            loaded.agents.iter().map(|agent| agent.name.as_str()).eq(names.iter().copied())
        })
    }

    fn wait_for(&self, done: impl Fn(&Loaded) -> bool) -> Changes {
        let mut all = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        loop {
            let reload = self.reports.recv_timeout(PATIENCE).expect("a report");
            let Changes { added, changed, removed } = reload.changes;
            for (all, new) in all.iter_mut().zip([added, changed, removed]) {
                all.extend(new);
            }
            if done(&reload.loaded) {
                let [added, changed, removed] = all.map(|names| names.into_iter().collect());
                return Changes { added, changed, removed };
            }
        }
    }
}

fn write(path: &Path, name: &str, prompt: &str) {
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, format!("---\nname: {name}\ndescription: d\n---\n{prompt}\n")).expect("file");
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn from_nothing_through_every_change() {
    let world = World::new(|_| {});
    assert_eq!(world.first, Loaded::default());
    let file = world.path("repo/.claude/agents/a.md");
    write(&file, "a", "one");
    assert_eq!(world.wait(&["a"]).added, list(&["a"]));
    write(&file, "a", "two");
    let changes = world.wait_for(|loaded| loaded.agents[0].prompt == "two");
    assert_eq!(changes, Changes { changed: list(&["a"]), ..Changes::default() });
    write(&file, "b", "two");
    let changes = world.wait(&["b"]);
    assert_eq!((changes.added, changes.removed), (list(&["b"]), list(&["a"])));
    fs::remove_file(&file).expect("remove");
    assert_eq!(world.wait(&[]).removed, list(&["b"]));
}

#[test]
fn folders_that_come_go_and_come_again() {
    let world = World::new(|dir| write(&dir.join("repo/.claude/agents/a.md"), "a", "x"));
    assert_eq!(world.first.agents.len(), 1);
    for round in 0..3 {
        fs::remove_dir_all(world.path("repo/.claude")).expect("remove");
        assert_eq!(world.wait(&[]).removed, list(&["a"]), "round {round}");
        write(&world.path("repo/.claude/agents/a.md"), "a", "x");
        world.wait(&["a"]);
    }
    fs::rename(world.path("repo/.claude"), world.path("repo/off")).expect("rename");
    world.wait(&[]);
    fs::rename(world.path("repo/off"), world.path("repo/.claude")).expect("rename");
    world.wait(&["a"]);
    fs::rename(world.path("repo/.claude/agents"), world.path("repo/.claude/off")).expect("rename");
    world.wait(&[]);
}

#[test]
fn a_folder_swapped_for_another() {
    let world = World::new(|dir| {
        write(&dir.join("repo/.claude/agents/sub/a.md"), "a", "x");
        write(&dir.join("other/b.md"), "b", "x");
    });
    // Within one burst: the path is the same before and after, the folder is not.
    fs::rename(world.path("repo/.claude/agents/sub"), world.path("gone")).expect("rename");
    fs::rename(world.path("other"), world.path("repo/.claude/agents/sub")).expect("rename");
    world.wait(&["b"]);
    write(&world.path("repo/.claude/agents/sub/c.md"), "c", "x");
    world.wait(&["b", "c"]);
}

#[test]
fn nested_folders_made_after_the_start() {
    let world =
        World::new(|dir| fs::create_dir_all(dir.join("repo/.claude/agents")).expect("folder"));
    write(&world.path("repo/.claude/agents/x/y/z/deep.md"), "deep", "x");
    world.wait(&["deep"]);
    write(&world.path("repo/.claude/agents/x/y/z/deep.md"), "deeper", "x");
    world.wait(&["deeper"]);
}

#[test]
fn the_users_agent_shows_when_the_projects_goes() {
    let world = World::new(|dir| {
        write(&dir.join("repo/.claude/agents/a.md"), "a", "project");
        write(&dir.join("home/.claude/agents/a.md"), "a", "user");
    });
    assert_eq!(world.first.agents[0].prompt, "project");
    fs::remove_file(world.path("repo/.claude/agents/a.md")).expect("remove");
    let changes = world.wait_for(|loaded| loaded.agents[0].prompt == "user");
    assert_eq!(changes, Changes { changed: list(&["a"]), ..Changes::default() });
    write(&world.path("home/.claude/agents/b.md"), "b", "x");
    world.wait(&["a", "b"]);
}

#[test]
fn linked_files_and_folders() {
    let world = World::new(|dir| {
        write(&dir.join("shared/file.md"), "file", "one");
        write(&dir.join("team/folder.md"), "folder", "one");
        fs::create_dir_all(dir.join("repo/.claude/agents")).expect("folder");
        symlink(dir.join("shared/file.md"), dir.join("repo/.claude/agents/file.md")).expect("link");
        symlink(dir.join("team"), dir.join("repo/.claude/agents/team")).expect("link");
    });
    assert_eq!(world.first.agents.len(), 2);
    write(&world.path("shared/file.md"), "file", "two");
    world.wait_for(|loaded| loaded.agent("file").is_some_and(|agent| agent.prompt == "two"));
    // As editors do it: a new file takes the place of the old one.
    write(&world.path("shared/new"), "file", "three");
    fs::rename(world.path("shared/new"), world.path("shared/file.md")).expect("rename");
    world.wait_for(|loaded| loaded.agent("file").is_some_and(|agent| agent.prompt == "three"));
    write(&world.path("team/second.md"), "second", "x");
    world.wait(&["file", "folder", "second"]);
    fs::remove_dir_all(world.path("team")).expect("remove");
    world.wait(&["file"]);
}

#[test]
fn a_link_whose_file_comes_later() {
    let world = World::new(|dir| {
        fs::create_dir_all(dir.join("repo/.claude/agents")).expect("folder");
        symlink("../../../later/deep/a.md", dir.join("repo/.claude/agents/a.md")).expect("link");
    });
    assert_eq!(world.first.notices.len(), 1, "{:?}", world.first.notices);
    write(&world.path("later/deep/a.md"), "a", "x");
    world.wait(&["a"]);
}

#[test]
fn a_whole_configuration_behind_a_link() {
    let world = World::new(|dir| {
        write(&dir.join("dotfiles/agents/a.md"), "a", "x");
        symlink(dir.join("dotfiles"), dir.join("home/.claude")).expect("link");
        symlink(dir.join("dotfiles"), dir.join("repo/.claude")).expect("link");
    });
    assert_eq!(world.first.agents.len(), 1);
    write(&world.path("dotfiles/agents/b.md"), "b", "x");
    world.wait(&["a", "b"]);
    fs::rename(world.path("dotfiles"), world.path("elsewhere")).expect("rename");
    world.wait(&[]);
    fs::rename(world.path("elsewhere"), world.path("dotfiles")).expect("rename");
    world.wait(&["a", "b"]);
}

#[test]
fn a_file_that_breaks_is_gone_with_a_notice() {
    let world = World::new(|dir| write(&dir.join("repo/.claude/agents/a.md"), "a", "x"));
    fs::write(world.path("repo/.claude/agents/a.md"), "---\nname: a\n---\n").expect("file");
    let changes = world.wait_for(|loaded| {
        loaded.notices.iter().any(|notice| notice.message.contains("description"))
    });
    assert_eq!(changes.removed, list(&["a"]));
    // Another notice alone is worth a report, too.
    fs::write(world.path("repo/.claude/agents/a.md"), "---\nname: 5\n---\n").expect("file");
    let changes = world
        .wait_for(|loaded| loaded.notices.iter().any(|notice| notice.message.contains("a number")));
    assert!(changes.is_empty());
}

#[test]
fn what_does_not_matter_is_not_reported() {
    let world = World::new(|dir| write(&dir.join("repo/.claude/agents/a.md"), "a", "x"));
    for number in 0..50 {
        fs::write(world.path("repo/noise"), format!("{number}")).expect("file");
        fs::write(world.path("repo/.claude/settings.json"), format!("{number}")).expect("file");
        fs::write(world.path("repo/.claude/agents/notes.txt"), format!("{number}")).expect("file");
    }
    write(&world.path("repo/.claude/agents/b.md"), "b", "x");
    let reload = world.reports.recv_timeout(PATIENCE).expect("a report");
    assert_eq!(reload.changes, Changes { added: list(&["b"]), ..Changes::default() });
}

#[test]
fn a_repository_that_begins_later_shortens_the_way_up() {
    let world = World::new(|dir| {
        fs::remove_dir(dir.join("repo/.git")).expect("no repository");
        write(&dir.join(".claude/agents/above.md"), "above", "x");
        write(&dir.join("repo/.claude/agents/a.md"), "a", "x");
    });
    assert!(world.first.agent("above").is_some());
    fs::create_dir(world.path("repo/.git")).expect("repository");
    world.wait_for(|loaded| loaded.agent("above").is_none() && loaded.agent("a").is_some());
}

#[test]
fn dropping_ends_it_also_from_within_a_report() {
    let dir = TempDir::new().expect("temp");
    fs::create_dir_all(dir.path().join("repo/.git")).expect("repository");
    let slot: Arc<Mutex<Option<Watcher>>> = Arc::default();
    let (send, reports) = mpsc::channel::<()>();
    let own = Arc::clone(&slot);
    let report = move |_| {
        drop(own.lock().expect("slot").take());
        send.send(()).expect("the test listens");
    };
    let (watcher, _) = Watcher::start(&dir.path().join("repo"), None, report).expect("watch");
    *slot.lock().expect("slot") = Some(watcher);
    write(&dir.path().join("repo/.claude/agents/a.md"), "a", "x");
    reports.recv_timeout(PATIENCE).expect("a report");
    // The thread ends, and with it the callback and its end of the channel.
    assert_eq!(reports.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}
