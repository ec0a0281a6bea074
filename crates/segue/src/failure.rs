//! How a command fails: what is wrong, what to do, and the exit code that says which kind it is.

use std::fmt;
use std::process::ExitCode;

/// How the process ends. The numbers are part of the command line's promise, see `docs/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It worked; of a run: it completed.
    Done = 0,
    /// It was refused, or the run failed.
    Failed = 1,
    /// The command line, a file or an id is wrong.
    Usage = 2,
    /// The run was cancelled by somebody else.
    Cancelled = 3,
    /// The node or its store cannot work.
    Node = 4,
    /// Ended by Ctrl-C.
    Interrupted = 130,
    /// Whoever read the output has gone.
    Pipe = 141,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong and where; empty where everything has been said already.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The message is a finished report of several lines, shown as it is.
    pub rendered: bool,
}

/// What a command comes to.
pub type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None, rendered: false }
    }

    /// The command line, a file or an id is wrong.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// The node or its store cannot work.
    pub fn node(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Node, message)
    }

    /// A report that is shown as it is.
    pub fn report(exit: Exit, report: impl Into<String>) -> Failure {
        Failure { rendered: true, ..Failure::new(exit, report) }
    }

    /// Everything has been said; only the exit code is left.
    pub fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Gives an error of the machinery its exit code.
pub trait Code<T> {
    /// The exit code, should this be an error.
    fn code(self, exit: Exit) -> Outcome<T>;
}

impl<T> Code<T> for anyhow::Result<T> {
    fn code(self, exit: Exit) -> Outcome<T> {
        self.map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Failure::new(exit, format!("{error:#}")),
        })
    }
}

impl<T> Code<T> for std::io::Result<T> {
    fn code(self, exit: Exit) -> Outcome<T> {
        self.map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::silent(Exit::Pipe),
            _ => Failure::new(exit, error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_of_the_machinery_keeps_its_whole_story_and_a_failure_its_code() {
        let io = std::io::Error::other("no room");
        let told: anyhow::Result<()> = Err(io).context("cannot write x");
        let failure = told.code(Exit::Node).unwrap_err();
        assert_eq!(
            (failure.exit, failure.to_string().as_str()),
            (Exit::Node, "cannot write x: no room")
        );
        let own: anyhow::Result<()> = Err(Failure::usage("wrong").hint("right").into());
        assert_eq!(own.code(Exit::Node).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_to_talk_about() {
        let gone: std::io::Result<()> = Err(std::io::ErrorKind::BrokenPipe.into());
        let failure = gone.code(Exit::Failed).unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Pipe, ""));
    }
}
