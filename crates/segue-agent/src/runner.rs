//! What runs an attempt: the port that every kind of agent implements.

use segue_core::ids::TaskId;
use segue_core::letter::{EndedProcess, Resume, TeamMember};
use segue_core::outcome::Delegated;
use segue_core::ports::Fut;
use segue_core::state::{GivenState, KeyPut};
use segue_core::task::{ProcessRef, TaskError, Usage, WorkspaceKind};
use segue_core::trace::Traceparent;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// One attempt, as its runner sees it. The secret stays with the host.
#[derive(Debug)]
pub struct Job {
    /// The task.
    pub task: TaskId,
    /// The root of its run.
    pub run: TaskId,
    /// What people call the task.
    pub name: Arc<str>,
    /// The attempt's id, for people and logs.
    pub attempt: String,
    /// Its span, where its letter carried one.
    pub traceparent: Option<Traceparent>,
    /// The attempt's number within the task.
    pub number: u32,
    /// The capability asked for, where one was.
    pub capability: Option<Arc<str>>,
    /// The input, a JSON text.
    pub input: Arc<str>,
    /// Limit of this attempt in milliseconds.
    pub run_ms: Option<u64>,
    /// Where to work, if the agent's own setting is not meant.
    pub workspace: Option<WorkspaceKind>,
    /// What an earlier attempt left and how the children ended, with their outputs at hand; `None` where this is no resume.
    pub resume: Option<Resume>,
    /// What of shared state the task may use, with its values at hand, where it may use any.
    pub state: Option<Box<GivenState>>,
    /// Who there is, if the agent delegates.
    pub team: Vec<TeamMember>,
    /// How the runner hears that it must end, and says how far it is.
    pub control: Control,
}

/// The line between a host and one running attempt.
#[derive(Debug)]
pub struct Control {
    pub(crate) cancelled: watch::Receiver<Option<String>>,
    pub(crate) said: mpsc::UnboundedSender<Said>,
}

/// What a runner says while it runs.
#[derive(Debug)]
pub enum Said {
    /// The process began.
    Started(Option<ProcessRef>),
    /// How far it is: a JSON text.
    Progress(String),
}

impl Control {
    /// Waits until the attempt must end, and says why.
    pub async fn cancelled(&mut self) -> String {
        match self.cancelled.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The host went away without a word: nobody waits for the outcome.
            Err(_) => "its host has stopped".to_owned(),
        }
    }

    /// The process of the attempt began.
    pub fn started(&self, process: Option<ProcessRef>) {
        let _ = self.said.send(Said::Started(process));
    }

    /// Says how far the attempt is.
    pub fn progress(&self, note: &Value) {
        let _ = self.said.send(Said::Progress(note.to_string()));
    }
}

/// How an attempt ended, with what it used.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it writes into shared state, each with its value as a JSON text of any size. Kept where it completes or delegates.
    pub state: Vec<(KeyPut, String)>,
    /// What it used.
    pub usage: Option<Usage>,
    /// Its process, where it had one.
    pub process: Option<ProcessRef>,
    /// Processes that were ended or reaped with it.
    pub ended: Vec<EndedProcess>,
}

impl Ran {
    /// An end without a process.
    pub fn plain(end: End) -> Ran {
        Ran { end, state: Vec::new(), usage: None, process: None, ended: Vec::new() }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub enum End {
    /// With this output, a JSON text.
    Complete(String),
    /// With an error.
    Fail {
        /// Why.
        error: TaskError,
        /// No sooner than this many milliseconds from now.
        retry_after_ms: Option<u64>,
    },
    /// Others are to do a part of it. Inputs of any size.
    Delegate {
        /// The new tasks, each with its input as a JSON text.
        tasks: Vec<(Delegated, String)>,
        /// Whether a new attempt gets their results.
        resume: bool,
        /// What the next attempt gets back, a JSON text.
        continuation: Option<String>,
    },
    /// It was told to end.
    Cancelled,
}

/// Runs attempts of one agent.
pub trait Runner: Send + Sync {
    /// Runs one attempt to its end. Must return soon after [`Control::cancelled`] does, with nothing of it left running.
    fn run(&self, job: Job) -> Fut<'_, Ran>;
}

/// Runs nothing: completes at once with a fixed output. For benchmarks and tests of the way to an agent and back.
#[derive(Debug)]
pub struct Builtin {
    output: String,
}

impl Builtin {
    /// Completes every attempt with this JSON text.
    pub fn new(output: impl Into<String>) -> Builtin {
        Builtin { output: output.into() }
    }
}

impl Runner for Builtin {
    fn run(&self, _job: Job) -> Fut<'_, Ran> {
        Box::pin(std::future::ready(Ran::plain(End::Complete(self.output.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn line() -> (watch::Sender<Option<String>>, mpsc::UnboundedReceiver<Said>, Control) {
        let (cancel, cancelled) = watch::channel(None);
        let (said, hear) = mpsc::unbounded_channel();
        (cancel, hear, Control { cancelled, said })
    }

    #[test]
    fn a_cancellation_is_heard_also_by_who_listens_later_and_twice() {
        let (cancel, _hear, mut control) = line();
        assert_eq!(control.cancelled().now_or_never(), None);
        cancel.send_replace(Some("enough".into()));
        for _ in 0..2 {
            assert_eq!(control.cancelled().now_or_never().as_deref(), Some("enough"));
        }
    }

    #[test]
    fn a_host_that_goes_away_ends_the_attempt() {
        let (cancel, _hear, mut control) = line();
        drop(cancel);
        assert_eq!(control.cancelled().now_or_never().as_deref(), Some("its host has stopped"));
    }

    #[test]
    fn what_is_said_comes_in_order_and_to_nobody_does_no_harm() {
        let (_cancel, mut hear, control) = line();
        let process = Some(ProcessRef { pid: 1, start_time: 2 });
        control.started(process);
        control.progress(&serde_json::json!({ "a": "\n" }));
        assert!(matches!(hear.try_recv(), Ok(Said::Started(began)) if began == process));
        let Ok(Said::Progress(note)) = hear.try_recv() else { panic!("it said something") };
        assert_eq!(note, "{\"a\":\"\\n\"}");
        drop(hear);
        control.started(None);
        control.progress(&Value::Null);
    }
}
