//! What a block of queries and a tile of keys make of each other, in a kernel's tiles; what masks hide is left out.

use super::kernel::{BLOCK, KEYS, Kernel, Left, Mask, Product, STRIDE, State};
use crate::real::Scalar;

/// Columns `from..from + width` of a result and the loop that makes them.
struct Panel<S> {
    from: usize,
    width: usize,
    product: Product<S>,
}

impl<S: Scalar> Kernel<S> {
    /// The columns of a tile.
    pub fn columns(&self) -> usize {
        2 * self.lanes
    }

    /// Width of the rows of a head in whole registers.
    pub fn width(&self, head_dim: usize) -> usize {
        head_dim.next_multiple_of(self.lanes)
    }

    fn panels(&self, width: usize) -> impl Iterator<Item = Panel<S>> {
        (0..width).step_by(self.columns()).map(move |from| match width - from > self.lanes {
            true => Panel { from, width: self.columns(), product: self.wide },
            false => Panel { from, width: self.lanes, product: self.narrow },
        })
    }

    /// `s[m, len] = x · yᵀ` for `m` rows of `x`, `width` apart, and the keys of a tile, packed in `panels` of
    /// [`Kernel::columns`] keys, depth first.
    pub fn scores(
        &self,
        s: &mut [S],
        x: &[S],
        width: usize,
        panels: &[S],
        depth: usize,
        m: usize,
        mask: Mask,
    ) {
        let columns = self.columns();
        assert!(m <= BLOCK && mask.len <= KEYS && depth <= width, "a block and a tile");
        assert!(
            s.len() >= BLOCK * STRIDE && x.len() >= m.next_multiple_of(self.rows) * width,
            "too few rows"
        );
        assert!(panels.len() >= mask.len.next_multiple_of(columns) * depth, "too few keys");
        for j in (0..mask.len).step_by(columns) {
            let (first, until) = (mask.first(j), mask.until(j + columns - 1, m));
            for i in (first - first % self.rows..until).step_by(self.rows) {
                // SAFETY: whole tiles lie in the buffers (asserted): BLOCK and KEYS are multiples of their sides.
                unsafe {
                    let a = Left { at: x.as_ptr().add(i * width), row: width, step: 1 };
                    let b = panels.as_ptr().add(j * depth);
                    (self.wide)(depth, a, b, columns, s.as_mut_ptr().add(i * STRIDE + j), STRIDE, false);
                }
            }
        }
    }

    /// Scores to weights `exp(scale · (s - top))`, zero where masked; `state` goes on by them, and `out[m, width]` is
    /// corrected to the new `top`.
    pub fn softmax(
        &self,
        s: &mut [S],
        out: &mut [S],
        width: usize,
        state: State<S>,
        scale: S,
        m: usize,
        mask: Mask,
    ) {
        assert!(m <= BLOCK && mask.len <= KEYS && s.len() >= BLOCK * STRIDE, "a block and a tile");
        assert!(out.len() >= m * width && width.is_multiple_of(self.lanes), "whole registers");
        // SAFETY: the rows lie in the buffers (asserted); the state is a slice.
        unsafe { (self.softmax)(m, s.as_mut_ptr(), mask, scale, state, out.as_mut_ptr(), width) };
    }

    /// Scores to weights `p = exp(scale · p - lse)`, and `dp`, the products of values with the output's gradient, to
    /// `p · (dp - delta) · scale`, both zero where masked.
    pub fn gradient(
        &self,
        p: &mut [S],
        dp: &mut [S],
        lse: &[S],
        delta: &[S],
        scale: S,
        m: usize,
        mask: Mask,
    ) {
        assert!(m <= BLOCK && mask.len <= KEYS, "a block and a tile");
        assert!(p.len() >= BLOCK * STRIDE && dp.len() >= BLOCK * STRIDE, "too few rows");
        // SAFETY: the rows lie in the buffers (asserted).
        unsafe { (self.gradient)(m, p.as_mut_ptr(), dp.as_mut_ptr(), mask, scale, lse, delta) };
    }

    /// `out[m, width] += s[m, len] · y` for the keys of a tile, from packed row `at` on of the `y.len() / width` that
    /// lie in panels of [`Kernel::columns`] columns.
    pub fn weighted(&self, out: &mut [S], width: usize, s: &[S], y: &[S], at: usize, m: usize, mask: Mask) {
        let rows = y.len() / width;
        assert!(m <= BLOCK && mask.len <= KEYS && s.len() >= BLOCK * STRIDE, "a block and a tile");
        assert!(at + mask.len <= rows && out.len() >= m.next_multiple_of(self.rows) * width, "too few rows");
        assert!(width.is_multiple_of(self.lanes), "whole registers");
        for c in self.panels(width) {
            for i in (0..m).step_by(self.rows) {
                let (from, end) = (mask.hidden(i), mask.seen((i + self.rows).min(m) - 1));
                if from >= end {
                    continue;
                }
                let depth = end - from;
                // SAFETY: whole tiles lie in the buffers (asserted).
                unsafe {
                    let a = Left { at: s.as_ptr().add(i * STRIDE + from), row: STRIDE, step: 1 };
                    let b = y.as_ptr().add(c.from * rows + (at + from) * c.width);
                    (c.product)(depth, a, b, c.width, out.as_mut_ptr().add(i * width + c.from), width, true);
                }
            }
        }
    }

    /// `out[len, width] += s[m, len]ᵀ · x[m, width]`.
    pub fn collect(&self, out: &mut [S], width: usize, s: &[S], x: &[S], m: usize, mask: Mask) {
        assert!(m <= BLOCK && mask.len <= KEYS && s.len() >= BLOCK * STRIDE, "a block and a tile");
        assert!(x.len() >= m * width, "too few queries");
        assert!(out.len() >= mask.len.next_multiple_of(self.rows) * width, "too few keys");
        assert!(width.is_multiple_of(self.lanes), "whole registers");
        for c in self.panels(width) {
            for j in (0..mask.len).step_by(self.rows) {
                let (first, until) = (mask.first(j), mask.until(j + self.rows - 1, m));
                if first >= until {
                    continue;
                }
                // SAFETY: whole tiles lie in the buffers (asserted), and behind a row's keys there is room.
                unsafe {
                    let a = Left { at: s.as_ptr().add(first * STRIDE + j), row: 1, step: STRIDE };
                    let b = x.as_ptr().add(first * width + c.from);
                    let to = out.as_mut_ptr().add(j * width + c.from);
                    (c.product)(until - first, a, b, width, to, width, true);
                }
            }
        }
    }
}
