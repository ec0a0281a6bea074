//! What a run came to, for people and for programs. The names are those of `segue chaos`.

use super::feed::Fed;
use serde_json::{Map, Number, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// One thing that was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub name: String,
    /// How much.
    pub found: Value,
    /// How much it has to be, where that is known.
    pub wanted: Option<Value>,
    /// Whether it is as it has to be.
    pub holds: Option<bool>,
}

impl Finding {
    /// Reads a line of the check: `name | found | wanted | verdict`.
    pub(super) fn read(line: &str) -> Option<Finding> {
        let mut words = line.split(" | ").map(str::trim);
        let (name, found, wanted) = (words.next()?, words.next()?, words.next()?);
        let number = |word: &str| word.parse::<Number>().ok().map(Value::Number);
        let holds = match words.next() {
            Some("ok") => Some(true),
            Some("FAIL") => Some(false),
            _ => None,
        };
        let found = number(found).unwrap_or(Value::Null);
        Some(Finding { name: name.to_owned(), found, wanted: number(wanted), holds })
    }

    fn must(name: &str, found: u64, wanted: u64) -> Finding {
        Finding {
            name: name.to_owned(),
            found: found.into(),
            wanted: Some(wanted.into()),
            holds: Some(found == wanted),
        }
    }

    fn told(name: &str, found: impl Into<Value>) -> Finding {
        Finding { name: name.to_owned(), found: found.into(), wanted: None, holds: None }
    }
}

/// A fault that happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Its kind.
    pub name: &'static str,
    /// Whom it hit.
    pub victim: String,
    /// When it began, in seconds since the start of the run.
    pub at_s: f64,
    /// How long it lasted, in seconds.
    pub seconds: f64,
    /// From its end to the next event of the log, in seconds, as the rig saw it.
    pub moved_s: Option<f64>,
}

/// Everything that is known of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// What the check of the database counted.
    pub findings: Vec<Finding>,
    /// The seed.
    pub seed: u64,
    /// Nodes, workers.
    pub members: (usize, usize),
    /// What happened.
    pub faults: Vec<Happened>,
    /// Processes that were killed: nodes and workers.
    pub kills: u64,
    /// Processes of agents that were left at the end.
    pub orphans: Vec<String>,
    /// What went wrong with the run itself.
    pub troubles: Vec<String>,
    /// What was not done, and why.
    pub left_out: Vec<String>,
    /// Bytes to and from each server, by all members.
    pub bytes: BTreeMap<String, (u64, u64)>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Submits that were repeated, and those of them that had been taken in.
    pub submits: (u64, u64),
    /// The servers' versions.
    pub servers: BTreeMap<&'static str, String>,
}

impl Report {
    pub(super) fn fed(&mut self, fed: &Fed) {
        self.submits = (fed.repeated, fed.found_again);
    }

    /// What the check and the rig found.
    pub fn all(&self) -> Vec<Finding> {
        let mut all = vec![
            Finding::told("kills", self.kills),
            Finding::must("orphans", self.orphans.len() as u64, 0),
            Finding::must("troubles", self.troubles.len() as u64, 0),
            Finding::told("submits_unanswered", self.submits.0),
            Finding::told("submits_found_again", self.submits.1),
            Finding::told("seconds", rounded(self.seconds)),
            Finding::told("seed", self.seed),
        ];
        all.extend(self.findings.iter().cloned());
        all
    }

    /// Whether everything is as it has to be.
    pub fn holds(&self) -> bool {
        !self.findings.is_empty() && self.all().iter().all(|finding| finding.holds != Some(false))
    }

    /// One object with everything.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("deployment".to_owned(), "cluster".into());
        object.insert("ok".to_owned(), self.holds().into());
        object.insert("nodes".to_owned(), self.members.0.into());
        object.insert("workers".to_owned(), self.members.1.into());
        let all = self.all();
        let failed: Vec<&str> = all
            .iter()
            .filter(|finding| finding.holds == Some(false))
            .map(|finding| finding.name.as_str())
            .collect();
        object.insert("failed".to_owned(), json!(failed));
        for finding in &all {
            object.insert(finding.name.clone(), finding.found.clone());
        }
        let faults = self.faults.iter().map(|fault| {
            json!({
                "name": fault.name, "victim": fault.victim, "at_s": rounded(fault.at_s),
                "seconds": rounded(fault.seconds), "moved_s": fault.moved_s.map(rounded),
            })
        });
        object.insert("faults".to_owned(), faults.collect());
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for fault in &self.faults {
            *kinds.entry(fault.name).or_default() += 1;
        }
        object.insert("faults_by_kind".to_owned(), json!(kinds));
        object.insert("bytes".to_owned(), json!(self.bytes));
        object.insert("servers".to_owned(), json!(self.servers));
        object.insert("orphans_found".to_owned(), json!(self.orphans));
        object.insert("troubles_found".to_owned(), json!(self.troubles));
        object.insert("left_out".to_owned(), json!(self.left_out));
        object.into()
    }

    /// The same for people.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let verdict = if self.holds() { "Everything holds." } else { "NOT everything holds." };
        let (nodes, workers) = self.members;
        let _ = writeln!(
            text,
            "# Chaos on a cluster of {nodes} nodes and {workers} workers\n\n{verdict}\n"
        );
        let versions: Vec<String> =
            self.servers.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let _ = writeln!(text, "Seed {}. {}\n", self.seed, versions.join(", "));
        text.push_str("| what | found | wanted | |\n|---|---:|---:|---|\n");
        for finding in self.all() {
            let wanted = finding.wanted.as_ref().map(ToString::to_string).unwrap_or_default();
            let verdict = match finding.holds {
                Some(true) => "ok",
                Some(false) => "FAIL",
                None => "",
            };
            let _ =
                writeln!(text, "| {} | {} | {wanted} | {verdict} |", finding.name, finding.found);
        }
        text.push_str(
            "\n| fault | victim | at, s | lasted, s | moved after, s |\n|---|---|---:|---:|---:|\n",
        );
        for fault in &self.faults {
            let moved = fault.moved_s.map(|it| format!("{it:.1}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | {} | {:.1} | {:.1} | {moved} |",
                fault.name, fault.victim, fault.at_s, fault.seconds
            );
        }
        for (what, lines) in
            [("trouble", &self.troubles), ("orphan", &self.orphans), ("left out", &self.left_out)]
        {
            for line in lines {
                let _ = writeln!(text, "\n{what}: {line}");
            }
        }
        text
    }
}

fn rounded(value: f64) -> Value {
    json!((value * 1_000.0).round() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_check_is_read_with_its_verdict() {
        let lost = Finding::read("lost | 2 | 0 | FAIL").unwrap();
        assert_eq!((lost.found, lost.wanted, lost.holds), (json!(2), Some(json!(0)), Some(false)));
        let told = Finding::read("recovery_s_p50 | 0.25 |  | ").unwrap();
        assert_eq!((told.found, told.wanted, told.holds), (json!(0.25), None, None));
        assert_eq!(Finding::read("nothing of the kind"), None);
    }

    #[test]
    fn one_thing_that_does_not_hold_is_enough() {
        let report = |line: &str| Report {
            findings: vec![Finding::read(line).unwrap()],
            ..Report::default()
        };
        assert!(report("lost | 0 | 0 | ok").holds());
        assert!(!report("lost | 1 | 0 | FAIL").holds());
        assert!(!Report::default().holds());
        let mut trouble = report("lost | 0 | 0 | ok");
        trouble.troubles.push("n1 ended by itself".to_owned());
        assert!(!trouble.holds());
        assert_eq!(trouble.json()["failed"], json!(["troubles"]));
        assert!(trouble.markdown().contains("| troubles | 1 | 0 | FAIL |"));
    }
}
