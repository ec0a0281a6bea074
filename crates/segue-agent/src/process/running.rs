//! A program that runs, seen from the node.

use std::cell::RefCell;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use super::capture::{LogKept, Stream, Taker};
use super::cgroup::TreeCgroup;
use super::spawn::{Born, Spawn, Started};
use super::supervisor::HARD_MS_MAX;
use super::wire::{EndedProcess, Exit, Order, Report, TreeEnd, Usage};
use super::{cgroup, leftover};

/// How much is read from a pipe at a time.
const READ_BYTES: usize = 64 << 10;
/// How much is read of the reports at a time.
const REPORT_BYTES: usize = 4 << 10;
/// How much may still come out of a pipe after its supervisor has ended: more than a pipe holds,
/// and an end to it should somebody who escaped still write.
const DRAIN_BYTES_MAX: usize = 2 << 20;
/// How long after the end of the grace, and of the supervisor's own bound, the supervisor counts as stuck.
const STUCK_MS: u64 = 5_000;

thread_local! {
    // One buffer a thread, not one an attempt: a thousand attempts would hold 64 MB of them.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Why an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The program ended by itself, before anybody had asked it to.
    Exited,
    /// [`Running::cancel`] was called, or the [`Running`] was dropped.
    Cancelled,
    /// It ran longer than [`Spawn::timeout`].
    TimedOut,
    /// It wrote more to standard output than [`super::Capture::stdout_bytes_max`].
    OutputTooLarge,
    /// The supervisor was killed, or told to stop, by somebody else: a shutdown, or the
    /// kernel when memory ran out. The attempt is lost; the program is not to blame.
    SupervisorLost,
}

/// The end of an attempt.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// How the program itself ended; unknown if its supervisor was lost first.
    pub exit: Option<Exit>,
    /// What it wrote to standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// How much it wrote to standard output.
    pub stdout_bytes: u64,
    /// The end of what it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How much it wrote to standard error.
    pub stderr_bytes: u64,
    /// The log, if one was asked for and there was anything to keep.
    pub log: Option<LogKept>,
    /// The processes that were ended, with their start times: the program itself if it was asked to
    /// end, its descendants, and what it left behind when it ended by itself.
    pub ended: Vec<EndedProcess>,
    /// How many more were ended than are listed.
    pub ended_more: u64,
    /// Processes that SIGKILL did not end in time: they belong to another user or hang in the kernel.
    pub survivors: Vec<EndedProcess>,
    /// The processes as they were started.
    pub started: Started,
    /// From the start until nothing was left.
    pub wall_ms: u64,
    /// What the whole tree used; unknown if the supervisor was lost.
    pub usage: Option<Usage>,
}

impl Ended {
    /// Bytes of standard error that were dropped.
    #[must_use]
    pub fn stderr_dropped_bytes(&self) -> u64 {
        self.stderr_bytes - self.stderr.len() as u64
    }
}

/// A program that runs. Dropping it ends the whole tree at once.
#[derive(Debug)]
pub struct Running {
    started: Started,
    canceller: Canceller,
    done: oneshot::Receiver<Ended>,
}

/// Cancels a program from elsewhere.
#[derive(Clone, Debug)]
pub struct Canceller {
    requests: mpsc::UnboundedSender<Duration>,
}

impl Canceller {
    /// Ends the tree: SIGTERM now, SIGKILL after `grace`, at once if that is zero. A second call can
    /// shorten the time. Returns at once; [`Running::wait`] tells when nothing is left.
    pub fn cancel(&self, grace: Duration) {
        // Nobody listens any more once the attempt has ended.
        let _ = self.requests.send(grace);
    }
}

impl Running {
    /// The processes, to be recorded.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// A handle that cancels the program while somebody else waits for it.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// As [`Canceller::cancel`].
    pub fn cancel(&self, grace: Duration) {
        self.canceller.cancel(grace);
    }

    /// Waits until nothing of the tree is left. Dropping the future loses nothing; call it again.
    /// The end is handed out once; a later call, or one in a runtime that shuts down, gives
    /// [`Cause::SupervisorLost`] and no output.
    pub async fn wait(&mut self) -> Ended {
        match (&mut self.done).await {
            Ok(ended) => ended,
            Err(_) => Ended {
                cause: Cause::SupervisorLost,
                exit: None,
                stdout: Vec::new(),
                stdout_bytes: 0,
                stderr: Vec::new(),
                stderr_bytes: 0,
                log: None,
                ended: Vec::new(),
                ended_more: 0,
                survivors: Vec::new(),
                started: self.started.clone(),
                wall_ms: 0,
                usage: None,
            },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.canceller.cancel(Duration::ZERO);
    }
}

/// The supervisor's reports, line by line.
pub(super) struct Reports {
    socket: OwnedReadHalf,
    unread: Vec<u8>,
}

impl Reports {
    pub(super) fn new(socket: OwnedReadHalf) -> Self {
        Self { socket, unread: Vec::new() }
    }

    /// The next report; nothing once the supervisor is gone. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                // A line that is none comes from no supervisor of ours; the next may.
                match serde_json::from_slice(&line) {
                    Ok(report) => return Some(report),
                    Err(_) => continue,
                }
            }
            self.socket.readable().await.ok()?;
            self.unread.reserve(REPORT_BYTES);
            match self.socket.try_read_buf(&mut self.unread) {
                Ok(0) => return None,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return None,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Serves one attempt until its end.
pub(super) struct Driver {
    child: Child,
    orders: OwnedWriteHalf,
    reports: Reports,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    taker: Taker,
    grace: Duration,
    timeout: Option<Duration>,
    attempt: Option<String>,
    cgroup: Option<TreeCgroup>,
    /// Why the tree was asked to end: the first reason counts.
    why: Option<Cause>,
    /// When the supervisor counts as stuck.
    stuck: Option<tokio::time::Instant>,
    exit: Option<(Exit, bool)>,
    end: Option<TreeEnd>,
}

/// What happened to an attempt.
enum Happened {
    Readable(Stream),
    Report(Option<Report>),
    Asked(Duration),
    TimeOver,
    Stuck,
}

impl Driver {
    pub(super) fn new(born: Born, orders: OwnedWriteHalf, reports: Reports, spawn: Spawn) -> Self {
        Self {
            child: born.child,
            orders,
            reports,
            stdout: Some(born.stdout),
            stderr: Some(born.stderr),
            taker: Taker::new(spawn.capture),
            grace: spawn.grace,
            timeout: spawn.timeout,
            attempt: spawn.attempt,
            cgroup: born.cgroup,
            why: None,
            stuck: None,
            exit: None,
            end: None,
        }
    }

    /// Serves the attempt in a task of its own.
    pub(super) fn launch(self, started: Started) -> Running {
        let (requests, asked) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel();
        let serving = self.serve(started.clone(), asked);
        tokio::spawn(async move {
            // Whoever waited may be gone.
            let _ = done.send(serving.await);
        });
        Running { started, canceller: Canceller { requests }, done: ended }
    }

    async fn serve(
        mut self,
        started: Started,
        mut asked: mpsc::UnboundedReceiver<Duration>,
    ) -> Ended {
        let begun = Instant::now();
        let mut time_over =
            self.timeout.and_then(|timeout| tokio::time::Instant::now().checked_add(timeout));
        loop {
            match self.next(&mut asked, time_over).await {
                Happened::Readable(stream) => {
                    self.read(stream);
                    self.taker.write_log().await;
                    if self.taker.too_large() {
                        self.ask(Cause::OutputTooLarge, self.grace).await;
                    }
                }
                Happened::Report(Some(Report::Exited { exit, asked })) => {
                    self.exit = Some((exit, asked))
                }
                Happened::Report(Some(Report::Ended(end))) => self.end = Some(end),
                Happened::Report(Some(Report::Started { .. } | Report::FailedToStart(_))) => {}
                Happened::Report(None) => break,
                Happened::Asked(grace) => self.ask_again(grace).await,
                Happened::TimeOver => {
                    time_over = None;
                    self.ask(Cause::TimedOut, self.grace).await;
                }
                Happened::Stuck => {
                    self.stuck = None;
                    let _ = self.child.start_kill();
                }
            }
        }
        self.conclude(started, begun).await
    }

    async fn next(
        &mut self,
        asked: &mut mpsc::UnboundedReceiver<Duration>,
        time_over: Option<tokio::time::Instant>,
    ) -> Happened {
        tokio::select! {
            () = readable(self.stdout.as_ref()) => Happened::Readable(Stream::Stdout),
            () = readable(self.stderr.as_ref()) => Happened::Readable(Stream::Stderr),
            report = self.reports.next() => Happened::Report(report),
            Some(grace) = asked.recv() => Happened::Asked(grace),
            () = at(time_over) => Happened::TimeOver,
            () = at(self.stuck) => Happened::Stuck,
        }
    }

    /// Reads once from a pipe that is ready.
    fn read(&mut self, stream: Stream) {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(receiver) = pipe.as_mut() else {
            return;
        };
        let open = BUFFER.with_borrow_mut(|buffer| match receiver.try_read(buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.taker.take(stream, &buffer[..length]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
        if !open {
            *pipe = None;
        }
    }

    /// Asks the supervisor to end the tree, for a reason that only counts if it is the first.
    async fn ask(&mut self, why: Cause, grace: Duration) {
        if self.why.is_none() {
            self.why = Some(why);
            self.order(grace).await;
        }
    }

    /// A cancel, which may also shorten the time of an end that has begun.
    async fn ask_again(&mut self, grace: Duration) {
        self.why.get_or_insert(Cause::Cancelled);
        self.order(grace).await;
    }

    async fn order(&mut self, grace: Duration) {
        let until_stuck = grace.saturating_add(Duration::from_millis(HARD_MS_MAX + STUCK_MS));
        let stuck = tokio::time::Instant::now().checked_add(until_stuck);
        self.stuck = match (self.stuck, stuck) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if let Ok(mut line) = serde_json::to_vec(&Order::Cancel { grace_ms }) {
            line.push(b'\n');
            // A supervisor that is gone has ended the tree, or the end of its reports will tell.
            let _ = self.orders.write_all(&line).await;
        }
    }

    async fn conclude(mut self, started: Started, begun: Instant) -> Ended {
        let _ = self.child.wait().await;
        let usage = self.end.as_ref().map(|end| end.usage);
        let end = match self.end.take() {
            Some(end) => end,
            None => self.end_without_supervisor(&started).await,
        };
        self.drain(Stream::Stdout);
        self.drain(Stream::Stderr);
        let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let cause = match (self.exit, self.why) {
            _ if self.taker.too_large() => Cause::OutputTooLarge,
            (Some((_, false)), _) => Cause::Exited,
            (_, Some(why)) => why,
            (_, None) => Cause::SupervisorLost,
        };
        let taken = self.taker.finish().await;
        Ended {
            cause,
            exit: self.exit.map(|(exit, _)| exit),
            stdout: taken.stdout,
            stdout_bytes: taken.stdout_bytes,
            stderr: taken.stderr,
            stderr_bytes: taken.stderr_bytes,
            log: taken.log,
            ended: end.ended,
            ended_more: end.ended_more,
            survivors: end.survivors,
            started,
            wall_ms,
            usage,
        }
    }

    /// Ends what a killed supervisor could not end any more: the program died with it, the rest did not.
    async fn end_without_supervisor(&mut self, started: &Started) -> TreeEnd {
        let (started, attempt, cgroup) = (started.clone(), self.attempt.take(), self.cgroup.take());
        let ending = move || {
            let mut end = TreeEnd::default();
            if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.path.exists()) {
                end.ended = cgroup::kill_all_in(&cgroup.path);
            }
            match leftover::end_leftover(&started, attempt.as_deref(), None) {
                Ok(more) => end.ended.extend(more),
                Err(leftover::LeftoverError::StillAlive(survivors)) => end.survivors = survivors,
                Err(leftover::LeftoverError::Unsupported) => {}
            }
            end
        };
        tokio::task::spawn_blocking(ending).await.unwrap_or_default()
    }

    /// Takes what is left in a pipe. Its writers have ended, so this comes to the end of it; where one
    /// has escaped, it stops where it would have to wait.
    fn drain(&mut self, stream: Stream) {
        let pipe = match stream {
            Stream::Stdout => self.stdout.take(),
            Stream::Stderr => self.stderr.take(),
        };
        let Some(Ok(fd)) = pipe.map(pipe::Receiver::into_nonblocking_fd) else {
            return;
        };
        let mut file = std::fs::File::from(fd);
        let mut drained = 0;
        BUFFER.with_borrow_mut(|buffer| {
            while drained < DRAIN_BYTES_MAX {
                match file.read(buffer) {
                    Ok(length) if length > 0 => {
                        self.taker.take(stream, &buffer[..length]);
                        drained += length;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => return,
                }
            }
        });
    }
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error shows itself again when the pipe is read.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
