#![doc = include_str!("../README.md")]

mod attention;
mod driver;
mod gpu;
mod head;
mod library;
mod linear;
mod memory;
mod norm;
mod optimizer;
mod pointwise;
mod preference;
mod reduce;
mod variants;

use duel_backend::{
    AdamW, Attention, Backend, Decode, Element, Error, FeedForward, Float, Gather, Gemm, Heads, Layout,
    LogProbs, Logits, Memory, Norm, Norms, Portions, Products, Repetition, Result, Rmsprop, RowStats,
    Storage, Update, Weight,
};
use duel_kernels::sys::TensorMap;
use half::bf16;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use variants::Variants;

pub use driver::{Argument, Driver, Grid, Properties};
pub use duel_kernels::sys;
pub use gpu::{Device, DeviceMemory, Recorded, Settings, compile, has_driver, load_libraries, nvrtc_version};
pub use library::{Epilogue, LibraryProduct, Product};
pub use memory::Buffer;
pub use optimizer::Rounding;
pub use preference::{PairLoss, PreferenceObjective, PreferenceOut, ResponseGroups};

/// What weights and activations can be stored in.
pub trait CudaReal: Float {
    /// The one of two kernels that works on this type.
    fn kernel(f32: &'static str, bf16: &'static str) -> &'static str;
}

impl CudaReal for f32 {
    fn kernel(f32: &'static str, _: &'static str) -> &'static str {
        f32
    }
}

impl CudaReal for bf16 {
    fn kernel(_: &'static str, bf16: &'static str) -> &'static str {
        bf16
    }
}

/// The buffer of weights, which have one type here, narrowed or not.
fn either<'w, D: Driver, R: CudaReal>(w: Weight<'w, Cuda<D, R>>) -> &'w Buf<D, R> {
    let (Weight::Real(buf) | Weight::Narrow(buf)) = w;
    buf
}

/// Name of an operation's kernel for a type: `kernel!(R, "gelu")` is `"gelu_f32"` or `"gelu_bf16"`.
macro_rules! kernel {
    ($real:ty, $operation:literal) => {
        <$real as $crate::CudaReal>::kernel(concat!($operation, "_f32"), concat!($operation, "_bf16"))
    };
}
use kernel;

/// The CUDA backend on a driver `D`, with weights and activations stored as `R`; sums, statistics and gradients of
/// weights are `f32`.
pub struct Cuda<D: Driver, R> {
    driver: D,
    properties: Properties,
    /// Memory for what one verb passes from kernel to kernel; grows to the largest need and stays.
    scratch: RefCell<Option<Buffer<D::Memory, u8>>>,
    /// How often the scratch memory went to another place: what was recorded before points to the old one.
    scratch_moves: Cell<u64>,
    /// What failed in a verb first since that was last asked for.
    failure: RefCell<Option<Error>>,
    /// Whether the work of a repetition is being done.
    repeating: Cell<bool>,
    variants: Variants,
    tile_lists: RefCell<attention::TileLists<D>>,
    rounding: Cell<Rounding>,
    real: PhantomData<R>,
}

/// Work that repeats, as the driver keeps it, and where the scratch memory was then.
pub struct Recording<D: Driver> {
    scratch_moves: u64,
    of_driver: D::Recording,
}

impl<D: Driver> Default for Recording<D> {
    fn default() -> Self {
        Recording { scratch_moves: 0, of_driver: D::Recording::default() }
    }
}

/// A buffer on the CUDA backend.
pub(crate) type Buf<D, T> = Buffer<<D as Driver>::Memory, T>;

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// What [`Backend::portions`] says on every GPU.
    pub const PORTIONS: Portions = Portions { tokens: 8 << 10, logits_bytes: 1 << 30, logits_multiple: 64 };

    /// The backend on a device.
    pub fn new(driver: D) -> Self {
        let properties = driver.properties();
        Cuda {
            driver,
            properties,
            scratch: RefCell::new(None),
            scratch_moves: Cell::default(),
            failure: RefCell::default(),
            repeating: Cell::default(),
            variants: Variants::of(R::DTYPE, properties.compute_capability),
            tile_lists: RefCell::default(),
            rounding: Cell::default(),
            real: PhantomData,
        }
    }

    /// The device.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Starts a kernel of one params struct.
    ///
    /// # Safety
    /// `params` is the struct that the kernel of this name takes; its addresses are of live buffers that are as large
    /// as the kernel needs for the sizes in it.
    pub(crate) unsafe fn launch<P>(&self, kernel: &'static str, grid: Grid, params: &P) {
        // SAFETY: the caller's promise; without tensor maps the struct is the only argument.
        unsafe { self.launch_with_maps(kernel, grid, &[], params) };
    }

    /// Starts a kernel of tensor maps and, after them, one params struct.
    ///
    /// # Safety
    /// As [`Cuda::launch`]; the maps are those that the kernel takes, in order, of live buffers.
    pub(crate) unsafe fn launch_with_maps<P>(
        &self,
        kernel: &'static str,
        grid: Grid,
        maps: &[&TensorMap],
        params: &P,
    ) {
        let mut arguments: Vec<Argument> = maps.iter().map(|&m| Argument::of(m)).collect();
        arguments.push(Argument::of(params));
        // SAFETY: the caller's promise.
        unsafe { self.driver.launch(kernel, grid, &arguments) };
    }

    /// # Panics
    /// In work that repeats, where only kernels may be launched.
    pub(crate) fn check_outside_of_repetition(&self) {
        assert!(
            !self.repeating.get(),
            "work that repeats allocates nothing, copies nothing from or to the host"
        );
    }

    /// Blocks that keep every multiprocessor busy in a kernel that strides over its work, but no more than `work`.
    pub(crate) fn blocks_for(&self, work: usize) -> usize {
        work.clamp(1, 8 * self.properties.multiprocessors as usize)
    }
}

impl<D: Driver, R: CudaReal> Storage for Cuda<D, R> {
    type Real = R;
    type Narrow = R;
    type Acc = f32;
    type Buf<T: Element> = Buffer<D::Memory, T>;

    fn memory(&self) -> Memory {
        self.driver.memory()
    }

    fn alloc<T: Element>(&self, len: usize) -> Result<Self::Buf<T>> {
        self.alloc_buffer(len)
    }

    fn len<T: Element>(&self, buf: &Buf<D, T>) -> usize {
        buf.len()
    }

    fn upload<T: Element>(&self, dst: &mut Buf<D, T>, offset: usize, src: &[T]) {
        self.upload_buffer(dst, offset, src);
    }

    fn download<T: Element>(&self, dst: &mut [T], src: &Buf<D, T>, offset: usize) -> Result<()> {
        self.download_buffer(dst, src, offset)
    }

    fn copy<T: Element>(&self, dst: &mut Buf<D, T>, src: &Buf<D, T>, len: usize) {
        self.copy_buffer(dst, src, len);
    }

    fn zero<T: Element>(&self, buf: &mut Buf<D, T>) {
        self.zero_buffer(buf);
    }

    fn finish(&self) -> Result<()> {
        self.check_outside_of_repetition();
        let done = self.driver.finish();
        // What failed in a verb came before what that led to.
        self.take_failure().and(done)
    }
}

impl<D: Driver, R: CudaReal> Repetition for Cuda<D, R> {
    type Recording = Recording<D>;

    fn repeat(&self, recording: &mut Recording<D>, work: impl FnOnce()) {
        if recording.scratch_moves != self.scratch_moves.get() {
            *recording = Recording::default();
        }
        self.repeating.set(true);
        self.driver.repeat(&mut recording.of_driver, work);
        self.repeating.set(false);
        if recording.scratch_moves != self.scratch_moves.get() {
            // It grew in the first pass, which is over: the next one finds it in its place.
            recording.scratch_moves = self.scratch_moves.get();
        }
    }
}

impl<D: Driver, R: CudaReal> Products for Cuda<D, R> {
    fn gemm<'w>(
        &self,
        y: &mut Buf<D, R>,
        x: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Buf<D, R>>,
        residual: Option<&Buf<D, R>>,
        dims: Gemm,
    ) {
        self.launch_gemm(y, x, either(w.into()), bias, residual, dims);
    }

    fn gemm_dx(&self, dx: &mut Buf<D, R>, dy: &Buf<D, R>, w: &Buf<D, R>, dims: Gemm) {
        self.launch_gemm_dx(dx, dy, w, dims);
    }

    fn gemm_dw(&self, dw: &mut Buf<D, f32>, dy: &Buf<D, R>, x: &Buf<D, R>, dims: Gemm) {
        self.launch_gemm_dw(dw, dy, x, dims);
    }

    fn bias_dw(&self, db: &mut Buf<D, f32>, dy: &Buf<D, R>, dims: Gemm) {
        self.launch_bias_dw(db, dy, dims);
    }
}

impl<D: Driver, R: CudaReal> Gather for Cuda<D, R> {
    fn embed<'w>(
        &self,
        y: &mut Buf<D, R>,
        table: impl Into<Weight<'w, Self>>,
        pos_table: Option<&Buf<D, R>>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        self.launch_embed(y, either(table.into()), pos_table, layout, width);
    }

    fn embed_bw(
        &self,
        dtable: &mut Buf<D, f32>,
        dpos_table: Option<&mut Buf<D, f32>>,
        dy: &Buf<D, R>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        self.launch_embed_bw(dtable, dpos_table, dy, layout, width);
    }

    fn gather(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, index: &Buf<D, u32>, rows: usize, width: usize) {
        self.launch_gather(y, x, index, rows, width);
    }

    fn scatter_add(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        index: &Buf<D, u32>,
        rows: usize,
        width: usize,
    ) {
        self.launch_scatter_add(dx, dy, index, rows, width);
    }
}

impl<D: Driver, R: CudaReal> Norms for Cuda<D, R> {
    fn rmsnorm(&self, y: &mut Buf<D, R>, rstd: &mut Buf<D, f32>, x: &Buf<D, R>, w: &Buf<D, R>, dims: Norm) {
        self.launch_rmsnorm(y, rstd, x, w, dims);
    }

    fn rmsnorm_bw(
        &self,
        dx: &mut Buf<D, R>,
        dw: &mut Buf<D, f32>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        rstd: &Buf<D, f32>,
        w: &Buf<D, R>,
        dims: Norm,
    ) {
        self.launch_rmsnorm_bw(dx, dw, dy, x, rstd, w, dims);
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
        self.launch_layernorm(y, stats, x, w, b, dims);
    }

    fn layernorm_bw(
        &self,
        dx: &mut Buf<D, R>,
        dw: &mut Buf<D, f32>,
        db: &mut Buf<D, f32>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        stats: &Buf<D, f32>,
        w: &Buf<D, R>,
        dims: Norm,
    ) {
        self.launch_layernorm_bw(dx, dw, db, dy, x, stats, w, dims);
    }

    fn qk_norm(
        &self,
        y: &mut Buf<D, R>,
        rstd: &mut Buf<D, f32>,
        x: &Buf<D, R>,
        wq: &Buf<D, R>,
        wk: &Buf<D, R>,
        rows: usize,
        eps: f64,
        dims: Heads,
    ) {
        self.launch_qk_norm(y, rstd, x, wq, wk, rows, eps, dims);
    }

    fn qk_norm_bw(
        &self,
        dqkv: &mut Buf<D, R>,
        dwq: &mut Buf<D, f32>,
        dwk: &mut Buf<D, f32>,
        x: &Buf<D, R>,
        rstd: &Buf<D, f32>,
        wq: &Buf<D, R>,
        wk: &Buf<D, R>,
        rows: usize,
        dims: Heads,
    ) {
        self.launch_qk_norm_bw(dqkv, dwq, dwk, x, rstd, wq, wk, rows, dims);
    }
}

impl<D: Driver, R: CudaReal> Attention for Cuda<D, R> {
    fn rope(
        &self,
        qkv: &mut Buf<D, R>,
        table: &Buf<D, f32>,
        positions: &Buf<D, u32>,
        rows: usize,
        inverse: bool,
        dims: Heads,
    ) {
        self.launch_rope(qkv, table, positions, rows, inverse, dims);
    }

    fn attention(
        &self,
        o: &mut Buf<D, R>,
        lse: &mut Buf<D, f32>,
        qkv: &Buf<D, R>,
        layout: &Layout<Self>,
        dims: Heads,
    ) {
        self.launch_attention(o, lse, qkv, layout, dims);
    }

    fn attention_bw(
        &self,
        dqkv: &mut Buf<D, R>,
        dout: &Buf<D, R>,
        o: &Buf<D, R>,
        lse: &Buf<D, f32>,
        qkv: &Buf<D, R>,
        layout: &Layout<Self>,
        dims: Heads,
    ) {
        self.launch_attention_bw(dqkv, dout, o, lse, qkv, layout, dims);
    }
}

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
        self.launch_kv_store(keys, values, qkv, slots, rows, dims);
    }

    fn attention_cached(
        &self,
        o: &mut Buf<D, R>,
        qkv: &Buf<D, R>,
        keys: &Buf<D, R>,
        values: &Buf<D, R>,
        bases: &Buf<D, u32>,
        lens: &Buf<D, u32>,
        rows: usize,
        dims: Heads,
    ) {
        self.launch_attention_cached(o, qkv, keys, values, bases, lens, rows, dims);
    }
}

impl<D: Driver, R: CudaReal> FeedForward for Cuda<D, R> {
    fn swiglu(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, rows: usize, width: usize) {
        self.launch_swiglu(y, x, rows, width);
    }

    fn swiglu_bw(&self, dx: &mut Buf<D, R>, dy: &Buf<D, R>, x: &Buf<D, R>, rows: usize, width: usize) {
        self.launch_swiglu_bw(dx, dy, x, rows, width);
    }

    fn gelu(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, len: usize) {
        self.launch_gelu(y, x, len);
    }

    fn gelu_bw(&self, dx: &mut Buf<D, R>, dy: &Buf<D, R>, x: &Buf<D, R>, len: usize) {
        self.launch_gelu_bw(dx, dy, x, len);
    }

    fn gemm_gelu<'w>(
        &self,
        y: &mut Buf<D, R>,
        x: &mut Buf<D, R>,
        a: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Buf<D, R>>,
        dims: Gemm,
    ) {
        self.launch_gemm_gelu(y, x, a, either(w.into()), bias, dims);
    }

    fn gemm_dx_gelu(
        &self,
        dx: &mut Buf<D, R>,
        dact: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: &Buf<D, R>,
        x: &Buf<D, R>,
        dims: Gemm,
    ) {
        self.launch_gemm_dx_gelu(dx, dact, dy, w, x, dims);
    }
}

impl<D: Driver, R: CudaReal> LogProbs for Cuda<D, R> {
    fn logprob(&self, out: RowStats<'_, Self>, logits: &Buf<D, R>, targets: &Buf<D, u32>, dims: Logits) {
        self.launch_logprob(out, logits, targets, dims);
    }

    fn logprob_bw(
        &self,
        logits: &mut Buf<D, R>,
        lse: &Buf<D, f32>,
        coef: &Buf<D, f32>,
        targets: &Buf<D, u32>,
        dims: Logits,
    ) {
        self.launch_logprob_bw(logits, lse, coef, targets, dims);
    }
}

impl<D: Driver, R: CudaReal> Update for Cuda<D, R> {
    fn adamw(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        m: &mut Buf<D, f32>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        hyper: AdamW,
    ) {
        self.launch_adamw(w, master, m, v, g, None, hyper);
    }

    fn rmsprop(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        hyper: Rmsprop,
    ) {
        self.launch_rmsprop(w, master, v, g, None, hyper);
    }

    fn square_sums(&self, xs: &[&Buf<D, f32>]) -> Result<Vec<f64>> {
        self.launch_square_sums(xs)
    }
}

impl<D: Driver, R: CudaReal> Backend for Cuda<D, R> {
    const REHEARSES: bool = true;

    fn describe(&self) -> String {
        format!("{}, {:?}", self.driver.describe(), R::DTYPE)
    }

    fn identity(&self) -> String {
        format!("{}, {:?}", self.driver.identity(), R::DTYPE)
    }

    fn portions(&self) -> Portions {
        Self::PORTIONS
    }
}
