//! Gradients in memory that others have used up. In a step that is a single pass a layer's gradients begin where the
//! layer above has read what its forward kept, or where its gradients were read.

use crate::activations::{Activations, Keep, Saved, gradient_lens};
use crate::config::Config;
use crate::gradients::Gradients;
use crate::weights::{Layer, Model, Shape};
use duel_backend::{Acc, Backend, Real, Result, Storage};

/// Of a layer the gradients that take over memory: those of its maps, in the order of [`gradient_lens`].
fn takers<T>(g: &mut Layer<T>) -> [&mut T; 4] {
    [&mut g.up.weight, &mut g.down.weight, &mut g.qkv.weight, &mut g.out.weight]
}

/// What the layer above gives each of [`takers`].
fn lenders<B: Storage>(s: &mut Saved<B>) -> [&mut Real<B>; 4] {
    [&mut s.up, &mut s.qkv, &mut s.attended, &mut s.middle]
}

/// Gives a layer's gradients that have no memory that of the layer above, zeroed.
pub(crate) fn lend<B: Backend>(b: &B, c: &Config, above: &mut Saved<B>, g: &mut Layer<Option<&mut Acc<B>>>) {
    for ((taker, lender), len) in takers(g).into_iter().zip(lenders(above)).zip(gradient_lens(c)) {
        if let Some(taker) = taker.as_mut().filter(|taker| b.len(taker) == 0) {
            b.hand_over(taker, lender, len);
            b.zero(taker);
        }
    }
}

/// Gives gradients that have no memory, of layer `to`, that of layer `from`, zeroed.
pub(crate) fn hand_on<B: Backend>(b: &B, grads: &mut impl Gradients<B>, from: usize, to: usize) {
    let mut layers = grads.view().layers;
    let Ok([from, to]) = layers.get_disjoint_mut([from, to]) else { return };
    for (from, to) in takers(from).into_iter().zip(takers(to)) {
        let (Some(from), Some(to)) = (from, to) else { continue };
        if b.len(to) == 0 {
            b.hand_over(to, from, b.len(from));
            b.zero(to);
        }
    }
}

impl<B: Backend> Activations<B> {
    /// Takes back what a backward pass lent to `grads`, which are empty then: the next forward pass needs it. What went
    /// from layer to layer goes back to the highest.
    pub fn take_back(&mut self, b: &B, grads: &mut impl Gradients<B>) {
        if self.saved.len() == 1 {
            hand_on(b, grads, 0, self.residuals.len() - 2);
        }
        let above = self.saved.iter_mut().skip(1);
        for (saved, mut g) in above.zip(grads.view().layers) {
            let pairs = takers(&mut g).into_iter().zip(lenders(saved));
            for ((taker, lender), len) in pairs.zip(self.lender_lens) {
                if let Some(taker) = taker.as_mut().filter(|_| b.len(lender) < len) {
                    b.hand_over(lender, taker, len);
                }
            }
        }
    }
}

impl Model<Shape> {
    /// Zeroed gradients of every shape, without the memory that [`Keep::Lend`] and [`Keep::Relay`] have a backward pass
    /// give them.
    ///
    /// # Errors
    /// The device has no room.
    pub fn gradients<B: Storage>(&self, b: &B, keep: Keep) -> Result<Model<Acc<B>>> {
        let mut lens = self.as_ref().map(Shape::len);
        let below = self.layers.len().saturating_sub(1);
        let lent =
            lens.layers.iter_mut().take(if matches!(keep, Keep::Lend | Keep::Relay) { below } else { 0 });
        lent.flat_map(takers).for_each(|len| *len = 0);
        lens.try_map(|len| b.alloc(len))
    }
}
