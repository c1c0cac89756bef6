// What attention.cu, attention_decode.cu and attention_sm90.cu share: which keys a query sees, the softmax on the
// accumulators of matrix instructions, and the way of results to memory.
//
// A thread holds of 16 rows of scores the two rows g = lane / 4 and g + 8, and of each 8 columns the two columns
// 2 (lane % 4) and the next: element i is row g + 8 (i / 2 % 2), column 8 (i / 4) + 2 (lane % 4) + i % 2. That is the
// layout of mma.m16n8k16 and of wgmma, so this code serves both.
#pragma once
#include "common.cuh"

constexpr float LOG2_E = 1.44269504f;

// ---- what a query sees ---------------------------------------------------------------------------------------------

// The tiles of `KEYS` keys that a tile of queries sees, in order: those of the prefix, then those of the segment up to
// the last query. They are counted from the start of the prefix and of the segment, so that the result of a row does
// not depend on the tile of queries it is in.
template <unsigned KEYS> struct KeySteps {
    QueryTile tile;
    unsigned of_prefix, count;

    DEVICE explicit KeySteps(const QueryTile &tile) : tile(tile) {
        of_prefix = (tile.prefix_end - tile.prefix + KEYS - 1) / KEYS;
        count = of_prefix + (tile.end - tile.segment + KEYS - 1) / KEYS;
    }
    // First key of a step.
    DEVICE unsigned first(unsigned step) const {
        return step < of_prefix ? tile.prefix + step * KEYS : tile.segment + (step - of_prefix) * KEYS;
    }
    // End of the keys that there are in the step's interval.
    DEVICE unsigned end(unsigned step) const { return step < of_prefix ? tile.prefix_end : tile.end; }
    // End of the keys of the step's interval that a query sees.
    DEVICE unsigned visible_end(unsigned step, unsigned query) const {
        return step < of_prefix ? tile.prefix_end : query + 1;
    }
};

// Number of rows from `row` on before `end`.
DEVICE unsigned rows_before(unsigned row, unsigned end) { return row < end ? end - row : 0; }

// First columns of a query head and of its key head in a row of qkv, and the width of the row.
struct HeadColumns {
    unsigned q, k, v, width;

    DEVICE HeadColumns(unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned head, unsigned kv_head)
        : q(head * head_dim), k((heads + kv_head) * head_dim), v((heads + kv_heads + kv_head) * head_dim),
          width((heads + 2 * kv_heads) * head_dim) {}
};

// ---- softmax -------------------------------------------------------------------------------------------------------

// Over the four lanes that share two rows; each gets the same bits.
DEVICE float quad_sum(float x PLACE) {
    x += __shfl_xor_sync(0xffffffffu, x, 1 HERE);
    return x + __shfl_xor_sync(0xffffffffu, x, 2 HERE);
}
DEVICE float quad_max(float x PLACE) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1 HERE));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2 HERE));
}

// Over the 8 lanes of a team; each gets the same bits.
DEVICE float octet_sum(float x PLACE) {
#pragma unroll
    for (unsigned lanes = ATTENTION_TEAM / 2; lanes; lanes /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, lanes HERE);
    }
    return x;
}

// Column of element `i`, when column 0 is number `first`.
DEVICE unsigned column_of(unsigned i, unsigned first) { return first + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Hides the columns from `end` on, of either row; `first` is the number of column 0.
template <unsigned N> DEVICE void hide_columns(float (&s)[N], unsigned first, unsigned end0, unsigned end1) {
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
        s[i] = column_of(i, first) < (i / 2 % 2 ? end1 : end0) ? s[i] : -INFINITY;
    }
}

// Hides the columns before `row`, and before `row` + 8 in the second row; `first` is the number of column 0.
template <unsigned N> DEVICE void hide_earlier_columns(float (&s)[N], unsigned first, unsigned row) {
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
        s[i] = column_of(i, first) >= row + 8 * (i / 2 % 2) ? s[i] : -INFINITY;
    }
}

// Softmax of two rows that come in pieces (Milakov & Gimelshein, 2018). The maximum is that of the unscaled scores and
// is subtracted before scaling, so that the largest term is exactly 1 at any magnitude.
struct OnlineSoftmax {
    float top[2] = {-INFINITY, -INFINITY};
    float sum[2] = {0.0f, 0.0f}; // over this thread's columns

    // Turns scores into exp(scale (s - top)); what was computed before is to be multiplied by `correction`. The first
    // piece of a row must have a visible column.
    template <unsigned N> DEVICE void add(float (&s)[N], float (&correction)[2], float scale_log2 PLACE) {
        float highest[2] = {top[0], top[1]};
#pragma unroll
        for (unsigned i = 0; i < N; i++) {
            highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], s[i]);
        }
#pragma unroll
        for (unsigned h = 0; h < 2; h++) {
            highest[h] = quad_max(highest[h] HERE);
            correction[h] = exp2_approx((top[h] - highest[h]) * scale_log2);
            top[h] = highest[h];
            sum[h] *= correction[h];
        }
#pragma unroll
        for (unsigned i = 0; i < N; i++) {
            s[i] = exp2_approx((s[i] - top[i / 2 % 2]) * scale_log2);
            sum[i / 2 % 2] += s[i];
        }
    }
    // Ends both rows: the factors for what was computed with the terms, and the log-sum-exp.
    DEVICE void finish(float (&factor)[2], float (&lse)[2], float scale PLACE) const {
#pragma unroll
        for (unsigned h = 0; h < 2; h++) {
            const float total = quad_sum(sum[h] HERE);
            factor[h] = 1.0f / total;
            lse[h] = multiply_rounded(top[h], scale) + logf(total);
        }
    }
};

// exp(scale s - lse). The product is rounded as it is in lse, so that at any magnitude a row with one key gives 1.
DEVICE float probability(float s, float lse, float scale) {
    return exp2_approx((multiply_rounded(s, scale) - lse) * LOG2_E);
}

// Log-sum-exp and delta of a query row; a row from `end` on gets such that its probabilities are 0.
DEVICE float2 row_stats(const AttentionBwParams &p, unsigned head, unsigned row, unsigned end) {
    if (row >= end) {
        return make_float2(INFINITY, 0.0f);
    }
    return reinterpret_cast<const float2 *>(p.stats)[static_cast<size_t>(head) * p.rows + row];
}

template <unsigned N> DEVICE void scale_rows(float (&x)[N], const float (&factor)[2]) {
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
        x[i] *= factor[i / 2 % 2];
    }
}

// Sixteen columns from 16 k on of accumulators as the left operand of the next product.
template <unsigned N> DEVICE void left_operand(unsigned (&a)[4], const float (&x)[N], unsigned k) {
#pragma unroll
    for (unsigned r = 0; r < 4; r++) {
        a[r] = pack_bf16(x[8 * k + 2 * r], x[8 * k + 2 * r + 1]);
    }
}

// d[16, 8] += a[16, 16] b[16, 8], of which d is four of a thread's accumulators.
DEVICE void multiply_add(float *d, const unsigned (&a)[4], unsigned b0, unsigned b1 PLACE) {
    mma_m16n8k16_bf16(reinterpret_cast<float(&)[4]>(*d), a, b0, b1 HERE);
}

// ---- tiles in shared memory ----------------------------------------------------------------------------------------

// Says that the kernel uses shared memory up to `end`: the emulation fails where a launch has less.
DEVICE void shared_reaches(const void *end PLACE) {
    smem_address(static_cast<const unsigned char *>(end) - 1 HERE);
}

// Bytes of a row of HD bf16.
template <unsigned HD> constexpr unsigned ROW_BYTES = 2 * HD;

// Offset of 16 bytes in a tile of rows of HD bf16, whose 16-byte chunks are permuted within 128 bytes so that eight
// rows' chunks of one column lie in different banks.
template <unsigned HD> DEVICE unsigned tile_offset(unsigned row, unsigned chunk) {
    return row * ROW_BYTES<HD> + (chunk ^ row % 8) * 16;
}

// Writes 16 rows of accumulators, multiplied by a factor a row, as bf16 to `out`: the first `rows` of them and their
// first `head_dim` columns. They go through `scratch`, 16 * HD * 2 bytes of shared memory that nobody else uses.
template <unsigned HD>
DEVICE void store_rows(bf16 *out, size_t stride, unsigned rows, unsigned head_dim, const float (&x)[HD / 2],
                       const float (&factor)[2], unsigned char *scratch PLACE) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < HD / 2; i += 2) {
        const unsigned h = i / 2 % 2;
        unsigned char *to = scratch + tile_offset<HD>(lane / 4 + 8 * h, i / 4) + lane % 4 * 4;
        *reinterpret_cast<unsigned *>(to) = pack_bf16(x[i] * factor[h], x[i + 1] * factor[h]);
    }
    __syncwarp();
#pragma unroll
    for (unsigned i = lane; i < 2 * HD; i += 32) {
        const unsigned row = i / (HD / 8);
        const unsigned chunk = i % (HD / 8);
        if (row < rows && chunk * 8 < head_dim) {
            store_16(out + row * stride + chunk * 8, load_16(scratch + tile_offset<HD>(row, chunk) HERE) HERE);
        }
    }
}
