use crate::config::{Config, Mlp, NormKind};
use crate::family::{Family, Output};
use crate::score::{SCORE, deviation};
use duel_backend::{Backend, Blocks, Element, Float, Real, Result, Storage, Weight};

/// Name of the language model's head in every file.
pub(crate) const HEAD: &str = "lm_head.weight";

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
    /// Scalar head `[1, width]` of a reward model.
    pub score: Option<T>,
}

/// Parameters of one layer.
#[derive(Clone, Debug)]
pub struct Layer<T> {
    /// Norm before the attention.
    pub attn_norm: Norm<T>,
    /// Queries, keys and values in one product: `[heads + 2·kv_heads, head_dim]` outputs.
    pub qkv: Linear<T>,
    /// Norms of the query and key heads, `[head_dim]` each.
    pub qk_norm: Option<(T, T)>,
    /// Output of the attention.
    pub out: Linear<T>,
    /// Norm before the feed-forward.
    pub mlp_norm: Norm<T>,
    /// Gate and up in one product (SwiGLU), or up alone.
    pub up: Linear<T>,
    /// Back to the residual stream.
    pub down: Linear<T>,
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
}

/// A tensor as Hugging Face files hold it: a run of rows of one of our parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Name in the file.
    pub name: String,
    /// Rows of the parameter that it covers.
    pub rows: usize,
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
    let pieces = vec![Piece { name, rows: 1 }];
    Shape { rows: 1, cols: len, pieces, transposed: false, vector: true, fill: Some(fill) }
}

fn matrix(name: &str, rows: usize, cols: usize) -> Shape {
    let pieces = vec![Piece { name: name.into(), rows }];
    Shape { rows, cols, pieces, transposed: false, vector: false, fill: None }
}

/// A linear map whose rows come from one or several tensors `NAME.weight`, `NAME.bias`.
fn linear(parts: &[(String, usize)], inputs: usize, bias: bool, transposed: bool) -> Linear<Shape> {
    let pieces = |suffix: &str| -> Vec<Piece> {
        parts.iter().map(|(n, rows)| Piece { name: format!("{n}.{suffix}"), rows: *rows }).collect()
    };
    let rows = parts.iter().map(|p| p.1).sum();
    Linear {
        weight: Shape { rows, cols: inputs, pieces: pieces("weight"), transposed, vector: false, fill: None },
        bias: bias.then(|| Shape {
            rows,
            cols: 1,
            pieces: pieces("bias"),
            transposed: false,
            vector: true,
            fill: Some(0.0),
        }),
    }
}

impl Model<Shape> {
    /// Every parameter of the model that `config` describes: what is allocated, read and written.
    pub fn manifest(config: &Config) -> Self {
        let gpt2 = config.family == Family::Gpt2;
        let (root, block) = config.family.names();
        let norm = |name: String| Norm {
            weight: vector(format!("{name}.weight"), config.width, 1.0),
            bias: (config.norm == NormKind::Layer).then(|| vector(format!("{name}.bias"), config.width, 0.0)),
        };
        let h = config.heads;
        let layers = (0..config.layers)
            .map(|i| {
                let at = |name: &str| format!("{root}.{block}.{i}.{name}");
                let part = |name: &str, rows| (at(name), rows);
                let qkv = if gpt2 {
                    vec![part("attn.c_attn", h.qkv_width())]
                } else {
                    vec![
                        part("self_attn.q_proj", h.q_width()),
                        part("self_attn.k_proj", h.kv_width()),
                        part("self_attn.v_proj", h.kv_width()),
                    ]
                };
                let up = match config.mlp {
                    Mlp::Gelu => vec![part("mlp.c_fc", config.mlp_width)],
                    Mlp::SwiGlu => {
                        vec![part("mlp.gate_proj", config.mlp_width), part("mlp.up_proj", config.mlp_width)]
                    }
                };
                let pick = |gpt2_name, llama_name| if gpt2 { gpt2_name } else { llama_name };
                let out = [part(pick("attn.c_proj", "self_attn.o_proj"), config.width)];
                let down = [part(pick("mlp.c_proj", "mlp.down_proj"), config.width)];
                Layer {
                    attn_norm: norm(at(pick("ln_1", "input_layernorm"))),
                    qkv: linear(&qkv, config.width, config.qkv_bias, gpt2),
                    qk_norm: config.qk_norm.then(|| {
                        let head = |n: &str| vector(at(n), h.head_dim, 1.0);
                        (head("self_attn.q_norm.weight"), head("self_attn.k_norm.weight"))
                    }),
                    out: linear(&out, h.q_width(), config.out_bias, gpt2),
                    mlp_norm: norm(at(pick("ln_2", "post_attention_layernorm"))),
                    up: linear(&up, config.width, config.mlp_bias, gpt2),
                    down: linear(&down, config.mlp_width, config.mlp_bias, gpt2),
                }
            })
            .collect();
        let name = |gpt2_name: &str, llama_name: &str| {
            format!("{root}.{}", if gpt2 { gpt2_name } else { llama_name })
        };
        Model {
            embed: matrix(&name("wte.weight", "embed_tokens.weight"), config.vocab, config.width),
            positions: gpt2.then(|| matrix(&name("wpe.weight", ""), config.max_positions, config.width)),
            layers,
            norm: norm(name("ln_f", "norm")),
            head: (config.output == Output::Logits && !config.tied)
                .then(|| matrix(HEAD, config.vocab, config.width)),
            score: (config.output == Output::Score).then(|| matrix(SCORE, 1, config.width)),
        }
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
            let back = ["o_proj.weight", "down_proj.weight", "c_proj.weight"];
            let (range, scale) = match s.pieces[0].name.as_str() {
                SCORE => (deviation(config.width), 1.0),
                name if back.iter().any(|n| name.ends_with(n)) => (config.init_range, residual),
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

/// A parameter that does not change any more.
pub(crate) enum Stored<B: Backend> {
    Real(Real<B>),
    Narrow(B::Buf<B::Narrow>),
    Blocks(Blocks<B>),
}

/// A model that is only read: a reference, a model to generate from. Where the backend reads a narrower type, such as
/// bf16, a matrix whose every element that holds exactly (most published weights) is stored in it: the results are the
/// same bits. [`load_in_8bit`](crate::load_in_8bit) makes one that is rounded.
pub struct Frozen<B: Backend> {
    pub(crate) parameters: Model<Stored<B>>,
}

impl<B: Backend> Frozen<B> {
    /// Bytes that the parameters take on the device.
    pub fn bytes(&self, b: &B) -> usize {
        let bytes = |p: &Stored<B>| match p {
            Stored::Real(buf) => b.len(buf) * size_of::<B::Real>(),
            Stored::Narrow(buf) => b.len(buf) * size_of::<B::Narrow>(),
            Stored::Blocks(blocks) => {
                let (rows, cols) = blocks.dims();
                Blocks::<B>::size(rows, cols)
            }
        };
        self.parameters.iter().into_iter().map(bytes).sum()
    }
}

impl<B: Backend> Weights<B> for Frozen<B> {
    fn view(&self) -> Model<Weight<'_, B>> {
        self.parameters.as_ref().map(|p| match p {
            Stored::Real(buf) => Weight::Real(buf),
            Stored::Narrow(buf) => Weight::Narrow(buf),
            Stored::Blocks(blocks) => Weight::Blocks(blocks),
        })
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
