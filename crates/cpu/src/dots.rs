//! Dot products of `f32` for scores of decoding, on AVX2 and FMA; AVX-512 runs the same, so its bits are the same.
//!
//! Compilers do not find this form: the sums of up to four products are joined at once.
#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

/// `out[query, row_len] = queries · keysᵀ` for keys that lie `stride` apart. What a product sums in which order depends
/// on the width of a head alone.
#[target_feature(enable = "avx2,fma")]
pub fn scores(out: &mut [f32], row_len: usize, queries: &[&[f32]], keys: &[f32], stride: usize) {
    for (out, queries) in out.chunks_mut(4 * row_len).zip(queries.chunks(4)) {
        match *queries {
            [a] => blocks::<1, 4>(out, row_len, [a], keys, stride),
            [a, b] => blocks::<2, 2>(out, row_len, [a, b], keys, stride),
            [a, b, c] => blocks::<3, 1>(out, row_len, [a, b, c], keys, stride),
            [a, b, c, d] => blocks::<4, 1>(out, row_len, [a, b, c, d], keys, stride),
            _ => unreachable!("chunks of four"),
        }
    }
}

/// `N` queries with `K` keys at a time, and with single ones at the end.
#[target_feature(enable = "avx2,fma")]
fn blocks<const N: usize, const K: usize>(
    out: &mut [f32],
    row_len: usize,
    queries: [&[f32]; N],
    keys: &[f32],
    stride: usize,
) {
    let head_dim = queries[0].len();
    let count = keys.len().div_ceil(stride);
    let key = |t: usize| &keys[t * stride..][..head_dim];
    let mut put = |t: usize, of_keys: usize, dots: [f32; 4]| {
        for i in 0..N {
            out[i * row_len + t..][..of_keys].copy_from_slice(&dots[i * of_keys..][..of_keys]);
        }
    };
    let mut t = 0;
    while t + K <= count {
        let mut block = [key(t); K];
        for (j, slot) in block.iter_mut().enumerate() {
            *slot = key(t + j);
        }
        put(t, K, dots(queries, block));
        t += K;
    }
    while t < count {
        put(t, 1, dots(queries, [key(t)]));
        t += 1;
    }
}

/// The products of each query with each key, four at most, by query: of 16 columns at a time in two registers each.
#[target_feature(enable = "avx2,fma")]
fn dots<const N: usize, const K: usize>(queries: [&[f32]; N], keys: [&[f32]; K]) -> [f32; 4] {
    const { assert!(N * K <= 4) };
    let head_dim = queries[0].len();
    assert!(queries.iter().chain(&keys).all(|x| x.len() == head_dim), "vectors of one length");
    let whole = head_dim - head_dim % 16;
    let mut sums = [[_mm256_setzero_ps(); 4]; 2];
    for c in (0..whole).step_by(16) {
        for (half, sums) in sums.iter_mut().enumerate() {
            // SAFETY: 8 columns from c + 8 half on end at `whole` or before.
            let load = |x: &[f32]| unsafe { _mm256_loadu_ps(x.as_ptr().add(c + 8 * half)) };
            let mut k = [_mm256_setzero_ps(); K];
            for (k, key) in k.iter_mut().zip(&keys) {
                *k = load(key);
            }
            for (i, query) in queries.iter().enumerate() {
                let q = load(query);
                for (j, &k) in k.iter().enumerate() {
                    sums[i * K + j] = _mm256_fmadd_ps(q, k, sums[i * K + j]);
                }
            }
        }
    }
    let [low, high] = sums;
    let [a, b, c, d]: [_; 4] = std::array::from_fn(|i| _mm256_add_ps(low[i], high[i]));
    let quads = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let joined = _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps::<1>(quads));
    let mut out = [0.0; 4];
    // SAFETY: there is room for four.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), joined) };
    if whole < head_dim {
        for (i, query) in queries.iter().enumerate() {
            for (j, key) in keys.iter().enumerate() {
                for (q, k) in query[whole..].iter().zip(&key[whole..]) {
                    out[i * K + j] += q * k;
                }
            }
        }
    }
    out
}
