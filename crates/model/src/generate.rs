//! Sampling with a key/value cache.

use crate::activations::{Activations, Keep};
use crate::config::Config;
use crate::graph::{Attend, run};
use crate::layer::{CacheRows, KeysValues};
use crate::weights::{Model, Weights};
use duel_backend::{Backend, Float, Gemm, Index, Layout, Measure, Real, Result, Storage, Weight};
use std::collections::HashMap;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Most tokens that are added.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the `top_k` most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 means all.
    pub top_p: f64,
    /// Seed; sequence `i` draws from `seed` and `i` alone, so the batch does not matter.
    pub seed: u64,
}

/// Decodes batches of sequences; its buffers are allocated once.
pub struct Generator<B: Storage> {
    activations: Activations<B>,
    layout: Layout<B>,
    caches: Vec<KeysValues<B>>,
    rows: CacheRows<B>,
    last: Index<B>,
    gathered: Real<B>,
    logits: Real<B>,
    max_rows: usize,
    max_len: usize,
    batch: usize,
}

/// One row that goes through the model: a token of a sequence.
struct Row {
    sequence: usize,
    position: usize,
    token: u32,
}

impl<B: Storage> Generator<B> {
    /// Room for `batch` sequences of up to `max_len` tokens, prompt included.
    pub fn new(b: &B, c: &Config, batch: usize, max_len: usize) -> Result<Self> {
        // Short prompts go through a pass together.
        let max_rows = batch.max(64);
        let cache = batch * max_len * c.heads.kv_width();
        Ok(Generator {
            activations: Activations::new(b, c, max_rows, max_len, Keep::Nothing)?,
            layout: Layout::new(b, max_rows)?,
            caches: (0..c.layers).map(|_| Ok((b.alloc(cache)?, b.alloc(cache)?))).collect::<Result<_>>()?,
            rows: CacheRows { slots: b.alloc(max_rows)?, runs: b.alloc(4 * max_rows)? },
            last: b.alloc(batch)?,
            gathered: b.alloc(batch * c.width)?,
            logits: b.alloc(batch * c.vocab)?,
            max_rows,
            max_len,
            batch,
        })
    }

    /// Bytes that [`Generator::new`] allocates.
    pub fn bytes(c: &Config, batch: usize, max_len: usize) -> usize {
        Measure::<B>::bytes(|b| Generator::new(b, c, batch, max_len))
    }
}

impl<B: Backend> Generator<B> {
    /// Continues each prompt until a token of `stop` (which is kept), `max_new_tokens` or the room's end; returns
    /// the new tokens. Fails when the device did.
    ///
    /// # Panics
    /// With more prompts than the generator has room for, or a prompt that is empty or fills the room.
    pub fn generate(
        &mut self,
        b: &B,
        c: &Config,
        w: &impl Weights<B>,
        prompts: &[&[u32]],
        how: Sampling,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        assert!(prompts.len() <= self.batch, "more prompts than room");
        assert!(
            prompts.iter().all(|p| (1..self.max_len).contains(&p.len())),
            "a prompt is empty or too long"
        );
        let mut out = vec![Vec::new(); prompts.len()];
        let mut draws: Vec<fastrand::Rng> = (0..prompts.len())
            .map(|i| {
                fastrand::Rng::with_seed(
                    how.seed.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                )
            })
            .collect();
        // Prompts go through the same rows as decoding does; a sequence's later rows see its earlier ones.
        let mut pending: Vec<Row> = prompts
            .iter()
            .enumerate()
            .flat_map(|(sequence, p)| {
                p.iter().enumerate().map(move |(position, &token)| Row { sequence, position, token })
            })
            .collect();
        if how.max_new_tokens == 0 {
            return Ok(out);
        }
        let w = w.view();
        let mut host = vec![B::Real::default(); self.batch * c.vocab];
        // By number of rows: with the same weights and buffers that is all that a pass depends on.
        let mut recordings: HashMap<usize, B::Recording> = HashMap::new();
        while !pending.is_empty() {
            let mut next = Vec::new();
            for rows in pending.chunks(self.max_rows) {
                self.pass(b, c, &w, rows, recordings.entry(rows.len()).or_default());
                let ends: Vec<u32> = (0..rows.len())
                    .filter(|&i| rows[i].position + 1 >= prompts[rows[i].sequence].len())
                    .map(|i| i as u32)
                    .collect();
                if ends.is_empty() {
                    continue;
                }
                b.upload(&mut self.last, 0, &ends);
                let hidden = &self.activations.hidden;
                b.gather(&mut self.gathered, hidden, &self.last, ends.len(), c.width);
                let dims = Gemm::dense(ends.len(), c.vocab, c.width);
                b.gemm(&mut self.logits, &self.gathered, *w.head(), None, None, dims);
                b.download(&mut host[..ends.len() * c.vocab], &self.logits, 0)?;
                for (logits, &end) in host.chunks(c.vocab).zip(&ends) {
                    let row = &rows[end as usize];
                    let token = choose(logits, how, &mut draws[row.sequence]);
                    let tokens = &mut out[row.sequence];
                    tokens.push(token);
                    let position = row.position + 1;
                    let more = tokens.len() < how.max_new_tokens && position + 1 < self.max_len;
                    if more && !stop.contains(&token) {
                        next.push(Row { sequence: row.sequence, position, token });
                    }
                }
            }
            pending = next;
        }
        Ok(out)
    }

    fn pass(
        &mut self,
        b: &B,
        c: &Config,
        w: &Model<Weight<'_, B>>,
        rows: &[Row],
        recording: &mut B::Recording,
    ) {
        let column = |f: &dyn Fn(&Row) -> usize| rows.iter().map(|r| f(r) as u32).collect::<Vec<u32>>();
        let base = |r: &Row| r.sequence * self.max_len;
        b.upload(&mut self.rows.slots, 0, &column(&|r| base(r) + r.position));
        let runs = rows.iter().flat_map(|r| [0, 0, base(r) as u32, r.position as u32 + 1]);
        b.upload(&mut self.rows.runs, 0, &runs.collect::<Vec<u32>>());
        self.layout.set_rows(b, &column(&|r| r.token as usize), &column(&|r| r.position));
        b.repeat(recording, || {
            let attend = Attend::Cached(&mut self.caches, &self.rows);
            run(b, c, w, &self.layout, &mut self.activations, attend);
        });
    }
}

/// Draws a token from a row of logits.
fn choose<R: Float>(logits: &[R], how: Sampling, draw: &mut fastrand::Rng) -> u32 {
    let top = |best: usize, (i, x): (usize, &R)| if x.to_f64() > logits[best].to_f64() { i } else { best };
    let greedy = logits.iter().enumerate().fold(0, top);
    if how.temperature == 0.0 {
        return greedy as u32;
    }
    let max = logits[greedy].to_f64();
    let mut weights: Vec<(f64, u32)> = logits
        .iter()
        .enumerate()
        .map(|(i, x)| (((x.to_f64() - max) / how.temperature).exp(), i as u32))
        .collect();
    if how.top_k > 0 || how.top_p < 1.0 {
        weights.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if how.top_k > 0 {
            weights.truncate(how.top_k);
        }
        let wanted = how.top_p * weights.iter().map(|w| w.0).sum::<f64>();
        let mut reached = 0.0;
        let keep = weights.iter().position(|w| {
            reached += w.0;
            reached >= wanted
        });
        weights.truncate(keep.map_or(weights.len(), |k| k + 1));
    }
    let mut at = draw.f64() * weights.iter().map(|w| w.0).sum::<f64>();
    for &(w, token) in &weights {
        at -= w;
        if at < 0.0 {
            return token;
        }
    }
    weights.last().map_or(greedy as u32, |w| w.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(how: Sampling) -> [usize; 4] {
        let logits = [1.0f64, 3.0, 2.0, 0.0];
        let mut draw = fastrand::Rng::with_seed(5);
        let mut seen = [0; 4];
        for _ in 0..4000 {
            seen[choose(&logits, how, &mut draw) as usize] += 1;
        }
        seen
    }

    #[test]
    fn sampling_follows_its_filters() {
        let all = Sampling { max_new_tokens: 1, temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };
        // Softmax of the logits: 0.087, 0.644, 0.237, 0.032; 5 sigma of 4000 draws is below 0.04.
        let seen = frequencies(all);
        for (n, p) in seen.into_iter().zip([0.0871, 0.6439, 0.2369, 0.0321]) {
            assert!((n as f64 / 4000.0 - p).abs() < 0.04, "{seen:?}");
        }
        assert_eq!(frequencies(Sampling { temperature: 0.0, ..all }), [0, 4000, 0, 0]);
        assert_eq!(frequencies(Sampling { top_k: 1, ..all }), [0, 4000, 0, 0]);
        assert_eq!(frequencies(Sampling { top_p: 0.5, ..all }), [0, 4000, 0, 0]);
        let two = frequencies(Sampling { top_p: 0.8, ..all });
        assert!(two[0] == 0 && two[3] == 0 && two[2] > 0, "{two:?}");
    }
}
