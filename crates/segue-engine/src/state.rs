//! Shared state and the tasks of agents: what they are given of it, what their templates read, and a look at what they bring.

use crate::dispatch::bounded;
use crate::engine::{Engine, EngineError};
use segue_core::command::Command;
use segue_core::letter::TaskResponse;
use segue_core::outcome::Outcome;
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::ports::StoreError;
use segue_core::state::{GIVEN_MAX, GivenState, GivenValue, OutcomeState, StateVersion, covers};
use segue_core::task::{ErrorClass, Task, TaskError, Template};
use segue_core::template::{self, MAX_VALUE_BYTES, Reference};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Keys of shared state that the templates of one task may read.
const READ_MAX: usize = 64;

impl Engine {
    /// Adds what stands under the keys that a task may use, as it is at this moment: every attempt gets it anew.
    pub(crate) async fn give_state(&self, given: &mut GivenState) -> Result<(), StoreError> {
        let mut found: BTreeMap<Arc<str>, StateVersion> = BTreeMap::new();
        for pattern in &given.keys {
            let rows = match pattern.strip_suffix('*') {
                Some(prefix) => {
                    self.parts.store.state_list(prefix.into(), None, GIVEN_MAX + 1).await?
                }
                None => {
                    self.parts.store.state_get(pattern.clone(), None).await?.into_iter().collect()
                }
            };
            found.extend(rows.into_iter().map(|row| (row.key.clone(), row)));
        }
        given.more = found.len() > GIVEN_MAX;
        let value = |row: StateVersion| {
            let value = bounded(row.value.as_ref()?, DATABASE_MAX as u64);
            Some(GivenValue { key: row.key, version: row.version, value })
        };
        given.values = found.into_values().take(GIVEN_MAX).filter_map(value).collect();
        Ok(())
    }

    /// Looks at values that came by their hash: what others read under a key has to be there, of the length that was said, and JSON.
    /// An outcome whose values are not is none.
    pub(crate) async fn look_at_values(&self, commands: &mut [Command]) -> Result<(), StoreError> {
        for command in commands {
            if let Command::Finish { response, .. } = command
                && let Some(wrong) = self.wrong_value(response).await?
            {
                let error = TaskError::new(ErrorClass::InvalidOutput, wrong);
                response.outcome = Outcome::Fail { error, retry_after_ms: None };
                response.state = OutcomeState::default();
            }
        }
        Ok(())
    }

    async fn wrong_value(&self, response: &TaskResponse) -> Result<Option<String>, StoreError> {
        let brings =
            matches!(response.outcome, Outcome::Complete { .. } | Outcome::Delegate { .. });
        if !brings || response.state.check().is_err() {
            // Nothing of it will be written, and `decide` says why.
            return Ok(None);
        }
        for put in &response.state.put {
            let Payload::Stored { hash, size } = &put.value else { continue };
            let wrong = match self.parts.blobs.get(*hash).await {
                Ok(bytes) if bytes.len() as u64 != *size => {
                    format!("has {} bytes, and was said to have {size}", bytes.len())
                }
                Ok(bytes) => match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
                    Ok(_) => continue,
                    Err(error) => format!("is no JSON: {error}"),
                },
                Err(error @ (StoreError::MissingPayload(_) | StoreError::Corrupt(_))) => {
                    format!("was not handed in before the outcome: {error}")
                }
                Err(error) => return Err(error),
            };
            return Ok(Some(format!("the value of `{}` for the shared state {wrong}", put.key)));
        }
        Ok(None)
    }

    /// What stands under the keys that the templates of a task read, as it is at this moment; the error of the task where it may not read them.
    pub(crate) async fn state_for(
        &self,
        task: &Task,
        keys: &BTreeSet<String>,
    ) -> Result<Result<BTreeMap<String, Value>, TaskError>, EngineError> {
        let refused = |message: String| Ok(Err(TaskError::new(ErrorClass::Template, message)));
        if keys.len() > READ_MAX {
            return refused(format!(
                "its templates read {} keys of shared state, at most {READ_MAX} are allowed",
                keys.len()
            ));
        }
        let allowed = &task.spec.state_keys;
        // What an agent delegates reads no more than it was granted; a workflow or a person at the doors may read all of it.
        let foreign = keys.iter().find(|key| task.spec.hops > 0 && !covers(allowed, key));
        if let Some(foreign) = foreign {
            return refused(format!(
                "its template reads the key `{foreign}` of shared state, which is not among its `state_keys`"
            ));
        }
        let (mut values, mut left) = (BTreeMap::new(), MAX_VALUE_BYTES as u64);
        for key in keys {
            let found = self.parts.store.state_get(key.as_str().into(), None).await?;
            let Some(value) = found.and_then(|found| found.value) else { continue };
            let Some(rest) = left.checked_sub(value.size()) else {
                return refused(format!(
                    "what its templates read of shared state is more than {MAX_VALUE_BYTES} bytes, at `{key}`"
                ));
            };
            left = rest;
            values.insert(key.clone(), self.value_of(&value).await?);
        }
        Ok(Ok(values))
    }

    pub(crate) async fn value_of(&self, payload: &Payload) -> Result<Value, EngineError> {
        let text = self.text_of(payload).await?;
        serde_json::from_str(&text)
            .map_err(|error| StoreError::Corrupt(format!("a payload is no JSON: {error}")).into())
    }
}

/// The keys of shared state that the templates of a task read. What is wrong with a template is said when it is rendered.
pub(crate) fn keys_read(template: &Template, input: &Value) -> BTreeSet<String> {
    let mut found: Vec<Reference> = Vec::new();
    if template.input {
        found.extend(in_value(input));
    }
    for expression in [&template.when, &template.for_each].into_iter().flatten() {
        found.extend(template::references(expression).unwrap_or_default());
    }
    keys_of(&found)
}

/// The same of one value.
pub(crate) fn keys_in(value: &Value) -> BTreeSet<String> {
    keys_of(&in_value(value))
}

fn in_value(value: &Value) -> Vec<Reference> {
    // Most templates read none of it, and need not be taken apart twice.
    if !mentions(value, "state") {
        return Vec::new();
    }
    template::check_value(value).unwrap_or_default()
}

fn mentions(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.contains(word),
        Value::Array(items) => items.iter().any(|item| mentions(item, word)),
        Value::Object(fields) => fields.values().any(|field| mentions(field, word)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn keys_of(references: &[Reference]) -> BTreeSet<String> {
    references.iter().filter_map(Reference::state_key).map(str::to_owned).collect()
}
