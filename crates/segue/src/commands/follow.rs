//! Follows a task to its end: as a live tree, as lines, as JSON, or in silence.

use crate::api::event_view::EventView;
use crate::api::views::{ErrorView, TaskDetail, at};
use crate::client::{Client, Lines, with_params};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::screen::live::{Live, say};
use crate::screen::plain::{event_line, summary_line};
use crate::screen::text::now;
use crate::screen::tree::{Look, Tree};
use crate::signals::Signals;
use segue_core::task::TaskState;
use segue_core::time::Time;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// Pictures of the spinner a second.
const FRAMES_PER_S: u64 = 10;

/// Those below a task that has ended are cancelled after it: what they have for that.
const STRAGGLERS: Duration = Duration::from_secs(2);

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// How to show what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A tree where standard error is a terminal, else lines.
    People,
    /// One event a line on standard output.
    Json,
    /// Nothing.
    Nothing,
}

impl Show {
    /// What the command line asks for.
    pub fn of(cx: &Context, quiet: bool) -> Show {
        match (cx.json, quiet) {
            (true, _) => Show::Json,
            (false, true) => Show::Nothing,
            (false, false) => Show::People,
        }
    }
}

/// How a task ended.
#[derive(Debug)]
pub struct Ended {
    /// Its terminal state.
    pub state: TaskState,
    /// Why, where it has no output.
    pub error: Option<ErrorView>,
    /// The signal that led to it, if one did.
    pub signal: Option<Exit>,
}

impl Ended {
    /// The exit code that tells of it.
    pub fn exit(&self) -> Exit {
        match (self.state, self.signal) {
            (TaskState::Completed, _) => Exit::Done,
            (_, Some(signal)) => signal,
            (TaskState::Cancelled, None) => Exit::Cancelled,
            _ => Exit::Failed,
        }
    }
}

/// What is followed.
#[derive(Clone, Debug)]
pub struct Target {
    /// The task whose end counts.
    pub task: String,
    /// Its run.
    pub run: String,
    /// Whether a signal cancels it.
    pub own: bool,
}

/// What following came to.
#[derive(Debug)]
pub enum Followed {
    /// The task has ended.
    Ended(Ended),
    /// The node that had it went away.
    Gone,
}

/// Follows a task, over several nodes if need be.
pub struct Follower<'a> {
    cx: &'a Context,
    target: Target,
    show: Show,
    tree: Tree,
    live: Option<Live>,
    since: Time,
    frame: usize,
    /// Whoever read standard output has gone; the run goes on.
    deaf: bool,
    told: Option<Exit>,
}

impl<'a> Follower<'a> {
    /// Follows from the first event on.
    pub fn new(cx: &'a Context, target: Target, show: Show) -> Follower<'a> {
        let live = if show == Show::People { Live::start() } else { None };
        Follower {
            cx,
            target,
            show,
            tree: Tree::default(),
            live,
            since: now(),
            frame: 0,
            deaf: false,
            told: None,
        }
    }

    /// Follows by this client until the task has ended, or its node has gone.
    ///
    /// # Errors
    /// When a signal ends a mere onlooker, or the API refuses.
    pub async fn follow(&mut self, client: &Client, signals: &mut Signals) -> Outcome<Followed> {
        let detail = match self.attend(client, signals).await {
            Ok(Some(detail)) => detail,
            Ok(None) => return Ok(Followed::Gone),
            // A node that goes away between two questions.
            Err(failure) if failure.exit == Exit::Node && !client.is_here() => {
                return Ok(Followed::Gone);
            }
            Err(failure) => return Err(failure),
        };
        self.finish(detail.task.state);
        let ended = Ended { state: detail.task.state, error: detail.task.error, signal: self.told };
        Ok(Followed::Ended(ended))
    }

    /// Waits for the end: the task as it is then. Nothing where the stream broke off and the node is gone.
    async fn attend(
        &mut self,
        client: &Client,
        signals: &mut Signals,
    ) -> Outcome<Option<TaskDetail>> {
        let mut lines = self.open(client).await?;
        let mut ticks = tokio::time::interval(Duration::from_millis(1_000 / FRAMES_PER_S));
        let mut ended: Option<(TaskDetail, Instant)> = None;
        loop {
            let enough = ended.as_ref().map(|(_, enough)| *enough);
            tokio::select! {
                biased;
                line = lines.next() => match line {
                    // Of a task that was put back into the queue the log has an end that is none.
                    Ok(Some(line)) => if self.take(&line) {
                        ended = self.ended(client).await?.map(|task| (task, Instant::now() + STRAGGLERS));
                    },
                    Ok(None) | Err(_) => return self.ended(client).await,
                },
                exit = signals.first(), if self.told.is_none() => {
                    if !self.target.own {
                        return Err(Failure::silent(exit));
                    }
                    self.told = Some(exit);
                    say("cancelling the run; once more leaves at once");
                    self.cancel(client, exit).await?;
                }
                () = sleep_until(enough), if enough.is_some() => return Ok(ended.map(|(task, _)| task)),
                _ = ticks.tick(), if self.live.is_some() => self.draw(true),
            }
            if ended.is_some() && self.tree.is_over(&self.target.task) {
                return Ok(ended.map(|(task, _)| task));
            }
        }
    }

    /// The task, if it has ended.
    async fn ended(&self, client: &Client) -> Outcome<Option<TaskDetail>> {
        let detail: TaskDetail = client.get(&format!("/v1/tasks/{}", self.target.task)).await?;
        Ok(detail.task.state.is_terminal().then_some(detail))
    }

    async fn open(&self, client: &Client) -> Outcome<Lines> {
        let params = [
            ("run", Some(self.target.run.clone())),
            ("after", Some(self.tree.cursor.to_string())),
            ("follow", Some("1".to_owned())),
        ];
        client.lines(&with_params("/v1/events", &params)).await
    }

    async fn cancel(&self, client: &Client, exit: Exit) -> Outcome<()> {
        let signal = if exit == Exit::Terminated { "SIGTERM" } else { "Ctrl-C" };
        let body = json!({ "reason": format!("cancelled by {signal}") });
        let path = format!("/v1/tasks/{}/cancel", self.target.task);
        match client.post::<serde_json::Value>(&path, &body).await {
            // It may have ended by itself a moment before.
            Ok(_) | Err(Failure { exit: Exit::Failed, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Takes in a line of the stream; true where it tells of the end.
    fn take(&mut self, line: &str) -> bool {
        let Ok(event) = serde_json::from_str::<EventView>(line) else {
            tracing::warn!(line, "an event that cannot be understood was left out");
            return false;
        };
        self.tree.apply(&event);
        match self.show {
            Show::Json if !self.deaf => self.deaf = self.cx.print(line).is_err(),
            Show::People if self.live.is_none() => {
                if let Some(text) = event_line(&self.tree, &event, self.since, self.cx.err) {
                    say(&text);
                }
            }
            Show::Json | Show::People | Show::Nothing => {}
        }
        event.task.as_deref() == Some(&self.target.task) && event.what.end().is_some()
    }

    fn draw(&mut self, moving: bool) {
        let Some(live) = &mut self.live else { return };
        self.frame += 1;
        let (height, width) = live.size();
        let look = Look {
            paint: self.cx.err,
            width: width - 1,
            // The last picture shares the screen with the lines that follow it.
            height: Some(if moving { height - 1 } else { height.saturating_sub(4).max(3) }),
            now: now(),
            frame: moving.then_some(self.frame),
        };
        live.draw(&self.tree.lines(Some(&self.target.task), &look));
    }

    /// The last picture stays, with a line under it that says how it ended.
    fn finish(&mut self, state: TaskState) {
        if self.show != Show::People {
            return;
        }
        self.draw(false);
        self.live = None;
        say(&summary_line(&self.tree, &self.target.task, state, now(), self.cx.err));
    }
}

/// The last line of a run as JSON.
pub fn run_ended(run: &str, ended: &Ended, output: Option<serde_json::Value>) -> serde_json::Value {
    json!({
        "event": "run_ended",
        "run": run,
        "at": at(now()),
        "state": ended.state,
        "output": output,
        "error": ended.error,
    })
}
