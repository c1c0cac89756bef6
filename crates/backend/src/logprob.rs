use crate::{Acc, Index, Real, Storage};

/// Dimensions of a matrix of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logits {
    /// Rows: scored tokens.
    pub rows: usize,
    /// Columns.
    pub vocab: usize,
    /// Elements from one row to the next; what lies between is not touched.
    pub stride: usize,
}

impl Logits {
    /// Dense logits.
    pub fn dense(rows: usize, vocab: usize) -> Self {
        Logits { rows, vocab, stride: vocab }
    }

    /// Elements from the first to the last.
    pub fn len(self) -> usize {
        if self.is_empty() { 0 } else { (self.rows - 1) * self.stride + self.vocab }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.rows == 0 || self.vocab == 0
    }
}

/// Where the per-row results of [`LogProbs::logprob`] go: one value a row each.
pub struct RowStats<'a, B: Storage> {
    /// `ln softmax(logits)[target]`.
    pub logp: &'a mut Acc<B>,
    /// `ln sum exp(logits)`; the backward needs it.
    pub lse: &'a mut Acc<B>,
    /// Entropy of the softmax, in nats.
    pub entropy: &'a mut Acc<B>,
    /// Mean of the row's logits over the vocabulary.
    pub mean_logit: &'a mut Acc<B>,
    /// 1 where the target is the arg-max, else 0.
    pub hit: &'a mut Acc<B>,
    /// `ln sum p^2` over the softmax: of the chance that two draws from it agree.
    pub collision: &'a mut Acc<B>,
}

/// What a model predicts on each row, as [`LogProbs::logprob`] leaves it.
pub struct Prediction<'a, B: Storage> {
    /// `[rows, vocab]`.
    pub logits: &'a Real<B>,
    /// `[rows]`: their `ln sum exp(logits)`.
    pub lse: &'a Acc<B>,
}

/// The log-softmax over the vocabulary at a target, and how far two are apart.
pub trait LogProbs: Storage {
    /// Log-softmax of each row of `logits[rows, vocab]` at its target, with the row's statistics.
    fn logprob(&self, out: RowStats<'_, Self>, logits: &Real<Self>, targets: &Index<Self>, dims: Logits);
    /// A soft cap on logits, in place: `cap · tanh(logits / cap)` (Gemma 2, 2024). What comes after it, comes of these.
    fn soft_cap(&self, logits: &mut Real<Self>, cap: f64, dims: Logits);
    /// Backward of [`LogProbs::logprob`], in place: `logits[r] = coef[r] · (onehot(target[r]) - softmax(logits[r]))`.
    /// Of logits that [`LogProbs::soft_cap`] left, its backward too: times `1 - (logits[r] / cap)²`.
    fn logprob_bw(
        &self,
        logits: &mut Real<Self>,
        lse: &Acc<Self>,
        coef: &Acc<Self>,
        targets: &Index<Self>,
        cap: Option<f64>,
        dims: Logits,
    );
    /// The exact Kullback-Leibler divergence of two predictions of one shape (Kullback & Leibler, 1951), in nats, a row
    /// each: `kl[r] = sum_v p_v (ln p_v - ln q_v)`, with `p` and `q` the softmaxes.
    ///
    /// Both are of one sum, so that is `sum_v p_v (e^d - 1 - d)` with `d = ln q_v - ln p_v`, in which no term is
    /// negative: what two predictions that hardly differ have between them is not lost in rounding, and of equal ones
    /// it is exactly 0. A probability below `e^-80` is 0.
    fn kl(&self, kl: &mut Acc<Self>, p: Prediction<'_, Self>, q: Prediction<'_, Self>, dims: Logits);
}
