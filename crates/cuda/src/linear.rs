//! Launches of matrix products.

use crate::pointwise::narrow;
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::Gemm;
use duel_kernels::sys::{LinearParams, PartsSumParams, TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// Parts of a weight gradient have a multiple of this many rows: f32 sums so many before it adds them to the rest.
const PART_ROWS: usize = 256;
/// Fewest columns of a result for which the wide tiles of sm_90 are used.
const SM90_COLUMNS: usize = 512;
/// Elements along the depth in a stage of the kernels for sm_90; a box of 64 bf16 is what its swizzle spans.
const SM90_DEPTH: u32 = 64;

/// The three products, as `out[rows, columns] = sum over depth of left(row, d) right(column, d)`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Product {
    Forward,
    InputGradient,
    WeightGradient,
}

impl Product {
    /// Whether neighbours in memory are neighbours along the depth, of the left and of the right operand.
    fn along_depth(self) -> [bool; 2] {
        match self {
            Product::Forward => [true, true],
            Product::InputGradient => [true, false],
            Product::WeightGradient => [false, false],
        }
    }

    /// Rows, columns and depth.
    fn shape(self, Gemm { m, n, k }: Gemm) -> [usize; 3] {
        match self {
            Product::Forward => [m, n, k],
            Product::InputGradient => [m, k, n],
            Product::WeightGradient => [n, k, m],
        }
    }
}

/// A kernel of a product, and what it has to know of it to launch it.
struct Variant {
    kernel: &'static str,
    threads: u32,
    shared: usize,
    /// Rows and columns of the result that a block computes at a time.
    tile: [usize; 2],
    /// Blocks that keep a large device busy. A constant, since the parts of a weight gradient follow from it, and with
    /// them the order of its sum.
    blocks: usize,
    /// Whether it has tensor maps of its operands and as many blocks as there are multiprocessors.
    tma: bool,
}

impl Variant {
    /// The kernel for a product: linear_sm90.cu where the device, the precision, the operands and the width of the
    /// result allow, else linear.cu.
    ///
    /// The rows of `x` and `y` have no say in it: a row's forward result must not depend on the others, and kernels
    /// differ in how the hardware rounds.
    fn of<R: CudaReal>(product: Product, compute_capability: u32, dims: Gemm) -> Self {
        let along_depth = product.along_depth();
        let [rows, columns, depth] = product.shape(dims);
        let is_f32 = size_of::<R>() == size_of::<f32>();
        let wide_rows = |along, other: usize| if along { depth % 8 == 0 } else { other.is_multiple_of(8) };
        let tma_reads_it = depth > 0 && wide_rows(along_depth[0], rows) && wide_rows(along_depth[1], columns);
        if !is_f32 && compute_capability == 90 && tma_reads_it && columns >= SM90_COLUMNS {
            let kernel = match product {
                Product::Forward => "gemm_sm90",
                Product::InputGradient => "gemm_dx_sm90",
                Product::WeightGradient => "gemm_dw_sm90",
            };
            // Four stages of both operands, and their barriers.
            let shared = 4 * ((128 + 256) * SM90_DEPTH as usize * 2 + 2 * size_of::<u64>());
            return Variant { kernel, threads: 384, shared, tile: [128, 256], blocks: 132, tma: true };
        }
        let kernel = match product {
            Product::Forward => kernel!(R, "gemm"),
            Product::InputGradient => kernel!(R, "gemm_dx"),
            Product::WeightGradient => kernel!(R, "gemm_dw"),
        };
        // Stages in shared memory, with the padding of their rows: two of depth 16, or four of depth 32.
        let elements_bf16 = along_depth.map(|along| if along { 128 * (32 + 8) } else { 32 * (128 + 8) });
        let shared =
            if is_f32 { 2 * 2 * 16 * (128 + 4) * 4 } else { 4 * elements_bf16.iter().sum::<usize>() * 2 };
        Variant { kernel, threads: 256, shared, tile: [128, 128], blocks: 264, tma: false }
    }

    fn tiles(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.tile[0]) * columns.div_ceil(self.tile[1])
    }

    /// Depth of each part of a weight gradient.
    fn part(&self, rows: usize, columns: usize, depth: usize) -> usize {
        let parts = (self.blocks / self.tiles(rows, columns)).clamp(1, depth.div_ceil(PART_ROWS));
        depth.div_ceil(parts).next_multiple_of(PART_ROWS)
    }
}

/// Addresses of a product's operands and of what is added to it.
struct Operands {
    left: *const c_void,
    right: *const c_void,
    bias: *const c_void,
    residual: *const c_void,
}

impl Operands {
    fn new(left: *const c_void, right: *const c_void) -> Self {
        Operands { left, right, bias: std::ptr::null(), residual: std::ptr::null() }
    }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// Tensor map of an operand whose tile has `tile` rows (or columns) of the result.
    fn operand_map(
        &self,
        data: *const c_void,
        along_depth: bool,
        result: usize,
        depth: usize,
        tile: usize,
    ) -> TensorMap {
        let (width, height) = if along_depth { (depth, result) } else { (result, depth) };
        self.driver.tensor_map(&TensorMapSpec {
            base: data as u64,
            extents: [width as u64, height as u64, 1],
            strides: [(width * size_of::<R>()) as u64, 0],
            tile: [SM90_DEPTH, if along_depth { narrow(tile) } else { SM90_DEPTH }, 1],
            rank: 2,
            element_bytes: size_of::<R>() as u32,
            swizzle_bytes: 128,
        })
    }

    /// Starts the kernel of a product in parts of the depth `part`.
    ///
    /// # Safety
    /// `out` and the operands are live buffers as large as the product's shapes say; `out` has a result for each part.
    unsafe fn launch_product(
        &self,
        product: Product,
        variant: &Variant,
        out: *mut c_void,
        operands: &Operands,
        part: usize,
        dims: Gemm,
    ) {
        let [rows, columns, depth] = product.shape(dims);
        let parts = if depth == 0 { 1 } else { depth.div_ceil(part) };
        let params = LinearParams {
            out,
            left: operands.left,
            right: operands.right,
            bias: operands.bias,
            residual: operands.residual,
            rows: narrow(rows),
            columns: narrow(columns),
            depth: narrow(depth),
            part: narrow(part),
            parts: narrow(parts),
        };
        let tiles = variant.tiles(rows, columns);
        if variant.tma {
            let [left_along, right_along] = product.along_depth();
            let left = self.operand_map(operands.left, left_along, rows, depth, variant.tile[0]);
            let right = self.operand_map(operands.right, right_along, columns, depth, variant.tile[1]);
            let blocks = (tiles * parts).min(self.properties.multiprocessors as usize);
            let grid = Grid::linear(blocks, variant.threads).with_shared(variant.shared);
            // SAFETY: these kernels take the maps of both operands and LinearParams; the rest is the caller's promise.
            unsafe { self.launch_with_maps(variant.kernel, grid, &[&left, &right], &params) };
        } else {
            let mut grid = Grid::linear(tiles, variant.threads).with_shared(variant.shared);
            grid.blocks[2] = narrow(parts);
            // SAFETY: these kernels take LinearParams; the rest is the caller's promise.
            unsafe { self.launch(variant.kernel, grid, &params) };
        }
    }

    fn variant(&self, product: Product, dims: Gemm) -> Variant {
        Variant::of::<R>(product, self.properties.compute_capability, dims)
    }

    pub(crate) fn launch_gemm(
        &self,
        y: &mut Buf<D, R>,
        x: &Buf<D, R>,
        w: &Buf<D, R>,
        bias: Option<&Buf<D, R>>,
        residual: Option<&Buf<D, R>>,
        dims @ Gemm { m, n, k }: Gemm,
    ) {
        if m * n == 0 {
            return;
        }
        let operands = Operands {
            bias: bias.map_or(std::ptr::null(), |b| self.read(b, n)),
            residual: residual.map_or(std::ptr::null(), |r| self.read(r, m * n)),
            ..Operands::new(self.read(x, m * k), self.read(w, n * k))
        };
        let variant = self.variant(Product::Forward, dims);
        let y = self.write(y, m * n);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe { self.launch_product(Product::Forward, &variant, y, &operands, k, dims) };
    }

    pub(crate) fn launch_gemm_dx(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: &Buf<D, R>,
        dims @ Gemm { m, n, k }: Gemm,
    ) {
        if m * k == 0 {
            return;
        }
        let operands = Operands::new(self.read(dy, m * n), self.read(w, n * k));
        let variant = self.variant(Product::InputGradient, dims);
        let dx = self.write(dx, m * k);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe { self.launch_product(Product::InputGradient, &variant, dx, &operands, n, dims) };
    }

    pub(crate) fn launch_gemm_dw(
        &self,
        dw: &mut Buf<D, f32>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        dims @ Gemm { m, n, k }: Gemm,
    ) {
        if m * n * k == 0 {
            return;
        }
        let product = Product::WeightGradient;
        let operands = Operands::new(self.read(dy, m * n), self.read(x, m * k));
        let variant = self.variant(product, dims);
        let dw = self.write(dw, n * k);
        let part = variant.part(n, k, m);
        let parts = m.div_ceil(part);
        if parts == 1 {
            // SAFETY: `write` and `read` checked the buffers against m, n and k.
            unsafe { self.launch_product(product, &variant, dw, &operands, part, dims) };
            return;
        }
        self.with_scratch(parts * n * k * size_of::<f32>(), |scratch| {
            let len = (n * k) as u64;
            let sum = PartsSumParams { out: dw.cast(), parts: scratch.cast(), len, count: narrow(parts) };
            let grid = Grid::linear(self.blocks_for((n * k).div_ceil(4 * 256)), 256);
            // SAFETY: the scratch has room for the results of all parts; the rest as above. The sum takes
            // PartsSumParams.
            unsafe {
                self.launch_product(product, &variant, scratch, &operands, part, dims);
                self.launch("gemm_dw_sum", grid, &sum);
            }
        });
    }
}
