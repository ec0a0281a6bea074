//! What can be written behind `segue state` and `segue lock`.

use super::duration;
use clap::{Args, Subcommand};
use segue_core::state::{Expect, Policy};

/// What to do with shared state.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Print the value of a key
    #[command(
        after_help = "Examples:\n  segue state get plan/api\n  segue state get plan/api --version 17 | jq ."
    )]
    Get {
        /// The key
        key: String,
        /// An earlier version, of those that are kept
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// Write a key
    #[command(after_help = PUT_HELP)]
    Put {
        /// The key
        key: String,
        /// JSON, else text; @FILE; or - for JSON from standard input
        value: String,
        /// How
        #[command(flatten)]
        terms: TermsArgs,
    },
    /// Delete a key
    #[command(
        after_help = "Examples:\n  segue state delete plan/api\n  segue state delete plan/api --expect 17"
    )]
    Delete {
        /// The key
        key: String,
        /// How
        #[command(flatten)]
        terms: TermsArgs,
    },
    /// List keys
    #[command(after_help = "Examples:\n  segue state list\n  segue state list plan/")]
    List {
        /// Only keys that begin like this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Only keys after this one
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Print keys as they stand, and each change as it comes
    #[command(
        after_help = "Examples:\n  segue state watch plan/api\n  segue state watch 'plan/*' --json\n  segue state watch 'plan/*' --after 17"
    )]
    Watch {
        /// A key, or a prefix and *
        key: String,
        /// Only versions after this one: goes on where an earlier watch ended
        #[arg(long, value_name = "N")]
        after: Option<u64>,
    },
    /// List the versions of a key that are kept, newest first
    #[command(after_help = "Example:\n  segue state history plan/api")]
    History {
        /// The key
        key: String,
        /// Only versions before this one
        #[arg(long, value_name = "N")]
        before: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Say what happens to conflicting writes of keys; without arguments, list that
    #[command(
        after_help = "Examples:\n  segue state policy\n  segue state policy 'plan/*' merge\n  segue state policy 'plan/*' --unset"
    )]
    Policy {
        /// A key, or a prefix and *
        pattern: Option<String>,
        /// reject, last-writer or merge
        #[arg(requires = "pattern", conflicts_with = "unset")]
        policy: Option<Policy>,
        /// Take it back
        #[arg(long, requires = "pattern")]
        unset: bool,
    },
}

const PUT_HELP: &str = "\
Examples:
  segue state put plan/api '{\"owner\": \"anna\"}'
  segue state put plan/api @plan.json --expect 17
  segue state put plan/api '{\"owner\": \"ben\"}' --expect absent
  generate | segue state put plan/api - --base 17";

/// How a key is written.
#[derive(Debug, Args)]
pub struct TermsArgs {
    /// Only if the key is at this version, or absent
    #[arg(long, value_name = "N|absent", conflicts_with = "base")]
    pub expect: Option<Expect>,
    /// The version that the value was made from: what others changed since is merged
    #[arg(long, value_name = "N", conflicts_with = "policy")]
    pub base: Option<u64>,
    /// What happens if the key is not as expected: reject, last-writer or merge [default: the policy of the key]
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Only if this lock is held under --token
    #[arg(long, value_name = "NAME", requires = "token")]
    pub lock: Option<String>,
    /// The token that `segue lock take` printed
    #[arg(long, value_name = "TOKEN", requires = "lock")]
    pub token: Option<u64>,
    /// Who writes [default: the user]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// What to do with locks.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Take a lock, and print its token
    #[command(
        after_help = "Examples:\n  token=$(segue lock take deploy --ttl 5m)\n  segue lock take deploy --wait 10m"
    )]
    Take {
        /// The lock
        name: String,
        /// How long it is held without renewal, such as 30s or 5m
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
        ttl: u64,
        /// How long to wait where somebody holds it, such as 10m [default: not at all]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        wait: Option<u64>,
        /// Who takes it [default: the user]
        #[arg(long, value_name = "NAME")]
        holder: Option<String>,
    },
    /// Hold a lock for longer
    #[command(after_help = "Example:\n  segue lock renew deploy 17 --ttl 5m")]
    Renew {
        /// The lock
        name: String,
        /// The token that `take` printed
        token: u64,
        /// How long from now, such as 30s or 5m
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
        ttl: u64,
    },
    /// Give a lock back
    #[command(after_help = "Example:\n  segue lock release deploy 17")]
    Release {
        /// The lock
        name: String,
        /// The token that `take` printed
        token: u64,
    },
    /// List the locks that are held
    #[command(after_help = "Example:\n  segue lock list")]
    List,
}
