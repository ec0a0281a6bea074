//! What every command needs: which project, which colours, and a way to say things.

use crate::args::Common;
use crate::cluster::{For, Settings, place};
use crate::failure::{Code, Exit, Failure, Outcome};
use crate::project::Project;
use crate::screen::style::Paint;
use segue_core::worker::check_name;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What every command needs.
#[derive(Debug)]
pub struct Context {
    /// Where the project is looked for.
    start: PathBuf,
    /// Whether that was said on the command line.
    named: bool,
    /// What the nodes of a cluster share, where one is meant.
    cluster: Option<Arc<Settings>>,
    /// Whether to print JSON.
    pub json: bool,
    /// Colours of standard output.
    pub out: Paint,
    /// Colours of standard error.
    pub err: Paint,
}

impl Context {
    /// What the command line and the surroundings come to.
    ///
    /// # Errors
    /// When the folder that was named cannot be entered.
    pub fn new(common: &Common) -> Outcome<Context> {
        let given = common.project.clone();
        let start = given.as_deref().unwrap_or_else(|| Path::new("."));
        let start = start.canonicalize().map_err(|error| {
            Failure::usage(format!("the folder {} cannot be entered: {error}", start.display()))
        })?;
        if !start.is_dir() {
            return Err(Failure::usage(format!("{} is no folder", start.display())));
        }
        Ok(Context {
            start,
            named: given.is_some(),
            cluster: None,
            json: common.json,
            out: Paint::decide(common.color, std::io::stdout().is_terminal()),
            err: Paint::decide(common.color, std::io::stderr().is_terminal()),
        })
    }

    /// The same, for a cluster: what `--config` names is read for a node.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong.
    pub fn in_cluster(mut self, common: &Common) -> Outcome<Context> {
        if let Some(file) = &common.config {
            let mut settings = Settings::load(file, For::Node)?;
            if let Some(name) = &common.node {
                check_name(name).map_err(|error| Failure::usage(error.to_string()))?;
                settings.node.name.clone_from(name);
            }
            self.cluster = Some(Arc::new(settings));
        }
        Ok(self)
    }

    /// The cluster that is meant, if one is.
    pub fn cluster(&self) -> Option<&Arc<Settings>> {
        self.cluster.as_ref()
    }

    fn cluster_project(&self, settings: &Arc<Settings>) -> Outcome<Project> {
        let found = if self.named { None } else { Project::find(&self.start) };
        let dir = found.unwrap_or_else(|| self.start.clone());
        place::node_project(settings.clone(), &dir).code(Exit::Node)
    }

    /// The folder in which the command was started, or that it named.
    pub fn start(&self) -> &Path {
        &self.start
    }

    /// The project that is there.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn project(&self) -> Outcome<Project> {
        if let Some(settings) = &self.cluster {
            return self.cluster_project(settings);
        }
        let Some(dir) = Project::find(&self.start) else {
            let message =
                format!("there is no Segue project in {} or above it", self.start.display());
            return Err(Failure::usage(message)
                .hint("run `segue init` in the project's folder, or name the folder with -C"));
        };
        Project::open_or_make(&dir).code(Exit::Node)
    }

    /// The project that is there, else a new one: in the folder that was named, or in this one.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn project_or_new(&self) -> Outcome<Project> {
        if let Some(settings) = &self.cluster {
            return self.cluster_project(settings);
        }
        let found = if self.named { None } else { Project::find(&self.start) };
        Project::open_or_make(&found.unwrap_or_else(|| self.start.clone())).code(Exit::Node)
    }

    /// Prints text on standard output, with a newline behind it.
    ///
    /// # Errors
    /// When whoever reads it has gone.
    pub fn print(&self, text: impl AsRef<str>) -> Outcome<()> {
        self.write(text.as_ref().as_bytes())?;
        self.write(b"\n")
    }

    /// Prints lines on standard output.
    ///
    /// # Errors
    /// When whoever reads them has gone.
    pub fn print_lines(&self, lines: &[String]) -> Outcome<()> {
        if lines.is_empty() { Ok(()) } else { self.print(lines.join("\n")) }
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// When whoever reads it has gone.
    pub fn print_json(&self, value: &impl Serialize) -> Outcome<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::node(format!("the answer is no JSON: {error}")))?;
        self.print(text)
    }

    /// Writes bytes to standard output.
    ///
    /// # Errors
    /// When whoever reads them has gone.
    pub fn write(&self, bytes: &[u8]) -> Outcome<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).code(Exit::Failed)
    }

    /// How many cells of standard output there are, if it is a terminal.
    pub fn cells(&self) -> Option<usize> {
        if !std::io::stdout().is_terminal() {
            return None;
        }
        let (_, cells) = console::Term::stdout().size_checked()?;
        Some(usize::from(cells).max(20))
    }
}

/// Runs something asynchronous to its end, on a runtime of its own.
///
/// # Errors
/// What it fails with, and when the system gives no threads.
pub fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("segue")
        .build()
        .map_err(|error| Failure::node(format!("the system gives no threads: {error}")))?;
    let result = runtime.block_on(work);
    // Whatever is left over is nobody's any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}
