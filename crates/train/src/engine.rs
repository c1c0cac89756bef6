//! Groups through the model: micro-batches packed without padding, scored or differentiated.

use crate::Error;
use crate::memory::Bytes;
use duel_backend::{Acc, Backend, Layout, Measure, PairObjective, Portions, Real, Segment};
use duel_data::{Batch, Dataset, Group, pack};
use duel_loss::{Head, Known, ResponseStats, Row, ScalarHead, Targets};
use duel_model::{
    Activations, Config, Gradients, Keep, Output as ModelOutput, Weights, backward_pass, forward,
};
use duel_random::at;

/// Room that an [`Engine`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tokens of a training micro-batch. It decides the order of sums, so the training data alone decides it.
    pub budget: usize,
    /// Tokens that there is room for.
    pub rows: usize,
    /// Longest sequence: prompt and one response.
    pub positions: usize,
    /// Rows of logits that exist at a time.
    pub logits: usize,
    /// Whether every training batch is a single micro-batch.
    pub single: bool,
    /// What it was planned by.
    pub portions: Portions,
}

impl Room {
    /// Room for any batch of `batch` groups of a dataset, cut into micro-batches of `budget` tokens (0: as many as the
    /// backend wants, or the largest group where that is larger).
    pub fn plan<B: Backend>(b: &B, ds: &Dataset, batch: usize, budget: usize, vocab: usize) -> Room {
        Self::for_portions::<B>(b.portions(), ds, batch, budget, vocab)
    }

    /// [`Room::plan`] without the device, which would say the `portions`.
    pub fn for_portions<B: Backend>(
        portions: Portions,
        ds: &Dataset,
        batch: usize,
        budget: usize,
        vocab: usize,
    ) -> Room {
        let tokens_of = |group: Group<'_>| group.tokens();
        let sizes = (Self::most(ds, 1, tokens_of), Self::most(ds, batch, tokens_of));
        Self::for_sizes::<B>(portions, sizes, ds.report().longest, budget, vocab)
    }

    /// Room for micro-batches of `budget` tokens (0: as many as the backend wants) where a group has up to `largest`,
    /// a batch up to `most`, and a sequence up to `positions`.
    pub fn for_sizes<B: Backend>(
        portions: Portions,
        (largest, most): (usize, usize),
        positions: usize,
        budget: usize,
        vocab: usize,
    ) -> Room {
        let budget = if budget == 0 { portions.tokens } else { budget };
        let rows = budget.min(most).max(largest);
        Room { single: rows >= most, ..Self::of::<B>(portions, rows, positions, vocab) }
    }

    /// The same where no prompt is scored: logits of the responses of any `batch` groups are all that exist at a time.
    pub fn for_responses(self, ds: &Dataset, batch: usize) -> Room {
        let most = Self::most(ds, batch, |group| group.responses().map(<[u32]>::len).sum());
        Room { logits: self.logits.min(most.max(LEAST_LOGITS)), ..self }
    }

    /// Of any `batch` groups the largest sum of `size`.
    fn most(ds: &Dataset, batch: usize, size: impl Fn(Group<'_>) -> usize) -> usize {
        let mut sizes: Vec<usize> = ds.groups().map(size).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(batch).sum()
    }

    /// Room for micro-batches of `rows` tokens, sequences of up to `positions`.
    pub fn of<B: Backend>(portions: Portions, rows: usize, positions: usize, vocab: usize) -> Room {
        let logits = (portions.logits_bytes / (size_of::<B::Real>() * vocab))
            .clamp(LEAST_LOGITS, rows.max(LEAST_LOGITS));
        Room { budget: rows, rows, positions, logits, single: false, portions }
    }

    /// Room for `other` too, for scoring: how this one trains does not change.
    pub fn and(self, other: Room) -> Room {
        let (rows, positions) = (self.rows.max(other.rows), self.positions.max(other.positions));
        Room { rows, positions, ..self }
    }
}

/// Rows of logits that there is always room for.
const LEAST_LOGITS: usize = 64;

/// What the hidden states become.
enum Output<B: Backend> {
    /// Statistics of the scored tokens.
    Tokens(Box<Head<B>>),
    /// A value a response, on its last row.
    Values(ScalarHead<B>),
}

/// Name of activations that lend their memory, in [`Engine::bytes`].
const LENT: &str = "activations, then gradients in their place";

/// Rows that a scalar head takes at a time.
const VALUES: usize = 256;

/// What of a group is scored, beside its responses as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scoring {
    /// What a response has beyond the length of its group's shortest counts this much a token.
    pub tails: Option<f64>,
    /// The prompt is one more response, after the others.
    pub prompts: bool,
}

/// The buffers of a pass and the way through it.
pub struct Engine<'b, B: Backend> {
    /// The device.
    pub b: &'b B,
    /// Shape of the model.
    pub model: Config,
    room: Room,
    activations: Activations<B>,
    output: Output<B>,
    layout: Layout<B>,
    targets: Targets,
    /// Last rows of the responses.
    ends: Vec<u32>,
    scoring: Scoring,
    /// What decides which inputs of adapters are dropped; `None`: none are.
    drops: Option<u64>,
    critic: Option<ScalarHead<B>>,
    /// The reference's hidden states, where it is compared with; else empty.
    of_reference: Real<B>,
}

/// What samples are learned by beside the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// A reference, of which [`Engine::survey`] is told.
    pub reference: bool,
    /// A [`Critic`](crate::critic::Critic).
    pub critic: bool,
}

/// What is said of the tokens of a response, each one in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// By the policy.
    pub rows: Vec<Row>,
    /// The reference's log-probability.
    pub reference: Vec<f64>,
    /// The KL of the policy from the reference, over all tokens that could have come.
    pub kl: Vec<f64>,
    /// What the critic expects from here on; empty where there is none.
    pub values: Vec<f64>,
}

impl<'b, B: Backend> Engine<'b, B> {
    /// Allocates everything.
    ///
    /// # Errors
    /// The device has no room, or no verbs for such a model.
    pub fn new(b: &'b B, model: &Config, room: Room, keep: Keep) -> Result<Self, Error> {
        Self::with(b, model, room, keep, Beside::default())
    }

    /// [`Engine::new`] with what samples are learned by.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with(b: &'b B, model: &Config, room: Room, keep: Keep, beside: Beside) -> Result<Self, Error> {
        model.check_device(b, room.positions)?;
        let head = if beside.reference { Head::comparing } else { Head::new };
        Ok(Engine {
            b,
            model: model.clone(),
            room,
            activations: Activations::new(b, model, room.rows, room.positions, keep)?,
            output: match model.output {
                ModelOutput::Logits => {
                    let head = head(b, model.width, model.vocab, room.logits)?;
                    Output::Tokens(Box::new(head.capped(model.logit_cap)))
                }
                ModelOutput::Score => Output::Values(ScalarHead::new(b, model.width, VALUES.min(room.rows))?),
            },
            layout: Layout::new(b, room.rows)?,
            targets: Targets::default(),
            ends: Vec::new(),
            scoring: Scoring::default(),
            drops: None,
            critic: match beside.critic {
                true => Some(ScalarHead::new(b, model.width, VALUES.min(room.rows))?),
                false => None,
            },
            of_reference: b.alloc(if beside.reference { room.rows * model.width } else { 0 })?,
        })
    }

    /// Scores so in all passes from now on.
    pub fn score_as(&mut self, scoring: Scoring) {
        self.scoring = scoring;
    }

    /// Lets adapters drop inputs in all passes from now on, by `seed`, the group's row in its file, and the place of a
    /// token in its response or prompt; `None`: they keep all.
    pub fn drop_by(&mut self, seed: Option<u64>) {
        self.drops = seed;
    }

    /// What is scored of group `i`: its responses, and its prompt where that is asked for.
    pub fn parts(&self, ds: &Dataset, i: u32) -> usize {
        ds.group(i as usize).responses().len() + usize::from(self.scoring.prompts)
    }

    /// What [`Engine::new`] allocates: activations that a forward pass fills, gradients of them, logits with what goes
    /// with them, and the layout of a micro-batch.
    pub fn bytes(model: &Config, room: Room, keep: Keep) -> Bytes {
        Self::bytes_with(model, room, keep, Beside::default())
    }

    /// What [`Engine::with`] allocates.
    pub fn bytes_with(model: &Config, room: Room, keep: Keep, beside: Beside) -> Bytes {
        let head = if beside.reference { Head::<B>::comparing_bytes } else { Head::<B>::bytes };
        let values = ScalarHead::<B>::bytes(room.portions, model.width, VALUES.min(room.rows));
        let hidden = size_of::<B::Real>() * room.rows * model.width;
        let pass = Measure::<B>::bytes(|b| Activations::new(b, model, room.rows, room.positions, keep));
        let gradients = Activations::<B>::gradient_bytes(model, room.rows, keep);
        let head = match model.output {
            ModelOutput::Logits => head(room.portions, model.width, model.vocab, room.logits),
            ModelOutput::Score => values,
        };
        Bytes::default()
            .and(if keep == Keep::Lend { LENT } else { "activations" }, pass - gradients)
            .and("their gradients", gradients)
            .and(if model.output == ModelOutput::Logits { "logits" } else { "values" }, head)
            .and("the reference's hidden states", if beside.reference { hidden } else { 0 })
            .and("the critic's values", if beside.critic { values } else { 0 })
            .and("layout", Measure::<B>::bytes(|b| Layout::new(b, room.rows)))
    }

    /// Micro-batches of the groups `indices`, each a run of them.
    fn micro_batches<'i>(ds: &Dataset, indices: &'i [u32], budget: usize) -> Vec<&'i [u32]> {
        let sizes = indices.iter().map(|&i| ds.group(i as usize).tokens());
        pack(sizes, budget).into_iter().map(|r| &indices[r]).collect()
    }

    /// The same, each with whether it is the last.
    fn passes<'i>(
        ds: &Dataset,
        indices: &'i [u32],
        budget: usize,
    ) -> impl Iterator<Item = (&'i [u32], bool)> {
        let all = Self::micro_batches(ds, indices, budget);
        let last = all.len().saturating_sub(1);
        all.into_iter().enumerate().map(move |(i, micro)| (micro, i == last))
    }

    /// The micro-batches of [`Engine::score`].
    pub fn scored_together<'i>(&self, ds: &Dataset, indices: &'i [u32]) -> Vec<&'i [u32]> {
        Self::micro_batches(ds, indices, self.room.rows)
    }

    fn load(&mut self, ds: &Dataset, indices: &[u32]) {
        let batch = Batch::new(ds, indices);
        let segment = |s: &duel_data::Segment| Segment {
            start: s.start,
            len: s.len,
            prefix_start: s.prefix_start,
            prefix_len: s.prefix_len,
        };
        self.layout.set(self.b, &batch.tokens, batch.segments.iter().map(segment));
        let keys = self.drops.map(|seed| keys(seed, ds, &batch));
        self.activations.drop_by(self.b, keys.as_deref());
        self.targets.clear();
        self.ends.clear();
        let mut given = batch.given.as_slice();
        for group in &batch.groups {
            let segments = &batch.segments[group.responses.clone()];
            self.ends.extend(segments.iter().map(|s| (s.start + s.len - 1) as u32));
            let end = segments.last().map_or(0, |s| s.start + s.len);
            let (own, rest) = given.split_at(given.partition_point(|run| run.end <= end));
            self.targets.push_group(&batch.tokens, segments.iter().map(segment), own);
            if let Some(alpha) = self.scoring.tails {
                self.targets.discount_tails(alpha);
            }
            if self.scoring.prompts {
                let first = segments.first().filter(|s| s.prefix_len > 0);
                let prompt = first.map(|s| Segment {
                    start: s.prefix_start,
                    len: s.prefix_len,
                    prefix_start: 0,
                    prefix_len: 0,
                });
                self.targets.push_prompt(&batch.tokens, prompt);
            }
            given = rest;
        }
    }

    /// Runs the model over the groups `micro`.
    fn forward(&mut self, weights: &impl Weights<B>, ds: &Dataset, micro: &[u32]) {
        self.load(ds, micro);
        forward(self.b, &self.model, weights, &self.layout, &mut self.activations);
    }

    /// The micro-batch of the dataset that takes longest and most scratch memory: that of its largest groups.
    fn largest(ds: &Dataset, budget: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..ds.len() as u32).collect();
        let tokens = |i: u32| ds.group(i as usize).tokens();
        all.sort_by_key(|&i| std::cmp::Reverse(tokens(i)));
        let mut sum = 0;
        // One group alone may be larger than the budget.
        all.retain(|&i| {
            let fits = sum == 0 || sum + tokens(i) <= budget;
            sum += if fits { tokens(i) } else { 0 };
            fits
        });
        all
    }

    /// Makes a pass of the largest micro-batch of a dataset with a gradient of zero: what the device has to do once is
    /// done then, and what it cannot do at all fails. `objective` is one that the device makes itself, if it is such.
    /// `grads` stay as they are.
    ///
    /// # Errors
    /// The device failed, or has no room.
    pub fn rehearse(
        &mut self,
        weights: &impl Weights<B>,
        grads: &mut impl Gradients<B>,
        ds: &Dataset,
        objective: Option<PairObjective<'_>>,
    ) -> Result<(), Error> {
        let largest = Self::largest(ds, self.room.budget);
        match objective.filter(|_| self.takes_pairs(ds, &largest)) {
            Some(objective) => {
                let nothing = PairObjective { share: 0.0, ..objective };
                self.accumulate_pairs(weights, grads, ds, &largest, &nothing, |_| Known::default())?
            }
            None => self.accumulate(weights, grads, ds, &largest, |_, _, coefs| coefs.fill(0.0))?,
        };
        let view = grads.view();
        let made: Vec<&Acc<B>> = view.iter().into_iter().filter_map(|g| g.as_deref()).collect();
        self.b.square_sums(&made)?;
        self.take_back(grads);
        Ok(())
    }

    /// Takes back the memory that [`Keep::Lend`] or [`Keep::Relay`] had the last pass give to `grads`: to be called
    /// when they were used, before the next pass.
    pub fn take_back(&mut self, grads: &mut impl Gradients<B>) {
        self.activations.take_back(self.b, grads);
    }

    /// Scores every response of the groups `indices`, in order, and their prompts where that is asked for; `each` hears
    /// how many groups a micro-batch had, and stops the work by returning `false`.
    ///
    /// # Errors
    /// The device failed.
    pub fn score(
        &mut self,
        weights: &impl Weights<B>,
        ds: &Dataset,
        indices: &[u32],
        mut each: impl FnMut(usize) -> bool,
    ) -> Result<Vec<ResponseStats>, Error> {
        let view = weights.view();
        let mut all = Vec::new();
        for micro in self.scored_together(ds, indices) {
            self.forward(weights, ds, micro);
            let hidden = &self.activations.hidden;
            all.extend(match &mut self.output {
                Output::Tokens(head) => {
                    self.targets.sums(head.score(self.b, view.lm_head(), hidden, &self.targets)?)
                }
                Output::Values(head) => {
                    valued(&self.targets, &head.values(self.b, *view.score(), hidden, &self.ends)?)
                }
            });
            if !each(micro.len()) {
                break;
            }
        }
        Ok(all)
    }

    /// Adds the gradients of the groups `indices` to `grads`, of what is trained.
    /// `objective(group of the dataset, what is scored of it, slopes)` gives the derivative of the loss by each
    /// response's summed log-probability, or by its value. Returns the responses' statistics, in order.
    ///
    /// # Errors
    /// The device failed.
    pub fn accumulate(
        &mut self,
        weights: &impl Weights<B>,
        grads: &mut impl Gradients<B>,
        ds: &Dataset,
        indices: &[u32],
        mut objective: impl FnMut(usize, &[ResponseStats], &mut [f64]),
    ) -> Result<Vec<ResponseStats>, Error> {
        let view = weights.view();
        let mut all = Vec::new();
        for (micro, last) in Self::passes(ds, indices, self.room.budget) {
            self.forward(weights, ds, micro);
            let a = &mut self.activations;
            self.b.zero(&mut a.dhidden);
            let (hidden, dhidden) = (&a.hidden, &mut a.dhidden);
            match &mut self.output {
                Output::Tokens(head) => {
                    let of = |group: usize, stats: &[ResponseStats], slopes: &mut [f64]| {
                        all.extend_from_slice(stats);
                        objective(micro[group] as usize, stats, slopes);
                    };
                    let (mut grads, of) = (grads.view(), self.targets.by_response(of));
                    let dw = grads.lm_head_mut();
                    head.loss(self.b, view.lm_head(), dw, hidden, dhidden, &self.targets, of)?;
                }
                Output::Values(head) => {
                    let mut grads = grads.view();
                    let (w, dw) = (*view.score(), grads.score_mut().as_deref_mut());
                    let stats = valued(&self.targets, &head.values(self.b, w, hidden, &self.ends)?);
                    let mut slopes = vec![0.0; stats.len()];
                    let mut at = 0;
                    for &group in micro {
                        let own = at..at + ds.group(group as usize).responses().len();
                        objective(group as usize, &stats[own.clone()], &mut slopes[own.clone()]);
                        at = own.end;
                    }
                    head.backward(self.b, w, dw, hidden, dhidden, &self.ends, &slopes);
                    all.extend(stats);
                }
            }
            backward_pass(self.b, &self.model, weights, grads, &self.layout, a, last);
        }
        Ok(all)
    }

    /// What the models say of every token of the responses of the groups `indices`, response by response.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// On an engine that was made without a reference, or with a critic's weights and no head for them.
    pub fn survey(
        &mut self,
        weights: &impl Weights<B>,
        reference: &impl Weights<B>,
        critic: Option<&Real<B>>,
        ds: &Dataset,
        indices: &[u32],
    ) -> Result<Vec<Tokens>, Error> {
        let mut all = Vec::new();
        let heads = [weights.view().lm_head(), reference.view().lm_head()];
        for micro in self.scored_together(ds, indices) {
            self.forward(reference, ds, micro);
            let len = self.layout.rows * self.model.width;
            self.b.copy(&mut self.of_reference, &self.activations.hidden, len);
            self.forward(weights, ds, micro);
            let (hidden, targets) = (&self.activations.hidden, &self.targets);
            let Output::Tokens(head) = &mut self.output else { panic!("tokens of a reward model") };
            let said = head.compare(self.b, heads, [hidden, &self.of_reference], targets)?;
            let values = match (critic, &mut self.critic) {
                (Some(w), Some(critic)) => critic.values(self.b, w, hidden, targets.rows())?,
                (Some(_), None) => panic!("values without a head"),
                (None, _) => Vec::new(),
            };
            let mut at = 0;
            for n in targets.lengths() {
                let own = &said[at..at + n];
                all.push(Tokens {
                    rows: own.iter().map(|c| c.row).collect(),
                    reference: own.iter().map(|c| c.reference).collect(),
                    kl: own.iter().map(|c| c.kl).collect(),
                    values: values.get(at..at + n).unwrap_or_default().to_vec(),
                });
                at += n;
            }
        }
        Ok(all)
    }

    /// [`Engine::accumulate`] for a loss of single tokens: `objective(group of the dataset, what is said of its tokens,
    /// what the critic expects, coefficients, derivatives)` gives the derivative of the loss by the log-probability of
    /// each, and by each value where there is a critic, whose weights and gradient are given.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// With a critic's weights and no head for them.
    pub fn accumulate_tokens(
        &mut self,
        weights: &impl Weights<B>,
        grads: &mut impl Gradients<B>,
        mut critic: Option<(&Real<B>, &mut Acc<B>)>,
        ds: &Dataset,
        indices: &[u32],
        mut objective: impl FnMut(usize, &[Row], &[f64], &mut [f64], &mut [f64]),
    ) -> Result<(), Error> {
        let view = weights.view();
        for (micro, last) in Self::passes(ds, indices, self.room.budget) {
            self.forward(weights, ds, micro);
            let a = &mut self.activations;
            self.b.zero(&mut a.dhidden);
            let (hidden, dhidden, targets) = (&a.hidden, &mut a.dhidden, &self.targets);
            let Output::Tokens(head) = &mut self.output else { panic!("tokens of a reward model") };
            let values = match (&critic, &mut self.critic) {
                (Some((w, _)), Some(critic)) => critic.values(self.b, *w, hidden, targets.rows())?,
                (Some(_), None) => panic!("values without a head"),
                (None, _) => Vec::new(),
            };
            let mut slopes = vec![0.0; values.len()];
            let of = |group: usize, rows: &[Row], coefs: &mut [f64]| {
                let own = if values.is_empty() { 0..0 } else { targets.rows_of(group..group + 1) };
                objective(micro[group] as usize, rows, &values[own.clone()], coefs, &mut slopes[own]);
            };
            let mut gradients = grads.view();
            let dw = gradients.lm_head_mut();
            head.loss(self.b, view.lm_head(), dw, hidden, dhidden, targets, of)?;
            if let (Some((w, dw)), Some(critic)) = (&mut critic, &mut self.critic) {
                critic.backward(self.b, *w, &mut **dw, hidden, dhidden, targets.rows(), &slopes);
            }
            backward_pass(self.b, &self.model, weights, grads, &self.layout, a, last);
        }
        Ok(())
    }

    /// Whether [`Engine::accumulate_pairs`] takes these groups: the logits of each fit the room for them, and any two
    /// of its responses are a pair.
    pub fn takes_pairs(&self, ds: &Dataset, indices: &[u32]) -> bool {
        let fits = |&i: &u32| {
            let group = ds.group(i as usize);
            let rows: usize = group.responses().map(<[u32]>::len).sum();
            rows <= self.room.logits && group.labels().ties() == 0
        };
        matches!(self.output, Output::Tokens(_)) && indices.iter().all(fits)
    }

    /// [`Engine::accumulate`] for a loss of pairs that the device makes itself, so that nothing waits for the host
    /// before the last gradient is on its way; `known` of each group of the dataset.
    ///
    /// # Errors
    /// The device failed, or has no room for more responses than ever before.
    ///
    /// # Panics
    /// When it does not take these groups.
    pub fn accumulate_pairs<'k>(
        &mut self,
        weights: &impl Weights<B>,
        grads: &mut impl Gradients<B>,
        ds: &Dataset,
        indices: &[u32],
        objective: &PairObjective<'_>,
        known: impl Fn(u32) -> Known<'k>,
    ) -> Result<Vec<ResponseStats>, Error> {
        let responses = indices.iter().map(|&i| ds.group(i as usize).responses().len()).sum();
        for (at, (micro, last)) in Self::passes(ds, indices, self.room.budget).enumerate() {
            self.forward(weights, ds, micro);
            let a = &mut self.activations;
            self.b.zero(&mut a.dhidden);
            let Output::Tokens(head) = &mut self.output else { panic!("pairs of values") };
            if at == 0 {
                head.expect(self.b, responses)?;
            }
            let known: Vec<Known<'_>> = micro.iter().map(|&i| known(i)).collect();
            let mut view = grads.view();
            let (w, dw) = (weights.view().lm_head(), view.lm_head_mut());
            let (hidden, dhidden) = (&a.hidden, &mut a.dhidden);
            head.pair_loss(self.b, w, dw, hidden, dhidden, &self.targets, objective, &known)?;
            backward_pass(self.b, &self.model, weights, grads, &self.layout, a, last);
        }
        let Output::Tokens(head) = &mut self.output else { panic!("pairs of values") };
        Ok(head.read(self.b)?)
    }
}

/// Two words for each row of a batch: a number of `seed`, the row of its group in the file, its segment's place in the
/// group and its own in the segment.
fn keys(seed: u64, ds: &Dataset, batch: &Batch) -> Vec<u32> {
    let mut keys = Vec::with_capacity(2 * batch.tokens.len());
    for group in &batch.groups {
        let row = ds.group(group.index).row as u64;
        let has_prompt = batch.segments[group.responses.start].prefix_len > 0;
        let first = group.responses.start - usize::from(has_prompt);
        for (part, segment) in batch.segments[first..group.responses.end].iter().enumerate() {
            let part = part + usize::from(!has_prompt);
            for place in 0..segment.len {
                let key = at(&[seed, row, part as u64, place as u64]);
                keys.extend([(key >> 32) as u32, key as u32]);
            }
        }
    }
    keys
}

/// Responses of which nothing is known but their value and their length.
fn valued(targets: &Targets, values: &[f64]) -> Vec<ResponseStats> {
    let stats = targets.lengths().zip(values);
    stats.map(|(tokens, value)| ResponseStats { tokens, value: *value, ..ResponseStats::default() }).collect()
}
