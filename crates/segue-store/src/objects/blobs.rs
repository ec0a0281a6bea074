//! Large bodies as objects.

use super::error::{ObjectError, Trouble};
use super::place::{Found, Objects};
use parking_lot::Mutex;
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Fut, StoreError};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The folder of all bodies.
const FOLDER: &str = "bodies";
/// A copy is used again so long after it was written. Much less than [`UNREFERRED_KEPT`]: whoever found it has the rest of that hour to refer to it.
const REUSED_FOR: Duration = Duration::from_secs(20 * 60);
/// A copy that nobody refers to is kept this long: whoever put it may be about to refer to it.
const UNREFERRED_KEPT: Duration = Duration::from_secs(60 * 60);
/// How long the time of the place is reckoned from the last look at its clock.
const CLOCK_KEPT: Duration = Duration::from_secs(5 * 60);
/// Names that are removed by one request.
const REMOVED_AT_ONCE: usize = 1_000;
/// How often a body is looked for whose copy went between looking and reading.
const READ_TRIES: usize = 3;

/// Bodies as objects `bodies/ab/HASH/COPY`. A copy that is being removed is never one that somebody has just put: each put writes a copy of its own,
/// unless there is one that is young.
#[derive(Debug)]
pub struct ObjectBlobs {
    objects: Objects,
    /// When the clock of the place was looked at, and what it said.
    clock: Mutex<Option<(Instant, Time)>>,
}

impl ObjectBlobs {
    /// Bodies below this place.
    pub fn new(objects: Objects) -> ObjectBlobs {
        ObjectBlobs { objects, clock: Mutex::new(None) }
    }

    async fn now(&self) -> Result<Time, ObjectError> {
        let known = *self.clock.lock();
        if let Some((at, time)) = known
            && at.elapsed() < CLOCK_KEPT
        {
            return Ok(time.plus_ms(ms(at.elapsed())));
        }
        let now = self.objects.now().await?;
        *self.clock.lock() = Some((Instant::now(), now));
        Ok(now)
    }

    /// The copies of a body, the latest first.
    async fn copies(&self, hash: Hash) -> Result<Vec<Found>, ObjectError> {
        let mut copies = self.objects.list(&folder(hash)).await?;
        copies.sort_by(|a, b| (b.written_at, &b.name).cmp(&(a.written_at, &a.name)));
        Ok(copies)
    }

    async fn keep(&self, bytes: Vec<u8>) -> Result<Payload, ObjectError> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        let now = self.now().await?;
        let is_young = |copy: &Found| now.since_ms(copy.written_at) < ms(REUSED_FOR);
        let copies = self.copies(hash).await?;
        if !copies.iter().any(|copy| copy.bytes == size && is_young(copy)) {
            let name = format!("{}/{}", folder(hash), Uuid::new_v4().simple());
            self.objects.put(&name, bytes.into()).await?;
        }
        Ok(Payload::Stored { hash, size })
    }

    async fn read(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        let mut damaged = None;
        for _ in 0..READ_TRIES {
            let copies = self.copies(hash).await.map_err(unusable)?;
            let mut gone = false;
            for copy in &copies {
                match self.objects.get(&copy.name, copy.bytes).await {
                    Ok(bytes) if Hash::of(&bytes) == hash => return Ok(bytes.into()),
                    Ok(_) => damaged = Some(copy.name.clone()),
                    Err(ObjectError { trouble: Trouble::Missing, .. }) => gone = true,
                    Err(error) => return Err(unusable(error)),
                }
            }
            if !gone {
                break;
            }
        }
        Err(match damaged {
            Some(name) => StoreError::Corrupt(format!(
                "{}/{name} does not hold what its name says",
                self.objects.url()
            )),
            None => StoreError::MissingPayload(hash.hex()),
        })
    }

    /// Removes copies that are an hour old and of bodies that `is_referred` does not give back, and of others all but the latest. It is asked after the copies
    /// were listed: a reference that is committed later is to a copy that is younger. Returns how many went, and their bytes.
    ///
    /// # Errors
    /// What the place or `is_referred` reports; what is left goes next time.
    pub async fn sweep<'a, F>(&self, mut is_referred: F) -> Result<(u64, u64), StoreError>
    where
        F: FnMut(Vec<Hash>) -> Fut<'a, Result<Vec<Hash>, StoreError>> + Send,
    {
        let now = self.objects.now().await.map_err(unusable)?;
        let mut by_hash: BTreeMap<Hash, Vec<Found>> = BTreeMap::new();
        for copy in self.objects.list(FOLDER).await.map_err(unusable)? {
            let hash = copy.name.split('/').nth(2).and_then(Hash::from_hex);
            if let Some(hash) = hash {
                by_hash.entry(hash).or_default().push(copy);
            }
        }
        let is_old = |copy: &Found| now.since_ms(copy.written_at) >= ms(UNREFERRED_KEPT);
        let hashes: Vec<Hash> = by_hash
            .iter()
            .filter(|(_, copies)| copies.iter().any(is_old))
            .map(|(hash, _)| *hash)
            .collect();
        let (mut removed, mut bytes) = (0, 0);
        for some in hashes.chunks(REMOVED_AT_ONCE) {
            let referred = is_referred(some.to_vec()).await?;
            let mut names = Vec::new();
            for hash in some {
                let Some(copies) = by_hash.get_mut(hash) else { continue };
                copies.sort_by_key(|copy| copy.written_at);
                if referred.contains(hash) {
                    // What is read is the latest; it has to be there for good before others go.
                    if !copies.last().is_some_and(is_old) {
                        continue;
                    }
                    copies.pop();
                }
                for copy in copies.iter().filter(|copy| is_old(copy)) {
                    removed += 1;
                    bytes += copy.bytes;
                    names.push(copy.name.clone());
                }
            }
            self.objects.remove(&names).await.map_err(unusable)?;
        }
        Ok((removed, bytes))
    }
}

impl Blobs for ObjectBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(async move { self.keep(bytes).await.map_err(unusable) })
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(self.read(hash))
    }
}

fn folder(hash: Hash) -> String {
    let name = hash.hex();
    format!("{FOLDER}/{}/{name}", &name[..2])
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unusable(error: ObjectError) -> StoreError {
    match error.trouble {
        Trouble::Full => StoreError::Full(error.to_string()),
        _ => StoreError::Io(error.to_string()),
    }
}
