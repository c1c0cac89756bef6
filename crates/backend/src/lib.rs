#![doc = include_str!("../README.md")]

mod device;
mod dims;
mod element;
mod error;
mod layout;

pub use device::{Memory, Portions};
pub use dims::{AdamW, Gemm, Heads, Logits, Norm, Rmsprop};
pub use element::{Dtype, Element, Float};
pub use error::{Error, Result};
use half::bf16;
pub use layout::{Layout, Segment};

/// A buffer of weights or activations on backend `B`.
pub type Real<B> = <B as Backend>::Buf<<B as Backend>::Real>;
/// A buffer of gradients, statistics or moments on backend `B`.
pub type Acc<B> = <B as Backend>::Buf<<B as Backend>::Acc>;
/// A buffer of token ids, positions or row numbers on backend `B`.
pub type Index<B> = <B as Backend>::Buf<u32>;

/// A matrix of weights that a forward verb reads: as the backend computes, or frozen in bf16.
///
/// Verbs take `impl Into<Weight>`, so a plain buffer is passed as it is.
pub enum Weight<'a, B: Backend> {
    /// In the precision of the computation.
    Real(&'a Real<B>),
    /// Weights that do not change any more, in 16 bits; only for backends that [`Backend::reads_bf16`].
    Bf16(&'a B::Buf<bf16>),
}

impl<'a, B: Backend> Weight<'a, B> {
    /// The buffer of a parameter that is never stored in bf16: a vector.
    ///
    /// # Panics
    /// When it is in bf16 after all.
    pub fn real(self) -> &'a Real<B> {
        match self {
            Weight::Real(buf) => buf,
            Weight::Bf16(_) => panic!("this parameter is read in the precision of the computation alone"),
        }
    }
}

impl<B: Backend> Clone for Weight<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Backend> Copy for Weight<'_, B> {}

impl<'a, B: Backend> From<&'a Real<B>> for Weight<'a, B> {
    fn from(buf: &'a Real<B>) -> Self {
        Weight::Real(buf)
    }
}

/// Where the per-row results of [`Backend::logprob`] go: one value a row each.
pub struct RowStats<'a, B: Backend> {
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
}

/// A device that computes: buffers and a closed list of fused verbs.
///
/// Conventions, the same for every verb:
/// * Outputs come first, dims last. Matrices are row-major and dense; a buffer may be longer than the dims
///   say (buffers are sized once, for the largest batch), never shorter.
/// * A shape mistake is a programmer's error and panics. User input never reaches a verb unchecked.
/// * Verbs that say `+=` accumulate; all others overwrite.
/// * Results are bitwise reproducible: no verb depends on the number of threads or on timing, and a row's
///   result in a forward verb does not depend on which other rows are in the batch.
/// * Verbs may run asynchronously; their errors surface at [`Backend::finish`] or at the next download.
pub trait Backend: Sized + 'static {
    /// Weights and activations.
    type Real: Float;
    /// Gradients of weights, statistics and moments.
    type Acc: Float;
    /// Device memory. The buffer is the unit of aliasing: there are no views.
    type Buf<T: Element>: 'static;

    /// One line for people: what computes, with how many threads.
    fn describe(&self) -> String;
    /// All that the bits of a result depend on besides its inputs: backends that say the same here compute the same.
    fn identity(&self) -> String;
    /// Whether the verbs take [`Weight::Bf16`] beside the backend's own precision.
    fn reads_bf16(&self) -> bool {
        false
    }
    /// How much work a pass should be given to run at full speed.
    fn portions(&self) -> Portions {
        Portions::default()
    }
    /// Whether the first pass of a size has more to do than the later ones (compile kernels, get scratch memory), so
    /// that a trainer should make one of the largest before the first step: what fails then fails early.
    fn rehearses(&self) -> bool {
        false
    }

    // ---- memory -----------------------------------------------------------------------------------------

    /// What is known about the device's memory.
    fn memory(&self) -> Memory {
        Memory::default()
    }
    /// A zeroed buffer of `len` elements. Fails when the device has no room for it: memory is had here, not when it is
    /// first used.
    fn alloc<T: Element>(&self, len: usize) -> Result<Self::Buf<T>>;
    /// Number of elements in `buf`.
    fn len<T: Element>(&self, buf: &Self::Buf<T>) -> usize;
    /// Copies `src` from the host into `dst[offset..]`.
    fn upload<T: Element>(&self, dst: &mut Self::Buf<T>, offset: usize, src: &[T]);
    /// Copies `src[offset..offset + dst.len()]` to the host, after all earlier verbs. Fails when one of those did.
    fn download<T: Element>(&self, dst: &mut [T], src: &Self::Buf<T>, offset: usize) -> Result<()>;
    /// The buffer's bytes, little-endian, where it lies in the host's memory and can be read without a copy.
    fn host_bytes<'a, T: Element>(&self, _buf: &'a Self::Buf<T>) -> Option<&'a [u8]> {
        None
    }
    /// `dst[..len] = src[..len]`.
    fn copy<T: Element>(&self, dst: &mut Self::Buf<T>, src: &Self::Buf<T>, len: usize);
    /// Sets every element to zero.
    fn zero<T: Element>(&self, buf: &mut Self::Buf<T>);
    /// Waits for everything that was started and reports what went wrong in it.
    fn finish(&self) -> Result<()>;

    // ---- repetition -------------------------------------------------------------------------------------

    /// What a device keeps of work that repeats; see [`Backend::repeat`]. Empty at first.
    type Recording: Default + 'static;
    /// Does `work`, which may be calls of verbs alone, and not of attention over a layout: no allocation, upload,
    /// download or wait. With a recording that
    /// is not empty any more, a device may do the same work as before without asking `work`. Every use of a recording
    /// must therefore bring the same verbs on the same buffers with the same dims; what is in the buffers may change.
    fn repeat(&self, _recording: &mut Self::Recording, work: impl FnOnce()) {
        work();
    }

    // ---- matrix products: y = x wᵀ ----------------------------------------------------------------------

    /// `y[m,n] = x[m,k] · w[n,k]ᵀ + bias[n] + residual[m,n]`.
    fn gemm<'w>(
        &self,
        y: &mut Real<Self>,
        x: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Real<Self>>,
        residual: Option<&Real<Self>>,
        dims: Gemm,
    );
    /// `dx[m,k] = dy[m,n] · w[n,k]`.
    fn gemm_dx(&self, dx: &mut Real<Self>, dy: &Real<Self>, w: &Real<Self>, dims: Gemm);
    /// `dw[n,k] += dy[m,n]ᵀ · x[m,k]`.
    fn gemm_dw(&self, dw: &mut Acc<Self>, dy: &Real<Self>, x: &Real<Self>, dims: Gemm);
    /// `db[n] += sum over rows of dy[m,n]`.
    fn bias_dw(&self, db: &mut Acc<Self>, dy: &Real<Self>, dims: Gemm);

    // ---- embedding --------------------------------------------------------------------------------------

    /// `y[r] = table[ids[r]] (+ pos_table[positions[r]])`, for the layout's rows; `width` columns.
    fn embed<'w>(
        &self,
        y: &mut Real<Self>,
        table: impl Into<Weight<'w, Self>>,
        pos_table: Option<&Real<Self>>,
        layout: &Layout<Self>,
        width: usize,
    );
    /// `dtable[ids[r]] += dy[r]`, and the same for the position table, rows in order.
    fn embed_bw(
        &self,
        dtable: &mut Acc<Self>,
        dpos_table: Option<&mut Acc<Self>>,
        dy: &Real<Self>,
        layout: &Layout<Self>,
        width: usize,
    );

    // ---- norms ------------------------------------------------------------------------------------------

    /// RMSNorm (Zhang & Sennrich, 2019): `y = x · rstd · w`, `rstd = 1/sqrt(mean(x²) + eps)`; `rstd[rows]` is kept.
    fn rmsnorm(&self, y: &mut Real<Self>, rstd: &mut Acc<Self>, x: &Real<Self>, w: &Real<Self>, dims: Norm);
    /// Backward of [`Backend::rmsnorm`]: `dx +=` (the residual's gradient is already there), `dw +=`.
    fn rmsnorm_bw(
        &self,
        dx: &mut Real<Self>,
        dw: &mut Acc<Self>,
        dy: &Real<Self>,
        x: &Real<Self>,
        rstd: &Acc<Self>,
        w: &Real<Self>,
        dims: Norm,
    );
    /// LayerNorm (Ba et al., 2016): `y = (x - mean) · rstd · w + b`; `stats[2·rows]` keeps `mean, rstd` a row.
    fn layernorm(
        &self,
        y: &mut Real<Self>,
        stats: &mut Acc<Self>,
        x: &Real<Self>,
        w: &Real<Self>,
        b: &Real<Self>,
        dims: Norm,
    );
    /// Backward of [`Backend::layernorm`]: `dx +=`, `dw +=`, `db +=`.
    fn layernorm_bw(
        &self,
        dx: &mut Real<Self>,
        dw: &mut Acc<Self>,
        db: &mut Acc<Self>,
        dy: &Real<Self>,
        x: &Real<Self>,
        stats: &Acc<Self>,
        w: &Real<Self>,
        dims: Norm,
    );
    /// RMSNorm of every query and key head of `x[rows, qkv]` with weights `wq`, `wk` (`head_dim` each), values
    /// copied (Qwen3); `rstd[rows · (heads + kv_heads)]` is kept.
    fn qk_norm(
        &self,
        y: &mut Real<Self>,
        rstd: &mut Acc<Self>,
        x: &Real<Self>,
        wq: &Real<Self>,
        wk: &Real<Self>,
        rows: usize,
        eps: f64,
        dims: Heads,
    );
    /// Backward of [`Backend::qk_norm`], in place: `dqkv` holds the gradient of `y` and receives that of `x`;
    /// `dwq +=`, `dwk +=`.
    fn qk_norm_bw(
        &self,
        dqkv: &mut Real<Self>,
        dwq: &mut Acc<Self>,
        dwk: &mut Acc<Self>,
        x: &Real<Self>,
        rstd: &Acc<Self>,
        wq: &Real<Self>,
        wk: &Real<Self>,
        rows: usize,
        dims: Heads,
    );

    // ---- attention --------------------------------------------------------------------------------------

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
    /// its segment. `qkv[rows, (heads + 2·kv_heads)·head_dim]` → `o[rows, heads·head_dim]`,
    /// `lse[rows, heads]` the log-sum-exp of the scaled scores.
    fn attention(
        &self,
        o: &mut Real<Self>,
        lse: &mut Acc<Self>,
        qkv: &Real<Self>,
        layout: &Layout<Self>,
        dims: Heads,
    );
    /// Backward of [`Backend::attention`]; a prompt's keys and values collect the gradients of all its responses.
    fn attention_bw(
        &self,
        dqkv: &mut Real<Self>,
        dout: &Real<Self>,
        o: &Real<Self>,
        lse: &Acc<Self>,
        qkv: &Real<Self>,
        layout: &Layout<Self>,
        dims: Heads,
    );
    /// Writes the keys and values of each row of `qkv` to row `slots[r]` of the caches
    /// (`[capacity, kv_heads·head_dim]`).
    fn kv_store(
        &self,
        keys: &mut Real<Self>,
        values: &mut Real<Self>,
        qkv: &Real<Self>,
        slots: &Index<Self>,
        rows: usize,
        dims: Heads,
    );
    /// Attention of each row's queries to `lens[r]` consecutive cache rows from `bases[r]` on.
    fn attention_cached(
        &self,
        o: &mut Real<Self>,
        qkv: &Real<Self>,
        keys: &Real<Self>,
        values: &Real<Self>,
        bases: &Index<Self>,
        lens: &Index<Self>,
        rows: usize,
        dims: Heads,
    );

    // ---- feed-forward -----------------------------------------------------------------------------------

    /// SwiGLU (Shazeer, 2020): `y = silu(g) · u` for `x[rows, 2·width] = [g | u]`.
    fn swiglu(&self, y: &mut Real<Self>, x: &Real<Self>, rows: usize, width: usize);
    /// Backward of [`Backend::swiglu`].
    fn swiglu_bw(&self, dx: &mut Real<Self>, dy: &Real<Self>, x: &Real<Self>, rows: usize, width: usize);
    /// GELU in its tanh form (Hendrycks & Gimpel, 2016), on `len` elements.
    fn gelu(&self, y: &mut Real<Self>, x: &Real<Self>, len: usize);
    /// Backward of [`Backend::gelu`].
    fn gelu_bw(&self, dx: &mut Real<Self>, dy: &Real<Self>, x: &Real<Self>, len: usize);
    /// A product and the GELU of it: `x[m,n] = a[m,k] · w[n,k]ᵀ + bias[n]` and `y = gelu(x)`. One verb, because a device
    /// may apply the activation before the product leaves its registers.
    fn gemm_gelu<'w>(
        &self,
        y: &mut Real<Self>,
        x: &mut Real<Self>,
        a: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Real<Self>>,
        dims: Gemm,
    ) {
        self.gemm(x, a, w, bias, None, dims);
        self.gelu(y, x, dims.m * dims.n);
    }
    /// Backward of a product whose input was a GELU: `dx = gelu_bw(dy[m,n] · w[n,k], x[m,k])`. `dact[m,k]` is room for
    /// the gradient between the two; what it holds afterwards is not said.
    fn gemm_dx_gelu(
        &self,
        dx: &mut Real<Self>,
        dact: &mut Real<Self>,
        dy: &Real<Self>,
        w: &Real<Self>,
        x: &Real<Self>,
        dims: Gemm,
    ) {
        self.gemm_dx(dact, dy, w, dims);
        self.gelu_bw(dx, dact, x, dims.m * dims.k);
    }

    // ---- head -------------------------------------------------------------------------------------------

    /// `y[i] = x[index[i]]` for `rows` rows of `width` columns; an index may repeat.
    fn gather(&self, y: &mut Real<Self>, x: &Real<Self>, index: &Index<Self>, rows: usize, width: usize);
    /// `dx[index[i]] += dy[i]`, `i` in order: the backward of [`Backend::gather`].
    fn scatter_add(
        &self,
        dx: &mut Real<Self>,
        dy: &Real<Self>,
        index: &Index<Self>,
        rows: usize,
        width: usize,
    );
    /// Log-softmax of each row of `logits[rows, vocab]` at its target, with the row's statistics.
    fn logprob(&self, out: RowStats<'_, Self>, logits: &Real<Self>, targets: &Index<Self>, dims: Logits);
    /// Backward of [`Backend::logprob`], in place: `logits[r] = coef[r] · (onehot(target[r]) - softmax(logits[r]))`.
    fn logprob_bw(
        &self,
        logits: &mut Real<Self>,
        lse: &Acc<Self>,
        coef: &Acc<Self>,
        targets: &Index<Self>,
        dims: Logits,
    );

    // ---- optimizer --------------------------------------------------------------------------------------

    /// AdamW (Loshchilov & Hutter, 2019), one fused pass; `m`, `v` are the moments. Where there is a `master`, it is the
    /// weights that are updated, in the precision of sums, and `w` becomes its rounding.
    fn adamw(
        &self,
        w: &mut Real<Self>,
        master: Option<&mut Acc<Self>>,
        m: &mut Acc<Self>,
        v: &mut Acc<Self>,
        g: &Acc<Self>,
        hyper: AdamW,
    );
    /// RMSprop (Tieleman & Hinton, 2012), uncentred, without momentum; `v` is the mean square, `master` as in
    /// [`Backend::adamw`].
    fn rmsprop(
        &self,
        w: &mut Real<Self>,
        master: Option<&mut Acc<Self>>,
        v: &mut Acc<Self>,
        g: &Acc<Self>,
        hyper: Rmsprop,
    );
    /// Sum of squares of each buffer, in `f64` and in a fixed order. Waits for the device.
    fn square_sums(&self, xs: &[&Acc<Self>]) -> Result<Vec<f64>>;
}
