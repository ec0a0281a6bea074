//! Work that this command attends to until it has ended, whichever node does it.

use super::follow::{Followed, Follower, Show, Target};
use super::result::print_result;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::project::Project;
use crate::screen::live::{restore, say};
use crate::signals::Signals;
use std::path::Path;
use std::time::Duration;

/// What attempts of other runs have to end by themselves once a node ends with the command that started it.
const PATIENCE: Duration = Duration::ZERO;
/// Looks for another node after one went away.
const LOOKS: u32 = 20;
/// The pause between them.
const PAUSE: Duration = Duration::from_millis(250);

/// Submits something by `submit` and follows it to its end: by the node that runs, else by one that is started here. Where that node
/// goes away, since the command that started it has ended, another one takes its place.
///
/// # Errors
/// What the API refuses; why the task failed; why no node can work.
pub async fn attended(
    cx: &Context,
    project: &Project,
    team: Option<&Path>,
    show: Show,
    submit: impl AsyncFnOnce(&Client) -> Outcome<String>,
) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut insisting = signals.clone();
    let work = async {
        let mut client = Client::working(project, team).await?;
        let task = match submit(&client).await {
            Ok(task) => task,
            Err(failure) => {
                client.close(PATIENCE).await;
                return Err(failure);
            }
        };
        let target = Target { task: task.clone(), run: task, own: true };
        let mut follower = Follower::new(cx, target.clone(), show);
        let result = loop {
            let followed = tokio::select! {
                followed = follower.follow(&client, &mut signals) => followed,
                why = client.failed() => Err(Failure::node(format!("the node cannot work any more: {why}"))
                    .hint("`segue doctor` looks for the cause; what was begun goes on when a node runs again")),
            };
            match followed {
                Ok(Followed::Ended(ended)) => {
                    break print_result(cx, &client, &target, &ended, show).await;
                }
                Ok(Followed::Gone) => {
                    client.close(PATIENCE).await;
                    client = Client::working(project, team).await?;
                    if client.is_here() && show == Show::People {
                        say(&cx.err.dim("the node that had this run has ended; it goes on here"));
                    }
                }
                Err(failure) => break Err(failure),
            }
        };
        client.close(PATIENCE).await;
        result
    };
    tokio::select! {
        result = work => result,
        exit = insisting.second() => {
            restore();
            Err(Failure::silent(exit))
        }
    }
}

/// Follows a task that somebody else attends to.
///
/// # Errors
/// When its node goes away and none comes back; why the task failed.
pub async fn watched(
    cx: &Context,
    project: &Project,
    mut client: Client,
    target: &Target,
    show: Show,
) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut follower = Follower::new(cx, target.clone(), show);
    let mut looks = 0;
    let result = loop {
        match follower.follow(&client, &mut signals).await {
            Ok(Followed::Ended(ended)) => {
                break print_result(cx, &client, target, &ended, show).await;
            }
            Ok(Followed::Gone) if looks < LOOKS => {
                looks += 1;
                client.close(Duration::ZERO).await;
                tokio::time::sleep(PAUSE).await;
                client = Client::of(project, None).await?;
            }
            Ok(Followed::Gone) => {
                break Err(Failure::node("the node went away").hint(format!(
                    "the run goes on when a node runs again: `segue up`, and `segue watch {}`",
                    target.task
                )));
            }
            Err(failure) => break Err(failure),
        }
    };
    client.close(Duration::ZERO).await;
    result
}
