//! Worktrees of tasks that have ended: they are removed, unless they hold work that is nowhere else.

use crate::project::Project;
use segue_agent::workspace::{Removal, Removed, Workspaces};
use segue_core::ids::TaskId;
use segue_core::ports::Store;
use segue_core::task::WorkspaceKind;
use std::sync::Arc;

/// Removes the worktrees of tasks that have ended or are not known any more. What holds uncommitted changes, or commits that no other
/// branch has, is kept and named in the log.
pub async fn sweep(project: Project, store: Arc<dyn Store>) {
    let workspaces = Workspaces::new(&project.dir, &project.state);
    let all = workspaces.clone();
    let found = tokio::task::spawn_blocking(move || all.list_leftover(|_| false)).await;
    let Ok(Ok(found)) = found else { return };
    for left in found.into_iter().filter(|left| left.kind == WorkspaceKind::Worktree) {
        let Ok(task) = left.task.parse::<TaskId>() else { continue };
        match store.task(task).await {
            Ok(None) => {}
            Ok(Some(task)) if task.state.is_terminal() => {}
            Ok(Some(_)) => continue,
            Err(_) => return,
        }
        let workspaces = workspaces.clone();
        let name = left.task.clone();
        let removed =
            tokio::task::spawn_blocking(move || workspaces.remove(&name, Removal::KeepWork)).await;
        match removed {
            Ok(Ok(Removed::Kept(work))) => {
                let path = left.path.display();
                tracing::info!(%task, ?work, %path, "a worktree is kept: it holds work that is nowhere else");
            }
            Ok(Ok(Removed::Gone { .. } | Removed::Nothing)) => {}
            Ok(Err(error)) => tracing::warn!(%error, %task, "a worktree could not be removed"),
            Err(error) => tracing::warn!(%error, %task, "a worktree could not be removed"),
        }
    }
}
