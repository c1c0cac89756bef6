// One kernel for each mistake that the emulation reports. The tests look for the message and for the line,
// which they find by the comment on it.
#include "common.cuh"

struct MistakeParams {
    float *out;
    const float *in;
};

KERNEL void __launch_bounds__(64) deadlock(const __grid_constant__ MistakeParams p) {
    if (threadIdx.x < 32) {
        bar_sync(1, 64); // HERE deadlock
    }
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(deadlock, 64);

KERNEL void __launch_bounds__(32) divergent_barrier(const __grid_constant__ MistakeParams p) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncthreads(); // HERE divergent_barrier
    }
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(divergent_barrier, 32);

KERNEL void __launch_bounds__(32) half_warp_shuffle(const __grid_constant__ MistakeParams p) {
    float x = p.in[threadIdx.x];
    if (threadIdx.x < 16) {
        x = warp_sum(x); // HERE half_warp_shuffle
    }
    p.out[threadIdx.x] = x;
}
REGISTER_KERNEL(half_warp_shuffle, 32);

KERNEL void __launch_bounds__(32) foreign_lane(const __grid_constant__ MistakeParams p) {
    p.out[threadIdx.x] = __shfl_xor_sync(0xffffu, p.in[threadIdx.x], 1); // HERE foreign_lane
}
REGISTER_KERNEL(foreign_lane, 32);

KERNEL void __launch_bounds__(64) odd_barrier_count(const __grid_constant__ MistakeParams p) {
    bar_sync(1, 48); // HERE odd_barrier_count
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(odd_barrier_count, 64);

KERNEL void __launch_bounds__(64) two_barrier_counts(const __grid_constant__ MistakeParams p) {
    bar_sync(1, threadIdx.x < 32 ? 64 : 96); // HERE two_barrier_counts
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(two_barrier_counts, 64);

KERNEL void __launch_bounds__(32) misaligned_ldmatrix(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    unsigned registers[4];
    ldmatrix_x4(registers, shared + 8 + threadIdx.x * 16); // HERE misaligned_ldmatrix
    p.out[threadIdx.x] = __uint_as_float(registers[0]);
}
REGISTER_KERNEL(misaligned_ldmatrix, 32);

KERNEL void __launch_bounds__(32) misaligned_cp_async(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    cp_async_16(shared + threadIdx.x * 16, p.in + 1 + threadIdx.x); // HERE misaligned_cp_async
    cp_async_commit();
    cp_async_wait<0>();
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(misaligned_cp_async, 32);

KERNEL void __launch_bounds__(32) misaligned_load(const __grid_constant__ MistakeParams p) {
    const uint4 raw = load_16(p.in + 1); // HERE misaligned_load
    p.out[threadIdx.x] = __uint_as_float(raw.x);
}
REGISTER_KERNEL(misaligned_load, 32);

KERNEL void __launch_bounds__(32) cp_async_outside(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    cp_async_16(shared + 1024, p.in); // HERE cp_async_outside
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(cp_async_outside, 32);

KERNEL void __launch_bounds__(32) write_outside(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    reinterpret_cast<float *>(shared)[256] = 1.0f; // HERE write_outside
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(write_outside, 32);

KERNEL void __launch_bounds__(32) copy_at_exit(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    cp_async_16(shared + threadIdx.x * 16, p.in + threadIdx.x * 4); // HERE copy_at_exit
    cp_async_commit();
}
REGISTER_KERNEL(copy_at_exit, 32);

KERNEL void __launch_bounds__(32) too_many_arrivals(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    unsigned long long *bar = reinterpret_cast<unsigned long long *>(shared);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_expect_tx(bar, 16);
        mbar_arrive(bar); // HERE too_many_arrivals
    }
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(too_many_arrivals, 32);

KERNEL void __launch_bounds__(32) no_mbarrier(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    mbar_wait(reinterpret_cast<unsigned long long *>(shared), 0); // HERE no_mbarrier
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(no_mbarrier, 32);

KERNEL void __launch_bounds__(32) overwritten_mbarrier(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    unsigned long long *bar = reinterpret_cast<unsigned long long *>(shared);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        *bar = 0;
        mbar_arrive(bar); // HERE overwritten_mbarrier
    }
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(overwritten_mbarrier, 32);

KERNEL void __launch_bounds__(32) missing_arrival(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    unsigned long long *bar = reinterpret_cast<unsigned long long *>(shared);
    if (threadIdx.x == 0) {
        mbar_init(bar, 2);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_arrive(bar);
    }
    mbar_wait(bar, 0); // HERE missing_arrival
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(missing_arrival, 32);

KERNEL void __launch_bounds__(128) unfenced_wgmma(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    float sum[32] = {};
    const unsigned long long tile = smem_descriptor(shared, 0, 1024);
    wgmma_bf16<64, false, false>(sum, tile, tile, false); // HERE unfenced_wgmma
    wgmma_commit();
    wgmma_wait<0>();
    p.out[threadIdx.x] = sum[0];
}
REGISTER_KERNEL(unfenced_wgmma, 128);

KERNEL void __launch_bounds__(128) wgmma_at_exit(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    float sum[32] = {};
    const unsigned long long tile = smem_descriptor(shared, 0, 1024);
    wgmma_fence();
    wgmma_bf16<64, false, false>(sum, tile, tile, false); // HERE wgmma_at_exit
    wgmma_commit();
    p.out[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(wgmma_at_exit, 128);

// ---- what only a sanitizer sees ---------------------------------------------------------------------------

KERNEL void __launch_bounds__(128) read_past_the_end(const __grid_constant__ MistakeParams p) {
    p.out[threadIdx.x] = p.in[threadIdx.x + 1]; // HERE read_past_the_end
}
REGISTER_KERNEL(read_past_the_end, 128);

// Correct in the forward order of lanes, and so for every schedule that keeps it.
KERNEL void __launch_bounds__(32) race(const __grid_constant__ MistakeParams p) {
    DYN_SMEM(shared);
    float *slots = reinterpret_cast<float *>(shared);
    slots[threadIdx.x] = p.in[threadIdx.x];
    p.out[threadIdx.x] = threadIdx.x == 0 ? 0.0f : slots[threadIdx.x - 1]; // HERE race
}
REGISTER_KERNEL(race, 32);
