//! Agents that come, stay and go.

use super::draft::Draft;
use super::finish;
use crate::agent::{Agent, AgentSpec};
use crate::command::{Reject, Reply};
use crate::event::Fact;
use crate::ids::{HostId, Incarnation, InstanceId};
use rustc_hash::FxHashSet;
use std::sync::Arc;

pub(super) fn register(
    draft: &mut Draft<'_>,
    host: HostId,
    incarnation: Incarnation,
    specs: &[AgentSpec],
    lease_ms: u64,
) -> Result<Reply, Reject> {
    check(draft, host, incarnation, specs)?;
    draft.in_bulk = true;
    let known: Vec<(InstanceId, Incarnation, bool)> = draft
        .snapshot
        .agents()
        .of_host(host)
        .map(|agent| (agent.spec.instance, agent.incarnation, agent.gone))
        .collect();
    let mut changed = false;
    for (instance, life, gone) in known {
        let listed = specs.iter().any(|spec| spec.instance == instance);
        if life != incarnation {
            lose_all(draft, instance, "its host was restarted")?;
        } else if !listed && !gone {
            leave(draft, instance, "its host no longer has it")?;
            changed = true;
        }
    }
    let lease_until = draft.now().plus_ms(lease_ms);
    for spec in specs {
        let before = draft.agent(spec.instance).cloned();
        let same_life =
            before.as_ref().is_some_and(|agent| agent.incarnation == incarnation && !agent.gone);
        if !same_life {
            let fact = Fact::AgentRegistered { agent: spec.name.clone(), instance: spec.instance };
            draft.project_event(fact);
            changed = true;
        }
        draft.put_agent(Agent {
            spec: Arc::new(spec.clone()),
            host,
            incarnation,
            slots_used: before.as_ref().filter(|_| same_life).map_or(0, |agent| agent.slots_used),
            drained: before.is_some_and(|agent| agent.drained),
            lease_until,
            gone: false,
        });
    }
    forget_unlisted(draft, host, incarnation, specs);
    Ok(Reply::Done { changed })
}

fn check(
    draft: &Draft<'_>,
    host: HostId,
    incarnation: Incarnation,
    specs: &[AgentSpec],
) -> Result<(), Reject> {
    let mut instances = FxHashSet::default();
    for spec in specs {
        let AgentSpec { instance, name, .. } = spec;
        // A host that leaves takes the slots of what it has, and no others.
        let leaves = draft.agent(*instance).is_some_and(|agent| {
            agent.host == host && agent.incarnation == incarnation && !agent.gone
        });
        let has_slots = spec.max_concurrency > 0 || leaves;
        if !has_slots || name.is_empty() || name.contains(':') {
            return Err(Reject::Invalid(format!(
                "agent `{name}` cannot register: it needs a name without `:` and at least one slot"
            )));
        }
        if !instances.insert(*instance) {
            return Err(Reject::Invalid(format!(
                "agent `{name}` cannot register: its instance {instance} stands twice in the list"
            )));
        }
        let holder = draft.agent(*instance).filter(|agent| agent.host != host && !agent.gone);
        if let Some(holder) = holder {
            // Its attempts run there: they would live on the lease of the wrong host.
            return Err(Reject::Conflict(format!(
                "agent `{name}` cannot register: host {} has its instance {instance}",
                holder.host
            )));
        }
    }
    Ok(())
}

/// Instances of an earlier life that this life does not have are gone.
fn forget_unlisted(draft: &mut Draft<'_>, host: HostId, life: Incarnation, specs: &[AgentSpec]) {
    let old: Vec<Agent> = draft
        .snapshot
        .agents()
        .of_host(host)
        .filter(|agent| agent.incarnation != life && !agent.gone)
        .filter(|agent| specs.iter().all(|spec| spec.instance != agent.spec.instance))
        .cloned()
        .collect();
    for mut agent in old {
        let fact = Fact::AgentGone {
            agent: agent.spec.name.clone(),
            instance: agent.spec.instance,
            reason: "its host no longer has it".into(),
        };
        draft.project_event(fact);
        agent.gone = true;
        agent.slots_used = 0;
        draft.put_agent(agent);
    }
}

pub(super) fn renew(
    draft: &mut Draft<'_>,
    host: HostId,
    incarnation: Incarnation,
    lease_ms: u64,
) -> Result<Reply, Reject> {
    let lease_until = draft.now().plus_ms(lease_ms);
    // An instance that is gone may just have been taken off the list while the host went on: it speaks for
    // nothing, unless it is all there is.
    let (gone, here): (Vec<&Agent>, Vec<&Agent>) =
        draft.snapshot.agents().of_host(host).partition(|it| it.gone);
    if here.iter().any(|agent| agent.incarnation != incarnation) {
        return Err(Reject::Superseded(format!(
            "host {host} was registered by another process since: only one may run"
        )));
    }
    if here.is_empty() && gone.iter().any(|agent| agent.incarnation == incarnation) {
        return Err(Reject::Superseded(format!(
            "the lease of host {host} has ended: register again"
        )));
    }
    let changed = !here.is_empty();
    for agent in here {
        draft.put_agent(Agent { lease_until, ..agent.clone() });
    }
    Ok(Reply::Done { changed })
}

pub(super) fn drain(draft: &mut Draft<'_>, name: &str, drained: bool) -> Result<Reply, Reject> {
    let mut named: Vec<Agent> = draft
        .snapshot
        .agents()
        .values()
        .filter(|agent| *agent.spec.name == *name)
        .cloned()
        .collect();
    if named.is_empty() {
        return Err(Reject::Unknown { what: "agent", id: name.to_owned() });
    }
    named.retain(|agent| agent.drained != drained);
    let changed = !named.is_empty();
    for mut agent in named {
        let fact = Fact::AgentDrained {
            agent: agent.spec.name.clone(),
            instance: agent.spec.instance,
            drained,
        };
        draft.project_event(fact);
        agent.drained = drained;
        draft.put_agent(agent);
    }
    Ok(Reply::Done { changed })
}

pub(super) fn expire(
    draft: &mut Draft<'_>,
    instance: InstanceId,
    reason: &str,
) -> Result<Reply, Reject> {
    let agent = draft
        .agent(instance)
        .ok_or_else(|| Reject::Unknown { what: "agent instance", id: instance.to_string() })?;
    if agent.gone {
        return Ok(Reply::Done { changed: false });
    }
    draft.in_bulk = true;
    leave(draft, instance, reason)?;
    Ok(Reply::Done { changed: true })
}

/// An instance has gone: its attempts are lost.
pub(super) fn leave(
    draft: &mut Draft<'_>,
    instance: InstanceId,
    reason: &str,
) -> Result<(), Reject> {
    lose_all(draft, instance, reason)?;
    let Some(mut agent) = draft.agent(instance).cloned() else { return Ok(()) };
    agent.gone = true;
    agent.slots_used = 0;
    let fact =
        Fact::AgentGone { agent: agent.spec.name.clone(), instance, reason: reason.to_owned() };
    draft.project_event(fact);
    draft.put_agent(agent);
    Ok(())
}

fn lose_all(draft: &mut Draft<'_>, instance: InstanceId, reason: &str) -> Result<(), Reject> {
    let held = draft
        .snapshot
        .held(instance)
        .ok_or_else(|| Reject::NotLoaded(format!("the tasks of agent instance {instance}")))?;
    for id in held {
        finish::lose(draft, id, reason, None)?;
    }
    Ok(())
}
