use serde::Serialize;

use super::objects::{self, Search};
use super::usage::Usage;
use super::{Preset, claude, codex, gemini, opencode};

/// One small fact about a run that is under way, for live display and as evidence of life.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Progress {
    /// The CLI opened its session.
    SessionStarted {
        /// The id with which it can be resumed.
        session_id: String,
        /// The model, if the CLI tells.
        model: Option<String>,
    },
    /// The agent began to use a tool.
    ToolStarted {
        /// The tool, as the CLI names it.
        name: String,
        /// The id that [`Progress::ToolFinished`] repeats.
        call_id: Option<String>,
    },
    /// A tool came back.
    ToolFinished {
        /// The tool, if it is known which one it was.
        name: Option<String>,
        /// The id that [`Progress::ToolStarted`] had.
        call_id: Option<String>,
        /// Whether it did what it was asked to.
        ok: bool,
    },
    /// The agent wrote this many more bytes of text.
    Text {
        /// Bytes of UTF-8, never 0.
        bytes: usize,
    },
    /// The agent thought this many more bytes.
    Thinking {
        /// Bytes of UTF-8, never 0.
        bytes: usize,
    },
    /// The CLI has trouble with its provider and tries again by itself.
    ApiRetry {
        /// Which retry this is, from 1.
        attempt: Option<u64>,
        /// After how many it gives up.
        attempts_max: Option<u64>,
        /// The HTTP status that it got.
        status: Option<u16>,
        /// How long it waits first, in milliseconds.
        delay_ms: Option<u64>,
    },
    /// What the provider says about the account's usage window.
    RateLimit {
        /// Whether requests still go through.
        allowed: bool,
        /// Which window, in the provider's word.
        window: Option<String>,
        /// When the window opens anew, in seconds since 1970.
        resets_at_unix_s: Option<u64>,
    },
    /// What the run has used so far (see [`Usage::complete`]).
    Used {
        /// The sum until now, not the increase.
        usage: Box<Usage>,
    },
}

/// Watches the output of a running agent CLI line by line.
///
/// It keeps only what it needs to connect lines with each other, and it never fails: what it does
/// not know, it ignores. The outcome of a run is not its business, [`parse`](super::parse) tells that
/// from the whole output.
#[derive(Debug)]
pub struct LineWatcher {
    vendor: Vendor,
}

#[derive(Debug)]
enum Vendor {
    Claude(Box<claude::Watch>),
    Codex(codex::Watch),
    Gemini(gemini::Watch),
    Opencode(opencode::Watch),
}

impl LineWatcher {
    /// A watcher for one run of `preset`.
    pub fn new(preset: Preset) -> Self {
        let vendor = match preset {
            Preset::Claude => Vendor::Claude(Box::default()),
            Preset::Codex => Vendor::Codex(codex::Watch::default()),
            Preset::Gemini => Vendor::Gemini(gemini::Watch::default()),
            Preset::Opencode => Vendor::Opencode(opencode::Watch::default()),
        };
        LineWatcher { vendor }
    }

    /// Reads the next line of standard output, with or without its line end. Mostly there is nothing
    /// or one thing to tell.
    pub fn line(&mut self, line: &[u8]) -> Vec<Progress> {
        let mut told = Vec::new();
        objects::each_object(line, Search::LineStart, |object| match &mut self.vendor {
            Vendor::Claude(watch) => watch.object(object, &mut told),
            Vendor::Codex(watch) => watch.object(object, &mut told),
            Vendor::Gemini(watch) => watch.object(object, &mut told),
            Vendor::Opencode(watch) => watch.object(object, &mut told),
        });
        told
    }
}

/// The tools in flight, by call id, so that a result can be told with its tool's name.
#[derive(Debug, Default)]
pub(super) struct ToolsInFlight {
    by_id: Vec<(String, String)>,
}

/// More tools at once than any agent runs; beyond it the oldest is forgotten.
const TOOLS_IN_FLIGHT_MAX: usize = 256;

impl ToolsInFlight {
    /// Notes a start; false if this call was already running.
    pub(super) fn start(&mut self, call_id: &str, name: &str) -> bool {
        if self.by_id.iter().any(|(id, _)| id == call_id) {
            return false;
        }
        if self.by_id.len() == TOOLS_IN_FLIGHT_MAX {
            self.by_id.remove(0);
        }
        self.by_id.push((call_id.to_owned(), name.to_owned()));
        true
    }

    /// Notes the end; the tool's name if its start was seen.
    pub(super) fn finish(&mut self, call_id: &str) -> Option<String> {
        let index = self.by_id.iter().position(|(id, _)| id == call_id)?;
        Some(self.by_id.remove(index).1)
    }
}

/// Tells of text that grew, if it did.
pub(super) fn tell_text(told: &mut Vec<Progress>, text: Option<String>) {
    let bytes = text.map_or(0, |text| text.len());
    if bytes > 0 {
        told.push(Progress::Text { bytes });
    }
}

/// Tells of thoughts that grew, if they did.
pub(super) fn tell_thinking(told: &mut Vec<Progress>, text: Option<String>) {
    let bytes = text.map_or(0, |text| text.len());
    if bytes > 0 {
        told.push(Progress::Thinking { bytes });
    }
}

/// Tells of a sum of usage.
pub(super) fn tell_usage(told: &mut Vec<Progress>, usage: &Usage) {
    told.push(Progress::Used { usage: Box::new(usage.clone()) });
}
