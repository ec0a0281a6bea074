//! The README's first command, by the real binary on a real repository: five programs that nobody put in an order.

mod repo_report_support;

use repo_report_support::{
    Came, FIX_ME, Place, Ran, Stream, TO_DO, example, path, replace, require_programs, well_formed,
    without_agent,
};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

const FILES: [&str; 5] =
    ["bus-factor.svg", "hotspots.svg", "languages.svg", "markers.svg", "report.md"];

#[test]
fn a_team_of_five_writes_the_report() {
    let place = Place::new();
    let ran = place.report(&example()).completed();

    let files: Vec<String> = place.pages().into_keys().collect();
    assert_eq!(files, FILES);
    for name in FILES.iter().filter(|name| name.ends_with(".svg")) {
        let chart = place.page(name);
        if let Err(wrong) = well_formed(&chart) {
            panic!("{name}: {wrong}\n{chart}");
        }
        assert!(chart.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" "), "{chart}");
    }

    let page = place.page("report.md");
    // The page is the goal's output as well, byte for byte.
    let output = json!({"report": page, "report_path": "repo-report/report.md"});
    assert_eq!(ran.end["output"], output);
    let commit = place.git(&["rev-parse", "HEAD"], None);
    for said in [
        format!(
            "Commit `{commit}` of 2020-09-16: 9 text files with 18 lines, 4 commits by 3 people since 2020-09-13."
        ),
        "| Rust | code | 2 | 6 | 33.3 % |".into(),
        "| [`src/lib.rs`](../src/lib.rs) | Rust | 3 | 2 | 3 |".into(),
        format!("| [`src/main.rs:2`](../src/main.rs#L2) | **{TO_DO}** | greet |"),
        format!(
            "| [`a folder/ü & <x>.py:1`](../a%20folder/%C3%BC%20%26%20%3Cx%3E.py#L1) | **{FIX_ME}** | (bob): why &#124; 1 |"
        ),
        "| `docs/` | 1 | 1 | 1 | Zoë &#42;&#38;amp;&#42; &#91;x&#93;(http&#58;//y) | 100 % |"
            .into(),
        "| `src/` | 1 | 2 | 3 | Ann | 66.7 % |".into(),
    ] {
        assert!(page.contains(&said), "{said:?} is not in the report:\n{page}");
    }
    assert!(!page.contains("not ours") && !page.contains("[x]"), "{page}");
}

#[test]
fn the_orchestrator_holds_no_slot_while_it_waits() {
    let place = Place::new();
    let ran = place.report(&example()).completed();
    assert_eq!(ran.children(), ["inventory", "history", "markers", "reporter"]);
    assert_eq!(ran.waves(), [vec!["inventory"], vec!["history", "markers"], vec!["reporter"]]);

    let orchestrator = ran.held(repo_report_support::GOAL);
    assert_eq!(
        orchestrator.len(),
        4,
        "one turn for each wave, and one for the end: {orchestrator:?}"
    );
    for child in ran.children() {
        let held = ran.held(&child);
        let [(from, to)] = held[..] else { panic!("{child} was tried more than once: {held:?}") };
        for (begin, end) in &orchestrator {
            assert!(
                to < *begin || *end < from,
                "{child} {from}..{to} and the orchestrator {begin}..{end}"
            );
        }
    }

    // Side by side: each was given to its agent before either ended.
    let (history, markers) = (ran.held("history")[0], ran.held("markers")[0]);
    assert!(history.0 < markers.1 && markers.0 < history.1, "{history:?} {markers:?}");
}

#[test]
fn the_same_commit_gives_the_same_bytes_by_goal_and_by_workflow() {
    let place = Place::new();
    place.report(&example()).completed();
    let first = place.pages();
    place.report(&example()).completed();
    assert_eq!(place.pages(), first, "a second run");

    // Work that is not committed changes nothing, and neither does who has the repository and where.
    std::fs::write(place.repo.join("README.md"), format!("{TO_DO}: not committed\n")).unwrap();
    std::fs::remove_dir_all(place.repo.join("repo-report")).unwrap();
    let workflow = example().join("workflow.yaml");
    let team = example();
    let args =
        ["run", path(&workflow), "--team", path(&team), "--project", path(&place.repo), "--json"];
    let ran = Ran::of(place.segue(&args)).completed();
    assert_eq!(ran.children(), ["inventory", "history", "markers", "report"]);
    assert_eq!(place.pages(), first, "by the workflow file");
}

#[test]
fn a_sixth_agent_takes_part_once_somebody_wants_what_it_makes() {
    let place = Place::new();
    let licenses = r#"
[[agent]]
name = "licenses"
kind = "command"
description = "Finds licence tags in a git repository"
command = ["sh", "{team}/licenses.sh"]
result = "files"

[[agent.capability]]
name = "licenses"
description = "Count SPDX licence tags"
input_schema = '{"type": "object", "required": ["commit"], "properties": {"commit": {"type": "string"}}}'
output_schema = '''{"type": "object", "required": ["licenses"], "properties": {
  "licenses": {"type": "string", "contentMediaType": "text/tab-separated-values"}}}'''
"#;
    // The README shows how to add it; this is what the README shows.
    let readme = std::fs::read_to_string(example().join("README.md")).unwrap();
    for line in licenses.lines().filter(|line| !line.is_empty()) {
        assert!(readme.contains(line), "the README of the example lacks {line:?}");
    }

    // There, and not wanted: nothing changes.
    let idle = place.team("idle", |text| text + licenses);
    assert_eq!(
        place.report(&idle).completed().children(),
        ["inventory", "history", "markers", "reporter"]
    );
    assert!(!place.page("report.md").contains("## Licences"));

    let wanted = place.team("wanted", |text| {
        replace(
            &text,
            r#""markers", "marker_counts"],
  "properties": {
    "commit": {"type": "string"},
    "summary""#,
            r#""markers", "marker_counts", "licenses"],
  "properties": {
    "commit": {"type": "string"},
    "summary""#,
        ) + licenses
    });
    let ran = place.report(&wanted).completed();
    assert_eq!(
        ran.waves(),
        [vec!["inventory"], vec!["history", "licenses", "markers"], vec!["reporter"]]
    );
    assert!(place.page("report.md").contains("| MIT | 1 |"), "{}", place.page("report.md"));
}

#[test]
fn a_renamed_agent_is_found_by_what_it_makes() {
    let place = Place::new();
    let team = place.team("renamed", |text| {
        replace(&text, "name = \"inventory\"\nkind", "name = \"census\"\nkind")
    });
    let ran = place.report(&team).completed();
    assert_eq!(ran.children(), ["census", "history", "markers", "reporter"]);
    assert_eq!(ran.of_task("census")[0]["agent"], "census");
    let renamed = place.pages();
    place.report(&example()).completed();
    assert_eq!(place.pages(), renamed);
}

#[test]
fn without_an_agent_the_plan_is_another_or_the_missing_property_is_named() {
    let place = Place::new();
    let gone = place.team("gone", |text| without_agent(&text, "markers"));
    let ran = place.report(&gone);
    assert_eq!((ran.came.code, &ran.end["state"]), (1, &json!("failed")), "{:#?}", ran.came);
    assert!(ran.children().is_empty(), "work was begun that leads nowhere: {:?}", ran.children());
    let message = ran.end["error"]["message"].as_str().unwrap();
    for property in ["`markers`", "`marker_counts`"] {
        let said = format!("nobody produces {property}, which `report` of reporter consumes");
        assert!(message.contains(&said), "{said:?} is not in {message:?}");
    }
    assert_eq!(ran.end["error"]["class"], "permanent");
    assert!(!place.repo.join("repo-report").exists());

    // Whoever can do without is done without.
    let lean = place.team("lean", |text| {
        let text = without_agent(&text, "markers");
        replace(&text, r#""bus_factor", "markers", "marker_counts"],"#, r#""bus_factor"],"#)
    });
    let ran = place.report(&lean).completed();
    assert_eq!(ran.waves(), [vec!["inventory"], vec!["history"], vec!["reporter"]]);
    assert!(!place.page("report.md").contains("## Markers"), "{}", place.page("report.md"));
    assert!(!place.repo.join("repo-report/markers.svg").exists());

    // And who is not needed for what is wanted is left in peace.
    let ran = place.report_with(&example(), &["--input", "produces=bus_factor"]).completed();
    assert_eq!(ran.waves(), [["inventory"], ["history"]]);
    assert!(
        ran.end["output"]["bus_factor"].as_str().unwrap().contains("src\t1\t2\t3\t2\tAnn\t2\n")
    );
}

#[test]
fn an_inventory_that_is_too_large_for_the_planner_is_passed_by_reference() {
    let mut stream = Stream::default();
    stream.line(&format!("blob\nmark :1\ndata 11\n# {TO_DO} one\n"));
    stream.commit("Ann <ann@example.org>", "many");
    for number in 0..6_000 {
        let folder = format!("{:02}", number % 30).repeat(70);
        stream.line(&format!(
            "M 100644 :1 {folder}/a-file-of-which-there-are-thousands-{number:05}.py"
        ));
    }
    let place = Place::with(&stream.bytes);
    let ran = place.report(&example()).completed();
    assert_eq!(ran.waves(), [vec!["inventory"], vec!["history", "markers"], vec!["reporter"]]);
    let bytes = ran.of_task("inventory").last().unwrap()["output_bytes"].as_u64().unwrap();
    assert!(bytes > 1024 * 1024, "the inventory has only {bytes} bytes");
    // What the children get is rendered from the inventory's output: they wait until that is done.
    for child in ["history", "markers", "reporter"] {
        assert_eq!(ran.of_task(child)[0]["state"], "blocked", "{child}: {:#?}", ran.came);
    }
    let page = place.page("report.md");
    assert!(page.contains("6,000 text files with 6,000 lines"), "{page}");
    assert!(page.contains("And 5,970 more."), "{page}");

    let first = place.pages();
    let (workflow, team) = (example().join("workflow.yaml"), example());
    let args =
        ["run", path(&workflow), "--team", path(&team), "--project", path(&place.repo), "--json"];
    Ran::of(place.segue(&args)).completed();
    assert_eq!(place.pages(), first, "by the workflow file");
}

#[test]
fn what_cannot_be_reported_on_fails_with_the_reason() {
    let place = Place::with(b"");
    let ran = place.report(&example());
    assert_eq!((ran.came.code, &ran.end["state"]), (1, &json!("failed")), "{:#?}", ran.came);
    let message = ran.end["error"]["message"].as_str().unwrap();
    assert!(message.contains("`inventory` failed"), "{message}");
    assert!(message.contains("has no commit yet, so there is nothing to report on"), "{message}");
    // Once was enough: it would fail the same way every time.
    assert_eq!(ran.held("inventory").len(), 1, "{:#?}", ran.came);
}

#[test]
fn the_programs_pass_their_own_checks() {
    require_programs();
    let folder = tempfile::tempdir().unwrap();
    let script: PathBuf = example().join("test.sh");
    let mut command = Command::new("sh");
    command.arg(script).env("TMPDIR", folder.path());
    let came: Came = repo_report_support::came(&mut command);
    assert_eq!(came.code, 0, "{}{}", came.err, came.out);
    assert!(came.out.contains(" checks, 0 failed"), "{}", came.out);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it left something behind");
}
