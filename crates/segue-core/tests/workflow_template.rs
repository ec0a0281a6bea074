//! Templates: what they render to, what they refuse, and that nothing brings them down.

use std::collections::BTreeMap;

use proptest::prelude::*;
use segue_core::template::{self, Context, EndState, Root, TaskView, TemplateError};
use serde_json::{Value, json};

fn context() -> Context {
    let mut tasks = BTreeMap::new();
    tasks.insert(
        "scan".to_owned(),
        TaskView {
            state: EndState::Completed,
            output: json!({
                "files": ["a.rs", "b.rs", "c.md"],
                "count": 3,
                "share": 0.5,
                "big": 18_446_744_073_709_551_615_u64,
                "zeta": {"y": 1, "b": 2, "a": 3},
                "none": null,
                "deep": [{"name": "x", "size": 10}, {"name": "y", "size": 2}],
            }),
            error: None,
        },
    );
    tasks.insert(
        "my-task".to_owned(),
        TaskView { state: EndState::Completed, output: json!("hello"), error: None },
    );
    tasks.insert(
        "broken".to_owned(),
        TaskView {
            state: EndState::Failed,
            output: Value::Null,
            error: Some(json!({"message": "no disk"})),
        },
    );
    Context::new(&json!({"goal": "a \"quoted\" goal", "n": 7, "yes": true}), &tasks).with_run("r-1")
}

fn render(text: &str) -> Value {
    template::render_value(&json!(text), &context()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> TemplateError {
    match template::render_value(&json!(text), &context()) {
        Err(error) => error,
        Ok(value) => panic!("{text:?} rendered to {value}"),
    }
}

#[test]
fn a_lone_expression_keeps_its_type() {
    assert_eq!(render("{{ tasks.scan.output.files }}"), json!(["a.rs", "b.rs", "c.md"]));
    assert_eq!(render("{{ tasks.scan.output.count }}"), json!(3));
    assert_eq!(render("{{ tasks.scan.output.share }}"), json!(0.5));
    assert_eq!(render("{{ tasks.scan.output.big }}"), json!(18_446_744_073_709_551_615_u64));
    assert_eq!(render("{{ tasks.scan.output.none }}"), json!(null));
    assert_eq!(render("{{ input.yes and 3 > 2 }}"), json!(true));
    assert_eq!(render("{{ 2 * input.n + 1 }}"), json!(15));
    assert_eq!(render("{{- input.n -}}"), json!(7));
    assert_eq!(render("{{ {'a': {'b': [1]}}}}"), json!({"a": {"b": [1]}}));
    assert_eq!(render("{{ '}}' ~ '{{' }}"), json!("}}{{"));
}

#[test]
fn order_of_keys_is_kept() {
    let text = render("{{ tasks.scan.output.zeta }}").to_string();
    assert_eq!(text, r#"{"y":1,"b":2,"a":3}"#);
    assert_eq!(render("z={{ tasks.scan.output.zeta }}"), json!(r#"z={"y":1,"b":2,"a":3}"#));
}

#[test]
fn other_text_is_rendered_to_text() {
    assert_eq!(render("n={{ input.n }}"), json!("n=7"));
    assert_eq!(render(" {{ input.n }}"), json!(" 7"));
    assert_eq!(render("{{ input.n }}{{ input.n }}"), json!("77"));
    assert_eq!(
        render("{{ tasks.scan.output.files }} {{ tasks.scan.output.none }} {{ input.yes }}"),
        json!(r#"["a.rs","b.rs","c.md"] null true"#)
    );
    assert_eq!(render("goal: {{ input.goal }}\n"), json!("goal: a \"quoted\" goal\n"));
    assert_eq!(render("<b>{{ '<i>' }}</b>"), json!("<b><i></b>"));
    assert_eq!(
        render("files: {{ 'n' ~ tasks.scan.output.files }}"),
        json!(r#"files: n["a.rs","b.rs","c.md"]"#)
    );
    assert_eq!(render("{# nothing #}x"), json!("x"));
}

#[test]
fn loops_and_conditions_take_whole_lines() {
    let text = "Files:\n{% for f in tasks.scan.output.files %}\n- {{ loop.index }} {{ f }}\n{% endfor %}\n{% if input.n > 5 %}\nmany\n{% elif input.n %}\nfew\n{% else %}\nnone\n{% endif %}\nend\n";
    assert_eq!(render(text), json!("Files:\n- 1 a.rs\n- 2 b.rs\n- 3 c.md\nmany\nend\n"));
}

#[test]
fn names_with_a_hyphen_are_subscripts() {
    assert_eq!(render("{{ tasks['my-task'].output }}"), json!("hello"));
    assert_eq!(render("{{ tasks[\"my-task\"]['output'] | upper }}"), json!("HELLO"));
    assert_eq!(
        render("{{ tasks.broken.state }}: {{ tasks.broken.error.message }}"),
        json!("failed: no disk")
    );
    assert_eq!(render("{{ run.id }}"), json!("r-1"));
}

#[test]
fn only_values_are_templates() {
    let template = json!({"{{ input.n }}": ["{{ input.n }}", 1, null, {"x": "{{ input.yes }}"}], "plain": "{ }"});
    let expected = json!({"{{ input.n }}": [7, 1, null, {"x": true}], "plain": "{ }"});
    assert_eq!(template::render_value(&template, &context()).unwrap(), expected);
}

#[test]
fn filters_work_on_lists_and_text() {
    let cases = [
        ("{{ tasks.scan.output.files | length }}", json!(3)),
        ("{{ tasks.scan.output.files | join(', ') }}", json!("a.rs, b.rs, c.md")),
        ("{{ tasks.scan.output.deep | map(attribute='name') | list }}", json!(["x", "y"])),
        ("{{ tasks.scan.output.deep | map(attribute='name') }}", json!(["x", "y"])),
        ("{{ tasks.scan.output.deep | sum(attribute='size') }}", json!(12)),
        (
            "{{ tasks.scan.output.deep | sort(attribute='size') | map(attribute='name') }}",
            json!(["y", "x"]),
        ),
        (
            "{{ tasks.scan.output.deep | selectattr('size', 'gt', 5) | map(attribute='name') }}",
            json!(["x"]),
        ),
        ("{{ tasks.scan.output.deep | join('+', attribute='name') }}", json!("x+y")),
        ("{{ tasks.scan.output.files | batch(2) }}", json!([["a.rs", "b.rs"], ["c.md"]])),
        (
            "{{ tasks.scan.output.files | select('endingwith', '.rs') | list }}",
            json!(["a.rs", "b.rs"]),
        ),
        ("{{ tasks.scan.output.zeta | items }}", json!([["y", 1], ["b", 2], ["a", 3]])),
        ("{{ tasks.scan.output.zeta | dictsort }}", json!([["a", 3], ["b", 2], ["y", 1]])),
        ("{{ tasks.scan.output.files[0] }}", json!("a.rs")),
        ("{{ tasks.scan.output.files[-1] }}", json!("c.md")),
        ("{{ tasks.scan.output.files[1:] }}", json!(["b.rs", "c.md"])),
        ("{{ tasks.scan.output.files | first | replace('.rs', '') }}", json!("a")),
        ("{{ tasks.scan.output.nothing | default('x') }}", json!("x")),
        ("{{ 'x' if tasks.scan.output.nothing is defined else 'y' }}", json!("y")),
        ("{{ 'a.rs' in tasks.scan.output.files }}", json!(true)),
        ("{{ 'y' in tasks.scan.output.zeta }}", json!(true)),
        ("{{ tasks.scan.output.zeta | tojson }}", json!(r#"{"y":1,"b":2,"a":3}"#)),
        ("{{ 'a\nb' | indent(2) }}", json!("a\n  b")),
        ("{{ range(3) | list }}", json!([0, 1, 2])),
        ("{{ 'one two' | split | last }}", json!("two")),
        ("{{ tasks.scan.output.files + ['d'] }}", json!(["a.rs", "b.rs", "c.md", "d"])),
        ("{{ input.goal is string and tasks.scan.output.zeta is mapping }}", json!(true)),
        ("{{ 7 // 2 }}", json!(3)),
        ("{{ 2 ** 3 * 2 }}", json!(16)),
        ("{{ -input.n * 2 }}", json!(-14)),
        ("{{ 2 * -input.n }}", json!(-14)),
        ("{{ 2 * tasks.scan.output.files | length * 2 + 1 }}", json!(13)),
        ("{{ [2 * 3, 4 * (1 + 1)] }}", json!([6, 8])),
        ("{{ 2 * 3 if 2 * 2 == 4 else 0 }}", json!(6)),
        ("{{ (2 * 3) | string ~ 'x' }}", json!("6x")),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text), expected, "{text}");
    }
}

#[test]
fn what_is_not_there_is_an_error_with_a_hint() {
    let cases = [
        (
            "{{ tasks.scan.output.fils }}",
            "`tasks.scan.output` has no `fils`",
            "did you mean `files`?",
        ),
        (
            "x {{ tasks.scan.output.fils }}",
            "`tasks.scan.output` has no `fils`",
            "did you mean `files`?",
        ),
        (
            "{{ tasks.scan.output.qqq | upper }}",
            "`tasks.scan.output` has no `qqq`",
            "it has `files`",
        ),
        (
            "{{ tasks.other.output }}",
            "there is no output of a task `other` here",
            "add the task to `needs`",
        ),
        ("{{ input.gaol }}", "`input` has no `gaol`", "did you mean `goal`?"),
        (
            "{{ tasks.broken.output.files }}",
            "`tasks.broken.output` is null, it has no `files`",
            "test it first",
        ),
        (
            "{{ tasks.scan.output.count.x }}",
            "`tasks.scan.output.count` is a number, it has no `x`",
            "",
        ),
        ("{{ item }}", "this name is not there", "for_each"),
        (
            "{% for f in tasks.scan.output.fils %}{% endfor %}",
            "`tasks.scan.output` has no `fils`",
            "`files`",
        ),
        ("{% if input.gaol %}{% endif %}", "`input` has no `gaol`", "`goal`"),
    ];
    for (text, message, hint) in cases {
        let error = refusal(text);
        assert_eq!(error.message, message, "{text}");
        assert!(error.hint.unwrap_or_default().contains(hint), "{text}");
        let span = error.span.expect("the place is known");
        assert!(text.get(span).is_some(), "{text}");
    }
    let error = refusal("{{ tasks.scan.output.fils }}");
    assert_eq!(&error.template[error.span.unwrap()], "fils");
}

#[test]
fn an_error_names_its_place_in_the_value() {
    let template = json!({"a": [1, {"b": "{{ input.gaol }}"}]});
    let error = template::render_value(&template, &context()).unwrap_err();
    assert_eq!(error.path, "a[1].b");
    assert_eq!(
        error.to_string(),
        "`input` has no `gaol`, at `gaol` in `{{ input.gaol }}` (a[1].b); did you mean `goal`?"
    );
}

#[test]
fn conditions_refuse_text() {
    let is = |text: &str| template::eval_condition(text, &context());
    assert!(is("tasks.scan.output.files").unwrap());
    assert!(is("{{ input.n == 7 }}").unwrap());
    assert!(!is("tasks.scan.output.none").unwrap());
    assert!(!is("[]").unwrap());
    assert!(!is("not input.yes").unwrap());
    assert!(is("tasks['my-task'].state == 'completed'").unwrap());
    assert!(is("tasks.scan.output.nothing is not defined").unwrap());
    let error = is("tasks['my-task'].output").unwrap_err();
    assert!(error.message.contains("a condition cannot be a text"), "{error}");
    assert!(is("tasks.scan.output.nothing").is_err());
    assert!(is("").is_err());
    assert!(is("  ").is_err());
    assert!(is("{{ input.n }} {{ input.n }}").is_err());
}

#[test]
fn lists_are_lists() {
    let list = |text: &str| template::eval_list(text, &context());
    assert_eq!(list("tasks.scan.output.files").unwrap().len(), 3);
    assert_eq!(list("{{ tasks.scan.output.files | batch(2) }}").unwrap().len(), 2);
    let map = list("tasks.scan.output.zeta").unwrap_err();
    assert!(map.hint.unwrap().contains("| items"));
    let text = list("'a\nb'").unwrap_err();
    assert!(text.hint.unwrap().contains("| lines"));
    assert!(list("input.n").is_err());
    let many = json!({"many": vec![1; 10_001]});
    let error = template::eval_list("input.many", &Context::new(&many, &BTreeMap::new()));
    assert!(error.unwrap_err().hint.unwrap().contains("batch"));
}

#[test]
fn items_are_seen_by_for_each() {
    let ctx = context().with_item(&json!({"path": "a.rs"}), 4);
    let template = json!({"path": "{{ item.path }}", "nr": "{{ index }}"});
    let rendered = template::render_value(&template, &ctx).unwrap();
    assert_eq!(rendered, json!({"path": "a.rs", "nr": 4}));
}

#[test]
fn references_are_found_with_their_place() {
    let text = "tasks.scan.output.files[0].x ~ tasks['my-task'].output ~ input['goal'] ~ tasks[input.n].state";
    let found = template::references(text).unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|r| (r.root, r.path.join("/"), &text[r.span.clone()], r.computed))
        .collect();
    assert_eq!(
        seen,
        [
            (
                Root::Tasks,
                "scan/output/files/0/x".to_owned(),
                "tasks.scan.output.files[0].x",
                false
            ),
            (Root::Tasks, "my-task/output".to_owned(), "tasks['my-task'].output", false),
            (Root::Input, "goal".to_owned(), "input['goal']", false),
            (Root::Tasks, String::new(), "tasks", true),
            (Root::Input, "n".to_owned(), "input.n", false),
        ]
    );
    assert_eq!(found[1].task(), Some("my-task"));
    assert_eq!(&text[found[1].name_span()], "my-task");
    assert_eq!(found[2].input(), Some("goal"));
    let loops = "{% for f in tasks.a.output %}{{ f.tasks.b }}{{ tasks.c.state }}{% endfor %}";
    let names: Vec<_> = template::check_text(loops)
        .unwrap()
        .iter()
        .map(|reference| reference.task().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a", "c"]);
}

/// What minijinja itself finds must be found here as well.
#[test]
fn references_agree_with_the_engine() {
    let text = "(tasks.a.output | map(attribute='x') | list) + [input.b.c, index] if item.z is defined else run.id";
    let ours: std::collections::BTreeSet<_> = template::references(text)
        .unwrap()
        .iter()
        .map(|r| {
            let root = format!("{:?}", r.root).to_lowercase();
            std::iter::once(root).chain(r.path.clone()).collect::<Vec<_>>().join(".")
        })
        .collect();
    let env = minijinja::Environment::new();
    let theirs = env.compile_expression(text).unwrap().undeclared_variables(true);
    assert_eq!(ours, theirs.into_iter().collect());
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let cases = [
        ("{{ input.n | lenght }}", "unknown filter `lenght`", "did you mean `length`?"),
        ("{{ input.n is nul }}", "unknown test `nul`", ""),
        ("{{ rang(3) }}", "unknown function `rang`", "did you mean `range`?"),
        ("{{ inputs.n }}", "unknown name `inputs`", "did you mean `input`?"),
        ("{{ scan.output }}", "unknown name `scan`", "an expression starts from"),
        ("{{ input.goal.upper() }}", "`upper` cannot be called", "`value | upper`"),
        ("{{ input.goal.strip() }}", "`strip` cannot be called", "`value | trim`"),
        ("{{ input.n", "`{{` is not closed", "close it with `}}`"),
        ("{{ 'x }}", "this string is not closed", "close it with '"),
        ("{{ (1 }}", "`}` does not close `(`", ""),
        ("{{ 1) }}", "`)` closes nothing", ""),
        ("{{ }}", "there is no expression here", ""),
        ("{{ input.n && 1 }}", "`&` does not belong in an expression", "write `and`"),
        ("{{ 1 + }}", "unexpected end of input, expected expression", ""),
        ("{% set x = 1 %}", "unknown statement `set`", "only `if` and `for`"),
        ("{% include 'x' %}", "unknown statement `include`", ""),
        ("{% raw %}{% endraw %}", "unknown statement `raw`", ""),
        ("{% if input.n %}", "`if` is not closed", "{% endif %}"),
        ("{% endfor %}", "`endfor` without `for`", ""),
        ("{% for x in [1] %}{% endif %}", "`endif` without `if`", ""),
        ("{% for tasks in [1] %}{% endfor %}", "`tasks` cannot be the name of a loop variable", ""),
        ("{% for x in ['a' ~ 'b'] %}{% endfor %}", "the list of a loop cannot be joined here", ""),
        ("{{ loop.index }}", "unknown name `loop`", ""),
        ("{{ 'abc'[1:2:-1] }}", "a slice takes no step", "reverse"),
        ("{{ range(*[1]) }}", "arguments cannot be unpacked here", ""),
        ("{# x", "this comment is not closed", ""),
    ];
    for (text, message, hint) in cases {
        let errors = template::check_text(text).expect_err(text);
        let error = &errors[0];
        assert!(error.message.contains(message), "{text}: {error:?}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{text}: {error:?}");
    }
    // Each problem shares its template, and there are not many of them.
    let many = template::check_text(&"{{ a }}".repeat(30_000)).unwrap_err();
    assert_eq!(many.len(), template::MAX_PROBLEMS);
    let several = template::check_text("{{ a }} {{ b | c }}").unwrap_err();
    assert_eq!(several.len(), 3);
}

#[test]
fn errors_behind_a_guarded_operator_have_the_right_place() {
    let text = "{{ 2 * 3 * 4 + tasks.scan.output.fils }}";
    let error = refusal(text);
    assert_eq!(&text[error.span.unwrap()], "fils");
    let text = "a {{ 2 * 3 * 4 }} b {{ input.goal + 1 }}";
    let error = refusal(text);
    assert!(text[error.span.clone().unwrap()].contains("input.goal"), "{error:?}");
}

#[test]
fn text_cannot_be_multiplied() {
    for text in [
        "{{ 'x' * 100000000 }}",
        "{{ 100000000 * 'x' }}",
        "{{ 'x'*100000000 }}",
        "{{ ('x') * 100000000 }}",
        "{{ ('x' if true else 1) * 100000000 }}",
        "{{ 3 * ('x' ~ 'y') }}",
        "{{ 3 * 'x' | upper }}",
        "{{ 3 * [1, 2] }}",
        "{{ [1] * 100000000 }}",
        "{{ input.goal * input.n }}",
        "{{ input.n * input.goal }}",
        "{{ 3 * {'a': 'x'}.a }}",
        "{{ 3 * {'a': 'x'}['a'] }}",
        "{{ 1 + 2 * 'x' }}",
        "{{ [2 * 'x'] }}",
        "{{ 'a' 'b' * 3 }}",
        "{{ 3 * 'a' 'b' }}",
        "a{{ 'x' * 100000000 }}",
        "{% for i in range(3) %}{{ 'x' * 100000000 }}{% endfor %}",
        "{% if 'x' * 100000000 %}{% endif %}",
        "{{ 'x' * 100000000 | length }}",
        "{{ [1]|map('replace', '1', 'x' * 100000000) }}",
    ] {
        let error = refusal(text);
        assert!(error.message.contains("`*` multiplies numbers"), "{text}: {error}");
    }
    for text in ["{{ 'x' ** 3 }}", "{{ 3 * not 'x' }}", "{{ 3 * -'x' }}"] {
        refusal(text);
    }
}

#[test]
fn results_are_bounded() {
    let big = "x".repeat(700_000);
    let huge = "y".repeat(20_000_000);
    let input = json!({"big": big, "huge": huge, "list": vec![big.clone(); 3], "many": vec!["ab"; 200_000]});
    let ctx = Context::new(&input, &BTreeMap::new());
    let run = |text: &str| template::render_value(&json!(text), &ctx);
    assert_eq!(run("{{ input.big }}").unwrap().as_str().unwrap().len(), 700_000);
    assert_eq!(run("{{ input.big ~ '!' }}").unwrap().as_str().unwrap().len(), 700_001);
    let joined = ["input.huge"; 5].join(" ~ ");
    for text in [
        "{{ input.huge }}",
        "a{{ input.big }}{{ input.big }}",
        "{{ input.list | join }}",
        "{{ input.big | replace('x', 'yy') }}",
        "{{ input.big | replace('', 'y') }}",
        "{{ input.many | join('                    ') }}",
        "{{ input.many | tojson }}",
        "a{{ input.many }}",
        "{{ 'x' | indent(1000000000) }}",
        "{{ range(1000000000) | list }}",
        "{{ range(0, 9223372036854775807, 9223372036854775807) | batch(0) }}",
        "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
        "{% for i in range(10000) %}{{ input.many | length }}{% endfor %}",
        &format!("{{{{ {joined} }}}}"),
        "{% for i in [input.huge] %}{{ i ~ i ~ i ~ i }}{% endfor %}",
    ] {
        let error = run(text).expect_err(text);
        assert!(!error.message.is_empty(), "{text}");
    }
}

#[test]
fn data_that_is_nested_too_deeply_is_an_error() {
    let mut deep = json!(1);
    for _ in 0..1_000 {
        deep = json!([deep]);
    }
    let ctx = Context::new(&json!({"deep": deep}), &BTreeMap::new());
    assert!(template::eval("input.deep", &ctx).is_err());
    assert!(template::render_value(&json!("a{{ input.deep }}"), &ctx).is_err());
    assert!(template::render_value(&deep, &ctx).is_err());
    assert!(template::check_value(&deep).is_err());
}

/// Run on the stack of a test thread (2 MiB), as all tests are.
#[test]
fn nothing_overflows_the_stack() {
    let ctx = context();
    let wraps = [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{'a':", "1", "}"),
        ("input[", "1", "]"),
        ("range(", "1", ")"),
    ];
    for (open, middle, close) in wraps {
        for times in [31, 33, 150, 300, 5_000] {
            let text = format!("{}{middle}{}", open.repeat(times), close.repeat(times));
            let _ = template::eval(&text, &ctx);
            let _ = template::render_text(&format!("{{{{ {text} }}}}"), &ctx);
            assert!(times < 32 || template::check_expression(&text).is_err());
        }
    }
    let chains = [
        " + 1",
        " ~ 1",
        " and 1",
        " or 1",
        ".a",
        "[0]",
        " | int",
        " if 1 else 1",
        " ** 1",
        " < 1",
        " is odd",
        "(1)",
        " is eq 1",
        " in [1]",
    ];
    for chain in chains {
        for times in [100, 250, 20_000] {
            let text = format!("input.n{}", chain.repeat(times));
            let _ = template::eval(&text, &ctx);
            assert!(times < 300 || template::check_expression(&text).is_err(), "{chain}");
        }
    }
    for prefix in ["- ", "not ", "1 if ", "1 if 1 else "] {
        for times in [100, 250, 20_000] {
            let text = format!("{}1", prefix.repeat(times));
            let _ = template::eval(&text, &ctx);
        }
    }
    for (open, close) in [
        ("{% if 1 %}", "{% endif %}"),
        ("{% for x in [1] %}", "{% endfor %}"),
        ("{% if 1 %}{% elif 1 %}", "{% endif %}"),
    ] {
        for times in [15, 31, 33, 5_000] {
            let text = format!("{}{}", open.repeat(times), close.repeat(times));
            let _ = template::render_text(&text, &ctx);
        }
    }
    let elifs = format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(5_000));
    assert!(template::check_text(&elifs).is_err());
    let flat = "{{ 1 }}".repeat(10_000);
    assert_eq!(template::render_text(&flat, &ctx).unwrap().len(), 10_000);
}

/// Pieces from which the fuzzing builds expressions that are often almost right.
const PIECES: &[&str] = &[
    "input",
    "tasks",
    "item",
    "index",
    "run",
    "loop",
    ".",
    ".n",
    ".goal",
    ".scan.output.files",
    "['my-task']",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ":",
    " ~ ",
    " + ",
    " - ",
    " * ",
    " / ",
    " // ",
    " % ",
    " ** ",
    " == ",
    " < ",
    " in ",
    " is ",
    " not ",
    " and ",
    " or ",
    " if ",
    " else ",
    " | ",
    "length",
    "join",
    "map",
    "sort",
    "batch",
    "replace",
    "default",
    "indent",
    "round",
    "int",
    "sum",
    "split",
    "range",
    "odd",
    "defined",
    "'x'",
    "\"y\"",
    "1",
    "0",
    "9223372036854775807",
    "1e308",
    "0.5",
    "true",
    "none",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "for ",
    "endfor",
    "endif",
    "elif ",
    "x",
    "\\",
    "'",
    "é",
    "\u{0}",
    "\n",
    "=",
    "attribute=",
    "reverse",
    "-",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_templates_never_panic(text in ".{0,60}") {
        let _ = template::render_text(&text, &context());
        let _ = template::eval(&text, &context());
    }

    #[test]
    fn likely_templates_never_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14)) {
        let text = pieces.concat();
        let ctx = context().with_item(&json!({"n": 1}), 0);
        let _ = template::eval(&text, &ctx);
        let _ = template::eval_condition(&text, &ctx);
        for text in [format!("a{{{{ {text} }}}}"), format!("{{% for x in {text} %}}{{{{ x }}}}{{% endfor %}}"), text] {
            if let Err(errors) = template::check_text(&text) {
                for error in errors {
                    prop_assert!(error.span.is_none_or(|span| text.get(span).is_some()));
                }
            }
            let _ = template::render_text(&text, &ctx);
        }
    }
}
