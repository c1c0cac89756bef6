//! The log-softmax over the vocabulary.

use crate::grid::narrow;
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{LogProbs, Logits, Prediction, RowStats};
use duel_kernels::{logprob_bytes, sys};

/// Loads of 16 bytes that a thread does for its row before the row gets more threads.
const PACKS_A_THREAD: usize = 4;

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// A block for each row, its threads by the vocabulary, with room for what its warps know of their logits.
    fn vocab_grid(rows: usize, vocab: usize) -> Grid {
        let packs = vocab.div_ceil(16 / size_of::<R>());
        let threads = packs.div_ceil(PACKS_A_THREAD).next_power_of_two();
        let threads = narrow(threads).clamp(sys::LOGPROB_LEAST_THREADS, sys::LOGPROB_THREADS);
        Grid::linear(rows, threads).with_shared(logprob_bytes(threads))
    }
}

impl<D: Driver, R: CudaReal> LogProbs for Cuda<D, R> {
    fn logprob(
        &self,
        out: RowStats<'_, Self>,
        logits: &Buf<D, R>,
        targets: &Buf<D, u32>,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        if rows == 0 {
            return;
        }
        assert!(vocab > 0, "a softmax over nothing");
        let params = sys::LogprobParams {
            logits: self.read(logits, dims.len()),
            targets: self.read(targets, rows).cast(),
            logp: self.write(out.logp, rows).cast(),
            lse: self.write(out.lse, rows).cast(),
            entropy: self.write(out.entropy, rows).cast(),
            mean_logit: self.write(out.mean_logit, rows).cast(),
            hit: self.write(out.hit, rows).cast(),
            collision: self.write(out.collision, rows).cast(),
            vocab: narrow(vocab),
            stride: narrow(stride),
        };
        // SAFETY: the kernel takes LogprobParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "logprob"), Self::vocab_grid(rows, vocab), &params) };
    }

    fn soft_cap(&self, logits: &mut Buf<D, R>, cap: f64, dims @ Logits { rows, vocab, stride }: Logits) {
        if dims.is_empty() {
            return;
        }
        let params = sys::SoftCapParams {
            logits: self.write(logits, dims.len()),
            vocab: narrow(vocab),
            stride: narrow(stride),
            cap: cap as f32,
            inverse: (1.0 / cap) as f32,
        };
        // SAFETY: the kernel takes SoftCapParams; `write` checked the buffer against its shape.
        unsafe { self.launch(kernel!(R, "soft_cap"), Self::vocab_grid(rows, vocab), &params) };
    }

    fn logprob_bw(
        &self,
        logits: &mut Buf<D, R>,
        lse: &Buf<D, f32>,
        coef: &Buf<D, f32>,
        targets: &Buf<D, u32>,
        cap: Option<f64>,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        if dims.is_empty() {
            return;
        }
        let params = sys::LogprobBwParams {
            logits: self.write(logits, dims.len()),
            lse: self.read(lse, rows).cast(),
            coef: self.read(coef, rows).cast(),
            targets: self.read(targets, rows).cast(),
            vocab: narrow(vocab),
            stride: narrow(stride),
            inverse: cap.map_or(0.0, |cap| (1.0 / cap) as f32),
        };
        // SAFETY: the kernel takes LogprobBwParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "logprob_bw"), Self::vocab_grid(rows, vocab), &params) };
    }

    fn kl(
        &self,
        kl: &mut Buf<D, f32>,
        p: Prediction<'_, Self>,
        q: Prediction<'_, Self>,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        if rows == 0 {
            return;
        }
        let params = sys::KlParams {
            kl: self.write(kl, rows).cast(),
            p: self.read(p.logits, dims.len()),
            p_lse: self.read(p.lse, rows).cast(),
            q: self.read(q.logits, dims.len()),
            q_lse: self.read(q.lse, rows).cast(),
            vocab: narrow(vocab),
            stride: narrow(stride),
        };
        // SAFETY: the kernel takes KlParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "kl"), Self::vocab_grid(rows, vocab), &params) };
    }
}
