//! The outcome of a run of `claude -p`.

use serde_json::value::RawValue;

use super::account::Account;
use super::lines::{ApiRetry, RateLimit, ResultLine};
use crate::presets::classify::{self, RetryHint};
use crate::presets::json::{self, Field};
use crate::presets::objects;
use crate::presets::output::{FailureClass, Output};
use crate::presets::reading::{Reading, Trouble, success};

/// Reads the whole output, in the `stream-json` and in the `json` format.
pub(in crate::presets) fn read(output: &Output<'_>) -> Reading {
    let mut reader = Reader::default();
    let seen = objects::scan(output.stdout, |object| reader.object(object));
    let Reader { mut reading, account } = reader;
    reading.seen = seen;
    reading.usage = account.usage();
    let complaint = String::from_utf8_lossy(output.stderr);
    if complaint.contains("Continuing with the default tools and system prompt") {
        reading.note(
            "The resumed session's agent was not found: claude went on with its default tools and \
             prompt. Pass the agent again with the session.",
        );
    }
    reading
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    account: Account,
}

impl Reader {
    /// Reads one line; whether it is one of Claude Code's.
    fn object(&mut self, object: &str) -> bool {
        let keys = ["type", "subtype", "session_id", "message", "rate_limit_info"];
        let Some([kind, subtype, session, message, limits]) = json::pick(object, keys) else {
            return false;
        };
        let Some(kind) = json::text(kind) else {
            return false;
        };
        match kind.as_str() {
            "result" => self.result(object),
            "system" if json::is(subtype, "api_retry") => self.api_retry(object),
            "system" | "user" => {}
            "assistant" => {
                if self.account.assistant(message) {
                    // It is talking to the model again: what went wrong before is over.
                    self.reading.hint = None;
                    self.reading.retry = RetryHint::default();
                }
            }
            "stream_event" => self.account.stream_event(object),
            "rate_limit_event" => self.rate_limit(limits),
            _ => return false,
        }
        self.reading.session(session);
        true
    }

    fn api_retry(&mut self, object: &str) {
        let retry = ApiRetry::of(object);
        let status = retry.status.map_or("no status".to_owned(), |s| s.to_string());
        self.reading.hint = Some(Trouble {
            class: retry.status.map(classify::of_status),
            status: retry.status,
            message: format!(
                "claude was retrying a request to the model: {status}, {}",
                retry.error.as_deref().unwrap_or("unknown error")
            ),
        });
        // The delay is never shorter than the provider's own `retry-after`.
        if matches!(retry.status, Some(429 | 503 | 529)) {
            self.reading.retry.after_ms = retry.delay_ms;
        }
    }

    fn rate_limit(&mut self, limits: Field<'_>) {
        let limit = RateLimit::of(limits);
        if limit.allowed {
            return;
        }
        let window = limit.window.as_deref().unwrap_or("usage").replace('_', "-");
        self.reading.retry.at_unix_s = limit.resets_at_unix_s;
        self.reading.hint = Some(Trouble::of(
            FailureClass::RateLimited,
            format!("the account's {window} window is used up"),
        ));
    }

    fn result(&mut self, object: &str) {
        let Some(end) = ResultLine::of(object) else {
            return;
        };
        self.account.result(&end);
        self.reading.turns = json::count(end.turns).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        self.reading.denials.clear();
        json::each_element(end.denials, |denial| {
            let [tool, id, input] =
                json::pick_in(Some(denial), ["tool_name", "tool_use_id", "tool_input"]);
            let tool = json::text(tool).unwrap_or_else(|| "unknown".to_owned());
            self.reading.deny(tool, json::text(id), input.map(RawValue::get));
        });
        let reason = json::text(end.terminal_reason).unwrap_or_default();
        if end.failed() {
            self.reading.verdict = Some(Err(end.trouble(&reason)));
            return;
        }
        if !matches!(reason.as_str(), "" | "completed") {
            self.reading.note(format!("claude ended with `{reason}`."));
        }
        if json::is(end.stop_reason, "max_tokens") {
            self.reading.note("The answer was cut off by the model's output limit.");
        }
        let structured = json::value(end.structured);
        if end.structured.is_some() && structured.is_none() {
            self.reading.note("The structured output is nested too deeply and was left out.");
        }
        let text = json::text(end.result)
            .or_else(|| structured.as_ref().map(|value| value.to_string()))
            .unwrap_or_default();
        self.reading.verdict = Some(Ok(success(text, structured)));
    }
}
