use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Preset, claude, codex, gemini, opencode};

/// The longest argument or environment string that Linux takes (`MAX_ARG_STRLEN`, 128 KiB), less
/// the NUL at its end.
const ARG_BYTES_MAX: usize = 128 * 1024 - 1;

/// From this length on a value goes to a file where the CLI can read it from one.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// What an agent CLI is asked to do, whichever CLI it is.
///
/// `Invocation::default()` with a `prompt` is the smallest one.
#[derive(Debug, Clone, Default)]
pub struct Invocation<'a> {
    /// The task, in words. It reaches the CLI by standard input, so it may be long and may begin
    /// with anything. (A `/` at its beginning can still name a slash command, and `@path` can include
    /// a file; that is the CLI's own prompt language.)
    pub prompt: &'a str,
    /// The program to run instead of [`Preset::default_program`].
    pub program: Option<&'a str>,
    /// Agent definitions as the JSON object of `claude --agents`. Only Claude Code takes it; for the
    /// others give the agent's text as `system_prompt`.
    pub agent_json: Option<&'a str>,
    /// The agent to run as: Claude Code and opencode.
    pub agent_name: Option<&'a str>,
    /// Instructions that stand above the prompt and are added to what the CLI says itself. Where the
    /// CLI has no place for them they are put in front of the prompt.
    pub system_prompt: Option<&'a str>,
    /// The model, in the CLI's own naming (opencode: `provider/model`). `inherit` is no model.
    pub model: Option<&'a str>,
    /// A JSON Schema for the answer. Gemini and opencode have no option for it, so it is asked for
    /// in the prompt; check the answer in any case.
    pub output_schema: Option<&'a Value>,
    /// A folder of this attempt for files that the CLI reads or writes. It must exist when the
    /// command starts, and it should not be the agent's working folder.
    pub scratch_dir: Option<&'a Path>,
    /// What the agent may do without being asked. `None` leaves it to the CLI's configuration.
    pub permission_mode: Option<PermissionMode>,
    /// Tools that need no permission (Claude Code).
    pub allowed_tools: &'a [String],
    /// Tools that are forbidden (Claude Code; refused for the others, which could not hold to it).
    pub disallowed_tools: &'a [String],
    /// The most model turns (Claude Code).
    pub max_turns: Option<u32>,
    /// The most that the run may cost, in USD (Claude Code).
    pub max_budget_usd: Option<f64>,
    /// The id of a session to go on with.
    pub resume_session: Option<&'a str>,
    /// A file with MCP servers in the `.mcp.json` format (Claude Code).
    pub mcp_config: Option<&'a Path>,
    /// Use no MCP servers but those of `mcp_config` (Claude Code).
    pub strict_mcp: bool,
    /// The folder that the process is started in, as an absolute path. It has to be told to opencode,
    /// which believes the `PWD` variable more than the folder it runs in.
    pub working_dir: Option<&'a Path>,
    /// How often the CLI itself retries a request to the model (Claude Code: 0 to 15; its own default
    /// is 10, which takes minutes even for a wrong key). Segue has retries and an admission gate of
    /// its own, so a small number is best.
    pub api_retries: Option<u8>,
    /// Have text reported piece by piece while it is written (Claude Code), as evidence of life in
    /// long answers.
    pub partial_messages: bool,
    /// Leave the user's and the project's configuration of the CLI aside (Claude Code `--bare`, Codex
    /// `--ignore-user-config`).
    pub bare: bool,
    /// Take the working folder as trusted, with all that its configuration may start (Gemini).
    pub trust_workspace: bool,
    /// Arguments that are passed on as they are. Flags that decide what is read back are refused.
    pub extra_args: &'a [String],
}

/// What an agent may do without being asked; the names are Claude Code's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// What would need a person's consent is refused, since there is no person.
    #[serde(alias = "manual")]
    Default,
    /// Files may be edited.
    AcceptEdits,
    /// The CLI judges for itself what is safe.
    Auto,
    /// Only what was allowed beforehand.
    DontAsk,
    /// Read and plan, change nothing.
    Plan,
    /// Everything is allowed. Only for a sandbox.
    #[serde(rename = "bypassPermissions")]
    Bypass,
}

/// A command that is ready to be started; nothing in it depends on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program, to be looked up on `PATH` unless it is a path.
    pub program: String,
    /// The arguments.
    pub args: Vec<OsString>,
    /// What to write to standard input before closing it. `None`: give it `/dev/null`. It is never
    /// left open, since all of these CLIs wait for its end.
    pub stdin: Option<Vec<u8>>,
    /// Variables to set. What else to pass on is in [`Preset::env_allow`].
    pub env: Vec<(String, OsString)>,
    /// Files to write before the start, all of them in the scratch folder.
    pub files: Vec<FileToWrite>,
    /// The file in which the CLI leaves its answer, to be handed to
    /// [`parse`](super::parse) if it exists. It must not be there from an earlier run.
    pub result_file: Option<PathBuf>,
    /// What was asked for and cannot be had from this CLI, as sentences.
    pub warnings: Vec<String>,
}

/// A file that a command line refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileToWrite {
    /// Where to write it.
    pub path: PathBuf,
    /// What to write.
    pub contents: Vec<u8>,
}

/// Why no command line can be built. All of these are permanent: the same request fails again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CommandLineError {
    /// There is nothing to do.
    #[error("the prompt is empty; every task for an agent CLI needs one")]
    EmptyPrompt,
    /// The CLI would refuse the prompt or cut it.
    #[error(
        "the prompt has {bytes} bytes and {preset} takes at most {bytes_max}; put large data into a \
         file in the working folder and name it in the prompt"
    )]
    PromptTooLong {
        /// The CLI.
        preset: Preset,
        /// The length of the prompt with all that was put before it.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// No argument and no variable can hold a NUL byte.
    #[error("{what} holds a NUL byte, which no program can be given; remove it")]
    Nul {
        /// Which value.
        what: String,
    },
    /// The operating system would refuse to start the program (E2BIG).
    #[error(
        "{what} has {bytes} bytes and an argument can have at most {bytes_max}; make it shorter, or \
         give a scratch folder if it can be passed as a file"
    )]
    TooLong {
        /// Which value.
        what: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The CLI takes this only as a file.
    #[error("{what} can be given to {preset} only as a file, and there is no scratch folder")]
    NeedsScratchDir {
        /// The CLI.
        preset: Preset,
        /// What needs the file.
        what: String,
    },
    /// It would run with more rights than it was given.
    #[error(
        "{preset} has no option to forbid tools ({what}); forbid them in its own configuration, use \
         permission mode `plan`, or run the agent with the claude preset"
    )]
    CannotForbid {
        /// The CLI.
        preset: Preset,
        /// The tools.
        what: String,
    },
    /// It would change what is read back.
    #[error("the extra argument `{arg}` of {preset} is set by Segue itself; remove it")]
    ReservedArgument {
        /// The CLI.
        preset: Preset,
        /// The argument.
        arg: String,
    },
    /// It would be taken for a flag, or for nothing.
    #[error("`{id}` is no session id")]
    BadSessionId {
        /// What was given, bounded.
        id: String,
    },
    /// A limit of money that is none.
    #[error("the budget of {usd} USD is not a positive amount")]
    BadBudget {
        /// The amount.
        usd: f64,
    },
}

/// Builds the command line of an agent CLI.
///
/// Pure: it starts, reads and writes nothing.
///
/// # Errors
/// See [`CommandLineError`]; whatever would make the operating system or the CLI refuse the command
/// for its form is found here.
pub fn command_line(
    preset: Preset,
    asked: &Invocation<'_>,
) -> Result<CommandLine, CommandLineError> {
    if asked.prompt.trim().is_empty() {
        return Err(CommandLineError::EmptyPrompt);
    }
    if let Some(usd) = asked.max_budget_usd.filter(|usd| !usd.is_finite() || *usd <= 0.0) {
        return Err(CommandLineError::BadBudget { usd });
    }
    if let Some(id) = asked.resume_session
        && (id.trim().is_empty() || id.starts_with('-'))
    {
        return Err(CommandLineError::BadSessionId { id: id.chars().take(80).collect() });
    }
    let mut builder = Builder::new(preset, asked);
    // Escape sequences in the log of an attempt help nobody.
    builder.env("NO_COLOR", "1");
    match preset {
        Preset::Claude => claude::command(&mut builder)?,
        Preset::Codex => codex::command(&mut builder)?,
        Preset::Gemini => gemini::command(&mut builder)?,
        Preset::Opencode => opencode::command(&mut builder)?,
    }
    builder.finish()
}

/// A command line in the making. Values are attached to their flags with `=`, so that no value can be
/// taken for a flag and no list-valued flag swallows what follows it.
pub(super) struct Builder<'a> {
    preset: Preset,
    pub(super) asked: &'a Invocation<'a>,
    prompt: String,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    files: Vec<FileToWrite>,
    result_file: Option<PathBuf>,
    warnings: Vec<String>,
}

impl<'a> Builder<'a> {
    fn new(preset: Preset, asked: &'a Invocation<'a>) -> Self {
        let mut builder = Builder {
            preset,
            asked,
            prompt: asked.prompt.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            result_file: None,
            warnings: Vec::new(),
        };
        if asked.prompt.contains('\0') {
            builder.prompt = asked.prompt.replace('\0', "\u{fffd}");
            builder.warn("NUL bytes in the prompt were replaced by U+FFFD.");
        }
        builder
    }

    pub(super) fn flag(&mut self, flag: &str) {
        self.args.push(flag.into());
    }

    /// `--flag=value`.
    pub(super) fn set(
        &mut self,
        flag: &str,
        value: impl AsRef<OsStr>,
    ) -> Result<(), CommandLineError> {
        let mut arg = OsString::from(flag);
        arg.push("=");
        arg.push(value);
        self.push(flag, arg)
    }

    pub(super) fn set_if(
        &mut self,
        flag: &str,
        value: Option<impl AsRef<OsStr>>,
    ) -> Result<(), CommandLineError> {
        value.map_or(Ok(()), |value| self.set(flag, value))
    }

    /// `--flag=a,b`, nothing for an empty list.
    pub(super) fn list(&mut self, flag: &str, values: &[String]) -> Result<(), CommandLineError> {
        if values.is_empty() {
            return Ok(());
        }
        self.set(flag, values.join(","))
    }

    /// The value itself if it is short, else a file that holds it.
    pub(super) fn set_or_file(
        &mut self,
        flag: &str,
        file_flag: &str,
        file_name: &str,
        value: &str,
    ) -> Result<(), CommandLineError> {
        match self.asked.scratch_dir {
            Some(dir) if value.len() > INLINE_BYTES_MAX => {
                let path = self.file(dir, file_name, value.as_bytes().to_vec());
                self.set(file_flag, path)
            }
            _ => self.set(flag, value),
        }
    }

    /// A positional argument or a flag without a value.
    pub(super) fn push(
        &mut self,
        what: &str,
        arg: impl Into<OsString>,
    ) -> Result<(), CommandLineError> {
        let arg = arg.into();
        check_string(what, &arg)?;
        self.args.push(arg);
        Ok(())
    }

    pub(super) fn env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.to_owned(), value.into()));
    }

    /// Plans a file in the scratch folder; answers its path.
    pub(super) fn file(&mut self, dir: &Path, name: &str, contents: Vec<u8>) -> PathBuf {
        let path = dir.join(name);
        self.files.push(FileToWrite { path: path.clone(), contents });
        path
    }

    /// Names the file in which the CLI leaves its answer.
    pub(super) fn result_file(&mut self, path: PathBuf) {
        self.result_file = Some(path);
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Puts instructions in front of the prompt, for CLIs that have no other place for them.
    pub(super) fn instruct(&mut self, instructions: &str) {
        self.prompt = format!(
            "<instructions>\n{}\n</instructions>\n\n{}",
            instructions.replace('\0', "\u{fffd}"),
            self.prompt
        );
    }

    /// Asks for an answer after a schema, for CLIs that have no option for it.
    pub(super) fn instruct_schema(&mut self) {
        if let Some(schema) = self.asked.output_schema {
            self.prompt.push_str(&format!(
                "\n\nAnswer with one JSON value and nothing else: no code fence, no words around it. \
                 It must be valid against this JSON Schema:\n{schema}\n"
            ));
        }
    }

    /// Sorts out what only Claude Code can do: refuses what would weaken a limit, and warns of what
    /// merely gets lost.
    pub(super) fn claude_only(&mut self) -> Result<(), CommandLineError> {
        let asked = self.asked;
        if !asked.disallowed_tools.is_empty() {
            return Err(CommandLineError::CannotForbid {
                preset: self.preset,
                what: asked.disallowed_tools.join(", "),
            });
        }
        let lost = [
            (asked.agent_json.is_some(), "agent definitions"),
            (!asked.allowed_tools.is_empty(), "a list of allowed tools"),
            (asked.max_turns.is_some(), "a limit of turns"),
            (asked.max_budget_usd.is_some(), "a budget"),
            (asked.mcp_config.is_some(), "an MCP configuration file"),
        ];
        for (_, what) in lost.into_iter().filter(|(asked, _)| *asked) {
            self.cannot(what);
        }
        Ok(())
    }

    /// Warns that this CLI has no option for something.
    pub(super) fn cannot(&mut self, what: &str) {
        let preset = self.preset;
        self.warn(format!("{preset} has no option for {what}; it is left out."));
    }

    /// Passes on the user's own arguments, but for those that would change what is read back.
    pub(super) fn extra_args(&mut self) -> Result<(), CommandLineError> {
        let asked = self.asked;
        let reserved = match self.preset {
            Preset::Claude => claude::RESERVED,
            Preset::Codex => codex::RESERVED,
            Preset::Gemini => gemini::RESERVED,
            Preset::Opencode => opencode::RESERVED,
        };
        for arg in asked.extra_args {
            if is_reserved(arg, reserved) {
                return Err(CommandLineError::ReservedArgument {
                    preset: self.preset,
                    arg: arg.chars().take(80).collect(),
                });
            }
            self.push("an extra argument", arg)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<CommandLine, CommandLineError> {
        let program = self.asked.program.unwrap_or(self.preset.default_program()).to_owned();
        check_string("the program", OsStr::new(&program))?;
        for (name, value) in &self.env {
            check_string(name, value)?;
        }
        let bytes_max = match self.preset {
            Preset::Claude => claude::STDIN_BYTES_MAX,
            Preset::Gemini => gemini::STDIN_BYTES_MAX,
            Preset::Codex | Preset::Opencode => usize::MAX,
        };
        if self.prompt.len() > bytes_max {
            return Err(CommandLineError::PromptTooLong {
                preset: self.preset,
                bytes: self.prompt.len(),
                bytes_max,
            });
        }
        Ok(CommandLine {
            program,
            args: self.args,
            stdin: Some(self.prompt.into_bytes()),
            env: self.env,
            files: self.files,
            result_file: self.result_file,
            warnings: self.warnings,
        })
    }
}

/// Whether the operating system takes this as an argument or a variable.
fn check_string(what: &str, value: &OsStr) -> Result<(), CommandLineError> {
    let bytes = value.as_encoded_bytes();
    if bytes.contains(&0) {
        return Err(CommandLineError::Nul { what: what.into() });
    }
    if bytes.len() > ARG_BYTES_MAX {
        return Err(CommandLineError::TooLong {
            what: what.into(),
            bytes: bytes.len(),
            bytes_max: ARG_BYTES_MAX,
        });
    }
    Ok(())
}

fn is_reserved(arg: &str, reserved: &[&str]) -> bool {
    // Behind `--` everything is taken for the prompt, and a lone `-` for standard input.
    if matches!(arg, "--" | "-") {
        return true;
    }
    let name = arg.split('=').next().unwrap_or(arg);
    reserved.iter().any(|flag| {
        name == *flag || (flag.len() == 2 && arg.starts_with(flag) && !arg.starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<'a>(preset: Preset, change: impl FnOnce(&mut Invocation<'a>)) -> CommandLineError {
        let mut asked = Invocation { prompt: "x", ..Invocation::default() };
        change(&mut asked);
        command_line(preset, &asked).unwrap_err()
    }

    #[test]
    fn prompts_that_no_cli_takes() {
        for prompt in ["", " \n\t"] {
            let asked = Invocation { prompt, ..Invocation::default() };
            for preset in Preset::ALL {
                let error = command_line(preset, &asked).unwrap_err();
                assert_eq!(error, CommandLineError::EmptyPrompt);
            }
        }
        let long = "x".repeat(claude::STDIN_BYTES_MAX + 1);
        let asked = Invocation { prompt: &long, ..Invocation::default() };
        for preset in [Preset::Claude, Preset::Gemini] {
            let error = command_line(preset, &asked).unwrap_err();
            assert!(matches!(error, CommandLineError::PromptTooLong { .. }));
        }
        assert!(command_line(Preset::Codex, &asked).is_ok());
    }

    #[test]
    fn values_that_no_process_takes() {
        let long = "x".repeat(ARG_BYTES_MAX);
        for preset in [Preset::Claude, Preset::Codex, Preset::Gemini, Preset::Opencode] {
            let nul = error(preset, |asked| asked.model = Some("a\0b"));
            assert_eq!(nul, CommandLineError::Nul { what: "--model".into() });
            let error = error(preset, |asked| asked.model = Some(&long));
            assert!(matches!(error, CommandLineError::TooLong { .. }), "{error}");
        }
    }

    #[test]
    fn sessions_that_are_none() {
        for id in ["", " ", "--last"] {
            for preset in Preset::ALL {
                let error = error(preset, |asked| asked.resume_session = Some(id));
                assert!(matches!(error, CommandLineError::BadSessionId { .. }));
            }
        }
    }

    #[test]
    fn budgets_that_are_none() {
        for usd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = error(Preset::Claude, |asked| asked.max_budget_usd = Some(usd));
            assert!(matches!(error, CommandLineError::BadBudget { .. }));
        }
    }

    #[test]
    fn arguments_that_would_change_what_is_read_back() {
        for (preset, arg) in [
            (Preset::Claude, "--output-format=text"),
            (Preset::Claude, "--output-format"),
            (Preset::Claude, "-p"),
            (Preset::Codex, "-o"),
            (Preset::Codex, "-ofile"),
            (Preset::Codex, "--"),
            (Preset::Gemini, "-ojson"),
            (Preset::Opencode, "--format"),
        ] {
            let args = [arg.to_owned()];
            let asked = Invocation { prompt: "x", extra_args: &args, ..Invocation::default() };
            let error = command_line(preset, &asked).unwrap_err();
            assert!(matches!(error, CommandLineError::ReservedArgument { .. }), "{arg}");
        }
    }

    #[test]
    fn forbidding_tools_is_never_dropped_silently() {
        let tools = ["Bash".to_owned()];
        for preset in [Preset::Codex, Preset::Gemini, Preset::Opencode] {
            let asked =
                Invocation { prompt: "x", disallowed_tools: &tools, ..Invocation::default() };
            let error = command_line(preset, &asked).unwrap_err();
            assert!(matches!(error, CommandLineError::CannotForbid { .. }), "{error}");
        }
    }
}
