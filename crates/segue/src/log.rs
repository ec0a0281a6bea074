//! The program's own log: on standard error, above whatever is being drawn there.

use crate::screen::live::say;
use std::io::Write;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that says what is logged, such as `debug` or `segue_engine=trace`.
pub const VARIABLE: &str = "SEGUE_LOG";

/// Starts to log: what the environment asks for; else warnings, or nothing where the command itself tells all that it meets.
pub fn start(colour: bool, is_quiet: bool) {
    // The driver tells of each broken connection in several lines, and the bus says it in one.
    let usual = if is_quiet { "off" } else { "warn,lapin=off" };
    let wanted = std::env::var(VARIABLE).ok().filter(|wanted| !wanted.trim().is_empty());
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::WARN.into())
        .parse_lossy(wanted.as_deref().unwrap_or(usual));
    // Only the first call counts; a second one changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_target(false)
        .with_writer(Above)
        .try_init();
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
