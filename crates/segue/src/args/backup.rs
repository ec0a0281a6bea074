//! What can be written behind `segue backup`, `restore`, `export` and `import`.

use clap::{Args, Subcommand};
use segue_store::backup::Keep;
use std::path::PathBuf;

/// Arguments of `segue backup`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    /// s3://bucket/prefix, file:///folder or a folder [default: `to` of `[backup]` in segue.toml]
    #[arg(value_name = "URL|DIR")]
    pub to: Option<String>,
    /// What to do with backups
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// List the backups of a place: number, time, size, what had to be written
    #[command(after_help = "Example:\n  segue backup list s3://bucket/prefix")]
    List(BackupPlace),
    /// Read a backup back: every object, its sum and its rows
    #[command(
        after_help = "Exits with 1 if something is missing or damaged.\n\nExamples:\n  segue backup verify ../backups\n  segue backup verify s3://bucket/prefix --at 12 --deep"
    )]
    Verify {
        /// Where
        #[command(flatten)]
        place: BackupPlace,
        /// Which one [default: the latest]
        #[arg(long, value_name = "N")]
        at: Option<u64>,
        /// Make a store of it as well, and compare what that exports
        #[arg(long)]
        deep: bool,
    },
    /// Give up backups that need not be kept, and remove what nobody refers to
    #[command(
        after_help = "Without an option, [backup] of segue.toml says what is kept. What is given up goes a day later.\n\nExample:\n  segue backup prune s3://bucket/prefix --keep-last 24 --keep-daily 7"
    )]
    Prune {
        /// Where
        #[command(flatten)]
        place: BackupPlace,
        /// What is kept
        #[command(flatten)]
        keep: KeepArgs,
    },
}

/// Where backups are.
#[derive(Debug, Args)]
pub struct BackupPlace {
    /// s3://bucket/prefix, file:///folder or a folder [default: `to` of `[backup]` in segue.toml]
    #[arg(value_name = "URL|DIR")]
    pub url: Option<String>,
}

/// Which backups are kept.
#[derive(Clone, Copy, Debug, Args)]
pub struct KeepArgs {
    /// The latest N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// The latest of each of the latest N hours that have any
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// The latest of each of the latest N days that have any
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// The latest of each of the latest N weeks that have any
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
}

impl KeepArgs {
    /// What these options say; what they do not name is not kept on its account, unless they name nothing.
    pub fn over(self, config: Keep) -> Keep {
        let KeepArgs { keep_last, keep_hourly, keep_daily, keep_weekly } = self;
        if [keep_last, keep_hourly, keep_daily, keep_weekly].iter().all(Option::is_none) {
            return config;
        }
        Keep {
            last: keep_last.unwrap_or(0),
            hourly: keep_hourly.unwrap_or(0),
            daily: keep_daily.unwrap_or(0),
            weekly: keep_weekly.unwrap_or(0),
        }
    }
}

/// Arguments of `segue restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// s3://bucket/prefix, file:///folder or a folder that `segue backup` wrote
    #[arg(value_name = "URL|DIR")]
    pub from: String,
    /// Which one [default: the latest]
    #[arg(long, value_name = "N")]
    pub at: Option<u64>,
}

/// Arguments of `segue export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// File to write, which must not be there yet; `-` for standard output
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
}

/// Arguments of `segue import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File that `segue export` wrote; `-` for standard input
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
}
