//! What workers and the engine say to each other, and how it is signed.
//!
//! A worker hosts agents and has no credentials but the broker's and one [`WorkerToken`]. The token never travels: each letter carries
//! what it says as a text, and an HMAC under the token over that text and over who says it, in which life, as which number, and when. Any
//! node can derive the token from the project's key, so any node answers. `docs/decisions/011-nodes.md` says why it is so.

use crate::agent::AgentSpec;
use crate::ids::{HostId, Incarnation, InstanceId, ProjectId};
use crate::payload::Hash;
use crate::time::Time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A letter is good for so long before and after its time by the store's clock, in milliseconds.
pub const FRESH_MS: u64 = 60_000;
/// Agents that one worker hosts at most.
pub const AGENTS_MAX: usize = 1_000;
/// Bytes of what one letter says at most.
pub const SAID_MAX: usize = 1024 * 1024;
/// Bytes of a body that one letter carries at most.
pub const PART_MAX: usize = 192 * 1024;
/// Bytes of a body that a worker may hand in at most.
pub const BODY_MAX: u64 = 128 * 1024 * 1024;
/// Bytes of a worker's name at most.
pub const NAME_MAX: usize = 64;
/// What stands before everything else in a token's text.
const TOKEN_MARK: &str = "segue-worker-1";

/// HMAC-SHA256 (RFC 2104) of these parts, one after another.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36));
    for part in parts {
        inner.update(part);
    }
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

/// The host id of a worker: the same for the same name in the same project.
pub fn host_of(project: ProjectId, name: &str) -> HostId {
    let digest = Sha256::new()
        .chain_update("segue worker host 1")
        .chain_update(project.as_bytes())
        .chain_update(name)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    HostId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Whether the host is a worker's: ids that are derived are of version 8, and those of nodes are drawn (version 4).
pub fn is_worker(host: HostId) -> bool {
    host.0.get_version_num() == 8
}

/// The instance of an agent on a host: the same over restarts, another on another host.
pub fn instance_of(host: HostId, agent: &str) -> InstanceId {
    let digest = Sha256::new().chain_update(host.as_bytes()).chain_update(agent).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    InstanceId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// A worker's name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be the name of a worker: it has 1 to {NAME_MAX} characters of a-z, A-Z, 0-9, `-`, `_` and `.`, and begins with a letter or digit"
)]
pub struct BadName(String);

/// Whether this can be the name of a worker or node.
///
/// # Errors
/// Where it cannot.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(fits)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if is_name { Ok(()) } else { Err(BadName(name.chars().take(NAME_MAX).collect())) }
}

/// A key that signs and checks letters of one host. Never printed, never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<token>")
    }
}

/// What a project gives out tokens by. Never printed.
#[derive(Clone)]
pub struct TokenMaker {
    project: ProjectId,
    key: [u8; 32],
}

impl fmt::Debug for TokenMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMaker").field("project", &self.project).finish_non_exhaustive()
    }
}

impl TokenMaker {
    /// For the project with this key.
    pub fn new(project: ProjectId, key: [u8; 32]) -> TokenMaker {
        TokenMaker { project, key }
    }

    /// The project.
    pub fn project(&self) -> ProjectId {
        self.project
    }

    /// The token of a host.
    pub fn token(&self, host: HostId) -> Token {
        let parts: [&[u8]; 3] = [b"segue worker token 1", self.project.as_bytes(), host.as_bytes()];
        Token(hmac_sha256(&self.key, &parts))
    }

    /// What the worker of this name is given.
    ///
    /// # Errors
    /// Where it cannot be a name.
    pub fn worker(&self, name: &str) -> Result<WorkerToken, BadName> {
        check_name(name)?;
        let token = self.token(host_of(self.project, name));
        Ok(WorkerToken { project: self.project, name: name.to_owned(), token })
    }
}

/// What a worker is given: the project, its name, and its token. Its `Debug` shows no token; [`WorkerToken::reveal`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerToken {
    /// The project.
    pub project: ProjectId,
    /// The worker.
    pub name: String,
    /// What signs its letters.
    pub token: Token,
}

impl WorkerToken {
    /// The worker's host.
    pub fn host(&self) -> HostId {
        host_of(self.project, &self.name)
    }

    /// The text that goes into the worker's token file: a secret.
    pub fn reveal(&self) -> String {
        format!("{TOKEN_MARK}:{}:{}:{}", self.project, self.name, Hash(self.token.0).hex())
    }
}

/// A text that is no worker's token. It does not repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "that is no worker's token: it is one line that begins with `{TOKEN_MARK}:`, and `segue worker token NAME` prints it"
)]
pub struct BadToken;

impl FromStr for WorkerToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<WorkerToken, BadToken> {
        let mut parts = text.trim().split(':');
        let (mark, project, name, token) = (parts.next(), parts.next(), parts.next(), parts.next());
        if mark != Some(TOKEN_MARK) || parts.next().is_some() {
            return Err(BadToken);
        }
        let name = name.filter(|name| check_name(name).is_ok()).ok_or(BadToken)?;
        Ok(WorkerToken {
            project: project.and_then(|project| project.parse().ok()).ok_or(BadToken)?,
            name: name.to_owned(),
            token: token.and_then(Hash::from_hex).map(|hash| Token(hash.0)).ok_or(BadToken)?,
        })
    }
}

/// Which way a sealed letter goes. It is signed as well: what the engine said cannot be sent back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a worker to the engine.
    ToEngine,
    /// From the engine to a worker.
    ToWorker,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Way::ToEngine => "to-engine",
            Way::ToWorker => "to-worker",
        }
    }
}

/// What a worker says, or is answered, signed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// The worker's host.
    pub host: HostId,
    /// The life of the worker; each life's id is greater than that of the one before.
    pub incarnation: Incarnation,
    /// The number of the letter within the life; an answer repeats that of its question.
    pub number: u64,
    /// When it was written, by the store's clock as far as the sender knows it.
    pub at: Time,
    /// What is said: JSON as a text, so that what is signed stays the same byte for byte.
    pub said: String,
    /// HMAC-SHA256 over everything above, the way and the project.
    pub mac: Hash,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("host", &self.host)
            .field("number", &self.number)
            .field("bytes", &self.said.len())
            .finish_non_exhaustive()
    }
}

/// Who says it, in which life, as which number, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The worker's host.
    pub host: HostId,
    /// The life of the worker.
    pub incarnation: Incarnation,
    /// The number of the letter.
    pub number: u64,
    /// When it was written.
    pub at: Time,
}

impl Sealed {
    /// Signs what is said.
    pub fn seal(token: &Token, project: ProjectId, way: Way, stamp: Stamp, said: String) -> Sealed {
        let Stamp { host, incarnation, number, at } = stamp;
        let mut sealed = Sealed { host, incarnation, number, at, said, mac: Hash([0; 32]) };
        sealed.mac = sealed.mac_by(token, project, way);
        sealed
    }

    /// Whether whoever has this token signed it.
    pub fn is_by(&self, token: &Token, project: ProjectId, way: Way) -> bool {
        self.mac.0.ct_eq(&self.mac_by(token, project, way).0).into()
    }

    /// What is signed: lines of text, of which only the last may hold anything, so that no two letters give the same text.
    fn mac_by(&self, token: &Token, project: ProjectId, way: Way) -> Hash {
        let head = format!(
            "{TOKEN_MARK}\n{}\n{project}\n{}\n{}\n{}\n{}\n",
            way.as_str(),
            self.host,
            self.incarnation,
            self.number,
            self.at.0
        );
        Hash(hmac_sha256(&token.0, &[head.as_bytes(), self.said.as_bytes()]))
    }

    /// Whether it was written about now.
    pub fn is_fresh(&self, now: Time) -> bool {
        self.at.since_ms(now).max(now.since_ms(self.at)) <= FRESH_MS
    }
}

/// Who a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its name, of which its host id is made.
    pub name: String,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
    /// The name of its machine.
    #[serde(default)]
    pub machine: String,
}

/// What a worker says. Each is a question that is answered by an [`Answer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Say {
    /// It is there and has these agents. What it had in an earlier life has ended.
    Hello {
        /// Who it is.
        #[serde(flatten)]
        who: Who,
        /// Its agents, whose instances are those of [`instance_of`]. One with no slots takes no more work.
        agents: Vec<AgentSpec>,
        /// How long its lease is to last without a beat, in milliseconds. The engine bounds it.
        lease_ms: u64,
    },
    /// It is still there.
    Beat {
        /// Who it is.
        #[serde(flatten)]
        who: Who,
        /// Load of its machine, 0 to 1.
        load: f32,
        /// Attempts that run.
        running: u32,
        /// The instances that it has.
        agents: Vec<InstanceId>,
        /// How long its lease is to last without a beat, in milliseconds.
        lease_ms: u64,
    },
    /// It goes. Nothing of it runs any more.
    Bye {
        /// Why.
        reason: String,
    },
    /// It wants a part of a body.
    Get {
        /// The body.
        hash: Hash,
        /// From this byte on.
        offset: u64,
    },
    /// It hands in a part of a body: a body itself, until it is joined.
    Put {
        /// The bytes.
        part: Part,
    },
    /// The parts that it handed in are this body.
    Join {
        /// The body.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
        /// Its parts in order.
        parts: Vec<Hash>,
    },
}

/// What a worker says, and where the answer goes. Signed together, so that nobody can have the answer sent elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The queue of the answer.
    pub reply: Uuid,
    /// What is said.
    #[serde(flatten)]
    pub say: Say,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It was done.
    Done {
        /// Now, by the store's clock.
        now: Time,
        /// How long the lease lasts, in milliseconds; zero where it is about none.
        lease_ms: u64,
        /// It is to end: somebody drained it.
        #[serde(default)]
        leave: bool,
    },
    /// It is not known any more, or its clock is off: it is to say hello again, with its clock set.
    Again {
        /// Now, by the store's clock.
        now: Time,
        /// Why.
        reason: String,
    },
    /// A part of a body.
    Part {
        /// The length of the whole body.
        size: u64,
        /// From this byte on.
        offset: u64,
        /// The bytes.
        part: Part,
    },
    /// It cannot be done, and will not be when it is asked again.
    Refused {
        /// Why.
        reason: String,
    },
    /// It cannot be done now.
    Later {
        /// Why.
        reason: String,
    },
}

/// A part of a body, written as base64 (RFC 4648, with padding).
#[derive(Clone, PartialEq, Eq)]
pub struct Part(pub Vec<u8>);

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.len() > PART_MAX.div_ceil(3) * 4 {
            let message = format!("a part of a body has at most {PART_MAX} bytes");
            return Err(serde::de::Error::custom(message));
        }
        STANDARD.decode(text).map(Part).map_err(|_| serde::de::Error::custom("a part is base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROJECT: ProjectId = ProjectId(Uuid::from_u128(5));

    fn maker() -> TokenMaker {
        TokenMaker::new(PROJECT, [7; 32])
    }

    fn sealed(said: &str) -> (Token, Sealed) {
        let host = host_of(PROJECT, "red");
        let token = maker().token(host);
        let stamp = Stamp {
            host,
            incarnation: Incarnation(Uuid::from_u128(9)),
            number: 3,
            at: Time(1_000_000),
        };
        let sealed = Sealed::seal(&token, PROJECT, Way::ToEngine, stamp, said.to_owned());
        (token, sealed)
    }

    #[test]
    fn the_hmac_is_that_of_the_standard() {
        // RFC 4231, cases 1, 2 and 6.
        let hex = |key: &[u8], text: &[u8]| Hash(hmac_sha256(key, &[text])).hex();
        assert_eq!(
            hex(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(hmac_sha256(b"k", &[b"ab", b"c"]), hmac_sha256(b"k", &[b"a", b"bc"]));
    }

    #[test]
    fn whatever_is_changed_breaks_the_seal() {
        let (token, good) = sealed("{}");
        assert!(good.is_by(&token, PROJECT, Way::ToEngine));
        assert!(!good.is_by(&token, PROJECT, Way::ToWorker));
        assert!(!good.is_by(&token, ProjectId(Uuid::from_u128(6)), Way::ToEngine));
        let other = maker().token(host_of(PROJECT, "blue"));
        assert!(!good.is_by(&other, PROJECT, Way::ToEngine));
        let changed = [
            Sealed { host: host_of(PROJECT, "blue"), ..good.clone() },
            Sealed { incarnation: Incarnation(Uuid::nil()), ..good.clone() },
            Sealed { number: 4, ..good.clone() },
            Sealed { at: Time(1_000_001), ..good.clone() },
            Sealed { said: "{} ".into(), ..good.clone() },
            Sealed { mac: Hash([0; 32]), ..good.clone() },
        ];
        assert!(changed.iter().all(|sealed| !sealed.is_by(&token, PROJECT, Way::ToEngine)));
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Sealed>(&text).unwrap(), good);
    }

    #[test]
    fn a_letter_is_fresh_for_a_minute_on_either_side() {
        let (_, sealed) = sealed("{}");
        let fresh = |now: i64| sealed.is_fresh(Time(now));
        assert!(fresh(1_000_000) && fresh(1_060_000) && fresh(940_000));
        assert!(!fresh(1_060_001) && !fresh(939_999) && !fresh(i64::MIN) && !fresh(i64::MAX));
    }

    #[test]
    fn a_token_comes_back_from_its_text_and_is_never_shown() {
        let token = maker().worker("red-1.eu").unwrap();
        let text = token.reveal();
        assert_eq!(format!(" {text}\n").parse::<WorkerToken>().unwrap(), token);
        assert_eq!(token.token, maker().token(token.host()));
        assert!(!format!("{token:?} {:?}", maker()).contains(&text[text.len() - 64..]));
        for wrong in
            ["", "segue-worker-1", &text[1..], &format!("{text}:x"), &text.replace('7', "g")]
        {
            assert_eq!(wrong.parse::<WorkerToken>(), Err(BadToken), "{wrong}");
        }
    }

    #[test]
    fn names_are_those_of_files_and_queues() {
        for good in ["a", "A-1_b.c", &"x".repeat(NAME_MAX)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for wrong in ["", "-a", ".", "a b", "a/b", "a:b", "é", &"x".repeat(NAME_MAX + 1)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
            assert!(maker().worker(wrong).is_err());
        }
    }

    #[test]
    fn what_is_said_is_plain_json() {
        let asked = Asked {
            reply: Uuid::from_u128(1),
            say: Say::Put { part: Part(b"{\"a\":1}".to_vec()) },
        };
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(
            text,
            r#"{"reply":"00000000-0000-0000-0000-000000000001","say":"put","part":"eyJhIjoxfQ=="}"#
        );
        assert_eq!(serde_json::from_str::<Asked>(&text).unwrap(), asked);
        let large = format!(r#""{}""#, "A".repeat(PART_MAX * 2));
        let error = serde_json::from_str::<Part>(&large).unwrap_err().to_string();
        assert!(error.contains("at most"), "{error}");
    }

    proptest! {
        #[test]
        fn any_part_survives(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let text = serde_json::to_string(&Part(bytes.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Part>(&text).unwrap().0, bytes);
        }

        #[test]
        fn any_text_is_a_token_or_refused(text in ".{0,200}") {
            if let Ok(token) = text.parse::<WorkerToken>() {
                prop_assert_eq!(token.reveal(), text.trim());
            }
        }
    }
}
