//! The command line of `claude -p`.

use crate::presets::command::{Builder, CommandLineError, PermissionMode};

/// `claude -p` refuses more standard input than this.
pub(in crate::presets) const STDIN_BYTES_MAX: usize = 10_000_000;

/// The most retries that `CLAUDE_CODE_MAX_RETRIES` can ask for.
const API_RETRIES_MAX: u8 = 15;

/// Flags that decide what is read back, hence are not for extra arguments.
pub(in crate::presets) const RESERVED: &[&str] =
    &["-p", "--print", "--output-format", "--input-format"];

/// Builds the arguments. The prompt goes to standard input, where neither its first character nor
/// its length nor a list-valued flag before it can change what it means.
pub(in crate::presets) fn command(builder: &mut Builder<'_>) -> Result<(), CommandLineError> {
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
