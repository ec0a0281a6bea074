//! Finding agents by text: over name, description and capabilities.
//!
//! A capability that is named exactly needs no search. This is for the rest: a person or an
//! agent says in a few words what is to be done, and agents whose files name no capability at
//! all must be found.
//!
//! The ranking is BM25F (Robertson, Zaragoza: "The Probabilistic Relevance Framework: BM25 and
//! Beyond", 2009, section 3.4) over four fields, in an inverted index, with light English
//! stemming so that "review" finds a reviewer. It is a pure function of its
//! input: equal entries and queries give equal hits, in equal order.

use rustc_hash::FxHashMap;

mod stem;

use stem::{stem_joined, words};

/// What can be found.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The agent's name; `code-reviewer`, `codeReviewer` and `Code Reviewer` are the same words.
    pub name: &'a str,
    /// What it is for.
    pub description: &'a str,
    /// Its capabilities, each with name and description.
    pub capabilities: &'a [(&'a str, &'a str)],
}

/// One found entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Its place in the entries that the index was built from.
    pub index: usize,
    /// How well it fits, above 0 and below 1. 1 would be an entry that says nothing but the
    /// query, over and over; a name with all words of the query in it comes to about 0.8.
    /// Words that no entry has count as not fitting.
    pub score: f64,
    /// The words of the query that it has, in the query's order, as written there but in
    /// lower case.
    pub matched: Vec<String>,
}

/// How often a word counts that stands in a field, and how much a long field is discounted.
struct Field {
    weight: f64,
    /// BM25's b: 0 counts every word alike, 1 counts them per length of the field.
    discount: f64,
}

const NAME: usize = 0;
const DESCRIPTION: usize = 1;
const CAPABILITY: usize = 2;
const CAPABILITY_DESCRIPTION: usize = 3;
const FIELDS: [Field; 4] = [
    Field { weight: 4.0, discount: 0.3 },
    Field { weight: 1.0, discount: 0.75 },
    Field { weight: 3.0, discount: 0.3 },
    Field { weight: 1.0, discount: 0.75 },
];
/// BM25's k1: how soon more of the same word no longer counts.
const SATURATION: f64 = 1.2;
/// What a word of an entry counts that merely begins with the word of the query.
const PREFIX_WEIGHT: f32 = 0.6;
/// The shortest word that is looked for as the beginning of others.
const PREFIX_CHARS_MIN: usize = 4;
/// How many different words of a query count.
const QUERY_WORDS_MAX: usize = 64;

/// One entry that has a word, and how much of it (above 0, below 1).
#[derive(Clone, Copy, Debug)]
struct Posting {
    entry: u32,
    weight: f32,
}

/// An inverted index over entries. Building it costs time in proportion to all their text,
/// a query in proportion to the entries that have one of its words.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Word -> place in `postings`.
    terms: FxHashMap<Box<str>, u32>,
    /// Every word, in order, for words that are only begun.
    sorted: Vec<Box<str>>,
    postings: Vec<Vec<Posting>>,
    /// Place of each entry if all were sorted by name, to break ties.
    by_name: Vec<u32>,
}

impl Index {
    /// Builds the index. More than `u32::MAX` entries are cut off there.
    #[must_use]
    pub fn new(entries: &[Entry<'_>]) -> Self {
        let entries = entries.get(..entries.len().min(u32::MAX as usize)).unwrap_or(entries);
        let fields: Vec<[Vec<String>; 4]> = entries.iter().map(field_words).collect();
        let mean = mean_lengths(&fields);
        let mut index = Self { by_name: places_by_name(entries), ..Self::default() };
        for (entry, fields) in (0_u32..).zip(&fields) {
            let mut amounts: FxHashMap<&str, f64> = FxHashMap::default();
            let mut order: Vec<&str> = Vec::new();
            for (words, (field, mean)) in fields.iter().zip(FIELDS.iter().zip(mean)) {
                let length = 1.0 - field.discount + field.discount * words.len() as f64 / mean;
                for word in words {
                    let amount = amounts.entry(word).or_insert_with(|| {
                        order.push(word);
                        0.0
                    });
                    *amount += field.weight / length;
                }
            }
            for word in order {
                let amount = amounts.get(word).copied().unwrap_or(0.0);
                let weight = (amount / (SATURATION + amount)) as f32;
                index.add(word, Posting { entry, weight });
            }
        }
        index.sorted = index.terms.keys().cloned().collect();
        index.sorted.sort_unstable();
        index
    }

    fn add(&mut self, word: &str, posting: Posting) {
        let next = self.postings.len() as u32;
        let term = match self.terms.get(word) {
            Some(term) => *term,
            None => {
                self.terms.insert(word.into(), next);
                self.postings.push(Vec::new());
                next
            }
        };
        if let Some(postings) = self.postings.get_mut(term as usize) {
            postings.push(posting);
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The entries that have at least one word of the query, the best `limit` of them, best
    /// first; equally good ones by name, then in the order in which they were given.
    ///
    /// Small words ("the", "with", "please") do not count, and of a longer query only the
    /// first 64 different words do.
    #[must_use]
    pub fn rank(&self, query: &str, limit: usize) -> Vec<Hit> {
        let wanted = wanted(query);
        let mut sums = vec![Sum::default(); self.len()];
        let mut touched: Vec<u32> = Vec::new();
        let mut total = 0.0;
        for (bit, want) in wanted.iter().enumerate() {
            let found = self.look_up(want);
            let rarity = self.rarity(found.len());
            total += rarity;
            for posting in found {
                let Some(sum) = sums.get_mut(posting.entry as usize) else { continue };
                if sum.words == 0 {
                    touched.push(posting.entry);
                }
                sum.words |= 1 << bit;
                sum.fit += rarity * f64::from(posting.weight);
                sum.covered += rarity;
            }
        }
        let score = |entry: u32| {
            let sum = sums.get(entry as usize).copied().unwrap_or_default();
            // An agent for all words of the query beats an agent that is all about one of them.
            (sum.fit / total) * (sum.covered / total).sqrt()
        };
        let place = |entry: u32| self.by_name.get(entry as usize).copied().unwrap_or(u32::MAX);
        let mut best: Vec<(f64, u32, u32)> =
            touched.into_iter().map(|entry| (score(entry), place(entry), entry)).collect();
        best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best.truncate(limit);
        best.into_iter()
            .map(|(score, _, entry)| {
                let words = sums.get(entry as usize).map_or(0, |sum| sum.words);
                let has = |(bit, want): (usize, &Want)| {
                    (words & 1 << bit != 0).then(|| want.written.clone())
                };
                Hit {
                    index: entry as usize,
                    score,
                    matched: wanted.iter().enumerate().filter_map(has).collect(),
                }
            })
            .collect()
    }

    /// The entries that have one of the word's terms, each once, in order, with the largest weight.
    /// If there are none, those that have a term which begins with the word.
    fn look_up(&self, want: &Want) -> Vec<Posting> {
        let exact = want.terms.iter().filter_map(|term| self.of_term(term));
        let found = merge(exact.flatten().copied().collect());
        let start = want.written.as_str();
        if !found.is_empty() || start.chars().count() < PREFIX_CHARS_MIN {
            return found;
        }
        let from = self.sorted.partition_point(|term| term.as_ref() < start);
        let begun = self.sorted.iter().skip(from).take_while(|term| term.starts_with(start));
        let less =
            |posting: &Posting| Posting { weight: posting.weight * PREFIX_WEIGHT, ..*posting };
        merge(begun.filter_map(|term| self.of_term(term)).flatten().map(less).collect())
    }

    fn of_term(&self, term: &str) -> Option<&Vec<Posting>> {
        self.postings.get(*self.terms.get(term)? as usize)
    }

    /// BM25's inverse document frequency, in the variant that is never negative.
    fn rarity(&self, having: usize) -> f64 {
        let (all, having) = (self.len() as f64, having as f64);
        (1.0 + (all - having + 0.5) / (having + 0.5)).ln()
    }
}

/// What a query brings for one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    fit: f64,
    covered: f64,
    /// One bit for each word of the query.
    words: u64,
}

/// Sorts postings by entry; of several for one entry the largest stays.
fn merge(mut postings: Vec<Posting>) -> Vec<Posting> {
    postings.sort_unstable_by(|a, b| a.entry.cmp(&b.entry).then(b.weight.total_cmp(&a.weight)));
    postings.dedup_by_key(|posting| posting.entry);
    postings
}

/// A word of a query and what to look it up by.
struct Want {
    written: String,
    terms: Vec<String>,
}

/// The different words of a query. Two words in a row also stand for the one that they make:
/// "front end" finds a frontend.
fn wanted(query: &str) -> Vec<Want> {
    let mut wanted: Vec<Want> = Vec::new();
    let mut before: Option<usize> = None;
    for word in words(query) {
        let known = wanted.iter().position(|want| want.terms.first() == word.terms.first());
        let at = known.unwrap_or(wanted.len());
        if at == QUERY_WORDS_MAX {
            break;
        }
        let mut terms = word.terms;
        if let Some(first) = before.and_then(|before| wanted.get_mut(before)) {
            let both = stem_joined(&format!("{}{}", first.written, word.written));
            first.terms.push(both.clone());
            terms.push(both);
        }
        match wanted.get_mut(at) {
            Some(want) => want.terms.extend(terms),
            None => wanted.push(Want { written: word.written, terms }),
        }
        before = Some(at);
    }
    wanted
}

fn field_words(entry: &Entry<'_>) -> [Vec<String>; 4] {
    let mut fields: [Vec<String>; 4] = Default::default();
    let mut put = |field: usize, text: &str| {
        if let Some(field) = fields.get_mut(field) {
            field.extend(words(text).flat_map(|word| word.terms));
        }
    };
    put(NAME, entry.name);
    put(DESCRIPTION, entry.description);
    for (name, description) in entry.capabilities {
        put(CAPABILITY, name);
        put(CAPABILITY_DESCRIPTION, description);
    }
    fields
}

/// The mean number of words of each field over the entries that have it; 1 if none has.
fn mean_lengths(entries: &[[Vec<String>; 4]]) -> [f64; 4] {
    let mut mean = [1.0; 4];
    for (field, mean) in mean.iter_mut().enumerate() {
        let lengths = || {
            entries
                .iter()
                .filter_map(|fields| fields.get(field))
                .map(Vec::len)
                .filter(|length| *length > 0)
        };
        let (sum, count) = (lengths().sum::<usize>(), lengths().count());
        if count > 0 {
            *mean = sum as f64 / count as f64;
        }
    }
    mean
}

fn places_by_name(entries: &[Entry<'_>]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|at| entries.get(*at).map(|entry| entry.name));
    let mut places = vec![0; entries.len()];
    for (place, at) in (0_u32..).zip(order) {
        if let Some(slot) = places.get_mut(at) {
            *slot = place;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A team as people write them: names and descriptions that look alike.
    const TEAM: &[(&str, &str)] = &[
        (
            "accessibility-tester",
            "Checks pages against WCAG, with keyboard and screen reader. Use for accessibility audits.",
        ),
        ("api-designer", "Designs REST and GraphQL interfaces: resources, versioning, errors."),
        ("backend-developer", "Builds server-side services and their interfaces in any language."),
        ("blockchain-developer", "Writes smart contracts and audits them for security holes."),
        (
            "code-reviewer",
            "Reviews code for quality, security and style. Use proactively after code was written.",
        ),
        (
            "cpp-pro",
            "Expert in modern C++ with RAII, templates, and memory safety. Finds leaks and races.",
        ),
        ("csharp-developer", "Builds services with C# and .NET."),
        ("data-engineer", "Builds data pipelines with Spark, Airflow and dbt."),
        ("data-scientist", "Explores data, trains models, explains what they mean."),
        (
            "database-optimizer",
            "Makes slow queries fast: indexes, execution plans, partitioning for PostgreSQL and MySQL.",
        ),
        ("debugger", "Finds the root cause of errors, crashes and failing tests."),
        ("deployment-engineer", "Builds CI/CD pipelines and rolls out releases to production."),
        ("docs-writer", "Writes user guides, README files and API documentation."),
        ("frontend-developer", "Builds user interfaces with React, Vue and CSS."),
        ("fullstack-developer", "Builds whole features, from the database to the browser."),
        ("golang-pro", "Writes idiomatic Go with goroutines and channels."),
        ("incident-responder", "Handles incidents in production: triage, mitigation, postmortem."),
        ("java-architect", "Designs Java systems with Spring Boot and Kafka."),
        ("javascript-pro", "Writes modern JavaScript for browser and Node.js."),
        (
            "kubernetes-specialist",
            "Runs clusters: manifests, Helm charts, operators, autoscaling, deployments.",
        ),
        ("legacy-modernizer", "Brings old code up to date, step by step, without breaking it."),
        ("ml-engineer", "Trains and serves machine learning models."),
        ("mobile-developer", "Builds apps for iOS and Android with React Native."),
        ("payment-integrator", "Integrates payments with Stripe, PayPal and others."),
        ("performance-engineer", "Profiles programs, finds bottlenecks, sets up load tests."),
        ("product-manager", "Plans the roadmap, writes user stories, sets priorities."),
        ("python-pro", "Writes idiomatic Python with type hints; tests with pytest."),
        ("refactoring-specialist", "Restructures code without changing what it does."),
        ("rust-engineer", "Writes and reviews Rust: ownership, lifetimes, async, unsafe code."),
        ("security-auditor", "Looks for vulnerabilities, checks compliance with OWASP and GDPR."),
        ("seo-specialist", "Improves how search engines rank a site."),
        (
            "sql-pro",
            "Writes complex SQL: window functions, common table expressions, queries for every dialect.",
        ),
        ("terraform-engineer", "Describes infrastructure as code for AWS, Azure and GCP."),
        ("test-automator", "Sets up test suites: unit tests, integration tests, end-to-end tests."),
        ("translator", "Translates programs and texts; knows i18n and plural rules."),
        ("ui-designer", "Draws screens, design systems and prototypes."),
    ];

    fn team() -> Vec<Entry<'static>> {
        let entry = |(name, description): &(&'static str, &'static str)| Entry {
            name,
            description,
            capabilities: &[],
        };
        TEAM.iter().map(entry).collect()
    }

    fn names<'a>(entries: &[Entry<'a>], hits: &[Hit]) -> Vec<&'a str> {
        hits.iter().map(|hit| entries[hit.index].name).collect()
    }

    #[test]
    fn the_right_agent_comes_first() {
        let team = team();
        let index = Index::new(&team);
        let mut wrong = Vec::new();
        for (query, name) in [
            ("review rust code", "rust-engineer"),
            ("review my code", "code-reviewer"),
            ("kubernetes deployment", "kubernetes-specialist"),
            ("k8s", "kubernetes-specialist"),
            ("write unit tests", "test-automator"),
            ("write unit tests in python", "python-pro"),
            ("optimise slow sql queries", "database-optimizer"),
            ("accessibility audit", "accessibility-tester"),
            ("fix a memory leak in C++", "cpp-pro"),
            ("c# service", "csharp-developer"),
            ("design a REST API", "api-designer"),
            ("front end developer", "frontend-developer"),
            ("full stack", "fullstack-developer"),
            ("who can debug this crash?", "debugger"),
            ("document the API", "docs-writer"),
            ("bring legacy code up to date", "legacy-modernizer"),
            ("refactoring", "refactoring-specialist"),
            ("train a machine-learning model", "ml-engineer"),
            ("security vulnerabilities", "security-auditor"),
            ("audit smart contracts", "blockchain-developer"),
            ("incident in production", "incident-responder"),
            ("ci/cd pipeline", "deployment-engineer"),
            ("postgres index", "database-optimizer"),
            ("stripe payment integration", "payment-integrator"),
            ("an app for iOS", "mobile-developer"),
            ("golang goroutines", "golang-pro"),
            ("translation into German", "translator"),
            ("search engine ranking", "seo-specialist"),
            ("infra as code", "terraform-engineer"),
            ("JavaScript", "javascript-pro"),
            ("java", "java-architect"),
            ("data pipeline", "data-engineer"),
            ("product roadmap", "product-manager"),
        ] {
            let hits = index.rank(query, 3);
            let found = names(&team, &hits);
            if found.first() != Some(&name) {
                wrong.push(format!("{query}: {found:?} instead of {name}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_hit_says_what_matched_and_how_well() {
        let team = team();
        let index = Index::new(&team);
        let hits = index.rank("Please REVIEW the Rust Code, review it!", 10);
        assert_eq!(names(&team, &hits[..1]), ["rust-engineer"]);
        assert_eq!(hits[0].matched, ["review", "rust", "code"]);
        assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
        assert!(hits.iter().all(|hit| hit.score > 0.0 && hit.score < 1.0));
        let exact = index.rank("seo specialist", 1)[0].score;
        let partial = index.rank("seo specialist quux", 1)[0].score;
        assert!(exact > 0.7 && partial < exact, "{exact} {partial}");
    }

    #[test]
    fn nothing_to_find() {
        let index = Index::new(&team());
        assert_eq!(index.len(), TEAM.len());
        for query in ["", "   ", "the of and please", "quux", "!?", "\0"] {
            assert_eq!(index.rank(query, 10), [], "{query:?}");
        }
        assert_eq!(index.rank("rust", 0), []);
        assert!(Index::new(&[]).is_empty());
        assert_eq!(Index::new(&[]).rank("rust", 10), []);
    }

    #[test]
    fn capabilities_count_more_than_descriptions() {
        let entries = [
            Entry { name: "a", description: "summarize text", capabilities: &[] },
            Entry {
                name: "b",
                description: "does things",
                capabilities: &[("summarize-text", "Makes it short.")],
            },
            Entry {
                name: "c",
                description: "does things",
                capabilities: &[("shorten", "To summarize a text.")],
            },
        ];
        let index = Index::new(&entries);
        assert_eq!(names(&entries, &index.rank("summarize text", 1)), ["b"]);
        assert_eq!(index.rank("summarize text", 9).len(), 3);
        assert_eq!(names(&entries, &index.rank("shorten", 9)), ["c"]);
    }

    #[test]
    fn equal_ones_come_by_name_and_then_as_given() {
        let entry = |name| Entry { name, description: "rust", capabilities: &[] };
        let entries = [entry("z"), entry("b"), entry("m"), entry("b")];
        let hits = Index::new(&entries).rank("rust", 3);
        assert_eq!(hits.iter().map(|hit| hit.index).collect::<Vec<_>>(), [1, 3, 2]);
    }

    #[test]
    fn two_words_stand_for_the_one_they_make_and_no_other() {
        let entry = |name| Entry { name, description: "", capabilities: &[] };
        let entries =
            [entry("frontend"), entry("front-end"), entry("accessibility"), entry("audit")];
        let index = Index::new(&entries);
        assert_eq!(names(&entries, &index.rank("front end", 9)), ["frontend", "front-end"]);
        assert_eq!(names(&entries, &index.rank("frontend", 9)), ["frontend", "front-end"]);
        for hit in index.rank("accessibility audit", 9) {
            assert_eq!(hit.matched, [entries[hit.index].name]);
        }
    }

    #[test]
    fn words_that_are_only_begun() {
        let team = team();
        let index = Index::new(&team);
        assert_eq!(names(&team, &index.rank("kuber", 1)), ["kubernetes-specialist"]);
        assert!(index.rank("kuber", 1)[0].score < index.rank("kubernetes", 1)[0].score);
        assert_eq!(index.rank("kub", 1), []);
    }

    #[test]
    fn long_queries_are_cut() {
        let entries = [Entry { name: "last", description: "", capabilities: &[] }];
        let index = Index::new(&entries);
        let fill = |count: usize| (0..count).map(|at| format!("w{at} ")).collect::<String>();
        assert_eq!(index.rank(&format!("{}last", fill(63)), 1).len(), 1);
        assert_eq!(index.rank(&format!("{}last", fill(64)), 1).len(), 0);
        assert_eq!(index.rank(&format!("{}last", "w1 ".repeat(1_000)), 1).len(), 1);
    }

    #[test]
    fn ten_thousand_agents() {
        let texts: Vec<(String, String)> = (0..10_000)
            .map(|at| {
                let (_, description) = TEAM[at % TEAM.len()];
                (
                    format!("{}-{at}", TEAM[at % TEAM.len()].0),
                    format!("{description} Number {at}. {}", TEAM[at / 7 % TEAM.len()].1),
                )
            })
            .collect();
        let entries: Vec<Entry<'_>> = texts
            .iter()
            .map(|(name, description)| Entry { name, description, capabilities: &[] })
            .collect();
        let index = Index::new(&entries);
        let everything: String =
            TEAM.iter().map(|(_, description)| format!("{description} ")).collect();
        // Unoptimized code is allowed ten times as long as the promise for optimized code.
        for query in ["review rust code", "rust-engineer 28", everything.as_str()] {
            let start = std::time::Instant::now();
            let hits = index.rank(query, 10);
            let took = start.elapsed();
            assert_eq!(hits.len(), 10);
            assert!(took.as_millis() < 500, "{took:?} for {query:.40}");
        }
        assert_eq!(names(&entries, &index.rank("rust-engineer 28", 1)), ["rust-engineer-28"]);
    }

    proptest! {
        #[test]
        fn any_text_is_ranked_alike_twice(
            texts in proptest::collection::vec((".{0,20}", ".{0,60}", ".{0,20}"), 0..12),
            query in ".{0,80}",
        ) {
            let capabilities: Vec<[(&str, &str); 1]> = texts.iter().map(|(_, b, c)| [(c.as_str(), b.as_str())]).collect();
            let entries: Vec<Entry<'_>> = texts
                .iter()
                .zip(&capabilities)
                .map(|((name, description, _), capabilities)| Entry { name, description, capabilities })
                .collect();
            let hits = Index::new(&entries).rank(&query, 5);
            prop_assert_eq!(&hits, &Index::new(&entries).rank(&query, 5));
            for hit in &hits {
                prop_assert!(hit.index < entries.len() && hit.score > 0.0 && hit.score < 1.0, "{:?}", hit);
                prop_assert!(!hit.matched.is_empty());
            }
            for entry in &entries {
                let itself = Index::new(&entries).rank(entry.name, 12);
                let has_words = stem::words(entry.name).next().is_some();
                prop_assert_eq!(has_words, !itself.is_empty());
            }
        }
    }
}
