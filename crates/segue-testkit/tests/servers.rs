//! The servers that tests start: they start, keep or forget what they should when they are killed, and end with who started them.

use segue_testkit::servers::{Postgres, RabbitMq, Redis};
use std::net::TcpStream;

fn listens(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

#[tokio::test]
async fn a_killed_postgres_starts_again_on_postgres() {
    let server = Postgres::start().await;
    assert!(listens(&server.address()));
    let first = server.database_name().await;
    assert_ne!(server.database_name().await, first);
    assert!(server.url(&first).ends_with(&first));
    server.kill().await;
    assert!(!listens(&server.address()));
    server.start_again().await;
    server.database_name().await;
    server.stop();
    assert!(listens(&server.address()), "a stopped server's port stays open");
    server.go_on();
    server.database_name().await;
    let address = server.address();
    drop(server);
    assert!(!listens(&address));
}

#[tokio::test]
async fn a_killed_rabbit_mq_starts_again_on_rabbitmq() {
    let server = RabbitMq::start().await;
    assert!(listens(&server.address(0)));
    let vhost = server.vhost_name().await;
    server.kill().await;
    assert!(!listens(&server.address(0)));
    server.start_again().await;
    let kept = format!("lists:member(<<\"{vhost}\">>, rabbit_vhost:list_names()).");
    assert_eq!(server.eval(&kept).await, "{ok, true}");
    let address = server.address(0);
    drop(server);
    assert!(!listens(&address));
}

#[tokio::test]
async fn a_killed_redis_starts_again_and_has_forgotten_on_redis() {
    let server = Redis::start().await;
    assert_eq!(server.command(&["SET", "a", "1"]).await, "OK");
    assert_eq!(server.command(&["GET", "a"]).await, "1");
    server.flush().await;
    assert_eq!(server.command(&["GET", "a"]).await, "");
    assert_eq!(server.command(&["SET", "a", "1"]).await, "OK");
    server.kill().await;
    assert!(!listens(&server.address()));
    server.start_again().await;
    assert_eq!(server.command(&["GET", "a"]).await, "");
    let address = server.address();
    drop(server);
    assert!(!listens(&address));
}
