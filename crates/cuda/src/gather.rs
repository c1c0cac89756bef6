//! Rows by their numbers: embedding, gather and scatter.

use crate::grid::{THREADS, elements_a_thread, narrow, team_grid};
use crate::product::buffer_of;
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Element, Gather, Layout, Weight};
use duel_kernels::sys;

/// A second table that a gather adds rows of.
struct Positions<'a, D: Driver, R> {
    table: &'a Buf<D, R>,
    of_rows: &'a Buf<D, u32>,
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
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
                self.launch("sort_rows", Grid::linear(rows.div_ceil(THREADS / 32), sys::ROW_THREADS), &params)
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
            let team = packs.next_power_of_two().clamp(sys::ROW_TEAM as usize, THREADS);
            let places = THREADS / team;
            let grid =
                Grid::plane([rows.div_ceil(places), packs.div_ceil(team)], [narrow(team), narrow(places)]);
            // SAFETY: the kernel takes ScatterAddParams; `read` checked dy, sort_rows has written the rest, and the
            // kernel checks each row number against the rows of the table itself.
            unsafe { self.launch(kernel, grid, &params) };
        });
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
        let positions = pos_table.map(|table| Positions { table, of_rows: &layout.positions });
        self.gather_rows(y, buffer_of(table.into()), &layout.tokens, positions, layout.rows, width);
    }

    fn embed_bw(
        &self,
        dtable: Option<&mut Buf<D, f32>>,
        dpos_table: Option<&mut Buf<D, f32>>,
        dy: &Buf<D, R>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        let kernel = kernel!(R, "embed_bw");
        if let Some(dtable) = dtable {
            self.scatter_rows(kernel, dtable, dy, &layout.tokens, layout.rows, width);
        }
        if let Some(dpos) = dpos_table {
            self.scatter_rows(kernel, dpos, dy, &layout.positions, layout.rows, width);
        }
    }

    fn scale(&self, y: &mut Buf<D, R>, factor: f64, len: usize) {
        if len == 0 {
            return;
        }
        let params = sys::ScaleParams { y: self.write(y, len), len: len as u64, factor: factor as f32 };
        // SAFETY: the kernel takes ScaleParams; `write` checked the buffer against its length.
        unsafe { self.launch(kernel!(R, "scale"), self.flat_grid(len), &params) };
    }

    fn gather(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, index: &Buf<D, u32>, rows: usize, width: usize) {
        self.gather_rows(y, x, index, None, rows, width);
    }

    fn scatter_add(
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
