//! What all parts of a simulation share.
// tidy: allow-file(sleep) simulated time: tokio's clock is paused, nobody waits for real

use crate::setting::{Keeps, Setting};
use parking_lot::Mutex;
use segue_bus::in_process::InProcessBus;
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::ids::{HostId, InstanceId, ProjectId};
use segue_core::payload::{Hash, Payload};
use segue_core::ports::{Blobs, Fut, Store, StoreError};
use segue_engine::Engine;
use segue_store::soft::InProcessSoft;
use segue_store::sqlite::{Options, SqliteStore, Sync, Threads};
use segue_testkit::faults::{Dice, Life, Trouble};
use segue_testkit::memory::MemoryStore;
use segue_testkit::simulator::{Seen, SimClock, Writer};
use segue_testkit::store_suite::KEY;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// Bodies in memory, which outlive every process: an object store.
#[derive(Default)]
pub struct MapBlobs(Mutex<BTreeMap<[u8; 32], Vec<u8>>>);

impl Blobs for MapBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.0.lock().insert(hash.0, bytes);
        Box::pin(std::future::ready(Ok(Payload::Stored { hash, size })))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let found = self.0.lock().get(&hash.0).cloned();
        Box::pin(std::future::ready(found.ok_or_else(|| StoreError::MissingPayload(hash.hex()))))
    }
}

/// What survives every process.
pub enum Disk {
    Memory(Arc<MemoryStore>),
    /// A folder; opened again each time with another seed.
    Sqlite(PathBuf, AtomicU64),
}

/// A store that was opened, with its bodies.
pub type Open = (Arc<dyn Store>, Arc<dyn Blobs>);

impl Sim {
    /// Opens the store as a process does that has just begun.
    pub fn open(&self) -> Result<Open, StoreError> {
        match &self.disk {
            Disk::Memory(store) => Ok((store.clone(), self.blobs.clone())),
            Disk::Sqlite(dir, seed) => {
                let options = Options {
                    clock: self.clock.clone(),
                    sync: Sync::Off,
                    threads: Threads::Callers,
                    seed: Some(seed.fetch_add(1, Ordering::SeqCst)),
                    ..Options::new(dir, ProjectId(Uuid::from_u128(1)), KEY)
                };
                let store = SqliteStore::open(options)?;
                Ok((store.clone(), store))
            }
        }
    }
}

/// A node that runs.
#[derive(Clone)]
pub struct Node {
    pub life: Life,
    pub engine: Arc<Engine>,
    /// Which of all nodes that ever ran it is.
    pub number: u64,
    /// Ends it in order: the work goes on for a moment, then it is ended.
    pub stop: Arc<Notify>,
}

/// A host that runs.
#[derive(Clone)]
pub struct Place {
    pub life: Life,
    /// It does not reach the engine until then, by the elapsed time: its lease ends while its agents go on.
    pub cut_off_until_ms: Arc<AtomicU64>,
}

/// A simulation while it runs.
pub struct Sim {
    pub setting: Setting,
    pub clock: Arc<SimClock>,
    pub trouble: Arc<Trouble>,
    pub disk: Disk,
    pub blobs: Arc<MapBlobs>,
    /// The broker, where it outlives the nodes.
    pub broker: Arc<InProcessBus>,
    /// What nodes tell each other, where there are several.
    pub presence: Arc<InProcessSoft>,
    pub seen: Arc<Mutex<Seen>>,
    pub nodes: Mutex<Vec<Option<Node>>>,
    pub hosts: Mutex<Vec<Option<Place>>>,
    /// The store of the running node, for looking at it past all trouble.
    pub stores: Mutex<Vec<Option<Weak<dyn Store>>>>,
    /// Letters that somebody refused for good.
    pub dead: Mutex<Vec<String>>,
    pub calm: AtomicBool,
    pub changed: Notify,
    pub writer: Mutex<Writer>,
    dice: Mutex<Dice>,
    numbers: AtomicU64,
}

impl Sim {
    pub fn new(setting: Setting, dir: PathBuf) -> Arc<Sim> {
        let mut dice = Dice::new(setting.seed);
        let clock = SimClock::start();
        let disk = match setting.keeps {
            Keeps::Memory => {
                Disk::Memory(Arc::new(MemoryStore::new(clock.clone(), dice.number(), KEY)))
            }
            Keeps::Sqlite => Disk::Sqlite(dir, AtomicU64::new(dice.number() >> 1)),
        };
        Arc::new(Sim {
            trouble: Trouble::new(dice.fork(), setting.rates),
            writer: Mutex::new(Writer::new(dice.fork(), clock.clone())),
            disk,
            blobs: Arc::default(),
            broker: InProcessBus::new(),
            presence: InProcessSoft::with_clock(clock.clone()),
            seen: Arc::default(),
            nodes: Mutex::new(vec![None; setting.nodes()]),
            hosts: Mutex::new(vec![None; setting.hosts()]),
            stores: Mutex::new((0..setting.nodes()).map(|_| None).collect()),
            dead: Mutex::default(),
            calm: AtomicBool::new(false),
            changed: Notify::new(),
            dice: Mutex::new(dice),
            numbers: AtomicU64::new(0),
            clock,
            setting,
        })
    }

    /// Dice of their own for a part of the simulation.
    pub fn dice(&self) -> Dice {
        self.dice.lock().fork()
    }

    pub fn uuid(&self) -> Uuid {
        let mut dice = self.dice.lock();
        uuid::Builder::from_random_bytes(
            (u128::from(dice.number()) << 64 | u128::from(dice.number())).to_be_bytes(),
        )
        .into_uuid()
    }

    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// How long a process stays away that has died.
    pub async fn downtime(&self, dice: &mut Dice, most_ms: u64) {
        let most = if self.is_calm() { 2_000 } else { most_ms };
        tokio::time::sleep(Duration::from_millis(dice.between(1, most))).await;
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<Node> {
        self.nodes.lock().iter().flatten().filter(|node| !node.life.is_over()).cloned().collect()
    }

    /// One of the nodes that run; waits until there is one.
    pub async fn some_node(&self, dice: &mut Dice) -> Node {
        loop {
            let changed = self.changed.notified();
            if let Some(node) = dice.pick(&self.running()) {
                return node.clone();
            }
            changed.await;
        }
    }

    /// The store past all trouble, while a node has it open.
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        if let Disk::Memory(store) = &self.disk {
            return Some(store.clone());
        }
        self.stores.lock().iter().flatten().find_map(Weak::upgrade)
    }

    /// Notes what was refused for good on a bus that ends.
    pub fn note_dead(&self, bus: &InProcessBus) {
        let letters = bus.dead_letters();
        self.dead.lock().extend(letters.iter().map(|dead| format!("{}: {dead:?}", dead.reason)));
    }
}

/// Does this with a node; `None` where that died meanwhile.
pub async fn with<T>(node: &Node, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = node.life.ended() => None,
        done = work => Some(done),
    }
}

pub fn host_id(index: usize) -> HostId {
    HostId(Uuid::from_u128(0x1000 + index as u128))
}

/// The agents of a host.
pub fn agents(index: usize) -> Vec<AgentSpec> {
    let agent = |number: u128, name: &str, slots: u32, capabilities: &[&str]| AgentSpec {
        instance: InstanceId(Uuid::from_u128(0x2000 + 16 * index as u128 + number)),
        name: name.into(),
        kind: AgentKind::Builtin,
        description: "".into(),
        capabilities: capabilities
            .iter()
            .map(|name| Capability { name: (*name).into(), ..Capability::default() })
            .collect(),
        max_concurrency: slots,
        delegates: number == 0,
    };
    match index % 3 {
        0 => vec![agent(0, "a", 3, &["work"]), agent(1, "b", 1, &[]), agent(2, "c", 2, &["rare"])],
        1 => vec![agent(0, "a", 1, &[]), agent(1, "c", 2, &["work", "rare"])],
        _ => vec![agent(0, "b", 4, &["work"])],
    }
}
