//! Workspaces of real git repositories.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use segue_agent::workspace::{
    Removal, Removed, Work, Workspace, WorkspaceError, WorkspaceKind, Workspaces,
};

/// A project with its repository and its state folder.
struct Fixture {
    _folder: tempfile::TempDir,
    project: PathBuf,
    state: PathBuf,
    workspaces: Workspaces,
}

/// A project that is no repository; its name is odd, as names are.
fn bare_folder() -> Fixture {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().canonicalize().expect("exists");
    let (project, state) = (root.join("a prøject"), root.join("state"));
    std::fs::create_dir(&project).expect("made");
    let workspaces = Workspaces::new(&project, &state);
    Fixture { _folder: folder, project, state, workspaces }
}

/// A project with one commit.
fn fixture() -> Fixture {
    let fixture = bare_folder();
    git(&fixture.project, &["init", "--quiet", "--initial-branch=main"]);
    commit(&fixture.project, "README", "hello\n");
    fixture
}

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.org",
            "-c",
            "commit.gpgsign=false",
            "-C",
        ])
        .arg(folder)
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a path"))
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn commit(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
    git(folder, &["add", name]);
    git(folder, &["commit", "--quiet", "-m", name]);
}

impl Fixture {
    fn worktree(&self, task: &str, attempt: u32) -> Workspace {
        self.workspaces.prepare(WorkspaceKind::Worktree, task, attempt).expect("prepared")
    }

    fn branches(&self) -> Vec<String> {
        git(&self.project, &["for-each-ref", "--format=%(refname:short)", "refs/heads"])
            .lines()
            .map(Into::into)
            .collect()
    }

    fn remove(&self, task: &str, removal: Removal) -> Removed {
        self.workspaces.remove(task, removal).expect("looked")
    }
}

const GONE: Removed = Removed::Gone { kept_branch: None };

fn hostile_ids() -> Vec<String> {
    let ids = [
        "", ".", "..", "../x", "a/b", "/etc", "a b", "-x", "x.json", "a\0b", "a\nb", "ä", "~",
        "$(x)", "a\\b",
    ];
    ids.map(str::to_owned).into_iter().chain(["x".repeat(101)]).collect()
}

#[test]
fn own_folders_are_fresh_and_private() {
    let fixture = bare_folder();
    let own = |task: &str, attempt| fixture.workspaces.prepare(WorkspaceKind::Own, task, attempt);
    let first = own("t1", 1).expect("made");
    assert_eq!(first.path, fixture.state.join("work/t1/1"));
    assert_eq!(first.path.metadata().expect("exists").permissions().mode() & 0o777, 0o700);
    assert!(!first.resumed && first.branch.is_none());
    assert_eq!(own("t1", 1).expect("an empty one may be used"), first);
    std::fs::write(first.path.join("x"), "").expect("written");
    assert!(matches!(own("t1", 1), Err(WorkspaceError::NotFresh { .. })));
    assert_eq!(own("t1", 2).expect("made").path, fixture.state.join("work/t1/2"));
    assert_eq!(fixture.remove("t1", Removal::KeepWork), Removed::Kept(Work::Files));
    assert_eq!(fixture.remove("t1", Removal::Discard), GONE);
    assert!(!fixture.state.join("work/t1").exists());
    assert_eq!(fixture.remove("t1", Removal::Discard), Removed::Nothing);
}

#[test]
fn task_ids_that_are_paths_or_options_are_refused_everywhere() {
    let fixture = fixture();
    for id in hostile_ids() {
        for kind in [WorkspaceKind::Own, WorkspaceKind::Worktree, WorkspaceKind::Project] {
            let error = fixture.workspaces.prepare(kind, &id, 1).expect_err("refused");
            assert!(matches!(error, WorkspaceError::BadTask { .. }), "{id:?}: {error}");
        }
        assert!(fixture.workspaces.remove(&id, Removal::Discard).is_err(), "{id:?}");
    }
    assert!(!fixture.state.exists(), "nothing was made");
}

#[test]
fn a_link_in_the_state_folder_leads_nowhere() {
    let fixture = bare_folder();
    std::fs::create_dir_all(fixture.state.join("work")).expect("made");
    symlink(&fixture.project, fixture.state.join("work/t1")).expect("linked");
    let error = fixture.workspaces.prepare(WorkspaceKind::Own, "t1", 1).expect_err("refused");
    assert!(matches!(error, WorkspaceError::Path(_)), "{error}");
    std::fs::write(fixture.project.join("precious"), "").expect("written");
    let _ = fixture.workspaces.remove("t1", Removal::Discard);
    assert!(fixture.project.join("precious").exists());
}

#[test]
fn folders_without_write_permission_can_be_removed() {
    let fixture = bare_folder();
    let path = fixture.workspaces.prepare(WorkspaceKind::Own, "t1", 1).expect("made").path;
    let cache = path.join("cache");
    std::fs::create_dir(&cache).expect("made");
    std::fs::write(cache.join("x"), "").expect("written");
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o500)).expect("set");
    assert_eq!(fixture.remove("t1", Removal::Discard), GONE);
    assert!(!path.exists());
}

#[test]
fn the_project_itself_is_used_as_it_is() {
    let fixture = bare_folder();
    let workspace = fixture.workspaces.prepare(WorkspaceKind::Project, "t1", 1).expect("found");
    assert_eq!(workspace.path, fixture.project);
    let absent = Workspaces::new(fixture.project.join("absent"), &fixture.state);
    let error = absent.prepare(WorkspaceKind::Project, "t1", 1).expect_err("refused").to_string();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn a_worktree_starts_at_head_on_its_own_branch_and_leaves_the_project_alone() {
    let fixture = fixture();
    std::fs::write(fixture.project.join("README"), "changed, not committed\n").expect("written");
    let before = git(&fixture.project, &["status", "--porcelain"]);
    let workspace = fixture.worktree("t1", 1);
    assert_eq!(workspace.path, fixture.state.join("worktrees/t1"));
    assert_eq!(workspace.branch.as_deref(), Some("segue/t1"));
    assert_eq!(workspace.base, Some(git(&fixture.project, &["rev-parse", "HEAD"])));
    assert!(!workspace.resumed);
    assert_eq!(std::fs::read_to_string(workspace.path.join("README")).expect("there"), "hello\n");
    assert_eq!(git(&workspace.path, &["symbolic-ref", "--short", "HEAD"]), "segue/t1");
    assert_eq!(git(&fixture.project, &["status", "--porcelain"]), before);
    assert_eq!(git(&fixture.project, &["symbolic-ref", "--short", "HEAD"]), "main");
}

#[test]
fn later_attempts_go_on_in_the_same_worktree() {
    let fixture = fixture();
    let first = fixture.worktree("t1", 1);
    std::fs::write(first.path.join("draft"), "half done").expect("written");
    commit(&fixture.project, "NEWS", "the project moves on\n");
    let second = fixture.worktree("t1", 2);
    assert_eq!(second, Workspace { resumed: true, ..first });
    assert!(second.path.join("draft").exists() && !second.path.join("NEWS").exists());
    let other = fixture.worktree("t2", 1);
    assert!(other.path.join("NEWS").exists() && !other.path.join("draft").exists());
}

#[test]
fn a_worktree_that_was_deleted_by_hand_comes_back_with_its_commits() {
    let fixture = fixture();
    let first = fixture.worktree("t1", 1);
    commit(&first.path, "done", "work\n");
    std::fs::remove_dir_all(&first.path).expect("removed");
    let second = fixture.worktree("t1", 2);
    assert!(second.resumed && second.path.join("done").exists());
    assert_eq!(second.base, first.base);
}

#[test]
fn an_add_that_was_cut_short_is_done_again() {
    let fixture = fixture();
    let first = fixture.worktree("t1", 1);
    // As if the node had died before the last step: the record is missing, and git's lock is there.
    std::fs::remove_file(fixture.state.join("worktrees/t1.json")).expect("removed");
    std::fs::remove_file(first.path.join("README")).expect("removed");
    git(
        &fixture.project,
        &["worktree", "lock", "--reason", "initializing", first.path.to_str().expect("text")],
    );
    let again = fixture.worktree("t1", 1);
    assert!(!again.resumed && again.path.join("README").exists());
    assert_eq!(fixture.remove("t1", Removal::KeepWork), GONE);
    assert_eq!(fixture.branches(), ["main"]);
}

#[test]
fn a_project_in_a_subfolder_of_its_repository_works_in_that_subfolder() {
    let fixture = fixture();
    let sub = fixture.project.join("services/shop");
    std::fs::create_dir_all(&sub).expect("made");
    let workspaces = Workspaces::new(&sub, &fixture.state);
    let uncommitted = workspaces.prepare(WorkspaceKind::Worktree, "t1", 1).expect("prepared");
    assert_eq!(uncommitted.path, fixture.state.join("worktrees/t1/services/shop"));
    commit(&sub, "shop.txt", "shop\n");
    let committed = workspaces.prepare(WorkspaceKind::Worktree, "t2", 1).expect("prepared");
    assert!(committed.path.join("shop.txt").exists());
    // What a program put in the way of that subfolder is not followed out of the worktree.
    std::fs::remove_dir_all(fixture.state.join("worktrees/t2/services")).expect("removed");
    symlink("/etc", fixture.state.join("worktrees/t2/services")).expect("linked");
    let error = workspaces.prepare(WorkspaceKind::Worktree, "t2", 2).expect_err("refused");
    assert!(matches!(error, WorkspaceError::Path(_)), "{error}");
}

#[test]
fn what_is_no_repository_gets_an_error_with_a_remedy() {
    let fixture = bare_folder();
    let prepare =
        || fixture.workspaces.prepare(WorkspaceKind::Worktree, "t1", 1).expect_err("refused");
    let error = prepare();
    assert!(
        matches!(error, WorkspaceError::NotGit { .. }) && error.to_string().contains("git init"),
        "{error}"
    );
    git(&fixture.project, &["init", "--quiet"]);
    let error = prepare();
    assert!(
        matches!(error, WorkspaceError::NoCommit { .. })
            && error.to_string().contains("commit once"),
        "{error}"
    );
    let bare = bare_folder();
    git(&bare.project, &["init", "--quiet", "--bare"]);
    let error = bare.workspaces.prepare(WorkspaceKind::Worktree, "t1", 1).expect_err("refused");
    assert!(matches!(error, WorkspaceError::NotGit { .. }), "{error}");
}

#[test]
fn what_is_committed_nowhere_else_is_kept() {
    let fixture = fixture();
    let path = fixture.worktree("t1", 1).path;
    let remove = || fixture.remove("t1", Removal::KeepWork);
    std::fs::write(path.join("new"), "").expect("written");
    std::fs::write(path.join("README"), "changed\n").expect("written");
    assert_eq!(remove(), Removed::Kept(Work::Uncommitted { files: 2 }));
    git(&path, &["add", "."]);
    assert_eq!(remove(), Removed::Kept(Work::Uncommitted { files: 2 }));
    git(&path, &["commit", "--quiet", "-m", "work"]);
    commit(&path, "more", "more\n");
    assert_eq!(remove(), Removed::Kept(Work::Unmerged { commits: 2 }));
    // The same if the program checked out something else over its commits.
    git(&path, &["checkout", "--quiet", "--detach", "main"]);
    assert_eq!(remove(), Removed::Kept(Work::Unmerged { commits: 2 }));
    assert!(path.exists());
    git(&fixture.project, &["merge", "--quiet", "segue/t1"]);
    assert_eq!(remove(), GONE);
    assert!(!path.exists());
    assert_eq!(fixture.branches(), ["main"]);
    assert_eq!(
        git(&fixture.project, &["worktree", "list", "--porcelain"]).matches("worktree ").count(),
        1
    );
}

#[test]
fn a_worktree_without_work_goes_and_ignored_files_do_not_keep_it() {
    let fixture = fixture();
    commit(&fixture.project, ".gitignore", "target/\n");
    let path = fixture.worktree("t1", 1).path;
    std::fs::create_dir(path.join("target")).expect("made");
    std::fs::write(path.join("target/big"), "").expect("written");
    assert_eq!(fixture.remove("t1", Removal::KeepWork), GONE);
    assert_eq!(fixture.remove("t1", Removal::KeepWork), Removed::Nothing);
    assert_eq!(fixture.branches(), ["main"]);
}

#[test]
fn to_discard_loses_files_but_never_commits() {
    let fixture = fixture();
    let path = fixture.worktree("t1", 1).path;
    commit(&path, "done", "work\n");
    std::fs::write(path.join("scrap"), "").expect("written");
    assert_eq!(
        fixture.remove("t1", Removal::Discard),
        Removed::Gone { kept_branch: Some("segue/t1".into()) }
    );
    assert_eq!(git(&fixture.project, &["show", "segue/t1:done"]), "work");
    // Work goes on from there if the task comes back.
    assert!(fixture.worktree("t1", 2).path.join("done").exists());

    let path = fixture.worktree("t2", 1).path;
    git(&path, &["checkout", "--quiet", "--detach"]);
    commit(&path, "alone", "on no branch\n");
    assert_eq!(
        fixture.remove("t2", Removal::KeepWork),
        Removed::Kept(Work::Unmerged { commits: 1 })
    );
    let Removed::Gone { kept_branch: Some(branch) } = fixture.remove("t2", Removal::Discard) else {
        panic!("kept on a branch")
    };
    assert!(branch.starts_with("segue-kept/t2-"), "{branch}");
    assert_eq!(git(&fixture.project, &["show", &format!("{branch}:alone")]), "on no branch");
}

#[test]
fn a_branch_that_somebody_uses_stays() {
    let fixture = fixture();
    fixture.worktree("t1", 1);
    let path = fixture.state.join("worktrees/t1");
    git(&path, &["checkout", "--quiet", "--detach"]);
    git(&fixture.project, &["checkout", "--quiet", "segue/t1"]);
    assert_eq!(
        fixture.remove("t1", Removal::KeepWork),
        Removed::Gone { kept_branch: Some("segue/t1".into()) }
    );
    assert_eq!(fixture.branches(), ["main", "segue/t1"]);
}

#[test]
fn a_repository_made_in_the_worktrees_place_is_kept() {
    let fixture = fixture();
    let path = fixture.worktree("t1", 1).path;
    std::fs::remove_file(path.join(".git")).expect("removed");
    let look = || match fixture.remove("t1", Removal::KeepWork) {
        Removed::Kept(Work::Unknown { why }) => why,
        other => panic!("{other:?}"),
    };
    assert!(look().contains("git worktree repair"));
    git(&path, &["init", "--quiet"]);
    commit(&path, "own", "history\n");
    git(&path, &["add", "."]);
    git(&path, &["commit", "--quiet", "--allow-empty", "-m", "all"]);
    assert!(look().contains("no worktree of the project"));
    assert!(path.join("own").exists());
    let error = fixture.workspaces.prepare(WorkspaceKind::Worktree, "t1", 2).expect_err("refused");
    assert!(matches!(error, WorkspaceError::Git { .. }), "{error}");
    assert_eq!(fixture.remove("t1", Removal::Discard), GONE);
    assert!(!path.exists());
}

#[test]
fn leftovers_of_tasks_that_are_over_are_found() {
    let fixture = fixture();
    assert!(fixture.workspaces.list_leftover(|_| false).expect("looked").is_empty());
    for task in ["clean", "dirty", "live", "missing"] {
        fixture.worktree(task, 1);
    }
    std::fs::write(fixture.state.join("worktrees/dirty/x"), "").expect("written");
    std::fs::remove_dir_all(fixture.state.join("worktrees/missing")).expect("removed");
    for task in ["done", "live"] {
        fixture.workspaces.prepare(WorkspaceKind::Own, task, 1).expect("made");
    }
    let found = fixture.workspaces.list_leftover(|task| task == "live").expect("looked");
    let found: Vec<(&str, WorkspaceKind, &Work)> =
        found.iter().map(|l| (l.task.as_str(), l.kind, &l.work)).collect();
    let worktree = WorkspaceKind::Worktree;
    assert_eq!(
        found,
        [
            ("done", WorkspaceKind::Own, &Work::Files),
            ("clean", worktree, &Work::None),
            ("dirty", worktree, &Work::Uncommitted { files: 1 }),
            ("missing", worktree, &Work::Missing),
        ]
    );
    assert_eq!(fixture.remove("missing", Removal::KeepWork), GONE);
    assert_eq!(fixture.branches(), ["main", "segue/clean", "segue/dirty", "segue/live"]);
}

#[test]
fn the_projects_hooks_do_not_run() {
    let fixture = fixture();
    let hook = fixture.project.join(".git/hooks/post-checkout");
    std::fs::create_dir_all(hook.parent().expect("a parent")).expect("made");
    let mark = fixture.project.join("hook-ran");
    std::fs::write(&hook, format!("#!/bin/sh\n: > '{}'\n", mark.display())).expect("written");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("set");
    fixture.worktree("t1", 1);
    assert!(!mark.exists());
    git(&fixture.project, &["checkout", "--quiet", "--detach"]);
    assert!(mark.exists(), "the hook works");
}

/// Makes a worktree in a process with an environment of its own.
fn worktree_with(fixture: &Fixture, variables: &[(&str, &Path)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_segue-test-process"))
        .arg("worktree")
        .args([&fixture.project, &fixture.state])
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_nodes_git_variables_lead_to_no_other_repository() {
    let (other, fixture) = (fixture(), fixture());
    let git_dir = other.project.join(".git");
    let variables = [
        ("GIT_DIR", git_dir.as_path()),
        ("GIT_WORK_TREE", &other.project),
        ("GIT_INDEX_FILE", &git_dir),
    ];
    let made = worktree_with(&fixture, &variables);
    assert_eq!(Path::new(&made), fixture.state.join("worktrees/t1"));
    assert_eq!(other.branches(), ["main"]);
    assert_eq!(fixture.branches(), ["main", "segue/t1"]);
}

#[test]
fn a_machine_without_git_is_told_so() {
    let fixture = fixture();
    let said = worktree_with(&fixture, &[("PATH", Path::new("/nowhere"))]);
    assert!(said.contains("install git"), "{said}");
}

#[test]
fn worktrees_can_be_made_side_by_side() {
    let fixture = fixture();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let fixture = &fixture;
            scope.spawn(move || {
                let workspace = fixture.worktree(&format!("t{number}"), 1);
                assert!(workspace.path.join("README").exists());
            });
        }
    });
    assert_eq!(fixture.branches().len(), 9);
}
