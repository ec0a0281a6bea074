//! A RabbitMQ of one's own: one node, or a cluster.

use super::folder::{Account, Folder};
use super::keeper::{self, Kept, Running};
use super::tls::{Certificate, Tls};
use super::{STARTS, port, secret, until_it_is};
use futures_util::future::join_all;
use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const PACKAGE: &str = "rabbitmq-server";

/// Where Debian's package has the program itself; what lies on the path only lets root and one account in.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// Names, in the environment, the folder of another Debian, whose RabbitMQ is started instead of the system's.
const ROOT: &str = "SEGUE_RABBITMQ_ROOT";

/// Starts the server in another Debian, which sees the server's folder where it is. What is mounted goes with the process.
const IN_ROOT: &str = r#"
root=$1
folder=$2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
exec chroot "$root" /usr/lib/rabbitmq/bin/rabbitmq-server
"#;

/// The only user, an administrator with a password of the server's own; guest is never made.
const USER: &str = "segue";

/// What a broker is started with.
#[derive(Clone, Debug)]
pub struct RabbitMqOptions {
    /// Nodes of its cluster.
    pub nodes: usize,
    /// Whether they take connections by TLS only. [`RabbitMq::authority`] is whom their certificate is signed by.
    pub tls: bool,
    /// More lines for the configuration of each, such as `heartbeat = 5`.
    pub configuration: Vec<String>,
}

impl Default for RabbitMqOptions {
    fn default() -> RabbitMqOptions {
        RabbitMqOptions { nodes: 1, tls: false, configuration: Vec::new() }
    }
}

/// One node.
struct Node {
    name: String,
    port: u16,
    dist_port: u16,
    running: Running,
}

/// A RabbitMQ of one's own. It ends when this is dropped, or the process dies.
pub struct RabbitMq {
    // Ended in this order: the nodes before the service that knows where they are.
    nodes: Vec<Node>,
    names: Names,
    folder: Folder,
    options: RabbitMqOptions,
    password: String,
    tls: Option<Tls>,
}

/// The service by which the nodes find each other.
struct Names {
    port: u16,
    _epmd: Kept,
}

impl RabbitMq {
    /// Starts one of a single node.
    ///
    /// # Panics
    /// When it does not start, with what it said; or when RabbitMQ is not installed.
    pub async fn start() -> RabbitMq {
        RabbitMq::start_with(RabbitMqOptions::default()).await
    }

    /// Starts a cluster of so many nodes. Each takes some 120 MB.
    ///
    /// # Panics
    /// As [`RabbitMq::start`] does.
    pub async fn cluster(nodes: usize) -> RabbitMq {
        RabbitMq::start_with(RabbitMqOptions { nodes, ..RabbitMqOptions::default() }).await
    }

    /// Starts one with these options.
    ///
    /// # Panics
    /// As [`RabbitMq::start`] does.
    pub async fn start_with(options: RabbitMqOptions) -> RabbitMq {
        let mut why = String::new();
        for _ in 0..STARTS {
            match RabbitMq::try_start(&options).await {
                Ok(server) => return server,
                Err(failure) => why = failure,
            }
        }
        panic!("{why}");
    }

    async fn try_start(options: &RabbitMqOptions) -> Result<RabbitMq, String> {
        let folder = Folder::new();
        folder.private("home", &Account::Ours);
        let cookie = folder.write("home/.erlang.cookie", &secret(), &Account::Ours);
        read_only(&cookie);
        folder.write("plugins", "[].\n", &Account::Ours);
        let names = Names::start(&folder).await?;
        let node = |number| Node {
            name: format!("n{number}@localhost"),
            port: port::free(),
            dist_port: port::free(),
            running: Running::default(),
        };
        let server = RabbitMq {
            nodes: (1..=options.nodes).map(node).collect(),
            names,
            tls: options.tls.then(|| Tls::make(&folder, &Account::Ours)),
            folder,
            options: options.clone(),
            password: secret(),
        };
        // All at once: each looks for the others, and one of them makes the cluster.
        let nodes = server.nodes.iter().map(|node| server.start_node(node));
        join_all(nodes).await.into_iter().collect::<Result<(), String>>()?;
        Ok(server)
    }

    async fn start_node(&self, node: &Node) -> Result<(), String> {
        let configuration = self.configure(node);
        let file = |name: &str| OsString::from(self.folder.path().join(name));
        let environment = [
            ("HOME", file("home")),
            ("ERL_EPMD_PORT", self.names.port.to_string().into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", OsString::from(&node.name)),
            ("RABBITMQ_DIST_PORT", node.dist_port.to_string().into()),
            ("RABBITMQ_MNESIA_BASE", file("mnesia")),
            ("RABBITMQ_LOG_BASE", file("log")),
            ("RABBITMQ_PID_FILE", file(&format!("{}.pid", node.name))),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins")),
            ("RABBITMQ_CONFIG_FILE", configuration.into()),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", file("none.config")),
            ("RABBITMQ_CONF_ENV_FILE", file("none.env")),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 1:1 +sbwt none -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
                    .into(),
            ),
        ];
        let (program, arguments) = self.program();
        let account = Account::Ours;
        let folder = &self.folder;
        let kept = Kept::start("rabbitmq", folder, &account, &program, &arguments, &environment);
        kept.until_ready(|kept| kept.said().contains("Server startup complete")).await?;
        node.running.set(kept);
        Ok(())
    }

    /// What a node is started by: the system's RabbitMQ, or the one in the other Debian that [`ROOT`] names.
    fn program(&self) -> (PathBuf, Vec<OsString>) {
        let Some(root) = std::env::var_os(ROOT).filter(|root| !root.is_empty()) else {
            let program = keeper::program("rabbitmq-server", &[PathBuf::from(PROGRAMS)], PACKAGE);
            return (program, Vec::new());
        };
        let program = Path::new(&root).join(PROGRAMS.trim_start_matches('/'));
        assert!(
            program.join("rabbitmq-server").is_file() && nix::unistd::geteuid().is_root(),
            "{ROOT} is to name a folder with a Debian that has {PACKAGE} in it (cargo xtask servers rabbitmq4), and this to run as root"
        );
        let unshare = keeper::program("unshare", &[], "util-linux");
        let words = ["--mount", "--propagation", "private", "sh", "-e", "-c", IN_ROOT, "sh"];
        let mut arguments: Vec<OsString> = words.map(OsString::from).to_vec();
        arguments.extend([root, self.folder.path().into()]);
        (unshare, arguments)
    }

    fn configure(&self, node: &Node) -> PathBuf {
        let mut lines = match &self.tls {
            None => vec![format!("listeners.tcp.1 = 127.0.0.1:{}", node.port)],
            Some(tls) => vec![
                "listeners.tcp = none".to_owned(),
                format!("listeners.ssl.1 = 127.0.0.1:{}", node.port),
                format!("ssl_options.cacertfile = {}", tls.authority.display()),
                format!("ssl_options.certfile = {}", tls.certificate.display()),
                format!("ssl_options.keyfile = {}", tls.key.display()),
                "ssl_options.verify = verify_none".to_owned(),
            ],
        };
        lines.extend([
            format!("default_user = {USER}"),
            format!("default_pass = {}", self.password),
            "log.file = false".to_owned(),
            "log.console = true".to_owned(),
            "disk_free_limit.absolute = 50MB".to_owned(),
            // What is written ahead is held in memory as well, up to this size.
            "raft.wal_max_size_bytes = 64000000".to_owned(),
        ]);
        if self.nodes.len() > 1 {
            let discovery = "cluster_formation.peer_discovery_backend = classic_config";
            lines.push(discovery.to_owned());
            lines.extend(self.nodes.iter().enumerate().map(|(at, node)| {
                format!("cluster_formation.classic_config.nodes.{} = {}", at + 1, node.name)
            }));
        }
        lines.extend(self.options.configuration.iter().cloned());
        let name = format!("{}.conf", node.name);
        self.folder.write(&name, &(lines.join("\n") + "\n"), &Account::Ours)
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The address of a node, `127.0.0.1:PORT`: what a [`Proxy`](super::Proxy) is put before. The first is number 0.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node].port)
    }

    /// The URL of a fresh, empty vhost, by way of the first node.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn vhost(&self) -> String {
        let name = self.vhost_name().await;
        self.url(0, &name)
    }

    /// The name of a fresh, empty vhost.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn vhost_name(&self) -> String {
        let name = format!("t_{}", secret());
        let all = r#"<<".*">>"#;
        let make = format!(
            r#"rabbit_vhost:add(<<"{name}">>, <<"{USER}">>),
               ok = rabbit_auth_backend_internal:set_permissions(<<"{USER}">>, <<"{name}">>, {all}, {all}, {all}, <<"{USER}">>)."#
        );
        let answer = self.eval(&make).await;
        assert!(answer.contains("ok"), "a vhost was not made: {answer}");
        name
    }

    /// The URL of a vhost of this name by way of a node.
    pub fn url(&self, node: usize, vhost: &str) -> String {
        self.url_by(&self.address(node), vhost)
    }

    /// The URL of a vhost by way of another address, such as a proxy's.
    pub fn url_by(&self, address: &str, vhost: &str) -> String {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        format!("{scheme}://{USER}:{}@{address}/{vhost}", self.password)
    }

    /// The file with the certificate of the authority that signed its own, where it has TLS.
    ///
    /// # Panics
    /// When it was started without.
    pub fn authority(&self) -> &Path {
        &self.tls.as_ref().expect("it was started with TLS").authority
    }

    /// Shows this certificate to whoever connects from now on.
    ///
    /// # Panics
    /// When it was started without TLS, or no node runs.
    pub async fn show(&self, certificate: Certificate) {
        let tls = self.tls.as_ref().expect("it was started with TLS");
        tls.replace(certificate, &self.folder, &Account::Ours);
        // It keeps in memory what it has read.
        self.eval("ssl:clear_pem_cache().").await;
    }

    /// What a running node answers to an Erlang expression, which ends with a full stop: the way to do what a management tool would, such as
    /// `rabbit_amqqueue:count().`
    ///
    /// # Panics
    /// When no node runs or the expression fails.
    pub async fn eval(&self, expression: &str) -> String {
        let node = self.nodes.iter().find(|node| node.running.is_up());
        let node = node.expect("a node runs").name.clone();
        self.eval_on(&node, expression).await
    }

    /// Its version.
    ///
    /// # Panics
    /// When no node runs.
    pub async fn version(&self) -> String {
        let said = self.eval("list_to_atom(rabbit_misc:version()).").await;
        said.trim_matches(|it: char| !it.is_ascii_digit()).to_owned()
    }

    /// Raises the alarm that a node raises when its memory is used up, or ends it: while it lasts, all connections that publish are blocked.
    ///
    /// # Panics
    /// When no node runs.
    pub async fn alarm(&self, raised: bool) {
        let alarm = "{resource_limit, memory, node()}";
        let change = if raised {
            format!("rabbit_alarm:set_alarm({{{alarm}, []}}).")
        } else {
            format!("rabbit_alarm:clear_alarm({alarm}).")
        };
        self.eval(&change).await;
        let now = format!("lists:member({{{alarm}, []}}, rabbit_alarm:get_alarms()).");
        let wanted = format!("{{ok, {raised}}}");
        until_it_is("an alarm", async || self.eval(&now).await == wanted).await;
    }

    async fn eval_on(&self, node: &str, expression: &str) -> String {
        let program = keeper::program("erl_call", &[], "erlang-base");
        let mut command = keeper::clean(&Account::Ours, &program);
        command.args(["-name", node, "-e"]).current_dir(self.folder.path());
        command.env("HOME", self.folder.path().join("home"));
        command.env("ERL_EPMD_PORT", self.names.port.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let expression = format!("{}\n", expression.trim());
        let done = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("erl_call starts");
            let mut input = child.stdin.take().expect("its input is a pipe");
            input.write_all(expression.as_bytes()).expect("erl_call reads");
            drop(input);
            child.wait_with_output().expect("erl_call ends")
        });
        let output = done.await.expect("erl_call runs");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(answer.starts_with("{ok"), "Erlang answers {answer}{errors}");
        answer
    }

    /// Ends all its nodes by SIGKILL.
    pub async fn kill(&self) {
        join_all((0..self.nodes.len()).map(|node| self.kill_node(node))).await;
    }

    /// Starts all nodes that do not run, on the ports they had, and returns once they take connections.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start_again(&self) {
        let down = self.nodes.iter().filter(|node| !node.running.is_up());
        // All at once: those that went last are waited for by the others.
        for started in join_all(down.map(|node| self.start_node(node))).await {
            if let Err(why) = started {
                panic!("{why}");
            }
        }
    }

    /// Ends one node by SIGKILL.
    pub async fn kill_node(&self, node: usize) {
        self.nodes[node].running.kill().await;
    }

    /// Starts a killed node on the ports it had, and returns once it takes connections.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn start_node_again(&self, node: usize) {
        let node = &self.nodes[node];
        assert!(!node.running.is_up(), "it runs: kill it before");
        if let Err(why) = self.start_node(node).await {
            panic!("{why}");
        }
    }

    /// Stops a node where it stands: its connections stay open, and nothing is answered. Until [`RabbitMq::go_on`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&self, node: usize) {
        self.nodes[node].running.stop();
    }

    /// Lets a node go on after [`RabbitMq::stop`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self, node: usize) {
        self.nodes[node].running.go_on();
    }

    /// What a node has said since it was started last.
    pub fn log(&self, node: usize) -> String {
        self.nodes[node].running.said()
    }
}

impl Names {
    async fn start(folder: &Folder) -> Result<Names, String> {
        let port = port::free();
        let program = keeper::program("epmd", &[], "erlang-base");
        let arguments = ["-port", &port.to_string(), "-address", "127.0.0.1"].map(OsString::from);
        let kept = Kept::start("epmd", folder, &Account::Ours, &program, &arguments, &[]);
        kept.until_ready(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).await?;
        Ok(Names { port, _epmd: kept })
    }
}

/// Erlang takes a cookie only from a file that nobody else can read.
fn read_only(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o400);
    std::fs::set_permissions(path, mode).expect("permissions can be set");
}
