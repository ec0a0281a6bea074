//! Running other programs: with inherited streams, captured, watched line by line, or in our place.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};

/// The workspace's root folder: the parent of this crate's folder at run time, so that a moved or
/// copied clone works without a rebuild.
pub fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    if let Some(root) = here.as_deref().and_then(Path::parent) {
        return Ok(root.to_owned());
    }
    let here = std::env::current_dir().context("the current folder cannot be read")?;
    let root =
        here.ancestors().find(|dir| dir.join("Cargo.lock").is_file() && dir.join("xtask").is_dir());
    match root {
        Some(root) => Ok(root.to_owned()),
        None => bail!("{} is not inside the workspace; run `cargo xtask` there", here.display()),
    }
}

/// A `cargo` command in the workspace's root. What `cargo run` told *this* process about the
/// package xtask is taken out again, because it would mislead build scripts and tests.
pub fn cargo<const N: usize>(args: [&str; N]) -> Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(args).current_dir(root()?);
    scrub(&mut command);
    Ok(command)
}

fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let told_by_cargo = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"]
                    .contains(&name)
        });
        if told_by_cargo {
            command.env_remove(name);
        }
    }
}

/// Whether `cargo NAME` is installed, e.g. `nextest`, `deny`, `llvm-cov`.
pub fn has_cargo_command(name: &str) -> Result<bool> {
    let status = cargo([name, "--version"])?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cargo could not be started")?;
    Ok(status.success())
}

/// Runs with this process's streams; true when it exits with 0.
pub fn passes(command: &mut Command) -> Result<bool> {
    echo(command);
    let status =
        command.status().with_context(|| format!("{} could not be started", words(command)))?;
    Ok(status.success())
}

/// Runs and gives back what it wrote on its standard output; an error when it exits with anything but 0.
pub fn captured(command: &mut Command) -> Result<String> {
    echo(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} could not be started", words(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", words(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs, copies both streams through as they come, and hands each finished line to `look`, without
/// colours. True when it exits with 0.
pub fn watched(command: &mut Command, mut look: impl FnMut(&str)) -> Result<bool> {
    echo(command);
    let colour_is_set =
        ["CARGO_TERM_COLOR", "NO_COLOR"].iter().any(|name| std::env::var_os(name).is_some());
    if !colour_is_set && std::io::stderr().is_terminal() {
        // The program sees a pipe instead of the terminal behind it.
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", words(command)))?;
    let (lines, seen) = mpsc::channel();
    let streams = [
        child.stdout.take().map(|out| copy(out, std::io::stdout(), lines.clone())),
        child.stderr.take().map(|err| copy(err, std::io::stderr(), lines)),
    ];
    for line in seen {
        look(&without_colours(&line));
    }
    for stream in streams.into_iter().flatten() {
        if stream.join().is_err() {
            bail!("reading the output of {} failed", words(command));
        }
    }
    let status =
        child.wait().with_context(|| format!("{} could not be waited for", words(command)))?;
    Ok(status.success())
}

fn copy(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    lines: mpsc::Sender<String>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // A line is copied whole, so that the two streams never mix within one.
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // A closed terminal must not stop the program whose output this is.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

/// Becomes the program: signals, streams and the exit code are then its own. Returns only on failure.
pub fn become_program(program: &Path, args: &[String]) -> Result<bool> {
    let mut command = Command::new(program);
    command.args(args);
    scrub(&mut command);
    echo(&command);
    let error = command.exec();
    Err(error).with_context(|| format!("{} could not be started", program.display()))
}

/// Takes terminal colour sequences (`ESC [ .. letter`) out of a line.
pub fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
        } else if chars.next() == Some('[') {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    plain
}

fn echo(command: &Command) {
    eprintln!("$ {}", words(command));
}

/// The command as a person would type it; the program by its name only.
fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let mut line = name.into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_program_shows_every_line_of_both_streams_and_its_end() {
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo out; echo err >&2; printf 'no newline'; exit 3"]);
        assert!(!watched(&mut shell, |line| lines.push(line.to_owned())).unwrap());
        lines.sort();
        assert_eq!(lines, ["err", "no newline", "out"]);
    }

    #[test]
    fn captured_output_of_a_failing_program_is_an_error_that_names_it() {
        assert_eq!(captured(Command::new("echo").arg("x")).unwrap(), "x\n");
        let error = captured(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.starts_with("false ended with"), "{error}");
    }

    #[test]
    fn colours_are_taken_out_of_a_line() {
        assert_eq!(without_colours("\u{1b}[32;1m  Summary\u{1b}[0m [0.1s]"), "  Summary [0.1s]");
        assert_eq!(without_colours("plain"), "plain");
        assert_eq!(without_colours("cut \u{1b}"), "cut ");
    }
}
