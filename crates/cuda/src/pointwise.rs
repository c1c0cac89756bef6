//! Launches of embedding, rotary positions, activations and gather, and the grids of operations on rows.

use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Element, Heads, Layout};
use duel_kernels::sys;

/// Threads of a block in the kernels of one pass over memory.
const THREADS: u32 = 256;
/// Fewest threads of a team: 16 bytes each are a cache line.
const MIN_TEAM: usize = 8;
/// Accesses of 16 bytes that a thread does for its row before the row gets more threads; HELD of norm.cu.
const PACKS_A_THREAD: usize = 4;
/// Most blocks along y.
const MAX_ROWS_OF_BLOCKS: usize = 65535;

/// Elements of `R` in 16 bytes, which is what a thread moves at a time.
fn lanes<R>() -> usize {
    16 / size_of::<R>()
}

/// Elements that a thread moves at a time in rows of `width`: 16 bytes of them, or one where rows are not made of those.
pub(crate) fn elements_a_thread<R>(width: usize) -> usize {
    if width.is_multiple_of(lanes::<R>()) { lanes::<R>() } else { 1 }
}

/// A grid of blocks of [`THREADS`] in which a team of `x` threads has a row, for `rows` rows: so many threads that each
/// has at most [`PACKS_A_THREAD`] accesses to do, if the block has them.
pub(crate) fn team_grid<R>(rows: usize, width: usize) -> Grid {
    let packs = width.div_ceil(elements_a_thread::<R>(width));
    let team = packs.div_ceil(PACKS_A_THREAD).next_power_of_two().clamp(MIN_TEAM, THREADS as usize);
    let teams = THREADS as usize / team;
    Grid::plane([rows.div_ceil(teams), 1], [narrow(team), narrow(teams)])
}

/// `u32` of a number of rows or columns.
pub(crate) fn narrow(n: usize) -> u32 {
    u32::try_from(n).expect("rows and widths fit into 32 bits")
}

/// A second table that a gather adds rows of.
struct Positions<'a, D: Driver, R> {
    table: &'a Buf<D, R>,
    of_rows: &'a Buf<D, u32>,
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// A grid whose x covers `width` columns and whose y strides over `rows`.
    pub(crate) fn rows_grid(&self, rows: usize, width: usize) -> Grid {
        let columns = width.div_ceil(elements_a_thread::<R>(width) * THREADS as usize);
        Grid::plane([columns, rows.min(MAX_ROWS_OF_BLOCKS)], [THREADS, 1])
    }

    /// A grid that strides over `len` elements.
    pub(crate) fn flat_grid(&self, len: usize) -> Grid {
        Grid::linear(self.blocks_for(len.div_ceil(lanes::<R>() * THREADS as usize)), THREADS)
    }

    pub(crate) fn launch_swiglu(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, rows: usize, width: usize) {
        if rows * width == 0 {
            return;
        }
        let params = sys::SwigluParams {
            y: self.write(y, rows * width),
            x: self.read(x, 2 * rows * width),
            rows: narrow(rows),
            width: narrow(width),
        };
        // SAFETY: the kernel takes SwigluParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "swiglu"), self.rows_grid(rows, width), &params) };
    }

    pub(crate) fn launch_swiglu_bw(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        rows: usize,
        width: usize,
    ) {
        if rows * width == 0 {
            return;
        }
        let params = sys::SwigluBwParams {
            dx: self.write(dx, 2 * rows * width),
            dy: self.read(dy, rows * width),
            x: self.read(x, 2 * rows * width),
            rows: narrow(rows),
            width: narrow(width),
        };
        // SAFETY: the kernel takes SwigluBwParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "swiglu_bw"), self.rows_grid(rows, width), &params) };
    }

    pub(crate) fn launch_gelu(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, len: usize) {
        if len == 0 {
            return;
        }
        let params = sys::GeluParams { y: self.write(y, len), x: self.read(x, len), len: len as u64 };
        // SAFETY: the kernel takes GeluParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "gelu"), self.flat_grid(len), &params) };
    }

    pub(crate) fn launch_gelu_bw(&self, dx: &mut Buf<D, R>, dy: &Buf<D, R>, x: &Buf<D, R>, len: usize) {
        if len == 0 {
            return;
        }
        let params = sys::GeluBwParams {
            dx: self.write(dx, len),
            dy: self.read(dy, len),
            x: self.read(x, len),
            len: len as u64,
        };
        // SAFETY: the kernel takes GeluBwParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "gelu_bw"), self.flat_grid(len), &params) };
    }

    /// `y[r] = table[index[r]] (+ pos_table[positions[r]])`.
    fn gather_rows(
        &self,
        y: &mut Buf<D, R>,
        table: &Buf<D, R>,
        index: &Buf<D, u32>,
        positions: Option<Positions<'_, D, R>>,
        rows: usize,
        width: usize,
    ) {
        if rows * width == 0 {
            return;
        }
        let none = (std::ptr::null(), std::ptr::null(), 0);
        let (pos_table, of_rows, pos_rows) = positions.map_or(none, |p| {
            (self.read(p.table, 0), self.read(p.of_rows, rows).cast(), narrow(p.table.len() / width))
        });
        let params = sys::GatherParams {
            y: self.write(y, rows * width),
            table: self.read(table, 0),
            pos_table,
            index: self.read(index, rows).cast(),
            positions: of_rows,
            rows: narrow(rows),
            width: narrow(width),
            table_rows: narrow(table.len() / width),
            pos_rows,
        };
        // SAFETY: the kernel takes GatherParams; `write` and `read` checked the buffers against its shapes, and it
        // checks each row number against the rows of the table itself.
        unsafe { self.launch(kernel!(R, "gather"), team_grid::<R>(rows, width), &params) };
    }

    /// `table[index[r]] += dy[r]`, rows in order, by a kernel for this type of table.
    fn scatter_rows<T: Element>(
        &self,
        kernel: &'static str,
        table: &mut Buf<D, T>,
        dy: &Buf<D, R>,
        index: &Buf<D, u32>,
        rows: usize,
        width: usize,
    ) {
        if rows * width == 0 {
            return;
        }
        let table_rows = narrow(table.len() / width);
        self.with_scratch(2 * rows * size_of::<u32>(), |address| {
            let order: *mut u32 = address.cast();
            let keys = order.wrapping_add(rows);
            let params =
                sys::SortRowsParams { order, keys, index: self.read(index, rows).cast(), rows: narrow(rows) };
            // SAFETY: the kernel takes SortRowsParams; the scratch has room for both of its outputs.
            unsafe {
                self.launch("sort_rows", Grid::linear(rows.div_ceil(THREADS as usize / 32), THREADS), &params)
            };
            let params = sys::ScatterAddParams {
                table: self.write(table, 0),
                dy: self.read(dy, rows * width),
                order,
                keys,
                rows: narrow(rows),
                width: narrow(width),
                table_rows,
            };
            let packs = width.div_ceil(elements_a_thread::<R>(width));
            let team = packs.next_power_of_two().clamp(MIN_TEAM, THREADS as usize);
            let places = THREADS as usize / team;
            let grid =
                Grid::plane([rows.div_ceil(places), packs.div_ceil(team)], [narrow(team), narrow(places)]);
            // SAFETY: the kernel takes ScatterAddParams; `read` checked dy, sort_rows has written the rest, and the
            // kernel checks each row number against the rows of the table itself.
            unsafe { self.launch(kernel, grid, &params) };
        });
    }

    pub(crate) fn launch_embed(
        &self,
        y: &mut Buf<D, R>,
        table: &Buf<D, R>,
        pos_table: Option<&Buf<D, R>>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        let positions = pos_table.map(|table| Positions { table, of_rows: &layout.positions });
        self.gather_rows(y, table, &layout.tokens, positions, layout.rows, width);
    }

    pub(crate) fn launch_embed_bw(
        &self,
        dtable: &mut Buf<D, f32>,
        dpos_table: Option<&mut Buf<D, f32>>,
        dy: &Buf<D, R>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        let kernel = kernel!(R, "embed_bw");
        self.scatter_rows(kernel, dtable, dy, &layout.tokens, layout.rows, width);
        if let Some(dpos) = dpos_table {
            self.scatter_rows(kernel, dpos, dy, &layout.positions, layout.rows, width);
        }
    }

    pub(crate) fn launch_rope(
        &self,
        qkv: &mut Buf<D, R>,
        table: &Buf<D, f32>,
        positions: &Buf<D, u32>,
        rows: usize,
        inverse: bool,
        dims: Heads,
    ) {
        let (width, heads) = (dims.qkv_width(), dims.heads + dims.kv_heads);
        if rows * width == 0 {
            return;
        }
        assert!(dims.head_dim.is_multiple_of(2), "rotary positions need an even head_dim");
        let params = sys::RopeParams {
            qkv: self.write(qkv, rows * width),
            table: self.read(table, 0).cast(),
            positions: self.read(positions, rows).cast(),
            rows: narrow(rows),
            width: narrow(width),
            heads: narrow(heads),
            head_dim: narrow(dims.head_dim),
            table_rows: narrow(table.len() / dims.head_dim),
            sign: if inverse { -1.0 } else { 1.0 },
        };
        let grid = team_grid::<R>(rows, heads * dims.head_dim / 2);
        // SAFETY: the kernel takes RopeParams; `write` and `read` checked the buffers against its shapes, and it checks
        // each position against the rows of the table itself.
        unsafe { self.launch(kernel!(R, "rope"), grid, &params) };
    }

    pub(crate) fn launch_gather(
        &self,
        y: &mut Buf<D, R>,
        x: &Buf<D, R>,
        index: &Buf<D, u32>,
        rows: usize,
        width: usize,
    ) {
        self.gather_rows(y, x, index, None, rows, width);
    }

    pub(crate) fn launch_scatter_add(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        index: &Buf<D, u32>,
        rows: usize,
        width: usize,
    ) {
        self.scatter_rows(kernel!(R, "scatter_add"), dx, dy, index, rows, width);
    }
}
