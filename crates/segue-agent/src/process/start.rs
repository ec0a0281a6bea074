//! How a supervisor starts the program.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::control::Control;
use super::os;
use super::wire::{Input, Spec, StartFailure, StartStep};

/// How often an executable that is open for writing is tried again, 5 ms apart: another thread of
/// the node may have forked while it held the file that it wrote.
const BUSY_TRIES: u32 = 40;

/// A cgroup of this tree alone: one write kills everything in it, whatever its parents.
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub(super) fn make(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    fn procs(&self) -> Option<OwnedFd> {
        std::fs::OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))
            .ok()
            .map(OwnedFd::from)
    }

    pub(super) fn kill(&self) {
        let _ = std::fs::write(self.path.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Starts the program and returns its process id.
pub(super) fn start(
    spec: Spec,
    control: &mut Control,
    cgroup: Option<&Cgroup>,
) -> Result<i32, StartFailure> {
    let stdin =
        open_input(spec.stdin, control).map_err(|error| failure(StartStep::Stdin, &error, None))?;
    let cwd = PathBuf::from(OsString::from(spec.cwd));
    std::env::set_current_dir(&cwd).map_err(|error| failure(StartStep::Cwd, &error, None))?;
    let program = OsString::from(spec.program);
    let mut command = Command::new(&program);
    command
        .args(spec.args.into_iter().map(OsString::from))
        .env_clear()
        .envs(
            spec.env
                .iter()
                .map(|(name, value)| (OsString::from(name.clone()), OsString::from(value.clone()))),
        )
        .stdin(stdin);
    os::prepare_child(&mut command, spec.limits, cgroup.and_then(Cgroup::procs));
    let path = spec.env.into_iter().find(|(name, _)| *name == OsStr::new("PATH").into());
    let path = path.map(|(_, value)| OsString::from(value));
    let child = spawn_when_free(&mut command).map_err(|error| {
        failure(StartStep::Exec, &error, why_not(&program, path.as_deref(), &error))
    })?;
    // The folder must not be kept from being removed or unmounted by a supervisor that sits in it.
    let _ = std::env::set_current_dir("/");
    i32::try_from(child.id())
        .map_err(|_| failure(StartStep::Exec, &io::ErrorKind::InvalidData.into(), None))
}

fn spawn_when_free(command: &mut Command) -> io::Result<std::process::Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
            {
                tries += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn open_input(input: Input, control: &mut Control) -> io::Result<Stdio> {
    match input {
        Input::Null => Ok(Stdio::null()),
        Input::Bytes(length) => Ok(control.bytes(length)?.into()),
        Input::File(path) => {
            let path = PathBuf::from(OsString::from(path));
            // To open a FIFO would wait for its writer, with nobody to end the wait.
            if !std::fs::metadata(&path)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            Ok(File::open(&path)?.into())
        }
    }
}

fn failure(step: StartStep, error: &io::Error, text: Option<String>) -> StartFailure {
    StartFailure {
        step,
        errno: error.raw_os_error(),
        text: text.unwrap_or_else(|| error.to_string()),
    }
}

/// Says more than the error number does: which of the several causes of ENOENT and EACCES it was.
fn why_not(program: &OsStr, path: Option<&OsStr>, error: &io::Error) -> Option<String> {
    let name = program.to_string_lossy();
    let file = Path::new(program);
    match error.kind() {
        io::ErrorKind::NotFound if !name.contains('/') => Some(match path {
            Some(path) => format!("no program of that name in PATH ({})", path.to_string_lossy()),
            None => {
                "PATH is not set, and no program of that name is in the system's default folders"
                    .to_owned()
            }
        }),
        io::ErrorKind::NotFound if file.exists() => Some(
            "the file is there, but the interpreter that its first line names is not".to_owned(),
        ),
        io::ErrorKind::NotFound => Some("no such file".to_owned()),
        io::ErrorKind::PermissionDenied if file.is_dir() => Some("it is a folder".to_owned()),
        io::ErrorKind::PermissionDenied if name.contains('/') => {
            Some("the file may not be executed (chmod +x makes it executable)".to_owned())
        }
        io::ErrorKind::ArgumentListTooLong => Some(
            "its arguments and environment are too long; give the text by standard input or a file"
                .to_owned(),
        ),
        _ => None,
    }
}
