//! Which tensors a file has, and which rows of the model's parameters each is.

use crate::arch::{Arch, Rows};
use crate::kind::{Kind, Outtype};
use duel_backend::Heads;
use duel_model::{Config, Linear, Model, Norm, NormKind, Shape};

/// A tensor of a file.
pub(crate) struct Tensor<'m> {
    pub name: String,
    pub kind: Kind,
    /// The parameter that it is of.
    pub shape: &'m Shape,
    /// Of each of its rows, the parameter's.
    pub rows: Vec<usize>,
    /// Added to every number.
    pub plus: f32,
}

impl Tensor<'_> {
    /// Columns first; a vector has one.
    pub(crate) fn dims(&self) -> Vec<u64> {
        let (rows, cols) = (self.rows.len() as u64, self.shape.cols as u64);
        if self.shape.vector { vec![rows * cols] } else { vec![cols, rows] }
    }

    /// Numbers.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() * self.shape.cols
    }
}

/// All tensors of a model, in the order of the file.
pub(crate) fn tensors<'m>(
    model: &'m Model<Shape>,
    c: &Config,
    arch: &Arch,
    outtype: Outtype,
) -> Vec<Tensor<'m>> {
    let plus = if c.norm == NormKind::RmsPlusOne { 1.0 } else { 0.0 };
    let mut list = List { all: Vec::new(), heads: c.heads, rows: arch.rows, outtype, plus };
    list.matrix("token_embd.weight", &model.embed);
    if let Some(positions) = &model.positions {
        list.whole("position_embd.weight".into(), positions, Kind::F32, 0.0);
    }
    for (l, layer) in model.layers.iter().enumerate() {
        let named = |name: &str| format!("blk.{l}.{name}");
        let norms = [("attn_norm", &layer.attn_norm), ("post_attention_norm", &layer.attn_post)];
        norms.into_iter().for_each(|(name, norm)| list.norm(&named(name), norm.as_ref()));
        list.linear(l, &["attn_qkv"], &["attn_q", "attn_k", "attn_v"], &layer.qkv);
        if let Some((q, k)) = &layer.qk_norm {
            list.norm(&named("attn_q_norm"), Some(q));
            list.norm(&named("attn_k_norm"), Some(k));
        }
        list.linear(l, &["attn_output"], &[], &layer.out);
        let norms = [("ffn_norm", &layer.mlp_norm), ("post_ffw_norm", &layer.mlp_post)];
        norms.into_iter().for_each(|(name, norm)| list.norm(&named(name), norm.as_ref()));
        list.linear(l, &["ffn_up"], &["ffn_gate", "ffn_up"], &layer.up);
        list.linear(l, &["ffn_down"], &[], &layer.down);
    }
    list.norm("output_norm", Some(&model.norm));
    match &model.head {
        Some(head) => list.matrix("output.weight", head),
        None if arch.copies_head() => list.matrix("output.weight", &model.embed),
        None => {}
    }
    if let Some(bias) = &model.head_bias {
        list.whole("output.bias".into(), bias, Kind::F32, 0.0);
    }
    list.all
}

struct List<'m> {
    all: Vec<Tensor<'m>>,
    heads: Heads,
    rows: Rows,
    outtype: Outtype,
    /// Added to what norms multiply by.
    plus: f32,
}

impl<'m> List<'m> {
    fn whole(&mut self, name: String, shape: &'m Shape, kind: Kind, plus: f32) {
        let rows = (0..shape.rows).collect();
        self.all.push(Tensor { name, kind, shape, rows, plus });
    }

    fn matrix(&mut self, name: &str, shape: &'m Shape) {
        self.whole(name.into(), shape, self.outtype.of_matrix(shape.cols), 0.0);
    }

    fn norm(&mut self, name: &str, norm: Option<&'m Norm<Shape>>) {
        let Some(Norm { weight, bias }) = norm else { return };
        self.whole(format!("{name}.weight"), weight, Kind::F32, self.plus);
        if let Some(bias) = bias {
            self.whole(format!("{name}.bias"), bias, Kind::F32, 0.0);
        }
    }

    /// A map of a layer, in one tensor of the name `one` or several of the names `parts`, as transformers has it.
    fn linear(&mut self, layer: usize, one: &[&str], parts: &[&str], map: &'m Linear<Shape>) {
        let names = if map.weight.pieces.len() == 1 { one } else { parts };
        let kind = self.outtype.of_matrix(map.weight.cols);
        let tensors = [(Some(&map.weight), "weight", kind), (map.bias.as_ref(), "bias", Kind::F32)];
        for (shape, suffix, kind) in tensors {
            let Some(shape) = shape else { continue };
            let mut first = 0;
            for (piece, part) in shape.pieces.iter().zip(names) {
                let stored = |i: usize| first + piece.place(i);
                let rows = (0..piece.rows).map(|row| stored(self.row_of_stored(part, row))).collect();
                let name = format!("blk.{layer}.{part}.{suffix}");
                self.all.push(Tensor { name, kind, shape, rows, plus: 0.0 });
                first += piece.rows;
            }
        }
    }

    /// Row of the tensor that transformers has that row `row` of a part of a map is.
    fn row_of_stored(&self, part: &str, row: usize) -> usize {
        let Heads { heads, head_dim, .. } = self.heads;
        match (self.rows, part) {
            (Rows::Pairs, "attn_q" | "attn_k") => {
                let (head, element) = (row / head_dim, row % head_dim);
                head * head_dim + element % 2 * (head_dim / 2) + element / 2
            }
            (Rows::ByKind, "attn_qkv") => {
                let (kind, row) = (row / (heads * head_dim), row % (heads * head_dim));
                let (head, element) = (row / head_dim, row % head_dim);
                (head * 3 + kind) * head_dim + element
            }
            _ => row,
        }
    }
}
