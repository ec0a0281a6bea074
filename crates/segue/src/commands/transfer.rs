//! `segue export` and `import`: a project moves from one database to another.

use crate::api::upkeep::{Exported, Exporting};
use crate::args::{ExportArgs, ImportArgs};
use crate::backend::Backend;
use crate::client::Client;
use crate::context::{Context, block_on};
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::Project;
use crate::screen::text::bytes;
use crate::{backups, transfer};
use segue_core::ports::StoreError;
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// Standard output, or standard input.
const STANDARD: &str = "-";

/// `segue export`
///
/// # Errors
/// What the store refuses, and a file that cannot be written.
pub fn export(cx: &Context, args: &ExportArgs) -> Outcome {
    let project = cx.project()?;
    if args.to == Path::new(STANDARD) {
        return block_on(print(&project)).map(|()| Exit::Done);
    }
    let to = std::path::absolute(&args.to)
        .map_err(|error| Failure::usage(format!("{} is no path: {error}", args.to.display())))?;
    let written = block_on(write(&project, &to))?;
    if cx.json {
        cx.print_json(&json!({ "to": to.display().to_string(), "bytes": written }))?;
    } else {
        cx.print(format!("exported to {} ({})", to.display(), bytes(written)))?;
    }
    Ok(Exit::Done)
}

/// The tables of a cluster can be read beside its nodes; those of this machine belong to one process at a time.
async fn write(project: &Project, to: &Path) -> Outcome<u64> {
    if project.cluster.is_some() {
        let backend = Backend::open(project).await.code(Exit::Node)?;
        return transfer::to_file(&backend, to).await.map_err(failed);
    }
    let client = Client::of(project, None).await?;
    let written = match client.in_process() {
        Some(here) => transfer::to_file(&here.api.backend, to).await.map_err(failed),
        None => {
            let wanted = Exporting { to: to.to_owned() };
            let exported: Outcome<Exported> = client.post("/v1/export", &wanted).await;
            exported.map(|exported| exported.bytes)
        }
    };
    client.close(Duration::ZERO).await;
    written
}

async fn print(project: &Project) -> Outcome<()> {
    if project.cluster.is_some() {
        let backend = Backend::open(project).await.code(Exit::Node)?;
        return print_export(&backend).await;
    }
    let client = Client::of(project, None).await?;
    let printed = match client.in_process() {
        Some(here) => print_export(&here.api.backend).await,
        None => print_file(&client, project).await,
    };
    client.close(Duration::ZERO).await;
    printed
}

/// Whoever reads it may have enough before its end, which is nobody's failure.
async fn print_export(backend: &Backend) -> Outcome<()> {
    let out = transfer::Pipe::of(std::io::stdout());
    let has_gone = out.has_gone();
    transfer::write(backend, out).await.map_err(|error| match has_gone.load(Ordering::Relaxed) {
        true => Failure::silent(Exit::Pipe),
        false => failed(error),
    })
}

/// The node writes a file, and this prints it.
async fn print_file(client: &Client, project: &Project) -> Outcome<()> {
    let scratch = backups::scratch(project);
    let make = || -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(&scratch)?;
        std::path::absolute(scratch.join(format!("export-{}", Uuid::new_v4().simple())))
    };
    let to = make().code(Exit::Node)?;
    let _: Exported = client.post("/v1/export", &Exporting { to: to.clone() }).await?;
    let copy = || -> std::io::Result<()> {
        let mut file = File::open(&to)?;
        // It goes with this process, however that ends.
        std::fs::remove_file(&to)?;
        std::io::copy(&mut file, &mut std::io::stdout().lock()).map(drop)
    };
    copy().code(Exit::Failed)
}

fn failed(error: StoreError) -> Failure {
    Failure::node(format!("nothing was exported: {error}"))
}

/// `segue import`
///
/// # Errors
/// When the project holds something already, a node runs, or the export is damaged. Nothing was imported then.
pub fn import(cx: &Context, args: &ImportArgs) -> Outcome {
    let name = args.from.display().to_string();
    let (header, lines) = if args.from == Path::new(STANDARD) {
        transfer::opened("standard input", BufReader::new(std::io::stdin()))?
    } else {
        let file = File::open(&args.from)
            .map_err(|error| Failure::usage(format!("{name} cannot be read: {error}")))?;
        transfer::opened(&name, BufReader::new(file))?
    };
    let mut project = cx.project_or_new()?;
    let is_shared = project.cluster.is_some();
    let lock = if is_shared { None } else { Some(project.lock().code(Exit::Node)?) };
    // On one machine the project goes on as the one that it was; the nodes of a cluster have its id in their file.
    let id = if is_shared { project.id } else { header.project };
    let empty = Backend::empty(&project, id).code(Exit::Node)?;
    block_on(async { empty.import_rows(lines).await.map_err(|error| refused(&error, is_shared)) })?;
    if !is_shared {
        project.adopt(id).code(Exit::Node)?;
    }
    drop(lock);
    let rows: u64 = header.rows.values().sum();
    if cx.json {
        cx.print_json(&json!({
            "from": name, "project": id.to_string(), "exported": header.project.to_string(), "rows": rows,
        }))?;
        return Ok(Exit::Done);
    }
    cx.print(format!("imported {rows} rows into project {id}"))?;
    if id != header.project {
        let theirs = header.project;
        cx.print(format!(
            "the exported project is {theirs}: with `id = \"{theirs}\"` in cluster.toml it would be the same one, and go on with its backups"
        ))?;
    }
    Ok(Exit::Done)
}

/// Why nothing was imported, and what to do.
fn refused(error: &StoreError, is_shared: bool) -> Failure {
    let failure = Failure::node(format!("nothing was imported: {error}"));
    if !matches!(error, StoreError::NotEmpty(_)) {
        return failure;
    }
    failure.hint(if is_shared {
        "give the project another `id` in cluster.toml (`segue cluster init` prints a new one) or another database, and import before its first node starts"
    } else {
        "import into another folder: `segue import FILE -C NEW-FOLDER`"
    })
}
