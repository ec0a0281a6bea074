//! The single chores that are one call of a Rust tool each.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::ci::Outcome;
use crate::counts::Counts;
use crate::exec::{captured, cargo, has_cargo_command, passes, watched, without_colours};
use crate::servers;

/// The tests run with failpoints built in, since the short chaos run is one of them. Clippy, the
/// documentation and every measured build go without.
pub const TEST_FEATURES: &str = "segue/failpoints";

/// Formats the code, or with `check` says what is not formatted.
pub fn fmt(check: bool) -> Result<bool> {
    let mut command = cargo(["fmt", "--all"])?;
    if check {
        command.arg("--check");
    }
    passes(&mut command)
}

/// Clippy over every target of every crate; warnings are errors.
pub fn lint() -> Result<bool> {
    passes(&mut cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])?)
}

/// The API documentation of every crate; warnings, such as a dead link, are errors.
pub fn doc() -> Result<bool> {
    let mut flags = std::env::var("RUSTDOCFLAGS").unwrap_or_default();
    flags.push_str(" -D warnings");
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked"])?;
    passes(command.env("RUSTDOCFLAGS", flags.trim_start()))
}

/// The examples in the documentation, which nextest does not run.
pub fn doctest(counts: &mut Counts) -> Result<bool> {
    let mut command =
        cargo(["test", "--doc", "--workspace", "--features", TEST_FEATURES, "--locked"])?;
    watched(&mut command, |line| counts.add_line(line))
}

/// Every test, by nextest where it is installed (a hanging test is ended there, `.config/nextest.toml`),
/// else by `cargo test`.
pub fn all_tests(counts: &mut Counts) -> Result<bool> {
    servers::prepare();
    let mut command = if has_cargo_command("nextest")? {
        let mut nextest = cargo(["nextest", "run", "--profile", "ci"])?;
        nextest.args(["--workspace", "--features", TEST_FEATURES, "--locked"]);
        nextest
    } else {
        println!(
            "cargo-nextest is not installed: `cargo test` runs the tests, without its time limits"
        );
        let mut test = cargo(["test", "--workspace", "--all-targets", "--no-fail-fast"])?;
        test.args(["--features", TEST_FEATURES, "--locked"]);
        test
    };
    watched(&mut command, |line| counts.add_line(line))
}

/// The tests that `args` choose: they go to nextest, or to `cargo test` where nextest is missing.
pub fn test(args: &[String]) -> Result<bool> {
    servers::prepare();
    let mut command =
        if has_cargo_command("nextest")? { cargo(["nextest", "run"])? } else { cargo(["test"])? };
    command.args(scope(args)).args(args);
    passes(&mut command)
}

/// The whole workspace, unless `args` name packages themselves: then its features are not to be had.
fn scope(args: &[String]) -> &'static [&'static str] {
    let mut own = args.iter().take_while(|arg| *arg != "--");
    let names_packages = own.any(|arg| {
        arg.starts_with("-p") || arg.starts_with("--package") || arg.starts_with("--manifest-path")
    });
    if names_packages { &[] } else { &["--workspace", "--features", TEST_FEATURES] }
}

/// Licences, bans and sources of the dependencies, which need no network, then their advisories,
/// which need the advisory database. Skipped where cargo-deny is not installed.
pub fn deny() -> Result<Outcome> {
    if !has_cargo_command("deny")? {
        let how = "cargo-deny is not installed: cargo install cargo-deny --locked";
        return Ok(Outcome::Skipped(how.to_owned()));
    }
    if !passes(&mut cargo(["deny", "--locked", "check", "licenses", "bans", "sources"])?)? {
        return Ok(Outcome::Failed);
    }
    let output = cargo(["deny", "--locked", "check", "advisories"])?
        .stdin(Stdio::null())
        .output()
        .context("cargo deny could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && database_is_out_of_reach(&without_colours(&said)) {
        let what = "advisories were NOT checked: their database cannot be fetched from here";
        return Ok(Outcome::Partly(what.to_owned()));
    }
    eprint!("{said}");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(output.status.success().into())
}

/// Whether cargo-deny could not fetch its database, by its message: any other failure is a finding.
fn database_is_out_of_reach(said: &str) -> bool {
    said.contains("failed to fetch advisory database")
}

/// The version of LLVM that this Rust compiler writes coverage data for, e.g. `22.1.2`.
pub fn llvm_version() -> Result<String> {
    let said = captured(Command::new("rustc").arg("-vV"))?;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    Ok(version.unwrap_or("of an unknown version").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn only_a_database_out_of_reach_excuses_unchecked_advisories() {
        let offline = "2026-11-22 10:03:52 [ERROR] failed to fetch advisory database https://x with cli: failed to clone";
        assert!(database_is_out_of_reach(offline));
        assert!(!database_is_out_of_reach(
            "error[vulnerability]: Use after free\nadvisories FAILED"
        ));
    }

    #[test]
    fn named_packages_replace_the_workspace() {
        assert_eq!(scope(&strings(&["decide"]))[0], "--workspace");
        assert!(scope(&strings(&["-p", "segue-core", "decide"])).is_empty());
        assert!(scope(&strings(&["--package=segue-core"])).is_empty());
        assert_eq!(scope(&strings(&["x", "--", "-p"]))[0], "--workspace");
    }
}
