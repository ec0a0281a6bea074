//! Which task waits for which: names resolved, cycles refused.

use rustc_hash::FxHashSet;

use super::model::Task;
use super::read::Reader;
use super::source::Span;
use super::suggest::quote;
use super::task::RawTask;

/// What makes a task wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Needs,
    Input,
    Prompt,
    When,
    ForEach,
    /// Not a task but the output of the workflow.
    Output,
}

impl Via {
    fn word(self) -> &'static str {
        match self {
            Via::Needs => "needs",
            Via::Input => "input",
            Via::Prompt => "prompt",
            Via::When => "when",
            Via::ForEach => "for_each",
            Via::Output => "output",
        }
    }
}

/// A task waits for another.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    /// The name of the other.
    pub(super) to: String,
    /// Where the file says so.
    pub(super) span: Span,
    pub(super) via: Via,
}

/// An edge between tasks by index.
#[derive(Clone, Copy)]
struct Link {
    to: usize,
    span: Span,
    via: Via,
}

/// Most cycles that are reported.
const CYCLES_MAX: usize = 10;
/// Most names of a cycle that are written out.
const NAMES_MAX: usize = 12;

/// Fills in what each task needs; reports names that are not there, and cycles.
pub(super) fn link(reader: &mut Reader<'_>, raw: Vec<RawTask>) -> Vec<Task> {
    let index = Reader::task_index(&raw);
    let mut links: Vec<Vec<Link>> = Vec::with_capacity(raw.len());
    let mut tasks = Vec::with_capacity(raw.len());
    for (at, RawTask { mut task, edges }) in raw.into_iter().enumerate() {
        let mut own: Vec<Link> = Vec::new();
        let mut seen = FxHashSet::default();
        for edge in edges {
            match index.get(&edge.to) {
                Some(&to) if to == at => {
                    let message = format!("task {} needs itself", quote(&task.name));
                    let hint = match edge.via {
                        Via::Needs => "remove it from `needs`".to_owned(),
                        via => format!(
                            "its `{}` reads its own result, which is not there yet",
                            via.word()
                        ),
                    };
                    reader.error(edge.span, message, Some(hint));
                }
                Some(&to) => {
                    if seen.insert(to) {
                        own.push(Link { to, span: edge.span, via: edge.via });
                        task.needs.push(edge.to);
                    }
                }
                // A task that could not be read has its own diagnostic.
                None if reader.is_task(&edge.to) => {}
                None => reader.unknown_task(&edge),
            }
        }
        links.push(own);
        tasks.push(task);
    }
    let mut names: Vec<&str> = Vec::new();
    names.extend(tasks.iter().map(|task| task.name.as_str()));
    report_cycles(reader, &names, &links);
    tasks
}

fn report_cycles(reader: &mut Reader<'_>, names: &[&str], links: &[Vec<Link>]) {
    let mut removed = vec![false; links.len()];
    for _ in 0..CYCLES_MAX {
        strip(links, &mut removed);
        let Some(start) = removed.iter().position(|gone| !gone) else {
            return;
        };
        let cycle = walk(start, links, &removed);
        report(reader, names, &cycle);
        for (task, _) in cycle {
            removed[task] = true;
        }
    }
}

/// Removes every task that waits for no remaining one, until none is left to remove. What remains
/// waits for a cycle or is part of one.
fn strip(links: &[Vec<Link>], removed: &mut [bool]) {
    let mut waiting_for: Vec<usize> =
        links.iter().map(|own| own.iter().filter(|link| !removed[link.to]).count()).collect();
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); links.len()];
    for (from, own) in links.iter().enumerate() {
        for link in own {
            needed_by[link.to].push(from);
        }
    }
    let mut free: Vec<usize> =
        (0..links.len()).filter(|task| !removed[*task] && waiting_for[*task] == 0).collect();
    while let Some(task) = free.pop() {
        removed[task] = true;
        for &from in &needed_by[task] {
            waiting_for[from] = waiting_for[from].saturating_sub(1);
            if waiting_for[from] == 0 && !removed[from] {
                free.push(from);
            }
        }
    }
}

/// Follows needs until a task comes up again: each step is a task and the link it follows. Begins
/// with the task that stands first in the file.
fn walk(start: usize, links: &[Vec<Link>], removed: &[bool]) -> Vec<(usize, Link)> {
    let mut path: Vec<(usize, Link)> = Vec::new();
    let mut place = vec![usize::MAX; links.len()];
    let mut task = start;
    while place[task] == usize::MAX {
        // Every task that remains after `strip` has such a link.
        let Some(link) = links[task].iter().find(|link| !removed[link.to]) else {
            return Vec::new();
        };
        place[task] = path.len();
        path.push((task, *link));
        task = link.to;
    }
    let mut cycle = path.split_off(place[task]);
    let first = cycle.iter().enumerate().min_by_key(|(_, (task, _))| *task);
    let first = first.map_or(0, |(at, _)| at);
    cycle.rotate_left(first);
    cycle
}

fn report(reader: &mut Reader<'_>, names: &[&str], cycle: &[(usize, Link)]) {
    let (Some((first, _)), Some((_, last))) = (cycle.first(), cycle.last()) else {
        return;
    };
    let shown = cycle.len().min(NAMES_MAX);
    let mut chain: Vec<String> =
        cycle[..shown].iter().map(|(task, _)| names[*task].to_owned()).collect();
    if shown < cycle.len() {
        chain.push(format!("... {} more ...", cycle.len() - shown));
    }
    chain.push(names[*first].to_owned());
    let message = format!("these tasks wait for each other: {}", chain.join(" -> "));
    let steps: Vec<String> = cycle[..shown]
        .iter()
        .map(|(task, link)| {
            let line = reader.source.line_index(link.span.start) + 1;
            let via = link.via.word();
            format!(
                "{} waits for {} by its `{via}` in line {line}",
                quote(names[*task]),
                quote(names[link.to])
            )
        })
        .collect();
    reader.error(last.span, message, Some(format!("take out one of these: {}", steps.join("; "))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(edges: &[&[usize]]) -> Vec<Vec<Link>> {
        let link = |to: &usize| Link { to: *to, span: Span::default(), via: Via::Needs };
        edges.iter().map(|own| own.iter().map(link).collect()).collect()
    }

    #[test]
    fn a_graph_without_a_cycle_is_stripped_whole() {
        let links = links(&[&[], &[0], &[0, 1], &[2]]);
        let mut removed = vec![false; 4];
        strip(&links, &mut removed);
        assert_eq!(removed, [true; 4]);
    }

    #[test]
    fn the_cycle_is_found_behind_tasks_that_wait_for_it() {
        let links = links(&[&[2], &[], &[3], &[4, 1], &[2]]);
        let mut removed = vec![false; 5];
        strip(&links, &mut removed);
        assert_eq!(removed, [false, true, false, false, false]);
        let cycle: Vec<usize> = walk(0, &links, &removed).iter().map(|(task, _)| *task).collect();
        assert_eq!(cycle, [2, 3, 4]);
    }
}
