//! Ids, jitter and secrets, from what `decide` is given.

use crate::ids::{AttemptId, TaskId};
use crate::letter::Secret;
use crate::time::Time;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A deterministic stream of numbers: SplitMix64 (Steele, Lea and Flood, 2014). It makes ids and jitter;
/// secrets are derived from the store's key instead, since this stream can be computed from its seed.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
    millis: u64,
    counter: u128,
}

/// The bits of a UUIDv7 that are neither time, version nor variant.
const COUNTER_BITS: u32 = 74;

impl Chance {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Chance {
        Chance { state: seed, millis: 0, counter: 0 }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A UUIDv7. Within a millisecond each is greater than the last by a random step (RFC 9562, section 6.2, method 2): siblings
    /// sort in the order in which they were made.
    fn uuid(&mut self, now: Time) -> Uuid {
        let millis = u64::try_from(now.0).unwrap_or(0);
        if millis == self.millis {
            self.counter += 1 + u128::from(self.next_u64() >> 32);
        } else {
            // The highest bit stays free, so that there is room to count up.
            let random = u128::from(self.next_u64()) << 64 | u128::from(self.next_u64());
            self.counter = random >> (128 - COUNTER_BITS + 1);
            self.millis = millis;
        }
        self.counter &= (1 << COUNTER_BITS) - 1;
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&((self.counter >> 62) as u16).to_be_bytes());
        bytes[2..].copy_from_slice(&((self.counter as u64) & (u64::MAX >> 2)).to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    /// A new attempt's id.
    pub fn attempt_id(&mut self, now: Time) -> AttemptId {
        AttemptId(self.uuid(now))
    }

    /// A new task's id.
    pub fn task_id(&mut self, now: Time) -> TaskId {
        TaskId(self.uuid(now))
    }
}

/// The secret of an attempt: SHA-256 over the store's key and the attempt's id, both of fixed length.
/// So the outbox need not hold secrets: whoever has the key can make them again.
pub fn secret_of(key: &[u8; 32], attempt: AttemptId) -> Secret {
    let digest = Sha256::new().chain_update(key).chain_update(attempt.as_bytes()).finalize();
    Secret(digest.into())
}
