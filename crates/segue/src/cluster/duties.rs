//! What one node of a cluster does for all of them: backups on a schedule, and the removal of what nobody wants any more. Which node it is, is settled by
//! a lease in the tables, whose token goes with the work.

use super::settings::{BackupSettings, Settings};
use crate::api::upkeep::sweep_folders;
use crate::backend::Backend;
use crate::backups;
use crate::project::Project;
use parking_lot::Mutex;
use segue_core::ports::Store;
use segue_core::time::Time;
use segue_engine::{Engine, Job, Lease, Single};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The lock of whoever makes the backups.
pub const BACKUP: &str = "segue/backup";
/// The lock of whoever removes what nobody wants any more.
pub const PRUNE: &str = "segue/prune";
/// How long one that has gone keeps a duty from the others.
const TTL_MS: u64 = 30_000;
/// How often it is looked whether a backup is due.
const LOOK_MS: u64 = 60_000;
/// How often what nobody wants any more is removed.
const PRUNE_MS: u64 = 60 * 60 * 1_000;

/// Does the duties whenever it is this node's turn, until the engine stops.
pub fn keep(settings: &Settings, project: &Project, backend: &Backend, engine: &Arc<Engine>) {
    let holder = &settings.node.name;
    let single = |name: &str, every_ms| Single { name: name.into(), ttl_ms: TTL_MS, every_ms };
    if let Some(backup) = settings.backup.clone()
        && let Some(every) = backup.plan.every
    {
        let job = backup_job(project.clone(), backend.clone(), backup, every);
        engine.keep_single(single(BACKUP, LOOK_MS), holder.clone(), job);
    }
    let job = prune_job(backend.store.clone(), settings.keep_runs_ms);
    engine.keep_single(single(PRUNE, PRUNE_MS), holder.clone(), job);
}

fn backup_job(project: Project, backend: Backend, backup: BackupSettings, every: u64) -> Job {
    // Between two backups, and after a failure, the place is left alone.
    let next = Arc::new(Mutex::new(Instant::now()));
    Arc::new(move |lease: Lease| {
        let (project, backend, backup) = (project.clone(), backend.clone(), backup.clone());
        let next = next.clone();
        Box::pin(async move {
            if *next.lock() > Instant::now() {
                return;
            }
            let fence = Some(lease.claim.token);
            let made = backups::make_if_due(
                &project,
                &backend,
                &backup.plan,
                every,
                &backup.options,
                fence,
            );
            let wait = made.await.unwrap_or_else(|error| {
                let to = &backup.plan.to;
                tracing::warn!(%error, to, "the backup was not made; it is tried again");
                backups::PAUSE
            });
            *next.lock() = Instant::now() + wait;
        })
    })
}

fn prune_job(store: Arc<dyn Store>, keep_ms: Option<u64>) -> Job {
    Arc::new(move |_: Lease| {
        let store = store.clone();
        Box::pin(async move {
            // Without a word about runs all of them stay; bodies that nobody refers to go all the same.
            let before = keep_ms.map_or(Time(0), |age| {
                Time(store.now().0.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)))
            });
            match store.prune(before).await {
                Ok(pruned) if pruned.runs > 0 => {
                    tracing::info!(
                        runs = pruned.runs,
                        tasks = pruned.tasks,
                        "old runs were removed"
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "old runs were not removed; it is tried again")
                }
            }
        })
    })
}

/// Removes this node's folders of tasks that were removed, again and again. Each node has its own.
pub async fn tidy_up(project: &Project, store: &dyn Store) {
    loop {
        tokio::time::sleep(Duration::from_millis(PRUNE_MS)).await;
        if let Err(error) = sweep_folders(project, store).await {
            tracing::warn!(%error, "folders of removed tasks were not removed; it is tried again");
        }
    }
}
