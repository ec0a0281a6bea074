//! What is said of a server that is away: once when it goes, once in a while as long as it is away, once when it is back.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// While a server is away that is said no more often than this.
pub const SAY_EVERY: Duration = Duration::from_secs(60);

/// How an outage is told, each as the beginning of a line.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// It began.
    pub begins: &'static str,
    /// It goes on.
    pub goes_on: &'static str,
    /// It is over.
    pub is_over: &'static str,
}

/// Whether a server can be reached, as those know who try, and what of it is worth a line in the log. Shared by everybody in the process who tries
/// the same server.
pub struct Outage {
    words: Words,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    away: Mutex<Option<Away>>,
}

#[derive(Debug)]
struct Away {
    since: Duration,
    said: Duration,
    tries: u64,
}

impl Outage {
    /// With these words, by a clock that never goes back.
    pub fn new(words: Words, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Outage {
        Outage { words, clock: Box::new(clock), away: Mutex::new(None) }
    }

    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        // Nothing in here breaks off half-way.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A try failed. What is to be said of that, where it is time to say something.
    pub fn failed(&self) -> Option<String> {
        let now = (self.clock)();
        let mut away = self.away();
        let Some(away) = away.as_mut() else {
            *away = Some(Away { since: now, said: now, tries: 1 });
            return Some(self.words.begins.to_owned());
        };
        away.tries += 1;
        if now.saturating_sub(away.said) < SAY_EVERY {
            return None;
        }
        away.said = now;
        Some(away.told(self.words.goes_on, now))
    }

    /// A try worked. What is to be said of that, where the one before it failed.
    pub fn worked(&self) -> Option<String> {
        let away = self.away().take()?;
        Some(away.told(self.words.is_over, (self.clock)()))
    }

    /// Whether the last try failed.
    pub fn is_on(&self) -> bool {
        self.away().is_some()
    }
}

impl Away {
    fn told(&self, words: &str, now: Duration) -> String {
        let tries =
            if self.tries == 1 { "1 try".to_owned() } else { format!("{} tries", self.tries) };
        format!("{words} after {} s and {tries} in vain", now.saturating_sub(self.since).as_secs())
    }
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outage")
            .field("words", &self.words)
            .field("away", &self.away())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn one_line_when_it_goes_one_a_minute_and_one_when_it_is_back() {
        let time = Arc::new(AtomicU64::new(0));
        let clock = time.clone();
        let words = Words { begins: "away", goes_on: "still away", is_over: "back" };
        let outage =
            Outage::new(words, move || Duration::from_millis(clock.load(Ordering::SeqCst)));
        assert_eq!(outage.worked(), None, "it was never away");
        let mut lines = Vec::new();
        // Four tries a second for two and a half minutes.
        for n in 0..600 {
            time.store(n * 250, Ordering::SeqCst);
            lines.extend(outage.failed());
        }
        assert!(outage.is_on());
        lines.extend(outage.worked());
        lines.extend(outage.worked());
        assert!(!outage.is_on());
        let wanted = [
            "away",
            "still away after 60 s and 241 tries in vain",
            "still away after 120 s and 481 tries in vain",
            "back after 149 s and 600 tries in vain",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(outage.failed().as_deref(), Some("away"), "another one");
    }
}
