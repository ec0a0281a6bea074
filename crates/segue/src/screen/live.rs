//! Lines at the end of a terminal that are drawn again and again, and what is said above them meanwhile.

use super::text::width;
use console::Term;
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::io::Write as _;

/// What is said while lines are being drawn; `None` while nothing is.
static SAID: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Says a line on standard error: above the lines that are being drawn, if any are. A standard error that is gone is no
/// reason to fail.
pub fn say(text: &str) {
    if let Some(said) = SAID.lock().as_mut() {
        said.extend(text.lines().map(str::to_owned));
        return;
    }
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

/// Lines that are drawn again and again on standard error.
#[derive(Debug)]
pub struct Live {
    term: Term,
    /// How wide the lines were that stand there now.
    drawn: Vec<usize>,
}

impl Live {
    /// Starts to draw; `None` where standard error is no terminal that can.
    pub fn start() -> Option<Live> {
        let term = Term::stderr();
        if !term.is_term()
            || !term.features().is_attended()
            || std::env::var("TERM").is_ok_and(|term| term == "dumb")
        {
            return None;
        }
        *SAID.lock() = Some(Vec::new());
        let _ = term.hide_cursor();
        Some(Live { term, drawn: Vec::new() })
    }

    /// Lines and cells of the terminal.
    pub fn size(&self) -> (usize, usize) {
        let (lines, cells) = self.term.size();
        (usize::from(lines).max(3), usize::from(cells).max(20))
    }

    /// Draws these lines in the place of the last ones. The terminal shows all of it at once, where it knows how to.
    pub fn draw(&mut self, lines: &[String]) {
        let (_, cells) = self.size();
        let mut out = String::from("\u{1b}[?2026h");
        // Writing to a String cannot fail.
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(cells).max(1)).sum();
        if up > 0 {
            let _ = write!(out, "\u{1b}[{up}A\r");
        }
        let said = SAID.lock().as_mut().map(std::mem::take).unwrap_or_default();
        for line in said.iter().chain(lines) {
            let _ = write!(out, "\u{1b}[2K{line}\r\n");
        }
        out.push_str("\u{1b}[J\u{1b}[?2026l");
        self.drawn = lines.iter().map(|line| width(line)).collect();
        let _ = self.term.write_str(&out);
        let _ = self.term.flush();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves the terminal as it should be, whatever is being drawn: also for a way out that drops nothing.
pub fn restore() {
    if let Some(said) = SAID.lock().take() {
        let _ = Term::stderr().show_cursor();
        for line in said {
            say(&line);
        }
    }
}
