//! The loops over packed blocks that make one thread's part of a product.

use super::choice::HasKernel;
use super::kernel::{Dest, Kernel, SQUARE, TILE, Thin, ThinTile, Transpose, Unit};
use super::operand::{Init, Operand, Right, Shape};
use super::pack::{pack, room, same};
use super::pairs::pack_pairs;
use super::quantised::{LANES, Panels};
use super::soon::Soon;
use super::store::{adds, finish_row, in_place};
use super::tiles::pack_tiles;
use crate::real::{Lift, Pack, Real};
use crate::sync::{Pool, SyncPtr, part};
use duel_backend::Bits;
use half::bf16;
use std::ops::Range;

/// Columns of a packed block of `b`, which stays in the L3 cache. For each the left operand is packed once more.
const COLUMNS: usize = 3072;

/// Depth of the blocks of a product that is added to the result, on every instruction set: many small numbers are
/// summed apart from what they come to, which is large.
const KEPT: usize = 256;

/// Rows up to which all of `a` is packed at once. `b` is taken as it lies, or where that cannot be is packed a panel at
/// a time: each of its elements is read from memory once and used while it is in the L1 cache.
pub(super) const FEW: usize = 128;

/// Rows up to which each element of b is turned in registers, and makes tiles of as few rows.
pub(super) const THIN: usize = 8;

/// Rows of a part, at least: each thread packs its own.
const PART: usize = 64;

/// Multiply-adds of a task, at least: some tens of microseconds of a thread's time.
const TASK: usize = 1 << 23;

/// Elements of b that a task of few rows reads, at least: some microseconds.
pub(super) const LOAD: usize = 1 << 15;

/// A product, and where it goes.
pub struct Product<'a, S: 'static, A, B, C> {
    /// All depths below are counted in its [`Unit`].
    pub kernel: Kernel<S>,
    pub shape: Shape,
    pub c: SyncPtr<C>,
    pub a: Operand<'a, A>,
    pub b: Right<'a, B>,
    pub init: Init<'a, C>,
}

/// A packed block of each operand.
struct Blocks<'p, S> {
    rows: Range<usize>,
    cols: Range<usize>,
    depths: Range<usize>,
    a: &'p [S],
    b: &'p [S],
    /// Sums of these columns that are kept from block to block, from one row to the next, and their first row.
    sums: Option<(*mut S, usize, usize)>,
}

impl<S, A, B, C> Product<'_, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// All of it, on the threads of a pool.
    ///
    /// # Safety
    /// `c` has room for the shape, and nobody else touches it.
    pub unsafe fn run(&self, pool: &Pool) {
        if let Some(sides) = self.sides() {
            // SAFETY: by this function's contract.
            return unsafe { self.outer(pool, &sides) };
        }
        // SAFETY: by this function's contract.
        unsafe {
            if let Some(b) = self.turns() {
                self.turned(pool, b);
            } else if let Some(b) = self.narrows() {
                self.narrow(pool, b);
            } else if self.shape.m <= FEW {
                self.few(pool);
            } else {
                self.blocks(pool);
            }
        }
    }

    /// Calls `f` with the kernel's registers open.
    fn opened(&self, f: impl FnOnce()) {
        let registers = self.kernel.registers;
        // SAFETY: the kernel was chosen for this machine; its tiles are made in between.
        unsafe {
            registers.inspect(|of| (of.open)());
            f();
            registers.inspect(|of| (of.close)());
        }
    }

    /// The product block by block. A block of b is packed by all threads and used by all; a part of the rows of a by
    /// each thread that makes some of its tiles.
    ///
    /// # Safety
    /// As [`Product::run`].
    unsafe fn blocks(&self, pool: &Pool) {
        let (mr, nr, k) = (self.kernel.mr, self.kernel.nr, self.depth());
        let (Shape { m, n, .. }, depth) = (self.shape, self.block_depth());
        let ld = even(n, COLUMNS, nr);
        // As few parts as the L2 cache allows, where columns are enough for all threads: a panel of b is then used for
        // longer.
        let more = pool.threads().div_ceil(ld.div_ceil(nr)).min(m / PART);
        let down = m.div_ceil(mr * self.kernel.panels).max(more);
        S::with_shared(|shared| {
            let (packed, aside) = (ld * depth.min(k), if self.keeps_aside() { m * ld } else { 0 });
            let (b, sums) = room(shared, packed + aside).split_at_mut(packed);
            let sums = (aside > 0).then(|| SyncPtr::new(sums));
            for block in blocks(&(0..n), ld) {
                for depths in self.depths() {
                    let len = depths.len();
                    let panels = SyncPtr::new(b);
                    pool.split(block.len(), nr, pool.parts_of(block.len() * len), |cols| {
                        let all = cols.len().next_multiple_of(nr) * len;
                        // SAFETY: the panels of these columns, whole and inside.
                        let out = unsafe { std::slice::from_raw_parts_mut(panels.at(cols.start * len), all) };
                        self.pack_b(out, &(block.start + cols.start..block.start + cols.end), &depths, false);
                    });
                    let b = &b[..block.len().next_multiple_of(nr) * len];
                    let across = pieces(block.len(), nr, TASK / (m.div_ceil(down) * len).max(1));
                    pool.tasks_after(down * across, |last, task| {
                        let rows = part(m, mr, task / across, down);
                        let cols = part(block.len(), nr, task % across, across);
                        let b = &b[cols.start * len..];
                        let sums = sums.map(|sums| {
                            // SAFETY: inside.
                            (unsafe { sums.at(rows.start * ld + cols.start) }, ld, rows.start)
                        });
                        let cols = block.start + cols.start..block.start + cols.end;
                        S::with_pack(|Pack { a, .. }| {
                            let a = room(a, rows.len().next_multiple_of(mr) * len);
                            if last.is_none_or(|last| last / across != task / across) {
                                self.pack_a(a, &rows, &depths);
                            }
                            let depths = depths.clone();
                            // SAFETY: this task writes its rows of its columns of c only.
                            self.opened(|| unsafe { self.tiles(&Blocks { rows, cols, depths, a, b, sums }) });
                        });
                    });
                }
            }
        });
    }

    /// The product of few rows, which each thread packs.
    ///
    /// # Safety
    /// As [`Product::run`].
    unsafe fn few(&self, pool: &Pool) {
        let (Shape { n, k, .. }, nr) = (self.shape, self.kernel.nr);
        let across = pieces(n, nr, LOAD / k.max(1));
        pool.tasks_after(across, |last, task| {
            let cols = part(n, nr, task, across);
            // SAFETY: this task writes its columns of c only.
            self.opened(|| unsafe {
                match self.thin(&cols) {
                    None => self.few_columns(cols, last.is_none()),
                    Some(left) if left.is_empty() => {}
                    Some(left) => self.few_columns(left, true),
                }
            });
        });
    }

    /// These columns of it, on this thread, which packs the rows if it has not yet.
    ///
    /// # Safety
    /// `c` has room for the shape, no other thread touches that part of it, and the kernel's registers are open.
    unsafe fn few_columns(&self, cols: Range<usize>, first: bool) {
        let (nr, k, depth) = (self.kernel.nr, self.depth(), self.block_depth());
        let (rows, height) = (0..self.shape.m, self.shape.m.next_multiple_of(self.kernel.mr));
        let aside = self.keeps_aside();
        S::with_pack(|Pack { a, b, sums }| {
            let sums = room(sums, if aside { rows.len() * nr } else { 0 });
            let sums = aside.then_some((sums.as_mut_ptr(), nr, 0));
            let a = room(a, height * k);
            let b = room(b, nr * depth.min(k));
            if first {
                self.depths().for_each(|d| self.pack_a(&mut a[height * d.start..], &rows, &d));
            }
            for cols in blocks(&cols, nr) {
                for depths in self.depths() {
                    self.pack_b(b, &cols, &depths, true);
                    let a = &a[height * depths.start..];
                    let (rows, cols) = (rows.clone(), cols.clone());
                    // SAFETY: a part of the caller's part.
                    unsafe { self.tiles(&Blocks { rows, cols, depths, a, b, sums }) };
                }
            }
        });
    }

    pub(super) fn keeps(&self) -> bool {
        matches!(self.init, Init::Keep)
    }

    fn depth(&self) -> usize {
        self.kernel.unit.depth(self.shape.k)
    }

    /// Depth of a block.
    fn block_depth(&self) -> usize {
        even(self.depth(), if self.keeps() { KEPT } else { self.kernel.depth }, SQUARE)
    }

    /// Whether sums are kept aside: a result that is narrower than they are must not be rounded between blocks.
    pub(super) fn keeps_aside(&self) -> bool {
        size_of::<C>() < size_of::<S>() && self.depth() > self.block_depth()
    }

    /// The blocks of the depth: one where there is none, for what is added to no sums.
    pub(super) fn depths(&self) -> impl Iterator<Item = Range<usize>> + use<S, A, B, C> {
        let (k, depth) = (self.depth(), self.block_depth());
        (0..k.max(1)).step_by(depth).map(move |p| p..k.min(p + depth))
    }

    fn pack_a(&self, out: &mut [S], rows: &Range<usize>, depths: &Range<usize>) {
        if self.kernel.unit == Unit::Tile
            && let Some((out, src, transpose)) = self.halves(out, self.a, self.kernel.mr)
        {
            return pack_tiles(out, src, rows.clone(), depths.clone(), self.shape.k, transpose);
        }
        let ahead = self.transpose(self.kernel.mr).side * self.a.rs;
        self.pack(out, self.a, rows, depths, self.kernel.mr, ahead);
    }

    fn pack_b(&self, out: &mut [S], cols: &Range<usize>, depths: &Range<usize>, few: bool) {
        let nr = self.kernel.nr;
        let b = match self.b {
            Right::Plain(b) => b,
            Right::Blocks(b) => return b.pack(out, cols, depths, nr),
            Right::Turned(b) => return b.pack_turned(out, cols, depths, nr, self.transpose(nr)),
        };
        // What is packed next: the next panel's rows, or those of this panel further on.
        let ahead = match (few, depths.end < self.depth()) {
            (false, _) => self.transpose(nr).side * b.rs,
            (true, true) => depths.len() * b.cs,
            (true, false) => (nr * b.rs).saturating_sub(depths.start * b.cs),
        };
        self.pack(out, b, cols, depths, nr, ahead);
    }

    fn pack<T: Lift<S>>(
        &self,
        out: &mut [S],
        src: Operand<T>,
        rows: &Range<usize>,
        depths: &Range<usize>,
        width: usize,
        ahead: usize,
    ) {
        if self.kernel.unit != Unit::Element
            && let Some((out, src, transpose)) = self.halves(out, src, width)
        {
            return pack_pairs(out, src, rows.clone(), depths.clone(), self.shape.k, transpose, width, ahead);
        }
        let transpose = self.transpose(width);
        pack(out, src, rows.start, rows.len(), depths.start, depths.len(), width, transpose, ahead);
    }

    /// How panels of so many rows are packed.
    fn transpose(&self, width: usize) -> &Transpose<S> {
        let Kernel { transpose, transpose_small, .. } = &self.kernel;
        if width < transpose.side { transpose_small } else { transpose }
    }

    /// Room, an operand and a transposition by their own types, where those are float32 and bf16.
    fn halves<'o, T: Lift<S>>(
        &self,
        out: &'o mut [S],
        src: Operand<'o, T>,
        width: usize,
    ) -> Option<(&'o mut [f32], Operand<'o, bf16>, &Transpose<f32>)> {
        let transpose = same::<*const Transpose<S>, *const Transpose<f32>>(self.transpose(width))?;
        let data = same::<*const T, *const bf16>(src.data.as_ptr())?;
        // SAFETY: sums are in f32 and elements in bf16 (just found): the types are one.
        unsafe {
            let out = std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<f32>(), out.len());
            let data = std::slice::from_raw_parts(data, src.data.len());
            Some((out, Operand { data, rs: src.rs, cs: src.cs }, &*transpose))
        }
    }

    /// Whole tiles of few rows straight from the operands, where they lie right: the columns that are left then.
    ///
    /// # Safety
    /// As [`Product::few`].
    unsafe fn thin(&self, cols: &Range<usize>) -> Option<Range<usize>> {
        let (Thin { nr, side, run, narrow, .. }, Shape { m, k, .. }) = (&self.kernel.thin, self.shape);
        let run = same(*run).or_else(|| same(*narrow)).unwrap_or(&[] as &[ThinTile<S, B>]);
        let (a, b) = match self.b {
            Right::Plain(b) => (self.a, b),
            // SAFETY: by this function's contract.
            Right::Blocks(b) => return unsafe { self.thin_blocks(b, cols) },
            Right::Turned(_) => return None,
        };
        let dense = a.cs == 1 && b.cs == 1 && k > 0 && k.is_multiple_of(*side);
        let from = same::<*const A, *const S>(a.data.as_ptr()).filter(|_| dense && !run.is_empty())?;
        if m > THIN || self.keeps() {
            return None;
        }
        let adds = adds(self.init);
        for tile in blocks(cols, *nr).filter(|tile| tile.len() == *nr) {
            for rows in blocks(&(0..m), run.len()) {
                // SAFETY: the tile is in the caller's part of c, and in what is added (asserted); both operands have
                // rows of k elements for it (asserted).
                unsafe {
                    let dest = in_place(self.c, self.shape, rows.start, tile.start, false, false, adds)?;
                    let b_rows = b.data.as_ptr().add(tile.start * b.rs);
                    run[rows.len() - 1](k, from.add(rows.start * a.rs), a.rs, b_rows, b.rs, dest);
                }
            }
        }
        Some(cols.end - cols.len() % nr..cols.end)
    }

    /// As [`Product::thin`], of `b` in blocks.
    ///
    /// # Safety
    /// As [`Product::few`].
    unsafe fn thin_blocks(&self, b: Panels, cols: &Range<usize>) -> Option<Range<usize>> {
        let (a, Shape { m, k, .. }) = (self.a, self.shape);
        let run = match b.bits {
            Bits::Four => self.kernel.thin.fours,
            Bits::Eight => self.kernel.thin.eights,
        };
        let fits = a.cs == 1 && k > 0 && m <= 2 * run.len() && cols.start.is_multiple_of(LANES);
        let from = same::<*const A, *const S>(a.data.as_ptr()).filter(|_| fits)?;
        let (whole, adds) = (cols.end - cols.len() % LANES, adds(self.init));
        for tiles in blocks(&(cols.start..whole), 2 * LANES) {
            for rows in blocks(&(0..m), run.len()) {
                // SAFETY: the tiles are in the caller's part of c, and in what is added (asserted); both operands have
                // rows of k elements for them (asserted).
                unsafe {
                    let dest = in_place(self.c, self.shape, rows.start, tiles.start, false, false, adds)?;
                    let (values, factors) = b.tile(tiles.start / LANES);
                    let from = from.add(rows.start * a.rs);
                    run[rows.len() - 1](k, tiles.len() / LANES, from, a.rs, values, factors, dest);
                }
            }
        }
        Some(whole..cols.end)
    }

    /// Every tile of a pair of blocks.
    ///
    /// # Safety
    /// As [`Product::few`].
    unsafe fn tiles(&self, x: &Blocks<S>) {
        let (mr, nr) = (self.kernel.mr, self.kernel.nr);
        let mut tile = [S::ZERO; TILE];
        let lines = x.depths.len().div_ceil(Soon::STEPS) * 64 / size_of::<S>();
        for cols in blocks(&x.cols, nr) {
            let panel = x.b.as_ptr().wrapping_add((cols.end - x.cols.start) * x.depths.len());
            for (i, rows) in blocks(&x.rows, mr).enumerate() {
                let next = match rows.end < x.rows.end {
                    true => (rows.end, cols.clone()),
                    false => (x.rows.start, cols.end..x.cols.end.min(cols.end + nr)),
                };
                let height = if next.1.is_empty() { 0 } else { mr.min(x.rows.end - next.0) };
                let (ld, panel) = (self.shape.ldc, panel.wrapping_add(i * lines));
                // SAFETY: inside c, or just behind it.
                let at = unsafe { self.c.at(next.0 * ld + next.1.start) };
                let soon = Soon::new(at, ld, next.1.len(), height, panel);
                // SAFETY: a part of the caller's part.
                unsafe { self.tile(x, rows, cols.clone(), soon, &mut tile) };
            }
        }
    }

    /// One tile; `aside` holds one that cannot be made in place.
    ///
    /// # Safety
    /// As [`Product::few`].
    #[inline(always)]
    unsafe fn tile(
        &self,
        x: &Blocks<S>,
        rows: Range<usize>,
        cols: Range<usize>,
        soon: Soon,
        aside: &mut [S; TILE],
    ) {
        let (nr, kc) = (self.kernel.nr, x.depths.len());
        // What the result held is added to each block's sums, or to all of them where those are aside.
        let (kept, last) = (x.sums.is_some(), x.depths.end == self.depth());
        let resume = x.depths.start > 0 && (!self.keeps() || kept);
        let add_old = self.keeps() && (!kept || last);
        let adds = if last { adds(self.init) } else { (None, None) };
        // SAFETY: panels are packed to whole multiples of mr and nr; a destination has these rows of nr columns.
        let run = |dest: Dest<S>| unsafe {
            let a = x.a.as_ptr().add((rows.start - x.rows.start) * kc);
            let b = x.b.as_ptr().add((cols.start - x.cols.start) * kc);
            self.kernel.run[rows.len() - 1](kc, a, b, dest);
        };
        if cols.len() == nr
            // SAFETY: the tile is in the caller's part of c, and in what is added (asserted).
            && let Some(dest) = unsafe { in_place(self.c, self.shape, rows.start, cols.start, resume, add_old, adds) }
        {
            return run(Dest { soon, ..dest });
        }
        let (out, ld) = match x.sums {
            // SAFETY: the tile is in the block's columns and this part's rows, which the sums have.
            Some((at, ld, first)) => unsafe {
                (at.add((rows.start - first) * ld + cols.start - x.cols.start), ld)
            },
            None => (aside.as_mut_ptr(), nr),
        };
        let tile = rows.clone().enumerate().map(|(i, row)| {
            // SAFETY: row `row`, columns `cols` are inside the caller's part; as many sums are in each row aside.
            unsafe {
                let c = self.c.at(row * self.shape.ldc + cols.start);
                let sums = std::slice::from_raw_parts_mut(out.add(i * ld), cols.len());
                (row, std::slice::from_raw_parts_mut(c, cols.len()), sums)
            }
        });
        if resume && !kept {
            for (_, c, sums) in tile.clone() {
                sums.iter_mut().zip(c).for_each(|(sum, c)| *sum = c.up());
            }
        }
        let null = std::ptr::null();
        run(Dest { out, ld, resume, base: null, base_ld: 0, bias: null, soon });
        if !kept || last {
            for (row, c, sums) in tile {
                finish_row(c, sums, add_old, adds, row * self.shape.n + cols.start, cols.start);
            }
        }
    }
}

/// `range` in pieces of `size`, the last one shorter.
pub(super) fn blocks(range: &Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(size.max(1)).map(move |from| from..end.min(from + size))
}

/// Size of blocks of `n` that are of one size, but for the last: of at most about `most`, a multiple of `unit`.
fn even(n: usize, most: usize, unit: usize) -> usize {
    let blocks = n.div_ceil(most).max(1);
    n.div_ceil(blocks).next_multiple_of(unit).max(1)
}

/// How many pieces `n` is cut into, of at least `least` and of whole units: so that no thread waits long for another,
/// and none is so small that handing it over takes longer.
pub(super) fn pieces(n: usize, unit: usize, least: usize) -> usize {
    n.div_ceil(least.next_multiple_of(unit).max(unit))
}
