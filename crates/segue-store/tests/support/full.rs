//! A store with something of everything in it, and all that it tells.

use super::{accept, register, spec, submit};
use parking_lot::Mutex;
use segue_core::command::Command;
use segue_core::outcome::Outcome;
use segue_core::payload::{DATABASE_MAX, Payload};
use segue_core::ports::{Blobs, EventFilter, Store, TaskFilter};
use segue_core::state::{Policy, Put, StateCommand};
use segue_core::task::ErrorClass;
use segue_store::sqlite::SqliteStore;
use segue_testkit::store_suite::{delegated, deletion, put, state, text_of, work, write};
use std::io::Write;
use std::sync::Arc;

/// Rows in every table, and bodies of every size.
pub async fn fill(store: &SqliteStore) {
    let assign = register(store, "a", 20).await;
    let mut sizes = vec![10, 10_000, DATABASE_MAX + 1, 300_000];
    sizes.extend([40; 8]);
    for size in sizes {
        let input = store.put(text_of(size).into_bytes()).await.expect("is kept");
        let mut task = spec("a");
        task.idempotency_key = Some(format!("key {}", task.id).into());
        let new = segue_core::command::NewTask { spec: task, input };
        let tasks = vec![new];
        accept(store, vec![Command::Submit(segue_core::command::Submit { tasks })]).await;
    }
    let effects = accept(store, vec![assign]).await;
    let work = work(&effects[0].letters);
    let output = store.put(text_of(5_000).into_bytes()).await.expect("is kept");
    let park = Outcome::Delegate {
        tasks: vec![delegated("one", "a"), delegated("two", "b")],
        resume: true,
        continuation: Some(Payload::of_text("\"\\u0000 and \u{1f680}\"").expect("JSON")),
    };
    let batch = vec![
        work[0].start(store.now()),
        work[0].end(Outcome::Complete { output }),
        work[1].fail(ErrorClass::Transient),
        work[2].fail(ErrorClass::Permanent),
        work[3].end(park),
        Command::Cancel { task: work[4].task, reason: "enough".into() },
        Command::Settle { letters: vec![work[0].seq, work[1].seq] },
    ];
    accept(store, batch).await;
    let mut waiting = spec("a");
    waiting.needs =
        vec![segue_core::task::Need { task: work[5].task, name: None, order_only: true }];
    waiting.template = Some(Box::new(segue_core::task::Template {
        for_each: Some("input".into()),
        ..Default::default()
    }));
    let mut render = spec("b");
    render.template.clone_from(&waiting.template);
    accept(store, vec![submit(vec![waiting]), submit(vec![render])]).await;
    fill_state(store).await;
}

/// Keys with values of every size, deletions, a policy, and locks.
async fn fill_state(store: &SqliteStore) {
    for size in [10, 10_000, DATABASE_MAX + 1] {
        let value = store.put(text_of(size).into_bytes()).await.expect("is kept");
        let key = format!("plan/{size}");
        let put = Put { value: Some(value), ..put(&key, "1") };
        accept(store, vec![write(put), write(deletion("plan/10"))]).await;
    }
    let policy = StateCommand::SetPolicy { pattern: "plan/*".into(), policy: Some(Policy::Merge) };
    let (name, holder) = ("deploy".into(), "somebody".into());
    let lock = StateCommand::Lock { name, holder, ttl_ms: 60_000 };
    accept(store, vec![state(policy), state(lock)]).await;
}

/// Everything that a store tells through its port, bodies included.
pub async fn everything(store: &SqliteStore) -> Vec<String> {
    let filter = TaskFilter { limit: usize::MAX, ..TaskFilter::default() };
    let mut all = Vec::new();
    for task in store.tasks(filter).await.expect("reads") {
        all.push(format!("{task:?}"));
        for payload in [Some(&task.input), task.output.as_ref()].into_iter().flatten() {
            if payload.text().is_none() {
                let body = store.get(payload.hash()).await.expect("is there");
                all.push(format!("{} bytes", body.len()));
            }
        }
        all.push(format!("{:?}", store.attempts(task.id()).await.expect("reads")));
    }
    let filter = EventFilter { limit: usize::MAX, ..EventFilter::default() };
    all.push(format!("{:#?}", store.events(filter).await.expect("reads")));
    all.push(format!("{:#?}", store.unsent(0, usize::MAX).await.expect("reads")));
    all.push(format!("{:#?}", store.duties(usize::MAX).await.expect("reads")));
    all.push(format!("{:?}", store.agents().await.expect("reads")));
    all.push(format!("{:?}", store.counts().await.expect("reads")));
    all.push(format!("{:?}", store.next_due().await.expect("reads")));
    for version in store.state_changes("".into(), 0, usize::MAX).await.expect("reads") {
        all.push(format!("{version:?}"));
        if let Some(value) = version.value.filter(|value| value.text().is_none()) {
            let body = store.get(value.hash()).await.expect("is there");
            all.push(format!("{} bytes", body.len()));
        }
    }
    all.push(format!("{:?}", store.state_list("".into(), None, usize::MAX).await.expect("reads")));
    all.push(format!("{:?}", store.state_policies().await.expect("reads")));
    all.push(format!("{:?}", store.locks(None, usize::MAX).await.expect("reads")));
    all.push(format!("{:?}", store.state_stamp().await.expect("reads")));
    all
}

/// A restored store tells what it told when the backup was made, and issues no number again that may have been issued after it.
pub async fn is_restored(store: &SqliteStore, told: &[String], exported: &[u8]) {
    const JUMP: u64 = 1 << 32;
    let mut after = everything(store).await;
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (stamp, jumped) = (told.last().expect("it is told"), after.pop().expect("it is told"));
    assert_eq!(after, told[..told.len() - 1]);
    assert_eq!(number(&jumped), number(stamp) + JUMP);
    assert_eq!(store.audit().await, Ok(Vec::new()));
    let next = |exported: &[u8]| {
        let text = std::str::from_utf8(exported).expect("UTF-8");
        let line = text.lines().find(|line| line.starts_with("{\"counters\"")).expect("is there");
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        ["next_cursor", "next_letter", "next_task"]
            .map(|name| row["counters"][name].as_u64().expect("a number"))
    };
    assert_eq!(next(&export(store).await), next(exported).map(|number| number + JUMP));
    let filter = EventFilter { limit: usize::MAX, ..EventFilter::default() };
    let last = store.events(filter.clone()).await.expect("reads").last().expect("some").cursor;
    accept(store, vec![submit(vec![spec("a")])]).await;
    let new = store.events(filter).await.expect("reads").last().expect("some").cursor;
    assert!(new >= last + JUMP, "{last} {new}");
    assert_eq!(store.audit().await, Ok(Vec::new()));
}

/// Collects what is written to it.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All of its rows and bodies, as they are exported.
pub async fn export(store: &SqliteStore) -> Vec<u8> {
    let sink = Sink::default();
    store.export(sink.clone()).await.expect("exports");
    let bytes = sink.0.lock();
    bytes.clone()
}
