//! Matrix products and the gradient of a bias.

use crate::grid::{elements_a_thread, narrow};
use crate::library::{Epilogue, LibraryProduct, Product};
use crate::reduce::{THREADS, rows_a_block};
use crate::variants::{Linear, launch_of};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Gemm, Products, Weight};
use duel_kernels::sys::{ColumnSumsParams, LinearParams, PartsSumParams, TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// Parts of a weight gradient have a multiple of this many rows: f32 sums so many before it adds them to the rest.
const PART_ROWS: usize = 256;
/// Elements along the depth in a stage of the kernels for sm_90; a box of 64 bf16 is what its swizzle spans.
const SM90_DEPTH: u32 = 64;

/// The buffer of weights, which have one type here, narrowed or not.
pub(crate) fn buffer_of<'w, D: Driver, R: CudaReal>(w: Weight<'w, Cuda<D, R>>) -> &'w Buf<D, R> {
    let (Weight::Real(buf) | Weight::Narrow(buf)) = w;
    buf
}

impl Linear {
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
pub(crate) struct Operands {
    left: *const c_void,
    right: *const c_void,
    bias: *const c_void,
    residual: *const c_void,
}

impl Operands {
    pub(crate) fn new(left: *const c_void, right: *const c_void) -> Self {
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
        stride: usize,
        tile: usize,
    ) -> TensorMap {
        let (width, height) = if along_depth { (depth, result) } else { (result, depth) };
        self.driver.tensor_map(&TensorMapSpec {
            base: data as u64,
            extents: [width as u64, height as u64, 1],
            strides: [(stride * size_of::<R>()) as u64, 0],
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
        variant: &Linear,
        out: *mut c_void,
        operands: &Operands,
        part: usize,
        dims: Gemm,
    ) {
        let [rows, columns, depth] = product.shape(dims);
        let [of_out, of_left, of_right] = product.strides(dims);
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
            out_stride: narrow(of_out),
            left_stride: narrow(of_left),
        };
        let tiles = variant.tiles(rows, columns);
        let (threads, shared) = launch_of(variant.kernel);
        if variant.tensor_maps {
            let [left_along, right_along] = product.along_depth();
            let left = self.operand_map(operands.left, left_along, rows, depth, of_left, variant.tile[0]);
            let right =
                self.operand_map(operands.right, right_along, columns, depth, of_right, variant.tile[1]);
            let blocks = (tiles * parts).min(self.properties.multiprocessors as usize);
            let grid = Grid::linear(blocks, threads).with_shared(shared);
            // SAFETY: these kernels take the maps of both operands and LinearParams; the rest is the caller's promise.
            unsafe { self.launch_with_maps(variant.kernel, grid, &[&left, &right], &params) };
        } else {
            let mut grid = Grid::linear(tiles, threads).with_shared(shared);
            grid.blocks[2] = narrow(parts);
            // SAFETY: these kernels take LinearParams; the rest is the caller's promise.
            unsafe { self.launch(variant.kernel, grid, &params) };
        }
    }

    /// Starts a product by the vendor's library, if that takes it.
    ///
    /// # Safety
    /// As for [`Cuda::launch_product`], without parts.
    pub(crate) unsafe fn by_library(
        &self,
        product: Product,
        epilogue: Epilogue,
        out: *mut c_void,
        operands: &Operands,
        dims: Gemm,
    ) -> bool {
        if product.shape(dims)[2] == 0 {
            return false; // a sum of nothing is no matrix product to a library
        }
        let product = LibraryProduct {
            product,
            dims,
            dtype: R::DTYPE,
            out,
            left: operands.left,
            right: operands.right,
            bias: operands.bias,
            residual: operands.residual,
            epilogue,
        };
        // SAFETY: the caller's promise.
        unsafe { self.driver.library_product(&product) }
    }

    pub(crate) fn operands_of_gemm(
        &self,
        x: &Buf<D, R>,
        w: &Buf<D, R>,
        bias: Option<&Buf<D, R>>,
        residual: Option<&Buf<D, R>>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) -> Operands {
        Operands {
            bias: bias.map_or(std::ptr::null(), |b| self.read(b, n)),
            residual: residual.map_or(std::ptr::null(), |r| {
                dims.assert_dense();
                self.read(r, m * n)
            }),
            ..Operands::new(self.read(x, m * k), self.read(w, n * k))
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
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * n == 0 {
            return;
        }
        let product = Product::Forward;
        let operands = self.operands_of_gemm(x, buffer_of(w.into()), bias, residual, dims);
        let y = self.write(y, dims.y_len());
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe {
            if !self.by_library(product, Epilogue::None, y, &operands, dims) {
                self.launch_product(product, self.variants.linear(product, dims), y, &operands, k, dims);
            }
        }
    }

    fn gemm_dx<'w>(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * k == 0 {
            return;
        }
        let product = Product::InputGradient;
        let w = buffer_of(w.into());
        let operands = Operands::new(self.read(dy, dims.y_len()), self.read(w, n * k));
        let dx = self.write(dx, m * k);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe {
            if !self.by_library(product, Epilogue::None, dx, &operands, dims) {
                self.launch_product(product, self.variants.linear(product, dims), dx, &operands, n, dims);
            }
        }
    }

    fn gemm_dw(
        &self,
        dw: &mut Buf<D, f32>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * n * k == 0 {
            return;
        }
        let product = Product::WeightGradient;
        let operands = Operands::new(self.read(dy, dims.y_len()), self.read(x, m * k));
        let dw = self.write(dw, n * k);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        if unsafe { self.by_library(product, Epilogue::None, dw, &operands, dims) } {
            return;
        }
        let variant = self.variants.linear(product, dims);
        let part = variant.part(n, k, m);
        let parts = m.div_ceil(part);
        if parts == 1 {
            // SAFETY: `write` and `read` checked the buffers against m, n and k.
            unsafe { self.launch_product(product, variant, dw, &operands, part, dims) };
            return;
        }
        self.with_scratch(parts * n * k * size_of::<f32>(), |scratch| {
            let len = (n * k) as u64;
            let sum = PartsSumParams { out: dw.cast(), parts: scratch.cast(), len, count: narrow(parts) };
            let grid = Grid::linear(self.blocks_for((n * k).div_ceil(4 * 256)), 256);
            // SAFETY: the scratch has room for the results of all parts; the rest as above. The sum takes
            // PartsSumParams.
            unsafe {
                self.launch_product(product, variant, scratch, &operands, part, dims);
                self.launch("gemm_dw_sum", grid, &sum);
            }
        });
    }

    fn bias_dw(&self, db: &mut Buf<D, f32>, dy: &Buf<D, R>, dims: Gemm) {
        let Gemm { m: rows, n: width, .. } = dims;
        dims.assert_dense();
        if rows * width == 0 {
            return;
        }
        let rows_a_block = rows_a_block(rows);
        let parts = rows.div_ceil(rows_a_block);
        let count = elements_a_thread::<R>(width);
        let packs = width.div_ceil(count);
        let team = packs.next_power_of_two().clamp(32, THREADS as usize);
        let threads = [narrow(team), THREADS / narrow(team)];
        let grid = Grid::plane([parts, packs.div_ceil(team)], threads)
            .with_shared(THREADS as usize * count * size_of::<f32>());
        self.with_scratch(parts * width * size_of::<f32>(), |address| {
            let params = ColumnSumsParams {
                partials: address.cast(),
                dy: self.read(dy, rows * width),
                rows: narrow(rows),
                width: narrow(width),
                rows_a_block: narrow(rows_a_block),
            };
            // SAFETY: the kernel takes ColumnSumsParams; `read` checked its input, and the scratch is what it writes.
            unsafe { self.launch(kernel!(R, "column_sums"), grid, &params) };
            self.add_partials([Some(db)], address.cast(), parts, width);
        });
    }
}
