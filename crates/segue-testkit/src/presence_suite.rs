//! What every directory across nodes is asked, whichever adapter stands behind it: `presence_suite::ask_all(|| a_rig(&server)).await`.
//!
//! Each question has a rig of its own, so a rig of an adapter with a server brings its own prefix.

mod bounds;
mod seen;

pub use bounds::{
    many_nodes_tell_at_once, names_of_every_kind_are_kept_apart, ten_thousand_are_told_and_read,
};
pub use seen::{
    after_it_forgot_everything_the_next_beat_brings_it_back, everybody_is_seen_as_they_were_told,
    health_is_the_product_of_what_nodes_say, of_two_words_the_later_stays,
    who_can_do_something_is_found, who_is_silent_is_forgotten, who_leaves_is_forgotten_at_once,
};

use crate::keeper_rig::KeeperOf;
use crate::questions::ask_each;
use segue_core::ids::{HostId, InstanceId};
use segue_core::ports::{Beat, Everybody, InstanceBeat, NodeBeat, Presence};
use segue_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// A directory with nobody in it, and the ways around the port that a suite needs.
pub trait PresenceRig: KeeperOf<dyn Presence> {
    /// How long it remembers whom nobody heard of, in milliseconds.
    fn ttl_ms(&self) -> u64;
}

/// Asks every question in one test, each on a rig of its own that `make` makes.
///
/// # Panics
/// At the end, naming every question that was answered wrongly.
pub async fn ask_all<R: PresenceRig, F: Future<Output = R>>(
    make: impl Fn() -> F + Send + Sync + 'static,
) {
    ask_each!(make:
        everybody_is_seen_as_they_were_told,
        of_two_words_the_later_stays,
        who_is_silent_is_forgotten,
        who_leaves_is_forgotten_at_once,
        who_can_do_something_is_found,
        health_is_the_product_of_what_nodes_say,
        after_it_forgot_everything_the_next_beat_brings_it_back,
        ten_thousand_are_told_and_read,
        many_nodes_tell_at_once,
        names_of_every_kind_are_kept_apart,
    );
}

fn host(number: u128) -> HostId {
    HostId(Uuid::from_u128(number))
}

fn instance(number: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(number))
}

/// An instance on a node, as the node tells of it.
fn said(number: u128, node: HostId, capabilities: &[&str]) -> InstanceBeat {
    InstanceBeat {
        instance: instance(number),
        host: node,
        node,
        name: format!("agent-{number}").into(),
        capabilities: capabilities.iter().map(|name| (*name).into()).collect(),
        delegates: number.is_multiple_of(2),
        load: 0.25,
        silent_ms: 0,
    }
}

fn node_beat(node: HostId) -> NodeBeat {
    NodeBeat {
        node,
        name: "left".into(),
        machine: "laptop".into(),
        version: "0.1.0".into(),
        started: Time(1_700_000_000_123),
        roles: vec!["node".into()],
        address: Some("127.0.0.1:7777".into()),
        load: 0.5,
        draining: false,
        trouble: None,
    }
}

fn beat(from: HostId, instances: Vec<InstanceBeat>) -> Beat {
    Beat { from, node: None, instances, health: BTreeMap::new() }
}

async fn tell(presence: &Arc<dyn Presence>, beat: Beat) {
    presence.beat(beat).await.expect("a beat is taken");
}

async fn look(presence: &Arc<dyn Presence>) -> Everybody {
    presence.everybody().await.expect("a directory is read")
}

fn numbers(everybody: &Everybody) -> Vec<u128> {
    everybody.instances.keys().map(|instance| instance.0.as_u128()).collect()
}

async fn found(presence: &Arc<dyn Presence>, capability: &str) -> Vec<u128> {
    let found = presence.capable(capability).await.expect("a directory is searched");
    found.iter().map(|seen| seen.beat.instance.0.as_u128()).collect()
}
