//! Colours, or none.

use crate::args::When;
use segue_core::task::TaskState;
use std::ffi::OsStr;

/// Paints text for one of the outputs, or leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Paints if `on`.
    pub fn new(on: bool) -> Paint {
        Paint { on }
    }

    /// What the command line, the environment and the kind of output come to. `NO_COLOR` (<https://no-color.org>) and a
    /// dumb terminal turn colours off, unless the command line says `always`.
    pub fn decide(when: When, is_terminal: bool) -> Paint {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == OsStr::new("dumb"));
        Paint::new(match when {
            When::Always => true,
            When::Never => false,
            When::Auto => is_terminal && !set("NO_COLOR") && !dumb,
        })
    }

    /// Whether it paints.
    pub fn is_on(self) -> bool {
        self.on
    }

    fn with(self, code: &str, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if self.on && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// For headings and names.
    pub fn bold(self, text: impl AsRef<str>) -> String {
        self.with("1", text)
    }

    /// For what matters less.
    pub fn dim(self, text: impl AsRef<str>) -> String {
        self.with("2", text)
    }

    /// For what went wrong.
    pub fn red(self, text: impl AsRef<str>) -> String {
        self.with("31", text)
    }

    /// For the word `error`.
    pub fn error(self, text: impl AsRef<str>) -> String {
        self.with("1;31", text)
    }

    /// For what went well.
    pub fn green(self, text: impl AsRef<str>) -> String {
        self.with("32", text)
    }

    /// For what may go wrong.
    pub fn yellow(self, text: impl AsRef<str>) -> String {
        self.with("33", text)
    }

    /// For what is going on.
    pub fn cyan(self, text: impl AsRef<str>) -> String {
        self.with("36", text)
    }

    /// The colour of a state.
    pub fn state(self, state: TaskState, text: impl AsRef<str>) -> String {
        match state {
            TaskState::Completed => self.green(text),
            TaskState::Failed => self.red(text),
            TaskState::Retrying => self.yellow(text),
            TaskState::Running | TaskState::Assigned => self.cyan(text),
            TaskState::Blocked | TaskState::Cancelled => self.dim(text),
            TaskState::Ready | TaskState::Waiting => text.as_ref().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_painted_unless_asked_for() {
        assert_eq!(Paint::new(false).red("x"), "x");
        assert_eq!(Paint::new(true).red("x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Paint::new(true).red(""), "");
        assert!(Paint::decide(When::Always, false).is_on());
        assert!(!Paint::decide(When::Never, true).is_on());
        assert!(!Paint::decide(When::Auto, false).is_on());
    }
}
