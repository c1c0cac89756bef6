//! A model's parameters as a tree: borrowed, changed to something else, listed in one order.

use crate::adapter::Adapter;
use crate::weights::{Layer, Linear, Model, Norm};
use std::convert::Infallible;
use std::result::Result;

impl<T> Norm<T> {
    fn as_ref(&self) -> Norm<&T> {
        Norm { weight: &self.weight, bias: self.bias.as_ref() }
    }

    fn as_mut(&mut self) -> Norm<&mut T> {
        Norm { weight: &mut self.weight, bias: self.bias.as_mut() }
    }

    fn map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<Norm<U>, E> {
        Ok(Norm { weight: f(self.weight)?, bias: self.bias.map(f).transpose()? })
    }
}

impl<T> Linear<T> {
    fn as_ref(&self) -> Linear<&T> {
        let adapters = self.adapters.iter().map(|x| Adapter { part: x.part, a: &x.a, b: &x.b }).collect();
        Linear { weight: &self.weight, bias: self.bias.as_ref(), adapters }
    }

    fn as_mut(&mut self) -> Linear<&mut T> {
        let all = self.adapters.iter_mut();
        let adapters = all.map(|x| Adapter { part: x.part, a: &mut x.a, b: &mut x.b }).collect();
        Linear { weight: &mut self.weight, bias: self.bias.as_mut(), adapters }
    }

    fn map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<Linear<U>, E> {
        let (weight, bias) = (f(self.weight)?, self.bias.map(&mut *f).transpose()?);
        let adapter = |Adapter { part, a, b }| Ok(Adapter { part, a: f(a)?, b: f(b)? });
        Ok(Linear {
            weight,
            bias,
            adapters: self.adapters.into_iter().map(adapter).collect::<Result<_, E>>()?,
        })
    }
}

impl<T> Layer<T> {
    /// Its maps.
    pub(crate) fn maps(&self) -> [&Linear<T>; 4] {
        [&self.qkv, &self.out, &self.up, &self.down]
    }

    /// As [`Layer::maps`], to write to.
    pub(crate) fn maps_mut(&mut self) -> [&mut Linear<T>; 4] {
        [&mut self.qkv, &mut self.out, &mut self.up, &mut self.down]
    }

    pub(crate) fn as_ref(&self) -> Layer<&T> {
        Layer {
            attn_norm: self.attn_norm.as_ref().map(Norm::as_ref),
            qkv: self.qkv.as_ref(),
            qk_norm: self.qk_norm.as_ref().map(|(q, k)| (q.as_ref(), k.as_ref())),
            out: self.out.as_ref(),
            attn_post: self.attn_post.as_ref().map(Norm::as_ref),
            mlp_norm: self.mlp_norm.as_ref().map(Norm::as_ref),
            up: self.up.as_ref(),
            down: self.down.as_ref(),
            mlp_post: self.mlp_post.as_ref().map(Norm::as_ref),
        }
    }

    fn as_mut(&mut self) -> Layer<&mut T> {
        Layer {
            attn_norm: self.attn_norm.as_mut().map(Norm::as_mut),
            qkv: self.qkv.as_mut(),
            qk_norm: self.qk_norm.as_mut().map(|(q, k)| (q.as_mut(), k.as_mut())),
            out: self.out.as_mut(),
            attn_post: self.attn_post.as_mut().map(Norm::as_mut),
            mlp_norm: self.mlp_norm.as_mut().map(Norm::as_mut),
            up: self.up.as_mut(),
            down: self.down.as_mut(),
            mlp_post: self.mlp_post.as_mut().map(Norm::as_mut),
        }
    }

    fn map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<Layer<U>, E> {
        Ok(Layer {
            attn_norm: self.attn_norm.map(|n| n.map(f)).transpose()?,
            qkv: self.qkv.map(f)?,
            qk_norm: match self.qk_norm {
                Some((q, k)) => Some((q.map(f)?, k.map(f)?)),
                None => None,
            },
            out: self.out.map(f)?,
            attn_post: self.attn_post.map(|n| n.map(f)).transpose()?,
            mlp_norm: self.mlp_norm.map(|n| n.map(f)).transpose()?,
            up: self.up.map(f)?,
            down: self.down.map(f)?,
            mlp_post: self.mlp_post.map(|n| n.map(f)).transpose()?,
        })
    }

    /// Its parameters, in the order of [`Model::into_vec`].
    pub(crate) fn into_vec(self) -> Vec<T> {
        let mut all = Vec::new();
        let Ok(_) = self.map(&mut |p| {
            all.push(p);
            Ok::<(), Infallible>(())
        });
        all
    }
}

impl<T> Model<T> {
    /// The same model of references.
    pub fn as_ref(&self) -> Model<&T> {
        Model {
            embed: &self.embed,
            positions: self.positions.as_ref(),
            layers: self.layers.iter().map(Layer::as_ref).collect(),
            norm: self.norm.as_ref(),
            head: self.head.as_ref(),
            head_bias: self.head_bias.as_ref(),
            score: self.score.as_ref(),
        }
    }

    /// The same model of references to write to.
    pub fn as_mut(&mut self) -> Model<&mut T> {
        Model {
            embed: &mut self.embed,
            positions: self.positions.as_mut(),
            layers: self.layers.iter_mut().map(Layer::as_mut).collect(),
            norm: self.norm.as_mut(),
            head: self.head.as_mut(),
            head_bias: self.head_bias.as_mut(),
            score: self.score.as_mut(),
        }
    }

    /// The same model with `f` of every parameter, in one fixed order: embedding, positions, layers, norm, head, its
    /// bias, score.
    ///
    /// # Errors
    /// The first that `f` has.
    pub fn try_map<U, E>(self, mut f: impl FnMut(T) -> Result<U, E>) -> Result<Model<U>, E> {
        let f = &mut f;
        Ok(Model {
            embed: f(self.embed)?,
            positions: self.positions.map(&mut *f).transpose()?,
            layers: self.layers.into_iter().map(|l| l.map(f)).collect::<Result<_, E>>()?,
            norm: self.norm.map(f)?,
            head: self.head.map(&mut *f).transpose()?,
            head_bias: self.head_bias.map(&mut *f).transpose()?,
            score: self.score.map(f).transpose()?,
        })
    }

    /// As [`Model::try_map`], with an `f` that cannot fail.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Model<U> {
        let Ok(model) = self.try_map(|p| Ok::<U, Infallible>(f(p)));
        model
    }

    /// Every parameter, in the order of [`Model::try_map`].
    pub fn into_vec(self) -> Vec<T> {
        let mut all = Vec::new();
        self.map(|p| all.push(p));
        all
    }

    /// As [`Model::into_vec`], to read.
    pub fn iter(&self) -> Vec<&T> {
        self.as_ref().into_vec()
    }

    /// As [`Model::into_vec`], to write to.
    pub fn iter_mut(&mut self) -> Vec<&mut T> {
        self.as_mut().into_vec()
    }
}

impl<T> Linear<Option<T>> {
    /// Whether a gradient that is there is made of the map's input.
    pub(crate) fn reads_input(&self) -> bool {
        self.weight.is_some() || self.adapters.iter().any(|adapter| adapter.a.is_some())
    }

    /// Whether anything of it is trained.
    pub(crate) fn is_trained(&self) -> bool {
        self.reads_input() || matches!(self.bias, Some(Some(_)))
    }
}
