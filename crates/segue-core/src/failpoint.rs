//! Named points of the trip at which a chaos run ends the process.

/// The named points, in the order of the trip.
pub const POINTS: [&str; 9] = [
    "before-commit",
    "after-commit",
    "before-publish",
    "after-publish",
    "agent-accepted",
    "agent-started",
    "agent-ended",
    "before-report",
    "after-report",
];

#[cfg(feature = "failpoints")]
static HOOK: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// Sets what happens at a point. The first call counts.
#[cfg(feature = "failpoints")]
pub fn set_hook(hook: fn(&'static str)) {
    let _ = HOOK.set(hook);
}

/// A named point is passed. Without the feature `failpoints` this is nothing.
#[inline(always)]
pub fn pass(_point: &'static str) {
    #[cfg(feature = "failpoints")]
    if let Some(hook) = HOOK.get() {
        hook(_point);
    }
}
