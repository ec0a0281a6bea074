//! Stop 4 of the trip: letters that are committed go out. Nothing else publishes work.

use crate::complain::complain;
use crate::engine::Engine;
use parking_lot::Mutex;
use segue_core::command::Command;
use segue_core::failpoint;
use segue_core::ids::AttemptId;
use segue_core::letter::{Address, ChildResult, Letter, LetterBody};
use segue_core::payload::Payload;
use segue_core::ports::{BusError, OwnHost, StoreError, TaskFilter, Topic};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// Riders wait this long for a batch that carries them before they get one of their own.
const RIDER_WAIT: Duration = Duration::from_millis(100);
/// Beats until the outbox is looked into again after nothing was found in it.
const QUIET_BEATS: u32 = 2;
/// Letters read from the outbox at a time.
const UNSENT_PAGE: usize = 1_000;

/// Letters of commits, until they are sent.
pub(crate) type Committed = mpsc::UnboundedReceiver<Vec<Letter>>;

/// What was committed and has to be sent.
pub struct Outbox {
    /// What the bus carries.
    letters: mpsc::UnboundedSender<Vec<Letter>>,
    /// What goes to the host of this process: it need not wait behind a bus that is slow or away.
    inside: mpsc::UnboundedSender<Vec<Letter>>,
    own_host: OnceLock<Weak<dyn OwnHost>>,
    in_flight: Mutex<BTreeSet<u64>>,
    /// Which attempts were given out, until their outcomes are written.
    given: Mutex<Given>,
}

/// Attempts that are remembered. Where other engines take outcomes in as well, some are never heard of here.
const GIVEN_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct Given {
    open: HashSet<AttemptId>,
    /// In the order in which they were given out; also some that have ended since.
    order: VecDeque<AttemptId>,
}

impl Given {
    fn note(&mut self, attempt: AttemptId) {
        self.open.insert(attempt);
        self.order.push_back(attempt);
        while self.order.len() > GIVEN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.open.remove(&oldest);
            }
        }
    }
}

impl Outbox {
    /// An empty one, and from where to take the letters for the bus, and those for the host of this process.
    pub(crate) fn new() -> (Outbox, Committed, Committed) {
        let (letters, for_bus) = mpsc::unbounded_channel();
        let (inside, for_host) = mpsc::unbounded_channel();
        let outbox = Outbox {
            letters,
            inside,
            own_host: OnceLock::new(),
            in_flight: Mutex::default(),
            given: Mutex::default(),
        };
        (outbox, for_bus, for_host)
    }

    fn own_host(&self) -> Option<Arc<dyn OwnHost>> {
        self.own_host.get()?.upgrade()
    }

    /// As many letters wait here as there are slots and cancellations, so the channel needs no bound of its own.
    pub(crate) fn send(&self, letters: Vec<Letter>) {
        // Whoever is told to end stays here as well: its outcome brings the proof of which processes ended.
        let mut given = self.given.lock();
        for letter in &letters {
            if let LetterBody::TaskRequest(request) = &letter.body {
                given.note(request.attempt);
            }
        }
        drop(given);
        self.hand_on(letters);
    }

    /// To the one who hands them over, or the one who publishes.
    fn hand_on(&self, mut letters: Vec<Letter>) {
        self.in_flight.lock().extend(letters.iter().map(|letter| letter.seq));
        if let Some(host) = self.own_host() {
            let own = Address::Host(host.id());
            let inside: Vec<Letter> = letters.extract_if(.., |letter| letter.to == own).collect();
            if !inside.is_empty() {
                let _ = self.inside.send(inside);
            }
        }
        if !letters.is_empty() {
            let _ = self.letters.send(letters);
        }
    }

    /// Hands over what the host of this process takes. The rest is for the bus.
    fn hand_over(&self, letters: Vec<Letter>) -> Vec<Letter> {
        match self.own_host() {
            Some(host) => host.take(letters),
            None => letters,
        }
    }

    /// The outcome of this attempt is written, or refused.
    pub(crate) fn reported(&self, attempt: AttemptId) {
        self.given.lock().open.remove(&attempt);
    }

    /// Whether outcomes of attempts that were given out are still to come.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.given.lock().open.is_empty()
    }

    fn is_in_flight(&self, seq: u64) -> bool {
        self.in_flight.lock().contains(&seq)
    }

    fn on_their_way(&self) -> BTreeSet<u64> {
        self.in_flight.lock().clone()
    }

    fn landed(&self, letters: &[u64]) {
        let mut in_flight = self.in_flight.lock();
        for seq in letters {
            in_flight.remove(seq);
        }
    }
}

/// Looks for what is ready, and on the slow beat for what an earlier life, or a bus that was away, left unsent. It waits for nobody who takes letters.
pub(crate) async fn look_loop(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let mut listener = engine.parts.signals.listen();
    let beat = Duration::from_millis(engine.config.beat_ms);
    let mut next_beat = tokio::time::Instant::now();
    // What is ready when the engine begins; from then on the timers' beat assigns as well.
    engine.look_again().await;
    loop {
        let due = engine.riding_since().map(|since| since + RIDER_WAIT);
        tokio::select! {
            // What is rare comes first: so nothing starves, and the same run goes the same way again.
            biased;
            () = crate::engine::stopped(&mut stopping) => return,
            () = tokio::time::sleep_until(next_beat) => {
                let beats = if send_again(&engine).await { 1 } else { QUIET_BEATS };
                next_beat = tokio::time::Instant::now() + beat * beats;
            }
            _ = listener.next(&[Topic::Ready]) => engine.look_again().await,
            () = engine.riders_come(), if due.is_none() => {}
            () = tokio::time::sleep_until(due.unwrap_or(next_beat)), if due.is_some() => {
                // Others may have taken them along, and new ones have come.
                if engine.riding_since().is_some_and(|since| since.elapsed() >= RIDER_WAIT) {
                    engine.look_again().await;
                }
            }
        }
    }
}

/// Sends what was committed, in its order.
pub(crate) async fn send_loop(engine: Arc<Engine>, mut letters: Committed) {
    let mut stopping = engine.stopping();
    loop {
        tokio::select! {
            biased;
            () = crate::engine::stopped(&mut stopping) => return,
            batch = gather(&mut letters) => {
                let Some(batch) = batch else { return };
                send(&engine, batch).await;
            }
        }
    }
}

/// Waits for letters, and takes along what came meanwhile.
async fn gather(letters: &mut Committed) -> Option<Vec<Letter>> {
    let mut batch = letters.recv().await?;
    while batch.len() < UNSENT_PAGE
        && let Ok(more) = letters.try_recv()
    {
        batch.extend(more);
    }
    Some(batch)
}

/// Completes letters with what the outbox does not keep, hands them to the host of this process or to the bus, and lets their settling ride in the next
/// batch.
async fn send(engine: &Engine, found: Vec<Letter>) {
    let mut letters = Vec::with_capacity(found.len());
    for mut letter in found {
        match complete(engine, &mut letter).await {
            Ok(()) => letters.push(letter),
            Err(error) => {
                complain(
                    &error,
                    &format!(
                        "letter {} could not be completed; it stays in the outbox",
                        letter.seq
                    ),
                );
                engine.outbox.landed(&[letter.seq]);
            }
        }
    }
    let all = numbers(&letters);
    failpoint::pass("before-publish");
    let letters = engine.outbox.hand_over(letters);
    let for_bus: HashSet<u64> = letters.iter().map(|letter| letter.seq).collect();
    let taken = all.into_iter().filter(|number| !for_bus.contains(number)).collect();
    settle(engine, taken);
    if !letters.is_empty() {
        publish(engine, letters).await;
    }
    failpoint::pass("after-publish");
}

fn numbers(letters: &[Letter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.seq).collect()
}

/// Hands letters to the bus.
async fn publish(engine: &Engine, letters: Vec<Letter>) {
    let all = numbers(&letters);
    let mut taken = all.clone();
    match engine.parts.bus.publish(letters).await {
        Ok(()) => {}
        Err(BusError::Unroutable { addresses, letters: undelivered }) => {
            // The host has gone; its lease, or its next life, brings the work back.
            tracing::warn!(to = ?addresses, "nobody takes these letters");
            taken.retain(|number| !undelivered.contains(number));
        }
        Err(error @ (BusError::Away(_) | BusError::Closed)) => {
            complain(&error, "letters stay in the outbox");
            taken.clear();
        }
    }
    settle(engine, taken);
    engine.outbox.landed(&all);
}

/// Whoever they are for has these letters.
fn settle(engine: &Engine, letters: Vec<u64>) {
    if letters.is_empty() {
        return;
    }
    // On their way until it is known that they ride: whoever looks for what was left finds them in one of the two.
    engine.ride([Command::Settle { letters: letters.clone() }]);
    engine.outbox.landed(&letters);
}

/// Sends letters that are committed, not settled, and not on their way. Whether there may be any left by the next beat.
async fn send_again(engine: &Engine) -> bool {
    let on_their_way = engine.outbox.on_their_way();
    if engine.riding_since().is_some() {
        // What rides would settle letters that the table still shows.
        engine.look_again().await;
    }
    let (mut after, mut found) = (0, false);
    loop {
        let page = match engine.parts.store.unsent(after, UNSENT_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                complain(&error, "could not read the outbox");
                return true;
            }
        };
        let Some(last) = page.last() else { return found };
        (after, found) = (last.seq, true);
        let left = |letter: &Letter| {
            !on_their_way.contains(&letter.seq) && !engine.outbox.is_in_flight(letter.seq)
        };
        engine.outbox.hand_on(page.into_iter().filter(left).collect());
    }
}

impl Engine {
    /// This host is in the process of the engine, from now on for good: what is for it need not go over the bus.
    pub fn set_own_host(&self, host: &Arc<dyn OwnHost>) {
        let _ = self.outbox.own_host.set(Arc::downgrade(host));
    }
}

/// Adds to a request what need not be kept twice: the children's results, shared state as it stands now, the team.
async fn complete(engine: &Engine, letter: &mut Letter) -> Result<(), StoreError> {
    let Some(task) = letter.task else { return Ok(()) };
    let LetterBody::TaskRequest(request) = &mut letter.body else { return Ok(()) };
    if let Some(resume) = &mut request.resume {
        let filter = TaskFilter { parent: Some(task), limit: usize::MAX, ..TaskFilter::default() };
        let children = engine.parts.store.tasks(filter).await?;
        let max = engine.config.child_output_max as u64;
        resume.children = children
            .iter()
            .map(|child| ChildResult {
                id: child.id(),
                key: child.spec.key.clone(),
                name: child.spec.name.clone(),
                route: child.spec.route.clone(),
                state: child.state,
                output: child.output.as_ref().map(|output| bounded(output, max)),
                error: child.error.clone(),
            })
            .collect();
    }
    if let Some(given) = &mut request.state {
        engine.give_state(given).await?;
    }
    let store = engine.parts.store.as_ref();
    let is_told = match engine.directory.delegates(request.instance) {
        Some(is_told) => is_told,
        // Another node gave it out, or heard of it: the tables know who it is.
        None => {
            let agents = engine.roster.agents(store).await?;
            agents.get(&request.instance).is_some_and(|agent| agent.spec.delegates)
        }
    };
    if is_told {
        request.team = engine.roster.team(store).await?;
    }
    Ok(())
}

/// The output, or a note of how large it is: what goes to another agent is bounded.
pub(crate) fn bounded(output: &Payload, max: u64) -> Payload {
    if output.size() <= max {
        return output.clone();
    }
    let note = serde_json::json!({
        "segue_omitted": format!("{} bytes are more than the {max} that a task is given", output.size()),
        "sha256": output.hash().hex(),
    });
    // The note is far below the limit of a row.
    Payload::of(&note).unwrap_or_else(|_| Payload::null())
}
