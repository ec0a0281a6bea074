//! An S3 of one's own.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept, Running};
use super::tls::{Certificate, Tls};
use super::{STARTS, port, secret};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What it is made of. `cargo xtask servers install` copies this into the folder once everything is there.
const REQUIREMENTS: &str = include_str!("s3/requirements.txt");

/// The application that is served.
const APPLICATION: &str = include_str!("s3/app.py");

/// Makes a bucket: the URL of the server, the file of its authority or nothing, and the name are given as arguments.
const MAKE_BUCKET: &str = "import ssl, sys, urllib.request as ask
url, authority, name = sys.argv[1:]
context = ssl.create_default_context(cafile=authority) if authority else None
made = ask.urlopen(ask.Request(f'{url}/{name}', method='PUT', data=b''), context=context)
assert made.status == 200, made.status";

/// An S3 of one's own: moto in one process that answers one request after the other, so its conditional writes are atomic. It keeps nothing on disk:
/// killed, it has forgotten everything, so what it should remember while it fails is asked through a [`Proxy`](super::Proxy). It ends when this is
/// dropped, or the process dies.
pub struct S3 {
    folder: Folder,
    python: PathBuf,
    access_key: String,
    secret_key: String,
    tls: Option<Tls>,
    port: u16,
    running: Running,
}

impl S3 {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start, with what it said; or when it is not installed.
    pub async fn start() -> S3 {
        S3::start_with(false).await
    }

    /// Starts one that takes connections by TLS only, where that is wanted. [`S3::authority`] is whom its certificate is signed by then.
    ///
    /// # Panics
    /// As [`S3::start`] does.
    pub async fn start_with(tls: bool) -> S3 {
        let python = installed();
        let folder = Folder::new();
        folder.write("app.py", APPLICATION, &Account::Ours);
        let (access_key, secret_key) = (secret(), secret());
        let running = Running::default();
        let tls = tls.then(|| Tls::make(&folder, &Account::Ours));
        let mut server = S3 { folder, python, access_key, secret_key, tls, port: 0, running };
        let mut why = String::new();
        for _ in 0..STARTS {
            server.port = port::free();
            match server.try_start().await {
                Ok(()) => return server,
                Err(failure) => why = failure,
            }
        }
        panic!("{why}");
    }

    async fn try_start(&self) -> Result<(), String> {
        let address = self.address();
        let words = ["-m", "gunicorn", "--workers", "1", "--worker-class", "sync", "--preload"];
        let mut arguments: Vec<OsString> = words.map(OsString::from).to_vec();
        if let Some(tls) = &self.tls {
            arguments.extend(["--certfile".into(), tls.certificate.clone().into()]);
            arguments.extend(["--keyfile".into(), tls.key.clone().into()]);
        }
        arguments.extend(["--bind", &address, "app:app"].map(OsString::from));
        let account = Account::Ours;
        let kept = Kept::start("s3", &self.folder, &account, &self.python, &arguments, &[]);
        // The application is loaded before the worker is started.
        kept.until_ready(|kept| kept.said().contains("Booting worker")).await?;
        self.running.set(kept);
        Ok(())
    }

    /// Its address, `127.0.0.1:PORT`: what a [`Proxy`](super::Proxy) is put before.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL, without a bucket.
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The file with the certificate of the authority that signed its own, where it has TLS.
    ///
    /// # Panics
    /// When it was started without.
    pub fn authority(&self) -> &Path {
        &self.tls.as_ref().expect("it was started with TLS").authority
    }

    /// Shows this certificate from now on: it is started again with it, and has forgotten everything.
    ///
    /// # Panics
    /// When it was started without TLS, or does not start.
    pub async fn show(&self, certificate: Certificate) {
        let tls = self.tls.as_ref().expect("it was started with TLS");
        tls.replace(certificate, &self.folder, &Account::Ours);
        self.kill().await;
        self.start_again().await;
    }

    /// The key id that clients give. It takes any.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret that clients sign with.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The name of a fresh, empty bucket.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn bucket(&self) -> String {
        let name = format!("t-{}", secret());
        let authority = self.tls.as_ref().map_or(Path::new(""), |tls| &tls.authority);
        let mut command = keeper::clean(&Account::Ours, &self.python);
        command.args(["-c", MAKE_BUCKET, &self.endpoint()]).arg(authority).arg(&name);
        keeper::run(command).await;
        name
    }

    /// What a program in Python prints that has boto3 and, in its environment, this server's endpoint and keys. It is given as its text.
    ///
    /// # Panics
    /// When the program fails, with what it said.
    pub async fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = keeper::clean(&Account::Ours, &self.python);
        command.args(["-c", program]).args(arguments).current_dir(self.folder.path());
        command.env("AWS_ENDPOINT_URL", self.endpoint()).env("AWS_DEFAULT_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", &self.access_key);
        command.env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
        String::from_utf8_lossy(&keeper::run(command).await.stdout).into_owned()
    }

    /// What it is, and its version.
    ///
    /// # Panics
    /// When its packages say nothing of it.
    pub async fn version(&self) -> String {
        let said = self.ask("import moto; print('moto', moto.__version__)", &[]).await;
        said.trim().to_owned()
    }

    /// Ends it by SIGKILL.
    pub async fn kill(&self) {
        self.running.kill().await;
    }

    /// Starts it again on the same port, empty, and returns once it takes connections.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn start_again(&self) {
        assert!(!self.running.is_up(), "it runs: kill it before");
        if let Err(why) = self.try_start().await {
            panic!("{why}");
        }
    }

    /// Stops it where it stands: connections stay open, and nothing is answered. Until [`S3::go_on`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.running.stop();
    }

    /// Lets it go on after [`S3::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.running.go_on();
    }
}

/// The Python of the folder into which `cargo xtask servers install` puts everything: the same folder for every clone of one user.
fn installed() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let cache = cache.map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").filter(|path| !path.is_empty())?;
        Some(PathBuf::from(home).join(".cache"))
    });
    let folder = cache.unwrap_or_else(std::env::temp_dir).join("segue-tests").join("s3");
    let there = std::fs::read_to_string(folder.join("requirements.txt")).unwrap_or_default();
    assert!(
        there == REQUIREMENTS,
        "the S3 server of the tests is not installed, or another version of it is. To install it: cargo xtask servers install"
    );
    folder.join("bin").join("python")
}
