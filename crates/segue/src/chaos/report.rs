//! What a run came to, for people and for programs.

use super::check::Finding;
use super::feed::Fed;
use crate::screen::style::Paint;
use crate::screen::table::Table;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Report {
    /// What the check of the database counted.
    pub findings: Vec<Finding>,
    /// What only the run itself knows.
    pub run: Run,
    /// The database.
    pub database: PathBuf,
}

/// What only the run itself knows.
#[derive(Debug, Default)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How often the node was to be killed.
    pub kills_wanted: u32,
    /// How often it was killed, by the point at which, or `random`.
    pub kills_by_point: BTreeMap<&'static str, u32>,
    /// Supervisors that were killed.
    pub supervisor_kills: u32,
    /// What came of the submits, once all were taken in.
    pub fed: Option<Fed>,
    /// Records and scratch folders of attempts, of which none are on their way any more.
    pub files_left: Vec<String>,
    /// Processes that outlived their node.
    pub orphans: Vec<String>,
    /// How long processes outlived their node at most, in seconds.
    pub gone_s_max: f64,
    /// What went wrong with the run itself.
    pub troubles: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Run {
    fn kills(&self) -> u32 {
        self.kills_by_point.values().sum()
    }

    /// What the run found beside the database.
    fn findings(&self) -> Vec<Finding> {
        let must = |name: &str, found: u64, wanted: u64| Finding {
            name: name.to_owned(),
            found: found.into(),
            wanted: Some(wanted.into()),
            holds: Some(found == wanted),
        };
        let told = |name: &str, found: Value| Finding {
            name: name.to_owned(),
            found,
            wanted: None,
            holds: None,
        };
        let fed = |of: fn(&Fed) -> u64| self.fed.as_ref().map(of).into();
        vec![
            must("kills", self.kills().into(), self.kills_wanted.into()),
            must("orphans", self.orphans.len() as u64, 0),
            must("files_left", self.files_left.len() as u64, 0),
            must("troubles", self.troubles.len() as u64, 0),
            told("processes_gone_s_max", rounded(self.gone_s_max)),
            told("supervisor_kills", self.supervisor_kills.into()),
            told("submits_unanswered", fed(|fed| fed.repeated)),
            told("submits_found_again", fed(|fed| fed.found_again)),
            told("seconds", rounded(self.seconds)),
            told("seed", self.seed.into()),
        ]
    }
}

impl Report {
    fn all(&self) -> impl Iterator<Item = Finding> {
        self.run.findings().into_iter().chain(self.findings.clone())
    }

    /// Whether everything is as it has to be.
    pub fn holds(&self) -> bool {
        !self.findings.is_empty() && self.all().all(|finding| finding.holds != Some(false))
    }

    /// One object with everything.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("deployment".to_owned(), "embedded".into());
        object.insert("ok".to_owned(), self.holds().into());
        for finding in self.all() {
            object.insert(finding.name, finding.found);
        }
        object.insert("kills_by_point".to_owned(), json!(self.run.kills_by_point));
        let failed: Vec<String> = self
            .all()
            .filter(|finding| finding.holds == Some(false))
            .map(|finding| finding.name)
            .collect();
        object.insert("failed".to_owned(), failed.into());
        object.insert("orphans_found".to_owned(), self.run.orphans.clone().into());
        object.insert("files_found".to_owned(), self.run.files_left.clone().into());
        object.insert("troubles_found".to_owned(), self.run.troubles.clone().into());
        object.insert("database".to_owned(), self.database.to_string_lossy().into());
        object.into()
    }

    /// A table for people.
    pub fn lines(&self, paint: Paint) -> Vec<String> {
        let mut lines = table(&self.all().collect::<Vec<_>>(), paint);
        let points: Vec<String> = self
            .run
            .kills_by_point
            .iter()
            .map(|(point, count)| format!("{point} {count}"))
            .collect();
        lines.push(String::new());
        lines.push(format!("killed at: {}", points.join(", ")));
        lines.extend(self.run.orphans.iter().map(|orphan| paint.red(format!("orphan: {orphan}"))));
        lines.extend(self.run.files_left.iter().map(|path| paint.red(format!("left: {path}"))));
        lines.extend(self.run.troubles.iter().map(|text| paint.red(format!("trouble: {text}"))));
        lines.push(format!("database: {}", self.database.display()));
        lines.push(if self.holds() {
            paint.green("everything holds")
        } else {
            paint.error("NOT everything holds")
        });
        lines
    }
}

/// Findings as a table.
pub fn table(findings: &[Finding], paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["what", "found", "wanted", ""]);
    for finding in findings {
        let wanted = finding.wanted.as_ref().map(ToString::to_string).unwrap_or_default();
        let verdict = match finding.holds {
            Some(true) => paint.green("ok"),
            Some(false) => paint.error("FAIL"),
            None => String::new(),
        };
        table.row(vec![finding.name.clone(), finding.found.to_string(), wanted, verdict]);
    }
    table.lines(paint, None)
}

fn rounded(value: f64) -> Value {
    json!((value * 1_000.0).round() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(found: u64) -> Report {
        let lost = Finding {
            name: "lost".to_owned(),
            found: found.into(),
            wanted: Some(0.into()),
            holds: Some(found == 0),
        };
        let run = Run {
            kills_wanted: 3,
            kills_by_point: BTreeMap::from([("after-commit", 1), ("random", 2)]),
            ..Run::default()
        };
        Report { findings: vec![lost], run, database: "x/.segue/segue.db".into() }
    }

    #[test]
    fn one_thing_that_does_not_hold_is_enough() {
        assert!(report(0).holds());
        assert!(!report(1).holds());
        let mut orphan = report(0);
        orphan.run.orphans.push("process 7 (sleep) of life 2".to_owned());
        assert!(!orphan.holds());
        let mut short = report(0);
        short.run.kills_wanted = 4;
        assert!(!short.holds());
        assert!(!Report { findings: Vec::new(), ..report(0) }.holds());
    }

    #[test]
    fn the_object_names_what_failed_and_where_the_database_is() {
        let object = report(2).json();
        assert_eq!(object["failed"], json!(["lost"]));
        assert_eq!(object["deployment"], "embedded");
        assert_eq!((&object["kills"], &object["lost"]), (&json!(3), &json!(2)));
        assert_eq!(object["kills_by_point"]["after-commit"], 1);
        assert_eq!(object["database"], "x/.segue/segue.db");
        let lines = report(2).lines(Paint::new(false));
        assert!(
            lines.iter().any(|line| line.contains("lost") && line.contains("FAIL")),
            "{lines:?}"
        );
    }
}
