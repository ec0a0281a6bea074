//! Who waits for which task to end, within this process.

use parking_lot::Mutex;
use segue_core::ids::TaskId;
use std::collections::HashMap;
use tokio::sync::watch;

/// Who waits for which task.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_task: Mutex<HashMap<TaskId, watch::Sender<()>>>,
}

impl Waiters {
    /// Hears when the task ends from now on.
    pub(crate) fn wait(&self, task: TaskId) -> watch::Receiver<()> {
        let mut by_task = self.by_task.lock();
        // Those who gave up waiting are forgotten when others come.
        if by_task.len() >= 1_024 {
            by_task.retain(|_, sender| sender.receiver_count() > 0);
        }
        by_task.entry(task).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// These tasks have ended.
    pub(crate) fn ended(&self, tasks: &[TaskId]) {
        let mut by_task = self.by_task.lock();
        if by_task.is_empty() {
            return;
        }
        for task in tasks {
            if let Some(sender) = by_task.remove(task) {
                sender.send_replace(());
            }
        }
    }
}
