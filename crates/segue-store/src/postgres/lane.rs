//! A lane: one connection that carries batches, one transaction after another.

use super::batch::{Batch, Ground, nothing_to_write};
use super::cells::read;
use super::line::{Ask, Line};
use super::specs::{self, Specs};
use super::store::Shared;
use super::trouble::Trouble;
use super::write::{Pen, SHARDS, Written};
use super::{put, select, state};
use crate::failure::Kind;
use crate::rows::{WEIGHT_MAX, weight};
use segue_core::command::Command;
use segue_core::decide::Chance;
use segue_core::ports::{Decision, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot};

/// How often a batch is decided anew because others were in the way.
const AGAIN_MAX: u32 = 12;
/// The longest pause before such a try.
const AGAIN_PAUSE_MS_MAX: u64 = 200;
/// Pauses between tries to reach a database that is away.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Every plan of a lane goes by an index: tables that were empty when their statistics were made grow by thousands of rows a second. No lane ever waits
/// for new statistics, since no plan depends on them (see `plans`); making them takes longer than thousands of tasks do.
pub(super) const SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
    SET enable_mergejoin = off; SET enable_bitmapscan = on";

/// What callers send.
pub(super) struct Call {
    pub(super) commands: Vec<Command>,
    pub(super) answer: oneshot::Sender<Result<Vec<Decision>, StoreError>>,
}

/// Where all lanes of a store take their calls from.
pub(super) type Desk = Arc<Mutex<mpsc::UnboundedReceiver<Call>>>;

pub(super) struct Lane {
    shared: Arc<Shared>,
    line: Option<Line>,
    specs: Specs,
    chance: Chance,
    shard: i32,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, seed: u64) -> Lane {
        let mut chance = Chance::new(seed);
        let shard = match shared.fixed_clock() {
            // Where the chance is a test's, it is not touched for this.
            true => 0,
            false => (chance.next_u64() % SHARDS as u64) as i32,
        };
        Lane { shared, line: None, specs: Specs::default(), chance, shard }
    }

    /// Works until the store is closed. Whatever came while a transaction was on its way goes into the next one together.
    pub(super) async fn run(mut self, desk: Desk) {
        loop {
            let (mut calls, mut answers) = (Vec::new(), Vec::new());
            let mut total;
            {
                let mut desk = desk.lock().await;
                let Some(first) = desk.recv().await else { return };
                total = weight(&first.commands);
                calls.push(first.commands);
                answers.push(first.answer);
                while total < WEIGHT_MAX
                    && let Ok(call) = desk.try_recv()
                {
                    total += weight(&call.commands);
                    calls.push(call.commands);
                    answers.push(call.answer);
                }
            }
            for (result, answer) in self.commit(&calls).await.into_iter().zip(answers) {
                // Whoever asked may not wait any more; what was committed stays.
                let _ = answer.send(result);
            }
        }
    }

    /// Commits what several callers want in one transaction, and answers each of them.
    async fn commit(&mut self, calls: &[Vec<Command>]) -> Vec<Result<Vec<Decision>, StoreError>> {
        match self.insist(calls).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // The data of one caller must not be the others' misfortune.
            Err(Trouble::Known(failure)) if calls.len() > 1 && failure.kind == Kind::Data => {
                let mut answers = Vec::with_capacity(calls.len());
                for call in calls {
                    let alone = self.insist(std::slice::from_ref(call)).await;
                    let alone = alone.map(|mut answers| answers.pop().unwrap_or_default());
                    answers.push(alone.map_err(|trouble| self.shared.failed(trouble)));
                }
                answers
            }
            Err(trouble) => {
                let error = self.shared.failed(trouble);
                calls.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Tries anew what others were in the way of, and what a connection that broke took with it.
    async fn insist(&mut self, calls: &[Vec<Command>]) -> Result<Vec<Vec<Decision>>, Trouble> {
        let begin = Instant::now();
        let mut tries = 0;
        loop {
            self.connected(begin).await?;
            match self.transact(calls).await {
                Ok(answers) => return Ok(answers),
                Err(Trouble::Again(detail)) => {
                    tracing::debug!(detail, "a batch is decided anew");
                    self.roll_back().await;
                    tries += 1;
                    if tries > AGAIN_MAX {
                        return Err(Trouble::Again(detail));
                    }
                    tokio::time::sleep(pause(tries)).await;
                }
                Err(Trouble::Dead(detail)) => {
                    self.line = None;
                    self.shared.away(&detail);
                    if begin.elapsed() > self.shared.patience {
                        return Err(Trouble::Dead(detail));
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
                Err(trouble) => {
                    self.roll_back().await;
                    return Err(trouble);
                }
            }
        }
    }

    /// Connects where there is no connection, for as long as callers have patience.
    async fn connected(&mut self, begin: Instant) -> Result<(), Trouble> {
        loop {
            if self.line.as_ref().is_some_and(|line| !line.is_closed()) {
                return Ok(());
            }
            match self.shared.target.open(statements(), SETTINGS).await {
                Ok(line) => {
                    self.shared.back();
                    self.line = Some(line);
                    return Ok(());
                }
                Err(trouble) => {
                    let failure = trouble.clone().failure();
                    self.shared.away(&failure.detail);
                    if begin.elapsed() > self.shared.patience {
                        return Err(trouble);
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    async fn roll_back(&mut self) {
        if let Some(line) = &self.line
            && line.script("ROLLBACK").await.is_err()
        {
            self.line = None;
        }
    }

    /// One transaction: all of it or nothing.
    async fn transact(&mut self, calls: &[Vec<Command>]) -> Result<Vec<Vec<Decision>>, Trouble> {
        let Some(line) = &self.line else { return Err(Trouble::Dead("it is away".into())) };
        let shared = self.shared.clone();
        let mut batch = Batch::new(Ground {
            line,
            project: shared.project,
            specs: &mut self.specs,
            chance: &mut self.chance,
            key: shared.key,
            fixed_now: shared.fixed_now(),
            now: shared.now(),
        });
        let mut answers = batch.decide_all(calls).await?;
        let (changed, mut loader) = (batch.changed, batch.loader);
        let now = loader.now;
        shared.heard(now);
        if !changed {
            if loader.is_begun {
                line.flight(&[nothing_to_write()]).await?;
            }
            return Ok(answers);
        }
        let number = loader.number;
        let writes = loader.snapshot.take_writes();
        let written = Pen::new(&loader, self.shard, shared.owner, now).write(writes).await;
        match written {
            Ok(written) => number_letters(&mut answers, &written),
            Err(Trouble::Dead(detail)) => {
                drop(loader);
                self.resolve(detail, number).await?;
                // What was committed stands, but for the numbers of its letters: the outbox has them, and they go out with the next beat.
                for effects in answers.iter_mut().flatten().flatten() {
                    effects.letters.clear();
                }
            }
            Err(trouble) => return Err(trouble),
        }
        shared.committed(now);
        Ok(answers)
    }

    /// The connection went while a transaction was committed: finds out what became of it. Nothing, where it was not kept.
    async fn resolve(&mut self, detail: String, number: Option<i64>) -> Result<(), Trouble> {
        self.line = None;
        self.shared.away(&detail);
        let Some(number) = number else { return Err(Trouble::InDoubt(detail, 0)) };
        let begin = Instant::now();
        let doubt = || Trouble::InDoubt(detail.clone(), number);
        loop {
            self.connected(begin).await.map_err(|_| doubt())?;
            let Some(line) = &self.line else { return Err(doubt()) };
            let ask = Ask::new("SELECT pg_xact_status($1::text::xid8)").with(number.to_string());
            match line.ask(ask).await {
                Ok(rows) => {
                    let status =
                        rows.first().map(|row| read::<Option<String>>(row, 0)).transpose()?;
                    match status.flatten().as_deref() {
                        Some("committed") => {
                            tracing::info!(
                                number,
                                "a transaction whose commit had no answer was kept"
                            );
                            return Ok(());
                        }
                        Some("aborted") => return Err(Trouble::Again(detail)),
                        // The server has not noticed yet that the connection went.
                        Some("in progress") => {}
                        Some(_) | None => return Err(doubt()),
                    }
                }
                Err(Trouble::Dead(_)) => self.line = None,
                // A number that is still to come: this server, which took over, never heard of the transaction.
                Err(Trouble::Known(_)) => return Err(Trouble::Again(detail)),
                Err(_) => return Err(doubt()),
            }
            if begin.elapsed() > self.shared.patience {
                return Err(doubt());
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
}

/// Gives the letters in the answers the numbers that the store gave them.
fn number_letters(answers: &mut [Vec<Decision>], written: &Written) {
    for effects in answers.iter_mut().flatten().flatten() {
        for letter in &mut effects.letters {
            let place = usize::try_from(letter.seq).unwrap_or(usize::MAX).wrapping_sub(1);
            letter.seq = written.letters.get(place).copied().unwrap_or(0);
        }
    }
}

/// A longer pause each time, and never the same as another's.
fn pause(tries: u32) -> Duration {
    let most = (2_u64 << tries.min(10)).min(AGAIN_PAUSE_MS_MAX);
    let mut byte = [0];
    // Without chance from the system it is the longest one.
    let part = getrandom::fill(&mut byte).map_or(255, |()| u64::from(byte[0]));
    Duration::from_micros(most * 1_000 * (part + 1) / 256)
}

/// Every statement that lanes use, prepared when they connect: what is not prepared cannot travel with others.
pub(super) fn statements() -> impl Iterator<Item = &'static str> {
    select::statements()
        .into_iter()
        .chain(put::statements())
        .chain(specs::statements())
        .chain(state::statements())
}
