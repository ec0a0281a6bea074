//! `--input`: single values, files, standard input.

use crate::failure::{Failure, Outcome};
use segue_core::workflow::Workflow;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// Longest input of a run or task in bytes, as a file or from standard input.
const INPUT_MAX: u64 = 15 << 20;

/// How a text behind `NAME=` becomes a value.
pub type Reading<'a> = &'a dyn Fn(&str, &str) -> Value;

/// The JSON in a text, else the text itself.
pub fn json_or_text(_name: &str, text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// What a workflow's own types make of a text.
pub fn typed(workflow: &Workflow) -> impl Fn(&str, &str) -> Value {
    move |name, text| workflow.input_from_text(name, text)
}

/// The object that all inputs of a command line make together; later ones win.
///
/// # Errors
/// What is wrong with which of them.
pub fn object(given: &[String], reading: Reading<'_>) -> Outcome<Map<String, Value>> {
    let mut fields = Map::new();
    for item in given {
        match item.as_str() {
            "-" => fields.extend(an_object(read_stdin()?, "standard input")?),
            // No name begins with a brace: this is an object as it stands.
            text if text.starts_with('{') => {
                fields.extend(an_object(json(text, "the input")?, "it")?)
            }
            text => match text.strip_prefix('@') {
                Some(path) => fields.extend(an_object(json_file(path)?, path)?),
                None => {
                    let (name, value) = field(text, reading)?;
                    fields.insert(name, value);
                }
            },
        }
    }
    Ok(fields)
}

/// The value of a task's input: whatever a single file holds, or the object that all of them make together.
///
/// # Errors
/// What is wrong with which of them.
pub fn value(given: &[String]) -> Outcome<Value> {
    match given {
        [only] if only == "-" => read_stdin(),
        [only] => match only.strip_prefix('@') {
            Some(path) => json_file(path),
            None => object(given, &json_or_text).map(Value::Object),
        },
        several => object(several, &json_or_text).map(Value::Object),
    }
}

/// The JSON text of one value: what a file or standard input holds (a `.json` file and standard input are JSON, other files text), else
/// what stands there, as JSON where it is that, else as text.
///
/// # Errors
/// What cannot be read, or is no JSON.
pub fn json_or_file(text: &str) -> Outcome<String> {
    let checked = |text: String, from: &str| json(&text, from).map(|_| text.trim().to_owned());
    match (text, text.strip_prefix('@')) {
        ("-", _) => checked(read(std::io::stdin().lock(), "standard input")?, "standard input"),
        (_, Some(path)) if is_json(path) => checked(read_file(path)?, path),
        (_, Some(path)) => Ok(Value::String(read_file(path)?).to_string()),
        (text, None) => match serde_json::from_str::<Value>(text) {
            Ok(_) => Ok(text.trim().to_owned()),
            Err(_) => Ok(Value::String(text.to_owned()).to_string()),
        },
    }
}

fn field(text: &str, reading: Reading<'_>) -> Outcome<(String, Value)> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(Failure::usage(format!("`{text}` is no input")).hint(
            "write NAME=VALUE, NAME=@FILE, @FILE.json, a JSON object, or - for standard input",
        ));
    };
    let value = match value.strip_prefix('@') {
        None => reading(name, value),
        Some(path) if is_json(path) => json_file(path)?,
        Some(path) => Value::String(read_file(path)?),
    };
    Ok((name.to_owned(), value))
}

fn is_json(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn an_object(value: Value, from: &str) -> Outcome<Map<String, Value>> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(Failure::usage(format!("{from} holds no object"))
            .hint("give an object whose properties are the inputs, or write NAME=@FILE")),
    }
}

fn json_file(path: &str) -> Outcome<Value> {
    json(&read_file(path)?, path)
}

fn json(text: &str, from: &str) -> Outcome<Value> {
    serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("{from} is no JSON: {error}")))
}

fn read_file(path: &str) -> Outcome<String> {
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::usage(format!("{path} cannot be read: {error}")))?;
    read(file, path)
}

fn read_stdin() -> Outcome<Value> {
    json(&read(std::io::stdin().lock(), "standard input")?, "standard input")
}

fn read(source: impl Read, from: &str) -> Outcome<String> {
    let mut bytes = Vec::new();
    source
        .take(INPUT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("{from} cannot be read: {error}")))?;
    if bytes.len() as u64 > INPUT_MAX {
        return Err(Failure::usage(format!("{from} has more than {INPUT_MAX} bytes"))
            .hint("leave large data in files, and give the agent their paths"));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{from} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_may_stand_on_the_command_line() {
        let given = [r#"{"a": 1, "b": 2}"#.to_owned(), "b=3".to_owned()];
        let fields = object(&given, &json_or_text).unwrap_or_default();
        assert_eq!(Value::Object(fields), serde_json::json!({ "a": 1, "b": 3 }));
        assert!(object(&["{\"a\":".to_owned()], &json_or_text).is_err());
    }
    use serde_json::json;

    fn strings(given: &[&str]) -> Vec<String> {
        given.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn values_are_json_where_they_can_be_and_later_ones_win() {
        let given = strings(&["a=1", "b=two words", "c=[1,2]", "a={\"x\":true}", "d=", "e=x=y"]);
        let fields = object(&given, &json_or_text).unwrap();
        let expected =
            json!({"a": {"x": true}, "b": "two words", "c": [1, 2], "d": "", "e": "x=y"});
        assert_eq!(Value::Object(fields), expected);
        assert_eq!(value(&[]).unwrap(), json!({}));
    }

    #[test]
    fn files_are_read_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (list, note) = (path("list.json", "[1]"), path("note.txt", "{not json"));
        let given = vec![format!("l=@{list}"), format!("n=@{note}")];
        let fields = object(&given, &json_or_text).unwrap();
        assert_eq!(Value::Object(fields), json!({"l": [1], "n": "{not json"}));
        assert_eq!(value(&[format!("@{list}")]).unwrap(), json!([1]));
        let error = object(&[format!("@{list}")], &json_or_text).unwrap_err();
        assert!(error.message.contains("holds no object"), "{error}");
        let error = object(&[format!("@{note}")], &json_or_text).unwrap_err();
        assert!(error.message.contains("is no JSON"), "{error}");
    }

    #[test]
    fn what_is_no_input_is_named() {
        for text in ["plain", "=x", ""] {
            let error = object(&strings(&[text]), &json_or_text).unwrap_err();
            assert!(error.message.contains(text), "{error}");
        }
    }
}
