use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Tokens and money that a run used.
///
/// Counted as the GenAI conventions of OpenTelemetry count, whatever the CLI does: input includes
/// what came from a cache and what was written to one, output includes reasoning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// All input tokens, `cached_input_tokens` and `cache_write_tokens` included.
    pub input_tokens: u64,
    /// Input tokens read from a cache.
    pub cached_input_tokens: u64,
    /// Input tokens written to a cache.
    pub cache_write_tokens: u64,
    /// All output tokens, `reasoning_tokens` included.
    pub output_tokens: u64,
    /// Output tokens that were spent on reasoning, where the CLI tells.
    pub reasoning_tokens: u64,
    /// The price in USD as the CLI computed it; `None` if it names none.
    pub cost_usd: Option<f64>,
    /// The same by model, where the CLI tells; the sums above include every model.
    pub by_model: BTreeMap<String, ModelUsage>,
    /// Whether the CLI gave its final account. If not, the figures are what was seen until the end,
    /// hence a lower bound.
    pub complete: bool,
    /// The figures count the whole session: for a resumed session, what its earlier runs used is in
    /// here again and has to be subtracted.
    pub session_total: bool,
}

/// The share of one model in a [`Usage`]; its fields mean the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelUsage {
    /// All input tokens, the two below included.
    pub input_tokens: u64,
    /// Input tokens read from a cache.
    pub cached_input_tokens: u64,
    /// Input tokens written to a cache.
    pub cache_write_tokens: u64,
    /// All output tokens, reasoning included.
    pub output_tokens: u64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// The price in USD, if the CLI names one.
    pub cost_usd: Option<f64>,
}

impl ModelUsage {
    pub(super) fn add(&mut self, other: &ModelUsage) {
        let sum = |mine: &mut u64, more: u64| *mine = mine.saturating_add(more);
        sum(&mut self.input_tokens, other.input_tokens);
        sum(&mut self.cached_input_tokens, other.cached_input_tokens);
        sum(&mut self.cache_write_tokens, other.cache_write_tokens);
        sum(&mut self.output_tokens, other.output_tokens);
        sum(&mut self.reasoning_tokens, other.reasoning_tokens);
        self.cost_usd = add_cost(self.cost_usd, other.cost_usd);
    }
}

impl Usage {
    /// Adds one model's share, by name if the CLI names it.
    pub(super) fn add(&mut self, model: Option<String>, share: ModelUsage) {
        let mut total = self.total();
        total.add(&share);
        self.set_total(total);
        if let Some(model) = model {
            self.by_model.entry(model).or_default().add(&share);
        }
    }

    fn total(&self) -> ModelUsage {
        ModelUsage {
            input_tokens: self.input_tokens,
            cached_input_tokens: self.cached_input_tokens,
            cache_write_tokens: self.cache_write_tokens,
            output_tokens: self.output_tokens,
            reasoning_tokens: self.reasoning_tokens,
            cost_usd: self.cost_usd,
        }
    }

    fn set_total(&mut self, total: ModelUsage) {
        self.input_tokens = total.input_tokens;
        self.cached_input_tokens = total.cached_input_tokens;
        self.cache_write_tokens = total.cache_write_tokens;
        self.output_tokens = total.output_tokens;
        self.reasoning_tokens = total.reasoning_tokens;
        self.cost_usd = total.cost_usd;
    }
}

/// An unknown price plus a known one is the known one: the sum is then a lower bound.
fn add_cost(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other).filter(|sum| sum.is_finite()),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_never_overflow() {
        let mut usage = Usage::default();
        let share = ModelUsage {
            input_tokens: u64::MAX,
            output_tokens: 2,
            cost_usd: Some(0.5),
            ..ModelUsage::default()
        };
        usage.add(Some("a".into()), share);
        usage.add(None, share);
        assert_eq!((usage.input_tokens, usage.output_tokens), (u64::MAX, 4));
        assert_eq!(usage.cost_usd, Some(1.0));
        assert_eq!(usage.by_model["a"], share);
    }
}
