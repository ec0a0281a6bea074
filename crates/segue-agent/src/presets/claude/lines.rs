//! The lines of the stream that both the outcome and the progress are read from.

use crate::presets::classify;
use crate::presets::json::{self, Field};
use crate::presets::output::FailureClass;
use crate::presets::reading::{Trouble, http_status};

/// The fields of the `result` line that matter.
pub(super) struct ResultLine<'a> {
    pub is_error: Field<'a>,
    pub subtype: Field<'a>,
    pub terminal_reason: Field<'a>,
    pub status: Field<'a>,
    pub result: Field<'a>,
    pub errors: Field<'a>,
    pub structured: Field<'a>,
    pub stop_reason: Field<'a>,
    pub turns: Field<'a>,
    pub denials: Field<'a>,
    pub cost_usd: Field<'a>,
    pub main_loop: Field<'a>,
    pub by_model: Field<'a>,
    pub by_model_since: Field<'a>,
}

impl<'a> ResultLine<'a> {
    pub fn of(object: &'a str) -> Option<Self> {
        let [is_error, subtype, terminal_reason, status, result, errors, structured] = json::pick(
            object,
            [
                "is_error",
                "subtype",
                "terminal_reason",
                "api_error_status",
                "result",
                "errors",
                "structured_output",
            ],
        )?;
        let [stop_reason, turns, denials, cost_usd, main_loop, by_model, by_model_since] =
            json::pick(
                object,
                [
                    "stop_reason",
                    "num_turns",
                    "permission_denials",
                    "total_cost_usd",
                    "usage",
                    "modelUsage",
                    "model_usage_since_last_result",
                ],
            )?;
        Some(ResultLine {
            is_error,
            subtype,
            terminal_reason,
            status,
            result,
            errors,
            structured,
            stop_reason,
            turns,
            denials,
            cost_usd,
            main_loop,
            by_model,
            by_model_since,
        })
    }

    /// `is_error` is what counts: a failed request to the model has the subtype `success`.
    pub fn failed(&self) -> bool {
        json::flag(self.is_error).unwrap_or(false)
            || json::text(self.subtype).is_some_and(|subtype| subtype.starts_with("error"))
    }

    pub fn trouble(&self, reason: &str) -> Trouble {
        let subtype = json::text(self.subtype).unwrap_or_default();
        let status = http_status(self.status);
        let mut message = String::new();
        json::each_element(self.errors, |error| {
            if let Some(error) = json::text(Some(error)).filter(|_| message.len() < 8 * 1024) {
                message.push_str(if message.is_empty() { "" } else { "; " });
                message.push_str(&error);
            }
        });
        if message.is_empty() {
            message = json::text(self.result).unwrap_or_default();
        }
        let class = status
            .map(classify::of_status)
            .or(match subtype.as_str() {
                "error_max_turns" | "error_max_budget_usd" => Some(FailureClass::Permanent),
                "error_max_structured_output_retries" => Some(FailureClass::InvalidOutput),
                _ => None,
            })
            .or_else(|| classify::of_text(&message).map(|sorted| sorted.class))
            .or_else(|| of_terminal_reason(reason));
        if message.is_empty() {
            message = format!("claude failed and gave no message ({subtype}, {reason})");
        }
        Trouble { class, status, message }
    }
}

fn of_terminal_reason(reason: &str) -> Option<FailureClass> {
    match reason {
        "max_turns"
        | "budget_exhausted"
        | "prompt_too_long"
        | "image_error"
        | "blocking_limit"
        | "rapid_refill_breaker"
        | "stop_hook_prevented"
        | "hook_stopped"
        | "tool_deferred"
        | "tool_deferred_unavailable" => Some(FailureClass::Permanent),
        "structured_output_retry_exhausted" | "malformed_tool_use_exhausted" => {
            Some(FailureClass::InvalidOutput)
        }
        "aborted_streaming" | "aborted_tools" | "background_requested" => {
            Some(FailureClass::Timeout)
        }
        _ => None,
    }
}

pub(super) struct ApiRetry {
    pub attempt: Option<u64>,
    pub attempts_max: Option<u64>,
    pub status: Option<u16>,
    pub delay_ms: Option<u64>,
    pub error: Option<String>,
}

impl ApiRetry {
    pub fn of(object: &str) -> Self {
        let [attempt, most, delay, status, error] = json::fields(
            object,
            ["attempt", "max_retries", "retry_delay_ms", "error_status", "error"],
        );
        ApiRetry {
            attempt: json::count(attempt),
            attempts_max: json::count(most),
            status: http_status(status),
            delay_ms: json::count(delay),
            error: json::text(error),
        }
    }
}

pub(super) struct RateLimit {
    pub allowed: bool,
    pub window: Option<String>,
    pub resets_at_unix_s: Option<u64>,
}

impl RateLimit {
    pub fn of(info: Field<'_>) -> Self {
        let [status, resets, window, overage, using_overage] = json::pick_in(
            info,
            ["status", "resetsAt", "rateLimitType", "overageStatus", "isUsingOverage"],
        );
        let passes = |field| json::text(field).is_some_and(|word| word.starts_with("allowed"));
        RateLimit {
            allowed: status.is_none()
                || passes(status)
                || passes(overage)
                || json::flag(using_overage) == Some(true),
            window: json::text(window),
            resets_at_unix_s: json::count(resets).and_then(classify::unix_s),
        }
    }
}
