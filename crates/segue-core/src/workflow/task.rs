//! The tasks of a file.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

use super::MAX_TASKS;
use super::fields;
use super::graph::{Edge, Via};
use super::model::{
    DEFAULT_PRIORITY, ForEach, OnFailure, PRIORITIES, Retry, Target, Task, Timeouts, Workspace,
};
use super::node::{Entry, Kind};
use super::read::{Found, Reader, Scope, whole};
use super::suggest::quote;
use crate::state::{STATE_KEYS_MAX, check_pattern};

/// A task that was read, with what it waits for by name.
pub(super) struct RawTask {
    pub(super) task: Task,
    pub(super) edges: Vec<Edge>,
}

impl<'a> Reader<'a> {
    pub(super) fn tasks(&mut self, entry: &Entry) -> Vec<RawTask> {
        let hint = "write `tasks:` and below it, indented, `name:` with the keys of the task";
        let entries: &'a [Entry] = match self.kind(entry.value) {
            Kind::Map(entries) if !entries.is_empty() => entries,
            kind => {
                match kind {
                    Kind::Map(_) if !self.tree.is_complete => {}
                    Kind::Map(_) => self.empty(entry, hint),
                    Kind::List(items) if items.is_empty() => self.empty(entry, hint),
                    _ => self.wrong_kind(entry, "a map from name to task", Some(hint)),
                }
                return Vec::new();
            }
        };
        if entries.len() > MAX_TASKS {
            let message = format!(
                "the workflow has {} tasks, at most {MAX_TASKS} are allowed",
                entries.len()
            );
            let hint = "let one task stand for many with `for_each`";
            self.error(entry.key_span, message, Some(hint.to_owned()));
            return Vec::new();
        }
        self.task_names = entries.iter().map(|entry| entry.key.as_str()).collect();
        self.task_set = self.task_names.iter().copied().collect();
        entries.iter().filter_map(|entry| self.task(entry)).collect()
    }

    fn task(&mut self, entry: &'a Entry) -> Option<RawTask> {
        self.check_name(entry, "a task");
        let of = format!("task {}", quote(&entry.key));
        let Kind::Map(entries) = self.kind(entry.value) else {
            let hint = "give it at least `agent: NAME` or `capability: NAME`";
            self.wrong_kind(entry, "a map", Some(hint));
            return None;
        };
        let found = self.fields(entries.iter(), fields::TASK, &of);
        let mut edges = Vec::new();
        if let Some(entry) = found.get("needs") {
            edges = self.needs(entry);
        }
        let has_item = found.has("for_each");
        let scope = |via| Scope { via, is_expression: false, has_item };
        let target = self.target(entry, &found, &of);
        let description = found.get("description").and_then(|entry| self.text(entry));
        let prompt = found.get("prompt").and_then(|entry| {
            let text = self.text(entry)?;
            self.template(entry.value, text, scope(Via::Prompt), &mut edges);
            Some(text.to_owned())
        });
        let input = self.task_input(&found, scope(Via::Input), &mut edges);
        if let (Some(entry), true) = (found.get("prompt"), input.get("prompt").is_some()) {
            let hint = "an agent gets its prompt as the key `prompt` of its input; remove one";
            let message = format!("{of} has a `prompt` and another in its `input`");
            self.error(entry.key_span, message, Some(hint.to_owned()));
        }
        let when = found
            .get("when")
            .and_then(|entry| self.expression(entry, Via::When, has_item, &mut edges));
        let for_each = self.for_each(&found, &mut edges);
        let retry = found.get("retry").and_then(|entry| self.retry(entry));
        let timeout = found.get("timeout").map(|entry| self.timeout(entry)).unwrap_or_default();
        let priority = found.get("priority").and_then(|entry| self.priority(entry));
        let on_failure = found.get("on_failure").and_then(|entry| self.word(entry, OnFailure::ALL));
        let workspace = found.get("workspace").and_then(|entry| self.word(entry, Workspace::ALL));
        let state_keys = found.get("state_keys").map(|entry| self.state_keys(entry));
        let (line, _, _) = self.source.place(entry.key_span);
        let task = Task {
            name: entry.key.clone(),
            line,
            // A task without a target has pushed an error, so that this one is never used.
            target: target.unwrap_or_else(|| Target::Agent(String::new())),
            description: description.map(str::to_owned),
            prompt,
            input,
            needs: Vec::new(),
            when,
            for_each,
            retry,
            timeout,
            priority: priority.unwrap_or(DEFAULT_PRIORITY),
            on_failure: on_failure.unwrap_or_default(),
            workspace,
            state_keys: state_keys.unwrap_or_default(),
        };
        Some(RawTask { task, edges })
    }

    fn task_input(&mut self, found: &Found<'a>, scope: Scope, edges: &mut Vec<Edge>) -> Value {
        match found.get("input") {
            Some(entry) if matches!(self.kind(entry.value), Kind::Null) => {
                let hint = "write `{}` for an empty map, or remove it";
                self.wrong_kind(entry, "a value", Some(hint));
                Value::Null
            }
            Some(entry) => self.value(entry.value, Some(scope), edges),
            None => Value::Object(Map::new()),
        }
    }

    fn target(&mut self, task: &Entry, found: &Found<'a>, of: &str) -> Option<Target> {
        let is_meant = found.is_meant("agent") || found.is_meant("capability");
        let is_missing = self.tree.is_complete && !is_meant;
        match (found.get("agent"), found.get("capability")) {
            (Some(agent), None) => self.target_name(agent).map(Target::Agent),
            (None, Some(capability)) => self.target_name(capability).map(Target::Capability),
            (Some(agent), Some(capability)) => {
                let second = if agent.key_span.start > capability.key_span.start {
                    agent
                } else {
                    capability
                };
                let hint =
                    "keep `agent` for one agent by name, or `capability` for any that can do it";
                self.error(
                    second.key_span,
                    format!("{of} has both `agent` and `capability`"),
                    Some(hint.to_owned()),
                );
                None
            }
            (None, None) if is_missing => {
                let hint = "add `agent: NAME` or `capability: NAME`".to_owned();
                self.error(task.key_span, format!("{of} names nobody who does it"), Some(hint));
                None
            }
            (None, None) => None,
        }
    }

    fn needs(&mut self, entry: &Entry) -> Vec<Edge> {
        let ids = match self.kind(entry.value) {
            Kind::List(items) => items.clone(),
            Kind::Text { .. } => vec![entry.value],
            _ => {
                self.wrong_kind(entry, "the name of a task, or a list of names", None);
                return Vec::new();
            }
        };
        let mut edges: Vec<Edge> = Vec::new();
        let mut seen = FxHashSet::default();
        for id in ids {
            let span = self.span(id);
            match self.kind(id) {
                Kind::Text { value, .. } if seen.insert(value.as_str()) => {
                    edges.push(Edge { to: value.clone(), span, via: Via::Needs });
                }
                Kind::Text { value, .. } => {
                    self.warn(span, format!("{} stands in `needs` twice", quote(value)), None);
                }
                Kind::Broken => {}
                _ => {
                    let message = format!(
                        "the name of a task is expected here, but this is {}",
                        self.describe(id)
                    );
                    self.error(span, message, None);
                }
            }
        }
        edges
    }

    fn state_keys(&mut self, entry: &Entry) -> Vec<String> {
        let ids = match self.kind(entry.value) {
            Kind::List(items) => items.clone(),
            Kind::Text { .. } => vec![entry.value],
            _ => {
                self.wrong_kind(entry, "a key, a prefix and `*`, or a list of them", None);
                return Vec::new();
            }
        };
        if ids.len() > STATE_KEYS_MAX {
            let message =
                format!("{} keys are too many, at most {STATE_KEYS_MAX} are allowed", ids.len());
            self.error(entry.key_span, message, Some("name a prefix and `*`".to_owned()));
            return Vec::new();
        }
        let mut keys = Vec::with_capacity(ids.len());
        for id in ids {
            match self.kind(id) {
                Kind::Text { value, .. } => match check_pattern(value) {
                    Ok(()) => keys.push(value.clone()),
                    Err(wrong) => self.error(self.span(id), wrong, None),
                },
                Kind::Broken => {}
                _ => {
                    let message =
                        format!("a key is expected here, but this is {}", self.describe(id));
                    self.error(self.span(id), message, Some("put it in quotes".to_owned()));
                }
            }
        }
        keys
    }

    /// An expression, with or without `{{ }}`.
    fn expression(
        &mut self,
        entry: &Entry,
        via: Via,
        has_item: bool,
        edges: &mut Vec<Edge>,
    ) -> Option<String> {
        let text = match self.kind(entry.value) {
            Kind::Text { value, .. } => value,
            Kind::Bool(flag) if via == Via::When => return Some(flag.to_string()),
            Kind::List(_) if via == Via::ForEach => {
                self.wrong_kind(
                    entry,
                    "an expression",
                    Some("quote a fixed list, so that it is one: \"['a', 'b']\""),
                );
                return None;
            }
            Kind::Map(_) => {
                self.wrong_kind(
                    entry,
                    "an expression",
                    Some("quote an expression that starts with `{`"),
                );
                return None;
            }
            _ => {
                self.wrong_kind(entry, "an expression", None);
                return None;
            }
        };
        let scope = Scope { via, is_expression: true, has_item };
        self.template(entry.value, text, scope, edges);
        Some(text.clone())
    }

    fn for_each(&mut self, found: &Found<'a>, edges: &mut Vec<Edge>) -> Option<ForEach> {
        let max_parallel =
            found.get("max_parallel").and_then(|entry| self.count(entry, fields::MAX_PARALLEL));
        match (found.get("for_each"), found.get("max_parallel")) {
            (Some(entry), _) => {
                let list = self.expression(entry, Via::ForEach, false, edges)?;
                Some(ForEach { list, max_parallel })
            }
            (None, Some(entry)) => {
                let hint = "put it beside `tasks` to bound the whole run".to_owned();
                self.error(entry.key_span, "`max_parallel` of a task needs `for_each`", Some(hint));
                None
            }
            (None, None) => None,
        }
    }

    fn retry(&mut self, entry: &Entry) -> Option<Retry> {
        let mut retry = Retry::default();
        let entries: &'a [Entry] = match self.kind(entry.value) {
            Kind::Number(_) => {
                retry.attempts = self.count(entry, fields::MAX_ATTEMPTS)?;
                return Some(retry);
            }
            Kind::Map(entries) => entries,
            _ => {
                let hint = "write `retry: 5` or `retry: {attempts: 5, base: 1s, cap: 1m}`";
                self.wrong_kind(entry, "a number of attempts or a map", Some(hint));
                return None;
            }
        };
        let found = self.fields(entries.iter(), fields::RETRY, "`retry`");
        if let Some(attempts) =
            found.get("attempts").and_then(|entry| self.count(entry, fields::MAX_ATTEMPTS))
        {
            retry.attempts = attempts;
        }
        let base = found.get("base").and_then(|entry| self.duration(entry));
        let cap = found.get("cap").and_then(|entry| self.duration(entry));
        retry.base_ms = base.unwrap_or_else(|| retry.base_ms.min(cap.unwrap_or(u64::MAX)));
        retry.cap_ms = cap.unwrap_or_else(|| retry.cap_ms.max(retry.base_ms));
        if retry.base_ms > retry.cap_ms
            && let Some(entry) = found.get("cap")
        {
            let hint = "the first wait cannot be longer than the longest".to_owned();
            self.error(self.span(entry.value), "`cap` is shorter than `base`", Some(hint));
        }
        if let Some(factor) = found.get("factor").and_then(|entry| self.factor(entry)) {
            retry.factor = factor;
        }
        if let Some(jitter) = found.get("jitter").and_then(|entry| self.word(entry, fields::JITTER))
        {
            retry.jitter = jitter;
        }
        Some(retry)
    }

    fn factor(&mut self, entry: &Entry) -> Option<f64> {
        let Kind::Number(number) = self.kind(entry.value) else {
            self.wrong_kind(entry, "a number", None);
            return None;
        };
        let factor = number.as_f64().filter(|factor| (1.0..=fields::MAX_FACTOR).contains(factor));
        if factor.is_none() {
            let message = format!("`factor` must be a number from 1 to {}", fields::MAX_FACTOR);
            self.error(self.span(entry.value), message, None);
        }
        factor
    }

    fn timeout(&mut self, entry: &Entry) -> Timeouts {
        let Kind::Map(entries) = self.kind(entry.value) else {
            return Timeouts { queue_ms: None, run_ms: self.duration(entry) };
        };
        let found = self.fields(entries.iter(), fields::TIMEOUT, "`timeout`");
        Timeouts {
            queue_ms: found.get("queue").and_then(|entry| self.duration(entry)),
            run_ms: found.get("run").and_then(|entry| self.duration(entry)),
        }
    }

    fn priority(&mut self, entry: &Entry) -> Option<u8> {
        let Kind::Number(number) = self.kind(entry.value) else {
            return self.word(entry, PRIORITIES);
        };
        let known = whole(number)
            .and_then(|number| PRIORITIES.iter().find(|(_, known)| u64::from(*known) == number));
        if let Some((_, priority)) = known {
            return Some(*priority);
        }
        let all: Vec<_> =
            PRIORITIES.iter().map(|(word, number)| format!("{number} `{word}`")).collect();
        let message = format!("`priority` cannot be {number}");
        self.error(
            self.span(entry.value),
            message,
            Some(format!("it is one of {}", all.join(", "))),
        );
        None
    }

    /// Whether the file has a task of this name, readable or not.
    pub(super) fn is_task(&self, name: &str) -> bool {
        self.task_set.contains(name)
    }

    /// Index of each task by name.
    pub(super) fn task_index(tasks: &[RawTask]) -> FxHashMap<String, usize> {
        tasks.iter().enumerate().map(|(at, raw)| (raw.task.name.clone(), at)).collect()
    }
}
