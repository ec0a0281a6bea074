//! Bodies that do not fit into a letter, in parts over the bus.

use super::link::{Link, LinkError};
use crate::spool::Spool;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Fut, StoreError};
use segue_core::worker::{Answer, BODY_MAX, PART_MAX, Part, Say};
use std::sync::Arc;
use std::time::Duration;

/// How long the answer about one part is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a body is asked for before it counts as not to be had: a broker that restarts is back by then.
const TRIES: u32 = 12;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Parts on their way at a time.
const PARALLEL: usize = 4;

/// Bodies over the bus: any node of the project has them.
pub struct BusBlobs {
    link: Arc<Link>,
}

impl BusBlobs {
    /// Over this link.
    pub fn new(link: Arc<Link>) -> BusBlobs {
        BusBlobs { link }
    }

    async fn ask(&self, say: Say) -> Result<Answer, StoreError> {
        let mut tries = 0;
        loop {
            match self.link.ask(say.clone(), PATIENCE).await {
                Ok(answer) => return Ok(answer),
                Err(LinkError::Refused(reason)) => return Err(StoreError::MissingPayload(reason)),
                Err(error) => {
                    tries += 1;
                    if tries >= TRIES {
                        return Err(StoreError::Io(format!("a body cannot be had: {error}")));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn part(&self, hash: Hash, offset: u64) -> Result<(u64, Vec<u8>), StoreError> {
        match self.ask(Say::Get { hash, offset }).await? {
            Answer::Part { size, offset: from, part: Part(bytes) } if from == offset => {
                Ok((size, bytes))
            }
            other => Err(StoreError::Io(format!("a part was answered by {other:?}"))),
        }
    }

    async fn fetch(&self, hash: Hash) -> Result<Vec<u8>, StoreError> {
        let (size, mut body) = self.part(hash, 0).await?;
        if size > BODY_MAX {
            let message = format!("body {} has {size} bytes: too many for a worker", hash.hex());
            return Err(StoreError::Io(message));
        }
        let first = body.len() as u64;
        if first == 0 && size > 0 {
            return Err(StoreError::Corrupt(format!("body {} came empty", hash.hex())));
        }
        let offsets = (0..).map(|n| first + n * PART_MAX as u64).take_while(|from| *from < size);
        let mut parts = stream::iter(offsets.map(|from| self.part(hash, from))).buffered(PARALLEL);
        while let Some((_, bytes)) = parts.try_next().await? {
            body.extend_from_slice(&bytes);
            if body.len() as u64 > size {
                break;
            }
        }
        if Hash::of(&body) != hash {
            return Err(StoreError::Corrupt(format!("body {} came damaged", hash.hex())));
        }
        Ok(body)
    }

    async fn hand_in(&self, bytes: Vec<u8>) -> Result<Payload, StoreError> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        if size > BODY_MAX {
            let message =
                format!("a worker hands in at most {BODY_MAX} bytes, and this has {size}");
            return Err(StoreError::Io(message));
        }
        let chunks: Vec<Vec<u8>> = bytes.chunks(PART_MAX).map(<[u8]>::to_vec).collect();
        let parts: Vec<Hash> = chunks.iter().map(|chunk| Hash::of(chunk)).collect();
        drop(bytes);
        let put = |chunk| self.ask(Say::Put { part: Part(chunk) });
        let mut kept = stream::iter(chunks.into_iter().map(put)).buffered(PARALLEL);
        while kept.try_next().await?.is_some() {}
        drop(kept);
        // One part is the body itself.
        if parts.len() > 1 {
            self.ask(Say::Join { hash, size, parts }).await?;
        }
        Ok(Payload::Stored { hash, size })
    }
}

impl Blobs for BusBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(self.hand_in(bytes))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(self.fetch(hash))
    }
}

/// Keeps bodies in the spool until the outcome that refers to them is delivered; what is not there comes over the bus.
pub struct SpooledBlobs {
    spool: Arc<Spool>,
    remote: Arc<dyn Blobs>,
}

impl SpooledBlobs {
    /// In this spool, before these.
    pub fn new(spool: Arc<Spool>, remote: Arc<dyn Blobs>) -> SpooledBlobs {
        SpooledBlobs { spool, remote }
    }
}

impl Blobs for SpooledBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        Box::pin(async move {
            if bytes.len() as u64 > BODY_MAX {
                let message = format!(
                    "a worker hands in at most {BODY_MAX} bytes, and this has {}",
                    bytes.len()
                );
                return Err(StoreError::Io(message));
            }
            self.spool.keep_body(bytes).await
        })
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(async move {
            match self.spool.body(hash).await? {
                Some(bytes) => Ok(bytes),
                None => self.remote.get(hash).await,
            }
        })
    }
}
