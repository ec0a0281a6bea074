//! How to reach a broker, and the bounds of what goes over it.

use crate::wire::NAME_MAX;
use lapin::uri::{AMQPScheme, AMQPUri};
use segue_core::ports::BusError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the broker is and how much may be on its way.
#[derive(Clone)]
pub struct Options {
    /// Where it is: `amqp://user:password@host:port/vhost`, or `amqps`. Several for the nodes of one cluster, tried in turn. Never printed.
    pub urls: Vec<String>,
    /// The project. Each letter names it, and letters of another one are refused.
    pub project: String,
    /// What the names of exchanges and queues begin with. Empty where the project has a vhost of its own.
    pub prefix: String,
    /// A file of certificates (PEM) to trust; those of the system where absent.
    pub ca_file: Option<PathBuf>,
    /// Users of the broker whose messages may give out work. Where there are none, everybody's may.
    pub engine_users: Vec<String>,
    /// Messages that a queue holds before `publish` waits. A message holds up to `letters_max` letters.
    pub queue_max: u32,
    /// Bytes that a queue holds before `publish` waits.
    pub queue_bytes_max: u64,
    /// Messages that a consumer holds and has not acknowledged.
    pub prefetch: u16,
    /// Letters that share a message, at most.
    pub letters_max: usize,
    /// Bytes of a message that several letters share, at most. A larger letter has a message of its own.
    pub shared_bytes_max: usize,
    /// Bytes of a message, at most; has to be less than the `max_message_size` of the broker.
    pub message_bytes_max: usize,
    /// Bytes of letters that wait to be taken by the broker, at most; beside them each address has one message in flight. Whoever wants to publish more
    /// waits with it.
    pub waiting_bytes_max: usize,
    /// How often work is handed over in vain before it is a dead letter.
    pub delivery_limit: u32,
    /// How long a queue of a host is kept when nobody takes from it.
    pub unused: Duration,
    /// A connection, and everything that has to be asked on it, takes no longer.
    pub connect_timeout: Duration,
    /// The broker confirms a message within this time, or it is not known to be taken.
    pub confirm_timeout: Duration,
    /// A connection on which nothing was heard for about twice as long is dead.
    pub heartbeat: Duration,
}

impl Options {
    /// Options for a project over these nodes of a broker, with names that begin with the project's.
    pub fn new(urls: Vec<String>, project: impl Into<String>) -> Options {
        let project = project.into();
        Options {
            urls,
            prefix: format!("{project}."),
            project,
            ca_file: None,
            engine_users: Vec::new(),
            queue_max: 16 * 1024,
            queue_bytes_max: 256 * 1024 * 1024,
            prefetch: 64,
            letters_max: 256,
            shared_bytes_max: 256 * 1024,
            message_bytes_max: 8 * 1024 * 1024,
            waiting_bytes_max: 64 * 1024 * 1024,
            delivery_limit: 20,
            unused: Duration::from_secs(7 * 24 * 3_600),
            connect_timeout: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(15),
            heartbeat: Duration::from_secs(10),
        }
    }

    /// The nodes of the broker, checked, with the heartbeat in them.
    pub(super) fn nodes(&self) -> Result<Vec<AMQPUri>, BusError> {
        let wrong = |what: String| BusError::Away(format!("the settings of RabbitMQ: {what}"));
        if self.urls.is_empty() {
            return Err(wrong("there is no URL".into()));
        }
        // A name of a queue has at most 255 bytes, and ours add up to 230.
        if self.prefix.len() > 24 * 4 || self.project.is_empty() || self.project.len() > NAME_MAX {
            return Err(wrong("the name of the project is empty or too long".into()));
        }
        let node = |(i, url): (usize, &String)| {
            // The error would repeat the URL, and with it the password.
            let mut uri: AMQPUri = url.parse().map_err(|_| {
                wrong(format!("URL {} is not amqp[s]://user:password@host:port/vhost", i + 1))
            })?;
            uri.query.heartbeat = Some(self.heartbeat.as_secs().clamp(1, 3_600) as u16);
            uri.query.connection_timeout = Some(self.connect_timeout.as_millis() as u64);
            Ok(uri)
        };
        self.urls.iter().enumerate().map(node).collect()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = match self.nodes() {
            Ok(nodes) => nodes.iter().map(place).collect(),
            Err(_) => vec!["<not readable>".to_owned()],
        };
        f.debug_struct("Options")
            .field("nodes", &nodes)
            .field("project", &self.project)
            .field("prefix", &self.prefix)
            .field("queue_max", &self.queue_max)
            .field("prefetch", &self.prefetch)
            .finish_non_exhaustive()
    }
}

/// A node of the broker as it may be shown: without user and password.
pub(super) fn place(uri: &AMQPUri) -> String {
    let scheme = match uri.scheme {
        AMQPScheme::AMQP => "amqp",
        AMQPScheme::AMQPS => "amqps",
    };
    let AMQPUri { authority, vhost, .. } = uri;
    format!("{scheme}://{}:{}/{}", authority.host, authority.port, vhost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_a_password() {
        let urls = ["amqp://zoe:geheim@h:1/v", "amqps://zoe:geheim@[", "zoe:geheim"];
        for url in urls {
            let options = Options::new(vec![url.to_owned()], "p");
            let shown = format!("{options:?} {:?}", options.nodes().map(|_| ()));
            assert!(!shown.contains("geheim") && !shown.contains("zoe"), "{shown}");
        }
    }
}
