//! What a micro-kernel is.

use super::soon::Soon;
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
    pub transpose_small: Transpose<S>,
    /// Tiles of few rows.
    pub thin: Thin<S>,
    /// Tiles of more of them.
    pub turned: Turned<S>,
    /// Tiles of operands that lie depth after depth.
    pub outer: Outer<S>,
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

/// `sums[i][j] += a[p][i] b[p][j]`, `p` from 0 to `k` in order, each a fused multiply-add: of depths `p` that are
/// `a_ld` and `b_ld` elements apart, a few elements of a and whole registers of b. Sums begin at nothing, or with
/// `resume` at what is in `out`, where the row of each element of a follows the one before.
///
/// Reads that much, and asks memory for what lies behind it in a. Needs the CPU features that it was chosen for.
pub type OuterTile<S> =
    unsafe fn(k: usize, a: *const S, a_ld: usize, b: *const S, b_ld: usize, out: *mut S, resume: bool);

/// The kernels whose tile is a few elements of one operand by all of the other, both read as they lie.
#[derive(Clone, Copy)]
pub struct Outer<S: 'static> {
    /// Elements of a register.
    pub lanes: usize,
    /// For 1, 2, ... registers of b: elements of a, and the kernel.
    pub run: &'static [(usize, OuterTile<S>)],
    /// Registers of b up to which tiles on their side are faster than packed ones.
    pub on_side: usize,
}

impl<S> Outer<S> {
    pub const NONE: Self = Outer { lanes: 1, run: &[], on_side: 0 };
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

/// The kernels `$name` of each size of a tile.
macro_rules! of_sizes {
    ($name:ident, $($size:literal)*) => { &[$($name::<$size>),*] };
}
pub(super) use of_sizes;
