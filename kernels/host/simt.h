// The CUDA language on the host: what a kernel text needs to compile with g++ or clang and run there, one
// fiber a CUDA thread. ptx.cuh includes this when no CUDA compiler is at work; simt.cpp holds the scheduler.
//
// Threads of a block take turns on one OS thread. They switch at barriers, at warp and warpgroup instructions
// and where they wait for an mbarrier, in an order that the launch chooses (forward, reverse, random), so
// that code which relies on an order fails under another. Asynchronous copies and wgmma happen at the latest
// moment that the programming model allows (or, if the launch says so, at once; under the random order TMA
// loads do either). Shared memory starts as NaNs. A mistake ends the launch with a message that names the
// thread and its file and line; see `simt::fail`.
//
// Not modelled: weak memory order between barriers, bank conflicts, fences between proxies, clusters, the
// internal rounding of tensor cores. Static shared memory is not there on purpose: kernels use DYN_SMEM.
//
// Under -fsanitize=address fibers and shared memory are made known to AddressSanitizer. Under
// -fsanitize=thread each CUDA thread is a thread of its own for ThreadSanitizer and only the model's own
// synchronisation orders them, which makes it a race checker for kernels.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "../params.h"

// ---- language ---------------------------------------------------------------------------------------------

#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::max;
using std::min;

// ---- scheduler --------------------------------------------------------------------------------------------

namespace simt {

// A place in the kernel text. As a default argument it is the place of the call.
struct Place {
    const char *file;
    unsigned line;
    static constexpr Place current(const char *file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
        return {file, line};
    }
};

// What a kernel can ask about its block.
struct Block {
    uint3 index, dim, grid;
    unsigned char *shared;
    size_t shared_bytes;
};

// What a kernel can ask about its thread.
struct Thread {
    uint3 index;
    unsigned linear;
    Block *block;
};

// The thread that runs.
// `__thread` is `thread_local` without a look at whether it has been constructed, at every use.
extern __thread Thread *current;

// Ends the launch with a message in printf's manner, to which the block, the thread and the place are added.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(Place place, const char *format, ...);

// What the last thread to arrive does for all that met: `arguments` has an entry for each thread of the
// group.
template <class F> void invoke(void *closure, void *const *arguments) {
    (*static_cast<F *>(closure))(arguments);
}
struct Action {
    void (*call)(void *closure, void *const *arguments);
    void *closure;
};

// Threads of a warp (those of `mask`) or of a warpgroup of 128 wait for each other; the last one acts. That
// makes no order between their accesses to memory; __syncwarp does, and barriers do.
void meet_warp(unsigned mask, void *argument, const char *what, Place place, Action action);
void sync_warp(unsigned mask, Place place);
void meet_warpgroup(void *argument, const char *what, Place place, Action action);

// Barrier `id`: waits (or only arrives) until `count` threads are there; a count of 0 is every live thread.
void barrier(unsigned id, unsigned count, bool wait, const char *what, Place place);

// Offset of `[at, at + bytes)` in shared memory; fails when it does not lie in it or is not aligned.
unsigned shared_offset(const void *at, size_t bytes, size_t align, const char *what, Place place);

// Fails when `at` is not a multiple of `align`.
inline void check_aligned(const void *at, size_t align, const char *what, Place place) {
    if (reinterpret_cast<uintptr_t>(at) % align) {
        fail(place, "%s: address %p is not a multiple of %zu", what, at, align);
    }
}

// ---- instructions (what each does is said at its wrapper in ptx.cuh) --------------------------------------

void ldmatrix(unsigned *registers, unsigned matrices, const void *row, bool transposed, Place place);
void mma_m16n8k16(float *d, const unsigned *a, unsigned b0, unsigned b1, Place place);
void copy_async(void *shared, const void *global, bool valid, Place place);
void copy_commit();
void copy_wait(unsigned pending);
void mbarrier_init(unsigned long long *bar, unsigned count, Place place);
void mbarrier_arrive(unsigned long long *bar, unsigned expected_bytes, Place place);
void mbarrier_wait(unsigned long long *bar, unsigned parity, Place place);
void tma_load(void *shared, const TensorMap *map, unsigned long long *bar, const int (&at)[3], unsigned rank,
              Place place);
void tma_store(const TensorMap *map, const void *shared, const int (&at)[3], unsigned rank, Place place);
void tma_store_commit();
void tma_store_wait(unsigned pending);

// Operands of one wgmma: A is in registers when `a_registers` is there, else in shared memory.
struct Wgmma {
    float *d;
    const unsigned *a_registers;
    unsigned long long a, b;
    unsigned n;
    bool a_mn_major, b_mn_major, accumulate;
};
void wgmma(const Wgmma &operands, Place place);
void wgmma_fence(Place place);
void wgmma_commit(Place place);
void wgmma_wait(unsigned pending, Place place);

// ---- kernel registry --------------------------------------------------------------------------------------

// Size, alignment and type of a kernel's parameter.
struct Parameter {
    size_t bytes, align;
    const char *(*type)();
};

// Name of a struct of params.h, which is in no namespace: the compiler writes it after its length.
template <class T> const char *struct_name() {
    const char *name = typeid(T).name();
    return name + strspn(name, "0123456789");
}

// A kernel that can be launched by name.
struct Kernel {
    const char *name;
    unsigned max_threads;
    void (*call)(void *const *arguments);
    const Parameter *parameters;
    unsigned parameter_count;
};

struct Registration {
    explicit Registration(const Kernel &kernel);
};

// Calls `kernel` with parameters that are found behind pointers, as cuLaunchKernel does.
template <auto kernel> struct Caller;
template <class... Parameters, void (*kernel)(Parameters...)> struct Caller<kernel> {
    static constexpr Parameter parameters[] = {
        {sizeof(Parameters), alignof(Parameters), struct_name<std::remove_const_t<Parameters>>}...};
    template <size_t... I> static void call_with(void *const *arguments, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<Parameters> *>(arguments[I])...);
    }
    static void call(void *const *arguments) {
        call_with(arguments, std::index_sequence_for<Parameters...>{});
    }
    static Kernel describe(const char *name, unsigned max_threads) {
        return {name, max_threads, call, parameters, sizeof...(Parameters)};
    }
};

} // namespace simt

// The emulation's tests compile changed texts of a kernel beside the right one, under names with a suffix.
#ifndef DUEL_VARIANT
#define DUEL_VARIANT ""
#endif

#define REGISTER_KERNEL(name, max_threads)                                                                   \
    static const ::simt::Registration name##_registration(                                                   \
        ::simt::Caller<&name>::describe(#name DUEL_VARIANT, max_threads))
#define DYN_SMEM(name) unsigned char *const name = ::simt::current->block->shared

#define threadIdx (::simt::current->index)
#define blockIdx (::simt::current->block->index)
#define blockDim (::simt::current->block->dim)
#define gridDim (::simt::current->block->grid)

// ---- barriers and warp functions --------------------------------------------------------------------------

inline void __syncthreads(simt::Place place = simt::Place::current()) {
    simt::barrier(0, 0, true, "__syncthreads", place);
}

inline void __syncwarp(unsigned mask = ~0u, simt::Place place = simt::Place::current()) {
    simt::sync_warp(mask, place);
}

namespace simt {

// Each lane hands in a value and the lane that it wants to read; a lane outside the mask leaves it its own
// value.
template <class T> T shuffle(unsigned mask, T value, unsigned source, const char *what, Place place) {
    static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "a register or two");
    struct Lane {
        T value, result;
        unsigned source;
    } lane{value, value, source};
    auto exchange = [](void *const *lanes) {
        for (unsigned i = 0; i < 32; i++) {
            auto *to = static_cast<Lane *>(lanes[i]);
            if (to && to->source < 32 && lanes[to->source]) {
                to->result = static_cast<Lane *>(lanes[to->source])->value;
            }
        }
    };
    meet_warp(mask, &lane, what, place, {invoke<decltype(exchange)>, &exchange});
    return lane.result;
}

inline unsigned lane() { return current->linear % 32; }

} // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, unsigned source, simt::Place place = simt::Place::current()) {
    return simt::shuffle(mask, value, source % 32, "__shfl_sync", place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes, simt::Place place = simt::Place::current()) {
    return simt::shuffle(mask, value, simt::lane() ^ lanes, "__shfl_xor_sync", place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, simt::Place place = simt::Place::current()) {
    return simt::shuffle(mask, value, simt::lane() + delta, "__shfl_down_sync", place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, simt::Place place = simt::Place::current()) {
    return simt::shuffle(mask, value, simt::lane() - delta, "__shfl_up_sync", place);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Place place = simt::Place::current()) {
    struct Lane {
        bool vote;
        unsigned result;
    } lane{predicate != 0, 0};
    auto count = [](void *const *lanes) {
        unsigned votes = 0;
        for (unsigned i = 0; i < 32; i++) {
            votes |= unsigned(lanes[i] && static_cast<Lane *>(lanes[i])->vote) << i;
        }
        for (unsigned i = 0; i < 32; i++) {
            if (lanes[i]) {
                static_cast<Lane *>(lanes[i])->result = votes;
            }
        }
    };
    simt::meet_warp(mask, &lane, "__ballot_sync", place, {simt::invoke<decltype(count)>, &count});
    return lane.result;
}
inline int __any_sync(unsigned mask, int predicate, simt::Place place = simt::Place::current()) {
    return __ballot_sync(mask, predicate, place) != 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::Place place = simt::Place::current()) {
    return __ballot_sync(mask, !predicate, place) == 0;
}

// Integers only: a sum of floats in no fixed order is never the same twice.
template <class T> T atomicAdd(T *at, T value) {
    static_assert(std::is_integral_v<T>, "float atomics are not reproducible");
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

inline void __threadfence() {}

// ---- numbers ----------------------------------------------------------------------------------------------

namespace simt {
template <class To, class From> To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace simt

inline unsigned __float_as_uint(float x) { return simt::bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits<float>(x); }
inline int __float_as_int(float x) { return simt::bits<int>(x); }
inline float __int_as_float(int x) { return simt::bits<float>(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
template <class T> T __ldg(const T *at) { return *at; }
