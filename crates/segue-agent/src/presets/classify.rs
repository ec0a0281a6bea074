//! Sorting failures by what the caller must do about them.

use super::output::FailureClass;

/// How much of a message is looked at. The telling words stand at the beginning or, in a log, at
/// the end.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// What a message or a status code says about a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sorted {
    pub class: FailureClass,
    pub status: Option<u16>,
}

/// The class of an HTTP status code of a model provider.
///
/// 429 is the caller's own rate window. 529 ("overloaded", Anthropic) and every other 5xx are the
/// provider's trouble, as are the codes that name a lost race or a slow peer. All else means that
/// the same request will be refused again.
pub(super) fn of_status(status: u16) -> FailureClass {
    match status {
        429 => FailureClass::RateLimited,
        408 | 409 | 425 | 499 | 500..=599 => FailureClass::Transient,
        _ => FailureClass::Permanent,
    }
}

/// Sorts a message meant for people. `None` when nothing in it is known.
pub(super) fn of_text(text: &str) -> Option<Sorted> {
    let text = prepared(text);
    let by_phrase = |table: &[&str], class| {
        table
            .iter()
            .any(|phrase| text.contains(phrase))
            .then_some(Sorted { class, status: status_in(&text) })
    };
    by_phrase(NO_MONEY, FailureClass::Permanent)
        .or_else(|| by_phrase(USED_UP, FailureClass::RateLimited))
        .or_else(|| {
            status_in(&text).map(|status| Sorted { class: of_status(status), status: Some(status) })
        })
        .or_else(|| by_phrase(LIMITED, FailureClass::RateLimited))
        .or_else(|| by_phrase(REFUSED, FailureClass::Permanent))
        .or_else(|| by_phrase(PASSING, FailureClass::Transient))
}

/// An empty account is not a rate window: waiting does not help, so these come before status 429.
const NO_MONEY: &[&str] = &[
    "insufficient_quota",
    "insufficient balance",
    "insufficient credit",
    "credit balance is too low",
    "billing_error",
    "payment required",
];

/// A subscription's window is used up. Such messages carry other statuses than 429, or none.
const USED_UP: &[&str] = &[
    "usage limit",
    "hit your limit",
    "session limit",
    "weekly limit",
    "5-hour limit",
    "out of extra usage",
];

const LIMITED: &[&str] = &[
    "rate limit",
    "rate_limit",
    "ratelimit",
    "too many requests",
    "resource_exhausted",
    "resource has been exhausted",
    "quota exceeded",
    "exceeded your current quota",
    "exhausted your capacity",
];

const REFUSED: &[&str] = &[
    // Who is asking.
    "invalid api key",
    "invalid_api_key",
    "api key not valid",
    "no api key",
    "authentication_error",
    "authentication_failed",
    "failed to authenticate",
    "please run /login",
    "not logged in",
    "unauthenticated",
    "unauthorized",
    "token has expired",
    "permission_error",
    "permission_denied",
    "providerautherror",
    // What is asked.
    "invalid_request_error",
    "invalid_argument",
    "prompt is too long",
    "context_length_exceeded",
    "contextoverflow",
    "context window",
    "request_too_large",
    "not_found_error",
    "model_not_found",
    "modelnotfound",
    "model not found",
    "content_filter",
    "flagged for",
    "usage policy",
    // How the program was called.
    "unknown option",
    "unknown argument",
    "unexpected argument",
    "invalid value",
    "not found. available agents",
    "no conversation found",
    "session not found",
    "requires a valid session id",
    "no rollout found",
    "not inside a trusted directory",
    "cannot be used with root",
    "input must be provided",
    "no prompt provided",
    "must provide a message",
    "failed to read output schema",
    "provider `",
    "error loading config",
    "is not trusted",
];

const PASSING: &[&str] = &[
    "overloaded",
    "high demand",
    "at capacity",
    "capacity unavailable",
    "internal server error",
    "service unavailable",
    "temporarily unavailable",
    "bad gateway",
    "gateway timeout",
    "deadline_exceeded",
    "stream disconnected",
    "reconnecting",
    "connection error",
    "connection failed",
    "connection refused",
    "connection reset",
    "connection closed",
    "cannot connect",
    "unable to connect",
    "could not connect",
    "econnreset",
    "econnrefused",
    "etimedout",
    "enotfound",
    "eai_again",
    "socket hang up",
    "fetch failed",
    "network error",
    "error sending request",
    "timed out",
    "try again",
    "heap out of memory",
    "no space left",
    "database is locked",
    "api_error",
];

/// Lower case, straight apostrophes, and of a long text its two ends.
fn prepared(text: &str) -> String {
    let mut short = if text.len() <= TEXT_BYTES_MAX {
        text.to_owned()
    } else {
        let head = text.floor_char_boundary(TEXT_BYTES_MAX / 2);
        let tail = text.ceil_char_boundary(text.len() - TEXT_BYTES_MAX / 2);
        format!("{}\n{}", &text[..head], &text[tail..])
    };
    short.make_ascii_lowercase();
    short.replace('\u{2019}', "'")
}

/// The first number from 400 to 599 that the words around it make an HTTP status: "status 429",
/// "API Error: 529", "rejected (429)", `"code":400`, "503 Service Unavailable". Expects lower case.
fn status_in(text: &str) -> Option<u16> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 3 <= bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if let Some(status) = as_status(text, at, end) {
            return Some(status);
        }
        at = end;
    }
    None
}

fn as_status(text: &str, start: usize, end: usize) -> Option<u16> {
    const CUES: [&str; 5] = ["status", "error", "http", "code", "rejected"];
    const REASONS: [&str; 12] = [
        "bad request",
        "unauthorized",
        "payment required",
        "forbidden",
        "not found",
        "request timeout",
        "too many requests",
        "internal server error",
        "bad gateway",
        "service unavailable",
        "gateway timeout",
        "gateway time-out",
    ];
    let status: u16 = text[start..end].parse().ok()?;
    // A digit run inside a word, a decimal or an address is no status.
    let joined = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '$');
    let before = &text[text.ceil_char_boundary(start.saturating_sub(16))..start];
    let after = &text[end..];
    let inside = before.ends_with(joined)
        || after.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/')
        || (after.starts_with('.') && after[1..].starts_with(|c: char| c.is_ascii_digit()));
    if !(400..600).contains(&status) || end - start != 3 || inside {
        return None;
    }
    let named = REASONS.iter().any(|reason| after.trim_start().starts_with(reason));
    (named || CUES.iter().any(|cue| before.contains(cue))).then_some(status)
}

/// When a failure says that trying again makes sense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RetryHint {
    /// Milliseconds from the time of the message.
    pub after_ms: Option<u64>,
    /// Seconds since 1970, when the message names a moment.
    pub at_unix_s: Option<u64>,
}

/// The longest wait that is believed: a month, as billing cycles last.
const RETRY_MS_MAX: u64 = 31 * 24 * 3_600 * 1_000;

/// Finds "try again in 1m30s", "retry-after: 30", `"retryDelay":"34s"`, "limit reached|1767225600"
/// and the like. A wall-clock time without a date and a zone ("resets 3pm") gives nothing, because
/// nobody can tell which moment it means.
pub(super) fn retry_hint(text: &str) -> RetryHint {
    const CUES: [&str; 12] = [
        "try again in",
        "retry in",
        "retry after",
        "retry-after-ms",
        "retry-after",
        "retry_after_ms",
        "retry_after",
        "retryafter",
        "retrydelay",
        "reset after",
        "resets in",
        "reset in",
    ];
    let text = prepared(text);
    let after_ms = CUES.iter().find_map(|cue| {
        let rest = &text[text.find(cue)? + cue.len()..];
        let rest = rest.trim_start_matches([' ', ':', '=', '"', '\'', '\\', '~']);
        let bare_ms = if cue.ends_with("ms") { 1.0 } else { 1_000.0 };
        duration_ms(rest, bare_ms)
    });
    let at_unix_s = text.find("limit reached|").and_then(|found| {
        let rest = &text[found + "limit reached|".len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        unix_s(rest[..digits].parse().ok()?)
    });
    RetryHint { after_ms, at_unix_s }
}

/// A moment in seconds or milliseconds since 1970, as seconds; `None` for one before 2020.
pub(super) fn unix_s(moment: u64) -> Option<u64> {
    let seconds = if moment > 100_000_000_000 { moment / 1_000 } else { moment };
    (seconds > 1_577_836_800).then_some(seconds)
}

/// Reads "1.5s", "250 ms", "1h 2m", "3 days 6 hours 57 minutes" at the beginning of `text`; a bare
/// number counts `bare_ms` milliseconds each.
fn duration_ms(text: &str, bare_ms: f64) -> Option<u64> {
    let mut rest = text;
    let mut total: Option<f64> = None;
    loop {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let Ok(amount) = rest[..digits].trim_end_matches('.').parse::<f64>() else {
            break;
        };
        let unit_text = rest[digits..].trim_start();
        let letters = unit_text.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms = match &unit_text[..letters] {
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => Some(1.0),
            "s" | "sec" | "secs" | "second" | "seconds" => Some(1_000.0),
            "m" | "min" | "mins" | "minute" | "minutes" => Some(60_000.0),
            "h" | "hr" | "hrs" | "hour" | "hours" => Some(3_600_000.0),
            "d" | "day" | "days" => Some(86_400_000.0),
            _ => None,
        };
        match (unit_ms, total) {
            (Some(unit_ms), _) => total = Some(total.unwrap_or(0.0) + amount * unit_ms),
            (None, None) => return to_ms(amount * bare_ms),
            (None, Some(_)) => break,
        }
        rest = unit_text[letters..].trim_start_matches([' ', ',']);
        rest = rest.strip_prefix("and ").unwrap_or(rest);
    }
    total.and_then(to_ms)
}

fn to_ms(ms: f64) -> Option<u64> {
    (ms.is_finite() && ms >= 0.0).then(|| (ms.ceil() as u64).min(RETRY_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, RateLimited, Transient};

    fn class(text: &str) -> Option<FailureClass> {
        of_text(text).map(|sorted| sorted.class)
    }

    #[test]
    fn messages_as_the_programs_print_them() {
        for (text, class, status) in [
            ("API Error: Request rejected (429) · mock 429", RateLimited, Some(429)),
            ("API Error: 529 mock. This is usually temporary — try again", Transient, Some(529)),
            ("Failed to authenticate. API Error: 401 mock", Permanent, Some(401)),
            ("exceeded retry limit, last status: 429 Too Many Requests", RateLimited, Some(429)),
            (
                "unexpected status 401 Unauthorized: x, url: http://127.0.0.1:503/429",
                Permanent,
                Some(401),
            ),
            ("unexpected status 503 Service Unavailable: x", Transient, Some(503)),
            (
                "We’re currently experiencing high demand, which may cause temporary errors.",
                Transient,
                None,
            ),
            ("You’ve hit your usage limit. Try again in 3 days 6 hours.", RateLimited, None),
            ("Claude AI usage limit reached|1767225600", RateLimited, None),
            (
                "{\"error\":{\"message\":\"x\",\"code\":400,\"status\":\"INVALID_ARGUMENT\"}}",
                Permanent,
                Some(400),
            ),
            ("You exceeded your current quota [429 Too Many Requests]", RateLimited, Some(429)),
            ("429 insufficient_quota: check your plan", Permanent, None),
            ("Credit balance is too low", Permanent, None),
            ("stream disconnected before completion: x", Transient, None),
            ("Reconnecting... 2/5", Transient, None),
            ("error: unknown option '--nosuch'", Permanent, None),
            ("--agent 'x' not found. Available agents: claude", Permanent, None),
            ("Error: Model provider `zz` not found", Permanent, None),
            ("FATAL ERROR: JavaScript heap out of memory", Transient, None),
        ] {
            assert_eq!(of_text(text), Some(Sorted { class, status }), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for text in ["", "boom", "line 429 of x.rs", "took 503 ms", "port 127.0.0.1:500 closed x"] {
            assert_eq!(of_text(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_that_are_no_status() {
        for text in
            ["error 42900", "error v429", "http 429.5", "error 429x", "error 4 29", "code 600"]
        {
            assert_eq!(status_in(text), None, "{text}");
        }
    }

    #[test]
    fn a_huge_message_is_read_at_both_ends() {
        let filler = "é".repeat(1 << 20);
        assert_eq!(class(&format!("rate limit {filler}")), Some(RateLimited));
        assert_eq!(class(&format!("{filler} overloaded")), Some(Transient));
        assert_eq!(class(&format!("{filler} overloaded {filler}")), None);
    }

    #[test]
    fn waits() {
        for (text, ms) in [
            ("Please try again in 1.5s.", 1_500),
            ("Please try again in 250ms", 250),
            ("try again in 1m30s", 90_000),
            ("try again in 3 days 6 hours 57 minutes.", 284_220_000),
            ("try again in 2 hours and 1 minute", 7_260_000),
            ("Retry-After: 30", 30_000),
            ("\"retry-after-ms\":\"1200\"", 1_200),
            ("{\"retryDelay\":\"34.07s\"}", 34_070),
            ("{\\\"retryDelay\\\":\\\"34s\\\"}", 34_000),
            ("Your quota will reset after 18h20m38s.", 66_038_000),
            ("try again in 9999999999999999999999 days", RETRY_MS_MAX),
        ] {
            assert_eq!(retry_hint(text).after_ms, Some(ms), "{text}");
        }
        for text in
            ["try again in a moment", "try again at 3:28 PM", "resets 3pm", "try again in", ""]
        {
            assert_eq!(retry_hint(text), RetryHint::default(), "{text}");
        }
    }

    #[test]
    fn moments() {
        let hint = retry_hint("Claude AI usage limit reached|1767225600");
        assert_eq!(hint.at_unix_s, Some(1_767_225_600));
        assert_eq!(unix_s(1_767_225_600_000), Some(1_767_225_600));
        assert_eq!(unix_s(17), None);
    }
}
