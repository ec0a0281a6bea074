//! A rig over a private Redis: a prefix of its own in a server that questions share.

use segue_bus::in_process::InProcessBus;
use segue_bus::signals::InProcessSignals;
use segue_core::ports::{Fut, Gates, Locks, Presence, Signals, WorkBus};
use segue_store::soft::{Options, PRESENCE_TTL_MS, RedisSignals, RedisSoft};
use segue_testkit::bus_suite::{BusRig, Dead};
use segue_testkit::keeper_rig::{Keeper, KeeperOf};
use segue_testkit::presence_suite::PresenceRig;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Lets time pass for one project: everything that it keeps is so much older then, as if its server's clock had gone on.
const AGE: &str = r"
local ms = tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left <= ms then redis.call('DEL', key)
  else
    if left >= 0 then redis.call('PEXPIRE', key, left - ms) end
    if redis.call('TYPE', key).ok == 'hash' then
      local all = redis.call('HGETALL', key)
      for i = 1, #all, 2 do
        local at, rest = string.match(all[i + 1], '^(%d+)( {.*)$')
        if at then redis.call('HSET', key, all[i], string.format('%.0f', at - ms) .. rest)
        elseif all[i] == 'until' or all[i] == 'ends' or all[i] == 'paused' then
          redis.call('HSET', key, all[i], string.format('%.0f', all[i + 1] - ms))
        end
      end
    end
  end
end
return 0";

const FORGET: &str = r"
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end
return 0";

pub struct Rig {
    pub url: String,
    /// The servers behind it.
    servers: Vec<String>,
    pub prefix: String,
    bus: Arc<InProcessBus>,
}

/// Options for tests: the machine may be busy.
pub fn options(url: &str, prefix: &str) -> Options {
    Options {
        connect: Duration::from_secs(10),
        command: Duration::from_secs(10),
        ..Options::new(url, prefix)
    }
}

/// Looks again and again until it finds something, for at most a minute.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), looking).await {
        Ok(found) => found,
        Err(_) => panic!("in vain waited for: {what}"),
    }
}

impl Rig {
    pub fn new(url: &str) -> Rig {
        let prefix = Uuid::new_v4().simple().to_string();
        Rig { url: url.to_owned(), servers: vec![url.to_owned()], prefix, bus: InProcessBus::new() }
    }

    /// In a cluster of these servers.
    pub fn of_cluster(servers: Vec<String>, url: &str) -> Rig {
        Rig { servers, ..Rig::new(url) }
    }

    pub async fn soft(&self) -> Arc<RedisSoft> {
        RedisSoft::connect(options(&self.url, &self.prefix)).await.expect("the options are right")
    }

    /// Hints as another process has them, once they come in.
    pub async fn hints(&self) -> Arc<RedisSignals> {
        let signals = self.soft().await.signals(InProcessSignals::new());
        signals.listening().await;
        signals
    }

    async fn eval(&self, script: &str, args: &[String]) {
        for server in &self.servers {
            let client = redis::Client::open(&**server).unwrap();
            let mut conn = client.get_multiplexed_async_connection().await.unwrap();
            let pattern = format!("{{segue:{}}}:*", self.prefix);
            let mut call = redis::cmd("EVAL");
            call.arg(script).arg(0).arg(pattern).arg(args);
            call.query_async::<()>(&mut conn).await.unwrap();
        }
    }
}

impl Keeper for Rig {
    fn pass(&self, ms: u64) -> Fut<'_, ()> {
        Box::pin(async move { self.eval(AGE, &[ms.to_string()]).await })
    }

    fn forget(&self) -> Fut<'_, ()> {
        Box::pin(self.eval(FORGET, &[]))
    }
}

impl KeeperOf<dyn Presence> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Presence>> {
        Box::pin(async { self.soft().await.presence() })
    }
}

impl PresenceRig for Rig {
    fn ttl_ms(&self) -> u64 {
        PRESENCE_TTL_MS
    }
}

impl KeeperOf<dyn Locks> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Locks>> {
        Box::pin(async { self.soft().await.locks() })
    }
}

impl KeeperOf<dyn Gates> for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn Gates>> {
        Box::pin(async { self.soft().await.gates() })
    }
}

/// Only its hints are asked; letters travel in process.
impl BusRig for Rig {
    fn connect(&self) -> Fut<'_, Arc<dyn WorkBus>> {
        let bus: Arc<dyn WorkBus> = self.bus.clone();
        Box::pin(ready(bus))
    }

    fn signals(&self) -> Fut<'_, Arc<dyn Signals>> {
        Box::pin(async {
            let signals: Arc<dyn Signals> = self.hints().await;
            signals
        })
    }

    fn queue_max(&self) -> usize {
        segue_bus::in_process::QUEUE_MAX
    }

    fn dead_letters(&self) -> Fut<'_, Vec<Dead>> {
        Box::pin(ready(Vec::new()))
    }

    fn close(&self) -> Fut<'_, ()> {
        Box::pin(ready(()))
    }
}
