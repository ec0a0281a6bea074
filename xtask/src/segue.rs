//! `cargo xtask bench`, `chaos` and `simulate`: build the binary as each needs it, then become it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::exec::{become_program, captured, cargo};

/// Builds the release binary without failpoints and becomes `segue bench ARGS`.
pub fn bench(args: &[String]) -> Result<bool> {
    let binary = build(&["--release"])?;
    become_program(&binary, &with("bench", args))
}

/// The same on a cluster: the rig starts private servers and lets the binary measure on them.
pub fn cluster_bench(args: &[String]) -> Result<bool> {
    let segue = build(&["--release"])?;
    let rig = build_as(&["--package", "segue-testkit", "--bin", "segue-rig"])?;
    let mut words = vec!["bench".to_owned(), "--binary".to_owned(), segue.display().to_string()];
    words.extend_from_slice(args);
    become_program(&rig, &words)
}

/// Builds the binary with failpoints and becomes `segue chaos ARGS`. The debug build is the default,
/// because the tests have made most of it; `release` asks for the optimised one.
pub fn chaos(release: bool, args: &[String]) -> Result<bool> {
    let flags: &[&str] = if release {
        &["--features", "failpoints", "--release"]
    } else {
        &["--features", "failpoints"]
    };
    let binary = build(flags)?;
    become_program(&binary, &with("chaos", args))
}

/// Builds the binary and the rig, and lets the rig run nodes and workers of that binary over private servers.
pub fn cluster_chaos(release: bool, args: &[String]) -> Result<bool> {
    let flags: &[&str] = if release { &["--release"] } else { &[] };
    let segue = build(flags)?;
    let rig = build_as(&["--package", "segue-testkit", "--bin", "segue-rig"])?;
    let mut words = vec!["--binary".to_owned(), segue.display().to_string()];
    words.extend_from_slice(args);
    become_program(&rig, &words)
}

/// Builds the simulation of the dispatch, optimised, and becomes it.
pub fn simulate(args: &[String]) -> Result<bool> {
    let binary = build_as(&["--package", "segue-engine", "--example", "simulate", "--release"])?;
    become_program(&binary, args)
}

fn with(command: &str, args: &[String]) -> Vec<String> {
    let mut words = vec![command.to_owned()];
    words.extend_from_slice(args);
    words
}

/// Builds `segue` and asks cargo where it put it, which a target folder or a target triple in the
/// user's settings can change.
fn build(flags: &[&str]) -> Result<PathBuf> {
    build_as(&[&["--package", "segue", "--bin", "segue"], flags].concat())
}

/// Builds one program, whatever its crate calls it.
fn build_as(flags: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(["build", "--locked"])?;
    command.args(["--message-format", "json-render-diagnostics"]).args(flags);
    let messages = captured(&mut command)?;
    let path = messages.lines().rev().find_map(executable);
    path.map(PathBuf::from)
        .with_context(|| format!("cargo built no executable of {}", flags.join(" ")))
}

/// The value of `executable` in one of cargo's JSON messages, `None` where it has none.
fn executable(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("\"executable\":\"")?;
    let mut path = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(path),
            '\\' => path.push(chars.next()?),
            c => path.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_out_of_cargos_messages() {
        let library = r#"{"reason":"compiler-artifact","executable":null,"fresh":true}"#;
        let binary = r#"{"reason":"compiler-artifact","executable":"/a \"b\"/segue","fresh":true}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable(binary).as_deref(), Some("/a \"b\"/segue"));
        assert_eq!(executable(r#"{"executable":"/cut"#), None);
    }
}
