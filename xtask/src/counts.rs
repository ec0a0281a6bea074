//! How many tests ran, read off the closing lines of the test runners.

use std::fmt;

/// Tests of one or several runs. Its `Display` is the closing line of `cargo xtask ci`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed, slow ones included.
    pub passed: u64,
    /// Tests that failed, timed out or could not be started.
    pub failed: u64,
    /// Tests that exist and were not run.
    pub skipped: u64,
}

impl Counts {
    /// Adds what `line` says if it is the closing line of nextest or of one `cargo test` binary:
    /// `Summary [ 1.2s] 5 tests run: 4 passed (1 slow), 1 timed out, 2 skipped`, or
    /// `test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s`.
    pub fn add_line(&mut self, line: &str) {
        let line = line.trim_start();
        let summary = line.strip_prefix("Summary [").and_then(|rest| rest.split_once(" run: "));
        let result = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "));
        let Some((_, parts)) = summary.or(result) else {
            return;
        };
        for part in parts.split([',', ';']) {
            let Some((number, word)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            if word.starts_with("passed") {
                self.passed += number;
            } else if ["failed", "timed out", "exec failed"].iter().any(|bad| word.starts_with(bad))
            {
                self.failed += number;
            } else if ["skipped", "ignored"].contains(&word) {
                self.skipped += number;
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { passed, failed, skipped } = self;
        write!(f, "tests: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_closing_lines_are_added_up_and_other_lines_are_not() {
        let mut counts = Counts::default();
        for line in [
            "     Summary [   1.250s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped",
            "     Summary [   0.100s] 3/9 tests run: 2 passed, 1 exec failed, 0 skipped",
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "running 12 tests",
            "12 passed, 4 failed",
        ] {
            counts.add_line(line);
        }
        assert_eq!(counts, Counts { passed: 10, failed: 5, skipped: 3 });
        assert_eq!(counts.to_string(), "tests: 10 passed, 5 failed, 3 skipped");
    }
}
