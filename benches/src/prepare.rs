//! Every verb on buffers of its own, on any backend.

use crate::pair::{Batch, Pair};
use crate::verb::{Cached, Verb};
use crate::{indices, values};
use duel_backend::{
    Acc, Activation, AdamW, Backend, Blocks, Draw, Element, Float, Gemm, Heads, Index, Layout, Logits, Norm,
    Prediction, QkNorm, Real, Result, Rmsprop, RowStats, Segment, Weight,
};
use duel_loss::{Head, Targets, sigmoid};
use duel_optim::Optimizer;
use std::hint::black_box;

/// Numbers that are drawn; a longer buffer repeats them, because a GPU's are larger than is worth waiting for.
const DRAWN: usize = 1 << 22;

/// Bytes of the weights that products of few rows take in turn: several times what caches hold.
const COLD: usize = 256 << 20;
/// Most of them: small ones are not a model's.
const MOST_WEIGHTS: usize = 128;

/// Calls the verb on its buffers.
pub type Run<'b> = Box<dyn FnMut() + 'b>;

/// Buffers of random numbers, each different from those before.
struct Inputs<'b, B: Backend> {
    b: &'b B,
    seed: u64,
}

impl<B: Backend> Inputs<'_, B> {
    fn upload<T: Element>(&mut self, n: usize, draw: impl Fn(usize, u64) -> Vec<T>) -> Result<B::Buf<T>> {
        self.seed += 1;
        let mut buf = self.b.alloc(n)?;
        let drawn = draw(n.min(DRAWN), self.seed);
        for offset in (0..n).step_by(DRAWN) {
            self.b.upload(&mut buf, offset, &drawn[..drawn.len().min(n - offset)]);
        }
        Ok(buf)
    }

    /// Numbers in (-1, 1) after a change.
    fn changed<T: Float>(&mut self, n: usize, change: impl Fn(f32) -> f32) -> Result<B::Buf<T>> {
        self.upload(n, |n, seed| values(n, seed).into_iter().map(|x| T::from_f32(change(x))).collect())
    }

    fn reals(&mut self, n: usize) -> Result<Real<B>> {
        self.changed(n, |x| x)
    }

    fn accs(&mut self, n: usize) -> Result<Acc<B>> {
        self.changed(n, |x| x)
    }

    fn indices(&mut self, n: usize, bound: usize) -> Result<Index<B>> {
        self.upload(n, |n, seed| indices(n, bound, seed))
    }

    fn layout(&mut self, batch: Batch, vocab: usize) -> Result<Layout<B>> {
        self.seed += 1;
        let mut layout = Layout::new(self.b, batch.rows())?;
        layout.set(self.b, &indices(batch.rows(), vocab, self.seed), batch.groups().flatten());
        Ok(layout)
    }
}

/// The buffers of one verb, made once; calling the result calls the verb. `seed` tells several sets of them apart.
///
/// # Errors
/// When the device has no room, or failed.
pub fn prepare<B: Backend>(b: &B, verb: Verb, seed: u64) -> Result<Run<'_>> {
    // A verb takes some ten buffers.
    let mut new = Inputs { b, seed: 100 * seed };
    Ok(match verb {
        Verb::Gemm { dims: d, .. } if verb.has_few_rows() => {
            let count = COLD.div_ceil(size_of::<B::Real>() * d.n * d.k).min(MOST_WEIGHTS);
            let weights = (0..count).map(|_| new.reals(d.n * d.k)).collect::<Result<Vec<_>>>()?;
            let (x, mut y) = (new.reals(d.m * d.k)?, b.alloc(d.m * d.n)?);
            let mut turn = (0..count).cycle();
            Box::new(move || {
                let w = turn.next().expect("it never ends");
                b.gemm(&mut y, &x, &weights[w], None, None, d);
            })
        }
        Verb::GemmBlocks { dims: d, bits } => {
            let count = COLD.div_ceil(Blocks::<B>::size(bits, d.n, d.k)).min(MOST_WEIGHTS);
            let mut blocks = |seed| Blocks::of(b, bits, &values(d.n * d.k, seed), d.n, d.k);
            let weights = (0..count as u64).map(&mut blocks).collect::<Result<Vec<_>>>()?;
            let (x, mut y) = (new.reals(d.m * d.k)?, b.alloc(d.m * d.n)?);
            let mut turn = (0..count).cycle();
            Box::new(move || {
                let w = turn.next().expect("it never ends");
                b.gemm(&mut y, &x, Weight::Blocks(&weights[w]), None, None, d);
            })
        }
        Verb::Gemm { dims: d, bias, residual } => {
            let (x, w, mut y) = (new.reals(d.m * d.k)?, new.reals(d.n * d.k)?, b.alloc(d.m * d.n)?);
            let bias = bias.then(|| new.reals(d.n)).transpose()?;
            let residual = residual.then(|| new.reals(d.m * d.n)).transpose()?;
            Box::new(move || b.gemm(&mut y, &x, &w, bias.as_ref(), residual.as_ref(), d))
        }
        Verb::GemmDx(d) => {
            let (dy, w, mut dx) = (new.reals(d.m * d.n)?, new.reals(d.n * d.k)?, b.alloc(d.m * d.k)?);
            Box::new(move || b.gemm_dx(&mut dx, &dy, &w, d))
        }
        Verb::GemmDw(d) => {
            let (dy, x, mut dw) = (new.reals(d.m * d.n)?, new.reals(d.m * d.k)?, b.alloc(d.n * d.k)?);
            Box::new(move || b.gemm_dw(&mut dw, &dy, &x, d))
        }
        Verb::BiasDw(d) => {
            let (dy, mut db) = (new.reals(d.m * d.n)?, b.alloc(d.n)?);
            Box::new(move || b.bias_dw(&mut db, &dy, d))
        }
        Verb::Embed { batch, vocab, width, learned } => {
            let (layout, table) = (new.layout(batch, vocab)?, new.reals(vocab * width)?);
            let positions = learned.then(|| new.reals(batch.positions() * width)).transpose()?;
            let mut y = b.alloc(batch.rows() * width)?;
            Box::new(move || b.embed(&mut y, &table, positions.as_ref(), &layout, width))
        }
        Verb::EmbedBw { batch, vocab, width, learned } => {
            let (layout, dy) = (new.layout(batch, vocab)?, new.reals(batch.rows() * width)?);
            let mut dpositions = learned.then(|| b.alloc(batch.positions() * width)).transpose()?;
            let mut dtable = b.alloc(vocab * width)?;
            Box::new(move || b.embed_bw(Some(&mut dtable), dpositions.as_mut(), &dy, &layout, width))
        }
        Verb::RmsNorm(d) => {
            let (x, w) = (new.reals(d.rows * d.width)?, new.reals(d.width)?);
            let (mut y, mut rstd) = (b.alloc(d.rows * d.width)?, b.alloc(d.rows)?);
            Box::new(move || b.rmsnorm(&mut y, &mut rstd, &x, &w, d))
        }
        Verb::RmsNormBw(d) => {
            let (x, w, rstd) = (new.reals(d.rows * d.width)?, new.reals(d.width)?, new.accs(d.rows)?);
            let (dy, mut dx) = (new.reals(d.rows * d.width)?, new.reals(d.rows * d.width)?);
            let mut dw = b.alloc(d.width)?;
            Box::new(move || b.rmsnorm_bw(&mut dx, Some(&mut dw), &dy, &x, &rstd, &w, d))
        }
        Verb::LayerNorm(d) => {
            let (x, w, bias) = (new.reals(d.rows * d.width)?, new.reals(d.width)?, new.reals(d.width)?);
            let (mut y, mut stats) = (b.alloc(d.rows * d.width)?, b.alloc(2 * d.rows)?);
            Box::new(move || b.layernorm(&mut y, &mut stats, &x, &w, &bias, d))
        }
        Verb::LayerNormBw(d) => {
            let (x, w, stats) = (new.reals(d.rows * d.width)?, new.reals(d.width)?, new.accs(2 * d.rows)?);
            let (dy, mut dx) = (new.reals(d.rows * d.width)?, new.reals(d.rows * d.width)?);
            let (mut dw, mut db) = (b.alloc(d.width)?, b.alloc(d.width)?);
            Box::new(move || b.layernorm_bw(&mut dx, Some(&mut dw), Some(&mut db), &dy, &x, &stats, &w, d))
        }
        Verb::QkNorm { rows, heads } => {
            let x = new.reals(rows * heads.qkv_width())?;
            let (wq, wk) = (new.reals(heads.head_dim)?, new.reals(heads.head_dim)?);
            let mut y = b.alloc(rows * heads.qkv_width())?;
            let mut rstd = b.alloc(rows * (heads.heads + heads.kv_heads))?;
            Box::new(move || b.qk_norm(&mut y, &mut rstd, &x, &wq, &wk, qk_dims(rows, heads)))
        }
        Verb::QkNormBw { rows, heads } => qk_norm_bw(&mut new, rows, heads)?,
        Verb::Rope { batch, heads } => {
            let layout = new.layout(batch, 1)?;
            let angles = values(batch.positions() * heads.head_dim / 2, seed);
            let angles = angles.chunks(heads.head_dim / 2);
            let angles = angles.flat_map(|a| a.iter().map(|x| x.cos()).chain(a.iter().map(|x| x.sin())));
            let angles: Vec<B::Acc> = angles.map(B::Acc::from_f32).collect();
            let mut table = b.alloc(angles.len())?;
            b.upload(&mut table, 0, &angles);
            let mut qkv = new.reals(batch.rows() * heads.qkv_width())?;
            Box::new(move || b.rope(&mut qkv, &table, &layout.positions, batch.rows(), false, heads))
        }
        Verb::Attention { batch, heads } => {
            let (layout, qkv) = (new.layout(batch, 1)?, new.reals(batch.rows() * heads.qkv_width())?);
            let mut o = b.alloc(batch.rows() * heads.q_width())?;
            let mut lse = b.alloc(batch.rows() * heads.heads)?;
            Box::new(move || b.attention(&mut o, &mut lse, &qkv, &layout, heads, heads.scores()))
        }
        Verb::AttentionBw { batch, heads } => {
            let (layout, qkv) = (new.layout(batch, 1)?, new.reals(batch.rows() * heads.qkv_width())?);
            let mut o = b.alloc(batch.rows() * heads.q_width())?;
            let mut lse = b.alloc(batch.rows() * heads.heads)?;
            b.attention(&mut o, &mut lse, &qkv, &layout, heads, heads.scores());
            let dout = new.reals(batch.rows() * heads.q_width())?;
            let mut dqkv = b.alloc(batch.rows() * heads.qkv_width())?;
            Box::new(move || b.attention_bw(&mut dqkv, &dout, &o, &lse, &qkv, &layout, heads, heads.scores()))
        }
        Verb::AttentionCached { cached, heads } => {
            let (sequences, room) = (cached.sequences(), cached.rows() * heads.kv_width());
            let (keys, values) = (new.reals(room)?, new.reals(room)?);
            let qkv = new.reals(sequences * heads.qkv_width())?;
            let (mut o, mut runs) = (b.alloc(sequences * heads.q_width())?, b.alloc(4 * sequences)?);
            b.upload(&mut runs, 0, &cached.runs().flatten().collect::<Vec<_>>());
            Box::new(move || {
                b.attention_cached(&mut o, &qkv, &keys, &values, &runs, sequences, heads, heads.scores())
            })
        }
        Verb::KvStore { rows, heads } => {
            let (qkv, mut slots) = (new.reals(rows * heads.qkv_width())?, b.alloc(rows)?);
            b.upload(&mut slots, 0, &(0..rows as u32).collect::<Vec<_>>());
            let (mut keys, mut values) =
                (b.alloc(rows * heads.kv_width())?, b.alloc(rows * heads.kv_width())?);
            Box::new(move || b.kv_store(&mut keys, &mut values, &qkv, &slots, rows, heads))
        }
        Verb::SwiGlu { rows, width } => {
            let (x, mut y) = (new.reals(2 * rows * width)?, b.alloc(rows * width)?);
            Box::new(move || b.glu(&mut y, &x, rows, width, Activation::Silu))
        }
        Verb::SwiGluBw { rows, width } => {
            let (x, dy) = (new.reals(2 * rows * width)?, new.reals(rows * width)?);
            let mut dx = b.alloc(2 * rows * width)?;
            Box::new(move || b.glu_bw(&mut dx, &dy, &x, rows, width, Activation::Silu))
        }
        Verb::Gelu { rows, width } => {
            let (x, mut y) = (new.reals(rows * width)?, b.alloc(rows * width)?);
            Box::new(move || b.activate(&mut y, &x, rows * width, Activation::GeluTanh))
        }
        Verb::GeluBw { rows, width } => {
            let (x, dy, mut dx) =
                (new.reals(rows * width)?, new.reals(rows * width)?, b.alloc(rows * width)?);
            Box::new(move || b.activate_bw(&mut dx, &dy, &x, rows * width, Activation::GeluTanh))
        }
        Verb::Scale { rows, width } => {
            let mut y = new.reals(rows * width)?;
            // In place and again: by 1, so that nothing vanishes.
            Box::new(move || b.scale(&mut y, 1.0, rows * width))
        }
        Verb::Gather { batch, rows, width } => {
            let (x, index) = (new.reals(batch.rows() * width)?, new.indices(rows, batch.rows())?);
            let mut y = b.alloc(rows * width)?;
            Box::new(move || b.gather(&mut y, &x, &index, rows, width))
        }
        Verb::ScatterAdd { batch, rows, width } => {
            let (dy, index) = (new.reals(rows * width)?, new.indices(rows, batch.rows())?);
            let mut dx = b.alloc(batch.rows() * width)?;
            Box::new(move || b.scatter_add(&mut dx, &dy, &index, rows, width))
        }
        Verb::Sample { rows, vocab } => {
            let dims = logits_of_head(b, rows, vocab);
            // A tenth of the tokens has nearly all probability.
            let logits = new.changed(rows * dims.stride, |x| 20.0 * x * x * x)?;
            let draws = new.changed(rows, f32::abs)?;
            let (mut tokens, mut logp) = (b.alloc(rows)?, b.alloc(rows)?);
            let rules = Draw { top_p: 0.95, ..Draw::plain(0.8) };
            Box::new(move || b.sample(&mut tokens, &mut logp, &logits, &draws, rules, dims))
        }
        Verb::Penalise { rows, vocab, seen } => {
            let dims = logits_of_head(b, rows, vocab);
            let mut logits = new.reals(rows * dims.stride)?;
            let tokens = (0..rows * seen).flat_map(|i| [i / seen, i % seen * (vocab / seen)]);
            let tokens: Vec<u32> = tokens.map(|n| n as u32).collect();
            let mut pairs = b.alloc(tokens.len())?;
            b.upload(&mut pairs, 0, &tokens);
            // In place and again: by 1, so that nothing vanishes.
            Box::new(move || b.penalise(&mut logits, &pairs, rows * seen, 1.0, dims))
        }
        Verb::Blend { rows, vocab } => {
            let dims = logits_of_head(b, rows, vocab);
            let (mut logits, other) = (new.reals(rows * dims.stride)?, new.reals(rows * dims.stride)?);
            Box::new(move || b.blend(&mut logits, &other, 0.5, dims))
        }
        Verb::LogProb { rows, vocab } => {
            let dims = logits_of_head(b, rows, vocab);
            let (logits, targets) = (new.reals(rows * dims.stride)?, new.indices(rows, vocab)?);
            let mut stats = Statistics::new(b, rows)?;
            Box::new(move || b.logprob(stats.rows(), &logits, &targets, dims))
        }
        Verb::LogProbBw { rows, vocab } => {
            let dims = logits_of_head(b, rows, vocab);
            let (mut logits, targets) = (new.reals(rows * dims.stride)?, new.indices(rows, vocab)?);
            let mut stats = Statistics::new(b, rows)?;
            b.logprob(stats.rows(), &logits, &targets, dims);
            let coef = new.accs(rows)?;
            // In place: the next call takes the gradients for logits. They are small, so it computes on numbers of
            // the same kind.
            Box::new(move || b.logprob_bw(&mut logits, &stats.lse, &coef, &targets, None, dims))
        }
        Verb::SoftCap { rows, vocab } => {
            let dims = logits_of_head(b, rows, vocab);
            let mut logits = new.reals(rows * dims.stride)?;
            // In place and again: far below the cap, where little changes.
            Box::new(move || b.soft_cap(&mut logits, 30.0, dims))
        }
        Verb::Kl { rows, vocab } => {
            let dims = logits_of_head(b, rows, vocab);
            let targets = new.indices(rows, vocab)?;
            let [p, q] = [new.reals(rows * dims.stride)?, new.reals(rows * dims.stride)?];
            let [mut of_p, mut of_q] = [Statistics::new(b, rows)?, Statistics::new(b, rows)?];
            b.logprob(of_p.rows(), &p, &targets, dims);
            b.logprob(of_q.rows(), &q, &targets, dims);
            let mut kl = b.alloc(rows)?;
            Box::new(move || {
                let of = |logits, lse| Prediction { logits, lse };
                b.kl(&mut kl, of(&p, &of_p.lse), of(&q, &of_q.lse), dims);
            })
        }
        Verb::Head { batch, width, vocab } => head(&mut new, batch, width, vocab)?,
        Verb::AdamW(n) => {
            let (mut w, g, mut m, mut v) = (new.reals(n)?, new.accs(n)?, b.alloc(n)?, b.alloc(n)?);
            let mut master = Optimizer::<B>::needs_masters().then(|| new.accs(n)).transpose()?;
            let (beta1, beta2) = (0.9, 0.999);
            let hyper =
                AdamW { lr: 1e-6, beta1, beta2, eps: 1e-8, weight_decay: 0.01, step: 9, grad_scale: 1.0 };
            Box::new(move || b.adamw(&mut w, master.as_mut(), &mut m, &mut v, &g, hyper))
        }
        Verb::Rmsprop(n) => {
            let (mut w, g, mut v) = (new.reals(n)?, new.accs(n)?, b.alloc(n)?);
            let mut master = Optimizer::<B>::needs_masters().then(|| new.accs(n)).transpose()?;
            let hyper = Rmsprop { lr: 1e-6, alpha: 0.99, eps: 1e-8, weight_decay: 0.01, grad_scale: 1.0 };
            Box::new(move || b.rmsprop(&mut w, master.as_mut(), &mut v, &g, hyper))
        }
        Verb::SumSq(n) => {
            let x = new.accs(n)?;
            Box::new(move || {
                black_box(b.square_sums(&[&x])).expect("the device works");
            })
        }
        Verb::Copy(n) => {
            let (src, mut dst) = (new.reals(n)?, b.alloc(n)?);
            Box::new(move || b.copy(&mut dst, &src, n))
        }
        Verb::Zero(n) => {
            let mut buf = new.accs(n)?;
            Box::new(move || b.zero(&mut buf))
        }
    })
}

/// In place, so each call works on the result of the one before. With inputs of 1 or -1, whose mean square is 1, and
/// weights of 1 it projects, and a projection that is repeated changes nothing: no call meets numbers that earlier
/// ones made vanish or overflow.
fn qk_dims(rows: usize, heads: Heads) -> QkNorm {
    QkNorm { rows, heads, eps: 1e-6, plus_one: false, whole: false }
}

fn qk_norm_bw<'b, B: Backend>(new: &mut Inputs<'b, B>, rows: usize, heads: Heads) -> Result<Run<'b>> {
    let b = new.b;
    let x: Real<B> = new.changed(rows * heads.qkv_width(), f32::signum)?;
    let ones: Real<B> = new.changed(heads.head_dim, |_| 1.0)?;
    let rstd: Acc<B> = new.changed(rows * (heads.heads + heads.kv_heads), |_| 1.0)?;
    let mut dqkv = new.reals(rows * heads.qkv_width())?;
    let (mut dwq, mut dwk) = (b.alloc(heads.head_dim)?, b.alloc(heads.head_dim)?);
    Ok(Box::new(move || {
        b.qk_norm_bw(
            &mut dqkv,
            Some(&mut dwq),
            Some(&mut dwk),
            &x,
            &rstd,
            &ones,
            &ones,
            qk_dims(rows, heads),
        );
    }))
}

/// The head as the trainer runs it, with DPO's loss.
fn head<'b, B: Backend>(
    new: &mut Inputs<'b, B>,
    batch: Batch,
    width: usize,
    vocab: usize,
) -> Result<Run<'b>> {
    let b = new.b;
    let mut targets = Targets::default();
    let tokens = indices(batch.rows(), vocab, new.seed);
    for group in batch.groups() {
        targets.push_group(&tokens, group.into_iter().filter(|s: &Segment| s.prefix_len > 0), &[]);
    }
    let mut head = Head::new(b, width, vocab, targets.len())?;
    let hidden = new.reals(batch.rows() * width)?;
    // Logits have a variance of about 1 then, as a model's: were they larger, nearly all gradients would be zeros.
    let scale = 3.0 / (width as f32).sqrt();
    let w: Real<B> = new.changed(vocab * width, |x| x * scale)?;
    let (mut dw, mut dhidden) = (b.alloc(vocab * width)?, b.alloc(batch.rows() * width)?);
    Ok(Box::new(move || {
        b.zero(&mut dhidden);
        let objective = targets.by_response(|_, stats, slopes| {
            // The reference would say the same at the first step.
            let score = |i: usize| stats[i].score(stats[i].logp);
            let pair = sigmoid(0.1, 0.0, score(0), score(1));
            slopes.copy_from_slice(&[pair.d_chosen, pair.d_rejected]);
        });
        let done = head.loss(b, &w, &mut dw, &hidden, &mut dhidden, &targets, objective);
        black_box(done).expect("the device works");
    }))
}

/// Rows of logits as the head has them on this device.
fn logits_of_head<B: Backend>(b: &B, rows: usize, vocab: usize) -> Logits {
    Logits { rows, vocab, stride: vocab.next_multiple_of(b.portions().logits_multiple) }
}

/// Where `logprob` writes.
struct Statistics<B: Backend> {
    logp: Acc<B>,
    lse: Acc<B>,
    entropy: Acc<B>,
    mean_logit: Acc<B>,
    hit: Acc<B>,
    collision: Acc<B>,
}

impl<B: Backend> Statistics<B> {
    fn new(b: &B, rows: usize) -> Result<Self> {
        let empty = || b.alloc(rows);
        Ok(Statistics {
            logp: empty()?,
            lse: empty()?,
            entropy: empty()?,
            mean_logit: empty()?,
            hit: empty()?,
            collision: empty()?,
        })
    }

    fn rows(&mut self) -> RowStats<'_, B> {
        RowStats {
            logp: &mut self.logp,
            lse: &mut self.lse,
            entropy: &mut self.entropy,
            mean_logit: &mut self.mean_logit,
            hit: &mut self.hit,
            collision: &mut self.collision,
        }
    }
}

/// Every verb once, small: so that a test can prepare and call each on a backend that is slow.
pub fn samples() -> Vec<Verb> {
    let batch = Batch { pairs: 2, pair: Pair { prompt: 5, chosen: 4, rejected: 3 } };
    let (rows, width, vocab) = (batch.rows(), 16, 40);
    let dims = Gemm::dense(rows, 24, width);
    let norm = Norm { rows, width, eps: 1e-5, plus_one: false };
    let heads = Heads { heads: 2, kv_heads: 1, head_dim: 8 };
    let scored = batch.responses();
    vec![
        Verb::Gemm { dims, bias: true, residual: true },
        Verb::GemmDx(dims),
        Verb::GemmDw(dims),
        Verb::BiasDw(dims),
        Verb::Embed { batch, vocab, width, learned: true },
        Verb::EmbedBw { batch, vocab, width, learned: true },
        Verb::RmsNorm(norm),
        Verb::RmsNormBw(norm),
        Verb::LayerNorm(norm),
        Verb::LayerNormBw(norm),
        Verb::QkNorm { rows, heads },
        Verb::QkNormBw { rows, heads },
        Verb::Rope { batch, heads },
        Verb::Attention { batch, heads },
        Verb::AttentionBw { batch, heads },
        Verb::AttentionCached { cached: Cached { prompts: 2, samples: 3, prefix: 5, own: 4 }, heads },
        Verb::KvStore { rows, heads },
        Verb::SwiGlu { rows, width },
        Verb::SwiGluBw { rows, width },
        Verb::Gelu { rows, width },
        Verb::GeluBw { rows, width },
        Verb::Scale { rows, width },
        Verb::Gather { batch, rows: scored, width },
        Verb::ScatterAdd { batch, rows: scored, width },
        Verb::Sample { rows, vocab },
        Verb::Penalise { rows, vocab, seen: 5 },
        Verb::Blend { rows, vocab },
        Verb::LogProb { rows, vocab },
        Verb::LogProbBw { rows, vocab },
        Verb::SoftCap { rows, vocab },
        Verb::Kl { rows, vocab },
        Verb::Head { batch, width, vocab },
        Verb::AdamW(100),
        Verb::Rmsprop(100),
        Verb::SumSq(100),
        Verb::Copy(100),
        Verb::Zero(100),
    ]
}

/// Prepares every verb of [`samples`] and calls it twice.
///
/// # Panics
/// When one fails.
pub fn try_all<B: Backend>(b: &B) {
    for verb in samples() {
        let done = prepare(b, verb, 0).and_then(|mut run| {
            run();
            run();
            b.finish()
        });
        assert_eq!(done, Ok(()), "{} {verb}", verb.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_cpu::Cpu;
    use half::bf16;

    #[test]
    fn every_verb_runs_in_both_precisions() {
        try_all(&Cpu::<f32>::new(1));
        try_all(&Cpu::<bf16>::new(1));
    }

    /// A buffer longer than what is drawn has no zeros at its end.
    #[test]
    fn long_buffers_are_filled() {
        let cpu = Cpu::<f32>::new(1);
        let buf = Inputs { b: &cpu, seed: 0 }.reals(2 * DRAWN + 7).unwrap();
        assert_eq!(buf[2 * DRAWN..], buf[..7]);
        assert!(buf.iter().filter(|&&x| x == 0.0).count() < 10);
    }
}
