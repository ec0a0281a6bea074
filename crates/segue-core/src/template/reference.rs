//! What a template reads, and what the checks found out about it.

use std::ops::Range;

/// Put behind both operands of `*`, so that only numbers are multiplied.
pub(super) const GUARD: &str = "|__number";

/// What a reference starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// `input`: the input of the run.
    Input,
    /// `tasks`: the tasks that ended.
    Tasks,
    /// `item`: the element of `for_each`.
    Item,
    /// `index`: the position in `for_each`, from 0.
    Index,
    /// `run`: the run itself.
    Run,
    /// `state`: the state that the project shares, by key.
    State,
}

impl Root {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Root::Input => "input",
            Root::Tasks => "tasks",
            Root::Item => "item",
            Root::Index => "index",
            Root::Run => "run",
            Root::State => "state",
        }
    }
}

/// A name that a template reads, as far as it is written literally.
///
/// `tasks.scan.output.files[0]` and `tasks['scan']['output'].files[n]` give the path
/// `scan`, `output`, `files`, and for the first `0` as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What it starts from.
    pub root: Root,
    /// The keys and indexes that follow, up to the first that is computed.
    pub path: Vec<String>,
    /// Byte range of each key of `path` in the template (without quotes or brackets).
    pub spans: Vec<Range<usize>>,
    /// Byte range of the whole reference in the template.
    pub span: Range<usize>,
    /// The next key is computed, as in `tasks[input.name]`.
    pub computed: bool,
}

impl Reference {
    /// The task that is read, when the root is `tasks` and the name is literal.
    pub fn task(&self) -> Option<&str> {
        (self.root == Root::Tasks).then(|| self.path.first().map(String::as_str))?
    }

    /// The input that is read, when the root is `input` and the name is literal.
    pub fn input(&self) -> Option<&str> {
        (self.root == Root::Input).then(|| self.path.first().map(String::as_str))?
    }

    /// The key of shared state that is read, when the root is `state`.
    pub fn state_key(&self) -> Option<&str> {
        (self.root == Root::State).then(|| self.path.first().map(String::as_str))?
    }

    /// Where the first key stands, else the whole reference.
    pub fn name_span(&self) -> Range<usize> {
        self.spans.first().cloned().unwrap_or_else(|| self.span.clone())
    }
}

/// How an expression joins values, for the bound on memory.
#[derive(Clone, Debug)]
pub(super) struct Joins {
    /// How many `~` and `+` it has.
    pub(super) count: usize,
    /// It applies a filter, whose result may be as long as a filter may make it.
    pub(super) filters: bool,
    /// It reads a loop variable, which may be any part of what the template reads.
    pub(super) locals: bool,
    /// Its own references, as indexes into [`Analysis::references`].
    pub(super) references: Range<usize>,
}

/// What the checks found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Analysis {
    pub(super) references: Vec<Reference>,
    /// Where [`GUARD`] is inserted, ascending.
    pub(super) guards: Vec<usize>,
    /// Expressions that join values.
    pub(super) joins: Vec<Joins>,
}

impl Analysis {
    /// The source as it is given to the engine.
    pub(super) fn guarded(&self, source: &str) -> String {
        let mut out = String::with_capacity(source.len() + self.guards.len() * GUARD.len());
        let mut from = 0;
        for &at in &self.guards {
            out.push_str(&source[from..at]);
            out.push_str(GUARD);
            from = at;
        }
        out.push_str(&source[from..]);
        out
    }

    /// Where an offset in the guarded source stands in the source that the user wrote.
    pub(super) fn original_offset(&self, offset: usize) -> usize {
        let mut inserted = 0;
        for &at in &self.guards {
            let place = at + inserted;
            if place >= offset {
                break;
            }
            inserted += GUARD.len().min(offset - place);
        }
        offset - inserted
    }
}

impl Reference {
    pub(super) fn push(&mut self, key: String, span: Range<usize>, end: usize) {
        self.path.push(key);
        self.spans.push(span);
        self.span.end = end;
    }
}
