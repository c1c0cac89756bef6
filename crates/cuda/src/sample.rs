//! Tokens drawn from rows of logits.

use crate::grid::{THREADS, narrow};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Draw, Logits, Sample};
use duel_kernels::sys;

const _: () = assert!(Draw::NONE == sys::SAMPLE_NONE);

impl<D: Driver, R: CudaReal> Sample for Cuda<D, R> {
    fn blend(
        &self,
        logits: &mut Buf<D, R>,
        other: &Buf<D, R>,
        m: f64,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        if dims.is_empty() {
            return;
        }
        let params = sys::BlendParams {
            logits: self.write(logits, dims.len()),
            other: self.read(other, dims.len()),
            vocab: narrow(vocab),
            stride: narrow(stride),
            m: m as f32,
        };
        // SAFETY: the kernel takes BlendParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "blend"), Grid::linear(rows, sys::SAMPLE_THREADS), &params) };
    }

    fn penalise(
        &self,
        logits: &mut Buf<D, R>,
        seen: &Buf<D, u32>,
        pairs: usize,
        penalty: f64,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        if pairs == 0 {
            return;
        }
        let params = sys::PenaliseParams {
            logits: self.write(logits, dims.len()),
            seen: self.read(seen, 2 * pairs).cast(),
            pairs: narrow(pairs),
            rows: narrow(rows),
            vocab: narrow(vocab),
            stride: narrow(stride),
            penalty: penalty as f32,
        };
        let grid = Grid::linear(self.blocks_for(pairs.div_ceil(THREADS)), sys::ROW_THREADS);
        // SAFETY: the kernel takes PenaliseParams; `write` and `read` checked the buffers, the kernel checks that the
        // pairs are of the logits.
        unsafe { self.launch(kernel!(R, "penalise"), grid, &params) };
    }

    fn sample(
        &self,
        tokens: &mut Buf<D, u32>,
        logp: &mut Buf<D, f32>,
        logits: &Buf<D, R>,
        draws: &Buf<D, f32>,
        rules: Draw,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        if rows == 0 {
            return;
        }
        assert!(vocab > 0, "a draw from nothing");
        let params = sys::SampleParams {
            tokens: self.write(tokens, rows).cast(),
            logp: self.write(logp, rows).cast(),
            logits: self.read(logits, dims.len()),
            draws: self.read(draws, rows).cast(),
            vocab: narrow(vocab),
            stride: narrow(stride),
            greedy: u32::from(rules.temperature == 0.0),
            top_k: narrow(rules.kept_by_rank(vocab).unwrap_or(vocab)),
            factor: rules.factor() as f32,
            top_p: rules.top_p as f32,
            least: Draw::LEAST as f32,
            min_p: rules.min_p as f32,
        };
        let grid = Grid::linear(rows, sys::SAMPLE_THREADS).with_shared(sys::SAMPLE_BYTES);
        // SAFETY: the kernel takes SampleParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "sample"), grid, &params) };
    }
}
