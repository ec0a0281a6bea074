//! What a run is given: declared in the file, and checked when a run starts.

use std::fmt;

use serde_json::{Map, Value};

use super::fields;
use super::model::{InputField, InputType, Workflow};
use super::node::{Entry, Kind};
use super::read::Reader;
use super::suggest::{did_you_mean, quote};

/// A value that a run cannot be given, or is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// The name of the input.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for InputError {}

impl InputField {
    /// What is wrong with a value for this input, if anything is.
    pub(super) fn refuse(&self, value: &Value) -> Option<InputError> {
        let error = |message: String, hint: Option<String>| {
            Some(InputError { name: self.name.clone(), message, hint })
        };
        let name = quote(&self.name);
        if value.is_null() && !self.required && self.default.is_none() {
            return None;
        }
        if !self.kind.admits(value) {
            let (wanted, given) = (with_article(self.kind.as_str()), kind_of(value));
            return error(format!("input {name} must be {wanted}, but it is {given}"), None);
        }
        if self.allowed.is_empty() || self.allowed.contains(value) {
            return None;
        }
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let words: Vec<&str> = self.allowed.iter().filter_map(Value::as_str).collect();
        let hint = did_you_mean(&shown, words.into_iter()).unwrap_or_else(|| {
            let all: Vec<String> = self.allowed.iter().take(20).map(Value::to_string).collect();
            format!("it is one of {}", all.join(", "))
        });
        error(format!("input {name} cannot be {}", quote(&shown)), Some(hint))
    }
}

fn with_article(kind: &str) -> String {
    match kind {
        "integer" | "array" | "object" => format!("an {kind}"),
        "any" => "anything".to_owned(),
        _ => format!("a {kind}"),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl<'a> Reader<'a> {
    /// Reads what a run is given.
    pub(super) fn inputs(&mut self, entry: &Entry) -> Vec<InputField> {
        let entries: &'a [Entry] = match self.kind(entry.value) {
            Kind::Map(entries) => entries,
            _ => {
                let hint = "write `input:` and below it, indented, `name: string`";
                self.wrong_kind(entry, "a map from name to type", Some(hint));
                return Vec::new();
            }
        };
        self.inputs = entries.iter().map(|entry| entry.key.as_str()).collect();
        entries.iter().filter_map(|entry| self.input(entry)).collect()
    }

    fn input(&mut self, entry: &'a Entry) -> Option<InputField> {
        self.check_name(entry, "an input");
        let mut field = InputField {
            name: entry.key.clone(),
            kind: InputType::Any,
            description: None,
            required: true,
            default: None,
            allowed: Vec::new(),
        };
        let entries = match self.kind(entry.value) {
            Kind::Map(entries) => entries,
            Kind::Null => return Some(field),
            Kind::Text { .. } => {
                field.kind = self.input_type(entry)?;
                return Some(field);
            }
            _ => {
                self.wrong_kind(entry, "a type such as `string`, or a map", None);
                return None;
            }
        };
        let of = format!("input {}", quote(&entry.key));
        let found = self.fields(entries.iter(), fields::INPUT, &of);
        let kind = found.get("type").map(|entry| self.input_type(entry));
        field.kind = kind.flatten().unwrap_or_default();
        field.description =
            found.get("description").and_then(|entry| self.text(entry)).map(str::to_owned);
        let required = found.get("required").and_then(|entry| self.boolean(entry));
        field.default =
            found.get("default").map(|entry| self.value(entry.value, None, &mut Vec::new()));
        field.required = required.unwrap_or(field.default.is_none());
        if let (true, Some(entry), true) =
            (field.required, found.get("required"), field.default.is_some())
        {
            let hint = "remove one of them".to_owned();
            self.error(entry.key_span, format!("{of} is required and has a default"), Some(hint));
        }
        if let Some(entry) = found.get("enum") {
            field.allowed = self.allowed(entry);
        }
        if let (Some(entry), Some(value)) = (found.get("default"), &field.default)
            && (value.is_null() || !matches!(self.kind(entry.value), Kind::Broken))
            && let Some(error) = field.refuse(value)
        {
            self.error(
                self.span(entry.value),
                format!("the default is wrong: {}", error.message),
                error.hint,
            );
        }
        Some(field)
    }

    fn input_type(&mut self, entry: &Entry) -> Option<InputType> {
        if let Kind::Text { value, .. } = self.kind(entry.value) {
            let meant = match value.as_str() {
                "str" | "text" => Some("string"),
                "int" => Some("integer"),
                "float" | "double" => Some("number"),
                "bool" => Some("boolean"),
                "list" => Some("array"),
                "map" | "dict" => Some("object"),
                _ => None,
            };
            if let Some(meant) = meant {
                let message = format!("{} is not a type", quote(value));
                self.error(
                    self.span(entry.value),
                    message,
                    Some(format!("did you mean `{meant}`?")),
                );
                return None;
            }
        }
        self.word(entry, InputType::ALL)
    }

    fn allowed(&mut self, entry: &Entry) -> Vec<Value> {
        match self.kind(entry.value) {
            Kind::List(items) if !items.is_empty() => {
                items.iter().map(|id| self.value(*id, None, &mut Vec::new())).collect()
            }
            kind => {
                match kind {
                    Kind::List(_) => self.empty(entry, "remove it, or give it the values"),
                    _ => self.wrong_kind(entry, "a list of values", None),
                }
                Vec::new()
            }
        }
    }
}

impl Workflow {
    /// The input of a run: what was given, with defaults for the rest, in the order of the file.
    ///
    /// # Errors
    /// Everything that is wrong at once: required inputs that are missing, names that the workflow
    /// does not declare, and values of another type than declared.
    pub fn bind_input(&self, mut given: Map<String, Value>) -> Result<Value, Vec<InputError>> {
        let mut errors = Vec::new();
        let mut bound = Map::new();
        for field in &self.input {
            match given.shift_remove(&field.name) {
                Some(value) => {
                    errors.extend(field.refuse(&value));
                    bound.insert(field.name.clone(), value);
                }
                None if field.required => errors.push(InputError {
                    name: field.name.clone(),
                    message: format!("input {} is missing", quote(&field.name)),
                    hint: field.description.clone().map(|text| format!("it is: {text}")),
                }),
                None => {
                    let value = field.default.clone().unwrap_or(Value::Null);
                    bound.insert(field.name.clone(), value);
                }
            }
        }
        for name in given.keys() {
            let known = || self.input.iter().map(|field| field.name.as_str());
            let hint = did_you_mean(name, known()).or_else(|| {
                let all: Vec<_> = known().take(20).map(quote).collect();
                Some(match all.len() {
                    0 => "it takes no input".to_owned(),
                    _ => format!("it takes {}", all.join(", ")),
                })
            });
            errors.push(InputError {
                name: name.clone(),
                message: format!("this workflow has no input {}", quote(name)),
                hint,
            });
        }
        if errors.is_empty() { Ok(Value::Object(bound)) } else { Err(errors) }
    }

    /// The value that a text on a command line stands for: the text itself for an input that is a
    /// `string`, else the JSON in it, else the text.
    pub fn input_from_text(&self, name: &str, text: &str) -> Value {
        let kind = self.input.iter().find(|field| field.name == name).map(|field| field.kind);
        if kind == Some(InputType::String) {
            return Value::String(text.to_owned());
        }
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    }
}
