//! opencode: `opencode run --format=json`.
//!
//! Facts observed on 1.18.33; what is read is documented in `docs/agents-cli.md`.

use serde_json::value::RawValue;

use super::classify;
use super::command::{Builder, CommandLineError, PermissionMode};
use super::json::{self, Field};
use super::objects;
use super::output::{FailureClass, Output};
use super::reading::{Reading, Trouble, http_status, plain, success};
use super::usage::{ModelUsage, Usage};
use super::watch::{Progress, tell_text, tell_thinking, tell_usage};

/// Flags that decide what is read back, hence are not for extra arguments.
pub(super) const RESERVED: &[&str] = &["--format", "-i", "--interactive", "--mini"];

/// How much of standard error is searched for warnings.
const STDERR_BYTES_MAX: usize = 1 << 20;

/// Builds the arguments. The prompt goes to standard input: as an argument opencode would put quotes
/// around it.
pub(super) fn command(builder: &mut Builder<'_>) -> Result<(), CommandLineError> {
    let asked = builder.asked;
    builder.claude_only()?;
    if asked.bare {
        builder.cannot("leaving its configuration aside");
    }
    builder.flag("run");
    builder.flag("--format=json");
    builder.set_if("--model", asked.model.filter(|model| *model != "inherit"))?;
    match (asked.agent_name, asked.permission_mode) {
        (None, Some(PermissionMode::Plan)) => builder.flag("--agent=plan"),
        (Some(_), Some(PermissionMode::Plan)) => builder.cannot(
            "a read-only mode beside an agent, whose own definition decides what it may do",
        ),
        (_, Some(PermissionMode::Bypass)) => builder.flag("--auto"),
        _ => {}
    }
    builder.set_if("--agent", asked.agent_name)?;
    builder.set_if("--session", asked.resume_session)?;
    if let Some(dir) = asked.working_dir {
        builder.set("--dir", dir)?;
        builder.env("PWD", dir);
    }
    builder.env("OPENCODE_DISABLE_AUTOUPDATE", "1");
    builder.instruct_schema();
    if let Some(text) = asked.system_prompt {
        builder.instruct(text);
    }
    builder.extra_args()
}

/// Reads the event stream.
pub(super) fn read(output: &Output<'_>) -> Reading {
    let mut reader = Reader::default();
    reader.reading.seen = objects::scan(output.stdout, |object| reader.object(object));
    reader.warnings(output.stderr);
    reader.finish(output)
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    account: Account,
    /// The text since the last tool; what came before it were remarks on the way.
    texts: Vec<String>,
    texts_before: Vec<String>,
    /// An error that nothing came after.
    error: Option<Trouble>,
    /// The model ended by itself, not to call a tool.
    stopped: bool,
    /// The `done` event: opencode went idle.
    done: bool,
    rejected: Vec<String>,
    wrong_agent: Option<String>,
}

impl Reader {
    /// Reads one event; whether it is one of opencode's.
    fn object(&mut self, object: &str) -> bool {
        let keys = ["type", "sessionID", "part", "error", "rejected"];
        let Some([kind, session, part, error, rejected]) = json::pick(object, keys) else {
            return false;
        };
        match json::text(kind).unwrap_or_default().as_str() {
            "step_start" => self.stopped = false,
            "text" => {
                let [text] = json::pick_in(part, ["text"]);
                self.texts.extend(json::text(text));
                self.error = None;
            }
            "tool_use" => {
                if !self.texts.is_empty() {
                    self.texts_before = std::mem::take(&mut self.texts);
                }
                self.tool(part);
                self.error = None;
            }
            "step_finish" => self.step_finish(part),
            "error" => self.error(error),
            "done" => {
                self.done = true;
                json::each_element(rejected, |name| {
                    self.rejected.extend(json::text(Some(name)));
                });
            }
            "reasoning" => {}
            _ => return false,
        }
        self.reading.session(session);
        true
    }

    fn tool(&mut self, part: Field<'_>) {
        let [tool, id, state] = json::pick_in(part, ["tool", "callID", "state"]);
        let [status, error, input] = json::pick_in(state, ["status", "error", "input"]);
        if !json::is(status, "error") {
            return;
        }
        let error = json::text(error).unwrap_or_default();
        let denied = [
            "rejected permission",
            "prevents you from using",
            "Rule prevents",
            "Permission denied by",
        ];
        if denied.iter().any(|words| error.contains(words)) {
            let tool = json::text(tool).unwrap_or_else(|| "unknown".to_owned());
            let input = input.map(RawValue::get);
            self.reading.deny(tool, json::text(id), input);
        }
    }

    fn step_finish(&mut self, part: Field<'_>) {
        self.account.step(part);
        let [reason] = json::pick_in(part, ["reason"]);
        let reason = json::text(reason).unwrap_or_default();
        match reason.as_str() {
            "tool-calls" | "unknown" | "" => {}
            "length" => {
                self.stopped = true;
                self.reading.note("The answer was cut off by the model's output limit.");
            }
            other => {
                self.stopped = true;
                if other != "stop" {
                    self.reading.note(format!("The model ended with `{other}`."));
                }
            }
        }
    }

    fn error(&mut self, error: Field<'_>) {
        let [name, data] = json::pick_in(error, ["name", "data"]);
        let [message, status, retryable, headers] =
            json::pick_in(data, ["message", "statusCode", "isRetryable", "responseHeaders"]);
        let name = json::text(name).unwrap_or_else(|| "error".to_owned());
        let message = json::text(message).unwrap_or_default();
        let status = http_status(status);
        let class = match (status, json::flag(retryable), name.as_str()) {
            (Some(429), _, _) => Some(FailureClass::RateLimited),
            (_, Some(true), _) => Some(FailureClass::Transient),
            (_, _, "ProviderAuthError" | "ContextOverflowError" | "MessageOutputLengthError") => {
                Some(FailureClass::Permanent)
            }
            (_, _, "StructuredOutputError") => Some(FailureClass::InvalidOutput),
            (_, _, "MessageAbortedError") => Some(FailureClass::Timeout),
            (Some(status), _, _) if status >= 500 => Some(FailureClass::Transient),
            _ => classify::of_text(&message)
                .map(|sorted| sorted.class)
                .or(status.map(classify::of_status))
                .or(json::flag(retryable).map(|_| FailureClass::Permanent)),
        };
        let [after, after_ms] = json::pick_in(headers, ["retry-after", "retry-after-ms"]);
        let header = |name: &str, field| {
            json::text(field)
                .and_then(|value| classify::retry_hint(&format!("{name}: {value}")).after_ms)
        };
        self.reading.retry.after_ms =
            header("retry-after-ms", after_ms).or_else(|| header("retry-after", after));
        self.error = Some(Trouble {
            class,
            status,
            message: if message.is_empty() { name } else { format!("{name}: {message}") },
        });
    }

    /// Warnings that change what a run means are printed for people only.
    fn warnings(&mut self, stderr: &[u8]) {
        let tail = &stderr[stderr.len().saturating_sub(STDERR_BYTES_MAX)..];
        for line in String::from_utf8_lossy(tail).lines() {
            let line = plain(line);
            if line.contains("Falling back to default agent") {
                self.wrong_agent = Some(line.trim_start_matches(['!', ' ']).trim_end().to_owned());
            } else if let Some(found) = line.find("permission requested: ")
                && line.contains("auto-rejecting")
            {
                self.reading.note(line[found..].trim_end());
            }
        }
    }

    fn finish(mut self, output: &Output<'_>) -> Reading {
        self.reading.usage = self.account.usage(self.stopped || self.done);
        self.reading.turns = Some(self.account.steps).filter(|steps| *steps > 0);
        if self.reading.denials.is_empty() {
            for permission in std::mem::take(&mut self.rejected) {
                self.reading.deny(permission, None, None);
            }
        }
        let clean = output.exit.code == Some(0);
        self.reading.verdict = match (self.wrong_agent, self.error) {
            // It worked, but as somebody else, who may have other rights.
            (Some(warning), _) => Some(Err(Trouble::of(
                FailureClass::Permanent,
                format!("opencode ran another agent than the one asked for: {warning}"),
            ))),
            (None, Some(error)) => Some(Err(error)),
            (None, None) if self.stopped || self.done || (clean && !self.texts.is_empty()) => {
                let texts = match self.texts {
                    texts if texts.is_empty() => self.texts_before,
                    texts => texts,
                };
                if texts.is_empty() && !self.reading.denials.is_empty() {
                    Some(Err(Trouble::of(
                        FailureClass::Permanent,
                        "opencode stopped without an answer when a permission was refused; allow it \
                         in its configuration or choose another permission mode",
                    )))
                } else {
                    Some(Ok(success(texts.join("\n"), None)))
                }
            }
            (None, None) => None,
        };
        self.reading
    }
}

/// Adds up the steps of a run.
#[derive(Debug, Default)]
struct Account {
    sum: Usage,
    steps: u32,
}

impl Account {
    /// Counts a `step_finish`, whose input leaves out what the cache brought and whose output leaves
    /// out reasoning.
    fn step(&mut self, part: Field<'_>) {
        let [tokens, cost] = json::pick_in(part, ["tokens", "cost"]);
        let [input, output, reasoning, cache] =
            json::pick_in(tokens, ["input", "output", "reasoning", "cache"]);
        let [read, written] = json::pick_in(cache, ["read", "write"]);
        let count = |field| json::count(field).unwrap_or(0);
        self.steps = self.steps.saturating_add(1);
        self.sum.add(
            None,
            ModelUsage {
                input_tokens: count(input)
                    .saturating_add(count(read))
                    .saturating_add(count(written)),
                cached_input_tokens: count(read),
                cache_write_tokens: count(written),
                output_tokens: count(output).saturating_add(count(reasoning)),
                reasoning_tokens: count(reasoning),
                cost_usd: json::number(cost),
            },
        );
    }

    /// The sum. opencode writes a price of 0 for models that it knows no price of, so that a price
    /// of nothing for something is taken as unknown.
    fn usage(&self, complete: bool) -> Usage {
        let mut usage = Usage { complete, ..self.sum.clone() };
        if usage.cost_usd == Some(0.0) && usage.input_tokens + usage.output_tokens > 0 {
            usage.cost_usd = None;
        }
        usage
    }
}

/// Watches the stream of one run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    account: Account,
    known_session: bool,
}

impl Watch {
    pub(super) fn object(&mut self, object: &str, told: &mut Vec<Progress>) {
        let [kind, session, part] = json::fields(object, ["type", "sessionID", "part"]);
        if !self.known_session
            && let Some(session_id) = json::text(session)
        {
            self.known_session = true;
            told.push(Progress::SessionStarted { session_id, model: None });
        }
        let [text, tool, call, state] = json::pick_in(part, ["text", "tool", "callID", "state"]);
        match json::text(kind).unwrap_or_default().as_str() {
            "text" => tell_text(told, json::text(text)),
            "reasoning" => tell_thinking(told, json::text(text)),
            // opencode reports a tool once, when it has come back.
            "tool_use" => {
                let name = json::text(tool).unwrap_or_else(|| "unknown".to_owned());
                let call_id = json::text(call);
                let [status] = json::pick_in(state, ["status"]);
                told.push(Progress::ToolStarted { name: name.clone(), call_id: call_id.clone() });
                told.push(Progress::ToolFinished {
                    name: Some(name),
                    call_id,
                    ok: !json::is(status, "error"),
                });
            }
            "step_finish" => {
                self.account.step(part);
                tell_usage(told, &self.account.usage(false));
            }
            _ => {}
        }
    }
}
