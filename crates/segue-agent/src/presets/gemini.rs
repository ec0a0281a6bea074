//! Gemini CLI, headless: `gemini --output-format=stream-json`, prompt on standard input.
//!
//! Facts observed on 0.61.0; what is read is documented in `docs/agents-cli.md`.

use serde_json::value::RawValue;

use super::classify;
use super::command::{Builder, CommandLineError, PermissionMode};
use super::json::{self, Field};
use super::objects;
use super::output::{FailureClass, Output};
use super::reading::{Reading, Trouble, http_status, last_words, success};
use super::usage::{ModelUsage, Usage};
use super::watch::{Progress, ToolsInFlight, tell_text, tell_usage};

/// Gemini CLI cuts standard input after this many UTF-16 units, with no more than a warning.
pub(super) const STDIN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Flags that decide what is read back, hence are not for extra arguments.
pub(super) const RESERVED: &[&str] = &[
    "-p",
    "--prompt",
    "-i",
    "--prompt-interactive",
    "-o",
    "--output-format",
    "--acp",
    "--experimental-acp",
];

/// How much of standard error is searched for the error object, which is its last part.
const STDERR_BYTES_MAX: usize = 1 << 20;

/// Builds the arguments. Gemini CLI is headless whenever standard input is no terminal; `-p` would
/// only add a second place for the prompt, one with a limit of 128 KiB.
pub(super) fn command(builder: &mut Builder<'_>) -> Result<(), CommandLineError> {
    let asked = builder.asked;
    builder.claude_only()?;
    if asked.agent_name.is_some() {
        builder.cannot("an agent name");
    }
    if asked.bare {
        builder.cannot("leaving its configuration aside");
    }
    builder.flag("--output-format=stream-json");
    builder.set_if("--model", asked.model.filter(|model| *model != "inherit"))?;
    builder.set_if("--approval-mode", asked.permission_mode.map(mode))?;
    if asked.trust_workspace {
        builder.flag("--skip-trust");
    }
    builder.set_if("--resume", asked.resume_session)?;
    builder.instruct_schema();
    if let Some(text) = asked.system_prompt {
        builder.instruct(text);
    }
    builder.extra_args()
}

fn mode(mode: PermissionMode) -> &'static str {
    match mode {
        PermissionMode::Default | PermissionMode::DontAsk => "default",
        PermissionMode::AcceptEdits | PermissionMode::Auto => "auto_edit",
        PermissionMode::Plan => "plan",
        PermissionMode::Bypass => "yolo",
    }
}

/// Reads the `stream-json` and the `json` format, and the error object on standard error.
pub(super) fn read(output: &Output<'_>) -> Reading {
    let mut reader = Reader::default();
    reader.reading.seen = objects::scan(output.stdout, |object| reader.object(object));
    let told = match &reader.reading.verdict {
        Some(Ok(_)) => true,
        Some(Err(trouble)) => trouble.class.is_some(),
        None => false,
    };
    if !told {
        let tail = &output.stderr[output.stderr.len().saturating_sub(STDERR_BYTES_MAX)..];
        objects::scan(tail, |object| reader.stderr_object(object));
    }
    reader.finish(output)
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    /// The assistant's text since the last tool.
    text: String,
    /// The text before it, for a run whose last word was a tool.
    text_before: String,
    last_error: Option<String>,
    on_stderr: Option<Trouble>,
}

impl Reader {
    /// Reads one event, or the one object of the `json` format; whether it is one of Gemini's.
    fn object(&mut self, object: &str) -> bool {
        let keys = ["type", "session_id", "role", "content", "message", "response", "error"];
        let Some([kind, session, role, content, message, response, error]) =
            json::pick(object, keys)
        else {
            return false;
        };
        match json::text(kind).as_deref() {
            Some("init") => {}
            Some("message") => {
                if json::is(role, "assistant") {
                    self.text.push_str(&json::text(content).unwrap_or_default());
                }
            }
            Some("tool_use" | "tool_result") => {
                if !self.text.trim().is_empty() {
                    self.text_before = std::mem::take(&mut self.text);
                }
                self.text.clear();
                self.denied(object);
            }
            Some("error") => {
                self.last_error = json::text(message);
                let said = self.last_error.clone().unwrap_or_default();
                self.reading.note(format!("gemini reported: {said}"));
            }
            Some("result") => self.result(object),
            None if response.is_some() || (error.is_some() && session.is_some()) => {
                self.whole(object, response, error);
            }
            _ => return false,
        }
        self.reading.session(session);
        true
    }

    fn denied(&mut self, object: &str) {
        let [id, name, error] = json::fields(object, ["tool_id", "tool_name", "error"]);
        let [kind, message] = json::pick_in(error, ["type", "message"]);
        if json::is(kind, "policy_violation") {
            let tool = json::text(name).unwrap_or_else(|| "unknown".to_owned());
            let message = json::text(message);
            self.reading.deny(tool, json::text(id), message.as_deref());
        }
    }

    fn result(&mut self, object: &str) {
        let [status, error, stats] = json::fields(object, ["status", "error", "stats"]);
        self.reading.usage = of_stream(stats);
        self.reading.verdict = Some(if json::is(status, "success") {
            let text = match std::mem::take(&mut self.text) {
                text if text.trim().is_empty() => std::mem::take(&mut self.text_before),
                text => text,
            };
            Ok(success(text, None))
        } else {
            Err(match error {
                Some(_) => of_error(error),
                None => of_stream_error(self.last_error.take()),
            })
        });
    }

    /// The one object of `--output-format json`. An answer can come with an error.
    fn whole(&mut self, object: &str, response: Field<'_>, error: Field<'_>) {
        let [stats] = json::fields(object, ["stats"]);
        let [models, tools] = json::pick_in(stats, ["models", "tools"]);
        (self.reading.usage, self.reading.turns) = of_models(models);
        let [by_name] = json::pick_in(tools, ["byName"]);
        json::each_entry(by_name, |name, tool| {
            let [decisions] = json::pick_in(Some(tool), ["decisions"]);
            let [rejected] = json::pick_in(decisions, ["reject"]);
            for _ in 0..json::count(rejected).unwrap_or(0).min(64) {
                self.reading.deny(name.clone(), None, None);
            }
        });
        self.reading.verdict = Some(match error {
            Some(_) => Err(of_error(error)),
            None => Ok(success(json::text(response).unwrap_or_default(), None)),
        });
    }

    /// Reads an object of standard error; whether it is the error of a failed run.
    fn stderr_object(&mut self, object: &str) -> bool {
        let [session, error] = json::fields(object, ["session_id", "error"]);
        let [message] = json::pick_in(error, ["message"]);
        if message.is_none() {
            return false;
        }
        self.reading.session(session);
        self.on_stderr = Some(of_error(error));
        true
    }

    fn finish(mut self, output: &Output<'_>) -> Reading {
        let code = output.exit.code.unwrap_or(0);
        let told_by_code = of_exit_code(code);
        if let Some(mut trouble) = self.on_stderr.take() {
            // The error object may hold no more than an exit code; the exit code may hold the status.
            if let Some(by_code) = &told_by_code {
                trouble.status = trouble.status.or(by_code.status);
                trouble.class = trouble.class.or(by_code.class);
            }
            self.reading.verdict = Some(Err(trouble));
        }
        if self.reading.verdict.is_none()
            && let Some(mut trouble) = told_by_code
        {
            trouble.message = format!("{}: {}", trouble.message, last_words(output.stderr));
            self.reading.hint = Some(trouble);
        } else if self.reading.verdict.is_none()
            && let Some(message) = self.last_error.take()
        {
            self.reading.hint = Some(of_stream_error(Some(message)));
        }
        self.reading
    }
}

/// An `error` object: `{type, message, code}`, where the code is an HTTP status, one of Gemini's exit
/// codes or a word, and the message may be the provider's whole JSON answer.
fn of_error(error: Field<'_>) -> Trouble {
    let [kind, message, code] = json::pick_in(error, ["type", "message", "code"]);
    let message = json::text(message).unwrap_or_default();
    if json::is(kind, "INVALID_STREAM") {
        return Trouble::of(FailureClass::Transient, message);
    }
    let mut trouble = Trouble::of_message(message);
    let by_code =
        json::count(code).and_then(|code| i32::try_from(code).ok()).and_then(of_exit_code);
    trouble.status = http_status(code).or(trouble.status);
    trouble.class = http_status(code)
        .map(classify::of_status)
        .or(by_code.and_then(|by_code| by_code.class))
        .or(trouble.class);
    trouble
}

/// An error event with no code. Turn limits are the one lasting kind; the others are answers that
/// came out empty or broken.
fn of_stream_error(message: Option<String>) -> Trouble {
    let message = message.unwrap_or_else(|| "gemini failed and gave no reason".to_owned());
    if message.to_ascii_lowercase().contains("maximum session turns") {
        return Trouble::of(FailureClass::Permanent, message);
    }
    Trouble::of_message(message)
}

/// The statuses that are looked for in an exit code; no two of them are equal modulo 256, nor equal to
/// a code of Gemini CLI's own.
const HTTP_FAILURES: [std::ops::RangeInclusive<u16>; 4] =
    [400..=431, 499..=499, 500..=511, 529..=529];

/// What an exit code of Gemini CLI says: its own codes, or the HTTP status modulo 256.
fn of_exit_code(code: i32) -> Option<Trouble> {
    use FailureClass::{Permanent, Transient};
    let (class, what) = match code {
        41 => (Permanent, "gemini could not authenticate (exit code 41)"),
        42 => (Permanent, "gemini refused its input (exit code 42)"),
        44 => (Permanent, "gemini could not set up its sandbox (exit code 44)"),
        52 => (Permanent, "gemini's configuration is wrong (exit code 52)"),
        53 => (Permanent, "gemini reached its turn limit (exit code 53)"),
        54 => (Transient, "a tool of gemini failed fatally (exit code 54)"),
        55 => (
            Permanent,
            "the working folder is not trusted by gemini (exit code 55); trust it, or let Segue \
             pass --skip-trust",
        ),
        _ => {
            let status = HTTP_FAILURES
                .into_iter()
                .flatten()
                .find(|status| i32::from(status % 256) == code)?;
            return Some(Trouble {
                class: Some(classify::of_status(status)),
                status: Some(status),
                message: format!("the model API answered {status} (exit code {code})"),
            });
        }
    };
    Some(Trouble::of(class, what))
}

/// The statistics of the `json` format: prompt tokens include cached ones, candidates leave out
/// thoughts, and what tools brought into the prompt is counted apart. Also the number of requests of
/// the main loop, which are its turns.
fn of_models(models: Field<'_>) -> (Usage, Option<u32>) {
    let mut usage = Usage { complete: models.is_some(), ..Usage::default() };
    let mut turns: Option<u64> = None;
    json::each_entry(models, |model, stats| {
        let [tokens, roles] = json::pick_in(Some(stats), ["tokens", "roles"]);
        let [prompt, candidates, cached, thoughts, tool] =
            json::pick_in(tokens, ["prompt", "candidates", "cached", "thoughts", "tool"]);
        let count = |field| json::count(field).unwrap_or(0);
        let share = ModelUsage {
            input_tokens: count(prompt).saturating_add(count(tool)),
            cached_input_tokens: count(cached),
            output_tokens: count(candidates).saturating_add(count(thoughts)),
            reasoning_tokens: count(thoughts),
            ..ModelUsage::default()
        };
        usage.add(Some(model), share);
        let [main] = json::pick_in(roles, ["main"]);
        let [requests] = json::pick_in(main, ["totalRequests"]);
        if let Some(requests) = json::count(requests) {
            turns = Some(turns.unwrap_or(0).saturating_add(requests));
        }
    });
    (usage, turns.and_then(|turns| u32::try_from(turns).ok()))
}

/// The statistics of the `stream-json` format. Thoughts are only in the total, so what the total has
/// more than input and output is counted as reasoning.
fn of_stream(stats: Field<'_>) -> Usage {
    let mut usage = Usage { complete: stats.is_some(), ..Usage::default() };
    let [models] = json::pick_in(stats, ["models"]);
    json::each_entry(models, |model, stats: &RawValue| {
        usage.add(Some(model), of_stream_sums(Some(stats)));
    });
    if usage.by_model.is_empty() {
        usage.add(None, of_stream_sums(stats));
    }
    usage
}

fn of_stream_sums(stats: Field<'_>) -> ModelUsage {
    let [total, input, output, cached] =
        json::pick_in(stats, ["total_tokens", "input_tokens", "output_tokens", "cached"]);
    let count = |field| json::count(field).unwrap_or(0);
    let thoughts = count(total).saturating_sub(count(input)).saturating_sub(count(output));
    ModelUsage {
        input_tokens: count(input),
        cached_input_tokens: count(cached),
        output_tokens: count(output).saturating_add(thoughts),
        reasoning_tokens: thoughts,
        ..ModelUsage::default()
    }
}

/// Watches the stream of one run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    tools: ToolsInFlight,
}

impl Watch {
    pub(super) fn object(&mut self, object: &str, told: &mut Vec<Progress>) {
        let keys = ["type", "session_id", "model", "role", "content", "stats"];
        let [kind, session, model, role, content, stats] = json::fields(object, keys);
        match json::text(kind).unwrap_or_default().as_str() {
            "init" => {
                if let Some(session_id) = json::text(session) {
                    told.push(Progress::SessionStarted { session_id, model: json::text(model) });
                }
            }
            "message" if json::is(role, "assistant") => tell_text(told, json::text(content)),
            "tool_use" => {
                let [name, id] = json::fields(object, ["tool_name", "tool_id"]);
                let name = json::text(name).unwrap_or_else(|| "unknown".to_owned());
                let call_id = json::text(id);
                if let Some(id) = &call_id {
                    self.tools.start(id, &name);
                }
                told.push(Progress::ToolStarted { name, call_id });
            }
            "tool_result" => {
                let [id, status] = json::fields(object, ["tool_id", "status"]);
                let call_id = json::text(id);
                told.push(Progress::ToolFinished {
                    name: call_id.as_deref().and_then(|id| self.tools.finish(id)),
                    call_id,
                    ok: !json::is(status, "error"),
                });
            }
            "result" if stats.is_some() => tell_usage(told, &of_stream(stats)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_mean_one_thing_each() {
        let statuses: Vec<u16> = HTTP_FAILURES.into_iter().flatten().collect();
        for code in 0..256 {
            let meant = statuses.iter().filter(|s| i32::from(*s % 256) == code).count();
            let told = of_exit_code(code);
            assert!(meant <= 1, "{code}");
            if let Some(status) = told.as_ref().and_then(|trouble| trouble.status) {
                assert_eq!(i32::from(status % 256), code);
            } else {
                assert_eq!(meant, 0, "{code}");
            }
        }
        assert!(of_exit_code(0).is_none() && of_exit_code(1).is_none());
    }
}
