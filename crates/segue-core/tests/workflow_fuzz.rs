//! Whatever a workflow file holds, reading it ends with a workflow or with errors that can be shown.

use proptest::prelude::*;
use segue_core::workflow;

const GOOD: &str = r#"# a workflow
name: review
x-base: &base {retry: {attempts: 5, base: 500ms}, timeout: {queue: 10m, run: 1h}}
input:
  goal: string
  depth: {type: integer, default: 3}
timeout: 2h
output: {report: "{{ tasks.report.output }}"}
tasks:
  scan:
    agent: Inventory Taker
    input: {path: ".", depth: "{{ input.depth }}"}
  my-review:
    <<: *base
    capability: review
    for_each: tasks.scan.output.files | batch(10)
    max_parallel: 4
    when: "{{ tasks.scan.state == 'completed' }}"
    prompt: |
      Review:
      {% for file in item %}
      - {{ file }}
      {% endfor %}
    priority: high
  report:
    agent: 'reporter'
    needs: [scan, my-review]
    input: >-
      {{ tasks['my-review'].output }}
      for {{ input.goal }}
    on_failure: skip
"#;

/// Pieces that are put into files to break them in likely ways.
const PIECES: &[&str] = &[
    "\t",
    "\n",
    "\r",
    "  ",
    "- ",
    ": ",
    "? ",
    "#",
    "&a ",
    "*a",
    "*base",
    "<<: *base",
    "!!str ",
    "!x ",
    "|",
    ">",
    "'",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "%",
    "---\n",
    "...\n",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "é",
    "語",
    "null",
    "~",
    "1e999",
    "0x",
    ".inf",
    "tasks:",
    "tasks.scan.output",
    "item",
    "needs: report",
    "for_each: 1",
    "agent: x\n",
    "@",
    "`",
    "\\",
    "\\x",
    "=",
    "{{ 'x' * 3 }}",
    "{% for x in y %}",
    "\u{1b}[31m",
];

fn check(file: &[u8]) -> Result<(), TestCaseError> {
    match workflow::parse(file) {
        Ok(checked) => {
            prop_assert!(!checked.warnings.has_errors());
            prop_assert!(!checked.workflow.tasks.is_empty());
        }
        Err(wrong) => {
            prop_assert!(wrong.has_errors());
            let lines = String::from_utf8_lossy(file).matches(['\n', '\r']).count() + 1;
            for item in &wrong {
                prop_assert!(item.line as usize <= lines, "{item:?}");
                prop_assert!(!item.message.is_empty() && !item.message.contains(char::is_control));
            }
            let shown = wrong.render("flow.yaml", file, false);
            prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        }
    }
    Ok(())
}

#[test]
fn the_file_that_is_broken_is_good() {
    assert!(workflow::parse(GOOD.as_bytes()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_read(file in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&file)?;
    }

    #[test]
    fn arbitrary_text_is_read(file in "\\PC{0,200}") {
        check(file.as_bytes())?;
    }

    #[test]
    fn likely_text_is_read(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30)) {
        check(format!("tasks:\n  a:\n    {}", pieces.concat()).as_bytes())?;
        check(pieces.concat().as_bytes())?;
    }

    #[test]
    fn files_with_pieces_put_in_are_read(
        changes in prop::collection::vec((0..GOOD.len(), prop::sample::select(PIECES)), 1..4),
    ) {
        let mut file = GOOD.to_owned();
        for (at, piece) in changes {
            if file.is_char_boundary(at) {
                file.insert_str(at, piece);
            }
        }
        check(file.as_bytes())?;
    }

    #[test]
    fn files_with_parts_taken_out_or_doubled_are_read(
        from in 0..GOOD.len(),
        len in 0_usize..120,
        twice in any::<bool>(),
        cut in 0..GOOD.len(),
    ) {
        let to = (from + len).min(GOOD.len());
        let mut file = GOOD.to_owned();
        if twice {
            file.insert_str(to, &GOOD[from..to]);
        } else {
            file.replace_range(from..to, "");
        }
        check(file.as_bytes())?;
        file.truncate(cut.min(file.len()));
        check(file.as_bytes())?;
    }

    #[test]
    fn files_with_changed_bytes_are_read(
        changes in prop::collection::vec((0..GOOD.len(), any::<u8>()), 1..5),
    ) {
        let mut file = GOOD.as_bytes().to_vec();
        for (at, byte) in changes {
            file[at] = byte;
        }
        check(&file)?;
    }

    #[test]
    fn lines_in_another_order_are_read(lines in prop::collection::vec(0..30_usize, 0..30)) {
        let all: Vec<&str> = GOOD.lines().collect();
        let file: String = lines.iter().filter_map(|at| all.get(*at)).map(|line| format!("{line}\n")).collect();
        check(file.as_bytes())?;
    }
}
