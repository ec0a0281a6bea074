//! Ids, jitter and secrets, from what `decide` is given.

use crate::ids::{AttemptId, TaskId};
use crate::letter::Secret;
use crate::time::Time;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A deterministic stream of numbers: SplitMix64 (Steele, Lea and Flood, 2014). It makes ids and jitter;
/// secrets are derived from the store's key instead, since this stream can be computed from its seed.
#[derive(Debug)]
pub struct Chance {
    state: u64,
    minted: u32,
}

impl Chance {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Chance {
        Chance { state: seed, minted: 0 }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn uuid(&mut self, now: Time) -> Uuid {
        let millis = u64::try_from(now.0).unwrap_or(0);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.next_u64().to_be_bytes());
        random[8..].copy_from_slice(&self.next_u64().to_be_bytes()[..2]);
        // The highest 18 bits count (RFC 9562, 6.2, method 1), so that what one batch makes sorts in the order
        // in which it was made. The bits of version and variant lie between them and are set by the builder.
        let count = self.minted & 0x3_ffff;
        self.minted = self.minted.wrapping_add(1);
        random[0] = (count >> 14) as u8;
        random[1] = (count >> 6) as u8;
        random[2] = (count & 0x3f) as u8;
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_moment_sort_in_the_order_in_which_they_were_made() {
        let mut chance = Chance::new(1);
        let ids: Vec<TaskId> =
            (0..10_000).map(|_| chance.task_id(Time(1_750_000_000_000))).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.0.get_version_num() == 7));
    }

    #[test]
    fn a_secret_depends_on_the_key_and_on_the_attempt() {
        let mut chance = Chance::new(1);
        let (one, two) = (chance.attempt_id(Time(0)), chance.attempt_id(Time(0)));
        assert_eq!(secret_of(&[1; 32], one), secret_of(&[1; 32], one));
        assert_ne!(secret_of(&[1; 32], one), secret_of(&[1; 32], two));
        assert_ne!(secret_of(&[1; 32], one), secret_of(&[2; 32], one));
    }
}
