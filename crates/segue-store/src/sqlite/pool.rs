//! Threads that do what must not hold up the writer: queries, and the reading and writing of large bodies.

use super::error::{Failure, Kind};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Work for a thread of the pool, with what that thread holds.
type Job<T> = Box<dyn FnOnce(&T) + Send>;

/// Jobs, and whether the pool is closed.
pub(super) struct Queue<T> {
    jobs: Mutex<(VecDeque<Job<T>>, bool)>,
    wake: Condvar,
}

impl<T> Queue<T> {
    /// The next job; `None` once the pool is closed and nothing is left.
    fn next(&self) -> Option<Job<T>> {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(job) = jobs.0.pop_front() {
                return Some(job);
            }
            if jobs.1 {
                return None;
            }
            self.wake.wait(&mut jobs);
        }
    }
}

/// Threads that each hold a `T`; or one `T` for whoever asks.
pub(super) enum Pool<T> {
    /// On threads of its own.
    Threads { queue: Arc<Queue<T>>, threads: Vec<JoinHandle<()>> },
    /// On the thread of whoever asks.
    Callers(Mutex<T>),
}

impl<T: Send + 'static> Pool<T> {
    /// A thread for each of these.
    pub(super) fn threads(name: &str, each: Vec<T>) -> Result<Pool<T>, Failure> {
        let queue =
            Arc::new(Queue { jobs: Mutex::new((VecDeque::new(), false)), wake: Condvar::new() });
        let mut threads = Vec::new();
        for (number, held) in each.into_iter().enumerate() {
            let jobs = queue.clone();
            let thread =
                std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                    while let Some(job) = jobs.next() {
                        job(&held);
                    }
                })?;
            threads.push(thread);
        }
        Ok(Pool::Threads { queue, threads })
    }

    /// Runs `work` with what a thread holds; its result comes through the future.
    pub(super) async fn run<R, F>(&self, work: F) -> Result<R, Failure>
    where
        R: Send + 'static,
        F: FnOnce(&T) -> Result<R, Failure> + Send + 'static,
    {
        match self {
            Pool::Callers(held) => work(&held.lock()),
            Pool::Threads { queue, .. } => {
                let (send, receive) = tokio::sync::oneshot::channel();
                let job: Job<T> = Box::new(move |held| {
                    // Whoever asked may not wait any more.
                    let _ = send.send(work(held));
                });
                queue.jobs.lock().0.push_back(job);
                queue.wake.notify_one();
                receive
                    .await
                    .unwrap_or_else(|_| Err(Failure::new(Kind::Data, "the thread has ended")))
            }
        }
    }
}

impl<T> Pool<T> {
    /// Ends the threads once they have done what was asked; each lets go of what it holds.
    pub(super) fn end(&mut self) {
        if let Pool::Threads { queue, threads } = self {
            queue.jobs.lock().1 = true;
            queue.wake.notify_all();
            for thread in threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.end();
    }
}
