//! `segue agents`: everybody; who can do what; nobody gets new work.

use super::tasks::{change, tell};
use crate::api::views::{AgentView, AgentsView, ChangedView, FoundView};
use crate::args::{AgentsArgs, AgentsCommand};
use crate::client::{Client, encoded};
use crate::context::{Context, block_on};
use crate::failure::{Exit, Outcome};
use crate::screen::live::say;
use crate::screen::style::Paint;
use crate::screen::table::Table;
use crate::screen::text::{duration, line};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Characters of a description in a table.
const DESCRIPTION_MAX: usize = 100;

/// `segue agents`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn agents(cx: &Context, args: &AgentsArgs) -> Outcome {
    match &args.command {
        None => list(cx, args.team.as_deref()),
        Some(AgentsCommand::Find { text, capability, limit, team }) => {
            let body = json!({ "text": text, "capability": capability, "limit": limit });
            find(cx, &body, team.as_deref())
        }
        Some(AgentsCommand::Drain { name, undo }) => {
            let path = format!("/v1/agents/{}/drain", encoded(name));
            let changed: ChangedView = change(cx, &path, &json!({ "drained": !undo }))?;
            let (done, before) = match undo {
                true => ("takes work again", "takes work already"),
                false => ("takes no new work", "takes no new work already"),
            };
            tell(cx, &changed, done, before)
        }
    }
}

fn list(cx: &Context, team: Option<&Path>) -> Outcome {
    let project = cx.project()?;
    let everybody: AgentsView = block_on(async {
        let client = Client::of(&project, team).await?;
        let answer = client.get("/v1/agents").await;
        client.close(Duration::ZERO).await;
        answer
    })?;
    if cx.json {
        cx.print_json(&everybody)?;
        return Ok(Exit::Done);
    }
    for notice in &everybody.notices {
        say(&format!("{} {notice}", cx.err.yellow("warning:")));
    }
    if everybody.agents.is_empty() {
        say(
            "nobody: define agents in segue.toml (`segue init` writes an example) or in .claude/agents",
        );
        return Ok(Exit::Done);
    }
    let has_nodes = everybody.agents.iter().any(|agent| agent.node.is_some());
    let mut table = match has_nodes {
        true => Table::new(&[
            "NAME",
            "KIND",
            "STATUS",
            "LOAD",
            "HEALTH",
            "NODE",
            "LAST SEEN",
            "CAPABILITIES",
        ])
        .give_way(&[7, 5, 0]),
        false => {
            Table::new(&["NAME", "KIND", "STATUS", "LOAD", "HEALTH", "CAPABILITIES", "SOURCE"])
                .give_way(&[5, 6, 0])
        }
    };
    for agent in &everybody.agents {
        let mut cells = row(agent, cx.out);
        if has_nodes {
            let capabilities = cells.remove(5);
            cells.truncate(5);
            cells.push(line(agent.node.as_deref().unwrap_or_default()));
            cells.push(
                agent.silent_ms.map(|ms| format!("{} ago", duration(ms))).unwrap_or_default(),
            );
            cells.push(capabilities);
        }
        table.row(cells);
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    if everybody.agents.iter().all(|agent| agent.health.is_none()) {
        say(&cx.err.dim("no node runs: they come with `segue run` or `segue up`"));
    }
    Ok(Exit::Done)
}

fn row(agent: &AgentView, paint: Paint) -> Vec<String> {
    let capabilities: Vec<&str> =
        agent.capabilities.iter().map(|capability| capability.name.as_str()).collect();
    vec![
        paint.bold(line(&agent.name)),
        agent.kind.to_string(),
        status(agent, paint),
        format!("{}/{}", agent.slots_used, agent.slots),
        match agent.health {
            Some(health) if health < segue_core::route::HEALTH_MIN => {
                paint.red(format!("{:.0} %", health * 100.0))
            }
            Some(health) => format!("{:.0} %", health * 100.0),
            None => String::new(),
        },
        line(&capabilities.join(", ")),
        paint.dim(line(agent.source.as_deref().unwrap_or_default())),
    ]
}

fn status(agent: &AgentView, paint: Paint) -> String {
    match agent.status.as_str() {
        "available" => paint.green("available"),
        "busy" => paint.cyan("busy"),
        "maintenance" => paint.yellow("maintenance"),
        other => paint.dim(other),
    }
}

fn find(cx: &Context, body: &serde_json::Value, team: Option<&Path>) -> Outcome {
    let project = cx.project()?;
    let found: FoundView = block_on(async {
        let client = Client::of(&project, team).await?;
        let answer = client.post("/v1/agents/find", body).await;
        client.close(Duration::ZERO).await;
        answer
    })?;
    if cx.json {
        cx.print_json(&found)?;
    } else if !found.found.is_empty() {
        let mut table =
            Table::new(&["SCORE", "NAME", "STATUS", "BY", "DESCRIPTION"]).give_way(&[4, 1]);
        for hit in &found.found {
            let by = match hit.by.as_str() {
                "capability" => cx.out.green("capability"),
                _ => line(&hit.matched.join(" ")),
            };
            let about: String =
                line(&hit.agent.description).chars().take(DESCRIPTION_MAX).collect();
            table.row(vec![
                format!("{:.2}", hit.score),
                cx.out.bold(line(&hit.agent.name)),
                status(&hit.agent, cx.out),
                by,
                cx.out.dim(about),
            ]);
        }
        cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    }
    if found.found.is_empty() {
        if !cx.json {
            say("nobody fits: `segue agents` shows who there is");
        }
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}
