// Rows of a table by their numbers, and the way back. Verbs: gather, embed; scatter_add, embed_bw.
//
//   gather       y[r, width] = table[index[r]] (+ pos_table[positions[r]])
//   scatter_add  table[index[r], width] += dy[r], r in order; embed_bw: the table in float
//
// A row number may repeat, so scatter_add first sorts: sort_rows counts for each row those that come before it (by
// number, then by row), which is its place; equal numbers then are neighbours, and whoever has the first of them adds
// them all up, in order, and writes the table's row once.
//
// Grid: gather: a team of blockDim.x threads has a row, blockDim.y rows share a block. sort_rows: a warp has a row;
// rows^2 comparisons of cached numbers, little beside the sum itself up to some ten thousand rows. scatter_add: x has
// the places, blockDim.y of them a block, y the columns, 16 bytes of dy a thread.
// Bound by memory: gather 2 elements of traffic for each of y (3 with positions), scatter_add 1 for each of dy and 2
// for each touched element of the table. A number that repeats n times costs n / AHEAD memory latencies in a row.
#include "common.cuh"

constexpr unsigned AHEAD = 8; // rows of one number that are loaded before the first of them is added

template <class Real, unsigned count> DEVICE void gather_row(const GatherParams &p) {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= p.rows) {
        return;
    }
    const unsigned from = p.index[row];
    check_row(from, p.table_rows);
    const Real *x = static_cast<const Real *>(p.table) + static_cast<size_t>(from) * p.width;
    const Real *positions = nullptr;
    if (p.pos_table) {
        const unsigned position = p.positions[row];
        check_row(position, p.pos_rows);
        positions = static_cast<const Real *>(p.pos_table) + static_cast<size_t>(position) * p.width;
    }
    Real *y = static_cast<Real *>(p.y) + static_cast<size_t>(row) * p.width;
    for (unsigned i = threadIdx.x * count; i < p.width; i += blockDim.x * count) {
        float v[count];
        load(v, x + i);
        if (positions) {
            float more[count];
            load(more, positions + i);
#pragma unroll
            for (unsigned j = 0; j < count; j++) {
                v[j] += more[j];
            }
        }
        store(y + i, v);
    }
}

template <class Real> DEVICE void gather(const GatherParams &p) {
    if (vectorised<Real>(p.width, p.table, p.y) && vectorised<Real>(p.width, p.pos_table)) {
        gather_row<Real, LANES<Real>>(p);
    } else {
        gather_row<Real, 1>(p);
    }
}

DEVICE void find_place(const SortRowsParams &p) {
    const unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const unsigned lane = threadIdx.x % 32;
    const bool inside = row < p.rows; // a warp without a row still takes part in the sum
    const unsigned key = p.index[inside ? row : 0];
    unsigned before = 0;
    for (unsigned i = lane; i < p.rows; i += 32) {
        const unsigned other = p.index[i];
        before += other < key || (other == key && i < row);
    }
    before = warp_sum(before);
    if (inside && lane == 0) {
        p.order[before] = row;
        p.keys[before] = key;
    }
}

template <class Real, class Table, unsigned count> DEVICE void scatter_add_at(const ScatterAddParams &p) {
    unsigned place = blockIdx.x * blockDim.y + threadIdx.y;
    const unsigned column = (blockIdx.y * blockDim.x + threadIdx.x) * count;
    if (place >= p.rows || column >= p.width) {
        return;
    }
    const unsigned key = p.keys[place];
    if (place > 0 && p.keys[place - 1] == key) {
        return; // the first one of its number adds it
    }
    check_row(key, p.table_rows);
    const Real *dy = static_cast<const Real *>(p.dy) + column;
    Table *out = static_cast<Table *>(p.table) + static_cast<size_t>(key) * p.width + column;
    float sum[count];
    load(sum, out);
    for (bool more = true; more; place += AHEAD) {
        bool same[AHEAD];
        float v[AHEAD][count];
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) {
            same[i] = place + i < p.rows && p.keys[place + i] == key;
            if (same[i]) {
                load(v[i], dy + static_cast<size_t>(p.order[place + i]) * p.width);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) {
#pragma unroll
            for (unsigned j = 0; j < count; j++) {
                sum[j] += same[i] ? v[i][j] : 0.0f;
            }
        }
        more = same[AHEAD - 1];
    }
    store(out, sum);
}

template <class Real, class Table> DEVICE void scatter_add(const ScatterAddParams &p) {
    if (vectorised<Real>(p.width, p.dy, p.table)) {
        scatter_add_at<Real, Table, LANES<Real>>(p);
    } else {
        scatter_add_at<Real, Table, 1>(p);
    }
}

EXPORT_KERNEL(gather_f32, (ROW_THREADS), GatherParams, gather<float>);
EXPORT_KERNEL(gather_bf16, (ROW_THREADS), GatherParams, gather<bf16>);
EXPORT_KERNEL(sort_rows, (ROW_THREADS), SortRowsParams, find_place);
EXPORT_KERNEL(scatter_add_f32, (ROW_THREADS), ScatterAddParams, scatter_add<float, float>);
EXPORT_KERNEL(scatter_add_bf16, (ROW_THREADS), ScatterAddParams, scatter_add<bf16, bf16>);
// y *= factor: 256 threads a block stride over the elements, 16 bytes each, and those left over at the end one each.
template <class Real, unsigned count> DEVICE void scale_at(const ScaleParams &p, unsigned long long at) {
    float y[count];
    load(y, static_cast<const Real *>(p.y) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        y[i] *= p.factor;
    }
    store(static_cast<Real *>(p.y) + at, y);
}

template <class Real> DEVICE void scale(const ScaleParams &p) {
    for_each_pack<Real>(
        p.len, vectorised<Real>(0, p.y), [&](unsigned long long at) { scale_at<Real, LANES<Real>>(p, at); },
        [&](unsigned long long at) { scale_at<Real, 1>(p, at); });
}

EXPORT_KERNEL(scale_f32, (ROW_THREADS), ScaleParams, scale<float>);
EXPORT_KERNEL(scale_bf16, (ROW_THREADS), ScaleParams, scale<bf16>);
EXPORT_KERNEL(embed_bw_f32, (ROW_THREADS), ScatterAddParams, scatter_add<float, float>);
EXPORT_KERNEL(embed_bw_bf16, (ROW_THREADS), ScatterAddParams, scatter_add<bf16, float>);
