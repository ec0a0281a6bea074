//! Planning backward from what a goal needs over what capabilities consume and produce.
//!
//! Nobody writes down who comes after whom. A capability says by its input schema what it consumes and by
//! its output schema what it produces; [`plan`] starts from the properties a [`Goal`] wants and asks, property
//! by property, who makes it and what they need for it, until everything rests on facts already at hand.
//! Properties match when they have the same name and compatible schemas (see [`compatible`]).
//!
//! [`step`] is the whole planning agent as one pure function: the task's JSON in, the outcome's JSON out.
//! It delegates what can start now, is resumed with the results, plans again and delegates the rest.
//!
//! ```
//! use segue_core::plan::{Goal, Known, Offer, plan};
//! use serde_json::json;
//!
//! let offer = |agent: &str, takes: &str, makes: &str| Offer {
//!     agent: agent.to_owned(),
//!     capability: agent.to_owned(),
//!     description: String::new(),
//!     consumes: json!({"required": [takes]}),
//!     produces: json!({"properties": {makes: {"type": "string"}}}),
//!     cost_usd: 0.0,
//!     duration_s: 1.0,
//!     available: 1,
//! };
//! let team = [offer("writer", "facts", "report"), offer("digger", "topic", "facts")];
//! let mut goal = Goal::of(json!({"required": ["report"]}));
//! goal.given.insert("topic".to_owned(), json!("tides"));
//! let found = plan(&goal, &team, &Known::default()).unwrap();
//! let order: Vec<&str> = found.steps.iter().map(|step| step.agent.as_str()).collect();
//! assert_eq!(order, ["digger", "writer"]);
//! ```

mod fit;
mod search;
mod step;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::template::is_template;

pub use fit::compatible;
pub use search::plan;
pub use step::step;
pub use words::best_match;

/// One capability of one agent.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Who {
    /// The agent's name.
    pub agent: String,
    /// The capability's name.
    pub capability: String,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of {}", self.capability, self.agent)
    }
}

/// What is wanted, and what is at hand before anybody starts.
#[derive(Clone, Debug)]
pub struct Goal {
    /// JSON Schema of what is wanted: its `required` properties, or all its `properties` when it requires none.
    pub produces: Value,
    /// Facts at hand, by property name.
    pub given: Map<String, Value>,
    /// Who should produce what is wanted if they can; anybody who can when this is `None` or cannot be.
    pub by: Option<Who>,
}

impl Goal {
    /// A goal with nothing given and nobody preferred.
    pub fn of(produces: Value) -> Self {
        Self { produces, given: Map::new(), by: None }
    }
}

/// What one capability of one agent offers. Only the `properties` and `required` at the top of its schemas are
/// read: properties that are consumed but not required are taken when they are there anyway.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The agent's name.
    pub agent: String,
    /// The capability's name.
    pub capability: String,
    /// What it does, in words; for people and for [`best_match`].
    pub description: String,
    /// JSON Schema of its input.
    pub consumes: Value,
    /// JSON Schema of its output.
    pub produces: Value,
    /// Cost of one invocation in US dollars; what is negative or not a number counts as nothing.
    pub cost_usd: f64,
    /// Usual duration in seconds, read like the cost.
    pub duration_s: f64,
    /// How many instances could take work now. Nobody is ruled out for 0, but others come first.
    pub available: u32,
}

impl Offer {
    /// Whose offer it is.
    pub fn who(&self) -> Who {
        Who { agent: self.agent.clone(), capability: self.capability.clone() }
    }
}

/// What earlier waves of the same goal brought, by step key (see [`keys`]).
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Properties at hand from steps that completed.
    pub made: BTreeMap<String, Map<String, Value>>,
    /// Steps that failed; they are not planned again.
    pub failed: BTreeSet<String>,
    /// Steps that completed, but some of whose properties were not kept. Should one of those be wanted after
    /// all, the step is planned once more under its old key, where its result can be found again.
    pub not_kept: BTreeSet<String>,
    /// Steps that completed with an output too large to be handed over: whatever they declare is there, but it can
    /// only be referred to, in a template (see [`Ready::needs`]).
    pub too_large: BTreeSet<String>,
}

impl Known {
    /// The value of a property that the step with this key made, if it is at hand.
    fn value(&self, key: &str, property: &str) -> Option<&Value> {
        self.made.get(key)?.get(property)
    }
}

/// Where a step or the goal takes a property from.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Source {
    /// From the facts given with the goal.
    Given,
    /// From the output of the step with this key: one of the plan's steps, or one that is already [`Known`].
    Step(String),
}

/// One piece of work to be done by one capability.
#[derive(Clone, Debug)]
pub struct Step {
    /// Unique in its plan, the same whenever the same team is planned for; see [`keys`].
    pub key: String,
    /// The agent to do it.
    pub agent: String,
    /// Which of the agent's capabilities.
    pub capability: String,
    /// Where each property of its input comes from.
    pub inputs: BTreeMap<String, Source>,
    /// The properties that other steps or the goal take from it.
    pub gives: BTreeSet<String>,
}

/// What is left to do, in an order in which every step comes after those it takes from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps. Empty when everything wanted is at hand.
    pub steps: Vec<Step>,
    /// Where each wanted property comes from.
    pub goal: BTreeMap<String, Source>,
}

/// A step that can start now, with its input.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// Key of the step.
    pub key: String,
    /// The agent to do it.
    pub agent: String,
    /// Which of the agent's capabilities.
    pub capability: String,
    /// The whole input. Plain values where `needs` is empty, else templates over the outputs of `needs`.
    pub input: Map<String, Value>,
    /// Keys of finished steps to whose outputs the input refers, because one of them is [too large](Known::too_large).
    pub needs: BTreeSet<String>,
}

impl Plan {
    /// The steps whose inputs are all at hand and which are not done yet, each with its input.
    pub fn next_wave(&self, given: &Map<String, Value>, known: &Known) -> Vec<Ready> {
        let mut ready = Vec::new();
        for step in &self.steps {
            let done = known.too_large.contains(&step.key)
                || known.made.contains_key(&step.key)
                    && step.gives.iter().all(|property| known.value(&step.key, property).is_some());
            if done || known.failed.contains(&step.key) {
                continue;
            }
            let plain = collect(&step.inputs, given, known).map(|input| (input, BTreeSet::new()));
            if let Some((input, needs)) = plain.or_else(|| refer(&step.inputs, given, known)) {
                ready.push(Ready {
                    key: step.key.clone(),
                    agent: step.agent.clone(),
                    capability: step.capability.clone(),
                    input,
                    needs,
                });
            }
        }
        ready
    }

    /// What was wanted, once all of it is at hand.
    pub fn result(&self, given: &Map<String, Value>, known: &Known) -> Option<Map<String, Value>> {
        collect(&self.goal, given, known)
    }
}

fn collect(
    from: &BTreeMap<String, Source>,
    given: &Map<String, Value>,
    known: &Known,
) -> Option<Map<String, Value>> {
    let mut values = Map::new();
    for (property, source) in from {
        let value = match source {
            Source::Given => given.get(property)?,
            Source::Step(key) => known.value(key, property)?,
        };
        values.insert(property.clone(), value.clone());
    }
    Some(values)
}

/// The same as templates: what steps made by reference, so that it need not pass through here, the rest as it is.
fn refer(
    from: &BTreeMap<String, Source>,
    given: &Map<String, Value>,
    known: &Known,
) -> Option<(Map<String, Value>, BTreeSet<String>)> {
    let mut values = Map::new();
    let mut needs = BTreeSet::new();
    for (property, source) in from {
        let value = match source {
            Source::Given => verbatim(given.get(property)?),
            Source::Step(key) => {
                if !known.too_large.contains(key) {
                    known.value(key, property)?;
                }
                needs.insert(key.clone());
                // A JSON string is a string of the template language, too.
                let (key, property) = (Value::from(key.as_str()), Value::from(property.as_str()));
                Value::from(format!("{{{{ tasks[{key}].output[{property}] }}}}"))
            }
        };
        values.insert(property.clone(), value);
    }
    Some((values, needs))
}

/// A value that renders to itself.
fn verbatim(value: &Value) -> Value {
    match value {
        Value::String(text) if is_template(text) => {
            let mut out = String::with_capacity(text.len() + 32);
            for c in text.chars() {
                match c {
                    '{' => out.push_str("{{ '{' }}"),
                    _ => out.push(c),
                }
            }
            Value::String(out)
        }
        Value::Array(list) => list.iter().map(verbatim).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(name, one)| (name.clone(), verbatim(one))).collect())
        }
        _ => value.clone(),
    }
}

/// The step key of each offer: the agent's name, or `agent.capability` for an agent that has several. Offers that
/// name the same capability of the same agent share a key.
pub fn keys(offers: &[Offer]) -> Vec<String> {
    let mut capabilities: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for offer in offers {
        capabilities.entry(&offer.agent).or_default().insert(&offer.capability);
    }
    let mut owner: BTreeMap<String, Who> = BTreeMap::new();
    let mut given: BTreeMap<Who, String> = BTreeMap::new();
    for (agent, names) in &capabilities {
        for name in names {
            let plain =
                if names.len() == 1 { (*agent).to_owned() } else { format!("{agent}.{name}") };
            // An agent may be called `a.b` where `a` has a capability `b`.
            let key = (1..)
                .map(|n| if n == 1 { plain.clone() } else { format!("{plain}~{n}") })
                .find(|key| !owner.contains_key(key))
                .unwrap_or_default();
            let who = Who { agent: (*agent).to_owned(), capability: (*name).to_owned() };
            owner.insert(key.clone(), who.clone());
            given.insert(who, key);
        }
    }
    offers.iter().map(|offer| given.get(&offer.who()).cloned().unwrap_or_default()).collect()
}

/// Why there is no plan: every property that nobody can bring, or the circle that closes on itself.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no plan: {}", join(.missing))]
pub struct Unplannable {
    /// At least one.
    pub missing: Vec<Missing>,
}

fn join(missing: &[Missing]) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<String> = missing.iter().take(SHOWN).map(ToString::to_string).collect();
    if missing.len() > SHOWN {
        text.push(format!("and {} more", missing.len() - SHOWN));
    }
    text.join("; ")
}

/// One property that cannot be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    /// Its name.
    pub property: String,
    /// Who consumes it; the goal itself when `None`.
    pub wanted_by: Option<Who>,
    /// Who comes close, and why that is not enough; in words.
    pub instead: Vec<String>,
    /// The capabilities that need each other's output, when that is the reason.
    pub circle: Vec<Who>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = match &self.wanted_by {
            Some(who) => format!("which {who} consumes"),
            None => "which the goal wants".to_owned(),
        };
        if self.circle.is_empty() {
            write!(f, "nobody produces `{}`, {wanted}", self.property)?;
            if !self.instead.is_empty() {
                write!(f, " ({})", self.instead.join(", "))?;
            }
            return Ok(());
        }
        write!(
            f,
            "`{}`, {wanted}, can only be made in a circle: {}",
            self.property, self.circle[0]
        )?;
        for (index, who) in self.circle.iter().cycle().skip(1).take(self.circle.len()).enumerate() {
            let link = if index == 0 { " needs" } else { ", which needs" };
            write!(f, "{link} what {who} makes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Context, render_value};
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn a_given_fact_renders_to_itself(text in "[{}%#a \\n\"'-]{0,12}", other in "\\PC{0,12}") {
            let value = json!({"text": text, "list": [other, {"deep": text}], "number": 3});
            let context = Context::new(&json!({}), &BTreeMap::new());
            prop_assert_eq!(render_value(&verbatim(&value), &context).unwrap(), value);
        }
    }
}
