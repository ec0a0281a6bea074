//! Questions after single tasks. Those that come while one is on its way go together with the next one: many who wait for tasks cost few queries.

use super::queries;
use super::readers::Readers;
use parking_lot::Mutex;
use segue_core::ids::TaskId;
use segue_core::ports::StoreError;
use segue_core::task::Task;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Tasks that one query asks for.
const TOGETHER_MAX: usize = 500;

/// Whoever waits is told, should the answering end by a defect.
struct Unfinished {
    asked: Arc<Asked>,
    is_left: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_left {
            let mut state = self.asked.state.lock();
            state.is_answering = false;
            state.waiting.clear();
        }
    }
}

type Answer = Result<Option<Arc<Task>>, StoreError>;

/// Those who ask, and wait.
#[derive(Default)]
pub(super) struct Asked {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<(TaskId, oneshot::Sender<Answer>)>,
    /// Whether somebody works on what waits.
    is_answering: bool,
}

impl Asked {
    /// The task as it is after this was called.
    pub(super) async fn task(self: &Arc<Self>, readers: &Arc<Readers>, id: TaskId) -> Answer {
        let (answer, receive) = oneshot::channel();
        let begins = {
            let mut state = self.state.lock();
            state.waiting.push((id, answer));
            !std::mem::replace(&mut state.is_answering, true)
        };
        if begins {
            // By itself: whoever asked first may go before the others have their answer.
            tokio::spawn(self.clone().answer(readers.clone()));
        }
        let gone = || StoreError::Stopped("nobody answers questions any more".into());
        receive.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Answers until nobody waits.
    async fn answer(self: Arc<Self>, readers: Arc<Readers>) {
        let mut unfinished = Unfinished { asked: self.clone(), is_left: true };
        loop {
            let asked = {
                let mut state = self.state.lock();
                if state.waiting.is_empty() {
                    state.is_answering = false;
                    unfinished.is_left = false;
                    return;
                }
                let some = state.waiting.len().min(TOGETHER_MAX);
                state.waiting.drain(..some).collect::<Vec<_>>()
            };
            let mut ids: Vec<TaskId> = asked.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.dedup();
            let (project, ids) = (readers.shared.project, &ids);
            let found =
                readers.run(|line| async move { queries::tasks_by_id(&line, project, ids).await });
            let found = found.await.map_err(|trouble| readers.shared.failed(trouble));
            let found = found.map(|tasks| {
                tasks.into_iter().map(|task| (task.id(), task)).collect::<HashMap<_, _>>()
            });
            for (id, answer) in asked {
                let one = found.as_ref().map(|tasks| tasks.get(&id).cloned());
                // Whoever asked may not wait any more.
                let _ = answer.send(one.map_err(StoreError::clone));
            }
        }
    }
}
