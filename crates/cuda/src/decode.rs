//! Attention over a cache of keys and values.

use crate::attention::assert_known;
use crate::grid::narrow;
use crate::variants::{grouped, launch_of};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Decode, Heads, Scores};
use duel_kernels::{cached_bytes, sys};

impl<D: Driver, R: CudaReal> Decode for Cuda<D, R> {
    fn kv_store(
        &self,
        keys: &mut Buf<D, R>,
        values: &mut Buf<D, R>,
        qkv: &Buf<D, R>,
        slots: &Buf<D, u32>,
        rows: usize,
        dims: Heads,
    ) {
        if rows == 0 {
            return;
        }
        let cache_rows = keys.len().min(values.len()) / dims.kv_width();
        let params = sys::KvStoreParams {
            keys: self.write(keys, cache_rows * dims.kv_width()),
            values: self.write(values, cache_rows * dims.kv_width()),
            qkv: self.read(qkv, rows * dims.qkv_width()),
            slots: self.read(slots, rows).cast(),
            rows: narrow(rows),
            q_width: narrow(dims.q_width()),
            kv_width: narrow(dims.kv_width()),
            cache_rows: narrow(cache_rows),
        };
        // SAFETY: the kernel takes KvStoreParams; `write` and `read` checked the buffers, the kernel checks the slots.
        unsafe { self.launch(kernel!(R, "kv_store"), self.rows_grid(rows, 2 * dims.kv_width()), &params) };
    }

    fn attention_cached(
        &self,
        o: &mut Buf<D, R>,
        qkv: &Buf<D, R>,
        keys: &Buf<D, R>,
        values: &Buf<D, R>,
        runs: &Buf<D, u32>,
        rows: usize,
        dims: Heads,
        scores: Scores,
    ) {
        if rows == 0 {
            return;
        }
        assert_known(scores);
        let widest = sys::ATTENTION_WIDEST;
        assert!(
            narrow(dims.head_dim) <= widest,
            "attention with heads of width {}, over {widest}",
            dims.head_dim
        );
        let cache_rows = keys.len().min(values.len()) / dims.kv_width();
        let params = sys::AttentionCachedParams {
            o: self.write(o, rows * dims.q_width()),
            qkv: self.read(qkv, rows * dims.qkv_width()),
            keys: self.read(keys, cache_rows * dims.kv_width()),
            values: self.read(values, cache_rows * dims.kv_width()),
            runs: self.read(runs, 4 * rows).cast(),
            heads: narrow(dims.heads),
            kv_heads: narrow(dims.kv_heads),
            head_dim: narrow(dims.head_dim),
            cache_rows: narrow(cache_rows),
            scale: scores.scale as f32,
        };
        let (kernel, grid) = match grouped(R::DTYPE, dims.head_dim) {
            Some(kernel) => {
                let strips = (dims.heads / dims.kv_heads).div_ceil(sys::ATTENTION_CACHED_HEADS as usize);
                let (threads, shared) = launch_of(kernel);
                (kernel, Grid::linear(rows * dims.kv_heads * strips, threads).with_shared(shared))
            }
            None => {
                let grid = Grid::linear(rows * dims.heads, sys::ATTENTION_CACHED_THREADS);
                (kernel!(R, "attention_cached"), grid.with_shared(cached_bytes(narrow(dims.head_dim))))
            }
        };
        // SAFETY: the kernel takes AttentionCachedParams; `write` and `read` checked the buffers, the kernel checks
        // that the runs are of the caches.
        unsafe { self.launch(kernel, grid, &params) };
    }
}
