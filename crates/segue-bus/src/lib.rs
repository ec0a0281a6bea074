//! Carries letters, and says what it promises.
//!
//! What every [`WorkBus`](segue_core::ports::WorkBus) promises, whichever adapter stands behind it, and what `segue_testkit::bus_suite` asks of each:
//!
//! - **At least once.** A letter that `publish` has taken is handed over until somebody acknowledges it or sends it to the dead letters.
//!   What a consumer has and does not acknowledge goes back when the consumer is dropped (or its process dies), and comes again marked
//!   `redelivered`. So a letter may come twice: the attempt, not the bus, is the fence.
//! - **Order.** Letters of one sender to one queue come in the order in which they were published, unless they are redelivered.
//! - **Sharing.** Each letter of a queue goes to one of its consumers, and one that waits is never passed over for ever.
//! - **Queues.** A queue of a host, of an agent or of the engine exists from its first consumer on, also after that one left: letters wait for the
//!   next. A letter to a queue that nobody ever had is [`Unroutable`](segue_core::ports::BusError::Unroutable), and the sender is told so. A
//!   queue for answers ([`Address::Reply`](segue_core::letter::Address::Reply)) lasts as long as its consumer does, and so does the queue
//!   that each consumer of `Address::All` has of its own: a broadcast reaches whoever is there, once.
//! - **Bounds.** `publish` waits while a queue is full; nothing is dropped to make room.
//! - **Cancel safety.** `Consumer::next` takes letters only when it returns them, so it may stand in `select!`. A `publish` that is dropped before
//!   it returns has handed over some of its letters or none; publish them again.
//! - **Acknowledgement.** `ack` and `reject` of a token that is unknown, or known no more, do nothing. A rejected letter goes back without a limit
//!   in-process; a broker may have one, after which it is a dead letter.
//! - **Dead letters.** What is rejected with a reason, or too often handed over, is dead. Work among it is taken by an engine (`consume_dead`), which ends
//!   its attempt; the rest is left to be looked at (`look_at_dead`), a bounded number of it.
//! - **Close.** After it every call answers [`Closed`](segue_core::ports::BusError::Closed), those that wait as well.
//!
//! [`Signals`](segue_core::ports::Signals) promise nothing but a good try.

pub mod in_process;
pub mod rabbitmq;
pub mod request;
pub mod signals;
pub mod wire;
