//! Paths that come from outside and must stay in their folder.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Why a path was refused, or a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// It names nothing: it is empty, or only dots.
    #[error("the path {0:?} names no file; write one relative to its folder")]
    Empty(PathBuf),
    /// It starts at the root.
    #[error("the path {0:?} is absolute; write it relative to its folder")]
    Absolute(PathBuf),
    /// It contains `..`.
    #[error("the path {0:?} climbs out of its folder with `..`, which is not allowed")]
    Climbs(PathBuf),
    /// It contains a NUL byte.
    #[error("the path {0:?} contains a NUL byte")]
    Nul(PathBuf),
    /// A symbolic link on the way leads out of the folder, or nowhere.
    #[error("the path {path:?} leaves its folder by the symbolic link {link:?}")]
    Link {
        /// The path.
        path: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// It is a folder, a pipe, a device: not a file with bytes in it.
    #[error("{0:?} is not a regular file")]
    NotAFile(PathBuf),
    /// The file is larger than allowed.
    #[error("{path:?} is larger than the limit of {bytes_max} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The operating system could not look.
    #[error("{path:?}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Joins a path from outside to a folder, such that the result is below the folder.
///
/// `relative` may not be empty or absolute and may not contain `..` or NUL; symbolic links on the
/// way are followed, if they stay in the folder. The file need not exist. The result has no links
/// in it as far as it exists.
///
/// What is true when this looks need not be true a moment later, if somebody else can write to the
/// folder: use it after a program has ended, or through [`read_beneath`].
///
/// # Errors
/// [`PathError`]; [`PathError::Io`] if `root` does not exist.
pub fn safe_join(root: &Path, relative: impl AsRef<Path>) -> Result<PathBuf, PathError> {
    let relative = relative.as_ref();
    let parts = normal_parts(relative)?;
    let io_error = |path: &Path, source| PathError::Io { path: path.to_owned(), source };
    let root = root.canonicalize().map_err(|error| io_error(root, error))?;
    let mut path = root.clone();
    let mut parts = parts.into_iter();
    while let Some(part) = parts.next() {
        path.push(&part);
        match path.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                let leaves = || PathError::Link { path: relative.to_owned(), link: path.clone() };
                let target = path.canonicalize().map_err(|_| leaves())?;
                if !target.starts_with(&root) {
                    return Err(leaves());
                }
                path = target;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // What is below something that does not exist cannot be a link either.
                path.extend(parts);
                break;
            }
            Err(error) => return Err(io_error(&path, error)),
        }
    }
    Ok(path)
}

fn normal_parts(relative: &Path) -> Result<Vec<OsString>, PathError> {
    if relative.as_os_str().as_bytes().contains(&0) {
        return Err(PathError::Nul(relative.to_owned()));
    }
    let mut parts = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::CurDir => {}
            Component::ParentDir => return Err(PathError::Climbs(relative.to_owned())),
            Component::RootDir | Component::Prefix(_) => {
                return Err(PathError::Absolute(relative.to_owned()));
            }
        }
    }
    if parts.is_empty() { Err(PathError::Empty(relative.to_owned())) } else { Ok(parts) }
}

/// Reads a file below a folder that a program could write to: a regular one, of at most `bytes_max` bytes.
///
/// A pipe or device in its place is refused without waiting for it.
///
/// # Errors
/// [`PathError`].
pub fn read_beneath(
    root: &Path,
    relative: impl AsRef<Path>,
    bytes_max: u64,
) -> Result<Vec<u8>, PathError> {
    let path = safe_join(root, relative)?;
    let io_error = |source| PathError::Io { path: path.clone(), source };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(&path).map_err(io_error)?;
    if !file.metadata().map_err(io_error)?.is_file() {
        return Err(PathError::NotAFile(path));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > bytes_max {
        return Err(PathError::TooLarge { path, bytes_max });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().canonicalize().expect("exists").join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("made");
        (folder, root)
    }

    #[test]
    fn plain_paths_stay_below_the_root_whether_they_exist_or_not() {
        let (_keep, root) = folder();
        for path in
            ["a", "a/b", "a/new/deep", "./a/./b", "new", "a//b", "..a", "a/..b", "...", "a/b/"]
        {
            let joined = safe_join(&root, path).expect("fine");
            assert!(joined.starts_with(&root) && joined != root, "{joined:?}");
        }
        assert_eq!(safe_join(&root, "./a/./b").expect("fine"), root.join("a/b"));
    }

    #[test]
    fn what_leaves_the_root_is_refused() {
        let (_keep, root) = folder();
        for (path, expected) in [
            ("", "names no file"),
            (".", "names no file"),
            ("./.", "names no file"),
            ("/", "absolute"),
            ("/etc/passwd", "absolute"),
            ("//x", "absolute"),
            ("..", "climbs"),
            ("a/../b", "climbs"),
            ("a/b/../../..", "climbs"),
            ("../root/a", "climbs"),
            ("a\0b", "NUL"),
        ] {
            let error = safe_join(&root, path).expect_err(path).to_string();
            assert!(error.contains(expected), "{path:?}: {error}");
        }
        assert!(matches!(safe_join(&root.join("absent"), "x"), Err(PathError::Io { .. })));
        std::fs::write(root.join("file"), "").expect("written");
        assert!(matches!(safe_join(&root, "file/x"), Err(PathError::Io { .. })));
        assert!(matches!(safe_join(&root, "x".repeat(5_000)), Err(PathError::Io { .. })));
    }

    #[test]
    fn links_are_followed_inside_and_refused_outside() {
        let (keep, root) = folder();
        symlink("b", root.join("a/inside")).expect("linked");
        symlink(keep.path(), root.join("a/up")).expect("linked");
        symlink("../..", root.join("a/climb")).expect("linked");
        symlink("/nowhere/at/all", root.join("a/dangling")).expect("linked");
        symlink("loop", root.join("a/loop")).expect("linked");
        assert_eq!(safe_join(&root, "a/inside/new").expect("fine"), root.join("a/b/new"));
        for path in ["a/up", "a/up/x", "a/climb/root/a", "a/dangling", "a/loop/x", "a/inside/../up"]
        {
            let error = safe_join(&root, path).expect_err(path);
            assert!(
                matches!(error, PathError::Link { .. } | PathError::Climbs(_)),
                "{path}: {error}"
            );
        }
        // A folder of which a sibling's name is the beginning is another folder.
        std::fs::create_dir(keep.path().join("root2")).expect("made");
        symlink("../../root2", root.join("a/sibling")).expect("linked");
        assert!(safe_join(&root, "a/sibling/x").is_err());
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let (_keep, root) = folder();
        std::fs::write(root.join("a/result.json"), b"{\xff}").expect("written");
        assert_eq!(read_beneath(&root, "a/result.json", 3).expect("read"), b"{\xff}");
        assert!(matches!(
            read_beneath(&root, "a/result.json", 2),
            Err(PathError::TooLarge { bytes_max: 2, .. })
        ));
        assert!(matches!(read_beneath(&root, "a", 9), Err(PathError::NotAFile(_))));
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert!(matches!(read_beneath(&root, "pipe", 9), Err(PathError::NotAFile(_))));
        symlink("/dev/zero", root.join("zero")).expect("linked");
        assert!(matches!(read_beneath(&root, "zero", 9), Err(PathError::Link { .. })));
        assert!(matches!(read_beneath(&root, "absent", 9), Err(PathError::Io { .. })));
    }

    proptest! {
        #[test]
        fn no_text_leads_out(path in "[a./\\\\\0~ b-]{0,12}|\\PC{0,12}") {
            let (_keep, root) = folder();
            if let Ok(joined) = safe_join(&root, &path) {
                prop_assert!(joined.starts_with(&root) && joined != root);
                prop_assert!(!joined.components().any(|part| part == Component::ParentDir));
            }
        }
    }
}
