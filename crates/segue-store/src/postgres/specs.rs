//! What agents say of themselves, kept in memory: it is long, and changes only when somebody registers anew.

use super::cells::read;
use super::line::{Ask, Line};
use super::trouble::Trouble;
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::AgentSpec;
use segue_core::ids::InstanceId;
use segue_core::task::Route;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const NEWER: &str =
    "SELECT instance, spec_version, spec FROM agents WHERE project = $1 AND spec_version > $2";
const THESE: &str =
    "SELECT instance, spec_version, spec FROM agents WHERE project = $1 AND instance = ANY($2)";

pub(super) fn statements() -> Vec<&'static str> {
    vec![NEWER, THESE]
}

/// Instances that a batch looks at for one route, at most. It locks those of them that have a free slot: with all of a large fleet the batch
/// would take long, and keep every other one from giving out anything meanwhile.
const OF_ROUTE_MAX: usize = 128;

/// What each instance said last, with the version of the project at which it said it.
#[derive(Debug, Default)]
pub(super) struct Specs {
    version: i64,
    specs: FxHashMap<InstanceId, (i64, Arc<AgentSpec>)>,
    /// Where the next look at a part of a large fleet begins.
    turn: AtomicUsize,
}

impl Specs {
    /// What this instance said at this version.
    pub(super) fn of(&self, instance: InstanceId, version: i64) -> Option<Arc<AgentSpec>> {
        let (known, spec) = self.specs.get(&instance)?;
        (*known == version).then(|| spec.clone())
    }

    /// What this instance said last, as far as is known here.
    pub(super) fn last(&self, instance: InstanceId) -> Option<&Arc<AgentSpec>> {
        self.specs.get(&instance).map(|(_, spec)| spec)
    }

    /// Every instance that is known, with what it said.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<AgentSpec>> {
        self.specs.values().map(|(_, spec)| spec)
    }

    /// Reads what is newer than what is known, where the project has come to this version.
    pub(super) async fn refresh(
        &mut self,
        line: &Line,
        project: i32,
        version: i64,
    ) -> Result<(), Trouble> {
        if version > self.version {
            let rows = line.ask(Ask::new(NEWER).with(project).with(self.version)).await?;
            self.take_in(&rows)?;
            self.version = version;
        }
        Ok(())
    }

    /// Reads what these say now.
    pub(super) async fn read(
        &mut self,
        line: &Line,
        project: i32,
        instances: &[InstanceId],
    ) -> Result<(), Trouble> {
        let ids = instances.iter().map(|instance| instance.0);
        let rows = line.ask(Ask::new(THESE).with(project).column(ids)).await?;
        self.take_in(&rows)
    }

    fn take_in(&mut self, rows: &[tokio_postgres::Row]) -> Result<(), Trouble> {
        for row in rows {
            let spec = serde_json::from_str(read::<&str>(row, 2)?).map_err(|error| {
                crate::failure::Failure::corrupt(format!(
                    "what an agent says does not fit: {error}"
                ))
            })?;
            self.specs.insert(InstanceId(read(row, 0)?), (read(row, 1)?, Arc::new(spec)));
        }
        Ok(())
    }

    /// Those of these instances that serve one of these routes; of a large fleet a part, each time another one.
    pub(super) fn serving(
        &self,
        instances: impl Iterator<Item = InstanceId>,
        routes: &FxHashSet<Route>,
    ) -> Vec<InstanceId> {
        let (mut names, mut capabilities) = (FxHashSet::default(), FxHashSet::default());
        for route in routes {
            match route {
                Route::Agent(name) => names.insert(name.clone()),
                Route::Capability(name) => capabilities.insert(name.clone()),
                Route::Group => false,
            };
        }
        let serves = |instance: &InstanceId| {
            self.specs.get(instance).is_none_or(|(_, spec)| {
                names.contains(&spec.name)
                    || spec.capabilities.iter().any(|it| capabilities.contains(&it.name))
            })
        };
        let mut serving: Vec<InstanceId> = instances.filter(serves).collect();
        if serving.len() <= OF_ROUTE_MAX {
            return serving;
        }
        let start = self.turn.fetch_add(OF_ROUTE_MAX, Ordering::Relaxed) % serving.len();
        serving.rotate_left(start);
        let mut looked_at: FxHashMap<(bool, &str), usize> = FxHashMap::default();
        serving.retain(|instance| {
            let Some((_, spec)) = self.specs.get(instance) else { return true };
            let name = names.contains(&spec.name).then_some((true, spec.name.as_ref()));
            let able = spec.capabilities.iter().filter(|it| capabilities.contains(&it.name));
            let serves = name.into_iter().chain(able.map(|it| (false, it.name.as_ref())));
            // Whoever is the only one for a route is looked at, however many there are for another one.
            serves.fold(false, |wanted, route| {
                let count = looked_at.entry(route).or_default();
                *count += 1;
                wanted || *count <= OF_ROUTE_MAX
            })
        });
        serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::agent::{AgentKind, Capability};
    use uuid::Uuid;

    fn fleet(agents: u128) -> Specs {
        let mut specs = Specs::default();
        for number in 0..agents {
            let instance = InstanceId(Uuid::from_u128(number));
            let able = Capability { name: "anything".into(), ..Capability::default() };
            let spec = AgentSpec {
                instance,
                name: format!("agent {number}").into(),
                kind: AgentKind::Builtin,
                description: "".into(),
                capabilities: Arc::from([able]),
                max_concurrency: 1,
                delegates: false,
            };
            specs.specs.insert(instance, (1, Arc::new(spec)));
        }
        specs
    }

    fn ids(agents: u128) -> impl Iterator<Item = InstanceId> {
        (0..agents).map(|number| InstanceId(Uuid::from_u128(number)))
    }

    #[test]
    fn of_a_small_fleet_everybody_is_looked_at() {
        let routes = FxHashSet::from_iter([Route::capability("anything")]);
        assert_eq!(fleet(100).serving(ids(100), &routes), ids(100).collect::<Vec<_>>());
        let routes = FxHashSet::from_iter([Route::agent("agent 7")]);
        assert_eq!(fleet(10_000).serving(ids(10_000), &routes).len(), 1);
    }

    #[test]
    fn of_a_large_fleet_a_part_is_looked_at_and_everybody_in_turn() {
        let specs = fleet(1_000);
        let routes = FxHashSet::from_iter([Route::capability("anything"), Route::agent("agent 7")]);
        let only = InstanceId(Uuid::from_u128(7));
        let mut seen = FxHashSet::default();
        for _ in 0..8 {
            let part = specs.serving(ids(1_000), &routes);
            assert!(part.len() <= OF_ROUTE_MAX + 1, "{}", part.len());
            assert!(part.contains(&only), "the only one of its name");
            seen.extend(part);
        }
        assert_eq!(seen.len(), 1_000);
    }
}
