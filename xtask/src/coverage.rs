//! `cargo xtask coverage`: the share of lines that the tests run.

use anyhow::{Context, Result};

use crate::chores::{TEST_FEATURES, llvm_version};
use crate::exec::{captured, cargo, has_cargo_command, passes};
use crate::servers;

/// The share of lines, in percent, below which the chore fails.
const LINES_PERCENT_MIN: f64 = 80.0;

/// The chores do not count: they are no part of the product.
const NOT_COUNTED: &str = "(^|/)xtask/src/";

/// Keeps names in coverage data plain, because some builds of the LLVM tools cannot unpack them.
const PLAIN_NAMES: &str = "-Cllvm-args=-enable-name-compression=false";

/// Runs the tests instrumented, prints the table of files and the figure; true from 80 % on.
pub fn run() -> Result<bool> {
    if !has_cargo_command("llvm-cov")? {
        let version = llvm_version()?;
        println!(
            "cargo-llvm-cov is not installed. Coverage needs it and the tools of LLVM {version}:\n  \
             cargo install cargo-llvm-cov --locked\n  \
             rustup component add llvm-tools\n\
             Where that component cannot be had, set LLVM_COV and LLVM_PROFDATA to an `llvm-cov` and an\n\
             `llvm-profdata` of the same major version."
        );
        return Ok(false);
    }
    // Data of earlier runs would be added up, that of tests which are gone included.
    if !passes(&mut cargo(["llvm-cov", "clean", "--workspace"])?)? {
        return Ok(false);
    }
    servers::prepare();
    let mut tests = if has_cargo_command("nextest")? {
        cargo(["llvm-cov", "nextest", "--profile", "ci"])?
    } else {
        cargo(["llvm-cov"])?
    };
    tests.args([
        "--no-report",
        "--workspace",
        "--exclude",
        "xtask",
        "--features",
        TEST_FEATURES,
        "--locked",
    ]);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    tests.env("RUSTFLAGS", format!("{flags} {PLAIN_NAMES}").trim_start());
    if !passes(&mut tests)? {
        return Ok(false);
    }
    passes(&mut cargo(["llvm-cov", "report", "--ignore-filename-regex", NOT_COUNTED])?)?;
    let mut report = cargo(["llvm-cov", "report", "--json", "--summary-only"])?;
    report.args(["--ignore-filename-regex", NOT_COUNTED]);
    let (covered, count) = lines_of_totals(&captured(&mut report)?)
        .context("the report of cargo llvm-cov has no totals of lines; is it newer than 0.9?")?;
    let percent = if count == 0 { 0.0 } else { 100.0 * covered as f64 / count as f64 };
    println!(
        "line coverage: {percent:.1} % ({covered} of {count} lines), at least {LINES_PERCENT_MIN:.0} % wanted"
    );
    Ok(percent >= LINES_PERCENT_MIN)
}

/// `(covered, count)` of the lines in the report's totals. Read with string searches, as a JSON
/// parser would be this crate's largest dependency: the report is one object whose `totals` holds one
/// flat object `lines`.
fn lines_of_totals(report: &str) -> Option<(u64, u64)> {
    let (_, totals) = report.split_once("\"totals\"")?;
    let (_, lines) = totals.split_once("\"lines\"")?;
    let (lines, _) = lines.split_once('}')?;
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = lines.split_once(&format!("\"{name}\""))?;
        let digits = rest.trim_start_matches([':', ' ']);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    Some((number("covered")?, number("count")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_are_read_and_not_a_files_figures() {
        let report = r#"{"data":[{"files":[{"summary":{"lines":{"count":10,"covered":1,"percent":10.0}}}],
            "totals":{"functions":{"count":7,"covered":7,"percent":100},
            "lines":{"count": 200,"covered": 150,"percent":75},"regions":{"count":1,"covered":1}}}]}"#;
        assert_eq!(lines_of_totals(report), Some((150, 200)));
        assert_eq!(lines_of_totals("{}"), None);
    }
}
