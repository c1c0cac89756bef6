// A matrix product as Hopper wants it, small enough to be read at once: it shows that the emulation of TMA,
// mbarriers and wgmma agrees with itself and with plain arithmetic, and it carries the planted early release
// of a ring's stage.
//
//   c[m, n] = a[m, k] · b[k, n], bf16 in, float out; m, n and k need not be multiples of the tile.
//
// A producer warp loads tiles into a ring of stages, 128-byte swizzled; full and empty mbarriers hand the
// stages over. One consumer warpgroup multiplies 64 x 64 tiles: a K-major, b MN-major. With
// `through_registers` the left operand goes through registers. The result leaves through shared memory and
// TMA stores where `store` says so.
#include "common.cuh"

struct RingParams {
    float *c;
    unsigned m, n, k;
    unsigned through_registers;
};

constexpr unsigned TILE = 64;
constexpr unsigned STAGES = 3;
constexpr unsigned TILE_BYTES = TILE * TILE * 2;
constexpr unsigned STAGE_BYTES = 2 * TILE_BYTES;
constexpr unsigned CONSUMERS = 128;

DEVICE void produce(unsigned char *stages, unsigned long long *full, unsigned long long *empty,
                    const TensorMap &a, const TensorMap &b, unsigned steps) {
    for (unsigned step = 0; step < steps; step++) {
        const unsigned stage = step % STAGES;
        mbar_wait(&empty[stage], (step / STAGES + 1) % 2); // the first round finds every stage free
        unsigned char *tile = stages + stage * STAGE_BYTES;
        mbar_expect_tx(&full[stage], STAGE_BYTES);
        tma_load_2d(tile, &a, &full[stage], step * TILE, blockIdx.y * TILE);
        tma_load_2d(tile + TILE_BYTES, &b, &full[stage], blockIdx.x * TILE, step * TILE);
    }
}

// The warp's 16 rows of 16 columns of k of a swizzled tile, as a register operand.
DEVICE void load_left(unsigned (&registers)[4], const unsigned char *tile, unsigned k) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = threadIdx.x / 32 * 16 + lane % 16;
    const unsigned chunk = (k / 8 + lane / 16) ^ row % 8;
    ldmatrix_x4(registers, tile + row * 128 + chunk * 16);
}

DEVICE void consume(float (&sum)[32], unsigned char *stages, unsigned long long *full,
                    unsigned long long *empty, unsigned steps, bool through_registers) {
    for (unsigned step = 0; step < steps; step++) {
        const unsigned stage = step % STAGES;
        unsigned char *left = stages + stage * STAGE_BYTES;
        unsigned char *right = left + TILE_BYTES;
        mbar_wait(&full[stage], step / STAGES % 2);
        unsigned a[TILE / 16][4];
        if (through_registers) {
            for (unsigned k = 0; k < TILE; k += 16) {
                load_left(a[k / 16], left, k);
            }
        }
        wgmma_fence();
        for (unsigned k = 0; k < TILE; k += 16) {
            const unsigned long long b = smem_descriptor(right + k * 128, 0, 1024);
            if (through_registers) {
                wgmma_bf16<64, true>(sum, a[k / 16], b, true);
            } else {
                wgmma_bf16<64, false, true>(sum, smem_descriptor(left + k * 2, 0, 1024), b, true);
            }
        }
        wgmma_commit();
        wgmma_wait<0>();
        mbar_arrive(&empty[stage]);
        wgmma_results(sum);
    }
}

KERNEL void __launch_bounds__(CONSUMERS + 32)
    ring(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
         const __grid_constant__ TensorMap c, const __grid_constant__ RingParams p) {
    DYN_SMEM(shared);
    unsigned long long *full = reinterpret_cast<unsigned long long *>(shared + STAGES * STAGE_BYTES);
    unsigned long long *empty = full + STAGES;
    const unsigned steps = (p.k + TILE - 1) / TILE;
    if (threadIdx.x == 0) {
        for (unsigned stage = 0; stage < STAGES; stage++) {
            mbar_init(&full[stage], 1);
            mbar_init(&empty[stage], CONSUMERS);
        }
        mbar_init_fence();
    }
    __syncthreads();
    if (threadIdx.x >= CONSUMERS) {
        if (threadIdx.x == CONSUMERS) {
            produce(shared, full, empty, a, b, steps);
        }
        return;
    }
    float sum[32] = {};
    consume(sum, shared, full, empty, steps, p.through_registers != 0);
    // Every stage has been read: the first ones take the result, in two halves of 32 columns.
    bar_sync(1, CONSUMERS);
    const unsigned lane = threadIdx.x % 32;
    float *tile = reinterpret_cast<float *>(shared);
    for (unsigned i = 0; i < 32; i++) {
        const unsigned row = threadIdx.x / 32 * 16 + lane / 4 + (i / 2 % 2) * 8;
        const unsigned column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        tile[column / 32 * 2048 + row * 32 + column % 32] = sum[i];
    }
    fence_proxy_async();
    bar_sync(1, CONSUMERS);
    if (threadIdx.x == 0) {
        tma_store_2d(&c, tile, blockIdx.x * TILE, blockIdx.y * TILE);
        tma_store_2d(&c, tile + 2048, blockIdx.x * TILE + 32, blockIdx.y * TILE);
        tma_store_commit();
        tma_store_wait<0>();
    }
}
REGISTER_KERNEL(ring, CONSUMERS + 32);
