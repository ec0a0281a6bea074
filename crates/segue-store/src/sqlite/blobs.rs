//! Large bodies, each in a file named by its hash.

use super::error::{Failure, Kind};
use super::options::Sync;
use parking_lot::Mutex;
use segue_core::payload::Hash;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The folder of the files, in the folder of the store.
pub(super) const FOLDER: &str = "blobs";
/// What a file is called until it is whole.
const UNFINISHED: &str = "unfinished-";
/// A body that nobody refers to is kept this long: whoever put it may be about to refer to it.
const UNREFERRED_KEPT: Duration = Duration::from_secs(60 * 60);

/// Bodies in files `ab/abcdef..` below a folder, each written whole and synced before anybody hears of it.
pub(super) struct DirBlobs {
    root: PathBuf,
    sync: Sync,
    /// Held while a file appears, is found to be there already, or goes; and the number of the next unfinished file.
    turn: Mutex<u64>,
}

impl DirBlobs {
    /// Opens the folder, makes it where it is missing, and removes what a crash left unfinished.
    pub(super) fn open(root: PathBuf, sync: Sync) -> Result<DirBlobs, Failure> {
        fs::create_dir_all(&root)?;
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(DirBlobs { root, sync, turn: Mutex::new(0) })
    }

    /// The place of a body in the folder.
    pub(super) fn name(hash: Hash) -> String {
        let name = hash.hex();
        format!("{}/{name}", &name[..2])
    }

    fn path(&self, hash: Hash) -> PathBuf {
        self.root.join(Self::name(hash))
    }

    /// Whether there is a file for this body.
    pub(super) fn has(&self, hash: Hash) -> bool {
        self.path(hash).exists()
    }

    /// Keeps these bytes, durably before it returns.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<Hash, Failure> {
        let hash = Hash::of(bytes);
        let unfinished = {
            let mut turn = self.turn.lock();
            if self.is_there(hash, bytes.len() as u64)? {
                return Ok(hash);
            }
            *turn += 1;
            self.root.join(format!("{UNFINISHED}{turn}"))
        };
        let written = self.write(&unfinished, bytes).and_then(|()| self.publish(&unfinished, hash));
        if written.is_err() {
            // The first error counts; what is left is removed when the folder is opened again.
            let _ = fs::remove_file(&unfinished);
        }
        written.map(|()| hash).map_err(|error| at(&self.path(hash), error))
    }

    /// Whether the body is there. It counts as put anew, so that no prune takes it from under whoever asked.
    fn is_there(&self, hash: Hash, size: u64) -> Result<bool, Failure> {
        let path = self.path(hash);
        match fs::metadata(&path) {
            Ok(found) if found.len() == size => {
                File::open(&path)?.set_modified(SystemTime::now())?;
                Ok(true)
            }
            // A file of another length was damaged: it is replaced.
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&path, error)),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        match self.sync {
            Sync::Full => file.sync_all(),
            Sync::Off => Ok(()),
        }
    }

    /// Gives a whole file its name. A name is durable once its folder is synced.
    fn publish(&self, unfinished: &Path, hash: Hash) -> io::Result<()> {
        let path = self.path(hash);
        let folder = path.parent().unwrap_or(&self.root);
        let is_new = !folder.exists();
        fs::create_dir_all(folder)?;
        let _turn = self.turn.lock();
        fs::rename(unfinished, &path)?;
        if self.sync == Sync::Full {
            File::open(folder)?.sync_all()?;
            if is_new {
                File::open(&self.root)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// The bytes under this hash, checked against it; `None` where there are none.
    pub(super) fn read(&self, hash: Hash) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(hash);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, error)),
        };
        if Hash::of(&bytes) != hash {
            let detail = format!("{} does not hold what its name says", path.display());
            return Err(Failure::corrupt(detail));
        }
        Ok(Some(bytes))
    }

    /// Removes a body that nobody refers to, unless it was put lately. Returns the bytes that this freed.
    pub(super) fn remove(&self, hash: Hash) -> Result<Option<u64>, Failure> {
        let _turn = self.turn.lock();
        let path = self.path(hash);
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, error)),
        };
        let age = found.modified()?.elapsed().unwrap_or_default();
        if age < UNREFERRED_KEPT {
            return Ok(None);
        }
        fs::remove_file(&path).map_err(|error| at(&path, error))?;
        Ok(Some(found.len()))
    }

    /// The hashes of all files.
    pub(super) fn list(&self) -> Result<Vec<Hash>, Failure> {
        let mut hashes = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                hashes.extend(Hash::from_hex(&file?.file_name().to_string_lossy()));
            }
        }
        Ok(hashes)
    }
}

fn at(path: &Path, error: io::Error) -> Failure {
    let mut failure = Failure::from(error);
    failure.detail = format!("{}: {}", path.display(), failure.detail);
    // A body that could not be written says nothing about the database.
    if failure.kind == Kind::Io {
        failure.kind = Kind::Data;
    }
    failure
}
