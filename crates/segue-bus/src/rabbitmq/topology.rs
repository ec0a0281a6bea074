//! Makes the exchanges and queues, or takes them as they are.

use super::names::{Names, Source};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Error, ErrorKind, ExchangeKind};

/// Codes of the protocol.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;

/// The code that the broker answered with, if it did.
fn code(error: &Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Whether somebody else's connection still has the queue.
pub(super) fn is_locked(error: &Error) -> bool {
    code(error) == Some(RESOURCE_LOCKED)
}

/// Whether the thing stands already and is another one than asked for, or this user may not make it: then it is taken as it is.
fn stands(error: &Error) -> bool {
    matches!(code(error), Some(ACCESS_REFUSED | PRECONDITION_FAILED))
}

/// Every exchange, and the queues of dead letters.
pub(super) async fn declare(connection: &Connection, names: &Names) -> Result<(), String> {
    for (name, kind) in exchanges(names) {
        exchange(connection, &name, kind)
            .await
            .map_err(|error| format!("exchange {name}: {error}"))?;
    }
    for source in [names.dead_source(), names.dead_other_source()] {
        match queue(connection, &source).await {
            Ok(()) => {}
            // A queue that is asked for is only not found when it stands on a node that is lost: the one that people look at is no reason to carry
            // no letters by way of the others.
            Err(error) if code(&error) == Some(NOT_FOUND) => {
                tracing::warn!(queue = %source.queue, %error, "the node that has this queue is lost; letters go without it");
            }
            Err(error) => return Err(format!("queue {}: {error}", source.queue)),
        }
    }
    Ok(())
}

pub(super) fn exchanges(names: &Names) -> [(ShortString, ExchangeKind); 4] {
    [
        (names.tasks(), ExchangeKind::Topic),
        (names.broadcasts(), ExchangeKind::Fanout),
        (names.responses(), ExchangeKind::Direct),
        (names.dead(), ExchangeKind::Direct),
    ]
}

async fn exchange(
    connection: &Connection,
    name: &ShortString,
    kind: ExchangeKind,
) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let made =
        channel.exchange_declare(name.clone(), kind.clone(), options, FieldTable::default()).await;
    match made {
        Ok(()) => close(&channel).await,
        Err(error) if stands(&error) => is_there(connection, name).await?,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether the exchange is there.
pub(super) async fn is_there(connection: &Connection, name: &ShortString) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let kind = ExchangeKind::Direct;
    channel.exchange_declare(name.clone(), kind, options, FieldTable::default()).await?;
    close(&channel).await;
    Ok(())
}

/// Whether the queue is there.
pub(super) async fn queue_is_there(
    connection: &Connection,
    name: &ShortString,
) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(name.clone(), options, FieldTable::default()).await?;
    close(&channel).await;
    Ok(())
}

/// Makes the queue and its binding.
pub(super) async fn queue(connection: &Connection, source: &Source) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    match declare_on(&channel, source).await {
        Ok(()) => {
            close(&channel).await;
            Ok(())
        }
        Err(error) if stands(&error) && !source.exclusive => {
            tracing::warn!(
                queue = %source.queue, %error,
                "a queue is taken as it stands: its arguments are not those of this configuration, or this user may not make it"
            );
            queue_is_there(connection, &source.queue).await
        }
        Err(error) => Err(error),
    }
}

async fn declare_on(channel: &Channel, source: &Source) -> Result<(), Error> {
    let options = QueueDeclareOptions {
        durable: !source.exclusive,
        exclusive: source.exclusive,
        auto_delete: source.exclusive,
        ..Default::default()
    };
    channel.queue_declare(source.queue.clone(), options, source.arguments.clone()).await?;
    if let Some((exchange, key)) = &source.binding {
        let (queue, exchange, key) = (source.queue.clone(), exchange.clone(), key.clone());
        let options = QueueBindOptions::default();
        channel.queue_bind(queue, exchange, key, options, FieldTable::default()).await?;
    }
    Ok(())
}

pub(super) async fn close(channel: &Channel) {
    let _ = channel.close(200, super::names::short("OK")).await;
}
