// Softmax attention over groups that share their prompt, and its backward, for compute capability 9.0: bf16, heads of
// 64 and 128. Verbs: attention, attention_bw. The maths, the shapes, the grids, the lists of tiles and the bound are
// those of attention.cu, which also has the kernel that sums delta.
//
// A block is warp-specialised: the first warpgroup gives its registers away, and its first warp loads tiles by TMA into
// a ring of stages with the 128-byte swizzle; each of the other warpgroups computes 64 rows of the block's tile by
// wgmma. Full and empty mbarriers hand the stages over. Scores stay in registers and, rounded to bf16, are the left
// operand of the next product, so that nothing but the tiles goes through shared memory. The right operand of a tile's
// row products is K-major, that of its weighted rows the same bytes MN-major (Shah et al., 2024, has the same plan).
//
// Forward: the row products of a step run together with the weighted rows of the step before, under the softmax.
// `bw_kv` issues the product for dv before ds is computed.
//
// A tile that TMA brings is not cut off at the end of its segment: rows after it belong to others, get weight 0 and are
// not stored. A value there that is not finite would still spoil the result, 0 times infinity being NaN.
#include "attention.cuh"

#ifdef DUEL_SM90A

constexpr unsigned WARPGROUP = SM90_WARPGROUP;
constexpr unsigned GROUP_ROWS = SM90_GROUP_ROWS; // that a warpgroup computes
constexpr unsigned BOX_ROWS = SM90_BOX;          // that one TMA copy brings, as many columns of them
constexpr unsigned BOX_BYTES = BOX_ROWS * 128;

// ---- tiles and stages ----------------------------------------------------------------------------------------------
// A tile of ROWS x HD is HD / 64 columns of boxes, each of ROWS rows of 128 bytes.

template <unsigned HD, unsigned ROWS>
DEVICE void load_tile(unsigned char *tile, const TensorMap *map, unsigned long long *bar, unsigned column,
                      unsigned row PLACE) {
#pragma unroll
    for (unsigned c = 0; c < HD / 64; c++) {
#pragma unroll
        for (unsigned r = 0; r < ROWS / BOX_ROWS; r++) {
            unsigned char *box = tile + (c * (ROWS / BOX_ROWS) + r) * BOX_BYTES;
            tma_load_2d(box, map, bar, static_cast<int>(column + c * 64), static_cast<int>(row + r * BOX_ROWS) HERE);
        }
    }
}

// Sixteen values of the head from 16 k on, of all rows: an operand of row products.
template <unsigned HD, unsigned ROWS>
DEVICE unsigned long long head_descriptor(const unsigned char *tile, unsigned k PLACE) {
    return smem_descriptor(tile + k / 4 * ROWS * 128 + k % 4 * 32, 0, 1024 HERE);
}

// Sixteen rows from 16 k on, of all columns: the right operand of weighted rows.
template <unsigned ROWS> DEVICE unsigned long long rows_descriptor(const unsigned char *tile, unsigned k PLACE) {
    return smem_descriptor(tile + k * 16 * 128, ROWS * 128, 1024 HERE);
}

// s[64, ROWS] = the 64 rows of `left` times the ROWS rows of `right`, transposed; to be committed and waited for.
template <unsigned HD, unsigned ROWS>
DEVICE void row_products(float (&s)[ROWS / 2], const unsigned char *left, const unsigned char *right PLACE) {
#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++) {
        wgmma_bf16<ROWS, false, false>(s, head_descriptor<HD, GROUP_ROWS>(left, k HERE),
                                       head_descriptor<HD, ROWS>(right, k HERE), k > 0 HERE);
    }
}

// out[64, HD] += weights[64, ROWS] times the rows of `right`; to be committed and waited for.
template <unsigned HD, unsigned ROWS>
DEVICE void weighted_rows(float (&out)[HD / 2], const unsigned (&weights)[ROWS / 16][4],
                          const unsigned char *right PLACE) {
#pragma unroll
    for (unsigned k = 0; k < ROWS / 16; k++) {
        wgmma_bf16<HD, true>(out, weights[k], rows_descriptor<ROWS>(right, k HERE), true HERE);
    }
}

template <unsigned ROWS> DEVICE void left_operands(unsigned (&a)[ROWS / 16][4], const float (&x)[ROWS / 2]) {
#pragma unroll
    for (unsigned k = 0; k < ROWS / 16; k++) {
        left_operand(a[k], x, k);
    }
}

// The mbarriers of STAGES stages that are filled and emptied in turn.
template <unsigned STAGES> struct Ring {
    unsigned long long *full; // [STAGES], and as many for empty

    // By one thread. Each of `warps` releases a stage once.
    DEVICE void init(unsigned fillers, unsigned warps PLACE) const {
        for (unsigned i = 0; i < STAGES; i++) {
            mbar_init(full + i, fillers HERE);
            mbar_init(full + STAGES + i, warps HERE);
        }
    }
    DEVICE static unsigned stage(unsigned step) { return step % STAGES; }
    DEVICE unsigned long long *filling(unsigned step) const { return full + step % STAGES; }
    DEVICE void wait_full(unsigned step PLACE) const { mbar_wait(full + step % STAGES, step / STAGES % 2 HERE); }
    // The first round finds every stage empty.
    DEVICE void wait_empty(unsigned step PLACE) const {
        mbar_wait(full + STAGES + step % STAGES, (step / STAGES + 1) % 2 HERE);
    }
    // By every lane of a warp that has read the stage.
    DEVICE void release(unsigned step PLACE) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            mbar_arrive(full + STAGES + step % STAGES HERE);
        }
    }
};

// ---- forward -------------------------------------------------------------------------------------------------------

// QUERIES queries a block, 64 a computing warpgroup, and KEYS keys a step.
template <unsigned HD, unsigned QUERIES, unsigned KEYS, unsigned BYTES> struct Forward {
    static constexpr unsigned STAGES = ATTENTION_SM90_STAGES;
    static constexpr unsigned GROUPS = QUERIES / GROUP_ROWS;
    static constexpr unsigned GROUP_BYTES = GROUP_ROWS * ROW_BYTES<HD>;
    static constexpr unsigned TILE_BYTES = KEYS * ROW_BYTES<HD>;
    static_assert(SM90_BARRIER_BYTES + GROUPS * GROUP_BYTES + STAGES * 2 * TILE_BYTES == BYTES,
                  "the launch has room for the tiles");

    const AttentionParams &p;
    const TensorMap *map;
    unsigned head;
    HeadColumns at;
    QueryTile tile;
    KeySteps<KEYS> steps;
    unsigned char *q_tile, *k_tiles, *v_tiles;
    unsigned long long *q_full;
    Ring<STAGES> keys, values;

    DEVICE Forward(const AttentionParams &p, const TensorMap *map, unsigned char *shared)
        : p(p), map(map), head(blockIdx.x % p.heads),
          at(p.heads, p.kv_heads, p.head_dim, head, head / (p.heads / p.kv_heads)), tile(p.tiles[blockIdx.x / p.heads]),
          steps(tile), q_tile(shared + SM90_BARRIER_BYTES), k_tiles(q_tile + GROUPS * GROUP_BYTES),
          v_tiles(k_tiles + STAGES * TILE_BYTES), q_full(reinterpret_cast<unsigned long long *>(shared)),
          keys{q_full + 1}, values{q_full + 1 + 2 * STAGES} {
        shared_reaches(v_tiles + STAGES * TILE_BYTES);
    }

    DEVICE void init() const {
        tma_prefetch(map);
        mbar_init(q_full, 1);
        keys.init(1, GROUPS * 4);
        values.init(1, GROUPS * 4);
        mbar_init_fence();
    }

    // By one thread.
    DEVICE void produce() const {
        mbar_expect_tx(q_full, GROUPS * GROUP_BYTES);
        for (unsigned group = 0; group < GROUPS; group++) {
            load_tile<HD, GROUP_ROWS>(q_tile + group * GROUP_BYTES, map, q_full, at.q, tile.first + group * GROUP_ROWS);
        }
        for (unsigned step = 0; step < steps.count; step++) {
            const unsigned stage = Ring<STAGES>::stage(step);
            keys.wait_empty(step);
            mbar_expect_tx(keys.filling(step), TILE_BYTES);
            load_tile<HD, KEYS>(k_tiles + stage * TILE_BYTES, map, keys.filling(step), at.k, steps.first(step));
            values.wait_empty(step);
            mbar_expect_tx(values.filling(step), TILE_BYTES);
            load_tile<HD, KEYS>(v_tiles + stage * TILE_BYTES, map, values.filling(step), at.v, steps.first(step));
        }
    }

    // Steps that the queries of a warpgroup need: the first rows of a tile see less than the last.
    DEVICE unsigned count_for(unsigned group) const {
        const unsigned first = tile.first + group * GROUP_ROWS;
        if (first >= tile.end) {
            return 0;
        }
        QueryTile part = tile;
        part.end = min(tile.end, first + GROUP_ROWS);
        return KeySteps<KEYS>(part).count;
    }

    DEVICE void hide(float (&s)[KEYS / 2], unsigned step, unsigned row) const {
        const unsigned first = steps.first(step);
        const unsigned warp_row = row - threadIdx.x % 32 / 4;
        if (first + KEYS > steps.visible_end(step, warp_row)) {
            hide_columns(s, first, steps.visible_end(step, row), steps.visible_end(step, row + 8));
        }
    }

    DEVICE void consume(unsigned group) const {
        const unsigned warp = threadIdx.x / 32 % 4;
        const unsigned row = tile.first + group * GROUP_ROWS + warp * 16 + threadIdx.x % 32 / 4;
        const unsigned count = count_for(group);
        unsigned char *q_rows = q_tile + group * GROUP_BYTES;
        if (count > 0) {
            compute(q_rows, row, count, group, warp);
        }
        for (unsigned step = count; step < steps.count; step++) {
            keys.wait_full(step);
            keys.release(step);
            values.wait_full(step);
            values.release(step);
        }
    }

    DEVICE void compute(unsigned char *q_rows, unsigned row, unsigned count, unsigned group, unsigned warp) const {
        const float scale_log2 = p.scale * LOG2_E;
        OnlineSoftmax softmax;
        float s[KEYS / 2], o[HD / 2] = {}, correction[2];
        unsigned weights[KEYS / 16][4];
        mbar_wait(q_full, 0);
        keys.wait_full(0);
        wgmma_fence();
        row_products<HD, KEYS>(s, q_rows, k_tiles);
        wgmma_commit();
        wgmma_wait<0>();
        keys.release(0);
        wgmma_results(s);
        hide(s, 0, row);
        softmax.add(s, correction, scale_log2);
        left_operands<KEYS>(weights, s);
        for (unsigned step = 1; step < count; step++) {
            keys.wait_full(step);
            wgmma_fence();
            row_products<HD, KEYS>(s, q_rows, k_tiles + Ring<STAGES>::stage(step) * TILE_BYTES);
            wgmma_commit();
            values.wait_full(step - 1);
            wgmma_fence();
            weighted_rows<HD, KEYS>(o, weights, v_tiles + Ring<STAGES>::stage(step - 1) * TILE_BYTES);
            wgmma_commit();
            wgmma_wait<1>();
            keys.release(step);
            wgmma_results(s);
            hide(s, step, row);
            softmax.add(s, correction, scale_log2);
            wgmma_wait<0>();
            values.release(step - 1);
            wgmma_results(o);
            scale_rows(o, correction);
            left_operands<KEYS>(weights, s);
        }
        values.wait_full(count - 1);
        wgmma_fence();
        weighted_rows<HD, KEYS>(o, weights, v_tiles + Ring<STAGES>::stage(count - 1) * TILE_BYTES);
        wgmma_commit();
        wgmma_wait<0>();
        values.release(count - 1);
        wgmma_results(o);

        float factor[2], lse[2];
        softmax.finish(factor, lse, p.scale);
#pragma unroll
        for (unsigned h = 0; h < 2; h++) {
            if (row + 8 * h < tile.end && threadIdx.x % 4 == 0) {
                p.lse[static_cast<size_t>(row + 8 * h) * p.heads + head] = lse[h];
            }
        }
        // The warpgroup's queries have been read: their place takes the result.
        bar_sync(1 + group, WARPGROUP);
        const unsigned first = row - threadIdx.x % 32 / 4;
        const size_t stride = static_cast<size_t>(p.heads) * HD;
        store_rows<HD>(static_cast<bf16 *>(p.o) + first * stride + at.q, stride, rows_before(first, tile.end), HD, o,
                       factor, q_rows + warp * 16 * ROW_BYTES<HD>);
    }
};

// ---- backward ------------------------------------------------------------------------------------------------------

// dq of QUERIES queries, 64 a computing warpgroup.
template <unsigned HD, unsigned QUERIES, unsigned KEYS, unsigned BYTES> struct BackwardQ {
    static constexpr unsigned STAGES = ATTENTION_BW_SM90_STAGES;
    static constexpr unsigned GROUPS = QUERIES / GROUP_ROWS;
    static constexpr unsigned GROUP_BYTES = GROUP_ROWS * ROW_BYTES<HD>;
    static constexpr unsigned TILE_BYTES = KEYS * ROW_BYTES<HD>;
    static_assert(SM90_BARRIER_BYTES + 2 * GROUPS * GROUP_BYTES + STAGES * 2 * TILE_BYTES == BYTES,
                  "the launch has room for the tiles");

    const AttentionBwParams &p;
    const TensorMap *qkv_map, *dout_map;
    unsigned head;
    HeadColumns at;
    QueryTile tile;
    KeySteps<KEYS> steps;
    unsigned char *q_tile, *do_tile, *stages;
    unsigned long long *queries_full;
    Ring<STAGES> ring;

    DEVICE BackwardQ(const AttentionBwParams &p, const TensorMap *qkv_map, const TensorMap *dout_map,
                     unsigned char *shared)
        : p(p), qkv_map(qkv_map), dout_map(dout_map), head(blockIdx.x % p.heads),
          at(p.heads, p.kv_heads, p.head_dim, head, head / (p.heads / p.kv_heads)),
          tile(p.query_tiles[blockIdx.x / p.heads]), steps(tile), q_tile(shared + SM90_BARRIER_BYTES),
          do_tile(q_tile + GROUPS * GROUP_BYTES), stages(do_tile + GROUPS * GROUP_BYTES),
          queries_full(reinterpret_cast<unsigned long long *>(shared)), ring{queries_full + 1} {
        shared_reaches(stages + STAGES * 2 * TILE_BYTES);
    }

    DEVICE void init() const {
        tma_prefetch(qkv_map);
        tma_prefetch(dout_map);
        mbar_init(queries_full, 1);
        ring.init(1, GROUPS * 4);
        mbar_init_fence();
    }

    // By one thread.
    DEVICE void produce() const {
        mbar_expect_tx(queries_full, 2 * GROUPS * GROUP_BYTES);
        for (unsigned group = 0; group < GROUPS; group++) {
            const unsigned row = tile.first + group * GROUP_ROWS;
            load_tile<HD, GROUP_ROWS>(q_tile + group * GROUP_BYTES, qkv_map, queries_full, at.q, row);
            load_tile<HD, GROUP_ROWS>(do_tile + group * GROUP_BYTES, dout_map, queries_full, at.q, row);
        }
        for (unsigned step = 0; step < steps.count; step++) {
            unsigned char *stage = stages + Ring<STAGES>::stage(step) * 2 * TILE_BYTES;
            ring.wait_empty(step);
            mbar_expect_tx(ring.filling(step), 2 * TILE_BYTES);
            load_tile<HD, KEYS>(stage, qkv_map, ring.filling(step), at.k, steps.first(step));
            load_tile<HD, KEYS>(stage + TILE_BYTES, qkv_map, ring.filling(step), at.v, steps.first(step));
        }
    }

    DEVICE void consume(unsigned group) const {
        const unsigned warp = threadIdx.x / 32 % 4;
        const unsigned warp_row = tile.first + group * GROUP_ROWS + warp * 16;
        const unsigned row = warp_row + threadIdx.x % 32 / 4;
        unsigned char *q_rows = q_tile + group * GROUP_BYTES;
        const unsigned char *do_rows = do_tile + group * GROUP_BYTES;
        const float2 stats[2] = {row_stats(p, head, row, tile.end), row_stats(p, head, row + 8, tile.end)};
        float s[KEYS / 2], ds[KEYS / 2], dq[HD / 2] = {};
        unsigned weights[KEYS / 16][4];
        mbar_wait(queries_full, 0);
        for (unsigned step = 0; step < steps.count; step++) {
            const unsigned char *k_tile = stages + Ring<STAGES>::stage(step) * 2 * TILE_BYTES;
            ring.wait_full(step);
            wgmma_fence();
            row_products<HD, KEYS>(s, q_rows, k_tile);
            wgmma_commit();
            row_products<HD, KEYS>(ds, do_rows, k_tile + TILE_BYTES);
            wgmma_commit();
            wgmma_wait<1>();
            wgmma_results(s);
            const unsigned first = steps.first(step);
            if (first + KEYS > steps.visible_end(step, warp_row)) {
                hide_columns(s, first, steps.visible_end(step, row), steps.visible_end(step, row + 8));
            }
#pragma unroll
            for (unsigned i = 0; i < KEYS / 2; i++) {
                s[i] = probability(s[i], stats[i / 2 % 2].x, p.scale);
            }
            wgmma_wait<0>();
            wgmma_results(ds);
#pragma unroll
            for (unsigned i = 0; i < KEYS / 2; i++) {
                ds[i] = s[i] * (ds[i] - stats[i / 2 % 2].y);
            }
            left_operands<KEYS>(weights, ds);
            wgmma_fence();
            weighted_rows<HD, KEYS>(dq, weights, k_tile);
            wgmma_commit();
            wgmma_wait<0>();
            ring.release(step);
            wgmma_results(dq);
        }
        // The warpgroup's queries have been read: their place takes the result.
        bar_sync(1 + group, WARPGROUP);
        const float factor[2] = {p.scale, p.scale};
        store_rows<HD>(static_cast<bf16 *>(p.dqkv) + warp_row * static_cast<size_t>(at.width) + at.q, at.width,
                       rows_before(warp_row, tile.end), HD, dq, factor, q_rows + warp * 16 * ROW_BYTES<HD>);
    }
};

// dk and dv of KEYS keys, 64 a computing warpgroup: the scores are transposed, keys in rows.
template <unsigned HD, unsigned KEYS, unsigned QUERIES, unsigned BYTES> struct BackwardKv {
    static constexpr unsigned STAGES = ATTENTION_BW_SM90_STAGES;
    static constexpr unsigned GROUPS = KEYS / GROUP_ROWS;
    static constexpr unsigned GROUP_BYTES = GROUP_ROWS * ROW_BYTES<HD>;
    static constexpr unsigned TILE_BYTES = QUERIES * ROW_BYTES<HD>;
    static_assert(SM90_BARRIER_BYTES + 2 * GROUPS * GROUP_BYTES + STAGES * (2 * TILE_BYTES + QUERIES * sizeof(float2)) ==
                      BYTES,
                  "the launch has room for the tiles and the stats");

    const AttentionBwParams &p;
    const TensorMap *qkv_map, *dout_map;
    unsigned ratio, kv_head;
    HeadColumns at;
    KeyTile tile;
    unsigned tiles; // of queries, for each head
    unsigned char *k_tile, *v_tile, *stages;
    float2 *stats; // [STAGES, QUERIES]
    unsigned long long *keys_full;
    Ring<STAGES> ring;

    DEVICE BackwardKv(const AttentionBwParams &p, const TensorMap *qkv_map, const TensorMap *dout_map,
                      unsigned char *shared)
        : p(p), qkv_map(qkv_map), dout_map(dout_map), ratio(p.heads / p.kv_heads), kv_head(blockIdx.x % p.kv_heads),
          at(p.heads, p.kv_heads, p.head_dim, kv_head * ratio, kv_head), tile(p.key_tiles[blockIdx.x / p.kv_heads]),
          tiles((tile.query_end - tile.first + QUERIES - 1) / QUERIES), k_tile(shared + SM90_BARRIER_BYTES),
          v_tile(k_tile + GROUPS * GROUP_BYTES), stages(v_tile + GROUPS * GROUP_BYTES),
          stats(reinterpret_cast<float2 *>(stages + STAGES * 2 * TILE_BYTES)),
          keys_full(reinterpret_cast<unsigned long long *>(shared)), ring{keys_full + 1} {
        shared_reaches(stats + STAGES * QUERIES);
    }

    DEVICE unsigned steps() const { return ratio * tiles; }
    DEVICE unsigned first_query(unsigned step) const { return tile.first + step % tiles * QUERIES; }

    // A stage is filled by the copies, which one lane starts, and by all lanes of its warp, which write the stats.
    DEVICE void init() const {
        tma_prefetch(qkv_map);
        tma_prefetch(dout_map);
        mbar_init(keys_full, 1);
        ring.init(1 + 32, GROUPS * 4);
        mbar_init_fence();
    }

    // By one warp.
    DEVICE void produce() const {
        const unsigned lane = threadIdx.x % 32;
        if (lane == 0) {
            mbar_expect_tx(keys_full, 2 * GROUPS * GROUP_BYTES);
            for (unsigned group = 0; group < GROUPS; group++) {
                const unsigned row = tile.first + group * GROUP_ROWS;
                load_tile<HD, GROUP_ROWS>(k_tile + group * GROUP_BYTES, qkv_map, keys_full, at.k, row);
                load_tile<HD, GROUP_ROWS>(v_tile + group * GROUP_BYTES, qkv_map, keys_full, at.v, row);
            }
        }
        for (unsigned step = 0; step < steps(); step++) {
            const unsigned i = step / tiles;
            const unsigned first = first_query(step);
            float2 of_queries[QUERIES / 32];
#pragma unroll
            for (unsigned j = 0; j < QUERIES / 32; j++) {
                of_queries[j] = row_stats(p, kv_head * ratio + i, first + j * 32 + lane, tile.query_end);
            }
            ring.wait_empty(step);
            if (lane == 0) {
                unsigned char *stage = stages + Ring<STAGES>::stage(step) * 2 * TILE_BYTES;
                const unsigned column = at.q + i * HD;
                mbar_expect_tx(ring.filling(step), 2 * TILE_BYTES);
                load_tile<HD, QUERIES>(stage, qkv_map, ring.filling(step), column, first);
                load_tile<HD, QUERIES>(stage + TILE_BYTES, dout_map, ring.filling(step), column, first);
            }
#pragma unroll
            for (unsigned j = 0; j < QUERIES / 32; j++) {
                stats[Ring<STAGES>::stage(step) * QUERIES + j * 32 + lane] = of_queries[j];
            }
            mbar_arrive(ring.filling(step));
        }
    }

    DEVICE void consume(unsigned group) const {
        const unsigned warp = threadIdx.x / 32 % 4;
        const unsigned warp_row = tile.first + group * GROUP_ROWS + warp * 16;
        const unsigned row = warp_row + threadIdx.x % 32 / 4;
        unsigned char *k_rows = k_tile + group * GROUP_BYTES;
        unsigned char *v_rows = v_tile + group * GROUP_BYTES;
        float s[QUERIES / 2], ds[QUERIES / 2], dk[HD / 2] = {}, dv[HD / 2] = {};
        unsigned p_weights[QUERIES / 16][4], ds_weights[QUERIES / 16][4];
        mbar_wait(keys_full, 0);
        for (unsigned step = 0; step < steps(); step++) {
            const unsigned stage = Ring<STAGES>::stage(step);
            const unsigned char *queries = stages + stage * 2 * TILE_BYTES;
            // Of the two columns that this thread has of 8.
            const float4 *pairs = reinterpret_cast<const float4 *>(stats + stage * QUERIES) + threadIdx.x % 4;
            ring.wait_full(step);
            wgmma_fence();
            row_products<HD, QUERIES>(s, k_rows, queries);
            wgmma_commit();
            row_products<HD, QUERIES>(ds, v_rows, queries + TILE_BYTES);
            wgmma_commit();
            wgmma_wait<1>();
            wgmma_results(s);
            const unsigned first = first_query(step);
            if (first < warp_row + 16) {
                hide_earlier_columns(s, first, row);
            }
#pragma unroll
            for (unsigned i = 0; i < QUERIES / 2; i++) {
                const float4 pair = pairs[i / 4 * 4];
                s[i] = probability(s[i], i % 2 ? pair.z : pair.x, p.scale);
            }
            left_operands<QUERIES>(p_weights, s);
            wgmma_fence();
            weighted_rows<HD, QUERIES>(dv, p_weights, queries + TILE_BYTES);
            wgmma_commit();
            wgmma_wait<1>(); // dp
            wgmma_results(ds);
#pragma unroll
            for (unsigned i = 0; i < QUERIES / 2; i++) {
                const float4 pair = pairs[i / 4 * 4];
                ds[i] = s[i] * (ds[i] - (i % 2 ? pair.w : pair.y));
            }
            left_operands<QUERIES>(ds_weights, ds);
            wgmma_fence();
            weighted_rows<HD, QUERIES>(dk, ds_weights, queries);
            wgmma_commit();
            wgmma_wait<0>();
            ring.release(step);
            wgmma_results(dk);
            wgmma_results(dv);
        }
        // The warpgroup's keys and values have been read: their places take the results.
        bar_sync(1 + group, WARPGROUP);
        const float one[2] = {1.0f, 1.0f};
        const float scale[2] = {p.scale, p.scale};
        bf16 *out = static_cast<bf16 *>(p.dqkv) + warp_row * static_cast<size_t>(at.width);
        const unsigned rows = rows_before(warp_row, tile.end);
        const unsigned scratch = warp * 16 * ROW_BYTES<HD>;
        store_rows<HD>(out + at.k, at.width, rows, HD, dk, scale, k_rows + scratch);
        store_rows<HD>(out + at.v, at.width, rows, HD, dv, one, v_rows + scratch);
    }
};

// ---- kernels -------------------------------------------------------------------------------------------------------

// A producing warpgroup, of which `PRODUCERS` threads work, and the computing ones. Both numbers of registers together
// fill the multiprocessor.
template <unsigned PRODUCERS, int PRODUCER_REGISTERS, int CONSUMER_REGISTERS, class Work>
DEVICE void run_specialised(const Work &work) {
    if (threadIdx.x == 0) {
        work.init();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        decrease_registers<PRODUCER_REGISTERS>();
        if (threadIdx.x < PRODUCERS) {
            work.produce();
        }
    } else {
        increase_registers<CONSUMER_REGISTERS>();
        work.consume(threadIdx.x / WARPGROUP - 1);
    }
}

#define FORWARD_KERNEL(name, HD, PRODUCER_REGISTERS, CONSUMER_REGISTERS)                                              \
    KERNEL void __launch_bounds__(ATTENTION_SM90_HD##HD##_THREADS, 1)                                                 \
        name(const __grid_constant__ TensorMap qkv, const __grid_constant__ AttentionParams p) {                      \
        using Work = Forward<HD, ATTENTION_SM90_HD##HD##_TILE, ATTENTION_SM90_HD##HD##_STEP,                          \
                             ATTENTION_SM90_HD##HD##_BYTES>;                                                          \
        DYN_SMEM(shared);                                                                                             \
        run_specialised<1, PRODUCER_REGISTERS, CONSUMER_REGISTERS>(Work(p, &qkv, shared));                            \
    }                                                                                                                 \
    REGISTER_KERNEL(name, ATTENTION_SM90_HD##HD##_THREADS)

#define BACKWARD_KERNEL(name, PRODUCERS, PRODUCER_REGISTERS, ...)                                                     \
    KERNEL void __launch_bounds__(ATTENTION_BW_SM90_THREADS, 1)                                                       \
        name(const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap dout,                           \
             const __grid_constant__ AttentionBwParams p) {                                                           \
        DYN_SMEM(shared);                                                                                             \
        run_specialised<PRODUCERS, PRODUCER_REGISTERS, 240>(__VA_ARGS__(p, &qkv, &dout, shared));                     \
    }                                                                                                                 \
    REGISTER_KERNEL(name, ATTENTION_BW_SM90_THREADS)

template <unsigned HD, unsigned STEP, unsigned BYTES>
using OfQueries = BackwardQ<HD, ATTENTION_BW_SM90_TILE, STEP, BYTES>;
template <unsigned HD, unsigned BYTES>
using OfKeys = BackwardKv<HD, ATTENTION_BW_SM90_TILE, ATTENTION_BW_KV_SM90_STEP, BYTES>;

FORWARD_KERNEL(attention_bf16_hd64_sm90, 64, 32, 160);
FORWARD_KERNEL(attention_bf16_hd128_sm90, 128, 24, 240);
BACKWARD_KERNEL(attention_bw_q_bf16_hd64_sm90, 1, 24,
                OfQueries<64, ATTENTION_BW_Q_SM90_HD64_STEP, ATTENTION_BW_Q_SM90_HD64_BYTES>);
BACKWARD_KERNEL(attention_bw_q_bf16_hd128_sm90, 1, 24,
                OfQueries<128, ATTENTION_BW_Q_SM90_HD128_STEP, ATTENTION_BW_Q_SM90_HD128_BYTES>);
BACKWARD_KERNEL(attention_bw_kv_bf16_hd64_sm90, 32, 24, OfKeys<64, ATTENTION_BW_KV_SM90_HD64_BYTES>);
BACKWARD_KERNEL(attention_bw_kv_bf16_hd128_sm90, 32, 24, OfKeys<128, ATTENTION_BW_KV_SM90_HD128_BYTES>);

#endif // DUEL_SM90A
