//! The language-model head on the rows that predict a response token, in chunks of whole groups.

use duel_backend::{
    Acc, Backend, Float, Gemm, Index, Logits, Portions, Real, Result, RowStats, Segment, Weight,
};
use std::ops::Range;

/// Which rows of a packed batch predict which tokens.
///
/// The last row of the prompt predicts the first token of every response; a response without prompt has nothing
/// that predicts its first token, which is then not scored. Nor are the rows of a response that are given: in a
/// conversation, what others than the model say.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    rows: Vec<u32>,
    tokens: Vec<u32>,
    /// How much each token's log-probability counts in its response's sum.
    weights: Vec<f64>,
    responses: Vec<Range<usize>>,
    groups: Vec<Range<usize>>,
}

impl Targets {
    /// Removes all groups, keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.tokens.clear();
        self.weights.clear();
        self.responses.clear();
        self.groups.clear();
    }

    /// Adds a group: the segments of its responses in a batch of `tokens`, and the rows in them whose tokens are
    /// `given`, in order.
    pub fn push_group(
        &mut self,
        tokens: &[u32],
        responses: impl IntoIterator<Item = Segment>,
        given: &[Range<usize>],
    ) {
        let first = self.responses.len();
        let mut given = given.iter().peekable();
        for s in responses {
            let from = self.rows.len();
            for (at, &token) in tokens.iter().enumerate().skip(s.start).take(s.len) {
                while given.next_if(|run| run.end <= at).is_some() {}
                let before = match at.checked_sub(1) {
                    _ if given.peek().is_some_and(|run| run.start <= at) => None,
                    _ if at == s.start && s.prefix_len == 0 => None,
                    _ if at == s.start => Some(s.prefix_start + s.prefix_len - 1),
                    before => before,
                };
                if let Some(before) = before {
                    self.rows.push(before as u32);
                    self.tokens.push(token);
                }
            }
            self.responses.push(from..self.rows.len());
        }
        self.weights.resize(self.rows.len(), 1.0);
        self.groups.push(first..self.responses.len());
    }

    /// Lets the tokens of the last group's responses that lie beyond the length of its shortest count `alpha` each
    /// (length-desensitised DPO: Liu et al., 2024).
    pub fn discount_tails(&mut self, alpha: f64) {
        let Some(group) = self.groups.last().cloned() else { return };
        let responses = &self.responses[group];
        let shortest = responses.iter().map(|r| r.len()).min().unwrap_or(0);
        for response in responses {
            self.weights[response.start + shortest..response.end].fill(alpha);
        }
    }

    /// Rows that the head runs on: scored tokens.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no token is scored.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of responses over all groups.
    pub fn responses(&self) -> usize {
        self.responses.len()
    }

    fn rows_of(&self, group: usize) -> Range<usize> {
        let r = &self.groups[group];
        if r.is_empty() { 0..0 } else { self.responses[r.start].start..self.responses[r.end - 1].end }
    }

    /// Runs of groups that fit `capacity` rows together; a larger group stands alone.
    fn chunks(&self, capacity: usize) -> Vec<Range<usize>> {
        let mut chunks: Vec<Range<usize>> = Vec::new();
        let mut rows = 0;
        for g in 0..self.groups.len() {
            let n = self.rows_of(g).len();
            match chunks.last_mut() {
                Some(c) if rows + n <= capacity => {
                    c.end = g + 1;
                    rows += n;
                }
                _ => {
                    chunks.push(g..g + 1);
                    rows = n;
                }
            }
        }
        chunks
    }
}

/// Sums over the scored tokens of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResponseStats {
    /// Scored tokens.
    pub tokens: usize,
    /// Log-probabilities, each by the weight of its token.
    pub logp: f64,
    /// Entropies of the predictions, in nats.
    pub entropy: f64,
    /// Means of the logits over the vocabulary.
    pub mean_logit: f64,
    /// Tokens that were the most likely.
    pub hits: f64,
    /// `ln sum p^2` over the predictions.
    pub collision: f64,
}

/// The head's buffers: at most one chunk of logits exists at a time.
pub struct Head<B: Backend> {
    capacity: usize,
    width: usize,
    vocab: usize,
    /// From one row of logits to the next.
    stride: usize,
    rows: Index<B>,
    targets: Index<B>,
    hidden: Real<B>,
    dhidden: Real<B>,
    logits: Real<B>,
    logp: Acc<B>,
    lse: Acc<B>,
    entropy: Acc<B>,
    mean_logit: Acc<B>,
    hit: Acc<B>,
    collision: Acc<B>,
    coef: Acc<B>,
    host: [Vec<B::Acc>; 5],
}

impl<B: Backend> Head<B> {
    /// A head of `vocab` outputs over hidden states of `width`, with room for `capacity` rows of logits.
    pub fn new(b: &B, width: usize, vocab: usize, capacity: usize) -> Result<Self> {
        let stride = Self::stride(b.portions(), vocab);
        Ok(Head {
            capacity,
            width,
            vocab,
            stride,
            rows: b.alloc(capacity)?,
            targets: b.alloc(capacity)?,
            hidden: b.alloc(capacity * width)?,
            dhidden: b.alloc(capacity * width)?,
            logits: b.alloc(capacity * stride)?,
            logp: b.alloc(capacity)?,
            lse: b.alloc(capacity)?,
            entropy: b.alloc(capacity)?,
            mean_logit: b.alloc(capacity)?,
            hit: b.alloc(capacity)?,
            collision: b.alloc(capacity)?,
            coef: b.alloc(capacity)?,
            host: std::array::from_fn(|_| vec![B::Acc::default(); capacity]),
        })
    }

    fn stride(portions: Portions, vocab: usize) -> usize {
        vocab.next_multiple_of(portions.logits_multiple)
    }

    /// Bytes that [`Head::new`] allocates on a device of such portions.
    pub fn bytes(portions: Portions, width: usize, vocab: usize, capacity: usize) -> usize {
        let (real, acc) = (size_of::<B::Real>(), size_of::<B::Acc>());
        let stride = Self::stride(portions, vocab);
        capacity * ((2 * width + stride) * real + 12 * acc + 8)
    }

    /// Logits and their statistics of the target rows `range`, added to the statistics of their responses.
    fn logits(
        &mut self,
        b: &B,
        w: Weight<'_, B>,
        hidden: &Real<B>,
        targets: &Targets,
        range: Range<usize>,
        stats: &mut [ResponseStats],
    ) -> Result<()> {
        let n = range.len();
        b.upload(&mut self.rows, 0, &targets.rows[range.clone()]);
        b.upload(&mut self.targets, 0, &targets.tokens[range.clone()]);
        b.gather(&mut self.hidden, hidden, &self.rows, n, self.width);
        let (dims, shape) = (self.dims(n), self.shape(n));
        b.gemm(&mut self.logits, &self.hidden, w, None, None, dims);
        let out = RowStats {
            logp: &mut self.logp,
            lse: &mut self.lse,
            entropy: &mut self.entropy,
            mean_logit: &mut self.mean_logit,
            hit: &mut self.hit,
            collision: &mut self.collision,
        };
        b.logprob(out, &self.logits, &self.targets, shape);
        let [logp, entropy, mean_logit, hit, collision] = &mut self.host;
        b.download(&mut logp[..n], &self.logp, 0)?;
        b.download(&mut entropy[..n], &self.entropy, 0)?;
        b.download(&mut mean_logit[..n], &self.mean_logit, 0)?;
        b.download(&mut hit[..n], &self.hit, 0)?;
        b.download(&mut collision[..n], &self.collision, 0)?;
        let first = targets.responses.partition_point(|r| r.end <= range.start);
        for (response, rows) in targets.responses.iter().enumerate().skip(first) {
            if rows.start >= range.end {
                break;
            }
            let s = &mut stats[response];
            for row in rows.start.max(range.start)..rows.end.min(range.end) {
                let i = row - range.start;
                s.tokens += 1;
                s.logp += targets.weights[row] * logp[i].to_f64();
                s.entropy += entropy[i].to_f64();
                s.mean_logit += mean_logit[i].to_f64();
                s.hits += hit[i].to_f64();
                s.collision += collision[i].to_f64();
            }
        }
        Ok(())
    }

    fn dims(&self, rows: usize) -> Gemm {
        Gemm { m: rows, n: self.vocab, k: self.width, stride: self.stride }
    }

    fn shape(&self, rows: usize) -> Logits {
        Logits { rows, vocab: self.vocab, stride: self.stride }
    }

    /// Turns the logits of the rows `range` into gradients, given a coefficient for each response.
    fn gradients(
        &mut self,
        b: &B,
        w: &Real<B>,
        dw: &mut Acc<B>,
        dhidden: &mut Real<B>,
        targets: &Targets,
        range: Range<usize>,
        coefs: &[f64],
    ) {
        let n = range.len();
        let row_coefs = &mut self.host[0];
        for (rows, &coef) in targets.responses.iter().zip(coefs) {
            for row in rows.start.max(range.start)..rows.end.min(range.end) {
                row_coefs[row - range.start] = B::Acc::from_f64(coef * targets.weights[row]);
            }
        }
        b.upload(&mut self.coef, 0, &row_coefs[..n]);
        let (dims, shape) = (self.dims(n), self.shape(n));
        b.logprob_bw(&mut self.logits, &self.lse, &self.coef, &self.targets, shape);
        b.gemm_dx(&mut self.dhidden, &self.logits, w, dims);
        b.gemm_dw(dw, &self.logits, &self.hidden, dims);
        b.scatter_add(dhidden, &self.dhidden, &self.rows, n, self.width);
    }

    /// Scores every response: the forward alone. Fails when the device did.
    pub fn score<'w>(
        &mut self,
        b: &B,
        w: impl Into<Weight<'w, B>>,
        hidden: &Real<B>,
        targets: &Targets,
    ) -> Result<Vec<ResponseStats>> {
        let w = w.into();
        let mut stats = vec![ResponseStats::default(); targets.responses()];
        for from in (0..targets.len()).step_by(self.capacity) {
            self.logits(b, w, hidden, targets, from..targets.len().min(from + self.capacity), &mut stats)?;
        }
        Ok(stats)
    }

    /// Scores every response, asks `objective(group, its responses, coefficients)` for the derivative of the loss
    /// by each response's summed log-probability, and takes the gradients: `dw +=`, `dhidden` overwritten.
    ///
    /// Of a group larger than the room for logits, all but the last part is computed twice, once for its sums and once
    /// for its gradients. Fails when the device did.
    pub fn loss(
        &mut self,
        b: &B,
        w: &Real<B>,
        dw: &mut Acc<B>,
        hidden: &Real<B>,
        dhidden: &mut Real<B>,
        targets: &Targets,
        mut objective: impl FnMut(usize, &[ResponseStats], &mut [f64]),
    ) -> Result<Vec<ResponseStats>> {
        let mut stats = vec![ResponseStats::default(); targets.responses()];
        let mut coefs = vec![0.0; targets.responses()];
        let mut again = Vec::new();
        b.zero(dhidden);
        for chunk in targets.chunks(self.capacity) {
            let rows = targets.rows_of(chunk.start).start..targets.rows_of(chunk.end - 1).end;
            let cut = |from: usize| from..rows.end.min(from + self.capacity);
            let parts: Vec<_> = rows.clone().step_by(self.capacity).map(cut).collect();
            for part in &parts {
                self.logits(b, w.into(), hidden, targets, part.clone(), &mut stats)?;
            }
            for group in chunk {
                let responses = targets.groups[group].clone();
                objective(group, &stats[responses.clone()], &mut coefs[responses]);
            }
            // From the last part, whose logits are still there; the others come back for their gradients.
            for (i, part) in parts.iter().enumerate().rev() {
                if i + 1 < parts.len() {
                    again.resize(stats.len(), ResponseStats::default());
                    self.logits(b, w.into(), hidden, targets, part.clone(), &mut again)?;
                }
                self.gradients(b, w, dw, dhidden, targets, part.clone(), &coefs);
            }
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_cpu::Cpu;

    fn targets() -> (Targets, Vec<u32>) {
        let tokens: Vec<u32> = (0..12).map(|i| (i * 5) % 7).collect();
        let prompt = |start, len, prefix_start, prefix_len| Segment { start, len, prefix_start, prefix_len };
        let mut t = Targets::default();
        t.push_group(&tokens, [prompt(2, 3, 0, 2), prompt(5, 1, 0, 2)], &[]);
        t.push_group(&tokens, [prompt(6, 3, 0, 0), prompt(9, 3, 0, 0)], &[]);
        (t, tokens)
    }

    #[test]
    fn rows_predict_the_next_token_of_their_response() {
        let (t, tokens) = targets();
        assert_eq!(t.rows, [1, 2, 3, 1, 6, 7, 9, 10]);
        let want: Vec<u32> = [2, 3, 4, 5, 7, 8, 10, 11].iter().map(|&i| tokens[i]).collect();
        assert_eq!(t.tokens, want);
        assert_eq!(t.chunks(4), [0..1, 1..2]);
        assert_eq!(t.chunks(8).len(), 1);
    }

    #[test]
    fn given_rows_are_not_scored() {
        let (tokens, mut t) = (targets().1, Targets::default());
        let response = |start, len| Segment { start, len, prefix_start: 0, prefix_len: 2 };
        t.push_group(&tokens, [response(2, 5), response(7, 3)], &[2..3, 4..6, 9..10]);
        assert_eq!(t.rows, [2, 5, 1, 7]);
        assert_eq!(t.tokens, [3, 6, 7, 8].map(|i: usize| tokens[i]));
        assert_eq!(t.responses, [0..2, 2..4]);
    }

    #[test]
    fn tails_count_less() {
        let (mut t, _) = targets();
        t.discount_tails(0.5);
        assert_eq!(t.weights, [1.0; 8]);
        let response = |start, len| Segment { start, len, prefix_start: 0, prefix_len: 2 };
        t.push_group(&[0; 12], [response(2, 4), response(6, 2), response(8, 3)], &[]);
        t.discount_tails(0.5);
        assert_eq!(t.weights[8..], [1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5]);
    }

    /// However small the room for logits is, values and gradients are the same.
    #[test]
    fn chunks_do_not_change_the_result() {
        let (t, _) = targets();
        let (b, width, vocab) = (Cpu::<f64>::new(1), 5, 7);
        let wave = |n: usize, k: f64| (0..n).map(|i| (i as f64 * k).sin()).collect::<Vec<f64>>();
        let (hidden, w) = (wave(12 * width, 0.7), wave(vocab * width, 1.3));
        let run = |capacity| {
            let mut head = Head::new(&b, width, vocab, capacity).unwrap();
            let (mut dw, mut dh) = (vec![0.0; vocab * width], vec![9.0; 12 * width]);
            let stats = head.loss(&b, &w, &mut dw, &hidden, &mut dh, &t, |g, s, c| {
                for (c, s) in c.iter_mut().zip(s) {
                    *c = s.logp * (g + 1) as f64;
                }
            });
            assert_eq!(stats, head.score(&b, &w, &hidden, &t));
            (stats.unwrap(), dw, dh)
        };
        let (stats, dw, dh) = run(100);
        for capacity in [1, 3, 4, 5] {
            let (s, w, h) = run(capacity);
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13);
            assert!(close(&dw, &w) && close(&dh, &h), "capacity {capacity}");
            assert!(
                stats.iter().zip(&s).all(|(a, b)| (a.logp - b.logp).abs() < 1e-13 && a.tokens == b.tokens)
            );
        }
    }
}
