//! A PostgreSQL of one's own.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept, Running};
use super::tls::{Certificate, Tls};
use super::{STARTS, port, secret, until_it_is};
use parking_lot::Mutex;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const PACKAGE: &str = "postgresql";

/// Its superuser, as whom the tests speak to it.
const USER: &str = "segue";

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Whether a commit waits for the disk. Tests of what is lost by a crash of the machine, and measurements, need it; a killed server loses nothing
    /// either way.
    pub fsync: bool,
    /// Whether it takes connections by TLS only. [`Postgres::authority`] is whom its certificate is signed by.
    pub tls: bool,
    /// More lines for its configuration, such as `log_statement = all`.
    pub configuration: Vec<String>,
}

/// A PostgreSQL of one's own. It ends when this is dropped, or the process dies.
pub struct Postgres {
    folder: Folder,
    account: Account,
    programs: PathBuf,
    options: PostgresOptions,
    password: String,
    tls: Option<Tls>,
    port: u16,
    /// The standby that each commit waits for.
    waits_for: Mutex<Option<String>>,
    running: Running,
}

impl Postgres {
    /// Starts one that does not wait for the disk.
    ///
    /// # Panics
    /// When it does not start, with what it said; or when PostgreSQL is not installed.
    pub async fn start() -> Postgres {
        Postgres::start_with(PostgresOptions::default()).await
    }

    /// Starts one with these options.
    ///
    /// # Panics
    /// As [`Postgres::start`] does.
    pub async fn start_with(options: PostgresOptions) -> Postgres {
        let programs = programs();
        let account = Account::unless_root("postgres");
        let folder = Folder::new();
        let password = secret();
        init(&folder, &account, &programs, &password).await;
        let tls = options.tls.then(|| Tls::make(&folder, &account));
        let mut server = Postgres {
            folder,
            account,
            programs,
            options,
            password,
            tls,
            port: 0,
            waits_for: Mutex::new(None),
            running: Running::default(),
        };
        server.start_on_a_free_port().await;
        server
    }

    async fn start_on_a_free_port(&mut self) {
        let mut why = String::new();
        for _ in 0..STARTS {
            self.port = port::free();
            match self.try_start().await {
                Ok(()) => return,
                Err(failure) => why = failure,
            }
        }
        panic!("{why}");
    }

    async fn try_start(&self) -> Result<(), String> {
        self.configure();
        // Left behind by a killed one: it would be read as if it were the new one's.
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let arguments = [OsString::from("-D"), self.data().into()];
        let program = self.programs.join("postgres");
        let kept = Kept::start("postgres", &self.folder, &self.account, &program, &arguments, &[]);
        let pid_file = self.data().join("postmaster.pid");
        kept.until_ready(|_| is_ready(&pid_file)).await?;
        self.running.set(kept);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes its configuration, which is read when it starts.
    fn configure(&self) {
        let disk = if self.options.fsync { "on" } else { "off" };
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {}", self.port),
            "unix_socket_directories = ''".to_owned(),
            "max_connections = 200".to_owned(),
            "shared_buffers = 64MB".to_owned(),
            format!("fsync = {disk}"),
            format!("full_page_writes = {disk}"),
            "wal_level = replica".to_owned(),
            "log_line_prefix = '%m [%p] %d '".to_owned(),
            "lc_messages = 'C'".to_owned(),
        ];
        let mut kind = "host";
        if let Some(tls) = &self.tls {
            kind = "hostssl";
            lines.push("ssl = on".to_owned());
            lines.push(format!("ssl_cert_file = '{}'", tls.certificate.display()));
            lines.push(format!("ssl_key_file = '{}'", tls.key.display()));
        }
        if let Some(standby) = &*self.waits_for.lock() {
            lines.push(format!("synchronous_standby_names = '{standby}'"));
        }
        lines.extend(self.options.configuration.iter().cloned());
        self.folder.write("data/postgresql.conf", &(lines.join("\n") + "\n"), &self.account);
        let hosts = format!(
            "{kind} all all 127.0.0.1/32 scram-sha-256\n{kind} replication all 127.0.0.1/32 scram-sha-256\n"
        );
        self.folder.write("data/pg_hba.conf", &hosts, &self.account);
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, `127.0.0.1:PORT`: what a [`Proxy`](super::Proxy) is put before.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of a database of this name, which may not be there yet.
    pub fn url(&self, database: &str) -> String {
        self.url_by(&self.address(), database)
    }

    /// The URL of a database by way of another address, such as a proxy's, or of several with commas between them: a standby has the
    /// password of its primary.
    pub fn url_by(&self, address: &str, database: &str) -> String {
        let mode = if self.tls.is_some() { "?sslmode=require" } else { "" };
        format!("postgresql://{USER}:{}@{address}/{database}{mode}", self.password)
    }

    /// The file with the certificate of the authority that signed its own, where it has TLS.
    ///
    /// # Panics
    /// When it was started without.
    pub fn authority(&self) -> &Path {
        &self.tls.as_ref().expect("it was started with TLS").authority
    }

    /// The URL of a fresh, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self) -> String {
        let name = self.database_name().await;
        self.url(&name)
    }

    /// Shows this certificate from now on: it is started again with it.
    ///
    /// # Panics
    /// When it was started without TLS, or does not start.
    pub async fn show(&self, certificate: Certificate) {
        let tls = self.tls.as_ref().expect("it was started with TLS");
        tls.replace(certificate, &self.folder, &self.account);
        self.kill().await;
        self.start_again().await;
    }

    /// The name of a fresh, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database_name(&self) -> String {
        let name = format!("t_{}", secret());
        let mut command = self.client("createdb");
        command.args(["--template=template0", &name]);
        keeper::run(command).await;
        name
    }

    /// Whether a database of this name is there.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn has(&self, database: &str) -> bool {
        let mut command = self.client("psql");
        command.args(["--list", "--tuples-only", "--no-align", "--field-separator=|"]);
        let output = keeper::run(command).await;
        let list = String::from_utf8_lossy(&output.stdout);
        list.lines().any(|line| line.split('|').next() == Some(database))
    }

    /// A client program of PostgreSQL's, which connects to this server.
    fn client(&self, name: &str) -> std::process::Command {
        let mut command = keeper::clean(&self.account, &self.programs.join(name));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        command.env("PGUSER", USER).env("PGPASSWORD", &self.password).env("PGDATABASE", "postgres");
        if self.tls.is_some() {
            command.env("PGSSLMODE", "require");
        }
        command.current_dir(self.folder.path());
        command
    }

    /// Starts a standby that follows this server from a copy of it, and returns once it follows. Where it is synchronous, each commit here waits
    /// from then on until the standby has it on its disk: also for ever, when the standby is gone.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub async fn standby(&self, synchronous: bool) -> Postgres {
        let name = format!("standby_{}", secret());
        let folder = Folder::new();
        let account = Account::unless_root("postgres");
        let data = folder.private("data", &account);
        let mut copy = self.client("pg_basebackup");
        copy.args([
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
            "--write-recovery-conf",
        ]);
        copy.args(["--create-slot", "--slot", &name]).arg("--pgdata").arg(data);
        // By this name the primary knows it.
        copy.env("PGAPPNAME", &name).env_remove("PGDATABASE").current_dir(folder.path());
        keeper::run(copy).await;
        let mut standby = Postgres {
            tls: self.tls.is_some().then(|| Tls::make(&folder, &account)),
            folder,
            account,
            programs: self.programs.clone(),
            options: self.options.clone(),
            password: self.password.clone(),
            port: 0,
            waits_for: Mutex::new(None),
            running: Running::default(),
        };
        standby.start_on_a_free_port().await;
        let follows = async || standby.log().contains("started streaming WAL from primary");
        until_it_is("a standby that follows", follows).await;
        if synchronous {
            *self.waits_for.lock() = Some(name.clone());
            self.configure();
            self.control("reload").await;
            let sign = format!("standby \"{name}\" is now a synchronous standby");
            until_it_is("a synchronous standby", async || self.log().contains(&sign)).await;
        }
        standby
    }

    /// Makes a primary of a standby, and returns once it takes writes. The old primary must be gone: nothing keeps it from taking writes as well.
    ///
    /// # Panics
    /// When it is no standby.
    pub async fn promote(&self) {
        self.control("promote").await;
    }

    async fn control(&self, what: &str) {
        let mut command = keeper::clean(&self.account, &self.programs.join("pg_ctl"));
        command.arg(what).arg("-D").arg(self.data()).current_dir(self.folder.path());
        keeper::run(command).await;
    }

    /// Ends it by SIGKILL, with all its processes.
    pub async fn kill(&self) {
        self.running.kill().await;
    }

    /// Starts it again on the same port, and returns once it takes connections: after it has recovered what was committed.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn start_again(&self) {
        assert!(!self.running.is_up(), "it runs: kill it before");
        if let Err(why) = self.try_start().await {
            panic!("{why}");
        }
    }

    /// Stops all its processes where they stand: connections stay open, and nothing is answered. Until [`Postgres::go_on`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.running.stop();
    }

    /// Lets it go on after [`Postgres::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.running.go_on();
    }

    /// What it has said since it was started last.
    pub fn log(&self) -> String {
        self.running.said()
    }
}

/// Makes an empty data folder.
async fn init(folder: &Folder, account: &Account, programs: &Path, password: &str) {
    let data = folder.private("data", account);
    let password = folder.write("password", password, account);
    let mut command = keeper::clean(account, &programs.join("initdb"));
    command.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
    command.arg("--username").arg(USER).arg("--pwfile").arg(&password).arg("-D").arg(&data);
    command.current_dir(folder.path());
    keeper::run(command).await;
    std::fs::remove_file(password).expect("a file can be removed");
}

/// Whether the file by which a server tells how far it is says that it takes connections: its eighth line.
fn is_ready(pid_file: &Path) -> bool {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
}

/// The folder of the newest version's programs, of which only some are on the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort();
    let bins: Vec<PathBuf> = versions.into_iter().rev().map(|(_, path)| path.join("bin")).collect();
    let postgres = keeper::program("postgres", &bins, PACKAGE);
    postgres.parent().expect("a program lies in a folder").to_owned()
}
