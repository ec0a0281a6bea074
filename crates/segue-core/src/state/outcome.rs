//! Shared state and the tasks of agents: what a task may use, what it is given of that, and what its outcome writes.

use super::{Expect, KEY_MAX, Policy, Put, VALUE_MAX, Writer, check_key, check_pattern};
use crate::payload::Payload;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Keys that one outcome may write.
pub const PUTS_MAX: usize = 32;
/// Keys, or prefixes and `*`, that one task may use.
pub const STATE_KEYS_MAX: usize = 32;
/// Keys that an attempt is given with their values.
pub const GIVEN_MAX: usize = 64;

/// What an outcome writes into shared state: all of it in the commit that takes the outcome in, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeState {
    /// Keys to write, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<KeyPut>,
}

/// A key that an outcome writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyPut {
    /// The key.
    pub key: Arc<str>,
    /// The new value.
    pub value: Payload,
    /// What the writer takes for granted.
    #[serde(default, skip_serializing_if = "crate::task::is_default")]
    pub expect: Expect,
    /// What happens where that is not so; absent: what the policies say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl OutcomeState {
    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty()
    }

    /// Whether it is sound by itself, before anything is looked up for it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.put.len() > PUTS_MAX {
            let count = self.put.len();
            return Err(format!(
                "it writes {count} keys, and an outcome writes at most {PUTS_MAX}"
            ));
        }
        let mut seen = BTreeSet::new();
        for KeyPut { key, value, .. } in &self.put {
            check_key(key)?;
            if !seen.insert(key) {
                return Err(format!("it writes `{key}` twice: an outcome writes a key once"));
            }
            check_size(key, value.size())?;
        }
        Ok(())
    }

    /// The first key that is not among those that the task may use.
    pub fn foreign(&self, allowed: &[Arc<str>]) -> Option<&str> {
        self.put.iter().map(|put| put.key.as_ref()).find(|key| !covers(allowed, key))
    }
}

impl KeyPut {
    /// The write that it stands for.
    pub fn by(&self, writer: Writer) -> Put {
        Put {
            key: self.key.clone(),
            value: Some(self.value.clone()),
            expect: self.expect,
            policy: self.policy,
            writer,
            fence: None,
        }
    }
}

/// Checks the length of a value of this key.
///
/// # Errors
/// That it is too long, and what to do.
pub fn check_size(key: &str, bytes: u64) -> Result<(), String> {
    if bytes > VALUE_MAX {
        return Err(format!(
            "the value of `{key}` has {bytes} bytes, and a value has at most {VALUE_MAX}: leave large data in files, and keep their paths here"
        ));
    }
    Ok(())
}

/// What stood under the keys that a task may use when its attempt was given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenState {
    /// Keys that it may use, or prefixes and `*`.
    pub keys: Vec<Arc<str>>,
    /// What stands under them. Empty in the store's outbox: dispatch adds it.
    #[serde(default)]
    pub values: Vec<GivenValue>,
    /// Whether there are more of them than are given.
    #[serde(default, skip_serializing_if = "crate::task::is_default")]
    pub more: bool,
}

/// A key as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenValue {
    /// The key.
    pub key: Arc<str>,
    /// Its version: what a write that was made from this value expects.
    pub version: u64,
    /// Its value.
    pub value: Payload,
}

/// Checks the keys that a task may use.
///
/// # Errors
/// What is wrong with them, in words.
pub fn check_state_keys(keys: &[Arc<str>]) -> Result<(), String> {
    if keys.len() > STATE_KEYS_MAX {
        let count = keys.len();
        return Err(format!(
            "`state_keys` names {count} keys, at most {STATE_KEYS_MAX} are allowed: name a prefix and `*`"
        ));
    }
    keys.iter().try_for_each(|key| check_pattern(key))
}

/// Whether a key, or every key of a prefix and `*`, is among these keys and prefixes.
pub fn covers(patterns: &[Arc<str>], wanted: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => wanted.strip_suffix('*').unwrap_or(wanted).starts_with(prefix),
        None => **pattern == *wanted,
    })
}

impl Serialize for Expect {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Expect::Anything => to.serialize_none(),
            Expect::Absent => to.serialize_str("absent"),
            Expect::Version(version) => to.serialize_u64(*version),
        }
    }
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Expect, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Expect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version, or \"absent\"")
            }

            fn visit_u64<E>(self, version: u64) -> Result<Expect, E> {
                Ok(Expect::Version(version))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Expect, E> {
                match text {
                    "absent" => Ok(Expect::Absent),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(cut(text)), &self)),
                }
            }

            fn visit_unit<E>(self) -> Result<Expect, E> {
                Ok(Expect::Anything)
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// The beginning of a text from outside, to be shown.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(KEY_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(patterns: &[&str]) -> Vec<Arc<str>> {
        patterns.iter().map(|pattern| Arc::from(*pattern)).collect()
    }

    fn writes(names: &[&str]) -> OutcomeState {
        let put = |key: &&str| KeyPut {
            key: (*key).into(),
            value: Payload::null(),
            expect: Expect::Anything,
            policy: None,
        };
        OutcomeState { put: names.iter().map(put).collect() }
    }

    #[test]
    fn nothing_is_allowed_that_is_not_declared() {
        let allowed = keys(&["plan/*", "done", "a*"]);
        for within in ["plan/api", "plan/a/b", "plan/*", "plan/a*", "done", "a", "abc", "a*"] {
            assert!(covers(&allowed, within), "{within}");
        }
        for foreign in ["plan", "plan*", "*", "done/x", "done*", "don", "", "b", "Plan/api"] {
            assert!(!covers(&allowed, foreign), "{foreign}");
        }
        assert!(!covers(&[], "a") && covers(&keys(&["*"]), "a") && covers(&keys(&["*"]), "*"));
        let state = writes(&["done", "other", "more"]);
        assert_eq!(state.foreign(&allowed), Some("other"));
        assert_eq!(writes(&["done"]).foreign(&allowed), None);
    }

    #[test]
    fn what_an_outcome_writes_is_bounded_and_sound() {
        let many: Vec<String> = (0..=PUTS_MAX).map(|n| format!("k{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(writes(&many[1..]).check(), Ok(()));
        assert!(writes(&many).check().unwrap_err().contains("at most 32"));
        assert!(writes(&["a", "b", "a"]).check().unwrap_err().contains("`a` twice"));
        assert!(writes(&["a//b"]).check().unwrap_err().contains("no key"));
        let mut large = writes(&["a"]);
        large.put[0].value =
            Payload::Stored { hash: crate::payload::Hash::of(b""), size: VALUE_MAX + 1 };
        assert!(large.check().unwrap_err().contains("at most 4194304"));
        assert!(check_state_keys(&keys(&["a", "b/*", "*"])).is_ok());
        assert!(check_state_keys(&keys(&["a b"])).is_err());
        assert!(check_state_keys(&vec!["a".into(); STATE_KEYS_MAX + 1]).is_err());
    }

    #[test]
    fn an_expectation_is_a_version_or_absent_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Expect>(text);
        assert_eq!(read("7").unwrap(), Expect::Version(7));
        assert_eq!(read("\"absent\"").unwrap(), Expect::Absent);
        assert_eq!(read("null").unwrap(), Expect::Anything);
        for text in ["-1", "1.5", "\"7\"", "true", "[]", "{}"] {
            assert!(read(text).is_err(), "{text}");
        }
        for expect in [Expect::Anything, Expect::Absent, Expect::Version(u64::MAX)] {
            let text = serde_json::to_string(&expect).unwrap();
            assert_eq!(read(&text).unwrap(), expect);
        }
    }
}
