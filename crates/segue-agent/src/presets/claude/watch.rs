//! The progress of a run of `claude -p`.

use super::account::Account;
use super::lines::{ApiRetry, RateLimit, ResultLine};
use crate::presets::json::{self, Field};
use crate::presets::watch::{Progress, ToolsInFlight, tell_text, tell_thinking, tell_usage};

/// Watches the stream of one run.
#[derive(Debug, Default)]
pub(in crate::presets) struct Watch {
    account: Account,
    tools: ToolsInFlight,
    /// The current message's text was already told piece by piece.
    streamed: bool,
}

impl Watch {
    pub(in crate::presets) fn object(&mut self, object: &str, told: &mut Vec<Progress>) {
        let keys = ["type", "subtype", "message", "event", "rate_limit_info"];
        let Some([kind, subtype, message, event, limits]) = json::pick(object, keys) else {
            return;
        };
        match json::text(kind).unwrap_or_default().as_str() {
            "system" if json::is(subtype, "init") => tell_session(object, told),
            "system" if json::is(subtype, "api_retry") => {
                let retry = ApiRetry::of(object);
                told.push(Progress::ApiRetry {
                    attempt: retry.attempt,
                    attempts_max: retry.attempts_max,
                    status: retry.status,
                    delay_ms: retry.delay_ms,
                });
            }
            "rate_limit_event" => {
                let limit = RateLimit::of(limits);
                told.push(Progress::RateLimit {
                    allowed: limit.allowed,
                    window: limit.window,
                    resets_at_unix_s: limit.resets_at_unix_s,
                });
            }
            "assistant" => self.assistant(message, told),
            "user" => self.tool_results(message, told),
            "stream_event" => self.stream_event(object, event, told),
            "result" => {
                if let Some(end) = ResultLine::of(object) {
                    self.account.result(&end);
                    tell_usage(told, &self.account.usage());
                }
            }
            _ => {}
        }
    }

    fn assistant(&mut self, message: Field<'_>, told: &mut Vec<Progress>) {
        let [content] = json::pick_in(message, ["content"]);
        json::each_element(content, |block| {
            let keys = ["type", "text", "thinking", "name", "id"];
            let [kind, text, thinking, name, id] = json::pick_in(Some(block), keys);
            match json::text(kind).unwrap_or_default().as_str() {
                "text" if !self.streamed => tell_text(told, json::text(text)),
                "thinking" if !self.streamed => tell_thinking(told, json::text(thinking)),
                "tool_use" | "server_tool_use" => self.tool(name, id, told),
                _ => {}
            }
        });
        self.used(told, |account| {
            account.assistant(message);
        });
    }

    fn tool(&mut self, name: Field<'_>, id: Field<'_>, told: &mut Vec<Progress>) {
        let name = json::text(name).unwrap_or_else(|| "unknown".to_owned());
        let call_id = json::text(id);
        if call_id.as_deref().is_none_or(|id| self.tools.start(id, &name)) {
            told.push(Progress::ToolStarted { name, call_id });
        }
    }

    fn tool_results(&mut self, message: Field<'_>, told: &mut Vec<Progress>) {
        let [content] = json::pick_in(message, ["content"]);
        json::each_element(content, |block| {
            let [kind, id, is_error] =
                json::pick_in(Some(block), ["type", "tool_use_id", "is_error"]);
            if json::is(kind, "tool_result") {
                let call_id = json::text(id);
                told.push(Progress::ToolFinished {
                    name: call_id.as_deref().and_then(|id| self.tools.finish(id)),
                    call_id,
                    ok: json::flag(is_error) != Some(true),
                });
            }
        });
    }

    fn stream_event(&mut self, object: &str, event: Field<'_>, told: &mut Vec<Progress>) {
        let [kind, delta, block] = json::pick_in(event, ["type", "delta", "content_block"]);
        match json::text(kind).unwrap_or_default().as_str() {
            "message_start" => self.streamed = false,
            "content_block_start" => {
                let [kind, name, id] = json::pick_in(block, ["type", "name", "id"]);
                if json::is(kind, "tool_use") {
                    self.tool(name, id, told);
                }
            }
            "content_block_delta" => {
                let [text, thinking] = json::pick_in(delta, ["text", "thinking"]);
                self.streamed |= text.is_some() || thinking.is_some();
                tell_text(told, json::text(text));
                tell_thinking(told, json::text(thinking));
            }
            _ => {}
        }
        self.used(told, |account| account.stream_event(object));
    }

    /// Tells the sum if it changed.
    fn used(&mut self, told: &mut Vec<Progress>, count: impl FnOnce(&mut Account)) {
        let sum = |account: &Account| (account.so_far.input_tokens, account.so_far.output_tokens);
        let before = sum(&self.account);
        count(&mut self.account);
        if sum(&self.account) != before {
            tell_usage(told, &self.account.so_far);
        }
    }
}

fn tell_session(object: &str, told: &mut Vec<Progress>) {
    let [session_id, model] = json::fields(object, ["session_id", "model"]);
    if let Some(session_id) = json::text(session_id) {
        told.push(Progress::SessionStarted { session_id, model: json::text(model) });
    }
}
