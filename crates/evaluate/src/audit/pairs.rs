//! What rows say of the same prompts and responses: copies, contradictions, and how often labels are wrong.

use duel_data::{Group, Labels};
use duel_stats::{Estimate, wilson};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Where a row is: a file, by its number among all, and the row in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// 0: that of training; 1: that of evaluation.
    pub file: u8,
    /// From 1.
    pub row: u32,
}

/// How many there are, and the first of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<T> {
    /// All.
    pub count: u64,
    /// The first of them: as many as are shown.
    pub first: Vec<T>,
}

/// Examples of each finding.
pub const SHOWN: usize = 5;

impl<T> Default for Found<T> {
    fn default() -> Self {
        Found { count: 0, first: Vec::new() }
    }
}

impl<T> Found<T> {
    /// Counts one more.
    pub fn add(&mut self, one: T) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(one);
        }
    }
}

/// The same group twice: where it was before, and where it is again.
pub type Twice = (Place, Place);

/// What all rows say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repeats {
    /// Groups that are copies of one before them in the same file: prompt, responses, their order and label.
    pub copies: Found<Twice>,
    /// Groups of the evaluation file that are in the training file too.
    pub leaked: Found<Twice>,
    /// Other groups of the evaluation file whose prompt is in the training file.
    pub shared_prompts: Found<Twice>,
    /// Pairs of responses that one row calls better in one order and another in the other; single responses that one
    /// row calls good and another bad.
    pub contradictions: Found<Twice>,
    /// How often two labels of the same pair differ, each beside the one before it.
    pub disagreement: Option<Estimate>,
    /// Labels that have such a one before them.
    pub labelled_again: u64,
    /// Of three responses to a prompt that are compared in three rows, how often in a circle: a > b > c > a.
    pub circles: Option<Estimate>,
    /// Threes of responses.
    pub threes: u64,
}

impl Repeats {
    /// The share of wrong labels that two labels of the same pair tell, each wrong by itself with the same probability
    /// e: they differ with probability 2 e (1 - e) (Dawid and Skene, 1979, for two answers and one rate).
    pub fn noise_by_pairs(&self) -> Option<Estimate> {
        self.disagreement.map(|share| through(share, |share| half_root(2.0 * share)))
    }

    /// That which circles tell: where the responses have an order, three labels that are wrong so often make a circle
    /// with probability e (1 - e)^2 + e^2 (1 - e) = e (1 - e).
    pub fn noise_by_circles(&self) -> Option<Estimate> {
        self.circles.map(|share| through(share, |share| half_root(4.0 * share)))
    }
}

/// The smaller root of 4 e (1 - e) = x, up to which nobody can say more than that labels are of chance.
fn half_root(x: f64) -> f64 {
    (1.0 - (1.0 - x.min(1.0)).sqrt()) / 2.0
}

/// An estimate of what rises with another one.
fn through(of: Estimate, f: impl Fn(f64) -> f64) -> Estimate {
    Estimate { value: f(of.value), interval: of.interval.map(|(low, high)| (f(low), f(high))) }
}

/// A pair: the better and the worse response to a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    prompt: u64,
    /// The smaller and the larger of the two.
    ends: (u64, u64),
    place: Place,
    /// The smaller one is better.
    first_wins: bool,
}

/// Collects groups, of which it keeps hashes of 64 bits: 24 bytes for a group and 40 for each pair in it, so that a
/// million pairs take 64 MB. In one of 10^7 files of a million rows two different texts would be taken for the same.
#[derive(Debug, Default)]
pub struct Rows {
    groups: Vec<(u64, u64, Place)>,
    edges: Vec<Edge>,
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Stands for what a good response is better than, and a bad one worse.
const NEITHER: u64 = 0;

impl Rows {
    /// Takes a group.
    pub fn add(&mut self, place: Place, group: Group<'_>) {
        let prompt = hash(group.prompt);
        let responses: Vec<u64> = group.responses().map(hash).collect();
        let known = match group.labels() {
            Labels::Unpaired { desirable } => u8::from(desirable),
            Labels::Ranked { .. } | Labels::Scored(_) => 2,
        };
        self.groups.push((hash((prompt, &responses, known)), prompt, place));
        let mut edge = |better: u64, worse: u64| {
            let first_wins = better < worse;
            let ends = (better.min(worse), better.max(worse));
            self.edges.push(Edge { prompt, ends, place, first_wins });
        };
        match group.labels() {
            Labels::Unpaired { desirable: true } => edge(responses[0], NEITHER),
            Labels::Unpaired { desirable: false } => edge(NEITHER, responses[0]),
            labels => pairs(labels, responses.len()).for_each(|(i, j)| edge(responses[i], responses[j])),
        }
    }

    /// What they say together.
    pub fn conclude(mut self) -> Repeats {
        let mut found = Repeats::default();
        // Rows in the order of the files: what is told of first is first.
        self.groups.sort_unstable();
        let mut copies: Vec<Twice> = Vec::new();
        let mut leaked: Vec<Twice> = Vec::new();
        for same in self.groups.chunk_by(|a, b| a.0 == b.0) {
            let in_training = same[0].2.file == 0;
            copies.extend(
                same.windows(2).map(|w| (w[0].2, w[1].2)).filter(|(a, b)| a.file == b.file && a != b),
            );
            leaked.extend(same.iter().filter(|g| in_training && g.2.file > 0).map(|g| (same[0].2, g.2)));
        }
        self.groups.sort_unstable_by_key(|(all, prompt, place)| (*prompt, *place, *all));
        let mut shared: Vec<Twice> = Vec::new();
        let is_leaked: HashSet<Place> = leaked.iter().map(|(_, place)| *place).collect();
        let nothing = hash(&[0u32; 0][..]);
        for same in self.groups.chunk_by(|a, b| a.1 == b.1).filter(|same| same[0].1 != nothing) {
            let train = same[0].2;
            let eval = same.iter().map(|g| g.2).filter(|place| train.file == 0 && place.file > 0);
            shared.extend(eval.filter(|place| !is_leaked.contains(place)).map(|place| (train, place)));
        }
        let mut contradictions: Vec<Twice> = Vec::new();
        let (mut differ, mut again) = (0, 0);
        self.edges.sort_unstable();
        for same in self.edges.chunk_by(|a, b| (a.prompt, a.ends) == (b.prompt, b.ends)) {
            let other = same.iter().find(|edge| edge.first_wins != same[0].first_wins);
            contradictions.extend(other.map(|other| (same[0].place, other.place)));
            again += same.len() as u64 - 1;
            differ += same.windows(2).filter(|w| w[0].first_wins != w[1].first_wins).count() as u64;
        }
        let (mut circles, mut threes) = (0, 0);
        for of_prompt in self.edges.chunk_by(|a, b| a.prompt == b.prompt) {
            let (c, t) = circles_of(of_prompt);
            (circles, threes) = (circles + c, threes + t);
        }
        (found.labelled_again, found.threes) = (again, threes);
        found.disagreement = wilson(differ as f64, again as f64);
        found.circles = wilson(circles as f64, threes as f64);
        for (all, into) in [
            (copies, &mut found.copies),
            (leaked, &mut found.leaked),
            (shared, &mut found.shared_prompts),
            (contradictions, &mut found.contradictions),
        ] {
            let mut all = all;
            all.sort_unstable_by_key(|(before, after)| (*after, *before));
            all.into_iter().for_each(|twice| into.add(twice));
        }
        found
    }
}

/// The pairs of so many responses, better first; of the same score they are none.
pub fn pairs(labels: Labels<'_>, count: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let differ = move |i: usize, j: usize| match labels {
        Labels::Scored(scores) => scores[i] != scores[j],
        _ => true,
    };
    (0..count).flat_map(move |i| (i + 1..count).map(move |j| (i, j))).filter(move |&(i, j)| differ(i, j))
}

/// The most responses of a prompt of which threes are looked at: there are 41,664 of so many.
const RESPONSES: usize = 64;

/// How many threes of responses to a prompt are compared in a circle, and how many are compared at all, in three rows.
fn circles_of(edges: &[Edge]) -> (u64, u64) {
    let rows = edges.iter().map(|edge| edge.place).collect::<BTreeSet<_>>();
    if rows.len() < 3 {
        return (0, 0);
    }
    let mut ends: Vec<u64> = edges.iter().flat_map(|edge| [edge.ends.0, edge.ends.1]).collect();
    ends.sort_unstable();
    ends.dedup();
    ends.truncate(RESPONSES);
    // The first label of a pair counts.
    let mut of: HashMap<(u64, u64), &Edge> = HashMap::new();
    for edge in edges {
        of.entry(edge.ends).or_insert(edge);
    }
    let (mut circles, mut threes) = (0, 0);
    for (i, a) in ends.iter().enumerate() {
        for (j, b) in ends.iter().enumerate().skip(i + 1) {
            let Some(ab) = of.get(&(*a, *b)) else { continue };
            for c in &ends[j + 1..] {
                let (Some(bc), Some(ac)) = (of.get(&(*b, *c)), of.get(&(*a, *c))) else { continue };
                if ab.place == bc.place || bc.place == ac.place || ab.place == ac.place {
                    continue; // a row has its own order
                }
                threes += 1;
                circles += u64::from(ab.first_wins == bc.first_wins && bc.first_wins != ac.first_wins);
            }
        }
    }
    (circles, threes)
}
