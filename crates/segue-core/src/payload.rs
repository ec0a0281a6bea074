//! Payloads: inputs, outputs and other bodies of any size, known by their hash.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// Bodies up to this many bytes are kept in the row that refers to them.
pub const INLINE_MAX: usize = 2 * 1024;

/// Bodies up to this many bytes are kept in the database; larger ones in the directory (or object store) of [`Blobs`](crate::ports::Blobs).
pub const DATABASE_MAX: usize = 64 * 1024;

/// SHA-256 of a body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// Sixty-four lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The reverse of [`Hash::hex`].
    pub fn from_hex(text: &str) -> Option<Hash> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Hash(bytes))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Hash::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("a hash is 64 hexadecimal digits"))
    }
}

/// A JSON text that is either at hand or known by its hash. Written once, never changed.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Payload {
    /// The body is not here: [`Blobs`](crate::ports::Blobs) has it under this hash.
    Stored {
        /// SHA-256 of the body.
        hash: Hash,
        /// Length of the body in bytes.
        size: u64,
    },
    /// The body itself: a JSON text of at most [`DATABASE_MAX`] bytes.
    Here(Body),
}

/// A checked JSON text, cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<str>);

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A wrapper key keeps bodies that look like a reference apart from references.
        #[derive(Serialize)]
        struct Wrapped<'a> {
            body: &'a RawValue,
        }
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        Wrapped { body: raw }.serialize(serializer)
    }
}

/// Reads a body as it was written, every byte of it: its hash is that of the text. So it can be read from JSON alone, and not from within a
/// tagged or flattened value of serde's, which takes texts apart before it knows what they are (see [`buffered`]).
impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            hash: Option<Hash>,
            size: Option<u64>,
            // A body may be `null`, and is there all the same.
            #[serde(default, deserialize_with = "there")]
            body: Option<Box<RawValue>>,
        }
        fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
            Box::<RawValue>::deserialize(from).map(Some)
        }
        let fields = Fields::deserialize(deserializer)?;
        match (fields.hash, fields.size, fields.body) {
            (Some(hash), Some(size), _) => Ok(Payload::Stored { hash, size }),
            (_, _, Some(body)) => Ok(Payload::Here(Body(body.get().into()))),
            _ => Err(serde::de::Error::custom("a payload has a body, or a hash and a size")),
        }
    }
}

/// Reads payloads where serde has taken the text apart already: the value is the same, the text may be another one.
pub mod buffered {
    use super::{Body, Deserialize, Deserializer, Hash, Payload};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Buffered {
        Stored { hash: Hash, size: u64 },
        Here { body: serde_json::Value },
    }

    impl From<Buffered> for Payload {
        fn from(buffered: Buffered) -> Payload {
            match buffered {
                Buffered::Stored { hash, size } => Payload::Stored { hash, size },
                Buffered::Here { body } => Payload::Here(Body(body.to_string().into())),
            }
        }
    }

    /// For a field that is a payload.
    pub fn one<'de, D: Deserializer<'de>>(from: D) -> Result<Payload, D::Error> {
        Buffered::deserialize(from).map(Payload::from)
    }

    /// For a field that may be one.
    pub fn option<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Payload>, D::Error> {
        Ok(Option::<Buffered>::deserialize(from)?.map(Payload::from))
    }
}

/// The text of a JSON value, to be read more than once: first what it is, then what is in it.
pub(crate) struct Whole(Box<RawValue>);

impl Whole {
    pub(crate) fn of<'de, D: Deserializer<'de>>(from: D) -> Result<Whole, D::Error> {
        Box::<RawValue>::deserialize(from).map(Whole)
    }

    pub(crate) fn read<'a, T: Deserialize<'a>, E: serde::de::Error>(&'a self) -> Result<T, E> {
        serde_json::from_str(self.0.get()).map_err(E::custom)
    }
}

/// A body that cannot be a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// The bytes are no JSON text.
    #[error("not a JSON text: {0}")]
    NotJson(String),
    /// The body has to go through `Blobs` first.
    #[error(
        "{size} bytes are too many to be carried in a row (at most {DATABASE_MAX}): put the body into the blob store first"
    )]
    TooLarge {
        /// Length in bytes.
        size: usize,
    },
}

impl Payload {
    /// The JSON value `null`.
    pub fn null() -> Payload {
        Payload::Here(Body("null".into()))
    }

    /// A payload of this value, which must be at most [`DATABASE_MAX`] bytes long as JSON.
    pub fn of(value: &serde_json::Value) -> Result<Payload, BadPayload> {
        Self::checked(value.to_string())
    }

    /// A payload of this text, if it is JSON and at most [`DATABASE_MAX`] bytes long.
    pub fn of_text(text: impl Into<String>) -> Result<Payload, BadPayload> {
        let text = text.into();
        if text.len() <= DATABASE_MAX {
            serde_json::from_str::<serde::de::IgnoredAny>(&text)
                .map_err(|error| BadPayload::NotJson(error.to_string()))?;
        }
        Self::checked(text)
    }

    /// A payload read back from where only checked texts are written. The text is trusted to be JSON.
    pub fn of_trusted_text(text: &str) -> Payload {
        Payload::Here(Body(text.into()))
    }

    fn checked(text: String) -> Result<Payload, BadPayload> {
        if text.len() > DATABASE_MAX {
            return Err(BadPayload::TooLarge { size: text.len() });
        }
        Ok(Payload::Here(Body(text.into())))
    }

    /// The text, if the body is at hand.
    pub fn text(&self) -> Option<&str> {
        match self {
            Payload::Here(body) => Some(&body.0),
            Payload::Stored { .. } => None,
        }
    }

    /// Length of the body in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Payload::Here(body) => body.0.len() as u64,
            Payload::Stored { size, .. } => *size,
        }
    }

    /// The hash by which the body is known.
    pub fn hash(&self) -> Hash {
        match self {
            Payload::Here(body) => Hash::of(body.0.as_bytes()),
            Payload::Stored { hash, .. } => *hash,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Here(body) if body.0.len() <= 80 => f.write_str(&body.0),
            other => write!(f, "<{} bytes>", other.size()),
        }
    }
}
