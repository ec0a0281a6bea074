//! The program's own log: on standard error, above whatever is being drawn there.

use crate::screen::live::say;
use std::io::Write;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that says what is logged, such as `debug` or `segue_engine=trace`.
pub const VARIABLE: &str = "SEGUE_LOG";

/// Starts to log: what the environment asks for; else warnings, or nothing where the command itself tells all that it meets.
pub fn start(colour: bool, is_quiet: bool) {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let filter = filter(if asked.is_empty() && is_quiet { "off" } else { &asked });
    // Only the first call counts; a second one changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_target(false)
        .with_writer(Above)
        .try_init();
}

/// What is logged. RabbitMQ's client writes whole letters into its records, also of one that merely came back, and in letters stand the
/// secrets of attempts: it says nothing at all, whatever is asked for. What goes wrong there the bus says itself.
fn filter(asked: &str) -> EnvFilter {
    let filter =
        EnvFilter::builder().with_default_directive(tracing::Level::WARN.into()).parse_lossy(asked);
    match "lapin=off".parse() {
        Ok(silent) => filter.add_directive(silent),
        Err(_) => filter,
    }
}

struct Above;

impl MakeWriter<'_> for Above {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

/// One record, said when it is whole.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.0);
        if !text.trim().is_empty() {
            say(text.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_logs_whole_letters_is_never_heard() {
        for asked in ["", "trace", "lapin=trace", "segue=debug,lapin=info"] {
            let filter = filter(asked).to_string();
            let lapin: Vec<&str> = filter.split(',').filter(|it| it.starts_with("lapin")).collect();
            assert_eq!(lapin, ["lapin=off"], "{asked}: {filter}");
        }
    }
}
