//! What can be written on the command line.

mod backup;
mod cluster;
pub mod shared;

pub use backup::{
    BackupArgs, BackupCommand, BackupPlace, ExportArgs, ImportArgs, KeepArgs, RestoreArgs,
};
pub use cluster::{
    ClusterArgs, ClusterCommand, NodesArgs, NodesCommand, WorkerArgs, WorkerCommand,
};

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use segue_core::task::{Priority, TaskState};
use segue_core::workflow::parse_duration_ms;
use std::path::PathBuf;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0    it worked; of a run: it completed
  1    it was refused, or the run failed
  2    the command line, a file or an id is wrong
  3    the run was cancelled by somebody else
  4    the node or its store cannot work
  130  ended by Ctrl-C (143 by SIGTERM, 141 where the reader of the output has gone)";

/// Runs a team of agents unattended: they find each other by what they can do, hand each other work, and survive crashes.
#[derive(Debug, Parser)]
#[command(name = "segue", bin_name = "segue", version, styles = STYLES, max_term_width = 100)]
#[command(after_help = EXIT_CODES, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Folder of the project [default: the nearest one upwards]
    #[arg(short = 'C', long, value_name = "DIR", global = true, help_heading = "Global options")]
    pub project: Option<PathBuf>,
    /// File with what the nodes of a cluster share
    #[arg(
        long,
        value_name = "FILE",
        env = "SEGUE_CONFIG",
        hide_env_values = true,
        global = true,
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,
    /// Which node of a cluster, where the file names another or none
    #[arg(
        long,
        value_name = "NAME",
        env = "SEGUE_NODE",
        hide_env_values = true,
        global = true,
        help_heading = "Global options"
    )]
    pub node: Option<String>,
    /// Print JSON on standard output
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// When to use colours: auto, always or never [default: auto]
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        global = true,
        help_heading = "Global options"
    )]
    pub color: When,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this folder a project: writes segue.toml and an example workflow, finds .claude/
    #[command(after_help = "Examples:\n  segue init\n  segue init -C path/to/repository")]
    Init,
    /// List everybody: kind, status, slots, health, capabilities, source
    #[command(
        after_help = "Examples:\n  segue agents\n  segue agents find \"review rust code\"\n  segue agents drain reviewer"
    )]
    Agents(AgentsArgs),
    /// Run a workflow file, or reach a goal with the team, and show it live
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Submit one task
    #[command(after_help = SUBMIT_HELP)]
    Submit(SubmitArgs),
    /// List tasks, newest first
    #[command(
        after_help = "Examples:\n  segue tasks\n  segue tasks --state failed --limit 50\n  segue tasks --run 4f3a9c1e --json"
    )]
    Tasks(TasksArgs),
    /// Show a task: attempts, children, input and output
    #[command(
        after_help = "An ID is a whole id, or a prefix or suffix of at least 4 digits that fits one task only.\n\nExamples:\n  segue show 4f3a9c1e\n  segue show 4f3a9c1e --output | jq ."
    )]
    Show(ShowArgs),
    /// Print the events of a run, a task, or the whole project
    #[command(after_help = "Examples:\n  segue events 4f3a9c1e\n  segue events --follow --json")]
    Events(EventsArgs),
    /// Watch a run live until it ends
    #[command(after_help = "Example:\n  segue watch 4f3a9c1e")]
    Watch(WatchArgs),
    /// Cancel a task and everything under it
    #[command(after_help = "Example:\n  segue cancel 4f3a9c1e --reason \"wrong branch\"")]
    Cancel(CancelArgs),
    /// Try a task again
    #[command(
        after_help = "A task that waits for its backoff is tried now; one that failed or was cancelled starts anew.\n\nExample:\n  segue retry 4f3a9c1e"
    )]
    Retry(IdArgs),
    /// Print what the agent of a task wrote
    #[command(after_help = "Examples:\n  segue logs 4f3a9c1e\n  segue logs 4f3a9c1e --attempt 1")]
    Logs(LogsArgs),
    /// Run a node that stays; other commands in the project talk to it
    #[command(
        after_help = "The first SIGINT or SIGTERM lets what runs end, the second one ends at once.\n\nExamples:\n  segue up\n  segue up --team examples/repo-report"
    )]
    Up(UpArgs),
    /// Host agents for a cluster, with nothing but its broker
    #[command(after_help = WORKER_HELP)]
    Worker(WorkerArgs),
    /// List the nodes and workers of a cluster
    #[command(
        after_help = "Examples:\n  segue nodes --config cluster.toml\n  segue nodes drain east-2"
    )]
    Nodes(NodesArgs),
    /// Make what the nodes of a cluster share
    #[command(
        after_help = "Examples:\n  segue cluster init > cluster.toml\n  segue cluster key > key && chmod 600 key"
    )]
    Cluster(ClusterArgs),
    /// Look for what is missing or broken, and say how to mend it
    #[command(
        after_help = "Exits with 1 if something fails; warnings do not count.\n\nExample:\n  segue doctor"
    )]
    Doctor,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  segue completions bash > ~/.local/share/bash-completion/completions/segue"
    )]
    Completions(CompletionsArgs),
    /// Print a JSON Schema, for editors
    #[command(after_help = "Example:\n  segue schema workflow > workflow.schema.json")]
    Schema(SchemaArgs),
    /// Read, write and watch what agents and people know in common: JSON under versioned keys
    #[command(
        after_help = "Examples:\n  segue state put plan/api '{\"owner\": \"anna\"}'\n  segue state get plan/api\n  segue state watch 'plan/*'"
    )]
    State {
        /// What to do with it
        #[command(subcommand)]
        command: shared::StateCommand,
    },
    /// Take, renew and give back locks, so that one does at a time what only one may do
    #[command(
        after_help = "Examples:\n  token=$(segue lock take deploy --ttl 5m)\n  segue lock release deploy \"$token\""
    )]
    Lock {
        /// What to do with them
        #[command(subcommand)]
        command: shared::LockCommand,
    },
    /// Remove runs that ended long ago, with their events, payloads and logs
    #[command(after_help = "Example:\n  segue prune --older-than 30d")]
    Prune(PruneArgs),
    /// Back up the project's tasks, events and payloads to S3 or a folder; look at backups, check and prune them
    #[command(
        after_help = "A node that runs goes on meanwhile. Only what changed since the last backup is written. docs/backup.md says how.\n\nExamples:\n  segue backup s3://bucket/prefix\n  segue backup ../backups\n  segue backup list ../backups\n  segue backup verify s3://bucket/prefix --deep"
    )]
    Backup(BackupArgs),
    /// Put a backup in the place of the project's state
    #[command(
        after_help = "What was there before is moved aside, never removed.\n\nExamples:\n  segue restore ../backups\n  segue restore s3://bucket/prefix --at 12 -C new-folder"
    )]
    Restore(RestoreArgs),
    /// Write everything of the project into one file, which any database takes
    #[command(
        after_help = "A node that runs goes on meanwhile. The file is JSON lines; it holds no secret.\n\nExamples:\n  segue export project.jsonl\n  segue export - | segue import - --config cluster.toml"
    )]
    Export(ExportArgs),
    /// Fill an empty project from an export: how one moves from SQLite to PostgreSQL, and back
    #[command(
        after_help = "All of it or nothing. A project that holds anything already is left as it is.\n\nExamples:\n  segue import project.jsonl -C new-folder\n  segue import project.jsonl --config cluster.toml"
    )]
    Import(ImportArgs),
    /// Measure what this machine does with this build
    #[command(
        after_help = "Examples:\n  segue bench\n  segue bench --workload W1,W3 --runs 3 --json"
    )]
    Bench(crate::bench::BenchArgs),
    /// Kill a node again and again while it works, and count what was lost: a build with failpoints can
    #[command(
        after_help = "`cargo xtask chaos` makes such a build, and runs it. docs/chaos.md says what is counted.\n\nExamples:\n  segue chaos --tasks 200 --kills 20\n  segue chaos --seed 7 --dir chaos --json\n  segue chaos --check chaos"
    )]
    Chaos(crate::chaos::ChaosArgs),
    /// Programs that are agents and come with Segue
    #[command(hide = true)]
    Agent(BuiltinArgs),
}

const WORKER_HELP: &str = "\
The first SIGINT or SIGTERM lets what runs end, the second one ends at once.

Examples:
  segue worker token red --config cluster.toml > red.token
  segue worker --agents reviewer,tester --rabbitmq amqp://USER@HOST/VHOST --token-file red.token
  segue worker --config worker.toml";

const RUN_HELP: &str = "\
Inputs:
  NAME=VALUE   a value: JSON, else text
  NAME=@FILE   the text of a file; of a .json file its value
  @FILE.json   an object that holds several; or the object itself
  -            the same, from standard input

Examples:
  segue run workflow.yaml --input goal=\"tidy up\" --input files=@files.json
  segue run --goal \"a report on this repository\" --team examples/repo-report --project ~/src/thing
  segue run nightly.yaml --json --timeout 2h";

const SUBMIT_HELP: &str = "\
Examples:
  segue submit --agent reviewer --input @task.json --priority high
  segue submit --capability translate --input text=\"Guten Tag\" --wait
  segue submit --agent reporter --needs 4f3a9c1e --needs 77aa01bc";

/// Arguments of `segue agents`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentsArgs {
    /// Folder of a team whose agents count too
    #[arg(long, value_name = "DIR")]
    pub team: Option<PathBuf>,
    /// What to do with them
    #[command(subcommand)]
    pub command: Option<AgentsCommand>,
}

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// Find agents by capability, else by text over name, description and capabilities
    #[command(
        after_help = "Examples:\n  segue agents find \"review rust code\"\n  segue agents find --capability translate"
    )]
    Find {
        /// What is to be done, in words; the exact name of a capability comes first
        #[arg(required_unless_present = "capability")]
        text: Option<String>,
        /// Only agents that declare this capability
        #[arg(long, value_name = "NAME")]
        capability: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
        /// Folder of a team whose agents count too
        #[arg(long, value_name = "DIR")]
        team: Option<PathBuf>,
    },
    /// Let an agent finish what it has and give it no new work
    #[command(
        after_help = "Examples:\n  segue agents drain reviewer\n  segue agents drain reviewer --undo"
    )]
    Drain {
        /// The agent
        name: String,
        /// Give it work again
        #[arg(long)]
        undo: bool,
    },
}

/// Arguments of `segue run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The workflow file
    #[arg(value_name = "WORKFLOW.yaml", required_unless_present = "goal", conflicts_with = "goal")]
    pub workflow: Option<PathBuf>,
    /// What is wanted, in words: an agent plans and delegates it
    #[arg(long, value_name = "TEXT")]
    pub goal: Option<String>,
    /// The agent that is given the goal
    #[arg(long, value_name = "NAME", default_value = "orchestrator", requires = "goal")]
    pub agent: String,
    /// A key of shared state that the agent may use, or a prefix and `*`; may be given several times
    #[arg(long, value_name = "KEY", value_delimiter = ',', requires = "goal")]
    pub state_key: Vec<String>,
    /// Input of the run: NAME=VALUE, NAME=@FILE, @FILE.json or -
    #[arg(short, long, value_name = "INPUT")]
    pub input: Vec<String>,
    /// Folder of a team (with a segue.toml) whose agents take part
    #[arg(long, value_name = "DIR")]
    pub team: Option<PathBuf>,
    /// Print the run's id and leave it to the node
    #[arg(long)]
    pub detach: bool,
    /// Limit of the whole run, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<u64>,
    /// The span that asks for it, as W3C Trace Context writes it; the run belongs to its trace
    #[arg(long, value_name = "TRACEPARENT", env = "TRACEPARENT", hide_env_values = true)]
    pub traceparent: Option<String>,
    /// Submitting the same under the same key again finds the same run
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Submit even if nobody can take a task yet
    #[arg(long)]
    pub allow_missing: bool,
    /// Show and print nothing but errors
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// Arguments of `segue submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The agent that is to do it
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "capability",
        conflicts_with = "capability"
    )]
    pub agent: Option<String>,
    /// What whoever does it has to be able to do
    #[arg(long, value_name = "NAME")]
    pub capability: Option<String>,
    /// What people call the task [default: the agent or capability]
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Its input: NAME=VALUE, NAME=@FILE, @FILE.json or -
    #[arg(short, long, value_name = "INPUT")]
    pub input: Vec<String>,
    /// background, low, medium, high, critical, or 1 to 10
    #[arg(long, value_name = "PRIORITY", default_value = "medium")]
    pub priority: Priority,
    /// A task that has to end first; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub needs: Vec<String>,
    /// A key of shared state that its agent may use, or a prefix and `*`; may be given several times
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub state_key: Vec<String>,
    /// How often it is tried in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub retry_attempts: Option<u32>,
    /// Limit of one attempt, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<u64>,
    /// The span that asks for it, as W3C Trace Context writes it; the task belongs to its trace
    #[arg(long, value_name = "TRACEPARENT", env = "TRACEPARENT", hide_env_values = true)]
    pub traceparent: Option<String>,
    /// Submitting the same under the same key again finds the same task
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Wait for its end, and print its output
    #[arg(long)]
    pub wait: bool,
    /// Folder of a team whose agents take part; with --wait, where no node runs
    #[arg(long, value_name = "DIR", requires = "wait")]
    pub team: Option<PathBuf>,
    /// Submit even if nobody can take it yet
    #[arg(long)]
    pub allow_missing: bool,
    /// Show and print nothing but errors
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// Arguments of `segue tasks`.
#[derive(Debug, Args)]
pub struct TasksArgs {
    /// Only tasks in this state; may be given several times
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<TaskState>,
    /// Only tasks of this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only tasks of this run
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Only tasks submitted before this one
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
}

/// Arguments of `segue show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The task
    pub id: String,
    /// Print its output and nothing else
    #[arg(long)]
    pub output: bool,
    /// Print input and output whole, however large
    #[arg(long)]
    pub full: bool,
}

/// Arguments of `segue events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// A run or a task [default: the whole project]
    pub id: Option<String>,
    /// Go on with what happens
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this cursor
    #[arg(long, value_name = "CURSOR", default_value_t = 0)]
    pub after: u64,
}

/// Arguments of `segue watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// A run or a task
    pub id: String,
    /// Print nothing but errors; the exit code tells
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// Arguments of `segue cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The task
    pub id: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// A task.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The task
    pub id: String,
}

/// Arguments of `segue logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The task
    pub id: String,
    /// Which attempt [default: the latest]
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

/// Arguments of `segue up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Folder of a team (with a segue.toml) whose agents take part
    #[arg(long, value_name = "DIR")]
    pub team: Option<PathBuf>,
    /// How long a node that is told to end lets its attempts go on
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub patience: u64,
}

/// Arguments of `segue completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell: bash, elvish, fish, powershell or zsh
    #[arg(hide_possible_values = true)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `segue schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what: workflow
    #[arg(hide_possible_values = true)]
    pub of: SchemaOf,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaOf {
    /// Workflow files.
    Workflow,
}

/// Arguments of `segue prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// How long ago they ended at least, such as 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub older_than: u64,
}

/// Arguments of `segue agent`.
#[derive(Debug, Args)]
pub struct BuiltinArgs {
    /// Which one
    #[command(subcommand)]
    pub which: Builtin,
}

/// Agents that come with Segue.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Builtin {
    /// Plans backward from a goal over what the team's capabilities consume and produce
    Planner,
}

fn duration(text: &str) -> Result<u64, String> {
    parse_duration_ms(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let of = format!("segue {}", command.get_name());
            assert!(after.contains(&of), "`{of}` has no example: {after}");
        }
    }
}
