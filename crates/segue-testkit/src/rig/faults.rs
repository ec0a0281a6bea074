//! What goes wrong, when, and how it is mended.

use super::course::Cluster;
use super::member::Member;
use super::place::Server;
use crate::faults::Dice;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node is killed and started again at once.
    NodeKilled,
    /// A node is killed and stays away for longer than its lease.
    NodeLost,
    /// A worker is killed and started again at once.
    WorkerKilled,
    /// A worker is killed and stays away for longer than its lease.
    WorkerLost,
    /// All of RabbitMQ is killed and started again.
    RabbitMqKilled,
    /// One node of RabbitMQ's cluster is lost for a while.
    RabbitMqNodeLost,
    /// PostgreSQL is killed and started again.
    PostgresKilled,
    /// The primary is lost for ever and its synchronous standby promoted. Happens once in a run.
    PostgresFailover,
    /// Redis loses all that it has.
    RedisFlushed,
    /// Redis is killed and started again after a while.
    RedisKilled,
    /// Nobody reaches S3 for a while.
    S3Failing,
    /// A member is cut off from one server: connections are reset and new ones refused.
    Cut,
    /// A member hears nothing of one server: connections stay open and nothing gets through.
    Silence,
    /// The lines of a member are slow: 200 ms to and fro.
    Slow,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
        Kind::NodeKilled,
        Kind::NodeLost,
        Kind::WorkerKilled,
        Kind::WorkerLost,
        Kind::RabbitMqKilled,
        Kind::RabbitMqNodeLost,
        Kind::PostgresKilled,
        Kind::PostgresFailover,
        Kind::RedisFlushed,
        Kind::RedisKilled,
        Kind::S3Failing,
        Kind::Cut,
        Kind::Silence,
        Kind::Slow,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::NodeKilled => "node-killed",
            Kind::NodeLost => "node-lost",
            Kind::WorkerKilled => "worker-killed",
            Kind::WorkerLost => "worker-lost",
            Kind::RabbitMqKilled => "rabbitmq-killed",
            Kind::RabbitMqNodeLost => "rabbitmq-node-lost",
            Kind::PostgresKilled => "postgres-killed",
            Kind::PostgresFailover => "postgres-failover",
            Kind::RedisFlushed => "redis-flushed",
            Kind::RedisKilled => "redis-killed",
            Kind::S3Failing => "s3-failing",
            Kind::Cut => "cut",
            Kind::Silence => "silence",
            Kind::Slow => "slow",
        }
    }

    /// How long work may stand still after its end, in seconds.
    pub fn within_s(self) -> u64 {
        match self {
            Kind::NodeLost | Kind::WorkerLost => 60,
            _ => 10,
        }
    }

    /// How long it lasts, in milliseconds, from and to; what it takes to start a server again comes on top.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Kind::NodeKilled | Kind::WorkerKilled => (0, 2_000),
            Kind::NodeLost | Kind::WorkerLost => (36_000, 42_000),
            Kind::RedisFlushed => (0, 0),
            Kind::PostgresKilled | Kind::PostgresFailover => (500, 4_000),
            Kind::RabbitMqKilled => (500, 3_000),
            Kind::RabbitMqNodeLost | Kind::RedisKilled | Kind::S3Failing => (4_000, 10_000),
            Kind::Cut | Kind::Silence | Kind::Slow => (6_000, 14_000),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Kind, String> {
        let names = || Kind::ALL.map(Kind::name).join(", ");
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        found.ok_or_else(|| format!("`{word}` is no fault; there are: {}", names()))
    }
}

/// A fault that was drawn: what, whom, how long.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// The number by which its victim is chosen among those who can be one.
    victim: u64,
    /// The server that the line leads to which goes wrong.
    server: Server,
    /// How long it lasts.
    pub lasts: Duration,
    /// How long the cluster is left alone after it.
    pub pause: Duration,
}

/// Draws faults one after another: each kind as often as the others, in an order of chance.
pub struct Schedule {
    dice: Dice,
    kinds: Vec<Kind>,
    round: Vec<Kind>,
}

impl Schedule {
    /// The faults of this seed.
    pub fn new(seed: u64, kinds: Vec<Kind>) -> Schedule {
        Schedule { dice: Dice::new(seed), kinds, round: Vec::new() }
    }

    /// The next fault.
    pub fn draw(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round = self.kinds.clone();
            self.dice.shuffle(&mut self.round);
            // A primary is lost once: there is no second standby.
            self.kinds.retain(|kind| *kind != Kind::PostgresFailover);
        }
        let kind = self.round.pop()?;
        let servers = [Server::Postgres, Server::RabbitMq, Server::Redis, Server::S3];
        let (from, to) = kind.lasts_ms();
        Some(Fault {
            kind,
            victim: self.dice.roll(1 << 32),
            server: self.dice.pick(&servers).copied().unwrap_or(Server::Postgres),
            lasts: Duration::from_millis(self.dice.between(from, to)),
            pause: Duration::from_millis(self.dice.between(2_000, 6_000)),
        })
    }
}

impl Fault {
    /// Whom it hits, in words.
    pub fn victim(&self, cluster: &Cluster) -> String {
        match self.kind {
            Kind::NodeKilled | Kind::NodeLost => self.of(&cluster.nodes).name.clone(),
            Kind::WorkerKilled | Kind::WorkerLost => self.of(&cluster.workers).name.clone(),
            Kind::Cut | Kind::Silence => {
                let member = self.member(cluster);
                format!("{}-{}", member.name, self.reached(&member))
            }
            Kind::Slow => self.member(cluster).name.clone(),
            Kind::RabbitMqKilled => "rabbitmq".to_owned(),
            Kind::RabbitMqNodeLost => format!("rabbitmq-{}", self.broker(cluster) + 1),
            Kind::PostgresKilled | Kind::PostgresFailover => "postgres".to_owned(),
            Kind::RedisFlushed | Kind::RedisKilled => "redis".to_owned(),
            Kind::S3Failing => "s3".to_owned(),
        }
    }

    fn of<'a>(&self, members: &'a [Arc<Member>]) -> &'a Arc<Member> {
        &members[(self.victim % members.len() as u64) as usize]
    }

    fn member(&self, cluster: &Cluster) -> Arc<Member> {
        let all: Vec<Arc<Member>> = cluster.members().cloned().collect();
        self.of(&all).clone()
    }

    /// A worker has lines to the broker and Redis alone.
    fn reached(&self, member: &Member) -> Server {
        match (member.is_node, self.server) {
            (false, Server::Postgres) => Server::RabbitMq,
            (false, Server::S3) => Server::Redis,
            (_, server) => server,
        }
    }

    fn broker(&self, cluster: &Cluster) -> usize {
        (self.victim % cluster.place.rabbit.nodes() as u64) as usize
    }

    /// Whether this cluster can have it.
    pub fn applies(&self, cluster: &Cluster) -> bool {
        match self.kind {
            Kind::WorkerKilled | Kind::WorkerLost => !cluster.workers.is_empty(),
            Kind::RabbitMqNodeLost => cluster.place.rabbit.nodes() > 2,
            Kind::PostgresFailover => cluster.place.postgres.len() > 1,
            _ => true,
        }
    }

    /// Makes it happen, waits, and mends it.
    pub async fn happen(&self, cluster: &Cluster) -> Result<(), String> {
        let place = &cluster.place;
        match self.kind {
            Kind::NodeKilled | Kind::NodeLost => self.kill(self.of(&cluster.nodes)).await?,
            Kind::WorkerKilled | Kind::WorkerLost => self.kill(self.of(&cluster.workers)).await?,
            Kind::RabbitMqKilled => {
                place.rabbit.kill().await;
                self.last().await;
                place.rabbit.start_again().await;
            }
            Kind::RabbitMqNodeLost => {
                place.rabbit.kill_node(self.broker(cluster)).await;
                self.last().await;
                place.rabbit.start_node_again(self.broker(cluster)).await;
            }
            Kind::PostgresKilled => {
                let primary = place.primary.lock().await;
                primary.kill().await;
                self.last().await;
                primary.start_again().await;
            }
            Kind::PostgresFailover => self.fail_over(cluster).await?,
            Kind::RedisFlushed => place.redis.flush().await,
            Kind::RedisKilled => {
                place.redis.kill().await;
                self.last().await;
                place.redis.start_again().await;
            }
            Kind::S3Failing => self.fail_s3(cluster).await,
            Kind::Cut | Kind::Silence | Kind::Slow => self.disturb(&self.member(cluster)).await,
        }
        Ok(())
    }

    async fn last(&self) {
        tokio::time::sleep(self.lasts).await;
    }

    async fn kill(&self, member: &Member) -> Result<(), String> {
        member.kill();
        self.last().await;
        member.start()
    }

    /// The primary is killed and never comes back: nobody can write to it any more when the standby is promoted.
    async fn fail_over(&self, cluster: &Cluster) -> Result<(), String> {
        let mut primary = cluster.place.primary.lock().await;
        let standby = cluster.place.standby.lock().await.take();
        let standby = standby.ok_or("there is no standby to promote")?;
        primary.kill().await;
        self.last().await;
        standby.promote().await;
        *primary = standby;
        Ok(())
    }

    /// Nobody reaches it. It is not killed: the one of the tests keeps everything in memory, as no real one does.
    async fn fail_s3(&self, cluster: &Cluster) {
        for member in cluster.members() {
            for line in member.lines.lines(Server::S3) {
                line.cut().await;
            }
        }
        self.last().await;
        for member in cluster.members() {
            for line in member.lines.lines(Server::S3) {
                line.heal().await;
            }
        }
    }

    async fn disturb(&self, member: &Member) {
        let server = self.reached(member);
        for line in member.lines.all().filter(|_| self.kind == Kind::Slow) {
            line.delay_each(100, 100).await;
        }
        for line in member.lines.lines(server) {
            match self.kind {
                Kind::Cut => line.cut().await,
                Kind::Silence => line.hold().await,
                _ => {}
            }
        }
        self.last().await;
        for line in member.lines.all() {
            line.heal().await;
            line.delay_each(0, 0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_faults_and_each_kind_as_often() {
        let draw = |seed| {
            let mut schedule = Schedule::new(seed, Kind::ALL.to_vec());
            (0..27).filter_map(|_| schedule.draw()).map(|fault| fault.kind).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        let drawn = draw(3);
        for kind in Kind::ALL {
            let times = drawn.iter().filter(|it| **it == kind).count();
            assert_eq!(times, if kind == Kind::PostgresFailover { 1 } else { 2 }, "{kind:?}");
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("nothing".parse::<Kind>().unwrap_err().contains("node-killed, "));
    }
}
