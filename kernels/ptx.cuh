// The only file with inline PTX. Every wrapper has a device body and a host body side by side; the latter
// calls the emulation (host/simt.h), which carries out what the former promises and checks what the hardware would
// not.
//
// PLACE is a trailing parameter that on the host tells the emulation where in the kernel text it was called
// from, and on the device is not there, and HERE passes it on; PLACE_ONLY and HERE_ONLY are for functions
// without other parameters.
#pragma once

#ifdef __CUDACC__ // nvcc and NVRTC
#include "params.h"
#ifdef __CUDACC_RTC__
#define INFINITY __int_as_float(0x7f800000)
#endif
#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__
#define PLACE
#define PLACE_ONLY
#define HERE
#define HERE_ONLY
#define REGISTER_KERNEL(name, max_threads)
#define DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]
#else
#include "host/simt.h"
#define DEVICE inline
#define KERNEL
#define PLACE , [[maybe_unused]] ::simt::Place place = ::simt::Place::current()
#define PLACE_ONLY [[maybe_unused]] ::simt::Place place = ::simt::Place::current()
#define HERE , place
#define HERE_ONLY place
#endif

// mbarrier and TMA: sm_90 and later, but not in the passes for older targets.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define DUEL_SM90
#endif
// wgmma and setmaxnreg: sm_90a only.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DUEL_SM90A
#endif

// The upper half of a float. Defined here and not taken from cuda_bf16.h, so that NVRTC needs no headers of
// the toolkit.
struct bf16 {
    unsigned short bits;
};

// KERNEL begins a kernel that is written out, with tensor maps before its params struct; REGISTER_KERNEL
// follows it. (On the host kernels are ordinary C++ functions, so that variants of one can be linked
// together.)

// A kernel of one params struct: `EXPORT_KERNEL(gelu_f32, (256), GeluParams, gelu<float>)` compiles
// `gelu<float>` as a kernel of that name with the launch bounds in parentheses (threads, and blocks a
// multiprocessor if given).
#define EXPORT_KERNEL(name, bounds, Params, ...)                                                             \
    KERNEL void __launch_bounds__ bounds name(const __grid_constant__ Params params) {                       \
        __VA_ARGS__(params);                                                                                 \
    }                                                                                                        \
    REGISTER_KERNEL(name, FIRST_OF bounds)
#define FIRST_OF(first, ...) first

// ---- memory -----------------------------------------------------------------------------------------------

// 16 bytes at once.
DEVICE uint4 load_16(const void *at PLACE) {
#ifndef __CUDACC__
    simt::check_aligned(at, 16, "load_16", place);
#endif
    return *static_cast<const uint4 *>(at);
}

DEVICE void store_16(void *at, uint4 value PLACE) {
#ifndef __CUDACC__
    simt::check_aligned(at, 16, "store_16", place);
#endif
    *static_cast<uint4 *>(at) = value;
}

// 32-bit address of shared memory, as instructions and descriptors want it.
DEVICE unsigned smem_address(const void *at PLACE) {
#ifdef __CUDACC__
    return static_cast<unsigned>(__cvta_generic_to_shared(at));
#else
    return simt::shared_offset(at, 0, 1, "smem_address", place);
#endif
}

// ---- numbers ----------------------------------------------------------------------------------------------

DEVICE float bf16_to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

// Rounds to nearest even; a NaN stays one.
DEVICE bf16 float_to_bf16(float x) {
#ifdef __CUDACC__
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#else
    const unsigned bits = __float_as_uint(x);
    const unsigned rounded = std::isnan(x) ? bits | 1u << 22 : bits + 0x7fff + (bits >> 16 & 1);
    return {static_cast<unsigned short>(rounded >> 16)};
#endif
}

// Two floats as two bf16 in a register, the first in the lower half.
DEVICE unsigned pack_bf16(float low, float high) {
#ifdef __CUDACC__
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return float_to_bf16(low).bits | static_cast<unsigned>(float_to_bf16(high).bits) << 16;
#endif
}

DEVICE float bf16_low(unsigned word) { return __uint_as_float(word << 16); }
DEVICE float bf16_high(unsigned word) { return __uint_as_float(word & 0xffff0000u); }

// x y, rounded: the compiler does not make it part of a fused multiply-add.
DEVICE float multiply_rounded(float x, float y) {
#ifdef __CUDACC__
    return __fmul_rn(x, y);
#else
    const volatile float product = x * y;
    return product;
#endif
}
DEVICE double multiply_rounded(double x, double y) {
#ifdef __CUDACC__
    return __dmul_rn(x, y);
#else
    const volatile double product = x * y;
    return product;
#endif
}

// 2^x, relative error about 2^-22; subnormal results are 0.
DEVICE float exp2_approx(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    const float y = std::exp2(x);
    return y < 1.17549435e-38f ? 0.0f : y;
#endif
}

// ---- matrix instructions of a warp (sm_80) ----------------------------------------------------------------
// Fragments: with g = lane / 4 and t = 2 * (lane % 4), a register holds two neighbouring bf16, the lower half
// first.

// Four 8x8 matrices of bf16 from shared memory. Lane 8i + r gives the address of row r of matrix i (16 bytes, aligned);
// register i of a lane is row g, columns t and t + 1 of matrix i; transposed, column and row change places.
DEVICE void ldmatrix_x4(unsigned (&r)[4], const void *row PLACE) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem_address(row))
                 : "memory");
#else
    simt::ldmatrix(r, 4, row, false, place);
#endif
}

DEVICE void ldmatrix_x4_trans(unsigned (&r)[4], const void *row PLACE) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem_address(row))
                 : "memory");
#else
    simt::ldmatrix(r, 4, row, true, place);
#endif
}

// d[16, 8] += a[16, 16] · b[16, 8], bf16 products summed in float.
// a: rows g, g + 8, g, g + 8 at columns t, t, t + 8, t + 8. b: column g at rows t (b0) and t + 8 (b1).
// d: row g at columns t, t + 1, then row g + 8.
DEVICE void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1 PLACE) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    simt::mma_m16n8k16(d, a, b0, b1, place);
#endif
}

// ---- asynchronous copies of a thread (sm_80) --------------------------------------------------------------

// Starts copying 16 aligned bytes to shared memory; where `valid` is false the bytes become 0 and nothing is
// read.
DEVICE void cp_async_16(void *shared, const void *global, bool valid = true PLACE) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(smem_address(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
#else
    simt::copy_async(shared, global, valid, place);
#endif
}

// Closes the group of the copies that this thread has started since the last commit.
DEVICE void cp_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    simt::copy_commit();
#endif
}

// Waits until at most `pending` of this thread's committed groups are unfinished. Other threads see the data
// after a barrier.
template <int pending> DEVICE void cp_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" : : "n"(pending) : "memory");
#else
    simt::copy_wait(pending);
#endif
}

// ---- named barriers ---------------------------------------------------------------------------------------
// `count` threads, a multiple of 32, take part in barrier `id` (1 to 15; 0 is __syncthreads).

// __syncthreads for helper functions: an error names the place that called them.
DEVICE void block_sync(PLACE_ONLY) { __syncthreads(HERE_ONLY); }

// Arrives and waits for all of them.
DEVICE void bar_sync(unsigned id, unsigned count PLACE) {
#ifdef __CUDACC__
    asm volatile("barrier.sync %0, %1;" : : "r"(id), "r"(count) : "memory");
#else
    simt::barrier(id, count, true, "bar_sync", place);
#endif
}

// Arrives and goes on.
DEVICE void bar_arrive(unsigned id, unsigned count PLACE) {
#ifdef __CUDACC__
    asm volatile("barrier.arrive %0, %1;" : : "r"(id), "r"(count) : "memory");
#else
    simt::barrier(id, count, false, "bar_arrive", place);
#endif
}

#ifdef DUEL_SM90
// ---- mbarriers (sm_90) ------------------------------------------------------------------------------------
// Eight bytes of shared memory. A phase ends when `count` arrivals and all expected bytes are in.

// By one thread; then mbar_init_fence and a __syncthreads before anyone uses it.
DEVICE void mbar_init(unsigned long long *bar, unsigned count PLACE) {
#ifdef __CUDACC__
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(smem_address(bar)), "r"(count) : "memory");
#else
    simt::mbarrier_init(bar, count, place);
#endif
}

// Makes initialised mbarriers known to the copy engine.
DEVICE void mbar_init_fence() {
#ifdef __CUDACC__
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Arrives, and lets the phase wait for so many bytes of TMA loads more.
DEVICE void mbar_expect_tx(unsigned long long *bar, unsigned bytes PLACE) {
#ifdef __CUDACC__
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(smem_address(bar)), "r"(bytes)
                 : "memory");
#else
    simt::mbarrier_arrive(bar, bytes, place);
#endif
}

DEVICE void mbar_arrive(unsigned long long *bar PLACE) {
#ifdef __CUDACC__
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(smem_address(bar)) : "memory");
#else
    simt::mbarrier_arrive(bar, 0, place);
#endif
}

// Waits for the end of the phase of this parity. The first phase has parity 0; the one before it counts as
// ended, so that a wait with parity 1 on a fresh barrier returns at once.
DEVICE void mbar_wait(unsigned long long *bar, unsigned parity PLACE) {
#ifdef __CUDACC__
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again_%=;\n"
                 "}"
                 :
                 : "r"(smem_address(bar)), "r"(parity)
                 : "memory");
#else
    simt::mbarrier_wait(bar, parity, place);
#endif
}

// ---- TMA (sm_90) ------------------------------------------------------------------------------------------
// By one thread. Coordinates are elements, the contiguous dimension first; outside the array a load gives 0
// and a store does nothing, and a load counts the whole box's bytes all the same. The tile in shared memory
// is aligned to 128 bytes, or to eight rows of the swizzle.

// Makes ordinary writes to shared memory visible to TMA stores and wgmma that follow a barrier.
DEVICE void fence_proxy_async() {
#ifdef __CUDACC__
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Fetches a tensor map into the cache.
DEVICE void tma_prefetch(const TensorMap *map) {
#ifdef __CUDACC__
    asm volatile("prefetch.tensormap [%0];" : : "l"(map) : "memory");
#else
    (void)map;
#endif
}

DEVICE void tma_load_2d(void *shared, const TensorMap *map, unsigned long long *bar, int x, int y PLACE) {
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];"
                 :
                 : "r"(smem_address(shared)), "l"(map), "r"(smem_address(bar)), "r"(x), "r"(y)
                 : "memory");
#else
    simt::tma_load(shared, map, bar, {x, y, 0}, 2, place);
#endif
}

DEVICE void tma_load_3d(void *shared, const TensorMap *map, unsigned long long *bar, int x, int y,
                        int z PLACE) {
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];"
                 :
                 : "r"(smem_address(shared)), "l"(map), "r"(smem_address(bar)), "r"(x), "r"(y), "r"(z)
                 : "memory");
#else
    simt::tma_load(shared, map, bar, {x, y, z}, 3, place);
#endif
}

DEVICE void tma_store_2d(const TensorMap *map, const void *shared, int x, int y PLACE) {
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];"
                 :
                 : "l"(map), "r"(smem_address(shared)), "r"(x), "r"(y)
                 : "memory");
#else
    simt::tma_store(map, shared, {x, y, 0}, 2, place);
#endif
}

// Closes the group of the stores that this thread has started.
DEVICE void tma_store_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
    simt::tma_store_commit();
#endif
}

// Waits until at most `pending` of this thread's groups still read shared memory.
template <int pending> DEVICE void tma_store_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.wait_group.read %0;" : : "n"(pending) : "memory");
#else
    simt::tma_store_wait(pending);
#endif
}
#endif // DUEL_SM90

#ifdef DUEL_SM90A
// ---- warpgroup matrix instructions (sm_90a) ---------------------------------------------------------------
// d[64, N] = a[64, 16] · b[16, N] (+ d) by 128 threads, asynchronous: d is not to be touched, nor the
// operands in shared memory overwritten, before the wait. Accumulator i of thread t of the warpgroup is row
// 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (t % 4) + i % 2.

// Descriptor of an operand in shared memory with the 128-byte swizzle: tiles of 8 rows of 128 bytes, aligned
// to 1024. K-major (a row holds 64 values of k): `stride` is the bytes from 8 rows to the next 8, `leading`
// is not used; add 32 bytes to the address for each further 16 of k. MN-major (a row holds 64 values of m or
// n): `leading` is the bytes from 64 columns to the next 64, `stride` from 8 values of k to the next 8.
DEVICE unsigned long long smem_descriptor(const void *at, unsigned leading, unsigned stride PLACE) {
    const auto field = [](unsigned bytes) { return static_cast<unsigned long long>((bytes & 0x3ffff) >> 4); };
    return field(smem_address(at HERE)) | field(leading) << 16 | field(stride) << 32 | 1ull << 62;
}

// Orders earlier accesses to registers before the wgmma that follow; needed before the first and after every
// wait.
DEVICE void wgmma_fence(PLACE_ONLY) {
#ifdef __CUDACC__
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
    simt::wgmma_fence(place);
#endif
}

// Closes the group of the wgmma issued since the last commit.
DEVICE void wgmma_commit(PLACE_ONLY) {
#ifdef __CUDACC__
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    simt::wgmma_commit(place);
#endif
}

// Waits until at most `pending` groups are unfinished.
template <int pending> DEVICE void wgmma_wait(PLACE_ONLY) {
#ifdef __CUDACC__
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(pending) : "memory");
#else
    simt::wgmma_wait(pending, place);
#endif
}

// Ties what wgmma wrote to this place, right after the wait for it: the compiler sees no link between the two, and
// could move what is computed from these registers before the wait.
template <unsigned count> DEVICE void wgmma_results([[maybe_unused]] float (&x)[count]) {
#ifdef __CUDACC__
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        asm volatile("" : "+f"(x[i])::"memory");
    }
#endif
}

// Gives registers back to the multiprocessor or takes more, for every warp of a warpgroup: a multiple of 8
// in 24..256.
template <int registers> DEVICE void decrease_registers() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256, "what setmaxnreg accepts");
#ifdef __CUDACC__
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(registers));
#endif
}
template <int registers> DEVICE void increase_registers() {
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256, "what setmaxnreg accepts");
#ifdef __CUDACC__
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(registers));
#endif
}

// Operand lists of the instruction for 64, 128 and 256 columns: register names and the accumulators bound to
// them.
#define WGMMA_NAMES_0_32                                                                                     \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "   \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_REGISTERS_0_32                                                                                 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),          \
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),             \
        "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),           \
        "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),           \
        "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define WGMMA_NAMES_32_64                                                                                    \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, "   \
    "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_REGISTERS_32_64                                                                                \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),  \
        "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]),           \
        "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),           \
        "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]),           \
        "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define WGMMA_NAMES_64_128                                                                                   \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "   \
    "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, "     \
    "%103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, "       \
    "%119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_REGISTERS_64_128                                                                               \
    "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]),  \
        "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]),           \
        "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]),           \
        "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]),           \
        "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]),           \
        "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]),    \
        "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]),    \
        "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]),    \
        "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
#define WGMMA_NAMES_64 WGMMA_NAMES_0_32
#define WGMMA_NAMES_128 WGMMA_NAMES_0_32 ", " WGMMA_NAMES_32_64
#define WGMMA_NAMES_256 WGMMA_NAMES_128 ", " WGMMA_NAMES_64_128
#define WGMMA_REGISTERS_64 WGMMA_REGISTERS_0_32
#define WGMMA_REGISTERS_128 WGMMA_REGISTERS_0_32, WGMMA_REGISTERS_32_64
#define WGMMA_REGISTERS_256 WGMMA_REGISTERS_128, WGMMA_REGISTERS_64_128

// The instruction with both operands in shared memory. `p` to `t` are the numbers of the operands that follow
// the accumulators.
#define WGMMA_SHARED(columns, p, q, r, s, t)                                                                 \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #r ", 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" WGMMA_NAMES_##columns    \
                 "}, %" #p ", %" #q ", add, 1, 1, %" #s ", %" #t ";\n}"                                      \
                 : WGMMA_REGISTERS_##columns                                                                 \
                 : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(a_mn_major)), "n"(int(b_mn_major)))

// The instruction with the left operand in registers.
#define WGMMA_REGISTER(columns, p, q, r, s, t, u, v)                                                         \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #u ", 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" WGMMA_NAMES_##columns    \
                 "}, {%" #p ", %" #q ", %" #r ", %" #s "}, %" #t ", add, 1, 1, %" #v ";\n}"                  \
                 : WGMMA_REGISTERS_##columns                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)),                 \
                   "n"(int(b_mn_major)))

// Both operands in shared memory, behind descriptors; K-major unless the template says MN-major. Where
// `accumulate` is false, d is overwritten.
template <int columns, bool a_mn_major, bool b_mn_major> DEVICE void
wgmma_bf16(float (&d)[columns / 2], unsigned long long a, unsigned long long b, bool accumulate PLACE) {
    static_assert(columns == 64 || columns == 128 || columns == 256, "64, 128 or 256 columns");
#ifdef __CUDACC__
    if constexpr (columns == 64) {
        WGMMA_SHARED(64, 32, 33, 34, 35, 36);
    } else if constexpr (columns == 128) {
        WGMMA_SHARED(128, 64, 65, 66, 67, 68);
    } else {
        WGMMA_SHARED(256, 128, 129, 130, 131, 132);
    }
#else
    simt::wgmma({d, nullptr, a, b, columns, a_mn_major, b_mn_major, accumulate}, place);
#endif
}

// The left operand in registers, each warp's 16 rows as mma_m16n8k16_bf16 has them.
template <int columns, bool b_mn_major> DEVICE void
wgmma_bf16(float (&d)[columns / 2], const unsigned (&a)[4], unsigned long long b, bool accumulate PLACE) {
    static_assert(columns == 64 || columns == 128 || columns == 256, "64, 128 or 256 columns");
#ifdef __CUDACC__
    if constexpr (columns == 64) {
        WGMMA_REGISTER(64, 32, 33, 34, 35, 36, 37, 38);
    } else if constexpr (columns == 128) {
        WGMMA_REGISTER(128, 64, 65, 66, 67, 68, 69, 70);
    } else {
        WGMMA_REGISTER(256, 128, 129, 130, 131, 132, 133, 134);
    }
#else
    simt::wgmma({d, a, 0, b, columns, false, b_mn_major, accumulate}, place);
#endif
}
#endif // DUEL_SM90A
