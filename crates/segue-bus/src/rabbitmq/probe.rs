//! What `segue doctor` asks of the broker.

use super::Shared;
use super::topology;
use lapin::uri::{AMQPScheme, AMQPUri};
use segue_core::ports::BusError;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Bytes of the greeting of a broker that are read, at most.
const GREETING_MAX: usize = 16 * 1024;

/// What the broker said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The node that was asked, without user and password.
    pub place: String,
    /// Its version; nothing where it did not say.
    pub version: Option<String>,
    /// How long a question and its answer took.
    pub round_trip: Duration,
    /// Exchanges and queues that should be there and are not.
    pub missing: Vec<String>,
    /// Why it takes no letters for now, while it does not.
    pub blocked: Option<String>,
}

pub(super) async fn probe(shared: &Arc<Shared>) -> Result<Probe, BusError> {
    let live = shared.consuming.now()?;
    let timeout = shared.options.connect_timeout;
    let asking = async {
        let mut missing = Vec::new();
        let away = |error: lapin::Error| BusError::Away(format!("{}: {error}", live.place));
        let channel = live.connection.create_channel().await.map_err(away)?;
        let began = Instant::now();
        channel.basic_qos(1, lapin::options::BasicQosOptions::default()).await.map_err(away)?;
        let round_trip = began.elapsed();
        topology::close(&channel).await;
        for (name, _) in topology::exchanges(&shared.names) {
            if topology::is_there(&live.connection, &name).await.is_err() {
                missing.push(format!("exchange {name}"));
            }
        }
        for name in [shared.names.dead_work(), shared.names.dead_other()] {
            if topology::queue_is_there(&live.connection, &name).await.is_err() {
                missing.push(format!("queue {name}"));
            }
        }
        Ok((round_trip, missing))
    };
    let late = || BusError::Away(format!("{}: no answer in time", live.place));
    let (round_trip, missing) =
        tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| Err(late()))?;
    let blocked = blocked(shared).await?;
    let version = version(shared, &live.place).await;
    Ok(Probe { place: live.place.clone(), version, round_trip, missing, blocked })
}

/// Why the broker takes no letters: it says so to those alone who publish, so something is published, to nobody.
async fn blocked(shared: &Arc<Shared>) -> Result<Option<String>, BusError> {
    let mut blocked = shared.publishing.blocked.subscribe();
    let target = shared.names.nowhere();
    let publishing = super::publish::send(shared, &target, &[], 0, Uuid::new_v4());
    tokio::select! {
        biased;
        Ok(reason) = blocked.wait_for(Option::is_some) => Ok(reason.clone()),
        said = publishing => said.map(|_| None),
    }
}

/// The version in the greeting of this node. The driver reads it and keeps it to itself, so it is asked for once more, before anybody logs in.
async fn version(shared: &Arc<Shared>, at: &str) -> Option<String> {
    let nodes = shared.options.nodes().ok()?;
    let node = nodes.into_iter().find(|node| super::options::place(node) == at)?;
    let ca_file = shared.options.ca_file.clone();
    let timeout = shared.options.connect_timeout;
    let asking = tokio::task::spawn_blocking(move || greeting(&node, ca_file.as_deref(), timeout));
    version_in(&asking.await.ok()?.ok()?)
}

fn greeting(node: &AMQPUri, ca_file: Option<&Path>, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let place = (node.authority.host.as_str(), node.authority.port);
    let address = place.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    match node.scheme {
        AMQPScheme::AMQP => read_greeting(stream),
        AMQPScheme::AMQPS => read_greeting(encrypted(&node.authority.host, stream, ca_file)?),
    }
}

fn encrypted(
    host: &str,
    stream: TcpStream,
    ca_file: Option<&Path>,
) -> std::io::Result<impl Read + Write> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).map_err(other)? {
                roots.add(certificate.map_err(other)?).map_err(other)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(other)?;
    let connection = rustls::ClientConnection::new(Arc::new(config), name).map_err(other)?;
    Ok(rustls::StreamOwned::new(connection, stream))
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::other(error)
}

/// The first frame of a broker: `connection.start`, with what it says of itself.
fn read_greeting(mut stream: impl Read + Write) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    stream.flush()?;
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut frame = vec![0; size.min(GREETING_MAX)];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// The field `version` of a table: its name, `S`, its length, and the text.
fn version_in(frame: &[u8]) -> Option<String> {
    let name = b"\x07versionS";
    let at = frame.windows(name.len()).position(|window| window == name)? + name.len();
    let size = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?) as usize;
    let text = frame.get(at + 4..(at + 4).checked_add(size.min(64))?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn the_version_is_found_in_a_greeting_and_nowhere_else() {
        let frame = b"..\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8..";
        assert_eq!(version_in(frame).as_deref(), Some("3.10.8"));
        assert_eq!(version_in(b"\x07versionS\xff\xff\xff\xff1"), None);
        assert_eq!(version_in(b"\x07versionS\x00"), None);
        assert_eq!(version_in(b""), None);
    }
}
