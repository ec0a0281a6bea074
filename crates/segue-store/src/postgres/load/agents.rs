//! The agents that a batch is about, locked, and the candidates that nobody else holds.

use super::{About, Brought, Loader};
use crate::postgres::cells::read;
use crate::postgres::line::Ask;
use crate::postgres::select::{AGENTS, CANDIDATES, CLOCK, FREE_CANDIDATES, PROJECT_LOCK};
use crate::postgres::trouble::Trouble;
use crate::rows::decode;
use segue_core::agent::Agent;
use segue_core::ids::{HostId, Incarnation, InstanceId};
use segue_core::time::Time;
use tokio_postgres::Row;
use uuid::Uuid;

impl Loader<'_> {
    /// Locks these instances and loads them, those that are not known yet; and of these candidates those that nobody else holds. What the
    /// instances in `held` hold is read once they are locked. Returns whether somebody else holds a candidate.
    pub(in crate::postgres) async fn agents(
        &mut self,
        mut instances: Vec<InstanceId>,
        mut candidates: Vec<InstanceId>,
        held: Vec<InstanceId>,
        lock_project: bool,
    ) -> Result<bool, Trouble> {
        instances.retain(|instance| self.known_agents.insert(*instance));
        instances.sort_unstable();
        candidates.retain(|instance| !self.known_agents.contains(instance));
        candidates.sort_unstable();
        candidates.dedup();
        let lock_project = lock_project && !self.holds_project;
        if instances.is_empty() && candidates.is_empty() && !lock_project && held.is_empty() {
            return Ok(false);
        }
        let project = self.project;
        let list = |ids: &[InstanceId]| ids.iter().map(|id| id.0).collect::<Vec<Uuid>>();
        let mut asks = Vec::new();
        let mut abouts = Vec::new();
        if lock_project {
            asks.push(Ask::new(PROJECT_LOCK).with(project));
            abouts.push(About::Project);
        }
        let locks = asks.len();
        asks.push(Ask::new(AGENTS).with(project).with(list(&instances)));
        if !candidates.is_empty() {
            asks.push(Ask::new(CANDIDATES).with(project).with(list(&candidates)));
            asks.push(Ask::new(FREE_CANDIDATES).with(project).with(list(&candidates)));
        }
        let of_agents = asks.len() - locks;
        if !held.is_empty() {
            let (about, ask) = self.held(held);
            abouts.push(about);
            asks.push(ask);
        }
        asks.push(Ask::new(CLOCK));
        abouts.push(About::Clock);
        let mut answers = self.line.flight(&asks).await?;
        drop(asks);
        let [locked, taken, free]: [Vec<Row>; 3] = {
            let mut three = answers.drain(locks..locks + of_agents);
            std::array::from_fn(|_| three.next().unwrap_or_default())
        };
        let mut brought = Brought::default();
        for (about, rows) in abouts.into_iter().zip(answers) {
            self.take_in(about, &rows, &mut brought)?;
        }
        let rows: Vec<&Row> = locked.iter().chain(&taken).collect();
        self.add_agents(&rows).await?;
        Ok(free.len() > taken.len())
    }

    /// Takes in agents whose rows are locked.
    pub(in crate::postgres) async fn add_agents(&mut self, rows: &[&Row]) -> Result<(), Trouble> {
        let mut unknown = Vec::new();
        for row in rows {
            let (instance, version) = (InstanceId(read(row, 0)?), read(row, 7)?);
            if self.specs.of(instance, version).is_none() {
                unknown.push(instance);
            }
        }
        if !unknown.is_empty() {
            self.specs.read(self.line, self.project, &unknown).await?;
        }
        for row in rows {
            let (instance, version) = (InstanceId(read(row, 0)?), read(row, 7)?);
            let spec = self.specs.of(instance, version).ok_or_else(|| {
                Trouble::Again(format!("agent instance {instance} changed while it was read"))
            })?;
            self.known_agents.insert(instance);
            let (drained, gone) = (read(row, 4)?, read(row, 6)?);
            self.stood.insert(instance, (drained, gone));
            self.snapshot.add_agent(Agent {
                spec,
                host: HostId(read(row, 1)?),
                incarnation: Incarnation(read(row, 2)?),
                slots_used: decode::unsigned(*row, 3)?,
                drained,
                lease_until: Time(read(row, 5)?),
                gone,
            });
        }
        Ok(())
    }
}
