//! Outcomes on disk until the bus has confirmed them: finished work outlives the process that did it.
//!
//! A file holds the outcomes of one batch; a body that does not fit into a letter is a file beside them. Each is written whole and synced
//! under another name first. Nobody but the owner may look: outcomes carry the secrets of their attempts.

use crate::reporter::outage;
use parking_lot::Mutex;
use segue_core::letter::{Letter, LetterBody, TaskResponse};
use segue_core::outcome::Outcome;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, BusError, StoreError, WorkBus};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Bytes that a spool holds before its host takes no more work.
pub const BYTES_MAX: u64 = 1 << 30;
/// Files that a spool holds before its host takes no more work.
pub const FILES_MAX: usize = 50_000;
/// Where the outcomes are.
const OUTCOMES: &str = "outcomes";
/// Where the bodies are.
const BODIES: &str = "bodies";
/// What ends the name of a file that is not whole yet.
const DRAFT: &str = ".draft";
/// Between two tries to deliver what an earlier life left.
const PAUSE: Duration = Duration::from_millis(250);

/// A folder of outcomes that are not delivered.
pub struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    held: Mutex<Held>,
    is_full: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    outcomes: BTreeMap<u64, Outcomes>,
    bodies: BTreeMap<Hash, u64>,
}

/// A file of outcomes.
#[derive(Debug)]
struct Outcomes {
    outcomes: usize,
    bytes: u64,
    /// Those to which the outcomes refer.
    bodies: Vec<Hash>,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.outcomes.values().map(|file| &file.bytes).chain(self.bodies.values()).sum()
    }
}

/// The number of a file of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch(u64);

/// Outcomes that an earlier life could not deliver, oldest first.
pub type Left = Vec<(Batch, Vec<Letter>)>;

impl Spool {
    /// Opens the folder, makes it where it is missing, and removes what a crash left unfinished. Gives back the outcomes that an earlier
    /// life could not deliver, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn open(folder: &Path) -> io::Result<(Arc<Spool>, Left)> {
        Spool::with_bytes_max(folder, BYTES_MAX)
    }

    /// The same with another bound.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn with_bytes_max(folder: &Path, bytes_max: u64) -> io::Result<(Arc<Spool>, Left)> {
        for name in [OUTCOMES, BODIES] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder.join(name))?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut held = Held::default();
        let mut left = Vec::new();
        for (path, name) in files(&folder.join(OUTCOMES))? {
            let number = name.strip_suffix(".json").and_then(|number| number.parse().ok());
            let Some(number) = number else { continue };
            held.next = held.next.max(number + 1);
            match serde_json::from_slice::<Vec<Letter>>(&fs::read(&path)?) {
                Ok(letters) => {
                    let bytes = fs::metadata(&path)?.len();
                    let file =
                        Outcomes { outcomes: letters.len(), bytes, bodies: bodies_of(&letters) };
                    held.outcomes.insert(number, file);
                    left.push((Batch(number), letters));
                }
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "outcomes of an earlier life are damaged; they are kept aside");
                    fs::rename(&path, path.with_extension("damaged"))?;
                }
            }
        }
        left.sort_by_key(|(batch, _)| batch.0);
        let referred: BTreeSet<Hash> =
            held.outcomes.values().flat_map(|file| &file.bodies).copied().collect();
        for (path, name) in files(&folder.join(BODIES))? {
            match Hash::from_hex(&name) {
                Some(hash) if referred.contains(&hash) => {
                    held.bodies.insert(hash, fs::metadata(&path)?.len());
                }
                // Its attempt never came to an outcome.
                Some(_) | None => fs::remove_file(&path)?,
            }
        }
        let spool = Spool {
            folder: folder.to_owned(),
            bytes_max,
            held: Mutex::new(held),
            is_full: watch::Sender::new(false),
        };
        spool.note_fullness();
        Ok((Arc::new(spool), left))
    }

    /// Files of outcomes that are not delivered.
    pub fn waiting(&self) -> usize {
        self.held.lock().outcomes.len()
    }

    /// Outcomes that are not delivered.
    pub fn outcomes(&self) -> usize {
        self.held.lock().outcomes.values().map(|file| file.outcomes).sum()
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until there is room for the outcomes of more work.
    pub async fn room(&self) {
        // The sender lives as long as the spool.
        let _ = self.is_full.subscribe().wait_for(|full| !full).await;
    }

    fn note_fullness(&self) {
        let held = self.held.lock();
        let full = held.bytes() >= self.bytes_max || held.outcomes.len() >= FILES_MAX;
        self.is_full.send_if_modified(|before| std::mem::replace(before, full) != full);
    }

    /// Keeps the outcomes among these letters; when this returns, they are on the disk. `None` where there are none.
    ///
    /// # Errors
    /// When they cannot be written.
    pub async fn keep(self: &Arc<Self>, letters: &[Letter]) -> io::Result<Option<Batch>> {
        let outcomes: Vec<&Letter> =
            letters.iter().filter(|letter| response_of(letter).is_some()).collect();
        if outcomes.is_empty() {
            return Ok(None);
        }
        let text = serde_json::to_vec(&outcomes).map_err(io::Error::other)?;
        let bodies = bodies_of(letters);
        let number = {
            let mut held = self.held.lock();
            held.next += 1;
            held.next - 1
        };
        let (bytes, path) = (text.len() as u64, self.outcomes_path(number));
        blocking(move || write_whole(&path, &text)).await?;
        let file = Outcomes { outcomes: outcomes.len(), bytes, bodies };
        self.held.lock().outcomes.insert(number, file);
        self.note_fullness();
        Ok(Some(Batch(number)))
    }

    /// These outcomes are delivered.
    pub async fn done(self: &Arc<Self>, batch: Batch) {
        let mut gone = vec![self.outcomes_path(batch.0)];
        {
            let mut held = self.held.lock();
            let Some(file) = held.outcomes.remove(&batch.0) else { return };
            for hash in file.bodies {
                let is_needed = held.outcomes.values().any(|other| other.bodies.contains(&hash));
                if !is_needed && held.bodies.remove(&hash).is_some() {
                    gone.push(self.body_path(hash));
                }
            }
        }
        self.note_fullness();
        let removed = blocking(move || gone.iter().try_for_each(remove)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "outcomes that are delivered could not be removed; they will be delivered again");
        }
    }

    /// Keeps a body; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn keep_body(&self, bytes: Vec<u8>) -> Result<Payload, StoreError> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        let path = self.body_path(hash);
        blocking(move || write_whole(&path, &bytes))
            .await
            .map_err(|error| StoreError::Io(format!("the spool cannot be written: {error}")))?;
        self.held.lock().bodies.insert(hash, size);
        self.note_fullness();
        Ok(Payload::Stored { hash, size })
    }

    /// A body that is kept here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn body(&self, hash: Hash) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.held.lock().bodies.contains_key(&hash) {
            return Ok(None);
        }
        let path = self.body_path(hash);
        let read = blocking(move || match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        read.await.map_err(|error| StoreError::Io(format!("the spool cannot be read: {error}")))
    }

    /// Hands in the bodies to which these letters refer, those that are here.
    ///
    /// # Errors
    /// When one cannot be handed in.
    pub async fn hand_in(&self, letters: &[Letter], to: &dyn Blobs) -> Result<(), StoreError> {
        for hash in bodies_of(letters) {
            if let Some(bytes) = self.body(hash).await? {
                to.put(bytes).await?;
            }
        }
        Ok(())
    }

    /// Delivers what an earlier life left, before anybody is told that it has ended. Goes on until all of it is delivered.
    ///
    /// # Errors
    /// When the bus was closed.
    pub async fn deliver(
        self: &Arc<Self>,
        left: Left,
        bus: &dyn WorkBus,
        to: &dyn Blobs,
    ) -> Result<(), BusError> {
        let outage = outage();
        for (batch, letters) in left {
            loop {
                let delivered = match self.hand_in(&letters, to).await {
                    Ok(()) => bus.publish(letters.clone()).await,
                    Err(error) => Err(BusError::Away(error.to_string())),
                };
                match delivered {
                    Ok(()) => break,
                    Err(BusError::Closed) => return Err(BusError::Closed),
                    Err(error) => {
                        if let Some(words) = outage.failed() {
                            tracing::warn!(%error, "{words}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            if let Some(words) = outage.worked() {
                tracing::warn!("{words}");
            }
            self.done(batch).await;
        }
        Ok(())
    }

    fn outcomes_path(&self, number: u64) -> PathBuf {
        self.folder.join(OUTCOMES).join(format!("{number:012}.json"))
    }

    fn body_path(&self, hash: Hash) -> PathBuf {
        self.folder.join(BODIES).join(hash.hex())
    }
}

fn response_of(letter: &Letter) -> Option<&TaskResponse> {
    match &letter.body {
        LetterBody::TaskResponse(response) => Some(response),
        LetterBody::TaskRequest(_)
        | LetterBody::Event(_)
        | LetterBody::Query { .. }
        | LetterBody::Host(_) => None,
    }
}

/// The bodies that these letters refer to and do not carry.
fn bodies_of(letters: &[Letter]) -> Vec<Hash> {
    let mut bodies = Vec::new();
    let mut add = |payload: &Payload| {
        if let Payload::Stored { hash, .. } = payload {
            bodies.push(*hash);
        }
    };
    for response in letters.iter().filter_map(response_of) {
        response.state.put.iter().for_each(|put| add(&put.value));
        match &response.outcome {
            Outcome::Complete { output } => add(output),
            Outcome::Delegate { tasks, continuation, .. } => {
                tasks.iter().map(|task| &task.input).for_each(&mut add);
                continuation.iter().for_each(&mut add);
            }
            Outcome::Fail { .. } | Outcome::Cancelled => {}
        }
    }
    bodies.sort_unstable();
    bodies.dedup();
    bodies
}

/// The whole files of a folder with their names; drafts are removed.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(DRAFT) {
            fs::remove_file(entry.path())?;
        } else {
            found.push((entry.path(), name));
        }
    }
    Ok(found)
}

/// Writes a file whole and synced, its name as well, or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("{}{DRAFT}", uuid::Uuid::new_v4().simple()));
    let write = || {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().inspect_err(|_| {
        // The first error counts; what is left is removed when the folder is opened again.
        let _ = fs::remove_file(&draft);
    })
}

fn remove(path: &PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
