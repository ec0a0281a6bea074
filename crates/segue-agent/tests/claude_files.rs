//! Agent files as they are found in real folders: each quirk that Claude Code has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use segue_agent::claude::{
    AgentFile, Effort, FILE_BYTES_MAX, Loaded, Notice, Scope, Severity, load, load_tree, parse,
    roots, to_agents_json,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, bytes).expect("file");
}

fn one(text: impl AsRef<[u8]>) -> (Option<AgentFile>, Vec<Notice>) {
    parse(Path::new("agents/x.md"), text.as_ref(), Scope::Project)
}

/// The agent of a text that must load without a word.
fn clean(text: &str) -> AgentFile {
    let (agent, notices) = one(text);
    assert!(notices.is_empty(), "{notices:?}");
    agent.expect("loads")
}

/// The agent of a text that must load with exactly one warning, and the warning.
fn odd(text: impl AsRef<[u8]>) -> (AgentFile, Notice) {
    let (agent, mut notices) = one(text);
    assert_eq!(notices.len(), 1, "{notices:?}");
    let notice = notices.remove(0);
    assert_eq!(notice.severity, Severity::Warning, "{notice}");
    assert!(!notice.remedy.is_empty() && notice.line.is_some(), "{notice}");
    (agent.expect("loads"), notice)
}

/// Why a text does not load.
fn skipped(text: impl AsRef<[u8]>) -> Notice {
    let (agent, mut notices) = one(text);
    assert_eq!(agent, None);
    let notice = notices.pop().expect("a notice says why");
    assert_eq!(notice.severity, Severity::Skipped, "{notice}");
    assert!(!notice.remedy.is_empty() && notice.line.is_some(), "{notice}");
    notice
}

fn minimal(name: &str) -> String {
    format!("---\nname: {name}\ndescription: d\n---\nDo it.\n")
}

#[test]
fn a_full_file() {
    let agent = clean(
        "---\nname: rust-reviewer\ndescription: Reviews Rust.\ntools: Read, Grep, Bash(git *), Agent(a, b)\n\
         disallowedTools: [Write]\nmodel: opus\npermissionMode: plan\nmaxTurns: 12\nskills: [style, api]\n\
         mcpServers:\n  - github\n  - local: {command: srv, args: [x]}\nhooks:\n  Stop:\n    - hooks:\n        - type: command\n          command: ./done.sh\n\
         memory: project\nbackground: false\neffort: high\nisolation: worktree\ncolor: cyan\ninitialPrompt: Begin.\nomitClaudeMd: true\n---\n\nYou review Rust.\n",
    );
    assert_eq!(agent.name, "rust-reviewer");
    assert_eq!(agent.description, "Reviews Rust.");
    assert_eq!(agent.prompt, "You review Rust.");
    let tools = ["Read", "Grep", "Bash(git *)", "Agent(a, b)"].map(str::to_owned);
    assert_eq!(agent.tools.as_deref(), Some(&tools[..]));
    assert_eq!(agent.effort, Some(Effort::Level("high")));
    assert_eq!(agent.extra["omitClaudeMd"], true);
    let expected: Value = json!({"rust-reviewer": {
        "description": "Reviews Rust.", "prompt": "You review Rust.",
        "tools": ["Read", "Grep", "Bash(git *)", "Agent(a, b)"], "disallowedTools": ["Write"], "model": "opus",
        "permissionMode": "plan", "mcpServers": ["github", {"local": {"command": "srv", "args": ["x"]}}],
        "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "./done.sh"}]}]}, "maxTurns": 12,
        "skills": ["style", "api"], "initialPrompt": "Begin.", "memory": "project", "effort": "high",
        "background": false, "isolation": "worktree", "omitClaudeMd": true,
    }});
    assert_eq!(to_agents_json(&[agent]), expected);
}

#[test]
fn a_minimal_file() {
    let agent = clean(&minimal("a"));
    assert_eq!(agent.tools, None);
    assert_eq!(to_agents_json(&[agent]), json!({"a": {"description": "d", "prompt": "Do it."}}));
    assert_eq!(to_agents_json(&[]), json!({}));
    assert_eq!(clean("---\nname: a\ndescription: d\n---").prompt, "");
    assert_eq!(clean(&minimal("Accessibility Auditor_1")).name, "Accessibility Auditor_1");
}

#[test]
fn colons_in_an_unquoted_description() {
    let (agent, notice) =
        odd("---\nname: a\ndescription: Use this when: the build fails\nmodel: opus\n---\nx");
    assert_eq!(agent.description, "Use this when: the build fails");
    assert_eq!(agent.model.as_deref(), Some("opus"));
    assert_eq!(notice.line, Some(3));
    assert!(notice.message.contains("description (line 3)"), "{notice}");
    assert!(notice.remedy.contains("double quotes"), "{notice}");
}

#[test]
fn stars_that_look_like_yaml_aliases() {
    let (agent, _) = odd("---\nname: a\ndescription: **MUST BE USED** for *everything*\n---\nx");
    assert_eq!(agent.description, "**MUST BE USED** for *everything*");
    let (agent, notice) = odd("---\nname: a\ndescription: d\ntools: *\n---\nx");
    assert_eq!(agent.tools, None);
    assert_eq!(notice.line, Some(4));
}

#[test]
fn literal_line_breaks_in_a_description() {
    let text = "---\nname: a\ndescription: Use it.\\n\\n<example>\\nContext: x\\nuser: \"go\"\\n</example>\n---\nx";
    let (agent, _) = odd(text);
    assert_eq!(agent.description, "Use it.\n\n<example>\nContext: x\nuser: \"go\"\n</example>");
}

#[test]
fn blocks_of_text() {
    let agent = clean("---\nname: a\ndescription: |\n  First: one.\n  Second.\n---\nx");
    assert_eq!(agent.description, "First: one.\nSecond.\n");
    let agent = clean("---\nname: a\ndescription: >-\n  First: one.\n  Second.\n---\nx");
    assert_eq!(agent.description, "First: one. Second.");
    // The second try puts the `|` in quotes, and then the block makes no sense.
    assert_eq!(skipped("---\nname: a\ntools: *\ndescription: |\n  text\n---\nx").line, Some(3));
}

#[test]
fn byte_order_mark_and_carriage_returns() {
    let text = format!("\u{feff}{}", minimal("a").replace('\n', "\r\n"));
    let agent = clean(&text);
    assert_eq!((agent.name.as_str(), agent.prompt.as_str()), ("a", "Do it."));
    // With CRLF there is no second try, in Claude Code as here.
    let notice = skipped("---\r\nname: a\r\ndescription: use when: x\r\n---\r\nx");
    assert_eq!(notice.line, Some(3));
    assert!(notice.remedy.contains("LF"), "{notice}");
}

#[test]
fn a_key_that_stands_twice() {
    assert_eq!(clean("---\nname: a\ndescription: one\ndescription: two\n---\n").description, "two");
}

#[test]
fn descriptions_that_are_no_text() {
    for (value, kind) in [
        ("123", "a number"),
        ("true", "true or false"),
        ("[a, b]", "a list"),
        ("{a: b}", "a mapping"),
    ] {
        let notice = skipped(format!("---\nname: a\ndescription: {value}\n---\nx"));
        assert_eq!(notice.line, Some(3));
        assert!(notice.message.contains(kind) && notice.remedy.contains("quotes"), "{notice}");
    }
    for value in ["", "\"\"", "~"] {
        let notice = skipped(format!("---\nname: a\ndescription: {value}\n---\nx"));
        assert!(notice.message.contains("no `description`"), "{notice}");
    }
    assert!(skipped("---\nname: a\n---\nx").message.contains("no `description`"));
    assert_eq!(clean("---\nname: a\ndescription: yes\n---\nx").description, "yes");
}

#[test]
fn names_that_do_not_count() {
    assert!(skipped("---\nname: \"a:b\"\ndescription: d\n---\n").message.contains("colon"));
    assert!(skipped("---\nname: -a\ndescription: d\n---\n").message.contains("dash"));
    assert!(skipped("---\nname: 5\ndescription: d\n---\n").message.contains("a number"));
    assert!(skipped("---\ndescription: d\n---\n").message.contains("no `name`"));
    let (agent, notice) = odd("---\nname: \" a\"\ndescription: d\n---\n");
    assert_eq!(agent.name, " a");
    assert_eq!(notice.line, Some(2));
}

#[test]
fn documentation_is_a_quiet_note() {
    for text in ["# Agents\n\nSee below.\n\n---\n", "", "---\ntitle: Handbook\n---\ntext"] {
        let (agent, notices) = one(text);
        assert_eq!(agent, None);
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].severity, Severity::Note, "{}", notices[0]);
    }
}

#[test]
fn front_matter_that_misses_its_place() {
    let notice = skipped(format!("\n{}", minimal("a")));
    assert_eq!(notice.line, Some(2));
    assert!(notice.message.contains("first line"), "{notice}");
    assert!(skipped("---\nname: a\ndescription: d\n").message.contains("closing"));
    let (agent, notice) = odd("---\nname: a\ndescription: fast --- and cheap\n---\nx");
    assert_eq!(agent.description, "fast");
    assert_eq!(agent.prompt, "and cheap\n---\nx");
    assert_eq!(notice.line, Some(3));
}

#[test]
fn tabs_as_indentation() {
    let (agent, notice) = odd("---\nname: a\ndescription: d\ntools:\n\t- Read\n---\nx");
    assert_eq!(agent.tools, Some(vec!["Read".to_owned()]));
    assert_eq!(notice.line, Some(5));
    let notice = skipped("---\nname: a\ndescription: d\n\tmodel: opus\n---\nx");
    assert!(notice.remedy.contains("tabs"), "{notice}");
}

#[test]
fn values_that_claude_code_ignores() {
    for (line, part) in [
        ("permissionMode: yolo", "permissionMode"),
        ("maxTurns: lots", "maxTurns"),
        ("maxTurns: 0", "maxTurns"),
        ("color: mauve", "color"),
        ("color: '#ff0000'", "color"),
        ("memory: cloud", "memory"),
        ("isolation: container", "isolation"),
        ("background: maybe", "background"),
        ("effort: vast", "effort"),
        ("model: 5", "model"),
        ("mcpServers: {a: {command: x}}", "mcpServers"),
        ("mcpServers: [{a: {url: x}}]", "mcpServers"),
        ("hooks: {PreTool: []}", "PreTool"),
    ] {
        let (agent, notice) = odd(format!("---\nname: a\ndescription: d\n{line}\n---\nx"));
        assert_eq!(notice.line, Some(4), "{notice}");
        assert!(notice.message.contains(part), "{notice}");
        let expected = json!({"a": {"description": "d", "prompt": "x"}});
        assert_eq!(to_agents_json(&[agent]), expected, "{line}");
    }
    let (agent, _) =
        odd("---\nname: a\ndescription: d\nmodel: Claude Sonnet 4.5 (copilot)\n---\nx");
    assert_eq!(agent.model.as_deref(), Some("Claude Sonnet 4.5 (copilot)"));
    assert!(
        skipped("---\nname: a\ndescription: d\nhooks: {Stop: 5}\n---\n")
            .message
            .contains("hooks.Stop")
    );
}

#[test]
fn tools_that_do_not_exist() {
    let (agent, notice) =
        odd("---\nname: a\ndescription: d\ntools: Read, LS, MultiEdit, mcp__x__y\n---\nx");
    assert_eq!(agent.tools.map(|tools| tools.len()), Some(4));
    assert_eq!(notice.line, Some(4));
    assert!(notice.remedy.contains("for MultiEdit write Edit"), "{notice}");
    let (_, notice) = odd("---\nname: a\ndescription: d\ntools: read, bash\n---\nx");
    assert!(notice.message.contains("none of the tools"), "{notice}");
    for empty in ["", " []", " \"\"", " 5"] {
        let (agent, notice) = odd(format!("---\nname: a\ndescription: d\ntools:{empty}\n---\nx"));
        assert_eq!(agent.tools, Some(Vec::new()));
        assert!(notice.message.contains("no tool"), "{notice}");
    }
    let (_, notice) = odd("---\nname: a\ndescription: d\ndisallowedTools: Wirte\n---\nx");
    assert!(notice.message.contains("Wirte"), "{notice}");
}

#[test]
fn unknown_keys_are_named_with_their_lines() {
    let (agent, notice) = odd(
        "---\nname: a\ncategory: testing\ndescription: d\nmax_turns: 5\nallowed-tools: Read\n---\nx",
    );
    assert_eq!(notice.line, Some(3));
    for part in ["category (line 3)", "max_turns (line 5)", "allowed-tools (line 6)"] {
        assert!(notice.message.contains(part), "{notice}");
    }
    for part in ["for max_turns write maxTurns", "for allowed-tools write tools"] {
        assert!(notice.remedy.contains(part), "{notice}");
    }
    assert_eq!(agent.extra["category"], "testing");
    assert_eq!(agent.max_turns, None);
}

#[test]
fn bytes_that_are_no_text() {
    let (agent, notice) = odd(b"---\nname: a\ndescription: caf\xe9\n---\nx");
    assert_eq!(agent.description, "caf\u{fffd}");
    assert_eq!(notice.line, Some(3));
    let (agent, notice) = odd(b"---\nname: a\ndescription: d\n---\nx\n\0\n");
    assert_eq!(agent.prompt, "x\n\0");
    assert!(notice.message.contains("NUL"), "{notice}");
    assert!(skipped(b"---\nname: a\ndescription: d\0\n---\nx").message.contains("not YAML"));
    let utf16: Vec<u8> = [0xfeff_u16]
        .into_iter()
        .chain(minimal("a").encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(skipped(utf16).message.contains("UTF-16"));
}

#[test]
fn the_size_cap_is_exact() {
    let mut text = minimal("a").into_bytes();
    text.resize(FILE_BYTES_MAX, b'x');
    assert!(one(&text).0.is_some());
    text.push(b'x');
    let (agent, notices) = one(&text);
    assert_eq!(agent, None);
    assert!(notices[0].message.contains("1048577"), "{}", notices[0]);
}

#[test]
fn nested_folders_and_which_files_count() {
    let dir = TempDir::new().expect("temp");
    for path in
        ["top.md", "a/b/c/deep.md", ".hidden/h.md", "node_modules/n.md", ".dot.md", "a b/ü.md"]
    {
        write(dir.path(), path, minimal(&path.replace('/', "-")));
    }
    for path in ["x.MD", "x.markdown", "x.txt", "md"] {
        write(dir.path(), path, minimal("not-me"));
    }
    let loaded = load_tree(dir.path(), Scope::Project);
    let names: Vec<&str> = loaded.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(
        names,
        [".dot.md", ".hidden-h.md", "a b-ü.md", "a-b-c-deep.md", "node_modules-n.md", "top.md"]
    );
    assert_eq!(loaded.notices, []);
    assert!(loaded.agent("top.md").is_some() && loaded.agent("nobody").is_none());
    assert_eq!(load_tree(&dir.path().join("missing"), Scope::User), Loaded::default());
}

#[test]
fn double_names_in_one_tree() {
    let dir = TempDir::new().expect("temp");
    for path in ["z.md", "a/y.md", "m.md"] {
        write(dir.path(), path, minimal("same"));
    }
    let loaded = load_tree(dir.path(), Scope::Project);
    assert_eq!(loaded.agents.len(), 1);
    assert!(loaded.agents[0].path.ends_with("m.md"));
    let places: Vec<_> = loaded.notices.iter().map(|notice| notice.path.clone()).collect();
    assert_eq!(places, [dir.path().join("a/y.md"), dir.path().join("z.md")]);
    assert!(loaded.notices.iter().all(|notice| notice.severity == Severity::Skipped
        && notice.message.contains("m.md")
        && !notice.remedy.is_empty()));
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let dir = TempDir::new().expect("temp");
    let tree = dir.path().join("agents");
    write(dir.path(), "outside/shared.md", minimal("shared"));
    write(dir.path(), "plain-file", minimal("plain"));
    write(&tree, "sub/a.md", minimal("a"));
    symlink("../outside", tree.join("linked")).expect("link");
    symlink("../plain-file", tree.join("plain.md")).expect("link");
    symlink("..", tree.join("sub/up")).expect("link");
    symlink(".", tree.join("self")).expect("link");
    symlink("nowhere", tree.join("dangling.md")).expect("link");
    symlink("nowhere", tree.join("dangling-folder")).expect("link");
    symlink("loop.md", tree.join("loop.md")).expect("link");
    let loaded = load_tree(&tree, Scope::Project);
    let names: Vec<&str> = loaded.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["a", "plain", "shared"]);
    let odd: Vec<_> =
        loaded.notices.iter().map(|notice| notice.path.file_name().expect("name")).collect();
    assert_eq!(odd, ["dangling.md", "loop.md"]);
    assert!(loaded.notices[0].message.contains("leads nowhere"), "{}", loaded.notices[0]);
}

#[test]
fn what_is_no_regular_file() {
    let dir = TempDir::new().expect("temp");
    let pipe = dir.path().join("pipe.md");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
    symlink("/dev/zero", dir.path().join("zero.md")).expect("link");
    write(dir.path(), "folder.md/a.md", minimal("a"));
    let huge = fs::File::create(dir.path().join("huge.md")).expect("file");
    huge.set_len(1 << 40).expect("sparse");
    let loaded = load_tree(dir.path(), Scope::Project);
    assert_eq!(loaded.agents.len(), 1);
    let messages: Vec<&str> = loaded.notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].contains("1099511627776 bytes"), "{messages:?}");
    assert!(messages[1].contains("regular") && messages[2].contains("regular"), "{messages:?}");
    let file = dir.path().join("huge.md");
    let as_folder = load_tree(&file, Scope::Project);
    assert_eq!(as_folder.notices.len(), 1, "{:?}", as_folder.notices);
}

#[test]
fn what_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    if nix::unistd::geteuid().is_root() {
        eprintln!("root may read everything: nothing to test");
        return;
    }
    let dir = TempDir::new().expect("temp");
    write(dir.path(), "secret.md", minimal("secret"));
    write(dir.path(), "closed/a.md", minimal("a"));
    write(dir.path(), "b.md", minimal("b"));
    let none = fs::Permissions::from_mode(0o000);
    fs::set_permissions(dir.path().join("secret.md"), none.clone()).expect("chmod");
    fs::set_permissions(dir.path().join("closed"), none).expect("chmod");
    let loaded = load_tree(dir.path(), Scope::Project);
    fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o700))
        .expect("chmod");
    assert_eq!(loaded.agents.len(), 1);
    assert_eq!(loaded.notices.len(), 2, "{:?}", loaded.notices);
    assert!(loaded.notices.iter().all(|notice| notice.message.contains("cannot be read")));
}

/// A home, and a repository with folders in it, each with an agent of its own and one of the
/// name `same`.
fn world() -> TempDir {
    let dir = TempDir::new().expect("temp");
    for (at, name) in [
        ("home", "home"),
        ("repo", "repo"),
        ("repo/pkg", "pkg"),
        ("repo/pkg/app", "app"),
        (".", "above"),
    ] {
        let agents = dir.path().join(at).join(".claude/agents");
        write(&agents, "same.md", minimal("same"));
        write(&agents, "own.md", minimal(&format!("only-{name}")));
    }
    fs::create_dir(dir.path().join("repo/.git")).expect("repository");
    dir
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.agents.iter().map(|agent| agent.name.as_str()).collect()
}

#[test]
fn the_nearest_folder_wins_up_to_the_repository_root() {
    let world = world();
    let (app, home) = (world.path().join("repo/pkg/app"), world.path().join("home"));
    let loaded = load(&app, Some(&home));
    assert_eq!(names(&loaded), ["only-app", "only-home", "only-pkg", "only-repo", "same"]);
    let same = loaded.agent("same").expect("same");
    assert!(same.path.ends_with("repo/pkg/app/.claude/agents/same.md"));
    assert_eq!(same.scope, Scope::Project);
    assert_eq!(loaded.agent("only-home").expect("home").scope, Scope::User);
    assert_eq!(loaded.notices.len(), 3, "{:?}", loaded.notices);
    assert!(loaded.notices.iter().all(|notice| notice.severity == Severity::Note));
    fs::remove_dir_all(app.join(".claude")).expect("remove");
    let loaded = load(&app, None);
    assert_eq!(names(&loaded), ["only-pkg", "only-repo", "same"]);
    assert!(loaded.agent("same").expect("same").path.ends_with("pkg/.claude/agents/same.md"));
    // A worktree or submodule has a file in place of the folder.
    fs::write(world.path().join("repo/pkg/.git"), "gitdir: elsewhere").expect("worktree");
    assert_eq!(names(&load(&app, None)), ["only-pkg", "same"]);
}

#[test]
fn the_home_folder_is_never_a_project() {
    let world = world();
    let repo = world.path().join("repo");
    let loaded = load(&repo.join("pkg/app"), Some(&repo));
    assert_eq!(names(&loaded), ["only-app", "only-pkg", "only-repo", "same"]);
    assert_eq!(loaded.agent("only-repo").expect("repo").scope, Scope::User);
    let loaded = load(&repo, Some(&repo));
    assert_eq!(names(&loaded), ["only-repo", "same"]);
    assert_eq!(loaded.agents[0].scope, Scope::User);
}

#[test]
fn without_a_repository_the_way_up_ends_below_home() {
    let world = world();
    fs::remove_dir(world.path().join("repo/.git")).expect("no repository");
    let app = world.path().join("repo/pkg/app");
    assert_eq!(
        names(&load(&app, Some(&world.path().join("repo")))),
        ["only-app", "only-pkg", "only-repo", "same"]
    );
    let roots = roots(&app, Some(world.path()));
    let owned: Vec<bool> = roots.iter().map(|root| root.must_be_ours).collect();
    assert_eq!(owned, [false, true, true, false]);
}

#[test]
fn folders_of_strangers_above_a_project_do_not_count() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can give a folder away: nothing to test");
        return;
    }
    let world = world();
    fs::remove_dir(world.path().join("repo/.git")).expect("no repository");
    let agents = world.path().join("repo/.claude/agents");
    nix::unistd::chown(&agents, Some(nix::unistd::Uid::from_raw(12_345)), None).expect("chown");
    let loaded = load(&world.path().join("repo/pkg"), Some(world.path()));
    assert_eq!(names(&loaded), ["only-above", "only-pkg", "same"]);
    let notice = loaded
        .notices
        .iter()
        .find(|notice| notice.severity == Severity::Skipped)
        .expect("a notice");
    assert!(notice.path.ends_with("repo/.claude/agents"), "{notice}");
    fs::create_dir(world.path().join("repo/.git")).expect("repository");
    assert!(names(&load(&world.path().join("repo/pkg"), None)).contains(&"only-repo"));
}
