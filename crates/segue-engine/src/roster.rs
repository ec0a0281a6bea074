//! Who the agents of the project are, as the tables have it: read once, and from then on only what is new.

use rustc_hash::FxHashMap;
use segue_core::agent::Agent;
use segue_core::ids::InstanceId;
use segue_core::letter::TeamMember;
use segue_core::ports::{Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The agents by their instances. Their slots and leases are as old as what was said of them last.
pub(crate) type Agents = Arc<FxHashMap<InstanceId, Agent>>;

/// What is known of the agents. Of those that have gone nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The version of the store up to which everything is known.
    version: u64,
    read: Option<Instant>,
    agents: Agents,
    /// Made when it is asked for.
    team: Option<Vec<TeamMember>>,
}

impl Roster {
    /// The agents as they are now.
    pub(crate) async fn agents(&self, store: &dyn Store) -> Result<Agents, StoreError> {
        self.not_older_than(store, Duration::ZERO).await
    }

    /// The agents as they were so long ago at most.
    pub(crate) async fn not_older_than(
        &self,
        store: &dyn Store,
        age: Duration,
    ) -> Result<Agents, StoreError> {
        let mut known = self.0.lock().await;
        if known.read.is_none_or(|read| read.elapsed() >= age) {
            known.refresh(store).await?;
        }
        Ok(known.agents.clone())
    }

    /// Everybody to whom work can be delegated, by name.
    pub(crate) async fn team(&self, store: &dyn Store) -> Result<Vec<TeamMember>, StoreError> {
        let mut known = self.0.lock().await;
        known.refresh(store).await?;
        let known = &mut *known;
        Ok(known.team.get_or_insert_with(|| team(&known.agents)).clone())
    }

    /// The next one who asks gets what the tables have then.
    pub(crate) async fn stale(&self) {
        self.0.lock().await.read = None;
    }
}

impl Known {
    async fn refresh(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let (version, told) = store.agents_since(self.version).await?;
        self.read = Some(Instant::now());
        // A store without versions tells everything each time.
        let is_all = version == 0 || self.version == 0;
        if !is_all && told.is_empty() {
            self.version = version;
            return Ok(());
        }
        let agents = Arc::make_mut(&mut self.agents);
        if is_all {
            agents.clear();
        }
        for agent in told {
            match agent.gone {
                true => drop(agents.remove(&agent.spec.instance)),
                false => drop(agents.insert(agent.spec.instance, agent)),
            }
        }
        (self.version, self.team) = (version, None);
        Ok(())
    }
}

fn team(agents: &FxHashMap<InstanceId, Agent>) -> Vec<TeamMember> {
    let mut sorted: Vec<&Agent> = agents.values().collect();
    // What a name's first instance says stands for all of them: the same one each time.
    sorted.sort_unstable_by_key(|agent| agent.spec.instance);
    let mut members: BTreeMap<Arc<str>, TeamMember> = BTreeMap::new();
    for agent in sorted {
        let spec = &agent.spec;
        let member = members.entry(spec.name.clone()).or_insert_with(|| TeamMember {
            name: spec.name.clone(),
            kind: spec.kind,
            description: spec.description.clone(),
            capabilities: spec.capabilities.clone(),
            available: 0,
        });
        member.available += u32::from(!agent.drained);
    }
    members.into_values().collect()
}
