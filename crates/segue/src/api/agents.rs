//! Agents: listed, found, drained.

use super::error::ApiError;
use super::extract::Json;
use super::state::{Api, Shared};
use super::tasks::changed;
use super::views::{AgentView, AgentsView, ChangedView, FoundAgent, FoundView};
use axum::Json as Answer;
use axum::extract::{Path, State};
use segue_core::agent::Agent;
use segue_core::command::{Command, Reject};
use segue_core::discover::{Entry, Index};
use segue_core::workflow::did_you_mean;
use serde::{Deserialize, Serialize};

/// `GET /v1/agents`
pub async fn list(State(api): State<Shared>) -> Result<Answer<AgentsView>, ApiError> {
    let notices = api.sound_roster()?.notices.clone();
    Ok(Answer(AgentsView { agents: everybody(&api).await?, notices }))
}

/// Everybody: those that are there, and those that are defined and no node hosts.
async fn everybody(api: &Api) -> Result<Vec<AgentView>, ApiError> {
    let roster = api.sound_roster()?;
    let known = api.store().agents().await?;
    let mut views: Vec<AgentView> = Vec::new();
    if api.engine.is_some() || api.project.cluster.is_some() {
        let nodes = super::nodes::names(api).await;
        for agent in known.iter().filter(|agent| !agent.gone) {
            let is_here = agent.host == api.project.host;
            let source = roster.source(&agent.spec.name).filter(|_| is_here);
            let node =
                api.project.cluster.as_ref().map(|_| {
                    nodes.get(&agent.host).cloned().unwrap_or_else(|| agent.host.to_string())
                });
            views.push(AgentView { node, ..present(api, agent, source) });
        }
    }
    for member in &roster.members {
        if views.iter().all(|view| view.name != member.spec.name.as_ref()) {
            let mut view = AgentView::offline(&member.spec, Some(member.source.clone()));
            if known
                .iter()
                .any(|agent| agent.drained && agent.spec.instance == member.spec.instance)
            {
                view.status = "maintenance".to_owned();
            }
            views.push(view);
        }
    }
    views.sort_by(|a, b| (&a.name, &a.instance).cmp(&(&b.name, &b.instance)));
    Ok(views)
}

fn present(api: &Api, agent: &Agent, source: Option<String>) -> AgentView {
    let known = api.engine.as_ref().and_then(|engine| engine.directory.known(agent.spec.instance));
    AgentView {
        status: agent.status().as_str().to_owned(),
        slots_used: agent.slots_used,
        health: known.map(|known| known.health),
        load: known.map(|known| known.load),
        silent_ms: known.map(|known| u64::try_from(known.silent.as_millis()).unwrap_or(u64::MAX)),
        ..AgentView::offline(&agent.spec, source)
    }
}

/// Whom to find.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Finding {
    /// What is to be done, in words.
    pub text: Option<String>,
    /// Only agents that declare this capability.
    pub capability: Option<String>,
    /// At most so many; 10 where absent.
    pub limit: Option<usize>,
}

/// Found agents of an answer unless the request says otherwise.
const FOUND: usize = 10;
/// Longest query in bytes.
const QUERY_MAX: usize = 10_000;

/// `POST /v1/agents/find`
pub async fn find(
    State(api): State<Shared>,
    Json(finding): Json<Finding>,
) -> Result<Answer<FoundView>, ApiError> {
    let text = finding.text.unwrap_or_default();
    if text.len() > QUERY_MAX {
        return Err(ApiError::invalid(format!("`text` has at most {QUERY_MAX} bytes")));
    }
    if text.trim().is_empty() && finding.capability.is_none() {
        return Err(ApiError::invalid("say whom to find: by `text`, or by `capability`"));
    }
    let limit = finding.limit.unwrap_or(FOUND);
    let mut agents = everybody(&api).await?;
    let has = |agent: &AgentView, name: &str| {
        agent.capabilities.iter().any(|capability| capability.name == name)
    };
    if let Some(capability) = &finding.capability {
        agents.retain(|agent| has(agent, capability));
    }
    let exact = finding.capability.as_deref().unwrap_or(text.trim());
    let mut found: Vec<FoundAgent> = Vec::new();
    for agent in agents.iter().filter(|agent| has(agent, exact)) {
        let agent = agent.clone();
        found.push(FoundAgent {
            score: 1.0,
            by: "capability".into(),
            matched: vec![exact.into()],
            agent,
        });
    }
    if !text.trim().is_empty() {
        by_text(&agents, &text, limit, &mut found);
    }
    // Those that can take work come first among equals.
    found.sort_by(|a, b| {
        let free = |found: &FoundAgent| found.agent.status == "available";
        b.score.total_cmp(&a.score).then(free(b).cmp(&free(a)))
    });
    found.truncate(limit);
    Ok(Answer(FoundView { found }))
}

/// Adds those that the words of the query fit.
fn by_text(agents: &[AgentView], text: &str, limit: usize, found: &mut Vec<FoundAgent>) {
    let capabilities: Vec<Vec<(&str, &str)>> = agents
        .iter()
        .map(|agent| {
            let of = agent.capabilities.iter();
            of.map(|can| (can.name.as_str(), can.description.as_str())).collect()
        })
        .collect();
    let entries: Vec<Entry<'_>> = agents
        .iter()
        .zip(&capabilities)
        .map(|(agent, capabilities)| Entry {
            name: &agent.name,
            description: &agent.description,
            capabilities,
        })
        .collect();
    for hit in Index::new(&entries).rank(text, limit) {
        let Some(agent) = agents.get(hit.index) else { continue };
        if found.iter().any(|known| known.agent.instance == agent.instance) {
            continue;
        }
        found.push(FoundAgent {
            score: hit.score,
            by: "text".into(),
            matched: hit.matched,
            agent: agent.clone(),
        });
    }
}

/// Whether an agent is to take no new work.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draining {
    #[serde(default = "yes")]
    drained: bool,
}

fn yes() -> bool {
    true
}

/// `POST /v1/agents/{name}/drain`
pub async fn drain(
    State(api): State<Shared>,
    Path(name): Path<String>,
    Json(draining): Json<Draining>,
) -> Result<Answer<ChangedView>, ApiError> {
    let agents = api.store().agents().await?;
    if agents.iter().all(|agent| agent.gone || agent.spec.name.as_ref() != name) {
        let names = agents.iter().filter(|agent| !agent.gone).map(|agent| agent.spec.name.as_ref());
        let hint = did_you_mean(&name, names);
        let error: ApiError = Reject::Unknown { what: "agent", id: name }.into();
        return Err(error.hint(hint.unwrap_or_else(|| "`segue agents` shows who there is".into())));
    }
    let command = Command::Drain { agent: name.as_str().into(), drained: draining.drained };
    let reply = api.command(command).await?;
    Ok(Answer(changed(name, &reply)))
}
