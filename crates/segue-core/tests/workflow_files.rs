//! Workflow files: what is read from good ones, and what is said about bad ones.

use std::fmt::Write as _;

use segue_core::workflow::{self, Checked, Diagnostics, OnFailure, Retry, Target, Workspace};
use serde_json::{Value, json};

fn good(text: &str) -> Checked {
    workflow::parse(text.as_bytes())
        .unwrap_or_else(|wrong| panic!("{}", wrong.render("flow.yaml", text, false)))
}

fn bad(file: impl AsRef<[u8]>) -> Diagnostics {
    match workflow::parse(file.as_ref()) {
        Err(diagnostics) => diagnostics,
        Ok(checked) => panic!("this was accepted: {checked:?}"),
    }
}

fn shown(file: impl AsRef<[u8]>) -> String {
    bad(&file).render("flow.yaml", file, false)
}

const FULL: &str = r#"
name: review
description: Review the whole repository
x-defaults: &defaults
  retry: {attempts: 5, base: 500ms, factor: 1.5, cap: 30s, jitter: none}
  timeout: {queue: 10m, run: 1h30m}
input:
  goal: string
  depth:
    type: integer
    default: 3
    description: How deep to look
  mode: {type: string, enum: [fast, thorough], required: false}
timeout: 2h
max_parallel: 8
output:
  report: "{{ tasks.report.output }}"
tasks:
  scan:
    agent: Inventory Taker
    input: {path: ".", depth: "{{ input.depth }}"}
    workspace: project
  my-review:
    <<: *defaults
    capability: review
    for_each: tasks.scan.output.files | batch(10)
    max_parallel: 4
    when: tasks.scan.output.files
    prompt: |
      Review these files:
      {% for file in item %}
      - {{ file }}
      {% endfor %}
    priority: high
    on_failure: continue
    workspace: worktree
  report:
    agent: reporter
    needs: scan
    input:
      reviews: "{{ tasks['my-review'].output }}"
      goal: "{{ input.goal }}"
    retry: 2
    timeout: 90
    priority: 10
    on_failure: skip
"#;

#[test]
fn a_whole_file_is_read() {
    let Checked { workflow, warnings } = good(FULL);
    assert!(warnings.is_empty());
    assert_eq!(workflow.name.as_deref(), Some("review"));
    assert_eq!((workflow.timeout_ms, workflow.max_parallel), (Some(7_200_000), Some(8)));
    assert_eq!(workflow.output, Some(json!({"report": "{{ tasks.report.output }}"})));
    let names: Vec<_> = workflow.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["scan", "my-review", "report"]);
    assert_eq!(workflow.last_tasks(), ["report"]);
    let [scan, review, report] = workflow.tasks.as_slice() else { panic!() };
    assert_eq!(scan.target, Target::Agent("Inventory Taker".to_owned()));
    assert_eq!((scan.priority, scan.on_failure, scan.retry), (5, OnFailure::Fail, None));
    assert_eq!(scan.line, 19);
    assert_eq!(review.target, Target::Capability("review".to_owned()));
    assert_eq!(review.needs, ["scan"]);
    assert_eq!(review.when.as_deref(), Some("tasks.scan.output.files"));
    assert_eq!(review.for_each.as_ref().and_then(|each| each.max_parallel), Some(4));
    assert_eq!(
        review.retry,
        Some(Retry { attempts: 5, base_ms: 500, factor: 1.5, cap_ms: 30_000, jitter: false })
    );
    assert_eq!((review.timeout.queue_ms, review.timeout.run_ms), (Some(600_000), Some(5_400_000)));
    assert_eq!((review.priority, review.on_failure), (7, OnFailure::Continue));
    assert_eq!(review.workspace, Some(Workspace::Worktree));
    assert_eq!(review.input, json!({}));
    assert_eq!(report.needs, ["scan", "my-review"]);
    assert_eq!(report.retry, Some(Retry { attempts: 2, ..Retry::default() }));
    assert_eq!(report.timeout.run_ms, Some(90_000));
    assert_eq!((report.priority, report.on_failure), (10, OnFailure::Skip));
    let plain = serde_json::to_value(&workflow).unwrap();
    assert_eq!(plain["tasks"][0]["agent"], json!("Inventory Taker"));
    assert_eq!(plain["input"][1]["type"], json!("integer"));
}

#[test]
fn needs_follow_from_every_template() {
    let checked = good(
        "tasks:\n  a: {agent: x}\n  b: {agent: x}\n  c: {agent: x}\n  d: {agent: x}\n  e: {agent: x}\n  z:\n    agent: x\n    needs: [e]\n    when: tasks.a.state == 'completed'\n    for_each: tasks.b.output\n    prompt: \"{{ tasks.c.output }}\"\n    input: [{deep: \"{{ tasks['d'].output.x }} {{ tasks.a.output }}\"}]\n",
    );
    assert_eq!(checked.workflow.tasks[5].needs, ["e", "c", "d", "a", "b"]);
}

#[test]
fn both_spellings_of_an_expression_are_read() {
    let checked = good(
        "tasks:\n  a: {agent: x, when: true}\n  b: {agent: x, for_each: \"{{ tasks.a.output }}\", when: '{{ tasks.a.output }}'}\n",
    );
    assert_eq!(checked.workflow.tasks[0].when.as_deref(), Some("true"));
    assert_eq!(checked.workflow.tasks[1].needs, ["a"]);
}

#[test]
fn input_is_bound_with_defaults_and_checks() {
    let workflow = good(FULL).workflow;
    let bind = |given: Value| match given {
        Value::Object(map) => workflow.bind_input(map),
        _ => panic!("not a map"),
    };
    assert_eq!(bind(json!({"goal": "g"})).unwrap(), json!({"goal": "g", "depth": 3, "mode": null}));
    assert_eq!(
        bind(json!({"goal": "g", "depth": 3.0, "mode": "fast"})).unwrap()["depth"],
        json!(3.0)
    );
    assert!(bind(json!({"goal": "g", "mode": null})).is_ok());
    let errors = bind(json!({"depth": "x", "mode": "fsat", "gaol": 1})).unwrap_err();
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "input `goal` is missing",
            "input `depth` must be an integer, but it is a string",
            "input `mode` cannot be `fsat`; did you mean `fast`?",
            "this workflow has no input `gaol`; did you mean `goal`?",
        ]
    );
    assert_eq!(workflow.input_from_text("goal", "12"), json!("12"));
    assert_eq!(workflow.input_from_text("depth", "12"), json!(12));
    assert_eq!(workflow.input_from_text("mode", "fast"), json!("fast"));
    assert_eq!(workflow.input_from_text("other", "[1"), json!("[1"));
}

/// Bad files by name. Each gives one snapshot.
const BAD: &[(&str, &str)] = &[
    ("empty", ""),
    ("only_a_comment", "# nothing\n"),
    ("not_a_map", "- scan\n- report\n"),
    ("no_tasks", "name: x\n"),
    ("tasks_empty_list", "tasks: []\n"),
    ("tasks_empty_map", "tasks: {}\n"),
    ("tasks_null", "tasks:\nname: x\n"),
    ("tasks_list", "tasks:\n  - name: scan\n    agent: x\n"),
    ("task_without_anything", "tasks:\n  scan:\n  report: reporter\n"),
    (
        "everything_at_once",
        "name: 12\ninputs: {goal: string}\ntimeout: 5min\ntasks:\n  scan:\n    agnet: scanner\n    needs: [reprot]\n    priority: urgent\n  report:\n    agent: reporter\n    capability: reporting\n    input:\n      files: \"{{ tasks.scan.outputs.files }}\"\n      count: \"{{ tasks.scan.output | lenght }}\"\n    retry: {attempts: 0, base: 2m, cap: 1s, jiter: full}\n    on_failure: ignore\n",
    ),
    (
        "cycle",
        "tasks:\n  a:\n    agent: x\n    needs: b\n  b:\n    agent: x\n    input:\n      from: \"{{ tasks.c.output }}\"\n  c:\n    agent: x\n    when: tasks.a.output.ok\n  outside:\n    agent: x\n    needs: [a, c]\n",
    ),
    (
        "cycle_of_one",
        "tasks:\n  a:\n    agent: x\n    needs: [a]\n  b:\n    agent: x\n    prompt: \"again {{ tasks.b.output }}\"\n",
    ),
    (
        "two_cycles",
        "tasks:\n  a: {agent: x, needs: b}\n  b: {agent: x, needs: a}\n  c: {agent: x, needs: d}\n  d: {agent: x, needs: [c, a]}\n",
    ),
    (
        "unknown_tasks",
        "tasks:\n  scan: {agent: x}\n  report:\n    agent: x\n    needs: [scna, nobody]\n    when: tasks.scann.state == 'completed'\noutput: \"{{ tasks.reprot.output }}\"\n",
    ),
    (
        "duplicate_keys",
        "name: a\ntasks:\n  scan: {agent: x}\n  scan: {agent: y}\n  other:\n    agent: x\n    input: {a: 1, a: 2}\nname: b\n",
    ),
    (
        "names",
        "tasks:\n  1: {agent: x}\n  two words: {agent: x}\n  true: {agent: x}\n  \"\": {agent: x}\n  überblick: {agent: x}\n  {a: b}: {agent: x}\n  : {agent: x}\n",
    ),
    (
        "who",
        "tasks:\n  a: {}\n  b: {agent: ''}\n  c: {capability: \"{{ input.x }}\"}\n  d: {agent: 5}\n  e: {agent: [x]}\n",
    ),
    (
        "types",
        "max_parallel: 0\ndescription: [x]\ntasks:\n  a:\n    agent: x\n    needs: {b: 1}\n    when: 5\n    for_each: [1, 2]\n    max_parallel: 1.5\n    retry: often\n    timeout: soon\n    priority: 4\n    workspace: here\n    description: true\n    prompt: {a: 1}\n  b:\n    agent: x\n    max_parallel: 2\n    needs: [1, [a]]\n    timeout: {run: 0s, qeue: 5m, queue: 1e99}\n    retry: {factor: 0.5, attempts: 1000000, jitter: yes}\n    input:\n",
    ),
    (
        "templates",
        "tasks:\n  my-scan: {agent: x}\n  a:\n    agent: x\n    input:\n      plain: \"{{ tasks.my-scan.output }}\"\n      bare: \"{{ my }} and {{ a.output }}\"\n      open: \"{{ input.goal\"\n      item: \"{{ item.path }}\"\n      all: \"{{ tasks | length }}\"\n      computed: \"{{ tasks[input.name].output }}\"\n      whole: \"{{ tasks['my-scan'] }}\"\n      run: \"{{ run.name }}\"\n    prompt: |\n      First line\n\n        indented {{ tasks['my-scan'].ouput }}\n      {% for f in tasks['my-scan'].output %}\n      {{ f | uper }}\n    when: >-\n      tasks['my-scan'].output.ok\n      and inptu.goal\n    for_each: item\n",
    ),
    (
        "inputs",
        "input:\n  a: strng\n  b: {type: list}\n  c: {type: integer, default: x}\n  d: {required: true, default: 1}\n  e: {enum: []}\n  f: {enum: [a, b], default: c}\n  g: [string]\n  'h i': string\n  j: {typ: string}\ntasks:\n  t: {agent: x, input: {a: \"{{ input.gaol }}\", b: \"{{ input.j }}\"}}\n",
    ),
    ("two_prompts", "tasks:\n  a:\n    agent: x\n    prompt: x\n    input: {prompt: y}\n"),
    (
        "foreign_words",
        "jobs:\n  a: {}\ntasks:\n  a:\n    agent: x\n    depends_on: [b]\n    if: true\n    with: {x: 1}\n    colour: red\n",
    ),
    ("yaml_tab", "tasks:\n  scan:\n\tagent: x\n"),
    ("yaml_indentation", "tasks:\n  scan:\n    agent: x\n   input: 5\n"),
    ("yaml_colon", "tasks:\n  scan:\n    agent: x\n    prompt: Note: this\n"),
    ("yaml_template_unquoted", "tasks:\n  scan:\n    agent: x\n    input: {{ input.x }}\n"),
    ("yaml_quote", "tasks:\n  scan:\n    agent: \"x\n"),
    ("yaml_bracket", "tasks:\n  scan:\n    agnet: x\n    needs: [a, b\n"),
    (
        "yaml_error_after_others",
        "timeout: soon\ntasks:\n  scan:\n    agnet: x\n    needs: [later]\n    input: \"{{ input.x | upppr }}\"\n  report:\n    agent: \"\\q\"\n",
    ),
    (
        "anchors",
        "tasks:\n  a: &a {agent: x}\n  b: *nope\n  c: &c {agent: x, input: [*c]}\n  d:\n    <<: [1]\n    agent: x\n",
    ),
    (
        "tags",
        "tasks:\n  a: {agent: !!str 5}\n  b: {agent: !secret x}\n  c: !thing {agent: x}\n  d: {agent: x, priority: !!int five}\n",
    ),
    (
        "numbers",
        "tasks:\n  a: {agent: x, input: [.inf, .nan, 99999999999999999999999, 1e999, 0xffffffffffffffffff]}\n",
    ),
    ("two_documents", "tasks:\n  a: {agent: x}\n---\ntasks:\n  b: {agent: x}\n"),
    (
        "hostile_text",
        "tasks:\n  a:\n    \"agent\\u001b[31m\": \"\\u202ex\"\n    agent: x\n    needs: \"\\u001b]0;title\\u0007\"\n",
    ),
    ("wide_text", "tasks:\n  検査: {agent: x}\n  ok: {agent: x, 担当: y}\n"),
    ("windows_line_ends", "tasks:\r\n  scan:\r\n    agnet: x\r\n"),
];

#[test]
fn bad_files_are_explained() {
    insta::with_settings!({snapshot_path => "workflow_snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        for (name, text) in BAD {
            insta::assert_snapshot!(*name, shown(text));
        }
    });
}

#[test]
fn bytes_that_are_not_text_are_explained() {
    let mut all = String::new();
    let files: &[(&str, Vec<u8>)] = &[
        ("invalid UTF-8", b"tasks:\n  a: {agent: \xff\xfe}\n".to_vec()),
        ("NUL", b"tasks:\n  a: {agent: \0x}\n".to_vec()),
        ("UTF-16", b"\xff\xfet\0a\0s\0k\0s\0:\0".to_vec()),
        ("too large", vec![b'a'; workflow::MAX_FILE_BYTES + 1]),
        ("only NULs", vec![0; 100]),
        ("a program", b"\x7fELF\x02\x01\x01\0\0\0".to_vec()),
    ];
    for (name, file) in files {
        let mut text = shown(file);
        if text.len() > 2_000 {
            text.truncate(2_000);
        }
        writeln!(all, "## {name}\n{text}").unwrap();
    }
    insta::with_settings!({snapshot_path => "workflow_snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("not_text", all);
    });
}

#[test]
fn warnings_do_not_stand_in_the_way() {
    let text = "tasks:\n  a: {agent: x}\n  b:\n    agent: x\n    needs: [a, a]\n    input:\n      \"{{ input.k }}\": 1\n      a: \"{{ tasks.a }}\"\n";
    let checked = good(text);
    let shown = checked.warnings.render("flow.yaml", text, false);
    insta::with_settings!({snapshot_path => "workflow_snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("warnings", shown);
    });
}

#[test]
fn a_byte_order_mark_and_comments_are_no_mistake() {
    let checked =
        good("\u{feff}# a workflow\n%YAML 1.2\n---\ntasks: # all\n  a: {agent: x}\n...\n");
    assert_eq!(checked.workflow.tasks.len(), 1);
}

#[test]
fn hostile_files_are_refused_quickly() {
    let mega = workflow::MAX_FILE_BYTES;
    let bomb: String = (1..200)
        .map(|level| {
            format!("x-{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 20].join(","))
        })
        .collect();
    let files = [
        "[".repeat(mega),
        "{".repeat(mega),
        "- ".repeat(mega / 2),
        "? ".repeat(mega / 2),
        "a: ".repeat(mega / 3),
        "&a ".repeat(mega / 3),
        "*a ".repeat(mega / 3),
        "\"".repeat(mega),
        "\t".repeat(mega),
        "\n".repeat(mega),
        "#".repeat(mega),
        "---\n".repeat(mega / 4),
        "a: 1\n".repeat(mega / 20),
        "<<: 1\n".repeat(mega / 24),
        "!!x ".repeat(mega / 4),
        "%a b\n".repeat(mega / 5),
        (0..20_000).map(|n| format!("k{n}: 1\n")).collect(),
        format!(
            "tasks:\n  a:\n    agent: x\n    prompt: |\n{}",
            (0..12_000).map(|n| format!("      {{{{ input.n{n} }}}}\n")).collect::<String>()
        ),
        format!(
            "tasks:\n{}",
            (0..12_000).map(|n| format!("  t{n}: {{agent: x}}\n")).collect::<String>()
        ),
        format!(
            "tasks:\n{}",
            (0..9_000).map(|n| format!("  t{n}: {{agent: x, needs: q{n}}}\n")).collect::<String>()
        ),
        format!("tasks:\n  a:\n    agent: x\n    needs: [{}]\n", "b,".repeat(100_000)),
        format!(
            "tasks:\n  a:\n    agent: x\n    input: {{ x: \"{}\" }}\n",
            "{{ a }}".repeat(30_000)
        ),
        format!("tasks:\n  a:\n    agent: x\n    when: \"{}\"\n", "(".repeat(900_000)),
        format!("x-0: &a0 [x,x]\n{bomb}tasks: {{a: {{agent: x, input: *a199}}}}\n"),
    ];
    for file in files {
        let diagnostics = bad(&file);
        assert!(diagnostics.has_errors());
        let shown = diagnostics.render("flow.yaml", &file, false);
        assert!(shown.len() < 60_000, "{}", shown.len());
    }
}

#[test]
fn large_files_are_read() {
    let mut text = String::from("x-d: &d {retry: 5, timeout: 1m}\ntasks:\n  t0: {agent: x}\n");
    for n in 1..10_000 {
        writeln!(text, "  t{n}: {{<<: *d, agent: x, needs: t{}}}", n - 1).unwrap();
    }
    let workflow = good(&text).workflow;
    assert_eq!(workflow.tasks.len(), 10_000);
    assert_eq!(workflow.tasks[9_999].needs, ["t9998"]);
    let closed = text.replace("t0: {agent: x}", "t0: {agent: x, needs: t9999}");
    let error = bad(&closed);
    assert_eq!(error.len(), 1);
    let message = &error.iter().next().unwrap().message;
    assert!(message.contains("t0 -> t9999 -> t9998"), "{message}");
    assert!(message.contains("9988 more"), "{message}");
}
