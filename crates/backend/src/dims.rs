/// Dimensions of a matrix product `y[m,n] = x[m,k] · w[n,k]ᵀ` and of its two backward products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of `x` and `y`: tokens.
    pub m: usize,
    /// Columns of `y`: outputs.
    pub n: usize,
    /// Columns of `x`: inputs.
    pub k: usize,
    /// Elements from one row of `y`, and of its gradient, to the next; `n` where they are dense. What lies between is
    /// not touched. Bias gradients, residuals and the products with a GELU want dense rows.
    pub stride: usize,
}

impl Gemm {
    /// The product of dense matrices.
    pub fn dense(m: usize, n: usize, k: usize) -> Self {
        Gemm { m, n, k, stride: n }
    }

    /// Elements from the first of `y` to the last.
    ///
    /// # Panics
    /// When its rows overlap.
    pub fn y_len(self) -> usize {
        assert!(self.stride >= self.n, "rows of {} columns every {} elements", self.n, self.stride);
        if self.m * self.n == 0 { 0 } else { (self.m - 1) * self.stride + self.n }
    }

    /// # Panics
    /// When there is anything between the rows of `y`.
    pub fn assert_dense(self) {
        assert_eq!(self.stride, self.n, "this verb wants dense rows");
    }
}

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

/// Dimensions of a norm over the last axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Rows that are normalised on their own.
    pub rows: usize,
    /// Elements in a row.
    pub width: usize,
    /// Added to the mean square (or variance) before the root.
    pub eps: f64,
}

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
    /// The softmax scale `1/sqrt(head_dim)`.
    pub fn scale(self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// Numbers of one AdamW step, already resolved by the caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// 1-based step, for the bias corrections.
    pub step: u64,
    /// Factor on the gradient before use: the clip.
    pub grad_scale: f64,
}

/// Numbers of one RMSprop step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rmsprop {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean square.
    pub alpha: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// L2 penalty, added to the gradient (as PyTorch's RMSprop does it).
    pub weight_decay: f64,
    /// Factor on the gradient before use: the clip.
    pub grad_scale: f64,
}
