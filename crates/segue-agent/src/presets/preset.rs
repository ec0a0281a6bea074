use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A coding agent CLI that Segue knows how to drive without a person.
///
/// Written and read as its lower-case name (`claude`, `codex`, `gemini`, `opencode`), the same word
/// that an agent's `kind` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Claude Code, run as `claude -p`.
    Claude,
    /// OpenAI Codex, run as `codex exec`.
    Codex,
    /// Gemini CLI, run headless.
    Gemini,
    /// opencode, run as `opencode run`.
    Opencode,
}

impl Preset {
    /// Every preset, in the order in which they are listed to people.
    pub const ALL: [Preset; 4] = [Preset::Claude, Preset::Codex, Preset::Gemini, Preset::Opencode];

    /// The lower-case name, as it stands in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Claude => "claude",
            Preset::Codex => "codex",
            Preset::Gemini => "gemini",
            Preset::Opencode => "opencode",
        }
    }

    /// The program to look up on `PATH` when the configuration names none.
    pub fn default_program(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error of reading a [`Preset`] from a word that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known agent CLI; use one of claude, codex, gemini, opencode")]
pub struct UnknownPreset(String);

impl FromStr for Preset {
    type Err = UnknownPreset;

    /// Reads the lower-case name; upper-case letters and surrounding blanks are forgiven.
    fn from_str(word: &str) -> Result<Self, UnknownPreset> {
        let wanted = word.trim();
        Preset::ALL
            .into_iter()
            .find(|preset| preset.name().eq_ignore_ascii_case(wanted))
            .ok_or_else(|| UnknownPreset(wanted.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse::<Preset>(), Ok(preset));
        }
        assert_eq!(" Claude ".parse::<Preset>(), Ok(Preset::Claude));
    }

    #[test]
    fn an_unknown_word_is_named_and_bounded() {
        let error = "x".repeat(1_000).parse::<Preset>().unwrap_err();
        assert!(error.to_string().len() < 200);
        assert!(error.to_string().contains("opencode"));
    }
}
