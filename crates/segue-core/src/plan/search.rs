//! The search: who makes each wanted property, at what price, and in which order.
//!
//! Forward first: offers settle cheapest first as what they require becomes available, which is Knuth's
//! generalisation of Dijkstra's algorithm to "needs all of these" (D. E. Knuth, A Generalization of Dijkstra's
//! Algorithm, Information Processing Letters 6, 1977). Whatever can be made at all settles, and each property then has
//! a cheapest producer that settled before its consumer, so following those choices backward from the goal never runs
//! in a circle. That price counts a shared step once for each of its consumers; [`Table::improve`] therefore tries other
//! producers as long as the price of the plan as a whole goes down. Nothing here depends on the order of the offers.

mod explain;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use serde_json::Value;

use super::fit::{compatible, properties, required, value_fits};
use super::{Goal, Known, Offer, Plan, Source, Step, Unplannable, Who, keys};

/// How many other plans are tried before the best one so far is taken.
const TRIES_MAX: usize = 4_000;

/// Plans backward from the goal: the steps that are left to do, given what is [`Known`], cheapest first (fewest
/// unavailable agents, then lowest cost, then shortest time, then fewest steps, then names).
///
/// Given facts are preferred over work, finished work over new work. A property that is consumed but not required
/// is taken when it is given or made by a step of the plan anyway; nobody is asked to work for it.
///
/// # Errors
/// [`Unplannable`] names what nobody can bring and who needs it.
pub fn plan(goal: &Goal, offers: &[Offer], known: &Known) -> Result<Plan, Unplannable> {
    let table = Table::new(goal, offers, known);
    let settled = table.settle();
    let wanted = table.goal_choice(&settled).ok_or_else(|| table.explain(&settled))?;
    let first = table
        .follow(&settled, &wanted, &Overrides::new())
        .ok_or_else(|| table.explain(&settled))?;
    let best = table.improve(&settled, &wanted, first);
    Ok(table.finish(best))
}

/// A property somebody consumes.
struct Want<'a> {
    name: &'a str,
    schema: &'a Value,
}

/// One offer, read.
struct Node<'a> {
    offer: &'a Offer,
    who: Who,
    key: String,
    required: Vec<Want<'a>>,
    optional: Vec<Want<'a>>,
    makes: BTreeMap<&'a str, &'a Value>,
    /// Whether it may be planned: it has neither failed nor been done.
    runs: bool,
}

struct Table<'a> {
    goal: &'a Goal,
    known: &'a Known,
    nodes: Vec<Node<'a>>,
    wanted: Vec<Want<'a>>,
    /// Keys of finished steps whose agents are no longer in the team.
    left: Vec<&'a str>,
}

/// Where a want is met.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Origin {
    Given,
    /// By the output of the node that is at hand already.
    Held(usize),
    /// By the output at hand of somebody who has left the team since.
    Left(usize),
    /// By running the node.
    Run(usize),
}

/// The price of a node with everything below it, compared field by field.
#[derive(Clone, Copy, Debug)]
struct Price {
    unavailable: u32,
    usd: f64,
    seconds: f64,
    depth: u32,
}

impl Price {
    const NOTHING: Self = Self { unavailable: 0, usd: 0.0, seconds: 0.0, depth: 0 };

    fn of(offer: &Offer) -> Self {
        let sane = |number: f64| if number.is_finite() && number > 0.0 { number } else { 0.0 };
        let unavailable = u32::from(offer.available == 0);
        Self { unavailable, usd: sane(offer.cost_usd), seconds: sane(offer.duration_s), depth: 1 }
    }

    /// Both are needed; they run side by side.
    fn beside(self, other: Self) -> Self {
        Self {
            unavailable: self.unavailable.saturating_add(other.unavailable),
            usd: self.usd + other.usd,
            seconds: self.seconds.max(other.seconds),
            depth: self.depth.max(other.depth),
        }
    }

    /// This one comes after the other.
    fn after(self, other: Self) -> Self {
        Self {
            unavailable: self.unavailable.saturating_add(other.unavailable),
            usd: self.usd + other.usd,
            seconds: self.seconds + other.seconds,
            depth: self.depth.saturating_add(other.depth),
        }
    }
}

impl Ord for Price {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.unavailable.cmp(&other.unavailable))
            .then(self.usd.total_cmp(&other.usd))
            .then(self.seconds.total_cmp(&other.seconds))
            .then(self.depth.cmp(&other.depth))
    }
}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Price {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Price {}

/// What settled, at what price, and who makes each required property of it.
struct Settled {
    price: Vec<Option<Price>>,
    choice: Vec<Vec<Option<Origin>>>,
}

/// Who consumes a want: a node, or the goal.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Consumer {
    Goal,
    Node(usize),
}

/// Other producers than the settled ones, by consumer and position of the want.
type Overrides = BTreeMap<(Consumer, usize), usize>;

/// One complete way to reach the goal.
#[derive(Clone)]
struct Chosen {
    /// For each node that takes part: where its required properties come from.
    inputs: BTreeMap<usize, Vec<Origin>>,
    goal: Vec<Origin>,
    /// The nodes of `inputs`, producers before consumers.
    order: Vec<usize>,
    overrides: Overrides,
    price: (Price, usize, Vec<usize>),
}

impl<'a> Table<'a> {
    fn new(goal: &'a Goal, offers: &'a [Offer], known: &'a Known) -> Self {
        let mut indexed: BTreeMap<Who, (&Offer, String)> = BTreeMap::new();
        for (offer, key) in offers.iter().zip(keys(offers)) {
            indexed.entry(offer.who()).or_insert((offer, key));
        }
        let nodes: Vec<Node> = indexed
            .into_iter()
            .map(|(who, (offer, key))| Node::new(offer, who, key, known))
            .collect();
        let mut wanted = wants(required(&goal.produces));
        if wanted.is_empty() {
            wanted = wants(properties(&goal.produces));
        }
        let left = known.made.keys().filter(|key| nodes.iter().all(|node| node.key != **key));
        let left = left.map(String::as_str).collect();
        Self { goal, known, nodes, wanted, left }
    }

    /// Where a want is met without any work.
    fn at_hand(&self, want: &Want) -> Option<Origin> {
        if self.goal.given.get(want.name).is_some_and(|value| value_fits(value, want.schema)) {
            return Some(Origin::Given);
        }
        let held = (0..self.nodes.len()).find(|&index| self.holds(index, want)).map(Origin::Held);
        // What they declared left with them, so the value alone says whether it fits.
        let left = |key: &&str| {
            self.known.value(key, want.name).is_some_and(|value| value_fits(value, want.schema))
        };
        held.or_else(|| self.left.iter().position(left).map(Origin::Left))
    }

    fn holds(&self, index: usize, want: &Want) -> bool {
        let node = &self.nodes[index];
        let fits = |value| value_fits(value, want.schema);
        node.could_make(want)
            && (self.known.too_large.contains(&node.key)
                || self.known.value(&node.key, want.name).is_some_and(fits))
    }

    /// Everything that can be made at all, cheapest first.
    fn settle(&self) -> Settled {
        let count = self.nodes.len();
        let mut price: Vec<Option<Price>> = vec![None; count];
        let mut choice: Vec<Vec<Option<Origin>>> = Vec::with_capacity(count);
        let mut below = vec![Price::NOTHING; count];
        let mut unmet = vec![0_usize; count];
        let mut consumers: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        let mut heap = BinaryHeap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let met: Vec<Option<Origin>> =
                node.required.iter().map(|want| self.at_hand(want)).collect();
            for (position, _) in met.iter().enumerate().filter(|(_, met)| met.is_none()) {
                consumers.entry(node.required[position].name).or_default().push((index, position));
                unmet[index] += 1;
            }
            choice.push(met);
            if unmet[index] == 0 && node.runs {
                heap.push(Reverse((Price::of(node.offer), index)));
            }
        }
        while let Some(Reverse((cost, index))) = heap.pop() {
            price[index] = Some(cost);
            for name in self.nodes[index].makes.keys() {
                for &(consumer, position) in consumers.get(name).into_iter().flatten() {
                    let node = &self.nodes[consumer];
                    if choice[consumer][position].is_some()
                        || !self.nodes[index].could_make(&node.required[position])
                    {
                        continue;
                    }
                    choice[consumer][position] = Some(Origin::Run(index));
                    below[consumer] = below[consumer].beside(cost);
                    unmet[consumer] -= 1;
                    if unmet[consumer] == 0 && node.runs {
                        heap.push(Reverse((
                            Price::of(node.offer).after(below[consumer]),
                            consumer,
                        )));
                    }
                }
            }
        }
        Settled { price, choice }
    }

    /// The cheapest way to meet each wanted property, by the preferred capability where it can.
    fn goal_choice(&self, settled: &Settled) -> Option<Vec<Origin>> {
        let preferred = self
            .goal
            .by
            .as_ref()
            .and_then(|who| self.nodes.iter().position(|node| node.who == *who));
        let choose = |want: &Want| {
            if let Some(index) = preferred {
                if self.holds(index, want) {
                    return Some(Origin::Held(index));
                }
                if settled.price[index].is_some() && self.nodes[index].could_make(want) {
                    return Some(Origin::Run(index));
                }
            }
            self.at_hand(want).or_else(|| {
                (0..self.nodes.len())
                    .filter(|&index| self.nodes[index].could_make(want))
                    .filter_map(|index| Some((settled.price[index]?, index)))
                    .min()
                    .map(|(_, index)| Origin::Run(index))
            })
        };
        self.wanted.iter().map(choose).collect()
    }

    /// Follows the choices backward from the goal. `None` when the overrides lead into a circle.
    fn follow(
        &self,
        settled: &Settled,
        wanted: &[Origin],
        overrides: &Overrides,
    ) -> Option<Chosen> {
        let pick = |consumer, position, from| match overrides.get(&(consumer, position)) {
            Some(&other) => Origin::Run(other),
            None => from,
        };
        let goal: Vec<Origin> = wanted
            .iter()
            .enumerate()
            .map(|(position, &from)| pick(Consumer::Goal, position, from))
            .collect();
        let mut inputs: BTreeMap<usize, Vec<Origin>> = BTreeMap::new();
        let mut open: Vec<usize> = goal.iter().filter_map(run_of).collect();
        while let Some(index) = open.pop() {
            if inputs.contains_key(&index) {
                continue;
            }
            settled.price[index]?;
            let sources: Option<Vec<Origin>> = (settled.choice[index].iter().enumerate())
                .map(|(position, from)| Some(pick(Consumer::Node(index), position, (*from)?)))
                .collect();
            let sources = sources?;
            open.extend(sources.iter().filter_map(run_of));
            inputs.insert(index, sources);
        }
        let edges = |index: usize| inputs[&index].iter().filter_map(run_of).collect();
        let order = sort(inputs.keys().copied(), edges)?;
        let price = self.price(&inputs, &order);
        Some(Chosen { inputs, goal, order, overrides: overrides.clone(), price })
    }

    /// The price of a whole plan: each step once, time along its longest path.
    fn price(
        &self,
        inputs: &BTreeMap<usize, Vec<Origin>>,
        order: &[usize],
    ) -> (Price, usize, Vec<usize>) {
        let mut total = Price::NOTHING;
        let mut end: BTreeMap<usize, f64> = BTreeMap::new();
        for &index in order {
            let own = Price::of(self.nodes[index].offer);
            let start =
                inputs[&index].iter().filter_map(run_of).map(|one| end[&one]).fold(0.0, f64::max);
            end.insert(index, start + own.seconds);
            total.seconds = total.seconds.max(start + own.seconds);
        }
        // Summed in the order of names, so that the same set of steps always costs the same.
        for &index in inputs.keys() {
            let own = Price::of(self.nodes[index].offer);
            total.unavailable = total.unavailable.saturating_add(own.unavailable);
            total.usd += own.usd;
        }
        (total, inputs.len(), inputs.keys().copied().collect())
    }

    /// Replaces producers as long as that makes the whole plan cheaper: one offer for everything it could make in
    /// this plan, or one producer of one property.
    fn improve(&self, settled: &Settled, wanted: &[Origin], first: Chosen) -> Chosen {
        let mut best = first;
        let mut tries = TRIES_MAX;
        loop {
            let mut better: Option<Chosen> = None;
            for overrides in self.moves(settled, &best) {
                if tries == 0 {
                    return better.unwrap_or(best);
                }
                tries -= 1;
                if let Some(other) = self.follow(settled, wanted, &overrides)
                    && other.price < better.as_ref().unwrap_or(&best).price
                {
                    better = Some(other);
                }
            }
            match better {
                Some(found) => best = found,
                None => return best,
            }
        }
    }

    /// Other choices of producers, near to those of a plan.
    fn moves(&self, settled: &Settled, now: &Chosen) -> Vec<Overrides> {
        let mut slots: Vec<(Consumer, usize, &Want, usize)> = Vec::new();
        for (position, from) in now.goal.iter().enumerate() {
            if let Some(maker) = run_of(from)
                && self.goal.by.as_ref() != Some(&self.nodes[maker].who)
            {
                slots.push((Consumer::Goal, position, &self.wanted[position], maker));
            }
        }
        for (&index, sources) in &now.inputs {
            for (position, from) in sources.iter().enumerate() {
                if let Some(maker) = run_of(from) {
                    slots.push((
                        Consumer::Node(index),
                        position,
                        &self.nodes[index].required[position],
                        maker,
                    ));
                }
            }
        }
        let mut moves = Vec::new();
        for other in (0..self.nodes.len()).filter(|&index| settled.price[index].is_some()) {
            let fitting: Vec<(Consumer, usize)> = slots
                .iter()
                .filter(|(consumer, _, want, maker)| {
                    *maker != other
                        && *consumer != Consumer::Node(other)
                        && self.nodes[other].could_make(want)
                })
                .map(|&(consumer, position, _, _)| (consumer, position))
                .collect();
            let with = |slots: &[(Consumer, usize)]| {
                let mut overrides = now.overrides.clone();
                overrides.extend(slots.iter().map(|&slot| (slot, other)));
                overrides
            };
            if fitting.len() > 1 {
                moves.push(with(&fitting));
            }
            moves.extend(fitting.iter().map(|&slot| with(&[slot])));
            if moves.len() > TRIES_MAX {
                break;
            }
        }
        moves
    }

    /// The plan that callers see: optional properties added, steps in order.
    fn finish(&self, chosen: Chosen) -> Plan {
        let mut edges: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut inputs: BTreeMap<usize, BTreeMap<String, Source>> = BTreeMap::new();
        let mut gives: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (&index, sources) in &chosen.inputs {
            let node = &self.nodes[index];
            let taken = inputs.entry(index).or_default();
            for (want, &from) in node.required.iter().zip(sources) {
                taken.insert(want.name.to_owned(), self.source(from));
                if let Origin::Run(maker) = from {
                    edges.entry(index).or_default().insert(maker);
                    gives.entry(maker).or_default().insert(want.name.to_owned());
                }
            }
        }
        for &index in &chosen.order {
            for want in &self.nodes[index].optional {
                let makers = || {
                    chosen.order.iter().copied().filter(|&maker| self.nodes[maker].could_make(want))
                };
                let from = self.at_hand(want).or_else(|| {
                    makers().find(|&maker| !rests_on(&edges, maker, index)).map(Origin::Run)
                });
                let Some(from) = from else { continue };
                inputs.entry(index).or_default().insert(want.name.to_owned(), self.source(from));
                if let Origin::Run(maker) = from {
                    edges.entry(index).or_default().insert(maker);
                    gives.entry(maker).or_default().insert(want.name.to_owned());
                }
            }
        }
        let goal = self.wanted.iter().zip(&chosen.goal);
        for (want, from) in goal.clone() {
            if let Origin::Run(maker) = *from {
                gives.entry(maker).or_default().insert(want.name.to_owned());
            }
        }
        let edges_of = |index: usize| edges.get(&index).into_iter().flatten().copied().collect();
        // No optional edge closes a circle, so there is an order.
        let order = sort(chosen.inputs.keys().copied(), edges_of).unwrap_or(chosen.order);
        let steps = order.into_iter().map(|index| Step {
            key: self.nodes[index].key.clone(),
            agent: self.nodes[index].who.agent.clone(),
            capability: self.nodes[index].who.capability.clone(),
            inputs: inputs.remove(&index).unwrap_or_default(),
            gives: gives.remove(&index).unwrap_or_default(),
        });
        Plan {
            steps: steps.collect(),
            goal: goal.map(|(want, from)| (want.name.to_owned(), self.source(*from))).collect(),
        }
    }

    fn source(&self, from: Origin) -> Source {
        match from {
            Origin::Given => Source::Given,
            Origin::Left(index) => Source::Step(self.left[index].to_owned()),
            Origin::Held(index) | Origin::Run(index) => Source::Step(self.nodes[index].key.clone()),
        }
    }
}

impl<'a> Node<'a> {
    fn new(offer: &'a Offer, who: Who, key: String, known: &Known) -> Self {
        let needed = required(&offer.consumes);
        let optional = properties(&offer.consumes)
            .into_iter()
            .filter(|(name, _)| needed.binary_search_by_key(name, |(name, _)| *name).is_err())
            .collect();
        let done = known.too_large.contains(&key)
            || known.made.contains_key(&key) && !known.not_kept.contains(&key);
        Self {
            offer,
            runs: !done && !known.failed.contains(&key),
            who,
            key,
            required: wants(needed),
            optional: wants(optional),
            makes: properties(&offer.produces).into_iter().collect(),
        }
    }

    /// Whether its output, by its schema, has this property in a form that fits.
    fn could_make(&self, want: &Want) -> bool {
        self.makes.get(want.name).is_some_and(|schema| compatible(schema, want.schema))
    }
}

fn wants<'a>(properties: Vec<(&'a str, &'a Value)>) -> Vec<Want<'a>> {
    properties.into_iter().map(|(name, schema)| Want { name, schema }).collect()
}

fn run_of(from: &Origin) -> Option<usize> {
    match from {
        Origin::Run(index) => Some(*index),
        Origin::Given | Origin::Held(_) | Origin::Left(_) => None,
    }
}

/// Whether `node` takes, directly or not, from `base` (or is it).
fn rests_on(edges: &BTreeMap<usize, BTreeSet<usize>>, node: usize, base: usize) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![node];
    while let Some(index) = open.pop() {
        if index == base {
            return true;
        }
        if seen.insert(index) {
            open.extend(edges.get(&index).into_iter().flatten());
        }
    }
    false
}

/// Producers before consumers, the lowest index first where the order is free. `None` when there is a circle.
fn sort(
    nodes: impl Iterator<Item = usize>,
    makers: impl Fn(usize) -> BTreeSet<usize>,
) -> Option<Vec<usize>> {
    let mut waits: BTreeMap<usize, usize> = BTreeMap::new();
    let mut consumers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in nodes {
        let makers = makers(index);
        waits.insert(index, makers.len());
        for maker in makers {
            consumers.entry(maker).or_default().push(index);
        }
    }
    let mut ready: BTreeSet<usize> =
        waits.iter().filter(|(_, waits)| **waits == 0).map(|(index, _)| *index).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for consumer in consumers.get(&index).into_iter().flatten() {
            if let Some(left) = waits.get_mut(consumer) {
                *left -= 1;
                if *left == 0 {
                    ready.insert(*consumer);
                }
            }
        }
    }
    (order.len() == waits.len()).then_some(order)
}
