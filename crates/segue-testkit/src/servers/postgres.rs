//! A PostgreSQL of one's own.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept};
use super::{STARTS, port, secret};
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
    port: u16,
    running: Mutex<Option<Kept>>,
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
        let mut server = Postgres {
            folder,
            account,
            programs,
            options,
            password,
            port: 0,
            running: Mutex::new(None),
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
        *self.running.lock() = Some(kept);
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
        lines.extend(self.options.configuration.iter().cloned());
        self.folder.write("data/postgresql.conf", &(lines.join("\n") + "\n"), &self.account);
        let hosts = "host all all 127.0.0.1/32 scram-sha-256\n\
                     host replication all 127.0.0.1/32 scram-sha-256\n";
        self.folder.write("data/pg_hba.conf", hosts, &self.account);
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

    /// The URL of a database by way of another address, such as a proxy's.
    pub fn url_by(&self, address: &str, database: &str) -> String {
        format!("postgresql://{USER}:{}@{address}/{database}", self.password)
    }

    /// The URL of a fresh, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self) -> String {
        let name = self.database_name().await;
        self.url(&name)
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

    /// A client program of PostgreSQL's, which connects to this server.
    fn client(&self, name: &str) -> std::process::Command {
        let mut command = keeper::clean(&self.account, &self.programs.join(name));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        command.env("PGUSER", USER).env("PGPASSWORD", &self.password).env("PGDATABASE", "postgres");
        command.current_dir(self.folder.path());
        command
    }

    /// Ends it by SIGKILL, with all its processes.
    pub async fn kill(&self) {
        let running = self.running.lock().take();
        end(running).await;
    }

    /// Starts it again on the same port, and returns once it takes connections: after it has recovered what was committed.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn start_again(&self) {
        assert!(self.running.lock().is_none(), "it runs: kill it before");
        if let Err(why) = self.try_start().await {
            panic!("{why}");
        }
    }

    /// Stops all its processes where they stand: connections stay open, and nothing is answered. Until [`Postgres::go_on`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self) {
        self.running.lock().as_mut().expect("it runs").stop();
    }

    /// Lets it go on after [`Postgres::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.running.lock().as_mut().expect("it runs").go_on();
    }

    /// What it has said since it was started last.
    pub fn log(&self) -> String {
        self.running.lock().as_ref().map(Kept::said).unwrap_or_default()
    }
}

/// Waits for the end of a killed server on a thread where waiting keeps nobody else from going on.
pub(super) async fn end(running: Option<Kept>) {
    let end = tokio::task::spawn_blocking(move || drop(running));
    end.await.expect("ending a server does not fail");
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
