//! The text of the micro-kernels that x86 has, once for its instruction sets.

/// Kernels `$name` of tiles of up to `$mr` rows of `$registers` registers of `$lanes` elements.
macro_rules! x86_kernel {
    ($name:ident, $t:ty, $feature:literal, $mr:literal, $registers:literal, $lanes:literal,
     $zero:ident, $load:ident, $splat:ident, $fma:ident, $add:ident, $store:ident) => {
        /// # Safety
        /// As [`Tile`](super::kernel::Tile) says, for `H` rows.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const H: usize>(kc: usize, a: *const $t, b: *const $t, dest: Dest<$t>) {
            const NR: usize = $registers * $lanes;
            const STEPS: usize = $crate::gemm::soon::Soon::STEPS;
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
                    $crate::prefetch::prefetch(b.wrapping_add(STEPS * NR), NR);
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
            for p in 0..kc / STEPS {
                soon.ask();
                $crate::prefetch::prefetch(first.wrapping_add((p + 4) * STEPS * $mr), STEPS * $mr);
                (0..STEPS).for_each(|_| step());
            }
            (0..kc % STEPS).for_each(|_| step());
            finish!(acc, dest, $lanes, $load, $add, $store);
        }
    };
}

/// The end of a tile: what is added to the sums, and the result.
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
                            $crate::prefetch::prefetch_far(square.wrapping_add((16 + i) * b_ld), 1);
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

/// `$body` for every `$i` below `$n`, which is 12 at most. The compiler leaves the sums of so long a loop in memory.
macro_rules! written_out {
    ($n:literal, $i:ident => $body:block) => { written_out!($n, $i => $body, 0 1 2 3 4 5 6 7 8 9 10 11) };
    ($n:literal, $i:ident => $body:block, $($at:literal)*) => {
        $(if $at < $n {
            let $i = $at;
            $body
        })*
    };
}

/// Kernels `$name` of [`Turned`]: tiles of `$rows` rows of b, and of registers of `$lanes` rows of a. Where there are
/// registers for `$held` columns of the panel, a row of b is found once for so many steps: its elements are then read
/// without an index, which takes an instruction less. With one column that form is slower than a plain loop.
macro_rules! x86_turned {
    ($name:ident, $feature:literal, $rows:literal, $lanes:literal, $held:literal,
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
            let column = |p: usize| -> [_; N] {
                // SAFETY: the caller gives a panel of k columns.
                std::array::from_fn(|n| unsafe { $load(a.add((p * N + n) * $lanes)) })
            };
            let step = |acc: &mut [[_; N]; $rows], p: usize| {
                let columns = column(p);
                for (j, sums) in acc.iter_mut().enumerate() {
                    // SAFETY: the caller gives rows of k elements.
                    let x = unsafe { $splat(*b.add(j * b_ld + p)) };
                    for (sums, &column) in sums.iter_mut().zip(&columns) {
                        *sums = $fma(x, column, *sums);
                    }
                }
            };
            let whole = k - k % LINE;
            for p in (0..whole).step_by(LINE) {
                for j in 0..$rows {
                    $crate::prefetch::prefetch_far(b.wrapping_add(j * b_ld + p + ahead), 1);
                    // Wider registers leave the time.
                    if $lanes == LINE {
                        $crate::prefetch::prefetch(b.wrapping_add(j * b_ld + p + 2 * LINE), 1);
                    }
                }
                if $held == 1 {
                    (0..LINE).for_each(|i| step(&mut acc, p + i));
                    continue;
                }
                for p in (p..p + LINE).step_by($held) {
                    let columns: [_; $held] = std::array::from_fn(|q| column(p + q));
                    written_out!($rows, j => {
                        for (q, columns) in columns.iter().enumerate() {
                            // SAFETY: as above.
                            let x = unsafe { $splat(*b.add(j * b_ld + p + q)) };
                            for (sums, &column) in acc[j].iter_mut().zip(columns) {
                                *sums = $fma(x, column, *sums);
                            }
                        }
                    });
                }
            }
            (whole..k).for_each(|p| step(&mut acc, p));
            for (j, sums) in acc.into_iter().enumerate() {
                for (n, sums) in sums.into_iter().enumerate() {
                    // SAFETY: the caller has room for the tile.
                    unsafe { $store(out.add(j * ld + n * $lanes), sums) };
                }
            }
        }
    };
}

/// Kernels `$name` of [`Outer`], of registers of `$lanes` elements.
macro_rules! x86_outer {
    ($name:ident, $feature:literal, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $fma:ident,
     $store:ident) => {
        /// # Safety
        /// As [`OuterTile`](super::kernel::OuterTile) says, for `H` rows of a and `N` registers of b.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const H: usize, const N: usize>(
            k: usize,
            a: *const f32,
            a_ld: usize,
            b: *const f32,
            b_ld: usize,
            out: *mut f32,
            resume: bool,
        ) {
            let mut acc = [[$zero(); N]; H];
            if resume {
                for (i, sums) in acc.iter_mut().enumerate() {
                    for (n, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller has the tile's sums.
                        *sums = unsafe { $load(out.add((i * N + n) * $lanes)) };
                    }
                }
            }
            let (mut a, mut b) = (a, b);
            for _ in 0..k {
                // SAFETY: the caller gives k rows of N registers of b and of H elements of a.
                unsafe {
                    let columns: [_; N] = std::array::from_fn(|n| $load(b.add(n * $lanes)));
                    for (i, sums) in acc.iter_mut().enumerate() {
                        let x = $splat(*a.add(i));
                        for (sums, &column) in sums.iter_mut().zip(&columns) {
                            *sums = $fma(x, column, *sums);
                        }
                    }
                }
                $crate::prefetch::prefetch(a.wrapping_add(H), H);
                (a, b) = (a.wrapping_add(a_ld), b.wrapping_add(b_ld));
            }
            for (i, sums) in acc.into_iter().enumerate() {
                for (n, sums) in sums.into_iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { $store(out.add((i * N + n) * $lanes), sums) };
                }
            }
        }
    };
}

/// A [`Turn`] `$name` by way of registers.
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
                        $crate::prefetch::prefetch(square.wrapping_add(i * from_ld + ahead), 1);
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

pub(super) use {
    finish, written_out, x86_kernel, x86_outer, x86_thin, x86_thin_blocks, x86_transpose, x86_turned,
};
