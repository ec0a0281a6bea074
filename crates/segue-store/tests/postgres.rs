//! The questions of the testkit, asked of PostgreSQL: one server, a database for each question.

mod support;

use segue_core::ids::ProjectId;
use segue_core::ports::{Blobs, Fut};
use segue_store::postgres::{Options, PostgresStore};
use segue_testkit::servers::Postgres;
use segue_testkit::store_suite::{KEY, Opened, Place, SEED, TestClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// A place on a database of its own. Bodies that are too large for the database go into a folder.
async fn a_place(server: &Postgres) -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = segue_store::sqlite::SqliteStore::open(support::options(dir.path()));
    let blobs: Arc<dyn Blobs> = folder.expect("the folder for bodies opens");
    let clock = TestClock::new();
    let options = Options {
        clock: Some(clock.clone()),
        lanes: 1,
        // A store that is opened again is another one: it does not wait for the first.
        letters_grace: Duration::ZERO,
        ..Options::new(server.database().await, ProjectId(Uuid::now_v7()), KEY, blobs)
    };
    let opens = Arc::new(AtomicU64::new(0));
    let open = move || -> Fut<'static, Opened> {
        let seed = SEED + opens.fetch_add(1, Ordering::SeqCst);
        let options = Options { seed: Some(seed), ..options.clone() };
        Box::pin(async move {
            let store = PostgresStore::connect(options).await.expect("the store connects");
            Opened { store: store.clone(), blobs: Some(store) }
        })
    };
    Place::new(clock, Box::new(open), dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_every_question_of_the_suite() {
    let server = Arc::new(Postgres::start().await);
    let of_it = server.clone();
    segue_testkit::store_suite::ask_all(move || {
        let server = of_it.clone();
        async move { a_place(&server).await }
    })
    .await;
}
