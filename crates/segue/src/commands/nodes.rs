//! `segue nodes` and `segue cluster`: who is there, and what nodes share.

use super::tasks::{ask, change, tell};
use crate::api::views::{ChangedView, NodeView, NodesView};
use crate::args::{ClusterArgs, ClusterCommand, NodesArgs, NodesCommand};
use crate::client::encoded;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::screen::live::say;
use crate::screen::style::Paint;
use crate::screen::table::Table;
use crate::screen::text::{duration, line};
use segue_core::payload::Hash;
use serde_json::json;
use uuid::Uuid;

/// `segue nodes`
///
/// # Errors
/// What the API refuses; no project, no node.
pub fn nodes(cx: &Context, args: &NodesArgs) -> Outcome {
    match &args.command {
        None => list(cx),
        Some(NodesCommand::Drain { name }) => {
            let path = format!("/v1/nodes/{}/drain", encoded(name));
            let changed: ChangedView = change(cx, &path, &json!({}))?;
            tell(cx, &changed, "finishes what it has, and ends", "ends already")
        }
    }
}

fn list(cx: &Context) -> Outcome {
    let everybody: NodesView = ask(cx, "/v1/nodes")?;
    if cx.json {
        cx.print_json(&everybody)?;
        return Ok(Exit::Done);
    }
    if everybody.nodes.is_empty() {
        say("nobody: `segue up` starts a node");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[
        "NAME",
        "ROLE",
        "STATUS",
        "LOAD",
        "LAST SEEN",
        "MACHINE",
        "VERSION",
        "AGENTS",
    ])
    .give_way(&[7, 5, 0]);
    for node in &everybody.nodes {
        table.row(row(node, cx.out));
    }
    cx.print_lines(&table.lines(cx.out, cx.cells()))?;
    for node in &everybody.nodes {
        if let Some(trouble) = &node.trouble {
            cx.print(format!(
                "{} {}: {}",
                cx.out.yellow("trouble:"),
                line(&node.name),
                line(trouble)
            ))?;
        }
    }
    Ok(Exit::Done)
}

fn row(node: &NodeView, paint: Paint) -> Vec<String> {
    let status = match node.status.as_str() {
        "up" if node.trouble.is_some() => paint.yellow("up"),
        "up" => paint.green("up"),
        "draining" => paint.yellow("draining"),
        "silent" => paint.yellow("silent"),
        other => paint.red(other),
    };
    vec![
        paint.bold(line(&node.name)),
        node.roles.join(", "),
        status,
        format!("{}/{}", node.slots_used, node.slots),
        node.silent_ms.map(|ms| format!("{} ago", duration(ms))).unwrap_or_default(),
        line(node.machine.as_deref().unwrap_or_default()),
        line(node.version.as_deref().unwrap_or_default()),
        line(&node.agents.join(", ")),
    ]
}

/// `segue cluster`
///
/// # Errors
/// When the system gives no randomness.
pub fn cluster(cx: &Context, args: &ClusterArgs) -> Outcome {
    match &args.command {
        ClusterCommand::Key => {
            let mut key = [0; 32];
            getrandom::fill(&mut key)
                .map_err(|error| Failure::node(format!("no randomness: {error}")))?;
            cx.print(Hash(key).hex())?;
        }
        ClusterCommand::Init { name } => {
            let name = serde_json::to_string(name)
                .map_err(|error| Failure::usage(format!("that is no name: {error}")))?;
            let id = Uuid::new_v4().to_string();
            let text = TEMPLATE.replace("{NAME}", &name).replace("{ID}", &id);
            cx.print(text.trim_end())?;
        }
    }
    Ok(Exit::Done)
}

/// The file of a new project.
const TEMPLATE: &str = r#"# What the nodes of a project share. docs/cluster.md describes every key.
# A text may hold ${VARIABLES}, or be { file = ".." } or { env = ".." }: no secret need stand here.

[project]
name = {NAME}
id = "{ID}"
key = { file = "key" }          # segue cluster key > key && chmod 600 key

[postgres]
url = "postgresql://segue@127.0.0.1:5432/segue?target_session_attrs=read-write"
password = { env = "SEGUE_POSTGRES_PASSWORD" }

[rabbitmq]
urls = ["amqp://segue@127.0.0.1:5672/segue"]
password = { env = "SEGUE_RABBITMQ_PASSWORD" }

[redis]                         # may be left out
url = "redis://127.0.0.1:6379"

[objects]
url = "file:///var/lib/segue/bodies"   # or s3://BUCKET/PREFIX; every node has to see it
"#;

/// `segue worker token`
///
/// # Errors
/// When no cluster is named, or it cannot be a name.
pub fn worker_token(cx: &Context, name: &str) -> Outcome {
    let Some(project) = cx.cluster().and_then(|settings| settings.project.as_ref()) else {
        return Err(Failure::usage("a worker belongs to a cluster: name its file with --config"));
    };
    let maker = segue_core::worker::TokenMaker::new(project.id, project.key);
    let token = maker.worker(name).map_err(|error| Failure::usage(error.to_string()))?;
    if cx.json {
        let host = token.host().to_string();
        cx.print_json(&json!({ "name": name, "host": host, "token": token.reveal() }))?;
    } else {
        cx.print(token.reveal())?;
    }
    Ok(Exit::Done)
}
