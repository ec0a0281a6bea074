//! OpenAI Codex: `codex exec --json`.
//!
//! Facts observed on 0.169.0; what is read is documented in `docs/agents-cli.md`.

use super::command::{Builder, CommandLineError, PermissionMode};
use super::json::{self, Field};
use super::objects;
use super::output::Output;
use super::reading::{Reading, Trouble, success};
use super::usage::{ModelUsage, Usage};
use super::watch::{Progress, ToolsInFlight, tell_text, tell_thinking, tell_usage};

/// Flags that decide what is read back, hence are not for extra arguments.
pub(super) const RESERVED: &[&str] =
    &["--json", "--experimental-json", "-o", "--output-last-message", "--output-schema"];

/// Instructions longer than this stand in the prompt instead of on the command line.
const INSTRUCTIONS_BYTES_MAX: usize = 32 * 1024;

/// Builds the arguments. All options stand before `resume`, which knows only some of them.
pub(super) fn command(builder: &mut Builder<'_>) -> Result<(), CommandLineError> {
    let asked = builder.asked;
    builder.claude_only()?;
    if asked.agent_name.is_some() {
        builder.cannot("an agent name");
    }
    builder.flag("exec");
    builder.flag("--json");
    builder.flag("--color=never");
    // The folder was chosen by Segue, which keeps its own guard over it; the sandbox stays.
    builder.flag("--skip-git-repo-check");
    if asked.bare {
        builder.flag("--ignore-user-config");
    }
    match asked.permission_mode {
        Some(PermissionMode::AcceptEdits | PermissionMode::Auto) => {
            builder.flag("--sandbox=workspace-write");
        }
        Some(PermissionMode::Plan) => builder.flag("--sandbox=read-only"),
        Some(PermissionMode::Bypass) => {
            builder.flag("--dangerously-bypass-approvals-and-sandbox");
        }
        Some(PermissionMode::Default | PermissionMode::DontAsk) | None => {}
    }
    builder.set_if("--model", asked.model.filter(|model| *model != "inherit"))?;
    match asked.system_prompt {
        Some(text) if text.len() <= INSTRUCTIONS_BYTES_MAX && !text.contains('\0') => {
            let setting = format!("developer_instructions={}", toml_string(text));
            builder.set("--config", setting)?;
        }
        Some(text) => builder.instruct(text),
        None => {}
    }
    if let Some(schema) = asked.output_schema {
        let dir = asked.scratch_dir.ok_or_else(|| CommandLineError::NeedsScratchDir {
            preset: super::Preset::Codex,
            what: "an output schema".into(),
        })?;
        let path = builder.file(dir, "schema.json", schema.to_string().into_bytes());
        builder.set("--output-schema", path)?;
    }
    if let Some(dir) = asked.scratch_dir {
        let path = dir.join("last-message.txt");
        builder.set("--output-last-message", &path)?;
        builder.result_file(path);
    }
    builder.extra_args()?;
    if let Some(session) = asked.resume_session {
        builder.flag("resume");
        builder.push("the session id", session)?;
    }
    builder.flag("-");
    Ok(())
}

/// A TOML basic string. JSON escapes are TOML escapes, and DEL is the one character that only TOML
/// wants escaped.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Reads the event stream.
pub(super) fn read(output: &Output<'_>) -> Reading {
    let mut reader = Reader::default();
    reader.reading.seen = objects::scan(output.stdout, |object| reader.object(object));
    reader.finish(output.result_file)
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    /// The last message, which is the answer once the turn is complete.
    message: Option<String>,
    turn: Turn,
    turns: u32,
}

#[derive(Default)]
enum Turn {
    #[default]
    Open,
    Complete,
    Failed(Trouble),
}

impl Reader {
    /// Reads one event; whether it is one of Codex's.
    fn object(&mut self, object: &str) -> bool {
        let keys = ["type", "thread_id", "item", "usage", "error", "message"];
        let Some([kind, thread, item, usage, error, message]) = json::pick(object, keys) else {
            return false;
        };
        match json::text(kind).unwrap_or_default().as_str() {
            "thread.started" => self.reading.session(thread),
            "turn.started" => {
                self.turns = self.turns.saturating_add(1);
                self.turn = Turn::Open;
            }
            "turn.completed" => {
                self.reading.usage = sum(usage);
                self.turn = Turn::Complete;
            }
            "turn.failed" => {
                let [message] = json::pick_in(error, ["message"]);
                let message = json::text(message).unwrap_or_else(|| "the turn failed".to_owned());
                self.turn = Turn::Failed(Trouble::of_message(message));
            }
            // Not the end: "Reconnecting... 2/5" comes as such an event as well.
            "error" => {
                let message = json::text(message).unwrap_or_default();
                self.reading.hint = Some(Trouble::of_message(message));
            }
            "item.completed" => self.item(item),
            "item.started" | "item.updated" => self.reading.hint = None,
            kind => return kind.starts_with("item."),
        }
        true
    }

    fn item(&mut self, item: Field<'_>) {
        let [kind, text, message, id, status, command] =
            json::pick_in(item, ["type", "text", "message", "id", "status", "command"]);
        let kind = json::text(kind).unwrap_or_default();
        match kind.as_str() {
            "agent_message" => self.message = json::text(text),
            // A warning of the CLI itself; work goes on.
            "error" => {
                let warning = json::text(message).unwrap_or_default();
                self.reading.note(format!("codex warned: {warning}"));
                return;
            }
            _ if json::is(status, "declined") => {
                let command = json::text(command);
                self.reading.deny(kind, json::text(id), command.as_deref());
            }
            _ => {}
        }
        // It works again: what went wrong before is over.
        self.reading.hint = None;
    }

    fn finish(mut self, result_file: Option<&[u8]>) -> Reading {
        let file = result_file
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .filter(|text| !text.trim().is_empty());
        self.reading.turns = Some(self.turns).filter(|turns| *turns > 0);
        self.reading.verdict = match (self.turn, self.message, file) {
            (Turn::Failed(trouble), _, _) => Some(Err(trouble)),
            (Turn::Complete, Some(text), _) | (Turn::Complete, None, Some(text)) => {
                Some(Ok(success(text, None)))
            }
            (Turn::Complete, None, None) => {
                self.reading.note("codex completed its turn without a message.");
                Some(Ok(success(String::new(), None)))
            }
            // Codex writes the file only at the end of a completed turn, so the turn was completed
            // and merely its last events are missing.
            (Turn::Open, _, Some(text)) => {
                self.reading
                    .note("The end of the event stream is missing; the answer is from the file.");
                Some(Ok(success(text, None)))
            }
            (Turn::Open, _, None) => None,
        };
        self.reading
    }
}

/// The `usage` of `turn.completed`: the thread's total, cached tokens already included, no price.
fn sum(usage: Field<'_>) -> Usage {
    let [input, cached, written, output, reasoning] = json::pick_in(
        usage,
        [
            "input_tokens",
            "cached_input_tokens",
            "cache_write_input_tokens",
            "output_tokens",
            "reasoning_output_tokens",
        ],
    );
    let count = |field| json::count(field).unwrap_or(0);
    let mut sum = Usage { complete: usage.is_some(), session_total: true, ..Usage::default() };
    sum.add(
        None,
        ModelUsage {
            input_tokens: count(input),
            cached_input_tokens: count(cached),
            cache_write_tokens: count(written),
            output_tokens: count(output),
            reasoning_tokens: count(reasoning),
            cost_usd: None,
        },
    );
    sum
}

/// Watches the stream of one run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    tools: ToolsInFlight,
}

impl Watch {
    pub(super) fn object(&mut self, object: &str, told: &mut Vec<Progress>) {
        let keys = ["type", "thread_id", "item", "usage", "message"];
        let [kind, thread, item, usage, message] = json::fields(object, keys);
        match json::text(kind).unwrap_or_default().as_str() {
            "thread.started" => {
                if let Some(session_id) = json::text(thread) {
                    told.push(Progress::SessionStarted { session_id, model: None });
                }
            }
            "item.started" => self.item(item, false, told),
            "item.completed" => self.item(item, true, told),
            "turn.completed" => tell_usage(told, &sum(usage)),
            "error" => {
                let message = json::text(message).unwrap_or_default();
                if let Some(count) = message.strip_prefix("Reconnecting...") {
                    let (attempt, most) = count.trim().split_once('/').unwrap_or_default();
                    let most = most.split(|c: char| !c.is_ascii_digit()).next();
                    told.push(Progress::ApiRetry {
                        attempt: attempt.parse().ok(),
                        attempts_max: most.and_then(|most| most.parse().ok()),
                        status: None,
                        delay_ms: None,
                    });
                }
            }
            _ => {}
        }
    }

    fn item(&mut self, item: Field<'_>, ended: bool, told: &mut Vec<Progress>) {
        let [kind, id, text, status, server, tool] =
            json::pick_in(item, ["type", "id", "text", "status", "server", "tool"]);
        let kind = json::text(kind).unwrap_or_default();
        match kind.as_str() {
            "agent_message" if ended => tell_text(told, json::text(text)),
            "reasoning" if ended => tell_thinking(told, json::text(text)),
            "agent_message" | "reasoning" | "todo_list" | "error" | "" => {}
            _ => {
                let name = match (json::text(server), json::text(tool)) {
                    (Some(server), Some(tool)) => format!("{server}/{tool}"),
                    (_, Some(tool)) => tool,
                    _ => kind,
                };
                let call_id = json::text(id).unwrap_or_default();
                let known = !self.tools.start(&call_id, &name);
                if !known {
                    told.push(Progress::ToolStarted {
                        name: name.clone(),
                        call_id: Some(call_id.clone()),
                    });
                }
                if ended {
                    self.tools.finish(&call_id);
                    told.push(Progress::ToolFinished {
                        name: Some(name),
                        call_id: Some(call_id),
                        ok: !json::is(status, "failed") && !json::is(status, "declined"),
                    });
                }
            }
        }
    }
}
