//! Every buffer of a pass.

use crate::adapter::Between;
use crate::config::{Config, Turns};
use crate::rope::Rope;
use crate::weights::Model;
use duel_backend::{Acc, Float, Index, Layout, Measure, Real, Result, Segment, Storage};

/// What a pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: forward passes only.
    Nothing,
    /// The residual stream between layers; the backward computes each layer again (activation checkpointing).
    Residuals,
    /// As that, with memory for the gradients of one layer's maps, which goes down from layer to layer: for steps of a
    /// single pass whose gradients are read as they become [whole](crate::Gradients::whole), of
    /// [`Model::gradients`](crate::Model::gradients). Before the next pass, [`Activations::take_back`].
    Relay,
    /// Everything that the backward reads.
    All,
    /// Everything, in memory that a backward pass lends to gradients layer by layer: for steps of a single pass on a
    /// backend that can hand it over, with gradients of [`Model::gradients`](crate::Model::gradients). After them, and
    /// before the next pass, [`Activations::take_back`].
    Lend,
}

impl Keep {
    /// Whether no layer is computed again.
    fn whole(self) -> bool {
        matches!(self, Keep::All | Keep::Lend)
    }
}

/// What one layer's forward leaves for its backward.
pub(crate) struct Saved<B: Storage> {
    pub attn_stats: Acc<B>,
    /// Before the per-head norm, where there is one.
    pub raw: Option<(Real<B>, Acc<B>)>,
    pub qkv: Real<B>,
    pub attended: Real<B>,
    pub lse: Acc<B>,
    /// What the attention adds, before the norm of that, where there is one.
    pub attn_branch: Option<Branch<B>>,
    pub middle: Real<B>,
    pub mlp_stats: Acc<B>,
    pub up: Real<B>,
    /// The same of the feed-forward.
    pub mlp_branch: Option<Branch<B>>,
}

/// What a norm at the end of a branch read, and its statistics.
pub(crate) struct Branch<B: Storage> {
    pub raw: Real<B>,
    pub stats: Acc<B>,
}

/// Gradients of intermediate results: what only the backward needs.
pub(crate) struct Flow<B: Storage> {
    pub stream: Real<B>,
    pub normed: Real<B>,
    pub qkv: Real<B>,
    pub attended: Real<B>,
    pub up: Real<B>,
}

/// What every layer uses in its turn.
pub(crate) struct Scratch<B: Storage> {
    pub normed: Real<B>,
    pub act: Real<B>,
    /// Within adapters.
    pub between: Between<B>,
    /// Positions that there are at most.
    pub positions: usize,
    /// Cosines and sines of the positions, which stay as they are: [`Turns::Rope`]'s, and [`Turns::LocalRope`]'s.
    pub ropes: [Acc<B>; 2],
    /// Where rows are found in them, where that is not by their positions alone.
    pub places: Option<Places<B>>,
}

/// Rows of a table that has those of long sequences behind those of short ones.
pub(crate) struct Places<B: Storage> {
    rows: Index<B>,
    host: Vec<u32>,
    /// Tokens of the longest short sequence.
    original: usize,
    /// Rows of each kind.
    positions: usize,
}

impl<B: Storage> Places<B> {
    /// Of rows at these positions, and whether each is of a long sequence.
    fn set(&mut self, b: &B, rows: impl Iterator<Item = (usize, bool)>) {
        let of_long = |long| if long { self.positions } else { 0 };
        self.host.clear();
        self.host.extend(rows.map(|(position, long)| (position + of_long(long)) as u32));
        b.upload(&mut self.rows, 0, &self.host);
    }

    /// Of a packed pass. A prompt's keys are those of all its responses, so the longest decides for the group. `more`
    /// tokens follow each sequence that are not in the pass.
    pub fn set_packed(&mut self, b: &B, segments: &[Segment], more: usize) {
        let original = self.original;
        let group = |s: &[Segment]| s.iter().any(|s| s.prefix_len + s.len + more > original);
        let groups = segments.chunk_by(|_, next| next.prefix_len > 0);
        let rows = groups.flat_map(|of_group| {
            let long = group(of_group);
            of_group.iter().flat_map(move |s| (s.prefix_len..s.prefix_len + s.len).map(move |p| (p, long)))
        });
        self.set(b, rows);
    }

    /// Of rows that each go on with a sequence in a cache: a short one never becomes long.
    pub fn set_rows(&mut self, b: &B, positions: &[u32]) {
        let original = self.original;
        self.set(b, positions.iter().map(|&p| (p as usize, p as usize >= original)));
    }
}

impl<B: Storage> Scratch<B> {
    /// Rows of [`Scratch::rope`]'s tables.
    pub fn places<'a>(&'a self, layout: &'a Layout<B>) -> &'a Index<B> {
        self.places.as_ref().map_or(&layout.positions, |places| &places.rows)
    }

    /// Cosines and sines of layers of this kind, where they turn.
    pub fn rope(&self, turns: Turns) -> Option<&Acc<B>> {
        match turns {
            Turns::Not => None,
            Turns::Rope => Some(&self.ropes[0]),
            Turns::LocalRope => Some(&self.ropes[1]),
        }
    }
}

/// Every buffer of a pass, allocated once for the largest micro-batch. Made on [`duel_backend::Measure`] it is the plan
/// of its memory.
///
/// Layer `l` keeps its intermediate results in `saved[l % saved.len()]` and its input in
/// `residuals[l % residuals.len()]`: their lengths are the whole policy of what is kept.
pub struct Activations<B: Storage> {
    /// Final hidden states `[rows, width]`, normed: the input of the head.
    pub hidden: Real<B>,
    /// Gradient of [`Activations::hidden`], filled by the loss.
    pub dhidden: Real<B>,
    max_rows: usize,
    /// Elements of the buffers that lend their memory.
    pub(crate) lender_lens: [usize; 4],
    pub(crate) residuals: Vec<Real<B>>,
    pub(crate) saved: Vec<Saved<B>>,
    pub(crate) stats: Acc<B>,
    pub(crate) scratch: Scratch<B>,
    pub(crate) flow: Option<Flow<B>>,
}

impl<B: Storage> Activations<B> {
    /// Buffers for up to `max_rows` rows whose positions stay below `max_positions`.
    pub fn new(b: &B, c: &Config, max_rows: usize, max_positions: usize, keep: Keep) -> Result<Self> {
        let (rows, h) = (max_rows, c.heads);
        let stats = |n: usize| b.alloc::<B::Acc>(2 * n);
        let branch = || -> Result<Option<Branch<B>>> {
            let new = || Ok(Branch { raw: b.alloc(rows * c.width)?, stats: stats(rows)? });
            c.block.has_post().then(new).transpose()
        };
        let lender_lens = lender_lens::<B>(c, rows, keep);
        let saved = |layer| -> Result<Saved<B>> {
            // Below the lowest layer there is nobody to lend to.
            let [up, qkv, attended, middle] = match layer {
                0 => activation_lens(c, rows),
                _ => lender_lens,
            };
            Ok(Saved {
                attn_stats: stats(rows)?,
                raw: match c.qk_norm {
                    Some(_) => Some((b.alloc(rows * h.qkv_width())?, stats(rows * (h.heads + h.kv_heads))?)),
                    None => None,
                },
                qkv: b.alloc(qkv)?,
                attended: b.alloc(attended)?,
                lse: b.alloc(rows * h.heads)?,
                attn_branch: branch()?,
                middle: b.alloc(middle)?,
                mlp_stats: stats(rows)?,
                up: b.alloc(up)?,
                mlp_branch: branch()?,
            })
        };
        let rope = |rope: &Option<Rope>| -> Result<Acc<B>> {
            let table = rope.iter().flat_map(|rope| rope.table(h.head_dim, max_positions));
            let table: Vec<B::Acc> = table.map(B::Acc::from_f64).collect();
            let mut buf = b.alloc(table.len())?;
            b.upload(&mut buf, 0, &table);
            Ok(buf)
        };
        let original = c.longest_short().filter(|n| *n < max_positions);
        let places = original.map(|original| -> Result<_> {
            Ok(Places {
                rows: b.alloc(rows)?,
                host: Vec::with_capacity(rows),
                original,
                positions: max_positions,
            })
        });
        let residuals = if keep == Keep::Nothing { 2 } else { c.layers + 1 };
        let (dhidden, flow) = gradients(b, c, rows, keep)?;
        Ok(Activations {
            hidden: b.alloc(rows * c.width)?,
            dhidden,
            max_rows,
            lender_lens,
            residuals: (0..residuals).map(|_| b.alloc(rows * c.width)).collect::<Result<_>>()?,
            saved: (0..if keep.whole() { c.layers } else { 1 }).map(saved).collect::<Result<_>>()?,
            stats: stats(rows)?,
            scratch: Scratch {
                normed: b.alloc(rows * c.width)?,
                act: b.alloc(rows * c.mlp_width)?,
                between: Between::new(b, &Model::manifest(c), rows, keep != Keep::Nothing)?,
                positions: max_positions,
                ropes: [rope(&c.rope)?, rope(&c.local_rope)?],
                places: places.transpose()?,
            },
            flow,
        })
    }

    /// How many of the bytes that [`Activations::new`] allocates are gradients.
    pub fn gradient_bytes(c: &Config, max_rows: usize, keep: Keep) -> usize {
        Measure::<B>::bytes(|b| gradients(b, c, max_rows, keep))
    }

    /// Lets adapters drop inputs of the passes from now on, by two words a row of the next layout; `None`: they keep
    /// all. Which are dropped depends on a row's words, the adapter and the input alone.
    pub fn drop_by(&mut self, b: &B, keys: Option<&[u32]>) {
        self.scratch.between.drop_by(b, keys);
    }

    /// Most rows of a micro-batch.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }
}

/// Elements of the gradients that take over memory: of the maps up, down, to queries, keys and values, and out. So they
/// are in falling order, as are the activations whose memory it is: large ones fall to large ones.
pub(crate) fn gradient_lens(c: &Config) -> [usize; 4] {
    [c.up_width(), c.mlp_width, c.heads.qkv_width(), c.heads.q_width()].map(|n| n * c.width)
}

/// Elements that a pass of `rows` rows fills of [`Saved`]'s `up`, `qkv`, `attended` and `middle`.
fn activation_lens(c: &Config, rows: usize) -> [usize; 4] {
    [c.up_width(), c.heads.qkv_width(), c.heads.q_width(), c.width].map(|n| rows * n)
}

/// The same with room for the gradients, where `keep` has them lent.
fn lender_lens<B: Storage>(c: &Config, rows: usize, keep: Keep) -> [usize; 4] {
    let (mut lens, gradients) = (activation_lens(c, rows), gradient_lens(c));
    if keep == Keep::Lend {
        for (len, gradient) in lens.iter_mut().zip(gradients) {
            *len = (*len).max((gradient * size_of::<B::Acc>()).div_ceil(size_of::<B::Real>()));
        }
    }
    lens
}

/// That of the hidden states, and those that flow down the layers; empty where nothing is kept for them.
fn gradients<B: Storage>(b: &B, c: &Config, rows: usize, keep: Keep) -> Result<(Real<B>, Option<Flow<B>>)> {
    if keep == Keep::Nothing {
        return Ok((b.alloc(0)?, None));
    }
    let flow = Flow {
        stream: b.alloc(rows * c.width)?,
        normed: b.alloc(rows * c.width)?,
        qkv: b.alloc(rows * c.heads.qkv_width())?,
        attended: b.alloc(rows * c.heads.q_width())?,
        up: b.alloc(rows * c.up_width())?,
    };
    Ok((b.alloc(rows * c.width)?, Some(flow)))
}
