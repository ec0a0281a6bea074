//! `segue worker`: a process that hosts agents for a cluster, and reaches its broker alone.

use super::nodes::worker_token;
use crate::args::{WorkerArgs, WorkerCommand};
use crate::cluster::read::Secret;
use crate::cluster::settings::{RabbitSettings, WorkerSettings, machine};
use crate::cluster::{For, Settings, connect, place};
use crate::context::{Context, block_on};
use crate::ending;
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::{NodeLock, Project};
use crate::remains;
use crate::roster::{Roster, chosen};
use crate::screen::live::say;
use crate::screen::text::{count, duration};
use crate::signals::Signals;
use segue_agent::host::{Host, HostParts, Hosted, Outlet};
use segue_agent::spool::Spool;
use segue_agent::worker::{BusBlobs, Link, Presence, SpooledBlobs, Stay};
use segue_bus::rabbitmq::RabbitBus;
use segue_core::ids::Incarnation;
use segue_core::ports::{Blobs, Clock};
use segue_core::worker::WorkerToken;
use segue_store::sqlite::SystemClock;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// `segue worker token NAME`
///
/// # Errors
/// When no cluster is named, or it cannot be a name.
pub fn about(cx: &Context, args: &WorkerArgs) -> Outcome {
    match &args.command {
        Some(WorkerCommand::Token { name }) => worker_token(cx, name),
        None => Err(Failure::usage("say which worker")),
    }
}

/// `segue worker`
///
/// # Errors
/// When it cannot start, or the cluster does not take it.
pub fn worker(cx: &Context, args: &WorkerArgs, config: Option<&Path>) -> Outcome {
    let settings = settings(args, config)?;
    let token = settings.worker.token.clone().ok_or_else(|| {
        Failure::usage("a worker needs a token").hint(
            "on a node: `segue worker token NAME --config cluster.toml > NAME.token`; then --token-file NAME.token, or `token = { file = \"..\" }` under [worker]",
        )
    })?;
    let dir = Project::find(cx.start()).unwrap_or_else(|| cx.start().to_path_buf());
    let spool = OnceLock::new();
    let came = block_on(async {
        let mut signals = Signals::listen()?;
        let mut insisting = signals.clone();
        tokio::select! {
            result = stay(cx, args, &settings, &token, &dir, &mut signals, &spool) => result,
            exit = insisting.second() => Err(Failure::silent(exit)),
        }
    });
    if let Some(spool) = spool.get() {
        tell_what_is_left(cx, &token, spool)?;
    }
    came
}

/// Says which outcomes nobody has taken yet: they are on the disk, and the next start delivers them.
fn tell_what_is_left(cx: &Context, token: &WorkerToken, spool: &Spool) -> Outcome<()> {
    let (left, folder) = (spool.outcomes(), spool.folder().display());
    if left == 0 {
        return Ok(());
    }
    if cx.json {
        let event = json!({ "event": "left", "outcomes": left, "spool": folder.to_string() });
        return cx.print(event.to_string());
    }
    let are = if left == 1 { "is" } else { "are" };
    say(&format!(
        "{} {are} not delivered and {are} kept in {folder}: the next start of worker `{}` delivers what is there",
        count(left, "outcome"),
        token.name
    ));
    Ok(())
}

/// The file, if there is one, and what the command line says besides.
fn settings(args: &WorkerArgs, config: Option<&Path>) -> Outcome<Settings> {
    let mut settings = match config {
        Some(file) => Settings::load(file, For::Worker)?,
        None if args.rabbitmq.is_empty() => {
            return Err(Failure::usage("a worker needs a broker")
                .hint("--rabbitmq amqp://USER:PASSWORD@HOST/VHOST, or a file with --config"));
        }
        None => Settings::of_worker(),
    };
    if !args.rabbitmq.is_empty() {
        settings.rabbitmq.urls = args.rabbitmq.iter().map(Secret::new).collect();
    }
    let RabbitSettings { prefix, ca, .. } = &mut settings.rabbitmq;
    *prefix = args.prefix.clone().or(prefix.take());
    *ca = args.ca.clone().or(ca.take());
    let WorkerSettings { token, agents, .. } = &mut settings.worker;
    if !args.agents.is_empty() {
        *agents = Some(args.agents.clone());
    }
    if let Some(file) = &args.token_file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
        let read: Result<WorkerToken, _> = text.parse();
        *token =
            Some(read.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?);
    }
    Ok(settings)
}

/// What a worker stands on.
struct Worker {
    host: Arc<Host>,
    presence: Presence,
    bus: Arc<RabbitBus>,
    agents: usize,
    _lock: NodeLock,
}

async fn stay(
    cx: &Context,
    args: &WorkerArgs,
    settings: &Settings,
    token: &WorkerToken,
    dir: &Path,
    signals: &mut Signals,
    spool: &OnceLock<Arc<Spool>>,
) -> Outcome {
    let worker = tokio::select! {
        worker = start(cx, args, settings, token, dir, spool) => worker?,
        exit = signals.first() => return Err(Failure::silent(exit)),
    };
    announce(cx, token, worker.agents)?;
    let refused = tokio::select! {
        stay = worker.presence.stay() => match stay {
            Stay::Leave => {
                say("this worker was drained");
                None
            }
            Stay::Refused(reason) => Some(reason),
        },
        _ = signals.first() => None,
    };
    let running = worker.host.running();
    if !cx.json && refused.is_none() {
        let attempts = count(running, "attempt");
        let patience = duration(args.patience);
        say(&match running {
            0 => "ending".to_owned(),
            _ => format!("ending: {attempts} may take {patience}, once more ends at once"),
        });
    }
    let patience = Duration::from_millis(args.patience);
    ending::bounded(patience, end(worker, patience, refused.is_none())).await?;
    match refused {
        None => Ok(Exit::Done),
        Some(reason) => {
            Err(Failure::node(format!("the cluster does not take this worker: {reason}")))
        }
    }
}

/// Lets what runs end, delivers what it brought, and says goodbye. None of it waits for a broker or a node without a bound.
async fn end(worker: Worker, patience: Duration, is_welcome: bool) {
    let Worker { host, presence, bus, .. } = worker;
    let quiet = async {
        if is_welcome {
            take_no_more(&presence, &host).await;
        }
        host.idle().await;
    };
    if tokio::time::timeout(patience, quiet).await.is_err() {
        let ended = host.cancel_all("the worker stops");
        ending::within(ending::ATTEMPTS, "ending what runs", ended).await;
    }
    // What is not delivered now is on the disk, and the next life delivers it.
    host.stop().await;
    if is_welcome {
        presence.bye("it was ended").await;
    }
    bus.close().await;
}

/// Tells the nodes that this worker takes no more. Where nobody hears it there is nobody either who would give it more.
async fn take_no_more(presence: &Presence, host: &Host) {
    let idle = async {
        tokio::time::sleep(ending::WORD).await;
        host.idle().await;
    };
    tokio::select! {
        biased;
        heard = presence.take_no_more() => if let Err(reason) = heard {
            tracing::warn!(%reason, "the cluster did not hear that this worker takes no more");
        },
        () = idle => tracing::warn!("nobody heard that this worker takes no more; its lease will end"),
    }
}

async fn start(
    cx: &Context,
    args: &WorkerArgs,
    settings: &Settings,
    token: &WorkerToken,
    dir: &Path,
    spool: &OnceLock<Arc<Spool>>,
) -> Outcome<Worker> {
    let state = place::worker_state(settings, dir, &token.name).code(Exit::Node)?;
    let project = project(token, dir, state);
    let lock = project.lock().code(Exit::Node)?;
    let (roster, hosted) = Roster::load(&project, args.team.as_deref()).code(Exit::Usage)?;
    for notice in roster.notices.iter().filter(|_| !cx.json) {
        say(&format!("{} {notice}", cx.err.yellow("warning:")));
    }
    let hosted = chosen(hosted, settings.worker.agents.as_deref())?;
    connect::choose_tls();
    let bus = RabbitBus::connect(connect::rabbit_options(settings, token.project))
        .await
        .map_err(|error| Failure::node(format!("RabbitMQ: {error}")))?;
    // First the processes of the earlier life: two attempts at one task must not share a folder.
    let _ended = remains::end(&project).await;
    let life = place::next_life(&project.state).code(Exit::Node)?;
    let (host, presence) = join(&project, token, life, &bus, &hosted, settings, spool).await?;
    if let Err(reason) = presence.hello().await {
        bus.close().await;
        let message = format!("the cluster does not take this worker: {reason}");
        return Err(Failure::node(message));
    }
    Ok(Worker { host, presence, bus, agents: hosted.len(), _lock: lock })
}

/// Delivers what an earlier life left, and makes the host ready; nobody knows of it yet.
async fn join(
    project: &Project,
    token: &WorkerToken,
    life: Incarnation,
    bus: &Arc<RabbitBus>,
    hosted: &[Hosted],
    settings: &Settings,
    opened: &OnceLock<Arc<Spool>>,
) -> Outcome<(Arc<Host>, Presence)> {
    let away = |error: segue_core::ports::BusError| Failure::node(format!("RabbitMQ: {error}"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let link = Link::open(bus.clone(), clock.clone(), token.clone(), life).await.map_err(away)?;
    let link = Arc::new(link);
    let remote: Arc<dyn Blobs> = Arc::new(BusBlobs::new(link.clone()));
    let (spool, left) = Spool::open(&project.state.join("spool")).code(Exit::Node)?;
    let spool = opened.get_or_init(|| spool).clone();
    if !left.is_empty() {
        say(&format!("delivering what an earlier life left: {}", count(left.len(), "outcome")));
    }
    spool.deliver(left, bus.as_ref(), remote.as_ref()).await.map_err(away)?;
    let parts = HostParts {
        host: token.host(),
        incarnation: life,
        bus: bus.clone(),
        blobs: Arc::new(SpooledBlobs::new(spool.clone(), remote.clone())),
        clock,
    };
    let outlet = Outlet { spool, bodies: remote };
    let host = Host::start_with(parts, hosted.to_vec(), Some(outlet)).await.map_err(away)?;
    let specs = hosted.iter().map(|agent| agent.spec.clone()).collect();
    let (lease_ms, version) = (settings.worker.lease_ms, env!("CARGO_PKG_VERSION"));
    let presence = Presence::new(link, host.clone(), specs, lease_ms, version, &machine());
    Ok((host, presence))
}

/// A worker's place as agents see it. It has no key: what would need it is not there.
fn project(token: &WorkerToken, dir: &Path, state: PathBuf) -> Project {
    Project {
        dir: dir.to_path_buf(),
        state,
        id: token.project,
        host: token.host(),
        key: [0; 32],
        cluster: Some(Arc::new(Settings::of_worker())),
    }
}

/// Says that the worker is there. The first line of standard output: whoever started it can wait for that.
fn announce(cx: &Context, token: &WorkerToken, agents: usize) -> Outcome<()> {
    let (name, host, pid) = (&token.name, token.host(), std::process::id());
    if cx.json {
        let event = json!({
            "event": "joined",
            "worker": name,
            "host": host.to_string(),
            "pid": pid,
            "agents": agents,
        });
        return cx.print(event.to_string());
    }
    cx.print(format!("worker `{name}` joined with {} (process {pid})", count(agents, "agent")))
}
