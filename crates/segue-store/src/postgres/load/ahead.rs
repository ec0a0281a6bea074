//! What hangs on tasks that end, asked for together with them: otherwise each of it is a round trip of its own.

use super::{About, Loader, pages_of_dependents};
use crate::postgres::line::Ask;
use crate::postgres::select::{DEPENDENTS, KIN, NEXT};
use crate::postgres::trouble::Trouble;
use crate::rows::decode;
use rustc_hash::FxHashMap;
use segue_core::changes::Edge;
use segue_core::command::CASCADE_MAX;
use segue_core::ids::TaskId;
use segue_core::scope::Load;
use segue_core::snapshot::Page;
use segue_core::task::Task;
use std::sync::Arc;
use tokio_postgres::Row;
use uuid::Uuid;

/// Tasks that are locked, and lists, which nobody has asked for yet. They are no part of the snapshot until then: that holds what its commands are
/// about, and whatever is ready in it is given out.
#[derive(Default)]
pub(in crate::postgres) struct Ahead {
    tasks: FxHashMap<TaskId, Arc<Task>>,
    dependents: FxHashMap<TaskId, Page<Edge>>,
}

impl Ahead {
    pub(super) fn take_in_tasks(&mut self, rows: &[Row]) -> Result<(), Trouble> {
        for row in rows {
            let task = Arc::new(decode::task(row)?.1);
            self.tasks.insert(task.id(), task);
        }
        Ok(())
    }

    pub(super) fn take_in_dependents(
        &mut self,
        ids: Vec<TaskId>,
        rows: &[Row],
    ) -> Result<(), Trouble> {
        self.dependents.extend(pages_of_dependents(ids, rows)?);
        Ok(())
    }
}

impl Loader<'_> {
    /// Asks for what hangs on tasks that are locked by then, in the order in which it would be asked for one after another: roots and parents of all
    /// of them, by one statement, so that everybody locks these in the same order; then those that need what ends.
    pub(super) fn around(
        &self,
        ends: Vec<TaskId>,
        goes_on: Vec<TaskId>,
        asks: &mut Vec<(About, Ask<'static>)>,
    ) {
        if !ends.is_empty() || !goes_on.is_empty() {
            let all = ends.iter().chain(&goes_on).map(|id| id.0);
            asks.push((About::TasksAhead, Ask::new(&KIN).with(self.project).column(all)));
        }
        if ends.is_empty() {
            return;
        }
        let ids = ends.iter().map(|id| id.0);
        let next = Ask::new(&NEXT).with(self.project).column(ids).with(CASCADE_MAX as i64);
        let first: Vec<(TaskId, Uuid)> = ends.iter().map(|id| (*id, Uuid::nil())).collect();
        let dependents = self.pages(DEPENDENTS, &first);
        asks.push((About::DependentsAhead(ends), dependents));
        asks.push((About::TasksAhead, next));
    }

    /// Takes this from what came ahead, if it did.
    pub(super) fn comes_from_ahead(&mut self, load: &Load) -> bool {
        match load {
            Load::Task(id) => match self.ahead.tasks.remove(id) {
                Some(task) => self.add(task),
                None => return false,
            },
            Load::Dependents(id, None) => match self.ahead.dependents.remove(id) {
                Some(page) => self.snapshot.add_dependents(*id, page),
                None => return false,
            },
            _ => return false,
        }
        true
    }
}
