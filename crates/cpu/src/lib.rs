#![doc = include_str!("../README.md")]

mod attention;
mod gemm;
mod head;
mod norm;
mod pointwise;
mod real;
mod simd;
mod sync;

use duel_backend::{
    AdamW, Attention, Backend, Decode, Element, Error, FeedForward, Gather, Gemm, Heads, Layout, LogProbs,
    Logits, Memory, Norm, Norms, Products, Repetition, Result, Rmsprop, RowStats, Storage, Update, Weight,
};
use gemm::{HasKernel, Init, Operand, Shape};
use half::bf16;
pub use real::{Real, Scalar};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use sync::Pool;

/// The CPU backend, with weights and activations stored as `R`.
///
/// `Cpu<f32>` is the default device, `Cpu<f64>` the reference for gradient checks, `Cpu<bf16>` a yardstick of
/// rounding: it stores bf16 and sums in f32.
pub struct Cpu<R = f32> {
    pool: Pool,
    real: PhantomData<R>,
}

impl<R: Real> Cpu<R> {
    /// A backend on `threads` threads; 0 means one for each core. Results do not depend on the number.
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Cpu { pool: Pool::new(if threads == 0 { cores() } else { threads }), real: PhantomData }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `f` on a thread of the backend's pool. Verbs called from there start without a hand-over between
    /// threads, which is worth it for small models; the results are the same.
    pub fn install<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.pool.install(f)
    }
}

/// The instruction set that the kernels run on here, for reports.
pub fn instruction_set() -> &'static str {
    match simd::isa() {
        simd::Isa::Avx512 => "AVX-512",
        simd::Isa::Avx2 => "AVX2",
        simd::Isa::Baseline => "baseline",
    }
}

fn dense<T>(data: &[T], cols: usize) -> Operand<'_, T> {
    Operand { data, rs: cols, cs: 1 }
}

fn transposed<T>(data: &[T], cols: usize) -> Operand<'_, T> {
    Operand { data, rs: 1, cs: cols }
}

impl<R: Real> Storage for Cpu<R> {
    type Real = R;
    type Narrow = bf16;
    type Acc = R::Acc;
    type Buf<T: Element> = Vec<T>;

    fn memory(&self) -> Memory {
        Memory { free: available_memory(), peak: None }
    }

    fn alloc<T: Element>(&self, len: usize) -> Result<Vec<T>> {
        let mut buf = Vec::new();
        buf.try_reserve_exact(len)
            .map_err(|_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
        // Touched by all threads: the system clears pages as they are touched, which is slow on one.
        self.pool.parts(buf.spare_capacity_mut(), len, |_, part| part.fill(MaybeUninit::new(T::default())));
        // SAFETY: the first `len` elements were just written.
        unsafe { buf.set_len(len) };
        Ok(buf)
    }

    fn len<T: Element>(&self, buf: &Vec<T>) -> usize {
        buf.len()
    }

    fn upload<T: Element>(&self, dst: &mut Vec<T>, offset: usize, src: &[T]) {
        dst[offset..offset + src.len()].copy_from_slice(src);
    }

    fn download<T: Element>(&self, dst: &mut [T], src: &Vec<T>, offset: usize) -> Result<()> {
        dst.copy_from_slice(&src[offset..offset + dst.len()]);
        Ok(())
    }

    fn host_bytes<'a, T: Element>(&self, buf: &'a Vec<T>) -> Option<&'a [u8]> {
        // SAFETY: an `Element` is plain data without padding; the bytes are borrowed as long as the elements.
        let bytes =
            unsafe { std::slice::from_raw_parts(buf.as_ptr().cast::<u8>(), size_of_val(buf.as_slice())) };
        cfg!(target_endian = "little").then_some(bytes)
    }

    fn copy<T: Element>(&self, dst: &mut Vec<T>, src: &Vec<T>, len: usize) {
        self.pool.parts(dst, len, |from, dst| dst.copy_from_slice(&src[from..from + dst.len()]));
    }

    fn zero<T: Element>(&self, buf: &mut Vec<T>) {
        let len = buf.len();
        self.pool.parts(buf, len, |_, part| part.fill(T::default()));
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

impl<R: Real> Repetition for Cpu<R> {
    type Recording = ();
}

impl<R: Real> Products for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn gemm<'w>(
        &self,
        y: &mut Vec<R>,
        x: &Vec<R>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Vec<R>>,
        residual: Option<&Vec<R>>,
        Gemm { m, n, k, stride }: Gemm,
    ) {
        let init = Init::Add(bias.map(Vec::as_slice), residual.map(Vec::as_slice));
        let shape = Shape { m, n, k, ldc: stride };
        match w.into() {
            Weight::Real(w) => gemm::gemm(&self.pool, shape, y, dense(x, k), dense(w, k), init),
            Weight::Narrow(w) => gemm::gemm(&self.pool, shape, y, dense(x, k), dense(w, k), init),
        }
    }

    fn gemm_dx(&self, dx: &mut Vec<R>, dy: &Vec<R>, w: &Vec<R>, Gemm { m, n, k, stride }: Gemm) {
        let shape = Shape { m, n: k, k: n, ldc: k };
        gemm::gemm(&self.pool, shape, dx, dense(dy, stride), transposed(w, k), Init::Zero);
    }

    fn gemm_dw(&self, dw: &mut Vec<R::Acc>, dy: &Vec<R>, x: &Vec<R>, Gemm { m, n, k, stride }: Gemm) {
        let shape = Shape { m: n, n: k, k: m, ldc: k };
        gemm::gemm(&self.pool, shape, dw, transposed(dy, stride), transposed(x, k), Init::Keep);
    }

    fn bias_dw(&self, db: &mut Vec<R::Acc>, dy: &Vec<R>, d: Gemm) {
        d.assert_dense();
        norm::bias_dw(&self.pool, db, dy, d.m, d.n);
    }
}

impl<R: Real> Gather for Cpu<R> {
    fn embed<'w>(
        &self,
        y: &mut Vec<R>,
        table: impl Into<Weight<'w, Self>>,
        pos_table: Option<&Vec<R>>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        let (ids, rows) = (&layout.tokens, layout.rows);
        match table.into() {
            Weight::Real(table) => pointwise::gather(&self.pool, y, table, ids, rows, width),
            Weight::Narrow(table) => pointwise::gather_up(&self.pool, y, table, ids, rows, width),
        }
        if let Some(table) = pos_table {
            pointwise::add_gathered(&self.pool, y, table, &layout.positions, rows, width);
        }
    }

    fn embed_bw(
        &self,
        dtable: &mut Vec<R::Acc>,
        dpos_table: Option<&mut Vec<R::Acc>>,
        dy: &Vec<R>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        pointwise::scatter_up(&self.pool, dtable, dy, &layout.tokens, layout.rows, width);
        if let Some(dpos) = dpos_table {
            pointwise::scatter_up(&self.pool, dpos, dy, &layout.positions, layout.rows, width);
        }
    }

    fn gather(&self, y: &mut Vec<R>, x: &Vec<R>, index: &Vec<u32>, rows: usize, width: usize) {
        pointwise::gather(&self.pool, y, x, index, rows, width);
    }

    fn scatter_add(&self, dx: &mut Vec<R>, dy: &Vec<R>, index: &Vec<u32>, rows: usize, width: usize) {
        pointwise::scatter_add(&self.pool, dx, dy, index, rows, width);
    }
}

impl<R: Real> Norms for Cpu<R> {
    fn rmsnorm(&self, y: &mut Vec<R>, rstd: &mut Vec<R::Acc>, x: &Vec<R>, w: &Vec<R>, dims: Norm) {
        norm::rmsnorm(&self.pool, y, rstd, x, w, dims);
    }

    fn rmsnorm_bw(
        &self,
        dx: &mut Vec<R>,
        dw: &mut Vec<R::Acc>,
        dy: &Vec<R>,
        x: &Vec<R>,
        rstd: &Vec<R::Acc>,
        w: &Vec<R>,
        dims: Norm,
    ) {
        norm::rmsnorm_bw(&self.pool, dx, dw, dy, x, rstd, w, dims);
    }

    fn layernorm(
        &self,
        y: &mut Vec<R>,
        stats: &mut Vec<R::Acc>,
        x: &Vec<R>,
        w: &Vec<R>,
        b: &Vec<R>,
        dims: Norm,
    ) {
        norm::layernorm(&self.pool, y, stats, x, w, b, dims);
    }

    fn layernorm_bw(
        &self,
        dx: &mut Vec<R>,
        dw: &mut Vec<R::Acc>,
        db: &mut Vec<R::Acc>,
        dy: &Vec<R>,
        x: &Vec<R>,
        stats: &Vec<R::Acc>,
        w: &Vec<R>,
        dims: Norm,
    ) {
        norm::layernorm_bw(&self.pool, dx, dw, db, dy, x, stats, w, dims);
    }

    fn qk_norm(
        &self,
        y: &mut Vec<R>,
        rstd: &mut Vec<R::Acc>,
        x: &Vec<R>,
        wq: &Vec<R>,
        wk: &Vec<R>,
        rows: usize,
        eps: f64,
        dims: Heads,
    ) {
        norm::qk_norm(&self.pool, y, rstd, x, [wq, wk], rows, eps, dims);
    }

    fn qk_norm_bw(
        &self,
        dqkv: &mut Vec<R>,
        dwq: &mut Vec<R::Acc>,
        dwk: &mut Vec<R::Acc>,
        x: &Vec<R>,
        rstd: &Vec<R::Acc>,
        wq: &Vec<R>,
        wk: &Vec<R>,
        rows: usize,
        dims: Heads,
    ) {
        norm::qk_norm_bw(&self.pool, dqkv, [dwq, dwk], x, rstd, [wq, wk], rows, dims);
    }
}

impl<R: Real> Attention for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn rope(
        &self,
        qkv: &mut Vec<R>,
        table: &Vec<R::Acc>,
        positions: &Vec<u32>,
        rows: usize,
        inverse: bool,
        dims: Heads,
    ) {
        pointwise::rope(&self.pool, qkv, table, positions, rows, inverse, dims);
    }

    fn attention(
        &self,
        o: &mut Vec<R>,
        lse: &mut Vec<R::Acc>,
        qkv: &Vec<R>,
        layout: &Layout<Self>,
        dims: Heads,
    ) {
        attention::forward(&self.pool, o, lse, qkv, &layout.segments, dims);
    }

    fn attention_bw(
        &self,
        dqkv: &mut Vec<R>,
        dout: &Vec<R>,
        o: &Vec<R>,
        lse: &Vec<R::Acc>,
        qkv: &Vec<R>,
        layout: &Layout<Self>,
        dims: Heads,
    ) {
        attention::backward(&self.pool, dqkv, dout, o, lse, qkv, &layout.segments, dims);
    }
}

impl<R: Real> Decode for Cpu<R> {
    fn kv_store(
        &self,
        keys: &mut Vec<R>,
        values: &mut Vec<R>,
        qkv: &Vec<R>,
        slots: &Vec<u32>,
        rows: usize,
        dims: Heads,
    ) {
        pointwise::kv_store(keys, values, qkv, slots, rows, dims);
    }

    fn attention_cached(
        &self,
        o: &mut Vec<R>,
        qkv: &Vec<R>,
        keys: &Vec<R>,
        values: &Vec<R>,
        bases: &Vec<u32>,
        lens: &Vec<u32>,
        rows: usize,
        dims: Heads,
    ) {
        attention::cached(&self.pool, o, qkv, (keys, values), bases, lens, rows, dims);
    }
}

impl<R: Real> FeedForward for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn swiglu(&self, y: &mut Vec<R>, x: &Vec<R>, rows: usize, width: usize) {
        pointwise::swiglu(&self.pool, y, x, rows, width);
    }

    fn swiglu_bw(&self, dx: &mut Vec<R>, dy: &Vec<R>, x: &Vec<R>, rows: usize, width: usize) {
        pointwise::swiglu_bw(&self.pool, dx, dy, x, rows, width);
    }

    fn gelu(&self, y: &mut Vec<R>, x: &Vec<R>, len: usize) {
        pointwise::gelu(&self.pool, y, x, len);
    }

    fn gelu_bw(&self, dx: &mut Vec<R>, dy: &Vec<R>, x: &Vec<R>, len: usize) {
        pointwise::gelu_bw(&self.pool, dx, dy, x, len);
    }
}

impl<R: Real> LogProbs for Cpu<R> {
    fn logprob(&self, out: RowStats<'_, Self>, logits: &Vec<R>, targets: &Vec<u32>, dims: Logits) {
        let RowStats { logp, lse, entropy, mean_logit, hit } = out;
        head::logprob(&self.pool, [logp, lse, entropy, mean_logit, hit], logits, targets, dims);
    }

    fn logprob_bw(
        &self,
        logits: &mut Vec<R>,
        lse: &Vec<R::Acc>,
        coef: &Vec<R::Acc>,
        targets: &Vec<u32>,
        dims: Logits,
    ) {
        head::logprob_bw(&self.pool, logits, lse, coef, targets, dims);
    }
}

impl<R: Real> Update for Cpu<R> {
    fn adamw(
        &self,
        w: &mut Vec<R>,
        master: Option<&mut Vec<R::Acc>>,
        m: &mut Vec<R::Acc>,
        v: &mut Vec<R::Acc>,
        g: &Vec<R::Acc>,
        hyper: AdamW,
    ) {
        match master {
            None => pointwise::adamw(&self.pool, w, m, v, g, hyper),
            Some(master) => {
                pointwise::adamw(&self.pool, master, m, v, g, hyper);
                pointwise::round(&self.pool, w, master);
            }
        }
    }

    fn rmsprop(
        &self,
        w: &mut Vec<R>,
        master: Option<&mut Vec<R::Acc>>,
        v: &mut Vec<R::Acc>,
        g: &Vec<R::Acc>,
        hyper: Rmsprop,
    ) {
        match master {
            None => pointwise::rmsprop(&self.pool, w, v, g, hyper),
            Some(master) => {
                pointwise::rmsprop(&self.pool, master, v, g, hyper);
                pointwise::round(&self.pool, w, master);
            }
        }
    }

    fn square_sums(&self, xs: &[&Vec<R::Acc>]) -> Result<Vec<f64>> {
        Ok(xs.iter().map(|x| norm::sumsq(&self.pool, x)).collect())
    }
}

impl<R: Real> Backend for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn describe(&self) -> String {
        format!("CPU, {} thread(s), {}, {:?}", self.threads(), instruction_set(), R::DTYPE)
    }

    fn identity(&self) -> String {
        // Not the threads, and not the instruction set: AVX2 and AVX-512 sum in one order.
        format!("CPU, {:?}", R::DTYPE)
    }
}

/// Bytes of memory that the system could give, where it says so.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
