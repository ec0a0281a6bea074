//! Connections for reading beside the lanes.

use super::line::Line;
use super::queries;
use super::store::Shared;
use super::trouble::Trouble;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Pause before a reader is connected anew.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A few connections that all readers share: each carries any number of questions at a time, one after another.
pub(super) struct Readers {
    pub(super) shared: Arc<Shared>,
    lines: Vec<Mutex<Option<Arc<Line>>>>,
    next: AtomicUsize,
}

impl Readers {
    pub(super) fn new(shared: Arc<Shared>, count: usize) -> Readers {
        let lines = (0..count.max(1)).map(|_| Mutex::new(None)).collect();
        Readers { shared, lines, next: AtomicUsize::new(0) }
    }

    /// An open connection.
    pub(super) async fn line(&self) -> Result<Arc<Line>, Trouble> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len();
        let mut slot = self.lines[place].lock().await;
        if let Some(line) = slot.as_ref().filter(|line| !line.is_closed()) {
            return Ok(line.clone());
        }
        let line = Arc::new(self.shared.target.open(queries::statements(), "").await?);
        self.shared.back();
        *slot = Some(line.clone());
        Ok(line)
    }

    /// Asks; anew, as long as there is patience, where the connection goes meanwhile.
    pub(super) async fn run<T, F, R>(&self, query: F) -> Result<T, Trouble>
    where
        F: Fn(Arc<Line>) -> R,
        R: Future<Output = Result<T, Trouble>>,
    {
        let begin = Instant::now();
        loop {
            let trouble = match self.line().await {
                Ok(line) => match query(line).await {
                    Ok(answer) => return Ok(answer),
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Dead(detail) => {
                    self.shared.away(&detail);
                    if begin.elapsed() > self.shared.patience {
                        return Err(Trouble::Dead(detail));
                    }
                }
                Trouble::Again(_) if begin.elapsed() <= self.shared.patience => {}
                other => return Err(other),
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
}
