//! What can be written behind `segue worker`, `nodes` and `cluster`.

use super::duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `segue worker`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WorkerArgs {
    /// Which of the agents that are defined here it hosts [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub agents: Vec<String>,
    /// Where the broker is; several for the nodes of one
    #[arg(
        long,
        value_name = "URL",
        env = "SEGUE_RABBITMQ",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub rabbitmq: Vec<String>,
    /// What the names of its exchanges and queues begin with, where the cluster says so
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// File of certificates (PEM) to trust
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File with the worker's token
    #[arg(long, value_name = "FILE", env = "SEGUE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder of a team (with a segue.toml) whose agents it hosts
    #[arg(long, value_name = "DIR")]
    pub team: Option<PathBuf>,
    /// How long a worker that is told to end lets its attempts go on
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub patience: u64,
    /// What else there is to do
    #[command(subcommand)]
    pub command: Option<WorkerCommand>,
}

/// What else there is to do about workers.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Print the token of the worker of this name: a secret
    #[command(after_help = "Example:\n  segue worker token red --config cluster.toml > red.token")]
    Token {
        /// The worker
        name: String,
    },
}

/// Arguments of `segue nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// What to do with them
    #[command(subcommand)]
    pub command: Option<NodesCommand>,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// Let a node or worker finish what it has, give it no new work, and let it end
    #[command(after_help = "Example:\n  segue nodes drain east-2")]
    Drain {
        /// The node or worker: its name, or its host id
        name: String,
    },
}

/// Arguments of `segue cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// What to make
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What to make for a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Print a file for the nodes of a new project
    #[command(after_help = "Example:\n  segue cluster init > cluster.toml")]
    Init {
        /// What people call the project
        #[arg(long, value_name = "NAME", default_value = "segue")]
        name: String,
    },
    /// Print a key: the secret from which attempts' secrets and workers' tokens derive
    #[command(after_help = "Example:\n  segue cluster key > key && chmod 600 key")]
    Key,
}
