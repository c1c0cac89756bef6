// What kernels share: bf16 and float rows as float registers, and sums in an order that never changes.
#pragma once
#include "ptx.cuh"

// ---- elements ---------------------------------------------------------------------------------------------

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return bf16_to_float(x); }

// Rounds to nearest even.
template <class Real> DEVICE Real from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE bf16 from_float<bf16>(float x) { return float_to_bf16(x); }

// ---- 16 bytes at a time -----------------------------------------------------------------------------------

// Elements in 16 bytes.
template <class Real> constexpr unsigned LANES = 16 / sizeof(Real);

DEVICE void unpack(float (&out)[4], uint4 raw) {
    out[0] = __uint_as_float(raw.x);
    out[1] = __uint_as_float(raw.y);
    out[2] = __uint_as_float(raw.z);
    out[3] = __uint_as_float(raw.w);
}
DEVICE void unpack(float (&out)[8], uint4 raw) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        out[2 * i] = bf16_low(words[i]);
        out[2 * i + 1] = bf16_high(words[i]);
    }
}

DEVICE uint4 pack(const float (&in)[4]) {
    return make_uint4(__float_as_uint(in[0]), __float_as_uint(in[1]), __float_as_uint(in[2]), __float_as_uint(in[3]));
}
DEVICE uint4 pack(const float (&in)[8]) {
    return make_uint4(pack_bf16(in[0], in[1]), pack_bf16(in[2], in[3]), pack_bf16(in[4], in[5]),
                      pack_bf16(in[6], in[7]));
}

// `count` elements from `at` on as floats: one element if it is 1, else a multiple of LANES in 16-byte accesses.
template <unsigned count, class Real> DEVICE void load(float (&out)[count], const Real *at PLACE) {
    if constexpr (count == 1) {
        out[0] = to_float(*at);
    } else {
        static_assert(count % LANES<Real> == 0, "one element or 16 bytes at a time");
#pragma unroll
        for (unsigned i = 0; i < count; i += LANES<Real>) {
            float part[LANES<Real>];
            unpack(part, load_16(at + i HERE));
#pragma unroll
            for (unsigned j = 0; j < LANES<Real>; j++) {
                out[i + j] = part[j];
            }
        }
    }
}

template <unsigned count, class Real> DEVICE void store(Real *at, const float (&in)[count] PLACE) {
    if constexpr (count == 1) {
        *at = from_float<Real>(in[0]);
    } else {
        static_assert(count % LANES<Real> == 0, "one element or 16 bytes at a time");
#pragma unroll
        for (unsigned i = 0; i < count; i += LANES<Real>) {
            float part[LANES<Real>];
#pragma unroll
            for (unsigned j = 0; j < LANES<Real>; j++) {
                part[j] = in[i + j];
            }
            store_16(at + i, pack(part) HERE);
        }
    }
}

// Whether rows of `width` elements from `at` on can be read 16 bytes at a time.
template <class Real> DEVICE bool vectorised(unsigned long long width, const void *at) {
    return width % LANES<Real> == 0 && reinterpret_cast<size_t>(at) % 16 == 0;
}
template <class Real, class... More>
DEVICE bool vectorised(unsigned long long width, const void *at, const More *...more) {
    return vectorised<Real>(width, at) && vectorised<Real>(width, more...);
}

// ---- reductions -------------------------------------------------------------------------------------------

// Sum (or maximum) over the 32 lanes of a warp; every lane gets the same bits.
template <class T> DEVICE T warp_sum(T x PLACE) {
#pragma unroll
    for (unsigned lanes = 16; lanes; lanes /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, lanes HERE);
    }
    return x;
}

// The threads of one row, its team: blockDim.x of them, a power of two from 8 on; blockDim.y rows share a block of
// whole warps. `scratch` is shared memory with one T for each warp of the block.

// Sum of `x` over the threads of a row, in a fixed order, for all of them. Every thread of the block must call it.
template <class T> DEVICE T row_sum(T x, T *scratch PLACE) {
    if (blockDim.x < 32) {
        for (unsigned lanes = blockDim.x / 2; lanes; lanes /= 2) {
            x += __shfl_xor_sync(0xffffffffu, x, lanes HERE);
        }
        return x;
    }
    x = warp_sum(x HERE);
    if (blockDim.x == 32) {
        return x;
    }
    const unsigned warps = blockDim.x / 32;
    T *part = scratch + threadIdx.y * warps;
    block_sync(HERE_ONLY);
    if (threadIdx.x % 32 == 0) {
        part[threadIdx.x / 32] = x;
    }
    block_sync(HERE_ONLY);
    T sum = 0;
    for (unsigned i = 0; i < warps; i++) {
        sum += part[i];
    }
    return sum;
}

// ---- row numbers ------------------------------------------------------------------------------------------

// Ends the launch with an error when `row` is not in a table of `rows` rows: ids come from outside.
DEVICE void check_row(unsigned row, unsigned rows PLACE) {
    if (row >= rows) {
#ifdef __CUDACC__
        __trap();
#else
        simt::fail(place, "row %u of a table of %u rows", row, rows);
#endif
    }
}

// ---- results of matrix instructions -----------------------------------------------------------------------

// The four lanes of a quad hold columns 2q and 2q + 1 of a row of each of four neighbouring 8-column tiles, as mma and
// wgmma leave them. Afterwards lane q holds all eight columns of tile q.
DEVICE void gather_quad(float (&out)[8], const float (&tiles)[4][2] PLACE) {
    const bool odd = threadIdx.x % 2 != 0;
    const bool upper = threadIdx.x % 4 >= 2;
#pragma unroll
    for (unsigned column = 0; column < 2; column++) {
        float v[4] = {tiles[0][column], tiles[1][column], tiles[2][column], tiles[3][column]};
        // A 4 x 4 transpose: first within pairs of lanes and tiles, then of the pairs.
#pragma unroll
        for (unsigned i = 0; i < 4; i += 2) {
            const float other = __shfl_xor_sync(0xffffffffu, odd ? v[i] : v[i + 1], 1 HERE);
            v[i] = odd ? other : v[i];
            v[i + 1] = odd ? v[i + 1] : other;
        }
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            const float other = __shfl_xor_sync(0xffffffffu, upper ? v[i] : v[i + 2], 2 HERE);
            v[i] = upper ? other : v[i];
            v[i + 2] = upper ? v[i + 2] : other;
        }
#pragma unroll
        for (unsigned lane = 0; lane < 4; lane++) {
            out[2 * lane + column] = v[lane];
        }
    }
}

// ---- flat arrays ------------------------------------------------------------------------------------------

// The elements 0..len over the whole one-dimensional grid: `pack(at)` for 16 bytes from element `at` on, `one(at)` for
// each element left over at the end, or for all of them where the arrays are not aligned.
template <class Real, class Pack, class One>
DEVICE void for_each_pack(unsigned long long len, bool aligned, Pack pack, One one) {
    const unsigned long long thread = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const unsigned long long threads = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
    const unsigned long long packs = aligned ? len / LANES<Real> : 0;
    for (unsigned long long i = thread; i < packs; i += threads) {
        pack(i * LANES<Real>);
    }
    for (unsigned long long i = packs * LANES<Real> + thread; i < len; i += threads) {
        one(i);
    }
}
