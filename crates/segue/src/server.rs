//! The door of a node: the API over a Unix socket that only its owner may use.

use crate::failure::{Exit, Failure, Outcome};
use axum::Router;
use axum::serve::Listener;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream, unix};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest path of a Unix socket that every system takes, its closing zero not counted.
const SOCKET_PATH_MAX: usize = 103;
/// What open connections have to end by themselves.
const CLOSE: Duration = Duration::from_secs(2);

/// An open door.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Door {
    /// Serves `router` at `path` until `closing` becomes true. The caller holds the node's lock: a file that is there
    /// already was left behind by a node that is dead.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(path: &Path, router: Router, mut closing: watch::Receiver<bool>) -> Outcome<Door> {
        let refused = |error: io::Error| {
            Failure::new(Exit::Node, format!("cannot listen on {}: {error}", path.display()))
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            Ok(()) | Err(_) => {}
        }
        let reachable = Reachable::new(path).map_err(refused)?;
        let listener = UnixListener::bind(reachable.path()).map_err(refused)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
        let serving = tokio::spawn(async move {
            let until = async move {
                let _ = closing.wait_for(|closing| *closing).await;
            };
            let serve = axum::serve(Own(listener), router).with_graceful_shutdown(until);
            if let Err(error) = serve.await {
                tracing::error!(%error, "the node cannot be reached any more");
            }
        });
        Ok(Door { path: path.to_owned(), serving })
    }

    /// Waits for what is being answered, but not for long, and removes the socket. `closing` has to be true already.
    pub async fn close(mut self) {
        if tokio::time::timeout(CLOSE, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes connections of processes of the same user (or root) only.
struct Own(UnixListener);

impl Listener for Own {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.0).await;
            let own = nix::unistd::geteuid().as_raw();
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own || peer.uid() == 0 => return (stream, address),
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), "a process of another user was refused")
                }
                Err(error) => tracing::warn!(%error, "a process that cannot be named was refused"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.0.local_addr()
    }
}

/// A path by which a socket can be bound or reached, however deep its folder is.
pub struct Reachable {
    path: PathBuf,
    _folder: Option<File>,
}

impl Reachable {
    /// For a socket at `path`. The system bounds the path of a socket to about a hundred bytes; a longer one goes over
    /// the folder's descriptor.
    ///
    /// # Errors
    /// When the path is too long and the system has no such detour, or the folder cannot be opened.
    pub fn new(path: &Path) -> io::Result<Reachable> {
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Reachable { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = File::open(folder)?;
        let detour = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        if !detour.is_dir() {
            return Err(io::Error::other(
                "its path is too long for a socket on this system: move the project to a shorter one",
            ));
        }
        Ok(Reachable { path: detour.join(name), _folder: Some(folder) })
    }

    /// The path to use while this value is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_in_a_deep_folder_can_be_bound_and_reached() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("node.sock");
        let (close, closing) = watch::channel(false);
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let door = Door::open(&path, router, closing).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let reachable = Reachable::new(&path).unwrap();
        assert!(UnixStream::connect(reachable.path()).await.is_ok());
        close.send_replace(true);
        door.close().await;
        assert!(!path.exists());
    }
}
