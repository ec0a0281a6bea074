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

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::agent::{AgentKind, Capability};
    use segue_core::ids::InstanceId;
    use serde_json::json;

    fn schemas(capabilities: &[(&str, Option<Value>)]) -> Schemas {
        let capabilities = capabilities
            .iter()
            .map(|(name, schema)| Capability {
                name: (*name).into(),
                output_schema: schema.clone().map(Arc::new),
                ..Capability::default()
            })
            .collect();
        Schemas::of(&AgentSpec {
            instance: InstanceId::from_bytes([1; 16]),
            name: "counter".into(),
            kind: AgentKind::Builtin,
            description: "".into(),
            capabilities,
            max_concurrency: 1,
            delegates: false,
        })
    }

    fn number() -> Option<Value> {
        Some(json!({ "type": "number" }))
    }

    #[test]
    fn the_capability_that_was_asked_for_decides() {
        let schemas = schemas(&[("count", number()), ("name", Some(json!({ "type": "string" })))]);
        assert_eq!(schemas.check(Some("count"), "1"), Ok(()));
        assert_eq!(schemas.check(Some("name"), "\"a\""), Ok(()));
        let error = schemas.check(Some("name"), "1").unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidOutput);
        assert!(error.message.contains("capability `name`"), "{}", error.message);
    }

    #[test]
    fn a_task_that_names_the_agent_is_held_to_its_only_promise() {
        let one = schemas(&[("count", number()), ("other", None)]);
        assert!(one.check(None, "\"many\"").is_err());
        // With two promises nobody knows which is meant.
        let two = schemas(&[("count", number()), ("name", Some(json!({ "type": "string" })))]);
        assert_eq!(two.check(None, "[]"), Ok(()));
        assert_eq!(one.check(Some("unknown"), "[]"), Ok(()));
    }

    #[test]
    fn five_violations_are_named_and_no_more() {
        let schemas = schemas(&[("list", Some(json!({ "items": { "type": "number" } })))]);
        let error = schemas.check(None, "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"]").unwrap_err();
        assert!(error.message.contains("at `/4`"), "{}", error.message);
        assert!(!error.message.contains("at `/5`"), "{}", error.message);
    }

    #[test]
    fn what_is_no_json_says_so_whatever_the_schema_is() {
        let schemas = schemas(&[("any", Some(json!(true)))]);
        for text in ["", "{", "nope", "{\"a\":1} trailing", "\u{0}"] {
            let error = schemas.check(None, text).unwrap_err();
            assert_eq!(error.class, ErrorClass::InvalidOutput);
            assert!(error.message.contains("no JSON"), "{}", error.message);
        }
        // Nested too deeply to be read: an error, not the end of the stack.
        assert!(schemas.check(None, &"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn a_schema_that_refers_elsewhere_or_is_none_is_the_agents_mistake() {
        for schema in [json!({ "type": 12 }), json!({ "$ref": "file:///etc/passwd" })] {
            let schemas = schemas(&[("count", Some(schema))]);
            let error = schemas.check(None, "1").unwrap_err();
            assert_eq!(error.class, ErrorClass::Permanent);
            assert!(error.message.contains("`count` is no JSON Schema"), "{}", error.message);
        }
    }
}
