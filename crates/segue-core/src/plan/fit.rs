//! Whether one property can be used as another: the part of JSON Schema that planning reads.

use serde_json::{Map, Value};

/// Schemas may nest; below this depth they are not compared.
const DEPTH_MAX: u32 = 8;

/// The schema that accepts everything, for properties that have none.
pub(super) const ANYTHING: &Value = &Value::Bool(true);

/// Whether everything that the schema `made` describes may be used where `wanted` is asked for, as far as `type`
/// (each type that can be made must be wanted; an integer is a number), the `items` of arrays, and `format`,
/// `contentMediaType` and `$id` tell. What only one of the two says is not compared.
pub fn compatible(made: &Value, wanted: &Value) -> bool {
    compatible_at(made, wanted, 0)
}

fn compatible_at(made: &Value, wanted: &Value, depth: u32) -> bool {
    if made == &Value::Bool(false) || wanted == &Value::Bool(false) {
        return false;
    }
    let (Some(made), Some(wanted)) = (made.as_object(), wanted.as_object()) else { return true };
    if let (Some(made), Some(wanted)) = (types(made), types(wanted))
        && !made.iter().all(|one| wanted.iter().any(|other| type_fits(one, other)))
    {
        return false;
    }
    let same = |name: &str| match (
        made.get(name).and_then(Value::as_str),
        wanted.get(name).and_then(Value::as_str),
    ) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => true,
    };
    if !["format", "contentMediaType", "$id"].into_iter().all(same) {
        return false;
    }
    match (made.get("items"), wanted.get("items")) {
        (Some(one), Some(other)) if depth < DEPTH_MAX => compatible_at(one, other, depth + 1),
        _ => true,
    }
}

/// The types that a schema names; `None` when it names none.
fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => Some(many.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

fn type_fits(made: &str, wanted: &str) -> bool {
    made == wanted || (made == "integer" && wanted == "number")
}

/// Whether a value has a type that the schema accepts.
pub(super) fn value_fits(value: &Value, wanted: &Value) -> bool {
    if wanted == &Value::Bool(false) {
        return false;
    }
    let Some(types) = wanted.as_object().and_then(types) else { return true };
    types.iter().any(|wanted| type_fits(type_of(value), wanted))
}

/// The type of a value in the words of JSON Schema.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().is_some_and(|float| float.fract() == 0.0) => {
            "integer"
        }
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A schema in a few words, for messages: `string`, `string (text/csv)`, `array of string`.
pub(super) fn describe(schema: &Value) -> String {
    let Some(schema) = schema.as_object() else { return "anything".to_owned() };
    let mut text = match types(schema) {
        Some(types) if !types.is_empty() => types.join(" or "),
        _ => "anything".to_owned(),
    };
    if let Some(items) = schema.get("items").and_then(Value::as_object).and_then(types) {
        text = format!("{text} of {}", items.join(" or "));
    }
    let named: Vec<&str> = ["format", "contentMediaType", "$id"]
        .into_iter()
        .filter_map(|name| schema.get(name)?.as_str())
        .collect();
    if named.is_empty() { text } else { format!("{text} ({})", named.join(", ")) }
}

/// The properties a schema describes, with their schemas, in the order of their names.
pub(super) fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let mut found: Vec<(&str, &Value)> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.iter().map(|(name, schema)| (name.as_str(), schema)).collect())
        .unwrap_or_default();
    found.sort_by_key(|(name, _)| *name);
    found
}

/// The properties a schema requires, with their schemas, in the order of their names.
pub(super) fn required(schema: &Value) -> Vec<(&str, &Value)> {
    let described = schema.get("properties");
    let mut found: Vec<(&str, &Value)> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| (name, described.and_then(|all| all.get(name)).unwrap_or(ANYTHING)))
        .collect();
    found.sort_by_key(|(name, _)| *name);
    found.dedup_by_key(|(name, _)| *name);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_must_be_wanted_one_by_one() {
        for (made, wanted, fits) in [
            (json!({"type": "string"}), json!({"type": "string"}), true),
            (json!({"type": "string"}), json!({"type": "array"}), false),
            (json!({"type": "integer"}), json!({"type": "number"}), true),
            (json!({"type": "number"}), json!({"type": "integer"}), false),
            (json!({"type": ["string", "null"]}), json!({"type": "string"}), false),
            (json!({"type": "string"}), json!({"type": ["string", "null"]}), true),
            (json!({}), json!({"type": "string"}), true),
            (json!({"type": "string"}), json!(true), true),
            (json!({"type": "string"}), json!(false), false),
            (json!(false), json!({}), false),
            (json!({"type": 7}), json!({"type": "string"}), true),
        ] {
            assert_eq!(compatible(&made, &wanted), fits, "{made} for {wanted}");
        }
    }

    #[test]
    fn format_media_type_and_id_count_when_both_say_them() {
        let csv = json!({"type": "string", "contentMediaType": "text/csv"});
        assert!(compatible(&csv, &json!({"type": "string"})));
        assert!(compatible(&csv, &json!({"type": "string", "contentMediaType": "Text/CSV"})));
        assert!(!compatible(&csv, &json!({"type": "string", "contentMediaType": "text/html"})));
        assert!(!compatible(&json!({"format": "date"}), &json!({"format": "date-time"})));
        assert!(!compatible(&json!({"$id": "a"}), &json!({"$id": "b"})));
        assert!(compatible(&json!({"$id": "a"}), &json!({"format": "date"})));
    }

    #[test]
    fn items_are_compared_and_depth_is_bounded() {
        let list = |kind: &str| json!({"type": "array", "items": {"type": kind}});
        assert!(compatible(&list("string"), &list("string")));
        assert!(!compatible(&list("string"), &list("object")));
        let deep =
            |kind: &str| (0..200).fold(json!({"type": kind}), |inner, _| json!({"items": inner}));
        assert!(compatible(&deep("string"), &deep("object")), "what lies too deep is not compared");
    }

    #[test]
    fn values_are_checked_by_type() {
        assert!(value_fits(&json!(3), &json!({"type": "integer"})));
        assert!(value_fits(&json!(3.0), &json!({"type": "number"})));
        assert!(!value_fits(&json!(3.5), &json!({"type": "integer"})));
        assert!(!value_fits(&json!("x"), &json!({"type": ["array", "null"]})));
        assert!(value_fits(&json!("x"), ANYTHING));
        assert!(!value_fits(&json!("x"), &json!(false)));
    }

    #[test]
    fn odd_schemas_describe_nothing_and_do_no_harm() {
        for odd in [
            json!(null),
            json!(3),
            json!([]),
            json!({"properties": 3, "required": "x"}),
            json!({"required": [1, null]}),
        ] {
            assert!(properties(&odd).is_empty(), "{odd}");
            assert!(required(&odd).is_empty(), "{odd}");
        }
        let twice = json!({"required": ["b", "a", "b"], "properties": {"a": {"type": "string"}}});
        assert_eq!(required(&twice), [("a", &json!({"type": "string"})), ("b", &json!(true))]);
    }
}
