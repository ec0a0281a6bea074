//! The program's own log: on standard error, above whatever is being drawn there.

use crate::screen::live::say;
use std::io::Write;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that says what is logged, such as `debug` or `segue_engine=trace`.
pub const VARIABLE: &str = "SEGUE_LOG";

/// Starts to log: what is at least as grave as this, or what the environment asks for.
pub fn start(colour: bool, least: Level) {
    let filter = EnvFilter::builder()
        .with_default_directive(least.into())
        .with_env_var(VARIABLE)
        .from_env_lossy();
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
