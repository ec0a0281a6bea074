//! Folders and files that are made and removed whole.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::WorkspaceError;

pub(super) fn io_error(what: &'static str, path: &Path, source: io::Error) -> WorkspaceError {
    WorkspaceError::Io { what, path: path.to_owned(), source }
}

pub(super) fn make_folders(path: &Path) -> Result<(), WorkspaceError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| io_error("make the folder", path, error))
}

/// Writes a file so that it is there whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WorkspaceError> {
    let draft = path.with_extension("draft");
    let write = || {
        std::fs::write(&draft, bytes)?;
        std::fs::File::open(&draft)?.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(|error| io_error("write the file", path, error))
}

/// Removes a folder with all that is in it, folders without write permission too (build caches make them).
pub(super) fn remove_folder(path: &Path) -> Result<(), WorkspaceError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path);
            std::fs::remove_dir_all(path)
                .map_err(|error| io_error("remove the folder", path, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| io_error("remove the folder", path, error)),
    }
}

/// Gives the owner every right on the folders below; links are not followed.
pub(super) fn make_writable(path: &Path) {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let _ = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700));
        let Ok(entries) = folder.read_dir() else {
            continue;
        };
        folders.extend(
            entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
        );
    }
}

/// The names in a folder, sorted; none if there is no such folder.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, WorkspaceError> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read the folder", folder, error)),
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
