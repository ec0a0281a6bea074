//! What agents say of themselves, kept in memory: it is long, and changes only when somebody registers anew.

use super::cells::read;
use super::line::{Ask, Line};
use super::trouble::Trouble;
use rustc_hash::{FxHashMap, FxHashSet};
use segue_core::agent::AgentSpec;
use segue_core::ids::InstanceId;
use segue_core::task::Route;
use std::sync::Arc;

const NEWER: &str =
    "SELECT instance, spec_version, spec FROM agents WHERE project = $1 AND spec_version > $2";
const THESE: &str =
    "SELECT instance, spec_version, spec FROM agents WHERE project = $1 AND instance = ANY($2)";

pub(super) fn statements() -> Vec<&'static str> {
    vec![NEWER, THESE]
}

/// What each instance said last, with the version of the project at which it said it.
#[derive(Debug, Default)]
pub(super) struct Specs {
    version: i64,
    specs: FxHashMap<InstanceId, (i64, Arc<AgentSpec>)>,
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

    /// Those of these instances that serve one of these routes.
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
        instances.filter(serves).collect()
    }
}
