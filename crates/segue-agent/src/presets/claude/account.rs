//! What a run of `claude -p` used.

use rustc_hash::FxHashMap;

use super::lines::ResultLine;
use crate::presets::json::{self, Field};
use crate::presets::usage::{ModelUsage, Usage};

/// Adds up what a run used.
///
/// The last account is the `result` line's by model; `usage` there is the main loop's alone, and on a
/// resumed session all but `model_usage_since_last_result` count the earlier runs again. Until there
/// is a result line, the messages count, each once by its id, since a message of several blocks is
/// printed block by block with the same usage.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// By id: the model, if it is known, and what was counted of the message.
    messages: FxHashMap<String, (Option<String>, ModelUsage)>,
    current: Option<String>,
    /// What the messages used until now; only a lower bound.
    pub so_far: Usage,
    of_results: Option<Usage>,
    whole_session: Option<Usage>,
}

impl Account {
    /// Counts an `assistant` line's message; false for one that Claude Code made up to show an error.
    pub fn assistant(&mut self, message: Field<'_>) -> bool {
        let [id, model, usage] = json::pick_in(message, ["id", "model", "usage"]);
        let model = json::text(model);
        if model.as_deref() == Some("<synthetic>") {
            return false;
        }
        self.message(json::text(id), model, tokens(usage));
        true
    }

    pub fn stream_event(&mut self, object: &str) {
        let [event, message_id] = json::fields(object, ["event", "api_message_id"]);
        let [kind, message, usage] = json::pick_in(event, ["type", "message", "usage"]);
        if json::is(kind, "message_start") {
            self.assistant(message);
        } else if json::is(kind, "message_delta") {
            let id = json::text(message_id).or_else(|| self.current.clone());
            self.message(id, None, tokens(usage));
        }
    }

    fn message(&mut self, id: Option<String>, model: Option<String>, now: ModelUsage) {
        let Some(id) = id else { return };
        let (known, counted) = self.messages.entry(id.clone()).or_default();
        // A delta names its message, but not its model.
        *known = known.take().or(model);
        let grown = |now: u64, counted: &mut u64| {
            let more = now.saturating_sub(*counted);
            *counted += more;
            more
        };
        let more = ModelUsage {
            input_tokens: grown(now.input_tokens, &mut counted.input_tokens),
            cached_input_tokens: grown(now.cached_input_tokens, &mut counted.cached_input_tokens),
            cache_write_tokens: grown(now.cache_write_tokens, &mut counted.cache_write_tokens),
            output_tokens: grown(now.output_tokens, &mut counted.output_tokens),
            reasoning_tokens: grown(now.reasoning_tokens, &mut counted.reasoning_tokens),
            cost_usd: None,
        };
        let model = known.clone();
        self.so_far.add(model, more);
        self.current = Some(id);
    }

    pub fn result(&mut self, end: &ResultLine<'_>) {
        if end.by_model_since.is_some() {
            let sum = self.of_results.get_or_insert_with(|| Usage {
                complete: true,
                cost_usd: Some(0.0),
                ..Usage::default()
            });
            add_models(sum, end.by_model_since);
            return;
        }
        let mut whole = Usage { complete: true, session_total: true, ..Usage::default() };
        add_models(&mut whole, end.by_model);
        if whole.by_model.is_empty() {
            whole.add(None, tokens(end.main_loop));
        }
        whole.cost_usd = json::number(end.cost_usd).or(whole.cost_usd);
        self.whole_session = Some(whole);
    }

    pub fn usage(&self) -> Usage {
        self.of_results.as_ref().or(self.whole_session.as_ref()).unwrap_or(&self.so_far).clone()
    }
}

fn add_models(sum: &mut Usage, by_model: Field<'_>) {
    json::each_entry(by_model, |model, share| {
        let [input, output, cached, written, thinking, cost] = json::pick_in(
            Some(share),
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokens",
                "cacheCreationInputTokens",
                "thinkingTokens",
                "costUSD",
            ],
        );
        sum.add(
            Some(model),
            ModelUsage {
                cost_usd: json::number(cost),
                ..in_all(input, cached, written, output, thinking)
            },
        );
    });
}

/// The `usage` of the Messages API, whose input tokens leave out the cached ones.
fn tokens(usage: Field<'_>) -> ModelUsage {
    let [input, cached, written, output, details] = json::pick_in(
        usage,
        [
            "input_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "output_tokens",
            "output_tokens_details",
        ],
    );
    let [thinking] = json::pick_in(details, ["thinking_tokens"]);
    in_all(input, cached, written, output, thinking)
}

fn in_all(
    input: Field<'_>,
    cached: Field<'_>,
    written: Field<'_>,
    output: Field<'_>,
    thinking: Field<'_>,
) -> ModelUsage {
    let count = |field| json::count(field).unwrap_or(0);
    ModelUsage {
        input_tokens: count(input).saturating_add(count(cached)).saturating_add(count(written)),
        cached_input_tokens: count(cached),
        cache_write_tokens: count(written),
        output_tokens: count(output),
        reasoning_tokens: count(thinking),
        cost_usd: None,
    }
}
