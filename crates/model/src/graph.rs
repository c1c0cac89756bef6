//! The transformer, forward and backward.

use crate::activations::Activations;
use crate::config::Config;
use crate::gradients::Gradients;
use crate::layer::{Attend, CacheRows, KeysValues, Reach, layer_backward, layer_forward, norm_dims};
use crate::lend::{hand_on, lend};
use crate::linear::{norm, norm_bw};
use crate::weights::{Model, Weights};
use duel_backend::{Backend, Layout, Weight};

/// Runs the model over a packed micro-batch: `a.hidden` receives the final hidden states of every row.
///
/// # Panics
/// When the layout has more rows than the activations have room for.
pub fn forward<B: Backend>(
    b: &B,
    c: &Config,
    w: &impl Weights<B>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
) {
    if let Some(places) = &mut a.scratch.places {
        places.set_packed(b, &layout.segments, 0);
    }
    run(b, c, &w.view(), layout, a, Attend::Packed);
}

/// The same with a cache of a part a layer, given where rows are found in the tables of positions. A pass that fills
/// the cache leaves no hidden states.
pub(crate) fn run<B: Backend>(
    b: &B,
    c: &Config,
    w: &Model<Weight<'_, B>>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
    mut attend: Attend<(&mut [KeysValues<B>], &CacheRows<B>)>,
) {
    assert!(layout.rows <= a.max_rows(), "more rows than the activations have room for");
    b.embed(&mut a.residuals[0], w.embed, w.positions.map(Weight::real), layout, c.width);
    if let Some(scale) = c.embed_scale {
        b.scale(&mut a.residuals[0], scale.of::<B::Real>(), layout.rows * c.width);
    }
    let streams = a.residuals.len();
    let kept = a.saved.len();
    let filling = matches!(attend, Attend::Stored(_));
    for (l, layer) in w.layers.iter().enumerate() {
        let (x, y) = pair(&mut a.residuals, l % streams, (l + 1) % streams);
        let y = (l + 1 < w.layers.len() || !filling).then_some(y);
        let attend = attend.part(|(cache, at)| (&mut cache[l], *at));
        layer_forward(b, c, l, layer, x, y, &mut a.saved[l % kept], &mut a.scratch, layout, attend);
    }
    if filling {
        return;
    }
    let last = &a.residuals[w.layers.len() % streams];
    norm(b, &mut a.hidden, &mut a.stats, last, &w.norm, norm_dims(c, layout.rows));
    if let Some(factor) = c.hidden_scale {
        b.scale(&mut a.hidden, factor, layout.rows * c.width);
    }
}

/// Adds the gradients of a micro-batch, given `a.dhidden`, to those of `grads` that are there. Follows a [`forward`] of
/// the same layout and weights, which may be frozen where nothing is trained. What no gradient needs is not computed:
/// nothing runs below the lowest parameter that has one.
///
/// # Panics
/// When the activations were made for forward passes only.
pub fn backward<B: Backend>(
    b: &B,
    c: &Config,
    w: &impl Weights<B>,
    grads: &mut impl Gradients<B>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
) {
    backward_pass(b, c, w, grads, layout, a, false);
}

/// [`backward`], of passes over the same gradients the `last` or not: in it they hear [which are
/// whole](Gradients::whole).
///
/// # Panics
/// As [`backward`].
pub fn backward_pass<B: Backend>(
    b: &B,
    c: &Config,
    w: &impl Weights<B>,
    grads: &mut impl Gradients<B>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
    last: bool,
) {
    let Some(f) = &mut a.flow else { panic!("these activations were allocated for forward passes only") };
    let (w, g) = (w.view(), grads.view());
    let kept = a.saved.len();
    let input = g.embed.is_some() || g.positions.flatten().is_some();
    let reaches: Vec<Option<Reach>> = g.layers.iter().map(Reach::of).collect();
    let lowest = if input { Some(0) } else { reaches.iter().position(Option::is_some) };
    if lowest.is_none() && g.norm.weight.is_none() && g.norm.bias.as_ref().is_none_or(Option::is_none) {
        return;
    }
    if let Some(factor) = c.hidden_scale {
        b.scale(&mut a.dhidden, factor, layout.rows * c.width);
    }
    b.zero(&mut f.stream);
    let top = &a.residuals[w.layers.len()];
    norm_bw(b, &mut f.stream, g.norm, &a.dhidden, top, &a.stats, &w.norm, norm_dims(c, layout.rows));
    let Some(lowest) = lowest else { return };
    for (l, layer) in w.layers.iter().enumerate().skip(lowest).rev() {
        let mut grad = grads.view().layers.swap_remove(l);
        if let Some(above) = a.saved.get_mut(l + 1) {
            lend(b, c, above, &mut grad);
        }
        let (x, saved) = (&a.residuals[l], &mut a.saved[l % kept]);
        if kept < w.layers.len() {
            layer_forward(b, c, l, layer, x, None, saved, &mut a.scratch, layout, Attend::Packed);
        }
        let own = reaches[l].filter(|_| l == lowest && !input);
        let reach = own.unwrap_or(Reach::Below);
        layer_backward(b, c, l, layer, grad, reach, x, saved, f, &mut a.scratch, layout);
        if last {
            grads.whole(b, l);
        }
        // Where everything is kept, activations give what is needed.
        if kept < w.layers.len() && l > lowest {
            hand_on(b, grads, l, l - 1);
        }
    }
    if input {
        if let Some(scale) = c.embed_scale {
            b.scale(&mut f.stream, scale.of::<B::Real>(), layout.rows * c.width);
        }
        let g = grads.view();
        b.embed_bw(g.embed, g.positions.flatten(), &f.stream, layout, c.width);
    }
}

/// Element `i` to read and element `j` to write.
fn pair<T>(all: &mut [T], i: usize, j: usize) -> (&T, &mut T) {
    assert_ne!(i, j);
    if i < j {
        let (a, b) = all.split_at_mut(j);
        (&a[i], &mut b[0])
    } else {
        let (a, b) = all.split_at_mut(i);
        (&b[0], &mut a[j])
    }
}
