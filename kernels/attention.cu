// Softmax attention over groups that share their prompt, and its backward. Verbs: attention, attention_bw. Attention
// over a cache is in attention_decode.cu.
//
//   A query row sees the keys of its segment's prefix, and those of its segment up to itself. For one head:
//   s = scale q k^T,  lse = ln sum exp(s),  p = exp(s - lse),  o = p v
//   delta = sum(do * o),  dp = do v^T,  ds = p (dp - delta)  (Dao et al., 2022, appendix B.2)
//   dq = scale ds k,  dk = scale ds^T q,  dv = p^T do; key heads collect over the query heads that share them.
//
// Shapes: qkv[rows, (heads + 2 kv_heads) head_dim] = [q | k | v], o[rows, heads head_dim], lse[rows, heads].
//
// Forward: a block has a tile of query rows of one segment and one head, and goes over the tiles of keys that they see
// with the softmax kept up on the way. Backward, in three kernels without atomics: `stats` sums delta; `bw_q` has a
// tile of queries as the forward and recomputes the scores; `bw_kv` has a tile of keys of one key head and goes over
// the query heads that share it and the query rows that see it, which lie one after the other: from the tile on to the
// end of its segment, or for a prompt to the end of the last response. Grids are one-dimensional: tile * heads + head.
//
// Two families:
//   bf16, head_dim a multiple of 8 up to 128: mma.m16n8k16, tiles by cp.async into two stages, instances for 64 and
//     128 columns (a smaller head is padded with zeros in shared memory);
//   float, and bf16 of other widths up to 256: fused multiply-adds on 16 x 16 threads, instances for 128 and 256.
//
// Bound by the matrix units: with v the visible pairs of a query and a key, the forward is 4 v head_dim operations a
// head and the backward 14 (10, and 4 for the scores and dp that both kernels compute, the price of no atomics).
// Traffic is each tile's own rows once, and the other side's rows once a tile, from L2.
#include "attention.cuh"

// ---- bf16 on mma.m16n8k16 ------------------------------------------------------------------------------------------

constexpr unsigned MMA_WARPS = MMA_THREADS / 32;

// Starts copying the rows first .. first + ROWS of a head, at `head` in row 0, into a tile. Rows from `end` on and
// columns from `head_dim` on become zeros.
template <unsigned HD, unsigned ROWS>
DEVICE void copy_tile(unsigned char *tile, const bf16 *head, size_t stride, unsigned first, unsigned end,
                      unsigned head_dim PLACE) {
    constexpr unsigned CHUNKS = HD / 8; // of 16 bytes in a row
    constexpr unsigned PASS = MMA_THREADS / CHUNKS;
    static_assert(PASS % 8 == 0, "a thread's rows are permuted alike");
    const unsigned row = threadIdx.x / CHUNKS;
    const unsigned chunk = threadIdx.x % CHUNKS;
    const bool in_head = chunk * 8 < head_dim;
    unsigned char *to = tile + tile_offset<HD>(row, chunk);
    const bf16 *from = head + (first + row) * stride + chunk * 8;
#pragma unroll 1 // the addresses of all passes at once would not fit beside the accumulators
    for (unsigned i = 0; i < ROWS; i += PASS) {
        const bool valid = in_head && first + row + i < end;
        cp_async_16(to + i * ROW_BYTES<HD>, valid ? from + i * stride : head, valid HERE);
    }
}

// Rows row .. row + 16, columns k .. k + 16 of a tile as a left operand.
template <unsigned HD>
DEVICE void load_left(unsigned (&a)[4], const unsigned char *tile, unsigned row, unsigned k PLACE) {
    const unsigned lane = threadIdx.x % 32;
    ldmatrix_x4(a, tile + tile_offset<HD>(row + lane % 16, k / 8 + lane / 16) HERE);
}

// s[16 STRIPS, N2 * 2] = rows `row`.. of tile `left` times the rows of tile `right`, transposed.
template <unsigned HD, unsigned STRIPS, unsigned N2>
DEVICE void row_products(float (&s)[STRIPS][N2], const unsigned char *left, unsigned row,
                         const unsigned char *right PLACE) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned strip = 0; strip < STRIPS; strip++) {
#pragma unroll
        for (unsigned i = 0; i < N2; i++) {
            s[strip][i] = 0.0f;
        }
    }
#pragma unroll
    for (unsigned k = 0; k < HD; k += 16) {
        unsigned a[STRIPS][4];
#pragma unroll
        for (unsigned strip = 0; strip < STRIPS; strip++) {
            load_left<HD>(a[strip], left, row + 16 * strip, k HERE);
        }
#pragma unroll
        for (unsigned n = 0; n < 2 * N2; n += 16) {
            unsigned b[4];
            ldmatrix_x4(b, right + tile_offset<HD>(n + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2) HERE);
#pragma unroll
            for (unsigned strip = 0; strip < STRIPS; strip++) {
                multiply_add(&s[strip][n / 2], a[strip], b[0], b[1] HERE);
                multiply_add(&s[strip][n / 2 + 4], a[strip], b[2], b[3] HERE);
            }
        }
    }
}

// out[16 STRIPS, HD] += p[16 STRIPS, N2 * 2], rounded to bf16, times the rows of `right`.
template <unsigned HD, unsigned STRIPS, unsigned N2>
DEVICE void weighted_rows(float (&out)[STRIPS][HD / 2], const float (&p)[STRIPS][N2],
                          const unsigned char *right PLACE) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned k = 0; k < 2 * N2; k += 16) {
        unsigned a[STRIPS][4];
#pragma unroll
        for (unsigned strip = 0; strip < STRIPS; strip++) {
            left_operand(a[strip], p[strip], k / 16);
        }
#pragma unroll
        for (unsigned n = 0; n < HD; n += 16) {
            unsigned b[4];
            ldmatrix_x4_trans(b, right + tile_offset<HD>(k + lane % 16, n / 8 + lane / 16) HERE);
#pragma unroll
            for (unsigned strip = 0; strip < STRIPS; strip++) {
                multiply_add(&out[strip][n / 2], a[strip], b[0], b[1] HERE);
                multiply_add(&out[strip][n / 2 + 4], a[strip], b[2], b[3] HERE);
            }
        }
    }
}

// QUERIES queries a block, in strips of 16 a warp, and KEYS keys a step.
template <unsigned HD, unsigned QUERIES, unsigned KEYS, unsigned BYTES>
DEVICE void attention_mma(const AttentionParams &p) {
    constexpr unsigned STRIPS = QUERIES / (16 * MMA_WARPS);
    constexpr unsigned STAGE = 2 * KEYS * ROW_BYTES<HD>;
    static_assert(QUERIES * ROW_BYTES<HD> + 2 * STAGE == BYTES, "the launch has room for the tiles");
    DYN_SMEM(shared);
    unsigned char *q_tile = shared;
    unsigned char *stages = q_tile + QUERIES * ROW_BYTES<HD>;
    shared_reaches(stages + 2 * STAGE);

    const unsigned head = blockIdx.x % p.heads;
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, head, head / (p.heads / p.kv_heads));
    const QueryTile tile = p.tiles[blockIdx.x / p.heads];
    const KeySteps<KEYS> steps(tile);
    const bf16 *qkv = static_cast<const bf16 *>(p.qkv);
    const auto copy_keys = [&](unsigned step) {
        unsigned char *stage = stages + step % 2 * STAGE;
        copy_tile<HD, KEYS>(stage, qkv + at.k, at.width, steps.first(step), steps.end(step), p.head_dim);
        copy_tile<HD, KEYS>(stage + STAGE / 2, qkv + at.v, at.width, steps.first(step), steps.end(step), p.head_dim);
        cp_async_commit();
    };
    copy_tile<HD, QUERIES>(q_tile, qkv + at.q, at.width, tile.first, tile.end, p.head_dim);
    copy_keys(0);

    const unsigned warp_row = threadIdx.x / 32 * 16 * STRIPS;
    const unsigned row = tile.first + warp_row + threadIdx.x % 32 / 4; // of strip 0; its other one is 8 further
    const float scale_log2 = p.scale * LOG2_E;
    OnlineSoftmax softmax[STRIPS];
    float o[STRIPS][HD / 2] = {};
    for (unsigned step = 0; step < steps.count; step++) {
        cp_async_wait<0>();
        __syncthreads(); // the tiles are there, and the other stage has been read
        if (step + 1 < steps.count) {
            copy_keys(step + 1);
        }
        const unsigned char *k_tile = stages + step % 2 * STAGE;
        float s[STRIPS][KEYS / 2];
        row_products<HD>(s, q_tile, warp_row, k_tile);
        const unsigned first = steps.first(step);
        if (first + KEYS > steps.visible_end(step, tile.first + warp_row)) {
#pragma unroll
            for (unsigned strip = 0; strip < STRIPS; strip++) {
                const unsigned query = row + 16 * strip;
                hide_columns(s[strip], first, steps.visible_end(step, query), steps.visible_end(step, query + 8));
            }
        }
#pragma unroll
        for (unsigned strip = 0; strip < STRIPS; strip++) {
            float correction[2];
            softmax[strip].add(s[strip], correction, scale_log2);
            scale_rows(o[strip], correction);
        }
        weighted_rows<HD>(o, s, k_tile + STAGE / 2);
    }

#pragma unroll
    for (unsigned strip = 0; strip < STRIPS; strip++) {
        float factor[2], lse[2];
        softmax[strip].finish(factor, lse, p.scale);
#pragma unroll
        for (unsigned h = 0; h < 2; h++) {
            const unsigned query = row + 16 * strip + 8 * h;
            if (query < tile.end && threadIdx.x % 4 == 0) {
                p.lse[static_cast<size_t>(query) * p.heads + head] = lse[h];
            }
        }
        // The warp's own queries are in registers for the last time: their place takes the result.
        const unsigned first = warp_row + 16 * strip;
        const size_t stride = static_cast<size_t>(p.heads) * p.head_dim;
        store_rows<HD>(static_cast<bf16 *>(p.o) + (tile.first + first) * stride + at.q, stride,
                       rows_before(tile.first + first, tile.end), p.head_dim, o[strip], factor,
                       q_tile + first * ROW_BYTES<HD>);
    }
}

// dq of a tile of queries, as the forward goes.
template <unsigned HD, unsigned QUERIES, unsigned KEYS, unsigned BYTES>
DEVICE void attention_bw_q_mma(const AttentionBwParams &p) {
    constexpr unsigned STRIPS = QUERIES / (16 * MMA_WARPS);
    constexpr unsigned STAGE = 2 * KEYS * ROW_BYTES<HD>;
    static_assert(2 * QUERIES * ROW_BYTES<HD> + 2 * STAGE == BYTES, "the launch has room for the tiles");
    DYN_SMEM(shared);
    unsigned char *q_tile = shared;
    unsigned char *do_tile = q_tile + QUERIES * ROW_BYTES<HD>;
    unsigned char *stages = do_tile + QUERIES * ROW_BYTES<HD>;
    shared_reaches(stages + 2 * STAGE);

    const unsigned head = blockIdx.x % p.heads;
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, head, head / (p.heads / p.kv_heads));
    const QueryTile tile = p.query_tiles[blockIdx.x / p.heads];
    const KeySteps<KEYS> steps(tile);
    const bf16 *qkv = static_cast<const bf16 *>(p.qkv);
    const auto copy_keys = [&](unsigned step) {
        unsigned char *stage = stages + step % 2 * STAGE;
        copy_tile<HD, KEYS>(stage, qkv + at.k, at.width, steps.first(step), steps.end(step), p.head_dim);
        copy_tile<HD, KEYS>(stage + STAGE / 2, qkv + at.v, at.width, steps.first(step), steps.end(step), p.head_dim);
        cp_async_commit();
    };
    copy_tile<HD, QUERIES>(q_tile, qkv + at.q, at.width, tile.first, tile.end, p.head_dim);
    copy_tile<HD, QUERIES>(do_tile, static_cast<const bf16 *>(p.dout) + at.q,
                           static_cast<size_t>(p.heads) * p.head_dim, tile.first, tile.end, p.head_dim);
    copy_keys(0);

    const unsigned warp_row = threadIdx.x / 32 * 16 * STRIPS;
    const unsigned row = tile.first + warp_row + threadIdx.x % 32 / 4; // of strip 0; its other one is 8 further
    float2 stats[STRIPS][2];
#pragma unroll
    for (unsigned strip = 0; strip < STRIPS; strip++) {
#pragma unroll
        for (unsigned h = 0; h < 2; h++) {
            stats[strip][h] = row_stats(p, head, row + 16 * strip + 8 * h, tile.end);
        }
    }
    float dq[STRIPS][HD / 2] = {};
    for (unsigned step = 0; step < steps.count; step++) {
        cp_async_wait<0>();
        __syncthreads(); // the tiles are there, and the other stage has been read
        if (step + 1 < steps.count) {
            copy_keys(step + 1);
        }
        const unsigned char *k_tile = stages + step % 2 * STAGE;
        const unsigned char *v_tile = k_tile + STAGE / 2;
        float s[STRIPS][KEYS / 2], ds[STRIPS][KEYS / 2];
        row_products<HD>(s, q_tile, warp_row, k_tile);
        const unsigned first = steps.first(step);
        if (first + KEYS > steps.visible_end(step, tile.first + warp_row)) {
#pragma unroll
            for (unsigned strip = 0; strip < STRIPS; strip++) {
                const unsigned query = row + 16 * strip;
                hide_columns(s[strip], first, steps.visible_end(step, query), steps.visible_end(step, query + 8));
            }
        }
        row_products<HD>(ds, do_tile, warp_row, v_tile);
#pragma unroll
        for (unsigned strip = 0; strip < STRIPS; strip++) {
#pragma unroll
            for (unsigned i = 0; i < KEYS / 2; i++) {
                const float2 of_row = stats[strip][i / 2 % 2];
                ds[strip][i] = probability(s[strip][i], of_row.x, p.scale) * (ds[strip][i] - of_row.y);
            }
        }
        weighted_rows<HD>(dq, ds, k_tile);
    }

    const float factor[2] = {p.scale, p.scale};
#pragma unroll
    for (unsigned strip = 0; strip < STRIPS; strip++) {
        const unsigned first = warp_row + 16 * strip;
        store_rows<HD>(static_cast<bf16 *>(p.dqkv) + (tile.first + first) * static_cast<size_t>(at.width) + at.q,
                       at.width, rows_before(tile.first + first, tile.end), p.head_dim, dq[strip], factor,
                       q_tile + first * ROW_BYTES<HD>);
    }
}

// dk and dv of a tile of keys: the scores are transposed, keys in rows, so that they become left operands as they are.
template <unsigned HD, unsigned KEYS, unsigned QUERIES, unsigned BYTES>
DEVICE void attention_bw_kv_mma(const AttentionBwParams &p) {
    constexpr unsigned STRIPS = KEYS / (16 * MMA_WARPS);
    constexpr unsigned STAGE = 2 * QUERIES * ROW_BYTES<HD>;
    static_assert(2 * KEYS * ROW_BYTES<HD> + 2 * STAGE + 2 * QUERIES * sizeof(float2) == BYTES,
                  "the launch has room for the tiles and the stats");
    DYN_SMEM(shared);
    unsigned char *k_tile = shared;
    unsigned char *v_tile = k_tile + KEYS * ROW_BYTES<HD>;
    unsigned char *stages = v_tile + KEYS * ROW_BYTES<HD>;
    float2 *stats = reinterpret_cast<float2 *>(stages + 2 * STAGE); // of the queries of each stage
    shared_reaches(stats + 2 * QUERIES);

    const unsigned ratio = p.heads / p.kv_heads;
    const unsigned kv_head = blockIdx.x % p.kv_heads;
    const KeyTile tile = p.key_tiles[blockIdx.x / p.kv_heads];
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, kv_head * ratio, kv_head);
    const size_t o_width = static_cast<size_t>(p.heads) * p.head_dim;
    const bf16 *qkv = static_cast<const bf16 *>(p.qkv);
    const bf16 *dout = static_cast<const bf16 *>(p.dout);
    const unsigned tiles = (tile.query_end - tile.first + QUERIES - 1) / QUERIES;
    const unsigned steps = ratio * tiles;
    const auto first_query = [&](unsigned step) { return tile.first + step % tiles * QUERIES; };
    const auto copy_queries = [&](unsigned step) {
        unsigned char *stage = stages + step % 2 * STAGE;
        const unsigned column = at.q + step / tiles * p.head_dim;
        const unsigned first = first_query(step);
        copy_tile<HD, QUERIES>(stage, qkv + column, at.width, first, tile.query_end, p.head_dim);
        copy_tile<HD, QUERIES>(stage + STAGE / 2, dout + column, o_width, first, tile.query_end, p.head_dim);
        cp_async_commit();
    };
    // Of one query a thread: loaded when its tile is, stored when the stage is free.
    static_assert(QUERIES <= MMA_THREADS, "a thread for each query");
    const auto load_stats = [&](unsigned step) {
        return row_stats(p, kv_head * ratio + step / tiles, first_query(step) + threadIdx.x, tile.query_end);
    };
    const auto store_stats = [&](unsigned step, float2 value) {
        if (threadIdx.x < QUERIES) {
            stats[step % 2 * QUERIES + threadIdx.x] = value;
        }
    };
    copy_tile<HD, KEYS>(k_tile, qkv + at.k, at.width, tile.first, tile.end, p.head_dim);
    copy_tile<HD, KEYS>(v_tile, qkv + at.v, at.width, tile.first, tile.end, p.head_dim);
    copy_queries(0);
    store_stats(0, load_stats(0));

    const unsigned warp_row = threadIdx.x / 32 * 16 * STRIPS;
    const unsigned row = tile.first + warp_row + threadIdx.x % 32 / 4; // of strip 0; its other one is 8 further
    float dk[STRIPS][HD / 2] = {}, dv[STRIPS][HD / 2] = {};
    for (unsigned step = 0; step < steps; step++) {
        cp_async_wait<0>();
        __syncthreads(); // tiles and stats are there, and the other stage has been read
        const bool more = step + 1 < steps;
        float2 next{};
        if (more) {
            copy_queries(step + 1);
            next = load_stats(step + 1);
        }
        const unsigned char *q_tile = stages + step % 2 * STAGE;
        const unsigned char *do_tile = q_tile + STAGE / 2;
        const float4 *pairs = reinterpret_cast<const float4 *>(stats + step % 2 * QUERIES);
        float s[STRIPS][QUERIES / 2], ds[STRIPS][QUERIES / 2];
        row_products<HD>(s, k_tile, warp_row, q_tile);
        const unsigned first = first_query(step);
        if (first < tile.first + warp_row + 16 * STRIPS) {
#pragma unroll
            for (unsigned strip = 0; strip < STRIPS; strip++) {
                hide_earlier_columns(s[strip], first, row + 16 * strip);
            }
        }
        row_products<HD>(ds, v_tile, warp_row, do_tile);
#pragma unroll
        for (unsigned block = 0; block < QUERIES / 8; block++) {
            const float4 pair = pairs[block * 4 + threadIdx.x % 4]; // of the two columns that this thread has of 8
#pragma unroll
            for (unsigned strip = 0; strip < STRIPS; strip++) {
#pragma unroll
                for (unsigned i = 4 * block; i < 4 * block + 4; i++) {
                    s[strip][i] = probability(s[strip][i], i % 2 ? pair.z : pair.x, p.scale);
                    ds[strip][i] = s[strip][i] * (ds[strip][i] - (i % 2 ? pair.w : pair.y));
                }
            }
        }
        weighted_rows<HD>(dv, s, do_tile);
        weighted_rows<HD>(dk, ds, q_tile);
        if (more) {
            store_stats(step + 1, next);
        }
    }

    const float one[2] = {1.0f, 1.0f};
    const float scale[2] = {p.scale, p.scale};
#pragma unroll
    for (unsigned strip = 0; strip < STRIPS; strip++) {
        const unsigned first = warp_row + 16 * strip;
        bf16 *out = static_cast<bf16 *>(p.dqkv) + (tile.first + first) * static_cast<size_t>(at.width);
        const unsigned rows = rows_before(tile.first + first, tile.end);
        store_rows<HD>(out + at.k, at.width, rows, p.head_dim, dk[strip], scale, k_tile + first * ROW_BYTES<HD>);
        store_rows<HD>(out + at.v, at.width, rows, p.head_dim, dv[strip], one, v_tile + first * ROW_BYTES<HD>);
    }
}

// An instance of a template above: its tile, its step and its shared memory are those of params.h.
#define MMA_KERNEL(name, Params, kernel, HD, GEOMETRY, BYTES)                                                         \
    EXPORT_KERNEL(name, (MMA_THREADS, 2), Params, kernel<HD, GEOMETRY##_TILE, GEOMETRY##_STEP, BYTES>)

MMA_KERNEL(attention_bf16_hd64, AttentionParams, attention_mma, 64, ATTENTION_BF16_HD64, ATTENTION_BF16_HD64_BYTES);
MMA_KERNEL(attention_bf16_hd128, AttentionParams, attention_mma, 128, ATTENTION_BF16_HD128, ATTENTION_BF16_HD128_BYTES);
MMA_KERNEL(attention_bw_q_bf16_hd64, AttentionBwParams, attention_bw_q_mma, 64, ATTENTION_BW_BF16_HD64,
           ATTENTION_BW_Q_BF16_HD64_BYTES);
MMA_KERNEL(attention_bw_q_bf16_hd128, AttentionBwParams, attention_bw_q_mma, 128, ATTENTION_BW_BF16_HD128,
           ATTENTION_BW_Q_BF16_HD128_BYTES);
MMA_KERNEL(attention_bw_kv_bf16_hd64, AttentionBwParams, attention_bw_kv_mma, 64, ATTENTION_BW_BF16_HD64,
           ATTENTION_BW_KV_BF16_HD64_BYTES);
MMA_KERNEL(attention_bw_kv_bf16_hd128, AttentionBwParams, attention_bw_kv_mma, 128, ATTENTION_BW_BF16_HD128,
           ATTENTION_BW_KV_BF16_HD128_BYTES);

// ---- any precision and width on fused multiply-adds ----------------------------------------------------------------
// 16 x 16 threads: thread (y, x) has the rows y + 16 i and the columns x + 16 j of a tile.

// Floats from one row of a tile to the next: a multiple of 4 for vector loads, and such that the rows of 8 threads
// start in different banks.
template <unsigned WIDTH> constexpr unsigned PLAIN_STRIDE = WIDTH + PLAIN_PADDING;

// Copies the rows first .. first + ROWS of a head as floats; zeros from row `end` and from column `head_dim` on, up to
// the next multiple of 16.
template <unsigned ROWS, unsigned WIDTH, class Real>
DEVICE void load_plain(float *tile, const Real *head, size_t stride, unsigned first, unsigned end, unsigned head_dim) {
    const unsigned columns = (head_dim + 15) / 16 * 16;
    for (unsigned i = threadIdx.x; i < ROWS * columns; i += PLAIN_THREADS) {
        const unsigned row = i / columns;
        const unsigned column = i % columns;
        const bool valid = first + row < end && column < head_dim;
        tile[row * PLAIN_STRIDE<WIDTH> + column] = valid ? to_float(head[(first + row) * stride + column]) : 0.0f;
    }
}

// s[i][j] = row y + 16 i of `left` times row x + 16 j of `right`.
template <unsigned WIDTH, unsigned R>
DEVICE void dots_plain(float (&s)[R][R], const float *left, const float *right, unsigned head_dim) {
    const unsigned y = threadIdx.x / 16;
    const unsigned x = threadIdx.x % 16;
#pragma unroll
    for (unsigned i = 0; i < R; i++) {
#pragma unroll
        for (unsigned j = 0; j < R; j++) {
            s[i][j] = 0.0f;
        }
    }
    for (unsigned k = 0; k < head_dim; k += 4) {
        float4 a[R], b[R];
#pragma unroll
        for (unsigned i = 0; i < R; i++) {
            a[i] = *reinterpret_cast<const float4 *>(left + (y + 16 * i) * PLAIN_STRIDE<WIDTH> + k);
            b[i] = *reinterpret_cast<const float4 *>(right + (x + 16 * i) * PLAIN_STRIDE<WIDTH> + k);
        }
#pragma unroll
        for (unsigned i = 0; i < R; i++) {
#pragma unroll
            for (unsigned j = 0; j < R; j++) {
                s[i][j] += a[i].x * b[j].x;
                s[i][j] += a[i].y * b[j].y;
                s[i][j] += a[i].z * b[j].z;
                s[i][j] += a[i].w * b[j].w;
            }
        }
    }
}

// out[i][j] += sum over k < ROWS of weight(y + 16 i, k) * column x + 16 j of row k of `right`.
template <unsigned WIDTH, unsigned R, unsigned C, class Weight>
DEVICE void weighted_plain(float (&out)[R][C], const float *right, unsigned head_dim, Weight weight) {
    const unsigned y = threadIdx.x / 16;
    const unsigned x = threadIdx.x % 16;
    for (unsigned k = 0; k < 16 * R; k++) {
        float w[R];
#pragma unroll
        for (unsigned i = 0; i < R; i++) {
            w[i] = weight(y + 16 * i, k);
        }
#pragma unroll
        for (unsigned j = 0; j < C; j++) {
            if (16 * j < head_dim) {
                const float v = right[k * PLAIN_STRIDE<WIDTH> + x + 16 * j];
#pragma unroll
                for (unsigned i = 0; i < R; i++) {
                    out[i][j] += w[i] * v;
                }
            }
        }
    }
}

// Writes the rows of the thread, from `first` on, that are before `end`.
template <unsigned R, unsigned C, class Real>
DEVICE void store_plain(Real *head, size_t stride, unsigned first, unsigned end, unsigned head_dim,
                        const float (&out)[R][C], const float (&factor)[R]) {
#pragma unroll
    for (unsigned i = 0; i < R; i++) {
        const unsigned row = first + threadIdx.x / 16 + 16 * i;
#pragma unroll
        for (unsigned j = 0; j < C; j++) {
            const unsigned column = threadIdx.x % 16 + 16 * j;
            if (row < end && column < head_dim) {
                head[row * stride + column] = from_float<Real>(out[i][j] * factor[i]);
            }
        }
    }
}

// Over the 16 threads of a row; each gets the same bits.
DEVICE float team_sum(float x PLACE) {
#pragma unroll
    for (unsigned lanes = 8; lanes; lanes /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, lanes HERE);
    }
    return x;
}
DEVICE float team_max(float x PLACE) {
#pragma unroll
    for (unsigned lanes = 8; lanes; lanes /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes HERE));
    }
    return x;
}

// ROWS queries and as many keys a step, heads up to WIDTH wide.
template <class Real, unsigned ROWS, unsigned WIDTH, unsigned BYTES>
DEVICE void attention_plain(const AttentionParams &p) {
    constexpr unsigned R = ROWS / 16;
    constexpr unsigned TILE = ROWS * PLAIN_STRIDE<WIDTH>;
    static_assert((3 * TILE + ROWS * (ROWS + 1)) * sizeof(float) == BYTES, "the launch has room for the tiles");
    DYN_SMEM(shared);
    float *q_tile = reinterpret_cast<float *>(shared);
    float *k_tile = q_tile + TILE;
    float *v_tile = k_tile + TILE;
    float *weights = v_tile + TILE; // [ROWS, ROWS + 1]
    shared_reaches(weights + ROWS * (ROWS + 1));

    const unsigned head = blockIdx.x % p.heads;
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, head, head / (p.heads / p.kv_heads));
    const QueryTile tile = p.tiles[blockIdx.x / p.heads];
    const KeySteps<ROWS> steps(tile);
    const Real *qkv = static_cast<const Real *>(p.qkv);
    const unsigned y = threadIdx.x / 16;
    const unsigned x = threadIdx.x % 16;
    const float scale_log2 = p.scale * LOG2_E;
    load_plain<ROWS, WIDTH>(q_tile, qkv + at.q, at.width, tile.first, tile.end, p.head_dim);
    float top[R], sum[R], o[R][WIDTH / 16] = {};
#pragma unroll
    for (unsigned i = 0; i < R; i++) {
        top[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (unsigned step = 0; step < steps.count; step++) {
        const unsigned first = steps.first(step);
        __syncthreads(); // the last step's tiles have been read
        load_plain<ROWS, WIDTH>(k_tile, qkv + at.k, at.width, first, steps.end(step), p.head_dim);
        load_plain<ROWS, WIDTH>(v_tile, qkv + at.v, at.width, first, steps.end(step), p.head_dim);
        __syncthreads();
        float s[R][R];
        dots_plain<WIDTH>(s, q_tile, k_tile, p.head_dim);
#pragma unroll
        for (unsigned i = 0; i < R; i++) {
            const unsigned end = steps.visible_end(step, tile.first + y + 16 * i);
            float highest = -INFINITY;
#pragma unroll
            for (unsigned j = 0; j < R; j++) {
                s[i][j] = first + x + 16 * j < end ? s[i][j] : -INFINITY;
                highest = fmaxf(highest, s[i][j]);
            }
            highest = fmaxf(top[i], team_max(highest));
            const float correction = exp2_approx((top[i] - highest) * scale_log2);
            top[i] = highest;
            sum[i] *= correction;
#pragma unroll
            for (unsigned j = 0; j < R; j++) {
                const float weight = exp2_approx((s[i][j] - highest) * scale_log2);
                sum[i] += weight;
                weights[(y + 16 * i) * (ROWS + 1) + x + 16 * j] = weight;
            }
#pragma unroll
            for (unsigned j = 0; j < WIDTH / 16; j++) {
                o[i][j] *= correction;
            }
        }
        __syncwarp(); // the weights of a row are written and read in one warp
        weighted_plain<WIDTH>(o, v_tile, p.head_dim,
                              [&](unsigned row, unsigned key) { return weights[row * (ROWS + 1) + key]; });
    }
    float factor[R];
#pragma unroll
    for (unsigned i = 0; i < R; i++) {
        const unsigned query = tile.first + y + 16 * i;
        const float total = team_sum(sum[i]);
        factor[i] = 1.0f / total;
        if (query < tile.end && x == 0) {
            p.lse[static_cast<size_t>(query) * p.heads + head] = multiply_rounded(top[i], p.scale) + logf(total);
        }
    }
    store_plain(static_cast<Real *>(p.o) + at.q, static_cast<size_t>(p.heads) * p.head_dim, tile.first, tile.end,
                p.head_dim, o, factor);
}

template <class Real, unsigned ROWS, unsigned WIDTH, unsigned BYTES>
DEVICE void attention_bw_q_plain(const AttentionBwParams &p) {
    constexpr unsigned R = ROWS / 16;
    constexpr unsigned TILE = ROWS * PLAIN_STRIDE<WIDTH>;
    static_assert((4 * TILE + ROWS * (ROWS + 1)) * sizeof(float) == BYTES, "the launch has room for the tiles");
    DYN_SMEM(shared);
    float *q_tile = reinterpret_cast<float *>(shared);
    float *do_tile = q_tile + TILE;
    float *k_tile = do_tile + TILE;
    float *v_tile = k_tile + TILE;
    float *weights = v_tile + TILE; // ds[ROWS, ROWS + 1]
    shared_reaches(weights + ROWS * (ROWS + 1));

    const unsigned head = blockIdx.x % p.heads;
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, head, head / (p.heads / p.kv_heads));
    const QueryTile tile = p.query_tiles[blockIdx.x / p.heads];
    const KeySteps<ROWS> steps(tile);
    const Real *qkv = static_cast<const Real *>(p.qkv);
    const unsigned y = threadIdx.x / 16;
    const unsigned x = threadIdx.x % 16;
    load_plain<ROWS, WIDTH>(q_tile, qkv + at.q, at.width, tile.first, tile.end, p.head_dim);
    load_plain<ROWS, WIDTH>(do_tile, static_cast<const Real *>(p.dout) + at.q,
                            static_cast<size_t>(p.heads) * p.head_dim, tile.first, tile.end, p.head_dim);
    float2 stats[R];
    float factor[R], dq[R][WIDTH / 16] = {};
#pragma unroll
    for (unsigned i = 0; i < R; i++) {
        stats[i] = row_stats(p, head, tile.first + y + 16 * i, tile.end);
        factor[i] = p.scale;
    }
    for (unsigned step = 0; step < steps.count; step++) {
        const unsigned first = steps.first(step);
        __syncthreads(); // the last step's tiles have been read
        load_plain<ROWS, WIDTH>(k_tile, qkv + at.k, at.width, first, steps.end(step), p.head_dim);
        load_plain<ROWS, WIDTH>(v_tile, qkv + at.v, at.width, first, steps.end(step), p.head_dim);
        __syncthreads();
        float s[R][R], dp[R][R];
        dots_plain<WIDTH>(s, q_tile, k_tile, p.head_dim);
        dots_plain<WIDTH>(dp, do_tile, v_tile, p.head_dim);
#pragma unroll
        for (unsigned i = 0; i < R; i++) {
            const unsigned end = steps.visible_end(step, tile.first + y + 16 * i);
#pragma unroll
            for (unsigned j = 0; j < R; j++) {
                const bool visible = first + x + 16 * j < end;
                const float weight = visible ? probability(s[i][j], stats[i].x, p.scale) : 0.0f;
                weights[(y + 16 * i) * (ROWS + 1) + x + 16 * j] = weight * (dp[i][j] - stats[i].y);
            }
        }
        __syncwarp(); // the weights of a row are written and read in one warp
        weighted_plain<WIDTH>(dq, k_tile, p.head_dim,
                              [&](unsigned row, unsigned key) { return weights[row * (ROWS + 1) + key]; });
    }
    store_plain(static_cast<Real *>(p.dqkv) + at.q, at.width, tile.first, tile.end, p.head_dim, dq, factor);
}

template <class Real, unsigned ROWS, unsigned WIDTH, unsigned BYTES>
DEVICE void attention_bw_kv_plain(const AttentionBwParams &p) {
    constexpr unsigned R = ROWS / 16;
    constexpr unsigned TILE = ROWS * PLAIN_STRIDE<WIDTH>;
    static_assert((4 * TILE + 2 * ROWS * (ROWS + 1)) * sizeof(float) == BYTES, "the launch has room for the tiles");
    DYN_SMEM(shared);
    float *k_tile = reinterpret_cast<float *>(shared);
    float *v_tile = k_tile + TILE;
    float *q_tile = v_tile + TILE;
    float *do_tile = q_tile + TILE;
    float *p_weights = do_tile + TILE; // p[ROWS, ROWS + 1], a query a row
    float *ds_weights = p_weights + ROWS * (ROWS + 1);
    shared_reaches(ds_weights + ROWS * (ROWS + 1));

    const unsigned ratio = p.heads / p.kv_heads;
    const unsigned kv_head = blockIdx.x % p.kv_heads;
    const KeyTile tile = p.key_tiles[blockIdx.x / p.kv_heads];
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, kv_head * ratio, kv_head);
    const size_t o_width = static_cast<size_t>(p.heads) * p.head_dim;
    const Real *qkv = static_cast<const Real *>(p.qkv);
    const Real *dout = static_cast<const Real *>(p.dout);
    const unsigned y = threadIdx.x / 16;
    const unsigned x = threadIdx.x % 16;
    load_plain<ROWS, WIDTH>(k_tile, qkv + at.k, at.width, tile.first, tile.end, p.head_dim);
    load_plain<ROWS, WIDTH>(v_tile, qkv + at.v, at.width, tile.first, tile.end, p.head_dim);
    float dk[R][WIDTH / 16] = {}, dv[R][WIDTH / 16] = {};
    for (unsigned i = 0; i < ratio; i++) {
        const unsigned column = at.q + i * p.head_dim;
        for (unsigned first = tile.first; first < tile.query_end; first += ROWS) {
            __syncthreads(); // the last step's tiles have been read
            load_plain<ROWS, WIDTH>(q_tile, qkv + column, at.width, first, tile.query_end, p.head_dim);
            load_plain<ROWS, WIDTH>(do_tile, dout + column, o_width, first, tile.query_end, p.head_dim);
            __syncthreads();
            float s[R][R], dp[R][R];
            dots_plain<WIDTH>(s, q_tile, k_tile, p.head_dim);
            dots_plain<WIDTH>(dp, do_tile, v_tile, p.head_dim);
#pragma unroll
            for (unsigned r = 0; r < R; r++) {
                const unsigned query = first + y + 16 * r;
                const float2 stats = row_stats(p, kv_head * ratio + i, query, tile.query_end);
#pragma unroll
                for (unsigned c = 0; c < R; c++) {
                    const bool visible = tile.first + x + 16 * c <= query;
                    const float weight = visible ? probability(s[r][c], stats.x, p.scale) : 0.0f;
                    const unsigned to = (y + 16 * r) * (ROWS + 1) + x + 16 * c;
                    p_weights[to] = weight;
                    ds_weights[to] = weight * (dp[r][c] - stats.y);
                }
            }
            __syncthreads();
            weighted_plain<WIDTH>(dv, do_tile, p.head_dim,
                                  [&](unsigned key, unsigned row) { return p_weights[row * (ROWS + 1) + key]; });
            weighted_plain<WIDTH>(dk, q_tile, p.head_dim,
                                  [&](unsigned key, unsigned row) { return ds_weights[row * (ROWS + 1) + key]; });
        }
    }
    float one[R], scale[R];
#pragma unroll
    for (unsigned i = 0; i < R; i++) {
        one[i] = 1.0f;
        scale[i] = p.scale;
    }
    Real *dqkv = static_cast<Real *>(p.dqkv);
    store_plain(dqkv + at.k, at.width, tile.first, tile.end, p.head_dim, dk, scale);
    store_plain(dqkv + at.v, at.width, tile.first, tile.end, p.head_dim, dv, one);
}

// An instance of a template above, for heads of up to WIDTH: tile and shared memory are those of params.h.
#define PLAIN_KERNEL(name, Params, kernel, Real, WIDTH, BYTES)                                                        \
    EXPORT_KERNEL(name, (PLAIN_THREADS, 2), Params, kernel<Real, ATTENTION_PLAIN_HD##WIDTH##_TILE, WIDTH, BYTES>)

PLAIN_KERNEL(attention_f32_hd128, AttentionParams, attention_plain, float, 128, ATTENTION_PLAIN_HD128_BYTES);
PLAIN_KERNEL(attention_f32_hd256, AttentionParams, attention_plain, float, 256, ATTENTION_PLAIN_HD256_BYTES);
PLAIN_KERNEL(attention_bf16_hd256, AttentionParams, attention_plain, bf16, 256, ATTENTION_PLAIN_HD256_BYTES);
PLAIN_KERNEL(attention_bw_q_f32_hd128, AttentionBwParams, attention_bw_q_plain, float, 128,
             ATTENTION_BW_Q_PLAIN_HD128_BYTES);
PLAIN_KERNEL(attention_bw_q_f32_hd256, AttentionBwParams, attention_bw_q_plain, float, 256,
             ATTENTION_BW_Q_PLAIN_HD256_BYTES);
PLAIN_KERNEL(attention_bw_q_bf16_hd256, AttentionBwParams, attention_bw_q_plain, bf16, 256,
             ATTENTION_BW_Q_PLAIN_HD256_BYTES);
PLAIN_KERNEL(attention_bw_kv_f32_hd128, AttentionBwParams, attention_bw_kv_plain, float, 128,
             ATTENTION_BW_KV_PLAIN_HD128_BYTES);
PLAIN_KERNEL(attention_bw_kv_f32_hd256, AttentionBwParams, attention_bw_kv_plain, float, 256,
             ATTENTION_BW_KV_PLAIN_HD256_BYTES);
PLAIN_KERNEL(attention_bw_kv_bf16_hd256, AttentionBwParams, attention_bw_kv_plain, bf16, 256,
             ATTENTION_BW_KV_PLAIN_HD256_BYTES);

// ---- what both backwards need of a row ------------------------------------------------------------------------------

// stats[head, row] = (lse, sum(do * o)): a team has a row of a head. Teams past the end take part in the sum.
template <class Real, unsigned count> DEVICE void attention_bw_stats_of(const AttentionBwParams &p) {
    const size_t team = (static_cast<size_t>(blockIdx.x) * ATTENTION_STATS_THREADS + threadIdx.x) / ATTENTION_TEAM;
    const bool inside = team < static_cast<size_t>(p.rows) * p.heads;
    const Real *dout = static_cast<const Real *>(p.dout) + team * p.head_dim;
    const Real *o = static_cast<const Real *>(p.o) + team * p.head_dim;
    float delta = 0.0f;
    for (unsigned i = threadIdx.x % ATTENTION_TEAM * count; inside && i < p.head_dim; i += ATTENTION_TEAM * count) {
        float a[count], b[count];
        load(a, dout + i);
        load(b, o + i);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            delta += a[j] * b[j];
        }
    }
    delta = octet_sum(delta);
    if (inside && threadIdx.x % ATTENTION_TEAM == 0) {
        const size_t to = team % p.heads * p.rows + team / p.heads;
        reinterpret_cast<float2 *>(p.stats)[to] = make_float2(p.lse[team], delta);
    }
}

template <class Real> DEVICE void attention_bw_stats(const AttentionBwParams &p) {
    if (vectorised<Real>(p.head_dim, p.dout, p.o)) {
        attention_bw_stats_of<Real, LANES<Real>>(p);
    } else {
        attention_bw_stats_of<Real, 1>(p);
    }
}

EXPORT_KERNEL(attention_bw_stats_f32, (ATTENTION_STATS_THREADS), AttentionBwParams, attention_bw_stats<float>);
EXPORT_KERNEL(attention_bw_stats_bf16, (ATTENTION_STATS_THREADS), AttentionBwParams, attention_bw_stats<bf16>);
