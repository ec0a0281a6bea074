//! Fenced locks in Redis. Their time is Redis's.

use super::link::Again;
use super::soft::RedisSoft;
use redis::Script;
use segue_core::ports::{Fence, Fut, Held, LockError, Locks, SoftError, check_lock};
use segue_core::time::Time;
use std::sync::LazyLock;

/// The token is greater than the last one, and than any that was given out before the last one was forgotten: time went on meanwhile.
static LOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local held = redis.call('HMGET', KEYS[1], 'holder', 'token', 'until')
if held[1] then return { '0', held[1], held[2], held[3] } end
local last = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
local token = string.format('%.0f', math.max(last + 1, t[1] * 1000000 + t[2]))
local ends = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2]))
redis.call('SET', KEYS[2], token)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'token', token, 'until', ends)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { '1', ARGV[1], token, ends }",
    )
});

static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return '' end
local ends = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'until', ends)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return ends",
    )
});

static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])",
    )
});

fn away(error: SoftError) -> LockError {
    match error {
        SoftError::Away(why) => LockError::Away(why),
        SoftError::Invalid(why) => LockError::Invalid(why),
    }
}

fn unreadable() -> LockError {
    LockError::Away("what Redis keeps under the lock's name is no lock".into())
}

fn fence(token: &str, until: &str) -> Result<Fence, LockError> {
    match (token.parse(), until.parse()) {
        (Ok(token), Ok(until)) => Ok(Fence { token, until: Time(until) }),
        _ => Err(unreadable()),
    }
}

impl RedisSoft {
    fn lock_key(&self, name: &str) -> String {
        self.link.key(&format!("lock:{name}"))
    }
}

impl Locks for RedisSoft {
    fn lock<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(async move {
            check_lock(name, Some(holder), Some(ttl_ms))?;
            let (key, last) = (self.lock_key(name), self.link.key("token"));
            let answer = self.link.script(&LOCK, Again::No, |call| {
                call.key(&key).key(&last).arg(holder).arg(ttl_ms);
            });
            let (taken, holder, token, until): (String, String, String, String) =
                answer.await.map_err(away)?;
            let fence = fence(&token, &until)?;
            if taken == "1" { Ok(fence) } else { Err(LockError::Held(Held { holder, fence })) }
        })
    }

    fn renew<'a>(
        &'a self,
        name: &'a str,
        token: u64,
        ttl_ms: u64,
    ) -> Fut<'a, Result<Fence, LockError>> {
        Box::pin(async move {
            check_lock(name, None, Some(ttl_ms))?;
            let key = self.lock_key(name);
            let until: String = self
                .link
                .script(&RENEW, Again::Yes, |call| {
                    call.key(&key).arg(token).arg(ttl_ms);
                })
                .await
                .map_err(away)?;
            if until.is_empty() {
                return Err(LockError::Lost(name.to_owned()));
            }
            fence(&token.to_string(), &until)
        })
    }

    fn release<'a>(&'a self, name: &'a str, token: u64) -> Fut<'a, Result<(), LockError>> {
        Box::pin(async move {
            check_lock(name, None, None)?;
            let key = self.lock_key(name);
            // Not twice: the second would say that the lock is lost, which the first has freed.
            let freed: u64 = self
                .link
                .script(&RELEASE, Again::No, |call| {
                    call.key(&key).arg(token);
                })
                .await
                .map_err(away)?;
            if freed == 0 { Err(LockError::Lost(name.to_owned())) } else { Ok(()) }
        })
    }

    fn holder<'a>(&'a self, name: &'a str) -> Fut<'a, Result<Option<Held>, LockError>> {
        Box::pin(async move {
            check_lock(name, None, None)?;
            let mut get = redis::cmd("HMGET");
            get.arg(self.lock_key(name)).arg(&["holder", "token", "until"]);
            let (holder, token, until): (Option<String>, Option<String>, Option<String>) =
                self.link.command(&get).await.map_err(away)?;
            match (holder, token, until) {
                (Some(holder), Some(token), Some(until)) => {
                    Ok(Some(Held { holder, fence: fence(&token, &until)? }))
                }
                (None, None, None) => Ok(None),
                _ => Err(unreadable()),
            }
        })
    }
}
