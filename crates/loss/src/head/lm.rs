//! The language-model head on the rows that predict a response token, in chunks of whole groups.

use super::gathered::Gathered;
use super::pairs::{Known, Unread};
use super::row::{ResponseStats, Row};
use super::targets::Targets;
use duel_backend::{
    Acc, Backend, Float, Gemm, Index, Logits, Map, MapGradients, Measure, PairObjective, Portions,
    PreferenceOut, Real, Result, RowStats, Storage,
};
use std::ops::Range;

/// The buffers of a head for the statistics of its rows: a macro, so that the others stay free.
macro_rules! row_stats {
    ($head:expr) => {
        RowStats {
            logp: &mut $head.logp,
            lse: &mut $head.lse,
            entropy: &mut $head.entropy,
            mean_logit: &mut $head.mean_logit,
            hit: &mut $head.hit,
            collision: &mut $head.collision,
        }
    };
}

mod compare;

pub use compare::Compared;

/// The head's buffers: at most one chunk of logits exists at a time, or two where two models are compared.
pub struct Head<B: Storage> {
    capacity: usize,
    vocab: usize,
    /// From one row of logits to the next.
    stride: usize,
    /// Soft cap on the logits.
    cap: Option<f64>,
    taken: Gathered<B>,
    targets: Index<B>,
    logits: Real<B>,
    logp: Acc<B>,
    lse: Acc<B>,
    entropy: Acc<B>,
    mean_logit: Acc<B>,
    hit: Acc<B>,
    collision: Acc<B>,
    coef: Acc<B>,
    host: [Vec<B::Acc>; 5],
    /// Of every row of a batch: what is said of it, and its coefficient. They grow to the largest.
    said: Vec<Row>,
    coefs: Vec<f64>,
    unread: Unread<B>,
    second: Option<compare::Second<B>>,
}

impl<B: Storage> Head<B> {
    fn on(b: &B, portions: Portions, width: usize, vocab: usize, capacity: usize) -> Result<Self> {
        let stride = vocab.next_multiple_of(portions.logits_multiple);
        Ok(Head {
            capacity,
            vocab,
            stride,
            cap: None,
            taken: Gathered::new(b, width, capacity)?,
            targets: b.alloc(capacity)?,
            logits: b.alloc(capacity * stride)?,
            logp: b.alloc(capacity)?,
            lse: b.alloc(capacity)?,
            entropy: b.alloc(capacity)?,
            mean_logit: b.alloc(capacity)?,
            hit: b.alloc(capacity)?,
            collision: b.alloc(capacity)?,
            coef: b.alloc(capacity)?,
            host: std::array::from_fn(|_| vec![B::Acc::default(); capacity]),
            said: Vec::new(),
            coefs: Vec::new(),
            unread: Unread::new(b, capacity)?,
            second: None,
        })
    }

    /// Bytes that [`Head::new`] allocates on a device of such portions, and on the host.
    pub fn bytes(portions: Portions, width: usize, vocab: usize, capacity: usize) -> usize {
        Self::host_bytes(capacity) + Measure::<B>::bytes(|b| Head::on(b, portions, width, vocab, capacity))
    }

    fn host_bytes(capacity: usize) -> usize {
        size_of::<[B::Acc; 5]>() * capacity
    }
}

impl<B: Backend> Head<B> {
    /// A head of `vocab` outputs over hidden states of `width`, with room for `capacity` rows of logits.
    pub fn new(b: &B, width: usize, vocab: usize, capacity: usize) -> Result<Self> {
        Self::on(b, b.portions(), width, vocab, capacity)
    }

    /// The same with a soft cap on its logits, as Gemma 2 has one.
    pub fn capped(self, cap: Option<f64>) -> Self {
        Head { cap, ..self }
    }

    /// Logits and their statistics of the target rows `range`, on the device.
    fn forward(&mut self, b: &B, w: Map<'_, B>, hidden: &Real<B>, targets: &Targets, range: Range<usize>) {
        let n = range.len();
        self.taken.take(b, hidden, &targets.rows[range.clone()]);
        b.upload(&mut self.targets, 0, &targets.tokens[range]);
        let (dims, shape) = (self.dims(n), self.shape(n));
        b.gemm(&mut self.logits, &self.taken.hidden, w.weight, w.bias, None, dims);
        if let Some(cap) = self.cap {
            b.soft_cap(&mut self.logits, cap, shape);
        }
        b.logprob(row_stats!(self), &self.logits, &self.targets, shape);
    }

    /// The same, and what they say.
    fn logits(
        &mut self,
        b: &B,
        w: Map<'_, B>,
        hidden: &Real<B>,
        targets: &Targets,
        range: Range<usize>,
    ) -> Result<()> {
        let n = range.len();
        self.forward(b, w, hidden, targets, range.clone());
        let [logp, entropy, mean_logit, hit, collision] = &mut self.host;
        b.download(&mut logp[..n], &self.logp, 0)?;
        b.download(&mut entropy[..n], &self.entropy, 0)?;
        b.download(&mut mean_logit[..n], &self.mean_logit, 0)?;
        b.download(&mut hit[..n], &self.hit, 0)?;
        b.download(&mut collision[..n], &self.collision, 0)?;
        for (i, row) in self.said[range].iter_mut().enumerate() {
            *row = Row {
                logp: logp[i].to_f64(),
                entropy: entropy[i].to_f64(),
                mean_logit: mean_logit[i].to_f64(),
                hit: hit[i].to_f64(),
                collision: collision[i].to_f64(),
            };
        }
        Ok(())
    }

    fn dims(&self, rows: usize) -> Gemm {
        Gemm { m: rows, n: self.vocab, k: self.taken.width, stride: self.stride }
    }

    fn shape(&self, rows: usize) -> Logits {
        Logits { rows, vocab: self.vocab, stride: self.stride }
    }

    /// Turns the logits of the rows `range` into gradients by their coefficients.
    fn gradients(
        &mut self,
        b: &B,
        w: Map<'_, B>,
        dw: MapGradients<'_, B>,
        dhidden: &mut Real<B>,
        range: Range<usize>,
    ) {
        let n = range.len();
        let host = &mut self.host[0][..n];
        host.iter_mut().zip(&self.coefs[range]).for_each(|(host, coef)| *host = B::Acc::from_f64(*coef));
        b.upload(&mut self.coef, 0, host);
        self.backward(b, w, dw, dhidden, n);
    }

    /// The same of `n` rows, given that the coefficients are on the device.
    fn backward(&mut self, b: &B, w: Map<'_, B>, dw: MapGradients<'_, B>, dhidden: &mut Real<B>, n: usize) {
        let (dims, shape) = (self.dims(n), self.shape(n));
        b.logprob_bw(&mut self.logits, &self.lse, &self.coef, &self.targets, self.cap, shape);
        self.taken.give_back(b, w, dw, &self.logits, dhidden, dims);
    }

    /// Scores every row: the forward alone. Fails when the device did.
    pub fn score<'w>(
        &mut self,
        b: &B,
        w: impl Into<Map<'w, B>>,
        hidden: &Real<B>,
        targets: &Targets,
    ) -> Result<&[Row]> {
        let w = w.into();
        self.said.resize(targets.len(), Row::default());
        for from in (0..targets.len()).step_by(self.capacity) {
            self.logits(b, w, hidden, targets, from..targets.len().min(from + self.capacity))?;
        }
        Ok(&self.said)
    }

    /// Scores every row, asks `objective(group, its rows, coefficients)` for the derivative of the loss by the
    /// log-probability of each ([`Targets::by_response`] for objectives of whole responses), and takes the gradients:
    /// `dw +=` where there is one, and added to `dhidden`, which the caller zeroed.
    ///
    /// Of a group larger than the room for logits, all but the last part is computed twice, once for what is said of
    /// its rows and once for its gradients. Fails when the device did.
    pub fn loss<'w, 'g>(
        &mut self,
        b: &B,
        w: impl Into<Map<'w, B>>,
        dw: impl Into<MapGradients<'g, B>>,
        hidden: &Real<B>,
        dhidden: &mut Real<B>,
        targets: &Targets,
        mut objective: impl FnMut(usize, &[Row], &mut [f64]),
    ) -> Result<&[Row]> {
        let (w, mut dw) = (w.into(), dw.into());
        self.said.resize(targets.len(), Row::default());
        self.coefs.resize(targets.len(), 0.0);
        for chunk in targets.chunks(self.capacity) {
            let whole = targets.rows_of(chunk.clone());
            let cut = |from: usize| from..whole.end.min(from + self.capacity);
            let parts: Vec<_> = whole.clone().step_by(self.capacity).map(cut).collect();
            for part in &parts {
                self.logits(b, w, hidden, targets, part.clone())?;
            }
            for group in chunk {
                let own = targets.rows_of(group..group + 1);
                self.coefs[own.clone()].fill(0.0);
                objective(group, &self.said[own.clone()], &mut self.coefs[own]);
            }
            // From the last part, whose logits are still there; the others come back for their gradients, the same
            // bits.
            for (i, part) in parts.iter().enumerate().rev() {
                if i + 1 < parts.len() {
                    self.logits(b, w, hidden, targets, part.clone())?;
                }
                self.gradients(b, w, dw.again(), dhidden, part.clone());
            }
        }
        Ok(&self.said)
    }

    /// Makes room for what [`Head::pair_loss`] says of so many responses, and forgets what it said before.
    ///
    /// # Errors
    /// There are more than ever before, and the device has no room for them.
    pub fn expect(&mut self, b: &B, responses: usize) -> Result<()> {
        self.unread.expect(b, responses)
    }

    /// [`Head::loss`] for a loss of pairs that the device makes itself, given what is `known` of every group. Nothing
    /// is waited for: [`Head::read`] gives the statistics of the responses, after any number of batches.
    ///
    /// # Errors
    /// There are more groups than ever before, and the device has no room for them.
    ///
    /// # Panics
    /// When a group has more rows than there is room for logits, or there are more responses than were expected.
    pub fn pair_loss<'w, 'g>(
        &mut self,
        b: &B,
        w: impl Into<Map<'w, B>>,
        dw: impl Into<MapGradients<'g, B>>,
        hidden: &Real<B>,
        dhidden: &mut Real<B>,
        targets: &Targets,
        objective: &PairObjective<'_>,
        known: &[Known<'_>],
    ) -> Result<()> {
        let (w, mut dw) = (w.into(), dw.into());
        for chunk in targets.chunks(self.capacity) {
            let rows = targets.rows_of(chunk.clone());
            assert!(rows.len() <= self.capacity, "a group of more rows than there is room for logits");
            self.forward(b, w, hidden, targets, rows.clone());
            let first = self.unread.rows.len();
            self.unread.take(b, targets, chunk, known)?;
            let out = PreferenceOut { coef: &mut self.coef, sums: &mut self.unread.sums, first };
            b.preference(out, &row_stats!(self), &self.unread.groups, objective);
            self.backward(b, w, dw.again(), dhidden, rows.len());
        }
        Ok(())
    }

    /// What [`Head::pair_loss`] said of the responses since [`Head::expect`], in order. Waits, and fails when the
    /// device did.
    pub fn read(&mut self, b: &B) -> Result<Vec<ResponseStats>> {
        self.unread.read(b)
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets::tests::targets;
    use super::*;
    use crate::{Divergence, Group, Objective, Settings, Totals, word};
    use duel_cpu::Cpu;

    /// However small the room for logits is, values and gradients are the same; and gradients add to what is there.
    #[test]
    fn chunks_do_not_change_the_result() {
        let (t, _) = targets();
        let (b, width, vocab) = (Cpu::<f64>::new(1), 5, 7);
        let wave = |n: usize, k: f64| (0..n).map(|i| (i as f64 * k).sin()).collect::<Vec<f64>>();
        let (hidden, w) = (wave(12 * width, 0.7), wave(vocab * width, 1.3));
        let run = |capacity, before| {
            let mut head = Head::new(&b, width, vocab, capacity).unwrap();
            let (mut dw, mut dh) = (vec![0.0; vocab * width], vec![before; 12 * width]);
            let of = t.by_response(|g, s, c| {
                for (c, s) in c.iter_mut().zip(s) {
                    *c = s.logp * (g + 1) as f64;
                }
            });
            let rows = head.loss(&b, &w, &mut dw, &hidden, &mut dh, &t, of).unwrap().to_vec();
            assert_eq!(rows, head.score(&b, &w, &hidden, &t).unwrap());
            dh.iter_mut().for_each(|x| *x -= before);
            (t.sums(&rows), dw, dh)
        };
        let (stats, dw, dh) = run(100, 0.0);
        for (capacity, before) in [(1, 0.0), (3, 0.0), (4, 0.0), (5, 0.0), (100, 2.0)] {
            let (s, w, h) = run(capacity, before);
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13);
            assert!(close(&dw, &w) && close(&dh, &h), "capacity {capacity}");
            assert!(
                stats.iter().zip(&s).all(|(a, b)| (a.logp - b.logp).abs() < 1e-13 && a.tokens == b.tokens)
            );
        }
    }

    /// What the device makes of a loss of pairs is what the host makes of it, to the bit, however small the room.
    #[test]
    fn pairs_are_the_same_on_the_device() {
        let (t, _) = targets();
        let (b, width, vocab) = (Cpu::<f64>::new(1), 5, 7);
        let wave = |n: usize, k: f64| (0..n).map(|i| (i as f64 * k).sin()).collect::<Vec<f64>>();
        let (hidden, w) = (wave(12 * width, 0.7), wave(vocab * width, 1.3));
        let reference = [[-7.0, -2.0], [-5.0, -3.0]];
        let mut totals = Totals::default();
        (0..2).for_each(|_| totals.add(2, 0, 0));
        let objective = Objective::new(vec![(1.0, word("sigmoid").unwrap())], Settings::default());
        let known = reference.each_ref().map(|r| Known { reference: r, margin: 0.25 });
        for capacity in [4, 100] {
            let mut head = Head::new(&b, width, vocab, capacity).unwrap();
            let gradients = || (vec![0.0; vocab * width], vec![0.0; 12 * width]);
            let (mut dw, mut dh) = gradients();
            let of = t.by_response(|g, s, slopes| {
                let scores = [s[0].score(reference[g][0]), s[1].score(reference[g][1])];
                objective.slopes(&[Group { margin: 0.25, ..Group::ranked(&scores) }], totals, slopes);
            });
            let rows = head.loss(&b, &w, &mut dw, &hidden, &mut dh, &t, of).unwrap();
            let host = (t.sums(rows), dw, dh);
            let (mut dw, mut dh) = gradients();
            head.expect(&b, 4).unwrap();
            let pairs = objective.on_device(totals).unwrap();
            head.pair_loss(&b, &w, &mut dw, &hidden, &mut dh, &t, &pairs, &known).unwrap();
            assert_eq!((head.read(&b).unwrap(), dw, dh), host, "capacity {capacity}");
        }
    }

    #[test]
    fn what_kernels_do_not_know_stays_on_the_host() {
        let of = |names: &[&str], settings| {
            let terms = names.iter().map(|name| (1.0, word(name).unwrap())).collect();
            Objective::new(terms, settings).on_device(Totals::default()).is_some()
        };
        let plain = Settings::default();
        assert!(of(&["sigmoid"], plain) && of(&["ipo"], plain) && of(&["hinge"], plain));
        assert!(!of(&["exo_pair"], plain) && !of(&["sft"], plain) && !of(&["sigmoid", "hinge"], plain));
        assert!(!of(&["sigmoid"], Settings { use_weighting: true, ..plain }));
        assert!(!of(&["sigmoid"], Settings { divergence: Divergence::Js, ..plain }));
    }
}
