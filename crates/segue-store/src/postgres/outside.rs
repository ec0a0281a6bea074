//! Bodies outside the database: where they are kept, and how those go to which nobody refers any more.

use super::cells::read;
use super::line::{Ask, Line};
use super::store::PostgresStore;
use super::trouble::Trouble;
use crate::failure::Failure;
use crate::objects::ObjectBlobs;
use crate::rows::decode;
use crate::sqlite::SqliteStore;
use futures_util::TryStreamExt;
use segue_core::payload::Hash;
use segue_core::ports::{Blobs, Fut, Pruned, StoreError};
use std::pin::pin;
use std::sync::Arc;

/// Gives back those of these bodies that somebody refers to.
pub type IsReferred =
    Box<dyn FnMut(Vec<Hash>) -> Fut<'static, Result<Vec<Hash>, StoreError>> + Send>;

/// A place for the bodies of one project that are too large for the database.
pub trait LargeBodies: Blobs {
    /// Removes bodies that `is_referred` does not give back and that are so old that nobody is about to refer to them. Returns how many went,
    /// and their bytes. A place that removes them in another way does nothing.
    fn sweep(&self, is_referred: IsReferred) -> Fut<'_, Result<(u64, u64), StoreError>> {
        drop(is_referred);
        Box::pin(std::future::ready(Ok((0, 0))))
    }
}

impl LargeBodies for ObjectBlobs {
    fn sweep(&self, is_referred: IsReferred) -> Fut<'_, Result<(u64, u64), StoreError>> {
        Box::pin(ObjectBlobs::sweep(self, is_referred))
    }
}

/// Its folder of bodies, which it sweeps by itself.
impl LargeBodies for SqliteStore {}

/// Held while a copy of a project is made, so that no body goes that the copy refers to.
const BEGIN_COPY: &str = "SELECT pg_advisory_lock_shared(1399193600, $1)";
/// Held while bodies are removed. Nobody waits for it: the next prune comes.
const BEGIN_SWEEP: &str = "SELECT pg_try_advisory_lock(1399193600, $1)";
const END_SWEEP: &str = "SELECT pg_advisory_unlock(1399193600, $1)";
const REFERRED: &str =
    "SELECT DISTINCT hash FROM payload_refs WHERE project = $1 AND hash = ANY($2)";

/// Keeps bodies from being removed until the line is closed. Waits as long as others remove some.
pub(super) async fn begin_copy(line: &Line, project: i32) -> Result<(), Trouble> {
    let mut rows = pin!(line.stream(BEGIN_COPY, project).await?);
    while rows.try_next().await?.is_some() {}
    Ok(())
}

async fn referred(line: &Line, project: i32, hashes: &[Hash]) -> Result<Vec<Hash>, Trouble> {
    let hashes = hashes.iter().map(|hash| hash.0.to_vec());
    let rows = line.ask(Ask::new(REFERRED).with(project).column(hashes)).await?;
    let found = rows.iter().map(|row| Ok(Hash(decode::bytes(row, 0)?)));
    Ok(found.collect::<Result<_, Failure>>()?)
}

impl PostgresStore {
    /// Removes bodies outside the database that no row refers to, unless a copy is being made.
    pub(super) async fn sweep_bodies(&self, line: Line) -> Result<Pruned, StoreError> {
        let (line, project) = (Arc::new(line), self.shared.project);
        let ask = |sql: &'static str| line.ask(Ask::new(sql).with(project));
        let failed = |trouble| self.shared.failed(trouble);
        let rows = ask(BEGIN_SWEEP).await.map_err(failed)?;
        let begun = rows.first().map(|row| read::<bool>(row, 0)).transpose().map_err(failed)?;
        if begun != Some(true) {
            tracing::debug!("no bodies are removed while a copy is made");
            return Ok(Pruned::default());
        }
        let (shared, asked) = (self.shared.clone(), line.clone());
        let is_referred: IsReferred = Box::new(move |hashes| {
            let (shared, line) = (shared.clone(), asked.clone());
            Box::pin(async move {
                let found = referred(&line, project, &hashes).await;
                found.map_err(|trouble| shared.failed(trouble))
            })
        });
        let swept = self.blobs.sweep(is_referred).await;
        // A line that broke has let go of it already.
        let _ = ask(END_SWEEP).await;
        let (payloads, bytes) = swept?;
        Ok(Pruned { payloads, bytes, ..Pruned::default() })
    }
}
