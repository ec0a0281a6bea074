//! Claude Code: `claude -p`.
//!
//! Facts observed on 2.1.330; what is read is documented in `docs/agents-cli.md`.

use rustc_hash::FxHashMap;
use serde_json::value::RawValue;

use super::classify;
use super::command::{Builder, CommandLineError, PermissionMode};
use super::json::{self, Field};
use super::objects;
use super::output::{FailureClass, Output};
use super::reading::{Reading, Trouble, http_status, success};
use super::usage::{ModelUsage, Usage};
use super::watch::{Progress, ToolsInFlight, tell_text, tell_thinking, tell_usage};

/// `claude -p` refuses more standard input than this.
pub(super) const STDIN_BYTES_MAX: usize = 10_000_000;

/// The most retries that `CLAUDE_CODE_MAX_RETRIES` can ask for.
const API_RETRIES_MAX: u8 = 15;

/// Flags that decide what is read back, hence are not for extra arguments.
pub(super) const RESERVED: &[&str] = &["-p", "--print", "--output-format", "--input-format"];

/// Builds the arguments. The prompt goes to standard input, where neither its first character nor
/// its length nor a list-valued flag before it can change what it means.
pub(super) fn command(builder: &mut Builder<'_>) -> Result<(), CommandLineError> {
    let asked = builder.asked;
    builder.flag("-p");
    builder.flag("--output-format=stream-json");
    builder.flag("--verbose");
    if asked.partial_messages {
        builder.flag("--include-partial-messages");
    }
    if asked.bare {
        builder.flag("--bare");
    }
    if let Some(agents) = asked.agent_json {
        builder.set_or_file("--agents", "--agents", "agents.json", agents)?;
    }
    builder.set_if("--agent", asked.agent_name)?;
    if let Some(text) = asked.system_prompt {
        builder.set_or_file(
            "--append-system-prompt",
            "--append-system-prompt-file",
            "system-prompt.md",
            text,
        )?;
    }
    builder.set_if("--model", asked.model.filter(|model| *model != "inherit"))?;
    if let Some(schema) = asked.output_schema {
        builder.set("--json-schema", schema.to_string())?;
    }
    builder.set_if("--permission-mode", asked.permission_mode.map(mode))?;
    builder.list("--allowedTools", asked.allowed_tools)?;
    builder.list("--disallowedTools", asked.disallowed_tools)?;
    builder.set_if("--max-turns", asked.max_turns.map(|turns| turns.to_string()))?;
    if let Some(usd) = asked.max_budget_usd {
        builder.set("--max-budget-usd", usd.to_string())?;
    }
    builder.set_if("--resume", asked.resume_session)?;
    builder.set_if("--mcp-config", asked.mcp_config)?;
    if asked.strict_mcp {
        builder.flag("--strict-mcp-config");
    }
    if let Some(retries) = asked.api_retries {
        let retries = retries.min(API_RETRIES_MAX);
        builder.env("CLAUDE_CODE_MAX_RETRIES", retries.to_string());
    }
    builder.env("DISABLE_AUTOUPDATER", "1");
    builder.extra_args()
}

fn mode(mode: PermissionMode) -> &'static str {
    match mode {
        PermissionMode::Default => "default",
        PermissionMode::AcceptEdits => "acceptEdits",
        PermissionMode::Auto => "auto",
        PermissionMode::DontAsk => "dontAsk",
        PermissionMode::Plan => "plan",
        PermissionMode::Bypass => "bypassPermissions",
    }
}

/// Reads the whole output, in the `stream-json` and in the `json` format.
pub(super) fn read(output: &Output<'_>) -> Reading {
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
                    self.reading.retry = Default::default();
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

/// The fields of the `result` line that matter.
struct ResultLine<'a> {
    is_error: Field<'a>,
    subtype: Field<'a>,
    terminal_reason: Field<'a>,
    status: Field<'a>,
    result: Field<'a>,
    errors: Field<'a>,
    structured: Field<'a>,
    stop_reason: Field<'a>,
    turns: Field<'a>,
    denials: Field<'a>,
    cost_usd: Field<'a>,
    main_loop: Field<'a>,
    by_model: Field<'a>,
    by_model_since: Field<'a>,
}

impl<'a> ResultLine<'a> {
    fn of(object: &'a str) -> Option<Self> {
        let [is_error, subtype, terminal_reason, status, result, errors, structured] = json::pick(
            object,
            [
                "is_error",
                "subtype",
                "terminal_reason",
                "api_error_status",
                "result",
                "errors",
                "structured_output",
            ],
        )?;
        let [stop_reason, turns, denials, cost_usd, main_loop, by_model, by_model_since] =
            json::pick(
                object,
                [
                    "stop_reason",
                    "num_turns",
                    "permission_denials",
                    "total_cost_usd",
                    "usage",
                    "modelUsage",
                    "model_usage_since_last_result",
                ],
            )?;
        Some(ResultLine {
            is_error,
            subtype,
            terminal_reason,
            status,
            result,
            errors,
            structured,
            stop_reason,
            turns,
            denials,
            cost_usd,
            main_loop,
            by_model,
            by_model_since,
        })
    }

    /// `is_error` is what counts: a failed request to the model has the subtype `success`.
    fn failed(&self) -> bool {
        json::flag(self.is_error).unwrap_or(false)
            || json::text(self.subtype).is_some_and(|subtype| subtype.starts_with("error"))
    }

    fn trouble(&self, reason: &str) -> Trouble {
        let subtype = json::text(self.subtype).unwrap_or_default();
        let status = http_status(self.status);
        let mut message = String::new();
        json::each_element(self.errors, |error| {
            if let Some(error) = json::text(Some(error)).filter(|_| message.len() < 8 * 1024) {
                message.push_str(if message.is_empty() { "" } else { "; " });
                message.push_str(&error);
            }
        });
        if message.is_empty() {
            message = json::text(self.result).unwrap_or_default();
        }
        let class = status
            .map(classify::of_status)
            .or(match subtype.as_str() {
                "error_max_turns" | "error_max_budget_usd" => Some(FailureClass::Permanent),
                "error_max_structured_output_retries" => Some(FailureClass::InvalidOutput),
                _ => None,
            })
            .or_else(|| classify::of_text(&message).map(|sorted| sorted.class))
            .or_else(|| of_terminal_reason(reason));
        if message.is_empty() {
            message = format!("claude failed and gave no message ({subtype}, {reason})");
        }
        Trouble { class, status, message }
    }
}

fn of_terminal_reason(reason: &str) -> Option<FailureClass> {
    match reason {
        "max_turns"
        | "budget_exhausted"
        | "prompt_too_long"
        | "image_error"
        | "blocking_limit"
        | "rapid_refill_breaker"
        | "stop_hook_prevented"
        | "hook_stopped"
        | "tool_deferred"
        | "tool_deferred_unavailable" => Some(FailureClass::Permanent),
        "structured_output_retry_exhausted" | "malformed_tool_use_exhausted" => {
            Some(FailureClass::InvalidOutput)
        }
        "aborted_streaming" | "aborted_tools" | "background_requested" => {
            Some(FailureClass::Timeout)
        }
        _ => None,
    }
}

struct ApiRetry {
    attempt: Option<u64>,
    attempts_max: Option<u64>,
    status: Option<u16>,
    delay_ms: Option<u64>,
    error: Option<String>,
}

impl ApiRetry {
    fn of(object: &str) -> Self {
        let [attempt, most, delay, status, error] = json::fields(
            object,
            ["attempt", "max_retries", "retry_delay_ms", "error_status", "error"],
        );
        ApiRetry {
            attempt: json::count(attempt),
            attempts_max: json::count(most),
            status: http_status(status),
            delay_ms: json::count(delay),
            error: json::text(error),
        }
    }
}

struct RateLimit {
    allowed: bool,
    window: Option<String>,
    resets_at_unix_s: Option<u64>,
}

impl RateLimit {
    fn of(info: Field<'_>) -> Self {
        let [status, resets, window, overage, using_overage] = json::pick_in(
            info,
            ["status", "resetsAt", "rateLimitType", "overageStatus", "isUsingOverage"],
        );
        let passes = |field| json::text(field).is_some_and(|word| word.starts_with("allowed"));
        RateLimit {
            allowed: status.is_none()
                || passes(status)
                || passes(overage)
                || json::flag(using_overage) == Some(true),
            window: json::text(window),
            resets_at_unix_s: json::count(resets).and_then(classify::unix_s),
        }
    }
}

/// Adds up what a run used.
///
/// The last account is the `result` line's by model; `usage` there is the main loop's alone, and on a
/// resumed session all but `model_usage_since_last_result` count the earlier runs again. Until there
/// is a result line, the messages count, each once by its id, since a message of several blocks is
/// printed block by block with the same usage.
#[derive(Debug, Default)]
pub(super) struct Account {
    messages: FxHashMap<String, ModelUsage>,
    current: Option<String>,
    so_far: Usage,
    of_results: Option<Usage>,
    whole_session: Option<Usage>,
}

impl Account {
    /// Counts an `assistant` line's message; false for one that Claude Code made up to show an error.
    fn assistant(&mut self, message: Field<'_>) -> bool {
        let [id, model, usage] = json::pick_in(message, ["id", "model", "usage"]);
        let model = json::text(model).unwrap_or_default();
        if model == "<synthetic>" {
            return false;
        }
        self.message(json::text(id), model, tokens(usage));
        true
    }

    fn stream_event(&mut self, object: &str) {
        let [event, message_id] = json::fields(object, ["event", "api_message_id"]);
        let [kind, message, usage] = json::pick_in(event, ["type", "message", "usage"]);
        if json::is(kind, "message_start") {
            self.assistant(message);
        } else if json::is(kind, "message_delta") {
            let id = json::text(message_id).or_else(|| self.current.clone());
            self.message(id, String::new(), tokens(usage));
        }
    }

    fn message(&mut self, id: Option<String>, model: String, now: ModelUsage) {
        let Some(id) = id else { return };
        let counted = self.messages.entry(id.clone()).or_default();
        let grown = |now: u64, counted: &mut u64| {
            let more = now.saturating_sub(*counted);
            *counted += more;
            more
        };
        let more = ModelUsage {
            input_tokens: grown(now.input_tokens, &mut counted.input_tokens),
            cached_input_tokens: grown(now.cached_input_tokens, &mut counted.cached_input_tokens),
            cache_write_tokens: grown(now.cache_write_tokens, &mut counted.cache_write_tokens),
            output_tokens: grown(now.output_tokens, &mut counted.output_tokens),
            reasoning_tokens: grown(now.reasoning_tokens, &mut counted.reasoning_tokens),
            cost_usd: None,
        };
        // A delta does not name its model, so its increase goes to the sum only; the final account
        // by model comes with the result line.
        self.so_far.add(Some(model).filter(|m| !m.is_empty()), more);
        self.current = Some(id);
    }

    fn result(&mut self, end: &ResultLine<'_>) {
        if end.by_model_since.is_some() {
            let sum = self.of_results.get_or_insert_with(|| Usage {
                complete: true,
                cost_usd: Some(0.0),
                ..Usage::default()
            });
            add_models(sum, end.by_model_since);
            return;
        }
        let mut whole = Usage { complete: true, session_total: true, ..Usage::default() };
        add_models(&mut whole, end.by_model);
        if whole.by_model.is_empty() {
            whole.add(None, tokens(end.main_loop));
        }
        whole.cost_usd = json::number(end.cost_usd).or(whole.cost_usd);
        self.whole_session = Some(whole);
    }

    fn usage(&self) -> Usage {
        self.of_results.as_ref().or(self.whole_session.as_ref()).unwrap_or(&self.so_far).clone()
    }
}

fn add_models(sum: &mut Usage, by_model: Field<'_>) {
    json::each_entry(by_model, |model, share| {
        let [input, output, cached, written, thinking, cost] = json::pick_in(
            Some(share),
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokens",
                "cacheCreationInputTokens",
                "thinkingTokens",
                "costUSD",
            ],
        );
        sum.add(
            Some(model),
            ModelUsage {
                cost_usd: json::number(cost),
                ..in_all(input, cached, written, output, thinking)
            },
        );
    });
}

/// The `usage` of the Messages API, whose input tokens leave out the cached ones.
fn tokens(usage: Field<'_>) -> ModelUsage {
    let [input, cached, written, output, details] = json::pick_in(
        usage,
        [
            "input_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "output_tokens",
            "output_tokens_details",
        ],
    );
    let [thinking] = json::pick_in(details, ["thinking_tokens"]);
    in_all(input, cached, written, output, thinking)
}

fn in_all(
    input: Field<'_>,
    cached: Field<'_>,
    written: Field<'_>,
    output: Field<'_>,
    thinking: Field<'_>,
) -> ModelUsage {
    let count = |field| json::count(field).unwrap_or(0);
    ModelUsage {
        input_tokens: count(input).saturating_add(count(cached)).saturating_add(count(written)),
        cached_input_tokens: count(cached),
        cache_write_tokens: count(written),
        output_tokens: count(output),
        reasoning_tokens: count(thinking),
        cost_usd: None,
    }
}

/// Watches the stream of one run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    account: Account,
    tools: ToolsInFlight,
    /// The current message's text was already told piece by piece.
    streamed: bool,
}

impl Watch {
    pub(super) fn object(&mut self, object: &str, told: &mut Vec<Progress>) {
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
