//! Norms of rows and of heads.

use crate::grid::{elements_a_thread, narrow, team_grid};
use crate::reduce::rows_a_block;
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Heads, Norm, Norms, QkNorm};
use duel_kernels::{norm_bytes, norm_sums_bytes, sys};

const NO_LAYERNORM: &str =
    "there are no kernels for a LayerNorm of heads: `Norms::LAYERNORMS_OF_HEADS` says so";

/// Where a backward kernel puts its sums over rows, and how it is launched.
struct RowsOfBlocks {
    /// A row of sums for every block.
    partials: *mut f32,
    /// Room for the blocks' running sums, or null where they are in shared memory.
    sums: *mut f32,
    /// Rows of a block.
    rows: u32,
    grid: Grid,
}

/// A grid of a team for every row.
fn forward_grid<R>(rows: usize, width: usize) -> Grid {
    team_grid::<R>(rows, width).with_shared(sys::ROW_SUM_BYTES)
}

/// What is added to the weights of an RMSNorm.
fn one(plus_one: bool) -> f32 {
    f32::from(u8::from(plus_one))
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// Calls `launch` to sum gradients of `N` weights over `rows` rows, and adds the sums to those of `dw` that are
    /// there.
    fn sum_over_rows<const N: usize>(
        &self,
        dw: [Option<&mut Buf<D, f32>>; N],
        rows: usize,
        width: usize,
        launch: impl FnOnce(RowsOfBlocks),
    ) {
        let rows_a_block = rows_a_block(rows);
        let parts = rows.div_ceil(rows_a_block);
        let count = elements_a_thread::<R>(width);
        let grid = team_grid::<R>(1, width);
        let packs = width.div_ceil(grid.threads[0] as usize * count);
        let [arrays, packs, count] = [N, packs, count].map(narrow);
        let in_shared = norm_bytes(arrays, packs, count) as usize <= self.properties.max_shared;
        let shared = if in_shared { norm_bytes(arrays, packs, count) } else { sys::ROW_SUM_BYTES };
        let block_bytes = norm_sums_bytes(arrays, packs, count) as usize;
        let partials_bytes = N * parts * width * size_of::<f32>();
        let scratch = partials_bytes + if in_shared { 0 } else { parts * block_bytes };
        self.with_scratch(scratch, |address| {
            let partials: *mut f32 = address.cast();
            let after = address.wrapping_byte_add(partials_bytes).cast();
            launch(RowsOfBlocks {
                partials,
                sums: if in_shared { std::ptr::null_mut() } else { after },
                rows: narrow(rows_a_block),
                grid: Grid { blocks: [narrow(parts), 1, 1], ..grid }.with_shared(shared),
            });
            self.add_partials(dw, partials, parts, width);
        });
    }
}

/// The heads that kernels take each alone: all at once are one.
fn heads_of(dims: QkNorm) -> Heads {
    let Heads { heads, kv_heads, .. } = dims.heads;
    if !dims.whole {
        return dims.heads;
    }
    assert_eq!(heads, kv_heads, "kernels normalise as many keys as queries at once");
    Heads { heads: 1, kv_heads: 1, head_dim: dims.heads.q_width() }
}

impl<D: Driver, R: CudaReal> Norms for Cuda<D, R> {
    fn add(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, len: usize) {
        if len == 0 {
            return;
        }
        let params = sys::AddParams { y: self.write(y, len), x: self.read(x, len), len: len as u64 };
        // SAFETY: the kernel takes AddParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "add"), self.flat_grid(len), &params) };
    }

    fn rmsnorm(&self, y: &mut Buf<D, R>, rstd: &mut Buf<D, f32>, x: &Buf<D, R>, w: &Buf<D, R>, dims: Norm) {
        let Norm { rows, width, eps, plus_one } = dims;
        if rows == 0 {
            return;
        }
        let params = sys::RmsnormParams {
            y: self.write(y, rows * width),
            rstd: self.write(rstd, rows).cast(),
            x: self.read(x, rows * width),
            w: self.read(w, width),
            rows: narrow(rows),
            width: narrow(width),
            eps: eps as f32,
            one: one(plus_one),
        };
        // SAFETY: the kernel takes RmsnormParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "rmsnorm"), forward_grid::<R>(rows, width), &params) };
    }

    fn rmsnorm_bw(
        &self,
        dx: &mut Buf<D, R>,
        dw: Option<&mut Buf<D, f32>>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        rstd: &Buf<D, f32>,
        w: &Buf<D, R>,
        dims: Norm,
    ) {
        let Norm { rows, width, plus_one, .. } = dims;
        if rows * width == 0 {
            return;
        }
        self.sum_over_rows([dw], rows, width, |blocks| {
            let params = sys::RmsnormBwParams {
                dx: self.write(dx, rows * width),
                partials: blocks.partials,
                sums: blocks.sums,
                dy: self.read(dy, rows * width),
                x: self.read(x, rows * width),
                rstd: self.read(rstd, rows).cast(),
                w: self.read(w, width),
                rows: narrow(rows),
                width: narrow(width),
                rows_a_block: blocks.rows,
                one: one(plus_one),
            };
            // SAFETY: the kernel takes RmsnormBwParams; `write` and `read` checked the buffers against its shapes, and
            // `sum_over_rows` made room for its sums.
            unsafe { self.launch(kernel!(R, "rmsnorm_bw"), blocks.grid, &params) };
        });
    }

    fn layernorm(
        &self,
        y: &mut Buf<D, R>,
        stats: &mut Buf<D, f32>,
        x: &Buf<D, R>,
        w: &Buf<D, R>,
        b: &Buf<D, R>,
        dims: Norm,
    ) {
        let Norm { rows, width, eps, .. } = dims;
        if rows == 0 {
            return;
        }
        let params = sys::LayernormParams {
            y: self.write(y, rows * width),
            stats: self.write(stats, 2 * rows).cast(),
            x: self.read(x, rows * width),
            w: self.read(w, width),
            b: self.read(b, width),
            rows: narrow(rows),
            width: narrow(width),
            eps: eps as f32,
        };
        // SAFETY: the kernel takes LayernormParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "layernorm"), forward_grid::<R>(rows, width), &params) };
    }

    fn layernorm_bw(
        &self,
        dx: &mut Buf<D, R>,
        dw: Option<&mut Buf<D, f32>>,
        db: Option<&mut Buf<D, f32>>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        stats: &Buf<D, f32>,
        w: &Buf<D, R>,
        dims: Norm,
    ) {
        let Norm { rows, width, .. } = dims;
        if rows * width == 0 {
            return;
        }
        self.sum_over_rows([dw, db], rows, width, |blocks| {
            let params = sys::LayernormBwParams {
                dx: self.write(dx, rows * width),
                partials: blocks.partials,
                sums: blocks.sums,
                dy: self.read(dy, rows * width),
                x: self.read(x, rows * width),
                stats: self.read(stats, 2 * rows).cast(),
                w: self.read(w, width),
                rows: narrow(rows),
                width: narrow(width),
                rows_a_block: blocks.rows,
            };
            // SAFETY: the kernel takes LayernormBwParams; `write` and `read` checked the buffers against its shapes,
            // and `sum_over_rows` made room for its sums.
            unsafe { self.launch(kernel!(R, "layernorm_bw"), blocks.grid, &params) };
        });
    }

    fn qk_norm(
        &self,
        y: &mut Buf<D, R>,
        rstd: &mut Buf<D, f32>,
        x: &Buf<D, R>,
        wq: &Buf<D, R>,
        wk: &Buf<D, R>,
        dims: QkNorm,
    ) {
        let (QkNorm { rows, eps, plus_one, .. }, dims) = (dims, heads_of(dims));
        let (normed, len) = (dims.heads + dims.kv_heads, rows * dims.qkv_width());
        if len == 0 {
            return;
        }
        let params = sys::QkNormParams {
            y: self.write(y, len),
            rstd: self.write(rstd, rows * normed).cast(),
            x: self.read(x, len),
            wq: self.read(wq, dims.head_dim),
            wk: self.read(wk, dims.head_dim),
            rows: narrow(rows),
            heads: narrow(dims.heads),
            kv_heads: narrow(dims.kv_heads),
            head_dim: narrow(dims.head_dim),
            eps: eps as f32,
            one: one(plus_one),
        };
        let heads = rows * (normed + dims.kv_heads);
        narrow(heads); // the kernel counts them
        let grid = forward_grid::<R>(heads, dims.head_dim);
        // SAFETY: the kernel takes QkNormParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "qk_norm"), grid, &params) };
    }

    fn qk_norm_bw(
        &self,
        dqkv: &mut Buf<D, R>,
        dwq: Option<&mut Buf<D, f32>>,
        dwk: Option<&mut Buf<D, f32>>,
        x: &Buf<D, R>,
        rstd: &Buf<D, f32>,
        wq: &Buf<D, R>,
        wk: &Buf<D, R>,
        dims: QkNorm,
    ) {
        let (QkNorm { rows, plus_one, .. }, dims) = (dims, heads_of(dims));
        let (normed, len) = (dims.heads + dims.kv_heads, rows * dims.qkv_width());
        if len == 0 {
            return;
        }
        narrow(rows * normed); // the kernel counts them
        self.sum_over_rows([dwq, dwk], rows, dims.head_dim, |blocks| {
            let params = sys::QkNormBwParams {
                dqkv: self.write(dqkv, len),
                partials: blocks.partials,
                sums: blocks.sums,
                x: self.read(x, len),
                rstd: self.read(rstd, rows * normed).cast(),
                wq: self.read(wq, dims.head_dim),
                wk: self.read(wk, dims.head_dim),
                rows: narrow(rows),
                heads: narrow(dims.heads),
                kv_heads: narrow(dims.kv_heads),
                head_dim: narrow(dims.head_dim),
                rows_a_block: blocks.rows,
                one: one(plus_one),
            };
            // SAFETY: the kernel takes QkNormBwParams; `write` and `read` checked the buffers against its shapes, and
            // `sum_over_rows` made room for its sums.
            unsafe { self.launch(kernel!(R, "qk_norm_bw"), blocks.grid, &params) };
        });
    }

    fn qk_layernorm(
        &self,
        _: &mut Buf<D, R>,
        _: &mut Buf<D, f32>,
        _: &Buf<D, R>,
        _: [&Buf<D, R>; 2],
        _: [&Buf<D, R>; 2],
        _: QkNorm,
    ) {
        panic!("{NO_LAYERNORM}");
    }

    fn qk_layernorm_bw(
        &self,
        _: &mut Buf<D, R>,
        _: [Option<&mut Buf<D, f32>>; 2],
        _: [Option<&mut Buf<D, f32>>; 2],
        _: &Buf<D, R>,
        _: &Buf<D, f32>,
        _: [&Buf<D, R>; 2],
        _: QkNorm,
    ) {
        panic!("{NO_LAYERNORM}");
    }
}
