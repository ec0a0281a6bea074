//! `cargo xtask servers`: the programs that tests start as servers of their own, and how they get here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec::passes;

/// What the S3 server is made of. The tests look for a copy of it beside what is installed.
const REQUIREMENTS: &str =
    include_str!("../../crates/segue-testkit/src/servers/s3/requirements.txt");

/// A program that tests start, and the package of Debian's that brings it.
struct Needed {
    program: &'static str,
    package: &'static str,
}

const NEEDED: [Needed; 10] = [
    Needed { program: "postgres", package: "postgresql" },
    Needed { program: "createdb", package: "postgresql" },
    Needed { program: "rabbitmq-server", package: "rabbitmq-server" },
    Needed { program: "erl_call", package: "rabbitmq-server" },
    Needed { program: "redis-server", package: "redis-server" },
    Needed { program: "redis-cli", package: "redis-tools" },
    Needed { program: "redis-sentinel", package: "redis-sentinel" },
    // For one node of a chaos run, whose clock is off.
    Needed { program: "faketime", package: "faketime" },
    Needed { program: "setpriv", package: "util-linux" },
    // With it the tests look at the certificates of the servers.
    Needed { program: "openssl", package: "openssl" },
];

/// Answered by this to every question whether a package may start its services: never. The tests start their own.
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What is missing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    packages: Vec<&'static str>,
    s3: bool,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        self.packages.is_empty() && !self.s3
    }
}

/// `cargo xtask servers`: says what is missing; with `install` brings it. True when nothing is missing in the end.
pub fn run(install: bool) -> Result<bool> {
    let missing = missing();
    if missing.is_nothing() {
        println!("every server that the tests start is installed");
        return Ok(true);
    }
    if !install {
        println!("{}", how(&missing));
        return Ok(false);
    }
    install_all(&missing)?;
    Ok(true)
}

/// Before the tests run: what is missing is installed where this can be done without asking anybody. What is missing then is said, and the
/// tests that need it fail.
pub fn prepare() {
    let missing = missing();
    if missing.is_nothing() {
        return;
    }
    if !missing.packages.is_empty() && as_root().is_none() {
        eprintln!("{}", how(&missing));
        return;
    }
    println!("the servers that the tests start are installed first: {}", names(&missing));
    if let Err(error) = install_all(&missing) {
        eprintln!("{error:#}\n{}", how(&missing));
    }
}

fn names(missing: &Missing) -> String {
    let mut names = missing.packages.clone();
    if missing.s3 {
        names.push("the S3 server (moto)");
    }
    names.join(", ")
}

fn how(missing: &Missing) -> String {
    let mut text = format!(
        "servers that the tests start are missing: {}\nto install them: cargo xtask servers install",
        names(missing)
    );
    if !missing.packages.is_empty() {
        let packages = missing.packages.join(" ");
        text.push_str(&format!(
            "\nor, as root: apt-get install --no-install-recommends {packages}"
        ));
    }
    text
}

fn missing() -> Missing {
    let s3 = !s3_is_there(&s3_folder());
    let mut packages: Vec<&'static str> = Vec::new();
    for needed in &NEEDED {
        if !packages.contains(&needed.package) && !is_there(needed.program) {
            packages.push(needed.package);
        }
    }
    if s3 && !python_imports("ensurepip, venv") {
        packages.push("python3-venv");
    }
    // For the agent in Python that docs/wire.md shows.
    if !python_imports("pika") {
        packages.push("python3-pika");
    }
    Missing { packages, s3 }
}

/// Whether a program lies on the path, or where Debian's packages put servers.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(versions.map(|version| version.path().join("bin")));
    places.iter().any(|place| place.join(program).is_file())
}

/// The words before a command that make it root's: none where we are root; `None` where that would need a password.
fn as_root() -> Option<Vec<&'static str>> {
    let says = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if says("id", &["-u"]).as_deref() == Some("0") {
        return Some(Vec::new());
    }
    says("sudo", &["-n", "true"]).map(|_| vec!["sudo", "-n"])
}

fn install_all(missing: &Missing) -> Result<()> {
    if !missing.packages.is_empty() {
        install_packages(&missing.packages)?;
    }
    if missing.s3 {
        install_s3(&s3_folder())?;
    }
    Ok(())
}

/// Installs packages of Debian's without letting them start services.
fn install_packages(packages: &[&str]) -> Result<()> {
    let Some(root) = as_root() else {
        bail!(
            "to install {} this must run as root, or by a user who may use sudo without a password",
            packages.join(", ")
        );
    };
    if !is_there("apt-get") {
        bail!("this is no Debian: install {} as this system does", packages.join(", "));
    }
    let ours = !Path::new(POLICY).exists();
    if ours {
        let write = format!("printf '%s' '{NO_SERVICES}' > {POLICY} && chmod 755 {POLICY}");
        privileged(&root, &["sh", "-c", &write])?;
    }
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let update = privileged(&root, &[&apt[..], &["update"]].concat());
    let flags = ["install", "-y", "--no-install-recommends"];
    let install =
        update.and_then(|()| privileged(&root, &[&apt[..], &flags[..], packages].concat()));
    if ours {
        privileged(&root, &["rm", "-f", POLICY])?;
    }
    install
}

/// `cargo xtask servers rabbitmq4`: a newer Debian in a folder, with its RabbitMQ, which the tests start instead of the system's when told so.
pub fn rabbitmq4() -> Result<bool> {
    let Some(root) = as_root() else {
        bail!("this must run as root, or by a user who may use sudo without a password");
    };
    let folder = cache().join("trixie");
    let path = folder.to_str().context("the cache's path is no text")?;
    if !folder.join("usr/lib/rabbitmq/bin/rabbitmq-server").is_file() {
        if !is_there("debootstrap") {
            install_packages(&["debootstrap"])?;
        }
        std::fs::create_dir_all(cache()).context("the cache cannot be made")?;
        if !folder.join("usr/bin/apt-get").is_file() {
            privileged(&root, &["debootstrap", "--variant=minbase", "trixie", path])?;
        }
        let policy =
            format!("printf '%s' '{NO_SERVICES}' > {path}{POLICY} && chmod 755 {path}{POLICY}");
        privileged(&root, &["sh", "-c", &policy])?;
        // What is mounted for the installation goes with its process.
        let install = "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && \
                       exec chroot \"$1\" env DEBIAN_FRONTEND=noninteractive \
                       apt-get install -y --no-install-recommends rabbitmq-server";
        let unshare = ["unshare", "--mount", "--propagation", "private"];
        privileged(&root, &[&unshare[..], &["sh", "-c", install, "sh", path]].concat())?;
    }
    println!(
        "to run tests on it, as root: SEGUE_RABBITMQ_ROOT={path} cargo xtask test on_rabbitmq"
    );
    Ok(true)
}

fn privileged(root: &[&str], words: &[&str]) -> Result<()> {
    let words = [root, words].concat();
    let Some((program, arguments)) = words.split_first() else {
        bail!("no command");
    };
    if !passes(Command::new(program).args(arguments))? {
        bail!("{} failed", words.join(" "));
    }
    Ok(())
}

/// Where what is installed for the tests lies: one place for every clone of one user. The tests look there as well.
fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let cache = cache.map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").filter(|path| !path.is_empty())?;
        Some(PathBuf::from(home).join(".cache"))
    });
    cache.unwrap_or_else(std::env::temp_dir).join("segue-tests")
}

fn s3_folder() -> PathBuf {
    cache().join("s3")
}

fn s3_is_there(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("requirements.txt"))
        .is_ok_and(|there| there == REQUIREMENTS)
}

/// The system's Python before others: packages of Debian's belong to it.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").is_file() { "/usr/bin/python3" } else { "python3" }
}

fn python_imports(modules: &str) -> bool {
    let has = Command::new(python()).args(["-c", &format!("import {modules}")]).output();
    has.is_ok_and(|output| output.status.success())
}

/// Makes a Python environment of its own with everything in it. Who comes second waits, and finds it done.
fn install_s3(folder: &Path) -> Result<()> {
    let parent = folder.parent().context("the cache has a parent")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("{} cannot be made", parent.display()))?;
    let lock = File::create(parent.join("s3.lock")).context("a lock cannot be made")?;
    lock.lock().context("the lock cannot be taken")?;
    if s3_is_there(folder) {
        return Ok(());
    }
    // Half of an earlier try would be in the way.
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    if !passes(Command::new(python()).args(["-m", "venv"]).arg(folder))? {
        bail!("python3 makes no environment: install Debian's package python3-venv");
    }
    let requirements = folder.join("to-install.txt");
    std::fs::write(&requirements, REQUIREMENTS).context("a file cannot be written")?;
    let mut pip = Command::new(folder.join("bin").join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    if !passes(pip.arg(&requirements))? {
        bail!("pip did not install the S3 server of the tests");
    }
    // The last step: from here on it counts as there.
    std::fs::rename(requirements, folder.join("requirements.txt"))
        .context("a file cannot be renamed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_command_that_brings_it() {
        let missing = Missing { packages: vec!["postgresql", "redis-server"], s3: true };
        let how = how(&missing);
        assert!(how.contains("postgresql, redis-server, the S3 server (moto)"), "{how}");
        assert!(how.contains("cargo xtask servers install"), "{how}");
        assert!(how.contains("apt-get install --no-install-recommends postgresql redis-server"));
        assert!(Missing::default().is_nothing() && !missing.is_nothing());
    }

    #[test]
    fn an_environment_counts_only_when_all_of_it_is_there() {
        let folder = std::env::temp_dir().join(format!("segue-xtask-{}", std::process::id()));
        assert!(!s3_is_there(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("requirements.txt"), "another==1").unwrap();
        assert!(!s3_is_there(&folder));
        std::fs::write(folder.join("requirements.txt"), REQUIREMENTS).unwrap();
        assert!(s3_is_there(&folder));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
