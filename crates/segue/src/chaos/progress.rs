//! How far a run is, on standard error: one line that is drawn again on a terminal, else a line now and then.

use crate::screen::live::{Live, say};
use std::time::{Duration, Instant};

/// How often the line is drawn again.
const DRAW: Duration = Duration::from_millis(100);
/// Lines of a run that is not on a terminal.
const LINES: u32 = 10;

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    live: Option<Live>,
    kills: u32,
    tasks: u32,
    began: Instant,
    drawn: Instant,
    told: u32,
}

impl Progress {
    /// Of a run with so many kills and tasks.
    pub fn start(kills: u32, tasks: u32) -> Progress {
        let now = Instant::now();
        Progress { live: Live::start(), kills, tasks, began: now, drawn: now, told: 0 }
    }

    /// Says a line.
    pub fn say(&self, text: &str) {
        say(text);
    }

    /// So many kills are done, and so many attempts.
    pub fn show(&mut self, kill: u32, ends: u64) {
        let line = format!(
            "kill {kill}/{}, {ends} attempts done for {} tasks, {} s",
            self.kills,
            self.tasks,
            self.began.elapsed().as_secs()
        );
        match &mut self.live {
            Some(live) if self.drawn.elapsed() > DRAW => {
                live.draw(&[line]);
                self.drawn = Instant::now();
            }
            Some(_) => {}
            None => {
                let part = (kill * LINES).checked_div(self.kills).unwrap_or(LINES);
                if part > self.told {
                    say(&line);
                    self.told = part;
                }
            }
        }
    }
}
