//! Who waits for which task to end, within this process; and the ends that come about through other engines.

use crate::complain::complain;
use crate::engine::{Engine, stopped};
use parking_lot::Mutex;
use segue_core::ids::TaskId;
use segue_core::ports::Topic;
use segue_core::task::Task;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Tasks looked at by one query.
const PAGE: usize = 1_000;
/// Hints are many: this long between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Who waits for which task.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_task: Mutex<HashMap<TaskId, watch::Sender<Option<Arc<Task>>>>>,
}

impl Waiters {
    /// Hears when the task ends from now on, and as what.
    pub(crate) fn wait(&self, task: TaskId) -> watch::Receiver<Option<Arc<Task>>> {
        let mut by_task = self.by_task.lock();
        // Those who gave up waiting are forgotten when others come.
        if by_task.len() >= 1_024 {
            by_task.retain(|_, sender| sender.receiver_count() > 0);
        }
        by_task.entry(task).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// The tasks that somebody waits for, so many at most.
    fn waited_for(&self, limit: usize) -> Vec<TaskId> {
        let mut by_task = self.by_task.lock();
        by_task.retain(|_, sender| sender.receiver_count() > 0);
        by_task.keys().take(limit).copied().collect()
    }

    /// These tasks have ended.
    pub(crate) fn ended(&self, tasks: &[Arc<Task>]) {
        let mut by_task = self.by_task.lock();
        if by_task.is_empty() {
            return;
        }
        for task in tasks {
            if let Some(sender) = by_task.remove(&task.id()) {
                sender.send_replace(Some(task.clone()));
            }
        }
    }
}

/// Looks for ends that came about through other engines, whenever one of them tells of some: one query, however many wait.
pub(crate) async fn watch_loop(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let mut listener = engine.parts.signals.listen();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            _ = listener.next(&[Topic::Ended]) => {}
        }
        let waited_for = engine.waiters.waited_for(PAGE);
        if waited_for.is_empty() {
            continue;
        }
        match engine.parts.store.tasks_by_id(waited_for).await {
            Ok(mut tasks) => {
                tasks.retain(|task| task.state.is_terminal());
                engine.waiters.ended(&tasks);
            }
            Err(error) => complain(&error, "could not look whether tasks have ended"),
        }
        let _ = tokio::time::timeout(PAUSE, stopped(&mut stopping)).await;
    }
}
