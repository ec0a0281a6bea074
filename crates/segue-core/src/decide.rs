//! The one door in: every change of state goes through [`decide`].
//!
//! It is pure, synchronous and total: the same snapshot, command and context give the same answer, and
//! an impossible pair of state and command is a [`Reject`], never a panic.

mod agents;
mod assign;
mod cancel;
mod chance;
mod delegate;
mod draft;
mod ended;
mod expand;
mod finish;
mod report;
mod requeue;
mod state;
mod submit;
mod timers;

pub use assign::task_request;
pub use chance::{Chance, secret_of};
pub(crate) use ended::{ended_by_needs, refuses};
pub(crate) use requeue::failed_waiting;
pub(crate) use state::check as check_state;

use crate::changes::ChangeSet;
use crate::command::{Command, Reject};
use crate::snapshot::Snapshot;
use crate::time::Time;
use draft::Draft;

/// What `decide` may not find out by itself: the time, chance, and the key of the secrets.
#[derive(Debug)]
pub struct Ctx {
    /// Now, by the store's clock.
    pub now: Time,
    /// Where new ids and jitter come from.
    pub chance: Chance,
    /// The store's key, from which the secrets of attempts are derived. Never leaves the store.
    pub key: [u8; 32],
}

/// Decides one command against what is known.
///
/// # Errors
/// A [`Reject`] says why the command is refused; nothing changes then.
pub fn decide(snapshot: &Snapshot, command: &Command, ctx: &mut Ctx) -> Result<ChangeSet, Reject> {
    let mut draft = Draft::new(snapshot, ctx);
    let reply = match command {
        Command::Submit(submit) => submit::submit(&mut draft, submit)?,
        Command::Assign(assign) => assign::assign(&mut draft, assign)?,
        Command::Start { proof, at, process } => report::start(&mut draft, proof, *at, *process)?,
        Command::Progress { proof, note } => report::progress(&mut draft, proof, note)?,
        Command::Reaped { proof, ended } => report::reaped(&mut draft, proof, ended)?,
        Command::Finish { task, response } => finish::finish(&mut draft, *task, response)?,
        Command::Delegate { proof, tasks } => delegate::call(&mut draft, proof, tasks)?,
        Command::Expand { task, rendered } => expand::expand(&mut draft, *task, rendered)?,
        Command::Continue(duty) => ended::go_on(&mut draft, duty)?,
        Command::Resume { task } => timers::resume(&mut draft, *task)?,
        Command::Cancel { task, reason } => cancel::cancel(&mut draft, *task, reason)?,
        Command::Retry { task } => timers::retry(&mut draft, *task)?,
        Command::Requeue { task } => requeue::requeue(&mut draft, *task)?,
        Command::Tick { limit, excused } => timers::tick(&mut draft, *limit, *excused)?,
        Command::Register { host, incarnation, agents, lease_ms } => {
            agents::register(&mut draft, *host, *incarnation, agents, *lease_ms)?
        }
        Command::Renew { host, incarnation, lease_ms } => {
            agents::renew(&mut draft, *host, *incarnation, *lease_ms)?
        }
        Command::Drain { agent, drained } => agents::drain(&mut draft, agent, *drained)?,
        Command::ExpireAgent { instance, reason } => agents::expire(&mut draft, *instance, reason)?,
        Command::Settle { letters } => draft.settle(letters),
        Command::State(command) => state::command(&mut draft, command)?,
    };
    Ok(draft.finish(reply))
}
