//! Everything that is soft, over one connection to Redis.

use super::link::Link;
use super::options::{Mode, Options, without_secrets};
use super::signals::RedisSignals;
use segue_core::ports::{Gates, Locks, Presence, Signals, SoftError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first version whose scripts may ask for the time and write.
const VERSION_MIN: u32 = 5;

/// Presence, locks, gates and hints in Redis.
pub struct RedisSoft {
    pub(super) link: Arc<Link>,
}

/// What `segue doctor` says of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// How long a question takes.
    pub round_trip: Duration,
    /// One server, Sentinel, or a cluster.
    pub mode: Mode,
    /// Where it is, without credentials.
    pub place: String,
    /// What is missing, and how to mend it.
    pub missing: Vec<String>,
}

impl RedisSoft {
    /// The Redis of these options. One that is away is no failure: it is tried again whenever it is needed.
    ///
    /// # Errors
    /// [`SoftError::Invalid`] where the options are wrong.
    pub async fn connect(options: Options) -> Result<Arc<RedisSoft>, SoftError> {
        let soft = Arc::new(RedisSoft { link: Arc::new(Link::new(options)?) });
        if let Err(error) = soft.ping().await {
            tracing::debug!(%error, "work begins without Redis");
        }
        Ok(soft)
    }

    /// Who is there.
    pub fn presence(self: &Arc<Self>) -> Arc<dyn Presence> {
        self.clone()
    }

    /// Fenced locks.
    pub fn locks(self: &Arc<Self>) -> Arc<dyn Locks> {
        self.clone()
    }

    /// Counters of the admission gate.
    pub fn gates(self: &Arc<Self>) -> Arc<dyn Gates> {
        self.clone()
    }

    /// Hints: `here` carries them within this process, Redis to the others. Has to be called within a runtime.
    pub fn signals(&self, here: Arc<dyn Signals>) -> Arc<RedisSignals> {
        RedisSignals::start(self.link.clone(), here)
    }

    async fn ping(&self) -> Result<Duration, SoftError> {
        let asked = Instant::now();
        self.link.command::<String>(&redis::cmd("PING")).await?;
        Ok(asked.elapsed())
    }

    /// Looks at it.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn status(&self) -> Result<Status, SoftError> {
        // The first question may have to connect.
        self.ping().await?;
        let round_trip = self.ping().await?;
        let info = self.info("server").await;
        let memory = self.info("memory").await;
        let (target, options) = (self.link.target(), self.link.options());
        let version = field(&info, "redis_version").unwrap_or("unknown").to_owned();
        let mut missing = Vec::new();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < VERSION_MIN) {
            missing.push(format!(
                "Redis {VERSION_MIN} or later: locks and beats need scripts that ask for the time"
            ));
        }
        if field(&memory, "maxmemory_policy").is_some_and(|policy| policy != "noeviction") {
            missing.push(
                "maxmemory-policy noeviction: a Redis that evicts forgets locks and agents before their time".into(),
            );
        }
        if target.login.password.is_none() {
            missing.push("a password: whoever reaches this Redis can take every lock; set one and put it into the URL".into());
        }
        if target.mode == Mode::Sentinel && target.servers.len() < 3 {
            missing.push("at least three Sentinels in the URL, so that one can be lost".into());
        }
        let place = without_secrets(&options.url);
        Ok(Status { version, round_trip, mode: target.mode, place, missing })
    }

    /// A section of what Redis says of itself. Managed ones may refuse: then it is empty.
    async fn info(&self, section: &str) -> String {
        self.link.command(redis::cmd("INFO").arg(section)).await.unwrap_or_default()
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
