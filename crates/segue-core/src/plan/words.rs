//! Which capability a goal in words asks for.

use std::collections::BTreeSet;

use super::Offer;
use super::fit::properties;

/// Words that say nothing about what is wanted.
const FILLERS: [&str; 32] = [
    "a", "an", "the", "of", "on", "in", "at", "for", "to", "from", "by", "with", "and", "or",
    "this", "that", "these", "those", "my", "our", "your", "me", "us", "it", "is", "are", "be",
    "all", "every", "please", "about", "as",
];

/// How much a word counts where it was found, in thousandths, before it is divided by how many offers have it.
const IN_NAME: u64 = 4_000;
const IN_AGENT: u64 = 3_000;
const IN_DESCRIPTION: u64 = 1_000;

/// The offer (its index) whose capability's name, output, agent's name and description best match the words of
/// a goal; rare words count more than words that many offers share. `None` when no word matches any offer that
/// produces something. The first by agent and capability wins a tie.
pub fn best_match(goal: &str, offers: &[Offer]) -> Option<usize> {
    let wanted = words(goal);
    let found: Vec<Found> = offers.iter().map(Found::of).collect();
    let mut scores = vec![0_u64; offers.len()];
    for word in wanted.iter().filter(|word| !FILLERS.contains(&word.as_str())) {
        let weights: Vec<u64> = found.iter().map(|one| one.weight(word)).collect();
        let shared = weights.iter().filter(|weight| **weight > 0).count().max(1) as u64;
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score += weight / shared;
        }
    }
    (0..offers.len())
        .filter(|&index| scores[index] > 0)
        .min_by_key(|&index| (std::cmp::Reverse(scores[index]), offers[index].who()))
}

/// The words in which an offer speaks of itself.
struct Found {
    names: BTreeSet<String>,
    agent: BTreeSet<String>,
    description: BTreeSet<String>,
}

impl Found {
    fn of(offer: &Offer) -> Self {
        let made = properties(&offer.produces);
        if made.is_empty() {
            // Nothing can be planned toward an output that is not described.
            return Self {
                names: BTreeSet::new(),
                agent: BTreeSet::new(),
                description: BTreeSet::new(),
            };
        }
        let mut names = words(&offer.capability);
        names.extend(made.into_iter().flat_map(|(name, _)| words(name)));
        Self { names, agent: words(&offer.agent), description: words(&offer.description) }
    }

    fn weight(&self, word: &str) -> u64 {
        let has = |words: &BTreeSet<String>| words.iter().any(|one| same_word(one, word));
        if has(&self.names) {
            IN_NAME
        } else if has(&self.agent) {
            IN_AGENT
        } else if has(&self.description) {
            IN_DESCRIPTION
        } else {
            0
        }
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Equal, a plural, or a longer form of the same word: report, reports, reporter.
fn same_word(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    match long.strip_prefix(short) {
        Some("") => true,
        Some("s") => short.len() >= 3,
        Some(rest) => short.len() >= 5 && rest.len() <= 3,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn offer(agent: &str, capability: &str, description: &str, makes: &[&str]) -> Offer {
        let properties: serde_json::Map<String, serde_json::Value> =
            makes.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        Offer {
            agent: agent.to_owned(),
            capability: capability.to_owned(),
            description: description.to_owned(),
            consumes: json!({}),
            produces: json!({ "properties": properties }),
            cost_usd: 0.0,
            duration_s: 0.0,
            available: 1,
        }
    }

    #[test]
    fn names_and_outputs_count_more_than_descriptions_and_rare_words_more_than_common_ones() {
        let team = [
            offer(
                "inventory",
                "inventory",
                "list the files of a repository for a report",
                &["files"],
            ),
            offer("history", "history", "read the history of a repository", &["hotspots"]),
            offer("reporter", "report", "write the report on a repository", &["report"]),
        ];
        assert_eq!(best_match("a report on this repository", &team), Some(2));
        assert_eq!(best_match("Hotspots, please", &team), Some(1));
        assert_eq!(best_match("which file is there in this repository", &team), Some(0));
        assert_eq!(best_match("bake a cake", &team), None);
        assert_eq!(best_match("the of a", &team), None);
        assert_eq!(best_match("", &[]), None);
    }

    #[test]
    fn ties_go_to_the_first_by_name_and_offers_without_output_do_not_count() {
        let team = [
            offer("b", "sum", "", &["total"]),
            offer("a", "sum", "", &["total"]),
            offer("0", "sum", "sum", &[]),
        ];
        assert_eq!(best_match("sum", &team), Some(1));
    }

    #[test]
    fn longer_forms_of_a_word_are_the_same_word() {
        assert!(
            same_word("report", "reporter")
                && same_word("files", "file")
                && same_word("über", "über")
        );
        assert!(
            !same_word("repo", "report") && !same_word("a", "as") && !same_word("plan", "planet")
        );
    }
}
