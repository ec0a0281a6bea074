//! The folder of a server, and the account that it runs as.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Each folder's name starts so, and nothing else is ever removed by a keeper.
pub const PREFIX: &str = "segue-server-";

/// A folder that goes when it is dropped.
pub struct Folder {
    folder: TempDir,
}

impl Folder {
    /// An empty folder, into which only its owner can write.
    pub fn new() -> Folder {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir();
        let folder = folder.expect("a temporary folder can be made");
        // Other accounts pass through it to the folders that are theirs.
        set_mode(folder.path(), 0o711);
        Folder { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder in it, for nobody but this account.
    pub fn private(&self, name: &str, account: &Account) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder can be made");
        set_mode(&path, 0o700);
        account.own(&path);
        path
    }

    /// Writes a file for nobody but this account.
    pub fn write(&self, name: &str, text: &str, account: &Account) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a file can be written");
        set_mode(&path, 0o600);
        account.own(&path);
        path
    }
}

fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("permissions can be set");
}

/// Whom a server runs as.
pub enum Account {
    /// Whoever runs the test.
    Ours,
    /// Another one, because the test runs as root and the server refuses to.
    Other {
        /// Its user.
        user: u32,
        /// Its group.
        group: u32,
    },
}

impl Account {
    /// The account of this name, or nobody's, where the test runs as root; else our own.
    pub fn unless_root(name: &str) -> Account {
        if !nix::unistd::geteuid().is_root() {
            return Account::Ours;
        }
        let of = |name| nix::unistd::User::from_name(name).ok().flatten();
        let Some(user) = of(name).or_else(|| of("nobody")) else {
            panic!("this server does not run as root, and there is no user {name}, nor nobody");
        };
        Account::Other { user: user.uid.as_raw(), group: user.gid.as_raw() }
    }

    fn own(&self, path: &Path) {
        if let Account::Other { user, group } = self {
            chown(path, Some(*user), Some(*group)).expect("root can give a file away");
        }
    }

    /// The words before a command by which it runs as this account, and does not outlive who starts it.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned(), "--pdeathsig".to_owned(), "KILL".to_owned()];
        if let Account::Other { user, group } = self {
            words.push(format!("--reuid={user}"));
            words.push(format!("--regid={group}"));
            words.push("--clear-groups".to_owned());
        }
        words
    }
}
