//! Who is there, as nodes tell each other through Redis.

use super::link::{Again, Link};
use super::soft::RedisSoft;
use crate::soft::in_process::{full, product};
use redis::Script;
use segue_core::ids::{HostId, InstanceId};
use segue_core::ports::{
    Beat, Everybody, FOUND_MAX, Fut, INSTANCES_MAX, InstanceBeat, NODES_MAX, NodeBeat, Presence,
    SeenInstance, SeenNode, SoftError,
};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// Instances that one call of the script writes: a script holds up everybody else meanwhile.
const CHUNK: usize = 500;
/// Entries of bygone instances that one reader clears away at a time.
const SWEEP_MAX: usize = 1_000;

/// Instances: `id -> when it was heard of, what was said`; of two words the later stays, unless it comes from a future that a
/// clock has been set back from. Nodes and health likewise.
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ttl, refused = tonumber(ARGV[1]), 0
local function put(key, max, id, seen, text)
  local old = redis.call('HGET', key, id)
  if not old and redis.call('HLEN', key) >= max then refused = refused + 1; return false end
  local was = old and tonumber(string.match(old, '^%d+') or '0') or 0
  if was > seen and was <= now then return true end
  redis.call('HSET', key, id, string.format('%.0f ', seen) .. text)
  return true
end
local from = ARGV[4]
if from ~= '' then
  if ARGV[5] ~= '' then put(KEYS[2], tonumber(ARGV[3]), from, now, ARGV[5]) end
  if ARGV[6] == '' then redis.call('HDEL', KEYS[3], from)
  else put(KEYS[3], tonumber(ARGV[3]), from, now, ARGV[6]) end
end
local i = 7
while i <= #ARGV do
  local id, sets = ARGV[i], tonumber(ARGV[i + 3])
  if put(KEYS[1], tonumber(ARGV[2]), id, math.max(now - tonumber(ARGV[i + 1]), 0), ARGV[i + 2]) then
    for s = 1, sets do redis.call('SADD', KEYS[tonumber(ARGV[i + 3 + s])], id) end
  end
  i = i + 4 + sets
end
for k = 1, #KEYS do redis.call('PEXPIRE', KEYS[k], ttl * 2) end
return refused",
    )
});

/// Redis's time, asked with a key so that a cluster answers by the server that has it. Not the hashes as well: a script copies each of their
/// entries twice, and holds up everybody meanwhile.
const NOW: &str = r"
local t = redis.call('TIME')
return string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))";

static CAPABLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local max, ids = tonumber(ARGV[1]), nil
if redis.call('SCARD', KEYS[1]) > max then ids = redis.call('SRANDMEMBER', KEYS[1], max)
else ids = redis.call('SMEMBERS', KEYS[1]) end
local texts = {}
for i = 1, #ids do texts[i] = redis.call('HGET', KEYS[2], ids[i]) or '' end
return { string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), ids, texts, redis.call('HGETALL', KEYS[3]) }",
    )
});

/// Removes what is still as old as its reader saw it.
static SWEEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ARGV[1])
for i = 2, #ARGV do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if old and tonumber(string.match(old, '^%d+') or '0') <= oldest then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 0",
    )
});

type Told = Vec<(String, String)>;

/// The names of the keys.
struct Keys {
    instances: String,
    nodes: String,
    health: String,
}

fn keys(link: &Link) -> Keys {
    Keys { instances: link.key("instances"), nodes: link.key("nodes"), health: link.key("health") }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, SoftError> {
    serde_json::to_string(value).map_err(|error| SoftError::Invalid(error.to_string()))
}

/// One call of [`BEAT`].
struct Chunk {
    sets: Vec<String>,
    args: Vec<String>,
}

impl Chunk {
    fn of(link: &Link, instances: &[InstanceBeat]) -> Result<Chunk, SoftError> {
        let names: BTreeSet<&Arc<str>> =
            instances.iter().flat_map(|said| &said.capabilities).collect();
        // The first three keys are the hashes; Lua counts from one.
        let places: BTreeMap<&Arc<str>, usize> = names.iter().copied().zip(4..).collect();
        let mut args = Vec::with_capacity(instances.len() * 5);
        for said in instances {
            let sets: BTreeSet<usize> =
                said.capabilities.iter().filter_map(|name| places.get(name).copied()).collect();
            args.push(said.instance.to_string());
            args.push(said.silent_ms.to_string());
            args.push(json(said)?);
            args.push(sets.len().to_string());
            args.extend(sets.iter().map(usize::to_string));
        }
        let sets = names.iter().map(|name| set_of(link, name)).collect();
        Ok(Chunk { sets, args })
    }
}

fn set_of(link: &Link, capability: &str) -> String {
    link.key(&format!("can:{capability}"))
}

impl RedisSoft {
    fn presence_ttl_ms(&self) -> u64 {
        u64::try_from(self.link.options().presence_ttl.as_millis()).unwrap_or(u64::MAX)
    }

    async fn tell(&self, beat: Beat) -> Result<(), SoftError> {
        let keys = keys(&self.link);
        let node = beat.node.as_ref().map(json).transpose()?.unwrap_or_default();
        let health = if beat.health.is_empty() { String::new() } else { json(&beat.health)? };
        let mut from = beat.from.to_string();
        let mut chunks: Vec<&[InstanceBeat]> = beat.instances.chunks(CHUNK).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let mut refused = 0_u64;
        for chunk in chunks {
            let Chunk { sets, args } = Chunk::of(&self.link, chunk)?;
            refused += self
                .link
                .script::<u64>(&BEAT, Again::Yes, |call| {
                    call.key(&keys.instances).key(&keys.nodes).key(&keys.health).key(&sets);
                    call.arg(self.presence_ttl_ms()).arg(INSTANCES_MAX).arg(NODES_MAX);
                    call.arg(&from).arg(&node).arg(&health).arg(&args);
                })
                .await?;
            from.clear();
        }
        match refused {
            0 => Ok(()),
            count => Err(full(count)),
        }
    }

    async fn look_around(&self) -> Result<Everybody, SoftError> {
        let keys = keys(&self.link);
        let mut all = redis::pipe();
        all.cmd("EVAL").arg(NOW).arg(1).arg(&keys.instances);
        all.hgetall(&keys.instances).hgetall(&keys.nodes).hgetall(&keys.health);
        let (now, instances, nodes, health): (String, Told, Told, Told) =
            self.link.pipeline(&all).await?;
        let reader = Reader { now: now.parse().unwrap_or(0), ttl_ms: self.presence_ttl_ms() };
        let mut gone = Vec::new();
        let health = reader.read(health, &mut Vec::new());
        let health = health.into_iter().map(|(node, (_, said))| (node, said)).collect();
        let product = product(&health);
        let instances = reader.read::<InstanceId, InstanceBeat>(instances, &mut gone);
        let instances = instances.into_iter().map(|(id, (silent_ms, mut beat))| {
            beat.silent_ms = silent_ms;
            let health = product.get(&id).copied().unwrap_or(1.0);
            (id, SeenInstance { beat, health })
        });
        let instances = instances.collect();
        self.sweep(&keys.instances, gone).await;
        let mut gone = Vec::new();
        let nodes = reader.read::<HostId, NodeBeat>(nodes, &mut gone);
        let nodes = nodes
            .into_iter()
            .map(|(id, (silent_ms, beat))| (id, SeenNode { beat, silent_ms }))
            .collect();
        self.sweep(&keys.nodes, gone).await;
        Ok(Everybody { instances, nodes, health })
    }

    async fn find(&self, capability: &str) -> Result<Vec<SeenInstance>, SoftError> {
        let keys = keys(&self.link);
        let set = set_of(&self.link, capability);
        let (now, ids, texts, health): (String, Vec<String>, Vec<String>, Told) = self
            .link
            .script(&CAPABLE, Again::Yes, |call| {
                call.key(&set).key(&keys.instances).key(&keys.health).arg(FOUND_MAX);
            })
            .await?;
        let reader = Reader { now: now.parse().unwrap_or(0), ttl_ms: self.presence_ttl_ms() };
        let health = reader.read(health, &mut Vec::new());
        let health = health.into_iter().map(|(node, (_, said))| (node, said)).collect();
        let product = product(&health);
        let told = ids.iter().cloned().zip(texts).collect();
        let mut found = reader.read::<InstanceId, InstanceBeat>(told, &mut Vec::new());
        found.retain(|_, (_, beat)| beat.capabilities.iter().any(|name| **name == *capability));
        // Who went, or can it no more, leaves the set: whoever comes back is added with the next beat.
        let here: BTreeSet<String> = found.keys().map(InstanceId::to_string).collect();
        let gone: Vec<&String> = ids.iter().filter(|id| !here.contains(*id)).collect();
        if !gone.is_empty() {
            let _ = self.link.command::<()>(redis::cmd("SREM").arg(&set).arg(gone)).await;
        }
        let found = found.into_iter().map(|(id, (silent_ms, mut beat))| {
            beat.silent_ms = silent_ms;
            SeenInstance { beat, health: product.get(&id).copied().unwrap_or(1.0) }
        });
        Ok(found.collect())
    }

    /// Clears away what is too old. It is only for room: whoever reads leaves it out anyway.
    async fn sweep(&self, key: &str, mut gone: Vec<String>) {
        gone.truncate(SWEEP_MAX);
        if gone.is_empty() {
            return;
        }
        let ttl = self.presence_ttl_ms();
        let swept = self.link.script::<u64>(&SWEEP, Again::Yes, |call| {
            call.key(key).arg(ttl).arg(&gone);
        });
        if let Err(error) = swept.await {
            tracing::debug!(%error, "old entries of the directory stay for now");
        }
    }
}

/// Reads `milliseconds JSON`.
struct Reader {
    now: u64,
    ttl_ms: u64,
}

impl Reader {
    /// What is readable and young enough, with its age. `gone` gets the ids of the rest; what another version wrote is left alone until it is old.
    fn read<I: std::str::FromStr + Ord, T: DeserializeOwned>(
        &self,
        told: Told,
        gone: &mut Vec<String>,
    ) -> BTreeMap<I, (u64, T)> {
        let mut read = BTreeMap::new();
        for (id, text) in told {
            let Some((at, text)) = text.split_once(' ') else {
                gone.push(id);
                continue;
            };
            let silent = self.now.saturating_sub(at.parse().unwrap_or(0));
            if silent >= self.ttl_ms {
                gone.push(id);
                continue;
            }
            if let (Ok(id), Ok(value)) = (id.parse(), serde_json::from_str(text)) {
                read.insert(id, (silent, value));
            }
        }
        read
    }
}

impl Presence for RedisSoft {
    fn beat(&self, beat: Beat) -> Fut<'_, Result<(), SoftError>> {
        Box::pin(self.tell(beat))
    }

    fn remove(&self, instances: Vec<InstanceId>) -> Fut<'_, Result<(), SoftError>> {
        Box::pin(async move {
            if instances.is_empty() {
                return Ok(());
            }
            let ids: Vec<String> = instances.iter().map(InstanceId::to_string).collect();
            self.link.command(redis::cmd("HDEL").arg(keys(&self.link).instances).arg(ids)).await
        })
    }

    fn leave(&self, node: HostId) -> Fut<'_, Result<(), SoftError>> {
        Box::pin(async move {
            let keys = keys(&self.link);
            let mut both = redis::pipe();
            both.hdel(keys.nodes, node.to_string()).ignore();
            both.hdel(keys.health, node.to_string()).ignore();
            self.link.pipeline(&both).await
        })
    }

    fn everybody(&self) -> Fut<'_, Result<Everybody, SoftError>> {
        Box::pin(self.look_around())
    }

    fn capable<'a>(&'a self, capability: &'a str) -> Fut<'a, Result<Vec<SeenInstance>, SoftError>> {
        Box::pin(self.find(capability))
    }
}
