//! Reading fields out of JSON text without building it in memory.
//!
//! The output of an agent CLI can be a hundred megabytes of tool results around the few fields that
//! matter, its key order is not fixed, and a field may have another type in the next release. So
//! nothing here is strict: [`pick`] walks an object once and keeps borrowed slices of the wanted
//! fields, and each scalar reader answers `None` to a value that is of another kind.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A field's JSON text, borrowed from the line it stands in. Absent and `null` are the same.
pub(super) type Field<'a> = Option<&'a RawValue>;

/// The wanted fields of a JSON object, in the order of `keys`; of a repeated key the last one
/// counts. `None` when `json` is not one whole object.
pub(super) fn pick<'a, const N: usize>(json: &'a str, keys: [&str; N]) -> Option<[Field<'a>; N]> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = reader.deserialize_map(Pick { keys: &keys }).ok()?;
    reader.end().ok()?;
    Some(found)
}

/// [`pick`], with every field absent when `json` is no object.
pub(super) fn fields<'a, const N: usize>(json: &'a str, keys: [&str; N]) -> [Field<'a>; N] {
    pick(json, keys).unwrap_or([None; N])
}

/// [`pick`] on a field that holds an object; every field is absent when it does not.
pub(super) fn pick_in<'a, const N: usize>(field: Field<'a>, keys: [&str; N]) -> [Field<'a>; N] {
    field.map_or([None; N], |raw| fields(raw.get(), keys))
}

struct Pick<'k, const N: usize> {
    keys: &'k [&'k str; N],
}

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Field<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(wanted) = map.next_key_seed(KeyIndex(self.keys))? {
            match wanted {
                Some(index) => {
                    let raw: &RawValue = map.next_value()?;
                    found[index] = Some(raw).filter(|raw| raw.get() != "null");
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Turns a key into its place among the wanted keys, so that no key is ever copied.
struct KeyIndex<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for KeyIndex<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIndex<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == key))
    }
}

/// Calls `each` for every element of an array, in order; does nothing when the field is no array.
pub(super) fn each_element<'a>(field: Field<'a>, each: impl FnMut(&'a RawValue)) {
    if let Some(raw) = field {
        let mut reader = serde_json::Deserializer::from_str(raw.get());
        // What was handed out before an error stays valid, hence the error says nothing new.
        let _ = reader.deserialize_seq(EachElement(each));
    }
}

struct EachElement<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for EachElement<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(raw) = elements.next_element()? {
            (self.0)(raw);
        }
        Ok(())
    }
}

/// Calls `each` for every key and value of an object; does nothing when the field is no object.
pub(super) fn each_entry<'a>(field: Field<'a>, each: impl FnMut(String, &'a RawValue)) {
    if let Some(raw) = field {
        let mut reader = serde_json::Deserializer::from_str(raw.get());
        let _ = reader.deserialize_map(EachEntry(each));
    }
}

struct EachEntry<F>(F);

impl<'de, F: FnMut(String, &'de RawValue)> Visitor<'de> for EachEntry<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        while let Some((key, raw)) = entries.next_entry()? {
            (self.0)(key, raw);
        }
        Ok(())
    }
}

/// The text of a JSON string.
///
/// JavaScript writes half a surrogate pair as `\ud83d`, for one where a model's answer was cut inside
/// an emoji. That is no Unicode text, so it becomes U+FFFD here instead of losing the whole answer.
pub(super) fn text(field: Field<'_>) -> Option<String> {
    let json = field?.get();
    serde_json::from_str(json)
        .ok()
        .or_else(|| serde_json::from_str::<LossyText>(json).ok().map(|lossy| lossy.0))
}

/// Whether the field is exactly this string.
pub(super) fn is(field: Field<'_>, wanted: &str) -> bool {
    text(field).is_some_and(|found| found == wanted)
}

struct LossyText(String);

impl<'de> serde::Deserialize<'de> for LossyText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(LossyVisitor)
    }
}

struct LossyVisitor;

impl Visitor<'_> for LossyVisitor {
    type Value = LossyText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<LossyText, E> {
        Ok(LossyText(String::from_utf8_lossy(bytes).into_owned()))
    }
}

/// A count: a non-negative number, cut to a whole one.
pub(super) fn count(field: Field<'_>) -> Option<u64> {
    let json = field?.get();
    serde_json::from_str(json).ok().or_else(|| number(field).map(|value| value as u64))
}

/// A finite, non-negative number: nothing that these CLIs report can be less than nothing.
pub(super) fn number(field: Field<'_>) -> Option<f64> {
    serde_json::from_str::<f64>(field?.get())
        .ok()
        .filter(|value| value.is_finite() && *value >= 0.0)
}

/// `true` or `false`.
pub(super) fn flag(field: Field<'_>) -> Option<bool> {
    serde_json::from_str(field?.get()).ok()
}

/// The whole value in memory. `None` for one that is nested too deep to be handled safely.
pub(super) fn value(field: Field<'_>) -> Option<Value> {
    serde_json::from_str(field?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(json: &str) -> [Field<'_>; 1] {
        pick(json, ["x"]).unwrap_or([None])
    }

    #[test]
    fn the_last_of_repeated_keys_counts_and_null_is_absent() {
        let [a, b, c] = pick(r#"{"a":1,"b":null,"a":2}"#, ["a", "b", "c"]).unwrap();
        assert_eq!(count(a), Some(2));
        assert!(b.is_none() && c.is_none());
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        let [x] = field(r#"{"\u0078":"y"}"#);
        assert_eq!(text(x).as_deref(), Some("y"));
    }

    #[test]
    fn only_whole_objects_are_picked_from() {
        for json in ["", "[]", "{\"x\":1", "{\"x\":1} z", "1", "null", "{x:1}"] {
            assert!(pick(json, ["x"]).is_none(), "{json}");
        }
    }

    #[test]
    fn half_an_emoji_does_not_lose_the_text() {
        let [x] = field(r#"{"x":"cut \ud83d"}"#);
        let read = text(x).unwrap();
        assert!(read.starts_with("cut ") && read.contains('\u{fffd}'), "{read:?}");
    }

    #[test]
    fn scalars_of_another_kind_are_absent() {
        let [x] = field(r#"{"x":"12"}"#);
        assert_eq!((count(x), number(x), flag(x)), (None, None, None));
        let [x] = field(r#"{"x":-3}"#);
        assert_eq!(count(x), None);
        let [x] = field(r#"{"x":3.9}"#);
        assert_eq!(count(x), Some(3));
        let [x] = field(r#"{"x":1e400}"#);
        assert_eq!(number(x), None);
        let [x] = field(r#"{"x":99999999999999999999999}"#);
        assert_eq!(count(x), Some(u64::MAX));
    }

    #[test]
    fn walks_do_nothing_on_another_kind() {
        let [x] = field(r#"{"x":{"k":[1,2]}}"#);
        let mut seen = Vec::new();
        each_element(x, |raw| seen.push(raw.get().to_owned()));
        assert!(seen.is_empty());
        each_entry(x, |key, raw| seen.push(format!("{key}={}", raw.get())));
        assert_eq!(seen, ["k=[1,2]"]);
    }

    #[test]
    fn deep_nesting_neither_overflows_nor_costs_the_other_fields() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let json = format!(r#"{{"deep":{deep},"x":7}}"#);
        let [x, deep] = pick(&json, ["x", "deep"]).unwrap();
        assert_eq!(count(x), Some(7));
        assert!(value(deep).is_none());
    }
}
