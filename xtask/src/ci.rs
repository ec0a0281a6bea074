//! `cargo xtask ci`: everything a change must pass, one step after the other.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::counts::Counts;
use crate::{chores, tidy};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and found nothing wrong.
    Passed,
    /// It found nothing wrong as far as it could run, and what it could not do.
    Partly(String),
    /// It ran and found something wrong, or could not run to its end.
    Failed,
    /// It did not run, and why: a tool that is not installed.
    Skipped(String),
}

impl Outcome {
    /// What was left undone, empty where nothing was.
    pub fn why(&self) -> &str {
        match self {
            Outcome::Passed | Outcome::Failed => "",
            Outcome::Partly(why) | Outcome::Skipped(why) => why,
        }
    }
}

impl From<bool> for Outcome {
    fn from(passed: bool) -> Self {
        if passed { Outcome::Passed } else { Outcome::Failed }
    }
}

struct Step {
    name: &'static str,
    run: fn(&mut Counts) -> Result<Outcome>,
}

/// The cheap steps come first. `doc` follows `lint`, whose check metadata of the dependencies it
/// reuses; `test` follows `doctest`, whose libraries it reuses.
const STEPS: [Step; 7] = [
    Step { name: "fmt", run: |_| Ok(chores::fmt(true)?.into()) },
    Step { name: "tidy", run: |_| Ok(tidy::run()?.into()) },
    Step { name: "lint", run: |_| Ok(chores::lint()?.into()) },
    Step { name: "doc", run: |_| Ok(chores::doc()?.into()) },
    Step { name: "doctest", run: |counts| Ok(chores::doctest(counts)?.into()) },
    Step { name: "test", run: |counts| Ok(chores::all_tests(counts)?.into()) },
    Step { name: "deny", run: |_| chores::deny() },
];

struct Done {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs every step. The first failure is the last step, unless `keep_going`. True when none failed.
pub fn run(keep_going: bool) -> Result<bool> {
    let mut counts = Counts::default();
    let mut done = Vec::new();
    for step in &STEPS {
        println!("\n==> {}", step.name);
        let began = Instant::now();
        let outcome = (step.run)(&mut counts).unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", step.name);
            Outcome::Failed
        });
        let took = began.elapsed();
        println!("<== {}: {}, {}", step.name, word(&outcome), seconds(took));
        let failed = outcome == Outcome::Failed;
        done.push(Done { name: step.name, outcome, took });
        if failed && !keep_going {
            break;
        }
    }
    print!("\n{}", table(&done));
    println!("\n{counts}");
    Ok(done.iter().all(|step| step.outcome != Outcome::Failed))
}

/// The closing table, with a line for each step, also for those that were not reached.
fn table(done: &[Done]) -> String {
    let mut text = String::new();
    for step in &STEPS {
        let line = match done.iter().find(|done| done.name == step.name) {
            Some(Done { outcome, took, .. }) => {
                let why = outcome.why();
                format!("{:<8} {:<11} {:>9}  {why}", step.name, word(outcome), seconds(*took))
            }
            None => format!("{:<8} not reached", step.name),
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let all = done.iter().map(|done| done.took).sum();
    text.push_str(&format!("{:<8} {:<11} {:>9}\n", "all", "", seconds(all)));
    text
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Partly(_) => "ok, partly",
        Outcome::Failed => "FAILED",
        Outcome::Skipped(_) => "skipped",
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_step_with_its_end_and_its_time() {
        let done = [
            Done { name: "fmt", outcome: Outcome::Passed, took: Duration::from_millis(1_250) },
            Done {
                name: "tidy",
                outcome: Outcome::Skipped("no reason".to_owned()),
                took: Duration::ZERO,
            },
            Done { name: "lint", outcome: Outcome::Failed, took: Duration::from_secs(100) },
        ];
        let table = table(&done);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), STEPS.len() + 1);
        assert_eq!(lines[0], "fmt      ok              1.2 s");
        assert_eq!(lines[1], "tidy     skipped         0.0 s  no reason");
        assert_eq!(lines[2], "lint     FAILED        100.0 s");
        assert_eq!(lines[3], "doc      not reached");
        assert_eq!(lines[STEPS.len()], "all                    101.2 s");
    }
}
