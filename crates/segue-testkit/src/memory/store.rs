//! The port over a [`World`].

use super::world::World;
use parking_lot::Mutex;
use segue_core::agent::Agent;
use segue_core::command::{Command, Duty};
use segue_core::decide::{Chance, Ctx};
use segue_core::event::Event;
use segue_core::ids::{HostId, PROJECT_LOG, TaskId};
use segue_core::letter::Letter;
use segue_core::ports::{Clock, Decision, EventFilter, Fut, Pruned, Store, StoreError, TaskFilter};
use segue_core::state::{Lock, Policy, StateVersion};
use segue_core::task::{AttemptRecord, Task, TaskState};
use segue_core::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Keeps the state of a project in memory, for as long as it lives: the reference for other stores.
///
/// The same seed, key, clock and commands give the same rows, ids and secrets included.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

struct Inner {
    world: World,
    ctx: Ctx,
}

impl MemoryStore {
    /// An empty project. Ids and jitter come from `seed`, the secrets of attempts from `key`.
    pub fn new(clock: Arc<dyn Clock>, seed: u64, key: [u8; 32]) -> MemoryStore {
        let ctx = Ctx { now: clock.now(), chance: Chance::new(seed), key };
        MemoryStore { clock, inner: Mutex::new(Inner { world: World::new(), ctx }) }
    }

    /// The rows as they stand.
    pub fn world(&self) -> World {
        self.inner.lock().world.clone()
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&World) -> T,
    ) -> Fut<'_, Result<T, StoreError>> {
        let answer = read(&self.inner.lock().world);
        Box::pin(std::future::ready(Ok(answer)))
    }
}

impl Store for MemoryStore {
    fn apply(&self, batch: Vec<Command>) -> Fut<'_, Result<Vec<Decision>, StoreError>> {
        let now = self.now();
        let mut inner = self.inner.lock();
        let Inner { world, ctx } = &mut *inner;
        ctx.now = ctx.now.max(now);
        let decisions = world.run(&batch, ctx);
        Box::pin(std::future::ready(Ok(decisions)))
    }

    fn now(&self) -> Time {
        self.clock.now().max(self.inner.lock().ctx.now)
    }

    fn task(&self, id: TaskId) -> Fut<'_, Result<Option<Arc<Task>>, StoreError>> {
        self.read(|world| world.tasks.get(&id).cloned())
    }

    fn tasks_by_id(&self, ids: Vec<TaskId>) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        let ids: BTreeSet<TaskId> = ids.into_iter().collect();
        self.read(|world| ids.iter().filter_map(|id| world.tasks.get(id).cloned()).collect())
    }

    fn tasks(&self, filter: TaskFilter) -> Fut<'_, Result<Vec<Arc<Task>>, StoreError>> {
        self.read(|world| {
            let wanted = |task: &&Arc<Task>| {
                (filter.states.is_empty() || filter.states.contains(&task.state))
                    && filter.run.is_none_or(|run| task.spec.root == run)
                    && filter.parent.is_none_or(|parent| task.spec.parent == Some(parent))
                    && filter.before.is_none_or(|before| task.id() < before)
            };
            if let Some(parent) = filter.parent {
                let children = world.children.get(&parent).into_iter().flatten();
                let found = children.filter_map(|id| world.tasks.get(id)).filter(wanted);
                found.take(filter.limit).cloned().collect()
            } else {
                let found = world.tasks.values().filter(wanted);
                found.rev().take(filter.limit).cloned().collect()
            }
        })
    }

    fn counts(&self) -> Fut<'_, Result<BTreeMap<TaskState, u64>, StoreError>> {
        self.read(|world| {
            let mut counts = BTreeMap::new();
            for task in world.tasks.values() {
                *counts.entry(task.state).or_default() += 1;
            }
            counts
        })
    }

    fn attempts(&self, task: TaskId) -> Fut<'_, Result<Vec<AttemptRecord>, StoreError>> {
        self.read(|world| {
            let records = world.attempts.values().filter(|record| record.task == task);
            let mut records: Vec<AttemptRecord> = records.cloned().collect();
            records.sort_by_key(|record| record.attempt.number);
            records
        })
    }

    fn agents(&self) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        self.read(|world| world.agents.values().cloned().collect())
    }

    fn agents_of(&self, host: HostId) -> Fut<'_, Result<Vec<Agent>, StoreError>> {
        self.read(|world| world.agents.of_host(host).cloned().collect())
    }

    fn events(&self, filter: EventFilter) -> Fut<'_, Result<Vec<Event>, StoreError>> {
        self.read(|world| {
            let wanted = |event: &&Event| {
                event.cursor > filter.after
                    && filter.run.is_none_or(|run| event.run == run)
                    && filter.task.is_none_or(|task| event.task == task)
            };
            world.events.iter().filter(wanted).take(filter.limit).cloned().collect()
        })
    }

    fn unsent(&self, after: u64, limit: usize) -> Fut<'_, Result<Vec<Letter>, StoreError>> {
        self.read(|world| {
            let later = world.letters.range(after.saturating_add(1)..);
            later.take(limit).map(|(_, letter)| letter.clone()).collect()
        })
    }

    fn duties(&self, limit: usize) -> Fut<'_, Result<Vec<Duty>, StoreError>> {
        self.read(|world| world.duties.values().take(limit).cloned().collect())
    }

    fn next_due(&self) -> Fut<'_, Result<Option<Time>, StoreError>> {
        self.read(|world| world.due.first().map(|(at, _)| *at))
    }

    fn state_get(
        &self,
        key: Arc<str>,
        version: Option<u64>,
    ) -> Fut<'_, Result<Option<StateVersion>, StoreError>> {
        self.read(move |world| {
            let newest = world.state_keys.get(&key).and_then(|kept| kept.last().copied());
            let row = world.state.get(&version.or(newest)?)?;
            Some(row.clone()).filter(|row| row.key == key && row.value.is_some())
        })
    }

    fn state_list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        self.read(move |world| {
            let keys = world.state_keys.iter().filter(|(key, _)| {
                key.starts_with(&*prefix) && after.as_ref().is_none_or(|after| **key > *after)
            });
            let current = keys.filter_map(|(_, kept)| world.state.get(kept.last()?));
            current.filter(|row| row.value.is_some()).take(limit).cloned().collect()
        })
    }

    fn state_history(
        &self,
        key: Arc<str>,
        before: Option<u64>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        self.read(move |world| {
            let kept = world.state_keys.get(&key).into_iter().flatten().rev();
            let wanted = kept.filter(|kept| before.is_none_or(|before| **kept < before));
            wanted.take(limit).map(|version| world.state[version].clone()).collect()
        })
    }

    fn state_changes(
        &self,
        prefix: Arc<str>,
        after: u64,
        limit: usize,
    ) -> Fut<'_, Result<Vec<StateVersion>, StoreError>> {
        self.read(move |world| {
            let later = world.state.range(after.saturating_add(1)..).map(|(_, row)| row);
            later.filter(|row| row.key.starts_with(&*prefix)).take(limit).cloned().collect()
        })
    }

    fn state_stamp(&self) -> Fut<'_, Result<u64, StoreError>> {
        self.read(|world| world.stamp)
    }

    fn state_policies(&self) -> Fut<'_, Result<BTreeMap<Arc<str>, Policy>, StoreError>> {
        self.read(|world| world.policies.clone())
    }

    fn locks(
        &self,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Fut<'_, Result<Vec<Lock>, StoreError>> {
        self.read(move |world| {
            let wanted = world.locks.values();
            let wanted = wanted.filter(|lock| after.as_ref().is_none_or(|it| lock.name > *it));
            wanted.take(limit).cloned().collect()
        })
    }

    fn lock_of(&self, name: Arc<str>) -> Fut<'_, Result<Option<Lock>, StoreError>> {
        self.read(move |world| world.locks.get(&name).cloned())
    }

    fn prune(&self, before: Time) -> Fut<'_, Result<Pruned, StoreError>> {
        let pruned = prune(&mut self.inner.lock().world, before);
        Box::pin(std::future::ready(Ok(pruned)))
    }

    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Removes the runs that ended before this time: all their tasks have ended, no work is left behind, and
/// nothing that goes on needs one of them.
fn prune(world: &mut World, before: Time) -> Pruned {
    let mut runs: BTreeSet<TaskId> = world
        .tasks
        .values()
        .filter(|task| task.is_root() && task.finished_at.is_some_and(|at| at < before))
        .map(|task| task.id())
        .collect();
    let root_of = |id: TaskId| world.tasks.get(&id).map_or(PROJECT_LOG, |task| task.spec.root);
    for task in world.tasks.values().filter(|task| !task.state.is_terminal()) {
        runs.remove(&task.spec.root);
        for need in &task.spec.needs {
            runs.remove(&root_of(need.task));
        }
    }
    for (task, _) in world.duties.keys() {
        runs.remove(&root_of(*task));
    }
    let gone: BTreeSet<TaskId> =
        world.tasks.values().filter(|it| runs.contains(&it.spec.root)).map(|it| it.id()).collect();
    let events = world.events.len();
    world.events.retain(|event| !runs.contains(&event.run));
    world.tasks.retain(|id, _| !gone.contains(id));
    world.edges.retain(|(need, task), _| !gone.contains(need) && !gone.contains(task));
    world.children.retain(|parent, _| !gone.contains(parent));
    world.calls.retain(|_, child| !gone.contains(child));
    world.attempts.retain(|_, record| !gone.contains(&record.task));
    world.idempotency.retain(|_, record| !gone.contains(&record.task));
    world.letters.retain(|_, letter| letter.task.is_none_or(|task| !gone.contains(&task)));
    let keys = prune_state(world, before);
    Pruned {
        keys,
        runs: runs.len() as u64,
        tasks: gone.len() as u64,
        events: (events - world.events.len()) as u64,
        ..Pruned::default()
    }
}

/// Removes keys that were deleted before this time, and locks that have been free since before it.
fn prune_state(world: &mut World, before: Time) -> u64 {
    world.locks.retain(|_, lock| lock.until >= before);
    let World { state, state_keys, .. } = world;
    let all = state_keys.len();
    state_keys.retain(|_, kept| {
        let newest = kept.last().and_then(|version| state.get(version));
        let gone = newest.is_some_and(|newest| newest.value.is_none() && newest.at < before);
        if gone {
            kept.iter().for_each(|version| drop(state.remove(version)));
        }
        !gone
    });
    (all - state_keys.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::command::{NewTask, Reply, Submit};
    use segue_core::payload::Payload;
    use segue_core::task::{Need, Route, TaskSpec};
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> Time {
            Time(self.0.load(Ordering::SeqCst))
        }
    }

    fn id(n: u128) -> TaskId {
        TaskId(uuid::Uuid::from_u128(n))
    }

    fn submit(specs: Vec<TaskSpec>) -> Command {
        let new = |spec| NewTask { spec, input: Payload::null() };
        Command::Submit(Submit { tasks: specs.into_iter().map(new).collect() })
    }

    fn cancel(n: u128) -> Command {
        Command::Cancel { task: id(n), reason: "enough".into() }
    }

    fn store() -> (Arc<Hands>, MemoryStore) {
        let hands = Arc::new(Hands(AtomicI64::new(1_000)));
        (hands.clone(), MemoryStore::new(hands, 1, [0; 32]))
    }

    #[tokio::test]
    async fn a_refused_command_leaves_the_others_of_its_batch_untouched() {
        let (_, store) = store();
        let one = TaskSpec::new(id(1), "one", Route::agent("a"));
        let decisions = store.apply(vec![cancel(9), submit(vec![one]), cancel(1)]).await.unwrap();
        assert!(decisions[0].is_err());
        assert_eq!(
            decisions[1].as_ref().unwrap().reply,
            Reply::Submitted { root: id(1), count: 1 }
        );
        assert_eq!(store.task(id(1)).await.unwrap().unwrap().state, TaskState::Cancelled);
        let counts = store.counts().await.unwrap();
        assert_eq!(counts, BTreeMap::from([(TaskState::Cancelled, 1)]));
    }

    #[tokio::test]
    async fn its_clock_never_runs_behind_what_it_has_committed() {
        let (hands, store) = store();
        hands.0.store(5_000, Ordering::SeqCst);
        let spec = |n| TaskSpec::new(id(n), "task", Route::agent("a"));
        store.apply(vec![submit(vec![spec(1)])]).await.unwrap();
        hands.0.store(2_000, Ordering::SeqCst);
        store.apply(vec![submit(vec![spec(2)])]).await.unwrap();
        assert_eq!(store.now(), Time(5_000));
        let task = store.task(id(2)).await.unwrap().unwrap();
        assert_eq!(task.created_at, Time(5_000));
    }

    #[tokio::test]
    async fn events_tasks_and_duties_are_listed_as_the_port_says() {
        let (_, store) = store();
        let child = |n| TaskSpec {
            parent: Some(id(1)),
            root: id(1),
            ..TaskSpec::new(id(n), "child", Route::agent("a"))
        };
        let run = TaskSpec::new(id(1), "run", Route::Group);
        store.apply(vec![submit(vec![run, child(2), child(3)])]).await.unwrap();
        let filter = TaskFilter { parent: Some(id(1)), limit: 9, ..TaskFilter::default() };
        let children = store.tasks(filter).await.unwrap();
        assert_eq!(children.iter().map(|it| it.id()).collect::<Vec<_>>(), [id(2), id(3)]);
        let filter = TaskFilter { before: Some(id(3)), limit: 9, ..TaskFilter::default() };
        let newest = store.tasks(filter).await.unwrap();
        assert_eq!(newest.iter().map(|it| it.id()).collect::<Vec<_>>(), [id(2), id(1)]);
        store.apply(vec![cancel(2), cancel(3)]).await.unwrap();
        assert_eq!(store.duties(9).await.unwrap().len(), 1, "the group collects");
        let all = EventFilter { run: Some(id(1)), limit: 99, ..EventFilter::default() };
        let events = store.events(all).await.unwrap();
        let numbers: Vec<u64> = events.iter().map(|event| event.run_seq).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        let after = EventFilter { after: events[1].cursor, limit: 1, ..EventFilter::default() };
        assert_eq!(store.events(after).await.unwrap(), [events[2].clone()]);
    }

    #[tokio::test]
    async fn a_run_is_pruned_when_nothing_waits_for_it() {
        let (_, store) = store();
        let plain = |n| TaskSpec::new(id(n), "task", Route::agent("a"));
        let mut needy = plain(3);
        needy.needs = vec![Need { task: id(2), name: None, order_only: true }];
        store.apply(vec![submit(vec![plain(1)]), submit(vec![plain(2), needy])]).await.unwrap();
        store.apply(vec![cancel(1), cancel(2)]).await.unwrap();
        assert_eq!(
            store.prune(Time(1_000)).await.unwrap(),
            Pruned::default(),
            "not before its time"
        );
        let pruned = store.prune(Time(1_001)).await.unwrap();
        assert_eq!((pruned.runs, pruned.tasks), (1, 1), "task 3 needs task 2");
        assert_eq!(store.task(id(1)).await.unwrap(), None);
        let filter = EventFilter { task: Some(id(1)), limit: 9, ..EventFilter::default() };
        assert!(store.events(filter).await.unwrap().is_empty());
    }
}
