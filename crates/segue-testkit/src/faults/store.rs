//! A store that fails within its promise.

use super::chance::Trouble;
use super::life::Life;
use parking_lot::Mutex;
use segue_core::agent::Agent;
use segue_core::command::{Command, Duty};
use segue_core::event::Event;
use segue_core::ids::{HostId, InstanceId, TaskId};
use segue_core::letter::Letter;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{
    Blobs, Clock, Decision, EventFilter, Fut, Pruned, Store, StoreError, TaskFilter,
};
use segue_core::state::{Lock, Policy, StateVersion};
use segue_core::task::{AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Any store with its bodies, as one process sees it: slow, full for a while, failing before a commit or silent after it.
///
/// When the [`Life`] ends the store is let go, so that it can be opened again.
pub struct FaultyStore {
    inner: Arc<Mutex<Option<Inner>>>,
    /// Tells the time where the store is gone.
    clock: Arc<dyn Clock>,
    life: Life,
    trouble: Arc<Trouble>,
    state: Mutex<State>,
}

#[derive(Clone)]
struct Inner {
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
}

#[derive(Default)]
struct State {
    /// It takes no more writes.
    stopped: Option<StoreError>,
    full_until: Option<Instant>,
    /// What the last write said, if the next one may go well.
    passing: Option<StoreError>,
}

impl FaultyStore {
    /// This store for the process of this life.
    pub fn over(
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        clock: Arc<dyn Clock>,
        life: Life,
        trouble: Arc<Trouble>,
    ) -> Arc<FaultyStore> {
        let inner = Arc::new(Mutex::new(Some(Inner { store, blobs })));
        let held = inner.clone();
        life.on_end(move || drop(held.lock().take()));
        Arc::new(FaultyStore { inner, clock, life, trouble, state: Mutex::default() })
    }

    fn inner(&self) -> Result<Inner, StoreError> {
        let gone = || StoreError::Stopped("its process has ended".into());
        self.inner.lock().clone().ok_or_else(gone)
    }

    fn stop(&self, message: &str) -> StoreError {
        let error = StoreError::Io(message.into());
        self.state.lock().stopped = Some(error.clone());
        error
    }

    /// What refuses a write before it begins.
    fn refuse(&self) -> Option<StoreError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.stopped {
            return Some(StoreError::Stopped(error.to_string()));
        }
        let now = Instant::now();
        if state.full_until.is_none_or(|until| until <= now) {
            state.full_until = None;
            if self.trouble.strikes(|rates| rates.store_full) {
                let ms = self.trouble.roll(self.trouble.rates().store_full_ms_max + 1);
                state.full_until = Some(now + Duration::from_millis(ms));
            }
        }
        if state.full_until.is_some() {
            let error = StoreError::Full("no space left on device".into());
            state.passing = Some(error.clone());
            return Some(error);
        }
        None
    }

    async fn write(&self, batch: Vec<Command>) -> Result<Vec<Decision>, StoreError> {
        self.life.step().await;
        self.trouble.delay().await;
        self.life.step().await;
        if let Some(error) = self.refuse() {
            return Err(error);
        }
        if self.trouble.strikes(|rates| rates.store_fails) {
            return Err(StoreError::Io("the connection was refused".into()));
        }
        let breaks = self.trouble.strikes(|rates| rates.store_breaks);
        if breaks && self.trouble.roll(2) == 0 {
            return Err(self.stop("the disk failed"));
        }
        let decided = self.inner()?.store.apply(batch).await?;
        self.state.lock().passing = None;
        if breaks {
            return Err(self.stop("the disk failed. Whether the last batch was kept shows later"));
        }
        self.life.step().await;
        self.trouble.delay().await;
        self.life.step().await;
        if self.trouble.strikes(|rates| rates.store_mute) {
            let message = "the connection broke. Whether the last batch was kept shows later";
            return Err(StoreError::Io(message.into()));
        }
        Ok(decided)
    }

    /// A read through what is in the way. What it found may be old by the time it is answered.
    async fn read<T>(
        &self,
        ask: impl for<'a> FnOnce(&'a Inner) -> Fut<'a, Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.life.step().await;
        self.trouble.delay().await;
        self.life.step().await;
        if self.trouble.strikes(|rates| rates.read_fails) {
            return Err(StoreError::Io("the connection broke".into()));
        }
        let inner = self.inner()?;
        let found = ask(&inner).await;
        drop(inner);
        self.trouble.delay().await;
        self.life.step().await;
        found
    }
}

impl Store for FaultyStore {
    fn apply(&self, batch: Vec<Command>) -> Fut<'_, Result<Vec<Decision>, StoreError>> {
        Box::pin(self.write(batch))
    }

    fn now(&self) -> Time {
        match self.inner() {
            Ok(inner) => inner.store.now(),
            Err(_) => self.clock.now(),
        }
    }

    fn task(&self, id: TaskId) -> Fut<'_, Result<Option<Arc<Task>>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.task(id)))
    }

    fn tasks_by_id(&self, ids: Vec<TaskId>) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.tasks_by_id(ids)))
    }

    fn tasks(&self, filter: TaskFilter) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.tasks(filter)))
    }

    fn counts(&self) -> Fut<'_, Result<BTreeMap<TaskState, u64>, StoreError>> {
        Box::pin(self.read(|inner| inner.store.counts()))
    }

    fn attempts(&self, task: TaskId) -> Fut<'_, Result<Vec<AttemptRecord>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.attempts(task)))
    }

    fn agents(&self) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        Box::pin(self.read(|inner| inner.store.agents()))
    }

    fn agents_of(&self, host: HostId) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.agents_of(host)))
    }

    fn agents_since(&self, version: u64) -> Fut<'_, Result<(u64, Vec<Agent>), StoreError>> {
        Box::pin(self.read(move |inner| inner.store.agents_since(version)))
    }

    fn leases(&self) -> Fut<'_, Result<Vec<(InstanceId, Time)>, StoreError>> {
        Box::pin(self.read(|inner| inner.store.leases()))
    }

    fn events(&self, filter: EventFilter) -> Fut<'_, Result<Vec<Event>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.events(filter)))
    }

    fn unsent(&self, after: u64, limit: usize) -> Fut<'_, Result<Vec<Letter>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.unsent(after, limit)))
    }

    fn duties(&self, limit: usize) -> Fut<'_, Result<Vec<Duty>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.duties(limit)))
    }

    fn next_due(&self) -> Fut<'_, Result<Option<Time>, StoreError>> {
        Box::pin(self.read(|inner| inner.store.next_due()))
    }

    fn state_get(
        &self,
        key: Arc<str>,
        version: Option<u64>,
    ) -> Fut<'_, Result<Option<StateVersion>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.state_get(key, version)))
    }

    fn state_list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.state_list(prefix, after, limit)))
    }

    fn state_history(
        &self,
        key: Arc<str>,
        before: Option<u64>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.state_history(key, before, limit)))
    }

    fn state_changes(
        &self,
        prefix: Arc<str>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.state_changes(prefix, after, limit)))
    }

    fn state_stamp(&self) -> Fut<'_, Result<u64, StoreError>> {
        Box::pin(self.read(|inner| inner.store.state_stamp()))
    }

    fn state_policies(&self) -> Fut<'_, Result<BTreeMap<Arc<str>, Policy>, StoreError>> {
        Box::pin(self.read(|inner| inner.store.state_policies()))
    }

    fn locks(
        &self,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Lock>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.locks(after, limit)))
    }

    fn lock_of(&self, name: Arc<str>) -> Fut<'_, Result<Option<Lock>, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.lock_of(name)))
    }

    fn prune(&self, before: Time) -> Fut<'_, Result<Pruned, StoreError>> {
        Box::pin(self.read(move |inner| inner.store.prune(before)))
    }

    fn health(&self) -> Result<(), StoreError> {
        let state = self.state.lock();
        let trouble = state.stopped.as_ref().or(state.passing.as_ref());
        trouble.map_or(Ok(()), |error| Err(error.clone()))
    }
}

impl Blobs for FaultyStore {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(self.read(move |inner| inner.blobs.put(bytes)))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(self.read(move |inner| inner.blobs.get(hash)))
    }
}
