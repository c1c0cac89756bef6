// Rotary position embedding (Su et al., 2021), in place on the query and key heads, halves rotated as Hugging Face does
// it. Verb: rope.
//
//   lo' = lo cos - sign hi sin,  hi' = hi cos + sign lo sin     lo, hi: the halves of a head; sign -1 rotates back
//   table[position, head_dim] = cosines | sines, half of head_dim each
//
// Grid: a team of blockDim.x threads has a row, blockDim.y rows share a block. A thread rotates 16 bytes of lo against
// 16 bytes of hi at a time. Bound by memory: 2 elements of traffic for each of a query or key; the row's angles come
// from memory once and from the cache for the other heads.
#include "common.cuh"


template <class Real, unsigned count> DEVICE void rope_row(const RopeParams &p) {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= p.rows) {
        return;
    }
    const unsigned position = p.positions[row];
    check_row(position, p.table_rows);
    const unsigned half = p.head_dim / 2;
    const unsigned packs = half / count; // of a half
    const float *cosines = p.table + static_cast<size_t>(position) * p.head_dim;
    const float *sines = cosines + half;
    Real *heads = static_cast<Real *>(p.qkv) + static_cast<size_t>(row) * p.width;
    for (unsigned i = threadIdx.x; i < p.heads * packs; i += blockDim.x) {
        const unsigned at = i % packs * count;
        Real *head = heads + i / packs * p.head_dim + at;
        float lo[count], hi[count], c[count], s[count];
        load(lo, head);
        load(hi, head + half);
        load(c, cosines + at);
        load(s, sines + at);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            const float a = lo[j];
            const float b = hi[j];
            const float sine = s[j] * p.sign;
            lo[j] = a * c[j] - b * sine;
            hi[j] = b * c[j] + a * sine;
        }
        store(head, lo);
        store(head + half, hi);
    }
}

template <class Real> DEVICE void rope(const RopeParams &p) {
    if (vectorised<Real>(p.head_dim / 2, p.qkv, p.table)) {
        rope_row<Real, LANES<Real>>(p);
    } else {
        rope_row<Real, 1>(p);
    }
}

EXPORT_KERNEL(rope_f32, (ROW_THREADS), RopeParams, rope<float>);
EXPORT_KERNEL(rope_bf16, (ROW_THREADS), RopeParams, rope<bf16>);
