//! The topology: what exchanges and queues are called, and what they are.

use super::options::Options;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use segue_core::letter::Address;
use segue_core::payload::Hash;
use std::fmt::Write;
use uuid::Uuid;

/// Dead letters that are kept to be looked at; the oldest go first.
pub const DEAD_MAX: u32 = 10_000;
/// Bytes of dead letters that are kept, in each of the two queues.
const DEAD_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// How often the engine's queue hands something over: a store that cannot write for a night must not cost an outcome.
const ENGINE_DELIVERY_LIMIT: u32 = 100_000;

/// The key of dead letters that brought work.
pub(super) const WORK: &str = "work";
/// The key of the other ones.
pub(super) const OTHER: &str = "other";

/// What exchanges and queues of a project are called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

/// Where a letter is published.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    /// Whether somebody has to be there.
    pub(super) mandatory: bool,
}

/// A queue to take from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) queue: ShortString,
    /// The exchange and key by which letters come; nothing where the queue stands already.
    pub(super) binding: Option<(ShortString, ShortString)>,
    /// Whether it lasts only as long as its one consumer.
    pub(super) exclusive: bool,
    pub(super) arguments: FieldTable,
}

impl Names {
    pub(super) fn of(options: &Options) -> Names {
        Names { prefix: options.prefix.clone() }
    }

    fn name(&self, rest: &str) -> ShortString {
        // Prefix and rest are bounded, so this is never cut.
        short(&format!("{}{rest}", self.prefix))
    }

    pub(super) fn tasks(&self) -> ShortString {
        self.name("agent.tasks")
    }

    pub(super) fn broadcasts(&self) -> ShortString {
        self.name("agent.broadcasts")
    }

    pub(super) fn responses(&self) -> ShortString {
        self.name("agent.responses")
    }

    /// The exchange of dead letters.
    pub(super) fn dead(&self) -> ShortString {
        self.name("agent.dead")
    }

    /// The queue of dead letters that brought work.
    pub(super) fn dead_work(&self) -> ShortString {
        self.name("dead.work")
    }

    /// The queue of dead letters that are left to be looked at.
    pub(super) fn dead_other(&self) -> ShortString {
        self.name("dead.letters")
    }

    pub(super) fn target(&self, to: &Address) -> Target {
        let (exchange, key) = match to {
            Address::Host(_) | Address::Agent(_) => (self.tasks(), key(to)),
            Address::Engine | Address::Reply(_) => (self.responses(), key(to)),
            Address::All => (self.broadcasts(), String::new()),
        };
        Target { exchange, key: short(&key), mandatory: *to != Address::All }
    }

    pub(super) fn dead_target(&self, key: &str) -> Target {
        Target { exchange: self.dead(), key: short(key), mandatory: true }
    }

    /// Where nobody has a queue, and nobody has to: what is published there is for the broker alone.
    pub(super) fn nowhere(&self) -> Target {
        Target { exchange: self.responses(), key: short("nobody"), mandatory: false }
    }

    pub(super) fn source(&self, address: &Address, options: &Options) -> Source {
        let Target { exchange, key, .. } = self.target(address);
        let (queue, exclusive) = match address {
            Address::Host(_) | Address::Agent(_) | Address::Engine => {
                (self.name(key.as_str()), false)
            }
            Address::Reply(_) => (self.name(key.as_str()), true),
            // Each listener has one of its own.
            Address::All => (self.name(&format!("all.{}", Uuid::new_v4())), true),
        };
        let mut arguments = bounds(options);
        if !exclusive {
            quorum(&mut arguments);
            let (limit, dead_key) = match address {
                Address::Host(_) => (options.delivery_limit, WORK),
                Address::Engine => (ENGINE_DELIVERY_LIMIT, OTHER),
                Address::Agent(_) | Address::Reply(_) | Address::All => {
                    (options.delivery_limit, OTHER)
                }
            };
            number(&mut arguments, "x-delivery-limit", i64::from(limit));
            text(&mut arguments, "x-dead-letter-exchange", self.dead().as_str());
            text(&mut arguments, "x-dead-letter-routing-key", dead_key);
            text(&mut arguments, "x-dead-letter-strategy", "at-least-once");
        }
        if matches!(address, Address::Host(_)) {
            number(&mut arguments, "x-expires", options.unused.as_millis() as i64);
        }
        Source { queue, binding: Some((exchange, key)), exclusive, arguments }
    }

    /// Where dead letters that brought work are taken from.
    pub(super) fn dead_source(&self) -> Source {
        let mut arguments = FieldTable::default();
        quorum(&mut arguments);
        number(&mut arguments, "x-max-length", i64::from(DEAD_MAX));
        number(&mut arguments, "x-max-length-bytes", DEAD_BYTES_MAX);
        text(&mut arguments, "x-overflow", "reject-publish");
        number(&mut arguments, "x-delivery-limit", i64::from(ENGINE_DELIVERY_LIMIT));
        let binding = Some((self.dead(), short(WORK)));
        Source { queue: self.dead_work(), binding, exclusive: false, arguments }
    }

    /// Where the others are looked at. A classic queue: looking takes nothing, and must not count as a delivery.
    pub(super) fn dead_other_source(&self) -> Source {
        let mut arguments = FieldTable::default();
        number(&mut arguments, "x-max-length", i64::from(DEAD_MAX));
        number(&mut arguments, "x-max-length-bytes", DEAD_BYTES_MAX);
        let binding = Some((self.dead(), short(OTHER)));
        Source { queue: self.dead_other(), binding, exclusive: false, arguments }
    }
}

fn bounds(options: &Options) -> FieldTable {
    let mut arguments = FieldTable::default();
    number(&mut arguments, "x-max-length", i64::from(options.queue_max));
    number(&mut arguments, "x-max-length-bytes", options.queue_bytes_max as i64);
    text(&mut arguments, "x-overflow", "reject-publish");
    arguments
}

fn quorum(arguments: &mut FieldTable) {
    text(arguments, "x-queue-type", "quorum");
}

fn number(arguments: &mut FieldTable, name: &str, value: i64) {
    arguments.insert(short(name), AMQPValue::LongLongInt(value));
}

fn text(arguments: &mut FieldTable, name: &str, value: &str) {
    arguments.insert(short(name), AMQPValue::LongString(LongString::from(value)));
}

/// A short string of the protocol. Ours are all below its 255 bytes.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::from(text)
}

/// The routing key of an address, which is also what its queue is called after the prefix.
fn key(to: &Address) -> String {
    match to {
        Address::Host(host) => format!("host.{host}"),
        Address::Agent(name) => format!("agent.{}", word(name)),
        Address::Engine => "engine".to_owned(),
        Address::Reply(asker) => format!("reply.{asker}"),
        Address::All => String::new(),
    }
}

/// A name as one word of a routing key: letters, digits, `-` and `_` stand for themselves, other bytes as `%` and two hexadecimal digits; what
/// gets longer than 120 bytes is `~` and the SHA-256 of the name.
fn word(name: &str) -> String {
    let mut word = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            word.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(word, "%{byte:02x}");
        }
    }
    if word.len() > 120 { format!("~{}", Hash::of(name.as_bytes()).hex()) } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_agents_are_one_word_of_a_key() {
        assert_eq!(word("code-reviewer_2"), "code-reviewer_2");
        assert_eq!(word("a.b *#é"), "a%2eb%20%2a%23%c3%a9");
        assert_eq!(word(&"ä".repeat(200)).len(), 65);
    }

    #[test]
    fn every_name_fits_into_the_protocol() {
        let project = "p".repeat(95);
        let options = Options::new(vec!["amqp://h".into()], project);
        let names = Names::of(&options);
        assert!(options.nodes().is_ok());
        for address in [Address::Agent("x".repeat(120).into()), Address::Reply(Uuid::nil())] {
            assert!(names.source(&address, &options).queue.as_str().len() <= 255);
        }
    }
}
