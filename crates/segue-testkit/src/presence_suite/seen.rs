//! Who is seen, and for how long.

use super::{PresenceRig, beat, found, host, instance, look, node_beat, numbers, said, tell};
use segue_core::ports::{Beat, InstanceBeat};
use std::collections::BTreeMap;

/// What one node tells another one reads, every word of it.
pub async fn everybody_is_seen_as_they_were_told(rig: &dyn PresenceRig) {
    let (here, there) = (rig.connect().await, rig.connect().await);
    assert_eq!(look(&there).await, segue_core::ports::Everybody::default());
    let words = vec![said(1, host(100), &["review", "test"]), said(2, host(100), &[])];
    let node = node_beat(host(100));
    let health = BTreeMap::from([(instance(2), 0.5)]);
    tell(
        &here,
        Beat { from: host(100), node: Some(node.clone()), instances: words.clone(), health },
    )
    .await;
    tell(&there, beat(host(200), vec![said(3, host(200), &["review"])])).await;

    let everybody = look(&there).await;
    assert_eq!(numbers(&everybody), [1, 2, 3]);
    for word in words {
        let seen = &everybody.instances[&word.instance];
        assert!(seen.beat.silent_ms < rig.ttl_ms());
        assert_eq!(InstanceBeat { silent_ms: 0, ..seen.beat.clone() }, word);
    }
    assert_eq!(everybody.instances[&instance(1)].health, 1.0);
    assert_eq!(everybody.instances[&instance(2)].health, 0.5);
    assert_eq!(everybody.nodes.len(), 1, "a node that says nothing of itself is not listed");
    assert_eq!(everybody.nodes[&host(100)].beat, node);
    assert_eq!(look(&here).await.instances.len(), 3);
}

/// What is passed on is no younger for it: the word of whoever heard of an instance later counts.
pub async fn of_two_words_the_later_stays(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let old = InstanceBeat { silent_ms: rig.ttl_ms() / 2, load: 0.9, ..said(1, host(100), &[]) };
    let new = InstanceBeat { node: host(200), ..said(1, host(100), &[]) };
    tell(&presence, beat(host(100), vec![old.clone()])).await;
    let seen = look(&presence).await;
    assert!(seen.instances[&instance(1)].beat.silent_ms >= rig.ttl_ms() / 2);
    tell(&presence, beat(host(200), vec![new])).await;
    tell(&presence, beat(host(100), vec![old])).await;
    let seen = look(&presence).await;
    assert_eq!(seen.instances[&instance(1)].beat.node, host(200));
    assert_eq!(seen.instances[&instance(1)].beat.load, 0.25);
}

/// Instances, nodes and what they say of health last as long as the time to live.
pub async fn who_is_silent_is_forgotten(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let health = BTreeMap::from([(instance(2), 0.5)]);
    let from = host(100);
    let instances = vec![said(1, from, &["review"]), said(2, from, &["review"])];
    tell(&presence, Beat { from, node: Some(node_beat(from)), instances, health }).await;
    // One that was silent for longer than that already when it was told of.
    let bygone = InstanceBeat { silent_ms: rig.ttl_ms() + 1, ..said(3, from, &["review"]) };
    tell(&presence, beat(host(200), vec![bygone])).await;
    assert_eq!(numbers(&look(&presence).await), [1, 2]);
    assert_eq!(found(&presence, "review").await, [1, 2]);

    rig.pass(rig.ttl_ms() / 2).await;
    tell(&presence, beat(host(200), vec![said(2, from, &["review"])])).await;
    rig.pass(rig.ttl_ms() / 2 + 1).await;
    let everybody = look(&presence).await;
    assert_eq!(numbers(&everybody), [2]);
    assert!(everybody.nodes.is_empty(), "{:?}", everybody.nodes);
    assert!(everybody.health.is_empty(), "{:?}", everybody.health);
    assert_eq!(everybody.instances[&instance(2)].health, 1.0);
    assert_eq!(found(&presence, "review").await, [2]);

    rig.pass(rig.ttl_ms()).await;
    assert_eq!(look(&presence).await, segue_core::ports::Everybody::default());
    // And it is there again as soon as somebody hears of it.
    tell(&presence, beat(from, vec![said(1, from, &["review"])])).await;
    assert_eq!(found(&presence, "review").await, [1]);
}

/// An instance that was removed, and a node that left, are not waited for.
pub async fn who_leaves_is_forgotten_at_once(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let from = host(100);
    let health = BTreeMap::from([(instance(2), 0.5)]);
    let instances = vec![said(1, from, &["a"]), said(2, from, &["a"])];
    tell(&presence, Beat { from, node: Some(node_beat(from)), instances, health }).await;
    presence.remove(vec![instance(1), instance(77)]).await.unwrap();
    presence.remove(Vec::new()).await.unwrap();
    assert_eq!(numbers(&look(&presence).await), [2]);
    assert_eq!(found(&presence, "a").await, [2]);
    presence.leave(from).await.unwrap();
    presence.leave(host(300)).await.unwrap();
    let everybody = look(&presence).await;
    assert!(everybody.nodes.is_empty());
    assert!(everybody.health.is_empty());
    assert_eq!(numbers(&everybody), [2], "its agents may be hosted elsewhere: they stay");
}

/// Search by capability follows what was said last.
pub async fn who_can_do_something_is_found(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let from = host(100);
    assert!(found(&presence, "review").await.is_empty());
    let both = ["review", "test"];
    tell(&presence, beat(from, vec![said(2, from, &both), said(1, from, &["review"])])).await;
    tell(&presence, beat(from, vec![said(3, from, &["test", "test"]), said(4, from, &[])])).await;
    assert_eq!(found(&presence, "review").await, [1, 2]);
    assert_eq!(found(&presence, "test").await, [2, 3]);
    assert!(found(&presence, "rev").await.is_empty());

    tell(&presence, beat(from, vec![said(2, from, &["test"])])).await;
    assert_eq!(found(&presence, "review").await, [1]);
    assert_eq!(found(&presence, "test").await, [2, 3]);
    let seen = presence.capable("test").await.unwrap();
    assert_eq!(&*seen[0].beat.name, "agent-2");
    tell(&presence, beat(from, vec![said(2, from, &both)])).await;
    assert_eq!(found(&presence, "review").await, [1, 2]);
}

/// Each node has seen a part of the failures.
pub async fn health_is_the_product_of_what_nodes_say(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let tells = |from: u128, health: &[(u128, f32)]| Beat {
        from: host(from),
        node: None,
        instances: vec![said(1, host(100), &["a"])],
        health: health.iter().map(|(number, health)| (instance(*number), *health)).collect(),
    };
    tell(&presence, tells(100, &[(1, 0.5), (9, 0.1)])).await;
    tell(&presence, tells(200, &[(1, 0.5)])).await;
    let everybody = look(&presence).await;
    assert_eq!(everybody.instances[&instance(1)].health, 0.25);
    assert_eq!(everybody.health_but(host(100)), [(instance(1), 0.5)].into());
    assert_eq!(everybody.health[&host(100)][&instance(9)], 0.1);
    assert_eq!(presence.capable("a").await.unwrap()[0].health, 0.25);

    // What a node says replaces what it said, and nothing said is well.
    tell(&presence, tells(100, &[])).await;
    let everybody = look(&presence).await;
    assert_eq!(everybody.instances[&instance(1)].health, 0.5);
    assert!(!everybody.health.contains_key(&host(100)));
}

/// Nobody has to notice that everything was lost.
pub async fn after_it_forgot_everything_the_next_beat_brings_it_back(rig: &dyn PresenceRig) {
    let presence = rig.connect().await;
    let from = host(100);
    let health = BTreeMap::from([(instance(1), 0.5)]);
    let instances = vec![said(1, from, &["a"]), said(2, from, &["b"])];
    let word = Beat { from, node: Some(node_beat(from)), instances, health };
    tell(&presence, word.clone()).await;
    let before = look(&presence).await;
    rig.forget().await;
    assert_eq!(look(&presence).await, segue_core::ports::Everybody::default());
    assert!(found(&presence, "a").await.is_empty());
    tell(&presence, word).await;
    let after = look(&presence).await;
    assert_eq!(numbers(&after), numbers(&before));
    assert_eq!(after.health, before.health);
    assert_eq!(after.nodes[&from].beat, before.nodes[&from].beat);
    assert_eq!(found(&presence, "b").await, [2]);
}
