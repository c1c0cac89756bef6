use crate::{Acc, Index, Layout, Real, Storage};

/// Heads of an attention layer. A row of `qkv` is `[heads queries | kv_heads keys | kv_heads values]`,
/// `head_dim` each; query head `h` reads key/value head `h / (heads / kv_heads)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl Heads {
    /// Width of the attention output: all query heads.
    pub fn q_width(self) -> usize {
        self.heads * self.head_dim
    }
    /// Width of all keys (or all values).
    pub fn kv_width(self) -> usize {
        self.kv_heads * self.head_dim
    }
    /// Width of a `qkv` row.
    pub fn qkv_width(self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }
    /// Query heads that share one key/value head.
    pub fn ratio(self) -> usize {
        self.heads / self.kv_heads
    }
    /// What most models make of the products of their heads: those over `sqrt(head_dim)`, of all that comes before.
    pub fn scores(self) -> Scores {
        Scores { scale: 1.0 / (self.head_dim as f64).sqrt(), cap: None, window: None }
    }
}

/// What attention makes of the products of queries and keys, and how far back a query looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// A score is the product times this.
    pub scale: f64,
    /// Scores come softly no further than `c`: `c tanh(s / c)` is their softmax taken of (Gemma 2, 2024).
    pub cap: Option<f64>,
    /// The query at position `i` sees positions `i - n < j <= i` alone, at least its own (Beltagy et al., 2020).
    pub window: Option<usize>,
}

impl Scores {
    /// The same of sequences of up to `positions`: a window that none of them leaves is none.
    pub fn within(self, positions: usize) -> Self {
        Scores { window: self.window.filter(|n| *n < positions), ..self }
    }

    /// How many of the first positions the query at `position` does not see any more.
    pub fn passed(self, position: usize) -> usize {
        self.window.map_or(0, |n| (position + 1).saturating_sub(n))
    }
}

/// Attention over packed groups, and the positions that it sees.
pub trait Attention: Storage {
    /// Whether scores may have a cap, and windows be shorter than sequences, here and in
    /// [`Decode`](crate::Decode). A device without such kernels is asked for neither.
    const WINDOWS_AND_CAPS: bool = false;

    /// Rotary position embedding (Su et al., 2021), in place on the query and key heads of `qkv`, halves rotated
    /// as Hugging Face does it. `table[position, head_dim]` holds `head_dim/2` cosines, then as many sines.
    /// `inverse` rotates back, which is the backward.
    fn rope(
        &self,
        qkv: &mut Real<Self>,
        table: &Acc<Self>,
        positions: &Index<Self>,
        rows: usize,
        inverse: bool,
        dims: Heads,
    );
    /// Softmax attention over the shared-prefix layout: a row attends to its segment's prefix and, causally, to
    /// its segment, of both as far back as the window reaches by position. `qkv[rows, (heads + 2·kv_heads)·head_dim]` →
    /// `o[rows, heads·head_dim]`, `lse[rows, heads]` the log-sum-exp of the scores.
    fn attention(
        &self,
        o: &mut Real<Self>,
        lse: &mut Acc<Self>,
        qkv: &Real<Self>,
        layout: &Layout<Self>,
        dims: Heads,
        scores: Scores,
    );
    /// Backward of [`Attention::attention`]; a prompt's keys and values collect the gradients of all its responses.
    fn attention_bw(
        &self,
        dqkv: &mut Real<Self>,
        dout: &Real<Self>,
        o: &Real<Self>,
        lse: &Acc<Self>,
        qkv: &Real<Self>,
        layout: &Layout<Self>,
        dims: Heads,
        scores: Scores,
    );
}
