// Gated activations (Shazeer, 2020), SwiGLU and others, and their backward. Verbs: glu, glu_bw.
//
//   x[rows, 2 width] = [g | u]
//   y[rows, width] = f(g) u
//   dg = dy u f'(g),  du = dy f(g)
//
// Grid: x covers the columns, 256 threads of 16 bytes each (one element each where a row is not a whole number of 16
// bytes); y strides over the rows. Bound by memory: forward 3 and backward 5 elements of traffic for each of y, about
// 20 operations.
#include "activation.cuh"

template <class Real, unsigned count> DEVICE void swiglu_columns(const SwigluParams &p) {
    const unsigned column = (blockIdx.x * ROW_THREADS + threadIdx.x) * count;
    if (column >= p.width) {
        return;
    }
    for (unsigned row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const Real *x = static_cast<const Real *>(p.x) + static_cast<size_t>(row) * 2 * p.width + column;
        float g[count], u[count], y[count];
        load(g, x);
        load(u, x + p.width);
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            y[i] = activation(p.kind, g[i]) * u[i];
        }
        store(static_cast<Real *>(p.y) + static_cast<size_t>(row) * p.width + column, y);
    }
}

template <class Real> DEVICE void swiglu(const SwigluParams &p) {
    if (vectorised<Real>(p.width, p.x, p.y)) {
        swiglu_columns<Real, LANES<Real>>(p);
    } else {
        swiglu_columns<Real, 1>(p);
    }
}

template <class Real, unsigned count> DEVICE void swiglu_bw_columns(const SwigluBwParams &p) {
    const unsigned column = (blockIdx.x * ROW_THREADS + threadIdx.x) * count;
    if (column >= p.width) {
        return;
    }
    for (unsigned row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const size_t at = static_cast<size_t>(row) * p.width + column;
        const size_t pair = static_cast<size_t>(row) * 2 * p.width + column;
        const Real *x = static_cast<const Real *>(p.x) + pair;
        float dy[count], g[count], u[count], dg[count], du[count];
        load(dy, static_cast<const Real *>(p.dy) + at);
        load(g, x);
        load(u, x + p.width);
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            // In this order what is too large for a float on the way is too large at the end.
            dg[i] = dy[i] * (u[i] * slope(p.kind, g[i]));
            du[i] = dy[i] * activation(p.kind, g[i]);
        }
        Real *dx = static_cast<Real *>(p.dx) + pair;
        store(dx, dg);
        store(dx + p.width, du);
    }
}

template <class Real> DEVICE void swiglu_bw(const SwigluBwParams &p) {
    if (vectorised<Real>(p.width, p.x, p.dy, p.dx)) {
        swiglu_bw_columns<Real, LANES<Real>>(p);
    } else {
        swiglu_bw_columns<Real, 1>(p);
    }
}

EXPORT_KERNEL(swiglu_f32, (ROW_THREADS), SwigluParams, swiglu<float>);
EXPORT_KERNEL(swiglu_bf16, (ROW_THREADS), SwigluParams, swiglu<bf16>);
EXPORT_KERNEL(swiglu_bw_f32, (ROW_THREADS), SwigluBwParams, swiglu_bw<float>);
EXPORT_KERNEL(swiglu_bw_bf16, (ROW_THREADS), SwigluBwParams, swiglu_bw<bf16>);
