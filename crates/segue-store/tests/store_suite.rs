//! The questions of the testkit, asked of SQLite in a folder: with threads of its own, and on the caller's thread.

use segue_core::ids::ProjectId;
use segue_core::ports::Fut;
use segue_store::sqlite::{Options, SqliteStore, Sync, Threads};
use segue_testkit::store_suite::{KEY, Opened, Place, SEED, TestClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

fn a_place(threads: Threads) -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = TestClock::new();
    let options = Options {
        clock: clock.clone(),
        sync: Sync::Off,
        threads,
        ..Options::new(dir.path(), ProjectId(Uuid::now_v7()), KEY)
    };
    let opens = Arc::new(AtomicU64::new(0));
    let open = move || -> Fut<'static, Opened> {
        let seed = SEED + opens.fetch_add(1, Ordering::SeqCst);
        let store = SqliteStore::open(Options { seed: Some(seed), ..options.clone() });
        let store = store.expect("the store opens");
        Box::pin(std::future::ready(Opened { store: store.clone(), blobs: Some(store) }))
    };
    Place::new(clock, Box::new(open), dir)
}

mod with_threads {
    segue_testkit::store_suite!(super::a_place(segue_store::sqlite::Threads::Own { readers: 2 }));
}

mod on_the_callers_thread {
    segue_testkit::store_suite!(super::a_place(segue_store::sqlite::Threads::Callers));
}
