//! Nodes and workers: listed, drained.

use super::error::ApiError;
use super::state::{Api, Shared};
use super::views::{ChangedView, NodeView, NodesView};
use axum::Json as Answer;
use axum::extract::{Path, State};
use segue_core::agent::Agent;
use segue_core::command::Reject;
use segue_core::ids::HostId;
use segue_core::ports::SeenNode;
use segue_core::workflow::did_you_mean;
use std::collections::BTreeMap;

/// Characters of what a node says of its trouble, at most.
const TROUBLE_MAX: usize = 500;

/// Whoever told of itself, as far as that is known at this moment.
async fn seen(api: &Api) -> BTreeMap<HostId, SeenNode> {
    let Some(engine) = &api.engine else { return BTreeMap::new() };
    match engine.parts().presence.everybody().await {
        Ok(everybody) => everybody.nodes,
        Err(error) => {
            tracing::debug!(%error, "nobody tells who is there");
            BTreeMap::new()
        }
    }
}

/// The names of nodes and workers.
pub async fn names(api: &Api) -> BTreeMap<HostId, String> {
    let seen = seen(api).await.into_iter();
    seen.map(|(host, node)| (host, node.beat.name.to_string())).collect()
}

/// `GET /v1/nodes`
pub async fn list(State(api): State<Shared>) -> Result<Answer<NodesView>, ApiError> {
    Ok(Answer(NodesView { nodes: nodes(&api).await? }))
}

async fn nodes(api: &Api) -> Result<Vec<NodeView>, ApiError> {
    let seen = seen(api).await;
    let agents = api.store().agents().await?;
    let now = api.store().now();
    let mut by_host: BTreeMap<HostId, Vec<&Agent>> = BTreeMap::new();
    for agent in agents.iter().filter(|agent| !agent.gone) {
        by_host.entry(agent.host).or_default().push(agent);
    }
    for host in seen.keys() {
        by_host.entry(*host).or_default();
    }
    let mut views: Vec<NodeView> = by_host
        .into_iter()
        .map(|(host, agents)| {
            let known = seen.get(&host);
            let is_leased = agents.iter().any(|agent| agent.lease_until > now);
            let leaves =
                !agents.is_empty() && agents.iter().all(|agent| agent.spec.max_concurrency == 0);
            let status = match known {
                Some(node) if node.beat.draining || leaves => "draining",
                Some(_) => "up",
                None if leaves => "draining",
                None if is_leased => "silent",
                None => "gone",
            };
            let mut names: Vec<String> =
                agents.iter().map(|agent| agent.spec.name.to_string()).collect();
            names.sort();
            NodeView {
                name: known.map_or_else(|| host.to_string(), |node| node.beat.name.to_string()),
                roles: known.map_or_else(Vec::new, |node| {
                    node.beat.roles.iter().map(ToString::to_string).collect()
                }),
                status: status.to_owned(),
                machine: known.map(|node| node.beat.machine.to_string()),
                version: known.map(|node| node.beat.version.to_string()),
                agents: names,
                slots_used: agents.iter().map(|agent| agent.slots_used).sum(),
                slots: agents.iter().map(|agent| agent.spec.max_concurrency).sum(),
                silent_ms: known.map(|node| node.silent_ms),
                trouble: match &api.engine {
                    // Known at once, and also where nobody can tell the others.
                    Some(engine) if host == api.project.host => engine.parts().bus.trouble(),
                    Some(_) | None => known
                        .and_then(|node| node.beat.trouble.as_deref())
                        .map(|trouble| trouble.chars().take(TROUBLE_MAX).collect()),
                },
                host: host.to_string(),
                here: host == api.project.host,
            }
        })
        .collect();
    views.sort_by(|a, b| (&a.name, &a.host).cmp(&(&b.name, &b.host)));
    Ok(views)
}

/// `POST /v1/nodes/{name}/drain`
pub async fn drain(
    State(api): State<Shared>,
    Path(name): Path<String>,
) -> Result<Answer<ChangedView>, ApiError> {
    let nodes = nodes(&api).await?;
    let found: Vec<&NodeView> =
        nodes.iter().filter(|node| node.name == name || node.host == name).collect();
    let node = match found[..] {
        [node] => node,
        [] => {
            let hint = did_you_mean(&name, nodes.iter().map(|node| node.name.as_str()));
            let error: ApiError = Reject::Unknown { what: "node", id: name }.into();
            return Err(
                error.hint(hint.unwrap_or_else(|| "`segue nodes` shows who there is".into()))
            );
        }
        _ => {
            let message =
                format!("{} nodes are called `{name}`: name one by its host id", found.len());
            return Err(ApiError::invalid(message));
        }
    };
    let Some(engine) = &api.engine else {
        return Err(ApiError::invalid("no node runs here that could drain another one")
            .hint("start one with `segue up`, or name one with --node"));
    };
    if node.agents.is_empty() {
        return Err(ApiError::invalid(format!("`{name}` has no agents to drain"))
            .hint("end its process with SIGTERM: it hands over and goes"));
    }
    let host = node.host.parse().map_err(|_| ApiError::invalid("the host id is damaged"))?;
    let was_draining = node.status == "draining";
    if !was_draining {
        engine.drain_host(host).await?;
    }
    Ok(Answer(ChangedView { id: name, changed: !was_draining }))
}
