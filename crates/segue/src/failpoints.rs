//! Ends this process at a named point of the trip, where the environment says so. Only in builds with the feature `failpoints`.

use segue_core::failpoint::{POINTS, set_hook};
use std::sync::atomic::{AtomicU32, Ordering};

/// `POINT` or `POINT:COUNT`: at which passing of which point this process ends.
const VARIABLE: &str = "SEGUE_FAILPOINT";

static LEFT: AtomicU32 = AtomicU32::new(0);
static POINT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Arms the point that the environment names.
///
/// # Errors
/// When there is no such point.
pub fn arm() -> Result<(), String> {
    let Ok(wish) = std::env::var(VARIABLE) else { return Ok(()) };
    let (point, count) = wish.split_once(':').unwrap_or((&wish, "1"));
    let count = count.parse().ok().filter(|count| *count > 0);
    let (true, Some(count)) = (POINTS.contains(&point), count) else {
        return Err(format!(
            "{VARIABLE} is `{wish}`: it has to be POINT or POINT:COUNT, where the points are {}",
            POINTS.join(", ")
        ));
    };
    LEFT.store(count, Ordering::SeqCst);
    let _ = POINT.set(point.to_owned());
    set_hook(pass);
    Ok(())
}

fn pass(point: &'static str) {
    if POINT.get().is_none_or(|armed| armed != point) {
        return;
    }
    if LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}
