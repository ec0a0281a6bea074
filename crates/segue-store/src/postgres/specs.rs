//! What agents say of themselves, kept in memory: it is long, and changes only when somebody registers anew.

use super::cells::read;
use super::line::{Ask, Line};
use super::trouble::Trouble;
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::AgentSpec;
use segue_core::command::Candidate;
use segue_core::ids::InstanceId;
use segue_core::route::is_fit;
use segue_core::task::Route;
use std::sync::Arc;

pub(super) const NEWER: &str =
    "SELECT instance, spec_version, spec FROM agents WHERE project = $1 AND spec_version > $2";
const THESE: &str = "SELECT instance, spec_version, spec FROM unnest($2::uuid[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT * FROM agents AS a WHERE a.project = $1 AND a.instance = w.wanted OFFSET 0) AS a";

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
    /// How often somebody said something new.
    changes: u64,
    index: Index,
    /// Where the next look at a part of a large fleet begins.
    turn: usize,
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
            self.note(InstanceId(read(row, 0)?), read(row, 1)?, spec);
        }
        Ok(())
    }

    fn note(&mut self, instance: InstanceId, version: i64, spec: AgentSpec) {
        self.specs.insert(instance, (version, Arc::new(spec)));
        self.changes += 1;
    }

    /// Those of these candidates who are fit and serve one of these routes, as far as is known who they are; of a large fleet a part for each
    /// route, each time another one.
    pub(super) fn serving(
        &mut self,
        candidates: &Arc<[Candidate]>,
        routes: &FxHashSet<Route>,
    ) -> Vec<InstanceId> {
        if !self.index.is_of(candidates, self.changes) {
            self.index = Index::new(candidates.clone(), self.changes, &self.specs);
        }
        let lists = routes.iter().filter_map(|route| self.index.routes.get(route));
        let lists = lists.chain([&self.index.unknown]);
        let (mut serving, mut is_part) = (Vec::new(), false);
        for list in lists {
            if list.len() <= OF_ROUTE_MAX {
                serving.extend_from_slice(list);
            } else {
                is_part = true;
                let from = self.turn % list.len();
                serving.extend(list.iter().cycle().skip(from).take(OF_ROUTE_MAX));
            }
        }
        if is_part {
            self.turn = self.turn.wrapping_add(OF_ROUTE_MAX);
        }
        serving
    }
}

/// The fit ones of a list of candidates, by the routes that they serve: so a batch looks at nobody who serves none of its routes. The engine makes
/// a list for a moment's batches, and who serves what changes with a registration.
#[derive(Debug, Default)]
struct Index {
    of: Option<Arc<[Candidate]>>,
    /// How often somebody had said something new.
    changes: u64,
    routes: FxHashMap<Route, Vec<InstanceId>>,
    /// Those of whom nobody knows yet what they serve.
    unknown: Vec<InstanceId>,
}

impl Index {
    fn new(
        of: Arc<[Candidate]>,
        changes: u64,
        specs: &FxHashMap<InstanceId, (i64, Arc<AgentSpec>)>,
    ) -> Index {
        let mut index = Index { changes, ..Index::default() };
        for candidate in of.iter().filter(|candidate| is_fit(candidate)) {
            let instance = candidate.instance;
            let Some((_, spec)) = specs.get(&instance) else {
                index.unknown.push(instance);
                continue;
            };
            let able = spec.capabilities.iter().map(|able| Route::Capability(able.name.clone()));
            for route in able.chain([Route::Agent(spec.name.clone())]) {
                index.routes.entry(route).or_default().push(instance);
            }
        }
        index.of = Some(of);
        index
    }

    fn is_of(&self, candidates: &Arc<[Candidate]>, changes: u64) -> bool {
        // What it holds cannot be another list at the same place.
        self.changes == changes && self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, candidates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segue_core::agent::{AgentKind, Capability};
    use uuid::Uuid;

    impl Specs {
        fn say(&mut self, instance: InstanceId, name: &str, version: i64) {
            let able = Capability { name: "anything".into(), ..Capability::default() };
            let spec = AgentSpec {
                instance,
                name: name.into(),
                kind: AgentKind::Builtin,
                description: "".into(),
                capabilities: Arc::from([able]),
                max_concurrency: 1,
                delegates: false,
            };
            self.note(instance, version, spec);
        }
    }

    fn fleet(agents: u128) -> Specs {
        let mut specs = Specs::default();
        for number in 0..agents {
            specs.say(InstanceId(Uuid::from_u128(number)), &format!("agent {number}"), 1);
        }
        specs
    }

    fn candidates(agents: u128) -> Arc<[Candidate]> {
        let of = |number| Candidate {
            instance: InstanceId(Uuid::from_u128(number)),
            health: 1.0,
            load: 0.0,
        };
        (0..agents).map(of).collect()
    }

    fn ids(agents: u128) -> Vec<InstanceId> {
        (0..agents).map(|number| InstanceId(Uuid::from_u128(number))).collect()
    }

    #[test]
    fn of_a_small_fleet_everybody_is_looked_at() {
        let routes = FxHashSet::from_iter([Route::capability("anything")]);
        assert_eq!(fleet(100).serving(&candidates(100), &routes), ids(100));
        let routes = FxHashSet::from_iter([Route::agent("agent 7")]);
        assert_eq!(fleet(10_000).serving(&candidates(10_000), &routes).len(), 1);
        assert_eq!(fleet(100).serving(&candidates(100), &FxHashSet::default()), []);
    }

    #[test]
    fn of_a_large_fleet_a_part_is_looked_at_and_everybody_in_turn() {
        let (mut specs, candidates) = (fleet(1_000), candidates(1_000));
        let routes = FxHashSet::from_iter([Route::capability("anything"), Route::agent("agent 7")]);
        let only = InstanceId(Uuid::from_u128(7));
        let mut seen = FxHashSet::default();
        for _ in 0..8 {
            let part = specs.serving(&candidates, &routes);
            assert!(part.len() <= OF_ROUTE_MAX + 1, "{}", part.len());
            assert!(part.contains(&only), "the only one of its name");
            seen.extend(part);
        }
        assert_eq!(seen.len(), 1_000);
    }

    #[test]
    fn the_index_is_of_these_candidates_and_of_what_was_said_last() {
        let mut specs = fleet(3);
        let routes = FxHashSet::from_iter([Route::agent("agent 1")]);
        // Nobody knows what the fourth serves: it may be this.
        let four = candidates(4);
        assert_eq!(specs.serving(&four, &routes), [ids(2)[1], ids(4)[3]]);
        let [one, other] = [1, 3].map(|number| InstanceId(Uuid::from_u128(number)));
        specs.say(other, "agent 1", 1);
        assert_eq!(specs.serving(&four, &routes), [one, other]);
        specs.say(one, "somebody else", 2);
        assert_eq!(specs.serving(&four, &routes), [other]);
        // A list of the same length in which one is not fit.
        let sick: Arc<[Candidate]> =
            four.iter().map(|it| Candidate { health: 0.1, ..*it }).collect();
        assert_eq!(specs.serving(&sick, &routes), []);
    }
}
