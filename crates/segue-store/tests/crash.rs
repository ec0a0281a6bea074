//! The process ends in the middle of its work, or the power does: what was answered is there, and nothing by halves.

mod support;

use segue_core::command::Command;
use segue_core::ids::TaskId;
use segue_core::ports::{EventFilter, Store};
use segue_store::sqlite::SqliteStore;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use support::*;

/// Children that are killed.
const KILLS: usize = 5;
/// Tasks in one submit of the child.
const GRAPH: usize = 3;

/// Plays the child: four callers submit graphs, assign and complete, and say on their standard output what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let store = open(&dir);
    let assign = register(store.as_ref(), "a", 50).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        callers.spawn(write_for_ever(store.clone(), assign.clone()));
    }
    panic!("a caller ended by itself: {:?}", callers.join_next().await);
}

async fn write_for_ever(store: Arc<SqliteStore>, assign: Command) {
    loop {
        let specs: Vec<_> = (0..GRAPH).map(|_| spec("a")).collect();
        let first = specs[0].id;
        accept(store.as_ref(), vec![submit(specs), assign.clone()]).await;
        let mut out = std::io::stdout().lock();
        // Whoever reads may be gone.
        let _ = writeln!(out, "answered {first}").and_then(|()| out.flush());
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut answered = BTreeSet::new();
    for round in 0..KILLS {
        let mut process =
            child("child_that_writes_until_it_is_killed", dir.path()).spawn().expect("starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut wanted = 7 + 31 * round;
        let mut lines = lines.map_while(Result::ok);
        while wanted > 0 {
            let line = lines.next().expect("the child goes on until it is killed");
            if let Some((_, id)) = line.split_once("answered ") {
                answered.insert(id.trim().parse::<TaskId>().expect("an id"));
                wanted -= 1;
            }
        }
        kill(process);
        // What it had said before it was killed and nobody had read yet was answered as well.
        for line in lines {
            if let Some((_, id)) = line.split_once("answered ")
                && let Ok(id) = id.trim().parse::<TaskId>()
            {
                answered.insert(id);
            }
        }
        check(dir.path(), &answered).await;
    }
}

async fn check(dir: &std::path::Path, answered: &BTreeSet<TaskId>) {
    assert_eq!(integrity(dir), "ok");
    let store = open(dir);
    let tasks: BTreeSet<TaskId> = all_tasks(store.as_ref()).await.into_iter().collect();
    assert!(answered.is_subset(&tasks), "every answered submit is there");
    assert_eq!(tasks.len() % GRAPH, 0, "no submit by halves");
    let filter = EventFilter { limit: usize::MAX, ..EventFilter::default() };
    segue_testkit::store_suite::check_log(&store.events(filter).await.expect("reads"));
    // Every task that was assigned has its letter, and no other has one.
    let letters = store.unsent(0, usize::MAX).await.expect("reads");
    let given: BTreeSet<TaskId> = letters.iter().filter_map(|letter| letter.task).collect();
    let counts = store.counts().await.expect("reads");
    let assigned = counts.get(&segue_core::task::TaskState::Assigned).copied().unwrap_or(0);
    assert_eq!(given.len() as u64, assigned);
    assert_eq!(letters.len() as u64, assigned);
    assert_eq!(counts.values().sum::<u64>(), tasks.len() as u64);
    let held: u32 = store.agents().await.expect("reads").iter().map(|agent| agent.slots_used).sum();
    assert_eq!(u64::from(held), assigned, "slots are held by what is assigned");
}

/// However much of the log reached the disk: a beginning of the history is there, batch by batch.
#[tokio::test]
async fn a_log_cut_anywhere_holds_whole_batches() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut history = Vec::new();
    for _ in 0..20 {
        let specs: Vec<_> = (0..GRAPH).map(|_| spec("a")).collect();
        history.push(specs[0].id);
        accept(store.as_ref(), vec![submit(specs)]).await;
    }
    let (file, log) = (dir.path().join("segue.db"), dir.path().join("segue.db-wal"));
    let (file, log) = (fs::read(file).expect("reads"), fs::read(log).expect("reads"));
    drop(store);
    assert!(log.len() > 20 * 4096, "the history is in the log: {}", log.len());
    let mut found = BTreeSet::new();
    for cut in (0..=40).map(|part| log.len() * part / 40) {
        // A torn page at the end: its first half is there, and then garbage.
        let mut torn = log[..cut].to_vec();
        torn.extend(std::iter::repeat_n(0xa5, 700));
        let place = tempfile::tempdir().expect("a folder");
        fs::write(place.path().join("segue.db"), &file).expect("writes");
        fs::write(place.path().join("segue.db-wal"), &torn).expect("writes");
        if cut < log.len() / 2 && file.is_empty() {
            continue;
        }
        let Ok(store) = SqliteStore::open(options(place.path())) else {
            panic!("a torn log is no damage: cut at {cut}");
        };
        let tasks: BTreeSet<TaskId> = all_tasks(store.as_ref()).await.into_iter().collect();
        let batches = history.iter().filter(|id| tasks.contains(id)).count();
        assert_eq!(tasks.len(), batches * GRAPH, "whole batches, cut at {cut}");
        assert!(history[..batches].iter().all(|id| tasks.contains(id)), "a beginning");
        found.insert(batches);
        drop(store);
        assert_eq!(integrity(place.path()), "ok");
    }
    assert!(found.contains(&20) && found.len() > 5, "the cuts fell in many places: {found:?}");
}
