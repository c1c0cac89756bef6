//! What a micro-kernel is, and the text of those that x86 has.

use crate::prefetch::{prefetch, prefetch_far};
use half::bf16;

/// Where a micro-kernel puts its tile: `out = base + (bias + sums)`, row `i` at `out + i * ld`. A null `base` or `bias`
/// is left out of the sum.
#[derive(Clone, Copy)]
pub struct Dest<S> {
    pub out: *mut S,
    pub ld: usize,
    /// The sums go on from what is in `out`.
    pub resume: bool,
    pub base: *const S,
    pub base_ld: usize,
    pub bias: *const S,
    pub soon: Soon,
}

/// What is asked of memory while a tile is made, a line now and then: many at once would hold up what the kernel reads.
#[derive(Clone, Copy)]
pub struct Soon {
    /// Rows of the result that come next.
    rows: *const i8,
    /// Bytes from one to the next.
    ld: usize,
    /// Their bytes.
    width: usize,
    /// Rows that are left.
    left: usize,
    /// Bytes of the first that are asked for.
    at: usize,
    /// What is read of b when this panel of it is done with.
    panel: *const i8,
}

impl Soon {
    /// Steps of the depth from one line to the next.
    pub const STEPS: usize = 8;
    pub const NOTHING: Self =
        Soon { rows: std::ptr::null(), ld: 0, width: 0, left: 0, at: 0, panel: std::ptr::null() };

    /// So many rows of `width` elements, `ld` apart, and the lines of `panel`.
    pub fn new<T, S>(rows: *const T, ld: usize, width: usize, left: usize, panel: *const S) -> Self {
        let bytes = size_of::<T>();
        Soon { rows: rows.cast(), ld: ld * bytes, width: width * bytes, left, at: 0, panel: panel.cast() }
    }

    /// Asks for the next line of each.
    #[inline(always)]
    pub fn ask(&mut self) {
        if self.left > 0 {
            prefetch(self.rows.wrapping_add(self.at), 1);
            self.at += 64;
            if self.at >= self.width + 64 {
                (self.at, self.left) = (0, self.left - 1);
                self.rows = self.rows.wrapping_add(self.ld);
            }
        }
        prefetch_far(self.panel);
        self.panel = self.panel.wrapping_add(64);
    }

    /// Asks for all of the rows, for a kernel that has no better time.
    #[inline(always)]
    pub fn ask_rows(self) {
        for row in 0..self.left {
            prefetch(self.rows.wrapping_add(row * self.ld), self.width);
        }
    }
}

/// `sums[i][j] += a[p][i] b[p][j]`, `p` from 0 to `kc` in order, each a fused multiply-add where the CPU has one.
///
/// Reads kc panels of `mr` elements of a and of `nr` of b; reads and writes the rows of the tile that it is for, `nr`
/// elements each. Needs the CPU features that it was chosen for.
pub type Tile<S> = unsafe fn(kc: usize, a: *const S, b: *const S, dest: Dest<S>);

/// The micro-kernels of a type and an instruction set, and the sizes of blocks that suit them.
pub struct Kernel<S: 'static> {
    pub mr: usize,
    pub nr: usize,
    /// Largest depth of a packed block. A panel of b stays in the L1 cache where that holds back the kernel; wider
    /// registers use up less of a panel a cycle, and the L2 cache keeps up with them.
    pub depth: usize,
    /// Panels of a packed block of a, which stays in the L2 cache.
    pub panels: usize,
    /// Those for tiles of 1, 2, ... `mr` rows.
    pub run: &'static [Tile<S>],
    /// Transposes a square while packing.
    pub transpose: Transpose<S>,
    /// A smaller one, for panels that are narrower than that.
    pub transpose_narrow: Transpose<S>,
    /// Tiles of few rows.
    pub thin: Thin<S>,
    /// Tiles of more of them.
    pub turned: Turned<S>,
    /// What a number of its operands is.
    pub unit: Unit,
    /// Registers that it needs besides.
    pub registers: Option<Registers>,
}

/// What a number of a packed operand is of one that is as it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// An element.
    Element,
    /// Two elements of the depth, in bf16.
    Pair,
    /// The same, 16 of which are multiplied at a time: panels of a are tiles of rows, the depth is a multiple of 16.
    Tile,
}

impl Unit {
    /// Elements of the depth in a number.
    pub fn elements(self) -> usize {
        if self == Unit::Element { 1 } else { 2 }
    }

    /// Numbers that a depth of `k` elements is packed to.
    pub fn depth(self, k: usize) -> usize {
        let depth = k.div_ceil(self.elements());
        if self == Unit::Tile { depth.next_multiple_of(SQUARE) } else { depth }
    }
}

/// Makes registers ready on the calling thread, and lets go of them.
#[derive(Clone, Copy)]
pub struct Registers {
    pub open: unsafe fn(),
    pub close: unsafe fn(),
}

/// A tile as [`Tile`] makes it, of [`Thin::nr`] rows of b as they are, `b_ld` apart, and of rows of a that are `a_ld`
/// apart, each `k` elements long.
///
/// Reads that much, and asks memory for what lies as many rows of b further on. Begins with no sums: never resumes.
pub type ThinTile<S, T> =
    unsafe fn(k: usize, a: *const S, a_ld: usize, b: *const T, b_ld: usize, dest: Dest<S>);

/// One or two tiles as [`Tile`] makes it, each of a panel of 16 rows of b in blocks (`values` and `factors` of the
/// first, the other behind it), and of rows of a that are `a_ld` apart, each `k` elements long.
///
/// Reads that much. Begins with no sums: never resumes.
pub type ThinBlocks<S> = unsafe fn(
    k: usize,
    tiles: usize,
    a: *const S,
    a_ld: usize,
    values: *const i8,
    factors: *const bf16,
    dest: Dest<S>,
);

/// The kernels for tiles of 1, 2, ... rows that transpose b in registers: each of its elements is read from memory
/// once, and nothing is packed.
pub struct Thin<S: 'static> {
    /// Columns of a tile.
    pub nr: usize,
    /// What `k` must be a multiple of.
    pub side: usize,
    pub run: &'static [ThinTile<S, S>],
    /// For b in bf16.
    pub narrow: &'static [ThinTile<S, bf16>],
    /// For b in 8-bit blocks.
    pub eights: &'static [ThinBlocks<S>],
    /// For b in 4-bit blocks, as many.
    pub fours: &'static [ThinBlocks<S>],
}

impl<S> Thin<S> {
    pub const NONE: Self = Thin { nr: 1, side: 1, run: &[], narrow: &[], eights: &[], fours: &[] };
}

/// `sums[j][i] = b[j][p] a[p][i]`, summed over `p` below `k` in order: a tile of the result on its side, of `b` as it
/// lies, [`Turned::rows`] rows that are `b_ld` apart, and a packed panel of a. Row `j` goes to `out + j * ld`.
///
/// Reads that much, and asks memory for what lies `ahead` elements of b further on.
pub type TurnedTile<S> =
    unsafe fn(k: usize, b: *const S, b_ld: usize, a: *const S, out: *mut S, ld: usize, ahead: usize);

/// The kernels that spread elements of b, one after the other as they lie, over registers of rows of a: of few rows
/// only those are packed, not the much larger b.
pub struct Turned<S: 'static> {
    /// Rows of b of a tile.
    pub rows: usize,
    /// Rows of a in a register.
    pub lanes: usize,
    /// For panels of a of 1, 2, ... registers.
    pub run: &'static [TurnedTile<S>],
}

impl<S> Turned<S> {
    pub const NONE: Self = Turned { rows: 1, lanes: 1, run: &[] };
}

/// The kernels `$name` of tiles of each height.
#[cfg(target_arch = "x86_64")]
macro_rules! of_heights {
    ($name:ident, $($height:literal)*) => { &[$($name::<$height>),*] };
}

/// Largest `mr * nr` of any kernel.
pub const TILE: usize = 32 * 32;

/// Largest side of a square that is transposed at a time.
pub const SQUARE: usize = 16;

/// Rows put down column by column, squares of `side` rows of `side` elements at a time.
pub struct Transpose<S> {
    pub side: usize,
    pub run: Turn<S, S>,
    /// For rows in bf16.
    pub narrow: Turn<bf16, S>,
}

/// The first `width <= side` elements of column `q < depth` at `out + q * ld`, of `side` rows that are `from_ld` apart.
///
/// Reads whole squares: `depth` rounded up to a multiple of `side` from each row, and asks memory for what lies `ahead`
/// elements further on. Columns are written in order, and each may be written to its full `side`: what lies behind it
/// is written later, or is nothing. Needs the CPU features that it was chosen for.
pub type Turn<T, S> = unsafe fn(
    from: *const T,
    from_ld: usize,
    out: *mut S,
    ld: usize,
    width: usize,
    depth: usize,
    ahead: usize,
);

/// Kernels `$name` of tiles of up to `$mr` rows of `$registers` registers of `$lanes` elements.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_kernel {
    ($name:ident, $t:ty, $feature:literal, $mr:literal, $registers:literal, $lanes:literal,
     $zero:ident, $load:ident, $splat:ident, $fma:ident, $add:ident, $store:ident) => {
        /// # Safety
        /// As [`Tile`](super::kernel::Tile) says, for `H` rows.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const H: usize>(kc: usize, a: *const $t, b: *const $t, dest: Dest<$t>) {
            const NR: usize = $registers * $lanes;
            /// A panel of b stays in the L1 cache where registers are shorter; these leave the time to ask.
            const ASKS: bool = $lanes * size_of::<$t>() == 64;
            let mut acc = [[$zero(); $registers]; H];
            if dest.resume {
                for (i, row) in acc.iter_mut().enumerate() {
                    for (j, sums) in row.iter_mut().enumerate() {
                        // SAFETY: the caller gives H rows of NR elements.
                        *sums = unsafe { $load(dest.out.add(i * dest.ld + j * $lanes)) };
                    }
                }
            }
            let (first, mut a, mut b, mut soon) = (a, a, b, dest.soon);
            // Steps in a fixed number at a time, which the compiler writes one after the other.
            let mut step = || {
                if ASKS {
                    prefetch(b.wrapping_add(Soon::STEPS * NR), NR);
                }
                // SAFETY: the caller gives kc panels of MR and NR elements.
                unsafe {
                    let columns: [_; $registers] = std::array::from_fn(|j| $load(b.add(j * $lanes)));
                    for i in 0..H {
                        let x = $splat(*a.add(i));
                        for j in 0..$registers {
                            acc[i][j] = $fma(x, columns[j], acc[i][j]);
                        }
                    }
                    a = a.add($mr);
                    b = b.add(NR);
                }
            };
            for p in 0..kc / Soon::STEPS {
                soon.ask();
                prefetch(first.wrapping_add((p + 4) * Soon::STEPS * $mr), Soon::STEPS * $mr);
                (0..Soon::STEPS).for_each(|_| step());
            }
            (0..kc % Soon::STEPS).for_each(|_| step());
            finish!(acc, dest, $lanes, $load, $add, $store);
        }
    };
}

/// The end of a tile: what is added to the sums, and the result.
#[cfg(target_arch = "x86_64")]
macro_rules! finish {
    ($acc:ident, $dest:ident, $lanes:literal, $load:ident, $add:ident, $store:ident) => {
        for (i, mut row) in $acc.into_iter().enumerate() {
            for (j, sums) in row.iter_mut().enumerate() {
                // SAFETY: the caller gives H rows of NR elements of the base and of the result, and NR of bias.
                unsafe {
                    if !$dest.bias.is_null() {
                        *sums = $add($load($dest.bias.add(j * $lanes)), *sums);
                    }
                    if !$dest.base.is_null() {
                        *sums = $add($load($dest.base.add(i * $dest.base_ld + j * $lanes)), *sums);
                    }
                    $store($dest.out.add(i * $dest.ld + j * $lanes), *sums);
                }
            }
        }
    };
}

/// Kernels `$name` of [`Thin`]: tiles of two registers of 8 columns each, of b in `$narrow`.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_thin {
    ($name:ident, $narrow:ty, $feature:literal, $rows:ident, $columns:ident) => {
        /// # Safety
        /// As [`ThinTile`](super::kernel::ThinTile) says, for `H` rows.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const H: usize>(
            k: usize,
            a: *const f32,
            a_ld: usize,
            b: *const $narrow,
            b_ld: usize,
            dest: Dest<f32>,
        ) {
            let zeros = [_mm256_setzero_ps(); H];
            let (mut left, mut right) = (zeros, zeros);
            // Eight columns, over eight elements of their rows.
            macro_rules! eight {
                ($acc:ident, $first:literal, $p:ident) => {
                    // SAFETY: the caller gives 16 rows of k elements, a multiple of 8. A hint reads nothing.
                    let columns = unsafe {
                        let square = b.add($first * b_ld + $p);
                        for i in 0..8 {
                            prefetch_far(square.wrapping_add((16 + i) * b_ld));
                        }
                        $columns($rows(square, b_ld))
                    };
                    for q in 0..8 {
                        for i in 0..H {
                            // SAFETY: the caller gives H rows of k elements.
                            let x = unsafe { _mm256_set1_ps(*a.add(i * a_ld + $p + q)) };
                            $acc[i] = _mm256_fmadd_ps(x, columns[q], $acc[i]);
                        }
                    }
                };
            }
            // Sums of both halves of the tile at once where there are registers for them: more of them go on side by
            // side.
            if H <= 3 {
                for p in (0..k).step_by(8) {
                    eight!(left, 0, p);
                    eight!(right, 8, p);
                }
            } else {
                for p in (0..k).step_by(8) {
                    eight!(left, 0, p);
                }
                for p in (0..k).step_by(8) {
                    eight!(right, 8, p);
                }
            }
            let acc: [[_; 2]; H] = std::array::from_fn(|i| [left[i], right[i]]);
            finish!(acc, dest, 8, _mm256_loadu_ps, _mm256_add_ps, _mm256_storeu_ps);
        }
    };
}

/// Kernels `$name` of [`ThinBlocks`] of `$bits`, whose panel is `$registers` registers; `$column` makes one of some
/// bytes, of which half of each, and of the block's factors.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_thin_blocks {
    ($name:ident, $of:ident, $bits:expr, $feature:literal, $registers:literal, $lanes:literal, $zero:ident,
     $load:ident, $splat:ident, $fma:ident, $add:ident, $store:ident, $column:ident, $factors:ident) => {
        /// # Safety
        /// As [`ThinBlocks`](super::kernel::ThinBlocks) says, for `H` rows.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const H: usize>(
            k: usize,
            tiles: usize,
            a: *const f32,
            a_ld: usize,
            values: *const i8,
            factors: *const bf16,
            dest: Dest<f32>,
        ) {
            // SAFETY: by this function's contract.
            unsafe {
                match tiles {
                    1 => $of::<H, $registers>(k, a, a_ld, values, factors, dest),
                    _ => $of::<H, { 2 * $registers }>(k, a, a_ld, values, factors, dest),
                }
            }
        }

        /// # Safety
        /// As [`ThinBlocks`](super::kernel::ThinBlocks) says, for `H` rows and panels of `R` registers together.
        #[inline]
        #[target_feature(enable = $feature)]
        unsafe fn $of<const H: usize, const R: usize>(
            k: usize,
            a: *const f32,
            a_ld: usize,
            values: *const i8,
            factors: *const bf16,
            dest: Dest<f32>,
        ) {
            const PER: usize = $bits.per_byte();
            const FACTORS: usize = $bits.factors();
            let mut acc = [[$zero(); R]; H];
            // Where a register's values are, of panels of such a depth.
            let at = |r: usize, depth: usize| r * $lanes / LANES * depth * LANES + r * $lanes % LANES;
            for (block, p) in (0..k).step_by(BLOCK).enumerate() {
                let factors: [[_; FACTORS]; R] = std::array::from_fn(|r| {
                    let from = at(r, k.div_ceil(BLOCK) * FACTORS) + block * FACTORS * LANES;
                    // SAFETY: the caller gives whole panels.
                    std::array::from_fn(|i| unsafe { $factors(factors.add(from + i * LANES)) })
                });
                let end = k.min(p + BLOCK);
                for p in (p..end).step_by(PER) {
                    for half in 0..PER {
                        if p + half >= end {
                            break;
                        }
                        // SAFETY: as above, and H rows of k elements.
                        unsafe {
                            let columns: [_; R] = std::array::from_fn(|r| {
                                let bytes = values.add(at(r, k.div_ceil(PER)) + p / PER * LANES);
                                $column(bytes, half, factors[r])
                            });
                            for i in 0..H {
                                let x = $splat(*a.add(i * a_ld + p + half));
                                for r in 0..R {
                                    acc[i][r] = $fma(x, columns[r], acc[i][r]);
                                }
                            }
                        }
                    }
                }
            }
            finish!(acc, dest, $lanes, $load, $add, $store);
        }
    };
}

/// Kernels `$name` of [`Turned`]: tiles of `$rows` rows of b, and of registers of `$lanes` rows of a.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_turned {
    ($name:ident, $feature:literal, $rows:literal, $lanes:literal,
     $zero:ident, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
        /// # Safety
        /// As [`TurnedTile`](super::kernel::TurnedTile) says, for panels of `N` registers.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const N: usize>(
            k: usize,
            b: *const f32,
            b_ld: usize,
            a: *const f32,
            out: *mut f32,
            ld: usize,
            ahead: usize,
        ) {
            /// Elements of a cache line.
            const LINE: usize = 16;
            let mut acc = [[$zero(); N]; $rows];
            // As in tiles of packed panels, a fixed number of steps at a time.
            let mut step = |p: usize| {
                // SAFETY: the caller gives rows of k elements, and a panel of k columns.
                unsafe {
                    let columns: [_; N] = std::array::from_fn(|n| $load(a.add((p * N + n) * $lanes)));
                    for (j, sums) in acc.iter_mut().enumerate() {
                        let x = $splat(*b.add(j * b_ld + p));
                        for (sums, &column) in sums.iter_mut().zip(&columns) {
                            *sums = $fma(x, column, *sums);
                        }
                    }
                }
            };
            let whole = k - k % LINE;
            for p in (0..whole).step_by(LINE) {
                for j in 0..$rows {
                    prefetch_far(b.wrapping_add(j * b_ld + p + ahead));
                    if $lanes == LINE {
                        prefetch(b.wrapping_add(j * b_ld + p + 2 * LINE), 1);
                    }
                }
                (0..LINE).for_each(|i| step(p + i));
            }
            (whole..k).for_each(step);
            for (j, sums) in acc.into_iter().enumerate() {
                for (n, sums) in sums.into_iter().enumerate() {
                    // SAFETY: the caller has room for the tile.
                    unsafe { $store(out.add(j * ld + n * $lanes), sums) };
                }
            }
        }
    };
}

/// A [`Turn`] `$name` by way of registers.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_transpose {
    ($name:ident, $from:ty, $t:ty, $feature:literal, $lanes:literal, $rows:ident, $columns:ident, $store:ident) => {
        /// # Safety
        /// As [`Turn`](super::kernel::Turn) says.
        #[target_feature(enable = $feature)]
        unsafe fn $name(
            from: *const $from,
            from_ld: usize,
            out: *mut $t,
            ld: usize,
            _: usize,
            depth: usize,
            ahead: usize,
        ) {
            for p in (0..depth).step_by($lanes) {
                // SAFETY: the caller gives whole squares. A hint reads nothing.
                let columns = unsafe {
                    let square = from.add(p);
                    for i in 0..$lanes {
                        _mm_prefetch::<_MM_HINT_T0>(square.wrapping_add(i * from_ld + ahead).cast());
                    }
                    $columns($rows(square, from_ld))
                };
                for (q, column) in columns.into_iter().enumerate() {
                    if p + q < depth {
                        // SAFETY: the caller has room for a side of elements of the column. Masked stores are slow on
                        // AVX2.
                        unsafe { $store(out.add((p + q) * ld), column) };
                    }
                }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use {finish, of_heights, x86_kernel, x86_thin, x86_thin_blocks, x86_transpose, x86_turned};
