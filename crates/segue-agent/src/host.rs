//! Stop 6 of the trip: a process that hosts agents takes letters, runs attempts, and reports how they ended.

use crate::attempts::Attempts;
use crate::reporter::{Reporter, Reports, outage, spool_loop, stopped};
use crate::runner::{Control, End, Ran, Runner, Said};
use crate::schema::Schemas;
use crate::slots::Slots;
use crate::spool::Spool;
use futures_util::FutureExt;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use segue_core::agent::AgentSpec;
use segue_core::failpoint;
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{
    Address, Letter, LetterBody, Notice, TaskRequest, TaskResponse, WIRE_VERSION,
};
use segue_core::outcome::Outcome;
use segue_core::payload::Payload;
use segue_core::ports::{Blobs, BusError, Clock, Consumer, OwnHost, WorkBus};
use segue_core::state::OutcomeState;
use segue_core::task::{ErrorClass, TaskError};
use segue_core::time::Time;
use segue_core::trace::Traceparent;
use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Letters taken at a time.
pub(crate) const BATCH_MAX: usize = 1_024;
/// An attempt that has ended by then is reported once, with its outcome; others are reported as started.
const STARTED_AFTER: Duration = Duration::from_millis(50);
/// When the bus is away, this long until the next try.
pub(crate) const BACKOFF: Duration = Duration::from_millis(250);
/// A host that is told to stop has done so after this long, whatever the bus does.
pub const STOP_MAX: Duration = Duration::from_secs(4);
/// Letters that wait to be published before progress is left out. Outcomes are always kept.
pub const BACKLOG_MAX: usize = 10_000;

/// What a host stands on.
#[derive(Clone)]
pub struct HostParts {
    /// The host; the same over restarts.
    pub host: HostId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Carries letters.
    pub bus: Arc<dyn WorkBus>,
    /// Keeps large payloads.
    pub blobs: Arc<dyn Blobs>,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
}

pub use crate::reporter::Outlet;

mod bodies;

/// An agent that this host has.
#[derive(Clone)]
pub struct Hosted {
    /// Who it is.
    pub spec: AgentSpec,
    /// What runs its attempts.
    pub runner: Arc<dyn Runner>,
}

/// What a letter brought: the attempt, and what its reports repeat.
struct Work {
    task: TaskId,
    /// The agent, as far as this host has it.
    agent: Arc<str>,
    hops: u16,
    traceparent: Option<Traceparent>,
    request: Box<TaskRequest>,
}

struct Lodger {
    spec: Arc<AgentSpec>,
    runner: Arc<dyn Runner>,
    schemas: Schemas,
    slots: Arc<Slots>,
}

/// A process that hosts agents.
pub struct Host {
    parts: HostParts,
    lodgers: Mutex<FxHashMap<InstanceId, Arc<Lodger>>>,
    /// Also those of agents that have gone, as long as something of theirs runs.
    slots: Mutex<FxHashMap<InstanceId, Weak<Slots>>>,
    attempts: Mutex<Attempts>,
    reports: mpsc::UnboundedSender<Letter>,
    /// Where outcomes are kept until they are delivered, if they are.
    spool: Option<Arc<Spool>>,
    /// Letters that were reported and are not published.
    backlog: Arc<AtomicUsize>,
    stopping: watch::Sender<bool>,
    running: watch::Sender<usize>,
    loops: Mutex<JoinSet<()>>,
}

impl Host {
    /// Starts to take letters. The agents must be registered afterwards, so that no letter comes before there is a queue.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn start(parts: HostParts, agents: Vec<Hosted>) -> Result<Arc<Host>, BusError> {
        Host::start_with(parts, agents, None).await
    }

    /// The same, with outcomes kept on the disk until they are delivered.
    ///
    /// # Errors
    /// When the bus cannot be reached.
    pub async fn start_with(
        parts: HostParts,
        agents: Vec<Hosted>,
        outlet: Option<Outlet>,
    ) -> Result<Arc<Host>, BusError> {
        let consumer = parts.bus.consume(Address::Host(parts.host)).await?;
        let (reports, receiver) = mpsc::unbounded_channel();
        let host = Arc::new(Host {
            parts,
            lodgers: Mutex::default(),
            slots: Mutex::default(),
            attempts: Mutex::default(),
            reports,
            spool: outlet.as_ref().map(|outlet| outlet.spool.clone()),
            backlog: Arc::default(),
            stopping: watch::Sender::new(false),
            running: watch::Sender::new(0),
            loops: Mutex::new(JoinSet::new()),
        });
        host.set_agents(agents);
        let mut loops = host.loops.lock();
        loops.spawn(take_letters(host.clone(), consumer));
        let reports = match outlet {
            None => Reports::Direct(receiver),
            Some(outlet) => {
                let (keep, kept) = mpsc::unbounded_channel();
                let stopping = host.stopping.subscribe();
                loops.spawn(spool_loop(outlet.spool.clone(), receiver, keep, stopping));
                Reports::Spooled { outlet, kept }
            }
        };
        let reporter = Reporter {
            bus: host.parts.bus.clone(),
            reports,
            backlog: host.backlog.clone(),
            stopping: host.stopping.subscribe(),
            outage: outage(),
            until: None,
        };
        loops.spawn(reporter.run());
        drop(loops);
        Ok(host)
    }

    /// Has these agents from now on. Attempts that run go on with what they began with.
    pub fn set_agents(&self, agents: Vec<Hosted>) {
        let mut now = FxHashMap::default();
        for Hosted { spec, runner } in agents {
            let slots = self.slots_of(&spec);
            let schemas = Schemas::of(&spec);
            let lodger = Lodger { spec: Arc::new(spec), runner, schemas, slots };
            now.insert(lodger.spec.instance, Arc::new(lodger));
        }
        *self.lodgers.lock() = now;
        self.slots.lock().retain(|_, slots| slots.strong_count() > 0);
    }

    /// The slots of an instance: those that it had, if something of it is still there.
    fn slots_of(&self, spec: &AgentSpec) -> Arc<Slots> {
        let count = spec.max_concurrency as usize;
        let mut all = self.slots.lock();
        if let Some(slots) = all.get(&spec.instance).and_then(Weak::upgrade) {
            slots.resize(count);
            return slots;
        }
        let slots = Arc::new(Slots::new(count));
        all.insert(spec.instance, Arc::downgrade(&slots));
        slots
    }

    /// Attempts that run now.
    pub fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Letters that were reported and are not published.
    pub fn unpublished(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Waits until no attempt runs.
    pub async fn idle(&self) {
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Ends every attempt that runs, and waits until nothing of them is left.
    pub async fn cancel_all(&self, reason: &str) {
        for cancel in self.attempts.lock().running.values() {
            cancel.send_replace(Some(reason.to_owned()));
        }
        self.idle().await;
    }

    /// Takes no more letters, and hands over what has been reported, as far as the bus takes it within two seconds. What runs should have
    /// ended before: its outcome would not be reported any more. Takes [`STOP_MAX`] at most.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let mut loops = std::mem::take(&mut *self.loops.lock());
        let ended = async { while loops.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!("the bus does not let go of this host; it is left");
        }
    }

    fn accept(self: &Arc<Self>, letter: Letter) -> Result<(), String> {
        if let Some(reason) = refusal(&letter) {
            return Err(reason);
        }
        match (letter.task, letter.body) {
            (Some(task), LetterBody::TaskRequest(request)) => {
                self.begin(task, letter.hops, letter.traceparent, request);
            }
            (_, LetterBody::Event(Notice::Cancel { attempt, reason })) => {
                self.cancel(attempt, reason);
            }
            // Refused above.
            _ => {}
        }
        Ok(())
    }

    fn cancel(&self, attempt: AttemptId, reason: String) {
        let mut attempts = self.attempts.lock();
        match attempts.running.get(&attempt) {
            Some(cancel) => {
                cancel.send_replace(Some(reason));
            }
            // The cancellation overtook the work: the work must not begin when it comes.
            None => {
                attempts.remember(attempt);
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        task: TaskId,
        hops: u16,
        traceparent: Option<Traceparent>,
        request: Box<TaskRequest>,
    ) {
        if request.incarnation != self.parts.incarnation {
            // It was for an earlier life of this host: the store knows that it is lost.
            return;
        }
        let lodger = self.lodgers.lock().get(&request.instance).cloned();
        let (cancel, cancelled) = watch::channel(None);
        {
            let mut attempts = self.attempts.lock();
            if !attempts.remember(request.attempt) {
                return;
            }
            attempts.running.insert(request.attempt, cancel);
        }
        self.running.send_modify(|running| *running += 1);
        failpoint::pass("agent-accepted");
        let agent = lodger.as_ref().map_or_else(|| "segue".into(), |l| l.spec.name.clone());
        let work = Work { task, agent, hops, traceparent, request };
        let host = self.clone();
        tokio::spawn(async move {
            // Without this a bug in a runner would leave an attempt that never ends, on a host that never idles.
            let run = AssertUnwindSafe(host.run(&work, lodger, cancelled)).catch_unwind();
            if let Err(panic) = run.await {
                let message = format!("its runner broke off: {}", words(panic.as_ref()));
                let outcome = failed(TaskError::new(ErrorClass::Transient, message));
                host.respond(&work, None, outcome, Ran::plain(End::Cancelled));
            }
            host.attempts.lock().running.remove(&work.request.attempt);
            host.running.send_modify(|running| *running -= 1);
        });
    }

    async fn run(
        &self,
        work: &Work,
        lodger: Option<Arc<Lodger>>,
        mut cancelled: watch::Receiver<Option<String>>,
    ) {
        let Some(lodger) = lodger else {
            let error = TaskError::new(ErrorClass::Transient, "its host no longer has this agent");
            return self.respond(work, None, failed(error), Ran::plain(End::Cancelled));
        };
        let slot = tokio::select! {
            biased;
            _ = cancelled.wait_for(Option::is_some) => None,
            slot = lodger.slots.take() => Some(slot),
        };
        let Some(_slot) = slot else {
            return self.respond(work, None, Outcome::Cancelled, Ran::plain(End::Cancelled));
        };
        let started_at = self.parts.clock.now();
        let (said, hear) = mpsc::unbounded_channel();
        // A body may have to be waited for while whoever has it is away.
        let mut told = cancelled.clone();
        let job = tokio::select! {
            biased;
            _ = told.wait_for(Option::is_some) => {
                return self.respond(work, None, Outcome::Cancelled, Ran::plain(End::Cancelled));
            }
            job = self.job(work, Control { cancelled, said }) => job,
        };
        let job = match job {
            Ok(job) => job,
            Err(error) => {
                let message = format!("its input could not be read: {error}");
                let outcome = failed(TaskError::new(ErrorClass::Transient, message));
                return self.respond(work, None, outcome, Ran::plain(End::Cancelled));
            }
        };
        failpoint::pass("agent-started");
        let mut ran = {
            let run = lodger.runner.run(job);
            self.listen(work, started_at, run, hear).await
        };
        failpoint::pass("agent-ended");
        let end = std::mem::replace(&mut ran.end, End::Cancelled);
        let mut outcome = self.outcome(&lodger, &work.request, end).await;
        let mut state = OutcomeState::default();
        if matches!(outcome, Outcome::Complete { .. } | Outcome::Delegate { .. }) {
            match self.state(std::mem::take(&mut ran.state)).await {
                Ok(writes) => state = writes,
                Err(error) => outcome = failed(error),
            }
        }
        failpoint::pass("before-report");
        self.respond_with(work, Some(started_at), outcome, state, ran);
        failpoint::pass("after-report");
    }

    /// Runs the attempt, and passes on what it says meanwhile.
    async fn listen(
        &self,
        work: &Work,
        started_at: Time,
        run: segue_core::ports::Fut<'_, Ran>,
        mut hear: mpsc::UnboundedReceiver<Said>,
    ) -> Ran {
        let mut run = run;
        // An attempt that ends at once needs no timer.
        let first = poll_fn(|context| Poll::Ready(run.as_mut().poll(context))).await;
        if let Poll::Ready(ran) = first {
            self.last_words(work, &mut hear);
            return ran;
        }
        let mut process = None;
        let mut reported = false;
        let report_start = tokio::time::sleep(STARTED_AFTER);
        tokio::pin!(report_start);
        loop {
            tokio::select! {
                biased;
                ran = &mut run => {
                    self.last_words(work, &mut hear);
                    return ran;
                }
                Some(said) = hear.recv() => match said {
                    Said::Started(began) => process = began,
                    Said::Progress(note) => self.progress(work, note),
                },
                () = &mut report_start, if !reported => {
                    reported = true;
                    let notice = Notice::Started {
                        attempt: work.request.attempt,
                        secret: work.request.secret.clone(),
                        at: started_at,
                        process,
                    };
                    self.send(work, LetterBody::Event(notice));
                }
            }
        }
    }

    /// What was said just before the end still goes before the outcome.
    fn last_words(&self, work: &Work, hear: &mut mpsc::UnboundedReceiver<Said>) {
        while let Ok(said) = hear.try_recv() {
            if let Said::Progress(note) = said {
                self.progress(work, note);
            }
        }
    }

    fn progress(&self, work: &Work, note: String) {
        // Progress is for people: what is too large for a row is left out.
        let Ok(note) = Payload::of_text(note) else { return };
        if self.backlog.load(Ordering::Relaxed) >= BACKLOG_MAX {
            return;
        }
        let Work { request, .. } = work;
        let notice =
            Notice::Progress { attempt: request.attempt, secret: request.secret.clone(), note };
        self.send(work, LetterBody::Event(notice));
    }

    fn respond(&self, work: &Work, started_at: Option<Time>, outcome: Outcome, ran: Ran) {
        self.respond_with(work, started_at, outcome, OutcomeState::default(), ran);
    }

    fn respond_with(
        &self,
        work: &Work,
        started_at: Option<Time>,
        outcome: Outcome,
        state: OutcomeState,
        ran: Ran,
    ) {
        let response = TaskResponse {
            attempt: work.request.attempt,
            secret: work.request.secret.clone(),
            started_at,
            process: ran.process,
            outcome,
            state,
            usage: ran.usage,
            ended: ran.ended,
        };
        self.send(work, LetterBody::TaskResponse(Box::new(response)));
    }

    fn send(&self, work: &Work, body: LetterBody) {
        let attempt = work.request.attempt.0.as_u128();
        let letter = Letter {
            seq: 0,
            version: WIRE_VERSION,
            from: work.agent.clone(),
            to: Address::Engine,
            task: Some(work.task),
            reply_to: None,
            correlation: Some(attempt),
            causation: Some(attempt),
            traceparent: work.traceparent,
            hops: work.hops,
            at: self.parts.clock.now(),
            body,
        };
        // After `stop` nobody publishes it, as that says.
        if self.reports.send(letter).is_ok() {
            self.backlog.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl OwnHost for Host {
    fn id(&self) -> HostId {
        self.parts.host
    }

    fn take(self: Arc<Self>, mut letters: Vec<Letter>) -> Vec<Letter> {
        if *self.stopping.borrow() {
            return letters;
        }
        let mine = Address::Host(self.parts.host);
        let fits = |letter: &mut Letter| letter.to == mine && refusal(letter).is_none();
        for letter in letters.extract_if(.., fits) {
            // Only what would be refused is an error.
            let _ = self.accept(letter);
        }
        letters
    }
}

/// Why a host takes no such letter, where it does not.
fn refusal(letter: &Letter) -> Option<String> {
    if letter.version != WIRE_VERSION {
        return Some(format!(
            "wire version {} is unknown; this host speaks {WIRE_VERSION}",
            letter.version
        ));
    }
    if letter.task.is_none() {
        return Some("the letter names no task".into());
    }
    match &letter.body {
        LetterBody::TaskRequest(_) | LetterBody::Event(Notice::Cancel { .. }) => None,
        LetterBody::Event(
            Notice::Started { .. } | Notice::Progress { .. } | Notice::Reaped { .. },
        )
        | LetterBody::TaskResponse(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => Some("a host takes work and cancellations only".into()),
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason")
}

fn failed(error: TaskError) -> Outcome {
    Outcome::Fail { error, retry_after_ms: None }
}

/// Takes letters, and acknowledges each once it is accepted: the lease, not an open message, recovers a lost run.
async fn take_letters(host: Arc<Host>, mut consumer: Box<dyn Consumer>) {
    let mut stopping = host.stopping.subscribe();
    loop {
        let next = async {
            if let Some(spool) = &host.spool {
                spool.room().await;
            }
            consumer.next(BATCH_MAX).await
        };
        let next = tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            next = next => next,
        };
        let batch = match next {
            Ok(batch) => batch,
            Err(BusError::Closed) => return,
            Err(error) => {
                // The bus tells that it is away.
                tracing::debug!(%error, "cannot take work for now");
                let _ = tokio::time::timeout(BACKOFF, stopped(&mut stopping)).await;
                continue;
            }
        };
        let mut done = Vec::with_capacity(batch.len());
        for delivery in batch {
            match host.accept(delivery.letter) {
                Ok(()) => done.push(delivery.token),
                Err(reason) => {
                    tracing::warn!(%reason, "a letter to this host was refused");
                    let _ = consumer.reject(delivery.token, Some(reason)).await;
                }
            }
        }
        let _ = consumer.ack(done).await;
    }
}
