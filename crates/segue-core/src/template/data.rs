//! JSON in and out of the template engine, in order and within limits.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value as Dynamic, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::{Map, Number, Value};

use super::MAX_DATA_DEPTH;

/// A JSON object inside the engine: keeps the order of its keys.
#[derive(Debug)]
pub(super) struct JsonMap {
    entries: Vec<(Arc<str>, Dynamic)>,
    /// Indexes into `entries`, sorted by key.
    sorted: Vec<u32>,
    weight: usize,
}

/// A JSON list inside the engine.
#[derive(Debug)]
pub(super) struct JsonList {
    items: Vec<Dynamic>,
    weight: usize,
}

impl JsonMap {
    pub(super) fn new(entries: Vec<(Arc<str>, Dynamic)>) -> JsonMap {
        let mut sorted: Vec<u32> = (0..entries.len()).map(|at| at as u32).collect();
        sorted.sort_by(|a, b| entries[*a as usize].0.cmp(&entries[*b as usize].0));
        let weight =
            2 + entries.iter().map(|(key, value)| key.len() + 4 + weight(value)).sum::<usize>();
        JsonMap { entries, sorted, weight }
    }

    fn find(&self, key: &str) -> Option<&Dynamic> {
        let at = self
            .sorted
            .binary_search_by(|at| self.entries[*at as usize].0.as_ref().cmp(key))
            .ok()?;
        Some(&self.entries[self.sorted[at] as usize].1)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.as_ref())
    }
}

impl Object for JsonMap {
    fn get_value(self: &Arc<Self>, key: &Dynamic) -> Option<Dynamic> {
        self.find(key.as_str()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Dynamic> {
        self.find(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| Dynamic::from(key.clone())).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render_json(Dynamic::from_dyn_object(self.clone()), f)
    }
}

impl Object for JsonList {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Dynamic) -> Option<Dynamic> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render_json(Dynamic::from_dyn_object(self.clone()), f)
    }
}

/// Joined to a text, a list or map is its JSON, as it is when it is printed.
fn render_json(value: Dynamic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut budget = usize::MAX;
    let json = to_json(&value, &mut budget).map_err(|_| fmt::Error)?;
    write!(f, "{json}")
}

/// About how many bytes of JSON a value makes.
pub(super) fn weight(value: &Dynamic) -> usize {
    if let Some(text) = value.as_str() {
        text.len() + 2
    } else if let Some(map) = value.downcast_object_ref::<JsonMap>() {
        map.weight
    } else if let Some(list) = value.downcast_object_ref::<JsonList>() {
        list.weight
    } else {
        8
    }
}

/// Brings JSON into the engine. What is nested too deeply becomes a value that fails when it is used.
pub(super) fn from_json(value: &Value) -> Dynamic {
    from_json_at(value, 0)
}

fn from_json_at(value: &Value, depth: usize) -> Dynamic {
    if depth > MAX_DATA_DEPTH {
        return Dynamic::from(too_deep());
    }
    match value {
        Value::Null => Dynamic::from(()),
        Value::Bool(flag) => Dynamic::from(*flag),
        Value::Number(number) => from_number(number),
        Value::String(text) => Dynamic::from(text.as_str()),
        Value::Array(items) => {
            list(items.iter().map(|item| from_json_at(item, depth + 1)).collect())
        }
        Value::Object(map) => Dynamic::from_object(JsonMap::new(
            map.iter()
                .map(|(key, value)| (Arc::from(key.as_str()), from_json_at(value, depth + 1)))
                .collect(),
        )),
    }
}

/// A list of the engine that prints as JSON.
pub(super) fn list(items: Vec<Dynamic>) -> Dynamic {
    let weight = 2 + items.iter().map(|item| weight(item) + 1).sum::<usize>();
    Dynamic::from_object(JsonList { items, weight })
}

fn from_number(number: &Number) -> Dynamic {
    if let Some(int) = number.as_i64() {
        Dynamic::from(int)
    } else if let Some(int) = number.as_u64() {
        Dynamic::from(int)
    } else {
        Dynamic::from(number.as_f64().unwrap_or(f64::NAN))
    }
}

fn too_deep() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("the data is nested deeper than {MAX_DATA_DEPTH} levels"),
    )
}

fn too_large() -> Error {
    Error::new(ErrorKind::WriteFailure, "the result is too large")
}

fn no_value(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} is not a JSON value"))
}

/// Takes a value out of the engine; `budget` is how many bytes of JSON it may still make.
pub(super) fn to_json(value: &Dynamic, budget: &mut usize) -> Result<Value, Error> {
    to_json_at(value, budget, 0)
}

/// What a value costs of a budget besides its text.
const NODE_BYTES: usize = 8;

fn charge(budget: &mut usize, bytes: usize) -> Result<(), Error> {
    *budget = budget.checked_sub(bytes).ok_or_else(too_large)?;
    Ok(())
}

fn to_json_at(value: &Dynamic, budget: &mut usize, depth: usize) -> Result<Value, Error> {
    if depth > MAX_DATA_DEPTH {
        return Err(too_deep());
    }
    charge(budget, NODE_BYTES)?;
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => Value::Null,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::Number => Value::Number(to_number(value)?),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge(budget, text.len())?;
            Value::String(text.to_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                items.push(to_json_at(&item?, budget, depth + 1)?);
            }
            Value::Array(items)
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                charge(budget, name.len())?;
                map.insert(name, to_json_at(&value.get_item(&key)?, budget, depth + 1)?);
            }
            Value::Object(map)
        }
        // Data that was nested too deeply on its way in.
        ValueKind::Invalid => return Err(too_deep()),
        other => return Err(no_value(&format!("a value of type {other}"))),
    })
}

fn to_number(value: &Dynamic) -> Result<Number, Error> {
    if value.is_integer() {
        return match (i64::try_from(value.clone()), u64::try_from(value.clone())) {
            (Ok(int), _) => Ok(Number::from(int)),
            (_, Ok(int)) => Ok(Number::from(int)),
            _ => Err(no_value("a whole number of more than 64 bits")),
        };
    }
    let float = f64::try_from(value.clone())?;
    Number::from_f64(float).ok_or_else(|| no_value("a number that is not finite"))
}

/// A value as it stands inside a text: text as it is, anything else as JSON.
pub(super) fn to_text(value: &Dynamic, limit: usize) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        if text.len() > limit {
            return Err(too_large());
        }
        return Ok(text.to_owned());
    }
    let mut budget = limit;
    let json = to_json(value, &mut budget)?;
    let mut out = Bounded { text: String::new(), limit };
    write!(out, "{json}").map_err(|_| too_large())?;
    Ok(out.text)
}

/// A text that refuses to grow beyond a limit.
pub(super) struct Bounded {
    pub(super) text: String,
    pub(super) limit: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() > self.limit {
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

impl std::io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(part).map_err(std::io::Error::other)?;
        fmt::Write::write_str(self, text).map_err(std::io::Error::other)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
