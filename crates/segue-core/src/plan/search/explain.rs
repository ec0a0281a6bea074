//! Why there is no plan.

use std::collections::BTreeSet;

use super::super::fit::{compatible, describe, type_of};
use super::super::{Missing, Unplannable};
use super::{Settled, Table, Want};

impl<'a> Table<'a> {
    /// Why the goal cannot be reached: the wants at the bottom that nobody meets, or a circle.
    pub(super) fn explain(&self, settled: &Settled) -> Unplannable {
        let mut missing = Vec::new();
        let mut seen = BTreeSet::new();
        let mut said = BTreeSet::new();
        let mut open: Vec<(Option<usize>, &Want)> =
            self.wanted.iter().rev().map(|want| (None, want)).collect();
        while let Some((consumer, want)) = open.pop() {
            if self.at_hand(want).is_some()
                || self.makers(want).any(|index| settled.price[index].is_some())
            {
                continue;
            }
            let mut makers = self.makers(want).peekable();
            if makers.peek().is_none() && said.insert((consumer, want.name)) {
                missing.push(self.missing(consumer, want));
            }
            for index in makers.filter(|&index| seen.insert(index)) {
                open.extend(
                    self.nodes[index].required.iter().rev().map(|want| (Some(index), want)),
                );
            }
        }
        if missing.is_empty() {
            missing.extend(self.circle(settled));
        }
        Unplannable { missing }
    }

    fn makers(&self, want: &Want<'a>) -> impl Iterator<Item = usize> {
        let fits: Vec<usize> = (0..self.nodes.len())
            .filter(|&index| self.nodes[index].runs && self.nodes[index].could_make(want))
            .collect();
        fits.into_iter()
    }

    /// A want that nobody meets, with those who come close.
    fn missing(&self, consumer: Option<usize>, want: &Want) -> Missing {
        let mut instead = Vec::new();
        let wanted = describe(want.schema);
        if let Some(value) = self.goal.given.get(want.name) {
            instead.push(format!("it is given as {}, and {wanted} is wanted", type_of(value)));
        }
        for node in &self.nodes {
            let Some(schema) = node.makes.get(want.name) else { continue };
            instead.push(if self.known.failed.contains(&node.key) {
                format!("{} failed", node.who)
            } else if !compatible(schema, want.schema) {
                format!("{} makes {}, and {wanted} is wanted", node.who, describe(schema))
            } else if let Some(value) = self.known.value(&node.key, want.name) {
                format!("{} brought {}, and {wanted} is wanted", node.who, type_of(value))
            } else {
                format!("{} completed without it", node.who)
            });
        }
        Missing {
            property: want.name.to_owned(),
            wanted_by: consumer.map(|index| self.nodes[index].who.clone()),
            instead,
            circle: Vec::new(),
        }
    }

    /// The circle that keeps a wanted property from being made, when nothing else does.
    fn circle(&self, settled: &Settled) -> Option<Missing> {
        let unmet = |want: &&Want<'a>| {
            self.at_hand(want).is_none()
                && !self.makers(want).any(|index| settled.price[index].is_some())
        };
        let wanted = self.wanted.iter().find(unmet)?;
        let mut path: Vec<usize> = Vec::new();
        let mut next = self.makers(wanted).next()?;
        while !path.contains(&next) {
            path.push(next);
            let want = self.nodes[next].required.iter().find(unmet)?;
            next = self.makers(want).next()?;
        }
        let start = path.iter().position(|&index| index == next)?;
        let circle = path[start..].iter().map(|&index| self.nodes[index].who.clone()).collect();
        Some(Missing {
            property: wanted.name.to_owned(),
            wanted_by: None,
            instead: Vec::new(),
            circle,
        })
    }
}
