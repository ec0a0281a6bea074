//! The in-memory store and the in-process bus, with what the real ones take. What the rules themselves take is measured on the way.

use parking_lot::Mutex;
use segue_bus::in_process::InProcessBus;
use segue_core::agent::Agent;
use segue_core::command::{Command, Duty, Reply};
use segue_core::event::Event;
use segue_core::ids::{HostId, InstanceId, TaskId};
use segue_core::letter::{Address, Letter};
use segue_core::ports::{
    BusError, Consumer, DeadLetter, Decision, Effects, EventFilter, Fut, Pruned, Store, StoreError,
    TaskFilter, WorkBus,
};
use segue_core::state::{Lock, Policy, StateVersion};
use segue_core::task::{AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use segue_testkit::memory::MemoryStore;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Commands of one transaction; the same bound as the stores have.
const WEIGHT_MAX: usize = 2_048;

/// What was measured of one commit.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Commands in it, `Assign` apart.
    pub commands: u32,
    /// Tasks that were given out.
    pub assigned: u32,
    /// What it took to decide, in real nanoseconds.
    pub nanos: u64,
}

struct Call {
    batch: Vec<Command>,
    answer: oneshot::Sender<Result<Vec<Decision>, StoreError>>,
}

/// A store whose commits take what the model says, a few at a time.
pub struct CostlyStore {
    /// The rows.
    pub inner: Arc<MemoryStore>,
    waiting: Mutex<VecDeque<Call>>,
    arrived: Notify,
    commit: Duration,
    row: Duration,
    /// One entry a commit.
    pub commits: Mutex<Vec<Commit>>,
    /// Real time that reading took.
    pub reads_nanos: Mutex<BTreeMap<&'static str, (u64, u64)>>,
}

impl CostlyStore {
    /// A store over these rows with so many lanes.
    pub fn start(inner: Arc<MemoryStore>, lanes: u64, commit_ms: u64, row_us: u64) -> Arc<Self> {
        let store = Arc::new(CostlyStore {
            inner,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            commit: Duration::from_millis(commit_ms),
            row: Duration::from_micros(row_us),
            commits: Mutex::default(),
            reads_nanos: Mutex::default(),
        });
        for _ in 0..lanes {
            tokio::spawn(store.clone().lane());
        }
        store
    }

    async fn lane(self: Arc<Self>) {
        loop {
            let arrived = self.arrived.notified();
            let calls = self.gather();
            if calls.is_empty() {
                arrived.await;
                continue;
            }
            self.transact(calls).await;
        }
    }

    fn gather(&self) -> Vec<Call> {
        let mut waiting = self.waiting.lock();
        let mut calls = Vec::new();
        let mut weight = 0;
        while let Some(call) = waiting.front() {
            weight += call.batch.len();
            if weight > WEIGHT_MAX && !calls.is_empty() {
                break;
            }
            calls.extend(waiting.pop_front());
        }
        if !waiting.is_empty() {
            self.arrived.notify_one();
        }
        calls
    }

    /// One transaction of several callers. Of all that ask to assign, one is heard: the others would find nothing more.
    async fn transact(&self, calls: Vec<Call>) {
        let last = |command: &Command| matches!(command, Command::Assign(_));
        let assigns = calls.iter().flat_map(|call| &call.batch).filter(|it| last(it)).count();
        let mut seen = 0;
        let mut batch = Vec::new();
        let mut heard: Vec<Vec<bool>> = Vec::new();
        for call in &calls {
            let mut flags = Vec::with_capacity(call.batch.len());
            for command in &call.batch {
                seen += usize::from(last(command));
                let takes_part = !last(command) || seen == assigns;
                if takes_part {
                    batch.push(command.clone());
                }
                flags.push(takes_part);
            }
            heard.push(flags);
        }
        let commands = batch.len() - usize::from(assigns > 0);
        let began = std::time::Instant::now();
        let decisions = self.inner.apply(batch).await;
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut decisions = match decisions {
            Ok(decisions) => decisions.into_iter(),
            Err(error) => {
                for call in calls {
                    let _ = call.answer.send(Err(error.clone()));
                }
                return;
            }
        };
        let mut rows = 0;
        let mut assigned = 0;
        let mut answers = Vec::new();
        for flags in heard {
            let answer: Vec<Decision> = flags
                .iter()
                .map(|taken| if *taken { decisions.next() } else { None })
                .map(|decision| decision.unwrap_or_else(nothing))
                .collect();
            for effects in answer.iter().flatten() {
                rows += 2 + effects.letters.len();
                if let Reply::Assigned(number) = effects.reply {
                    assigned += number;
                    rows += 3 * number;
                }
            }
            answers.push(answer);
        }
        self.commits.lock().push(Commit {
            commands: commands as u32,
            assigned: assigned as u32,
            nanos,
        });
        tokio::time::sleep(self.commit + self.row * rows as u32).await;
        for (call, answer) in calls.into_iter().zip(answers) {
            let _ = call.answer.send(Ok(answer));
        }
    }

    fn timed<'a, T>(&'a self, what: &'static str, read: impl FnOnce() -> Fut<'a, T>) -> Fut<'a, T> {
        let began = std::time::Instant::now();
        let answer = read();
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut reads = self.reads_nanos.lock();
        let entry = reads.entry(what).or_default();
        *entry = (entry.0 + 1, entry.1 + nanos);
        answer
    }
}

fn nothing() -> Decision {
    Ok(Effects {
        reply: Reply::Assigned(0),
        letters: Vec::new(),
        duties: Vec::new(),
        next_due: None,
        may_assign: false,
        look_again: false,
        ended: Vec::new(),
        attempts: Vec::new(),
        state_changed: false,
    })
}

impl Store for CostlyStore {
    fn apply(&self, batch: Vec<Command>) -> Fut<'_, Result<Vec<Decision>, StoreError>> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().push_back(Call { batch, answer });
        self.arrived.notify_one();
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(StoreError::Stopped("the simulation ended".into())))
        })
    }

    fn now(&self) -> Time {
        self.inner.now()
    }

    fn task(&self, id: TaskId) -> Fut<'_, Result<Option<Arc<Task>>, StoreError>> {
        self.timed("task", || self.inner.task(id))
    }

    fn tasks_by_id(&self, ids: Vec<TaskId>) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        self.timed("tasks_by_id", || self.inner.tasks_by_id(ids))
    }

    fn tasks(&self, filter: TaskFilter) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        self.timed("tasks", || self.inner.tasks(filter))
    }

    fn counts(&self) -> Fut<'_, Result<BTreeMap<TaskState, u64>, StoreError>> {
        self.inner.counts()
    }

    fn attempts(&self, task: TaskId) -> Fut<'_, Result<Vec<AttemptRecord>, StoreError>> {
        self.inner.attempts(task)
    }

    fn agents(&self) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        self.timed("agents", || self.inner.agents())
    }

    fn agents_of(&self, host: HostId) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        self.timed("agents_of", || self.inner.agents_of(host))
    }

    fn agents_since(&self, version: u64) -> Fut<'_, Result<(u64, Vec<Agent>), StoreError>> {
        self.timed("agents_since", || self.inner.agents_since(version))
    }

    fn leases(&self) -> Fut<'_, Result<Vec<(InstanceId, Time)>, StoreError>> {
        self.timed("leases", || self.inner.leases())
    }

    fn events(&self, filter: EventFilter) -> Fut<'_, Result<Vec<Event>, StoreError>> {
        self.inner.events(filter)
    }

    fn unsent(&self, after: u64, limit: usize) -> Fut<'_, Result<Vec<Letter>, StoreError>> {
        self.timed("unsent", || self.inner.unsent(after, limit))
    }

    fn duties(&self, limit: usize) -> Fut<'_, Result<Vec<Duty>, StoreError>> {
        self.timed("duties", || self.inner.duties(limit))
    }

    fn next_due(&self) -> Fut<'_, Result<Option<Time>, StoreError>> {
        self.timed("next_due", || self.inner.next_due())
    }

    fn state_get(
        &self,
        key: Arc<str>,
        version: Option<u64>,
    ) -> Fut<'_, Result<Option<StateVersion>, StoreError>> {
        self.inner.state_get(key, version)
    }

    fn state_list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        self.inner.state_list(prefix, after, limit)
    }

    fn state_history(
        &self,
        key: Arc<str>,
        before: Option<u64>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        self.inner.state_history(key, before, limit)
    }

    fn state_changes(
        &self,
        prefix: Arc<str>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        self.inner.state_changes(prefix, after, limit)
    }

    fn state_stamp(&self) -> Fut<'_, Result<u64, StoreError>> {
        self.inner.state_stamp()
    }

    fn state_policies(&self) -> Fut<'_, Result<BTreeMap<Arc<str>, Policy>, StoreError>> {
        self.inner.state_policies()
    }

    fn locks(
        &self,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Lock>, StoreError>> {
        self.inner.locks(after, limit)
    }

    fn lock_of(&self, name: Arc<str>) -> Fut<'_, Result<Option<Lock>, StoreError>> {
        self.inner.lock_of(name)
    }

    fn prune(&self, before: Time) -> Fut<'_, Result<Pruned, StoreError>> {
        self.inner.prune(before)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.inner.health()
    }
}

/// A bus whose publishes take what the model says.
pub struct CostlyBus {
    /// What carries the letters.
    pub inner: Arc<InProcessBus>,
    /// What a publish takes.
    pub publish: Duration,
    /// Publishes, and letters in them.
    pub published: Mutex<(u64, u64)>,
}

impl WorkBus for CostlyBus {
    fn publish(&self, letters: Vec<Letter>) -> Fut<'_, Result<(), BusError>> {
        Box::pin(async move {
            {
                let mut published = self.published.lock();
                *published = (published.0 + 1, published.1 + letters.len() as u64);
            }
            tokio::time::sleep(self.publish).await;
            self.inner.publish(letters).await
        })
    }

    fn consume(&self, queue: Address) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.inner.consume(queue)
    }

    fn consume_dead(&self) -> Fut<'_, Result<Box<dyn Consumer>, BusError>> {
        self.inner.consume_dead()
    }

    fn look_at_dead(&self, limit: usize) -> Fut<'_, Result<Vec<DeadLetter>, BusError>> {
        self.inner.look_at_dead(limit)
    }

    fn comebacks(&self) -> Option<u64> {
        self.inner.comebacks()
    }
}
