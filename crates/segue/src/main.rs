//! The `segue` binary: the doors and the wiring.
//!
//! `args` says what can be written, `commands` what each command does, `client` how it reaches the API, `api` what that
//! answers, `node` what runs behind it.

mod agents;
mod api;
mod args;
mod backend;
mod backups;
mod bench;
mod chaos;
mod client;
mod cluster;
mod commands;
mod config;
mod context;
mod ending;
#[cfg(feature = "failpoints")]
mod failpoints;
mod failure;
mod log;
mod node;
mod project;
mod remains;
mod roster;
mod screen;
mod server;
mod signals;
mod transfer;
mod worktrees;

use args::{Cli, Command};
use clap::Parser;
use commands::{
    agents as team, backup, doctor, events, init, nodes, quick, run, shared, submit, tasks,
    transfer as moves, up, upkeep, worker,
};
use context::{Context, block_on};
use failure::{Code, Exit, Failure, Outcome};
use screen::live::say;
use screen::style::Paint;
use std::io::IsTerminal;
use std::process::ExitCode;

fn main() -> ExitCode {
    segue_agent::process::supervise_if_asked();
    // Says what is wrong with the command line and ends, with 2, or shows help and ends, with 0.
    let cli = Cli::parse();
    let paint = Paint::decide(cli.common.color, std::io::stderr().is_terminal());
    // Doctor tells by itself what it meets on its way.
    log::start(paint.is_on(), matches!(cli.command, Command::Doctor));
    let exit = match start(&cli) {
        Ok(exit) => exit,
        Err(failure) => {
            complain(&failure, paint);
            failure.exit
        }
    };
    exit.into()
}

fn start(cli: &Cli) -> Outcome {
    #[cfg(feature = "failpoints")]
    failpoints::arm().map_err(Failure::usage)?;
    let cx = Context::new(&cli.common)?;
    // A worker has another file, and some commands need none.
    if let Command::Worker(args) = &cli.command
        && args.command.is_none()
    {
        return worker::worker(&cx, args, cli.common.config.as_deref());
    }
    let needs_no_file = matches!(
        &cli.command,
        Command::Cluster(_) | Command::Completions(_) | Command::Schema(_) | Command::Agent(_)
    );
    let cx = &if needs_no_file { cx } else { cx.in_cluster(&cli.common)? };
    match &cli.command {
        Command::Worker(args) => worker::about(cx, args),
        Command::Nodes(args) => nodes::nodes(cx, args),
        Command::Cluster(args) => nodes::cluster(cx, args),
        Command::Init => init::init(cx),
        Command::Agents(args) => team::agents(cx, args),
        Command::Run(args) => run::run(cx, args),
        Command::Submit(args) => submit::submit(cx, args),
        Command::Tasks(args) => tasks::list(cx, args),
        Command::Show(args) => tasks::show(cx, args),
        Command::Events(args) => events::events(cx, args),
        Command::Watch(args) => events::watch(cx, args),
        Command::Cancel(args) => tasks::cancel(cx, args),
        Command::Retry(args) => tasks::retry(cx, args),
        Command::Logs(args) => tasks::logs(cx, args),
        Command::Up(args) => up::up(cx, args),
        Command::Doctor => doctor::doctor(cx),
        Command::Completions(args) => quick::completions(cx, args),
        Command::Schema(args) => quick::schema(cx, args),
        Command::State { command } => shared::state(cx, command),
        Command::Lock { command } => shared::lock(cx, command),
        Command::Prune(args) => upkeep::prune(cx, args),
        Command::Backup(args) => backup::backup(cx, args),
        Command::Restore(args) => backup::restore(cx, args),
        Command::Export(args) => moves::export(cx, args),
        Command::Import(args) => moves::import(cx, args),
        Command::Bench(args) => {
            block_on(async { bench::run(args, cx.cluster().cloned()).await.code(Exit::Failed) })
                .map(|()| Exit::Done)
        }
        Command::Chaos(args) => block_on(chaos::chaos(cx, args)),
        Command::Agent(args) => quick::agent(cx, args),
    }
}

/// Says on standard error what went wrong, and what to do.
fn complain(failure: &Failure, paint: Paint) {
    if failure.message.is_empty() {
        return;
    }
    if failure.rendered {
        return say(failure.message.trim_end());
    }
    say(&format!("{} {}", paint.error("error:"), failure.message));
    for hint in failure.hint.iter().flat_map(|hint| hint.lines()).filter(|line| !line.is_empty()) {
        say(&format!("  {} {hint}", paint.dim("hint:")));
    }
}
