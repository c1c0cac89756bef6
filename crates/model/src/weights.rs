use crate::adapter::Adapter;
use crate::config::{Config, NormKind, QkNorm};
use crate::family::Output;
use crate::score::{SCORE, deviation};
use crate::tensors::{Names, Qkv};
use duel_backend::{Backend, Element, Float, Map, Real, Result, Storage, Weight};
use std::sync::Arc;

/// One thing for every parameter of a model: its shape, its weights, its gradient, a moment.
#[derive(Clone, Debug)]
pub struct Model<T> {
    /// Token embedding `[vocab, width]`.
    pub embed: T,
    /// Learned positions `[max_positions, width]`.
    pub positions: Option<T>,
    /// Layers, first to last.
    pub layers: Vec<Layer<T>>,
    /// Norm before the head.
    pub norm: Norm<T>,
    /// The language model's head `[vocab, width]`; `None` when it is the embedding, or there is a score.
    pub head: Option<T>,
    /// Bias of the language model's head `[vocab]`.
    pub head_bias: Option<T>,
    /// Scalar head `[1, width]` of a reward model.
    pub score: Option<T>,
}

/// Parameters of one layer; which norms there are is the config's [`Block`](crate::Block).
#[derive(Clone, Debug)]
pub struct Layer<T> {
    /// Norm before the attention, or before both halves.
    pub attn_norm: Option<Norm<T>>,
    /// Queries, keys and values in one product: `[heads + 2·kv_heads, head_dim]` outputs.
    pub qkv: Linear<T>,
    /// Norms of queries and of keys, `[head_dim]` each or as wide as all their heads.
    pub qk_norm: Option<(Norm<T>, Norm<T>)>,
    /// Output of the attention.
    pub out: Linear<T>,
    /// Norm of what the attention adds.
    pub attn_post: Option<Norm<T>>,
    /// Norm before the feed-forward.
    pub mlp_norm: Option<Norm<T>>,
    /// Gate and up in one product, or up alone.
    pub up: Linear<T>,
    /// Back to the residual stream.
    pub down: Linear<T>,
    /// Norm of what the feed-forward adds.
    pub mlp_post: Option<Norm<T>>,
}

/// Parameters of a norm.
#[derive(Clone, Debug)]
pub struct Norm<T> {
    /// Factor.
    pub weight: T,
    /// Offset; its presence makes the norm a LayerNorm.
    pub bias: Option<T>,
}

/// Parameters of `y = x wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear<T> {
    /// `[outputs, inputs]`.
    pub weight: T,
    /// `[outputs]`.
    pub bias: Option<T>,
    /// Low-rank maps beside some of the outputs.
    pub adapters: Vec<Adapter<T>>,
}

/// A tensor as Hugging Face files hold it: a run of rows of one of our parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Name in the file.
    pub name: String,
    /// Rows of the parameter that it covers.
    pub rows: usize,
    /// Of each of the tensor's rows the row among these that it is; `None` where they come in order. They do not where
    /// files hold heads in another way than verbs want them.
    pub places: Option<Arc<[u32]>>,
}

impl Piece {
    /// Row of the parameter, counted from the first that this covers, that row `i` of the tensor is.
    pub fn place(&self, i: usize) -> usize {
        self.places.as_ref().map_or(i, |places| places[i] as usize)
    }
}

/// Shape of a parameter, and where its content comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Outputs; 1 for a vector.
    pub rows: usize,
    /// Inputs, or the vector's length.
    pub cols: usize,
    /// The file's tensors, in order of rows.
    pub pieces: Vec<Piece>,
    /// Files hold `[cols, rows]` (GPT-2's Conv1D).
    pub transposed: bool,
    /// A vector in the files (one axis).
    pub vector: bool,
    /// Fresh value: normal with the config's deviation, or this constant.
    pub fill: Option<f64>,
}

impl Shape {
    /// Elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Axes of a tensor of `rows` of its rows in a file.
    pub(crate) fn stored(&self, rows: usize) -> Vec<usize> {
        match (self.vector, self.transposed) {
            (true, _) => vec![rows * self.cols],
            (false, false) => vec![rows, self.cols],
            (false, true) => vec![self.cols, rows],
        }
    }
    /// Whether optimizers apply weight decay by the Hugging Face rule: matrices only.
    pub fn decays(&self) -> bool {
        !self.vector
    }
}

fn vector(name: String, len: usize, fill: f64) -> Shape {
    let pieces = vec![Piece { name, rows: 1, places: None }];
    Shape { rows: 1, cols: len, pieces, transposed: false, vector: true, fill: Some(fill) }
}

fn matrix(name: String, rows: usize, cols: usize) -> Shape {
    let pieces = vec![Piece { name, rows, places: None }];
    Shape { rows, cols, pieces, transposed: false, vector: false, fill: None }
}

/// Where the elements of a query's or key's head lie of which the file's are the first, second and so on; `None` where
/// nothing moves.
fn places_in_head(c: &Config) -> Option<Vec<usize>> {
    c.rope.as_ref().and_then(|rope| rope.places(c.heads.head_dim))
}

/// A vector whose elements, where `places` are, lie in another order than the file's.
fn placed(name: String, len: usize, fill: f64, places: &Option<Vec<usize>>) -> Shape {
    let Some(places) = places else { return vector(name, len, fill) };
    let places = Some(places.iter().map(|&place| place as u32).collect());
    let pieces = vec![Piece { name, rows: len, places }];
    Shape { rows: len, cols: 1, pieces, transposed: false, vector: true, fill: Some(fill) }
}

/// Some of a linear map's outputs: a layer's name of the tensors they come from, how many they are, and
/// [`Piece::places`].
type Part = (&'static str, usize, Option<Arc<[u32]>>);

/// The tensors of queries, keys and values.
fn qkv_parts(c: &Config) -> Vec<Part> {
    let h = c.heads;
    let within = places_in_head(c);
    // Rows of `heads` heads whose elements lie elsewhere than in the file.
    let moved = |heads: usize| {
        let within = within.as_ref()?;
        Some((0..heads).flat_map(move |head| within.iter().map(move |j| (head * h.head_dim + j) as u32)))
    };
    match c.names.qkv {
        Qkv::Split([q, k, v]) => vec![
            (q, h.q_width(), moved(h.heads).map(Iterator::collect)),
            (k, h.kv_width(), moved(h.kv_heads).map(Iterator::collect)),
            (v, h.kv_width(), None),
        ],
        Qkv::Whole(name) => {
            let turned = h.heads + h.kv_heads;
            let values = (turned * h.head_dim) as u32..h.qkv_width() as u32;
            vec![(name, h.qkv_width(), moved(turned).map(|rows| rows.chain(values).collect()))]
        }
        Qkv::ByHead(name) => {
            let places = (0..h.heads).flat_map(|head| {
                let within = &within;
                (0..3).flat_map(move |kind| {
                    (0..h.head_dim).map(move |j| {
                        let j = within.as_ref().filter(|_| kind < 2).map_or(j, |within| within[j]);
                        ((kind * h.heads + head) * h.head_dim + j) as u32
                    })
                })
            });
            vec![(name, h.qkv_width(), Some(places.collect()))]
        }
    }
}

/// A linear map of layer `layer` whose rows come from one or several tensors.
fn linear(names: &Names, layer: usize, parts: &[Part], inputs: usize, bias: bool) -> Linear<Shape> {
    let rows = parts.iter().map(|part| part.1).sum();
    let shape = |suffix: &str, cols: usize, transposed: bool, vector: bool| Shape {
        rows,
        cols,
        pieces: parts
            .iter()
            .map(|(name, rows, places)| Piece {
                name: names.in_layer(layer, name, suffix),
                rows: *rows,
                places: places.clone(),
            })
            .collect(),
        transposed,
        vector,
        fill: vector.then_some(0.0),
    };
    Linear {
        weight: shape("weight", inputs, names.transposed, false),
        bias: bias.then(|| shape("bias", 1, false, true)),
        adapters: Vec::new(),
    }
}

impl Model<Shape> {
    /// Every parameter of the model that `config` describes: what is allocated, read and written.
    pub fn manifest(config: &Config) -> Self {
        let (c, names, h) = (config, config.names, config.heads);
        // What a fresh norm multiplies by is 1.
        let fill = if c.norm == NormKind::RmsPlusOne { 0.0 } else { 1.0 };
        let norm = |name: &dyn Fn(&str) -> String| Norm {
            weight: vector(name("weight"), c.width, fill),
            bias: (c.norm == NormKind::Layer).then(|| vector(name("bias"), c.width, 0.0)),
        };
        let qkv = qkv_parts(c);
        let within = places_in_head(c);
        let up = names.up.len();
        let up: Vec<Part> = names.up.iter().map(|name| (*name, c.up_width() / up, None)).collect();
        let layers = (0..c.layers)
            .map(|i| {
                let there =
                    |is: bool, name: &str| is.then(|| norm(&|suffix| names.in_layer(i, name, suffix)));
                let whole = c.qk_norm == Some(QkNorm::Whole);
                let (q, k) = if whole { (h.q_width(), h.kv_width()) } else { (h.head_dim, h.head_dim) };
                let head = |name, width| Norm {
                    weight: placed(names.in_layer(i, name, "weight"), width, fill, &within),
                    bias: (c.qk_norm == Some(QkNorm::LayerNorms))
                        .then(|| placed(names.in_layer(i, name, "bias"), width, 0.0, &within)),
                };
                Layer {
                    attn_norm: there(c.block.has_pre(), names.attn_norm),
                    qkv: linear(names, i, &qkv, c.width, c.qkv_bias),
                    qk_norm: c.qk_norm.map(|_| (head(names.q_norm, q), head(names.k_norm, k))),
                    out: linear(names, i, &[(names.out, c.width, None)], h.q_width(), c.out_bias),
                    attn_post: there(c.block.has_post(), names.attn_post),
                    mlp_norm: there(c.block.has_mlp_norm(), names.mlp_norm),
                    up: linear(names, i, &up, c.width, c.mlp_bias),
                    down: linear(names, i, &[(names.down, c.width, None)], c.mlp_width, c.mlp_bias),
                    mlp_post: there(c.block.has_post(), names.mlp_post),
                }
            })
            .collect();
        let positions = || matrix(names.outside(names.positions, "weight"), c.max_positions, c.width);
        let mut model = Model {
            embed: matrix(names.outside(names.embed, "weight"), c.vocab, c.width),
            positions: c.rope.is_none().then(positions),
            layers,
            norm: norm(&|suffix| names.outside(names.norm, suffix)),
            head: (c.output == Output::Logits && !c.tied).then(|| matrix(names.head(), c.vocab, c.width)),
            head_bias: (c.output == Output::Logits && c.head_bias)
                .then(|| vector(format!("{}.bias", names.head), c.vocab, 0.0)),
            score: (c.output == Output::Score).then(|| matrix(SCORE.into(), 1, c.width)),
        };
        if let Some(lora) = &config.lora {
            lora.adapt(&mut model);
        }
        model
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.iter().iter().map(|s| s.len()).sum()
    }

    /// Zeroed buffers of every shape, of the weights' or of the gradients' type.
    pub fn alloc<B: Storage, T: Element>(&self, b: &B) -> Result<Model<B::Buf<T>>> {
        self.as_ref().try_map(|s| b.alloc::<T>(s.len()))
    }

    /// Fresh weights: matrices normal with deviation `config.init_range` from `normal` (a standard normal source),
    /// those back into the residual stream divided by `sqrt(2·layers)` (Radford et al., 2019), a scalar head as
    /// [`crate::Folder::with_score`] draws it, vectors constant.
    pub fn init<B: Backend>(
        &self,
        b: &B,
        config: &Config,
        mut normal: impl FnMut() -> f64,
    ) -> Result<Model<Real<B>>> {
        let residual = 1.0 / (2.0 * config.layers as f64).sqrt();
        self.as_ref().try_map(|s| {
            let (range, scale) = match s.pieces[0].name.as_str() {
                SCORE => (deviation(config.width), 1.0),
                name if config.names.is_back(name) => (config.init_range, residual),
                _ => (config.init_range, 1.0),
            };
            let host: Vec<B::Real> = (0..s.len())
                .map(|_| B::Real::from_f64(s.fill.unwrap_or_else(|| normal() * range * scale)))
                .collect();
            let mut buf = b.alloc(s.len())?;
            b.upload(&mut buf, 0, &host);
            Ok(buf)
        })
    }
}

/// Weights of one owner or of several as one model's.
pub struct View<'a, B: Storage>(pub(crate) Model<Weight<'a, B>>);

impl<'a, B: Backend> View<'a, B> {
    /// All of one owner.
    pub fn of(weights: &'a impl Weights<B>) -> Self {
        View(weights.view())
    }
}

impl<B: Backend> Weights<B> for View<'_, B> {
    fn view(&self) -> Model<Weight<'_, B>> {
        self.0.as_ref().map(|weight| *weight)
    }
}

/// Weights that a forward pass reads, in whatever form they are stored.
pub trait Weights<B: Backend> {
    /// Every parameter as the verbs take it.
    fn view(&self) -> Model<Weight<'_, B>>;
}

impl<B: Backend> Weights<B> for Model<B::Buf<B::Real>> {
    fn view(&self) -> Model<Weight<'_, B>> {
        self.as_ref().map(Weight::Real)
    }
}

impl<T> Model<T> {
    /// The matrix of the language model's head, the embedding where they are one.
    ///
    /// # Panics
    /// When the model has a scalar head in its place.
    pub fn head(&self) -> &T {
        assert!(self.score.is_none(), "a reward model has no head for words");
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// As [`Model::head`], to write to.
    ///
    /// # Panics
    /// As [`Model::head`].
    pub fn head_mut(&mut self) -> &mut T {
        assert!(self.score.is_none(), "a reward model has no head for words");
        self.head.as_mut().unwrap_or(&mut self.embed)
    }

    /// The scalar head of a reward model.
    ///
    /// # Panics
    /// When the model has none.
    pub fn score(&self) -> &T {
        self.score.as_ref().expect("the model has a scalar head")
    }

    /// As [`Model::score`], to write to.
    ///
    /// # Panics
    /// As [`Model::score`].
    pub fn score_mut(&mut self) -> &mut T {
        self.score.as_mut().expect("the model has a scalar head")
    }
}

impl<'a, B: Backend> Model<Weight<'a, B>> {
    /// The language model's head, the embedding where they are one.
    ///
    /// # Panics
    /// As [`Model::head`].
    pub fn lm_head(&self) -> Map<'a, B> {
        Map { weight: *self.head(), bias: self.head_bias.map(Weight::real) }
    }
}

impl<T> Model<Option<&mut T>> {
    /// The gradients of the language model's head, of its weight and its bias.
    ///
    /// # Panics
    /// As [`Model::head`].
    pub fn lm_head_mut(&mut self) -> (Option<&mut T>, Option<&mut T>) {
        assert!(self.score.is_none(), "a reward model has no head for words");
        let bias = self.head_bias.as_mut().and_then(|bias| bias.as_deref_mut());
        (self.head.as_mut().unwrap_or(&mut self.embed).as_deref_mut(), bias)
    }
}
