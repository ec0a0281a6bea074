//! Whether an output is what its capability promises.

use segue_core::agent::AgentSpec;
use segue_core::task::{ErrorClass, TaskError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Violations named in one message.
const VIOLATIONS_MAX: usize = 5;

/// The compiled output schemas of an agent's capabilities.
#[derive(Default)]
pub struct Schemas {
    by_capability: BTreeMap<Arc<str>, Result<jsonschema::Validator, String>>,
}

impl Schemas {
    /// Compiles the output schemas of an agent once.
    pub fn of(spec: &AgentSpec) -> Schemas {
        let by_capability = spec
            .capabilities
            .iter()
            .filter_map(|capability| {
                let schema = capability.output_schema.as_ref()?;
                let compiled = jsonschema::validator_for(schema).map_err(|error| error.to_string());
                Some((capability.name.clone(), compiled))
            })
            .collect();
        Schemas { by_capability }
    }

    /// Checks an output, a JSON text, against the capability that was asked for; where the task named the agent
    /// itself, against the agent's only capability, if it has just one.
    ///
    /// # Errors
    /// `invalid_output` names what is missing or wrong; a schema that does not compile is `permanent`.
    pub fn check(&self, capability: Option<&str>, output: &str) -> Result<(), TaskError> {
        let compiled = match capability {
            Some(name) => self.by_capability.get_key_value(name),
            None if self.by_capability.len() == 1 => self.by_capability.first_key_value(),
            None => None,
        };
        let Some((name, compiled)) = compiled else { return Ok(()) };
        let validator = compiled.as_ref().map_err(|error| {
            TaskError::new(
                ErrorClass::Permanent,
                format!("the output schema of capability `{name}` is no JSON Schema: {error}"),
            )
        })?;
        let value: Value = serde_json::from_str(output).map_err(|error| {
            TaskError::new(ErrorClass::InvalidOutput, format!("its output is no JSON: {error}"))
        })?;
        let wrong: Vec<String> = validator
            .iter_errors(&value)
            .take(VIOLATIONS_MAX)
            .map(|error| format!("at `{}`: {error}", error.instance_path()))
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(TaskError::new(
            ErrorClass::InvalidOutput,
            format!("its output is not what capability `{name}` promises: {}", wrong.join("; ")),
        ))
    }
}
