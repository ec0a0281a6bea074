//! The manual of workflow files is true.

use segue_core::{template, workflow};
use serde_json::json;

fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/workflow.md");
    std::fs::read_to_string(path).expect("docs/workflow.md can be read")
}

fn example(manual: &str) -> String {
    let start = manual.find("```yaml\n").expect("there is an example") + "```yaml\n".len();
    let end = manual[start..].find("```").expect("the example ends") + start;
    manual[start..end].to_owned()
}

#[test]
fn the_example_is_a_workflow() {
    let text = example(&manual());
    let checked = workflow::parse(text.as_bytes())
        .unwrap_or_else(|wrong| panic!("{}", wrong.render("example", &text, false)));
    assert!(checked.warnings.is_empty());
    let workflow = checked.workflow;
    let needs: Vec<_> = workflow.tasks.iter().map(|task| task.needs.join(" ")).collect();
    assert_eq!(needs, ["", "scan", "scan", "review-files history scan"]);
    let validator = jsonschema::draft202012::new(&workflow::json_schema()).expect("a schema");
    let plain: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let errors: Vec<String> = validator.iter_errors(&plain).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn the_example_can_be_rendered() {
    use std::collections::BTreeMap;
    use template::{Context, EndState, TaskView};
    let workflow = workflow::parse(example(&manual()).as_bytes()).expect("good").workflow;
    let ended = |output| TaskView { state: EndState::Completed, output, error: None };
    let files = json!([{"path": "a.rs", "lines": 3}, {"path": "b.rs", "lines": 4}]);
    let tasks = BTreeMap::from([
        ("scan".to_owned(), ended(json!({"files": files}))),
        ("review-files".to_owned(), ended(json!(["fine"]))),
        ("history".to_owned(), ended(json!({"files": [{"changes": 1}, {"changes": 9}]}))),
        ("report".to_owned(), ended(json!({"path": "report.md"}))),
    ]);
    let input = workflow.bind_input(json!({"goal": "Find bugs"}).as_object().unwrap().clone());
    let ctx = Context::new(&input.expect("bound"), &tasks);
    let [scan, review, _, report] = workflow.tasks.as_slice() else { panic!("four tasks") };
    assert_eq!(
        template::render_value(&scan.input, &ctx).unwrap(),
        json!({"path": ".", "depth": 3})
    );
    assert!(template::eval_condition(review.when.as_ref().unwrap(), &ctx).unwrap());
    let items = template::eval_list(&review.for_each.as_ref().unwrap().list, &ctx).unwrap();
    let prompt =
        template::render_text(review.prompt.as_ref().unwrap(), &ctx.with_item(&items[0], 0));
    assert_eq!(prompt.unwrap(), "Find bugs. Style: short.\n- a.rs (3 lines)\n- b.rs (4 lines)\n");
    assert_eq!(
        template::render_value(&report.input, &ctx).unwrap(),
        json!({"goal": "Find bugs", "reviews": ["fine"], "reviewed": true, "hot": [{"changes": 9}, {"changes": 1}], "title": "Review of 2 files"})
    );
    let output = template::render_value(workflow.output.as_ref().unwrap(), &ctx).unwrap();
    assert_eq!(output, json!({"report": "report.md"}));
}

#[test]
fn every_key_filter_and_test_stands_in_the_manual() {
    let manual = manual();
    let schema = workflow::json_schema();
    let objects = [
        &schema,
        &schema["$defs"]["task"],
        &schema["$defs"]["input"],
        &schema["$defs"]["retry"],
        &schema["$defs"]["timeout"],
    ];
    for object in objects {
        for key in object["properties"].as_object().unwrap().keys() {
            assert!(manual.contains(&format!("| `{key}` |")), "the manual has no row for {key}");
        }
    }
    let names = template::FILTERS.iter().map(|filter| filter.name);
    for name in names.chain(template::TESTS.iter().copied()) {
        assert!(manual.contains(&format!("`{name}`")), "the manual does not name {name}");
    }
    for name in template::FUNCTIONS {
        assert!(manual.contains(&format!("`{name}(n)`")), "the manual does not name {name}");
    }
}

#[test]
fn every_filter_and_test_of_the_table_exists() {
    use std::collections::BTreeMap;
    let ctx = template::Context::new(&json!({"x": []}), &BTreeMap::new());
    let unknown = |text: String| {
        template::eval(&text, &ctx).err().is_some_and(|error| error.message.contains("unknown"))
    };
    for filter in template::FILTERS {
        assert!(!unknown(format!("input.x | {}", filter.name)), "{}", filter.name);
        assert!(filter.doc.len() > 5);
    }
    for test in template::TESTS {
        assert!(!unknown(format!("input.x is {test}")), "{test}");
    }
    for function in template::FUNCTIONS {
        assert!(!unknown(format!("{function}(1)")), "{function}");
    }
}
