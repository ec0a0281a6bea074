//! Chaos on a whole cluster, in its short form: the real binary as two nodes and a worker on private servers, killed, cut off and deprived of
//! servers under load. `cargo xtask chaos --cluster` is the long form.

use segue_testkit::rig::{Kind, Options, chaos};
use std::time::Duration;

/// What comes in a minute: who works dies, and each server that is needed is away once.
const FAULTS: [Kind; 6] = [
    Kind::NodeKilled,
    Kind::WorkerKilled,
    Kind::PostgresKilled,
    Kind::RabbitMqKilled,
    Kind::RedisFlushed,
    Kind::Cut,
];

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_chaos_loses_nothing_and_completes_nothing_twice() {
    let folder = tempfile::tempdir().unwrap().keep();
    let options = Options {
        binary: env!("CARGO_BIN_EXE_segue").into(),
        dir: folder.clone(),
        seed: u64::from(uuid::Uuid::new_v4().as_fields().0),
        nodes: 2,
        workers: 1,
        tasks: 200,
        lasts: Duration::from_secs(60),
        faults: FAULTS.to_vec(),
        standby: false,
        brokers: 1,
        talks: true,
    };
    let report =
        chaos(&options).await.unwrap_or_else(|why| panic!("{why}; see {}", folder.display()));
    let kept = folder.display();
    assert!(report.holds(), "{}\nlogs: {kept}", report.markdown());
    assert!(report.faults.len() >= 3, "few faults fitted in: {}", report.markdown());
    std::fs::remove_dir_all(&folder).unwrap();
}
