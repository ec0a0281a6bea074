//! Many, and odd ones.

use super::{PresenceRig, beat, found, host, look, numbers, said, tell};
use futures_util::future::join_all;
use segue_core::ports::InstanceBeat;
use std::time::Instant;

/// A directory of ten thousand is told in one beat and read in one look.
pub async fn ten_thousand_are_told_and_read(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let from = host(100);
    let words: Vec<InstanceBeat> = (0..10_000)
        .map(|number| said(number, from, &["all", if number % 100 == 0 { "few" } else { "most" }]))
        .collect();
    let told = Instant::now();
    tell(&presence, beat(from, words)).await;
    let read = Instant::now();
    let everybody = look(&presence).await;
    eprintln!("10,000 told in {:?}, read in {:?}", read - told, read.elapsed());
    assert_eq!(numbers(&everybody), (0..10_000).collect::<Vec<u128>>());
    assert_eq!(found(&presence, "few").await, (0..10_000).step_by(100).collect::<Vec<u128>>());
    assert_eq!(found(&presence, "all").await.len(), 10_000);
}

/// Nodes tell at the same time, each of its own and of the same ones.
pub async fn many_nodes_tell_at_once(rig: &dyn PresenceRig) {
    let nodes = (0..8).map(|node| async move {
        let presence = rig.connect().await;
        for round in 0..10_u128 {
            let own = node * 1_000 + round;
            let words = vec![said(own, host(node), &["a"]), said(99_999, host(node), &["a", "b"])];
            tell(&presence, beat(host(node), words)).await;
        }
    });
    join_all(nodes).await;
    let presence = rig.connect().await;
    assert_eq!(look(&presence).await.instances.len(), 81);
    assert_eq!(found(&presence, "b").await, [99_999]);
    assert_eq!(found(&presence, "a").await.len(), 81);
}

/// Names are data.
pub async fn names_of_every_kind_are_kept_apart(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let long = "x".repeat(1_000);
    let names = ["a:b", "a b", "}", "{x}", "*", "\n", "ü\u{1F600}", "", &long];
    for (number, name) in (0..).zip(names) {
        let word = InstanceBeat { name: name.into(), ..said(number, host(100), &[name]) };
        tell(&presence, beat(host(100), vec![word])).await;
    }
    for (number, name) in (0..).zip(names) {
        assert_eq!(found(&presence, name).await, [number], "{name:?}");
    }
    let everybody = look(&presence).await;
    assert!(everybody.instances.values().map(|seen| &*seen.beat.name).eq(names));
}
