//! Counters of the admission gate in Redis. Their time is Redis's.

use super::link::Again;
use super::soft::RedisSoft;
use crate::soft::in_process::check_cost;
use redis::Script;
use segue_core::ports::{Admission, Fut, GateKey, GateReading, Gates, SoftError, check_gate};
use std::sync::LazyLock;

/// The greatest number that a script counts exactly.
const COUNT_MAX: u64 = 1 << 53;

static ADMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local f = redis.call('HMGET', KEYS[1], 'used', 'ends', 'paused')
local used, ends, paused = tonumber(f[1] or '0'), tonumber(f[2] or '0'), tonumber(f[3] or '0')
local cost, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
if paused > now then return { 0, paused - now } end
if ends <= now then used = 0; ends = now + tonumber(ARGV[3]) end
if used + cost > limit then return { 0, ends - now } end
used = used + cost
redis.call('HSET', KEYS[1], 'used', string.format('%.0f', used), 'ends', string.format('%.0f', ends))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(ends, paused) - now + 1))
return { 1, limit - used }",
    )
});

static PAUSE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local f = redis.call('HMGET', KEYS[1], 'ends', 'paused')
local ends, paused = tonumber(f[1] or '0'), tonumber(f[2] or '0')
paused = math.max(paused, now + tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], 'paused', string.format('%.0f', paused))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(ends, paused) - now + 1))
return 0",
    )
});

static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local f = redis.call('HMGET', KEYS[1], 'used', 'ends', 'paused')
local used, ends, paused = tonumber(f[1] or '0'), tonumber(f[2] or '0'), tonumber(f[3] or '0')
if ends <= now then used = 0; ends = now end
return { used, ends - now, math.max(paused - now, 0) }",
    )
});

impl RedisSoft {
    /// The lengths keep keys apart whose parts hold a colon.
    fn gate_key(&self, key: &GateKey) -> String {
        let GateKey { provider, account, model } = key;
        let lengths = format!("{}:{}", provider.len(), account.len());
        self.link.key(&format!("gate:{lengths}:{provider}:{account}:{model}"))
    }
}

impl Gates for RedisSoft {
    fn admit<'a>(
        &'a self,
        key: &'a GateKey,
        cost: u64,
        limit: u64,
        window_ms: u64,
    ) -> Fut<'a, Result<Admission, SoftError>> {
        Box::pin(async move {
            check_gate(key, window_ms)?;
            check_cost(cost, limit)?;
            let (name, limit) = (self.gate_key(key), limit.min(COUNT_MAX));
            let (admitted, number): (u64, u64) = self
                .link
                .script(&ADMIT, Again::No, |call| {
                    call.key(&name).arg(cost.min(COUNT_MAX)).arg(limit).arg(window_ms);
                })
                .await?;
            Ok(match admitted {
                0 => Admission::Wait { ms: number },
                _ => Admission::Admitted { left: number },
            })
        })
    }

    fn pause<'a>(&'a self, key: &'a GateKey, ms: u64) -> Fut<'a, Result<(), SoftError>> {
        Box::pin(async move {
            check_gate(key, ms)?;
            let name = self.gate_key(key);
            let paused = self.link.script::<u64>(&PAUSE, Again::Yes, |call| {
                call.key(&name).arg(ms);
            });
            paused.await.map(|_| ())
        })
    }

    fn read<'a>(&'a self, key: &'a GateKey) -> Fut<'a, Result<GateReading, SoftError>> {
        Box::pin(async move {
            check_gate(key, 0)?;
            let name = self.gate_key(key);
            let read = self.link.script(&READ, Again::Yes, |call| {
                call.key(&name);
            });
            let (used, window_ms, paused_ms) = read.await?;
            Ok(GateReading { used, window_ms, paused_ms })
        })
    }
}
