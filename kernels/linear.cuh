// What linear.cu and linear_sm90.cu share: the three products as one, the order of the tiles, and how a sum becomes a
// result.
#pragma once
#include "common.cuh"

// out[rows, columns] = sum over the depth d of left(row, d) · right(column, d):
//                    out           left                  right
//   forward          y[m, n]       x[m, k]               w[n, k]
//   input_gradient   dx[m, k]      dy[m, n]              w[n, k], the depth runs down its rows
//   weight_gradient  dw[n, k] +=   dy[m, n], likewise    x[m, k], likewise
enum class Product { forward, input_gradient, weight_gradient };

// Whether neighbours in memory are neighbours along the depth.
template <Product product> constexpr bool LEFT_ALONG_DEPTH = product != Product::weight_gradient;
template <Product product> constexpr bool RIGHT_ALONG_DEPTH = product == Product::forward;

// First row and first column of a tile of the result.
struct Corner {
    unsigned row;
    unsigned column;
};

// The tile number `index`: sixteen downwards, then the next sixteen to their right, so that the tiles that are
// computed at one time share their operands in the L2 cache.
template <unsigned tile_rows, unsigned tile_columns> DEVICE Corner corner_of(const LinearParams &p, unsigned index) {
    constexpr unsigned BAND = 16;
    const unsigned down = (p.rows + tile_rows - 1) / tile_rows;
    const unsigned across = (p.columns + tile_columns - 1) / tile_columns;
    const unsigned first = index / (BAND * across) * BAND;
    const unsigned height = min(down - first, BAND);
    const unsigned in_band = index % (BAND * across);
    return {(first + in_band % height) * tile_rows, in_band / height * tile_columns};
}

// sum[i] += at[i] for the first `width` elements; all of them, 16 bytes at a time, where `whole` says so.
template <class Element, unsigned count>
DEVICE void add_from(float (&sum)[count], const Element *at, bool whole, unsigned width PLACE) {
    if (whole) {
        constexpr unsigned step = LANES<Element>;
#pragma unroll
        for (unsigned i = 0; i < count; i += step) {
            float v[step];
            load(v, at + i HERE);
#pragma unroll
            for (unsigned j = 0; j < step; j++) {
                sum[i + j] += v[j];
            }
        }
    } else {
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            if (i < width) {
                sum[i] += to_float(at[i]);
            }
        }
    }
}

// at[i] = sum[i], likewise.
template <class Element, unsigned count>
DEVICE void write_to(Element *at, const float (&sum)[count], bool whole, unsigned width PLACE) {
    if (whole) {
        constexpr unsigned step = LANES<Element>;
#pragma unroll
        for (unsigned i = 0; i < count; i += step) {
            float v[step];
#pragma unroll
            for (unsigned j = 0; j < step; j++) {
                v[j] = sum[i + j];
            }
            store(at + i, v HERE);
        }
    } else {
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            if (i < width) {
                at[i] = from_float<Element>(sum[i]);
            }
        }
    }
}

// The depth that a part of a product sums.
struct Depths {
    unsigned begin;
    unsigned end;
};
DEVICE Depths depths_of(const LinearParams &p, unsigned part) {
    const unsigned begin = part * p.part;
    return {begin, begin + min(p.depth - begin, p.part)};
}

// The last of a product: `sum` holds `count` neighbours of a row, from `column` (a multiple of `count`) on. Adds what
// is to be added and writes them, those that lie inside the result.
template <class Real, Product product, unsigned count>
DEVICE void finish(const LinearParams &p, unsigned part, unsigned row, unsigned column, float (&sum)[count] PLACE) {
    if (row >= p.rows || column >= p.columns) {
        return;
    }
    const unsigned width = min(p.columns - column, count);
    const bool whole = p.out_stride % count == 0 && width == count;
    const size_t at = static_cast<size_t>(row) * p.out_stride + column;
    if constexpr (product == Product::weight_gradient) {
        float *out = static_cast<float *>(p.out) + at;
        if (p.parts > 1) {
            out += part * (static_cast<size_t>(p.rows) * p.columns); // gemm_dw_sum adds them up
        } else {
            add_from(sum, out, whole, width HERE);
        }
        write_to(out, sum, whole, width HERE);
    } else {
        if constexpr (product == Product::forward) {
            if (p.bias) {
                add_from(sum, static_cast<const Real *>(p.bias) + column, whole, width HERE);
            }
            if (p.residual) {
                add_from(sum, static_cast<const Real *>(p.residual) + at, whole, width HERE);
            }
        }
        write_to(static_cast<Real *>(p.out) + at, sum, whole, width HERE);
    }
}
